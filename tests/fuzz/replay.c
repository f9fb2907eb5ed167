// SPDX-License-Identifier: MIT
/*
 * replay DIRECTORY|FILE...: gives each file to the fuzz target that it is linked with, where there is no libFuzzer to do
 * it. A file that takes longer than a minute ends it.
 */
#include "edit.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned replayed;

static int replay_file(const char *path)
{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");

    if (!file) {
        perror(path);
        return -1;
    }
    size_t len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    fprintf(stderr, "%s\n", path); /* the last one before it dies is the one */
    alarm(60);
    (void)LLVMFuzzerTestOneInput(bytes, len);
    alarm(0);
    replayed++;
    return 0;
}

static int replay(const char *path)
{
    DIR *dir = opendir(path);
    char name[4096];
    int rc = 0;

    if (!dir)
        return errno == ENOTDIR ? replay_file(path) : (perror(path), -1);
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        rc = replay(name);
    }
    closedir(dir);
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0;

    for (int i = 1; i < argc && rc == 0; i++)
        rc = replay(argv[i]);
    printf("%u inputs\n", replayed);
    return rc == 0 && replayed > 0 ? 0 : 1;
}
