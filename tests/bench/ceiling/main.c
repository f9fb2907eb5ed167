// SPDX-License-Identifier: MIT
/* ceiling MOUNTPOINT [THREADS] [MOUNT-OPTIONS]: the adapter on tables in memory, in the foreground. */
#include "serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: ceiling MOUNTPOINT [THREADS] [MOUNT-OPTIONS]\n");
        return 2;
    }
    struct fs_options options = {.root_uid = getuid(), .root_gid = getgid()};
    struct serve_options serve_options = {
        .fsname = "ceiling",
        .threads = argc > 2 ? (unsigned)atoi(argv[2]) : 0,
        .mount_options = argc > 3 ? argv[3] : NULL,
    };
    struct store_opened opened;
    struct fs *fs;
    struct serve *serve = NULL;
    char message[256] = "";
    serve_block_signals();
    int rc = fs_open(NULL, &options, &fs, &opened);
    if (rc == 0)
        rc = serve_open(fs, &serve_options, &serve, message, sizeof(message));
    if (rc == 0)
        rc = serve_mount(serve, argv[1], message, sizeof(message));
    if (rc == 0)
        rc = serve_run(serve);
    if (rc < 0)
        fprintf(stderr, "ceiling: %s: %s; %s\n", argv[1], strerror(-rc), message);
    if (serve) {
        serve_close(serve);
        rc |= fs_close(fs);
    }
    return rc < 0;
}
