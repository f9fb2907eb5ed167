// SPDX-License-Identifier: MIT
/*
 * Ours before the C library's, for tests that open thousands of small stores on devices in memory, without threads: an
 * anonymous mapping that is given back is kept, and is the next of its size, zeroed. What it saves is page faults and
 * the flushes of munmap(2), half of the time of an open. With a sanitizer nothing is kept: a use after
 * munmap(2) is to be seen there.
 */
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define KEPT 16
#define KEPT_BYTES_MAX ((size_t)1 << 20)

void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t len);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t len);

static struct {
    void *at; /* NULL: none */
    size_t len;
} kept[KEPT];

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    for (unsigned i = 0; i < KEPT && fd == -1; i++) {
        void *again = kept[i].at;
        if (!again || kept[i].len != len)
            continue;
        kept[i].at = NULL;
        return memset(again, 0, len);
    }
    return __real_mmap64(at, len, prot, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t len)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    for (unsigned i = 0; i < KEPT && len <= KEPT_BYTES_MAX; i++) {
        if (kept[i].at)
            continue;
        kept[i].at = at;
        kept[i].len = len;
        return 0;
    }
#endif
    return __real_munmap(at, len);
}
