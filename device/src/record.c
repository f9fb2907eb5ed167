// SPDX-License-Identifier: MIT
/*
 * record: keeps what is done to a device (device/record.h); crash states are record_crash.c's.
 *
 * Invariants:
 *   1. ticks[t] is what happened at tick t + 1; an op's begin comes before what it describes starts, its
 *      end after that has ended: so whatever a sync covers by these ticks, it covered in truth.
 *   2. Changes of names are made one at a time, in the order of their ticks.
 *
 * Threads: any; record->lock guards all but the inner device. Held across changes of names only.
 */
#include "record.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct record *record_of(struct device *device)
{
    return (struct record *)(void *)device;
}

/* Room for one more element of an array. */
static int array_grow(void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return 0;
    size_t wanted = *capacity == 0 ? 64 : *capacity * 2;
    void *grown = realloc(*(void **)array, wanted * size);
    if (grown == NULL)
        return -ENOMEM;
    *(void **)array = grown;
    *capacity = wanted;
    return 0;
}

/* ---- names and files ------------------------------------------------------------------------- */

struct record_name *record_names_find(struct record_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->names[i].name, name) == 0)
            return &names->names[i];
    }
    return NULL;
}

int record_names_set(struct record_names *names, const char *name, struct record_file *file)
{
    struct record_name *found = record_names_find(names, name);
    if (found == NULL) {
        if (array_grow(&names->names, names->count, &names->capacity, sizeof(*found)) < 0)
            return -ENOMEM;
        found = &names->names[names->count++];
        *found = (struct record_name){.file = file};
        memcpy(found->name, name, strlen(name));
    }
    found->file = file;
    return 0;
}

void record_names_remove(struct record_names *names, const char *name)
{
    struct record_name *found = record_names_find(names, name);
    if (found != NULL)
        *found = names->names[--names->count];
}

int record_names_copy(struct record_names *to, const struct record_names *from)
{
    to->count = 0;
    for (size_t i = 0; i < from->count; i++) {
        if (record_names_set(to, from->names[i].name, from->names[i].file) < 0)
            return -ENOMEM;
    }
    return 0;
}

static struct record_file *file_new(struct record *record, const char *name)
{
    struct record_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return NULL;
    memcpy(file->name, name, strlen(name));
    file->next = record->files;
    record->files = file;
    return file;
}

/* ---- the log ---------------------------------------------------------------------------------- */

static int push_tick(struct record *record, struct record_op *op, bool ends)
{
    if (array_grow(&record->ticks, record->tick_count, &record->tick_capacity, sizeof(*record->ticks)) < 0)
        return -ENOMEM;
    record->ticks[record->tick_count++] = (struct record_tick){.op = op, .ends = ends};
    return 0;
}

/* A new op that begins now. NULL: no memory. lock held. */
static struct record_op *begin_held(struct record *record, enum device_event_kind kind, struct record_file *file,
                                    uint64_t offset, uint64_t len)
{
    struct record_op *op = calloc(1, sizeof(*op));
    if (op == NULL || array_grow(&record->ops, record->op_count, &record->op_capacity, sizeof(*record->ops)) < 0 ||
        push_tick(record, op, false) < 0) {
        free(op);
        return NULL;
    }
    op->kind = kind;
    op->file = file;
    op->offset = offset;
    op->len = len;
    op->begin = record->tick_count;
    record->ops[record->op_count++] = op;
    return op;
}

static void end_held(struct record *record, struct record_op *op, int result)
{
    if (push_tick(record, op, true) < 0)
        abort(); /* a test's device: there is no honest way on without the record */
    op->end = record->tick_count;
    op->result = result;
}

static struct record_op *begin(struct record *record, enum device_event_kind kind, int file, uint64_t offset,
                               uint64_t len)
{
    pthread_mutex_lock(&record->lock);
    struct record_file *found = file < 0 ? NULL : record->handles[file];
    struct record_op *op = begin_held(record, kind, found, offset, len);
    pthread_mutex_unlock(&record->lock);
    return op;
}

static int end(struct record *record, struct record_op *op, int result)
{
    pthread_mutex_lock(&record->lock);
    end_held(record, op, result);
    pthread_mutex_unlock(&record->lock);
    return result;
}

/* ---- calls ------------------------------------------------------------------------------------ */

static int set_handle(struct record *record, int handle, struct record_file *file)
{
    while ((size_t)handle >= record->handle_count) {
        if (array_grow(&record->handles, record->handle_count, &record->handle_capacity, sizeof(file)) < 0)
            return -ENOMEM;
        record->handles[record->handle_count++] = NULL;
    }
    record->handles[handle] = file;
    return 0;
}

static int file_open_held(struct record *record, const char *name, unsigned flags)
{
    struct record_name *found = record_names_find(&record->live, name);
    struct record_file *file = found != NULL ? found->file : NULL;
    struct record_op *create = NULL, *cut = NULL;

    if (file == NULL && (flags & DEVICE_FILE_CREATE)) {
        file = file_new(record, name);
        create = file != NULL ? begin_held(record, DEVICE_EVENT_CREATE, file, 0, 0) : NULL;
        if (create == NULL)
            return -ENOMEM;
        memcpy(create->name, name, strlen(name));
    }
    if (create == NULL && (flags & DEVICE_FILE_TRUNCATE)) {
        cut = begin_held(record, DEVICE_EVENT_TRUNCATE, file, 0, 0);
        if (cut == NULL)
            return -ENOMEM;
    }
    int handle = device_file_open(record->wrap.inner, name, flags);
    struct record_op *op = create != NULL ? create : cut;
    if (op != NULL)
        end_held(record, op, handle < 0 ? handle : 0);
    if (handle < 0)
        return handle;
    if (set_handle(record, handle, file) < 0 || (create != NULL && record_names_set(&record->live, name, file) < 0))
        abort();
    return handle;
}

static int record_file_open(struct device *device, const char *name, unsigned flags)
{
    struct record *record = record_of(device);
    pthread_mutex_lock(&record->lock);
    int ret = file_open_held(record, name, flags);
    pthread_mutex_unlock(&record->lock);
    return ret;
}

static int record_file_allocate(struct device *device, int file, uint64_t offset, uint64_t len)
{
    struct record *record = record_of(device);
    struct record_op *op = begin(record, DEVICE_EVENT_ALLOCATE, file, offset, len);
    return op == NULL ? -ENOMEM : end(record, op, device_file_allocate(record->wrap.inner, file, offset, len));
}

static int keep_bytes(struct record_op *op, const unsigned char *bytes)
{
    uint64_t count = op->len / DEVICE_BLOCK_BYTES;
    op->blocks = calloc(count, sizeof(struct block *));
    for (uint64_t i = 0; op->blocks != NULL && i < count; i++) {
        op->blocks[i] = block_new(bytes + i * DEVICE_BLOCK_BYTES);
        if (op->blocks[i] == NULL)
            return -ENOMEM;
    }
    return op->blocks == NULL ? -ENOMEM : 0;
}

/* A write of zeros: as bad as it can be. */
static int record_file_punch(struct device *device, int file, uint64_t offset, uint64_t len)
{
    struct record *record = record_of(device);
    struct record_op *op = begin(record, DEVICE_EVENT_WRITE, file, offset, len);
    unsigned char *zeros = calloc(1, len);
    int ret = op == NULL || zeros == NULL ? -ENOMEM : keep_bytes(op, zeros);
    free(zeros);
    if (ret < 0 && op != NULL)
        op->len = 0;
    if (ret == 0)
        ret = device_file_punch(record->wrap.inner, file, offset, len);
    return op == NULL ? ret : end(record, op, ret);
}

static int record_file_sync(struct device *device, int file)
{
    struct record *record = record_of(device);
    struct record_op *op = begin(record, DEVICE_EVENT_SYNC, file, 0, 0);
    return op == NULL ? -ENOMEM : end(record, op, device_file_sync(record->wrap.inner, file));
}

static int record_sync_names(struct device *device)
{
    struct record *record = record_of(device);
    struct record_op *op = begin(record, DEVICE_EVENT_SYNC_NAMES, -1, 0, 0);
    return op == NULL ? -ENOMEM : end(record, op, device_sync_names(record->wrap.inner));
}

static int change_name_held(struct record *record, const char *name, const char *to)
{
    struct record_op *op = begin_held(record, to != NULL ? DEVICE_EVENT_RENAME : DEVICE_EVENT_REMOVE, NULL, 0, 0);
    if (op == NULL)
        return -ENOMEM;
    memcpy(op->name, name, strlen(name));
    if (to != NULL)
        memcpy(op->to, to, strlen(to));
    int ret =
        to != NULL ? device_file_rename(record->wrap.inner, name, to) : device_file_remove(record->wrap.inner, name);
    end_held(record, op, ret);
    return ret < 0 ? ret : record_apply_name(&record->live, op);
}

static int record_file_rename(struct device *device, const char *from, const char *to)
{
    struct record *record = record_of(device);
    pthread_mutex_lock(&record->lock);
    int ret = change_name_held(record, from, to);
    pthread_mutex_unlock(&record->lock);
    return ret;
}

static int record_file_remove(struct device *device, const char *name)
{
    struct record *record = record_of(device);
    pthread_mutex_lock(&record->lock);
    int ret = change_name_held(record, name, NULL);
    pthread_mutex_unlock(&record->lock);
    return ret;
}

/* ---- transfers -------------------------------------------------------------------------------- */

static int transfer_begin(struct wrap *wrap, struct device_io *io)
{
    struct record *record = (struct record *)(void *)wrap;
    if (io->op == DEVICE_READ)
        return 0;
    pthread_mutex_lock(&record->lock); /* until io is set: transfer_ended() looks at that of every op */
    struct record_op *op = begin_held(record, DEVICE_EVENT_WRITE, record->handles[io->file], io->offset, io->len);
    if (op != NULL)
        op->io = io;
    pthread_mutex_unlock(&record->lock);
    if (op == NULL)
        return -ENOMEM;
    int ret = keep_bytes(op, io->buf);
    if (ret < 0) {
        op->len = 0;
        return end(record, op, ret);
    }
    return 0;
}

static void transfer_ended(struct wrap_queue *queue, struct device_io *io, int64_t returned)
{
    struct record *record = record_of(queue->queue.device);
    if (io->op == DEVICE_WRITE) {
        pthread_mutex_lock(&record->lock);
        size_t i = record->op_count;
        while (record->ops[i - 1]->io != io || record->ops[i - 1]->end != 0)
            i--;
        end_held(record, record->ops[i - 1], returned < 0 ? (int)returned : 0);
        pthread_mutex_unlock(&record->lock);
    }
    wrap_end(queue, io, returned);
}

static unsigned record_poll(struct device_queue *queue, bool wait)
{
    struct wrap_queue *wrapped = (struct wrap_queue *)(void *)queue;
    wrapped->ended = 0;
    wrap_poll_inner(wrapped, wait);
    return wrapped->ended;
}

static const struct device_queue_ops record_queue_ops = {
    .close = wrap_queue_close, .submit = wrap_submit, .poll = record_poll};

static int record_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue)
{
    return wrap_queue_open(device, depth, &record_queue_ops, ret_queue);
}

/* ---- open and close --------------------------------------------------------------------------- */

static void record_close(struct device *device)
{
    struct record *record = record_of(device);
    for (size_t i = 0; i < record->op_count; i++) {
        struct record_op *op = record->ops[i];
        for (uint64_t n = 0; op->blocks != NULL && n < op->len / DEVICE_BLOCK_BYTES; n++)
            block_put(op->blocks[n]);
        free(op->blocks);
        free(op);
    }
    struct record_file *file;
    while ((file = record->files) != NULL) {
        record->files = file->next;
        record_image_fini(&file->origin);
        record_image_fini(&file->safe);
        free(file->pending.ops);
        free(file);
    }
    free(record->ops);
    free(record->ticks);
    free(record->handles);
    free(record->live.names);
    free(record->origin.names);
    free(record->safe.names);
    free(record->pending.ops);
    pthread_mutex_destroy(&record->lock);
    free(record);
}

static const struct device_ops record_ops = {
    .close = record_close,
    .file_open = record_file_open,
    .file_close = wrap_file_close,
    .file_size = wrap_file_size,
    .file_read = wrap_file_read,
    .file_allocate = record_file_allocate,
    .file_punch = record_file_punch,
    .file_sync = record_file_sync,
    .file_rename = record_file_rename,
    .file_remove = record_file_remove,
    .sync_names = record_sync_names,
    .list = wrap_list,
    .map = wrap_map,
    .unmap = wrap_unmap,
    .space = wrap_space,
    .queue_open = record_queue_open,
};

static int take_in(void *ctx, const char *name)
{
    struct record *record = ctx;
    struct record_file *file = file_new(record, name);
    if (file == NULL)
        return -ENOMEM;
    int handle = device_file_open(record->wrap.inner, name, 0);
    if (handle < 0)
        return handle;
    const void *bytes;
    uint64_t len;
    int ret = device_map(record->wrap.inner, handle, &bytes, &len);
    if (ret == 0) {
        ret = record_image_read(&file->origin, bytes, len);
        device_unmap(record->wrap.inner, bytes, len);
    }
    device_file_close(record->wrap.inner, handle);
    if (ret == 0)
        ret = record_names_set(&record->origin, name, file);
    return ret == 0 ? record_names_set(&record->live, name, file) : ret;
}

int device_record_open(struct device *inner, struct device **ret_device)
{
    struct record *record = calloc(1, sizeof(*record));
    if (record == NULL)
        return -ENOMEM;
    record->wrap = (struct wrap){.device = {.ops = &record_ops, .backend_name = "record", .in_place = inner->in_place},
                                 .inner = inner,
                                 .begin = transfer_begin,
                                 .ended = transfer_ended};
    pthread_mutex_init(&record->lock, NULL);
    int ret = device_list(inner, take_in, record);
    if (ret == 0)
        ret = record_rewind(record);
    if (ret < 0) {
        record_close(&record->wrap.device);
        return ret;
    }
    *ret_device = &record->wrap.device;
    return 0;
}

uint64_t device_record_now(struct device *device)
{
    struct record *record = record_of(device);
    assert(device->ops == &record_ops);
    pthread_mutex_lock(&record->lock);
    uint64_t now = record->tick_count;
    pthread_mutex_unlock(&record->lock);
    return now;
}

int device_record_events(struct device *device, int (*each)(void *ctx, const struct device_event *event), void *ctx)
{
    struct record *record = record_of(device);
    assert(device->ops == &record_ops);
    int ret = 0;
    for (size_t i = 0; ret == 0 && i < record->op_count; i++) {
        const struct record_op *op = record->ops[i];
        struct device_event event = {.kind = op->kind,
                                     .name = op->file != NULL ? op->file->name : op->name,
                                     .to = op->to,
                                     .offset = op->offset,
                                     .len = op->len,
                                     .begin = op->begin,
                                     .end = op->end,
                                     .result = op->result};
        ret = each(ctx, &event);
    }
    return ret;
}
