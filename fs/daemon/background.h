// SPDX-License-Identifier: MIT
/*
 * background: a daemon whose parent waits until it is up.
 *
 *     background_start()  parent: prints the child's lines, ends with its status
 *                         child: goes on, its lines go to the parent
 *     background_ready()  child: tells the parent to go; from now on lines go to syslog
 *
 * One process, before any thread.
 */
#ifndef DAEMON_BACKGROUND_H
#define DAEMON_BACKGROUND_H

#include <stdbool.h>

/* In the child returns -1. In the parent returns the exit status. `path` is for messages. */
int background_start(const char *path);
void background_ready(void);

#endif
