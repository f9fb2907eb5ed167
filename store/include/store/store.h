// SPDX-License-Identifier: MIT
/*
 * store: a FASTER key-value store (Chandramouli et al., SIGMOD 2018) with atomic units and commits.
 *
 * Keys are 1 to 65,536 bytes, values 0 to store_limits().value_max bytes. A latch-free hash index leads
 * to records in a hybrid log: the newest part is updated in place, the rest of memory is copied to
 * the tail on change, what does not fit in memory is read from the device.
 *
 * Promises:
 *   1. A unit (store_unit_*) is applied whole or not at all, now and after any crash.
 *   2. What was applied before store_commit() began is there after any crash once it returned 0;
 *      of what came later an exact prefix is there, unit by unit, in the order of application.
 *   3. A value that is read is what was written, or -EIO.
 *   4. A snapshot is one moment between units, and stays readable until it is deleted.
 *
 * Caveats:
 *   - Isolation between units is the caller's: a unit reads what others have applied, and two units
 *     that must not interleave must be kept apart by the caller's locks (from before the first read
 *     until store_unit_apply() has returned). Each single change is atomic by itself.
 *   - A session belongs to one thread at a time. Any number of sessions, opened and closed at any time.
 *   - Callbacks of the store run inside epoch protection: they must not block, nor call the store.
 *
 * Returns: 0 done; positive an outcome (STORE_NOT_FOUND, STORE_PENDING, STORE_EXISTS); negative -errno, nothing
 * changed.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <device/device.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_NODISCARD __attribute__((warn_unused_result))

enum { STORE_OK = 0, STORE_NOT_FOUND = 1, STORE_PENDING = 2, STORE_EXISTS = 3 };

#define STORE_KEY_MAX 65536u
#define STORE_LABEL_MAX 255u /* bytes in a snapshot's label, without the NUL */

struct store;
struct store_session;
struct store_io;
struct record;
struct store_snapshot;

/* ---- open and close ------------------------------------------------------------------------- */

enum store_damage_kind {
    STORE_DAMAGE_SUPERBLOCK, /* a copy of it; the other one is sound. Opening for writing makes both anew */
    STORE_DAMAGE_LOG,        /* bytes of the log are no sound record */
    STORE_DAMAGE_CHAIN,      /* a record does not lead to the one before it of its chain */
    STORE_DAMAGE_IMAGE,      /* an index image; the log has what it says */
};
struct store_damage {
    enum store_damage_kind kind;
    uint64_t address, len_bytes; /* in the log; or 0 */
    bool unreadable;             /* the device could not read it; else it read something that is not sound */
    uint64_t snapshot;           /* id of the snapshot that it belongs to; 0: the store's own */
    const void *key; /* LOG: of the record, as far as it can still be read; NULL: it cannot. Valid during the call */
    uint32_t key_len;
    const char *what; /* constant text */
};
/* Called by the thread that opens, before anything is written. `damage` may refuse: store_open() then ends with the
 * first -errno that it returned, and has written nothing. */
struct store_salvage {
    int (*damage)(void *ctx, const struct store_damage *damage);
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
    void *ctx;
};

struct store_options {
    /* Log memory, index and buffers together, bytes; 0: 64 MiB. At least 1 MiB. */
    uint64_t memory_bytes;
    /* Size of a log segment file, a power of two from 1 MiB to 1 GiB; 0: 64 MiB. Fixed when the store
     * is created, ignored afterwards. */
    uint64_t segment_bytes;
    /* Log memory in bytes, a power of two from 256 KiB; 0: chosen from memory_bytes. For tests that
     * want every operation to meet every region. */
    uint64_t log_bytes;
    bool no_read_cache; /* the rest of the budget holds records that were read from the device */
    /* Commit by itself when this many milliseconds have passed since something was applied; 0: never. */
    unsigned commit_interval_ms;
    /* Start writing what is not durable when it is more than this: so a commit never has much more to write; but what
     * was written is not changed in place any more. 0: three quarters of log memory. */
    uint64_t uncommitted_bytes;
    /* Compaction runs in the background when the log is longer than so many percent of what is live in it (what
     * snapshots keep does not count); at least 110; 0: 200. */
    unsigned space_percent;
    unsigned compaction_threads; /* up to 16; 0: 1 */
    /* Not NULL: a directory of its own for the cold level (F2), which is made if the store has none. Compaction then
     * moves what survives in the log to there: a key there takes about a byte of memory, and a read of it two of the
     * device at most, as a rule. The log is kept at 8 times its memory, and an eighth of the budget (1 MiB at least) is
     * the level's. A store that has one is opened with it from then on. The device must outlive the store. */
    struct device *cold;
    /* How much of the log each of them scans in a second; 0: half of the time, and all of it when far behind. */
    uint64_t compaction_bytes_per_second;
    /* No thread of the store's own: flushing and eviction happen inside the calls that need room, and
     * nothing is committed but by store_commit(), nor compacted but by store_compact(). For tests that replay a run. */
    bool no_background;
    bool read_only;
    /* Not NULL: opens a store that is damaged, too. Reads all of the log and checks it, passes over what is damaged
     * and tells. Read only: a key whose newest record is damaged, or cannot be reached any more, reads as -EIO.
     * For writing: such keys are reached again as far as their records are sound; those whose newest record is damaged
     * are gone; and the next open needs no salvage. Copied. A store with a cold level: read only, else -EOPNOTSUPP. */
    const struct store_salvage *salvage;
};

/* What opening found and did, or why it failed. */
struct store_opened {
    bool created;
    uint64_t commit;         /* number of the commit that was recovered */
    uint64_t replayed_bytes; /* log read since the last index checkpoint */
    uint64_t replayed_records;
    uint64_t dropped_bytes; /* log beyond the last commit: not promised to anybody, dropped */
    bool index_rebuilt;     /* the index checkpoint was missing or damaged: the whole log was replayed */
    uint64_t elapsed_us;
    char message[512]; /* on failure: cause and next step, without the path; else "" */
};

/*
 * Opens the store in `device`, or creates one in an empty device (unless read_only). The device must
 * outlive the store. Errors, with a message in *ret_opened (never NULL): -ENOTEMPTY not a store and
 * not empty (nothing is touched); -EPROTONOSUPPORT a format this program does not read; -EUCLEAN
 * damaged; -EINVAL options; -ENOSPC, -EIO, -ENOMEM.
 */
STORE_NODISCARD int store_open(struct device *device, const struct store_options *options, struct store **ret_store,
                               struct store_opened *ret_opened);

/*
 * Commits, writes an index checkpoint (so that the next open replays nothing) and frees the store,
 * whose sessions and snapshots must be closed. Always frees; returns 0 if everything applied is
 * durable, else -errno.
 */
int store_close(struct store *store);

/* As after a kill -9: frees everything, writes nothing. For tests. */
void store_abandon(struct store *store);

struct store_limits {
    uint32_t value_max;      /* bytes in one value */
    uint32_t unit_bytes_max; /* sum of store_record_bytes() over the changes of a unit */
};
struct store_limits store_limits(const struct store *store);

/* Log bytes that a record with such a key and value takes. */
uint64_t store_record_bytes(uint32_t key_len, uint32_t value_len);

/* ---- sessions --------------------------------------------------------------------------------- */

/* -ENOMEM, or what device_queue_open() says. */
STORE_NODISCARD int store_session_open(struct store *store, struct store_session **ret_session);
/* No read may be pending, no unit open. NULL does nothing. */
void store_session_close(struct store_session *session);

/* ---- reads ------------------------------------------------------------------------------------ */

/*
 * A read, owned by the caller, who keeps it, the key and the buffer in place until it is done.
 * Zero the struct, set the first group.
 */
struct store_read {
    const void *key;
    uint32_t key_len;
    uint32_t offset; /* first byte of the value that is wanted */
    /* Gets value[offset, offset + buf_len), as far as the value goes. What is in it beyond `copied` bytes, or where
     * the result is not STORE_OK, is not said: a value that others change meanwhile may be copied more than once. */
    void *buf;
    uint32_t buf_len;
    /* Bytes the value probably has; a good guess saves a second device read. 0: unknown. Of a value of more than 16 KiB
     * only the blocks of 4 KiB that hold the part are read from the device, if the part is at most half of the hint. */
    uint32_t value_hint;
    bool nearby; /* what was written together with it, just behind, will be read next: a little more is read at once */
    const struct store_snapshot *snapshot; /* NULL: the live store */
    /* NULL, or called when a read that was STORE_PENDING is done, inside store_complete_pending(). May start
     * operations of the session, but neither complete pending ones nor wait for any. */
    void (*done)(struct store_read *read);

    int result;         /* STORE_OK, STORE_NOT_FOUND, or -errno (-EIO: damaged) */
    uint32_t value_len; /* of the whole value */
    uint32_t copied;    /* bytes put into buf */

    struct {
        uint64_t hash, entry, address, low, ceiling;
        bool pinned, chained;
        struct store_read *next;
        void (*take)(struct store_io *io, int result, struct record *record);
    } priv; /* the store's own */
};

/*
 * Starts a read. Returns its result if memory had it, else STORE_PENDING: it is done when
 * store_complete_pending() has set `result` and no longer counts it. It returns then what the key held
 * at some moment between start and completion.
 */
STORE_NODISCARD int store_read(struct store_session *session, struct store_read *read);

/* Would a change of the value that keeps to its capacity be made in place, as things stand? Looks at memory only. */
bool store_is_mutable(struct store_session *session, const void *key, uint32_t key_len);

/* Starts `count` reads and overlaps their misses of memory: several times as fast as one after the other. Sets
 * the result of each; returns how many are STORE_PENDING. */
unsigned store_read_batch(struct store_session *session, struct store_read *reads, unsigned count);

/* Moves pending operations on; with `wait`, until none is left. Returns how many are left. */
unsigned store_complete_pending(struct store_session *session, bool wait);

/* Waits until at least one pending operation is done, if there is any. Returns how many are left. */
unsigned store_complete_some(struct store_session *session);

/* store_read() and waiting for it (and for all others pending in the session). */
STORE_NODISCARD int store_read_wait(struct store_session *session, struct store_read *read);

/* ---- units ------------------------------------------------------------------------------------ */

/*
 * A unit collects changes and applies them at one moment:
 *
 *     store_unit_begin(s);
 *     ... store_read() whatever is needed ...
 *     store_unit_upsert(s, ...); store_unit_rmw(s, ...); store_unit_delete(s, ...);
 *     rc = store_unit_apply(s);          // or store_unit_abandon(s)
 *
 * Keys are copied when a change is added; values and rmw contexts stay the caller's and must keep
 * until store_unit_apply() has returned. A key may be changed once per unit (store_unit_apply() may say -EINVAL
 * where it is not so).
 */
void store_unit_begin(struct store_session *session);

/*
 * Adds a blind write. `capacity` (0: value_len) reserves room for in-place growth of the value.
 * The value is the concatenation of `count` pieces. The adders return 0, -ENOMEM, -EINVAL (key empty
 * or too long), -EFBIG (value or unit beyond store_limits()); after an error abandon the unit.
 */
struct store_piece {
    const void *bytes; /* NULL: zeros */
    uint32_t len;
};
STORE_NODISCARD int store_unit_upsert(struct store_session *session, const void *key, uint32_t key_len,
                                      const struct store_piece *pieces, unsigned count, uint32_t capacity);
STORE_NODISCARD int store_unit_delete(struct store_session *session, const void *key, uint32_t key_len);

/*
 * Read-modify-write: the value becomes a function of the old one. Both callbacks may run several times
 * and must depend on their arguments only.
 */
#define STORE_ABSENT UINT32_MAX /* as old_len: the key is not there; old is NULL */
struct store_rmw {
    /* Length of the new value. *capacity (preset to the result 0 = exact) may ask for more room. */
    uint32_t (*size)(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity);
    /* Makes new_len bytes at `value`. In place: old == value, and the bytes beyond old_len are
     * undefined; else `old` and `value` do not overlap. */
    void (*write)(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len);
};
STORE_NODISCARD int store_unit_rmw(struct store_session *session, const void *key, uint32_t key_len,
                                   const struct store_rmw *rmw, const void *ctx);

/*
 * A ready rmw (pass the struct as ctx of STORE_PATCH): overwrites [offset, offset + len) of the value,
 * extending it with zeros if it is shorter (an absent value counts as empty); then, unless
 * cut == STORE_PATCH_KEEP, sets its length to `cut` (dropping bytes or adding zeros). When the value
 * has to move, it gets room for `capacity` bytes if that is more than its length.
 */
#define STORE_PATCH_KEEP UINT32_MAX
struct store_patch {
    uint32_t offset;
    uint32_t len;
    const void *bytes; /* NULL: zeros */
    uint32_t cut;
    uint32_t capacity;
};
extern const struct store_rmw STORE_PATCH;

/* What a unit that frees space may use although the disk counts as full for others. */
enum { STORE_UNIT_FREES = 1 };

/*
 * Applies the unit and ends it. Waits for the device where an rmw needs an old value that is not in
 * memory, and for log memory. Errors, the unit being dropped whole: -ENOSPC, -EIO (an old value is
 * damaged, or the device failed earlier and the store no longer writes), -EROFS, -ENOMEM.
 */
STORE_NODISCARD int store_unit_apply(struct store_session *session, unsigned flags);
void store_unit_abandon(struct store_session *session);

/* ---- one operation ---------------------------------------------------------------------------- */

STORE_NODISCARD int store_upsert(struct store_session *session, const void *key, uint32_t key_len, const void *value,
                                 uint32_t value_len);
/* Only if the key is not there: STORE_OK, or STORE_EXISTS. */
STORE_NODISCARD int store_insert(struct store_session *session, const void *key, uint32_t key_len, const void *value,
                                 uint32_t value_len);
STORE_NODISCARD int store_delete(struct store_session *session, const void *key, uint32_t key_len);
STORE_NODISCARD int store_rmw(struct store_session *session, const void *key, uint32_t key_len,
                              const struct store_rmw *rmw, const void *ctx);
/* Reads a whole value: STORE_OK, STORE_NOT_FOUND, or -errno; *ret_len is its length even if it is more
 * than buf_len, of which only the first buf_len bytes are copied then. */
STORE_NODISCARD int store_get(struct store_session *session, const void *key, uint32_t key_len, void *buf,
                              uint32_t buf_len, uint32_t *ret_len);

/*
 * A read-modify-write that does not wait for the device: the caller keeps it and its key in place until it is done.
 * Zero the struct, set the first group.
 */
struct store_rmw_op {
    const void *key;
    uint32_t key_len;
    uint32_t value_hint; /* as of struct store_read */
    const struct store_rmw *rmw;
    const void *ctx;
    void (*done)(struct store_rmw_op *op); /* as of struct store_read */

    int result; /* STORE_OK or -errno */

    struct {
        struct store_read read;
        struct store_session *session;
        uint64_t fetched_at, fetched_tail;
    } priv; /* the store's own */
};

/* Its result if memory had the old value, else STORE_PENDING: it is done when store_complete_pending() has set
 * `result`. It takes effect at one moment before that. */
STORE_NODISCARD int store_rmw_start(struct store_session *session, struct store_rmw_op *op);

/* ---- durability ------------------------------------------------------------------------------- */

/* Returns 0 when everything applied before the call is on stable media. Concurrent calls share one
 * device sync. After a failed sync every later commit fails with -EIO until the store is reopened; a
 * commit that failed for want of space may succeed later. From any thread, outside units. */
STORE_NODISCARD int store_commit(struct store *store);

/* A commit and a durable copy of the index: a later open replays the log from here. Other threads go
 * on meanwhile. */
STORE_NODISCARD int store_checkpoint(struct store *store);

/* ---- space ------------------------------------------------------------------------------------ */

/*
 * Moves what is live in the oldest part of the log to its end and gives the space back: in one round, as far as that
 * part is committed and out of memory and as there is room, at most `bytes` of it (UINT64_MAX: all) and 64 segments.
 * Space that a snapshot needs comes back when that is deleted. Operations go on meanwhile; several threads that call at
 * once share the work. With a cold level what is live is moved there, and then the same is done in it. Errors: -EUCLEAN
 * a record is damaged (nothing is given up: compaction stops before it), -ENOSPC, -EIO; what was done until then
 * counts.
 */
STORE_NODISCARD int store_compact(struct store *store, uint64_t bytes);

/* Asks the background to give back soon what it can, however little that is: the caller is short of space. */
void store_reclaim(struct store *store);
/* Says that values of about so many bytes are being deleted, which the store does not see where they are not in memory:
 * on a full disk it is what makes another look at all of the log worth while. */
void store_freed(struct store *store, uint64_t bytes);

/* ---- iteration --------------------------------------------------------------------------------- */

struct store_item {
    const void *key, *value; /* valid during the call; value NULL: a tombstone */
    uint32_t key_len, value_len;
    uint64_t address, version; /* in the log; of its commit */
    bool unreachable;          /* salvage only: a damaged record hides whether this is what the key holds: reads say
                                * -EIO. Older values of the key come as well */
};
typedef int (*store_each)(void *ctx, const struct store_item *item);

/* Commits, and calls `each` for every key that is there at that moment, in log order (then that of the cold level):
 * once, with its value of that moment. A key that is deleted during the scan may be left out. Stops at the first result
 * other than 0 and returns it. Holds back what compaction would free. `each` may use the session, but not scan with it.
 * -EUCLEAN: a record is damaged; in a store that was opened to salvage it, it is passed over. */
STORE_NODISCARD int store_scan(struct store_session *session, store_each each, void *ctx);
/* The same for every record and tombstone of the log, live or not; the cold level is passed over. */
STORE_NODISCARD int store_scan_log(struct store_session *session, store_each each, void *ctx);

/*
 * Scrub: reads what the store and its snapshots keep of the log from the device, and verifies every checksum, beside
 * whatever else goes on. The caller zeroes the struct, sets the first group, and calls again while it gets 1; it sleeps
 * in between as it likes, and may stop, and go on later with `position`.
 */
#define STORE_SCRUB_COLD (UINT64_C(1) << 62) /* in a position: the rest is one of the cold level's log */
struct store_scrub {
    uint64_t position;  /* where to go on; 0: at the beginning */
    uint64_t max_bytes; /* to be read by a call, more or less */
    /* For each damaged place. The key is given if a read of it comes upon the damage. */
    void (*damage)(void *ctx, const struct store_damage *damage);
    void *ctx;

    uint64_t read_bytes; /* by this call */
    uint64_t end;        /* of that log, as of now */
};
/* 1: there may be more; 0: that was all; -errno, the position then is where it failed. */
STORE_NODISCARD int store_scrub(struct store_session *session, struct store_scrub *scrub);

/* ---- snapshots -------------------------------------------------------------------------------- */

struct store_snapshot_info {
    uint64_t id;      /* > 0, never reused */
    uint64_t time_ns; /* as given when it was made */
    uint64_t begin, address; /* of the log that it covers: where that begins, and its end */
    char label[STORE_LABEL_MAX + 1];
};

/* A checkpoint that is kept, with a label of the caller's (unique: -EEXIST). Durable on return. */
STORE_NODISCARD int store_snapshot_create(struct store *store, const char *label, uint64_t time_ns, uint64_t *ret_id);
/* Calls `each` in order of age; stops at its first result other than 0 and returns that. */
STORE_NODISCARD int store_snapshot_list(struct store *store,
                                        int (*each)(void *ctx, const struct store_snapshot_info *info), void *ctx);
/* -ENOENT; -EBUSY while it is open. Durable on return; its log is free for compaction. */
STORE_NODISCARD int store_snapshot_delete(struct store *store, uint64_t id);
/* Opens for reading (struct store_read.snapshot), from any number of sessions. Nothing is copied. */
STORE_NODISCARD int store_snapshot_open(struct store *store, uint64_t id, struct store_snapshot **ret_snapshot);
/* store_scan() of what the snapshot holds: each key that was there, once, with its value of that moment. */
STORE_NODISCARD int store_snapshot_scan(struct store_session *session, const struct store_snapshot *snapshot,
                                        store_each each, void *ctx);
/* No read of it may be pending. NULL does nothing. */
void store_snapshot_close(struct store_snapshot *snapshot);

/* ---- statistics ------------------------------------------------------------------------------- */

struct store_stats {
    uint64_t begin, head, read_only, tail, flushed, committed; /* log addresses */
    uint64_t commits, checkpoints;
    uint64_t memory_bytes;                 /* log frames, index and overflow buckets that are in use */
    uint64_t disk_bytes;                   /* of the log: segments, without what compaction has freed in them */
    uint64_t kept_bytes;                   /* the same without what is set aside for the log to come */
    uint64_t live_bytes;                   /* of the log, estimated now and then */
    uint64_t compacted_bytes, moved_bytes; /* log that compaction has scanned, and written again */
    /* Of the cold level, counted in all of the others too, but for the log's addresses and commits: */
    uint64_t cold_disk_bytes, cold_memory_bytes;
    uint64_t cold_entries, cold_chunks; /* entries: about as many as keys, those that are dead by now too */
    uint64_t cold_migrated;             /* records that were put there since the store was opened */
    int compaction_failed;              /* 0, or the -errno of the last round */
    uint64_t index_buckets, index_overflow_buckets;
    uint64_t reads_memory, reads_device;
    uint64_t bytes_read; /* by reads_device */
    uint64_t bytes_appended, bytes_written;
    uint64_t space_total_bytes, space_free_bytes; /* of the filesystem underneath */
    int failed;                                   /* 0, or the -errno that stopped writing */
};
void store_stats(struct store *store, struct store_stats *ret_stats);

#endif
