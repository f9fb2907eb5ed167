// SPDX-License-Identifier: MIT
/*
 * salvage: opening a store with damage in it (store_options.salvage). All of the log is read from its beginning, and
 * the index made anew; what is not sound is passed over and told.
 *
 *     read everything -> damaged ranges, broken chains | take possession -> cut each broken chain from the index ->
 *     append again the newest record of each of its keys -> commit -> checkpoint, which names the ranges as holes
 *
 * Invariants:
 *   1. Damage is what is not sound below an address that was promised to be durable; beyond, it is the torn end.
 *   2. A damaged record whose key can still be read stands in the index as if it were sound: who reads the key gets
 *      -EIO, not an older value. The key is believed if the record's link leads to the newest one before it with the
 *      key's entry: so neither of them is damaged.
 *   3. A chain is broken if a sound record does not link to the one before it with the same entry, or if it leads to
 *      a damaged one. A chain that was made anew ends in itself: it links to nothing older.
 *   4. Until the checkpoint is durable nothing calls the ranges holes: what a crash leaves is found damaged again,
 *      and the chains that were made anew are in the log, sound.
 *
 * Threads: the one that opens.
 */
#ifndef STORE_SALVAGE_H
#define STORE_SALVAGE_H

#include "superblock.h"
#include <stdbool.h>
#include <stdint.h>

struct store;
struct scan;

struct salvage_lost { /* a damaged record whose key can be read */
    uint64_t hash, address, len_bytes, link;
    uint32_t key_len;
    bool unreadable; /* by the device */
    uint8_t *key;    /* malloc'ed */
};

struct salvage {
    struct store *store;
    struct store_salvage to; /* constant */
    struct holes holes;      /* the superblock's and the new ones */
    uint32_t room;           /* of holes.ranges */
    struct salvage_lost *lost;
    uint32_t lost_count, lost_room;
    uint64_t *broken; /* a hash of each broken chain; some twice */
    uint32_t broken_count, broken_room;
    int refused;                        /* 0, or the first -errno of who is told */
    uint64_t told;                      /* progress */
    uint64_t snapshot;                  /* whose log is being read; 0: the store's own */
    bool damaged;                       /* there are new holes */
    bool image_damaged, images_damaged; /* the checkpoint's; a snapshot's */
};

/* Makes store->salvage. */
int salvage_open(struct store *store);
void salvage_close(struct salvage *salvage);
/* What a reader of the log passes over. */
const struct holes *salvage_holes(const struct store *store);

/* The log is not sound at `at`, where an item should begin: where it goes on, at `stop` at the latest, and what the
 * record there seems to have been; salvage_lost_fini(). */
int salvage_look(struct scan *scan, uint64_t at, uint64_t stop, uint64_t version, struct salvage_lost *ret_lost,
                 uint64_t *ret_next);
void salvage_lost_fini(struct salvage_lost *lost);
/* The log is not sound at `at`, where an item should begin: finds where it goes on, at `limit` at the latest, notes
 * and notes the hole between. *ret_lost: what the record there seems to have been, to be judged, or NULL; valid until
 * the next call. */
int salvage_pass(struct salvage *salvage, struct scan *scan, uint64_t at, uint64_t limit, uint64_t version,
                 uint64_t *ret_next, const struct salvage_lost **ret_lost);
/* Tells of the damaged record at `address`, with its key if that is believed; else the key is forgotten. */
void salvage_judge(struct salvage *salvage, uint64_t address, bool believed);
bool salvage_is_hole(const struct holes *holes, uint64_t address);
/* The chain of the hash is broken. */
int salvage_broken(struct salvage *salvage, uint64_t hash);
void salvage_tell(struct salvage *salvage, const struct store_damage *damage);
void salvage_progress(struct salvage *salvage, uint64_t done_bytes, uint64_t total_bytes);

/* Checks each index image, and reads what snapshots keep of the log below the store's own. */
int salvage_snapshots(struct salvage *salvage);
/* Makes broken chains and damaged images anew, commits, writes the checkpoint. The store is open, its background is
 * not. */
int salvage_repair(struct salvage *salvage);

#endif
