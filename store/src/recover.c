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
#include "scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define VERSION_END (UINT64_C(1) << 47) /* a record has 48 bits for it */

struct found { /* a record of the extent that is being read */
    uint64_t hash, address;
};

struct recovery {
    struct store *store;
    struct scan scan;

    struct log_position last; /* last sound commit */
    struct found *found;
    size_t found_count, found_room;
    uint64_t version, chain, records; /* of the extent */
    uint64_t replayed_records;
};

/* ---- one extent ------------------------------------------------------------------------------------ */

static int remember(struct recovery *r, uint64_t hash, uint64_t address)
{
    if (r->found_count == r->found_room) {
        size_t room = r->found_room ? r->found_room * 2 : 4096;
        struct found *grown = realloc(r->found, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        r->found = grown;
        r->found_room = room;
    }
    r->found[r->found_count++] = (struct found){hash, address};
    return 0;
}

/* Enters the records of the extent into the index. Later addresses are newer; the checkpoint's index may
 * know a newer one already. */
static int replay(struct recovery *r)
{
    for (size_t i = 0; i < r->found_count; i++) {
        index_slot *slot;
        uint64_t entry;
        int rc = index_find_or_create(r->store->index, r->found[i].hash, &slot, &entry);
        if (rc < 0)
            return rc;
        if (index_address(entry) < r->found[i].address) /* relaxed: nobody else is here yet */
            atomic_store_explicit(slot, index_entry_with(entry, r->found[i].address), memory_order_relaxed);
    }
    r->replayed_records += r->found_count;
    for (int more = 1; more > 0 && index_wants_growth(r->store->index);)
        more = index_grow(r->store->index); /* without memory for it chains are longer, no more */
    return 0;
}

static int accept(struct recovery *r, const struct commit_record *c, uint64_t end)
{
    int rc = replay(r);

    r->last = (struct log_position){.address = end, .version = c->version, .chain = c->chain};
    r->found_count = 0;
    r->version = 0;
    r->records = 0;
    return rc;
}

static int take_commit(struct recovery *r, const struct commit_record *c, uint64_t at)
{
    if (c->extent_begin != r->last.address || c->chain_before != r->last.chain || c->chain != r->chain ||
        c->records != r->records || c->version <= r->last.version || (r->records > 0 && c->version != r->version))
        return 0;
    int rc = accept(r, c, at + COMMIT_BYTES);
    return rc < 0 ? rc : 1;
}

static int take_record(struct recovery *r, const struct scan_item *item, uint64_t at)
{
    const struct record *record = item->record;

    if (record_version(record) <= r->last.version || (r->records > 0 && record_version(record) != r->version))
        return 0;
    r->version = record_version(record);
    r->chain = chain_fold(r->chain, item->seal);
    r->records++;
    int rc = remember(r, hash_key(record->bytes, record_key_len(record)), at);
    return rc < 0 ? rc : 1;
}

/* Reads what is at `at`: its size, 0 where the history cannot be read on, -ENOMEM. */
static int64_t step(struct recovery *r, uint64_t at)
{
    struct scan_item item;
    int rc = 0;

    switch (scan_at(&r->scan, at, &item)) {
    case SCAN_PAD:
        rc = 1;
        break;
    case SCAN_COMMIT:
        rc = take_commit(r, item.commit, at);
        break;
    case SCAN_RECORD:
        rc = take_record(r, &item, at);
        break;
    default:
        break;
    }
    return rc <= 0 ? rc : (int64_t)item.size;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

/* A sound commit of this history that knows of more than could be reached? Its address, or 0. Commits
 * of older incarnations beyond where this one began are left-overs of crashes, to be overwritten. */
static uint64_t later_commit(struct recovery *r)
{
    const struct superblock *sb = &r->store->superblock;

    for (uint64_t block = r->last.address; block + HLOG_BLOCK <= r->scan.end && !r->scan.error; block += HLOG_BLOCK) {
        uint64_t at = block + HLOG_BLOCK - COMMIT_BYTES;
        const struct commit_record *c = scan_commit(&r->scan, at);
        if (c && c->durable > r->last.address && (c->incarnation == sb->incarnation || at < sb->incarnation_begin))
            return at;
    }
    return 0;
}

static int scan_log(struct recovery *r, struct store_opened *opened)
{
    uint64_t at = r->last.address;
    int64_t size = 0;

    r->chain = r->last.chain;
    while (at < r->scan.end && (size = step(r, at)) > 0)
        at += (uint64_t)size;
    if (size < 0)
        return (int)size;
    if (r->scan.error == 0 && at > r->last.address)
        opened->dropped_bytes = at - r->last.address;
    uint64_t damaged_before = r->scan.error ? 0 : later_commit(r);
    if (r->scan.error) {
        snprintf(opened->message, sizeof opened->message,
                 "the log cannot be read near address %llu (%s); look at the disk and the kernel's messages",
                 (unsigned long long)at, strerror(-r->scan.error));
        return r->scan.error;
    }
    if (damaged_before) {
        snprintf(opened->message, sizeof opened->message,
                 "the log is damaged at address %llu; a sound commit at %llu says that it was on disk; nothing was changed, "
                 "restore the store from a backup",
                 (unsigned long long)at, (unsigned long long)damaged_before);
        return -EUCLEAN;
    }
    if (r->last.address < superblock_reach(&r->store->superblock) || r->last.version >= VERSION_END) {
        snprintf(opened->message, sizeof opened->message,
                 "the log ends at address %llu, and was on disk up to %llu; nothing was changed, restore the store from "
                 "a backup",
                 (unsigned long long)r->last.address,
                 (unsigned long long)superblock_reach(&r->store->superblock));
        return -EUCLEAN;
    }
    return 0;
}

/* A table that the machine cannot hold is not tried: the kernel would promise it, and kill somebody later. */
static int open_index(struct store *store, uint64_t buckets, struct store_opened *opened)
{
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    if (buckets > memory / 2 / 64) {
        snprintf(opened->message, sizeof opened->message,
                 "the index takes %llu MiB of memory, this machine has %llu; use a larger one",
                 (unsigned long long)(buckets >> 14), (unsigned long long)(memory >> 20));
        return -ENOMEM;
    }
    return index_open(buckets, store->superblock.index_bits, store->epoch, &store->index);
}

/* An empty index of the size that the memory budget asks for, as far as the store's bits allow. */
static int open_empty(struct store *store, struct store_opened *opened)
{
    unsigned bits = store->superblock.index_bits, level = (unsigned)__builtin_ctzll(store->index_buckets);

    if (level + INDEX_KNOWN_MIN > bits)
        level = bits - INDEX_KNOWN_MIN;
    if (level + INDEX_KNOWN_MAX < bits)
        level = bits - INDEX_KNOWN_MAX;
    return open_index(store, UINT64_C(1) << level, opened);
}

/* With no usable image of the checkpoint's index, or with a log that begins behind the checkpoint by now, replay
 * starts where the log begins: it has everything. */
static int load_index(struct store *store, struct log_position *ret_start, struct store_opened *opened)
{
    const struct checkpoint *checkpoint = &store->superblock.checkpoint;
    const void *image;
    uint64_t len;
    const char *why;

    *ret_start = checkpoint->begin;
    if (checkpoint->image == 0 || checkpoint->begin.address > checkpoint->end.address)
        return open_empty(store, opened);
    int rc = image_map(store, checkpoint, &image, &len, &why);
    if (rc == -EUCLEAN || rc == -ENOENT) {
        opened->index_rebuilt = true;
        return open_empty(store, opened);
    }
    if (rc < 0)
        return rc;
    *ret_start = checkpoint->end;
    rc = open_index(store, index_image_buckets(image), opened);
    if (rc == 0)
        rc = index_load(store->index, image);
    device_unmap(store->device, image, len);
    return rc;
}

int recover(struct store *store, struct store_opened *opened)
{
    struct recovery r = {.store = store};
    int rc = load_index(store, &r.last, opened);
    uint64_t start = r.last.address;

    if (rc < 0)
        return rc;
    rc = scan_open(&r.scan, store, device_log_allocated(store->device_log));
    if (rc < 0)
        return rc;
    rc = scan_log(&r, opened);
    scan_close(&r.scan);
    free(r.found);
    store->committed = r.last;
    store->begin_at = store->superblock.checkpoint.begin;
    opened->commit = r.last.version;
    opened->replayed_bytes = r.last.address - start;
    opened->replayed_records = r.replayed_records;
    return rc;
}
