// SPDX-License-Identifier: MIT
/* change: see change.h. Everything here runs inside an epoch and does processor work only. */
#include "change.h"

#include <errno.h>

/* ---- planning ------------------------------------------------------------------------------------ */

static bool needs_old(const struct change *c)
{
    return c->kind == CHANGE_RMW || c->kind == CHANGE_INSERT;
}

struct chain_end {
    struct record *record; /* newest record of the key in memory, or NULL */
    uint64_t address;      /* of it, or where the walk left off; 0: the chain ended */
};

static bool entry_is_ours(const struct change *first, const struct change *c)
{
    for (const struct change *other = first; other < c; other++)
        if (other->slot == c->slot && other->entry_locked)
            return true;
    return false;
}

/* What cannot be changed in place matters only to who needs the old value: others do not look at it. */
static void walk(struct store *store, const struct change *c, uint64_t begin, struct chain_end *end)
{
    struct hlog *log = &store->log;
    uint64_t head = needs_old(c) ? atomic_load(&log->head) : atomic_load(&log->safe_ro);
    uint64_t at = index_address(c->entry);

    end->record = NULL;
    if (at >= head)
        hlog_prefetch(log, at, record_bytes(c->key_len, c->capacity), true);
    while (at >= head && at >= begin) {
        struct record *r = hlog_at(log, at);
        if (record_has_key(r, c->key, c->key_len)) {
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
static int size_change(const struct store *store, struct change *c)
{
    c->new_len = c->value_len;
    c->new_capacity = c->capacity;
    if (c->kind == CHANGE_DELETE) {
        c->new_len = c->new_capacity = 0;
    } else if (c->kind == CHANGE_RMW) {
        c->new_capacity = 0;
        c->new_len = c->rmw->size(c->rmw_ctx, c->old, c->old_len, &c->new_capacity);
    }
    if (c->new_capacity < c->new_len)
        c->new_capacity = c->new_len;
    return c->new_capacity > store->limits.value_max ? -EFBIG : 0;
}

static void set_old(struct change *c, struct record *r)
{
    bool absent = !r || is_tombstone(r);

    c->old = absent ? NULL : record_value(r);
    c->old_len = absent ? STORE_ABSENT : r->value_len;
}

static int skip(struct change *c, int outcome)
{
    c->how = CHANGE_SKIP;
    c->outcome = outcome;
    return PLANNED;
}

static bool record_is_ours(const struct change *first, const struct change *c, const struct record *r)
{
    for (const struct change *other = first; other < c; other++)
        if (other->locked == r)
            return true;
    return false;
}

/* The newest record is in memory: decides between in place and append. */
static int plan_found(struct store *store, const struct change *first, struct change *c, const struct chain_end *end)
{
    struct hlog *log = &store->log;
    struct record *r = end->record;

    /* Loaded after the epoch was entered: at or above ro nobody makes it immutable before we leave. */
    if (end->address >= atomic_load(&log->safe_ro)) {
        if (!record_try_lock(r)) /* waiting for ourselves would have no end */
            return record_is_ours(first, c, r) ? -EINVAL : BUSY;
        c->locked = r;
        if (atomic_load_explicit(&r->link, memory_order_relaxed) & RECORD_SEALED)
            return BUSY;
    }
    set_old(c, r);
    if (c->kind == CHANGE_INSERT && c->old)
        return skip(c, STORE_EXISTS);
    int rc = size_change(store, c);
    if (rc < 0)
        return rc;
    if (end->address >= atomic_load(&log->ro) && c->new_len <= r->capacity)
        c->how = CHANGE_IN_PLACE;
    else
        c->how = c->kind == CHANGE_DELETE && !c->old ? CHANGE_SKIP : CHANGE_APPEND;
    return PLANNED;
}

/* Walks on in the cache. True: the old value is known (or that there is none). */
static bool find_cached(struct store *store, struct change *c, uint64_t begin, uint64_t at)
{
    struct record *r;

    while (at >= begin && (r = cache_find(&store->cache, at))) {
        if (record_has_key(r, c->key, c->key_len)) {
            set_old(c, r);
            return true;
        }
        at = atomic_load_explicit(&r->link, memory_order_relaxed) & ADDRESS_MASK; /* constant */
    }
    return at < begin;
}

/* The walk did not meet the key. */
static int plan_missing(struct store *store, struct change *c, uint64_t begin, const struct chain_end *end)
{
    set_old(c, NULL);
    if (needs_old(c) && end->address != 0 && !find_cached(store, c, begin, end->address)) {
        if (c->fetched_at != end->address) {
            c->fetched_at = end->address;
            return FETCH;
        }
        if (c->fetched_len != STORE_ABSENT) {
            c->old = c->fetched;
            c->old_len = c->fetched_len;
        }
    }
    if (c->kind == CHANGE_INSERT && c->old)
        return skip(c, STORE_EXISTS);
    c->how = c->kind == CHANGE_DELETE && end->address == 0 ? CHANGE_SKIP : CHANGE_APPEND;
    return size_change(store, c);
}

/* The entry of the key, made if need be. PLANNED with slot == NULL: there is none. */
static int plan_entry(struct store *store, struct change *c)
{
    if (c->kind == CHANGE_DELETE || c->kind == CHANGE_MOVE) {
        c->slot = index_find(store->index, c->hash, &c->entry);
        return PLANNED;
    }
    int rc = index_find_or_create(store->index, c->hash, &c->slot, &c->entry);
    return rc == -EAGAIN ? BUSY : rc;
}

static int plan_change(struct store *store, struct change *first, struct change *c)
{
    struct chain_end end;
    uint64_t begin = atomic_load(&store->log.begin); /* before the entry: invariant 5 */

    c->entry_locked = false;
    c->locked = NULL;
    c->slot = NULL;
    c->outcome = 0;
    c->how = CHANGE_SKIP;
    int rc = plan_entry(store, c);
    if (rc != PLANNED)
        return rc;
    if (c->kind == CHANGE_MOVE && (!c->slot || c->entry != c->expected))
        return skip(c, STORE_NOT_FOUND);
    if (!c->slot)
        return PLANNED;
    bool ours = (c->entry & INDEX_LOCKED) && entry_is_ours(first, c);
    if ((c->entry & INDEX_LOCKED) && !ours)
        return BUSY;
    if (c->kind == CHANGE_MOVE) {
        c->how = CHANGE_APPEND;
        rc = size_change(store, c);
    } else {
        walk(store, c, begin, &end);
        rc = end.record ? plan_found(store, first, c, &end) : plan_missing(store, c, begin, &end);
    }
    if (rc != PLANNED || c->how != CHANGE_APPEND || ours)
        return rc;
    /* Success means that nobody published since the entry was loaded. */
    if (!index_try_lock(c->slot, c->entry))
        return BUSY;
    c->entry_locked = true;
    return PLANNED;
}

static void unlock(struct change *c)
{
    if (c->locked)
        record_unlock(c->locked);
    if (c->entry_locked)
        index_unlock(c->slot);
    c->locked = NULL;
    c->entry_locked = false;
}

void changes_unlock(struct change *changes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        unlock(&changes[i]);
}

int changes_plan(struct store *store, struct change *changes, unsigned count, struct change **ret_stuck)
{
    for (unsigned i = 0; i < count; i++) {
        int rc = plan_change(store, changes, &changes[i]);
        if (rc == PLANNED)
            continue;
        *ret_stuck = &changes[i];
        changes_unlock(changes, i + 1);
        return rc;
    }
    return PLANNED;
}

uint64_t changes_bytes(const struct change *changes, unsigned count, uint64_t *ret_largest)
{
    uint64_t bytes = 0;

    *ret_largest = 0;
    for (const struct change *c = changes; c < changes + count; c++) {
        if (c->how != CHANGE_APPEND)
            continue;
        uint64_t size = record_bytes(c->key_len, c->new_capacity);
        bytes += size;
        if (size > *ret_largest)
            *ret_largest = size;
    }
    return bytes;
}

/* ---- writing (nothing fails) ---------------------------------------------------------------------- */

static void write_value(const struct change *c, uint8_t *value)
{
    if (c->kind == CHANGE_RMW) {
        c->rmw->write(c->rmw_ctx, c->old, c->old_len, value, c->new_len);
        return;
    }
    for (unsigned i = 0; c->kind != CHANGE_DELETE && i < 2; i++) {
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
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* the lock orders */

    if (record_is_small(r)) {
        uint8_t value[RECORD_SMALL];
        const void *whole = c->kind == CHANGE_UPSERT && c->pieces[0].len == c->new_len ? c->pieces[0].bytes : NULL;
        if (!whole)
            write_value(c, value);
        record_put(r, whole ? whole : value, c->new_len);
    } else {
        write_value(c, record_value(r));
        r->value_len = c->new_len;
    }
    link = c->kind == CHANGE_DELETE ? link | RECORD_TOMBSTONE : link & ~RECORD_TOMBSTONE;
    atomic_store_explicit(&r->link, link, memory_order_release); /* as the stores of record_put() */
}

static void append(struct store *store, struct change *c, struct hlog_space *space, uint64_t version)
{
    struct hlog *log = &store->log;
    uint64_t address = hlog_take(log, space, record_bytes(c->key_len, c->new_capacity));
    struct record *r = hlog_at(log, address);
    /* relaxed: locked by us. Not c->entry: another change of this unit may have published there. */
    uint64_t link = index_address(atomic_load_explicit(c->slot, memory_order_relaxed));

    if (link == INDEX_NONE)
        link = 0;
    r->stamp = record_stamp(version, c->key_len);
    r->value_len = c->new_len;
    r->capacity = c->new_capacity;
    atomic_store_explicit(&r->seal, 0, memory_order_relaxed);
    atomic_store_explicit(&r->link, link | (c->kind == CHANGE_DELETE ? RECORD_TOMBSTONE : 0), memory_order_relaxed);
    memset(r->bytes + round_up(c->key_len, 8) - 8, 0, 8); /* the key's padding */
    memcpy(r->bytes, c->key, c->key_len);
    write_value(c, record_value(r));
    hlog_note_value(log, c->new_capacity);
    if (c->locked) /* relaxed: the lock orders */
        atomic_fetch_or_explicit(&c->locked->link, RECORD_SEALED, memory_order_relaxed);
    index_publish(c->slot, address);
}

void changes_write(struct store *store, struct change *changes, unsigned count, struct hlog_space *space)
{
    uint64_t version = atomic_load(&store->version);

    for (struct change *c = changes; c < changes + count; c++) {
        if (c->how == CHANGE_IN_PLACE)
            write_in_place(c);
        else if (c->how == CHANGE_APPEND)
            append(store, c, space, version);
    }
}
