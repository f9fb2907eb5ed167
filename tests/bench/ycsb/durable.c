// SPDX-License-Identifier: MIT
#include "durable.h"
#include "group.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct subject {
    struct process process;
    struct ycsb_config config;
    char path[4096];
};

static bool subject_start(struct subject *s, const struct options *o, const struct ycsb_engine *engine,
                          const struct group *g, const struct sequence *sequence)
{
    s->config = (struct ycsb_config){.dir = s->path,
                                     .create = true,
                                     .in_memory = true,
                                     .memory_bytes = g->memory_bytes,
                                     .keys = g->keys,
                                     .key_len = g->shape.key_len,
                                     .value_len = g->shape.value_len,
                                     .depth = o->depth};
    return engine_dir_make(o, engine, s->path) && process_start(&s->process, engine, &s->config, sequence);
}

static int run(struct subject *s, const struct cell *cell)
{
    s->process.exchange->cell = *cell;
    return process_run(&s->process, COMMAND_CELL);
}

static int load(struct subject *s)
{
    int rc = process_run(&s->process, COMMAND_OPEN);

    return rc < 0 ? rc : run(s, &(struct cell){.workload = &WORKLOAD[0], .threads = 1});
}

/* ---- checkpoints --------------------------------------------------------------------------------------------- */

static const char CHECKPOINT_TABLE[] = "%s%s | %.0f | %.0f | %.2f | %.1f | %.1f | %.2f | %.2f | %" PRIu64 " | %.0f%s\n";
static const char CHECKPOINT_JSON[] =
    "%s\n  {\"cell\": \"%s\", \"without\": %.0f, \"with\": %.0f, \"ratio\": %.3f, \"p999_us\": %.1f, "
    "\"p999_us_with\": %.1f, \"longest_ms\": %.3f, \"longest_ms_with\": %.3f, \"checkpoints\": %" PRIu64
    ", \"checkpoint_ms\": %.1f}%s";

static void print_checkpoints(const struct options *o, const char *name, const struct outcome *without,
                              const struct outcome *with)
{
    static bool another;
    double before = (double)without->ops / without->seconds / 1000, now = (double)with->ops / with->seconds / 1000;
    const char *format = o->json ? CHECKPOINT_JSON : CHECKPOINT_TABLE;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    printf(format, o->json ? (another ? "," : "") : "| ", name, before, now, now / before,
           (double)without->p999_ns / 1e3, (double)with->p999_ns / 1e3, (double)without->longest_ns / 1e6,
           (double)with->longest_ns / 1e6, with->checkpoints, with->checkpoint_seconds * 1000, o->json ? "" : " |");
#pragma GCC diagnostic pop
    another = true;
    fflush(stdout);
}

static void checkpoint_cells(const struct options *o, struct subject *s, const struct group *g)
{
    for (unsigned w = 1; w < WORKLOADS; w++) {
        const struct workload *workload = &WORKLOAD[w];
        for (unsigned d = 0; d < DISTRIBUTIONS && workload->kind == MIX && workload->writes == 256; d++) {
            struct cell cell = {.workload = workload,
                                .distribution = (enum distribution)d,
                                .threads = g->threads,
                                .ops = UINT64_MAX,
                                .seconds = o->seconds,
                                .latencies = true};
            char name[64];
            if (!o->distributions[d])
                continue;
            snprintf(name, sizeof name, "%s %s %s", s->process.engine->name, workload->name, d ? "zipf" : "uniform");
            progress("%s", name);
            int rc = run(s, &cell);
            struct outcome without = s->process.exchange->outcome;
            cell.checkpoints = true;
            if (rc == 0)
                rc = run(s, &cell);
            progress("%s", "");
            if (rc < 0)
                fprintf(stderr, "ycsb: %s: %s\n", name, strerror(-rc));
            else
                print_checkpoints(o, name, &without, &s->process.exchange->outcome);
            if (rc < 0)
                return;
        }
    }
}

bool durable_checkpoint(const struct options *o)
{
    struct sequence sequence;
    struct group g;
    bool good = true;

    group_plan(&g, o, true, o->shape_count == 1 ? o->shapes[0] : (struct shape){24, 100},
               o->threads[o->thread_counts - 1]);
    if (!sequence_make(&sequence, g.keys, 4000000, o->seed))
        return false;
    if (!o->json)
        printf("\n### checkpoints one after the other, %u/%u, %" PRIu64 " keys, %u threads\n\n"
               "| | k ops/s without | with | ratio | p99.9 us without | with | longest ms without | with | "
               "checkpoints | ms each |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
               g.shape.key_len, g.shape.value_len, g.keys, g.threads);
    for (unsigned e = 0; e < o->engines.count && good; e++) {
        struct subject s;
        good = subject_start(&s, o, o->engines.list[e], &g, &sequence);
        if (!good)
            break;
        progress("%s: load", o->engines.list[e]->name);
        if (load(&s) == 0)
            checkpoint_cells(o, &s, &g);
        process_end(&s.process);
        engine_dir_remove(s.path);
    }
    sequence_free(&sequence);
    return good;
}

/* ---- coming back --------------------------------------------------------------------------------------------- */

/* Opens again what the process that is gone left, and looks for every key of a sequence. */
static int reopen(struct subject *s, const struct options *o, const struct sequence *sequence, double *ret_seconds,
                  uint64_t *ret_missing)
{
    struct cell cell = {.workload = &WORKLOAD[1], .threads = 1, .ops = 1000000, .seconds = o->seconds};

    s->config.create = false;
    if (!process_start(&s->process, s->process.engine, &s->config, sequence))
        return -1;
    int rc = process_run(&s->process, COMMAND_OPEN);
    *ret_seconds = s->process.exchange->seconds;
    if (rc == 0)
        rc = run(s, &cell);
    *ret_missing = s->process.exchange->outcome.missing;
    process_end(&s->process);
    return rc;
}

static int come_back(struct subject *s, const struct options *o, const struct sequence *sequence, bool killed)
{
    double seconds = 0, leave;
    uint64_t missing = 0, disk = 0;
    int rc = load(s);

    if (rc == 0)
        rc = process_run(&s->process, killed ? COMMAND_COMMIT : COMMAND_CLOSE);
    leave = s->process.exchange->seconds;
    disk = s->process.exchange->after.disk_bytes;
    const struct ycsb_engine *engine = s->process.engine;
    process_end(&s->process);
    s->process.engine = engine;
    if (rc == 0)
        rc = reopen(s, o, sequence, &seconds, &missing);
    progress("%s", "");
    if (rc < 0)
        fprintf(stderr, "ycsb: %s: %s\n", engine->name, strerror(-rc));
    else if (o->json)
        printf("\n  {\"engine\": \"%s\", \"killed\": %s, \"leave\": %.3f, \"reopen\": %.3f, \"missing\": %" PRIu64
               ", \"disk\": %" PRIu64 "}",
               engine->name, killed ? "true" : "false", leave, seconds, missing, disk);
    else
        printf("| %s | %s | %.3f | %.3f | %" PRIu64 " | %.0f |\n", engine->name, killed ? "commit, kill -9" : "close",
               leave, seconds, missing, (double)disk / 1048576);
    fflush(stdout);
    return rc;
}

bool durable_recovery(const struct options *o)
{
    struct sequence sequence;
    struct group g;
    bool good = true;

    group_plan(&g, o, true, o->shape_count == 1 ? o->shapes[0] : (struct shape){8, 8}, 1);
    if (!sequence_make(&sequence, g.keys, 1000000, o->seed))
        return false;
    if (!o->json)
        printf(
            "\n### coming back, %u/%u, %" PRIu64 " keys\n\n"
            "| engine | after | s to leave | s to reopen | keys missing | MiB on disk |\n|---|---|--:|--:|--:|--:|\n",
            g.shape.key_len, g.shape.value_len, g.keys);
    bool another = false;
    for (unsigned e = 0; e < o->engines.count && good; e++)
        for (int killed = 0; killed < 2 && good; killed++) {
            struct subject s;
            progress("%s", o->engines.list[e]->name);
            good = subject_start(&s, o, o->engines.list[e], &g, &sequence);
            if (!good)
                break;
            if (o->json && another)
                printf(",");
            another = come_back(&s, o, &sequence, killed) == 0 || another;
            engine_dir_remove(s.path);
        }
    sequence_free(&sequence);
    return good;
}
