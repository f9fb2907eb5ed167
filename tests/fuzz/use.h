// SPDX-License-Identifier: MIT
/*
 * All that a daemon does with a store or a filesystem, done to one that somebody made to do harm. Nothing is expected of
 * the results but that the calls return: memory is watched by the sanitizers, time by whoever calls.
 */
#ifndef TESTS_FUZZ_USE_H
#define TESTS_FUZZ_USE_H

#include <fcntl.h>
#include <fs/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

static const struct store_options use_tiny = {
    .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

/* ---- a store -------------------------------------------------------------------------------------------- */

static uint8_t use_buf[70000];

static inline int use_note_key(void *ctx, const struct store_item *item)
{
    struct store_session *s = ctx;
    uint32_t len;
    int rc = store_get(s, item->key, item->key_len, use_buf, sizeof use_buf, &len);

    (void)rc;
    return 0;
}

struct use_snapshots {
    uint64_t ids[8];
    unsigned count;
};

static inline int use_note_snapshot(void *ctx, const struct store_snapshot_info *info)
{
    struct use_snapshots *seen = ctx;

    if (seen->count < 8)
        seen->ids[seen->count++] = info->id;
    return 0;
}

static inline void use_key(struct store_session *s, const char *key)
{
    struct store_patch patch = {.offset = 3, .len = 9, .bytes = "nine more", .cut = STORE_PATCH_KEEP};
    uint32_t key_len = (uint32_t)strlen(key), len;
    int rc = store_get(s, key, key_len, use_buf, sizeof use_buf, &len);

    rc = store_rmw(s, key, key_len, &STORE_PATCH, &patch);
    rc = store_insert(s, key, key_len, "inserted", 8);
    rc = store_upsert(s, key, key_len, use_buf, 100);
    rc = store_delete(s, key, key_len);
    (void)rc;
}

/* `keys` ends with NULL. Returns what opening said. */
static inline int use_store(struct device *device, const char *const *keys)
{
    struct use_snapshots seen = {.count = 0};
    struct store *store;
    struct store_session *s;
    struct store_opened opened;
    uint64_t id;
    int rc = store_open(device, &use_tiny, &store, &opened);

    if (rc < 0)
        return rc;
    if (store_session_open(store, &s) < 0)
        abort();
    rc = store_scan(s, use_note_key, s);
    rc = store_scan_log(s, use_note_key, s);
    rc = store_snapshot_list(store, use_note_snapshot, &seen);
    for (unsigned i = 0; i < seen.count; i++) {
        struct store_snapshot *snapshot;
        if (store_snapshot_open(store, seen.ids[i], &snapshot) < 0)
            continue;
        for (const char *const *key = keys; *key; key++) {
            struct store_read read = {.key = *key,
                                      .key_len = (uint32_t)strlen(*key),
                                      .buf = use_buf,
                                      .buf_len = sizeof use_buf,
                                      .snapshot = snapshot};
            rc = store_read_wait(s, &read);
        }
        store_snapshot_close(snapshot);
    }
    for (const char *const *key = keys; *key; key++)
        use_key(s, *key);
    rc = store_commit(store);
    rc = store_compact(store, UINT64_MAX);
    rc = store_snapshot_create(store, "made later", 1, &id);
    if (seen.count > 0)
        rc = store_snapshot_delete(store, seen.ids[0]);
    store_session_close(s);
    rc = store_close(store);
    return 0;
}

/* ---- a filesystem ----------------------------------------------------------------------------------------- */

#define USE_ENTRIES 24
#define USE_INODES 64

struct use {
    struct fs *fs;
    struct fs_session *s;
    unsigned inodes; /* looked at so far */
    struct use_entry {
        char name[FS_NAME_MAX + 1];
        uint64_t ino, cookie;
    } entries[USE_ENTRIES];
    unsigned count, filled;
};

static const struct fs_cred use_cred = {.uid = 7, .gid = 8, .umask = 022};

static inline int use_fill(void *ctx, const struct fs_dirent *entry)
{
    struct use *u = ctx;

    if (strlen(entry->name) != entry->name_len || strchr(entry->name, '/') || (entry->attr && entry->ino == 0))
        abort(); /* what no kernel may be given */
    if (++u->filled > 4096 || u->count == USE_ENTRIES)
        return 1;
    if (entry->attr)
        fs_forget(u->s, entry->ino, 1);
    if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        return 0;
    struct use_entry *e = &u->entries[u->count++];
    snprintf(e->name, sizeof e->name, "%s", entry->name);
    e->ino = entry->ino;
    e->cookie = entry->cookie;
    return 0;
}

/* What the kernel and programs ask of an inode without changing it. */
static inline void use_inode(struct use *u, uint64_t ino)
{
    char target[FS_SYMLINK_MAX + 1];
    struct fs_attr attr;
    uint64_t offset;
    ssize_t rc = fs_getattr(u->s, ino, &attr);

    if (rc == 0 && attr.ino != ino && (ino >> 48) == 0)
        abort();
    rc = fs_readlink(u->s, ino, target, FS_SYMLINK_MAX);
    if (rc > (ssize_t)FS_SYMLINK_MAX)
        abort();
    rc = fs_read(u->s, ino, use_buf, sizeof use_buf, 0);
    rc = fs_read(u->s, ino, use_buf, 4096, attr.size > 4000 ? attr.size - 4000 : 1);
    if (attr.size < 64 << 20) { /* each chunk of a hole is looked at */
        rc = fs_seek(u->s, ino, 0, SEEK_HOLE, &offset);
        rc = fs_seek(u->s, ino, 0, SEEK_DATA, &offset);
    }
    rc = fs_listxattr(u->s, ino, true, (char *)use_buf, sizeof use_buf);
    for (ssize_t at = 0; at < rc; at += (ssize_t)strlen((char *)use_buf + at) + 1) {
        static uint8_t value[FS_XATTR_VALUE_MAX];
        ssize_t got = fs_getxattr(u->s, ino, (char *)use_buf + at, value, sizeof value);
        (void)got;
    }
    fs_accessed(u->s, ino);
}

static inline void use_change(struct use *u, uint64_t dir, const char *name, uint64_t ino)
{
    struct fs_attr attr = {.mode = 0640, .uid = 1, .size = 70001}, got;
    uint8_t acl[28] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0};
    ssize_t rc = fs_setattr(u->s, ino, &attr, FS_SET_MODE | FS_SET_UID | FS_KILL_PRIV, &got);

    rc = fs_getattr(u->s, ino, &got);
    rc = fs_write(u->s, ino, "some bytes", 10, 65530, FS_KILL_PRIV);
    if (rc >= 0 && got.size < 64 << 20) { /* cutting looks at each chunk */
        rc = fs_fallocate(u->s, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 70000);
        rc = fs_setattr(u->s, ino, &attr, FS_SET_SIZE, NULL);
    }
    rc = fs_setxattr(u->s, ino, "user.one", "value", 5, 0, 0);
    memset(acl + 24, 255, 4);
    rc = fs_setxattr(u->s, ino, FS_ACL_DEFAULT, acl, sizeof acl, 0, 0);
    rc = fs_removexattr(u->s, ino, "user.two");
    rc = fs_mknod(u->s, &use_cred, ino, "child", S_IFREG | 0644, 0, &got);
    if (rc == 0)
        fs_forget(u->s, got.ino, 1);
    rc = fs_link(u->s, ino, dir, "linked", &got);
    if (rc == 0)
        fs_forget(u->s, got.ino, 1);
    rc = fs_rename(u->s, &use_cred, dir, name, ino, "below itself", 0);
    rc = fs_rename(u->s, &use_cred, dir, name, FS_INO_ROOT, "moved", 0);
    rc = fs_rename(u->s, &use_cred, dir, name, FS_INO_ROOT, name, 0);
    rc = fs_unlink(u->s, dir, name);
    rc = fs_rmdir(u->s, dir, name);
    (void)rc;
}

static inline void use_dir(struct use *u, uint64_t dir, unsigned depth, bool change)
{
    struct use_entry entries[USE_ENTRIES];
    struct fs_attr attr;
    unsigned count;

    u->count = u->filled = 0;
    int rc = fs_readdir(u->s, dir, 0, depth % 2 == 0, use_fill, u);
    if (u->count > 0) /* and on, as a program with a small buffer does */
        rc = fs_readdir(u->s, dir, u->entries[u->count - 1].cookie, true, use_fill, u);
    count = u->count;
    memcpy(entries, u->entries, count * sizeof entries[0]);
    for (unsigned i = 0; i < count && u->inodes < USE_INODES; i++) {
        rc = fs_lookup(u->s, dir, entries[i].name, &attr);
        use_inode(u, entries[i].ino);
        u->inodes++;
        if (rc < 0)
            continue;
        use_inode(u, attr.ino);
        if (S_ISDIR(attr.mode) && depth < 4)
            use_dir(u, attr.ino, depth + 1, change);
        if (change)
            use_change(u, dir, entries[i].name, attr.ino);
        fs_forget(u->s, attr.ino, 1);
    }
    (void)rc;
}

/* Returns what opening said. */
static inline int use_fs(struct device *device)
{
    static struct use u;
    const struct fs_options options = {.store = use_tiny, .atime = FS_ATIME_RELATIVE};
    struct store_opened opened;
    struct fs_statfs statfs;
    struct fs_attr attr;
    int rc = fs_open(device, &options, &u.fs, &opened);

    if (rc < 0)
        return rc;
    if (fs_session_open(u.fs, &u.s) < 0)
        abort();
    u.inodes = 0;
    rc = fs_statfs(u.s, &statfs);
    use_inode(&u, FS_INO_ROOT);
    use_dir(&u, FS_INO_ROOT, 0, false);
    u.inodes = 0;
    use_dir(&u, FS_INO_SNAPSHOTS, 0, false);
    rc = fs_mkdir(u.s, &use_cred, FS_INO_SNAPSHOTS, "taken", 0755, &attr);
    u.inodes = 0;
    use_dir(&u, FS_INO_ROOT, 0, true);
    rc = fs_sync(u.fs);
    rc = store_compact(fs_store(u.fs), UINT64_MAX);
    u.inodes = 0;
    use_dir(&u, FS_INO_SNAPSHOTS, 0, true); /* rmdir of each */
    fs_session_close(u.s);
    rc = fs_close(u.fs);
    return 0;
}

#endif
