// SPDX-License-Identifier: MIT
/*
 * The decoders of the filesystem's records: the first byte says which, the rest is the record. What one of them takes
 * is made again by its encoder, byte by byte where the format has no slack.
 */
#include "edit.h"

#include <private.h>
#include <stdio.h>
#include <stdlib.h>

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void inode(const uint8_t *bytes, uint32_t len)
{
    static uint8_t again[INODE_BYTES + INODE_CONTENTS_MAX];
    struct inode i, twice;
    struct fs_attr attr;

    if (inode_decode(bytes, len, 5, &i) < 0)
        return;
    inode_attr(&i, &attr);
    must(attr.ino == 5 && attr.size <= (uint64_t)FS_SIZE_MAX);
    inode_encode(&i, again);
    must(inode_contents(&i) <= INODE_CONTENTS_MAX && len == INODE_BYTES + inode_contents(&i));
    must(inode_decode(again, len, 5, &twice) == 0);
}

static void listing(const uint8_t *bytes, uint32_t len)
{
    static uint8_t again[1 << 17];
    struct listed listed;
    uint32_t made = 0;

    for (uint32_t at = 0; at < len && len < sizeof again / 2;) {
        int next = listing_next(bytes, len, at, &listed);
        if (next < 0)
            return;
        must((uint32_t)next > at && (uint32_t)next <= len && name_is_sound(listed.name, listed.name_len));
        made = listing_append(again, made, &listed.entry, listed.name, listed.name_len);
        at = (uint32_t)next;
        must(made == at && memcmp(again, bytes, at) == 0);
    }
}

static void xattrs(const uint8_t *bytes, uint32_t len)
{
    static uint8_t again[XATTR_TABLE_MAX];
    struct xattr xattr;
    uint32_t made = 0;

    for (uint32_t at = 0; at < len && len <= sizeof again;) {
        int next = xattr_next(bytes, len, at, &xattr);
        if (next < 0)
            return;
        must((uint32_t)next > at && (uint32_t)next <= len);
        made = xattr_append(again, made, &xattr);
        at = (uint32_t)next;
        must(made == at && memcmp(again, bytes, at) == 0);
    }
}

static void acl(const uint8_t *bytes, uint32_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    uint32_t mode = S_IFREG;

    memcpy(copy, bytes, len);
    if (acl_check(copy, len) == 0) {
        (void)acl_mode(copy, len, &mode);
        must((mode & ~0777u) == S_IFREG && acl_chmod(copy, len, 0640) == 0);
        (void)acl_mode(copy, len, &mode);
        must(mode == (S_IFREG | 0640));
    } else {
        must(acl_chmod(copy, len, 0640) < 0);
    }
    free(copy);
}

static void others(const uint8_t *bytes, uint32_t len)
{
    uint8_t again[SUPER_BYTES], masks_again[MASKS_BYTES];
    uint16_t masks[MASKS_CHUNKS];
    struct fs_super super;
    struct entry entry;
    uint64_t ino;

    if (super_decode(bytes, len, &super) == 0) {
        super_encode(&super, again);
        must(memcmp(again, bytes, SUPER_BYTES) == 0);
    }
    if (entry_decode(bytes, len, &entry) == 0)
        must(entry.ino > 0 && entry.ino < FS_INO_END && (entry.type & ~(uint32_t)S_IFMT) == 0);
    if (masks_decode(bytes, len, masks) == 0) {
        masks_encode(masks, masks_again);
        must(memcmp(masks_again, bytes, MASKS_BYTES) == 0);
    }
    if (orphan_decode(bytes, len, &ino) == 0)
        must(ino > FS_INO_ROOT && ino < FS_INO_END);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static void (*const decoders[])(const uint8_t *bytes, uint32_t len) = {inode, listing, xattrs, acl, others};

    if (len == 0 || len > 1 << 20)
        return 0;
    uint8_t *copy = malloc(len); /* so that a byte too far is seen */
    memcpy(copy, data + 1, len - 1);
    decoders[data[0] % 5](copy, (uint32_t)len - 1);
    free(copy);
    return 0;
}
