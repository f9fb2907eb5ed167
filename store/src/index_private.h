// SPDX-License-Identifier: MIT
/* What index.c, index_grow.c and index_image.c share: the index in memory, and how an entry matches. Tests look at
 * it too, no other room does. */
#ifndef STORE_INDEX_PRIVATE_H
#define STORE_INDEX_PRIVATE_H

#include "index.h"
#include "index_slab.h"

#include <pthread.h>

#define INDEX_BUCKETS_MIN UINT64_C(64)
#define INDEX_BUCKETS_MAX (UINT64_C(1) << 40)
#define INDEX_TAG_SHIFT 48
#define INDEX_TAG_MASK (UINT64_C(0x3fff) << INDEX_TAG_SHIFT)

/* A table in one word, so that an operation gets all of it by one load: address of the buckets (of a page,
 * hence the low bits are free), level, and whether the table is being split. 0: no table. */
#define INDEX_TABLE_LEVEL UINT64_C(63)
#define INDEX_TABLE_SPLITTING UINT64_C(64)

struct index {
    /* Read by every operation; written by the grower, as described in index_grow.c. */
    _Alignas(64) _Atomic uint64_t table;
    _Atomic uint64_t next;  /* while `table` is splitting: the table of twice the size */
    _Atomic uint64_t split; /* while `table` is splitting: its buckets below this one are in `next` */

    _Alignas(64) unsigned bits; /* constant, as is the next */
    struct epoch *epoch;
    pthread_mutex_t lock;        /* grow, sweep, save */
    pthread_mutex_t tables_lock; /* inside `lock`: tables come and go; held for processor work only */
    struct index_slab slab;      /* overflow buckets */
};

static inline struct index_bucket *index_table_buckets(uint64_t table)
{
    return (struct index_bucket *)(uintptr_t)(table & ~(INDEX_TABLE_LEVEL | INDEX_TABLE_SPLITTING));
}

static inline unsigned index_table_level(uint64_t table)
{
    return (unsigned)(table & INDEX_TABLE_LEVEL);
}

static inline uint64_t index_table_size(uint64_t table)
{
    return UINT64_C(1) << index_table_level(table);
}

/* What an entry for the hash has in bits 48 to 61, in a table of this level: the hash's bits behind the bucket's, and
 * the one behind them. So a free word, which has no one, is no entry's. */
static inline uint64_t index_tag(uint64_t hash, unsigned level, unsigned bits)
{
    uint64_t one = UINT64_C(1) << (INDEX_TAG_SHIFT + INDEX_KNOWN_MAX + level - bits);

    return ((hash << level >> 2) & INDEX_TAG_MASK & ~((one << 1) - 1)) | one;
}

/* Does the entry match a hash of this tag, whatever its state? */
static inline bool index_matches(uint64_t entry, uint64_t tag)
{
    return (entry & INDEX_TAG_MASK) == tag;
}

static inline unsigned index_known(uint64_t entry)
{
    return 61 - (unsigned)__builtin_ctzll(entry & INDEX_TAG_MASK);
}

static inline bool index_is_frozen(uint64_t word)
{
    return (word & INDEX_FROZEN) == INDEX_FROZEN;
}

static inline bool index_is_tentative(uint64_t word)
{
    return (word & INDEX_FROZEN) == INDEX_TENTATIVE;
}

/* The next bucket of the chain or NULL. `order` is acquire: the bucket's memory is there; or seq_cst, see
 * index.c. Both pair with the CAS in chain_append(), and with unlink() in index_grow.c. */
static inline struct index_bucket *index_next_bucket(const struct index *index, struct index_bucket *bucket,
                                                     memory_order order)
{
    uint64_t number = atomic_load_explicit(&bucket->overflow, order);

    return number - 1 < INDEX_SLAB_MAX ? index_slab_at(&index->slab, number) : NULL;
}

/* index.c: maps a table, zeroed and untouched, as the word that stands for it. 0: no memory. */
uint64_t index_table_map(unsigned level);
void index_table_unmap(uint64_t table);

/* index_grow.c: ends a growth that is under way. `lock` held. -ENOMEM. */
int index_end_growth(struct index *index);

#endif
