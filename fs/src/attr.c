// SPDX-License-Identifier: MIT
/* Calls on one inode that are not about its data: attributes, symlinks, directories, references. */
#include "private.h"

#include <errno.h>
#include <string.h>

int fs_getattr(struct fs_session *s, uint64_t ino, struct fs_attr *ret_attr)
{
    struct view view;
    struct inode inode;

    if (ino == FS_INO_SNAPSHOTS)
        return snapshots_getattr(s, ret_attr);
    int rc = view_get(s, ino, &view);
    if (rc < 0)
        return rc;
    rc = get_inode(s, &view, &inode);
    if (rc == 0) {
        inode_attr(&inode, ret_attr);
        view_attr(&view, ret_attr);
    }
    view_put(s, &view);
    return rc;
}

/* Takes setuid and setgid away. */
static void kill_priv(struct inode *inode, unsigned kill)
{
    if (S_ISDIR(inode->mode))
        return;
    if (kill & FS_KILL_PRIV)
        inode->mode &= ~(uint32_t)(S_ISUID | (inode->mode & S_IXGRP ? S_ISGID : 0));
    if (kill & FS_KILL_SGID)
        inode->mode &= ~(uint32_t)S_ISGID;
}

int attr_kill(struct fs_session *s, struct inode *inode, unsigned kill)
{
    int rc;

    kill_priv(inode, kill);
    if (!(inode->flags & INODE_CAPABILITY))
        return 0;
    rc = xattrs_load(s, &(struct view){.ino = inode->ino}, inode);
    if (rc == 0)
        rc = xattrs_drop(s, inode, FS_CAPABILITY);
    return rc < 0 ? rc : xattrs_store(s, inode);
}

/* The access ACL says what the mode says, and security.capability does not outlive the owner or the
 * contents that it was given for. */
static int set_xattrs(struct fs_session *s, struct inode *inode, unsigned set)
{
    struct view view = {.ino = inode->ino};
    bool chmod = (set & FS_SET_MODE) && (inode->flags & INODE_ACCESS_ACL);
    bool kill = (set & (FS_SET_UID | FS_SET_GID | FS_SET_SIZE)) && (inode->flags & INODE_CAPABILITY);
    uint32_t len;
    int rc = chmod || kill ? xattrs_load(s, &view, inode) : 0;

    if (rc == 0 && kill)
        rc = xattrs_drop(s, inode, FS_CAPABILITY);
    if (rc == 0 && chmod) {
        uint8_t *acl = s->xattrs->acl[0];
        rc = xattrs_get(s, &view, FS_ACL_ACCESS, acl, sizeof s->xattrs->acl[0], &len);
        if (rc == 0) {
            acl_chmod(acl, len, inode->mode);
            rc = xattrs_put(s, inode, FS_ACL_ACCESS, acl, len);
        }
    }
    if (rc == 0 && (chmod || kill))
        rc = xattrs_store(s, inode);
    return rc;
}

int attr_set(struct fs_session *s, struct inode *inode, const struct fs_attr *attr, unsigned set)
{
    const struct timespec *now = &s->txn.now;

    if (set & FS_SET_MODE)
        inode->mode = (inode->mode & S_IFMT) | (attr->mode & 07777);
    if (set & FS_SET_UID)
        inode->uid = attr->uid;
    if (set & FS_SET_GID)
        inode->gid = attr->gid;
    kill_priv(inode, set);
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
    return set_xattrs(s, inode, set);
}

static int set_locked(struct fs_session *s, uint64_t ino, const struct fs_attr *attr, unsigned set)
{
    struct inode *inode;

    if (set & FS_SET_SIZE)
        return data_truncate(s, ino, attr->size, attr, set);
    txn_begin(s);
    int rc = txn_inode(s, ino, &inode);
    if (rc == 0)
        rc = attr_set(s, inode, attr, set);
    if (rc < 0) {
        txn_abandon(s);
        return rc;
    }
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
        rc = get_inode(s, &(struct view){.ino = ino}, &inode);
        if (rc == 0)
            inode_attr(&inode, ret_attr);
    }
    unlock_write(&locks);
    return rc;
}

static bool is_after(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* The rules of relatime. */
static bool atime_is_due(const struct fs *fs, const struct inode *inode, const struct timespec *now)
{
    const struct timespec *a = &inode->atime, *m = &inode->mtime, *c = &inode->ctime;

    if (fs->options.atime != FS_ATIME_RELATIVE)
        return fs->options.atime == FS_ATIME_ALWAYS;
    return !is_after(a, m) || !is_after(a, c) || now->tv_sec - a->tv_sec >= 24 * 60 * 60;
}

void fs_accessed(struct fs_session *s, uint64_t ino)
{
    struct lockset locks;
    struct inode look, *inode;
    struct timespec now;

    if (!is_live(ino) || s->fs->options.atime == FS_ATIME_NEVER || s->fs->options.store.read_only)
        return;
    fs_now(s->fs, &now);
    if (get_inode(s, &(struct view){.ino = ino}, &look) < 0 || !atime_is_due(s->fs, &look, &now))
        return;
    lock_write(s->fs, &locks, &ino, 1);
    txn_begin(s);
    int rc = txn_inode(s, ino, &inode);
    if (rc == 0) {
        inode->atime = s->txn.now;
        txn_dirty(s, inode);
        rc = txn_apply(s, 0);
    } else {
        txn_abandon(s);
    }
    unlock_write(&locks);
}

void fs_forget(struct fs_session *s, uint64_t ino, uint64_t count)
{
    uint64_t orphan;

    if (is_live(ino) && ref_put(s->fs, ino, count, &orphan)) {
        reap_add(s->fs, ino, orphan);
        reap_drain(s);
    }
}

int fs_readlink(struct fs_session *s, uint64_t ino, char *buf, size_t len)
{
    struct view view;
    struct inode inode;
    int rc = view_get(s, ino, &view);

    if (rc < 0)
        return rc;
    rc = get_contents(s, &view, &inode);
    if (rc == 0 && !S_ISLNK(inode.mode))
        rc = -EINVAL;
    if (rc == 0)
        memcpy(buf, s->inode_record + INODE_BYTES, smaller(len, inode.size));
    view_put(s, &view);
    return rc < 0 ? rc : (int)inode.size;
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
    if (w->view.snapshot && w->dir.ino == FS_INO_ROOT)
        up.ino = FS_INO_SNAPSHOTS;
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

/* The entries of one listing that are still to be handed out. */
struct batch {
    struct listed listed[FS_LISTING_NAMES];
    unsigned count, given;
    bool absent; /* there is no such listing */
};

/* Reads the listing and, for a caller that wants attributes, takes a reference on each entry while the
 * directory's lock keeps the names there. Listings are in order of sequence numbers. */
static int load_batch(const struct walk *w, uint64_t number, uint64_t from, struct batch *batch)
{
    struct fs_session *s = w->s;
    struct fs_key key = key_listing(w->view.ino, number);
    struct listed listed;
    uint32_t len;
    bool refs = w->with_attr && !w->view.snapshot;

    batch->count = batch->given = 0;
    if (refs)
        lock_read(s->fs, w->view.ino);
    int rc = get_value(s, w->view.snapshot, &key, s->listing, sizeof s->listing, &len);
    for (uint32_t at = 0; rc == 0 && at < len;) {
        int next = listing_next(s->listing, len, at, &listed);
        at = (uint32_t)next;
        if (next < 0 || batch->count == FS_LISTING_NAMES)
            rc = -EIO;
        else if (listed.entry.seq >= from && (!refs || (rc = ref_get(s->fs, listed.entry.ino)) == 0))
            batch->listed[batch->count++] = listed;
    }
    if (refs)
        unlock_read(s->fs, w->view.ino);
    batch->absent = rc == -ENOENT;
    return batch->absent ? 0 : rc;
}

/* All inodes of the batch at once: those that are not in memory then cost one wait together. */
static void read_inodes(const struct walk *w, const struct batch *batch)
{
    struct fs_session *s = w->s;

    for (unsigned i = 0; i < batch->count; i++) {
        s->keys[i] = key_inode(batch->listed[i].entry.ino);
        s->reads[i] = (struct store_read){.key = s->keys[i].bytes,
                                          .key_len = s->keys[i].len,
                                          .buf = s->inode_bytes[i],
                                          .buf_len = INODE_BYTES,
                                          .value_hint = INODE_BYTES,
                                          .snapshot = w->view.snapshot};
        int started = store_read(s->store, &s->reads[i]);
        (void)started; /* the result says it */
    }
    store_complete_pending(s->store, true);
}

/* Hands out entry i: 1 if the caller has no room for it. One whose inode is damaged goes without
 * attributes, and without a reference. */
static int fill_entry(const struct walk *w, struct batch *batch, unsigned i)
{
    const struct listed *listed = &batch->listed[i];
    char name[FS_NAME_MAX + 1];
    struct inode inode;
    struct fs_attr attr = {.ino = listed->entry.ino};
    bool sound = false;

    memcpy(name, listed->name, listed->name_len);
    name[listed->name_len] = 0;
    if (w->with_attr) {
        sound = w->s->reads[i].result == STORE_OK &&
                inode_decode(w->s->inode_bytes[i], w->s->reads[i].value_len, listed->entry.ino, &inode) == 0;
        if (sound)
            inode_attr(&inode, &attr);
    }
    view_attr(&w->view, &attr);
    if (w->fill(w->ctx, &(struct fs_dirent){.name = name,
                                            .name_len = listed->name_len,
                                            .ino = attr.ino,
                                            .type = listed->entry.type,
                                            .cookie = listed->entry.seq + COOKIE_FIRST,
                                            .attr = sound ? &attr : NULL}))
        return 1;
    if (w->with_attr && !sound && !w->view.snapshot)
        fs_forget(w->s, listed->entry.ino, 1);
    batch->given++;
    return 0;
}

/* Entries of one listing from sequence number `from` on; *ret_next is the listing after it. */
static int fill_page(const struct walk *w, uint64_t number, uint64_t from, uint64_t *ret_next)
{
    struct batch batch;
    struct fs_key gap = key_gap(w->view.ino, number);
    int rc = load_batch(w, number, from, &batch), full = 0;

    *ret_next = number + 1;
    if (rc == 0 && batch.absent) {
        rc = get_gap(w->s, w->view.snapshot, &gap, ret_next);
        if (rc == -ENOENT)
            rc = 0;
        return rc == 0 && *ret_next <= number ? -EIO : rc;
    }

    if (rc == 0 && w->with_attr)
        read_inodes(w, &batch);
    while (rc == 0 && !full && batch.given < batch.count)
        full = fill_entry(w, &batch, batch.given);
    if (w->with_attr && !w->view.snapshot)
        for (unsigned i = batch.given; i < batch.count; i++)
            fs_forget(w->s, batch.listed[i].entry.ino, 1);
    return rc < 0 ? rc : full;
}

static int readdir_in(struct walk *w, uint64_t cookie)
{
    int rc = get_inode(w->s, &w->view, &w->dir);

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
        uint64_t next;
        rc = fill_page(w, from / FS_LISTING_NAMES, from, &next);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        from = next * FS_LISTING_NAMES;
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
