// SPDX-License-Identifier: MIT
/*
 * uring: transfers on file descriptors through io_uring, one ring for each queue.
 *
 * Invariants:
 *   1. in_ring <= depth <= entries of the submission ring, and it counts unsent entries too, so below
 *      depth there is always a free one; the completion ring has twice as many and never overflows.
 *   2. pending == in_ring + length of `waiting` + what the generic queue refused.
 *   3. Outside of poll, an entry stays unsent only if it was given with device_submit_later(), or if the kernel
 *      refused to take it just then; poll sends it.
 *
 * Threads: a ring belongs to its queue's thread. It holds no state of that thread (no SINGLE_ISSUER),
 * so the queue can be handed over.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <time.h>

struct uring_queue {
    struct device_queue queue;
    struct io_uring ring;
    unsigned in_ring;              /* put into the ring and not reaped */
    struct device_io_list waiting; /* not in the ring: it is full */
};

static struct uring_queue *uring_of(struct device_queue *queue)
{
    return (struct uring_queue *)(void *)queue;
}

/* Sends what is in the submission ring. A refusal (-EAGAIN, -EBUSY: no memory, too much unreaped) is
 * left to the next poll. */
static void uring_send(struct uring_queue *uring)
{
    while (io_uring_sq_ready(&uring->ring) > 0) {
        int ret = io_uring_submit(&uring->ring);
        if (ret <= 0 && ret != -EINTR)
            break;
    }
}

/* Puts the rest of a transfer into the ring, where there is room for it. */
static void uring_put(struct uring_queue *uring, struct device_io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    assert(sqe != NULL); /* invariant 1 */
    uring->in_ring++;
    char *buf = (char *)io->buf + io->priv.moved;
    unsigned len = io->len - io->priv.moved;
    if (io->op == DEVICE_READ)
        io_uring_prep_read(sqe, io->file, buf, len, io->offset + io->priv.moved);
    else
        io_uring_prep_write(sqe, io->file, buf, len, io->offset + io->priv.moved);
    io_uring_sqe_set_data(sqe, io);
}

static void uring_fill(struct uring_queue *uring)
{
    while (uring->in_ring < uring->queue.depth && uring->waiting.head != NULL)
        uring_put(uring, device_io_pop(&uring->waiting));
}

static void uring_submit(struct device_queue *queue, struct device_io *io)
{
    struct uring_queue *uring = uring_of(queue);
    device_io_push(&uring->waiting, io);
    if (queue->polling || queue->later)
        return; /* poll sends the batch, or the next submit */
    uring_fill(uring);
    uring_send(uring);
}

/* Ends or continues what has completed. Returns how many ended. */
static unsigned uring_reap(struct uring_queue *uring)
{
    unsigned finished = 0;
    struct io_uring_cqe *cqes[64];
    unsigned count;
    while ((count = io_uring_peek_batch_cqe(&uring->ring, cqes, 64)) > 0) {
        for (unsigned i = 0; i < count; i++) {
            struct device_io *io = io_uring_cqe_get_data(cqes[i]);
            int64_t result = cqes[i]->res;
            io_uring_cqe_seen(&uring->ring, cqes[i]); /* in order, before `done` may submit */
            uring->in_ring--;
            if (device_io_advance(io, result, &result)) {
                device_finish(io, result);
                finished++;
            } else {
                uring_put(uring, io);
            }
        }
        /* One ring full at most, or a `done` that always submits keeps us here for ever. */
        if (finished >= uring->queue.depth)
            break;
    }
    return finished;
}

static unsigned uring_poll(struct device_queue *queue, bool wait)
{
    struct uring_queue *uring = uring_of(queue);
    unsigned finished = uring_reap(uring);
    while (wait && finished == 0) { /* sends and sleeps in one call */
        uring_fill(uring);
        int ret = io_uring_submit_and_wait(&uring->ring, 1);
        if (ret < 0 && ret != -EINTR) {
            assert(ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM);
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        finished = uring_reap(uring);
    }
    uring_fill(uring);
    uring_send(uring);
    return finished;
}

static void uring_close(struct device_queue *queue)
{
    struct uring_queue *uring = uring_of(queue);
    io_uring_queue_exit(&uring->ring);
    free(uring);
}

static const struct device_queue_ops uring_ops = {.close = uring_close, .submit = uring_submit, .poll = uring_poll};

int uring_queue_open(unsigned depth, struct device_queue **ret_queue)
{
    struct uring_queue *uring = calloc(1, sizeof(*uring));
    if (uring == NULL)
        return -ENOMEM;
    int ret = io_uring_queue_init(depth, &uring->ring, 0);
    if (ret < 0) {
        free(uring);
        return ret;
    }
    uring->queue.ops = &uring_ops;
    *ret_queue = &uring->queue;
    return 0;
}

int uring_probe(void)
{
    struct io_uring ring;
    int ret = io_uring_queue_init(1, &ring, 0);
    if (ret < 0)
        return ret;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    ret = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READ) &&
                  io_uring_opcode_supported(probe, IORING_OP_WRITE)
              ? 0
              : -ENOSYS;
    if (probe != NULL)
        io_uring_free_probe(probe);
    io_uring_queue_exit(&ring);
    return ret;
}
