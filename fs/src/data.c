// SPDX-License-Identifier: MIT
/*
 * File contents: chunks of 64 KiB, each a value.
 *
 * Invariants, under the inode's lock:
 *   1. A chunk is never longer than the file reaches into it; what it lacks reads as zeros.
 *   2. No chunk from `data_end` on exists.
 *   3. A file that is not INODE_SPARSE has all of its bytes: each chunk, with its patches, is as long as the file
 *      reaches into it; so their lengths are known without reading. In a sparse one, `blocks` counts what they hold.
 *   4. An INODE_INLINE file has its contents, FS_INLINE_MAX bytes at most, in its inode, and no chunks.
 *
 * A chunk ends where its record ends or its last patch, whichever is farther, but not beyond the file.
 */
#include "private.h"

#include <errno.h>
#include <string.h>

#define WRITE_MAX (1u << 20)
#define REMOVE_AT_ONCE 256u /* chunks per unit */
#define COPY_MAX 8192u      /* a chunk that is not longer is copied when it is changed, rather than patched */

uint64_t chunk_blocks(uint32_t len)
{
    return (len + 511) / 512;
}

uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- reading --------------------------------------------------------------------------------------- */

/* A read of a file on its way: from chunks, and from patches. */
struct reading {
    struct fs_session *s;
    const struct view *view;
    const struct inode *inode;
    struct masks masks;
    unsigned count; /* reads that were started */
};

/* Waits for what was started. What is not there is zeros. */
static int finish(struct reading *r)
{
    int rc = 0;

    store_complete_pending(r->s->store, true);
    for (struct store_read *read = r->s->reads; read < r->s->reads + r->count; read++) {
        bool patch = ((const uint8_t *)read->key)[0] == 'c';
        uint32_t have = read->result == STORE_OK ? read->copied : 0;
        if (read->result < 0 || (patch && have < read->buf_len))
            rc = read->result < 0 ? read->result : -EIO;
        memset((uint8_t *)read->buf + have, 0, read->buf_len - have);
    }
    r->count = 0;
    return rc;
}

static int start(struct reading *r, const struct fs_key *key, uint8_t *buf, uint32_t len, uint32_t offset,
                 uint32_t value_hint)
{
    struct fs_session *s = r->s;
    int rc = r->count == READS_AT_ONCE ? finish(r) : 0;
    struct store_read *read = &s->reads[r->count];

    if (rc < 0)
        return rc;
    s->keys[r->count] = *key;
    *read = (struct store_read){.key = s->keys[r->count].bytes,
                                .key_len = key->len,
                                .offset = offset,
                                .buf = buf,
                                .buf_len = len,
                                .value_hint = value_hint,
                                .snapshot = r->view->snapshot};
    r->count++;
    rc = store_read(s->store, read);
    return rc < 0 ? rc : 0;
}

/* [from, to) of a chunk, in runs: of pages without patches, and each page with one. */
static int start_chunk(struct reading *r, uint64_t chunk, uint32_t from, uint32_t to, uint8_t *buf)
{
    uint32_t reach = (uint32_t)smaller(FS_CHUNK_BYTES, r->inode->size - chunk * FS_CHUNK_BYTES), end;
    uint16_t mask;
    int rc = mask_look(r->s, r->view, r->inode, chunk, &r->masks, &mask);

    for (uint32_t at = from; at < to && rc == 0; buf += end - at, at = end) {
        unsigned page = at / FS_PAGE_BYTES;
        bool patched = mask & 1u << page;
        end = to;
        if (mask) {
            unsigned next = page + 1;
            while (!patched && next < FS_CHUNK_PAGES && !(mask & 1u << next))
                next++;
            end = (uint32_t)smaller(to, next * FS_PAGE_BYTES);
        }
        struct fs_key key = patched ? key_patch(r->view->ino, chunk, page) : key_chunk(r->view->ino, chunk);
        if (patched)
            rc = start(r, &key, buf, end - at, at % FS_PAGE_BYTES, FS_PAGE_BYTES);
        else
            rc = start(r, &key, buf, end - at, at, reach);
    }
    return rc;
}

static int read_chunks(struct fs_session *s, const struct view *view, const struct inode *inode, uint8_t *buf,
                       size_t len, uint64_t offset)
{
    struct reading r = {.s = s, .view = view, .inode = inode};
    int rc = 0;

    for (size_t done = 0; done < len && rc == 0;) {
        uint64_t at = offset + done;
        uint32_t skip = (uint32_t)(at % FS_CHUNK_BYTES);
        uint32_t part = (uint32_t)smaller(FS_CHUNK_BYTES - skip, len - done);
        rc = start_chunk(&r, at / FS_CHUNK_BYTES, skip, skip + part, buf + done);
        done += part;
    }
    int finished = finish(&r);
    return rc < 0 ? rc : finished;
}

static ssize_t read_in(struct fs_session *s, const struct view *view, void *buf, size_t len, uint64_t offset)
{
    struct inode inode;
    int rc = get_contents(s, view, &inode);

    if (rc < 0)
        return rc;
    if (S_ISDIR(inode.mode))
        return -EISDIR;
    if (!S_ISREG(inode.mode))
        return -EINVAL;
    if (offset >= inode.size)
        return 0;
    len = smaller(len, inode.size - offset);
    if (inode.flags & INODE_INLINE) {
        memcpy(buf, s->inode_record + INODE_BYTES + offset, len);
        return (ssize_t)len;
    }
    for (size_t done = 0; done < len;) {
        size_t part = smaller(len - done, WRITE_MAX);
        rc = read_chunks(s, view, &inode, (uint8_t *)buf + done, part, offset + done);
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

/* How long its record is; 0: there is none. */
static int record_len(struct fs_session *s, const struct view *view, uint64_t chunk, uint32_t *ret_len)
{
    struct fs_key key = key_chunk(view->ino, chunk);
    struct store_read read = {.key = key.bytes, .key_len = key.len, .snapshot = view->snapshot};
    int rc = store_read_wait(s->store, &read);

    *ret_len = rc == STORE_OK ? read.value_len : 0;
    return rc < 0 ? rc : 0;
}

int chunk_len(struct fs_session *s, const struct view *view, const struct inode *inode, uint64_t chunk, uint16_t mask,
              uint32_t *ret_len)
{
    uint64_t start = chunk * FS_CHUNK_BYTES;
    uint32_t len = FS_CHUNK_BYTES;
    int rc = 0;

    *ret_len = 0;
    if (start >= inode->size)
        return 0;
    if (inode->flags & INODE_SPARSE)
        rc = record_len(s, view, chunk, &len);
    if (rc < 0)
        return rc;
    if (len < patched_end(mask))
        len = patched_end(mask);
    *ret_len = (uint32_t)smaller(len, inode->size - start);
    return 0;
}

/* The same inside a txn, with the mask. */
static int get_chunk(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask *ret_mask,
                     uint32_t *ret_len)
{
    struct view view = {.ino = inode->ino};
    int rc = mask_get(s, inode, chunk, ret_mask);

    return rc < 0 ? rc : chunk_len(s, &view, inode, chunk, *ret_mask->of, ret_len);
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

/* Is it better written into the chunk than beside it? */
static bool goes_in(struct fs_session *s, const struct inode *inode, const struct span *span, uint16_t mask,
                    uint32_t old)
{
    struct fs_key key = key_chunk(inode->ino, span->chunk);

    if (mask & span_pages(span))
        return false;
    if (old == 0)
        return span->from <= span->len; /* into a hole: if few zeros have to stand before it */
    return (old <= COPY_MAX && !mask) || store_is_mutable(s->store, key.bytes, key.len);
}

static int write_in(struct fs_session *s, const struct inode *inode, const struct span *span, uint32_t old)
{
    struct fs_key key = key_chunk(inode->ino, span->chunk);
    uint32_t end = span->from + span->len;

    if (span->from == 0 && span->len >= old)
        return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){span->bytes, span->len}, 1,
                                 old > 0 ? grown_capacity(span->len) : 0);
    struct store_patch patch = {.offset = span->from,
                                .len = span->len,
                                .bytes = span->bytes,
                                .cut = STORE_PATCH_KEEP,
                                .capacity = end > old ? grown_capacity(end) : 0};
    return store_unit_rmw(s->store, key.bytes, key.len, &STORE_PATCH, txn_patch(s, patch));
}

int write_span(struct fs_session *s, struct inode *inode, const struct span *span)
{
    uint64_t start = span->chunk * FS_CHUNK_BYTES;
    uint32_t end = span->from + span->len, old, reach;
    struct mask mask;
    int rc = get_chunk(s, inode, span->chunk, &mask, &old);

    if (rc < 0)
        return rc;
    reach = end;
    if (inode->size > start + end)
        reach = (uint32_t)smaller(FS_CHUNK_BYTES, inode->size - start);
    s->txn.data_bytes += span->len;
    if (span->chunk >= inode->data_end)
        inode->data_end = span->chunk + 1;
    if (span->from == 0 && span->len >= old) {
        rc = patches_drop(s, inode, span->chunk, mask, UINT16_MAX);
        rc = rc < 0 ? rc : write_in(s, inode, span, old);
    } else if (goes_in(s, inode, span, *mask.of, old)) {
        rc = write_in(s, inode, span, old);
    } else {
        s->txn.data_bytes += (uint64_t)__builtin_popcount(span_pages(span)) * FS_PAGE_BYTES - span->len;
        rc = patches_write(s, inode, span, mask, old, reach);
        end = (uint32_t)smaller(reach, (end + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES * FS_PAGE_BYTES);
    }
    if (end > old && (inode->flags & INODE_SPARSE))
        inode->blocks += chunk_blocks(end) - chunk_blocks(old);
    return rc;
}

int cut_chunk(struct fs_session *s, struct inode *inode, uint64_t chunk, uint32_t rest, uint32_t *ret_len)
{
    struct fs_key key = key_chunk(inode->ino, chunk);
    struct view view = {.ino = inode->ino};
    struct mask mask;
    uint32_t len = FS_CHUNK_BYTES;
    int rc = mask_get(s, inode, chunk, &mask);

    if (rc == 0 && rest > 0 && (*mask.of || (inode->flags & INODE_SPARSE)))
        rc = record_len(s, &view, chunk, &len); /* the patches may reach farther */
    if (rc == 0)
        rc = patches_cut(s, inode, chunk, mask, rest);
    if (rc < 0)
        return rc;
    *ret_len = (uint32_t)smaller(rest, len);
    if (*ret_len < patched_end(*mask.of))
        *ret_len = patched_end(*mask.of);
    if (rest < len)
        store_freed(s->fs->store, len - rest);
    if (rest == 0)
        return store_unit_delete(s->store, key.bytes, key.len);
    if (len <= rest)
        return 0;
    return store_unit_rmw(s->store, key.bytes, key.len, &STORE_PATCH, txn_patch(s, (struct store_patch){.cut = rest}));
}

/* ---- contents in the inode --------------------------------------------------------------------------- */

static bool may_be_inline(const struct inode *inode, uint64_t end)
{
    return end <= FS_INLINE_MAX && ((inode->flags & INODE_INLINE) || (inode->size == 0 && inode->data_end == 0));
}

static void write_inline(struct fs_session *s, struct inode *inode, const uint8_t *buf, size_t len, uint64_t offset)
{
    uint8_t *contents = txn_contents(s, inode);

    if (offset > inode->size)
        memset(contents + inode->size, 0, offset - inode->size);
    memcpy(contents + offset, buf, len);
    inode->flags |= INODE_INLINE;
}

/* The contents become the first chunk, with what is written to it. Returns how much of `len` that was, or -errno. */
static ssize_t spill(struct fs_session *s, struct inode *inode, const uint8_t *buf, size_t len, uint64_t offset)
{
    uint8_t *bytes = s->folds[s->txn.fold_count++];
    uint32_t old = (uint32_t)inode->size, end = old, part = 0;
    struct fs_key key = key_chunk(inode->ino, 0);

    memcpy(bytes, txn_contents(s, inode), old);
    if (offset < FS_CHUNK_BYTES && len > 0) {
        part = (uint32_t)smaller(FS_CHUNK_BYTES - offset, len);
        if (offset > old)
            memset(bytes + old, 0, offset - old);
        memcpy(bytes + offset, buf, part);
        end = (uint32_t)offset + part > old ? (uint32_t)offset + part : old;
    }
    inode->flags &= ~(uint32_t)INODE_INLINE;
    inode->data_end = 1;
    if (offset > old)
        make_sparse(inode);
    if (inode->flags & INODE_SPARSE)
        inode->blocks += chunk_blocks(end) - chunk_blocks(old);
    s->txn.data_bytes += end;
    int rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, end}, 1, grown_capacity(end));
    return rc < 0 ? rc : (ssize_t)part;
}

int file_grow(struct fs_session *s, struct inode *inode, uint64_t size)
{
    uint64_t last = inode->size / FS_CHUNK_BYTES;
    struct mask mask;
    uint32_t before, after;
    int rc = 0;

    if (size <= inode->size)
        return 0;
    if ((inode->flags & INODE_INLINE) && size <= FS_INLINE_MAX) {
        memset(txn_contents(s, inode) + inode->size, 0, size - inode->size);
        inode->size = size;
        return 0;
    }
    if (inode->flags & INODE_INLINE)
        rc = (int)spill(s, inode, NULL, 0, size);
    make_sparse(inode);
    /* The page in which the file ended may be a patch: more of it counts now. */
    if (rc == 0 && (inode->flags & INODE_PATCHED) && (rc = get_chunk(s, inode, last, &mask, &before)) == 0) {
        inode->size = size;
        rc = get_chunk(s, inode, last, &mask, &after);
        if (rc == 0)
            inode->blocks += chunk_blocks(after) - chunk_blocks(before);
    }
    inode->size = size;
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------------- */

static int write_spans(struct fs_session *s, struct inode *inode, const uint8_t *buf, size_t len, uint64_t offset)
{
    size_t done = 0;
    int rc = 0;

    if (inode->flags & INODE_INLINE) {
        ssize_t spilled = spill(s, inode, buf, len, offset);
        if (spilled < 0)
            return (int)spilled;
        done = (size_t)spilled;
    }
    if (offset > inode->size)
        rc = file_grow(s, inode, offset);
    while (done < len && rc == 0) {
        uint64_t at = offset + done;
        struct span span = {.chunk = at / FS_CHUNK_BYTES, .from = (uint32_t)(at % FS_CHUNK_BYTES), .bytes = buf + done};
        span.len = (uint32_t)smaller(FS_CHUNK_BYTES - span.from, len - done);
        rc = write_span(s, inode, &span);
        done += span.len;
    }
    return rc;
}

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
    if (may_be_inline(inode, offset + len))
        write_inline(s, inode, buf, len, offset);
    else
        rc = write_spans(s, inode, buf, len, offset);
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
    uint64_t chunks = room / (store_record_bytes(17, FS_CHUNK_BYTES) + PATCHES_GO_BYTES);

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
    struct mask mask;
    uint32_t old, len;
    int rc = 0;

    for (uint64_t chunk = size / FS_CHUNK_BYTES; chunk < inode->data_end && rc == 0; chunk++) {
        uint32_t rest = chunk < keep ? (uint32_t)(size % FS_CHUNK_BYTES) : 0;
        rc = get_chunk(s, inode, chunk, &mask, &old);
        if (rc < 0 || old <= rest)
            continue;
        rc = cut_chunk(s, inode, chunk, rest, &len);
        if (rc == 0 && (inode->flags & INODE_SPARSE))
            inode->blocks -= smaller(inode->blocks, chunk_blocks(old) - chunk_blocks((uint32_t)smaller(len, rest)));
    }
    inode->size = size;
    if (inode->data_end > keep)
        inode->data_end = keep;
    if (size == 0) {
        inode->flags &= ~(uint32_t)(INODE_SPARSE | INODE_PATCHED | INODE_INLINE);
        inode->blocks = 0;
    }
    return rc;
}

static uint64_t next_cut(const struct fs_session *s, const struct inode *inode, uint64_t size)
{
    uint64_t bytes = store_record_bytes(17, 0) + (inode->flags & INODE_PATCHED ? PATCHES_GO_BYTES : 0);
    uint64_t step = smaller(REMOVE_AT_ONCE, store_limits(s->fs->store).unit_bytes_max / 2 / bytes);
    uint64_t end = inode->data_end;

    if (inode->size <= size || end <= step + size / FS_CHUNK_BYTES)
        return size;
    return (end - step) * FS_CHUNK_BYTES;
}

static int truncate_in_txn(struct fs_session *s, uint64_t ino, uint64_t size, const struct fs_attr *attr, unsigned set,
                           bool *ret_more)
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
    if (to > inode->size)
        rc = file_grow(s, inode, to);
    else if (to < inode->size)
        rc = cut(s, inode, to);
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
    return inode->data_end == 0 ? 0 : data_truncate(s, inode->ino, 0, &(struct fs_attr){0}, 0);
}
