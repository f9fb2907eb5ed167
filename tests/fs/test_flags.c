// SPDX-License-Identifier: MIT
/* The flags of chattr(1): what an immutable and an append-only inode refuse, and what they let pass. */
#include "fixture.h"

#include <fcntl.h>

#define ROOT FS_INO_ROOT

static struct fs_attr a;
static char buf[16];

static int set_flags(uint64_t ino, uint32_t flags)
{
    return fs_setattr(s, ino, &(struct fs_attr){.flags = flags}, FS_SET_FLAGS, &a);
}

static int set(uint64_t ino, unsigned what)
{
    return fs_setattr(s, ino, &(struct fs_attr){.mode = 0600, .uid = 1}, what, &a);
}

/* All that changes more than the end of a file. */
static void refuses_changes(uint64_t dir, uint64_t ino, const char *name)
{
    static const unsigned SETS[] = {FS_SET_MODE, FS_SET_UID, FS_SET_GID, FS_SET_SIZE, FS_SET_ATIME, FS_SET_MTIME};

    for (size_t i = 0; i < sizeof SETS / sizeof SETS[0]; i++)
        ck_assert_int_eq(set(ino, SETS[i]), -EPERM);
    ck_assert_int_eq(fs_write(s, ino, "x", 1, 0, 0), -EPERM);
    ck_assert_int_eq(fs_fallocate(s, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4), -EPERM);
    ck_assert_int_eq(fs_fallocate(s, ino, FALLOC_FL_ZERO_RANGE, 0, 4), -EPERM);
    ck_assert_int_eq(fs_setxattr(s, ino, "user.a", "b", 1, 0, 0), -EPERM);
    ck_assert_int_eq(fs_removexattr(s, ino, "user.a"), -EPERM);
    ck_assert_int_eq(fs_link(s, ino, dir, "link", &a), -EPERM);
    ck_assert_int_eq(fs_unlink(s, dir, name), -EPERM);
    ck_assert_int_eq(fs_rename(s, &cred, dir, name, dir, "moved", 0), -EPERM);
    ck_assert_int_eq(fs_rename(s, &cred, dir, "free", dir, name, 0), -EPERM);
    ck_assert_int_eq(fs_rename(s, &cred, dir, "free", dir, name, RENAME_EXCHANGE), -EPERM);
}

START_TEST(nothing_of_an_immutable_file_changes)
{
    uint64_t f = make_file(ROOT, "f");

    make_file(ROOT, "free");
    ck_assert_int_eq(fs_write(s, f, "contents", 8, 0, 0), 8);
    ck_assert_int_eq(set_flags(f, FS_FLAG_IMMUTABLE), 0);
    ck_assert_uint_eq(a.flags, FS_FLAG_IMMUTABLE);
    struct fs_attr before = attr_of(f);
    refuses_changes(ROOT, f, "f");
    ck_assert_int_eq(fs_write(s, f, "x", 1, 8, 0), -EPERM);
    ck_assert_int_eq(fs_fallocate(s, f, 0, 0, 100), -EPERM);
    ck_assert_int_eq(set(f, FS_SET_MTIME_NOW), -EPERM);
    fixture_crash();
    a = attr_of(f);
    ck_assert_mem_eq(&a, &before, offsetof(struct fs_attr, flags));
    ck_assert_uint_eq(a.flags, before.flags);
    ck_assert_mem_eq(&a.atime, &before.atime, sizeof a - offsetof(struct fs_attr, atime));
    ck_assert_int_eq(fs_read(s, f, buf, sizeof buf, 0), 8);
    ck_assert_mem_eq(buf, "contents", 8);
    ck_assert_int_eq(set_flags(f, 0), 0);
    ck_assert_int_eq(fs_write(s, f, "x", 1, 0, 0), 1);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
}
END_TEST

START_TEST(an_append_only_file_grows_at_its_end)
{
    uint64_t f = make_file(ROOT, "f");

    make_file(ROOT, "free");
    ck_assert_int_eq(fs_write(s, f, "1234", 4, 0, 0), 4);
    ck_assert_int_eq(set_flags(f, FS_FLAG_APPEND), 0);
    refuses_changes(ROOT, f, "f");
    ck_assert_int_eq(fs_write(s, f, "x", 1, 3, 0), -EPERM);
    ck_assert_int_eq(fs_write(s, f, "x", 1, 5, 0), -EPERM);
    ck_assert_int_eq(fs_write(s, f, "5", 1, 4, 0), 1);
    ck_assert_int_eq(fs_fallocate(s, f, FALLOC_FL_KEEP_SIZE, 0, 100), 0);
    ck_assert_int_eq(set(f, FS_SET_MTIME_NOW), 0);
    ck_assert_int_eq(fs_read(s, f, buf, sizeof buf, 0), 5);
    ck_assert_mem_eq(buf, "12345", 5);
}
END_TEST

START_TEST(names_in_a_directory_stay_or_are_only_added)
{
    uint64_t d = make_dir(ROOT, "d"), f = make_file(d, "f");

    make_file(ROOT, "other");
    ck_assert_int_eq(set_flags(d, FS_FLAG_IMMUTABLE), 0);
    for (int append = 0; append < 2; append++) {
        ck_assert_int_eq(fs_unlink(s, d, "f"), -EPERM);
        ck_assert_int_eq(fs_rename(s, &cred, d, "f", ROOT, "f", 0), -EPERM);
        ck_assert_int_eq(fs_rename(s, &cred, ROOT, "other", d, "f", 0), -EPERM);
        ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), -EPERM);
        ck_assert_int_eq(fs_write(s, f, "x", 1, 0, 0), 1); /* what is in it is free */
        ck_assert_int_eq(fs_link(s, f, d, append ? "second" : "first", &a), append ? 0 : -EPERM);
        ck_assert_int_eq(fs_rename(s, &cred, ROOT, "other", d, "o", 0), append ? 0 : -EPERM);
        ck_assert_int_eq(fs_mkdir(s, &cred, d, "sub", 0755, &a), append ? 0 : -EPERM);
        ck_assert_int_eq(set_flags(d, FS_FLAG_APPEND), 0);
    }
}
END_TEST

/* Its flags were set through a descriptor after its last name was gone. */
START_TEST(an_immutable_file_without_a_name_goes_with_its_last_reference)
{
    uint64_t f = keep_file(ROOT, "f");

    ck_assert_int_eq(fs_write(s, f, "contents", 8, 0, 0), 8);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
    ck_assert_int_eq(set_flags(f, FS_FLAG_IMMUTABLE), 0);
    fs_forget(s, f, 1);
    ck_assert_int_eq(fs_getattr(s, f, &a), -ESTALE);
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

START_TEST(other_flags_are_refused_and_noatime_is_kept)
{
    uint64_t f = make_file(ROOT, "f");

    ck_assert_int_eq(set_flags(f, 1), -EOPNOTSUPP);
    ck_assert_int_eq(set_flags(f, FS_FLAG_NODUMP | 0x100), -EOPNOTSUPP);
    ck_assert_int_eq(set(f, FS_SET_FLAGS | FS_SET_MODE), -EINVAL);
    ck_assert_int_eq(set_flags(f, FS_FLAG_NODUMP | FS_FLAG_NOATIME), 0);
    struct timespec before = attr_of(f).atime;
    fs_accessed(s, f);
    ck_assert_int_eq(attr_of(f).atime.tv_sec, before.tv_sec);
    ck_assert_int_eq(set_flags(f, FS_FLAG_NODUMP), 0);
    fs_accessed(s, f);
    ck_assert_int_gt(attr_of(f).atime.tv_sec, before.tv_sec);
    fixture_crash();
    ck_assert_uint_eq(attr_of(f).flags, FS_FLAG_NODUMP);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("flags");
    TCase *tests = tcase_create("flags");

    tcase_add_checked_fixture(tests, fixture_setup, fixture_teardown);
    tcase_add_test(tests, nothing_of_an_immutable_file_changes);
    tcase_add_test(tests, an_append_only_file_grows_at_its_end);
    tcase_add_test(tests, names_in_a_directory_stay_or_are_only_added);
    tcase_add_test(tests, an_immutable_file_without_a_name_goes_with_its_last_reference);
    tcase_add_test(tests, other_flags_are_refused_and_noatime_is_kept);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
