// SPDX-License-Identifier: MIT
/* device_rate: what the disk itself gives, without a store. */
#ifndef YCSB_DEVICE_RATE_H
#define YCSB_DEVICE_RATE_H

#include <stdint.h>

/* Makes a file of `bytes` (written through, so that every block is one of the disk's). 0 or -errno. */
int device_rate_prepare(const char *path, uint64_t bytes);
/* Random 4 KiB reads of it (O_DIRECT, io_uring, one thread) for `seconds`, `depth` in flight: reads a second, or
 * -errno. */
double device_rate_read(const char *path, unsigned depth, double seconds, uint64_t seed);

#endif
