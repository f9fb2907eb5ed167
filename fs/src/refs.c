// SPDX-License-Identifier: MIT
/*
 * References: how often the outside holds each inode. 24 bytes an inode, in shards of open addressing.
 *
 * Invariant: an orphan is either noted here (and removed when the last reference goes) or was handed to
 * the reaper: ref_orphan and ref_put decide under the shard's lock.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t mix(uint64_t ino)
{
    return ino * UINT64_C(0x9e3779b97f4a7c15);
}

static struct ref_shard *shard_of(struct fs *fs, uint64_t ino)
{
    return &fs->shards[mix(ino) >> 58];
}

void refs_open(struct fs *fs)
{
    for (unsigned i = 0; i < REF_SHARDS; i++)
        pthread_mutex_init(&fs->shards[i].lock, NULL);
}

void refs_close(struct fs *fs)
{
    for (unsigned i = 0; i < REF_SHARDS; i++) {
        free(fs->shards[i].refs);
        pthread_mutex_destroy(&fs->shards[i].lock);
    }
}

static size_t home(const struct ref_shard *shard, uint64_t ino)
{
    return (size_t)(mix(ino) >> 20) & (shard->room - 1);
}

/* The place of the inode, or the free place where it would go; the table is never full. */
static struct ref *find(struct ref_shard *shard, uint64_t ino)
{
    size_t at = home(shard, ino);

    while (shard->refs[at].ino != 0 && shard->refs[at].ino != ino)
        at = (at + 1) & (shard->room - 1);
    return &shard->refs[at];
}

static int grow(struct ref_shard *shard)
{
    struct ref_shard bigger = {.room = shard->room ? shard->room * 2 : 16};

    bigger.refs = calloc(bigger.room, sizeof *bigger.refs);
    if (!bigger.refs)
        return -ENOMEM;
    for (size_t i = 0; i < shard->room; i++)
        if (shard->refs[i].ino != 0)
            *find(&bigger, shard->refs[i].ino) = shard->refs[i];
    free(shard->refs);
    shard->refs = bigger.refs;
    shard->room = bigger.room;
    return 0;
}

/* Empties a place and moves up what had been pushed past it. */
static void drop(struct ref_shard *shard, struct ref *ref)
{
    size_t hole = (size_t)(ref - shard->refs), mask = shard->room - 1;

    shard->used--;
    for (size_t at = (hole + 1) & mask; shard->refs[at].ino != 0; at = (at + 1) & mask) {
        size_t from_home = (at - home(shard, shard->refs[at].ino)) & mask;
        if (from_home >= ((at - hole) & mask)) {
            shard->refs[hole] = shard->refs[at];
            hole = at;
        }
    }
    shard->refs[hole] = (struct ref){0};
}

int ref_get(struct fs *fs, uint64_t ino)
{
    struct ref_shard *shard = shard_of(fs, ino);
    int rc = 0;

    pthread_mutex_lock(&shard->lock);
    if (shard->used * 4 >= shard->room * 3)
        rc = grow(shard);
    if (rc == 0) {
        struct ref *ref = find(shard, ino);
        if (ref->ino == 0) {
            *ref = (struct ref){.ino = ino};
            shard->used++;
        }
        ref->count++;
    }
    pthread_mutex_unlock(&shard->lock);
    return rc;
}

bool ref_orphan(struct fs *fs, uint64_t ino, uint64_t orphan)
{
    struct ref_shard *shard = shard_of(fs, ino);
    bool held = false;

    pthread_mutex_lock(&shard->lock);
    if (shard->room > 0) {
        struct ref *ref = find(shard, ino);
        held = ref->ino == ino;
        if (held)
            ref->orphan = orphan;
    }
    pthread_mutex_unlock(&shard->lock);
    return held;
}

bool ref_put(struct fs *fs, uint64_t ino, uint64_t count, uint64_t *ret_orphan)
{
    struct ref_shard *shard = shard_of(fs, ino);
    bool gone = false;

    pthread_mutex_lock(&shard->lock);
    if (shard->room > 0) {
        struct ref *ref = find(shard, ino);
        if (ref->ino == ino && ref->count > count) {
            ref->count -= count;
        } else if (ref->ino == ino) {
            gone = ref->orphan != 0;
            *ret_orphan = ref->orphan;
            drop(shard, ref);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return gone;
}
