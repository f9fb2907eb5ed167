// SPDX-License-Identifier: MIT
/*
 * Parts of large values: read without the rest, and believed only if they are what was written. A ring of 256 KiB, so
 * that most of what is read is on the device.
 */
#include "model.h"

#include <errno.h>

#define LARGE 80
#define LARGE_MAX 65536u

static uint8_t values[LARGE][LARGE_MAX], then[LARGE][LARGE_MAX];
static uint32_t lens[LARGE], lens_then[LARGE];

static uint32_t large_len(void)
{
    static const uint32_t edges[] = {0, 4096, 16383, 16384, 16385, 20480, 65535, 65536};

    return dice(3) ? (uint32_t)dice(LARGE_MAX + 1) : edges[dice(8)];
}

static void put_large(uint32_t i)
{
    lens[i] = large_len();
    for (uint32_t at = 0; at < lens[i]; at += 8) {
        uint64_t word = dice(UINT64_MAX);
        memcpy(values[i] + at, &word, lens[i] - at < 8 ? lens[i] - at : 8);
    }
    ck_assert_int_eq(store_upsert(session, &i, sizeof i, values[i], lens[i]), 0);
}

static void change_large(uint32_t i)
{
    uint32_t from = (uint32_t)dice(lens[i] + 1), len = (uint32_t)dice(5000);

    len = from + len > LARGE_MAX ? LARGE_MAX - from : len;
    memset(values[i] + from, (int)dice(256), len);
    struct store_patch patch = {.offset = from, .len = len, .bytes = values[i] + from, .cut = STORE_PATCH_KEEP};
    ck_assert_int_eq(store_rmw(session, &i, sizeof i, &STORE_PATCH, &patch), 0);
    if (len > 0 && from + len > lens[i])
        lens[i] = from + len;
}

static void expect_part(uint32_t i, const struct store_snapshot *snapshot)
{
    static uint8_t got[LARGE_MAX];
    const uint8_t *value = snapshot ? then[i] : values[i];
    uint32_t len = snapshot ? lens_then[i] : lens[i];
    struct store_read read = {.key = &i,
                              .key_len = sizeof i,
                              .offset = (uint32_t)dice(LARGE_MAX),
                              .buf = got,
                              .buf_len = (uint32_t)(dice(3) ? dice(5000) : dice(LARGE_MAX)),
                              .value_hint = dice(2) ? len : (uint32_t)dice(LARGE_MAX),
                              .snapshot = snapshot};
    uint32_t copied = read.offset >= len ? 0 : len - read.offset < read.buf_len ? len - read.offset : read.buf_len;

    ck_assert_int_eq(store_read_wait(session, &read), STORE_OK);
    ck_assert_uint_eq(read.value_len, len);
    ck_assert_uint_eq(read.copied, copied);
    ck_assert_mem_eq(got, value + read.offset, copied);
}

START_TEST(parts_are_what_was_written_in_every_region_and_in_a_snapshot)
{
    struct store_snapshot *snapshot;
    uint64_t id;

    for (uint32_t i = 0; i < LARGE; i++)
        put_large(i);
    ck_assert_int_eq(store_snapshot_create(store, "then", 1, &id), 0);
    ck_assert_int_eq(store_snapshot_open(store, id, &snapshot), 0);
    memcpy(then, values, sizeof then);
    memcpy(lens_then, lens, sizeof lens_then);
    for (int n = 0; n < 4000; n++) {
        uint32_t i = (uint32_t)dice(LARGE);
        switch (dice(6)) {
        case 0:
            put_large(i);
            break;
        case 1:
            change_large(i);
            break;
        case 2:
            expect_part(i, snapshot);
            break;
        default:
            expect_part(i, NULL);
        }
        if (dice(500) == 0)
            ck_assert_int_eq(store_commit(store), 0);
        if (dice(1000) == 0)
            ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    }
    store_snapshot_close(snapshot);
    close_store();
    open_store(&tiny);
    for (uint32_t i = 0; i < LARGE; i++)
        expect_part(i, NULL);
}
END_TEST

static uint64_t bytes_read(void)
{
    struct store_stats stats;

    store_stats(store, &stats);
    return stats.bytes_read;
}

/* 64 KiB in each; all but the last few are on the device. */
static void fill_large(void)
{
    close_store();
    tiny.no_read_cache = false;
    open_store(&tiny);
    for (uint32_t i = 0; i < LARGE; i++) {
        lens[i] = LARGE_MAX;
        memset(values[i], (int)i, LARGE_MAX);
        ck_assert_int_eq(store_upsert(session, &i, sizeof i, values[i], LARGE_MAX), 0);
    }
}

static int read_page(uint32_t i, uint32_t offset)
{
    uint8_t got[4096];
    struct store_read read = {
        .key = &i, .key_len = sizeof i, .offset = offset, .buf = got, .buf_len = sizeof got, .value_hint = LARGE_MAX};
    int rc = store_read_wait(session, &read);

    if (rc == STORE_OK)
        ck_assert_mem_eq(got, values[i] + offset, sizeof got);
    return rc;
}

START_TEST(a_page_of_a_large_value_is_read_without_the_rest)
{
    fill_large();
    for (uint32_t i = 0; i < 20; i++) {
        uint64_t before = bytes_read();
        ck_assert_int_eq(read_page(i, 20480), 0);
        uint64_t first = bytes_read() - before;
        ck_assert_uint_le(first, 4 * 4096); /* its head, on the edge of two blocks, and the page, over two */
        ck_assert_int_eq(read_page(i, 40960), 0);
        ck_assert_uint_le(bytes_read() - before - first, 2 * 4096); /* the head is remembered */
    }
    uint64_t before = bytes_read();
    struct store_read length = {.key = &(uint32_t){30}, .key_len = 4};
    ck_assert_int_eq(store_read_wait(session, &length), STORE_OK);
    ck_assert_uint_eq(length.value_len, LARGE_MAX);
    ck_assert_uint_le(bytes_read() - before, 2 * 4096);
}
END_TEST

START_TEST(a_flipped_bit_is_an_error_for_reads_of_its_page_and_of_nothing_else)
{
    uint32_t value_at = 4096 + 32 + 8 + 16 * 8; /* of the first record: log, header, key, sums */

    fill_large();
    close_store();
    uint32_t page = (uint32_t)dice(16);
    uint64_t at = value_at + page * 4096 + dice(4096);
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", at, (unsigned)dice(8)), 0);
    open_store(&tiny);
    for (uint32_t p = 0; p < 16; p++)
        ck_assert_int_eq(read_page(0, p * 4096), p == page ? -EIO : 0);
    ck_assert_int_eq(read_page(1, 0), 0);
    close_store();
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", 4096 + 32 + 8 + dice(128), 3), 0); /* a sum */
    open_store(&tiny);
    for (uint32_t p = 0; p < 16; p++)
        ck_assert_int_eq(read_page(0, p * 4096), -EIO);
}
END_TEST

START_TEST(what_is_mutable_is_changed_where_it_is)
{
    uint32_t first = 0, last = LARGE - 1;
    struct store_stats before, after;

    fill_large();
    ck_assert(!store_is_mutable(session, &first, sizeof first));
    ck_assert(store_is_mutable(session, &last, sizeof last));
    store_stats(store, &before);
    struct store_patch patch = {.offset = 5, .len = 1, .bytes = "x", .cut = STORE_PATCH_KEEP};
    ck_assert_int_eq(store_rmw(session, &last, sizeof last, &STORE_PATCH, &patch), 0);
    store_stats(store, &after);
    ck_assert_uint_eq(before.tail, after.tail);
    ck_assert_int_eq(store_commit(store), 0);
    ck_assert(!store_is_mutable(session, &last, sizeof last));
    ck_assert_int_eq(store_delete(session, &last, sizeof last), 0);
    ck_assert(!store_is_mutable(session, &last, sizeof last));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("parts");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, parts_are_what_was_written_in_every_region_and_in_a_snapshot);
    tcase_add_test(tests, a_page_of_a_large_value_is_read_without_the_rest);
    tcase_add_test(tests, a_flipped_bit_is_an_error_for_reads_of_its_page_and_of_nothing_else);
    tcase_add_test(tests, what_is_mutable_is_changed_where_it_is);
    return suite_run_case("parts", tests);
}
