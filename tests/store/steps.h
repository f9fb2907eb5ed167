// SPDX-License-Identifier: MIT
/*
 * More steps for the store and its model to agree on: pending operations, batches, inserts, commits, compaction.
 */
#ifndef TESTS_STORE_STEPS_H
#define TESTS_STORE_STEPS_H

#include "model.h"

static inline void insert_one(int i)
{
    static uint8_t value[300];
    char key[64];
    uint32_t len = (uint32_t)dice(sizeof value);
    uint64_t stamp = dice(1000);

    fill(value, i, stamp, len);
    int rc = store_insert(session, key, make_key(key, i), value, len);
    ck_assert_int_eq(rc, now.len[i] == UINT32_MAX ? STORE_OK : STORE_EXISTS);
    if (rc == STORE_OK) {
        now.len[i] = len;
        now.stamp[i] = stamp;
    }
}

#define BATCH 40

static inline void batch(void)
{
    static uint8_t got[BATCH][VALUE_MAX], want[VALUE_MAX];
    static char keys[BATCH][64];
    static struct store_read reads[BATCH];
    int first = (int)dice(KEYS - BATCH);

    for (int k = 0; k < BATCH; k++)
        reads[k] = (struct store_read){
            .key = keys[k], .key_len = make_key(keys[k], first + k), .buf = got[k], .buf_len = VALUE_MAX};
    unsigned pending = store_read_batch(session, reads, BATCH);
    ck_assert_uint_le(store_complete_pending(session, false), pending);
    store_complete_pending(session, true);
    for (int k = 0; k < BATCH; k++) {
        int i = first + k;
        ck_assert_int_eq(reads[k].result, now.len[i] == UINT32_MAX ? STORE_NOT_FOUND : STORE_OK);
        if (now.len[i] == UINT32_MAX)
            continue;
        fill(want, i, now.stamp[i], now.len[i]);
        ck_assert_uint_eq(reads[k].value_len, now.len[i]);
        ck_assert_mem_eq(got[k], want, now.len[i]);
    }
}

static inline uint32_t same_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)ctx;
    (void)old;
    (void)capacity;
    return old_len == STORE_ABSENT ? 0 : old_len;
}

struct refill {
    struct store_rmw_op op;
    char key[64];
    int i;
    uint64_t stamp;
    unsigned *done;
};

static inline void refill_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    const struct refill *r = ctx;

    (void)old;
    (void)old_len;
    fill(value, r->i, r->stamp, new_len);
}

static const struct store_rmw refill = {same_size, refill_write};

static inline void refill_done(struct store_rmw_op *op)
{
    ck_assert_int_eq(op->result, STORE_OK);
    ++*((struct refill *)(void *)op)->done;
}

/* Many read-modify-writes in flight, some on one key. */
static inline void refill_many(void)
{
    static struct refill ops[BATCH];
    unsigned pending = 0, done = 0;
    int first = (int)dice(KEYS - BATCH);

    for (int k = 0; k < BATCH; k++) {
        struct refill *r = &ops[k];
        *r = (struct refill){.i = first + k, .stamp = dice(1000), .done = &done};
        r->op = (struct store_rmw_op){
            .key = r->key, .key_len = make_key(r->key, r->i), .rmw = &refill, .ctx = r, .done = refill_done};
        int rc = store_rmw_start(session, &r->op);
        ck_assert_int_ge(rc, 0);
        pending += rc == STORE_PENDING;
        now.stamp[r->i] = r->stamp;
        if (now.len[r->i] == UINT32_MAX)
            now.len[r->i] = 0;
    }
    store_complete_pending(session, true);
    ck_assert_uint_eq(done, pending);
    for (int k = 0; k < BATCH; k++)
        ck_assert_int_eq(ops[k].op.result, STORE_OK);
}

static inline void step_or_more(void)
{
    switch (dice(200)) {
    case 0:
        ck_assert_int_eq(store_commit(store), 0);
        break;
    case 1:
        ck_assert_int_eq(store_compact(store, 1 + dice(1 << 21)), 0);
        break;
    case 2:
        batch();
        break;
    case 3:
        refill_many();
        break;
    default:
        if (dice(10) == 0)
            insert_one((int)dice(KEYS));
        else
            step();
    }
}

#endif
