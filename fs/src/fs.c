// SPDX-License-Identifier: MIT
/* Opening and closing, sessions, the whole. */
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the first unit of a new filesystem ------------------------------------------------------------- */

static int make_root(struct fs_session *s)
{
    struct fs *fs = s->fs;
    struct inode root = {.ino = FS_INO_ROOT,
                         .mode = S_IFDIR | 0755,
                         .nlink = 2,
                         .uid = fs->options.root_uid,
                         .gid = fs->options.root_gid,
                         .parent = FS_INO_ROOT};
    struct fs_super super = {FS_INO_ROOT + 1, 1, 1};
    struct fs_key key = key_super();
    uint8_t bytes[SUPER_BYTES];

    super_encode(&super, bytes);
    txn_begin(s);
    root.atime = root.mtime = root.ctime = root.btime = s->txn.now;
    txn_new_inode(s, &root);
    int rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, sizeof bytes}, 1, 0);
    if (rc < 0) {
        txn_abandon(s);
        return rc;
    }
    rc = txn_apply(s, 0);
    return rc < 0 ? rc : store_commit(fs->store);
}

static int load_super(struct fs_session *s, struct store_opened *opened)
{
    struct fs *fs = s->fs;
    struct fs_super super;
    struct fs_key key = key_super();
    struct store_stats stats;
    uint8_t bytes[SUPER_BYTES];
    uint32_t len;
    int rc = get_value(s, NULL, &key, bytes, sizeof bytes, &len);

    /* Created, and cut off before its first commit: nothing was ever promised. */
    if (rc == -ENOENT && opened->commit == 0 && !fs->options.store.read_only) {
        rc = make_root(s);
        if (rc == 0)
            rc = get_value(s, NULL, &key, bytes, sizeof bytes, &len);
    }
    if (rc == 0)
        rc = super_decode(bytes, len, &super);
    if (rc == 0) { /* each number cost a record, or (up to a batch of them) an opening: reap_open() looks at all */
        store_stats(fs->store, &stats);
        rc = super.next_orphan - super.first_orphan > stats.tail ? -EIO : 0;
    }
    if (rc == -ENOENT) {
        snprintf(opened->message, sizeof opened->message,
                 "a store without a filesystem in it; name a directory that fasterfs made, or an empty one");
        return -EINVAL;
    }
    if (rc == -EPROTONOSUPPORT)
        snprintf(opened->message, sizeof opened->message,
                 "made by another version of fasterfs; use that version or a newer one");
    if (rc < 0)
        return rc;
    fs->next_ino = fs->ino_end = super.next_ino;
    fs->first_orphan = super.first_orphan;
    fs->next_orphan = fs->orphan_end = super.next_orphan;
    return count_load(s);
}

/* ---- open, close ------------------------------------------------------------------------------------- */

static void free_fs(struct fs *fs)
{
    reap_close(fs);
    fs_session_close(fs->alloc_session);
    snapshots_close(fs);
    free(fs->slots);
    refs_close(fs);
    for (unsigned i = 0; i < LOCK_STRIPES; i++)
        pthread_rwlock_destroy(&fs->stripes[i]);
    pthread_mutex_destroy(&fs->rename_lock);
    pthread_mutex_destroy(&fs->alloc_lock);
    pthread_mutex_destroy(&fs->reap_lock);
    pthread_cond_destroy(&fs->reap_wake);
    pthread_rwlock_destroy(&fs->snapshots_lock);
}

static int open_parts(struct fs *fs, struct store_opened *opened)
{
    struct fs_session *s;
    int rc = fs_session_open(fs, &fs->alloc_session);

    if (rc == 0)
        rc = fs_session_open(fs, &s);
    if (rc < 0)
        return rc;
    rc = load_super(s, opened);
    if (rc == 0)
        rc = reap_open(fs, s);
    fs_session_close(s);
    return rc;
}

int fs_open(struct device *device, const struct fs_options *options, struct fs **ret_fs,
            struct store_opened *ret_opened)
{
    struct fs *fs = calloc(1, sizeof *fs);

    *ret_opened = (struct store_opened){0};
    if (!fs)
        return -ENOMEM;
    fs->options = *options;
    int rc = store_open(device, &options->store, &fs->store, ret_opened);
    if (rc < 0) {
        free(fs);
        return rc;
    }
    fs->slots = calloc(SNAPSHOT_SLOTS + 1, sizeof *fs->slots);
    for (unsigned i = 0; i < LOCK_STRIPES; i++)
        pthread_rwlock_init(&fs->stripes[i], NULL);
    pthread_mutex_init(&fs->rename_lock, NULL);
    pthread_mutex_init(&fs->alloc_lock, NULL);
    pthread_mutex_init(&fs->reap_lock, NULL);
    pthread_cond_init(&fs->reap_wake, NULL);
    pthread_rwlock_init(&fs->snapshots_lock, NULL);
    refs_open(fs);
    rc = fs->slots ? open_parts(fs, ret_opened) : -ENOMEM;
    if (rc < 0) {
        if (!ret_opened->message[0])
            snprintf(ret_opened->message, sizeof ret_opened->message, "%s", strerror(-rc));
        fs_abandon(fs);
        return rc;
    }
    *ret_fs = fs;
    return 0;
}

int fs_close(struct fs *fs)
{
    struct store *store = fs->store;

    reap_stop(fs);
    if (!fs->options.store.read_only && atomic_load_explicit(&fs->orphans, memory_order_relaxed) == 0)
        alloc_first_orphan(fs, fs->next_orphan);
    free_fs(fs);
    free(fs);
    return store_close(store);
}

void fs_abandon(struct fs *fs)
{
    struct store *store = fs->store;

    free_fs(fs);
    free(fs);
    store_abandon(store);
}

/* ---- sessions, the whole ------------------------------------------------------------------------------ */

int fs_session_open(struct fs *fs, struct fs_session **ret_session)
{
    struct fs_session *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->fs = fs;
    s->counter_stripe = atomic_fetch_add_explicit(&fs->sessions, 1, memory_order_relaxed) % COUNTER_STRIPES;
    int rc = store_session_open(fs->store, &s->store);
    if (rc < 0) {
        free(s);
        return rc;
    }
    *ret_session = s;
    return 0;
}

void fs_session_close(struct fs_session *s)
{
    if (!s)
        return;
    store_session_close(s->store);
    free(s->xattrs);
    free(s);
}

int fs_sync(struct fs *fs)
{
    return store_commit(fs->store);
}

int fs_statfs(struct fs_session *s, struct fs_statfs *ret_statfs)
{
    struct store_stats stats;

    store_stats(s->fs->store, &stats);
    uint64_t limit = s->fs->options.size_bytes, used = space_used(&stats), left = limit > used ? limit - used : 0;
    *ret_statfs = (struct fs_statfs){
        .total_bytes = limit ? limit : stats.space_total_bytes,
        .free_bytes = limit ? smaller(left, stats.space_free_bytes) : stats.space_free_bytes,
        .files = atomic_load_explicit(&s->fs->inodes, memory_order_relaxed), /* a statistic */
    };
    return 0;
}

struct store *fs_store(struct fs *fs)
{
    return fs->store;
}
