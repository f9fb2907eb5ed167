// SPDX-License-Identifier: MIT
/* compact: see compact.h. */
#include "change.h"
#include "scan.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH 64u /* records whose fate is looked up together */

void compact_init(struct compact *compact)
{
    pthread_mutex_init(&compact->lock, NULL);
    pthread_cond_init(&compact->done, NULL);
}

void compact_fini(struct compact *compact)
{
    pthread_cond_destroy(&compact->done);
    pthread_mutex_destroy(&compact->lock);
}

/* ---- one batch of records --------------------------------------------------------------------------- */

struct candidate {
    uint64_t address;
    struct record *record; /* in the scan's window */
    struct store_read read;
};

struct mover {
    struct store *store;
    struct store_session *session;
    struct scan scan;
    struct candidate candidates[BATCH];
    unsigned count;
    struct log_position scanned; /* behind the last item; address 0: the chain is not known yet */
    struct log_position settled; /* the last of these with nothing before it left to be moved */
    enum hlog_taker taker;
    struct space_pace *pace; /* NULL: as fast as it goes */
};

/* Asks for the newest record of the key above the candidate. In memory: decided now; else it is pending. */
static void look_up(struct mover *m, struct candidate *c)
{
    c->read = (struct store_read){.key = c->record->bytes, .key_len = record_key_len(c->record)};
    (void)read_newest(m->session, &c->read, c->address + 1, UINT64_MAX);
}

/* Is there none? The chain then leads to the candidate itself; one that it passes by was replaced. */
static bool is_newest(const struct candidate *c)
{
    return c->read.result == STORE_NOT_FOUND && c->read.priv.address == c->address;
}

/* Appends the record again, unless the chain has changed since it was looked up: then *ret_again. */
static int move(struct mover *m, struct candidate *c, bool *ret_again)
{
    struct record *r = c->record;
    struct change change = {.kind = CHANGE_MOVE,
                            .key = r->bytes,
                            .key_len = record_key_len(r),
                            .hash = c->read.priv.hash,
                            .value_len = r->value_len,
                            .capacity = r->value_len,
                            .pieces = {{record_value(r), r->value_len}},
                            .expected = c->read.priv.entry};
    struct change *stuck;
    int rc = changes_apply(m->session, &change, 1, m->taker, &stuck);

    *ret_again = rc == 0 && change.outcome == STORE_NOT_FOUND;
    if (rc == 0 && !*ret_again)
        atomic_fetch_add_explicit(&m->store->compact.moved_bytes, record_bytes(change.key_len, change.capacity),
                                  memory_order_relaxed);
    return rc;
}

/* Decides about the batch and moves what is live; what changed meanwhile is looked up again. */
static int move_batch(struct mover *m)
{
    unsigned count = m->count;
    int rc = 0;

    m->count = 0;
    for (unsigned i = 0; i < count; i++)
        look_up(m, &m->candidates[i]);
    store_complete_pending(m->session, true);
    for (unsigned i = 0; i < count && rc == 0; i++) {
        struct candidate *c = &m->candidates[i];
        bool again = true;
        while (rc == 0 && again) {
            again = false;
            if (c->read.result < 0)
                rc = c->read.result;
            else if (is_newest(c))
                rc = move(m, c, &again);
            if (rc == 0 && again) {
                look_up(m, c);
                store_complete_pending(m->session, true);
            }
        }
    }
    if (rc == 0)
        m->settled = m->scanned;
    return rc;
}

/* ---- one part ----------------------------------------------------------------------------------------- */

/* What begins at `at`, with the batch settled before the window moves on. */
static int next_item(struct mover *m, uint64_t at, struct scan_item *ret_item)
{
    m->scan.stay = m->count > 0;
    if (scan_at(&m->scan, at, ret_item) == SCAN_LEFT) {
        int rc = move_batch(m);
        if (rc < 0)
            return rc;
        m->scan.stay = false;
        (void)scan_at(&m->scan, at, ret_item);
    }
    if (ret_item->kind != SCAN_NOTHING)
        return 0;
    return m->scan.error ? m->scan.error : -EUCLEAN;
}

static int take_item(struct mover *m, uint64_t at, const struct scan_item *item)
{
    if (item->kind == SCAN_COMMIT)
        m->scanned = (struct log_position){at, item->commit->version, item->commit->chain};
    if (item->kind == SCAN_RECORD)
        m->scanned.chain = chain_fold(m->scanned.chain, item->seal);
    if (m->scanned.address > 0)
        m->scanned.address = at + item->size;
    if (item->kind != SCAN_RECORD || (item->link & RECORD_TOMBSTONE))
        return 0;
    m->candidates[m->count++] = (struct candidate){.address = at, .record = item->record};
    return m->count == BATCH ? move_batch(m) : 0;
}

static int compact_part(struct mover *m, bool first, uint64_t from, uint64_t to)
{
    const struct compact *c = &m->store->compact;
    struct scan_item item;
    int rc = 0;

    m->count = 0;
    if (first)
        m->scanned = c->from;
    else if (m->scanned.address != from) /* the part before it was somebody else's */
        m->scanned = (struct log_position){0};
    m->settled = m->scanned;
    m->taker = first && from >= c->kept ? HLOG_MOVES : HLOG_WRITES; /* invariant 6 */
    for (uint64_t at = from; at < to && rc == 0; at += item.size) {
        rc = next_item(m, at, &item);
        if (rc == 0)
            rc = take_item(m, at, &item);
        if (rc == 0 && m->pace && !space_pace(m->store, m->pace, item.size))
            rc = -ECANCELED;
    }
    if (rc == 0)
        rc = move_batch(m);
    return rc;
}

/* ---- giving back ------------------------------------------------------------------------------------ */

static int compare_begins(const void *a, const void *b)
{
    const struct checkpoint *left = a, *right = b;

    return left->begin.address < right->begin.address ? -1 : left->begin.address > right->begin.address;
}

/* Gives back the parts of the log, from the start of its first segment, that nobody needs. */
static void punch_gaps(struct store *store)
{
    const struct superblock *sb = &store->superblock;
    struct checkpoint *kept = malloc((sb->snapshot_count + 1) * sizeof *kept);
    uint64_t released = 0;

    if (!kept)
        return; /* later */
    for (uint32_t i = 0; i < sb->snapshot_count; i++)
        kept[i] = sb->snapshots[i].at;
    kept[sb->snapshot_count] = sb->checkpoint;
    kept[sb->snapshot_count].reach = UINT64_MAX;
    qsort(kept, sb->snapshot_count + 1, sizeof *kept, compare_begins);
    uint64_t at = kept[0].begin.address & ~(sb->segment_bytes - 1);
    for (uint32_t i = 0; i <= sb->snapshot_count; i++) {
        /* On a filesystem without holes the space comes back with the segment. */
        if (kept[i].begin.address > at && device_log_punch(store->device_log, at, kept[i].begin.address) == 0)
            released += kept[i].begin.address - at;
        if (kept[i].reach > at)
            at = kept[i].reach;
    }
    free(kept);
    atomic_store_explicit(&store->compact.released_bytes, released, memory_order_relaxed);
}

void compact_release(struct store *store)
{
    store->release_due = store->scans > 0;
    if (store->scans == 0 && store->superblock.copies == 2 &&
        device_log_truncate(store->device_log, superblock_begin(&store->superblock)) == 0)
        punch_gaps(store);
    if (!store->log_open)
        return;
    pthread_mutex_lock(&store->log.flush_lock);
    (void)hlog_promise_reserve(&store->log); /* or what there is of it now */
    pthread_mutex_unlock(&store->log.flush_lock);
}

void compact_scan_ended(struct store *store)
{
    pthread_mutex_lock(&store->checkpoint_lock);
    if (--store->scans == 0 && store->release_due)
        compact_release(store);
    pthread_mutex_unlock(&store->checkpoint_lock);
}

/* The log begins at `position` from now on, here and after any crash. */
static int begin_at(struct store *store, struct log_position position)
{
    struct superblock *sb = &store->superblock;

    pthread_mutex_lock(&store->checkpoint_lock);
    store->begin_at = position;
    atomic_store(&store->log.begin, position.address);
    epoch_synchronize(store->epoch); /* nobody goes by an older begin, and then by an entry that is swept */
    int rc = store_commit(store);
    struct log_position before = sb->checkpoint.begin;
    sb->checkpoint.begin = position;
    if (rc == 0)
        rc = superblock_write(store->device, sb);
    if (rc == 0)
        compact_release(store);
    else
        sb->checkpoint.begin = before;
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

/* ---- a round ------------------------------------------------------------------------------------------ */

/* Up to where the log may be compacted: what is in memory is not worth it, what is not durable may vanish. */
static uint64_t limit(struct store *store)
{
    uint64_t head = atomic_load(&store->log.head);

    pthread_mutex_lock(&store->commit_lock);
    uint64_t committed = store->committed.address;
    pthread_mutex_unlock(&store->commit_lock);
    return head < committed ? head : committed;
}

uint64_t compact_room(struct store *store)
{
    uint64_t begin = atomic_load(&store->log.begin), end = limit(store);

    return end > begin ? end - begin : 0;
}

/* Part i of the round is what lies in one segment: at its start there is always an item. */
static void part_of(const struct store *store, unsigned i, uint64_t *ret_from, uint64_t *ret_to)
{
    uint64_t begin = store->compact.from.address, segment = store->superblock.segment_bytes;
    uint64_t first = begin & ~(segment - 1);

    *ret_from = i == 0 ? begin : first + i * segment;
    *ret_to = first + (i + 1) * segment;
    if (*ret_to > store->compact.until)
        *ret_to = store->compact.until;
}

/* Sets up a round over what may be compacted now, at most `bytes` of it. compact.lock held. */
static bool start_round(struct store *store, uint64_t bytes)
{
    struct compact *c = &store->compact;
    uint64_t end = limit(store), segment = store->superblock.segment_bytes;

    pthread_mutex_lock(&store->checkpoint_lock);
    c->from = store->begin_at;
    c->kept = superblock_kept(&store->superblock);
    pthread_mutex_unlock(&store->checkpoint_lock);
    uint64_t begin = c->from.address, first = begin & ~(segment - 1);
    if (end <= begin)
        return false;
    if (bytes < end - begin)
        end = begin + bytes;
    if (end > first + COMPACT_PARTS * segment)
        end = first + COMPACT_PARTS * segment;
    c->running = true;
    c->until = end;
    c->count = (unsigned)((round_up(end, segment) - first) / segment);
    c->next = 0;
    c->error = 0;
    memset(c->part_done, 0, sizeof c->part_done);
    return true;
}

/* The last place before which nothing is left. */
static struct log_position round_end(const struct compact *c)
{
    struct log_position last = c->from;

    for (unsigned i = 0; i < c->next; i++) {
        if (c->part_end[i].address > 0)
            last = c->part_end[i];
        if (!c->part_done[i])
            break;
    }
    return last;
}

/* Works on parts until none is left. compact.lock held, and given back meanwhile. */
static void work(struct mover *m)
{
    struct compact *c = &m->store->compact;

    while (c->next < c->count && c->error == 0) {
        unsigned i = c->next++;
        uint64_t from, to;
        part_of(m->store, i, &from, &to);
        pthread_mutex_unlock(&c->lock);
        int rc = compact_part(m, i == 0, from, to);
        atomic_fetch_add_explicit(&c->scanned_bytes, to - from, memory_order_relaxed);
        pthread_mutex_lock(&c->lock);
        c->part_done[i] = rc == 0;
        c->part_end[i] = m->settled;
        if (rc < 0 && c->error == 0)
            c->error = rc;
    }
}

/* Did a superblock, or the commit before it, fail the last time, so that not all is given back that could be? */
static bool is_owed(struct store *store)
{
    const struct superblock *sb = &store->superblock;

    pthread_mutex_lock(&store->checkpoint_lock);
    bool owed = sb->copies < 2 || sb->checkpoint.begin.address < store->begin_at.address;
    pthread_mutex_unlock(&store->checkpoint_lock);
    return owed;
}

/* The last one out ends the round. compact.lock held, and given back meanwhile. */
static void end_round(struct store *store)
{
    struct compact *c = &store->compact;
    struct log_position position = round_end(c);
    bool moved = position.address > c->from.address;
    int rc = 0;

    c->ending = true;
    pthread_mutex_unlock(&c->lock);
    if (moved || is_owed(store)) {
        rc = begin_at(store, position);
        index_sweep(store->index, position.address);
    }
    pthread_mutex_lock(&c->lock);
    bool went_on = moved && device_is_full(c->error); /* there is room for the next round now */
    c->result = c->error && !went_on ? c->error : rc;
    atomic_store_explicit(&c->failed, c->result == -ECANCELED ? 0 : c->result, memory_order_relaxed);
    c->running = c->ending = false;
    c->rounds++;
    pthread_cond_broadcast(&c->done);
}

static int mover_open(struct mover *m, struct store *store)
{
    int rc = store_session_open(store, &m->session);
    if (rc == 0)
        rc = scan_open(&m->scan, store, limit(store));
    if (rc < 0)
        store_session_close(m->session);
    return rc;
}

int compact_run(struct store *store, uint64_t bytes, bool paced)
{
    struct compact *c = &store->compact;
    struct space_pace pace = {0};
    struct mover *m;
    int rc = store->options.read_only ? -EROFS : 0;

    if (rc == 0 && !(m = calloc(1, sizeof *m)))
        rc = -ENOMEM;
    if (rc < 0)
        return rc;
    m->store = store;
    m->pace = paced ? &pace : NULL;
    pthread_mutex_lock(&c->lock);
    while (c->ending)
        pthread_cond_wait(&c->done, &c->lock);
    if (c->running || start_round(store, bytes)) {
        uint64_t round = c->rounds;
        c->workers++;
        rc = mover_open(m, store);
        if (rc == 0) {
            work(m);
            scan_close(&m->scan);
            store_session_close(m->session);
        } else if (c->error == 0) {
            c->error = rc;
        }
        if (--c->workers == 0)
            end_round(store);
        while (c->rounds == round)
            pthread_cond_wait(&c->done, &c->lock);
        rc = c->result;
    }
    pthread_mutex_unlock(&c->lock);
    free(m);
    return rc;
}

int store_compact(struct store *store, uint64_t bytes)
{
    return compact_run(store, bytes, false);
}
