// SPDX-License-Identifier: MIT
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char HELP[] =
    "ycsb [options]: our store and its peers side by side\n"
    "  --engines=A,B           of those in this build and loaded ones; default: all\n"
    "  --engine-library=PATH   adds an engine from a shared library (ycsb/engine.h)\n"
    "  --shapes=K/V,...        bytes of key and value; default 8/8,24/100,24/4096 (keys of 8 or 24)\n"
    "  --threads=N,...         default 1,2\n"
    "  --workloads=W,...       load C C-batch B A F update rmw delete; default: all\n"
    "  --distributions=D,...   uniform, zipf; default: both\n"
    "  --where=W,...           memory (budgets hold everything), disk (data is 8 times the budget); default: memory\n"
    "  --keys=N                default: 2M; 8/8: 10M; values of 1 KiB and more: 200K; disk: 8 times the budget\n"
    "  --ops=N --seconds=S     a cell ends with the first that is reached; default 10M, 1\n"
    "  --rounds=N              medians of N rounds, engines taking turns in each cell; default 3\n"
    "  --memory=BYTES          budget of an engine; default: memory: 4 times the data, disk: 256M\n"
    "  --depth=N               reads in flight per thread, where the engine can; default 64\n"
    "  --dir=DIR               for files; default .\n"
    "  --seed=N                default: random, printed\n"
    "  --checkpoint            instead: throughput and longest operation with and without checkpoints\n"
    "  --recovery              instead: time to reopen after close and after kill -9\n"
    "  --json                  for machines\n"
    "Numbers take K, M and G (powers of 1024 for --memory, of 1000 else).\n";

enum {
    O_ENGINES = 256,
    O_LIBRARY,
    O_SHAPES,
    O_THREADS,
    O_WORKLOADS,
    O_DISTRIBUTIONS,
    O_WHERE,
    O_KEYS,
    O_OPS,
    O_SECONDS,
    O_ROUNDS,
    O_MEMORY,
    O_DEPTH,
    O_DIR,
    O_SEED,
    O_CHECKPOINT,
    O_RECOVERY,
    O_JSON,
    O_HELP
};

static const struct option LONG[] = {{"engines", required_argument, NULL, O_ENGINES},
                                     {"engine-library", required_argument, NULL, O_LIBRARY},
                                     {"shapes", required_argument, NULL, O_SHAPES},
                                     {"threads", required_argument, NULL, O_THREADS},
                                     {"workloads", required_argument, NULL, O_WORKLOADS},
                                     {"distributions", required_argument, NULL, O_DISTRIBUTIONS},
                                     {"where", required_argument, NULL, O_WHERE},
                                     {"keys", required_argument, NULL, O_KEYS},
                                     {"ops", required_argument, NULL, O_OPS},
                                     {"seconds", required_argument, NULL, O_SECONDS},
                                     {"rounds", required_argument, NULL, O_ROUNDS},
                                     {"memory", required_argument, NULL, O_MEMORY},
                                     {"depth", required_argument, NULL, O_DEPTH},
                                     {"dir", required_argument, NULL, O_DIR},
                                     {"seed", required_argument, NULL, O_SEED},
                                     {"checkpoint", no_argument, NULL, O_CHECKPOINT},
                                     {"recovery", no_argument, NULL, O_RECOVERY},
                                     {"json", no_argument, NULL, O_JSON},
                                     {"help", no_argument, NULL, O_HELP},
                                     {NULL, 0, NULL, 0}};

static bool number(const char *text, uint64_t unit, uint64_t *ret)
{
    static const char SUFFIXES[] = "KMG";
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    const char *suffix = *end ? strchr(SUFFIXES, *end) : NULL;

    if (end == text || (*end && (!suffix || end[1])))
        return false;
    for (long powers = suffix ? suffix - SUFFIXES + 1 : 0; powers > 0; powers--)
        n *= unit;
    *ret = n;
    return n > 0;
}

/* Sets the flags of the names in the list. */
static bool flags(const char *list, const char *const *names, unsigned count, bool *ret_flags)
{
    memset(ret_flags, 0, count * sizeof *ret_flags);
    while (*list) {
        size_t len = strcspn(list, ",");
        unsigned i = 0;
        while (i < count && (strlen(names[i]) != len || strncmp(names[i], list, len) != 0))
            i++;
        if (i == count)
            return false;
        ret_flags[i] = true;
        list += len + (list[len] == ',');
    }
    return true;
}

static bool parse_shapes(struct options *o, const char *text)
{
    int used = 0;

    for (o->shape_count = 0; *text && o->shape_count < LIST_MAX; text += used + (text[used] == ',')) {
        struct shape *shape = &o->shapes[o->shape_count++];
        if (sscanf(text, "%u/%u%n", &shape->key_len, &shape->value_len, &used) != 2 || shape->value_len < 8 ||
            shape->value_len > (64u << 10) || (shape->key_len != 8 && shape->key_len != 24))
            return false;
    }
    return o->shape_count > 0 && !*text;
}

static bool parse_threads(struct options *o, const char *text)
{
    int used = 0;

    for (o->thread_counts = 0; *text && o->thread_counts < LIST_MAX; text += used + (text[used] == ',')) {
        unsigned *threads = &o->threads[o->thread_counts++];
        if (sscanf(text, "%u%n", threads, &used) != 1 || *threads == 0 || *threads > 256)
            return false;
    }
    return o->thread_counts > 0 && !*text;
}

static bool parse_flags(struct options *o, int which, const char *text)
{
    const char *workloads[WORKLOADS];
    bool where[2];

    for (unsigned i = 0; i < WORKLOADS; i++)
        workloads[i] = WORKLOAD[i].name;
    switch (which) {
    case O_WORKLOADS:
        return flags(text, workloads, WORKLOADS, o->workloads);
    case O_DISTRIBUTIONS:
        return flags(text, (const char *const[]){"uniform", "zipf"}, DISTRIBUTIONS, o->distributions);
    default:
        if (!flags(text, (const char *const[]){"memory", "disk"}, 2, where))
            return false;
        o->in_memory = where[0];
        o->larger = where[1];
        return true;
    }
}

static bool parse_number(struct options *o, int which, const char *text)
{
    uint64_t n = 0;
    bool good = which == O_SECONDS || number(text, which == O_MEMORY ? 1024 : 1000, &n);

    switch (which) {
    case O_KEYS:
        o->keys = n;
        return good && n >= 1000 && n <= UINT32_MAX;
    case O_OPS:
        o->ops = n;
        return good;
    case O_SECONDS:
        o->seconds = atof(text);
        return o->seconds > 0;
    case O_ROUNDS:
        o->rounds = (unsigned)n;
        return good && n <= 99;
    case O_MEMORY:
        o->memory_bytes = n;
        return good && n >= (16u << 20);
    case O_DEPTH:
        o->depth = (unsigned)n;
        return good && n <= 1024;
    default:
        o->seed = n;
        return good;
    }
}

static bool parse_one(struct options *o, int which, const char *text, const char **engines)
{
    switch (which) {
    case O_ENGINES:
        *engines = text;
        return true;
    case O_LIBRARY:
        return engines_load(&o->engines, text);
    case O_SHAPES:
        return parse_shapes(o, text);
    case O_THREADS:
        return parse_threads(o, text);
    case O_WORKLOADS:
    case O_DISTRIBUTIONS:
    case O_WHERE:
        return parse_flags(o, which, text);
    case O_DIR:
        o->dir = text;
        return true;
    case O_CHECKPOINT:
        o->what = WHAT_CHECKPOINT;
        return true;
    case O_RECOVERY:
        o->what = WHAT_RECOVERY;
        return true;
    case O_JSON:
        o->json = true;
        return true;
    default:
        return parse_number(o, which, text);
    }
}

int options_parse(struct options *o, int argc, char **argv)
{
    const char *engines = NULL;
    int which;

    *o = (struct options){.ops = 10000000,
                          .seconds = 1,
                          .rounds = 3,
                          .depth = 64,
                          .dir = ".",
                          .in_memory = true,
                          .threads = {1, 2},
                          .thread_counts = 2,
                          .shapes = {{8, 8}, {24, 100}, {24, 4096}},
                          .shape_count = 3};
    memset(o->workloads, true, sizeof o->workloads);
    memset(o->distributions, true, sizeof o->distributions);
    engines_init(&o->engines);
    if (getrandom(&o->seed, sizeof o->seed, 0) != (ssize_t)sizeof o->seed)
        o->seed = 1;
    o->seed >>= 16; /* short enough to type */
    while ((which = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
        if (which == O_HELP) {
            fputs(HELP, stdout);
            return 1;
        }
        if (which == '?')
            return 3;
        if (!parse_one(o, which, optarg, &engines)) {
            fprintf(stderr, "ycsb: %s: cannot use that; --help has the choices\n", argv[optind - 1]);
            return 3;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "ycsb: unknown argument `%s`; --help has the choices\n", argv[optind]);
        return 3;
    }
    return engines && !engines_choose(&o->engines, engines) ? 3 : 0;
}
