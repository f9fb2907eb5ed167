// SPDX-License-Identifier: MIT
/*
 * fault: a device around another one that fails on demand. For tests.
 *
 * What can go wrong, each by itself or together:
 *   - the nth call of a class fails (device_fault_arm), once or from then on: with an errno, and nothing
 *     is done beneath; or, for transfers, in a way that the device must carry on from by itself: EAGAIN
 *     or a part of the bytes, injected beneath the continuation of device.c, which callers never see;
 *   - syncs say 0 and do nothing (device_fault_lie): a disk that lies;
 *   - transfers end late and in another order (device_fault_shuffle).
 *
 * A call counts when it is made: a transfer when it is submitted, and once more each time it is carried
 * on. Calls that only ask (size, list, map, space) and the opening of a file that is there, without
 * truncation, are not counted and do not fail.
 *
 * Threads: the device is as any; arm, lie and shuffle may be called while it is used.
 */
#ifndef DEVICE_FAULT_H
#define DEVICE_FAULT_H

#include <device/device.h>

/* The inner device is the caller's, who closes it after this one. -ENOMEM. */
DEVICE_NODISCARD int device_fault_open(struct device *inner, struct device **ret_device);

enum device_fault_class {
    DEVICE_FAULT_READ = 1 << 0,
    DEVICE_FAULT_WRITE = 1 << 1,
    DEVICE_FAULT_SYNC = 1 << 2, /* of a file and of names */
    DEVICE_FAULT_ALLOCATE = 1 << 3,
    DEVICE_FAULT_NAME = 1 << 4, /* open with create or truncate, rename, remove */
    DEVICE_FAULT_ALL = (1 << 5) - 1,
};

#define DEVICE_FAULT_SHORT 1 /* as `error`: whole blocks and a part of one, if there are two or more */

struct device_fault {
    unsigned classes; /* of enum device_fault_class: which calls count, and fail */
    uint64_t nth;     /* the first that fails; 1: the next. 0: none */
    bool sticky;      /* all from then on; with -EAGAIN and DEVICE_FAULT_SHORT every other one */
    int error;        /* -errno; DEVICE_FAULT_SHORT and -EAGAIN for reads and writes alone */
};

/* Replaces what was armed and starts to count anew. */
void device_fault_arm(struct device *fault, const struct device_fault *what);

/* Calls of the armed classes since then, and how many of them failed. */
uint64_t device_fault_calls(struct device *fault);
uint64_t device_fault_hits(struct device *fault);

void device_fault_lie(struct device *fault, bool lie);

/* seed 0: as they come. */
void device_fault_shuffle(struct device *fault, uint64_t seed);

#endif
