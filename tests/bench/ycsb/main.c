// SPDX-License-Identifier: MIT
/* ycsb: our store and its peers side by side. See tests/bench/README.md and --help. */
#include "durable.h"
#include "group.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define SEQUENCE 4000000u /* operations before a sequence begins again */

static bool run_shape(const struct options *o, bool in_memory, struct shape shape)
{
    struct group *group;
    struct sequence sequence;
    bool good;

    if (!in_memory && shape.key_len + shape.value_len < 64) {
        fprintf(stderr, "ycsb: %u/%u is left out on disk: the index alone would be larger than the budget\n",
                shape.key_len, shape.value_len);
        return true;
    }
    group = malloc(sizeof *group);
    good = group != NULL;
    for (unsigned t = 0; t < o->thread_counts && good; t++) {
        group_plan(group, o, in_memory, shape, o->threads[t]);
        progress("making the sequence");
        good = sequence_make(&sequence, group->keys, SEQUENCE, o->seed);
        if (good) {
            good = group_run(group, o, &sequence);
            sequence_free(&sequence);
        }
        if (good)
            report_group(o, group);
    }
    free(group);
    return good;
}

int main(int argc, char **argv)
{
    struct options options;
    bool good = true;
    int rc = options_parse(&options, argc, argv);

    if (rc > 0)
        return rc - 1;
    signal(SIGPIPE, SIG_IGN); /* an engine that died is a result, not the end */
    report_head(&options);
    if (options.what == WHAT_CHECKPOINT)
        good = durable_checkpoint(&options);
    else if (options.what == WHAT_RECOVERY)
        good = durable_recovery(&options);
    for (unsigned where = 0; where < 2 && options.what == WHAT_THROUGHPUT; where++)
        for (unsigned s = 0; s < options.shape_count && good; s++)
            if (where == 0 ? options.in_memory : options.larger)
                good = run_shape(&options, where == 0, options.shapes[s]);
    report_tail(&options);
    return good ? 0 : 1;
}
