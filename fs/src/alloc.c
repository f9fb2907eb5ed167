// SPDX-License-Identifier: MIT
/*
 * Numbers for inodes and orphans, taken from the super record in batches: the record names numbers that
 * no one has used, and it is written before the first of a batch is used, so after a crash none is used
 * twice. And the number of inodes in use: each unit that makes or removes one adds to a counter in the
 * store, striped by session, so the sum is exact after any crash.
 */
#include "private.h"

#include <errno.h>

#define BATCH 1024u

static int write_super(struct fs *fs, uint64_t ino_end, uint64_t orphan_end)
{
    struct fs_super super = {ino_end, fs->first_orphan, orphan_end};
    struct fs_key key = key_super();
    uint8_t bytes[SUPER_BYTES];

    super_encode(&super, bytes);
    struct store_session *s = fs->alloc_session->store;
    store_unit_begin(s);
    int rc = store_unit_upsert(s, key.bytes, key.len, &(struct store_piece){bytes, sizeof bytes}, 1, 0);
    if (rc < 0) {
        store_unit_abandon(s);
        return rc;
    }
    rc = store_unit_apply(s, STORE_UNIT_FREES); /* unlink needs it, on a full disk too */
    if (rc < 0)
        return rc;
    fs->ino_end = ino_end;
    fs->orphan_end = orphan_end;
    return 0;
}

int alloc_ino(struct fs *fs, uint64_t *ret_ino)
{
    int rc = 0;

    pthread_mutex_lock(&fs->alloc_lock);
    if (fs->next_ino == FS_INO_END)
        rc = -ENOSPC;
    else if (fs->next_ino == fs->ino_end)
        rc = write_super(fs, fs->ino_end + smaller(BATCH, FS_INO_END - fs->ino_end), fs->orphan_end);
    if (rc == 0)
        *ret_ino = fs->next_ino++;
    pthread_mutex_unlock(&fs->alloc_lock);
    return rc;
}

int alloc_orphan(struct fs *fs, uint64_t *ret_number)
{
    int rc = 0;

    pthread_mutex_lock(&fs->alloc_lock);
    if (fs->next_orphan == fs->orphan_end)
        rc = write_super(fs, fs->ino_end, fs->orphan_end + BATCH);
    if (rc == 0)
        *ret_number = fs->next_orphan++;
    pthread_mutex_unlock(&fs->alloc_lock);
    return rc;
}

void alloc_first_orphan(struct fs *fs, uint64_t first)
{
    pthread_mutex_lock(&fs->alloc_lock);
    if (first > fs->first_orphan) {
        fs->first_orphan = first;
        int rc = write_super(fs, fs->ino_end, fs->orphan_end);
        (void)rc;
    }
    pthread_mutex_unlock(&fs->alloc_lock);
}

/* ---- the number of inodes --------------------------------------------------------------------------- */

static uint32_t count_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)ctx;
    (void)old;
    (void)old_len;
    (void)capacity;
    return COUNTER_BYTES;
}

static void count_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    (void)new_len;
    uint64_t sum = old && old_len == COUNTER_BYTES ? (uint64_t)counter_decode(old) : 0;

    counter_encode((int64_t)(sum + (uint64_t) * (const int64_t *)ctx), value);
}

int count_in_unit(struct fs_session *s, const int64_t *more)
{
    static const struct store_rmw rmw = {count_size, count_write};
    struct fs_key key = key_counter(s->counter_stripe);

    return store_unit_rmw(s->store, key.bytes, key.len, &rmw, more);
}

int count_load(struct fs_session *s)
{
    uint64_t sum = 0; /* unsigned, as in count_write(): what is damaged may be anything */

    for (uint64_t stripe = 0; stripe < COUNTER_STRIPES; stripe++) {
        struct fs_key key = key_counter(stripe);
        uint8_t bytes[COUNTER_BYTES];
        uint32_t len;
        int rc = get_value(s, NULL, &key, bytes, sizeof bytes, &len);
        if (rc == 0 && len != COUNTER_BYTES)
            rc = -EIO;
        if (rc < 0 && rc != -ENOENT)
            return rc;
        sum += rc == 0 ? (uint64_t)counter_decode(bytes) : 0;
    }
    atomic_store_explicit(&s->fs->inodes, (int64_t)sum > 0 ? sum : 0, memory_order_relaxed);
    return 0;
}

void count_applied(struct fs *fs, int64_t more)
{
    atomic_fetch_add_explicit(&fs->inodes, (uint64_t)more, memory_order_relaxed); /* a statistic */
}
