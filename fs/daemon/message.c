// SPDX-License-Identifier: MIT
#include "cli.h"

#include <errno.h>
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

/* Bytes of the character at `s`, which ends with a NUL; 0: that is not UTF-8. */
static size_t utf8_len(const unsigned char *s)
{
    /* What the second byte may be after those that would allow too long a form, a surrogate, or what is beyond. */
    unsigned char least = *s == 0xe0 ? 0xa0 : *s == 0xf0 ? 0x90 : 0x80;
    unsigned char most = *s == 0xed ? 0x9f : *s == 0xf4 ? 0x8f : 0xbf;
    size_t len = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 : *s < 0xf5 ? 4 : 0;

    if (len > 1 && (s[1] < least || s[1] > most))
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

void print_json_string(const char *s)
{
    size_t len;
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)s; *c; c += len ? len : 1) {
        len = utf8_len(c);
        if (len == 0)
            fputs("\\ufffd", stdout);
        else if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20)
            printf("\\u%04x", *c);
        else
            fwrite(c, 1, len, stdout);
    }
    putchar('"');
}

int finish_output(int status, int failed)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    complain("stdout", "not all of the result could be written: %s", strerror(errno));
    return failed;
}
