// SPDX-License-Identifier: MIT
/*
 * The check of bits flipped in the log, in index images and in superblocks; what mending drops is listed; where the
 * disk fails, nothing is written.
 */
#include "checking.h"

#include <device/fault.h>

/* ---- in the log ------------------------------------------------------------------------------------------- */

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

/* ---- what is dropped ------------------------------------------------------------------------------------------ */

/* Damages something; returns how many things that drops, and one line of the list. */
static unsigned damage(int i, char line[200])
{
    unsigned long long file = tree.file, dir = tree.dir, small = tree.small[7], attributes = tree.attributes;

    line[0] = 0;
    switch (i) {
    case 0:
        flip_record(key_chunk(file, 1), 40000);
        snprintf(line, 200, "/dir/below/file: contents #%llu [65536, +65536)\n", file);
        return 1;
    case 1:
        flip_record(key_inode(small), 60);
        snprintf(line, 200, "/dir/small7: attributes, and contents that stood with them #%llu [0, +0)\n", small);
        return 2; /* and its name */
    case 2:
        drop(key_inode(small));
        snprintf(line, 200, "/dir/small7: name #%llu [0, +0)\n", dir);
        return 1;
    case 3:
        put(key_chunk(999, 2), "nobody", 6);
        snprintf(line, 200, "/#999: contents #999 [131072, +65536)\n");
        return 1;
    case 4:
        put(key_chunk(file, 3), (uint8_t[5000]){0}, 5000);
        snprintf(line, 200, "/dir/below/file: contents #%llu [200000, +%u)\n", file, 5000 - (200000 - 3 * 65536));
        return 1;
    case 5:
        drop(key_xattr(attributes, "user.long", 9));
        snprintf(line, 200, "/dir/attributes: extended attribute user.long #%llu [0, +0)\n", attributes);
        return 1;
    case 6:
        flip_record(key_xattr(attributes, "user.long", 9), 500);
        snprintf(line, 200, "/dir/attributes: extended attribute user.long #%llu [0, +0)\n", attributes);
        return 1;
    case 7:
        put(key_xattrs(attributes), "\377senseless", 10);
        snprintf(line, 200, "/dir/attributes: extended attributes #%llu [0, +0)\n", attributes);
        return 2; /* and a value apart */
    case 8:
        flip_record(key_patch(tree.patched, PATCHES[2].chunk, PATCHES[2].page), 60);
        snprintf(line, 200, "/dir/patched: contents #%llu [%llu, +4096)\n", (unsigned long long)tree.patched,
                 (unsigned long long)patch_at(2));
        return 1;
    case 9: /* what stands elsewhere as well, and counts: nothing is lost */
        flip_record(key_block(tree.dir, 0), 60);
        return 0;
    case 10:
        drop(key_listing(tree.dir, 8));
        return 0;
    default:
        put(key_counter(3), (uint8_t[COUNTER_BYTES]){77}, COUNTER_BYTES);
        return 0;
    }
}
#define DAMAGES 12

START_TEST(what_mending_drops_is_listed)
{
    char line[200];
    unsigned dropped = damage(_i, line);

    ck_assert_uint_eq(check(false, NULL).dropped, 0);
    struct fs_checked checked = check(true, NULL);
    ck_assert_uint_eq(checked.left, 0);
    ck_assert_msg(checked.dropped == dropped && strstr(told.drops, line), "%u and %snot\n%s", dropped, line,
                  told.drops);
    ck_assert_uint_eq(check(true, NULL).dropped, 0);
}
END_TEST

/* A record of which there is a newer one: damaged it costs nothing that could be read. */
START_TEST(a_damaged_record_that_was_replaced_is_no_loss_of_a_file)
{
    uint64_t address = address_of(key_inode(tree.small[7]));

    fixture_open();
    ck_assert_int_eq(fs_setattr(s, tree.small[7], &(struct fs_attr){.mode = 0600}, FS_SET_MODE, NULL), 0);
    fixture_close();
    flip_at(address + 60, 2);
    check(false, "small7");
    ck_assert_msg(told.count > 0 && told.named == 0, "%s", told.all);
    ck_assert_uint_eq(check(true, NULL).left, 0);
    ck_assert_msg(told.dropped == 1 && strstr(told.drops, "-: part of the log #0 ["), "%s", told.drops);
    expect_clean();
    fixture_open();
    check_others(0);
    fixture_close();
}
END_TEST

/* ---- a disk that fails ------------------------------------------------------------------------------------------ */

/* How many reads a check makes of a device that never fails. */
static uint64_t reads_of_a_check(struct device *faulty)
{
    struct fs_check_options options = {.memory_bytes = 4 << 20};
    struct fs_checked checked;

    device_fault_arm(faulty, &(struct device_fault){.classes = DEVICE_FAULT_READ});
    ck_assert_int_eq(fs_check(faulty, &options, &checked), 0);
    return device_fault_calls(faulty);
}

/* Each read fails, alone and with all after it, while everything is being read for the first time. */
START_TEST(nothing_is_written_where_the_disk_cannot_read)
{
    struct fs_check_options options = {.memory_bytes = 4 << 20, .repair = true};
    struct fs_checked checked;
    struct device *faulty;

    flip_record(key_chunk(tree.file, 1), 40000);
    ck_assert_int_eq(device_fault_open(device, &faulty), 0);
    uint64_t sum = sum_of_device(), reads = reads_of_a_check(faulty), refused = 0, failed = 0;
    for (uint64_t n = 1; n <= reads; n += 1 + n / 40) {
        device_fault_arm(faulty,
                         &(struct device_fault){.classes = DEVICE_FAULT_READ, .nth = n, .sticky = _i, .error = -EIO});
        int rc = fs_check(faulty, &options, &checked);
        ck_assert_uint_gt(device_fault_hits(faulty), 0);
        if (_i == 0 && rc == 0 && checked.left == 0) { /* it was tried again, and then all was well: once more */
            device_close(faulty);
            teardown();
            setup();
            flip_record(key_chunk(tree.file, 1), 40000);
            ck_assert_int_eq(device_fault_open(device, &faulty), 0);
            sum = sum_of_device();
            continue;
        }
        ck_assert_msg(sum_of_device() == sum, "read %llu of %llu fails: something was written (%d, %llu left)",
                      (unsigned long long)n, (unsigned long long)reads, rc, (unsigned long long)checked.left);
        refused += rc == 0 && checked.left == checked.faults && strstr(checked.message, "another disk");
        failed += rc < 0 && checked.message[0];
        ck_assert(rc < 0 ? checked.message[0] != 0 : checked.left > 0);
    }
    device_close(faulty);
    ck_assert_uint_gt(failed, 0);
    ck_assert(_i == 0 || refused > 0);
}
END_TEST

/* The first reading was all right; opening for writing finds more. */
START_TEST(nothing_is_written_where_a_second_reading_finds_more)
{
    struct fs_check_options options = {.memory_bytes = 4 << 20, .repair = true};
    struct fs_checked checked;
    struct device *faulty;

    flip_record(key_chunk(tree.file, 1), 40000);
    ck_assert_int_eq(device_fault_open(device, &faulty), 0);
    uint64_t sum = sum_of_device(), reads = reads_of_a_check(faulty);
    for (uint64_t n = reads + 1; n < reads + 5; n++) { /* the superblocks, and the log's first MiB */
        device_fault_arm(faulty,
                         &(struct device_fault){.classes = DEVICE_FAULT_READ, .nth = n, .sticky = true, .error = -EIO});
        ck_assert_int_lt(fs_check(faulty, &options, &checked), 0);
        ck_assert_uint_gt(device_fault_hits(faulty), 0);
        ck_assert(checked.message[0] && checked.mended == 0 && checked.dropped == 0);
        ck_assert_uint_eq(sum_of_device(), sum);
    }
    device_close(faulty);
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
    tcase_add_loop_test(tests, what_mending_drops_is_listed, 0, DAMAGES);
    tcase_add_test(tests, a_damaged_record_that_was_replaced_is_no_loss_of_a_file);
    tcase_add_loop_test(tests, nothing_is_written_where_the_disk_cannot_read, 0, 2);
    tcase_add_test(tests, nothing_is_written_where_a_second_reading_finds_more);
    return suite_run_case("check of damage", tests);
}
