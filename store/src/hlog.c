// SPDX-License-Identifier: MIT
#include "hlog.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WRITE_BYTES (1u << 20) /* one device write at most */
#define WRITES 8               /* in flight */
#define ZEROS_BYTES (256u << 10)
#define ZEROS_FOR (64u << 10) /* a commit of more does not need them */
#define LIMIT_MIN (UINT64_C(4) << 20)
#define POPULATE_BYTES (UINT64_C(8) << 20)
#define POPULATE_FROM (UINT64_C(256) << 20) /* a smaller ring is soon full */

/* A quarter of the ring, but 4 MiB where there are that many: a unit of a MiB fits. */
static uint64_t limit_min(uint64_t size)
{
    uint64_t least = size < LIMIT_MIN ? size : LIMIT_MIN;

    return size / 4 > least ? size / 4 : least;
}

int hlog_open(struct hlog *log, uint64_t size, uint64_t least, uint64_t mutable_bytes, uint64_t segment_bytes,
              uint64_t begin, uint64_t tail, uint64_t store_id, struct epoch *epoch, struct device_log *device,
              struct device_queue *queue)
{
    *log = (struct hlog){.size = size, .store_id = store_id, .epoch = epoch, .device = device, .queue = queue};
    log->least = limit_min(size) > least ? limit_min(size) : least;
    log->boundary = log->least < segment_bytes ? log->least : segment_bytes;
    log->limit = size;
    log->page = size / 64;
    log->mutable_bytes = mutable_bytes;
    log->marks = calloc(size / log->page, sizeof *log->marks);
    if (!log->marks)
        return -ENOMEM;
    log->frames = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (log->frames == MAP_FAILED) {
        free(log->marks);
        return -ENOMEM;
    }
    if (size >= (32u << 20)) /* a small store should stay small: huge pages only where they pay */
        (void)madvise(log->frames, size, MADV_HUGEPAGE);
    log->populated = size >= POPULATE_FROM ? tail & ~(POPULATE_BYTES - 1) : UINT64_MAX;
    log->populate_end = (tail & ~(POPULATE_BYTES - 1)) + size;
    log->begin = begin;
    log->head = log->safe_head = log->flushed = log->safe_ro = log->ro = log->tail = tail;
    log->space = device_log_allocated(device);
    log->sealed = log->extent_begin = tail;
    log->next_mark = round_up(tail, log->page) / log->page;
    pthread_mutex_init(&log->flush_lock, NULL);
    return 0;
}

void hlog_close(struct hlog *log)
{
    pthread_mutex_destroy(&log->flush_lock);
    munmap(log->frames, log->size);
    free(log->marks);
}

/* ---- the tail ---------------------------------------------------------------------------------- */

static void pad(struct hlog *log, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t stop = round_up(from + 1, log->boundary);
        if (stop > to)
            stop = to;
        /* relaxed: seen by others only after the safe_ro or epoch handover that covers all of it */
        atomic_store_explicit(&hlog_at(log, from)->link, pad_word(from, stop - from), memory_order_relaxed);
        from = stop;
    }
}

int hlog_reserve(struct hlog *log, uint64_t bytes, uint64_t largest, enum hlog_taker taker,
                 struct hlog_space *ret_space)
{
    uint64_t left = hlog_left_by(log, taker);
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_relaxed); /* the CAS decides */

    for (;;) {
        uint64_t end = tail + bytes;
        if ((tail ^ (end - 1)) & ~(log->boundary - 1))
            end += largest;
        /* acquire: pairs with the store in evict(); what was read from the old frames happened before */
        if (end > atomic_load_explicit(&log->safe_head, memory_order_acquire) +
                      atomic_load_explicit(&log->limit, memory_order_relaxed) || /* relaxed: any of late will do */
            end + left > atomic_load_explicit(&log->space, memory_order_acquire))
            return -EAGAIN;
        if (atomic_compare_exchange_weak_explicit(&log->tail, &tail, end, memory_order_seq_cst, memory_order_relaxed)) {
            *ret_space = (struct hlog_space){tail, end};
            return 0;
        }
    }
}

uint64_t hlog_take(struct hlog *log, struct hlog_space *space, uint64_t bytes)
{
    uint64_t at = space->next;

    if ((at ^ (at + bytes - 1)) & ~(log->boundary - 1)) {
        uint64_t boundary = round_up(at, log->boundary);
        pad(log, at, boundary);
        at = boundary;
    }
    space->next = at + bytes;
    assert(space->next <= space->end);
    return at;
}

void hlog_finish(struct hlog *log, struct hlog_space *space)
{
    pad(log, space->next, space->end);
    space->next = space->end;
}

uint64_t hlog_put_commit(struct hlog *log, uint64_t version, uint64_t incarnation, uint64_t durable)
{
    uint64_t tail = atomic_load(&log->tail);
    uint64_t end = round_up(tail + COMMIT_BYTES, HLOG_BLOCK);
    struct commit_record *c = (struct commit_record *)hlog_at(log, end - COMMIT_BYTES);

    pad(log, tail, end - COMMIT_BYTES);
    *c = (struct commit_record){.link = RECORD_COMMIT,
                                .version = version,
                                .magic = COMMIT_MAGIC,
                                .extent_begin = log->extent_begin,
                                .incarnation = incarnation,
                                .durable = durable};
    atomic_store(&log->ro, end);
    atomic_store(&log->safe_ro, end); /* at once: nobody is changing anything */
    atomic_store(&log->tail, end);
    log->extent_begin = end;
    return end;
}

/* ---- sealing: checksums ------------------------------------------------------------------------- */

static void mark(struct hlog *log, uint64_t start)
{
    for (; log->next_mark * log->page <= start; log->next_mark++)
        log->marks[log->next_mark % (log->size / log->page)] = start;
}

static void seal_commit(struct hlog *log, uint64_t address)
{
    struct commit_record *c = (struct commit_record *)hlog_at(log, address);

    c->chain_before = log->chain_before;
    c->records = log->records;
    c->chain = log->chain;
    c->seal = commit_checksum(c, address, log->store_id);
    log->chain_before = c->chain;
    log->records = 0;
}

/* Gives checksums to all records that start below `until`; they are immutable and nobody uses their
 * locks any more. */
static void seal(struct hlog *log, uint64_t until)
{
    uint64_t at = log->sealed;

    while (at < until) {
        struct record *r = hlog_at(log, at);
        uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* ordered by the epoch */
        mark(log, at);
        if (link & RECORD_PAD) {
            at += pad_length(link, at);
        } else if (link & RECORD_COMMIT) {
            seal_commit(log, at);
            at += COMMIT_BYTES;
        } else {
            link &= ~RECORD_SEALED;
            uint64_t sum = record_seal(r, link, at, log->store_id);
            atomic_store_explicit(&r->link, link, memory_order_relaxed);
            atomic_store_explicit(&r->seal, sum, memory_order_relaxed);
            log->chain = chain_fold(log->chain, sum);
            log->records++;
            at += record_size(r);
        }
    }
    mark(log, at);
    log->sealed = at;
}

/* ---- writing ------------------------------------------------------------------------------------ */

struct writer {
    struct hlog *log;
    uint64_t next, end; /* still to be submitted */
    int error;
    struct write {
        struct device_io io;
        struct writer *writer;
        uint64_t address;
    } writes[WRITES];
};

static void write_next(struct write *w);

static void write_done(struct device_io *io)
{
    struct write *w = (struct write *)io;

    if (io->result < 0)
        w->writer->error = (int)io->result;
    else
        atomic_fetch_add_explicit(&w->writer->log->bytes_written, io->len, memory_order_relaxed);
    write_next(w);
}

static void write_next(struct write *w)
{
    struct writer *all = w->writer;
    struct hlog *log = all->log;

    if (all->error || all->next >= all->end)
        return;
    uint64_t stop = round_up(all->next + 1, log->boundary);
    if (stop > all->end)
        stop = all->end;
    if (stop > all->next + WRITE_BYTES)
        stop = all->next + WRITE_BYTES;
    w->address = all->next;
    w->io = (struct device_io){
        .op = DEVICE_WRITE, .buf = hlog_at(log, all->next), .len = (uint32_t)(stop - all->next), .done = write_done};
    all->next = stop;
    device_log_submit(log->device, log->queue, &w->io, w->address);
}

static int write_blocks(struct hlog *log, uint64_t from, uint64_t to)
{
    struct writer all = {.log = log, .next = from, .end = to};

    for (int i = 0; i < WRITES; i++) {
        all.writes[i].writer = &all;
        write_next(&all.writes[i]);
    }
    while (device_queue_pending(log->queue) > 0)
        device_poll(log->queue, true);
    return all.error;
}

static void fail(struct hlog *log, int error)
{
    int none = 0;

    /* Out of space passes: the same blocks are written again later. Anything else is for good. */
    if (!device_is_full(error))
        (void)atomic_compare_exchange_strong(&log->failed, &none, error);
}

int hlog_flush(struct hlog *log, uint64_t until)
{
    int failed = atomic_load(&log->failed);
    if (failed)
        return failed;
    if (until > atomic_load(&log->safe_ro)) {
        if (until > atomic_load(&log->ro))
            atomic_store(&log->ro, until);
        epoch_synchronize(log->epoch); /* nobody changes anything below `until` in place any more */
        atomic_store(&log->safe_ro, until);
    }
    if (until > log->sealed) {
        epoch_synchronize(log->epoch); /* nobody holds a lock below safe_ro any more */
        seal(log, until);
    }
    uint64_t from = atomic_load(&log->flushed), to = log->sealed & ~(uint64_t)(HLOG_BLOCK - 1);
    if (to <= from)
        return 0;
    int rc = write_blocks(log, from, to);
    if (rc < 0) {
        fail(log, rc);
        return rc;
    }
    atomic_store(&log->flushed, to);
    return 0;
}

static void zeros_done(struct device_io *io)
{
    (void)io;
}

void hlog_write_zeros(struct hlog *log, uint64_t committed_bytes)
{
    static const _Alignas(HLOG_BLOCK) uint8_t zeros[ZEROS_BYTES];
    uint64_t from = atomic_load(&log->flushed), space = atomic_load(&log->space);

    if (committed_bytes > ZEROS_FOR || from + ZEROS_FOR <= log->written)
        return;
    if (from < log->written)
        from = log->written;
    uint64_t to = round_up(from + 1, log->boundary); /* no segment ends before it */
    if (to > from + ZEROS_BYTES)
        to = from + ZEROS_BYTES;
    if (to > space)
        to = space;
    if (to <= from)
        return;
    struct device_io io = {
        .op = DEVICE_WRITE, .buf = (void *)(uintptr_t)zeros, .len = (uint32_t)(to - from), .done = zeros_done};
    device_log_submit(log->device, log->queue, &io, from);
    while (device_queue_pending(log->queue) > 0)
        device_poll(log->queue, true);
    if (io.result < 0)
        return; /* the log has not failed by that */
    atomic_fetch_add_explicit(&log->bytes_written, to - from, memory_order_relaxed);
    log->written = to;
}

/* ---- room ---------------------------------------------------------------------------------------- */

static uint64_t limit_of(const struct hlog *log)
{
    return atomic_load_explicit(&log->limit, memory_order_relaxed); /* set under flush_lock; any of late will do */
}

/* The frames of [from, to), which nobody looks at and nobody can reserve yet. */
static void give_back(struct hlog *log, uint64_t from, uint64_t to)
{
    for (from = round_up(from, HLOG_BLOCK), to &= ~(uint64_t)(HLOG_BLOCK - 1); from < to;) {
        uint64_t at = from & (log->size - 1), len = to - from < log->size - at ? to - from : log->size - at;
        (void)madvise(log->frames + at, len, MADV_DONTNEED); /* else they stay, and are used again */
        from += len;
    }
}

/* Moves head to the first record at or after `until`, as far as that is written. */
static void evict(struct hlog *log, uint64_t until)
{
    uint64_t page = round_up(until, log->page) / log->page;

    while (page >= log->next_mark ||
           log->marks[page % (log->size / log->page)] > atomic_load_explicit(&log->flushed, memory_order_relaxed))
        page--;
    if (page * log->page <= atomic_load(&log->head))
        return;
    uint64_t head = log->marks[page % (log->size / log->page)];
    uint64_t before = atomic_load(&log->head);
    atomic_store(&log->head, head);
    epoch_synchronize(log->epoch); /* nobody looks at anything below head any more */
    if (limit_of(log) < log->size)
        give_back(log, before, head);
    atomic_store_explicit(&log->safe_head, head, memory_order_release);
}

static int promise_space(struct hlog *log, uint64_t end)
{
    if (end <= atomic_load(&log->space))
        return 0;
    int rc = device_log_allocate(log->device, end);
    atomic_store(&log->space, device_log_allocated(log->device));
    return rc;
}

int hlog_promise_reserve(struct hlog *log)
{
    return promise_space(log, atomic_load(&log->tail) + hlog_left_by(log, HLOG_WRITES));
}

/* Moves head to `until` or beyond, at least to `must`. A record that lies across them, or the block that
 * it ends in, may not be written yet: then everything is. */
static int flush_and_evict(struct hlog *log, uint64_t until, uint64_t must)
{
    uint64_t tail = atomic_load(&log->tail);
    uint64_t margin = until + 2 * log->page < tail ? until + 2 * log->page : tail;
    int rc = 0;

    if (margin > atomic_load(&log->flushed))
        rc = hlog_flush(log, margin);
    if (rc == 0)
        evict(log, until);
    if (rc == 0 && atomic_load(&log->safe_head) < must) {
        rc = hlog_flush(log, tail);
        evict(log, until);
    }
    return rc;
}

int hlog_evict(struct hlog *log, uint64_t until)
{
    return flush_and_evict(log, until, 0);
}

int hlog_make_room(struct hlog *log, uint64_t bytes, enum hlog_taker taker)
{
    uint64_t tail = atomic_load(&log->tail);
    uint64_t end = tail + bytes;
    int rc = promise_space(log, end + hlog_left_by(log, taker));

    if (rc < 0)
        return rc;
    uint64_t limit = limit_of(log);
    if (end <= atomic_load(&log->safe_head) + limit)
        return 0;
    uint64_t want = end - limit, spare = want + limit / 8;
    return flush_and_evict(log, spare < tail ? spare : tail, want);
}

static uint64_t mutable_bytes(const struct hlog *log)
{
    uint64_t most = limit_of(log) / 4 * 3;

    return log->mutable_bytes < most ? log->mutable_bytes : most;
}

void hlog_limit(struct hlog *log, uint64_t bytes)
{
    if (bytes < log->least)
        bytes = log->least;
    atomic_store_explicit(&log->limit, bytes < log->size ? bytes : log->size, memory_order_relaxed);
}

/* Has the kernel clear frames before they are needed, the first time round: a third of what an append costs. */
static void populate(struct hlog *log, uint64_t tail)
{
    uint64_t from = atomic_load_explicit(&log->populated, memory_order_relaxed); /* written under flush_lock only */

    if (from == UINT64_MAX || tail + POPULATE_BYTES / 2 <= from)
        return;
    uint64_t to = round_up(tail, POPULATE_BYTES) + POPULATE_BYTES, at = from & (log->size - 1);
    uint64_t len = to - from < log->size - at ? to - from : log->size - at;
    (void)madvise(log->frames + at, len, MADV_POPULATE_WRITE); /* an older kernel does it when they are needed */
    bool all = from + len >= log->populate_end;
    atomic_store_explicit(&log->populated, all ? UINT64_MAX : from + len, memory_order_relaxed);
}

bool hlog_wants_maintenance(const struct hlog *log)
{
    /* relaxed: a hint; the worker looks again under flush_lock */
    uint64_t tail = atomic_load_explicit(&log->tail, memory_order_relaxed), limit = limit_of(log);

    return tail - atomic_load_explicit(&log->flushed, memory_order_relaxed) > mutable_bytes(log) + limit / 16 ||
           tail + POPULATE_BYTES / 2 > atomic_load_explicit(&log->populated, memory_order_relaxed) ||
           tail - atomic_load_explicit(&log->safe_head, memory_order_relaxed) > limit - limit / 8 ||
           tail + hlog_left_by(log, HLOG_WRITES) + (1u << 20) > atomic_load_explicit(&log->space, memory_order_relaxed);
}

int hlog_maintain(struct hlog *log)
{
    uint64_t tail = atomic_load(&log->tail);
    int rc = 0;

    (void)promise_space(log,
                        tail + hlog_left_by(log, HLOG_WRITES) + (2u << 20)); /* ENOSPC is told to whoever needs it */
    populate(log, tail);
    uint64_t keep = limit_of(log) / 4 * 3;
    if (tail - atomic_load(&log->flushed) > mutable_bytes(log))
        rc = hlog_flush(log, tail - mutable_bytes(log));
    if (rc == 0 && tail - atomic_load(&log->safe_head) > keep)
        evict(log, tail - keep);
    return rc;
}
