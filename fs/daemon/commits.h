// SPDX-License-Identifier: MIT
/*
 * commits: answers FSYNC. A thread of its own takes all that wait, calls fs_sync() once and replies to
 * each, so that any number of programs that wait for the disk share one commit and none of them keeps
 * a thread that serves requests.
 *
 * Invariants:
 *   1. A request is answered 0 only by an fs_sync() that began after it was added.
 *   2. What was added is answered, at the latest by commits_close().
 *
 * Threads: commits_add() from any; the rest from the owner.
 */
#ifndef DAEMON_COMMITS_H
#define DAEMON_COMMITS_H

#include "adapter.h"

int commits_open(struct fs *fs, struct commits **ret_commits);
/* Answers what waits; nobody may add any more. NULL does nothing. */
void commits_close(struct commits *commits);
void commits_add(struct commits *commits, fuse_req_t req);

#endif
