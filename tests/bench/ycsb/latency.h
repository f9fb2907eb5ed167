// SPDX-License-Identifier: MIT
/* latency: a histogram of nanoseconds, 16 steps an octave. */
#ifndef YCSB_LATENCY_H
#define YCSB_LATENCY_H

#include <stdint.h>
#include <time.h>

#define LATENCY_BUCKETS (64u * 16u)

struct latency {
    uint64_t count, longest;
    uint64_t buckets[LATENCY_BUCKETS];
};

static inline uint64_t latency_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void latency_add(struct latency *l, uint64_t ns)
{
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns | 16);

    l->buckets[octave * 16 + (ns >> (octave - 4) & 15)]++;
    l->count++;
    l->longest = ns > l->longest ? ns : l->longest;
}

static inline void latency_merge(struct latency *to, const struct latency *from)
{
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
    to->count += from->count;
    to->longest = from->longest > to->longest ? from->longest : to->longest;
}

/* Lower end of the bucket in which the quantile lies. */
static inline uint64_t latency_quantile(const struct latency *l, double quantile)
{
    uint64_t rank = (uint64_t)((double)l->count * quantile), seen = 0;

    for (unsigned i = 4 * 16; i < LATENCY_BUCKETS; i++) {
        seen += l->buckets[i];
        if (seen > rank)
            return (uint64_t)(16 + i % 16) << (i / 16 - 4);
    }
    return 0;
}

#endif
