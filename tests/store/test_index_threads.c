// SPDX-License-Identifier: MIT
/* Tests of store/src/index.h: growth, sweep and save beside operations of several threads. */
#include "index_tests.h"

#include <pthread.h>

/* ---- the free list ------------------------------------------------------------------------------------- */

enum { SLAB_THREADS = 4, SLAB_HELD = 8, SLAB_ROUNDS = 100000 };

static void *get_and_put(void *arg)
{
    struct index_slab *slab = arg;
    uint64_t held[SLAB_HELD] = {0}, state = (uintptr_t)held, mine = (uintptr_t)held;

    for (int round = 0; round < SLAB_ROUNDS; round++) {
        uint64_t *number = &held[next_random(&state) % SLAB_HELD];

        if (*number) {
            MUST(atomic_load(&index_slab_at(slab, *number)->entries[3]) == mine); /* nobody else has it */
            index_slab_put(slab, *number);
            *number = 0;
        } else {
            MUST(index_slab_get(slab, number) == 0);
            MUST(atomic_load(&index_slab_at(slab, *number)->entries[3]) == 0);
            atomic_store(&index_slab_at(slab, *number)->entries[3], mine);
        }
    }
    for (int i = 0; i < SLAB_HELD; i++) {
        if (held[i]) {
            index_slab_put(slab, held[i]);
        }
    }
    return NULL;
}

START_TEST(a_free_bucket_is_handed_out_once)
{
    struct index_slab *slab = malloc(sizeof(*slab));
    pthread_t threads[SLAB_THREADS];

    index_slab_init(slab);
    for (int i = 0; i < SLAB_THREADS; i++) {
        pthread_create(&threads[i], NULL, get_and_put, slab);
    }
    for (int i = 0; i < SLAB_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_uint_eq(index_slab_in_use(slab), 0);
    ck_assert_uint_le(index_slab_used(slab), SLAB_THREADS * SLAB_HELD);
    for (uint64_t n = index_slab_used(slab), number; n > 0; n--) { /* all of them are in the list, once */
        ck_assert_int_eq(index_slab_get(slab, &number), 0);
        ck_assert_uint_eq(atomic_exchange(&index_slab_at(slab, number)->entries[0], 1), 0);
    }
    index_slab_fini(slab);
    free(slab);
}
END_TEST

/* ---- who is inside -------------------------------------------------------------------------------------- */

enum { CHAIN = 30 }; /* a bucket and four of overflow */

struct behind { /* a thread that grows or sweeps behind the back of one inside an epoch */
    struct index *index;
    bool sweep;
    _Atomic bool returned;
};

static void *grow_or_sweep(void *arg)
{
    struct behind *behind = arg;

    if (behind->sweep) {
        index_sweep(behind->index, UINT64_C(1) << 40);
    } else {
        MUST(index_grow(behind->index) == 0);
    }
    atomic_store(&behind->returned, true);
    return NULL;
}

static void stay_inside(bool sweep)
{
    struct behind behind = {open_index(64), sweep, false};
    struct index *index = behind.index;
    index_slot *slots[CHAIN];
    uint64_t entries[CHAIN], entry, hashes[CHAIN], used;
    struct epoch_slot *slot;
    pthread_t thread;

    for (uint64_t i = 0; i < CHAIN; i++) {
        hashes[i] = make_hash(64, 3, i * 128, 0);
        set_address(create(index, hashes[i]), 100 + i);
    }
    used = index_slab_used(&index->slab);
    ck_assert_int_eq(epoch_slot_get(epoch, &slot), 0);
    epoch_enter(epoch, slot);
    for (uint64_t i = 0; i < CHAIN; i++) {
        slots[i] = index_find(index, hashes[i], &entries[i]);
        ck_assert_ptr_nonnull(slots[i]);
    }
    pthread_create(&thread, NULL, grow_or_sweep, &behind);
    while (sweep ? find(index, hashes[CHAIN - 1]) != NULL : atomic_load(&index->split) < 64) {
        sched_yield();
    }
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* it does whatever it does without waiting */
    ck_assert(!atomic_load(&behind.returned));
    ck_assert_uint_eq(index_slab_in_use(&index->slab), index_slab_used(&index->slab)); /* nothing was given back */
    for (uint64_t i = 0; i < CHAIN; i++) {
        uint64_t now = atomic_load(slots[i]);

        ck_assert_uint_eq(now, sweep ? now & INDEX_FROZEN : entries[i] | INDEX_FROZEN);
        ck_assert(!index_try_lock(slots[i], entries[i]));
        ck_assert(sweep || (index_find(index, hashes[i], &entry) != slots[i] && index_address(entry) == 100 + i));
    }
    epoch_leave(slot);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(index_slab_used(&index->slab) - index_slab_in_use(&index->slab), used);
    ck_assert_uint_eq(check_index(index), sweep ? 0 : CHAIN);
    epoch_slot_put(slot);
    index_close(index);
}

START_TEST(a_chain_that_was_split_stays_until_all_inside_have_left)
{
    stay_inside(false);
}
END_TEST

START_TEST(a_bucket_that_was_swept_stays_until_all_inside_have_left)
{
    stay_inside(true);
}
END_TEST

/* ---- everything at once: a small store --------------------------------------------------------------------- */

/* Threads own keys and publish records of them in a log; a record leads to the one that the entry led to before.
 * So however keys share entries, a key's newest record is reached from its entry, or an entry was lost, was there
 * twice, or led elsewhere. The records are plain memory: ThreadSanitizer sees if an entry is passed on without
 * the release that its record needs. */
enum { KEYS = 12288, WORKERS = 3, LOG_RECORDS = 1 << 21, ROUND_MS = 700, ROUNDS = 8, FIRST = 4096 };

struct log_record {
    uint64_t key, before;
};

struct world {
    struct index *index;
    struct log_record *log; /* by address - FIRST */
    _Atomic uint64_t tail, begin;
    _Atomic uint64_t newest[KEYS]; /* address of the newest record; by the key's owner, after it was published */
    uint64_t hashes[KEYS];
    _Atomic bool stop;
    _Atomic uint64_t busy, published, found, grown, swept, saved;
};

struct worker {
    struct world *world;
    uint64_t id;
};

/* The newest record of the key from `address` down, 0: none at or above `begin`. */
static uint64_t walk(const struct world *world, uint64_t key, uint64_t address, uint64_t begin)
{
    while (address >= begin && address > INDEX_NONE && world->log[address - FIRST].key != key) {
        address = world->log[address - FIRST].before;
    }
    return address >= begin && address > INDEX_NONE ? address : 0;
}

static uint64_t look_up(struct world *world, struct epoch_slot *slot, uint64_t key)
{
    uint64_t entry, found = 0;

    epoch_enter(epoch, slot);
    if (index_find(world->index, world->hashes[key], &entry)) {
        found = walk(world, key, index_address(entry), atomic_load_explicit(&world->begin, memory_order_relaxed));
    }
    epoch_leave(slot);
    return found;
}

/* False: busy. */
static bool try_publish(struct world *world, struct epoch_slot *epoch_slot, uint64_t key)
{
    index_slot *slot;
    uint64_t entry;
    bool done = false;

    epoch_enter(epoch, epoch_slot);
    int r = index_find_or_create(world->index, world->hashes[key], &slot, &entry);

    MUST(r == 0 || r == -EAGAIN);
    if (r == 0 && index_try_lock(slot, entry)) {
        uint64_t address = atomic_fetch_add_explicit(&world->tail, 1, memory_order_relaxed);

        MUST(address - FIRST < LOG_RECORDS);
        world->log[address - FIRST] = (struct log_record){key, index_address(entry)};
        if (next_random(&entry) % 512 == 0) {
            sched_yield(); /* the grower meets a locked entry */
        }
        index_publish(slot, address);
        index_unlock(slot);
        atomic_store(&world->newest[key], address);
        done = true;
    }
    epoch_leave(epoch_slot);
    return done;
}

static void *work(void *arg)
{
    struct worker *me = arg;
    struct world *world = me->world;
    uint64_t state = seed + me->id, busy = 0, published = 0, found = 0;
    struct epoch_slot *slot;

    MUST(epoch_slot_get(epoch, &slot) == 0);
    while (!atomic_load_explicit(&world->stop, memory_order_relaxed) &&
           atomic_load_explicit(&world->tail, memory_order_relaxed) - FIRST < LOG_RECORDS - 2 * WORKERS) {
        uint64_t r = next_random(&state), key = r % KEYS;

        if (key % WORKERS == me->id && r >> 63) {
            while (!try_publish(world, slot, key)) {
                busy++;
                sched_yield();
            }
            published++;
        }
        if (r >> 62 & 1) { /* with nothing but the index between the owner's writing and our reading */
            found += look_up(world, slot, key) != 0;
            continue;
        }
        uint64_t newest = atomic_load(&world->newest[key]), at = look_up(world, slot, key);

        found += at != 0;
        if (at == 0) { /* only if it may have been swept */
            MUST(newest == 0 || newest < atomic_load(&world->begin));
        } else {
            MUST(at >= newest && (key % WORKERS != me->id || at == newest));
        }
    }
    epoch_slot_put(slot);
    atomic_fetch_add(&world->busy, busy);
    atomic_fetch_add(&world->published, published);
    atomic_fetch_add(&world->found, found);
    return NULL;
}

static void *grow(void *arg)
{
    struct world *world = arg;
    uint64_t state = seed;

    while (!atomic_load(&world->stop)) {
        int r = index_grow(world->index);

        MUST(r >= 0 || r == -E2BIG || r == -EBUSY);
        atomic_fetch_add(&world->grown, r == 0);
        nanosleep(&(struct timespec){.tv_nsec = (long)(next_random(&state) % (r ? 1000000 : 8000000))}, NULL);
    }
    return NULL;
}

static void save_and_check(struct world *world, uint64_t *before)
{
    for (uint64_t key = 0; key < KEYS; key++) {
        before[key] = atomic_load(&world->newest[key]);
    }
    struct image image = save(world->index);
    struct index_image reader = opened(&image);
    uint64_t begin = atomic_load(&world->begin);

    for (uint64_t key = 0; key < KEYS; key++) {
        uint64_t at = walk(world, key, find_in(&reader, world->hashes[key]), begin);

        MUST(before[key] < begin || at >= before[key]);
    }
    free(image.bytes);
}

static void *sweep_and_save(void *arg)
{
    struct world *world = arg;
    uint64_t state = seed + 77, *before = calloc(KEYS, sizeof(*before));

    for (unsigned n = 1; !atomic_load(&world->stop); n++) {
        uint64_t tail = atomic_load(&world->tail), window = next_random(&state) % (2 * KEYS);

        if (tail - FIRST > window && tail - window > atomic_load(&world->begin)) {
            atomic_store(&world->begin, tail - window);
        }
        index_sweep(world->index, atomic_load(&world->begin));
        atomic_fetch_add(&world->swept, 1);
        if (n % 4 == 0) {
            save_and_check(world, before);
            atomic_fetch_add(&world->saved, 1);
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)(next_random(&state) % 10000000)}, NULL);
    }
    free(before);
    return NULL;
}

/* A third of the keys shares entries with others: the same first 19 bits, or 14 of them. */
static void make_hashes(struct world *world)
{
    uint64_t state = seed;

    for (uint64_t key = 0; key < KEYS; key++) {
        uint64_t r = next_random(&state), other = world->hashes[key / 2];

        world->hashes[key] = key % 6 == 5   ? first_bits(other, 19) | r >> 19
                             : key % 6 == 4 ? first_bits(other, 14) | (r & 0xff) << 40
                                            : r;
    }
}

static uint64_t run_world(uint64_t buckets)
{
    struct world *world = calloc(1, sizeof(*world));
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS + 2];

    world->index = open_index(buckets);
    world->log = calloc(LOG_RECORDS, sizeof(*world->log));
    world->tail = world->begin = FIRST;
    make_hashes(world);
    for (uint64_t i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){world, i};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    pthread_create(&threads[WORKERS], NULL, grow, world);
    pthread_create(&threads[WORKERS + 1], NULL, sweep_and_save, world);
    nanosleep(&(struct timespec){.tv_nsec = ROUND_MS * 1000000L}, NULL);
    atomic_store(&world->stop, true);
    for (int i = 0; i < WORKERS + 2; i++) {
        pthread_join(threads[i], NULL);
    }
    uint64_t live = 0;
    struct epoch_slot *slot;

    MUST(epoch_slot_get(epoch, &slot) == 0);
    for (uint64_t key = 0; key < KEYS; key++) {
        uint64_t at = look_up(world, slot, key);

        MUST(at == (world->newest[key] >= world->begin ? world->newest[key] : 0) || at == world->newest[key]);
        live += at != 0;
    }
    epoch_slot_put(slot);
    check_index(world->index);
    printf(
        "%llu published, %llu found, %llu times busy; grown %llu times, swept %llu, saved %llu; %llu keys at the end, "
        "%llu overflow buckets, %llu in use\n",
        (unsigned long long)world->published, (unsigned long long)world->found, (unsigned long long)world->busy,
        (unsigned long long)world->grown, (unsigned long long)world->swept, (unsigned long long)world->saved,
        (unsigned long long)live, (unsigned long long)index_slab_used(&world->index->slab),
        (unsigned long long)index_slab_in_use(&world->index->slab));
    uint64_t grown = world->grown;

    ck_assert_uint_gt(world->swept, 0);
    index_close(world->index);
    free(world->log);
    free(world);
    return grown;
}

START_TEST(nothing_is_lost_or_doubled_while_the_table_grows_and_is_swept_and_saved)
{
    uint64_t grown = 0;

    for (int round = 0; round < ROUNDS; round++, seed++) {
        grown += run_world(round % 4 == 3 ? UINT64_C(1) << 17 : 64); /* the large one grows in parts */
    }
    ck_assert_uint_gt(grown, ROUNDS);
}
END_TEST

/* ---- creation and growth, again and again ------------------------------------------------------------------ */

enum { RACE_KEYS = 64 * 96, RACE_MS = 3000 };

struct race {
    struct index *index;
    _Atomic uint64_t created;
    _Atomic bool stop;
    uint64_t id; /* of the thread that starts next */
    pthread_mutex_t lock;
};

/* No two match one entry in a table of any size. */
static uint64_t race_hash(uint64_t key)
{
    return make_hash(64, key % 64, (key / 64 * 85) % TAGS, seed);
}

static void *create_own(void *arg)
{
    struct race *race = arg;
    struct epoch_slot *epoch_slot;

    MUST(epoch_slot_get(epoch, &epoch_slot) == 0);
    pthread_mutex_lock(&race->lock);
    uint64_t first = race->id++;
    pthread_mutex_unlock(&race->lock);
    for (uint64_t key = first; key < RACE_KEYS; key += WORKERS) {
        for (bool done = false; !done;) {
            index_slot *slot;
            uint64_t entry;

            epoch_enter(epoch, epoch_slot);
            for (uint64_t tag = 1; tag < 9; tag++) { /* entries that nobody needs, for the sweep */
                int r = index_find_or_create(race->index, race_hash(key) + (tag << 45), &slot, &entry);

                MUST(r == -EAGAIN || (r == 0 && index_address(entry) == INDEX_NONE));
            }
            epoch_leave(epoch_slot);
            epoch_enter(epoch, epoch_slot);
            if (index_find_or_create(race->index, race_hash(key), &slot, &entry) == 0) {
                MUST(index_address(entry) == INDEX_NONE);
                done = index_try_lock(slot, entry);
                if (done) {
                    index_publish(slot, 100 + key);
                    index_unlock(slot);
                }
            }
            epoch_leave(epoch_slot);
        }
        atomic_fetch_add(&race->created, 1);
    }
    epoch_slot_put(epoch_slot);
    return NULL;
}

static void *sweep_all_the_time(void *arg)
{
    struct race *race = arg;

    while (!atomic_load(&race->stop)) {
        index_sweep(race->index, 0);
        sched_yield();
    }
    return NULL;
}

/* Growth and sweep go on while the keys are created: each is there once in the end, and no more. */
static unsigned race_once(void)
{
    struct race race = {.index = open_index(64)};
    pthread_t threads[WORKERS], sweeper;
    unsigned grown = 0;

    pthread_mutex_init(&race.lock, NULL);
    pthread_create(&sweeper, NULL, sweep_all_the_time, &race);
    for (int i = 0; i < WORKERS; i++) {
        pthread_create(&threads[i], NULL, create_own, &race);
    }
    for (uint64_t at = RACE_KEYS / 8; at < RACE_KEYS; at += RACE_KEYS / 8) {
        while (atomic_load(&race.created) < at) {
            sched_yield();
        }
        int r = index_grow(race.index);

        MUST(r == 0 || r == -EBUSY);
        grown += r == 0;
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&race.stop, true);
    pthread_join(sweeper, NULL);
    index_sweep(race.index, 0);
    MUST(check_index(race.index) == RACE_KEYS);
    for (uint64_t key = 0; key < RACE_KEYS; key++) {
        uint64_t entry = 0;

        MUST(index_find(race.index, race_hash(key), &entry) && index_address(entry) == 100 + key);
    }
    pthread_mutex_destroy(&race.lock);
    index_close(race.index);
    return grown;
}

START_TEST(keys_that_are_created_beside_growth_and_sweep_are_there_once)
{
    struct timespec begun, now;
    unsigned grown = 0;

    clock_gettime(CLOCK_MONOTONIC, &begun);
    do {
        grown += race_once();
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - begun.tv_sec) * 1000 + (now.tv_nsec - begun.tv_nsec) / 1000000 < RACE_MS);
    printf("%u times grown beside creations\n", grown);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("index threads");

    tcase_add_test(tcase, a_free_bucket_is_handed_out_once);
    tcase_add_test(tcase, a_chain_that_was_split_stays_until_all_inside_have_left);
    tcase_add_test(tcase, a_bucket_that_was_swept_stays_until_all_inside_have_left);
    tcase_add_test(tcase, keys_that_are_created_beside_growth_and_sweep_are_there_once);
    tcase_add_test(tcase, nothing_is_lost_or_doubled_while_the_table_grows_and_is_swept_and_saved);
    return run_tests(tcase);
}
