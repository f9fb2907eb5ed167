// SPDX-License-Identifier: MIT
/*
 * Is a history of calls on one key linearizable: is there a moment for each call, between its begin and its end, so
 * that the calls in the order of these moments gave what they gave? (Herlihy and Wing, 1990.) By search: what may have
 * come first is tried, what led nowhere is remembered (Lowe, "Testing for linearizability", 2017).
 *
 * The value of a key is a word; 0 is: not there.
 */
#ifndef TESTS_STORE_LINEAR_H
#define TESTS_STORE_LINEAR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum linear_kind { LINEAR_READ, LINEAR_PUT, LINEAR_INSERT, LINEAR_DELETE, LINEAR_CHANGE };
struct linear_call {
    enum linear_kind kind;
    uint64_t word;       /* READ: what was read; PUT, INSERT: what is put; CHANGE: by what */
    bool refused;        /* INSERT: the key was there */
    uint64_t begin, end; /* ns, of one clock */
};
#define LINEAR_MAX 64 /* calls in a history */

/* What a CHANGE makes of a value: the order of two of them shows. */
static inline uint64_t linear_changed(uint64_t word, uint64_t by)
{
    word = (word + by) * UINT64_C(0x9e3779b97f4a7c15);
    return word ^ word >> 29 ? word ^ word >> 29 : 1;
}

struct linear_memo {
    uint64_t done, word;
};
#define LINEAR_MEMOS (UINT64_C(1) << 12)

/* Did that call give what it gave on a key that held *word? Then *word is what it left. */
static inline bool linear_apply(const struct linear_call *call, uint64_t *word)
{
    switch (call->kind) {
    case LINEAR_READ:
        return *word == call->word;
    case LINEAR_PUT:
        *word = call->word;
        return true;
    case LINEAR_INSERT:
        if (call->refused != (*word != 0))
            return false;
        *word = *word ? *word : call->word;
        return true;
    case LINEAR_DELETE:
        *word = 0;
        return true;
    default:
        *word = linear_changed(*word, call->word);
        return true;
    }
}

/* Was it remembered? It is now. A full table forgets: the search is longer then, and as right. */
static inline bool linear_known(struct linear_memo *memos, uint64_t done, uint64_t word)
{
    uint64_t at = linear_changed(done, word);

    for (unsigned probe = 0; probe < 8; probe++) {
        struct linear_memo *memo = &memos[(at + probe) % LINEAR_MEMOS];
        if (memo->done == done && memo->word == word)
            return true;
        if (memo->done == 0 || probe == 7) {
            *memo = (struct linear_memo){done, word};
            return false;
        }
    }
    return false;
}

static inline bool linear_search(const struct linear_call *calls, unsigned count, uint64_t done, uint64_t word,
                                 struct linear_memo *memos)
{
    uint64_t first_end = UINT64_MAX;

    if (done == (count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1))
        return true;
    if (done != 0 && linear_known(memos, done, word))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!(done >> i & 1) && calls[i].end < first_end)
            first_end = calls[i].end;
    for (unsigned i = 0; i < count; i++) {
        uint64_t next = word;
        if (done >> i & 1 || calls[i].begin > first_end || !linear_apply(&calls[i], &next))
            continue;
        if (linear_search(calls, count, done | UINT64_C(1) << i, next, memos))
            return true;
        if (calls[i].kind == LINEAR_READ) /* it changes nothing: if it can come now, it need not come later */
            return false;
    }
    return false;
}

/* Of a key that held `word` at the beginning. */
static inline bool linear_check(const struct linear_call *calls, unsigned count, uint64_t word)
{
    struct linear_memo *memos = calloc(LINEAR_MEMOS, sizeof *memos);
    bool linear = memos && linear_search(calls, count, 0, word, memos);

    free(memos);
    return linear;
}

static inline void linear_print(const struct linear_call *calls, unsigned count, uint64_t word)
{
    static const char *const kinds[] = {"read", "put", "insert", "delete", "change"};
    uint64_t origin = UINT64_MAX;

    for (unsigned i = 0; i < count; i++)
        origin = calls[i].begin < origin ? calls[i].begin : origin;
    printf("at first %016llx\n", (unsigned long long)word);
    for (unsigned i = 0; i < count; i++)
        printf("%9llu to %9llu ns %s %016llx%s\n", (unsigned long long)(calls[i].begin - origin),
               (unsigned long long)(calls[i].end - origin), kinds[calls[i].kind], (unsigned long long)calls[i].word,
               calls[i].refused ? ": it was there" : "");
}

#endif
