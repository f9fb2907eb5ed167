// SPDX-License-Identifier: MIT
/*
 * fault: fails on demand (device/fault.h).
 *
 * Invariants:
 *   1. A transfer that fails with an errno never reaches the inner device.
 *   2. What comes back from beneath goes through device_io_advance(), as in every engine: so a short
 *      transfer and EAGAIN are carried on from here.
 *   3. A poll that waits ends at least one transfer, however long others are held back.
 *
 * Threads: any; fault->lock guards what is armed. A queue's lists are its thread's.
 */
#include "wrap.h"

#include <assert.h>
#include <device/fault.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct fault {
    struct wrap wrap;
    pthread_mutex_t lock; /* guards all below */
    struct device_fault armed;
    uint64_t calls, hits;
    bool lie;
    uint64_t seed;
};

static struct fault *fault_of(struct device *device)
{
    return (struct fault *)(void *)device;
}

static bool strikes(const struct fault *fault)
{
    const struct device_fault *armed = &fault->armed;
    if (armed->nth == 0 || fault->calls < armed->nth)
        return false;
    if (!armed->sticky)
        return fault->calls == armed->nth;
    bool carried_on = armed->error == -EAGAIN || armed->error == DEVICE_FAULT_SHORT;
    return !carried_on || (fault->calls - armed->nth) % 2 == 0;
}

/* Counts a call: 0, or what it shall end with. */
static int count(struct device *device, unsigned class)
{
    struct fault *fault = fault_of(device);
    int ret = 0;
    pthread_mutex_lock(&fault->lock);
    if (fault->armed.classes & class) {
        fault->calls++;
        ret = strikes(fault) ? fault->armed.error : 0;
        fault->hits += ret != 0;
    }
    pthread_mutex_unlock(&fault->lock);
    return ret;
}

static uint64_t draw(struct fault *fault, uint64_t sides)
{
    pthread_mutex_lock(&fault->lock);
    fault->seed = fault->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    uint64_t drawn = (fault->seed >> 33) % sides;
    pthread_mutex_unlock(&fault->lock);
    return drawn;
}

static bool shuffles(struct fault *fault)
{
    pthread_mutex_lock(&fault->lock);
    bool yes = fault->seed != 0;
    pthread_mutex_unlock(&fault->lock);
    return yes;
}

/* ---- calls ------------------------------------------------------------------------------------- */

static int fault_file_open(struct device *device, const char *name, unsigned flags)
{
    int ret = flags & ~DEVICE_FILE_CACHED ? count(device, DEVICE_FAULT_NAME) : 0;
    return ret < 0 ? ret : device_file_open(wrap_inner(device), name, flags);
}

/* Short reads, and those to be tried again, are beneath. */
static int fault_file_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len)
{
    int ret = count(device, DEVICE_FAULT_READ);
    return ret < 0 && ret != -EAGAIN ? ret : device_file_read(wrap_inner(device), file, offset, buf, len);
}

static int fault_file_allocate(struct device *device, int file, uint64_t offset, uint64_t len)
{
    int ret = count(device, DEVICE_FAULT_ALLOCATE);
    return ret < 0 ? ret : device_file_allocate(wrap_inner(device), file, offset, len);
}

static int fault_file_punch(struct device *device, int file, uint64_t offset, uint64_t len)
{
    int ret = count(device, DEVICE_FAULT_ALLOCATE);
    return ret < 0 ? ret : device_file_punch(wrap_inner(device), file, offset, len);
}

static int fault_file_rename(struct device *device, const char *from, const char *to)
{
    int ret = count(device, DEVICE_FAULT_NAME);
    return ret < 0 ? ret : device_file_rename(wrap_inner(device), from, to);
}

static int fault_file_remove(struct device *device, const char *name)
{
    int ret = count(device, DEVICE_FAULT_NAME);
    return ret < 0 ? ret : device_file_remove(wrap_inner(device), name);
}

/* Negative: fails; positive: says 0 and does nothing; 0: does. */
static int begin_sync(struct device *device)
{
    int ret = count(device, DEVICE_FAULT_SYNC);
    struct fault *fault = fault_of(device);
    pthread_mutex_lock(&fault->lock);
    ret = ret < 0 ? ret : fault->lie;
    pthread_mutex_unlock(&fault->lock);
    return ret;
}

static int fault_file_sync(struct device *device, int file)
{
    int ret = begin_sync(device);
    return ret == 0 ? device_file_sync(wrap_inner(device), file) : ret < 0 ? ret : 0;
}

static int fault_sync_names(struct device *device)
{
    int ret = begin_sync(device);
    return ret == 0 ? device_sync_names(wrap_inner(device)) : ret < 0 ? ret : 0;
}

/* ---- transfers --------------------------------------------------------------------------------- */

/* Sends it down, or holds back what it shall end with as if it came from there. */
static void attempt(struct wrap_queue *queue, struct device_io *io)
{
    int ret = count(queue->queue.device, io->op == DEVICE_READ ? DEVICE_FAULT_READ : DEVICE_FAULT_WRITE);
    if (ret < 0) {
        io->priv.refused = ret;
        device_io_push(&queue->held, io);
        return;
    }
    io->priv.refused = ret;
    wrap_again(queue, io);
}

static void fault_submit(struct device_queue *queue, struct device_io *io)
{
    attempt((struct wrap_queue *)(void *)queue, io);
}

static void came_back(struct wrap_queue *queue, struct device_io *io, int64_t returned)
{
    uint32_t blocks = (uint32_t)(returned > 0 ? returned / DEVICE_BLOCK_BYTES : 0);
    if (io->priv.refused == DEVICE_FAULT_SHORT && blocks > 1)
        returned = (int64_t)(blocks / 2) * DEVICE_BLOCK_BYTES + 1 + blocks % 7 * 512;
    io->priv.refused = (int)returned; /* at most 1 GiB */
    device_io_push(&queue->held, io);
}

/* Hands out one of those held back: the first, or any. */
static void release_one(struct wrap_queue *queue, bool any)
{
    struct fault *fault = fault_of(queue->queue.device);
    struct device_io *io = device_io_pop(&queue->held);
    for (uint64_t skip = any ? draw(fault, 4) : 0; skip > 0 && queue->held.head != NULL; skip--) {
        device_io_push(&queue->held, io);
        io = device_io_pop(&queue->held);
    }
    int64_t result;
    if (device_io_advance(io, io->priv.refused, &result))
        wrap_end(queue, io, result);
    else
        attempt(queue, io);
}

static unsigned fault_poll(struct device_queue *outer, bool wait)
{
    struct wrap_queue *queue = (struct wrap_queue *)(void *)outer;
    struct fault *fault = fault_of(outer->device);
    bool any = shuffles(fault);

    queue->ended = 0;
    do {
        wrap_poll_inner(queue, wait && queue->held.head == NULL);
        while (queue->held.head != NULL && (!any || draw(fault, 3) > 0 || (wait && queue->ended == 0)))
            release_one(queue, any);
    } while (wait && queue->ended == 0 && outer->pending > 0);
    return queue->ended;
}

static const struct device_queue_ops fault_queue_ops = {
    .close = wrap_queue_close, .submit = fault_submit, .poll = fault_poll};

static int fault_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue)
{
    return wrap_queue_open(device, depth, &fault_queue_ops, ret_queue);
}

/* ---- open, close, arm -------------------------------------------------------------------------- */

static void fault_close(struct device *device)
{
    struct fault *fault = fault_of(device);
    pthread_mutex_destroy(&fault->lock);
    free(fault);
}

static const struct device_ops fault_ops = {
    .close = fault_close,
    .file_open = fault_file_open,
    .file_close = wrap_file_close,
    .file_size = wrap_file_size,
    .file_read = fault_file_read,
    .file_allocate = fault_file_allocate,
    .file_punch = fault_file_punch,
    .file_sync = fault_file_sync,
    .file_rename = fault_file_rename,
    .file_remove = fault_file_remove,
    .sync_names = fault_sync_names,
    .list = wrap_list,
    .map = wrap_map,
    .unmap = wrap_unmap,
    .space = wrap_space,
    .queue_open = fault_queue_open,
};

int device_fault_open(struct device *inner, struct device **ret_device)
{
    struct fault *fault = calloc(1, sizeof(*fault));
    if (fault == NULL)
        return -ENOMEM;
    fault->wrap = (struct wrap){.device = {.ops = &fault_ops, .backend_name = "fault", .in_place = inner->in_place},
                                .inner = inner,
                                .ended = came_back};
    pthread_mutex_init(&fault->lock, NULL);
    *ret_device = &fault->wrap.device;
    return 0;
}

void device_fault_arm(struct device *device, const struct device_fault *what)
{
    struct fault *fault = fault_of(device);
    const unsigned transfers = DEVICE_FAULT_READ | DEVICE_FAULT_WRITE;
    assert(device->ops == &fault_ops && what->error <= DEVICE_FAULT_SHORT);
    assert((what->error != -EAGAIN && what->error != DEVICE_FAULT_SHORT) || (what->classes & ~transfers) == 0);
    (void)transfers;
    pthread_mutex_lock(&fault->lock);
    fault->armed = *what;
    fault->calls = fault->hits = 0;
    pthread_mutex_unlock(&fault->lock);
}

uint64_t device_fault_calls(struct device *device)
{
    struct fault *fault = fault_of(device);
    pthread_mutex_lock(&fault->lock);
    uint64_t calls = fault->calls;
    pthread_mutex_unlock(&fault->lock);
    return calls;
}

uint64_t device_fault_hits(struct device *device)
{
    struct fault *fault = fault_of(device);
    pthread_mutex_lock(&fault->lock);
    uint64_t hits = fault->hits;
    pthread_mutex_unlock(&fault->lock);
    return hits;
}

void device_fault_lie(struct device *device, bool lie)
{
    struct fault *fault = fault_of(device);
    pthread_mutex_lock(&fault->lock);
    fault->lie = lie;
    pthread_mutex_unlock(&fault->lock);
}

void device_fault_shuffle(struct device *device, uint64_t seed)
{
    struct fault *fault = fault_of(device);
    pthread_mutex_lock(&fault->lock);
    fault->seed = seed;
    pthread_mutex_unlock(&fault->lock);
}
