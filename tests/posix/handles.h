// SPDX-License-Identifier: MIT
/* File handles. `handle save PATH FILE` and `handle cat DIRECTORY FILE` take one across a mount. */
#ifndef TESTS_POSIX_HANDLES_H
#define TESTS_POSIX_HANDLES_H

#include <fcntl.h>
#include <unistd.h>

struct handle {
    struct file_handle head;
    unsigned char bytes[MAX_HANDLE_SZ];
};

static inline int handle_of(const char *path, struct handle *ret_handle)
{
    int mount_id;

    ret_handle->head.handle_bytes = MAX_HANDLE_SZ;
    return name_to_handle_at(AT_FDCWD, path, &ret_handle->head, &mount_id, 0);
}

/* On the mount of the working directory. */
static inline int handle_open(struct handle *handle, int flags)
{
    int here = open(".", O_RDONLY | O_DIRECTORY), fd = here < 0 ? -1 : open_by_handle_at(here, &handle->head, flags);

    close(here);
    return fd;
}

#endif
