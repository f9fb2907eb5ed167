// SPDX-License-Identifier: MIT
/*
 * index: hash -> log address of the newest record of a chain (FASTER, SIGMOD 2018, section 3), in a table
 * that doubles while operations run.
 *
 * A hash is a string of 64 bits, the highest first. In a table of level k (2^k buckets of 64 bytes: seven
 * entries and the number of an overflow bucket) its first k bits are the bucket, and an entry holds the
 * n = `bits` - k behind them, n <= 13:
 *
 *     63        62      61..48                        47..0
 *     tentative locked  n bits, a one, zeros          address       (0: free)
 *
 * So an entry stands for all hashes that begin with its bucket's k bits and its own n: it matches them. When
 * the table doubles, the first of an entry's bits becomes the last of its bucket (bucket b splits into 2b and
 * 2b + 1); the log is not read for that. The index never reads the log: keys whose hashes match one entry share
 * it, and a chain in the log.
 *
 * `bits` is the same in every table that a store ever has. So which keys share a chain is the same too, whenever
 * the table doubled: a replay of the log in a table of another size finds the chains that are in the log. With
 * fewer bits two chains would meet in one entry, and all that one of them leads to would be lost.
 *
 * Invariants:
 *   1. No two entries of a bucket's chain that are not tentative match a common hash.
 *   2. An entry whose address is INDEX_NONE exists but has no record.
 *   3. While `locked` alone is set only the thread that set it changes the entry. Readers ignore the bit.
 *   4. Both bits: the entry is frozen, its bucket is being split. It may be read; nobody changes it.
 *   5. A slot is valid until the epoch is left. It may become another entry's meanwhile: what counts is the
 *      entry that was loaded with it, and every change is a CAS from exactly that entry.
 *   6. n is 4 at least: growth that would leave fewer is refused. So a table of n = 13 becomes 512 times as
 *      large at most.
 *
 * Threads: any number in find and create, inside an epoch. They take no lock and wait for nobody but another
 * thread that is creating the same entry; an operation that meets a frozen bucket is told so and tries again
 * outside the epoch. Growth, sweep and save run beside them, on threads outside epochs, and exclude each
 * other by a mutex; open, close and load run alone.
 */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INDEX_ADDRESS_MASK ((UINT64_C(1) << 48) - 1)
#define INDEX_LOCKED (UINT64_C(1) << 62)
#define INDEX_TENTATIVE (UINT64_C(1) << 63)
#define INDEX_FROZEN (INDEX_LOCKED | INDEX_TENTATIVE)
#define INDEX_NONE UINT64_C(1) /* address of an entry without a record; no record is ever there */

typedef _Atomic uint64_t index_slot;

struct epoch;
struct index;

#define INDEX_KNOWN_MAX 13u /* bits of the hash in an entry, its bucket's not counted */
#define INDEX_KNOWN_MIN 4u

/* `buckets`: 2^k from 64 to 2^40, `bits`: k + 4 to k + 13, else -EINVAL. `epoch` is the one that find and create are
 * called in, and outlives the index. Memory is mapped at once and touched on use (in 2 MiB pages, where the kernel has
 * them, from a table of 32 MiB on). -ENOMEM. */
int index_open(uint64_t buckets, unsigned bits, struct epoch *epoch, struct index **ret_index);
void index_close(struct index *index);

/* The slot of the entry for the hash, or NULL. *ret_entry is the entry (acquire: what was written before it
 * was published is seen), perhaps locked or frozen. Inside an epoch. */
index_slot *index_find(struct index *index, uint64_t hash, uint64_t *ret_entry);
/* The same, but the entry is made, with INDEX_NONE, if there is none. -EAGAIN: the bucket is being split;
 * leave the epoch and try again. -ENOMEM: there was no entry and its chain could not get another overflow
 * bucket. Inside an epoch. */
int index_find_or_create(struct index *index, uint64_t hash, index_slot **ret_slot, uint64_t *ret_entry);

/* Asks the processor for the bucket of the hash. A hint: any thread, in an epoch or not. */
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

/* Locks the entry if it is still `entry`, and that is neither locked nor frozen. Success means that nobody
 * published since it was loaded. To be unlocked before the epoch is left. */
static inline bool index_try_lock(index_slot *slot, uint64_t entry)
{
    /* acquire: pairs with index_unlock(); what the owner does stays behind. release: nothing of the plan that
     * led here moves behind it. */
    return !(entry & INDEX_LOCKED) &&
           atomic_compare_exchange_strong_explicit(slot, &entry, entry | INDEX_LOCKED, memory_order_acq_rel,
                                                   memory_order_relaxed);
}
/* Gives an entry that the caller has locked another address; it stays locked. */
static inline void index_publish(index_slot *slot, uint64_t address)
{
    /* relaxed: ours. release: whoever loads the entry (acquire) sees the record. */
    uint64_t entry = atomic_load_explicit(slot, memory_order_relaxed);

    atomic_store_explicit(slot, index_entry_with(entry, address) | INDEX_LOCKED, memory_order_release);
}
static inline void index_unlock(index_slot *slot)
{
    /* relaxed: ours. release: pairs with the acquire of whoever loads or locks it next. */
    uint64_t entry = atomic_load_explicit(slot, memory_order_relaxed);

    atomic_store_explicit(slot, entry & ~INDEX_LOCKED, memory_order_release);
}

/* Does a part of a growth: begins one, which doubles the table, or goes on with it. 1: call again for the next
 * part (some milliseconds each); 0: the table has doubled. -ENOMEM: there is no memory for the new table or
 * for the next bucket; what is done stays done, everything works, and a later call goes on. -E2BIG: the table
 * is as large as it can be (invariant 6). -EBUSY: a save or a sweep is running, try again later. Any thread
 * outside an epoch. */
int index_grow(struct index *index);
/* Is a growth under way, or are there so many overflow buckets that doubling pays? False if index_grow() would
 * refuse. Cheap. Any thread. */
bool index_wants_growth(const struct index *index);

/* Takes out the entries that lead nowhere: without a record, or to an address below `begin`; and gives back
 * overflow buckets that are empty then. Ends a growth that is under way first; if that fails it does nothing.
 * Any thread outside an epoch; waits for a growth's part or a save. */
void index_sweep(struct index *index, uint64_t begin);

/* Bytes of the tables, touched or not, and of the overflow buckets. Cheap. Any thread. */
uint64_t index_bytes(const struct index *index);

struct index_counts {
    uint64_t buckets, next_buckets; /* next_buckets: of the table that a growth is filling; 0: none */
    uint64_t overflow_buckets;      /* in use */
    uint64_t memory_bytes;          /* table pages in memory, and overflow */
};
/* Asks the kernel page by page: about a millisecond a GiB. Any thread. */
void index_count(struct index *index, struct index_counts *ret_counts);

/*
 * The image: the index as bytes on disk, format in store/SPEC.md. It can be loaded into an index of
 * the same size or used where it is, read-only, as a snapshot's index.
 */

/* Writes an image while other threads go on: an entry's address is one that it had at some moment
 * during the call, or free if the entry was created meanwhile. `write` gets consecutive pieces of
 * multiples of 4096 bytes, 4096-aligned, valid during the call; its first result other than 0 ends the
 * save and is returned. Locked bits are cleared, tentative entries and INDEX_NONE left out. Every entry
 * that had an address when the call began is in the image. Ends a growth that is under way first. -ENOMEM
 * before any write. Any thread outside an epoch; waits for a growth's part or a sweep. */
int index_save(struct index *index, uint64_t store_id, uint64_t image_id,
               int (*write)(void *ctx, const void *bytes, uint32_t len), void *ctx);

/* An image that is read where it is: the caller sets the first two. Constant once open; any thread. */
struct index_image {
    int (*read)(void *ctx, uint64_t offset, void *buf, uint32_t len); /* all of it: 0, else -errno */
    void *ctx;
    uint64_t buckets, overflow, header_sum;
    unsigned level, bits; /* bits: of the hash that its entries stand for */
};
/* Reads the header of an image of `len` bytes and checks it, the two ids with it. -EUCLEAN with *ret_why (constant
 * text; untouched on success); -ENOMEM; what `read` says. */
int index_image_open(struct index_image *image, uint64_t len, uint64_t store_id, uint64_t image_id,
                     const char **ret_why);
/* Reads all of it and checks it: every checksum, that each overflow bucket is in one chain, that no two entries of a
 * chain match a hash, that addresses are below `reach`. As index_image_open(). Takes 160 KiB meanwhile. */
int index_image_check(const struct index_image *image, uint64_t reach, const char **ret_why);
/* Address for the hash in a checked image; 0 if there is none. -EIO: it cannot be read any more, or is not what it was.
 * Waits for the disk. */
int index_image_find(const struct index_image *image, uint64_t hash, uint64_t *ret_address);
/* Adds all entries of a checked image to an empty index of as many buckets and the same bits; another size, or an index
 * that is not empty as far as seen, gets -EINVAL. -ENOMEM, and the index is still empty. What `read` says, or -EUCLEAN:
 * the index is worth nothing. */
int index_load(struct index *index, const struct index_image *image);

#endif
