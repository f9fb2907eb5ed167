// SPDX-License-Identifier: MIT
/* Names, links, renames, files without a name, locks. */
#include "cases.h"

#include <linux/fs.h>
#include <sys/file.h>
#include <sys/mman.h>

static void names_of_255_bytes(void)
{
    char name[257];

    for (int i = 0; i < 255; i++)
        name[i] = (char)(i + 1 == '/' ? 'x' : i + 1);
    name[255] = 0;
    close(make_file(name, 0644));
    ok(rename(name, "short"));
    ok(rename("short", name));
    ok(unlink(name));
    memset(name, 'n', 256);
    name[256] = 0;
    gives(ENAMETOOLONG, open(name, O_CREAT | O_WRONLY, 0644));
    gives(ENAMETOOLONG, open(name, O_RDONLY));
    gives(ENAMETOOLONG, mkdir(name, 0755));
    gives(ENAMETOOLONG, symlink("x", name));
    gives(ENAMETOOLONG, unlink(name));
    gives(ENAMETOOLONG, rmdir(name));
    close(make_file("f", 0644));
    gives(ENAMETOOLONG, link("f", name));
    gives(ENAMETOOLONG, rename("f", name));
    equal(255, pathconf(".", _PC_NAME_MAX));
}

static void symlinks_of_4095_bytes(void)
{
    char target[4097], got[4200];

    memset(target, 't', 4096);
    target[4096] = 0;
    gives(ENAMETOOLONG, symlink(target, "l"));
    target[4095] = 0;
    ok(symlink(target, "l"));
    equal(4095, readlink("l", got, sizeof got));
    equal(0, memcmp(got, target, 4095));
    equal(4095, stat_of("l").st_size);
    gives(ENAMETOOLONG, open("l", O_RDONLY));
    gives(ENOENT, symlink("", "m"));
    ok(symlink("n", "n"));
    gives(ELOOP, open("n", O_RDONLY));
    gives(ELOOP, open("l", O_RDONLY | O_NOFOLLOW));
}

static void a_file_has_65000_names_and_no_more(void)
{
    char name[16];

    close(make_file("f", 0644));
    for (int i = 1; i < 65000; i++) {
        snprintf(name, sizeof name, "%d", i);
        ok(link("f", name));
    }
    equal(65000, stat_of("f").st_nlink);
    gives(EMLINK, link("f", "more"));
    ok(unlink("1"));
    ok(link("f", "more"));
}

static void rename_of_every_kind(void)
{
    close(make_file("f", 0644));
    close(make_file("g", 0600));
    ok(mkdir("d", 0755));
    ok(mkdir("d/e", 0755));
    gives(EEXIST, renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_NOREPLACE));
    ok(renameat2(AT_FDCWD, "f", AT_FDCWD, "d", RENAME_EXCHANGE));
    holds(S_ISDIR(stat_of("f").st_mode) && S_ISREG(stat_of("d").st_mode));
    ok(renameat2(AT_FDCWD, "f", AT_FDCWD, "d", RENAME_EXCHANGE));
    gives(ENOENT, renameat2(AT_FDCWD, "f", AT_FDCWD, "none", RENAME_EXCHANGE));
    gives(EINVAL, renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_EXCHANGE | RENAME_NOREPLACE));
    gives(EINVAL, rename("d", "d/e/x"));
    gives(ENOTEMPTY, rename("d/e", "d"));
    gives(EISDIR, rename("f", "d"));
    gives(ENOTDIR, rename("d", "f"));
    gives(EBUSY, rename("d/.", "x"));
    struct stat before = stat_of("f");
    usleep(20000);
    ok(rename("f", "g"));
    struct stat after = stat_of("g");
    holds(after.st_ctim.tv_sec > before.st_ctim.tv_sec || after.st_ctim.tv_nsec != before.st_ctim.tv_nsec);
    equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    equal(0644, mode_of("g"));
}

static void a_whiteout_takes_the_old_name(void)
{
    close(make_file("f", 0644));
    ok(renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_WHITEOUT));
    equal(S_IFCHR, stat_of("f").st_mode);
    equal(0, stat_of("f").st_rdev);
    equal(S_IFREG | 0644, stat_of("g").st_mode);
}

static void a_tmpfile_is_seen_when_it_is_linked(void)
{
    char path[64], bytes[8];
    struct stat st;
    int fd = open(".", O_TMPFILE | O_RDWR, 0666);

    ok(fd);
    ok(fstat(fd, &st));
    equal(0, st.st_nlink);
    equal(S_IFREG | 0644, st.st_mode);
    equal(5, write(fd, "hello", 5));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ok(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    ok(fstat(fd, &st));
    equal(1, st.st_nlink);
    close(fd);
    fd = open("named", O_RDONLY);
    ok(fd);
    equal(5, read(fd, bytes, sizeof bytes));
    close(fd);
    fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    ok(fd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    gives(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "other", AT_SYMLINK_FOLLOW));
    close(fd);
    gives(EISDIR, open(".", O_RDWR, 0600));
}

static void unlinked_and_open(void)
{
    char bytes[8], path[64];
    struct stat st;
    int fd = make_file("f", 0644);

    equal(4, write(fd, "kept", 4));
    ok(unlink("f"));
    gives(ENOENT, open("f", O_RDONLY));
    ok(fstat(fd, &st));
    equal(0, st.st_nlink);
    equal(4, pread(fd, bytes, 8, 0));
    equal(4, pwrite(fd, "more", 4, 4));
    ok(ftruncate(fd, 6));
    ok(fchmod(fd, 0600));
    equal(6, pread(fd, bytes, 8, 0));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    gives(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
    close(fd);
    ok(mkdir("d", 0755));
    fd = open("d", O_RDONLY | O_DIRECTORY);
    ok(rmdir("d"));
    gives(ENOENT, openat(fd, "x", O_CREAT | O_WRONLY, 0644));
    close(fd);
}

static int hold(void *arg)
{
    int fd = open("f", O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};

    if (fd < 0)
        return -1;
    switch (*(int *)arg) {
    case 0:
        return flock(fd, LOCK_EX | LOCK_NB);
    case 1:
        return fcntl(fd, F_SETLK, &lock);
    case 2:
        return fcntl(fd, F_OFD_SETLK, &lock);
    default:
        lock.l_start = 20;
        return fcntl(fd, F_SETLK, &lock);
    }
}

static int hold_elsewhere(int how)
{
    return as_user(geteuid(), getegid(), hold, &how);
}

static void locks_of_three_kinds(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
    int fd = make_file("f", 0666);

    ok(flock(fd, LOCK_EX | LOCK_NB));
    equal(EWOULDBLOCK, hold_elsewhere(0));
    equal(0, hold_elsewhere(1));
    ok(flock(fd, LOCK_UN));
    equal(0, hold_elsewhere(0));
    ok(fcntl(fd, F_SETLK, &lock));
    equal(EAGAIN, hold_elsewhere(1));
    equal(EAGAIN, hold_elsewhere(2));
    equal(0, hold_elsewhere(3));
    lock.l_type = F_UNLCK;
    ok(fcntl(fd, F_SETLK, &lock));
    lock.l_type = F_WRLCK;
    ok(fcntl(fd, F_OFD_SETLK, &lock));
    equal(EAGAIN, hold_elsewhere(1));
    int other = open("f", O_RDWR);
    gives(EAGAIN, fcntl(other, F_OFD_SETLK, &lock));
    close(fd);
    ok(fcntl(other, F_OFD_SETLK, &lock));
    close(other);
}

static void a_directory_has_more_than_65000_subdirectories(void)
{
    char name[16];

    for (int i = 0; i < 65010; i++) {
        snprintf(name, sizeof name, "%d", i);
        ok(mkdir(name, 0755));
    }
    ok(rmdir("65009"));
}

const struct posix_case NAMES[] = {
    {"names of 255 arbitrary bytes, and ENAMETOOLONG beyond", names_of_255_bytes, false},
    {"symlinks of 4095 bytes, and ENAMETOOLONG beyond", symlinks_of_4095_bytes, false},
    {"a file has 65,000 names, then EMLINK", a_file_has_65000_names_and_no_more, false},
    {"a directory has more than 65,000 subdirectories", a_directory_has_more_than_65000_subdirectories, false},
    {"rename: replace, NOREPLACE, EXCHANGE, and every refusal", rename_of_every_kind, false},
    {"rename: WHITEOUT", a_whiteout_takes_the_old_name, true},
    {"O_TMPFILE, and linkat of it", a_tmpfile_is_seen_when_it_is_linked, false},
    {"what is unlinked stays while it is open", unlinked_and_open, false},
    {"flock, fcntl and OFD locks", locks_of_three_kinds, true},
    {NULL, NULL, false}};
