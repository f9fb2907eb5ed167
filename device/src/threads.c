// SPDX-License-Identifier: MIT
/*
 * threads: transfers on file descriptors by a pool of threads that call pread(2) and pwrite(2), for
 * kernels that refuse io_uring. One pool for each device, started with its first queue.
 *
 * Invariants:
 *   1. A transfer is in exactly one of: its queue's `waiting`, the pool's `work`, the hands of one pool
 *      thread, its queue's `completed`.
 *   2. in_pool <= depth; it counts the last three.
 *
 * Threads: pool threads touch `work` (pool->lock) and `completed` (queue's lock), the queue's thread
 * everything of its queue. No lock is taken with another one held. Never calls `done` on a pool thread.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define POOL_THREADS 8

struct device_pool {
    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t work_or_end; /* work is not empty, or end is set */
    struct device_io_list work;
    bool end;
    unsigned started;
    pthread_t threads[POOL_THREADS];
};

struct threads_queue {
    struct device_queue queue;
    struct device_pool *pool;      /* constant */
    unsigned in_pool;              /* the queue's thread only */
    struct device_io_list waiting; /* the queue's thread only */
    pthread_mutex_t lock;          /* guards `completed` */
    pthread_cond_t some;           /* completed is not empty */
    struct device_io_list completed;
};

static struct threads_queue *threads_of(struct device_queue *queue)
{
    return (struct threads_queue *)(void *)queue;
}

static int64_t transfer_all(struct device_io *io)
{
    int64_t result;
    do {
        char *buf = (char *)io->buf + io->priv.moved;
        size_t len = io->len - io->priv.moved;
        off_t offset = (off_t)(io->offset + io->priv.moved);
        ssize_t moved = io->op == DEVICE_READ ? pread(io->file, buf, len, offset) : pwrite(io->file, buf, len, offset);
        result = moved < 0 ? -errno : moved;
    } while (!device_io_advance(io, result, &result));
    return result;
}

static void *pool_thread(void *arg)
{
    struct device_pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct device_io *io = device_io_pop(&pool->work);
        if (io == NULL) {
            if (pool->end)
                break;
            pthread_cond_wait(&pool->work_or_end, &pool->lock);
            continue;
        }
        pthread_mutex_unlock(&pool->lock);
        io->result = transfer_all(io);
        struct threads_queue *threads = threads_of(io->priv.queue);
        pthread_mutex_lock(&threads->lock);
        device_io_push(&threads->completed, io);
        /* Under the lock: once it is free the queue may be closed. */
        pthread_cond_signal(&threads->some);
        pthread_mutex_unlock(&threads->lock);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Fewer threads than wanted will do; none will not. */
static int pool_start(struct device_pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    int error = 0;
    pthread_mutex_lock(&pool->lock);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    while (pool->started < POOL_THREADS && error == 0) {
        error = pthread_create(&pool->threads[pool->started], NULL, pool_thread, pool);
        if (error == 0)
            pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    int ret = pool->started > 0 ? 0 : -error;
    pthread_mutex_unlock(&pool->lock);
    return ret;
}

int threads_pool_open(struct device_pool **ret_pool)
{
    struct device_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return -ENOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work_or_end, NULL);
    *ret_pool = pool;
    return 0;
}

void threads_pool_close(struct device_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->end = true;
    pthread_cond_broadcast(&pool->work_or_end);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    assert(pool->work.head == NULL);
    pthread_cond_destroy(&pool->work_or_end);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Gives the pool as much of `waiting` as depth permits. */
static void threads_fill(struct threads_queue *threads)
{
    if (threads->waiting.head == NULL || threads->in_pool == threads->queue.depth)
        return;
    pthread_mutex_lock(&threads->pool->lock);
    while (threads->waiting.head != NULL && threads->in_pool < threads->queue.depth) {
        device_io_push(&threads->pool->work, device_io_pop(&threads->waiting));
        threads->in_pool++;
        pthread_cond_signal(&threads->pool->work_or_end);
    }
    pthread_mutex_unlock(&threads->pool->lock);
}

static void threads_submit(struct device_queue *queue, struct device_io *io)
{
    struct threads_queue *threads = threads_of(queue);
    device_io_push(&threads->waiting, io);
    threads_fill(threads);
}

static unsigned threads_poll(struct device_queue *queue, bool wait)
{
    struct threads_queue *threads = threads_of(queue);
    pthread_mutex_lock(&threads->lock);
    while (wait && threads->completed.head == NULL)
        pthread_cond_wait(&threads->some, &threads->lock);
    struct device_io_list completed = threads->completed;
    threads->completed = (struct device_io_list){NULL, NULL};
    pthread_mutex_unlock(&threads->lock);

    unsigned finished = 0;
    for (struct device_io *io = completed.head; io != NULL; io = io->priv.next)
        finished++;
    threads->in_pool -= finished;
    threads_fill(threads);
    struct device_io *io;
    while ((io = device_io_pop(&completed)) != NULL)
        device_finish(io, io->result);
    return finished;
}

static void threads_close(struct device_queue *queue)
{
    struct threads_queue *threads = threads_of(queue);
    pthread_cond_destroy(&threads->some);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}

static const struct device_queue_ops threads_ops = {
    .close = threads_close, .submit = threads_submit, .poll = threads_poll};

int threads_queue_open(struct device_pool *pool, unsigned depth, struct device_queue **ret_queue)
{
    (void)depth; /* device.c keeps it in the queue */
    int ret = pool_start(pool);
    if (ret < 0)
        return ret;
    struct threads_queue *threads = calloc(1, sizeof(*threads));
    if (threads == NULL)
        return -ENOMEM;
    threads->queue.ops = &threads_ops;
    threads->pool = pool;
    pthread_mutex_init(&threads->lock, NULL);
    pthread_cond_init(&threads->some, NULL);
    *ret_queue = &threads->queue;
    return 0;
}
