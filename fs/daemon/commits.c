// SPDX-License-Identifier: MIT
#include "commits.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { COMMITS_WAITING_MAX = 1024 };

struct commits {
    struct fs *fs;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t added;
    /* Guarded by `lock`. */
    fuse_req_t waiting[COMMITS_WAITING_MAX];
    unsigned count;
    bool closing;
};

static void *commits_run(void *arg)
{
    struct commits *commits = arg;
    static _Thread_local fuse_req_t batch[COMMITS_WAITING_MAX];

    pthread_mutex_lock(&commits->lock);
    for (;;) {
        while (!commits->count && !commits->closing)
            pthread_cond_wait(&commits->added, &commits->lock);
        unsigned count = commits->count;
        if (!count)
            break;
        memcpy(batch, commits->waiting, count * sizeof(batch[0]));
        commits->count = 0;
        pthread_mutex_unlock(&commits->lock);
        int error = adapter_errno(fs_sync(commits->fs));
        for (unsigned i = 0; i < count; i++)
            fuse_reply_err(batch[i], error);
        pthread_mutex_lock(&commits->lock);
    }
    pthread_mutex_unlock(&commits->lock);
    return NULL;
}

int commits_open(struct fs *fs, struct commits **ret_commits)
{
    struct commits *commits = calloc(1, sizeof(*commits));
    if (!commits)
        return -ENOMEM;
    commits->fs = fs;
    pthread_mutex_init(&commits->lock, NULL);
    pthread_cond_init(&commits->added, NULL);
    int rc = pthread_create(&commits->thread, NULL, commits_run, commits);
    if (rc) {
        free(commits);
        return -rc;
    }
    *ret_commits = commits;
    return 0;
}

void commits_close(struct commits *commits)
{
    if (!commits)
        return;
    pthread_mutex_lock(&commits->lock);
    commits->closing = true;
    pthread_cond_signal(&commits->added);
    pthread_mutex_unlock(&commits->lock);
    pthread_join(commits->thread, NULL);
    pthread_cond_destroy(&commits->added);
    pthread_mutex_destroy(&commits->lock);
    free(commits);
}

void commits_add(struct commits *commits, fuse_req_t req)
{
    pthread_mutex_lock(&commits->lock);
    bool room = commits->count < COMMITS_WAITING_MAX;
    if (room) {
        commits->waiting[commits->count++] = req;
        pthread_cond_signal(&commits->added);
    }
    pthread_mutex_unlock(&commits->lock);
    if (!room) /* more waiters than slots: this thread waits itself */
        fuse_reply_err(req, adapter_errno(fs_sync(commits->fs)));
}
