// SPDX-License-Identifier: MIT
/* What a ceiling does without; each call says so as a filesystem does that lacks it. */
#include <errno.h>
#include <fs/fs.h>

ssize_t fs_getxattr(struct fs_session *s, uint64_t ino, const char *name, void *buf, size_t len)
{
    (void)s, (void)ino, (void)name, (void)buf, (void)len;
    return -ENODATA;
}

int fs_setxattr(struct fs_session *s, uint64_t ino, const char *name, const void *value, size_t len, int flags,
                unsigned kill)
{
    (void)s, (void)ino, (void)name, (void)value, (void)len, (void)flags, (void)kill;
    return -EOPNOTSUPP;
}

int fs_removexattr(struct fs_session *s, uint64_t ino, const char *name)
{
    (void)s, (void)ino, (void)name;
    return -ENODATA;
}

ssize_t fs_listxattr(struct fs_session *s, uint64_t ino, bool trusted, char *buf, size_t len)
{
    (void)s, (void)ino, (void)trusted, (void)buf, (void)len;
    return 0;
}

int fs_tmpfile(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, mode_t mode, struct fs_attr *ret_attr)
{
    (void)s, (void)cred, (void)parent, (void)mode, (void)ret_attr;
    return -EOPNOTSUPP;
}

int fs_fallocate(struct fs_session *s, uint64_t ino, int mode, uint64_t offset, uint64_t len)
{
    (void)s, (void)ino, (void)mode, (void)offset, (void)len;
    return -EOPNOTSUPP;
}

int fs_seek(struct fs_session *s, uint64_t ino, uint64_t offset, int whence, uint64_t *ret_offset)
{
    (void)s, (void)ino, (void)offset, (void)whence, (void)ret_offset;
    return -EINVAL;
}

ssize_t fs_copy(struct fs_session *s, uint64_t ino_in, uint64_t offset_in, uint64_t ino_out, uint64_t offset_out,
                size_t len, void *buf, size_t buf_len)
{
    (void)s, (void)ino_in, (void)offset_in, (void)ino_out, (void)offset_out, (void)len;
    (void)buf, (void)buf_len;
    return -EOPNOTSUPP;
}

void fs_accessed(struct fs_session *s, uint64_t ino)
{
    (void)s, (void)ino;
}

int fs_scrub(struct fs_session *s, struct fs_scrub *scrub)
{
    (void)s;
    (void)scrub;
    return -EOPNOTSUPP;
}
