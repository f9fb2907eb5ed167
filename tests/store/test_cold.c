// SPDX-License-Identifier: MIT
/*
 * The cold level by itself, beside a plain table: records put and removed in batches, moved by compaction, split, and
 * recovered. A ring of 256 KiB, so that most of it is on the device.
 */
#include <cold.h>
#include <private.h>

#include <check.h>
#include <device/memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <suite.h>
#include <time.h>

#define KEYS 24000u
#define BATCH 3000u
#define VALUE_MAX 6000u

static const struct store_options tiny = {
    .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

static uint64_t seed;
static struct device *device;
static struct store *level;
static uint64_t level_id;
static struct store_session *session;
static uint32_t now[KEYS], durable[KEYS]; /* stamp of the value; 0: not there */
static uint32_t stamp;

static uint64_t dice(uint64_t sides)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (seed >> 33) % sides;
}

static void open_level(void)
{
    struct store_opened opened;
    int rc = store_open_cold_level(device, &tiny, level_id, &level, &opened);

    ck_assert_msg(rc == 0, "%d %s", rc, opened.message);
    level_id = level->store_id;
    ck_assert_int_eq(store_session_open(level, &session), 0);
}

static void close_level(void)
{
    store_session_close(session);
    ck_assert_int_eq(store_close(level), 0);
}

static void crash(void)
{
    store_session_close(session);
    store_abandon(level);
    device_memory_crash(device);
    memcpy(now, durable, sizeof now);
    open_level();
}

static void commit(void)
{
    ck_assert_int_eq(store_commit(level), 0);
    memcpy(durable, now, sizeof now);
}

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    ck_assert_int_eq(device_memory_open(&device), 0);
    memset(now, 0, sizeof now);
    memset(durable, 0, sizeof durable);
    stamp = 0;
    level_id = 0;
    open_level();
}

static void teardown(void)
{
    close_level();
    device_close(device);
}

static uint32_t len_of(uint32_t k, uint32_t of)
{
    uint64_t word = (uint64_t)k * 31 + of * UINT64_C(0x9e3779b97f4a7c15);

    word ^= word >> 29;
    return (uint32_t)(word % 97 == 0 ? word % VALUE_MAX : word % 80);
}

static void fill(uint8_t *value, uint32_t k, uint32_t of)
{
    for (uint32_t i = 0, len = len_of(k, of); i < len; i++)
        value[i] = (uint8_t)(k * 7 + of * 13 + i);
}

/* Puts `count` keys from `first` on, one in `remove` of them as tombstones. */
static void put_some(uint32_t first, uint32_t count, unsigned remove)
{
    static uint8_t values[BATCH][VALUE_MAX];
    static struct cold_item items[BATCH];
    static uint32_t keys[BATCH];

    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = keys[i] = (first + i) % KEYS;
        bool tombstone = remove > 0 && dice(remove) == 0;
        now[k] = tombstone ? 0 : ++stamp;
        fill(values[i], k, now[k]);
        items[i] = (struct cold_item){.key = (uint8_t *)&keys[i],
                                      .key_len = sizeof keys[i],
                                      .value = values[i],
                                      .value_len = tombstone ? 0 : len_of(k, now[k]),
                                      .hash = hash_key(&keys[i], sizeof keys[i]),
                                      .tombstone = tombstone};
    }
    ck_assert_int_eq(cold_put(level->chunks, items, count, HLOG_WRITES), 0);
}

static void take(struct cold_read *cr, int result)
{
    cr->read->result = result;
}

static void expect(uint32_t k, struct store_session *s)
{
    static uint8_t got[VALUE_MAX], want[VALUE_MAX];
    struct store_read read = {.key = &k, .key_len = sizeof k, .buf = got, .buf_len = sizeof got, .value_hint = 80};
    struct cold_read cr = {.cold = level->chunks, .session = s, .read = &read, .done = take};

    read.result = cold_read_start(&cr);
    store_complete_pending(s, true);
    if (now[k] == 0) {
        ck_assert_msg(read.result == STORE_NOT_FOUND, "key %u: %d, is not there", k, read.result);
        return;
    }
    ck_assert_msg(read.result == STORE_OK, "key %u: %d, is there", k, read.result);
    ck_assert_uint_eq(read.value_len, len_of(k, now[k]));
    fill(want, k, now[k]);
    ck_assert_mem_eq(got, want, read.value_len);
}

static void expect_all(void)
{
    for (uint32_t k = 0; k < KEYS; k++)
        expect(k, session);
}

static void compact(uint64_t bytes)
{
    commit();
    ck_assert_int_eq(store_compact(level, bytes), 0);
    commit();
}

START_TEST(what_was_put_is_found_and_what_was_removed_is_not)
{
    for (int n = 0; n < 20; n++) {
        put_some((uint32_t)dice(KEYS), 1 + (uint32_t)dice(BATCH), 4);
        for (int i = 0; i < 500; i++)
            expect((uint32_t)dice(KEYS), session);
    }
    expect_all();
}
END_TEST

START_TEST(chunks_are_split_as_keys_become_more)
{
    uint64_t first = atomic_load(&level->chunks->chunks);

    for (uint32_t k = 0; k < KEYS; k += BATCH)
        put_some(k, BATCH, 0);
    expect_all();
    uint64_t chunks = atomic_load(&level->chunks->chunks), entries = atomic_load(&level->chunks->entries);
    ck_assert_uint_gt(chunks, 2 * first);
    ck_assert_uint_le(entries, KEYS);
    ck_assert_uint_gt(entries, KEYS / 4 * 3); /* few of them share one */
    ck_assert_uint_le(chunks, entries / 28);
    close_level();
    open_level();
    ck_assert_uint_eq(atomic_load(&level->chunks->chunks), chunks);
    expect_all();
}
END_TEST

/* An index that knew each record would have as many entries as there are keys. */
START_TEST(the_index_knows_chunks_only)
{
    struct store_stats stats;

    for (uint32_t k = 0; k < KEYS; k += BATCH)
        put_some(k, BATCH, 0);
    commit();
    crash();
    expect_all();
    store_stats(level, &stats);
    ck_assert_uint_eq(stats.index_buckets, 2048);
    ck_assert_uint_eq(stats.index_overflow_buckets, 0);
}
END_TEST

START_TEST(compaction_keeps_what_is_live_and_gives_back_the_rest)
{
    struct store_stats stats;

    for (int n = 0; n < 12; n++) {
        for (uint32_t k = 0; k < KEYS; k += BATCH)
            put_some(k, BATCH, n == 11 ? 0 : 3);
        if (n % 3 == 2)
            compact(1 + dice(4 << 20));
        for (int i = 0; i < 500; i++)
            expect((uint32_t)dice(KEYS), session);
    }
    for (int n = 0; n < 6; n++)
        compact(UINT64_MAX);
    expect_all();
    store_stats(level, &stats);
    ck_assert_uint_lt(stats.tail - stats.begin,
                      10 << 20); /* 24,000 records of 90 bytes, some larger, and 1,000 chunks */
    crash();
    expect_all();
}
END_TEST

START_TEST(what_was_removed_does_not_come_back_by_compaction)
{
    for (uint32_t k = 0; k < KEYS; k += BATCH)
        put_some(k, BATCH, 0);
    compact(UINT64_MAX);
    for (uint32_t k = 0; k < KEYS; k += BATCH)
        put_some(k, BATCH, 1);
    for (int n = 0; n < 30; n++) {
        put_some((uint32_t)dice(KEYS), 500, 2);
        compact(1 + dice(600000));
        for (int i = 0; i < 1000; i++)
            expect((uint32_t)dice(KEYS), session);
        if (n % 5 == 0)
            crash();
    }
    expect_all();
}
END_TEST

START_TEST(a_crash_leaves_what_was_committed)
{
    for (int n = 0; n < 25; n++) {
        for (uint64_t i = dice(4); i > 0; i--)
            put_some((uint32_t)dice(KEYS), 1 + (uint32_t)dice(BATCH), 5);
        if (dice(3) == 0)
            compact(1 + dice(3 << 20));
        if (dice(4) == 0)
            ck_assert_int_eq(store_checkpoint(level), 0);
        commit();
        put_some((uint32_t)dice(KEYS), 1 + (uint32_t)dice(BATCH), 5);
        crash();
        for (int i = 0; i < 3000; i++)
            expect((uint32_t)dice(KEYS), session);
    }
    expect_all();
}
END_TEST

/* The tags and the number of chunks leave few bits: keys that share all of them share a chain. */
START_TEST(keys_of_one_entry_are_told_apart)
{
    struct cold_item items[3];
    uint32_t keys[3] = {1, 2, 3};

    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 3; i++) {
            now[keys[i]] = round == 2 && i == 1 ? 0 : ++stamp;
            static uint8_t values[3][VALUE_MAX];
            fill(values[i], keys[i], now[keys[i]]);
            items[i] = (struct cold_item){.key = (uint8_t *)&keys[i],
                                          .key_len = sizeof keys[i],
                                          .value = values[i],
                                          .value_len = now[keys[i]] ? len_of(keys[i], now[keys[i]]) : 0,
                                          .hash = 42, /* of all */
                                          .tombstone = now[keys[i]] == 0};
        }
        ck_assert_int_eq(cold_put(level->chunks, items, 3, HLOG_WRITES), 0);
        ck_assert_uint_eq(atomic_load(&level->chunks->entries), 1);
        uint64_t number = cold_chunk_of(42, atomic_load(&level->chunks->chunks)), entry;
        uint32_t len;
        ck_assert_int_eq(store_get(session, &number, sizeof number, &entry, sizeof entry, &len), 0);
        for (int i = 0; i < 3; i++) {
            static uint8_t got[VALUE_MAX], want[VALUE_MAX];
            struct store_read read = {.key = &keys[i], .key_len = 4, .buf = got, .buf_len = sizeof got};
            (void)read_chain(session, &read, cold_entry_address(entry), 1, UINT64_MAX);
            store_complete_pending(session, true);
            ck_assert_int_eq(read.result, now[keys[i]] ? STORE_OK : STORE_NOT_FOUND);
            if (read.result != STORE_OK)
                continue;
            fill(want, keys[i], now[keys[i]]);
            ck_assert_uint_eq(read.value_len, len_of(keys[i], now[keys[i]]));
            ck_assert_mem_eq(got, want, read.value_len);
        }
    }
}
END_TEST

/* ---- reads under way ---------------------------------------------------------------------------------- */

#define UNDER_WAY 48

static struct cold_read reading[UNDER_WAY];
static struct store_read asked[UNDER_WAY];
static uint32_t asked_keys[UNDER_WAY];
static uint8_t asked_values[UNDER_WAY][VALUE_MAX];

/* Of keys of the upper half. Returns how many wait for the device. */
static unsigned start_reads(void)
{
    unsigned pending = 0;

    for (unsigned i = 0; i < UNDER_WAY; i++) {
        asked_keys[i] = KEYS / 2 + (uint32_t)dice(KEYS / 2);
        asked[i] = (struct store_read){
            .key = &asked_keys[i], .key_len = sizeof asked_keys[i], .buf = asked_values[i], .buf_len = VALUE_MAX};
        reading[i] = (struct cold_read){.cold = level->chunks, .session = session, .read = &asked[i], .done = take};
        asked[i].result = cold_read_start(&reading[i]);
        pending += asked[i].result == STORE_PENDING;
    }
    return pending;
}

static void end_reads(void)
{
    static uint8_t want[VALUE_MAX];

    store_complete_pending(session, true);
    for (unsigned i = 0; i < UNDER_WAY; i++) {
        uint32_t k = asked_keys[i];
        ck_assert_msg(asked[i].result == STORE_OK, "key %u: %d", k, asked[i].result);
        ck_assert_uint_eq(asked[i].value_len, len_of(k, now[k]));
        fill(want, k, now[k]);
        ck_assert_mem_eq(asked_values[i], want, asked[i].value_len);
    }
}

/* The chunk that a read waits for has been split and removed, or the record has moved, and its place was given back. */
START_TEST(a_read_under_way_finds_what_was_split_and_moved_meanwhile)
{
    unsigned pending = 0;

    for (uint32_t k = KEYS / 2; k < KEYS; k += BATCH)
        put_some(k, BATCH, 0);
    for (uint32_t k = 0; k < KEYS / 2; k += 1000) {
        for (int n = 0; n < 4; n++)
            compact(UINT64_MAX); /* nothing in memory */
        if (k % 2000 == 0)       /* chunks in the cache */
            for (int i = 0; i < 2000; i++)
                expect(KEYS / 2 + (uint32_t)dice(KEYS / 2), session);
        pending += start_reads();
        put_some(k, 1000, 0); /* splits */
        for (int n = 0; n < 4; n++)
            compact(UINT64_MAX);
        end_reads();
    }
    ck_assert_uint_gt(pending, 100);
    expect_all();
}
END_TEST

/* ---- readers beside a writer ---------------------------------------------------------------------------- */

static _Atomic bool stop;

/* Keys of the upper half are put once, before, and only moved and split: they are there at every moment. */
static void *read_beside(void *arg)
{
    uint64_t own = (uint64_t)(uintptr_t)arg;
    struct store_session *s;
    unsigned long reads = 0;

    ck_assert_int_eq(store_session_open(level, &s), 0);
    for (; !atomic_load(&stop) || reads == 0; reads++) {
        own = own * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint32_t k = KEYS / 2 + (uint32_t)((own >> 33) % (KEYS / 2));
        uint8_t got[VALUE_MAX];
        struct store_read read = {.key = &k, .key_len = sizeof k, .buf = got, .buf_len = sizeof got};
        struct cold_read cr = {.cold = level->chunks, .session = s, .read = &read, .done = take};
        read.result = cold_read_start(&cr);
        store_complete_pending(s, true);
        ck_assert_msg(read.result == STORE_OK, "key %u: %d", k, read.result);
        ck_assert_uint_eq(read.value_len, len_of(k, now[k]));
        for (uint32_t i = 0; i < read.value_len; i++)
            ck_assert_uint_eq(got[i], (uint8_t)(k * 7 + now[k] * 13 + i));
    }
    store_session_close(s);
    return NULL;
}

START_TEST(readers_find_what_is_there_beside_splits_and_compaction)
{
    pthread_t threads[2];

    for (uint32_t k = KEYS / 2; k < KEYS; k += BATCH)
        put_some(k, BATCH, 0);
    compact(UINT64_MAX);
    atomic_store(&stop, false);
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_beside, (void *)(seed + i)), 0);
    for (int n = 0; n < 40; n++) {
        put_some((uint32_t)dice(KEYS / 2 - 1000), 1000, 3);
        if (n % 2)
            compact(1 + dice(2 << 20));
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    expect_all();
}
END_TEST

START_TEST(it_is_opened_as_what_it_is)
{
    struct store_opened opened;
    struct store *other;

    close_level();
    ck_assert_int_eq(store_open(device, &tiny, &other, &opened), -EINVAL);
    ck_assert_ptr_nonnull(strstr(opened.message, "cold level of another store"));
    struct device *plain;
    ck_assert_int_eq(device_memory_open(&plain), 0);
    ck_assert_int_eq(store_open(plain, &tiny, &other, &opened), 0);
    ck_assert_int_eq(store_close(other), 0);
    ck_assert_int_eq(store_open_cold_level(plain, &tiny, 0, &other, &opened), -EINVAL);
    ck_assert_ptr_nonnull(strstr(opened.message, "not the cold level"));
    device_close(plain);
    open_level();
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("cold");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, what_was_put_is_found_and_what_was_removed_is_not);
    tcase_add_test(tests, chunks_are_split_as_keys_become_more);
    tcase_add_test(tests, the_index_knows_chunks_only);
    tcase_add_test(tests, compaction_keeps_what_is_live_and_gives_back_the_rest);
    tcase_add_test(tests, what_was_removed_does_not_come_back_by_compaction);
    tcase_add_test(tests, a_crash_leaves_what_was_committed);
    tcase_add_test(tests, keys_of_one_entry_are_told_apart);
    tcase_add_test(tests, a_read_under_way_finds_what_was_split_and_moved_meanwhile);
    tcase_add_test(tests, readers_find_what_is_there_beside_splits_and_compaction);
    tcase_add_test(tests, it_is_opened_as_what_it_is);
    return suite_run_case("cold", tests);
}
