// SPDX-License-Identifier: MIT
/* Tests of store/src/index.h: the index in memory. Images: test_index_image.c. */
#include "index_tests.h"

#include <errno.h>
#include <pthread.h>

enum { THREADS = 4 };

/* ---- in memory ---------------------------------------------------------------------------------- */

START_TEST(open_takes_powers_of_two_from_64)
{
    static const uint64_t bad[] = {0, 1, 32, 63, 65, 96, 1000, (UINT64_C(1) << 40) + 1, UINT64_C(1) << 41};
    struct index *index = NULL;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(index_open(bad[i], 19, NULL, &index), -EINVAL);
        ck_assert_ptr_null(index);
    }
    for (uint64_t buckets = 64; buckets <= UINT64_C(1) << 20; buckets *= 2) {
        index = open_index(buckets);
        ck_assert_ptr_null(find(index, 12345));
        create(index, buckets - 1);
        create(index, UINT64_MAX);
        ck_assert_uint_eq(check_index(index), 2);
        index_close(index);
    }
    index_close(NULL);
}
END_TEST

START_TEST(an_empty_index_costs_little)
{
    struct index *index = open_index(UINT64_C(1) << 18); /* 16 MiB */
    struct index_counts counts;

    index_count(index, &counts);
    ck_assert_uint_eq(counts.buckets, UINT64_C(1) << 18);
    ck_assert_uint_eq(counts.overflow_buckets, 0);
    ck_assert_uint_lt(counts.memory_bytes, 65536);
    create(index, 1);
    index_count(index, &counts);
    ck_assert_uint_ge(counts.memory_bytes, 4096);
    ck_assert_uint_lt(counts.memory_bytes, 65536);
    index_close(index);
}
END_TEST

/* Differential: a plain array by (bucket, tag). `tags` below 2^14 makes keys share entries. */
static void compare_with_an_array(uint64_t buckets, uint64_t tags, int steps)
{
    struct index *index = open_index(buckets);
    uint64_t *model = calloc(buckets * tags, sizeof(*model)); /* address; 0: no entry */
    uint64_t state = seed, entries = 0;

    for (int step = 0; step < steps; step++) {
        uint64_t r = next_random(&state), bucket = r % buckets, tag = (r >> 32) % tags;
        uint64_t hash = make_hash(buckets, bucket, tag, next_random(&state));
        uint64_t *want = &model[bucket * tags + tag];
        index_slot *slot = find(index, hash);

        MUST((slot != NULL) == (*want != 0));
        MUST(!slot || atomic_load(slot) == make_entry(tag, *want));
        if (r >> 63) {
            index_slot *made = create(index, hash);

            MUST(!slot || slot == made);
            MUST(slot || index_address(atomic_load(made)) == INDEX_NONE);
            entries += slot == NULL;
            *want = *want ? 2 + (next_random(&state) & (INDEX_ADDRESS_MASK >> 1)) : INDEX_NONE;
            set_address(made, *want);
        }
    }
    ck_assert_uint_eq(check_index(index), entries);
    free(model);
    index_close(index);
}

START_TEST(index_agrees_with_an_array)
{
    compare_with_an_array(1024, TAGS / 16, 400000);
}
END_TEST

START_TEST(index_agrees_with_an_array_in_long_chains)
{
    compare_with_an_array(64, TAGS / 64, 200000);
}
END_TEST

START_TEST(index_agrees_with_an_array_when_tags_collide)
{
    compare_with_an_array(64, 3, 20000);
}
END_TEST

START_TEST(a_locked_entry_is_found_and_a_tentative_one_is_not)
{
    struct index *index = open_index(64);
    index_slot *slot = create(index, 5);

    atomic_store(slot, atomic_load(slot) | INDEX_LOCKED);
    ck_assert_ptr_eq(find(index, 5), slot);
    ck_assert_ptr_eq(create(index, 5), slot);
    atomic_store(slot, INDEX_TENTATIVE | make_entry(0, INDEX_NONE));
    ck_assert_ptr_null(find(index, 5));
    atomic_store(slot, 0);
    ck_assert_ptr_null(find(index, 5)); /* tag 0 is not a free entry */
    index_close(index);
}
END_TEST

START_TEST(without_memory_for_overflow_nothing_changes)
{
    struct index *index = open_index(64);
    index_slot *slot = NULL;
    uint64_t entry = 0;

    atomic_store(&index->slab.limit, 2);
    for (uint64_t tag = 0; tag < 21; tag++) {
        create(index, make_hash(64, 3, tag, 0));
    }
    for (uint64_t tag = 21; tag < 30; tag++) {
        ck_assert_int_eq(index_find_or_create(index, make_hash(64, 3, tag, 0), &slot, &entry), -ENOMEM);
        ck_assert(!slot && !entry);
        ck_assert_ptr_null(find(index, make_hash(64, 3, tag, 0)));
    }
    ck_assert_uint_eq(check_index(index), 21);
    create(index, make_hash(64, 3, 20, 0));
    create(index, make_hash(64, 4, 0, 0));
    atomic_store(&index->slab.limit, 3);
    create(index, make_hash(64, 3, 21, 0));
    ck_assert_uint_eq(check_index(index), 23);
    index_close(index);
}
END_TEST

/* ---- many threads create the same entries --------------------------------------------------------- */

struct race {
    struct index *index;
    uint64_t buckets, tags, rounds;
    index_slot **slots; /* by thread and round: what find_or_create gave */
    pthread_barrier_t barrier;
};

struct racer {
    struct race *race;
    uint64_t id, failed;
};

static uint64_t race_hash(const struct race *race, uint64_t round)
{
    uint64_t r = seed + round;

    r = next_random(&r);
    return make_hash(race->buckets, r % race->buckets, (r >> 32) % race->tags, r >> 20);
}

/* All threads create the same 64 hashes at once, each in another order of neighbours. */
static void *race_create(void *arg)
{
    struct racer *me = arg;
    struct race *race = me->race;

    for (uint64_t round = 0; round < race->rounds; round++) {
        if (round % 64 == 0) {
            pthread_barrier_wait(&race->barrier);
        }
        uint64_t mine = round ^ (me->id & (round >> 6) & 3);
        index_slot **slot = &race->slots[me->id * race->rounds + mine];
        uint64_t entry = 0;
        int r = index_find_or_create(race->index, race_hash(race, mine), slot, &entry);

        me->failed += r < 0;
        me->failed += r == 0 && (entry == 0 || find(race->index, race_hash(race, mine)) != *slot);
    }
    return NULL;
}

static void run_race(uint64_t buckets, uint64_t tags, uint64_t rounds, uint64_t limit)
{
    struct race race = {open_index(buckets), buckets, tags, rounds, NULL, {{0}}};
    struct racer racers[THREADS];
    pthread_t threads[THREADS];
    uint64_t failed = 0;

    race.slots = calloc(THREADS * rounds, sizeof(*race.slots));
    atomic_store(&race.index->slab.limit, limit);
    pthread_barrier_init(&race.barrier, NULL, THREADS);
    for (uint64_t i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){&race, i, 0};
        pthread_create(&threads[i], NULL, race_create, &racers[i]);
    }
    for (uint64_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        failed += racers[i].failed;
    }
    check_index(race.index);
    for (uint64_t k = 0; k < THREADS * rounds; k++) {
        MUST(!race.slots[k] || race.slots[k] == find(race.index, race_hash(&race, k % rounds)));
    }
    ck_assert(limit == INDEX_SLAB_MAX ? failed == 0 : failed > 0);
    pthread_barrier_destroy(&race.barrier);
    free(race.slots);
    index_close(race.index);
}

START_TEST(threads_that_create_the_same_keys_get_the_same_entries)
{
    for (int i = 0; i < 20; i++, seed++) {
        run_race(64, TAGS, 64 * 64, INDEX_SLAB_MAX);
    }
    run_race(4096, TAGS, 64 * 2048, INDEX_SLAB_MAX);
}
END_TEST

START_TEST(threads_that_run_out_of_overflow_make_no_entry_twice)
{
    run_race(64, TAGS, 64 * 128, 100);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("index");

    tcase_add_test(tcase, open_takes_powers_of_two_from_64);
    tcase_add_test(tcase, an_empty_index_costs_little);
    tcase_add_test(tcase, index_agrees_with_an_array);
    tcase_add_test(tcase, index_agrees_with_an_array_in_long_chains);
    tcase_add_test(tcase, index_agrees_with_an_array_when_tags_collide);
    tcase_add_test(tcase, a_locked_entry_is_found_and_a_tentative_one_is_not);
    tcase_add_test(tcase, without_memory_for_overflow_nothing_changes);
    tcase_add_test(tcase, threads_that_create_the_same_keys_get_the_same_entries);
    tcase_add_test(tcase, threads_that_run_out_of_overflow_make_no_entry_twice);
    return run_tests(tcase);
}
