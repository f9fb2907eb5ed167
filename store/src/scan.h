// SPDX-License-Identifier: MIT
/*
 * scan: reading the log from the device in address order, item by item, for recovery, compaction and iteration.
 *
 * It checks what an item says of itself (sizes, checksum, place), not whether the item belongs to the history: that
 * is recovery's. A hole (superblock.h) reads as a pad.
 *
 * Threads: one. Outside epochs. The log that is scanned must be kept meanwhile.
 */
#ifndef STORE_SCAN_H
#define STORE_SCAN_H

#include "private.h"
#include "salvage.h"

struct scan {
    struct device_log *log; /* constant, to segment_bytes */
    uint64_t store_id;
    uint64_t segment_bytes;
    const struct holes *holes;
    struct device_queue *queue;
    uint64_t end; /* of what may be read: its block is on the device */
    bool salvage; /* blocks that the device cannot read are damage like any other */
    bool stay;    /* SCAN_LEFT rather than reading on: what was handed out before stays valid */
    uint8_t *window;
    uint64_t window_at, window_len, window_room;
    int error; /* -errno of the device; then nothing more is found */
};

enum scan_kind {
    SCAN_NOTHING, /* nothing sound is here; or look at `error` */
    SCAN_LEFT,    /* not in the window, see `stay` */
    SCAN_PAD,
    SCAN_RECORD,
    SCAN_COMMIT
};

struct scan_item {
    enum scan_kind kind;
    uint64_t size;
    /* In the window: valid until the next call that may read. */
    struct record *record;
    const struct commit_record *commit;
    uint64_t link, seal; /* of the record */
    bool hole;           /* a pad that stands for one */
};

int scan_open(struct scan *scan, struct store *store, uint64_t end);
void scan_close(struct scan *scan);
/* What begins at `at`. */
enum scan_kind scan_at(struct scan *scan, uint64_t at, struct scan_item *ret_item);
/* The log's bytes [at, at + len), which lie in one segment, or NULL; valid until the next call that may read. */
void *scan_look(struct scan *scan, uint64_t at, uint64_t len);
/* Is there a block in [from, to) that the device cannot read? -ENOMEM. */
int scan_is_unreadable(struct scan *scan, uint64_t from, uint64_t to, bool *ret_unreadable);
/* The commit record at `at`, or NULL. */
const struct commit_record *scan_commit(struct scan *scan, uint64_t at);

#endif
