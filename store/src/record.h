// SPDX-License-Identifier: MIT
/*
 * record: what the log is made of, in memory as on disk (store/SPEC.md has every bit).
 *
 * Four kinds share the first word, `link`: data records and tombstones (a header of 32 bytes, the key, for large
 * values the sums of their blocks, the value), commit records (the last 128 bytes of a block) and pads (8 bytes that
 * skip `length`).
 *
 * Invariants:
 *   1. Every byte of the log below the tail belongs to a record or a pad; none crosses a boundary
 *      (hlog.h), so the log can be walked from any boundary or commit.
 *   2. `link` address is below the record's own: chains lead down only.
 *   3. At or above safe-read-only, `seal` is a lock; below, it is the checksum over everything that the
 *      record means (not the slack between value_len and capacity), bound to its address and store. Of a large
 *      value it covers the sums: so the head of a record and any block can be believed without the rest.
 *   4. A small value that may still change is written and read in words, each atomic (record_put, record_get).
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log is little-endian and used in place");

#define ADDRESS_MASK ((UINT64_C(1) << 48) - 1)

#define RECORD_TOMBSTONE (UINT64_C(1) << 48)
#define RECORD_COLD (UINT64_C(1) << 49)   /* of the cold level: a chunk leads to it, not the index (cold.h) */
#define RECORD_SEALED (UINT64_C(1) << 50) /* memory only: superseded, not to be changed in place any more */
#define RECORD_PAD (UINT64_C(1) << 52)
#define RECORD_COMMIT (UINT64_C(1) << 53)

#define RECORD_HEADER_BYTES 32u
#define RECORD_VERSION_SHIFT 16

struct record {
    _Atomic uint64_t link; /* previous address of the chain, flags */
    uint64_t stamp;        /* version << 16 | (key length - 1) */
    uint32_t value_len;
    uint32_t capacity; /* bytes set aside for the value, >= value_len */
    _Atomic uint64_t seal;
    uint8_t bytes[]; /* key, padded to 8; sums of the value's blocks, if it is large; value */
};
static_assert(sizeof(struct record) == RECORD_HEADER_BYTES && offsetof(struct record, stamp) == 8 &&
                  offsetof(struct record, value_len) == 16 && offsetof(struct record, seal) == 24,
              "record layout");

/* The last bytes of the block in which a commit ends. */
#define COMMIT_BYTES 128u
#define COMMIT_MAGIC UINT64_C(0x54494d4d4f435346) /* "FSCOMMIT" */
struct commit_record {
    uint64_t link; /* RECORD_COMMIT */
    uint64_t version;
    uint64_t magic;
    uint64_t seal;         /* checksum of the other 120 bytes, bound to address and store */
    uint64_t extent_begin; /* end of the commit before it */
    uint64_t chain_before; /* chain of the commit before it */
    uint64_t chain;        /* chain_before folded with the checksum of every record of the extent */
    uint64_t records;      /* how many */
    uint64_t incarnation;  /* of the store: counts opens for writing */
    uint64_t durable;      /* the log below was on stable media when this was written */
    uint64_t reserved[6];
};
static_assert(sizeof(struct commit_record) == COMMIT_BYTES, "commit layout");

static inline uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) & ~(to - 1);
}

/* A value with a capacity above RECORD_WHOLE has a checksum for each RECORD_BLOCK bytes of it, in front of it, filled
 * in when the record is sealed: a part of it can then be read from the device and believed. */
#define RECORD_WHOLE 16384u
#define RECORD_BLOCK 4096u

static inline uint64_t record_blocks(uint32_t len)
{
    return round_up(len, RECORD_BLOCK) / RECORD_BLOCK;
}

static inline uint64_t record_sums_bytes(uint32_t capacity)
{
    return capacity > RECORD_WHOLE ? record_blocks(capacity) * 8 : 0;
}

/* Everything in front of the value. */
static inline uint64_t record_head_bytes(uint32_t key_len, uint32_t capacity)
{
    return RECORD_HEADER_BYTES + round_up(key_len, 8) + record_sums_bytes(capacity);
}

static inline uint64_t record_bytes(uint32_t key_len, uint32_t capacity)
{
    return record_head_bytes(key_len, capacity) + round_up(capacity, 8);
}

static inline uint32_t record_key_len(const struct record *r)
{
    return (uint32_t)(r->stamp & 0xffff) + 1;
}

static inline uint64_t record_version(const struct record *r)
{
    return r->stamp >> RECORD_VERSION_SHIFT;
}

static inline uint64_t record_stamp(uint64_t version, uint32_t key_len)
{
    return version << RECORD_VERSION_SHIFT | (key_len - 1);
}

static inline uint64_t record_size(const struct record *r)
{
    return record_bytes(record_key_len(r), r->capacity);
}

/* Of that what it means: all but the room to grow. */
static inline uint64_t record_used_bytes(const struct record *r)
{
    return record_head_bytes(record_key_len(r), r->capacity) + r->value_len;
}

static inline uint8_t *record_value(struct record *r)
{
    return r->bytes + round_up(record_key_len(r), 8) + record_sums_bytes(r->capacity);
}

static inline bool record_has_key(const struct record *r, const void *key, uint32_t key_len)
{
    return record_key_len(r) == key_len && memcmp(r->bytes, key, key_len) == 0;
}

/* Fills in the sums of a record that no longer changes, and gives its checksum; `link` without memory-only bits. */
uint64_t record_seal(struct record *r, uint64_t link, uint64_t address, uint64_t store_id);
/* Of what was read from the device: is it what was sealed? The head (of a value without sums: all of it); blocks
 * [first, end) of the value, at `bytes`, by a sound head; the whole. */
bool record_head_is_sound(const struct record *r, uint64_t link, uint64_t address, uint64_t store_id);
bool record_blocks_are_sound(const struct record *r, uint64_t first, uint64_t end, const uint8_t *bytes);
bool record_is_sound(struct record *r, uint64_t link, uint64_t address, uint64_t store_id);
uint64_t commit_checksum(const struct commit_record *c, uint64_t address, uint64_t store_id);

/* A pad of `length` bytes (8 at least, multiple of 8) as its first word, and back: 0 if the word is not
 * a sound pad of that address. */
uint64_t pad_word(uint64_t address, uint64_t length);
uint64_t pad_length(uint64_t word, uint64_t address);

static inline uint64_t chain_fold(uint64_t chain, uint64_t checksum)
{
    return ((chain << 1 | chain >> 63) ^ checksum) * UINT64_C(0x9e3779b97f4a7c15);
}

uint64_t hash_key(const void *key, uint32_t key_len);

/* ---- the lock of a record that may still change ---------------------------------------------------
 *
 *     63         62..16                15..0
 *     exclusive  changes (a sequence)  readers inside
 *
 * One changes it, exclusively. Large values are read under a shared lock. Small ones, whose readers would spend
 * more on the lock than on the value, are read without: they read the sequence, the value, and the
 * sequence again. Which of the two it is depends on the capacity, which never changes.
 */
#define RECORD_EXCLUSIVE (UINT64_C(1) << 63)
#define RECORD_CHANGE (UINT64_C(1) << 16)
#define RECORD_READERS (RECORD_CHANGE - 1)
#define RECORD_SMALL 256u

static inline bool record_is_small(const struct record *r)
{
    return r->capacity <= RECORD_SMALL;
}

/* Acquire on success, pairing with the release of the unlocks below: the value bytes that the holder
 * before wrote are seen. Nobody holds it across a wait, so spinning is short. */
bool record_try_lock(struct record *r);
void record_unlock(struct record *r);
void record_lock_shared(struct record *r);
void record_unlock_shared(struct record *r);

/* A small record, exclusively locked: replaces value and length. `value` may have any alignment. */
void record_put(struct record *r, const void *value, uint32_t len);
/* A small record that may be changing: its flags and length as they were together with the value, whose first
 * bytes go to `buf`, as many as there is `room` for; what is in `buf` behind them may be of a longer value before. */
uint64_t record_get(struct record *r, void *buf, uint32_t room, uint32_t *ret_len);

#endif
