// SPDX-License-Identifier: MIT
/*
 * What every device is made of. A backend (directory, memory) or a wrapper (fault, record) embeds
 * struct device first in its own struct and fills in the ops; its queues embed struct device_queue.
 * device.c checks arguments, answers writes to a read-only device and counts; nothing else calls ops.
 *
 * A wrapper keeps an inner device and calls its public functions. Its submit() starts a transfer of
 * its own on an inner queue, whose `done` calls device_finish() for the outer one. File numbers may be
 * passed through.
 *
 * Invariants:
 *   1. queue->pending == transfers given to device_submit() and not yet to device_finish().
 *   2. device_finish() is called inside ops->poll() only, on the thread that polls.
 *   3. ops->submit() never calls device_finish(), nor blocks on the disk.
 */
#ifndef DEVICE_PRIVATE_H
#define DEVICE_PRIVATE_H

#include <device/device.h>

/* A FIFO of transfers linked by priv.next. Whose lock guards it says its owner. */
struct device_io_list {
    struct device_io *head, *tail;
};

static inline void device_io_push(struct device_io_list *list, struct device_io *io)
{
    io->priv.next = NULL;
    if (list->tail != NULL)
        list->tail->priv.next = io;
    else
        list->head = io;
    list->tail = io;
}

static inline struct device_io *device_io_pop(struct device_io_list *list)
{
    struct device_io *io = list->head;
    if (io != NULL) {
        list->head = io->priv.next;
        if (list->head == NULL)
            list->tail = NULL;
    }
    return io;
}

/* Each as the device_* function of that name in device.h. */
struct device_ops {
    void (*close)(struct device *device);
    int (*file_open)(struct device *device, const char *name, unsigned flags);
    void (*file_close)(struct device *device, int file);
    int64_t (*file_size)(struct device *device, int file);
    int (*file_read)(struct device *device, int file, uint64_t offset, void *buf, uint32_t len);
    int (*file_allocate)(struct device *device, int file, uint64_t offset, uint64_t len);
    int (*file_punch)(struct device *device, int file, uint64_t offset, uint64_t len);
    int (*file_sync)(struct device *device, int file);
    int (*file_rename)(struct device *device, const char *from, const char *to);
    int (*file_remove)(struct device *device, const char *name);
    int (*sync_names)(struct device *device);
    int (*list)(struct device *device, int (*each)(void *ctx, const char *name), void *ctx);
    int (*map)(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len);
    void (*unmap)(struct device *device, const void *bytes, uint64_t len);
    int (*space)(struct device *device, struct device_space *ret_space);
    int (*queue_open)(struct device *device, unsigned depth, struct device_queue **ret_queue);
};

struct device_queue_ops {
    void (*close)(struct device_queue *queue);
    void (*submit)(struct device_queue *queue, struct device_io *io);
    unsigned (*poll)(struct device_queue *queue, bool wait);
};

/* All constant after open. */
struct device {
    const struct device_ops *ops;
    const char *backend_name;
    bool read_only;
    bool in_place; /* device_is_in_place() */
};

/* Owned by the thread that uses the queue. */
struct device_queue {
    const struct device_queue_ops *ops; /* set by ops->queue_open, the rest by device.c */
    struct device *device;
    unsigned depth;
    unsigned pending;
    bool polling;                 /* inside device_poll(): what `done` submits may be sent as a batch */
    bool later;                   /* inside device_submit_later(): likewise */
    struct device_io_list failed; /* refused before they began; priv.refused is their result */
};

/* device_submit(), and `ended(ctx, op)` is called before `done`, whatever the result. */
void device_submit_watched(struct device_queue *queue, struct device_io *io,
                           void (*ended)(void *ctx, enum device_op op), void *ctx);

/* Makes the io end with `error` at the next poll. Arguments of the io other than `done` may be unset. */
void device_submit_refused(struct device_queue *queue, struct device_io *io, int error);

/* Ends a transfer: result, count, watch, done. The io may be gone afterwards. */
void device_finish(struct device_io *io, int64_t result);

/* Takes in what a read or write of io from priv.moved on returned (-errno: error). True: the transfer
 * has ended and *ret_result is its result. False: go on from priv.moved, which stays a multiple of
 * DEVICE_BLOCK_BYTES. */
bool device_io_advance(struct device_io *io, int64_t returned, int64_t *ret_result);

/* The two engines for files that are file descriptors. */
struct device_pool;

/* 0, or -errno when the kernel refuses io_uring or lacks its reads and writes. */
int uring_probe(void);
int uring_queue_open(unsigned depth, struct device_queue **ret_queue);

/* The pool's threads start with its first queue. */
int threads_pool_open(struct device_pool **ret_pool);
void threads_pool_close(struct device_pool *pool);
int threads_queue_open(struct device_pool *pool, unsigned depth, struct device_queue **ret_queue);

#endif
