// SPDX-License-Identifier: MIT
/*
 * The check of bits flipped in the log, in index images and in superblocks.
 */
#include "checking.h"

/* ---- in the log ------------------------------------------------------------------------------------------- */

struct where {
    struct fs_key key;
    uint64_t address;
};

static int find_record(void *ctx, const struct store_item *item)
{
    struct where *where = ctx;

    if (item->key_len == where->key.len && memcmp(item->key, where->key.bytes, item->key_len) == 0)
        where->address = item->address;
    return 0;
}

static void flip_at(uint64_t address, unsigned bit)
{
    char name[64];

    snprintf(name, sizeof name, "log.%016llx", (unsigned long long)(address / segment_bytes));
    ck_assert_int_eq(device_memory_flip(device, name, address % segment_bytes, bit), 0);
}

/* Damages the newest record of the key: a bit at `offset` in it. */
static void flip_record(struct fs_key key, unsigned offset)
{
    struct where where = {.key = key};

    open_raw();
    ck_assert_int_eq(store_scan_log(session, find_record, &where), 0);
    close_raw();
    ck_assert_uint_gt(where.address, 0);
    flip_at(where.address + offset, 2);
}

/* In the header, the key, the value. */
static const unsigned places[] = {0, 4, 12, 17, 21, 25, 33, 42, 56, 60};
#define PLACES ((int)(sizeof places / sizeof places[0]))

START_TEST(a_damaged_chunk_costs_that_chunk_only)
{
    flip_record(key_chunk(tree.file, 1), _i < PLACES ? places[_i] : 40000);
    find_and_mend("/dir/below/file", tree.file);
    fixture_open();
    ck_assert(is_whole(tree.file, 0, FS_CHUNK_BYTES));
    ck_assert(is_whole(tree.file, 2 * FS_CHUNK_BYTES, 200000 - 2 * FS_CHUNK_BYTES));
    fixture_close();
}
END_TEST

START_TEST(a_damaged_inode_costs_that_file_only)
{
    flip_record(key_inode(tree.small[7]), places[_i]);
    find_and_mend(NULL, tree.small[7]);
}
END_TEST

START_TEST(a_damaged_name_costs_that_name_only)
{
    flip_record(key_entry(tree.dir, "small9", 6), places[_i]);
    struct fs_checked checked = check(false, "/dir");
    ck_assert_uint_gt(checked.faults, 0);
    ck_assert_uint_gt(told.named, 0);
    ck_assert_uint_eq(check(true, NULL).left, 0);
    expect_clean();
    fixture_open();
    ck_assert(is_whole(tree.small[9], 0, 109));
    tree.small[9] = 0; /* its name is in lost+found now */
    make_file(tree.dir, "instead");
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(a_damaged_patch_costs_that_page_only)
{
    flip_record(key_patch(tree.patched, PATCHES[2].chunk, PATCHES[2].page), places[_i]);
    find_and_mend_patched(1u << 2, 0);
}
END_TEST

START_TEST(damaged_masks_are_made_anew_from_the_patches)
{
    flip_record(key_masks(tree.patched, 0), 33 + 15 * (unsigned)_i);
    find_and_mend_patched(0, 0);
}
END_TEST

START_TEST(damaged_blocks_and_bits_cost_nothing)
{
    if (_i < PLACES)
        flip_record(key_block(tree.dir, 0), places[_i]);
    else
        flip_record(key_live(tree.dir, 0), places[_i - PLACES]);
    find_and_mend("/dir", 0);
}
END_TEST

START_TEST(a_damaged_directory_keeps_what_is_in_it)
{
    flip_record(key_inode(tree.dir), places[_i]);
    find_and_mend("/dir", 0);
}
END_TEST

START_TEST(damage_is_passed_over_when_space_is_given_back_and_when_the_image_is_lost)
{
    flip_record(key_chunk(tree.file, 1), 100);
    ck_assert_uint_eq(check(true, NULL).left, 0);
    open_raw();
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    close_raw();
    expect_clean();
    fixture_open();
    check_others(tree.file);
    fixture_close();
}
END_TEST

/* ---- in index images and superblocks, and before a later commit ---------------------------------------------- */

static int flip_image(void *ctx, const char *name)
{
    (void)ctx;
    return strncmp(name, "index.", 6) == 0 ? device_memory_flip(device, name, 5000, 1) : 0;
}

START_TEST(index_images_are_made_anew_from_the_log)
{
    struct fs_attr attr;

    fixture_open();
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "kept", 0755, &attr), 0);
    ck_assert_int_eq(fs_unlink(s, tree.dir, "small1"), 0);
    tree.small[1] = 0;
    fixture_close();
    ck_assert_int_eq(device_list(device, flip_image, NULL), 0);
    find_and_mend(NULL, 0);
    fixture_open();
    int64_t root = look(FS_INO_SNAPSHOTS, "kept");
    int64_t dir = look((uint64_t)root, "dir");
    ck_assert_int_gt(look((uint64_t)dir, "small1"), 0);
    fixture_close();
}
END_TEST

START_TEST(a_damaged_superblock_is_written_again)
{
    ck_assert_int_eq(device_memory_flip(device, _i == 0 ? "superblock.0" : "superblock.1", 40, 3), 0);
    find_and_mend(NULL, 0);
}
END_TEST

/* What was written after the last checkpoint, and damaged before the last commit: an ordinary open refuses. */
START_TEST(a_log_that_is_damaged_in_the_middle_can_be_mounted_again)
{
    fixture_open();
    uint64_t hit = make_file(FS_INO_ROOT, "hit"), later = 0;
    fill(hit, 0, 3000);
    ck_assert_int_eq(fs_sync(fs), 0);
    for (unsigned i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "later%u", i);
        later = make_file(FS_INO_ROOT, name);
        fill(later, 0, 3000);
        ck_assert_int_eq(fs_sync(fs), 0);
    }
    struct where where = {.key = key_chunk(hit, 0)};
    struct store_session *raw;
    ck_assert_int_eq(store_session_open(fs_store(fs), &raw), 0);
    ck_assert_int_eq(store_scan_log(raw, find_record, &where), 0);
    store_session_close(raw);
    fs_session_close(s);
    fs_abandon(fs);
    flip_at(where.address + places[_i], 5);
    struct fs_options options = {.store = {.no_background = true}};
    struct store_opened opened;
    ck_assert_int_eq(fs_open(device, &options, &fs, &opened), -EUCLEAN);
    ck_assert_ptr_nonnull(strstr(opened.message, "check --repair"));
    find_and_mend("/hit", hit);
    fixture_open();
    ck_assert(is_whole(later, 0, 3000));
    ck_assert_int_eq(look(FS_INO_ROOT, "later4"), (int64_t)later);
    fixture_close();
}
END_TEST

int main(void)
{
    TCase *tests = fixture_case("check of damage", setup, teardown);

    tcase_add_loop_test(tests, a_damaged_chunk_costs_that_chunk_only, 0, PLACES + 1);
    tcase_add_loop_test(tests, a_damaged_inode_costs_that_file_only, 0, PLACES);
    tcase_add_loop_test(tests, a_damaged_name_costs_that_name_only, 0, PLACES);
    tcase_add_loop_test(tests, a_damaged_patch_costs_that_page_only, 0, PLACES);
    tcase_add_loop_test(tests, damaged_masks_are_made_anew_from_the_patches, 0, 9);
    tcase_add_loop_test(tests, damaged_blocks_and_bits_cost_nothing, 0, 2 * PLACES);
    tcase_add_loop_test(tests, a_damaged_directory_keeps_what_is_in_it, 0, PLACES);
    tcase_add_test(tests, damage_is_passed_over_when_space_is_given_back_and_when_the_image_is_lost);
    tcase_add_test(tests, index_images_are_made_anew_from_the_log);
    tcase_add_loop_test(tests, a_damaged_superblock_is_written_again, 0, 2);
    tcase_add_loop_test(tests, a_log_that_is_damaged_in_the_middle_can_be_mounted_again, 0, PLACES);
    return suite_run_case("check of damage", tests);
}
