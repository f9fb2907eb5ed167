// SPDX-License-Identifier: MIT
#include "adapter_private.h"
#include "commits.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

_Thread_local struct adapter_thread self;

int adapter_enter(struct adapter *adapter)
{
    char *buf = aligned_alloc(4096, ADAPTER_TRANSFER_BYTES);
    if (!buf)
        return -ENOMEM;
    int rc = fs_session_open(adapter->fs, &self.session);
    if (rc < 0) {
        free(buf);
        return rc;
    }
    self.buf = buf;
    return 0;
}

void adapter_leave(void)
{
    fs_session_close(self.session);
    free(self.buf);
    self.session = NULL;
    self.buf = NULL;
}

/* ---- outcomes ------------------------------------------------------------------------------------ */

int adapter_errno(int64_t result)
{
    if (result >= 0)
        return 0;
    switch (-result) {
    case ENOSYS: /* the kernel would never send this kind of request again */
        return EOPNOTSUPP;
    case EUCLEAN:
    case EPROTONOSUPPORT:
        return EIO;
    default:
        return (int)-result;
    }
}

void reply_result(fuse_req_t req, int64_t result)
{
    fuse_reply_err(req, adapter_errno(result));
}

/* ---- conversions --------------------------------------------------------------------------------- */

struct fs_cred cred_of(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    return (struct fs_cred){.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask};
}

void entry_from(const struct fs_attr *attr, struct fuse_entry_param *ret_entry)
{
    *ret_entry = (struct fuse_entry_param){
        .ino = attr->ino,
        .generation = attr->generation,
        .attr_timeout = FOREVER_S,
        .entry_timeout = FOREVER_S,
    };
    stat_from(attr, &ret_entry->attr);
}

/* ---- references ---------------------------------------------------------------------------------- */

/* Invariants 2 and 3. */
void settle(uint64_t ino, bool taken)
{
    if (!taken || in_snapshots(ino))
        fs_forget(self.session, ino, 1);
}

static void reply_entry(fuse_req_t req, int rc, const struct fs_attr *attr)
{
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    struct fuse_entry_param entry;
    entry_from(attr, &entry);
    uint64_t ino = attr->ino;
    settle(ino, fuse_reply_entry(req, &entry) == 0);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    if (!in_snapshots(ino))
        fs_forget(self.session, ino, count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        if (!in_snapshots(forgets[i].ino))
            fs_forget(self.session, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

/* ---- names --------------------------------------------------------------------------------------- */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs_attr attr;
    int rc = fs_lookup(self.session, parent, name, &attr);
    if (rc == -ENOENT) {
        /* Node id 0 with a timeout: the kernel remembers that there is nothing. */
        struct fuse_entry_param nothing = {.entry_timeout = FOREVER_S};
        fuse_reply_entry(req, &nothing);
        return;
    }
    reply_entry(req, rc, &attr);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct fs_cred cred = cred_of(req);
    struct fs_attr attr;
    int rc = fs_mknod(self.session, &cred, parent, name, mode, rdev, &attr);
    reply_entry(req, rc, &attr);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fs_cred cred = cred_of(req);
    struct fs_attr attr;
    int rc = fs_mkdir(self.session, &cred, parent, name, mode, &attr);
    reply_entry(req, rc, &attr);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fs_cred cred = cred_of(req);
    struct fs_attr attr;
    int rc = fs_symlink(self.session, &cred, parent, name, target, &attr);
    reply_entry(req, rc, &attr);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct fs_attr attr;
    int rc = fs_link(self.session, ino, parent, name, &attr);
    reply_entry(req, rc, &attr);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply_result(req, fs_unlink(self.session, parent, name));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    reply_result(req, fs_rmdir(self.session, parent, name));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
                      unsigned flags)
{
    struct fs_cred cred = cred_of(req);
    reply_result(req, fs_rename(self.session, &cred, parent, name, new_parent, new_name, flags));
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    char target[FS_SYMLINK_MAX + 1];
    int rc = fs_readlink(self.session, ino, target, FS_SYMLINK_MAX);
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    assert((size_t)rc <= FS_SYMLINK_MAX);
    target[rc] = '\0';
    fs_accessed(self.session, ino);
    fuse_reply_readlink(req, target);
}

/* ---- directories --------------------------------------------------------------------------------- */

/* A listing being made in self.buf. */
struct listing {
    fuse_req_t req;
    size_t limit, used; /* bytes */
};

static int listing_add(void *ctx, const struct fs_dirent *entry)
{
    struct listing *listing = ctx;
    size_t left = listing->limit - listing->used;
    struct stat st = {.st_ino = entry->ino, .st_mode = entry->type};
    size_t size =
        fuse_add_direntry(listing->req, self.buf + listing->used, left, entry->name, &st, (off_t)entry->cookie);
    if (size > left)
        return 1;
    listing->used += size;
    return 0;
}

static int listing_add_with_attr(void *ctx, const struct fs_dirent *entry)
{
    struct listing *listing = ctx;
    size_t left = listing->limit - listing->used;
    struct fuse_entry_param param;
    if (entry->attr)
        entry_from(entry->attr, &param);
    else /* node id 0: name and type only */
        param = (struct fuse_entry_param){.attr = {.st_ino = entry->ino, .st_mode = entry->type}};
    size_t size =
        fuse_add_direntry_plus(listing->req, self.buf + listing->used, left, entry->name, &param, (off_t)entry->cookie);
    if (size > left)
        return 1;
    listing->used += size;
    return 0;
}

/* What fuse_add_direntry_plus() wrote: <linux/fuse.h>, struct fuse_direntplus. Node id first (0: no
 * reference taken), the name's length after fuse_entry_out (128 bytes) and ino and off of fuse_dirent. */
enum { DIRENTPLUS_NAMELEN_AT = 128 + 16, DIRENTPLUS_NAME_AT = 128 + 24 };

static void settle_listing(size_t used, bool taken)
{
    for (size_t at = 0; at + DIRENTPLUS_NAME_AT <= used;) {
        uint64_t ino;
        uint32_t name_len;
        memcpy(&ino, self.buf + at, sizeof(ino));
        memcpy(&name_len, self.buf + at + DIRENTPLUS_NAMELEN_AT, sizeof(name_len));
        if (ino)
            settle(ino, taken);
        at += (DIRENTPLUS_NAME_AT + name_len + 7u) & ~(size_t)7;
    }
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
    (void)fi;
    struct listing listing = {.req = req, .limit = size < ADAPTER_TRANSFER_BYTES ? size : ADAPTER_TRANSFER_BYTES};
    int rc = fs_readdir(self.session, ino, (uint64_t)cookie, false, listing_add, &listing);
    fs_accessed(self.session, ino);
    if (rc < 0 && listing.used == 0)
        reply_result(req, rc);
    else
        fuse_reply_buf(req, self.buf, listing.used);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
    (void)fi;
    struct listing listing = {.req = req, .limit = size < ADAPTER_TRANSFER_BYTES ? size : ADAPTER_TRANSFER_BYTES};
    int rc = fs_readdir(self.session, ino, (uint64_t)cookie, true, listing_add_with_attr, &listing);
    fs_accessed(self.session, ino);
    if (rc < 0 && listing.used == 0) {
        reply_result(req, rc);
        return;
    }
    bool taken = fuse_reply_buf(req, self.buf, listing.used) == 0;
    if (!taken || in_snapshots(ino))
        settle_listing(listing.used, taken);
}

/* ---- data ---------------------------------------------------------------------------------------- */

/* ENOSYS tells the kernel that files need no opening: no OPEN, no RELEASE from now on, and it keeps
 * what it has cached. A kernel that does not know that gets an ordinary reply. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (adapter_of(req)->no_open) {
        fuse_reply_err(req, ENOSYS);
        return;
    }
    fi->keep_cache = 1;
    fi->noflush = 1;
    fuse_reply_open(req, fi);
}

/* Only for O_TMPFILE: otherwise MKNOD does it without a RELEASE later, and the kernel stops asking. */
static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    (void)name;
    if (self.wire != WIRE_TMPFILE) {
        fuse_reply_err(req, ENOSYS);
        return;
    }
    struct fs_cred cred = cred_of(req);
    struct fs_attr attr;
    int rc = fs_tmpfile(self.session, &cred, parent, mode, &attr);
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    struct fuse_entry_param entry;
    entry_from(&attr, &entry);
    fi->keep_cache = 1;
    fi->noflush = 1;
    settle(attr.ino, fuse_reply_create(req, &entry, fi) == 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (adapter_of(req)->no_opendir) {
        fuse_reply_err(req, ENOSYS);
        return;
    }
    fi->cache_readdir = 1;
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}

/* Nothing happens at close: the kernel need not tell. */
static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, ENOSYS);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    if (size > ADAPTER_TRANSFER_BYTES) { /* never: max_pages was negotiated */
        fuse_reply_err(req, EINVAL);
        return;
    }
    ssize_t n = fs_read(self.session, ino, self.buf, size, (uint64_t)offset);
    if (n >= 0 && !(fi->flags & O_NOATIME)) /* before the reply: the kernel asks for atime after it */
        fs_accessed(self.session, ino);
    if (n < 0)
        reply_result(req, n);
    else
        fuse_reply_buf(req, self.buf, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    (void)fi;
    ssize_t n = fs_write(self.session, ino, buf, size, (uint64_t)offset, self.kill);
    if (n < 0)
        reply_result(req, n);
    else
        fuse_reply_write(req, (size_t)n);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    struct adapter *adapter = adapter_of(req);
    if (adapter->read_only)
        fuse_reply_err(req, 0); /* nothing was written */
    else
        commits_add(adapter->commits, req);
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void)ino;
    struct fs_statfs space;
    int rc = fs_statfs(self.session, &space);
    if (rc < 0) {
        reply_result(req, rc);
        return;
    }
    const unsigned long block = 4096;
    struct statvfs st = {
        .f_bsize = block,
        .f_frsize = block,
        .f_blocks = space.total_bytes / block,
        .f_bfree = space.free_bytes / block,
        .f_bavail = space.free_bytes / block,
        /* There is no table of inodes that could run out: as many as there are blocks left. */
        .f_files = space.files + space.free_bytes / block,
        .f_ffree = space.free_bytes / block,
        .f_favail = space.free_bytes / block,
        .f_namemax = FS_NAME_MAX,
    };
    fuse_reply_statfs(req, &st);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct adapter *adapter = userdata;

    /* Not wanted:
     *   ATOMIC_O_TRUNC   truncation would ride on OPEN, which we have the kernel leave out
     *   AUTO_INVAL_DATA  would drop cached pages after each of our own writes, as mtime changed
     *   HANDLE_KILLPRIV  see wire.c for the second version of it
     *   WRITEBACK_CACHE */
    conn->want &=
        ~(unsigned)(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV |
                    FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ |
                    FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    conn->want |= conn->capable & (unsigned)(FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_READDIRPLUS |
                                             FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS |
                                             FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA |
                                             FUSE_CAP_DONT_MASK | FUSE_CAP_EXPORT_SUPPORT |
                                             FUSE_CAP_IOCTL_DIR);
    if (!adapter->no_xattr)
        conn->want |= conn->capable & (unsigned)FUSE_CAP_POSIX_ACL;
    else
        conn->want &= ~(unsigned)FUSE_CAP_POSIX_ACL;
    conn->max_write = ADAPTER_TRANSFER_BYTES;
    conn->time_gran = 1;
    adapter->no_open = conn->capable & FUSE_CAP_NO_OPEN_SUPPORT;
    adapter->no_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
}

/* Left out, so that libfuse answers ENOSYS and the kernel stops asking or does it by itself:
 * access (default_permissions), locks, poll. */
const struct fuse_lowlevel_ops ADAPTER_OPS = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .fsyncdir = op_fsync,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .readdirplus = op_readdirplus,
    .create = op_create,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .copy_file_range = op_copy_file_range,
    .ioctl = op_ioctl,
};
