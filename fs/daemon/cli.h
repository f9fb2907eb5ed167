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
int command_check(int argc, char **argv);
int command_scrub(int argc, char **argv);

/* ---- message.c ----------------------------------------------------------------------------------- */

/* `fasterfs: PATH: ...` on stderr, or to whoever started this daemon (background.h). Returns
 * STATUS_FAILED. */
int complain(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `fasterfs: ...; try ...` for wrong usage of a command. Returns STATUS_USAGE. */
int complain_usage(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Sends lines to `fd` instead of stderr; -1: to syslog. */
void complain_to(int fd);

/* A string of a JSON document, on stdout. What is not UTF-8 of it, as names may be, becomes U+FFFD. */
void print_json_string(const char *s);
/* `status`; or, after a line on stderr, `failed` if not all of stdout could be written. */
int finish_output(int status, int failed);

/* ---- progress.c ---------------------------------------------------------------------------------- */

/* A line on stderr that is written again and again, on a terminal; nothing elsewhere. Zero it. */
struct progress {
    uint64_t since_ms, told_ms, first_bytes, last_bytes;
    bool shown;
};
void progress_tell(struct progress *progress, const char *path, const char *phase, uint64_t done_bytes,
                   uint64_t total_bytes);
/* Takes the line away. */
void progress_end(struct progress *progress);
/* "10.3 MiB", in `text`. */
const char *size_text(uint64_t bytes, char text[16]);

/* ---- options.c ----------------------------------------------------------------------------------- */

/* "64M", "1GiB", "1048576". */
bool parse_size(const char *text, uint64_t *ret_bytes);

/* ---- check.c ------------------------------------------------------------------------------------- */

/* As of fsck(8). */
enum { CHECK_CLEAN = 0, CHECK_MENDED = 1, CHECK_LEFT = 4, CHECK_FAILED = 8, CHECK_USAGE = 16 };
/* One fault in words, without a newline, on stdout. */
void fault_print(const char *path, const char *snapshot, const char *what, uint64_t ino, uint64_t offset, uint64_t len);

/* ---- mount.c ------------------------------------------------------------------------------------- */

/* Says why the device of a store could not be opened. Returns STATUS_FAILED. */
int complain_device(const char *store, int rc);

/* ---- cold.c -------------------------------------------------------------------------------------- */

struct device;
struct device_options;
/* Opens the directory of the store's cold level, if it has one: else *ret_device is NULL. `wanted`: NULL, or what -o
 * cold said ("") or -o cold=DIR: it is made, unless read_only. A status. */
int cold_device_open(const char *store, const char *wanted, const struct device_options *options,
                     struct device **ret_device);

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
