// SPDX-License-Identifier: MIT
/*
 * Calls that make, move and remove names: what they do, each errno they can give, the times they move.
 */
#include "posix.h"

static const char *const max_name = long_name + 1;

/* ---- names ------------------------------------------------------------------------------------------- */

START_TEST(the_root_is_a_directory_of_its_owner)
{
    a = attr_of(ROOT);
    ck_assert_uint_eq(a.ino, 1);
    ck_assert_uint_eq(a.mode, S_IFDIR | 0755);
    ck_assert_uint_eq(a.nlink, 2);
    ck_assert_uint_eq(a.uid, 3);
    ck_assert_uint_eq(a.gid, 4);
    ck_assert_int_eq(look(ROOT, "."), ROOT);
    ck_assert_int_eq(look(ROOT, ".."), ROOT);
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

START_TEST(lookup_finds_names_and_says_why_not)
{
    uint64_t d = make_dir(ROOT, "d"), f = make_file(d, "f");

    ck_assert_int_eq(look(ROOT, "d"), (int64_t)d);
    ck_assert_int_eq(look(d, "f"), (int64_t)f);
    ck_assert_int_eq(look(d, "."), (int64_t)d);
    ck_assert_int_eq(look(d, ".."), ROOT);
    ck_assert_int_eq(look(d, "g"), -ENOENT);
    ck_assert_int_eq(look(d, long_name), -ENAMETOOLONG);
    ck_assert_int_eq(look(d, max_name), -ENOENT);
    ck_assert_int_eq(look(f, "."), (int64_t)f);
    ck_assert_int_eq(look(f, ".."), -ENOTDIR);
    ck_assert_int_eq(look(f, "."), (int64_t)f);
    ck_assert_int_eq(look(f, ".."), -ENOTDIR);
    ck_assert_int_lt(look(12345, "x"), 0);
}
END_TEST

START_TEST(names_that_cannot_be_are_refused_by_every_call)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "/"};
    uint64_t f = make_file(ROOT, "f");

    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(fs_mknod(s, &cred, ROOT, bad[i], S_IFREG, 0, &a), -EINVAL);
        ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, bad[i], 0755, &a), -EINVAL);
        ck_assert_int_eq(fs_symlink(s, &cred, ROOT, bad[i], "t", &a), -EINVAL);
        ck_assert_int_eq(fs_link(s, f, ROOT, bad[i], &a), -EINVAL);
        ck_assert_int_eq(fs_unlink(s, ROOT, bad[i]), -EINVAL);
        ck_assert_int_eq(fs_rename(s, &cred, ROOT, bad[i], ROOT, "x", 0), -EINVAL);
        ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, bad[i], 0), -EINVAL);
        int rc = fs_rmdir(s, ROOT, bad[i]);
        ck_assert_int_eq(rc, strcmp(bad[i], "..") == 0 ? -ENOTEMPTY : -EINVAL); /* as rmdir(2) has it */
    }
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, long_name, S_IFREG, 0, &a), -ENAMETOOLONG);
    ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, long_name, 0755, &a), -ENAMETOOLONG);
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, long_name, "t", &a), -ENAMETOOLONG);
    ck_assert_int_eq(fs_link(s, f, ROOT, long_name, &a), -ENAMETOOLONG);
    ck_assert_int_eq(fs_unlink(s, ROOT, long_name), -ENAMETOOLONG);
    ck_assert_int_eq(fs_rmdir(s, ROOT, long_name), -ENAMETOOLONG);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, long_name, ROOT, "x", 0), -ENAMETOOLONG);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, long_name, 0), -ENAMETOOLONG);
    ck_assert_int_eq(files_in_use(), 2);
    ck_assert_int_gt(make_file(ROOT, max_name), 0);
    ck_assert_int_gt(make_file(ROOT, "\xff\x01 \n"), 0);
    ck_assert_int_gt(look(ROOT, "\xff\x01 \n"), 0);
}
END_TEST

START_TEST(mknod_makes_every_type_but_directories_and_symlinks)
{
    static const mode_t types[] = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    char name[2] = "a";

    for (unsigned i = 0; i < 5; i++, name[0]++) {
        ck_assert_int_eq(fs_mknod(s, &cred, ROOT, name, types[i] | 06777, 0x1234, &a), 0);
        ck_assert_uint_eq(a.mode, types[i] | 06755);
        ck_assert_uint_eq(a.nlink, 1);
        ck_assert_uint_eq(a.uid, 7);
        ck_assert_uint_eq(a.gid, 8);
        ck_assert_uint_eq(a.size, 0);
        ck_assert_uint_eq(a.blocks, 0);
        ck_assert_uint_eq(a.rdev, S_ISCHR(types[i]) || S_ISBLK(types[i]) ? 0x1234 : 0);
        ck_same_time(a.mtime, a.btime);
        ck_same_time(a.atime, a.btime);
        ck_same_time(a.ctime, a.btime);
        ck_assert_int_eq(a.mtime.tv_nsec, 5);
        ck_assert_int_eq(look(ROOT, name), (int64_t)a.ino);
    }
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "z", 0600, 0, &a), 0); /* no type: a regular file */
    ck_assert_uint_eq(a.mode, S_IFREG | 0600);
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "y", S_IFDIR | 0755, 0, &a), -EINVAL);
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "y", S_IFLNK | 0777, 0, &a), -EINVAL);
}
END_TEST

START_TEST(mknod_refuses_a_type_that_does_not_exist)
{
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "y", 0030000 | 0644, 0, &a), -EINVAL);
    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "y", 0170000 | 0644, 0, &a), -EINVAL);
}
END_TEST

START_TEST(a_name_is_made_once_and_only_in_a_directory)
{
    uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");

    ck_assert_int_eq(fs_mknod(s, &cred, ROOT, "f", S_IFREG, 0, &a), -EEXIST);
    ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, "f", 0755, &a), -EEXIST);
    ck_assert_int_eq(fs_mkdir(s, &cred, ROOT, "d", 0755, &a), -EEXIST);
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, "d", "t", &a), -EEXIST);
    ck_assert_int_eq(fs_link(s, f, ROOT, "d", &a), -EEXIST);
    ck_assert_int_eq(fs_mknod(s, &cred, f, "x", S_IFREG, 0, &a), -ENOTDIR);
    ck_assert_int_eq(fs_mkdir(s, &cred, f, "x", 0755, &a), -ENOTDIR);
    ck_assert_int_eq(fs_symlink(s, &cred, f, "x", "t", &a), -ENOTDIR);
    ck_assert_int_eq(fs_link(s, f, f, "x", &a), -ENOTDIR);
    ck_assert_uint_eq(attr_of(ROOT).nlink, 3);
    ck_assert_uint_eq(attr_of(d).nlink, 2);
    ck_assert_uint_eq(attr_of(f).nlink, 1);
    ck_assert_uint_eq(files_in_use(), 3);
}
END_TEST

START_TEST(removing_below_what_is_no_directory_is_enotdir)
{
    uint64_t f = make_file(ROOT, "f");

    ck_assert_int_eq(fs_unlink(s, f, "x"), -ENOTDIR);
    ck_assert_int_eq(fs_rmdir(s, f, "x"), -ENOTDIR);
    ck_assert_int_eq(fs_rename(s, &cred, f, "x", ROOT, "y", 0), -ENOTDIR);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", f, "y", 0), -ENOTDIR);
}
END_TEST

START_TEST(a_setgid_directory_hands_down_its_group)
{
    uint64_t d = make_dir(ROOT, "d");
    struct fs_attr set = {.mode = 02775, .gid = 55};

    ck_assert_int_eq(fs_setattr(s, d, &set, FS_SET_MODE | FS_SET_GID, NULL), 0);
    ck_assert_int_eq(fs_mknod(s, &cred, d, "f", S_IFREG | 0644, 0, &a), 0);
    ck_assert_uint_eq(a.gid, 55);
    ck_assert_uint_eq(a.mode, S_IFREG | 0644);
    ck_assert_int_eq(fs_mkdir(s, &cred, d, "d", 0777, &a), 0);
    ck_assert_uint_eq(a.gid, 55);
    ck_assert_uint_eq(a.mode, S_IFDIR | 02755);
}
END_TEST

START_TEST(making_and_removing_move_the_directorys_times)
{
    uint64_t d = make_dir(ROOT, "d");
    struct fs_attr before = attr_of(d), after;

#define CHANGED()                                                                                                      \
    do {                                                                                                               \
        after = attr_of(d);                                                                                            \
        ck_assert(is_before(before.mtime, after.mtime));                                                               \
        ck_same_time(after.mtime, after.ctime);                                                                        \
        ck_same_time(after.atime, before.atime);                                                                       \
        before = after;                                                                                                \
    } while (0)
    uint64_t f = make_file(d, "f");
    CHANGED();
    make_dir(d, "d");
    CHANGED();
    ck_assert_int_eq(fs_symlink(s, &cred, d, "l", "t", &a), 0);
    CHANGED();
    struct timespec ctime = attr_of(f).ctime, mtime = attr_of(f).mtime;
    ck_assert_int_eq(fs_link(s, f, d, "g", &a), 0);
    CHANGED();
    ck_assert(is_before(ctime, attr_of(f).ctime));
    ck_same_time(mtime, attr_of(f).mtime);
    ctime = attr_of(f).ctime;
    ck_assert_int_eq(fs_unlink(s, d, "g"), 0);
    CHANGED();
    ck_assert(is_before(ctime, attr_of(f).ctime));
    ctime = attr_of(f).ctime;
    ck_assert_int_eq(fs_rename(s, &cred, d, "f", d, "h", 0), 0);
    CHANGED();
    ck_assert(is_before(ctime, attr_of(f).ctime));
    ck_same_time(mtime, attr_of(f).mtime);
    ck_assert_int_eq(fs_rename(s, &cred, d, "h", ROOT, "h", 0), 0);
    CHANGED();
    ck_same_time(attr_of(ROOT).mtime, after.mtime);
    ck_assert_int_eq(fs_rmdir(s, d, "d"), 0);
    CHANGED();
    /* and what fails moves nothing */
    ck_assert_int_eq(fs_unlink(s, d, "nothing"), -ENOENT);
    ck_assert_int_eq(fs_mkdir(s, &cred, d, "l", 0755, &a), -EEXIST);
    ck_same_time(attr_of(d).mtime, before.mtime);
}
END_TEST

START_TEST(symlinks_keep_their_target)
{
    char target[FS_SYMLINK_MAX + 2], got[FS_SYMLINK_MAX + 1];

    memset(target, 't', sizeof target);
    target[FS_SYMLINK_MAX + 1] = 0;
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, "l", target, &a), -ENAMETOOLONG);
    target[FS_SYMLINK_MAX] = 0;
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, "l", target, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFLNK | 0777);
    ck_assert_uint_eq(a.size, FS_SYMLINK_MAX);
    ck_assert_uint_eq(a.nlink, 1);
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, "m", "", &a), -ENOENT);
    uint64_t l = (uint64_t)look(ROOT, "l");
    fixture_reopen();
    ck_assert_int_eq(fs_readlink(s, l, got, sizeof got), FS_SYMLINK_MAX);
    ck_assert_mem_eq(got, target, FS_SYMLINK_MAX);
    memset(got, 0, sizeof got);
    ck_assert_int_eq(fs_readlink(s, l, got, 3), FS_SYMLINK_MAX);
    ck_assert_str_eq(got, "ttt");
    ck_assert_int_eq(fs_readlink(s, ROOT, got, 3), -EINVAL);
    ck_assert_int_eq(fs_readlink(s, make_file(ROOT, "f"), got, 3), -EINVAL);
    ck_assert_int_eq(fs_read(s, l, got, 3, 0), -EINVAL);
    /* changing the inode leaves the target */
    struct fs_attr set = {.uid = 99};
    ck_assert_int_eq(fs_setattr(s, l, &set, FS_SET_UID, &a), 0);
    ck_assert_uint_eq(a.uid, 99);
    ck_assert_int_eq(fs_link(s, l, ROOT, "hard", &a), 0);
    ck_assert_int_eq(fs_unlink(s, ROOT, "l"), 0);
    ck_assert_int_eq(fs_readlink(s, l, got, sizeof got), FS_SYMLINK_MAX);
    ck_assert_mem_eq(got, target, FS_SYMLINK_MAX);
}
END_TEST

START_TEST(links_are_names_of_one_inode)
{
    uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");

    ck_assert_int_eq(fs_link(s, d, ROOT, "e", &a), -EPERM);
    ck_assert_int_eq(fs_link(s, 4711, ROOT, "e", &a) < 0, 1);
    ck_assert_int_eq(fs_link(s, f, d, "g", &a), 0);
    ck_assert_uint_eq(a.ino, f);
    ck_assert_uint_eq(a.nlink, 2);
    fs_forget(s, f, 1);
    ck_assert_int_eq(fs_write(s, f, "abc", 3, 0, 0), 3);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
    ck_assert_uint_eq(attr_of(f).nlink, 1);
    ck_assert_int_eq(look(d, "g"), (int64_t)f);
    ck_assert_int_eq(fs_unlink(s, d, "g"), 0);
    ck_assert_int_lt(fs_getattr(s, f, &a), 0);
    ck_assert_uint_eq(files_in_use(), 2);
}
END_TEST

START_TEST(the_link_after_the_last_is_emlink)
{
    uint64_t f = make_file(ROOT, "f");
    char name[16];

    for (unsigned i = 1; i < FS_LINK_MAX; i++) {
        sprintf(name, "%u", i);
        ck_assert_int_eq(fs_link(s, f, ROOT, name, &a), 0);
    }
    fs_forget(s, f, FS_LINK_MAX - 1);
    ck_assert_uint_eq(attr_of(f).nlink, FS_LINK_MAX);
    ck_assert_int_eq(fs_link(s, f, ROOT, "more", &a), -EMLINK);
    ck_assert_int_eq(look(ROOT, "more"), -ENOENT);
    ck_assert_int_eq(fs_unlink(s, ROOT, "1"), 0);
    ck_assert_int_eq(fs_link(s, f, ROOT, "more", &a), 0);
}
END_TEST

START_TEST(unlink_and_rmdir_tell_files_from_directories)
{
    uint64_t d = make_dir(ROOT, "d");

    make_file(d, "f");
    make_dir(d, "e");
    ck_assert_int_eq(fs_unlink(s, ROOT, "d"), -EISDIR);
    ck_assert_int_eq(fs_rmdir(s, d, "f"), -ENOTDIR);
    ck_assert_int_eq(fs_unlink(s, ROOT, "x"), -ENOENT);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "x"), -ENOENT);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), -ENOTEMPTY);
    ck_assert_int_eq(fs_unlink(s, d, "f"), 0);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), -ENOTEMPTY);
    ck_assert_uint_eq(attr_of(d).nlink, 3);
    ck_assert_int_eq(fs_rmdir(s, d, "e"), 0);
    ck_assert_uint_eq(attr_of(d).nlink, 2);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), 0);
    ck_assert_uint_eq(attr_of(ROOT).nlink, 2);
    ck_assert_int_eq(look(ROOT, "d"), -ENOENT);
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

/* ---- rename ---------------------------------------------------------------------------------------------- */

START_TEST(rename_moves_and_replaces)
{
    uint64_t d = make_dir(ROOT, "d"), e = make_dir(ROOT, "e"), f = make_file(d, "f"), g = make_file(e, "g");

    ck_assert_int_eq(fs_rename(s, &cred, d, "f", d, "f2", 0), 0);
    ck_assert_int_eq(look(d, "f"), -ENOENT);
    ck_assert_int_eq(look(d, "f2"), (int64_t)f);
    ck_assert_int_eq(fs_rename(s, &cred, d, "f2", e, "f3", 0), 0);
    ck_assert_int_eq(look(e, "f3"), (int64_t)f);
    ck_assert_int_eq(fs_rename(s, &cred, e, "f3", e, "g", 0), 0);
    ck_assert_int_eq(look(e, "g"), (int64_t)f);
    ck_assert_int_eq(look(e, "f3"), -ENOENT);
    ck_assert_int_eq(fs_getattr(s, g, &a), -ESTALE);
    ck_assert_uint_eq(attr_of(f).nlink, 1);
    ck_assert_uint_eq(files_in_use(), 4);
    /* a replaced file with another name keeps that */
    uint64_t h = make_file(d, "h");
    ck_assert_int_eq(fs_link(s, h, d, "h2", &a), 0);
    ck_assert_int_eq(fs_rename(s, &cred, e, "g", d, "h", 0), 0);
    ck_assert_uint_eq(attr_of(h).nlink, 1);
    ck_assert_int_eq(look(d, "h2"), (int64_t)h);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "e"), 0);
}
END_TEST

START_TEST(rename_says_why_not)
{
    uint64_t d = make_dir(ROOT, "d"), f = make_file(ROOT, "f"), e = make_dir(d, "e");

    make_dir(ROOT, "empty");
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "x", ROOT, "y", 0), -ENOENT);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "d", 0), -EISDIR);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "d", ROOT, "f", 0), -ENOTDIR);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "empty", ROOT, "d", 0), -ENOTEMPTY);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "d", d, "x", 0), -EINVAL);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "d", e, "x", 0), -EINVAL);
    ck_assert_int_eq(fs_rename(s, &cred, d, "e", ROOT, "d", 0), -ENOTEMPTY);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "d", RENAME_NOREPLACE), -EEXIST);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "f", RENAME_NOREPLACE), -EEXIST);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "y", RENAME_EXCHANGE), -ENOENT);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "d", d, "e", RENAME_EXCHANGE), -EINVAL);
    ck_assert_int_eq(fs_rename(s, &cred, d, "e", ROOT, "d", RENAME_EXCHANGE), -EINVAL);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "y", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "y", 1u << 3), -EINVAL); /* whiteout */
    ck_assert_int_eq(look(ROOT, "f"), (int64_t)f);
    ck_assert_int_eq(look(d, "e"), (int64_t)e);
    ck_assert_uint_eq(attr_of(ROOT).nlink, 4);
    ck_assert_uint_eq(files_in_use(), 5);
}
END_TEST

START_TEST(rename_between_two_names_of_one_inode_does_nothing)
{
    uint64_t f = make_file(ROOT, "f");

    ck_assert_int_eq(fs_link(s, f, ROOT, "g", &a), 0);
    struct timespec before = attr_of(ROOT).mtime;
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "g", 0), 0);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "f", 0), 0);
    ck_assert_int_eq(fs_rename(s, &cred, ROOT, "f", ROOT, "g", RENAME_EXCHANGE), 0);
    ck_assert_int_eq(look(ROOT, "f"), (int64_t)f);
    ck_assert_int_eq(look(ROOT, "g"), (int64_t)f);
    ck_same_time(before, attr_of(ROOT).mtime);
}
END_TEST

START_TEST(moving_a_directory_moves_the_links_of_its_parents)
{
    uint64_t d = make_dir(ROOT, "d"), e = make_dir(ROOT, "e"), x = make_dir(d, "x");

    make_file(x, "f");
    ck_assert_int_eq(fs_rename(s, &cred, d, "x", e, "y", 0), 0);
    ck_assert_uint_eq(attr_of(d).nlink, 2);
    ck_assert_uint_eq(attr_of(e).nlink, 3);
    ck_assert_int_eq(look(x, ".."), (int64_t)e);
    /* onto an empty directory */
    uint64_t z = make_dir(d, "z");
    ck_assert_int_eq(fs_rename(s, &cred, e, "y", d, "z", 0), 0);
    ck_assert_uint_eq(attr_of(d).nlink, 3);
    ck_assert_uint_eq(attr_of(e).nlink, 2);
    ck_assert_int_eq(look(x, ".."), (int64_t)d);
    ck_assert_int_eq(fs_getattr(s, z, &a), -ESTALE);
    /* for a file, and back */
    make_file(e, "f");
    ck_assert_int_eq(fs_rename(s, &cred, e, "f", d, "z", RENAME_EXCHANGE), 0);
    ck_assert_uint_eq(attr_of(d).nlink, 2);
    ck_assert_uint_eq(attr_of(e).nlink, 3);
    ck_assert_int_eq(look(e, "f"), (int64_t)x);
    ck_assert_int_eq(look(x, ".."), (int64_t)e);
    ck_assert_uint_eq(attr_of((uint64_t)look(d, "z")).mode & S_IFMT, S_IFREG);
    /* within one directory, both ways */
    ck_assert_int_eq(fs_rename(s, &cred, e, "f", e, "q", 0), 0);
    ck_assert_uint_eq(attr_of(e).nlink, 3);
    make_dir(e, "r");
    ck_assert_int_eq(fs_rename(s, &cred, e, "q", e, "r", RENAME_EXCHANGE), 0);
    ck_assert_uint_eq(attr_of(e).nlink, 4);
    ck_assert_int_eq(look(e, "r"), (int64_t)x);
    ck_assert_int_eq(fs_rename(s, &cred, e, "q", e, "r", 0), -ENOTEMPTY);
    ck_assert_int_eq(fs_rename(s, &cred, e, "r", e, "q", 0), 0);
    ck_assert_uint_eq(attr_of(e).nlink, 3);
    ck_assert_uint_eq(files_in_use(), 6);
}
END_TEST

int main(void)
{
    TCase *tests = fixture_case("posix names", posix_setup, fixture_teardown);

    tcase_add_test(tests, the_root_is_a_directory_of_its_owner);
    tcase_add_test(tests, lookup_finds_names_and_says_why_not);
    tcase_add_test(tests, names_that_cannot_be_are_refused_by_every_call);
    tcase_add_test(tests, mknod_makes_every_type_but_directories_and_symlinks);
    tcase_add_test(tests, mknod_refuses_a_type_that_does_not_exist);
    tcase_add_test(tests, a_name_is_made_once_and_only_in_a_directory);
    tcase_add_test(tests, removing_below_what_is_no_directory_is_enotdir);
    tcase_add_test(tests, a_setgid_directory_hands_down_its_group);
    tcase_add_test(tests, making_and_removing_move_the_directorys_times);
    tcase_add_test(tests, symlinks_keep_their_target);
    tcase_add_test(tests, links_are_names_of_one_inode);
    tcase_add_test(tests, the_link_after_the_last_is_emlink);
    tcase_add_test(tests, unlink_and_rmdir_tell_files_from_directories);
    tcase_add_test(tests, rename_moves_and_replaces);
    tcase_add_test(tests, rename_says_why_not);
    tcase_add_test(tests, rename_between_two_names_of_one_inode_does_nothing);
    tcase_add_test(tests, moving_a_directory_moves_the_links_of_its_parents);
    return suite_run_case("posix names", tests);
}
