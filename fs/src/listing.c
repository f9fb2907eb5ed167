// SPDX-License-Identifier: MIT
/*
 * The names of a directory, in the order in which they came: entries, listings, gaps; changing them.
 *
 * Invariants:
 *   1. An entry record (parent, name) exists exactly when the listing of its sequence number has it.
 *   2. A directory's `entries` counts its names; its nlink is 2 and one more for each directory in it.
 *   3. Sequence numbers of a directory are given once, ascending. A block whose 64 numbers were all given is one
 * listing; of the last block, the names stand in listings of 8. Both in order of their numbers, absent when empty.
 *   4. In a block a name is there if its bit is set, or if there is no record of the bits: that is made when the first
 *      name goes. So a name goes by 8 bytes.
 *   5. The block of first_seq has a name, unless the directory is empty. Blocks without names after it, all
 *      of whose numbers were given, make up gaps that readdir can jump: [a, b) has 'G' a = b and 'H' b = a.
 *      A unit takes one name out of a directory at most, so one block at most dies in it.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

bool block_is_complete(const struct inode *dir, uint64_t block)
{
    return (block + 1) * FS_BLOCK_NAMES <= dir->next_seq;
}

static int get_word(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key,
                    uint64_t *ret_word)
{
    uint8_t bytes[WORD_BYTES];
    uint32_t len;
    int rc = get_value(s, snapshot, key, bytes, sizeof bytes, &len);

    if (rc == 0 && len != WORD_BYTES)
        rc = -EIO;
    if (rc == 0)
        *ret_word = word_decode(bytes);
    return rc;
}

int get_gap(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, uint64_t *ret_block)
{
    return get_word(s, snapshot, key, ret_block);
}

/* ---- what a txn has of them ------------------------------------------------------------------------------ */

static int load_page(struct fs_session *s, uint64_t dir, uint64_t number, struct page **ret_page)
{
    struct txn *t = &s->txn;

    for (unsigned i = 0; i < t->page_count; i++) {
        if (t->pages[i].dir == dir && t->pages[i].number == number) {
            *ret_page = &t->pages[i];
            return 0;
        }
    }
    assert(t->page_count < TXN_PAGES);
    struct page *page = &t->pages[t->page_count];
    struct fs_key key = key_listing(dir, number);
    page->dir = dir;
    page->number = number;
    page->dirty = false;
    page->len = 0;
    int rc = get_value(s, NULL, &key, page->bytes, sizeof page->bytes, &page->len);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    page->existed = rc == 0;
    t->page_count++;
    *ret_page = page;
    return 0;
}

static struct block *find_block(struct txn *t, uint64_t dir, uint64_t number)
{
    for (struct block *block = t->blocks; block < t->blocks + t->block_count; block++)
        if (block->dir == dir && block->number == number)
            return block;
    return NULL;
}

static struct block *new_block(struct txn *t, uint64_t dir, uint64_t number)
{
    assert(t->block_count < TXN_BLOCKS);
    struct block *block = &t->blocks[t->block_count++];
    block->dir = dir;
    block->number = number;
    block->live = 0;
    block->len = 0;
    block->existed = block->loaded = block->listing_dirty = block->live_dirty = false;
    return block;
}

static int load_names(struct fs_session *s, struct block *block)
{
    struct fs_key key = key_block(block->dir, block->number);
    int rc = get_value(s, NULL, &key, block->bytes, sizeof block->bytes, &block->len);

    block->loaded = rc == 0;
    return rc == -ENOENT ? -EIO : rc;
}

/* The bits of `len` bytes of listings of the block. -EIO. */
static int add_bits(struct block *block, const uint8_t *bytes, uint32_t len)
{
    struct listed listed;

    for (uint32_t at = 0; at < len;) {
        int next = listing_next(bytes, len, at, &listed);
        if (next < 0 || listed.entry.seq / FS_BLOCK_NAMES != block->number)
            return -EIO;
        block->live |= UINT64_C(1) << listed.entry.seq % FS_BLOCK_NAMES;
        at = (uint32_t)next;
    }
    return 0;
}

/* The bits of a complete block. */
static int load_live(struct fs_session *s, uint64_t dir, uint64_t number, struct block **ret_block)
{
    struct fs_key key = key_live(dir, number);
    struct block *block = find_block(&s->txn, dir, number);
    int rc = 0;

    if (!block) {
        block = new_block(&s->txn, dir, number);
        block->existed = true;
        rc = get_word(s, NULL, &key, &block->live);
        if (rc == -ENOENT && (rc = load_names(s, block)) == 0)
            rc = add_bits(block, block->bytes, block->len);
    }
    *ret_block = block;
    return rc;
}

/* And its names. */
static int load_block(struct fs_session *s, uint64_t dir, uint64_t number, struct block **ret_block)
{
    int rc = load_live(s, dir, number, ret_block);

    return rc < 0 || (*ret_block)->loaded ? rc : load_names(s, *ret_block);
}

/* The last number of a block was given: its listings become one. */
static int merge(struct fs_session *s, uint64_t dir, uint64_t number)
{
    struct block *block = new_block(&s->txn, dir, number);
    uint64_t first = number * (FS_BLOCK_NAMES / FS_PAGE_NAMES);
    struct page *page;

    for (uint64_t i = first; i < first + FS_BLOCK_NAMES / FS_PAGE_NAMES; i++) {
        int rc = load_page(s, dir, i, &page);
        if (rc == 0)
            rc = add_bits(block, page->bytes, page->len);
        if (rc < 0)
            return rc;
        memcpy(block->bytes + block->len, page->bytes, page->len);
        block->len += page->len;
        page->len = 0;
        page->dirty = true;
    }
    block->loaded = block->listing_dirty = true;
    return 0;
}

static int add_pages(struct fs_session *s)
{
    struct txn *t = &s->txn;
    int rc = 0;

    for (unsigned i = 0; i < t->page_count && rc == 0; i++) {
        struct page *page = &t->pages[i];
        struct fs_key key = key_listing(page->dir, page->number);
        if (!page->dirty)
            continue;
        /* A new page has room for names as long as its first: it then grows in place. */
        if (page->len > 0)
            rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){page->bytes, page->len}, 1,
                                   page->existed ? 0 : page->len * FS_PAGE_NAMES);
        else if (page->existed)
            rc = store_unit_delete(s->store, key.bytes, key.len);
    }
    return rc;
}

static int add_block(struct fs_session *s, struct block *block)
{
    struct fs_key names = key_block(block->dir, block->number), live = key_live(block->dir, block->number);
    int rc = 0;

    if (block->live == 0) {
        if (block->existed && (rc = store_unit_delete(s->store, names.bytes, names.len)) == 0)
            rc = store_unit_delete(s->store, live.bytes, live.len);
        return rc;
    }
    if (block->listing_dirty)
        rc = store_unit_upsert(s->store, names.bytes, names.len, &(struct store_piece){block->bytes, block->len}, 1, 0);
    if (rc < 0 || !block->live_dirty)
        return rc;
    word_encode(block->live, block->live_bytes);
    return store_unit_upsert(s->store, live.bytes, live.len, &(struct store_piece){block->live_bytes, WORD_BYTES}, 1,
                             0);
}

int listings_add(struct fs_session *s)
{
    int rc = add_pages(s);

    for (unsigned i = 0; i < s->txn.block_count && rc == 0; i++)
        rc = add_block(s, &s->txn.blocks[i]);
    return rc;
}

/* ---- names that come and go -------------------------------------------------------------------------------- */

static void touch_directory(struct fs_session *s, struct inode *dir)
{
    dir->mtime = dir->ctime = s->txn.now;
    txn_dirty(s, dir);
}

static int put_entry(struct fs_session *s, uint64_t dir, const char *name, const struct entry *entry)
{
    struct txn *t = &s->txn;
    struct fs_key key = key_entry(dir, name, strlen(name));

    assert(t->entry_count < TXN_ENTRIES);
    uint8_t *bytes = t->entry_bytes[t->entry_count++];
    entry_encode(entry, bytes);
    return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, ENTRY_BYTES}, 1, 0);
}

int txn_add_name(struct fs_session *s, struct inode *dir, const char *name, uint64_t ino, uint32_t type)
{
    struct entry entry = {.ino = ino, .seq = dir->next_seq, .type = type & S_IFMT};
    size_t name_len = strlen(name);
    struct page *page;
    int rc = load_page(s, dir->ino, entry.seq / FS_PAGE_NAMES, &page);

    if (rc < 0)
        return rc;
    if (page->len + LISTED_HEADER_BYTES + name_len > sizeof page->bytes)
        return -EIO;
    page->len = listing_append(page->bytes, page->len, &entry, name, name_len);
    page->dirty = true;
    dir->next_seq++;
    dir->entries++;
    touch_directory(s, dir);
    rc = put_entry(s, dir->ino, name, &entry);
    return rc < 0 || dir->next_seq % FS_BLOCK_NAMES != 0 ? rc : merge(s, dir->ino, entry.seq / FS_BLOCK_NAMES);
}

/* Finds the entry in its listing: where it begins, or -EIO. */
static int find_listed(const uint8_t *bytes, uint32_t len, uint64_t seq, int *ret_next)
{
    struct listed listed;

    for (uint32_t at = 0; at < len; at = (uint32_t)*ret_next) {
        *ret_next = listing_next(bytes, len, at, &listed);
        if (*ret_next < 0)
            return *ret_next;
        if (listed.entry.seq == seq)
            return (int)at;
    }
    return -EIO;
}

static int unlist(struct page *page, uint64_t seq)
{
    int next = 0, at = find_listed(page->bytes, page->len, seq, &next);

    if (at < 0)
        return at;
    memmove(page->bytes + at, page->bytes + next, page->len - (uint32_t)next);
    page->len -= (uint32_t)(next - at);
    page->dirty = true;
    return 0;
}

int txn_replace_name(struct fs_session *s, struct inode *dir, const char *name, const struct entry *entry, uint64_t ino,
                     uint32_t type)
{
    struct entry changed = {.ino = ino, .seq = entry->seq, .type = type & S_IFMT};
    bool complete = block_is_complete(dir, entry->seq / FS_BLOCK_NAMES);
    struct page *page = NULL;
    struct block *block = NULL;
    int next, rc = complete ? load_block(s, dir->ino, entry->seq / FS_BLOCK_NAMES, &block)
                            : load_page(s, dir->ino, entry->seq / FS_PAGE_NAMES, &page);

    if (rc < 0)
        return rc;
    uint8_t *bytes = complete ? block->bytes : page->bytes;
    int at = find_listed(bytes, complete ? block->len : page->len, entry->seq, &next);
    if (at < 0)
        return at;
    listing_set(bytes, (uint32_t)at, &changed);
    *(complete ? &block->listing_dirty : &page->dirty) = true;
    touch_directory(s, dir);
    return put_entry(s, dir->ino, name, &changed);
}

static int put_gap(struct fs_session *s, const struct fs_key *key, unsigned which, uint64_t block)
{
    uint8_t *bytes = s->txn.gap_bytes[which];

    word_encode(block, bytes);
    return store_unit_upsert(s->store, key->bytes, key->len, &(struct store_piece){bytes, WORD_BYTES}, 1, 0);
}

/* The block has lost its last name: joins it with the gaps beside it, or, at the front, moves
 * first_seq past them. */
static int bury_block(struct fs_session *s, struct inode *dir, uint64_t block)
{
    uint64_t first = block, end = block + 1;
    struct fs_key before = key_gap_end(dir->ino, block), after = key_gap(dir->ino, block + 1);
    int rc = 0, joins = 0;

    if ((rc = get_gap(s, NULL, &before, &first)) == 0)
        rc = first < block ? store_unit_delete(s->store, before.bytes, before.len) : -EIO;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if ((rc = get_gap(s, NULL, &after, &end)) == 0) {
        joins = 1;
        rc = end > block + 1 && end <= dir->next_seq / FS_BLOCK_NAMES
                 ? store_unit_delete(s->store, after.bytes, after.len)
                 : -EIO;
    }
    if (rc < 0 && rc != -ENOENT)
        return rc;
    struct fs_key at_first = key_gap(dir->ino, first), at_end = key_gap_end(dir->ino, end);
    if (block == dir->first_seq / FS_BLOCK_NAMES) {
        dir->first_seq = end * FS_BLOCK_NAMES;
        return joins ? store_unit_delete(s->store, at_end.bytes, at_end.len) : 0;
    }
    rc = put_gap(s, &at_first, 0, end);
    return rc < 0 ? rc : put_gap(s, &at_end, 1, first);
}

/* Takes the number out of its complete block. */
static int kill_listed(struct fs_session *s, struct inode *dir, uint64_t seq)
{
    uint64_t number = seq / FS_BLOCK_NAMES, bit = UINT64_C(1) << seq % FS_BLOCK_NAMES;
    struct block *block;
    int rc = load_live(s, dir->ino, number, &block);

    if (rc == 0 && !(block->live & bit))
        rc = -EIO;
    if (rc < 0)
        return rc;
    block->live &= ~bit;
    block->live_dirty = true;
    return block->live == 0 ? bury_block(s, dir, number) : 0;
}

int txn_remove_name(struct fs_session *s, struct inode *dir, const char *name, const struct entry *entry)
{
    struct page *page;
    int rc;

    if (block_is_complete(dir, entry->seq / FS_BLOCK_NAMES))
        rc = kill_listed(s, dir, entry->seq);
    else if ((rc = load_page(s, dir->ino, entry->seq / FS_PAGE_NAMES, &page)) == 0)
        rc = unlist(page, entry->seq);
    if (rc < 0)
        return rc;
    if (dir->entries == 0)
        return -EIO;
    dir->entries--;
    touch_directory(s, dir);
    if (dir->entries == 0)
        dir->first_seq = dir->next_seq;
    struct fs_key key = key_entry(dir->ino, name, strlen(name));
    return store_unit_delete(s->store, key.bytes, key.len);
}
