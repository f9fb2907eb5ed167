// SPDX-License-Identifier: MIT
/* The flags of chattr(1), for the two ioctls that read them and the two that set them. */
#include "adapter_private.h"

#include <assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

static_assert(FS_FLAG_IMMUTABLE == FS_IMMUTABLE_FL && FS_FLAG_APPEND == FS_APPEND_FL &&
                  FS_FLAG_NODUMP == FS_NODUMP_FL && FS_FLAG_NOATIME == FS_NOATIME_FL,
              "the bits of FS_IOC_SETFLAGS");

static const struct {
    uint32_t flag, xflag; /* FS_FLAG_*, FS_XFLAG_* */
} FLAGS[] = {{FS_FLAG_IMMUTABLE, FS_XFLAG_IMMUTABLE},
             {FS_FLAG_APPEND, FS_XFLAG_APPEND},
             {FS_FLAG_NODUMP, FS_XFLAG_NODUMP},
             {FS_FLAG_NOATIME, FS_XFLAG_NOATIME}};

void reply_flags(fuse_req_t req, unsigned cmd, fuse_ino_t ino, size_t room)
{
    struct fs_attr attr;
    struct fsxattr xattr = {0};
    int rc = fs_getattr(self.session, ino, &attr);
    bool extended = cmd == FS_IOC_FSGETXATTR;

    if (rc == 0 && room < (extended ? sizeof(xattr) : sizeof(attr.flags)))
        rc = -EINVAL;
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    for (size_t i = 0; i < sizeof(FLAGS) / sizeof(FLAGS[0]); i++)
        xattr.fsx_xflags |= attr.flags & FLAGS[i].flag ? FLAGS[i].xflag : 0;
    fuse_reply_ioctl(req, 0, extended ? (void *)&xattr : &attr.flags, extended ? sizeof(xattr) : sizeof(attr.flags));
}

/* -EOPNOTSUPP: project numbers, sizes of extents, flags that have no other name. */
static int flags_from(const struct fsxattr *xattr, uint32_t *ret_flags)
{
    uint32_t left = xattr->fsx_xflags, flags = 0;

    for (size_t i = 0; i < sizeof(FLAGS) / sizeof(FLAGS[0]); i++) {
        flags |= left & FLAGS[i].xflag ? FLAGS[i].flag : 0;
        left &= ~FLAGS[i].xflag;
    }
    if (left || xattr->fsx_extsize || xattr->fsx_projid || xattr->fsx_cowextsize)
        return -EOPNOTSUPP;
    *ret_flags = flags;
    return 0;
}

void set_flags(fuse_req_t req, unsigned cmd, fuse_ino_t ino, const void *in, size_t len)
{
    struct fs_attr attr = {0};
    int rc = len < (cmd == FS_IOC_FSSETXATTR ? sizeof(struct fsxattr) : sizeof(attr.flags)) ? -EINVAL : 0;

    if (rc == 0 && cmd == FS_IOC_FSSETXATTR)
        rc = flags_from(in, &attr.flags);
    else if (rc == 0)
        memcpy(&attr.flags, in, sizeof(attr.flags));
    if (rc == 0)
        rc = fs_setattr(self.session, ino, &attr, FS_SET_FLAGS, NULL);
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    /* The kernel does not know that an ioctl moves ctime. Attributes only (-1): it holds the inode's lock here. It may
     * have forgotten the inode, or be about to unmount. */
    (void)fuse_lowlevel_notify_inval_inode(adapter_of(req)->session, ino, -1, 0);
    fuse_reply_ioctl(req, 0, NULL, 0);
}
