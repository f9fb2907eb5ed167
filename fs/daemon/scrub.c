// SPDX-License-Identifier: MIT
/*
 * fasterfs scrub: asks the daemon for one part after the other, and sleeps in between. What is damaged is told by
 * inode; the names are found at the end, by a walk over the mount.
 */
#include "cli.h"
#include "scrubbing.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RATE_DEFAULT ((uint64_t)64 << 20)
#define PART_BYTES (1u << 20)

struct hit {
    struct fs_scrub_fault fault;
    char *path; /* malloc'ed; NULL: not found */
};

static struct { /* nftw(3) gives its callback nothing */
    struct hit *hits;
    size_t count, room;
    const char *mountpoint;
} found;

static int add_faults(const struct fs_scrub *part)
{
    for (uint32_t i = 0; i < part->count; i++) {
        if (found.count == found.room) {
            size_t room = found.room ? found.room * 2 : 64;
            struct hit *grown = realloc(found.hits, room * sizeof(*grown));
            if (!grown)
                return -ENOMEM;
            found.hits = grown;
            found.room = room;
        }
        found.hits[found.count++] = (struct hit){.fault = part->faults[i]};
    }
    return 0;
}

static int match(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    if (type == FTW_NS) /* there is no number */
        return 0;
    for (size_t i = 0; i < found.count; i++) {
        struct hit *hit = &found.hits[i];
        const char *below = path + strlen(found.mountpoint);
        if (hit->path || hit->fault.ino == 0 || hit->fault.ino != st->st_ino)
            continue;
        if (asprintf(&hit->path, "%s%s%s", below[0] || hit->fault.name[0] ? below : "/", hit->fault.name[0] ? "/" : "",
                     hit->fault.name) < 0)
            hit->path = NULL;
    }
    return 0;
}

static void pause_for(uint64_t bytes, uint64_t rate)
{
    if (rate == 0 || bytes == 0)
        return;
    uint64_t ns = bytes * 1000000000 / rate;
    nanosleep(&(struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)}, NULL);
}

/* 0 or -errno. */
static int run(int root, const char *path, bool restart, uint64_t rate, uint64_t *ret_bytes)
{
    struct progress progress = {0};
    struct fs_scrub part = {.restart = restart};
    int rc = 0;
    for (*ret_bytes = 0; rc == 0 && !part.finished; *ret_bytes += part.read_bytes) {
        part.max_bytes = PART_BYTES;
        if (ioctl(root, SCRUB_IOCTL, &part) < 0) {
            rc = -errno;
            break;
        }
        part.restart = false;
        rc = add_faults(&part);
        progress_tell(&progress, path, "scrub", part.position, part.end);
        pause_for(part.read_bytes, rate);
    }
    progress_end(&progress);
    return rc;
}

static void print_json(const char *mountpoint, int status, uint64_t bytes)
{
    printf("{\n  \"mountpoint\": ");
    print_json_string(mountpoint);
    printf(",\n  \"result\": \"%s\", \"status\": %d, \"bytes\": %llu, \"faults\": %zu,\n  \"list\": [",
           status == CHECK_CLEAN ? "clean" : "damaged", status, (unsigned long long)bytes, found.count);
    for (size_t i = 0; i < found.count; i++) {
        const struct hit *hit = &found.hits[i];
        printf("%s\n    {\"path\": ", i ? "," : "");
        if (hit->path)
            print_json_string(hit->path);
        else
            fputs("null", stdout);
        fputs(", \"snapshot\": null, \"what\": ", stdout);
        print_json_string(hit->fault.what);
        printf(", \"ino\": %llu, \"offset\": %llu, \"len\": %llu, \"mended\": false}",
               (unsigned long long)hit->fault.ino, (unsigned long long)hit->fault.offset,
               (unsigned long long)hit->fault.len);
    }
    printf("%s]\n}\n", found.count ? "\n  " : "");
}

static void print_words(const char *path, uint64_t bytes)
{
    char size[16];
    for (size_t i = 0; i < found.count; i++) {
        const struct hit *hit = &found.hits[i];
        fault_print(hit->path, NULL, hit->fault.what, hit->fault.ino, hit->fault.offset, hit->fault.len);
        putchar('\n');
    }
    if (found.count)
        printf("%s: damaged: %zu faults; restore those files from a backup, or unmount and `fasterfs check --repair`\n",
               path, found.count);
    else
        printf("%s: clean: %s of log\n", path, size_text(bytes, size));
}

static int scrub(const char *path, bool restart, uint64_t rate, bool json)
{
    struct mounted mounted;
    uint64_t bytes;
    int root = mounted_open(path, &mounted);
    if (root < 0)
        return CHECK_FAILED;
    int rc = run(root, path, restart, rate, &bytes);
    close(root);
    found.mountpoint = mounted.mountpoint;
    if (rc == 0 && found.count > 0)
        (void)nftw(mounted.mountpoint, match, 64, FTW_PHYS | FTW_MOUNT); /* what it does not find has no path */
    int status = rc < 0 ? CHECK_FAILED : found.count ? CHECK_LEFT : CHECK_CLEAN;
    if (rc == -EPERM)
        complain(path, "only root and the owner of the mount may scrub it");
    else if (rc == -ENOTTY || rc == -ENOSYS)
        complain(path, "its daemon cannot scrub; unmount and mount it with this version");
    else if (rc < 0)
        complain(path, "cannot be read: %s; look at its disk and the kernel's messages", strerror(-rc));
    else if (json)
        print_json(path, status, bytes);
    else
        print_words(path, bytes);
    for (size_t i = 0; i < found.count; i++)
        free(found.hits[i].path);
    free(found.hits);
    mounted_free(&mounted);
    return finish_output(status, CHECK_FAILED);
}

static int usage(const char *format, const char *arg)
{
    complain_usage("scrub", format, arg);
    return CHECK_USAGE;
}

int command_scrub(int argc, char **argv)
{
    const char *path = NULL;
    bool restart = false, json = false;
    uint64_t rate = RATE_DEFAULT;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (strcmp(argv[i], "--restart") == 0)
            restart = true;
        else if (strncmp(argv[i], "--rate=", 7) == 0 && parse_size(argv[i] + 7, &rate))
            continue;
        else if (argv[i][0] == '-')
            return usage("unknown option, or no size: `%s`", argv[i]);
        else if (path)
            return usage("`%s` is one argument too many", argv[i]);
        else
            path = argv[i];
    }
    return path ? scrub(path, restart, rate, json) : usage("scrub what? %s is missing", "MOUNTPOINT");
}
