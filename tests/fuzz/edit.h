// SPDX-License-Identifier: MIT
/*
 * Inputs of the fuzzers that edit: a list of edits of 14 bytes, so that what a fuzzer changes is where it matters.
 *
 *     0 what   1 n (2 bytes)   3 at (2)   5 how   6 value (8)
 */
#ifndef TESTS_FUZZ_EDIT_H
#define TESTS_FUZZ_EDIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define EDIT_BYTES 14u
#define EDITS_MAX 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct edit {
    unsigned what, n, at, how;
    uint64_t value;
};

/* Takes the next edit; false: that was all. */
static inline bool edit_next(const uint8_t **data, size_t *len, struct edit *ret_edit)
{
    const uint8_t *at = *data;

    if (*len < EDIT_BYTES)
        return false;
    *ret_edit = (struct edit){.what = at[0], .n = at[1] | at[2] << 8, .at = at[3] | at[4] << 8, .how = at[5]};
    memcpy(&ret_edit->value, at + 6, 8);
    *data += EDIT_BYTES;
    *len -= EDIT_BYTES;
    return true;
}

/* Writes 1, 2, 4 or 8 bytes of the value, or adds it, at `at` of `room` bytes, as far as they go. */
static inline void edit_bytes(const struct edit *edit, uint8_t *bytes, uint64_t room, uint64_t at)
{
    uint64_t len = UINT64_C(1) << edit->how % 4, word = 0;

    if (room < len)
        return;
    at = at % (room - len + 1);
    memcpy(&word, bytes + at, len);
    word = edit->how & 4 ? word + edit->value : edit->value;
    memcpy(bytes + at, &word, len);
}

#endif
