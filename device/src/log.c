// SPDX-License-Identifier: MIT
/*
 * device_log: one address space in segment files (device/log.h, with the promises).
 *
 * A segment is found by its number in a table of two levels that only grows; a leaf stays until the log
 * is closed, so a pointer to a segment is good for as long as the log.
 *
 *     allocate: (none) -> file            log_create, under grow_lock
 *     truncate: file -> gone              under sync_lock; closed by its last user (segment_put)
 *     a write or an allocation ends: clean -> dirty and on the list     log_mark
 *     sync: dirty -> clean, then fdatasync                              under sync_lock
 *
 * Invariants:
 *   1. first <= allocated / segment <= created; files exist for [first, created) and no others, but for empty ones that
 *      a crash left: log_create() takes them.
 *   2. All segments but the last have their full length, and their names are durable before the next
 *      one is created: a crash leaves no gap.
 *   3. dirty is set <=> the segment is on the dirty list, or in the hands of a sync that has not yet
 *      cleared it. It is cleared before the fdatasync begins, so what completes later sets it again.
 *   4. After a sync has failed every later one fails too: the kernel reports lost pages once, so a
 *      second fdatasync that returns 0 proves nothing about what the first one was for.
 *
 * Threads: any. Locks, in this order: grow_lock or sync_lock, then names_lock. submit and the fast path
 * of allocate take none.
 */
#include "private.h"

#include <assert.h>
#include <device/log.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS_END (UINT64_C(1) << 48)
#define STEP_BYTES (UINT64_C(4) << 20)
#define GRAIN_BYTES (UINT64_C(1) << 16) /* of a promise; a segment has that many at least */
#define LEAF_BITS 12
#define LEAF_SEGMENTS (UINT64_C(1) << LEAF_BITS)

struct segment {
    /* The log's own use and one for each transfer and sync that is under way; 0: no file. The last one to
     * give up its use closes the file, so its number is not another file's while anybody has it. Set to 1
     * (release) by install; taken (acquire) and given up (acq_rel) by segment_get and segment_put. */
    _Atomic unsigned users;
    int file; /* constant while users > 0 */
    /* Exchanged (acq_rel) by log_mark and sync with each other: a mark that finds it set happens before
     * the fdatasync of the sync that clears it; a sync that reads next_dirty does so before the mark
     * that overwrites it. */
    _Atomic bool dirty;
    struct segment *next_dirty; /* of whoever set `dirty`; published with log->dirty */
    struct device_log *log;     /* constant once users was set */
};

struct device_log {
    struct device *device; /* these four constant */
    uint64_t segment_bytes;
    uint64_t step;
    unsigned shift; /* segment_bytes == 1 << shift */

    /* Stored (release) under grow_lock, loaded (acquire) by anybody: the segments below it are there. */
    _Atomic uint64_t allocated;
    /* Number of the first segment. Stored under sync_lock; relaxed: only disk_bytes reads it outside,
     * and that is an answer of the past anyway. */
    _Atomic uint64_t first;
    /* Pushed (release) by log_mark, taken whole (acquire) by sync: next_dirty of all on it is seen. */
    _Atomic(struct segment *) dirty;

    pthread_mutex_t grow_lock;
    uint64_t created; /* first segment number without a file; grow_lock */

    pthread_mutex_t sync_lock;
    int sync_error; /* sync_lock */

    pthread_mutex_t names_lock;
    bool names_dirty; /* names_lock, these two */
    int names_error;

    /* ADDRESS_END / segment_bytes / LEAF_SEGMENTS of them. Stored (release) under grow_lock, loaded
     * (acquire) by anybody: the leaf is zeroed. */
    _Atomic(struct segment *) *leaves;
};

static void segment_name(uint64_t number, char name[DEVICE_NAME_MAX + 1])
{
    snprintf(name, DEVICE_NAME_MAX + 1, "log.%016" PRIx64, number);
}

/* NULL if it was never there. */
static struct segment *log_segment(const struct device_log *log, uint64_t number)
{
    struct segment *leaf = atomic_load_explicit(&log->leaves[number >> LEAF_BITS], memory_order_acquire);
    return leaf == NULL ? NULL : &leaf[number & (LEAF_SEGMENTS - 1)];
}

static uint64_t log_leaf_count(const struct device_log *log)
{
    uint64_t segments = ADDRESS_END >> log->shift;
    return (segments + LEAF_SEGMENTS - 1) >> LEAF_BITS;
}

/* The segment needs a sync. */
static void log_mark(struct segment *segment)
{
    if (atomic_exchange_explicit(&segment->dirty, true, memory_order_acq_rel))
        return;
    struct device_log *log = segment->log;
    struct segment *head = atomic_load_explicit(&log->dirty, memory_order_relaxed);
    do
        segment->next_dirty = head;
    while (!atomic_compare_exchange_weak_explicit(&log->dirty, &head, segment, memory_order_release,
                                                  memory_order_relaxed));
}

/* False: it has no file (any more). */
static bool segment_get(struct segment *segment)
{
    unsigned users = atomic_load_explicit(&segment->users, memory_order_relaxed); /* the CAS decides */
    do {
        if (users == 0)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&segment->users, &users, users + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

static void segment_put(struct segment *segment)
{
    if (atomic_fetch_sub_explicit(&segment->users, 1, memory_order_acq_rel) == 1)
        device_file_close(segment->log->device, segment->file); /* removed: the space comes back with this */
}

static void log_ended(void *ctx, enum device_op op)
{
    if (op == DEVICE_WRITE)
        log_mark(ctx);
    segment_put(ctx);
}

/* Makes the names of the segments durable if they are not. */
static int log_sync_names(struct device_log *log)
{
    pthread_mutex_lock(&log->names_lock);
    if (log->names_dirty && log->names_error == 0) {
        log->names_error = device_sync_names(log->device);
        log->names_dirty = log->names_error < 0;
    }
    int ret = log->names_error;
    pthread_mutex_unlock(&log->names_lock);
    return ret;
}

/* Puts an open file into the table. */
static int log_install(struct device_log *log, uint64_t number, int file)
{
    _Atomic(struct segment *) *slot = &log->leaves[number >> LEAF_BITS];
    struct segment *segment = log_segment(log, number);
    if (segment == NULL) {
        struct segment *leaf = calloc(LEAF_SEGMENTS, sizeof(*leaf));
        if (leaf == NULL)
            return -ENOMEM;
        atomic_store_explicit(slot, leaf, memory_order_release);
        segment = log_segment(log, number);
    }
    segment->log = log;
    segment->file = file;
    atomic_store_explicit(&segment->users, 1, memory_order_release);
    return 0;
}

/* Makes the file of segment number `created`. grow_lock is held. */
static int log_create(struct device_log *log)
{
    int ret = log_sync_names(log); /* invariant 2 */
    if (ret < 0)
        return ret;
    char name[DEVICE_NAME_MAX + 1];
    segment_name(log->created, name);
    /* No file of this name is meant to be here; if there is, its bytes are not ours. */
    int file = device_file_open(log->device, name, DEVICE_FILE_CREATE | DEVICE_FILE_TRUNCATE);
    if (file < 0)
        return file;
    ret = log_install(log, log->created, file);
    if (ret < 0) {
        device_file_close(log->device, file);
        (void)!device_file_remove(log->device, name);
        return ret;
    }
    log->created++;
    pthread_mutex_lock(&log->names_lock);
    log->names_dirty = true;
    pthread_mutex_unlock(&log->names_lock);
    return 0;
}

/* ---- open and close ------------------------------------------------------------------------- */

struct numbers {
    uint64_t *numbers;
    size_t count, capacity;
};

/* Gathers the segment numbers among the names. */
static int gather(void *ctx, const char *name)
{
    struct numbers *found = ctx;
    if (strlen(name) != 4 + 16 || memcmp(name, "log.", 4) != 0 || strspn(name + 4, "0123456789abcdef") != 16)
        return 0;
    if (found->count == found->capacity) {
        size_t capacity = found->capacity == 0 ? 64 : found->capacity * 2;
        uint64_t *grown = realloc(found->numbers, capacity * sizeof(*grown));
        if (grown == NULL)
            return -ENOMEM;
        found->numbers = grown;
        found->capacity = capacity;
    }
    found->numbers[found->count++] = strtoull(name + 4, NULL, 16);
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* Opens segment number `created`, which exists, and sets allocated to the end of it. */
static int log_open_segment(struct device_log *log, bool is_last)
{
    char name[DEVICE_NAME_MAX + 1];
    segment_name(log->created, name);
    int file = device_file_open(log->device, name, 0);
    if (file < 0)
        return file;
    int64_t size = device_file_size(log->device, file);
    int ret = size < 0 ? (int)size : (uint64_t)size > log->segment_bytes ? -EUCLEAN : 0;
    if (ret == 0)
        ret = log_install(log, log->created, file);
    if (ret < 0) {
        device_file_close(log->device, file);
        return ret;
    }
    uint64_t start = log->created << log->shift;
    uint64_t promised = (uint64_t)size - (uint64_t)size % GRAIN_BYTES;
    log->created++;
    /* A short one in the middle: a crash kept the next segment's name and not this one's length. */
    if (!is_last && promised < log->segment_bytes && !log->device->read_only) {
        ret = device_file_allocate(log->device, file, promised, log->segment_bytes - promised);
        if (ret < 0)
            return ret;
        promised = log->segment_bytes;
    }
    /* What an earlier process wrote may not be on stable media yet. */
    if (!log->device->read_only)
        log_mark(log_segment(log, log->created - 1));
    atomic_store_explicit(&log->allocated, start + promised, memory_order_release);
    return 0;
}

/* A last segment of no length is what a crash leaves of one that was begun: the log ends before it, however short the
 * segment there is. Writing makes it anew. */
static int log_drop_empty(struct device_log *log, struct numbers *found)
{
    while (found->count > 1) {
        char name[DEVICE_NAME_MAX + 1];
        segment_name(found->numbers[found->count - 1], name);
        int file = device_file_open(log->device, name, 0);
        if (file < 0)
            return file;
        int64_t size = device_file_size(log->device, file);
        device_file_close(log->device, file);
        if (size != 0)
            return size < 0 ? (int)size : 0;
        found->count--;
    }
    return 0;
}

/* Opens what is there; the numbers are sorted. */
static int log_open_segments(struct device_log *log, const struct numbers *found, uint64_t *ret_missing)
{
    uint64_t first = log->created;
    size_t below = 0;
    while (below < found->count && found->numbers[below] < first)
        below++;
    if (found->count > below && found->numbers[found->count - 1] >= ADDRESS_END >> log->shift)
        return -EUCLEAN;
    for (size_t i = below; i < found->count; i++) {
        if (found->numbers[i] != first + (i - below)) {
            if (ret_missing != NULL)
                *ret_missing = first + (i - below);
            return -ENOENT;
        }
    }
    for (size_t i = 0; i < below && !log->device->read_only; i++) {
        char name[DEVICE_NAME_MAX + 1];
        segment_name(found->numbers[i], name);
        int ret = device_file_remove(log->device, name);
        if (ret < 0 && ret != -ENOENT)
            return ret;
    }
    for (size_t i = below; i < found->count; i++) {
        int ret = log_open_segment(log, i + 1 == found->count);
        if (ret < 0)
            return ret;
        if (atomic_load_explicit(&log->allocated, memory_order_relaxed) != log->created << log->shift)
            break; /* the last, or a short one that a read-only device cannot fill: the end for it */
    }
    return 0;
}

int device_log_open(struct device *device, uint64_t segment_bytes, uint64_t begin, struct device_log **ret_log,
                    uint64_t *ret_missing)
{
    assert((segment_bytes & (segment_bytes - 1)) == 0 && segment_bytes >= GRAIN_BYTES);
    assert(segment_bytes < ADDRESS_END && begin < ADDRESS_END);
    struct device_log *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return -ENOMEM;
    log->device = device;
    log->segment_bytes = segment_bytes;
    log->step = segment_bytes < STEP_BYTES ? segment_bytes : STEP_BYTES;
    log->shift = (unsigned)__builtin_ctzll(segment_bytes);
    log->created = begin >> log->shift;
    atomic_init(&log->first, log->created);
    atomic_init(&log->allocated, log->created << log->shift);
    atomic_init(&log->dirty, NULL);
    log->names_dirty = !device->read_only; /* an earlier process may have left them so */
    pthread_mutex_init(&log->grow_lock, NULL);
    pthread_mutex_init(&log->sync_lock, NULL);
    pthread_mutex_init(&log->names_lock, NULL);

    struct numbers found = {NULL, 0, 0};
    int ret = -ENOMEM;
    log->leaves = calloc(log_leaf_count(log), sizeof(*log->leaves));
    if (log->leaves != NULL)
        ret = device_list(device, gather, &found);
    if (ret == 0 && found.count > 0)
        qsort(found.numbers, found.count, sizeof(*found.numbers), compare_numbers);
    if (ret == 0)
        ret = log_drop_empty(log, &found);
    if (ret == 0)
        ret = log_open_segments(log, &found, ret_missing);
    free(found.numbers);
    if (ret < 0) {
        device_log_close(log);
        return ret;
    }
    *ret_log = log;
    return 0;
}

void device_log_close(struct device_log *log)
{
    if (log == NULL)
        return;
    uint64_t first = atomic_load_explicit(&log->first, memory_order_relaxed); /* nobody else is here */
    for (uint64_t number = first; number < log->created; number++)
        segment_put(log_segment(log, number));
    for (uint64_t i = 0; log->leaves != NULL && i << LEAF_BITS < log->created; i++)
        free(atomic_load_explicit(&log->leaves[i], memory_order_acquire));
    free(log->leaves);
    pthread_mutex_destroy(&log->names_lock);
    pthread_mutex_destroy(&log->sync_lock);
    pthread_mutex_destroy(&log->grow_lock);
    free(log);
}

/* ---- use ------------------------------------------------------------------------------------ */

uint64_t device_log_allocated(const struct device_log *log)
{
    return atomic_load_explicit(&log->allocated, memory_order_acquire);
}

/* Promises the rest of the step that `at` is in; on a disk with less than that, a smaller part that reaches `end` if
 * that is possible. Its length, or -errno. */
static int64_t log_promise(struct device_log *log, int file, uint64_t at, uint64_t end)
{
    uint64_t len = log->step - at % log->step, least = (end - at + GRAIN_BYTES - 1) & ~(GRAIN_BYTES - 1);
    int ret = device_file_allocate(log->device, file, at & (log->segment_bytes - 1), len);

    while (device_is_full(ret) && len > least) {
        len = len / 2 > least ? (len / 2 + GRAIN_BYTES - 1) & ~(GRAIN_BYTES - 1) : least;
        ret = device_file_allocate(log->device, file, at & (log->segment_bytes - 1), len);
    }
    return ret < 0 ? ret : (int64_t)len;
}

int device_log_allocate(struct device_log *log, uint64_t end)
{
    if (end <= device_log_allocated(log))
        return 0;
    if (end > ADDRESS_END)
        return -EFBIG;
    if (log->device->read_only)
        return -EROFS;
    int ret = 0;
    pthread_mutex_lock(&log->grow_lock);
    uint64_t at = atomic_load_explicit(&log->allocated, memory_order_relaxed); /* stored under the lock */
    while (at < end) {
        uint64_t number = at >> log->shift;
        if (number == log->created)
            ret = log_create(log);
        if (ret < 0)
            break;
        struct segment *segment = log_segment(log, number);
        int64_t len = log_promise(log, segment->file, at, end);
        if (len < 0) {
            ret = (int)len;
            break;
        }
        log_mark(segment); /* its length has to be made durable */
        at += (uint64_t)len;
        atomic_store_explicit(&log->allocated, at, memory_order_release);
    }
    pthread_mutex_unlock(&log->grow_lock);
    return ret;
}

void device_log_submit(struct device_log *log, struct device_queue *queue, struct device_io *io, uint64_t address)
{
    assert(address % DEVICE_BLOCK_BYTES == 0);
    assert((address & (log->segment_bytes - 1)) + io->len <= log->segment_bytes);
    struct segment *segment = address < ADDRESS_END ? log_segment(log, address >> log->shift) : NULL;
    if (segment == NULL || !segment_get(segment)) {
        device_submit_refused(queue, io, -ENOENT);
        return;
    }
    assert(address + io->len <= device_log_allocated(log));
    io->file = segment->file;
    io->offset = address & (log->segment_bytes - 1);
    device_submit_watched(queue, io, log_ended, segment);
}

void device_log_submit_later(struct device_log *log, struct device_queue *queue, struct device_io *io, uint64_t address)
{
    queue->later = true;
    device_log_submit(log, queue, io, address);
    queue->later = false;
}

int device_log_sync(struct device_log *log)
{
    pthread_mutex_lock(&log->sync_lock);
    if (log->sync_error == 0)
        log->sync_error = log_sync_names(log);
    struct segment *segment = atomic_exchange_explicit(&log->dirty, NULL, memory_order_acquire);
    while (segment != NULL) {
        struct segment *next = segment->next_dirty;
        (void)atomic_exchange_explicit(&segment->dirty, false, memory_order_acq_rel);
        if (log->sync_error == 0 && segment_get(segment)) {
            log->sync_error = device_file_sync(log->device, segment->file);
            segment_put(segment);
        }
        segment = next;
    }
    int ret = log->sync_error;
    pthread_mutex_unlock(&log->sync_lock);
    return ret;
}

int device_log_truncate(struct device_log *log, uint64_t begin)
{
    assert(begin >> log->shift <= device_log_allocated(log) >> log->shift);
    int ret = log->device->read_only ? -EROFS : 0;
    pthread_mutex_lock(&log->sync_lock);
    uint64_t number = atomic_load_explicit(&log->first, memory_order_relaxed);
    for (; ret == 0 && number < begin >> log->shift; number++) {
        char name[DEVICE_NAME_MAX + 1];
        segment_name(number, name);
        ret = device_file_remove(log->device, name);
        if (ret == -ENOENT)
            ret = 0;
        if (ret < 0)
            break;
        segment_put(log_segment(log, number));
        atomic_store_explicit(&log->first, number + 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&log->sync_lock);
    return ret;
}

int device_log_punch(struct device_log *log, uint64_t from, uint64_t to)
{
    int ret = log->device->read_only ? -EROFS : 0;
    from = (from + DEVICE_BLOCK_BYTES - 1) & ~(uint64_t)(DEVICE_BLOCK_BYTES - 1);
    to &= ~(uint64_t)(DEVICE_BLOCK_BYTES - 1);
    assert(to <= device_log_allocated(log));
    while (from < to && ret == 0) {
        uint64_t number = from >> log->shift, end = (number + 1) << log->shift;
        struct segment *segment = log_segment(log, number);
        if (end > to)
            end = to;
        if (segment != NULL && segment_get(segment)) {
            ret = device_file_punch(log->device, segment->file, from & (log->segment_bytes - 1), end - from);
            segment_put(segment);
        }
        from = end;
    }
    return ret;
}

uint64_t device_log_disk_bytes(const struct device_log *log)
{
    uint64_t first = atomic_load_explicit(&log->first, memory_order_relaxed);
    uint64_t allocated = device_log_allocated(log);
    return allocated > first << log->shift ? allocated - (first << log->shift) : 0;
}
