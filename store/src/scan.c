// SPDX-License-Identifier: MIT
/* scan: see scan.h. */
#include "scan.h"

#include <errno.h>
#include <stdlib.h>

#define SCAN_BYTES (1u << 20)

int scan_open(struct scan *scan, struct store *store, uint64_t end)
{
    *scan = (struct scan){.log = store->device_log,
                          .store_id = store->store_id,
                          .segment_bytes = store->superblock.segment_bytes,
                          .holes = salvage_holes(store),
                          .salvage = store->salvage != NULL,
                          .end = end};
    return device_queue_open(store->device, 4, &scan->queue);
}

void scan_close(struct scan *scan)
{
    device_queue_close(scan->queue);
    free(scan->window);
}

static void nothing_to_do(struct device_io *io)
{
    (void)io;
}

static int64_t read_log(struct scan *scan, void *buf, uint64_t at, uint32_t len)
{
    struct device_io io = {.op = DEVICE_READ, .buf = buf, .len = len, .done = nothing_to_do};

    device_log_submit(scan->log, scan->queue, &io, at);
    while (device_queue_pending(scan->queue) > 0)
        device_poll(scan->queue, true);
    return io.result;
}

/* One by one; those that cannot be read count as zeros, which no checksum will take for something else. */
static int64_t read_blocks(struct scan *scan, uint64_t first, uint64_t end)
{
    for (uint64_t at = first; at < end; at += HLOG_BLOCK) {
        uint8_t *block = scan->window + (at - first);
        if (read_log(scan, block, at, HLOG_BLOCK) != HLOG_BLOCK)
            memset(block, 0, HLOG_BLOCK);
    }
    return (int64_t)(end - first);
}

int scan_is_unreadable(struct scan *scan, uint64_t from, uint64_t to, bool *ret_unreadable)
{
    uint8_t *block = aligned_alloc(HLOG_BLOCK, HLOG_BLOCK);

    *ret_unreadable = false;
    if (!block)
        return -ENOMEM;
    for (uint64_t at = from & ~(uint64_t)(HLOG_BLOCK - 1); at < to && !*ret_unreadable; at += HLOG_BLOCK) {
        int64_t moved = read_log(scan, block, at, HLOG_BLOCK);
        *ret_unreadable = moved < 0 && moved != -ENOENT; /* a segment that is gone */
    }
    free(block);
    return 0;
}

static bool fill_window(struct scan *scan, uint64_t first, uint64_t end)
{
    scan->window_len = 0;
    if (end - first > scan->window_room) {
        free(scan->window);
        scan->window_room = end - first;
        scan->window = aligned_alloc(HLOG_BLOCK, scan->window_room);
        if (!scan->window) {
            scan->error = -ENOMEM;
            scan->window_room = 0;
            return false;
        }
    }
    int64_t moved = read_log(scan, scan->window, first, (uint32_t)(end - first));
    if (moved != (int64_t)(end - first) && scan->salvage)
        moved = read_blocks(scan, first, end);
    if (moved != (int64_t)(end - first)) {
        scan->error = moved < 0 ? (int)moved : -EIO;
        return false;
    }
    scan->window_at = first;
    scan->window_len = end - first;
    return true;
}

void *scan_look(struct scan *scan, uint64_t at, uint64_t len)
{
    if (at >= scan->window_at && at + len <= scan->window_at + scan->window_len)
        return scan->window + (at - scan->window_at);
    uint64_t first = at & ~(uint64_t)(HLOG_BLOCK - 1);
    uint64_t stop = round_up(first + 1, scan->segment_bytes);
    uint64_t end = round_up(at + len, HLOG_BLOCK);
    if (end < first + SCAN_BYTES)
        end = first + SCAN_BYTES;
    if (stop > round_up(scan->end, HLOG_BLOCK))
        stop = round_up(scan->end, HLOG_BLOCK);
    if (end > stop)
        end = stop;
    if (at + len > end || scan->error || scan->stay || !fill_window(scan, first, end))
        return NULL;
    return scan->window + (at - first);
}

const struct commit_record *scan_commit(struct scan *scan, uint64_t at)
{
    const struct commit_record *c = scan_look(scan, at, COMMIT_BYTES);

    return c && (at + COMMIT_BYTES) % HLOG_BLOCK == 0 && c->link == RECORD_COMMIT && c->magic == COMMIT_MAGIC &&
                   c->seal == commit_checksum(c, at, scan->store_id)
               ? c
               : NULL;
}

static bool crosses_segment(const struct scan *scan, uint64_t at, uint64_t size)
{
    return (at ^ (at + size - 1)) & ~(scan->segment_bytes - 1);
}

static enum scan_kind record_at(struct scan *scan, uint64_t at, struct scan_item *item)
{
    struct record *r = scan_look(scan, at, RECORD_HEADER_BYTES);

    if (!r)
        return SCAN_NOTHING;
    item->size = record_size(r);
    if (r->value_len > r->capacity || item->size > scan->segment_bytes || crosses_segment(scan, at, item->size) ||
        !(r = scan_look(scan, at, item->size)))
        return SCAN_NOTHING;
    item->record = r;
    item->link = atomic_load_explicit(&r->link, memory_order_relaxed); /* a private copy, both */
    item->seal = atomic_load_explicit(&r->seal, memory_order_relaxed);
    bool sound = (item->link & ADDRESS_MASK) < at && record_is_sound(r, item->link, at, scan->store_id);
    return sound ? SCAN_RECORD : SCAN_NOTHING;
}

/* Where the hole that begins at `at` ends, or 0. */
static uint64_t hole_end(const struct scan *scan, uint64_t at)
{
    for (uint32_t low = 0, high = scan->holes->count; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        const struct log_range *hole = &scan->holes->ranges[middle];
        if (hole->begin == at)
            return hole->end;
        if (hole->begin < at)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

static enum scan_kind kind_at(struct scan *scan, uint64_t at, struct scan_item *item)
{
    const uint64_t *word = scan_look(scan, at, 8);

    if (!word)
        return SCAN_NOTHING;
    item->size = pad_length(*word, at);
    if (item->size > 0)
        return crosses_segment(scan, at, item->size) ? SCAN_NOTHING : SCAN_PAD;
    if (*word != RECORD_COMMIT)
        return record_at(scan, at, item);
    item->size = COMMIT_BYTES;
    item->commit = scan_commit(scan, at);
    return item->commit ? SCAN_COMMIT : SCAN_NOTHING;
}

enum scan_kind scan_at(struct scan *scan, uint64_t at, struct scan_item *ret_item)
{
    bool stay = scan->stay;

    if (at >= scan->end)
        return ret_item->kind = SCAN_NOTHING;
    uint64_t end = scan->holes->count > 0 ? hole_end(scan, at) : 0;
    ret_item->hole = end > 0;
    if (ret_item->hole) {
        ret_item->size = end - at;
        return ret_item->kind = SCAN_PAD;
    }
    ret_item->kind = kind_at(scan, at, ret_item);
    if (ret_item->kind != SCAN_NOTHING || !stay)
        return ret_item->kind;
    return ret_item->kind = SCAN_LEFT;
}
