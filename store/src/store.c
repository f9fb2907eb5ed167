// SPDX-License-Identifier: MIT
/*
 * Opening and closing, sessions, statistics.
 */
#include "private.h"
#include "salvage.h"

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
#define CACHE_MIN (UINT64_C(64) << 10)
#define WINDOWS_PART 64 /* of the budget is for windows: 16 of them in 64 MiB */

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

/* Takes the cold level's part of the budget out of it. */
static int divide_memory(struct store *store, char *message, size_t len)
{
    struct store_options *o = &store->options;

    store->explicit_log = o->log_bytes != 0;
    if (!o->cold)
        return 0;
    if (o->memory_bytes == 0)
        o->memory_bytes = MEMORY_DEFAULT;
    store->cold_bytes = o->memory_bytes / 8 < MEMORY_MIN ? MEMORY_MIN : o->memory_bytes / 8;
    if (o->memory_bytes < 2 * MEMORY_MIN) {
        snprintf(message, len, "a memory budget of %llu bytes is too small with a cold level; give at least 2M",
                 (unsigned long long)o->memory_bytes);
        return -EINVAL;
    }
    o->memory_bytes -= store->cold_bytes;
    return 0;
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
    if (o->space_percent == 0)
        o->space_percent = 200;
    if (o->compaction_threads == 0)
        o->compaction_threads = 1;
    if (o->space_percent < 110 || o->compaction_threads > SPACE_THREADS_MAX) {
        snprintf(message, len, "space_percent must be 110 or more, and compaction threads %u or fewer",
                 SPACE_THREADS_MAX);
        return -EINVAL;
    }
    /* Five eighths at most for the log, an eighth for the index to start with, an eighth for the buffers of sessions
     * (an eighth of that for windows); the rest for the read cache. Where the index needs more, log and cache get less
     * (store_balance()). */
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
    if (strcmp(name, "superblock.0") != 0 && strcmp(name, "superblock.1") != 0 && strcmp(name, "cold") != 0)
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
    if (store->cold_id != 0) {
        snprintf(opened->message, sizeof opened->message, "it is missing; name the directory where it is");
        return -EUCLEAN;
    }
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
                              .index_bits = (uint32_t)__builtin_ctzll(store->index_buckets) + INDEX_KNOWN_MAX,
                              .incarnation_begin = HLOG_FIRST_ADDRESS,
                              .next_image = 1,
                              .next_snapshot = 1,
                              .is_cold_level = store->is_cold_level,
                              .checkpoint = {.end.address = HLOG_FIRST_ADDRESS, .begin.address = HLOG_FIRST_ADDRESS}};
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

static int open_device_log(struct store *store, struct store_opened *opened)
{
    uint64_t missing = 0;
    int rc = device_log_open(store->device, store->superblock.segment_bytes, superblock_begin(&store->superblock),
                             &store->device_log, &missing);

    if (rc == -ENOENT) {
        snprintf(opened->message, sizeof opened->message,
                 "the segment log.%016llx is missing; restore that file from a backup", (unsigned long long)missing);
        return -EUCLEAN;
    }
    uint64_t reach = superblock_reach(&store->superblock);
    if (rc == 0 && device_log_allocated(store->device_log) < reach && reach > HLOG_FIRST_ADDRESS && !store->salvage) {
        snprintf(opened->message, sizeof opened->message,
                 "the log ends at %llu, and was on disk up to %llu; restore the missing segment files from a backup",
                 (unsigned long long)device_log_allocated(store->device_log), (unsigned long long)reach);
        return -EUCLEAN;
    }
    return rc;
}

/* A creation that found no room leaves nothing. The superblocks go last, and segments from the end: what a crash leaves
 * of this is a store, or an empty directory. */
static void take_back(struct store *store)
{
    uint64_t segments = (HLOG_FIRST_ADDRESS + HLOG_LEFT_MIN + (1u << 20)) / store->superblock.segment_bytes + 1;
    char name[DEVICE_NAME_MAX + 1];
    int rc = 0;

    while (segments-- > 0) {
        snprintf(name, sizeof name, "log.%016llx", (unsigned long long)segments);
        rc = device_file_remove(store->device, name);
    }
    rc = device_file_remove(store->device, "superblock.0");
    rc = device_file_remove(store->device, "superblock.1");
    (void)rc; /* what stays is tried again, or passed over, by the next open */
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
    if (rc == 0 && !opened->created)
        rc = superblock_sync(store->device, sb);
    if (rc == 0)
        rc = superblock_write(store->device, sb);
    bool possessed = rc == 0;
    if (rc == 0)
        rc = device_log_allocate(store->device_log, tail + HLOG_LEFT_MIN + (1u << 20));
    if (device_is_full(rc) && possessed && !opened->created)
        rc = 0; /* a full disk can still be read, and deleted from as far as the reserve goes */
    if (rc < 0 && opened->created)
        take_back(store);
    if (rc == 0)
        rc = device_list(store->device, remove_unnamed_image, store);
    if (rc == 0)
        compact_release(store); /* what a crash kept from being given back */
    return rc;
}

/* At most three quarters of the ring: the free part and what is being written need their place. */
static uint64_t mutable_bytes(const struct store *store)
{
    uint64_t most = store->options.log_bytes / 4 * 3, wanted = store->options.uncommitted_bytes;

    return wanted > 0 && wanted < most ? wanted : most;
}

/* What an index of `index_bytes` leaves of the budget, less an eighth for sessions. */
static uint64_t budget_left(const struct store *store, uint64_t index_bytes)
{
    uint64_t left = store->options.memory_bytes / 8 * 7;

    return left > index_bytes ? left - index_bytes : 0;
}

static uint64_t cache_size(const struct store *store)
{
    const struct store_options *o = &store->options;
    uint64_t left = budget_left(store, store->index_buckets * 64);

    return o->no_read_cache || left < o->log_bytes + CACHE_MIN ? 0 : power_of_two_below(left - o->log_bytes);
}

void store_balance(struct store *store)
{
    uint64_t left = budget_left(store, index_bytes(store->index)), log_bytes = store->options.log_bytes;
    uint64_t log_part = store->cache.size == 0 || left >= log_bytes + store->cache.size ? left : left / 3 * 2;

    hlog_limit(&store->log, log_part);
    log_part = atomic_load_explicit(&store->log.limit, memory_order_relaxed); /* ours: flush_lock is held */
    cache_limit(&store->cache, left > log_part ? left - log_part : 0);
}

/* Log memory that the largest value in the log needs to be moved, whatever the budget: four times as much. */
static uint64_t least_log_bytes(const struct store *store)
{
    uint64_t least = LOG_MIN;

    while (least / 4 < store->superblock.largest)
        least *= 2;
    return least;
}

static int open_log(struct store *store, struct store_opened *opened)
{
    struct superblock *sb = &store->superblock;
    uint64_t least = least_log_bytes(store);
    int rc = store->options.read_only ? 0 : take_possession(store, opened);

    if (rc < 0)
        return rc;
    rc = device_queue_open(store->device, FLUSH_DEPTH, &store->flush_queue);
    if (rc < 0)
        return rc;
    if (store->options.log_bytes < least)
        store->options.log_bytes = least;
    rc = hlog_open(&store->log, store->options.log_bytes, least, mutable_bytes(store), sb->segment_bytes,
                   store->begin_at.address, store->committed.address, sb->store_id, store->epoch, store->device_log,
                   store->flush_queue);
    if (rc < 0)
        return rc;
    store->log_open = true;
    store->log.largest = sb->largest;
    rc = cache_open(&store->cache, cache_size(store), store->epoch);
    if (rc < 0 || (rc = windows_open(&store->windows, store->options.memory_bytes / WINDOWS_PART)) < 0)
        return rc;
    store->log.chain = store->log.chain_before = store->committed.chain;
    /* One number is left out: records beyond the last commit may carry it. */
    atomic_store(&store->version, store->committed.version + 2);
    /* A unit, what it may lose at a boundary, and the newest record with the block that it ends in fit
     * the ring together: so there is room for every unit once all else is evicted. */
    store->limits = (struct store_limits){.value_max = (uint32_t)(store->log.boundary / 4),
                                          .unit_bytes_max = (uint32_t)(store->log.boundary / 8 * 3)};
    return 0;
}

static void tell_copies(struct salvage *salvage, const struct superblock_copies *copies)
{
    static const char *const what[2][2] = {{"superblock.0 is damaged or missing", "superblock.0 is out of date"},
                                           {"superblock.1 is damaged or missing", "superblock.1 is out of date"}};

    for (int i = 0; i < 2; i++)
        if (copies->rc[i] < 0)
            salvage_tell(salvage, &(struct store_damage){.kind = STORE_DAMAGE_SUPERBLOCK,
                                                         .what = what[i][copies->rc[i] == -ESTALE]});
}

/* Is it opened as what it is? */
static int check_level(const struct store *store, struct store_opened *opened)
{
    const struct superblock *sb = &store->superblock;

    if (sb->is_cold_level == store->is_cold_level && store->cold_id != 0 && store->cold_id != sb->store_id) {
        snprintf(opened->message, sizeof opened->message,
                 "the cold level of another store; name the one of this store");
        return -EINVAL;
    }
    if (sb->is_cold_level == store->is_cold_level)
        return 0;
    snprintf(opened->message, sizeof opened->message, "%s",
             store->is_cold_level ? "not the cold level of a store, but a store of its own; name another directory"
                                  : "the cold level of another store; open that one");
    return -EINVAL;
}

/* One that no store knows yet must have nothing in it. */
static int check_empty(const struct store *store, struct store_opened *opened)
{
    if (!store->is_cold_level || store->cold_id != 0 || store->committed.address == HLOG_FIRST_ADDRESS)
        return 0;
    snprintf(opened->message, sizeof opened->message,
             "the cold level of another store; name an empty or absent directory");
    return -EINVAL;
}

/* The options of the cold level: an eighth of the budget, and what goes for the store goes for it. */
static struct store_options cold_options(const struct store *store)
{
    struct store_options o = store->options;

    o.cold = NULL;
    o.memory_bytes = store->cold_bytes;
    o.commit_interval_ms = 0; /* compaction commits it */
    o.uncommitted_bytes = 0;
    if (store->explicit_log)
        o.log_bytes = o.log_bytes < o.memory_bytes / 2 ? o.log_bytes : power_of_two_below(o.memory_bytes / 2);
    else
        o.log_bytes = 0;
    return o;
}

static int open_cold(struct store *store, struct store_opened *opened)
{
    struct superblock *sb = &store->superblock;
    struct store_opened cold;
    struct store *level;

    if (!store->options.cold && sb->cold_id != 0) {
        snprintf(opened->message, sizeof opened->message, "the store has a cold level, and it was not named");
        return -EINVAL;
    }
    if (!store->options.cold || (store->options.read_only && sb->cold_id == 0))
        return 0;
    if (store->salvage && !store->options.read_only) {
        snprintf(
            opened->message, sizeof opened->message,
            "a store with a cold level cannot be repaired; copy what can be read from a read-only mount, or restore "
            "the store from a backup");
        return -EOPNOTSUPP;
    }
    const struct store_options options = cold_options(store);
    int rc = store_open_cold_level(store->options.cold, &options, sb->cold_id, &level, &cold);
    if (rc < 0) {
        snprintf(opened->message, sizeof opened->message, "cold level: %.400s", cold.message);
        return rc;
    }
    sb->cold_id = level->store_id;
    store->cold = level->chunks;
    return store->options.read_only ? 0 : snapshot_drop_orphans(store, level);
}

static int open_parts(struct store *store, struct store_opened *opened)
{
    int rc = divide_memory(store, opened->message, sizeof opened->message);
    if (rc == 0)
        rc = check_options(&store->options, opened->message, sizeof opened->message);
    if (rc < 0)
        return rc;
    store->index_buckets = power_of_two_below(store->options.memory_bytes / 8 / 64);
    if (store->index_buckets < INDEX_MIN)
        store->index_buckets = INDEX_MIN;
    struct superblock_copies copies;
    rc = superblock_read(store->device, &store->superblock, &copies, opened->message, sizeof opened->message);
    if ((rc == -ENOENT || rc == -EUCLEAN) && !store->options.salvage)
        rc = create(store, rc, opened);
    if (rc == 0 && store->options.salvage && (rc = salvage_open(store)) == 0)
        tell_copies(store->salvage, &copies);
    if (rc < 0)
        return rc;
    store->store_id = store->superblock.store_id;
    if ((rc = check_level(store, opened)) < 0)
        return rc;
    if ((rc = epoch_open(&store->epoch)) < 0 || (rc = open_device_log(store, opened)) < 0 ||
        (rc = recover(store, opened)) < 0 || (rc = check_empty(store, opened)) < 0 ||
        (rc = open_cold(store, opened)) < 0)
        return rc;
    if (store->salvage && ((rc = salvage_snapshots(store->salvage)) < 0 || (rc = store->salvage->refused) < 0))
        return rc;
    if ((rc = open_log(store, opened)) < 0)
        return rc;
    if (store->salvage && !store->options.read_only)
        rc = salvage_repair(store->salvage);
    if (rc == -E2BIG)
        snprintf(opened->message, sizeof opened->message,
                 "more than %u places of the log are damaged, too many to be remembered; copy what can be read from a "
                 "read-only mount, or restore the store from a backup",
                 SUPERBLOCK_HOLES_MAX);
    if (rc == 0 && store->is_cold_level && (rc = cold_open(store, &store->chunks)) == -EUCLEAN)
        snprintf(opened->message, sizeof opened->message,
                 "the state of the cold level is damaged; restore the store from a backup");
    if (rc < 0)
        return rc;
    if (store->options.read_only || store->options.no_background)
        return 0;
    rc = store_worker_start(store);
    return rc < 0 ? rc : space_start(store);
}

static void stop_background(struct store *store)
{
    space_stop(store);
    store_worker_stop(store);
}

static void free_store(struct store *store)
{
    struct store *level = store->cold ? store->cold->store : NULL;

    stop_background(store);
    cold_close(store->chunks);
    if (store->log_open)
        hlog_close(&store->log);
    cache_close(&store->cache);
    windows_close(&store->windows);
    if (store->flush_queue)
        device_queue_close(store->flush_queue);
    if (store->index)
        index_close(store->index);
    if (store->device_log)
        device_log_close(store->device_log);
    epoch_close(store->epoch);
    salvage_close(store->salvage);
    superblock_fini(&store->superblock);
    pthread_cond_destroy(&store->worker_wake);
    pthread_mutex_destroy(&store->worker_lock);
    pthread_cond_destroy(&store->commit_done);
    pthread_mutex_destroy(&store->commit_lock);
    pthread_mutex_destroy(&store->checkpoint_lock);
    pthread_mutex_destroy(&store->sessions_lock);
    compact_fini(&store->compact);
    space_fini(&store->space);
    free(store);
    if (level)
        free_store(level);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int open_as(bool cold_level, uint64_t cold_id, struct device *device, const struct store_options *options,
                   struct store **ret_store, struct store_opened *ret_opened)
{
    uint64_t begun = now_us();
    struct store *store = calloc(1, sizeof *store);
    pthread_condattr_t monotonic;

    *ret_opened = (struct store_opened){0};
    if (!store)
        return -ENOMEM;
    store->device = device;
    store->options = *options;
    store->is_cold_level = cold_level;
    store->cold_id = cold_id;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&store->commit_lock, NULL);
    pthread_cond_init(&store->commit_done, NULL);
    pthread_mutex_init(&store->checkpoint_lock, NULL);
    pthread_mutex_init(&store->sessions_lock, NULL);
    compact_init(&store->compact);
    space_init(&store->space);
    pthread_mutex_init(&store->worker_lock, NULL);
    pthread_cond_init(&store->worker_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);

    int rc = open_parts(store, ret_opened);
    if (rc < 0) {
        if (!ret_opened->message[0])
            snprintf(ret_opened->message, sizeof ret_opened->message, "%s%s", strerror(-rc),
                     device_is_full(rc) ? "; a store needs a few MiB to begin with, make room" : "");
        free_store(store);
        return rc;
    }
    ret_opened->elapsed_us = now_us() - begun;
    *ret_store = store;
    return 0;
}

int store_open(struct device *device, const struct store_options *options, struct store **ret_store,
               struct store_opened *ret_opened)
{
    return open_as(false, 0, device, options, ret_store, ret_opened);
}

int store_open_cold_level(struct device *device, const struct store_options *options, uint64_t id,
                          struct store **ret_store, struct store_opened *ret_opened)
{
    return open_as(true, id, device, options, ret_store, ret_opened);
}

int store_close(struct store *store)
{
    struct store *level = store->cold ? store->cold->store : NULL;
    int rc = 0;

    stop_background(store);
    store->cold = NULL;
    if (!store->options.read_only) {
        rc = store_commit(store);
        if (rc == 0 && store->committed.address != store->superblock.checkpoint.end.address) {
            int saved = store_checkpoint(store);
            (void)saved; /* the log has everything: without it (disk full, say) the next open takes longer */
        }
    }
    free_store(store);
    int closed = level ? store_close(level) : 0;
    return rc < 0 ? rc : closed;
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
    if (!s)
        return -ENOMEM;
    s->store = store;
    s->seed = (uint64_t)(uintptr_t)s;
    int rc = epoch_slot_get(store->epoch, &s->slot);
    if (rc == 0)
        rc = device_queue_open(store->device, SESSION_READS, &s->queue);
    if (rc == 0 && !(s->buffers = aligned_alloc(HLOG_BLOCK, (size_t)SESSION_READS * READ_BUFFER_BYTES)))
        rc = -ENOMEM;
    for (unsigned i = 0; i < SESSION_READS && rc == 0; i++) {
        struct store_io *sio = &s->ios[i];
        sio->session = s;
        sio->buffer = s->buffers + (size_t)i * READ_BUFFER_BYTES;
        sio->next = s->free_ios;
        s->free_ios = sio;
    }
    if (rc == 0 && store->cold)
        rc = cold_session_open(s);
    if (rc < 0) {
        store_session_close(s);
        return rc;
    }
    for (unsigned i = 0; i < SESSION_WINDOWS; i++)
        s->window_ios[i].session = s;
    pthread_mutex_lock(&store->sessions_lock);
    s->next = store->sessions;
    if (s->next)
        s->next->previous = s;
    store->sessions = s;
    pthread_mutex_unlock(&store->sessions_lock);
    *ret_session = s;
    return 0;
}

/* Takes it off the list, unless opening failed before it was there. */
static void session_unlist(struct store_session *s)
{
    struct store *store = s->store;

    pthread_mutex_lock(&store->sessions_lock);
    if (s->next)
        s->next->previous = s->previous;
    if (s->previous)
        s->previous->next = s->next;
    else if (store->sessions == s)
        store->sessions = s->next;
    store->closed_reads_memory += atomic_load_explicit(&s->reads_memory, memory_order_relaxed); /* its thread's */
    store->closed_reads_device += atomic_load_explicit(&s->reads_device, memory_order_relaxed);
    store->closed_bytes_read += atomic_load_explicit(&s->bytes_read, memory_order_relaxed);
    pthread_mutex_unlock(&store->sessions_lock);
}

void store_session_close(struct store_session *s)
{
    if (!s)
        return;
    assert(s->pending == 0 && !s->unit_open);
    session_unlist(s);
    cold_session_close(s);
    free(s->buffers);
    if (s->queue)
        device_queue_close(s->queue);
    if (s->slot)
        epoch_slot_put(s->slot);
    free(s->changes);
    free(s->keys);
    free(s);
}

/* ---- statistics ----------------------------------------------------------------------------------- */

static void add_cold_stats(const struct cold *cold, struct store_stats *ret)
{
    struct store_stats level;

    store_stats(cold->store, &level);
    ret->memory_bytes += level.memory_bytes;
    ret->disk_bytes += level.disk_bytes;
    ret->kept_bytes += level.kept_bytes;
    ret->live_bytes += level.live_bytes;
    ret->compacted_bytes += level.compacted_bytes;
    ret->moved_bytes += level.moved_bytes;
    ret->compaction_failed = ret->compaction_failed ? ret->compaction_failed : level.compaction_failed;
    ret->index_buckets += level.index_buckets;
    ret->index_overflow_buckets += level.index_overflow_buckets;
    ret->reads_memory += level.reads_memory;
    ret->reads_device += level.reads_device;
    ret->bytes_read += level.bytes_read;
    ret->bytes_written += level.bytes_written;
    ret->failed = ret->failed ? ret->failed : level.failed;
    ret->cold_disk_bytes = level.disk_bytes;
    ret->cold_memory_bytes = level.memory_bytes;
    ret->cold_entries = atomic_load(&cold->entries);
    ret->cold_chunks = atomic_load(&cold->chunks);
}

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
    pthread_mutex_lock(&store->sessions_lock);
    uint64_t reads_memory = store->closed_reads_memory, reads_device = store->closed_reads_device;
    uint64_t bytes_read = store->closed_bytes_read;
    for (struct store_session *s = store->sessions; s; s = s->next) {
        reads_memory += atomic_load_explicit(&s->reads_memory, memory_order_relaxed);
        reads_device += atomic_load_explicit(&s->reads_device, memory_order_relaxed);
        bytes_read += atomic_load_explicit(&s->bytes_read, memory_order_relaxed);
    }
    pthread_mutex_unlock(&store->sessions_lock);
    *ret = (struct store_stats){.begin = atomic_load(&log->begin),
                                .head = atomic_load(&log->head),
                                .read_only = atomic_load(&log->ro),
                                .tail = atomic_load(&log->tail),
                                .flushed = atomic_load(&log->flushed),
                                .committed = committed,
                                .commits = atomic_load(&store->commits),
                                .checkpoints = atomic_load(&store->checkpoints),
                                .disk_bytes = device_log_disk_bytes(store->device_log) -
                                              atomic_load(&store->compact.released_bytes),
                                .live_bytes = space_live(store),
                                .compacted_bytes = atomic_load(&store->compact.scanned_bytes),
                                .moved_bytes = atomic_load(&store->compact.moved_bytes),
                                .compaction_failed = atomic_load(&store->compact.failed),
                                .index_buckets = index.buckets,
                                .index_overflow_buckets = index.overflow_buckets,
                                .reads_memory = reads_memory,
                                .reads_device = reads_device,
                                .bytes_read = bytes_read,
                                .bytes_written = atomic_load(&log->bytes_written),
                                .space_total_bytes = space.total_bytes,
                                .space_free_bytes = space.free_bytes,
                                .failed = atomic_load(&log->failed)};
    ret->bytes_appended = ret->tail - ret->begin;
    uint64_t allocated = device_log_allocated(store->device_log),
             ahead = allocated > ret->tail ? allocated - ret->tail : 0;
    ret->kept_bytes = ret->disk_bytes > ahead ? ret->disk_bytes - ahead : 0;
    uint64_t frames = ret->tail - HLOG_FIRST_ADDRESS, limit = atomic_load(&log->limit);
    frames = frames < limit ? frames : limit;
    ret->memory_bytes = frames + index.memory_bytes + cache_bytes(&store->cache);
    ret->cold_migrated = atomic_load(&store->compact.migrated);
    if (store->cold)
        add_cold_stats(store->cold, ret);
}
