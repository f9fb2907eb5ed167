// SPDX-License-Identifier: MIT
/*
 * cache: records that were read from the device, kept in memory, found by their address in the log.
 *
 * FASTER's read cache hangs copies of records into the index's chains, and has to take them out again before they
 * are stale. Here the key is the address: a record below head never changes and an address is never used
 * twice, so a copy cannot be stale, whoever writes, compacts or grows the index meanwhile; one that was superseded is
 * not asked for any more, and goes with the oldest. It serves snapshots as well.
 *
 * Copies stand in a ring; a table of buckets (8 slots each: tag, position in the ring) leads to them. What is asked
 * for again when it has become old is copied to the ring's end (second chance).
 *
 * Invariants:
 *   1. safe_head <= head <= tail <= safe_head + limit when it is reserved; limit <= size. None but limit moves back.
 *      Positions below head are gone: a slot that has one counts as free.
 *   2. A frame is written again only when everybody who may have found it at or above head, or may still be filling
 *      it, has left the epoch: whoever puts a copy is inside from before it takes the room.
 *   3. A copy is whole before a slot leads to it, and is not changed afterwards.
 *
 * Threads: cache_find() inside an epoch; what it returns is valid until that is left. cache_insert() outside.
 */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include "epoch.h"
#include "record.h"
#include <pthread.h>

struct cache {
    uint64_t size; /* bytes, a power of two; 0: there is no cache, and the rest is unset. Constant */
    uint8_t *ring;
    _Atomic uint64_t *slots; /* tag 16, position 48; 0: free. Stored (release) with the copy, loaded (acquire) */
    uint64_t buckets;        /* constant */
    struct epoch *epoch;
    /* Sequentially consistent where an epoch orders them (epoch.h). */
    _Alignas(64) _Atomic uint64_t tail;
    _Atomic uint64_t head, safe_head; /* stored under evict_lock */
    /* So much of it is used; frames beyond are given back to the kernel. Relaxed: any value of late will do. */
    _Atomic uint64_t limit;
    pthread_mutex_t evict_lock;
};

/* `size`: 0, or a power of two from 64 KiB. Memory is touched on use. -ENOMEM. */
int cache_open(struct cache *cache, uint64_t size, struct epoch *epoch);
void cache_close(struct cache *cache);

/* The record at `address` of the log, or NULL. */
struct record *cache_find(struct cache *cache, uint64_t address);
/* The same of the head of a large record (record_head_bytes()): so a part of its value is one device read. */
const struct record *cache_find_head(struct cache *cache, uint64_t address);
/* Keep a copy of a sound record, without its room to grow, or of its sound head. `slot`: the caller's, outside; it is
 * entered meanwhile. */
void cache_insert(struct cache *cache, struct epoch_slot *slot, uint64_t address, const struct record *record);
void cache_insert_head(struct cache *cache, struct epoch_slot *slot, uint64_t address, const struct record *record);
/* Sets how much memory it may take: 0 to its size. */
void cache_limit(struct cache *cache, uint64_t bytes);
/* Bytes in use. */
uint64_t cache_bytes(const struct cache *cache);

#endif
