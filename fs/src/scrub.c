// SPDX-License-Identifier: MIT
/* Scrub: store_scrub() in the words of files. */
#include "checking.h"
#include "private.h"

#include <stdio.h>
#include <string.h>

#define SLICE_BYTES (256u << 10)

static void take_damage(void *ctx, const struct store_damage *damage)
{
    struct fs_scrub *scrub = ctx;
    struct fs_scrub_fault fault = {.offset = damage->address, .len = damage->len_bytes};

    snprintf(fault.what, sizeof fault.what, "%s", damage->what);
    if (damage->key && (fault.ino = check_key_ino(damage->key, damage->key_len)) > 0) {
        const uint8_t *key = damage->key;
        snprintf(fault.what, sizeof fault.what, "%s", check_key_words(key, damage->key_len));
        check_key_range(key, damage->key_len, &fault.offset, &fault.len);
        if (key[0] == 'D' && damage->key_len - 9 <= FS_NAME_MAX)
            memcpy(fault.name, key + 9, damage->key_len - 9);
    }
    if (scrub->count < FS_SCRUB_FAULTS)
        scrub->faults[scrub->count] = fault;
    scrub->count++;
}

int fs_scrub(struct fs_session *s, struct fs_scrub *scrub)
{
    struct fs *fs = s->fs;
    uint64_t from = scrub->restart ? 0 : atomic_load_explicit(&fs->scrubbed, memory_order_relaxed);
    struct store_scrub slice = {.position = from, .max_bytes = SLICE_BYTES, .damage = take_damage, .ctx = scrub};
    int rc = 1;

    scrub->read_bytes = scrub->count = 0;
    while (rc > 0 && scrub->read_bytes < scrub->max_bytes) {
        uint64_t before = slice.position;
        uint32_t told = scrub->count;
        rc = store_scrub(s->store, &slice);
        if (scrub->count > FS_SCRUB_FAULTS) { /* no room for all of it: a smaller slice, from there again */
            scrub->count = told;
            slice.position = before;
            if (told > 0)
                break;
            slice.max_bytes = slice.max_bytes / 2 + 1;
            continue;
        }
        scrub->read_bytes += slice.read_bytes;
    }
    if (rc < 0)
        return rc;
    scrub->finished = rc == 0;
    scrub->position = slice.position & ~STORE_SCRUB_COLD;
    scrub->end = slice.end;
    atomic_store_explicit(&fs->scrubbed, scrub->finished ? 0 : slice.position, memory_order_relaxed);
    return 0;
}
