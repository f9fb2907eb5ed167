// SPDX-License-Identifier: MIT
/*
 * Calls on names: lookup, create, link, unlink, rename.
 *
 * A call that needs the inode behind a name peeks at the entry, locks directory and inode together, and
 * looks again: if the name means something else by then, it begins anew.
 */
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int check_name(const char *name)
{
    size_t len = strlen(name);

    if (len > FS_NAME_MAX)
        return -ENAMETOOLONG;
    return name_is_sound(name, len) ? 0 : -EINVAL;
}

static bool is_snapshots_name(uint64_t parent, const char *name)
{
    return parent == FS_INO_ROOT && strcmp(name, FS_SNAPSHOTS_NAME) == 0;
}

/* What every call that changes the name checks first. */
static int check_change(uint64_t parent, const char *name)
{
    int rc = check_name(name);

    if (rc < 0)
        return rc;
    if (!is_live(parent))
        return -EROFS;
    return 0;
}

static int attr_of(struct fs_session *s, const struct view *view, struct fs_attr *ret_attr)
{
    struct inode inode;
    int rc = get_inode(s, view, &inode);

    if (rc < 0)
        return rc;
    inode_attr(&inode, ret_attr);
    view_attr(view, ret_attr);
    return 0;
}

int why_absent(struct fs_session *s, const struct view *dir)
{
    struct inode inode;
    int rc = get_inode(s, dir, &inode);

    return rc == 0 && !S_ISDIR(inode.mode) ? -ENOTDIR : rc < 0 ? rc : -ENOENT;
}

/* ---- lookup ---------------------------------------------------------------------------------------- */

static int lookup_name(struct fs_session *s, const struct view *dir, const char *name, uint64_t *ret_ino)
{
    struct inode inode;
    struct entry entry;
    int rc;

    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        rc = get_inode(s, dir, &inode);
        if (rc == 0 && name[1] && !S_ISDIR(inode.mode))
            return -ENOTDIR;
        if (rc == 0 && inode.nlink == 0)
            rc = -ENOENT;
        *ret_ino = name[1] ? inode.parent : dir->ino;
        return rc;
    }
    rc = get_entry(s, dir, name, &entry);
    if (rc == 0)
        *ret_ino = entry.ino;
    return rc == -ENOENT ? why_absent(s, dir) : rc;
}

static int lookup_in(struct fs_session *s, const struct view *dir, const char *name, struct fs_attr *ret_attr)
{
    struct view child = *dir;
    uint64_t none;
    if (dir->snapshot && dir->ino == FS_INO_ROOT && strcmp(name, "..") == 0)
        return snapshots_getattr(s, ret_attr);
    int rc = lookup_name(s, dir, name, &child.ino);

    if (rc == 0 && !dir->snapshot)
        rc = ref_get(s->fs, child.ino);
    if (rc < 0)
        return rc;
    rc = attr_of(s, &child, ret_attr);
    if (rc < 0 && !dir->snapshot)
        (void)ref_put(s->fs, child.ino, 1, &none); /* it has a name: never an orphan */
    return rc;
}

int fs_lookup(struct fs_session *s, uint64_t parent, const char *name, struct fs_attr *ret_attr)
{
    struct view dir;

    if (strlen(name) > FS_NAME_MAX)
        return -ENAMETOOLONG;
    if (parent == FS_INO_SNAPSHOTS)
        return snapshots_lookup(s, name, ret_attr);
    if (is_snapshots_name(parent, name))
        return snapshots_getattr(s, ret_attr);
    int rc = view_get(s, parent, &dir);
    if (rc < 0)
        return rc;
    if (!dir.snapshot)
        lock_read(s->fs, parent); /* the name stays while the reference is taken */
    rc = lookup_in(s, &dir, name, ret_attr);
    if (!dir.snapshot)
        unlock_read(s->fs, parent);
    view_put(s, &dir);
    return rc;
}

/* ---- making ----------------------------------------------------------------------------------------- */

/* The directory, fit to take a new name that is not there yet. Inside a txn. */
static int dir_for_new(struct fs_session *s, uint64_t parent, const char *name, struct inode **ret_dir)
{
    struct entry entry;
    int rc = txn_inode(s, parent, ret_dir);

    if (rc < 0)
        return rc;
    if (!S_ISDIR((*ret_dir)->mode))
        return -ENOTDIR;
    rc = get_entry(s, &(struct view){.ino = parent}, name, &entry);
    if (rc != -ENOENT)
        return rc < 0 ? rc : -EEXIST;
    if ((*ret_dir)->nlink == 0) /* removed, and still somebody's working directory */
        return -ENOENT;
    return check_growable(*ret_dir);
}

static int init_inode(struct fs_session *s, const struct fs_cred *cred, const struct inode *dir, mode_t mode,
                      struct inode *inode)
{
    inode->mode = mode;
    inode->uid = cred->uid;
    inode->gid = cred->gid;
    if (dir->mode & S_ISGID) {
        inode->gid = dir->gid;
        if (S_ISDIR(mode))
            inode->mode |= S_ISGID;
    }
    inode->nlink = S_ISDIR(mode) ? 2 : 1;
    inode->parent = S_ISDIR(mode) ? dir->ino : 0;
    inode->atime = inode->mtime = inode->ctime = inode->btime = s->txn.now;
    return acl_inherit(s, dir, cred->umask, inode);
}

static int make_in_txn(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name,
                       struct inode *inode, const char *target)
{
    struct inode *dir;
    int rc = dir_for_new(s, parent, name, &dir);

    if (rc < 0)
        return rc;
    rc = init_inode(s, cred, dir, inode->mode, inode);
    if (rc < 0)
        return rc;
    if (target) {
        inode->size = strlen(target);
        inode->flags |= INODE_INLINE;
    }
    if (S_ISDIR(inode->mode))
        dir->nlink++;
    rc = txn_add_name(s, dir, name, inode->ino, inode->mode);
    if (rc < 0)
        return rc;
    struct inode *added = txn_new_inode(s, inode);
    if (target)
        memcpy(txn_contents(s, added), target, inode->size);
    return 0;
}

static int make(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, mode_t mode,
                dev_t rdev, const char *target, struct fs_attr *ret_attr)
{
    struct inode inode = {.mode = mode, .rdev = rdev};
    struct lockset locks;
    uint64_t none;
    int rc = check_change(parent, name);

    if (rc == 0 && is_snapshots_name(parent, name))
        rc = -EEXIST;
    if (rc == 0)
        rc = alloc_ino(s->fs, &inode.ino);
    if (rc == 0)
        rc = ref_get(s->fs, inode.ino);
    if (rc < 0)
        return rc;
    lock_write(s->fs, &locks, &parent, 1);
    txn_begin(s);
    rc = make_in_txn(s, cred, parent, name, &inode, target);
    if (rc < 0)
        txn_abandon(s);
    else
        rc = txn_apply(s, 0);
    unlock_write(&locks);
    if (rc < 0)
        (void)ref_put(s->fs, inode.ino, 1, &none);
    else
        inode_attr(&inode, ret_attr);
    return rc;
}

int fs_mknod(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, mode_t mode,
             dev_t rdev, struct fs_attr *ret_attr)
{
    if ((mode & S_IFMT) == 0)
        mode |= S_IFREG;
    if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode) && !S_ISCHR(mode) && !S_ISBLK(mode))
        return -EINVAL;
    return make(s, cred, parent, name, mode & (S_IFMT | 07777), S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0, NULL,
                ret_attr);
}

int fs_mkdir(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, mode_t mode,
             struct fs_attr *ret_attr)
{
    if (parent == FS_INO_SNAPSHOTS)
        return snapshots_create(s, name, ret_attr);
    return make(s, cred, parent, name, S_IFDIR | (mode & 07777), 0, NULL, ret_attr);
}

int fs_symlink(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name,
               const char *target, struct fs_attr *ret_attr)
{
    if (strlen(target) > FS_SYMLINK_MAX)
        return -ENAMETOOLONG;
    if (target[0] == 0)
        return -ENOENT;
    return make(s, cred, parent, name, S_IFLNK | 0777, 0, target, ret_attr);
}

/* ---- files without a name ------------------------------------------------------------------------------ */

static int tmpfile_in_txn(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, struct inode *inode)
{
    struct inode *dir;
    int rc = txn_inode(s, parent, &dir);

    if (rc < 0)
        return rc;
    if (!S_ISDIR(dir->mode))
        return -ENOTDIR;
    if (dir->nlink == 0)
        return -ENOENT;
    rc = init_inode(s, cred, dir, inode->mode, inode);
    if (rc < 0)
        return rc;
    inode->flags |= INODE_LINKABLE;
    struct inode *added = txn_new_inode(s, inode);
    rc = txn_orphan(s, added);
    *inode = *added;
    return rc;
}

int fs_tmpfile(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, mode_t mode,
               struct fs_attr *ret_attr)
{
    struct inode inode = {.mode = S_IFREG | (mode & 07777)};
    struct lockset locks;
    uint64_t none;

    if (!is_live(parent))
        return -EROFS;
    int rc = alloc_ino(s->fs, &inode.ino);
    if (rc == 0)
        rc = ref_get(s->fs, inode.ino);
    if (rc < 0)
        return rc;
    lock_write(s->fs, &locks, (uint64_t[]){parent, inode.ino}, 2);
    txn_begin(s);
    rc = tmpfile_in_txn(s, cred, parent, &inode);
    if (rc < 0)
        txn_abandon(s);
    else
        rc = txn_apply(s, 0);
    unlock_write(&locks);
    if (rc < 0)
        (void)ref_put(s->fs, inode.ino, 1, &none);
    else
        inode_attr(&inode, ret_attr);
    return rc;
}

/* ---- link ------------------------------------------------------------------------------------------- */

static int link_in_txn(struct fs_session *s, uint64_t ino, uint64_t parent, const char *name, struct inode **ret_inode)
{
    struct inode *dir;
    int rc = dir_for_new(s, parent, name, &dir);

    if (rc == 0)
        rc = txn_inode(s, ino, ret_inode);
    if (rc < 0)
        return rc;
    if (S_ISDIR((*ret_inode)->mode) || check_mutable(*ret_inode) < 0)
        return -EPERM;
    if ((*ret_inode)->nlink == 0 && !((*ret_inode)->flags & INODE_LINKABLE))
        return -ENOENT;
    if ((*ret_inode)->nlink == 0 && (rc = txn_adopt(s, *ret_inode)) < 0)
        return rc;
    (*ret_inode)->flags &= ~(uint32_t)INODE_LINKABLE;
    if ((*ret_inode)->nlink >= FS_LINK_MAX)
        return -EMLINK;
    (*ret_inode)->nlink++;
    (*ret_inode)->ctime = s->txn.now;
    txn_dirty(s, *ret_inode);
    return txn_add_name(s, dir, name, ino, (*ret_inode)->mode);
}

int fs_link(struct fs_session *s, uint64_t ino, uint64_t parent, const char *name, struct fs_attr *ret_attr)
{
    struct lockset locks;
    struct inode *inode = NULL;
    int rc = check_change(parent, name);

    if (rc == 0 && is_snapshots_name(parent, name))
        rc = -EEXIST;
    if (rc == 0 && !is_live(ino))
        rc = -EXDEV;
    if (rc < 0)
        return rc;
    rc = ref_get(s->fs, ino);
    if (rc < 0)
        return rc;
    lock_write(s->fs, &locks, (uint64_t[]){ino, parent}, 2);
    txn_begin(s);
    rc = link_in_txn(s, ino, parent, name, &inode);
    if (rc < 0)
        txn_abandon(s);
    else
        rc = txn_apply(s, 0);
    if (rc == 0)
        inode_attr(inode, ret_attr);
    unlock_write(&locks);
    if (rc < 0)
        fs_forget(s, ino, 1);
    return rc;
}

/* ---- unlink, rmdir ------------------------------------------------------------------------------------ */

/* A name of the inode went away. */
static int drop_link(struct fs_session *s, struct inode *dir, struct inode *inode)
{
    inode->ctime = s->txn.now;
    txn_dirty(s, inode);
    if (S_ISDIR(inode->mode)) {
        dir->nlink--;
        return txn_orphan(s, inode);
    }
    if (inode->nlink > 1) {
        inode->nlink--;
        return 0;
    }
    return txn_orphan(s, inode);
}

static int remove_in_txn(struct fs_session *s, uint64_t parent, const char *name, const struct entry *entry,
                         bool directory)
{
    struct inode *dir, *inode;
    int rc = txn_inode(s, parent, &dir);

    if (rc == 0)
        rc = txn_inode(s, entry->ino, &inode);
    if (rc < 0)
        return rc == -ESTALE ? -EIO : rc;
    if (directory && !S_ISDIR(inode->mode))
        return -ENOTDIR;
    if (!directory && S_ISDIR(inode->mode))
        return -EISDIR;
    if (check_mutable(dir) < 0 || check_mutable(inode) < 0)
        return -EPERM;
    if (directory && inode->entries > 0)
        return -ENOTEMPTY;
    rc = txn_remove_name(s, dir, name, entry);
    return rc < 0 ? rc : drop_link(s, dir, inode);
}

/* Locks `parent`, the inode behind the name, and finds the entry. -ENOENT, or locked. */
static int lock_name(struct fs_session *s, uint64_t parent, const char *name, struct lockset *locks,
                     struct entry *ret_entry)
{
    struct view dir = {.ino = parent};
    struct entry peek;

    for (;;) {
        int rc = get_entry(s, &dir, name, &peek);
        if (rc < 0)
            return rc == -ENOENT ? why_absent(s, &dir) : rc;
        lock_write(s->fs, locks, (uint64_t[]){parent, peek.ino}, 2);
        rc = get_entry(s, &dir, name, ret_entry);
        if (rc == 0 && ret_entry->ino == peek.ino)
            return 0;
        unlock_write(locks);
        if (rc < 0)
            return rc;
    }
}

static int remove_name(struct fs_session *s, uint64_t parent, const char *name, bool directory)
{
    struct lockset locks;
    struct entry entry;
    int rc = check_change(parent, name);

    if (rc == 0 && is_snapshots_name(parent, name))
        rc = directory ? -EPERM : -EISDIR;
    if (rc == 0)
        rc = lock_name(s, parent, name, &locks, &entry);
    if (rc < 0)
        return rc;
    txn_begin(s);
    rc = remove_in_txn(s, parent, name, &entry, directory);
    if (rc < 0)
        txn_abandon(s);
    else
        rc = txn_apply(s, STORE_UNIT_FREES);
    unlock_write(&locks);
    reap_drain(s);
    return rc;
}

int fs_unlink(struct fs_session *s, uint64_t parent, const char *name)
{
    if (parent == FS_INO_SNAPSHOTS)
        return -EISDIR;
    return remove_name(s, parent, name, false);
}

int fs_rmdir(struct fs_session *s, uint64_t parent, const char *name)
{
    if (parent == FS_INO_SNAPSHOTS)
        return snapshots_delete(s, name);
    if (strcmp(name, "..") == 0)
        return -ENOTEMPTY;
    return remove_name(s, parent, name, true);
}
