// SPDX-License-Identifier: MIT
/*
 * How a read that waits gets bytes of the log: from a window, with a window, or by themselves.
 *
 * Invariants:
 *   1. A store_io that was given to log_read() is in exactly one of: the device, the session's served list, the waiting
 *      list of a window that this session reads. io.done is called for it once, inside log_read_move_on().
 *   2. What is read as a window ends at `flushed`, of before it was asked for: beyond, the log may still change.
 *   3. A window that cannot be read, in whole or in part, costs time only: who waits for it reads by itself then.
 *
 * A session waits for its own windows only. One that another session is reading is not waited for, since that may not
 * look at its device for long.
 */
#include "private.h"

#include <errno.h>
#include <stdlib.h>

#define SERVED_MAX WINDOW_BYTES /* larger reads are worth a transfer of their own */

uint64_t log_read_stop(struct store *store, uint64_t address)
{
    uint64_t segment = round_up(address + 1, store->superblock.segment_bytes);
    uint64_t flushed = atomic_load(&store->log.flushed);

    return segment < flushed ? segment : flushed;
}

/* To be told in log_read_move_on(). */
static void serve(struct store_io *sio, int64_t result)
{
    struct store_session *s = sio->session;

    sio->io.result = result;
    sio->next = NULL;
    if (s->served_first)
        s->served_last->next = sio;
    else
        s->served_first = sio;
    s->served_last = sio;
}

/* Gives an io to the device; several together, unless poll does that. */
static void send(struct store_session *s, struct device_io *io, uint64_t from)
{
    count_one(&s->reads_device);
    add_to(&s->bytes_read, io->len);
    if (++s->unsent % SESSION_SEND == 0)
        device_log_submit(s->store->device_log, s->queue, io, from);
    else
        device_log_submit_later(s->store->device_log, s->queue, io, from);
}

static void read_alone(struct store_io *sio)
{
    sio->served = false;
    send(sio->session, &sio->io, sio->from);
}

void log_read_again(struct store_io *sio)
{
    struct windows *windows = &sio->session->store->windows;

    windows_drop(windows, sio->from);
    windows_drop(windows, sio->from + sio->io.len - 1);
    read_alone(sio);
}

static bool copy_from_windows(struct store_io *sio)
{
    struct windows *windows = &sio->session->store->windows;

    sio->served = windows_copy(windows, sio->from, sio->from + sio->io.len, sio->io.buf);
    return sio->served;
}

static void window_done(struct device_io *io)
{
    struct window_io *wio = (struct window_io *)io;
    struct store_io *sio = wio->waiting, *next;

    windows_put(&wio->session->store->windows, wio->window,
                io->result > 0 ? (uint64_t)io->result & ~(uint64_t)(HLOG_BLOCK - 1) : 0);
    wio->window = NULL;
    wio->waiting = NULL;
    for (; sio; sio = next) {
        next = sio->next;
        if (copy_from_windows(sio)) {
            sio->io.result = sio->io.len;
            sio->io.done(&sio->io);
        } else {
            read_alone(sio);
        }
    }
}

static void read_window(struct window_io *wio, struct window *window)
{
    uint64_t stop = log_read_stop(wio->session->store, window->from); /* invariant 2 */

    wio->window = window;
    wio->io = (struct device_io){.op = DEVICE_READ,
                                 .buf = window_bytes(window),
                                 .len = (uint32_t)((window->to < stop ? window->to : stop) - window->from),
                                 .done = window_done};
    send(wio->session, &wio->io, window->from);
}

/* Will it have what is wanted, but for what is in the window in front of it? */
static bool will_have(const struct window *window, uint64_t from, uint64_t to)
{
    return to > window->begin && to <= window->to && (from >= window->from || window->from == window->begin);
}

/* Waits for the window in which it ends (it begins there, too, or in the one before, which is kept then), if that is on
 * its way or worth reading. */
static bool wait_for_window(struct store_io *sio)
{
    struct store_session *s = sio->session;
    uint64_t from = sio->from, to = from + sio->io.len;
    struct window_io *wio = NULL, *unused = NULL;

    for (struct window_io *w = s->window_ios; w < s->window_ios + SESSION_WINDOWS; w++) {
        if (!w->window)
            unused = w;
        else if (will_have(w->window, from, to))
            wio = w;
    }
    if (!wio) {
        struct window *window = unused ? windows_claim(&s->store->windows, from, to, sio->read->nearby) : NULL;
        if (!window)
            return false;
        wio = unused;
        read_window(wio, window);
    }
    sio->next = wio->waiting;
    wio->waiting = sio;
    return true;
}

void log_read(struct store_io *sio, uint64_t at, uint64_t bytes, uint64_t keep, bool small)
{
    uint64_t first = at & ~(uint64_t)(HLOG_BLOCK - 1);
    uint64_t end = round_up(at + bytes, HLOG_BLOCK), stop = log_read_stop(sio->session->store, sio->address);
    uint8_t *buffer = sio->buffer + round_up(keep, HLOG_BLOCK);

    sio->served = false;
    if (end > stop)
        end = stop;
    if (first >= end) {
        serve(sio, -EIO);
        return;
    }
    if (buffer + (end - first) > sio->buffer + READ_BUFFER_BYTES) {
        free(sio->large);
        buffer = sio->large = aligned_alloc(HLOG_BLOCK, end - first);
        if (!buffer) {
            serve(sio, -ENOMEM);
            return;
        }
    }
    sio->from = first;
    sio->io = (struct device_io){.op = DEVICE_READ, .buf = buffer, .len = (uint32_t)(end - first), .done = io_done};
    if (!sio->read->priv.pinned && end - first <= SERVED_MAX) {
        if (copy_from_windows(sio)) {
            serve(sio, sio->io.len);
            return;
        }
        if (small && wait_for_window(sio))
            return;
    }
    read_alone(sio);
}

void log_read_move_on(struct store_session *s, bool wait)
{
    struct store_io *sio = s->served_first, *next;

    s->unsent = 0;
    s->served_first = s->served_last = NULL;
    wait = wait && !sio;
    for (; sio; sio = next) {
        next = sio->next;
        sio->io.done(&sio->io);
    }
    device_poll(s->queue, wait);
}
