// SPDX-License-Identifier: MIT
/*
 * Scrub: the log of an open store, read from the device a slice at a time. While a slice is read, nothing of the log is
 * given back; in between it may be: the position then moves on to where the log begins.
 */
#include "scan.h"

#include <errno.h>

/* The first address at or after `position` that the store or a snapshot keeps, and up to where: an item begins there.
 * False: there is none. checkpoint_lock held. */
static bool next_kept(struct store *store, uint64_t position, uint64_t committed, uint64_t *ret_from, uint64_t *ret_to)
{
    const struct superblock *sb = &store->superblock;
    bool found = false;

    for (uint32_t i = 0; i <= sb->snapshot_count; i++) {
        bool own = i == sb->snapshot_count;
        uint64_t begin = own ? store->begin_at.address : sb->snapshots[i].at.begin.address;
        uint64_t end = own ? committed : sb->snapshots[i].at.reach;
        uint64_t from = position > begin ? position : begin;
        if (from >= end || (found && from > *ret_from))
            continue;
        *ret_to = found && from == *ret_from && *ret_to > end ? *ret_to : end;
        *ret_from = from;
        found = true;
    }
    return found;
}

/* The key of the damaged record, if it is what a read of the key comes upon. */
static bool is_live(struct store_session *s, const void *key, uint32_t key_len)
{
    struct store_read read = {.key = key, .key_len = key_len};

    return store_read_wait(s, &read) == -EIO;
}

/* `asker`: a session of the store, where the log may be that of its cold level. */
static int tell(struct store_session *asker, struct scan *scan, struct store_scrub *scrub, uint64_t at, uint64_t stop,
                uint64_t *ret_next)
{
    struct store_damage damage = {.kind = STORE_DAMAGE_LOG, .address = at, .what = "no sound record"};
    struct salvage_lost lost;
    int rc = salvage_look(scan, at, stop, 0, &lost, ret_next);

    if (rc < 0)
        return rc;
    damage.len_bytes = *ret_next - at;
    if (lost.key && is_live(asker, lost.key, lost.key_len)) {
        damage.key = lost.key;
        damage.key_len = lost.key_len;
    }
    scrub->damage(scrub->ctx, &damage);
    salvage_lost_fini(&lost);
    return 0;
}

static int read_slice(struct store_session *asker, struct store *store, struct store_scrub *scrub, uint64_t at,
                      uint64_t end)
{
    struct scan_item item;
    struct scan scan;
    uint64_t from = at, next;
    int rc = scan_open(&scan, store, end);

    scan.salvage = true; /* what cannot be read is damage, too */
    for (; at < end && at - from < scrub->max_bytes && rc == 0; at = next) {
        bool sound = scan_at(&scan, at, &item) != SCAN_NOTHING;
        next = at + item.size;
        if (scan.error)
            rc = scan.error;
        else if (!sound)
            rc = tell(asker, &scan, scrub, at, end, &next);
    }
    scan_close(&scan);
    scrub->read_bytes = at - from;
    scrub->position = at;
    return rc;
}

/* One slice of the log of `store`, which is the session's, or its cold level. */
static int scrub_log(struct store_session *s, struct store *store, struct store_scrub *scrub)
{
    uint64_t from = 0, to = 0;

    pthread_mutex_lock(&store->checkpoint_lock);
    pthread_mutex_lock(&store->commit_lock);
    uint64_t committed = store->committed.address;
    pthread_mutex_unlock(&store->commit_lock);
    bool more = next_kept(store, scrub->position, committed, &from, &to);
    store->scans += more;
    pthread_mutex_unlock(&store->checkpoint_lock);
    scrub->read_bytes = 0;
    scrub->end = committed;
    if (!more)
        return 0;
    int rc = read_slice(s, store, scrub, from, to);
    compact_scan_ended(store);
    return rc < 0 ? rc : 1;
}

int store_scrub(struct store_session *s, struct store_scrub *scrub)
{
    if (!(scrub->position & STORE_SCRUB_COLD)) {
        int rc = scrub_log(s, s->store, scrub);
        if (rc != 0 || !s->store->cold)
            return rc;
        scrub->position = STORE_SCRUB_COLD;
    }
    scrub->position &= ~STORE_SCRUB_COLD;
    int rc = s->store->cold ? scrub_log(s, s->store->cold->store, scrub) : 0;
    scrub->position |= STORE_SCRUB_COLD;
    return rc;
}
