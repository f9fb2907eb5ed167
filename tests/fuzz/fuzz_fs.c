// SPDX-License-Identifier: MIT
/*
 * The records of a filesystem: they are edited through the store, and then all that a daemon does is done.
 * what: 0 to 3 bytes of the value of key n, 4 its length, 5 it goes, 6 it gets the value of another key, 7 a new key: its
 * kind and numbers, with the value of key n.
 */
#include "edit.h"
#include "small.h"

#define KEYS_MAX 256
#define VALUE_ROOM 70000

static struct image clean;
static struct key {
    uint8_t bytes[300];
    uint32_t len;
} keys[KEYS_MAX];
static unsigned key_count;

static int note_key(void *ctx, const struct store_item *item)
{
    (void)ctx;
    if (key_count < KEYS_MAX && item->key_len <= sizeof keys[0].bytes) {
        memcpy(keys[key_count].bytes, item->key, item->key_len);
        keys[key_count++].len = item->key_len;
    }
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct key));
}

static void apply(struct store_session *s, const struct edit *edit)
{
    static uint8_t value[VALUE_ROOM];
    struct key key = keys[edit->n % key_count];
    const struct key *other = &keys[edit->value % key_count];
    uint32_t len = 0;
    int rc = store_get(s, key.bytes, key.len, value, sizeof value, &len);

    len = rc == STORE_OK ? len : 0;
    switch (edit->what % 8) {
    case 4:
        memset(value + len, (int)edit->value, sizeof value - len);
        len = edit->how % 2 ? edit->at : len + edit->at % 64;
        break;
    case 5:
        rc = store_delete(s, key.bytes, key.len);
        return;
    case 6:
        rc = store_get(s, other->bytes, other->len, value, sizeof value, &len);
        len = rc == STORE_OK ? len : 0;
        break;
    case 7:
        key.bytes[0] = (uint8_t)"SNIDEGHCXYO"[edit->how % 11];
        key.bytes[1] = (uint8_t)edit->at;
        memset(key.bytes + 2, 0, 7);
        memcpy(key.bytes + 9, &edit->value, 8);
        key.len = strchr("NIXO", key.bytes[0]) ? 9 : 17;
        break;
    default:
        edit_bytes(edit, value, len, edit->at);
    }
    rc = store_upsert(s, key.bytes, key.len, value, len);
    (void)rc;
}

static void open_store(struct device *device, struct store **ret_store, struct store_session **ret_session)
{
    struct store_opened opened;

    small_must(store_open(device, &use_tiny, ret_store, &opened) == 0 &&
               store_session_open(*ret_store, ret_session) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct store *store;
    struct store_session *s;
    struct edit edit;

    if (clean.count == 0)
        small_make(&clean);
    struct device *device = image_put(&clean);
    open_store(device, &store, &s);
    if (key_count == 0) {
        small_must(store_scan(s, note_key, NULL) == 0);
        qsort(keys, key_count, sizeof keys[0], by_bytes);
    }
    for (unsigned i = 0; i < EDITS_MAX && edit_next(&data, &len, &edit); i++)
        apply(s, &edit);
    small_must(store_commit(store) == 0);
    store_session_close(s);
    store_abandon(store);
    (void)use_fs(device);
    device_close(device);
    return 0;
}
