// SPDX-License-Identifier: MIT
/*
 * index: see index.h for the layout and the promises; index_slab.h for overflow buckets; index_image.c
 * for images.
 *
 * An entry's life:
 *
 *     0 --entry_claim()--> tentative --entry_settle()--> used, for ever; the owner of the log changes
 *     ^                        |                         its address by CAS
 *     +-----entry_yield()------+
 *
 * Two threads that create the same tag in one chain may take two free slots. Each marks its own
 * tentative (seq_cst CAS) and then reads the whole chain (seq_cst loads): in the total order of these
 * accesses the later of the two CASes is before its thread's reading, so at least one of them sees the
 * other and yields; if both do, both yield, and try again after pauses that differ. The same holds for
 * a slot in an overflow bucket that is linked meanwhile, since the link is seq_cst as well: whoever
 * misses the link read it before it was made, hence before the other's CAS and the other's reading.
 *
 * A chain grows at its end only. A thread that loses the race to append links its bucket behind the
 * winner's: no bucket is ever given back, each is linked once, and there can be no loop.
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

int index_open(uint64_t buckets, struct index **ret_index)
{
    if (buckets < INDEX_BUCKETS_MIN || buckets > INDEX_BUCKETS_MAX || (buckets & (buckets - 1)) != 0) {
        return -EINVAL;
    }
    struct index *index = malloc(sizeof(*index));

    if (!index) {
        return -ENOMEM;
    }
    index->mask = buckets - 1;
    index->table_bytes = buckets * sizeof(struct index_bucket);
    index->table = table_map(index->table_bytes);
    if (!index->table) {
        free(index);
        return -ENOMEM;
    }
    index_slab_init(&index->slab);
    *ret_index = index;
    return 0;
}

void index_close(struct index *index)
{
    if (!index) {
        return;
    }
    index_slab_fini(&index->slab);
    munmap(index->table, index->table_bytes);
    free(index);
}

static inline struct index_bucket *first_bucket(const struct index *index, uint64_t hash)
{
    return &index->table[hash & index->mask];
}

/* The next bucket of the chain or NULL. `order` is acquire: the bucket's memory is there; or seq_cst, see
 * the file header. Both pair with the CAS in chain_append(). */
static inline struct index_bucket *next_bucket(const struct index *index, struct index_bucket *bucket,
                                               memory_order order)
{
    uint64_t number = atomic_load_explicit(&bucket->overflow, order);

    return number ? index_slab_at(&index->slab, number) : NULL;
}

static inline bool is_used_with(uint64_t entry, uint64_t tag)
{
    return (entry & (INDEX_TENTATIVE | INDEX_TAG_MASK)) == tag && index_address(entry) != 0;
}

index_slot *index_find(struct index *index, uint64_t hash)
{
    uint64_t tag = index_tag(hash);
    struct index_bucket *bucket = first_bucket(index, hash);

    do {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            /* relaxed: only the slot is given away; the caller loads its address with acquire, and
             * gets this value or a newer one */
            if (is_used_with(atomic_load_explicit(&bucket->entries[i], memory_order_relaxed), tag)) {
                return &bucket->entries[i];
            }
        }
        bucket = next_bucket(index, bucket, memory_order_acquire);
    } while (bucket);
    return NULL;
}

struct chain {
    index_slot *match;         /* a used entry of the tag, or NULL: then the rest is set */
    index_slot *free;          /* the first free entry, or NULL */
    struct index_bucket *last; /* the last bucket */
};

static struct chain chain_read(struct index *index, uint64_t hash)
{
    struct chain chain = {0};
    uint64_t tag = index_tag(hash);

    for (struct index_bucket *bucket = first_bucket(index, hash); bucket;
         bucket = next_bucket(index, bucket, memory_order_acquire)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            /* relaxed: as in index_find(); a stale free slot fails the CAS, a missed match is a rival */
            uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_relaxed);

            if (is_used_with(entry, tag)) {
                chain.match = &bucket->entries[i];
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

/* Is the tag anywhere in the chain but in `mine`, tentative or not? seq_cst: see the file header; pairs
 * with entry_claim() and chain_append() of others. */
static bool chain_has_rival(struct index *index, uint64_t hash, const index_slot *mine)
{
    uint64_t tag = index_tag(hash);

    for (struct index_bucket *bucket = first_bucket(index, hash); bucket;
         bucket = next_bucket(index, bucket, memory_order_seq_cst)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_seq_cst);

            if (entry != 0 && (entry & INDEX_TAG_MASK) == tag && &bucket->entries[i] != mine) {
                return true;
            }
        }
    }
    return false;
}

/* Makes the chain longer, or finds that somebody did. -ENOMEM. */
static int chain_append(struct index *index, struct index_bucket *last)
{
    uint64_t number;
    int r = index_slab_get(&index->slab, &number);

    if (r < 0) {
        /* relaxed: the chain is read again; a stale 0 is an error a moment early */
        return atomic_load_explicit(&last->overflow, memory_order_relaxed) != 0 ? 0 : r;
    }
    for (;;) {
        uint64_t next = 0;

        /* seq_cst: see the file header, pairs with chain_has_rival(); as release it publishes the zeroed
         * bucket; acquire on failure for the winner's */
        if (atomic_compare_exchange_strong_explicit(&last->overflow, &next, number, memory_order_seq_cst,
                                                    memory_order_acquire)) {
            return 0;
        }
        last = index_slab_at(&index->slab, next);
    }
}

/* seq_cst: pairs with chain_has_rival() of others. */
static bool entry_claim(index_slot *slot, uint64_t hash)
{
    uint64_t expected = 0;

    return atomic_compare_exchange_strong_explicit(slot, &expected, INDEX_TENTATIVE | index_tag(hash) | INDEX_NONE,
                                                   memory_order_seq_cst, memory_order_relaxed);
}

/* release, both: no reading of the chain moves behind it. A rival that still reads the tentative entry
 * yields, which is right for the one and harmless for the other. */
static void entry_settle(index_slot *slot, uint64_t hash)
{
    atomic_store_explicit(slot, index_tag(hash) | INDEX_NONE, memory_order_release);
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

int index_find_or_create(struct index *index, uint64_t hash, index_slot **ret_slot)
{
    uint64_t seed = (uintptr_t)&seed ^ hash; /* the stack tells threads apart */
    unsigned turn = 0;

    for (;;) {
        struct chain chain = chain_read(index, hash);

        if (chain.match) {
            *ret_slot = chain.match;
            return 0;
        }
        if (!chain.free) {
            int r = chain_append(index, chain.last);

            if (r < 0) {
                return r;
            }
            continue;
        }
        if (!entry_claim(chain.free, hash)) {
            continue;
        }
        if (!chain_has_rival(index, hash, chain.free)) {
            entry_settle(chain.free, hash);
            *ret_slot = chain.free;
            return 0;
        }
        entry_yield(chain.free);
        back_off(&seed, turn++);
    }
}

void index_prefetch(const struct index *index, uint64_t hash)
{
    __builtin_prefetch(first_bucket(index, hash));
}

/* Bytes of the table that are in memory; all of them if the kernel does not say. */
static uint64_t table_resident_bytes(const struct index *index)
{
    unsigned char in_memory[4096];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), step = page * sizeof(in_memory), pages = 0;

    for (uint64_t at = 0; at < index->table_bytes; at += step) {
        uint64_t bytes = index->table_bytes - at < step ? index->table_bytes - at : step;

        if (mincore((char *)index->table + at, bytes, in_memory) < 0) {
            return index->table_bytes;
        }
        for (uint64_t i = 0; i < (bytes + page - 1) / page; i++) {
            pages += in_memory[i] & 1u;
        }
    }
    return pages * page;
}

void index_count(const struct index *index, struct index_counts *ret_counts)
{
    uint64_t overflow = index_slab_used(&index->slab);

    ret_counts->buckets = index->mask + 1;
    ret_counts->overflow_buckets = overflow;
    ret_counts->memory_bytes = sizeof(*index) + table_resident_bytes(index) + overflow * sizeof(struct index_bucket);
}
