// SPDX-License-Identifier: MIT
/*
 * What the tests of the check share: a tree is made, one thing in its store is damaged, and the check has to find it,
 * name the file, and mend it; a second check then finds nothing, and every file that was not hit is what it was.
 */
#ifndef TESTS_FS_CHECKING_H
#define TESTS_FS_CHECKING_H

#include "fixture.h"
#include "schema.h"

/* ---- the tree ------------------------------------------------------------------------------------------- */

#define NAMES 60

static struct {
    uint64_t dir, below, file, linked, sparse, link, attributes, patched, many, small[NAMES];
} tree;

static inline uint8_t pattern(uint64_t ino, uint64_t at)
{
    return (uint8_t)((ino * 131 + at * 7 + at / 4096) % 251 + 1);
}

static inline void fill(uint64_t ino, uint64_t from, uint64_t len)
{
    static uint8_t buf[FS_CHUNK_BYTES];

    for (uint64_t done = 0; done < len;) {
        size_t part = len - done < sizeof buf ? len - done : sizeof buf;
        for (size_t i = 0; i < part; i++)
            buf[i] = pattern(ino, from + done + i);
        ck_assert_int_eq(fs_write(s, ino, buf, part, from + done, 0), (ssize_t)part);
        done += part;
    }
}

/* Pages of `patched` that are written once its chunks are on the disk only. */
#define PATCHED_BYTES (3 * FS_CHUNK_BYTES + 10000u)
static const struct {
    unsigned chunk, page;
} PATCHES[] = {{0, 1}, {1, 3}, {1, 4}, {3, 2}};
#define PATCH_COUNT (sizeof PATCHES / sizeof PATCHES[0])

static inline uint64_t patch_at(unsigned i)
{
    return PATCHES[i].chunk * FS_CHUNK_BYTES + PATCHES[i].page * FS_PAGE_BYTES;
}

static inline uint64_t page_end(uint64_t at)
{
    return at + FS_PAGE_BYTES < PATCHED_BYTES ? at + FS_PAGE_BYTES : PATCHED_BYTES;
}

static inline void write_patches(void)
{
    uint8_t page[FS_PAGE_BYTES];

    for (unsigned i = 0; i < PATCH_COUNT; i++) {
        uint64_t at = patch_at(i), len = page_end(at) - at;
        for (uint64_t j = 0; j < len; j++)
            page[j] = (uint8_t)~pattern(tree.patched, at + j);
        ck_assert_int_eq(fs_write(s, tree.patched, page, len, at, 0), (ssize_t)len);
    }
}

/* What it was; the pages of `zeros`, a bit for each patch, are zeros, those of `old` what they were before. */
static inline void check_patched(unsigned zeros, unsigned old)
{
    static uint8_t buf[PATCHED_BYTES];
    uint8_t mask[PATCHED_BYTES / FS_PAGE_BYTES + 1], zero[PATCHED_BYTES / FS_PAGE_BYTES + 1] = {0};

    memset(mask, 0, sizeof mask);
    for (unsigned i = 0; i < PATCH_COUNT; i++) {
        mask[patch_at(i) / FS_PAGE_BYTES] = old & 1u << i ? 0 : 0xff;
        zero[patch_at(i) / FS_PAGE_BYTES] = (zeros >> i) & 1;
    }
    ck_assert_int_eq(fs_read(s, tree.patched, buf, sizeof buf, 0), (ssize_t)sizeof buf);
    for (uint64_t at = 0; at < sizeof buf; at++) {
        uint64_t page = at / FS_PAGE_BYTES;
        uint8_t should = zero[page] ? 0 : pattern(tree.patched, at) ^ mask[page];
        if (buf[at] != should)
            ck_abort_msg("byte %llu of `patched` is not what it was", (unsigned long long)at);
    }
}

/* A directory of five blocks, of which the second and the third are a gap, and one with names that are gone. */
#define MANY (4 * FS_BLOCK_NAMES + 5)

static inline void make_many(void)
{
    struct fs_attr attr;
    char name[32];

    tree.many = make_dir(tree.dir, "many");
    uint64_t file = make_file(tree.many, "0");
    for (unsigned i = 1; i < MANY; i++) {
        snprintf(name, sizeof name, "%u", i);
        ck_assert_int_eq(fs_link(s, file, tree.many, name, &attr), 0);
        fs_forget(s, file, 1);
    }
    for (unsigned i = FS_BLOCK_NAMES; i < 3 * FS_BLOCK_NAMES + 3; i++) {
        snprintf(name, sizeof name, "%u", i);
        ck_assert_int_eq(fs_unlink(s, tree.many, name), 0);
    }
}

static inline void make_tree(void)
{
    struct fs_attr attr;
    char name[32];

    tree.dir = make_dir(FS_INO_ROOT, "dir");
    tree.below = make_dir(tree.dir, "below");
    tree.file = make_file(tree.below, "file");
    fill(tree.file, 0, 200000);
    tree.linked = make_file(tree.dir, "linked");
    fill(tree.linked, 0, 1000);
    ck_assert_int_eq(fs_link(s, tree.linked, tree.below, "again", &attr), 0);
    fs_forget(s, tree.linked, 1);
    tree.sparse = make_file(tree.dir, "sparse");
    fill(tree.sparse, 10 * FS_CHUNK_BYTES + 5, 70000);
    ck_assert_int_eq(fs_symlink(s, &cred, tree.dir, "symlink", "below/file", &attr), 0);
    tree.link = attr.ino;
    fs_forget(s, tree.link, 1);
    tree.attributes = make_file(tree.dir, "attributes");
    ck_assert_int_eq(fs_setxattr(s, tree.attributes, "user.short", "value", 5, 0, 0), 0);
    static uint8_t value[2000];
    memset(value, 'x', sizeof value);
    ck_assert_int_eq(fs_setxattr(s, tree.attributes, "user.long", value, sizeof value, 0, 0), 0);
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "small%u", i);
        tree.small[i] = make_file(tree.dir, name);
        fill(tree.small[i], 0, 100 + i);
    }
    tree.patched = make_file(tree.dir, "patched");
    fill(tree.patched, 0, PATCHED_BYTES);
    make_many();
    for (unsigned i = 16; i < 40; i++) { /* leaves bits of a block */
        snprintf(name, sizeof name, "small%u", i);
        ck_assert_int_eq(fs_unlink(s, tree.dir, name), 0);
        tree.small[i] = 0;
    }
}

/* Is the file what it was? */
static inline bool is_whole(uint64_t ino, uint64_t from, uint64_t len)
{
    static uint8_t buf[1 << 20];

    if (fs_read(s, ino, buf, len, from) != (ssize_t)len)
        return false;
    for (uint64_t i = 0; i < len; i++)
        if (buf[i] != pattern(ino, from + i))
            return false;
    return true;
}

static inline int count_name(void *ctx, const struct fs_dirent *entry)
{
    (void)entry;
    ++*(unsigned *)ctx;
    return 0;
}

/* All but what `hit` says was damaged. */
static inline void check_others(uint64_t hit)
{
    char name[32];
    unsigned listed = 0;

    for (unsigned i = 0; i < NAMES; i++) {
        if (tree.small[i] == 0 || tree.small[i] == hit)
            continue;
        snprintf(name, sizeof name, "small%u", i);
        ck_assert_msg(is_whole(tree.small[i], 0, 100 + i), "small%u is not what it was", i);
        if (hit != tree.dir)
            ck_assert_int_eq(look(tree.dir, name), (int64_t)tree.small[i]);
    }
    if (hit != tree.file)
        ck_assert(is_whole(tree.file, 0, 200000));
    if (hit != tree.linked)
        ck_assert(is_whole(tree.linked, 0, 1000));
    if (hit != tree.sparse)
        ck_assert(is_whole(tree.sparse, 10 * FS_CHUNK_BYTES + 5, 70000));
    if (hit != tree.patched)
        check_patched(0, 0);
    ck_assert_int_eq(fs_readdir(s, tree.dir, 0, false, count_name, &listed), 0);
    ck_assert_uint_ge(listed, 2 + NAMES - 24);
    listed = 0;
    ck_assert_int_eq(fs_readdir(s, tree.many, 0, false, count_name, &listed), 0);
    ck_assert_uint_eq(listed, 2 + MANY - 2 * FS_BLOCK_NAMES - 3);
    /* And it goes on. */
    uint64_t more = make_file(FS_INO_ROOT, "more");
    fill(more, 0, 5000);
    ck_assert(is_whole(more, 0, 5000));
}

/* ---- the check ------------------------------------------------------------------------------------------- */

static struct {
    unsigned count, named, in_snapshots;
    const char *wanted; /* in a path */
    char all[4000];
    unsigned dropped;
    char drops[4000];
} told;

static inline void take_fault(void *ctx, const struct fs_fault *fault)
{
    size_t used = strlen(told.all);

    (void)ctx;
    told.count++;
    told.named += told.wanted && fault->path && strstr(fault->path, told.wanted);
    told.in_snapshots += fault->snapshot != NULL;
    snprintf(told.all + used, sizeof told.all - used, "%s: %s\n", fault->path ? fault->path : "-", fault->what);
}

static inline void take_dropped(void *ctx, const struct fs_dropped *dropped)
{
    size_t used = strlen(told.drops);

    (void)ctx;
    told.dropped++;
    snprintf(told.drops + used, sizeof told.drops - used, "%s: %s%s%s #%llu [%llu, +%llu)\n",
             dropped->path ? dropped->path : "-", dropped->what, dropped->name ? " " : "",
             dropped->name ? dropped->name : "", (unsigned long long)dropped->ino, (unsigned long long)dropped->offset,
             (unsigned long long)dropped->len);
}

static inline struct fs_checked check(bool repair, const char *wanted)
{
    struct fs_check_options options = {
        .memory_bytes = 4 << 20, .repair = repair, .fault = take_fault, .dropped = take_dropped};
    struct fs_checked checked;

    memset(&told, 0, sizeof told);
    told.wanted = wanted;
    int rc = fs_check(device, &options, &checked);
    ck_assert_msg(rc == 0, "fs_check: %s %s", strerror(-rc), checked.message);
    ck_assert_uint_eq(told.count, checked.faults);
    ck_assert_uint_eq(told.dropped, checked.dropped);
    return checked;
}

static inline void expect_clean(void)
{
    struct fs_checked checked = check(false, NULL);

    ck_assert_msg(checked.faults == 0, "%s", told.all);
}

/* Finds, mends, finds nothing more; then all but `hit` is whole. */
static inline void find_and_mend(const char *path, uint64_t hit)
{
    struct fs_checked checked = check(false, path);

    ck_assert_uint_gt(checked.faults, 0);
    ck_assert_msg(!path || told.named > 0, "%s is not named:\n%s", path, told.all);
    checked = check(true, path);
    ck_assert_msg(checked.left == 0 && checked.mended == checked.faults, "left:\n%s", told.all);
    expect_clean();
    fixture_open();
    check_others(hit);
    fixture_close();
    expect_clean();
}

static inline void find_and_mend_patched(unsigned zeros, unsigned old)
{
    find_and_mend("/dir/patched", tree.patched);
    fixture_open();
    check_patched(zeros, old);
    fixture_close();
}

static inline void setup(void)
{
    ck_assert_int_eq(device_memory_open(&device), 0);
    fixture_open();
    make_tree();
    fixture_close();
    fixture_open();
    write_patches();
    fixture_close();
}

static inline void teardown(void)
{
    device_close(device);
}

/* ---- its device ---------------------------------------------------------------------------------------------- */

static inline int hash_file(void *ctx, const char *name)
{
    uint64_t *sum = ctx, len, hash = 14695981039346656037u;
    int file = device_file_open(device, name, 0);
    const uint8_t *bytes;

    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(device_map(device, file, (const void **)&bytes, &len), 0);
    for (const char *at = name; *at; at++)
        hash = (hash ^ (uint8_t)*at) * 1099511628211u;
    for (uint64_t i = 0; i < len; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, len - i < 8 ? len - i : 8);
        hash = (hash ^ word) * 1099511628211u;
    }
    device_unmap(device, bytes, len);
    device_file_close(device, file);
    *sum += hash;
    return 0;
}

/* All that is on the device. */
static inline uint64_t sum_of_device(void)
{
    uint64_t sum = 0;

    ck_assert_int_eq(device_list(device, hash_file, &sum), 0);
    return sum;
}

/* ---- its store, while the filesystem is closed ------------------------------------------------------------- */

static struct store *store;
static struct store_session *session;

static inline void open_raw(void)
{
    struct store_options options = {
        .memory_bytes = log_bytes * 4, .log_bytes = log_bytes, .segment_bytes = segment_bytes, .no_background = true};
    struct store_opened opened;

    ck_assert_int_eq(store_open(device, &options, &store, &opened), 0);
    ck_assert_int_eq(store_session_open(store, &session), 0);
}

static inline void close_raw(void)
{
    store_session_close(session);
    ck_assert_int_eq(store_close(store), 0);
}

/* ---- and its records ---------------------------------------------------------------------------------------- */

static inline void drop(struct fs_key key)
{
    open_raw();
    ck_assert_int_eq(store_delete(session, key.bytes, key.len), 0);
    close_raw();
}

static inline void put(struct fs_key key, const void *value, uint32_t len)
{
    open_raw();
    ck_assert_int_eq(store_upsert(session, key.bytes, key.len, value, len), 0);
    close_raw();
}

/* What it has now; *ret_len is its length. */
static inline void get(struct fs_key key, void *buf, uint32_t room, uint32_t *ret_len)
{
    open_raw();
    ck_assert_int_eq(store_get(session, key.bytes, key.len, buf, room, ret_len), 0);
    close_raw();
    ck_assert_uint_le(*ret_len, room);
}

/* Where the newest record of a key is. */
struct where {
    struct fs_key key;
    uint64_t address;
};

static inline int find_record(void *ctx, const struct store_item *item)
{
    struct where *where = ctx;

    if (item->key_len == where->key.len && memcmp(item->key, where->key.bytes, item->key_len) == 0)
        where->address = item->address;
    return 0;
}

static inline uint64_t address_of(struct fs_key key)
{
    struct where where = {.key = key};

    open_raw();
    ck_assert_int_eq(store_scan_log(session, find_record, &where), 0);
    close_raw();
    ck_assert_uint_gt(where.address, 0);
    return where.address;
}

static inline void flip_at(uint64_t address, unsigned bit)
{
    char name[64];

    snprintf(name, sizeof name, "log.%016llx", (unsigned long long)(address / segment_bytes));
    ck_assert_int_eq(device_memory_flip(device, name, address % segment_bytes, bit), 0);
}

/* Damages the newest record of the key: a bit at `offset` in it. */
static inline void flip_record(struct fs_key key, unsigned offset)
{
    flip_at(address_of(key) + offset, 2);
}

#endif
