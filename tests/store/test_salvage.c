// SPDX-License-Identifier: MIT
/* Tests of store/src/salvage.h: damage that meets what an earlier salvage has left. tests/crash has the rest. */
#include "model.h"

#include <errno.h>

#define RECORDS 100

static uint64_t addresses[RECORDS];

static void put(int i, const char *value)
{
    ck_assert_int_eq(store_upsert(session, &i, sizeof i, value, (uint32_t)strlen(value)), 0);
}

static int find_address(void *ctx, const struct store_item *item)
{
    int i;

    (void)ctx;
    ck_assert_uint_eq(item->key_len, sizeof i);
    memcpy(&i, item->key, sizeof i);
    addresses[i] = item->address;
    return 0;
}

static void fill_store(void)
{
    for (int i = 0; i < RECORDS; i++)
        put(i, "what was written");
    ck_assert_int_eq(store_scan_log(session, find_address, NULL), 0);
}

static int count_damage(void *ctx, const struct store_damage *damage)
{
    (void)damage;
    ++*(unsigned *)ctx;
    return 0;
}

/* Opens the store to salvage it, and closes it. How much was told. */
static unsigned salvage(void)
{
    unsigned told = 0;
    struct store_salvage to = {.damage = count_damage, .ctx = &told};
    struct store_options options = tiny;

    options.salvage = &to;
    open_store(&options);
    close_store();
    return told;
}

static void expect_record(const struct store_snapshot *snapshot, int i, int result)
{
    char got[32];
    struct store_read read = {.key = &i, .key_len = sizeof i, .buf = got, .buf_len = sizeof got, .snapshot = snapshot};

    ck_assert_int_eq(store_read_wait(session, &read), result);
    if (result == STORE_OK)
        ck_assert_mem_eq(got, "what was written", read.value_len);
}

START_TEST(damage_in_front_of_what_was_salvaged_is_salvaged_too)
{
    int last = 1 + (int)dice(RECORDS - 2);

    fill_store();
    close_store();
    for (int i = last; i >= last - 1; i--) {
        ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", addresses[i] + 40 + dice(16), 3), 0);
        ck_assert_uint_gt(salvage(), 0);
    }
    ck_assert_uint_eq(salvage(), 0);
    open_store(&tiny);
    for (int i = 0; i < RECORDS; i++)
        expect_record(NULL, i, i == last || i == last - 1 ? STORE_NOT_FOUND : STORE_OK);
}
END_TEST

static int damage_image(void *ctx, const char *name)
{
    (void)ctx;
    return strncmp(name, "index.", 6) == 0 ? device_memory_flip(device, name, 5000, 1) : 0;
}

START_TEST(one_salvage_makes_an_image_anew_that_is_the_checkpoints_and_a_snapshots)
{
    struct store_snapshot *snapshot;
    uint64_t id;

    fill_store();
    ck_assert_int_eq(store_snapshot_create(store, "then", 1, &id), 0);
    close_store();
    ck_assert_int_eq(device_list(device, damage_image, NULL), 0);
    ck_assert_uint_gt(salvage(), 0);
    open_store(&tiny);
    ck_assert_int_eq(store_snapshot_open(store, id, &snapshot), 0);
    for (int i = 0; i < RECORDS; i++)
        expect_record(snapshot, i, STORE_OK);
    store_snapshot_close(snapshot);
    close_store();
    ck_assert_uint_eq(salvage(), 0);
    open_store(&tiny);
}
END_TEST

#define MANY 8400

static uint64_t places[MANY];

static int note_place(void *ctx, const struct store_item *item)
{
    places[(*(int *)ctx)++] = item->address + 40;
    return 0;
}

START_TEST(too_many_damaged_places_are_refused_with_what_to_do_and_can_be_read)
{
    struct store_salvage to = {.damage = NULL};
    struct store_options options = tiny;
    struct store_opened opened;
    int count = 0;

    for (int i = 0; i < MANY; i++)
        put(i, "x");
    ck_assert_int_eq(store_scan_log(session, note_place, &count), 0);
    close_store();
    for (int i = 0; i < count; i += 2)
        ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", places[i], 3), 0);
    options.salvage = &to;
    ck_assert_int_eq(store_open(device, &options, &store, &opened), -E2BIG);
    ck_assert_ptr_nonnull(strstr(opened.message, "backup"));
    options.read_only = true;
    open_store(&options);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("salvage");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, damage_in_front_of_what_was_salvaged_is_salvaged_too);
    tcase_add_test(tests, one_salvage_makes_an_image_anew_that_is_the_checkpoints_and_a_snapshots);
    tcase_add_test(tests, too_many_damaged_places_are_refused_with_what_to_do_and_can_be_read);
    return suite_run_case("salvage", tests);
}
