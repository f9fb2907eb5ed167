// SPDX-License-Identifier: MIT
/*
 * The check of records that do not belong together, or say nothing: they are written through the store, every checksum
 * right.
 */
#include "checking.h"

#include <sys/xattr.h>

/* ---- records ---------------------------------------------------------------------------------------------- */

static struct inode inode_of(uint64_t ino)
{
    struct fs_key key = key_inode(ino);
    uint8_t bytes[INODE_BYTES];
    struct inode inode;
    uint32_t len;

    open_raw();
    ck_assert_int_eq(store_get(session, key.bytes, key.len, bytes, sizeof bytes, &len), 0);
    close_raw();
    ck_assert_int_eq(inode_decode(bytes, len, ino, &inode), 0);
    return inode;
}

static void put_inode(const struct inode *inode)
{
    uint8_t bytes[INODE_BYTES];

    inode_encode(inode, bytes);
    put(key_inode(inode->ino), bytes, sizeof bytes);
}

static void put_entry(uint64_t parent, const char *name, struct entry entry)
{
    uint8_t bytes[ENTRY_BYTES];

    entry_encode(&entry, bytes);
    put(key_entry(parent, name, strlen(name)), bytes, sizeof bytes);
}

static void put_word(struct fs_key key, uint64_t word)
{
    uint8_t bytes[WORD_BYTES];

    word_encode(word, bytes);
    put(key, bytes, sizeof bytes);
}

static uint64_t word_of(struct fs_key key)
{
    uint8_t bytes[WORD_BYTES];
    uint32_t len;

    get(key, bytes, sizeof bytes, &len);
    ck_assert_uint_eq(len, sizeof bytes);
    return word_decode(bytes);
}

/* ---- names and inodes ------------------------------------------------------------------------------------- */

START_TEST(a_sound_store_has_no_faults)
{
    struct fs_checked checked = check(true, NULL);

    ck_assert_msg(checked.faults == 0, "%s", told.all);
    ck_assert_uint_eq(checked.inodes, 12 + NAMES - 24 - 1);
    fixture_open();
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(an_entry_without_its_inode_is_dropped)
{
    drop(key_inode(tree.small[3]));
    find_and_mend("/dir/small3", tree.small[3]);
    fixture_open();
    ck_assert_int_eq(look(tree.dir, "small3"), -ENOENT);
    fixture_close();
}
END_TEST

START_TEST(a_directory_without_its_inode_keeps_its_name_and_what_is_in_it)
{
    drop(key_inode(tree.below));
    find_and_mend("/dir/below", 0);
    fixture_open();
    ck_assert_int_eq(look(tree.dir, "below"), (int64_t)tree.below);
    ck_assert_int_eq(look(tree.below, "file"), (int64_t)tree.file);
    fixture_close();
}
END_TEST

START_TEST(an_inode_without_a_name_goes_to_lost_and_found)
{
    drop(key_entry(tree.below, "file", 4));
    struct fs_checked checked = check(true, NULL);
    ck_assert_uint_eq(checked.left, 0);
    expect_clean();
    fixture_open();
    int64_t lost = look(FS_INO_ROOT, "lost+found");
    char name[32];
    snprintf(name, sizeof name, "#%llu", (unsigned long long)tree.file);
    ck_assert_int_gt(lost, 0);
    ck_assert_int_eq(look((uint64_t)lost, name), (int64_t)tree.file);
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(a_directory_without_a_name_goes_to_lost_and_found_with_all_in_it)
{
    drop(key_entry(FS_INO_ROOT, "dir", 3));
    ck_assert_uint_eq(check(true, NULL).left, 0);
    expect_clean();
    fixture_open();
    char name[32];
    snprintf(name, sizeof name, "#%llu", (unsigned long long)tree.dir);
    ck_assert_int_eq(look((uint64_t)look(FS_INO_ROOT, "lost+found"), name), (int64_t)tree.dir);
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(names_of_a_directory_that_nobody_knows_are_kept)
{
    open_raw();
    struct fs_key keys[] = {key_inode(tree.dir), key_entry(FS_INO_ROOT, "dir", 3)};
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(store_delete(session, keys[i].bytes, keys[i].len), 0);
    close_raw();
    ck_assert_uint_eq(check(true, NULL).left, 0);
    expect_clean();
    fixture_open();
    ck_assert_int_eq(look(tree.dir, "below"), (int64_t)tree.below);
    check_others(0);
    fixture_close();
}
END_TEST

/* ---- listings --------------------------------------------------------------------------------------------- */

START_TEST(a_listing_that_is_not_there_is_made_anew)
{
    uint8_t bytes[BLOCK_BYTES_MAX];
    uint32_t len;
    struct fs_key key = _i == 0 ? key_block(tree.dir, 0) : _i == 1 ? key_listing(tree.dir, 8) : key_block(tree.many, 3);

    get(key, bytes, sizeof bytes, &len);
    drop(key);
    find_and_mend(_i == 2 ? "/dir/many" : "/dir", 0);
}
END_TEST

START_TEST(a_gap_that_hides_names_or_has_one_end_is_found)
{
    ck_assert_uint_eq(word_of(key_gap(tree.many, 1)), 3);
    if (_i == 0) {
        put_word(key_gap(tree.many, 3), 4);
        put_word(key_gap_end(tree.many, 4), 3);
    } else {
        drop(_i == 1 ? key_gap(tree.many, 1) : key_gap_end(tree.many, 3));
    }
    find_and_mend("/dir/many", 0);
}
END_TEST

START_TEST(a_gap_as_long_as_a_directory_can_be_is_not_walked_through)
{
    struct inode inode = inode_of(tree.many);

    inode.next_seq = FS_SEQ_END;
    put_inode(&inode);
    put_word(key_gap(tree.many, 5), FS_SEQ_END / FS_BLOCK_NAMES);
    put_word(key_gap_end(tree.many, FS_SEQ_END / FS_BLOCK_NAMES), 5);
    find_and_mend("/dir/many", 0);
}
END_TEST

START_TEST(blocks_that_neither_a_listing_nor_a_gap_stands_for_are_found)
{
    drop(key_gap(tree.many, 1));
    drop(key_gap_end(tree.many, 3));
    find_and_mend("/dir/many", 0);
}
END_TEST

START_TEST(a_name_that_can_be_none_is_dropped)
{
    static const char *const names[] = {"..", "a/b", "a\0b"};
    struct fs_key key = key_entry(tree.dir, names[_i], _i == 0 ? 2 : 3);
    uint8_t bytes[ENTRY_BYTES];

    entry_encode(&(struct entry){tree.linked, 3, S_IFREG}, bytes);
    put(key, bytes, sizeof bytes);
    find_and_mend("/dir", 0);
}
END_TEST

/* Bits of a block, which are against the names, against the block, or senseless; listings where none should be. */
START_TEST(bits_and_listings_agree_with_names_again)
{
    struct fs_key bits = key_live(tree.dir, 0);
    uint64_t live = word_of(bits);
    uint8_t bytes[BLOCK_BYTES_MAX];
    uint32_t len;

    ck_assert_uint_ne(~live, 0);
    switch (_i) {
    case 0:
        drop(bits);
        break;
    case 1: /* a name comes back */
        put_word(bits, live | (~live & -~live));
        break;
    case 2: /* one is not seen any more */
        put_word(bits, live & (live - 1));
        break;
    case 3:
        put(bits, "bits", 4);
        break;
    case 4: /* of no block */
        put_word(key_live(tree.dir, 7), 1);
        break;
    case 5: /* a page where a block is */
        get(key_block(tree.dir, 0), bytes, sizeof bytes, &len);
        put(key_listing(tree.dir, 0), bytes, 50);
        break;
    case 6: /* a block where pages are */
        get(key_listing(tree.dir, 8), bytes, sizeof bytes, &len);
        put(key_block(tree.dir, 1), bytes, len);
        break;
    case 7: /* a block that is cut off */
        get(key_block(tree.dir, 0), bytes, sizeof bytes, &len);
        put(key_block(tree.dir, 0), bytes, len - 3);
        break;
    default: /* all names are gone, it says */
        put_word(bits, 0);
    }
    find_and_mend("/dir", 0);
}
END_TEST

/* ---- masks and patches ------------------------------------------------------------------------------------ */

static void change_mask(unsigned chunk, uint16_t mask)
{
    struct fs_key key = key_masks(tree.patched, 0);
    uint8_t bytes[MASKS_BYTES];
    uint16_t masks[MASKS_CHUNKS];
    uint32_t len;

    get(key, bytes, sizeof bytes, &len);
    ck_assert_int_eq(masks_decode(bytes, len, masks), 0);
    masks[chunk] ^= mask;
    masks_encode(masks, bytes);
    put(key, bytes, sizeof bytes);
}
START_TEST(a_patch_that_is_missing_or_too_short_is_zeros_then)
{
    if (_i < 2)
        drop(key_patch(tree.patched, PATCHES[_i].chunk, PATCHES[_i].page));
    else
        put(key_patch(tree.patched, PATCHES[_i].chunk, PATCHES[_i].page), "short", 5);
    find_and_mend_patched(1u << _i, 0);
}
END_TEST

START_TEST(masks_that_are_missing_or_senseless_are_made_anew_from_the_patches)
{
    if (_i == 0)
        drop(key_masks(tree.patched, 0));
    else
        put(key_masks(tree.patched, 0), "masks", 5);
    find_and_mend_patched(0, 0);
}
END_TEST

START_TEST(a_patch_that_the_masks_do_not_know_goes)
{
    change_mask(PATCHES[1].chunk, (uint16_t)(1u << PATCHES[1].page));
    find_and_mend_patched(0, 1u << 1);
}
END_TEST

START_TEST(patches_and_masks_of_nothing_and_beyond_the_end_are_dropped)
{
    uint8_t page[FS_PAGE_BYTES], masks[MASKS_BYTES] = {0};

    memset(page, 'x', sizeof page);
    put(key_patch(tree.patched, 3, 9), page, sizeof page);
    put(key_patch(tree.patched, 70, 0), page, sizeof page);
    put(key_patch(tree.file, 0, 0), page, sizeof page);
    put(key_patch(999, 0, 0), page, sizeof page);
    put(key_masks(tree.file, 0), masks, sizeof masks);
    put(key_masks(tree.dir, 0), masks, sizeof masks);
    put(key_masks(tree.patched, 5), masks, sizeof masks);
    change_mask(3, 1u << 11);
    put(key_patch(tree.patched, 3, 11), page, sizeof page);
    find_and_mend_patched(0, 0);
}
END_TEST

START_TEST(a_patch_is_zeros_beyond_the_end_again)
{
    struct fs_key key = key_patch(tree.patched, PATCHES[3].chunk, PATCHES[3].page);
    uint8_t page[FS_PAGE_BYTES];
    uint32_t len;

    get(key, page, sizeof page, &len);
    page[FS_PAGE_BYTES - 1] = 1;
    put(key, page, sizeof page);
    find_and_mend_patched(0, 0);
    get(key, page, sizeof page, &len);
    ck_assert_uint_eq(page[FS_PAGE_BYTES - 1], 0);
}
END_TEST

/* ---- counts, chunks, attributes, the whole ------------------------------------------------------------------ */

START_TEST(counts_are_set_right)
{
    struct inode inode = inode_of(tree.dir);

    inode.entries += 3;
    inode.nlink = 7;
    put_inode(&inode);
    inode = inode_of(tree.linked);
    inode.nlink = 9;
    put_inode(&inode);
    uint8_t bytes[COUNTER_BYTES];
    counter_encode(1234, bytes);
    put(key_counter(3), bytes, sizeof bytes);
    find_and_mend("/dir/linked", 0);
    fixture_open();
    ck_assert_uint_eq(attr_of(tree.linked).nlink, 2);
    ck_assert_uint_eq(attr_of(tree.dir).nlink, 4);
    ck_assert_uint_eq(files_in_use(), 11 + NAMES - 24 + 1); /* and `more` */
    fixture_close();
}
END_TEST

START_TEST(a_directory_inside_itself_comes_out)
{
    struct inode inode = inode_of(tree.dir);

    inode.parent = tree.below;
    put_inode(&inode);
    drop(key_entry(FS_INO_ROOT, "dir", 3));
    put_entry(tree.below, "loop", (struct entry){tree.dir, inode_of(tree.below).next_seq - 1, S_IFDIR});
    ck_assert_uint_gt(check(false, NULL).faults, 0);
    ck_assert_msg(strstr(told.all, "cannot be reached from the root"), "%s", told.all);
    ck_assert_uint_eq(check(true, NULL).left, 0);
    expect_clean();
    fixture_open();
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(a_second_name_of_a_directory_is_dropped)
{
    put_entry(FS_INO_ROOT, "twice", (struct entry){tree.below, 1000, S_IFDIR});
    find_and_mend("/twice", 0);
    fixture_open();
    ck_assert_int_eq(look(FS_INO_ROOT, "twice"), -ENOENT);
    ck_assert_int_eq(look(tree.dir, "below"), (int64_t)tree.below);
    fixture_close();
}
END_TEST

START_TEST(the_way_up_is_set_right)
{
    struct inode inode = inode_of(tree.below);

    inode.parent = FS_INO_ROOT;
    put_inode(&inode);
    find_and_mend("/dir/below", 0);
}
END_TEST

START_TEST(a_chunk_that_is_missing_is_told_with_the_file)
{
    drop(key_chunk(tree.file, 1));
    find_and_mend("/dir/below/file", tree.file);
    fixture_open();
    ck_assert_uint_eq(attr_of(tree.file).size, 200000);
    ck_assert(is_whole(tree.file, 0, FS_CHUNK_BYTES));
    ck_assert(is_whole(tree.file, 2 * FS_CHUNK_BYTES, 200000 - 2 * FS_CHUNK_BYTES));
    fixture_close();
}
END_TEST

START_TEST(chunks_of_nothing_and_beyond_the_end_are_dropped)
{
    put(key_chunk(999, 0), "nobody", 6);
    put(key_chunk(tree.file, 77), "beyond", 6);
    find_and_mend("/dir/below/file", 0);
}
END_TEST

START_TEST(a_chunk_that_is_too_long_is_cut)
{
    static uint8_t bytes[5000];

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = pattern(tree.file, 3 * FS_CHUNK_BYTES + i);
    put(key_chunk(tree.file, 3), bytes, sizeof bytes);
    find_and_mend("/dir/below/file", 0);
}
END_TEST

START_TEST(a_chunk_of_a_file_that_stands_in_its_inode_is_dropped)
{
    put(key_chunk(tree.small[5], 0), "a chunk", 7);
    find_and_mend("/dir/small5", 0);
}
END_TEST

/* Contents in the inode go nowhere when something else of it is set right. */
START_TEST(links_of_a_file_that_stands_in_its_inode_are_set_right)
{
    struct fs_key key = key_inode(tree.small[5]);
    uint8_t bytes[INODE_BYTES + FS_INLINE_MAX];
    uint32_t len;

    get(key, bytes, sizeof bytes, &len);
    ck_assert_uint_eq(len, INODE_BYTES + 105);
    bytes[4] = 9; /* nlink */
    put(key, bytes, len);
    find_and_mend("/dir/small5", 0);
}
END_TEST

START_TEST(an_inode_without_its_contents_is_dropped)
{
    struct fs_key key = key_inode(tree.small[5]);
    uint8_t bytes[INODE_BYTES + FS_INLINE_MAX];
    uint32_t len;

    get(key, bytes, sizeof bytes, &len);
    put(key, bytes, len - 1);
    find_and_mend("/dir/small5", tree.small[5]);
}
END_TEST

START_TEST(attributes_apart_and_their_table_agree_again)
{
    drop(key_xattr(tree.attributes, "user.long", 9));
    put(key_xattr(tree.attributes, "user.stray", 10), "?", 1);
    put(key_xattrs(999), "", 0);
    find_and_mend("/dir/attributes", 0);
    fixture_open();
    char value[8];
    ck_assert_int_eq(fs_getxattr(s, tree.attributes, "user.short", value, sizeof value), 5);
    ck_assert_int_eq(fs_getxattr(s, tree.attributes, "user.long", NULL, 0), -ENODATA);
    fixture_close();
}
END_TEST

START_TEST(a_table_that_is_missing_or_senseless_is_dropped)
{
    if (_i == 0)
        drop(key_xattrs(tree.attributes));
    else
        put(key_xattrs(tree.attributes), "\377senseless", 10);
    find_and_mend("/dir/attributes", 0);
}
END_TEST

START_TEST(an_inode_knows_which_attributes_are_in_its_table)
{
    struct inode inode = inode_of(_i == 0 ? tree.attributes : tree.below);

    inode.flags |= INODE_ACCESS_ACL;
    put_inode(&inode);
    find_and_mend(_i == 0 ? "/dir/attributes" : "/dir/below", 0);
    ck_assert_uint_eq(inode_of(inode.ino).flags & INODE_XATTR_FLAGS, 0);
}
END_TEST

START_TEST(a_table_that_is_longer_than_any_can_be_is_dropped)
{
    static uint8_t table[XATTR_TABLE_MAX + FS_XATTR_INLINE + 100], value[FS_XATTR_INLINE];
    uint32_t len = 0;
    char name[32];

    len = xattr_append(table, len, &(struct xattr){"user.long", 9, NULL, 2000});
    for (unsigned i = 0; len <= XATTR_TABLE_MAX; i++) {
        snprintf(name, sizeof name, "user.%u", i);
        len = xattr_append(table, len, &(struct xattr){name, strlen(name), value, sizeof value});
    }
    log_bytes = 1 << 20; /* a value may be a quarter */
    put(key_xattrs(tree.attributes), table, len);
    find_and_mend("/dir/attributes", 0);
}
END_TEST

START_TEST(orphans_that_are_none_and_deleted_files_that_are_forgotten)
{
    uint8_t bytes[ORPHAN_BYTES];
    struct inode inode = inode_of(tree.linked);

    orphan_encode(tree.file, bytes);
    put(key_orphan(900), bytes, sizeof bytes);
    inode.ino = 990;
    inode.nlink = 0;
    put_inode(&inode);
    struct fs_checked checked = check(true, NULL);
    ck_assert_uint_gt(checked.faults, 2); /* and the counter */
    ck_assert_uint_eq(checked.left, 0);
    fixture_open();
    check_others(0);
    fixture_close();
    expect_clean();
}
END_TEST

START_TEST(without_its_super_record_or_root_a_filesystem_is_still_found)
{
    drop(_i == 0 ? key_super() : key_inode(FS_INO_ROOT));
    ck_assert_uint_eq(check(true, NULL).left, 0);
    expect_clean();
    fixture_open();
    ck_assert_int_eq(look(FS_INO_ROOT, "dir"), (int64_t)tree.dir);
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(a_filesystem_of_another_format_is_left_as_it_is)
{
    struct fs_check_options options = {.memory_bytes = 4 << 20, .repair = true, .fault = take_fault};
    struct fs_checked checked;
    uint8_t bytes[SUPER_BYTES], after[SUPER_BYTES];
    uint32_t len;

    get(key_super(), bytes, sizeof bytes, &len);
    bytes[0]++;
    put(key_super(), bytes, len);
    put((struct fs_key){.bytes = "?of that format", .len = 15}, "value", 5);
    ck_assert_int_eq(fs_check(device, &options, &checked), -EPROTONOSUPPORT);
    ck_assert_msg(strstr(checked.message, "another version"), "%s", checked.message);
    get(key_super(), after, sizeof after, &len);
    ck_assert_mem_eq(after, bytes, sizeof bytes);
    get((struct fs_key){.bytes = "?of that format", .len = 15}, after, sizeof after, &len);
}
END_TEST

START_TEST(values_and_keys_of_no_kind_are_dropped)
{
    put(key_inode(tree.small[2]), "no inode", 8);
    put((struct fs_key){.bytes = "?what", .len = 5}, "no kind", 7);
    put(key_entry(tree.dir, "senseless", 9), "no entry", 8);
    put((struct fs_key){.bytes = "Super", .len = 5}, "no super record", 15);
    find_and_mend("/dir/small2", tree.small[2]);
}
END_TEST

int main(void)
{
    TCase *tests = fixture_case("check", setup, teardown);

    tcase_add_test(tests, a_sound_store_has_no_faults);
    tcase_add_test(tests, an_entry_without_its_inode_is_dropped);
    tcase_add_test(tests, a_directory_without_its_inode_keeps_its_name_and_what_is_in_it);
    tcase_add_test(tests, an_inode_without_a_name_goes_to_lost_and_found);
    tcase_add_test(tests, a_directory_without_a_name_goes_to_lost_and_found_with_all_in_it);
    tcase_add_test(tests, names_of_a_directory_that_nobody_knows_are_kept);
    tcase_add_loop_test(tests, a_listing_that_is_not_there_is_made_anew, 0, 3);
    tcase_add_loop_test(tests, a_gap_that_hides_names_or_has_one_end_is_found, 0, 3);
    tcase_add_test(tests, a_gap_as_long_as_a_directory_can_be_is_not_walked_through);
    tcase_add_test(tests, blocks_that_neither_a_listing_nor_a_gap_stands_for_are_found);
    tcase_add_loop_test(tests, a_name_that_can_be_none_is_dropped, 0, 3);
    tcase_add_loop_test(tests, bits_and_listings_agree_with_names_again, 0, 9);
    tcase_add_loop_test(tests, a_patch_that_is_missing_or_too_short_is_zeros_then, 0, (int)PATCH_COUNT);
    tcase_add_loop_test(tests, masks_that_are_missing_or_senseless_are_made_anew_from_the_patches, 0, 2);
    tcase_add_test(tests, a_patch_that_the_masks_do_not_know_goes);
    tcase_add_test(tests, patches_and_masks_of_nothing_and_beyond_the_end_are_dropped);
    tcase_add_test(tests, a_patch_is_zeros_beyond_the_end_again);
    tcase_add_test(tests, counts_are_set_right);
    tcase_add_test(tests, a_directory_inside_itself_comes_out);
    tcase_add_test(tests, a_second_name_of_a_directory_is_dropped);
    tcase_add_test(tests, the_way_up_is_set_right);
    tcase_add_test(tests, a_chunk_that_is_missing_is_told_with_the_file);
    tcase_add_test(tests, chunks_of_nothing_and_beyond_the_end_are_dropped);
    tcase_add_test(tests, a_chunk_that_is_too_long_is_cut);
    tcase_add_test(tests, a_chunk_of_a_file_that_stands_in_its_inode_is_dropped);
    tcase_add_test(tests, links_of_a_file_that_stands_in_its_inode_are_set_right);
    tcase_add_test(tests, an_inode_without_its_contents_is_dropped);
    tcase_add_test(tests, attributes_apart_and_their_table_agree_again);
    tcase_add_loop_test(tests, a_table_that_is_missing_or_senseless_is_dropped, 0, 2);
    tcase_add_loop_test(tests, an_inode_knows_which_attributes_are_in_its_table, 0, 2);
    tcase_add_test(tests, a_table_that_is_longer_than_any_can_be_is_dropped);
    tcase_add_test(tests, orphans_that_are_none_and_deleted_files_that_are_forgotten);
    tcase_add_loop_test(tests, without_its_super_record_or_root_a_filesystem_is_still_found, 0, 2);
    tcase_add_test(tests, a_filesystem_of_another_format_is_left_as_it_is);
    tcase_add_test(tests, values_and_keys_of_no_kind_are_dropped);
    return suite_run_case("check", tests);
}
