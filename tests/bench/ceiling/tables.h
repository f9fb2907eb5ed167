// SPDX-License-Identifier: MIT
/*
 * The ceiling's tables: inodes, names and bytes in memory. Nothing survives them.
 *
 * Invariants:
 *   1. `tree` (read-write lock) guards names, directories, reference counts and the inode table; a
 *      stripe of `contents` guards attributes and data of an inode. Order: tree, then contents.
 *   2. An inode is freed when it has neither names nor references.
 *   3. The entries of a directory are sorted by cookie, as new ones go to the end; a removed one keeps
 *      its place until more than half are removed.
 *
 * Who calls holds `tree`, for writing where names, directories or the inode table change; attributes and data
 * change under the stripe, or under `tree` for writing.
 */
#ifndef CEILING_TABLES_H
#define CEILING_TABLES_H

#include <fs/fs.h>
#include <pthread.h>

enum {
    STRIPES = 1024,
    CHUNK_BYTES = 65536,
    SLAB_INODES = 4096,
    SLABS_MAX = 1 << 16,
    NAME_BUCKETS = 1 << 20,
};
#define CEILING_SIZE_MAX ((uint64_t)64 << 30)

struct name {
    struct name *next; /* in the bucket */
    uint64_t parent, ino, cookie;
    uint32_t hash;
    uint16_t len;
    char bytes[]; /* NUL-terminated */
};

struct inode {
    struct fs_attr attr;
    uint64_t refs;
    bool used;
    union {
        struct {
            uint64_t parent, next_cookie;
            struct name **names; /* NULL: removed */
            uint64_t *cookies;
            size_t count, capacity, live;
        } dir;
        struct {
            char **chunks; /* NULL: a hole */
            size_t count;
            size_t first_bytes; /* capacity of chunk 0 */
        } file;
        char *target;
    };
};

struct fs {
    pthread_rwlock_t tree;
    pthread_mutex_t contents[STRIPES];
    struct inode *slabs[SLABS_MAX];
    uint64_t next_ino, inodes;
    struct name **names;
};

struct fs_session {
    struct fs *fs;
};

static inline pthread_mutex_t *contents_of(struct fs *fs, uint64_t ino)
{
    return &fs->contents[ino % STRIPES];
}

static inline void now(struct timespec *ret)
{
    clock_gettime(CLOCK_REALTIME, ret);
}

/* ---- inodes -------------------------------------------------------------------------------------- */

/* NULL: there is none of that number. */
struct inode *inode_get(struct fs *fs, uint64_t ino);
/* Of a name that was found: it is there. */
struct inode *inode_of(struct fs *fs, const struct name *name);
/* The next number, all times now, no references, a link count of 1 (a directory: 2). NULL: no memory or no numbers. */
struct inode *inode_new(struct fs *fs, mode_t mode, uid_t uid, gid_t gid);
void inode_free_if_gone(struct fs *fs, struct inode *inode);

/* ---- directories and names ----------------------------------------------------------------------- */

/* NULL, and *ret_rc is -ENOENT or -ENOTDIR; else *ret_rc is 0. */
struct inode *dir_get(struct fs *fs, uint64_t ino, int *ret_rc);
/* Its contents have changed: sets mtime and ctime. */
void dir_touch(struct inode *dir);
/* Index of the first entry with a cookie above `cookie`. */
size_t dir_after(const struct inode *dir, uint64_t cookie);

/* What points to the name, or to the NULL at the end of its bucket. */
struct name **name_find(struct fs *fs, uint64_t parent, const char *bytes);
/* 0 or -ENOMEM. Link counts are the caller's. */
int name_add(struct fs *fs, struct inode *dir, const char *bytes, uint64_t ino);
/* `at` is from name_find(). */
void name_remove(struct inode *dir, struct name **at);

/* ---- contents of files --------------------------------------------------------------------------- */

/* Makes chunk `index` hold `bytes`, new ones zero. False: no memory. */
bool file_room(struct inode *inode, size_t index, size_t bytes);
/* Bytes beyond `size` are zero or absent then: growing again shows zeros. */
void file_cut(struct inode *inode, uint64_t size);

#endif
