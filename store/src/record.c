// SPDX-License-Identifier: MIT
#include "record.h"

#include <sched.h>
#include <xxhash.h>

uint64_t hash_key(const void *key, uint32_t key_len)
{
    return XXH3_64bits(key, key_len);
}

uint64_t record_checksum(const struct record *r, uint64_t link, uint64_t address, uint64_t store_id)
{
    struct {
        uint64_t link, stamp, lengths, address, store_id;
    } head = {link, r->stamp, (uint64_t)r->capacity << 32 | r->value_len, address, store_id};
    uint64_t sum = XXH3_64bits(&head, sizeof head);

    return XXH3_64bits_withSeed(r->bytes, round_up(record_key_len(r), 8) + r->value_len, sum);
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
        uint64_t free_word = 0;
        if (atomic_compare_exchange_weak_explicit(&r->seal, &free_word, RECORD_EXCLUSIVE, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

void record_unlock(struct record *r)
{
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
