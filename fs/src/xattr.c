// SPDX-License-Identifier: MIT
/*
 * Extended attributes: a table for each inode that has any, values too long for it in records of their own.
 *
 * Invariants, under the inode's lock:
 *   1. INODE_XATTRS says that there is a table, and a table is never empty: an inode without attributes is
 *      answered for without a look at the store.
 *   2. INODE_ACCESS_ACL, INODE_DEFAULT_ACL and INODE_CAPABILITY say that these attributes are in it.
 *   3. A value has a record of its own exactly if the table says so.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define REMOVE_AT_ONCE 64u /* values per unit */

static const char TRUSTED[] = "trusted.";

/* 0 if the name is one that a file can have. */
static int check_name_of(const char *name)
{
    static const char *const prefixes[] = {"user.", TRUSTED, "security."};

    if (strlen(name) > FS_NAME_MAX)
        return -ERANGE;
    if (strcmp(name, FS_ACL_ACCESS) == 0 || strcmp(name, FS_ACL_DEFAULT) == 0)
        return 0;
    for (unsigned i = 0; i < 3; i++) {
        size_t len = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], len) == 0)
            return name[len] ? 0 : -EINVAL;
    }
    return -EOPNOTSUPP;
}

uint32_t xattr_flag(const char *name, size_t len)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } flags[] = {
        {FS_ACL_ACCESS, INODE_ACCESS_ACL}, {FS_ACL_DEFAULT, INODE_DEFAULT_ACL}, {FS_CAPABILITY, INODE_CAPABILITY}};

    for (unsigned i = 0; i < 3; i++)
        if (strlen(flags[i].name) == len && memcmp(flags[i].name, name, len) == 0)
            return flags[i].flag;
    return 0;
}

/* ---- the table --------------------------------------------------------------------------------------- */

int xattrs_load(struct fs_session *s, const struct view *view, const struct inode *inode)
{
    struct fs_key key = key_xattrs(inode->ino);

    if (!s->xattrs)
        s->xattrs = malloc(sizeof *s->xattrs);
    if (!s->xattrs)
        return -ENOMEM;
    s->xattrs->len = 0;
    if (!(inode->flags & INODE_XATTRS))
        return 0;
    int rc = get_value(s, view->snapshot, &key, s->xattrs->table, sizeof s->xattrs->table, &s->xattrs->len);
    return rc == -ENOENT || (rc == 0 && s->xattrs->len == 0) ? -EIO : rc;
}

/* Where the attribute begins, and the next; -ENODATA: it is not there. */
static int find(const struct xattr_space *x, const char *name, struct xattr *ret_xattr, uint32_t *ret_next)
{
    size_t name_len = strlen(name);

    for (uint32_t at = 0; at < x->len; at = *ret_next) {
        int next = xattr_next(x->table, x->len, at, ret_xattr);
        if (next < 0)
            return next;
        *ret_next = (uint32_t)next;
        if (ret_xattr->name_len == name_len && memcmp(ret_xattr->name, name, name_len) == 0)
            return (int)at;
    }
    return -ENODATA;
}

int xattrs_get(struct fs_session *s, const struct view *view, const char *name, void *buf, uint32_t room,
               uint32_t *ret_len)
{
    struct fs_key key = key_xattr(view->ino, name, strlen(name));
    struct xattr found;
    uint32_t next;
    int rc = find(s->xattrs, name, &found, &next);

    if (rc < 0)
        return rc;
    uint32_t len = found.value_len;
    if (room > 0 && found.value) {
        memcpy(buf, found.value, len < room ? len : room);
    } else if (room > 0) {
        rc = get_value(s, view->snapshot, &key, buf, room < len ? len : room, &len);
        if (rc < 0 || len != found.value_len)
            return rc == -ENOENT || rc >= 0 ? -EIO : rc;
    }
    *ret_len = found.value_len;
    return 0;
}

/* Takes the attribute out of the table; *ret_apart: its value is a record. */
static int take_out(struct xattr_space *x, const char *name, bool *ret_apart)
{
    struct xattr found;
    uint32_t next;
    int at = find(x, name, &found, &next);

    if (at < 0)
        return at;
    *ret_apart = !found.value;
    memmove(x->table + at, x->table + next, x->len - next);
    x->len -= next - (uint32_t)at;
    return 0;
}

int xattrs_put(struct fs_session *s, struct inode *inode, const char *name, const void *value, uint32_t len)
{
    struct xattr_space *x = s->xattrs;
    struct xattr added = {.name = name, .name_len = strlen(name), .value_len = len};
    struct fs_key key = key_xattr(inode->ino, name, added.name_len);
    bool was_apart = false;
    int rc = take_out(x, name, &was_apart);

    if (rc < 0 && rc != -ENODATA)
        return rc;
    uint32_t bytes = XATTR_HEADER_BYTES + (uint32_t)added.name_len;
    if (bytes > sizeof x->table - x->len)
        return -ENOSPC;
    if (len <= FS_XATTR_INLINE && bytes + len <= sizeof x->table - x->len)
        added.value = len > 0 ? value : (const uint8_t *)"";
    x->len = xattr_append(x->table, x->len, &added);
    inode->flags |= xattr_flag(name, added.name_len);
    if (!added.value)
        return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){value, len}, 1, 0);
    return was_apart ? store_unit_delete(s->store, key.bytes, key.len) : 0;
}

int xattrs_drop(struct fs_session *s, struct inode *inode, const char *name)
{
    struct fs_key key = key_xattr(inode->ino, name, strlen(name));
    bool apart = false;
    int rc = take_out(s->xattrs, name, &apart);

    if (rc < 0)
        return rc;
    inode->flags &= ~xattr_flag(name, strlen(name));
    return apart ? store_unit_delete(s->store, key.bytes, key.len) : 0;
}

int xattrs_store(struct fs_session *s, struct inode *inode)
{
    struct fs_key key = key_xattrs(inode->ino);
    bool existed = inode->flags & INODE_XATTRS;

    if (s->xattrs->len == 0) {
        inode->flags &= ~(uint32_t)INODE_XATTRS;
        return existed ? store_unit_delete(s->store, key.bytes, key.len) : 0;
    }
    inode->flags |= INODE_XATTRS;
    return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){s->xattrs->table, s->xattrs->len}, 1,
                             0);
}

int xattrs_remove(struct fs_session *s, const struct inode *inode)
{
    struct xattr xattr;
    uint32_t at = 0;
    int rc = xattrs_load(s, &(struct view){.ino = inode->ino}, inode);

    while (rc == 0 && at < s->xattrs->len) {
        unsigned count = 0;
        store_unit_begin(s->store);
        while (rc == 0 && at < s->xattrs->len && count < REMOVE_AT_ONCE) {
            int next = xattr_next(s->xattrs->table, s->xattrs->len, at, &xattr);
            if (next < 0) {
                rc = next;
                break;
            }
            at = (uint32_t)next;
            if (!xattr.value) {
                struct fs_key key = key_xattr(inode->ino, xattr.name, xattr.name_len);
                rc = store_unit_delete(s->store, key.bytes, key.len);
                count++;
            }
        }
        if (rc < 0 || count == 0)
            store_unit_abandon(s->store);
        else
            rc = store_unit_apply(s->store, STORE_UNIT_FREES);
    }
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

/* Locks the inode and loads its table, until leave(); -ENODATA: it has none. */
static int enter(struct fs_session *s, const struct view *view)
{
    struct inode inode;

    if (!view->snapshot)
        lock_read(s->fs, view->ino);
    int rc = get_inode(s, view, &inode);
    if (rc < 0)
        return rc;
    return inode.flags & INODE_XATTRS ? xattrs_load(s, view, &inode) : -ENODATA;
}

static void leave(struct fs_session *s, const struct view *view)
{
    if (!view->snapshot)
        unlock_read(s->fs, view->ino);
    view_put(s, view);
}

ssize_t fs_getxattr(struct fs_session *s, uint64_t ino, const char *name, void *buf, size_t len)
{
    struct view view;
    uint32_t got = 0;
    int rc = check_name_of(name);

    if (rc < 0)
        return rc;
    if (ino == FS_INO_SNAPSHOTS)
        return -ENODATA;
    if (len > FS_XATTR_VALUE_MAX)
        len = FS_XATTR_VALUE_MAX;
    rc = view_get(s, ino, &view);
    if (rc < 0)
        return rc;
    rc = enter(s, &view);
    if (rc == 0) /* the length first: the value may be a record of its own */
        rc = xattrs_get(s, &view, name, NULL, 0, &got);
    if (rc == 0 && len > 0)
        rc = got > len ? -ERANGE : xattrs_get(s, &view, name, buf, (uint32_t)len, &got);
    leave(s, &view);
    return rc < 0 ? rc : (ssize_t)got;
}

ssize_t fs_listxattr(struct fs_session *s, uint64_t ino, bool trusted, char *buf, size_t len)
{
    struct view view;
    struct xattr xattr;
    size_t used = 0;

    if (ino == FS_INO_SNAPSHOTS)
        return 0;
    int rc = view_get(s, ino, &view);
    if (rc < 0)
        return rc;
    rc = enter(s, &view);
    for (uint32_t at = 0; rc == 0 && at < s->xattrs->len;) {
        int next = xattr_next(s->xattrs->table, s->xattrs->len, at, &xattr);
        at = (uint32_t)next;
        if (next < 0) {
            rc = next;
        } else if (trusted || xattr.name_len < strlen(TRUSTED) || memcmp(xattr.name, TRUSTED, strlen(TRUSTED)) != 0) {
            if (len > 0 && xattr.name_len + 1 > len - used) {
                rc = -ERANGE;
            } else if (len > 0) {
                memcpy(buf + used, xattr.name, xattr.name_len);
                buf[used + xattr.name_len] = 0;
            }
            used += xattr.name_len + 1;
        }
    }
    leave(s, &view);
    return rc == -ENODATA ? 0 : rc < 0 ? rc : (ssize_t)used;
}

/* ---- changing ---------------------------------------------------------------------------------------- */

/* An access ACL changes the mode, and is not kept if the mode says it all. 1: drop it. */
static int set_acl(struct inode *inode, const char *name, const void *value, uint32_t len, unsigned kill)
{
    int rc = acl_check(value, len);

    if (rc < 0)
        return rc;
    if (S_ISLNK(inode->mode))
        return -EOPNOTSUPP;
    if (strcmp(name, FS_ACL_DEFAULT) == 0)
        return S_ISDIR(inode->mode) ? rc : -EACCES;
    if (rc == 0 && acl_mode(value, len, &inode->mode))
        rc = 1;
    if (kill & FS_KILL_SGID)
        inode->mode &= ~(uint32_t)S_ISGID;
    return rc;
}

/* value NULL: remove. */
static int change(struct fs_session *s, struct inode *inode, const char *name, const void *value, uint32_t len,
                  int flags, unsigned kill)
{
    struct xattr found;
    uint32_t next;
    bool drop = !value;
    int rc = check_mutable(inode);

    if (rc == 0)
        rc = xattrs_load(s, &(struct view){.ino = inode->ino}, inode);
    if (rc < 0)
        return rc;
    int there = find(s->xattrs, name, &found, &next);
    if (there < 0 && there != -ENODATA)
        return there;
    if (there >= 0 && (flags & XATTR_CREATE))
        return -EEXIST;
    if (there < 0 && (drop || (flags & XATTR_REPLACE)))
        return -ENODATA;
    if (value && (xattr_flag(name, strlen(name)) & (INODE_ACCESS_ACL | INODE_DEFAULT_ACL))) {
        rc = set_acl(inode, name, value, len, kill);
        if (rc < 0)
            return rc;
        drop = rc > 0;
    }
    rc = drop ? xattrs_drop(s, inode, name) : xattrs_put(s, inode, name, value, len);
    if (rc == -ENODATA) /* an ACL that says nothing, on a file that has none */
        rc = 0;
    if (rc == 0)
        rc = xattrs_store(s, inode);
    inode->ctime = s->txn.now;
    txn_dirty(s, inode);
    return rc;
}

static int change_locked(struct fs_session *s, uint64_t ino, const char *name, const void *value, size_t len, int flags,
                         unsigned kill)
{
    struct lockset locks;
    struct inode *inode;
    int rc = check_name_of(name);

    if (rc < 0)
        return rc;
    if (!is_live(ino))
        return -EROFS;
    lock_write(s->fs, &locks, &ino, 1);
    txn_begin(s);
    rc = txn_inode(s, ino, &inode);
    if (rc == 0)
        rc = change(s, inode, name, value, (uint32_t)len, flags, kill);
    if (rc < 0)
        txn_abandon(s);
    else
        rc = txn_apply(s, value ? 0 : STORE_UNIT_FREES);
    unlock_write(&locks);
    return rc;
}

int fs_setxattr(struct fs_session *s, uint64_t ino, const char *name, const void *value, size_t len, int flags,
                unsigned kill)
{
    if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (len > FS_XATTR_VALUE_MAX)
        return -E2BIG;
    return change_locked(s, ino, name, value ? value : "", len, flags, kill);
}

int fs_removexattr(struct fs_session *s, uint64_t ino, const char *name)
{
    return change_locked(s, ino, name, NULL, 0, 0, 0);
}
