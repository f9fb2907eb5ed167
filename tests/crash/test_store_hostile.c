// SPDX-License-Identifier: MIT
/*
 * Lies in the store's own structures, as hostile.h has it: the bytes of its files are edited and sealed again.
 */
#include "hostile.h"

#include <index.h>
#include <superblock.h>

static struct image image; /* what is edited */

/* ---- of the superblock ----------------------------------------------------------------------------------- */

/* Into both superblocks. */
static void both_bytes(unsigned offset, const void *bytes, size_t len)
{
    for (unsigned i = 0; i < 2; i++)
        memcpy(superblock_at(&image, i, offset), bytes, len);
}

static void both(unsigned offset, uint64_t value)
{
    both_bytes(offset, &value, sizeof value);
}

static void both32(unsigned offset, uint32_t value)
{
    both_bytes(offset, &value, sizeof value);
}

static void in_snapshot(unsigned which, unsigned offset, uint64_t value)
{
    both(SB_SNAPSHOTS + which * SNAPSHOT_BYTES + offset, value);
}

static void label(unsigned which, const char *bytes, size_t len)
{
    both_bytes(SB_SNAPSHOTS + which * SNAPSHOT_BYTES + SNAPSHOT_LABEL, bytes, len);
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
static void another_format(void) { both32(8, SUPERBLOCK_FORMAT_COLD + 1); }
static void cold_without_a_level(void) { both32(8, SUPERBLOCK_FORMAT_COLD); }
static void level_that_is_not_there(void)
{
    both32(160, 77);
    both32(8, SUPERBLOCK_FORMAT_COLD);
}
static void another_format_beside(void)
{
    uint32_t format = SUPERBLOCK_FORMAT - 1;

    memcpy(superblock_at(&image, 0, 8), &format, sizeof format);
}
static void no_label(void) { label(0, "", 1); }
static void label_without_end(void)
{
    char bytes[256];
    memset(bytes, 'l', sizeof bytes);
    label(0, bytes, sizeof bytes);
}
/* ---- of the log ------------------------------------------------------------------------------------------ */

/* A record, a pad or a commit, by its first letter. */
static char kind_at(const uint8_t *at)
{
    uint64_t word = get64_at(at);

    return word & RECORD_PAD ? 'p' : word == RECORD_COMMIT ? 'c' : 'r';
}

/* The nth of that kind. */
static uint8_t *item_at(char kind, unsigned n, uint64_t *ret_address)
{
    for (unsigned i = 0;; i = (i + 1) % image.item_count) {
        if (kind_at(image.log->bytes + image.items[i]) == kind && n-- == 0) {
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
        if (kind_at(at) == 'r')
            memcpy(at + offset, &value, bytes);
    }
}

static void links_to_themselves(void)
{
    for (unsigned i = 0; i < image.item_count; i++) {
        uint8_t *at = image.log->bytes + image.items[i];
        if (kind_at(at) == 'r')
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
/* ---- of the index ---------------------------------------------------------------------------------------- */

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

/* ---- the cases ------------------------------------------------------------------------------------------- */

static const struct lie {
    const char *name;
    void (*tell)(void);
    int wanted;
} lies[] = {
#define LIE(tell, wanted) {#tell, tell, wanted}
    LIE(end_unaligned, DAMAGED),
    LIE(end_at_zero, DAMAGED),
    LIE(end_at_the_top, DAMAGED),
    LIE(end_beyond, DAMAGED),
    LIE(begin_unaligned, DAMAGED),
    LIE(begin_at_the_top, DAMAGED),
    LIE(begin_far_away, DAMAGED),
    LIE(begin_beyond, WHATEVER),
    LIE(begin_in_the_middle, WHATEVER),
    LIE(reach_beyond, DAMAGED),
    LIE(reach_far_away, DAMAGED),
    LIE(reach_at_the_top, DAMAGED),
    LIE(reach_before_end, DAMAGED),
    LIE(log_far_away, WHATEVER),
    LIE(other_segment_size, WHATEVER),
    LIE(other_format, -EPROTONOSUPPORT),
    LIE(other_bits, -ENOMEM),
    LIE(least_bits, WHATEVER),
    LIE(too_many_snapshots, DAMAGED),
    LIE(last_sequence, DAMAGED),
    LIE(last_incarnation, DAMAGED),
    LIE(images_again, DAMAGED),
    LIE(last_image, DAMAGED),
    LIE(version_at_the_end, DAMAGED),
    LIE(snapshot_of_no_number, DAMAGED),
    LIE(snapshots_of_one_number, DAMAGED),
    LIE(snapshot_from_later, DAMAGED),
    LIE(snapshots_in_one_slot, 0),
    LIE(snapshot_without_image, DAMAGED),
    LIE(snapshot_of_absent_image, 0),
    LIE(snapshot_of_other_image, 0),
    LIE(snapshot_reaches_beyond, DAMAGED),
    LIE(snapshot_reaches_nothing, DAMAGED),
    LIE(snapshot_ends_beyond, DAMAGED),
    LIE(snapshot_begins_late, WHATEVER),
    LIE(label_with_slash, 0),
    LIE(label_of_dots, 0),
    LIE(another_format, -EPROTONOSUPPORT),
    LIE(another_format_beside, -EPROTONOSUPPORT),
    LIE(cold_without_a_level, DAMAGED),
    LIE(level_that_is_not_there, -EINVAL),
    LIE(no_label, 0),
    LIE(label_without_end, DAMAGED),
    LIE(links_to_themselves, WHATEVER),
    LIE(links_up, WHATEVER),
    LIE(links_to_one, WHATEVER),
    LIE(links_unaligned, WHATEVER),
    LIE(links_below_the_log, WHATEVER),
    LIE(values_beyond_capacity, DAMAGED),
    LIE(capacity_of_4_gib, DAMAGED),
    LIE(capacity_across_the_segment, DAMAGED),
    LIE(longest_keys, DAMAGED),
    LIE(records_of_the_last_version, WHATEVER),
    LIE(links_up_replayed, DAMAGED),
    LIE(links_to_one_replayed, DAMAGED),
    LIE(links_unaligned_replayed, DAMAGED),
    LIE(capacity_of_4_gib_replayed, DAMAGED),
    LIE(capacity_across_the_segment_replayed, DAMAGED),
    LIE(longest_keys_replayed, DAMAGED),
    LIE(last_version_replayed, DAMAGED),
    LIE(pad_of_4_gib, DAMAGED),
    LIE(pad_to_the_end, DAMAGED),
    LIE(pad_of_nothing, DAMAGED),
    LIE(pad_of_8, DAMAGED),
    LIE(commit_of_the_last_version, DAMAGED),
    LIE(commit_of_an_old_version, DAMAGED),
    LIE(commit_that_knows_more, WHATEVER),
    LIE(commit_of_another_extent, DAMAGED),
    LIE(index_leads_up, 0), /* the index is made anew from the log */
    LIE(index_leads_behind_the_log, 0),
    LIE(index_leads_to_one, WHATEVER),
    LIE(index_leads_into_records, DAMAGED),
    LIE(index_leads_unaligned, DAMAGED),
    LIE(index_leads_to_the_edge, DAMAGED),
    LIE(index_leads_to_the_void, WHATEVER),
    LIE(index_of_all_bits, 0),
    LIE(index_links_itself, 0),
    LIE(index_links_nowhere, 0),
    LIE(index_of_2_40_buckets, 0),
    LIE(index_of_other_bits, 0),
    LIE(index_of_overflow, 0),
};

START_TEST(a_lie_of_the_store_is_told_or_harmless)
{
    static const char *const keys[] = {"S", "a key that is not there", NULL};
    const struct lie *lie = &lies[_i];

    snprintf(where, sizeof where, "%s", lie->name);
    image_copy(&clean, &image);
    lie->tell();
    image_seal(&image);
    watch_begin();
    struct device *device = image_put(&image);
    int rc = use_fs(device);
    device_close(device);
    if (!as_wanted(rc, lie->wanted))
        give_up("%s: opening says %d (%s)", lie->name, rc, strerror(-rc));
    device = image_put(&image);
    (void)use_store(device, keys);
    device_close(device);
    watch_end();
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
    TCase *tests = hostile_case();

    tcase_add_test(tests, sealing_changes_nothing);
    tcase_add_loop_test(tests, a_lie_of_the_store_is_told_or_harmless, 0, sizeof lies / sizeof lies[0]);
    int rc = run_case("store hostile", tests);
    image_free(&clean);
    image_free(&image);
    return rc;
}
