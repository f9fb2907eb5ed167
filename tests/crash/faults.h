// SPDX-License-Identifier: MIT
/*
 * What the tests of faults share: allocations that fail (of the code under test: the linker puts ours before the C
 * library's, tests/CMakeLists.txt), and the ways in which a device fails.
 */
#ifndef TESTS_CRASH_FAULTS_H
#define TESTS_CRASH_FAULTS_H

#include "crash.h"

#include <device/fault.h>

/* ---- allocations ------------------------------------------------------------------------------------ */

static uint64_t allocations, allocation_nth; /* nth 0: none fails */
static bool allocation_sticky, inside;       /* inside: what is being done is the store's */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static bool allocation_fails(void)
{
    if (!inside || allocation_nth == 0)
        return false;
    allocations++;
    return allocation_sticky ? allocations >= allocation_nth : allocations == allocation_nth;
}

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return allocation_fails() ? NULL : __real_aligned_alloc(alignment, size);
}

/* ---- the device ---------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned classes;
    int error;
} kinds[] = {
    {"read EIO", DEVICE_FAULT_READ, -EIO},
    {"write EIO", DEVICE_FAULT_WRITE, -EIO},
    {"write ENOSPC", DEVICE_FAULT_WRITE, -ENOSPC},
    {"sync EIO", DEVICE_FAULT_SYNC, -EIO},
    {"allocate ENOSPC", DEVICE_FAULT_ALLOCATE, -ENOSPC},
    {"allocate EIO", DEVICE_FAULT_ALLOCATE, -EIO},
    {"name EIO", DEVICE_FAULT_NAME, -EIO},
    {"name ENOSPC", DEVICE_FAULT_NAME, -ENOSPC},
    {"anything EIO", DEVICE_FAULT_ALL, -EIO},
    {"read EAGAIN", DEVICE_FAULT_READ, -EAGAIN},
    {"write EAGAIN", DEVICE_FAULT_WRITE, -EAGAIN},
    {"read short", DEVICE_FAULT_READ, DEVICE_FAULT_SHORT},
    {"write short", DEVICE_FAULT_WRITE, DEVICE_FAULT_SHORT},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* All errors that a caller may be told of what goes wrong here. */
static inline void expect_error(int rc, const char *what)
{
    if (rc != -EIO && rc != -ENOSPC && rc != -ENOMEM && rc != -EFBIG)
        give_up("%s: %s", what, strerror(-rc));
}

#endif
