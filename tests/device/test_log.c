// SPDX-License-Identifier: MIT
/* The contract of log.h, on every backend. */
#include "device/backends.h"

#include <device/log.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>

#define SEGMENT (UINT64_C(1) << 20)

static struct device_log *log_open(struct device *device, uint64_t begin)
{
    struct device_log *log;
    ck_assert_int_eq(device_log_open(device, SEGMENT, begin, &log, NULL), 0);
    return log;
}

struct transfer {
    struct device_io io;
    bool done;
};

static void transfer_done(struct device_io *io)
{
    ((struct transfer *)(void *)io)->done = true;
}

static int64_t log_transfer(struct device_log *log, struct device_queue *queue, enum device_op op, uint64_t address,
                            void *buf, uint32_t len)
{
    struct transfer transfer = {.io = {.op = op, .buf = buf, .len = len, .done = transfer_done}};
    device_log_submit(log, queue, &transfer.io, address);
    ck_assert(!transfer.done);
    while (!transfer.done)
        (void)device_poll(queue, true);
    return transfer.io.result;
}

/* A block that tells its address. */
static int64_t log_write(struct device_log *log, struct device_queue *queue, uint64_t address)
{
    unsigned char *bytes = blocks_new(BLOCK);
    fill(bytes, BLOCK, address + 1);
    int64_t ret = log_transfer(log, queue, DEVICE_WRITE, address, bytes, BLOCK);
    free(bytes);
    return ret;
}

static bool log_has(struct device_log *log, struct device_queue *queue, uint64_t address, bool written)
{
    unsigned char *bytes = blocks_new(BLOCK);
    int64_t ret = log_transfer(log, queue, DEVICE_READ, address, bytes, BLOCK);
    bool same = ret == BLOCK && (written ? is_filled(bytes, BLOCK, address + 1) : is_zero(bytes, BLOCK));
    free(bytes);
    return same;
}

static void ignore_done(struct device_io *io)
{
    (void)io;
}

static int count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static int name_count(struct device *device)
{
    int count = 0;
    ck_assert_int_eq(device_list(device, count_name, &count), 0);
    return count;
}

START_TEST(what_is_allocated_can_be_written_read_and_reopened)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 4);
    ck_assert_uint_eq(device_log_allocated(log), 0);
    ck_assert_uint_eq(device_log_disk_bytes(log), 0);
    ck_assert_int_eq(device_log_allocate(log, 0), 0);
    ck_assert_int_eq(device_log_allocate(log, 1), 0);
    ck_assert_uint_eq(device_log_allocated(log), SEGMENT); /* the step: 4 MiB or the segment */
    ck_assert_int_eq(device_log_allocate(log, 5 * SEGMENT + 1), 0);
    ck_assert_uint_eq(device_log_allocated(log), 6 * SEGMENT);
    ck_assert_uint_eq(device_log_disk_bytes(log), 6 * SEGMENT);
    ck_assert_int_eq(name_count(f.device), 6);
    for (uint64_t address = 0; address < 6 * SEGMENT; address += SEGMENT / 2)
        ck_assert_int_eq(log_write(log, queue, address), BLOCK);
    ck_assert_int_eq(device_log_sync(log), 0);
    ck_assert_int_eq(device_log_sync(log), 0);
    ck_assert_int_eq(device_log_allocate(log, (UINT64_C(1) << 48) + 1), -EFBIG);
    for (int i = 0; i < 2; i++) {
        for (uint64_t address = 0; address < 6 * SEGMENT; address += SEGMENT / 4)
            ck_assert(log_has(log, queue, address, address % (SEGMENT / 2) == 0));
        ck_assert_int_eq(log_transfer(log, queue, DEVICE_READ, 6 * SEGMENT, queue, 0), -ENOENT);
        device_log_close(log);
        log = log_open(f.device, 0);
        ck_assert_uint_eq(device_log_allocated(log), 6 * SEGMENT);
    }
    device_log_close(log);
    device_queue_close(queue);
    if (_i < BACKEND_IN_MEMORY) {
        fixture_reopen(&f, true);
        queue = queue_open(f.device, 4);
        log = log_open(f.device, 2 * SEGMENT);
        ck_assert_int_eq(name_count(f.device), 6);
        ck_assert(log_has(log, queue, 5 * SEGMENT, true));
        ck_assert_int_eq(log_write(log, queue, 5 * SEGMENT), -EROFS);
        ck_assert_int_eq(device_log_allocate(log, 7 * SEGMENT), -EROFS);
        ck_assert_int_eq(device_log_truncate(log, 3 * SEGMENT), -EROFS);
        ck_assert_int_eq(device_log_sync(log), 0);
        device_log_close(log);
        device_queue_close(queue);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(a_large_segment_is_promised_in_steps)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log;
    uint64_t step = UINT64_C(4) << 20;
    ck_assert_int_eq(device_log_open(f.device, 4 * step, 0, &log, NULL), 0);
    ck_assert_int_eq(device_log_allocate(log, 1), 0);
    ck_assert_uint_eq(device_log_allocated(log), step);
    ck_assert_int_eq(device_log_allocate(log, 4 * step + 1), 0);
    ck_assert_uint_eq(device_log_allocated(log), 5 * step);
    ck_assert_uint_eq(device_log_disk_bytes(log), 5 * step);
    device_log_close(log);
    ck_assert_int_eq(device_log_open(f.device, 4 * step, 0, &log, NULL), 0);
    ck_assert_uint_eq(device_log_allocated(log), 5 * step);
    device_log_close(log);
    ck_assert_int_eq(device_log_open(f.device, SEGMENT, 0, &log, NULL), -EUCLEAN);
    fixture_close(&f);
}
END_TEST

START_TEST(truncation_gives_files_back_and_their_reads_end_in_enoent)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 4);
    ck_assert_int_eq(device_log_allocate(log, 8 * SEGMENT), 0);
    ck_assert_int_eq(log_write(log, queue, 4 * SEGMENT), BLOCK);
    ck_assert_int_eq(log_write(log, queue, 1 * SEGMENT), BLOCK); /* dirty when its file goes */
    ck_assert_int_eq(device_log_truncate(log, 4 * SEGMENT - 1), 0);
    ck_assert_int_eq(name_count(f.device), 5);
    ck_assert_int_eq(device_log_truncate(log, 4 * SEGMENT + 5), 0);
    ck_assert_int_eq(device_log_truncate(log, 2 * SEGMENT), 0);
    ck_assert_int_eq(name_count(f.device), 4);
    ck_assert_uint_eq(device_log_disk_bytes(log), 4 * SEGMENT);
    unsigned char *bytes = blocks_new(BLOCK);
    ck_assert_int_eq(log_transfer(log, queue, DEVICE_READ, 3 * SEGMENT, bytes, BLOCK), -ENOENT);
    free(bytes);
    ck_assert(log_has(log, queue, 4 * SEGMENT, true));
    ck_assert_int_eq(device_log_sync(log), 0);
    device_log_close(log);
    log = log_open(f.device, 4 * SEGMENT + 5);
    ck_assert(log_has(log, queue, 4 * SEGMENT, true));
    /* All of it, and on from there. */
    ck_assert_int_eq(device_log_truncate(log, 8 * SEGMENT), 0);
    ck_assert_int_eq(name_count(f.device), 0);
    ck_assert_uint_eq(device_log_disk_bytes(log), 0);
    ck_assert_int_eq(device_log_allocate(log, 8 * SEGMENT + 1), 0);
    ck_assert_int_eq(log_write(log, queue, 8 * SEGMENT), BLOCK);
    device_log_close(log);
    /* Left-overs below begin are removed. */
    device_file_close(f.device, file_create(f.device, "log.0000000000000003"));
    device_file_close(f.device, file_create(f.device, "log.0000000000000007"));
    device_file_close(f.device, file_create(f.device, "log.7"));
    log = log_open(f.device, 8 * SEGMENT);
    ck_assert(log_has(log, queue, 8 * SEGMENT, true));
    ck_assert_int_eq(name_count(f.device), 2);
    device_log_close(log);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

/* Depth 1: all but the first wait inside the queue while their segment is removed and its number is free. */
START_TEST(a_segment_that_is_being_read_stays_open_until_the_read_has_ended)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 1), *other = queue_open(f.device, 1);
    ck_assert_int_eq(device_log_allocate(log, 2 * SEGMENT), 0);
    ck_assert_int_eq(log_write(log, queue, 0), BLOCK);
    struct device_io reads[4];
    unsigned char *bytes[4];
    for (int i = 0; i < 4; i++) {
        bytes[i] = blocks_new(BLOCK);
        reads[i] = (struct device_io){.op = DEVICE_READ, .buf = bytes[i], .len = BLOCK, .done = ignore_done};
        device_log_submit(log, queue, &reads[i], 0);
    }
    ck_assert_int_eq(device_log_truncate(log, SEGMENT), 0);
    int file = file_create(f.device, "another");
    ck_assert_int_eq(block_write(other, file, 0, 77), BLOCK);
    while (device_queue_pending(queue) > 0)
        (void)device_poll(queue, true);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(reads[i].result, BLOCK);
        ck_assert(!is_filled(bytes[i], BLOCK, 77));
        free(bytes[i]);
    }
    ck_assert(log_has(log, queue, SEGMENT, false));
    ck_assert_int_eq(log_transfer(log, queue, DEVICE_READ, 0, queue, 0), -ENOENT);
    device_file_close(f.device, file);
    device_queue_close(other);
    device_queue_close(queue);
    device_log_close(log);
    fixture_close(&f);
}
END_TEST

START_TEST(what_is_punched_gives_its_space_back_and_the_rest_stays)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 4);
    struct device_space before, after;
    ck_assert_int_eq(device_log_allocate(log, 4 * SEGMENT), 0);
    for (uint64_t address = 0; address < 4 * SEGMENT; address += BLOCK)
        ck_assert_int_eq(log_write(log, queue, address), BLOCK);
    ck_assert_int_eq(device_space(f.device, &before), 0);
    ck_assert_int_eq(device_log_punch(log, SEGMENT / 2 + 1, 3 * SEGMENT + BLOCK + 1), 0);
    ck_assert_int_eq(device_space(f.device, &after), 0);
    if (_i == BACKEND_MEMORY)
        ck_assert_uint_eq(after.free_bytes - before.free_bytes, 3 * SEGMENT + BLOCK - SEGMENT / 2 - BLOCK);
    for (uint64_t address = 0; address < 4 * SEGMENT; address += BLOCK)
        ck_assert(log_has(log, queue, address, address <= SEGMENT / 2 || address >= 3 * SEGMENT + BLOCK));
    ck_assert_int_eq(device_log_sync(log), 0);
    device_log_close(log);
    log = log_open(f.device, 0);
    ck_assert_uint_eq(device_log_allocated(log), 4 * SEGMENT);
    ck_assert(log_has(log, queue, SEGMENT / 2, true));
    ck_assert(log_has(log, queue, SEGMENT, false));
    device_queue_close(queue);
    device_log_close(log);
    fixture_close(&f);
}
END_TEST

START_TEST(a_missing_segment_is_named)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log = log_open(f.device, 0);
    ck_assert_int_eq(device_log_allocate(log, 14 * SEGMENT), 0);
    device_log_close(log);
    ck_assert_int_eq(device_file_remove(f.device, "log.000000000000000b"), 0);
    uint64_t missing = 0;
    ck_assert_int_eq(device_log_open(f.device, SEGMENT, 0, &log, &missing), -ENOENT);
    ck_assert_uint_eq(missing, 11);
    ck_assert_int_eq(device_log_open(f.device, SEGMENT, 5 * SEGMENT, &log, NULL), -ENOENT);
    ck_assert_int_eq(name_count(f.device), 13); /* failed, and nothing changed */
    ck_assert_int_eq(device_log_open(f.device, SEGMENT, 11 * SEGMENT, &log, &missing), -ENOENT);
    ck_assert_uint_eq(missing, 11);
    ck_assert_int_eq(device_log_open(f.device, SEGMENT, 12 * SEGMENT, &log, &missing), 0);
    ck_assert_uint_eq(device_log_allocated(log), 14 * SEGMENT);
    device_log_close(log);
    fixture_close(&f);
}
END_TEST

/* What every filesystem that is full has to do: `room` bytes at most. */
static void check_enospc(struct device *device, uint64_t room)
{
    struct device_log *log = log_open(device, 0);
    struct device_queue *queue = queue_open(device, 4);
    ck_assert_int_eq(device_log_allocate(log, room + SEGMENT), -ENOSPC);
    uint64_t allocated = device_log_allocated(log);
    ck_assert_uint_ge(allocated, room / 2);
    ck_assert_uint_le(allocated, room);
    for (uint64_t address = 0; address < allocated; address += BLOCK) /* the promise */
        ck_assert_int_eq(log_write(log, queue, address), BLOCK);
    ck_assert_int_eq(device_log_sync(log), 0);
    ck_assert_int_eq(device_log_allocate(log, allocated + SEGMENT), -ENOSPC); /* the step */
    uint64_t all = allocated;
    while (device_log_allocate(log, all + 1) == 0) { /* what there is less of is promised, too */
        ck_assert_uint_gt(device_log_allocated(log), all);
        all = device_log_allocated(log);
    }
    ck_assert_uint_le(all, room);
    device_log_close(log);
    log = log_open(device, 0);
    ck_assert_uint_ge(device_log_allocated(log), all);
    ck_assert(log_has(log, queue, allocated - BLOCK, true));
    ck_assert_int_eq(device_log_truncate(log, 2 * SEGMENT), 0);
    ck_assert_int_eq(device_log_allocate(log, all + SEGMENT), 0);
    ck_assert_int_eq(log_write(log, queue, all), BLOCK);
    device_log_close(log);
    device_queue_close(queue);
}

START_TEST(a_full_memory_device_keeps_what_was_promised)
{
    struct fixture f;
    ck_assert(fixture_open(&f, BACKEND_MEMORY));
    device_memory_limit(f.device, 8 * SEGMENT + SEGMENT / 2);
    check_enospc(f.device, 8 * SEGMENT + SEGMENT / 2);
    fixture_close(&f);
}
END_TEST

START_TEST(a_full_tmpfs_keeps_what_was_promised)
{
    char path[] = "/tmp/fasterfs-tmpfs.XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(path));
    /* In a mount namespace of its own, which ends with this process. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", path, "tmpfs", 0, "size=8m") < 0) {
        fprintf(stderr, "SKIPPED: cannot mount a tmpfs: %s\n", strerror(errno));
        rmdir(path);
        return;
    }
    struct device_options options = {.backend = _i == 0 ? DEVICE_AUTO : DEVICE_THREADS};
    struct device *device;
    ck_assert_int_eq(device_open(path, &options, &device), 0);
    check_enospc(device, 8 << 20);
    device_close(device);
    ck_assert_int_eq(umount(path), 0);
    rmdir(path);
}
END_TEST

/* ---- sync ----------------------------------------------------------------------------------- */

START_TEST(a_sync_makes_writes_lengths_and_names_durable_and_nothing_else_is)
{
    struct fixture f;
    ck_assert(fixture_open(&f, BACKEND_MEMORY));
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 4);
    ck_assert_int_eq(device_log_allocate(log, 3 * SEGMENT), 0);
    ck_assert_int_eq(log_write(log, queue, 0), BLOCK);
    ck_assert_int_eq(device_log_sync(log), 0);
    ck_assert_int_eq(log_write(log, queue, 2 * SEGMENT), BLOCK);
    ck_assert_int_eq(device_log_sync(log), 0);
    ck_assert_int_eq(log_write(log, queue, SEGMENT), BLOCK);
    ck_assert_int_eq(device_log_allocate(log, 6 * SEGMENT), 0);
    device_memory_cut(f.device);
    ck_assert_int_eq(device_log_sync(log), -EIO);
    device_log_close(log);
    device_memory_crash(f.device);
    log = log_open(f.device, 0);
    ck_assert_uint_ge(device_log_allocated(log), 3 * SEGMENT);
    ck_assert(log_has(log, queue, 0, true));
    ck_assert(log_has(log, queue, SEGMENT, false));
    ck_assert(log_has(log, queue, 2 * SEGMENT, true));
    device_log_close(log);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_crash_leaves_no_gap_and_no_short_segment_that_was_synced)
{
    struct fixture f;
    ck_assert(fixture_open(&f, BACKEND_MEMORY));
    struct device_log *log = log_open(f.device, 0);
    ck_assert_int_eq(device_log_allocate(log, 3 * SEGMENT), 0);
    device_log_close(log); /* never synced: all names but the last are there, and no lengths */
    device_memory_crash(f.device);
    ck_assert_int_eq(name_count(f.device), 2);
    log = log_open(f.device, 0);
    ck_assert_uint_eq(device_log_allocated(log), 0);
    ck_assert_int_eq(device_log_allocate(log, 4 * SEGMENT), 0);
    ck_assert_int_eq(device_log_sync(log), 0); /* nothing was written: lengths all the same */
    device_log_close(log);
    device_memory_crash(f.device);
    for (unsigned i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof(name), "log.%016x", i);
        int file = device_file_open(f.device, name, 0);
        ck_assert_int_ge(file, 0);
        ck_assert_int_eq(device_file_size(f.device, file), SEGMENT);
        device_file_close(f.device, file);
    }
    fixture_close(&f);
}
END_TEST

START_TEST(a_write_of_an_earlier_log_is_made_durable_too)
{
    struct fixture f;
    ck_assert(fixture_open(&f, BACKEND_MEMORY));
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 4);
    ck_assert_int_eq(device_log_allocate(log, 2 * SEGMENT), 0);
    ck_assert_int_eq(log_write(log, queue, 0), BLOCK);
    device_log_close(log); /* as if the process had been killed: no sync */
    log = log_open(f.device, 0);
    ck_assert_int_eq(device_log_sync(log), 0);
    device_log_close(log);
    device_memory_crash(f.device);
    log = log_open(f.device, 0);
    ck_assert_uint_eq(device_log_allocated(log), 2 * SEGMENT);
    ck_assert(log_has(log, queue, 0, true));
    device_log_close(log);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_log_whose_sync_failed_never_says_again_that_it_worked)
{
    struct fixture f;
    ck_assert(fixture_open(&f, BACKEND_MEMORY));
    struct device_log *log = log_open(f.device, 0);
    struct device_queue *queue = queue_open(f.device, 4);
    ck_assert_int_eq(device_log_allocate(log, SEGMENT), 0);
    ck_assert_int_eq(device_log_sync(log), 0);
    ck_assert_int_eq(log_write(log, queue, 0), BLOCK);
    device_memory_cut(f.device);
    ck_assert_int_eq(device_log_sync(log), -EIO);
    device_memory_crash(f.device); /* the power is back, the write is not */
    ck_assert_int_eq(device_log_sync(log), -EIO);
    device_log_close(log);
    log = log_open(f.device, 0);
    ck_assert_int_eq(device_log_sync(log), 0);
    device_log_close(log);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_short_segment_in_the_middle_is_filled_up)
{
    struct fixture f;
    if (!fixture_open(&f, _i))
        return;
    struct device_log *log = log_open(f.device, 0);
    ck_assert_int_eq(device_log_allocate(log, 3 * SEGMENT), 0);
    device_log_close(log);
    device_file_close(f.device, device_file_open(f.device, "log.0000000000000001", DEVICE_FILE_TRUNCATE));
    if (_i < BACKEND_IN_MEMORY) {
        fixture_reopen(&f, true);
        log = log_open(f.device, 0);
        ck_assert_uint_eq(device_log_allocated(log), SEGMENT);
        device_log_close(log);
        fixture_reopen(&f, false);
    }
    log = log_open(f.device, 0);
    ck_assert_uint_eq(device_log_allocated(log), 3 * SEGMENT);
    struct device_queue *queue = queue_open(f.device, 1);
    ck_assert(log_has(log, queue, 2 * SEGMENT - BLOCK, false));
    device_log_close(log);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

START_TEST(a_log_ends_before_a_segment_that_was_only_begun)
{
    struct fixture f;
    if (!fixture_open(&f, BACKEND_MEMORY))
        return;
    struct device_log *log = log_open(f.device, 0);
    ck_assert_int_eq(device_log_allocate(log, 3 * SEGMENT), 0);
    device_log_close(log);
    for (int i = 1; i < 3; i++) {
        char name[] = "log.000000000000000.";
        name[19] = (char)('0' + i);
        device_file_close(f.device, device_file_open(f.device, name, DEVICE_FILE_TRUNCATE));
    }
    device_memory_limit(f.device, SEGMENT); /* the short one could not be filled up */
    log = log_open(f.device, 0);
    ck_assert_uint_eq(device_log_allocated(log), SEGMENT);
    device_memory_limit(f.device, 8 * SEGMENT);
    struct device_queue *queue = queue_open(f.device, 1);
    ck_assert_int_eq(device_log_allocate(log, 3 * SEGMENT), 0);
    ck_assert_int_eq(log_write(log, queue, 3 * SEGMENT - BLOCK), BLOCK);
    device_log_close(log);
    device_queue_close(queue);
    fixture_close(&f);
}
END_TEST

/* ---- threads -------------------------------------------------------------------------------- */

#define WRITERS 3
#define WRITES 400
#define STRIDE (16 * BLOCK)

struct shared {
    struct fixture f;
    struct device_log *log;
    _Atomic uint64_t next;             /* address to take next */
    _Atomic uint64_t durable[WRITERS]; /* last address of each whose sync has returned, + 1 */
    _Atomic bool end;
};

struct writer {
    struct shared *shared;
    unsigned number;
    pthread_t thread;
};

/* Allocates, writes and now and then syncs, at addresses of its own. */
static void *writer_run(void *arg)
{
    struct writer *writer = arg;
    struct shared *shared = writer->shared;
    struct device_queue *queue = queue_open(shared->f.device, 8);
    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t address = atomic_fetch_add(&shared->next, STRIDE);
        ck_assert_int_eq(device_log_allocate(shared->log, address + BLOCK), 0);
        ck_assert_int_eq(log_write(shared->log, queue, address), BLOCK);
        if (i % 16 == writer->number) {
            ck_assert_int_eq(device_log_sync(shared->log), 0);
            atomic_store(&shared->durable[writer->number], address + 1);
        }
    }
    device_queue_close(queue);
    return NULL;
}

static void *truncate_run(void *arg)
{
    struct shared *shared = arg;
    while (!atomic_load(&shared->end)) {
        uint64_t lowest = UINT64_MAX;
        for (unsigned i = 0; i < WRITERS; i++) {
            uint64_t durable = atomic_load(&shared->durable[i]);
            lowest = durable < lowest ? durable : lowest;
        }
        /* Well behind whoever is last. */
        ck_assert_int_eq(device_log_truncate(shared->log, lowest > SEGMENT ? lowest - SEGMENT : 0), 0);
        (void)device_log_disk_bytes(shared->log);
        sched_yield();
    }
    return NULL;
}

START_TEST(threads_allocate_write_sync_and_truncate_at_once)
{
    static struct shared shared;
    if (!fixture_open(&shared.f, _i))
        return;
    shared.log = log_open(shared.f.device, 0);
    struct writer writers[WRITERS];
    pthread_t truncater;
    ck_assert_int_eq(pthread_create(&truncater, NULL, truncate_run, &shared), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.shared = &shared, .number = i};
        ck_assert_int_eq(pthread_create(&writers[i].thread, NULL, writer_run, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    atomic_store(&shared.end, true);
    pthread_join(truncater, NULL);
    uint64_t begin = device_log_allocated(shared.log) - device_log_disk_bytes(shared.log);
    uint64_t durable = atomic_load(&shared.durable[0]) - 1;
    device_log_close(shared.log);
    if (_i == BACKEND_MEMORY)
        device_memory_crash(shared.f.device);
    shared.log = log_open(shared.f.device, begin);
    struct device_queue *queue = queue_open(shared.f.device, 1);
    ck_assert_uint_ge(durable, begin);
    ck_assert(log_has(shared.log, queue, durable, true));
    device_queue_close(queue);
    device_log_close(shared.log);
    fixture_close(&shared.f);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_loop_test(tcase, what_is_allocated_can_be_written_read_and_reopened, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_large_segment_is_promised_in_steps, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, truncation_gives_files_back_and_their_reads_end_in_enoent, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_segment_that_is_being_read_stays_open_until_the_read_has_ended, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, what_is_punched_gives_its_space_back_and_the_rest_stays, 0, BACKEND_COUNT);
    tcase_add_loop_test(tcase, a_missing_segment_is_named, 0, BACKEND_COUNT);
    tcase_add_test(tcase, a_full_memory_device_keeps_what_was_promised);
    tcase_add_loop_test(tcase, a_full_tmpfs_keeps_what_was_promised, 0, 2);
    tcase_add_test(tcase, a_sync_makes_writes_lengths_and_names_durable_and_nothing_else_is);
    tcase_add_test(tcase, a_crash_leaves_no_gap_and_no_short_segment_that_was_synced);
    tcase_add_test(tcase, a_write_of_an_earlier_log_is_made_durable_too);
    tcase_add_test(tcase, a_log_whose_sync_failed_never_says_again_that_it_worked);
    tcase_add_loop_test(tcase, a_short_segment_in_the_middle_is_filled_up, 0, BACKEND_COUNT);
    tcase_add_test(tcase, a_log_ends_before_a_segment_that_was_only_begun);
    tcase_add_loop_test(tcase, threads_allocate_write_sync_and_truncate_at_once, 0, BACKEND_COUNT);
}

int main(void)
{
    return run("log", add);
}
