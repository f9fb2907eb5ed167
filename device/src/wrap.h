// SPDX-License-Identifier: MIT
/*
 * wrap: what the devices around another one share: the calls that are handed down unchanged, and queues
 * that submit to a queue of the inner device. File numbers are the inner device's.
 *
 * A wrapper embeds struct wrap first. Its queue's transfers each take a struct wrap_io while they are in
 * flight beneath; of those there are as many as the queue is deep, the others wait.
 */
#ifndef DEVICE_WRAP_H
#define DEVICE_WRAP_H

#include "private.h"

struct wrap_queue;

struct wrap {
    struct device device;
    struct device *inner;
    /* Before the inner transfer begins; -errno: it does not, and ends with that. NULL: nothing to do. */
    int (*begin)(struct wrap *wrap, struct device_io *io);
    /* What came of it; calls wrap_end() or wrap_again(), now or in a later poll. */
    void (*ended)(struct wrap_queue *queue, struct device_io *io, int64_t returned);
};

struct wrap_io {
    struct device_io io; /* beneath */
    struct device_io *outer;
    struct wrap_queue *queue;
    struct wrap_io *next; /* free list */
};

struct wrap_queue {
    struct device_queue queue;
    struct device_queue *inner;
    struct device_io_list waiting; /* outer transfers that have no wrap_io yet */
    struct device_io_list held;    /* ended beneath, and kept back by the wrapper; priv.refused: what came of it */
    struct wrap_io *free;
    unsigned ended; /* since the poll began */
    struct wrap_io ios[];
};

/* Ends the transfer, inside a poll. */
void wrap_end(struct wrap_queue *queue, struct device_io *io, int64_t result);
/* Sends it down (once more), from priv.moved on. */
void wrap_again(struct wrap_queue *queue, struct device_io *io);
/* Begins what waits and polls the inner queue once. */
void wrap_poll_inner(struct wrap_queue *queue, bool wait);

int wrap_queue_open(struct device *device, unsigned depth, const struct device_queue_ops *ops,
                    struct device_queue **ret_queue);
void wrap_queue_close(struct device_queue *queue);
void wrap_submit(struct device_queue *queue, struct device_io *io);

static inline struct wrap *wrap_of(struct device *device)
{
    return (struct wrap *)(void *)device;
}

static inline struct device *wrap_inner(struct device *device)
{
    return wrap_of(device)->inner;
}

void wrap_file_close(struct device *device, int file);
int64_t wrap_file_size(struct device *device, int file);
int wrap_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx);
int wrap_file_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len);
int wrap_map(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len);
void wrap_unmap(struct device *device, const void *bytes, uint64_t len);
int wrap_space(struct device *device, struct device_space *ret_space);

#endif
