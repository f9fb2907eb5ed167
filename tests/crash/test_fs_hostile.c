// SPDX-License-Identifier: MIT
/*
 * Lies in records of the filesystem, as hostile.h has it: each is written through the store, before the filesystem is
 * opened.
 */
#include "hostile.h"

#include <schema.h>

static struct store_session *session; /* of the store, while a lie is told */

/* ---- lies ------------------------------------------------------------------------------------------------- */

static void put(const struct fs_key *key, const void *value, uint32_t len)
{
    ck_assert_int_eq(store_upsert(session, key->bytes, key->len, value, len), 0);
}

static uint32_t get(const struct fs_key *key, uint8_t *value, uint32_t room)
{
    uint32_t len;

    ck_assert_int_eq(store_get(session, key->bytes, key->len, value, room, &len), 0);
    ck_assert_uint_le(len, room);
    return len;
}

/* Loads an inode, with its contents, changes it or the length of its record, and stores it. */
#define INODE_LIE(function, number, change)                                                                           \
    static void function(void)                                                                                        \
    {                                                                                                                 \
        struct fs_key key = key_inode(number);                                                                        \
        static uint8_t bytes[INODE_BYTES + INODE_CONTENTS_MAX];                                                       \
        uint32_t len = get(&key, bytes, sizeof bytes);                                                                \
        struct inode i;                                                                                               \
        ck_assert_int_eq(inode_decode(bytes, len, number, &i), 0);                                                    \
        change;                                                                                                       \
        inode_encode(&i, bytes);                                                                                      \
        put(&key, bytes, len);                                                                                        \
    }

INODE_LIE(no_type, small.file, i.mode = 0644)
INODE_LIE(odd_type, small.file, i.mode = 0150644)
INODE_LIE(all_mode_bits, small.file, i.mode = UINT32_MAX)
INODE_LIE(huge_size, small.file, i.size = UINT64_C(1) << 63)
INODE_LIE(large_sparse, small.file, (i.size = FS_SIZE_MAX, i.flags = INODE_SPARSE, i.blocks = UINT64_MAX, len = INODE_BYTES))
INODE_LIE(data_end_beyond, small.file, i.data_end = UINT64_MAX)
INODE_LIE(odd_time, small.file, i.atime.tv_nsec = 2000000000)
INODE_LIE(oldest_time, small.file, (i.atime.tv_sec = INT64_MIN, i.mtime.tv_sec = INT64_MIN, i.ctime.tv_sec = INT64_MIN))
INODE_LIE(unknown_flags, small.file, i.flags = UINT32_MAX)
INODE_LIE(no_links, small.file, i.nlink = 0)
INODE_LIE(most_links, small.file, i.nlink = UINT32_MAX)
INODE_LIE(flags_without_table, small.file,
          i.flags |= INODE_XATTRS | INODE_ACCESS_ACL | INODE_CAPABILITY | INODE_DEFAULT_ACL)
INODE_LIE(flags_without_acl, small.acl, i.flags |= INODE_CAPABILITY | INODE_DEFAULT_ACL)
INODE_LIE(file_is_directory, small.file, (i.mode = S_IFDIR | 0755, i.flags = 0, i.parent = small.d, i.next_seq = 1 << 20, len = INODE_BYTES))
INODE_LIE(directory_is_file, small.d, i.mode = S_IFREG | 0755)
INODE_LIE(own_parent, small.d, i.parent = small.d)
INODE_LIE(parent_below, small.d, i.parent = small.e)
INODE_LIE(no_parent, small.d, i.parent = 0)
INODE_LIE(parent_in_snapshot, small.d, i.parent = UINT64_C(1) << 48 | 1)
INODE_LIE(many_numbers, small.d, i.next_seq = FS_SEQ_END)
INODE_LIE(most_numbers, small.d, i.next_seq = UINT64_MAX)
INODE_LIE(numbers_backwards, small.d, i.first_seq = i.next_seq + 1)
INODE_LIE(no_entries, small.d, i.entries = 0)
INODE_LIE(root_without_entries, FS_INO_ROOT, (i.entries = 0, i.nlink = 0))
INODE_LIE(long_link, small.link, i.size = FS_SIZE_MAX)
INODE_LIE(other_link, small.link, i.size += 1)
INODE_LIE(empty_link, small.link, i.size = 0)
INODE_LIE(link_to_much, small.link, len += 1000)
INODE_LIE(long_contents, small.file, i.size = FS_INLINE_MAX + 1)
INODE_LIE(contents_of_a_directory, small.d, i.flags |= INODE_INLINE)
INODE_LIE(file_is_link, small.big, (i.mode = S_IFLNK | 0777, i.size = 4000))

static void short_inode(void)
{
    struct fs_key key = key_inode(small.file);
    put(&key, "short", 5);
}

static void put_entry(const char *name, uint64_t ino, uint64_t seq, uint32_t type)
{
    struct fs_key key = key_entry(small.d, name, strlen(name));
    struct entry entry = {.ino = ino, .seq = seq, .type = type};
    uint8_t bytes[ENTRY_BYTES];

    entry_encode(&entry, bytes);
    put(&key, bytes, sizeof bytes);
}

static void entry_to_nothing(void) { put_entry("file", 0, 1, S_IFREG); }
static void entry_to_snapshot(void) { put_entry("file", UINT64_C(1) << 48 | 1, 1, S_IFDIR); }
static void entry_to_absent(void) { put_entry("file", 1 << 30, 1, S_IFREG); }
static void entry_of_no_type(void) { put_entry("file", small.file, 1, 0); }
static void entry_of_odd_type(void) { put_entry("file", small.file, 1, UINT32_MAX); }
static void entry_to_itself(void) { put_entry("e", small.d, 0, S_IFDIR); }
static void entry_to_root(void) { put_entry("e", FS_INO_ROOT, 0, S_IFDIR); }
static void entry_unlisted(void) { put_entry("file", small.file, UINT64_MAX, S_IFREG); }

/* The first listing of small.d with one name of this kind. */
static void list_one(const char *name, size_t len, uint64_t ino, uint64_t seq, uint32_t type)
{
    struct fs_key key = key_block(small.d, 0);
    struct entry entry = {.ino = ino, .seq = seq, .type = type};
    uint8_t bytes[2000];

    put(&key, bytes, listing_append(bytes, 0, &entry, name, len));
}

static void name_with_slash(void) { list_one("../etc", 6, small.file, 0, S_IFREG); }
static void name_with_nul(void) { list_one("a\0b", 3, small.file, 0, S_IFREG); }
static void name_of_a_dot(void) { list_one(".", 1, small.d, 0, S_IFDIR); }
static void name_of_dots(void) { list_one("..", 2, small.d, 0, S_IFDIR); }
static void empty_name(void) { list_one("", 0, small.file, 0, S_IFREG); }
static void listed_nothing(void) { list_one("x", 1, 0, 0, S_IFREG); }
static void listed_snapshot(void) { list_one("x", 1, FS_INO_SNAPSHOTS, 0, S_IFDIR); }
static void listed_odd_type(void) { list_one("x", 1, small.file, 0, 0170000); }
static void listed_elsewhere(void) { list_one("x", 1, small.file, FS_BLOCK_NAMES, S_IFREG); }
static void listed_at_the_end(void) { list_one("x", 1, small.file, UINT64_MAX - 2, S_IFREG); }

static void long_name(void)
{
    char name[300];
    memset(name, 'n', sizeof name);
    list_one(name, sizeof name, small.file, 0, S_IFREG);
}

static void listing_backwards(void)
{
    struct fs_key key = key_block(small.d, 0);
    uint8_t bytes[2000];
    uint32_t len = 0;

    for (uint64_t seq = 9; seq-- > 0;) {
        struct entry entry = {.ino = small.file, .seq = seq % 8, .type = S_IFREG};
        len = listing_append(bytes, len, &entry, "same", 4);
    }
    put(&key, bytes, len);
}

static void listing_cut_short(void)
{
    struct fs_key key = key_block(small.d, 0);
    uint8_t bytes[BLOCK_BYTES_MAX];
    put(&key, bytes, get(&key, bytes, sizeof bytes) - 3);
}

static void large_listing(void)
{
    static const uint8_t zeros[40000];
    struct fs_key key = key_block(small.d, 0);
    put(&key, zeros, sizeof zeros);
}

/* The first listing of small.d is gone, and the gap there leads to `block`. */
static void gap_to(uint64_t block)
{
    struct fs_key key = key_block(small.d, 0), gap = key_gap(small.d, 0);
    uint8_t bytes[WORD_BYTES];

    ck_assert_int_eq(store_delete(session, key.bytes, key.len), 0);
    word_encode(block, bytes);
    put(&gap, bytes, sizeof bytes);
}

static void gap_to_itself(void) { gap_to(0); }
static void gap_around(void) { gap_to((UINT64_C(1) << 58) + 1); }
static void gap_to_the_end(void) { gap_to(UINT64_MAX); }
static void gap_beyond(void) { gap_to(FS_SEQ_END / FS_BLOCK_NAMES); }

static void gaps_of_each_other(void)
{
    for (uint64_t block = 0; block < 6; block++) {
        struct fs_key gap = key_gap(small.d, block), end = key_gap_end(small.d, block);
        uint8_t bytes[WORD_BYTES];
        word_encode(block, bytes);
        put(&gap, bytes, sizeof bytes);
        word_encode(block + 1, bytes);
        put(&end, bytes, sizeof bytes);
    }
}

static void put_xattrs(const void *table, uint32_t len)
{
    struct fs_key key = key_xattrs(small.acl);
    put(&key, table, len);
}

static void xattr_beyond(void) { put_xattrs("\x06\xff\xff\x00\x00user.a" "value", 16); }
static void xattr_without_name(void) { put_xattrs("\x00\x05\x00\x00\x00value", 10); }
static void xattr_name_beyond(void) { put_xattrs("\xff\x00\x00\x00\x00user.a", 11); }
static void xattr_with_nul(void) { put_xattrs("\x06\x01\x00\x00\x00us\0r.av", 12); }
static void xattr_of_2_gib(void) { put_xattrs("\x06\xff\xff\xff\xffuser.a", 11); }
static void xattr_not_there(void) { put_xattrs("\x06\x10\x27\x00\x80user.a", 11); }
static void xattr_twice_apart(void)
{
    put_xattrs("\x09\x88\x13\x00\x80user.long\x09\x88\x13\x00\x80user.long", 28);
}
static void no_xattrs(void) { put_xattrs("", 0); }

static void put_acl(const void *acl, uint32_t len)
{
    struct xattr xattr = {.name = FS_ACL_ACCESS, .name_len = strlen(FS_ACL_ACCESS), .value = acl, .value_len = len};
    uint8_t table[600];
    put_xattrs(table, xattr_append(table, 0, &xattr));
}

static void acl_of_others_alone(void) { put_acl("\x02\0\0\0\x20\0\x07\0\xff\xff\xff\xff", 12); }
static void acl_without_entries(void) { put_acl("\x02\0\0\0", 4); }
static void acl_of_two_bytes(void) { put_acl("\x02\0", 2); }
static void acl_of_odd_tags(void) { put_acl("\x02\0\0\0\xff\xff\x07\0\0\0\0\0", 12); }

static void put_super(uint64_t next_ino, uint64_t first_orphan, uint64_t next_orphan)
{
    struct fs_super super = {next_ino, first_orphan, next_orphan};
    struct fs_key key = key_super();
    uint8_t bytes[SUPER_BYTES];

    super_encode(&super, bytes);
    put(&key, bytes, sizeof bytes);
}

static void no_numbers_left(void) { put_super(FS_INO_END, 1, 1); }
static void numbers_beyond(void) { put_super(UINT64_MAX, 1, 1); }
static void numbers_from_0(void) { put_super(0, 1, 1); }
static void numbers_again(void) { put_super(2, 1, 1); }
static void orphans_without_end(void) { put_super(5000, 1, UINT64_MAX); }
static void orphans_backwards(void) { put_super(5000, 2, 1); }

static void put_counters(int64_t count)
{
    for (uint64_t stripe = 0; stripe < COUNTER_STRIPES; stripe++) {
        struct fs_key key = key_counter(stripe);
        uint8_t bytes[COUNTER_BYTES];
        counter_encode(count, bytes);
        put(&key, bytes, sizeof bytes);
    }
}

static void counters_full(void) { put_counters(INT64_MAX); }
static void counters_below(void) { put_counters(INT64_MIN); }

static void put_orphan(uint64_t ino)
{
    uint8_t bytes[ORPHAN_BYTES];

    for (uint64_t number = 1; number < 20; number++) {
        struct fs_key key = key_orphan(number);
        orphan_encode(ino, bytes);
        put(&key, bytes, sizeof bytes);
    }
    put_super(5000, 1, 20);
}

static void orphan_root(void) { put_orphan(FS_INO_ROOT); }
static void orphan_live(void) { put_orphan(small.file); }
static void orphan_absent(void) { put_orphan(1 << 30); }
static void orphan_many_times(void) { put_orphan(small.gone); }

static void chunk_too_long(void)
{
    static const uint8_t bytes[62000];
    struct fs_key key = key_chunk(small.big, 1);
    put(&key, bytes, sizeof bytes);
}

static void put_live(const void *bits, uint32_t len)
{
    struct fs_key key = key_live(small.d, 0);
    put(&key, bits, len);
}

static void bits_of_names_cut_short(void) { put_live("\xff\xff\xff", 3); }
static void bits_of_no_names(void) { put_live("\0\0\0\0\0\0\0", 8); }

/* small.big says that it has patches, and its first masks are these. */
INODE_LIE(patched, small.big, i.flags |= INODE_PATCHED)

static void put_masks(uint16_t first, uint32_t len)
{
    struct fs_key key = key_masks(small.big, 0);
    uint16_t masks[MASKS_CHUNKS] = {first, first, first}; /* two chunks there are */
    uint8_t bytes[MASKS_BYTES];

    patched();
    masks_encode(masks, bytes);
    put(&key, bytes, len);
}

static void masks_cut_short(void) { put_masks(1, 7); }
static void masks_of_no_patches(void) { put_masks(UINT16_MAX, MASKS_BYTES); }

static void patch_too_long(void)
{
    static const uint8_t bytes[2 * FS_PAGE_BYTES];
    struct fs_key key = key_patch(small.big, 0, 0);

    put_masks(1, MASKS_BYTES);
    put(&key, bytes, sizeof bytes);
}

/* ---- what is asked -------------------------------------------------------------------------------------------- */

static int list_d(struct fs_session *s)
{
    struct use u = {.s = s};

    return fs_readdir(s, small.d, 0, true, use_fill, &u);
}

static int stat_file(struct fs_session *s)
{
    struct fs_attr attr;
    return fs_getattr(s, small.file, &attr);
}

static int stat_d(struct fs_session *s)
{
    struct fs_attr attr;
    return fs_getattr(s, small.d, &attr);
}

static int look_up_file(struct fs_session *s)
{
    struct fs_attr attr;
    return fs_lookup(s, small.d, "file", &attr);
}

static int read_link(struct fs_session *s)
{
    char target[FS_SYMLINK_MAX];
    return fs_readlink(s, small.link, target, sizeof target);
}

static int read_big(struct fs_session *s)
{
    static uint8_t bytes[100000];
    return (int)fs_read(s, small.big, bytes, sizeof bytes, 0);
}

static int chmod_acl(struct fs_session *s)
{
    return fs_setattr(s, small.acl, &(struct fs_attr){.mode = 0600}, FS_SET_MODE, NULL);
}

static int list_acl(struct fs_session *s)
{
    return (int)fs_listxattr(s, small.acl, true, NULL, 0);
}

static int make_a_file(struct fs_session *s)
{
    struct fs_attr attr;
    return fs_mknod(s, &use_cred, FS_INO_ROOT, "new", S_IFREG | 0644, 0, &attr);
}

static int move_into_e(struct fs_session *s)
{
    return fs_rename(s, &use_cred, FS_INO_ROOT, "d", small.e, "d", 0);
}

/* Opening says `wanted`; then `probe` says `told`. *//* `probe` says `told`; opening, where that is not the probe, says 0. */
static const struct lie {
    const char *name;
    void (*tell)(void);
    int (*probe)(struct fs_session *s); /* NULL: opening */
    int told;
} lies[] = {
#define LIE(tell, probe, told) {#tell, tell, probe, told}
    LIE(no_type, stat_file, -EIO),
    LIE(odd_type, stat_file, -EIO),
    LIE(all_mode_bits, stat_file, -EIO),
    LIE(huge_size, stat_file, -EIO),
    LIE(large_sparse, stat_file, 0),
    LIE(data_end_beyond, stat_file, -EIO),
    LIE(odd_time, stat_file, -EIO),
    LIE(oldest_time, stat_file, 0),
    LIE(unknown_flags, stat_file, -EIO),
    LIE(no_links, stat_file, 0),
    LIE(most_links, stat_file, 0),
    LIE(flags_without_table, stat_file, 0),
    LIE(flags_without_acl, stat_file, 0),
    LIE(file_is_directory, stat_file, 0),
    LIE(directory_is_file, list_d, -ENOTDIR),
    LIE(own_parent, stat_d, 0),
    LIE(parent_below, move_into_e, -EINVAL),
    LIE(no_parent, stat_d, -EIO),
    LIE(parent_in_snapshot, stat_d, -EIO),
    LIE(many_numbers, list_d, -EIO),
    LIE(most_numbers, stat_d, -EIO),
    LIE(numbers_backwards, stat_d, -EIO),
    LIE(no_entries, stat_d, 0),
    LIE(root_without_entries, stat_d, 0),
    LIE(long_link, read_link, -EIO),
    LIE(other_link, read_link, -EIO),
    LIE(empty_link, read_link, -EIO),
    LIE(file_is_link, stat_d, 0),
    LIE(short_inode, stat_file, -EIO),
    LIE(entry_to_nothing, look_up_file, -EIO),
    LIE(entry_to_snapshot, look_up_file, -EIO),
    LIE(entry_to_absent, look_up_file, -ESTALE),
    LIE(entry_of_no_type, look_up_file, -EIO),
    LIE(entry_of_odd_type, look_up_file, -EIO),
    LIE(entry_to_itself, stat_d, 0),
    LIE(entry_to_root, stat_d, 0),
    LIE(entry_unlisted, look_up_file, -EIO),
    LIE(name_with_slash, list_d, -EIO),
    LIE(name_with_nul, list_d, -EIO),
    LIE(name_of_a_dot, list_d, -EIO),
    LIE(name_of_dots, list_d, -EIO),
    LIE(empty_name, list_d, -EIO),
    LIE(listed_nothing, list_d, -EIO),
    LIE(listed_snapshot, list_d, -EIO),
    LIE(listed_odd_type, list_d, -EIO),
    LIE(listed_elsewhere, list_d, -EIO),
    LIE(listed_at_the_end, list_d, -EIO),
    LIE(long_name, list_d, -EIO),
    LIE(listing_backwards, list_d, -EIO),
    LIE(listing_cut_short, list_d, -EIO),
    LIE(large_listing, list_d, -EIO),
    LIE(gap_to_itself, list_d, -EIO),
    LIE(gap_around, list_d, -EIO),
    LIE(gap_to_the_end, list_d, -EIO),
    LIE(gap_beyond, list_d, 0),
    LIE(gaps_of_each_other, list_d, -EIO),
    LIE(xattr_beyond, list_acl, -EIO),
    LIE(xattr_without_name, list_acl, -EIO),
    LIE(xattr_name_beyond, list_acl, -EIO),
    LIE(xattr_with_nul, list_acl, -EIO),
    LIE(xattr_of_2_gib, list_acl, -EIO),
    LIE(xattr_not_there, list_acl, 7),
    LIE(xattr_twice_apart, chmod_acl, -EIO),
    LIE(no_xattrs, list_acl, -EIO),
    LIE(acl_of_others_alone, chmod_acl, -EIO),
    LIE(acl_without_entries, chmod_acl, -EIO),
    LIE(acl_of_two_bytes, chmod_acl, -EIO),
    LIE(acl_of_odd_tags, chmod_acl, -EIO),
    LIE(no_numbers_left, make_a_file, -ENOSPC),
    LIE(numbers_beyond, NULL, DAMAGED),
    LIE(numbers_from_0, NULL, DAMAGED),
    LIE(numbers_again, make_a_file, 0),
    LIE(orphans_without_end, NULL, DAMAGED),
    LIE(orphans_backwards, NULL, DAMAGED),
    LIE(counters_full, stat_file, 0),
    LIE(counters_below, stat_file, 0),
    LIE(orphan_root, stat_d, 0),
    LIE(orphan_live, stat_file, 0),
    LIE(orphan_absent, stat_d, 0),
    LIE(orphan_many_times, stat_d, 0),
    LIE(chunk_too_long, read_big, 100000),
    LIE(link_to_much, read_link, -EIO),
    LIE(long_contents, stat_file, -EIO),
    LIE(contents_of_a_directory, stat_d, -EIO),
    LIE(bits_of_names_cut_short, list_d, -EIO),
    LIE(bits_of_no_names, list_d, 0),
    LIE(patched, read_big, 100000),
    LIE(masks_cut_short, read_big, -EIO),
    LIE(masks_of_no_patches, read_big, -EIO),
    LIE(patch_too_long, read_big, -EIO),
};

/* What opening says, as `told`. */
static int opening_of(const struct lie *lie)
{
    return lie->probe ? 0 : lie->told;
}

static void ask(struct device *device, const struct lie *lie)
{
    struct fs_options options = {.store = use_tiny};
    struct store_opened opened;
    struct fs *fs;
    struct fs_session *s;
    int rc = fs_open(device, &options, &fs, &opened);

    if (!as_wanted(rc, opening_of(lie)))
        give_up("%s: opening says %s", lie->name, strerror(-rc));
    if (rc < 0)
        return;
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
    rc = lie->probe(s);
    if (rc != lie->told)
        give_up("%s: it says %d (%s), and not %d", lie->name, rc, strerror(-rc), lie->told);
    fs_session_close(s);
    fs_abandon(fs);
}

START_TEST(a_lie_in_a_record_is_told_or_harmless)
{
    const struct lie *lie = &lies[_i];
    struct device *device = image_put(&clean);
    struct store *store;
    struct store_opened opened;

    snprintf(where, sizeof where, "%s", lie->name);
    ck_assert_int_eq(store_open(device, &use_tiny, &store, &opened), 0);
    ck_assert_int_eq(store_session_open(store, &session), 0);
    lie->tell();
    ck_assert_int_eq(store_commit(store), 0);
    store_session_close(session);
    ck_assert_int_eq(store_close(store), 0);
    watch_begin();
    ask(device, lie);
    if (!as_wanted(use_fs(device), opening_of(lie)))
        give_up("%s: opening again says something else", lie->name);
    watch_end();
    device_close(device);
}
END_TEST

int main(void)
{
    TCase *tests = hostile_case();

    tcase_add_loop_test(tests, a_lie_in_a_record_is_told_or_harmless, 0, sizeof lies / sizeof lies[0]);
    int rc = run_case("fs hostile", tests);
    image_free(&clean);
    return rc;
}
