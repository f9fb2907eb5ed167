// SPDX-License-Identifier: MIT
/*
 * fsbench: what single operations cost in a directory of any filesystem: p50 and p99 in microseconds.
 *
 *     fsbench [--files N] [--dirs N] [--fsyncs N] [--large MIB] [--seed N] [--json] DIR
 *
 * One thread, N files in D directories in random order, but for `fsync by T`: T threads, each of which creates files in a
 * directory of its own, writes 4 KiB, fsyncs and closes. A first touch of every file is made before the
 * timed rounds of `stat` and `read`, so they show what a program meets that comes back. `random write`, `random
 * read`: pages of 4 KiB of one file of MIB MiB, past the kernel's cache (O_DIRECT), by one thread and by 32; N of
 * each. `readdir (cold)` comes behind them, and drops the kernel's caches (root only, else it is left out).
 * DIR/fsbench.tmp is made and removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES = 4096, PATH_BYTES = 64, DEPTH = 32 };

static struct {
    unsigned files, dirs, fsyncs, large_mib;
    uint64_t seed;
    bool json;
} settings = {.files = 10000, .dirs = 100, .fsyncs = 640, .large_mib = 128, .seed = 1};

static uint64_t random_state;
static unsigned *order;
static double *took_us;
static _Alignas(FILE_BYTES) char contents[FILE_BYTES];
static int large_fd;
static unsigned large_round; /* each takes other pages */
static bool first_result = true;

static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void shuffle(void)
{
    for (unsigned i = 0; i < settings.files; i++)
        order[i] = i;
    for (unsigned i = settings.files - 1; i > 0; i--) {
        unsigned j = (unsigned)(next_random() % (i + 1)), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "fsbench: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void path_of(unsigned file, const char *suffix, char *ret_path)
{
    snprintf(ret_path, PATH_BYTES, "d%u/f%u%s", file % settings.dirs, file, suffix);
}

/* ---- operations: on the working directory, which is DIR/fsbench.tmp ------------------------------- */

static void op_write_file(const char *path, int flags, bool sync)
{
    int fd = open(path, O_WRONLY | flags, 0644);
    if (fd < 0)
        fail("open", path);
    if (write(fd, contents, FILE_BYTES) != FILE_BYTES)
        fail("write", path);
    if (sync && fsync(fd) < 0)
        fail("fsync", path);
    if (close(fd) < 0)
        fail("close", path);
}

static void op_create(unsigned file)
{
    char path[PATH_BYTES];
    path_of(file, "", path);
    op_write_file(path, O_CREAT | O_EXCL, false);
}

static void op_stat(unsigned file)
{
    char path[PATH_BYTES];
    struct stat st;
    path_of(file, "", path);
    if (stat(path, &st) < 0)
        fail("stat", path);
}

static void op_miss(unsigned file)
{
    char path[PATH_BYTES];
    struct stat st;
    path_of(file, ".missing", path);
    if (stat(path, &st) == 0 || errno != ENOENT)
        fail("miss", path);
}

static void op_read(unsigned file)
{
    char path[PATH_BYTES], buf[FILE_BYTES];
    path_of(file, "", path);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, buf, FILE_BYTES) != FILE_BYTES || close(fd) < 0)
        fail("read", path);
}

static void op_overwrite(unsigned file)
{
    char path[PATH_BYTES];
    path_of(file, "", path);
    op_write_file(path, 0, false);
}

static void op_rename(unsigned file)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    path_of(file, "", from);
    path_of(file, ".r", to);
    if (rename(from, to) < 0)
        fail("rename", from);
}

static void op_readdir(unsigned dir)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "d%u", dir);
    DIR *stream = opendir(path);
    if (!stream)
        fail("opendir", path);
    while (readdir(stream))
        ;
    closedir(stream);
}

static unsigned fsync_round; /* each makes other files */

static void op_fsync_create(unsigned thread, unsigned n)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "t%u/s%u.%u", thread, fsync_round, n);
    op_write_file(path, O_CREAT | O_EXCL, true);
}

static void op_unlink(unsigned file)
{
    char path[PATH_BYTES];
    path_of(file, ".r", path);
    if (unlink(path) < 0)
        fail("unlink", path);
}

/* The page of the large file that the random number says. */
static off_t page_of(unsigned n)
{
    uint64_t z = (n + ((uint64_t)large_round << 32) + settings.seed) * UINT64_C(0x9e3779b97f4a7c15);
    return (off_t)((z ^ z >> 29) % ((uint64_t)settings.large_mib * 256) * FILE_BYTES);
}

static void op_write_page(unsigned thread, unsigned n)
{
    (void)thread;
    if (pwrite(large_fd, contents, FILE_BYTES, page_of(n)) != FILE_BYTES)
        fail("write", "large");
}

static void op_read_page(unsigned thread, unsigned n)
{
    (void)thread;
    _Alignas(FILE_BYTES) char buf[FILE_BYTES];
    if (pread(large_fd, buf, FILE_BYTES, page_of(n)) != FILE_BYTES)
        fail("read", "large");
}

static void make_large(void)
{
    static char bytes[1 << 20];
    int fd = open("large", O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        fail("open", "large");
    for (unsigned i = 0; i < settings.large_mib; i++) {
        for (unsigned at = 0; at < sizeof(bytes); at += 8) {
            uint64_t word = next_random();
            memcpy(bytes + at, &word, 8);
        }
        if (write(fd, bytes, sizeof(bytes)) != sizeof(bytes))
            fail("write", "large");
    }
    if (fsync(fd) < 0 || close(fd) < 0)
        fail("sync", "large");
    large_fd = open("large", O_RDWR | O_DIRECT);
    if (large_fd < 0)
        fail("open", "large");
}

/* False: not allowed. */
static bool drop_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    bool done = fd >= 0 && write(fd, "3", 1) == 1;
    if (fd >= 0)
        close(fd);
    return done;
}

/* ---- rounds --------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *name, unsigned count, double total)
{
    qsort(took_us, count, sizeof(*took_us), by_value);
    double p50 = took_us[count / 2], p99 = took_us[(uint64_t)count * 99 / 100], per_s = count / total * 1e6;
    if (settings.json)
        printf("%s\n    \"%s\": {\"count\": %u, \"p50_us\": %.2f, \"p99_us\": %.2f, \"per_s\": %.0f}",
               first_result ? "" : ",", name, count, p50, p99, per_s);
    else
        printf("%-14s %8u %10.1f %10.1f %12.0f\n", name, count, p50, p99, per_s);
    first_result = false;
    fflush(stdout);
}

static void timed_round(const char *name, void (*op)(unsigned), unsigned count, bool shuffled)
{
    shuffle();
    double start = now_us();
    for (unsigned i = 0; i < count; i++) {
        double before = now_us();
        op(shuffled ? order[i] : i);
        took_us[i] = now_us() - before;
    }
    report(name, count, now_us() - start);
}

struct lane { /* one of several threads */
    pthread_t thread;
    void (*op)(unsigned thread, unsigned n);
    unsigned number, first, end;
};

static void *run_lane(void *arg)
{
    struct lane *lane = arg;
    for (unsigned i = lane->first; i < lane->end; i++) {
        double before = now_us();
        lane->op(lane->number, i);
        took_us[i] = now_us() - before;
    }
    return NULL;
}

/* By so many threads, up to DEPTH. */
static void deep_round(const char *name, void (*op)(unsigned, unsigned), unsigned threads, unsigned count)
{
    struct lane lanes[DEPTH];
    unsigned each = count / threads;
    double start = now_us();
    for (unsigned i = 0; i < threads; i++) {
        lanes[i] = (struct lane){.op = op, .number = i, .first = each * i, .end = each * (i + 1)};
        errno = pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]);
        if (errno)
            fail("start threads for", name);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(lanes[i].thread, NULL);
    report(name, each * threads, now_us() - start);
}

static void fsync_rounds(void)
{
    static const unsigned threads[] = {1, 2, 8, DEPTH};
    for (unsigned i = 0; i < DEPTH; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof(path), "t%u", i);
        if (mkdir(path, 0755) < 0)
            fail("mkdir", path);
    }
    for (; fsync_round < sizeof(threads) / sizeof(threads[0]); fsync_round++) {
        char name[PATH_BYTES];
        snprintf(name, sizeof(name), "fsync by %u", threads[fsync_round]);
        deep_round(name, op_fsync_create, threads[fsync_round], settings.fsyncs);
    }
}

static void round_untimed(void (*op)(unsigned), unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        op(i);
}

static void remove_dir(char kind, unsigned number)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof(path), "%c%u", kind, number);
    DIR *stream = opendir(path);
    for (struct dirent *entry; stream && (entry = readdir(stream));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(stream), entry->d_name, 0);
    if (stream)
        closedir(stream);
    rmdir(path);
}

static unsigned number(const char *text, const char *option)
{
    char *end;
    unsigned long n = strtoul(text ? text : "", &end, 10);
    if (!text || *end || n < 1 || n > 100000000) {
        fprintf(stderr, "fsbench: %s wants a number from 1 to 100000000\n", option);
        exit(2);
    }
    return (unsigned)n;
}

int main(int argc, char **argv)
{
    const char *dir = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            settings.json = true;
        } else if (strcmp(argv[i], "--files") == 0) {
            settings.files = number(argv[++i], "--files");
        } else if (strcmp(argv[i], "--dirs") == 0) {
            settings.dirs = number(argv[++i], "--dirs");
        } else if (strcmp(argv[i], "--fsyncs") == 0) {
            settings.fsyncs = number(argv[++i], "--fsyncs");
        } else if (strcmp(argv[i], "--large") == 0) {
            settings.large_mib = number(argv[++i], "--large");
        } else if (strcmp(argv[i], "--seed") == 0) {
            settings.seed = number(argv[++i], "--seed");
        } else if (argv[i][0] == '-' || dir) {
            fprintf(stderr, "usage: fsbench [--files N] [--dirs N] [--fsyncs N] [--large MIB] [--seed N] [--json] DIR\n");
            return 2;
        } else {
            dir = argv[i];
        }
    }
    if (!dir) {
        fprintf(stderr, "usage: fsbench [--files N] [--dirs N] [--fsyncs N] [--large MIB] [--seed N] [--json] DIR\n");
        return 2;
    }
    if (settings.dirs > settings.files)
        settings.dirs = settings.files;
    random_state = settings.seed;
    order = calloc(settings.files, sizeof(*order));
    took_us = calloc(settings.files > settings.fsyncs ? settings.files : settings.fsyncs, sizeof(*took_us));
    if (!order || !took_us)
        fail("allocate for", dir);
    for (unsigned i = 0; i < FILE_BYTES; i++)
        contents[i] = (char)next_random();
    if (chdir(dir) < 0 || mkdir("fsbench.tmp", 0755) < 0 || chdir("fsbench.tmp") < 0)
        fail("make fsbench.tmp in", dir);
    for (unsigned i = 0; i < settings.dirs; i++) {
        char path[PATH_BYTES];
        snprintf(path, sizeof(path), "d%u", i);
        if (mkdir(path, 0755) < 0)
            fail("mkdir", path);
    }

    if (settings.json)
        printf("{\n  \"dir\": \"%s\", \"files\": %u, \"dirs\": %u, \"seed\": %llu,\n  \"ops\": {", dir, settings.files,
               settings.dirs, (unsigned long long)settings.seed);
    else
        printf("%-14s %8s %10s %10s %12s\n", "op", "count", "p50 us", "p99 us", "per second");
    timed_round("create", op_create, settings.files, true);
    round_untimed(op_stat, settings.files);
    timed_round("stat", op_stat, settings.files, true);
    timed_round("miss (1st)", op_miss, settings.files, true);
    timed_round("miss", op_miss, settings.files, true);
    round_untimed(op_read, settings.files);
    timed_round("read", op_read, settings.files, true);
    timed_round("overwrite", op_overwrite, settings.files, true);
    timed_round("stat (written)", op_stat, settings.files, true);
    timed_round("readdir (1st)", op_readdir, settings.dirs, false);
    timed_round("readdir", op_readdir, settings.dirs, false);
    timed_round("rename", op_rename, settings.files, true);
    fsync_rounds();
    make_large();
    large_round++;
    deep_round("random write", op_write_page, 1, settings.files);
    large_round++;
    deep_round("write by 32", op_write_page, DEPTH, settings.files);
    large_round++;
    deep_round("random read", op_read_page, 1, settings.files);
    large_round++;
    deep_round("read by 32", op_read_page, DEPTH, settings.files);
    close(large_fd);
    if (drop_caches())
        timed_round("readdir (cold)", op_readdir, settings.dirs, false);
    timed_round("unlink", op_unlink, settings.files, true);
    if (settings.json)
        printf("\n  }\n}\n");

    unlink("large");
    for (unsigned i = 0; i < settings.dirs; i++)
        remove_dir('d', i);
    for (unsigned i = 0; i < DEPTH; i++)
        remove_dir('t', i);
    (void)!chdir("..");
    rmdir("fsbench.tmp");
    free(order);
    free(took_us);
    return 0;
}
