// SPDX-License-Identifier: MIT
/* The store in one page: a struct as a value, written, read, counted up and deleted. Usage: hello DIRECTORY */
#include <stdio.h>
#include <store/store.h>
#include <string.h>

struct account {
    char owner[24];
    uint64_t visits;
};

/* A read-modify-write: how long the new value is, and what it is. `old` is NULL if there is none yet. */
static uint32_t visit_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    (void)ctx, (void)old, (void)old_len, (void)capacity;
    return sizeof(struct account);
}

static void visit(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    struct account account = {.visits = 0};

    (void)old_len;
    if (old)
        memcpy(&account, old, sizeof account);
    snprintf(account.owner, sizeof account.owner, "%s", (const char *)ctx);
    account.visits++;
    memcpy(value, &account, new_len);
}

static const struct store_rmw VISIT = {visit_size, visit};

static int use(struct store_session *s)
{
    static const char key[] = "account/1";
    struct account account = {"ada", 40};
    uint32_t len;
    int rc = store_upsert(s, key, sizeof key, &account, sizeof account);

    for (int i = 0; i < 2 && rc == 0; i++)
        rc = store_rmw(s, key, sizeof key, &VISIT, "ada");
    if (rc == 0)
        rc = store_get(s, key, sizeof key, &account, sizeof account, &len);
    if (rc != 0)
        return rc;
    printf("%s: %llu visits\n", account.owner, (unsigned long long)account.visits);
    rc = store_delete(s, key, sizeof key);
    if (rc == 0)
        rc = store_get(s, key, sizeof key, &account, sizeof account, &len);
    printf("after delete: %s\n", rc == STORE_NOT_FOUND ? "not found" : "still there");
    return rc == STORE_NOT_FOUND ? 0 : rc;
}

int main(int argc, char **argv)
{
    struct device_options where = {.create = true};
    struct store_options options = {0};
    struct device *device;
    struct store *store;
    struct store_session *session;
    struct store_opened opened;

    if (argc != 2 || device_open(argv[1], &where, &device) < 0) {
        fprintf(stderr, "usage: hello DIRECTORY\n");
        return 2;
    }
    int rc = store_open(device, &options, &store, &opened);
    if (rc < 0) {
        fprintf(stderr, "hello: %s: %s\n", argv[1], opened.message);
        device_close(device);
        return 1;
    }
    rc = store_session_open(store, &session);
    if (rc == 0)
        rc = use(session);
    store_session_close(session);
    int closed = store_close(store); /* 0: everything is on the disk */
    device_close(device);
    return rc == 0 && closed == 0 ? 0 : 1;
}
