// SPDX-License-Identifier: MIT
/* A full disk: the error comes at once and to the call that hits it; what was acknowledged stays. */
#include "fixture.h"

static struct fs_attr a;

static unsigned fill_up(void)
{
    static uint8_t bytes[60000];
    char name[16];
    unsigned made = 0;

    for (;; made++) {
        sprintf(name, "%u", made);
        int rc = fs_mknod(s, &cred, FS_INO_ROOT, name, S_IFREG | 0644, 0, &a);
        if (rc == -ENOSPC)
            break;
        ck_assert_int_eq(rc, 0);
        memset(bytes, (int)made, sizeof bytes);
        ssize_t wrote = fs_write(s, a.ino, bytes, sizeof bytes, 0, 0);
        fs_forget(s, a.ino, 1);
        if (wrote == -ENOSPC)
            break;
        ck_assert_int_eq(wrote, sizeof bytes);
    }
    ck_assert_uint_gt(made, 50);
    return made;
}

static void all_there(unsigned first, unsigned made)
{
    static uint8_t bytes[60001];
    char name[16];

    for (unsigned i = first; i < made; i++) {
        sprintf(name, "%u", i);
        ck_assert_int_eq(fs_lookup(s, FS_INO_ROOT, name, &a), 0);
        ck_assert_int_eq(fs_read(s, a.ino, bytes, sizeof bytes, 0), 60000);
        ck_assert_uint_eq(bytes[0], (uint8_t)i);
        ck_assert_uint_eq(bytes[59999], (uint8_t)i);
        fs_forget(s, a.ino, 1);
    }
}

START_TEST(a_full_disk_can_be_synced_read_deleted_from_and_reopened)
{
    device_memory_limit(device, 16u << 20);
    unsigned made = fill_up();
    all_there(0, made);
    ck_assert_int_eq(fs_sync(fs), 0);
    for (unsigned i = 0; i < 20; i++) {
        char name[16];
        sprintf(name, "%u", i);
        ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, name), 0);
    }
    ck_assert_int_eq(fs_sync(fs), 0);
    fixture_crash();
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "20"), 0);
    ck_assert_int_eq(fs_sync(fs), 0);
    ck_assert_int_eq(fs_lookup(s, FS_INO_ROOT, "0", &a), -ENOENT);
    all_there(21, made);
    fixture_reopen();
    all_there(21, made);
    device_memory_limit(device, 64u << 20); /* somebody made room */
    ck_assert_int_eq(fs_mknod(s, &cred, FS_INO_ROOT, "again", S_IFREG | 0644, 0, &a), 0);
    ck_assert_int_eq(fs_sync(fs), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("full");
    TCase *tests = tcase_create("full");

    tcase_add_checked_fixture(tests, fixture_setup, fixture_teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_full_disk_can_be_synced_read_deleted_from_and_reopened);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
