// SPDX-License-Identifier: MIT
/*
 * A store beside a plain table of what it should hold: operations by seed on both, and the comparison. With a ring of
 * 256 KiB, so that every operation meets every region. With MODEL_COLD the store has a cold level.
 */
#ifndef TESTS_STORE_MODEL_H
#define TESTS_STORE_MODEL_H

#include <check.h>
#include <device/memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <store/store.h>
#include <string.h>
#include <suite.h>
#include <time.h>

#define KEYS 3000
#define VALUE_MAX 9000

static uint64_t seed;

static inline uint64_t dice(uint64_t sides)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (seed >> 33) % sides;
}

static inline void sow(void)
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

#ifdef MODEL_COLD
static struct device *cold_device;
#define MODEL_MEMORY (2 << 20)
#else
#define MODEL_MEMORY (1 << 20)
#endif

static struct store_options tiny = {
    .memory_bytes = MODEL_MEMORY, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

static inline void open_store(const struct store_options *options)
{
    struct store_opened opened;
    int rc = store_open(device, options, &store, &opened);

    ck_assert_msg(rc == 0, "%d %s", rc, opened.message);
    ck_assert_int_eq(store_session_open(store, &session), 0);
}

static inline void close_store(void)
{
    store_session_close(session);
    ck_assert_int_eq(store_close(store), 0);
}

static inline void crash(void)
{
    store_session_close(session);
    store_abandon(store);
    device_memory_crash(device);
#ifdef MODEL_COLD
    device_memory_crash(cold_device);
#endif
    now = durable;
}

static inline void setup(void)
{
    sow();
    tiny.no_read_cache = dice(2);
    tiny.memory_bytes = dice(2) ? MODEL_MEMORY : 16 << 20; /* the larger one has windows (window.h) */
    ck_assert_int_eq(device_memory_open(&device), 0);
#ifdef MODEL_COLD
    ck_assert_int_eq(device_memory_open(&cold_device), 0);
    tiny.cold = cold_device;
#endif
    for (int i = 0; i < KEYS; i++)
        now.len[i] = UINT32_MAX;
    durable = now;
    open_store(&tiny);
}

static inline void teardown(void)
{
    close_store();
    device_close(device);
#ifdef MODEL_COLD
    device_close(cold_device);
#endif
}

static inline uint32_t make_key(char *key, int i)
{
    return (uint32_t)sprintf(key, "key-%d-%.*s", i, i % 40, "----------------------------------------");
}

static inline uint8_t byte_of(int i, uint64_t stamp, uint32_t at)
{
    return (uint8_t)((uint64_t)i * 31 + stamp * 7 + at);
}

static inline void fill(uint8_t *value, int i, uint64_t stamp, uint32_t len)
{
    for (uint32_t at = 0; at < len; at++)
        value[at] = byte_of(i, stamp, at);
}

static inline void expect(const struct model *model, const struct store_snapshot *snapshot, int i)
{
    char key[64];
    static uint8_t got[VALUE_MAX], want[VALUE_MAX];
    struct store_read read = {.key = key,
                              .key_len = make_key(key, i),
                              .buf = got,
                              .buf_len = sizeof got,
                              .value_hint = (uint32_t)dice(3000),
                              .nearby = dice(2),
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

static inline void expect_all(const struct model *model, const struct store_snapshot *snapshot)
{
    for (int i = 0; i < KEYS; i++)
        expect(model, snapshot, i);
}

static inline uint32_t some_len(void)
{
    return (uint32_t)(dice(10) == 0 ? dice(VALUE_MAX) : dice(200));
}

static inline void upsert_one(int i)
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

static inline void delete_one(int i)
{
    char key[64];

    ck_assert_int_eq(store_delete(session, key, make_key(key, i)), 0);
    now.len[i] = UINT32_MAX;
}

/* Cuts or extends the value through the ready patch. */
static inline void patch_one(int i)
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

static inline void unit_of_many(void)
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

static inline void step(void)
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

/* ---- crashes and damage ------------------------------------------------------------------------------- */

/*
 * Again and again: changes, a commit or a checkpoint, `after_it` (or NULL), changes that are lost, a crash. What was
 * committed is there.
 */
static inline void crash_often(void (*change)(void), void (*after_it)(void))
{
    for (int round = 0; round < 30; round++) {
        for (uint64_t n = dice(3000); n > 0; n--)
            change();
        ck_assert_int_eq(dice(4) == 0 ? store_checkpoint(store) : store_commit(store), 0);
        durable = now;
        if (after_it)
            after_it();
        for (uint64_t n = dice(2000); n > 0; n--)
            step();
        crash();
        open_store(&tiny);
        expect_all(&now, NULL);
    }
}

static inline int damage_index(void *ctx, const char *name)
{
    if (strncmp(name, "index.", 6) == 0) {
        ck_assert_int_eq(device_memory_flip(device, name, 4096 + dice(4096), (unsigned)dice(8)), 0);
        ++*(unsigned *)ctx;
    }
    return 0;
}

/* Flips a bit of every index image. */
static inline void damage_indexes(void)
{
    unsigned damaged = 0;

    ck_assert_int_eq(device_list(device, damage_index, &damaged), 0);
    ck_assert_uint_ge(damaged, 1);
}

#endif
