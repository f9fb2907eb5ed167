// SPDX-License-Identifier: MIT
/*
 * cold: the cold level of a store (F2, VLDB 2025): what survives in the oldest part of its log is put here. It is a
 * store of its own, of two kinds of records:
 *
 *     chunk        an ordinary key: its number. The value is an array of entries of 8 bytes: 19 bits of the hash, and
 *                  the address of the newest cold record of a chain.
 *     cold record  a key of the hot store, or a tombstone, with RECORD_COLD: a chunk's entry leads to it, not the
 * index. It links to the one before it of its entry.
 *
 * So in memory there is an entry of the index for a chunk (FILL keys, about), less than a byte a key. A read is one of
 * the chunk, most often from memory, and one of the record. Durability, space, checksums and recovery are the store's.
 *
 * The chunks are split one after the other as the entries become more (linear hashing). Of 2^k + s chunks, 2^k are of
 * level k, numbered by the first k bits of the hash, and the first s of these have been split into two of level k + 1.
 * The number of a chunk is its bits behind a one, which tells both. `chunks` says all there is to know, and so does the
 * one state record, which every unit writes.
 *
 * Invariants:
 *   1. A unit writes records, and behind them the chunks that lead to them: both are there, or neither.
 *   2. Entries and links lead down; below the begin of the level's log all is dead. Of a key the first record of its
 *      chain counts.
 *   3. Only the holder of `lock` changes chunks and appends cold records. What it knows of them stays right meanwhile.
 *   4. A chunk that was split is left as it was until `chunks` has been raised: a reader who had the number before
 * finds what was right at a moment of its read. One who does not find it looks at the number again.
 *   5. A cold tombstone hides what is below it in the log: compaction drops it where the log then begins.
 *   6. Which keys share a chain is said by the first `bits` bits of the hash, whatever the number of chunks; those of
 * an entry are the last 19 of them, so an entry can be told to one of two new chunks without its record.
 *
 * Threads: any number of readers, each with its session; of writers one at a time (`lock`, taken inside). Nothing that
 * holds the lock waits for compaction.
 */
#ifndef STORE_COLD_H
#define STORE_COLD_H

#include "hlog.h"
#include <pthread.h>
#include <store/store.h>

#define COLD_TAG_BITS 19u
#define COLD_ADDRESS_BITS 45u /* of an address by 8 */

static inline uint64_t cold_entry_address(uint64_t entry)
{
    return (entry & ((UINT64_C(1) << COLD_ADDRESS_BITS) - 1)) << 3;
}
static inline uint64_t cold_entry_tag(uint64_t entry)
{
    return entry >> COLD_ADDRESS_BITS;
}
static inline uint64_t cold_entry(uint64_t tag, uint64_t address)
{
    return tag << COLD_ADDRESS_BITS | address >> 3;
}
static inline uint64_t cold_entry_with(uint64_t entry, uint64_t address)
{
    return cold_entry(cold_entry_tag(entry), address);
}

struct cold_state { /* as it is on disk: the value of chunk 0, which is none */
    uint64_t chunks, entries;
    uint32_t bits, reserved;
};

struct cold_work;

struct cold {
    struct store *store; /* the level's own */
    unsigned bits;       /* constant */
    /* Written under lock. Sequentially consistent: who misses a chunk that was split sees the new number. */
    _Atomic uint64_t chunks;
    _Atomic uint64_t entries; /* in all chunks, dead ones too; written under lock, read as a statistic */

    pthread_mutex_t lock;
    struct store_session *session; /* lock, and all below */
    struct cold_work *work;
    uint64_t stale;          /* number of the chunk that was split last and is still there; 0: none */
    struct cold_state state; /* what the unit that is being made writes */
};

/* Makes the open store, not yet in its background, the cold level that it is. -EUCLEAN: its state is not. */
int cold_open(struct store *store, struct cold **ret_cold);
void cold_close(struct cold *cold);

/* A record to be put, or one that is there and is to be moved. */
struct cold_item {
    const uint8_t *key, *value;
    uint32_t key_len, value_len;
    uint64_t hash; /* hash_key() */
    uint64_t at;   /* put: the caller's; move: where it is in the level's log, kept meanwhile */
    bool tombstone;
};

/* Puts the records in front of whatever the level has of their keys; a tombstone only if there is anything. Of a key
 * there is one at most. Sorts them. Errors of a unit: some of them may have been put then. -EFBIG: one is too large. */
int cold_put(struct cold *cold, struct cold_item *items, unsigned count, enum hlog_taker taker);
/* Appends those of the records again that their chunks lead to. *ret_bytes is what that took. */
int cold_move(struct cold *cold, struct cold_item *items, unsigned count, enum hlog_taker taker, uint64_t *ret_bytes);
/* Is the record at `address` of the level's log what its key has? 1, 0 or -errno. `ceiling`: records from there on are
 * passed over; `snapshot`: NULL or of the store, for what it had. By a session of the level; the log is kept meanwhile.
 */
int cold_is_live(struct cold *cold, struct store_session *session, const struct store_snapshot *snapshot,
                 const void *key, uint32_t key_len, uint64_t address, uint64_t ceiling);

/* How many chunks there were at the moment of the level's snapshot. */
int cold_chunks_of(struct cold *cold, const struct store_snapshot *snapshot, uint64_t *ret_chunks);

/* ---- reading (cold_read.c) -------------------------------------------------------------------------- */

#define COLD_CHUNK_ENTRIES 96u /* found without another read; there are seldom more */

struct cold_read {
    struct cold *cold;                                     /* set by the caller, to `done` */
    struct store_session *session;                         /* of the level */
    struct store_read *read;                               /* key, offset, buf, value_hint, snapshot; gets the value */
    void (*done)(struct cold_read *cold_read, int result); /* called if it was STORE_PENDING */

    uint64_t hash, chunks, number;
    uint64_t low; /* begin of the level's log before the chunk was looked for: below it all was dead already */
    uint64_t above, ceiling; /* above > 0: only records in [above, ceiling) are looked for, in a log that is kept */
    unsigned asked;          /* questions: chunks and chains */
    bool in_chain;           /* the last one was of a chain */
    struct store_read chunk, record;
    uint64_t *large; /* NULL or a buffer for a chunk of `room` entries; malloc'ed */
    uint32_t room;
    uint64_t few[COLD_CHUNK_ENTRIES];
    struct store_session *owner; /* the caller's, both */
    struct cold_read *next;
};

/* Starts one: its result, or STORE_PENDING. */
int cold_read_start(struct cold_read *cold_read);

/* Number of the chunk for the hash; of an entry in it, or NULL. */
uint64_t cold_chunk_of(uint64_t hash, uint64_t chunks);
uint64_t cold_tag_of(const struct cold *cold, uint64_t hash);
uint64_t *cold_find(uint64_t *entries, uint32_t count, uint64_t tag);

#endif
