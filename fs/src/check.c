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

uint64_t check_tree_id(const struct check *c)
{
    return c->tree_of ? c->tree_of->info.id : 0;
}

/* Takes the fault's key over. */
static int add_fault(struct check *c, const struct fault *fault)
{
    bool full = c->fault_count == CHECK_FAULTS_MAX;
    int rc = full ? 0 : check_grow(&c->faults, c->fault_count, &c->fault_room, sizeof *c->faults);

    c->faults_untold += full;
    if (full || rc < 0) {
        free(fault->key);
        return rc;
    }
    struct fault *added = &c->faults[c->fault_count++];
    *added = *fault;
    if (c->tree_of)
        added->snapshot = check_tree_id(c);
    return 0;
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

static void set_lost(struct fault *fault, const void *key, uint32_t key_len)
{
    fault->kind = FAULT_LOST;
    fault->ino = check_key_ino(key, key_len);
    fault->what = check_key_words(key, key_len);
    check_key_range(key, key_len, &fault->number, &fault->len);
}

int check_lost(struct check *c, const void *key, uint32_t key_len)
{
    int rc = check_fault_at(c, FAULT_LOST, 0, NULL, key, key_len, 0);

    if (rc == 0 && c->faults_untold == 0)
        set_lost(&c->faults[c->fault_count - 1], key, key_len);
    return rc;
}

static void drop_faults(struct check *c)
{
    for (uint64_t i = 0; i < c->fault_count; i++) {
        free(c->faults[i].key);
        free(c->faults[i].path);
    }
    c->fault_count = c->faults_untold = 0;
}

/* ---- what the store tells ------------------------------------------------------------------------------ */

/* A record of a key is damaged: the key is not to be believed from older records. */
static int take_gone(struct check *c, const struct store_damage *damage)
{
    int rc = check_grow(&c->gone, c->gone_count, &c->gone_room, sizeof *c->gone);

    if (rc < 0 || damage->key_len > sizeof c->gone->key.bytes)
        return rc;
    struct gone *gone = &c->gone[c->gone_count++];
    gone->address = damage->address;
    gone->fault = c->faults_untold ? UINT64_MAX : c->fault_count - 1;
    gone->key.len = damage->key_len;
    memcpy(gone->key.bytes, damage->key, damage->key_len);
    return 0;
}

/* Opening for writing: what is damaged was told before, in the same order, or it is refused. */
static int recognize(struct check *c, const struct damage *damage)
{
    for (uint64_t i = 0; i < c->damage_count; i++) {
        uint64_t at = (c->damage_at + i) % c->damage_count;
        const struct damage *known = &c->damages[at];
        if (known->kind == damage->kind && known->address == damage->address && known->len == damage->len &&
            known->snapshot == damage->snapshot) {
            c->damage_at = at;
            return 0;
        }
    }
    return -EIO;
}

static int take_damage(void *ctx, const struct store_damage *told)
{
    struct check *c = ctx;
    struct damage damage = {told->kind, told->address, told->len_bytes, told->snapshot};
    struct fault fault = {.kind = FAULT_STORE,
                          .what = told->what,
                          .number = told->address,
                          .len = told->len_bytes,
                          .snapshot = told->snapshot};

    if (c->repairing)
        return c->failed = recognize(c, &damage);
    c->unreadable |= told->unreadable;
    int rc = check_grow(&c->damages, c->damage_count, &c->damage_room, sizeof *c->damages);
    if (rc == 0)
        c->damages[c->damage_count++] = damage;
    if (rc == 0)
        rc = add_fault(c, &fault);
    if (rc == 0 && told->key)
        rc = take_gone(c, told);
    return c->failed = rc;
}

int check_gone(struct check *c)
{
    static uint8_t whole[FS_CHUNK_BYTES]; /* else the head of a large value is all that is looked at */
    int rc = 0;

    for (uint64_t i = 0; i < c->gone_count && rc == 0; i++) {
        const struct gone *gone = &c->gone[i];
        const struct fs_key *key = &gone->key;
        struct fault *told = gone->fault < c->fault_count ? &c->faults[gone->fault] : NULL;
        uint32_t len;
        int got = check_get(c, key, whole, sizeof whole, &len);
        if (got != -EIO || check_key_ino(key->bytes, key->len) == 0) {
            rc = got < 0 && got != -EIO ? got : 0;
        } else if (told && told->kind == FAULT_STORE && told->snapshot == check_tree_id(c)) {
            if (!(told->key = malloc(sizeof *told->key)))
                return -ENOMEM;
            *told->key = *key;
            set_lost(told, key->bytes, key->len);
        } else {
            rc = check_lost(c, key->bytes, key->len);
        }
    }
    return rc;
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
    for (uint64_t i = 0; i < c->gone_count; i++)
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
    if (item->unreachable && !c->tree && is_gone(c, item))
        return 0;
    return scan->each(c, item);
}

int check_scan(struct check *c, const char *phase, store_each each)
{
    struct scan_of scan = {c, each};
    struct store_stats stats;

    if (c->tree) {
        const struct store_snapshot_info *info = &c->tree_of->info;
        snprintf(c->phase, sizeof c->phase, "snapshot %s: %s", info->label, phase);
        c->begin = c->done = info->begin;
        c->total = info->address - info->begin;
        return store_snapshot_scan(c->session, c->tree, scan_each, &scan);
    }
    store_stats(c->store, &stats);
    snprintf(c->phase, sizeof c->phase, "%s", phase);
    c->begin = c->done = stats.begin;
    c->total = stats.tail - stats.begin;
    return store_scan(c->session, scan_each, &scan);
}

int check_get(struct check *c, const struct fs_key *key, void *buf, uint32_t buf_len, uint32_t *ret_len)
{
    struct store_read read = {.key = key->bytes,
                              .key_len = key->len,
                              .buf = buf,
                              .buf_len = buf_len,
                              .value_hint = buf_len,
                              .snapshot = c->tree};
    int rc = store_read_wait(c->session, &read);

    *ret_len = rc == STORE_OK ? read.value_len : 0;
    return rc;
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

/* In a snapshot nothing will make reachable again what is not: it counts as lost. */
static bool is_lost(const struct check *c, const struct store_item *item)
{
    return c->tree && item->unreachable;
}

static int each_inode(void *ctx, const struct store_item *item)
{
    return is_lost(ctx, item) ? 0 : check_inode(ctx, item);
}

static int each_record(void *ctx, const struct store_item *item)
{
    return is_lost(ctx, item) ? check_lost(ctx, item->key, item->key_len) : check_record(ctx, item);
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
    struct store_options options = {
        .memory_bytes = c->options.memory_bytes, .no_background = true, .read_only = read_only, .salvage = &salvage};
    struct store_opened opened;

    c->failed = 0;
    c->repairing = !read_only;
    int rc = store_open(c->device, &options, &c->store, &opened);
    if (rc < 0) {
        snprintf(checked->message, sizeof checked->message, "%s",
                 rc == -ENOENT ? "there is no store here; name the directory of one"
                 : c->repairing && c->failed < 0
                     ? "it reads differently each time; look at the disk and the kernel's messages; nothing "
                       "was changed"
                     : opened.message);
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

/* ---- the whole ------------------------------------------------------------------------------------------- */

static int take_snapshot(void *ctx, const struct store_snapshot_info *info)
{
    struct check *c = ctx;
    int rc = check_grow(&c->snapshots, c->snapshot_count, &c->snapshot_room, sizeof *c->snapshots);

    if (rc == 0)
        c->snapshots[c->snapshot_count++] = (struct snapshot){.info = *info};
    return rc;
}

static const char *label_of(const struct check *c, uint64_t id)
{
    for (uint64_t i = 0; i < c->snapshot_count; i++)
        if (c->snapshots[i].info.id == id)
            return c->snapshots[i].info.label;
    return NULL;
}

static void tell(struct check *c, const struct fault *fault)
{
    struct fs_fault told = {.path = fault->path,
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
}

/* What a snapshot's tree lacks stays as it is. */
static bool can_be_mended(const struct fault *fault)
{
    return fault->snapshot == 0 || fault->kind == FAULT_STORE;
}

static int look(struct check *c, struct fs_checked *checked)
{
    int rc = open_store(c, true, checked);

    if (rc == 0)
        rc = store_snapshot_list(c->store, take_snapshot, c);
    if (rc == 0)
        rc = check_gone(c);
    if (rc == 0)
        rc = check_read(c);
    if (rc == 0 && c->fault_count > 0)
        rc = check_names(c);
    checked->inodes = c->node_count;
    if (rc == 0)
        rc = check_snapshots(c);
    int closed = close_store(c);
    return rc < 0 ? rc : closed;
}

/* Round by round until nothing is found in the live tree: *ret_left. */
static int mend_rounds(struct check *c, uint64_t *ret_left)
{
    int rc = 0;

    for (unsigned round = 0; rc == 0; round++) {
        drop_faults(c);
        rc = check_read(c);
        if (rc == 0)
            *ret_left = c->fault_count + c->faults_untold;
        if (rc < 0 || *ret_left == 0 || round == ROUNDS)
            break;
        rc = check_repair(c);
    }
    drop_faults(c);
    return rc;
}

/* Notes the faults of snapshots that could not be read before. */
static int mend(struct check *c, struct fs_checked *checked, const struct fault *found, uint64_t count,
                uint64_t *ret_left)
{
    int rc = open_store(c, false, checked);

    if (rc == 0)
        rc = check_dropped_found(c, found, count);
    if (rc == 0)
        rc = mend_rounds(c, ret_left);
    if (rc == 0)
        rc = check_snapshots(c);
    if (rc == 0)
        rc = check_dropped_paths(c, found, count);
    int closed = close_store(c);
    return rc < 0 ? rc : closed;
}

static void tell_all(struct check *c, struct fault *faults, uint64_t count, bool mended, struct fs_checked *checked)
{
    for (uint64_t i = 0; i < count; i++) {
        faults[i].mended = mended && can_be_mended(&faults[i]);
        checked->mended += faults[i].mended;
        tell(c, &faults[i]);
    }
}

/* Keeps the faults that were found first, to be told when it is known what became of them. */
static int check_and_mend(struct check *c, struct fs_checked *checked)
{
    int rc = look(c, checked);
    struct fault *found = c->faults;
    uint64_t count = c->fault_count, untold = c->faults_untold, fixed = 0, left = count + untold;
    bool mended = false;

    for (uint64_t i = 0; i < count; i++)
        fixed += !can_be_mended(&found[i]);
    c->faults = NULL;
    c->fault_count = c->fault_room = c->faults_untold = 0;
    if (rc == 0 && c->options.repair && left > fixed && c->unreadable) {
        snprintf(checked->message, sizeof checked->message,
                 "the disk could not read some of it; copy the files of the store to another disk (ddrescue(1) does, "
                 "sectors "
                 "that cannot be read included), and mend the copy; nothing was changed");
    } else if (rc == 0 && c->options.repair && left > fixed) {
        rc = mend(c, checked, found, count, &left);
        mended = rc == 0 && left == 0;
        left += fixed + c->fault_count + c->faults_untold;
    }
    checked->faults = count + untold + c->fault_count + c->faults_untold;
    checked->left = left;
    tell_all(c, found, count, mended, checked);
    tell_all(c, c->faults, c->fault_count, false, checked);
    checked->mended += mended ? untold : 0;
    checked->dropped = c->dropped_count + c->dropped_untold;
    for (uint64_t i = 0; i < c->snapshot_count; i++)
        checked->snapshots += c->snapshots[i].read;
    check_dropped_tell(c);
    drop_faults(c);
    free(c->faults);
    c->faults = found;
    c->fault_count = count;
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
    free(c.damages);
    free(c.snapshots);
    return rc;
}
