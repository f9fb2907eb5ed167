// SPDX-License-Identifier: MIT
/* Tests of store/src/window.h. */
#include "window.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>
#include <time.h>

enum { BLOCK = 4096, THREADS = 8, STRESS_MS = 1500, AREA = 24 }; /* AREA: windows that are asked for */
#define AT(window) ((uint64_t)(window)*WINDOW_BYTES)

static struct windows windows;
static uint64_t seed;
static uint8_t got[WINDOW_BYTES];

/* What the log has: each word says where it is. */
static void fill(uint8_t *bytes, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at += 8)
        memcpy(bytes + (at - from), &at, 8);
}

static bool is_of(const uint8_t *bytes, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at += 8)
        if (memcmp(bytes + (at - from), &at, 8) != 0)
            return false;
    return true;
}

static bool has(uint64_t from, uint64_t to)
{
    memset(got, 0xff, sizeof got);
    return windows_copy(&windows, from, to, got) && is_of(got, from, to);
}

static void put(struct window *w, uint64_t len)
{
    fill(window_bytes(w), w->from, w->from + len);
    windows_put(&windows, w, len);
}

/* Missed twice. */
static struct window *claim_whole(uint64_t from, uint64_t to)
{
    ck_assert_ptr_null(windows_claim(&windows, from, to, false));
    return windows_claim(&windows, from, to, false);
}

START_TEST(a_second_miss_reads_the_window)
{
    uint64_t at = AT(7) + 5 * BLOCK;

    ck_assert(!has(at, at + BLOCK));
    struct window *w = claim_whole(at, at + BLOCK);
    ck_assert_ptr_nonnull(w);
    ck_assert_uint_eq(w->from, AT(7));
    ck_assert_uint_eq(w->to, AT(8));
    ck_assert(!has(at, at + BLOCK)); /* not yet */
    ck_assert_ptr_null(windows_claim(&windows, at, at + BLOCK, true));
    windows_drop(&windows, at);
    put(w, WINDOW_BYTES);
    ck_assert(has(at, at + BLOCK));
    ck_assert(has(AT(7), AT(8)));
    ck_assert(!has(AT(7) + BLOCK, AT(8) + BLOCK));
    windows_drop(&windows, at);
    ck_assert(!has(at, at + BLOCK));
}
END_TEST

START_TEST(one_behind_a_window_of_use_is_read_at_once)
{
    put(claim_whole(AT(3), AT(3) + BLOCK), WINDOW_BYTES);
    ck_assert_ptr_null(windows_claim(&windows, AT(4), AT(4) + BLOCK, false));
    ck_assert(has(AT(3), AT(3) + BLOCK) && has(AT(3) + BLOCK, AT(3) + 2 * BLOCK));
    ck_assert_ptr_null(windows_claim(&windows, AT(5), AT(5) + BLOCK, false));
    /* The end of 3, and 4. */
    struct window *w = windows_claim(&windows, AT(4) - BLOCK, AT(4) + BLOCK, false);
    ck_assert_ptr_nonnull(w);
    ck_assert_uint_eq(w->begin, AT(4));
    struct window *next = windows_claim(&windows, AT(5), AT(5) + BLOCK, false); /* 4 is on its way, whole */
    ck_assert_ptr_nonnull(next);
    put(next, WINDOW_BYTES);
    put(w, WINDOW_BYTES);
    ck_assert(has(AT(4) - BLOCK, AT(4) + BLOCK));
}
END_TEST

START_TEST(a_part_is_read_where_the_caller_says_and_all_of_it_at_the_next_miss)
{
    uint64_t at = AT(2) + 3 * BLOCK;
    struct window *w = windows_claim(&windows, at, at + BLOCK, true);

    ck_assert_ptr_nonnull(w);
    ck_assert_uint_eq(w->from, at);
    ck_assert_uint_eq(w->to, at + WINDOW_PART_BYTES);
    put(w, WINDOW_PART_BYTES);
    ck_assert(has(at, at + WINDOW_PART_BYTES));
    ck_assert(!has(at - BLOCK, at + BLOCK));
    w = windows_claim(&windows, AT(2), AT(2) + BLOCK, false);
    ck_assert_ptr_nonnull(w);
    ck_assert_uint_eq(w->to - w->from, WINDOW_BYTES);
    put(w, WINDOW_BYTES);
    ck_assert(has(AT(2), AT(3)));
    w = windows_claim(&windows, AT(10) - BLOCK, AT(10), true); /* at a window's end */
    ck_assert_uint_eq(w->to - w->from, BLOCK);
    put(w, BLOCK);
    w = windows_claim(&windows, AT(20) - BLOCK, AT(20) + BLOCK, true); /* of what crosses, the end */
    ck_assert_uint_eq(w->from, AT(20));
    put(w, WINDOW_PART_BYTES);
}
END_TEST

START_TEST(what_could_not_be_read_is_not_kept)
{
    struct window *w = claim_whole(AT(1), AT(1) + BLOCK);

    put(w, 0);
    ck_assert(!has(AT(1), AT(1) + BLOCK));
    w = claim_whole(AT(1), AT(1) + BLOCK);
    put(w, 2 * BLOCK); /* the log was not longer */
    ck_assert(has(AT(1), AT(1) + 2 * BLOCK));
    ck_assert(!has(AT(1) + BLOCK, AT(1) + 3 * BLOCK));
    w = windows_claim(&windows, AT(1) + 2 * BLOCK, AT(1) + 3 * BLOCK, false);
    ck_assert_ptr_nonnull(w); /* it is longer now */
    put(w, WINDOW_BYTES);
    ck_assert(has(AT(1), AT(2)));
}
END_TEST

START_TEST(the_oldest_goes_and_one_that_is_being_read_stays)
{
    struct window *read[WINDOW_WAYS];
    unsigned apart = windows.count * 2; /* of one set */

    for (unsigned i = 0; i < WINDOW_WAYS; i++)
        put(claim_whole(AT(apart * (i + 1)), AT(apart * (i + 1)) + BLOCK), WINDOW_BYTES);
    ck_assert(has(AT(apart), AT(apart) + BLOCK));
    put(claim_whole(AT(apart * 9), AT(apart * 9) + BLOCK), WINDOW_BYTES);
    ck_assert(has(AT(apart), AT(apart) + BLOCK));
    ck_assert(!has(AT(apart * 2), AT(apart * 2) + BLOCK));
    for (unsigned i = 0; i < WINDOW_WAYS; i++)
        ck_assert_ptr_nonnull(read[i] = claim_whole(AT(apart * (i + 20)), AT(apart * (i + 20)) + BLOCK));
    ck_assert_ptr_null(claim_whole(AT(apart * 30), AT(apart * 30) + BLOCK));
    for (unsigned i = 0; i < WINDOW_WAYS; i++)
        put(read[i], WINDOW_BYTES);
}
END_TEST

START_TEST(with_little_memory_there_are_none)
{
    struct windows none;

    ck_assert_int_eq(windows_open(&none, WINDOW_BYTES), 0);
    ck_assert(!windows_copy(&none, AT(1), AT(1) + BLOCK, got));
    ck_assert_ptr_null(windows_claim(&none, AT(1), AT(1) + BLOCK, true));
    ck_assert_ptr_null(windows_claim(&none, AT(1), AT(1) + BLOCK, true));
    windows_drop(&none, AT(1));
    windows_close(&none);
}
END_TEST

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

struct user {
    uint64_t dice, found, wrong, claimed;
};

/* As readers do: what is not found comes from the device, now and then in part, or not at all. */
static void *use(void *arg)
{
    struct user *user = arg;
    uint64_t end = now_ms() + STRESS_MS;
    uint8_t *bytes = malloc(WINDOW_BYTES);

    for (unsigned n = 0; n % 256 != 0 || now_ms() < end; n++) {
        user->dice = user->dice * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t dice = user->dice >> 33, from = AT(1) + dice % (AREA * (WINDOW_BYTES / BLOCK)) * BLOCK;
        uint64_t to = from + (1 + dice / 7 % 3) * BLOCK;
        if (windows_copy(&windows, from, to, bytes)) {
            user->found++;
            user->wrong += !is_of(bytes, from, to);
            if (dice % 64 == 0)
                windows_drop(&windows, from);
            continue;
        }
        struct window *w = windows_claim(&windows, from, to, dice % 4 == 0);
        if (!w)
            continue;
        user->claimed++;
        put(w, dice % 16 == 1 ? 0 : dice % 16 == 2 ? BLOCK : w->to - w->from);
    }
    free(bytes);
    return NULL;
}

START_TEST(what_is_copied_is_what_the_log_has_while_windows_come_and_go)
{
    static struct user users[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        users[i] = (struct user){.dice = seed + i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use, &users[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_uint_eq(users[i].wrong, 0);
        ck_assert_uint_gt(users[i].found, 0);
        ck_assert_uint_gt(users[i].claimed, 0);
    }
}
END_TEST

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    ck_assert_int_eq(windows_open(&windows, 3 * WINDOW_WAYS * WINDOW_BYTES), 0);
    ck_assert_uint_eq(windows.count, 3);
}

static void teardown(void)
{
    windows_close(&windows);
}

int main(void)
{
    TCase *tests = tcase_create("window");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_second_miss_reads_the_window);
    tcase_add_test(tests, one_behind_a_window_of_use_is_read_at_once);
    tcase_add_test(tests, a_part_is_read_where_the_caller_says_and_all_of_it_at_the_next_miss);
    tcase_add_test(tests, what_could_not_be_read_is_not_kept);
    tcase_add_test(tests, the_oldest_goes_and_one_that_is_being_read_stays);
    tcase_add_test(tests, with_little_memory_there_are_none);
    tcase_add_test(tests, what_is_copied_is_what_the_log_has_while_windows_come_and_go);
    return suite_run_case("window", tests);
}
