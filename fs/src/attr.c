// SPDX-License-Identifier: MIT
/* Calls on one inode that are not about its data: attributes, symlinks, directories, references. */
#include "private.h"

#include <errno.h>
#include <string.h>

static int inode_of(struct fs_session *s, const struct view *view, struct inode *ret_inode)
{
    int rc = get_inode(s, view, ret_inode);

    return rc == -ENOENT ? -ESTALE : rc;
}

int fs_getattr(struct fs_session *s, uint64_t ino, struct fs_attr *ret_attr)
{
    struct view view;
    struct inode inode;

    if (ino == FS_INO_SNAPSHOTS)
        return snapshots_getattr(s, ret_attr);
    int rc = view_get(s, ino, &view);
    if (rc < 0)
        return rc;
    rc = inode_of(s, &view, &inode);
    if (rc == 0) {
        inode_attr(&inode, ret_attr);
        view_attr(&view, ret_attr);
    }
    view_put(s, &view);
    return rc;
}

void inode_set(struct inode *inode, const struct fs_attr *attr, unsigned set, const struct timespec *now)
{
    if (set & FS_SET_MODE)
        inode->mode = (inode->mode & S_IFMT) | (attr->mode & 07777);
    if (set & FS_SET_UID)
        inode->uid = attr->uid;
    if (set & FS_SET_GID)
        inode->gid = attr->gid;
    if (set & FS_KILL_PRIV)
        inode_kill_priv(inode);
    if (set & FS_SET_ATIME)
        inode->atime = attr->atime;
    if (set & FS_SET_ATIME_NOW)
        inode->atime = *now;
    if (set & FS_SET_MTIME)
        inode->mtime = attr->mtime;
    if (set & FS_SET_MTIME_NOW)
        inode->mtime = *now;
    if (set)
        inode->ctime = set & FS_SET_CTIME ? attr->ctime : *now;
}

static int set_locked(struct fs_session *s, uint64_t ino, const struct fs_attr *attr, unsigned set)
{
    struct inode *inode;

    if (set & FS_SET_SIZE)
        return data_truncate(s, ino, attr->size, attr, set);
    txn_begin(s);
    int rc = txn_inode(s, ino, &inode);
    if (rc < 0) {
        txn_abandon(s);
        return rc == -ENOENT ? -ESTALE : rc;
    }
    inode_set(inode, attr, set, &s->txn.now);
    txn_dirty(s, inode);
    return txn_apply(s, 0);
}

int fs_setattr(struct fs_session *s, uint64_t ino, const struct fs_attr *attr, unsigned set, struct fs_attr *ret_attr)
{
    struct lockset locks;
    struct inode inode;

    if (!is_live(ino))
        return -EROFS;
    lock_write(s->fs, &locks, &ino, 1);
    int rc = set_locked(s, ino, attr, set);
    if (rc == 0 && ret_attr) {
        rc = inode_of(s, &(struct view){.ino = ino}, &inode);
        if (rc == 0)
            inode_attr(&inode, ret_attr);
    }
    unlock_write(&locks);
    return rc;
}

void fs_forget(struct fs_session *s, uint64_t ino, uint64_t count)
{
    uint64_t orphan;

    if (is_live(ino) && ref_put(s->fs, ino, count, &orphan)) {
        reap_add(s, ino, orphan);
        reap_drain(s);
    }
}

int fs_readlink(struct fs_session *s, uint64_t ino, char *buf, size_t len)
{
    struct view view;
    struct inode inode;
    uint32_t got = 0;
    int rc = view_get(s, ino, &view);

    if (rc < 0)
        return rc;
    rc = inode_of(s, &view, &inode);
    if (rc == 0 && !S_ISLNK(inode.mode))
        rc = -EINVAL;
    if (rc == 0) {
        struct fs_key key = key_chunk(view.ino, 0);
        struct store_read read = {.key = key.bytes,
                                  .key_len = key.len,
                                  .buf = buf,
                                  .buf_len = (uint32_t)len,
                                  .value_hint = (uint32_t)inode.size,
                                  .snapshot = view.snapshot};
        rc = store_read_wait(s->store, &read);
        rc = rc == STORE_NOT_FOUND ? -EIO : rc;
        got = read.value_len;
    }
    view_put(s, &view);
    return rc < 0 ? rc : (int)got;
}

/* ---- directories ------------------------------------------------------------------------------------- */

/* Cookies: 1 after ".", 2 after "..", sequence number + 3 after an entry. */
#define COOKIE_FIRST 3

struct walk {
    struct fs_session *s;
    struct view view;
    struct inode dir;
    bool with_attr;
    fs_fill fill;
    void *ctx;
};

static int fill_dots(const struct walk *w, uint64_t *cookie)
{
    struct fs_attr at = {.ino = w->dir.ino};
    struct fs_attr up = {.ino = w->dir.parent};

    view_attr(&w->view, &at);
    view_attr(&w->view, &up);
    if (*cookie == 0) {
        if (w->fill(w->ctx, &(struct fs_dirent){.name = ".", .name_len = 1, .ino = at.ino, .type = S_IFDIR, .cookie = 1}))
            return 1;
        *cookie = 1;
    }
    if (*cookie == 1) {
        if (w->fill(w->ctx,
                    &(struct fs_dirent){.name = "..", .name_len = 2, .ino = up.ino, .type = S_IFDIR, .cookie = 2}))
            return 1;
        *cookie = 2;
    }
    return 0;
}

/* Takes the reference and the attributes of an entry: 0; -ENOENT if it has gone meanwhile. */
static int take_entry(const struct walk *w, const char *name, const struct entry *entry, struct fs_attr *attr)
{
    struct view child = w->view;
    struct inode inode;
    struct entry now;
    uint64_t none;
    int rc = 0;

    child.ino = entry->ino;
    if (w->view.snapshot) {
        rc = get_inode(w->s, &child, &inode);
    } else {
        lock_read(w->s->fs, w->view.ino);
        rc = get_entry(w->s, &w->view, name, &now);
        if (rc == 0 && now.seq != entry->seq)
            rc = -ENOENT;
        if (rc == 0)
            rc = ref_get(w->s->fs, child.ino);
        if (rc == 0 && (rc = get_inode(w->s, &child, &inode)) < 0)
            (void)ref_put(w->s->fs, child.ino, 1, &none);
        unlock_read(w->s->fs, w->view.ino);
    }
    if (rc == 0) {
        inode_attr(&inode, attr);
        view_attr(&child, attr);
    }
    return rc;
}

static int fill_entry(const struct walk *w, const struct listed *listed)
{
    char name[FS_NAME_MAX + 1];
    struct fs_attr attr = {.ino = listed->entry.ino};
    uint64_t none;

    memcpy(name, listed->name, listed->name_len);
    name[listed->name_len] = 0;
    view_attr(&w->view, &attr);
    if (w->with_attr) {
        int rc = take_entry(w, name, &listed->entry, &attr);
        if (rc == -ENOENT)
            return 0;
        if (rc < 0)
            return rc;
    }
    int full = w->fill(w->ctx, &(struct fs_dirent){.name = name,
                                                   .name_len = listed->name_len,
                                                   .ino = attr.ino,
                                                   .type = listed->entry.type,
                                                   .cookie = listed->entry.seq + COOKIE_FIRST,
                                                   .attr = w->with_attr ? &attr : NULL});
    if (full && w->with_attr && !w->view.snapshot)
        (void)ref_put(w->s->fs, listed->entry.ino, 1, &none);
    return full ? 1 : 0;
}

/* Entries of one listing from sequence number `from` on. Listings are in order of sequence numbers. */
static int fill_page(const struct walk *w, uint64_t number, uint64_t from)
{
    struct fs_key key = key_listing(w->view.ino, number);
    struct listed listed;
    uint32_t len;
    int rc = get_value(w->s, w->view.snapshot, &key, w->s->listing, sizeof w->s->listing, &len);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (uint32_t at = 0; at < len;) {
        int next = listing_next(w->s->listing, len, at, &listed);
        if (next < 0)
            return next;
        if (listed.entry.seq >= from && (rc = fill_entry(w, &listed)) != 0)
            return rc;
        at = (uint32_t)next;
    }
    return 0;
}

static int readdir_in(struct walk *w, uint64_t cookie)
{
    int rc = inode_of(w->s, &w->view, &w->dir);

    if (rc == 0 && !S_ISDIR(w->dir.mode))
        rc = -ENOTDIR;
    if (rc == 0)
        rc = fill_dots(w, &cookie);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    uint64_t from = cookie < COOKIE_FIRST ? 0 : cookie - COOKIE_FIRST + 1;
    if (from < w->dir.first_seq)
        from = w->dir.first_seq;
    while (from < w->dir.next_seq) {
        rc = fill_page(w, from / FS_LISTING_NAMES, from);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        from = (from / FS_LISTING_NAMES + 1) * FS_LISTING_NAMES;
    }
    return 0;
}

int fs_readdir(struct fs_session *s, uint64_t ino, uint64_t cookie, bool with_attr, fs_fill fill, void *ctx)
{
    struct walk w = {.s = s, .with_attr = with_attr, .fill = fill, .ctx = ctx};

    if (ino == FS_INO_SNAPSHOTS)
        return snapshots_readdir(s, cookie, with_attr, fill, ctx);
    int rc = view_get(s, ino, &w.view);
    if (rc < 0)
        return rc;
    rc = readdir_in(&w, cookie);
    view_put(s, &w.view);
    return rc;
}
