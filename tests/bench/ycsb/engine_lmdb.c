// SPDX-License-Identifier: MIT
/*
 * LMDB without syncs, through a writable map. A reader sees one snapshot of the whole tree, so no value is
 * torn; writers take turns. Its memory is the page cache, which no option of its own limits.
 */
#include "engines.h"

#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

struct db {
    struct ycsb_config config;
    MDB_env *env;
    MDB_dbi dbi;
};

struct session {
    struct db *db;
    MDB_txn *reader;
    uint8_t *scratch;
};

static int error(int rc)
{
    return rc == MDB_NOTFOUND ? YCSB_NOT_FOUND : rc > 0 ? -rc : rc < 0 ? -EIO : 0;
}

static int db_open(const struct ycsb_config *config, void **ret_db)
{
    struct db *db = calloc(1, sizeof *db);
    uint64_t record = config->key_len + config->value_len + 64;
    MDB_txn *txn;

    if (!db)
        return -ENOMEM;
    db->config = *config;
    int rc = mdb_env_create(&db->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(db->env, (record * 2 + 8192 * (config->value_len > 2000)) * config->keys + (1u << 30));
    if (rc == 0)
        rc = mdb_env_open(db->env, config->dir, MDB_NOSYNC | MDB_NOMETASYNC | MDB_WRITEMAP | MDB_NORDAHEAD, 0644);
    if (rc == 0)
        rc = mdb_txn_begin(db->env, NULL, 0, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &db->dbi);
        rc = rc == 0 ? mdb_txn_commit(txn) : rc;
    }
    if (rc == 0)
        *ret_db = db;
    return error(rc);
}

static int db_close(void *handle)
{
    struct db *db = handle;
    int rc = mdb_env_sync(db->env, 1);

    mdb_env_close(db->env);
    free(db);
    return error(rc);
}

static int session_open(void *handle, void **ret_session)
{
    struct session *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    s->db = handle;
    s->scratch = malloc(s->db->config.value_len);
    int rc = mdb_txn_begin(s->db->env, NULL, MDB_RDONLY, &s->reader);
    if (rc == 0) {
        mdb_txn_reset(s->reader);
        *ret_session = s;
    }
    return error(rc);
}

static void session_close(void *handle)
{
    struct session *s = handle;

    mdb_txn_abort(s->reader);
    free(s->scratch);
    free(s);
}

static int one_read(void *handle, const void *key, void *value)
{
    struct session *s = handle;
    MDB_val k = {s->db->config.key_len, (void *)key}, v;
    int rc = mdb_txn_renew(s->reader);

    if (rc == 0) {
        rc = mdb_get(s->reader, s->db->dbi, &k, &v);
        if (rc == 0)
            memcpy(value, v.mv_data, v.mv_size);
        mdb_txn_reset(s->reader);
    }
    return error(rc);
}

static int read_many(void *handle, const void *keys, void *values, unsigned count, unsigned *ret_found)
{
    struct session *s = handle;
    uint32_t key_len = s->db->config.key_len, value_len = s->db->config.value_len;
    int rc = mdb_txn_renew(s->reader);

    *ret_found = 0;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        MDB_val k = {key_len, (uint8_t *)keys + (size_t)i * key_len}, v;
        rc = mdb_get(s->reader, s->db->dbi, &k, &v);
        if (rc == 0) {
            memcpy((uint8_t *)values + (size_t)i * value_len, v.mv_data, v.mv_size);
            ++*ret_found;
        }
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    mdb_txn_reset(s->reader);
    return error(rc);
}

static int one_upsert(void *handle, const void *key, const void *value)
{
    struct session *s = handle;
    MDB_val k = {s->db->config.key_len, (void *)key}, v = {s->db->config.value_len, (void *)value};
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);

    if (rc != 0)
        return error(rc);
    rc = mdb_put(txn, s->db->dbi, &k, &v, 0);
    if (rc == 0)
        return error(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return error(rc);
}

static int one_rmw(void *handle, const void *key)
{
    struct session *s = handle;
    MDB_val k = {s->db->config.key_len, (void *)key}, v;
    uint64_t number = 0;
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);

    if (rc != 0)
        return error(rc);
    rc = mdb_get(txn, s->db->dbi, &k, &v);
    if (rc == 0) {
        memcpy(s->scratch, v.mv_data, v.mv_size);
        memcpy(&number, s->scratch, 8);
        number++;
        memcpy(s->scratch, &number, 8);
        v.mv_data = s->scratch;
        rc = mdb_put(txn, s->db->dbi, &k, &v, 0);
    }
    if (rc == 0)
        return error(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return error(rc);
}

static int one_remove(void *handle, const void *key)
{
    struct session *s = handle;
    MDB_val k = {s->db->config.key_len, (void *)key};
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);

    if (rc != 0)
        return error(rc);
    rc = mdb_del(txn, s->db->dbi, &k, NULL);
    if (rc == 0)
        return error(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return error(rc);
}

static int db_commit(void *handle)
{
    return error(mdb_env_sync(((struct db *)handle)->env, 1));
}

const struct ycsb_engine ENGINE_LMDB = {
    .version = YCSB_ENGINE_VERSION,
    .name = "lmdb",
    .about = "NOSYNC, WRITEMAP, a transaction an operation; a reader sees one snapshot, never a torn value",
    .open = db_open,
    .close = db_close,
    .session_open = session_open,
    .session_close = session_close,
    .read = one_read,
    .upsert = one_upsert,
    .rmw = one_rmw,
    .remove = one_remove,
    .read_batch = read_many,
    .commit = db_commit,
    .checkpoint = db_commit,
};
