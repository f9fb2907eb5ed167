// SPDX-License-Identifier: MIT
/*
 * Reads: index, chain in memory, then one device read per hop of the chain.
 *
 * The part in memory runs inside one epoch. A record at or above safe_ro may be changing and is read
 * as record.h says; below, it is immutable. What the device returns is believed only after its checksum, which
 * is bound to the address, was verified. For a small part of a large value it is asked for the record's head (the cache
 * keeps it), then for the blocks.
 *
 * Invariants:
 *   1. A read of the live store begins with `begin`, then takes the entry: an entry that compaction had not
 *      moved by then leads to a record that was at or above that `begin`.
 *   2. What the device gives below the `begin` of now is worth nothing, good or bad: its space may have been
 *      given back, and the key is elsewhere or gone. The read starts again. A pinned one (snapshots, scans,
 *      compaction's own) never meets that: its log is kept.
 *   3. A snapshot's image is read before the epoch is entered: that may wait for the disk.
 *   4. A read that is pending is in exactly one of: the session's waiting list, the hands of one store_io.
 *   5. Bytes of the log come through log_read.c, from the device or from a window: they are checked alike.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>

#define HEAD_BYTES_MAX (READ_BUFFER_BYTES / 2 - HLOG_BLOCK) /* blocks find room behind it */
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

static int take_small(struct store_read *read, struct record *r)
{
    uint8_t value[RECORD_SMALL];
    bool whole = read->offset == 0;
    uint32_t room = whole ? read->buf_len : RECORD_SMALL;

    if (record_get(r, whole ? read->buf : value, room, &read->value_len) & RECORD_TOMBSTONE)
        return STORE_NOT_FOUND;
    if (whole)
        read->copied = read->value_len < room ? read->value_len : room;
    else
        copy_out(read, value, read->value_len);
    return STORE_OK;
}

static int take_changing(struct store_read *read, struct record *r)
{
    if (record_is_small(r))
        return take_small(read, r);
    record_lock_shared(r);
    int rc = take_record(read, r, atomic_load_explicit(&r->link, memory_order_relaxed)); /* the lock orders */
    record_unlock_shared(r);
    return rc;
}

/* ---- memory (inside an epoch) --------------------------------------------------------------------- */

/* The record at `at` is on the device, and its head may be in the cache. STORE_PENDING if what is wanted of it is to
 * be read from there; STORE_NOT_FOUND if it is another key's: *at is the next of the chain. */
static int walk_head(struct store *store, struct store_read *read, uint64_t *at)
{
    const struct record *head = cache_find_head(&store->cache, *at);

    if (!head)
        return STORE_PENDING;
    if (*at < read->priv.ceiling && record_has_key(head, read->key, read->key_len)) {
        if (read->buf_len > 0 || read->priv.take)
            return STORE_PENDING;
        read->value_len = head->value_len;
        read->copied = 0;
        return STORE_OK;
    }
    *at = atomic_load_explicit(&head->link, memory_order_relaxed) & ADDRESS_MASK; /* constant */
    return STORE_NOT_FOUND;
}

/* Walks the chain as far as memory goes, the log's and the cache's. STORE_PENDING: read->priv.address is on the device.
 */
static int walk_memory(struct store *store, struct store_read *read)
{
    struct hlog *log = &store->log;
    uint64_t head = atomic_load(&log->head);
    uint64_t safe_ro = atomic_load(&log->safe_ro);
    uint64_t at = read->priv.address;

    while (at >= read->priv.low) {
        struct record *r = at >= head ? hlog_at(log, at) : cache_find(&store->cache, at);
        if (!r) {
            int rc = walk_head(store, read, &at);
            if (rc == STORE_NOT_FOUND)
                continue;
            read->priv.address = at;
            return rc;
        }
        if (at < read->priv.ceiling && record_has_key(r, read->key, read->key_len)) {
            read->priv.address = at;
            return at >= safe_ro ? take_changing(read, r)
                                 : take_record(read, r, atomic_load_explicit(&r->link, memory_order_relaxed));
        }
        /* relaxed: the address part is constant since the publication that led here */
        at = atomic_load_explicit(&r->link, memory_order_relaxed) & ADDRESS_MASK;
    }
    read->priv.address = at;
    return STORE_NOT_FOUND;
}

/* Where the chain of the key begins in the snapshot. Reads the image: outside of the epoch. 0 or -errno. */
static int find_in_snapshot(struct store_read *read)
{
    const struct store_snapshot *snapshot = read->snapshot;

    read->priv.entry = 0;
    if (!read->priv.pinned) {
        read->priv.low = snapshot->at.begin.address;
        read->priv.ceiling = snapshot->at.end.address;
    }
    return index_image_find(&snapshot->image.index, read->priv.hash, &read->priv.address);
}

/* Where the chain of the key begins in the live store. */
static void find_chain(struct store *store, struct store_read *read)
{
    read->priv.entry = 0;
    if (!read->priv.pinned) {
        read->priv.low = atomic_load(&store->log.begin); /* invariant 1 */
        read->priv.ceiling = UINT64_MAX;
    }
    if (!index_find(store->index, read->priv.hash, &read->priv.entry))
        read->priv.entry = 0;
    read->priv.address = index_address(read->priv.entry);
}

/* ---- the device ----------------------------------------------------------------------------------- */

static void io_put(struct store_session *s, struct store_io *sio)
{
    free(sio->large);
    sio->large = NULL;
    sio->next = s->free_ios;
    s->free_ios = sio;
}

void read_end(struct store_session *s, struct store_read *read, int result)
{
    s->pending--;
    read->result = result;
    if (read->done)
        read->done(read);
}

void io_end(struct store_io *sio, int result)
{
    io_put(sio->session, sio);
    read_end(sio->session, sio->read, result);
}

/* Has a chain ended, not in a tombstone, and may the cold level have the key? */
static bool goes_on_in_cold(const struct store *store, const struct store_read *read, int result)
{
    return result == STORE_NOT_FOUND && store->cold && (!read->snapshot || read->snapshot->cold) &&
           !read->priv.pinned && read->priv.address < read->priv.low;
}

static void conclude_in_cold(struct store_io *sio)
{
    struct store_session *s = sio->session;
    struct store_read *read = sio->read;

    io_put(s, sio);
    int rc = cold_ask(s, read);
    if (rc != STORE_PENDING)
        read_end(s, read, rc);
}

/* `r`: the record that was looked for, in the buffer, or NULL. */
static void conclude(struct store_io *sio, int result, struct record *r)
{
    if (sio->read->priv.take)
        sio->read->priv.take(sio, result, r);
    else if (goes_on_in_cold(sio->session->store, sio->read, result))
        conclude_in_cold(sio);
    else
        io_end(sio, result);
}

/* Is it little of a value of `value_len` bytes? */
static bool is_part(const struct store_read *read, uint32_t value_len)
{
    return !read->priv.take && value_len > RECORD_WHOLE && read->buf_len <= value_len / 2 &&
           record_head_bytes(read->key_len, value_len) <= HEAD_BYTES_MAX;
}

/* What to ask for first: the record, or its head, and with it a part that begins soon. */
static uint64_t guess_bytes(const struct store_read *read)
{
    if (!is_part(read, read->value_hint))
        return record_bytes(read->key_len, read->value_hint);
    uint64_t head = record_head_bytes(read->key_len, read->value_hint);
    uint64_t end = round_up((uint64_t)read->offset + read->buf_len, RECORD_BLOCK);
    return end <= 2 * RECORD_BLOCK ? head + end : head;
}

static void start_io(struct store_io *sio);

void io_again(struct store_io *sio, uint64_t address)
{
    sio->address = address;
    start_io(sio);
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
        cache_insert(&sio->session->store->cache, sio->session->slot, sio->address, r);
    take_or_hop(sio, r);
}

/* ---- parts of large values -------------------------------------------------------------------------- */

/* The blocks that hold the part. */
static void find_blocks(struct store_io *sio, const struct record *head)
{
    uint64_t end = (uint64_t)sio->read->offset + sio->read->buf_len;

    if (end > head->value_len)
        end = head->value_len;
    sio->first = sio->read->offset / RECORD_BLOCK;
    sio->end = round_up(end, RECORD_BLOCK) / RECORD_BLOCK;
    if (sio->read->offset >= end)
        sio->end = sio->first;
}

/* The part, from sound blocks at `bytes`. */
static void take_blocks(struct store_io *sio, const struct record *head, const uint8_t *bytes)
{
    struct store_read *read = sio->read;

    read->priv.address = sio->address;
    read->value_len = head->value_len;
    read->copied = 0;
    if (sio->first < sio->end) {
        uint32_t rest = head->value_len - read->offset;
        read->copied = rest < read->buf_len ? rest : read->buf_len;
        memcpy(read->buf, bytes + read->offset % RECORD_BLOCK, read->copied);
    }
    conclude(sio, STORE_OK, NULL);
}

/* Where they are in the record. */
static uint64_t blocks_at(const struct store_io *sio, const struct record *head)
{
    return record_head_bytes(record_key_len(head), head->capacity) + sio->first * RECORD_BLOCK;
}

static uint64_t blocks_bytes(const struct store_io *sio, const struct record *head)
{
    uint64_t end = sio->end * RECORD_BLOCK;

    return (end < head->value_len ? end : head->value_len) - sio->first * RECORD_BLOCK;
}

/* `head` stays in the buffer. */
static void submit_blocks(struct store_io *sio, const struct record *head)
{
    uint64_t head_end = (uint64_t)((const uint8_t *)head - sio->buffer) +
                        record_head_bytes(record_key_len(head), head->capacity);

    sio->head = head;
    log_read(sio, sio->address + blocks_at(sio, head), blocks_bytes(sio, head), head_end, false);
}

/* A sound head in the buffer, with `have` bytes of the record. 0: under way or done; -EIO. */
static int take_head(struct store_io *sio, struct record *head, uint64_t have)
{
    if (sio->address >= sio->read->priv.ceiling || !record_has_key(head, sio->read->key, sio->read->key_len)) {
        take_or_hop(sio, head);
        return 0;
    }
    find_blocks(sio, head);
    if (sio->first < sio->end && blocks_at(sio, head) + blocks_bytes(sio, head) > have) {
        submit_blocks(sio, head);
        return 0;
    }
    const uint8_t *bytes = (const uint8_t *)head + blocks_at(sio, head);
    if (!record_blocks_are_sound(head, sio->first, sio->end, bytes))
        return -EIO;
    take_blocks(sio, head, bytes);
    return 0;
}

/* The blocks have come. 0 or -EIO. */
static int check_blocks(struct store_io *sio)
{
    const struct record *head = sio->head;
    uint64_t skip = (sio->address + blocks_at(sio, head)) % HLOG_BLOCK;
    const uint8_t *bytes = (const uint8_t *)sio->io.buf + skip;

    if ((uint64_t)sio->io.result < skip + blocks_bytes(sio, head) ||
        !record_blocks_are_sound(head, sio->first, sio->end, bytes))
        return -EIO;
    take_blocks(sio, head, bytes);
    return 0;
}

/* ---- what the device gave ------------------------------------------------------------------------------ */

/* The record, or its head, has come. 0: under way or done; -EIO. */
static int check_record(struct store_io *sio)
{
    struct store *store = sio->session->store;
    uint64_t skip = sio->address % HLOG_BLOCK;
    uint64_t have = (uint64_t)sio->io.result - skip;
    struct record *r = (struct record *)((uint8_t *)sio->io.buf + skip);

    if (sio->address % 8 != 0 || (uint64_t)sio->io.result < skip + RECORD_HEADER_BYTES)
        return -EIO;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a private copy */
    uint64_t used = record_used_bytes(r);
    if ((link & (RECORD_PAD | RECORD_COMMIT)) || r->value_len > r->capacity ||
        sio->address + record_size(r) > log_read_stop(store, sio->address) || (link & ADDRESS_MASK) >= sio->address)
        return -EIO;
    if (have >= used) {
        if (!record_is_sound(r, link, sio->address, store->store_id))
            return -EIO;
        take(sio, r);
        return 0;
    }
    uint64_t head = record_head_bytes(record_key_len(r), r->capacity);
    bool part = is_part(sio->read, r->value_len) && sio->io.buf == sio->buffer && head <= HEAD_BYTES_MAX;
    if (!part || have < head) {
        if (sio->io.len >= round_up(skip + (part ? head : used), HLOG_BLOCK))
            return -EIO;
        log_read(sio, sio->address, part ? head : used, 0, false);
        return 0;
    }
    if (!record_head_is_sound(r, link, sio->address, store->store_id))
        return -EIO;
    if (!sio->read->priv.pinned)
        cache_insert_head(&store->cache, sio->session->slot, sio->address, r);
    return take_head(sio, r, have);
}

/* If the cache has the head of the record that is wanted, puts it into the buffer, and finds the blocks. */
static bool find_head(struct store_io *sio)
{
    struct store *store = sio->session->store;
    struct store_read *read = sio->read;

    if (!is_part(read, read->value_hint) || sio->address >= read->priv.ceiling)
        return false;
    epoch_enter(store->epoch, sio->session->slot);
    const struct record *head = cache_find_head(&store->cache, sio->address);
    bool found = head && record_has_key(head, read->key, read->key_len);
    if (found)
        memcpy(sio->buffer, head, record_head_bytes(record_key_len(head), head->capacity));
    epoch_leave(sio->session->slot);
    if (found)
        find_blocks(sio, (struct record *)(void *)sio->buffer);
    return found && sio->first < sio->end;
}

static void start_io(struct store_io *sio)
{
    sio->head = NULL;
    if (find_head(sio))
        submit_blocks(sio, (struct record *)(void *)sio->buffer);
    else
        log_read(sio, sio->address, guess_bytes(sio->read), 0, !is_part(sio->read, sio->read->value_hint));
}

void io_done(struct device_io *io)
{
    struct store_io *sio = (struct store_io *)io;
    struct store_read *read = sio->read;
    int rc = io->result < 0 ? (int)io->result : sio->head ? check_blocks(sio) : check_record(sio);

    if (rc == 0)
        return;
    if (sio->served)
        log_read_again(sio);
    else if (read->snapshot || read->priv.pinned || sio->address >= atomic_load(&sio->session->store->log.begin))
        conclude(sio, rc, NULL);
    else if (read->priv.chained)
        conclude(sio, -ESTALE, NULL);
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
        start_io(sio);
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

/* Memory does not have it. */
static __attribute__((noinline)) int read_on(struct store_session *s, struct store_read *read, int rc)
{
    if (rc == STORE_PENDING)
        return pend(s, read);
    if (!goes_on_in_cold(s->store, read, rc))
        return end_in_memory(s, read, rc);
    rc = cold_ask(s, read);
    s->pending += rc == STORE_PENDING;
    return read->result = rc;
}

int store_read(struct store_session *s, struct store_read *read)
{
    struct store *store = s->store;

    if (read->key_len == 0 || read->key_len > STORE_KEY_MAX)
        return read->result = -EINVAL;
    read->priv.hash = hash_key(read->key, read->key_len);
    int rc = read->snapshot ? find_in_snapshot(read) : 0;
    if (rc < 0)
        return read->result = rc;
    epoch_enter(store->epoch, s->slot);
    if (!read->snapshot)
        find_chain(store, read);
    rc = walk_memory(store, read);
    epoch_leave(s->slot);
    return rc != STORE_OK ? read_on(s, read, rc) : end_in_memory(s, read, rc);
}

bool store_is_mutable(struct store_session *s, const void *key, uint32_t key_len)
{
    struct store *store = s->store;
    struct store_read read = {.key = key, .key_len = key_len, .priv.hash = hash_key(key, key_len)};
    bool found = false;

    epoch_enter(store->epoch, s->slot);
    uint64_t ro = atomic_load(&store->log.ro);
    find_chain(store, &read);
    for (uint64_t at = read.priv.address; at >= ro && !found;) {
        struct record *r = hlog_at(&store->log, at);
        uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a hint; the address is constant */
        if (record_has_key(r, key, key_len)) {
            found = !(link & RECORD_TOMBSTONE);
            break;
        }
        at = link & ADDRESS_MASK;
    }
    epoch_leave(s->slot);
    return found;
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
        if (read->snapshot)
            read->result = find_in_snapshot(read);
        else
            index_prefetch(store->index, read->priv.hash);
    }
    epoch_enter(store->epoch, s->slot);
    for (struct store_read *read = reads; read < reads + count; read++)
        if (read->result == 0) {
            if (!read->snapshot)
                find_chain(store, read);
            prefetch_record(store, read);
        }
    for (struct store_read *read = reads; read < reads + count; read++)
        if (read->result == 0)
            read->result = walk_memory(store, read);
    epoch_leave(s->slot);
    unsigned elsewhere = 0;
    for (struct store_read *read = reads; read < reads + count; read++)
        if (read->result == STORE_PENDING || goes_on_in_cold(store, read, read->result)) {
            pending += read_on(s, read, read->result) == STORE_PENDING;
            elsewhere++;
        }
    add_to(&s->reads_memory, count - elsewhere);
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

int read_chain(struct store_session *s, struct store_read *read, uint64_t address, uint64_t low, uint64_t ceiling)
{
    if (address >= atomic_load(&s->store->log.tail))
        return read->result = -EIO; /* made up: no record was ever there */
    read->priv.chained = true;
    read->priv.address = address;
    read->priv.low = low;
    read->priv.ceiling = ceiling;
    epoch_enter(s->store->epoch, s->slot);
    int rc = walk_memory(s->store, read);
    epoch_leave(s->slot);
    return rc == STORE_PENDING ? pend(s, read) : end_in_memory(s, read, rc);
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
    log_read_move_on(s, wait);
    start_waiting(s);
}

/* The same where some may be in the cold level: sleeps only if neither device has answered, and for one that was asked.
 */
static void move_both_on(struct store_session *s, bool wait)
{
    unsigned before = s->pending, cold = s->cold->pending;

    move_on(s, false);
    move_on(s->cold, false);
    cold_start_waiting(s);
    if (!wait || s->pending != before || s->cold->pending != cold)
        return;
    move_on(device_queue_pending(s->cold->queue) > 0 ? s->cold : s, true);
    cold_start_waiting(s);
}

static void move_all_on(struct store_session *s, bool wait)
{
    if (s->cold)
        move_both_on(s, wait);
    else
        move_on(s, wait);
}

unsigned store_complete_pending(struct store_session *s, bool wait)
{
    while (s->pending > 0) {
        move_all_on(s, wait);
        if (!wait)
            break;
    }
    return s->pending;
}

unsigned store_complete_some(struct store_session *s)
{
    for (unsigned before = s->pending; s->pending > 0 && s->pending == before;)
        move_all_on(s, true);
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
