// SPDX-License-Identifier: MIT
/*
 * A store with a cold level, beside the plain table: whatever is moved there, every operation gives what it gives
 * without. What was deleted stays deleted, whichever level had it.
 */
#include <private.h> /* first: the model has names of its own */

#define MODEL_COLD
#include "steps.h"

#include <errno.h>

static uint64_t migrated(void)
{
    struct store_stats stats;

    store_stats(store, &stats);
    return stats.cold_migrated;
}

/* Keys beside those of the model push what is older out of memory. */
static void push_out(void)
{
    static const uint8_t value[900];

    for (int n = 0; n < 600; n++) {
        uint32_t key_len, k = (uint32_t)dice(700);
        char key[32];
        key_len = (uint32_t)sprintf(key, "push-%u", k);
        ck_assert_int_eq(store_upsert(session, key, key_len, value, sizeof value), 0);
    }
    ck_assert_int_eq(store_commit(store), 0);
}

/* All that the model has is in the cold level then, and not in the log. */
static void make_cold(void)
{
    push_out();
    ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
}

/* On empty devices, without a store yet. */
static void begin_anew(void)
{
    close_store();
    device_close(device);
    device_close(cold_device);
    ck_assert_int_eq(device_memory_open(&device), 0);
    ck_assert_int_eq(device_memory_open(&cold_device), 0);
    tiny.cold = cold_device;
}

static void crash_committed(void)
{
    ck_assert_int_eq(store_commit(store), 0);
    durable = now;
    crash();
    open_store(&tiny);
}

START_TEST(every_operation_gives_what_it_gives_without)
{
    for (int n = 0; n < 60000; n++)
        step_or_more();
    expect_all(&now, NULL);
    ck_assert_uint_gt(migrated(), KEYS);
    close_store();
    open_store(&tiny);
    expect_all(&now, NULL);
}
END_TEST

START_TEST(what_is_cold_is_changed_as_anything)
{
    for (int round = 0; round < 12; round++) {
        for (int n = 0; n < 300; n++)
            upsert_one((int)dice(KEYS));
        make_cold();
        for (int n = 0; n < 400; n++)
            switch (dice(5)) {
            case 0:
                patch_one((int)dice(KEYS));
                break;
            case 1:
                insert_one((int)dice(KEYS));
                break;
            case 2:
                refill_many();
                break;
            case 3:
                batch();
                break;
            default:
                unit_of_many();
            }
        expect_all(&now, NULL);
    }
    ck_assert_uint_gt(migrated(), 3000);
}
END_TEST

/* ---- what was fetched from the cold level and is out of date ----------------------------------------------- */

static uint32_t append_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)ctx;
    (void)old;
    (void)capacity;
    return (old_len == STORE_ABSENT ? 0 : old_len) + 1;
}

static void append_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    uint8_t *to = value;

    if (old_len != STORE_ABSENT && old != value)
        memcpy(to, old, old_len);
    to[new_len - 1] = *(const uint8_t *)ctx;
}

static const struct store_rmw APPEND = {append_size, append_write};

/* The key has changed, left the log, and its chain ends as it did before: only the log's begin tells. */
START_TEST(a_change_sees_what_was_moved_while_it_waited_for_the_cold_level)
{
    struct store_session *other;
    const uint8_t plus = '+';
    unsigned pending = 0;

    ck_assert_int_eq(store_session_open(store, &other), 0);
    for (int round = 0; round < 20; round++) {
        struct store_rmw_op op = {.key = "abc", .key_len = 3, .rmw = &APPEND, .ctx = &plus};
        char got[8] = "";
        uint32_t len;
        ck_assert_int_eq(store_upsert(session, "abc", 3, "1", 1), 0);
        make_cold();
        make_cold();
        for (int i = 0; i < KEYS; i++) /* out of the cache, too */
            upsert_one(i);
        make_cold();
        expect_all(&now, NULL);
        if (store_rmw_start(other, &op) == STORE_PENDING) {
            pending++;
            if (round % 2)
                ck_assert_int_eq(store_delete(session, "abc", 3), 0);
            else
                ck_assert_int_eq(store_upsert(session, "abc", 3, "2", 1), 0);
            for (int n = 0; n < 2; n++) { /* in the cold level nothing is given back */
                push_out();
                ck_assert_int_eq(compact_run(store, UINT64_MAX, false), 0);
            }
            store_complete_pending(other, true);
            ck_assert_int_eq(op.result, STORE_OK);
            ck_assert_int_eq(store_get(session, "abc", 3, got, sizeof got, &len), STORE_OK);
            ck_assert_uint_eq(len, round % 2 ? 1 : 2);
            ck_assert_mem_eq(got, round % 2 ? "+" : "2+", len);
        }
    }
    ck_assert_uint_gt(pending, 10);
    store_session_close(other);
}
END_TEST

static void compact_perhaps(void)
{
    if (dice(2))
        ck_assert_int_eq(store_compact(store, dice(2) ? UINT64_MAX : 1 + dice(1 << 20)), 0);
}

START_TEST(a_crash_leaves_what_was_committed)
{
    crash_often(step_or_more, compact_perhaps);
}
END_TEST

/* Moved to the cold level, and lost in the memory of a machine that is gone; or durable there, and in the log still. */
START_TEST(a_crash_in_a_round_of_compaction_leaves_what_was_committed)
{
    for (int round = 0; round < 60; round++) {
        for (int n = 0; n < 1500; n++)
            step();
        ck_assert_int_eq(store_commit(store), 0);
        durable = now;
        if (dice(2))
            device_memory_cut(dice(2) ? device : cold_device);
        int rc = store_compact(store, UINT64_MAX);
        (void)rc; /* -EIO, if anything was to be moved */
        crash();
        open_store(&tiny);
        expect_all(&now, NULL);
    }
}
END_TEST

/* As the C++ reference gives back what was deleted: what is deleted in place, or has left the log, must hide the cold
 * copy. */
START_TEST(a_deleted_key_does_not_come_back_from_the_cold_level)
{
    for (int i = 0; i < KEYS; i++)
        upsert_one(i);
    make_cold();
    for (int i = 0; i < KEYS; i++) {
        if (i % 3 == 0)
            upsert_one(i); /* and then deleted in place */
        if (i % 2 == 0)
            delete_one(i);
    }
    expect_all(&now, NULL);
    for (int round = 0; round < 6; round++) {
        make_cold(); /* the tombstones too */
        expect_all(&now, NULL);
        crash_committed();
        expect_all(&now, NULL);
    }
    for (int i = 0; i < KEYS; i += 5) { /* deleted where only the cold level has it */
        delete_one(i);
        expect(&now, NULL, i);
    }
    make_cold();
    expect_all(&now, NULL);
}
END_TEST

/* ---- iteration -------------------------------------------------------------------------------------------- */

static const struct model *seen; /* what is to be shown */
static bool shown[KEYS];
static unsigned others;

static int see(void *ctx, const struct store_item *item)
{
    static uint8_t want[VALUE_MAX];
    char key[64];
    int i = -1;

    (void)ctx;
    ck_assert_ptr_nonnull(item->value);
    if (sscanf(item->key, "key-%d-", &i) != 1) {
        others++;
        return 0;
    }
    ck_assert_int_lt(i, KEYS);
    ck_assert_uint_eq(make_key(key, i), item->key_len);
    ck_assert_msg(!shown[i], "key %d is shown twice", i);
    shown[i] = true;
    ck_assert_uint_eq(item->value_len, seen->len[i]);
    fill(want, i, seen->stamp[i], seen->len[i]);
    ck_assert_mem_eq(item->value, want, seen->len[i]);
    if (dice(200) == 0) /* held back meanwhile */
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    return 0;
}

static void expect_scan(const struct model *model, const struct store_snapshot *snapshot)
{
    memset(shown, 0, sizeof shown);
    seen = model;
    ck_assert_int_eq(snapshot ? store_snapshot_scan(session, snapshot, see, NULL) : store_scan(session, see, NULL), 0);
    for (int i = 0; i < KEYS; i++)
        ck_assert_msg(shown[i] == (model->len[i] != UINT32_MAX), "key %d: shown %d", i, shown[i]);
}

START_TEST(iteration_shows_each_key_once_whichever_level_has_it)
{
    for (int round = 0; round < 8; round++) {
        for (int n = 0; n < 4000; n++)
            step_or_more();
        if (round % 2)
            make_cold();
        expect_scan(&now, NULL);
    }
    ck_assert_uint_gt(others, 0);
}
END_TEST

/* ---- snapshots ---------------------------------------------------------------------------------------------- */

static int count_snapshots(void *ctx, const struct store_snapshot_info *info)
{
    (void)info;
    ++*(unsigned *)ctx;
    return 0;
}

static unsigned snapshots_of(struct store *of)
{
    unsigned count = 0;

    ck_assert_int_eq(store_snapshot_list(of, count_snapshots, &count), 0);
    return count;
}

START_TEST(a_snapshot_is_one_moment_of_both_levels)
{
    static struct model then[4];
    struct store_snapshot *snapshot;
    uint64_t id[4];
    char label[16];

    for (int k = 0; k < 4; k++) {
        for (int n = 0; n < 8000; n++)
            step_or_more();
        if (k % 2)
            make_cold();
        sprintf(label, "s%d", k);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &id[k]), 0);
        then[k] = now;
    }
    for (int round = 0; round < 3; round++) {
        for (int n = 0; n < 8000; n++)
            step_or_more();
        make_cold();
        for (int k = 0; k < 4; k++) {
            ck_assert_int_eq(store_snapshot_open(store, id[k], &snapshot), 0);
            expect_all(&then[k], snapshot);
            expect_scan(&then[k], snapshot);
            store_snapshot_close(snapshot);
        }
        expect_all(&now, NULL);
        crash_committed();
    }
    ck_assert_uint_eq(snapshots_of(store->cold->store), 4);
    for (int k = 0; k < 4; k++)
        ck_assert_int_eq(store_snapshot_delete(store, id[k]), 0);
    ck_assert_uint_eq(snapshots_of(store->cold->store), 0);
    expect_all(&now, NULL);
}
END_TEST

START_TEST(a_snapshot_from_before_the_cold_level_stays_as_it_was)
{
    struct store_options without = tiny;
    struct store_snapshot *snapshot;
    static struct model then;
    uint64_t id;

    begin_anew();
    without.cold = NULL;
    open_store(&without);
    for (int i = 0; i < KEYS; i++)
        upsert_one(i);
    ck_assert_int_eq(store_snapshot_create(store, "before", 1, &id), 0);
    then = now;
    close_store();
    open_store(&tiny);
    for (int n = 0; n < 10000; n++)
        step_or_more();
    make_cold();
    ck_assert_int_eq(store_snapshot_open(store, id, &snapshot), 0);
    expect_all(&then, snapshot);
    store_snapshot_close(snapshot);
}
END_TEST

/* A crash between the two: the level's snapshot belongs to none. */
START_TEST(a_snapshot_of_the_cold_level_alone_is_dropped)
{
    uint64_t id;

    make_cold();
    ck_assert_int_eq(store_snapshot_create(store, "one", 1, &id), 0);
    ck_assert_int_eq(store_snapshot_create(store->cold->store, "77", 1, &id), 0);
    ck_assert_uint_eq(snapshots_of(store->cold->store), 2);
    crash_committed();
    ck_assert_uint_eq(snapshots_of(store->cold->store), 1);
    ck_assert_uint_eq(snapshots_of(store), 1);
}
END_TEST

static void refused(struct device *at, const struct store_options *options, int error, const char *word)
{
    struct store_opened opened;
    struct store *none;

    ck_assert_int_eq(store_open(at, options, &none, &opened), error);
    ck_assert_msg(strstr(opened.message, word) != NULL, "%s", opened.message);
}

/* ---- scrub and salvage --------------------------------------------------------------------------------------- */

static unsigned damages;

static void count_damage(void *ctx, const struct store_damage *damage)
{
    (void)ctx;
    (void)damage;
    damages++;
}

static int count_told(void *ctx, const struct store_damage *damage)
{
    count_damage(ctx, damage);
    return 0;
}

static uint64_t scrub_all(void)
{
    struct store_scrub scrub = {.max_bytes = 200000, .damage = count_damage};
    uint64_t bytes = 0;
    int rc;

    damages = 0;
    while ((rc = store_scrub(session, &scrub)) == 1)
        bytes += scrub.read_bytes;
    ck_assert_int_eq(rc, 0);
    return bytes;
}

/* Of all keys, some cannot be read: their record, their chunk, or what a chain leads through. None is what it was not.
 */
static unsigned count_unreadable(void)
{
    static uint8_t got[VALUE_MAX], want[VALUE_MAX];
    unsigned unreadable = 0;
    uint32_t len;
    char key[64];

    for (int i = 0; i < KEYS; i++) {
        int rc = store_get(session, key, make_key(key, i), got, sizeof got, &len);
        unreadable += rc == -EIO;
        if (rc == -EIO)
            continue;
        ck_assert_int_eq(rc, now.len[i] == UINT32_MAX ? STORE_NOT_FOUND : STORE_OK);
        if (rc != STORE_OK)
            continue;
        ck_assert_uint_eq(len, now.len[i]);
        fill(want, i, now.stamp[i], len);
        ck_assert_mem_eq(got, want, len);
    }
    return unreadable;
}

static int pass_over(void *ctx, const struct store_item *item)
{
    *(unsigned *)ctx += item->unreachable;
    return 0;
}

START_TEST(damage_in_the_cold_level_is_told_and_never_read)
{
    struct store_salvage salvage = {.damage = count_told};
    struct store_options whole = tiny;
    struct store_stats level;
    unsigned lost = 0;

    for (int i = 0; i < KEYS; i++)
        upsert_one(i);
    make_cold();
    store_stats(store->cold->store, &level);
    ck_assert_uint_ge(scrub_all(), level.committed - level.begin);
    ck_assert_uint_eq(damages, 0);
    close_store();
    for (uint64_t at = level.begin + 5000; at < level.committed; at += 40000 + dice(40000)) {
        char name[DEVICE_NAME_MAX + 1];
        sprintf(name, "log.%016llx", (unsigned long long)(at >> 20));
        ck_assert_int_eq(device_memory_flip(cold_device, name, at % (1 << 20), 3), 0);
    }
    tiny.no_read_cache = true;
    open_store(&tiny);
    (void)scrub_all();
    ck_assert_uint_gt(damages, 0);
    unsigned unreadable = count_unreadable();
    ck_assert_uint_gt(unreadable, 0);
    ck_assert_uint_lt(unreadable, KEYS / 4);
    close_store();
    whole.salvage = &salvage;
    refused(device, &whole, -EOPNOTSUPP, "cannot be repaired");
    whole.read_only = true;
    damages = 0;
    open_store(&whole);
    ck_assert_uint_gt(damages, 0);
    (void)count_unreadable();
    ck_assert_int_eq(store_scan(session, pass_over, &lost), 0);
    close_store();
    open_store(&tiny);
}
END_TEST

/* ---- room ---------------------------------------------------------------------------------------------------- */

START_TEST(without_room_in_the_cold_level_what_is_live_stays_in_the_log)
{
    struct device_space space;

    for (int i = 0; i < KEYS; i++)
        upsert_one(i);
    make_cold();
    ck_assert_int_eq(device_space(cold_device, &space), 0);
    device_memory_limit(cold_device, space.total_bytes - space.free_bytes);
    for (int n = 0; n < 40000; n++)
        step_or_more();
    expect_all(&now, NULL);
    crash_committed();
    expect_all(&now, NULL);
    device_memory_limit(cold_device, UINT64_C(1) << 40);
    uint64_t before = migrated();
    make_cold();
    ck_assert_uint_gt(migrated(), before);
    expect_all(&now, NULL);
}
END_TEST

/* A record that is too large for a unit of the cold level, which has less memory, stays in the log. */
START_TEST(a_record_too_large_for_the_cold_level_stays_in_the_log)
{
    static uint8_t value[2 << 20], got[2 << 20];
    struct store_options large = {.memory_bytes = 96 << 20, .no_background = true};
    uint32_t len;

    begin_anew();
    large.cold = cold_device;
    open_store(&large);
    memset(value, 7, sizeof value);
    for (uint32_t k = 0; k < 40; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, k == 3 ? sizeof value : 1 << 20), 0);
    ck_assert_int_eq(store_commit(store), 0);
    for (int round = 0; round < 3; round++) {
        for (uint32_t k = 40; k < 120; k++)
            ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, 1 << 20), 0);
        ck_assert_int_eq(store_commit(store), 0);
        ck_assert_int_eq(store_compact(store, UINT64_MAX), 0);
    }
    ck_assert_uint_gt(migrated(), 0);
    for (uint32_t k = 0; k < 40; k++) {
        ck_assert_int_eq(store_get(session, &k, sizeof k, got, sizeof got, &len), STORE_OK);
        ck_assert_uint_eq(len, k == 3 ? sizeof value : 1 << 20);
        ck_assert_mem_eq(got, value, len);
    }
}
END_TEST

/* ---- opening ------------------------------------------------------------------------------------------------- */

START_TEST(a_store_is_opened_with_its_own_cold_level_only)
{
    struct store_options without = tiny, read_only = tiny, small = tiny, other = tiny;
    struct device *empty, *another, *another_cold;
    struct store_opened opened;
    struct store *second;

    for (int i = 0; i < 1000; i++)
        upsert_one(i);
    make_cold();
    close_store();
    without.cold = NULL;
    refused(device, &without, -EINVAL, "has a cold level");
    ck_assert_int_eq(device_memory_open(&empty), 0);
    other.cold = empty;
    refused(device, &other, -EUCLEAN, "missing");
    small.memory_bytes = 1 << 20;
    refused(device, &small, -EINVAL, "2M");
    ck_assert_int_eq(device_memory_open(&another), 0);
    ck_assert_int_eq(device_memory_open(&another_cold), 0);
    refused(another, &tiny, -EINVAL, "cold level of another store"); /* there are records in it */
    other.cold = another_cold;
    ck_assert_int_eq(store_open(another, &other, &second, &opened), 0);
    ck_assert_int_eq(store_close(second), 0);
    refused(device, &other, -EINVAL, "cold level of another store");
    refused(cold_device, &without, -EINVAL, "open that one");
    read_only.read_only = true;
    open_store(&read_only);
    expect_all(&now, NULL);
    close_store();
    open_store(&tiny);
    expect_all(&now, NULL);
    device_close(empty);
    device_close(another);
    device_close(another_cold);
}
END_TEST

START_TEST(a_store_that_had_none_gets_one)
{
    struct store_options without = tiny;

    begin_anew();
    without.cold = NULL;
    open_store(&without);
    for (int i = 0; i < KEYS; i++)
        upsert_one(i);
    close_store();
    open_store(&tiny);
    make_cold();
    ck_assert_uint_gt(migrated(), KEYS / 2);
    expect_all(&now, NULL);
    crash_committed();
    expect_all(&now, NULL);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("cold store");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, every_operation_gives_what_it_gives_without);
    tcase_add_test(tests, what_is_cold_is_changed_as_anything);
    tcase_add_test(tests, a_change_sees_what_was_moved_while_it_waited_for_the_cold_level);
    tcase_add_test(tests, a_crash_leaves_what_was_committed);
    tcase_add_test(tests, a_crash_in_a_round_of_compaction_leaves_what_was_committed);
    tcase_add_test(tests, a_deleted_key_does_not_come_back_from_the_cold_level);
    tcase_add_test(tests, a_snapshot_is_one_moment_of_both_levels);
    tcase_add_test(tests, a_snapshot_from_before_the_cold_level_stays_as_it_was);
    tcase_add_test(tests, a_snapshot_of_the_cold_level_alone_is_dropped);
    tcase_add_test(tests, iteration_shows_each_key_once_whichever_level_has_it);
    tcase_add_test(tests, damage_in_the_cold_level_is_told_and_never_read);
    tcase_add_test(tests, without_room_in_the_cold_level_what_is_live_stays_in_the_log);
    tcase_add_test(tests, a_record_too_large_for_the_cold_level_stays_in_the_log);
    tcase_add_test(tests, a_store_is_opened_with_its_own_cold_level_only);
    tcase_add_test(tests, a_store_that_had_none_gets_one);
    return suite_run_case("cold store", tests);
}
