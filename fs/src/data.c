// SPDX-License-Identifier: MIT
/*
 * File contents: chunks of 64 KiB, each a value.
 *
 * Invariants, under the inode's lock:
 *   1. A chunk is never longer than the file reaches into it; what it lacks reads as zeros.
 *   2. No chunk from `data_end` on exists.
 *   3. A file that is not INODE_SPARSE has all of its chunks, each as long as the file reaches into it;
 *      so their lengths are known without reading. In a sparse one, `blocks` counts what they hold.
 */
#include "private.h"

#include <errno.h>
#include <string.h>

#define WRITE_MAX (1u << 20)
#define REMOVE_AT_ONCE 256u /* chunks per unit */

uint64_t chunk_blocks(uint32_t len)
{
    return (len + 511) / 512;
}

uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- reading --------------------------------------------------------------------------------------- */

static int read_chunks(struct fs_session *s, const struct view *view, uint8_t *buf, size_t len, uint64_t offset)
{
    unsigned count = 0;
    int rc = 0;

    for (size_t done = 0; done < len; count++) {
        uint64_t at = offset + done;
        uint32_t skip = (uint32_t)(at % FS_CHUNK_BYTES);
        uint32_t part = (uint32_t)smaller(FS_CHUNK_BYTES - skip, len - done);
        s->keys[count] = key_chunk(view->ino, at / FS_CHUNK_BYTES);
        s->reads[count] = (struct store_read){.key = s->keys[count].bytes,
                                              .key_len = s->keys[count].len,
                                              .offset = skip,
                                              .buf = buf + done,
                                              .buf_len = part,
                                              .value_hint = skip + part,
                                              .snapshot = view->snapshot};
        int started = store_read(s->store, &s->reads[count]);
        if (started < 0)
            rc = started;
        done += part;
    }
    store_complete_pending(s->store, true);
    for (unsigned i = 0; i < count; i++) {
        struct store_read *read = &s->reads[i];
        if (read->result < 0)
            rc = read->result;
        uint32_t have = read->result == STORE_OK ? read->copied : 0;
        memset((uint8_t *)read->buf + have, 0, read->buf_len - have);
    }
    return rc;
}

static ssize_t read_in(struct fs_session *s, const struct view *view, void *buf, size_t len, uint64_t offset)
{
    struct inode inode;
    int rc = get_inode(s, view, &inode);

    if (rc < 0)
        return rc;
    if (S_ISDIR(inode.mode))
        return -EISDIR;
    if (!S_ISREG(inode.mode))
        return -EINVAL;
    if (offset >= inode.size)
        return 0;
    len = smaller(len, inode.size - offset);
    for (size_t done = 0; done < len;) {
        size_t part = smaller(len - done, WRITE_MAX);
        rc = read_chunks(s, view, (uint8_t *)buf + done, part, offset + done);
        if (rc < 0)
            return rc;
        done += part;
    }
    return (ssize_t)len;
}

ssize_t fs_read(struct fs_session *s, uint64_t ino, void *buf, size_t len, uint64_t offset)
{
    struct view view;
    int rc = view_get(s, ino, &view);

    if (rc < 0)
        return rc;
    if (!view.snapshot)
        lock_read(s->fs, ino);
    ssize_t got = read_in(s, &view, buf, len, offset);
    if (!view.snapshot)
        unlock_read(s->fs, ino);
    view_put(s, &view);
    return got;
}

/* ---- chunks of a change ---------------------------------------------------------------------------- */

int chunk_len(struct fs_session *s, const struct inode *inode, uint64_t chunk, uint32_t *ret_len)
{
    uint64_t start = chunk * FS_CHUNK_BYTES;
    struct fs_key key = key_chunk(inode->ino, chunk);
    struct store_read read = {.key = key.bytes, .key_len = key.len};

    *ret_len = 0;
    if (start >= inode->size)
        return 0;
    if (!(inode->flags & INODE_SPARSE)) {
        *ret_len = (uint32_t)smaller(FS_CHUNK_BYTES, inode->size - start);
        return 0;
    }
    int rc = store_read_wait(s->store, &read);
    if (rc == STORE_OK)
        *ret_len = read.value_len;
    return rc < 0 ? rc : 0;
}

void make_sparse(struct inode *inode)
{
    struct fs_attr attr;

    if (inode->flags & INODE_SPARSE)
        return;
    inode_attr(inode, &attr);
    inode->blocks = attr.blocks;
    inode->flags |= INODE_SPARSE;
}

/* Room for a chunk that grew at its end: it will probably grow again. */
static uint32_t grown_capacity(uint32_t len)
{
    uint32_t capacity = 4096;

    while (capacity < len)
        capacity *= 2;
    return capacity;
}

static int write_chunk(struct fs_session *s, struct inode *inode, struct store_patch *patch, const uint8_t *bytes,
                       uint32_t len, uint64_t at)
{
    struct fs_key key = key_chunk(inode->ino, at / FS_CHUNK_BYTES);
    uint32_t from = (uint32_t)(at % FS_CHUNK_BYTES), old;
    int rc = chunk_len(s, inode, at / FS_CHUNK_BYTES, &old);

    if (rc < 0)
        return rc;
    s->txn.data_bytes += len;
    if (at / FS_CHUNK_BYTES >= inode->data_end)
        inode->data_end = at / FS_CHUNK_BYTES + 1;
    if (from + len > old && (inode->flags & INODE_SPARSE))
        inode->blocks += chunk_blocks(from + len) - chunk_blocks(old);
    if (from == 0 && len >= old)
        return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, len}, 1,
                                 old > 0 ? grown_capacity(len) : 0);
    *patch = (struct store_patch){.offset = from,
                                  .len = len,
                                  .bytes = bytes,
                                  .cut = STORE_PATCH_KEEP,
                                  .capacity = from + len > old ? grown_capacity(from + len) : 0};
    return store_unit_rmw(s->store, key.bytes, key.len, &STORE_PATCH, patch);
}

/* ---- writing --------------------------------------------------------------------------------------- */

static int write_in_txn(struct fs_session *s, uint64_t ino, const uint8_t *buf, size_t len, uint64_t offset,
                        unsigned flags)
{
    struct inode *inode;
    int rc = txn_inode(s, ino, &inode);

    if (rc < 0)
        return rc;
    if (!S_ISREG(inode->mode))
        return S_ISDIR(inode->mode) ? -EISDIR : -EINVAL;
    rc = offset == inode->size ? check_growable(inode) : check_mutable(inode);
    if (rc < 0)
        return rc;
    if (offset > inode->size)
        make_sparse(inode);
    unsigned count = 0;
    for (size_t done = 0; done < len && rc == 0; count++) {
        uint64_t at = offset + done;
        uint32_t part = (uint32_t)smaller(FS_CHUNK_BYTES - at % FS_CHUNK_BYTES, len - done);
        rc = write_chunk(s, inode, &s->patches[count], buf + done, part, at);
        done += part;
    }
    if (rc < 0)
        return rc;
    if (offset + len > inode->size)
        inode->size = offset + len;
    inode->mtime = inode->ctime = s->txn.now;
    txn_dirty(s, inode);
    return attr_kill(s, inode, flags);
}

static ssize_t write_unit(struct fs_session *s, uint64_t ino, const uint8_t *buf, size_t len, uint64_t offset,
                          unsigned flags)
{
    txn_begin(s);
    int rc = write_in_txn(s, ino, buf, len, offset, flags);
    if (rc < 0)
        txn_abandon(s);
    else
        rc = txn_apply(s, 0);
    return rc < 0 ? rc : (ssize_t)len;
}

/* How many chunks a unit can write. */
static uint64_t unit_chunks(struct fs_session *s)
{
    uint64_t room = store_limits(s->fs->store).unit_bytes_max - store_record_bytes(9, INODE_BYTES);
    uint64_t chunks = room / store_record_bytes(17, FS_CHUNK_BYTES);

    return chunks > 0 ? chunks : 1;
}

ssize_t fs_write(struct fs_session *s, uint64_t ino, const void *buf, size_t len, uint64_t offset, unsigned flags)
{
    struct lockset locks;
    uint64_t chunks = unit_chunks(s);
    size_t done = 0;

    if (!is_live(ino))
        return -EROFS;
    if (len > WRITE_MAX)
        return -EINVAL;
    if (offset > (uint64_t)FS_SIZE_MAX || len > (uint64_t)FS_SIZE_MAX - offset)
        return -EFBIG;
    if (len == 0)
        return 0;
    lock_write(s->fs, &locks, &ino, 1);
    while (done < len) {
        uint64_t at = offset + done;
        size_t part = smaller(len - done, (at / FS_CHUNK_BYTES + chunks) * FS_CHUNK_BYTES - at);
        ssize_t wrote = write_unit(s, ino, (const uint8_t *)buf + done, part, at, flags);
        if (wrote < 0) {
            unlock_write(&locks);
            return done > 0 ? (ssize_t)done : wrote;
        }
        done += part;
    }
    unlock_write(&locks);
    return (ssize_t)done;
}

/* ---- cutting --------------------------------------------------------------------------------------- */

/* Cuts the file to `size`, at most REMOVE_AT_ONCE chunks away. Inside a txn. */
static int cut(struct fs_session *s, struct inode *inode, uint64_t size)
{
    uint64_t keep = (size + FS_CHUNK_BYTES - 1) / FS_CHUNK_BYTES;
    uint64_t end = inode->data_end;
    uint32_t rest = (uint32_t)(size % FS_CHUNK_BYTES), old;
    int rc = 0;

    for (uint64_t chunk = keep; chunk < end && rc == 0; chunk++) {
        struct fs_key key = key_chunk(inode->ino, chunk);
        rc = chunk_len(s, inode, chunk, &old);
        if (rc < 0 || old == 0)
            continue;
        if (inode->flags & INODE_SPARSE)
            inode->blocks -= smaller(inode->blocks, chunk_blocks(old));
        rc = store_unit_delete(s->store, key.bytes, key.len);
    }
    if (rc == 0 && rest > 0) {
        struct fs_key key = key_chunk(inode->ino, size / FS_CHUNK_BYTES);
        rc = chunk_len(s, inode, size / FS_CHUNK_BYTES, &old);
        if (rc == 0 && old > rest) {
            if (inode->flags & INODE_SPARSE)
                inode->blocks -= smaller(inode->blocks, chunk_blocks(old) - chunk_blocks(rest));
            s->patches[0] = (struct store_patch){.cut = rest};
            rc = store_unit_rmw(s->store, key.bytes, key.len, &STORE_PATCH, &s->patches[0]);
        }
    }
    inode->size = size;
    if (inode->data_end > keep)
        inode->data_end = keep;
    if (size == 0) {
        inode->flags &= ~(uint32_t)INODE_SPARSE;
        inode->blocks = 0;
    }
    return rc;
}

static uint64_t next_cut(const struct fs_session *s, const struct inode *inode, uint64_t size)
{
    uint64_t step = smaller(REMOVE_AT_ONCE, store_limits(s->fs->store).unit_bytes_max / 2 / store_record_bytes(17, 0));
    uint64_t end = inode->data_end;

    if (inode->size <= size || end <= step + size / FS_CHUNK_BYTES)
        return size;
    return (end - step) * FS_CHUNK_BYTES;
}

static int truncate_in_txn(struct fs_session *s, uint64_t ino, uint64_t size, const struct fs_attr *attr,
                           unsigned set, bool *ret_more)
{
    struct inode *inode;
    int rc = txn_inode(s, ino, &inode);

    if (rc < 0)
        return rc;
    if (!S_ISREG(inode->mode))
        return S_ISDIR(inode->mode) ? -EISDIR : -EINVAL;
    if ((set & FS_SET_SIZE) && (rc = check_mutable(inode)) < 0)
        return rc;
    uint64_t to = next_cut(s, inode, size);
    *ret_more = to != size;
    if (to > inode->size) {
        make_sparse(inode);
        inode->size = to;
    } else if (to < inode->size) {
        rc = cut(s, inode, to);
    }
    inode->mtime = inode->ctime = s->txn.now;
    txn_dirty(s, inode);
    return rc < 0 || *ret_more ? rc : attr_set(s, inode, attr, set);
}

int data_truncate(struct fs_session *s, uint64_t ino, uint64_t size, const struct fs_attr *attr, unsigned set)
{
    bool more = true;
    int rc = size > (uint64_t)FS_SIZE_MAX ? -EFBIG : 0;

    while (rc == 0 && more) {
        txn_begin(s);
        rc = truncate_in_txn(s, ino, size, attr, set, &more);
        if (rc < 0)
            txn_abandon(s);
        else
            rc = txn_apply(s, STORE_UNIT_FREES);
    }
    return rc;
}

int data_remove(struct fs_session *s, const struct inode *inode)
{
    struct fs_key key = key_chunk(inode->ino, 0);

    if (S_ISREG(inode->mode))
        return inode->size == 0 ? 0 : data_truncate(s, inode->ino, 0, &(struct fs_attr){0}, 0);
    return S_ISLNK(inode->mode) ? store_delete(s->store, key.bytes, key.len) : 0;
}
