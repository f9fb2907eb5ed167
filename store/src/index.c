// SPDX-License-Identifier: MIT
/*
 * index: see index.h for the layout and the promises; index_slab.h for overflow buckets; index_grow.c for
 * growth and sweep; index_image.c for images.
 *
 * An entry's life:
 *
 *     0 --entry_claim()--> tentative --entry_settle()--> used; the owner of the log changes its address by CAS,
 *     ^                        |                         and growth moves it to another table
 *     +-----entry_yield()------+                           |
 *     +-----------------------index_sweep()----------------+
 *
 * Two threads that create an entry for hashes that match each other may take two free slots of a chain.
 * Each marks its own tentative (seq_cst CAS) and then reads the whole chain (seq_cst loads). In the total
 * order of these accesses one of the two CASes is first, and the other's thread reads the chain after both:
 * it finds the first one's entry, unless that has yielded or was swept, and yields. If both find each other
 * both yield, and try again after pauses that differ. Which free slots they took plays no role, so slots may
 * become free anywhere in a chain.
 *
 * For that a reading must not miss a bucket. Links change in these ways: the last bucket's from 0 to a number
 * (append); the last bucket's from 0 to INDEX_END, after which nothing is behind it for ever; and a bucket
 * that was frozen, all of its slots free, is unlinked: its predecessor gets its link. It keeps its own, and
 * is not used again before all that are inside an epoch have left. So whatever bucket can be reached from
 * where a reader is can be reached until it is itself unlinked; and a bucket with a tentative entry is not,
 * since its slots cannot all be frozen. Hence a reading that begins when a tentative entry is in the chain
 * meets it. (One that ends at an INDEX_END may miss what is appended elsewhere later: whose creator then claims
 * later still, and is the one that finds the other.)
 *
 * A split freezes each word of a chain, and waits for tentative entries to be settled or taken back; so what
 * is said above ends with the old chain before the new one begins.
 */
#include "index_private.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_TABLE ((size_t)32 << 20)

/* Zeroed and untouched. A large table begins at a huge page, so that all of it can be in such pages. */
static void *table_map(size_t bytes)
{
    bool huge = bytes >= HUGE_TABLE;
    size_t mapped = huge ? bytes + HUGE_PAGE : bytes;
    char *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        return NULL;
    }
    if (!huge) {
        return memory;
    }
    size_t head = -(uintptr_t)memory & (HUGE_PAGE - 1);

    if (head > 0) {
        munmap(memory, head);
    }
    munmap(memory + head + bytes, HUGE_PAGE - head);
    (void)madvise(memory + head, bytes, MADV_HUGEPAGE); /* a kernel without them is slower, not wrong */
    return memory + head;
}

uint64_t index_table_map(unsigned level)
{
    void *memory = table_map(sizeof(struct index_bucket) << level);

    return memory ? (uint64_t)(uintptr_t)memory | level : 0;
}

void index_table_unmap(uint64_t table)
{
    munmap(index_table_buckets(table), index_table_size(table) * sizeof(struct index_bucket));
}

int index_open(uint64_t buckets, unsigned bits, struct epoch *epoch, struct index **ret_index)
{
    if (buckets < INDEX_BUCKETS_MIN || buckets > INDEX_BUCKETS_MAX || (buckets & (buckets - 1)) != 0) {
        return -EINVAL;
    }
    unsigned level = (unsigned)__builtin_ctzll(buckets);

    if (bits < level + INDEX_KNOWN_MIN || bits > level + INDEX_KNOWN_MAX) {
        return -EINVAL;
    }
    struct index *index = aligned_alloc(_Alignof(struct index), sizeof(*index));
    uint64_t table = index ? index_table_map(level) : 0;

    if (!table) {
        free(index);
        return -ENOMEM;
    }
    atomic_init(&index->table, table);
    atomic_init(&index->next, 0);
    atomic_init(&index->split, 0);
    index->bits = bits;
    index->epoch = epoch;
    pthread_mutex_init(&index->lock, NULL);
    pthread_mutex_init(&index->tables_lock, NULL);
    index_slab_init(&index->slab);
    *ret_index = index;
    return 0;
}

/* relaxed: the caller is alone, and whatever made it so orders the others' writes */
void index_close(struct index *index)
{
    if (!index) {
        return;
    }
    uint64_t next = atomic_load_explicit(&index->next, memory_order_relaxed);

    if (next) {
        index_table_unmap(next);
    }
    index_table_unmap(atomic_load_explicit(&index->table, memory_order_relaxed));
    index_slab_fini(&index->slab);
    pthread_mutex_destroy(&index->tables_lock);
    pthread_mutex_destroy(&index->lock);
    free(index);
}

struct place {
    struct index_bucket *bucket; /* the first of the chain */
    uint64_t tag;
};

static inline struct place place_in(const struct index *index, uint64_t table, uint64_t hash)
{
    unsigned level = index_table_level(table);

    return (struct place){&index_table_buckets(table)[hash >> (64 - level)], index_tag(hash, level, index->bits)};
}

/* The table is being split: where is the bucket? Whoever saw SPLITTING (acquire) sees the `next` of this growth,
 * and no later one as long as it is inside: the next growth begins after all of them have left. */
static __attribute__((noinline, cold)) struct place place_while_splitting(const struct index *index, uint64_t table,
                                                                          uint64_t hash)
{
    /* acquire: pairs with the store in index_grow.c; the new chains are there */
    if (hash >> (64 - index_table_level(table)) < atomic_load_explicit(&index->split, memory_order_acquire)) {
        /* relaxed: constant while splitting, see above */
        table = atomic_load_explicit(&index->next, memory_order_relaxed);
    }
    return place_in(index, table, hash);
}

static inline struct place place_of(const struct index *index, uint64_t hash)
{
    uint64_t table = atomic_load_explicit(&index->table, memory_order_acquire); /* pairs with index_grow.c */

    return __builtin_expect((table & INDEX_TABLE_SPLITTING) != 0, 0) ? place_while_splitting(index, table, hash)
                                                                     : place_in(index, table, hash);
}

/* Which slots of the bucket match, as bits. Without branches: where an entry is cannot be predicted, and a wrong guess
 * throws away what the processor has begun behind the miss, the next operation's among it (half of the reads of a table
 * larger than the caches). relaxed: the caller looks again at those that match. */
static inline unsigned bucket_matches(struct index_bucket *bucket, uint64_t tag)
{
    unsigned matches = 0;

#pragma GCC unroll 7
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        matches |= (unsigned)index_matches(atomic_load_explicit(&bucket->entries[i], memory_order_relaxed), tag) << i;
    }
    return matches;
}

index_slot *index_find(struct index *index, uint64_t hash, uint64_t *ret_entry)
{
    struct place place = place_of(index, hash);
    struct index_bucket *bucket = place.bucket;

    do {
        for (unsigned matches = bucket_matches(bucket, place.tag); matches; matches &= matches - 1) {
            index_slot *slot = &bucket->entries[__builtin_ctz(matches)];
            /* acquire: pairs with index_publish() */
            uint64_t entry = atomic_load_explicit(slot, memory_order_acquire);

            if (index_matches(entry, place.tag) && !index_is_tentative(entry)) {
                *ret_entry = entry;
                return slot;
            }
        }
        bucket = index_next_bucket(index, bucket, memory_order_acquire);
    } while (bucket);
    return NULL;
}

struct chain {
    index_slot *match;         /* the slot of an entry that matches, or NULL: then the rest is set */
    uint64_t entry;            /* what was in `match` */
    index_slot *free;          /* the first free slot, or NULL */
    struct index_bucket *last; /* the last bucket */
};

static struct chain chain_read(const struct index *index, struct place place)
{
    struct chain chain = {0};

    for (struct index_bucket *bucket = place.bucket; bucket;
         bucket = index_next_bucket(index, bucket, memory_order_acquire)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            /* acquire: as in index_find(); a stale free slot fails the CAS, a missed match is a rival */
            uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_acquire);

            if (index_matches(entry, place.tag) && !index_is_tentative(entry)) {
                chain.match = &bucket->entries[i];
                chain.entry = entry;
                return chain;
            }
            if (entry == 0 && !chain.free) {
                chain.free = &bucket->entries[i];
            }
        }
        chain.last = bucket;
    }
    return chain;
}

/* Is there an entry that matches anywhere in the chain but in `mine`, tentative or not? seq_cst: see the file
 * header; pairs with entry_claim() and chain_append() of others, and with unlink() in index_grow.c. */
static bool chain_has_rival(const struct index *index, struct place place, const index_slot *mine)
{
    for (struct index_bucket *bucket = place.bucket; bucket;
         bucket = index_next_bucket(index, bucket, memory_order_seq_cst)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_seq_cst);

            if (index_matches(entry, place.tag) && &bucket->entries[i] != mine) {
                return true;
            }
        }
    }
    return false;
}

/* Makes the chain longer, or finds that somebody did. -EAGAIN: it has an end for ever; -ENOMEM. */
static int chain_append(struct index *index, struct index_bucket *last)
{
    uint64_t number, next = 0;
    int r = index_slab_get(&index->slab, &number);

    if (r < 0) { /* relaxed: the chain is read again; a stale 0 is an error a moment early */
        next = atomic_load_explicit(&last->overflow, memory_order_relaxed);
        return next == 0 ? r : next == INDEX_END ? -EAGAIN : 0;
    }
    /* seq_cst: see the file header, pairs with chain_has_rival(); as release it publishes the zeroed bucket.
     * relaxed on failure: only whether there is an end is used */
    if (atomic_compare_exchange_strong_explicit(&last->overflow, &next, number, memory_order_seq_cst,
                                                memory_order_relaxed)) {
        return 0;
    }
    index_slab_put(&index->slab, number);
    return next == INDEX_END ? -EAGAIN : 0;
}

/* seq_cst: pairs with chain_has_rival() of others. */
static bool entry_claim(index_slot *slot, uint64_t tag)
{
    uint64_t expected = 0;

    return atomic_compare_exchange_strong_explicit(slot, &expected, INDEX_TENTATIVE | tag | INDEX_NONE,
                                                   memory_order_seq_cst, memory_order_relaxed);
}

/* release, both: no reading of the chain moves behind it. A rival that still reads the tentative entry
 * yields, which is right for the one and harmless for the other. */
static uint64_t entry_settle(index_slot *slot, uint64_t tag)
{
    uint64_t entry = tag | INDEX_NONE;

    atomic_store_explicit(slot, entry, memory_order_release);
    return entry;
}

static void entry_yield(index_slot *slot)
{
    atomic_store_explicit(slot, 0, memory_order_release);
}

/* Waits 0 to 2^turn pauses, so that two that yield to each other part. Threads differ by `seed`. The rival
 * may be off the processor with its entry tentative: from some turn on let it run. */
static void back_off(uint64_t *seed, unsigned turn)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    for (uint64_t n = (*seed >> 40) & ((UINT64_C(1) << (turn < 8 ? turn + 1 : 8)) - 1); n > 0; n--) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#else
        atomic_signal_fence(memory_order_seq_cst); /* keeps the loop; orders nothing */
#endif
    }
    if (turn >= 4) {
        sched_yield();
    }
}

static int create(struct index *index, uint64_t hash, index_slot **ret_slot, uint64_t *ret_entry)
{
    uint64_t seed = (uintptr_t)&seed ^ hash; /* the stack tells threads apart */
    unsigned turn = 0;

    for (;;) {
        struct place place = place_of(index, hash);
        struct chain chain = chain_read(index, place);

        if (chain.match) {
            if (index_is_frozen(chain.entry)) {
                return -EAGAIN;
            }
            *ret_slot = chain.match;
            *ret_entry = chain.entry;
            return 0;
        }
        if (!chain.free) {
            int r = chain_append(index, chain.last);

            if (r < 0) {
                return r;
            }
            continue;
        }
        if (!entry_claim(chain.free, place.tag)) {
            continue;
        }
        if (!chain_has_rival(index, place, chain.free)) {
            *ret_entry = entry_settle(chain.free, place.tag);
            *ret_slot = chain.free;
            return 0;
        }
        entry_yield(chain.free);
        back_off(&seed, turn++);
    }
}

int index_find_or_create(struct index *index, uint64_t hash, index_slot **ret_slot, uint64_t *ret_entry)
{
    uint64_t entry;
    index_slot *slot = index_find(index, hash, &entry);

    if (!slot || index_is_frozen(entry)) {
        return create(index, hash, ret_slot, ret_entry);
    }
    *ret_slot = slot;
    *ret_entry = entry;
    return 0;
}

/* Bytes of the table that are in memory; all of them if the kernel does not say. */
static uint64_t table_resident_bytes(uint64_t table)
{
    unsigned char in_memory[4096];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), step = page * sizeof(in_memory), pages = 0;
    uint64_t len = index_table_size(table) * sizeof(struct index_bucket);

    for (uint64_t at = 0; at < len; at += step) {
        uint64_t bytes = len - at < step ? len - at : step;

        if (mincore((char *)index_table_buckets(table) + at, bytes, in_memory) < 0) {
            return len;
        }
        for (uint64_t i = 0; i < (bytes + page - 1) / page; i++) {
            pages += in_memory[i] & 1u;
        }
    }
    return pages * page;
}

void index_prefetch(const struct index *index, uint64_t hash)
{
    uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed); /* asking does not touch it */

    __builtin_prefetch(&index_table_buckets(table)[hash >> (64 - index_table_level(table))]);
}

uint64_t index_bytes(const struct index *index)
{
    uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed); /* its size; it is not looked into */
    uint64_t buckets = index_table_size(table) * (table & INDEX_TABLE_SPLITTING ? 3 : 1);

    return (buckets + index_slab_used(&index->slab)) * sizeof(struct index_bucket);
}

void index_count(struct index *index, struct index_counts *ret_counts)
{
    pthread_mutex_lock(&index->tables_lock);
    /* Under the lock no table is unmapped. acquire: pairs with begin_growth(), which set `next` before. */
    uint64_t table = atomic_load_explicit(&index->table, memory_order_acquire);
    /* relaxed: ordered by the load of `table` */
    uint64_t next = table & INDEX_TABLE_SPLITTING ? atomic_load_explicit(&index->next, memory_order_relaxed) : 0;

    ret_counts->buckets = index_table_size(table);
    ret_counts->next_buckets = next ? index_table_size(next) : 0;
    ret_counts->overflow_buckets = index_slab_in_use(&index->slab);
    ret_counts->memory_bytes = sizeof(*index) + table_resident_bytes(table) + (next ? table_resident_bytes(next) : 0) +
                               index_slab_used(&index->slab) * sizeof(struct index_bucket);
    pthread_mutex_unlock(&index->tables_lock);
}
