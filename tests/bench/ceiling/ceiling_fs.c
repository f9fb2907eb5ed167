// SPDX-License-Identifier: MIT
/*
 * ceiling: fs.h on tables in memory (tables.h), with no store: what the kernel, libfuse and the adapter allow.
 * A benchmark's yardstick, and what the adapter is tested with. Nothing survives it; no snapshots.
 */
#include "tables.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- open and close ------------------------------------------------------------------------------ */

int fs_open(struct device *device, const struct fs_options *options, struct fs **ret_fs,
            struct store_opened *ret_opened)
{
    (void)device;
    (void)ret_opened;
    struct fs *fs = calloc(1, sizeof(*fs));
    if (!fs || !(fs->names = calloc(NAME_BUCKETS, sizeof(*fs->names)))) {
        free(fs);
        return -ENOMEM;
    }
    pthread_rwlock_init(&fs->tree, NULL);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&fs->contents[i], NULL);
    fs->next_ino = FS_INO_ROOT;
    struct inode *root = inode_new(fs, S_IFDIR | 0755, options->root_uid, options->root_gid);
    if (!root)
        return -ENOMEM;
    root->refs = 1;
    root->dir.parent = FS_INO_ROOT;
    *ret_fs = fs;
    return 0;
}

int fs_close(struct fs *fs)
{
    for (uint64_t i = 0; i < NAME_BUCKETS; i++)
        while (fs->names[i]) {
            struct name *name = fs->names[i];
            fs->names[i] = name->next;
            free(name);
        }
    for (uint64_t ino = FS_INO_ROOT; ino < fs->next_ino; ino++) {
        struct inode *inode = inode_get(fs, ino);
        if (inode) {
            inode->attr.nlink = 0;
            inode->refs = 0;
            inode_free_if_gone(fs, inode);
        }
    }
    for (unsigned i = 0; i < SLABS_MAX; i++)
        free(fs->slabs[i]);
    free(fs->names);
    free(fs);
    return 0;
}

int fs_session_open(struct fs *fs, struct fs_session **ret_session)
{
    struct fs_session *s = malloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->fs = fs;
    *ret_session = s;
    return 0;
}

void fs_session_close(struct fs_session *s)
{
    free(s);
}

/* ---- names --------------------------------------------------------------------------------------- */

static int name_check(const char *name)
{
    return strlen(name) > FS_NAME_MAX ? -ENAMETOOLONG : 0;
}

int fs_lookup(struct fs_session *s, uint64_t parent, const char *name, struct fs_attr *ret_attr)
{
    struct fs *fs = s->fs;
    int rc = name_check(name);
    if (rc)
        return rc;
    pthread_rwlock_rdlock(&fs->tree);
    if (dir_get(fs, parent, &rc)) {
        struct name *found = *name_find(fs, parent, name);
        if (!found) {
            rc = -ENOENT;
        } else {
            struct inode *inode = inode_of(fs, found);
            pthread_mutex_lock(contents_of(fs, found->ino));
            __atomic_add_fetch(&inode->refs, 1, __ATOMIC_RELAXED); /* freed only under the write lock */
            *ret_attr = inode->attr;
            pthread_mutex_unlock(contents_of(fs, found->ino));
        }
    }
    pthread_rwlock_unlock(&fs->tree);
    return rc;
}

static int make(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, mode_t mode,
                dev_t rdev, const char *target, struct fs_attr *ret_attr)
{
    struct fs *fs = s->fs;
    int rc = name_check(name);
    if (rc)
        return rc;
    char *copy = NULL;
    if (target) {
        if (strlen(target) > FS_SYMLINK_MAX)
            return -ENAMETOOLONG;
        if (!(copy = strdup(target)))
            return -ENOMEM;
    } else {
        mode &= ~(mode_t)(cred->umask & 0777);
    }
    pthread_rwlock_wrlock(&fs->tree);
    struct inode *dir = dir_get(fs, parent, &rc);
    if (dir && !dir->attr.nlink)
        rc = -ENOENT;
    else if (dir && *name_find(fs, parent, name))
        rc = -EEXIST;
    if (rc == 0) {
        gid_t gid = cred->gid;
        if (dir->attr.mode & S_ISGID) {
            gid = dir->attr.gid;
            if (S_ISDIR(mode))
                mode |= S_ISGID;
        }
        struct inode *inode = inode_new(fs, mode, cred->uid, gid);
        if (!inode || name_add(fs, dir, name, inode->attr.ino) < 0) {
            rc = -ENOMEM;
        } else {
            inode->attr.rdev = rdev;
            inode->refs = 1;
            if (copy) {
                inode->target = copy;
                inode->attr.size = strlen(copy);
                copy = NULL;
            }
            if (S_ISDIR(mode)) {
                inode->dir.parent = parent;
                dir->attr.nlink++;
            }
            *ret_attr = inode->attr;
        }
    }
    pthread_rwlock_unlock(&fs->tree);
    free(copy);
    return rc;
}

int fs_mknod(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, mode_t mode,
             dev_t rdev, struct fs_attr *ret_attr)
{
    return make(s, cred, parent, name, mode, rdev, NULL, ret_attr);
}

int fs_mkdir(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, mode_t mode,
             struct fs_attr *ret_attr)
{
    return make(s, cred, parent, name, S_IFDIR | (mode & 07777), 0, NULL, ret_attr);
}

int fs_symlink(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, const char *target,
               struct fs_attr *ret_attr)
{
    return make(s, cred, parent, name, S_IFLNK | 0777, 0, target, ret_attr);
}

int fs_link(struct fs_session *s, uint64_t ino, uint64_t parent, const char *name, struct fs_attr *ret_attr)
{
    struct fs *fs = s->fs;
    int rc = name_check(name);
    if (rc)
        return rc;
    pthread_rwlock_wrlock(&fs->tree);
    struct inode *dir = dir_get(fs, parent, &rc);
    struct inode *inode = inode_get(fs, ino);
    if (!dir)
        ;
    else if (!inode || !inode->attr.nlink || !dir->attr.nlink)
        rc = -ENOENT;
    else if (S_ISDIR(inode->attr.mode))
        rc = -EPERM;
    else if (inode->attr.nlink >= FS_LINK_MAX)
        rc = -EMLINK;
    else if (*name_find(fs, parent, name))
        rc = -EEXIST;
    else if ((rc = name_add(fs, dir, name, ino)) == 0) {
        inode->attr.nlink++;
        inode->refs++;
        now(&inode->attr.ctime);
        *ret_attr = inode->attr;
    }
    pthread_rwlock_unlock(&fs->tree);
    return rc;
}

/* Takes the last or one of several names off `inode`. */
static void unlinked(struct fs *fs, struct inode *dir, struct inode *inode)
{
    if (S_ISDIR(inode->attr.mode)) {
        inode->attr.nlink = 0;
        dir->attr.nlink--;
    } else {
        inode->attr.nlink--;
    }
    now(&inode->attr.ctime);
    inode_free_if_gone(fs, inode);
}

static int remove_name(struct fs_session *s, uint64_t parent, const char *name, bool want_dir)
{
    struct fs *fs = s->fs;
    int rc = name_check(name);
    if (rc)
        return rc;
    pthread_rwlock_wrlock(&fs->tree);
    struct inode *dir = dir_get(fs, parent, &rc);
    struct name **at = dir ? name_find(fs, parent, name) : NULL;
    if (dir && !*at)
        rc = -ENOENT;
    if (rc == 0) {
        struct inode *inode = inode_of(fs, *at);
        bool is_dir = S_ISDIR(inode->attr.mode);
        if (is_dir != want_dir) {
            rc = want_dir ? -ENOTDIR : -EISDIR;
        } else if (is_dir && inode->dir.live) {
            rc = -ENOTEMPTY;
        } else {
            name_remove(dir, at);
            unlinked(fs, dir, inode);
        }
    }
    pthread_rwlock_unlock(&fs->tree);
    return rc;
}

int fs_unlink(struct fs_session *s, uint64_t parent, const char *name)
{
    return remove_name(s, parent, name, false);
}

int fs_rmdir(struct fs_session *s, uint64_t parent, const char *name)
{
    return remove_name(s, parent, name, true);
}

static bool is_below(struct fs *fs, uint64_t ino, uint64_t ancestor)
{
    for (;;) {
        if (ino == ancestor)
            return true;
        if (ino == FS_INO_ROOT)
            return false;
        ino = inode_get(fs, ino)->dir.parent;
    }
}

static void moved(struct inode *inode, struct inode *from, struct inode *to)
{
    if (S_ISDIR(inode->attr.mode)) {
        from->attr.nlink--;
        to->attr.nlink++;
        inode->dir.parent = to->attr.ino;
    }
    now(&inode->attr.ctime);
}

static int rename_locked(struct fs *fs, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                         unsigned flags)
{
    int rc;
    struct inode *from = dir_get(fs, parent, &rc);
    if (!from)
        return rc;
    struct inode *to = dir_get(fs, new_parent, &rc);
    if (!to)
        return rc;
    struct name *source = *name_find(fs, parent, name);
    struct name *target = *name_find(fs, new_parent, new_name);
    if (!source || !to->attr.nlink || ((flags & RENAME_EXCHANGE) && !target))
        return -ENOENT;
    if ((flags & RENAME_NOREPLACE) && target)
        return -EEXIST;
    struct inode *inode = inode_of(fs, source);
    struct inode *old = target ? inode_of(fs, target) : NULL;
    if (inode == old)
        return 0;
    bool is_dir = S_ISDIR(inode->attr.mode);
    if (is_dir && is_below(fs, new_parent, inode->attr.ino))
        return -EINVAL;
    if (flags & RENAME_EXCHANGE) {
        if (S_ISDIR(old->attr.mode) && is_below(fs, parent, old->attr.ino))
            return -EINVAL;
        source->ino = old->attr.ino;
        target->ino = inode->attr.ino;
        moved(inode, from, to);
        moved(old, to, from);
        dir_touch(from);
        dir_touch(to);
        return 0;
    }
    if (old) {
        if (is_dir && !S_ISDIR(old->attr.mode))
            return -ENOTDIR;
        if (!is_dir && S_ISDIR(old->attr.mode))
            return -EISDIR;
        if (S_ISDIR(old->attr.mode) && old->dir.live)
            return -ENOTEMPTY;
        target->ino = inode->attr.ino;
        dir_touch(to);
        unlinked(fs, to, old);
    } else if ((rc = name_add(fs, to, new_name, inode->attr.ino)) < 0) {
        return rc;
    }
    name_remove(from, name_find(fs, parent, name));
    moved(inode, from, to);
    return 0;
}

int fs_rename(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name, uint64_t new_parent,
              const char *new_name, unsigned flags)
{
    (void)cred;
    int rc = name_check(name) | name_check(new_name);
    if (rc)
        return rc;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    pthread_rwlock_wrlock(&s->fs->tree);
    rc = rename_locked(s->fs, parent, name, new_parent, new_name, flags);
    pthread_rwlock_unlock(&s->fs->tree);
    return rc;
}

int fs_readlink(struct fs_session *s, uint64_t ino, char *buf, size_t len)
{
    int rc = -EINVAL;
    pthread_rwlock_rdlock(&s->fs->tree);
    struct inode *inode = inode_get(s->fs, ino);
    if (!inode) {
        rc = -ENOENT;
    } else if (S_ISLNK(inode->attr.mode)) {
        rc = (int)inode->attr.size;
        memcpy(buf, inode->target, (size_t)rc < len ? (size_t)rc : len);
    }
    pthread_rwlock_unlock(&s->fs->tree);
    return rc;
}

int fs_readdir(struct fs_session *s, uint64_t ino, uint64_t cookie, bool with_attr, fs_fill fill, void *ctx)
{
    struct fs *fs = s->fs;
    int rc;
    pthread_rwlock_rdlock(&fs->tree);
    struct inode *dir = dir_get(fs, ino, &rc);
    if (!dir)
        goto out;
    if (cookie < 1 &&
        fill(ctx, &(struct fs_dirent){.name = ".", .name_len = 1, .ino = ino, .type = S_IFDIR, .cookie = 1}))
        goto out;
    if (cookie < 2 && fill(ctx, &(struct fs_dirent){
                                    .name = "..", .name_len = 2, .ino = dir->dir.parent, .type = S_IFDIR, .cookie = 2}))
        goto out;
    for (size_t i = dir_after(dir, cookie); i < dir->dir.count; i++) {
        const struct name *name = dir->dir.names[i];
        if (!name)
            continue;
        struct inode *inode = inode_of(fs, name);
        struct fs_dirent entry = {
            .name = name->bytes,
            .name_len = name->len,
            .ino = name->ino,
            .type = inode->attr.mode & S_IFMT,
            .cookie = name->cookie,
        };
        if (with_attr) {
            pthread_mutex_lock(contents_of(fs, name->ino));
            struct fs_attr attr = inode->attr;
            pthread_mutex_unlock(contents_of(fs, name->ino));
            entry.attr = &attr;
            if (fill(ctx, &entry))
                break;
            __atomic_add_fetch(&inode->refs, 1, __ATOMIC_RELAXED);
        } else if (fill(ctx, &entry)) {
            break;
        }
    }
out:
    pthread_rwlock_unlock(&fs->tree);
    return rc;
}

/* ---- data ---------------------------------------------------------------------------------------- */

static struct inode *lock_file(struct fs *fs, uint64_t ino, int *ret_rc)
{
    pthread_rwlock_rdlock(&fs->tree);
    struct inode *inode = inode_get(fs, ino);
    *ret_rc = !inode ? -ENOENT : S_ISDIR(inode->attr.mode) ? -EISDIR : S_ISREG(inode->attr.mode) ? 0 : -EINVAL;
    if (*ret_rc) {
        pthread_rwlock_unlock(&fs->tree);
        return NULL;
    }
    pthread_mutex_lock(contents_of(fs, ino));
    return inode;
}

static void unlock_file(struct fs *fs, uint64_t ino)
{
    pthread_mutex_unlock(contents_of(fs, ino));
    pthread_rwlock_unlock(&fs->tree);
}

ssize_t fs_read(struct fs_session *s, uint64_t ino, void *buf, size_t len, uint64_t offset)
{
    int rc;
    struct inode *inode = lock_file(s->fs, ino, &rc);
    if (!inode)
        return rc;
    if (offset >= inode->attr.size)
        len = 0;
    else if (len > inode->attr.size - offset)
        len = inode->attr.size - offset;
    for (size_t done = 0; done < len;) {
        size_t index = (offset + done) / CHUNK_BYTES, at = (offset + done) % CHUNK_BYTES;
        size_t n = CHUNK_BYTES - at < len - done ? CHUNK_BYTES - at : len - done;
        const char *chunk = index < inode->file.count ? inode->file.chunks[index] : NULL;
        size_t have = index == 0 ? inode->file.first_bytes : CHUNK_BYTES;
        have = chunk && at < have ? have - at : 0;
        if (have > n)
            have = n;
        if (have)
            memcpy((char *)buf + done, chunk + at, have);
        memset((char *)buf + done + have, 0, n - have);
        done += n;
    }
    unlock_file(s->fs, ino);
    return (ssize_t)len;
}

static void kill_priv(struct fs_attr *attr, unsigned kill)
{
    if (!S_ISDIR(attr->mode) && (kill & FS_KILL_PRIV))
        attr->mode &= ~(mode_t)(S_ISUID | (attr->mode & S_IXGRP ? S_ISGID : 0));
    if (!S_ISDIR(attr->mode) && (kill & FS_KILL_SGID))
        attr->mode &= ~(mode_t)S_ISGID;
}

ssize_t fs_write(struct fs_session *s, uint64_t ino, const void *buf, size_t len, uint64_t offset, unsigned flags)
{
    if (offset + len > CEILING_SIZE_MAX)
        return -EFBIG;
    int rc;
    struct inode *inode = lock_file(s->fs, ino, &rc);
    if (!inode)
        return rc;
    for (size_t done = 0; done < len && rc == 0;) {
        size_t index = (offset + done) / CHUNK_BYTES, at = (offset + done) % CHUNK_BYTES;
        size_t n = CHUNK_BYTES - at < len - done ? CHUNK_BYTES - at : len - done;
        if (!file_room(inode, index, at + n))
            rc = -ENOSPC;
        else
            memcpy(inode->file.chunks[index] + at, (const char *)buf + done, n);
        done += n;
    }
    if (rc == 0) {
        if (offset + len > inode->attr.size)
            inode->attr.size = offset + len;
        kill_priv(&inode->attr, flags);
        now(&inode->attr.mtime);
        inode->attr.ctime = inode->attr.mtime;
    }
    unlock_file(s->fs, ino);
    return rc ? rc : (ssize_t)len;
}

/* ---- inodes -------------------------------------------------------------------------------------- */

int fs_getattr(struct fs_session *s, uint64_t ino, struct fs_attr *ret_attr)
{
    struct fs *fs = s->fs;
    pthread_rwlock_rdlock(&fs->tree);
    struct inode *inode = inode_get(fs, ino);
    if (inode) {
        pthread_mutex_lock(contents_of(fs, ino));
        *ret_attr = inode->attr;
        pthread_mutex_unlock(contents_of(fs, ino));
    }
    pthread_rwlock_unlock(&fs->tree);
    return inode ? 0 : -ENOENT;
}

int fs_setattr(struct fs_session *s, uint64_t ino, const struct fs_attr *attr, unsigned set, struct fs_attr *ret_attr)
{
    struct fs *fs = s->fs;
    int rc = 0;
    pthread_rwlock_wrlock(&fs->tree);
    struct inode *inode = inode_get(fs, ino);
    if (!inode) {
        rc = -ENOENT;
    } else if ((set & FS_SET_SIZE) && !S_ISREG(inode->attr.mode)) {
        rc = S_ISDIR(inode->attr.mode) ? -EISDIR : -EINVAL;
    } else if ((set & FS_SET_SIZE) && attr->size > CEILING_SIZE_MAX) {
        rc = -EFBIG;
    } else {
        struct fs_attr *a = &inode->attr;
        now(&a->ctime);
        if (set & FS_SET_MODE)
            a->mode = (a->mode & S_IFMT) | (attr->mode & 07777);
        if (set & FS_SET_UID)
            a->uid = attr->uid;
        if (set & FS_SET_GID)
            a->gid = attr->gid;
        kill_priv(a, set);
        if (set & FS_SET_SIZE) {
            file_cut(inode, attr->size);
            a->size = attr->size;
            a->mtime = a->ctime;
        }
        if (set & FS_SET_ATIME)
            a->atime = attr->atime;
        if (set & FS_SET_MTIME)
            a->mtime = attr->mtime;
        if (set & FS_SET_ATIME_NOW)
            a->atime = a->ctime;
        if (set & FS_SET_MTIME_NOW)
            a->mtime = a->ctime;
        if (set & FS_SET_CTIME)
            a->ctime = attr->ctime;
        if (ret_attr)
            *ret_attr = *a;
    }
    pthread_rwlock_unlock(&fs->tree);
    return rc;
}

void fs_forget(struct fs_session *s, uint64_t ino, uint64_t count)
{
    struct fs *fs = s->fs;
    if (ino == FS_INO_ROOT)
        return;
    pthread_rwlock_wrlock(&fs->tree);
    struct inode *inode = inode_get(fs, ino);
    if (!inode || inode->refs < count) {
        fprintf(stderr, "ceiling: inode %llu: %llu references given back that it has not\n", (unsigned long long)ino,
                (unsigned long long)count);
        abort();
    }
    inode->refs -= count;
    inode_free_if_gone(fs, inode);
    pthread_rwlock_unlock(&fs->tree);
}

/* ---- the whole ----------------------------------------------------------------------------------- */

int fs_sync(struct fs *fs)
{
    (void)fs;
    return 0;
}

int fs_statfs(struct fs_session *s, struct fs_statfs *ret_statfs)
{
    *ret_statfs =
        (struct fs_statfs){.total_bytes = (uint64_t)64 << 30, .free_bytes = (uint64_t)60 << 30, .files = s->fs->inodes};
    return 0;
}
