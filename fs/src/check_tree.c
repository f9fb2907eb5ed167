// SPDX-License-Identifier: MIT
/* check_tree: each record against the inodes, then each inode against what was found. */
#include "checking.h"
#include "private.h"

#include <errno.h>
#include <string.h>

/* ---- sums ---------------------------------------------------------------------------------------------- */

static uint64_t stir(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t sum_of_name(uint64_t seed, const void *name, size_t len)
{
    const uint8_t *at = name;

    for (size_t i = 0; i < len; i++)
        seed = (seed ^ at[i]) * UINT64_C(0x100000001b3);
    return stir(seed ^ len);
}

static uint64_t sum_of_entry(const struct entry *entry, const void *name, size_t len)
{
    return sum_of_name(stir(stir(entry->ino) + entry->seq) + entry->type, name, len);
}

static uint64_t sum_of_two(uint64_t a, uint64_t b)
{
    return stir(stir(a) + b);
}

/* Of the blocks [first, end) of a directory. Side by side they add up to the whole, whatever each one's length: what
 * overlaps, or is left out, does not. */
static uint64_t sum_of_blocks(uint64_t first, uint64_t end)
{
    return stir(~end) - stir(~first);
}

/* ---- inodes, and what stands alone --------------------------------------------------------------------- */

static int add_node(struct check *c, const struct inode *inode)
{
    int rc = check_grow(&c->nodes, c->node_count, &c->node_room, sizeof *c->nodes);

    if (rc < 0)
        return rc;
    struct node *node = &c->nodes[c->node_count++];
    *node = (struct node){
        .ino = inode->ino, .nlink = inode->nlink, .mode = (uint16_t)inode->mode, .flags = (uint8_t)inode->flags};
    node->attributes = inode->flags & INODE_XATTR_FLAGS;
    if (S_ISDIR(inode->mode)) {
        node->dir.parent = inode->parent;
        node->dir.first_seq = inode->first_seq;
        node->dir.next_seq = inode->next_seq;
        node->dir.agreement = sum_of_blocks(inode->first_seq / FS_BLOCK_NAMES, inode->next_seq / FS_BLOCK_NAMES);
        node->entries = (int32_t)inode->entries;
    } else {
        node->file.size = inode->size;
        node->file.blocks = inode->flags & INODE_SPARSE ? inode->blocks : 0;
        node->file.data_end = (uint32_t)inode->data_end;
    }
    if (inode->ino > c->highest_ino)
        c->highest_ino = inode->ino;
    return 0;
}

static int stray(struct check *c, uint64_t ino, const char *what, const struct store_item *item)
{
    return check_fault_at(c, FAULT_STRAY, ino, what, item->key, item->key_len, 0);
}

int check_inode(struct check *c, const struct store_item *item)
{
    const uint8_t *key = item->key;
    struct inode inode;

    if (key[0] != 'I')
        return 0;
    if (item->key_len != 9 || inode_decode(item->value, item->value_len, key_number(key + 1), &inode) < 0)
        return stray(c, item->key_len == 9 ? key_number(key + 1) : 0, "its attributes make no sense", item);
    return add_node(c, &inode);
}

static int take_super(struct check *c, const struct store_item *item)
{
    if (item->key_len != 1)
        return stray(c, 0, "a record of no known kind", item);
    int rc = super_decode(item->value, item->value_len, &c->super);
    c->super_found = rc == 0;
    return rc == -EPROTONOSUPPORT ? rc : 0; /* what is not known here is no fault there */
}

static int take_counter(struct check *c, const struct store_item *item)
{
    if (item->key_len != 9 || item->value_len != COUNTER_BYTES)
        return stray(c, 0, "a counter that makes no sense", item);
    c->counted += counter_decode(item->value);
    return 0;
}

static int take_orphan(struct check *c, const struct store_item *item)
{
    uint64_t ino = 0, number = item->key_len == 9 ? key_number((const uint8_t *)item->key + 1) : 0;

    if (item->key_len != 9 || orphan_decode(item->value, item->value_len, &ino) < 0)
        return stray(c, 0, "an entry of the reap list that makes no sense", item);
    if (number > c->highest_orphan)
        c->highest_orphan = number;
    struct node *node = check_node(c, ino);
    if (!node || node->nlink > 0)
        return stray(c, ino, "it is on the reap list and should not be", item);
    node->state |= NODE_ORPHAN;
    return 0;
}

/* ---- directories: names, listings, gaps ------------------------------------------------------------------ */

static int take_entry(struct check *c, const struct store_item *item)
{
    const uint8_t *key = item->key;
    uint64_t parent = key_number(key + 1);
    struct node *dir = check_node(c, parent), *node;
    struct entry entry;

    if (!name_is_sound((const char *)key + 9, item->key_len - 9) ||
        entry_decode(item->value, item->value_len, &entry) < 0)
        return check_fault_at(c, FAULT_ENTRY, parent, "a name that makes no sense", key, item->key_len, 0);
    node = check_node(c, entry.ino);
    if (!node && !(S_ISDIR(entry.type) && dir)) /* a directory is made anew when what is in it is met */
        return check_fault_at(c, FAULT_ENTRY, parent, "a name that leads to no file", key, item->key_len, 0);
    if (!node)
        return check_fault_at(c, FAULT_ENTRY, parent, "a name that leads to a directory which is not there", key,
                              item->key_len, entry.ino);
    node->names++;
    if (!dir)
        return check_fault_at(c, FAULT_PARENT, parent, "a directory that is not there has names in it", key,
                              item->key_len, 0);
    if (!S_ISDIR(dir->mode))
        return check_fault_at(c, FAULT_ENTRY, parent, "a name in what is no directory", key, item->key_len, 0);
    dir->entries--;
    dir->subdirs += S_ISDIR(node->mode);
    dir->dir.agreement += sum_of_entry(&entry, key + 9, item->key_len - 9);
    if (entry.seq < dir->dir.first_seq || entry.seq >= dir->dir.next_seq || (node->mode & S_IFMT) != entry.type)
        dir->dir.agreement++; /* agrees with nothing */
    if (S_ISDIR(node->mode) && node->dir.parent != parent)
        return check_fault_at(c, FAULT_TWICE, parent, "a second name of a directory, or its \"..\" leads elsewhere",
                              key, item->key_len, entry.ino);
    return 0;
}

/* The directory of a listing or a gap; NULL: *ret_rc. */
static struct node *listed_dir(struct check *c, const struct store_item *item, int *ret_rc)
{
    uint64_t parent = key_number((const uint8_t *)item->key + 1);
    struct node *dir = check_node(c, parent);

    *ret_rc = 0;
    if (item->key_len != 17 || !dir || !S_ISDIR(dir->mode)) {
        *ret_rc = stray(c, parent, "a listing of what is no directory", item);
        return NULL;
    }
    return dir;
}

/* Takes the names of a listing, whose numbers ascend in [first, end); or, once that was done, gives back those whose
 * bits are in `dead`. Returns the bits of the names it has. */
static uint64_t take_listed(struct node *dir, const uint8_t *bytes, uint32_t len, uint64_t first, uint64_t end,
                            uint64_t dead)
{
    struct listed listed;
    uint64_t bits = 0;

    for (uint32_t at = 0; at < len;) {
        int next = listing_next(bytes, len, at, &listed);
        if (next < 0 || listed.entry.seq < first || listed.entry.seq >= end) {
            dir->dir.agreement++;
            return bits;
        }
        uint64_t sum = sum_of_entry(&listed.entry, listed.name, listed.name_len);
        uint64_t bit = UINT64_C(1) << listed.entry.seq % FS_BLOCK_NAMES;
        if (dead == 0)
            dir->dir.agreement -= sum;
        else if (dead & bit)
            dir->dir.agreement += sum;
        bits |= bit;
        first = listed.entry.seq + 1;
        at = (uint32_t)next;
    }
    return bits;
}

static bool is_complete(const struct node *dir, uint64_t block)
{
    return block < dir->dir.next_seq / FS_BLOCK_NAMES;
}

/* Of `names` numbers, a page's or a block's. */
static int take_listing(struct check *c, const struct store_item *item, unsigned names)
{
    uint64_t number = key_number((const uint8_t *)item->key + 9);
    int rc;
    struct node *dir = listed_dir(c, item, &rc);

    if (!dir)
        return rc;
    if (number > FS_SEQ_END / names || item->value_len == 0 ||
        is_complete(dir, number * names / FS_BLOCK_NAMES) != (names == FS_BLOCK_NAMES)) {
        dir->dir.agreement++;
        return 0;
    }
    if (names == FS_BLOCK_NAMES)
        dir->dir.agreement -= sum_of_blocks(number, number + 1);
    take_listed(dir, item->value, item->value_len, number * names, (number + 1) * names, 0);
    return 0;
}

/* The bits of a block: the names that are gone were taken with it, and are given back. */
static int take_bits(struct check *c, const struct store_item *item)
{
    uint8_t bytes[BLOCK_BYTES_MAX];
    uint64_t number = key_number((const uint8_t *)item->key + 9);
    uint32_t len = 0;
    int rc;
    struct node *dir = listed_dir(c, item, &rc);

    if (!dir)
        return rc;
    struct fs_key names = key_block(dir->ino, number);
    uint64_t live = item->value_len == WORD_BYTES ? word_decode(item->value) : 0;
    rc = check_get(c, &names, bytes, sizeof bytes, &len);
    if (live == 0 || ~live == 0 || rc != 0 || len > sizeof bytes || number >= FS_SEQ_END / FS_BLOCK_NAMES) {
        dir->dir.agreement++;
        return rc < 0 && rc != -EIO ? rc : 0;
    }
    uint64_t first = number * FS_BLOCK_NAMES;
    if (live & ~take_listed(dir, bytes, len, first, first + FS_BLOCK_NAMES, ~live))
        dir->dir.agreement++;
    return 0;
}

static int take_gap(struct check *c, const struct store_item *item, bool end)
{
    uint64_t block = key_number((const uint8_t *)item->key + 9), other;
    int rc;
    struct node *dir = listed_dir(c, item, &rc);

    if (!dir)
        return rc;
    other = item->value_len == WORD_BYTES ? word_decode(item->value) : block;
    if (end) {
        dir->dir.agreement -= sum_of_two(other, block);
        return 0;
    }
    dir->dir.agreement += sum_of_two(block, other) - sum_of_blocks(block, other);
    if (other <= block || other > dir->dir.next_seq / FS_BLOCK_NAMES)
        dir->dir.agreement++;
    return 0;
}

/* ---- contents and attributes ----------------------------------------------------------------------------- */

/* The regular file of a chunk, a patch, or masks; NULL: the record leads nowhere, *ret_rc. */
static struct node *file_of(struct check *c, const struct store_item *item, uint32_t key_len, bool patches, int *ret_rc)
{
    uint64_t ino = key_number((const uint8_t *)item->key + 1);
    struct node *node = check_node(c, ino);

    if (item->key_len == key_len && node && S_ISREG(node->mode) && (!patches || node->flags & INODE_PATCHED))
        return node;
    *ret_rc = stray(c, ino, patches ? "part of the contents of what has none" : "contents of what is no file", item);
    return NULL;
}

/* How far the file reaches into the chunk. */
static uint64_t room_in(const struct node *node, uint64_t chunk)
{
    return chunk < node->file.data_end ? smaller(FS_CHUNK_BYTES, node->file.size - chunk * FS_CHUNK_BYTES) : 0;
}

/* A chunk has `len` bytes, and was counted with `before`; -1: not yet. */
static void count_chunk(struct node *node, uint64_t room, uint64_t len, int64_t before)
{
    if (before < 0)
        node->file.chunks++;
    if (node->flags & INODE_SPARSE)
        node->file.blocks -= chunk_blocks((uint32_t)len) - (before < 0 ? 0 : chunk_blocks((uint32_t)before));
    else
        node->file.blocks += before < 0 ? room - len : (uint64_t)before - len; /* there is none that lacks something */
}

static int take_chunk(struct check *c, const struct store_item *item)
{
    const uint8_t *key = item->key;
    int rc;
    struct node *node = file_of(c, item, 17, false, &rc);

    if (!node)
        return rc;
    uint64_t room = room_in(node, key_number(key + 9));
    if (room == 0)
        return stray(c, node->ino, "contents beyond the end of the file", item);
    count_chunk(node, room, smaller(item->value_len, room), -1);
    if (item->value_len > room)
        return check_fault_at(c, FAULT_LENGTH, node->ino, "contents reach beyond the end of the file", key,
                              item->key_len, room);
    return 0;
}

static int take_patch(struct check *c, const struct store_item *item)
{
    const uint8_t *key = item->key, *value = item->value;
    int rc;
    struct node *node = file_of(c, item, 18, true, &rc);

    if (!node)
        return rc;
    uint64_t chunk = key_number(key + 9), room = room_in(node, chunk), start = key[17] * (uint64_t)FS_PAGE_BYTES;
    if (start >= room || item->value_len != FS_PAGE_BYTES)
        return stray(c, node->ino, "part of the contents makes no sense, or is beyond the end of the file", item);
    node->file.patches -= sum_of_two(chunk, key[17]);
    for (uint64_t at = room - start; at < FS_PAGE_BYTES; at++)
        if (value[at] != 0)
            return check_fault_at(c, FAULT_LENGTH, node->ino, "contents reach beyond the end of the file", key,
                                  item->key_len, room - start);
    return 0;
}

/* A chunk with patches is as long as its record, or they, reach. */
static int take_mask(struct check *c, struct node *node, uint64_t chunk, uint16_t mask)
{
    struct fs_key key = key_chunk(node->ino, chunk);
    uint64_t room = room_in(node, chunk);
    uint32_t have = 0;

    if (patched_end(mask) >= room + FS_PAGE_BYTES) {
        node->file.patches++; /* agrees with nothing */
        return 0;
    }
    for (unsigned page = 0; page < FS_CHUNK_PAGES; page++)
        if (mask & 1u << page)
            node->file.patches += sum_of_two(chunk, page);
    int rc = check_get(c, &key, NULL, 0, &have);
    uint64_t len = rc == STORE_OK ? smaller(have, room) : 0;
    uint64_t whole = smaller(room, len > patched_end(mask) ? len : patched_end(mask));
    count_chunk(node, room, whole, rc == STORE_OK ? (int64_t)len : -1);
    return rc < 0 && rc != -EIO ? rc : 0;
}

static int take_masks(struct check *c, const struct store_item *item)
{
    uint16_t masks[MASKS_CHUNKS];
    uint64_t any = 0, first;
    int rc = 0;
    struct node *node = file_of(c, item, 17, true, &rc);

    if (!node)
        return rc;
    if (masks_decode(item->value, item->value_len, masks) < 0)
        return stray(c, node->ino, "which parts of the contents are where makes no sense", item);
    first = key_number((const uint8_t *)item->key + 9) * MASKS_CHUNKS;
    for (unsigned i = 0; i < MASKS_CHUNKS && rc == 0; i++) {
        any |= masks[i];
        if (masks[i])
            rc = take_mask(c, node, first + i, masks[i]);
    }
    if (!any)
        node->file.patches++;
    return rc;
}

static int take_table(struct check *c, const struct store_item *item)
{
    uint64_t ino = key_number((const uint8_t *)item->key + 1);
    struct node *node = check_node(c, ino);
    struct xattr xattr;

    if (item->key_len != 9 || !node || !(node->flags & INODE_XATTRS))
        return stray(c, ino, "extended attributes of what has none", item);
    node->state |= NODE_TABLE;
    if (item->value_len > XATTR_TABLE_MAX)
        return check_fault(c, FAULT_ATTRIBUTES, ino, "extended attributes make no sense");
    for (uint32_t at = 0; at < item->value_len;) {
        int next = xattr_next(item->value, item->value_len, at, &xattr);
        if (next < 0)
            return check_fault(c, FAULT_ATTRIBUTES, ino, "extended attributes make no sense");
        node->attributes -= xattr_flag(xattr.name, xattr.name_len);
        if (!xattr.value)
            node->attributes += (uint32_t)sum_of_name(xattr.value_len, xattr.name, xattr.name_len);
        at = (uint32_t)next;
    }
    return 0;
}

static int take_value(struct check *c, const struct store_item *item)
{
    const uint8_t *key = item->key;
    uint64_t ino = key_number(key + 1);
    struct node *node = check_node(c, ino);

    if (item->key_len <= 9 || !node || !(node->flags & INODE_XATTRS))
        return stray(c, ino, "an extended attribute of what has none", item);
    node->attributes -= (uint32_t)sum_of_name(item->value_len, key + 9, item->key_len - 9);
    return 0;
}

int check_record(struct check *c, const struct store_item *item)
{
    const uint8_t *key = item->key;

    if (item->key_len < 9 && key[0] != 'S')
        return stray(c, 0, "a record of no known kind", item);
    switch (key[0]) {
    case 'I':
        return 0;
    case 'S':
        return take_super(c, item);
    case 'N':
        return take_counter(c, item);
    case 'O':
        return take_orphan(c, item);
    case 'D':
        return take_entry(c, item);
    case 'E':
        return take_listing(c, item, FS_PAGE_NAMES);
    case 'M':
        return take_listing(c, item, FS_BLOCK_NAMES);
    case 'B':
        return take_bits(c, item);
    case 'G':
    case 'H':
        return take_gap(c, item, key[0] == 'H');
    case 'C':
        return take_chunk(c, item);
    case 'c':
        return take_patch(c, item);
    case 'P':
        return take_masks(c, item);
    case 'X':
        return take_table(c, item);
    case 'Y':
        return take_value(c, item);
    default:
        return stray(c, 0, "a record of no known kind", item);
    }
}

/* ---- judging --------------------------------------------------------------------------------------------- */

/* Is the root above the directory? Marks what it passes. */
static void walk_up(struct check *c, struct node *node)
{
    struct node *at = node;

    while (at && S_ISDIR(at->mode) && !(at->state & NODE_VISITED)) {
        at->state |= NODE_VISITED;
        at = at->names > 0 ? check_node(c, at->dir.parent) : NULL;
    }
    bool reached = at && S_ISDIR(at->mode) && (at->state & NODE_REACHED);
    for (at = node; reached && at && !(at->state & NODE_REACHED); at = check_node(c, at->dir.parent))
        at->state |= NODE_REACHED;
}

static int judge_dir(struct check *c, struct node *node)
{
    if (node->names == 0 && node->ino != FS_INO_ROOT)
        return check_fault(c, FAULT_NAMELESS, node->ino, "a directory that no name leads to");
    walk_up(c, node);
    int rc = 0;
    if (!(node->state & NODE_REACHED))
        rc = check_fault(c, FAULT_CYCLE, node->ino, "a directory that cannot be reached from the root");
    if (rc == 0 && (node->dir.agreement != 0 || node->entries != 0))
        rc = check_fault(c, FAULT_DIRECTORY, node->ino, "its names, its listings and their number do not agree");
    if (rc == 0 && node->nlink != node->subdirs + 2)
        rc = check_fault(c, FAULT_DIRECTORY, node->ino, "its link count is wrong");
    return rc;
}

static int judge_file(struct check *c, struct node *node)
{
    int rc = 0;

    if (node->names == 0)
        rc = check_fault(c, FAULT_NAMELESS, node->ino, "a file that no name leads to");
    else if (node->names != node->nlink)
        rc = check_fault(c, FAULT_LINKS, node->ino, "its link count is wrong");
    if (rc < 0 || !S_ISREG(node->mode))
        return rc;
    if (node->file.patches != 0)
        return check_fault(c, FAULT_PATCHES, node->ino, "part of its contents is missing");
    uint64_t chunks = node->flags & INODE_INLINE ? 0 : (node->file.size + FS_CHUNK_BYTES - 1) / FS_CHUNK_BYTES;
    if (node->file.blocks != 0 || (!(node->flags & INODE_SPARSE) && node->file.chunks != chunks))
        rc = check_fault(c, FAULT_CONTENTS, node->ino, "part of its contents is missing, or their number is wrong");
    return rc;
}

static int judge(struct check *c, struct node *node)
{
    int rc = 0;

    if (node->nlink == 0 && node->names == 0 && node->ino != FS_INO_ROOT) {
        if (!(node->state & NODE_ORPHAN))
            rc = check_fault(c, FAULT_DELETED, node->ino, "it was deleted and is not on the reap list");
        return rc; /* being removed, some at a time: its parts need not be whole */
    }
    rc = S_ISDIR(node->mode) ? judge_dir(c, node) : judge_file(c, node);
    bool table = node->state & NODE_TABLE;
    if (rc == 0 && (table != ((node->flags & INODE_XATTRS) != 0) || node->attributes != 0))
        rc = check_fault(c, FAULT_ATTRIBUTES, node->ino, "some of its extended attributes are missing");
    return rc;
}

int check_judge(struct check *c)
{
    struct node *root = check_node(c, FS_INO_ROOT);
    int rc = 0;

    if (root && S_ISDIR(root->mode))
        root->state |= NODE_REACHED | NODE_VISITED;
    else
        rc = check_fault(c, FAULT_SUPER, FS_INO_ROOT, "there is no root directory");
    if (rc == 0 &&
        (!c->super_found || c->super.next_ino <= c->highest_ino || c->super.next_orphan <= c->highest_orphan))
        rc = check_fault(c, FAULT_SUPER, 0, "the numbers that are in use are not all known as used");
    for (uint64_t i = 0; i < c->node_count && rc == 0; i++)
        rc = judge(c, &c->nodes[i]);
    if (rc == 0 && c->counted != (int64_t)c->node_count)
        rc = check_fault(c, FAULT_COUNTER, 0, "the number of inodes is wrong");
    return rc;
}
