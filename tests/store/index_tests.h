// SPDX-License-Identifier: MIT
/* What the tests of the index share. TEST_SEED=n repeats a run. */
#ifndef TESTS_STORE_INDEX_TESTS_H
#define TESTS_STORE_INDEX_TESTS_H

#include "index.h"
#include "index_private.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TAGS (UINT64_C(1) << 14)

/* For loops: ck_assert writes to a pipe each time. */
#define MUST(x) ((x) ? (void)0 : ck_abort_msg("line %d: %s", __LINE__, #x))

static uint64_t seed;

static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* A hash with this bucket (of a table of `buckets`) and tag, and noise in the bits that do not count. */
static inline uint64_t make_hash(uint64_t buckets, uint64_t bucket, uint64_t tag, uint64_t noise)
{
    return tag << 50 | ((noise << 40) & ((UINT64_C(1) << 50) - 1) & ~(buckets - 1)) | bucket;
}

static inline struct index *open_index(uint64_t buckets)
{
    struct index *index;

    ck_assert_int_eq(index_open(buckets, &index), 0);
    return index;
}

static inline index_slot *create(struct index *index, uint64_t hash)
{
    index_slot *slot;

    MUST(index_find_or_create(index, hash, &slot) == 0);
    return slot;
}

static inline void set_address(index_slot *slot, uint64_t address)
{
    uint64_t entry = atomic_load(slot);

    while (!atomic_compare_exchange_weak(slot, &entry, index_entry_with(entry, address))) {
    }
}

/* Invariant 1, and that nothing is left tentative. Returns the entries in use. */
static inline uint64_t check_index(struct index *index)
{
    uint64_t entries = 0, stamp = 0;
    uint64_t *seen = calloc(TAGS, sizeof(*seen)); /* tag -> the bucket (from 1) where it was last */

    MUST(seen);
    for (struct index_bucket *first = index->table; first <= &index->table[index->mask]; first++) {
        stamp++;
        for (struct index_bucket *b = first; b; b = b->overflow ? index_slab_at(&index->slab, b->overflow) : NULL) {
            for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
                uint64_t entry = b->entries[i], tag = (entry & INDEX_TAG_MASK) >> INDEX_TAG_SHIFT;

                MUST(!(entry & INDEX_TENTATIVE));
                if (entry != 0) {
                    MUST(index_address(entry) != 0 && seen[tag] != stamp);
                    seen[tag] = stamp;
                    entries++;
                }
            }
        }
    }
    free(seen);
    return entries;
}

/* Runs the tests of the case, prints the seed. The exit status. */
static inline int run_tests(TCase *tcase)
{
    const char *given = getenv("TEST_SEED");
    Suite *suite = suite_create("index");
    SRunner *runner = srunner_create(suite);

    setvbuf(stdout, NULL, _IOLBF, 0);
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    printf("TEST_SEED=%llu\n", (unsigned long long)seed);
    tcase_set_timeout(tcase, 300);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
