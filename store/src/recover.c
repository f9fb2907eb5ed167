// SPDX-License-Identifier: MIT
/*
 * Recovery: the newest checkpoint's index, then the log from its position, commit by commit.
 *
 * Invariants:
 *   1. The records of an extent enter the index only when its commit record proved sound: right
 *      version, chain and count. The rest of the log is dropped: it was promised to nobody.
 *   2. If a sound commit of this history says that the log was durable beyond the last commit that can be
 *      reached, the place between is damage, not the end: opening is refused, nothing is written. One
 *      that does not say so was torn itself (its record reached the disk, its data did not).
 *   3. Nothing is written before everything has been read.
 */
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW_BYTES (1u << 20)

struct found { /* a record of the extent that is being read */
    uint64_t hash, address;
};

struct scan {
    struct store *store;
    struct device_queue *queue;
    uint64_t end; /* of the space on the device */
    uint8_t *window;
    uint64_t window_at, window_len, window_room;
    int error; /* of the device */

    struct checkpoint last; /* last sound commit */
    struct found *found;
    size_t found_count, found_room;
    uint64_t version, chain, records; /* of the extent */
    uint64_t replayed_records;
};

static void nothing_to_do(struct device_io *io)
{
    (void)io;
}

static int64_t read_log(struct scan *scan, uint64_t at, uint32_t len)
{
    struct device_io io = {.op = DEVICE_READ, .buf = scan->window, .len = len, .done = nothing_to_do};

    device_log_submit(scan->store->device_log, scan->queue, &io, at);
    while (device_queue_pending(scan->queue) > 0)
        device_poll(scan->queue, true);
    return io.result;
}

/* The log's bytes [at, at + len), which lie in one segment, or NULL. */
static void *look(struct scan *scan, uint64_t at, uint64_t len)
{
    if (at >= scan->window_at && at + len <= scan->window_at + scan->window_len)
        return scan->window + (at - scan->window_at);
    uint64_t first = at & ~(uint64_t)(HLOG_BLOCK - 1);
    uint64_t stop = round_up(first + 1, scan->store->superblock.segment_bytes);
    uint64_t end = round_up(at + len, HLOG_BLOCK);
    if (end < first + WINDOW_BYTES)
        end = first + WINDOW_BYTES;
    if (stop > scan->end)
        stop = scan->end;
    if (end > stop)
        end = stop;
    if (at + len > end)
        return NULL;
    if (end - first > scan->window_room) {
        free(scan->window);
        scan->window_room = end - first;
        scan->window = aligned_alloc(HLOG_BLOCK, scan->window_room);
        if (!scan->window) {
            scan->error = -ENOMEM;
            scan->window_room = scan->window_len = 0;
            return NULL;
        }
    }
    int64_t moved = read_log(scan, first, (uint32_t)(end - first));
    if (moved != (int64_t)(end - first)) {
        scan->error = moved < 0 ? (int)moved : -EIO;
        scan->window_len = 0;
        return NULL;
    }
    scan->window_at = first;
    scan->window_len = end - first;
    return scan->window + (at - first);
}

/* ---- one extent ------------------------------------------------------------------------------------ */

static bool commit_is_sound(const struct scan *scan, const struct commit_record *c, uint64_t at)
{
    return c->link == RECORD_COMMIT && c->magic == COMMIT_MAGIC &&
           c->seal == commit_checksum(c, at, scan->store->store_id);
}

static int remember(struct scan *scan, uint64_t hash, uint64_t address)
{
    if (scan->found_count == scan->found_room) {
        size_t room = scan->found_room ? scan->found_room * 2 : 4096;
        struct found *grown = realloc(scan->found, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        scan->found = grown;
        scan->found_room = room;
    }
    scan->found[scan->found_count++] = (struct found){hash, address};
    return 0;
}

/* Enters the records of the extent into the index. Later addresses are newer; the checkpoint's index may
 * know a newer one already. */
static int replay(struct scan *scan)
{
    for (size_t i = 0; i < scan->found_count; i++) {
        index_slot *slot;
        int rc = index_find_or_create(scan->store->index, scan->found[i].hash, &slot);
        if (rc < 0)
            return rc;
        uint64_t entry = atomic_load_explicit(slot, memory_order_relaxed); /* nobody else is here yet */
        if (index_address(entry) < scan->found[i].address)
            atomic_store_explicit(slot, index_entry_with(entry, scan->found[i].address), memory_order_relaxed);
    }
    scan->replayed_records += scan->found_count;
    return 0;
}

static int accept(struct scan *scan, const struct commit_record *c, uint64_t end)
{
    int rc = replay(scan);

    scan->last = (struct checkpoint){.address = end, .version = c->version, .chain = c->chain};
    scan->found_count = 0;
    scan->version = 0;
    scan->records = 0;
    return rc;
}

/* Reads the record at `at`: its size, 0 where the log cannot be read on, -ENOMEM. */
static int64_t step(struct scan *scan, uint64_t at)
{
    uint64_t *word = look(scan, at, 8);
    if (!word)
        return 0;
    uint64_t pad = pad_length(*word, at), segment = scan->store->superblock.segment_bytes;
    if (pad > 0)
        return (at ^ (at + pad - 1)) & ~(segment - 1) ? 0 : (int64_t)pad;
    if (*word == RECORD_COMMIT) {
        const struct commit_record *c = look(scan, at, COMMIT_BYTES);
        if (!c || !commit_is_sound(scan, c, at) || (at + COMMIT_BYTES) % HLOG_BLOCK != 0 ||
            c->extent_begin != scan->last.address || c->chain_before != scan->last.chain ||
            c->chain != scan->chain || c->records != scan->records || c->version <= scan->last.version ||
            (scan->records > 0 && c->version != scan->version))
            return 0;
        int rc = accept(scan, c, at + COMMIT_BYTES);
        return rc < 0 ? rc : (int64_t)COMMIT_BYTES;
    }
    const struct record *r = look(scan, at, RECORD_HEADER_BYTES);
    if (!r)
        return 0;
    uint64_t size = record_size(r);
    if (r->value_len > r->capacity || size > segment || ((at ^ (at + size - 1)) & ~(segment - 1)) ||
        !(r = look(scan, at, size)))
        return 0;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* private copy */
    uint64_t sum = atomic_load_explicit(&r->seal, memory_order_relaxed);
    if ((link & ADDRESS_MASK) >= at || record_checksum(r, link, at, scan->store->store_id) != sum ||
        record_version(r) <= scan->last.version || (scan->records > 0 && record_version(r) != scan->version))
        return 0;
    scan->version = record_version(r);
    scan->chain = chain_fold(scan->chain, sum);
    scan->records++;
    int rc = remember(scan, hash_key(r->bytes, record_key_len(r)), at);
    return rc < 0 ? rc : (int64_t)size;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

/* A sound commit of this history that knows of more than could be reached? Its address, or 0. Commits
 * of older incarnations beyond where this one began are left-overs of crashes, to be overwritten. */
static uint64_t later_commit(struct scan *scan)
{
    const struct superblock *sb = &scan->store->superblock;

    for (uint64_t block = scan->last.address; block + HLOG_BLOCK <= scan->end && !scan->error; block += HLOG_BLOCK) {
        uint64_t at = block + HLOG_BLOCK - COMMIT_BYTES;
        const struct commit_record *c = look(scan, at, COMMIT_BYTES);
        if (c && commit_is_sound(scan, c, at) && c->durable > scan->last.address &&
            (c->incarnation == sb->incarnation || at < sb->incarnation_begin))
            return at;
    }
    return 0;
}

static int scan_log(struct scan *scan, struct store_opened *opened)
{
    uint64_t at = scan->last.address;
    int64_t size = 0;

    scan->chain = scan->last.chain;
    while (at < scan->end && (size = step(scan, at)) > 0)
        at += (uint64_t)size;
    if (size < 0)
        return (int)size;
    if (scan->error == 0 && at > scan->last.address)
        opened->dropped_bytes = at - scan->last.address;
    uint64_t damaged_before = scan->error ? 0 : later_commit(scan);
    if (scan->error) {
        snprintf(opened->message, sizeof opened->message,
                 "the log cannot be read near address %llu (%s); look at the disk and the kernel's messages",
                 (unsigned long long)at, strerror(-scan->error));
        return scan->error;
    }
    if (damaged_before) {
        snprintf(opened->message, sizeof opened->message,
                 "the log is damaged at address %llu; a sound commit at %llu says that it was on disk; nothing was changed, "
                 "restore the store from a backup",
                 (unsigned long long)at, (unsigned long long)damaged_before);
        return -EUCLEAN;
    }
    return 0;
}

/* Without a usable image of the checkpoint's index, *start becomes the beginning of the log. */
static int load_index(struct store *store, struct checkpoint *start, struct store_opened *opened)
{
    const void *image;
    uint64_t len;
    const char *why;

    if (store->superblock.checkpoint.image == 0)
        return index_open(store->index_buckets, &store->index);
    int rc = image_map(store, store->superblock.checkpoint.image, &image, &len, &why);
    if (rc == -EUCLEAN || rc == -ENOENT) { /* the log has it all */
        *start = (struct checkpoint){.address = HLOG_FIRST_ADDRESS, .begin = HLOG_FIRST_ADDRESS};
        opened->index_rebuilt = true;
        return index_open(store->index_buckets, &store->index);
    }
    if (rc < 0)
        return rc;
    rc = index_open(index_image_buckets(image), &store->index);
    if (rc == 0)
        rc = index_load(store->index, image);
    device_unmap(store->device, image, len);
    return rc;
}

int recover(struct store *store, struct store_opened *opened)
{
    struct scan scan = {.store = store, .last = store->superblock.checkpoint};
    int rc = load_index(store, &scan.last, opened);
    uint64_t start = scan.last.address;

    if (rc < 0)
        return rc;
    rc = device_queue_open(store->device, 4, &scan.queue);
    if (rc < 0)
        return rc;
    scan.end = device_log_allocated(store->device_log);
    rc = scan_log(&scan, opened);
    device_queue_close(scan.queue);
    free(scan.window);
    free(scan.found);
    store->committed = scan.last;
    opened->commit = scan.last.version;
    opened->replayed_bytes = scan.last.address - start;
    opened->replayed_records = scan.replayed_records;
    return rc;
}
