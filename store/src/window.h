// SPDX-License-Identifier: MIT
/*
 * window: pieces of the log around small records that were read from the device, kept for a while: what was written
 * together is often read together.
 *
 * The log below `flushed` never changes and an address is used once, so a window cannot be stale, whoever writes or
 * compacts meanwhile. Space that is given back reads as what was or as zeros, in a window as from the device: what
 * is copied from here is verified as if the device had given it now, and whoever meets nothing sound below `begin`
 * begins again at the index (read.c, invariant 2).
 *
 * A window is read in part where the caller says that what is beside its record is wanted next, and whole where misses
 * tell that it is worth it: the first in a neighbourhood is a plain read, and is remembered; a second one soon after,
 * or one behind a window that was of use, reads all of it.
 *
 * Invariants, under the lock of the set:
 *   1. A window is free (begin NONE), being read by whoever claimed it, or kept: then it has the log's bytes
 *      [from, to), which do not change until it is claimed anew.
 *   2. One that is being read is claimed, and written, by nobody else; from and to are constant then.
 *
 * Threads: any number. The locks are leaves, held for a copy of what one read wants: a few KiB, rarely more.
 */
#ifndef STORE_WINDOW_H
#define STORE_WINDOW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WINDOW_BYTES (64u << 10)      /* divides every segment; takes a quarter longer than 4 KiB, one at a time */
#define WINDOW_PART_BYTES (16u << 10) /* takes as long as 4 KiB */
#define WINDOW_WAYS 4u

struct window {
    uint64_t begin;    /* address, a multiple of WINDOW_BYTES */
    uint64_t from, to; /* addresses of what is kept, or to be read, of it */
    uint64_t used;     /* clock of the set when it was last of use */
    uint32_t hits;
    bool reading;
    uint8_t *bytes; /* of `begin`; constant; written by whoever claimed it while it is being read */
};

struct window_set {
    pthread_mutex_t lock; /* guards all of the set */
    uint64_t clock;
    struct window windows[WINDOW_WAYS];
    uint64_t missed[WINDOW_WAYS]; /* begins of late, without a window */
    unsigned next_missed;
};

struct windows {
    struct window_set *sets;
    unsigned count; /* of sets; 0: there are no windows. Constant, as the rest */
    uint8_t *memory;
};

/* As many as fit into `bytes`, maybe none. Memory is touched on use. -ENOMEM. */
int windows_open(struct windows *windows, uint64_t bytes);
void windows_close(struct windows *windows);

/* Copies the log's bytes [from, to), at most WINDOW_BYTES, if they are kept. */
bool windows_copy(struct windows *windows, uint64_t from, uint64_t to, uint8_t *buf);
/* A read of [from, to), at most WINDOW_BYTES, has to go to the device. If the window in which it ends is worth reading,
 * or with `nearby` the part of it that begins with the read, claims it for the caller, who reads its [from, to) and
 * calls windows_put(); else NULL. */
struct window *windows_claim(struct windows *windows, uint64_t from, uint64_t to, bool nearby);
static inline uint8_t *window_bytes(const struct window *window)
{
    return window->bytes + (window->from - window->begin);
}
/* The first `len` bytes of what was claimed have been read; 0: it could not be read. */
void windows_put(struct windows *windows, struct window *window, uint64_t len);
/* What was copied from the window of `address` was not sound. */
void windows_drop(struct windows *windows, uint64_t address);

#endif
