// SPDX-License-Identifier: MIT
/*
 * compact: giving back the log's space (FASTER's compaction by lookup). What is live in the oldest part is moved to
 * the tail, then the log begins behind that part.
 *
 *     scan a part -> which records are the newest of their keys? -> append them again, if the entry of the index is
 *     still what it was -> all parts done, or no more room: begin moves to where nothing is left behind -> commit ->
 *     superblock, both copies -> the space is given back
 *
 * Invariants:
 *   1. A record is moved only while the entry that proved it newest is locked unchanged: it is the newest then.
 *   2. A tombstone is not moved: all that it hides lies below the new begin, too.
 *   3. begin moves after the last move, to an item of which the version and the chain before it are known: the log can
 * be replayed from there.
 *   4. Space is given back when both superblocks say that it is not needed, and no snapshot needs it.
 *   5. A part with a damaged record stops compaction there: nothing of it is dropped.
 *   6. A full disk: HLOG_FOR_MOVES is for the first part of a round, and only where no snapshot
 * keeps what it moves. It holds two batches, so begin moves by one: a round gives back all that it took but
 * for a block, and a batch that it did not finish, which the next one finds moved.
 *
 * Threads: any number share one round, each with a session of its own (store_compact()). The background ones call it
 * when the log is too long for what is live in it (space.h).
 */
#ifndef STORE_COMPACT_H
#define STORE_COMPACT_H

#include "superblock.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct store;

#define COMPACT_PARTS 64u /* in a round, at most */

struct compact {
    pthread_mutex_t lock; /* guards all but the statistics */
    pthread_cond_t done;  /* a round has ended */
    bool running, ending; /* a round: there is one; its parts are done, the last worker gives the space back */
    unsigned workers;     /* in the round */
    uint64_t rounds;      /* ended */
    int result;           /* of the last round */

    struct log_position from; /* of the round: it scans [from, until) */
    uint64_t until, kept;     /* kept: by snapshots, up to there */
    unsigned count, next;     /* parts; claimed so far */
    bool part_done[COMPACT_PARTS];
    struct log_position part_end[COMPACT_PARTS]; /* where in it nothing is left behind; 0: none that is known whole */
    int error;                                   /* the first; then no more parts are claimed */

    _Atomic uint64_t scanned_bytes, moved_bytes; /* statistics; relaxed */
    _Atomic uint64_t released_bytes;             /* inside of the segments there are; relaxed */
    _Atomic int failed;                          /* -errno of the last round, or 0; relaxed */
};

void compact_init(struct compact *compact);
void compact_fini(struct compact *compact);

/* store_compact(), and with `paced` no faster than the background should go. */
int compact_run(struct store *store, uint64_t bytes, bool paced);
/* What lies between `begin` and what may be compacted now, in bytes. */
uint64_t compact_room(struct store *store);
/* Gives back what neither the store nor a snapshot needs; while there are scans (store->scans), when the last of them
 * has ended. checkpoint_lock held. */
void compact_release(struct store *store);
/* One scan less. */
void compact_scan_ended(struct store *store);

#endif
