// SPDX-License-Identifier: MIT
/* Times, extended attributes, statfs. */
#include "cases.h"

#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>

static void times_of_every_kind(void)
{
    struct timespec before, after;
    struct stat st;

    close(make_file("f", 0644));
    ok(utimensat(AT_FDCWD, "f", (struct timespec[]){{-86400, 123456789}, {4102444800, 999999999}}, 0));
    st = stat_of("f");
    equal(-86400, st.st_atim.tv_sec);
    equal(123456789, st.st_atim.tv_nsec);
    equal(4102444800, st.st_mtim.tv_sec);
    equal(999999999, st.st_mtim.tv_nsec);
    ok(utimensat(AT_FDCWD, "f", (struct timespec[]){{0, UTIME_OMIT}, {7, 8}}, 0));
    st = stat_of("f");
    equal(-86400, st.st_atim.tv_sec);
    equal(7, st.st_mtim.tv_sec);
    clock_gettime(CLOCK_REALTIME_COARSE, &before);
    ok(utimensat(AT_FDCWD, "f", (struct timespec[]){{0, UTIME_NOW}, {0, UTIME_OMIT}}, 0));
    clock_gettime(CLOCK_REALTIME, &after);
    st = stat_of("f");
    holds(st.st_atim.tv_sec >= before.tv_sec && st.st_atim.tv_sec <= after.tv_sec);
    equal(7, st.st_mtim.tv_sec);
    gives(EINVAL, utimensat(AT_FDCWD, "f", (struct timespec[]){{0, 1000000000}, {0, 0}}, 0));
    ok(symlink("none", "l"));
    ok(utimensat(AT_FDCWD, "l", (struct timespec[]){{1, 2}, {3, 4}}, AT_SYMLINK_NOFOLLOW));
    equal(3, stat_of("l").st_mtim.tv_sec);
}

static void the_time_of_birth(void)
{
    struct statx x;

    close(make_file("f", 0644));
    ok(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &x));
    holds(x.stx_mask & STATX_BTIME);
    long long birth = x.stx_btime.tv_sec, birth_ns = x.stx_btime.tv_nsec;
    usleep(20000);
    ok(chmod("f", 0600));
    ok(truncate("f", 5));
    ok(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &x));
    equal(birth, x.stx_btime.tv_sec);
    equal(birth_ns, x.stx_btime.tv_nsec);
    equal(5, x.stx_size);
    equal(S_IFREG | 0600, x.stx_mode);
    holds(x.stx_ctime.tv_sec > birth || x.stx_ctime.tv_nsec > birth_ns);
}

/* What the kernel holds in its cache is read without the filesystem's knowledge, hence POSIX_FADV_DONTNEED. */
static void reading_moves_atime_as_relatime_does(void)
{
    char bytes[16];
    struct timespec old = {time(NULL) - 1000, 5}, older = {old.tv_sec - 10, 5};
    int fd = make_file("f", 0644);

    equal(4, write(fd, "data", 4));
    ok(fsync(fd));
    ok(futimens(fd, (struct timespec[]){older, old}));
    usleep(20000); /* ctime is now: atime is to be after it */
    ok(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    equal(4, pread(fd, bytes, sizeof bytes, 0));
    holds(stat_of("f").st_atim.tv_sec > old.tv_sec);
    equal(old.tv_sec, stat_of("f").st_mtim.tv_sec);
    struct stat st = stat_of("f");
    usleep(20000);
    ok(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    equal(4, pread(fd, bytes, sizeof bytes, 0)); /* read since it was written */
    equal(st.st_atim.tv_nsec, stat_of("f").st_atim.tv_nsec);
    ok(futimens(fd, (struct timespec[]){{old.tv_sec - 90000, 0}, {old.tv_sec - 90000, 0}}));
    int quiet = open("f", O_RDONLY | O_NOATIME);
    ok(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    equal(4, pread(quiet, bytes, sizeof bytes, 0));
    equal(old.tv_sec - 90000, stat_of("f").st_atim.tv_sec);
    close(quiet);
    close(fd);
}

static void attributes_of_every_size(void)
{
    static char value[65537], got[65537];
    char name[300] = "user.", list[16];

    close(make_file("f", 0644));
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (char)(i * 13 + i / 256);
    gives(ENODATA, getxattr("f", "user.a", got, sizeof got));
    equal(0, listxattr("f", NULL, 0));
    ok(setxattr("f", "user.a", "", 0, XATTR_CREATE));
    equal(0, getxattr("f", "user.a", got, sizeof got));
    gives(EEXIST, setxattr("f", "user.a", "x", 1, XATTR_CREATE));
    gives(ENODATA, setxattr("f", "user.b", "x", 1, XATTR_REPLACE));
    ok(setxattr("f", "user.a", "12345", 5, XATTR_REPLACE));
    gives(ERANGE, getxattr("f", "user.a", got, 4));
    equal(5, getxattr("f", "user.a", NULL, 0));
    gives(EOPNOTSUPP, setxattr("f", "nothing.a", "x", 1, 0));
    gives(EOPNOTSUPP, getxattr("f", "nothing.a", got, sizeof got));
    gives(EINVAL, setxattr("f", "user.", "x", 1, 0));
    gives(ENODATA, removexattr("f", "user.b"));
    equal(7, listxattr("f", list, sizeof list));
    equal(0, memcmp(list, "user.a", 7));
    gives(ERANGE, listxattr("f", list, 6));
    memset(name + 5, 'n', 250);
    ok(setxattr("f", name, "x", 1, 0));
    name[255] = 'n';
    gives(ERANGE, setxattr("f", name, "x", 1, 0));
    ok(removexattr("f", "user.a"));
    gives(ENODATA, getxattr("f", "user.a", got, sizeof got));
}

static void attributes_of_64_kib(void)
{
    static char value[65537], got[65537];

    memset(value, 'v', sizeof value);
    close(make_file("f", 0644));
    gives(E2BIG, setxattr("f", "user.big", value, 65537, 0));
    ok(setxattr("f", "user.big", value, 65536, 0));
    equal(65536, getxattr("f", "user.big", got, sizeof got));
    equal(0, memcmp(value, got, 65536));
    ok(removexattr("f", "user.big"));
}

static void statfs_tells_what_is_there(void)
{
    struct statvfs st;

    ok(statvfs(".", &st));
    holds(st.f_blocks > 0 && st.f_bfree <= st.f_blocks && st.f_bavail <= st.f_bfree);
    equal(255, st.f_namemax);
    holds(st.f_files >= st.f_ffree);
}

const struct posix_case ATTRIBUTES[] = {
    {"nanoseconds, before 1970, after 2038, UTIME_NOW, UTIME_OMIT", times_of_every_kind, false},
    {"the time of birth in statx", the_time_of_birth, false},
    {"relatime, O_NOATIME", reading_moves_atime_as_relatime_does, false},
    {"extended attributes: every outcome", attributes_of_every_size, false},
    {"extended attributes of 64 KiB", attributes_of_64_kib, false},
    {"statfs", statfs_tells_what_is_there, false},
    {NULL, NULL, false}};
