// SPDX-License-Identifier: MIT
#include "workload.h"

#include <math.h>
#include <sys/mman.h>

static void *shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static uint64_t next(uint64_t *state)
{
    return mix(*state += UINT64_C(0x9e3779b97f4a7c15));
}

static double fraction(uint64_t random)
{
    return (double)(random >> 11) * 0x1p-53;
}

/* Ranks by Gray et al., "Quickly generating billion-record synthetic databases", as YCSB has it. */
static void make_zipf(uint32_t *ids, uint64_t length, uint64_t keys, uint64_t state)
{
    const double theta = 0.99;
    double zeta = 0;

    for (uint64_t i = 1; i <= keys; i++)
        zeta += pow((double)i, -theta);
    double half = pow(0.5, theta), alpha = 1 / (1 - theta);
    double eta = (1 - pow(2.0 / (double)keys, 1 - theta)) / (1 - (1 + half) / zeta);
    for (uint64_t i = 0; i < length; i++) {
        double u = fraction(next(&state));
        uint64_t rank = u * zeta < 1          ? 0
                        : u * zeta < 1 + half ? 1
                                              : (uint64_t)((double)keys * pow(eta * u - eta + 1, alpha));
        ids[i] = (uint32_t)(mix(rank + 1) % keys);
    }
}

bool sequence_make(struct sequence *sequence, uint64_t keys, uint64_t length, uint64_t seed)
{
    *sequence = (struct sequence){.keys = keys, .length = length};
    sequence->ids[UNIFORM] = shared(length * sizeof(uint32_t));
    sequence->ids[ZIPF] = shared(length * sizeof(uint32_t));
    sequence->dice = shared(length);
    if (!sequence->ids[UNIFORM] || !sequence->ids[ZIPF] || !sequence->dice)
        return false;
    for (uint64_t i = 0; i < length; i++) {
        sequence->ids[UNIFORM][i] = (uint32_t)(next(&seed) % keys);
        sequence->dice[i] = (uint8_t)next(&seed);
    }
    make_zipf(sequence->ids[ZIPF], length, keys, seed);
    return true;
}

void sequence_free(struct sequence *sequence)
{
    munmap(sequence->ids[UNIFORM], sequence->length * sizeof(uint32_t));
    munmap(sequence->ids[ZIPF], sequence->length * sizeof(uint32_t));
    munmap(sequence->dice, sequence->length);
}
