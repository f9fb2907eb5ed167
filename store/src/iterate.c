// SPDX-License-Identifier: MIT
/*
 * Iteration: a commit makes the log up to its end immutable and readable from the device; each record of it is looked
 * up as of that moment, as in a snapshot. Of a snapshot its own part of the log is read, which its being open keeps.
 */
#include "scan.h"

#include <errno.h>

struct iteration {
    struct store_session *session;
    const struct store_snapshot *snapshot; /* NULL: the live store */
    bool live;                             /* only what was the newest of its key */
    store_each each;
    void *ctx;
    uint64_t begin, end;
};

/* Keeps the log from here on: what compaction moves is not given back before compact_scan_ended(). */
static int iteration_begin(struct iteration *it)
{
    struct store *store = it->session->store;

    pthread_mutex_lock(&store->checkpoint_lock);
    int rc = store_commit(store);
    if (rc == 0) {
        store->scans++;
        it->begin = store->begin_at.address;
        pthread_mutex_lock(&store->commit_lock);
        it->end = store->committed.address;
        pthread_mutex_unlock(&store->commit_lock);
    }
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

/* Was the record the newest of its key at the end of the log that is scanned? 1, 0 or -errno. */
static int was_newest(struct iteration *it, const struct record *r, uint64_t at)
{
    struct store_read read = {.key = r->bytes, .key_len = record_key_len(r), .snapshot = it->snapshot};
    int rc = read_newest(it->session, &read, at + 1, it->end);

    if (rc == STORE_PENDING) {
        store_complete_pending(it->session, true);
        rc = read.result;
    }
    return rc < 0 ? rc : rc == STORE_NOT_FOUND && read.priv.address == at;
}

static int show(struct iteration *it, const struct scan_item *item, uint64_t at)
{
    struct record *r = item->record;
    bool tombstone = item->link & RECORD_TOMBSTONE;
    int newest = 1;

    if (it->live) {
        newest = tombstone ? 0 : was_newest(it, r, at);
        bool unreachable = newest == -EIO && it->session->store->salvage;
        if (newest == 0 || (newest < 0 && !unreachable))
            return newest;
    }
    struct store_item shown = {.key = r->bytes,
                               .key_len = record_key_len(r),
                               .value = tombstone ? NULL : record_value(r),
                               .value_len = tombstone ? 0 : r->value_len,
                               .address = at,
                               .version = record_version(r),
                               .unreachable = newest < 0};
    return it->each(it->ctx, &shown);
}

static int iterate(struct iteration *it)
{
    struct scan_item item;
    struct scan scan;
    int rc = scan_open(&scan, it->session->store, it->end);

    if (rc < 0)
        return rc;
    for (uint64_t at = it->begin; at < it->end && rc == 0; at += item.size) {
        if (scan_at(&scan, at, &item) == SCAN_NOTHING)
            rc = scan.error ? scan.error : -EUCLEAN;
        else if (item.kind == SCAN_RECORD)
            rc = show(it, &item, at);
    }
    scan_close(&scan);
    return rc;
}

static int scan_store(struct store_session *s, bool live, store_each each, void *ctx)
{
    struct iteration it = {.session = s, .live = live, .each = each, .ctx = ctx};
    int rc = iteration_begin(&it);

    if (rc < 0)
        return rc;
    rc = iterate(&it);
    compact_scan_ended(s->store);
    return rc;
}

int store_scan(struct store_session *s, store_each each, void *ctx)
{
    return scan_store(s, true, each, ctx);
}

int store_scan_log(struct store_session *s, store_each each, void *ctx)
{
    return scan_store(s, false, each, ctx);
}

int store_snapshot_scan(struct store_session *s, const struct store_snapshot *snapshot, store_each each, void *ctx)
{
    struct iteration it = {.session = s,
                           .snapshot = snapshot,
                           .live = true,
                           .each = each,
                           .ctx = ctx,
                           .begin = snapshot->at.begin.address,
                           .end = snapshot->at.end.address};

    return iterate(&it);
}
