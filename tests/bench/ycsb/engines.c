// SPDX-License-Identifier: MIT
#include "engines.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

void engines_init(struct engines *engines)
{
    *engines = (struct engines){.list = {&ENGINE_STORE}, .count = 1};
#ifdef HAVE_LMDB
    engines->list[engines->count++] = &ENGINE_LMDB;
#endif
#ifdef HAVE_ROCKSDB
    engines->list[engines->count++] = &ENGINE_ROCKSDB;
#endif
#ifdef HAVE_LEVELDB
    engines->list[engines->count++] = &ENGINE_LEVELDB;
#endif
}

bool engines_load(struct engines *engines, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct ycsb_engine *(*get)(void) = NULL;

    if (!library) {
        fprintf(stderr, "ycsb: %s\n", dlerror());
        return false;
    }
    *(void **)&get = dlsym(library, "ycsb_engine");
    const struct ycsb_engine *engine = get ? get() : NULL;
    if (!engine || engine->version != YCSB_ENGINE_VERSION || engines->count == ENGINES_MAX) {
        fprintf(stderr, "ycsb: %s: %s\n", path,
                !engine                         ? "exports no ycsb_engine()"
                : engines->count == ENGINES_MAX ? "one engine too many"
                                                : "made for another version of engine.h; build it again");
        dlclose(library);
        return false;
    }
    for (unsigned i = engines->count++; i > 1; i--) /* the second column, next to ours */
        engines->list[i] = engines->list[i - 1];
    engines->list[1] = engine;
    return true;
}

bool engines_choose(struct engines *engines, const char *names)
{
    struct engines chosen = {.count = 0};

    while (*names) {
        size_t len = strcspn(names, ",");
        unsigned i = 0;
        while (i < engines->count &&
               (strlen(engines->list[i]->name) != len || strncmp(engines->list[i]->name, names, len) != 0))
            i++;
        if (i == engines->count || chosen.count == ENGINES_MAX) {
            fprintf(stderr, "ycsb: no engine `%.*s` in this build\n", (int)len, names);
            return false;
        }
        chosen.list[chosen.count++] = engines->list[i];
        names += len + (names[len] == ',');
    }
    *engines = chosen;
    return true;
}
