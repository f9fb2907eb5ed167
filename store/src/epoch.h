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
 *   2. A thread announces itself and then looks at shared memory; a synchronizer writes (ro, head, gate, an unlinked
 *      pointer), bumps the epoch, and then looks at the slots. Between the two steps of each there is a full barrier
 *      (Dekker): so either the synchronizer sees the thread, or everything it wrote happens before
 *      everything that the thread loads inside. A release store is no such barrier: it may pass the later load
 *      (seen on x86; tests/store/test_epoch.c).
 *   3. The barrier of the threads is the synchronizers' to pay: membarrier(2) makes every thread of the process
 *      execute one. Entering is then a plain store, which does not wait for the stores before it, and costs an
 *      operation nothing. Where the kernel has no membarrier(2), and under ThreadSanitizer, which does not know it,
 *      both sides use sequentially consistent accesses.
 *   4. What a thread did inside happens before the return of a synchronize that waited for it.
 *
 * Threads: a slot belongs to one thread at a time; everything else from any thread.
 */
#ifndef STORE_EPOCH_H
#define STORE_EPOCH_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct epoch_slot {
    _Alignas(64) _Atomic uint64_t epoch; /* 0: outside; written by its thread, read by synchronizers */
    struct epoch_slot *next;             /* of all slots, constant once published */
    _Atomic bool used;                   /* claimed by a session */
};

struct epoch {
    _Alignas(64) _Atomic uint64_t global;            /* bumped by synchronizers, read by all; starts at 1 */
    bool asymmetric;                                 /* constant: invariant 3 */
    _Alignas(64) _Atomic(struct epoch_slot *) slots; /* pushed by slot_get, walked by synchronizers */
};

int epoch_open(struct epoch **ret_epoch);
/* All slots must be released. NULL does nothing. */
void epoch_close(struct epoch *epoch);

/* Any number of slots; a released one is used again. -ENOMEM. The slot is valid until epoch_slot_put(),
 * which takes a slot that is outside. */
int epoch_slot_get(struct epoch *epoch, struct epoch_slot **ret_slot);
void epoch_slot_put(struct epoch_slot *slot);

/* Not nested: a slot that is inside must leave before it enters again. */
static inline void epoch_enter(struct epoch *epoch, struct epoch_slot *slot)
{
    /* acquire: who announces a number has seen what was before the bump to it */
    uint64_t now = atomic_load_explicit(&epoch->global, memory_order_acquire);

    assert(atomic_load_explicit(&slot->epoch, memory_order_relaxed) == 0); /* relaxed: own writes */
    if (epoch->asymmetric) {
        atomic_store_explicit(&slot->epoch, now, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst); /* for the compiler; the processor's is epoch_barrier() */
        return;
    }
    /* seq_cst store, then seq_cst load: pairs with bump, then slot load, in epoch_synchronize(). As acquire the
     * load keeps everything inside after it. */
    atomic_store_explicit(&slot->epoch, now, memory_order_seq_cst);
    (void)atomic_load_explicit(&epoch->global, memory_order_seq_cst);
}

static inline void epoch_leave(struct epoch_slot *slot)
{
    /* relaxed: own writes; the assert only */
    assert(atomic_load_explicit(&slot->epoch, memory_order_relaxed) != 0);
    /* release: pairs with the slot load in epoch_synchronize(): what was done inside stays before it */
    atomic_store_explicit(&slot->epoch, 0, memory_order_release);
}

/* The synchronizers' side of invariant 2: between their writes and their look at the slots. */
void epoch_barrier(struct epoch *epoch);

/* Waits until every thread that is inside has left (a short time: nobody blocks inside). The caller
 * is outside (it would wait for itself). Any number of callers at once. */
void epoch_synchronize(struct epoch *epoch);

#endif
