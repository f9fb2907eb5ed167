// SPDX-License-Identifier: MIT
/*
 * RocksDB without write-ahead log, without compression, with Bloom filters. Values are versions, so no
 * reader sees a torn one. Its own read-modify-write is not atomic: writers of one key take turns by a
 * mutex here. Larger than memory: direct I/O, so that the page cache does not add to the budget.
 */
#include "engines.h"
#include "stripes.h"

#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct db {
    struct ycsb_config config;
    rocksdb_t *rocks;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table;
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *write;
    rocksdb_readoptions_t *read;
    rocksdb_flushoptions_t *flush;
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
    fprintf(stderr, "ycsb: rocksdb: %s\n", message);
    rocksdb_free(message);
    return -EIO;
}

static int db_open(const struct ycsb_config *config, void **ret_db)
{
    struct db *db = calloc(1, sizeof *db);
    char *message = NULL;
    uint64_t buffer = config->memory_bytes / 8 < (64u << 20) ? config->memory_bytes / 8 : 64u << 20;

    if (!db)
        return -ENOMEM;
    db->config = *config;
    stripes_init(&db->stripes);
    db->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(db->options, 1);
    rocksdb_options_increase_parallelism(db->options, 2);
    rocksdb_options_set_compression(db->options, rocksdb_no_compression);
    rocksdb_options_set_write_buffer_size(db->options, buffer);
    rocksdb_options_set_use_direct_reads(db->options, !config->in_memory);
    rocksdb_options_set_use_direct_io_for_flush_and_compaction(db->options, !config->in_memory);
    db->cache = rocksdb_cache_create_lru(config->memory_bytes - 3 * buffer);
    db->table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(db->table, db->cache);
    rocksdb_block_based_options_set_filter_policy(db->table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(db->options, db->table);
    db->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(db->write, 1);
    db->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(db->read, 1);
    db->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(db->flush, 1);
    db->rocks = rocksdb_open(db->options, config->dir, &message);
    *ret_db = db;
    return error(message);
}

static int db_commit(void *handle)
{
    struct db *db = handle;
    char *message = NULL;

    rocksdb_flush(db->rocks, db->flush, &message);
    return error(message);
}

static uint64_t property(struct db *db, const char *name)
{
    uint64_t value = 0;

    return rocksdb_property_int(db->rocks, name, &value) == 0 ? value : 0;
}

static int db_settle(void *handle)
{
    struct db *db = handle;

    for (unsigned tenths = 0; tenths < 600; tenths++) {
        if (property(db, "rocksdb.compaction-pending") + property(db, "rocksdb.num-running-compactions") +
                property(db, "rocksdb.mem-table-flush-pending") + property(db, "rocksdb.num-running-flushes") ==
            0)
            return 0;
        usleep(100000);
    }
    return 0;
}

static int db_close(void *handle)
{
    struct db *db = handle;
    int rc = db_commit(db);

    rocksdb_close(db->rocks);
    rocksdb_options_destroy(db->options);
    rocksdb_block_based_options_destroy(db->table);
    rocksdb_cache_destroy(db->cache);
    rocksdb_writeoptions_destroy(db->write);
    rocksdb_readoptions_destroy(db->read);
    rocksdb_flushoptions_destroy(db->flush);
    free(db);
    return rc;
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
    rocksdb_pinnableslice_t *found = rocksdb_get_pinned(db->rocks, db->read, key, db->config.key_len, &message);

    if (!found)
        return message ? error(message) : YCSB_NOT_FOUND;
    size_t len;
    const char *bytes = rocksdb_pinnableslice_value(found, &len);
    memcpy(value, bytes, len);
    rocksdb_pinnableslice_destroy(found);
    return 0;
}

static int put(struct db *db, const void *key, const void *value)
{
    char *message = NULL;

    rocksdb_put(db->rocks, db->write, key, db->config.key_len, value, db->config.value_len, &message);
    return error(message);
}

static int one_upsert(void *handle, const void *key, const void *value)
{
    struct db *db = ((struct session *)handle)->db;
    pthread_mutex_t *lock = stripes_lock(&db->stripes, key);
    int rc = put(db, key, value);

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
        rc = put(s->db, key, s->scratch);
    }
    pthread_mutex_unlock(lock);
    return rc;
}

static int one_remove(void *handle, const void *key)
{
    struct db *db = ((struct session *)handle)->db;
    char *message = NULL;
    pthread_mutex_t *lock = stripes_lock(&db->stripes, key);

    rocksdb_delete(db->rocks, db->write, key, db->config.key_len, &message);
    pthread_mutex_unlock(lock);
    return error(message);
}

const struct ycsb_engine ENGINE_ROCKSDB = {
    .version = YCSB_ENGINE_VERSION,
    .name = "rocksdb",
    .about = "no WAL, no compression, Bloom filters, block cache of the budget; values are versions, never torn",
    .bounded = true,
    .open = db_open,
    .close = db_close,
    .session_open = session_open,
    .session_close = session_close,
    .read = one_read,
    .upsert = one_upsert,
    .rmw = one_rmw,
    .remove = one_remove,
    .settle = db_settle,
    .commit = db_commit,
    .checkpoint = db_commit,
};
