// SPDX-License-Identifier: MIT
/* Calls on one inode that are not about its data: attributes, symlinks, references. */
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

int check_mutable(const struct inode *inode)
{
    return inode->user_flags & (FS_FLAG_IMMUTABLE | FS_FLAG_APPEND) ? -EPERM : 0;
}

int check_growable(const struct inode *inode)
{
    return inode->user_flags & FS_FLAG_IMMUTABLE ? -EPERM : 0;
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
    if (rc == -ENODATA) /* the inode says that it is there */
        rc = -EIO;
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
        if (rc == 0)
            rc = acl_chmod(acl, len, inode->mode);
        if (rc == 0)
            rc = xattrs_put(s, inode, FS_ACL_ACCESS, acl, len);
    }
    if (rc == -ENODATA) /* the inode says that it is there */
        rc = -EIO;
    if (rc == 0 && (chmod || kill))
        rc = xattrs_store(s, inode);
    return rc;
}

/* Times may be set to now where a file may grow: that is what growing does. */
static int check_set(const struct inode *inode, const struct fs_attr *attr, unsigned set)
{
    const unsigned grows = FS_SET_ATIME_NOW | FS_SET_MTIME_NOW | FS_SET_CTIME | FS_KILL_PRIV | FS_KILL_SGID;

    if (set & FS_SET_FLAGS)
        return set != FS_SET_FLAGS ? -EINVAL : attr->flags & ~(uint32_t)FS_FLAGS ? -EOPNOTSUPP : 0;
    return set & ~grows ? check_mutable(inode) : set ? check_growable(inode) : 0;
}

int attr_set(struct fs_session *s, struct inode *inode, const struct fs_attr *attr, unsigned set)
{
    const struct timespec *now = &s->txn.now;
    int rc = check_set(inode, attr, set);

    if (rc < 0)
        return rc;

    if (set & FS_SET_MODE)
        inode->mode = (inode->mode & S_IFMT) | (attr->mode & 07777);
    if (set & FS_SET_UID)
        inode->uid = attr->uid;
    if (set & FS_SET_GID)
        inode->gid = attr->gid;
    if (set & FS_SET_FLAGS)
        inode->user_flags = attr->flags;
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

    if (inode->user_flags & FS_FLAG_NOATIME)
        return false;
    if (fs->options.atime != FS_ATIME_RELATIVE)
        return fs->options.atime == FS_ATIME_ALWAYS;
    return !is_after(a, m) || !is_after(a, c) || a->tv_sec <= now->tv_sec - 24 * 60 * 60;
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
