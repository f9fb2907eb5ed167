// SPDX-License-Identifier: MIT
/* Tests of store/src/index.h: images of the index. */
#include "index_tests.h"

#include <pthread.h>
#include <xxhash.h>

/* ---- images --------------------------------------------------------------------------------------- */

/* Deterministic entries: (bucket, tag) for tag < tags, address 100 + bucket * tags + tag. */
static struct index *filled_index(uint64_t buckets, uint64_t tags)
{
    struct index *index = open_index(buckets);

    for (uint64_t k = 0; k < buckets * tags; k++) {
        set_address(create(index, make_hash(buckets, k / tags, k % tags, 0)), 100 + k);
    }
    return index;
}

START_TEST(an_image_finds_and_loads_what_was_saved)
{
    for (uint64_t buckets = 64; buckets <= 16384; buckets *= 16) {
        uint64_t tags = 81920 / buckets; /* long chains, short ones, none */
        struct index *index = filled_index(buckets, tags), *loaded = open_index(buckets);
        index_slot *locked = create(index, make_hash(buckets, 1, 1, 0));

        create(index, make_hash(buckets, 1, TAGS - 1, 0)); /* INDEX_NONE: left out */
        atomic_fetch_or(locked, INDEX_LOCKED);
        struct image image = save(index);
        struct index_image reader = opened(&image);

        ck_assert_ptr_null(check_why(image.bytes, image.len));
        ck_assert_uint_eq(reader.buckets, buckets);
        ck_assert_int_eq(index_load(loaded, &reader), 0);
        for (uint64_t k = 0; k < buckets * tags; k++) {
            uint64_t hash = make_hash(buckets, k / tags, k % tags, k);

            MUST(find_in(&reader, hash) == 100 + k);
            MUST(atomic_load(find(loaded, hash)) == make_entry(k % tags, 100 + k));
        }
        ck_assert_uint_eq(find_in(&reader, make_hash(buckets, 1, TAGS - 1, 0)), 0);
        ck_assert_uint_eq(check_index(loaded), buckets * tags);
        for (uint64_t b = 0; b < buckets; b++) { /* a loaded index grows on */
            create(loaded, make_hash(buckets, b, TAGS - 2, 0));
        }
        ck_assert_uint_eq(check_index(loaded), buckets * (tags + 1));
        free(image.bytes);
        index_close(index);
        index_close(loaded);
    }
}
END_TEST

START_TEST(load_refuses_another_size_and_lack_of_memory)
{
    struct index *index = filled_index(128, 10), *small = open_index(64), *large = open_index(256);
    struct index *same = open_index(128);
    struct image image = save(index);
    struct index_image reader = opened(&image);

    ck_assert_int_eq(index_load(small, &reader), -EINVAL);
    ck_assert_int_eq(index_load(large, &reader), -EINVAL);
    ck_assert_int_eq(index_load(index, &reader), -EINVAL);
    atomic_store(&same->slab.limit, 127);
    ck_assert_int_eq(index_load(same, &reader), -ENOMEM);
    ck_assert_uint_eq(check_index(same), 0);
    atomic_store(&same->slab.limit, 128);
    ck_assert_int_eq(index_load(same, &reader), 0);
    for (int at = 1; at <= 3; at++) { /* header, body, checksums */
        struct image failing = {image.bytes, 0, image.room, at};

        ck_assert_int_eq(index_save(index, STORE, IMAGE, image_write, &failing), -EIO);
    }
    free(image.bytes);
    index_close(index);
    index_close(small);
    index_close(large);
    index_close(same);
}
END_TEST

START_TEST(every_flipped_byte_and_every_cut_is_refused)
{
    struct index *index = filled_index(64, 20);
    struct image image = save(index);
    uint64_t state = seed;
    const char *why;

    for (uint64_t at = 0; at < image.len; at++) {
        unsigned char flip = (unsigned char)(next_random(&state) % 255 + 1);

        image.bytes[at] ^= flip;
        MUST(check_why(image.bytes, image.len));
        image.bytes[at] ^= flip;
    }
    for (uint64_t len = 0; len <= image.len + 4096; len += len < 8192 ? 1 : 512) {
        unsigned char *exact = malloc(len + 1); /* for ASan */

        memcpy(exact, image.bytes, len);
        MUST(len == image.len || check_why(exact, len));
        free(exact);
    }
    ck_assert_ptr_null(check_why(image.bytes, image.len));
    ck_assert_int_eq(check_image(&image, STORE + 1, IMAGE, &why), -EUCLEAN);
    ck_assert_int_eq(check_image(&image, STORE, IMAGE + 1, &why), -EUCLEAN);
    free(image.bytes);
    index_close(index);
}
END_TEST

/* Puts a word into the body of a one-piece image and makes the checksum right again. */
static const char *why_with_word(const struct image *from, uint64_t at, uint64_t word)
{
    unsigned char *bytes = malloc(from->len), *sum = bytes + from->len - 4096;
    uint64_t header_sum, piece_sum;

    MUST(bytes);
    memcpy(bytes, from->bytes, from->len);
    memcpy(bytes + at, &word, 8);
    memcpy(&header_sum, bytes + 4088, 8);
    piece_sum = XXH3_64bits_withSeed(bytes + 4096, from->len - 8192, header_sum);
    memcpy(sum, &piece_sum, 8);
    const char *why = check_why(bytes, from->len);

    free(bytes);
    return why;
}

START_TEST(loops_and_impossible_words_are_refused_under_right_checksums)
{
    static const char *const elsewhere = "index image has a link that leads elsewhere";
    static const char *const twice = "index image has two entries for one hash";
    static const char *const impossible = "index image has an entry that cannot be";
    struct index *index = filled_index(64, 20); /* two overflow buckets a bucket: 1, 2 for bucket 0 */
    struct image image = save(index);
    uint64_t bucket0 = 4096, link0 = bucket0 + 56, over1 = 4096 + 64 * 64, last = over1 + 127 * 64, word;

    memcpy(&word, image.bytes + bucket0, 8);
    ck_assert_uint_eq(word, make_entry(0, 100));
    ck_assert_ptr_null(why_with_word(&image, bucket0, word));
    ck_assert_ptr_null(why_with_word(&image, bucket0, 0));
    ck_assert_pstr_eq(why_with_word(&image, link0, 0), elsewhere); /* of the chain behind it */
    ck_assert_pstr_eq(why_with_word(&image, link0, 2), elsewhere);
    ck_assert_pstr_eq(why_with_word(&image, link0, UINT64_MAX), elsewhere);
    ck_assert_pstr_eq(why_with_word(&image, over1 + 56, 1), elsewhere);
    ck_assert_pstr_eq(why_with_word(&image, over1 + 64 + 56, 1), elsewhere);
    ck_assert_pstr_eq(why_with_word(&image, last + 56, 129), elsewhere);
    ck_assert_pstr_eq(why_with_word(&image, last - 64 + 56, 0),
                      "index image has an overflow bucket that no link leads to");
    ck_assert_pstr_eq(why_with_word(&image, bucket0, make_entry(0, INDEX_NONE)), impossible);
    ck_assert_pstr_eq(why_with_word(&image, bucket0, word | INDEX_LOCKED), impossible);
    ck_assert_pstr_eq(why_with_word(&image, bucket0, word | INDEX_TENTATIVE), impossible);
    ck_assert_pstr_eq(why_with_word(&image, bucket0, INDEX_FROZEN), impossible);
    ck_assert_pstr_eq(why_with_word(&image, bucket0, 100), impossible);
    for (unsigned known = 0; known <= INDEX_KNOWN_MAX;
         known++) { /* all entries of an image have 13 bits, or all 12 ... */
        uint64_t entry = UINT64_C(1) << (61 - known) | 100;

        ck_assert_pstr_eq(why_with_word(&image, over1 + 64, entry), known < INDEX_KNOWN_MAX ? impossible : twice);
    }
    ck_assert_pstr_eq(why_with_word(&image, bucket0 + 8, word), twice);
    ck_assert_pstr_eq(why_with_word(&image, over1, word), twice);
    free(image.bytes);
    index_close(index);
}
END_TEST

/* ---- a save beside creates and updates ------------------------------------------------------------ */

enum { BUSY_KEYS = 64 * 600, BUSY_SAVES = 40, BUSY_UPDATERS = 2 };

/* Key k is bucket k % 64, tag k / 64, and is updated by thread k % BUSY_UPDATERS alone, to addresses that
 * grow by one. */
struct busy {
    struct index *index;
    _Atomic uint64_t *newest; /* by key: the address that was set last, seq_cst */
    _Atomic uint64_t created; /* the keys below exist with an address, seq_cst */
    _Atomic uint64_t allowed; /* keys to create so far: each save has its share to meet */
    _Atomic bool stop;
};

struct updater {
    struct busy *busy;
    uint64_t id;
};

static uint64_t busy_hash(uint64_t k)
{
    return make_hash(64, k % 64, k / 64, 0);
}

static void *busy_create(void *arg)
{
    struct busy *busy = arg;

    for (uint64_t k = atomic_load(&busy->created); k < BUSY_KEYS && !atomic_load(&busy->stop); k++) {
        while (k >= atomic_load(&busy->allowed) && !atomic_load(&busy->stop)) {
            sched_yield();
        }
        set_address(create(busy->index, busy_hash(k)), 2);
        atomic_store(&busy->newest[k], 2);
        atomic_store(&busy->created, k + 1);
    }
    return NULL;
}

static void *busy_update(void *arg)
{
    struct updater *me = arg;
    struct busy *busy = me->busy;
    uint64_t state = seed + me->id;

    while (!atomic_load(&busy->stop)) {
        uint64_t k = next_random(&state) % (atomic_load(&busy->created) / BUSY_UPDATERS) * BUSY_UPDATERS + me->id;
        uint64_t address = atomic_load(&busy->newest[k]) + 1;
        index_slot *slot = find(busy->index, busy_hash(k));

        atomic_fetch_or(slot, INDEX_LOCKED);
        set_address(slot, address);
        atomic_store(&busy->newest[k], address);
    }
    return NULL;
}

/* What was there before is in the image, at an address that it had during the save. Was anything created meanwhile? */
static bool save_while_busy(struct busy *busy, uint64_t *before)
{
    uint64_t created = atomic_load(&busy->created);

    for (uint64_t k = 0; k < created; k++) {
        before[k] = atomic_load(&busy->newest[k]);
    }
    atomic_fetch_add(&busy->allowed, BUSY_KEYS / BUSY_SAVES);
    struct image image = save(busy->index);
    struct index_image reader = opened(&image);
    bool grown = atomic_load(&busy->created) > created;

    MUST(!check_why(image.bytes, image.len));
    for (uint64_t k = 0; k < BUSY_KEYS; k++) {
        uint64_t newest = atomic_load(&busy->newest[k]), found = find_in(&reader, busy_hash(k));

        if (k < created) {
            MUST(found >= before[k] && found <= newest + 1); /* the index is set before `newest` */
        } else {
            MUST(found == 0 || (found >= 2 && found <= newest + 2));
        }
    }
    struct index *loaded = open_index(64);

    MUST(index_load(loaded, &reader) == 0 && check_index(loaded) >= created);
    index_close(loaded);
    free(image.bytes);
    return grown;
}

START_TEST(a_save_beside_creates_and_updates_has_all_that_was_there_before)
{
    struct busy busy = {open_index(64), calloc(BUSY_KEYS, sizeof(uint64_t)), BUSY_UPDATERS, 0, false};
    struct updater updaters[BUSY_UPDATERS];
    pthread_t creator, threads[BUSY_UPDATERS];
    uint64_t *before = calloc(BUSY_KEYS, sizeof(*before)), grown = 0;

    for (uint64_t k = 0; k < BUSY_UPDATERS; k++) {
        set_address(create(busy.index, busy_hash(k)), 2);
        atomic_store(&busy.newest[k], 2);
    }
    pthread_create(&creator, NULL, busy_create, &busy);
    for (uint64_t i = 0; i < BUSY_UPDATERS; i++) {
        updaters[i] = (struct updater){&busy, i};
        pthread_create(&threads[i], NULL, busy_update, &updaters[i]);
    }
    for (int i = 0; i < BUSY_SAVES; i++) {
        grown += save_while_busy(&busy, before);
    }
    atomic_store(&busy.stop, true);
    pthread_join(creator, NULL);
    for (uint64_t i = 0; i < BUSY_UPDATERS; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%d saves, entries were created during %llu of them, %llu in the end\n", BUSY_SAVES,
           (unsigned long long)grown, (unsigned long long)busy.created);
    check_index(busy.index);
    free(before);
    free(busy.newest);
    index_close(busy.index);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("index");

    tcase_add_test(tcase, an_image_finds_and_loads_what_was_saved);
    tcase_add_test(tcase, load_refuses_another_size_and_lack_of_memory);
    tcase_add_test(tcase, every_flipped_byte_and_every_cut_is_refused);
    tcase_add_test(tcase, loops_and_impossible_words_are_refused_under_right_checksums);
    tcase_add_test(tcase, a_save_beside_creates_and_updates_has_all_that_was_there_before);
    return run_tests(tcase);
}
