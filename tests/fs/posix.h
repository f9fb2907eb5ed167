// SPDX-License-Identifier: MIT
/*
 * What the tests of every call of fs.h share: what it does, each errno it can give, the times it moves.
 */
#ifndef TESTS_FS_POSIX_H
#define TESTS_FS_POSIX_H

#include "fixture.h"

#define ROOT FS_INO_ROOT

static char long_name[FS_NAME_MAX + 2]; /* one byte too long */
static struct fs_attr a;

static inline bool is_before(struct timespec x, struct timespec y)
{
    return x.tv_sec < y.tv_sec;
}

#define ck_same_time(x, y) ck_assert_int_eq((x).tv_sec, (y).tv_sec)

static inline void posix_setup(void)
{
    memset(long_name, 'n', sizeof long_name - 1);
    fixture_setup();
}

#endif
