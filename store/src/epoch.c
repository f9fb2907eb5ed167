// SPDX-License-Identifier: MIT
/*
 * epoch: see epoch.h for the promises. The slots are a list that is only pushed to and freed at close,
 * so it is walked without protection.
 *
 * Invariants:
 *   1. `global` only grows, and starts at 1: 0 means outside.
 *   2. A slot is in the list before its thread first enters, and stays there until epoch_close().
 *
 * Why a synchronizer that bumped to `target` may pass a slot:
 *   - it read 0 or an older announcement than the thread's newest: then the thread had not announced itself when it
 *     executed the synchronizer's barrier (asymmetric), or its seq_cst store comes after the synchronizer's seq_cst
 *     load in their total order, and its seq_cst load of `global` reads the bump (symmetric): in both cases all
 *     that was written before the bump is seen inside;
 *   - it read an announcement >= target: the thread read the bump before it announced;
 *   - in all cases what that thread did inside earlier is released by the value that was read.
 *   A slot pushed after the walk began is the first case, with the push in place of the announcement.
 */
#include "epoch.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPINS = 200, YIELDS = 50, SLEEP_NS_FIRST = 10 * 1000, SLEEP_NS_MAX = 1000 * 1000 };

/* May entering be a plain store? */
static bool can_be_asymmetric(void)
{
#if defined(__SANITIZE_THREAD__)
    return false;
#else
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
#endif
}

int epoch_open(struct epoch **ret_epoch)
{
    struct epoch *epoch = aligned_alloc(_Alignof(struct epoch), sizeof(*epoch));

    if (!epoch) {
        return -ENOMEM;
    }
    atomic_init(&epoch->global, 1);
    epoch->asymmetric = can_be_asymmetric();
    atomic_init(&epoch->slots, NULL);
    *ret_epoch = epoch;
    return 0;
}

void epoch_close(struct epoch *epoch)
{
    if (!epoch) {
        return;
    }
    /* acquire: pairs with the push in epoch_slot_get() */
    struct epoch_slot *slot = atomic_load_explicit(&epoch->slots, memory_order_acquire);

    while (slot) {
        struct epoch_slot *next = slot->next;

        /* acquire: pairs with epoch_slot_put(); the thread's last access is before the free */
        bool used = atomic_load_explicit(&slot->used, memory_order_acquire);

        assert(!used);
        (void)used;
        free(slot);
        slot = next;
    }
    free(epoch);
}

/* Claims a slot that nobody uses. acquire: pairs with the release in epoch_slot_put(). */
static struct epoch_slot *slot_reuse(struct epoch *epoch)
{
    struct epoch_slot *slot = atomic_load_explicit(&epoch->slots, memory_order_acquire); /* pairs with the push */

    for (; slot; slot = slot->next) {
        bool expected = false;

        /* relaxed look first, to leave others' lines alone; stale costs a new slot at most */
        if (!atomic_load_explicit(&slot->used, memory_order_relaxed) &&
            atomic_compare_exchange_strong_explicit(&slot->used, &expected, true, memory_order_acquire,
                                                    memory_order_relaxed)) {
            return slot;
        }
    }
    return NULL;
}

int epoch_slot_get(struct epoch *epoch, struct epoch_slot **ret_slot)
{
    struct epoch_slot *slot = slot_reuse(epoch);

    if (!slot) {
        slot = aligned_alloc(_Alignof(struct epoch_slot), sizeof(*slot));
        if (!slot) {
            return -ENOMEM;
        }
        atomic_init(&slot->epoch, 0);
        atomic_init(&slot->used, true);
        slot->next = atomic_load_explicit(&epoch->slots, memory_order_relaxed); /* the CAS checks it */
        /* seq_cst: pairs with the load in epoch_synchronize(), which must not miss a slot that is then
         * entered without seeing the bump; as release it publishes the slot's fields. */
        while (!atomic_compare_exchange_weak_explicit(&epoch->slots, &slot->next, slot, memory_order_seq_cst,
                                                      memory_order_relaxed)) {
        }
    }
    *ret_slot = slot;
    return 0;
}

void epoch_slot_put(struct epoch_slot *slot)
{
    /* relaxed: own writes; the assert only */
    assert(atomic_load_explicit(&slot->epoch, memory_order_relaxed) == 0);
    /* release: pairs with slot_reuse() and epoch_close() */
    atomic_store_explicit(&slot->used, false, memory_order_release);
}

void epoch_barrier(struct epoch *epoch)
{
    /* Cannot fail after the registration; without it nothing below would be true. */
    if (epoch->asymmetric && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        abort();
}

/* The n-th wait for the same slot. A thread inside needs less than a microsecond, unless it is preempted. */
static void wait_a_little(unsigned n)
{
    if (n < SPINS) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    } else if (n < SPINS + YIELDS) {
        sched_yield();
    } else {
        unsigned doublings = n - SPINS - YIELDS;
        long ns = doublings < 7 ? (long)SLEEP_NS_FIRST << doublings : SLEEP_NS_MAX;

        nanosleep(&(struct timespec){.tv_nsec = ns < SLEEP_NS_MAX ? ns : SLEEP_NS_MAX}, NULL);
    }
}

void epoch_synchronize(struct epoch *epoch)
{
    /* seq_cst: pairs with the loads in epoch_enter(); as release it publishes the caller's writes */
    uint64_t target = atomic_fetch_add_explicit(&epoch->global, 1, memory_order_seq_cst) + 1;
    epoch_barrier(epoch);
    /* seq_cst: pairs with the push in epoch_slot_get() */
    struct epoch_slot *slot = atomic_load_explicit(&epoch->slots, memory_order_seq_cst);

    for (; slot; slot = slot->next) {
        for (unsigned n = 0;; n++) {
            /* seq_cst: after the bump in S, pairs with the announcement; as acquire with epoch_leave() */
            uint64_t inside_since = atomic_load_explicit(&slot->epoch, memory_order_seq_cst);

            if (inside_since == 0 || inside_since >= target) {
                break;
            }
            wait_a_little(n);
        }
    }
}
