// SPDX-License-Identifier: MIT
/* Locks of inodes, striped by number. Several are taken in ascending order, each stripe once. */
#include "private.h"

static unsigned stripe_of(uint64_t ino)
{
    return (unsigned)(ino * UINT64_C(0x9e3779b97f4a7c15) >> 54);
}

void lock_read(struct fs *fs, uint64_t ino)
{
    pthread_rwlock_rdlock(&fs->stripes[stripe_of(ino)]);
}

void unlock_read(struct fs *fs, uint64_t ino)
{
    pthread_rwlock_unlock(&fs->stripes[stripe_of(ino)]);
}

void lock_write(struct fs *fs, struct lockset *set, const uint64_t *inos, unsigned count)
{
    set->fs = fs;
    set->count = 0;
    for (unsigned i = 0; i < count; i++) {
        if (inos[i] == 0)
            continue;
        uint16_t stripe = (uint16_t)stripe_of(inos[i]);
        unsigned at = 0;
        while (at < set->count && set->stripes[at] < stripe)
            at++;
        if (at < set->count && set->stripes[at] == stripe)
            continue;
        for (unsigned j = set->count++; j > at; j--)
            set->stripes[j] = set->stripes[j - 1];
        set->stripes[at] = stripe;
    }
    for (unsigned i = 0; i < set->count; i++)
        pthread_rwlock_wrlock(&fs->stripes[set->stripes[i]]);
}

void unlock_write(struct lockset *set)
{
    for (unsigned i = set->count; i-- > 0;)
        pthread_rwlock_unlock(&set->fs->stripes[set->stripes[i]]);
}
