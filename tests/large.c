// SPDX-License-Identifier: MIT
/*
 * Ours before the C library's, for tests that open thousands of small stores on devices in memory, without threads: a
 * large piece of memory, mapped or allocated, is kept when it is given back, and is the next one of its length. It
 * saves the page faults and the flushes of munmap(2), which are most of the time of an open.
 *
 * AddressSanitizer sees no less: a piece comes from its allocator with its bounds, is poisoned while nobody has it, and
 * while somebody has it, is not pointed to from here, so that a leak is one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define POISONS
#endif
#ifdef POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, len) ((void)(at), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(at, len) ((void)(at), (void)(len))
#endif

#define LARGE ((size_t)64 << 10)
#define LARGEST ((size_t)8 << 20)
#define PIECES 64
#define PAGE 4096

void *__real_malloc(size_t len);
void *__real_calloc(size_t count, size_t len);
void *__real_aligned_alloc(size_t alignment, size_t len);
void *__real_realloc(void *at, size_t len);
void __real_free(void *at);
void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t len);
void *__wrap_malloc(size_t len);
void *__wrap_calloc(size_t count, size_t len);
void *__wrap_aligned_alloc(size_t alignment, size_t len);
void *__wrap_realloc(void *at, size_t len);
void __wrap_free(void *at);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t len);

static struct piece {
    uintptr_t at; /* while it is kept; else the complement, which is no pointer */
    size_t len;   /* 0: no piece yet */
    bool kept;
} pieces[PIECES];

static bool is_large(size_t len)
{
    return len >= LARGE && len <= LARGEST;
}

/* NULL: there is no place for it here, and whoever asks turns to the C library. */
static void *take(size_t len)
{
    struct piece *p = pieces;

    while (p < pieces + PIECES && p->len > 0 && !(p->kept && p->len == len))
        p++;
    if (p == pieces + PIECES)
        return NULL;
    void *at = (void *)p->at;
    if (p->len == 0 && posix_memalign(&at, PAGE, len) != 0)
        return NULL;
    ASAN_UNPOISON_MEMORY_REGION(at, len);
    *p = (struct piece){.at = ~(uintptr_t)at, .len = len};
    return at;
}

static struct piece *piece_of(void *at)
{
    for (struct piece *p = pieces; p < pieces + PIECES && p->len > 0; p++) {
        if (p->kept && p->at == (uintptr_t)at)
            abort(); /* given back twice */
        if (!p->kept && p->at == ~(uintptr_t)at)
            return p;
    }
    return NULL;
}

static bool keep(void *at)
{
    struct piece *p = at ? piece_of(at) : NULL;

    if (!p)
        return false;
    ASAN_POISON_MEMORY_REGION(at, p->len);
    *p = (struct piece){.at = (uintptr_t)at, .len = p->len, .kept = true};
    return true;
}

void *__wrap_malloc(size_t len)
{
    void *at = is_large(len) ? take(len) : NULL;

    return at ? at : __real_malloc(len);
}

void *__wrap_calloc(size_t count, size_t len)
{
    size_t bytes;
    void *at = !__builtin_mul_overflow(count, len, &bytes) && is_large(bytes) ? take(bytes) : NULL;

    return at ? memset(at, 0, bytes) : __real_calloc(count, len);
}

void *__wrap_aligned_alloc(size_t alignment, size_t len)
{
    void *at = alignment <= PAGE && is_large(len) ? take(len) : NULL;

    return at ? at : __real_aligned_alloc(alignment, len);
}

/* Lists that grow begin with none, so what grows is the C library's. */
void *__wrap_realloc(void *at, size_t len)
{
    if (at && piece_of(at))
        abort();
    return __real_realloc(at, len);
}

void __wrap_free(void *at)
{
    if (!keep(at))
        __real_free(at);
}

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    void *again = fd == -1 && is_large(len) ? take(len) : NULL;

    return again ? memset(again, 0, len) : __real_mmap64(at, len, prot, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t len)
{
    return keep(at) ? 0 : __real_munmap(at, len);
}
