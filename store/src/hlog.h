// SPDX-License-Identifier: MIT
/*
 * hlog: the hybrid log (FASTER, SIGMOD 2018, section 5): one address space whose newest part is in
 * memory, in a ring of frames, and whose older part is on the device.
 *
 *   begin <= safe_head <= head <= flushed <= safe_ro <= ro <= tail
 *
 *   [ro, tail)         mutable: changed in place, under the record's lock
 *   [safe_ro, ro)      fuzzy: somebody who still knows an older ro may be changing it; lock to read
 *   [safe_head, safe_ro)  immutable; checksummed by and by, written, in memory
 *   below head         on the device only
 *
 * Invariants:
 *   1. None of the addresses moves back. ro and head forbid; safe_ro and safe_head follow when every
 *      thread that might know the older value has left its epoch, and permit.
 *   2. tail <= safe_head + limit when it is reserved, limit <= size: a reservation never lands in a frame that
 *      somebody may read as its former self. tail <= space: every byte below the tail has disk space promised to it.
 *   3. Records below `sealed` carry their checksums; `flushed` is `sealed` rounded down to a block, or
 *      less. A block is written once, whole, after all of its records are immutable, and never again
 *      unless that write failed.
 *   4. head is the start of a record, and so everything below it is on the device whole.
 *   5. No record or pad crosses a multiple of `boundary` (the least `limit` or a segment, the smaller).
 *
 * Threads: hlog_reserve and hlog_at inside an epoch, any number. Everything that moves the regions
 * (seal, flush, evict) under `flush_lock`, outside epochs.
 */
#ifndef STORE_HLOG_H
#define STORE_HLOG_H

#include "epoch.h"
#include "record.h"
#include <device/log.h>
#include <pthread.h>

#define HLOG_BLOCK DEVICE_BLOCK_BYTES
#define HLOG_FIRST_ADDRESS HLOG_BLOCK /* 0 and 1 mean "none": the first block is never used */

/* Who takes disk space, of which each leaves some to those before it (hlog_left_by()). */
enum hlog_taker {
    HLOG_COMMITS,
    HLOG_MOVES /* compaction, on a full disk */,
    HLOG_FREES /* units that free space */,
    HLOG_WRITES
};
#define HLOG_FOR_COMMITS (64u << 10)
#define HLOG_FOR_MOVES (2u << 20) /* and a largest record */
#define HLOG_FOR_FREES (2u << 20) /* and a 256th of the log */
#define HLOG_LEFT_MIN (HLOG_FOR_COMMITS + HLOG_FOR_MOVES + HLOG_FOR_FREES)

struct hlog {
    uint8_t *frames;
    uint64_t size, boundary, page; /* powers of two, bytes; constant. page: grain of eviction */
    uint64_t least;                /* that `limit` can be; constant */
    uint64_t mutable_bytes;        /* the mutable part is kept at that, or at three quarters of `limit`; constant */
    uint64_t store_id;             /* constant */
    struct epoch *epoch;
    struct device_log *device;
    struct device_queue *queue; /* of whoever holds flush_lock */

    /* Written under flush_lock (tail: by reservations), read by everybody. Sequentially consistent
     * where an epoch must order them (epoch.h, invariant 2). */
    _Atomic uint64_t begin, head, safe_head, flushed, safe_ro, ro, space;
    /* So much of the log is kept in memory: frames beyond it are given back to the kernel. Set by hlog_limit(). */
    _Atomic uint64_t limit;
    /* Room of the largest value that was ever in the log. Raised by who appends, before its epoch is left; read behind
     * a commit, which waits for those. Relaxed. */
    _Atomic uint32_t largest;
    _Alignas(64) _Atomic uint64_t tail;

    _Alignas(64) pthread_mutex_t flush_lock;
    uint64_t written;               /* what is beyond `flushed` and below it are zeros that were written ahead */
    uint64_t sealed;                /* start of the first record without a checksum */
    uint64_t extent_begin;          /* end of the last commit record put */
    uint64_t chain_before;          /* of the last commit */
    uint64_t chain, records;        /* since then: checksums folded into it, records sealed */
    uint64_t *marks;                /* per page of the ring: first record start at or after its start */
    uint64_t next_mark;             /* first page number without a mark */
    _Atomic uint64_t bytes_written; /* statistics; relaxed */
    _Atomic int failed;             /* -errno that stopped writing for good, or 0; set once */
    _Atomic uint64_t populated;     /* frames are cleared up to here; read as a hint */
    uint64_t populate_end;          /* constant: then the ring has gone round */
};

/* `size` a power of two >= 256 KiB; `least`: another, or 0: so much of it is never given back. The log is empty in
 * memory, with begin and tail as given. */
int hlog_open(struct hlog *log, uint64_t size, uint64_t least, uint64_t mutable_bytes, uint64_t segment_bytes,
              uint64_t begin, uint64_t tail, uint64_t store_id, struct epoch *epoch, struct device_log *device,
              struct device_queue *queue);
/* A value with room for so many bytes is being appended. */
static inline void hlog_note_value(struct hlog *log, uint32_t capacity)
{
    uint32_t largest = atomic_load_explicit(&log->largest, memory_order_relaxed);

    while (capacity > largest && !atomic_compare_exchange_weak_explicit(&log->largest, &largest, capacity,
                                                                        memory_order_relaxed, memory_order_relaxed))
        continue;
}
void hlog_close(struct hlog *log);

static inline struct record *hlog_at(const struct hlog *log, uint64_t address)
{
    return (struct record *)(log->frames + (address & (log->size - 1)));
}

/* Asks the processor for a record's lines of memory, before its key is compared: their misses overlap. */
static inline void hlog_prefetch(const struct hlog *log, uint64_t address, uint64_t bytes, bool to_write)
{
    const uint8_t *at = (const uint8_t *)hlog_at(log, address), *end = at + (bytes < 512 ? bytes : 512);

    for (; at < end; at += 64) {
        if (to_write)
            __builtin_prefetch(at, 1);
        else
            __builtin_prefetch(at, 0);
    }
}

/* What has to be left, in bytes. Compaction gives back what it has taken, but for a block in each round, and only after
 * it has taken it: two batches and a record (compact.h, invariant 6) are nobody else's, or nothing would ever come
 * back. For units that free there is more in a long log: the blocks of a whole pass are few beside that. */
static inline uint64_t hlog_left_by(const struct hlog *log, enum hlog_taker taker)
{
    uint64_t left = taker >= HLOG_MOVES ? HLOG_FOR_COMMITS : 0;

    if (taker >= HLOG_FREES)
        left += HLOG_FOR_MOVES + log->boundary / 4;
    if (taker >= HLOG_WRITES) /* relaxed: of late will do */
        left += HLOG_FOR_FREES + (atomic_load_explicit(&log->tail, memory_order_relaxed) -
                                  atomic_load_explicit(&log->begin, memory_order_relaxed)) /
                                     256;
    return left;
}

/*
 * Takes `bytes` (sum of record sizes, each at most `largest`) at the tail, inside an epoch, for the
 * caller to fill with hlog_take() and close with hlog_finish() before leaving it. -EAGAIN: leave the
 * epoch and hlog_make_room().
 */
struct hlog_space {
    uint64_t next, end;
};
int hlog_reserve(struct hlog *log, uint64_t bytes, uint64_t largest, enum hlog_taker taker,
                 struct hlog_space *ret_space);
uint64_t hlog_take(struct hlog *log, struct hlog_space *space, uint64_t bytes);
void hlog_finish(struct hlog *log, struct hlog_space *space);

/* Writes and evicts what is below `until`, as far as the grain of eviction allows. flush_lock held. */
int hlog_evict(struct hlog *log, uint64_t until);

/* Makes `bytes` reservable, by promising disk space, writing and evicting. flush_lock held. -ENOSPC. */
int hlog_make_room(struct hlog *log, uint64_t bytes, enum hlog_taker taker);

/* Promises itself what it keeps for compaction, units that free and commits: before others take disk space that may
 * have been part of that, and where some came back. flush_lock held. -ENOSPC: there is less. */
int hlog_promise_reserve(struct hlog *log);

/* Writes everything that starts below `until` (<= tail), making it immutable first. flush_lock held.
 * -errno of the device; what was not written is tried again by the next call. */
int hlog_flush(struct hlog *log, uint64_t until);

/* After the flush of a commit and before its sync: a sync of blocks that were allocated and never written has to change
 * metadata of the filesystem, which takes it about twice as long. So small commits find zeros where they are going to
 * be: they are written with one of them for those that follow. flush_lock held. */
void hlog_write_zeros(struct hlog *log, uint64_t committed_bytes);

/* Puts a commit record at the tail, with the log to itself (the gate is closed, nobody writes): all
 * below it becomes read-only. Room for two blocks must be there. Returns the end of the commit. */
uint64_t hlog_put_commit(struct hlog *log, uint64_t version, uint64_t incarnation, uint64_t durable);

/* Sets how much memory the log may take, from a quarter of the ring (or 4 MiB of a small one) to all of it; it is
 * reached by and by. flush_lock held. */
void hlog_limit(struct hlog *log, uint64_t bytes);

/* Keeps the mutable part and the free part of the ring at their sizes. flush_lock held. */
int hlog_maintain(struct hlog *log);
/* Cheap test: is there work for hlog_maintain()? */
bool hlog_wants_maintenance(const struct hlog *log);

#endif
