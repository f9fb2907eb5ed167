// SPDX-License-Identifier: MIT
/*
 * checking: is the filesystem in a store whole?
 *
 *     open to salvage (the log, images, chains) -> scan: inodes -> scan: all else against the inodes -> judge
 *     -> scan: names of what is at fault -> the same for each snapshot, one after the other
 *     repair: open for writing -> mend each fault -> from the first scan again
 *
 * Which records there are is compared with what other records say of them by sums that do not depend on the order:
 * names and listings, masks and patches, tables of attributes and values apart, both ends of a gap, blocks and gaps. So
 * memory is one struct node for each inode (64 bytes) of the tree that is being read, and something for each fault.
 *
 * Invariants:
 *   1. Nothing is written before everything was read, and read without an error of the device; nor if the second
 *      reading (of opening for writing) finds damage that the first did not.
 *   2. Mending drops what leads nowhere, sets counts right and gives names; each step is a unit, and what a crash
 *      leaves of them is mended by the next run. What it drops it notes.
 *   3. A snapshot is not changed, but for an index image that is made anew.
 *
 * Threads: one.
 */
#ifndef FS_CHECKING_H
#define FS_CHECKING_H

#include "schema.h"

#include <stdbool.h>

#define CHECK_FAULTS_MAX 1000000u /* then the rest is only counted */

enum node_state {
    NODE_ORPHAN = 1,  /* an orphan record leads to it */
    NODE_TABLE = 2,   /* it has a table of attributes */
    NODE_REACHED = 4, /* directories: the root is above it */
    NODE_VISITED = 8,
    NODE_DAMAGED = 16, /* to be made anew */
    NODE_WANTED = 32,  /* its name is looked for, and those above it */
};

struct node {
    uint64_t ino;
    uint32_t nlink, names; /* as it says; as found */
    uint16_t mode;
    uint8_t flags; /* INODE_* */
    uint8_t state;
    uint32_t subdirs;    /* found */
    int32_t entries;     /* as it says, less those found */
    uint32_t attributes; /* apart: in the table, less values found; and flags, less those of the table */
    union {
        struct {
            uint64_t parent, first_seq, next_seq;
            uint64_t agreement; /* names, less those listed; gaps, less their ends; blocks, less both */
        } dir;
        struct {
            uint64_t size, blocks;     /* blocks: as it says, less those found */
            uint32_t data_end, chunks; /* chunks: found */
            uint64_t patches;          /* as the masks say, less those found */
        } file;
    };
};
_Static_assert(sizeof(struct node) == 64, "memory for each inode");

enum fault_kind {
    FAULT_STORE,     /* told by the store; it mends that */
    FAULT_LOST,      /* a record of the file cannot be read */
    FAULT_SUPER,     /* the super record, or the root directory */
    FAULT_STRAY,     /* a record that leads nowhere, or means nothing: `key` */
    FAULT_ENTRY,     /* a name that leads to no inode: `key` */
    FAULT_PARENT,    /* names in a directory that is not there */
    FAULT_TWICE,     /* a directory has a second name: `key` */
    FAULT_DIRECTORY, /* names, listings and counts do not agree */
    FAULT_UP,        /* ".." leads elsewhere */
    FAULT_NAMELESS,  /* no name leads to it */
    FAULT_CYCLE,     /* a directory that is inside itself */
    FAULT_LINKS,     /* the link count */
    FAULT_CONTENTS,  /* contents are missing, or not as many as it says */
    FAULT_LENGTH,    /* a chunk or a patch reaches beyond the end of the file, which is at `number` in it: `key` */
    FAULT_PATCHES,   /* masks and patches do not agree */
    FAULT_ATTRIBUTES,
    FAULT_DELETED, /* has no links and is not on the reap list */
    FAULT_COUNTER,
};

struct fault {
    enum fault_kind kind;
    uint64_t ino; /* what it is about; 0: the whole */
    uint64_t number, len;
    uint64_t snapshot;  /* its id; 0: of the live tree, or of the whole */
    const char *what;   /* constant */
    struct fs_key *key; /* malloc'ed, or NULL */
    char *path;         /* malloc'ed; NULL: not looked for yet, or it has none */
    bool mended;
};

struct dropped {
    struct fs_key key; /* length 0: a part of the log */
    uint64_t offset, len;
    char *path; /* malloc'ed, or NULL */
};

struct snapshot {
    struct store_snapshot_info info;
    bool read; /* its tree */
};

struct damage { /* as the store told it */
    enum store_damage_kind kind;
    uint64_t address, len, snapshot;
};

struct named { /* how to get to an inode */
    uint64_t ino, parent;
    char *name;
};

struct gone {                /* a key of which a record is damaged */
    uint64_t address, fault; /* number of the fault that was told of it */
    struct fs_key key;
};

struct check {
    struct device *device;
    struct fs_check_options options; /* constant */
    struct store *store;
    struct store_session *session;
    const struct store_snapshot *tree; /* that is being read; NULL: the live one */
    const struct snapshot *tree_of;    /* likewise */
    bool repairing;
    bool unreadable;           /* the device could not read something */
    struct rebuild *rebuild;   /* while directories are made anew */
    struct unmasked *unmasked; /* while masks are */

    struct node *nodes; /* ascending once all are there */
    uint64_t node_count, node_room;
    int64_t counted; /* sum of the counters */
    struct fs_super super;
    bool super_found;
    uint64_t highest_ino, highest_orphan;

    struct fault *faults;
    uint64_t fault_count, fault_room, faults_untold;
    struct gone *gone;
    uint64_t gone_count, gone_room;
    struct damage *damages;
    uint64_t damage_count, damage_room, damage_at; /* at: the last that was told again */
    struct dropped *dropped;
    uint64_t dropped_count, dropped_room, dropped_untold;
    struct named *named;
    uint64_t named_count, named_room;
    uint64_t *wanted; /* inodes whose names are looked for, ascending */
    uint64_t wanted_count, wanted_room;

    int failed; /* -errno of what could not be noted */
    char phase[STORE_LABEL_MAX + 32];
    uint64_t begin, done, total; /* of the phase: addresses, bytes */
    struct snapshot *snapshots;
    uint64_t snapshot_count, snapshot_room;
};

/* check.c */
/* Room for one more; -ENOMEM. */
int check_grow(void *array, uint64_t count, uint64_t *room, size_t size);
struct node *check_node(struct check *c, uint64_t ino);
int check_fault(struct check *c, enum fault_kind kind, uint64_t ino, const char *what);
/* One that is mended by deleting or changing the record of the key. */
int check_fault_at(struct check *c, enum fault_kind kind, uint64_t ino, const char *what, const void *key,
                   uint32_t key_len, uint64_t number);
/* What a key holds cannot be read. */
int check_lost(struct check *c, const void *key, uint32_t key_len);
/* Those of the tree, as far as damaged records tell their keys. */
int check_gone(struct check *c);
/* Each record of the tree that is being read. */
int check_scan(struct check *c, const char *phase, store_each each);
/* store_get() in that tree. */
int check_get(struct check *c, const struct fs_key *key, void *buf, uint32_t buf_len, uint32_t *ret_len);
/* Reads the whole tree and notes all faults. */
int check_read(struct check *c);
uint64_t check_tree_id(const struct check *c);

/* check_tree.c: one record, against the inodes */
int check_inode(struct check *c, const struct store_item *item);
int check_record(struct check *c, const struct store_item *item);
int check_judge(struct check *c);

/* check_snapshots.c: reads the trees of those that were not read yet, and can be. */
int check_snapshots(struct check *c);

/* check_names.c */
/* Finds the paths of the faults of the tree that is being read. */
int check_names(struct check *c);
int check_names_want(struct check *c, uint64_t ino);
/* Looks for the names of what is wanted. */
int check_names_look(struct check *c);
/* The path of an inode whose name was looked for, and of a name in it if the key says so; malloc'ed. */
char *check_path(struct check *c, uint64_t ino, const struct fs_key *key);
/* Forgets the names. */
void check_names_fini(struct check *c);
/* What a key is about: an inode, and in a directory a name. 0: nothing. */
uint64_t check_key_ino(const void *key, uint32_t key_len);
/* In words, what a damaged record of such a key means for the inode. */
const char *check_key_words(const void *key, uint32_t key_len);
/* Which bytes of the file: *ret_len is 0 if it is not about contents. */
void check_key_range(const void *key, uint32_t key_len, uint64_t *ret_offset, uint64_t *ret_len);

/* check_dropped.c */
/* Notes that the record of the key is being dropped. */
int check_dropped(struct check *c, const void *key, uint32_t key_len);
/* Of what it holds only bytes [offset, offset + len) of the file; without a key, of the log. */
int check_dropped_range(struct check *c, const struct fs_key *key, uint64_t offset, uint64_t len);
/* Notes what of the faults that were found opening for writing has dropped. */
int check_dropped_found(struct check *c, const struct fault *found, uint64_t count);
/* Finds the paths: among those of the faults that were found, or in the tree as it is now. */
int check_dropped_paths(struct check *c, const struct fault *found, uint64_t count);
/* Tells all, and frees. */
void check_dropped_tell(struct check *c);

/* check_repair.c: mends the faults that were found. The store is open for writing. */
int check_repair(struct check *c);

#endif
