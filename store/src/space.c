// SPDX-License-Identifier: MIT
/* space: see space.h. */
#include "scan.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define SAMPLES 64u
#define SAMPLE_BYTES (256u << 10)
#define LOOK_MS 100
#define ROOM_MIN (UINT64_C(4) << 20) /* less is not worth a round */
#define PACE_BYTES (1u << 20)
#define COLD_LOGS 8    /* a log with a cold level is kept at so many times its memory: younger records may change yet */
#define BRAKE_NS 5     /* per byte appended and step of the brake: 200 MB/s at the first */
#define HOLD_NS 500000 /* a shorter sleep is put off */

void space_init(struct space *space)
{
    pthread_condattr_t monotonic;

    pthread_mutex_init(&space->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&space->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void space_fini(struct space *space)
{
    pthread_cond_destroy(&space->wake);
    pthread_mutex_destroy(&space->lock);
}

/* ---- the estimate ----------------------------------------------------------------------------------- */

struct sample {
    uint64_t bytes, live;
};

/* To know what is live in a cold level chunks have to be read: one record in COLD_SHARE stands for the others. */
#define COLD_SHARE 16u
static void sample_cold(struct store_session *s, const struct record *r, uint64_t at, uint64_t size,
                        struct sample *sample)
{
    uint64_t hash = hash_key(r->bytes, record_key_len(r));

    sample->bytes -= size;
    if (!s->store->chunks || hash % COLD_SHARE != 0)
        return;
    sample->bytes += size * COLD_SHARE;
    if (cold_is_live(s->store->chunks, s, NULL, r->bytes, record_key_len(r), at, UINT64_MAX) == 1)
        sample->live += size * COLD_SHARE;
}

static void take_sample(struct store_session *s, struct scan *scan, uint64_t at, uint64_t end, struct sample *sample)
{
    struct scan_item item;

    if (end > at + SAMPLE_BYTES)
        end = at + SAMPLE_BYTES;
    for (; at < end && scan_at(scan, at, &item) != SCAN_NOTHING; at += item.size) {
        sample->bytes += item.size;
        if (item.kind != SCAN_RECORD || (item.link & RECORD_TOMBSTONE))
            continue;
        if (item.link & RECORD_COLD) {
            sample_cold(s, item.record, at, item.size, sample);
            continue;
        }
        struct store_read read = {.key = item.record->bytes, .key_len = record_key_len(item.record)};
        if (read_is_newest(s, &read, at))
            sample->live += item.size;
    }
}

/* Samples at the starts of segments, spread over [begin, end). */
static int take_samples(struct store *store, uint64_t begin, uint64_t end, struct sample *sample)
{
    uint64_t segment = store->superblock.segment_bytes, first = begin / segment;
    uint64_t count = (end - 1) / segment - first + 1, step = (count + SAMPLES - 1) / SAMPLES;
    struct store_session *s;
    struct scan scan;
    int rc = store_session_open(store, &s);

    if (rc < 0)
        return rc;
    rc = scan_open(&scan, store, end);
    for (uint64_t i = 0; i < count && rc == 0; i += step)
        take_sample(s, &scan, i == 0 ? begin : (first + i) * segment, end, sample);
    if (rc == 0)
        scan_close(&scan);
    store_session_close(s);
    return rc;
}

/* The live part of the log's part on the device; what is in memory counts as live. */
static int estimate(struct store *store, uint64_t *ret_live)
{
    uint64_t begin = atomic_load(&store->log.begin), room = compact_room(store);
    uint64_t tail = atomic_load(&store->log.tail);
    struct sample sample = {0, 0};
    int rc = room > 0 ? take_samples(store, begin, begin + room, &sample) : 0;

    if (rc < 0)
        return rc;
    double live = sample.bytes > 0 ? (double)sample.live / (double)sample.bytes : 1;
    *ret_live = (uint64_t)(live * (double)room) + (tail - begin - room);
    return 0;
}

/* Up to here a snapshot keeps the log. */
static uint64_t kept_until(struct store *store)
{
    pthread_mutex_lock(&store->checkpoint_lock);
    uint64_t until = superblock_kept(&store->superblock);
    pthread_mutex_unlock(&store->checkpoint_lock);
    return until;
}

uint64_t space_live(struct store *store)
{
    struct space *space = &store->space;

    pthread_mutex_lock(&space->lock);
    uint64_t live = space->live_at > 0 ? space->live : atomic_load(&store->log.tail) - atomic_load(&store->log.begin);
    pthread_mutex_unlock(&space->lock);
    return live;
}

/* Looks anew when the log has grown by an eighth of what was live. */
static uint64_t live_now(struct store *store)
{
    struct space *space = &store->space;
    uint64_t tail = atomic_load(&store->log.tail), live;

    pthread_mutex_lock(&space->lock);
    bool fresh = space->live_at > 0 && tail - space->live_at < space->live / 8 + ROOM_MIN;
    live = space->live;
    pthread_mutex_unlock(&space->lock);
    if (fresh || estimate(store, &live) < 0)
        return live;
    pthread_mutex_lock(&space->lock);
    space->live = live;
    space->live_at = tail;
    pthread_mutex_unlock(&space->lock);
    return live;
}

/* ---- the background --------------------------------------------------------------------------------- */

/* How long the log may be: so many percent of what is live in it; with a cold level, so many logs' memory, and as much
 * more as `percent` is above that. */
static uint64_t wanted(struct store *store, unsigned percent)
{
    if (store->cold)
        return COLD_LOGS * store->options.log_bytes / 100 * (100 + percent - store->options.space_percent);
    return live_now(store) / 100 * percent;
}

/* Bytes that the log is too long, of what compaction can give back. */
static uint64_t excess(struct store *store, unsigned percent)
{
    uint64_t tail = atomic_load(&store->log.tail), begin = atomic_load(&store->log.begin);
    uint64_t kept = kept_until(store), from = kept > begin ? kept : begin;

    if (compact_room(store) < ROOM_MIN || tail - from < ROOM_MIN)
        return 0;
    uint64_t most = wanted(store, percent);
    return tail - from > most ? tail - from - most : 0;
}

/* A step of the brake for each eighth by which the log is longer than it should be and a quarter. Is it? */
static bool set_brake(struct store *store)
{
    unsigned percent = store->options.space_percent / 4 * 5;
    uint64_t over = excess(store, percent), step = wanted(store, percent) / 8 + 1;
    unsigned brake = over == 0 ? 0 : over / step >= SPACE_BRAKE_MAX ? SPACE_BRAKE_MAX : 1 + (unsigned)(over / step);

    atomic_store_explicit(&store->space.brake, brake, memory_order_relaxed);
    return brake > 0;
}

void space_hold_back(struct store_session *s, uint64_t bytes)
{
    unsigned brake = atomic_load_explicit(&s->store->space.brake, memory_order_relaxed);

    if (brake == 0) {
        s->held_ns = 0;
        return;
    }
    s->held_ns += bytes * brake * BRAKE_NS;
    if (s->held_ns < HOLD_NS)
        return;
    nanosleep(&(struct timespec){.tv_nsec = s->held_ns < 100000000 ? (long)s->held_ns : 100000000}, NULL);
    s->held_ns = 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Sleeps for so long, or until the store is closed: then false. */
static bool sleep_ns(struct space *space, uint64_t ns)
{
    uint64_t end = now_ns() + ns;
    struct timespec until = {.tv_sec = (time_t)(end / 1000000000), .tv_nsec = (long)(end % 1000000000)};

    pthread_mutex_lock(&space->lock);
    while (!space->stop && pthread_cond_timedwait(&space->wake, &space->lock, &until) != ETIMEDOUT)
        continue;
    bool go_on = !space->stop;
    pthread_mutex_unlock(&space->lock);
    return go_on;
}

bool space_pace(struct store *store, struct space_pace *pace, uint64_t bytes)
{
    uint64_t rate = store->options.compaction_bytes_per_second;

    if (pace->since_ns == 0)
        pace->since_ns = now_ns();
    pace->bytes += bytes;
    if (pace->bytes < PACE_BYTES)
        return true;
    uint64_t took = now_ns() - pace->since_ns, should = took * 2; /* by default half of the time is for others */
    if (rate > 0)
        should = pace->bytes * 1000000000 / rate;
    else if (set_brake(store))
        should = took; /* outrun */
    bool go_on = sleep_ns(&store->space, should > took ? should - took : 0);
    *pace = (struct space_pace){.since_ns = now_ns()};
    return go_on;
}

/* ---- a full disk ------------------------------------------------------------------------------------- */

/* One round, unpaced, of `bytes` or of as much as there is room to move. Has the log's beginning moved? */
static bool advance(struct store *store, uint64_t bytes, int *ret_rc)
{
    uint64_t before = atomic_load(&store->log.begin);

    *ret_rc = compact_run(store, bytes, false);
    return atomic_load(&store->log.begin) > before;
}

/* Compaction leaves alone what is in memory: so nothing is kept there. */
static int leave_memory(struct store *store)
{
    int rc = store_commit(store);

    pthread_mutex_lock(&store->log.flush_lock);
    if (rc == 0)
        rc = hlog_evict(&store->log, atomic_load(&store->log.tail));
    pthread_mutex_unlock(&store->log.flush_lock);
    return rc;
}

bool space_make_room(struct store *store, uint64_t *pass)
{
    uint64_t begin = atomic_load(&store->log.begin);
    int rc;

    if (*pass == 0)
        *pass = atomic_load(&store->log.tail);
    return !store->salvage && begin < *pass && leave_memory(store) == 0 &&
           advance(store, store->superblock.segment_bytes, &rc);
}

/* Grows by what is written and by what dies, as far as that is known. */
static uint64_t changes(struct store *store)
{
    return atomic_load(&store->log.tail) - atomic_load_explicit(&store->compact.moved_bytes, memory_order_relaxed) +
           atomic_load_explicit(&store->space.freed, memory_order_relaxed);
}

/* Did the last pass give next to nothing back, and nothing has changed since that would make the next one better? */
static bool is_barren(struct store *store)
{
    struct space *space = &store->space;
    uint64_t length = atomic_load(&store->log.tail) - atomic_load(&store->log.begin);

    pthread_mutex_lock(&space->lock);
    bool barren = space->barren && changes(store) - space->barren_at < length / 64;
    pthread_mutex_unlock(&space->lock);
    return barren;
}

/* Compacts until a 16th of the log came back, or all of it was scanned. No estimate is asked: on a full disk it is
 * the last few percent that count, and the tail, which cannot move, does not tell when it is out of date. */
static int reclaim(struct store *store)
{
    struct space *space = &store->space;
    uint64_t first = atomic_load(&store->log.begin), end = atomic_load(&store->log.tail), length = end - first;
    uint64_t moved = atomic_load(&store->compact.moved_bytes), at = first, gained = 0;
    uint64_t changed = changes(store); /* before the pass: it may miss what dies meanwhile */

    if (is_barren(store))
        return 0;
    int rc = leave_memory(store);
    while (rc == 0 && at < end && gained < length / 16 && advance(store, store->superblock.segment_bytes, &rc) &&
           sleep_ns(space, 0)) {
        at = atomic_load(&store->log.begin);
        gained = at - first - (atomic_load(&store->compact.moved_bytes) - moved);
    }
    if (at < end)
        return rc;
    pthread_mutex_lock(&space->lock);
    space->barren = gained < length / 32;
    space->barren_at = changed;
    pthread_mutex_unlock(&space->lock);
    return rc;
}

static void *run(void *arg)
{
    struct store *store = arg;
    struct space *space = &store->space;
    uint64_t pause = LOOK_MS, segment = store->superblock.segment_bytes;

    while (sleep_ns(space, pause * 1000000)) {
        int rc = 0;
        if (atomic_exchange_explicit(&space->wanted, false, memory_order_relaxed))
            rc = reclaim(store);
        uint64_t over = excess(store, store->options.space_percent);
        pause = over > 0 ? 0 : LOOK_MS;
        (void)set_brake(store);
        if (rc == 0 && over > 0)
            rc = compact_run(store, over > segment ? over : segment, true);
        if (rc < 0) {
            pause = LOOK_MS * 10; /* a damaged record, a full disk: it is in the statistics */
            atomic_store_explicit(&space->brake, 0, memory_order_relaxed);
        }
    }
    return NULL;
}

void store_freed(struct store *store, uint64_t bytes)
{
    atomic_fetch_add_explicit(&store->space.freed, bytes, memory_order_relaxed);
}

void store_reclaim(struct store *store)
{
    atomic_store_explicit(&store->space.wanted, true, memory_order_relaxed);
}

int space_start(struct store *store)
{
    struct space *space = &store->space;
    int rc = 0;

    for (unsigned i = 0; i < store->options.compaction_threads && rc == 0; i++) {
        rc = -pthread_create(&space->threads[i], NULL, run, store);
        space->started += rc == 0;
    }
    return space->started > 0 ? 0 : rc; /* fewer will do */
}

void space_stop(struct store *store)
{
    struct space *space = &store->space;

    pthread_mutex_lock(&space->lock);
    space->stop = true;
    pthread_cond_broadcast(&space->wake);
    pthread_mutex_unlock(&space->lock);
    for (unsigned i = 0; i < space->started; i++)
        pthread_join(space->threads[i], NULL);
    space->started = 0;
}
