// SPDX-License-Identifier: MIT
#include "group.h"
#include "device_rate.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void engine_dir_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

bool engine_dir_make(const struct options *o, const struct ycsb_engine *engine, char path[4096])
{
    snprintf(path, 4096, "%s/ycsb-%d-%s", o->dir, (int)getpid(), engine->name);
    if (mkdir(path, 0700) == 0)
        return true;
    fprintf(stderr, "ycsb: %s: %s; name another place with --dir\n", path, strerror(errno));
    return false;
}

/* ---- planning ------------------------------------------------------------------------------------------------ */

static void add_row(struct group *g, const struct workload *workload, enum distribution distribution)
{
    struct row *row = &g->rows[g->row_count++];

    memset(row, 0, sizeof *row);
    row->workload = workload;
    row->distribution = distribution;
    for (unsigned e = 0; e < ENGINES_MAX; e++)
        for (unsigned r = 0; r < ROUNDS_MAX; r++)
            row->written[e][r] = -1;
}

void group_plan(struct group *g, const struct options *o, bool in_memory, struct shape shape, unsigned threads)
{
    uint64_t record = shape.key_len + shape.value_len;

    memset(g, 0, sizeof *g);
    g->in_memory = in_memory;
    g->shape = shape;
    g->threads = threads;
    g->memory_bytes = o->memory_bytes ? o->memory_bytes : UINT64_C(256) << 20;
    g->keys = o->keys                  ? o->keys
              : !in_memory             ? g->memory_bytes * 8 / record
              : record <= 16           ? 10000000
              : shape.value_len < 1024 ? 2000000
                                       : 200000;
    if (in_memory && !o->memory_bytes) /* headers and the power of two that some logs round down to included */
        g->memory_bytes = 4 * (record + 48) * g->keys + (UINT64_C(256) << 20);
    if (o->workloads[0]) /* without: every engine is loaded all the same, unseen */
        add_row(g, &WORKLOAD[0], UNIFORM);
    for (unsigned d = 0; d < DISTRIBUTIONS; d++)
        for (unsigned w = 1; w + 1 < WORKLOADS && o->distributions[d]; w++)
            if (o->workloads[w])
                add_row(g, &WORKLOAD[w], (enum distribution)d);
    if (o->workloads[WORKLOADS - 1])
        add_row(g, &WORKLOAD[WORKLOADS - 1], UNIFORM);
}

/* ---- measuring ------------------------------------------------------------------------------------------------ */

static bool takes_part(const struct group *g, const struct ycsb_engine *engine)
{
    return g->in_memory || engine->bounded;
}

static void note_usage(struct space *space, const struct usage *usage)
{
    if (usage->resident_bytes > space->largest)
        space->largest = usage->resident_bytes;
}

static void run_cell(struct group *g, const struct options *o, struct row *row, struct process *p, unsigned e,
                     unsigned round)
{
    struct exchange *x = p->exchange;
    const struct outcome *outcome = &x->outcome;

    if (row->workload->kind == BATCHED && !p->engine->read_batch)
        return;
    x->cell = (struct cell){.workload = row->workload,
                            .distribution = row->distribution,
                            .threads = g->threads,
                            .ops = o->ops,
                            .seconds = o->seconds,
                            .async = !g->in_memory};
    progress("%s %u/%u, %u threads, round %u: %s %s %s", g->in_memory ? "memory" : "disk", g->shape.key_len,
             g->shape.value_len, g->threads, round + 1, row->workload->name, row->distribution == ZIPF ? "zipf" : "",
             p->engine->name);
    int rc = process_run(p, COMMAND_CELL);
    if (rc < 0) {
        row->error[e] = rc;
        return;
    }
    row->rates[e][round] = (double)outcome->ops / outcome->seconds;
    row->cpu[e][round] = outcome->cpu_seconds / (double)outcome->ops;
    row->missing[e] += outcome->missing;
    row->wrong[e] += outcome->wrong;
    if (outcome->user_bytes > 0)
        row->written[e][round] =
            (double)(x->after.written_bytes - x->before.written_bytes) / (double)outcome->user_bytes;
    note_usage(&g->space[e], &x->after);
    if (row->workload->kind != LOAD)
        return;
    rc = process_run(p, COMMAND_SETTLE);
    row->error[e] = rc < 0 ? rc : 0;
    g->space[e].disk = x->after.disk_bytes;
}

static void run_round(struct group *g, const struct options *o, struct process *processes, unsigned round)
{
    struct row unseen = {.workload = &WORKLOAD[0]};

    for (unsigned e = 0; e < o->engines.count; e++) {
        struct process *p = &processes[e];
        if (p->pid == 0)
            continue;
        int rc = process_run(p, COMMAND_OPEN);
        g->space[e] =
            (struct space){.start = p->exchange->before.resident_bytes, .empty = p->exchange->after.resident_bytes};
        for (unsigned r = 0; r < g->row_count && rc < 0; r++)
            g->rows[r].error[e] = rc;
        if (rc == 0 && !o->workloads[0])
            run_cell(g, o, &unseen, p, e, round);
    }
    for (unsigned r = 0; r < g->row_count; r++)
        for (unsigned e = 0; e < o->engines.count; e++)
            if (processes[e].open && !g->rows[r].error[e])
                run_cell(g, o, &g->rows[r], &processes[e], e, round);
    for (unsigned e = 0; e < o->engines.count; e++) {
        if (!processes[e].open)
            continue;
        int rc = process_run(&processes[e], COMMAND_CLOSE);
        if (rc < 0)
            fprintf(stderr, "ycsb: %s: close: %s\n", processes[e].engine->name, strerror(-rc));
        g->space[e].closed = processes[e].exchange->after.disk_bytes;
    }
}

static void measure_device(struct group *g, const struct options *o)
{
    uint64_t bytes = g->keys * (g->shape.key_len + g->shape.value_len);
    char path[4096];
    unsigned depths[3] = {1, o->depth, o->depth * g->threads};

    snprintf(path, sizeof path, "%s/ycsb-%d-device", o->dir, (int)getpid());
    progress("the device itself");
    int rc = device_rate_prepare(path, bytes);
    for (unsigned i = 0; i < 3 && rc == 0; i++) {
        g->device_depths[i] = depths[i];
        g->device_reads[i] = device_rate_read(path, depths[i], o->seconds, o->seed);
        rc = g->device_reads[i] < 0 ? (int)g->device_reads[i] : 0;
    }
    if (rc < 0)
        fprintf(stderr, "ycsb: %s: %s\n", path, strerror(-rc));
    unlink(path);
}

bool group_run(struct group *g, const struct options *o, const struct sequence *sequence)
{
    bool good = true;

    for (unsigned round = 0; round < o->rounds && good; round++) {
        struct process processes[ENGINES_MAX] = {0};
        char paths[ENGINES_MAX][4096];
        for (unsigned e = 0; e < o->engines.count && good; e++) {
            if (!takes_part(g, o->engines.list[e]))
                continue;
            struct ycsb_config config = {.dir = paths[e],
                                         .create = true,
                                         .in_memory = g->in_memory,
                                         .memory_bytes = g->memory_bytes,
                                         .keys = g->keys,
                                         .key_len = g->shape.key_len,
                                         .value_len = g->shape.value_len,
                                         .depth = o->depth};
            good = engine_dir_make(o, o->engines.list[e], paths[e]) &&
                   process_start(&processes[e], o->engines.list[e], &config, sequence);
        }
        if (good)
            run_round(g, o, processes, round);
        for (unsigned e = 0; e < o->engines.count; e++)
            if (processes[e].pid != 0) {
                process_end(&processes[e]);
                engine_dir_remove(paths[e]);
            }
    }
    if (good && !g->in_memory)
        measure_device(g, o);
    return good;
}
