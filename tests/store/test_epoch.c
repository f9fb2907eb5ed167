// SPDX-License-Identifier: MIT
/* Tests of store/src/epoch.h. */
#include "epoch.h"

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>
#include <time.h>

enum { LITMUS_ROUNDS = 300 * 1000, LITMUS_SECONDS = 20, STRESS_MS = 1500, READERS = 3, WRITERS = 2 };

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- slots ------------------------------------------------------------------------------------ */

START_TEST(a_released_slot_is_used_again)
{
    struct epoch *epoch;
    struct epoch_slot *slots[100], *again;

    ck_assert_int_eq(epoch_open(&epoch), 0);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(epoch_slot_get(epoch, &slots[i]), 0);
        ck_assert_uint_eq((uintptr_t)slots[i] % 64, 0);
        for (int k = 0; k < i; k++) {
            ck_assert_ptr_ne(slots[i], slots[k]);
        }
    }
    epoch_slot_put(slots[42]);
    ck_assert_int_eq(epoch_slot_get(epoch, &again), 0);
    ck_assert_ptr_eq(again, slots[42]);
    for (int i = 0; i < 100; i++) {
        epoch_slot_put(slots[i]);
    }
    epoch_close(epoch);
    epoch_close(NULL);
}
END_TEST

START_TEST(enter_announces_and_leave_takes_back)
{
    struct epoch *epoch;
    struct epoch_slot *slot;

    ck_assert_int_eq(epoch_open(&epoch), 0);
    ck_assert_int_eq(epoch_slot_get(epoch, &slot), 0);
    for (uint64_t n = 1; n < 10; n++) {
        epoch_enter(epoch, slot);
        ck_assert_uint_eq(atomic_load(&slot->epoch), n);
        epoch_leave(slot);
        ck_assert_uint_eq(atomic_load(&slot->epoch), 0);
        epoch_synchronize(epoch);
    }
    epoch_slot_put(slot);
    epoch_close(epoch);
}
END_TEST

/* ---- synchronize waits for who was inside, and for nobody else -------------------------------------- */

struct waiting {
    struct epoch *epoch;
    _Atomic bool returned;
};

static void *synchronize_once(void *arg)
{
    struct waiting *waiting = arg;

    epoch_synchronize(waiting->epoch);
    atomic_store(&waiting->returned, true);
    return NULL;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

START_TEST(synchronize_waits_for_who_was_inside_and_not_for_who_came_later)
{
    struct waiting waiting = {0};
    struct epoch_slot *early, *late;
    pthread_t thread;

    ck_assert_int_eq(epoch_open(&waiting.epoch), 0);
    ck_assert_int_eq(epoch_slot_get(waiting.epoch, &early), 0);
    epoch_enter(waiting.epoch, early);
    ck_assert_int_eq(pthread_create(&thread, NULL, synchronize_once, &waiting), 0);
    sleep_ms(50);
    ck_assert(!atomic_load(&waiting.returned));
    ck_assert_int_eq(epoch_slot_get(waiting.epoch, &late), 0);
    epoch_enter(waiting.epoch, late);
    epoch_leave(early);
    pthread_join(thread, NULL); /* or the test runs into its time limit */
    ck_assert(atomic_load(&waiting.returned));
    epoch_leave(late);
    epoch_slot_put(early);
    epoch_slot_put(late);
    epoch_close(waiting.epoch);
}
END_TEST

/* ---- litmus: enter, load flag || store flag, load slot ---------------------------------------------- */

struct litmus {
    struct epoch *epoch;
    struct epoch_slot *slot;
    _Alignas(64) _Atomic unsigned flag;
    _Alignas(64) _Atomic unsigned arrived[2]; /* rounds that each thread has begun */
    _Alignas(64) unsigned seen_flag;          /* of the round; handed over by `arrived` */
    /* The last round: earlier than planned on a busy machine. Set by who looks, before both meet in that round. */
    _Atomic unsigned last;
    time_t begun;
    unsigned forbidden, both, one;
};

static void meet(struct litmus *litmus, int me, unsigned round)
{
    atomic_store(&litmus->arrived[me], round);
    for (unsigned n = 0; atomic_load(&litmus->arrived[!me]) < round; n++) {
        if (n > 2000) {
            sched_yield();
        }
    }
}

static void *litmus_enter(void *arg)
{
    struct litmus *litmus = arg;

    for (unsigned round = 1; round <= atomic_load(&litmus->last); round++) {
        meet(litmus, 0, 2 * round - 1);
        epoch_enter(litmus->epoch, litmus->slot);
        litmus->seen_flag = atomic_load(&litmus->flag);
        meet(litmus, 0, 2 * round);
        epoch_leave(litmus->slot);
    }
    return NULL;
}

static void *litmus_look(void *arg)
{
    struct litmus *litmus = arg;

    for (unsigned round = 1; round <= atomic_load(&litmus->last); round++) {
        meet(litmus, 1, 2 * round - 1);
        for (volatile unsigned wait = round % 16; wait > 0; wait--) {
        }
        atomic_store(&litmus->flag, round);
        epoch_barrier(litmus->epoch);
        bool saw_slot = atomic_load(&litmus->slot->epoch) != 0;

        if (round % 256 == 0 && time(NULL) - litmus->begun > LITMUS_SECONDS)
            atomic_store(&litmus->last, round);
        meet(litmus, 1, 2 * round);
        bool saw_flag = litmus->seen_flag == round;

        litmus->forbidden += !saw_slot && !saw_flag;
        litmus->both += saw_slot && saw_flag;
        litmus->one += saw_slot != saw_flag;
    }
    return NULL;
}

START_TEST(who_enters_and_who_looks_never_miss_each_other)
{
    struct litmus *litmus = aligned_alloc(64, sizeof(*litmus));
    pthread_t threads[2];

    ck_assert_ptr_nonnull(litmus);
    memset(litmus, 0, sizeof(*litmus));
    ck_assert_int_eq(epoch_open(&litmus->epoch), 0);
    if (_i == 1)
        litmus->epoch->asymmetric = false;
    ck_assert_int_eq(epoch_slot_get(litmus->epoch, &litmus->slot), 0);
    atomic_store(&litmus->last, LITMUS_ROUNDS);
    litmus->begun = time(NULL);
    pthread_create(&threads[0], NULL, litmus_enter, litmus);
    pthread_create(&threads[1], NULL, litmus_look, litmus);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    printf("litmus %s: %u rounds, both saw %u, one saw %u, neither %u\n",
           litmus->epoch->asymmetric ? "asymmetric" : "symmetric", atomic_load(&litmus->last), litmus->both,
           litmus->one, litmus->forbidden);
    ck_assert_uint_eq(litmus->forbidden, 0);
    epoch_slot_put(litmus->slot);
    epoch_close(litmus->epoch);
    free(litmus);
}
END_TEST

/* ---- reclaim: what was unlinked before synchronize is touched by nobody after it ------------------------ */

#define ALIVE UINT64_C(0xa11ea11ea11ea11e)
#define POISON UINT64_C(0xdeaddeaddeaddead)

struct node {
    uint64_t words[8]; /* plain: a reader that is too late is a race for TSan, a use after free for ASan */
};

struct stress {
    struct epoch *epoch;
    _Atomic(struct node *) shared; /* swapped by writers, followed by readers */
    _Atomic bool stop;
    _Atomic uint64_t reads, reclaimed, bad;
};

static struct node *node_new(void)
{
    struct node *node = malloc(sizeof(*node));

    for (int i = 0; node && i < 8; i++) {
        node->words[i] = ALIVE;
    }
    return node;
}

static void *stress_read(void *arg)
{
    struct stress *stress = arg;
    uint64_t reads = 0, bad = 0;

    while (!atomic_load_explicit(&stress->stop, memory_order_relaxed)) {
        struct epoch_slot *slot;

        if (epoch_slot_get(stress->epoch, &slot) < 0) {
            abort();
        }
        for (int k = 0; k < 100; k++) {
            epoch_enter(stress->epoch, slot);
            struct node *node = atomic_load_explicit(&stress->shared, memory_order_acquire);

            for (int i = 0; i < 8; i++) {
                bad += node->words[i] != ALIVE;
            }
            epoch_leave(slot);
            reads++;
        }
        epoch_slot_put(slot);
    }
    atomic_fetch_add(&stress->reads, reads);
    atomic_fetch_add(&stress->bad, bad);
    return NULL;
}

static void *stress_reclaim(void *arg)
{
    struct stress *stress = arg;

    while (!atomic_load_explicit(&stress->stop, memory_order_relaxed)) {
        /* acq_rel: publishes the new node, and gets the old one from whoever made it */
        struct node *old = atomic_exchange_explicit(&stress->shared, node_new(), memory_order_acq_rel);

        epoch_synchronize(stress->epoch);
        for (int i = 0; i < 8; i++) {
            old->words[i] = POISON;
        }
        free(old);
        atomic_fetch_add_explicit(&stress->reclaimed, 1, memory_order_relaxed);
    }
    return NULL;
}

START_TEST(nobody_sees_what_was_unlinked_before_synchronize)
{
    struct stress stress = {0};
    pthread_t threads[READERS + WRITERS];

    ck_assert_int_eq(epoch_open(&stress.epoch), 0);
    atomic_store(&stress.shared, node_new());
    for (int i = 0; i < READERS + WRITERS; i++) {
        pthread_create(&threads[i], NULL, i < READERS ? stress_read : stress_reclaim, &stress);
    }
    for (uint64_t end = now_ms() + STRESS_MS; now_ms() < end;) {
        sleep_ms(10);
    }
    atomic_store(&stress.stop, true);
    for (int i = 0; i < READERS + WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("reclaim: %llu reads, %llu reclaimed\n", (unsigned long long)stress.reads,
           (unsigned long long)stress.reclaimed);
    ck_assert_uint_eq(stress.bad, 0);
    ck_assert_uint_gt(stress.reads, 0);
    ck_assert_uint_gt(stress.reclaimed, 0);
    free(atomic_load(&stress.shared));
    epoch_close(stress.epoch);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("epoch");

    setvbuf(stdout, NULL, _IOLBF, 0);
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, a_released_slot_is_used_again);
    tcase_add_test(tcase, enter_announces_and_leave_takes_back);
    tcase_add_test(tcase, synchronize_waits_for_who_was_inside_and_not_for_who_came_later);
    tcase_add_loop_test(tcase, who_enters_and_who_looks_never_miss_each_other, 0, 2); /* as it is, and symmetric */
    tcase_add_test(tcase, nobody_sees_what_was_unlinked_before_synchronize);
    return suite_run_case("epoch", tcase);
}
