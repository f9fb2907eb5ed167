// SPDX-License-Identifier: MIT
/*
 * Numbers for inodes and orphans, taken from the super record in batches: the record names numbers that
 * no one has used, and it is written before the first of a batch is used, so after a crash none is used
 * twice. It also carries the count of inodes, right whenever it is written.
 */
#include "private.h"

#include <string.h>

#define BATCH 1024u

static int write_super(struct fs *fs, uint64_t ino_end, uint64_t orphan_end)
{
    struct fs_super super = {ino_end, fs->first_orphan, orphan_end, atomic_load_explicit(&fs->inodes, memory_order_relaxed)};
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
    fs->inodes_written = super.inodes;
    return 0;
}

int alloc_ino(struct fs *fs, uint64_t *ret_ino)
{
    int rc = 0;

    pthread_mutex_lock(&fs->alloc_lock);
    if (fs->next_ino == fs->ino_end)
        rc = write_super(fs, fs->ino_end + BATCH, fs->orphan_end);
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

void alloc_write_count(struct fs *fs)
{
    if (fs->options.store.read_only)
        return;
    pthread_mutex_lock(&fs->alloc_lock);
    if (fs->inodes_written != atomic_load_explicit(&fs->inodes, memory_order_relaxed)) {
        int rc = write_super(fs, fs->ino_end, fs->orphan_end);
        (void)rc;
    }
    pthread_mutex_unlock(&fs->alloc_lock);
}

void alloc_count(struct fs *fs, int64_t more)
{
    uint64_t count = atomic_load_explicit(&fs->inodes, memory_order_relaxed), next;

    do /* the root is always there */
        next = more < 0 && count <= (uint64_t)-more ? 1 : count + (uint64_t)more;
    while (!atomic_compare_exchange_weak_explicit(&fs->inodes, &count, next, memory_order_relaxed,
                                                  memory_order_relaxed));
}
