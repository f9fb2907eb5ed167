// SPDX-License-Identifier: MIT
/*
 * The power is cut while a damaged filesystem is mended: whatever that leaves can be mended by another run, and every
 * file that was not hit is what it was.
 */
#include "crash.h"
#include "schema.h"

#include <fs/fs.h>
#include <unistd.h>

#define FILES 24u
#define FILE_BYTES 9000u
#define RANDOM_STATES 2u

static struct device *memory;
static uint64_t inos[FILES], dir_ino;
static unsigned hit; /* this file's contents are damaged */

static const struct store_options tiny = {
    .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

static void fill(uint8_t *bytes, unsigned file)
{
    for (unsigned i = 0; i < FILE_BYTES; i++)
        bytes[i] = (uint8_t)(mix(file * 10007 + i / 8) >> i % 8 * 8);
}

struct wanted {
    struct fs_key key;
    uint64_t address;
};

static int find_record(void *ctx, const struct store_item *item)
{
    struct wanted *wanted = ctx;

    if (item->key_len == wanted->key.len && memcmp(item->key, wanted->key.bytes, item->key_len) == 0)
        wanted->address = item->address;
    return 0;
}

/* Contents, a directory's inode and a listing are damaged, and the log since the checkpoint must be replayed. */
static void make_damaged(void)
{
    struct fs_options options = {.store = tiny};
    struct fs_cred cred = {.uid = 1};
    struct store_opened opened;
    struct store_session *raw;
    uint8_t bytes[FILE_BYTES];
    struct fs_session *s;
    struct fs_attr attr;
    struct fs *fs;
    char name[16];

    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(fs_open(memory, &options, &fs, &opened), 0);
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_ROOT, "dir", 0755, &attr), 0);
    dir_ino = attr.ino;
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "file%u", i);
        ck_assert_int_eq(fs_mknod(s, &cred, dir_ino, name, S_IFREG | 0644, 0, &attr), 0);
        inos[i] = attr.ino;
        fill(bytes, i);
        ck_assert_int_eq(fs_write(s, attr.ino, bytes, sizeof bytes, 0, 0), sizeof bytes);
        if (i % 4 == 0)
            ck_assert_int_eq(fs_sync(fs), 0);
    }
    ck_assert_int_eq(fs_sync(fs), 0);
    ck_assert_int_eq(fs_mknod(s, &cred, FS_INO_ROOT, "last", S_IFREG | 0644, 0, &attr), 0);
    ck_assert_int_eq(fs_sync(fs), 0);
    hit = (unsigned)dice(FILES);
    ck_assert_int_eq(store_session_open(fs_store(fs), &raw), 0);
    struct fs_key keys[] = {key_chunk(inos[hit], 0), key_inode(dir_ino), key_listing(dir_ino, 1)};
    unsigned which = (unsigned)dice(7) + 1;
    uint64_t addresses[3] = {0};
    for (unsigned i = 0; i < 3; i++) { /* all are found before the first is damaged: a scan stops there */
        struct wanted found = {.key = keys[i]};
        ck_assert_int_eq(store_scan_log(raw, find_record, &found), 0);
        addresses[i] = found.address;
    }
    for (unsigned i = 0; i < 3; i++)
        if (which & 1u << i)
            ck_assert_int_eq(device_memory_flip(memory, "log.0000000000000000", addresses[i] + 40 + dice(20), 3), 0);
    store_session_close(raw);
    fs_session_close(s);
    fs_abandon(fs);
}

static void repair(struct device *device, bool must_find)
{
    struct fs_check_options options = {.memory_bytes = 1 << 20, .repair = true};
    struct fs_checked checked;
    int rc = fs_check(device, &options, &checked);

    if (rc < 0)
        give_up("repair: %s %s", strerror(-rc), checked.message);
    if (checked.left > 0 || (must_find && checked.faults == 0))
        give_up("%llu faults, %llu left", (unsigned long long)checked.faults, (unsigned long long)checked.left);
}

static uint64_t states;
static struct device *record;

static void check_state(const struct device_crash *crash)
{
    struct fs_options options = {.store = tiny};
    uint8_t bytes[FILE_BYTES], wanted[FILE_BYTES];
    struct store_opened opened;
    struct fs_session *s;
    struct device *state;
    struct fs *fs;

    alarm(60);
    states++;
    ck_assert_int_eq(device_record_crash(record, crash, &state), 0);
    repair(state, false);
    options.store.read_only = true;
    int rc = fs_open(state, &options, &fs, &opened);
    if (rc < 0)
        give_up("open after repair: %s %s", strerror(-rc), opened.message);
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
    for (unsigned i = 0; i < FILES; i++) {
        fill(wanted, i);
        ssize_t got = fs_read(s, inos[i], bytes, sizeof bytes, 0);
        if (i != hit && (got != (ssize_t)sizeof bytes || memcmp(bytes, wanted, sizeof bytes) != 0))
            give_up("file%u, which was not damaged, is not what it was (%zd)", i, got);
    }
    fs_session_close(s);
    fs_abandon(fs);
    device_close(state);
    alarm(0);
}

START_TEST(a_repair_that_is_cut_off_can_be_done_again)
{
    uint64_t wanted = number_from("FASTERFS_STATES", 600 / SLOWER);

    while (states < wanted) {
        sow();
        make_damaged();
        ck_assert_int_eq(device_record_open(memory, &record), 0);
        repair(record, true);
        each_state(record, RANDOM_STATES, check_state);
        device_close(record);
        device_close(memory);
        workload_seed++;
    }
    printf("%llu states\n", (unsigned long long)states);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("repair_states");

    first_seed();
    tcase_add_test(tests, a_repair_that_is_cut_off_can_be_done_again);
    return run_case("repair_states", tests);
}
