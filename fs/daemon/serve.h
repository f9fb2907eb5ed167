// SPDX-License-Identifier: MIT
/*
 * serve: a FUSE session from mount to unmount: the threads that take requests from /dev/fuse and the
 * signals that end it. The transport is this room and no other.
 *
 *     serve_open() -> serve_mount() -> serve_run() -> serve_close()
 *
 * Threads: `threads` of them take requests. Two suit two cores: a third only adds wakeups. When all of
 * them have stood still on the same requests for a while (they wait for the disk), more are started,
 * and end when they have nothing to do. The caller's thread waits for signals.
 *
 * serve_run() ends when the filesystem was unmounted, or unmounts it itself on SIGINT, SIGTERM and
 * SIGHUP. These signals are blocked from serve_block_signals() on, which comes before any thread.
 */
#ifndef DAEMON_SERVE_H
#define DAEMON_SERVE_H

#include <fs/fs.h>
#include <stdbool.h>
#include <stddef.h>

#define SERVE_THREADS_MAX 16u

struct serve_options {
    const char *mount_options; /* for the kernel and libfuse, comma-separated; NULL: none */
    const char *fsname;        /* any bytes */
    unsigned threads;          /* 0: by the number of processors */
    bool read_only;
    bool no_xattr;
    bool debug; /* print every request */
};

struct serve;

void serve_block_signals(void);

/* The caller frees with serve_close(). On failure `ret_message` (of message_len bytes) has the cause,
 * as far as it is known, in one line. */
int serve_open(struct fs *fs, const struct serve_options *options, struct serve **ret_serve, char *ret_message,
               size_t message_len);
int serve_mount(struct serve *serve, const char *mountpoint, char *ret_message, size_t message_len);
/* 0, or -errno if no thread could be started (unmounted again then). */
int serve_run(struct serve *serve);
/* Unmounts if still mounted; every fs_session is closed on return. NULL does nothing. */
void serve_close(struct serve *serve);

#endif
