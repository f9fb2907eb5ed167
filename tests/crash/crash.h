// SPDX-License-Identifier: MIT
/*
 * What the crash tests share: seeds, how many states, and how a failure says how to see it again.
 */
#ifndef TESTS_CRASH_CRASH_H
#define TESTS_CRASH_CRASH_H

#include <check.h>
#include <device/memory.h>
#include <device/record.h>
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 4 /* how many times less under sanitizers, in two places each: states, and their workloads */
#else
#define SLOWER 1
#endif

static uint64_t dice_state; /* of the workload */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t dice(uint64_t sides)
{
    dice_state += UINT64_C(0x9e3779b97f4a7c15);
    return mix(dice_state) % sides;
}

static inline uint64_t number_from(const char *variable, uint64_t otherwise)
{
    const char *given = getenv(variable);

    return given ? strtoull(given, NULL, 0) : otherwise;
}

static uint64_t workload_seed;
static char where[200]; /* what is being looked at: variables for the environment that bring it back */

/* The first seed of a test; each workload after it takes the next number. */
static inline void first_seed(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20); /* thousands of opens: keep the pages */
    (void)mallopt(M_TRIM_THRESHOLD, 64 << 20);
    workload_seed = number_from("FASTERFS_SEED", (uint64_t)time(NULL));
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)workload_seed);
    fflush(stdout);
}

static inline void sow(void)
{
    dice_state = mix(workload_seed);
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu", (unsigned long long)workload_seed);
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void give_up(const char *format, ...)
{
    char why[700];
    va_list args;

    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    ck_abort_msg("%s (again: %s)", why, where);
    abort(); /* for the compiler: a failure of check does not return */
}

static inline uint64_t hash_bytes(const void *bytes, size_t len)
{
    const unsigned char *at = bytes;
    uint64_t h = len, word;

    for (; len >= 8; at += 8, len -= 8) {
        memcpy(&word, at, 8);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    word = 0;
    memcpy(&word, at, len);
    return mix(h ^ word);
}

/* The one case of a program, without a limit of time. Returns its status. */
static inline int run_case(const char *name, TCase *tests)
{
    tcase_set_timeout(tests, 0);
    return suite_run_case(name, tests);
}

/* ---- which states of a record --------------------------------------------------------------------- */

/* FASTERFS_CRASH=tick:style:seed asks for one state of the first workload. */
static inline bool asked_for(struct device_crash *ret_crash)
{
    const char *given = getenv("FASTERFS_CRASH");
    unsigned long long tick, seed;
    unsigned style;

    if (!given || sscanf(given, "%llu:%u:%llu", &tick, &style, &seed) != 3)
        return false;
    *ret_crash = (struct device_crash){.tick = tick, .style = (enum device_crash_style)style, .seed = seed};
    return true;
}

static inline void say_where(const struct device_crash *crash)
{
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu FASTERFS_CRASH=%llu:%u:%llu", (unsigned long long)workload_seed,
             (unsigned long long)crash->tick, (unsigned)crash->style, (unsigned long long)crash->seed);
}

/*
 * Calls `check` for crash states of the record at every tick: nothing and all of what is pending, and `random`
 * mixtures.
 */
static inline void each_state(struct device *record, unsigned random, void (*check)(const struct device_crash *crash))
{
    struct device_crash crash;
    uint64_t last = device_record_now(record);

    if (asked_for(&crash)) {
        say_where(&crash);
        check(&crash);
        return;
    }
    for (uint64_t tick = 0; tick <= last; tick++) {
        for (unsigned n = 0; n < 2 + random; n++) {
            crash = (struct device_crash){.tick = tick,
                                          .style = n == 0   ? DEVICE_CRASH_OLD
                                                   : n == 1 ? DEVICE_CRASH_NEW
                                                            : DEVICE_CRASH_RANDOM,
                                          .seed = mix(workload_seed ^ tick << 20 ^ n)};
            say_where(&crash);
            check(&crash);
        }
    }
}

#endif
