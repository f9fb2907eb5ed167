// SPDX-License-Identifier: MIT
#include "cli.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define EVERY_MS 200

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *size_text(uint64_t bytes, char text[16])
{
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes;
    unsigned unit = 0;
    while (n >= 1024 && unit < 4) {
        n /= 1024;
        unit++;
    }
    snprintf(text, 16, unit ? "%.1f %s" : "%.0f %s", n, UNITS[unit]);
    return text;
}

void progress_tell(struct progress *progress, const char *path, const char *phase, uint64_t done_bytes,
                   uint64_t total_bytes)
{
    char done[16], total[16], rate[16];
    uint64_t now = now_ms();
    if (!isatty(STDERR_FILENO))
        return;
    if (progress->since_ms == 0 || done_bytes < progress->last_bytes) { /* the next phase */
        progress->since_ms = now;
        progress->first_bytes = done_bytes;
    }
    progress->last_bytes = done_bytes;
    if (now - progress->told_ms < EVERY_MS)
        return;
    progress->told_ms = now;
    progress->shown = true;
    uint64_t ms = now - progress->since_ms;
    fprintf(stderr, "\r\033[K%s: %s: %u%%, %s of %s, %s/s", path, phase,
            total_bytes ? (unsigned)(done_bytes * 100 / total_bytes) : 100, size_text(done_bytes, done),
            size_text(total_bytes, total), size_text(ms ? (done_bytes - progress->first_bytes) * 1000 / ms : 0, rate));
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    *progress = (struct progress){0};
}
