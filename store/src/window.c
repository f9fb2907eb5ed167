// SPDX-License-Identifier: MIT
/* window: see window.h. */
#include "window.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NONE UINT64_MAX /* no window begins there */
#define USEFUL 2u       /* hits of a window that is followed by the next one */

int windows_open(struct windows *windows, uint64_t bytes)
{
    *windows = (struct windows){.count = (unsigned)(bytes / (WINDOW_BYTES * WINDOW_WAYS))};
    if (windows->count == 0)
        return 0;
    windows->sets = calloc(windows->count, sizeof *windows->sets);
    windows->memory = mmap(NULL, (uint64_t)windows->count * WINDOW_WAYS * WINDOW_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!windows->sets || windows->memory == MAP_FAILED) {
        if (windows->memory != MAP_FAILED)
            munmap(windows->memory, (uint64_t)windows->count * WINDOW_WAYS * WINDOW_BYTES);
        free(windows->sets);
        windows->count = 0;
        return -ENOMEM;
    }
    uint8_t *bytes_of = windows->memory;
    for (struct window_set *set = windows->sets; set < windows->sets + windows->count; set++) {
        pthread_mutex_init(&set->lock, NULL);
        for (unsigned i = 0; i < WINDOW_WAYS; i++, bytes_of += WINDOW_BYTES) {
            set->windows[i] = (struct window){.begin = NONE, .bytes = bytes_of};
            set->missed[i] = NONE;
        }
    }
    return 0;
}

void windows_close(struct windows *windows)
{
    if (windows->count == 0)
        return;
    for (unsigned i = 0; i < windows->count; i++)
        pthread_mutex_destroy(&windows->sets[i].lock);
    munmap(windows->memory, (uint64_t)windows->count * WINDOW_WAYS * WINDOW_BYTES);
    free(windows->sets);
    windows->count = 0;
}

static uint64_t begin_of(uint64_t address)
{
    return address & ~(uint64_t)(WINDOW_BYTES - 1);
}

/* Of a window: those that follow each other are in different sets. */
static struct window_set *set_of(const struct windows *windows, uint64_t begin)
{
    return &windows->sets[begin / WINDOW_BYTES % windows->count];
}

static struct window *find(struct window_set *set, uint64_t begin)
{
    for (struct window *w = set->windows; w < set->windows + WINDOW_WAYS; w++)
        if (w->begin == begin)
            return w;
    return NULL;
}

/* Of one window. */
static bool copy(struct windows *windows, uint64_t from, uint64_t to, uint8_t *buf)
{
    uint64_t begin = begin_of(from);
    struct window_set *set = set_of(windows, begin);

    pthread_mutex_lock(&set->lock);
    struct window *w = find(set, begin);
    bool kept = w && !w->reading && from >= w->from && to <= w->to;
    if (kept) {
        memcpy(buf, w->bytes + (from - begin), to - from);
        w->used = ++set->clock;
        w->hits++;
    }
    pthread_mutex_unlock(&set->lock);
    return kept;
}

bool windows_copy(struct windows *windows, uint64_t from, uint64_t to, uint8_t *buf)
{
    uint64_t end = begin_of(from) + WINDOW_BYTES;

    if (windows->count == 0)
        return false;
    if (to <= end)
        return copy(windows, from, to, buf);
    return copy(windows, from, end, buf) && copy(windows, end, to, buf + (end - from));
}

/* Is the window in front of it there, whole, and of use, or on its way? */
static bool follows(struct windows *windows, uint64_t begin)
{
    if (begin == 0)
        return false;
    struct window_set *set = set_of(windows, begin - WINDOW_BYTES);
    pthread_mutex_lock(&set->lock);
    const struct window *before = find(set, begin - WINDOW_BYTES);
    bool useful = before && before->to - before->from == WINDOW_BYTES && (before->reading || before->hits >= USEFUL);
    pthread_mutex_unlock(&set->lock);
    return useful;
}

/* Was it missed before? Then it is forgotten, else remembered. */
static bool missed_again(struct window_set *set, uint64_t begin)
{
    for (unsigned i = 0; i < WINDOW_WAYS; i++)
        if (set->missed[i] == begin) {
            set->missed[i] = NONE;
            return true;
        }
    set->missed[set->next_missed++ % WINDOW_WAYS] = begin;
    return false;
}

/* The window that was of no use for longest; NULL: all are being read. */
static struct window *oldest(struct window_set *set)
{
    struct window *old = NULL;

    for (struct window *w = set->windows; w < set->windows + WINDOW_WAYS; w++)
        if (!w->reading && (!old || w->used < old->used))
            old = w;
    return old;
}

struct window *windows_claim(struct windows *windows, uint64_t from, uint64_t to, bool nearby)
{
    uint64_t begin = begin_of(to - 1), end = begin + WINDOW_BYTES;
    struct window *claimed = NULL;

    if (windows->count == 0)
        return NULL;
    bool next = follows(windows, begin);
    struct window_set *set = set_of(windows, begin);
    pthread_mutex_lock(&set->lock);
    uint64_t part = from > begin ? from : begin;
    struct window *kept = find(set, begin);
    /* Kept, but not what is wanted: that is its second miss. Else what is missing is the window in front of it. */
    bool whole = kept || next || missed_again(set, begin);
    bool settled = kept && (kept->reading || (part >= kept->from && to <= kept->to));
    if (!settled && (whole || nearby) && (claimed = kept ? kept : oldest(set))) {
        claimed->begin = begin;
        claimed->from = whole ? begin : part;
        claimed->to = whole || part + WINDOW_PART_BYTES > end ? end : part + WINDOW_PART_BYTES;
        claimed->hits = 0;
        claimed->reading = true;
    }
    pthread_mutex_unlock(&set->lock);
    return claimed;
}

/* Nothing is kept in it. */
static void clear(struct window *w)
{
    w->begin = NONE;
    w->from = w->to = w->used = 0;
}

void windows_put(struct windows *windows, struct window *window, uint64_t len)
{
    struct window_set *set = set_of(windows, window->begin); /* constant: it is the caller's */

    pthread_mutex_lock(&set->lock);
    window->reading = false;
    window->to = window->from + len;
    window->used = ++set->clock;
    if (len == 0)
        clear(window);
    pthread_mutex_unlock(&set->lock);
}

void windows_drop(struct windows *windows, uint64_t address)
{
    if (windows->count == 0)
        return;
    struct window_set *set = set_of(windows, begin_of(address));

    pthread_mutex_lock(&set->lock);
    struct window *w = find(set, begin_of(address));
    if (w && !w->reading)
        clear(w);
    pthread_mutex_unlock(&set->lock);
}
