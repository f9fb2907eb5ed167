// SPDX-License-Identifier: MIT
#include "wire.h"

#include "adapter_private.h"

#include <linux/fuse.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/* Not in the <linux/fuse.h> of 6.1. */
enum { OP_STATX = 52, OP_COPY_FILE_RANGE_64 = 53 };

/* HANDLE_KILLPRIV_V2: the kernel remembers that a file has no security.capability, rather than asking before
 * each write. SETXATTR_EXT: it says when an ACL takes setgid away. */
#define WANTED ((uint32_t)(FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT))

/* Of WANTED, what the kernel has. Written at INIT, read at every request; relaxed: the kernel sends nothing else
 * before it has the reply to INIT. */
static _Atomic uint32_t granted;

static bool has(uint32_t flag)
{
    return atomic_load_explicit(&granted, memory_order_relaxed) & flag;
}

static struct fuse_in_header *header_of(const struct fuse_buf *buf)
{
    return buf->mem;
}

/* What follows the header, if there are so many bytes of it. */
static void *body_of(const struct fuse_buf *buf, size_t len)
{
    return buf->size >= sizeof(struct fuse_in_header) + len ? (char *)buf->mem + sizeof(struct fuse_in_header) : NULL;
}

/* libfuse knows the short form of SETXATTR: the flags are taken out of the middle. */
static void shorten_setxattr(struct fuse_buf *buf)
{
    const size_t cut = sizeof(struct fuse_setxattr_in) - FUSE_COMPAT_SETXATTR_IN_SIZE;
    struct fuse_setxattr_in *in = body_of(buf, sizeof(*in));

    if (!in)
        return;
    if (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
        self.kill = FS_KILL_SGID;
    memmove((char *)buf->mem + cut, buf->mem, sizeof(struct fuse_in_header) + FUSE_COMPAT_SETXATTR_IN_SIZE);
    buf->mem = (char *)buf->mem + cut;
    buf->size -= cut;
    header_of(buf)->len -= (uint32_t)cut;
}

static void become(struct fuse_buf *buf, int wire, uint32_t opcode)
{
    self.wire = wire;
    header_of(buf)->opcode = opcode;
}

/* With HANDLE_KILLPRIV_V2 the kernel sends a SETATTR that sets nothing before a write, fallocate or copy by a user who
 * may not keep setuid or setgid, and takes the mode from the reply; that of WRITE has none. */
static bool kills(const struct fuse_in_header *header, const struct fuse_setattr_in *in)
{
    const uint32_t nothing = FATTR_FH | FATTR_LOCKOWNER;

    return (in->valid & FATTR_KILL_SUIDGID) ||
           (has(FUSE_HANDLE_KILLPRIV_V2) && !(in->valid & ~nothing) && header->uid != 0);
}

void wire_process(struct fuse_session *session, struct fuse_buf *buf)
{
    struct fuse_buf seen = *buf;
    const struct fuse_write_in *write;
    const struct fuse_setattr_in *setattr;

    self.wire = WIRE_PLAIN;
    self.kill = 0;
    switch (buf->size >= sizeof(struct fuse_in_header) ? header_of(buf)->opcode : 0) {
    case FUSE_INIT:
        self.wire = WIRE_INIT;
        const struct fuse_init_in *init = body_of(buf, offsetof(struct fuse_init_in, flags2));
        atomic_store_explicit(&granted, init ? init->flags & WANTED : 0, memory_order_relaxed);
        break;
    case FUSE_WRITE:
        write = body_of(buf, sizeof(*write));
        if (write && (write->write_flags & FUSE_WRITE_KILL_SUIDGID))
            self.kill = FS_KILL_PRIV | FS_KILL_SGID;
        break;
    case FUSE_SETATTR:
        setattr = body_of(buf, sizeof(*setattr));
        if (setattr && kills(header_of(buf), setattr))
            self.kill = FS_KILL_PRIV | FS_KILL_SGID;
        break;
    case FUSE_SETXATTR:
        if (has(FUSE_SETXATTR_EXT))
            shorten_setxattr(&seen);
        break;
    case FUSE_TMPFILE:
        become(&seen, WIRE_TMPFILE, FUSE_CREATE);
        break;
    case OP_STATX:
        become(&seen, WIRE_STATX, FUSE_GETATTR);
        break;
    case OP_COPY_FILE_RANGE_64:
        become(&seen, WIRE_COPY_64, FUSE_COPY_FILE_RANGE);
        break;
    default:
        break;
    }
    fuse_session_process_buf(session, &seen);
}

void wire_reply(struct iovec *iov, int count)
{
    struct fuse_init_out *out;

    if (self.wire != WIRE_INIT || count != 2 || iov[1].iov_len < offsetof(struct fuse_init_out, flags2))
        return;
    out = iov[1].iov_base;
    out->flags |= atomic_load_explicit(&granted, memory_order_relaxed);
}
