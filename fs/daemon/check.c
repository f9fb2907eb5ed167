// SPDX-License-Identifier: MIT
/* fasterfs check: fs_check() of a store that is not mounted. */
#include "cli.h"

#include <errno.h>
#include <fs/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct checking {
    const char *store;
    bool json;
    unsigned listed, dropped; /* told so far */
    char **snapshots;         /* names of those with faults that stay */
    unsigned snapshot_count;
    struct progress progress;
};

/* ---- faults ------------------------------------------------------------------------------------------ */

/* Bytes that would be taken for the end of a line, or for a terminal's commands, are shown as a question mark. */
static void print_path(const char *path)
{
    for (const unsigned char *c = (const unsigned char *)path; *c; c++)
        putchar(*c < 0x20 || *c == 0x7f ? '?' : *c);
}

void fault_print(const char *path, const char *snapshot, const char *what, uint64_t ino, uint64_t offset, uint64_t len)
{
    print_path(path ? path : ino ? "a file without a name" : "the store");
    if (snapshot && !path) { /* else the path says so */
        fputs(" (snapshot ", stdout);
        print_path(snapshot);
        putchar(')');
    }
    printf(": %s", what);
    if (len)
        printf(ino ? ", %llu bytes at %llu" : ", %llu bytes of the log at %llu", (unsigned long long)len,
               (unsigned long long)offset);
}

static void print_json_or_null(const char *s)
{
    if (s)
        print_json_string(s);
    else
        fputs("null", stdout);
}

/* They come one snapshot after the other. */
static void note_snapshot(struct checking *checking, const char *name)
{
    unsigned count = checking->snapshot_count;
    if (count > 0 && strcmp(checking->snapshots[count - 1], name) == 0)
        return;
    char **grown = realloc(checking->snapshots, (count + 1) * sizeof *grown);
    if (!grown)
        return;
    checking->snapshots = grown;
    checking->snapshots[count] = strdup(name);
    checking->snapshot_count += checking->snapshots[count] != NULL;
}

static void take_fault(void *ctx, const struct fs_fault *fault)
{
    struct checking *checking = ctx;
    progress_end(&checking->progress);
    if (fault->snapshot && fault->path && !fault->mended)
        note_snapshot(checking, fault->snapshot);
    if (!checking->json) {
        fault_print(fault->path, fault->snapshot, fault->what, fault->ino, fault->offset, fault->len);
        puts(fault->mended ? "; mended" : "");
        return;
    }
    printf("%s\n    {\"path\": ", checking->listed++ ? "," : "");
    print_json_or_null(fault->path);
    fputs(", \"snapshot\": ", stdout);
    print_json_or_null(fault->snapshot);
    fputs(", \"what\": ", stdout);
    print_json_string(fault->what);
    printf(", \"ino\": %llu, \"offset\": %llu, \"len\": %llu, \"mended\": %s}", (unsigned long long)fault->ino,
           (unsigned long long)fault->offset, (unsigned long long)fault->len, fault->mended ? "true" : "false");
}

static void take_dropped(void *ctx, const struct fs_dropped *dropped)
{
    struct checking *checking = ctx;
    const char *path = dropped->path ? dropped->path : dropped->ino ? NULL : checking->store;
    if (!checking->json) {
        fputs("dropped: ", stdout);
        print_path(path ? path : "a file without a name");
        printf(": %s", dropped->what);
        if (dropped->name) {
            putchar(' ');
            print_path(dropped->name);
        }
        if (dropped->ino)
            printf(" (inode %llu)", (unsigned long long)dropped->ino);
        if (dropped->len)
            printf(", %llu bytes at %llu", (unsigned long long)dropped->len, (unsigned long long)dropped->offset);
        putchar('\n');
        return;
    }
    if (checking->dropped == 0)
        printf("%s],\n  \"dropped_list\": [", checking->listed ? "\n  " : "");
    printf("%s\n    {\"path\": ", checking->dropped++ ? "," : "");
    print_json_or_null(dropped->path);
    fputs(", \"what\": ", stdout);
    print_json_string(dropped->what);
    fputs(", \"name\": ", stdout);
    print_json_or_null(dropped->name);
    printf(", \"ino\": %llu, \"offset\": %llu, \"len\": %llu}", (unsigned long long)dropped->ino,
           (unsigned long long)dropped->offset, (unsigned long long)dropped->len);
}

static void take_progress(void *ctx, const char *phase, uint64_t done_bytes, uint64_t total_bytes)
{
    struct checking *checking = ctx;
    progress_tell(&checking->progress, checking->store, phase, done_bytes, total_bytes);
}

/* ---- the result ------------------------------------------------------------------------------------------ */

static int status_of(int rc, const struct fs_checked *checked)
{
    if (rc < 0)
        return rc == -EUCLEAN ? CHECK_LEFT : CHECK_FAILED;
    if (checked->left > 0)
        return CHECK_LEFT;
    return checked->mended > 0 ? CHECK_MENDED : CHECK_CLEAN;
}

static const char *result_of(int status)
{
    switch (status) {
    case CHECK_CLEAN:
        return "clean";
    case CHECK_MENDED:
        return "mended";
    case CHECK_LEFT:
        return "damaged";
    default:
        return "failed";
    }
}

static void print_json_result(const struct checking *checking, int status, const struct fs_checked *checked)
{
    if (checking->dropped == 0)
        printf("%s],\n  \"dropped_list\": [", checking->listed ? "\n  " : "");
    printf("%s],\n  \"damaged_snapshots\": [", checking->dropped ? "\n  " : "");
    for (unsigned i = 0; i < checking->snapshot_count; i++) {
        fputs(i ? ", " : "", stdout);
        print_json_string(checking->snapshots[i]);
    }
    fputs("],\n  \"store\": ", stdout);
    print_json_string(checking->store);
    printf(",\n  \"result\": \"%s\", \"status\": %d,\n", result_of(status), status);
    printf("  \"inodes\": %llu, \"snapshots\": %llu, \"log_bytes\": %llu,\n", (unsigned long long)checked->inodes,
           (unsigned long long)checked->snapshots, (unsigned long long)checked->log_bytes);
    printf("  \"faults\": %llu, \"mended\": %llu, \"left\": %llu, \"dropped\": %llu,\n",
           (unsigned long long)checked->faults, (unsigned long long)checked->mended, (unsigned long long)checked->left,
           (unsigned long long)checked->dropped);
    fputs("  \"message\": ", stdout);
    print_json_string(checked->message);
    puts("\n}");
}

static void print_snapshots(const struct checking *checking)
{
    for (unsigned i = 0; i < checking->snapshot_count; i++) {
        printf("%s: snapshot ", checking->store);
        print_path(checking->snapshots[i]);
        fputs(
            " is damaged, and nothing mends that: save what you need of it, then `fasterfs snapshot delete MOUNTPOINT ",
            stdout);
        print_path(checking->snapshots[i]);
        puts("`");
    }
}

static void print_result(const struct checking *checking, int status, const struct fs_checked *checked, bool repair)
{
    const char *store = checking->store;
    char size[16];
    if (checked->message[0])
        complain(store, "%s", checked->message);
    print_snapshots(checking);
    if (checked->dropped > 0)
        printf("%s: %llu dropped, as listed\n", store, (unsigned long long)checked->dropped);
    if (status == CHECK_CLEAN)
        printf("%s: clean: %llu files, %llu snapshots, %s of log\n", store, (unsigned long long)checked->inodes,
               (unsigned long long)checked->snapshots, size_text(checked->log_bytes, size));
    else if (status == CHECK_MENDED)
        printf("%s: mended: all %llu faults\n", store, (unsigned long long)checked->mended);
    else if (status == CHECK_LEFT && repair && checked->mended > 0) /* snapshots */
        printf("%s: damaged: %llu faults found, %llu are left\n", store, (unsigned long long)checked->faults,
               (unsigned long long)checked->left);
    else if (status == CHECK_LEFT && repair)
        printf("%s: damaged: %llu faults found, %llu are left; restore what matters from a backup\n", store,
               (unsigned long long)checked->faults, (unsigned long long)checked->left);
    else if (status == CHECK_LEFT)
        printf("%s: damaged: %llu faults; nothing was changed; `fasterfs check --repair` mends what can be mended\n",
               store, (unsigned long long)checked->faults);
    else
        printf("%s: it could not be checked\n", store);
}

/* Is it the store of a mount, or a mount point? */
static bool is_mounted(const char *path)
{
    struct mounted mounted;
    char *resolved = path_resolve(path);
    bool is = resolved && mounted_source(resolved);
    if (resolved && !is && mounted_find(path, &mounted) == 0) {
        is = mounted_is_fasterfs(&mounted) && strcmp(mounted.mountpoint, resolved) == 0;
        mounted_free(&mounted);
    }
    free(resolved);
    return is;
}

static int check(struct checking *checking, bool repair)
{
    struct fs_check_options options = {
        .repair = repair, .fault = take_fault, .dropped = take_dropped, .progress = take_progress, .ctx = checking};
    struct device_options device_options = {.read_only = !repair};
    struct fs_checked checked;
    struct device *device;
    struct stat st;
    if (is_mounted(checking->store)) {
        complain(checking->store, "mounted; unmount it, or use `fasterfs scrub` on the mount point");
        return CHECK_FAILED;
    }
    if (stat(checking->store, &st) < 0) {
        complain(checking->store, "%s; name the directory of a store", strerror(errno));
        return CHECK_FAILED;
    }
    int rc = device_open(checking->store, &device_options, &device);
    if (rc < 0) {
        complain_device(checking->store, rc);
        return CHECK_FAILED;
    }
    if (checking->json)
        fputs("{\n  \"list\": [", stdout);
    rc = fs_check(device, &options, &checked);
    device_close(device);
    progress_end(&checking->progress);
    int status = status_of(rc, &checked);
    if (checking->json)
        print_json_result(checking, status, &checked);
    else
        print_result(checking, status, &checked, repair);
    for (unsigned i = 0; i < checking->snapshot_count; i++)
        free(checking->snapshots[i]);
    free(checking->snapshots);
    return finish_output(status, CHECK_FAILED);
}

static int usage(const char *format, const char *arg)
{
    complain_usage("check", format, arg);
    return CHECK_USAGE;
}

int command_check(int argc, char **argv)
{
    struct checking checking = {0};
    bool repair = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            checking.json = true;
        else if (strcmp(argv[i], "--repair") == 0)
            repair = true;
        else if (argv[i][0] == '-')
            return usage("unknown option `%s`", argv[i]);
        else if (checking.store)
            return usage("`%s` is one argument too many", argv[i]);
        else
            checking.store = argv[i];
    }
    if (!checking.store)
        return usage("check what? %s is missing", "STORE");
    return check(&checking, repair);
}
