// SPDX-License-Identifier: MIT
/*
 * The reaper: removes inodes without names, their data first, so that unlink need not wait.
 *
 * Invariant: an inode with nlink 0 has an orphan record, made in the unit that took its last name and
 * deleted in the unit that deletes the inode. So what a crash leaves is found at the next open.
 *
 * With no_background there is no thread: the list is worked off at the end of the call that added to it.
 *
 * What finds no room on a full disk is tried again: after a moment, or at the end of the next call.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define AGAIN_MS 100

static int remove_inode(struct fs_session *s, const struct dead *dead, bool xattrs)
{
    static const int64_t one_less = -1;
    struct fs_key inode_key = key_inode(dead->ino), orphan_key = key_orphan(dead->orphan);
    struct fs_key xattrs_key = key_xattrs(dead->ino);

    store_unit_begin(s->store);
    int rc = store_unit_delete(s->store, inode_key.bytes, inode_key.len);
    if (rc == 0)
        rc = store_unit_delete(s->store, orphan_key.bytes, orphan_key.len);
    if (rc == 0 && xattrs)
        rc = store_unit_delete(s->store, xattrs_key.bytes, xattrs_key.len);
    if (rc == 0)
        rc = count_in_unit(s, &one_less);
    if (rc < 0) {
        store_unit_abandon(s->store);
        return rc;
    }
    rc = store_unit_apply(s->store, STORE_UNIT_FREES);
    if (rc == 0) {
        count_applied(s->fs, -1);
        atomic_fetch_sub_explicit(&s->fs->orphans, 1, memory_order_relaxed);
    }
    return rc;
}

static int reap(struct fs_session *s, const struct dead *dead)
{
    struct lockset locks;
    struct inode inode = {0};

    lock_write(s->fs, &locks, &dead->ino, 1);
    int rc = get_inode(s, &(struct view){.ino = dead->ino}, &inode);
    if (rc == 0 && inode.nlink == 0)
        rc = data_remove(s, &inode);
    if (rc == 0 && inode.nlink == 0 && (inode.flags & INODE_XATTRS))
        rc = xattrs_remove(s, &inode);
    if ((rc == 0 && inode.nlink == 0) || rc == -ESTALE)
        rc = remove_inode(s, dead, inode.flags & INODE_XATTRS);
    unlock_write(&locks);
    return rc;
}

static bool take(struct fs *fs, struct dead *ret_dead, bool wait)
{
    pthread_mutex_lock(&fs->reap_lock);
    while (wait && fs->dead_count == 0 && !fs->reap_stop)
        pthread_cond_wait(&fs->reap_wake, &fs->reap_lock);
    bool got = fs->dead_count > 0 && !fs->reap_stop;
    if (got)
        *ret_dead = fs->dead[--fs->dead_count];
    pthread_mutex_unlock(&fs->reap_lock);
    return got;
}

/* For a moment, or until the reaper is to stop. */
static void pause_reaping(struct fs *fs)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += AGAIN_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&fs->reap_lock);
    while (!fs->reap_stop && pthread_cond_timedwait(&fs->reap_wake, &fs->reap_lock, &until) != ETIMEDOUT)
        continue;
    pthread_mutex_unlock(&fs->reap_lock);
}

/* Works off the list, or as much of it as there is room for: then false. What is damaged is left to the next open. */
static bool reap_list(struct fs_session *s, bool wait)
{
    struct dead dead;

    while (take(s->fs, &dead, wait))
        if (device_is_full(reap(s, &dead))) {
            reap_add(s->fs, dead.ino, dead.orphan);
            return false;
        }
    return true;
}

static void *reaper(void *arg)
{
    struct fs_session *s = arg;

    while (!reap_list(s, true))
        pause_reaping(s->fs);
    fs_session_close(s);
    return NULL;
}

void reap_add(struct fs *fs, uint64_t ino, uint64_t orphan)
{
    pthread_mutex_lock(&fs->reap_lock);
    if (fs->dead_count == fs->dead_room) {
        size_t room = fs->dead_room ? fs->dead_room * 2 : 256;
        struct dead *grown = realloc(fs->dead, room * sizeof *grown);
        if (grown) {
            fs->dead = grown;
            fs->dead_room = room;
        }
    }
    if (fs->dead_count < fs->dead_room) /* else no memory: the next open finds it */
        fs->dead[fs->dead_count++] = (struct dead){ino, orphan};
    pthread_cond_signal(&fs->reap_wake);
    pthread_mutex_unlock(&fs->reap_lock);
}

void reap_drain(struct fs_session *s)
{
    if (!s->fs->reaper_runs)
        (void)reap_list(s, false);
}

static int find_orphans(struct fs_session *s)
{
    struct fs *fs = s->fs;
    uint64_t first = fs->orphan_end;

    for (uint64_t number = fs->first_orphan; number < fs->orphan_end; number++) {
        struct fs_key key = key_orphan(number);
        uint8_t bytes[ORPHAN_BYTES];
        uint32_t len;
        uint64_t ino;
        int rc = get_value(s, NULL, &key, bytes, sizeof bytes, &len);
        if (rc == 0)
            rc = orphan_decode(bytes, len, &ino);
        if (rc != -ENOENT && first == fs->orphan_end)
            first = number;
        if (rc != -ENOENT)
            atomic_fetch_add_explicit(&fs->orphans, 1, memory_order_relaxed);
        if (rc == 0)
            reap_add(fs, ino, number);
        else if (rc != -ENOENT && rc != -EIO) /* a damaged one costs space, not the mount */
            return rc;
    }
    if (!fs->options.store.read_only)
        alloc_first_orphan(fs, first);
    return 0;
}

int reap_open(struct fs *fs, struct fs_session *s)
{
    struct fs_session *own;
    int rc = find_orphans(s);

    if (rc < 0 || fs->options.store.read_only)
        return rc;
    if (fs->options.store.no_background) {
        reap_drain(s);
        return 0;
    }
    rc = fs_session_open(fs, &own);
    if (rc < 0)
        return rc;
    rc = -pthread_create(&fs->reaper, NULL, reaper, own);
    if (rc < 0)
        fs_session_close(own);
    fs->reaper_runs = rc == 0;
    return rc;
}

void reap_stop(struct fs *fs)
{
    if (fs->reaper_runs) {
        pthread_mutex_lock(&fs->reap_lock);
        fs->reap_stop = true;
        pthread_cond_signal(&fs->reap_wake);
        pthread_mutex_unlock(&fs->reap_lock);
        pthread_join(fs->reaper, NULL);
        fs->reaper_runs = false;
    }
}

void reap_close(struct fs *fs)
{
    reap_stop(fs);
    free(fs->dead);
}
