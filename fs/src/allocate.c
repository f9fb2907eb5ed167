// SPDX-License-Identifier: MIT
/* Calls on ranges of a file: fallocate, holes, copying. The invariants of data.c hold. */
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define CLEAR_AT_ONCE 256u         /* chunks per unit, holes too */
#define UNIT_REST_BYTES (8u << 10) /* what else is in it */

/* ---- fallocate ----------------------------------------------------------------------------------------- */

/* Zeros in [from, to) of a chunk: it goes, is cut, or written to. 0: there was nothing to do; 1. */
static int clear_chunk(struct fs_session *s, struct inode *inode, uint64_t chunk, uint32_t from, uint32_t to)
{
    struct view view = {.ino = inode->ino};
    struct mask mask;
    uint32_t len, left;
    int rc = mask_get(s, inode, chunk, &mask);

    if (rc == 0)
        rc = chunk_len(s, &view, inode, chunk, *mask.of, &len);
    if (rc < 0 || from >= len)
        return rc;
    if (to < len) {
        rc = write_span(s, inode, &(struct span){.chunk = chunk, .from = from, .len = to - from});
        return rc < 0 ? rc : 1;
    }
    make_sparse(inode);
    rc = cut_chunk(s, inode, chunk, from, &left);
    if (rc < 0)
        return rc;
    if (left < len)
        inode->blocks -= smaller(inode->blocks, chunk_blocks(len) - chunk_blocks(left));
    return 1;
}

/* Zeros from *at on, as many as a unit takes, up to `end`; *at is where to go on. */
static int clear_some(struct fs_session *s, struct inode *inode, uint64_t *at, uint64_t end)
{
    uint64_t room = store_limits(s->fs->store).unit_bytes_max - UNIT_REST_BYTES, used = 0;
    uint64_t stop = (*at / FS_CHUNK_BYTES + CLEAR_AT_ONCE) * FS_CHUNK_BYTES;
    unsigned changed = 0;
    int rc = 0;

    if (inode->flags & INODE_INLINE) {
        end = smaller(end, inode->size);
        if (*at < end)
            memset(txn_contents(s, inode) + *at, 0, end - *at);
        *at = UINT64_MAX;
        return 0;
    }
    end = smaller(end, smaller(inode->size, inode->data_end * FS_CHUNK_BYTES));
    while (rc >= 0 && *at < end && *at < stop) {
        uint64_t chunk = *at / FS_CHUNK_BYTES, start = chunk * FS_CHUNK_BYTES;
        uint64_t to = smaller(end - start, FS_CHUNK_BYTES);
        bool part = *at > start || to < FS_CHUNK_BYTES; /* the first and the last */
        uint64_t bytes = part ? FS_CHUNK_PAGES * store_record_bytes(18, FS_PAGE_BYTES) : store_record_bytes(17, 0);
        bytes += inode->flags & INODE_PATCHED ? PATCHES_GO_BYTES : 0;
        if (changed > 0 && used + bytes > room)
            break;
        rc = clear_chunk(s, inode, chunk, (uint32_t)(*at - start), (uint32_t)to);
        *at = start + to;
        changed += rc > 0;
        used += rc > 0 ? bytes : 0;
    }
    if (*at >= end)
        *at = UINT64_MAX; /* done */
    return rc < 0 ? rc : 0;
}

static int check_space(struct fs_session *s, const struct inode *inode, uint64_t offset, uint64_t len)
{
    struct fs_statfs statfs;

    if (!(inode->flags & INODE_SPARSE) && offset < inode->size)
        len -= smaller(len, inode->size - offset);
    int rc = fs_statfs(s, &statfs);
    return rc < 0 ? rc : len > statfs.free_bytes ? -ENOSPC : 0;
}

static int allocate_in_txn(struct fs_session *s, uint64_t ino, int mode, uint64_t offset, uint64_t len, uint64_t *at)
{
    struct inode *inode;
    int rc = txn_inode(s, ino, &inode);

    if (rc < 0)
        return rc;
    if (!S_ISREG(inode->mode))
        return S_ISDIR(inode->mode) ? -EISDIR : -ENODEV;
    rc = mode & ~FALLOC_FL_KEEP_SIZE ? check_mutable(inode) : check_growable(inode);
    if (rc < 0)
        return rc;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        rc = clear_some(s, inode, at, offset + len);
    } else {
        rc = check_space(s, inode, offset, len);
        *at = UINT64_MAX;
    }
    if (rc == 0 && *at == UINT64_MAX && !(mode & FALLOC_FL_KEEP_SIZE))
        rc = file_grow(s, inode, offset + len);
    inode->mtime = inode->ctime = s->txn.now;
    txn_dirty(s, inode);
    return rc < 0 ? rc : attr_kill(s, inode, 0);
}

int fs_fallocate(struct fs_session *s, uint64_t ino, int mode, uint64_t offset, uint64_t len)
{
    struct lockset locks;
    uint64_t at = offset;
    bool punch = mode & FALLOC_FL_PUNCH_HOLE;
    int rc = 0;

    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ||
        (punch && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)))
        return -EOPNOTSUPP;
    if (len == 0 || offset > INT64_MAX || len > INT64_MAX)
        return -EINVAL;
    if (offset + len > (uint64_t)FS_SIZE_MAX)
        return -EFBIG;
    if (!is_live(ino))
        return -EROFS;
    lock_write(s->fs, &locks, &ino, 1);
    while (rc == 0 && at != UINT64_MAX) {
        txn_begin(s);
        rc = allocate_in_txn(s, ino, mode, offset, len, &at);
        if (rc < 0)
            txn_abandon(s);
        else
            rc = txn_apply(s, punch ? STORE_UNIT_FREES : 0);
    }
    unlock_write(&locks);
    return rc;
}

/* ---- holes --------------------------------------------------------------------------------------------- */

static int seek_in(struct fs_session *s, const struct view *view, uint64_t offset, int whence, uint64_t *ret_offset)
{
    struct masks masks = {0};
    struct inode inode;
    int rc = get_inode(s, view, &inode);

    if (rc < 0)
        return rc;
    if (!S_ISREG(inode.mode))
        return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
    if (offset >= inode.size)
        return -ENXIO;
    if (!(inode.flags & INODE_SPARSE)) {
        *ret_offset = whence == SEEK_DATA ? offset : inode.size;
        return 0;
    }
    for (uint64_t chunk = offset / FS_CHUNK_BYTES; chunk < inode.data_end; chunk++) {
        uint64_t start = chunk * FS_CHUNK_BYTES, from = offset > start ? offset : start;
        uint32_t len;
        uint16_t mask;
        rc = mask_look(s, view, &inode, chunk, &masks, &mask);
        if (rc == 0)
            rc = chunk_len(s, view, &inode, chunk, mask, &len);
        if (rc < 0)
            return rc;
        uint64_t end = start + len;
        if (whence == SEEK_DATA ? end > from : end < start + FS_CHUNK_BYTES && end < inode.size) {
            *ret_offset = whence == SEEK_DATA || end < from ? from : end;
            return 0;
        }
    }
    if (whence == SEEK_DATA)
        return -ENXIO;
    uint64_t end = inode.data_end * FS_CHUNK_BYTES;
    *ret_offset = smaller(inode.size, end > offset ? end : offset);
    return 0;
}

int fs_seek(struct fs_session *s, uint64_t ino, uint64_t offset, int whence, uint64_t *ret_offset)
{
    struct view view;

    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    if (ino == FS_INO_SNAPSHOTS)
        return -EISDIR;
    int rc = view_get(s, ino, &view);
    if (rc < 0)
        return rc;
    if (!view.snapshot)
        lock_read(s->fs, ino);
    rc = seek_in(s, &view, offset, whence, ret_offset);
    if (!view.snapshot)
        unlock_read(s->fs, ino);
    view_put(s, &view);
    return rc;
}

/* ---- copying ------------------------------------------------------------------------------------------- */

ssize_t fs_copy(struct fs_session *s, uint64_t ino_in, uint64_t offset_in, uint64_t ino_out, uint64_t offset_out,
                size_t len, void *buf, size_t buf_len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t got = fs_read(s, ino_in, buf, smaller(len - done, buf_len), offset_in + done);
        ssize_t put = got > 0 ? fs_write(s, ino_out, buf, (size_t)got, offset_out + done, 0) : got;
        if (put <= 0)
            return done > 0 ? (ssize_t)done : put;
        done += (size_t)put;
    }
    return (ssize_t)done;
}
