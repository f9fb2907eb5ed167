// SPDX-License-Identifier: MIT
/* The engines that are built in, and loading others. */
#ifndef YCSB_ENGINES_H
#define YCSB_ENGINES_H

#include "engine.h"

extern const struct ycsb_engine ENGINE_STORE;
#ifdef HAVE_LMDB
extern const struct ycsb_engine ENGINE_LMDB;
#endif
#ifdef HAVE_ROCKSDB
extern const struct ycsb_engine ENGINE_ROCKSDB;
#endif
#ifdef HAVE_LEVELDB
extern const struct ycsb_engine ENGINE_LEVELDB;
#endif

#define ENGINES_MAX 8u

struct engines {
    const struct ycsb_engine *list[ENGINES_MAX]; /* ours first */
    unsigned count;
};

/* All that were built in. */
void engines_init(struct engines *engines);
/* Adds the one in a shared library, which stays loaded. On failure says why and returns false. */
bool engines_load(struct engines *engines, const char *path);
/* Keeps those named in the comma-separated list. On an unknown name says so and returns false. */
bool engines_choose(struct engines *engines, const char *names);

#endif
