// SPDX-License-Identifier: MIT
/*
 * `.snapshots`: one directory for each snapshot of the store, with the tree as it was.
 *
 * An inode number inside is (slot << 48) | the number in the tree. A slot belongs to a snapshot's id for
 * good as far as the outside can see: (id - 1) modulo the number of slots, with the id as generation.
 *
 * Invariant: no two snapshots have one slot; one whose slot the snapshots that there are leave no room for is not
 * made. Where a store says otherwise, the older one is shown. A label that is no name is not shown.
 *
 * Threads: whoever reads inside a snapshot holds snapshots_lock for reading from view_get to view_put;
 * opening and dropping take it for writing.
 */
#include "private.h"

#include <errno.h>
#include <string.h>

bool is_live(uint64_t ino)
{
    return ino >> SNAPSHOT_SHIFT == 0;
}

static uint64_t slot_of(uint64_t id)
{
    return (id - 1) % SNAPSHOT_SLOTS + 1;
}

/* ---- by name and by slot ----------------------------------------------------------------------------- */

struct search {
    const char *label; /* or NULL: by slot */
    uint64_t slot;
    struct store_snapshot_info found;
};

static int match(void *ctx, const struct store_snapshot_info *info)
{
    struct search *search = ctx;

    if (search->label ? strcmp(info->label, search->label) != 0 : slot_of(info->id) != search->slot)
        return 0;
    search->found = *info;
    return 1;
}

static int find(struct fs_session *s, struct search *search)
{
    int rc = store_snapshot_list(s->fs->store, match, search);

    return rc < 0 ? rc : rc == 0 ? -ENOENT : 0;
}

static bool has_its_slot(struct fs_session *s, uint64_t id)
{
    struct search search = {.slot = slot_of(id)};

    return find(s, &search) == 0 && search.found.id == id;
}

/* ---- views ------------------------------------------------------------------------------------------- */

static int open_slot(struct fs_session *s, uint64_t slot)
{
    struct search search = {.slot = slot};
    struct snapshot_slot *at = &s->fs->slots[slot];
    int rc = 0;

    pthread_rwlock_wrlock(&s->fs->snapshots_lock);
    if (at->id == 0) {
        rc = find(s, &search);
        if (rc == 0)
            rc = store_snapshot_open(s->fs->store, search.found.id, &at->snapshot);
        if (rc == 0)
            at->id = search.found.id;
        if (rc == 0 && slot >= s->fs->slots_end)
            s->fs->slots_end = slot + 1;
        at->time_ns = search.found.time_ns;
    }
    pthread_rwlock_unlock(&s->fs->snapshots_lock);
    return rc == -ENOENT ? -ESTALE : rc;
}

int view_get(struct fs_session *s, uint64_t ino, struct view *ret_view)
{
    uint64_t slot = ino >> SNAPSHOT_SHIFT;

    *ret_view = (struct view){.ino = ino & ((UINT64_C(1) << SNAPSHOT_SHIFT) - 1), .slot = slot};
    if (slot == 0)
        return 0;
    if (slot > SNAPSHOT_SLOTS)
        return -EINVAL;
    for (;;) {
        pthread_rwlock_rdlock(&s->fs->snapshots_lock);
        if (s->fs->slots[slot].id != 0) {
            ret_view->snapshot = s->fs->slots[slot].snapshot;
            ret_view->id = s->fs->slots[slot].id;
            ret_view->time_ns = s->fs->slots[slot].time_ns;
            return 0;
        }
        pthread_rwlock_unlock(&s->fs->snapshots_lock);
        int rc = open_slot(s, slot);
        if (rc < 0)
            return rc;
    }
}

void view_put(struct fs_session *s, const struct view *view)
{
    if (view->snapshot)
        pthread_rwlock_unlock(&s->fs->snapshots_lock);
}

void view_attr(const struct view *view, struct fs_attr *attr)
{
    if (!view->snapshot)
        return;
    attr->ino |= view->slot << SNAPSHOT_SHIFT;
    attr->generation = view->id;
    if (view->ino == FS_INO_ROOT) /* when it was taken */
        attr->btime = (struct timespec){(time_t)(view->time_ns / 1000000000), (long)(view->time_ns % 1000000000)};
}

/* ---- `.snapshots` itself ------------------------------------------------------------------------------- */

int snapshots_getattr(struct fs_session *s, struct fs_attr *ret_attr)
{
    struct fs_attr root;
    int rc = fs_getattr(s, FS_INO_ROOT, &root);

    if (rc < 0)
        return rc;
    *ret_attr = root;
    ret_attr->ino = FS_INO_SNAPSHOTS;
    ret_attr->generation = 0;
    ret_attr->size = ret_attr->blocks = 0;
    ret_attr->nlink = 2;
    ret_attr->mode = S_IFDIR | (root.mode & 0777);
    return 0;
}

static int attr_of(struct fs_session *s, uint64_t id, struct fs_attr *ret_attr)
{
    if (!has_its_slot(s, id))
        return -EUCLEAN;
    return fs_getattr(s, slot_of(id) << SNAPSHOT_SHIFT | FS_INO_ROOT, ret_attr);
}

int snapshots_lookup(struct fs_session *s, const char *name, struct fs_attr *ret_attr)
{
    struct search search = {.label = name};

    if (strcmp(name, ".") == 0)
        return snapshots_getattr(s, ret_attr);
    if (strcmp(name, "..") == 0)
        return fs_lookup(s, FS_INO_ROOT, ".", ret_attr);
    int rc = find(s, &search);
    return rc < 0 ? rc : attr_of(s, search.found.id, ret_attr);
}

int snapshots_create(struct fs_session *s, const char *name, struct fs_attr *ret_attr)
{
    struct timespec now;
    uint64_t id;
    int rc = check_name(name);

    if (rc < 0)
        return rc;
    fs_now(s->fs, &now);
    for (bool again = true; again && rc == 0;) {
        rc = store_snapshot_create(s->fs->store, name, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, &id);
        again = rc == 0 && !has_its_slot(s, id); /* 65,534 ids later, and the older one is still there: the next id */
        if (again)
            rc = store_snapshot_delete(s->fs->store, id);
    }
    return rc < 0 ? rc : attr_of(s, id, ret_attr);
}

int snapshots_delete(struct fs_session *s, const char *name)
{
    struct search search = {.label = name};
    int rc = check_name(name);

    if (rc == 0)
        rc = find(s, &search);
    if (rc < 0)
        return rc;
    struct snapshot_slot *at = &s->fs->slots[slot_of(search.found.id)];
    pthread_rwlock_wrlock(&s->fs->snapshots_lock); /* nobody is reading inside */
    if (at->id == search.found.id) {
        store_snapshot_close(at->snapshot);
        *at = (struct snapshot_slot){0};
    }
    rc = store_snapshot_delete(s->fs->store, search.found.id);
    pthread_rwlock_unlock(&s->fs->snapshots_lock);
    return rc;
}

/* ---- readdir: cookie = id + 2 -------------------------------------------------------------------------- */

struct next {
    uint64_t after; /* id */
    struct store_snapshot_info found;
};

static int find_next(void *ctx, const struct store_snapshot_info *info)
{
    struct next *next = ctx;

    if (info->id <= next->after)
        return 0;
    next->found = *info;
    return 1;
}

int snapshots_readdir(struct fs_session *s, uint64_t cookie, bool with_attr, fs_fill fill, void *ctx)
{
    struct next next = {.after = cookie > 2 ? cookie - 2 : 0};
    struct fs_attr attr;
    int rc = 0;

    if (cookie < 1 && fill(ctx, &(struct fs_dirent){
                               .name = ".", .name_len = 1, .ino = FS_INO_SNAPSHOTS, .type = S_IFDIR, .cookie = 1}))
        return 0;
    if (cookie < 2 && fill(ctx, &(struct fs_dirent){
                               .name = "..", .name_len = 2, .ino = FS_INO_ROOT, .type = S_IFDIR, .cookie = 2}))
        return 0;
    while ((rc = store_snapshot_list(s->fs->store, find_next, &next)) > 0) {
        next.after = next.found.id;
        if (check_name(next.found.label) < 0 || !has_its_slot(s, next.found.id) ||
            (with_attr && attr_of(s, next.found.id, &attr) < 0))
            continue; /* dropped meanwhile, or damaged */
        if (fill(ctx, &(struct fs_dirent){.name = next.found.label,
                                          .name_len = strlen(next.found.label),
                                          .ino = slot_of(next.found.id) << SNAPSHOT_SHIFT | FS_INO_ROOT,
                                          .type = S_IFDIR,
                                          .cookie = next.found.id + 2,
                                          .attr = with_attr ? &attr : NULL}))
            return 0;
    }
    return rc;
}

void snapshots_close(struct fs *fs)
{
    for (uint64_t i = 1; i < fs->slots_end; i++)
        if (fs->slots[i].id != 0)
            store_snapshot_close(fs->slots[i].snapshot);
}
