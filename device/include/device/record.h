// SPDX-License-Identifier: MIT
/*
 * record: a device around another one that keeps what was done to it, and makes from that what a disk may
 * hold after a power cut at any moment. For tests.
 *
 * Moments are counted in ticks: one when an event begins and one when it has ended. The tick that
 * device_record_now() gives comes after all that ended, and before all that begins, later.
 *
 * What a power cut leaves:
 *   1. Each write, allocation, truncation and change of a name that ended before the beginning of a sync
 *      (of the file, of the names) which ended with 0 before the cut.
 *   2. Of the writes that began before the cut and are not in 1, for each 512-byte sector any one, or what
 *      was there before them: so writes may be missing, torn, and in any order. Now and then one sector
 *      is garbage, as if the head had been over it.
 *   3. Of the changes of names not in 1 the first few, and of the truncations and extensions of each file
 *      the first few: as filesystems with a journal have it. What was written to a file after a
 *      truncation is lost if the truncation is; what was written beyond its end is lost if the extension is.
 *   4. What ended before a sync that failed is never safe again: the disk may have dropped it. Only the same
 *      place written and synced once more is.
 *
 * Threads: the device is as any; device_record_now() too. The others are called when nobody uses it.
 */
#ifndef DEVICE_RECORD_H
#define DEVICE_RECORD_H

#include <device/device.h>

/* What `inner` holds counts as synced. The caller closes the record first, then `inner`, which nobody
 * else changes meanwhile. -errno of reading it, -ENOMEM. */
DEVICE_NODISCARD int device_record_open(struct device *inner, struct device **ret_device);

uint64_t device_record_now(struct device *record);

enum device_event_kind {
    DEVICE_EVENT_CREATE, /* of a file that was not there */
    DEVICE_EVENT_TRUNCATE,
    DEVICE_EVENT_ALLOCATE,
    DEVICE_EVENT_WRITE, /* a punch, too: of zeros, which is as bad as it can be */
    DEVICE_EVENT_SYNC,
    DEVICE_EVENT_RENAME,
    DEVICE_EVENT_REMOVE,
    DEVICE_EVENT_SYNC_NAMES,
};

struct device_event {
    enum device_event_kind kind;
    const char *name; /* of the file when it was created or the record opened, or what is renamed, removed */
    const char *to;   /* of a rename, else "" */
    uint64_t offset, len;
    uint64_t begin, end; /* ticks; end 0: it has not ended */
    int result;          /* 0 or -errno, once it has ended */
};

/* Calls `each` for all events in the order in which they began; stops at its first result other than 0
 * and returns that. */
int device_record_events(struct device *record, int (*each)(void *ctx, const struct device_event *event), void *ctx);

/* What becomes of that which is not safe. */
enum device_crash_style {
    DEVICE_CRASH_OLD,    /* none of it is there */
    DEVICE_CRASH_NEW,    /* all of it is there */
    DEVICE_CRASH_RANDOM, /* `seed` decides, from a mixture of styles */
};

struct device_crash {
    uint64_t tick; /* the power is cut when so many ticks have passed */
    enum device_crash_style style;
    uint64_t seed;
};

/*
 * Makes a device in memory (which the caller closes) that holds what the crash left, all of it durable. The
 * same crash gives the same bytes. Cheap if `tick` is not below that of the call before: blocks are
 * shared. -ENOMEM.
 */
DEVICE_NODISCARD int device_record_crash(struct device *record, const struct device_crash *crash,
                                         struct device **ret_device);

#endif
