// SPDX-License-Identifier: MIT
/* fasterfs snapshot: mkdir, ls and rmdir in MOUNTPOINT/.snapshots. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fs/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct snapshot {
    char name[FS_NAME_MAX + 1];
    struct timespec time;
};

static int by_time(const void *a, const void *b)
{
    const struct snapshot *x = a, *y = b;
    if (x->time.tv_sec != y->time.tv_sec)
        return x->time.tv_sec < y->time.tv_sec ? -1 : 1;
    if (x->time.tv_nsec != y->time.tv_nsec)
        return x->time.tv_nsec < y->time.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int list(int dir, const char *path, bool json)
{
    DIR *stream = fdopendir(dup(dir));
    if (!stream)
        return complain(path, "cannot list snapshots: %s", strerror(errno));
    struct snapshot *all = NULL;
    size_t count = 0, room = 0;
    int status = STATUS_DONE;
    for (struct dirent *entry; (errno = 0, entry = readdir(stream));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (count == room) {
            room = room ? room * 2 : 16;
            struct snapshot *grown = realloc(all, room * sizeof(*all));
            if (!grown) {
                status = complain(path, "out of memory");
                goto out;
            }
            all = grown;
        }
        struct stat st;
        if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue; /* deleted meanwhile */
        snprintf(all[count].name, sizeof(all[count].name), "%s", entry->d_name);
        all[count++].time = st.st_ctim;
    }
    if (errno) {
        status = complain(path, "cannot list snapshots: %s", strerror(errno));
        goto out;
    }
    if (count)
        qsort(all, count, sizeof(*all), by_time);
    int width = 4;
    for (size_t i = 0; i < count; i++)
        if ((int)strlen(all[i].name) > width)
            width = (int)strlen(all[i].name);
    if (json)
        putchar('[');
    else if (count)
        printf("%-*s  TIME\n", width, "NAME");
    for (size_t i = 0; i < count; i++) {
        struct tm tm;
        char when[64];
        if (json) {
            gmtime_r(&all[i].time.tv_sec, &tm);
            strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
            printf("%s\n  {\"name\": ", i ? "," : "");
            print_json_string(all[i].name);
            printf(", \"time\": \"%s.%09ldZ\"}", when, all[i].time.tv_nsec);
        } else {
            localtime_r(&all[i].time.tv_sec, &tm);
            strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
            printf("%-*s  %s\n", width, all[i].name, when);
        }
    }
    if (json)
        printf("%s]\n", count ? "\n" : "");
    status = finish_output(status, STATUS_FAILED);
out:
    closedir(stream);
    free(all);
    return status;
}

static int create(int dir, const char *path, const char *name)
{
    if (mkdirat(dir, name, 0755) == 0)
        return STATUS_DONE;
    if (errno == EEXIST)
        return complain(path, "there is a snapshot `%s` already; choose another name", name);
    if (errno == EROFS)
        return complain(path, "mounted read-only; mount it without -o ro to take a snapshot");
    return complain(path, "cannot take snapshot `%s`: %s", name, strerror(errno));
}

static int delete (int dir, const char *path, const char *name)
{
    if (unlinkat(dir, name, AT_REMOVEDIR) == 0)
        return STATUS_DONE;
    if (errno == ENOENT)
        return complain(path, "no snapshot `%s`; `fasterfs snapshot list %s` shows those there are", name, path);
    if (errno == EBUSY)
        return complain(path, "snapshot `%s` is being read; end that, try again", name);
    return complain(path, "cannot delete snapshot `%s`: %s", name, strerror(errno));
}

int command_snapshot(int argc, char **argv)
{
    static const char usage[] = "snapshot";
    bool json = false;
    char *args[3] = {NULL};
    int count = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (count < 3)
            args[count++] = argv[i];
        else
            return complain_usage(usage, "`%s` is one argument too many", argv[i]);
    }
    if (count < 1)
        return complain_usage(usage, "create, list or delete?");
    bool is_list = strcmp(args[0], "list") == 0, is_create = strcmp(args[0], "create") == 0;
    if (!is_list && !is_create && strcmp(args[0], "delete") != 0)
        return complain_usage(usage, "there is no `snapshot %s`", args[0]);
    if (count != (is_list ? 2 : 3))
        return complain_usage(usage, "`snapshot %s` takes MOUNTPOINT%s", args[0], is_list ? "" : " and NAME");
    if (json && !is_list)
        return complain_usage(usage, "--json is for `snapshot list`");
    if (!is_list && (strchr(args[2], '/') || !args[2][0] || strcmp(args[2], ".") == 0 || strcmp(args[2], "..") == 0))
        return complain_usage(usage, "`%s` is not a name for a snapshot", args[2]);

    struct mounted mounted;
    int root = mounted_open(args[1], &mounted);
    if (root < 0)
        return STATUS_FAILED;
    int dir = openat(root, FS_SNAPSHOTS_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status;
    if (dir < 0)
        status = complain(args[1], "cannot open %s: %s", FS_SNAPSHOTS_NAME, strerror(errno));
    else if (is_list)
        status = list(dir, args[1], json);
    else
        status = is_create ? create(dir, args[1], args[2]) : delete (dir, args[1], args[2]);
    if (dir >= 0)
        close(dir);
    close(root);
    mounted_free(&mounted);
    return status;
}
