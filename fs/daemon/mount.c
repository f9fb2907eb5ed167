// SPDX-License-Identifier: MIT
/*
 * fasterfs mount: everything is checked before anything is touched, then
 *
 *     background_start -> device_open -> fs_open -> serve_open -> serve_mount -> background_ready
 *     -> serve_run -> serve_close -> fs_close -> device_close
 */
#include "background.h"
#include "cli.h"
#include "options.h"
#include "serve.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LOCK_WAIT_MS = 10000, /* a daemon whose mount is gone may still be writing */
    COMMIT_INTERVAL_MS = 1000,
    UNCOMMITTED_BYTES = 16 << 20 /* an fsync beside a big copy does not wait for more than that to be written */
};

/* ---- checks ---------------------------------------------------------------------------------------- */

/* 1 empty, 0 not, -errno. */
static int directory_is_empty(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    struct dirent *entry;
    while ((errno = 0, entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            break;
    int rc = entry ? 0 : errno ? -errno : 1;
    closedir(dir);
    return rc;
}

static int check_mountpoint(const struct mount_settings *settings)
{
    const char *path = settings->mountpoint;
    struct stat st;
    if (mounted_is_dead(path))
        return complain(path, "the daemon of an earlier mount has died; clear it with `fasterfs umount %s`", path);
    if (stat(path, &st) < 0) {
        if (errno == ENOENT)
            return complain(path, "there is no such directory; make it with `mkdir -p`");
        if (errno == EACCES)
            return complain(path, "no permission to look at the mount point; mount where you may write");
        return complain(path, "%s; give a directory to mount on", strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return complain(path, "not a directory; give an empty directory to mount on");
    struct mounted mounted;
    if (mounted_find(path, &mounted) == 0) {
        char *real = path_resolve(path);
        bool here = real && mounted_is_fasterfs(&mounted) && strcmp(real, mounted.mountpoint) == 0;
        if (here)
            complain(path, "a fasterfs is mounted here already, from %s; unmount it first", mounted.source);
        free(real);
        mounted_free(&mounted);
        if (here)
            return STATUS_FAILED;
    }
    int empty = settings->nonempty ? 1 : directory_is_empty(path);
    if (empty == -EACCES)
        return complain(path, "no permission to look into the mount point; mount where you may write");
    if (empty < 0)
        return complain(path, "%s; give a directory to mount on", strerror(-empty));
    if (!empty)
        return complain(path,
                        "the mount point is not empty; give an empty directory, or -o nonempty to hide what it holds");
    return STATUS_DONE;
}

/* Whether `path` is `above` or below it. */
static bool lies_in(const char *path, const char *above)
{
    size_t len = strlen(above);
    if (len == 1)
        return true;
    return strncmp(path, above, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static int check_store(const struct mount_settings *settings, bool *ret_absent)
{
    const char *path = settings->store;
    struct stat st;
    *ret_absent = false;
    if (stat(path, &st) < 0) {
        if (errno == ENOENT && settings->read_only)
            return complain(path, "there is no such directory, and -o ro does not make one; mount without it once");
        if (errno == ENOENT) {
            *ret_absent = true;
            return STATUS_DONE; /* device_open() makes it */
        }
        if (errno == ENOTDIR)
            return complain(path, "a part of the path is a file; give a directory for the store");
        if (errno == EACCES)
            return complain(path, "no permission to reach the store; mount it as its owner");
        return complain(path, "%s; give a directory for the store", strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return complain(path, "a file, not a directory; give a directory for the store");
    if (access(path, R_OK | X_OK | (settings->read_only ? 0 : W_OK)) < 0)
        return complain(path, errno == EROFS ? "on a read-only filesystem; mount with -o ro or move the store"
                                             : "no permission to use the store; mount it as its owner");
    return STATUS_DONE;
}

static int check_apart(const struct mount_settings *settings)
{
    char *store = realpath(settings->store, NULL), *mountpoint = realpath(settings->mountpoint, NULL);
    if (!store) { /* absent: where it would be made */
        char *parent = strdup(settings->store);
        char *slash = parent ? strrchr(parent, '/') : NULL;
        if (slash) {
            *slash = '\0';
            store = realpath(parent[0] ? parent : "/", NULL);
        }
        free(parent);
        if (!store) {
            free(mountpoint);
            return complain(settings->store, "the directory above it does not exist; make it with `mkdir -p`");
        }
    }
    int status = STATUS_DONE;
    if (mountpoint && lies_in(store, mountpoint))
        status =
            complain(settings->store,
                     "the store is inside the mount point %s and would be hidden by it; choose another mount point",
                     settings->mountpoint);
    else if (mountpoint && strcmp(store, "/") != 0 && lies_in(mountpoint, store) && access(settings->store, F_OK) == 0)
        status =
            complain(settings->mountpoint, "the mount point is inside the store %s; choose a mount point outside of it",
                     settings->store);
    free(store);
    free(mountpoint);
    return status;
}

static int check_fuse(void)
{
    if (access("/dev/fuse", F_OK) < 0)
        return complain("/dev/fuse", "%s; load FUSE with `modprobe fuse`, in a container pass --device /dev/fuse",
                        strerror(errno));
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        return complain("/dev/fuse", "%s; let this user open it", strerror(errno));
    return STATUS_DONE;
}

/* ---- remount ---------------------------------------------------------------------------------------- */

static int remount(const struct mount_settings *settings)
{
    static const struct {
        const char *word;
        unsigned long flag;
    } FLAGS[] = {{"nosuid", MS_NOSUID},   {"nodev", MS_NODEV},      {"noexec", MS_NOEXEC},
                 {"noatime", MS_NOATIME}, {"sync", MS_SYNCHRONOUS}, {"dirsync", MS_DIRSYNC}};
    unsigned long flags = MS_REMOUNT | (settings->read_only ? MS_RDONLY : 0);
    char passed[sizeof(settings->passed)], *save = NULL;
    memcpy(passed, settings->passed, sizeof(passed));
    for (char *word = strtok_r(passed, ",", &save); word; word = strtok_r(NULL, ",", &save))
        for (size_t i = 0; i < sizeof(FLAGS) / sizeof(FLAGS[0]); i++)
            if (strcmp(word, FLAGS[i].word) == 0)
                flags |= FLAGS[i].flag;
    struct mounted mounted;
    if (mounted_find(settings->mountpoint, &mounted) < 0 || !mounted_is_fasterfs(&mounted))
        return complain(settings->mountpoint, "no fasterfs is mounted here; mount without -o remount");
    mounted_free(&mounted);
    if (mount(NULL, settings->mountpoint, NULL, flags, NULL) < 0)
        return complain(settings->mountpoint, "cannot remount: %s", strerror(errno));
    return STATUS_DONE;
}

/* ---- open ------------------------------------------------------------------------------------------- */

int complain_device(const char *store, int rc)
{
    switch (-rc) {
    case EBUSY:
        return complain(store, "in use by another process; mounted already? see `findmnt -t fuse.fasterfs`");
    case ENOENT:
        return complain(store, "the directory above it does not exist; make it with `mkdir -p`");
    case ENOTDIR:
        return complain(store, "a file, not a directory; give a directory for the store");
    case EACCES:
    case EPERM:
        return complain(store, "no permission; mount as the owner of the store");
    case EROFS:
        return complain(store, "on a read-only filesystem; mount with -o ro or move the store");
    case ENOSPC:
    case EDQUOT:
        return complain(store, "no space left on its disk; free some, try again");
    case EINVAL:
        return complain(store, "its filesystem cannot do the I/O that a store needs (O_DIRECT in blocks of 4 KiB); "
                               "put the store on another filesystem");
    default:
        return complain(store, "cannot be opened: %s", strerror(-rc));
    }
}

/* *ret_cold: the device of its cold level, or NULL. */
static int open_store(const struct mount_settings *settings, struct device **ret_device, struct device **ret_cold,
                      struct fs **ret_fs)
{
    struct device_options device_options = {
        .create = !settings->read_only,
        .read_only = settings->read_only,
        .lock_wait_ms = mounted_source(settings->store) ? 0 : LOCK_WAIT_MS,
    };
    struct device *device;
    int rc = device_open(settings->store, &device_options, &device);
    if (rc < 0)
        return complain_device(settings->store, rc);
    int status = cold_device_open(settings->store, settings->cold, &device_options, ret_cold);
    if (status != STATUS_DONE) {
        device_close(device);
        return status;
    }
    struct fs_options fs_options = {
        .store = {.memory_bytes = settings->memory_bytes,
                  .commit_interval_ms = COMMIT_INTERVAL_MS,
                  .uncommitted_bytes = UNCOMMITTED_BYTES,
                  .read_only = settings->read_only,
                  .cold = *ret_cold},
        .size_bytes = settings->size_bytes,
        .atime = settings->atime,
        .root_uid = geteuid(),
        .root_gid = getegid(),
    };
    struct store_opened opened = {0};
    rc = fs_open(device, &fs_options, ret_fs, &opened);
    if (rc < 0) {
        complain(settings->store, "%s", opened.message[0] ? opened.message : strerror(-rc));
        device_close(*ret_cold);
        device_close(device);
        return STATUS_FAILED;
    }
    if (strcmp(device_backend_name(device), "threads") == 0)
        complain(settings->store, "io_uring is refused here, threads do the I/O, somewhat slower; allow io_uring to "
                                  "this process if you can");
    if (opened.dropped_bytes && isatty(STDERR_FILENO))
        complain(settings->store,
                 "not closed cleanly: back at commit %llu; %llu bytes written after it were never "
                 "acknowledged as durable and are dropped",
                 (unsigned long long)opened.commit, (unsigned long long)opened.dropped_bytes);
    *ret_device = device;
    return STATUS_DONE;
}

/* ---- serve ------------------------------------------------------------------------------------------ */

static int serve_until_unmounted(const struct mount_settings *settings, struct fs *fs)
{
    struct serve_options options = {
        .mount_options = settings->passed,
        .fsname = settings->fsname ? settings->fsname : settings->store,
        .threads = settings->threads,
        .read_only = settings->read_only,
        .no_xattr = settings->no_xattr,
        .debug = settings->debug,
    };
    char message[256];
    struct serve *serve;
    int rc = serve_open(fs, &options, &serve, message, sizeof(message));
    if (rc < 0)
        return complain(settings->mountpoint, "cannot start: %s; check the options",
                        message[0] ? message : strerror(-rc));
    rc = serve_mount(serve, settings->mountpoint, message, sizeof(message));
    if (rc < 0) {
        serve_close(serve);
        return complain(settings->mountpoint, "cannot mount: %s; is fuse3 installed, and may you mount here?",
                        message[0] ? message : strerror(-rc));
    }
    if (!settings->foreground)
        background_ready();
    rc = serve_run(serve);
    serve_close(serve);
    return rc < 0 ? complain(settings->mountpoint, "cannot serve: %s", strerror(-rc)) : STATUS_DONE;
}

/* `absent`: there was no STORE before. */
static int mount_now(const struct mount_settings *settings, bool absent)
{
    serve_block_signals();
    /* A heap for each thread would cost memory that the budget does not know of. */
    mallopt(M_ARENA_MAX, 2);
    struct device *device = NULL, *cold = NULL;
    struct fs *fs = NULL;
    int status = open_store(settings, &device, &cold, &fs);
    if (status != STATUS_DONE) {
        if (absent)
            rmdir(settings->store); /* ours, if it is there, and empty unless something is worth a look */
        return status;
    }
    status = serve_until_unmounted(settings, fs);
    int rc = fs_close(fs);
    device_close(cold);
    device_close(device);
    if (rc < 0)
        status =
            complain(settings->store, "the last changes could not be made durable: %s; free space or check the disk",
                     strerror(-rc));
    return status;
}

int command_mount(int argc, char **argv)
{
    struct mount_settings settings;
    int status = settings_parse(argc, argv, &settings);
    if (status != STATUS_DONE)
        return status;
    bool absent = false;
    if (settings.remount) {
        status = remount(&settings);
        settings_free(&settings);
        return status;
    }
    status = check_store(&settings, &absent);
    if (status == STATUS_DONE)
        status = check_apart(&settings);
    if (status == STATUS_DONE)
        status = check_mountpoint(&settings);
    if (status == STATUS_DONE)
        status = check_fuse();
    if (status == STATUS_DONE)
        status = settings.foreground ? -1 : background_start(settings.store);
    if (status < 0) /* the daemon: in the foreground, or a child */
        status = mount_now(&settings, absent);
    settings_free(&settings);
    return status;
}
