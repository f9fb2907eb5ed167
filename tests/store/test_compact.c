// SPDX-License-Identifier: MIT
/*
 * Compaction: nothing is lost or comes back, whatever goes on beside it; the files shrink; a checkpoint and a
 * snapshot keep what they need; iteration sees one moment.
 */
#include "steps.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static uint64_t log_bytes(void)
{
    struct store_stats stats;

    store_stats(store, &stats);
    return stats.tail - stats.begin;
}

static uint64_t used_bytes(void)
{
    struct device_space space;

    ck_assert_int_eq(device_space(device, &space), 0);
    return space.total_bytes - space.free_bytes;
}

/* All that can be compacted. What is in memory is not. */
static void compact_all(void)
{
    uint64_t before;

    do {
        before = log_bytes();
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    } while (log_bytes() < before - before / 8);
}

START_TEST(compaction_beside_every_operation_changes_no_value)
{
    struct store_stats stats;

    for (int n = 0; n < 60000; n++)
        step_or_more();
    expect_all(&now, NULL);
    store_stats(store, &stats);
    ck_assert_uint_gt(stats.begin, 4 << 20);
    close_store();
    open_store(&tiny);
    expect_all(&now, NULL);
}
END_TEST

static void compact_perhaps(void)
{
    if (dice(2))
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
}

START_TEST(a_crash_after_compaction_leaves_what_was_committed)
{
    crash_often(step_or_more, compact_perhaps);
}
END_TEST

START_TEST(the_log_can_begin_inside_of_a_commit)
{
    struct store_opened opened;
    struct store_stats stats;
    static uint8_t value[1000];
    uint32_t len;

    for (uint32_t k = 0; k < 6000; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    ck_assert_int_eq(store_commit(store), 0);
    uint64_t end = log_bytes();
    for (uint32_t k = 0; k < 1000; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    ck_assert_int_eq(store_commit(store), 0);
    for (int without = 0; without < 2; without++) {
        ck_assert_int_eq(store_compact(store, 700000), 0);
        store_stats(store, &stats);
        ck_assert_uint_gt(stats.begin, 600000u * (unsigned)(without + 1));
        ck_assert_uint_lt(stats.begin, end);
        store_session_close(session);
        store_abandon(store);
        device_memory_crash(device);
        if (without)
            damage_indexes();
        ck_assert_int_eq(store_open(device, &tiny, &store, &opened), 0);
        ck_assert_int_eq(store_session_open(store, &session), 0);
        store_stats(store, &stats);
        ck_assert_uint_gt(stats.begin, 600000u * (unsigned)(without + 1));
        for (uint32_t k = 0; k < 6000; k++)
            ck_assert_int_eq(store_get(session, &k, sizeof k, value, sizeof value, &len), STORE_OK);
        ck_assert_int_eq(store_checkpoint(store), 0);
    }
}
END_TEST

/* The C++ reference loses what its last checkpoint needs. */
START_TEST(the_last_checkpoint_outlives_compaction_with_its_index_and_without)
{
    struct store_opened opened;

    for (int without = 0; without < 2; without++) {
        for (int n = 0; n < 20000; n++)
            step();
        ck_assert_int_eq(store_checkpoint(store), 0);
        for (int n = 0; n < 20000; n++)
            step();
        ck_assert_int_eq(store_commit(store), 0);
        durable = now;
        compact_all();
        crash();
        if (without)
            damage_indexes();
        ck_assert_int_eq(store_open(device, &tiny, &store, &opened), 0);
        ck_assert_int_eq(store_session_open(store, &session), 0);
        expect_all(&now, NULL);
    }
}
END_TEST

START_TEST(the_files_shrink_to_what_is_live)
{
    static uint8_t value[1000];

    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t k = 0; k < 2000; k++)
            ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
        ck_assert_int_eq(store_commit(store), 0);
    }
    uint64_t before = used_bytes();
    ck_assert_uint_gt(before, 40 << 20);
    compact_all();
    ck_assert_int_eq(store_checkpoint(store), 0);
    ck_assert_uint_lt(used_bytes(), 9 << 20); /* 2 MiB are live, up to 6 promised ahead */
    for (uint32_t k = 0; k < 2000; k++)
        ck_assert_int_eq(store_delete(session, &k, sizeof k), 0);
    for (uint32_t k = 0; k < 300; k++) /* push the tombstones out of memory */
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    ck_assert_int_eq(store_commit(store), 0);
    compact_all();
    ck_assert_uint_lt(log_bytes(), 1 << 20);
}
END_TEST

START_TEST(a_deleted_key_does_not_come_back)
{
    static uint8_t value[900];
    uint32_t len;

    for (uint32_t k = 0; k < 3000; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    for (uint32_t k = 0; k < 3000; k += 2)
        ck_assert_int_eq(store_delete(session, &k, sizeof k), 0);
    for (int round = 0; round < 6; round++) {
        ck_assert_int_eq(store_commit(store), 0);
        ck_assert_int_eq(store_compact(store, 700000), 0);
        for (uint32_t k = 0; k < 3000; k++)
            ck_assert_int_eq(store_get(session, &k, sizeof k, NULL, 0, &len), k % 2 ? STORE_OK : STORE_NOT_FOUND);
        store_session_close(session);
        store_abandon(store);
        device_memory_crash(device);
        open_store(&tiny);
    }
    ck_assert_uint_lt(log_bytes(), 3 << 20);
}
END_TEST

START_TEST(a_snapshot_keeps_its_log_and_what_came_after_it_is_given_back)
{
    static struct model then[3];
    struct store_snapshot *snapshot;
    uint64_t id[3], with[3];
    char label[16];

    for (int k = 0; k < 3; k++) {
        for (int n = 0; n < 12000; n++)
            step_or_more();
        sprintf(label, "s%d", k);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &id[k]), 0);
        then[k] = now;
    }
    for (int n = 0; n < 40000; n++) {
        step();
        if (n % 1000 == 0)
            ck_assert_int_eq(store_commit(store), 0);
    }
    ck_assert_int_eq(store_commit(store), 0);
    uint64_t before = used_bytes();
    compact_all();
    ck_assert_uint_lt(used_bytes(), before - (1 << 20)); /* between the last snapshot and the new begin */
    durable = now;
    crash();
    open_store(&tiny);
    expect_all(&now, NULL);
    for (int k = 0; k < 3; k++) {
        ck_assert_int_eq(store_snapshot_open(store, id[k], &snapshot), 0);
        expect_all(&then[k], snapshot);
        store_snapshot_close(snapshot);
    }
    for (int k = 0; k < 3; k++) {
        ck_assert_int_eq(store_snapshot_delete(store, id[k]), 0);
        with[k] = used_bytes();
        if (k > 0)
            ck_assert_uint_le(with[k], with[k - 1]);
    }
    ck_assert_uint_lt(with[2], with[0]);
    expect_all(&now, NULL);
}
END_TEST

START_TEST(a_damaged_record_stops_compaction_and_is_kept)
{
    static uint8_t value[900];
    struct store_stats stats;
    uint32_t len;

    for (uint32_t k = 0; k < 3000; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    ck_assert_int_eq(store_commit(store), 0);
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000001", 500000, 3), 0);
    ck_assert_int_eq(store_compact(store, UINT64_MAX), -EUCLEAN);
    store_stats(store, &stats);
    ck_assert_int_eq(stats.compaction_failed, -EUCLEAN);
    ck_assert_uint_lt(stats.begin, (1 << 20) + 500000);
    unsigned damaged = 0;
    for (uint32_t k = 0; k < 3000; k++) {
        int rc = store_get(session, &k, sizeof k, NULL, 0, &len);
        damaged += rc == -EIO;
        ck_assert(rc == STORE_OK || rc == -EIO);
    }
    ck_assert_uint_eq(damaged, 1);
}
END_TEST

/* ---- iteration ---------------------------------------------------------------------------------------- */

struct seen {
    const struct model *model;
    uint8_t count[KEYS];
    bool churn;
};

static int see(void *ctx, const struct store_item *item)
{
    static uint8_t want[VALUE_MAX];
    struct seen *seen = ctx;
    int i = atoi((const char *)item->key + 4);

    ck_assert_int_lt(i, KEYS);
    ck_assert_uint_eq(item->value_len, seen->model->len[i]);
    fill(want, i, seen->model->stamp[i], item->value_len);
    ck_assert_mem_eq(item->value, want, item->value_len);
    seen->count[i]++;
    if (seen->churn && dice(4) == 0) { /* not deletions, which may be left out */
        upsert_one((int)dice(KEYS));
        if (dice(100) == 0)
            ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    }
    return 0;
}

START_TEST(a_scan_shows_every_key_of_its_moment_once)
{
    static struct model then;

    for (int n = 0; n < 30000; n++)
        step_or_more();
    for (int churn = 0; churn < 2; churn++) {
        struct seen seen = {.model = &then, .churn = churn};
        then = now;
        ck_assert_int_eq(store_scan(session, see, &seen), 0);
        for (int i = 0; i < KEYS; i++)
            ck_assert_msg(seen.count[i] == (then.len[i] != UINT32_MAX), "key %d: %d times", i, seen.count[i]);
    }
    expect_all(&now, NULL);
}
END_TEST

static int count_item(void *ctx, const struct store_item *item)
{
    unsigned *counts = ctx;

    counts[item->value == NULL]++;
    return 0;
}

static int stop_at_once(void *ctx, const struct store_item *item)
{
    (void)item;
    ++*(unsigned *)ctx;
    return 77;
}

START_TEST(a_scan_of_the_log_shows_every_record)
{
    unsigned counts[2] = {0, 0}, calls = 0;

    for (uint32_t k = 0; k < 100; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, "v", 1), 0);
    ck_assert_int_eq(store_commit(store), 0);
    for (uint32_t k = 0; k < 50; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, "w", 1), 0);
    for (uint32_t k = 50; k < 60; k++)
        ck_assert_int_eq(store_delete(session, &k, sizeof k), 0);
    ck_assert_int_eq(store_scan_log(session, count_item, counts), 0);
    ck_assert_uint_eq(counts[0], 150);
    ck_assert_uint_eq(counts[1], 10);
    ck_assert_int_eq(store_scan(session, stop_at_once, &calls), 77);
    ck_assert_uint_eq(calls, 1);
}
END_TEST

/* ---- threads ---------------------------------------------------------------------------------------- */

#define THREADS 3
#define OWN 400 /* keys of each thread */

static _Atomic bool stop; /* relaxed: only an end */

struct worker {
    uint64_t seed, operations;
    unsigned number, present[OWN];
    uint32_t version[OWN];
};

static uint32_t worker_dice(struct worker *w, uint32_t sides)
{
    w->seed = w->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(w->seed >> 33) % sides;
}

static void check_own(struct worker *w, struct store_session *s, const uint32_t key[2])
{
    uint32_t got[300], len = 0;
    int rc = store_get(s, key, 8, got, sizeof got, &len);

    ck_assert_msg(rc == (w->present[key[1]] ? STORE_OK : STORE_NOT_FOUND), "key %u.%u: %d, should be %s", key[0],
                  key[1], rc, w->present[key[1]] ? "there" : "gone");
    if (rc == STORE_OK)
        for (uint32_t i = 0; i < len / 4; i++)
            ck_assert_uint_eq(got[i], w->version[key[1]]);
}

static void *use_own_keys(void *arg)
{
    struct worker *w = arg;
    struct store_session *s;
    uint32_t value[300];

    ck_assert_int_eq(store_session_open(store, &s), 0);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint32_t key[2] = {w->number, worker_dice(w, OWN)};
        w->operations++;
        switch (worker_dice(w, 4)) {
        case 0:
            ck_assert_int_eq(store_delete(s, key, sizeof key), 0);
            w->present[key[1]] = false;
            break;
        case 1:
            check_own(w, s, key);
            break;
        default:
            w->version[key[1]]++;
            for (int i = 0; i < 300; i++)
                value[i] = w->version[key[1]];
            ck_assert_int_eq(store_upsert(s, key, sizeof key, value, 4 * (1 + worker_dice(w, 300))), 0);
            w->present[key[1]] = true;
        }
    }
    for (uint32_t k = 0; k < OWN; k++)
        check_own(w, s, (uint32_t[]){w->number, k});
    store_session_close(s);
    return NULL;
}

static void *compact_again_and_again(void *arg)
{
    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        ck_assert_int_eq(store_commit(store), 0);
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    }
    return NULL;
}

START_TEST(threads_see_their_writes_while_two_compact)
{
    static struct worker workers[THREADS];
    pthread_t threads[THREADS], compacters[2];
    struct store_stats stats;
    static const struct store_options with_worker = {
        .memory_bytes = 16 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .commit_interval_ms = 5};

    close_store();
    open_store(&with_worker);
    for (unsigned t = 0; t < THREADS; t++) {
        workers[t] = (struct worker){.seed = seed + t, .number = t};
        pthread_create(&threads[t], NULL, use_own_keys, &workers[t]);
    }
    for (int t = 0; t < 2; t++)
        pthread_create(&compacters[t], NULL, compact_again_and_again, NULL);
    for (int ms = 0; ms < 4000; ms += 100)
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    uint64_t operations = 0;
    for (int t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
        operations += workers[t].operations;
    }
    for (int t = 0; t < 2; t++)
        pthread_join(compacters[t], NULL);
    store_stats(store, &stats);
    printf("%llu operations, begin %llu\n", (unsigned long long)operations, (unsigned long long)stats.begin);
    ck_assert_uint_gt(stats.begin, 4096); /* where the log began */
    ck_assert_int_eq(store_commit(store), 0);
    crash();
    open_store(&tiny);
    for (unsigned t = 0; t < THREADS; t++)
        for (uint32_t k = 0; k < OWN; k++)
            check_own(&workers[t], session, (uint32_t[]){t, k});
}
END_TEST

START_TEST(the_background_keeps_the_log_near_twice_what_is_live)
{
    static uint8_t value[4000];
    struct store_stats stats;
    static const struct store_options background = {
        .memory_bytes = 2 << 20, .log_bytes = 1 << 20, .segment_bytes = 1 << 20, .commit_interval_ms = 20};

    close_store();
    open_store(&background);
    uint64_t worst = 0;
    for (uint32_t n = 0; n < 60000; n++) {
        uint32_t k = (uint32_t)dice(4000); /* 16 MB live */
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
        if (n % 100 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        if (n % 500 == 0) {
            store_stats(store, &stats);
            if (stats.disk_bytes > worst)
                worst = stats.disk_bytes;
        }
    }
    printf("at most %llu KiB for 15700 KiB live; live estimated %llu KiB; %llu KiB moved\n",
           (unsigned long long)worst >> 10, (unsigned long long)stats.live_bytes >> 10,
           (unsigned long long)stats.moved_bytes >> 10);
    fflush(stdout);
    /* The target is 31 MiB, and what is set aside for the log to come. A busy machine may be late: so it is what the
     * log comes to that counts, or the test runs into its time limit. */
    do {
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        store_stats(store, &stats);
        ck_assert_int_eq(stats.compaction_failed, 0);
    } while (stats.disk_bytes > 48 << 20);
    ck_assert_uint_gt(stats.begin, 100 << 20);
}
END_TEST

/* ---- values that are larger than the budget of now would take ------------------------------------------------ */

#define LARGE (2u << 20)

static void put_large(int key, uint8_t byte)
{
    uint8_t *value = malloc(LARGE);

    ck_assert_ptr_nonnull(value);
    memset(value, byte, LARGE);
    ck_assert_int_eq(store_upsert(session, &key, sizeof key, value, LARGE), 0);
    free(value);
}

static void expect_large(int key, uint8_t byte)
{
    uint8_t *value = malloc(LARGE);
    uint32_t len;

    ck_assert_ptr_nonnull(value);
    ck_assert_int_eq(store_get(session, &key, sizeof key, value, LARGE, &len), 0);
    ck_assert_uint_eq(len, LARGE);
    ck_assert(value[0] == byte && memcmp(value, value + 1, LARGE - 1) == 0);
    free(value);
}

/* Written with 64 MiB, then opened with 1: after a clean close, after a crash, and once more after a clean close. */
START_TEST(values_of_a_larger_budget_are_moved_with_a_smaller_one)
{
    static const struct store_options large = {.memory_bytes = 64 << 20, .no_background = true};
    static const struct store_options small = {.memory_bytes = 1 << 20, .no_background = true};

    close_store();
    device_close(device);
    ck_assert_int_eq(device_memory_open(&device), 0);
    open_store(&large);
    ck_assert_uint_ge(store_limits(store).value_max, LARGE);
    for (int key = 0; key < 4; key++) {
        put_large(key, (uint8_t)(key + 1));
        for (int i = 1000; i < 1400; i++) /* to be dropped */
            ck_assert_int_eq(store_upsert(session, &i, sizeof i, "small", 5), 0);
    }
    if (_i == 1) {
        ck_assert_int_eq(store_commit(store), 0);
        store_session_close(session);
        store_abandon(store);
        device_memory_crash(device);
    } else {
        close_store();
    }
    for (int round = 0; round < (_i == 2 ? 3 : 1); round++) {
        open_store(&small);
        struct store_stats stats;
        store_stats(store, &stats);
        uint64_t end = stats.tail;
        ck_assert_uint_ge(store_limits(store).value_max, LARGE);
        for (int i = 0; i < 40; i++)
            put_large(4, (uint8_t)i); /* all else out of memory */
        ck_assert_int_eq(store_commit(store), 0);
        for (unsigned tries = 0; stats.begin < end; tries++) {
            ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
            store_stats(store, &stats);
            ck_assert_uint_lt(tries, 20);
        }
        ck_assert_int_eq(stats.compaction_failed, 0);
        for (int key = 0; key < 4; key++)
            expect_large(key, (uint8_t)(key + 1));
        expect_large(4, 39);
        close_store();
    }
    open_store(&small);
}
END_TEST

/* A store of small values takes no more memory than it is given. */
START_TEST(small_values_need_no_more_than_the_budget)
{
    close_store();
    device_close(device);
    ck_assert_int_eq(device_memory_open(&device), 0);
    open_store(&(struct store_options){.memory_bytes = 64 << 20, .no_background = true});
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(store_upsert(session, &i, sizeof i, "small", 5), 0);
    close_store();
    open_store(&tiny);
    ck_assert_uint_eq(store_limits(store).value_max, 64 << 10);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("compact");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, compaction_beside_every_operation_changes_no_value);
    tcase_add_test(tests, a_crash_after_compaction_leaves_what_was_committed);
    tcase_add_test(tests, the_log_can_begin_inside_of_a_commit);
    tcase_add_test(tests, the_last_checkpoint_outlives_compaction_with_its_index_and_without);
    tcase_add_test(tests, the_files_shrink_to_what_is_live);
    tcase_add_test(tests, a_deleted_key_does_not_come_back);
    tcase_add_test(tests, a_snapshot_keeps_its_log_and_what_came_after_it_is_given_back);
    tcase_add_test(tests, a_damaged_record_stops_compaction_and_is_kept);
    tcase_add_test(tests, a_scan_shows_every_key_of_its_moment_once);
    tcase_add_test(tests, a_scan_of_the_log_shows_every_record);
    tcase_add_test(tests, threads_see_their_writes_while_two_compact);
    tcase_add_test(tests, the_background_keeps_the_log_near_twice_what_is_live);
    tcase_add_loop_test(tests, values_of_a_larger_budget_are_moved_with_a_smaller_one, 0, 3);
    tcase_add_test(tests, small_values_need_no_more_than_the_budget);
    return suite_run_case("compact", tests);
}
