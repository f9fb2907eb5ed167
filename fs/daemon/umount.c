// SPDX-License-Identifier: MIT
/* fasterfs umount: umount(8) returns before the daemon is done; this waits until the store is closed. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 10, PROGRESS_EVERY = 100 };

/* 0, or -errno of umount2(2); the helper for ordinary users does not say why: -EBUSY, most likely. */
static int unmount(const char *mountpoint, bool lazy)
{
    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    if (errno != EPERM)
        return -errno;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : mountpoint,
               lazy ? mountpoint : (char *)NULL, (char *)NULL);
        _exit(127);
    }
    int status;
    if (waitpid(pid, &status, 0) < 0)
        return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return -ENOSYS;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

/* The daemon holds flock(2) on the directory of the store as long as it is open. */
static int wait_for_daemon(const char *store)
{
    int fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0; /* another fsname, or not readable: nothing to wait for */
    bool terminal = isatty(STDERR_FILENO), said = false;
    for (unsigned tick = 1; flock(fd, LOCK_EX | LOCK_NB) < 0; tick++) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            int rc = -errno;
            close(fd);
            return rc;
        }
        if (mounted_source(store))
            break; /* mounted elsewhere as well, or again: that daemon has it now */
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
        if (terminal && tick % PROGRESS_EVERY == 0) {
            fprintf(stderr, "\rfasterfs: %s: writing the rest, %u s ", store, tick * POLL_MS / 1000);
            said = true;
        }
    }
    if (said)
        fputc('\n', stderr);
    close(fd);
    return 0;
}

int command_umount(int argc, char **argv)
{
    if (argc != 2)
        return complain_usage("umount", argc < 2 ? "unmount what? MOUNTPOINT is missing" : "one MOUNTPOINT at a time");
    const char *path = argv[1];
    struct mounted mounted;
    int rc = mounted_find(path, &mounted);
    if (rc < 0)
        return complain(path, "%s; give the directory where a store is mounted", strerror(-rc));
    char *real = path_resolve(path);
    int status = STATUS_DONE;
    bool dead = false;
    if (!real || strcmp(real, mounted.mountpoint) != 0 || !mounted_is_fasterfs(&mounted)) {
        status = complain(path, "no fasterfs is mounted here; `findmnt -t fuse.fasterfs` lists those that are");
        goto out;
    }
    dead = mounted_is_dead(mounted.mountpoint);
    if (!dead) {
        int fd = open(mounted.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        status =
            fd < 0 ? complain(path, "%s; unmount as the user who mounted it", strerror(errno)) : sync_mounted(fd, path);
        if (fd >= 0)
            close(fd);
        if (status != STATUS_DONE)
            goto out;
    }
    rc = unmount(mounted.mountpoint, dead);
    if (rc == -EBUSY)
        status = complain(path, "in use; see who with `fuser -vm %s`, end that, try again", mounted.mountpoint);
    else if (rc == -ENOSYS)
        status = complain(path, "fusermount3 is missing; install the package fuse3 or run this as root");
    else if (rc < 0)
        status = complain(path, "cannot unmount: %s", strerror(-rc));
    else if ((rc = wait_for_daemon(mounted.source)) < 0)
        status = complain(mounted.source, "cannot see whether the daemon is done: %s", strerror(-rc));
out:
    free(real);
    mounted_free(&mounted);
    return status;
}
