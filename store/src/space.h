// SPDX-License-Identifier: MIT
/*
 * space: how much of the log is live, and compaction in the background. Threads of its own look now and then
 * whether the log is longer than `space_percent` of what is live in it, and compact it until it is not.
 *
 * Where they are outrun, so that the log is longer by a quarter still, writers are slowed down.
 *
 * What is live is estimated: samples of the log's segments, each record looked up in the index and in memory only.
 * What snapshots keep does not count: compaction cannot give it back.
 */
#ifndef STORE_SPACE_H
#define STORE_SPACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct store;
struct store_session;

#define SPACE_THREADS_MAX 16u
#define SPACE_BRAKE_MAX 8u

struct space {
    pthread_mutex_t lock; /* guards stop, the estimate and `barren` */
    pthread_cond_t wake;
    bool stop;
    pthread_t threads[SPACE_THREADS_MAX];
    unsigned started;
    uint64_t live, live_at; /* estimate of live bytes, made when the tail was there; live_at 0: none yet */
    _Atomic bool wanted;    /* somebody met a full disk: compact what there is. Relaxed: a hint */
    _Atomic uint64_t freed; /* bytes, as store_freed() was told. Relaxed: a count that nothing else hangs on */
    /* A pass over a log without room gave next to nothing back, when the changes were that many: the next one waits for
     * more, so that who goes on trying on a full disk does not wear it out. */
    bool barren;
    uint64_t barren_at;
    /* How much writers are slowed down, 0 (not at all) to SPACE_BRAKE_MAX: compaction must not be outrun for
     * ever. Set by its threads, read by writers; relaxed: a hint. */
    _Atomic unsigned brake;
};

/* How fast one thread goes. */
struct space_pace {
    uint64_t bytes, since_ns;
};

void space_init(struct space *space);
void space_fini(struct space *space);
int space_start(struct store *store);
void space_stop(struct store *store);
/* A unit has appended `bytes`: sleeps when the brake is on. Outside epochs. */
void space_hold_back(struct store_session *session, uint64_t bytes);
/* `bytes` were compacted; sleeps if that was fast enough. False: the store is being closed. */
bool space_pace(struct store *store, struct space_pace *pace, uint64_t bytes);
/* A full disk, and the caller is about to free some of it: compacts a part of the log. False: nothing came back, or all
 * that there was has been looked at. *pass, 0 to begin with, keeps count of that. Outside epochs, no lock held. */
bool space_make_room(struct store *store, uint64_t *pass);
/* Live bytes of the log, as last estimated; its length if they never were. */
uint64_t space_live(struct store *store);

#endif
