// SPDX-License-Identifier: MIT
/*
 * directory: the files of one directory of a Linux filesystem.
 *
 * Invariants:
 *   1. While the device is open, `fd` holds flock(2) on the directory: exclusive, or shared if read_only.
 *   2. A file number is a file descriptor, at least 3: the kernel keeps the file table, any number of
 *      threads use it at once, and a stray write to stdout never lands in a file.
 *   3. Files are regular, mode 0600, opened with O_DIRECT unless the filesystem has none.
 *   4. What changes the length of a file holds extend_lock if it computes the new length first.
 *
 * Threads: any. It keeps no state that changes but the kernel's.
 */
#include "private.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define LOCK_POLL_MS 10

struct directory {
    struct device device;
    int fd;                   /* of the directory, constant */
    struct device_pool *pool; /* NULL: io_uring; constant */
    pthread_mutex_t extend_lock;
};

static struct directory *directory_of(struct device *device)
{
    return (struct directory *)(void *)device;
}

/* Moves a descriptor out of the way of stdin, stdout and stderr. */
static int fd_above_stdio(int fd)
{
    if (fd < 0)
        return -errno;
    if (fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int ret = moved < 0 ? -errno : moved;
    close(fd);
    return ret;
}

static int fsync_whole(int fd)
{
    int ret;
    do
        ret = fsync(fd) < 0 ? -errno : 0;
    while (ret == -EINTR);
    return ret;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* 0: O_DIRECT works with our blocks; 1: there is none; -EOPNOTSUPP: it asks for larger blocks. */
static int direct_check(int fd)
{
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_DIOALIGN, &stx) < 0 || !(stx.stx_mask & STATX_DIOALIGN))
        return 0; /* open(2) took the flag, and no more is to be known */
    if (stx.stx_dio_offset_align == 0 || stx.stx_dio_mem_align == 0)
        return 1;
    if (stx.stx_dio_offset_align > DEVICE_BLOCK_BYTES || stx.stx_dio_mem_align > DEVICE_BLOCK_BYTES)
        return -EOPNOTSUPP;
    return 0;
}

/* openat(2) with O_DIRECT if there is. Returns the descriptor or -errno. */
static int open_direct(int dir_fd, const char *name, int flags)
{
    int fd = openat(dir_fd, name, flags | O_DIRECT, 0600);
    bool direct = fd >= 0;
    if (fd < 0 && errno == EINVAL)
        fd = openat(dir_fd, name, flags, 0600);
    fd = fd_above_stdio(fd);
    if (fd < 0 || !direct)
        return fd;
    int ret = direct_check(fd);
    if (ret == 1)
        ret = fcntl(fd, F_SETFL, 0) < 0 ? -errno : 0; /* of those it can change, O_DIRECT alone was set */
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

static int directory_file_open(struct device *device, const char *name, unsigned flags)
{
    int open_flags = O_CLOEXEC | O_NOFOLLOW | (device->read_only ? O_RDONLY : O_RDWR);
    if (flags & DEVICE_FILE_CREATE)
        open_flags |= O_CREAT;
    if (flags & DEVICE_FILE_TRUNCATE)
        open_flags |= O_TRUNC;
    int dir_fd = directory_of(device)->fd;
    int fd = flags & DEVICE_FILE_CACHED ? fd_above_stdio(openat(dir_fd, name, open_flags, 0600))
                                        : open_direct(dir_fd, name, open_flags);
    if (fd < 0)
        return fd;
    struct stat st;
    int ret = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

static void directory_file_close(struct device *device, int file)
{
    (void)device;
    close(file);
}

static int64_t directory_file_size(struct device *device, int file)
{
    (void)device;
    struct stat st;
    return fstat(file, &st) < 0 ? -errno : st.st_size;
}

static int directory_file_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len)
{
    (void)device;
    for (uint32_t done = 0; done < len;) {
        ssize_t got = pread(file, (char *)buf + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        done += (uint32_t)got;
    }
    return 0;
}

static int directory_file_allocate(struct device *device, int file, uint64_t offset, uint64_t len)
{
    struct directory *directory = directory_of(device);
    int ret;
    do
        ret = fallocate(file, 0, (off_t)offset, (off_t)len) < 0 ? -errno : 0;
    while (ret == -EINTR);
    if (ret != -EOPNOTSUPP && ret != -ENOSYS)
        return ret;
    /* Two who extend at once: the shorter must not cut off the longer. */
    pthread_mutex_lock(&directory->extend_lock);
    struct stat st;
    ret = fstat(file, &st) < 0 ? -errno : 0;
    if (ret == 0 && (uint64_t)st.st_size < offset + len)
        ret = ftruncate(file, (off_t)(offset + len)) < 0 ? -errno : 0;
    pthread_mutex_unlock(&directory->extend_lock);
    return ret;
}

static int directory_file_punch(struct device *device, int file, uint64_t offset, uint64_t len)
{
    (void)device;
    int ret;
    do
        ret = fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0 ? -errno : 0;
    while (ret == -EINTR);
    return ret == -ENOSYS ? -EOPNOTSUPP : ret;
}

static int directory_file_sync(struct device *device, int file)
{
    (void)device;
    int ret;
    do
        ret = fdatasync(file) < 0 ? -errno : 0;
    while (ret == -EINTR);
    return ret;
}

static int directory_map(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len)
{
    int64_t size = directory_file_size(device, file);
    if (size < 0)
        return (int)size;
    if (size == 0) { /* mmap(2) maps no empty file */
        *ret_bytes = "";
        *ret_len = 0;
        return 0;
    }
    void *bytes = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, file, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    *ret_bytes = bytes;
    *ret_len = (uint64_t)size;
    return 0;
}

static void directory_unmap(struct device *device, const void *bytes, uint64_t len)
{
    (void)device;
    munmap((void *)(uintptr_t)bytes, len);
}

/* ---- names ---------------------------------------------------------------------------------- */

static int directory_file_rename(struct device *device, const char *from, const char *to)
{
    int fd = directory_of(device)->fd;
    return renameat(fd, from, fd, to) < 0 ? -errno : 0;
}

static int directory_file_remove(struct device *device, const char *name)
{
    return unlinkat(directory_of(device)->fd, name, 0) < 0 ? -errno : 0;
}

static int directory_sync_names(struct device *device)
{
    return fsync_whole(directory_of(device)->fd);
}

static int directory_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx)
{
    /* A description of its own: two threads that list do not share a position. */
    int fd = fd_above_stdio(openat(directory_of(device)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0)
        return fd;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int ret = -errno;
        close(fd);
        return ret;
    }
    int ret = 0;
    while (ret == 0) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            ret = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ret = each(ctx, entry->d_name);
    }
    closedir(dir);
    return ret;
}

static int directory_space(struct device *device, struct device_space *ret_space)
{
    struct statvfs vfs;
    if (fstatvfs(directory_of(device)->fd, &vfs) < 0)
        return -errno;
    ret_space->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    ret_space->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}

/* ---- open and close ------------------------------------------------------------------------- */

static int directory_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue)
{
    struct directory *directory = directory_of(device);
    return directory->pool != NULL ? threads_queue_open(directory->pool, depth, ret_queue)
                                   : uring_queue_open(depth, ret_queue);
}

static void directory_close(struct device *device)
{
    struct directory *directory = directory_of(device);
    threads_pool_close(directory->pool);
    close(directory->fd); /* gives the lock back */
    pthread_mutex_destroy(&directory->extend_lock);
    free(directory);
}

static const struct device_ops directory_ops = {
    .close = directory_close,
    .file_open = directory_file_open,
    .file_close = directory_file_close,
    .file_size = directory_file_size,
    .file_read = directory_file_read,
    .file_allocate = directory_file_allocate,
    .file_punch = directory_file_punch,
    .file_sync = directory_file_sync,
    .file_rename = directory_file_rename,
    .file_remove = directory_file_remove,
    .sync_names = directory_sync_names,
    .list = directory_list,
    .map = directory_map,
    .unmap = directory_unmap,
    .space = directory_space,
    .queue_open = directory_queue_open,
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool is_in_place(int fd)
{
    struct statfs statfs;

    return fstatfs(fd, &statfs) == 0 && (statfs.f_type == EXT4_SUPER_MAGIC || statfs.f_type == XFS_SUPER_MAGIC);
}

/* flock(2) has no time limit, so it is asked again and again. */
static int lock_directory(int fd, bool read_only, unsigned wait_ms)
{
    uint64_t end = now_ms() + wait_ms;
    while (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (errno == EWOULDBLOCK && now_ms() >= end)
            return -EBUSY;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    }
    /* Who held it may have removed the directory meanwhile. */
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    return st.st_nlink == 0 ? -ENOENT : 0;
}

/* Opens the directory and, with `create`, makes it first. */
static int open_directory(const char *path, bool create, bool *ret_made)
{
    *ret_made = false;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && create) {
        if (mkdir(path, 0700) == 0)
            *ret_made = true;
        else if (errno != EEXIST)
            return -errno;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    return fd_above_stdio(fd);
}

/* Makes the directory's own name durable. */
static int sync_parent(int fd)
{
    int parent = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return -errno;
    int ret = fsync_whole(parent);
    close(parent);
    return ret;
}

/* Asks a file without a name whether O_DIRECT suits us. Where there are no such files, or no O_DIRECT,
 * the first real file tells. */
static int direct_probe(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);
    if (fd < 0)
        return 0;
    int ret = direct_check(fd);
    close(fd);
    return ret < 0 ? ret : 0;
}

/* A log has a file for each segment: take all the descriptors there are. Less is no error here. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* "uring", "threads", or -errno if the wanted one is not to be had. */
static int choose_backend(enum device_backend wanted, const char **ret_name)
{
    int ret = wanted == DEVICE_THREADS ? 0 : uring_probe();
    if (ret < 0 && wanted == DEVICE_URING)
        return ret;
    *ret_name = wanted == DEVICE_THREADS || ret < 0 ? "threads" : "uring";
    return 0;
}

int device_open(const char *path, const struct device_options *options, struct device **ret_device)
{
    assert(path != NULL && options != NULL);
    const char *backend_name;
    int ret = choose_backend(options->backend, &backend_name);
    if (ret < 0)
        return ret;
    struct directory *directory = calloc(1, sizeof(*directory));
    if (directory == NULL)
        return -ENOMEM;
    raise_file_limit();

    bool made;
    int fd = ret = open_directory(path, options->create && !options->read_only, &made);
    if (ret >= 0)
        ret = lock_directory(fd, options->read_only, options->lock_wait_ms);
    if (ret >= 0 && options->create && !options->read_only) {
        /* Also if it was there: who made it may have died before this. */
        int synced = sync_parent(fd);
        ret = made ? synced : 0;
    }
    if (ret >= 0 && !options->read_only)
        ret = direct_probe(fd);
    if (ret >= 0 && strcmp(backend_name, "threads") == 0)
        ret = threads_pool_open(&directory->pool);
    if (ret < 0) {
        if (made)
            rmdir(path);
        if (fd >= 0)
            close(fd);
        free(directory);
        return ret;
    }
    directory->device = (struct device){.ops = &directory_ops,
                                        .backend_name = backend_name,
                                        .read_only = options->read_only,
                                        .in_place = is_in_place(fd)};
    directory->fd = fd;
    pthread_mutex_init(&directory->extend_lock, NULL);
    *ret_device = &directory->device;
    return 0;
}
