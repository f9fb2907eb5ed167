// SPDX-License-Identifier: MIT
/* cache: see cache.h. */
#include "cache.h"

#include <errno.h>
#include <sys/mman.h>

#define SLOTS 8u            /* in a bucket: a line of memory */
#define BYTES_PER_SLOT 128u /* the table is a sixteenth of the ring */
#define POSITION_MASK ((UINT64_C(1) << 48) - 1)

/* A copy in the ring. Its position is never 0: the ring begins to be used at FIRST. */
struct copy {
    uint64_t address; /* in the log */
    struct record record;
};
#define COPY_HEADER 8u
#define HEAD_BIT 1u /* of an address, which is a multiple of 8: the head of the record that is there */
#define FIRST 64u
static_assert(offsetof(struct copy, record) == COPY_HEADER, "copy layout");

static void *map_zeroed(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

int cache_open(struct cache *cache, uint64_t size, struct epoch *epoch)
{
    *cache = (struct cache){.size = size, .epoch = epoch, .buckets = size / BYTES_PER_SLOT / SLOTS};
    if (size == 0)
        return 0;
    cache->ring = map_zeroed(size);
    cache->slots = map_zeroed(cache->buckets * SLOTS * sizeof *cache->slots);
    if (!cache->ring || !cache->slots) {
        cache_close(cache);
        return -ENOMEM;
    }
    pthread_mutex_init(&cache->evict_lock, NULL);
    cache->head = cache->safe_head = cache->tail = FIRST;
    cache->limit = size;
    return 0;
}

void cache_close(struct cache *cache)
{
    if (cache->size == 0)
        return;
    if (cache->ring)
        munmap(cache->ring, cache->size);
    if (cache->slots)
        munmap((void *)(uintptr_t)cache->slots, cache->buckets * SLOTS * sizeof *cache->slots);
    if (cache->ring && cache->slots)
        pthread_mutex_destroy(&cache->evict_lock);
    cache->size = 0;
}

static struct copy *copy_at(const struct cache *cache, uint64_t position)
{
    return (struct copy *)(void *)(cache->ring + (position & (cache->size - 1)));
}

static uint64_t copy_bytes(uint64_t address, const struct record *r)
{
    return address & HEAD_BIT ? record_head_bytes(record_key_len(r), r->capacity) : record_used_bytes(r);
}

static uint64_t hash_address(uint64_t address)
{
    return address * UINT64_C(0x9e3779b97f4a7c15);
}

static _Atomic uint64_t *bucket_of(const struct cache *cache, uint64_t hash)
{
    return &cache->slots[(hash >> 16) % cache->buckets * SLOTS];
}

static uint64_t tag_of(uint64_t hash)
{
    return hash << 48;
}

/* ---- room ----------------------------------------------------------------------------------------- */

static uint64_t limit_of(const struct cache *cache)
{
    return atomic_load_explicit(&cache->limit, memory_order_relaxed);
}

/* Takes room that there is; 0 if there is none. A copy does not cross the ring's end. */
static uint64_t reserve(struct cache *cache, uint64_t bytes)
{
    uint64_t tail = atomic_load_explicit(&cache->tail, memory_order_relaxed); /* the CAS decides */

    for (;;) {
        uint64_t at = tail, left = cache->size - (tail & (cache->size - 1));
        if (bytes > left)
            at = tail + left;
        /* acquire: pairs with the store in evict(): what was read in the old frames happened before */
        if (at + bytes > atomic_load_explicit(&cache->safe_head, memory_order_acquire) + limit_of(cache))
            return 0;
        if (atomic_compare_exchange_weak_explicit(&cache->tail, &tail, at + bytes, memory_order_relaxed,
                                                  memory_order_relaxed))
            return at;
    }
}

/* The frames of [from, to), which nobody looks at and nobody can reserve yet; whole pages, but for the ring's first. */
static void give_back(struct cache *cache, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t at = from & (cache->size - 1), len = to - from < cache->size - at ? to - from : cache->size - at;
        (void)madvise(cache->ring + at, len, MADV_DONTNEED); /* else they stay, and are used again */
        from += len;
    }
}

/* Keeps an eighth of the ring free, unless somebody is doing that already. Outside epochs. */
static void evict(struct cache *cache)
{
    uint64_t tail = atomic_load_explicit(&cache->tail, memory_order_relaxed), limit = limit_of(cache); /* about */

    if (tail + limit / 8 <= atomic_load_explicit(&cache->safe_head, memory_order_relaxed) + limit ||
        pthread_mutex_trylock(&cache->evict_lock) != 0)
        return;
    uint64_t keep = limit - limit / 4, before = atomic_load(&cache->head);
    uint64_t head = tail > keep ? (tail - keep) & ~UINT64_C(4095) : 0;
    if (head > before) {
        atomic_store(&cache->head, head);
        epoch_synchronize(cache->epoch); /* nobody looks at anything below head any more */
        if (limit < cache->size)
            give_back(cache, before & ~UINT64_C(4095), head);
        atomic_store_explicit(&cache->safe_head, head, memory_order_release);
    }
    pthread_mutex_unlock(&cache->evict_lock);
}

/* ---- finding and keeping ---------------------------------------------------------------------------- */

/* Inside an epoch: puts a copy where there is room, in place of `*slot` (which was `expected`) or of a slot that is the
 * least loss. */
static void put(struct cache *cache, uint64_t address, const struct record *record, uint64_t bytes)
{
    uint64_t hash = hash_address(address), head = atomic_load(&cache->head), oldest = UINT64_MAX, expected = 0;
    _Atomic uint64_t *bucket = bucket_of(cache, hash), *slot = bucket;
    uint64_t at = reserve(cache, COPY_HEADER + round_up(bytes, 8));

    if (at == 0)
        return;
    struct copy *copy = copy_at(cache, at);
    copy->address = address;
    memcpy(&copy->record, record, bytes);
    for (unsigned i = 0; i < SLOTS; i++) {
        uint64_t seen = atomic_load_explicit(&bucket[i], memory_order_relaxed); /* the CAS decides */
        uint64_t position = seen & POSITION_MASK;
        bool same = position >= head && seen >> 48 == tag_of(hash) >> 48;
        if (same || position < oldest) {
            slot = &bucket[i];
            expected = seen;
            oldest = same ? 0 : position;
        }
    }
    /* release: whoever finds the copy sees all of it. A rival in the slot is as good as we. */
    (void)atomic_compare_exchange_strong_explicit(slot, &expected, tag_of(hash) | at, memory_order_release,
                                                  memory_order_relaxed);
}

static struct record *find(struct cache *cache, uint64_t address)
{
    if (cache->size == 0)
        return NULL;
    uint64_t hash = hash_address(address), head = atomic_load(&cache->head);
    _Atomic uint64_t *bucket = bucket_of(cache, hash);

    for (unsigned i = 0; i < SLOTS; i++) {
        uint64_t seen = atomic_load_explicit(&bucket[i], memory_order_acquire); /* pairs with put() */
        uint64_t position = seen & POSITION_MASK;
        if (position < head || seen >> 48 != tag_of(hash) >> 48)
            continue;
        struct copy *copy = copy_at(cache, position);
        if (copy->address != address)
            continue;
        /* Old by now: relaxed, about. */
        if (position + cache->size / 2 < atomic_load_explicit(&cache->tail, memory_order_relaxed))
            put(cache, address, &copy->record, copy_bytes(address, &copy->record));
        return &copy->record;
    }
    return NULL;
}

static void insert(struct cache *cache, struct epoch_slot *slot, uint64_t address, const struct record *record)
{
    uint64_t bytes = copy_bytes(address, record);

    if (COPY_HEADER + bytes > cache->size / 16)
        return;
    evict(cache);
    epoch_enter(cache->epoch, slot);
    put(cache, address, record, bytes);
    epoch_leave(slot);
}

struct record *cache_find(struct cache *cache, uint64_t address)
{
    return find(cache, address);
}

const struct record *cache_find_head(struct cache *cache, uint64_t address)
{
    return find(cache, address | HEAD_BIT);
}

void cache_insert(struct cache *cache, struct epoch_slot *slot, uint64_t address, const struct record *record)
{
    insert(cache, slot, address, record);
}

void cache_insert_head(struct cache *cache, struct epoch_slot *slot, uint64_t address, const struct record *record)
{
    insert(cache, slot, address | HEAD_BIT, record);
}

void cache_limit(struct cache *cache, uint64_t bytes)
{
    if (cache->size > 0) {
        atomic_store_explicit(&cache->limit, bytes < cache->size ? bytes : cache->size, memory_order_relaxed);
        evict(cache);
    }
}

uint64_t cache_bytes(const struct cache *cache)
{
    if (cache->size == 0)
        return 0;
    uint64_t used = atomic_load_explicit(&cache->tail, memory_order_relaxed), limit = limit_of(cache);

    return (used < limit ? used : limit) + cache->buckets * SLOTS * sizeof *cache->slots;
}
