// SPDX-License-Identifier: MIT
/*
 * superblock: what a store needs to know before it can read its log. Two files, `superblock.0` and
 * `superblock.1`, each whole and checksummed (format in store/SPEC.md).
 *
 * Invariants:
 *   1. The sound one with the higher sequence number counts. A write goes to the other file and is
 *      synced, names too: a torn write leaves the old one. Then the old one is written as well: damage of one file
 *      does not bring back what was.
 *   2. Whatever a superblock names (an index image, a position of the log) is durable before it is
 *      written.
 *   3. One that was read may have been written by somebody whose sync failed: it is synced before the other file,
 *      the only one that is sure to be on the disk then, is written.
 *
 * Threads: one at a time (the store's checkpoint_lock).
 */
#ifndef STORE_SUPERBLOCK_H
#define STORE_SUPERBLOCK_H

#include <store/store.h>

#define SUPERBLOCK_MAGIC UINT64_C(0x53465245545341f6)
#define SUPERBLOCK_FORMAT 4u
#define SUPERBLOCK_FORMAT_COLD 5u /* of a store with a cold level, and of that: others must not read them */
#define SUPERBLOCK_SNAPSHOTS_MAX 4096u
#define SUPERBLOCK_HOLES_MAX 4096u
#define SUPERBLOCK_ADDRESS_END (UINT64_C(1) << 48) /* of the log */

/* Where the log can be read on from: the start of an item, most often the end of a commit. */
struct log_position {
    uint64_t address;
    uint64_t version; /* of the last commit that ends there or below; 0: none */
    uint64_t chain;   /* of that commit, folded with the checksums of the records between it and `address` */
};

/* A moment of the store: the end of a commit, and the index as it was at or after it. */
struct checkpoint {
    uint64_t image;            /* number of the index image `index.<16 hex digits>`; 0: none, the index is empty */
    struct log_position end;   /* of a commit: replay starts here */
    struct log_position begin; /* nothing of the log below it is needed. May have passed `end` */
    uint64_t reach; /* entries of the image lead to records below it; records from `end` on are passed over */
};

/* Bytes of the log within one segment that are not sound and have been dealt with (salvage.h): the store's chains do
 * not lead there, and who reads the log in address order passes over them. */
struct log_range {
    uint64_t begin, end;
};
struct holes {
    uint32_t count;
    struct log_range *ranges; /* ascending, apart; malloc'ed */
};

struct snapshot_entry {
    uint64_t id, time_ns;
    struct checkpoint at;
    char label[STORE_LABEL_MAX + 1];
};

struct superblock {
    uint64_t sequence;
    unsigned copies; /* files that have it as it was written last; not on disk */
    uint64_t store_id;
    uint64_t segment_bytes;
    uint32_t index_bits;        /* of the hash that an entry of the index stands for; constant: index.h */
    bool is_cold_level;         /* of another store: made of chunks and cold records (cold.h) */
    uint64_t cold_id;           /* store_id of the cold level; 0: there is none */
    uint32_t largest;           /* room of the largest value in the log up to the checkpoint; 0: none, or not known */
    uint64_t incarnation;       /* counts opens for writing */
    uint64_t incarnation_begin; /* tail at this open: commits of older ones beyond it are left-overs */
    uint64_t next_image, next_snapshot;
    struct checkpoint checkpoint;
    uint32_t snapshot_count;
    struct snapshot_entry *snapshots; /* by age; malloc'ed */
    struct holes holes;
};

/* What a copy was found to be: 0 sound and as new as the other, -ESTALE sound and older, or why it cannot be used. */
struct superblock_copies {
    int rc[2];
};

/* Reads the newer sound superblock. -ENOENT: neither file is there; -EPROTONOSUPPORT, -EUCLEAN with a
 * message; -errno of the device. superblock_fini() frees. *ret_copies is set whatever the result. */
int superblock_read(struct device *device, struct superblock *ret_sb, struct superblock_copies *ret_copies,
                    char *message, size_t message_len);
/* Syncs the file that it was read from: invariant 3. */
int superblock_sync(struct device *device, const struct superblock *sb);
/* Writes it, to one file after the other. 0: at least the first has it, durably; sb->copies says how many have. On
 * failure *sb is as before: the next write goes to the same file first, and leaves the sound one alone. */
int superblock_write(struct device *device, struct superblock *sb);
/* The lowest address of the log that its checkpoint or a snapshot needs. */
uint64_t superblock_begin(const struct superblock *sb);
/* The log is there up to this address at least: every commit that it names is below, or ends here. */
uint64_t superblock_reach(const struct superblock *sb);
/* Up to here a snapshot keeps the log; 0: there is none. */
uint64_t superblock_kept(const struct superblock *sb);
void superblock_fini(struct superblock *sb);

#endif
