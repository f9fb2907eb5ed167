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
 * It is read by pieces and by buckets, never mapped: a page that the disk cannot read is an errno so, and would be a
 * signal otherwise. The check reads all of it once, at two places that move on: the table's, and the overflow buckets'.
 * index_image_find() reads the buckets that it needs, which were checked and are not summed again.
 *
 * Invariants of an image that index_image_check() has passed:
 *   1. Its length is what the header's counts give; every byte is under a checksum or checked to be 0.
 *   2. Every overflow bucket is in one chain, in order; chains end.
 *   3. An entry is 0, or has the image's number of bits and an address above INDEX_NONE and below `reach`; no two of
 *      a chain match a hash.
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

/* ---- reading ------------------------------------------------------------------------------------ */

static uint64_t entry_at(const unsigned char *bucket, unsigned i)
{
    return get64(bucket + i * 8);
}

static uint64_t link_at(const unsigned char *bucket)
{
    return get64(bucket + INDEX_BUCKET_ENTRIES * 8);
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

/* Each check returns why not, or NULL. */
static const char *check_header(const unsigned char *header, uint64_t len, struct layout *ret_layout)
{
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
    unsigned known = get32(header + AT_BITS) - (unsigned)__builtin_ctzll(buckets);

    if (known < INDEX_KNOWN_MIN || known > INDEX_KNOWN_MAX) {
        return "index image header has an impossible number of bits";
    }
    if (get64(header + AT_PIECES) != ret_layout->pieces || get64(header + AT_TOTAL) != ret_layout->total) {
        return "index image header has sizes that contradict each other";
    }
    return len == ret_layout->total ? NULL : "index image is longer or shorter than its header says";
}

static int open_with_header(struct index_image *image, const unsigned char *header, uint64_t len, uint64_t store_id,
                            uint64_t image_id, const char **ret_why)
{
    struct layout layout;
    const char *why = check_header(header, len, &layout);

    if (!why && get64(header + AT_STORE_ID) != store_id) {
        why = "index image belongs to another store";
    }
    if (!why && get64(header + AT_IMAGE_ID) != image_id) {
        why = "index image is not the one that was asked for";
    }
    if (why) {
        *ret_why = why;
        return -EUCLEAN;
    }
    image->buckets = layout.buckets;
    image->overflow = layout.overflow;
    image->level = (unsigned)__builtin_ctzll(layout.buckets);
    image->bits = get32(header + AT_BITS);
    image->header_sum = get64(header + AT_CHECKSUM);
    return 0;
}

int index_image_open(struct index_image *image, uint64_t len, uint64_t store_id, uint64_t image_id,
                     const char **ret_why)
{
    if (len < BLOCK) {
        *ret_why = "index image is shorter than its header";
        return -EUCLEAN;
    }
    unsigned char *header = malloc(BLOCK);
    int r = header ? image->read(image->ctx, 0, header, (uint32_t)BLOCK) : -ENOMEM;

    if (r == 0) {
        r = open_with_header(image, header, len, store_id, image_id, ret_why);
    }
    free(header);
    return r;
}

int index_image_find(const struct index_image *image, uint64_t hash, uint64_t *ret_address)
{
    uint64_t tag = index_tag(hash, image->level, image->bits), n = hash >> (64 - image->level);
    unsigned char bucket[BUCKET];

    *ret_address = 0;
    for (uint64_t steps = 0; steps <= image->overflow; steps++) {
        int r = image->read(image->ctx, BLOCK + n * BUCKET, bucket, (uint32_t)BUCKET);

        if (r < 0) {
            return r == -ENOMEM ? r : -EIO;
        }
        for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
            uint64_t entry = entry_at(bucket, i);

            if (index_matches(entry, tag)) {
                *ret_address = index_address(entry);
                return 0;
            }
        }
        uint64_t link = link_at(bucket);

        if (link == 0) {
            return 0;
        }
        if (link > image->overflow) {
            break;
        }
        n = image->buckets + link - 1;
    }
    return -EIO; /* that was not so when it was checked */
}

/* ---- reading all of it: pieces in order, each against its sum -------------------------------------- */

/* One place in the buckets, moving on: the piece that it is in. */
struct cursor {
    const struct index_image *image;
    struct layout layout;
    unsigned char *piece; /* PIECE bytes */
    uint64_t number;      /* of the piece; UINT64_MAX: none yet */
};

static int cursor_open(struct cursor *cursor, const struct index_image *image)
{
    *cursor = (struct cursor){.image = image,
                              .layout = layout_of(image->buckets, image->overflow),
                              .piece = aligned_alloc(BLOCK, PIECE),
                              .number = UINT64_MAX};
    return cursor->piece ? 0 : -ENOMEM;
}

static void cursor_close(struct cursor *cursor)
{
    free(cursor->piece);
}

/* -EUCLEAN: its sum is another. */
static int read_piece(struct cursor *cursor, uint64_t number)
{
    const struct index_image *image = cursor->image;
    const struct layout *l = &cursor->layout;
    uint32_t len = piece_len(l, number);
    unsigned char sum[8];

    cursor->number = UINT64_MAX;
    int r = image->read(image->ctx, BLOCK + number * PIECE, cursor->piece, len);

    if (r == 0) {
        r = image->read(image->ctx, BLOCK + l->body_bytes + number * 8, sum, sizeof(sum));
    }
    if (r == 0 && piece_sum(cursor->piece, len, image->header_sum, number) != get64(sum)) {
        r = -EUCLEAN;
    }
    if (r == 0) {
        cursor->number = number;
    }
    return r;
}

/* Bucket n: first the table's, then the overflow buckets, of which number 1 is bucket `buckets`. Valid until the next
 * call. */
static int cursor_bucket(struct cursor *cursor, uint64_t n, const unsigned char **ret_bucket)
{
    uint64_t number = n / PIECE_BUCKETS;
    int r = cursor->number == number ? 0 : read_piece(cursor, number);

    *ret_bucket = cursor->piece + n % PIECE_BUCKETS * BUCKET;
    return r;
}

/* ---- check -------------------------------------------------------------------------------------- */

#define TAGS_MAX ((INDEX_TAG_MASK >> INDEX_TAG_SHIFT) + 1)

struct check {
    struct cursor table, overflow;
    uint64_t reach;
    unsigned known;               /* bits of the hash in an entry */
    uint64_t links;               /* overflow buckets that links led to */
    uint64_t seen[TAGS_MAX / 64]; /* tags of the chain, a bit each; */
    uint16_t tags[TAGS_MAX];      /* and as they came */
    unsigned tag_count;
    const char *why;
};

static bool entry_is_sound(uint64_t entry, unsigned known)
{
    return !(entry & INDEX_FROZEN) && (entry & INDEX_TAG_MASK) && index_known(entry) == known &&
           index_address(entry) > INDEX_NONE;
}

/* The entries of a bucket, and whether their tags are new in the chain. */
static int check_entries(struct check *check, const unsigned char *bucket)
{
    for (unsigned i = 0; i < INDEX_BUCKET_ENTRIES; i++) {
        uint64_t entry = entry_at(bucket, i), tag = (entry & INDEX_TAG_MASK) >> INDEX_TAG_SHIFT;

        if (entry == 0) {
            continue;
        }
        if (!entry_is_sound(entry, check->known)) {
            check->why = "index image has an entry that cannot be";
        } else if (index_address(entry) >= check->reach) {
            check->why = "index image is not that of its checkpoint";
        } else if (check->seen[tag / 64] & UINT64_C(1) << tag % 64) {
            check->why = "index image has two entries for one hash";
        }
        if (check->why) {
            return -EUCLEAN;
        }
        check->seen[tag / 64] |= UINT64_C(1) << tag % 64;
        check->tags[check->tag_count++] = (uint16_t)tag;
    }
    return 0;
}

/* A link is the number after that of the link before, in the order of the chains: so each overflow bucket is in one
 * chain, and chains end. */
static int check_chain(struct check *check, const unsigned char *bucket)
{
    const struct index_image *image = check->table.image;
    int r = check_entries(check, bucket);

    for (uint64_t link; r == 0 && (link = link_at(bucket)) != 0;) {
        if (link != ++check->links || link > image->overflow) {
            check->why = "index image has a link that leads elsewhere";
            return -EUCLEAN;
        }
        r = cursor_bucket(&check->overflow, image->buckets + link - 1, &bucket);
        if (r == 0) {
            r = check_entries(check, bucket);
        }
    }
    while (check->tag_count > 0) {
        unsigned tag = check->tags[--check->tag_count];

        check->seen[tag / 64] &= ~(UINT64_C(1) << tag % 64);
    }
    return r;
}

/* What is beyond the last bucket, and beyond the last sum, is zero. */
static int check_padding(struct check *check)
{
    const struct index_image *image = check->table.image;
    const struct layout *l = &check->table.layout;
    uint64_t end = l->pieces * 8;
    const unsigned char *bytes;
    int r = 0;

    for (uint64_t n = image->buckets + image->overflow; n < l->body_bytes / BUCKET && r == 0; n++) {
        r = cursor_bucket(&check->overflow, n, &bytes);
        if (r == 0 && !bucket_is_zero(bytes)) {
            check->why = "index image has something behind its buckets";
            return -EUCLEAN;
        }
    }
    if (r == 0) { /* less than a block */
        check->table.number = UINT64_MAX;
        r = image->read(image->ctx, BLOCK + l->body_bytes + end, check->table.piece, (uint32_t)(l->sums_bytes - end));
    }
    for (uint64_t at = 0; at < l->sums_bytes - end && r == 0; at++) {
        if (check->table.piece[at] != 0) {
            check->why = "index image has something behind its checksums";
            return -EUCLEAN;
        }
    }
    return r;
}

static int check_all(struct check *check)
{
    const struct index_image *image = check->table.image;
    const unsigned char *bucket;
    int r = 0;

    for (uint64_t n = 0; n < image->buckets && r == 0; n++) {
        r = cursor_bucket(&check->table, n, &bucket);
        if (r == 0 && !bucket_is_zero(bucket)) {
            r = check_chain(check, bucket);
        }
    }
    if (r == 0 && check->links != image->overflow) {
        check->why = "index image has an overflow bucket that no link leads to";
        r = -EUCLEAN;
    }
    return r == 0 ? check_padding(check) : r;
}

int index_image_check(const struct index_image *image, uint64_t reach, const char **ret_why)
{
    struct check *check = calloc(1, sizeof(*check));

    if (!check) {
        return -ENOMEM;
    }
    check->reach = reach;
    check->known = image->bits - image->level;
    int r = cursor_open(&check->table, image);

    if (r == 0) {
        r = cursor_open(&check->overflow, image);
    }
    if (r == 0) {
        r = check_all(check);
    }
    if (r == -EUCLEAN) {
        *ret_why = check->why ? check->why : "index image has a wrong checksum";
    }
    cursor_close(&check->overflow);
    cursor_close(&check->table);
    free(check);
    return r;
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

/* Bucket n of the image is bucket n of the table, or the overflow bucket of its number. */
static int load_all(struct index *index, struct index_bucket *table, struct cursor *cursor)
{
    uint64_t buckets = cursor->image->buckets, all = buckets + cursor->image->overflow;
    const unsigned char *bucket;
    int r = 0;

    for (uint64_t n = 0; n < all && r == 0; n++) {
        r = cursor_bucket(cursor, n, &bucket);
        if (r == 0) {
            load_bucket(n < buckets ? &table[n] : index_slab_at(&index->slab, n - buckets + 1), bucket);
        }
    }
    return r;
}

int index_load(struct index *index, const struct index_image *image)
{
    uint64_t table = atomic_load_explicit(&index->table, memory_order_relaxed); /* alone, as above */
    struct cursor cursor;

    if (image->buckets != index_table_size(table) || image->bits != index->bits || index_slab_used(&index->slab) != 0) {
        return -EINVAL;
    }
    int r = cursor_open(&cursor, image);

    if (r == 0) {
        r = index_slab_extend(&index->slab, image->overflow);
    }
    if (r == 0) {
        r = load_all(index, index_table_buckets(table), &cursor);
    }
    cursor_close(&cursor);
    return r;
}
