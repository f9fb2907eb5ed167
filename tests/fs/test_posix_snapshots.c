// SPDX-License-Identifier: MIT
/*
 * Snapshots, and stores opened read-only: what can be seen in them, and that nothing can be changed.
 */
#include "posix.h"

START_TEST(the_snapshots_directory_is_there_and_cannot_be_changed)
{
    uint64_t f = make_file(ROOT, "f");

    ck_assert_int_eq(fs_lookup(s, ROOT, ".snapshots", &a), 0);
    ck_assert(a.ino == FS_INO_SNAPSHOTS && S_ISDIR(a.mode));
    ck_assert_int_eq(look(make_dir(ROOT, "d"), ".snapshots"), -ENOENT);
    ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, ".snapshots", 0755, &a), -EEXIST);
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, ".snapshots", S_IFREG, 0, &a), -EEXIST);
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, ".snapshots", "t", &a), -EEXIST);
    ck_assert_int_eq(fs_link(s, f, ROOT, ".snapshots", &a), -EEXIST);
    ck_assert_int_eq(fs_rmdir(s, ROOT, ".snapshots"), -EPERM);
    ck_assert_int_eq(fs_unlink(s, ROOT, ".snapshots"), -EISDIR);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, ".snapshots", ROOT, "x", 0), -EPERM);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, ".snapshots", 0), -EEXIST);
    ck_assert_int_eq(look(FS_INO_SNAPSHOTS, ".."), ROOT);
    ck_assert_int_eq(look(FS_INO_SNAPSHOTS, "none"), -ENOENT);
}
END_TEST

START_TEST(inside_a_snapshot_everything_is_as_it_was_and_read_only)
{
    uint64_t d = make_dir(ROOT, "d"), f = make_file(d, "f");
    char got[8], byte = 0;

    ck_assert_int_eq(fs_write(s, f, "old", 3, 0, 0), 3);
    ck_assert_int_eq(fs_symlink(s, &cred, d, "l", "target", &a), 0);
    struct fs_attr was = attr_of(f);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "one", 0755, &a), 0);
    uint64_t root = a.ino;
    ck_assert_uint_ne(root >> 48, 0);
    ck_assert_int_eq(fs_write(s, f, "new!", 4, 0, 0), 4);
    ck_assert_int_eq(fs_unlink(s, d, "l"), 0);
    uint64_t sd = (uint64_t)look(root, "d"), sf = (uint64_t)look(sd, "f"), sl = (uint64_t)look(sd, "l");
    ck_assert_uint_ne(sf, f);
    ck_assert_uint_eq(sf >> 48, root >> 48);
    ck_assert_int_eq(fs_read(s, sf, got, 8, 0), 3);
    ck_assert_mem_eq(got, "old", 3);
    ck_assert_int_eq(fs_readlink(s, sl, got, 8), 6);
    ck_same_time(attr_of(sf).mtime, was.mtime);
    ck_assert_uint_eq(attr_of(sf).ino, sf);

    ck_assert_int_eq(fs_mknod(s, &cred, sd, "x", S_IFREG, 0, &a), -EROFS);
    ck_assert_int_eq(fs_mkdir(s, &cred, sd, "x", 0755, &a), -EROFS);
    ck_assert_int_eq(fs_symlink(s, &cred, sd, "x", "t", &a), -EROFS);
    ck_assert_int_eq(fs_link(s, sf, sd, "x", &a), -EROFS);
    ck_assert_int_eq(fs_link(s, sf, ROOT, "x", &a), -EXDEV);
    ck_assert_int_eq(fs_unlink(s, sd, "f"), -EROFS);
    ck_assert_int_eq(fs_rmdir(s, root, "d"), -EROFS);
    ck_assert_int_eq(fs_rename(s, &cred, sd, "f", sd, "g", 0), -EROFS);
    ck_assert_int_eq(fs_rename(s, &cred, sd, "f", ROOT, "g", 0), -EXDEV);
    ck_assert_int_eq(fs_rename(s, &cred, d, "f", sd, "g", 0), -EXDEV);
    ck_assert_int_eq(fs_write(s, sf, &byte, 1, 0, 0), -EROFS);
    ck_assert_int_eq(fs_setattr(s, sf, &(struct fs_attr){0}, FS_SET_MODE, NULL), -EROFS);

    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "one", 0755, &a), -EEXIST);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "..", 0755, &a), -EINVAL);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, long_name, 0755, &a), -ENAMETOOLONG);
    fixture_crash();
    ck_assert_int_eq(look(FS_INO_SNAPSHOTS, "one"), (int64_t)root);
    ck_assert_int_eq(fs_read(s, sf, got, 8, 0), 3);
    ck_assert_int_eq(fs_rmdir(s, FS_INO_SNAPSHOTS, "one"), 0);
    ck_assert_int_eq(fs_rmdir(s, FS_INO_SNAPSHOTS, "one"), -ENOENT);
    ck_assert_int_eq(fs_read(s, sf, got, 8, 0), -ESTALE);
    ck_assert_int_eq(look(root, "d"), -ESTALE);
}
END_TEST

START_TEST(the_parent_of_a_snapshot_is_the_snapshots_directory)
{
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "one", 0755, &a), 0);
    uint64_t root = a.ino;
    ck_assert_int_eq(fs_lookup(s, root, "..", &a), 0);
    ck_assert_msg(a.ino == FS_INO_SNAPSHOTS, "\"..\" is %llx", (unsigned long long)a.ino);
}
END_TEST

START_TEST(a_store_opened_read_only_gives_erofs)
{
    struct fs_options options = {.store = {.no_background = true, .read_only = true}};
    struct store_opened opened;
    char got[4];
    uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");

    ck_assert_int_eq(fs_write(s, f, "abc", 3, 0, 0), 3);
    fixture_close();
    ck_assert_int_eq(fs_open(device, &options, &fs, &opened), 0);
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
    ck_assert_int_eq(fs_read(s, f, got, 4, 0), 3);
    ck_assert_int_eq(look(ROOT, "d"), (int64_t)d);
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "x", S_IFREG, 0, &a), -EROFS);
    ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, "x", 0755, &a), -EROFS);
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, "x", "t", &a), -EROFS);
    ck_assert_int_eq(fs_link(s, f, ROOT, "x", &a), -EROFS);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), -EROFS);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), -EROFS);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "g", 0), -EROFS);
    ck_assert_int_eq(fs_write(s, f, "x", 1, 0, 0), -EROFS);
    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){0}, FS_SET_MODE, NULL), -EROFS);
    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){0}, FS_SET_SIZE, NULL), -EROFS);
}
END_TEST

int main(void)
{
    TCase *tests = fixture_case("posix snapshots", posix_setup, fixture_teardown);

    tcase_add_test(tests, the_snapshots_directory_is_there_and_cannot_be_changed);
    tcase_add_test(tests, inside_a_snapshot_everything_is_as_it_was_and_read_only);
    tcase_add_test(tests, the_parent_of_a_snapshot_is_the_snapshots_directory);
    tcase_add_test(tests, a_store_opened_read_only_gives_erofs);
    return suite_run_case("posix snapshots", tests);
}
