// SPDX-License-Identifier: MIT
/*
 * prefix: a writer whose every step can be told afterwards, for tests/mount/kill.sh.
 *
 *     prefix write DIR LOG    goes on from the step in LOG, until a call fails (the daemon was killed)
 *     prefix check DIR LOG    DIR holds exactly the steps 1 to m, for some m from the last that an fsync had
 *                             returned after, to the last that was begun; makes LOG say m
 *
 * LOG is kept outside of the mount: two numbers, begun and synced. What step n does follows from n: it replaces
 * a file by rename, removes it, overwrites 8 bytes in place, or appends 8 bytes; now and then it syncs
 * some file, which is to cover all steps before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 8
#define SLOTS 512
#define BYTES_MAX 20000

struct state {
    uint64_t files[FILES]; /* the step that wrote it; 0: not there */
    uint64_t slots[SLOTS];
    uint64_t appended; /* how many, */
    uint64_t chain;    /* and which */
};

static uint64_t mix(uint64_t x)
{
    x = (x + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (x ^ x >> 29) * UINT64_C(0x94d049bb133111eb) >> 8;
}

static bool removes(uint64_t n)
{
    return mix(n) % 4 == 1;
}

/* The file as step n writes it: n at its start, the rest follows from n. Its length. */
static size_t make_bytes(uint64_t n, unsigned char *bytes)
{
    size_t len = 8 + mix(n + 1) % (BYTES_MAX - 8);

    for (size_t i = 8; i < len; i++)
        bytes[i] = (unsigned char)(n + i * 7);
    memcpy(bytes, &n, 8);
    return len;
}

static void apply(struct state *state, uint64_t n)
{
    uint64_t h = mix(n);

    if (h % 4 < 2)
        state->files[h / 4 % FILES] = removes(n) ? 0 : n;
    else if (h % 4 == 2)
        state->slots[h / 4 % SLOTS] = n;
    else {
        state->appended++;
        state->chain = mix(state->chain ^ n);
    }
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static int put(const char *name, int flags, const void *bytes, size_t len, off_t offset, bool sync)
{
    int fd = open(name, flags | O_WRONLY | O_CREAT, 0644);
    bool ok = fd >= 0;

    if (ok && flags & O_APPEND)
        ok = write(fd, bytes, len) == (ssize_t)len;
    else if (ok)
        ok = pwrite(fd, bytes, len, offset) == (ssize_t)len;
    ok = ok && (!sync || fsync(fd) == 0);
    if (fd >= 0 && close(fd) < 0)
        ok = false;
    return ok ? 0 : -1;
}

static int step(uint64_t n, bool sync)
{
    static unsigned char bytes[BYTES_MAX];
    uint64_t h = mix(n);
    char name[16];

    sprintf(name, "f%u", (unsigned)(h / 4 % FILES));
    switch (h % 4) {
    case 0:
        if (put("new", O_TRUNC, bytes, make_bytes(n, bytes), 0, false) < 0 || rename("new", name) < 0)
            return -1;
        break;
    case 1:
        if (unlink(name) < 0 && errno != ENOENT)
            return -1;
        break;
    case 2:
        return put("slots", 0, &n, sizeof n, (off_t)(h / 4 % SLOTS * sizeof n), sync);
    default:
        return put("appended", O_APPEND, &n, sizeof n, 0, sync);
    }
    int fd = sync ? open(".", O_RDONLY | O_DIRECTORY) : -1;
    int rc = sync && (fd < 0 || fsync(fd) < 0) ? -1 : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static void write_steps(int log, uint64_t numbers[2])
{
    for (;;) {
        uint64_t n = ++numbers[0];
        bool sync = mix(n + 2) % 6 == 0;
        if (pwrite(log, numbers, sizeof(uint64_t[2]), 0) < 0)
            exit(2);
        if (step(n, sync) < 0) {
            if (errno != ENOTCONN && errno != ECONNABORTED && errno != EIO && errno != ENOENT) {
                perror("prefix: a step");
                exit(1);
            }
            exit(0);
        }
        numbers[1] = sync ? n : numbers[1];
    }
}

/* ---- checking ----------------------------------------------------------------------------------------- */

static size_t get(const char *name, void *bytes, size_t len)
{
    int fd = open(name, O_RDONLY);
    size_t got = 0;

    if (fd < 0 && errno == ENOENT)
        return 0;
    for (ssize_t part; fd >= 0 && got < len && (part = read(fd, (char *)bytes + got, len - got)) != 0;
         got += (size_t)part) {
        if (part < 0) {
            perror(name);
            exit(1);
        }
    }
    if (fd < 0 || close(fd) < 0) {
        perror(name);
        exit(1);
    }
    return got;
}

static struct state look(void)
{
    static unsigned char bytes[BYTES_MAX + 1], wanted[BYTES_MAX];
    static uint64_t appended[1 << 20];
    struct state seen = {.appended = 0};

    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        sprintf(name, "f%u", i);
        size_t len = get(name, bytes, sizeof bytes);
        if (access(name, F_OK) < 0)
            continue;
        memcpy(&seen.files[i], bytes, 8);
        if (len < 8 || len != make_bytes(seen.files[i], wanted) || memcmp(bytes, wanted, len) != 0) {
            fprintf(stderr, "prefix: %s is no file that was ever written whole (%zu bytes)\n", name, len);
            exit(1);
        }
    }
    (void)!get("slots", seen.slots, sizeof seen.slots);
    seen.appended = get("appended", appended, sizeof appended) / sizeof appended[0];
    for (uint64_t i = 0; i < seen.appended; i++)
        seen.chain = mix(seen.chain ^ appended[i]);
    return seen;
}

static int check(int log, uint64_t numbers[2])
{
    struct state seen = look(), model = {.appended = 0};
    uint64_t found = UINT64_MAX;

    for (uint64_t n = 0; n <= numbers[0]; n++) {
        if (n > 0)
            apply(&model, n);
        if (n >= numbers[1] && memcmp(&seen, &model, sizeof seen) == 0)
            found = n;
    }
    if (found == UINT64_MAX) {
        fprintf(stderr, "prefix: not the steps to any of %llu (synced) to %llu (begun); %llu appended\n",
                (unsigned long long)numbers[1], (unsigned long long)numbers[0], (unsigned long long)seen.appended);
        return 1;
    }
    numbers[0] = numbers[1] = found;
    return pwrite(log, numbers, sizeof(uint64_t[2]), 0) < 0;
}

int main(int argc, char **argv)
{
    uint64_t numbers[2] = {0, 0};

    if (argc != 4) {
        fprintf(stderr, "usage: prefix write|check DIR LOG\n");
        return 2;
    }
    int log = open(argv[3], O_RDWR | O_CREAT, 0644);
    if (log < 0 || pread(log, numbers, sizeof numbers, 0) < 0 || chdir(argv[2]) < 0) {
        perror("prefix");
        return 2;
    }
    if (strcmp(argv[1], "check") == 0)
        return check(log, numbers);
    write_steps(log, numbers);
    return 0;
}
