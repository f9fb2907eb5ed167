// SPDX-License-Identifier: MIT
#include "device_rate.h"
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 4096u
#define PIECE (1u << 20)

int device_rate_prepare(const char *path, uint64_t bytes)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600);
    uint64_t *piece = aligned_alloc(BLOCK, PIECE);
    int rc = fd < 0 ? -errno : piece ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < bytes && rc == 0; at += PIECE) {
        for (unsigned i = 0; i < PIECE / 8; i++)
            piece[i] = mix(at + i);
        if (write(fd, piece, PIECE) != (ssize_t)PIECE)
            rc = errno ? -errno : -ENOSPC;
    }
    if (rc == 0 && fdatasync(fd) < 0)
        rc = -errno;
    free(piece);
    if (fd >= 0)
        close(fd);
    return rc;
}

static void submit(struct io_uring *ring, int fd, uint8_t *buffer, unsigned slot, uint64_t block)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    io_uring_prep_read(sqe, fd, buffer + (size_t)slot * BLOCK, BLOCK, block * BLOCK);
    io_uring_sqe_set_data64(sqe, slot);
}

double device_rate_read(const char *path, unsigned depth, double seconds, uint64_t seed)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    struct io_uring ring;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    uint64_t blocks = (uint64_t)st.st_size / BLOCK, reads = 0;
    uint8_t *buffer = aligned_alloc(BLOCK, (size_t)depth * BLOCK);
    int rc = io_uring_queue_init(depth, &ring, 0);
    if (rc < 0 || !buffer) {
        close(fd);
        free(buffer);
        return rc < 0 ? rc : -ENOMEM;
    }
    double begun = now_seconds();
    for (unsigned i = 0; i < depth; i++)
        submit(&ring, fd, buffer, i, mix(seed++) % blocks);
    while (rc >= 0 && now_seconds() - begun < seconds) {
        struct io_uring_cqe *cqe;
        rc = io_uring_submit_and_wait(&ring, 1);
        while (rc >= 0 && io_uring_peek_cqe(&ring, &cqe) == 0) {
            rc = cqe->res == (int)BLOCK ? 0 : -EIO;
            submit(&ring, fd, buffer, (unsigned)io_uring_cqe_get_data64(cqe), mix(seed++) % blocks);
            io_uring_cqe_seen(&ring, cqe);
            reads++;
        }
    }
    double took = now_seconds() - begun;
    io_uring_queue_exit(&ring); /* waits for what is in flight */
    free(buffer);
    close(fd);
    return rc < 0 ? rc : (double)reads / took;
}
