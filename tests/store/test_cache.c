// SPDX-License-Identifier: MIT
/* Tests of store/src/cache.h. */
#include "cache.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <suite.h>
#include <time.h>

enum { SIZE = 64 << 10, ADDRESSES = 64, VALUE = 3000, THREADS = 8, STRESS_MS = 2000 };

static struct cache cache;
static struct epoch *epoch;
static uint64_t seed;

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* What the log has at an address: each word of the value says where. */
static void make_record(struct record *r, uint64_t address)
{
    r->stamp = record_stamp(1, sizeof address);
    r->value_len = r->capacity = VALUE;
    memcpy(r->bytes, &address, sizeof address);
    for (unsigned at = 0; at < VALUE; at += 8)
        memcpy(record_value(r) + at, &address, 8);
}

static bool is_of(const struct record *found, uint64_t address)
{
    struct record *r = (struct record *)(uintptr_t)found;
    bool same = record_has_key(r, &address, sizeof address);

    for (unsigned at = 0; at < VALUE; at += 8)
        same = same && memcmp(record_value(r) + at, &address, 8) == 0;
    return same;
}

/* As readers do: what is not found comes from the device. */
static void *use(void *arg)
{
    _Alignas(8) static _Thread_local uint8_t bytes[RECORD_HEADER_BYTES + 8 + VALUE];
    struct record *r = (struct record *)bytes;
    uint64_t dice = seed + (uint64_t)(uintptr_t)arg, end = now_ms() + STRESS_MS, wrong = 0;
    struct epoch_slot *slot;

    ck_assert_int_eq(epoch_slot_get(epoch, &slot), 0);
    for (unsigned n = 0; n % 256 != 0 || now_ms() < end; n++) {
        dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t address = 4096 + (dice >> 33) % ADDRESSES * 4096;
        epoch_enter(epoch, slot);
        const struct record *found = cache_find(&cache, address);
        wrong += found && !is_of(found, address);
        epoch_leave(slot);
        if (found)
            continue;
        make_record(r, address);
        cache_insert(&cache, slot, address, r);
    }
    epoch_slot_put(slot);
    return (void *)(uintptr_t)wrong;
}

START_TEST(what_is_found_is_what_was_put_while_the_ring_goes_round)
{
    pthread_t threads[THREADS];
    void *wrong;

    for (uintptr_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use, (void *)i), 0);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &wrong), 0);
        ck_assert_ptr_null(wrong);
    }
    ck_assert_uint_gt(atomic_load(&cache.head), SIZE);
}
END_TEST

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    ck_assert_int_eq(epoch_open(&epoch), 0);
    ck_assert_int_eq(cache_open(&cache, SIZE, epoch), 0);
}

static void teardown(void)
{
    cache_close(&cache);
    epoch_close(epoch);
}

int main(void)
{
    TCase *tests = tcase_create("cache");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, what_is_found_is_what_was_put_while_the_ring_goes_round);
    return suite_run_case("cache", tests);
}
