// SPDX-License-Identifier: MIT
/*
 * Opening and closing, sessions, statistics.
 */
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define MEMORY_DEFAULT (UINT64_C(64) << 20)
#define MEMORY_MIN (UINT64_C(1) << 20)
#define SEGMENT_DEFAULT (UINT64_C(64) << 20)
#define LOG_MIN (UINT64_C(256) << 10)
#define INDEX_MIN 1024 /* buckets */
#define FLUSH_DEPTH 16

static bool power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static uint64_t power_of_two_below(uint64_t n)
{
    while (!power_of_two(n))
        n &= n - 1;
    return n;
}

static int check_options(struct store_options *o, char *message, size_t len)
{
    if (o->memory_bytes == 0)
        o->memory_bytes = MEMORY_DEFAULT;
    if (o->segment_bytes == 0)
        o->segment_bytes = SEGMENT_DEFAULT;
    if (o->memory_bytes < MEMORY_MIN) {
        snprintf(message, len, "a memory budget of %llu bytes is too small; give at least 1M",
                 (unsigned long long)o->memory_bytes);
        return -EINVAL;
    }
    /* Five eighths at most for the log, an eighth for the index to start with; the rest is for overflow
     * buckets and the buffers of sessions. */
    if (o->log_bytes == 0)
        o->log_bytes = power_of_two_below(o->memory_bytes / 8 * 5);
    if (o->log_bytes < LOG_MIN || !power_of_two(o->log_bytes) || !power_of_two(o->segment_bytes) ||
        o->segment_bytes < (1u << 20) || o->segment_bytes > (1u << 30)) {
        snprintf(message, len, "log memory must be a power of two from 256K, segments one from 1M to 1G");
        return -EINVAL;
    }
    return 0;
}

static int count_foreign(void *ctx, const char *name)
{
    if (strcmp(name, "superblock.0") != 0 && strcmp(name, "superblock.1") != 0)
        ++*(unsigned *)ctx;
    return 0;
}

/* ---- creating ------------------------------------------------------------------------------------- */

/* The superblock is the first file of a store. So one that is not sound and stands alone is what a crash
 * left of a creation: there is nothing behind it, and `why` (what reading it gave) is passed over. */
static int create(struct store *store, int why, struct store_opened *opened)
{
    struct superblock *sb = &store->superblock;
    unsigned foreign = 0;
    int rc = device_list(store->device, count_foreign, &foreign);

    if (rc < 0 || (foreign > 0 && why != -ENOENT))
        return rc < 0 ? rc : why;
    opened->message[0] = 0;
    if (foreign > 0) {
        snprintf(opened->message, sizeof opened->message,
                 "not empty and not a fasterfs store; name an empty or absent directory");
        return -ENOTEMPTY;
    }
    if (store->options.read_only) {
        snprintf(opened->message, sizeof opened->message,
                 "there is no store yet, and a read-only mount does not make one; mount it read-write first");
        return -EROFS;
    }
    *sb = (struct superblock){.segment_bytes = store->options.segment_bytes,
                              .incarnation_begin = HLOG_FIRST_ADDRESS,
                              .next_image = 1,
                              .next_snapshot = 1,
                              .checkpoint = {.address = HLOG_FIRST_ADDRESS, .begin = HLOG_FIRST_ADDRESS}};
    if (getrandom(&sb->store_id, sizeof sb->store_id, 0) != (ssize_t)sizeof sb->store_id)
        return -errno;
    opened->created = true;
    return 0;
}

/* ---- opening -------------------------------------------------------------------------------------- */

static int remove_unnamed_image(void *ctx, const char *name)
{
    struct store *store = ctx;
    const struct superblock *sb = &store->superblock;
    char kept[DEVICE_NAME_MAX + 1];

    if (strncmp(name, "index.", 6) != 0)
        return 0;
    image_name(kept, sb->checkpoint.image);
    bool keep = strcmp(name, kept) == 0;
    for (uint32_t i = 0; i < sb->snapshot_count && !keep; i++) {
        image_name(kept, sb->snapshots[i].at.image);
        keep = strcmp(name, kept) == 0;
    }
    int rc = keep ? 0 : device_file_remove(store->device, name);
    (void)rc; /* tried again at the next open */
    return 0;
}

static uint64_t lowest_begin(const struct superblock *sb)
{
    uint64_t begin = sb->checkpoint.begin;

    for (uint32_t i = 0; i < sb->snapshot_count; i++)
        if (sb->snapshots[i].at.begin < begin)
            begin = sb->snapshots[i].at.begin;
    return begin;
}

static int open_device_log(struct store *store, struct store_opened *opened)
{
    uint64_t missing = 0;
    int rc = device_log_open(store->device, store->superblock.segment_bytes, lowest_begin(&store->superblock),
                             &store->device_log, &missing);

    if (rc == -ENOENT) {
        snprintf(opened->message, sizeof opened->message,
                 "the segment log.%016llx is missing; restore that file from a backup", (unsigned long long)missing);
        return -EUCLEAN;
    }
    if (rc == 0 && device_log_allocated(store->device_log) < store->superblock.checkpoint.address &&
        store->superblock.checkpoint.image != 0) {
        snprintf(opened->message, sizeof opened->message,
                 "the log ends at %llu, before the last checkpoint at %llu; restore the missing segment files "
                 "from a backup",
                 (unsigned long long)device_log_allocated(store->device_log),
                 (unsigned long long)store->superblock.checkpoint.address);
        return -EUCLEAN;
    }
    return rc;
}

/* A creation that found no room leaves nothing. */
static void take_back(struct store *store)
{
    int rc = device_file_remove(store->device, "superblock.0");

    rc = device_file_remove(store->device, "superblock.1");
    (void)rc; /* what stays is passed over by the next open */
}

/* Takes possession for writing: an incarnation of its own, durable before anything else of the store is
 * written, and space for the log. */
static int take_possession(struct store *store, struct store_opened *opened)
{
    struct superblock *sb = &store->superblock;
    uint64_t tail = store->committed.address;

    sb->incarnation++;
    sb->incarnation_begin = tail;
    int rc = device_log_sync(store->device_log);
    if (rc == 0)
        rc = superblock_write(store->device, sb);
    if (rc == 0)
        rc = device_log_allocate(store->device_log, tail + HLOG_SPACE_FREES + (1u << 20));
    if (rc == -ENOSPC && !opened->created)
        rc = 0; /* a full disk can still be read, and deleted from as far as the reserve goes */
    if (rc < 0 && opened->created)
        take_back(store);
    if (rc == 0)
        rc = device_list(store->device, remove_unnamed_image, store);
    return rc;
}

static int open_log(struct store *store, struct store_opened *opened)
{
    struct superblock *sb = &store->superblock;
    int rc = store->options.read_only ? 0 : take_possession(store, opened);

    if (rc < 0)
        return rc;
    rc = device_queue_open(store->device, FLUSH_DEPTH, &store->flush_queue);
    if (rc < 0)
        return rc;
    rc = hlog_open(&store->log, store->options.log_bytes, sb->segment_bytes, lowest_begin(sb),
                   store->committed.address, sb->store_id, store->epoch, store->device_log, store->flush_queue);
    if (rc < 0)
        return rc;
    store->log_open = true;
    store->log.chain = store->log.chain_before = store->committed.chain;
    /* One number is left out: records beyond the last commit may carry it. */
    atomic_store(&store->version, store->committed.version + 2);
    /* A unit, what it may lose at a boundary, and the newest record with the block that it ends in fit
     * the ring together: so there is room for every unit once all else is evicted. */
    store->limits = (struct store_limits){.value_max = (uint32_t)(store->log.boundary / 4),
                                          .unit_bytes_max = (uint32_t)(store->log.boundary / 8 * 3)};
    return 0;
}

static int open_parts(struct store *store, struct store_opened *opened)
{
    int rc = check_options(&store->options, opened->message, sizeof opened->message);
    if (rc < 0)
        return rc;
    store->index_buckets = power_of_two_below(store->options.memory_bytes / 8 / 64);
    if (store->index_buckets < INDEX_MIN)
        store->index_buckets = INDEX_MIN;
    rc = superblock_read(store->device, &store->superblock, opened->message, sizeof opened->message);
    if (rc == -ENOENT || rc == -EUCLEAN)
        rc = create(store, rc, opened);
    if (rc < 0)
        return rc;
    store->store_id = store->superblock.store_id;
    if ((rc = epoch_open(&store->epoch)) < 0 || (rc = open_device_log(store, opened)) < 0 ||
        (rc = recover(store, opened)) < 0 || (rc = open_log(store, opened)) < 0)
        return rc;
    return store->options.read_only || store->options.no_background ? 0 : store_worker_start(store);
}

static void free_store(struct store *store)
{
    store_worker_stop(store);
    if (store->log_open)
        hlog_close(&store->log);
    if (store->flush_queue)
        device_queue_close(store->flush_queue);
    if (store->index)
        index_close(store->index);
    if (store->device_log)
        device_log_close(store->device_log);
    epoch_close(store->epoch);
    superblock_fini(&store->superblock);
    pthread_cond_destroy(&store->worker_wake);
    pthread_mutex_destroy(&store->worker_lock);
    pthread_cond_destroy(&store->commit_done);
    pthread_mutex_destroy(&store->commit_lock);
    pthread_mutex_destroy(&store->checkpoint_lock);
    free(store);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int store_open(struct device *device, const struct store_options *options, struct store **ret_store,
               struct store_opened *ret_opened)
{
    uint64_t begun = now_us();
    struct store *store = calloc(1, sizeof *store);
    pthread_condattr_t monotonic;

    *ret_opened = (struct store_opened){0};
    if (!store)
        return -ENOMEM;
    store->device = device;
    store->options = *options;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->commit_lock, NULL);
    pthread_cond_init(&store->commit_done, NULL);
    pthread_mutex_init(&store->checkpoint_lock, NULL);
    pthread_mutex_init(&store->worker_lock, NULL);
    pthread_cond_init(&store->worker_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);

    int rc = open_parts(store, ret_opened);
    if (rc < 0) {
        if (!ret_opened->message[0])
            snprintf(ret_opened->message, sizeof ret_opened->message, "%s%s", strerror(-rc),
                     rc == -ENOSPC ? "; a store needs a few MiB to begin with, make room" : "");
        free_store(store);
        return rc;
    }
    ret_opened->elapsed_us = now_us() - begun;
    *ret_store = store;
    return 0;
}

int store_close(struct store *store)
{
    int rc = 0;

    store_worker_stop(store);
    if (!store->options.read_only) {
        rc = store_commit(store);
        if (rc == 0 && store->committed.address != store->superblock.checkpoint.address) {
            int saved = store_checkpoint(store);
            (void)saved; /* the log has everything: without it (disk full, say) the next open takes longer */
        }
    }
    free_store(store);
    return rc;
}

void store_abandon(struct store *store)
{
    free_store(store);
}

struct store_limits store_limits(const struct store *store)
{
    return store->limits;
}

uint64_t store_record_bytes(uint32_t key_len, uint32_t value_len)
{
    return record_bytes(key_len, value_len);
}

/* ---- sessions --------------------------------------------------------------------------------------- */

int store_session_open(struct store *store, struct store_session **ret_session)
{
    struct store_session *s = calloc(1, sizeof *s);
    int rc = s ? 0 : -ENOMEM;

    if (rc == 0) {
        s->store = store;
        s->seed = (uint64_t)(uintptr_t)s;
        rc = epoch_slot_get(store->epoch, &s->slot);
    }
    if (rc == 0)
        rc = device_queue_open(store->device, SESSION_READS, &s->queue);
    for (unsigned i = 0; i < SESSION_READS && rc == 0; i++) {
        struct store_io *sio = &s->ios[i];
        sio->session = s;
        sio->buffer = aligned_alloc(HLOG_BLOCK, READ_BUFFER_BYTES);
        sio->next = s->free_ios;
        s->free_ios = sio;
        rc = sio->buffer ? 0 : -ENOMEM;
    }
    if (rc < 0) {
        store_session_close(s);
        return rc;
    }
    *ret_session = s;
    return 0;
}

void store_session_close(struct store_session *s)
{
    if (!s)
        return;
    assert(s->pending == 0 && !s->unit_open);
    for (unsigned i = 0; i < SESSION_READS; i++)
        free(s->ios[i].buffer);
    if (s->queue)
        device_queue_close(s->queue);
    if (s->slot)
        epoch_slot_put(s->slot);
    free(s->changes);
    free(s->keys);
    free(s);
}

/* ---- statistics ----------------------------------------------------------------------------------- */

void store_stats(struct store *store, struct store_stats *ret)
{
    struct hlog *log = &store->log;
    struct index_counts index;
    struct device_space space = {0, 0};

    index_count(store->index, &index);
    if (device_space(store->device, &space) < 0)
        space = (struct device_space){0, 0};
    pthread_mutex_lock(&store->commit_lock);
    uint64_t committed = store->committed.address;
    pthread_mutex_unlock(&store->commit_lock);
    *ret = (struct store_stats){.begin = atomic_load(&log->begin),
                                .head = atomic_load(&log->head),
                                .read_only = atomic_load(&log->ro),
                                .tail = atomic_load(&log->tail),
                                .flushed = atomic_load(&log->flushed),
                                .committed = committed,
                                .commits = atomic_load(&store->commits),
                                .checkpoints = atomic_load(&store->checkpoints),
                                .disk_bytes = device_log_disk_bytes(store->device_log),
                                .index_buckets = index.buckets,
                                .index_overflow_buckets = index.overflow_buckets,
                                .reads_memory = atomic_load(&store->reads_memory),
                                .reads_device = atomic_load(&store->reads_device),
                                .bytes_written = atomic_load(&log->bytes_written),
                                .space_total_bytes = space.total_bytes,
                                .space_free_bytes = space.free_bytes,
                                .failed = atomic_load(&log->failed)};
    ret->bytes_appended = ret->tail - ret->begin;
    uint64_t frames = ret->tail - HLOG_FIRST_ADDRESS < log->size ? ret->tail - HLOG_FIRST_ADDRESS : log->size;
    ret->memory_bytes = frames + index.memory_bytes;
}
