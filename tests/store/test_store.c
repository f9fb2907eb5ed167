// SPDX-License-Identifier: MIT
/*
 * The store against a plain table, with a ring of 256 KiB so that every operation meets every region;
 * the same after a clean reopen and after a crash.
 */
#include "model.h"

#include <device/fault.h>
#include <errno.h>
#include <pthread.h>

START_TEST(every_operation_agrees_with_a_table_in_every_region)
{
    for (int n = 0; n < 60000; n++)
        step();
    expect_all(&now, NULL);
    close_store();
    open_store(&tiny);
    expect_all(&now, NULL);
}
END_TEST

START_TEST(a_crash_leaves_what_was_committed)
{
    crash_often(step, NULL);
}
END_TEST

enum { MANY = 30000 };

static void expect_many(int line)
{
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t value = 0, len = 0;
        int rc = store_get(session, &i, sizeof i, &value, sizeof value, &len);
        if (rc != STORE_OK || len != sizeof value || value != i * 3)
            ck_abort_msg("line %d key %u: %d, value %u", line, i, rc, value);
    }
}

/* A store of 1 MiB begins with 2048 buckets, which is good for some 12000 keys. */
START_TEST(the_index_grows_with_the_keys_and_again_when_it_is_rebuilt)
{
    struct store_stats stats;

    close_store();
    device_close(device);
    ck_assert_int_eq(device_memory_open(&device), 0);
    tiny.memory_bytes = 1 << 20;
    struct store_options in_background = tiny;
    in_background.no_background = false;
    in_background.commit_interval_ms = 10;
    open_store(&in_background);
    store_stats(store, &stats);
    ck_assert_uint_eq(stats.index_buckets, 2048);
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t value = i * 3;
        ck_assert_int_eq(store_upsert(session, &i, sizeof i, &value, sizeof value), 0);
    }
    for (int i = 0; i < 1000 && stats.index_buckets < 8192; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        store_stats(store, &stats);
    }
    ck_assert_uint_eq(stats.index_buckets, 8192);
    expect_many(__LINE__);
    close_store();
    open_store(&tiny); /* from the image */
    store_stats(store, &stats);
    ck_assert_uint_eq(stats.index_buckets, 8192);
    expect_many(__LINE__);
    close_store();
    struct store_opened opened;
    damage_indexes();
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), 0);
    ck_assert(opened.index_rebuilt);
    ck_assert_int_eq(store_session_open(store, &session), 0);
    store_stats(store, &stats);
    ck_assert_uint_eq(stats.index_buckets, 8192);
    expect_many(__LINE__);
}
END_TEST

START_TEST(a_damaged_index_checkpoint_is_rebuilt_from_the_log)
{
    struct store_opened opened;

    for (int n = 0; n < 8000; n++)
        step();
    close_store();
    damage_indexes();
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), 0);
    ck_assert(opened.index_rebuilt);
    ck_assert_int_eq(store_session_open(store, &session), 0);
    expect_all(&now, NULL);
}
END_TEST

/* The teardown closes the store of the fixture: give it back one. */
static int count_images(void *ctx, const char *name)
{
    *(int *)ctx += strncmp(name, "index.", 6) == 0;
    return 0;
}

START_TEST(a_checkpoint_without_room_for_its_superblock_leaves_no_image)
{
    struct device *memory = device;
    int images = 0;

    close_store();
    ck_assert_int_eq(device_fault_open(memory, &device), 0);
    open_store(&tiny);
    upsert_one(0);
    device_fault_arm(device, &(struct device_fault){.classes = DEVICE_FAULT_NAME, .nth = 2, .error = -ENOSPC});
    ck_assert_int_eq(store_checkpoint(store),
                     -ENOSPC); /* the image is the first that is made, the superblock the next */
    device_fault_arm(device, &(struct device_fault){.classes = 0});
    ck_assert_int_eq(device_list(device, count_images, &images), 0);
    ck_assert_int_eq(images, 0);
    expect_all(&now, NULL);
    close_store();
    device_close(device);
    device = memory;
    open_store(&tiny);
}
END_TEST

START_TEST(a_store_whose_superblock_finds_no_room_is_not_opened_for_writing)
{
    struct device *memory = device;
    struct store_opened opened;

    upsert_one(0);
    close_store();
    ck_assert_int_eq(device_fault_open(memory, &device), 0);
    device_fault_arm(device, &(struct device_fault){.classes = DEVICE_FAULT_NAME, .nth = 1, .error = -ENOSPC});
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), -ENOSPC);
    ck_assert_str_ne(opened.message, "");
    device_fault_arm(device, &(struct device_fault){.classes = 0});
    open_store(&tiny);
    expect_all(&now, NULL);
    close_store();
    device_close(device);
    device = memory;
    open_store(&tiny);
}
END_TEST

static int64_t size_of(const char *name)
{
    int file = device_file_open(device, name, 0);
    int64_t size = device_file_size(device, file);

    device_file_close(device, file);
    return size;
}

/* Were it given back, somebody else could take it on a full disk, and the store could not be opened. */
START_TEST(superblocks_keep_the_room_that_they_have)
{
    uint64_t ids[20];
    char label[16];

    for (unsigned i = 0; i < 20; i++) {
        sprintf(label, "%u", i);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &ids[i]), 0);
    }
    int64_t size = size_of("superblock.0");
    ck_assert_int_gt(size, DEVICE_BLOCK_BYTES);
    for (unsigned i = 0; i < 20; i++)
        ck_assert_int_eq(store_snapshot_delete(store, ids[i]), 0);
    close_store();
    ck_assert_int_eq(size_of("superblock.0"), size);
    ck_assert_int_eq(size_of("superblock.1"), size);
    open_store(&tiny);
}
END_TEST

static void open_another(void)
{
    device_close(device);
    ck_assert_int_eq(device_memory_open(&device), 0);
    open_store(&tiny);
}

/* Its format is read once the checksum says that it is one. */
START_TEST(a_bit_of_a_superblock_does_not_make_it_one_of_another_format)
{
    struct store_opened opened;
    const char *name = _i < 32 ? "superblock.0" : "superblock.1";
    uint64_t offset = 8 + (uint64_t)_i % 32 / 8; /* the format */

    for (int n = 0; n < 200; n++)
        step();
    close_store();
    ck_assert_int_eq(device_memory_flip(device, name, offset, (unsigned)_i % 8), 0);
    open_store(&tiny);
    expect_all(&now, NULL);
    close_store();
    for (int i = 0; i < 2; i++) /* both: that is damage, too */
        ck_assert_int_eq(device_memory_flip(device, i == 0 ? "superblock.0" : "superblock.1", offset, 7), 0);
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), -EUCLEAN);
    open_another();
}
END_TEST

START_TEST(damage_before_a_later_commit_is_told_and_not_taken_for_the_end)
{
    struct store_opened opened;

    for (int n = 0; n < 5; n++) {
        for (int i = 0; i < 20; i++)
            upsert_one(i);
        ck_assert_int_eq(store_commit(store), 0);
    }
    durable = now;
    crash();
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", 4096 + 32, (unsigned)dice(8)), 0); /* a key */
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), -EUCLEAN);
    ck_assert_msg(strstr(opened.message, "damaged at address 4096") != NULL, "%s", opened.message);
    open_another();
}
END_TEST

START_TEST(a_flipped_bit_is_an_error_for_its_key_and_harmless_to_the_others)
{
    static uint8_t value[200], got[200];
    uint32_t len;
    unsigned errors = 0;

    memset(value, 7, sizeof value);
    for (unsigned k = 0; k < 100; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    close_store();
    uint64_t at = 4096 + 240 * 50 + dice(32 + 8 + 200); /* in the 51st record: header, key, value */
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", at, (unsigned)dice(8)), 0);
    open_store(&tiny);
    for (unsigned k = 0; k < 100; k++) {
        int rc = store_get(session, &k, sizeof k, got, sizeof got, &len);
        errors += rc == -EIO;
        if (rc != -EIO) {
            ck_assert_int_eq(rc, STORE_OK);
            ck_assert_mem_eq(got, value, sizeof got);
        }
    }
    ck_assert_uint_eq(errors, 1);
}
END_TEST

START_TEST(a_snapshot_stays_as_it_was)
{
    static struct model then[3];
    struct store_snapshot *snapshot;
    uint64_t id[3];
    char label[16];

    for (int k = 0; k < 3; k++) {
        for (int n = 0; n < 5000; n++)
            step();
        sprintf(label, "s%d", k);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &id[k]), 0);
        ck_assert_int_lt(store_snapshot_create(store, label, 1, &id[k]), 0);
        then[k] = now;
    }
    for (int n = 0; n < 5000; n++)
        step();
    durable = then[2]; /* a snapshot is durable */
    crash();
    open_store(&tiny);
    expect_all(&now, NULL);
    for (int n = 0; n < 5000; n++)
        step();
    for (int k = 0; k < 3; k++) {
        ck_assert_int_eq(store_snapshot_open(store, id[k], &snapshot), 0);
        expect_all(&then[k], snapshot);
        ck_assert_int_lt(store_snapshot_delete(store, id[k]), 0);
        store_snapshot_close(snapshot);
        ck_assert_int_eq(store_snapshot_delete(store, id[k]), 0);
        ck_assert_int_lt(store_snapshot_open(store, id[k], &snapshot), 0);
    }
    expect_all(&now, NULL);
}
END_TEST

/* ---- threads: counters by rmw, pairs by unit, commits and snapshots meanwhile ------------------ */

#define THREADS 4
#define ROUNDS 4000

static uint32_t counter_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)old;
    (void)old_len;
    *capacity = 0;
    return *(const uint32_t *)ctx;
}

static void counter_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    uint64_t count = 0;

    (void)ctx;
    if (old)
        memcpy(&count, old, sizeof count);
    if (old != value && new_len > 8)
        memset((uint8_t *)value + 8, 0, new_len - 8);
    (void)old_len;
    count++;
    memcpy(value, &count, sizeof count);
}

static const struct store_rmw counter = {counter_size, counter_write};

static void *count_up(void *arg)
{
    struct store_session *s;
    uint64_t mine = (uint64_t)(uintptr_t)arg;
    uint8_t noise[700] = {0};

    ck_assert_int_eq(store_session_open(store, &s), 0);
    for (uint64_t n = 0; n < ROUNDS; n++) {
        char a[16], b[16];
        uint32_t len = 8 + (uint32_t)(n * 13 + mine) % 64;
        sprintf(a, "a%llu", (unsigned long long)(n % 7));
        sprintf(b, "b%llu", (unsigned long long)(n % 7));
        store_unit_begin(s);
        ck_assert_int_eq(store_unit_rmw(s, a, (uint32_t)strlen(a), &counter, &len), 0);
        ck_assert_int_eq(store_unit_rmw(s, b, (uint32_t)strlen(b), &counter, &len), 0);
        ck_assert_int_eq(store_unit_apply(s, 0), 0);
        char key[32];
        sprintf(key, "n%llu-%llu", (unsigned long long)mine, (unsigned long long)n);
        ck_assert_int_eq(store_upsert(s, key, (uint32_t)strlen(key), noise, (uint32_t)(n % sizeof noise)), 0);
        if (n % 500 == 0)
            ck_assert_int_eq(store_commit(store), 0);
    }
    store_session_close(s);
    return NULL;
}

static uint64_t counter_value(const char *kind, int i, const struct store_snapshot *snapshot)
{
    char key[16];
    uint64_t value = 0;
    struct store_read read = {.key = key, .buf = &value, .buf_len = 8, .snapshot = snapshot};

    read.key_len = (uint32_t)sprintf(key, "%s%d", kind, i);
    int rc = store_read_wait(session, &read);
    ck_assert_int_ge(rc, 0);
    return rc == STORE_OK ? value : 0;
}

static void *snap(void *arg)
{
    uint64_t *ids = arg;
    char label[16];

    for (int k = 0; k < 5; k++) {
        sprintf(label, "t%d", k);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &ids[k]), 0);
    }
    return NULL;
}

START_TEST(no_increment_is_lost_and_no_snapshot_splits_a_unit)
{
    pthread_t threads[THREADS], snapper;
    uint64_t ids[5];
    static const struct store_options with_worker = {
        .memory_bytes = 16 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .commit_interval_ms = 5};

    close_store();
    open_store(&with_worker);
    for (uintptr_t t = 0; t < THREADS; t++)
        pthread_create(&threads[t], NULL, count_up, (void *)t);
    pthread_create(&snapper, NULL, snap, ids);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    pthread_join(snapper, NULL);
    uint64_t sum = 0;
    for (int i = 0; i < 7; i++) {
        ck_assert_uint_eq(counter_value("a", i, NULL), counter_value("b", i, NULL));
        sum += counter_value("a", i, NULL);
    }
    ck_assert_uint_eq(sum, THREADS * ROUNDS);
    for (int k = 0; k < 5; k++) {
        struct store_snapshot *snapshot;
        ck_assert_int_eq(store_snapshot_open(store, ids[k], &snapshot), 0);
        for (int i = 0; i < 7; i++)
            ck_assert_uint_eq(counter_value("a", i, snapshot), counter_value("b", i, snapshot));
        store_snapshot_close(snapshot);
    }
    crash();
    open_store(&tiny);
    for (int i = 0; i < 7; i++)
        ck_assert_uint_eq(counter_value("a", i, NULL), counter_value("b", i, NULL));
}
END_TEST

START_TEST(a_directory_of_something_else_is_refused_untouched)
{
    struct device *other;
    struct store *none;
    struct store_opened opened;

    ck_assert_int_eq(device_memory_open(&other), 0);
    int file = device_file_open(other, "letter.txt", DEVICE_FILE_CREATE);
    ck_assert_int_ge(file, 0);
    device_file_close(other, file);
    ck_assert_int_eq(store_open(other, &tiny, &none, &opened), -ENOTEMPTY);
    ck_assert_int_gt((int)strlen(opened.message), 10);
    device_close(other);
}
END_TEST

/* Values of 0 to 299 bytes, from small ones that are read in words to such that are locked. */
static void expect_parts(const uint8_t *value)
{
    for (uint32_t len = 0; len < 300; len++) {
        uint32_t offset = (uint32_t)(dice(2) ? 0 : dice(len + 9)), room = (uint32_t)dice(len + 9);
        uint32_t want = offset >= len ? 0 : len - offset < room ? len - offset : room;
        uint8_t got[310];
        memset(got, 0xee, sizeof got);
        struct store_read read = {.key = &len, .key_len = sizeof len, .offset = offset, .buf = got, .buf_len = room};
        ck_assert_int_eq(store_read_wait(session, &read), STORE_OK);
        ck_assert_uint_eq(read.value_len, len);
        ck_assert_uint_eq(read.copied, want);
        ck_assert_int_eq(memcmp(got, value + offset, want), 0);
        ck_assert_uint_eq(got[want], 0xee);
    }
}

START_TEST(a_part_of_a_value_is_that_part_in_every_region)
{
    uint8_t value[310];

    for (unsigned i = 0; i < sizeof value; i++)
        value[i] = (uint8_t)dice(256);
    for (int round = 0; round < 20; round++) {
        for (uint32_t len = 0; len < 300; len++)
            ck_assert_int_eq(store_upsert(session, &len, sizeof len, value, len), 0);
        expect_parts(value); /* may still change in place */
        ck_assert_int_eq(store_commit(store), 0);
        expect_parts(value); /* immutable */
        close_store();
        open_store(&tiny);
        expect_parts(value); /* on the device */
    }
}
END_TEST

START_TEST(keys_and_values_beyond_the_limits_are_refused)
{
    static uint8_t big[STORE_KEY_MAX + 1];
    struct store_limits limits = store_limits(store);
    uint8_t *value = calloc(1, limits.value_max + 1);
    uint32_t len;

    ck_assert_int_eq(store_upsert(session, big, 0, "x", 1), -EINVAL);
    ck_assert_int_eq(store_upsert(session, big, sizeof big, "x", 1), -EINVAL);
    ck_assert_int_eq(store_upsert(session, "k", 1, value, limits.value_max + 1), -EFBIG);
    ck_assert_int_eq(store_upsert(session, "k", 1, value, limits.value_max), 0);
    ck_assert_int_eq(store_upsert(session, big, STORE_KEY_MAX, "", 0), 0);
    ck_assert_int_eq(store_get(session, big, STORE_KEY_MAX, NULL, 0, &len), 0);
    ck_assert_uint_eq(len, 0);
    free(value);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("store");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, every_operation_agrees_with_a_table_in_every_region);
    tcase_add_test(tests, a_crash_leaves_what_was_committed);
    tcase_add_test(tests, a_store_whose_superblock_finds_no_room_is_not_opened_for_writing);
    tcase_add_test(tests, superblocks_keep_the_room_that_they_have);
    tcase_add_test(tests, a_checkpoint_without_room_for_its_superblock_leaves_no_image);
    tcase_add_test(tests, the_index_grows_with_the_keys_and_again_when_it_is_rebuilt);
    tcase_add_test(tests, a_damaged_index_checkpoint_is_rebuilt_from_the_log);
    tcase_add_loop_test(tests, a_bit_of_a_superblock_does_not_make_it_one_of_another_format, 0, 64);
    tcase_add_test(tests, damage_before_a_later_commit_is_told_and_not_taken_for_the_end);
    tcase_add_test(tests, a_flipped_bit_is_an_error_for_its_key_and_harmless_to_the_others);
    tcase_add_test(tests, a_snapshot_stays_as_it_was);
    tcase_add_test(tests, no_increment_is_lost_and_no_snapshot_splits_a_unit);
    tcase_add_test(tests, a_directory_of_something_else_is_refused_untouched);
    tcase_add_test(tests, a_part_of_a_value_is_that_part_in_every_region);
    tcase_add_test(tests, keys_and_values_beyond_the_limits_are_refused);
    return suite_run_case("store", tests);
}
