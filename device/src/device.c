// SPDX-License-Identifier: MIT
/*
 * Dispatch: checks the arguments of every call, refuses changes to a read-only device, counts what is
 * pending, and hands over to the ops of the device (private.h, where the invariants are).
 *
 * Threads: as device.h says; no state of its own.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define LEN_MAX (UINT32_C(1) << 30)

/* Checked in every build: a wrong name must not leave the directory. */
static bool name_is_valid(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len <= DEVICE_NAME_MAX && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

void device_close(struct device *device)
{
    if (device != NULL)
        device->ops->close(device);
}

const char *device_backend_name(const struct device *device)
{
    return device->backend_name;
}

bool device_is_in_place(const struct device *device)
{
    return device->in_place;
}

int device_file_open(struct device *device, const char *name, unsigned flags)
{
    if (!name_is_valid(name))
        return -EINVAL;
    assert((flags & ~(unsigned)(DEVICE_FILE_CREATE | DEVICE_FILE_TRUNCATE | DEVICE_FILE_CACHED)) == 0);
    if (device->read_only && (flags & (DEVICE_FILE_CREATE | DEVICE_FILE_TRUNCATE)))
        return -EROFS;
    return device->ops->file_open(device, name, flags);
}

void device_file_close(struct device *device, int file)
{
    assert(file >= 0);
    device->ops->file_close(device, file);
}

int64_t device_file_size(struct device *device, int file)
{
    assert(file >= 0);
    return device->ops->file_size(device, file);
}

int device_file_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len)
{
    assert(file >= 0);
    return device->ops->file_read(device, file, offset, buf, len);
}

int device_file_allocate(struct device *device, int file, uint64_t offset, uint64_t len)
{
    assert(file >= 0 && len > 0);
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    if (device->read_only)
        return -EROFS;
    return device->ops->file_allocate(device, file, offset, len);
}

int device_file_punch(struct device *device, int file, uint64_t offset, uint64_t len)
{
    assert(file >= 0 && offset % DEVICE_BLOCK_BYTES == 0 && len > 0 && len % DEVICE_BLOCK_BYTES == 0);
    if (device->read_only)
        return -EROFS;
    return device->ops->file_punch(device, file, offset, len);
}

int device_file_sync(struct device *device, int file)
{
    assert(file >= 0);
    return device->ops->file_sync(device, file);
}

int device_file_rename(struct device *device, const char *from, const char *to)
{
    if (!name_is_valid(from) || !name_is_valid(to))
        return -EINVAL;
    if (device->read_only)
        return -EROFS;
    return device->ops->file_rename(device, from, to);
}

int device_file_remove(struct device *device, const char *name)
{
    if (!name_is_valid(name))
        return -EINVAL;
    if (device->read_only)
        return -EROFS;
    return device->ops->file_remove(device, name);
}

int device_sync_names(struct device *device)
{
    return device->ops->sync_names(device);
}

int device_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx)
{
    return device->ops->list(device, each, ctx);
}

int device_map(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len)
{
    assert(file >= 0);
    return device->ops->map(device, file, ret_bytes, ret_len);
}

void device_unmap(struct device *device, const void *bytes, uint64_t len)
{
    if (len > 0) /* an empty file is mapped to no memory at all */
        device->ops->unmap(device, bytes, len);
}

int device_space(struct device *device, struct device_space *ret_space)
{
    return device->ops->space(device, ret_space);
}

int device_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue)
{
    assert(depth >= 1 && depth <= 4096);
    struct device_queue *queue;
    int ret = device->ops->queue_open(device, depth, &queue);
    if (ret < 0)
        return ret;
    queue->device = device;
    queue->depth = depth;
    *ret_queue = queue;
    return 0;
}

void device_queue_close(struct device_queue *queue)
{
    if (queue == NULL)
        return;
    assert(queue->pending == 0 && !queue->polling);
    queue->ops->close(queue);
}

static void refuse(struct device_queue *queue, struct device_io *io, int error)
{
    queue->pending++;
    io->priv.queue = queue;
    io->priv.refused = error;
    device_io_push(&queue->failed, io);
}

void device_submit(struct device_queue *queue, struct device_io *io)
{
    device_submit_watched(queue, io, NULL, NULL);
}

void device_submit_later(struct device_queue *queue, struct device_io *io)
{
    queue->later = true;
    device_submit(queue, io);
    queue->later = false;
}

void device_submit_watched(struct device_queue *queue, struct device_io *io,
                           void (*ended)(void *ctx, enum device_op op), void *ctx)
{
    assert(io->op == DEVICE_READ || io->op == DEVICE_WRITE);
    assert(io->file >= 0 && io->done != NULL);
    assert(io->offset % DEVICE_BLOCK_BYTES == 0 && io->offset <= (uint64_t)INT64_MAX - LEN_MAX);
    assert(io->buf != NULL && (uintptr_t)io->buf % DEVICE_BLOCK_BYTES == 0);
    assert(io->len > 0 && io->len <= LEN_MAX && io->len % DEVICE_BLOCK_BYTES == 0);
    io->priv.ended = ended;
    io->priv.ctx = ctx;
    if (io->op == DEVICE_WRITE && queue->device->read_only) {
        refuse(queue, io, -EROFS);
        return;
    }
    queue->pending++;
    io->priv.queue = queue;
    io->priv.next = NULL;
    io->priv.moved = 0;
    queue->ops->submit(queue, io);
}

void device_submit_refused(struct device_queue *queue, struct device_io *io, int error)
{
    assert(error < 0 && io->done != NULL);
    io->priv.ended = NULL;
    refuse(queue, io, error);
}

void device_finish(struct device_io *io, int64_t result)
{
    struct device_queue *queue = io->priv.queue;
    assert(queue->polling && queue->pending > 0);
    queue->pending--;
    io->result = result;
    if (io->priv.ended != NULL)
        io->priv.ended(io->priv.ctx, io->op);
    io->done(io);
}

unsigned device_poll(struct device_queue *queue, bool wait)
{
    assert(!queue->polling); /* `done` submits, it does not poll */
    queue->polling = true;
    unsigned finished = 0;
    struct device_io_list failed = queue->failed;
    queue->failed = (struct device_io_list){NULL, NULL};
    struct device_io *io;
    while ((io = device_io_pop(&failed)) != NULL) {
        device_finish(io, io->priv.refused);
        finished++;
    }
    if (queue->pending > 0)
        finished += queue->ops->poll(queue, wait && finished == 0);
    queue->polling = false;
    return finished;
}

unsigned device_queue_pending(const struct device_queue *queue)
{
    return queue->pending;
}

bool device_io_advance(struct device_io *io, int64_t returned, int64_t *ret_result)
{
    /* ECANCELED: the thread that submitted has exited, and io_uring took its transfers back. */
    if (returned == -EINTR || returned == -EAGAIN || returned == -ECANCELED)
        return false;
    if (returned < 0) {
        *ret_result = returned;
        return true;
    }
    uint32_t end = io->priv.moved + (uint32_t)returned;
    assert(end <= io->len);
    if (end == io->len) {
        *ret_result = end;
        return true;
    }
    /* Short. O_DIRECT goes on at whole blocks only, so what was moved of the last block is moved again;
     * a read that does not fill a block even so, has met the end of the file. */
    uint32_t whole = end - end % DEVICE_BLOCK_BYTES;
    if (whole > io->priv.moved) {
        io->priv.moved = whole;
        return false;
    }
    *ret_result = io->op == DEVICE_READ ? (int64_t)end : -ENOSPC;
    return true;
}

struct transfer {
    struct device_io io;
    bool done;
};

static void transfer_done(struct device_io *io)
{
    ((struct transfer *)(void *)io)->done = true;
}

int64_t device_transfer(struct device_queue *queue, enum device_op op, int file, uint64_t offset, void *buf,
                        uint32_t len)
{
    assert(queue->pending == 0);
    struct transfer transfer = {
        .io = {.op = op, .file = file, .offset = offset, .buf = buf, .len = len, .done = transfer_done}};
    device_submit(queue, &transfer.io);
    while (!transfer.done)
        (void)device_poll(queue, true);
    return transfer.io.result;
}
