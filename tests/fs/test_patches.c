// SPDX-License-Identifier: MIT
/* Small writes into chunks that have left memory, short files in their inodes, and what they leave in the store. */
#include "fixture.h"
#include "schema.h"

#include <fcntl.h>

#define CHUNK ((uint64_t)FS_CHUNK_BYTES)
#define PAGE ((uint64_t)FS_PAGE_BYTES)

static uint8_t model[24 * FS_CHUNK_BYTES], got[24 * FS_CHUNK_BYTES];

static uint64_t seed;

static uint64_t dice(uint64_t sides)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (seed >> 33) % sides;
}

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    memset(model, 0, sizeof model);
    fixture_setup();
}

/* ---- what is in the store ------------------------------------------------------------------------------ */

static int count_one_kind(void *ctx, const struct store_item *item)
{
    unsigned *counts = ctx;

    counts[*(const uint8_t *)item->key]++;
    return 0;
}

/* Records of that kind that there are. */
static unsigned records(char kind)
{
    unsigned counts[256] = {0};
    struct store_session *session;

    ck_assert_int_eq(store_session_open(fs_store(fs), &session), 0);
    ck_assert_int_eq(store_scan(session, count_one_kind, counts), 0);
    store_session_close(session);
    return counts[(uint8_t)kind];
}

static struct store_stats stats(void)
{
    struct store_stats now;

    store_stats(fs_store(fs), &now);
    return now;
}

static void write_at(uint64_t f, uint64_t at, uint32_t len)
{
    for (uint32_t i = 0; i < len; i += 8) {
        uint64_t word = dice(UINT64_MAX);
        memcpy(model + at + i, &word, len - i < 8 ? len - i : 8);
    }
    ck_assert_int_eq(fs_write(s, f, model + at, len, at, 0), len);
}

static void expect_all(uint64_t f, uint64_t size)
{
    ck_assert_uint_eq(attr_of(f).size, size);
    for (uint64_t at = 0; at < size; at += 16 * CHUNK) {
        uint64_t len = size - at < 16 * CHUNK ? size - at : 16 * CHUNK;
        ck_assert_int_eq(fs_read(s, f, got, len, at), (ssize_t)len);
        ck_assert_int_eq(memcmp(got, model + at, len), 0);
    }
}

/* Writes something else until memory holds nothing of what was there. */
static void make_cold(void)
{
    uint64_t f = make_file(FS_INO_ROOT, "cold");

    for (unsigned i = 0; i < 16; i++)
        ck_assert_int_eq(fs_write(s, f, got, CHUNK, i * CHUNK, 0), CHUNK);
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "cold"), 0);
}

/* ---- patches --------------------------------------------------------------------------------------------- */

START_TEST(a_small_write_into_a_cold_chunk_neither_reads_nor_copies_it)
{
    uint64_t f = make_file(FS_INO_ROOT, "f");

    write_at(f, 0, 4 * CHUNK);
    make_cold();
    struct store_stats before = stats();
    write_at(f, CHUNK + 5 * PAGE, PAGE);
    struct store_stats after = stats();
    ck_assert_uint_lt(after.tail - before.tail, PAGE + 1024);
    ck_assert_uint_le(after.bytes_read - before.bytes_read, PAGE); /* the inode */
    write_at(f, 2 * CHUNK + 5 * PAGE + 7, 10);                     /* within a page */
    struct store_stats within = stats();
    ck_assert_uint_lt(within.tail - after.tail, PAGE + 1024);
    ck_assert_uint_le(within.bytes_read - after.bytes_read, 4 * PAGE);
    ck_assert_uint_eq(records('c'), 2);
    ck_assert_uint_eq(records('P'), 1);
    expect_all(f, 4 * CHUNK);
    fixture_crash();
    expect_all(f, 4 * CHUNK);
}
END_TEST

START_TEST(a_chunk_that_is_written_whole_has_no_patches_left)
{
    uint64_t f = make_file(FS_INO_ROOT, "f");

    write_at(f, 0, 3 * CHUNK);
    make_cold();
    for (unsigned page = 0; page < 15; page++)
        write_at(f, CHUNK + page * PAGE, PAGE);
    ck_assert_uint_eq(records('c'), 15);
    write_at(f, 3, 2);
    ck_assert_uint_eq(records('c'), 16);
    write_at(f, CHUNK + 15 * PAGE + 100, 50); /* the last page: all are put together */
    ck_assert_uint_eq(records('c'), 1);
    ck_assert_uint_eq(records('P'), 1);
    expect_all(f, 3 * CHUNK);
    write_at(f, 0, CHUNK);
    ck_assert_uint_eq(records('c'), 0);
    ck_assert_uint_eq(records('P'), 0);
    expect_all(f, 3 * CHUNK);
}
END_TEST

START_TEST(nothing_is_left_of_a_file_with_patches)
{
    uint64_t f = make_file(FS_INO_ROOT, "f");

    write_at(f, 0, 12 * CHUNK);
    make_cold();
    for (unsigned i = 0; i < 60; i++)
        write_at(f, dice(12 * CHUNK - 20), 20);
    ck_assert_uint_gt(records('c'), 0);
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "f"), 0);
    ck_assert_uint_eq(records('c') + records('P') + records('C'), 0);
    ck_assert_uint_eq(records('I'), 1);
}
END_TEST

START_TEST(random_changes_of_a_cold_file_agree_with_a_model_and_so_does_a_snapshot)
{
    enum { MOST = 12 * FS_CHUNK_BYTES };
    static uint8_t then[MOST];
    uint64_t f = make_file(FS_INO_ROOT, "f"), size = 0, size_then = 0;
    struct fs_attr attr;

    for (int n = 0; n < 1500; n++) {
        uint64_t at = dice(MOST), len = dice(MOST - at);
        switch (dice(12)) {
        case 0:
            size = dice(4) ? dice(MOST) : dice(2 * FS_INLINE_MAX);
            ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.size = size}, FS_SET_SIZE, NULL), 0);
            memset(model + size, 0, MOST - size);
            break;
        case 1:
            len = dice(2) ? len + 1 : dice(2 * PAGE) + 1;
            ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len), 0);
            memset(model + at, 0, len);
            break;
        case 2:
            len = len < 1 ? 1 : len > 1 << 20 ? 1 << 20 : len;
            write_at(f, at, (uint32_t)len);
            size = at + len > size ? at + len : size;
            break;
        case 3:
            at = at / PAGE * PAGE;
            len = PAGE * (1 + dice(8));
            if (at + len <= MOST) {
                write_at(f, at, (uint32_t)len);
                size = at + len > size ? at + len : size;
            }
            break;
        case 4:
            if (n > 700 && size_then == 0) {
                ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "then", 0755, &attr), 0);
                memcpy(then, model, MOST);
                size_then = size;
            }
            break;
        case 5:
            at = at / PAGE * PAGE;
            ck_assert_int_ge(fs_read(s, f, got, PAGE, at), 0);
            if (at + PAGE <= size)
                ck_assert_mem_eq(got, model + at, PAGE);
            break;
        case 6:
            if (dice(10) == 0)
                fixture_crash();
            break;
        default:
            if (size == 0)
                break;
            at = dice(size);
            len = 1 + dice(3000);
            if (at + len <= MOST) {
                write_at(f, at, (uint32_t)len);
                size = at + len > size ? at + len : size;
            }
        }
        expect_all(f, size);
    }
    int64_t snapshot = look(FS_INO_SNAPSHOTS, "then"), file = look((uint64_t)snapshot, "f");
    ck_assert_int_eq(fs_read(s, (uint64_t)file, got, MOST, 0), (ssize_t)size_then);
    ck_assert_int_eq(memcmp(got, then, size_then), 0);
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "f"), 0);
    ck_assert_uint_eq(records('c') + records('P') + records('C'), 0);
}
END_TEST

/* A file of twice the budget: random pages, each as its own write. */
START_TEST(random_writes_of_pages_are_written_less_than_one_and_a_half_times)
{
    enum { PAGES = 24 * FS_CHUNK_BYTES / FS_PAGE_BYTES, WRITES = 3 * PAGES };
    uint64_t f = make_file(FS_INO_ROOT, "f");

    for (unsigned i = 0; i < 24; i++)
        write_at(f, i * CHUNK, CHUNK);
    ck_assert_int_eq(fs_sync(fs), 0);
    struct store_stats before = stats();
    for (unsigned i = 0; i < WRITES; i++)
        write_at(f, dice(PAGES) * PAGE, PAGE);
    ck_assert_int_eq(fs_sync(fs), 0);
    struct store_stats after = stats();
    double times = (double)(after.bytes_written - before.bytes_written) / ((double)WRITES * PAGE);
    double read = (double)(after.bytes_read - before.bytes_read) / ((double)WRITES * PAGE);
    printf("written %.2f times, read %.2f times\n", times, read);
    ck_assert_msg(times < 1.5, "written %.2f times", times);
    expect_all(f, 24 * CHUNK);
}
END_TEST

START_TEST(a_page_of_a_cold_file_is_read_without_its_chunk)
{
    uint64_t f = make_file(FS_INO_ROOT, "f");

    for (unsigned i = 0; i < 24; i++)
        write_at(f, i * CHUNK, CHUNK);
    make_cold();
    struct store_stats before = stats();
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t at = dice(24 * CHUNK / PAGE) * PAGE;
        ck_assert_int_eq(fs_read(s, f, got, PAGE, at), PAGE);
        ck_assert_mem_eq(got, model + at, PAGE);
    }
    struct store_stats after = stats();
    ck_assert_uint_lt((after.bytes_read - before.bytes_read) / 1000, 2 * PAGE + 1024);
}
END_TEST

/* ---- short files ------------------------------------------------------------------------------------------ */

START_TEST(a_short_file_and_a_symlink_stand_in_their_inodes)
{
    uint64_t f = make_file(FS_INO_ROOT, "f");
    struct fs_attr attr;
    char target[4096];

    write_at(f, 0, FS_INLINE_MAX);
    memset(target, 't', sizeof target);
    target[FS_SYMLINK_MAX] = 0;
    ck_assert_int_eq(fs_symlink(s, &cred, FS_INO_ROOT, "l", target, &attr), 0);
    fs_forget(s, attr.ino, 1);
    ck_assert_uint_eq(records('C'), 0);
    fixture_crash();
    expect_all(f, FS_INLINE_MAX);
    ck_assert_int_eq(fs_readlink(s, attr.ino, (char *)got, sizeof got), FS_SYMLINK_MAX);
    ck_assert_mem_eq(got, target, FS_SYMLINK_MAX);
    ck_assert_int_eq(fs_setattr(s, attr.ino, &(struct fs_attr){.uid = 5}, FS_SET_UID, NULL), 0);
    ck_assert_int_eq(fs_readlink(s, attr.ino, (char *)got, sizeof got), FS_SYMLINK_MAX);
    ck_assert_mem_eq(got, target, FS_SYMLINK_MAX);
    write_at(f, FS_INLINE_MAX, 1);
    ck_assert_uint_eq(records('C'), 1);
    expect_all(f, FS_INLINE_MAX + 1);
}
END_TEST

START_TEST(files_that_grow_and_shrink_across_the_limit_agree_with_a_model)
{
    enum { MOST = 3 * FS_INLINE_MAX };
    uint64_t f = make_file(FS_INO_ROOT, "f"), size = 0, at, len;

    for (int n = 0; n < 4000; n++) {
        switch (dice(8)) {
        case 0:
            size = dice(3) ? dice(MOST) : 0;
            ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.size = size}, FS_SET_SIZE, NULL), 0);
            memset(model + size, 0, MOST - size);
            break;
        case 1:
            at = dice(MOST);
            len = 1 + dice(MOST - at);
            ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_ZERO_RANGE, at, len), 0);
            memset(model + at, 0, len);
            size = at + len > size ? at + len : size;
            break;
        case 2:
            if (dice(20) == 0)
                fixture_crash();
            break;
        default:
            at = dice(2) ? size : dice(FS_INLINE_MAX);
            len = 1 + dice(100);
            if (at + len > MOST)
                break;
            write_at(f, at, (uint32_t)len);
            size = at + len > size ? at + len : size;
        }
        expect_all(f, size);
        ck_assert_uint_le(attr_of(f).blocks, (size + 511) / 512);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("patches");
    TCase *tests = tcase_create("patches");

    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, a_small_write_into_a_cold_chunk_neither_reads_nor_copies_it);
    tcase_add_test(tests, a_chunk_that_is_written_whole_has_no_patches_left);
    tcase_add_test(tests, nothing_is_left_of_a_file_with_patches);
    tcase_add_test(tests, random_changes_of_a_cold_file_agree_with_a_model_and_so_does_a_snapshot);
    tcase_add_test(tests, random_writes_of_pages_are_written_less_than_one_and_a_half_times);
    tcase_add_test(tests, a_page_of_a_cold_file_is_read_without_its_chunk);
    tcase_add_test(tests, a_short_file_and_a_symlink_stand_in_their_inodes);
    tcase_add_test(tests, files_that_grow_and_shrink_across_the_limit_agree_with_a_model);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
