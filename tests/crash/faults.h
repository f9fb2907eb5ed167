// SPDX-License-Identifier: MIT
/*
 * What the tests of faults share: allocations that fail (of the code under test: the linker puts ours before the C
 * library's, tests/CMakeLists.txt), the ways in which a device fails, what was promised meanwhile, and the runs: the
 * nth call of the device, or the nth allocation, fails, once or from then on, for many n.
 */
#ifndef TESTS_CRASH_FAULTS_H
#define TESTS_CRASH_FAULTS_H

#include "crash.h"

#include <device/fault.h>
#include <unistd.h>

/* ---- allocations ------------------------------------------------------------------------------------ */

static uint64_t allocations, allocation_nth; /* nth 0: none fails */
static bool allocation_sticky, inside;       /* inside: what is being done is the store's */

/* A call of what is tested, whose result is in `rc` then. */
#define INSIDE(call) (inside = true, rc = (call), inside = false, rc)

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

/* ---- what is tested ------------------------------------------------------------------------------------ */

static struct device *memory, *record, *device; /* one on the other; record: NULL in a run without power cuts */
static unsigned durable;                        /* steps promised; what a step is, the subject says */
static struct {
    uint64_t tick;
    unsigned durable;
} promises[200];
static unsigned promise_count;
static uint64_t fault_tick; /* about when the fault struck first */

struct subject {
    void (*begin)(void); /* nothing is there yet */
    int (*open)(void);   /* on `device` */
    /* The same calls whatever fails; it calls about_to_step() and promise(). False: it is not open any more. */
    bool (*work)(bool reads_may_fail);
    /* Leaves it as a killed process does, if it is open. `resumes`: room was wanting; then it goes on first. */
    void (*end)(bool resumes);
    void (*cut_power)(void); /* check_cut() for some moments of the record */
    /* What is left at that tick opens, holds what was promised by then, and goes on. */
    void (*check)(struct device *on, uint64_t tick);
    unsigned step, each, seconds; /* of n: every `step` or so after the first `each`; for one run */
};

static const struct subject *subject;

static inline void promise(unsigned steps)
{
    durable = steps;
    promises[promise_count].durable = durable;
    promises[promise_count++].tick = record ? device_record_now(record) : 0;
}

static inline unsigned promised_by(uint64_t tick)
{
    unsigned promised = 0;

    for (unsigned i = 0; i < promise_count; i++)
        promised = promises[i].tick <= tick ? promises[i].durable : promised;
    return promised;
}

static inline void about_to_step(void)
{
    if (record && device_fault_hits(device) == 0)
        fault_tick = device_record_now(record);
}

static inline void check_cut(const struct device_crash *crash)
{
    struct device *left;
    char kept[sizeof where];

    memcpy(kept, where, sizeof where);
    snprintf(where + strlen(where), sizeof where - strlen(where), ", power cut %llu:%u:%llu",
             (unsigned long long)crash->tick, (unsigned)crash->style, (unsigned long long)crash->seed);
    ck_assert_int_eq(device_record_crash(record, crash, &left), 0);
    subject->check(left, crash->tick);
    device_close(left);
    memcpy(where, kept, sizeof where);
}

/* ---- runs ---------------------------------------------------------------------------------------------- */

static inline void begin_run(bool recorded)
{
    ck_assert_int_eq(device_memory_open(&memory), 0);
    record = NULL;
    if (recorded)
        ck_assert_int_eq(device_record_open(memory, &record), 0);
    ck_assert_int_eq(device_fault_open(recorded ? record : memory, &device), 0);
    sow();
    durable = promise_count = 0;
    fault_tick = 0;
    subject->begin();
}

/* The fault has passed. A power cut first (on a copy), then a plain reopen of what the process left. */
static inline void end_run(bool resumes)
{
    struct device_fault none = {0};

    device_fault_arm(device, &none);
    subject->end(resumes);
    if (record)
        subject->cut_power();
    subject->check(device, UINT64_MAX - 1);
    device_close(device);
    device_close(record);
    device_close(memory);
}

/* One run; false: the workload has fewer calls than n. */
static inline bool run_fault(unsigned kind, uint64_t n, bool sticky)
{
    struct device_fault fault = {
        .classes = kinds[kind].classes, .nth = n, .sticky = sticky, .error = kinds[kind].error};
    bool passes = fault.error == -EAGAIN || fault.error == DEVICE_FAULT_SHORT;
    int rc;

    begin_run(true);
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu FASTERFS_FAULT=%u:%llu:%d, %s", (unsigned long long)workload_seed,
             kind, (unsigned long long)n, sticky, kinds[kind].name);
    device_fault_arm(device, &fault);
    device_fault_shuffle(device, n % 2 ? 0 : n);
    alarm(subject->seconds);
    if ((rc = subject->open()) < 0)
        expect_error(rc, "opening");
    bool is_open = subject->work(fault.classes & DEVICE_FAULT_READ && !passes);
    bool hit = device_fault_hits(device) > 0;
    if (passes && (durable < 8 || !is_open))
        give_up("a fault that is to be carried on from was not");
    end_run(fault.error == -ENOSPC);
    alarm(0);
    return hit;
}

START_TEST(every_call_of_the_device_may_fail)
{
    unsigned kind = (unsigned)_i, sticky = 0;
    unsigned long long n, runs = 0, step = number_from("FASTERFS_STEP", subject->step * SLOWER);
    const char *given = getenv("FASTERFS_FAULT");

    if (given && sscanf(given, "%u:%llu:%u", &kind, &n, &sticky) == 3) {
        if (kind == (unsigned)_i)
            run_fault(kind, n, sticky);
        return;
    }
    for (sticky = 0; sticky < 2; sticky++) {
        for (n = 1; run_fault(kind, n, sticky);
             n += n < subject->each ? 1 : 1 + mix(workload_seed ^ n) % (2 * step - 1))
            runs++;
    }
    printf("%s: %llu runs\n", kinds[kind].name, runs);
    ck_assert_uint_gt(runs, 4);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    unsigned long long runs = 0, n, step = number_from("FASTERFS_STEP", subject->step * SLOWER);

    for (unsigned sticky = 0; sticky < 2; sticky++) {
        bool hit = true;
        for (n = 1; hit; n += 1 + mix(workload_seed ^ n) % (2 * step - 1), runs++) {
            begin_run(false);
            snprintf(where, sizeof where, "FASTERFS_SEED=%llu, allocation %llu fails%s",
                     (unsigned long long)workload_seed, n, sticky ? " and all after it" : "");
            allocation_sticky = sticky;
            allocation_nth = n;
            allocations = 0;
            alarm(subject->seconds);
            int rc = subject->open();
            if (rc < 0)
                expect_error(rc, "opening");
            (void)subject->work(true);
            hit = allocations >= n;
            allocation_nth = 0;
            end_run(false);
            alarm(0);
        }
    }
    printf("allocations: %llu runs\n", runs);
    ck_assert_uint_gt(runs, 20);
}
END_TEST

static inline TCase *faults_case(const char *name, const struct subject *of)
{
    TCase *tests = tcase_create(name);

    subject = of;
    first_seed();
    tcase_add_loop_test(tests, every_call_of_the_device_may_fail, 0, (int)KINDS);
    tcase_add_test(tests, every_allocation_may_fail);
    return tests;
}

#endif
