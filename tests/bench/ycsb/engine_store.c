// SPDX-License-Identifier: MIT
/*
 * Our own store: no value that it returns is torn. What does not fit in memory is read with store_read() or
 * changed with store_rmw_start(), and store_complete_pending().
 */
#include "engines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <store/store.h>
#include <string.h>

struct db {
    struct ycsb_config config;
    struct device *device;
    struct store *store;
};

struct slot {
    struct store_read read;
    struct store_rmw_op rmw;
    uint8_t *key, *value;
    const int *result; /* of the read or rmw that was started and not looked at yet, or NULL */
};

struct session {
    struct db *db;
    struct store_session *store;
    uint32_t key_len, value_len;
    struct slot *slots; /* config.depth of them, used in turn */
    unsigned next;
    uint8_t *memory; /* of the slots' keys and values */
};

static int db_open(const struct ycsb_config *config, void **ret_db)
{
    struct db *db = calloc(1, sizeof *db);
    struct device_options device_options = {.create = true};
    struct store_options options = {.memory_bytes = config->memory_bytes};
    struct store_opened opened = {0};

    if (!db)
        return -ENOMEM;
    db->config = *config;
    int rc = device_open(config->dir, &device_options, &db->device);
    if (rc == 0)
        rc = store_open(db->device, &options, &db->store, &opened);
    if (rc < 0) {
        fprintf(stderr, "ycsb: %s: %s\n", config->dir, opened.message);
        device_close(db->device);
        free(db);
        return rc;
    }
    *ret_db = db;
    return 0;
}

static int db_close(void *handle)
{
    struct db *db = handle;
    int rc = store_close(db->store);

    device_close(db->device);
    free(db);
    return rc;
}

static void session_close(void *handle)
{
    struct session *s = handle;

    store_session_close(s->store);
    free(s->slots);
    free(s->memory);
    free(s);
}

static int session_open(void *handle, void **ret_session)
{
    struct db *db = handle;
    struct session *s = calloc(1, sizeof *s);
    uint32_t stride = (db->config.key_len + db->config.value_len + 63) & ~63u;

    if (!s)
        return -ENOMEM;
    *s = (struct session){.db = db, .key_len = db->config.key_len, .value_len = db->config.value_len};
    s->slots = calloc(db->config.depth, sizeof *s->slots);
    s->memory = calloc(db->config.depth, stride);
    int rc = s->slots && s->memory ? store_session_open(db->store, &s->store) : -ENOMEM;
    if (rc < 0) {
        session_close(s);
        return rc;
    }
    for (unsigned i = 0; i < db->config.depth; i++) {
        s->slots[i].value = s->memory + (size_t)i * stride;
        s->slots[i].key = s->slots[i].value + s->value_len;
    }
    *ret_session = s;
    return 0;
}

static int one_read(void *handle, const void *key, void *value)
{
    struct session *s = handle;
    uint32_t len;

    return store_get(s->store, key, s->key_len, value, s->value_len, &len);
}

static int one_upsert(void *handle, const void *key, const void *value)
{
    struct session *s = handle;

    return store_upsert(s->store, key, s->key_len, value, s->value_len);
}

static uint32_t add_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)ctx;
    (void)capacity;
    return old ? old_len : 8;
}

static void add_write(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    uint64_t number = 0;

    (void)ctx;
    (void)new_len;
    if (old) {
        memcpy(&number, old, 8);
        if (old != value)
            memcpy(value, old, old_len);
    }
    number++;
    memcpy(value, &number, 8);
}

static const struct store_rmw ADD = {add_size, add_write};

static int one_rmw(void *handle, const void *key)
{
    struct session *s = handle;

    return store_rmw(s->store, key, s->key_len, &ADD, NULL);
}

static int one_remove(void *handle, const void *key)
{
    struct session *s = handle;

    return store_delete(s->store, key, s->key_len);
}

static int batch(void *handle, const void *keys, void *values, unsigned count, unsigned *ret_found)
{
    struct session *s = handle;
    struct store_read reads[64];
    int rc = 0;

    if (count > 64)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        reads[i] = (struct store_read){.key = (const uint8_t *)keys + (size_t)i * s->key_len,
                                       .key_len = s->key_len,
                                       .buf = (uint8_t *)values + (size_t)i * s->value_len,
                                       .buf_len = s->value_len,
                                       .value_hint = s->value_len};
    if (store_read_batch(s->store, reads, count) > 0)
        store_complete_pending(s->store, true);
    *ret_found = 0;
    for (unsigned i = 0; i < count; i++) {
        *ret_found += reads[i].result == STORE_OK;
        if (reads[i].result < 0)
            rc = reads[i].result;
    }
    return rc;
}

/* Waits for what the slot holds; 0 or -errno. */
static int take_result(struct session *s, struct slot *slot, uint64_t *found)
{
    if (!slot->result)
        return 0;
    while (*slot->result == STORE_PENDING)
        store_complete_pending(s->store, false);
    int result = *slot->result;
    slot->result = NULL;
    *found += result == STORE_OK;
    return result < 0 ? result : 0;
}

/* The oldest slot, free and with the key in it. */
static int claim(struct session *s, const void *key, uint64_t *found, struct slot **ret_slot)
{
    struct slot *slot = *ret_slot = &s->slots[s->next];

    s->next = s->next + 1 == s->db->config.depth ? 0 : s->next + 1;
    int rc = take_result(s, slot, found);
    memcpy(slot->key, key, s->key_len);
    return rc;
}

static int start_read(void *handle, const void *key, uint64_t *found)
{
    struct session *s = handle;
    struct slot *slot;
    int rc = claim(s, key, found, &slot);

    if (rc < 0)
        return rc;
    slot->read = (struct store_read){.key = slot->key,
                                     .key_len = s->key_len,
                                     .buf = slot->value,
                                     .buf_len = s->value_len,
                                     .value_hint = s->value_len};
    slot->result = &slot->read.result;
    return store_read(s->store, &slot->read) == STORE_PENDING ? 0 : take_result(s, slot, found);
}

static int start_rmw(void *handle, const void *key, uint64_t *found)
{
    struct session *s = handle;
    struct slot *slot;
    int rc = claim(s, key, found, &slot);

    if (rc < 0)
        return rc;
    slot->rmw = (struct store_rmw_op){.key = slot->key, .key_len = s->key_len, .value_hint = s->value_len, .rmw = &ADD};
    slot->result = &slot->rmw.result;
    return store_rmw_start(s->store, &slot->rmw) == STORE_PENDING ? 0 : take_result(s, slot, found);
}

static int finish(void *handle, uint64_t *found)
{
    struct session *s = handle;
    int rc = 0;

    store_complete_pending(s->store, true);
    for (unsigned i = 0; i < s->db->config.depth; i++) {
        int result = take_result(s, &s->slots[i], found);
        rc = result < 0 ? result : rc;
    }
    return rc;
}

static int db_commit(void *handle)
{
    return store_commit(((struct db *)handle)->store);
}

static int db_checkpoint(void *handle)
{
    return store_checkpoint(((struct db *)handle)->store);
}

const struct ycsb_engine ENGINE_STORE = {
    .version = YCSB_ENGINE_VERSION,
    .name = "store",
    .about = "memory_bytes as given, all else by default; checksums on the device; no value is ever torn",
    .bounded = true,
    .open = db_open,
    .close = db_close,
    .session_open = session_open,
    .session_close = session_close,
    .read = one_read,
    .upsert = one_upsert,
    .rmw = one_rmw,
    .remove = one_remove,
    .read_batch = batch,
    .start_read = start_read,
    .start_rmw = start_rmw,
    .finish = finish,
    .commit = db_commit,
    .checkpoint = db_checkpoint,
};
