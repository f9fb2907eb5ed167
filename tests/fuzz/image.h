// SPDX-License-Identifier: MIT
/*
 * The files of a small closed store as bytes, to be edited, sealed (every checksum made to fit what is there
 * then, as an attacker would) and put on a device. The offsets are those of store/SPEC.md. What there is of the log is in
 * its first segment.
 */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include <device/memory.h>
#include <record.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define IMAGE_FILES 16
#define IMAGE_ITEMS 4096

/* Of the superblock; and of a checkpoint, which stands at 80 and 16 bytes into each snapshot. */
enum { SB_BYTES = 12, SB_CHECKSUM = 16, SB_ID = 32, SB_NEXT_IMAGE = 64, SB_NEXT_SNAPSHOT = 72, SB_CHECKPOINT = 80 };
enum { SB_SNAPSHOT_COUNT = 144, SB_SNAPSHOTS = 168, SNAPSHOT_BYTES = 336, SNAPSHOT_AT = 16, SNAPSHOT_LABEL = 80 };
enum { AT_IMAGE = 0, AT_END = 8, AT_END_CHAIN = 24, AT_BEGIN = 32, AT_BEGIN_CHAIN = 48, AT_REACH = 56 };
enum { INDEX_BUCKETS_AT = 32, INDEX_OVERFLOW_AT = 40, INDEX_CHECKSUM_AT = 4088, INDEX_BODY_AT = 4096 };

struct image_file {
    char name[DEVICE_NAME_MAX + 1];
    uint8_t *bytes;
    uint64_t len;
};

struct image {
    struct image_file files[IMAGE_FILES];
    unsigned count;
    struct image_file *superblocks[2], *log, *index; /* index: of the checkpoint */
    uint64_t store_id, begin, begin_chain, end;      /* the log, as it was taken */
    uint64_t items[IMAGE_ITEMS];                     /* addresses of records, pads and commits, as it was taken */
    unsigned item_count;
};

static inline uint64_t get64_at(const uint8_t *at)
{
    uint64_t n;

    memcpy(&n, at, sizeof n);
    return n;
}

static inline void put64_at(uint8_t *at, uint64_t n)
{
    memcpy(at, &n, sizeof n);
}

static inline uint8_t *superblock_at(struct image *image, unsigned which, unsigned offset)
{
    return image->superblocks[which]->bytes + offset;
}

/* ---- taking and putting ------------------------------------------------------------------------------- */

struct image_taking {
    struct device *device;
    struct image *image;
};

static inline int image_take_file(void *ctx, const char *name)
{
    struct image_taking *taking = ctx;
    struct image_file *file = &taking->image->files[taking->image->count++];
    const void *bytes;
    int fd = device_file_open(taking->device, name, 0);

    if (fd < 0 || taking->image->count > IMAGE_FILES || device_map(taking->device, fd, &bytes, &file->len) < 0)
        abort();
    snprintf(file->name, sizeof file->name, "%s", name);
    file->bytes = aligned_alloc(DEVICE_BLOCK_BYTES, file->len);
    memcpy(file->bytes, bytes, file->len);
    device_unmap(taking->device, bytes, file->len);
    device_file_close(taking->device, fd);
    return 0;
}

static inline uint64_t image_item_bytes(const struct image *image, uint64_t at)
{
    struct record *r = (struct record *)(void *)(image->log->bytes + at);
    uint64_t word = get64_at(image->log->bytes + at);

    return word & RECORD_PAD ? word & 0xffffffff : word == RECORD_COMMIT ? COMMIT_BYTES : record_size(r);
}

/* Copies all files of a store that was closed. image_free() frees. */
static inline void image_take(struct device *device, struct image *ret_image)
{
    struct image_taking taking = {device, ret_image};
    char index[DEVICE_NAME_MAX + 1];

    *ret_image = (struct image){.count = 0};
    if (device_list(device, image_take_file, &taking) < 0)
        abort();
    for (unsigned pass = 0; pass < 2; pass++) { /* the second: the index's name is known */
        for (struct image_file *f = ret_image->files; f < ret_image->files + ret_image->count; f++) {
            if (strncmp(f->name, "superblock.", 11) == 0)
                ret_image->superblocks[f->name[11] - '0'] = f;
            else if (strcmp(f->name, "log.0000000000000000") == 0)
                ret_image->log = f;
            else if (pass > 0 && strcmp(f->name, index) == 0)
                ret_image->index = f;
        }
        snprintf(index, sizeof index, "index.%016llx",
                 (unsigned long long)get64_at(superblock_at(ret_image, 0, SB_CHECKPOINT + AT_IMAGE)));
    }
    const uint8_t *at = superblock_at(ret_image, 0, SB_CHECKPOINT);
    ret_image->store_id = get64_at(superblock_at(ret_image, 0, SB_ID));
    ret_image->begin = get64_at(at + AT_BEGIN);
    ret_image->begin_chain = get64_at(at + AT_BEGIN_CHAIN);
    ret_image->end = get64_at(at + AT_REACH);
    for (uint64_t item = ret_image->begin; item < ret_image->end && ret_image->item_count < IMAGE_ITEMS;
         item += image_item_bytes(ret_image, item))
        ret_image->items[ret_image->item_count++] = item;
}

static inline void image_free(struct image *image)
{
    for (unsigned i = 0; i < image->count; i++)
        free(image->files[i].bytes);
    image->count = 0;
}

/* Makes `to` (zeros, or a copy of the same) a copy. */
static inline void image_copy(const struct image *from, struct image *to)
{
    if (to->count == 0) {
        *to = *from;
        for (unsigned i = 0; i < from->count; i++)
            to->files[i].bytes = aligned_alloc(DEVICE_BLOCK_BYTES, from->files[i].len);
        for (unsigned i = 0; i < 2; i++)
            to->superblocks[i] = &to->files[from->superblocks[i] - from->files];
        to->log = &to->files[from->log - from->files];
        to->index = &to->files[from->index - from->files];
    }
    for (unsigned i = 0; i < from->count; i++)
        memcpy(to->files[i].bytes, from->files[i].bytes, from->files[i].len);
}

/* A device in memory that holds the image; device_close() it. */
static inline struct device *image_put(const struct image *image)
{
    struct device *device;
    struct device_queue *queue;

    if (device_memory_open(&device) < 0 || device_queue_open(device, 1, &queue) < 0)
        abort();
    for (const struct image_file *f = image->files; f < image->files + image->count; f++) {
        int fd = device_file_open(device, f->name, DEVICE_FILE_CREATE);
        uint64_t used = f->len; /* the rest is zeros */
        if (strncmp(f->name, "log.", 4) == 0)
            used = f == image->log ? image->end : 0;
        if (fd < 0 || device_file_allocate(device, fd, 0, f->len) < 0 ||
            (used > 0 && device_transfer(queue, DEVICE_WRITE, fd, 0, f->bytes, (uint32_t)used) < 0))
            abort();
        device_file_close(device, fd);
    }
    device_queue_close(queue);
    return device;
}

/* ---- sealing ------------------------------------------------------------------------------------------ */

static inline void seal_superblock(struct image_file *f)
{
    uint32_t bytes;

    memcpy(&bytes, f->bytes + SB_BYTES, sizeof bytes);
    if (bytes < SB_SNAPSHOTS || bytes > f->len)
        return;
    put64_at(f->bytes + SB_CHECKSUM, 0);
    put64_at(f->bytes + SB_CHECKSUM, XXH3_64bits(f->bytes, bytes));
}

static inline void seal_index(struct image_file *f)
{
    uint64_t sum = XXH3_64bits(f->bytes, INDEX_CHECKSUM_AT);
    uint64_t buckets = get64_at(f->bytes + INDEX_BUCKETS_AT) + get64_at(f->bytes + INDEX_OVERFLOW_AT);
    uint64_t body = (buckets * 64 + 4095) & ~UINT64_C(4095), pieces = (body + 65535) / 65536;

    put64_at(f->bytes + INDEX_CHECKSUM_AT, sum);
    if (buckets > f->len || f->len < INDEX_BODY_AT + body + pieces * 8)
        return;
    for (uint64_t i = 0; i < pieces; i++) {
        uint64_t len = body - i * 65536 < 65536 ? body - i * 65536 : 65536;
        put64_at(f->bytes + INDEX_BODY_AT + body + i * 8,
                 XXH3_64bits_withSeed(f->bytes + INDEX_BODY_AT + i * 65536, len, sum + i));
    }
}

struct sealing {
    uint64_t chain, chain_before, records;
};

/* The item's checksum, for what it says now; its size, or 0 where nothing can be made of it. */
static inline uint64_t seal_item(struct image *image, uint64_t at, struct sealing *sealing)
{
    uint8_t *bytes = image->log->bytes + at;
    struct record *r = (struct record *)(void *)bytes;
    struct commit_record *c = (struct commit_record *)(void *)bytes;
    uint64_t word = get64_at(bytes), size = image_item_bytes(image, at);

    if (size < 8 || size % 8 != 0 || at + size > image->log->len)
        return 0;
    if (word & RECORD_PAD) {
        put64_at(bytes, pad_word(at, size));
    } else if (word == RECORD_COMMIT) {
        c->chain = sealing->chain;
        c->chain_before = sealing->chain_before;
        c->records = sealing->records;
        c->seal = commit_checksum(c, at, image->store_id);
        sealing->chain_before = sealing->chain;
        sealing->records = 0;
    } else if (r->value_len <= r->capacity) {
        uint64_t sum = record_seal(r, word, at, image->store_id);
        atomic_store_explicit(&r->seal, sum, memory_order_relaxed);
        sealing->chain = chain_fold(sealing->chain, sum);
        sealing->records++;
    } else {
        return 0;
    }
    return size;
}

/* The log first, in the order in which it is read, then what stands for it in the superblocks, then those. */
static inline void image_seal(struct image *image)
{
    struct sealing sealing = {image->begin_chain, image->begin_chain, 0};
    uint64_t size = 1;

    for (uint64_t at = image->begin; at < image->end && size > 0; at += size) {
        for (unsigned i = 0; i < 2; i++)
            if (get64_at(superblock_at(image, i, SB_CHECKPOINT + AT_END)) == at && sealing.records == 0)
                put64_at(superblock_at(image, i, SB_CHECKPOINT + AT_END_CHAIN), sealing.chain);
        size = seal_item(image, at, &sealing);
    }
    for (unsigned i = 0; i < 2; i++)
        seal_superblock(image->superblocks[i]);
    for (unsigned i = 0; i < image->count; i++)
        if (strncmp(image->files[i].name, "index.", 6) == 0)
            seal_index(&image->files[i]);
}

#endif
