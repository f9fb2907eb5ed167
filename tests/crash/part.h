// SPDX-License-Identifier: MIT
/*
 * part: some of a device's files as a device of their own, those whose names begin with a prefix: so one record, one
 * crash and one fault are of a store and its cold level together.
 */
#ifndef TESTS_CRASH_PART_H
#define TESTS_CRASH_PART_H

#include "crash.h"
#include <wrap.h>

struct part {
    struct wrap wrap;
    char prefix[8];
};

struct part_name {
    char text[DEVICE_NAME_MAX + 1];
};

static struct part_name part_name(struct device *device, const char *name)
{
    struct part_name full;

    snprintf(full.text, sizeof full.text, "%s%.50s", ((struct part *)(void *)device)->prefix, name);
    return full;
}

static int part_file_open(struct device *device, const char *name, unsigned flags)
{
    return device_file_open(wrap_inner(device), part_name(device, name).text, flags);
}

static int part_file_allocate(struct device *device, int file, uint64_t offset, uint64_t len)
{
    return device_file_allocate(wrap_inner(device), file, offset, len);
}

static int part_file_punch(struct device *device, int file, uint64_t offset, uint64_t len)
{
    return device_file_punch(wrap_inner(device), file, offset, len);
}

static int part_file_sync(struct device *device, int file)
{
    return device_file_sync(wrap_inner(device), file);
}

static int part_file_rename(struct device *device, const char *from, const char *to)
{
    return device_file_rename(wrap_inner(device), part_name(device, from).text, part_name(device, to).text);
}

static int part_file_remove(struct device *device, const char *name)
{
    return device_file_remove(wrap_inner(device), part_name(device, name).text);
}

static int part_sync_names(struct device *device)
{
    return device_sync_names(wrap_inner(device));
}

struct part_listing {
    const char *prefix;
    int (*each)(void *ctx, const char *name);
    void *ctx;
};

static int part_each(void *ctx, const char *name)
{
    const struct part_listing *listing = ctx;
    size_t len = strlen(listing->prefix);

    return strncmp(name, listing->prefix, len) == 0 ? listing->each(listing->ctx, name + len) : 0;
}

static int part_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx)
{
    struct part_listing listing = {((struct part *)(void *)device)->prefix, each, ctx};

    return device_list(wrap_inner(device), part_each, &listing);
}

static unsigned part_poll(struct device_queue *outer, bool wait)
{
    struct wrap_queue *queue = (struct wrap_queue *)(void *)outer;

    queue->ended = 0;
    wrap_poll_inner(queue, wait);
    return queue->ended;
}

static void part_ended(struct wrap_queue *queue, struct device_io *io, int64_t returned)
{
    int64_t result;

    if (device_io_advance(io, returned, &result))
        wrap_end(queue, io, result);
    else
        wrap_again(queue, io);
}

static int part_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue)
{
    static const struct device_queue_ops ops = {.close = wrap_queue_close, .submit = wrap_submit, .poll = part_poll};

    return wrap_queue_open(device, depth, &ops, ret_queue);
}

static void part_close(struct device *device)
{
    free(device);
}

/* The caller closes it before `inner`. */
static struct device *part_open(struct device *inner, const char *prefix)
{
    static const struct device_ops ops = {.close = part_close,
                                          .file_open = part_file_open,
                                          .file_close = wrap_file_close,
                                          .file_size = wrap_file_size,
                                          .file_read = wrap_file_read,
                                          .file_allocate = part_file_allocate,
                                          .file_punch = part_file_punch,
                                          .file_sync = part_file_sync,
                                          .file_rename = part_file_rename,
                                          .file_remove = part_file_remove,
                                          .sync_names = part_sync_names,
                                          .list = part_list,
                                          .map = wrap_map,
                                          .unmap = wrap_unmap,
                                          .space = wrap_space,
                                          .queue_open = part_queue_open};
    struct part *part = calloc(1, sizeof *part);

    part->wrap = (struct wrap){.device = {.ops = &ops, .backend_name = "part", .in_place = inner->in_place},
                               .inner = inner,
                               .ended = part_ended};
    snprintf(part->prefix, sizeof part->prefix, "%s", prefix);
    return &part->wrap.device;
}

#endif
