// SPDX-License-Identifier: MIT
/* options: the words of `fasterfs mount`. */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include <fs/fs.h>
#include <stdbool.h>
#include <stdint.h>

struct mount_settings {
    char *store, *mountpoint; /* absolute, as written */
    uint64_t memory_bytes, size_bytes;
    enum fs_atime atime;
    unsigned threads; /* 0: by the number of processors */
    bool read_only, foreground, debug, nonempty, remount, no_xattr;
    char *cold;        /* NULL, or of -o cold: the directory, absolute; "": in the store's own */
    char *fsname;      /* what to show as the source; NULL: the store's path */
    char passed[4096]; /* for libfuse and the kernel, comma-separated */
};

/* A status; STATUS_DONE: free *ret_settings with settings_free(). */
int settings_parse(int argc, char **argv, struct mount_settings *ret_settings);
void settings_free(struct mount_settings *settings);

#endif
