// SPDX-License-Identifier: MIT
/* ioctl(2): chattr(1)'s flags, a part of a scrub. */
#include "adapter_private.h"
#include "scrubbing.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <unistd.h>

static void scrub(fuse_req_t req, const void *in, size_t in_len, size_t out_len)
{
    const struct fuse_ctx *who = fuse_req_ctx(req);
    struct fs_scrub part;
    if (who->uid != 0 && who->uid != geteuid()) {
        fuse_reply_err(req, EPERM);
        return;
    }
    if (in_len != sizeof(part) || out_len < sizeof(part)) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    memcpy(&part, in, sizeof(part));
    if (part.max_bytes > SCRUB_BYTES_MAX)
        part.max_bytes = SCRUB_BYTES_MAX;
    int rc = fs_scrub(self.session, &part);
    if (rc < 0)
        reply_result(req, rc);
    else
        fuse_reply_ioctl(req, 0, &part, sizeof(part));
}

/* The kernel has checked who asks for flags: the owner; and for the first two, CAP_LINUX_IMMUTABLE. */
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
              const void *in, size_t in_len, size_t out_len)
{
    (void)arg;
    (void)fi;
    (void)flags;
    switch (cmd) {
    case FS_IOC_GETFLAGS:
    case FS_IOC_FSGETXATTR:
        reply_flags(req, cmd, ino, out_len);
        break;
    case FS_IOC_SETFLAGS:
    case FS_IOC_FSSETXATTR:
        set_flags(req, cmd, ino, in, in_len);
        break;
    case SCRUB_IOCTL:
        scrub(req, in, in_len, out_len);
        break;
    default:
        fuse_reply_err(req, ENOTTY);
    }
}
