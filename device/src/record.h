// SPDX-License-Identifier: MIT
/*
 * What record.c keeps and record_crash.c makes crash states from. The cursor is a moment of the record:
 * `safe` is what every crash then leaves, `pending` what began before and is not safe.
 */
#ifndef DEVICE_RECORD_PRIVATE_H
#define DEVICE_RECORD_PRIVATE_H

#include "block.h"
#include "wrap.h"

#include <device/record.h>
#include <pthread.h>

struct record_image {
    struct block **blocks; /* references; NULL: zeros */
    uint64_t count, size;
};

struct record_op {
    enum device_event_kind kind;
    struct record_file *file;   /* NULL: of names */
    uint64_t offset, len;       /* bytes */
    struct block **blocks;      /* of a write: len / 4096 references */
    const struct device_io *io; /* of a write that has not ended */
    uint64_t begin, end;        /* ticks; end 0: not ended */
    int result;
    bool doomed; /* at the cursor: no sync can make it safe any more */
    char name[DEVICE_NAME_MAX + 1], to[DEVICE_NAME_MAX + 1];
};

struct record_ops {
    struct record_op **ops; /* in the order in which they began */
    size_t count, capacity;
};

struct record_file {
    char name[DEVICE_NAME_MAX + 1];   /* its first */
    struct record_image origin, safe; /* at tick 0; at the cursor */
    struct record_ops pending;        /* truncations, allocations, writes */
    struct record_file *next;
};

struct record_name {
    char name[DEVICE_NAME_MAX + 1];
    struct record_file *file;
};

struct record_names {
    struct record_name *names;
    size_t count, capacity;
};

struct record_tick {
    struct record_op *op;
    bool ends;
};

struct record {
    struct wrap wrap;
    pthread_mutex_t lock; /* guards all below */
    struct record_file *files;
    struct record_file **handles; /* by file number */
    size_t handle_count, handle_capacity;
    struct record_op **ops; /* in the order in which they began */
    size_t op_count, op_capacity;
    struct record_tick *ticks;
    size_t tick_count, tick_capacity;
    struct record_names live, origin; /* now; at tick 0 */

    uint64_t cursor; /* ticks that `safe` and `pending`, here and in the files, have taken in */
    struct record_names safe;
    struct record_ops pending; /* changes of names */
};

struct record_name *record_names_find(struct record_names *names, const char *name);
int record_names_set(struct record_names *names, const char *name, struct record_file *file);
void record_names_remove(struct record_names *names, const char *name);
int record_names_copy(struct record_names *to, const struct record_names *from);

/* Does what a create, rename or remove did. */
int record_apply_name(struct record_names *names, const struct record_op *op);

int record_image_read(struct record_image *image, const void *bytes, uint64_t len);
void record_image_fini(struct record_image *image);

/* Puts the cursor to tick 0. */
int record_rewind(struct record *record);

#endif
