// SPDX-License-Identifier: MIT
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} COMMANDS[] = {
    {"mount", command_mount},
    {"umount", command_umount},
    {"sync", command_sync},
    {"snapshot", command_snapshot},
    {"check", command_check},
    {"scrub", command_scrub},
};

int main(int argc, char **argv)
{
    if (argc < 2)
        return complain_usage(NULL, "a command or STORE MOUNTPOINT is missing");
    if (help_wanted(argv[1]) || strcmp(argv[1], "help") == 0)
        return help_print(argc > 2 ? argv[2] : NULL) ? STATUS_DONE
                                                     : complain_usage(NULL, "there is no command `%s`", argv[2]);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("fasterfs %s\n", FASTERFS_VERSION);
        return STATUS_DONE;
    }
    for (size_t i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0) {
            for (int arg = 2; arg < argc && strcmp(argv[arg], "--") != 0; arg++)
                if (help_wanted(argv[arg])) {
                    help_print(argv[1]);
                    return STATUS_DONE;
                }
            return COMMANDS[i].run(argc - 1, argv + 1);
        }
    if (argc == 2 && argv[1][0] != '-' && argv[1][0] != '/' && argv[1][0] != '.')
        return complain_usage(NULL, "there is no command `%s`", argv[1]);
    return command_mount(argc, argv); /* fasterfs STORE MOUNTPOINT */
}
