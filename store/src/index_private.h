// SPDX-License-Identifier: MIT
/* What index.c and index_image.c share: the index in memory. Tests look at it too, no other room does. */
#ifndef STORE_INDEX_PRIVATE_H
#define STORE_INDEX_PRIVATE_H

#include "index.h"
#include "index_slab.h"

#define INDEX_BUCKETS_MIN UINT64_C(64)
#define INDEX_BUCKETS_MAX (UINT64_C(1) << 40)
#define INDEX_TAG_MASK (UINT64_C(0x3fff) << INDEX_TAG_SHIFT)

struct index {
    struct index_bucket *table; /* constant, as are the next two */
    uint64_t mask;              /* buckets - 1 */
    uint64_t table_bytes;
    struct index_slab slab; /* overflow buckets */
};

/* The tag of a hash, where an entry has it. */
static inline uint64_t index_tag(uint64_t hash)
{
    return (hash >> 2) & INDEX_TAG_MASK;
}

#endif
