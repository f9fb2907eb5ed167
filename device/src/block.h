// SPDX-License-Identifier: MIT
/*
 * block: 4 KiB of a file in memory, shared by all who hold a reference: the images of a file, the writes
 * that a record keeps, the crash states made of them. A block that is shared is never written.
 *
 * A hole is NULL; block_zeros is space promised and never written, and not counted.
 *
 * Threads: references may be taken and given back from any; the bytes are their holders'.
 */
#ifndef DEVICE_BLOCK_H
#define DEVICE_BLOCK_H

#include <device/device.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct block {
    /* Holders. Taken relaxed (from one who has it); given back acq_rel, so that whoever frees it, or finds
     * itself alone with it (block_is_shared, acquire), comes after all that the others did. */
    _Atomic unsigned refs;
    unsigned char bytes[DEVICE_BLOCK_BYTES];
};

extern struct block block_zeros; /* memory_file.c; never written */

static inline bool block_is_counted(const struct block *block)
{
    return block != NULL && block != &block_zeros;
}

/* A copy of the 4 KiB at `bytes`, or of nothing in particular if NULL. NULL: no memory. */
static inline struct block *block_new(const void *bytes)
{
    struct block *block = malloc(sizeof(*block));
    if (block == NULL)
        return NULL;
    atomic_init(&block->refs, 1);
    if (bytes != NULL)
        memcpy(block->bytes, bytes, sizeof(block->bytes));
    return block;
}

static inline struct block *block_get(struct block *block)
{
    if (block_is_counted(block))
        atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    return block;
}

static inline void block_put(struct block *block)
{
    if (block_is_counted(block) && atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel) == 1)
        free(block);
}

/* True unless the caller's `holds` references are all. */
static inline bool block_is_shared(const struct block *block, unsigned holds)
{
    return !block_is_counted(block) || atomic_load_explicit(&block->refs, memory_order_acquire) > holds;
}

static inline const unsigned char *block_bytes(const struct block *block)
{
    return block != NULL ? block->bytes : block_zeros.bytes;
}

#endif
