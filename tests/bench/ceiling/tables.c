// SPDX-License-Identifier: MIT
#include "tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct inode *inode_get(struct fs *fs, uint64_t ino)
{
    if (ino >= fs->next_ino)
        return NULL;
    struct inode *inode = &fs->slabs[ino / SLAB_INODES][ino % SLAB_INODES];
    return inode->used ? inode : NULL;
}

struct inode *inode_of(struct fs *fs, const struct name *name)
{
    struct inode *inode = inode_get(fs, name->ino);
    if (!inode)
        abort();
    return inode;
}

static uint32_t name_hash(uint64_t parent, const char *bytes, size_t len)
{
    uint64_t h = parent * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ h >> 32);
}

struct name **name_find(struct fs *fs, uint64_t parent, const char *bytes)
{
    size_t len = strlen(bytes);
    uint32_t hash = name_hash(parent, bytes, len);
    struct name **at = &fs->names[hash % NAME_BUCKETS];
    while (*at && !((*at)->hash == hash && (*at)->parent == parent && (*at)->len == len &&
                    memcmp((*at)->bytes, bytes, len) == 0))
        at = &(*at)->next;
    return at;
}

struct inode *dir_get(struct fs *fs, uint64_t ino, int *ret_rc)
{
    struct inode *dir = inode_get(fs, ino);
    *ret_rc = !dir ? -ENOENT : S_ISDIR(dir->attr.mode) ? 0 : -ENOTDIR;
    return *ret_rc ? NULL : dir;
}

void dir_touch(struct inode *dir)
{
    now(&dir->attr.mtime);
    dir->attr.ctime = dir->attr.mtime;
}

struct inode *inode_new(struct fs *fs, mode_t mode, uid_t uid, gid_t gid)
{
    uint64_t ino = fs->next_ino;
    if (ino / SLAB_INODES >= SLABS_MAX)
        return NULL;
    struct inode **slab = &fs->slabs[ino / SLAB_INODES];
    if (!*slab && !(*slab = calloc(SLAB_INODES, sizeof(**slab))))
        return NULL;
    fs->next_ino++;
    fs->inodes++;
    struct inode *inode = &(*slab)[ino % SLAB_INODES];
    inode->used = true;
    inode->attr = (struct fs_attr){.ino = ino, .generation = 1, .mode = mode, .nlink = 1, .uid = uid, .gid = gid};
    now(&inode->attr.mtime);
    inode->attr.atime = inode->attr.ctime = inode->attr.btime = inode->attr.mtime;
    if (S_ISDIR(mode)) {
        inode->attr.nlink = 2;
        inode->dir.next_cookie = 3;
    }
    return inode;
}

void inode_free_if_gone(struct fs *fs, struct inode *inode)
{
    if (inode->attr.nlink || inode->refs)
        return;
    if (S_ISDIR(inode->attr.mode)) {
        free(inode->dir.names);
        free(inode->dir.cookies);
    } else if (S_ISREG(inode->attr.mode)) {
        for (size_t i = 0; i < inode->file.count; i++)
            free(inode->file.chunks[i]);
        free(inode->file.chunks);
    } else if (S_ISLNK(inode->attr.mode)) {
        free(inode->target);
    }
    memset(inode, 0, sizeof(*inode));
    fs->inodes--;
}

static bool dir_room(struct inode *dir)
{
    if (dir->dir.count < dir->dir.capacity)
        return true;
    size_t capacity = dir->dir.capacity ? dir->dir.capacity * 2 : 8;
    struct name **names = realloc(dir->dir.names, capacity * sizeof(*names));
    if (names)
        dir->dir.names = names;
    uint64_t *cookies = realloc(dir->dir.cookies, capacity * sizeof(*cookies));
    if (cookies)
        dir->dir.cookies = cookies;
    if (!names || !cookies)
        return false;
    dir->dir.capacity = capacity;
    return true;
}

size_t dir_after(const struct inode *dir, uint64_t cookie)
{
    size_t low = 0, high = dir->dir.count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (dir->dir.cookies[mid] <= cookie)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int name_add(struct fs *fs, struct inode *dir, const char *bytes, uint64_t ino)
{
    size_t len = strlen(bytes);
    struct name *name = malloc(sizeof(*name) + len + 1);
    if (!name || !dir_room(dir)) {
        free(name);
        return -ENOMEM;
    }
    name->parent = dir->attr.ino;
    name->ino = ino;
    name->hash = name_hash(name->parent, bytes, len);
    name->len = (uint16_t)len;
    memcpy(name->bytes, bytes, len + 1);
    name->cookie = dir->dir.next_cookie++;
    struct name **bucket = &fs->names[name->hash % NAME_BUCKETS];
    name->next = *bucket;
    *bucket = name;
    dir->dir.names[dir->dir.count] = name;
    dir->dir.cookies[dir->dir.count++] = name->cookie;
    dir->dir.live++;
    dir_touch(dir);
    return 0;
}

void name_remove(struct inode *dir, struct name **at)
{
    struct name *name = *at;
    *at = name->next;
    size_t i = dir_after(dir, name->cookie - 1);
    dir->dir.names[i] = NULL;
    dir->dir.live--;
    free(name);
    if (dir->dir.count > 16 && dir->dir.live < dir->dir.count / 2) {
        size_t to = 0;
        for (size_t from = 0; from < dir->dir.count; from++)
            if (dir->dir.names[from]) {
                dir->dir.names[to] = dir->dir.names[from];
                dir->dir.cookies[to++] = dir->dir.cookies[from];
            }
        dir->dir.count = to;
    }
    dir_touch(dir);
}

bool file_room(struct inode *inode, size_t index, size_t bytes)
{
    if (index >= inode->file.count) {
        size_t count = inode->file.count * 2 > index + 1 ? inode->file.count * 2 : index + 1;
        char **chunks = realloc(inode->file.chunks, count * sizeof(*chunks));
        if (!chunks)
            return false;
        memset(chunks + inode->file.count, 0, (count - inode->file.count) * sizeof(*chunks));
        inode->file.chunks = chunks;
        inode->file.count = count;
    }
    char **chunk = &inode->file.chunks[index];
    if (index == 0) {
        if (*chunk && inode->file.first_bytes >= bytes)
            return true;
        size_t had = *chunk ? inode->file.first_bytes : 0, size = had ? had : 4096;
        while (size < bytes)
            size *= 2;
        char *grown = realloc(*chunk, size);
        if (!grown)
            return false;
        memset(grown + had, 0, size - had);
        *chunk = grown;
        inode->file.first_bytes = size;
        inode->attr.blocks += (size - had) / 512;
        return true;
    }
    if (!*chunk) {
        if (!(*chunk = calloc(1, CHUNK_BYTES)))
            return false;
        inode->attr.blocks += CHUNK_BYTES / 512;
    }
    return true;
}

void file_cut(struct inode *inode, uint64_t size)
{
    for (size_t i = 0; i < inode->file.count; i++) {
        uint64_t start = (uint64_t)i * CHUNK_BYTES;
        char *chunk = inode->file.chunks[i];
        size_t bytes = i == 0 ? inode->file.first_bytes : CHUNK_BYTES;
        if (!chunk || start + bytes <= size)
            continue;
        if (start >= size) {
            free(chunk);
            inode->file.chunks[i] = NULL;
            inode->attr.blocks -= bytes / 512;
            if (i == 0)
                inode->file.first_bytes = 0;
        } else {
            memset(chunk + (size - start), 0, bytes - (size - start));
        }
    }
}
