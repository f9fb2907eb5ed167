// SPDX-License-Identifier: MIT
/*
 * The size limit: the log on disk, snapshots included, is kept below fs_options.size_bytes. Asking the store how long it
 * is costs more than a unit does, so `space_left` is handed out first; it is refilled with half of what is really left at most.
 * Units that free space are not counted: they go on when nothing else does.
 */
#include "private.h"

#include <errno.h>

#define REFILL_BYTES (INT64_C(16) << 20)
#define LEAST_BYTES (INT64_C(64) << 10)

uint64_t space_used(const struct store_stats *stats)
{
    return stats->kept_bytes;
}

int space_take(struct fs *fs, uint64_t bytes)
{
    struct store_stats stats;
    int64_t want = (int64_t)bytes;

    /* relaxed: a count that nothing else hangs on */
    if (fs->options.size_bytes == 0 || atomic_fetch_sub_explicit(&fs->space_left, want, memory_order_relaxed) >= want)
        return 0;
    store_stats(fs->store, &stats);
    int64_t left = (int64_t)(fs->options.size_bytes - space_used(&stats));
    if (left < want + LEAST_BYTES) {
        atomic_store_explicit(&fs->space_left, 0, memory_order_relaxed);
        store_reclaim(fs->store);
        return -ENOSPC;
    }
    left = left / 2 < REFILL_BYTES ? left / 2 : REFILL_BYTES;
    atomic_store_explicit(&fs->space_left, left - want, memory_order_relaxed);
    return 0;
}
