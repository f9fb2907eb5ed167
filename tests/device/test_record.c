// SPDX-License-Identifier: MIT
/* What a record keeps, and which crash states it makes: each rule of device/record.h. */
#include "backends.h"

static struct device *inner, *record;
static struct device_queue *queue;

static void setup(void)
{
    ck_assert_int_eq(device_memory_open(&inner), 0);
    ck_assert_int_eq(device_record_open(inner, &record), 0);
    queue = queue_open(record, 4);
}

static void teardown(void)
{
    device_queue_close(queue);
    device_close(record);
    device_close(inner);
}

static struct device *crash_at(uint64_t tick, enum device_crash_style style, uint64_t seed)
{
    struct device_crash crash = {.tick = tick, .style = style, .seed = seed};
    struct device *left;
    ck_assert_int_eq(device_record_crash(record, &crash, &left), 0);
    return left;
}

/* 1: block `offset` of the file is `seed`'s; 0: it is not; -ENOENT: no such name. */
static int holds(struct device *device, const char *name, uint64_t offset, uint64_t seed)
{
    int file = device_file_open(device, name, 0);
    if (file < 0)
        return file;
    struct device_queue *q = queue_open(device, 1);
    int ret = block_is(q, file, offset, seed);
    device_queue_close(q);
    device_file_close(device, file);
    return ret;
}

static int left_at(uint64_t tick, enum device_crash_style style, const char *name, uint64_t offset, uint64_t seed)
{
    struct device *left = crash_at(tick, style, 1);
    int ret = holds(left, name, offset, seed);
    device_close(left);
    return ret;
}

START_TEST(what_was_synced_is_in_every_state_and_what_was_not_in_some)
{
    int file = file_create(record, "a");
    ck_assert_int_eq(device_sync_names(record), 0);
    ck_assert_int_eq((int)block_write(queue, file, 0, 1), BLOCK);
    uint64_t before = device_record_now(record);
    ck_assert_int_eq(device_file_sync(record, file), 0);
    uint64_t after = device_record_now(record);
    ck_assert_int_eq((int)block_write(queue, file, 0, 2), BLOCK);
    uint64_t end = device_record_now(record);
    ck_assert_int_eq(left_at(before, DEVICE_CRASH_OLD, "a", 0, 1), 0);
    ck_assert_int_eq(left_at(before, DEVICE_CRASH_NEW, "a", 0, 1), 1);
    ck_assert_int_eq(left_at(after - 1, DEVICE_CRASH_OLD, "a", 0, 1), 0); /* the sync had not ended */
    ck_assert_int_eq(left_at(after, DEVICE_CRASH_OLD, "a", 0, 1), 1);
    ck_assert_int_eq(left_at(end, DEVICE_CRASH_OLD, "a", 0, 1), 1);
    ck_assert_int_eq(left_at(end, DEVICE_CRASH_NEW, "a", 0, 2), 1);
    ck_assert_int_eq(left_at(before, DEVICE_CRASH_OLD, "a", 0, 1), 0); /* back in time */
    device_file_close(record, file);
}
END_TEST

START_TEST(random_states_tear_a_write_by_sectors_and_nothing_else)
{
    int file = file_create(record, "a"), torn = 0, old = 0, new = 0, spoilt = 0;
    ck_assert_int_eq(device_sync_names(record), 0);
    ck_assert_int_eq((int)block_write(queue, file, 0, 1), BLOCK);
    ck_assert_int_eq((int)block_write(queue, file, BLOCK, 9), BLOCK);
    ck_assert_int_eq(device_file_sync(record, file), 0);
    ck_assert_int_eq((int)block_write(queue, file, 0, 2), BLOCK);
    device_file_close(record, file);
    unsigned char *one = blocks_new(BLOCK), *two = blocks_new(BLOCK);
    fill(one, BLOCK, 1);
    fill(two, BLOCK, 2);
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct device *left = crash_at(device_record_now(record), DEVICE_CRASH_RANDOM, seed);
        ck_assert_int_eq(holds(left, "a", BLOCK, 9), 1);
        const void *bytes;
        uint64_t len;
        file = device_file_open(left, "a", 0);
        ck_assert_int_eq(device_map(left, file, &bytes, &len), 0);
        ck_assert_uint_eq(len, 2 * BLOCK);
        unsigned is_new = 0, is_old = 0;
        for (unsigned s = 0; s < BLOCK; s += 512) {
            is_new += memcmp((const char *)bytes + s, two + s, 512) == 0;
            is_old += memcmp((const char *)bytes + s, one + s, 512) == 0;
        }
        ck_assert_uint_ge(is_new + is_old, 7);
        spoilt += is_new + is_old == 7;
        old += is_old == 8;
        new += is_new == 8;
        torn += is_old > 0 && is_new > 0;
        device_unmap(left, bytes, len);
        device_file_close(left, file);
        device_close(left);
    }
    ck_assert_int_gt(torn, 40);
    ck_assert_int_gt(old, 40);
    ck_assert_int_gt(new, 40);
    ck_assert_int_gt(spoilt, 10);
    free(one);
    free(two);
}
END_TEST

static void nothing(struct device_io *io)
{
    (void)io;
}

START_TEST(a_write_in_flight_when_a_sync_begins_is_not_covered)
{
    int file = file_create(record, "a");
    ck_assert_int_eq(device_sync_names(record), 0);
    unsigned char *bytes = blocks_new(BLOCK);
    fill(bytes, BLOCK, 1);
    struct device_io io = {.op = DEVICE_WRITE, .file = file, .buf = bytes, .len = BLOCK, .done = nothing};
    struct device_queue *other = queue_open(record, 1);
    device_submit(other, &io);
    ck_assert_int_eq(device_file_sync(record, file), 0);
    while (device_queue_pending(other) > 0)
        (void)device_poll(other, true);
    uint64_t now = device_record_now(record);
    ck_assert_int_eq(left_at(now, DEVICE_CRASH_OLD, "a", 0, 1), 0);
    ck_assert_int_eq(device_file_sync(record, file), 0);
    ck_assert_int_eq(left_at(device_record_now(record), DEVICE_CRASH_OLD, "a", 0, 1), 1);
    device_queue_close(other);
    device_file_close(record, file);
    free(bytes);
}
END_TEST

START_TEST(names_come_in_order_and_sizes_with_what_is_behind_them)
{
    device_file_close(record, file_create(record, "a"));
    ck_assert_int_eq(device_sync_names(record), 0);
    int file = file_create(record, "b");
    ck_assert_int_eq(device_file_rename(record, "b", "c"), 0);
    ck_assert_int_eq(device_file_remove(record, "a"), 0);
    ck_assert_int_eq((int)block_write(queue, file, 3 * BLOCK, 1), BLOCK);
    uint64_t now = device_record_now(record);
    ck_assert_int_eq(left_at(now, DEVICE_CRASH_OLD, "a", 0, 1), 0);
    ck_assert_int_eq(left_at(now, DEVICE_CRASH_OLD, "c", 0, 1), -ENOENT);
    ck_assert_int_eq(left_at(now, DEVICE_CRASH_NEW, "a", 0, 1), -ENOENT);
    ck_assert_int_eq(left_at(now, DEVICE_CRASH_NEW, "c", 3 * BLOCK, 1), 1);
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct device *left = crash_at(now, DEVICE_CRASH_RANDOM, seed);
        bool a = holds(left, "a", 0, 1) >= 0, b = holds(left, "b", 0, 1) >= 0, c = holds(left, "c", 0, 1) >= 0;
        ck_assert(!(b && c) && (a || c)); /* a goes last */
        device_close(left);
    }
    /* A truncation that is lost takes along what was written after it, and leaves what was there. */
    ck_assert_int_eq(device_sync_names(record), 0);
    ck_assert_int_eq(device_file_sync(record, file), 0);
    device_file_close(record, device_file_open(record, "c", DEVICE_FILE_TRUNCATE));
    ck_assert_int_eq((int)block_write(queue, file, 0, 2), BLOCK);
    now = device_record_now(record);
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct device *left = crash_at(now, DEVICE_CRASH_RANDOM, seed);
        ck_assert(holds(left, "c", 3 * BLOCK, 1) != holds(left, "c", 0, 2) || holds(left, "c", 3 * BLOCK, 1) == 0);
        device_close(left);
    }
    device_file_close(record, file);
}
END_TEST

START_TEST(what_a_failed_sync_was_for_is_safe_only_when_it_was_written_again)
{
    struct device *faulty, *outer;
    struct device_fault fault = {.classes = DEVICE_FAULT_SYNC, .nth = 1, .error = -EIO};
    ck_assert_int_eq(device_fault_open(inner, &faulty), 0);
    ck_assert_int_eq(device_record_open(faulty, &outer), 0);
    struct device *kept = record;
    record = outer;
    struct device_queue *q = queue_open(outer, 1);
    int file = file_create(outer, "a");
    ck_assert_int_eq(device_sync_names(outer), 0);
    ck_assert_int_eq((int)block_write(q, file, 0, 1), BLOCK);
    device_fault_arm(faulty, &fault);
    ck_assert_int_eq(device_file_sync(outer, file), -EIO);
    ck_assert_int_eq(device_file_sync(outer, file), 0);
    ck_assert_int_eq(left_at(device_record_now(outer), DEVICE_CRASH_OLD, "a", 0, 1), 0);
    ck_assert_int_eq((int)block_write(q, file, 0, 1), BLOCK);
    ck_assert_int_eq(device_file_sync(outer, file), 0);
    ck_assert_int_eq(left_at(device_record_now(outer), DEVICE_CRASH_OLD, "a", 0, 1), 1);
    device_file_close(outer, file);
    device_queue_close(q);
    record = kept;
    device_close(outer);
    device_close(faulty);
}
END_TEST

static int count_kind(void *ctx, const struct device_event *event)
{
    unsigned *counts = ctx;
    counts[event->kind]++;
    ck_assert_uint_gt(event->end, event->begin);
    return 0;
}

START_TEST(every_event_is_kept)
{
    unsigned counts[DEVICE_EVENT_SYNC_NAMES + 1] = {0};
    int file = file_create(record, "a");
    ck_assert_int_eq(device_file_allocate(record, file, 0, 8 * BLOCK), 0);
    ck_assert_int_eq((int)block_write(queue, file, 0, 1), BLOCK);
    ck_assert_int_eq(device_file_sync(record, file), 0);
    device_file_close(record, device_file_open(record, "a", DEVICE_FILE_TRUNCATE));
    ck_assert_int_eq(device_file_rename(record, "a", "b"), 0);
    ck_assert_int_eq(device_file_remove(record, "b"), 0);
    ck_assert_int_eq(device_sync_names(record), 0);
    ck_assert_int_eq(device_record_events(record, count_kind, counts), 0);
    for (unsigned kind = 0; kind <= DEVICE_EVENT_SYNC_NAMES; kind++)
        ck_assert_uint_eq(counts[kind], 1);
    ck_assert_uint_eq(device_record_now(record), 16);
    device_file_close(record, file);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, what_was_synced_is_in_every_state_and_what_was_not_in_some);
    tcase_add_test(tcase, random_states_tear_a_write_by_sectors_and_nothing_else);
    tcase_add_test(tcase, a_write_in_flight_when_a_sync_begins_is_not_covered);
    tcase_add_test(tcase, names_come_in_order_and_sizes_with_what_is_behind_them);
    tcase_add_test(tcase, what_a_failed_sync_was_for_is_safe_only_when_it_was_written_again);
    tcase_add_test(tcase, every_event_is_kept);
}

int main(void)
{
    return run("record", add);
}
