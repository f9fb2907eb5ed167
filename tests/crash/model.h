// SPDX-License-Identifier: MIT
/*
 * The store's model for the crash tests: what every key held after each unit, so that what a store
 * holds can be matched with a prefix of units. Every value is unlike every other, so a state matches one
 * prefix, or several that differ by nothing.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include "crash.h"
#include <store/store.h>

#define KEYS 40
#define VALUE_MAX 30000u
#define ABSENT UINT32_MAX

static const struct store_options tiny = {
    .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

struct version {
    unsigned unit; /* that made it; 0: nothing yet */
    uint32_t len;
    uint64_t hash;
};

struct model {
    struct version *versions[KEYS]; /* by unit, the first of unit 0 */
    unsigned count[KEYS], room[KEYS];
    uint8_t *value[KEYS]; /* what it holds now */
    unsigned units;       /* applied */
    uint64_t stamp;       /* makes values unlike each other; never goes back */
};

/* What a store or a snapshot holds. */
struct seen {
    struct version of[KEYS];
};

static struct model model;

static void model_push(unsigned key, struct version version)
{
    if (model.count[key] == model.room[key]) {
        model.room[key] = model.room[key] * 2 + 64;
        model.versions[key] = realloc(model.versions[key], model.room[key] * sizeof version);
    }
    model.versions[key][model.count[key]++] = version;
}

static void model_reset(void)
{
    for (unsigned key = 0; key < KEYS; key++) {
        model.count[key] = 0;
        model_push(key, (struct version){.len = ABSENT});
        if (!model.value[key])
            model.value[key] = malloc(VALUE_MAX);
    }
    model.units = 0;
    model.stamp = 0;
}

static inline void model_free(void)
{
    for (unsigned key = 0; key < KEYS; key++) {
        free(model.versions[key]);
        free(model.value[key]);
    }
}

static const struct version *model_now(unsigned key)
{
    return &model.versions[key][model.count[key] - 1];
}

static void model_set(unsigned key, uint32_t len)
{
    uint64_t hash = len == ABSENT ? 0 : hash_bytes(model.value[key], len);

    model_push(key, (struct version){.unit = model.units, .len = len, .hash = hash});
}

/* Takes back all units above `units`, which a kill has undone. Values themselves are left: the keys get
 * new ones before they are patched (see change_key). */
static bool model_stale[KEYS]; /* value[key] is not what the key holds */
static inline void model_rewind(unsigned units)
{
    for (unsigned key = 0; key < KEYS; key++) {
        while (model_now(key)->unit > units) {
            model.count[key]--;
            model_stale[key] = true;
        }
    }
    model.units = units;
}

static uint32_t make_key(unsigned key, char name[80])
{
    return (uint32_t)sprintf(name, "k%u%.*s", key, (int)(key * 7 % 64),
                             "----------------------------------------------------------------");
}

static inline void read_all(struct store_session *s, const struct store_snapshot *snapshot, struct seen *ret_seen)
{
    static uint8_t buf[VALUE_MAX];

    for (unsigned key = 0; key < KEYS; key++) {
        char name[80];
        struct store_read read = {.key = name, .buf = buf, .buf_len = sizeof buf, .snapshot = snapshot};
        read.key_len = make_key(key, name);
        int rc = store_read_wait(s, &read);
        if (rc < 0)
            give_up("key %u: %s", key, strerror(-rc));
        if (rc == STORE_OK && read.value_len > VALUE_MAX)
            give_up("key %u has %u bytes", key, read.value_len);
        ret_seen->of[key] = (struct version){.len = ABSENT};
        if (rc == STORE_OK)
            ret_seen->of[key] = (struct version){.len = read.value_len, .hash = hash_bytes(buf, read.value_len)};
    }
}

static bool same(const struct version *a, const struct version *b)
{
    return a->len == b->len && (a->len == ABSENT || a->hash == b->hash);
}

/* The last of [lo, hi] units after which the model is what was seen, or -1; *ret_key is one that tells why. */
static inline int match(const struct seen *seen, unsigned lo, unsigned hi, unsigned *ret_key)
{
    static bool wrong[65536];
    unsigned last_key = 0;

    memset(wrong, 0, hi - lo + 1);
    for (unsigned key = 0; key < KEYS; key++) {
        for (unsigned i = model.count[key]; i-- > 0;) {
            unsigned from = model.versions[key][i].unit;
            unsigned end = i + 1 < model.count[key] ? model.versions[key][i + 1].unit : hi + 1;
            if (end <= lo)
                break;
            if (same(&model.versions[key][i], &seen->of[key]))
                continue;
            for (unsigned unit = from > lo ? from : lo; unit < end && unit <= hi; unit++) {
                if (!wrong[unit - lo])
                    last_key = key;
                wrong[unit - lo] = true;
            }
        }
    }
    for (unsigned unit = hi + 1; unit-- > lo;) {
        if (!wrong[unit - lo])
            return (int)unit;
    }
    *ret_key = last_key;
    return -1;
}

/* ---- a unit of random changes ----------------------------------------------------------------------- */

static uint32_t some_len(void)
{
    switch (dice(16)) {
    case 0:
        return (uint32_t)dice(VALUE_MAX);
    case 1:
    case 2:
        return (uint32_t)dice(5000);
    case 3:
    case 4:
    case 5:
        return (uint32_t)dice(600);
    default:
        return (uint32_t)dice(60);
    }
}

static void stamp_bytes(uint8_t *at, uint32_t len)
{
    uint64_t word = mix(++model.stamp);

    for (uint32_t i = 0; i < len; i++) {
        if (i % 8 == 0)
            word = word * 5 + 1;
        at[i] = (uint8_t)(word >> i % 8 * 8);
    }
}

struct patches { /* of one unit; the store reads them until it is applied */
    struct store_patch patch[8];
    unsigned count;
};

/* Adds a change of the key to the open unit and to the model (whose unit is model.units). The value it
 * leaves is at least 8 bytes long or absent, so that no two are alike. */
static int change_key(struct store_session *s, unsigned key, struct patches *patches)
{
    char name[80];
    uint32_t name_len = make_key(key, name), len = some_len() + 8;
    uint32_t was = model_now(key)->len;

    len = len > VALUE_MAX ? VALUE_MAX : len;
    if (was != ABSENT && dice(6) == 0) {
        model_set(key, ABSENT);
        return store_unit_delete(s, name, name_len);
    }
    if (was != ABSENT && !model_stale[key] && dice(3) == 0) {
        struct store_patch *patch = &patches->patch[patches->count++];
        uint32_t offset = (uint32_t)dice(was), part = (uint32_t)dice(200) + 8;
        offset = offset + part > VALUE_MAX ? 0 : offset;
        uint32_t after = offset + part > was ? offset + part : was;
        stamp_bytes(model.value[key] + offset, part);
        *patch = (struct store_patch){.offset = offset,
                                      .len = part,
                                      .bytes = model.value[key] + offset,
                                      .cut = dice(3) == 0 ? offset + part : STORE_PATCH_KEEP,
                                      .capacity = (uint32_t)dice(400)};
        model_set(key, patch->cut == STORE_PATCH_KEEP ? after : patch->cut);
        return store_unit_rmw(s, name, name_len, &STORE_PATCH, patch);
    }
    stamp_bytes(model.value[key], len);
    model_stale[key] = false;
    model_set(key, len);
    struct store_piece pieces[2] = {{model.value[key], len / 3}, {model.value[key] + len / 3, len - len / 3}};
    return store_unit_upsert(s, name, name_len, pieces, 2, dice(4) == 0 ? len + (uint32_t)dice(300) : 0);
}

/* Applies a unit of one to five changes. On failure the model is as if it had not been. */
static int change_some(struct store_session *s)
{
    struct patches patches = {.count = 0};
    unsigned first = (unsigned)dice(KEYS), step = 1 + 2 * (unsigned)dice(3), changes = 1 + (unsigned)dice(5);
    int rc = 0;

    model.units++;
    store_unit_begin(s);
    for (unsigned i = 0; i < changes && rc == 0; i++)
        rc = change_key(s, (first + i * step) % KEYS, &patches);
    if (rc < 0)
        store_unit_abandon(s);
    else
        rc = store_unit_apply(s, 0);
    if (rc < 0)
        model_rewind(model.units - 1);
    return rc;
}

#endif
