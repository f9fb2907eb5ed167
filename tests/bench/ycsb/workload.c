// SPDX-License-Identifier: MIT
#include "workload.h"
#include "latency.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STEP 256u /* operations between two looks at the clock */

const struct workload WORKLOAD[WORKLOADS] = {
    {"load", LOAD, false, 256},  {"C", MIX, false, 0},    {"C-batch", BATCHED, false, 0},
    {"B", MIX, false, 13},       {"A", MIX, false, 128},  {"F", MIX, true, 128},
    {"update", MIX, false, 256}, {"rmw", MIX, true, 256}, {"delete", REMOVE, false, 0},
};

struct worker {
    const struct ycsb_engine *engine;
    const struct ycsb_config *config;
    const struct sequence *sequence;
    const struct cell *cell;
    void *db, *session;
    pthread_t thread;
    pthread_barrier_t *start;
    unsigned number;

    uint8_t *keys, *values, *value; /* BATCH keys, BATCH values to read into, one to write */
    uint64_t ops, writes, found, wrong;
    double begun, ended;
    int error;
    struct latency latency;
};

double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double cpu_seconds(void)
{
    struct timespec used;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

/* A value that is long enough says whose it is, in its second eight bytes. */
static inline bool is_wrong(const struct worker *w, const uint8_t *value, uint64_t id)
{
    return w->config->value_len >= 16 && memcmp(value + 8, &id, 8) != 0;
}

static inline int write_one(struct worker *w, uint64_t id, uint64_t number)
{
    memcpy(w->value, &number, 8);
    if (w->config->value_len >= 16)
        memcpy(w->value + 8, &id, 8);
    w->writes++;
    return w->engine->upsert(w->session, w->keys, w->value);
}

static inline int mix_one(struct worker *w, uint64_t id, bool write)
{
    const struct ycsb_engine *e = w->engine;
    int rc;

    key_make(id, w->keys, w->config->key_len);
    if (write && !w->cell->workload->rmw) {
        w->found++;
        return write_one(w, id, id);
    }
    if (write) {
        w->writes++;
        if (w->cell->async && e->start_rmw)
            return e->start_rmw(w->session, w->keys, &w->found);
        rc = e->rmw(w->session, w->keys);
    } else {
        if (w->cell->async && e->start_read)
            return e->start_read(w->session, w->keys, &w->found);
        rc = e->read(w->session, w->keys, w->values);
        if (rc == YCSB_FOUND)
            w->wrong += is_wrong(w, w->values, id);
    }
    w->found += rc == YCSB_FOUND;
    return rc < 0 ? rc : 0;
}

static int mix_step(struct worker *w, uint64_t at, uint64_t count)
{
    const uint32_t *ids = w->sequence->ids[w->cell->distribution] + at;
    const uint8_t *dice = w->sequence->dice + at;
    unsigned writes = w->cell->workload->writes;
    int rc = 0;

    for (uint64_t i = 0; i < count && rc == 0; i++)
        rc = mix_one(w, ids[i], dice[i] < writes);
    return rc;
}

static int timed_step(struct worker *w, uint64_t at, uint64_t count)
{
    const uint32_t *ids = w->sequence->ids[w->cell->distribution] + at;
    const uint8_t *dice = w->sequence->dice + at;
    uint64_t before = latency_now();
    int rc = 0;

    for (uint64_t i = 0; i < count && rc == 0; i++) {
        rc = mix_one(w, ids[i], dice[i] < w->cell->workload->writes);
        uint64_t after = latency_now();
        latency_add(&w->latency, after - before);
        before = after;
    }
    return rc;
}

static int batch_step(struct worker *w, uint64_t at, uint64_t count)
{
    const uint32_t *ids = w->sequence->ids[w->cell->distribution] + at;
    uint32_t key_len = w->config->key_len, value_len = w->config->value_len;
    int rc = 0;

    for (uint64_t i = 0; i < count && rc == 0; i += BATCH) {
        unsigned found = 0;
        for (unsigned j = 0; j < BATCH; j++)
            key_make(ids[i + j], w->keys + j * key_len, key_len);
        rc = w->engine->read_batch(w->session, w->keys, w->values, BATCH, &found);
        w->found += found;
        for (unsigned j = 0; j < BATCH; j++)
            w->wrong += is_wrong(w, w->values + (size_t)j * value_len, ids[i + j]);
    }
    return rc;
}

/* Every thread takes its part of the sequence from its own place on, round and round. */
static int run_sequence(struct worker *w)
{
    uint64_t length = w->sequence->length & ~(uint64_t)(STEP - 1), share = w->cell->ops / w->cell->threads;
    uint64_t at = length / w->cell->threads * w->number & ~(uint64_t)(STEP - 1);
    double until = now_seconds() + w->cell->seconds;
    int rc = 0;

    while (rc == 0 && w->ops < share && now_seconds() < until) {
        rc = w->cell->workload->kind == BATCHED ? batch_step(w, at, STEP)
             : w->cell->latencies               ? timed_step(w, at, STEP)
                                                : mix_step(w, at, STEP);
        w->ops += STEP;
        at = at + STEP == length ? 0 : at + STEP;
    }
    return rc;
}

/* Load and delete: all keys, each thread a share of them. */
static int run_all(struct worker *w)
{
    uint64_t keys = w->config->keys, threads = w->cell->threads;
    uint64_t id = keys * w->number / threads, end = keys * (w->number + 1) / threads;
    bool load = w->cell->workload->kind == LOAD;
    int rc = 0;

    w->ops = end - id;
    for (; id < end && rc >= 0; id++) {
        key_make(id, w->keys, w->config->key_len);
        rc = load ? write_one(w, id, 0) : w->engine->remove(w->session, w->keys);
        w->found += rc == 0;
    }
    return rc < 0 ? rc : 0;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    enum kind kind = w->cell->workload->kind;

    pthread_setname_np(pthread_self(), w->cell->workload->name); /* what perf calls it */
    w->error = w->engine->session_open(w->db, &w->session);
    pthread_barrier_wait(w->start);
    if (w->error < 0)
        return NULL;
    w->begun = now_seconds();
    w->error = kind == LOAD || kind == REMOVE ? run_all(w) : run_sequence(w);
    if (w->engine->finish) {
        int rc = w->engine->finish(w->session, &w->found);
        w->error = w->error < 0 ? w->error : rc;
    }
    w->ended = now_seconds();
    w->engine->session_close(w->session);
    return NULL;
}

/* ---- checkpoints meanwhile --------------------------------------------------------------------------- */

struct checkpointer {
    const struct ycsb_engine *engine;
    void *db;
    atomic_bool stop; /* set by workload_run(), read by the thread; relaxed: one more or less is no matter */
    uint64_t count;
    double seconds;
    int error;
};

static void *checkpoint(void *arg)
{
    struct checkpointer *c = arg;
    double begun = now_seconds();

    while (c->error == 0 && !atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        c->error = c->engine->checkpoint(c->db);
        c->count++;
    }
    c->seconds = now_seconds() - begun;
    return NULL;
}

/* ---- a cell --------------------------------------------------------------------------------------------- */

static bool worker_init(struct worker *w)
{
    uint32_t value_len = w->config->value_len;

    w->keys = aligned_alloc(64, (BATCH * w->config->key_len + 63) & ~63u);
    w->values = aligned_alloc(64, ((size_t)BATCH * value_len + 63) & ~(size_t)63);
    w->value = aligned_alloc(64, (value_len + 63) & ~63u);
    if (!w->keys || !w->values || !w->value)
        return false;
    memset(w->values, 0, (size_t)BATCH * value_len);
    for (uint32_t i = 0; i < value_len; i++) /* nothing that compresses to nothing */
        w->value[i] = (uint8_t)mix(i);
    return true;
}

static void add_up(const struct worker *workers, const struct cell *cell, struct outcome *ret)
{
    double begun = workers[0].begun, ended = workers[0].ended;
    struct latency all = {0};

    for (unsigned i = 0; i < cell->threads; i++) {
        const struct worker *w = &workers[i];
        begun = w->begun < begun ? w->begun : begun;
        ended = w->ended > ended ? w->ended : ended;
        ret->ops += w->ops;
        ret->missing += w->ops - w->found;
        ret->wrong += w->wrong;
        ret->user_bytes += w->writes * (w->config->key_len + w->config->value_len);
        ret->error = w->error < 0 ? w->error : ret->error;
        latency_merge(&all, &w->latency);
    }
    ret->seconds = ended - begun;
    ret->longest_ns = all.longest;
    ret->p999_ns = latency_quantile(&all, 0.999);
}

void workload_run(const struct ycsb_engine *engine, void *db, const struct ycsb_config *config,
                  const struct sequence *sequence, const struct cell *cell, struct outcome *ret_outcome)
{
    struct worker *workers = calloc(cell->threads, sizeof *workers);
    struct checkpointer checkpointer = {.engine = engine, .db = db};
    pthread_t checkpoint_thread;
    pthread_barrier_t start;

    *ret_outcome = (struct outcome){.error = workers ? 0 : -ENOMEM};
    if (!workers)
        return;
    pthread_barrier_init(&start, NULL, cell->threads);
    double cpu = cpu_seconds();
    for (unsigned i = 0; i < cell->threads; i++) {
        workers[i] = (struct worker){.engine = engine,
                                     .config = config,
                                     .sequence = sequence,
                                     .cell = cell,
                                     .db = db,
                                     .start = &start,
                                     .number = i};
        if (!worker_init(&workers[i]) || pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            abort(); /* a benchmark without memory for its buffers has nothing to say */
    }
    if (cell->checkpoints && pthread_create(&checkpoint_thread, NULL, checkpoint, &checkpointer) != 0)
        abort();
    for (unsigned i = 0; i < cell->threads; i++)
        pthread_join(workers[i].thread, NULL);
    ret_outcome->cpu_seconds = cpu_seconds() - cpu;
    if (cell->checkpoints) {
        atomic_store_explicit(&checkpointer.stop, true, memory_order_relaxed);
        pthread_join(checkpoint_thread, NULL);
        ret_outcome->error = checkpointer.error;
        ret_outcome->checkpoints = checkpointer.count;
        ret_outcome->checkpoint_seconds = checkpointer.seconds / (double)checkpointer.count;
    }
    add_up(workers, cell, ret_outcome);
    for (unsigned i = 0; i < cell->threads; i++) {
        free(workers[i].keys);
        free(workers[i].values);
        free(workers[i].value);
    }
    pthread_barrier_destroy(&start);
    free(workers);
}
