// SPDX-License-Identifier: MIT
/*
 * The store's one struct, for the files of this room.
 *
 * Lock order: compact.lock, checkpoint_lock, commit_lock (never held across a wait for the device: `committing` is),
 * log.flush_lock. Those of a store before cold.lock, and that before those of its cold level. Entries of the index and
 * locks of records are only tried (unit.c).
 */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include "cache.h"
#include "cold.h"
#include "compact.h"
#include "epoch.h"
#include "hlog.h"
#include "index.h"
#include "space.h"
#include "superblock.h"
#include "window.h"
#include <store/store.h>

#define READ_BUFFER_BYTES (80u << 10) /* a 64 KiB value with its key, wherever it starts in a block */
#define SESSION_READS 64              /* in flight per session */
#define SESSION_WINDOWS 8             /* likewise, of windows */
#define SESSION_SEND 16               /* so many wait for each other before they are sent to the device */

struct store {
    struct device *device;
    struct device_log *device_log;
    struct epoch *epoch;
    struct index *index;
    struct hlog log;
    bool log_open;
    struct cache cache;
    struct windows windows;
    struct device_queue *flush_queue; /* of whoever holds log.flush_lock */
    struct store_options options;     /* constant, defaults filled in */
    struct store_limits limits;       /* constant */
    uint64_t store_id;                /* constant */
    uint64_t index_buckets;           /* constant: to begin with, where no checkpoint says */

    /* The gate between units and commits. Closed only while a commit takes its place at the tail; a
     * unit that finds it closed waits outside the epoch. Both sides sequentially consistent
     * (epoch.h): either the unit sees it closed or the commit waits for the unit. */
    _Atomic bool gate_closed;
    _Atomic uint64_t version; /* stamped on what units write; moves on while the gate is closed */

    pthread_mutex_t commit_lock;
    pthread_cond_t commit_done;
    bool committing;               /* somebody is the leader */
    uint64_t commit_round;         /* commits finished, well or not */
    int commit_result;             /* of the last one */
    struct log_position committed; /* end of the last durable commit */

    pthread_mutex_t checkpoint_lock; /* superblock, images, snapshots */
    struct superblock superblock;
    struct salvage *salvage;      /* NULL: an ordinary open. Constant */
    struct log_position begin_at; /* log.begin with its commit; moved by compaction */
    struct store_snapshot *open_snapshots;

    struct cold *cold;   /* the cold level, or NULL. Constant */
    struct cold *chunks; /* of a store that is one: what it holds; else NULL. Constant */
    uint64_t cold_bytes; /* of the memory budget, for the cold level. Constant */
    bool explicit_log;   /* log_bytes was given. Constant */
    bool is_cold_level;  /* opened as one. Constant */
    uint64_t cold_id;    /* of a level: what its store knows it by; 0: not yet. Constant */

    struct compact compact;
    struct space space;
    unsigned scans;   /* iterations and slices of a scrub under way, which need the log as it was; checkpoint_lock */
    bool release_due; /* by the last of them: compact_release() was called meanwhile; checkpoint_lock */

    pthread_t worker;
    bool worker_runs;
    pthread_mutex_t worker_lock;
    pthread_cond_t worker_wake;
    bool worker_stop;
    _Atomic bool worker_wanted; /* set by whoever sees work, cleared by the worker; a hint */

    _Atomic uint64_t commits, checkpoints; /* statistics; relaxed */

    pthread_mutex_t sessions_lock;
    struct store_session *sessions;                                       /* open ones; sessions_lock */
    uint64_t closed_reads_memory, closed_reads_device, closed_bytes_read; /* of those that were closed; sessions_lock */
};

struct store_io { /* a device read of one record; buffer of READ_BUFFER_BYTES or malloc'ed */
    struct device_io io;
    struct store_session *session;
    struct store_read *read;
    uint8_t *buffer, *large;   /* buffer: of the session's; large: NULL or what a record beyond it needed */
    uint64_t address;          /* of the record */
    const struct record *head; /* sound, in `buffer`: what is being read is blocks [first, end) of its value. Or NULL */
    uint64_t first, end;
    uint64_t from;         /* address of what io.buf is to get */
    bool served;           /* it got it from a window */
    struct store_io *next; /* of the free ones, the served ones, or those that wait for the same window */
};

struct window_io { /* a device read of a window */
    struct device_io io;
    struct store_session *session;
    struct window *window; /* NULL: not in use */
    struct store_io *waiting;
};

struct change;

struct store_session {
    struct store *store;
    struct epoch_slot *slot;
    struct device_queue *queue;
    struct store_io ios[SESSION_READS];
    struct store_io *free_ios;
    struct window_io window_ios[SESSION_WINDOWS];
    struct store_io *served_first, *served_last; /* have what they asked for: log_read_move_on() tells them */
    uint8_t *buffers;                            /* of all ios; touched on use */
    unsigned unsent; /* reads given to the queue since it was last polled, modulo SESSION_SEND */
    struct store_read *waiting_first, *waiting_last;         /* no io free yet */
    unsigned pending;                                        /* reads not done */
    _Atomic uint64_t reads_memory, reads_device, bytes_read; /* written by its thread, read by store_stats(); relaxed */
    struct store_session *previous, *next;                   /* under sessions_lock */

    struct change *changes; /* of the open unit */
    unsigned change_count, change_room;
    uint8_t *keys;
    uint32_t keys_len, keys_room;
    uint64_t unit_bytes;
    bool unit_open;
    uint64_t seed;    /* for back-off */
    uint64_t held_ns; /* space_hold_back(): to be slept */

    struct store_session *cold;                     /* of the cold level, or NULL */
    struct cold_read *cold_reads, *free_cold_reads; /* SESSION_READS of them */
    struct store_read *cold_first, *cold_last;      /* waiting for a free one */
};

struct image { /* an index image on the device; its address is its reader's context */
    struct device *device;
    int file;
    struct index_image index;
};

struct store_snapshot {
    struct store *store;
    uint64_t id;
    struct checkpoint at;
    struct image image;
    struct store_snapshot *cold; /* of the cold level; NULL: there was none */
    uint64_t cold_chunks;        /* there */
    struct store_snapshot *next; /* of the open ones; under checkpoint_lock */
};

static inline void add_to(_Atomic uint64_t *counter, uint64_t more)
{
    /* relaxed: one thread writes, others want to know about when */
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, now + more, memory_order_relaxed);
}
static inline void count_one(_Atomic uint64_t *counter)
{
    add_to(counter, 1);
}

/* read.c */
/* Looks for the newest record of the key from `address` (on the device) down. STORE_PENDING, always. */
int read_from(struct store_session *session, struct store_read *read, uint64_t address);
/* store_read() of a log that is kept (nothing of it is given back before the read is done): the newest record of the
 * key in [low, ceiling). priv.address is its address, or, where there is none, the next of the chain below. */
int read_newest(struct store_session *session, struct store_read *read, uint64_t low, uint64_t ceiling);
/* store_read() of a chain that the index does not know: the newest record of the key in [low, ceiling), from that at
 * `address` down. -ESTALE: it was given back meanwhile, and the read is not pinned. */
int read_chain(struct store_session *session, struct store_read *read, uint64_t address, uint64_t low,
               uint64_t ceiling);
/* Is the record at `address` the newest of read->key? As far as memory tells: what is newer and on the device
 * shares the entry, and is taken for the same key. */
bool read_is_newest(struct store_session *session, struct store_read *read, uint64_t address);
/* For a read with priv.take, which gets the io and ends it with one of these: it is done; one more hop. */
void io_end(struct store_io *sio, int result);
void io_again(struct store_io *sio, uint64_t address);

/* log_read.c: gets the log's bytes [at, at + bytes) for a read, as far as there are any, behind `keep` bytes of its
 * buffer that are in use; sio->io says where and how many. sio->io.done is called for it in log_read_move_on().
 * `small`: it begins a record that is small as far as is known, so what lies beside it may be wanted soon. */
void log_read(struct store_io *sio, uint64_t at, uint64_t bytes, uint64_t keep, bool small);
/* Once more, from the device: what the window had was not sound. */
void log_read_again(struct store_io *sio);
/* Ends what is done; with `wait`, sleeps until something is. */
void log_read_move_on(struct store_session *session, bool wait);
/* No record that begins at the address reaches beyond this: the end of its segment, or of what is on the device. */
uint64_t log_read_stop(struct store *store, uint64_t address);
void io_done(struct device_io *io); /* read.c: sio->io.done */

/* It is done: gives the caller the result. For who has counted it in `pending`. */
void read_end(struct store_session *session, struct store_read *read, int result);

/* cold_read.c: the cold level of an open store, as its sessions read it */
int cold_session_open(struct store_session *session);
void cold_session_close(struct store_session *session);
/* The store's log does not have the key: does the cold level? The result, or STORE_PENDING: read_end() will be called.
 */
int cold_ask(struct store_session *session, struct store_read *read);
/* Starts those that wait for a free cold_read. */
void cold_start_waiting(struct store_session *session);

/* store.c: opens a store as the cold level of another, which knows its id; 0: of one that has none yet, so it is made,
 * or is empty. */
int store_open_cold_level(struct device *device, const struct store_options *options, uint64_t id,
                          struct store **ret_store, struct store_opened *ret_opened);
/* store.c: gives log and cache what the index leaves of the budget. log.flush_lock held. */
void store_balance(struct store *store);

/* recover.c */
int recover(struct store *store, struct store_opened *opened);
int index_open_empty(struct store *store, struct index **ret_index);

/* commit.c */
void store_wake_worker(struct store *store);
int store_worker_start(struct store *store);
void store_worker_stop(struct store *store);
static inline void store_hint_worker(struct store *store)
{
    if (hlog_wants_maintenance(&store->log))
        store_wake_worker(store);
}

/* snapshot.c: writes a checkpoint; *ret_at says what. checkpoint_lock held. */
int checkpoint_write(struct store *store, struct checkpoint *ret_at);
/* Deletes those snapshots of the cold level that belong to none of the store's. Only the superblock is looked at. */
int snapshot_drop_orphans(struct store *store, struct store *level);
void image_name(char name[DEVICE_NAME_MAX + 1], uint64_t image);
/* Writes an index as an image, durably. Of the store's own it also commits what the image may lead to. */
int image_save(struct store *store, struct index *index, uint64_t image);
/* Opens the index image of a checkpoint and checks all of it; image_close() it. `image` stays where it is meanwhile. */
int image_open(struct image *image, struct store *store, const struct checkpoint *at, const char **ret_why);
void image_close(struct image *image);

#endif
