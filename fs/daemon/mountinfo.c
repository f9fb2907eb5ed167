// SPDX-License-Identifier: MIT
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

char *path_absolute(const char *path)
{
    char *cwd = path[0] == '/' ? strdup("") : getcwd(NULL, 0);
    if (!cwd)
        return NULL;
    char *joined = NULL;
    int n = asprintf(&joined, "%s/%s", cwd, path);
    free(cwd);
    if (n < 0) {
        errno = ENOMEM;
        return NULL;
    }
    /* Slashes once, no "." */
    char *to = joined;
    for (const char *from = joined; *from;) {
        from += strspn(from, "/");
        size_t len = strcspn(from, "/");
        if (len == 0)
            break;
        if (!(len == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, len);
            to += len;
        }
        from += len;
    }
    if (to == joined)
        *to++ = '/';
    *to = '\0';
    return joined;
}

char *path_resolve(const char *path)
{
    char *absolute = path_absolute(path);
    if (!absolute)
        return NULL;
    char *base = strrchr(absolute, '/') + 1;
    if (strcmp(base, "..") == 0 || base[0] == '\0') {
        char *all = realpath(absolute, NULL);
        free(absolute);
        return all;
    }
    char *real = realpath(absolute, NULL);
    if (!real && (errno == ENOTCONN || errno == EACCES)) { /* a dead mount, or another user's */
        base[-1] = '\0';
        char *parent = realpath(absolute[0] ? absolute : "/", NULL);
        if (parent && asprintf(&real, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, base) < 0)
            real = NULL;
        free(parent);
    }
    int error = errno;
    free(absolute);
    errno = error;
    return real;
}

/* \040 and the like, in place. */
static void unescape(char *s)
{
    char *to = s;
    for (const char *from = s; *from;) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] && from[3]) {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

/* Calls `each` for every mount until it returns non-zero. */
static int mountinfo_each(int (*each)(void *ctx, const struct mounted *mounted), void *ctx)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    while (rc == 0 && getline(&line, &room, file) > 0) {
        /* 36 35 98:0 /root /mountpoint options optional... - type source super-options */
        unsigned major, minor;
        char *at = line, *field[5];
        for (unsigned i = 0; i < 5 && at; i++)
            field[i] = strsep(&at, " ");
        char *dash = at ? strstr(at, " - ") : NULL;
        if (!dash || sscanf(field[2], "%u:%u", &major, &minor) != 2)
            continue;
        at = dash + 3;
        struct mounted mounted = {.mountpoint = field[4], .dev = makedev(major, minor)};
        mounted.type = strsep(&at, " ");
        mounted.source = strsep(&at, " \n");
        if (!mounted.source)
            continue;
        unescape(mounted.mountpoint);
        unescape(mounted.source);
        unescape(mounted.type);
        rc = each(ctx, &mounted);
    }
    free(line);
    fclose(file);
    return rc;
}

bool mounted_is_fasterfs(const struct mounted *mounted)
{
    return strcmp(mounted->type, "fuse.fasterfs") == 0;
}

bool mounted_is_dead(const char *path)
{
    struct statvfs space; /* the kernel always asks for this one */
    return statvfs(path, &space) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

struct find {
    const char *path;
    size_t best;
    struct mounted *found;
    int rc;
};

static int find_each(void *ctx, const struct mounted *mounted)
{
    struct find *find = ctx;
    size_t len = strlen(mounted->mountpoint);
    if (len == 1)
        len = 0; /* "/" */
    if (strncmp(find->path, mounted->mountpoint, len) != 0 || (find->path[len] && find->path[len] != '/') ||
        len < find->best)
        return 0;
    mounted_free(find->found);
    find->best = len;
    find->found->mountpoint = strdup(mounted->mountpoint);
    find->found->source = strdup(mounted->source);
    find->found->type = strdup(mounted->type);
    find->found->dev = mounted->dev;
    find->rc = find->found->mountpoint && find->found->source && find->found->type ? 0 : -ENOMEM;
    return 0;
}

int mounted_find(const char *path, struct mounted *ret_mounted)
{
    char *real = path_resolve(path);
    if (!real)
        return -errno;
    struct mounted found = {0};
    struct find find = {.path = real, .found = &found, .rc = -ENOENT};
    int rc = mountinfo_each(find_each, &find);
    free(real);
    if (rc == 0)
        rc = find.rc;
    if (rc < 0)
        mounted_free(&found);
    else
        *ret_mounted = found;
    return rc;
}

static int source_each(void *ctx, const struct mounted *mounted)
{
    return mounted_is_fasterfs(mounted) && strcmp(mounted->source, ctx) == 0;
}

bool mounted_source(const char *source)
{
    return mountinfo_each(source_each, (void *)source) > 0;
}

void mounted_free(struct mounted *mounted)
{
    free(mounted->mountpoint);
    free(mounted->source);
    free(mounted->type);
    mounted->mountpoint = mounted->source = mounted->type = NULL;
}

int mounted_open(const char *path, struct mounted *ret_mounted)
{
    struct mounted mounted;
    int rc = mounted_find(path, &mounted);
    if (rc < 0) {
        complain(path, "%s; give the directory where a store is mounted", strerror(-rc));
        return -1;
    }
    if (!mounted_is_fasterfs(&mounted)) {
        complain(path, "not in a fasterfs mount; `findmnt -t fuse.fasterfs` lists them");
        mounted_free(&mounted);
        return -1;
    }
    int fd = -1;
    if (mounted_is_dead(mounted.mountpoint))
        complain(path, "the daemon of this mount has died; clear it with `fasterfs umount %s` and mount again",
                 mounted.mountpoint);
    else if ((fd = open(mounted.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        complain(path, "%s; use it as the user who mounted it", strerror(errno));
    if (fd < 0) {
        mounted_free(&mounted);
        return -1;
    }
    *ret_mounted = mounted;
    return fd;
}
