// SPDX-License-Identifier: MIT
/*
 * Commits and the worker.
 *
 * A commit is a cut between units (CPR, SIGMOD 2019, with one cut for all sessions):
 *
 *     close the gate -> wait until the units inside have left -> put the commit record at the tail;
 *     everything below is read-only; next version -> open the gate -> checksum, write, sync.
 *
 * Units wait at the gate only while those inside finish: processor work, never the device. So versions
 * follow each other in the log without overlap, and what a crash leaves is the log up to the last
 * sound commit record.
 *
 * Concurrent callers share a commit: one leads, those who come meanwhile wait for the next.
 *
 * Invariants:
 *   1. A commit record says up to where the log was on stable media when it was put: the end of the last
 *      commit whose sync returned 0. What a crash leaves unreadable below that is damage; between that
 *      and the record it is a commit that was torn, and promised to nobody.
 *   2. A commit ends at the end of a block, and the tail with it: no promised block is written again.
 */
#include "private.h"

#include <errno.h>
#include <time.h>

/* Closes the gate with room for a commit record behind it, waits for the units inside. flush_lock held. */
static int close_gate(struct store *store)
{
    struct hlog *log = &store->log;
    uint64_t need = 2 * HLOG_BLOCK;

    for (;;) {
        int rc = hlog_make_room(log, need, HLOG_COMMITS);
        if (rc < 0)
            return rc;
        atomic_store(&store->gate_closed, true);
        epoch_synchronize(store->epoch);
        uint64_t end = atomic_load(&log->tail) + need;
        if (end <= atomic_load(&log->safe_head) + atomic_load(&log->limit) && end <= atomic_load(&log->space))
            return 0;
        atomic_store(&store->gate_closed, false);
    }
}

/* The leader's part. */
static int run_commit(struct store *store, struct log_position *ret_committed)
{
    struct hlog *log = &store->log;

    pthread_mutex_lock(&log->flush_lock);
    int rc = atomic_load(&log->failed);
    if (rc == 0)
        rc = close_gate(store);
    if (rc < 0) {
        pthread_mutex_unlock(&log->flush_lock);
        return rc;
    }
    uint64_t version = atomic_load(&store->version), from = atomic_load(&log->flushed);
    uint64_t end = hlog_put_commit(log, version, store->superblock.incarnation, store->committed.address);
    atomic_store(&store->version, version + 1);
    atomic_store(&store->gate_closed, false);
    rc = hlog_flush(log, end);
    if (rc == 0 && device_is_in_place(store->device))
        hlog_write_zeros(log, end - from);
    *ret_committed = (struct log_position){.address = end, .version = version, .chain = log->chain_before};
    pthread_mutex_unlock(&log->flush_lock);
    if (rc < 0)
        return rc;
    rc = device_log_sync(store->device_log);
    if (rc < 0) { /* the kernel may have dropped the pages: nothing after this can be promised */
        int none = 0;
        (void)atomic_compare_exchange_strong(&log->failed, &none, -EIO);
        return -EIO;
    }
    return 0;
}

int store_commit(struct store *store)
{
    if (store->options.read_only)
        return 0;
    pthread_mutex_lock(&store->commit_lock);
    int rc = atomic_load(&store->log.failed);
    if (rc < 0 || (!store->committing && atomic_load(&store->log.tail) == store->committed.address)) {
        pthread_mutex_unlock(&store->commit_lock);
        return rc;
    }
    /* One that is under way may have cut before our caller's last unit: the next one counts. */
    uint64_t round = store->commit_round + (store->committing ? 2 : 1);
    while (store->commit_round < round && store->committing)
        pthread_cond_wait(&store->commit_done, &store->commit_lock);
    if (store->commit_round < round) {
        struct log_position at;
        store->committing = true;
        pthread_mutex_unlock(&store->commit_lock);
        rc = run_commit(store, &at);
        pthread_mutex_lock(&store->commit_lock);
        if (rc == 0) {
            store->committed = at;
            atomic_fetch_add_explicit(&store->commits, 1, memory_order_relaxed);
        }
        store->commit_result = rc;
        store->commit_round++;
        store->committing = false;
        pthread_cond_broadcast(&store->commit_done);
    }
    rc = store->commit_result;
    pthread_mutex_unlock(&store->commit_lock);
    return rc;
}

/* ---- the worker: flushes, evicts, commits by time, checkpoints by growth ------------------------- */

#define CHECKPOINT_RETRY_MS 10000                  /* after one that failed, on a full disk say */
#define GROW_RETRY_MS 1000                         /* after a growth of the index that was refused memory */
#define CHECKPOINT_GROWTH (UINT64_C(128) << 20) /* log to replay at most, more or less */
#define CHECKPOINT_IMAGES 8u                    /* but an image is written only for so many times its size */

void store_wake_worker(struct store *store)
{
    /* relaxed: only saves locking; the worker also wakes up by time */
    if (atomic_load_explicit(&store->worker_wanted, memory_order_relaxed) ||
        atomic_exchange_explicit(&store->worker_wanted, true, memory_order_relaxed))
        return;
    pthread_mutex_lock(&store->worker_lock);
    pthread_cond_signal(&store->worker_wake);
    pthread_mutex_unlock(&store->worker_lock);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Sleeps until there is work or the interval is over. False: stop. */
static bool worker_wait(struct store *store, unsigned ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&store->worker_lock);
    while (!store->worker_stop && !atomic_load_explicit(&store->worker_wanted, memory_order_relaxed))
        if (pthread_cond_timedwait(&store->worker_wake, &store->worker_lock, &until) == ETIMEDOUT)
            break;
    atomic_store_explicit(&store->worker_wanted, false, memory_order_relaxed);
    bool go_on = !store->worker_stop;
    pthread_mutex_unlock(&store->worker_lock);
    return go_on;
}

static uint64_t committed_address(struct store *store)
{
    pthread_mutex_lock(&store->commit_lock);
    uint64_t address = store->committed.address;
    pthread_mutex_unlock(&store->commit_lock);
    return address;
}

/* So much has been committed since the last one that reading it would take long: that is what a recovery reads. */
static bool checkpoint_is_due(struct store *store)
{
    uint64_t images = index_bytes(store->index) * CHECKPOINT_IMAGES;

    pthread_mutex_lock(&store->checkpoint_lock);
    uint64_t from = store->superblock.checkpoint.end.address;
    pthread_mutex_unlock(&store->checkpoint_lock);
    return committed_address(store) > from + (images > CHECKPOINT_GROWTH ? images : CHECKPOINT_GROWTH);
}

/* However long the interval, there is a commit for each segment that has left memory: compaction gives space back
 * from commit to commit. Not before: what is in memory and not committed is changed in place. */
static bool commit_is_due(struct store *store)
{
    return atomic_load(&store->log.head) > committed_address(store) + store->superblock.segment_bytes;
}

static void *worker(void *arg)
{
    struct store *store = arg;
    unsigned interval = store->options.commit_interval_ms ? store->options.commit_interval_ms : 1000;
    uint64_t committed_ms = now_ms(), failed_ms = 0, grow_failed_ms = 0;

    /* Errors are kept in log.failed or met again by whoever needs the room. */
    while (worker_wait(store, interval)) {
        pthread_mutex_lock(&store->log.flush_lock);
        store_balance(store);
        int rc = hlog_maintain(&store->log);
        pthread_mutex_unlock(&store->log.flush_lock);
        bool due = store->options.commit_interval_ms && now_ms() - committed_ms >= interval;
        if (rc == 0 && (due || commit_is_due(store))) {
            rc = store_commit(store);
            committed_ms = now_ms();
        }
        if (rc == 0 && now_ms() - failed_ms > CHECKPOINT_RETRY_MS && checkpoint_is_due(store) &&
            store_checkpoint(store) < 0)
            failed_ms = now_ms();
        if (index_wants_growth(store->index) && now_ms() - grow_failed_ms > GROW_RETRY_MS) {
            rc = index_grow(store->index);
            if (rc > 0)
                store_wake_worker(store); /* the next part, after what is due here */
            else if (rc < 0)
                grow_failed_ms = now_ms();
        }
    }
    return NULL;
}

int store_worker_start(struct store *store)
{
    int rc = -pthread_create(&store->worker, NULL, worker, store);

    store->worker_runs = rc == 0;
    return rc;
}

void store_worker_stop(struct store *store)
{
    if (!store->worker_runs)
        return;
    pthread_mutex_lock(&store->worker_lock);
    store->worker_stop = true;
    pthread_cond_signal(&store->worker_wake);
    pthread_mutex_unlock(&store->worker_lock);
    pthread_join(store->worker, NULL);
    store->worker_runs = false;
}
