// SPDX-License-Identifier: MIT
/*
 * engine: what the benchmark asks of a key-value store. One table of functions an engine.
 *
 * An engine from elsewhere is a shared library that exports
 *
 *     const struct ycsb_engine *ycsb_engine(void);
 *
 * and is given with --engine-library=PATH. Nothing of the benchmark is linked into it: this header is
 * all that it needs, from C or C++.
 *
 * Rules, so that all engines do the same work:
 *   1. read() copies the whole value into the caller's buffer. A value that was torn by a concurrent
 *      writer is never returned, whatever its length; `about` says how the engine sees to it.
 *   2. rmw() adds 1 to the first eight bytes (a number of the machine's byte order), keeps the rest, and
 *      is atomic against other writers.
 *   3. Nothing is synced but by commit(), checkpoint() and close().
 *   4. Every engine keeps to memory_bytes as its own options allow; `bounded` tells whether it then does.
 *
 * Threads: open, close, commit, checkpoint from any one thread; a session is opened, used and closed by
 * one thread. Each engine has a process of its own, so globals are allowed.
 * Returns: 0 done; 1 not found; negative -errno. Any negative result ends the cell.
 */
#ifndef YCSB_ENGINE_H
#define YCSB_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define YCSB_ENGINE_VERSION 1u

enum { YCSB_FOUND = 0, YCSB_NOT_FOUND = 1 };

struct ycsb_config {
    const char *dir;             /* an existing directory, the engine's alone; empty when `create` */
    bool create;                 /* else reopen what is there */
    bool in_memory;              /* memory_bytes is several times the data; else data is several times memory_bytes */
    uint64_t memory_bytes;       /* for log, index, caches and buffers together */
    uint64_t keys;               /* that will be loaded */
    uint32_t key_len, value_len; /* of every key and value; value_len >= 8 */
    unsigned depth;              /* reads that a session keeps in flight where the engine can */
};

struct ycsb_engine {
    uint32_t version;  /* YCSB_ENGINE_VERSION */
    const char *name;  /* one word */
    const char *about; /* one line: configuration, and what a reader beside a writer is guaranteed */
    bool bounded;      /* keeps to memory_bytes when data is larger; if not, it is left out of those cells */

    int (*open)(const struct ycsb_config *config, void **ret_db);
    /* Leaves behind what open() without `create` can reopen. Sessions are closed. */
    int (*close)(void *db);
    int (*session_open)(void *db, void **ret_session);
    void (*session_close)(void *session);

    int (*read)(void *session, const void *key, void *value);
    int (*upsert)(void *session, const void *key, const void *value);
    int (*rmw)(void *session, const void *key);
    int (*remove)(void *session, const void *key);

    /* The rest may be NULL: the engine cannot, or does not better than one by one. */

    /* Reads `count` keys that lie one behind the other; values likewise. *ret_found: how many were. */
    int (*read_batch)(void *session, const void *keys, void *values, unsigned count, unsigned *ret_found);
    /* Starts a read or an rmw into buffers of the engine's own, waiting for one of the oldest when config.depth are
     * in flight. finish() waits for all that were started; it and start_*() add to *found what was found. */
    int (*start_read)(void *session, const void *key, uint64_t *found);
    int (*start_rmw)(void *session, const void *key, uint64_t *found);
    int (*finish)(void *session, uint64_t *found);
    /* Waits until background work that the load left behind is done, at most a minute; not part of any cell. */
    int (*settle)(void *db);
    /* All that was applied is on stable media on return. */
    int (*commit)(void *db);
    /* The same and quick to reopen, while sessions go on. */
    int (*checkpoint)(void *db);
};

#ifdef __cplusplus
}
#endif

#endif
