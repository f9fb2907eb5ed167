// SPDX-License-Identifier: MIT
/*
 * What a cold level costs and saves: cold DIR KEYS MEMORY_MIB with|without. Loads so many keys with values of 100 bytes
 * in random order, updates them as often by Zipf (0.99), waits for compaction, reads 20,000 of them at random; says
 * what was written for each byte of key and value, memory for each key in the cold level, and device reads for each
 * read.
 */
#include <private.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#define VALUE 100
#define READS 20000

static uint64_t state = 1;

static uint64_t dice(uint64_t sides)
{
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (state >> 20) % sides;
}

static void must(int rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(-rc));
    exit(1);
}

/* Gray et al., "Quickly generating billion-record synthetic databases", 1994. */
struct zipf {
    uint64_t n;
    double theta, zeta, alpha, eta;
};

static struct zipf zipf_of(uint64_t n)
{
    struct zipf z = {.n = n, .theta = 0.99, .alpha = 100};

    for (uint64_t i = 1; i <= n; i++)
        z.zeta += pow((double)i, -z.theta);
    z.eta = (1 - pow(2.0 / (double)n, 1 - z.theta)) / (1 - (1 + pow(0.5, z.theta)) / z.zeta);
    return z;
}

static uint64_t zipf(const struct zipf *z)
{
    double u = (double)dice(UINT64_C(1) << 40) / (double)(UINT64_C(1) << 40), uz = u * z->zeta;

    if (uz < 1 + pow(0.5, z->theta))
        return uz >= 1;
    return (uint64_t)((double)z->n * pow(z->eta * u - z->eta + 1, z->alpha)) % z->n;
}

static uint64_t key_of(uint64_t i)
{
    return i * UINT64_C(0x9e3779b97f4a7c15);
}

static void put(struct store_session *s, uint64_t i)
{
    uint8_t value[VALUE];
    uint64_t key = key_of(i);

    memset(value, (int)dice(256), sizeof value);
    must(store_upsert(s, &key, sizeof key, value, sizeof value), "upsert");
}

/* Until compaction has had nothing to do for a second. */
static struct store_stats settle(struct store *store)
{
    struct store_stats before, stats;

    must(store_commit(store), "commit");
    store_stats(store, &stats);
    do {
        before = stats;
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        store_stats(store, &stats);
    } while (stats.bytes_written != before.bytes_written || stats.compacted_bytes != before.compacted_bytes);
    return stats;
}

static void tell_level(const struct store *store, const struct store_stats *stats)
{
    struct index_counts index;

    if (!store->cold)
        return;
    index_count(store->cold->store->index, &index);
    printf(
        "cold level: %llu entries, %llu chunks, index %llu KiB of buckets and %llu KiB of memory: %.2f bytes a key\n",
        (unsigned long long)stats->cold_entries, (unsigned long long)stats->cold_chunks,
        (unsigned long long)(index.buckets + index.overflow_buckets) / 16, (unsigned long long)index.memory_bytes >> 10,
        (double)(index.buckets + index.overflow_buckets) * 64 / (double)stats->cold_entries);
}

static void read_some(struct store *store, struct store_session *s, uint64_t keys)
{
    struct store_stats before, after;
    uint8_t value[VALUE];

    store_stats(store, &before);
    for (unsigned n = 0; n < READS; n++) {
        uint64_t key = key_of(dice(keys));
        struct store_read read = {
            .key = &key, .key_len = sizeof key, .buf = value, .buf_len = sizeof value, .value_hint = VALUE};
        if (store_read_wait(s, &read) != STORE_OK) {
            fprintf(stderr, "a key is not there: %d\n", read.result);
            exit(1);
        }
    }
    store_stats(store, &after);
    printf("%u random reads: %.2f device reads each, %.0f bytes\n", READS,
           (double)(after.reads_device - before.reads_device) / READS,
           (double)(after.bytes_read - before.bytes_read) / READS);
}

static void tell(const char *what, const struct store_stats *before, const struct store_stats *after, uint64_t puts)
{
    printf("%s: %.2f bytes written for a byte; on disk %llu MiB, memory %llu MiB, index %llu KiB of buckets\n", what,
           (double)(after->bytes_written - before->bytes_written) / (double)puts / (VALUE + 8),
           (unsigned long long)after->kept_bytes >> 20, (unsigned long long)after->memory_bytes >> 20,
           (unsigned long long)(after->index_buckets + after->index_overflow_buckets) / 16);
}

int main(int argc, char **argv)
{
    struct device_options create = {.create = true};
    struct device *device, *cold = NULL;
    struct store_opened opened;
    struct store_session *s;
    struct store *store;
    char path[4096];

    if (argc != 5) {
        fprintf(stderr, "usage: cold DIR KEYS MEMORY_MIB with|without\n");
        return 2;
    }
    uint64_t keys = strtoull(argv[2], NULL, 0);
    must(device_open(argv[1], &create, &device), argv[1]);
    snprintf(path, sizeof path, "%s/cold", argv[1]);
    if (strcmp(argv[4], "with") == 0)
        must(device_open(path, &create, &cold), path);
    struct store_options options = {
        .memory_bytes = strtoull(argv[3], NULL, 0) << 20, .commit_interval_ms = 1000, .cold = cold};
    int rc = store_open(device, &options, &store, &opened);
    must(rc, opened.message);
    must(store_session_open(store, &s), "session");
    struct store_stats none = {0}, loaded, updated;
    for (uint64_t i = 0; i < keys; i++)
        put(s, i);
    loaded = settle(store);
    tell("load", &none, &loaded, keys);
    struct zipf z = zipf_of(keys);
    for (uint64_t i = 0; i < keys; i++)
        put(s, zipf(&z) * 7919 % keys);
    updated = settle(store);
    tell("updates", &loaded, &updated, keys);
    tell_level(store, &updated);
    read_some(store, s, keys);
    store_session_close(s);
    must(store_close(store), "close");
    device_close(cold);
    device_close(device);
    return 0;
}
