// SPDX-License-Identifier: MIT
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

static int target = STDERR_FILENO;

void complain_to(int fd)
{
    target = fd;
}

/* A line is a line, whatever a path contains. */
static void say(char *line)
{
    for (char *c = line; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = '?';
    size_t len = strlen(line);
    if (target < 0) {
        syslog(LOG_ERR, "%s", line);
        return;
    }
    line[len] = '\n';
    for (size_t at = 0; at < len + 1;) {
        ssize_t n = write(target, line + at, len + 1 - at);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
}

int complain(const char *path, const char *format, ...)
{
    char line[8192];
    size_t limit = sizeof(line) - 1;
    int n = snprintf(line, limit, "fasterfs: %s: ", path);
    if (n > 0 && (size_t)n < limit) {
        va_list args;
        va_start(args, format);
        vsnprintf(line + n, limit - (size_t)n, format, args);
        va_end(args);
    }
    say(line);
    return STATUS_FAILED;
}

int complain_usage(const char *command, const char *format, ...)
{
    char what[4096], line[8192];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    snprintf(line, sizeof(line) - 1, "fasterfs: %s; try `fasterfs %s%s--help`", what, command ? command : "",
             command ? " " : "");
    say(line);
    return STATUS_USAGE;
}

void print_json_string(const char *s)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)s; *c; c++) {
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            putchar(*c);
    }
    putchar('"');
}
