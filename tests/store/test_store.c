// SPDX-License-Identifier: MIT
/*
 * The store against a plain table, with a ring of 256 KiB so that every operation meets every region;
 * the same after a clean reopen and after a crash.
 */
#include <check.h>
#include <errno.h>
#include <device/memory.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <store/store.h>
#include <string.h>
#include <time.h>

#define KEYS 3000
#define VALUE_MAX 9000

static uint64_t seed;

static uint64_t dice(uint64_t sides)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (seed >> 33) % sides;
}

static void sow(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
}

struct model {
    uint32_t len[KEYS]; /* UINT32_MAX: absent */
    uint64_t stamp[KEYS];
};

static struct model now, durable;
static struct device *device;
static struct store *store;
static struct store_session *session;

static const struct store_options tiny = {
    .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

static void open_store(const struct store_options *options)
{
    struct store_opened opened;
    int rc = store_open(device, options, &store, &opened);

    ck_assert_msg(rc == 0, "%d %s", rc, opened.message);
    ck_assert_int_eq(store_session_open(store, &session), 0);
}

static void close_store(void)
{
    store_session_close(session);
    ck_assert_int_eq(store_close(store), 0);
}

static void crash(void)
{
    store_session_close(session);
    store_abandon(store);
    device_memory_crash(device);
    now = durable;
}

static void setup(void)
{
    sow();
    ck_assert_int_eq(device_memory_open(&device), 0);
    for (int i = 0; i < KEYS; i++)
        now.len[i] = UINT32_MAX;
    durable = now;
    open_store(&tiny);
}

static void teardown(void)
{
    close_store();
    device_close(device);
}

static uint32_t make_key(char *key, int i)
{
    return (uint32_t)sprintf(key, "key-%d-%.*s", i, i % 40, "----------------------------------------");
}

static uint8_t byte_of(int i, uint64_t stamp, uint32_t at)
{
    return (uint8_t)((uint64_t)i * 31 + stamp * 7 + at);
}

static void fill(uint8_t *value, int i, uint64_t stamp, uint32_t len)
{
    for (uint32_t at = 0; at < len; at++)
        value[at] = byte_of(i, stamp, at);
}

static void expect(const struct model *model, const struct store_snapshot *snapshot, int i)
{
    char key[64];
    static uint8_t got[VALUE_MAX], want[VALUE_MAX];
    struct store_read read = {.key = key,
                              .key_len = make_key(key, i),
                              .buf = got,
                              .buf_len = sizeof got,
                              .value_hint = (uint32_t)dice(3000),
                              .snapshot = snapshot};
    int rc = store_read_wait(session, &read);

    if (model->len[i] == UINT32_MAX) {
        ck_assert_msg(rc == STORE_NOT_FOUND, "key %d: %d, is not there", i, rc);
        return;
    }
    ck_assert_msg(rc == STORE_OK, "key %d: %d, is there", i, rc);
    ck_assert_uint_eq(read.value_len, model->len[i]);
    fill(want, i, model->stamp[i], model->len[i]);
    ck_assert_mem_eq(got, want, model->len[i]);
}

static void expect_all(const struct model *model, const struct store_snapshot *snapshot)
{
    for (int i = 0; i < KEYS; i++)
        expect(model, snapshot, i);
}

static uint32_t some_len(void)
{
    return (uint32_t)(dice(10) == 0 ? dice(VALUE_MAX) : dice(200));
}

static void upsert_one(int i)
{
    static uint8_t value[VALUE_MAX];
    char key[64];
    uint32_t len = some_len();
    uint64_t stamp = dice(1000);

    fill(value, i, stamp, len);
    ck_assert_int_eq(store_upsert(session, key, make_key(key, i), value, len), 0);
    now.len[i] = len;
    now.stamp[i] = stamp;
}

static void delete_one(int i)
{
    char key[64];

    ck_assert_int_eq(store_delete(session, key, make_key(key, i)), 0);
    now.len[i] = UINT32_MAX;
}

/* Cuts or extends the value through the ready patch. */
static void patch_one(int i)
{
    static uint8_t value[VALUE_MAX];
    char key[64];
    bool absent = now.len[i] == UINT32_MAX;
    uint32_t old = absent ? 0 : now.len[i];
    uint32_t len = some_len();
    if (absent)
        now.stamp[i] = dice(1000);
    fill(value, i, now.stamp[i], len);
    struct store_patch patch = {.cut = len, .capacity = (uint32_t)dice(100)};
    if (len > old) {
        patch.offset = old;
        patch.len = len - old;
        patch.bytes = value + old;
    }
    ck_assert_int_eq(store_rmw(session, key, make_key(key, i), &STORE_PATCH, &patch), 0);
    now.len[i] = len;
}

static void unit_of_many(void)
{
    static uint8_t values[8][300];
    char key[64];
    int first = (int)dice(KEYS - 8);

    store_unit_begin(session);
    for (int k = 0; k < 8; k++) {
        int i = first + k;
        uint32_t key_len = make_key(key, i), len = (uint32_t)dice(300);
        if (dice(4) == 0) {
            ck_assert_int_eq(store_unit_delete(session, key, key_len), 0);
            now.len[i] = UINT32_MAX;
            continue;
        }
        uint64_t stamp = dice(1000);
        fill(values[k], i, stamp, len);
        struct store_piece pieces[2] = {{values[k], len / 2}, {values[k] + len / 2, len - len / 2}};
        ck_assert_int_eq(store_unit_upsert(session, key, key_len, pieces, 2, (uint32_t)dice(400)), 0);
        now.len[i] = len;
        now.stamp[i] = stamp;
    }
    ck_assert_int_eq(store_unit_apply(session, 0), 0);
}

static void step(void)
{
    int i = (int)(dice(2) ? dice(KEYS) : dice(50));

    switch (dice(10)) {
    case 0:
        delete_one(i);
        break;
    case 1:
    case 2:
        patch_one(i);
        break;
    case 3:
        unit_of_many();
        break;
    case 4:
    case 5:
    case 6:
        expect(&now, NULL, i);
        break;
    default:
        upsert_one(i);
    }
}

START_TEST(every_operation_agrees_with_a_table_in_every_region)
{
    for (int n = 0; n < 60000; n++)
        step();
    expect_all(&now, NULL);
    close_store();
    open_store(&tiny);
    expect_all(&now, NULL);
}
END_TEST

START_TEST(a_crash_leaves_what_was_committed)
{
    for (int round = 0; round < 30; round++) {
        for (uint64_t n = dice(3000); n > 0; n--)
            step();
        if (dice(4) == 0)
            ck_assert_int_eq(store_checkpoint(store), 0);
        else
            ck_assert_int_eq(store_commit(store), 0);
        durable = now;
        for (uint64_t n = dice(2000); n > 0; n--)
            step();
        crash();
        open_store(&tiny);
        expect_all(&now, NULL);
    }
}
END_TEST

static int damage_index(void *ctx, const char *name)
{
    if (strncmp(name, "index.", 6) == 0) {
        ck_assert_int_eq(device_memory_flip(device, name, 4096 + dice(4096), (unsigned)dice(8)), 0);
        ++*(int *)ctx;
    }
    return 0;
}

START_TEST(a_damaged_index_checkpoint_is_rebuilt_from_the_log)
{
    struct store_opened opened;
    int damaged = 0;

    for (int n = 0; n < 8000; n++)
        step();
    close_store();
    ck_assert_int_eq(device_list(device, damage_index, &damaged), 0);
    ck_assert_int_ge(damaged, 1);
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), 0);
    ck_assert(opened.index_rebuilt);
    ck_assert_int_eq(store_session_open(store, &session), 0);
    expect_all(&now, NULL);
}
END_TEST

/* The teardown closes the store of the fixture: give it back one. */
static void open_another(void)
{
    device_close(device);
    ck_assert_int_eq(device_memory_open(&device), 0);
    open_store(&tiny);
}

START_TEST(damage_before_a_later_commit_is_told_and_not_taken_for_the_end)
{
    struct store_opened opened;

    for (int n = 0; n < 5; n++) {
        for (int i = 0; i < 20; i++)
            upsert_one(i);
        ck_assert_int_eq(store_commit(store), 0);
    }
    durable = now;
    crash();
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", 4096 + 40, (unsigned)dice(8)), 0);
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), -EUCLEAN);
    ck_assert_ptr_nonnull(strstr(opened.message, "damaged at address 4096"));
    open_another();
}
END_TEST

START_TEST(a_flipped_bit_is_an_error_for_its_key_and_harmless_to_the_others)
{
    static uint8_t value[200], got[200];
    uint32_t len;
    unsigned errors = 0;

    memset(value, 7, sizeof value);
    for (unsigned k = 0; k < 100; k++)
        ck_assert_int_eq(store_upsert(session, &k, sizeof k, value, sizeof value), 0);
    close_store();
    uint64_t at = 4096 + 240 * 50 + dice(32 + 8 + 200); /* in the 51st record: header, key, value */
    ck_assert_int_eq(device_memory_flip(device, "log.0000000000000000", at, (unsigned)dice(8)), 0);
    open_store(&tiny);
    for (unsigned k = 0; k < 100; k++) {
        int rc = store_get(session, &k, sizeof k, got, sizeof got, &len);
        errors += rc == -EIO;
        if (rc != -EIO) {
            ck_assert_int_eq(rc, STORE_OK);
            ck_assert_mem_eq(got, value, sizeof got);
        }
    }
    ck_assert_uint_eq(errors, 1);
}
END_TEST

START_TEST(a_snapshot_stays_as_it_was)
{
    static struct model then[3];
    struct store_snapshot *snapshot;
    uint64_t id[3];
    char label[16];

    for (int k = 0; k < 3; k++) {
        for (int n = 0; n < 5000; n++)
            step();
        sprintf(label, "s%d", k);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &id[k]), 0);
        ck_assert_int_lt(store_snapshot_create(store, label, 1, &id[k]), 0);
        then[k] = now;
    }
    for (int n = 0; n < 5000; n++)
        step();
    durable = then[2]; /* a snapshot is durable */
    crash();
    open_store(&tiny);
    expect_all(&now, NULL);
    for (int n = 0; n < 5000; n++)
        step();
    for (int k = 0; k < 3; k++) {
        ck_assert_int_eq(store_snapshot_open(store, id[k], &snapshot), 0);
        expect_all(&then[k], snapshot);
        ck_assert_int_lt(store_snapshot_delete(store, id[k]), 0);
        store_snapshot_close(snapshot);
        ck_assert_int_eq(store_snapshot_delete(store, id[k]), 0);
        ck_assert_int_lt(store_snapshot_open(store, id[k], &snapshot), 0);
    }
    expect_all(&now, NULL);
}
END_TEST

/* ---- threads: counters by rmw, pairs by unit, commits and snapshots meanwhile ------------------ */

#define THREADS 4
#define ROUNDS 4000

static uint32_t counter_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)old;
    (void)old_len;
    *capacity = 0;
    return *(const uint32_t *)ctx;
}

static void counter_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    uint64_t count = 0;

    (void)ctx;
    if (old)
        memcpy(&count, old, sizeof count);
    if (old != value && new_len > 8)
        memset((uint8_t *)value + 8, 0, new_len - 8);
    (void)old_len;
    count++;
    memcpy(value, &count, sizeof count);
}

static const struct store_rmw counter = {counter_size, counter_write};

static void *count_up(void *arg)
{
    struct store_session *s;
    uint64_t mine = (uint64_t)(uintptr_t)arg;
    uint8_t noise[700] = {0};

    ck_assert_int_eq(store_session_open(store, &s), 0);
    for (uint64_t n = 0; n < ROUNDS; n++) {
        char a[16], b[16];
        uint32_t len = 8 + (uint32_t)(n * 13 + mine) % 64;
        sprintf(a, "a%llu", (unsigned long long)(n % 7));
        sprintf(b, "b%llu", (unsigned long long)(n % 7));
        store_unit_begin(s);
        ck_assert_int_eq(store_unit_rmw(s, a, (uint32_t)strlen(a), &counter, &len), 0);
        ck_assert_int_eq(store_unit_rmw(s, b, (uint32_t)strlen(b), &counter, &len), 0);
        ck_assert_int_eq(store_unit_apply(s, 0), 0);
        char key[32];
        sprintf(key, "n%llu-%llu", (unsigned long long)mine, (unsigned long long)n);
        ck_assert_int_eq(store_upsert(s, key, (uint32_t)strlen(key), noise, (uint32_t)(n % sizeof noise)), 0);
        if (n % 500 == 0)
            ck_assert_int_eq(store_commit(store), 0);
    }
    store_session_close(s);
    return NULL;
}

static uint64_t counter_value(const char *kind, int i, const struct store_snapshot *snapshot)
{
    char key[16];
    uint64_t value = 0;
    struct store_read read = {.key = key, .buf = &value, .buf_len = 8, .snapshot = snapshot};

    read.key_len = (uint32_t)sprintf(key, "%s%d", kind, i);
    int rc = store_read_wait(session, &read);
    ck_assert_int_ge(rc, 0);
    return rc == STORE_OK ? value : 0;
}

static void *snap(void *arg)
{
    uint64_t *ids = arg;
    char label[16];

    for (int k = 0; k < 5; k++) {
        sprintf(label, "t%d", k);
        ck_assert_int_eq(store_snapshot_create(store, label, 1, &ids[k]), 0);
    }
    return NULL;
}

START_TEST(no_increment_is_lost_and_no_snapshot_splits_a_unit)
{
    pthread_t threads[THREADS], snapper;
    uint64_t ids[5];
    static const struct store_options with_worker = {
        .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .commit_interval_ms = 5};

    close_store();
    open_store(&with_worker);
    for (uintptr_t t = 0; t < THREADS; t++)
        pthread_create(&threads[t], NULL, count_up, (void *)t);
    pthread_create(&snapper, NULL, snap, ids);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    pthread_join(snapper, NULL);
    uint64_t sum = 0;
    for (int i = 0; i < 7; i++) {
        ck_assert_uint_eq(counter_value("a", i, NULL), counter_value("b", i, NULL));
        sum += counter_value("a", i, NULL);
    }
    ck_assert_uint_eq(sum, THREADS * ROUNDS);
    for (int k = 0; k < 5; k++) {
        struct store_snapshot *snapshot;
        ck_assert_int_eq(store_snapshot_open(store, ids[k], &snapshot), 0);
        for (int i = 0; i < 7; i++)
            ck_assert_uint_eq(counter_value("a", i, snapshot), counter_value("b", i, snapshot));
        store_snapshot_close(snapshot);
    }
    crash();
    open_store(&tiny);
    for (int i = 0; i < 7; i++)
        ck_assert_uint_eq(counter_value("a", i, NULL), counter_value("b", i, NULL));
}
END_TEST

START_TEST(a_directory_of_something_else_is_refused_untouched)
{
    struct device *other;
    struct store *none;
    struct store_opened opened;

    ck_assert_int_eq(device_memory_open(&other), 0);
    int file = device_file_open(other, "letter.txt", DEVICE_FILE_CREATE);
    ck_assert_int_ge(file, 0);
    device_file_close(other, file);
    ck_assert_int_eq(store_open(other, &tiny, &none, &opened), -ENOTEMPTY);
    ck_assert_int_gt((int)strlen(opened.message), 10);
    device_close(other);
}
END_TEST

START_TEST(keys_and_values_beyond_the_limits_are_refused)
{
    static uint8_t big[STORE_KEY_MAX + 1];
    struct store_limits limits = store_limits(store);
    uint8_t *value = calloc(1, limits.value_max + 1);
    uint32_t len;

    ck_assert_int_eq(store_upsert(session, big, 0, "x", 1), -EINVAL);
    ck_assert_int_eq(store_upsert(session, big, sizeof big, "x", 1), -EINVAL);
    ck_assert_int_eq(store_upsert(session, "k", 1, value, limits.value_max + 1), -EFBIG);
    ck_assert_int_eq(store_upsert(session, "k", 1, value, limits.value_max), 0);
    ck_assert_int_eq(store_upsert(session, big, STORE_KEY_MAX, "", 0), 0);
    ck_assert_int_eq(store_get(session, big, STORE_KEY_MAX, NULL, 0, &len), 0);
    ck_assert_uint_eq(len, 0);
    free(value);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *tests = tcase_create("store");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, every_operation_agrees_with_a_table_in_every_region);
    tcase_add_test(tests, a_crash_leaves_what_was_committed);
    tcase_add_test(tests, a_damaged_index_checkpoint_is_rebuilt_from_the_log);
    tcase_add_test(tests, damage_before_a_later_commit_is_told_and_not_taken_for_the_end);
    tcase_add_test(tests, a_flipped_bit_is_an_error_for_its_key_and_harmless_to_the_others);
    tcase_add_test(tests, a_snapshot_stays_as_it_was);
    tcase_add_test(tests, no_increment_is_lost_and_no_snapshot_splits_a_unit);
    tcase_add_test(tests, a_directory_of_something_else_is_refused_untouched);
    tcase_add_test(tests, keys_and_values_beyond_the_limits_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
