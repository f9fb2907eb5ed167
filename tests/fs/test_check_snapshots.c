// SPDX-License-Identifier: MIT
/*
 * The check of snapshots' trees: what is wrong in one of them only is found and named there, and stays; the live tree,
 * and what else there is, is mended.
 */
#include "checking.h"

#define INSIDE "/.snapshots/hurt"

/* ---- damage in a snapshot's tree only ------------------------------------------------------------------------ */

/* A record that is not what it should be while the snapshot is taken, and what it was before and after. */
static struct {
    struct fs_key key;
    uint8_t was[FS_CHUNK_BYTES];
    uint32_t len;
    bool there;
} record;

static void snapshot_raw(const char *name)
{
    uint64_t id;

    open_raw();
    ck_assert_int_eq(store_snapshot_create(store, name, 1000, &id), 0);
    close_raw();
}

static void set_aside(struct fs_key key)
{
    record.key = key;
    open_raw();
    int rc = store_get(session, key.bytes, key.len, record.was, sizeof record.was, &record.len);
    close_raw();
    ck_assert_int_ge(rc, 0);
    record.there = rc == STORE_OK;
}

static void put_back(void)
{
    if (record.there)
        put(record.key, record.was, record.len);
    else
        drop(record.key);
}

/* The record is missing in the snapshot `hurt`, and back in the live tree. */
static void hide(struct fs_key key)
{
    set_aside(key);
    drop(key);
    snapshot_raw("hurt");
    put_back();
}

static void instead(struct fs_key key, const void *value, uint32_t len)
{
    set_aside(key);
    put(key, value, len);
    snapshot_raw("hurt");
    put_back();
}

/* One byte of the record is another. */
static void change(struct fs_key key, unsigned at, uint8_t byte)
{
    static uint8_t value[FS_CHUNK_BYTES];

    set_aside(key);
    ck_assert(record.there && at < record.len);
    memcpy(value, record.was, record.len);
    value[at] ^= byte;
    put(key, value, record.len);
    snapshot_raw("hurt");
    put_back();
}

#define AT_NLINK 4u /* in an inode */

/* Makes damage number `i`; returns what the path of it has in it. */
static const char *hurt(int i)
{
    static char nameless[64];

    switch (i) {
    case 0:
        hide(key_inode(tree.small[3]));
        return INSIDE "/dir/small3";
    case 1:
        change(key_inode(tree.linked), AT_NLINK, 9);
        return INSIDE "/dir/linked";
    case 2:
        change(key_inode(tree.below), AT_NLINK, 9);
        return INSIDE "/dir/below";
    case 3:
        hide(key_chunk(tree.file, 1));
        return INSIDE "/dir/below/file";
    case 4:
        instead(key_chunk(tree.file, 77), "beyond", 6);
        return INSIDE "/dir/below/file";
    case 5:
        hide(key_block(tree.dir, 0));
        return INSIDE "/dir";
    case 6:
        hide(key_entry(tree.below, "file", 4));
        snprintf(nameless, sizeof nameless, INSIDE "/#%llu", (unsigned long long)tree.file);
        return nameless;
    case 7:
        hide(key_xattr(tree.attributes, "user.long", 9));
        return INSIDE "/dir/attributes";
    case 8:
        hide(key_patch(tree.patched, PATCHES[1].chunk, PATCHES[1].page));
        return INSIDE "/dir/patched";
    case 9:
        hide(key_masks(tree.patched, 0));
        return INSIDE "/dir/patched";
    case 10:
        hide(key_live(tree.dir, 0));
        return INSIDE "/dir";
    case 11:
        hide(key_gap(tree.many, 1));
        return INSIDE "/dir/many";
    case 12:
        hide(key_inode(FS_INO_ROOT));
        return INSIDE;
    case 13:
        instead(key_chunk(999, 0), "nobody", 6);
        return INSIDE "/#999";
    default:
        instead(key_entry(tree.dir, "senseless", 9), "no entry", 8);
        return INSIDE "/dir/senseless";
    }
}
#define HURTS 15

static void delete_snapshot(const char *name)
{
    fixture_open();
    ck_assert_int_eq(fs_rmdir(s, FS_INO_SNAPSHOTS, name), 0);
    fixture_close();
}

START_TEST(what_is_wrong_in_a_snapshot_only_is_named_there_and_stays)
{
    snapshot_raw("before");
    const char *path = hurt(_i);
    snapshot_raw("after");
    uint64_t sum = sum_of_device();
    struct fs_checked checked = check(false, path);
    ck_assert_uint_gt(checked.faults, 0);
    ck_assert_uint_eq(checked.snapshots, 3);
    ck_assert_msg(told.in_snapshots == told.count && !strstr(told.all, "/before") && !strstr(told.all, "/after"),
                  "not there alone:\n%s", told.all);
    ck_assert_msg(told.named > 0, "%s is not named:\n%s", path, told.all);
    checked = check(true, path);
    ck_assert(checked.mended == 0 && checked.left == checked.faults && checked.dropped == 0);
    ck_assert_uint_eq(sum_of_device(), sum);
    delete_snapshot("hurt");
    expect_clean();
    fixture_open();
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(a_sound_store_with_many_snapshots_has_no_faults)
{
    struct fs_attr attr;
    char name[32];
    unsigned snapshots = 0;

    for (unsigned i = 0; i < 40; i++) {
        fixture_open();
        snprintf(name, sizeof name, "later%u", i);
        fill(make_file(tree.dir, name), 0, 1000 + i * 20000);
        if (i % 3 == 1 && tree.small[i]) {
            snprintf(name, sizeof name, "small%u", i);
            ck_assert_int_eq(fs_unlink(s, tree.dir, name), 0);
            tree.small[i] = 0;
        }
        write_patches();
        snprintf(name, sizeof name, "snapshot%u", i);
        ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, name, 0755, &attr), 0);
        snapshots++;
        if (i % 7 == 3)
            ck_assert_int_eq(store_compact(fs_store(fs), UINT64_MAX), 0);
        if (i % 5 == 4) {
            snprintf(name, sizeof name, "snapshot%u", i - 2);
            ck_assert_int_eq(fs_rmdir(s, FS_INO_SNAPSHOTS, name), 0);
            snapshots--;
        }
        fixture_close();
    }
    ck_assert_uint_eq(check(false, NULL).snapshots, snapshots);
    ck_assert_msg(told.count == 0, "%s", told.all);
}
END_TEST

/* ---- images ------------------------------------------------------------------------------------------------- */

static int flip_image(void *ctx, const char *name)
{
    (void)ctx;
    return strncmp(name, "index.", 6) == 0 ? device_memory_flip(device, name, 5000, 1) : 0;
}

START_TEST(a_snapshot_whose_image_is_damaged_is_checked_once_that_is_made_anew)
{
    const char *path = _i == 0 ? NULL : hurt(3);

    if (_i == 0)
        snapshot_raw("hurt");
    ck_assert_int_eq(device_list(device, flip_image, NULL), 0);
    struct fs_checked checked = check(false, NULL);
    ck_assert_uint_gt(checked.faults, 0);
    ck_assert_uint_eq(checked.snapshots, 0);
    checked = check(true, path);
    ck_assert_uint_eq(checked.snapshots, 1);
    ck_assert_uint_gt(checked.mended, 0);
    ck_assert_uint_eq(checked.left, told.named);
    ck_assert(_i == 0 || told.named > 0);
    if (_i == 1)
        delete_snapshot("hurt");
    expect_clean();
}
END_TEST

/* ---- records that a snapshot shares with the live tree, and that it alone keeps -------------------------------- */

START_TEST(a_damaged_record_of_both_is_mended_in_one_and_named_in_both)
{
    snapshot_raw("hurt");
    flip_record(key_chunk(tree.file, 1), 40000);
    check(false, "/dir/below/file");
    ck_assert(told.named > told.in_snapshots && told.in_snapshots > 0);
    ck_assert_msg(strstr(told.all, INSIDE "/dir/below/file: contents cannot be read"), "%s", told.all);
    struct fs_checked checked = check(true, NULL);
    ck_assert(checked.mended > 0 && checked.left == checked.faults - checked.mended);
    ck_assert_uint_eq(checked.dropped, 1);
    ck_assert_msg(strstr(told.drops, "/dir/below/file: contents #") && strstr(told.drops, " [65536, +65536)"), "%s",
                  told.drops);
    checked = check(true, INSIDE "/dir/below/file");
    ck_assert_msg(checked.left > 0 && checked.mended == 0 && told.named == told.count, "%s", told.all);
    fixture_open();
    check_others(tree.file);
    fixture_close();
    delete_snapshot("hurt");
    fixture_open(); /* what check_others() has made */
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "more"), 0);
    fixture_close();
    expect_clean();
}
END_TEST

START_TEST(a_damaged_record_that_a_snapshot_alone_has_is_named_there)
{
    static uint8_t value[FS_CHUNK_BYTES];
    uint64_t address = address_of(key_chunk(tree.file, 1));
    uint32_t len;

    snapshot_raw("hurt");
    get(key_chunk(tree.file, 1), value, sizeof value, &len);
    put(key_chunk(tree.file, 1), value, len);
    if (_i == 1) {
        open_raw();
        for (unsigned i = 0; i < 8; i++)
            ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
        close_raw();
    }
    flip_at(address + 40000, 2);
    check(false, INSIDE "/dir/below/file");
    ck_assert_msg(told.named > 0, "%s", told.all);
    ck_assert_ptr_null(strstr(told.all, "\n/dir"));
    struct fs_checked checked = check(true, INSIDE "/dir/below/file");
    ck_assert_msg(checked.left > 0 && told.named == checked.left, "%s", told.all);
    delete_snapshot("hurt");
    expect_clean();
    fixture_open();
    check_others(0);
    fixture_close();
}
END_TEST

START_TEST(a_damaged_directory_in_a_snapshot_hides_nothing_of_the_live_tree)
{
    snapshot_raw("hurt");
    flip_record(key_inode(tree.dir), 60);
    check(false, INSIDE);
    ck_assert_uint_gt(told.named, 0);
    ck_assert_uint_gt(check(true, NULL).mended, 0);
    fixture_open();
    check_others(0);
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "more"), 0);
    fixture_close();
    delete_snapshot("hurt");
    expect_clean();
}
END_TEST

int main(void)
{
    TCase *tests = fixture_case("check of snapshots", setup, teardown);

    tcase_add_loop_test(tests, what_is_wrong_in_a_snapshot_only_is_named_there_and_stays, 0, HURTS);
    tcase_add_test(tests, a_sound_store_with_many_snapshots_has_no_faults);
    tcase_add_loop_test(tests, a_snapshot_whose_image_is_damaged_is_checked_once_that_is_made_anew, 0, 2);
    tcase_add_test(tests, a_damaged_record_of_both_is_mended_in_one_and_named_in_both);
    tcase_add_loop_test(tests, a_damaged_record_that_a_snapshot_alone_has_is_named_there, 0, 2);
    tcase_add_test(tests, a_damaged_directory_in_a_snapshot_hides_nothing_of_the_live_tree);
    return suite_run_case("check of snapshots", tests);
}
