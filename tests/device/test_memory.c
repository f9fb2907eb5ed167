// SPDX-License-Identifier: MIT
/* What the memory device does beyond the contract: crash, cut, limit, flip. */
#include "device/backends.h"

static struct fixture f;
static struct device_queue *queue;

static void setup(void)
{
    ck_assert(fixture_open(&f, BACKEND_MEMORY));
    queue = queue_open(f.device, 4);
}

static void teardown(void)
{
    device_queue_close(queue);
    fixture_close(&f);
}

START_TEST(names_are_durable_after_a_sync_of_names_only)
{
    int a = file_create(f.device, "a");
    ck_assert_int_eq(device_sync_names(f.device), 0);
    int b = file_create(f.device, "b");
    ck_assert_int_eq(device_file_rename(f.device, "a", "c"), 0);
    ck_assert_int_eq(device_file_sync(f.device, b), 0);
    device_file_close(f.device, a);
    device_file_close(f.device, b);
    device_memory_crash(f.device);
    ck_assert_int_eq(device_file_open(f.device, "b", 0), -ENOENT);
    ck_assert_int_eq(device_file_open(f.device, "c", 0), -ENOENT);
    a = device_file_open(f.device, "a", 0);
    ck_assert_int_ge(a, 0);
    device_file_close(f.device, a);
}
END_TEST

START_TEST(contents_are_durable_as_of_their_last_sync)
{
    int a = file_create(f.device, "a");
    ck_assert_int_eq(device_sync_names(f.device), 0);
    ck_assert_int_eq(block_write(queue, a, 0, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, a, BLOCK, 2), BLOCK);
    ck_assert_int_eq(device_file_sync(f.device, a), 0);
    ck_assert_int_eq(block_write(queue, a, 0, 3), BLOCK);
    ck_assert_int_eq(block_write(queue, a, 0, 4), BLOCK);
    ck_assert_int_eq(block_write(queue, a, 9 * BLOCK, 5), BLOCK);
    ck_assert(block_is(queue, a, 0, 4));
    device_memory_crash(f.device);
    ck_assert_int_eq(device_file_size(f.device, a), -EIO); /* open from before */
    ck_assert_int_eq(block_write(queue, a, 0, 9), -EIO);
    ck_assert_int_eq(device_file_sync(f.device, a), -EIO);
    int again = device_file_open(f.device, "a", 0);
    ck_assert_int_eq(device_file_size(f.device, again), 2 * BLOCK);
    ck_assert(block_is(queue, again, 0, 1));
    ck_assert(block_is(queue, again, BLOCK, 2));
    device_file_close(f.device, a);
    device_file_close(f.device, again);
}
END_TEST

START_TEST(a_file_whose_contents_were_never_synced_is_empty_after_a_crash)
{
    int a = file_create(f.device, "a");
    ck_assert_int_eq(block_write(queue, a, 0, 1), BLOCK);
    ck_assert_int_eq(device_sync_names(f.device), 0);
    device_file_close(f.device, a);
    device_memory_crash(f.device);
    a = device_file_open(f.device, "a", 0);
    ck_assert_int_eq(device_file_size(f.device, a), 0);
    device_file_close(f.device, a);
}
END_TEST

START_TEST(what_was_removed_or_replaced_or_truncated_comes_back_if_names_were_not_synced)
{
    const char *names[] = {"removed", "replaced", "truncated"};
    for (unsigned i = 0; i < 3; i++) {
        int file = file_create(f.device, names[i]);
        ck_assert_int_eq(block_write(queue, file, 0, i + 1), BLOCK);
        ck_assert_int_eq(device_file_sync(f.device, file), 0);
        device_file_close(f.device, file);
    }
    ck_assert_int_eq(device_sync_names(f.device), 0);
    struct device_space before, after;
    ck_assert_int_eq(device_space(f.device, &before), 0);
    device_file_close(f.device, file_create(f.device, "new"));
    ck_assert_int_eq(device_file_remove(f.device, "removed"), 0);
    ck_assert_int_eq(device_file_rename(f.device, "new", "replaced"), 0);
    device_file_close(f.device, device_file_open(f.device, "truncated", DEVICE_FILE_TRUNCATE));
    ck_assert_int_eq(device_space(f.device, &after), 0);
    ck_assert_uint_eq(after.free_bytes, before.free_bytes + 3 * BLOCK);
    device_memory_crash(f.device);
    ck_assert_int_eq(device_space(f.device, &after), 0);
    ck_assert_uint_eq(after.free_bytes, before.free_bytes);
    for (unsigned i = 0; i < 3; i++) {
        int file = device_file_open(f.device, names[i], 0);
        ck_assert(block_is(queue, file, 0, i + 1));
        device_file_close(f.device, file);
    }
}
END_TEST

START_TEST(nothing_changes_once_the_power_is_cut)
{
    int a = file_create(f.device, "a");
    ck_assert_int_eq(block_write(queue, a, 0, 1), BLOCK);
    ck_assert_int_eq(device_file_sync(f.device, a), 0);
    ck_assert_int_eq(device_sync_names(f.device), 0);
    device_memory_cut(f.device);
    ck_assert_int_eq(block_write(queue, a, 0, 2), -EIO);
    ck_assert_int_eq(device_file_sync(f.device, a), -EIO);
    ck_assert_int_eq(device_file_allocate(f.device, a, 0, BLOCK), -EIO);
    ck_assert_int_eq(device_file_open(f.device, "a", DEVICE_FILE_TRUNCATE), -EIO);
    ck_assert_int_eq(device_file_open(f.device, "b", DEVICE_FILE_CREATE), -EIO);
    ck_assert_int_eq(device_file_remove(f.device, "a"), -EIO);
    ck_assert_int_eq(device_file_rename(f.device, "a", "b"), -EIO);
    ck_assert_int_eq(device_sync_names(f.device), -EIO);
    device_file_close(f.device, a);
    device_memory_crash(f.device);
    a = device_file_open(f.device, "a", 0);
    ck_assert(block_is(queue, a, 0, 1));
    device_file_close(f.device, a);
}
END_TEST

static int64_t lost_result = 1;

static void lost_done(struct device_io *io)
{
    lost_result = io->result;
}

START_TEST(a_write_in_flight_is_lost_in_a_crash)
{
    int a = file_create(f.device, "a");
    ck_assert_int_eq(device_file_sync(f.device, a), 0);
    ck_assert_int_eq(device_sync_names(f.device), 0);
    unsigned char *bytes = blocks_new(BLOCK);
    struct device_io io = {.op = DEVICE_WRITE, .file = a, .buf = bytes, .len = BLOCK, .done = lost_done};
    device_submit(queue, &io);
    device_memory_crash(f.device);
    ck_assert_uint_eq(device_poll(queue, true), 1);
    ck_assert_int_eq(lost_result, -EIO);
    device_file_close(f.device, a);
    a = device_file_open(f.device, "a", 0);
    ck_assert_int_eq(device_file_size(f.device, a), 0);
    device_file_close(f.device, a);
    free(bytes);
}
END_TEST

START_TEST(the_limit_gives_enospc_and_allocated_space_stays_writable)
{
    device_memory_limit(f.device, 10 * BLOCK);
    int a = file_create(f.device, "a");
    ck_assert_int_eq(device_file_allocate(f.device, a, 0, 8 * BLOCK), 0);
    ck_assert_int_eq(device_file_allocate(f.device, a, 0, 11 * BLOCK), -ENOSPC);
    ck_assert_int_eq(device_file_size(f.device, a), 8 * BLOCK);
    int b = file_create(f.device, "b");
    ck_assert_int_eq(block_write(queue, b, 0, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, b, 70 * BLOCK, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, b, 2 * BLOCK, 1), -ENOSPC);
    ck_assert_int_eq(block_write(queue, b, 0, 2), BLOCK);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(block_write(queue, a, i * BLOCK, i + 1), BLOCK);
    struct device_space space;
    ck_assert_int_eq(device_space(f.device, &space), 0);
    ck_assert_uint_eq(space.total_bytes, 10 * BLOCK);
    ck_assert_uint_eq(space.free_bytes, 0);
    device_file_close(f.device, a);
    ck_assert_int_eq(device_file_remove(f.device, "a"), 0);
    ck_assert_int_eq(block_write(queue, b, 2 * BLOCK, 1), BLOCK);
    device_file_close(f.device, b);
    device_memory_limit(f.device, UINT64_C(1) << 40);
}
END_TEST

START_TEST(a_flipped_bit_is_read_now_and_after_a_crash)
{
    int a = file_create(f.device, "a");
    ck_assert_int_eq(block_write(queue, a, 0, 1), BLOCK);
    ck_assert_int_eq(device_file_sync(f.device, a), 0);
    ck_assert_int_eq(device_sync_names(f.device), 0);
    unsigned char *bytes = blocks_new(BLOCK), *expected = blocks_new(BLOCK);
    fill(expected, BLOCK, 1);
    ck_assert_int_eq(device_memory_flip(f.device, "a", 77, 3), 0);
    ck_assert_int_eq(device_memory_flip(f.device, "a", BLOCK, 3), -EINVAL);
    ck_assert_int_eq(device_memory_flip(f.device, "b", 0, 3), -ENOENT);
    expected[77] ^= 8;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(device_transfer(queue, DEVICE_READ, a, 0, bytes, BLOCK), BLOCK);
        ck_assert_mem_eq(bytes, expected, BLOCK);
        device_memory_crash(f.device);
        device_file_close(f.device, a);
        a = device_file_open(f.device, "a", 0);
    }
    /* In what was never written, and where live and durable differ. */
    ck_assert_int_eq(device_file_allocate(f.device, a, BLOCK, BLOCK), 0);
    ck_assert_int_eq(device_memory_flip(f.device, "a", BLOCK, 0), 0);
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, a, BLOCK, bytes, BLOCK), BLOCK);
    ck_assert(bytes[0] == 1 && is_zero(bytes + 1, BLOCK - 1));
    ck_assert_int_eq(block_write(queue, a, 0, 2), BLOCK);
    ck_assert_int_eq(device_memory_flip(f.device, "a", 77, 3), 0);
    ck_assert(!block_is(queue, a, 0, 2));
    device_memory_crash(f.device);
    device_file_close(f.device, a);
    a = device_file_open(f.device, "a", 0);
    ck_assert(block_is(queue, a, 0, 1)); /* flipped twice */
    device_file_close(f.device, a);
    free(bytes);
    free(expected);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, names_are_durable_after_a_sync_of_names_only);
    tcase_add_test(tcase, contents_are_durable_as_of_their_last_sync);
    tcase_add_test(tcase, a_file_whose_contents_were_never_synced_is_empty_after_a_crash);
    tcase_add_test(tcase, what_was_removed_or_replaced_or_truncated_comes_back_if_names_were_not_synced);
    tcase_add_test(tcase, nothing_changes_once_the_power_is_cut);
    tcase_add_test(tcase, a_write_in_flight_is_lost_in_a_crash);
    tcase_add_test(tcase, the_limit_gives_enospc_and_allocated_space_stays_writable);
    tcase_add_test(tcase, a_flipped_bit_is_read_now_and_after_a_crash);
}

int main(void)
{
    return run("memory", add);
}
