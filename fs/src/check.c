// SPDX-License-Identifier: MIT
/* check: see checking.h. Opening, scanning, telling. */
#include "checking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 6u /* of mending: what one step drops, the next counts */
#define PROGRESS_BYTES (UINT64_C(1) << 20)

int check_grow(void *array, uint64_t count, uint64_t *room, size_t size)
{
    uint64_t more = *room ? *room * 2 : 64;
    void *old, *grown;

    if (count < *room)
        return 0;
    memcpy(&old, array, sizeof old);
    grown = realloc(old, more * size);
    if (!grown)
        return -ENOMEM;
    memcpy(array, &grown, sizeof grown);
    *room = more;
    return 0;
}

/* ---- faults ------------------------------------------------------------------------------------------ */

/* Takes the fault's key over. */
static int add_fault(struct check *c, const struct fault *fault)
{
    bool full = c->fault_count == CHECK_FAULTS_MAX;
    int rc = full ? 0 : check_grow(&c->faults, c->fault_count, &c->fault_room, sizeof *c->faults);

    c->faults_untold += full;
    if (full || rc < 0)
        free(fault->key);
    else
        c->faults[c->fault_count++] = *fault;
    return rc;
}

int check_fault(struct check *c, enum fault_kind kind, uint64_t ino, const char *what)
{
    return add_fault(c, &(struct fault){.kind = kind, .ino = ino, .what = what});
}

int check_fault_at(struct check *c, enum fault_kind kind, uint64_t ino, const char *what, const void *key,
                   uint32_t key_len, uint64_t number)
{
    struct fault fault = {.kind = kind, .ino = ino, .what = what, .number = number, .key = malloc(sizeof *fault.key)};

    if (!fault.key)
        return -ENOMEM;
    fault.key->len = key_len < sizeof fault.key->bytes ? key_len : (uint32_t)sizeof fault.key->bytes;
    memcpy(fault.key->bytes, key, fault.key->len);
    return add_fault(c, &fault);
}

static void drop_faults(struct check *c)
{
    for (uint64_t i = 0; i < c->fault_count; i++)
        free(c->faults[i].key);
    c->fault_count = c->faults_untold = 0;
}

/* ---- what the store tells ------------------------------------------------------------------------------ */

/* A record of a key is damaged: what it was, and that the key is not to be believed from older records. */
static int take_lost(struct check *c, const struct store_damage *damage, struct fault *fault)
{
    uint64_t room = c->gone_room;
    int rc = check_grow(&c->gone, c->gone_count, &room, sizeof *c->gone);
    const uint8_t *key = damage->key;

    if (rc < 0 || damage->key_len > sizeof fault->key->bytes)
        return rc;
    c->gone_room = (uint32_t)room;
    struct gone *gone = &c->gone[c->gone_count++];
    gone->address = damage->address;
    gone->key.len = damage->key_len;
    memcpy(gone->key.bytes, key, damage->key_len);
    fault->ino = check_key_ino(key, damage->key_len);
    if (fault->ino == 0)
        return 0;
    fault->kind = FAULT_LOST;
    if (!(fault->key = malloc(sizeof *fault->key)))
        return -ENOMEM;
    *fault->key = gone->key;
    fault->what = check_key_words(key, damage->key_len);
    check_key_range(key, damage->key_len, &fault->number, &fault->len);
    return 0;
}

static void take_damage(void *ctx, const struct store_damage *damage)
{
    struct check *c = ctx;
    struct fault fault = {.kind = FAULT_STORE,
                          .what = damage->what,
                          .number = damage->address,
                          .len = damage->len_bytes,
                          .snapshot = damage->snapshot};
    int rc = 0;

    if (c->repairing) /* told before */
        return;
    if (damage->key)
        rc = take_lost(c, damage, &fault);
    if (rc == 0)
        rc = add_fault(c, &fault);
    if (rc < 0)
        c->failed = rc;
}

static void take_progress(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
    struct check *c = ctx;

    if (c->options.progress)
        c->options.progress(c->options.ctx, "log", done_bytes, total_bytes);
}

/* Is the record an older one of a key whose newest is damaged? */
static bool is_gone(const struct check *c, const struct store_item *item)
{
    for (uint32_t i = 0; i < c->gone_count; i++)
        if (c->gone[i].key.len == item->key_len && c->gone[i].address > item->address &&
            memcmp(c->gone[i].key.bytes, item->key, item->key_len) == 0)
            return true;
    return false;
}

/* ---- scans ----------------------------------------------------------------------------------------------- */

struct scan_of {
    struct check *check;
    store_each each;
};

static int scan_each(void *ctx, const struct store_item *item)
{
    struct scan_of *scan = ctx;
    struct check *c = scan->check;

    if (c->options.progress && item->address > c->done + PROGRESS_BYTES) {
        c->done = item->address;
        c->options.progress(c->options.ctx, c->phase, c->done - c->begin, c->total);
    }
    if (item->unreachable && is_gone(c, item))
        return 0;
    return scan->each(c, item);
}

int check_scan(struct check *c, const char *phase, store_each each)
{
    struct scan_of scan = {c, each};
    struct store_stats stats;

    store_stats(c->store, &stats);
    c->phase = phase;
    c->begin = c->done = stats.begin;
    c->total = stats.tail - stats.begin;
    return store_scan(c->session, scan_each, &scan);
}

static int by_ino(const void *a, const void *b)
{
    const struct node *left = a, *right = b;

    return left->ino < right->ino ? -1 : left->ino > right->ino;
}

struct node *check_node(struct check *c, uint64_t ino)
{
    struct node key = {.ino = ino};

    return c->node_count ? bsearch(&key, c->nodes, c->node_count, sizeof key, by_ino) : NULL;
}

static int each_inode(void *ctx, const struct store_item *item)
{
    return check_inode(ctx, item);
}

static int each_record(void *ctx, const struct store_item *item)
{
    return check_record(ctx, item);
}

int check_read(struct check *c)
{
    c->node_count = 0;
    c->counted = 0;
    c->super_found = false;
    c->highest_ino = FS_INO_ROOT;
    c->highest_orphan = 0;
    int rc = check_scan(c, "inodes", each_inode);
    if (rc < 0)
        return rc;
    if (c->node_count > 0)
        qsort(c->nodes, c->node_count, sizeof *c->nodes, by_ino);
    rc = check_scan(c, "files", each_record);
    return rc < 0 ? rc : check_judge(c);
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static int open_store(struct check *c, bool read_only, struct fs_checked *checked)
{
    struct store_salvage salvage = {.damage = take_damage, .progress = take_progress, .ctx = c};
    struct store_options options = {.memory_bytes = c->options.memory_bytes,
                                    .no_background = true,
                                    .read_only = read_only,
                                    .salvage = &salvage,
                                    .cold = c->options.cold};
    struct store_opened opened;

    c->repairing = !read_only;
    int rc = store_open(c->device, &options, &c->store, &opened);
    if (rc < 0) {
        snprintf(checked->message, sizeof checked->message, "%s",
                 rc == -ENOENT ? "there is no store here; name the directory of one" : opened.message);
        return rc;
    }
    struct store_stats stats;
    store_stats(c->store, &stats);
    checked->log_bytes = stats.tail - stats.begin;
    return store_session_open(c->store, &c->session);
}

static int close_store(struct check *c)
{
    int rc = 0;

    store_session_close(c->session);
    c->session = NULL;
    if (c->store)
        rc = store_close(c->store);
    c->store = NULL;
    return rc;
}

static int take_label(void *ctx, const struct store_snapshot_info *info)
{
    struct check *c = ctx;
    int rc = check_grow(&c->snapshots, c->snapshot_count, &c->snapshot_room, sizeof *c->snapshots);

    if (rc == 0)
        c->snapshots[c->snapshot_count++] = *info;
    return rc;
}

static const char *label_of(const struct check *c, uint64_t id)
{
    for (uint64_t i = 0; i < c->snapshot_count; i++)
        if (c->snapshots[i].id == id)
            return c->snapshots[i].label;
    return NULL;
}

/* The path of what is at fault: of an inode, or of a name in it. */
static char *path_of(struct check *c, const struct fault *fault)
{
    char *path = fault->ino ? check_path(c, fault->ino) : NULL, *longer;
    const struct fs_key *key = fault->key;

    if (!path || !key || key->bytes[0] != 'D' || fault->ino != check_key_ino(key->bytes, key->len))
        return path;
    int len = asprintf(&longer, "%s/%.*s", path[1] ? path : "", (int)(key->len - 9), (const char *)key->bytes + 9);
    free(path);
    return len < 0 ? NULL : longer;
}

static void tell(struct check *c, const struct fault *fault)
{
    char *path = path_of(c, fault);
    struct fs_fault told = {.path = path,
                            .snapshot = label_of(c, fault->snapshot),
                            .what = fault->what,
                            .ino = fault->ino,
                            .mended = fault->mended};

    if (fault->kind == FAULT_STORE || fault->kind == FAULT_LOST) {
        told.offset = fault->number;
        told.len = fault->len;
    }
    if (c->options.fault)
        c->options.fault(c->options.ctx, &told);
    free(path);
}

/* Mends round by round until nothing is found. */
static int mend(struct check *c, struct fs_checked *checked)
{
    int rc = open_store(c, false, checked);

    for (unsigned round = 0; rc == 0; round++) {
        drop_faults(c);
        rc = check_read(c);
        checked->left = c->fault_count + c->faults_untold;
        if (rc < 0 || checked->left == 0 || round == ROUNDS)
            break;
        rc = check_repair(c);
    }
    int closed = close_store(c);
    return rc < 0 ? rc : closed;
}

static int look(struct check *c, struct fs_checked *checked)
{
    int rc = open_store(c, true, checked);

    if (rc == 0)
        rc = store_snapshot_list(c->store, take_label, c);
    if (rc == 0)
        rc = check_read(c);
    if (rc == 0)
        rc = c->failed;
    if (rc == 0 && c->fault_count > 0)
        rc = check_names(c);
    checked->inodes = c->node_count;
    checked->faults = checked->left = c->fault_count + c->faults_untold;
    int closed = close_store(c);
    return rc < 0 ? rc : closed;
}

/* Keeps the faults that were found first, to be told when it is known what became of them. */
static int check_and_mend(struct check *c, struct fs_checked *checked)
{
    int rc = look(c, checked);
    struct fault *found = c->faults;
    uint64_t count = c->fault_count;

    if (rc == 0 && checked->faults > 0 && c->options.repair) {
        c->faults = NULL;
        c->fault_count = c->fault_room = 0;
        rc = mend(c, checked);
        if (rc == 0 && checked->left == 0)
            checked->mended = checked->faults;
        drop_faults(c);
        free(c->faults);
        c->faults = found;
        c->fault_count = count;
    }
    for (uint64_t i = 0; i < count; i++) {
        found[i].mended = checked->mended > 0;
        tell(c, &found[i]);
    }
    drop_faults(c);
    return rc;
}

int fs_check(struct device *device, const struct fs_check_options *options, struct fs_checked *ret_checked)
{
    struct check c = {.device = device, .options = *options};

    *ret_checked = (struct fs_checked){0};
    int rc = check_and_mend(&c, ret_checked);
    if (rc == -EPROTONOSUPPORT && !ret_checked->message[0])
        snprintf(ret_checked->message, sizeof ret_checked->message,
                 "made by another version of fasterfs; use that version or a newer one");
    else if (rc < 0 && !ret_checked->message[0])
        snprintf(ret_checked->message, sizeof ret_checked->message, "%s", strerror(-rc));
    check_names_fini(&c);
    free(c.faults);
    free(c.nodes);
    free(c.gone);
    free(c.snapshots);
    return rc;
}
