// SPDX-License-Identifier: MIT
/* Attributes and extended attributes. */
#include "adapter_private.h"

#include <assert.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static bool is_snapshot_root(uint64_t ino)
{
    return in_snapshots(ino) && ino != FS_INO_SNAPSHOTS && (ino & ((UINT64_C(1) << 48) - 1)) == FS_INO_ROOT;
}

void stat_from(const struct fs_attr *attr, struct stat *ret_stat)
{
    *ret_stat = (struct stat){
        .st_ino = attr->ino,
        .st_mode = attr->mode,
        .st_nlink = attr->nlink,
        .st_uid = attr->uid,
        .st_gid = attr->gid,
        .st_rdev = attr->rdev,
        .st_size = (off_t)attr->size,
        .st_blocks = (blkcnt_t)attr->blocks,
        .st_blksize = BLOCK_BYTES,
        .st_atim = attr->atime,
        .st_mtim = attr->mtime,
        .st_ctim = attr->ctime,
    };
    /* For programs that do not ask for birth times: when the snapshot was taken. */
    if (is_snapshot_root(attr->ino))
        ret_stat->st_ctim = attr->btime;
}

static void reply_attr(fuse_req_t req, int rc, const struct fs_attr *attr)
{
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    struct stat st;
    stat_from(attr, &st);
    fuse_reply_attr(req, &st, FOREVER_S);
}

/* <linux/fuse.h> of 6.6: struct fuse_statx_out. */
struct statx_time {
    int64_t sec;
    uint32_t nsec;
    int32_t zero;
};
struct statx_reply {
    uint64_t valid_s;
    uint32_t valid_ns, flags;
    uint64_t spare[2];
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, zero;
    uint64_t ino, size, blocks, attributes_mask;
    struct statx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare2[14];
};
static_assert(sizeof(struct statx_reply) == 288, "the kernel's struct");

static struct statx_time statx_time(struct timespec time)
{
    return (struct statx_time){.sec = time.tv_sec, .nsec = (uint32_t)time.tv_nsec};
}

static void reply_statx(fuse_req_t req, const struct fs_attr *attr)
{
    struct stat st;
    stat_from(attr, &st);
    const struct statx_reply reply = {
        .valid_s = (uint64_t)FOREVER_S,
        .mask = STATX_BASIC_STATS | STATX_BTIME,
        .blksize = BLOCK_BYTES,
        .nlink = attr->nlink,
        .uid = attr->uid,
        .gid = attr->gid,
        .mode = (uint16_t)attr->mode,
        .ino = attr->ino,
        .size = attr->size,
        .blocks = attr->blocks,
        .atime = statx_time(st.st_atim),
        .btime = statx_time(attr->btime),
        .ctime = statx_time(st.st_ctim),
        .mtime = statx_time(st.st_mtim),
        .rdev_major = major(attr->rdev),
        .rdev_minor = minor(attr->rdev),
    };
    fuse_reply_buf(req, (const char *)&reply, sizeof(reply));
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    struct fs_attr attr;
    int rc = fs_getattr(self.session, ino, &attr);
    if (rc == 0 && self.wire == WIRE_STATX)
        reply_statx(req, &attr);
    else
        reply_attr(req, rc, &attr);
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
    (void)fi;
    struct fs_attr attr = {
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .size = (uint64_t)st->st_size,
        .atime = st->st_atim,
        .mtime = st->st_mtim,
        .ctime = st->st_ctim,
    };
    unsigned set = 0;
    if (to_set & FUSE_SET_ATTR_MODE)
        set |= FS_SET_MODE;
    if (to_set & FUSE_SET_ATTR_UID)
        set |= FS_SET_UID;
    if (to_set & FUSE_SET_ATTR_GID)
        set |= FS_SET_GID;
    if (to_set & FUSE_SET_ATTR_SIZE)
        set |= FS_SET_SIZE;
    if (to_set & FUSE_SET_ATTR_ATIME_NOW) /* the kernel sets ATIME with it */
        set |= FS_SET_ATIME_NOW;
    else if (to_set & FUSE_SET_ATTR_ATIME)
        set |= FS_SET_ATIME;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW)
        set |= FS_SET_MTIME_NOW;
    else if (to_set & FUSE_SET_ATTR_MTIME)
        set |= FS_SET_MTIME;
    if (to_set & FUSE_SET_ATTR_CTIME)
        set |= FS_SET_CTIME;
    set |= self.kill;
    if ((set & (FS_SET_UID | FS_SET_GID)) && !(set & FS_SET_MODE)) /* at chown even by root */
        set |= FS_KILL_PRIV;
    struct fs_attr result;
    int rc = fs_setattr(self.session, ino, &attr, set, &result);
    reply_attr(req, rc, &result);
}

/* ---- extended attributes --------------------------------------------------------------------------- */

/* `got`: a length that was asked for, or that many bytes in self.buf. */
static void reply_value(fuse_req_t req, size_t size, ssize_t got)
{
    if (got < 0)
        reply_result(req, got);
    else if (size == 0)
        fuse_reply_xattr(req, (size_t)got);
    else
        fuse_reply_buf(req, self.buf, (size_t)got);
}

/* ENOSYS: the kernel never asks again. */
static bool refused(fuse_req_t req)
{
    if (!adapter_of(req)->no_xattr)
        return false;
    fuse_reply_err(req, ENOSYS);
    return true;
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    if (refused(req))
        return;
    size = size < ADAPTER_TRANSFER_BYTES ? size : ADAPTER_TRANSFER_BYTES;
    reply_value(req, size, fs_getxattr(self.session, ino, name, self.buf, size));
}

/* As on other filesystems, only the mighty see what is in trusted. */
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    if (refused(req))
        return;
    size = size < ADAPTER_TRANSFER_BYTES ? size : ADAPTER_TRANSFER_BYTES;
    reply_value(req, size, fs_listxattr(self.session, ino, fuse_req_ctx(req)->uid == 0, self.buf, size));
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    if (!refused(req))
        reply_result(req, fs_setxattr(self.session, ino, name, value, size, flags, self.kill));
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    if (!refused(req))
        reply_result(req, fs_removexattr(self.session, ino, name));
}
