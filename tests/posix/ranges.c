// SPDX-License-Identifier: MIT
/* Contents: allocation, holes, copying, appending, O_DIRECT, mappings. */
#include "cases.h"

#include <sys/mman.h>

#define CHUNK 65536

static char bytes[1 << 20], got[1 << 20];

static int file_of(const char *name, size_t len)
{
    int fd = make_file(name, 0644);

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('a' + (i + i / 1000) % 26);
    equal((ssize_t)len, write(fd, bytes, len));
    return fd;
}

static bool are_zeros(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i])
            return false;
    return true;
}

static void fallocate_of_every_kind(void)
{
    int fd = file_of("f", 10 * CHUNK);
    struct stat st;

    ok(fallocate(fd, 0, 9 * CHUNK, 2 * CHUNK));
    ok(fstat(fd, &st));
    equal(11 * CHUNK, st.st_size);
    ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, CHUNK - 10, 4 * CHUNK));
    equal(10 * CHUNK, pread(fd, got, 10 * CHUNK, 0));
    equal(0, memcmp(got, bytes, CHUNK - 10));
    holds(are_zeros(got + CHUNK - 10, 4 * CHUNK));
    equal(0, memcmp(got + 5 * CHUNK - 10, bytes + 5 * CHUNK - 10, 5 * CHUNK + 10));
    ok(fstat(fd, &st));
    holds(st.st_blocks <= 8 * CHUNK / 512); /* of 11 */
    ok(fallocate(fd, FALLOC_FL_ZERO_RANGE, 8 * CHUNK, 8 * CHUNK));
    ok(fstat(fd, &st));
    equal(16 * CHUNK, st.st_size);
    equal(16 * CHUNK, pread(fd, got, sizeof got, 0));
    holds(are_zeros(got + 8 * CHUNK, 8 * CHUNK));
    ok(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20 * CHUNK));
    equal(16 * CHUNK, stat_of("f").st_size);
    ok(posix_fallocate(fd, 0, 17 * CHUNK) == 0 ? 0 : -1);
    gives(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, CHUNK));
    gives(EINVAL, fallocate(fd, 0, 0, 0));
    gives(EINVAL, fallocate(fd, 0, -1, 10));
    close(fd);
    fd = open("f", O_RDONLY);
    gives(EBADF, fallocate(fd, 0, 0, 10));
    close(fd);
}

static void holes_are_found(void)
{
    int fd = make_file("f", 0644);

    gives(ENXIO, lseek(fd, 0, SEEK_DATA));
    equal(1000, pwrite(fd, bytes, 1000, 4 * CHUNK));
    equal(1000, pwrite(fd, bytes, 1000, 20 * CHUNK));
    ok(ftruncate(fd, 30 * CHUNK));
    equal(0, lseek(fd, 0, SEEK_HOLE));
    equal(4 * CHUNK, lseek(fd, 0, SEEK_DATA));
    off_t hole = lseek(fd, 4 * CHUNK, SEEK_HOLE);
    holds(hole >= 4 * CHUNK + 1000 && hole <= 5 * CHUNK);
    equal(20 * CHUNK, lseek(fd, hole, SEEK_DATA));
    gives(ENXIO, lseek(fd, 21 * CHUNK, SEEK_DATA));
    equal(25 * CHUNK, lseek(fd, 25 * CHUNK, SEEK_HOLE));
    gives(ENXIO, lseek(fd, 30 * CHUNK, SEEK_HOLE));
    holds(stat_of("f").st_blocks <= 2 * CHUNK / 512);
    close(fd);
}

static void copy_file_range_copies(void)
{
    int in = file_of("f", sizeof bytes), out = make_file("g", 0644);
    loff_t from = 100, to = 7;
    size_t left = 900000;

    while (left > 0) {
        ssize_t n = copy_file_range(in, &from, out, &to, left, 0);
        holds(n > 0);
        left -= (size_t)n;
    }
    equal(900007, to);
    equal(900007, stat_of("g").st_size);
    equal(900000, pread(out, got, sizeof got, 7));
    equal(0, memcmp(got, bytes + 100, 900000));
    from = sizeof bytes;
    equal(0, copy_file_range(in, &from, out, &to, 10, 0));
    from = 0, to = 10;
    gives(EINVAL, copy_file_range(in, &from, in, &to, 100, 0));
    close(in);
    close(out);
}

static void appends_do_not_tear(void)
{
    enum { WRITERS = 4, LINES = 500, LINE = 100 };
    char line[LINE];
    int count[WRITERS] = {0}, status;

    close(make_file("f", 0644));
    for (int w = 0; w < WRITERS; w++)
        if (fork() == 0) {
            int fd = open("f", O_WRONLY | O_APPEND);
            memset(line, '0' + w, LINE);
            line[LINE - 1] = '\n';
            for (int i = 0; i < LINES; i++)
                if (write(fd, line, LINE) != LINE)
                    _exit(1);
            _exit(0);
        }
    for (int w = 0; w < WRITERS; w++)
        holds(wait(&status) > 0 && status == 0);
    int fd = open("f", O_RDONLY);
    while (read(fd, line, LINE) == LINE) {
        int w = line[0] - '0';
        holds(w >= 0 && w < WRITERS && line[LINE - 1] == '\n');
        for (int i = 1; i < LINE - 1; i++)
            holds(line[i] == line[0]);
        count[w]++;
    }
    for (int w = 0; w < WRITERS; w++)
        equal(LINES, count[w]);
    close(fd);
}

static void direct_and_cached_agree(void)
{
    static char aligned[CHUNK] __attribute__((aligned(4096)));
    int cached = file_of("f", 2 * CHUNK), direct = open("f", O_RDWR | O_DIRECT);

    ok(direct);
    memset(aligned, 'D', sizeof aligned);
    equal(CHUNK, pwrite(direct, aligned, CHUNK, 4096));
    equal(CHUNK, pread(cached, got, CHUNK, 4096));
    equal(0, memcmp(got, aligned, CHUNK));
    equal(5, pwrite(cached, "hello", 5, 8192));
    equal(4096, pread(direct, aligned, 4096, 8192));
    equal(0, memcmp(aligned, "hello", 5));
    close(direct);
    close(cached);
}

static void mappings_shared_and_private(void)
{
    int fd = file_of("f", 3 * CHUNK);
    char *shared = mmap(NULL, 3 * CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *own = mmap(NULL, 3 * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

    holds(shared != MAP_FAILED && own != MAP_FAILED);
    equal(0, memcmp(shared, bytes, 3 * CHUNK));
    memcpy(shared + 5000, "through the mapping", 19);
    memcpy(own + CHUNK, "mine", 4);
    equal(19, pread(fd, got, 19, 5000));
    equal(0, memcmp(got, "through the mapping", 19));
    ok(msync(shared, 3 * CHUNK, MS_SYNC));
    equal(4, pwrite(fd, "back", 4, 2 * CHUNK));
    equal(0, memcmp(shared + 2 * CHUNK, "back", 4));
    equal(0, memcmp(shared + CHUNK, bytes + CHUNK, 4));
    munmap(shared, 3 * CHUNK);
    munmap(own, 3 * CHUNK);
    close(fd);
    fd = open("f", O_RDONLY);
    ok(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    equal(19, pread(fd, got, 19, 5000));
    equal(0, memcmp(got, "through the mapping", 19));
    close(fd);
}

static void the_ends_of_files(void)
{
    int fd = make_file("f", 0644);

    equal(0, read(fd, got, 10));
    ok(ftruncate(fd, (off_t)1 << 40));
    equal(10, pread(fd, got, 10, ((off_t)1 << 40) - 10));
    holds(are_zeros(got, 10));
    equal(0, stat_of("f").st_blocks);
    gives(EINVAL, ftruncate(fd, -1));
    gives(EFBIG, ftruncate(fd, ((off_t)1 << 46) + 1));
    gives(EFBIG, pwrite(fd, "x", 1, (off_t)1 << 46));
    ok(ftruncate(fd, 0));
    gives(EISDIR, open(".", O_WRONLY));
    close(fd);
}

const struct posix_case RANGES[] = {
    {"fallocate: allocate, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE", fallocate_of_every_kind, false},
    {"SEEK_HOLE, SEEK_DATA, st_blocks", holes_are_found, false},
    {"copy_file_range", copy_file_range_copies, false},
    {"O_APPEND by four at once", appends_do_not_tear, false},
    {"O_DIRECT beside the cache", direct_and_cached_agree, false},
    {"mmap, shared and private", mappings_shared_and_private, false},
    {"holes of a tebibyte, EFBIG", the_ends_of_files, false},
    {NULL, NULL, false}};
