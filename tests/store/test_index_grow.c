// SPDX-License-Identifier: MIT
/* Tests of store/src/index.h: growth and sweep by one thread, with saves and loads. Beside operations:
 * test_index_threads.c. */
#include "index_tests.h"

#include <sys/mman.h>

/* ---- mappings that fail ---------------------------------------------------------------------------- */

static _Atomic int mmap_fail_at; /* the mmap that fails, 1 the next; 0: none */

void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    if (atomic_load(&mmap_fail_at) > 0 && atomic_fetch_sub(&mmap_fail_at, 1) == 1) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap64(at, len, prot, flags, fd, offset);
}

/* ---- against a model ----------------------------------------------------------------------------------- */

enum { MODEL_ROOM = 8192, MODEL_BITS = 6 + INDEX_KNOWN_MAX };

struct model_entry {
    uint64_t prefix; /* MODEL_BITS of the hash, the rest 0 */
    uint64_t address;
};

/* The entries by their first 6 bits, which every table has. */
struct model {
    struct model_entry entries[64][MODEL_ROOM];
    unsigned counts[64];
};

static struct model_entry *model_find(struct model *model, uint64_t hash)
{
    struct model_entry *list = model->entries[hash >> 58];

    for (unsigned i = 0; i < model->counts[hash >> 58]; i++) {
        if (first_bits(hash, MODEL_BITS) == list[i].prefix) {
            return &list[i];
        }
    }
    return NULL;
}

static void model_add(struct model *model, uint64_t hash, uint64_t address)
{
    unsigned *count = &model->counts[hash >> 58];

    MUST(*count < MODEL_ROOM);
    model->entries[hash >> 58][(*count)++] = (struct model_entry){first_bits(hash, MODEL_BITS), address};
}

/* Drops entries below `begin`; how many stay. */
static uint64_t model_sweep(struct model *model, uint64_t begin)
{
    uint64_t stay = 0;

    for (unsigned l = 0; l < 64; l++) {
        unsigned kept = 0;

        for (unsigned i = 0; i < model->counts[l]; i++) {
            if (model->entries[l][i].address >= begin) {
                model->entries[l][kept++] = model->entries[l][i];
            }
        }
        model->counts[l] = kept;
        stay += kept;
    }
    return stay;
}

static uint64_t model_word(const struct model_entry *entry, unsigned level)
{
    return ((entry->prefix << level >> 2) & INDEX_TAG_MASK) | UINT64_C(1) << (61 - (MODEL_BITS - level)) |
           entry->address;
}

/* Hashes that share more or fewer first bits: entries that several share, at any level. */
static uint64_t clustered_hash(uint64_t *state)
{
    uint64_t r = next_random(state), s = next_random(state);

    switch (r % 4) {
    case 0:
        return s;
    case 1: /* 16 of the first 18 bits, then little else */
        return (s & UINT64_C(0xffff)) << 46 | (s >> 20 & 3) << 44;
    case 2:
        return (s & UINT64_C(0x3f)) << 58 | (s >> 8 & 0xff) << 36;
    default:
        return (s & UINT64_C(0xfff)) << 52 | (s >> 16 & 7) << 33;
    }
}

static struct index *save_and_load(struct index *index, struct model *model, uint64_t *state, unsigned level)
{
    struct image image = save(index);
    struct index_image reader = opened(&image);
    struct index *loaded = open_index_of(UINT64_C(1) << level, MODEL_BITS);

    MUST(reader.buckets == UINT64_C(1) << level && index_load(loaded, &reader) == 0);
    for (int i = 0; i < 1000; i++) {
        uint64_t hash = clustered_hash(state);
        const struct model_entry *want = model_find(model, hash);

        MUST(find_in(&reader, hash) == (want && want->address > INDEX_NONE ? want->address : 0));
    }
    free(image.bytes);
    index_close(index);
    return loaded;
}

static void compare_with_the_model(int steps)
{
    struct model *model = calloc(1, sizeof(*model));
    struct index *index = open_index(64);
    uint64_t state = seed, next_address = 100, begin = 2, refused = 0, grown = 0;
    unsigned level = 6;

    for (int step = 0; step < steps; step++) {
        uint64_t r = next_random(&state), hash = clustered_hash(&state), entry = 0;
        struct model_entry *want = model_find(model, hash);
        index_slot *slot = index_find(index, hash, &entry);

        MUST((slot != NULL) == (want != NULL) && (!slot || entry == model_word(want, level)));
        MUST(!slot || entry == atomic_load(slot));
        if (r % 2) {
            MUST(index_find_or_create(index, hash, &slot, &entry) == 0);
            if (!want) {
                model_add(model, hash, INDEX_NONE);
                want = model_find(model, hash);
            }
            MUST(entry == model_word(want, level));
            if (r % 8 > 1) {
                want->address = next_address++;
                MUST(index_try_lock(slot, entry) && !index_try_lock(slot, entry | INDEX_LOCKED));
                index_publish(slot, want->address);
                index_unlock(slot);
            }
        }
        if ((r >> 8) % 4096 < 2) {
            int result = index_grow(index);

            MUST(result == (level < MODEL_BITS - INDEX_KNOWN_MIN ? 0 : -E2BIG));
            if (result == 0) {
                grown++;
                level++;
                MUST(model_sweep(model, 2) == check_index(index));
            } else if (++refused % 4 == 0) { /* from the beginning */
                memset(model, 0, sizeof(*model));
                index_close(index);
                index = open_index(64);
                level = 6;
            }
        } else if ((r >> 8) % 4096 < 6) {
            begin += (next_address - begin) / ((r >> 20) % 8 + 1);
            index_sweep(index, begin);
            MUST(model_sweep(model, begin) == check_index(index));
        } else if ((r >> 8) % 4096 < 10) {
            index = save_and_load(index, model, &state, level);
            MUST(model_sweep(model, 2) == check_index(index));
        }
    }
    printf("%llu times grown, %llu times refused\n", (unsigned long long)grown, (unsigned long long)refused);
    ck_assert_uint_gt(grown, 0);
    check_index(index);
    index_close(index);
    free(model);
}

START_TEST(index_agrees_with_a_model_through_growth_sweeps_saves_and_loads)
{
    for (int i = 0; i < 5; i++, seed++) {
        compare_with_the_model(40000);
    }
}
END_TEST

/* ---- limits ---------------------------------------------------------------------------------------------- */

static void publish(struct index *index, uint64_t hash, uint64_t address)
{
    index_slot *slot;
    uint64_t entry;

    MUST(index_find_or_create(index, hash, &slot, &entry) == 0 && index_try_lock(slot, entry));
    index_publish(slot, address);
    index_unlock(slot);
}

START_TEST(growth_ends_where_entries_would_have_too_few_bits)
{
    struct index *index = open_index(64);
    uint64_t hash = UINT64_C(0xdeadbeefcafe1234), entry;

    publish(index, hash, 100);
    for (unsigned n = 1; n <= INDEX_KNOWN_MAX - INDEX_KNOWN_MIN; n++) {
        ck_assert_int_eq(index_grow(index), 0);
        ck_assert_ptr_nonnull(index_find(index, hash, &entry));
        ck_assert_uint_eq(index_known(entry), INDEX_KNOWN_MAX - n);
        ck_assert_uint_eq(index_address(entry), 100);
        /* an entry that is made now has as many: the same keys share it as ever */
        ck_assert_ptr_eq(create(index, hash ^ UINT64_C(1) << 44), find(index, hash));
        ck_assert_ptr_ne(create(index, hash ^ UINT64_C(1) << 45), find(index, hash));
        index_find(index, hash ^ UINT64_C(1) << 45, &entry);
        ck_assert_uint_eq(index_known(entry), INDEX_KNOWN_MAX - n);
    }
    ck_assert_int_eq(index_grow(index), -E2BIG);
    for (uint64_t n = 0, number; n <= index_table_size(index->table); n++) { /* as if it had many overflow buckets */
        ck_assert_int_eq(index_slab_get(&index->slab, &number), 0);
    }
    ck_assert(!index_wants_growth(index));

    struct image image = save(index);
    struct index_image reader = opened(&image);
    struct index *loaded = open_index_of(reader.buckets, 19);
    struct index *other = open_index(reader.buckets);

    ck_assert_int_eq(index_load(other, &reader), -EINVAL);
    ck_assert_int_eq(index_load(loaded, &reader), 0);
    ck_assert_int_eq(index_grow(loaded), -E2BIG);
    ck_assert_uint_eq(find_in(&reader, hash), 100);
    index_close(loaded);
    index_close(other);
    free(image.bytes);
    index_close(index);
}
END_TEST

START_TEST(an_index_wants_to_grow_by_its_overflow_buckets)
{
    struct index *index = open_index(1024);
    uint64_t state = seed, keys = 0;

    for (int doublings = 0; doublings < 4; doublings++) {
        for (; !index_wants_growth(index); keys++) {
            publish(index, next_random(&state), keys + 100);
        }
        double load = (double)keys / (double)index_table_size(index->table);

        printf("wants to grow at %.2f entries a bucket\n", load);
        ck_assert(load > 5.0 && load < 7.0);
        ck_assert_int_eq(index_grow(index), 0);
        ck_assert(!index_wants_growth(index));
    }
    index_close(index);
}
END_TEST

/* ---- no memory --------------------------------------------------------------------------------------------- */

enum { SMALL_KEYS = 64 * 40 };

static uint64_t small_hash(uint64_t key)
{
    uint64_t state = seed ^ key << 32;

    return next_random(&state);
}

static struct index *small_index(void)
{
    struct index *index = open_index(64);

    for (uint64_t key = 0; key < SMALL_KEYS; key++) {
        publish(index, small_hash(key), 100 + key);
    }
    return index;
}

/* A later key that matches the same entry has its address; so an address says only that it is as new. */
static void check_small(struct index *index, uint64_t keys)
{
    for (uint64_t key = 0; key < keys; key++) {
        uint64_t entry = 0;

        MUST(index_find(index, small_hash(key), &entry) && index_address(entry) >= 100 + key);
        MUST(!(entry & INDEX_FROZEN));
    }
    check_index(index);
}

START_TEST(growth_without_memory_changes_nothing_or_stops_between_two_buckets)
{
    bool done = false;

    for (int fail_at = 1; !done; fail_at++) { /* the table, then slabs of overflow buckets, if any */
        struct index *index = small_index();

        atomic_store(&mmap_fail_at, fail_at);
        int r = index_grow(index);

        done = atomic_exchange(&mmap_fail_at, 0) > 0;
        ck_assert(fail_at > 1 || r == -ENOMEM);
        if (fail_at == 1) {
            ck_assert_uint_eq(index->table & INDEX_TABLE_SPLITTING, 0);
        }
        check_small(index, SMALL_KEYS);
        while (r != 0) {
            r = index_grow(index);
            ck_assert_int_ge(r, 0);
        }
        check_small(index, SMALL_KEYS);
        index_close(index);
    }
}
END_TEST

/* Takes every overflow bucket that could be had without new ones. */
static uint64_t take_all(struct index *index, uint64_t *taken)
{
    uint64_t count = 0;

    while (index_slab_get(&index->slab, &taken[count]) == 0) {
        count++;
    }
    return count;
}

/* Some keys find a free slot; the others are refused and leave nothing. */
static uint64_t create_without_overflow(struct index *index, uint64_t first, uint64_t count)
{
    uint64_t entry, created = 0;
    index_slot *slot;

    for (uint64_t key = first; key < first + count; key++) {
        int r = index_find_or_create(index, small_hash(key), &slot, &entry);

        ck_assert(r == 0 || r == -ENOMEM);
        if (r == 0) {
            MUST(index_try_lock(slot, entry));
            index_publish(slot, 100 + key);
            index_unlock(slot);
            created++;
        } else {
            ck_assert_ptr_null(find(index, small_hash(key)));
        }
    }
    return created;
}

START_TEST(a_growth_that_lacks_overflow_buckets_can_be_used_and_goes_on)
{
    uint64_t taken[1024], stopped_inside = 0;

    for (uint64_t more = 0; more < 250; more += 5) {
        struct index *index = small_index();
        struct image image = {0};
        int r;

        atomic_store(&index->slab.limit, index_slab_used(&index->slab) + more);
        r = index_grow(index);
        ck_assert(r >= 0 || (r == -ENOMEM && index->split == 0));
        check_small(index, SMALL_KEYS);
        if (r != 0) {
            uint64_t count = take_all(index, taken), split = index->split;

            ck_assert_int_eq(index_grow(index), -ENOMEM);
            ck_assert_uint_eq(index->split, split);
            stopped_inside += split > 0;
            ck_assert(index_wants_growth(index));
            ck_assert_int_eq(index_save(index, STORE, IMAGE, image_write, &image), -ENOMEM);
            ck_assert_uint_eq(image.len, 0);
            index_sweep(index, 1 << 20); /* cannot end the growth, and does nothing */
            check_small(index, SMALL_KEYS);
            uint64_t created = create_without_overflow(index, SMALL_KEYS, 500);

            ck_assert_uint_gt(created, 0);
            ck_assert_uint_lt(created, 500);
            check_small(index, SMALL_KEYS);
            while (count > 0) {
                index_slab_put(&index->slab, taken[--count]);
            }
            if (more < 20) { /* less than a chain may need */
                atomic_store(&index->slab.limit, INDEX_SLAB_MAX);
            }
            image = save(index); /* ends it, with the buckets that each split gives back */
            struct index_image reader = opened(&image);
            ck_assert_uint_eq(reader.buckets, 128);
            free(image.bytes);
        }
        ck_assert_uint_eq(index_table_level(index->table), 7);
        check_small(index, SMALL_KEYS);
        index_close(index);
    }
    ck_assert_uint_gt(stopped_inside, 10);
}
END_TEST

/* ---- parts ----------------------------------------------------------------------------------------------- */

START_TEST(a_large_table_grows_in_parts_and_gives_the_old_memory_back)
{
    struct index *index = open_index(UINT64_C(1) << 18);
    struct index_counts full, counts;
    uint64_t state = seed, keys = 600000, at = 2;
    int parts = 0, r;

    for (uint64_t k = 0; k < keys; k++) {
        publish(index, next_random(&state), 100 + k);
    }
    index_count(index, &full);
    ck_assert_uint_eq(full.next_buckets, 0);
    do {
        r = index_grow(index);
        ck_assert_int_ge(r, 0);
        parts++;
        index_count(index, &counts);
        ck_assert_uint_eq(counts.buckets, r ? UINT64_C(1) << 18 : UINT64_C(1) << 19);
        ck_assert_uint_eq(counts.next_buckets, r ? UINT64_C(1) << 19 : 0);
        ck_assert_uint_le(counts.memory_bytes, full.memory_bytes * 2 + (4 << 20)); /* never three tables */
        state = seed;
        at = 100;
        for (uint64_t k = 0, entry; k < keys; k++, at++) {
            MUST(index_find(index, next_random(&state), &entry) && index_address(entry) >= at);
        }
    } while (r > 0);
    ck_assert_int_eq(parts, 4);
    check_index(index);
    index_close(index);
}
END_TEST

/* ---- the free list ------------------------------------------------------------------------------------- */

START_TEST(overflow_buckets_are_used_again_after_a_sweep_and_after_growth)
{
    struct index *index = open_index(64);
    struct index_counts counts;
    uint64_t used = 0;

    for (uint64_t round = 0; round < 20; round++) {
        for (uint64_t k = 0; k < 64 * 100; k++) { /* other tags each round */
            publish(index, make_hash(64, k % 64, (k / 64 + round * 100) % TAGS, 0), 100 + round);
        }
        ck_assert(round == 0 || index_slab_used(&index->slab) == used);
        used = index_slab_used(&index->slab);
        ck_assert_uint_eq(used, 64 * 14); /* 100 entries a chain: a bucket and 14 */
        index_count(index, &counts);
        ck_assert_uint_eq(counts.overflow_buckets, used);
        index_sweep(index, 101 + round);
        ck_assert_uint_eq(check_index(index), 0);
        index_count(index, &counts);
        ck_assert_uint_eq(counts.overflow_buckets, 0);
    }
    for (uint64_t k = 0; k < 64 * 100; k++) {
        publish(index, make_hash(64, k % 64, k / 64 * 64, 0), 1000);
    }
    while (index_table_level(index->table) < 13) { /* a chain's overflow buckets are enough for its halves */
        ck_assert_int_eq(index_grow(index), 0);
        ck_assert_uint_eq(check_index(index), 64 * 100);
        ck_assert_uint_le(index_slab_used(&index->slab), 2 * used);
    }
    index_count(index, &counts);
    ck_assert_uint_eq(counts.overflow_buckets, 0);
    index_close(index);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("index growth");

    tcase_add_test(tcase, index_agrees_with_a_model_through_growth_sweeps_saves_and_loads);
    tcase_add_test(tcase, growth_ends_where_entries_would_have_too_few_bits);
    tcase_add_test(tcase, an_index_wants_to_grow_by_its_overflow_buckets);
    tcase_add_test(tcase, growth_without_memory_changes_nothing_or_stops_between_two_buckets);
    tcase_add_test(tcase, a_growth_that_lacks_overflow_buckets_can_be_used_and_goes_on);
    tcase_add_test(tcase, a_large_table_grows_in_parts_and_gives_the_old_memory_back);
    tcase_add_test(tcase, overflow_buckets_are_used_again_after_a_sweep_and_after_growth);
    return run_tests(tcase);
}
