// SPDX-License-Identifier: MIT
/* The contract of device.h, on every backend. */
#include "device/backends.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

START_TEST(what_was_written_is_read_back)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 8);
    int file = file_create(f.device, "a");
    uint32_t len = 32u << 20;
    unsigned char *bytes = blocks_new(len);
    fill(bytes, len, 7);
    ck_assert_int_eq(device_transfer(queue, DEVICE_WRITE, file, 3 * BLOCK, bytes, len), len);
    memset(bytes, 0, len);
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 3 * BLOCK, bytes, len), len);
    ck_assert(is_filled(bytes, len, 7));
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 0, bytes, 3 * BLOCK), 3 * BLOCK);
    ck_assert(is_zero(bytes, 3 * BLOCK));
    ck_assert_int_eq(device_file_size(f.device, file), len + 3 * BLOCK);
    ck_assert_int_eq(device_file_sync(f.device, file), 0);
    free(bytes);
    device_file_close(f.device, file);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_read_ends_where_the_file_ends)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 1);
    int file = file_create(f.device, "a");
    unsigned char *bytes = blocks_new(8 * BLOCK);
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 0, bytes, BLOCK), 0);
    ck_assert_int_eq(block_write(queue, file, 0, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, file, BLOCK, 2), BLOCK);
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, BLOCK, bytes, 8 * BLOCK), BLOCK);
    ck_assert(is_filled(bytes, BLOCK, 2));
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 2 * BLOCK, bytes, BLOCK), 0);
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 100 * BLOCK, bytes, BLOCK), 0);
    /* An end inside a block. */
    ck_assert_int_eq(device_file_allocate(f.device, file, 2 * BLOCK, 5000), 0);
    ck_assert_int_eq(device_file_size(f.device, file), 2 * BLOCK + 5000);
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 0, bytes, 8 * BLOCK), 2 * BLOCK + 5000);
    ck_assert(is_filled(bytes, BLOCK, 1));
    ck_assert(is_zero(bytes + 2 * BLOCK, 5000));
    ck_assert_int_eq(device_transfer(queue, DEVICE_READ, file, 3 * BLOCK, bytes, BLOCK), 5000 - BLOCK);
    free(bytes);
    device_file_close(f.device, file);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

/* ---- many in flight ------------------------------------------------------------------------- */

#define MANY 1000

struct many {
    struct device_io io;
    struct device_queue *queue;
    unsigned *done, *inside;
    uint64_t seed;
};

static void many_read(struct device_io *io)
{
    struct many *many = (struct many *)(void *)io;
    ck_assert_int_eq(io->result, BLOCK);
    ck_assert(is_filled(io->buf, BLOCK, many->seed));
    ++*many->done;
}

/* Written: reads the same back, submitted from inside `done`. */
static void many_written(struct device_io *io)
{
    struct many *many = (struct many *)(void *)io;
    ck_assert_int_eq(io->result, BLOCK);
    ck_assert_uint_eq(*many->inside, 1);
    memset(io->buf, 0, BLOCK);
    io->op = DEVICE_READ;
    io->done = many_read;
    device_submit(many->queue, io);
}

static void many_run(struct device_queue *queue, int file, uint64_t offset, uint64_t seed)
{
    struct many *all = calloc(MANY, sizeof(*all));
    unsigned char *bytes = blocks_new((size_t)MANY * BLOCK);
    unsigned done = 0, inside = 0;
    for (unsigned i = 0; i < MANY; i++) {
        all[i] = (struct many){.queue = queue, .done = &done, .inside = &inside, .seed = seed + i};
        all[i].io = (struct device_io){.op = DEVICE_WRITE,
                                       .file = file,
                                       .offset = offset + (uint64_t)i * BLOCK,
                                       .buf = bytes + (size_t)i * BLOCK,
                                       .len = BLOCK,
                                       .done = many_written};
        fill(all[i].io.buf, BLOCK, seed + i);
        device_submit(queue, &all[i].io);
    }
    ck_assert_uint_eq(device_queue_pending(queue), MANY);
    unsigned called = 0;
    while (device_queue_pending(queue) > 0) {
        inside = 1;
        unsigned count = device_poll(queue, true);
        inside = 0;
        ck_assert_uint_gt(count, 0);
        called += count;
    }
    ck_assert_uint_eq(called, 2 * MANY);
    ck_assert_uint_eq(done, MANY);
    ck_assert_uint_eq(device_poll(queue, true), 0); /* nothing in flight: does not sleep */
    free(bytes);
    free(all);
}

START_TEST(more_than_the_depth_can_be_submitted)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    int file = file_create(f.device, "a");
    unsigned depths[] = {1, 3, 64, 4096};
    for (unsigned i = 0; i < 4; i++) {
        struct device_queue *queue = queue_open(f.device, depths[i]);
        many_run(queue, file, 0, 1000 * i + 1);
        device_queue_close(queue);
    }
    device_file_close(f.device, file);
    fixture_close(&f);
}
END_TEST

/* ---- threads -------------------------------------------------------------------------------- */

struct worker {
    struct fixture *f;
    int file;
    unsigned number;
    pthread_t thread;
};

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    struct device_queue *queue = queue_open(worker->f->device, 16);
    for (unsigned round = 0; round < 3; round++)
        many_run(queue, worker->file, (uint64_t)worker->number * MANY * BLOCK, worker->number * 7777 + round + 1);
    device_queue_close(queue);
    return NULL;
}

START_TEST(two_queues_work_in_two_threads)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    int file = file_create(f.device, "a");
    struct worker workers[2];
    for (unsigned i = 0; i < 2; i++) {
        workers[i] = (struct worker){.f = &f, .file = file, .number = i};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(workers[i].thread, NULL);
    device_file_close(f.device, file);
    fixture_close(&f);
}
END_TEST

static void *opener_run(void *arg)
{
    struct worker *worker = arg;
    struct device *device = worker->f->device;
    for (unsigned i = 0; i < 200; i++) {
        char name[32], other[32];
        snprintf(name, sizeof(name), "t%u.%u", worker->number, i);
        snprintf(other, sizeof(other), "u%u.%u", worker->number, i);
        int file = file_create(device, name);
        ck_assert_int_eq(device_file_allocate(device, file, 0, BLOCK), 0);
        ck_assert_int_eq(device_file_size(device, file), BLOCK);
        device_file_close(device, file);
        ck_assert_int_eq(device_file_rename(device, name, other), 0);
        ck_assert_int_eq(device_file_remove(device, other), 0);
    }
    return NULL;
}

START_TEST(files_come_and_go_in_threads_while_io_runs)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    int file = file_create(f.device, "a");
    struct worker workers[4];
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){.f = &f, .file = file, .number = i};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, i < 2 ? worker_run : opener_run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(workers[i].thread, NULL);
    device_file_close(f.device, file);
    fixture_close(&f);
}
END_TEST

struct handover {
    struct device_queue *queue;
    struct device_io io[64];
    unsigned done;
};

static struct handover handover;

static void handover_done(struct device_io *io)
{
    ck_assert_int_eq(io->result, 64 * BLOCK);
    handover.done++;
}

static void *handover_submit(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 64; i++)
        device_submit(handover.queue, &handover.io[i]);
    return NULL; /* with transfers in flight */
}

START_TEST(a_queue_can_be_handed_over_by_a_thread_that_ends)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    int file = file_create(f.device, "a");
    unsigned char *bytes = blocks_new(64 * BLOCK);
    handover.queue = queue_open(f.device, 16);
    for (unsigned i = 0; i < 64; i++)
        handover.io[i] = (struct device_io){.op = DEVICE_WRITE,
                                            .file = file,
                                            .offset = i * 64ull * BLOCK,
                                            .buf = bytes,
                                            .len = 64 * BLOCK,
                                            .done = handover_done};
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, handover_submit, NULL), 0);
    pthread_join(thread, NULL);
    while (device_queue_pending(handover.queue) > 0)
        (void)device_poll(handover.queue, true);
    ck_assert_uint_eq(handover.done, 64);
    device_queue_close(handover.queue);
    free(bytes);
    device_file_close(f.device, file);
    fixture_close(&f);
}
END_TEST

/* ---- files and names ------------------------------------------------------------------------ */

START_TEST(allocation_extends_with_zeros_and_never_shortens)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 1);
    int file = file_create(f.device, "a");
    ck_assert_int_eq(block_write(queue, file, 0, 5), BLOCK);
    ck_assert_int_eq(device_file_allocate(f.device, file, 0, 1 << 20), 0);
    ck_assert_int_eq(device_file_size(f.device, file), 1 << 20);
    ck_assert_int_eq(device_file_allocate(f.device, file, 0, BLOCK), 0);
    ck_assert_int_eq(device_file_size(f.device, file), 1 << 20);
    ck_assert(block_is(queue, file, 0, 5));
    ck_assert(block_is(queue, file, (1 << 20) - BLOCK, 0));
    ck_assert_int_eq(device_file_allocate(f.device, file, UINT64_MAX - 5, 5), -EFBIG);
    device_file_close(f.device, file);
    file = device_file_open(f.device, "a", DEVICE_FILE_TRUNCATE);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(device_file_size(f.device, file), 0);
    device_file_close(f.device, file);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

static int count_each(void *ctx, const char *name)
{
    char *names = ctx;
    strcat(names, name);
    strcat(names, " ");
    return 0;
}

static int stop_at_first(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 42;
}

START_TEST(names_are_made_replaced_removed_and_listed)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 1);
    ck_assert_int_eq(device_file_open(f.device, "a", 0), -ENOENT);
    ck_assert_int_eq(device_file_remove(f.device, "a"), -ENOENT);
    ck_assert_int_eq(device_file_rename(f.device, "a", "b"), -ENOENT);
    int a = file_create(f.device, "a"), b = file_create(f.device, "b");
    ck_assert_int_ge(a, f.path[0] != 0 ? 3 : 0);
    ck_assert_int_eq(block_write(queue, a, 0, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, b, 0, 2), BLOCK);
    int calls = 0;
    ck_assert_int_eq(device_list(f.device, stop_at_first, &calls), 42);
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(device_file_rename(f.device, "a", "b"), 0);
    ck_assert_int_eq(device_file_rename(f.device, "b", "b"), 0);
    ck_assert_int_eq(device_sync_names(f.device), 0);
    char names[256] = "";
    ck_assert_int_eq(device_list(f.device, count_each, names), 0);
    ck_assert_str_eq(names, "b ");
    ck_assert(block_is(queue, b, 0, 2)); /* replaced, open yet */
    device_file_close(f.device, a);
    device_file_close(f.device, b);
    b = device_file_open(f.device, "b", 0);
    ck_assert(block_is(queue, b, 0, 1));
    device_file_close(f.device, b);

    char name[DEVICE_NAME_MAX + 2];
    memset(name, 'x', sizeof(name));
    name[DEVICE_NAME_MAX + 1] = 0;
    ck_assert_int_eq(device_file_open(f.device, name, DEVICE_FILE_CREATE), -EINVAL);
    ck_assert_int_eq(device_file_open(f.device, "../a", DEVICE_FILE_CREATE), -EINVAL);
    ck_assert_int_eq(device_file_open(f.device, "", DEVICE_FILE_CREATE), -EINVAL);
    ck_assert_int_eq(device_file_remove(f.device, ".."), -EINVAL);
    name[DEVICE_NAME_MAX] = 0;
    device_file_close(f.device, file_create(f.device, name));
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_cached_file_gives_any_bytes_or_all_is_an_error)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 1);
    int file = file_create(f.device, "a");
    unsigned char bytes[3 * BLOCK];
    ck_assert_int_eq(block_write(queue, file, 0, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, file, BLOCK, 2), BLOCK);
    int cached = device_file_open(f.device, "a", DEVICE_FILE_CACHED);
    ck_assert_int_ge(cached, 0);
    ck_assert_int_eq(device_file_size(f.device, cached), 2 * BLOCK);
    unsigned char whole[2 * BLOCK];
    ck_assert_int_eq(device_file_read(f.device, cached, 0, whole, sizeof whole), 0);
    ck_assert(is_filled(whole, BLOCK, 1) && is_filled(whole + BLOCK, BLOCK, 2));
    for (uint32_t at = 1; at < 2 * BLOCK; at += 997) {
        ck_assert_int_eq(device_file_read(f.device, cached, at, bytes, 2 * BLOCK - at), 0);
        ck_assert_mem_eq(bytes, whole + at, 2 * BLOCK - at);
        ck_assert_int_eq(device_file_read(f.device, cached, at, bytes, 1), 0);
        ck_assert_uint_eq(bytes[0], whole[at]);
        ck_assert_int_eq(device_file_read(f.device, cached, at, bytes, 2 * BLOCK - at + 1), -EIO);
    }
    ck_assert_int_eq(device_file_read(f.device, cached, 9 * BLOCK, bytes, 1), -EIO);
    ck_assert_int_eq(block_write(queue, file, 0, 3), BLOCK); /* what is written beside it is seen */
    ck_assert_int_eq(device_file_read(f.device, cached, 0, bytes, BLOCK), 0);
    ck_assert(is_filled(bytes, BLOCK, 3));
    device_file_close(f.device, cached);
    device_file_close(f.device, file);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_map_shows_the_whole_file)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 1);
    int file = file_create(f.device, "a");
    const void *bytes;
    uint64_t len;
    ck_assert_int_eq(device_map(f.device, file, &bytes, &len), 0);
    ck_assert_uint_eq(len, 0);
    device_unmap(f.device, bytes, len);
    ck_assert_int_eq(block_write(queue, file, 0, 1), BLOCK);
    ck_assert_int_eq(block_write(queue, file, 5 * BLOCK, 2), BLOCK);
    ck_assert_int_eq(device_map(f.device, file, &bytes, &len), 0);
    device_file_close(f.device, file); /* the map outlives it */
    ck_assert_uint_eq(len, 6 * BLOCK);
    ck_assert_uint_eq((uintptr_t)bytes % BLOCK, 0);
    ck_assert(is_filled(bytes, BLOCK, 1));
    ck_assert(is_zero((const unsigned char *)bytes + BLOCK, 4 * BLOCK));
    ck_assert(is_filled((const unsigned char *)bytes + 5 * BLOCK, BLOCK, 2));
    device_unmap(f.device, bytes, len);
    struct device_space space;
    ck_assert_int_eq(device_space(f.device, &space), 0);
    ck_assert_uint_ge(space.total_bytes, space.free_bytes);
    ck_assert_uint_gt(space.free_bytes, 0);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_read_only_device_changes_nothing)
{
    struct fixture f;
    if (_i >= BACKEND_IN_MEMORY || !fixture_open(&f, _i))
        return;
    struct device_queue *queue = queue_open(f.device, 1);
    int file = file_create(f.device, "a");
    ck_assert_int_eq(block_write(queue, file, 0, 1), BLOCK);
    device_file_close(f.device, file);
    device_queue_close(queue);
    fixture_reopen(&f, true);
    queue = queue_open(f.device, 1);
    ck_assert_int_eq(device_file_open(f.device, "b", DEVICE_FILE_CREATE), -EROFS);
    ck_assert_int_eq(device_file_open(f.device, "a", DEVICE_FILE_TRUNCATE), -EROFS);
    ck_assert_int_eq(device_file_rename(f.device, "a", "b"), -EROFS);
    ck_assert_int_eq(device_file_remove(f.device, "a"), -EROFS);
    file = device_file_open(f.device, "a", 0);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(device_file_allocate(f.device, file, 0, 1 << 20), -EROFS);
    ck_assert_int_eq(block_write(queue, file, 0, 2), -EROFS);
    ck_assert(block_is(queue, file, 0, 1));
    device_file_close(f.device, file);
    unsigned char byte = 0;
    file = device_file_open(f.device, "a", DEVICE_FILE_CACHED);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(device_file_read(f.device, file, 5, &byte, 1), 0);
    ck_assert_uint_ne(byte, 0);
    device_file_close(f.device, file);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(the_limit_of_open_files_is_raised)
{
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_uint_ge(limit.rlim_max, 512);
    limit.rlim_cur = 64;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    int files[400];
    for (int i = 0; i < 400; i++) {
        char name[32];
        snprintf(name, sizeof(name), "f%d", i);
        files[i] = file_create(f.device, name);
    }
    for (int i = 0; i < 400; i++)
        device_file_close(f.device, files[i]);
    fixture_close(&f);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_loop_test(tcase, what_was_written_is_read_back, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_read_ends_where_the_file_ends, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, more_than_the_depth_can_be_submitted, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, two_queues_work_in_two_threads, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, files_come_and_go_in_threads_while_io_runs, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_queue_can_be_handed_over_by_a_thread_that_ends, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, allocation_extends_with_zeros_and_never_shortens, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, names_are_made_replaced_removed_and_listed, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_cached_file_gives_any_bytes_or_all_is_an_error, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_map_shows_the_whole_file, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_read_only_device_changes_nothing, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, the_limit_of_open_files_is_raised, 0, BACKEND_COUNT);
}

int main(void)
{
    return run("device", add);
}
