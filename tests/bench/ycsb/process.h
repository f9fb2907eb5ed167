// SPDX-License-Identifier: MIT
/*
 * process: an engine in a process of its own, driven by commands.
 *
 * So its memory and its writes are its own to measure, and all engines can be open at once and take
 * turns cell by cell. While it is not its turn a process is stopped (SIGSTOP), background threads
 * included: nobody compacts during another's cell.
 */
#ifndef YCSB_PROCESS_H
#define YCSB_PROCESS_H

#include "workload.h"

#include <sys/types.h>

struct usage {
    uint64_t resident_bytes; /* private memory and mapped files; not the shared sequences */
    uint64_t written_bytes;  /* given to the block layer so far: write_bytes of /proc/self/io */
    uint64_t disk_bytes;     /* blocks that the directory holds */
};

enum command { COMMAND_OPEN, COMMAND_CELL, COMMAND_SETTLE, COMMAND_COMMIT, COMMAND_CLOSE };

struct exchange { /* shared by the two processes */
    enum command command;
    struct cell cell;
    struct outcome outcome;
    struct usage before, after;
    double seconds; /* that the command took */
    int result;
};

struct process {
    const struct ycsb_engine *engine;
    pid_t pid;
    int to, from; /* pipes: a byte there starts the command, a byte back says that it is done */
    bool open;    /* the engine in it */
    struct exchange *exchange;
    struct ycsb_config config;
};

/* Starts the process; nothing is open in it. False: no process, or no memory. */
bool process_start(struct process *process, const struct ycsb_engine *engine, const struct ycsb_config *config,
                   const struct sequence *sequence);
/* Runs one command, whose cell is in exchange->cell. exchange->result is 0, -errno of the engine, or -ECHILD: the
 * process died. */
int process_run(struct process *process, enum command command);
/* Ends the process, as it is: what was not closed is as after a kill -9. */
void process_end(struct process *process);

#endif
