// SPDX-License-Identifier: MIT
/*
 * Patches: pages of 4 KiB that stand for part of a chunk which is not where it could be changed in place. So a small
 * write neither reads nor copies 64 KiB.
 *
 * Invariants, under the inode's lock:
 *   1. A patch exists exactly when its bit in the masks is set. It has 4 KiB, zeros from the end of the file on.
 *   2. Where there is a patch the page is what it says, whatever the chunk says.
 *   3. A file without INODE_PATCHED has neither masks nor patches: it pays nothing.
 *   4. Never are all pages of a chunk patched: then the chunk is written whole, and the patches go.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define ALL_PAGES 0xffffu

/* ---- masks ------------------------------------------------------------------------------------------- */

static int load(struct fs_session *s, const struct store_snapshot *snapshot, uint64_t ino, uint64_t group,
                struct masks *masks)
{
    uint8_t bytes[MASKS_BYTES];
    struct fs_key key = key_masks(ino, group);
    uint32_t len;
    int rc = get_value(s, snapshot, &key, bytes, sizeof bytes, &len);

    if (rc < 0 && rc != -ENOENT)
        return rc;
    *masks = (struct masks){.group = group, .loaded = true, .existed = rc == 0};
    return rc < 0 ? 0 : masks_decode(bytes, len, masks->of);
}

int mask_look(struct fs_session *s, const struct view *view, const struct inode *inode, uint64_t chunk,
              struct masks *masks, uint16_t *ret_mask)
{
    int rc = 0;

    *ret_mask = 0;
    if (!(inode->flags & INODE_PATCHED))
        return 0;
    if (!masks->loaded || masks->group != chunk / MASKS_CHUNKS)
        rc = load(s, view->snapshot, view->ino, chunk / MASKS_CHUNKS, masks);
    if (rc == 0)
        *ret_mask = masks->of[chunk % MASKS_CHUNKS];
    return rc;
}

int mask_get(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask *ret_mask)
{
    struct txn *t = &s->txn;
    uint64_t group = chunk / MASKS_CHUNKS;
    struct masks *masks = t->masks;
    int rc = 0;

    while (masks < t->masks + t->mask_count && masks->group != group)
        masks++;
    if (masks == t->masks + t->mask_count) {
        assert(t->mask_count < TXN_MASKS && (t->mask_count == 0 || t->masks_ino == inode->ino));
        t->masks_ino = inode->ino;
        *masks = (struct masks){.group = group, .loaded = true};
        if (inode->flags & INODE_PATCHED)
            rc = load(s, NULL, inode->ino, group, masks);
        if (rc < 0)
            return rc;
        t->mask_count++;
    }
    *ret_mask = (struct mask){masks, &masks->of[chunk % MASKS_CHUNKS]};
    return 0;
}

static bool are_empty(const struct masks *masks)
{
    for (unsigned i = 0; i < MASKS_CHUNKS; i++)
        if (masks->of[i])
            return false;
    return true;
}

int masks_add(struct fs_session *s)
{
    struct txn *t = &s->txn;
    int rc = 0;

    for (unsigned i = 0; i < t->mask_count && rc == 0; i++) {
        struct fs_key key = key_masks(t->masks_ino, t->masks[i].group);
        if (!t->masks[i].dirty)
            continue;
        masks_encode(t->masks[i].of, t->mask_bytes[i]);
        if (!are_empty(&t->masks[i]))
            rc = store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){t->mask_bytes[i], MASKS_BYTES},
                                   1, 0);
        else if (t->masks[i].existed)
            rc = store_unit_delete(s->store, key.bytes, key.len);
    }
    return rc;
}

uint32_t patched_end(uint16_t mask)
{
    return mask ? (32 - (uint32_t)__builtin_clz(mask)) * FS_PAGE_BYTES : 0;
}

/* ---- patches that go ----------------------------------------------------------------------------------- */

int patches_drop(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask mask, uint16_t pages)
{
    int rc = 0;

    pages &= *mask.of;
    for (unsigned page = 0; page < FS_CHUNK_PAGES && rc == 0; page++) {
        struct fs_key key = key_patch(inode->ino, chunk, page);
        if (pages & 1u << page)
            rc = store_unit_delete(s->store, key.bytes, key.len);
    }
    *mask.of &= (uint16_t)~pages;
    mask.group->dirty |= pages != 0;
    return rc;
}

struct store_patch *txn_patch(struct fs_session *s, struct store_patch patch)
{
    assert(s->txn.patch_count < TXN_PATCHES);
    s->patches[s->txn.patch_count] = patch;
    return &s->patches[s->txn.patch_count++];
}

int patches_cut(struct fs_session *s, const struct inode *inode, uint64_t chunk, struct mask mask, uint32_t rest)
{
    unsigned page = rest / FS_PAGE_BYTES;
    uint32_t in_page = rest % FS_PAGE_BYTES;
    int rc = patches_drop(s, inode, chunk, mask, (uint16_t)(ALL_PAGES << (page + (in_page > 0))));

    if (rc < 0 || in_page == 0 || !(*mask.of & 1u << page))
        return rc;
    struct fs_key key = key_patch(inode->ino, chunk, page);
    struct store_patch zeros = {.offset = in_page, .len = FS_PAGE_BYTES - in_page, .cut = STORE_PATCH_KEEP};
    return store_unit_rmw(s->store, key.bytes, key.len, &STORE_PATCH, txn_patch(s, zeros));
}

/* ---- patches that come --------------------------------------------------------------------------------- */

uint16_t span_pages(const struct span *span)
{
    unsigned first = span->from / FS_PAGE_BYTES, last = (span->from + span->len - 1) / FS_PAGE_BYTES;

    return (uint16_t)((1u << (last + 1)) - (1u << first));
}

struct part { /* of a page */
    uint32_t from, to;
    const uint8_t *bytes; /* NULL: zeros */
};

static struct part part_of(const struct span *span, unsigned page)
{
    uint32_t start = page * FS_PAGE_BYTES;
    uint32_t from = span->from > start ? span->from : start;
    uint32_t to = (uint32_t)smaller(span->from + span->len, start + FS_PAGE_BYTES);

    return (struct part){from - start, to - start, span->bytes ? span->bytes + (from - span->from) : NULL};
}

static bool is_all(const struct part *part)
{
    return part->to - part->from == FS_PAGE_BYTES;
}

static void lay(const struct part *part, uint8_t *page)
{
    if (part->bytes)
        memcpy(page + part->from, part->bytes, part->to - part->from);
    else
        memset(page + part->from, 0, part->to - part->from);
}

/* A page of what the chunk says, or the patch of it. */
static void read_page(struct fs_session *s, unsigned i, const struct fs_key *key, uint32_t offset, uint8_t *page)
{
    s->keys[i] = *key;
    s->reads[i] = (struct store_read){.key = s->keys[i].bytes,
                                      .key_len = key->len,
                                      .offset = offset,
                                      .buf = page,
                                      .buf_len = FS_PAGE_BYTES,
                                      .value_hint = offset == 0 ? FS_PAGE_BYTES : FS_CHUNK_BYTES};
    int started = store_read(s->store, &s->reads[i]);
    (void)started; /* the result says it */
}

/* The page as the chunk has it, changed by `part`: a new patch. */
static int copy_page(struct fs_session *s, const struct inode *inode, uint64_t chunk, unsigned page, uint32_t old,
                     const struct part *part, const uint8_t **ret_page)
{
    uint8_t *bytes = s->parts[s->txn.part_count];
    struct fs_key key = key_chunk(inode->ino, chunk);

    assert(s->txn.part_count < TXN_PARTS);
    s->txn.part_count++;
    memset(bytes, 0, FS_PAGE_BYTES);
    if (page * FS_PAGE_BYTES < old) {
        struct store_read read = {.key = key.bytes,
                                  .key_len = key.len,
                                  .offset = page * FS_PAGE_BYTES,
                                  .buf = bytes,
                                  .buf_len = FS_PAGE_BYTES,
                                  .value_hint = old};
        int rc = store_read_wait(s->store, &read);
        if (rc < 0)
            return rc;
    }
    lay(part, bytes);
    *ret_page = bytes;
    return 0;
}

static int write_page(struct fs_session *s, const struct inode *inode, const struct span *span, uint32_t old,
                      unsigned page, bool patched)
{
    struct fs_key key = key_patch(inode->ino, span->chunk, page);
    struct part part = part_of(span, page);
    const uint8_t *bytes = part.bytes;

    if (!is_all(&part) && patched) {
        struct store_patch change = {
            .offset = part.from, .len = part.to - part.from, .bytes = part.bytes, .cut = STORE_PATCH_KEEP};
        return store_unit_rmw(s->store, key.bytes, key.len, &STORE_PATCH, txn_patch(s, change));
    }
    int rc = is_all(&part) ? 0 : copy_page(s, inode, span->chunk, page, old, &part, &bytes);
    if (rc < 0)
        return rc;
    return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, FS_PAGE_BYTES}, 1, 0);
}

/* All pages of the chunk would be patched: it is put together and written whole. */
static int fold(struct fs_session *s, struct inode *inode, const struct span *span, struct mask mask, uint32_t len)
{
    uint8_t *bytes = s->folds[s->txn.fold_count];
    struct fs_key key = key_chunk(inode->ino, span->chunk);
    uint16_t pages = span_pages(span);
    unsigned count = 0;

    assert(s->txn.fold_count < TXN_FOLDS);
    s->txn.fold_count++;
    memset(bytes, 0, FS_CHUNK_BYTES);
    for (unsigned page = 0; page < FS_CHUNK_PAGES; page++) {
        struct part part = part_of(span, page);
        struct fs_key patch = key_patch(inode->ino, span->chunk, page);
        if (*mask.of & 1u << page && !(pages & 1u << page && is_all(&part)))
            read_page(s, count++, &patch, 0, bytes + page * FS_PAGE_BYTES);
        else if (!(*mask.of & 1u << page) && !is_all(&part))
            read_page(s, count++, &key, page * FS_PAGE_BYTES, bytes + page * FS_PAGE_BYTES);
    }
    store_complete_pending(s->store, true);
    for (unsigned i = 0; i < count; i++) {
        bool patch = s->keys[i].len != key.len;
        if (s->reads[i].result < 0)
            return s->reads[i].result;
        if (patch && (s->reads[i].result != STORE_OK || s->reads[i].value_len != FS_PAGE_BYTES))
            return -EIO;
    }
    if (span->bytes)
        memcpy(bytes + span->from, span->bytes, span->len);
    else
        memset(bytes + span->from, 0, span->len);
    int rc = patches_drop(s, inode, span->chunk, mask, ALL_PAGES);
    if (rc < 0)
        return rc;
    return store_unit_upsert(s->store, key.bytes, key.len, &(struct store_piece){bytes, len}, 1, 0);
}

int patches_write(struct fs_session *s, struct inode *inode, const struct span *span, struct mask mask, uint32_t old,
                  uint32_t reach)
{
    uint16_t pages = span_pages(span);
    int rc = 0;

    if ((*mask.of | pages) == ALL_PAGES)
        return fold(s, inode, span, mask, reach);
    for (unsigned page = 0; page < FS_CHUNK_PAGES && rc == 0; page++)
        if (pages & 1u << page)
            rc = write_page(s, inode, span, old, page, *mask.of & 1u << page);
    if (pages & ~*mask.of) {
        *mask.of |= pages;
        mask.group->dirty = true;
        inode->flags |= INODE_PATCHED;
    }
    return rc;
}
