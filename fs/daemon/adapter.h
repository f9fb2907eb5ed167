// SPDX-License-Identifier: MIT
/*
 * adapter: FUSE requests onto fs.h. Decode, call, reply; nothing is decided here that fs could decide.
 *
 * Invariants:
 *   1. One reply per request, and none after it: a handler's last act is its reply.
 *   2. A reference that fs handed out is either the kernel's (the reply was taken) or given back here
 *      (the reply failed, as the caller was interrupted).
 *   3. The kernel is the only one to know of names below `.snapshots`: references inside are given
 *      back at once and the kernel's forgets of them ignored. A snapshot never changes, so its inodes
 *      need none, and rmdir of one that was looked at does not meet what the kernel still caches.
 *   4. No state per file: a node id is an inode number, there are no file handles.
 *
 * Threads: any number; each calls adapter_enter() first and adapter_leave() last.
 * Never: an allocation of its own per request; ENOSYS to a request that fs failed (the kernel would
 * never ask again).
 */
#ifndef DAEMON_ADAPTER_H
#define DAEMON_ADAPTER_H

#include <fs/fs.h>

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

/* Longest read, write and directory listing in one request. */
#define ADAPTER_TRANSFER_BYTES (1u << 20)

struct commits;

/* The user data of the FUSE session. Constant once requests arrive, but for `no_open`. */
struct adapter {
    struct fs *fs;
    struct fuse_session *session;
    struct commits *commits; /* answers FSYNC */
    bool read_only;
    bool no_xattr; /* neither extended attributes nor ACLs: the kernel never asks for any */
    /* The kernel takes ENOSYS for "never ask again". Written by INIT before any other request. */
    bool no_open, no_opendir;
};

extern const struct fuse_lowlevel_ops ADAPTER_OPS;

/* Gives the calling thread its fs_session and its buffer. -ENOMEM or what fs_session_open() says. */
int adapter_enter(struct adapter *adapter);
void adapter_leave(void);

/* The errno that the kernel gets for a result of fs.h: 0 for 0 and above. */
int adapter_errno(int64_t result);

#endif
