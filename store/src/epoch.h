// SPDX-License-Identifier: MIT
/*
 * epoch: who may still be looking at shared memory (FASTER, SIGMOD 2018, section 2.3).
 *
 * A thread enters before it follows a pointer or an address into shared memory and leaves afterwards;
 * between the two it never blocks. epoch_synchronize() returns when everybody who was inside at the
 * call has left: what was unpublished before the call is then seen by nobody.
 *
 * Invariants:
 *   1. slot->epoch is 0 outside, else the global epoch as it was at (or shortly before) entry.
 *   2. Entry announces with a sequentially consistent store and then loads the global epoch once more,
 *      sequentially consistent too; the synchronizer bumps the epoch and then reads the slots, likewise.
 *      So either the synchronizer sees the thread, or the thread's second load sees the bump (Dekker),
 *      and then everything the synchronizer wrote before the bump (ro, head, gate, an unlinked pointer)
 *      happens before everything the thread loads inside, whatever the order of those two accesses.
 *      A release store does not give that: the store may pass the later load (seen on x86;
 *      tests/store/test_epoch.c).
 *   3. What a thread did inside happens before the return of a synchronize that waited for it.
 *
 * Threads: a slot belongs to one thread at a time; everything else from any thread.
 */
#ifndef STORE_EPOCH_H
#define STORE_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct epoch;

struct epoch_slot {
    _Alignas(64) _Atomic uint64_t epoch; /* 0: outside; written by its thread, read by synchronizers */
    struct epoch_slot *next;             /* of all slots, constant once published */
    _Atomic bool used;                   /* claimed by a session */
};

int epoch_open(struct epoch **ret_epoch);
/* All slots must be released. NULL does nothing. */
void epoch_close(struct epoch *epoch);

/* Any number of slots; a released one is used again. -ENOMEM. The slot is valid until epoch_slot_put(),
 * which takes a slot that is outside. */
int epoch_slot_get(struct epoch *epoch, struct epoch_slot **ret_slot);
void epoch_slot_put(struct epoch_slot *slot);

/* Not nested: a slot that is inside must leave before it enters again. */
void epoch_enter(struct epoch *epoch, struct epoch_slot *slot);
void epoch_leave(struct epoch_slot *slot);

/* Waits until every thread that is inside has left (a short time: nobody blocks inside). The caller
 * is outside (it would wait for itself). Any number of callers at once. */
void epoch_synchronize(struct epoch *epoch);

#endif
