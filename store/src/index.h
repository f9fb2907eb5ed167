// SPDX-License-Identifier: MIT
/*
 * index: hash -> log address of the newest record of a chain (FASTER, SIGMOD 2018, section 3).
 *
 * A table of 2^k buckets of 64 bytes: seven entries and the address of an overflow bucket. An entry is
 *
 *     63        62      61..48   47..0
 *     tentative locked  tag      address       (0: free)
 *
 * The bucket is the low bits of the hash, the tag its top 14 bits. The index compares tags only; it
 * never reads the log, so keys that share bucket and tag share one entry and a chain in the log.
 *
 * Invariants:
 *   1. At most one entry that is not tentative for each (bucket, tag).
 *   2. A used entry is never freed or moved while the index lives; so a slot pointer stays valid.
 *   3. An entry whose address is INDEX_NONE exists but has no record.
 *   4. While `locked` is set only the thread that set it changes the entry. Readers ignore the bit.
 *
 * Threads: any number. Nothing takes a lock; a create backs off while another thread is creating the
 * same (bucket, tag). The save runs beside everything (one at a time); open, close and load run alone.
 */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INDEX_ADDRESS_MASK ((UINT64_C(1) << 48) - 1)
#define INDEX_TAG_SHIFT 48
#define INDEX_LOCKED (UINT64_C(1) << 62)
#define INDEX_TENTATIVE (UINT64_C(1) << 63)
#define INDEX_NONE UINT64_C(1) /* address of an entry without a record; no record is ever there */

typedef _Atomic uint64_t index_slot;

struct index;

/* `buckets`: a power of two from 64 to 2^40, else -EINVAL. Memory is mapped at once and touched on use
 * (in 2 MiB pages, where the kernel has them, from a table of 32 MiB on). -ENOMEM. */
int index_open(uint64_t buckets, struct index **ret_index);
void index_close(struct index *index);

/* The entry for the hash, or NULL. Inside an epoch. */
index_slot *index_find(struct index *index, uint64_t hash);
/* The entry for the hash, made with INDEX_NONE if there is none. Inside an epoch. -ENOMEM: there was none
 * and its chain could not get another overflow bucket; nothing changed. */
int index_find_or_create(struct index *index, uint64_t hash, index_slot **ret_slot);

/* Asks the processor for the bucket of the hash. */
void index_prefetch(const struct index *index, uint64_t hash);

static inline uint64_t index_address(uint64_t entry)
{
    return entry & INDEX_ADDRESS_MASK;
}
/* `entry` with another address, unlocked. */
static inline uint64_t index_entry_with(uint64_t entry, uint64_t address)
{
    return (entry & ~(INDEX_ADDRESS_MASK | INDEX_LOCKED)) | address;
}

struct index_counts {
    uint64_t buckets, overflow_buckets, memory_bytes; /* memory_bytes: table pages in memory, and overflow */
};
/* Asks the kernel page by page: about a millisecond a GiB. */
void index_count(const struct index *index, struct index_counts *ret_counts);

/*
 * The image: the index as bytes on disk, format in store/SPEC.md. It can be loaded into an index of
 * the same size or used in place, read-only, as a snapshot's index.
 */

/* Writes an image while other threads go on: an entry's address is one that it had at some moment
 * during the call, or free if the entry was created meanwhile. `write` gets consecutive pieces of
 * multiples of 4096 bytes, 4096-aligned, valid during the call; its first result other than 0 ends the
 * save and is returned. Locked bits are cleared, tentative entries and INDEX_NONE left out. Every entry
 * that had an address when the call began is in the image. Needs no epoch. -ENOMEM before any write. */
int index_save(struct index *index, uint64_t store_id, uint64_t image_id,
               int (*write)(void *ctx, const void *bytes, uint32_t len), void *ctx);

/* Checks all of an image: sizes, every checksum, that overflow links stay inside and do not loop, the
 * two ids, that no chain has a tag twice. -EUCLEAN with *ret_why (constant text; untouched on success). */
int index_image_check(const void *image, uint64_t len, uint64_t store_id, uint64_t image_id, const char **ret_why);
/* Address for the hash in a checked image; 0 if there is none. */
uint64_t index_image_find(const void *image, uint64_t hash);
/* Adds all entries of a checked image to an empty index of index_image_buckets() buckets; another size,
 * or an index that is not empty as far as seen, gets -EINVAL: a larger table needs bits of the hash that
 * the image does not have, and in a smaller one two entries of one tag would meet in a bucket, each with
 * a chain of its own in the log (invariant 1). -ENOMEM, and the index is still empty. */
uint64_t index_image_buckets(const void *image);
int index_load(struct index *index, const void *image);

#endif
