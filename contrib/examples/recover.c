// SPDX-License-Identifier: MIT
/*
 * Commit, checkpoint, crash, recover: a child process counts in units of two keys, commits now and then, and is killed
 * in the middle of it. What it had committed is there afterwards, and no unit is there by half. Usage: recover DIRECTORY
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <store/store.h>
#include <sys/wait.h>
#include <unistd.h>

static struct device *device;
static struct store *store;
static struct store_session *session;

static void must(int rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "recover: %s: error %d\n", what, -rc);
    exit(1);
}

static void open_all(const char *path)
{
    struct device_options where = {.create = true, .lock_wait_ms = 5000};
    struct store_options options = {0};
    struct store_opened opened;

    must(device_open(path, &where, &device), path);
    int rc = store_open(device, &options, &store, &opened);
    must(rc, opened.message);
    must(store_session_open(store, &session), "session");
}

static uint64_t get(const char *key)
{
    uint64_t value = 0;
    uint32_t len;

    must(store_get(session, key, 1, &value, sizeof value, &len), key);
    return value;
}

/* Tells the parent each number that is committed. */
static void count_until_killed(int tell)
{
    for (uint64_t n = 1;; n++) {
        struct store_piece piece = {&n, sizeof n};
        store_unit_begin(session);
        must(store_unit_upsert(session, "a", 1, &piece, 1, 0), "a");
        must(store_unit_upsert(session, "b", 1, &piece, 1, 0), "b");
        must(store_unit_apply(session, 0), "unit");
        if (n % 100 != 0)
            continue;
        must(n == 100 ? store_checkpoint(store) : store_commit(store), "commit");
        if (write(tell, &n, sizeof n) != sizeof n)
            exit(1);
    }
}

int main(int argc, char **argv)
{
    uint64_t committed = 0;
    int ends[2];

    if (argc != 2 || pipe(ends) < 0) {
        fprintf(stderr, "usage: recover DIRECTORY\n");
        return 2;
    }
    pid_t child = fork();
    if (child == 0) {
        open_all(argv[1]);
        count_until_killed(ends[1]);
    }
    close(ends[1]);
    while (committed < 2000 && read(ends[0], &committed, sizeof committed) == sizeof committed)
        continue;
    kill(child, SIGKILL);
    while (read(ends[0], &committed, sizeof committed) == sizeof committed) /* what it said before it died */
        continue;
    waitpid(child, NULL, 0);

    open_all(argv[1]);
    uint64_t a = get("a"), b = get("b");
    bool right = a == b && a >= committed && committed >= 2000;
    printf("%s: everything committed is there, and both halves of each unit\n", right ? "recovered" : "WRONG");
    store_session_close(session);
    must(store_close(store), "close");
    device_close(device);
    return right ? 0 : 1;
}
