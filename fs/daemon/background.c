// SPDX-License-Identifier: MIT
#include "background.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

/* In the child: to the parent. A NUL byte says "ready", everything else is for stderr. */
static int to_parent = -1;

int background_start(const char *path)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return complain(path, "cannot start: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        return complain(path, "cannot start: %s", strerror(errno));
    if (pid == 0) {
        close(fds[0]);
        to_parent = fds[1];
        complain_to(to_parent);
        setsid();
        return -1;
    }
    close(fds[1]);
    char buf[4096];
    bool said = false;
    for (;;) {
        ssize_t n = read(fds[0], buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        char *ready = memchr(buf, '\0', (size_t)n);
        size_t text = ready ? (size_t)(ready - buf) : (size_t)n;
        said |= text > 0;
        for (size_t at = 0; at < text;) {
            ssize_t written = write(STDERR_FILENO, buf + at, text - at);
            if (written <= 0)
                break;
            at += (size_t)written;
        }
        if (ready)
            return STATUS_DONE;
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) != STATUS_DONE && said)
        return WEXITSTATUS(status);
    if (WIFSIGNALED(status))
        return complain(path, "the daemon was ended by signal %d before it was up; run it with -f to see more",
                        WTERMSIG(status));
    return complain(path, "the daemon ended before it was up; run it with -f to see more");
}

void background_ready(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    (void)!chdir("/");
    openlog("fasterfs", LOG_PID, LOG_DAEMON);
    complain_to(-1);
    (void)!write(to_parent, "", 1);
    close(to_parent);
}
