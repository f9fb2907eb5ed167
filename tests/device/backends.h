// SPDX-License-Identifier: MIT
/*
 * The devices that every test of the contract runs on, as a table for loop tests; with small helpers.
 * A wrapper stands around a device in memory; fault shuffles the ends of transfers, and makes every other read
 * and write a short one. A directory is made under TMPDIR (/tmp), or on tmpfs where there is no O_DIRECT to speak of.
 */
#ifndef TESTS_DEVICE_BACKENDS_H
#define TESTS_DEVICE_BACKENDS_H

#include <check.h>
#include <device/device.h>
#include <device/fault.h>
#include <device/memory.h>
#include <device/record.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK DEVICE_BLOCK_BYTES

struct backend {
    const char *name;
    enum device_backend kind;
    const char *dir; /* NULL: TMPDIR; "": in memory */
};

static const struct backend backends[] = {
    {"uring", DEVICE_URING, NULL},       {"threads", DEVICE_THREADS, NULL},
    {"uring", DEVICE_URING, "/dev/shm"}, {"threads", DEVICE_THREADS, "/dev/shm"},
    {"record", DEVICE_AUTO, ""},         {"fault", DEVICE_AUTO, ""},
    {"memory", DEVICE_AUTO, ""},
};
#define BACKEND_COUNT ((int)(sizeof(backends) / sizeof(backends[0])))
#define BACKEND_MEMORY (BACKEND_COUNT - 1)
#define BACKEND_IN_MEMORY (BACKEND_COUNT - 3) /* from here on there is nothing to open again */

struct fixture {
    const struct backend *backend;
    struct device *device;
    struct device *inner; /* of a wrapper, else NULL */
    char path[128];
};

static inline void fixture_reopen(struct fixture *f, bool read_only)
{
    device_close(f->device);
    struct device_options options = {.backend = f->backend->kind, .read_only = read_only};
    ck_assert_int_eq(device_open(f->path, &options, &f->device), 0);
}

static inline void fixture_wrap(struct fixture *f)
{
    if (strcmp(f->backend->name, "memory") == 0)
        return;
    f->inner = f->device;
    if (strcmp(f->backend->name, "record") == 0) {
        ck_assert_int_eq(device_record_open(f->inner, &f->device), 0);
        return;
    }
    struct device_fault shorts = {
        .classes = DEVICE_FAULT_READ | DEVICE_FAULT_WRITE, .nth = 1, .sticky = true, .error = DEVICE_FAULT_SHORT};
    ck_assert_int_eq(device_fault_open(f->inner, &f->device), 0);
    device_fault_arm(f->device, &shorts);
    device_fault_shuffle(f->device, 1);
}

/* False: this machine has no such device, which is said aloud. */
static inline bool fixture_open(struct fixture *f, int backend)
{
    f->backend = &backends[backend];
    f->path[0] = 0;
    f->inner = NULL;
    const char *dir = f->backend->dir;
    if (dir != NULL && *dir == 0) {
        ck_assert_int_eq(device_memory_open(&f->device), 0);
        fixture_wrap(f);
        return true;
    }
    if (dir == NULL)
        dir = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    snprintf(f->path, sizeof(f->path), "%s/fasterfs-device.XXXXXX", dir);
    if (access(dir, W_OK) < 0 || mkdtemp(f->path) == NULL) {
        fprintf(stderr, "SKIPPED: cannot write to %s\n", dir);
        return false;
    }
    struct device_options options = {.backend = f->backend->kind};
    int ret = device_open(f->path, &options, &f->device);
    if (f->backend->kind == DEVICE_URING && (ret == -ENOSYS || ret == -EPERM)) {
        fprintf(stderr, "SKIPPED: the kernel refuses io_uring\n");
        rmdir(f->path);
        return false;
    }
    ck_assert_int_eq(ret, 0);
    ck_assert_str_eq(device_backend_name(f->device), f->backend->name);
    return true;
}

static inline int remove_each(void *ctx, const char *name)
{
    return device_file_remove(ctx, name);
}

static inline void fixture_close(struct fixture *f)
{
    if (f->path[0] != 0)
        fixture_reopen(f, false);
    ck_assert_int_eq(device_list(f->device, remove_each, f->device), 0);
    device_close(f->device);
    device_close(f->inner);
    if (f->path[0] != 0)
        ck_assert_int_eq(rmdir(f->path), 0);
}

static inline struct device_queue *queue_open(struct device *device, unsigned depth)
{
    struct device_queue *queue;
    ck_assert_int_eq(device_queue_open(device, depth, &queue), 0);
    return queue;
}

static inline int file_create(struct device *device, const char *name)
{
    int file = device_file_open(device, name, DEVICE_FILE_CREATE);
    ck_assert_int_ge(file, 0);
    return file;
}

static inline unsigned char *blocks_new(size_t len)
{
    unsigned char *bytes = aligned_alloc(BLOCK, len);
    ck_assert_ptr_nonnull(bytes);
    memset(bytes, 0xee, len);
    return bytes;
}

/* Bytes that tell where they belong. */
static inline void fill(unsigned char *bytes, size_t len, uint64_t seed)
{
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i + 8 <= len; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(bytes + i, &x, 8);
    }
}

static inline bool is_filled(const unsigned char *bytes, size_t len, uint64_t seed)
{
    unsigned char *expected = blocks_new(len);
    fill(expected, len, seed);
    bool same = memcmp(bytes, expected, len) == 0;
    free(expected);
    return same;
}

static inline bool is_zero(const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

/* Writes and reads one filled block through its own buffer. */
static inline int64_t block_write(struct device_queue *queue, int file, uint64_t offset, uint64_t seed)
{
    unsigned char *bytes = blocks_new(BLOCK);
    fill(bytes, BLOCK, seed);
    int64_t ret = device_transfer(queue, DEVICE_WRITE, file, offset, bytes, BLOCK);
    free(bytes);
    return ret;
}

static inline bool block_is(struct device_queue *queue, int file, uint64_t offset, uint64_t seed)
{
    unsigned char *bytes = blocks_new(BLOCK);
    bool same = device_transfer(queue, DEVICE_READ, file, offset, bytes, BLOCK) == BLOCK &&
                (seed == 0 ? is_zero(bytes, BLOCK) : is_filled(bytes, BLOCK, seed));
    free(bytes);
    return same;
}

/* Runs the one case of a suite. */
static inline int run(const char *name, void (*add)(TCase *))
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    add(tcase);
    return suite_run_case(name, tcase);
}

#endif
