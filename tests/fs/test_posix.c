// SPDX-License-Identifier: MIT
/*
 * Every call of fs.h: what it does, each errno it can give, the times it moves.
 */
#include "fixture.h"

#define ROOT FS_INO_ROOT

static char long_name[FS_NAME_MAX + 2], max_name[FS_NAME_MAX + 1];
static struct fs_attr a;

static void names_setup(void)
{
    memset(long_name, 'n', sizeof long_name - 1);
    memset(max_name, 'm', sizeof max_name - 1);
    fixture_setup();
}

static bool is_before(struct timespec x, struct timespec y)
{
    return x.tv_sec < y.tv_sec;
}

#define ck_same_time(x, y) ck_assert_int_eq((x).tv_sec, (y).tv_sec)

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

/* ---- data ---------------------------------------------------------------------------------------------------- */

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

/* ---- snapshots -------------------------------------------------------------------------------------------------- */

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
    Suite *suite = suite_create("posix");
    TCase *tests = tcase_create("posix");

    tcase_add_checked_fixture(tests, names_setup, fixture_teardown);
    tcase_set_timeout(tests, 120);
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
    tcase_add_test(tests, an_unlinked_file_stays_until_its_last_reference_goes);
    tcase_add_test(tests, a_removed_directory_that_is_referenced_takes_no_names);
    tcase_add_test(tests, the_parent_of_a_removed_directory_is_not_damage);
    tcase_add_test(tests, orphans_of_a_dead_daemon_go_at_the_next_open);
    tcase_add_test(tests, the_count_of_files_is_right_after_a_clean_close);
    tcase_add_test(tests, the_count_of_files_is_right_after_a_crash);
    tcase_add_test(tests, the_count_of_files_never_falls_below_what_is_there);
    tcase_add_test(tests, the_count_of_files_is_no_nonsense_after_a_crash_behind_the_stores_commit);
    tcase_add_test(tests, inode_numbers_are_never_used_again);
    tcase_add_test(tests, rename_moves_and_replaces);
    tcase_add_test(tests, rename_says_why_not);
    tcase_add_test(tests, rename_between_two_names_of_one_inode_does_nothing);
    tcase_add_test(tests, moving_a_directory_moves_the_links_of_its_parents);
    tcase_add_test(tests, setattr_sets_what_it_is_told_and_ctime);
    tcase_add_test(tests, a_write_by_a_user_takes_setuid_and_setgid_away);
    tcase_add_test(tests, read_and_write_at_every_edge_of_a_chunk);
    tcase_add_test(tests, holes_read_as_zeros_and_take_no_blocks);
    tcase_add_test(tests, what_was_cut_off_reads_as_zeros_when_the_file_grows_again);
    tcase_add_test(tests, data_calls_say_why_not);
    tcase_add_test(tests, an_inode_that_is_gone_is_estale_to_every_call);
    tcase_add_test(tests, the_largest_hole_is_cut_at_once);
    tcase_add_test(tests, a_mebibyte_that_is_not_aligned_is_one_unit);
    tcase_add_test(tests, the_snapshots_directory_is_there_and_cannot_be_changed);
    tcase_add_test(tests, inside_a_snapshot_everything_is_as_it_was_and_read_only);
    tcase_add_test(tests, the_parent_of_a_snapshot_is_the_snapshots_directory);
    tcase_add_test(tests, a_store_opened_read_only_gives_erofs);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
