// SPDX-License-Identifier: MIT
/*
 * memory_file: the contents of one file of the memory device, live and durable, block by block.
 *
 * Invariants:
 *   1. block.live and block.durable are references as block.h has them; a block that anybody else
 *      holds is not written any more.
 *   2. Blocks where the two differ lie in [dirty_from, dirty_to).
 *   3. size and durable_size are at most block_count * 4096.
 *   4. `taken` == number of blocks whose live is not NULL, or 0 once forgotten; the sum over all files
 *      is space.used.
 *
 * Threads: any; file->lock guards all but refs and live_refs, which are memory.c's.
 */
#ifndef DEVICE_MEMORY_FILE_H
#define DEVICE_MEMORY_FILE_H

#include "block.h"

#include <pthread.h>
#include <stdint.h>

/* How much there is and how much is taken, in blocks. All accesses relaxed: it is a counter, and says
 * nothing about other memory. */
struct memory_space {
    _Atomic uint64_t limit;
    _Atomic uint64_t used;
};

void memory_space_init(struct memory_space *space);
void memory_space_limit(struct memory_space *space, uint64_t bytes);
void memory_space_get(struct memory_space *space, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes);

struct memory_block {
    struct block *live, *durable;
};

struct memory_file {
    unsigned refs, live_refs; /* guarded by the device's lock */

    struct memory_space *space; /* constant */
    pthread_mutex_t lock;       /* guards all below */
    struct memory_block *blocks;
    uint64_t block_count;
    uint64_t size, durable_size;
    uint64_t dirty_from, dirty_to;
    uint64_t taken;
};

/* NULL: no memory. */
struct memory_file *memory_file_new(struct memory_space *space);
void memory_file_free(struct memory_file *file);

uint64_t memory_file_size(struct memory_file *file);
/* Bytes or -ENOSPC, -ENOMEM; writes are of whole blocks. */
int64_t memory_file_read(struct memory_file *file, uint64_t offset, void *buf, uint32_t len);
int64_t memory_file_write(struct memory_file *file, uint64_t offset, const void *buf, uint32_t len);
int memory_file_allocate(struct memory_file *file, uint64_t offset, uint64_t len);
void memory_file_punch(struct memory_file *file, uint64_t offset, uint64_t len);
void memory_file_truncate(struct memory_file *file);

/* The durable image becomes the live one, and the other way round. */
void memory_file_sync(struct memory_file *file);
void memory_file_revert(struct memory_file *file);

/* Makes both images these blocks (NULL: zeros), of which it takes references. -ENOMEM. */
int memory_file_fill(struct memory_file *file, struct block *const *blocks, uint64_t count, uint64_t size);

/* Gives the space back: nobody live sees the file any more (a crash may bring it back). */
void memory_file_forget(struct memory_file *file);

/* The whole of it in memory to free(3); not to be freed if *ret_len is 0. */
int memory_file_copy(struct memory_file *file, const void **ret_bytes, uint64_t *ret_len);
int memory_file_flip(struct memory_file *file, uint64_t offset, unsigned bit);

/* memory.c: adds a file made of these blocks to the device, live and durable. -ENOMEM. */
int memory_add(struct device *device, const char *name, struct block *const *blocks, uint64_t count, uint64_t size);

#endif
