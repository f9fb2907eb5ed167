// SPDX-License-Identifier: MIT
/* What `fasterfs scrub` and the daemon say to each other: an ioctl(2) of the mount's root. */
#ifndef DAEMON_SCRUBBING_H
#define DAEMON_SCRUBBING_H

#include <fs/fs.h>
#include <linux/ioctl.h>

/* In: restart, max_bytes. Out: the rest. -EPERM: neither root nor who runs the daemon. */
#define SCRUB_IOCTL _IOWR('f', 0x73, struct fs_scrub)
#define SCRUB_BYTES_MAX (16u << 20)

#endif
