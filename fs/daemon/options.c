// SPDX-License-Identifier: MIT
#include "options.h"

#include "cli.h"
#include "serve.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_DEFAULT_BYTES ((uint64_t)64 << 20)
#define MEMORY_LEAST_BYTES ((uint64_t)1 << 20)
#define SIZE_LEAST_BYTES ((uint64_t)16 << 20)

/* Given on as they are. */
static const char *const PASSED[] = {"rw",      "ro",          "atime",      "noatime",      "suid", "nosuid",
                                     "dev",     "nodev",       "exec",       "noexec",       "sync", "async",
                                     "dirsync", "allow_other", "allow_root", "auto_unmount", NULL};
/* What mount(8), fstab and other FUSE filesystems know and nothing needs to be done about. */
static const char *const IGNORED[] = {"defaults",    "default_permissions",
                                      "auto",        "noauto",
                                      "user",        "users",
                                      "nouser",      "owner",
                                      "nofail",      "_netdev",
                                      "relatime",    "norelatime",
                                      "diratime",    "nodiratime",
                                      "strictatime", "nostrictatime",
                                      "lazytime",    "nolazytime",
                                      "silent",      "loud",
                                      "user_xattr",  "acl",
                                      "big_writes",  "subtype=",
                                      "user=",       "comment=",
                                      "x-",          "user_id=",
                                      "group_id=",   "rootmode=",
                                      "max_read=",   "blksize=",
                                      NULL};

static bool in(const char *const *list, const char *word)
{
    for (; *list; list++) {
        size_t len = strlen(*list);
        bool prefix = (*list)[len - 1] == '=' || (*list)[len - 1] == '-';
        if (prefix ? strncmp(word, *list, len) == 0 : strcmp(word, *list) == 0)
            return true;
    }
    return false;
}

bool parse_size(const char *text, uint64_t *ret_bytes)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = 0;
    switch (toupper((unsigned char)*end)) {
    case 'K':
        shift = 10;
        break;
    case 'M':
        shift = 20;
        break;
    case 'G':
        shift = 30;
        break;
    case 'T':
        shift = 40;
        break;
    default:
        break;
    }
    end += shift != 0;
    if (shift && strcasecmp(end, "iB") == 0)
        end += 2;
    else if (shift && strcasecmp(end, "B") == 0)
        end += 1;
    if (errno || *end || n > UINT64_MAX >> shift)
        return false;
    *ret_bytes = (uint64_t)n << shift;
    return true;
}

static int pass(struct mount_settings *settings, const char *word)
{
    size_t used = strlen(settings->passed);
    int n = snprintf(settings->passed + used, sizeof(settings->passed) - used, "%s%s", used ? "," : "", word);
    if (n < 0 || (size_t)n >= sizeof(settings->passed) - used)
        return complain_usage("mount", "too many options");
    return STATUS_DONE;
}

static int parse_word(struct mount_settings *settings, const char *word)
{
    if (!word[0])
        return STATUS_DONE;
    if (strncmp(word, "memory=", 7) == 0) {
        if (!parse_size(word + 7, &settings->memory_bytes))
            return complain_usage("mount", "memory=%s is not a size such as 64M or 1G", word + 7);
        if (settings->memory_bytes < MEMORY_LEAST_BYTES)
            return complain_usage("mount", "memory=%s is less than 1M", word + 7);
        return STATUS_DONE;
    }
    if (strncmp(word, "size=", 5) == 0) {
        if (!parse_size(word + 5, &settings->size_bytes))
            return complain_usage("mount", "size=%s is not a size such as 500M or 10G", word + 5);
        if (settings->size_bytes < SIZE_LEAST_BYTES)
            return complain_usage("mount", "size=%s is less than 16M", word + 5);
        return STATUS_DONE;
    }
    if (strncmp(word, "threads=", 8) == 0) {
        char *end;
        unsigned long n = strtoul(word + 8, &end, 10);
        if (!isdigit((unsigned char)word[8]) || *end || n < 1 || n > SERVE_THREADS_MAX)
            return complain_usage("mount", "threads=%s is not a number from 1 to %u", word + 8, SERVE_THREADS_MAX);
        settings->threads = (unsigned)n;
        return STATUS_DONE;
    }
    if (strcmp(word, "cold") == 0 || strncmp(word, "cold=", 5) == 0) {
        free(settings->cold);
        settings->cold = word[4] ? path_absolute(word + 5) : strdup("");
        return settings->cold ? STATUS_DONE : complain_usage("mount", "cold=%s: %s", word + 5, strerror(errno));
    }
    if (strncmp(word, "fsname=", 7) == 0) {
        free(settings->fsname);
        settings->fsname = strdup(word + 7);
        return settings->fsname ? STATUS_DONE : complain(settings->store, "out of memory");
    }
    if (strcmp(word, "nonempty") == 0) {
        settings->nonempty = true;
        return STATUS_DONE;
    }
    if (strcmp(word, "noxattr") == 0) {
        settings->no_xattr = true;
        return STATUS_DONE;
    }
    if (strcmp(word, "remount") == 0) {
        settings->remount = true;
        return STATUS_DONE;
    }
    if (strcmp(word, "debug") == 0) {
        settings->debug = settings->foreground = true;
        return STATUS_DONE;
    }
    if (strcmp(word, "noatime") == 0)
        settings->atime = FS_ATIME_NEVER;
    if (strcmp(word, "relatime") == 0 || strcmp(word, "atime") == 0)
        settings->atime = FS_ATIME_RELATIVE;
    if (strcmp(word, "strictatime") == 0)
        settings->atime = FS_ATIME_ALWAYS;
    if (strcmp(word, "ro") == 0)
        settings->read_only = true;
    if (strcmp(word, "rw") == 0)
        settings->read_only = false;
    if (in(PASSED, word))
        return strcmp(word, "ro") == 0 || strcmp(word, "rw") == 0 ? STATUS_DONE : pass(settings, word);
    if (in(IGNORED, word))
        return STATUS_DONE;
    return complain_usage("mount", "unknown option `-o %s`", word);
}

/* "a,b=c": a comma in a value is written "\,". */
static int parse_list(struct mount_settings *settings, const char *list)
{
    char word[4096];
    size_t n = 0;
    for (const char *c = list;; c++) {
        if (*c == ',' || *c == '\0') {
            word[n] = '\0';
            n = 0;
            int status = parse_word(settings, word);
            if (status != STATUS_DONE || *c == '\0')
                return status;
            continue;
        }
        if (*c == '\\' && c[1])
            c++;
        if (n + 1 >= sizeof(word))
            return complain_usage("mount", "an option is too long");
        word[n++] = *c;
    }
}

int settings_parse(int argc, char **argv, struct mount_settings *ret_settings)
{
    *ret_settings = (struct mount_settings){.memory_bytes = MEMORY_DEFAULT_BYTES};
    char *paths[2] = {NULL};
    int count = 0, status = STATUS_DONE;
    bool words_only = false;
    for (int i = 1; i < argc && status == STATUS_DONE; i++) {
        const char *arg = argv[i];
        if (words_only || arg[0] != '-' || !arg[1]) {
            if (count == 2)
                status = complain_usage("mount", "`%s` is one argument too many", arg);
            else
                paths[count++] = argv[i];
        } else if (strcmp(arg, "--") == 0) {
            words_only = true;
        } else if (strcmp(arg, "-f") == 0) {
            ret_settings->foreground = true;
        } else if (strcmp(arg, "-d") == 0) {
            ret_settings->debug = ret_settings->foreground = true;
        } else if (strcmp(arg, "-s") == 0) {
            ret_settings->threads = 1;
        } else if (strncmp(arg, "-o", 2) == 0) {
            const char *list = arg[2] ? arg + 2 : i + 1 < argc ? argv[++i] : NULL;
            status = list ? parse_list(ret_settings, list) : complain_usage("mount", "-o what?");
        } else {
            status = complain_usage("mount", "unknown option `%s`", arg);
        }
    }
    if (status == STATUS_DONE && count < 2)
        status = complain_usage("mount", count ? "MOUNTPOINT is missing" : "STORE and MOUNTPOINT are missing");
    for (int i = 0; i < 2 && status == STATUS_DONE; i++)
        if (!paths[i][0])
            status = complain_usage("mount", "an empty path");
    if (status == STATUS_DONE) {
        ret_settings->store = path_absolute(paths[0]);
        ret_settings->mountpoint = path_absolute(paths[1]);
        if (!ret_settings->store || !ret_settings->mountpoint)
            status = complain(paths[0], "%s", strerror(errno));
    }
    if (status != STATUS_DONE)
        settings_free(ret_settings);
    return status;
}

void settings_free(struct mount_settings *settings)
{
    free(settings->store);
    free(settings->mountpoint);
    free(settings->fsname);
    free(settings->cold);
}
