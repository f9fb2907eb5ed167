// SPDX-License-Identifier: MIT
/*
 * posix DIRECTORY: what POSIX and Linux promise of a filesystem, asked through system calls in an empty
 * directory; errno by errno as on ext4, where all passes but what ext4 has no room for (attributes of
 * 64 KiB). Prints a line for each case; exit status 1 if one
 * failed. Cases that need root are left out for others, and it says so.
 */
#include "cases.h"

#include <signal.h>
#include <stdarg.h>

static const struct posix_case *const GROUPS[] = {NAMES, PERMISSIONS, ATTRIBUTES, RANGES, HANDLES};

static jmp_buf failed;
int cases_failed;

void case_fails(const char *file, int line, const char *format, ...)
{
    va_list args;

    printf("    %s:%d: ", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    longjmp(failed, 1);
}

int as_user(uid_t uid, gid_t gid, int (*call)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
            _exit(255);
        errno = 0;
        _exit(call(arg) < 0 ? errno : 0);
    }
    if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

int make_file(const char *name, mode_t mode)
{
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);

    ok(fd);
    ok(fchmod(fd, mode));
    return fd;
}

static void run(const struct posix_case *c)
{
    char dir[] = "case-XXXXXX", *volatile made = mkdtemp(dir);
    int home = open(".", O_RDONLY | O_DIRECTORY);

    if (!made || home < 0 || chmod(made, 0777) < 0 || chdir(made) < 0) {
        perror("posix: a directory for the case");
        exit(2);
    }
    umask(022);
    if (setjmp(failed) == 0) {
        c->run();
        printf("ok      %s\n", c->name);
    } else {
        printf("FAILED  %s\n", c->name);
        cases_failed++;
    }
    fflush(stdout);
    if (fchdir(home) < 0)
        exit(2);
    close(home);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2 || chdir(argv[1]) < 0) {
        fprintf(stderr, "usage: posix DIRECTORY\n");
        return 2;
    }
    unsigned count = 0, left_out = 0;
    for (size_t g = 0; g < sizeof GROUPS / sizeof GROUPS[0]; g++)
        for (const struct posix_case *c = GROUPS[g]; c->name; c++) {
            if (c->root && geteuid() != 0) {
                left_out++;
                continue;
            }
            run(c);
            count++;
        }
    printf("%u cases, %d failed", count, cases_failed);
    printf(left_out ? ", %u need root and were left out\n" : "\n", left_out);
    return cases_failed > 0;
}
