// SPDX-License-Identifier: MIT
/*
 * Recovery: the newest checkpoint's index, then the log from its position, commit by commit.
 *
 * Invariants:
 *   1. The records of an extent enter the index only when its commit record proved sound: right
 *      version, chain and count. The rest of the log is dropped: it was promised to nobody.
 *   2. If a sound commit of this history, or the superblock, says that the log was durable beyond the last commit that
 *      can be reached, the place between is damage, not the end: opening is refused, nothing is written; salvaging
 *      (salvage.h) goes on behind it. A commit that does not say so was torn itself (its record reached the disk,
 *      its data did not).
 *   3. Nothing is written before everything has been read.
 */
#include "scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define VERSION_END (UINT64_C(1) << 47) /* a record has 48 bits for it */

#define AHEAD 16u /* records whose buckets are asked for before their turn: their misses of memory overlap */

struct found { /* a record of the extent that is being read */
    uint64_t hash, address, version;
    uint64_t link, seal;
    bool damaged; /* its key could be read, no more */
};

struct recovery {
    struct store *store;
    struct scan scan;

    struct log_position last; /* last sound commit */
    struct found *found;
    size_t found_count, found_room;
    uint64_t version, chain, records; /* of the extent */
    bool holed;                       /* the extent has a hole in it, or damage that is passed over */
    uint64_t promised;                /* the log below was durable once; 0: not looked for yet */
    uint64_t replayed_records;
};

/* ---- one extent ------------------------------------------------------------------------------------ */

static int remember(struct recovery *r, const struct found *found)
{
    if (r->found_count == r->found_room) {
        size_t room = r->found_room ? r->found_room * 2 : 4096;
        struct found *grown = realloc(r->found, room * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        r->found = grown;
        r->found_room = room;
    }
    r->found[r->found_count++] = *found;
    return 0;
}

/* Salvaging: does the record lead to the newest one before it? Below the log's beginning all is dead. 1: it is damaged,
 * and its key is not to be believed. */
static int check_link(struct recovery *r, const struct found *found, uint64_t before)
{
    uint64_t link = found->link & ADDRESS_MASK;
    bool leads = link == before || (before <= INDEX_NONE && link < r->store->superblock.checkpoint.begin.address);

    if (found->damaged) {
        salvage_judge(r->store->salvage, found->address, leads);
        return leads ? salvage_broken(r->store->salvage, found->hash) : 1;
    }
    if (leads || link == 0 || salvage_is_hole(&r->store->superblock.holes, link))
        return 0;
    if (!salvage_is_hole(&r->store->salvage->holes, link))
        salvage_tell(r->store->salvage, &(struct store_damage){.kind = STORE_DAMAGE_CHAIN,
                                                               .address = found->address,
                                                               .what = "a record does not lead to the one before it"});
    return salvage_broken(r->store->salvage, found->hash);
}

/* Enters the records of the extent into the index. Later addresses are newer; the checkpoint's index may
 * know a newer one already. */
static int replay(struct recovery *r)
{
    for (size_t i = 0; i < r->found_count; i++) {
        index_slot *slot;
        uint64_t entry;
        if (i + AHEAD < r->found_count)
            index_prefetch(r->store->index, r->found[i + AHEAD].hash);
        int rc = index_find_or_create(r->store->index, r->found[i].hash, &slot, &entry);
        if (rc == 0 && r->store->salvage)
            rc = check_link(r, &r->found[i], index_address(entry));
        if (rc < 0)
            return rc;
        if (rc == 0 && index_address(entry) < r->found[i].address) /* relaxed: nobody else is here yet */
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
    r->holed = false;
    return rc;
}

/* Commits of older incarnations beyond where this one began are left-overs of crashes, to be overwritten. */
static bool of_this_history(const struct recovery *r, const struct commit_record *c, uint64_t at)
{
    const struct superblock *sb = &r->store->superblock;

    return c->incarnation == sb->incarnation || at < sb->incarnation_begin;
}

/* Are the records since the commit before it, which was not found, as the commit says? */
static bool own_extent_is_sound(const struct recovery *r, const struct commit_record *c)
{
    uint64_t chain = c->chain_before, records = 0;

    for (size_t i = 0; i < r->found_count; i++) {
        const struct found *found = &r->found[i];
        if (found->address < c->extent_begin)
            continue;
        chain = chain_fold(chain, found->seal);
        records += !found->damaged && found->version == c->version;
    }
    return chain == c->chain && records == c->records;
}

/* A commit behind a hole: what it says of all the records cannot be verified. It is taken if it was promised, or if
 * all that was not is sound. */
static bool take_behind_hole(struct recovery *r, const struct commit_record *c, uint64_t at)
{
    size_t kept = 0;

    if (c->version <= r->last.version || !of_this_history(r, c, at))
        return false;
    if (r->promised && at + COMMIT_BYTES > r->promised && (c->extent_begin > r->promised || !own_extent_is_sound(r, c)))
        return false;
    for (size_t i = 0; i < r->found_count; i++) /* what is not of its version is a left-over */
        if (r->found[i].address < c->extent_begin || r->found[i].version == c->version || r->found[i].damaged)
            r->found[kept++] = r->found[i];
    r->found_count = kept;
    return true;
}

static int take_commit(struct recovery *r, const struct commit_record *c, uint64_t at)
{
    /* Where the log begins inside of an extent, the chain alone tells that all of the rest is there. */
    bool follows = c->extent_begin < r->last.address ||
                   (c->extent_begin == r->last.address && c->chain_before == r->last.chain && c->records == r->records);
    bool whole = follows && c->chain == r->chain && c->version > r->last.version &&
                 (r->records == 0 || c->version == r->version);

    if (!whole && !(r->holed && take_behind_hole(r, c, at)))
        return 0;
    int rc = accept(r, c, at + COMMIT_BYTES);
    r->chain = c->chain;
    return rc < 0 ? rc : 1;
}

/* No store has ever taken a value of more than a quarter of a segment. */
static void note_largest(struct superblock *sb, uint64_t capacity)
{
    if (capacity > sb->segment_bytes / 4)
        capacity = sb->segment_bytes / 4;
    if (capacity > sb->largest)
        sb->largest = (uint32_t)capacity;
}

static int take_record(struct recovery *r, const struct scan_item *item, uint64_t at)
{
    const struct record *record = item->record;
    struct found found = {.hash = hash_key(record->bytes, record_key_len(record)),
                          .address = at,
                          .version = record_version(record),
                          .link = item->link,
                          .seal = item->seal};

    if (found.version <= r->last.version ||
        (r->records > 0 && (r->holed ? found.version < r->version : found.version != r->version)))
        return 0;
    r->version = found.version;
    r->chain = chain_fold(r->chain, item->seal);
    r->records++;
    note_largest(&r->store->superblock, record->capacity);
    int rc = remember(r, &found);
    return rc < 0 ? rc : 1;
}

/* Reads what is at `at`: its size, 0 where the history cannot be read on, -ENOMEM. */
static int64_t step(struct recovery *r, uint64_t at)
{
    struct scan_item item;
    int rc = 0;

    switch (scan_at(&r->scan, at, &item)) {
    case SCAN_PAD:
        r->holed |= item.hole;
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

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Up to where the log was durable once: as the superblock knows, and the commits in it from `at` on. */
static uint64_t find_promised(struct recovery *r, uint64_t at)
{
    const struct superblock *sb = &r->store->superblock;
    uint64_t promised = higher(sb->incarnation_begin, superblock_reach(sb));

    for (uint64_t block = at & ~(uint64_t)(HLOG_BLOCK - 1); block + HLOG_BLOCK <= r->scan.end && !r->scan.error;
         block += HLOG_BLOCK) {
        uint64_t commit = block + HLOG_BLOCK - COMMIT_BYTES;
        const struct commit_record *c = scan_commit(&r->scan, commit);
        if (c && c->durable <= commit && of_this_history(r, c, commit))
            promised = higher(promised, c->durable);
    }
    return promised;
}

/* Salvaging: what is at `at` is damaged. Goes on behind it, with a record that is unreadable but for its key. */
static int pass(struct recovery *r, uint64_t at, uint64_t *ret_next)
{
    const struct salvage_lost *lost;
    int rc = salvage_pass(r->store->salvage, &r->scan, at, r->promised, r->last.version, ret_next, &lost);

    r->holed = true;
    if (rc < 0 || !lost)
        return rc;
    return remember(r, &(struct found){.hash = lost->hash, .address = at, .link = lost->link, .damaged = true});
}

/* Reads from `at` on to where the history cannot be read on: *ret_end. */
static int read_history(struct recovery *r, uint64_t at, uint64_t *ret_end)
{
    while (at < r->scan.end) {
        int64_t size = step(r, at);
        if (size < 0)
            return (int)size;
        if (size == 0 && r->promised == 0)
            r->promised = find_promised(r, at);
        if (size == 0 && (!r->store->salvage || at >= r->promised || r->scan.error))
            break;
        uint64_t next = at + (uint64_t)size;
        int rc = size == 0 ? pass(r, at, &next) : 0;
        if (rc < 0)
            return rc;
        at = next;
        if (r->store->salvage)
            salvage_progress(r->store->salvage, at, r->scan.end);
    }
    if (r->promised == 0)
        r->promised = find_promised(r, at);
    *ret_end = at;
    return 0;
}

/* Salvaging: the last commits before `promised` are damaged, and the log is no longer than that. What is sound counts.
 */
static int close_damaged_end(struct recovery *r, uint64_t end)
{
    struct salvage *salvage = r->store->salvage;
    struct commit_record c = {.version = r->version > r->last.version ? r->version : r->last.version + 1};
    const struct salvage_lost *lost;
    uint64_t next = end;
    size_t kept = 0;
    int rc = 0;

    while (rc == 0 && next < r->promised) /* cut off */
        rc = salvage_pass(salvage, &r->scan, next, r->promised, r->last.version, &next, &lost);
    while (kept < r->found_count && r->found[kept].address < r->promised)
        kept++;
    r->found_count = kept;
    c.chain = r->last.chain;
    return rc < 0 ? rc : accept(r, &c, r->promised);
}

static int scan_log(struct recovery *r, struct store_opened *opened)
{
    uint64_t at = r->last.address;

    r->chain = r->last.chain;
    int rc = read_history(r, at, &at);
    if (rc < 0)
        return rc;
    if (r->scan.error) {
        snprintf(opened->message, sizeof opened->message,
                 "the log cannot be read near address %llu (%s); look at the disk and the kernel's messages",
                 (unsigned long long)at, strerror(-r->scan.error));
        return r->scan.error;
    }
    if (r->last.address < r->promised && r->store->salvage)
        return close_damaged_end(r, at);
    if (r->last.address < r->promised) {
        snprintf(opened->message, sizeof opened->message,
                 "the log is damaged at address %llu, and was on disk up to %llu; nothing was changed; "
                 "`fasterfs check --repair STORE` saves all that is sound",
                 (unsigned long long)at, (unsigned long long)r->promised);
        return -EUCLEAN;
    }
    if (r->last.version >= VERSION_END) {
        snprintf(opened->message, sizeof opened->message,
                 "the log ends with commit %llu, more than there can be; nothing was changed, restore the store from a "
                 "backup",
                 (unsigned long long)r->last.version);
        return -EUCLEAN;
    }
    if (at > r->last.address)
        opened->dropped_bytes = at - r->last.address;
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

/* Of an empty index: as many as the memory budget asks for, as far as the store's bits allow. */
static uint64_t empty_buckets(const struct store *store)
{
    unsigned bits = store->superblock.index_bits, level = (unsigned)__builtin_ctzll(store->index_buckets);

    if (level + INDEX_KNOWN_MIN > bits)
        level = bits - INDEX_KNOWN_MIN;
    if (level + INDEX_KNOWN_MAX < bits)
        level = bits - INDEX_KNOWN_MAX;
    return UINT64_C(1) << level;
}

int index_open_empty(struct store *store, struct index **ret_index)
{
    return index_open(empty_buckets(store), store->superblock.index_bits, store->epoch, ret_index);
}

/* -EUCLEAN, -EIO: it cannot be used. */
static int load_image(struct store *store, struct store_opened *opened)
{
    struct image image;
    const char *why;
    int rc = image_open(&image, store, &store->superblock.checkpoint, &why);

    if (rc < 0)
        return rc;
    rc = open_index(store, image.index.buckets, opened);
    if (rc == 0 && (rc = index_load(store->index, &image.index)) < 0) {
        index_close(store->index);
        store->index = NULL;
    }
    image_close(&image);
    return rc;
}

/* With no usable image of the checkpoint's index, or with a log that begins behind the checkpoint by now, replay
 * starts where the log begins: it has everything. */
static int load_index(struct store *store, struct log_position *ret_start, struct store_opened *opened)
{
    const struct checkpoint *checkpoint = &store->superblock.checkpoint;

    *ret_start = checkpoint->begin;
    if (checkpoint->image == 0 || checkpoint->begin.address > checkpoint->end.address || store->salvage)
        return open_index(store, empty_buckets(store), opened);
    int rc = load_image(store, opened);
    if (rc == -EUCLEAN || rc == -ENOENT || rc == -EIO) {
        opened->index_rebuilt = true;
        return open_index(store, empty_buckets(store), opened);
    }
    if (rc == 0)
        *ret_start = checkpoint->end;
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
