// SPDX-License-Identifier: MIT
/* The fault device fails where it is told to, and only there. That it is a device: the loop tests of the contract. */
#include "backends.h"

static struct device *memory, *device;
static struct device_queue *queue;
static int file;

static void setup(void)
{
    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(device_fault_open(memory, &device), 0);
    queue = queue_open(device, 4);
    file = file_create(device, "a");
}

static void teardown(void)
{
    device_file_close(device, file);
    device_queue_close(queue);
    device_close(device);
    device_close(memory);
}

static void arm(unsigned classes, uint64_t nth, bool sticky, int error)
{
    struct device_fault fault = {.classes = classes, .nth = nth, .sticky = sticky, .error = error};
    device_fault_arm(device, &fault);
}

START_TEST(the_nth_call_of_a_class_fails_once_or_from_then_on)
{
    for (int sticky = 0; sticky < 2; sticky++) {
        arm(DEVICE_FAULT_WRITE, 3, sticky, -EIO);
        for (unsigned n = 1; n <= 5; n++) {
            bool fails = sticky ? n >= 3 : n == 3;
            ck_assert_int_eq((int)block_write(queue, file, 0, n), fails ? -EIO : (int)BLOCK);
            ck_assert(block_is(queue, file, 0, fails ? (sticky ? 2 : n - 1) : n));
            ck_assert_int_eq(device_file_sync(device, file), 0);
        }
        ck_assert_uint_eq(device_fault_calls(device), 5);
        ck_assert_uint_eq(device_fault_hits(device), sticky ? 3 : 1);
    }
}
END_TEST

START_TEST(each_class_fails_by_itself_and_does_nothing_then)
{
    arm(DEVICE_FAULT_SYNC, 1, true, -EIO);
    ck_assert_int_eq(device_file_sync(device, file), -EIO);
    ck_assert_int_eq(device_sync_names(device), -EIO);
    ck_assert_int_eq((int)block_write(queue, file, 0, 1), BLOCK);
    arm(DEVICE_FAULT_ALLOCATE, 1, true, -ENOSPC);
    ck_assert_int_eq(device_file_allocate(device, file, 0, 9 * BLOCK), -ENOSPC);
    ck_assert_int_eq((int)device_file_size(device, file), BLOCK);
    arm(DEVICE_FAULT_NAME, 1, true, -ENOSPC);
    ck_assert_int_eq(device_file_open(device, "b", DEVICE_FILE_CREATE), -ENOSPC);
    ck_assert_int_eq(device_file_rename(device, "a", "b"), -ENOSPC);
    ck_assert_int_eq(device_file_remove(device, "a"), -ENOSPC);
    device_file_close(device, device_file_open(device, "a", 0));
    arm(DEVICE_FAULT_READ, 1, true, -EIO);
    ck_assert(!block_is(queue, file, 0, 1));
    arm(0, 0, false, 0);
    ck_assert(block_is(queue, file, 0, 1));
}
END_TEST

START_TEST(short_transfers_and_eagain_are_carried_on_from)
{
    unsigned char *bytes = blocks_new(64 * BLOCK), *back = blocks_new(64 * BLOCK);
    static const int errors[] = {DEVICE_FAULT_SHORT, -EAGAIN};
    for (unsigned i = 0; i < 2; i++) {
        fill(bytes, 64 * BLOCK, i + 1);
        arm(DEVICE_FAULT_READ | DEVICE_FAULT_WRITE, 1, true, errors[i]);
        ck_assert_int_eq((int)device_transfer(queue, DEVICE_WRITE, file, 0, bytes, 64 * BLOCK), 64 * BLOCK);
        ck_assert_int_eq((int)device_transfer(queue, DEVICE_READ, file, 0, back, 64 * BLOCK), 64 * BLOCK);
        ck_assert_uint_ge(device_fault_hits(device), 2);
        ck_assert_mem_eq(bytes, back, 64 * BLOCK);
    }
    free(bytes);
    free(back);
}
END_TEST

START_TEST(a_disk_that_lies_loses_what_it_said_was_synced)
{
    ck_assert_int_eq(device_sync_names(device), 0);
    device_fault_lie(device, true);
    ck_assert_int_eq((int)block_write(queue, file, 0, 1), BLOCK);
    ck_assert_int_eq(device_file_sync(device, file), 0);
    device_memory_crash(memory);
    device_file_close(device, file);
    file = device_file_open(device, "a", 0);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq((int)device_file_size(device, file), 0);
}
END_TEST

static unsigned ended[32], ended_count;

struct numbered {
    struct device_io io;
    unsigned number;
};

static void note(struct device_io *io)
{
    ended[ended_count++] = ((struct numbered *)(void *)io)->number;
}

START_TEST(transfers_end_in_an_order_that_the_seed_decides)
{
    unsigned orders[2][32];
    unsigned char *bytes = blocks_new(BLOCK);
    for (unsigned round = 0; round < 2; round++) {
        struct numbered ios[32];
        ended_count = 0;
        device_fault_shuffle(device, 7);
        for (unsigned i = 0; i < 32; i++) {
            ios[i] = (struct numbered){{.op = DEVICE_WRITE, .file = file, .buf = bytes, .len = BLOCK, .done = note}, i};
            device_submit(queue, &ios[i].io);
        }
        while (device_queue_pending(queue) > 0)
            ck_assert_uint_gt(device_poll(queue, true), 0);
        memcpy(orders[round], ended, sizeof ended);
    }
    ck_assert_mem_eq(orders[0], orders[1], sizeof orders[0]);
    unsigned moved = 0;
    for (unsigned i = 0; i < 32; i++)
        moved += orders[0][i] != i;
    ck_assert_uint_gt(moved, 8);
    free(bytes);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_nth_call_of_a_class_fails_once_or_from_then_on);
    tcase_add_test(tcase, each_class_fails_by_itself_and_does_nothing_then);
    tcase_add_test(tcase, short_transfers_and_eagain_are_carried_on_from);
    tcase_add_test(tcase, a_disk_that_lies_loses_what_it_said_was_synced);
    tcase_add_test(tcase, transfers_end_in_an_order_that_the_seed_decides);
}

int main(void)
{
    return run("fault", add);
}
