// SPDX-License-Identifier: MIT
/* Ranges of a file: fallocate, holes, copying. */
#include "adapter_private.h"

/* One request copies so much at most: the caller goes on from there, and can be interrupted in between. */
#define COPY_BYTES ((size_t)16 << 20)

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
    (void)fi;
    reply_result(req, fs_fallocate(self.session, ino, mode, (uint64_t)offset, (uint64_t)len));
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
    (void)fi;
    uint64_t found;
    int rc = fs_seek(self.session, ino, (uint64_t)offset, whence, &found);
    if (rc < 0)
        reply_result(req, rc);
    else
        fuse_reply_lseek(req, (off_t)found);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in, struct fuse_file_info *fi_in,
                        fuse_ino_t ino_out, off_t offset_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
    (void)fi_in;
    (void)fi_out;
    (void)flags;
    ssize_t n = fs_copy(self.session, ino_in, (uint64_t)offset_in, ino_out, (uint64_t)offset_out,
                        len < COPY_BYTES ? len : COPY_BYTES, self.buf, ADAPTER_TRANSFER_BYTES);
    uint64_t copied = (uint64_t)n;
    if (n < 0)
        reply_result(req, n);
    else if (self.wire == WIRE_COPY_64)
        fuse_reply_buf(req, (const char *)&copied, sizeof(copied));
    else
        fuse_reply_write(req, (size_t)n);
}
