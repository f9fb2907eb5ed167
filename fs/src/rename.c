// SPDX-License-Identifier: MIT
/*
 * Rename: one unit, whatever it replaces or exchanges.
 */
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct move {
    uint64_t from_dir, to_dir;
    const char *from_name, *to_name;
    unsigned flags;
    struct inode whiteout; /* what takes the old name, with RENAME_WHITEOUT */
    struct entry from, to; /* to.ino 0: the new name is not there */
};

/* Both entries as they are now. */
static int look(struct fs_session *s, struct move *m)
{
    int rc = get_entry(s, &(struct view){.ino = m->from_dir}, m->from_name, &m->from);

    if (rc < 0)
        return rc == -ENOENT ? why_absent(s, &(struct view){.ino = m->from_dir}) : rc;
    rc = get_entry(s, &(struct view){.ino = m->to_dir}, m->to_name, &m->to);
    if (rc == -ENOENT) {
        m->to.ino = 0;
        rc = 0;
    }
    return rc;
}

static int lock_move(struct fs_session *s, struct move *m, struct lockset *locks)
{
    for (;;) {
        int rc = look(s, m);
        if (rc < 0)
            return rc;
        uint64_t from = m->from.ino, to = m->to.ino;
        lock_write(s->fs, locks, (uint64_t[]){m->from_dir, m->to_dir, from, to}, 4);
        rc = look(s, m);
        if (rc == 0 && m->from.ino == from && m->to.ino == to)
            return 0;
        unlock_write(locks);
        if (rc < 0)
            return rc;
    }
}

/* Is `dir` the inode `above` or somewhere below it? Under rename_lock, so the tree above stays. -EIO: the
 * parents go in a circle (Brent's algorithm: a mark that is left behind, at twice the distance each time). */
static int is_below(struct fs_session *s, uint64_t dir, uint64_t above)
{
    struct inode inode;
    uint64_t mark = dir, steps = 0;

    for (;;) {
        if (dir == above)
            return 1;
        if (dir == FS_INO_ROOT)
            return 0;
        int rc = get_inode(s, &(struct view){.ino = dir}, &inode);
        if (rc < 0)
            return rc;
        if (!S_ISDIR(inode.mode))
            return -ENOTDIR;
        if (inode.nlink == 0)
            return -ENOENT;
        dir = inode.parent;
        if (dir == mark)
            return -EIO;
        steps++;
        if ((steps & (steps - 1)) == 0)
            mark = dir;
    }
}

static int check_loops(struct fs_session *s, const struct move *m)
{
    int rc = 0;

    if (m->from_dir == m->to_dir)
        return 0;
    if (S_ISDIR(m->from.type))
        rc = is_below(s, m->to_dir, m->from.ino);
    if (rc == 0 && (m->flags & RENAME_EXCHANGE) && S_ISDIR(m->to.type))
        rc = is_below(s, m->from_dir, m->to.ino);
    return rc > 0 ? -EINVAL : rc;
}

static int check_target(const struct move *m, const struct inode *moved, const struct inode *there)
{
    if (m->flags & RENAME_NOREPLACE)
        return -EEXIST;
    if (m->flags & RENAME_EXCHANGE)
        return 0;
    if (S_ISDIR(there->mode) && !S_ISDIR(moved->mode))
        return -EISDIR;
    if (!S_ISDIR(there->mode) && S_ISDIR(moved->mode))
        return -ENOTDIR;
    return S_ISDIR(there->mode) && there->entries > 0 ? -ENOTEMPTY : 0;
}

/* An inode has a name in another directory now. */
static void moved_to(struct fs_session *s, struct inode *inode, struct inode *from, struct inode *to)
{
    inode->ctime = s->txn.now;
    txn_dirty(s, inode);
    if (S_ISDIR(inode->mode) && from != to) {
        inode->parent = to->ino;
        from->nlink--;
        to->nlink++;
        txn_dirty(s, from);
        txn_dirty(s, to);
    }
}

static int replace(struct fs_session *s, struct inode *dir, struct inode *there)
{
    there->ctime = s->txn.now;
    txn_dirty(s, there);
    if (S_ISDIR(there->mode))
        dir->nlink--;
    else if (there->nlink > 1) {
        there->nlink--;
        return 0;
    }
    return txn_orphan(s, there);
}

/* What becomes of the old name. */
static int leave_name(struct fs_session *s, const struct move *m, struct inode *from, const struct inode *there)
{
    if (m->flags & RENAME_EXCHANGE)
        return txn_replace_name(s, from, m->from_name, &m->from, there->ino, there->mode);
    if (!(m->flags & RENAME_WHITEOUT))
        return txn_remove_name(s, from, m->from_name, &m->from);
    struct inode *whiteout = txn_new_inode(s, &m->whiteout);
    whiteout->atime = whiteout->mtime = whiteout->ctime = whiteout->btime = s->txn.now;
    return txn_replace_name(s, from, m->from_name, &m->from, whiteout->ino, whiteout->mode);
}

static int move_in_txn(struct fs_session *s, const struct move *m)
{
    struct inode *from, *to, *moved, *there = NULL;
    bool exchange = m->flags & RENAME_EXCHANGE;
    int rc;

    if ((rc = txn_inode(s, m->from_dir, &from)) < 0 || (rc = txn_inode(s, m->to_dir, &to)) < 0 ||
        (rc = txn_inode(s, m->from.ino, &moved)) < 0 ||
        (m->to.ino && (rc = txn_inode(s, m->to.ino, &there)) < 0))
        return rc;
    if (!S_ISDIR(to->mode))
        return -ENOTDIR;
    if (to->nlink == 0)
        return -ENOENT;
    if (check_mutable(from) < 0 || check_mutable(moved) < 0 || check_growable(to) < 0 ||
        (there && (check_mutable(to) < 0 || check_mutable(there) < 0)))
        return -EPERM;
    if (there && (rc = check_target(m, moved, there)) < 0)
        return rc;
    rc = leave_name(s, m, from, there);
    if (rc == 0)
        rc = there ? txn_replace_name(s, to, m->to_name, &m->to, moved->ino, moved->mode)
                   : txn_add_name(s, to, m->to_name, moved->ino, moved->mode);
    if (rc < 0)
        return rc;
    moved_to(s, moved, from, to);
    if (exchange) {
        moved_to(s, there, to, from);
        return 0;
    }
    return there ? replace(s, to, there) : 0;
}

static int rename_locked(struct fs_session *s, struct move *m)
{
    struct lockset locks;
    int rc = lock_move(s, m, &locks);

    if (rc < 0)
        return rc;
    rc = check_loops(s, m);
    if (rc == 0 && (m->flags & RENAME_EXCHANGE) && !m->to.ino)
        rc = -ENOENT;
    if (rc == 0 && m->from.ino == m->to.ino) { /* two names of one inode: nothing happens */
        rc = m->flags & RENAME_NOREPLACE ? -EEXIST : 0;
    } else if (rc == 0) {
        txn_begin(s);
        rc = move_in_txn(s, m);
        if (rc < 0)
            txn_abandon(s);
        else
            rc = txn_apply(s, 0);
    }
    unlock_write(&locks);
    reap_drain(s);
    return rc;
}

int fs_rename(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, uint64_t new_parent,
              const char *new_name, unsigned flags)
{
    struct move m = {.from_dir = parent, .to_dir = new_parent, .from_name = name, .to_name = new_name, .flags = flags};
    int rc = check_name(name);

    if (rc == 0)
        rc = check_name(new_name);
    if (rc < 0)
        return rc;
    if ((flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) ||
        ((flags & RENAME_EXCHANGE) && flags != RENAME_EXCHANGE))
        return -EINVAL;
    if (!is_live(parent) || !is_live(new_parent))
        return is_live(parent) || is_live(new_parent) ? -EXDEV : -EROFS;
    if (parent == FS_INO_ROOT && strcmp(name, FS_SNAPSHOTS_NAME) == 0)
        return -EPERM;
    if (new_parent == FS_INO_ROOT && strcmp(new_name, FS_SNAPSHOTS_NAME) == 0)
        return -EEXIST;
    if (flags & RENAME_WHITEOUT) {
        m.whiteout = (struct inode){.mode = S_IFCHR, .nlink = 1, .uid = cred->uid, .gid = cred->gid};
        rc = alloc_ino(s->fs, &m.whiteout.ino);
        if (rc < 0)
            return rc;
    }
    if (parent != new_parent)
        pthread_mutex_lock(&s->fs->rename_lock);
    rc = rename_locked(s, &m);
    if (parent != new_parent)
        pthread_mutex_unlock(&s->fs->rename_lock);
    return rc;
}
