// SPDX-License-Identifier: MIT
/* group: all engines through the cells of one place, shape and number of threads. */
#ifndef YCSB_GROUP_H
#define YCSB_GROUP_H

#include "process.h"
#include "report.h"

/* Keys, memory and row list of a group, by the options. */
void group_plan(struct group *group, const struct options *options, bool in_memory, struct shape shape,
                unsigned threads);
/* Measures it. False: something is wrong with the machine (said on stderr). */
bool group_run(struct group *group, const struct options *options, const struct sequence *sequence);

/* An empty directory for the engine below options->dir, name in `path`; and away with it. */
bool engine_dir_make(const struct options *options, const struct ycsb_engine *engine, char path[4096]);
void engine_dir_remove(const char *path);

#endif
