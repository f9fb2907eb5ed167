// SPDX-License-Identifier: MIT
/*
 * What the fs tests share: a filesystem on a device in memory, with a clock of its own that moves on by
 * a second each time it is asked, so that times can be compared and units be counted.
 */
#ifndef TESTS_FS_FIXTURE_H
#define TESTS_FS_FIXTURE_H

#include <check.h>
#include <device/memory.h>
#include <errno.h>
#include <fs/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>

static struct device *device;
static struct fs *fs;
static struct fs_session *s;
static bool background; /* the store's threads and the reaper */
/* Small, so that every operation meets every region of the log. */
static uint64_t log_bytes = 256u << 10, segment_bytes = 1u << 20;
static uint64_t size_bytes; /* the limit; 0: none */
static enum fs_atime atime;
static _Atomic long clock_now = 1000;

static const struct fs_cred cred = {.uid = 7, .gid = 8, .umask = 022};

static void tick(void *ctx, struct timespec *ret_now)
{
    (void)ctx;
    *ret_now = (struct timespec){.tv_sec = atomic_fetch_add(&clock_now, 1) + 1, .tv_nsec = 5};
}

static inline void fixture_open(void)
{
    struct fs_options options = {.store = {.memory_bytes = log_bytes * 4,
                                           .log_bytes = log_bytes,
                                           .segment_bytes = segment_bytes,
                                           .no_background = !background},
                                 .size_bytes = size_bytes,
                                 .atime = atime,
                                 .root_uid = 3,
                                 .root_gid = 4,
                                 .now = tick};
    struct store_opened opened;
    int rc = fs_open(device, &options, &fs, &opened);

    ck_assert_msg(rc == 0, "fs_open: %d %s", rc, opened.message);
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
}

static inline void fixture_close(void)
{
    fs_session_close(s);
    ck_assert_int_eq(fs_close(fs), 0);
}

static inline void fixture_reopen(void)
{
    fixture_close();
    fixture_open();
}

/* As after a power cut that follows a sync. */
static inline void fixture_crash(void)
{
    ck_assert_int_eq(fs_sync(fs), 0);
    fs_session_close(s);
    fs_abandon(fs);
    device_memory_crash(device);
    fixture_open();
}

static inline void fixture_setup(void)
{
    ck_assert_int_eq(device_memory_open(&device), 0);
    fixture_open();
}

static inline void fixture_teardown(void)
{
    fixture_close();
    device_close(device);
}

/* ---- shorthand: each keeps no reference ----------------------------------------------------------- */

static inline uint64_t keep_file(uint64_t dir, const char *name)
{
    struct fs_attr attr;
    int rc = fs_mknod(s, &cred, dir, name, S_IFREG | 0644, 0, &attr);

    ck_assert_msg(rc == 0, "mknod %s: %d", name, rc);
    return attr.ino;
}

static inline uint64_t make_file(uint64_t dir, const char *name)
{
    uint64_t ino = keep_file(dir, name);

    fs_forget(s, ino, 1);
    return ino;
}

static inline uint64_t make_dir(uint64_t dir, const char *name)
{
    struct fs_attr attr;
    int rc = fs_mkdir(s, &cred, dir, name, 0755, &attr);

    ck_assert_msg(rc == 0, "mkdir %s: %d", name, rc);
    fs_forget(s, attr.ino, 1);
    return attr.ino;
}

static inline struct fs_attr attr_of(uint64_t ino)
{
    struct fs_attr attr;
    int rc = fs_getattr(s, ino, &attr);

    ck_assert_msg(rc == 0, "getattr %llx: %d", (unsigned long long)ino, rc);
    return attr;
}

/* The inode, or -errno as a negative number. */
static inline int64_t look(uint64_t dir, const char *name)
{
    struct fs_attr attr;
    int rc = fs_lookup(s, dir, name, &attr);

    if (rc < 0)
        return rc;
    fs_forget(s, attr.ino, 1);
    return (int64_t)attr.ino;
}

static inline uint64_t files_in_use(void)
{
    struct fs_statfs statfs;

    ck_assert_int_eq(fs_statfs(s, &statfs), 0);
    return statfs.files;
}

static inline TCase *fixture_case(const char *name, SFun setup, SFun teardown)
{
    TCase *tests = tcase_create(name);

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    return tests;
}

#endif
