// SPDX-License-Identifier: MIT
/*
 * Checkpoints and snapshots. Both are a copy of the index and the end E of a commit:
 *
 *     commit (ends at E) -> copy the index while units go on -> commit -> sync the copy and its name -> superblock
 *
 * Invariants:
 *   1. The copy begins after the commit that ends at E, so every record below E is reached from the
 *      copy: by an entry or by walking down from a newer record that an entry leads to.
 *   2. The second commit makes durable every record that an entry of the copy may lead to.
 *   3. A checkpoint is the copy plus the log from E on, replayed. A snapshot is the copy plus the log
 *      below E: records at or above E are passed over. So it needs the log up to the second commit.
 *   4. Its log begins where the store's began before the commit. What compaction moves later is moved to above
 *      E; below E it stays, and compaction gives nothing back without checkpoint_lock.
 */
#include "private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void image_name(char name[DEVICE_NAME_MAX + 1], uint64_t image)
{
    snprintf(name, DEVICE_NAME_MAX + 1, "index.%016llx", (unsigned long long)image);
}

struct image_writer {
    struct device_queue *queue;
    int file;
    uint64_t offset;
};

static int write_piece(void *ctx, const void *bytes, uint32_t len)
{
    struct image_writer *w = ctx;
    int64_t moved = device_transfer(w->queue, DEVICE_WRITE, w->file, w->offset, (void *)(uintptr_t)bytes, len);

    w->offset += len;
    return moved < 0 ? (int)moved : 0;
}

static struct log_position committed(struct store *store)
{
    pthread_mutex_lock(&store->commit_lock);
    struct log_position position = store->committed;
    pthread_mutex_unlock(&store->commit_lock);
    return position;
}

static int write_pieces(struct store *store, struct index *index, uint64_t image, struct image_writer *w)
{
    int rc = device_queue_open(store->device, 1, &w->queue);
    if (rc < 0)
        return rc;
    rc = index_save(index, store->store_id, image, write_piece, w);
    device_queue_close(w->queue);
    if (rc == 0 && index == store->index)
        rc = store_commit(store); /* invariant 2 */
    if (rc == 0)
        rc = device_file_sync(store->device, w->file);
    return rc == 0 ? device_sync_names(store->device) : rc; /* before a superblock names it */
}

static void image_remove(struct store *store, uint64_t image)
{
    char name[DEVICE_NAME_MAX + 1];

    if (image == 0)
        return;
    image_name(name, image);
    int rc = device_file_remove(store->device, name);
    (void)rc; /* a left-over is removed at the next open */
}

int image_save(struct store *store, struct index *index, uint64_t image)
{
    char name[DEVICE_NAME_MAX + 1];
    struct image_writer writer = {.offset = 0};

    image_name(name, image);
    writer.file = device_file_open(store->device, name, DEVICE_FILE_CREATE | DEVICE_FILE_TRUNCATE);
    if (writer.file < 0)
        return writer.file;
    int rc = write_pieces(store, index, image, &writer);
    device_file_close(store->device, writer.file);
    if (rc < 0)
        image_remove(store, image);
    return rc;
}

int checkpoint_write(struct store *store, struct checkpoint *ret_at)
{
    uint64_t image = store->superblock.next_image++;
    struct checkpoint at = {.image = image, .begin = store->begin_at}; /* before the commit: invariant 4 */
    int rc = store_commit(store);
    if (rc < 0)
        return rc;
    at.end = committed(store);
    pthread_mutex_lock(&store->log.flush_lock);
    rc = hlog_promise_reserve(&store->log); /* an image is not worth a disk on which nothing can move any more */
    pthread_mutex_unlock(&store->log.flush_lock);
    if (rc == 0)
        rc = image_save(store, store->index, image);
    if (rc < 0)
        return rc;
    at.reach = committed(store).address;
    *ret_at = at;
    return 0;
}

static bool image_is_kept(const struct store *store, uint64_t image)
{
    if (store->superblock.checkpoint.image == image)
        return true;
    for (uint32_t i = 0; i < store->superblock.snapshot_count; i++)
        if (store->superblock.snapshots[i].at.image == image)
            return true;
    return false;
}

/* Makes `at` the newest checkpoint, durably. checkpoint_lock held. */
static int checkpoint_install(struct store *store, const struct checkpoint *at)
{
    struct checkpoint before = store->superblock.checkpoint;

    store->superblock.checkpoint = *at;
    store->superblock.largest = atomic_load_explicit(&store->log.largest, memory_order_relaxed);
    int rc = superblock_write(store->device, &store->superblock);
    if (rc < 0) {
        store->superblock.checkpoint = before;
        if (device_is_full(rc)) /* else what failed may be on the disk all the same, and name it */
            image_remove(store, at->image);
        return rc;
    }
    atomic_fetch_add_explicit(&store->checkpoints, 1, memory_order_relaxed);
    if (!image_is_kept(store, before.image))
        image_remove(store, before.image);
    return 0;
}

int store_checkpoint(struct store *store)
{
    struct checkpoint at;

    if (store->options.read_only)
        return -EROFS;
    pthread_mutex_lock(&store->checkpoint_lock);
    int rc = checkpoint_write(store, &at);
    if (rc == 0)
        rc = checkpoint_install(store, &at);
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

static int read_image(void *ctx, uint64_t offset, void *buf, uint32_t len)
{
    const struct image *image = ctx;

    return device_file_read(image->device, image->file, offset, buf, len);
}

static int check_image(struct image *image, struct store *store, const struct checkpoint *at, const char **ret_why)
{
    int64_t len = device_file_size(image->device, image->file);
    int rc = len < 0 ? (int)len : index_image_open(&image->index, (uint64_t)len, store->store_id, at->image, ret_why);

    if (rc == 0 && image->index.bits != store->superblock.index_bits) {
        *ret_why = "index image is not that of its checkpoint";
        rc = -EUCLEAN;
    }
    return rc < 0 ? rc : index_image_check(&image->index, at->reach, ret_why);
}

int image_open(struct image *image, struct store *store, const struct checkpoint *at, const char **ret_why)
{
    char name[DEVICE_NAME_MAX + 1];

    *ret_why = "it cannot be read";
    image_name(name, at->image);
    *image = (struct image){.device = store->device, .index = {.read = read_image, .ctx = image}};
    image->file = device_file_open(store->device, name, DEVICE_FILE_CACHED);
    if (image->file < 0)
        return image->file;
    int rc = check_image(image, store, at, ret_why);
    if (rc < 0)
        image_close(image);
    return rc;
}

void image_close(struct image *image)
{
    device_file_close(image->device, image->file);
}

/* ---- snapshots ------------------------------------------------------------------------------------ */

static struct snapshot_entry *find(struct store *store, uint64_t id)
{
    for (uint32_t i = 0; i < store->superblock.snapshot_count; i++)
        if (store->superblock.snapshots[i].id == id)
            return &store->superblock.snapshots[i];
    return NULL;
}

/* Adds an entry to the superblock in memory; the caller writes it or takes it back. */
static int add_entry(struct superblock *sb, const char *label, uint64_t time_ns, const struct checkpoint *at)
{
    struct snapshot_entry *grown = realloc(sb->snapshots, (sb->snapshot_count + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    sb->snapshots = grown;
    struct snapshot_entry *e = &grown[sb->snapshot_count++];
    *e = (struct snapshot_entry){.id = sb->next_snapshot++, .time_ns = time_ns, .at = *at};
    snprintf(e->label, sizeof e->label, "%s", label);
    return 0;
}

static int create_locked(struct store *store, const char *label, uint64_t time_ns, uint64_t *ret_id)
{
    struct superblock *sb = &store->superblock;
    struct checkpoint at;

    for (uint32_t i = 0; i < sb->snapshot_count; i++)
        if (strcmp(sb->snapshots[i].label, label) == 0)
            return -EEXIST;
    if (sb->snapshot_count == SUPERBLOCK_SNAPSHOTS_MAX)
        return -EMLINK;
    int rc = checkpoint_write(store, &at);
    if (rc < 0)
        return rc;
    rc = add_entry(sb, label, time_ns, &at);
    if (rc < 0) {
        image_remove(store, at.image);
        return rc;
    }
    rc = checkpoint_install(store, &at);
    if (rc < 0)
        sb->snapshot_count--;
    else
        *ret_id = sb->snapshots[sb->snapshot_count - 1].id;
    return rc;
}

int store_snapshot_create(struct store *store, const char *label, uint64_t time_ns, uint64_t *ret_id)
{
    if (store->options.read_only)
        return -EROFS;
    if (label[0] == 0 || strlen(label) > STORE_LABEL_MAX)
        return -EINVAL;
    pthread_mutex_lock(&store->checkpoint_lock);
    int rc = create_locked(store, label, time_ns, ret_id);
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

int store_snapshot_list(struct store *store, int (*each)(void *ctx, const struct store_snapshot_info *info), void *ctx)
{
    int rc = 0;

    pthread_mutex_lock(&store->checkpoint_lock);
    for (uint32_t i = 0; i < store->superblock.snapshot_count && rc == 0; i++) {
        const struct snapshot_entry *e = &store->superblock.snapshots[i];
        struct store_snapshot_info info = {
            .id = e->id, .time_ns = e->time_ns, .begin = e->at.begin.address, .address = e->at.end.address};
        memcpy(info.label, e->label, sizeof info.label);
        rc = each(ctx, &info);
    }
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

static bool is_open(const struct store *store, uint64_t id)
{
    for (const struct store_snapshot *s = store->open_snapshots; s; s = s->next)
        if (s->id == id)
            return true;
    return false;
}

static int delete_locked(struct store *store, uint64_t id)
{
    struct superblock *sb = &store->superblock;
    struct snapshot_entry *e = find(store, id);

    if (!e)
        return -ENOENT;
    if (is_open(store, id))
        return -EBUSY;
    struct snapshot_entry kept = *e;
    uint32_t i = (uint32_t)(e - sb->snapshots);
    memmove(e, e + 1, (sb->snapshot_count - i - 1) * sizeof *e);
    sb->snapshot_count--;
    int rc = superblock_write(store->device, sb);
    if (rc < 0) {
        memmove(e + 1, e, (sb->snapshot_count - i) * sizeof *e);
        *e = kept;
        sb->snapshot_count++;
        return rc;
    }
    if (!image_is_kept(store, kept.at.image))
        image_remove(store, kept.at.image);
    compact_release(store);
    return 0;
}

int store_snapshot_delete(struct store *store, uint64_t id)
{
    if (store->options.read_only)
        return -EROFS;
    pthread_mutex_lock(&store->checkpoint_lock);
    int rc = delete_locked(store, id);
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

int store_snapshot_open(struct store *store, uint64_t id, struct store_snapshot **ret_snapshot)
{
    struct store_snapshot *s = calloc(1, sizeof *s);
    const char *why;

    if (!s)
        return -ENOMEM;
    pthread_mutex_lock(&store->checkpoint_lock);
    const struct snapshot_entry *e = find(store, id);
    int rc = e ? image_open(&s->image, store, &e->at, &why) : -ENOENT;
    if (rc == 0) {
        s->store = store;
        s->id = id;
        s->at = e->at;
        s->next = store->open_snapshots;
        store->open_snapshots = s;
        *ret_snapshot = s;
    } else {
        free(s);
    }
    pthread_mutex_unlock(&store->checkpoint_lock);
    return rc;
}

void store_snapshot_close(struct store_snapshot *s)
{
    if (!s)
        return;
    struct store *store = s->store;
    pthread_mutex_lock(&store->checkpoint_lock);
    struct store_snapshot **link = &store->open_snapshots;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    pthread_mutex_unlock(&store->checkpoint_lock);
    image_close(&s->image);
    free(s);
}
