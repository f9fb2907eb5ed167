// SPDX-License-Identifier: MIT
/*
 * cli: what the commands of `fasterfs` share. A command is a function that gets its arguments (argv[0]
 * is its name) and returns the exit status: 0 done, 1 it could not be done, 2 wrong usage. It says on
 * stderr what went wrong, in one line: path, cause, next step.
 */
#ifndef DAEMON_CLI_H
#define DAEMON_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { STATUS_DONE = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

int command_mount(int argc, char **argv);
int command_sync(int argc, char **argv);
int command_umount(int argc, char **argv);
int command_snapshot(int argc, char **argv);

/* ---- message.c ----------------------------------------------------------------------------------- */

/* `fasterfs: PATH: ...` on stderr, or to whoever started this daemon (background.h). Returns
 * STATUS_FAILED. */
int complain(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `fasterfs: ...; try ...` for wrong usage of a command. Returns STATUS_USAGE. */
int complain_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sends lines to `fd` instead of stderr; -1: to syslog. */
void complain_to(int fd);

/* ---- help.c -------------------------------------------------------------------------------------- */

/* Prints the help of `command` (NULL: all of it). false: there is no such command. */
bool help_print(const char *command);
/* Whether `arg` asks for help. */
bool help_wanted(const char *arg);

/* ---- mountinfo.c --------------------------------------------------------------------------------- */

struct mounted {
    char *mountpoint; /* as the kernel has it */
    char *source;     /* the store's path */
    char *type;
    dev_t dev;
};
/* The mount that holds `path` (the topmost where several are stacked). `path` need not be usable: a
 * mount whose daemon is dead is found as well. 0, -ENOENT or what realpath(3) says; free with
 * mounted_free(). */
int mounted_find(const char *path, struct mounted *ret_mounted);
/* Whether a fasterfs mount of the store at `source` exists. */
bool mounted_source(const char *source);
bool mounted_is_fasterfs(const struct mounted *mounted);
/* Whether the daemon of the mount at `path` is gone. What the kernel has cached is no sign of life. */
bool mounted_is_dead(const char *path);
void mounted_free(struct mounted *mounted);
/* Opens the root of the fasterfs mount that holds `path`; a line on stderr and -1 if there is none. */
int mounted_open(const char *path, struct mounted *ret_mounted);

/* realpath(3) of the directory part, so that a dead mount itself is not entered. NULL: errno. */
char *path_resolve(const char *path);
/* Absolute, as written, without "." and doubled or trailing slashes. NULL: errno. */
char *path_absolute(const char *path);

/* fsync of the directory `fd`; complains about `path`. */
int sync_mounted(int fd, const char *path);

#endif
