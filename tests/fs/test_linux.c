// SPDX-License-Identifier: MIT
/*
 * What Linux adds to POSIX: files without a name, whiteouts, ranges of a file, relatime, and a size limit.
 */
#include "fixture.h"

#include <fcntl.h>
#include <unistd.h>

#define ROOT FS_INO_ROOT
#define CHUNK 65536

static struct fs_attr a;
static char big[1 << 20], got[1 << 20];

/* ---- files without a name ------------------------------------------------------------------------------ */

START_TEST(a_tmpfile_has_no_name_and_may_get_one)
{
    uint64_t d = make_dir(ROOT, "d");

    ck_assert_int_eq(fs_tmpfile(s, &cred, d, 0666, &a), 0);
    uint64_t f = a.ino;
    ck_assert_uint_eq(a.mode, S_IFREG | 0644);
    ck_assert_uint_eq(a.nlink, 0);
    ck_assert_uint_eq(a.uid, cred.uid);
    ck_assert_uint_eq(files_in_use(), 3);
    ck_assert_int_eq(fs_write(s, f, "contents", 8, 0, 0), 8);
    ck_assert_int_eq(fs_link(s, f, d, "named", &a), 0);
    ck_assert_uint_eq(a.nlink, 1);
    fs_forget(s, f, 2);
    fixture_crash();
    ck_assert_int_eq(look(d, "named"), (int64_t)f);
    ck_assert_int_eq(fs_read(s, f, got, 9, 0), 8);
    ck_assert_int_eq(fs_unlink(s, d, "named"), 0);
    ck_assert_uint_eq(files_in_use(), 2);
}
END_TEST

START_TEST(a_tmpfile_that_gets_no_name_goes_with_its_last_reference)
{
    ck_assert_int_eq(fs_tmpfile(s, &cred, ROOT, 0600, &a), 0);
    ck_assert_int_eq(fs_write(s, a.ino, big, 300000, 0, 0), 300000);
    fs_forget(s, a.ino, 1);
    ck_assert_int_eq(fs_getattr(s, a.ino, &a), -ESTALE);
    ck_assert_int_eq(fs_tmpfile(s, &cred, ROOT, 0600, &a), 0);
    fixture_crash();
    ck_assert_int_eq(fs_getattr(s, a.ino, &a), -ESTALE);
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

/* Linked and unlinked while referenced: from then on it is as any file without a name. */
START_TEST(what_has_lost_its_name_gets_no_other)
{
    uint64_t f = make_file(ROOT, "f");

    ck_assert_int_eq(fs_tmpfile(s, &cred, ROOT, 0600, &a), 0);
    uint64_t t = a.ino;
    ck_assert_int_eq(fs_link(s, t, ROOT, "f", &a), -EEXIST);
    ck_assert_int_eq(fs_link(s, t, ROOT, "t", &a), 0);
    ck_assert_int_eq(fs_link(s, t, ROOT, "u", &a), 0);
    ck_assert_uint_eq(a.nlink, 2);
    ck_assert_int_eq(fs_unlink(s, ROOT, "t"), 0);
    ck_assert_int_eq(fs_unlink(s, ROOT, "u"), 0);
    ck_assert_int_eq(fs_link(s, t, ROOT, "v", &a), -ENOENT);
    fs_forget(s, t, 3);
    ck_assert_int_eq(fs_getattr(s, t, &a), -ESTALE);
    ck_assert_int_eq(fs_tmpfile(s, &cred, f, 0600, &a), -ENOTDIR);
    ck_assert_int_eq(fs_tmpfile(s, &cred, FS_INO_SNAPSHOTS, 0600, &a), -EROFS);
    ck_assert_int_eq(fs_tmpfile(s, &cred, 12345, 0600, &a), -ESTALE);
    ck_assert_uint_eq(files_in_use(), 2);
}
END_TEST

START_TEST(a_whiteout_takes_the_old_name_in_the_same_unit)
{
    uint64_t d = make_dir(ROOT, "d"), f = make_file(ROOT, "f"), g = make_file(d, "g");

    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", d, "f", RENAME_WHITEOUT), 0);
    ck_assert_int_eq(look(d, "f"), (int64_t)f);
    a = attr_of((uint64_t)look(ROOT, "f"));
    ck_assert_uint_eq(a.mode, S_IFCHR);
    ck_assert_uint_eq(a.rdev, 0);
    ck_assert_uint_eq(a.nlink, 1);
    ck_assert_uint_eq(a.uid, cred.uid);
    ck_assert_int_eq(fs_rename(s, &cred, d, "f", d, "g", RENAME_WHITEOUT | RENAME_NOREPLACE), -EEXIST);
    ck_assert_int_eq(fs_rename(s, &cred, d, "f", d, "g", RENAME_WHITEOUT | RENAME_EXCHANGE), -EINVAL);
    ck_assert_uint_eq(files_in_use(), 5);
    ck_assert_int_eq(fs_rename(s, &cred, d, "f", d, "g", RENAME_WHITEOUT), 0);
    ck_assert_int_eq(fs_getattr(s, g, &a), -ESTALE);
    ck_assert_int_eq(look(d, "g"), (int64_t)f);
    ck_assert_uint_eq(attr_of((uint64_t)look(d, "f")).mode, S_IFCHR);
    /* A directory leaves one, too: the counts of links follow. */
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "d", ROOT, "e", RENAME_WHITEOUT), 0);
    ck_assert_uint_eq(attr_of(ROOT).nlink, 3);
    fixture_crash();
    ck_assert_uint_eq(attr_of((uint64_t)look(ROOT, "d")).mode, S_IFCHR);
    ck_assert_int_eq(fs_unlink(s, ROOT, "d"), 0);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
    ck_assert_int_eq(fs_unlink(s, d, "f"), 0);
    ck_assert_uint_eq(files_in_use(), 3);
}
END_TEST

START_TEST(a_number_leads_back_to_its_inode_after_a_crash)
{
    uint64_t d = make_dir(ROOT, "d"), f = make_file(d, "f");

    fixture_crash();
    ck_assert_int_eq(look(f, "."), (int64_t)f);
    ck_assert_int_eq(look(d, "."), (int64_t)d);
    ck_assert_int_eq(look(d, ".."), ROOT);
    ck_assert_int_eq(fs_unlink(s, d, "f"), 0);
    ck_assert_int_eq(look(f, "."), -ESTALE);
    ck_assert_int_eq(fs_tmpfile(s, &cred, ROOT, 0600, &a), 0);
    ck_assert_int_eq(look(a.ino, "."), -ENOENT);
    fs_forget(s, a.ino, 1);
}
END_TEST

/* ---- ranges -------------------------------------------------------------------------------------------- */

static bool are_zeros(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

START_TEST(allocating_makes_a_file_longer_and_changes_no_byte)
{
    uint64_t f = make_file(ROOT, "f");

    memset(big, 'x', 1000);
    ck_assert_int_eq(fs_write(s, f, big, 1000, 0, 0), 1000);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_KEEP_SIZE, 500, 100000), 0);
    ck_assert_uint_eq(attr_of(f).size, 1000);
    a = attr_of(f);
    ck_assert_int_eq(fs_fallocate(s, f, 0, 500, 200000), 0);
    ck_assert_uint_eq(attr_of(f).size, 200500);
    ck_assert_int_gt(attr_of(f).mtime.tv_sec, a.mtime.tv_sec);
    ck_assert_int_gt(attr_of(f).ctime.tv_sec, a.ctime.tv_sec);
    ck_assert_uint_eq(attr_of(f).blocks, 2);
    ck_assert_int_eq(fs_fallocate(s, f, 0, 0, 100), 0);
    ck_assert_uint_eq(attr_of(f).size, 200500);
    ck_assert_int_eq(fs_read(s, f, got, sizeof got, 0), 200500);
    ck_assert_int_eq(memcmp(got, big, 1000), 0);
    ck_assert(are_zeros(got + 1000, 199500));
}
END_TEST

START_TEST(fallocate_says_why_not)
{
    uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");

    ck_assert_int_eq(fs_fallocate(s, f, 0, 0, 0), -EINVAL);
    ck_assert_int_eq(fs_fallocate(s, f, 0, (uint64_t)-1, 1), -EINVAL);
    ck_assert_int_eq(fs_fallocate(s, f, 0, FS_SIZE_MAX, 1), -EFBIG);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_PUNCH_HOLE, 0, 1), -EOPNOTSUPP);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_COLLAPSE_RANGE, 0, CHUNK), -EOPNOTSUPP);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_INSERT_RANGE, 0, CHUNK), -EOPNOTSUPP);
    ck_assert_int_eq(fs_fallocate(s, d, 0, 0, 1), -EISDIR);
    ck_assert_int_eq(fs_fallocate(s, 12345, 0, 0, 1), -ESTALE);
    ck_assert_int_eq(fs_fallocate(s, FS_INO_SNAPSHOTS, 0, 0, 1), -EROFS);
    ck_assert_int_eq(fs_fallocate(s, f, 0, 0, (uint64_t)1 << 45), -ENOSPC);
}
END_TEST

START_TEST(the_blocks_of_what_is_punched_out_come_back)
{
    uint64_t f = make_file(ROOT, "f");

    memset(big, 'y', sizeof big);
    ck_assert_int_eq(fs_write(s, f, big, 10 * CHUNK, 0, 0), 10 * CHUNK);
    ck_assert_uint_eq(attr_of(f).blocks, 10 * CHUNK / 512);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, CHUNK, 4 * CHUNK), 0);
    ck_assert_uint_eq(attr_of(f).blocks, 6 * CHUNK / 512);
    ck_assert_uint_eq(attr_of(f).size, 10 * CHUNK);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 20 * CHUNK), 0);
    ck_assert_uint_eq(attr_of(f).blocks, 0);
    ck_assert_uint_eq(attr_of(f).size, 10 * CHUNK);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_ZERO_RANGE, 5 * CHUNK, 6 * CHUNK), 0);
    ck_assert_uint_eq(attr_of(f).size, 11 * CHUNK);
}
END_TEST

/* Bytes and holes of one file against an array, under random writes, cuts, holes and crashes. */
START_TEST(random_ranges_agree_with_a_model)
{
    enum { MOST = 6 * CHUNK + 1000, STEPS = 600 };
    static char model[MOST];
    uint64_t f = make_file(ROOT, "f"), size = 0;
    const char *given = getenv("FASTERFS_SEED");
    unsigned seed = given ? (unsigned)atoi(given) : (unsigned)time(NULL);

    printf("FASTERFS_SEED=%u\n", seed);
    srand(seed);
    memset(model, 0, sizeof model);
    for (int step = 0; step < STEPS; step++) {
        uint64_t at = (uint64_t)(rand() % MOST), len = 1 + (uint64_t)(rand() % (MOST - (int)at));
        if (rand() % 3 == 0) { /* on edges */
            at = at / CHUNK * CHUNK;
            len = (len + CHUNK - 1) / CHUNK * CHUNK;
            len = at + len > MOST ? MOST - at : len;
        }
        int keep = rand() % 2 ? FALLOC_FL_KEEP_SIZE : 0, how = rand() % 6;
        uint64_t end = at + len, grown = end > size ? end : size;
        if (how <= 1) {
            memset(big, 'a' + rand() % 26, len);
            memcpy(model + at, big, len);
            ck_assert_int_eq(fs_write(s, f, big, len, at, 0), (ssize_t)len);
            size = grown;
        } else if (how == 2) {
            ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.size = at}, FS_SET_SIZE, NULL), 0);
            size = at;
            memset(model + size, 0, MOST - size);
        } else if (how == 3) {
            ck_assert_int_eq(fs_fallocate(s, f, keep, at, len), 0);
            size = keep ? size : grown;
        } else {
            int mode = how == 4 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE | keep;
            ck_assert_int_eq(fs_fallocate(s, f, mode, at, len), 0);
            memset(model + at, 0, len);
            size = mode & FALLOC_FL_KEEP_SIZE ? size : grown;
        }
        if (rand() % 50 == 0)
            fixture_crash();
        ck_assert_uint_eq(attr_of(f).size, size);
        ck_assert_int_eq(fs_read(s, f, got, sizeof got, 0), (ssize_t)size);
        ck_assert_int_eq(memcmp(got, model, size), 0);
        uint64_t data = 0, hole = 0, stored = 0;
        while (hole < size) { /* what is not data is zeros, and data alternates with holes */
            int rc = fs_seek(s, f, hole, SEEK_DATA, &data);
            ck_assert(rc == 0 || rc == -ENXIO);
            if (rc < 0)
                data = size;
            ck_assert(data >= hole && data <= size);
            ck_assert(are_zeros(model + hole, data - hole));
            if (data == size)
                break;
            ck_assert_int_eq(fs_seek(s, f, data, SEEK_HOLE, &hole), 0);
            ck_assert(hole > data && hole <= size);
            for (uint64_t chunk = data / CHUNK; chunk * CHUNK < hole; chunk++) {
                uint64_t to = hole < (chunk + 1) * CHUNK ? hole : (chunk + 1) * CHUNK;
                stored += (to - chunk * CHUNK + 511) / 512;
            }
        }
        ck_assert_uint_eq(attr_of(f).blocks, stored);
    }
}
END_TEST

START_TEST(seek_finds_data_and_holes)
{
    uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d"), at = 77;

    ck_assert_int_eq(fs_seek(s, f, 0, SEEK_DATA, &at), -ENXIO);
    ck_assert_int_eq(fs_seek(s, f, 0, SEEK_HOLE, &at), -ENXIO);
    ck_assert_int_eq(fs_write(s, f, big, 100, 0, 0), 100);
    ck_assert_int_eq(fs_seek(s, f, 99, SEEK_DATA, &at), 0);
    ck_assert_uint_eq(at, 99);
    ck_assert_int_eq(fs_seek(s, f, 0, SEEK_HOLE, &at), 0);
    ck_assert_uint_eq(at, 100);
    ck_assert_int_eq(fs_seek(s, f, 100, SEEK_HOLE, &at), -ENXIO);
    ck_assert_int_eq(fs_write(s, f, big, 100, 5 * CHUNK, 0), 100);
    ck_assert_int_eq(fs_seek(s, f, 100, SEEK_DATA, &at), 0);
    ck_assert_uint_eq(at, 5 * CHUNK);
    ck_assert_int_eq(fs_seek(s, f, 50, SEEK_HOLE, &at), 0);
    ck_assert_uint_eq(at, 100);
    ck_assert_int_eq(fs_seek(s, f, 3 * CHUNK + 7, SEEK_HOLE, &at), 0);
    ck_assert_uint_eq(at, 3 * CHUNK + 7);
    ck_assert_int_eq(fs_seek(s, f, 5 * CHUNK, SEEK_HOLE, &at), 0);
    ck_assert_uint_eq(at, 5 * CHUNK + 100);
    ck_assert_int_eq(fs_seek(s, f, 5 * CHUNK + 100, SEEK_DATA, &at), -ENXIO);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "one", 0, &a), 0);
    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.size = 0}, FS_SET_SIZE, NULL), 0);
    ck_assert_int_eq(fs_seek(s, (uint64_t)look(a.ino, "f"), 100, SEEK_DATA, &at), 0);
    ck_assert_uint_eq(at, 5 * CHUNK);
    ck_assert_int_eq(fs_seek(s, d, 0, SEEK_DATA, &at), -EISDIR);
    ck_assert_int_eq(fs_seek(s, f, 0, SEEK_SET, &at), -EINVAL);
    ck_assert_int_eq(fs_seek(s, 12345, 0, SEEK_DATA, &at), -ESTALE);
}
END_TEST

START_TEST(copying_stops_at_the_end_of_the_source)
{
    static char scratch[100000];
    uint64_t f = make_file(ROOT, "f"), g = make_file(ROOT, "g");

    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7 + i / 4096);
    ck_assert_int_eq(fs_write(s, f, big, 500000, 0, 0), 500000);
    ck_assert_int_eq(fs_copy(s, f, 1000, g, 77, 1 << 20, scratch, sizeof scratch), 499000);
    ck_assert_uint_eq(attr_of(g).size, 499077);
    ck_assert_int_eq(fs_read(s, g, got, sizeof got, 77), 499000);
    ck_assert_int_eq(memcmp(got, big + 1000, 499000), 0);
    ck_assert_int_eq(fs_copy(s, f, 500000, g, 0, 10, scratch, sizeof scratch), 0);
    ck_assert_int_eq(fs_copy(s, f, 0, f, 500000, 500000, scratch, sizeof scratch), 500000);
    ck_assert_int_eq(fs_read(s, f, got, 500000, 500000), 500000);
    ck_assert_int_eq(memcmp(got, big, 500000), 0);
    ck_assert_int_eq(fs_copy(s, f, 0, g, FS_SIZE_MAX, 10, scratch, sizeof scratch), -EFBIG);
    ck_assert_int_eq(fs_copy(s, ROOT, 0, g, 0, 10, scratch, sizeof scratch), -EISDIR);
}
END_TEST

/* ---- times and space ----------------------------------------------------------------------------------- */

static time_t atime_after(uint64_t ino, time_t atime_s, time_t mtime_s, time_t ctime_s)
{
    a = (struct fs_attr){.atime = {atime_s, 5}, .mtime = {mtime_s, 5}, .ctime = {ctime_s, 5}};
    ck_assert_int_eq(fs_setattr(s, ino, &a, FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME, NULL), 0);
    fs_accessed(s, ino);
    ck_assert_int_eq(attr_of(ino).mtime.tv_sec, mtime_s);
    ck_assert_int_eq(attr_of(ino).ctime.tv_sec, ctime_s);
    return attr_of(ino).atime.tv_sec;
}

static void reopen_with(enum fs_atime how)
{
    atime = how;
    fixture_reopen();
    atime = FS_ATIME_RELATIVE;
}

START_TEST(reading_moves_atime_as_relatime_says)
{
    uint64_t f = make_file(ROOT, "f");
    time_t now = atomic_load(&clock_now) + 86400 * 2;

    atomic_store(&clock_now, now);
    ck_assert_int_gt(atime_after(f, now - 10, now - 5, now - 20), now); /* written since */
    ck_assert_int_gt(atime_after(f, now - 10, now - 20, now - 5), now); /* changed since */
    ck_assert_int_gt(atime_after(f, now - 10, now - 10, now - 10), now);
    ck_assert_int_eq(atime_after(f, now - 10, now - 20, now - 20), now - 10);
    ck_assert_int_gt(atime_after(f, now - 86400, now - 86401, now - 86401), now); /* a day old */
    ck_assert_int_eq(atime_after(f, now + 99, now - 20, now - 20), now + 99);
    reopen_with(FS_ATIME_NEVER);
    ck_assert_int_eq(atime_after(f, now - 10, now - 5, now - 5), now - 10);
    reopen_with(FS_ATIME_ALWAYS);
    ck_assert_int_gt(atime_after(f, now - 10, now - 20, now - 20), now);
    fs_accessed(s, 12345);
    fs_accessed(s, FS_INO_SNAPSHOTS);
}
END_TEST

START_TEST(a_size_limit_is_seen_and_kept_and_what_is_there_can_go)
{
    struct fs_statfs statfs;
    int rc = 0, files = 0;
    char name[16];

    size_bytes = 8 << 20;
    fixture_reopen();
    size_bytes = 0;
    ck_assert_int_eq(fs_statfs(s, &statfs), 0);
    ck_assert_uint_eq(statfs.total_bytes, 8 << 20);
    ck_assert_uint_le(statfs.free_bytes, 8 << 20);
    for (; rc == 0 && files < 1000; files++) {
        snprintf(name, sizeof name, "%d", files);
        rc = fs_mknod(s, &cred, ROOT, name, S_IFREG | 0644, 0, &a);
        if (rc == 0 && fs_write(s, a.ino, big, 100000, 0, 0) < 0)
            rc = -ENOSPC;
        if (rc == 0)
            fs_forget(s, a.ino, 1);
    }
    ck_assert_int_eq(rc, -ENOSPC);
    ck_assert_int_ge(files, 60);
    ck_assert_int_eq(fs_statfs(s, &statfs), 0);
    ck_assert_uint_lt(statfs.free_bytes, 300000);
    ck_assert_int_eq(fs_fallocate(s, a.ino, 0, 0, 1 << 20), -ENOSPC);
    for (int i = 0; i < files - 1; i++) {
        snprintf(name, sizeof name, "%d", i);
        ck_assert_int_eq(fs_unlink(s, ROOT, name), 0);
    }
    fixture_reopen(); /* without a limit */
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "f", S_IFREG | 0644, 0, &a), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("linux");
    TCase *tests = tcase_create("linux");

    tcase_add_checked_fixture(tests, fixture_setup, fixture_teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, a_tmpfile_has_no_name_and_may_get_one);
    tcase_add_test(tests, a_tmpfile_that_gets_no_name_goes_with_its_last_reference);
    tcase_add_test(tests, what_has_lost_its_name_gets_no_other);
    tcase_add_test(tests, a_whiteout_takes_the_old_name_in_the_same_unit);
    tcase_add_test(tests, a_number_leads_back_to_its_inode_after_a_crash);
    tcase_add_test(tests, allocating_makes_a_file_longer_and_changes_no_byte);
    tcase_add_test(tests, fallocate_says_why_not);
    tcase_add_test(tests, the_blocks_of_what_is_punched_out_come_back);
    tcase_add_test(tests, random_ranges_agree_with_a_model);
    tcase_add_test(tests, seek_finds_data_and_holes);
    tcase_add_test(tests, copying_stops_at_the_end_of_the_source);
    tcase_add_test(tests, reading_moves_atime_as_relatime_says);
    tcase_add_test(tests, a_size_limit_is_seen_and_kept_and_what_is_there_can_go);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
