// SPDX-License-Identifier: MIT
/*
 * Reads: index, chain in memory, then one device read per hop of the chain.
 *
 * The part in memory runs inside one epoch. A record at or above safe_ro may be changing and is read
 * under its shared lock; below, it is immutable. What the device returns is believed only after its
 * checksum, which is bound to the address, was verified.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>

static void copy_out(struct store_read *read, struct record *r)
{
    uint32_t len = r->value_len;

    read->value_len = len;
    read->copied = 0;
    if (read->offset < len) {
        read->copied = len - read->offset < read->buf_len ? len - read->offset : read->buf_len;
        if (read->copied > 0)
            memcpy(read->buf, record_value(r) + read->offset, read->copied);
    }
}

static int take_record(struct store_read *read, struct record *r, uint64_t link)
{
    if (link & RECORD_TOMBSTONE)
        return STORE_NOT_FOUND;
    copy_out(read, r);
    return STORE_OK;
}

/* Walks the chain as far as memory goes. STORE_PENDING: read->priv.address is on the device. Inside an
 * epoch. */
static int walk_memory(struct store *store, struct store_read *read)
{
    struct hlog *log = &store->log;
    uint64_t head = atomic_load(&log->head);
    uint64_t safe_ro = atomic_load(&log->safe_ro);
    uint64_t ceiling = read->snapshot ? read->snapshot->at.address : UINT64_MAX;
    uint64_t at = read->priv.address;

    while (at >= head && at >= read->priv.low) {
        struct record *r = hlog_at(log, at);
        if (at >= ceiling || !record_has_key(r, read->key, read->key_len)) {
            /* relaxed: the address part is constant since the publication that led here */
            at = atomic_load_explicit(&r->link, memory_order_relaxed) & ADDRESS_MASK;
            continue;
        }
        bool changing = at >= safe_ro;
        if (changing)
            record_lock_shared(r);
        int rc = take_record(read, r, atomic_load_explicit(&r->link, memory_order_relaxed)); /* the lock orders */
        if (changing)
            record_unlock_shared(r);
        return rc;
    }
    read->priv.address = at;
    return at < read->priv.low ? STORE_NOT_FOUND : STORE_PENDING;
}

/* ---- the device ----------------------------------------------------------------------------------- */

static void io_done(struct device_io *io);

static void finish(struct store_session *s, struct store_read *read, int result)
{
    read->result = result;
    s->pending--;
}

static void io_put(struct store_session *s, struct store_io *sio)
{
    free(sio->large);
    sio->large = NULL;
    sio->next = s->free_ios;
    s->free_ios = sio;
}

/* Reads `bytes` from the record's address on. */
static void io_submit(struct store_io *sio, uint64_t bytes)
{
    struct store *store = sio->session->store;
    uint64_t first = sio->address & ~(uint64_t)(HLOG_BLOCK - 1);
    uint64_t end = round_up(sio->address + bytes, HLOG_BLOCK);
    uint64_t stop = round_up(first + 1, store->superblock.segment_bytes);

    if (end > stop)
        end = stop;
    uint8_t *buffer = sio->buffer;
    if (end - first > READ_BUFFER_BYTES) {
        free(sio->large);
        buffer = sio->large = aligned_alloc(HLOG_BLOCK, end - first);
        if (!buffer) {
            struct store_session *s = sio->session;
            finish(s, sio->read, -ENOMEM);
            io_put(s, sio);
            return;
        }
    }
    sio->io = (struct device_io){.op = DEVICE_READ, .buf = buffer, .len = (uint32_t)(end - first), .done = io_done};
    atomic_fetch_add_explicit(&store->reads_device, 1, memory_order_relaxed);
    device_log_submit(store->device_log, sio->session->queue, &sio->io, first);
}

/* The record in the buffer: 1 sound, 0 more bytes are needed (*ret_bytes), -EIO damaged. */
static int io_check(struct store_io *sio, struct record **ret_record, uint64_t *ret_bytes)
{
    struct store *store = sio->session->store;
    uint64_t skip = sio->address % HLOG_BLOCK;
    uint64_t have = (uint64_t)sio->io.result - skip;
    struct record *r = (struct record *)((uint8_t *)sio->io.buf + skip);

    if ((uint64_t)sio->io.result < skip + RECORD_HEADER_BYTES)
        return -EIO;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a private copy */
    uint64_t size = record_size(r);
    if ((link & (RECORD_PAD | RECORD_COMMIT)) || r->value_len > r->capacity || size > store->superblock.segment_bytes ||
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

static uint64_t guess_bytes(const struct store_read *read)
{
    return record_bytes(read->key_len, read->value_hint);
}

static void io_done(struct device_io *io)
{
    struct store_io *sio = (struct store_io *)io;
    struct store_session *s = sio->session;
    struct store_read *read = sio->read;
    struct record *r = NULL;
    uint64_t bytes = 0;
    int rc = io->result < 0 ? (int)io->result : io_check(sio, &r, &bytes);

    if (rc == 0) {
        io_submit(sio, bytes);
        return;
    }
    if (rc > 0) {
        uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed);
        uint64_t ceiling = read->snapshot ? read->snapshot->at.address : UINT64_MAX;
        if (sio->address >= ceiling || !record_has_key(r, read->key, read->key_len)) {
            sio->address = link & ADDRESS_MASK;
            if (sio->address >= read->priv.low) {
                io_submit(sio, guess_bytes(read));
                return;
            }
            rc = STORE_NOT_FOUND;
        } else {
            rc = take_record(read, r, link);
        }
    }
    finish(s, read, rc);
    io_put(s, sio);
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
    return STORE_PENDING;
}

int read_from(struct store_session *s, struct store_read *read, uint64_t address)
{
    read->priv.address = address;
    read->priv.low = atomic_load(&s->store->log.begin);
    pend(s, read);
    store_complete_pending(s, true);
    return read->result;
}

int store_read(struct store_session *s, struct store_read *read)
{
    struct store *store = s->store;
    uint64_t hash = hash_key(read->key, read->key_len);
    uint64_t address = 0;

    if (read->key_len == 0 || read->key_len > STORE_KEY_MAX)
        return read->result = -EINVAL;
    epoch_enter(store->epoch, s->slot);
    read->priv.low = atomic_load(&store->log.begin);
    if (read->snapshot) {
        address = read->snapshot->image ? index_image_find(read->snapshot->image, hash) : 0;
        read->priv.low = read->snapshot->at.begin;
    } else {
        index_slot *slot = index_find(store->index, hash);
        if (slot) /* acquire: pairs with the publication in unit.c, the record is complete */
            address = index_address(atomic_load_explicit(slot, memory_order_acquire));
    }
    read->priv.address = address;
    int rc = walk_memory(store, read);
    epoch_leave(s->slot);
    if (rc == STORE_PENDING)
        return read->result = pend(s, read);
    atomic_fetch_add_explicit(&store->reads_memory, 1, memory_order_relaxed);
    return read->result = rc;
}

unsigned store_complete_pending(struct store_session *s, bool wait)
{
    start_waiting(s);
    do {
        if (s->pending == 0)
            break;
        device_poll(s->queue, wait);
        start_waiting(s);
    } while (wait);
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
