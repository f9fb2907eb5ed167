// SPDX-License-Identifier: MIT
#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const DISTRIBUTION[DISTRIBUTIONS] = {"uniform", "zipf"};

void progress(const char *format, ...)
{
    va_list args;

    if (!isatty(STDERR_FILENO))
        return;
    va_start(args, format);
    fputs("\r\033[K", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double median(const double *values, unsigned count)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare);
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

static const char *row_name(const struct row *row, char name[32])
{
    bool all = row->workload->kind == LOAD || row->workload->kind == REMOVE;

    snprintf(name, 32, "%s%s%s", row->workload->name, all ? "" : " ", all ? "" : DISTRIBUTION[row->distribution]);
    return name;
}

/* ---- for people -------------------------------------------------------------------------------------------- */

static bool is_good(const struct row *row, unsigned engine)
{
    return !row->error[engine] && !row->missing[engine] && !row->wrong[engine] && row->rates[engine][0] > 0;
}

static void print_bad(const struct row *row, unsigned engine)
{
    if (row->error[engine])
        printf(" %s |", strerror(-row->error[engine]));
    else if (row->missing[engine] || row->wrong[engine])
        printf(" %" PRIu64 " missing, %" PRIu64 " wrong |", row->missing[engine], row->wrong[engine]);
    else
        printf(" - |");
}

static void print_head(const struct options *o, const char *what, bool ratios)
{
    const char *ours = o->engines.list[0]->name;

    printf("| %s |", what);
    for (unsigned e = 0; e < o->engines.count; e++)
        printf(" %s |", o->engines.list[e]->name);
    for (unsigned e = 1; e < o->engines.count && ratios; e++)
        printf(" %s / %s |", ours, o->engines.list[e]->name);
    printf("\n|---|");
    for (unsigned e = 0; e < (ratios ? o->engines.count * 2 - 1 : o->engines.count); e++)
        printf("--:|");
    printf("\n");
}

static void print_number(double number)
{
    printf(" %.*f |", number < 1 ? 2 : number < 10 ? 1 : 0, number);
}

/* Operations a second, or nanoseconds of processor time an operation; ratios so that more is better for us. */
static void print_rates(const struct options *o, const struct group *g, bool cpu)
{
    char name[32];

    print_head(o, cpu ? "cpu ns/op" : "k ops/s", true);
    for (const struct row *row = g->rows; row < g->rows + g->row_count; row++) {
        double medians[ENGINES_MAX];
        printf("| %s |", row_name(row, name));
        for (unsigned e = 0; e < o->engines.count; e++) {
            medians[e] = median(cpu ? row->cpu[e] : row->rates[e], o->rounds);
            if (is_good(row, e))
                print_number(cpu ? medians[e] * 1e9 : medians[e] / 1000);
            else
                print_bad(row, e);
        }
        for (unsigned e = 1; e < o->engines.count; e++)
            if (is_good(row, 0) && is_good(row, e))
                printf(" %.2f |", cpu ? medians[e] / medians[0] : medians[0] / medians[e]);
            else
                printf(" - |");
        printf("\n");
    }
    printf("\n");
}

static void print_written(const struct options *o, const struct group *g, const char *workload)
{
    for (const struct row *row = g->rows; row < g->rows + g->row_count; row++) {
        if (strcmp(row->workload->name, workload) != 0 || row->distribution != UNIFORM)
            continue;
        printf("| device bytes per user byte, %s |", workload);
        for (unsigned e = 0; e < o->engines.count; e++) {
            double written = median(row->written[e], o->rounds);
            if (written >= 0)
                printf(" %.2f |", written);
            else
                printf(" - |");
        }
        printf("\n");
    }
}

static void print_mib(const char *what, const struct options *o, const struct group *g, size_t field, size_t minus)
{
    printf("| %s |", what);
    for (unsigned e = 0; e < o->engines.count; e++) {
        const char *space = (const char *)&g->space[e];
        uint64_t bytes = *(const uint64_t *)(const void *)(space + field);
        uint64_t base = minus == field ? 0 : *(const uint64_t *)(const void *)(space + minus);
        printf(" %.1f |", ((double)bytes - (double)base) / 1048576);
    }
    printf("\n");
}

static void print_space(const struct options *o, const struct group *g)
{
    size_t start = offsetof(struct space, start), disk = offsetof(struct space, disk);

    print_head(o, "MiB", false);
    print_mib("memory of an empty store", o, g, offsetof(struct space, empty), start);
    print_mib("most memory at the end of a cell", o, g, offsetof(struct space, largest), start);
    print_mib("on disk after load", o, g, disk, disk);
    print_mib("on disk when closed", o, g, offsetof(struct space, closed), offsetof(struct space, closed));
    print_written(o, g, "load");
    print_written(o, g, "update");
    print_written(o, g, "rmw");
}

static void print_group(const struct options *o, const struct group *g)
{
    double data = (double)g->keys * (g->shape.key_len + g->shape.value_len) / 1048576;

    progress("%s", "");
    printf("\n### %s, %u B keys, %u B values, %u thread%s\n\n", g->in_memory ? "in memory" : "larger than memory",
           g->shape.key_len, g->shape.value_len, g->threads, g->threads == 1 ? "" : "s");
    printf("%" PRIu64 " keys, %.0f MiB of keys and values, budget %.0f MiB, median of %u\n\n", g->keys, data,
           (double)g->memory_bytes / 1048576, o->rounds);
    print_rates(o, g, false);
    print_rates(o, g, true);
    print_space(o, g);
    for (unsigned i = 0; i < 3; i++)
        if (g->device_reads[i] > 0)
            printf("%s%.1f k/s at depth %u", i == 0 ? "\nrandom 4 KiB reads of the device: " : ", ",
                   g->device_reads[i] / 1000, g->device_depths[i]);
    printf("%s", g->device_reads[0] > 0 ? "\n" : "");
    fflush(stdout);
}

/* ---- for machines --------------------------------------------------------------------------------------- */

static void json_group(const struct options *o, const struct group *g)
{
    static bool another;

    for (unsigned e = 0; e < o->engines.count; e++) {
        const struct space *s = &g->space[e];
        for (const struct row *row = g->rows; row < g->rows + g->row_count; row++) {
            printf("%s\n  {\"where\": \"%s\", \"key\": %u, \"value\": %u, \"threads\": %u, \"keys\": %" PRIu64
                   ", \"memory\": %" PRIu64 ", \"workload\": \"%s\", \"distribution\": \"%s\", \"engine\": \"%s\", "
                   "\"error\": %d, \"missing\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"written\": %.3f, \"ops\": [",
                   another ? "," : "", g->in_memory ? "memory" : "disk", g->shape.key_len, g->shape.value_len,
                   g->threads, g->keys, g->memory_bytes, row->workload->name, DISTRIBUTION[row->distribution],
                   o->engines.list[e]->name, row->error[e], row->missing[e], row->wrong[e],
                   median(row->written[e], o->rounds));
            for (unsigned r = 0; r < o->rounds; r++)
                printf("%s%.0f", r ? ", " : "", row->rates[e][r]);
            printf("], \"cpu_ns\": [");
            for (unsigned r = 0; r < o->rounds; r++)
                printf("%s%.1f", r ? ", " : "", row->cpu[e][r] * 1e9);
            printf("], \"empty\": %" PRId64 ", \"largest\": %" PRId64 ", \"disk\": %" PRIu64 ", \"closed\": %" PRIu64
                   "}",
                   (int64_t)(s->empty - s->start), (int64_t)(s->largest - s->start), s->disk, s->closed);
            another = true;
        }
    }
    for (unsigned i = 0; i < 3 && g->device_reads[i] > 0; i++)
        printf(",\n  {\"device_reads\": %.0f, \"depth\": %u}", g->device_reads[i], g->device_depths[i]);
    fflush(stdout);
}

void report_head(const struct options *o)
{
    if (o->json) {
        printf("{\"seed\": %" PRIu64 ", \"cells\": [", o->seed);
        return;
    }
    printf("seed %" PRIu64 "\n", o->seed);
    for (unsigned e = 0; e < o->engines.count; e++)
        printf("%s: %s\n", o->engines.list[e]->name, o->engines.list[e]->about);
    const char *tunables = getenv("GLIBC_TUNABLES");
    printf("malloc in huge pages: %s\n", tunables && strstr(tunables, "malloc.hugetlb=1") ? "yes" : "no");
}

void report_group(const struct options *o, const struct group *g)
{
    if (o->json)
        json_group(o, g);
    else
        print_group(o, g);
}

void report_tail(const struct options *o)
{
    if (o->json)
        printf("\n]}\n");
}
