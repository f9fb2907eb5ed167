// SPDX-License-Identifier: MIT
/* What the tests of the index share. FASTERFS_SEED=n repeats a run. */
#ifndef TESTS_STORE_INDEX_TESTS_H
#define TESTS_STORE_INDEX_TESTS_H

#include "epoch.h"
#include "index.h"
#include "index_private.h"

#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>
#include <time.h>
#include <unistd.h>

#define TAGS (UINT64_C(1) << INDEX_KNOWN_MAX)

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
    unsigned rest = 64 - (unsigned)__builtin_ctzll(buckets);

    return bucket << (rest - 1) << 1 | tag << (rest - INDEX_KNOWN_MAX) |
           (noise & ((UINT64_C(1) << (rest - INDEX_KNOWN_MAX)) - 1));
}

/* A new entry of that tag with that address. */
static inline uint64_t make_entry(uint64_t tag, uint64_t address)
{
    return (tag << 1 | 1) << INDEX_TAG_SHIFT | address;
}

static struct epoch *epoch; /* of all indexes of a test */

static inline struct index *open_index_of(uint64_t buckets, unsigned bits)
{
    struct index *index;

    if (!epoch) {
        ck_assert_int_eq(epoch_open(&epoch), 0);
    }
    ck_assert_int_eq(index_open(buckets, bits, epoch, &index), 0);
    return index;
}

static inline struct index *open_index(uint64_t buckets)
{
    return open_index_of(buckets, (unsigned)__builtin_ctzll(buckets) + INDEX_KNOWN_MAX);
}

/* Both without an entry. */
static inline index_slot *find(struct index *index, uint64_t hash)
{
    uint64_t entry;

    return index_find(index, hash, &entry);
}

static inline index_slot *create(struct index *index, uint64_t hash)
{
    index_slot *slot;
    uint64_t entry;

    MUST(index_find_or_create(index, hash, &slot, &entry) == 0);
    return slot;
}

static inline void set_address(index_slot *slot, uint64_t address)
{
    uint64_t entry = atomic_load(slot);

    while (!atomic_compare_exchange_weak(slot, &entry, index_entry_with(entry, address))) {
    }
}

/* Invariants 1 and 6 for a chain, and that nothing is left tentative or frozen. `seen`: tag -> the chain's number,
 * where it was last. */
static inline uint64_t check_chain(struct index *index, struct index_bucket *bucket, unsigned known, uint64_t *seen,
                                   uint64_t number)
{
    uint64_t entries = 0;

    for (; bucket; bucket = bucket->overflow ? index_slab_at(&index->slab, bucket->overflow) : NULL) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = bucket->entries[i], tag = (entry & INDEX_TAG_MASK) >> INDEX_TAG_SHIFT;

            if (entry != 0) {
                MUST(!(entry & INDEX_TENTATIVE) && index_address(entry) != 0 && index_known(entry) == known);
                MUST(seen[tag] != number);
                seen[tag] = number;
                entries++;
            }
        }
    }
    return entries;
}

/* The whole of an index that nobody uses, perhaps in the middle of a growth. Returns the entries in use. */
static inline uint64_t check_index(struct index *index)
{
    uint64_t entries = 0, number = 0;
    uint64_t *seen = calloc(2 * TAGS, sizeof(*seen));
    bool splitting = index->table & INDEX_TABLE_SPLITTING;
    unsigned known = index->bits - index_table_level(index->table);

    MUST(seen && known >= INDEX_KNOWN_MIN && known <= INDEX_KNOWN_MAX);
    for (uint64_t n = 0; splitting && n < 2 * index->split; n++) {
        entries += check_chain(index, &index_table_buckets(index->next)[n], known - 1, seen, ++number);
    }
    for (uint64_t n = splitting ? index->split : 0; n < index_table_size(index->table); n++) {
        entries += check_chain(index, &index_table_buckets(index->table)[n], known, seen, ++number);
    }
    free(seen);
    return entries;
}

/* ---- images in memory -------------------------------------------------------------------------------- */

#define STORE UINT64_C(0x1122334455667788)
#define IMAGE UINT64_C(77)

struct image {
    unsigned char *bytes;
    uint64_t len, room;
    int fail_at; /* the write that fails; 0: none */
};

static inline int image_write(void *ctx, const void *bytes, uint32_t len)
{
    struct image *image = ctx;

    if (image->fail_at && --image->fail_at == 0) {
        return -EIO;
    }
    MUST(len > 0 && len % 4096 == 0 && (uintptr_t)bytes % 4096 == 0);
    if (image->len + len > image->room) {
        image->room = (image->room + len) * 2;
        image->bytes = realloc(image->bytes, image->room);
        MUST(image->bytes);
    }
    memcpy(image->bytes + image->len, bytes, len);
    image->len += len;
    sched_yield(); /* lets others change the index between two pieces */
    return 0;
}

static inline int image_read(void *ctx, uint64_t offset, void *buf, uint32_t len)
{
    const struct image *image = ctx;

    if (offset > image->len || len > image->len - offset) {
        return -EIO;
    }
    memcpy(buf, image->bytes + offset, len);
    return 0;
}

static inline int check_image(struct image *image, uint64_t store, uint64_t number, const char **ret_why)
{
    struct index_image opened = {.read = image_read, .ctx = image};
    int r = index_image_open(&opened, image->len, store, number, ret_why);

    return r < 0 ? r : index_image_check(&opened, UINT64_MAX, ret_why);
}

static inline const char *check_why(const unsigned char *bytes, uint64_t len)
{
    struct image image = {.bytes = (unsigned char *)(uintptr_t)bytes, .len = len};
    const char *why = NULL;
    int r = check_image(&image, STORE, IMAGE, &why);

    MUST(r == 0 ? why == NULL : r == -EUCLEAN && why != NULL);
    return why;
}

/* A sound one, to be read. */
static inline struct index_image opened(struct image *image)
{
    struct index_image opened = {.read = image_read, .ctx = image};
    const char *why;

    MUST(index_image_open(&opened, image->len, STORE, IMAGE, &why) == 0);
    return opened;
}

static inline uint64_t find_in(const struct index_image *image, uint64_t hash)
{
    uint64_t address;

    MUST(index_image_find(image, hash, &address) == 0);
    return address;
}

static inline struct image save(struct index *index)
{
    struct image image = {0};

    MUST(index_save(index, STORE, IMAGE, image_write, &image) == 0);
    const char *why = check_why(image.bytes, image.len);

    if (why) {
        ck_abort_msg("%s", why);
    }
    return image;
}

/* The first bits of a hash, the rest 0. */
static inline uint64_t first_bits(uint64_t hash, unsigned bits)
{
    return hash >> (64 - bits) << (64 - bits);
}

/* Runs the tests of the case, prints the seed. The exit status. */
static inline int run_tests(TCase *tcase)
{
    const char *given = getenv("FASTERFS_SEED");

    setvbuf(stdout, NULL, _IOLBF, 0);
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    tcase_set_timeout(tcase, 300);
    return suite_run_case("index", tcase);
}

#endif
