// SPDX-License-Identifier: MIT
/*
 * What lies beside a record on the device comes with it: how many reads that takes, and that what is given is what was
 * written, or an error, though windows fail, bits flip, and space is given back below what is kept. After each
 * reopening nothing of the log is in memory.
 */
#include "model.h"

#include <device/fault.h>
#include <errno.h>

#define MANY 20000u /* 21 MiB of log: 330 windows, of which 16 are kept */
#define LEN 1000u

static struct device *memory;
static const struct store_options roomy = {.memory_bytes = 64 << 20,
                                           .log_bytes = 256 << 10,
                                           .segment_bytes = 1 << 20,
                                           .no_read_cache = true,
                                           .no_background = true};

static void reopen(void)
{
    close_store();
    open_store(&roomy);
}

static void make_value(uint32_t i, uint8_t *value)
{
    for (uint32_t at = 0; at < LEN; at++)
        value[at] = byte_of((int)i, i / 256, at);
}

static void put_many(void)
{
    uint8_t value[LEN];

    for (uint32_t i = 0; i < MANY; i++) {
        make_value(i, value);
        ck_assert_int_eq(store_upsert(session, &i, sizeof i, value, LEN), 0);
    }
}

static int get(uint32_t i, bool nearby)
{
    uint8_t got[LEN], want[LEN];
    struct store_read read = {
        .key = &i, .key_len = sizeof i, .buf = got, .buf_len = LEN, .value_hint = LEN, .nearby = nearby};
    int rc = store_read_wait(session, &read);

    make_value(i, want);
    ck_assert_int_le(rc, 0);
    if (rc == 0)
        ck_assert_mem_eq(got, want, LEN);
    return rc;
}

static struct store_stats stats_now(void)
{
    struct store_stats stats;

    store_stats(store, &stats);
    return stats;
}

START_TEST(what_was_written_in_order_is_read_by_windows)
{
    reopen();
    for (uint32_t i = 0; i < MANY; i++)
        ck_assert_int_eq(get(i, false), 0);
    struct store_stats stats = stats_now();
    printf("%llu device reads, %llu KiB\n", (unsigned long long)stats.reads_device,
           (unsigned long long)stats.bytes_read >> 10);
    ck_assert_uint_le(stats.reads_device, (stats.tail - stats.begin) / 65536 + 8);
    ck_assert_uint_le(stats.bytes_read, stats.tail - stats.begin + 8 * 65536);
}
END_TEST

START_TEST(reads_that_wait_together_share_a_window)
{
    static uint8_t got[64][LEN];
    static uint32_t keys[64];
    static struct store_read reads[64];

    reopen();
    for (uint32_t first = 0; first < 64 * 100; first += 64) {
        for (uint32_t k = 0; k < 64; k++) {
            keys[k] = first + k * 37 % 64;
            reads[k] =
                (struct store_read){.key = &keys[k], .key_len = 4, .buf = got[k], .buf_len = LEN, .value_hint = LEN};
            int rc = store_read(session, &reads[k]);
            ck_assert(rc == STORE_PENDING || rc == STORE_OK);
        }
        ck_assert_uint_eq(store_complete_pending(session, true), 0);
        for (uint32_t k = 0; k < 64; k++) {
            uint8_t want[LEN];
            make_value(keys[k], want);
            ck_assert_int_eq(reads[k].result, 0);
            ck_assert_mem_eq(got[k], want, LEN);
        }
    }
    ck_assert_uint_le(stats_now().reads_device, 100 * 4);
}
END_TEST

START_TEST(a_record_and_those_behind_it_are_one_read_if_the_caller_says_so)
{
    unsigned tries = 200;

    reopen();
    for (uint32_t n = 0; n < tries; n++) {
        uint32_t i = n * 9973 % (MANY - 300); /* far from those before */
        ck_assert_int_eq(get(i, true), 0);
        ck_assert_int_eq(get(i + 1, false), 0);
        ck_assert_int_eq(get(i + 2, false), 0);
    }
    ck_assert_uint_le(stats_now().reads_device, tries * 5 / 4); /* some stand at a window's end */
}
END_TEST

START_TEST(scattered_reads_stay_small)
{
    unsigned tries = 4000;

    reopen();
    for (uint32_t n = 0; n < tries; n++)
        ck_assert_int_eq(get((uint32_t)dice(MANY), false), 0);
    struct store_stats stats = stats_now();
    printf("%llu device reads, %llu KiB\n", (unsigned long long)stats.reads_device,
           (unsigned long long)stats.bytes_read >> 10);
    ck_assert_uint_le(stats.reads_device, tries);
    ck_assert_uint_le(stats.bytes_read, (uint64_t)tries * 4096 * 5 / 2); /* a record is 1.25 blocks */
}
END_TEST

struct place {
    uint32_t key;
    uint64_t address;
};

static int find_place(void *ctx, const struct store_item *item)
{
    struct place *place = ctx;

    if (memcmp(item->key, &place->key, sizeof place->key) == 0)
        place->address = item->address;
    return 0;
}

START_TEST(a_flipped_bit_is_an_error_for_its_record_and_not_remembered)
{
    struct place hit = {.key = 300 + (uint32_t)dice(2000)};
    char name[32];

    ck_assert_int_eq(store_scan_log(session, find_place, &hit), 0);
    close_store();
    uint64_t at = hit.address + dice(32 + 4 + LEN);
    sprintf(name, "log.%016llx", (unsigned long long)(at >> 20));
    unsigned bit = (unsigned)dice(8);
    ck_assert_int_eq(device_memory_flip(memory, name, at & ((1 << 20) - 1), bit), 0);
    open_store(&roomy);
    for (uint32_t i = hit.key - 40; i < hit.key + 40; i++)
        ck_assert_int_eq(get(i, dice(2)), i == hit.key ? -EIO : 0);
    ck_assert_int_eq(device_memory_flip(memory, name, at & ((1 << 20) - 1), bit), 0);
    for (uint32_t i = hit.key - 40; i < hit.key + 40; i++)
        ck_assert_int_eq(get(i, dice(2)), 0);
}
END_TEST

START_TEST(a_window_that_cannot_be_read_costs_nothing_but_time)
{
    for (unsigned n = 1; n <= 12; n++) {
        unsigned wrong = 0;
        reopen();
        device_fault_arm(device, &(struct device_fault){.classes = DEVICE_FAULT_READ, .nth = n, .error = -EIO});
        for (uint32_t i = 5000; i < 5400; i++)
            wrong += get(i, true) < 0;
        ck_assert_uint_le(device_fault_hits(device), 1);
        ck_assert_uint_eq(wrong, 0); /* with `nearby` all but one that lies at a window's end begin with a window */
        device_fault_arm(device, &(struct device_fault){.nth = 0});
    }
    reopen();
    device_fault_arm(device,
                     &(struct device_fault){.classes = DEVICE_FAULT_READ, .nth = 1, .sticky = true, .error = -EIO});
    for (uint32_t i = 0; i < 100; i++)
        ck_assert_int_eq(get(i, i % 2), -EIO);
    device_fault_arm(device, &(struct device_fault){.nth = 0});
    for (uint32_t i = 0; i < 100; i++)
        ck_assert_int_eq(get(i, i % 2), 0);
}
END_TEST

/* The log goes round under windows that are kept: moved, given back, written on. */
START_TEST(windows_are_never_stale_while_space_is_given_back)
{
    struct store_snapshot *snapshot;
    static struct model then;
    uint64_t id;

    for (int i = 0; i < 600; i++)
        upsert_one(i);
    ck_assert_int_eq(store_snapshot_create(store, "then", 1, &id), 0);
    ck_assert_int_eq(store_snapshot_open(store, id, &snapshot), 0);
    then = now;
    for (int n = 0; n < 12000; n++) {
        int i = (int)dice(600);
        if (dice(3) == 0)
            upsert_one(i);
        else
            for (int k = i; k < i + 5 && k < 600; k++)
                expect(n % 4 ? &now : &then, n % 4 ? NULL : snapshot, k);
        if (dice(400) == 0)
            ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    }
    expect_all(&now, NULL);
    expect_all(&then, snapshot);
    store_snapshot_close(snapshot);
}
END_TEST

static void setup_fault(void)
{
    sow();
    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(device_fault_open(memory, &device), 0);
    for (int i = 0; i < KEYS; i++)
        now.len[i] = UINT32_MAX;
    open_store(&roomy);
}

static void setup_many(void)
{
    setup_fault();
    put_many();
}

static void teardown_fault(void)
{
    teardown();
    device_close(memory);
}

int main(void)
{
    TCase *many = tcase_create("many"), *model = tcase_create("model");

    tcase_add_checked_fixture(many, setup_many, teardown_fault);
    tcase_set_timeout(many, 120);
    tcase_add_test(many, what_was_written_in_order_is_read_by_windows);
    tcase_add_test(many, reads_that_wait_together_share_a_window);
    tcase_add_test(many, a_record_and_those_behind_it_are_one_read_if_the_caller_says_so);
    tcase_add_test(many, scattered_reads_stay_small);
    tcase_add_test(many, a_flipped_bit_is_an_error_for_its_record_and_not_remembered);
    tcase_add_test(many, a_window_that_cannot_be_read_costs_nothing_but_time);
    tcase_add_checked_fixture(model, setup_fault, teardown_fault);
    tcase_set_timeout(model, 120);
    tcase_add_test(model, windows_are_never_stale_while_space_is_given_back);
    Suite *suite = suite_create("nearby");
    suite_add_tcase(suite, many);
    suite_add_tcase(suite, model);
    return suite_run(suite);
}
