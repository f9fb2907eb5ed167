// SPDX-License-Identifier: MIT
/* report: what a group of cells (one place, shape and number of threads) gave, as tables or JSON. */
#ifndef YCSB_REPORT_H
#define YCSB_REPORT_H

#include "options.h"

#define ROUNDS_MAX 99u
#define ROWS_MAX (WORKLOADS * DISTRIBUTIONS)

struct row {
    const struct workload *workload;
    enum distribution distribution;
    double rates[ENGINES_MAX][ROUNDS_MAX];   /* operations a second; 0: not measured */
    double cpu[ENGINES_MAX][ROUNDS_MAX];     /* seconds of processor time an operation, background threads included */
    double written[ENGINES_MAX][ROUNDS_MAX]; /* bytes to the device per byte written by the user; < 0: none */
    int error[ENGINES_MAX];                  /* 0 or the last -errno */
    uint64_t missing[ENGINES_MAX], wrong[ENGINES_MAX];
};

struct space {
    uint64_t start, empty, largest; /* resident bytes: before open, after, most at the end of a cell */
    uint64_t disk, closed;          /* bytes on disk after load, and after close */
};

struct group {
    bool in_memory;
    struct shape shape;
    unsigned threads;
    uint64_t keys, memory_bytes;
    struct row rows[ROWS_MAX];
    unsigned row_count;
    struct space space[ENGINES_MAX]; /* of the last round */
    double device_reads[3];          /* a second at depth 1, `depth`, and `threads` times depth; 0: not measured */
    unsigned device_depths[3];
};

void report_head(const struct options *options);
void report_group(const struct options *options, const struct group *group);
void report_tail(const struct options *options);

/* A line on the terminal that the next one replaces; nothing where stderr is no terminal. */
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
double median(const double *values, unsigned count);

#endif
