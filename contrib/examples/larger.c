// SPDX-License-Identifier: MIT
/*
 * More data than memory: 64 MiB of values with a budget of 8 MiB. Reads that the device has to answer are left pending,
 * many at a time, and come back by a callback. Usage: larger DIRECTORY
 */
#include <stdio.h>
#include <stdlib.h>
#include <store/store.h>
#include <string.h>

#define KEYS 65536u
#define VALUE 1024u
#define AT_ONCE 64u
#define READS 20000u

struct lookup {
    struct store_read read; /* first: the callback gets its address */
    uint64_t key;
    uint8_t value[VALUE];
    uint64_t *wrong, *from_device;
};

static void check(struct lookup *l)
{
    *l->wrong += l->read.result != STORE_OK || l->value[0] != (uint8_t)l->key || l->read.value_len != VALUE;
}

static void done(struct store_read *read)
{
    struct lookup *l = (struct lookup *)(void *)read;

    ++*l->from_device;
    check(l);
}

static int fill(struct store_session *s)
{
    uint8_t value[VALUE];
    int rc = 0;

    for (uint64_t key = 0; key < KEYS && rc == 0; key++) {
        memset(value, (int)key, sizeof value);
        rc = store_upsert(s, &key, sizeof key, value, sizeof value);
    }
    return rc;
}

static void look_up(struct store_session *s, uint64_t *wrong, uint64_t *from_device)
{
    static struct lookup lookups[AT_ONCE];

    for (unsigned n = 0; n < READS; n++) {
        struct lookup *l = &lookups[n % AT_ONCE];
        if (n % AT_ONCE == 0)
            store_complete_pending(s, true); /* all of the round before */
        l->key = (n * UINT64_C(2654435761)) % KEYS;
        l->wrong = wrong;
        l->from_device = from_device;
        l->read = (struct store_read){.key = &l->key,
                                      .key_len = sizeof l->key,
                                      .buf = l->value,
                                      .buf_len = VALUE,
                                      .value_hint = VALUE,
                                      .done = done};
        if (store_read(s, &l->read) != STORE_PENDING)
            check(l);
    }
    store_complete_pending(s, true);
}

int main(int argc, char **argv)
{
    struct device_options where = {.create = true};
    struct store_options options = {.memory_bytes = 8 << 20};
    uint64_t wrong = 0, from_device = 0;
    struct store_opened opened;
    struct store_session *session;
    struct device *device;
    struct store *store;

    if (argc != 2 || device_open(argv[1], &where, &device) < 0) {
        fprintf(stderr, "usage: larger DIRECTORY\n");
        return 2;
    }
    if (store_open(device, &options, &store, &opened) < 0) {
        fprintf(stderr, "larger: %s: %s\n", argv[1], opened.message);
        device_close(device);
        return 1;
    }
    int rc = store_session_open(store, &session);
    if (rc == 0)
        rc = fill(session);
    if (rc == 0)
        look_up(session, &wrong, &from_device);
    printf("%u keys of %u bytes in 8 MiB of memory: %u reads, %s from the device, %llu wrong\n", KEYS, VALUE, READS,
           from_device > READS / 2 ? "most" : "few", (unsigned long long)wrong);
    store_session_close(session);
    int closed = store_close(store);
    device_close(device);
    return rc == 0 && closed == 0 && wrong == 0 && from_device > 0 ? 0 : 1;
}
