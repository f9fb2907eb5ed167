// SPDX-License-Identifier: MIT
/* index_slab: see index_slab.h. Groups and slabs are mappings of 64 KiB, zero and untouched until used. */
#include "index_slab.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

_Static_assert(sizeof(struct index_slab_group) == INDEX_SLAB_BYTES, "groups and slabs are of one size");

static void *map_zeroed(void)
{
    void *memory = mmap(NULL, INDEX_SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

void index_slab_init(struct index_slab *slab)
{
    for (uint32_t i = 0; i < INDEX_GROUPS; i++) {
        atomic_init(&slab->groups[i], NULL);
    }
    atomic_init(&slab->used, 0);
    atomic_init(&slab->limit, INDEX_SLAB_MAX);
    atomic_init(&slab->free, 0);
    atomic_init(&slab->free_count, 0);
}

/* relaxed throughout: the caller is alone, and whatever made it so orders the others' writes */
void index_slab_fini(struct index_slab *slab)
{
    for (uint32_t i = 0; i < INDEX_GROUPS; i++) {
        struct index_slab_group *group = atomic_load_explicit(&slab->groups[i], memory_order_relaxed);

        for (uint32_t k = 0; group && k < INDEX_GROUP_SLABS; k++) {
            struct index_bucket *buckets = atomic_load_explicit(&group->slabs[k], memory_order_relaxed);

            if (!buckets) { /* a slab is mapped after those before it */
                break;
            }
            munmap(buckets, INDEX_SLAB_BYTES);
        }
        if (group) {
            munmap(group, INDEX_SLAB_BYTES);
        }
    }
}

static struct index_slab_group *group_ensure(struct index_slab *slab, uint64_t i)
{
    /* acquire: pairs with the CAS below, of another thread */
    struct index_slab_group *group = atomic_load_explicit(&slab->groups[i], memory_order_acquire);

    if (group) {
        return group;
    }
    struct index_slab_group *mine = map_zeroed();

    if (!mine) {
        return NULL;
    }
    /* release publishes the zeroed memory; acquire on failure as above */
    if (!atomic_compare_exchange_strong_explicit(&slab->groups[i], &group, mine, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        munmap(mine, INDEX_SLAB_BYTES);
        return group;
    }
    return mine;
}

/* Memory for bucket index i (number - 1). */
static bool slab_ensure(struct index_slab *slab, uint64_t i)
{
    uint64_t n = i / INDEX_SLAB_BUCKETS;
    struct index_slab_group *group = group_ensure(slab, n / INDEX_GROUP_SLABS);

    if (!group) {
        return false;
    }
    _Atomic(struct index_bucket *) *place = &group->slabs[n % INDEX_GROUP_SLABS];
    struct index_bucket *buckets = NULL;

    if (atomic_load_explicit(place, memory_order_acquire)) { /* pairs with the CAS below */
        return true;
    }
    struct index_bucket *mine = map_zeroed();

    if (!mine) {
        return false;
    }
    /* release publishes the zeroed memory, acquire on failure that of the winner */
    if (!atomic_compare_exchange_strong_explicit(place, &buckets, mine, memory_order_acq_rel, memory_order_acquire)) {
        munmap(mine, INDEX_SLAB_BYTES);
    }
    return true;
}

#define FREE_NUMBER UINT64_C(0xffffffff)
_Static_assert(INDEX_SLAB_MAX <= FREE_NUMBER, "a number has half of the word");

/* 0: none is free. */
static uint64_t free_take(struct index_slab *slab)
{
    uint64_t head = atomic_load_explicit(&slab->free, memory_order_acquire); /* pairs with index_slab_put() */

    while (head & FREE_NUMBER) {
        struct index_bucket *bucket = index_slab_at(slab, head & FREE_NUMBER);
        /* relaxed: ordered by the load of `free`. If others took it meanwhile this is any word of theirs, and
         * the CAS fails. */
        uint64_t next = atomic_load_explicit(&bucket->overflow, memory_order_relaxed) & FREE_NUMBER;

        /* acquire, both: pairs with index_slab_put(), whose caller's last accesses are before ours */
        if (atomic_compare_exchange_weak_explicit(&slab->free, &head, ((head | FREE_NUMBER) + 1) | next,
                                                  memory_order_acquire, memory_order_acquire)) {
            atomic_fetch_sub_explicit(&slab->free_count, 1, memory_order_relaxed); /* a statistic */
            return head & FREE_NUMBER;
        }
    }
    return 0;
}

void index_slab_put(struct index_slab *slab, uint64_t number)
{
    struct index_bucket *bucket = index_slab_at(slab, number);
    uint64_t head = atomic_load_explicit(&slab->free, memory_order_relaxed); /* the CAS checks it */

    /* before, so that it does not fall below what is taken; relaxed: a statistic */
    atomic_fetch_add_explicit(&slab->free_count, 1, memory_order_relaxed);
    do {
        /* relaxed: published by the CAS */
        atomic_store_explicit(&bucket->overflow, head & FREE_NUMBER, memory_order_relaxed);
        /* release: pairs with free_take(); all that was done with the bucket is before */
    } while (!atomic_compare_exchange_weak_explicit(&slab->free, &head, (head & ~FREE_NUMBER) | number,
                                                    memory_order_release, memory_order_relaxed));
}

/* relaxed: nobody else has the bucket; who links it publishes this */
static void bucket_clear(struct index_bucket *bucket)
{
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        atomic_store_explicit(&bucket->entries[i], 0, memory_order_relaxed);
    }
    atomic_store_explicit(&bucket->overflow, 0, memory_order_relaxed);
}

int index_slab_get(struct index_slab *slab, uint64_t *ret_number)
{
    uint64_t number = free_take(slab);

    if (number) {
        bucket_clear(index_slab_at(slab, number));
        *ret_number = number;
        return 0;
    }
    uint64_t used = atomic_load_explicit(&slab->used, memory_order_relaxed); /* the CAS checks it */

    do {
        /* relaxed: set before the threads start, by tests */
        if (used >= atomic_load_explicit(&slab->limit, memory_order_relaxed) || !slab_ensure(slab, used)) {
            return -ENOMEM;
        }
        /* release: pairs with index_slab_used(); the memory is there */
    } while (!atomic_compare_exchange_weak_explicit(&slab->used, &used, used + 1, memory_order_release,
                                                    memory_order_relaxed));
    *ret_number = used + 1;
    return 0;
}

int index_slab_extend(struct index_slab *slab, uint64_t count)
{
    assert(index_slab_used(slab) == 0);
    if (count > atomic_load_explicit(&slab->limit, memory_order_relaxed)) { /* relaxed: as above */
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < count; i += INDEX_SLAB_BUCKETS) {
        if (!slab_ensure(slab, i)) {
            return -ENOMEM;
        }
    }
    atomic_store_explicit(&slab->used, count, memory_order_release); /* alone; pairs with later gets */
    return 0;
}
