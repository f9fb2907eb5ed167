// SPDX-License-Identifier: MIT
/*
 * memory: a device in memory with two images, `live` (what is read) and `durable` (what a crash leaves).
 * File contents are memory_file.c's.
 *
 * Invariants:
 *   1. A file's refs == live names + durable names + handles on it. It is freed at 0.
 *   2. Its live_refs == live names + handles; at 0 its space is given back.
 *   3. A transfer moves bytes and ends in poll, so what nobody polled for is lost in a crash.
 *
 * Threads: any. memory->lock guards names and handles; contents have the file's own lock, which is
 * taken last. Only the queue's thread touches the list of a queue.
 */
#include "memory_file.h"
#include "private.h"

#include <assert.h>
#include <device/memory.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct memory_name {
    char name[DEVICE_NAME_MAX + 1];
    struct memory_file *file;
};

struct memory_names {
    struct memory_name *names;
    size_t count, capacity;
};

struct memory_handle {
    struct memory_file *file; /* NULL: free */
    bool cut_off;             /* was open during a crash */
};

struct memory {
    struct device device;
    struct memory_space space;
    pthread_mutex_t lock; /* guards all below, and refs and live_refs of files */
    bool power_cut;
    struct memory_names live, durable;
    struct memory_handle *handles;
    size_t handle_count;
};

struct memory_queue {
    struct device_queue queue;
    struct device_io_list submitted;
};

static struct memory *memory_of(struct device *device)
{
    return (struct memory *)(void *)device;
}

/* ---- names and references; memory->lock is held --------------------------------------------- */

static void file_ref(struct memory_file *file, bool live)
{
    file->refs++;
    file->live_refs += live;
}

static void file_unref(struct memory_file *file, bool live)
{
    assert(file->refs > 0 && (!live || file->live_refs > 0));
    file->live_refs -= live;
    file->refs--;
    if (live && file->live_refs == 0)
        memory_file_forget(file);
    if (file->refs == 0)
        memory_file_free(file);
}

static struct memory_name *names_find(const struct memory_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->names[i].name, name) == 0)
            return &names->names[i];
    }
    return NULL;
}

static int names_reserve(struct memory_names *names, size_t count)
{
    if (count <= names->capacity)
        return 0;
    size_t capacity = count * 2;
    struct memory_name *grown = realloc(names->names, capacity * sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    names->names = grown;
    names->capacity = capacity;
    return 0;
}

/* A new file under that name, live only. NULL: no memory. */
static struct memory_file *names_add(struct memory *memory, const char *name)
{
    if (names_reserve(&memory->live, memory->live.count + 1) < 0)
        return NULL;
    struct memory_file *file = memory_file_new(&memory->space);
    if (file == NULL)
        return NULL;
    struct memory_name *added = &memory->live.names[memory->live.count++];
    memset(added->name, 0, sizeof(added->name));
    memcpy(added->name, name, strlen(name));
    added->file = file;
    file_ref(file, true);
    return file;
}

static void names_remove(struct memory_names *names, struct memory_name *name, bool live)
{
    struct memory_file *file = name->file;
    *name = names->names[--names->count];
    file_unref(file, live);
}

/* Makes `to` equal to `from`. -ENOMEM: unchanged. */
static int names_copy(struct memory_names *to, const struct memory_names *from, bool to_live)
{
    int ret = names_reserve(to, from->count);
    if (ret < 0)
        return ret;
    for (size_t i = 0; i < from->count; i++) /* first, so that no file's count passes through 0 */
        file_ref(from->names[i].file, to_live);
    while (to->count > 0)
        names_remove(to, &to->names[to->count - 1], to_live);
    if (from->count > 0)
        memcpy(to->names, from->names, from->count * sizeof(*to->names));
    to->count = from->count;
    return 0;
}

/* The handle's file, or NULL if the power is or was cut since it was opened. */
static struct memory_file *handle_file(struct memory *memory, int file)
{
    assert((size_t)file < memory->handle_count && memory->handles[file].file != NULL);
    return memory->power_cut || memory->handles[file].cut_off ? NULL : memory->handles[file].file;
}

/* The same with the lock taken here; an open file does not go away. */
static struct memory_file *handle_file_locked(struct device *device, int file)
{
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    struct memory_file *found = handle_file(memory, file);
    pthread_mutex_unlock(&memory->lock);
    return found;
}

/* A free handle's number. */
static int handle_find_free(struct memory *memory)
{
    size_t i = 0;
    while (i < memory->handle_count && memory->handles[i].file != NULL)
        i++;
    if (i < memory->handle_count)
        return (int)i;
    size_t count = i == 0 ? 16 : i * 2;
    struct memory_handle *grown = realloc(memory->handles, count * sizeof(*grown));
    if (grown == NULL)
        return -ENOMEM;
    memset(grown + i, 0, (count - i) * sizeof(*grown));
    memory->handles = grown;
    memory->handle_count = count;
    return (int)i;
}

/* ---- files ---------------------------------------------------------------------------------- */

static int file_open_held(struct memory *memory, const char *name, unsigned flags)
{
    if (memory->power_cut)
        return -EIO;
    int handle = handle_find_free(memory);
    if (handle < 0)
        return handle;
    struct memory_name *found = names_find(&memory->live, name);
    if (found == NULL && !(flags & DEVICE_FILE_CREATE))
        return -ENOENT;
    struct memory_file *file = found != NULL ? found->file : names_add(memory, name);
    if (file == NULL)
        return -ENOMEM;
    file_ref(file, true);
    memory->handles[handle] = (struct memory_handle){.file = file};
    if (flags & DEVICE_FILE_TRUNCATE)
        memory_file_truncate(file);
    return handle;
}

static int memory_file_open(struct device *device, const char *name, unsigned flags)
{
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    int ret = file_open_held(memory, name, flags);
    pthread_mutex_unlock(&memory->lock);
    return ret;
}

static void memory_file_close(struct device *device, int file)
{
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    assert((size_t)file < memory->handle_count && memory->handles[file].file != NULL);
    file_unref(memory->handles[file].file, !memory->handles[file].cut_off);
    memory->handles[file].file = NULL;
    pthread_mutex_unlock(&memory->lock);
}

static int64_t memory_size(struct device *device, int file)
{
    struct memory_file *found = handle_file_locked(device, file);
    return found == NULL ? -EIO : (int64_t)memory_file_size(found);
}

static int memory_allocate(struct device *device, int file, uint64_t offset, uint64_t len)
{
    struct memory_file *found = handle_file_locked(device, file);
    return found == NULL ? -EIO : memory_file_allocate(found, offset, len);
}

static int memory_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len)
{
    struct memory_file *found = handle_file_locked(device, file);
    return found != NULL && memory_file_read(found, offset, buf, len) == len ? 0 : -EIO;
}

static int memory_punch(struct device *device, int file, uint64_t offset, uint64_t len)
{
    struct memory_file *found = handle_file_locked(device, file);
    if (found == NULL)
        return -EIO;
    memory_file_punch(found, offset, len);
    return 0;
}

static int memory_sync(struct device *device, int file)
{
    struct memory_file *found = handle_file_locked(device, file);
    if (found == NULL)
        return -EIO;
    memory_file_sync(found);
    return 0;
}

static int memory_map(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len)
{
    struct memory_file *found = handle_file_locked(device, file);
    if (found == NULL)
        return -EIO;
    return memory_file_copy(found, ret_bytes, ret_len);
}

static void memory_unmap(struct device *device, const void *bytes, uint64_t len)
{
    (void)device;
    (void)len;
    free((void *)(uintptr_t)bytes);
}

/* ---- names ---------------------------------------------------------------------------------- */

static int memory_rename(struct device *device, const char *from, const char *to)
{
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    struct memory_name *source = names_find(&memory->live, from);
    int ret = memory->power_cut ? -EIO : source == NULL ? -ENOENT : 0;
    if (ret == 0 && strcmp(from, to) != 0) {
        struct memory_name *target = names_find(&memory->live, to);
        if (target != NULL) {
            struct memory_file *replaced = target->file;
            target->file = source->file;
            file_ref(target->file, true);
            names_remove(&memory->live, source, true);
            file_unref(replaced, true);
        } else {
            memset(source->name, 0, sizeof(source->name));
            memcpy(source->name, to, strlen(to));
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return ret;
}

static int memory_remove(struct device *device, const char *name)
{
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    struct memory_name *found = names_find(&memory->live, name);
    int ret = memory->power_cut ? -EIO : found == NULL ? -ENOENT : 0;
    if (ret == 0)
        names_remove(&memory->live, found, true);
    pthread_mutex_unlock(&memory->lock);
    return ret;
}

static int memory_sync_names(struct device *device)
{
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    int ret = memory->power_cut ? -EIO : names_copy(&memory->durable, &memory->live, false);
    pthread_mutex_unlock(&memory->lock);
    return ret;
}

static int memory_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx)
{
    /* `each` may open and remove files: it gets a copy. */
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    size_t count = memory->live.count;
    struct memory_name *names = malloc((count + 1) * sizeof(*names));
    int ret = memory->power_cut ? -EIO : names == NULL ? -ENOMEM : 0;
    if (ret == 0 && count > 0)
        memcpy(names, memory->live.names, count * sizeof(*names));
    pthread_mutex_unlock(&memory->lock);
    for (size_t i = 0; ret == 0 && i < count; i++)
        ret = each(ctx, names[i].name);
    free(names);
    return ret;
}

static int memory_space(struct device *device, struct device_space *ret_space)
{
    memory_space_get(&memory_of(device)->space, &ret_space->total_bytes, &ret_space->free_bytes);
    return 0;
}

/* ---- queues --------------------------------------------------------------------------------- */

static void memory_submit(struct device_queue *queue, struct device_io *io)
{
    device_io_push(&((struct memory_queue *)(void *)queue)->submitted, io);
}

static unsigned memory_poll(struct device_queue *queue, bool wait)
{
    (void)wait; /* whatever is pending can be done now */
    struct memory_queue *queued = (struct memory_queue *)(void *)queue;
    unsigned finished = 0;
    struct device_io *io;
    while (finished < queue->depth && (io = device_io_pop(&queued->submitted)) != NULL) {
        struct memory_file *file = handle_file_locked(queue->device, io->file);
        int64_t result;
        if (file == NULL)
            result = -EIO;
        else if (io->op == DEVICE_READ)
            result = memory_file_read(file, io->offset, io->buf, io->len);
        else
            result = memory_file_write(file, io->offset, io->buf, io->len);
        device_finish(io, result);
        finished++;
    }
    return finished;
}

static void memory_queue_close(struct device_queue *queue)
{
    free(queue);
}

static const struct device_queue_ops memory_queue_ops = {
    .close = memory_queue_close, .submit = memory_submit, .poll = memory_poll};

static int memory_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue)
{
    (void)device;
    (void)depth;
    struct memory_queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL)
        return -ENOMEM;
    queue->queue.ops = &memory_queue_ops;
    *ret_queue = &queue->queue;
    return 0;
}

/* ---- open and close ------------------------------------------------------------------------- */

static void memory_close(struct device *device)
{
    struct memory *memory = memory_of(device);
    for (size_t i = 0; i < memory->handle_count; i++)
        assert(memory->handles[i].file == NULL);
    while (memory->live.count > 0)
        names_remove(&memory->live, &memory->live.names[0], true);
    while (memory->durable.count > 0)
        names_remove(&memory->durable, &memory->durable.names[0], false);
    free(memory->live.names);
    free(memory->durable.names);
    free(memory->handles);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

static const struct device_ops memory_ops = {
    .close = memory_close,
    .file_open = memory_file_open,
    .file_close = memory_file_close,
    .file_size = memory_size,
    .file_read = memory_read,
    .file_allocate = memory_allocate,
    .file_punch = memory_punch,
    .file_sync = memory_sync,
    .file_rename = memory_rename,
    .file_remove = memory_remove,
    .sync_names = memory_sync_names,
    .list = memory_list,
    .map = memory_map,
    .unmap = memory_unmap,
    .space = memory_space,
    .queue_open = memory_queue_open,
};

int device_memory_open(struct device **ret_device)
{
    struct memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL)
        return -ENOMEM;
    memory->device = (struct device){.ops = &memory_ops, .backend_name = "memory", .in_place = true};
    memory_space_init(&memory->space);
    pthread_mutex_init(&memory->lock, NULL);
    *ret_device = &memory->device;
    return 0;
}

/* ---- what only this device can do ----------------------------------------------------------- */

void device_memory_cut(struct device *device)
{
    assert(device->ops == &memory_ops);
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    memory->power_cut = true;
    pthread_mutex_unlock(&memory->lock);
}

void device_memory_crash(struct device *device)
{
    assert(device->ops == &memory_ops);
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    if (names_copy(&memory->live, &memory->durable, true) < 0)
        abort();
    /* Open files are no longer live: what they take is counted by their names, if they have any. */
    for (size_t i = 0; i < memory->handle_count; i++) {
        struct memory_handle *handle = &memory->handles[i];
        if (handle->file == NULL || handle->cut_off)
            continue;
        handle->cut_off = true;
        file_ref(handle->file, false);
        file_unref(handle->file, true);
    }
    for (size_t i = 0; i < memory->live.count; i++)
        memory_file_revert(memory->live.names[i].file);
    memory->power_cut = false;
    pthread_mutex_unlock(&memory->lock);
}

int memory_add(struct device *device, const char *name, struct block *const *blocks, uint64_t count, uint64_t size)
{
    assert(device->ops == &memory_ops);
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    struct memory_file *file = names_add(memory, name);
    int ret = file == NULL ? -ENOMEM : memory_file_fill(file, blocks, count, size);
    if (ret == 0)
        ret = names_copy(&memory->durable, &memory->live, false);
    pthread_mutex_unlock(&memory->lock);
    return ret;
}

void device_memory_limit(struct device *device, uint64_t bytes)
{
    assert(device->ops == &memory_ops);
    memory_space_limit(&memory_of(device)->space, bytes);
}

int device_memory_flip(struct device *device, const char *name, uint64_t offset, unsigned bit)
{
    assert(device->ops == &memory_ops && bit < 8);
    struct memory *memory = memory_of(device);
    pthread_mutex_lock(&memory->lock);
    struct memory_name *found = names_find(&memory->live, name);
    int ret = found == NULL ? -ENOENT : memory_file_flip(found->file, offset, bit);
    pthread_mutex_unlock(&memory->lock);
    return ret;
}
