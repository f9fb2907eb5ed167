// SPDX-License-Identifier: MIT
/*
 * index_slab: the overflow buckets of one index, numbered from 1 (0 means none). The numbers are small
 * and dense, so a link fits 48 bits and means the same in memory and in an image. A bucket has its
 * number for life: there is no free.
 *
 * Invariants:
 *   1. Every bucket 1..used has memory, zeroed when handed out; `used` only grows.
 *   2. A group or slab pointer is set once (NULL to memory) and constant until fini.
 *   3. used <= limit when a bucket is handed out.
 *
 * Threads: any number in get, at and used; init, fini and extend alone. No locks: two threads that need
 * the same new slab map it both, and one unmaps again.
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

struct index_bucket {
    _Alignas(64) _Atomic uint64_t entries[INDEX_BUCKET_ENTRIES]; /* written and read by all, see index.h */
    _Atomic uint64_t overflow; /* number of the next bucket; 0 to number once, by who appends */
};
_Static_assert(sizeof(struct index_bucket) == 64, "a bucket is a cache line");

struct index_slab_group {
    _Atomic(struct index_bucket *) slabs[INDEX_GROUP_SLABS]; /* set by get, read by all */
};

struct index_slab {
    _Atomic(struct index_slab_group *) groups[INDEX_GROUPS]; /* set by get, read by all */
    _Atomic uint64_t used;                                   /* grown by get, read by all */
    _Atomic uint64_t limit;                                  /* INDEX_SLAB_MAX; lowered by tests */
};

void index_slab_init(struct index_slab *slab);
/* Unmaps all buckets. */
void index_slab_fini(struct index_slab *slab);

/* Hands out a zeroed bucket. -ENOMEM: nothing changed. */
int index_slab_get(struct index_slab *slab, uint64_t *ret_number);
/* Hands out buckets 1..count of a slab that has handed out none. -ENOMEM: still none. */
int index_slab_extend(struct index_slab *slab, uint64_t count);

/* Buckets handed out. seq_cst: whoever read a number from a link (seq_cst) finds it counted. */
static inline uint64_t index_slab_used(const struct index_slab *slab)
{
    return atomic_load_explicit(&slab->used, memory_order_seq_cst);
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
