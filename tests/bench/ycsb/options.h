// SPDX-License-Identifier: MIT
#ifndef YCSB_OPTIONS_H
#define YCSB_OPTIONS_H

#include "engines.h"
#include "workload.h"

#define LIST_MAX 8u

struct shape {
    uint32_t key_len, value_len;
};

enum what { WHAT_THROUGHPUT, WHAT_CHECKPOINT, WHAT_RECOVERY };

struct options {
    enum what what;
    uint64_t keys;  /* 0: chosen for each shape */
    uint64_t ops;   /* of a cell, at most */
    double seconds; /* of a cell, at most */
    unsigned threads[LIST_MAX], thread_counts;
    struct shape shapes[LIST_MAX];
    unsigned shape_count;
    bool in_memory, larger; /* which of the two kinds of cells */
    bool workloads[WORKLOADS];
    bool distributions[DISTRIBUTIONS];
    unsigned rounds, depth;
    uint64_t memory_bytes; /* 0: chosen */
    uint64_t seed;
    const char *dir;
    bool json;
    struct engines engines;
};

/* Parses, prints what is wrong. Returns 0, or the program's exit status + 1 (help: 1). */
int options_parse(struct options *options, int argc, char **argv);

#endif
