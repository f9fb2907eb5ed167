// SPDX-License-Identifier: MIT
/* What the files of the adapter share. */
#ifndef DAEMON_ADAPTER_PRIVATE_H
#define DAEMON_ADAPTER_PRIVATE_H

#include "adapter.h"

/* The daemon is the only writer: what the kernel knows stays true. */
#define FOREVER_S 86400.0
#define BLOCK_BYTES 65536u /* st_blksize: stdio takes buffers of this size: fewer, larger requests */

/* Of the thread: the first group constant between adapter_enter() and adapter_leave(), the second set by
 * wire_process() for the request that is being served. */
struct adapter_thread {
    struct fs_session *session;
    char *buf; /* ADAPTER_TRANSFER_BYTES */

    unsigned kill; /* FS_KILL_*: the caller has no privilege to keep setuid and setgid */
    enum {
        WIRE_PLAIN,
        WIRE_TMPFILE, /* comes as CREATE */
        WIRE_STATX,   /* comes as GETATTR */
        WIRE_COPY_64, /* comes as COPY_FILE_RANGE */
        WIRE_INIT
    } wire;
};
extern _Thread_local struct adapter_thread self;

static inline struct adapter *adapter_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline bool in_snapshots(uint64_t ino)
{
    return (ino >> 48) != 0;
}

struct fs_cred cred_of(fuse_req_t req);
void reply_result(fuse_req_t req, int64_t result);
void entry_from(const struct fs_attr *attr, struct fuse_entry_param *ret_entry);
/* The kernel took the reference (`taken`), or it is given back. */
void settle(uint64_t ino, bool taken);

/* attributes.c */
void stat_from(const struct fs_attr *attr, struct stat *ret_stat);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* flags.c: FS_IOC_GETFLAGS and FS_IOC_FSGETXATTR; FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR */
void reply_flags(fuse_req_t req, unsigned cmd, fuse_ino_t ino, size_t room);
void set_flags(fuse_req_t req, unsigned cmd, fuse_ino_t ino, const void *in, size_t len);

/* ioctl.c */
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
              const void *in, size_t in_len, size_t out_len);

/* ranges.c */
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in, struct fuse_file_info *fi_in,
                        fuse_ino_t ino_out, off_t offset_out, struct fuse_file_info *fi_out, size_t len, int flags);

#endif
