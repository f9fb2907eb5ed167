// SPDX-License-Identifier: MIT
/*
 * index_image: the index as bytes on disk, laid out as in store/SPEC.md ("Index image"):
 *
 *     header 4096 | table | overflow buckets, zeros to 4096 | checksums of 64 KiB pieces, zeros to 4096
 *
 * Buckets are as in memory, little-endian; overflow buckets are numbered anew in the order of their chains, so
 * only those in use are there, a chain's stand together, and a link says nothing but whether it is the end.
 *
 * The save runs beside operations, but not beside growth and sweep: a link that is not 0 stays. It notes the
 * overflow buckets of all chains first; what is appended later is left out. An entry made before the save
 * began is in a bucket whose link is older still, so it is saved, with the address it has when its turn comes.
 *
 * Invariants of an image that index_image_check() has passed:
 *   1. Its length is what the header's counts give; every byte is under a checksum or checked to be 0.
 *   2. Every overflow bucket is in one chain, in order; chains end.
 *   3. An entry is 0, or has the image's number of bits and an address above INDEX_NONE; no two of a chain match a
 * hash.
 */
#include "index_private.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define BLOCK UINT64_C(4096)
#define PIECE UINT64_C(65536)
#define BUCKET sizeof(struct index_bucket)
#define PIECE_BUCKETS (PIECE / BUCKET)

static const char MAGIC[8] = {'F', 'F', 'S', 'I', 'N', 'D', 'E', 'X'};
enum { FORMAT = 2 };

/* Offsets in the header; every number is little-endian. The rest up to AT_CHECKSUM is zero. */
enum {
    AT_MAGIC = 0,
    AT_FORMAT = 8, /* 32 bits */
    AT_PIECE = 12, /* 32 bits: PIECE */
    AT_STORE_ID = 16,
    AT_IMAGE_ID = 24,
    AT_BUCKETS = 32,
    AT_OVERFLOW = 40, /* overflow buckets */
    AT_PIECES = 48,
    AT_TOTAL = 56,      /* bytes of the whole image */
    AT_BITS = 64,       /* 32 bits: of the hash that an entry stands for */
    AT_CHECKSUM = 4088, /* XXH3-64 of all bytes before; also the seed of the pieces' checksums */
};
_Static_assert(AT_CHECKSUM + 8 == BLOCK, "the header is a block");

/* Where things are in an image of so many buckets. */
struct layout {
    uint64_t buckets, overflow;
    unsigned known;      /* bits of the hash in an entry; of an image that is checked */
    uint64_t body_bytes; /* table and overflow buckets, padded to a block; they begin at BLOCK */
    uint64_t pieces, sums_bytes, total;
};

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static struct layout layout_of(uint64_t buckets, uint64_t overflow)
{
    struct layout l = {.buckets = buckets, .overflow = overflow};

    l.body_bytes = round_up((buckets + overflow) * BUCKET, BLOCK);
    l.pieces = round_up(l.body_bytes, PIECE) / PIECE;
    l.sums_bytes = round_up(l.pieces * 8, BLOCK);
    l.total = BLOCK + l.body_bytes + l.sums_bytes;
    return l;
}

static uint32_t piece_len(const struct layout *l, uint64_t piece)
{
    uint64_t left = l->body_bytes - piece * PIECE;

    return (uint32_t)(left < PIECE ? left : PIECE);
}

static uint64_t get64(const unsigned char *at)
{
    uint64_t v;

    memcpy(&v, at, sizeof(v));
    return le64toh(v);
}

static uint32_t get32(const unsigned char *at)
{
    uint32_t v;

    memcpy(&v, at, sizeof(v));
    return le32toh(v);
}

static void put64(unsigned char *at, uint64_t v)
{
    v = htole64(v);
    memcpy(at, &v, sizeof(v));
}

static void put32(unsigned char *at, uint32_t v)
{
    v = htole32(v);
    memcpy(at, &v, sizeof(v));
}

/* The seed ties a piece to this image and to its place in it. */
static uint64_t piece_sum(const unsigned char *piece, uint32_t len, uint64_t header_sum, uint64_t number)
{
    return XXH3_64bits_withSeed(piece, len, header_sum + number);
}

/* ---- save ------------------------------------------------------------------------------------- */

#define CHAIN_ENDS (UINT64_C(1) << 63)

struct save {
    struct index *index;
    uint64_t table;
    struct layout layout;
    uint64_t header_sum;
    uint64_t *order;     /* by number in the image, from 1: number in memory, and CHAIN_ENDS on the last of a chain */
    uint64_t begun;      /* overflow buckets of the table's buckets that are written */
    unsigned char *buf;  /* PIECE bytes */
    unsigned char *sums; /* layout.sums_bytes */
    int (*write)(void *ctx, const void *bytes, uint32_t len);
    void *ctx;
};

static int save_header(struct save *save, uint64_t store_id, uint64_t image_id)
{
    unsigned char *header = save->buf;

    memset(header, 0, BLOCK);
    memcpy(header + AT_MAGIC, MAGIC, sizeof(MAGIC));
    put32(header + AT_FORMAT, FORMAT);
    put32(header + AT_PIECE, (uint32_t)PIECE);
    put64(header + AT_STORE_ID, store_id);
    put64(header + AT_IMAGE_ID, image_id);
    put64(header + AT_BUCKETS, save->layout.buckets);
    put64(header + AT_OVERFLOW, save->layout.overflow);
    put64(header + AT_PIECES, save->layout.pieces);
    put64(header + AT_TOTAL, save->layout.total);
    put32(header + AT_BITS, save->index->bits);
    save->header_sum = XXH3_64bits(header, AT_CHECKSUM);
    put64(header + AT_CHECKSUM, save->header_sum);
    return save->write(save->ctx, header, (uint32_t)BLOCK);
}

/* Notes the overflow buckets of all chains: how many. One above `highest` was handed out after the save began: what
 * is in it and behind it is later still. */
static uint64_t save_order(struct save *save, uint64_t highest)
{
    struct index_bucket *buckets = index_table_buckets(save->table);
    uint64_t count = 0;

    for (uint64_t n = 0; n < index_table_size(save->table); n++) {
        uint64_t before = count;

        for (struct index_bucket *bucket = &buckets[n];;
             bucket = index_slab_at(&save->index->slab, save->order[count])) {
            /* acquire: pairs with chain_append(), the bucket is there */
            uint64_t number = atomic_load_explicit(&bucket->overflow, memory_order_acquire);

            if (number == 0 || number > highest) {
                break;
            }
            save->order[++count] = number;
        }
        if (count > before) {
            save->order[count] |= CHAIN_ENDS;
        }
    }
    return count;
}

static void save_bucket(unsigned char *to, const struct index_bucket *bucket, uint64_t link)
{
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        /* acquire: pairs with index_publish(): what the saver does after the save may follow the address */
        uint64_t entry = atomic_load_explicit(&bucket->entries[i], memory_order_acquire);

        if (index_is_tentative(entry) || index_address(entry) <= INDEX_NONE) {
            entry = 0;
        }
        put64(to + i * 8, entry & ~INDEX_LOCKED);
    }
    put64(to + INDEX_BUCKET_ENTRIES * 8, link);
}

/* The next bucket of the table. Its chain is the next of the order if its link leads to that one's first;
 * otherwise it had none when the order was made. */
static void save_table_bucket(struct save *save, unsigned char *to, const struct index_bucket *bucket)
{
    /* relaxed: only the number is used, not the bucket behind it */
    uint64_t number = atomic_load_explicit(&bucket->overflow, memory_order_relaxed), link = 0;

    if (save->begun < save->layout.overflow && (save->order[save->begun + 1] & ~CHAIN_ENDS) == number) {
        link = save->begun + 1;
        while (!(save->order[++save->begun] & CHAIN_ENDS)) {
        }
    }
    save_bucket(to, bucket, link);
}

static void save_overflow_bucket(const struct save *save, unsigned char *to, uint64_t number)
{
    uint64_t in_memory = save->order[number];

    save_bucket(to, index_slab_at(&save->index->slab, in_memory & ~CHAIN_ENDS),
                in_memory & CHAIN_ENDS ? 0 : number + 1);
}

static int save_piece(struct save *save, uint64_t piece)
{
    const struct layout *l = &save->layout;
    uint32_t len = piece_len(l, piece);

    for (uint64_t k = 0; k < len / BUCKET; k++) {
        uint64_t n = piece * PIECE_BUCKETS + k;
        unsigned char *to = save->buf + k * BUCKET;

        if (n < l->buckets) {
            save_table_bucket(save, to, &index_table_buckets(save->table)[n]);
        } else if (n - l->buckets < l->overflow) {
            save_overflow_bucket(save, to, n - l->buckets + 1);
        } else {
            memset(to, 0, BUCKET);
        }
    }
    put64(save->sums + piece * 8, piece_sum(save->buf, len, save->header_sum, piece));
    return save->write(save->ctx, save->buf, len);
}

static int save_all(struct save *save, uint64_t store_id, uint64_t image_id)
{
    const struct layout *l = &save->layout;
    int r = save_header(save, store_id, image_id);

    for (uint64_t piece = 0; r == 0 && piece < l->pieces; piece++) {
        r = save_piece(save, piece);
    }
    for (uint64_t at = 0; r == 0 && at < l->sums_bytes; at += PIECE) {
        uint64_t left = l->sums_bytes - at;

        r = save->write(save->ctx, save->sums + at, (uint32_t)(left < PIECE ? left : PIECE));
    }
    return r;
}

/* `lock` held, no growth under way. */
static int save_locked(struct save *save, uint64_t store_id, uint64_t image_id)
{
    uint64_t highest = index_slab_used(&save->index->slab); /* before any link is read */
    int r = -ENOMEM;

    save->table = atomic_load_explicit(&save->index->table, memory_order_relaxed); /* written under `lock` */
    save->order = malloc((highest + 1) * sizeof(*save->order));
    save->layout = layout_of(index_table_size(save->table), save->order ? save_order(save, highest) : 0);
    save->buf = aligned_alloc(BLOCK, PIECE);
    save->sums = aligned_alloc(BLOCK, save->layout.sums_bytes);
    if (save->order && save->buf && save->sums) {
        memset(save->sums, 0, save->layout.sums_bytes);
        r = save_all(save, store_id, image_id);
    }
    free(save->sums);
    free(save->buf);
    free(save->order);
    return r;
}

int index_save(struct index *index, uint64_t store_id, uint64_t image_id,
               int (*write)(void *ctx, const void *bytes, uint32_t len), void *ctx)
{
    struct save save = {.index = index, .write = write, .ctx = ctx};

    pthread_mutex_lock(&index->lock);
    int r = index_end_growth(index);

    if (r == 0) {
        r = save_locked(&save, store_id, image_id);
    }
    pthread_mutex_unlock(&index->lock);
    return r;
}

/* ---- an image in place -------------------------------------------------------------------------- */

/* Bucket n: first the table's, then the overflow buckets, of which number 1 is bucket `buckets`. */
static const unsigned char *bucket_at(const void *image, uint64_t n)
{
    return (const unsigned char *)image + BLOCK + n * BUCKET;
}

static uint64_t entry_at(const unsigned char *bucket, unsigned i)
{
    return get64(bucket + i * 8);
}

/* No entry and no link: so are most buckets of a table that has just doubled, or of a small store's. */
static bool bucket_is_zero(const unsigned char *bucket)
{
    uint64_t words[BUCKET / 8], any = 0;

    memcpy(words, bucket, BUCKET);
    for (unsigned i = 0; i < BUCKET / 8; i++) {
        any |= words[i];
    }
    return any == 0;
}

/* The bucket after this one, NULL at the end of the chain. */
static const unsigned char *bucket_after(const void *image, uint64_t buckets, const unsigned char *bucket)
{
    uint64_t number = get64(bucket + INDEX_BUCKET_ENTRIES * 8);

    return number ? bucket_at(image, buckets + number - 1) : NULL;
}

uint64_t index_image_buckets(const void *image)
{
    return get64((const unsigned char *)image + AT_BUCKETS);
}

uint64_t index_image_find(const void *image, uint64_t hash)
{
    uint64_t buckets = index_image_buckets(image);
    unsigned level = (unsigned)__builtin_ctzll(buckets);
    uint64_t tag = index_tag(hash, level, get32((const unsigned char *)image + AT_BITS));

    for (const unsigned char *bucket = bucket_at(image, hash >> (64 - level)); bucket;
         bucket = bucket_after(image, buckets, bucket)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = entry_at(bucket, i);

            if (index_matches(entry, tag)) {
                return index_address(entry);
            }
        }
    }
    return 0;
}

/* ---- check -------------------------------------------------------------------------------------- */

/* Each check returns why not, or NULL. */

static const char *check_header(const unsigned char *header, uint64_t len, struct layout *ret_layout)
{
    if (len < BLOCK) {
        return "index image is shorter than its header";
    }
    if (memcmp(header + AT_MAGIC, MAGIC, sizeof(MAGIC)) != 0) {
        return "not an index image";
    }
    if (get32(header + AT_FORMAT) != FORMAT || get32(header + AT_PIECE) != PIECE) {
        return "index image has a format that this program does not read";
    }
    if (get64(header + AT_CHECKSUM) != XXH3_64bits(header, AT_CHECKSUM)) {
        return "index image header has a wrong checksum";
    }
    uint64_t buckets = get64(header + AT_BUCKETS), overflow = get64(header + AT_OVERFLOW);

    if (buckets < INDEX_BUCKETS_MIN || buckets > INDEX_BUCKETS_MAX || (buckets & (buckets - 1)) != 0 ||
        overflow > INDEX_SLAB_MAX) {
        return "index image header has an impossible size";
    }
    *ret_layout = layout_of(buckets, overflow);
    ret_layout->known = get32(header + AT_BITS) - (unsigned)__builtin_ctzll(buckets);
    if (ret_layout->known < INDEX_KNOWN_MIN || ret_layout->known > INDEX_KNOWN_MAX) {
        return "index image header has an impossible number of bits";
    }
    if (get64(header + AT_PIECES) != ret_layout->pieces || get64(header + AT_TOTAL) != ret_layout->total) {
        return "index image header has sizes that contradict each other";
    }
    return len == ret_layout->total ? NULL : "index image is longer or shorter than its header says";
}

static const char *check_sums(const unsigned char *image, const struct layout *l)
{
    const unsigned char *body = image + BLOCK, *sums = body + l->body_bytes;
    uint64_t header_sum = get64(image + AT_CHECKSUM);

    for (uint64_t piece = 0; piece < l->pieces; piece++) {
        if (piece_sum(body + piece * PIECE, piece_len(l, piece), header_sum, piece) != get64(sums + piece * 8)) {
            return "index image has a wrong checksum";
        }
    }
    for (uint64_t at = l->pieces * 8; at < l->sums_bytes; at++) {
        if (sums[at] != 0) {
            return "index image has something behind its checksums";
        }
    }
    return NULL;
}

static bool entry_is_sound(uint64_t entry, unsigned known)
{
    return !(entry & INDEX_FROZEN) && (entry & INDEX_TAG_MASK) && index_known(entry) == known &&
           index_address(entry) > INDEX_NONE;
}

/* The entries of every bucket by themselves; what is beyond the last bucket must be zero. */
static const char *check_buckets(const void *image, const struct layout *l)
{
    for (uint64_t n = 0; n < l->body_bytes / BUCKET; n++) {
        const unsigned char *bucket = bucket_at(image, n);
        bool padding = n >= l->buckets + l->overflow;

        if (bucket_is_zero(bucket)) {
            continue;
        }
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = entry_at(bucket, i);

            if (entry != 0 && (padding || !entry_is_sound(entry, l->known))) {
                return "index image has an entry that cannot be";
            }
        }
        if (padding && get64(bucket + INDEX_BUCKET_ENTRIES * 8) != 0) {
            return "index image has something behind its buckets";
        }
    }
    return NULL;
}

/* Sets or clears a bit for each tag of the chain; was one set that is to be set? */
static bool mark_tags(const void *image, const struct layout *l, uint64_t n, uint64_t *seen, bool set)
{
    bool twice = false;

    for (const unsigned char *bucket = bucket_at(image, n); bucket; bucket = bucket_after(image, l->buckets, bucket)) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = entry_at(bucket, i), tag = (entry & INDEX_TAG_MASK) >> INDEX_TAG_SHIFT;
            uint64_t bit = entry != 0 ? UINT64_C(1) << (tag % 64) : 0;

            twice |= (seen[tag / 64] & bit) != 0;
            seen[tag / 64] = set ? seen[tag / 64] | bit : seen[tag / 64] & ~bit;
        }
    }
    return twice;
}

/* Each link is 0 or the number after that of the link before, in the order of the chains: so each overflow
 * bucket is in one chain, and chains end. */
static const char *check_links(const void *image, const struct layout *l)
{
    uint64_t links = 0;

    for (uint64_t n = 0; n < l->buckets; n++) {
        const unsigned char *bucket = bucket_at(image, n);

        for (uint64_t link; (link = get64(bucket + INDEX_BUCKET_ENTRIES * 8)) != 0;) {
            if (link != ++links || links > l->overflow) {
                return "index image has a link that leads elsewhere";
            }
            bucket = bucket_at(image, l->buckets + link - 1);
        }
    }
    return links == l->overflow ? NULL : "index image has an overflow bucket that no link leads to";
}

static const char *check_chains(const void *image, const struct layout *l)
{
    uint64_t seen[(INDEX_TAG_MASK >> INDEX_TAG_SHIFT) / 64 + 1] = {0};

    for (uint64_t n = 0; n < l->buckets; n++) {
        if (bucket_is_zero(bucket_at(image, n))) {
            continue;
        }
        if (mark_tags(image, l, n, seen, true)) {
            return "index image has two entries for one hash";
        }
        mark_tags(image, l, n, seen, false);
    }
    return NULL;
}

int index_image_check(const void *image, uint64_t len, uint64_t store_id, uint64_t image_id, const char **ret_why)
{
    const unsigned char *header = image;
    struct layout layout;
    const char *why = check_header(header, len, &layout);

    if (!why && get64(header + AT_STORE_ID) != store_id) {
        why = "index image belongs to another store";
    }
    if (!why && get64(header + AT_IMAGE_ID) != image_id) {
        why = "index image is not the one that was asked for";
    }
    why = why ? why : check_sums(image, &layout);
    why = why ? why : check_buckets(image, &layout);
    why = why ? why : check_links(image, &layout);
    why = why ? why : check_chains(image, &layout);
    if (why) {
        *ret_why = why;
        return -EUCLEAN;
    }
    return 0;
}

bool index_image_leads_below(const void *image, uint64_t end)
{
    uint64_t buckets = index_image_buckets(image) + get64((const unsigned char *)image + AT_OVERFLOW);

    for (uint64_t n = 0; n < buckets; n++) {
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = entry_at(bucket_at(image, n), i);

            if (entry != 0 && index_address(entry) >= end) {
                return false;
            }
        }
    }
    return true;
}

unsigned index_image_bits(const void *image)
{
    return get32((const unsigned char *)image + AT_BITS);
}

/* ---- load --------------------------------------------------------------------------------------- */

/* Leaves memory alone that stays 0, so that an empty part of the table takes none.
 * relaxed: the caller is alone, and whatever starts the other threads publishes the index. */
static void load_word(_Atomic uint64_t *to, uint64_t value)
{
    if (value != 0) {
        atomic_store_explicit(to, value, memory_order_relaxed);
    }
}

static void load_bucket(struct index_bucket *to, const unsigned char *from)
{
    if (bucket_is_zero(from)) {
        return;
    }
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        load_word(&to->entries[i], entry_at(from, i));
    }
    load_word(&to->overflow, get64(from + INDEX_BUCKET_ENTRIES * 8));
}

int index_load(struct index *index, const void *image)
{
    uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed); /* alone, as above */
    uint64_t buckets = index_image_buckets(image);
    uint64_t overflow = get64((const unsigned char *)image + AT_OVERFLOW);

    if (buckets != index_table_size(table) || get32((const unsigned char *)image + AT_BITS) != index->bits ||
        index_slab_used(&index->slab) != 0) {
        return -EINVAL;
    }
    int r = index_slab_extend(&index->slab, overflow);

    if (r < 0) {
        return r;
    }
    for (uint64_t n = 0; n < buckets; n++) {
        load_bucket(&index_table_buckets(table)[n], bucket_at(image, n));
    }
    for (uint64_t number = 1; number <= overflow; number++) {
        load_bucket(index_slab_at(&index->slab, number), bucket_at(image, buckets + number - 1));
    }
    return 0;
}
