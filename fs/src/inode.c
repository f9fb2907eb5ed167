// SPDX-License-Identifier: MIT
/*
 * Inodes, entries and listings: reading them, and changing several in one unit (struct txn).
 *
 * Invariants:
 *   1. An entry record (parent, name) exists exactly when the listing of its sequence number has it.
 *   2. A directory's `entries` counts its names; its nlink is 2 and one more for each directory in it.
 *   3. The page of first_seq has a name, unless the directory is empty. Pages without names after it, all
 *      of whose numbers were given, make up gaps that readdir can jump: [a, b) has 'G' a = b and 'H' b = a.
 *      (Where two pages die in one unit, the second stays out of them: readdir then probes it.)
 *   4. Sequence numbers of a directory are given once, ascending.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#define UNIT_OVERHEAD_BYTES 1024u /* inodes, names, record headers: about */

int get_value(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, void *buf,
              uint32_t room, uint32_t *ret_len)
{
    struct store_read read = {.key = key->bytes,
                              .key_len = key->len,
                              .buf = buf,
                              .buf_len = room,
                              .value_hint = room,
                              .snapshot = snapshot};
    int rc = store_read_wait(s->store, &read);

    if (rc == STORE_NOT_FOUND)
        return -ENOENT;
    if (rc == 0 && read.value_len > room)
        return -EIO;
    if (rc == 0)
        *ret_len = read.value_len;
    return rc;
}

static int read_inode(struct fs_session *s, const struct view *view, uint8_t *buf, uint32_t room, uint32_t value_hint,
                      struct inode *ret_inode)
{
    struct fs_key key = key_inode(view->ino);
    struct store_read read = {.key = key.bytes,
                              .key_len = key.len,
                              .buf = buf,
                              .buf_len = room,
                              .value_hint = value_hint,
                              .snapshot = view->snapshot};
    int rc = store_read_wait(s->store, &read);

    if (rc == STORE_NOT_FOUND)
        return -ESTALE;
    return rc < 0 ? rc : inode_decode(buf, read.value_len, view->ino, ret_inode);
}

int get_inode(struct fs_session *s, const struct view *view, struct inode *ret_inode)
{
    uint8_t bytes[INODE_BYTES];

    return read_inode(s, view, bytes, sizeof bytes, INODE_BYTES, ret_inode);
}

int get_contents(struct fs_session *s, const struct view *view, struct inode *ret_inode)
{
    return read_inode(s, view, s->inode_record, sizeof s->inode_record, INODE_BYTES + FS_INLINE_MAX, ret_inode);
}

int get_entry(struct fs_session *s, const struct view *dir, const char *name, struct entry *ret_entry)
{
    uint8_t bytes[ENTRY_BYTES];
    struct fs_key key = key_entry(dir->ino, name, strlen(name));
    uint32_t len;
    int rc = get_value(s, dir->snapshot, &key, bytes, sizeof bytes, &len);

    return rc < 0 ? rc : entry_decode(bytes, len, ret_entry);
}

int get_gap(struct fs_session *s, const struct store_snapshot *snapshot, const struct fs_key *key, uint64_t *ret_page)
{
    uint8_t bytes[GAP_BYTES];
    uint32_t len;
    int rc = get_value(s, snapshot, key, bytes, sizeof bytes, &len);

    if (rc == 0 && len != GAP_BYTES)
        rc = -EIO;
    if (rc == 0)
        *ret_page = gap_decode(bytes);
    return rc;
}

void fs_now(struct fs *fs, struct timespec *ret_now)
{
    if (fs->options.now)
        fs->options.now(fs->options.now_ctx, ret_now);
    else
        clock_gettime(CLOCK_REALTIME, ret_now);
}

/* ---- the txn --------------------------------------------------------------------------------------- */

void txn_begin(struct fs_session *s)
{
    struct txn *t = &s->txn;

    t->inode_count = t->page_count = t->entry_count = t->dead_count = 0;
    t->mask_count = t->patch_count = t->part_count = t->fold_count = 0;
    t->inodes_added = 0;
    t->adopted = t->data_bytes = 0;
    t->gap_changed = false;
    fs_now(s->fs, &t->now);
    store_unit_begin(s->store);
}

void txn_abandon(struct fs_session *s)
{
    store_unit_abandon(s->store);
}

int txn_inode(struct fs_session *s, uint64_t ino, struct inode **ret_inode)
{
    struct txn *t = &s->txn;

    for (unsigned i = 0; i < t->inode_count; i++) {
        if (t->inodes[i].ino == ino) {
            *ret_inode = &t->inodes[i];
            return 0;
        }
    }
    assert(t->inode_count < TXN_INODES);
    int rc = read_inode(s, &(struct view){.ino = ino}, t->inode_records[t->inode_count], sizeof *t->inode_records,
                        INODE_BYTES + FS_INLINE_MAX, &t->inodes[t->inode_count]);
    if (rc < 0)
        return rc;
    t->inode_dirty[t->inode_count] = false;
    *ret_inode = &t->inodes[t->inode_count++];
    return 0;
}

struct inode *txn_new_inode(struct fs_session *s, const struct inode *inode)
{
    struct txn *t = &s->txn;

    assert(t->inode_count < TXN_INODES);
    t->inodes[t->inode_count] = *inode;
    t->inode_dirty[t->inode_count] = true;
    t->inodes_added++;
    return &t->inodes[t->inode_count++];
}

void txn_dirty(struct fs_session *s, const struct inode *inode)
{
    s->txn.inode_dirty[inode - s->txn.inodes] = true;
}

uint8_t *txn_contents(struct fs_session *s, const struct inode *inode)
{
    return s->txn.inode_records[inode - s->txn.inodes] + INODE_BYTES;
}

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
    int rc = load_page(s, dir->ino, entry.seq / FS_LISTING_NAMES, &page);

    if (rc < 0)
        return rc;
    if (page->len + LISTED_HEADER_BYTES + name_len > sizeof page->bytes)
        return -EIO;
    page->len = listing_append(page->bytes, page->len, &entry, name, name_len);
    page->dirty = true;
    dir->next_seq++;
    dir->entries++;
    touch_directory(s, dir);
    return put_entry(s, dir->ino, name, &entry);
}

/* Finds the entry in its listing: where it begins, or -EIO. */
static int find_listed(const struct page *page, uint64_t seq, int *ret_next)
{
    struct listed listed;

    for (uint32_t at = 0; at < page->len; at = (uint32_t)*ret_next) {
        *ret_next = listing_next(page->bytes, page->len, at, &listed);
        if (*ret_next < 0)
            return *ret_next;
        if (listed.entry.seq == seq)
            return (int)at;
    }
    return -EIO;
}

static int unlist(struct page *page, uint64_t seq)
{
    int next = 0, at = find_listed(page, seq, &next);

    if (at < 0)
        return at;
    memmove(page->bytes + at, page->bytes + next, page->len - (uint32_t)next);
    page->len -= (uint32_t)(next - at);
    page->dirty = true;
    return 0;
}

int txn_replace_name(struct fs_session *s, struct inode *dir, const char *name, const struct entry *entry,
                     uint64_t ino, uint32_t type)
{
    struct entry changed = {.ino = ino, .seq = entry->seq, .type = type & S_IFMT};
    struct page *page;
    int next, at, rc = load_page(s, dir->ino, entry->seq / FS_LISTING_NAMES, &page);

    if (rc < 0)
        return rc;
    at = find_listed(page, entry->seq, &next);
    if (at < 0)
        return at;
    listing_set(page->bytes, (uint32_t)at, &changed);
    page->dirty = true;
    touch_directory(s, dir);
    return put_entry(s, dir->ino, name, &changed);
}

static int put_gap(struct fs_session *s, const struct fs_key *key, unsigned which, uint64_t page)
{
    uint8_t *bytes = s->txn.gap_bytes[which];

    gap_encode(page, bytes);
    return store_unit_upsert(s->store, key->bytes, key->len, &(struct store_piece){bytes, GAP_BYTES}, 1, 0);
}

/* The listing `page` has lost its last name: joins it with the gaps beside it, or, at the front, moves
 * first_seq past them. */
static int bury_page(struct fs_session *s, struct inode *dir, uint64_t page)
{
    uint64_t first = page, end = page + 1;
    struct fs_key before = key_gap_end(dir->ino, page), after = key_gap(dir->ino, page + 1);
    int rc = 0, joins = 0;

    if (s->txn.gap_changed)
        return 0;
    s->txn.gap_changed = true;
    if ((rc = get_gap(s, NULL, &before, &first)) == 0)
        rc = store_unit_delete(s->store, before.bytes, before.len);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if ((rc = get_gap(s, NULL, &after, &end)) == 0) {
        joins = 1;
        rc = store_unit_delete(s->store, after.bytes, after.len);
    }
    if (rc < 0 && rc != -ENOENT)
        return rc;
    struct fs_key at_first = key_gap(dir->ino, first), at_end = key_gap_end(dir->ino, end);
    if (page == dir->first_seq / FS_LISTING_NAMES) {
        dir->first_seq = end * FS_LISTING_NAMES;
        return joins ? store_unit_delete(s->store, at_end.bytes, at_end.len) : 0;
    }
    rc = put_gap(s, &at_first, 0, end);
    return rc < 0 ? rc : put_gap(s, &at_end, 1, first);
}

int txn_remove_name(struct fs_session *s, struct inode *dir, const char *name, const struct entry *entry)
{
    struct page *page;
    uint64_t number = entry->seq / FS_LISTING_NAMES;
    int rc = load_page(s, dir->ino, number, &page);

    if (rc == 0)
        rc = unlist(page, entry->seq);
    if (rc < 0)
        return rc;
    if (dir->entries == 0)
        return -EIO;
    dir->entries--;
    touch_directory(s, dir);
    if (page->len == 0 && (number + 1) * FS_LISTING_NAMES <= dir->next_seq && (rc = bury_page(s, dir, number)) < 0)
        return rc;
    if (dir->entries == 0)
        dir->first_seq = dir->next_seq;
    struct fs_key key = key_entry(dir->ino, name, strlen(name));
    return store_unit_delete(s->store, key.bytes, key.len);
}

int txn_orphan(struct fs_session *s, struct inode *inode)
{
    struct txn *t = &s->txn;
    uint64_t number;
    int rc = alloc_orphan(s->fs, &number);

    if (rc < 0)
        return rc;
    assert(t->dead_count < 2);
    inode->nlink = 0;
    inode->orphan = number;
    t->dead[t->dead_count] = (struct dead){inode->ino, number};
    uint8_t *bytes = t->orphan_bytes[t->dead_count++];
    orphan_encode(inode->ino, bytes);
    struct fs_key key = key_orphan(number);
    return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, ORPHAN_BYTES}, 1, 0);
}

int txn_adopt(struct fs_session *s, struct inode *inode)
{
    struct fs_key key = key_orphan(inode->orphan);

    s->txn.adopted = inode->ino;
    inode->orphan = 0;
    return store_unit_delete(s->store, key.bytes, key.len);
}

static int add_inodes_and_pages(struct fs_session *s)
{
    struct txn *t = &s->txn;
    int rc = 0;

    for (unsigned i = 0; i < t->inode_count && rc == 0; i++) {
        if (!t->inode_dirty[i])
            continue;
        struct fs_key key = key_inode(t->inodes[i].ino);
        uint32_t len = INODE_BYTES + inode_contents(&t->inodes[i]);
        inode_encode(&t->inodes[i], t->inode_records[i]);
        /* Contents grow in place, a little. */
        rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){t->inode_records[i], len}, 1,
                               (len + 63) & ~63u);
    }
    for (unsigned i = 0; i < t->page_count && rc == 0; i++) {
        struct page *page = &t->pages[i];
        struct fs_key key = key_listing(page->dir, page->number);
        if (!page->dirty)
            continue;
        /* Room for a few names more: a new directory's page then grows in place. */
        if (page->len > 0)
            rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){page->bytes, page->len}, 1,
                                   page->existed ? (page->len + 255) & ~255u : 256);
        else if (page->existed)
            rc = store_unit_delete(s->store, key.bytes, key.len);
    }
    if (rc == 0 && t->inodes_added != 0)
        rc = count_in_unit(s, &t->inodes_added);
    return rc;
}

int txn_apply(struct fs_session *s, unsigned flags)
{
    struct txn *t = &s->txn;
    int rc = add_inodes_and_pages(s);

    if (rc == 0)
        rc = masks_add(s);
    if (rc == 0 && !(flags & STORE_UNIT_FREES))
        rc = space_take(s->fs, t->data_bytes + UNIT_OVERHEAD_BYTES);
    if (rc < 0) {
        store_unit_abandon(s->store);
        return rc;
    }
    rc = store_unit_apply(s->store, flags);
    if (rc < 0)
        return rc;
    if (t->inodes_added > 0)
        count_applied(s->fs, t->inodes_added);
    atomic_fetch_add_explicit(&s->fs->orphans, t->dead_count, memory_order_relaxed);
    if (t->adopted) {
        (void)ref_orphan(s->fs, t->adopted, 0);
        atomic_fetch_sub_explicit(&s->fs->orphans, 1, memory_order_relaxed);
    }
    for (unsigned i = 0; i < t->dead_count; i++)
        if (!ref_orphan(s->fs, t->dead[i].ino, t->dead[i].orphan))
            reap_add(s->fs, t->dead[i].ino, t->dead[i].orphan);
    return 0;
}
