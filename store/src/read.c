// SPDX-License-Identifier: MIT
/*
 * Reads: index, chain in memory, then one device read per hop of the chain.
 *
 * The part in memory runs inside one epoch. A record at or above safe_ro may be changing and is read
 * as record.h says; below, it is immutable. What the device returns is believed only after its checksum, which
 * is bound to the address, was verified.
 *
 * Invariants:
 *   1. A read of the live store begins with `begin`, then takes the entry: an entry that compaction had not
 *      moved by then leads to a record that was at or above that `begin`.
 *   2. What the device gives below the `begin` of now is worth nothing, good or bad: its space may have been
 *      given back, and the key is elsewhere or gone. The read starts again. A pinned one (snapshots, scans,
 *      compaction's own) never meets that: its log is kept.
 *   3. A read that is pending is in exactly one of: the session's waiting list, the hands of one store_io.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH 16u /* misses of memory that a core can have in flight, more or less */

/* ---- taking a value ------------------------------------------------------------------------------- */

static void copy_out(struct store_read *read, const void *value, uint32_t len)
{
    read->value_len = len;
    read->copied = 0;
    if (read->offset < len) {
        read->copied = len - read->offset < read->buf_len ? len - read->offset : read->buf_len;
        if (read->copied > 0)
            memcpy(read->buf, (const uint8_t *)value + read->offset, read->copied);
    }
}

static int take_record(struct store_read *read, struct record *r, uint64_t link)
{
    if (link & RECORD_TOMBSTONE)
        return STORE_NOT_FOUND;
    copy_out(read, record_value(r), r->value_len);
    return STORE_OK;
}

static int take_changing(struct store_read *read, struct record *r)
{
    if (record_is_small(r)) {
        uint64_t words[RECORD_SMALL / 8];
        uint32_t len;
        if (record_get(r, words, &len) & RECORD_TOMBSTONE)
            return STORE_NOT_FOUND;
        copy_out(read, words, len);
        return STORE_OK;
    }
    record_lock_shared(r);
    int rc = take_record(read, r, atomic_load_explicit(&r->link, memory_order_relaxed)); /* the lock orders */
    record_unlock_shared(r);
    return rc;
}

/* ---- memory (inside an epoch) --------------------------------------------------------------------- */

/* Walks the chain as far as memory goes, the log's and the cache's. STORE_PENDING: read->priv.address is on the device. */
static int walk_memory(struct store *store, struct store_read *read)
{
    struct hlog *log = &store->log;
    uint64_t head = atomic_load(&log->head);
    uint64_t safe_ro = atomic_load(&log->safe_ro);
    uint64_t at = read->priv.address;

    while (at >= read->priv.low) {
        struct record *r = at >= head ? hlog_at(log, at) : cache_find(&store->cache, at);
        if (!r)
            break;
        if (at < read->priv.ceiling && record_has_key(r, read->key, read->key_len)) {
            read->priv.address = at;
            return at >= safe_ro ? take_changing(read, r)
                                 : take_record(read, r, atomic_load_explicit(&r->link, memory_order_relaxed));
        }
        /* relaxed: the address part is constant since the publication that led here */
        at = atomic_load_explicit(&r->link, memory_order_relaxed) & ADDRESS_MASK;
    }
    read->priv.address = at;
    return at < read->priv.low ? STORE_NOT_FOUND : STORE_PENDING;
}

/* Where the chain of the key begins. */
static void find_chain(struct store *store, struct store_read *read)
{
    const struct store_snapshot *snapshot = read->snapshot;

    read->priv.entry = 0;
    if (snapshot) {
        read->priv.low = snapshot->at.begin.address;
        read->priv.ceiling = snapshot->at.end.address;
        read->priv.address = snapshot->image ? index_image_find(snapshot->image, read->priv.hash) : 0;
        return;
    }
    if (!read->priv.pinned) {
        read->priv.low = atomic_load(&store->log.begin); /* invariant 1 */
        read->priv.ceiling = UINT64_MAX;
    }
    if (!index_find(store->index, read->priv.hash, &read->priv.entry))
        read->priv.entry = 0;
    read->priv.address = index_address(read->priv.entry);
}

/* ---- the device ----------------------------------------------------------------------------------- */

static void io_done(struct device_io *io);

static void io_put(struct store_session *s, struct store_io *sio)
{
    free(sio->large);
    sio->large = NULL;
    sio->next = s->free_ios;
    s->free_ios = sio;
}

void io_end(struct store_io *sio, int result)
{
    struct store_session *s = sio->session;
    struct store_read *read = sio->read;

    io_put(s, sio);
    s->pending--;
    read->result = result;
    if (read->done)
        read->done(read);
}

/* `r`: the record that was looked for, in the buffer, or NULL. */
static void conclude(struct store_io *sio, int result, struct record *r)
{
    if (sio->read->priv.take)
        sio->read->priv.take(sio, result, r);
    else
        io_end(sio, result);
}

/* No record that begins at the address reaches beyond this: the end of its segment, or of what there is of it. */
static uint64_t io_stop(const struct store_io *sio)
{
    struct store *store = sio->session->store;
    uint64_t segment = round_up(sio->address + 1, store->superblock.segment_bytes);
    uint64_t log = device_log_allocated(store->device_log);

    return segment < log ? segment : log;
}

/* Reads `bytes` from the record's address on. */
static void io_submit(struct store_io *sio, uint64_t bytes)
{
    struct store *store = sio->session->store;
    uint64_t first = sio->address & ~(uint64_t)(HLOG_BLOCK - 1);
    uint64_t end = round_up(sio->address + bytes, HLOG_BLOCK), stop = io_stop(sio);

    if (end > stop)
        end = stop;
    if (first >= end) {
        conclude(sio, -EIO, NULL);
        return;
    }
    uint8_t *buffer = sio->buffer;
    if (end - first > READ_BUFFER_BYTES) {
        free(sio->large);
        buffer = sio->large = aligned_alloc(HLOG_BLOCK, end - first);
        if (!buffer) {
            conclude(sio, -ENOMEM, NULL);
            return;
        }
    }
    sio->io = (struct device_io){.op = DEVICE_READ, .buf = buffer, .len = (uint32_t)(end - first), .done = io_done};
    count_one(&sio->session->reads_device);
    if (++sio->session->unsent % SESSION_SEND == 0)
        device_log_submit(store->device_log, sio->session->queue, &sio->io, first);
    else
        device_log_submit_later(store->device_log, sio->session->queue, &sio->io, first);
}

static uint64_t guess_bytes(const struct store_read *read)
{
    return record_bytes(read->key_len, read->value_hint);
}

/* The record in the buffer: 1 sound, 0 more bytes are needed (*ret_bytes), -EIO damaged. */
static int io_check(struct store_io *sio, struct record **ret_record, uint64_t *ret_bytes)
{
    struct store *store = sio->session->store;
    uint64_t skip = sio->address % HLOG_BLOCK;
    uint64_t have = (uint64_t)sio->io.result - skip;
    struct record *r = (struct record *)((uint8_t *)sio->io.buf + skip);

    if (sio->address % 8 != 0 || (uint64_t)sio->io.result < skip + RECORD_HEADER_BYTES)
        return -EIO;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a private copy */
    uint64_t size = record_size(r);
    if ((link & (RECORD_PAD | RECORD_COMMIT)) || r->value_len > r->capacity || sio->address + size > io_stop(sio) ||
        (link & ADDRESS_MASK) >= sio->address)
        return -EIO;
    if (have < size) {
        *ret_bytes = size;
        return sio->io.len >= round_up(skip + size, HLOG_BLOCK) ? -EIO : 0;
    }
    if (record_checksum(r, link, sio->address, store->store_id) !=
        atomic_load_explicit(&r->seal, memory_order_relaxed))
        return -EIO;
    *ret_record = r;
    return 1;
}

void io_again(struct store_io *sio, uint64_t address)
{
    sio->address = address;
    io_submit(sio, guess_bytes(sio->read));
}

/* The log was given back under the read's feet: once more from the index. */
static void start_again(struct store_io *sio)
{
    struct store_session *s = sio->session;
    struct store_read *read = sio->read;

    epoch_enter(s->store->epoch, s->slot);
    find_chain(s->store, read);
    int rc = walk_memory(s->store, read);
    epoch_leave(s->slot);
    if (rc != STORE_PENDING)
        conclude(sio, rc, NULL);
    else
        io_again(sio, read->priv.address);
}

/* A sound record: the one that is wanted, or the next hop. */
static void take_or_hop(struct store_io *sio, struct record *r)
{
    struct store_read *read = sio->read;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed);

    read->priv.address = sio->address;
    if (sio->address < read->priv.ceiling && record_has_key(r, read->key, read->key_len)) {
        conclude(sio, take_record(read, r, link), r);
        return;
    }
    read->priv.address = link & ADDRESS_MASK;
    if (read->priv.address < read->priv.low)
        conclude(sio, STORE_NOT_FOUND, NULL);
    else
        io_again(sio, read->priv.address);
}

static void take(struct store_io *sio, struct record *r)
{
    if (!sio->read->priv.pinned) /* compaction and scans look at everything once */
        cache_insert(&sio->session->store->cache, sio->address, r, record_size(r));
    take_or_hop(sio, r);
}

static void io_done(struct device_io *io)
{
    struct store_io *sio = (struct store_io *)io;
    struct store_read *read = sio->read;
    struct record *r = NULL;
    uint64_t bytes = 0;
    int rc = io->result < 0 ? (int)io->result : io_check(sio, &r, &bytes);

    if (rc == 0)
        io_submit(sio, bytes);
    else if (rc > 0)
        take(sio, r);
    else if (read->snapshot || read->priv.pinned || sio->address >= atomic_load(&sio->session->store->log.begin))
        conclude(sio, rc, NULL);
    else
        start_again(sio);
}

static void start_waiting(struct store_session *s)
{
    while (s->waiting_first && s->free_ios) {
        struct store_read *read = s->waiting_first;
        struct store_io *sio = s->free_ios;
        s->waiting_first = read->priv.next;
        s->free_ios = sio->next;
        sio->read = read;
        sio->address = read->priv.address;
        io_submit(sio, guess_bytes(read));
    }
}

static int pend(struct store_session *s, struct store_read *read)
{
    read->priv.next = NULL;
    if (s->waiting_first)
        s->waiting_last->priv.next = read;
    else
        s->waiting_first = read;
    s->waiting_last = read;
    s->pending++;
    start_waiting(s);
    return read->result = STORE_PENDING;
}

/* ---- calls ---------------------------------------------------------------------------------------- */

static int end_in_memory(struct store_session *s, struct store_read *read, int rc)
{
    count_one(&s->reads_memory);
    return read->result = rc;
}

int store_read(struct store_session *s, struct store_read *read)
{
    struct store *store = s->store;

    if (read->key_len == 0 || read->key_len > STORE_KEY_MAX)
        return read->result = -EINVAL;
    read->priv.hash = hash_key(read->key, read->key_len);
    epoch_enter(store->epoch, s->slot);
    find_chain(store, read);
    int rc = walk_memory(store, read);
    epoch_leave(s->slot);
    return rc == STORE_PENDING ? pend(s, read) : end_in_memory(s, read, rc);
}

/* Asks the processor for the record that a chain begins with, where it is in memory. */
static void prefetch_record(struct store *store, const struct store_read *read)
{
    struct hlog *log = &store->log;
    uint64_t address = read->priv.address;

    /* relaxed: a hint; an evicted frame is still mapped */
    if (address >= atomic_load_explicit(&log->head, memory_order_relaxed))
        hlog_prefetch(log, address, record_bytes(read->key_len, read->buf_len), false);
}

static unsigned read_group(struct store_session *s, struct store_read *reads, unsigned count)
{
    struct store *store = s->store;
    unsigned pending = 0;

    for (struct store_read *read = reads; read < reads + count; read++) {
        read->result = read->key_len == 0 || read->key_len > STORE_KEY_MAX ? -EINVAL : 0;
        if (read->result < 0)
            continue;
        read->priv.hash = hash_key(read->key, read->key_len);
        index_prefetch(store->index, read->priv.hash);
    }
    epoch_enter(store->epoch, s->slot);
    for (struct store_read *read = reads; read < reads + count; read++)
        if (read->result == 0) {
            find_chain(store, read);
            prefetch_record(store, read);
        }
    for (struct store_read *read = reads; read < reads + count; read++)
        if (read->result == 0)
            read->result = walk_memory(store, read);
    epoch_leave(s->slot);
    for (struct store_read *read = reads; read < reads + count; read++)
        if (read->result == STORE_PENDING) {
            pend(s, read);
            pending++;
        }
    add_to(&s->reads_memory, count - pending);
    return pending;
}

unsigned store_read_batch(struct store_session *s, struct store_read *reads, unsigned count)
{
    unsigned pending = 0;

    for (unsigned at = 0; at < count; at += BATCH)
        pending += read_group(s, reads + at, count - at < BATCH ? count - at : BATCH);
    return pending;
}

int read_newest(struct store_session *s, struct store_read *read, uint64_t low, uint64_t ceiling)
{
    read->priv.pinned = true;
    read->priv.low = low;
    read->priv.ceiling = ceiling;
    return store_read(s, read);
}

bool read_is_newest(struct store_session *s, struct store_read *read, uint64_t address)
{
    read->priv.hash = hash_key(read->key, read->key_len);
    read->priv.pinned = true;
    read->priv.low = address + 1;
    read->priv.ceiling = UINT64_MAX;
    epoch_enter(s->store->epoch, s->slot);
    find_chain(s->store, read);
    int rc = walk_memory(s->store, read);
    epoch_leave(s->slot);
    return rc == STORE_NOT_FOUND && read->priv.address == address;
}

int read_from(struct store_session *s, struct store_read *read, uint64_t address)
{
    read->priv.hash = hash_key(read->key, read->key_len);
    read->priv.address = address;
    read->priv.low = atomic_load(&s->store->log.begin);
    read->priv.ceiling = UINT64_MAX;
    return pend(s, read);
}

/* Moves pending reads on, once; with `wait`, sleeps until the device has answered. */
static void move_on(struct store_session *s, bool wait)
{
    s->unsent = 0;
    device_poll(s->queue, wait);
    start_waiting(s);
}

unsigned store_complete_pending(struct store_session *s, bool wait)
{
    while (s->pending > 0) {
        move_on(s, wait);
        if (!wait)
            break;
    }
    return s->pending;
}

unsigned store_complete_some(struct store_session *s)
{
    for (unsigned before = s->pending; s->pending > 0 && s->pending == before;)
        move_on(s, true);
    return s->pending;
}

int store_read_wait(struct store_session *s, struct store_read *read)
{
    int rc = store_read(s, read);

    if (rc == STORE_PENDING)
        store_complete_pending(s, true);
    return read->result;
}

int store_get(struct store_session *s, const void *key, uint32_t key_len, void *buf, uint32_t buf_len,
              uint32_t *ret_len)
{
    struct store_read read = {.key = key, .key_len = key_len, .buf = buf, .buf_len = buf_len, .value_hint = buf_len};
    int rc = store_read_wait(s, &read);

    if (rc == STORE_OK)
        *ret_len = read.value_len;
    return rc;
}
