// SPDX-License-Identifier: MIT
/* What the files of cases share. Each case runs in an empty directory of mode 0777, umask 022. */
#ifndef TESTS_POSIX_CASES_H
#define TESTS_POSIX_CASES_H

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct posix_case {
    const char *name;
    void (*run)(void);
    bool root;
};

/* Each ends with a case without a name. */
extern const struct posix_case NAMES[], PERMISSIONS[], ATTRIBUTES[], RANGES[], HANDLES[];

__attribute__((noreturn, format(printf, 3, 4))) void case_fails(const char *file, int line, const char *format, ...);

/* The call works. */
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        if ((call) < 0)                                                                                                \
            case_fails(__FILE__, __LINE__, "%s: %s", #call, strerror(errno));                                          \
    } while (0)
/* The call gives this errno. */
#define gives(error, call)                                                                                             \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        if ((call) >= 0)                                                                                               \
            case_fails(__FILE__, __LINE__, "%s works, instead of %s", #call, strerror(error));                         \
        if (errno != (error))                                                                                          \
            case_fails(__FILE__, __LINE__, "%s: %s, instead of %s", #call, strerror(errno), strerror(error));          \
    } while (0)
#define equal(want, have)                                                                                              \
    do {                                                                                                               \
        long long want_ = (long long)(want), have_ = (long long)(have);                                                \
        if (want_ != have_)                                                                                            \
            case_fails(__FILE__, __LINE__, "%s is %lld (%#llo), instead of %lld (%#llo)", #have, have_,                \
                       (unsigned long long)have_, want_, (unsigned long long)want_);                                   \
    } while (0)
#define holds(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            case_fails(__FILE__, __LINE__, "not so: %s", #condition);                                                  \
    } while (0)

/* The errno (0: none) of `call` in a process of that user without other groups. */
int as_user(uid_t uid, gid_t gid, int (*call)(void *), void *arg);
/* Makes a regular file with exactly this mode; open for reading and writing. */
int make_file(const char *name, mode_t mode);

static inline struct stat stat_of(const char *name)
{
    struct stat st;

    ok(lstat(name, &st));
    return st;
}

static inline mode_t mode_of(const char *name)
{
    return stat_of(name).st_mode & 07777;
}

#endif
