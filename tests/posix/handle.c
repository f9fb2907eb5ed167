// SPDX-License-Identifier: MIT
/* handle save PATH FILE: puts PATH's handle into FILE. handle cat DIRECTORY FILE: prints what it leads to. */
#include "handles.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct handle handle = {.head.handle_bytes = 0};
    char bytes[4096];
    bool save = argc == 4 && strcmp(argv[1], "save") == 0;
    FILE *file = argc == 4 ? fopen(argv[3], save ? "w" : "r") : NULL;

    if (!file) {
        fprintf(stderr, "usage: handle save PATH FILE | handle cat DIRECTORY FILE\n");
        return 2;
    }
    if (save) {
        if (handle_of(argv[2], &handle) < 0 || fwrite(&handle, sizeof handle, 1, file) != 1 || fclose(file) != 0) {
            perror(argv[2]);
            return 1;
        }
        return 0;
    }
    if (fread(&handle, sizeof handle, 1, file) != 1 || chdir(argv[2]) < 0) {
        perror(argv[3]);
        return 1;
    }
    int fd = handle_open(&handle, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (n < 0) {
        perror(argv[2]);
        return 1;
    }
    fwrite(bytes, 1, (size_t)n, stdout);
    fclose(file);
    return 0;
}
