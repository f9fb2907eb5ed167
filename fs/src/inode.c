// SPDX-License-Identifier: MIT
/*
 * Inodes and entries: reading them, and changing several in one unit (struct txn).
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#define UNIT_OVERHEAD_BYTES 1024u /* inodes, names, record headers: about */

static int read_value(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, void *buf,
                      uint32_t room, bool nearby, uint32_t *ret_len)
{
    struct store_read read = {.key = key->bytes,
                              .key_len = key->len,
                              .buf = buf,
                              .buf_len = room,
                              .value_hint = room,
                              .nearby = nearby,
                              .snapshot = snapshot};
    int rc = store_read_wait(s->store, &read);

    if (rc == STORE_NOT_FOUND)
        return -ENOENT;
    if (rc == 0 && read.value_len > room)
        return -EIO;
    if (rc == 0)
        *ret_len = read.value_len;
    return rc;
}

int get_value(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, void *buf,
              uint32_t room, uint32_t *ret_len)
{
    return read_value(s, snapshot, key, buf, room, false, ret_len);
}

static int read_inode(struct fs_session *s, const struct view *view, uint8_t *buf, uint32_t room, uint32_t value_hint,
                      struct inode *ret_inode)
{
    struct fs_key key = key_inode(view->ino);
    struct store_read read = {.key = key.bytes,
                              .key_len = key.len,
                              .buf = buf,
                              .buf_len = room,
                              .value_hint = value_hint,
                              .snapshot = view->snapshot};
    int rc = store_read_wait(s->store, &read);

    if (rc == STORE_NOT_FOUND)
        return -ESTALE;
    return rc < 0 ? rc : inode_decode(buf, read.value_len, view->ino, ret_inode);
}

int get_inode(struct fs_session *s, const struct view *view, struct inode *ret_inode)
{
    uint8_t bytes[INODE_BYTES];

    return read_inode(s, view, bytes, sizeof bytes, INODE_BYTES, ret_inode);
}

int get_contents(struct fs_session *s, const struct view *view, struct inode *ret_inode)
{
    return read_inode(s, view, s->inode_record, sizeof s->inode_record, INODE_BYTES + FS_INLINE_MAX, ret_inode);
}

int get_entry(struct fs_session *s, const struct view *dir, const char *name, struct entry *ret_entry)
{
    uint8_t bytes[ENTRY_BYTES];
    struct fs_key key = key_entry(dir->ino, name, strlen(name));
    uint32_t len = 0;
    /* Its inode, and the contents of a small file, mostly stand behind it. */
    int rc = read_value(s, dir->snapshot, &key, bytes, sizeof bytes, true, &len);

    return rc < 0 ? rc : entry_decode(bytes, len, ret_entry);
}

void fs_now(struct fs *fs, struct timespec *ret_now)
{
    if (fs->options.now)
        fs->options.now(fs->options.now_ctx, ret_now);
    else
        clock_gettime(CLOCK_REALTIME, ret_now);
}

/* ---- the txn --------------------------------------------------------------------------------------- */

void txn_begin(struct fs_session *s)
{
    struct txn *t = &s->txn;

    t->inode_count = t->page_count = t->block_count = t->entry_count = t->dead_count = 0;
    t->mask_count = t->patch_count = t->part_count = t->fold_count = 0;
    t->inodes_added = 0;
    t->adopted = t->data_bytes = 0;
    fs_now(s->fs, &t->now);
    store_unit_begin(s->store);
}

void txn_abandon(struct fs_session *s)
{
    store_unit_abandon(s->store);
}

int txn_inode(struct fs_session *s, uint64_t ino, struct inode **ret_inode)
{
    struct txn *t = &s->txn;

    for (unsigned i = 0; i < t->inode_count; i++) {
        if (t->inodes[i].ino == ino) {
            *ret_inode = &t->inodes[i];
            return 0;
        }
    }
    assert(t->inode_count < TXN_INODES);
    int rc = read_inode(s, &(struct view){.ino = ino}, t->inode_records[t->inode_count], sizeof *t->inode_records,
                        INODE_BYTES + FS_INLINE_MAX, &t->inodes[t->inode_count]);
    if (rc < 0)
        return rc;
    t->inode_dirty[t->inode_count] = false;
    *ret_inode = &t->inodes[t->inode_count++];
    return 0;
}

struct inode *txn_new_inode(struct fs_session *s, const struct inode *inode)
{
    struct txn *t = &s->txn;

    assert(t->inode_count < TXN_INODES);
    t->inodes[t->inode_count] = *inode;
    t->inode_dirty[t->inode_count] = true;
    t->inodes_added++;
    return &t->inodes[t->inode_count++];
}

void txn_dirty(struct fs_session *s, const struct inode *inode)
{
    s->txn.inode_dirty[inode - s->txn.inodes] = true;
}

uint8_t *txn_contents(struct fs_session *s, const struct inode *inode)
{
    return s->txn.inode_records[inode - s->txn.inodes] + INODE_BYTES;
}

int txn_orphan(struct fs_session *s, struct inode *inode)
{
    struct txn *t = &s->txn;
    uint64_t number;
    int rc = alloc_orphan(s->fs, &number);

    if (rc < 0)
        return rc;
    assert(t->dead_count < 2);
    inode->nlink = 0;
    inode->orphan = number;
    t->dead[t->dead_count] = (struct dead){inode->ino, number};
    uint8_t *bytes = t->orphan_bytes[t->dead_count++];
    orphan_encode(inode->ino, bytes);
    struct fs_key key = key_orphan(number);
    return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, ORPHAN_BYTES}, 1, 0);
}

int txn_adopt(struct fs_session *s, struct inode *inode)
{
    struct fs_key key = key_orphan(inode->orphan);

    s->txn.adopted = inode->ino;
    inode->orphan = 0;
    return store_unit_delete(s->store, key.bytes, key.len);
}

static int add_inodes(struct fs_session *s)
{
    struct txn *t = &s->txn;
    int rc = 0;

    for (unsigned i = 0; i < t->inode_count && rc == 0; i++) {
        if (!t->inode_dirty[i])
            continue;
        struct fs_key key = key_inode(t->inodes[i].ino);
        uint32_t len = INODE_BYTES + inode_contents(&t->inodes[i]);
        inode_encode(&t->inodes[i], t->inode_records[i]);
        /* Contents grow in place, a little. */
        rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){t->inode_records[i], len}, 1,
                               (len + 63) & ~63u);
    }
    if (rc == 0 && t->inodes_added != 0)
        rc = count_in_unit(s, &t->inodes_added);
    return rc;
}

int txn_apply(struct fs_session *s, unsigned flags)
{
    struct txn *t = &s->txn;
    int rc = add_inodes(s);

    if (rc == 0)
        rc = listings_add(s);
    if (rc == 0)
        rc = masks_add(s);
    if (rc == 0 && !(flags & STORE_UNIT_FREES))
        rc = space_take(s->fs, t->data_bytes + UNIT_OVERHEAD_BYTES);
    if (rc < 0) {
        store_unit_abandon(s->store);
        return rc;
    }
    rc = store_unit_apply(s->store, flags);
    if (rc < 0)
        return rc;
    if (t->inodes_added > 0)
        count_applied(s->fs, t->inodes_added);
    atomic_fetch_add_explicit(&s->fs->orphans, t->dead_count, memory_order_relaxed);
    if (t->adopted) {
        (void)ref_orphan(s->fs, t->adopted, 0);
        atomic_fetch_sub_explicit(&s->fs->orphans, 1, memory_order_relaxed);
    }
    for (unsigned i = 0; i < t->dead_count; i++)
        if (!ref_orphan(s->fs, t->dead[i].ino, t->dead[i].orphan))
            reap_add(s->fs, t->dead[i].ino, t->dead[i].orphan);
    return 0;
}
