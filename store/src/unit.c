// SPDX-License-Identifier: MIT
/*
 * Units: many keys, one cut. Collect, then apply inside one epoch with the gate open:
 *
 *   plan     each change: walk its chain in memory; in place -> lock the record; else lock the entry of
 *            the index (so that nobody else publishes there) and count the bytes to append.
 *   reserve  all bytes to append at once.
 *   write    nothing can fail any more: change in place, append, publish, unlock.
 *
 * Invariants:
 *   1. Nothing is changed before everything is locked, read and reserved.
 *   2. Entries are locked before space is reserved, so an appended record's address is above every
 *      address of its chain: chains lead down, and replay in log order rebuilds them.
 *   3. Locks are only tried. A unit that meets another's gives back all of its own, leaves the epoch,
 *      and begins again: no deadlock, and nobody waits inside an epoch.
 *   4. A record that is superseded although somebody may still change it in place is sealed under its
 *      lock: a change in place after the copy was taken would be lost.
 */
#include "private.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

enum how { SKIP, IN_PLACE, APPEND };
enum kind { UPSERT, DELETE, RMW };
enum plan { PLANNED = 0, BUSY = 1, FETCH = 2 };

struct change {
    uint64_t hash;
    uint32_t key_at, key_len; /* in session->keys */
    enum kind kind;
    uint32_t value_len, capacity; /* upsert */
    struct store_piece pieces[2];
    const struct store_rmw *rmw;
    const void *rmw_ctx;

    /* the plan */
    enum how how;
    index_slot *slot;
    bool entry_locked;     /* by this change */
    struct record *locked; /* record whose lock we hold, or NULL */
    const void *old;       /* RMW: the value it starts from; NULL: absent */
    uint32_t old_len, new_len, new_capacity;

    /* an old value that was fetched: valid while the chain below `fetched_at` is what it was */
    uint64_t fetched_at;
    uint8_t *fetched;
    uint32_t fetched_len; /* STORE_ABSENT: the key is not there */
};

/* ---- collecting ------------------------------------------------------------------------------------ */

static const uint8_t *key_of(const struct store_session *s, const struct change *c)
{
    return s->keys + c->key_at;
}

void store_unit_begin(struct store_session *s)
{
    assert(!s->unit_open);
    s->unit_open = true;
    s->change_count = 0;
    s->keys_len = 0;
    s->unit_bytes = 0;
}

static int add(struct store_session *s, const void *key, uint32_t key_len, struct change **ret_change)
{
    assert(s->unit_open);
    if (key_len == 0 || key_len > STORE_KEY_MAX)
        return -EINVAL;
    if (s->change_count == s->change_room) {
        unsigned room = s->change_room ? s->change_room * 2 : 32;
        struct change *changes = realloc(s->changes, room * sizeof *changes);
        if (!changes)
            return -ENOMEM;
        s->changes = changes;
        s->change_room = room;
    }
    if (s->keys_len + key_len > s->keys_room) {
        uint32_t room = (s->keys_len + key_len) * 2;
        uint8_t *keys = realloc(s->keys, room);
        if (!keys)
            return -ENOMEM;
        s->keys = keys;
        s->keys_room = room;
    }
    struct change *c = &s->changes[s->change_count];
    *c = (struct change){.hash = hash_key(key, key_len), .key_at = s->keys_len, .key_len = key_len};
    memcpy(s->keys + s->keys_len, key, key_len);
    *ret_change = c;
    return 0;
}

static int added(struct store_session *s, const struct change *c, uint32_t capacity)
{
    uint64_t bytes = record_bytes(c->key_len, capacity);

    if (capacity > s->store->limits.value_max || s->unit_bytes + bytes > s->store->limits.unit_bytes_max)
        return -EFBIG;
    s->unit_bytes += bytes;
    s->keys_len += c->key_len;
    s->change_count++;
    return 0;
}

int store_unit_upsert(struct store_session *s, const void *key, uint32_t key_len, const struct store_piece *pieces,
                      unsigned count, uint32_t capacity)
{
    struct change *c;
    int rc = add(s, key, key_len, &c);

    if (rc < 0)
        return rc;
    if (count > 2)
        return -EINVAL;
    c->kind = UPSERT;
    for (unsigned i = 0; i < count; i++) {
        if (pieces[i].len > s->store->limits.value_max - c->value_len)
            return -EFBIG;
        c->pieces[i] = pieces[i];
        c->value_len += pieces[i].len;
    }
    c->capacity = capacity > c->value_len ? capacity : c->value_len;
    return added(s, c, c->capacity);
}

int store_unit_delete(struct store_session *s, const void *key, uint32_t key_len)
{
    struct change *c;
    int rc = add(s, key, key_len, &c);

    if (rc < 0)
        return rc;
    c->kind = DELETE;
    return added(s, c, 0);
}

int store_unit_rmw(struct store_session *s, const void *key, uint32_t key_len, const struct store_rmw *rmw,
                   const void *ctx)
{
    struct change *c;
    int rc = add(s, key, key_len, &c);

    if (rc < 0)
        return rc;
    c->kind = RMW;
    c->rmw = rmw;
    c->rmw_ctx = ctx;
    return added(s, c, 0); /* its size is known, and checked against the limits, when it is planned */
}

static void end_unit(struct store_session *s)
{
    for (unsigned i = 0; i < s->change_count; i++)
        free(s->changes[i].fetched);
    s->change_count = 0;
    s->unit_open = false;
}

void store_unit_abandon(struct store_session *s)
{
    end_unit(s);
}

/* ---- planning (inside the epoch) ----------------------------------------------------------------- */

struct chain_end {
    uint64_t entry;        /* as loaded, without our own lock bit */
    struct record *record; /* newest record of the key in memory, or NULL */
    uint64_t address;      /* of it, or where the chain leaves memory; 0: it ended */
};

static bool entry_is_ours(const struct store_session *s, const struct change *c)
{
    for (const struct change *other = s->changes; other < c; other++)
        if (other->slot == c->slot && other->entry_locked)
            return true;
    return false;
}

static void walk(const struct store_session *s, const struct change *c, struct chain_end *end)
{
    struct hlog *log = &s->store->log;
    uint64_t head = atomic_load(&log->head), begin = atomic_load(&log->begin);
    uint64_t at = index_address(end->entry);

    end->record = NULL;
    for (; at >= head && at >= begin; ) {
        struct record *r = hlog_at(log, at);
        if (record_has_key(r, key_of(s, c), c->key_len)) {
            end->record = r;
            break;
        }
        at = atomic_load_explicit(&r->link, memory_order_relaxed) & ADDRESS_MASK; /* constant once published */
    }
    end->address = at < begin ? 0 : at;
}

static bool is_tombstone(const struct record *r)
{
    return atomic_load_explicit(&r->link, memory_order_relaxed) & RECORD_TOMBSTONE; /* ordered by the lock */
}

/* Sizes the new value. -EFBIG if it cannot be. */
static int size_change(const struct store_session *s, struct change *c)
{
    c->new_capacity = 0;
    switch (c->kind) {
    case UPSERT:
        c->new_len = c->value_len;
        c->new_capacity = c->capacity;
        break;
    case DELETE:
        c->new_len = 0;
        break;
    case RMW:
        c->new_len = c->rmw->size(c->rmw_ctx, c->old, c->old_len, &c->new_capacity);
        break;
    }
    if (c->new_capacity < c->new_len)
        c->new_capacity = c->new_len;
    return c->new_capacity > s->store->limits.value_max ? -EFBIG : 0;
}

static void set_old(struct change *c, struct record *r)
{
    bool absent = !r || is_tombstone(r);

    c->old = absent ? NULL : record_value(r);
    c->old_len = absent ? STORE_ABSENT : r->value_len;
}

/* The newest record is in memory: decides between in place and append. */
static int plan_found(struct store_session *s, struct change *c, const struct chain_end *end)
{
    struct hlog *log = &s->store->log;
    struct record *r = end->record;

    /* Loaded after the epoch was entered: at or above ro nobody makes it immutable before we leave. */
    bool changing = end->address >= atomic_load(&log->safe_ro);
    if (changing) {
        if (!record_try_lock(r))
            return BUSY;
        c->locked = r;
        if (atomic_load_explicit(&r->link, memory_order_relaxed) & RECORD_SEALED)
            return BUSY;
    }
    set_old(c, r);
    int rc = size_change(s, c);
    if (rc < 0)
        return rc;
    if (end->address >= atomic_load(&log->ro) && c->new_len <= r->capacity)
        c->how = IN_PLACE;
    else
        c->how = c->kind == DELETE && !c->old ? SKIP : APPEND;
    return PLANNED;
}

/* Memory does not have the key. */
static int plan_missing(struct store_session *s, struct change *c, const struct chain_end *end)
{
    set_old(c, NULL);
    if (c->kind == RMW && end->address != 0) {
        if (c->fetched_at != end->address) {
            c->fetched_at = end->address;
            return FETCH;
        }
        if (c->fetched_len != STORE_ABSENT) {
            c->old = c->fetched;
            c->old_len = c->fetched_len;
        }
    }
    c->how = c->kind == DELETE && end->address == 0 ? SKIP : APPEND;
    return size_change(s, c);
}

static int plan_change(struct store_session *s, struct change *c)
{
    struct index *index = s->store->index;
    struct chain_end end;

    c->entry_locked = false;
    c->locked = NULL;
    c->how = SKIP;
    c->slot = NULL;
    if (c->kind == DELETE) {
        if (!(c->slot = index_find(index, c->hash)))
            return PLANNED;
    } else {
        int rc = index_find_or_create(index, c->hash, &c->slot);
        if (rc < 0)
            return rc;
    }
    /* acquire: pairs with publish() */
    uint64_t entry = atomic_load_explicit(c->slot, memory_order_acquire);
    bool ours = (entry & INDEX_LOCKED) && entry_is_ours(s, c);
    if ((entry & INDEX_LOCKED) && !ours)
        return BUSY;
    end.entry = entry & ~INDEX_LOCKED;
    walk(s, c, &end);
    int rc = end.record ? plan_found(s, c, &end) : plan_missing(s, c, &end);
    if (rc != PLANNED || c->how != APPEND || ours)
        return rc;
    /* Success means that nobody published since `entry` was loaded. acquire: later loads stay behind */
    if (!atomic_compare_exchange_strong_explicit(c->slot, &entry, entry | INDEX_LOCKED, memory_order_acq_rel,
                                                 memory_order_relaxed))
        return BUSY;
    c->entry_locked = true;
    return PLANNED;
}

static void unlock(struct change *c)
{
    if (c->locked)
        record_unlock(c->locked);
    if (c->entry_locked)
        atomic_fetch_and_explicit(c->slot, ~INDEX_LOCKED, memory_order_release);
    c->locked = NULL;
    c->entry_locked = false;
}

/* Plans all; on anything but PLANNED nothing is locked, and *ret_stuck is the change that it was. */
static int plan(struct store_session *s, struct change **ret_stuck)
{
    for (unsigned i = 0; i < s->change_count; i++) {
        int rc = plan_change(s, &s->changes[i]);
        if (rc == PLANNED)
            continue;
        *ret_stuck = &s->changes[i];
        for (unsigned j = 0; j <= i; j++)
            unlock(&s->changes[j]);
        return rc;
    }
    return PLANNED;
}

/* ---- writing (inside the epoch, nothing fails) ------------------------------------------------- */

static void write_value(const struct change *c, uint8_t *value)
{
    if (c->kind == RMW) {
        c->rmw->write(c->rmw_ctx, c->old, c->old_len, value, c->new_len);
        return;
    }
    for (unsigned i = 0; c->kind == UPSERT && i < 2; i++) {
        if (c->pieces[i].len == 0)
            continue;
        if (c->pieces[i].bytes)
            memcpy(value, c->pieces[i].bytes, c->pieces[i].len);
        else
            memset(value, 0, c->pieces[i].len);
        value += c->pieces[i].len;
    }
}

static void write_in_place(const struct change *c)
{
    struct record *r = c->locked;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* the lock orders both */

    write_value(c, record_value(r));
    r->value_len = c->new_len;
    link = c->kind == DELETE ? link | RECORD_TOMBSTONE : link & ~RECORD_TOMBSTONE;
    atomic_store_explicit(&r->link, link, memory_order_relaxed);
}

static void append(struct store_session *s, struct change *c, struct hlog_space *space, uint64_t version)
{
    struct hlog *log = &s->store->log;
    uint64_t address = hlog_take(log, space, record_bytes(c->key_len, c->new_capacity));
    struct record *r = hlog_at(log, address);
    uint64_t entry = atomic_load_explicit(c->slot, memory_order_relaxed); /* locked by us */
    uint64_t link = index_address(entry);

    if (link == INDEX_NONE)
        link = 0;
    r->stamp = record_stamp(version, c->key_len);
    r->value_len = c->new_len;
    r->capacity = c->new_capacity;
    atomic_store_explicit(&r->seal, 0, memory_order_relaxed);
    atomic_store_explicit(&r->link, link | (c->kind == DELETE ? RECORD_TOMBSTONE : 0), memory_order_relaxed);
    memcpy(r->bytes, key_of(s, c), c->key_len);
    memset(r->bytes + c->key_len, 0, round_up(c->key_len, 8) - c->key_len);
    write_value(c, record_value(r));
    if (c->locked)
        atomic_fetch_or_explicit(&c->locked->link, RECORD_SEALED, memory_order_relaxed); /* the lock orders */
    /* publish; release: whoever loads the entry sees the whole record */
    atomic_store_explicit(c->slot, index_entry_with(entry, address) | INDEX_LOCKED, memory_order_release);
}

/* ---- applying ------------------------------------------------------------------------------------ */

static void back_off(struct store_session *s, unsigned attempt)
{
    s->seed = s->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    if (attempt < 4) {
        for (volatile unsigned spins = (unsigned)(s->seed >> 58); spins > 0; spins--)
            continue;
    } else if (attempt < 64) {
        sched_yield();
    } else {
        struct timespec pause = {0, 20000 + (long)(s->seed >> 50)};
        nanosleep(&pause, NULL);
    }
}

/* Enters the epoch with the gate open. */
static void enter(struct store_session *s)
{
    struct store *store = s->store;

    for (unsigned attempt = 0;; attempt++) {
        epoch_enter(store->epoch, s->slot);
        if (!atomic_load(&store->gate_closed))
            return;
        epoch_leave(s->slot);
        back_off(s, attempt + 4);
    }
}

static int fetch(struct store_session *s, struct change *c)
{
    struct store_read read = {.key = key_of(s, c), .key_len = c->key_len, .value_hint = READ_BUFFER_BYTES - 12288};

    free(c->fetched);
    c->fetched = malloc(s->store->limits.value_max < 65536 ? s->store->limits.value_max : 65536);
    read.buf = c->fetched;
    read.buf_len = s->store->limits.value_max < 65536 ? s->store->limits.value_max : 65536;
    int rc = c->fetched ? read_from(s, &read, c->fetched_at) : -ENOMEM;
    if (rc == STORE_OK && read.copied < read.value_len) {
        free(c->fetched);
        c->fetched = malloc(read.value_len);
        read.buf = c->fetched;
        read.buf_len = read.value_len;
        rc = c->fetched ? read_from(s, &read, c->fetched_at) : -ENOMEM;
    }
    c->fetched_len = rc == STORE_OK ? read.value_len : STORE_ABSENT;
    return rc < 0 ? rc : 0;
}

static int wait_for_room(struct store *store, uint64_t bytes, uint64_t keep)
{
    pthread_mutex_lock(&store->log.flush_lock);
    int rc = hlog_make_room(&store->log, bytes, keep);
    pthread_mutex_unlock(&store->log.flush_lock);
    return rc;
}

/* One attempt. PLANNED: done. BUSY: try again. FETCH: fetch *ret_stuck first. -EAGAIN: no room for
 * *ret_bytes. */
static int attempt(struct store_session *s, uint64_t keep, struct change **ret_stuck, uint64_t *ret_bytes)
{
    struct store *store = s->store;
    uint64_t bytes = 0, largest = 0;
    struct hlog_space space = {0, 0};
    int rc = plan(s, ret_stuck);

    if (rc != PLANNED)
        return rc;
    for (struct change *c = s->changes; c < s->changes + s->change_count; c++) {
        if (c->how != APPEND)
            continue;
        uint64_t size = record_bytes(c->key_len, c->new_capacity);
        bytes += size;
        largest = size > largest ? size : largest;
    }
    *ret_bytes = bytes + largest;
    if (bytes > store->limits.unit_bytes_max)
        rc = -EFBIG;
    else if (bytes > 0)
        rc = hlog_reserve(&store->log, bytes, largest, keep, &space);
    if (rc == 0) {
        uint64_t version = atomic_load(&store->version);
        for (struct change *c = s->changes; c < s->changes + s->change_count; c++) {
            if (c->how == IN_PLACE)
                write_in_place(c);
            else if (c->how == APPEND)
                append(s, c, &space, version);
        }
        hlog_finish(&store->log, &space);
    }
    for (unsigned i = 0; i < s->change_count; i++)
        unlock(&s->changes[i]);
    return rc;
}

int store_unit_apply(struct store_session *s, unsigned flags)
{
    struct store *store = s->store;
    uint64_t keep = flags & STORE_UNIT_FREES ? HLOG_SPACE_COMMIT : HLOG_SPACE_FREES;
    int rc = store->options.read_only ? -EROFS : atomic_load(&store->log.failed);

    assert(s->unit_open);
    for (unsigned tries = 0; rc == 0; tries++) {
        struct change *stuck = NULL;
        uint64_t bytes = 0;
        enter(s);
        rc = attempt(s, keep, &stuck, &bytes);
        epoch_leave(s->slot);
        if (rc == PLANNED)
            break;
        if (rc == BUSY) {
            back_off(s, tries);
            rc = 0;
        } else if (rc == FETCH) {
            rc = fetch(s, stuck);
        } else if (rc == -EAGAIN) {
            rc = wait_for_room(store, bytes, keep);
        }
    }
    end_unit(s);
    if (!store->options.no_background)
        store_hint_worker(store);
    return rc;
}

/* ---- one operation ------------------------------------------------------------------------------- */

int store_upsert(struct store_session *s, const void *key, uint32_t key_len, const void *value, uint32_t value_len)
{
    struct store_piece piece = {value, value_len};

    store_unit_begin(s);
    int rc = store_unit_upsert(s, key, key_len, &piece, 1, 0);
    if (rc == 0)
        return store_unit_apply(s, 0);
    store_unit_abandon(s);
    return rc;
}

int store_delete(struct store_session *s, const void *key, uint32_t key_len)
{
    store_unit_begin(s);
    int rc = store_unit_delete(s, key, key_len);
    if (rc == 0)
        return store_unit_apply(s, STORE_UNIT_FREES);
    store_unit_abandon(s);
    return rc;
}

int store_rmw(struct store_session *s, const void *key, uint32_t key_len, const struct store_rmw *rmw, const void *ctx)
{
    store_unit_begin(s);
    int rc = store_unit_rmw(s, key, key_len, rmw, ctx);
    if (rc == 0)
        return store_unit_apply(s, 0);
    store_unit_abandon(s);
    return rc;
}

/* ---- the ready patch ------------------------------------------------------------------------------ */

static uint32_t patch_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    const struct store_patch *p = ctx;
    uint32_t len = old ? old_len : 0;

    *capacity = p->capacity;
    if (p->cut != STORE_PATCH_KEEP)
        return p->cut;
    return p->len > 0 && p->offset + p->len > len ? p->offset + p->len : len;
}

static void patch_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    const struct store_patch *p = ctx;
    uint8_t *to = value;
    uint32_t keep = old ? old_len : 0;

    if (keep > new_len)
        keep = new_len;
    if (old != value && keep > 0)
        memcpy(to, old, keep);
    if (new_len > keep)
        memset(to + keep, 0, new_len - keep);
    if (p->len == 0 || p->offset >= new_len)
        return;
    uint32_t len = p->len < new_len - p->offset ? p->len : new_len - p->offset;
    if (p->bytes)
        memcpy(to + p->offset, p->bytes, len);
    else
        memset(to + p->offset, 0, len);
}

const struct store_rmw STORE_PATCH = {patch_size, patch_write};
