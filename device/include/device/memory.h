// SPDX-License-Identifier: MIT
/*
 * What a device in memory (device_memory_open()) can do beyond the others: lose power, be full, rot.
 * For tests. Every function takes the memory device itself, not a wrapper around it.
 *
 * Threads: as the device, but for device_memory_crash(): nobody else uses the device meanwhile.
 */
#ifndef DEVICE_MEMORY_H
#define DEVICE_MEMORY_H

#include <device/device.h>

/*
 * Cuts the power: from now on nothing changes and every call but close gives -EIO, transfers in flight
 * included. So the store on it can be closed without writing more. device_memory_crash() ends it.
 */
void device_memory_cut(struct device *device);

/*
 * Reverts to what was synced: names to the last device_sync_names(), contents and size of each file to
 * its last device_file_sync(). A file whose name was synced and whose contents never were, is empty.
 * Files that are open stay open but are cut off: every call on them gives -EIO until they are closed.
 */
void device_memory_crash(struct device *device);

/* Makes the device `bytes` large (1 TiB at first): from then on writes and allocations beyond it give
 * -ENOSPC. What is there stays, even if it is more. */
void device_memory_limit(struct device *device, uint64_t bytes);

/* Flips one bit (0 to 7) of the byte at `offset`, in what is read now and in what a crash leaves.
 * -ENOENT: no such name; -EINVAL: the file ends before. */
DEVICE_NODISCARD int device_memory_flip(struct device *device, const char *name, uint64_t offset, unsigned bit);

#endif
