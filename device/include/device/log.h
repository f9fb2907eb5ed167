// SPDX-License-Identifier: MIT
/*
 * device_log: one address space of 2^48 bytes in segment files `log.<16 hex digits>` of equal,
 * power-of-two size; segment n holds [n * segment_bytes, (n + 1) * segment_bytes).
 *
 * Invariants:
 *   1. begin rounded down to a segment <= allocated; both only grow; every byte between them has disk
 *      space promised to it, so a write there cannot meet ENOSPC.
 *   2. A segment's file is removed when begin has passed its last byte, and its name is never reused.
 *      Within the segments, space that is not needed can be punched out (device_log_punch).
 *   3. After device_log_sync() returns 0, every write that completed before it is on stable media,
 *      and so are the names of the segments. "Every write" includes those of an earlier process that the
 *      log was opened after. Once it has failed it fails until the log is opened again: what a failed
 *      fsync(2) lost, the next one does not report.
 *
 * Threads: any number; read, write, and allocate of different ranges run in parallel. Each transfer
 * lies within one segment.
 */
#ifndef DEVICE_LOG_H
#define DEVICE_LOG_H

#include <device/device.h>

struct device_log;

/* Opens the segments that exist from `begin` on; segments wholly below `begin` are removed (left-overs
 * of a truncation that was cut off) unless the device is read-only. If any exist, the first must be that
 * of `begin`; the first that is missing before one that exists gives -ENOENT and its number in
 * *ret_missing (may be NULL). -EUCLEAN: a segment is longer than segment_bytes or lies beyond 2^48.
 * segment_bytes: a power of two, at least 64 KiB. Each segment takes one open file: -EMFILE when the hard
 * limit is met. The log must be closed before the device, when nothing is in flight. */
DEVICE_NODISCARD int device_log_open(struct device *device, uint64_t segment_bytes, uint64_t begin,
                                     struct device_log **ret_log, uint64_t *ret_missing);
void device_log_close(struct device_log *log);

/* End of the space promised so far: address after the last allocated byte (`begin` rounded down to a
 * segment if there is none). Reads below it give zeros where nothing was written. */
uint64_t device_log_allocated(const struct device_log *log);

/* Promises space up to `end` (rounded up to a step of 4 MiB or the segment, whichever is smaller; of 64 KiB where the
 * disk has no more), creating segments on the way. Takes no lock if that is done already. -ENOSPC: what was promised
 * stays so, the rest is not; -EFBIG: beyond 2^48. */
DEVICE_NODISCARD int device_log_allocate(struct device_log *log, uint64_t end);

/* Fills in file and offset of `io` for `address` and submits it; op, buf, len and done are the
 * caller's. [address, address+len) must lie in one segment, below allocated. A segment that is gone
 * arrives as result -ENOENT. */
void device_log_submit(struct device_log *log, struct device_queue *queue, struct device_io *io, uint64_t address);
/* The same with device_submit_later(). */
void device_log_submit_later(struct device_log *log, struct device_queue *queue, struct device_io *io,
                             uint64_t address);

DEVICE_NODISCARD int device_log_sync(struct device_log *log);

/* Gives back the space of segments wholly below `begin`; of a segment that is being read, once that has
 * ended. The caller has made durable that nothing below `begin` is needed. */
DEVICE_NODISCARD int device_log_truncate(struct device_log *log, uint64_t begin);

/* Gives back the space of whole blocks in [from, to), which stay part of the log and read as they were or as
 * zeros. The caller has made durable that they are not needed. -EOPNOTSUPP: the filesystem cannot. */
DEVICE_NODISCARD int device_log_punch(struct device_log *log, uint64_t from, uint64_t to);

/* Bytes of disk that the segments take now. */
uint64_t device_log_disk_bytes(const struct device_log *log);

#endif
