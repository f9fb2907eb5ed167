// SPDX-License-Identifier: MIT
/* fasterfs sync: fsync(2) of a directory reaches the daemon; sync(2) and syncfs(2) do not. */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int sync_mounted(int fd, const char *path)
{
    /* Mapped pages first: the kernel has them, and writes them back here. */
    if (syncfs(fd) < 0 || fsync(fd) < 0)
        return complain(path, "not everything could be made durable: %s; free space or check the disk under the store",
                        strerror(errno));
    return STATUS_DONE;
}

int command_sync(int argc, char **argv)
{
    if (argc != 2)
        return complain_usage("sync", argc < 2 ? "sync what? MOUNTPOINT is missing" : "one MOUNTPOINT at a time");
    struct mounted mounted;
    int fd = mounted_open(argv[1], &mounted);
    if (fd < 0)
        return STATUS_FAILED;
    int status = sync_mounted(fd, argv[1]);
    close(fd);
    mounted_free(&mounted);
    return status;
}
