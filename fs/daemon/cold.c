// SPDX-License-Identifier: MIT
/*
 * The cold level of a store is in STORE/cold: a directory, or a symbolic link to one on another disk. So every command
 * finds it, and a copy of STORE has it or says what is missing.
 */
#include "cli.h"

#include <device/device.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *cold_path(const char *store)
{
    char *path;

    return asprintf(&path, "%s/cold", store) < 0 ? NULL : path;
}

/* It is there, and -o cold=DIR was given: is it that? */
static int check_same(const char *store, const char *path, const char *wanted)
{
    char *real = realpath(path, NULL), *real_wanted = realpath(wanted, NULL);
    int status = STATUS_DONE;

    if (!real || !real_wanted || strcmp(real, real_wanted) != 0)
        status = complain(store, "its cold level is in %s; leave `=%s` out, or unmount and move that directory",
                          real ? real : path, wanted);
    free(real);
    free(real_wanted);
    return status;
}

static bool sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0)
        close(fd);
    return synced;
}

/* Durably: the store is going to say that it has a cold level, and has to find it after a power cut. (What DIR itself
 * lies in is synced when it is opened.) */
static int make(const char *store, const char *path, const char *wanted)
{
    const char *made = wanted[0] ? wanted : path;

    if (mkdir(made, 0700) < 0 && errno != EEXIST)
        return complain(made, "cannot be made: %s; name a directory for the cold level of %s", strerror(errno), store);
    if (wanted[0] && symlink(wanted, path) < 0)
        return complain(path, "cannot be linked to %s: %s; free the name", wanted, strerror(errno));
    if (!sync_directory(store))
        return complain(store, "cannot be synced: %s; look at the disk", strerror(errno));
    return STATUS_DONE;
}

static int cold_find(const char *store, const char *wanted, char **ret_path)
{
    char *path = cold_path(store);
    struct stat st;
    int status = STATUS_DONE;

    *ret_path = NULL;
    if (!path)
        return complain(store, "out of memory");
    if (stat(path, &st) == 0) {
        if (wanted && wanted[0])
            status = check_same(store, path, wanted);
    } else if (errno == ENOENT && lstat(path, &st) == 0) {
        status = complain(path, "leads to a directory that is not there; mount the disk that has the cold level");
    } else if (errno != ENOENT) {
        status = complain(path, "%s; make it accessible", strerror(errno));
    } else if (wanted) {
        status = make(store, path, wanted);
    } else {
        free(path);
        return STATUS_DONE;
    }
    if (status == STATUS_DONE)
        *ret_path = path;
    else
        free(path);
    return status;
}

int cold_device_open(const char *store, const char *wanted, const struct device_options *options,
                     struct device **ret_device)
{
    char *path;
    int status = cold_find(store, options->read_only ? NULL : wanted, &path);

    *ret_device = NULL;
    if (status != STATUS_DONE || !path)
        return status;
    int rc = device_open(path, options, ret_device);
    if (rc < 0)
        status = complain_device(path, rc);
    free(path);
    return status;
}
