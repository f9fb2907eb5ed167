// SPDX-License-Identifier: MIT
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Sum of the numbers behind the given names in a file of /proc. */
static uint64_t proc_number(const char *path, const char *name, const char *other)
{
    FILE *file = fopen(path, "re");
    char line[256];
    uint64_t sum = 0;

    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0 || (other && strncmp(line, other, strlen(other)) == 0))
            sum += strtoull(strchr(line, ':') + 1, NULL, 10);
    if (file)
        fclose(file);
    return sum;
}

static uint64_t directory_bytes(const char *path)
{
    DIR *dir = opendir(path);
    uint64_t bytes = 0;
    struct dirent *entry;
    struct stat st;

    while (dir && (entry = readdir(dir)))
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            char below[4096];
            bytes += (uint64_t)st.st_blocks * 512;
            if (S_ISDIR(st.st_mode) && entry->d_name[0] != '.' &&
                snprintf(below, sizeof below, "%s/%s", path, entry->d_name) < (int)sizeof below)
                bytes += directory_bytes(below);
        }
    if (dir)
        closedir(dir);
    return bytes;
}

static void measure(const struct ycsb_config *config, struct usage *usage)
{
    usage->resident_bytes = proc_number("/proc/self/status", "RssAnon:", "RssFile:") * 1024;
    usage->written_bytes = proc_number("/proc/self/io", "write_bytes:", NULL);
    usage->disk_bytes = directory_bytes(config->dir);
}

/* ---- the child -------------------------------------------------------------------------------------------- */

static int obey(const struct process *p, const struct sequence *sequence, void **db)
{
    struct exchange *x = p->exchange;

    switch (x->command) {
    case COMMAND_OPEN:
        return p->engine->open(&p->config, db);
    case COMMAND_CELL:
        workload_run(p->engine, *db, &p->config, sequence, &x->cell, &x->outcome);
        return x->outcome.error;
    case COMMAND_SETTLE:
        return p->engine->settle ? p->engine->settle(*db) : 0;
    case COMMAND_COMMIT:
        return p->engine->commit(*db);
    case COMMAND_CLOSE:
        return p->engine->close(*db);
    }
    return -EINVAL;
}

static _Noreturn void serve(const struct process *p, const struct sequence *sequence, int from, int to)
{
    void *db = NULL;
    char byte;

    while (read(from, &byte, 1) == 1) {
        measure(&p->config, &p->exchange->before);
        double begun = now_seconds();
        p->exchange->result = obey(p, sequence, &db);
        p->exchange->seconds = now_seconds() - begun;
        measure(&p->config, &p->exchange->after);
        if (write(to, &byte, 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- the parent ------------------------------------------------------------------------------------------- */

bool process_start(struct process *p, const struct ycsb_engine *engine, const struct ycsb_config *config,
                   const struct sequence *sequence)
{
    int down[2], up[2];

    *p = (struct process){.engine = engine, .config = *config};
    p->exchange = mmap(NULL, sizeof *p->exchange, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->exchange == MAP_FAILED || pipe2(down, O_CLOEXEC) < 0 || pipe2(up, O_CLOEXEC) < 0)
        return false;
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a stopped process would outlive a benchmark that is interrupted */
        close(down[1]);
        close(up[0]);
        serve(p, sequence, down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    p->to = down[1];
    p->from = up[0];
    return p->pid > 0;
}

int process_run(struct process *p, enum command command)
{
    char byte = 0;

    p->exchange->command = command;
    kill(p->pid, SIGCONT);
    if (write(p->to, &byte, 1) != 1 || read(p->from, &byte, 1) != 1)
        p->exchange->result = -ECHILD;
    kill(p->pid, SIGSTOP);
    p->open = command == COMMAND_OPEN ? p->exchange->result == 0 : command != COMMAND_CLOSE && p->open;
    return p->exchange->result;
}

void process_end(struct process *p)
{
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    close(p->to);
    close(p->from);
    munmap(p->exchange, sizeof *p->exchange);
}
