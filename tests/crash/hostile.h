// SPDX-License-Identifier: MIT
/*
 * What the tests of hostile stores share. Somebody made them to do harm, with every checksum right: each case puts one
 * lie into a small filesystem, and then all that a daemon does is done with it (fuzz/use.h). No case may touch memory
 * that is not its own, go on for more than a few seconds, ask for much memory, or end the process; and the call that
 * meets the lie says so.
 *
 * Allocations are noted: the linker puts ours before the C library's (tests/CMakeLists.txt).
 */
#ifndef TESTS_CRASH_HOSTILE_H
#define TESTS_CRASH_HOSTILE_H

#include "crash.h"

#include <fuzz/small.h>
#include <unistd.h>

#define DAMAGED 1  /* as what is wanted of a call: -EIO or -EUCLEAN */
#define WHATEVER 2 /* it says what it likes */

static inline bool as_wanted(int rc, int wanted)
{
    return wanted == WHATEVER || (wanted == DAMAGED ? rc == -EIO || rc == -EUCLEAN : rc == wanted);
}

/* ---- time and memory ------------------------------------------------------------------------------------- */

#define SECONDS (20 * SLOWER)
#define LARGEST (16u << 20) /* bytes in one allocation */

static size_t largest;

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static inline size_t note(size_t size)
{
    largest = size > largest ? size : largest;
    return size;
}

void *__wrap_malloc(size_t size)
{
    return __real_malloc(note(size));
}

void *__wrap_realloc(void *old, size_t size)
{
    return __real_realloc(old, note(size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return __real_aligned_alloc(alignment, note(size));
}

static inline void watch_begin(void)
{
    alarm(SECONDS);
    largest = 0;
}

static inline void watch_end(void)
{
    alarm(0);
    ck_assert_uint_le(largest, LARGEST);
}

/* ---- the program ----------------------------------------------------------------------------------------- */

static struct image clean; /* the small filesystem */

static void make_clean(void)
{
    small_make(&clean);
}

/* The case of a program, each of whose tests finds `clean`. */
static inline TCase *hostile_case(void)
{
    TCase *tests = tcase_create("hostile");

    tcase_add_unchecked_fixture(tests, make_clean, NULL);
    return tests;
}

#endif
