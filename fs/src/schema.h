// SPDX-License-Identifier: MIT
/*
 * schema: the keys and values of the filesystem, byte by byte; the only place that spells them.
 *
 *   key                      value
 *   'S'                      super: format, next inode number, range of orphan numbers
 *   'N' stripe               counter: the stripes' sum (signed) is the number of inodes in use
 *   'I' ino                  inode
 *   'D' parent name          entry: inode, type, sequence number in the directory
 *   'E' parent page          listing: the entries with sequence numbers [page * 8, page * 8 + 8)
 *   'M' parent block         the same of [block * 64, block * 64 + 64), once all of these numbers were given
 *   'B' parent block         which of the entries in that are still there: a bit for each number, the lowest first;
 *                            absent: all
 *   'G' parent block         gap: the blocks from `block` to the value are gone (with names before and after)
 *   'H' parent block         the gap that ends before `block` begins at the value
 *   'C' ino chunk            64 KiB of a file (less: the rest is zeros; absent: all is)
 *   'c' ino chunk page       patch: 4 KiB that stand for that page of the chunk, whatever that says
 *   'P' ino group            masks: for each of 64 chunks, 2 bytes, which of its pages have patches; absent: none
 *   'X' ino                  extended attributes: names, and values of up to FS_XATTR_INLINE bytes
 *   'Y' ino name             the value of an attribute that is not in the table above
 *   'O' number               orphan: an inode without a name, to be removed
 *
 * Numbers are little-endian, 8 bytes unless said otherwise. Every decoder checks what it is given and
 * returns -EIO for what no encoder made.
 */
#ifndef FS_SCHEMA_H
#define FS_SCHEMA_H

#include <fs/fs.h>

#define FS_CHUNK_BYTES 65536u
#define FS_INO_BITS 48 /* of an inode's number; what is above says which snapshot */
#define FS_INO_END (UINT64_C(1) << FS_INO_BITS)
#define FS_SEQ_END (UINT64_C(1) << 48) /* sequence numbers are below it */
#define FS_PAGE_BYTES 4096u
#define FS_CHUNK_PAGES (FS_CHUNK_BYTES / FS_PAGE_BYTES)
#define FS_INLINE_MAX 512u /* longest contents of a file that stand in its inode */
#define FS_PAGE_NAMES 8u   /* numbers of a listing, */
#define FS_BLOCK_NAMES 64u /* and of one that is complete */
#define FS_XATTR_INLINE 512u

/* ---- keys ------------------------------------------------------------------------------------------ */

struct fs_key {
    uint8_t bytes[9 + FS_NAME_MAX];
    uint32_t len;
};

struct fs_key key_super(void);
struct fs_key key_counter(uint64_t stripe);
struct fs_key key_inode(uint64_t ino);
struct fs_key key_entry(uint64_t parent, const char *name, size_t name_len);
struct fs_key key_listing(uint64_t parent, uint64_t page);
struct fs_key key_block(uint64_t parent, uint64_t block);
struct fs_key key_live(uint64_t parent, uint64_t block);
struct fs_key key_gap(uint64_t parent, uint64_t first);
struct fs_key key_gap_end(uint64_t parent, uint64_t end);
struct fs_key key_chunk(uint64_t ino, uint64_t chunk);
struct fs_key key_patch(uint64_t ino, uint64_t chunk, unsigned page);
struct fs_key key_masks(uint64_t ino, uint64_t group);
struct fs_key key_xattrs(uint64_t ino);
struct fs_key key_xattr(uint64_t ino, const char *name, size_t name_len);
struct fs_key key_orphan(uint64_t number);
/* The number at `bytes` inside a key: the first is behind the kind, the second behind that. */
uint64_t key_number(const uint8_t *bytes);

/* Can it be the name of anything? */
bool name_is_sound(const char *name, size_t len);

/* ---- values ---------------------------------------------------------------------------------------- */

#define COUNTER_STRIPES 16u
#define COUNTER_BYTES 8u
void counter_encode(int64_t count, uint8_t *bytes);
int64_t counter_decode(const uint8_t *bytes);

#define SUPER_BYTES 32u
struct fs_super {
    uint64_t next_ino;    /* every number from here on is unused */
    uint64_t first_orphan; /* no orphan record has a lower number */
    uint64_t next_orphan;  /* every number from here on is unused */
};
void super_encode(const struct fs_super *super, uint8_t *bytes);
int super_decode(const uint8_t *bytes, uint32_t len, struct fs_super *ret_super);

/* An inode, and behind it its contents if it is INODE_INLINE. */
#define INODE_BYTES 128u
#define INODE_CONTENTS_MAX FS_SYMLINK_MAX
enum {
    INODE_SPARSE = 1,       /* may have holes: `blocks` counts; else it follows from the size */
    INODE_XATTRS = 2,       /* there is a table of extended attributes; */
    INODE_ACCESS_ACL = 4,   /* and in it an access ACL, */
    INODE_DEFAULT_ACL = 8,  /* a default ACL, */
    INODE_CAPABILITY = 16,  /* security.capability */
    INODE_LINKABLE = 32,    /* made without a name, and may get one */
    INODE_INLINE = 64,      /* its contents stand in its record: of all symlinks, of short files that are not empty */
    INODE_PATCHED = 128,    /* chunks may have patches */
    INODE_FLAGS = 255,
    INODE_XATTR_FLAGS = INODE_ACCESS_ACL | INODE_DEFAULT_ACL | INODE_CAPABILITY
};
struct inode {
    uint64_t ino; /* from the key */
    uint32_t mode, nlink, uid, gid, flags;
    uint32_t user_flags; /* FS_FLAG_* */
    uint64_t rdev, size, blocks, generation;
    struct timespec atime, mtime, ctime, btime;
    uint64_t parent;             /* directories: where ".." leads */
    uint64_t entries;            /* directories: names in it */
    uint64_t first_seq, next_seq; /* directories: no name has a sequence number outside of the two */
    uint64_t data_end;           /* files: no chunk from this number on */
    uint64_t orphan;             /* number of the orphan record, once nlink is 0 */
};
void inode_encode(const struct inode *inode, uint8_t *bytes);
/* From the first INODE_BYTES of a record of `len` bytes. */
int inode_decode(const uint8_t *bytes, uint32_t len, uint64_t ino, struct inode *ret_inode);
/* Bytes of contents behind the inode. */
uint32_t inode_contents(const struct inode *inode);
void inode_attr(const struct inode *inode, struct fs_attr *ret_attr);

/* Masks: bit p of the mask of a chunk: page p has a patch. */
#define MASKS_CHUNKS 64u
#define MASKS_BYTES (2 * MASKS_CHUNKS)
void masks_encode(const uint16_t masks[MASKS_CHUNKS], uint8_t *bytes);
int masks_decode(const uint8_t *bytes, uint32_t len, uint16_t ret_masks[MASKS_CHUNKS]);

#define ENTRY_BYTES 24u
struct entry {
    uint64_t ino, seq;
    uint32_t type; /* S_IFMT bits */
};
void entry_encode(const struct entry *entry, uint8_t *bytes);
int entry_decode(const uint8_t *bytes, uint32_t len, struct entry *ret_entry);

/* A listing: for each entry 22 bytes (sequence number, inode, type as 4 bytes, name length as 2), name. */
#define LISTED_HEADER_BYTES 22u
#define LISTED_BYTES_MAX (LISTED_HEADER_BYTES + FS_NAME_MAX)
#define PAGE_BYTES_MAX (FS_PAGE_NAMES * LISTED_BYTES_MAX)
#define BLOCK_BYTES_MAX (FS_BLOCK_NAMES * LISTED_BYTES_MAX)
struct listed {
    struct entry entry;
    const char *name; /* inside the listing, no NUL */
    size_t name_len;
};
/* Decodes the entry at `at`; returns where the next begins, or -EIO. */
int listing_next(const uint8_t *bytes, uint32_t len, uint32_t at, struct listed *ret_listed);
/* Appends; returns the new length. There is room for it. */
uint32_t listing_append(uint8_t *bytes, uint32_t len, const struct entry *entry, const char *name, size_t name_len);

/* Makes the entry at `at` lead elsewhere: inode and type of `entry`. */
void listing_set(uint8_t *bytes, uint32_t at, const struct entry *entry);

/* A table of extended attributes: for each 1 byte of name length, 4 of value length (the top bit: the value
 * is a record of its own), the name, the value if it is here. */
#define XATTR_HEADER_BYTES 5u
#define XATTR_TABLE_MAX 65536u
struct xattr {
    const char *name;     /* inside the table, no NUL */
    size_t name_len;
    const uint8_t *value; /* inside the table; NULL: a record of its own */
    uint32_t value_len;
};
/* Decodes the attribute at `at`; returns where the next begins, or -EIO. */
int xattr_next(const uint8_t *bytes, uint32_t len, uint32_t at, struct xattr *ret_xattr);
/* Appends; returns the new length. There is room for it. */
uint32_t xattr_append(uint8_t *bytes, uint32_t len, const struct xattr *xattr);

/* The value of 'B', 'G' and 'H'. */
#define WORD_BYTES 8u
void word_encode(uint64_t word, uint8_t *bytes);
uint64_t word_decode(const uint8_t *bytes);

#define ORPHAN_BYTES 8u
void orphan_encode(uint64_t ino, uint8_t *bytes);
int orphan_decode(const uint8_t *bytes, uint32_t len, uint64_t *ret_ino);

#endif
