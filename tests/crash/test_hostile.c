// SPDX-License-Identifier: MIT
/*
 * Stores that somebody made to do harm, with every checksum right: each case puts one lie into a small filesystem, and then
 * all that a daemon does is done with it (fuzz/use.h). No case may touch memory that is not its own, go on for
 * more than a few seconds, ask for much memory, or end the process; and the call that meets the lie says so.
 */
#include "crash.h"

#include <fuzz/small.h>
#include <index.h>
#include <schema.h>
#include <unistd.h>

#define DAMAGED 1   /* as `wanted` of a case: opening says -EIO or -EUCLEAN */
#define WHATEVER 2  /* opening says what it likes */
#define SECONDS (20 * SLOWER)
#define LARGEST (16u << 20) /* bytes in one allocation */

/* ---- allocations --------------------------------------------------------------------------------------- */

static size_t largest;

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

static size_t note(size_t size)
{
    largest = size > largest ? size : largest;
    return size;
}

void *__wrap_malloc(size_t size)
{
    return __real_malloc(note(size));
}

void *__wrap_realloc(void *old, size_t size)
{
    return __real_realloc(old, note(size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return __real_aligned_alloc(alignment, note(size));
}

/* ---- lies in records of the filesystem: `session` is of the store, before the filesystem is opened -------------- */

static struct image clean, image;
static struct store_session *session;

static void make_clean(void)
{
    small_make(&clean);
}

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

/* Opening says `wanted`; then `probe` says `told`. */
static const struct lie {
    const char *name;
    void (*tell)(void);
    int wanted;
    int (*probe)(struct fs_session *s);
    int told;
} lies[] = {
#define LIE(tell, wanted, probe, told) {#tell, tell, wanted, probe, told}
    LIE(no_type, 0, stat_file, -EIO),
    LIE(odd_type, 0, stat_file, -EIO),
    LIE(all_mode_bits, 0, stat_file, -EIO),
    LIE(huge_size, 0, stat_file, -EIO),
    LIE(large_sparse, 0, stat_file, 0),
    LIE(data_end_beyond, 0, stat_file, -EIO),
    LIE(odd_time, 0, stat_file, -EIO),
    LIE(oldest_time, 0, stat_file, 0),
    LIE(unknown_flags, 0, stat_file, -EIO),
    LIE(no_links, 0, stat_file, 0),
    LIE(most_links, 0, stat_file, 0),
    LIE(flags_without_table, 0, stat_file, 0),
    LIE(flags_without_acl, 0, stat_file, 0),
    LIE(file_is_directory, 0, stat_file, 0),
    LIE(directory_is_file, 0, list_d, -ENOTDIR),
    LIE(own_parent, 0, stat_d, 0),
    LIE(parent_below, 0, move_into_e, -EINVAL),
    LIE(no_parent, 0, stat_d, -EIO),
    LIE(parent_in_snapshot, 0, stat_d, -EIO),
    LIE(many_numbers, 0, list_d, -EIO),
    LIE(most_numbers, 0, stat_d, -EIO),
    LIE(numbers_backwards, 0, stat_d, -EIO),
    LIE(no_entries, 0, stat_d, 0),
    LIE(root_without_entries, 0, stat_d, 0),
    LIE(long_link, 0, read_link, -EIO),
    LIE(other_link, 0, read_link, -EIO),
    LIE(empty_link, 0, read_link, -EIO),
    LIE(file_is_link, 0, stat_d, 0),
    LIE(short_inode, 0, stat_file, -EIO),
    LIE(entry_to_nothing, 0, look_up_file, -EIO),
    LIE(entry_to_snapshot, 0, look_up_file, -EIO),
    LIE(entry_to_absent, 0, look_up_file, -ESTALE),
    LIE(entry_of_no_type, 0, look_up_file, -EIO),
    LIE(entry_of_odd_type, 0, look_up_file, -EIO),
    LIE(entry_to_itself, 0, stat_d, 0),
    LIE(entry_to_root, 0, stat_d, 0),
    LIE(entry_unlisted, 0, look_up_file, -EIO),
    LIE(name_with_slash, 0, list_d, -EIO),
    LIE(name_with_nul, 0, list_d, -EIO),
    LIE(name_of_a_dot, 0, list_d, -EIO),
    LIE(name_of_dots, 0, list_d, -EIO),
    LIE(empty_name, 0, list_d, -EIO),
    LIE(listed_nothing, 0, list_d, -EIO),
    LIE(listed_snapshot, 0, list_d, -EIO),
    LIE(listed_odd_type, 0, list_d, -EIO),
    LIE(listed_elsewhere, 0, list_d, -EIO),
    LIE(listed_at_the_end, 0, list_d, -EIO),
    LIE(long_name, 0, list_d, -EIO),
    LIE(listing_backwards, 0, list_d, -EIO),
    LIE(listing_cut_short, 0, list_d, -EIO),
    LIE(large_listing, 0, list_d, -EIO),
    LIE(gap_to_itself, 0, list_d, -EIO),
    LIE(gap_around, 0, list_d, -EIO),
    LIE(gap_to_the_end, 0, list_d, -EIO),
    LIE(gap_beyond, 0, list_d, 0),
    LIE(gaps_of_each_other, 0, list_d, -EIO),
    LIE(xattr_beyond, 0, list_acl, -EIO),
    LIE(xattr_without_name, 0, list_acl, -EIO),
    LIE(xattr_name_beyond, 0, list_acl, -EIO),
    LIE(xattr_with_nul, 0, list_acl, -EIO),
    LIE(xattr_of_2_gib, 0, list_acl, -EIO),
    LIE(xattr_not_there, 0, list_acl, 7),
    LIE(xattr_twice_apart, 0, chmod_acl, -EIO),
    LIE(no_xattrs, 0, list_acl, -EIO),
    LIE(acl_of_others_alone, 0, chmod_acl, -EIO),
    LIE(acl_without_entries, 0, chmod_acl, -EIO),
    LIE(acl_of_two_bytes, 0, chmod_acl, -EIO),
    LIE(acl_of_odd_tags, 0, chmod_acl, -EIO),
    LIE(no_numbers_left, 0, make_a_file, -ENOSPC),
    LIE(numbers_beyond, DAMAGED, NULL, 0),
    LIE(numbers_from_0, DAMAGED, NULL, 0),
    LIE(numbers_again, 0, make_a_file, 0),
    LIE(orphans_without_end, DAMAGED, NULL, 0),
    LIE(orphans_backwards, DAMAGED, NULL, 0),
    LIE(counters_full, 0, stat_file, 0),
    LIE(counters_below, 0, stat_file, 0),
    LIE(orphan_root, 0, stat_d, 0),
    LIE(orphan_live, 0, stat_file, 0),
    LIE(orphan_absent, 0, stat_d, 0),
    LIE(orphan_many_times, 0, stat_d, 0),
    LIE(chunk_too_long, 0, read_big, 100000),
    LIE(link_to_much, 0, read_link, -EIO),
    LIE(long_contents, 0, stat_file, -EIO),
    LIE(contents_of_a_directory, 0, stat_d, -EIO),
    LIE(bits_of_names_cut_short, 0, list_d, -EIO),
    LIE(bits_of_no_names, 0, list_d, 0),
    LIE(patched, 0, read_big, 100000),
    LIE(masks_cut_short, 0, read_big, -EIO),
    LIE(masks_of_no_patches, 0, read_big, -EIO),
    LIE(patch_too_long, 0, read_big, -EIO),
};

static bool as_wanted(int rc, int wanted)
{
    return wanted == WHATEVER || (wanted == DAMAGED ? rc == -EIO || rc == -EUCLEAN : rc == wanted);
}

static void ask(struct device *device, const struct lie *lie)
{
    struct fs_options options = {.store = use_tiny};
    struct store_opened opened;
    struct fs *fs;
    struct fs_session *s;
    int rc = fs_open(device, &options, &fs, &opened);

    if (!as_wanted(rc, lie->wanted))
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
    alarm(SECONDS);
    ask(device, lie);
    largest = 0;
    if (!as_wanted(use_fs(device), lie->wanted))
        give_up("%s: opening again says something else", lie->name);
    alarm(0);
    ck_assert_uint_le(largest, LARGEST);
    device_close(device);
}
END_TEST

/* ---- lies in the store's own structures: `image` is edited and sealed -------------------------------------------- */

static void both(unsigned offset, uint64_t value)
{
    for (unsigned i = 0; i < 2; i++)
        put64_at(superblock_at(&image, i, offset), value);
}

static void both32(unsigned offset, uint32_t value)
{
    for (unsigned i = 0; i < 2; i++)
        memcpy(superblock_at(&image, i, offset), &value, sizeof value);
}

static void in_snapshot(unsigned which, unsigned offset, uint64_t value)
{
    both(SB_SNAPSHOTS + which * SNAPSHOT_BYTES + offset, value);
}

static void label(unsigned which, const char *bytes, size_t len)
{
    for (unsigned i = 0; i < 2; i++)
        memcpy(superblock_at(&image, i, SB_SNAPSHOTS + which * SNAPSHOT_BYTES + SNAPSHOT_LABEL), bytes, len);
}

/* The log is replayed from its beginning. */
static void forget_index(void)
{
    both(SB_CHECKPOINT + AT_IMAGE, 0);
    both(SB_CHECKPOINT + AT_END, image.begin);
}

static uint64_t far_end(void) { return (UINT64_C(1) << 48) - 4096; }

static void end_unaligned(void) { both(SB_CHECKPOINT + AT_END, image.end - 8); }
static void end_at_zero(void) { both(SB_CHECKPOINT + AT_END, 0); }
static void end_at_the_top(void) { both(SB_CHECKPOINT + AT_END, UINT64_MAX - 4095); }
static void end_beyond(void) { both(SB_CHECKPOINT + AT_END, image.end + (64 << 10)); }
static void begin_unaligned(void) { both(SB_CHECKPOINT + AT_BEGIN, 4100); }
static void begin_at_the_top(void) { both(SB_CHECKPOINT + AT_BEGIN, UINT64_MAX - 4095); }
static void begin_far_away(void) { both(SB_CHECKPOINT + AT_BEGIN, far_end()); }
static void begin_beyond(void) { both(SB_CHECKPOINT + AT_BEGIN, image.end + (512 << 10)); }
static void begin_in_the_middle(void) { both(SB_CHECKPOINT + AT_BEGIN, 8192); }
static void reach_beyond(void) { both(SB_CHECKPOINT + AT_REACH, image.end + (64 << 10)); }
static void reach_far_away(void) { both(SB_CHECKPOINT + AT_REACH, far_end()); }
static void reach_at_the_top(void) { both(SB_CHECKPOINT + AT_REACH, UINT64_MAX); }
static void reach_before_end(void) { both(SB_CHECKPOINT + AT_REACH, 4096); }
static void log_far_away(void)
{
    forget_index();
    both32(SB_SNAPSHOT_COUNT, 0);
    both32(SB_BYTES, SB_SNAPSHOTS);
    both(SB_CHECKPOINT + AT_BEGIN, far_end());
    both(SB_CHECKPOINT + AT_END, far_end());
}
static void other_segment_size(void) { both(40, 1 << 30); }
static void other_format(void) { both32(8, 99); }
static void other_bits(void) { both32(148, 53); }
static void least_bits(void) { both32(148, 10); }
static void too_many_snapshots(void) { both32(SB_SNAPSHOT_COUNT, UINT32_MAX); }
static void last_sequence(void) { both(24, UINT64_MAX); }
static void last_incarnation(void) { both(48, UINT64_MAX); }
static void images_again(void) { both(SB_NEXT_IMAGE, 1); }
static void last_image(void) { both(SB_NEXT_IMAGE, UINT64_MAX); }
static void version_at_the_end(void)
{
    forget_index();
    both(SB_CHECKPOINT + AT_BEGIN + 8, (UINT64_C(1) << 48) - 1);
}
static void snapshot_of_no_number(void) { in_snapshot(0, 0, 0); }
static void snapshots_of_one_number(void) { in_snapshot(1, 0, 1); }
static void snapshot_from_later(void) { in_snapshot(1, 0, 1000); }
static void snapshots_in_one_slot(void)
{
    in_snapshot(1, 0, 1 + 0xfffe);
    both(SB_NEXT_SNAPSHOT, 2 + 0xfffe);
}
static void snapshot_without_image(void) { in_snapshot(0, SNAPSHOT_AT + AT_IMAGE, 0); }
static void snapshot_of_absent_image(void) { in_snapshot(0, SNAPSHOT_AT + AT_IMAGE, 1); }
static void snapshot_of_other_image(void)
{
    in_snapshot(0, SNAPSHOT_AT + AT_IMAGE, get64_at(superblock_at(&image, 0, SB_CHECKPOINT + AT_IMAGE)));
}
static void snapshot_reaches_beyond(void) { in_snapshot(0, SNAPSHOT_AT + AT_REACH, image.end + 4096); }
static void snapshot_reaches_nothing(void) { in_snapshot(0, SNAPSHOT_AT + AT_REACH, 0); }
static void snapshot_ends_beyond(void) { in_snapshot(0, SNAPSHOT_AT + AT_END, far_end()); }
static void snapshot_begins_late(void) { in_snapshot(0, SNAPSHOT_AT + AT_BEGIN, image.end); }
static void label_with_slash(void) { label(0, "a/b", 4); }
static void label_of_dots(void) { label(0, "..", 3); }
static void another_format(void) { both32(8, 4); }
static void another_format_beside(void)
{
    uint32_t format = 2;

    memcpy(superblock_at(&image, 0, 8), &format, sizeof format);
}
static void no_label(void) { label(0, "", 1); }
static void label_without_end(void)
{
    char bytes[256];
    memset(bytes, 'l', sizeof bytes);
    label(0, bytes, sizeof bytes);
}

/* The nth record, or pad or commit, of the log. */
static uint8_t *item_at(char kind, unsigned n, uint64_t *ret_address)
{
    for (unsigned i = 0;; i = (i + 1) % image.item_count) {
        uint64_t word = get64_at(image.log->bytes + image.items[i]);
        char is = word & RECORD_PAD ? 'p' : word == RECORD_COMMIT ? 'c' : 'r';
        if (is == kind && n-- == 0) {
            *ret_address = image.items[i];
            return image.log->bytes + image.items[i];
        }
    }
}

/* Writes into every record of the log, as far as it can be: what is read of them and whatever leads there. */
static void every_record(unsigned offset, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < image.item_count; i++) {
        uint8_t *at = image.log->bytes + image.items[i];
        uint64_t word = get64_at(at);
        if (!(word & RECORD_PAD) && word != RECORD_COMMIT)
            memcpy(at + offset, &value, bytes);
    }
}

static void links_to_themselves(void)
{
    for (unsigned i = 0; i < image.item_count; i++) {
        uint8_t *at = image.log->bytes + image.items[i];
        if (!(get64_at(at) & RECORD_PAD) && get64_at(at) != RECORD_COMMIT)
            put64_at(at, image.items[i]);
    }
}
static void links_up(void) { every_record(0, far_end(), 6); }
static void links_to_one(void)
{
    uint64_t address;
    (void)item_at('r', 1, &address);
    every_record(0, address, 6);
}
static void links_unaligned(void) { every_record(0, 4101, 6); }
static void links_below_the_log(void) { every_record(0, 8, 6); }
static void values_beyond_capacity(void) { every_record(16, UINT32_MAX, 4); }
static void capacity_of_4_gib(void) { every_record(20, UINT32_MAX, 4); }
/* Not more than a segment, and across its end. */
static void capacity_across_the_segment(void) { every_record(20, (1 << 20) - 8192, 4); }
static void longest_keys(void) { every_record(8, 0xffff, 2); }
static void records_of_the_last_version(void) { every_record(10, UINT64_MAX, 6); }

static void replayed(void (*lie)(void))
{
    forget_index();
    lie();
}
static void links_up_replayed(void) { replayed(links_up); }
static void links_to_one_replayed(void) { replayed(links_to_one); }
static void links_unaligned_replayed(void) { replayed(links_unaligned); }
static void capacity_of_4_gib_replayed(void) { replayed(capacity_of_4_gib); }
static void capacity_across_the_segment_replayed(void) { replayed(capacity_across_the_segment); }
static void longest_keys_replayed(void) { replayed(longest_keys); }
static void last_version_replayed(void) { replayed(records_of_the_last_version); }

static void pad_of(uint64_t length)
{
    uint64_t address;
    forget_index();
    put64_at(item_at('p', 0, &address), RECORD_PAD | length);
}
static void pad_of_4_gib(void) { pad_of(0xfffffff8); }
static void pad_to_the_end(void) { pad_of((1 << 20) - 8192); }
static void pad_of_nothing(void) { pad_of(0); }
static void pad_of_8(void) { pad_of(8); }

static void commit_with(unsigned offset, uint64_t value)
{
    uint64_t address;
    forget_index();
    put64_at(item_at('c', 1, &address) + offset, value);
}
static void commit_of_the_last_version(void) { commit_with(8, UINT64_MAX); }
static void commit_of_an_old_version(void) { commit_with(8, 0); }
static void commit_that_knows_more(void) { commit_with(72, UINT64_MAX); }
static void commit_of_another_extent(void) { commit_with(32, far_end()); }

/* Writes one entry after the other of the index: address and what else is in it. */
static void every_entry(uint64_t address, bool replace)
{
    uint8_t *body = image.index->bytes + INDEX_BODY_AT;
    uint64_t buckets = get64_at(image.index->bytes + INDEX_BUCKETS_AT);

    for (uint64_t n = 0; n < buckets * 8; n++) {
        uint64_t entry = get64_at(body + n * 8);
        if (n % 8 != 7 && entry != 0)
            put64_at(body + n * 8, replace ? address : (entry & ~ADDRESS_MASK) | address);
    }
}

static void index_leads_up(void) { every_entry(ADDRESS_MASK - 4095, false); }
static void index_leads_behind_the_log(void) { every_entry(image.end + 8, false); }
static void index_leads_to_one(void)
{
    uint64_t address;
    (void)item_at('r', 3, &address);
    every_entry(address, false);
}
static void index_leads_into_records(void)
{
    uint64_t address;
    (void)item_at('r', 3, &address);
    every_entry(address + 8, false);
}
static void index_leads_unaligned(void) { every_entry(8203, false); }
static void index_leads_to_the_edge(void) { every_entry((2 << 12) - 4, false); }
static void index_leads_to_the_void(void) { every_entry(16, false); }
static void index_of_all_bits(void) { every_entry(UINT64_MAX, true); }
static void index_links_itself(void) { put64_at(image.index->bytes + INDEX_BODY_AT + 56, 1); }
static void index_links_nowhere(void) { put64_at(image.index->bytes + INDEX_BODY_AT + 56, UINT64_MAX); }
static void index_of_2_40_buckets(void) { put64_at(image.index->bytes + INDEX_BUCKETS_AT, UINT64_C(1) << 40); }
static void index_of_other_bits(void) { image.index->bytes[64]--; }
static void index_of_overflow(void) { put64_at(image.index->bytes + INDEX_OVERFLOW_AT, 1); }

static const struct store_lie {
    const char *name;
    void (*tell)(void);
    int wanted;
} store_lies[] = {
#define STORE_LIE(tell, wanted) {#tell, tell, wanted}
    STORE_LIE(end_unaligned, DAMAGED),
    STORE_LIE(end_at_zero, DAMAGED),
    STORE_LIE(end_at_the_top, DAMAGED),
    STORE_LIE(end_beyond, DAMAGED),
    STORE_LIE(begin_unaligned, DAMAGED),
    STORE_LIE(begin_at_the_top, DAMAGED),
    STORE_LIE(begin_far_away, DAMAGED),
    STORE_LIE(begin_beyond, WHATEVER),
    STORE_LIE(begin_in_the_middle, WHATEVER),
    STORE_LIE(reach_beyond, DAMAGED),
    STORE_LIE(reach_far_away, DAMAGED),
    STORE_LIE(reach_at_the_top, DAMAGED),
    STORE_LIE(reach_before_end, DAMAGED),
    STORE_LIE(log_far_away, WHATEVER),
    STORE_LIE(other_segment_size, WHATEVER),
    STORE_LIE(other_format, -EPROTONOSUPPORT),
    STORE_LIE(other_bits, -ENOMEM),
    STORE_LIE(least_bits, WHATEVER),
    STORE_LIE(too_many_snapshots, DAMAGED),
    STORE_LIE(last_sequence, DAMAGED),
    STORE_LIE(last_incarnation, DAMAGED),
    STORE_LIE(images_again, DAMAGED),
    STORE_LIE(last_image, DAMAGED),
    STORE_LIE(version_at_the_end, DAMAGED),
    STORE_LIE(snapshot_of_no_number, DAMAGED),
    STORE_LIE(snapshots_of_one_number, DAMAGED),
    STORE_LIE(snapshot_from_later, DAMAGED),
    STORE_LIE(snapshots_in_one_slot, 0),
    STORE_LIE(snapshot_without_image, DAMAGED),
    STORE_LIE(snapshot_of_absent_image, 0),
    STORE_LIE(snapshot_of_other_image, 0),
    STORE_LIE(snapshot_reaches_beyond, DAMAGED),
    STORE_LIE(snapshot_reaches_nothing, DAMAGED),
    STORE_LIE(snapshot_ends_beyond, DAMAGED),
    STORE_LIE(snapshot_begins_late, WHATEVER),
    STORE_LIE(label_with_slash, 0),
    STORE_LIE(label_of_dots, 0),
    STORE_LIE(another_format, -EPROTONOSUPPORT),
    STORE_LIE(another_format_beside, -EPROTONOSUPPORT),
    STORE_LIE(no_label, 0),
    STORE_LIE(label_without_end, DAMAGED),
    STORE_LIE(links_to_themselves, WHATEVER),
    STORE_LIE(links_up, WHATEVER),
    STORE_LIE(links_to_one, WHATEVER),
    STORE_LIE(links_unaligned, WHATEVER),
    STORE_LIE(links_below_the_log, WHATEVER),
    STORE_LIE(values_beyond_capacity, DAMAGED),
    STORE_LIE(capacity_of_4_gib, DAMAGED),
    STORE_LIE(capacity_across_the_segment, DAMAGED),
    STORE_LIE(longest_keys, DAMAGED),
    STORE_LIE(records_of_the_last_version, WHATEVER),
    STORE_LIE(links_up_replayed, DAMAGED),
    STORE_LIE(links_to_one_replayed, DAMAGED),
    STORE_LIE(links_unaligned_replayed, DAMAGED),
    STORE_LIE(capacity_of_4_gib_replayed, DAMAGED),
    STORE_LIE(capacity_across_the_segment_replayed, DAMAGED),
    STORE_LIE(longest_keys_replayed, DAMAGED),
    STORE_LIE(last_version_replayed, DAMAGED),
    STORE_LIE(pad_of_4_gib, DAMAGED),
    STORE_LIE(pad_to_the_end, DAMAGED),
    STORE_LIE(pad_of_nothing, DAMAGED),
    STORE_LIE(pad_of_8, DAMAGED),
    STORE_LIE(commit_of_the_last_version, DAMAGED),
    STORE_LIE(commit_of_an_old_version, DAMAGED),
    STORE_LIE(commit_that_knows_more, WHATEVER),
    STORE_LIE(commit_of_another_extent, DAMAGED),
    STORE_LIE(index_leads_up, 0), /* the index is made anew from the log */
    STORE_LIE(index_leads_behind_the_log, 0),
    STORE_LIE(index_leads_to_one, WHATEVER),
    STORE_LIE(index_leads_into_records, DAMAGED),
    STORE_LIE(index_leads_unaligned, DAMAGED),
    STORE_LIE(index_leads_to_the_edge, DAMAGED),
    STORE_LIE(index_leads_to_the_void, WHATEVER),
    STORE_LIE(index_of_all_bits, 0),
    STORE_LIE(index_links_itself, 0),
    STORE_LIE(index_links_nowhere, 0),
    STORE_LIE(index_of_2_40_buckets, 0),
    STORE_LIE(index_of_other_bits, 0),
    STORE_LIE(index_of_overflow, 0),
};

START_TEST(a_lie_of_the_store_is_told_or_harmless)
{
    static const char *const keys[] = {"S", "a key that is not there", NULL};
    const struct store_lie *lie = &store_lies[_i];

    snprintf(where, sizeof where, "%s", lie->name);
    image_copy(&clean, &image);
    lie->tell();
    image_seal(&image);
    alarm(SECONDS);
    largest = 0;
    struct device *device = image_put(&image);
    int rc = use_fs(device);
    device_close(device);
    if (!as_wanted(rc, lie->wanted))
        give_up("%s: opening says %d (%s)", lie->name, rc, strerror(-rc));
    device = image_put(&image);
    (void)use_store(device, keys);
    device_close(device);
    alarm(0);
    ck_assert_uint_le(largest, LARGEST);
}
END_TEST

/* Sealed and not edited, it is the filesystem that it was. */
START_TEST(sealing_changes_nothing)
{
    image_copy(&clean, &image);
    image_seal(&image);
    for (unsigned i = 0; i < image.count; i++)
        ck_assert_msg(memcmp(image.files[i].bytes, clean.files[i].bytes, clean.files[i].len) == 0, "%s",
                      image.files[i].name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile");
    TCase *tests = tcase_create("hostile");

    tcase_add_unchecked_fixture(tests, make_clean, NULL);
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, sealing_changes_nothing);
    tcase_add_loop_test(tests, a_lie_in_a_record_is_told_or_harmless, 0, sizeof lies / sizeof lies[0]);
    tcase_add_loop_test(tests, a_lie_of_the_store_is_told_or_harmless, 0, sizeof store_lies / sizeof store_lies[0]);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    image_free(&clean);
    image_free(&image);
    return failed ? 1 : 0;
}
