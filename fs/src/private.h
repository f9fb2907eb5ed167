// SPDX-License-Identifier: MIT
/*
 * The filesystem's structs, for the files of this room.
 *
 * Lock order: rename_lock, inode locks (ascending stripes, lock.c), then the small mutexes (alloc_lock,
 * reap_lock, a shard of refs, snapshots_lock for writing), which are leaves. A unit of the store is
 * begun under the inode locks of all that it reads and changes, which are held until it was applied:
 * that is the isolation that the store asks for.
 */
#ifndef FS_PRIVATE_H
#define FS_PRIVATE_H

#include "schema.h"

#include <pthread.h>
#include <stdatomic.h>

#define LOCK_STRIPES 1024u
#define REF_SHARDS 64u
#define READS_AT_ONCE 64u /* among them the 17 chunks of a read of 1 MiB that is not aligned; the inodes of a block */
#define TXN_INODES 5u
#define TXN_MASKS 6u   /* groups of chunks: of 256 chunks, wherever they begin */
#define TXN_PATCHES 8u /* parts of chunks and of patches that are changed: of the first chunk and the last */
#define TXN_PARTS 4u   /* pages that become patches and are written in part: likewise */
#define TXN_FOLDS 2u
/* What all patches of a chunk may add to a unit when they go, and their mask. */
#define PATCHES_GO_BYTES (FS_CHUNK_PAGES * store_record_bytes(18, 0) + store_record_bytes(17, MASKS_BYTES))
#define TXN_PAGES 12u /* eight of them become a block */
#define TXN_BLOCKS 4u
#define TXN_ENTRIES 4u

#define FS_CAPABILITY "security.capability"

#define SNAPSHOT_SHIFT FS_INO_BITS
#define SNAPSHOT_SLOTS 0xfffeu /* slots 1 to this; 0xffff is `.snapshots` itself */

struct ref {
    uint64_t ino;    /* 0: free */
    uint64_t orphan; /* number of its orphan record if the last name is gone, else 0 */
    uint64_t count;
};

struct ref_shard {
    pthread_mutex_t lock;
    struct ref *refs; /* open addressing; room is a power of two */
    size_t room, used;
};

struct dead { /* an inode to be removed */
    uint64_t ino, orphan;
};

struct fs {
    struct store *store;
    struct fs_options options; /* constant */

    pthread_rwlock_t stripes[LOCK_STRIPES];
    pthread_mutex_t rename_lock; /* renames of directories across directories: one at a time */
    struct ref_shard shards[REF_SHARDS];

    pthread_mutex_t alloc_lock; /* guards the next six and the writing of the super record */
    struct fs_session *alloc_session;
    uint64_t next_ino, ino_end;       /* numbers at hand */
    uint64_t next_orphan, orphan_end; /* likewise */
    uint64_t first_orphan;            /* no orphan record has a lower number */
    _Atomic int64_t orphans; /* orphan records there are; relaxed: exact once the sessions are closed */
    _Atomic uint64_t inodes; /* in use; relaxed: a statistic */
    _Atomic int64_t space_left; /* until the size is looked at again; relaxed: about */
    _Atomic unsigned sessions; /* opened so far; relaxed: spreads the counters */

    _Atomic uint64_t scrubbed; /* up to here; relaxed: two scrubs at once read some of it twice, or not at all */

    pthread_mutex_t reap_lock; /* guards the list */
    pthread_cond_t reap_wake;
    struct dead *dead;
    size_t dead_count, dead_room;
    bool reap_stop, reaper_runs;
    pthread_t reaper;

    pthread_rwlock_t snapshots_lock; /* read: while one is in use; write: opening and closing */
    struct snapshot_slot {
        uint64_t id; /* 0: not open */
        uint64_t time_ns;
        struct store_snapshot *snapshot;
    } *slots; /* [SNAPSHOT_SLOTS + 1] */
    uint64_t slots_end; /* no slot from here on was ever open */
};

struct masks { /* of the chunks of a group */
    uint64_t group;
    bool loaded, existed, dirty;
    uint16_t of[MASKS_CHUNKS];
};
struct mask { /* of a chunk */
    struct masks *group;
    uint16_t *of;
};

/* Changes of one call, collected until they are applied as one unit. */
struct txn {
    struct timespec now;
    struct inode inodes[TXN_INODES];
    bool inode_dirty[TXN_INODES];
    unsigned inode_count;
    struct page {
        uint64_t dir, number;
        uint32_t len;
        bool dirty, existed;
        uint8_t bytes[PAGE_BYTES_MAX];
    } pages[TXN_PAGES];
    struct block {
        uint64_t dir, number, live;
        uint32_t len;
        bool existed, loaded; /* in the store; its names are in `bytes` */
        bool listing_dirty, live_dirty;
        uint8_t bytes[BLOCK_BYTES_MAX], live_bytes[WORD_BYTES];
    } blocks[TXN_BLOCKS];
    unsigned block_count;
    unsigned page_count;
    unsigned entry_count;
    uint8_t inode_records[TXN_INODES][INODE_BYTES + INODE_CONTENTS_MAX], entry_bytes[TXN_ENTRIES][ENTRY_BYTES];
    struct masks masks[TXN_MASKS];
    unsigned mask_count;
    uint64_t masks_ino; /* whose they are */
    uint8_t mask_bytes[TXN_MASKS][MASKS_BYTES];
    unsigned patch_count, part_count, fold_count; /* in use, of the session's */
    uint8_t orphan_bytes[2][ORPHAN_BYTES], gap_bytes[2][WORD_BYTES];
    struct dead dead[2]; /* orphans made; orphan 0: none */
    unsigned dead_count;
    uint64_t adopted;     /* an inode that is no orphan any more; 0: none */
    uint64_t data_bytes;  /* written, about */
    int64_t inodes_added;
};

/* For calls on extended attributes; allocated by the first of a session. */
struct xattr_space {
    uint32_t len; /* of the table */
    uint8_t table[XATTR_TABLE_MAX];
    uint8_t acl[2][FS_XATTR_VALUE_MAX]; /* what a new inode inherits: access, default */
};

struct fs_session {
    struct fs *fs;
    struct store_session *store;
    uint64_t counter_stripe; /* constant */
    struct txn txn;
    struct store_read reads[READS_AT_ONCE];
    struct fs_key keys[READS_AT_ONCE];
    struct store_patch patches[TXN_PATCHES];
    uint8_t parts[TXN_PARTS][FS_PAGE_BYTES], folds[TXN_FOLDS][FS_CHUNK_BYTES];
    uint8_t inode_record[INODE_BYTES + INODE_CONTENTS_MAX]; /* get_contents() */
    uint8_t listing[BLOCK_BYTES_MAX];
    uint8_t inode_bytes[FS_BLOCK_NAMES][INODE_BYTES];
    struct xattr_space *xattrs; /* NULL until needed */
};

/* Where to read: the live tree, or a snapshot. */
struct view {
    const struct store_snapshot *snapshot; /* NULL: live */
    uint64_t slot, id, time_ns;            /* of the snapshot */
    uint64_t ino; /* within the tree */
};

/* lock.c */
struct lockset {
    struct fs *fs;
    uint16_t stripes[TXN_INODES];
    unsigned count;
};
void lock_read(struct fs *fs, uint64_t ino);
void unlock_read(struct fs *fs, uint64_t ino);
/* Locks for writing; 0 in `inos` is passed over. */
void lock_write(struct fs *fs, struct lockset *set, const uint64_t *inos, unsigned count);
void unlock_write(struct lockset *set);

/* refs.c */
void refs_open(struct fs *fs);
void refs_close(struct fs *fs);
int ref_get(struct fs *fs, uint64_t ino);
/* If the inode is referenced, notes its orphan record and returns true: ref_put will tell. */
bool ref_orphan(struct fs *fs, uint64_t ino, uint64_t orphan);
/* Gives back; true if it was the last of an orphan: *ret_orphan. */
bool ref_put(struct fs *fs, uint64_t ino, uint64_t count, uint64_t *ret_orphan);

/* inode.c: reading, and the txn */
int get_value(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, void *buf,
              uint32_t room, uint32_t *ret_len);
/* -ESTALE: there is none with that number. */
int get_inode(struct fs_session *s, const struct view *view, struct inode *ret_inode);
/* The same, with its contents, if they are inline, at s->inode_record + INODE_BYTES. */
int get_contents(struct fs_session *s, const struct view *view, struct inode *ret_inode);
int get_entry(struct fs_session *s, const struct view *dir, const char *name, struct entry *ret_entry);
void fs_now(struct fs *fs, struct timespec *ret_now);
void txn_begin(struct fs_session *s);
/* The inode, loaded once; the caller holds its lock. Mark it dirty to have it written. */
int txn_inode(struct fs_session *s, uint64_t ino, struct inode **ret_inode);
struct inode *txn_new_inode(struct fs_session *s, const struct inode *inode);
void txn_dirty(struct fs_session *s, const struct inode *inode);
/* Its contents, if they are inline; room for INODE_CONTENTS_MAX bytes. */
uint8_t *txn_contents(struct fs_session *s, const struct inode *inode);
/* listing.c */
/* Were all of its numbers given? Then it is one listing. */
bool block_is_complete(const struct inode *dir, uint64_t block);
/* Where a gap leads: the block after it (or with key_gap_end(), its first). -ENOENT: there is none. */
int get_gap(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, uint64_t *ret_block);
/* Puts the listings of the txn down in its unit. */
int listings_add(struct fs_session *s);
/* Adds or removes a name: entry record, listing, the directory's counts and times. */
int txn_add_name(struct fs_session *s, struct inode *dir, const char *name, uint64_t ino, uint32_t type);
int txn_remove_name(struct fs_session *s, struct inode *dir, const char *name, const struct entry *entry);
/* Makes a name lead to another inode. It keeps its sequence number: whoever is reading the directory sees
 * the name once, as the one or the other. */
int txn_replace_name(struct fs_session *s, struct inode *dir, const char *name, const struct entry *entry,
                     uint64_t ino, uint32_t type);
/* inode.c again: the inode lost its last name, or never had one. */
int txn_orphan(struct fs_session *s, struct inode *inode);
/* And it gets one again. */
int txn_adopt(struct fs_session *s, struct inode *inode);
int txn_apply(struct fs_session *s, unsigned flags);
void txn_abandon(struct fs_session *s);

/* alloc.c */
int alloc_ino(struct fs *fs, uint64_t *ret_ino);
/* No orphan record is below `first`: the next open need not look there. What fails costs time only. */
void alloc_first_orphan(struct fs *fs, uint64_t first);
int alloc_orphan(struct fs *fs, uint64_t *ret_number);
/* Adds to the number of inodes in the open unit; *more must keep until it is applied. Then count_applied(). */
int count_in_unit(struct fs_session *s, const int64_t *more);
void count_applied(struct fs *fs, int64_t more);
int count_load(struct fs_session *s);

/* space.c: keeps the log below fs_options.size_bytes. */
/* Before `bytes` are written. -ENOSPC. */
int space_take(struct fs *fs, uint64_t bytes);
uint64_t space_used(const struct store_stats *stats);

/* data.c */
uint64_t chunk_blocks(uint32_t len);
uint64_t smaller(uint64_t a, uint64_t b);
/* How long the chunk is now; `mask`: its patches. */
int chunk_len(struct fs_session *s, const struct view *view, const struct inode *inode, uint64_t chunk, uint16_t mask,
              uint32_t *ret_len);
/* From here on `blocks` counts. */
void make_sparse(struct inode *inode);
/* Makes the file longer if it is shorter than `size`, by a hole. In a unit. */
int file_grow(struct fs_session *s, struct inode *inode, uint64_t size);
struct span { /* bytes of one chunk that are written */
    uint64_t chunk;
    uint32_t from, len;
    const uint8_t *bytes; /* NULL: zeros */
};
int write_span(struct fs_session *s, struct inode *inode, const struct span *span);
/* Cuts a chunk to `rest` bytes, which is less than it has; *ret_len is how long it is then. */
int cut_chunk(struct fs_session *s, struct inode *inode, uint64_t chunk, uint32_t rest, uint32_t *ret_len);
/* Removes all chunks of an inode without a name, some per unit. */
int data_remove(struct fs_session *s, const struct inode *inode);
int data_truncate(struct fs_session *s, uint64_t ino, uint64_t size, const struct fs_attr *attr, unsigned set);

/* patch.c */
/* The mask of a chunk, for reading; `masks`, zeroed at first, keeps its group. */
int mask_look(struct fs_session *s, const struct view *view, const struct inode *inode, uint64_t chunk,
              struct masks *masks, uint16_t *ret_mask);
/* The same inside a txn, which puts down what changes. All of one inode. */
int mask_get(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask *ret_mask);
int masks_add(struct fs_session *s);
/* Where the last patch ends in the chunk. */
uint32_t patched_end(uint16_t mask);
/* Keeps the patch until the unit was applied. */
struct store_patch *txn_patch(struct fs_session *s, struct store_patch patch);
uint16_t span_pages(const struct span *span);
/* Writes into patches, or folds them into the chunk. It has `old` bytes, and the file will reach `reach` into it. */
int patches_write(struct fs_session *s, struct inode *inode, const struct span *span, struct mask mask, uint32_t old,
                  uint32_t reach);
/* Removes those of `pages`; everything from byte `rest` of the chunk on. */
int patches_drop(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask mask, uint16_t pages);
int patches_cut(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask mask, uint32_t rest);

/* attr.c */
/* -EPERM: FS_FLAG_IMMUTABLE or FS_FLAG_APPEND stand against a change; or only the first against growth. */
int check_mutable(const struct inode *inode);
int check_growable(const struct inode *inode);
/* What fs_setattr() does to an inode of the open unit; once per unit. */
int attr_set(struct fs_session *s, struct inode *inode, const struct fs_attr *attr, unsigned set);
/* What a change of the contents takes away: as FS_KILL_* in `kill` say, and always security.capability. */
int attr_kill(struct fs_session *s, struct inode *inode, unsigned kill);

/* xattr.c: the attributes of an inode of the open unit. Load, change, store: each once per unit; between load
 * and store the table is s->xattrs. */
/* INODE_* that says that the attribute is there; 0: none does. */
uint32_t xattr_flag(const char *name, size_t len);
int xattrs_load(struct fs_session *s, const struct view *view, const struct inode *inode);
/* The value; *ret_len is its length, of which at most `room` bytes are copied. -ENODATA. */
int xattrs_get(struct fs_session *s, const struct view *view, const char *name, void *buf, uint32_t room,
               uint32_t *ret_len);
/* `value` must keep until the unit was applied. -ENOSPC. */
int xattrs_put(struct fs_session *s, struct inode *inode, const char *name, const void *value, uint32_t len);
/* -ENODATA. */
int xattrs_drop(struct fs_session *s, struct inode *inode, const char *name);
int xattrs_store(struct fs_session *s, struct inode *inode);
/* Removes the values outside of the table, for an inode that is about to go. Several units. */
int xattrs_remove(struct fs_session *s, const struct inode *inode);

/* acl.c: on values in the kernel's format */
/* 0, 1 for an ACL without entries, or -EINVAL. */
int acl_check(const uint8_t *acl, uint32_t len);
/* Mode bits that the ACL stands for; true if they are all that it says. */
bool acl_mode(const uint8_t *acl, uint32_t len, uint32_t *mode);
/* Makes the ACL say what the mode says. -EIO: it is none. */
int acl_chmod(uint8_t *acl, uint32_t len, uint32_t mode);
/* Mode and ACLs of an inode that is made in `dir`: from its default ACL, or the umask. In a unit. */
int acl_inherit(struct fs_session *s, const struct inode *dir, mode_t umask, struct inode *inode);

/* reap.c */
int reap_open(struct fs *fs, struct fs_session *s);
void reap_stop(struct fs *fs);
void reap_close(struct fs *fs);
/* Without a reaper thread: does its work now. Outside of locks. */
void reap_drain(struct fs_session *s);
void reap_add(struct fs *fs, uint64_t ino, uint64_t orphan);

/* snapshot.c */
/* Where `ino` lies; a view of a snapshot must be put back with view_put(). */
int view_get(struct fs_session *s, uint64_t ino, struct view *ret_view);
void view_put(struct fs_session *s, const struct view *view);
/* Turns an attribute of the tree into what the outside sees. */
void view_attr(const struct view *view, struct fs_attr *attr);
bool is_live(uint64_t ino);
int snapshots_lookup(struct fs_session *s, const char *name, struct fs_attr *ret_attr);
int snapshots_create(struct fs_session *s, const char *name, struct fs_attr *ret_attr);
int snapshots_delete(struct fs_session *s, const char *name);
int snapshots_getattr(struct fs_session *s, struct fs_attr *ret_attr);
int snapshots_readdir(struct fs_session *s, uint64_t cookie, bool with_attr, fs_fill fill, void *ctx);
void snapshots_close(struct fs *fs);

/* names.c */
int check_name(const char *name);
/* Why the name is not there: -ENOENT, or what is wrong with its directory. */
int why_absent(struct fs_session *s, const struct view *dir);

#endif
