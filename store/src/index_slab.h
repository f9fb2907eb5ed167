// SPDX-License-Identifier: MIT
/*
 * index_slab: the overflow buckets of one index, numbered from 1 (0 means none). The numbers are small
 * and dense, so a link fits 48 bits: what was given back is handed out before anything new. Memory goes
 * back to the system when the slab ends.
 *
 * Invariants:
 *   1. Every bucket 1..used has memory; `used` only grows.
 *   2. A group or slab pointer is set once (NULL to memory) and constant until fini.
 *   3. used <= limit when a new bucket is handed out.
 *   4. A bucket is with one owner or in the free list, linked through its `overflow` word.
 *
 * Threads: any number in get, put, at and the counts; init, fini and extend alone. No locks: two threads
 * that need the same new slab map it both, and one unmaps again. Of two threads that take the same free
 * bucket one fails, since the free list's word has a counter of takings: it would have to go round (2^32
 * takings) between one thread's load and its CAS to be mistaken.
 */
#ifndef STORE_INDEX_SLAB_H
#define STORE_INDEX_SLAB_H

#include <stdatomic.h>
#include <stdint.h>

#define INDEX_BUCKET_ENTRIES 7u
#define INDEX_SLAB_BYTES 65536u
#define INDEX_SLAB_BUCKETS (INDEX_SLAB_BYTES / 64)
#define INDEX_GROUP_SLABS (INDEX_SLAB_BYTES / sizeof(void *))
#define INDEX_GROUPS 256u
#define INDEX_SLAB_MAX ((uint64_t)INDEX_GROUPS * INDEX_GROUP_SLABS * INDEX_SLAB_BUCKETS) /* buckets: 2^31 */

#define INDEX_END UINT64_MAX /* a link that leads nowhere and never will: no bucket can be appended */

struct index_bucket {
    _Alignas(64) _Atomic uint64_t entries[INDEX_BUCKET_ENTRIES]; /* written and read by all, see index.h */
    _Atomic uint64_t overflow; /* number of the next bucket, 0 or INDEX_END: none; see index.c */
};
_Static_assert(sizeof(struct index_bucket) == 64, "a bucket is a cache line");

struct index_slab_group {
    _Atomic(struct index_bucket *) slabs[INDEX_GROUP_SLABS]; /* set by get, read by all */
};

struct index_slab {
    _Atomic(struct index_slab_group *) groups[INDEX_GROUPS]; /* set by get, read by all */
    _Atomic uint64_t used;                                   /* grown by get, read by all */
    _Atomic uint64_t limit;                                  /* INDEX_SLAB_MAX; lowered by tests */
    _Atomic uint64_t free;                                   /* takings << 32 | number; by get and put */
    _Atomic uint64_t free_count;                             /* relaxed: a statistic; by get and put */
};

void index_slab_init(struct index_slab *slab);
/* Unmaps all buckets. */
void index_slab_fini(struct index_slab *slab);

/* Hands out a zeroed bucket. -ENOMEM: nothing changed. */
int index_slab_get(struct index_slab *slab, uint64_t *ret_number);
/* Takes one back that nobody reads any more. */
void index_slab_put(struct index_slab *slab, uint64_t number);
/* Hands out buckets 1..count of a slab that has handed out none. -ENOMEM: still none. */
int index_slab_extend(struct index_slab *slab, uint64_t count);

/* The highest number ever handed out. acquire: pairs with the CAS in get; a bucket that was linked before
 * something that the caller has seen is counted. */
static inline uint64_t index_slab_used(const struct index_slab *slab)
{
    return atomic_load_explicit(&slab->used, memory_order_acquire);
}

/* Buckets that are with an owner, more or less while others get and put. */
static inline uint64_t index_slab_in_use(const struct index_slab *slab)
{
    uint64_t idle = atomic_load_explicit(&slab->free_count, memory_order_relaxed); /* a statistic */
    uint64_t used = index_slab_used(slab);

    return used > idle ? used - idle : 0;
}

/* The bucket of a number that was handed out. */
static inline struct index_bucket *index_slab_at(const struct index_slab *slab, uint64_t number)
{
    uint64_t i = number - 1;
    uint64_t in_group = i / INDEX_SLAB_BUCKETS % INDEX_GROUP_SLABS;
    /* acquire, both: pair with the publishing CAS in index_slab.c */
    struct index_slab_group *group =
        atomic_load_explicit(&slab->groups[i / INDEX_SLAB_BUCKETS / INDEX_GROUP_SLABS], memory_order_acquire);

    return atomic_load_explicit(&group->slabs[in_group], memory_order_acquire) + i % INDEX_SLAB_BUCKETS;
}

#endif
