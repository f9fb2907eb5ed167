// SPDX-License-Identifier: MIT
/*
 * LevelDB with its log, which it cannot do without, and without syncs. Values are versions, so no reader
 * sees a torn one; for read-modify-write writers of one key take turns by a mutex here. It reads through
 * the page cache, which no option of its own limits.
 */
#include "engines.h"
#include "stripes.h"

#include <errno.h>
#include <leveldb/c.h>
#include <stdio.h>
#include <stdlib.h>

struct db {
    struct ycsb_config config;
    leveldb_t *level;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
    leveldb_writeoptions_t *write, *write_synced;
    leveldb_readoptions_t *read;
    struct stripes stripes;
};

struct session {
    struct db *db;
    uint8_t *scratch;
};

static int error(char *message)
{
    if (!message)
        return 0;
    fprintf(stderr, "ycsb: leveldb: %s\n", message);
    leveldb_free(message);
    return -EIO;
}

static int db_open(const struct ycsb_config *config, void **ret_db)
{
    struct db *db = calloc(1, sizeof *db);
    char *message = NULL;

    if (!db)
        return -ENOMEM;
    db->config = *config;
    stripes_init(&db->stripes);
    db->options = leveldb_options_create();
    db->cache = leveldb_cache_create_lru(config->memory_bytes);
    db->filter = leveldb_filterpolicy_create_bloom(10);
    leveldb_options_set_create_if_missing(db->options, 1);
    leveldb_options_set_compression(db->options, leveldb_no_compression);
    leveldb_options_set_write_buffer_size(db->options, 64u << 20);
    leveldb_options_set_max_open_files(db->options, 10000);
    leveldb_options_set_cache(db->options, db->cache);
    leveldb_options_set_filter_policy(db->options, db->filter);
    db->write = leveldb_writeoptions_create();
    db->write_synced = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(db->write_synced, 1);
    db->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(db->read, 1);
    db->level = leveldb_open(db->options, config->dir, &message);
    *ret_db = db;
    return error(message);
}

static int db_close(void *handle)
{
    struct db *db = handle;

    leveldb_close(db->level);
    leveldb_options_destroy(db->options);
    leveldb_cache_destroy(db->cache);
    leveldb_filterpolicy_destroy(db->filter);
    leveldb_writeoptions_destroy(db->write);
    leveldb_writeoptions_destroy(db->write_synced);
    leveldb_readoptions_destroy(db->read);
    free(db);
    return 0;
}

static int session_open(void *handle, void **ret_session)
{
    struct session *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->db = handle;
    s->scratch = malloc(s->db->config.value_len);
    *ret_session = s;
    return 0;
}

static void session_close(void *handle)
{
    struct session *s = handle;

    free(s->scratch);
    free(s);
}

static int one_read(void *handle, const void *key, void *value)
{
    struct db *db = ((struct session *)handle)->db;
    char *message = NULL;
    size_t len;
    char *bytes = leveldb_get(db->level, db->read, key, db->config.key_len, &len, &message);

    if (!bytes)
        return message ? error(message) : YCSB_NOT_FOUND;
    memcpy(value, bytes, len);
    leveldb_free(bytes);
    return 0;
}

static int put(struct db *db, const leveldb_writeoptions_t *how, const void *key, const void *value)
{
    char *message = NULL;

    leveldb_put(db->level, how, key, db->config.key_len, value, db->config.value_len, &message);
    return error(message);
}

static int one_upsert(void *handle, const void *key, const void *value)
{
    struct db *db = ((struct session *)handle)->db;
    pthread_mutex_t *lock = stripes_lock(&db->stripes, key);
    int rc = put(db, db->write, key, value);

    pthread_mutex_unlock(lock);
    return rc;
}

static int one_rmw(void *handle, const void *key)
{
    struct session *s = handle;
    pthread_mutex_t *lock = stripes_lock(&s->db->stripes, key);
    uint64_t number = 0;
    int rc = one_read(s, key, s->scratch);

    if (rc == YCSB_FOUND) {
        memcpy(&number, s->scratch, 8);
        number++;
        memcpy(s->scratch, &number, 8);
        rc = put(s->db, s->db->write, key, s->scratch);
    }
    pthread_mutex_unlock(lock);
    return rc;
}

static int one_remove(void *handle, const void *key)
{
    struct db *db = ((struct session *)handle)->db;
    char *message = NULL;
    pthread_mutex_t *lock = stripes_lock(&db->stripes, key);

    leveldb_delete(db->level, db->write, key, db->config.key_len, &message);
    pthread_mutex_unlock(lock);
    return error(message);
}

/* A synced write takes all before it along in the log; the key is longer than any of the benchmark's. */
static int db_commit(void *handle)
{
    static const char KEY[] = "a key that no workload has, for a synced write";
    struct db *db = handle;
    char *message = NULL;

    leveldb_put(db->level, db->write_synced, KEY, sizeof KEY, "", 0, &message);
    return error(message);
}

const struct ycsb_engine ENGINE_LEVELDB = {
    .version = YCSB_ENGINE_VERSION,
    .name = "leveldb",
    .about = "its log unsynced, no compression, Bloom filters, block cache of the budget; versions, never torn",
    .open = db_open,
    .close = db_close,
    .session_open = session_open,
    .session_close = session_close,
    .read = one_read,
    .upsert = one_upsert,
    .rmw = one_rmw,
    .remove = one_remove,
    .commit = db_commit,
    .checkpoint = db_commit,
};
