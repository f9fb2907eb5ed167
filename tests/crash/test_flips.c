// SPDX-License-Identifier: MIT
/*
 * A closed store is damaged, one place at a time: bits of superblocks, image headers and commits (with
 * FASTERFS_FLIPS=100000 or more every bit), bits of anything, sectors zeroed, swapped, and taken from
 * an older state of the same store. It is opened for reading, and everything is read: what is read is what was
 * written, or an error. Of some, a copy is salvaged: what gave an error is told; afterwards all but the damaged record
 * is what it was, the store can be written to, and the next open is an ordinary one.
 */
#include "model.h"

#include <unistd.h>

#define SECTOR 512u
#define SALVAGE_EVERY 16u /* of what is not the log */

struct image { /* a file of the closed store */
    char name[DEVICE_NAME_MAX + 1];
    uint8_t *bytes, *older; /* older: at a former close; NULL: not there, or another length */
    uint64_t len, used;     /* used: up to the last byte that is not 0 */
};

static struct image images[64];
static unsigned image_count;
static unsigned snapshot_units[8], snapshots;

/* ---- the store ---------------------------------------------------------------------------------------- */

static struct device *memory;

static int keep_file(void *ctx, const char *name)
{
    bool older = *(bool *)ctx;
    int file = device_file_open(memory, name, 0);
    const void *bytes;
    uint64_t len;
    unsigned i = 0;

    ck_assert_int_eq(device_map(memory, file, &bytes, &len), 0);
    while (i < image_count && strcmp(images[i].name, name) != 0)
        i++;
    struct image *image = &images[i];
    if (i == image_count) {
        image_count++;
        ck_assert_uint_lt(image_count, sizeof images / sizeof images[0]);
        snprintf(image->name, sizeof image->name, "%s", name);
    }
    uint8_t *copy = aligned_alloc(DEVICE_BLOCK_BYTES, len + DEVICE_BLOCK_BYTES);
    memcpy(copy, bytes, len);
    device_unmap(memory, bytes, len);
    device_file_close(memory, file);
    if (older) {
        image->older = copy;
        image->used = len; /* until the real one comes */
        return 0;
    }
    if (image->older && image->used != len) {
        free(image->older);
        image->older = NULL;
    }
    image->bytes = copy;
    image->len = image->used = len;
    while (image->used > 0 && copy[image->used - 1] == 0)
        image->used--;
    return 0;
}

static void units(struct store *store, struct store_session *s, unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        int rc = change_some(s);
        ck_assert(rc == 0 || rc == -EFBIG);
        if (n % 5 == 0)
            ck_assert_int_eq(store_commit(store), 0);
    }
}

/* Two lives, with snapshots; the files are kept as they were after each. */
static void make_store(void)
{
    struct store_opened opened;
    uint64_t id;

    ck_assert_int_eq(device_memory_open(&memory), 0);
    model_reset();
    image_count = snapshots = 0;
    for (unsigned life = 0; life < 2; life++) {
        struct store *store;
        struct store_session *s;
        bool older = life == 0;
        ck_assert_int_eq(store_open(memory, &tiny, &store, &opened), 0);
        ck_assert_int_eq(store_session_open(store, &s), 0);
        for (unsigned part = 0; part < 2; part++) {
            char label[2] = {(char)('0' + snapshots), 0};
            units(store, s, 20);
            snapshot_units[snapshots++] = model.units;
            ck_assert_int_eq(store_snapshot_create(store, label, 1, &id), 0);
        }
        units(store, s, 15);
        store_session_close(s);
        ck_assert_int_eq(store_close(store), 0);
        ck_assert_int_eq(device_list(memory, keep_file, &older), 0);
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < image_count; i++) {
        if (images[i].bytes)
            images[kept++] = images[i];
        else
            free(images[i].older);
    }
    image_count = kept;
}

static void restore(const struct image *image, uint64_t offset, uint64_t len)
{
    uint64_t first = offset / DEVICE_BLOCK_BYTES * DEVICE_BLOCK_BYTES;
    uint64_t end = (offset + len + DEVICE_BLOCK_BYTES - 1) / DEVICE_BLOCK_BYTES * DEVICE_BLOCK_BYTES;
    struct device_queue *queue;
    int file = device_file_open(memory, image->name, 0);

    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(device_queue_open(memory, 1, &queue), 0);
    ck_assert_int_gt(device_transfer(queue, DEVICE_WRITE, file, first, image->bytes + first, (uint32_t)(end - first)),
                     0);
    device_queue_close(queue);
    device_file_close(memory, file);
}

/* ---- what is allowed ------------------------------------------------------------------------------------ */

static uint64_t tried, refused, unread, harmless;

struct lost {
    unsigned keys; /* that give EIO */
    unsigned snapshots;
};

/* Reads all keys, live or of a snapshot that was made after so many units. */
static unsigned read_damaged(struct store_session *s, const struct store_snapshot *snapshot, unsigned at)
{
    static uint8_t buf[VALUE_MAX];
    unsigned errors = 0;

    for (unsigned key = 0; key < KEYS; key++) {
        char name[80];
        struct store_read read = {.key = name, .buf = buf, .buf_len = sizeof buf, .snapshot = snapshot};
        read.key_len = make_key(key, name);
        int rc = store_read_wait(s, &read);
        unsigned i = model.count[key] - 1;
        while (model.versions[key][i].unit > at)
            i--;
        struct version got = {.len = ABSENT};
        if (rc == STORE_OK)
            got = (struct version){.len = read.value_len,
                                   .hash = read.value_len <= VALUE_MAX ? hash_bytes(buf, read.value_len) : 0};
        if (rc == -EIO)
            errors++;
        else if (rc < 0)
            give_up("key %u: %s", key, strerror(-rc));
        else if (!same(&got, &model.versions[key][i]))
            give_up("key %u%s reads as something else than what was written", key, snapshot ? " of a snapshot" : "");
    }
    return errors;
}

static int look_at_snapshot(void *ctx, const struct store_snapshot_info *info)
{
    struct store_snapshot_info *list = ctx;
    unsigned n = 0;

    while (list[n].id != 0)
        n++;
    ck_assert_uint_lt(n, 8);
    list[n] = *info;
    return 0;
}

static void check_snapshots(struct store *store, struct store_session *s, struct lost *lost, bool may_be_older)
{
    struct store_snapshot_info list[9] = {0};
    unsigned count = 0;

    ck_assert_int_eq(store_snapshot_list(store, look_at_snapshot, list), 0);
    for (; list[count].id != 0; count++) {
        struct store_snapshot *snapshot;
        unsigned number = (unsigned)(list[count].label[0] - '0');
        if (number >= snapshots)
            give_up("a snapshot is listed that nobody made");
        int rc = store_snapshot_open(store, list[count].id, &snapshot);
        if (rc < 0) {
            if (rc != -EUCLEAN && rc != -EIO && rc != -ENOENT)
                give_up("opening snapshot %u: %s", number, strerror(-rc));
            lost->snapshots++;
            continue;
        }
        lost->keys += read_damaged(s, snapshot, snapshot_units[number]);
        store_snapshot_close(snapshot);
    }
    if (count < snapshots && !may_be_older)
        give_up("%u of %u snapshots are listed", count, snapshots);
}

/* ---- salvage --------------------------------------------------------------------------------------------- */

static uint64_t salvaged, keys_lost;

static int copy_file(void *ctx, const char *name)
{
    struct device *copy = ctx;
    struct device_queue *queue;
    const void *bytes;
    uint64_t len;
    int from = device_file_open(memory, name, 0), to = device_file_open(copy, name, DEVICE_FILE_CREATE);

    ck_assert_int_eq(device_map(memory, from, &bytes, &len), 0);
    ck_assert_int_eq(device_file_allocate(copy, to, 0, len), 0);
    ck_assert_int_eq(device_queue_open(copy, 1, &queue), 0);
    for (uint64_t at = 0; at < len; at += DEVICE_BLOCK_BYTES) {
        static _Alignas(DEVICE_BLOCK_BYTES) uint8_t block[DEVICE_BLOCK_BYTES], zeros[DEVICE_BLOCK_BYTES];
        memcpy(block, (const uint8_t *)bytes + at, sizeof block);
        if (memcmp(block, zeros, sizeof block) != 0)
            ck_assert_int_gt(device_transfer(queue, DEVICE_WRITE, to, at, block, sizeof block), 0);
    }
    device_queue_close(queue);
    device_unmap(memory, bytes, len);
    device_file_close(memory, from);
    device_file_close(copy, to);
    return 0;
}

static int count_damage(void *ctx, const struct store_damage *damage)
{
    if (!damage->what || (damage->key && damage->key_len == 0))
        give_up("damage is told without what it is");
    ++*(unsigned *)ctx;
    return 0;
}

/* Keys that hold something else than what was written last. */
static unsigned count_lost(struct store_session *s)
{
    static uint8_t buf[VALUE_MAX];
    unsigned lost = 0;

    for (unsigned key = 0; key < KEYS; key++) {
        char name[80];
        struct store_read read = {.key = name, .buf = buf, .buf_len = sizeof buf};
        read.key_len = make_key(key, name);
        int rc = store_read_wait(s, &read);
        struct version got = {.len = ABSENT};
        if (rc < 0)
            give_up("key %u: %s after salvage", key, strerror(-rc));
        if (rc == STORE_OK && read.value_len <= VALUE_MAX)
            got = (struct version){.len = read.value_len, .hash = hash_bytes(buf, read.value_len)};
        lost += !same(&got, model_now(key));
    }
    return lost;
}

/* `hurt`: without it, something could not be read; `most`: records that may be damaged. */
static void salvage(bool hurt, unsigned most)
{
    unsigned told = 0;
    struct store_salvage to = {.damage = count_damage, .ctx = &told};
    struct store_options options = tiny;
    struct store_opened opened;
    struct store_session *s;
    struct device *copy;
    struct store *store;
    uint32_t len;
    char value[8];

    ck_assert_int_eq(device_memory_open(&copy), 0);
    ck_assert_int_eq(device_list(memory, copy_file, copy), 0);
    options.salvage = &to;
    int rc = store_open(copy, &options, &store, &opened);
    if (rc < 0)
        give_up("salvage: %s %s", strerror(-rc), opened.message);
    if (hurt && told == 0)
        give_up("an error was read, and salvaging tells of no damage");
    ck_assert_int_eq(store_session_open(store, &s), 0);
    unsigned lost = count_lost(s);
    if (lost > most || (lost > 0 && told == 0))
        give_up("%u keys are lost, %u places were damaged", lost, told);
    ck_assert_int_eq(store_upsert(s, "again", 5, "written", 7), 0);
    store_session_close(s);
    ck_assert_int_eq(store_close(store), 0);
    options.salvage = NULL;
    rc = store_open(copy, &options, &store, &opened);
    if (rc < 0)
        give_up("after salvage: %s %s", strerror(-rc), opened.message);
    ck_assert_int_eq(store_session_open(store, &s), 0);
    ck_assert_int_eq(store_get(s, "again", 5, value, sizeof value, &len), 0);
    if (count_lost(s) != lost)
        give_up("what was salvaged is not what is there after the next open");
    for (unsigned i = 0; i < 4; i++)
        if ((rc = store_compact(store, UINT64_MAX)) < 0)
            give_up("compaction after salvage: %s", strerror(-rc));
    if (count_lost(s) != lost)
        give_up("compaction after salvage has lost something");
    store_session_close(s);
    ck_assert_int_eq(store_close(store), 0);
    device_close(copy);
    salvaged++;
    keys_lost += lost;
}

/* The store as it is now, with one place damaged. `records`: as many may be hit. */
static void check_damaged(const struct image *image, unsigned records)
{
    static unsigned long long counter;
    struct store_options options = tiny;
    struct store_opened opened;
    struct store *store;
    struct store_session *s;
    struct lost lost = {0, 0};
    bool superblock = image->name[0] == 's';

    options.read_only = true;
    alarm(60);
    tried++;
    counter++;
    int rc = store_open(memory, &options, &store, &opened);
    if (rc < 0) {
        if (rc != -EUCLEAN && rc != -EIO)
            give_up("open: %s %s", strerror(-rc), opened.message);
        if (opened.message[0] == 0)
            give_up("open fails and does not say why");
        refused++;
        salvage(true, records);
        alarm(0);
        return;
    }
    ck_assert_int_eq(store_session_open(store, &s), 0);
    unsigned live = read_damaged(s, NULL, model.units);
    check_snapshots(store, s, &lost, superblock);
    store_session_close(s);
    store_abandon(store);
    unread += live + lost.keys + lost.snapshots > 0;
    harmless += live + lost.keys + lost.snapshots == 0;
    if (image->name[0] != 'l' && live > 0)
        give_up("%u keys cannot be read, and the log is sound", live);
    if (counter % (image->name[0] == 'l' ? 2 : SALVAGE_EVERY) == 0)
        salvage(live + lost.keys + lost.snapshots > 0, records);
    alarm(0);
}

static void say(const struct image *image, const char *what, uint64_t offset)
{
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu, %s at %llu of %.63s", (unsigned long long)workload_seed, what,
             (unsigned long long)offset, image->name);
}

/* ---- damage ------------------------------------------------------------------------------------------------ */

static void flip(const struct image *image, uint64_t offset, unsigned bit)
{
    say(image, "a bit flipped", offset);
    ck_assert_int_eq(device_memory_flip(memory, image->name, offset, bit), 0);
    check_damaged(image, 1);
    ck_assert_int_eq(device_memory_flip(memory, image->name, offset, bit), 0);
}

static void write_sector(const struct image *image, uint64_t offset, const void *bytes)
{
    static _Alignas(DEVICE_BLOCK_BYTES) uint8_t block[DEVICE_BLOCK_BYTES];
    uint64_t first = offset / DEVICE_BLOCK_BYTES * DEVICE_BLOCK_BYTES;
    struct image damaged = *image;

    memcpy(block, image->bytes + first, sizeof block);
    memcpy(block + offset % DEVICE_BLOCK_BYTES, bytes, SECTOR);
    damaged.bytes = block - first; /* restore() looks at [first, first + 4096) only */
    restore(&damaged, first, DEVICE_BLOCK_BYTES);
}

static void replace(const struct image *image, const char *what, uint64_t offset, const void *bytes)
{
    if (memcmp(image->bytes + offset, bytes, SECTOR) == 0)
        return;
    say(image, what, offset);
    write_sector(image, offset, bytes);
    check_damaged(image, SECTOR / 40); /* none is shorter */
    restore(image, offset, SECTOR);
}

static void damage_sector(const struct image *image, uint64_t offset)
{
    static const uint8_t zeros[SECTOR];
    uint64_t other = dice(image->used / SECTOR) * SECTOR;

    replace(image, "a sector zeroed", offset, zeros);
    replace(image, "another sector of the file", offset, image->bytes + other);
    if (image->older)
        replace(image, "a stale sector", offset, image->older + offset);
}

static uint64_t stride; /* 1: every bit of metadata; else about every stride-th */

static void flip_all(const struct image *image, uint64_t from, uint64_t end)
{
    for (uint64_t bit = from * 8 + dice(stride); bit < end * 8; bit += 1 + dice(2 * stride - 1))
        flip(image, bit / 8, (unsigned)(bit % 8));
}

/* Metadata that can be told by its place: superblocks, the header of an image, commits. */
static void flip_metadata(const struct image *image)
{
    if (image->name[0] == 's') {
        flip_all(image, 0, image->used);
    } else if (image->name[0] == 'i') {
        flip_all(image, 0, 72);
        flip_all(image, DEVICE_BLOCK_BYTES - 8, DEVICE_BLOCK_BYTES);
    }
    for (uint64_t block = 0; image->name[0] == 'l' && block < image->used; block += DEVICE_BLOCK_BYTES) {
        uint64_t at = block + DEVICE_BLOCK_BYTES - 128;
        if (memcmp(image->bytes + at + 16, "FSCOMMIT", 8) == 0 && dice(stride) == 0)
            flip_all(image, at, at + 128);
    }
}

static void damage_file(const struct image *image, uint64_t budget)
{
    flip_metadata(image);
    for (uint64_t n = 0; n < budget; n++)
        flip(image, dice(image->used), (unsigned)dice(8));
    for (uint64_t n = 0; n < budget / 8; n++)
        damage_sector(image, dice(image->used / SECTOR) * SECTOR);
}

START_TEST(damage_is_told_or_does_no_harm)
{
    uint64_t budget = number_from("FASTERFS_FLIPS", 6000 / SLOWER);

    stride = budget >= 100000 ? 1 : 12 * SLOWER;
    sow();
    make_store();
    for (unsigned i = 0; i < image_count; i++) {
        if (images[i].used > 0)
            damage_file(&images[i], budget / image_count);
    }
    printf("%llu places damaged: %llu times refused at open, %llu with errors for some keys, %llu harmless\n",
           (unsigned long long)tried, (unsigned long long)refused, (unsigned long long)unread,
           (unsigned long long)harmless);
    printf("%llu salvaged, with %llu keys lost\n", (unsigned long long)salvaged, (unsigned long long)keys_lost);
    for (unsigned i = 0; i < image_count; i++) {
        free(images[i].bytes);
        free(images[i].older);
    }
    model_free();
    device_close(memory);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("flips");

    first_seed();
    tcase_add_test(tests, damage_is_told_or_does_no_harm);
    return run_case("flips", tests);
}
