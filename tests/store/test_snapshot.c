// SPDX-License-Identifier: MIT
/*
 * Snapshots whose index image the disk cannot read (any more), and scans of them. A page of it must not end the
 * program: reads give -EIO, and are right again when the disk is.
 */
#include "model.h"

#include <device/fault.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define RECORDS 400

static struct device *faulty;
static struct store_snapshot *snapshot;
static uint64_t snapshot_id;

static void write_all(const char *text)
{
    for (int i = 0; i < RECORDS; i++)
        ck_assert_int_eq(store_upsert(session, &i, sizeof i, text, (uint32_t)strlen(text)), 0);
}

/* Half of what it has is newer in the live store. */
static void make_snapshot(struct device *on)
{
    device = on;
    open_store(&tiny);
    write_all("older");
    write_all("then");
    ck_assert_int_eq(store_snapshot_create(store, "then", 1, &snapshot_id), 0);
    for (int i = 0; i < RECORDS; i += 2)
        ck_assert_int_eq(store_upsert(session, &i, sizeof i, "now", 3), 0);
    ck_assert_int_eq(store_snapshot_open(store, snapshot_id, &snapshot), 0);
}

static void expect_then(int i, int result)
{
    char got[8];
    struct store_read read = {.key = &i, .key_len = sizeof i, .buf = got, .buf_len = sizeof got, .snapshot = snapshot};

    ck_assert_int_eq(store_read_wait(session, &read), result);
    if (result == STORE_OK)
        ck_assert(read.value_len == 4 && memcmp(got, "then", 4) == 0);
    read.snapshot = NULL;
    ck_assert_int_eq(store_read_wait(session, &read), STORE_OK);
}

static void expect_batch_then(int result)
{
    struct store_read reads[RECORDS];
    int keys[RECORDS];

    for (int i = 0; i < RECORDS; i++) {
        keys[i] = i;
        reads[i] = (struct store_read){.key = &keys[i], .key_len = sizeof i, .snapshot = snapshot};
    }
    store_read_batch(session, reads, RECORDS);
    store_complete_pending(session, true);
    for (int i = 0; i < RECORDS; i++)
        ck_assert_int_eq(reads[i].result, result);
}

static void expect_all_then(int result)
{
    for (int i = 0; i < RECORDS; i++)
        expect_then(i, result);
    expect_batch_then(result);
}

static void begin(void)
{
    struct device *memory;

    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(device_fault_open(memory, &faulty), 0);
    make_snapshot(faulty);
}

static void fail_reads(bool fail)
{
    device_fault_arm(faulty,
                     &(struct device_fault){.classes = DEVICE_FAULT_READ, .nth = fail, .sticky = true, .error = -EIO});
}

START_TEST(an_image_that_cannot_be_read_any_more_gives_an_error_and_no_more_than_that)
{
    begin();
    expect_all_then(STORE_OK);
    for (unsigned n = 1; n <= 20; n++) { /* the live store's records are in memory */
        fail_reads(true);
        for (int i = RECORDS - 50; i < RECORDS; i++) {
            char got[8];
            struct store_read read = {
                .key = &i, .key_len = sizeof i, .buf = got, .buf_len = sizeof got, .snapshot = snapshot};
            ck_assert_int_eq(store_read_wait(session, &read), -EIO);
        }
        expect_batch_then(-EIO);
        fail_reads(false);
        expect_then((int)n, STORE_OK);
    }
    expect_all_then(STORE_OK);
    write_all("again");
    store_snapshot_close(snapshot);
    close_store();
}
END_TEST

START_TEST(an_image_that_cannot_be_read_is_not_opened_and_not_needed_to_open_the_store)
{
    struct store_opened opened;

    begin();
    store_snapshot_close(snapshot);
    fail_reads(true);
    ck_assert_int_eq(store_snapshot_open(store, snapshot_id, &snapshot), -EIO);
    fail_reads(false);
    close_store();
    device_fault_arm(faulty, &(struct device_fault){.classes = DEVICE_FAULT_READ});
    open_store(&tiny);
    uint64_t reads = device_fault_calls(faulty);
    close_store();
    unsigned rebuilt = 0;
    for (uint64_t n = 1; n <= reads; n++) { /* each read of opening fails once */
        device_fault_arm(faulty, &(struct device_fault){.classes = DEVICE_FAULT_READ, .nth = n, .error = -EIO});
        int rc = store_open(faulty, &tiny, &store, &opened);
        if (rc < 0) {
            ck_assert_uint_ne(opened.message[0], 0);
            continue;
        }
        rebuilt += opened.index_rebuilt;
        ck_assert_int_eq(store_session_open(store, &session), 0);
        ck_assert_int_eq(store_snapshot_open(store, snapshot_id, &snapshot), 0);
        expect_all_then(STORE_OK);
        store_snapshot_close(snapshot);
        store_session_close(session);
        store_abandon(store);
    }
    ck_assert_uint_gt(rebuilt, 1);
}
END_TEST

/* A file that is cut off reads as a mapped page does that the disk cannot give: it would be SIGBUS. */
START_TEST(an_image_on_a_disk_that_is_cut_off_while_it_is_open_gives_an_error)
{
    char path[] = "/tmp/fasterfs-snapshot.XXXXXX", name[512];
    struct device_options options = {0};
    struct device *directory;

    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_int_eq(device_open(path, &options, &directory), 0);
    make_snapshot(directory);
    expect_all_then(STORE_OK);
    DIR *dir = opendir(path);
    for (struct dirent *entry; (entry = readdir(dir));) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (strncmp(entry->d_name, "index.", 6) == 0)
            ck_assert_int_eq(truncate(name, 0), 0);
    }
    for (int i = 0; i < RECORDS; i++)
        expect_then(i, -EIO);
    expect_batch_then(-EIO);
    store_snapshot_close(snapshot);
    close_store();
    device_close(directory);
    rewinddir(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        unlink(name);
    }
    closedir(dir);
    rmdir(path);
}
END_TEST

/* ---- scans -------------------------------------------------------------------------------------------------- */

struct seen {
    unsigned count;
    bool keys[RECORDS];
};

static int see(void *ctx, const struct store_item *item)
{
    struct seen *seen = ctx;
    int i;

    ck_assert(item->key_len == sizeof i && item->value_len == 4 && memcmp(item->value, "then", 4) == 0);
    memcpy(&i, item->key, sizeof i);
    ck_assert(i != 7 && !seen->keys[i]);
    seen->keys[i] = true;
    seen->count++;
    return 0;
}

START_TEST(a_scan_of_a_snapshot_shows_each_key_of_its_moment_once)
{
    int gone = 7;

    ck_assert_int_eq(device_memory_open(&device), 0);
    open_store(&tiny);
    write_all("older");
    write_all("then");
    ck_assert_int_eq(store_delete(session, &gone, sizeof gone), 0);
    ck_assert_int_eq(store_snapshot_create(store, "then", 1, &snapshot_id), 0);
    for (unsigned round = 0; round < 3; round++) {
        struct seen seen = {0};
        ck_assert_int_eq(store_snapshot_open(store, snapshot_id, &snapshot), 0);
        ck_assert_int_eq(store_snapshot_scan(session, snapshot, see, &seen), 0);
        ck_assert_uint_eq(seen.count, RECORDS - 1);
        store_snapshot_close(snapshot);
        for (int i = 0; i < 20000; i++) { /* out of memory, moved, given back */
            int key = i % RECORDS;
            ck_assert_int_eq(store_upsert(session, &key, sizeof key, "much later", 10), 0);
        }
        ck_assert_int_eq(store_commit(store), 0);
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    }
    close_store();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("snapshot");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, an_image_that_cannot_be_read_any_more_gives_an_error_and_no_more_than_that);
    tcase_add_test(tests, an_image_that_cannot_be_read_is_not_opened_and_not_needed_to_open_the_store);
    tcase_add_test(tests, an_image_on_a_disk_that_is_cut_off_while_it_is_open_gives_an_error);
    tcase_add_test(tests, a_scan_of_a_snapshot_shows_each_key_of_its_moment_once);
    return suite_run_case("snapshot", tests);
}
