// SPDX-License-Identifier: MIT
/*
 * Units: many keys, one cut: collecting changes, and applying them (change.h has how).
 *
 * A unit that lacks something leaves the epoch, gets it, and plans anew: the device for an old value, room in the
 * log, or another's lock to go away.
 */
#include "change.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

/* ---- collecting ------------------------------------------------------------------------------------ */

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
    *c = (struct change){.hash = hash_key(key, key_len), .key_len = key_len};
    index_prefetch(s->store->index, c->hash);
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
    c->kind = CHANGE_UPSERT;
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
    c->kind = CHANGE_DELETE;
    return added(s, c, 0);
}

int store_unit_rmw(struct store_session *s, const void *key, uint32_t key_len, const struct store_rmw *rmw,
                   const void *ctx)
{
    struct change *c;
    int rc = add(s, key, key_len, &c);

    if (rc < 0)
        return rc;
    c->kind = CHANGE_RMW;
    c->rmw = rmw;
    c->rmw_ctx = ctx;
    return added(s, c, 0); /* its size is known, and checked against the limits, when it is planned */
}

int unit_add_cold(struct store_session *s, const void *key, uint32_t key_len, const struct store_piece *value,
                  bool tombstone, uint64_t *place)
{
    struct change *c;
    int rc = add(s, key, key_len, &c);

    if (rc < 0)
        return rc;
    c->kind = CHANGE_COLD;
    c->pieces[0] = *value;
    c->value_len = c->capacity = value->len;
    c->tombstone = tombstone;
    c->place = place;
    return added(s, c, value->len);
}

void store_unit_abandon(struct store_session *s)
{
    s->change_count = 0;
    s->unit_open = false;
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

/* The old value of a change, to be freed. */
static int fetch(struct store_session *s, struct change *c)
{
    uint32_t value_max = s->store->limits.value_max, room = value_max < 65536 ? value_max : 65536;
    int rc = STORE_OK;

    for (bool again = true; again;) {
        free((void *)(uintptr_t)c->fetched);
        uint8_t *value = malloc(room);
        c->fetched = value;
        if (!value)
            return -ENOMEM;
        struct store_read read = {
            .key = c->key, .key_len = c->key_len, .value_hint = room, .buf = value, .buf_len = room};
        (void)(s->store->cold ? store_read(s, &read) : read_from(s, &read, c->fetched_at));
        store_complete_pending(s, true);
        rc = read.result;
        c->fetched_len = rc == STORE_OK ? read.value_len : STORE_ABSENT;
        again = rc == STORE_OK && read.copied < read.value_len;
        room = read.value_len;
    }
    return rc < 0 ? rc : 0;
}

static int wait_for_room(struct store *store, uint64_t bytes, enum hlog_taker taker)
{
    pthread_mutex_lock(&store->log.flush_lock);
    int rc = hlog_make_room(&store->log, bytes, taker);
    pthread_mutex_unlock(&store->log.flush_lock);
    return rc;
}

/* Asks the processor for the records that the changes begin with: their misses of memory overlap. */
static void prefetch_records(struct store *store, const struct change *changes, unsigned count)
{
    uint64_t head = atomic_load_explicit(&store->log.head, memory_order_relaxed), entry; /* relaxed: a hint */

    for (unsigned i = 0; i < count; i++)
        if (index_find(store->index, changes[i].hash, &entry) && index_address(entry) >= head)
            __builtin_prefetch(hlog_at(&store->log, index_address(entry)));
}

/* One attempt. PLANNED: done. BUSY: try again. FETCH: fetch *ret_stuck first. -EAGAIN: no room for
 * *ret_bytes. */
static int attempt(struct store *store, struct change *changes, unsigned count, enum hlog_taker taker,
                   struct change **ret_stuck, uint64_t *ret_bytes)
{
    struct hlog_space space = {0, 0};
    uint64_t largest;
    int rc = changes_plan(store, changes, count, ret_stuck);

    if (rc != PLANNED)
        return rc;
    uint64_t bytes = changes_bytes(changes, count, &largest);
    *ret_bytes = bytes + largest;
    if (bytes > store->limits.unit_bytes_max)
        rc = -EFBIG;
    else if (bytes > 0)
        rc = hlog_reserve(&store->log, bytes, largest, taker, &space);
    if (rc == 0) {
        changes_write(store, changes, count, &space);
        hlog_finish(&store->log, &space);
    }
    changes_unlock(changes, count);
    return rc;
}

int changes_apply(struct store_session *s, struct change *changes, unsigned count, enum hlog_taker taker,
                  struct change **ret_stuck)
{
    struct store *store = s->store;
    uint64_t bytes = 0;
    int rc = store->options.read_only ? -EROFS : atomic_load(&store->log.failed);

    if (rc < 0)
        return rc;
    for (unsigned tries = 0;; tries++) {
        enter(s);
        if (tries == 0 && count > 1)
            prefetch_records(store, changes, count);
        rc = attempt(store, changes, count, taker, ret_stuck, &bytes);
        epoch_leave(s->slot);
        if (rc == BUSY)
            back_off(s, tries);
        else if (rc == -EAGAIN)
            rc = wait_for_room(store, bytes, taker);
        else
            break;
        if (rc < 0)
            break;
    }
    if (device_is_full(rc))
        store_reclaim(store);
    if (bytes > 0 && !store->options.no_background) {
        store_hint_worker(store);
        space_hold_back(s, bytes);
    }
    return rc;
}

int changes_apply_wait(struct store_session *s, struct change *changes, unsigned count, enum hlog_taker taker)
{
    struct change *stuck;
    uint64_t pass = 0;
    int rc;

    for (bool again = true; again;) {
        rc = changes_apply(s, changes, count, taker, &stuck);
        again = rc == FETCH && (rc = fetch(s, stuck)) == 0;
        if (device_is_full(rc) && taker == HLOG_FREES)
            again = space_make_room(s->store, &pass);
    }
    for (unsigned i = 0; i < count; i++)
        free((void *)(uintptr_t)changes[i].fetched);
    return rc;
}

int unit_apply_as(struct store_session *s, enum hlog_taker taker)
{
    assert(s->unit_open);
    for (uint32_t i = 0, at = 0; i < s->change_count; at += s->changes[i++].key_len)
        s->changes[i].key = s->keys + at;
    int rc = changes_apply_wait(s, s->changes, s->change_count, taker);
    store_unit_abandon(s);
    return rc;
}

int store_unit_apply(struct store_session *s, unsigned flags)
{
    return unit_apply_as(s, flags & STORE_UNIT_FREES ? HLOG_FREES : HLOG_WRITES);
}
