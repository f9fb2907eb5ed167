// SPDX-License-Identifier: MIT
/*
 * Extended attributes and POSIX ACLs: every outcome, a model under random changes with crashes, inheritance.
 */
#include "fixture.h"

#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#define ROOT FS_INO_ROOT

static char value[FS_XATTR_VALUE_MAX], got[FS_XATTR_VALUE_MAX];
static struct fs_attr a;

static int set(uint64_t ino, const char *name, const char *text)
{
    return fs_setxattr(s, ino, name, text, strlen(text), 0, 0);
}

static void ck_value(uint64_t ino, const char *name, const char *text)
{
    ssize_t len = fs_getxattr(s, ino, name, got, sizeof got);

    ck_assert_msg(len == (ssize_t)strlen(text), "%s: %zd", name, len);
    ck_assert_int_eq(memcmp(got, text, (size_t)len), 0);
    ck_assert_int_eq(fs_getxattr(s, ino, name, NULL, 0), len);
}

/* ---- attributes ---------------------------------------------------------------------------------------- */

START_TEST(an_attribute_is_set_read_listed_and_removed)
{
    uint64_t f = make_file(ROOT, "f");

    a = attr_of(f);
    ck_assert_int_eq(fs_listxattr(s, f, true, got, sizeof got), 0);
    ck_assert_int_eq(set(f, "user.a", "one"), 0);
    ck_assert_int_gt(attr_of(f).ctime.tv_sec, a.ctime.tv_sec);
    ck_assert_int_eq(attr_of(f).mtime.tv_sec, a.mtime.tv_sec);
    ck_assert_int_eq(set(f, "trusted.b", ""), 0);
    ck_assert_int_eq(set(f, "security.c", "three"), 0);
    ck_value(f, "user.a", "one");
    ck_value(f, "trusted.b", "");
    ck_value(f, "security.c", "three");
    ck_assert_int_eq(set(f, "user.a", "another value"), 0);
    ck_value(f, "user.a", "another value");
    ck_assert_int_eq(fs_listxattr(s, f, false, NULL, 0), 18);
    ck_assert_int_eq(fs_listxattr(s, f, true, NULL, 0), 28);
    ck_assert_int_eq(fs_listxattr(s, f, true, got, 27), -ERANGE);
    ck_assert_int_eq(fs_listxattr(s, f, true, got, 28), 28);
    ck_assert_int_eq(memcmp(got, "trusted.b\0security.c\0user.a", 28), 0);
    fixture_crash();
    ck_value(f, "user.a", "another value");
    ck_assert_int_eq(fs_removexattr(s, f, "user.a"), 0);
    ck_assert_int_eq(fs_removexattr(s, f, "user.a"), -ENODATA);
    ck_assert_int_eq(fs_removexattr(s, f, "trusted.b"), 0);
    ck_assert_int_eq(fs_removexattr(s, f, "security.c"), 0);
    ck_assert_int_eq(fs_listxattr(s, f, true, got, sizeof got), 0);
}
END_TEST

START_TEST(xattr_calls_say_why_not)
{
    uint64_t f = make_file(ROOT, "f"), none = 12345;
    char name[FS_NAME_MAX + 2] = "user.";

    ck_assert_int_eq(fs_getxattr(s, f, "user.a", got, sizeof got), -ENODATA);
    ck_assert_int_eq(set(f, "user.a", "12345"), 0);
    ck_assert_int_eq(fs_getxattr(s, f, "user.b", got, sizeof got), -ENODATA);
    ck_assert_int_eq(fs_getxattr(s, f, "user.a", got, 4), -ERANGE);
    ck_assert_int_eq(fs_setxattr(s, f, "user.a", "x", 1, XATTR_CREATE, 0), -EEXIST);
    ck_assert_int_eq(fs_setxattr(s, f, "user.b", "x", 1, XATTR_REPLACE, 0), -ENODATA);
    ck_assert_int_eq(fs_setxattr(s, f, "user.b", "x", 1, 8, 0), -EINVAL);
    ck_assert_int_eq(fs_setxattr(s, f, "user.b", value, sizeof value + 1, 0, 0), -E2BIG);
    ck_assert_int_eq(set(f, "user.", "x"), -EINVAL);
    ck_assert_int_eq(set(f, "system.other", "x"), -EOPNOTSUPP);
    ck_assert_int_eq(set(f, "nothing", "x"), -EOPNOTSUPP);
    ck_assert_int_eq(fs_removexattr(s, f, "nothing"), -EOPNOTSUPP);
    ck_assert_int_eq(set(none, "user.a", "x"), -ESTALE);
    ck_assert_int_eq(fs_getxattr(s, none, "user.a", got, sizeof got), -ESTALE);
    ck_assert_int_eq(fs_listxattr(s, none, true, got, sizeof got), -ESTALE);
    memset(name + 5, 'n', FS_NAME_MAX - 5);
    ck_assert_int_eq(set(f, name, "x"), 0);
    ck_value(f, name, "x");
    name[FS_NAME_MAX] = 'n';
    ck_assert_int_eq(set(f, name, "x"), -ERANGE);
    ck_value(f, "user.a", "12345");
}
END_TEST

START_TEST(values_of_64_kib_come_and_go)
{
    uint64_t f = make_file(ROOT, "f");

    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (char)(i * 31 + i / 256);
    static const size_t lens[] = {511, 512, 513, 4000, 65535, 65536};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        size_t len = lens[i];
        ck_assert_int_eq(fs_setxattr(s, f, "user.big", value, len, 0, 0), 0);
        ck_assert_int_eq(set(f, "user.small", "small"), 0);
        ck_assert_int_eq(fs_getxattr(s, f, "user.big", got, sizeof got), (ssize_t)len);
        ck_assert_int_eq(memcmp(got, value, len), 0);
        ck_assert_int_eq(fs_getxattr(s, f, "user.big", got, len - 1), -ERANGE);
    }
    ck_assert_int_eq(fs_setxattr(s, f, "user.big", value, 3, XATTR_REPLACE, 0), 0);
    ck_assert_int_eq(fs_getxattr(s, f, "user.big", got, sizeof got), 3);
    ck_assert_int_eq(fs_setxattr(s, f, "user.big", value, sizeof value, 0, 0), 0);
    ck_assert_int_eq(fs_removexattr(s, f, "user.big"), 0);
    ck_assert_int_eq(fs_getxattr(s, f, "user.big", got, sizeof got), -ENODATA);
    ck_value(f, "user.small", "small");
}
END_TEST

/* "user.", and eight digits instead of what stood there. */
static void number_name(char *name, int number)
{
    memcpy(name, "user.", 5);
    for (int i = 12; i > 4; i--, number /= 10)
        name[i] = (char)('0' + number % 10);
}

START_TEST(names_fill_60_kib_and_then_there_is_no_space)
{
    uint64_t f = make_file(ROOT, "f");
    char name[FS_NAME_MAX + 1];
    int rc = 0, count = 0;

    memset(name, 'n', sizeof name);
    name[FS_NAME_MAX] = 0;
    while (rc == 0 && count < 1000) {
        number_name(name, count);
        rc = fs_setxattr(s, f, name, value, 600, 0, 0); /* each value a record of its own */
        count += rc == 0;
    }
    ck_assert_int_eq(rc, -ENOSPC);
    ck_assert_int_ge(count * (FS_NAME_MAX + 1), 60 << 10);
    ck_assert_int_eq(fs_listxattr(s, f, true, NULL, 0), count * ((int)FS_NAME_MAX + 1));
    number_name(name, 3);
    ck_assert_int_eq(fs_removexattr(s, f, name), 0);
    ck_assert_int_eq(set(f, name, "fits again"), 0);
    ck_assert_int_eq(fs_unlink(s, ROOT, "f"), 0);
    ck_assert_int_eq(fs_listxattr(s, f, true, NULL, 0), -ESTALE);
}
END_TEST

START_TEST(attributes_belong_to_one_inode_and_snapshots_keep_theirs)
{
    uint64_t f = make_file(ROOT, "f"), g = make_file(ROOT, "g");
    int64_t old;

    memset(value, 'v', sizeof value);
    ck_assert_int_eq(set(f, "user.a", "before"), 0);
    ck_assert_int_eq(fs_setxattr(s, f, "user.big", value, 5000, 0, 0), 0);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "one", 0, &a), 0);
    ck_assert_int_eq(set(f, "user.a", "after"), 0);
    ck_assert_int_eq(fs_removexattr(s, f, "user.big"), 0);
    ck_assert_int_eq(fs_getxattr(s, g, "user.a", got, sizeof got), -ENODATA);
    old = look(a.ino, "f");
    ck_value((uint64_t)old, "user.a", "before");
    ck_assert_int_eq(fs_getxattr(s, (uint64_t)old, "user.big", got, sizeof got), 5000);
    ck_assert_int_eq(fs_listxattr(s, (uint64_t)old, true, NULL, 0), 16);
    ck_assert_int_eq(set((uint64_t)old, "user.a", "x"), -EROFS);
    ck_assert_int_eq(fs_removexattr(s, (uint64_t)old, "user.a"), -EROFS);
    ck_value(f, "user.a", "after");
    ck_assert_int_eq(fs_getxattr(s, FS_INO_SNAPSHOTS, "user.a", got, sizeof got), -ENODATA);
    ck_assert_int_eq(fs_listxattr(s, FS_INO_SNAPSHOTS, true, got, sizeof got), 0);
}
END_TEST

/* Sizes on both sides of what fits into the table, names that are set and removed, a crash now and then. */
START_TEST(random_changes_agree_with_a_model)
{
    enum { NAMES = 12, STEPS = 3000 };
    static char bytes[NAMES][3000];
    int len[NAMES];
    uint64_t f = make_file(ROOT, "f");
    const char *given = getenv("FASTERFS_SEED");
    unsigned seed = given ? (unsigned)atoi(given) : (unsigned)time(NULL);

    printf("FASTERFS_SEED=%u\n", seed);
    srand(seed);
    for (int i = 0; i < NAMES; i++)
        len[i] = -1;
    for (int step = 0; step < STEPS; step++) {
        int i = rand() % NAMES, want = len[i] < 0 ? -ENODATA : 0;
        char name[32];
        snprintf(name, sizeof name, "user.name-%d", i);
        if (rand() % 3 == 0) {
            ck_assert_int_eq(fs_removexattr(s, f, name), want);
            len[i] = -1;
        } else {
            len[i] = rand() % 4 ? rand() % 40 : rand() % 3000;
            memset(bytes[i], rand(), (size_t)len[i]);
            ck_assert_int_eq(fs_setxattr(s, f, name, bytes[i], (size_t)len[i], 0, 0), 0);
        }
        if (rand() % 200 == 0)
            fixture_crash();
        size_t names = 0;
        for (int j = 0; j < NAMES; j++) {
            snprintf(name, sizeof name, "user.name-%d", j);
            ck_assert_int_eq(fs_getxattr(s, f, name, got, sizeof got), len[j] < 0 ? -ENODATA : len[j]);
            if (len[j] >= 0)
                ck_assert_int_eq(memcmp(got, bytes[j], (size_t)len[j]), 0);
            names += len[j] < 0 ? 0 : strlen(name) + 1;
        }
        ck_assert_int_eq(fs_listxattr(s, f, true, got, sizeof got), (ssize_t)names);
    }
}
END_TEST

START_TEST(a_capability_goes_with_the_contents_and_the_owner_it_was_for)
{
    uint64_t f = make_file(ROOT, "f");

    for (int how = 0; how < 4; how++) {
        ck_assert_int_eq(set(f, "security.capability", "cap"), 0);
        ck_assert_int_eq(set(f, "user.other", "stays"), 0);
        ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.mode = 0755}, FS_SET_MODE, NULL), 0);
        ck_value(f, "security.capability", "cap");
        if (how == 0)
            ck_assert_int_eq(fs_write(s, f, "x", 1, 0, 0), 1);
        if (how == 1)
            ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.uid = 9}, FS_SET_UID, NULL), 0);
        if (how == 2)
            ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.gid = 9}, FS_SET_GID, NULL), 0);
        if (how == 3)
            ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.size = 9}, FS_SET_SIZE, NULL), 0);
        ck_assert_int_eq(fs_getxattr(s, f, "security.capability", got, sizeof got), -ENODATA);
        ck_value(f, "user.other", "stays");
    }
}
END_TEST

/* ---- ACLs ---------------------------------------------------------------------------------------------- */

enum { OWNER = 1, USER = 2, GROUP = 4, NAMED_GROUP = 8, MASK = 16, OTHER = 32 };

static uint8_t acl[4 + 8 * 16];

/* Triples of tag, permissions and id, ended by 0. */
static size_t make_acl(const int *entries)
{
    size_t len = 4;

    memcpy(acl, &(uint32_t){htole32(2)}, 4);
    for (; entries[0]; entries += 3, len += 8) {
        memcpy(acl + len, &(uint16_t){htole16((uint16_t)entries[0])}, 2);
        memcpy(acl + len + 2, &(uint16_t){htole16((uint16_t)entries[1])}, 2);
        memcpy(acl + len + 4, &(uint32_t){htole32((uint32_t)entries[2])}, 4);
    }
    return len;
}

static int set_acl(uint64_t ino, const char *name, const int *entries)
{
    return fs_setxattr(s, ino, name, acl, make_acl(entries), 0, 0);
}

static void ck_acl(uint64_t ino, const char *name, const int *entries)
{
    size_t len = make_acl(entries);
    ssize_t have = fs_getxattr(s, ino, name, got, sizeof got);

    ck_assert_msg(have == (ssize_t)len, "%s: %zd", name, have);
    ck_assert_int_eq(memcmp(got, acl, len), 0);
}

static const int NOBODY_MAY[] = {OWNER, 6, -1, USER, 7, 99, GROUP, 4, -1, MASK, 7, -1, OTHER, 0, -1, 0};

START_TEST(an_access_acl_and_the_mode_follow_each_other)
{
    uint64_t f = make_file(ROOT, "f");

    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.mode = 06755}, FS_SET_MODE, NULL), 0);
    ck_assert_int_eq(set_acl(f, FS_ACL_ACCESS, NOBODY_MAY), 0);
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 06670);
    ck_acl(f, FS_ACL_ACCESS, NOBODY_MAY);
    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.mode = 0545}, FS_SET_MODE, NULL), 0);
    ck_acl(f, FS_ACL_ACCESS, (int[]){OWNER, 5, -1, USER, 7, 99, GROUP, 4, -1, MASK, 4, -1, OTHER, 5, -1, 0});
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0545);
    /* What the mode can say needs no ACL. */
    ck_assert_int_eq(set_acl(f, FS_ACL_ACCESS, (int[]){OWNER, 7, -1, GROUP, 1, -1, OTHER, 2, -1, 0}), 0);
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0712);
    ck_assert_int_eq(fs_getxattr(s, f, FS_ACL_ACCESS, got, sizeof got), -ENODATA);
    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.mode = 0641}, FS_SET_MODE, NULL), 0);
    ck_assert_int_eq(fs_listxattr(s, f, true, NULL, 0), 0);
    /* An ACL without entries takes it away. */
    ck_assert_int_eq(set_acl(f, FS_ACL_ACCESS, NOBODY_MAY), 0);
    ck_assert_int_eq(set_acl(f, FS_ACL_ACCESS, (int[]){0}), 0);
    ck_assert_int_eq(fs_getxattr(s, f, FS_ACL_ACCESS, got, sizeof got), -ENODATA);
    ck_assert_int_eq(set_acl(f, FS_ACL_ACCESS, (int[]){0}), 0);
    ck_assert_int_eq(fs_setattr(s, f, &(struct fs_attr){.mode = 02755}, FS_SET_MODE, NULL), 0);
    ck_assert_int_eq(fs_setxattr(s, f, FS_ACL_ACCESS, acl, make_acl(NOBODY_MAY), 0, FS_KILL_SGID), 0);
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0670);
}
END_TEST

START_TEST(what_is_no_acl_is_refused)
{
    const int *const bad[] = {
        (int[]){OWNER, 7, -1, GROUP, 7, -1, 0},                                         /* no others */
        (int[]){GROUP, 7, -1, OTHER, 7, -1, 0},                                         /* no owner */
        (int[]){OWNER, 7, -1, OTHER, 7, -1, 0},                                         /* no group */
        (int[]){OWNER, 7, -1, USER, 7, 9, GROUP, 7, -1, OTHER, 7, -1, 0},               /* no mask */
        (int[]){OWNER, 7, -1, GROUP, 7, -1, NAMED_GROUP, 7, 9, OTHER, 7, -1, 0},        /* no mask */
        (int[]){OWNER, 8, -1, GROUP, 7, -1, OTHER, 7, -1, 0},                           /* a permission that is none */
        (int[]){OWNER, 7, -1, OWNER, 7, -1, GROUP, 7, -1, OTHER, 7, -1, 0},             /* twice */
        (int[]){GROUP, 7, -1, OWNER, 7, -1, OTHER, 7, -1, 0},                           /* order */
        (int[]){OWNER, 7, -1, USER, 7, -1, GROUP, 7, -1, MASK, 7, -1, OTHER, 7, -1, 0}, /* a user without number */
        (int[]){3, 7, -1, 0},                                                           /* tag */
    };
    uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(set_acl(f, FS_ACL_ACCESS, bad[i]) == -EINVAL, "%zu", i);
        ck_assert_msg(set_acl(d, FS_ACL_DEFAULT, bad[i]) == -EINVAL, "%zu", i);
    }
    ck_assert_int_eq(fs_setxattr(s, f, FS_ACL_ACCESS, "\3\0\0\0", 4, 0, 0), -EINVAL);
    ck_assert_int_eq(fs_setxattr(s, f, FS_ACL_ACCESS, "\2\0\0", 3, 0, 0), -EINVAL);
    ck_assert_int_eq(fs_setxattr(s, f, FS_ACL_ACCESS, acl, make_acl(NOBODY_MAY) - 1, 0, 0), -EINVAL);
    ck_assert_int_eq(set_acl(f, FS_ACL_DEFAULT, NOBODY_MAY), -EACCES);
    ck_assert_int_eq(fs_symlink(s, &cred, ROOT, "l", "f", &a), 0);
    ck_assert_int_eq(set_acl(a.ino, FS_ACL_ACCESS, NOBODY_MAY), -EOPNOTSUPP);
    ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0644);
    ck_assert_int_eq(fs_listxattr(s, f, true, NULL, 0), 0);
}
END_TEST

START_TEST(a_default_acl_is_inherited_instead_of_the_umask)
{
    static const int given[] = {OWNER, 7, -1, USER, 7, 99, GROUP, 5, -1, MASK, 7, -1, OTHER, 4, -1, 0};
    uint64_t d = make_dir(ROOT, "d"), e;

    ck_assert_int_eq(set_acl(d, FS_ACL_DEFAULT, given), 0);
    ck_assert_uint_eq(attr_of(d).mode, S_IFDIR | 0755);
    /* umask is 022 */
    ck_assert_int_eq(fs_mknod(s, &cred, d, "f", S_IFREG | 0666, 0, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFREG | 0664);
    ck_acl(a.ino, FS_ACL_ACCESS, (int[]){OWNER, 6, -1, USER, 7, 99, GROUP, 5, -1, MASK, 6, -1, OTHER, 4, -1, 0});
    ck_assert_int_eq(fs_getxattr(s, a.ino, FS_ACL_DEFAULT, got, sizeof got), -ENODATA);
    ck_assert_int_eq(fs_mkdir(s, &cred, d, "e", 0750, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFDIR | 0750);
    e = a.ino;
    ck_acl(e, FS_ACL_DEFAULT, given);
    ck_acl(e, FS_ACL_ACCESS, (int[]){OWNER, 7, -1, USER, 7, 99, GROUP, 5, -1, MASK, 5, -1, OTHER, 0, -1, 0});
    ck_assert_int_eq(fs_symlink(s, &cred, d, "l", "t", &a), 0);
    ck_assert_uint_eq(a.mode, S_IFLNK | 0777);
    ck_assert_int_eq(fs_listxattr(s, a.ino, true, NULL, 0), 0);
    /* One that the mode can say: the umask does not count, and nothing is kept but for directories. */
    ck_assert_int_eq(set_acl(e, FS_ACL_DEFAULT, (int[]){OWNER, 7, -1, GROUP, 7, -1, OTHER, 7, -1, 0}), 0);
    ck_assert_int_eq(fs_mknod(s, &cred, e, "f", S_IFREG | 0666, 0, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFREG | 0666);
    ck_assert_int_eq(fs_listxattr(s, a.ino, true, NULL, 0), 0);
    ck_assert_int_eq(fs_removexattr(s, e, FS_ACL_DEFAULT), 0);
    ck_assert_int_eq(fs_mknod(s, &cred, e, "g", S_IFREG | 0666, 0, &a), 0);
    ck_assert_uint_eq(a.mode, S_IFREG | 0644);
    fixture_crash();
    ck_acl(d, FS_ACL_DEFAULT, given);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("xattr");
    TCase *tests = tcase_create("xattr");

    tcase_add_checked_fixture(tests, fixture_setup, fixture_teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, an_attribute_is_set_read_listed_and_removed);
    tcase_add_test(tests, xattr_calls_say_why_not);
    tcase_add_test(tests, values_of_64_kib_come_and_go);
    tcase_add_test(tests, names_fill_60_kib_and_then_there_is_no_space);
    tcase_add_test(tests, attributes_belong_to_one_inode_and_snapshots_keep_theirs);
    tcase_add_test(tests, random_changes_agree_with_a_model);
    tcase_add_test(tests, a_capability_goes_with_the_contents_and_the_owner_it_was_for);
    tcase_add_test(tests, an_access_acl_and_the_mode_follow_each_other);
    tcase_add_test(tests, what_is_no_acl_is_refused);
    tcase_add_test(tests, a_default_acl_is_inherited_instead_of_the_umask);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
