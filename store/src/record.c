// SPDX-License-Identifier: MIT
#include "record.h"

#include <sched.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash_key(const void *key, uint32_t key_len)
{
    return XXH3_64bits(key, key_len);
}

static const uint64_t *sums_of(const struct record *r)
{
    return (const uint64_t *)(const void *)(r->bytes + round_up(record_key_len(r), 8));
}

static uint64_t block_sum(const struct record *r, uint64_t block, const uint8_t *bytes)
{
    uint64_t rest = r->value_len - block * RECORD_BLOCK;

    return XXH3_64bits(bytes, rest < RECORD_BLOCK ? rest : RECORD_BLOCK);
}

static uint64_t checksum(const struct record *r, uint64_t link, uint64_t address, uint64_t store_id)
{
    uint64_t body = r->capacity > RECORD_WHOLE ? record_blocks(r->value_len) * 8 : r->value_len;
    struct {
        uint64_t link, stamp, lengths, address, store_id;
    } head = {link, r->stamp, (uint64_t)r->capacity << 32 | r->value_len, address, store_id};
    uint64_t sum = XXH3_64bits(&head, sizeof head);

    return XXH3_64bits_withSeed(r->bytes, round_up(record_key_len(r), 8) + body, sum);
}

uint64_t record_seal(struct record *r, uint64_t link, uint64_t address, uint64_t store_id)
{
    uint64_t *sums = (uint64_t *)(uintptr_t)sums_of(r);
    const uint8_t *value = record_value(r);

    for (uint64_t block = 0; r->capacity > RECORD_WHOLE && block < record_blocks(r->value_len); block++)
        sums[block] = block_sum(r, block, value + block * RECORD_BLOCK);
    return checksum(r, link, address, store_id);
}

bool record_head_is_sound(const struct record *r, uint64_t link, uint64_t address, uint64_t store_id)
{
    /* relaxed: what was read from the device is its reader's own */
    return checksum(r, link, address, store_id) == atomic_load_explicit(&r->seal, memory_order_relaxed);
}

bool record_blocks_are_sound(const struct record *r, uint64_t first, uint64_t end, const uint8_t *bytes)
{
    for (uint64_t block = first; block < end; block++, bytes += RECORD_BLOCK)
        if (block_sum(r, block, bytes) != sums_of(r)[block])
            return false;
    return true;
}

bool record_is_sound(struct record *r, uint64_t link, uint64_t address, uint64_t store_id)
{
    return record_head_is_sound(r, link, address, store_id) &&
           (r->capacity <= RECORD_WHOLE || record_blocks_are_sound(r, 0, record_blocks(r->value_len), record_value(r)));
}

uint64_t commit_checksum(const struct commit_record *c, uint64_t address, uint64_t store_id)
{
    struct commit_record copy = *c;

    copy.seal = address;
    return XXH3_64bits_withSeed(&copy, sizeof copy, store_id);
}

static uint64_t pad_check(uint64_t address, uint64_t length)
{
    uint64_t words[2] = {address, length};

    return XXH3_64bits(words, sizeof words) & 0xffff;
}

uint64_t pad_word(uint64_t address, uint64_t length)
{
    assert(length >= 8 && length % 8 == 0 && length <= UINT32_MAX);
    return RECORD_PAD | pad_check(address, length) << 32 | length;
}

uint64_t pad_length(uint64_t word, uint64_t address)
{
    uint64_t length = word & 0xffffffff;

    if (!(word & RECORD_PAD) || length < 8 || length % 8 != 0 || word != pad_word(address, length))
        return 0;
    return length;
}

bool record_try_lock(struct record *r)
{
    for (int spins = 0; spins < 100; spins++) {
        uint64_t word = atomic_load_explicit(&r->seal, memory_order_relaxed); /* the CAS decides */
        if (!(word & (RECORD_EXCLUSIVE | RECORD_READERS)) &&
            atomic_compare_exchange_weak_explicit(&r->seal, &word, word | RECORD_EXCLUSIVE, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

void record_unlock(struct record *r)
{
    if (record_is_small(r)) { /* nobody else writes the word while it is exclusive */
        uint64_t word = atomic_load_explicit(&r->seal, memory_order_relaxed);
        atomic_store_explicit(&r->seal, (word & ~RECORD_EXCLUSIVE) + RECORD_CHANGE, memory_order_release);
        return;
    }
    /* Readers may have announced themselves meanwhile: take away our bit only. */
    atomic_fetch_and_explicit(&r->seal, ~RECORD_EXCLUSIVE, memory_order_release);
}

void record_lock_shared(struct record *r)
{
    for (;;) {
        if (!(atomic_fetch_add_explicit(&r->seal, 1, memory_order_acquire) & RECORD_EXCLUSIVE))
            return;
        atomic_fetch_sub_explicit(&r->seal, 1, memory_order_relaxed);
        /* relaxed: only a hint when to try again */
        for (int spins = 0; atomic_load_explicit(&r->seal, memory_order_relaxed) & RECORD_EXCLUSIVE; spins++)
            if (spins >= 100)
                sched_yield();
    }
}

void record_unlock_shared(struct record *r)
{
    atomic_fetch_sub_explicit(&r->seal, 1, memory_order_release);
}

static _Atomic uint64_t *value_words(struct record *r)
{
    return (_Atomic uint64_t *)(void *)record_value(r);
}

/* release, all stores: a reader that sees one of them sees the sequence that the lock has set before */
void record_put(struct record *r, const void *value, uint32_t len)
{
    _Atomic uint64_t *words = value_words(r);
    const uint8_t *from = value, *end = from + (len & ~7u);
    uint64_t word = 0;

#pragma GCC unroll 4
    for (; from < end; from += 8, words++) {
        memcpy(&word, from, 8);
        atomic_store_explicit(words, word, memory_order_release);
    }
    if (len % 8 != 0) {
        word = 0;
        memcpy(&word, from, len % 8);
        atomic_store_explicit(words, word, memory_order_release);
    }
    __atomic_store_n(&r->value_len, len, __ATOMIC_RELEASE);
}

/* acquire, all loads: none of them moves behind the second look at the sequence, and each pairs with the
 * release of record_put(). */
static void get_words(const _Atomic uint64_t *from, uint8_t *to, uint32_t bytes)
{
    uint64_t word;

#pragma GCC unroll 4
    for (uint32_t n = bytes / 8; n > 0; n--, from++, to += 8) {
        word = atomic_load_explicit(from, memory_order_acquire);
        memcpy(to, &word, 8);
    }
    if (bytes % 8 != 0) {
        word = atomic_load_explicit(from, memory_order_acquire);
        memcpy(to, &word, bytes % 8);
    }
}

uint64_t record_get(struct record *r, void *buf, uint32_t room, uint32_t *ret_len)
{
    for (unsigned spins = 0;; spins++) {
        uint64_t before = atomic_load_explicit(&r->seal, memory_order_acquire);
        if (!(before & RECORD_EXCLUSIVE)) {
            uint64_t link = atomic_load_explicit(&r->link, memory_order_acquire);
            uint32_t len = __atomic_load_n(&r->value_len, __ATOMIC_ACQUIRE);
            get_words(value_words(r), buf, len < room ? len : room);
            /* relaxed: the loads before stay before it */
            if (atomic_load_explicit(&r->seal, memory_order_relaxed) == before) {
                *ret_len = len;
                return link;
            }
        }
        if (spins >= 100)
            sched_yield();
    }
}
