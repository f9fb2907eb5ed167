// SPDX-License-Identifier: MIT
/*
 * index_grow: doubling the table, and taking out what leads nowhere, beside operations.
 *
 * Growth, by one thread at a time (`lock`), outside epochs:
 *
 *     begin    map the new table: `next`; split = 0; `table` gets SPLITTING (release)
 *     split    buckets in ascending order: freeze the chain, build the two new ones, split + 1 (release)
 *     retire   after each part: epoch_synchronize(); old overflow buckets to the free list, memory of the part
 *              to the system
 *     end      `table` = `next` (release) before the last part is retired; the old table is unmapped
 *
 * Invariants:
 *   1. A bucket below `split` is in `next` alone, the others are in `table` alone. Whoever uses a chain of the
 *      old table that was split meanwhile finds it frozen: may read it (the entries were right when the
 *      operation looked for the bucket, that is, during the operation), and cannot change it.
 *   2. To freeze is to take away each possible change by a CAS: a free slot (0) and the last link (0) get
 *      values that nobody claims or appends to; an entry gets both bits. An entry that is locked or
 *      tentative is waited for: its owner does processor work only, and a creator or unit that meets a
 *      frozen word on the way gives back what it has and leaves.
 *   3. A split needs no more overflow buckets than its chain had, and gets them before it changes anything: if
 *      there are none, it takes the freeze back. So growth stops between buckets only.
 *   4. Who is in the epoch may look at an old chain; it is used for something else only after
 *      epoch_synchronize(). Who enters later sees `split` beyond it.
 *
 * Sweep: see index.c for why unlinking is right.
 */
#include "index_private.h"

#include "epoch.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#define PART_BUCKETS UINT64_C(65536) /* of the old table: 4 MiB, some milliseconds */
#define GROW_OVERFLOW_DIVISOR 4      /* wants to grow at more than a quarter as many overflow buckets as buckets */
#define SWEEP_BATCH 256

/* ---- freezing ------------------------------------------------------------------------------------- */

/* The n-th wait for the same entry, which is locked or tentative: for less than a microsecond, unless its
 * thread is off the processor. */
static void wait_for_owner(unsigned n)
{
    if (n < 50) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

static void freeze_slot(index_slot *slot)
{
    uint64_t entry = atomic_load_explicit(slot, memory_order_relaxed); /* the CAS checks it */

    for (unsigned n = 0;;) {
        if (entry & INDEX_FROZEN) {
            wait_for_owner(n++);
            entry = atomic_load_explicit(slot, memory_order_relaxed);
        } else if (atomic_compare_exchange_weak_explicit(slot, &entry, entry | INDEX_FROZEN, memory_order_acq_rel,
                                                         memory_order_relaxed)) {
            /* acquire: pairs with index_unlock() and entry_settle(); what the owner published is passed on by
             * `split`. release: as part of the same chain of hands, for who reads the frozen entry. */
            return;
        }
    }
}

/* Freezes all words of a chain. The entries in use. */
static uint64_t freeze_chain(struct index *index, struct index_bucket *bucket)
{
    uint64_t entries = 0;

    for (;;) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            freeze_slot(&bucket->entries[i]);
            /* relaxed: frozen by us */
            entries += atomic_load_explicit(&bucket->entries[i], memory_order_relaxed) != INDEX_FROZEN;
        }
        uint64_t next = 0;

        /* acquire on failure: pairs with chain_append(), the bucket is there; it changes no more */
        if (atomic_compare_exchange_strong_explicit(&bucket->overflow, &next, INDEX_END, memory_order_seq_cst,
                                                    memory_order_acquire)) {
            return entries;
        }
        bucket = index_slab_at(&index->slab, next);
    }
}

/* Takes a freeze back. relaxed: nobody else writes a frozen word. release: what it was before is what it is. */
static void thaw_chain(struct index *index, struct index_bucket *bucket)
{
    while (bucket) {
        struct index_bucket *next = index_next_bucket(index, bucket, memory_order_relaxed);

        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_relaxed);

            atomic_store_explicit(&bucket->entries[i], entry & ~INDEX_FROZEN, memory_order_release);
        }
        if (!next) {
            atomic_store_explicit(&bucket->overflow, 0, memory_order_release);
        }
        bucket = next;
    }
}

/* ---- splitting ------------------------------------------------------------------------------------ */

/* A chain of the new table that nobody sees yet: relaxed throughout, `split` publishes it. */
struct half {
    struct index_bucket *first, *last;
    unsigned used; /* slots of `last` */
};

static int half_add(struct index *index, struct half *half, uint64_t entry)
{
    if (half->used == INDEX_BUCKET_ENTRIES) {
        uint64_t number;
        int r = index_slab_get(&index->slab, &number);

        if (r < 0) {
            return r;
        }
        atomic_store_explicit(&half->last->overflow, number, memory_order_relaxed);
        half->last = index_slab_at(&index->slab, number);
        half->used = 0;
    }
    atomic_store_explicit(&half->last->entries[half->used++], entry, memory_order_relaxed);
    return 0;
}

/* Gives back a chain's overflow buckets, which nobody sees (yet, or any more). */
static void overflow_put(struct index *index, const struct index_bucket *first)
{
    uint64_t number = atomic_load_explicit(&first->overflow, memory_order_relaxed);

    while (number != 0 && number != INDEX_END) {
        uint64_t next = atomic_load_explicit(&index_slab_at(&index->slab, number)->overflow, memory_order_relaxed);

        index_slab_put(&index->slab, number);
        number = next;
    }
}

static void half_drop(struct index *index, struct half *half)
{
    overflow_put(index, half->first);
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        atomic_store_explicit(&half->first->entries[i], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&half->first->overflow, 0, memory_order_relaxed);
}

/* Adds the entries of a frozen chain to its halves, by their first bit, which they lose. */
static int split_entries(struct index *index, struct index_bucket *bucket, struct half halves[2])
{
    for (; bucket; bucket = index_next_bucket(index, bucket, memory_order_relaxed)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_relaxed);
            uint64_t address = index_address(entry);

            if (address <= INDEX_NONE) {
                continue;
            }
            uint64_t bits = entry & INDEX_TAG_MASK;
            unsigned side = (unsigned)(bits >> (INDEX_TAG_SHIFT + INDEX_KNOWN_MAX)) & 1;
            uint64_t moved = (bits << 1 & INDEX_TAG_MASK) | address;
            int r = half_add(index, &halves[side], moved);

            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

/* Moves bucket n of the old table into the new one. -ENOMEM: it is as it was. */
static int split_bucket(struct index *index, uint64_t table, uint64_t next, uint64_t n)
{
    struct index_bucket *old = &index_table_buckets(table)[n], *new = &index_table_buckets(next)[2 * n];
    struct half halves[2] = {{new, new, 0}, {new + 1, new + 1, 0}};

    if (freeze_chain(index, old) > 0) {
        int r = split_entries(index, old, halves);

        if (r < 0) {
            half_drop(index, &halves[0]);
            half_drop(index, &halves[1]);
            thaw_chain(index, old);
            return r;
        }
    }
    /* release: pairs with place_while_splitting(); the new chains are there */
    atomic_store_explicit(&index->split, n + 1, memory_order_release);
    return 0;
}

static int begin_growth(struct index *index, uint64_t table)
{
    unsigned level = index_table_level(table);

    if (index->bits - level <= INDEX_KNOWN_MIN || index_table_size(table) == INDEX_BUCKETS_MAX) {
        return -E2BIG;
    }
    uint64_t next = index_table_map(level + 1);

    if (!next) {
        return -ENOMEM;
    }
    /* relaxed, both: others get them by the release below */
    atomic_store_explicit(&index->split, 0, memory_order_relaxed);
    pthread_mutex_lock(&index->tables_lock);
    atomic_store_explicit(&index->next, next, memory_order_relaxed);
    pthread_mutex_unlock(&index->tables_lock);
    /* release: pairs with place_of(); whoever sees it sees `next` and split = 0 */
    atomic_store_explicit(&index->table, table | INDEX_TABLE_SPLITTING, memory_order_release);
    return 0;
}

/* All is split and nobody is in the old table any more. */
static void retire_table(struct index *index, uint64_t old)
{
    pthread_mutex_lock(&index->tables_lock);
    index_table_unmap(old);
    atomic_store_explicit(&index->next, 0, memory_order_relaxed); /* seen by nobody: `table` is not splitting */
    pthread_mutex_unlock(&index->tables_lock);
}

/* Gives back what old buckets [from, to) had. */
static void retire_part(struct index *index, uint64_t table, uint64_t from, uint64_t to)
{
    struct index_bucket *buckets = index_table_buckets(table);

    for (uint64_t n = from; n < to; n++) {
        overflow_put(index, &buckets[n]);
    }
    if (to % PART_BUCKETS == 0) {
        from -= from % PART_BUCKETS;
        (void)madvise(&buckets[from], (to - from) * sizeof(*buckets), MADV_DONTNEED); /* or it goes with the table */
    }
}

/* As index_grow(), `lock` held. */
static int grow_part(struct index *index)
{
    /* relaxed, all: written by us only, under `lock` */
    uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed);

    if (!(table & INDEX_TABLE_SPLITTING)) {
        int r = begin_growth(index, table);

        if (r < 0) {
            return r;
        }
        table |= INDEX_TABLE_SPLITTING;
    }
    uint64_t next = atomic_load_explicit(&index->next, memory_order_relaxed);
    uint64_t from = atomic_load_explicit(&index->split, memory_order_relaxed), at = from;
    uint64_t size = index_table_size(table), to = (from / PART_BUCKETS + 1) * PART_BUCKETS;

    while (at < to && at < size && split_bucket(index, table, next, at) == 0) {
        at++;
    }
    if (at == from) {
        return -ENOMEM;
    }
    if (at == size) { /* release: pairs with place_of(); the new chains are there */
        atomic_store_explicit(&index->table, next, memory_order_release);
    }
    epoch_synchronize(index->epoch);
    retire_part(index, table, from, at);
    if (at == size) {
        retire_table(index, table);
    }
    return at < size;
}

int index_grow(struct index *index)
{
    if (pthread_mutex_trylock(&index->lock) != 0) {
        return -EBUSY;
    }
    int r = grow_part(index);

    pthread_mutex_unlock(&index->lock);
    return r;
}

int index_end_growth(struct index *index)
{
    int r = 1;

    /* relaxed: written under `lock` */
    while (r > 0 && (atomic_load_explicit(&index->table, memory_order_relaxed) & INDEX_TABLE_SPLITTING)) {
        r = grow_part(index);
    }
    return r < 0 ? r : 0;
}

bool index_wants_growth(const struct index *index)
{
    /* relaxed: a number; nothing is reached through it */
    uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed);

    if (table & INDEX_TABLE_SPLITTING) {
        return true;
    }
    return index->bits - index_table_level(table) > INDEX_KNOWN_MIN && index_table_size(table) < INDEX_BUCKETS_MAX &&
           index_slab_in_use(&index->slab) > index_table_size(table) / GROW_OVERFLOW_DIVISOR;
}

/* ---- sweep ---------------------------------------------------------------------------------------- */

struct sweep {
    struct index *index;
    uint64_t begin;
    unsigned count;                 /* of `unlinked` */
    uint64_t unlinked[SWEEP_BATCH]; /* overflow buckets that somebody inside may still be in */
};

/* Frees the entries of a bucket that lead nowhere. Is nothing left? */
static bool sweep_entries(struct sweep *sweep, struct index_bucket *bucket)
{
    bool empty = true;

    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_relaxed); /* the CAS checks it */
        bool dead =
            !(entry & INDEX_FROZEN) && (index_address(entry) == INDEX_NONE || index_address(entry) < sweep->begin);

        /* relaxed: it publishes nothing */
        if (entry == 0 || (dead && atomic_compare_exchange_strong_explicit(
                                       &bucket->entries[i], &entry, 0, memory_order_relaxed, memory_order_relaxed))) {
            continue;
        }
        empty = false;
    }
    return empty;
}

/* Freezes a bucket all of whose slots are free; false if one is not, and all are as they were. */
static bool freeze_empty(struct index_bucket *bucket)
{
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        uint64_t expected = 0;

        /* relaxed: nothing is published; seen by the CAS of who would claim it */
        if (atomic_compare_exchange_strong_explicit(&bucket->entries[i], &expected, INDEX_FROZEN, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            continue;
        }
        while (i-- > 0) {
            atomic_store_explicit(&bucket->entries[i], 0, memory_order_relaxed); /* as above */
        }
        return false;
    }
    return true;
}

/* Takes a frozen bucket, to which `link` leads, out of its chain. seq_cst: pairs with chain_has_rival(), see
 * index.c; acquire and release pass on the bucket behind, from who linked it to who finds it here. */
static void unlink_bucket(_Atomic uint64_t *link, struct index_bucket *bucket)
{
    uint64_t next = 0;

    (void)atomic_compare_exchange_strong_explicit(&bucket->overflow, &next, INDEX_END, memory_order_seq_cst,
                                                  memory_order_seq_cst);
    atomic_store_explicit(link, next, memory_order_seq_cst);
}

static void sweep_give_back(struct sweep *sweep)
{
    epoch_synchronize(sweep->index->epoch);
    while (sweep->count > 0) {
        index_slab_put(&sweep->index->slab, sweep->unlinked[--sweep->count]);
    }
}

static void sweep_chain(struct sweep *sweep, struct index_bucket *bucket)
{
    uint64_t number;

    sweep_entries(sweep, bucket);
    /* acquire: pairs with chain_append(). A link that is not 0 is changed by us alone. */
    while ((number = atomic_load_explicit(&bucket->overflow, memory_order_acquire)) != 0) {
        struct index_bucket *next = index_slab_at(&sweep->index->slab, number);

        if (!sweep_entries(sweep, next) || !freeze_empty(next)) {
            bucket = next;
            continue;
        }
        unlink_bucket(&bucket->overflow, next);
        sweep->unlinked[sweep->count++] = number;
        if (sweep->count == SWEEP_BATCH) {
            sweep_give_back(sweep);
        }
    }
}

void index_sweep(struct index *index, uint64_t begin)
{
    struct sweep sweep = {.index = index, .begin = begin};

    pthread_mutex_lock(&index->lock);
    if (index_end_growth(index) == 0) {
        uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed); /* written under `lock` */

        for (uint64_t n = 0; n < index_table_size(table); n++) {
            sweep_chain(&sweep, &index_table_buckets(table)[n]);
        }
        if (sweep.count > 0) {
            sweep_give_back(&sweep);
        }
    }
    pthread_mutex_unlock(&index->lock);
}
