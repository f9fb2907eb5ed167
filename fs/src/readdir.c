// SPDX-License-Identifier: MIT
/*
 * readdir: listings in the order of their numbers (listing.c has what they are).
 *
 * A listing is read under the directory's lock, which keeps it from being merged meanwhile; the entries are handed out
 * without. When one has to come from the device, those behind it are asked for at once, and wait in the store's cache.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Cookies: 1 after ".", 2 after "..", sequence number + 3 after an entry. */
#define COOKIE_FIRST 3

#define AHEAD 24u         /* blocks that are asked for at once */
#define ABSENT_MAX 65536u /* blocks in a row without a name and without a gap: no directory is like that */
#define WITH_ATTR 24u     /* entries whose inodes are, at first: older kernels have room for about so many */
#define HINT_BYTES 3500u  /* most blocks, with their heads */

struct walk {
    struct fs_session *s;
    struct view view;
    struct inode dir;
    bool with_attr;
    fs_fill fill;
    void *ctx;
    unsigned absent; /* blocks since the last that was there */
    unsigned batches;
};

static int fill_dots(const struct walk *w, uint64_t *cookie)
{
    struct fs_attr at = {.ino = w->dir.ino};
    struct fs_attr up = {.ino = w->dir.parent};

    view_attr(&w->view, &at);
    view_attr(&w->view, &up);
    if (w->view.snapshot && w->dir.ino == FS_INO_ROOT)
        up.ino = FS_INO_SNAPSHOTS;
    if (*cookie == 0) {
        if (w->fill(w->ctx,
                    &(struct fs_dirent){.name = ".", .name_len = 1, .ino = at.ino, .type = S_IFDIR, .cookie = 1}))
            return 1;
        *cookie = 1;
    }
    if (*cookie == 1) {
        if (w->fill(w->ctx,
                    &(struct fs_dirent){.name = "..", .name_len = 2, .ino = up.ino, .type = S_IFDIR, .cookie = 2}))
            return 1;
        *cookie = 2;
    }
    return 0;
}

/* The entries of one block that are still to be handed out. */
struct batch {
    struct listed listed[FS_BLOCK_NAMES];
    unsigned count, given;
    bool absent; /* nothing is listed there */
};

/* Where the entries from a number on are: in the listing of their block, or, of the last block, in those of 8. */
struct place {
    uint64_t block;
    uint64_t page;  /* the first of those of 8, and how many may be there; */
    unsigned pages; /* 0: the block is complete */
    uint64_t next;  /* number to go on with */
};

/* `seq` was given. */
static struct place place_of(const struct walk *w, uint64_t seq)
{
    uint64_t block = seq / FS_BLOCK_NAMES, page = seq / FS_PAGE_NAMES;
    struct place place = {.block = block, .page = page, .next = (block + 1) * FS_BLOCK_NAMES};

    if (!block_is_complete(&w->dir, block))
        place.pages = (unsigned)((w->dir.next_seq - 1) / FS_PAGE_NAMES - page + 1);
    return place;
}

static void start_read(const struct walk *w, unsigned i, struct fs_key key, void *buf, uint32_t len)
{
    struct fs_session *s = w->s;

    s->keys[i] = key;
    s->reads[i] = (struct store_read){.key = s->keys[i].bytes,
                                      .key_len = s->keys[i].len,
                                      .buf = buf,
                                      .buf_len = len,
                                      .value_hint = HINT_BYTES,
                                      .snapshot = w->view.snapshot};
    int started = store_read(s->store, &s->reads[i]);
    (void)started; /* the result says it */
}

/* Starts to read the listings: their names, and of a complete block the bits. Returns how many reads that were. */
static unsigned start_listings(const struct walk *w, unsigned i, const struct place *place, uint8_t *names,
                               uint8_t *live)
{
    assert(i + (place->pages ? place->pages : 2) <= READS_AT_ONCE);
    for (unsigned page = 0; page < place->pages; page++)
        start_read(w, i + page, key_listing(w->view.ino, place->page + page),
                   names ? names + page * PAGE_BYTES_MAX : NULL, names ? PAGE_BYTES_MAX : 0);
    if (place->pages)
        return place->pages;
    start_read(w, i, key_block(w->view.ino, place->block), names, names ? BLOCK_BYTES_MAX : 0);
    start_read(w, i + 1, key_live(w->view.ino, place->block), live, live ? WORD_BYTES : 0);
    return 2;
}

/* Moves together what `count` reads have brought of names. -ENOENT: nothing. */
static int gather(uint8_t *names, const struct store_read *reads, unsigned count, uint32_t *ret_len)
{
    bool there = false;

    *ret_len = 0;
    for (const struct store_read *read = reads; read < reads + count; read++) {
        if (read->result == STORE_NOT_FOUND)
            continue;
        if (read->result < 0 || read->value_len > read->buf_len)
            return read->result < 0 ? read->result : -EIO;
        memmove(names + *ret_len, read->buf, read->value_len);
        *ret_len += read->value_len;
        there = true;
    }
    return there ? 0 : -ENOENT;
}

/* Names and bits; what comes from the device brings the blocks behind it along. */
static int read_listings(const struct walk *w, const struct place *place, uint32_t *ret_len, uint64_t *ret_live)
{
    struct store_read *reads = w->s->reads;
    uint8_t live[WORD_BYTES];
    struct place ahead = *place;
    unsigned count = start_listings(w, 0, place, w->s->listing, live);

    if (reads[0].result == STORE_PENDING)
        for (unsigned i = 0; i < AHEAD && ahead.next < w->dir.next_seq; i++) {
            ahead = place_of(w, ahead.next);
            count += start_listings(w, count, &ahead, NULL, NULL);
        }
    store_complete_pending(w->s->store, true);
    int rc = gather(w->s->listing, reads, place->pages ? place->pages : 1, ret_len);
    *ret_live = UINT64_MAX;
    if (rc < 0 || place->pages || reads[1].result == STORE_NOT_FOUND)
        return rc;
    if (reads[1].result < 0)
        return reads[1].result;
    *ret_live = word_decode(live);
    return reads[1].value_len == WORD_BYTES ? 0 : -EIO;
}

/* The entries of the block that has number `from`, from that on, as many as are wanted at once. */
static int fill_batch(const struct walk *w, struct place *place, uint64_t from, bool refs, struct batch *batch)
{
    struct fs_session *s = w->s;
    unsigned most = w->with_attr && w->batches == 0 ? WITH_ATTR : FS_BLOCK_NAMES;
    struct listed listed = {0};
    uint64_t live = 0, least = place->pages ? place->page * FS_PAGE_NAMES : place->block * FS_BLOCK_NAMES;
    uint32_t len = 0;
    int rc = read_listings(w, place, &len, &live);

    for (uint32_t at = 0; rc == 0 && at < len;) {
        int next = listing_next(s->listing, len, at, &listed);
        if (next < 0 || listed.entry.seq < least || listed.entry.seq >= place->next)
            return -EIO;
        at = (uint32_t)next;
        least = listed.entry.seq + 1;
        if (listed.entry.seq < from || !(live >> listed.entry.seq % FS_BLOCK_NAMES & 1))
            continue;
        if (batch->count == most) {
            place->next = listed.entry.seq;
            return 0;
        }
        rc = refs ? ref_get(s->fs, listed.entry.ino) : 0;
        if (rc == 0)
            batch->listed[batch->count++] = listed;
    }
    batch->absent = rc == -ENOENT;
    return batch->absent ? 0 : rc;
}

/* The same; for a caller that wants attributes a reference is taken on each entry while the directory's lock keeps the
 * names there. */
static int load_batch(struct walk *w, uint64_t from, struct batch *batch, struct place *ret_place)
{
    bool live = !w->view.snapshot;

    batch->count = batch->given = 0;
    batch->absent = false;
    if (live)
        lock_read(w->s->fs, w->view.ino);
    int rc = live ? get_inode(w->s, &w->view, &w->dir) : 0;
    if (rc == 0) {
        *ret_place = place_of(w, from);
        rc = fill_batch(w, ret_place, from, live && w->with_attr, batch);
    }
    if (live)
        unlock_read(w->s->fs, w->view.ino);
    return rc;
}

/* All inodes of the batch at once: those that are not in memory then cost one wait together. */
static void read_inodes(const struct walk *w, const struct batch *batch)
{
    struct fs_session *s = w->s;

    for (unsigned i = 0; i < batch->count; i++) {
        s->keys[i] = key_inode(batch->listed[i].entry.ino);
        s->reads[i] = (struct store_read){.key = s->keys[i].bytes,
                                          .key_len = s->keys[i].len,
                                          .buf = s->inode_bytes[i],
                                          .buf_len = INODE_BYTES,
                                          .value_hint = INODE_BYTES,
                                          .snapshot = w->view.snapshot};
        int started = store_read(s->store, &s->reads[i]);
        (void)started; /* the result says it */
    }
    store_complete_pending(s->store, true);
}

/* Hands out entry i: 1 if the caller has no room for it. One whose inode is damaged goes without
 * attributes, and without a reference. */
static int fill_entry(const struct walk *w, struct batch *batch, unsigned i)
{
    const struct listed *listed = &batch->listed[i];
    char name[FS_NAME_MAX + 1];
    struct inode inode;
    struct fs_attr attr = {.ino = listed->entry.ino};
    bool sound = false;

    memcpy(name, listed->name, listed->name_len);
    name[listed->name_len] = 0;
    if (w->with_attr) {
        sound = w->s->reads[i].result == STORE_OK &&
                inode_decode(w->s->inode_bytes[i], w->s->reads[i].value_len, listed->entry.ino, &inode) == 0;
        if (sound)
            inode_attr(&inode, &attr);
    }
    view_attr(&w->view, &attr);
    if (w->fill(w->ctx, &(struct fs_dirent){.name = name,
                                            .name_len = listed->name_len,
                                            .ino = attr.ino,
                                            .type = listed->entry.type,
                                            .cookie = listed->entry.seq + COOKIE_FIRST,
                                            .attr = sound ? &attr : NULL}))
        return 1;
    if (w->with_attr && !sound && !w->view.snapshot)
        fs_forget(w->s, listed->entry.ino, 1);
    batch->given++;
    return 0;
}

/* Gives back the references on what is not handed out. */
static void drop_batch(const struct walk *w, const struct batch *batch)
{
    if (w->with_attr && !w->view.snapshot)
        for (unsigned i = batch->given; i < batch->count; i++)
            fs_forget(w->s, batch->listed[i].entry.ino, 1);
}

/* Entries of the block that has sequence number `from`, from that on; *ret_next is the number to go on with. */
static int fill_block(struct walk *w, uint64_t from, uint64_t *ret_next)
{
    struct batch batch;
    struct place place;
    uint64_t block;
    int rc = load_batch(w, from, &batch, &place), full = 0;

    if (rc < 0) {
        drop_batch(w, &batch);
        return rc;
    }
    *ret_next = place.next;
    if (batch.absent && place.pages == 0) {
        struct fs_key gap = key_gap(w->view.ino, place.block);
        rc = get_gap(w->s, w->view.snapshot, &gap, &block);
        if (rc == 0)
            *ret_next = block * FS_BLOCK_NAMES;
        if (rc != -ENOENT)
            return rc == 0 && (block <= place.block || block > FS_SEQ_END / FS_BLOCK_NAMES) ? -EIO : rc;
    }
    if (batch.absent)
        return ++w->absent < ABSENT_MAX ? 0 : -EIO;
    w->absent = 0;
    w->batches++;
    if (w->with_attr)
        read_inodes(w, &batch);
    while (!full && batch.given < batch.count)
        full = fill_entry(w, &batch, batch.given);
    drop_batch(w, &batch);
    return full;
}

static int readdir_in(struct walk *w, uint64_t cookie)
{
    int rc = get_inode(w->s, &w->view, &w->dir);

    if (rc == 0 && !S_ISDIR(w->dir.mode))
        rc = -ENOTDIR;
    if (rc == 0)
        rc = fill_dots(w, &cookie);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    uint64_t from = cookie < COOKIE_FIRST ? 0 : cookie - COOKIE_FIRST + 1;
    if (from < w->dir.first_seq)
        from = w->dir.first_seq;
    for (uint64_t end = w->dir.next_seq; from < end;) {
        rc = fill_block(w, from, &from);
        if (rc != 0)
            return rc < 0 ? rc : 0;
    }
    return 0;
}

int fs_readdir(struct fs_session *s, uint64_t ino, uint64_t cookie, bool with_attr, fs_fill fill, void *ctx)
{
    struct walk w = {.s = s, .with_attr = with_attr, .fill = fill, .ctx = ctx};

    if (ino == FS_INO_SNAPSHOTS)
        return snapshots_readdir(s, cookie, with_attr, fill, ctx);
    int rc = view_get(s, ino, &w.view);
    if (rc < 0)
        return rc;
    rc = readdir_in(&w, cookie);
    view_put(s, &w.view);
    return rc;
}
