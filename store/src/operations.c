// SPDX-License-Identifier: MIT
/*
 * Operations on one key: a unit of one change, without collecting it first. One that needs an old value from the
 * device can be left pending: it keeps the buffer in which the value arrives until it is done.
 */
#include "change.h"

#include <errno.h>
#include <stdlib.h>

static bool key_is_valid(uint32_t key_len)
{
    return key_len > 0 && key_len <= STORE_KEY_MAX;
}

static bool fits(const struct store_session *s, uint32_t key_len, uint32_t value_len)
{
    const struct store_limits *limits = &s->store->limits;

    return value_len <= limits->value_max && record_bytes(key_len, value_len) <= limits->unit_bytes_max;
}

static struct change change_of(enum change_kind kind, const void *key, uint32_t key_len)
{
    return (struct change){.kind = kind, .key = key, .key_len = key_len, .hash = hash_key(key, key_len)};
}

static int write_one(struct store_session *s, enum change_kind kind, const void *key, uint32_t key_len,
                     const void *value, uint32_t value_len)
{
    if (!key_is_valid(key_len))
        return -EINVAL;
    if (!fits(s, key_len, value_len))
        return -EFBIG;
    struct change c = change_of(kind, key, key_len);
    c.pieces[0] = (struct store_piece){value, value_len};
    c.value_len = c.capacity = value_len;
    int rc = changes_apply_wait(s, &c, 1, HLOG_WRITES);
    return rc < 0 ? rc : c.outcome;
}

int store_upsert(struct store_session *s, const void *key, uint32_t key_len, const void *value, uint32_t value_len)
{
    return write_one(s, CHANGE_UPSERT, key, key_len, value, value_len);
}

int store_insert(struct store_session *s, const void *key, uint32_t key_len, const void *value, uint32_t value_len)
{
    return write_one(s, CHANGE_INSERT, key, key_len, value, value_len);
}

int store_delete(struct store_session *s, const void *key, uint32_t key_len)
{
    if (!key_is_valid(key_len))
        return -EINVAL;
    struct change c = change_of(CHANGE_DELETE, key, key_len);
    return changes_apply_wait(s, &c, 1, HLOG_FREES);
}

/* ---- read-modify-write ------------------------------------------------------------------------------ */

static struct change change_of_rmw(const struct store_rmw_op *op)
{
    struct change c = change_of(CHANGE_RMW, op->key, op->key_len);

    c.rmw = op->rmw;
    c.rmw_ctx = op->ctx;
    return c;
}

/* The device has answered: with the old value in the buffer of `sio` (r), or with none. */
static void rmw_fetched(struct store_io *sio, int result, struct record *r)
{
    struct store_rmw_op *op = (struct store_rmw_op *)((char *)sio->read - offsetof(struct store_rmw_op, priv.read));
    struct change c = change_of_rmw(op), *stuck;

    if (result >= 0) {
        c.fetched_at = op->priv.fetched_at;
        c.fetched_len = result == STORE_OK && r ? r->value_len : STORE_ABSENT;
        c.fetched = r ? record_value(r) : NULL;
        if (result == STORE_OK && !r) /* it has moved into memory, where the plan finds it */
            c.fetched_at = 0;
        result = changes_apply(sio->session, &c, 1, HLOG_WRITES, &stuck);
    }
    if (result == FETCH) { /* the chain has grown, and beyond memory, meanwhile */
        op->priv.fetched_at = c.fetched_at;
        op->priv.read.priv.low = atomic_load(&sio->session->store->log.begin);
        io_again(sio, c.fetched_at);
        return;
    }
    io_end(sio, result);
}

static struct store_rmw_op *op_of(struct store_read *read)
{
    return (struct store_rmw_op *)((char *)read - offsetof(struct store_rmw_op, priv.read));
}

static void rmw_done(struct store_read *read)
{
    struct store_rmw_op *op = op_of(read);

    op->result = read->result;
    if (op->done)
        op->done(op);
}

/* ---- with a cold level: an ordinary read, into a buffer of its own, has the old value from wherever it is ---- */

#define RMW_ROOM 1024u /* for a value of which nothing is known: a larger one is read twice */

static void rmw_read_done(struct store_read *read);

/* A read that is to give the old value, of `room` bytes, to a change that asked for it. */
static int rmw_read(struct store_session *s, struct store_rmw_op *op, const struct change *c, uint32_t room)
{
    room = room < RMW_ROOM ? RMW_ROOM : room;
    void *buf = malloc(room);
    if (!buf)
        return -ENOMEM;
    op->priv.fetched_at = c->fetched_at;
    op->priv.fetched_tail = c->fetched_tail;
    op->priv.session = s;
    op->priv.read = (struct store_read){.key = op->key,
                                        .key_len = op->key_len,
                                        .buf = buf,
                                        .buf_len = room,
                                        .value_hint = op->value_hint,
                                        .done = rmw_read_done};
    return store_read(s, &op->priv.read);
}

/* The read is done: changes, or reads again, until it is known or to be waited for. */
static int rmw_go_on(struct store_rmw_op *op, int rc)
{
    struct store_read *read = &op->priv.read;
    struct store_session *s = op->priv.session;

    while (rc >= 0 && rc != STORE_PENDING) {
        struct change c = change_of_rmw(op), *stuck;
        bool short_of = rc == STORE_OK && read->copied < read->value_len;
        c.fetched_at = op->priv.fetched_at;
        c.fetched_tail = op->priv.fetched_tail;
        c.fetched = read->buf;
        c.fetched_len = rc == STORE_OK ? read->value_len : STORE_ABSENT;
        rc = short_of ? FETCH : changes_apply(s, &c, 1, HLOG_WRITES, &stuck);
        free(read->buf);
        read->buf = NULL;
        if (rc != FETCH)
            return rc;
        rc = rmw_read(s, op, &c, short_of ? read->value_len : op->value_hint);
    }
    if (rc < 0)
        free(read->buf);
    return rc;
}

static void rmw_read_done(struct store_read *read)
{
    struct store_rmw_op *op = op_of(read);
    int rc = rmw_go_on(op, read->result);

    if (rc == STORE_PENDING)
        return;
    op->result = rc;
    if (op->done)
        op->done(op);
}

static int rmw_start_cold(struct store_session *s, struct store_rmw_op *op, const struct change *c)
{
    return op->result = rmw_go_on(op, rmw_read(s, op, c, op->value_hint));
}

int store_rmw_start(struct store_session *s, struct store_rmw_op *op)
{
    struct change *stuck;

    if (!key_is_valid(op->key_len))
        return op->result = -EINVAL;
    struct change c = change_of_rmw(op);
    int rc = changes_apply(s, &c, 1, HLOG_WRITES, &stuck);
    if (rc != FETCH)
        return op->result = rc;
    if (s->store->cold)
        return rmw_start_cold(s, op, &c);
    op->priv.fetched_at = c.fetched_at;
    op->priv.read = (struct store_read){.key = op->key,
                                        .key_len = op->key_len,
                                        .value_hint = op->value_hint,
                                        .done = rmw_done,
                                        .priv = {.take = rmw_fetched}};
    return op->result = read_from(s, &op->priv.read, c.fetched_at);
}

int store_rmw(struct store_session *s, const void *key, uint32_t key_len, const struct store_rmw *rmw, const void *ctx)
{
    struct store_rmw_op op = {.key = key, .key_len = key_len, .rmw = rmw, .ctx = ctx};
    int rc = store_rmw_start(s, &op);

    if (rc == STORE_PENDING)
        store_complete_pending(s, true);
    return op.result;
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
