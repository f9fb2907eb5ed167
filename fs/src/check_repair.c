// SPDX-License-Identifier: MIT
/*
 * check_repair: one step for each fault. A step writes what it must and no more: what follows from it (a count, a
 * listing, a record that leads nowhere now) is found by the next round and mended there.
 */
#include "checking.h"
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOST_FOUND "lost+found"

/* ---- records ------------------------------------------------------------------------------------------- */

static int put(struct check *c, const struct fs_key *key, const void *value, uint32_t len)
{
    return store_upsert(c->session, key->bytes, key->len, value, len);
}

/* What was made of other records, and is made of them again. */
static int erase(struct check *c, const struct fs_key *key)
{
    return store_delete(c->session, key->bytes, key->len);
}

static int drop_record(struct check *c, const void *key, uint32_t key_len)
{
    int rc = check_dropped(c, key, key_len);

    return rc < 0 ? rc : store_delete(c->session, key, key_len);
}

static int drop(struct check *c, const struct fs_key *key)
{
    return drop_record(c, key->bytes, key->len);
}

/* The record of the inode, and what it says. STORE_NOT_FOUND, too, for what cannot be decoded. */
static int get_record(struct check *c, uint64_t ino, uint8_t bytes[INODE_BYTES + INODE_CONTENTS_MAX],
                      struct inode *ret_inode)
{
    struct fs_key key = key_inode(ino);
    uint32_t len = 0;
    int rc = store_get(c->session, key.bytes, key.len, bytes, INODE_BYTES + INODE_CONTENTS_MAX, &len);

    if (rc != 0)
        return rc;
    return inode_decode(bytes, len, ino, ret_inode) < 0 ? STORE_NOT_FOUND : 0;
}

static int get_inode_of(struct check *c, uint64_t ino, struct inode *ret_inode)
{
    uint8_t bytes[INODE_BYTES + INODE_CONTENTS_MAX];

    return get_record(c, ino, bytes, ret_inode);
}

/* Contents that stand in the record stay there. */
static int put_inode(struct check *c, const struct inode *inode)
{
    struct fs_key key = key_inode(inode->ino);
    uint8_t bytes[INODE_BYTES + INODE_CONTENTS_MAX];
    struct inode before;
    int rc = get_record(c, inode->ino, bytes, &before);

    if (rc < 0)
        return rc;
    inode_encode(inode, bytes);
    return put(c, &key, bytes, INODE_BYTES + inode_contents(inode));
}

static int put_entry(struct check *c, uint64_t parent, const char *name, const struct entry *entry)
{
    struct fs_key key = key_entry(parent, name, strlen(name));
    uint8_t bytes[ENTRY_BYTES];

    entry_encode(entry, bytes);
    return put(c, &key, bytes, sizeof bytes);
}

static int put_super(struct check *c)
{
    struct fs_key key = key_super();
    uint8_t bytes[SUPER_BYTES];

    super_encode(&c->super, bytes);
    return put(c, &key, bytes, sizeof bytes);
}

/* ---- directories that have to be made ------------------------------------------------------------------------ */

/* An empty directory; what is in it is found by the next round. Only its owner may look inside. */
static int make_dir(struct check *c, uint64_t ino, uint64_t parent)
{
    struct inode root, inode = {.ino = ino, .mode = S_IFDIR | 0700, .nlink = 2, .parent = parent};
    int rc = get_inode_of(c, ino, &inode);

    if (rc != STORE_NOT_FOUND)
        return rc; /* it has been made by now */
    if (get_inode_of(c, FS_INO_ROOT, &root) == 0) {
        inode.uid = root.uid;
        inode.gid = root.gid;
    }
    clock_gettime(CLOCK_REALTIME, &inode.mtime);
    inode.atime = inode.ctime = inode.btime = inode.mtime;
    return put_inode(c, &inode);
}

static int lost_found(struct check *c, uint64_t *ret_ino)
{
    struct fs_key key = key_entry(FS_INO_ROOT, LOST_FOUND, sizeof LOST_FOUND - 1);
    uint8_t bytes[ENTRY_BYTES];
    struct entry entry;
    uint32_t len = 0;
    int rc = store_get(c->session, key.bytes, key.len, bytes, sizeof bytes, &len);

    if (rc == 0 && entry_decode(bytes, len, &entry) == 0 && S_ISDIR(entry.type)) {
        *ret_ino = entry.ino;
        return make_dir(c, entry.ino, FS_INO_ROOT);
    }
    if (rc < 0)
        return rc;
    *ret_ino = c->super.next_ino++;
    rc = put_super(c);
    if (rc == 0)
        rc = make_dir(c, *ret_ino, FS_INO_ROOT);
    return rc < 0 ? rc : put_entry(c, FS_INO_ROOT, LOST_FOUND, &(struct entry){.ino = *ret_ino, .type = S_IFDIR});
}

/* Gives the inode a name. */
static int find_again(struct check *c, uint64_t ino)
{
    struct inode inode;
    uint64_t dir;
    char name[24];
    int rc = lost_found(c, &dir);

    if (rc == 0)
        rc = get_inode_of(c, ino, &inode);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (S_ISDIR(inode.mode))
        inode.parent = dir;
    snprintf(name, sizeof name, "#%llu", (unsigned long long)ino);
    rc = put_inode(c, &inode);
    return rc < 0 ? rc : put_entry(c, dir, name, &(struct entry){.ino = ino, .type = inode.mode & S_IFMT});
}

/* A directory that was named and has no attributes any more, or that only what is in it knows of. */
static int make_named_dir(struct check *c, const struct fault *fault)
{
    return make_dir(c, fault->number, fault->ino);
}

static int make_nameless_dir(struct check *c, uint64_t ino)
{
    struct inode inode;
    int rc = get_inode_of(c, ino, &inode);

    if (rc != STORE_NOT_FOUND)
        return rc;
    rc = make_dir(c, ino, FS_INO_ROOT);
    return rc < 0 ? rc : find_again(c, ino);
}

static int one_name(struct check *c, const struct fault *fault)
{
    struct node *node = check_node(c, fault->number);
    struct inode inode;

    if (node->names > 1) {
        node->names--;
        return drop(c, fault->key);
    }
    int rc = get_inode_of(c, fault->number, &inode);
    inode.parent = fault->ino;
    return rc != 0 ? rc : put_inode(c, &inode);
}

/* Does the way up from the directory lead back to it, and is it the lowest of those on the way? */
static bool heads_a_cycle(struct check *c, uint64_t ino)
{
    const struct node *at = check_node(c, ino);

    for (uint64_t steps = 0; at && S_ISDIR(at->mode) && steps <= c->node_count; steps++) {
        if (at->dir.parent < ino)
            return false;
        if (at->dir.parent == ino)
            return true;
        at = check_node(c, at->dir.parent);
    }
    return false;
}

/* ---- names, listings and counts made anew ----------------------------------------------------------------------- */

struct child {
    uint64_t parent, seq, ino;
    uint32_t type;
    char *name;
};

struct rebuild {
    struct check *check;
    struct child *children;
    uint64_t count, room;
    uint64_t highest; /* sequence number, of the directory that is looked at */
};

static bool is_rebuilt(const struct node *dir)
{
    return dir && S_ISDIR(dir->mode) && (dir->state & NODE_DAMAGED);
}

/* Keeps the names of those directories, and drops their listings. */
static int each_child(void *ctx, const struct store_item *item)
{
    struct check *c = ctx;
    struct rebuild *r = c->rebuild;
    const uint8_t *key = item->key;
    struct entry entry;

    if (item->key_len < 10 || !memchr("DEMBGH", key[0], 6) || !is_rebuilt(check_node(c, key_number(key + 1))))
        return 0;
    if (key[0] != 'D')
        return store_delete(c->session, key, item->key_len);
    if (entry_decode(item->value, item->value_len, &entry) < 0)
        return 0;
    int rc = check_grow(&r->children, r->count, &r->room, sizeof *r->children);
    struct child child = {key_number(key + 1), entry.seq, entry.ino, entry.type,
                          strndup((const char *)key + 9, item->key_len - 9)};
    if (rc < 0 || !child.name) {
        free(child.name);
        return -ENOMEM;
    }
    const struct node *node = check_node(c, entry.ino);
    if (node)
        child.type = node->mode & S_IFMT;
    r->children[r->count++] = child;
    return 0;
}

static int by_seq(const void *a, const void *b)
{
    const struct child *left = a, *right = b;

    if (left->parent != right->parent)
        return left->parent < right->parent ? -1 : 1;
    if (left->seq != right->seq)
        return left->seq < right->seq ? -1 : 1;
    return strcmp(left->name, right->name);
}

/* Names with numbers from `first` on: a block, or what comes behind the last one, in pages. */
static int put_listing(struct check *c, uint64_t dir, uint64_t first, const struct child *children, uint64_t count)
{
    uint8_t bytes[BLOCK_BYTES_MAX];
    uint64_t names = count == FS_BLOCK_NAMES ? FS_BLOCK_NAMES : FS_PAGE_NAMES;
    uint32_t len = 0;
    int rc = 0;

    for (uint64_t i = 0; i < count && rc == 0; i++) {
        struct entry entry = {.ino = children[i].ino, .seq = first + i, .type = children[i].type};
        len = listing_append(bytes, len, &entry, children[i].name, strlen(children[i].name));
        rc = put_entry(c, dir, children[i].name, &entry);
        if (rc < 0 || ((i + 1) % names != 0 && i + 1 < count))
            continue;
        uint64_t number = (first + i) / names;
        struct fs_key key = names == FS_BLOCK_NAMES ? key_block(dir, number) : key_listing(dir, number);
        rc = put(c, &key, bytes, len);
        len = 0;
    }
    return rc;
}

/* The names get new sequence numbers, above all that may have been used: they are given once. */
static int rebuild_dir(struct check *c, struct inode *dir, const struct child *children, uint64_t count)
{
    uint64_t seq = dir->next_seq, subdirs = 0;
    int rc = 0;

    for (uint64_t i = 0; i < count; i++) {
        if (children[i].seq >= seq && children[i].seq < FS_SEQ_END / 2)
            seq = children[i].seq + 1;
        subdirs += S_ISDIR(children[i].type);
    }
    seq = seq < FS_SEQ_END / 2 ? (seq + FS_BLOCK_NAMES - 1) / FS_BLOCK_NAMES * FS_BLOCK_NAMES : 0;
    for (uint64_t i = 0; i < count && rc == 0; i += FS_BLOCK_NAMES)
        rc = put_listing(c, dir->ino, seq + i, children + i, smaller(FS_BLOCK_NAMES, count - i));
    dir->first_seq = seq;
    dir->next_seq = seq + count;
    dir->entries = count;
    dir->nlink = (uint32_t)(subdirs + 2);
    return rc < 0 ? rc : put_inode(c, dir);
}

static int rebuild_dirs(struct check *c)
{
    struct rebuild r = {.check = c};
    int rc;

    c->rebuild = &r;
    rc = check_scan(c, "repair", each_child);
    c->rebuild = NULL;
    if (r.count > 0)
        qsort(r.children, r.count, sizeof *r.children, by_seq);
    uint64_t at = 0;
    for (uint64_t n = 0; n < c->node_count && rc >= 0; n++) {
        struct node *node = &c->nodes[n];
        struct inode dir;
        if (!is_rebuilt(node))
            continue;
        while (at < r.count && r.children[at].parent < node->ino)
            at++;
        uint64_t first = at;
        while (at < r.count && r.children[at].parent == node->ino)
            at++;
        rc = get_inode_of(c, node->ino, &dir);
        if (rc == 0)
            rc = rebuild_dir(c, &dir, r.children + first, at - first);
    }
    for (uint64_t i = 0; i < r.count; i++)
        free(r.children[i].name);
    free(r.children);
    return rc < 0 ? rc : 0;
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static int count_contents(struct check *c, uint64_t ino)
{
    const struct node *node = check_node(c, ino);
    struct inode inode;
    int rc = get_inode_of(c, ino, &inode);

    if (rc != 0)
        return rc;
    inode.blocks = inode.flags & INODE_SPARSE ? inode.blocks - node->file.blocks : 0;
    inode.flags |= INODE_SPARSE;
    return put_inode(c, &inode);
}

static int cut_contents(struct check *c, const struct fault *fault)
{
    uint32_t end = (uint32_t)fault->number, value_len;
    struct store_patch patch = {.cut = end};
    uint64_t offset, len;
    int rc = check_get(c, fault->key, NULL, 0, &value_len);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (fault->key->bytes[0] == 'c') /* of a patch the rest is zeros */
        patch = (struct store_patch){.offset = end, .len = FS_PAGE_BYTES - end, .cut = STORE_PATCH_KEEP};
    check_key_range(fault->key->bytes, fault->key->len, &offset, &len);
    rc = check_dropped_range(c, fault->key, offset + end, value_len - end);
    return rc < 0 ? rc : store_rmw(c->session, fault->key->bytes, fault->key->len, &STORE_PATCH, &patch);
}

/* ---- masks and patches ------------------------------------------------------------------------------------------- */

struct unmasked { /* patches of groups that have no masks */
    struct patch {
        uint64_t ino, chunk;
        unsigned page;
    } * patches;
    uint64_t count, room;
};

/* STORE_NOT_FOUND, too, for what cannot be decoded. */
static int get_masks(struct check *c, uint64_t ino, uint64_t group, uint16_t masks[MASKS_CHUNKS])
{
    struct fs_key key = key_masks(ino, group);
    uint8_t bytes[MASKS_BYTES];
    uint32_t len = 0;
    int rc = store_get(c->session, key.bytes, key.len, bytes, sizeof bytes, &len);

    memset(masks, 0, MASKS_CHUNKS * sizeof *masks);
    if (rc != 0)
        return rc;
    return masks_decode(bytes, len, masks) < 0 ? STORE_NOT_FOUND : 0;
}

static int put_masks(struct check *c, uint64_t ino, uint64_t group, const uint16_t masks[MASKS_CHUNKS])
{
    struct fs_key key = key_masks(ino, group);
    uint8_t bytes[MASKS_BYTES];
    unsigned any = 0;

    for (unsigned i = 0; i < MASKS_CHUNKS; i++)
        any |= masks[i];
    masks_encode(masks, bytes);
    return any ? put(c, &key, bytes, sizeof bytes) : erase(c, &key);
}

/* A patch that the masks do not know is not what anybody reads: it goes. Without any masks it is the masks that are
 * lost. */
static int mend_patch(struct check *c, const struct node *node, const uint8_t *key)
{
    struct unmasked *u = c->unmasked;
    uint64_t chunk = key_number(key + 9);
    uint16_t masks[MASKS_CHUNKS];
    int rc = get_masks(c, node->ino, chunk / MASKS_CHUNKS, masks);

    if (rc < 0)
        return rc;
    if (rc == 0)
        return masks[chunk % MASKS_CHUNKS] & 1u << key[17] ? 0 : drop_record(c, key, 18);
    rc = check_grow(&u->patches, u->count, &u->room, sizeof *u->patches);
    if (rc == 0)
        u->patches[u->count++] = (struct patch){node->ino, chunk, key[17]};
    return rc;
}

/* A patch that is lost becomes zeros: the chunk has what was there before it. */
static int mend_page(struct check *c, const struct node *node, uint64_t chunk, unsigned page, uint16_t *mask)
{
    static const uint8_t zeros[FS_PAGE_BYTES];
    struct fs_key key = key_patch(node->ino, chunk, page);
    struct store_read read = {.key = key.bytes, .key_len = key.len};

    if (chunk >= node->file.data_end || chunk * FS_CHUNK_BYTES + page * FS_PAGE_BYTES >= node->file.size) {
        *mask &= (uint16_t) ~(1u << page);
        return drop(c, &key);
    }
    int rc = store_read_wait(c->session, &read);
    return rc == STORE_NOT_FOUND ? put(c, &key, zeros, sizeof zeros) : rc;
}

static int mend_masks(struct check *c, const struct node *node, uint64_t group)
{
    uint16_t masks[MASKS_CHUNKS];
    int rc = get_masks(c, node->ino, group, masks);

    for (unsigned i = 0; i < MASKS_CHUNKS * FS_CHUNK_PAGES && rc == 0; i++)
        if (masks[i / FS_CHUNK_PAGES] & 1u << i % FS_CHUNK_PAGES)
            rc = mend_page(c, node, group * MASKS_CHUNKS + i / FS_CHUNK_PAGES, i % FS_CHUNK_PAGES,
                           &masks[i / FS_CHUNK_PAGES]);
    return rc < 0 ? rc : put_masks(c, node->ino, group, masks);
}

static int each_patch(void *ctx, const struct store_item *item)
{
    struct check *c = ctx;
    const uint8_t *key = item->key;
    bool patch = key[0] == 'c' && item->key_len == 18, masks = key[0] == 'P' && item->key_len == 17;
    const struct node *node = patch || masks ? check_node(c, key_number(key + 1)) : NULL;

    if (!node || !S_ISREG(node->mode) || !(node->state & NODE_DAMAGED))
        return 0;
    return patch ? mend_patch(c, node, key) : mend_masks(c, node, key_number(key + 9));
}

static int mend_patches(struct check *c)
{
    struct unmasked u = {0};
    uint16_t masks[MASKS_CHUNKS];

    c->unmasked = &u;
    int rc = check_scan(c, "repair", each_patch);
    c->unmasked = NULL;
    for (uint64_t i = 0; i < u.count && rc >= 0; i++) {
        const struct patch *patch = &u.patches[i];
        rc = get_masks(c, patch->ino, patch->chunk / MASKS_CHUNKS, masks);
        masks[patch->chunk % MASKS_CHUNKS] |= (uint16_t)(1u << patch->page);
        if (rc >= 0)
            rc = put_masks(c, patch->ino, patch->chunk / MASKS_CHUNKS, masks);
    }
    free(u.patches);
    return rc;
}

/* ---- links ------------------------------------------------------------------------------------------------------- */

static int set_links(struct check *c, uint64_t ino)
{
    struct inode inode;
    int rc = get_inode_of(c, ino, &inode);

    if (rc != 0)
        return rc;
    inode.nlink = check_node(c, ino)->names;
    inode.orphan = 0;
    inode.flags &= ~(uint32_t)INODE_LINKABLE;
    return put_inode(c, &inode);
}

static int reap_later(struct check *c, uint64_t ino)
{
    struct inode inode;
    uint8_t bytes[ORPHAN_BYTES];
    int rc = get_inode_of(c, ino, &inode);

    if (rc != 0)
        return rc;
    inode.orphan = c->super.next_orphan++;
    struct fs_key key = key_orphan(inode.orphan);
    orphan_encode(ino, bytes);
    rc = put_super(c);
    if (rc == 0)
        rc = put(c, &key, bytes, sizeof bytes);
    return rc < 0 ? rc : put_inode(c, &inode);
}

/* ---- extended attributes ---------------------------------------------------------------------------------------- */

/* STORE_NOT_FOUND, too, for what is too long to be one. */
static int get_table(struct check *c, uint64_t ino, uint8_t table[XATTR_TABLE_MAX], uint32_t *ret_len)
{
    struct fs_key key = key_xattrs(ino);
    int rc = store_get(c->session, key.bytes, key.len, table, XATTR_TABLE_MAX, ret_len);

    return rc == 0 && *ret_len > XATTR_TABLE_MAX ? STORE_NOT_FOUND : rc;
}

/* Keeps what the table has whole; a value apart that it does not name is dropped by each_value(). */
static int mend_table(struct check *c, uint64_t ino)
{
    static uint8_t table[XATTR_TABLE_MAX], kept[XATTR_TABLE_MAX];
    struct fs_key key = key_xattrs(ino);
    struct inode inode;
    struct xattr xattr;
    uint32_t at = 0, len = 0, kept_len = 0, flags = 0;
    int rc = get_inode_of(c, ino, &inode);

    if (rc != 0)
        return rc;
    rc = get_table(c, ino, table, &len);
    if (rc < 0)
        return rc;
    bool whole = rc == 0 || len == 0; /* it is there, or it is not */
    if (rc != 0)
        len = 0;
    for (int next; at < len && (next = xattr_next(table, len, at, &xattr)) > 0; at = (uint32_t)next) {
        struct fs_key apart = key_xattr(ino, xattr.name, xattr.name_len);
        struct store_read read = {.key = apart.bytes, .key_len = apart.len};
        if (!xattr.value && (store_read_wait(c->session, &read) != 0 || read.value_len != xattr.value_len)) {
            if ((rc = check_dropped(c, apart.bytes, apart.len)) < 0)
                return rc;
            continue;
        }
        kept_len = xattr_append(kept, kept_len, &xattr);
        flags |= xattr_flag(xattr.name, xattr.name_len);
    }
    inode.flags &= ~(uint32_t)(INODE_XATTRS | INODE_XATTR_FLAGS);
    inode.flags |= flags | (kept_len > 0 ? INODE_XATTRS : 0);
    rc = whole && at >= len ? 0 : check_dropped(c, key.bytes, key.len); /* what makes no sense, and all behind it */
    if (rc == 0)
        rc = kept_len > 0 ? put(c, &key, kept, kept_len) : erase(c, &key);
    return rc < 0 ? rc : put_inode(c, &inode);
}

/* Drops values apart that no table names, of the inodes whose tables were mended. */
static int each_value(void *ctx, const struct store_item *item)
{
    static uint8_t table[XATTR_TABLE_MAX];
    struct check *c = ctx;
    const uint8_t *key = item->key;
    uint32_t len = 0;
    struct xattr xattr;

    if (key[0] != 'Y' || item->key_len <= 9)
        return 0;
    const struct node *node = check_node(c, key_number(key + 1));
    if (!node || !(node->state & NODE_DAMAGED))
        return 0;
    int next, rc = get_table(c, node->ino, table, &len);
    for (uint32_t at = 0; rc == 0 && at < len && (next = xattr_next(table, len, at, &xattr)) > 0; at = (uint32_t)next)
        if (!xattr.value && xattr.name_len == item->key_len - 9 && memcmp(xattr.name, key + 9, xattr.name_len) == 0)
            return 0;
    return rc < 0 ? rc : drop_record(c, key, item->key_len);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------
 */

static int mend_super(struct check *c, uint64_t ino)
{
    if (ino == FS_INO_ROOT)
        return make_dir(c, ino, ino);
    if (!c->super_found)
        c->super = (struct fs_super){.first_orphan = 1, .next_orphan = 1};
    if (c->super.next_ino <= c->highest_ino)
        c->super.next_ino = c->highest_ino + 1;
    if (c->super.next_orphan <= c->highest_orphan)
        c->super.next_orphan = c->highest_orphan + 1;
    return put_super(c);
}

static int mend_counter(struct check *c)
{
    struct fs_key key = key_counter(0);
    uint8_t bytes[COUNTER_BYTES];
    uint32_t len = 0;
    int rc = store_get(c->session, key.bytes, key.len, bytes, sizeof bytes, &len);

    if (rc < 0)
        return rc;
    int64_t count = rc == 0 && len == COUNTER_BYTES ? counter_decode(bytes) : 0;
    counter_encode(count + (int64_t)c->node_count - c->counted, bytes);
    return put(c, &key, bytes, sizeof bytes);
}

static int mend(struct check *c, const struct fault *fault)
{
    struct node *node = check_node(c, fault->ino);

    switch (fault->kind) {
    case FAULT_SUPER:
        return mend_super(c, fault->ino);
    case FAULT_STRAY:
        return drop(c, fault->key);
    case FAULT_ENTRY:
        return fault->number ? make_named_dir(c, fault) : drop(c, fault->key);
    case FAULT_TWICE:
        return one_name(c, fault);
    case FAULT_DIRECTORY:
        node->state |= NODE_DAMAGED;
        return 0;
    case FAULT_CYCLE:
        return heads_a_cycle(c, fault->ino) ? find_again(c, fault->ino) : 0;
    case FAULT_LINKS:
        return set_links(c, fault->ino);
    case FAULT_CONTENTS:
        return count_contents(c, fault->ino);
    case FAULT_LENGTH:
        return cut_contents(c, fault);
    case FAULT_PATCHES:
        node->state |= NODE_DAMAGED;
        return 0;
    case FAULT_ATTRIBUTES:
        node->state |= NODE_DAMAGED;
        return mend_table(c, fault->ino);
    case FAULT_DELETED:
        return reap_later(c, fault->ino);
    case FAULT_COUNTER:
        return mend_counter(c);
    default: /* the store mends its own; the others are done last */
        return 0;
    }
}

int check_repair(struct check *c)
{
    bool directories = false, values = false, patches = false;
    int rc = c->super_found ? 0 : mend_super(c, 0);

    for (uint64_t i = 0; i < c->fault_count && rc >= 0; i++) {
        rc = mend(c, &c->faults[i]);
        directories |= c->faults[i].kind == FAULT_DIRECTORY;
        values |= c->faults[i].kind == FAULT_ATTRIBUTES;
        patches |= c->faults[i].kind == FAULT_PATCHES;
    }
    /* Then what has no name: it may have been found by now. */
    for (uint64_t i = 0; i < c->fault_count && rc >= 0; i++) {
        if (c->faults[i].kind == FAULT_PARENT)
            rc = make_nameless_dir(c, c->faults[i].ino);
        if (c->faults[i].kind == FAULT_NAMELESS)
            rc = find_again(c, c->faults[i].ino);
    }
    if (rc >= 0 && values)
        rc = check_scan(c, "repair", each_value);
    if (rc >= 0 && patches)
        rc = mend_patches(c);
    if (rc >= 0 && directories)
        rc = rebuild_dirs(c);
    return rc < 0 ? rc : 0;
}
