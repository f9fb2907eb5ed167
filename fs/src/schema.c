// SPDX-License-Identifier: MIT
#include "schema.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#define SUPER_FORMAT 2u

bool name_is_sound(const char *name, size_t len)
{
    bool dots = len > 0 && len < 3 && memcmp(name, "..", len) == 0;

    return len > 0 && len <= FS_NAME_MAX && !dots && !memchr(name, '/', len) && !memchr(name, 0, len);
}

static bool is_ino(uint64_t ino)
{
    return ino >= FS_INO_ROOT && ino < FS_INO_END;
}

static bool is_type(uint32_t type)
{
    return (type & ~(uint32_t)S_IFMT) == 0 && (S_ISREG(type) || S_ISDIR(type) || S_ISLNK(type) || S_ISFIFO(type) ||
                                               S_ISSOCK(type) || S_ISCHR(type) || S_ISBLK(type));
}

static void put64(uint8_t *at, uint64_t n)
{
    n = htole64(n);
    memcpy(at, &n, 8);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t n;

    memcpy(&n, at, 8);
    return le64toh(n);
}

static void put32(uint8_t *at, uint32_t n)
{
    n = htole32(n);
    memcpy(at, &n, 4);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t n;

    memcpy(&n, at, 4);
    return le32toh(n);
}

/* ---- keys ------------------------------------------------------------------------------------------ */

struct fs_key key_super(void)
{
    return (struct fs_key){.bytes = {'S'}, .len = 1};
}

static struct fs_key key_of(char kind, uint64_t a)
{
    struct fs_key key;

    key.bytes[0] = (uint8_t)kind;
    put64(key.bytes + 1, a);
    key.len = 9;
    return key;
}

static struct fs_key key_of_two(char kind, uint64_t a, uint64_t b)
{
    struct fs_key key = key_of(kind, a);

    put64(key.bytes + 9, b);
    key.len = 17;
    return key;
}

struct fs_key key_counter(uint64_t stripe)
{
    return key_of('N', stripe);
}

struct fs_key key_inode(uint64_t ino)
{
    return key_of('I', ino);
}

static struct fs_key key_of_name(char kind, uint64_t ino, const char *name, size_t name_len)
{
    struct fs_key key = key_of(kind, ino);

    assert(name_len <= FS_NAME_MAX);
    memcpy(key.bytes + 9, name, name_len);
    key.len = 9 + (uint32_t)name_len;
    return key;
}

struct fs_key key_entry(uint64_t parent, const char *name, size_t name_len)
{
    return key_of_name('D', parent, name, name_len);
}

struct fs_key key_listing(uint64_t parent, uint64_t page)
{
    return key_of_two('E', parent, page);
}

struct fs_key key_block(uint64_t parent, uint64_t block)
{
    return key_of_two('M', parent, block);
}

struct fs_key key_live(uint64_t parent, uint64_t block)
{
    return key_of_two('B', parent, block);
}

struct fs_key key_gap(uint64_t parent, uint64_t first)
{
    return key_of_two('G', parent, first);
}

struct fs_key key_gap_end(uint64_t parent, uint64_t end)
{
    return key_of_two('H', parent, end);
}

struct fs_key key_chunk(uint64_t ino, uint64_t chunk)
{
    return key_of_two('C', ino, chunk);
}

struct fs_key key_patch(uint64_t ino, uint64_t chunk, unsigned page)
{
    struct fs_key key = key_of_two('c', ino, chunk);

    key.bytes[17] = (uint8_t)page;
    key.len = 18;
    return key;
}

struct fs_key key_masks(uint64_t ino, uint64_t group)
{
    return key_of_two('P', ino, group);
}

struct fs_key key_xattrs(uint64_t ino)
{
    return key_of('X', ino);
}

struct fs_key key_xattr(uint64_t ino, const char *name, size_t name_len)
{
    return key_of_name('Y', ino, name, name_len);
}

struct fs_key key_orphan(uint64_t number)
{
    return key_of('O', number);
}

uint64_t key_number(const uint8_t *bytes)
{
    return get64(bytes);
}

/* ---- counters ---------------------------------------------------------------------------------------- */

void counter_encode(int64_t count, uint8_t *bytes)
{
    put64(bytes, (uint64_t)count);
}

int64_t counter_decode(const uint8_t *bytes)
{
    return (int64_t)get64(bytes);
}

/* ---- super ----------------------------------------------------------------------------------------- */

void super_encode(const struct fs_super *super, uint8_t *bytes)
{
    put64(bytes, SUPER_FORMAT);
    put64(bytes + 8, super->next_ino);
    put64(bytes + 16, super->first_orphan);
    put64(bytes + 24, super->next_orphan);
}

int super_decode(const uint8_t *bytes, uint32_t len, struct fs_super *ret_super)
{
    if (len != SUPER_BYTES)
        return -EIO;
    if (get64(bytes) != SUPER_FORMAT)
        return -EPROTONOSUPPORT;
    *ret_super = (struct fs_super){get64(bytes + 8), get64(bytes + 16), get64(bytes + 24)};
    return is_ino(ret_super->next_ino - 1) && ret_super->first_orphan <= ret_super->next_orphan ? 0 : -EIO;
}

/* ---- inodes ---------------------------------------------------------------------------------------- */

static void put_time(uint8_t *at, const struct timespec *time)
{
    put64(at, (uint64_t)time->tv_sec);
    put32(at + 8, (uint32_t)time->tv_nsec);
}

static int get_time(const uint8_t *at, struct timespec *ret_time)
{
    ret_time->tv_sec = (time_t)get64(at);
    ret_time->tv_nsec = (long)get32(at + 8);
    return ret_time->tv_nsec < 1000000000 ? 0 : -EIO;
}

/* 0 mode, 4 nlink, 8 uid, 12 gid, 16 flags, 20 user_flags, 24 size, 32 generation, 40 orphan, 48 atime, 60 mtime, 72 ctime,
 * 84 btime (seconds 8, nanoseconds 4 each); then directories: 96 parent, 104 entries, 112 first_seq, 120 next_seq;
 * others: 96 rdev, 104 blocks, 112 data_end, 120 user_flagss. */
void inode_encode(const struct inode *inode, uint8_t *bytes)
{
    memset(bytes, 0, INODE_BYTES);
    put32(bytes, inode->mode);
    put32(bytes + 4, inode->nlink);
    put32(bytes + 8, inode->uid);
    put32(bytes + 12, inode->gid);
    put32(bytes + 16, inode->flags);
    put32(bytes + 20, inode->user_flags);
    put64(bytes + 24, inode->size);
    put64(bytes + 32, inode->generation);
    put64(bytes + 40, inode->orphan);
    put_time(bytes + 48, &inode->atime);
    put_time(bytes + 60, &inode->mtime);
    put_time(bytes + 72, &inode->ctime);
    put_time(bytes + 84, &inode->btime);
    bool directory = S_ISDIR(inode->mode);
    put64(bytes + 96, directory ? inode->parent : inode->rdev);
    put64(bytes + 104, directory ? inode->entries : inode->blocks);
    put64(bytes + 112, directory ? inode->first_seq : inode->data_end);
    put64(bytes + 120, directory ? inode->next_seq : 0);
}

uint32_t inode_contents(const struct inode *inode)
{
    return inode->flags & INODE_INLINE ? (uint32_t)inode->size : 0;
}

static bool contents_are_sound(const struct inode *i, uint32_t len)
{
    uint64_t most = S_ISLNK(i->mode) ? FS_SYMLINK_MAX : S_ISREG(i->mode) ? FS_INLINE_MAX : 0;

    if (!(i->flags & INODE_INLINE))
        return len == INODE_BYTES && !S_ISLNK(i->mode);
    return i->size > 0 && i->size <= most && len == INODE_BYTES + i->size && i->data_end == 0;
}

int inode_decode(const uint8_t *bytes, uint32_t len, uint64_t ino, struct inode *ret_inode)
{
    struct inode i;

    if (len < INODE_BYTES)
        return -EIO;
    i = (struct inode){.ino = ino,
                       .mode = get32(bytes),
                       .nlink = get32(bytes + 4),
                       .uid = get32(bytes + 8),
                       .gid = get32(bytes + 12),
                       .flags = get32(bytes + 16),
                       .user_flags = get32(bytes + 20),
                       .size = get64(bytes + 24),
                       .generation = get64(bytes + 32),
                       .orphan = get64(bytes + 40)};
    if (S_ISDIR(i.mode)) {
        i.parent = get64(bytes + 96);
        i.entries = get64(bytes + 104);
        i.first_seq = get64(bytes + 112);
        i.next_seq = get64(bytes + 120);
    } else {
        i.rdev = get64(bytes + 96);
        i.blocks = get64(bytes + 104);
        i.data_end = get64(bytes + 112);
    }
    if (get_time(bytes + 48, &i.atime) < 0 || get_time(bytes + 60, &i.mtime) < 0 ||
        get_time(bytes + 72, &i.ctime) < 0 || get_time(bytes + 84, &i.btime) < 0 ||
        i.size > (uint64_t)FS_SIZE_MAX || i.first_seq > i.next_seq || i.next_seq > FS_SEQ_END ||
        i.data_end > (i.size + FS_CHUNK_BYTES - 1) / FS_CHUNK_BYTES || !is_type(i.mode & ~07777u) ||
        (S_ISDIR(i.mode) && !is_ino(i.parent)) ||
        (i.flags & ~(uint32_t)INODE_FLAGS) || (i.user_flags & ~(uint32_t)FS_FLAGS) || !contents_are_sound(&i, len))
        return -EIO;
    *ret_inode = i;
    return 0;
}

static uint64_t blocks_of(const struct inode *inode)
{
    uint64_t rest = inode->size % FS_CHUNK_BYTES;

    if (S_ISDIR(inode->mode))
        return 0;
    if (inode->flags & INODE_SPARSE)
        return inode->blocks;
    return inode->size / FS_CHUNK_BYTES * (FS_CHUNK_BYTES / 512) + (rest + 511) / 512;
}

void inode_attr(const struct inode *inode, struct fs_attr *ret_attr)
{
    *ret_attr = (struct fs_attr){.ino = inode->ino,
                                 .generation = inode->generation,
                                 .size = inode->size,
                                 .blocks = blocks_of(inode),
                                 .mode = inode->mode,
                                 .nlink = inode->nlink,
                                 .uid = inode->uid,
                                 .gid = inode->gid,
                                 .rdev = inode->rdev,
                                 .flags = inode->user_flags,
                                 .atime = inode->atime,
                                 .mtime = inode->mtime,
                                 .ctime = inode->ctime,
                                 .btime = inode->btime};
}

/* ---- masks ----------------------------------------------------------------------------------------- */

void masks_encode(const uint16_t masks[MASKS_CHUNKS], uint8_t *bytes)
{
    for (unsigned i = 0; i < MASKS_CHUNKS; i++) {
        bytes[2 * i] = (uint8_t)masks[i];
        bytes[2 * i + 1] = (uint8_t)(masks[i] >> 8);
    }
}

int masks_decode(const uint8_t *bytes, uint32_t len, uint16_t ret_masks[MASKS_CHUNKS])
{
    if (len != MASKS_BYTES)
        return -EIO;
    for (unsigned i = 0; i < MASKS_CHUNKS; i++)
        ret_masks[i] = (uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8);
    return 0;
}

/* ---- entries and listings -------------------------------------------------------------------------- */

void entry_encode(const struct entry *entry, uint8_t *bytes)
{
    put64(bytes, entry->ino);
    put64(bytes + 8, entry->seq);
    put32(bytes + 16, entry->type);
    put32(bytes + 20, 0);
}

int entry_decode(const uint8_t *bytes, uint32_t len, struct entry *ret_entry)
{
    if (len != ENTRY_BYTES)
        return -EIO;
    *ret_entry = (struct entry){get64(bytes), get64(bytes + 8), get32(bytes + 16)};
    return is_ino(ret_entry->ino) && is_type(ret_entry->type) && ret_entry->seq < FS_SEQ_END ? 0 : -EIO;
}

int listing_next(const uint8_t *bytes, uint32_t len, uint32_t at, struct listed *ret_listed)
{
    if (at > len || len - at < LISTED_HEADER_BYTES)
        return -EIO;
    bytes += at;
    size_t name_len = (size_t)bytes[20] | (size_t)bytes[21] << 8;
    const char *name = (const char *)bytes + LISTED_HEADER_BYTES;
    struct entry entry = {.seq = get64(bytes), .ino = get64(bytes + 8), .type = get32(bytes + 16)};
    if (name_len > len - at - LISTED_HEADER_BYTES || !name_is_sound(name, name_len) || !is_ino(entry.ino) ||
        !is_type(entry.type))
        return -EIO;
    *ret_listed = (struct listed){.entry = entry, .name = name, .name_len = name_len};
    return (int)(at + LISTED_HEADER_BYTES + name_len);
}

uint32_t listing_append(uint8_t *bytes, uint32_t len, const struct entry *entry, const char *name, size_t name_len)
{
    uint8_t *at = bytes + len;

    put64(at, entry->seq);
    put64(at + 8, entry->ino);
    put32(at + 16, entry->type);
    at[20] = (uint8_t)name_len;
    at[21] = (uint8_t)(name_len >> 8);
    memcpy(at + LISTED_HEADER_BYTES, name, name_len);
    return len + LISTED_HEADER_BYTES + (uint32_t)name_len;
}

void listing_set(uint8_t *bytes, uint32_t at, const struct entry *entry)
{
    put64(bytes + at + 8, entry->ino);
    put32(bytes + at + 16, entry->type);
}

/* ---- extended attributes ----------------------------------------------------------------------------- */

#define XATTR_APART (UINT32_C(1) << 31)

int xattr_next(const uint8_t *bytes, uint32_t len, uint32_t at, struct xattr *ret_xattr)
{
    if (at > len || len - at < XATTR_HEADER_BYTES)
        return -EIO;
    uint32_t name_len = bytes[at], value_len = get32(bytes + at + 1);
    bool apart = value_len & XATTR_APART;
    const uint8_t *name = bytes + at + XATTR_HEADER_BYTES;
    uint64_t next = (uint64_t)at + XATTR_HEADER_BYTES + name_len;
    value_len &= ~XATTR_APART;
    if (!apart)
        next += value_len;
    if (name_len == 0 || value_len > FS_XATTR_VALUE_MAX || next > len || memchr(name, 0, name_len))
        return -EIO;
    *ret_xattr = (struct xattr){.name = (const char *)name,
                                .name_len = name_len,
                                .value = apart ? NULL : name + name_len,
                                .value_len = value_len};
    return (int)next;
}

uint32_t xattr_append(uint8_t *bytes, uint32_t len, const struct xattr *xattr)
{
    uint8_t *at = bytes + len;

    assert(xattr->name_len > 0 && xattr->name_len <= FS_NAME_MAX);
    at[0] = (uint8_t)xattr->name_len;
    put32(at + 1, xattr->value_len | (xattr->value ? 0 : XATTR_APART));
    memcpy(at + XATTR_HEADER_BYTES, xattr->name, xattr->name_len);
    len += XATTR_HEADER_BYTES + (uint32_t)xattr->name_len;
    if (!xattr->value)
        return len;
    memcpy(bytes + len, xattr->value, xattr->value_len);
    return len + xattr->value_len;
}

void word_encode(uint64_t word, uint8_t *bytes)
{
    put64(bytes, word);
}

uint64_t word_decode(const uint8_t *bytes)
{
    return get64(bytes);
}

void orphan_encode(uint64_t ino, uint8_t *bytes)
{
    put64(bytes, ino);
}

int orphan_decode(const uint8_t *bytes, uint32_t len, uint64_t *ret_ino)
{
    if (len != ORPHAN_BYTES)
        return -EIO;
    *ret_ino = get64(bytes);
    return *ret_ino > FS_INO_ROOT && is_ino(*ret_ino) ? 0 : -EIO;
}
