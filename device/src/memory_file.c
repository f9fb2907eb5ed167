// SPDX-License-Identifier: MIT
/* memory_file: contents by copy on write. What it is and its invariants: memory_file.h. */
#include "memory_file.h"

#include <errno.h>

#define BLOCK DEVICE_BLOCK_BYTES

struct block block_zeros;

/* ---- space ---------------------------------------------------------------------------------- */

void memory_space_init(struct memory_space *space)
{
    atomic_init(&space->used, 0);
    atomic_init(&space->limit, (UINT64_C(1) << 40) / BLOCK);
}

void memory_space_limit(struct memory_space *space, uint64_t bytes)
{
    atomic_store_explicit(&space->limit, bytes / BLOCK, memory_order_relaxed);
}

void memory_space_get(struct memory_space *space, uint64_t *ret_total_bytes, uint64_t *ret_free_bytes)
{
    uint64_t limit = atomic_load_explicit(&space->limit, memory_order_relaxed);
    uint64_t used = atomic_load_explicit(&space->used, memory_order_relaxed);
    *ret_total_bytes = limit * BLOCK;
    *ret_free_bytes = used < limit ? (limit - used) * BLOCK : 0;
}

static int space_take(struct memory_space *space, uint64_t blocks)
{
    if (blocks == 0)
        return 0;
    uint64_t limit = atomic_load_explicit(&space->limit, memory_order_relaxed);
    uint64_t used = atomic_load_explicit(&space->used, memory_order_relaxed);
    do {
        if (blocks > limit || used > limit - blocks)
            return -ENOSPC;
    } while (!atomic_compare_exchange_weak_explicit(&space->used, &used, used + blocks, memory_order_relaxed,
                                                    memory_order_relaxed));
    return 0;
}

/* Sets what the file takes without asking the limit. */
static void file_set_taken(struct memory_file *file, uint64_t blocks)
{
    /* Unsigned arithmetic: subtracting is adding the complement. */
    atomic_fetch_add_explicit(&file->space->used, blocks - file->taken, memory_order_relaxed);
    file->taken = blocks;
}

/* ---- the file ------------------------------------------------------------------------------- */

struct memory_file *memory_file_new(struct memory_space *space)
{
    struct memory_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return NULL;
    file->space = space;
    pthread_mutex_init(&file->lock, NULL);
    return file;
}

void memory_file_free(struct memory_file *file)
{
    file_set_taken(file, 0);
    for (uint64_t i = 0; i < file->block_count; i++) {
        block_put(file->blocks[i].live);
        block_put(file->blocks[i].durable);
    }
    free(file->blocks);
    pthread_mutex_destroy(&file->lock);
    free(file);
}

uint64_t memory_file_size(struct memory_file *file)
{
    pthread_mutex_lock(&file->lock);
    uint64_t size = file->size;
    pthread_mutex_unlock(&file->lock);
    return size;
}

static void mark_dirty(struct memory_file *file, uint64_t from, uint64_t to)
{
    bool clean = file->dirty_from == file->dirty_to;
    if (clean || from < file->dirty_from)
        file->dirty_from = from;
    if (clean || to > file->dirty_to)
        file->dirty_to = to;
}

/* Room in the table for blocks below `to`, and space for those of [from, to) that are holes. Nothing
 * changed on error. */
static int make_room(struct memory_file *file, uint64_t from, uint64_t to)
{
    if (to > file->block_count) {
        uint64_t count = to > 2 * file->block_count ? to : 2 * file->block_count;
        if (count > SIZE_MAX / sizeof(*file->blocks))
            return -EFBIG;
        struct memory_block *grown = realloc(file->blocks, count * sizeof(*grown));
        if (grown == NULL)
            return -ENOMEM;
        memset(grown + file->block_count, 0, (count - file->block_count) * sizeof(*grown));
        file->blocks = grown;
        file->block_count = count;
    }
    uint64_t holes = 0;
    for (uint64_t i = from; i < to; i++)
        holes += file->blocks[i].live == NULL;
    int ret = space_take(file->space, holes);
    if (ret < 0)
        return ret;
    file->taken += holes;
    for (uint64_t i = from; i < to; i++) {
        if (file->blocks[i].live == NULL)
            file->blocks[i].live = &block_zeros;
    }
    mark_dirty(file, from, to);
    return 0;
}

int64_t memory_file_read(struct memory_file *file, uint64_t offset, void *buf, uint32_t len)
{
    unsigned char *to = buf;
    pthread_mutex_lock(&file->lock);
    uint64_t left = offset < file->size ? file->size - offset : 0;
    uint32_t moved = left < len ? (uint32_t)left : len;
    for (uint32_t at = 0, part; at < moved; at += part) {
        const struct block *live = file->blocks[(offset + at) / BLOCK].live;
        uint32_t skip = (uint32_t)((offset + at) % BLOCK);
        part = moved - at < BLOCK - skip ? moved - at : BLOCK - skip;
        memcpy(to + at, (const unsigned char *)block_bytes(live) + skip, part);
    }
    pthread_mutex_unlock(&file->lock);
    return moved;
}

static int64_t write_held(struct memory_file *file, uint64_t offset, const unsigned char *from, uint32_t len)
{
    uint64_t first = offset / BLOCK;
    int ret = make_room(file, first, (offset + len) / BLOCK);
    if (ret < 0)
        return ret;
    for (uint32_t at = 0; at < len; at += BLOCK) {
        struct memory_block *block = &file->blocks[first + at / BLOCK];
        if (!block_is_shared(block->live, 1)) {
            memcpy(block->live->bytes, from + at, BLOCK);
            continue;
        }
        struct block *fresh = block_new(from + at);
        if (fresh == NULL)
            return -ENOMEM;
        block_put(block->live);
        block->live = fresh;
    }
    if (file->size < offset + len)
        file->size = offset + len;
    return len;
}

int64_t memory_file_write(struct memory_file *file, uint64_t offset, const void *buf, uint32_t len)
{
    pthread_mutex_lock(&file->lock);
    int64_t ret = write_held(file, offset, buf, len);
    pthread_mutex_unlock(&file->lock);
    return ret;
}

int memory_file_allocate(struct memory_file *file, uint64_t offset, uint64_t len)
{
    pthread_mutex_lock(&file->lock);
    int ret = make_room(file, offset / BLOCK, (offset + len + BLOCK - 1) / BLOCK);
    if (ret == 0 && file->size < offset + len)
        file->size = offset + len;
    pthread_mutex_unlock(&file->lock);
    return ret;
}

void memory_file_punch(struct memory_file *file, uint64_t offset, uint64_t len)
{
    uint64_t first = offset / BLOCK, holes = 0;
    pthread_mutex_lock(&file->lock);
    uint64_t end = first + len / BLOCK < file->block_count ? first + len / BLOCK : file->block_count;
    for (uint64_t i = first; i < end; i++) {
        if (file->blocks[i].live == NULL)
            continue;
        block_put(file->blocks[i].live);
        file->blocks[i].live = NULL;
        holes++;
    }
    if (holes > 0) {
        mark_dirty(file, first, end);
        file_set_taken(file, file->taken - holes);
    }
    pthread_mutex_unlock(&file->lock);
}

void memory_file_truncate(struct memory_file *file)
{
    pthread_mutex_lock(&file->lock);
    for (uint64_t i = 0; i < file->block_count; i++) {
        block_put(file->blocks[i].live);
        file->blocks[i].live = NULL;
    }
    mark_dirty(file, 0, file->block_count);
    file->size = 0;
    file_set_taken(file, 0);
    pthread_mutex_unlock(&file->lock);
}

void memory_file_sync(struct memory_file *file)
{
    pthread_mutex_lock(&file->lock);
    for (uint64_t i = file->dirty_from; i < file->dirty_to; i++) {
        struct block *durable = file->blocks[i].durable;
        file->blocks[i].durable = block_get(file->blocks[i].live);
        block_put(durable);
    }
    file->dirty_from = file->dirty_to = 0;
    file->durable_size = file->size;
    pthread_mutex_unlock(&file->lock);
}

void memory_file_revert(struct memory_file *file)
{
    pthread_mutex_lock(&file->lock);
    uint64_t taken = 0;
    for (uint64_t i = 0; i < file->block_count; i++) {
        block_put(file->blocks[i].live);
        file->blocks[i].live = block_get(file->blocks[i].durable);
        taken += file->blocks[i].live != NULL;
    }
    file->dirty_from = file->dirty_to = 0;
    file->size = file->durable_size;
    file_set_taken(file, taken);
    pthread_mutex_unlock(&file->lock);
}

int memory_file_fill(struct memory_file *file, struct block *const *blocks, uint64_t count, uint64_t size)
{
    pthread_mutex_lock(&file->lock);
    int ret = make_room(file, 0, count);
    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        block_put(file->blocks[i].live);
        file->blocks[i].live = blocks[i] != NULL ? block_get(blocks[i]) : &block_zeros;
    }
    if (ret == 0)
        file->size = size;
    pthread_mutex_unlock(&file->lock);
    if (ret == 0)
        memory_file_sync(file);
    return ret;
}

void memory_file_forget(struct memory_file *file)
{
    pthread_mutex_lock(&file->lock);
    file_set_taken(file, 0);
    pthread_mutex_unlock(&file->lock);
}

int memory_file_copy(struct memory_file *file, const void **ret_bytes, uint64_t *ret_len)
{
    pthread_mutex_lock(&file->lock);
    uint64_t len = file->size;
    uint64_t blocks = (len + BLOCK - 1) / BLOCK;
    unsigned char *bytes = blocks > 0 ? aligned_alloc(BLOCK, blocks * BLOCK) : NULL;
    for (uint64_t i = 0; bytes != NULL && i < blocks; i++)
        memcpy(bytes + i * BLOCK, block_bytes(file->blocks[i].live), BLOCK);
    pthread_mutex_unlock(&file->lock);
    if (blocks > 0 && bytes == NULL)
        return -ENOMEM;
    *ret_bytes = blocks > 0 ? (const void *)bytes : "";
    *ret_len = len;
    return 0;
}

static int flip_held(struct memory_file *file, uint64_t offset, unsigned bit)
{
    if (offset >= file->size)
        return -EINVAL;
    struct memory_block *block = &file->blocks[offset / BLOCK];
    bool same = block->live == block->durable;
    struct block *live = block_new(block_bytes(block->live)); /* others may hold the old one */
    struct block *durable = same ? block_get(live) : block_new(block_bytes(block->durable));
    if (live == NULL || durable == NULL) {
        block_put(live);
        block_put(durable);
        return -ENOMEM;
    }
    if (block->live == NULL)
        file_set_taken(file, file->taken + 1);
    block_put(block->live);
    block_put(block->durable);
    *block = (struct memory_block){.live = live, .durable = durable};
    live->bytes[offset % BLOCK] ^= (unsigned char)(1u << bit);
    if (!same)
        durable->bytes[offset % BLOCK] ^= (unsigned char)(1u << bit);
    return 0;
}

int memory_file_flip(struct memory_file *file, uint64_t offset, unsigned bit)
{
    pthread_mutex_lock(&file->lock);
    int ret = flip_held(file, offset, bit);
    pthread_mutex_unlock(&file->lock);
    return ret;
}
