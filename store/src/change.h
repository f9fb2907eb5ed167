// SPDX-License-Identifier: MIT
/*
 * change: what one operation does to one key, from the plan to its publication. A unit (unit.c) applies one or many
 * inside one epoch with the gate open:
 *
 *   plan     each change: walk its chain in memory; in place -> lock the record; else lock the entry of
 *            the index (so that nobody else publishes there) and count the bytes to append.
 *   reserve  all bytes to append at once.
 *   write    nothing can fail any more: change in place, append, publish, unlock.
 *
 * Invariants:
 *   1. Nothing is changed before everything is locked, read and reserved.
 *   2. Entries are locked before space is reserved, so an appended record's address is above every
 *      address of its chain: chains lead down, and replay in log order rebuilds them.
 *   3. Locks are only tried. A unit that meets another's gives back all of its own, leaves the epoch,
 *      and begins again: no deadlock, and nobody waits inside an epoch.
 *   4. A record that is superseded although somebody may still change it in place is sealed under its
 *      lock: a change in place after the copy was taken would be lost.
 *   5. `begin` is loaded before the entry: an entry that leads below it was not moved by compaction, it is dead.
 */
#ifndef STORE_CHANGE_H
#define STORE_CHANGE_H

#include "private.h"

enum change_kind {
    CHANGE_UPSERT,
    CHANGE_DELETE,
    CHANGE_RMW,
    CHANGE_INSERT, /* an upsert, if the key is not there */
    CHANGE_MOVE,   /* compaction: an append, if the entry is still `expected` */
    CHANGE_COLD    /* an append that the index does not know: `place`, in a chunk, leads to it (cold.h) */
};
enum change_how { CHANGE_SKIP, CHANGE_IN_PLACE, CHANGE_APPEND };

/* What planning gives, besides -errno. */
enum { PLANNED = 0, BUSY = 1, FETCH = 2 /* the value at fetched_at is needed */ };

struct change {
    const uint8_t *key;
    uint64_t hash;
    uint32_t key_len;
    enum change_kind kind;
    uint32_t value_len, capacity; /* upsert, insert, move, cold */
    bool tombstone;               /* move, cold: it is one */
    struct store_piece pieces[2];
    const struct store_rmw *rmw;
    const void *rmw_ctx;
    uint64_t expected;
    uint64_t *place; /* entry of a chunk that is written later in the same unit */

    /* the plan */
    enum change_how how;
    int outcome; /* of a change that is skipped: STORE_EXISTS, or STORE_NOT_FOUND for a move that came too late */
    index_slot *slot;
    uint64_t entry;        /* as found */
    bool entry_locked;     /* by this change */
    struct record *locked; /* record whose lock we hold, or NULL */
    const void *old;       /* RMW: the value it starts from; NULL: absent */
    uint32_t old_len, new_len, new_capacity;

    /* An old value that was fetched: valid while the chain leaves memory at `fetched_at`. With a cold level (0: the
     * chain has ended): and if log.begin is not beyond where the tail was before the walk that asked for it: what is
     * newer lies above that, and has not been moved to the cold level yet. */
    uint64_t fetched_at, fetched_tail;
    const uint8_t *fetched;
    uint32_t fetched_len; /* STORE_ABSENT: the key is not there */
};

/* Plans `count` changes of one unit; on anything but PLANNED nothing is locked, and *ret_stuck is the change
 * that it was. Inside an epoch. */
int changes_plan(struct store *store, struct change *changes, unsigned count, struct change **ret_stuck);
/* Bytes to append, and those of the largest record. */
uint64_t changes_bytes(const struct change *changes, unsigned count, uint64_t *ret_largest);
/* Writes what was planned, into `space`. */
void changes_write(struct store *store, struct change *changes, unsigned count, struct hlog_space *space);
void changes_unlock(struct change *changes, unsigned count);

/* unit.c: plans, reserves and writes, again and again until it is done: 0, -errno, or FETCH with *ret_stuck. */
int changes_apply(struct store_session *s, struct change *changes, unsigned count, enum hlog_taker taker,
                  struct change **ret_stuck);
/* The same, fetching what is needed; HLOG_FREES compacts while the disk is full. Frees what was fetched. */
int changes_apply_wait(struct store_session *s, struct change *changes, unsigned count, enum hlog_taker taker);
/* store_unit_apply() with another taker. */
int unit_apply_as(struct store_session *s, enum hlog_taker taker);
/* Adds a cold record to the open unit. When it is written, it links to where *place leads, and *place leads to it: a
 * chunk that is added behind it is written with that. As the adders of store.h. */
int unit_add_cold(struct store_session *s, const void *key, uint32_t key_len, const struct store_piece *value,
                  bool tombstone, uint64_t *place);

#endif
