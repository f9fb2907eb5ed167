// SPDX-License-Identifier: MIT
/* salvage: see salvage.h. */
#include "salvage.h"
#include "scan.h"

#include <errno.h>
#include <stdlib.h>

#define PROGRESS_BYTES (UINT64_C(1) << 20)

/* ---- telling ---------------------------------------------------------------------------------------- */

void salvage_tell(struct salvage *salvage, const struct store_damage *damage)
{
    int rc = salvage->to.damage ? salvage->to.damage(salvage->to.ctx, damage) : 0;

    if (rc < 0 && salvage->refused == 0)
        salvage->refused = rc;
}

void salvage_progress(struct salvage *salvage, uint64_t done_bytes, uint64_t total_bytes)
{
    if (!salvage->to.progress || (done_bytes < salvage->told + PROGRESS_BYTES && done_bytes < total_bytes))
        return;
    salvage->told = done_bytes;
    salvage->to.progress(salvage->to.ctx, done_bytes, total_bytes);
}

/* ---- opening, closing ------------------------------------------------------------------------------- */

int salvage_open(struct store *store)
{
    const struct holes *known = &store->superblock.holes;
    struct salvage *salvage = calloc(1, sizeof *salvage);

    if (!salvage)
        return -ENOMEM;
    store->salvage = salvage;
    salvage->store = store;
    salvage->to = *store->options.salvage;
    salvage->room = known->count + 16;
    salvage->holes.ranges = malloc(salvage->room * sizeof *salvage->holes.ranges);
    if (!salvage->holes.ranges)
        return -ENOMEM;
    memcpy(salvage->holes.ranges, known->ranges, known->count * sizeof *known->ranges);
    salvage->holes.count = known->count;
    return 0;
}

void salvage_close(struct salvage *salvage)
{
    if (!salvage)
        return;
    for (uint32_t i = 0; i < salvage->lost_count; i++)
        free(salvage->lost[i].key);
    free(salvage->lost);
    free(salvage->broken);
    free(salvage->holes.ranges);
    free(salvage);
}

const struct holes *salvage_holes(const struct store *store)
{
    return store->salvage ? &store->salvage->holes : &store->superblock.holes;
}

/* Room for one more in an array of so many. */
static int grow(void *array, uint32_t count, uint32_t *room, size_t size)
{
    void *old, *grown;
    uint32_t more = *room ? *room * 2 : 64;

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

/* ---- damaged ranges --------------------------------------------------------------------------------- */

static int add_hole(struct salvage *salvage, uint64_t begin, uint64_t end)
{
    struct holes *holes = &salvage->holes;
    uint64_t segment = salvage->store->superblock.segment_bytes;
    uint32_t i = holes->count;

    while (i > 0 && holes->ranges[i - 1].begin > begin)
        i--;
    if (i > 0 && holes->ranges[i - 1].end == begin && holes->ranges[i - 1].begin / segment == begin / segment) {
        holes->ranges[i - 1].end = end;
        return 0;
    }
    int rc = grow(&holes->ranges, holes->count, &salvage->room, sizeof *holes->ranges);
    if (rc < 0)
        return rc;
    memmove(&holes->ranges[i + 1], &holes->ranges[i], (holes->count - i) * sizeof *holes->ranges);
    holes->ranges[i] = (struct log_range){begin, end};
    holes->count++;
    return 0;
}

/* The header of a record that may be at `at`, as far as it can be judged without the checksum; or NULL. */
static struct record *plausible(struct scan *scan, uint64_t at, uint64_t version)
{
    struct record *r = scan_look(scan, at, RECORD_HEADER_BYTES);

    if (!r)
        return NULL;
    uint64_t link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a private copy */
    bool may_be = !(link & ~(ADDRESS_MASK | RECORD_TOMBSTONE)) && (link & ADDRESS_MASK) < at &&
                  record_version(r) > version && r->value_len <= r->capacity && record_size(r) <= scan->segment_bytes;
    return may_be ? r : NULL;
}

/* Does the log go on at `at`? With a pad only where it must: eight bytes are easily taken for one. */
static bool goes_on(struct scan *scan, uint64_t at, uint64_t version)
{
    struct scan_item item;

    if (plausible(scan, at, version))
        return scan_at(scan, at, &item) == SCAN_RECORD;
    return (at + COMMIT_BYTES) % HLOG_BLOCK == 0 && scan_commit(scan, at);
}

/* Copies the key of the damaged record at `at`, if it can be read. */
static int read_key(struct scan *scan, uint64_t at, uint64_t version, struct salvage_lost *ret_lost)
{
    struct record *r = plausible(scan, at, version);

    *ret_lost = (struct salvage_lost){.address = at};
    if (!r)
        return 0;
    uint32_t key_len = record_key_len(r);
    r = scan_look(scan, at, RECORD_HEADER_BYTES + (uint64_t)key_len);
    if (!r)
        return 0;
    ret_lost->key = malloc(key_len);
    if (!ret_lost->key)
        return -ENOMEM;
    memcpy(ret_lost->key, r->bytes, key_len);
    ret_lost->key_len = key_len;
    ret_lost->link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a private copy */
    ret_lost->hash = hash_key(r->bytes, key_len);
    return 0;
}

static void tell_log(struct salvage *salvage, const struct salvage_lost *lost)
{
    salvage_tell(salvage, &(struct store_damage){.kind = STORE_DAMAGE_LOG,
                                                 .address = lost->address,
                                                 .len_bytes = lost->len_bytes,
                                                 .unreadable = lost->unreadable,
                                                 .snapshot = salvage->snapshot,
                                                 .key = lost->key,
                                                 .key_len = lost->key ? lost->key_len : 0,
                                                 .what = "no sound record"});
}

void salvage_lost_fini(struct salvage_lost *lost)
{
    free(lost->key);
    lost->key = NULL;
    lost->hash = 0;
}

/* Where the first known hole behind `at` begins, or `stop`. */
static uint64_t next_hole(const struct holes *holes, uint64_t at, uint64_t stop)
{
    for (uint32_t i = 0; i < holes->count && holes->ranges[i].begin < stop; i++)
        if (holes->ranges[i].begin > at)
            return holes->ranges[i].begin;
    return stop;
}

int salvage_look(struct scan *scan, uint64_t at, uint64_t stop, uint64_t version, struct salvage_lost *ret_lost,
                 uint64_t *ret_next)
{
    uint64_t segment = round_up(at + 1, scan->segment_bytes), next = at + 8;
    int rc = read_key(scan, at, version, ret_lost);

    if (stop > segment)
        stop = segment;
    stop = next_hole(scan->holes, at, stop); /* holes do not overlap */
    while (rc == 0 && next < stop && next < scan->end && !goes_on(scan, next, version))
        next += 8;
    if (next >= scan->end)
        next = stop;
    if (ret_lost->key && at + RECORD_HEADER_BYTES + ret_lost->key_len > next)
        salvage_lost_fini(ret_lost);
    ret_lost->len_bytes = next - at;
    *ret_next = next;
    return rc < 0 ? rc : scan_is_unreadable(scan, at, next, &ret_lost->unreadable);
}

int salvage_pass(struct salvage *salvage, struct scan *scan, uint64_t at, uint64_t limit, uint64_t version,
                 uint64_t *ret_next, const struct salvage_lost **ret_lost)
{
    struct salvage_lost lost;
    uint64_t next;
    int rc = salvage_look(scan, at, limit, version, &lost, &next);

    if (rc == 0)
        rc = add_hole(salvage, at, next);
    if (rc == 0 && lost.key)
        rc = grow(&salvage->lost, salvage->lost_count, &salvage->lost_room, sizeof *salvage->lost);
    if (rc < 0) {
        salvage_lost_fini(&lost);
        return rc;
    }
    salvage->damaged = true;
    *ret_next = next;
    *ret_lost = NULL;
    if (lost.key) {
        salvage->lost[salvage->lost_count] = lost;
        *ret_lost = &salvage->lost[salvage->lost_count++];
    } else {
        tell_log(salvage, &lost);
    }
    return 0;
}

void salvage_judge(struct salvage *salvage, uint64_t address, bool believed)
{
    uint32_t i = salvage->lost_count - 1;

    while (salvage->lost[i].address != address) /* one of the last: noted in this extent */
        i--;
    struct salvage_lost *lost = &salvage->lost[i];
    if (!believed)
        salvage_lost_fini(lost);
    tell_log(salvage, lost);
    if (!believed)
        memmove(lost, lost + 1, (--salvage->lost_count - i) * sizeof *lost);
}

bool salvage_is_hole(const struct holes *holes, uint64_t address)
{
    for (uint32_t i = 0; i < holes->count; i++)
        if (address >= holes->ranges[i].begin && address < holes->ranges[i].end)
            return true;
    return false;
}

int salvage_broken(struct salvage *salvage, uint64_t hash)
{
    int rc = grow(&salvage->broken, salvage->broken_count, &salvage->broken_room, sizeof *salvage->broken);

    if (rc == 0)
        salvage->broken[salvage->broken_count++] = hash;
    return rc;
}

/* ---- snapshots, images ------------------------------------------------------------------------------- */

static int check_image(struct salvage *salvage, const struct checkpoint *at, uint64_t snapshot, bool *ret_damaged)
{
    struct store *store = salvage->store;
    struct store_damage damage = {.kind = STORE_DAMAGE_IMAGE, .snapshot = snapshot};
    struct image image;

    *ret_damaged = false;
    if (at->image == 0)
        return 0;
    int rc = image_open(&image, store, at, &damage.what);
    if (rc == 0)
        image_close(&image);
    if (rc == -ENOENT)
        damage.what = "the file is missing";
    if (rc == 0 || rc == -ENOMEM)
        return rc;
    *ret_damaged = true;
    damage.unreadable = rc != -EUCLEAN && rc != -ENOENT;
    salvage_tell(salvage, &damage);
    return 0;
}

/* What a snapshot keeps of the log below the store's own. */
static int check_kept(struct salvage *salvage, struct scan *scan, uint64_t at, uint64_t end)
{
    const struct salvage_lost *lost = NULL;
    struct scan_item item;
    int rc = 0;

    for (uint64_t next; at < end && rc == 0; at = next) {
        bool sound = scan_at(scan, at, &item) != SCAN_NOTHING;
        next = at + item.size;
        if (scan->error)
            rc = scan->error;
        else if (!sound)
            rc = salvage_pass(salvage, scan, at, end, 0, &next, &lost);
        if (rc == 0 && !sound && lost)
            salvage_judge(salvage, at, true); /* nothing hangs on it */
    }
    return rc;
}

int salvage_snapshots(struct salvage *salvage)
{
    struct store *store = salvage->store;
    const struct superblock *sb = &store->superblock;
    uint64_t done = 0, begin = store->begin_at.address;
    struct scan scan;
    int rc = scan_open(&scan, store, begin);

    if (rc == 0)
        rc = check_image(salvage, &sb->checkpoint, 0, &salvage->image_damaged);
    for (uint32_t i = 0; i < sb->snapshot_count && rc == 0; i++) {
        const struct checkpoint *at = &sb->snapshots[i].at;
        uint64_t from = at->begin.address > done ? at->begin.address : done, to = at->reach < begin ? at->reach : begin;
        salvage->snapshot = sb->snapshots[i].id;
        if (to > from)
            rc = check_kept(salvage, &scan, from, to);
        if (at->reach > done)
            done = at->reach;
        bool damaged = salvage->image_damaged;
        if (rc == 0 && at->image != sb->checkpoint.image)
            rc = check_image(salvage, at, sb->snapshots[i].id, &damaged);
        salvage->images_damaged |= rc == 0 && damaged;
    }
    salvage->snapshot = 0;
    scan_close(&scan);
    return rc;
}

/* The index of the log from the snapshot's beginning on. */
static int index_of(struct store *store, const struct checkpoint *at, struct index **ret_index)
{
    struct scan_item item;
    struct scan scan;
    int rc = scan_open(&scan, store, at->reach);

    if (rc == 0)
        rc = index_open_empty(store, ret_index);
    for (uint64_t next, to = at->begin.address; to < at->reach && rc == 0; to = next) {
        index_slot *slot;
        uint64_t entry;
        enum scan_kind kind = scan_at(&scan, to, &item);
        next = to + item.size;
        if (kind == SCAN_NOTHING)
            rc = scan.error ? scan.error : -EUCLEAN;
        else if (kind == SCAN_RECORD)
            rc = index_find_or_create(*ret_index, hash_key(item.record->bytes, record_key_len(item.record)), &slot,
                                      &entry);
        if (rc == 0 && kind == SCAN_RECORD) /* relaxed: nobody else is here */
            atomic_store_explicit(slot, index_entry_with(entry, to), memory_order_relaxed);
        for (int more = 1; rc == 0 && more > 0 && index_wants_growth(*ret_index);)
            more = index_grow(*ret_index);
    }
    scan_close(&scan);
    return rc;
}

/* Makes the damaged images of snapshots anew, in the superblock in memory. */
static int repair_images(struct store *store)
{
    struct superblock *sb = &store->superblock;
    int rc = 0;

    for (uint32_t i = 0; i < sb->snapshot_count && rc == 0; i++) {
        struct checkpoint *at = &sb->snapshots[i].at;
        struct index *index = NULL;
        const char *why;
        struct image image;
        uint64_t number = sb->next_image;
        if (image_open(&image, store, at, &why) == 0) {
            image_close(&image);
            continue;
        }
        rc = index_of(store, at, &index);
        if (rc == 0)
            rc = image_save(store, index, number);
        if (rc == 0) {
            sb->next_image++;
            at->image = number;
        }
        if (index)
            index_close(index);
    }
    return rc;
}

/* ---- broken chains ----------------------------------------------------------------------------------- */

struct member { /* a sound record of a broken chain */
    uint64_t hash, address;
};

struct members {
    struct member *list;
    uint32_t count, room;
};

static uint64_t chain_of(const struct store *store, uint64_t hash)
{
    return hash >> (64 - store->superblock.index_bits);
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

/* By key, the newest first. */
static int by_hash(const void *a, const void *b)
{
    const struct member *left = a, *right = b;

    if (left->hash != right->hash)
        return left->hash < right->hash ? -1 : 1;
    return left->address > right->address ? -1 : left->address < right->address;
}

static int collect(struct salvage *salvage, struct scan *scan, struct members *members)
{
    struct store *store = salvage->store;
    struct scan_item item;

    for (uint64_t at = store->begin_at.address; at < scan->end; at += item.size) {
        if (scan_at(scan, at, &item) == SCAN_NOTHING)
            return scan->error ? scan->error : -EUCLEAN;
        if (item.kind != SCAN_RECORD)
            continue;
        uint64_t hash = hash_key(item.record->bytes, record_key_len(item.record)), chain = chain_of(store, hash);
        if (!bsearch(&chain, salvage->broken, salvage->broken_count, sizeof chain, by_number))
            continue;
        int rc = grow(&members->list, members->count, &members->room, sizeof *members->list);
        if (rc < 0)
            return rc;
        members->list[members->count++] = (struct member){hash, at};
    }
    if (members->count > 0)
        qsort(members->list, members->count, sizeof *members->list, by_hash);
    return 0;
}

static int put_tombstone(struct store_session *s, const void *key, uint32_t key_len)
{
    int rc = store_upsert(s, key, key_len, "", 0); /* nothing else would put one where nothing is seen to be deleted */

    return rc < 0 ? rc : store_delete(s, key, key_len);
}

/* Is a record of the key damaged that was newer? */
static bool is_lost(const struct salvage *salvage, const struct member *newest)
{
    for (uint32_t i = 0; i < salvage->lost_count; i++)
        if (salvage->lost[i].hash == newest->hash && salvage->lost[i].address > newest->address)
            return true;
    return false;
}

static int append_again(struct salvage *salvage, struct store_session *s, struct scan *scan,
                        const struct member *member)
{
    struct scan_item item;

    if (scan_at(scan, member->address, &item) != SCAN_RECORD)
        return scan->error ? scan->error : -EUCLEAN;
    struct record *r = item.record;
    if ((item.link & RECORD_TOMBSTONE) || is_lost(salvage, member))
        return put_tombstone(s, r->bytes, record_key_len(r));
    return store_upsert(s, r->bytes, record_key_len(r), record_value(r), r->value_len);
}

/* Cuts the chains from the index: what is appended then links to nothing older. */
static void cut(struct salvage *salvage)
{
    struct store *store = salvage->store;

    for (uint32_t i = 0; i < salvage->broken_count; i++) {
        uint64_t entry;
        index_slot *slot = index_find(store->index, salvage->broken[i] << (64 - store->superblock.index_bits), &entry);
        if (slot) /* relaxed: nobody else is here */
            atomic_store_explicit(slot, index_entry_with(entry, INDEX_NONE), memory_order_relaxed);
    }
}

static int repair_chains(struct salvage *salvage)
{
    struct store *store = salvage->store;
    struct members members = {0};
    struct store_session *s = NULL;
    struct scan scan;

    for (uint32_t i = 0; i < salvage->broken_count; i++)
        salvage->broken[i] = chain_of(store, salvage->broken[i]);
    if (salvage->broken_count > 0)
        qsort(salvage->broken, salvage->broken_count, sizeof *salvage->broken, by_number);
    int rc = scan_open(&scan, store, store->committed.address);
    if (rc == 0)
        rc = collect(salvage, &scan, &members);
    if (rc == 0)
        rc = store_session_open(store, &s);
    if (rc == 0)
        cut(salvage);
    for (uint32_t i = 0; i < members.count && rc == 0; i++)
        if (i == 0 || members.list[i - 1].hash != members.list[i].hash)
            rc = append_again(salvage, s, &scan, &members.list[i]);
    store_session_close(s);
    scan_close(&scan);
    free(members.list);
    return rc < 0 ? rc : store_commit(store);
}

int salvage_repair(struct salvage *salvage)
{
    struct store *store = salvage->store;
    struct superblock *sb = &store->superblock;

    if (salvage->holes.count > SUPERBLOCK_HOLES_MAX)
        return -E2BIG;
    int rc = salvage->broken_count > 0 ? repair_chains(salvage) : 0;
    if (rc == 0 && salvage->images_damaged)
        rc = repair_images(store);
    if (rc < 0 || !(salvage->damaged || salvage->broken_count > 0 || salvage->image_damaged || salvage->images_damaged))
        return rc;
    struct holes before = sb->holes, now = {.count = salvage->holes.count};
    now.ranges = malloc((now.count + 1) * sizeof *now.ranges);
    if (!now.ranges)
        return -ENOMEM;
    memcpy(now.ranges, salvage->holes.ranges, now.count * sizeof *now.ranges);
    sb->holes = now;
    rc = store_checkpoint(store);
    if (rc < 0)
        sb->holes = before;
    free(rc < 0 ? now.ranges : before.ranges);
    return rc;
}
