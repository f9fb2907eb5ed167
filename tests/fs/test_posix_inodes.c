// SPDX-License-Identifier: MIT
/*
 * References, attributes and contents of inodes: what the calls do, each errno they can give, the times they move.
 */
#include "posix.h"

/* ---- references ----------------------------------------------------------------------------------------- */

START_TEST(an_unlinked_file_stays_until_its_last_reference_goes)
{
    uint64_t f = keep_file(ROOT, "f");
    char got[8];

    ck_assert_int_eq(fs_lookup(s, ROOT, "f", &a), 0);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
    ck_assert_uint_eq(attr_of(f).nlink, 0);
    ck_assert_int_eq(fs_write(s, f, "still", 5, 0, 0), 5);
    ck_assert_int_eq(fs_read(s, f, got, 8, 0), 5);
    ck_assert_mem_eq(got, "still", 5);
    ck_assert_int_eq(fs_link(s, f, ROOT, "again", &a), -ENOENT);
    fs_forget(s, f, 1);
    ck_assert_int_eq(fs_getattr(s, f, &a), 0);
    fs_forget(s, f, 1);
    ck_assert_int_eq(fs_getattr(s, f, &a), -ESTALE);
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

START_TEST(a_removed_directory_that_is_referenced_takes_no_names)
{
    uint64_t e = make_dir(ROOT, "e");

    ck_assert_int_eq(fs_mkdir(s, &cred, e, "d", 0755, &a), 0);
    uint64_t d = a.ino;
    ck_assert_int_eq(fs_rmdir(s, e, "d"), 0);
    ck_assert_uint_eq(attr_of(d).nlink, 0);
    ck_assert_int_eq(fs_mknod(s, &cred, d, "x", S_IFREG, 0, &a), -ENOENT);
    ck_assert_int_eq(fs_mkdir(s, &cred, d, "x", 0755, &a), -ENOENT);
    make_file(ROOT, "f");
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", d, "x", 0), -ENOENT);
    ck_assert_int_eq(fs_link(s, (uint64_t)look(ROOT, "f"), d, "x", &a), -ENOENT);
    ck_assert_int_eq(look(d, "x"), -ENOENT);
    fs_forget(s, d, 1);
    ck_assert_int_eq(fs_getattr(s, d, &a), -ESTALE);
}
END_TEST

START_TEST(the_parent_of_a_removed_directory_is_not_damage)
{
    uint64_t e = make_dir(ROOT, "e");

    ck_assert_int_eq(fs_mkdir(s, &cred, e, "d", 0755, &a), 0);
    uint64_t d = a.ino;
    ck_assert_int_eq(fs_rmdir(s, e, "d"), 0);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "e"), 0);
    int64_t rc = look(d, "..");
    ck_assert_msg(rc == -ENOENT || rc == -ESTALE, "lookup of \"..\" gave %lld", (long long)rc);
}
END_TEST

START_TEST(orphans_of_a_dead_daemon_go_at_the_next_open)
{
    uint64_t f = keep_file(ROOT, "f"), d;
    char *bytes = calloc(1, 300000);

    memset(bytes, 'x', 300000);
    ck_assert_int_eq(fs_write(s, f, bytes, 300000, 0, 0), 300000);
    ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, "d", 0755, &a), 0);
    d = a.ino;
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), 0);
    free(bytes);
    fixture_crash();
    ck_assert_int_eq(fs_getattr(s, f, &a), -ESTALE);
    ck_assert_int_eq(fs_getattr(s, d, &a), -ESTALE);
}
END_TEST

START_TEST(the_count_of_files_is_right_after_a_clean_close)
{
    char name[16];

    for (int i = 0; i < 100; i++) {
        sprintf(name, "%d", i);
        make_file(ROOT, name);
    }
    keep_file(ROOT, "kept");
    for (int i = 0; i < 50; i++) {
        sprintf(name, "%d", i);
        ck_assert_int_eq(fs_unlink(s, ROOT, name), 0);
    }
    ck_assert_uint_eq(files_in_use(), 52);
    ck_assert_int_eq(fs_unlink(s, ROOT, "kept"), 0);
    fixture_reopen();
    ck_assert_uint_eq(files_in_use(), 51);
}
END_TEST

START_TEST(the_count_of_files_is_right_after_a_crash)
{
    char name[16];

    for (int i = 0; i < 20; i++) {
        sprintf(name, "%d", i);
        keep_file(ROOT, name);
    }
    fixture_crash();
    ck_assert_uint_eq(files_in_use(), 21);
}
END_TEST

START_TEST(the_count_of_files_never_falls_below_what_is_there)
{
    char name[16];

    for (int i = 0; i < 20; i++) {
        sprintf(name, "%d", i);
        keep_file(ROOT, name);
        ck_assert_int_eq(fs_unlink(s, ROOT, name), 0);
    }
    fixture_crash();
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

/* As the store's own commits do, between two of fs_sync(). The count may lag then (README), not wrap. */
START_TEST(the_count_of_files_is_no_nonsense_after_a_crash_behind_the_stores_commit)
{
    char name[16];

    for (int i = 0; i < 20; i++) {
        sprintf(name, "%d", i);
        keep_file(ROOT, name);
        ck_assert_int_eq(fs_unlink(s, ROOT, name), 0);
    }
    ck_assert_int_eq(store_commit(fs_store(fs)), 0);
    fs_session_close(s);
    fs_abandon(fs);
    device_memory_crash(device);
    fixture_open();
    uint64_t files = files_in_use();
    ck_assert_msg(files <= 21, "%llu files", (unsigned long long)files);
}
END_TEST

START_TEST(inode_numbers_are_never_used_again)
{
    uint64_t highest = 0;

    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 300; i++) {
            uint64_t ino = make_file(ROOT, "f");
            ck_assert_uint_gt(ino, highest);
            highest = ino;
            ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
        }
        if (round % 2)
            fixture_reopen();
        else
            fixture_crash();
    }
}
END_TEST

/* ---- inodes ------------------------------------------------------------------------------------------------ */

START_TEST(setattr_sets_what_it_is_told_and_ctime)
{
    uint64_t f = make_file(ROOT, "f");
    struct fs_attr before = attr_of(f);
    struct fs_attr set = {.mode = S_IFDIR | 04711, .uid = 21, .gid = 22, .atime = {100, 1}, .mtime = {-5, 999999999}};

    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_MODE, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFREG | 04711);
    ck_assert_uint_eq(a.uid, 7);
    ck_assert(is_before(before.ctime, a.ctime));
    ck_same_time(a.mtime, before.mtime);
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_UID | FS_SET_GID, &a), 0);
    ck_assert_uint_eq(a.uid, 21);
    ck_assert_uint_eq(a.gid, 22);
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_ATIME | FS_SET_MTIME, &a), 0);
    ck_assert_int_eq(a.atime.tv_sec, 100);
    ck_assert_int_eq(a.mtime.tv_sec, -5);
    ck_assert_int_eq(a.mtime.tv_nsec, 999999999);
    before = a;
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_ATIME_NOW | FS_SET_MTIME_NOW, &a), 0);
    ck_same_time(a.atime, a.ctime);
    ck_same_time(a.mtime, a.ctime);
    set.ctime = (struct timespec){77, 0};
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_CTIME, &a), 0);
    ck_assert_int_eq(a.ctime.tv_sec, 77);
    fixture_reopen();
    struct fs_attr again = attr_of(f);
    ck_assert_mem_eq(&again.mtime, &a.mtime, sizeof a.mtime);
    ck_assert_uint_eq(again.mode, a.mode);
    ck_assert_int_eq(fs_setattr(s, 9999, &set, FS_SET_UID, NULL), -ESTALE);
}
END_TEST

START_TEST(a_write_by_a_user_takes_setuid_and_setgid_away)
{
    uint64_t f = make_file(ROOT, "f");
    struct fs_attr set = {.mode = 06755};

    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_MODE, NULL), 0);
    ck_assert_int_eq(fs_write(s, f, "x", 1, 0, 0), 1);
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 06755);
    ck_assert_int_eq(fs_write(s, f, "x", 1, 0, FS_KILL_PRIV), 1);
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0755);
    set.mode = 06644; /* setgid without execution for the group is mandatory locking: it stays */
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_MODE, NULL), 0);
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_KILL_PRIV, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFREG | 02644);
}
END_TEST

/* ---- data --------------------------------------------------------------------------------------------------- */

START_TEST(read_and_write_at_every_edge_of_a_chunk)
{
    static const uint64_t edges[] = {0, 1, 511, 512, 4095, 4096, 65535, 65536, 65537, 131071, 131072, 200000};
    uint64_t f = make_file(ROOT, "f");
    static uint8_t want[400000], got[400000], bytes[140000];
    uint64_t size = 0;

    for (unsigned i = 0; i < 12; i++) {
        for (unsigned j = 0; j < 12; j++) {
            size_t len = edges[j] > 140000 ? 140000 : edges[j];
            uint64_t at = edges[(i * 7 + j) % 12];
            memset(bytes, (int)(1 + i * 12 + j), len);
            ck_assert_int_eq(fs_write(s, f, bytes, len, at, 0), (ssize_t)len);
            memcpy(want + at, bytes, len);
            if (len > 0 && at + len > size)
                size = at + len;
            ck_assert_uint_eq(attr_of(f).size, size);
            ck_assert_int_eq(fs_read(s, f, got, sizeof got, 0), (ssize_t)size);
            ck_assert_mem_eq(got, want, size);
        }
        if (i % 4 == 3)
            fixture_reopen();
    }
    ck_assert_int_eq(fs_read(s, f, got, 10, size), 0);
    ck_assert_int_eq(fs_read(s, f, got, 10, size + 100), 0);
    ck_assert_int_eq(fs_read(s, f, got, 10, size - 3), 3);
    ck_assert_int_eq(fs_read(s, f, got, 0, 0), 0);
}
END_TEST

START_TEST(holes_read_as_zeros_and_take_no_blocks)
{
    uint64_t f = make_file(ROOT, "f");
    static uint8_t got[70000];
    struct fs_attr set = {.size = UINT64_C(1) << 40};

    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, &a), 0);
    ck_assert_uint_eq(a.blocks, 0);
    ck_assert_int_eq(fs_write(s, f, "x", 1, UINT64_C(1) << 39, 0), 1);
    a = attr_of(f);
    ck_assert_uint_eq(a.size, UINT64_C(1) << 40);
    ck_assert_uint_eq(a.blocks, 1);
    memset(got, 1, sizeof got);
    ck_assert_int_eq(fs_read(s, f, got, sizeof got, (UINT64_C(1) << 39) - 10), sizeof got);
    ck_assert_uint_eq(got[10], 'x');
    got[10] = 0;
    size_t zeros = 0;
    while (zeros < sizeof got && got[zeros] == 0)
        zeros++;
    ck_assert_uint_eq(zeros, sizeof got);
}
END_TEST

START_TEST(what_was_cut_off_reads_as_zeros_when_the_file_grows_again)
{
    uint64_t f = make_file(ROOT, "f");
    static uint8_t bytes[200000], got[200000];
    struct fs_attr set = {.size = 70001};

    memset(bytes, 'b', sizeof bytes);
    ck_assert_int_eq(fs_write(s, f, bytes, sizeof bytes, 0, 0), sizeof bytes);
    ck_assert_uint_eq(attr_of(f).blocks, (200000 + 511) / 512);
    struct timespec before = attr_of(f).mtime;
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, &a), 0);
    ck_assert_uint_eq(a.size, 70001);
    ck_assert_uint_eq(a.blocks, 128 + (70001 - 65536 + 511) / 512);
    ck_assert(is_before(before, a.mtime));
    ck_same_time(a.mtime, a.ctime);
    set.size = 200000;
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, &a), 0);
    ck_assert_uint_eq(a.blocks, 128 + (70001 - 65536 + 511) / 512);
    memset(bytes + 70001, 0, sizeof bytes - 70001);
    ck_assert_int_eq(fs_read(s, f, got, sizeof got, 0), sizeof got);
    ck_assert_mem_eq(got, bytes, sizeof got);
    set.size = 0;
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, &a), 0);
    ck_assert_uint_eq(a.blocks, 0);
    ck_assert_int_eq(fs_read(s, f, got, 10, 0), 0);
}
END_TEST

START_TEST(data_calls_say_why_not)
{
    uint64_t f = make_file(ROOT, "f");
    struct fs_attr set = {.size = (uint64_t)FS_SIZE_MAX + 1};
    char byte = 0;

    ck_assert_int_eq(fs_read(s, ROOT, &byte, 1, 0), -EISDIR);
    ck_assert_int_eq(fs_write(s, ROOT, &byte, 1, 0, 0), -EISDIR);
    ck_assert_int_eq(fs_setattr(s, ROOT, &(struct fs_attr){.size = 5}, FS_SET_SIZE, NULL), -EISDIR);
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, NULL), -EFBIG);
    ck_assert_int_eq(fs_write(s, f, &byte, 1, (uint64_t)FS_SIZE_MAX, 0), -EFBIG);
    ck_assert_int_eq(fs_write(s, f, &byte, 1, UINT64_MAX, 0), -EFBIG);
    ck_assert_int_eq(fs_write(s, f, &byte, 1, (uint64_t)FS_SIZE_MAX - 1, 0), 1);
    ck_assert_uint_eq(attr_of(f).size, (uint64_t)FS_SIZE_MAX);
    ck_assert_int_eq(fs_read(s, f, &byte, 1, UINT64_MAX), 0);
}
END_TEST

START_TEST(an_inode_that_is_gone_is_estale_to_every_call)
{
    char byte = 0;

    ck_assert_int_eq(fs_getattr(s, 9999, &a), -ESTALE);
    ck_assert_int_eq(fs_readlink(s, 9999, &byte, 1), -ESTALE);
    ck_assert_int_eq(fs_read(s, 9999, &byte, 1, 0), -ESTALE);
    ck_assert_int_eq(fs_write(s, 9999, &byte, 1, 0, 0), -ESTALE);
    ck_assert_int_eq(fs_setattr(s, 9999, &(struct fs_attr){.size = 5}, FS_SET_SIZE, NULL), -ESTALE);
}
END_TEST

START_TEST(the_largest_hole_is_cut_at_once)
{
    uint64_t f = make_file(ROOT, "f");
    struct fs_attr set = {.size = (uint64_t)FS_SIZE_MAX};
    struct timespec start, end;

    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, &a), 0);
    clock_gettime(CLOCK_MONOTONIC, &start);
    set.size = 0;
    ck_assert_int_eq(fs_setattr(s, f, &set, FS_SET_SIZE, &a), 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double took = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
    ck_assert_msg(took < 5, "cutting a hole of 64 TiB took %.1f s", took);
}
END_TEST

/* A clock tick is a unit. The log is large enough for 17 chunks in one. */
START_TEST(a_mebibyte_that_is_not_aligned_is_one_unit)
{
    static uint8_t bytes[1 << 20];

    fixture_close();
    device_close(device);
    log_bytes = segment_bytes = 16u << 20;
    ck_assert_int_eq(device_memory_open(&device), 0);
    fixture_open();
    ck_assert_uint_ge(store_limits(fs_store(fs)).unit_bytes_max, 18 * store_record_bytes(17, 65536));
    uint64_t f = make_file(ROOT, "f");
    long before = clock_now;
    ck_assert_int_eq(fs_write(s, f, bytes, sizeof bytes, 0, 0), sizeof bytes);
    ck_assert_int_eq(clock_now - before, 1);
    before = clock_now;
    ck_assert_int_eq(fs_write(s, f, bytes, sizeof bytes, 100, 0), sizeof bytes);
    ck_assert_msg(clock_now - before == 1, "%ld units", (long)(clock_now - before));
}
END_TEST

int main(void)
{
    TCase *tests = fixture_case("posix inodes", posix_setup, fixture_teardown);

    tcase_add_test(tests, an_unlinked_file_stays_until_its_last_reference_goes);
    tcase_add_test(tests, a_removed_directory_that_is_referenced_takes_no_names);
    tcase_add_test(tests, the_parent_of_a_removed_directory_is_not_damage);
    tcase_add_test(tests, orphans_of_a_dead_daemon_go_at_the_next_open);
    tcase_add_test(tests, the_count_of_files_is_right_after_a_clean_close);
    tcase_add_test(tests, the_count_of_files_is_right_after_a_crash);
    tcase_add_test(tests, the_count_of_files_never_falls_below_what_is_there);
    tcase_add_test(tests, the_count_of_files_is_no_nonsense_after_a_crash_behind_the_stores_commit);
    tcase_add_test(tests, inode_numbers_are_never_used_again);
    tcase_add_test(tests, setattr_sets_what_it_is_told_and_ctime);
    tcase_add_test(tests, a_write_by_a_user_takes_setuid_and_setgid_away);
    tcase_add_test(tests, read_and_write_at_every_edge_of_a_chunk);
    tcase_add_test(tests, holes_read_as_zeros_and_take_no_blocks);
    tcase_add_test(tests, what_was_cut_off_reads_as_zeros_when_the_file_grows_again);
    tcase_add_test(tests, data_calls_say_why_not);
    tcase_add_test(tests, an_inode_that_is_gone_is_estale_to_every_call);
    tcase_add_test(tests, the_largest_hole_is_cut_at_once);
    tcase_add_test(tests, a_mebibyte_that_is_not_aligned_is_one_unit);
    return suite_run_case("posix inodes", tests);
}
