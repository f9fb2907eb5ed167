// SPDX-License-Identifier: MIT
/* wrap: what the devices around another one share (wrap.h). */
#include "wrap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static struct wrap_queue *queue_of(struct device_queue *queue)
{
    return (struct wrap_queue *)(void *)queue;
}

static void inner_done(struct device_io *io)
{
    struct wrap_io *slot = (struct wrap_io *)(void *)io;
    struct wrap_queue *queue = slot->queue;
    struct device_io *outer = slot->outer;

    slot->next = queue->free;
    queue->free = slot;
    wrap_of(queue->queue.device)->ended(queue, outer, io->result);
}

void wrap_end(struct wrap_queue *queue, struct device_io *io, int64_t result)
{
    queue->ended++;
    device_finish(io, result);
}

void wrap_again(struct wrap_queue *queue, struct device_io *io)
{
    struct wrap_io *slot = queue->free;
    if (slot == NULL) {
        device_io_push(&queue->waiting, io);
        return;
    }
    queue->free = slot->next;
    uint32_t moved = io->priv.moved;
    slot->outer = io;
    slot->io = (struct device_io){.op = io->op,
                                  .file = io->file,
                                  .offset = io->offset + moved,
                                  .buf = (unsigned char *)io->buf + moved,
                                  .len = io->len - moved,
                                  .done = inner_done};
    device_submit(queue->inner, &slot->io);
}

void wrap_submit(struct device_queue *queue, struct device_io *io)
{
    struct wrap *wrap = wrap_of(queue->device);
    int ret = wrap->begin != NULL ? wrap->begin(wrap, io) : 0;
    if (ret < 0) { /* pending already: only its end is missing */
        io->priv.refused = ret;
        device_io_push(&queue->failed, io);
        return;
    }
    wrap_again(queue_of(queue), io);
}

void wrap_poll_inner(struct wrap_queue *queue, bool wait)
{
    struct device_io *io;
    while (queue->free != NULL && (io = device_io_pop(&queue->waiting)) != NULL)
        wrap_again(queue, io);
    if (device_queue_pending(queue->inner) > 0)
        (void)device_poll(queue->inner, wait);
}

int wrap_queue_open(struct device *device, unsigned depth, const struct device_queue_ops *ops,
                    struct device_queue **ret_queue)
{
    struct wrap_queue *queue = calloc(1, sizeof(*queue) + depth * sizeof(queue->ios[0]));
    if (queue == NULL)
        return -ENOMEM;
    int ret = device_queue_open(wrap_inner(device), depth, &queue->inner);
    if (ret < 0) {
        free(queue);
        return ret;
    }
    queue->queue.ops = ops;
    for (unsigned i = 0; i < depth; i++) {
        queue->ios[i].queue = queue;
        queue->ios[i].next = queue->free;
        queue->free = &queue->ios[i];
    }
    *ret_queue = &queue->queue;
    return 0;
}

void wrap_queue_close(struct device_queue *queue)
{
    device_queue_close(queue_of(queue)->inner);
    free(queue);
}

void wrap_file_close(struct device *device, int file)
{
    device_file_close(wrap_inner(device), file);
}

int64_t wrap_file_size(struct device *device, int file)
{
    return device_file_size(wrap_inner(device), file);
}

int wrap_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx)
{
    return device_list(wrap_inner(device), each, ctx);
}

int wrap_file_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len)
{
    return device_file_read(wrap_inner(device), file, offset, buf, len);
}

int wrap_map(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len)
{
    return device_map(wrap_inner(device), file, ret_bytes, ret_len);
}

void wrap_unmap(struct device *device, const void *bytes, uint64_t len)
{
    device_unmap(wrap_inner(device), bytes, len);
}

int wrap_space(struct device *device, struct device_space *ret_space)
{
    return device_space(wrap_inner(device), ret_space);
}
