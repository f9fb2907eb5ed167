// SPDX-License-Identifier: MIT
/*
 * workload: keys, the sequences of operations, and the measured loops.
 *
 * Sequences are made once, from the seed, and shared by all engines and rounds. The loops read the clock
 * once in 256 operations (to stop in time), allocate nothing, and make keys by three multiplications.
 */
#ifndef YCSB_WORKLOAD_H
#define YCSB_WORKLOAD_H

#include "engine.h"

#include <stddef.h>

#define BATCH 32u

enum distribution { UNIFORM, ZIPF, DISTRIBUTIONS };
enum kind { LOAD, MIX, BATCHED, REMOVE };

struct workload {
    const char *name; /* as in --workloads */
    enum kind kind;
    bool rmw;        /* the writes of a mix: rmw, else upsert */
    unsigned writes; /* of 256 operations */
};

#define WORKLOADS 9u
extern const struct workload WORKLOAD[WORKLOADS];

struct sequence {
    uint64_t keys, length;
    uint32_t *ids[DISTRIBUTIONS]; /* `length` each; shared memory */
    uint8_t *dice;                /* `length` random bytes: which operations of a mix write */
};

/* Zipf 0.99 as YCSB makes it, ranks scattered over the keys. False: no memory. */
bool sequence_make(struct sequence *sequence, uint64_t keys, uint64_t length, uint64_t seed);
void sequence_free(struct sequence *sequence);

/* One cell for one engine. */
struct cell {
    const struct workload *workload;
    enum distribution distribution;
    unsigned threads;
    uint64_t ops;     /* at most, all threads together; load and delete: all keys */
    double seconds;   /* at most, but for load and delete */
    bool async;       /* use start_read() and start_rmw() where the engine has them */
    bool latencies;   /* time each operation */
    bool checkpoints; /* one after the other meanwhile */
};

struct outcome {
    int error;                    /* 0 or -errno of an operation */
    uint64_t ops, missing, wrong; /* missing: keys not found; wrong: values of another key */
    double seconds, cpu_seconds;  /* cpu: of all threads of the process, the engine's own included */
    uint64_t user_bytes;          /* keys and values written */
    uint64_t checkpoints;
    double checkpoint_seconds; /* one, on average */
    uint64_t longest_ns, p999_ns;
};

void workload_run(const struct ycsb_engine *engine, void *db, const struct ycsb_config *config,
                  const struct sequence *sequence, const struct cell *cell, struct outcome *ret_outcome);

double now_seconds(void);

/* A bijection of 64 bits (splitmix64's). */
static inline uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* The key of number `id`, of 8 or 24 bytes. */
static inline void key_make(uint64_t id, uint8_t *key, uint32_t key_len)
{
    uint64_t words[3] = {mix(id + UINT64_C(0x9e3779b97f4a7c15))};

    words[1] = words[0] * UINT64_C(0xff51afd7ed558ccd);
    words[2] = words[0] ^ UINT64_C(0xc4ceb9fe1a85ec53);
    __builtin_memcpy(key, words, key_len == 8 ? 8 : 24);
}

#endif
