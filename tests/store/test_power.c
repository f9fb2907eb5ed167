// SPDX-License-Identifier: MIT
/*
 * The power is cut before every sync of a workload, one later each time (the linker puts ours before the
 * device's, tests/CMakeLists.txt); what had been promised until then is there after the reopen, each
 * snapshot that is listed can be read, and the store goes on.
 */
#include <check.h>
#include <device/memory.h>
#include <device/record.h>
#include <stdio.h>
#include <store/store.h>
#include <string.h>
#include <suite.h>

static struct device *device;
static unsigned syncs, cut_at; /* 0: never */

int __real_device_file_sync(struct device *d, int file);
int __real_device_sync_names(struct device *d);
int __wrap_device_file_sync(struct device *d, int file);
int __wrap_device_sync_names(struct device *d);

static void count_sync(void)
{
    if (++syncs == cut_at)
        device_memory_cut(device);
}

int __wrap_device_file_sync(struct device *d, int file)
{
    count_sync();
    return __real_device_file_sync(d, file);
}

int __wrap_device_sync_names(struct device *d)
{
    count_sync();
    return __real_device_sync_names(d);
}

static const struct store_options tiny = {
    .memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true};

#define ROUNDS 12

struct promised {
    unsigned rounds;    /* values up to this round are durable */
    unsigned snapshots; /* so many were taken */
};

/* Round n gives every key the value n, commits, and now and then takes a checkpoint or a snapshot. */
static void work(struct store *store, struct store_session *s, unsigned first, struct promised *promised)
{
    for (unsigned n = first; n < first + ROUNDS; n++) {
        uint8_t value[9000];
        char label[16];
        uint64_t id;
        memset(value, (int)n, sizeof value);
        for (unsigned k = 0; k < 20; k++)
            if (store_upsert(s, &k, sizeof k, value, sizeof value) < 0)
                return;
        if (store_commit(store) < 0)
            return;
        promised->rounds = n;
        if (n % 4 == 1 && store_checkpoint(store) < 0)
            return;
        sprintf(label, "%u", n);
        if (n % 4 == 3) {
            if (store_snapshot_create(store, label, 1, &id) < 0)
                return;
            promised->snapshots++;
        }
    }
}

/* All keys have one value, of round `least` or later. */
static unsigned check_keys(struct store_session *s, const struct store_snapshot *snapshot, unsigned least)
{
    unsigned round = 0;

    for (unsigned k = 0; k < 20; k++) {
        uint8_t value[9000];
        struct store_read read = {
            .key = &k, .key_len = sizeof k, .buf = value, .buf_len = sizeof value, .snapshot = snapshot};
        int rc = store_read_wait(s, &read);
        if (rc == STORE_NOT_FOUND && least == 0 && round == 0)
            continue;
        ck_assert_msg(rc == STORE_OK, "key %u: %d, cut at sync %u", k, rc, cut_at);
        ck_assert_uint_ge(value[0], least);
        ck_assert_uint_eq(value[8999], value[0]);
        round = value[0];
    }
    return round;
}

struct list {
    struct store *store;
    struct store_snapshot_info info[ROUNDS];
    unsigned count;
};

static int add(void *ctx, const struct store_snapshot_info *info)
{
    struct list *list = ctx;

    list->info[list->count++] = *info;
    return 0;
}

static void check_snapshots(struct store *store, struct store_session *s, unsigned least)
{
    struct list list = {.store = store};

    ck_assert_int_eq(store_snapshot_list(store, add, &list), 0);
    ck_assert_uint_ge(list.count, least);
    for (unsigned i = 0; i < list.count; i++) {
        struct store_snapshot *snapshot;
        unsigned round;
        int rc = store_snapshot_open(store, list.info[i].id, &snapshot);
        ck_assert_msg(rc == 0, "snapshot %s is listed and cannot be opened: %d, cut at sync %u", list.info[i].label, rc,
                      cut_at);
        sscanf(list.info[i].label, "%u", &round);
        ck_assert_uint_eq(check_keys(s, snapshot, round), round);
        store_snapshot_close(snapshot);
    }
}

/* True if the workload ran to its end before the cut. */
static bool run_to_the_cut(void)
{
    struct promised promised = {0, 0};
    struct store_opened opened;
    struct store *store;
    struct store_session *s;

    syncs = 0;
    ck_assert_int_eq(device_memory_open(&device), 0);
    if (store_open(device, &tiny, &store, &opened) == 0) {
        ck_assert_int_eq(store_session_open(store, &s), 0);
        work(store, s, 1, &promised);
        store_session_close(s);
        store_abandon(store);
    }
    bool ended = syncs < cut_at;
    cut_at = ended ? 0 : cut_at;
    device_memory_crash(device);
    unsigned was = cut_at;
    cut_at = 0;
    int rc = store_open(device, &tiny, &store, &opened);
    ck_assert_msg(rc == 0, "open: %d %s, cut at sync %u", rc, opened.message, was);
    ck_assert_msg(!opened.index_rebuilt, "an index image that the superblock names is gone, cut at sync %u", was);
    cut_at = was;
    ck_assert_int_eq(store_session_open(store, &s), 0);
    check_keys(s, NULL, promised.rounds);
    check_snapshots(store, s, promised.snapshots);
    cut_at = 0;
    work(store, s, 100, &promised);
    ck_assert_uint_eq(promised.rounds, 100 + ROUNDS - 1);
    store_session_close(s);
    ck_assert_int_eq(store_close(store), 0);
    device_close(device);
    cut_at = was;
    return ended;
}

START_TEST(what_was_promised_survives_a_power_cut_before_every_sync)
{
    unsigned cuts = 1;

    for (;; cuts++) {
        cut_at = cuts;
        if (run_to_the_cut())
            break;
    }
    printf("%u cuts\n", cuts - 1);
    ck_assert_uint_gt(cuts, 30);
}
END_TEST

struct writes {
    uint64_t begin, end, after; /* of the log's newest write that began after that tick */
    uint64_t synced;            /* end of the furthest write that a sync had followed by then */
    uint64_t furthest;
};

static int look_at(void *ctx, const struct device_event *event)
{
    struct writes *w = ctx;

    if (strncmp(event->name, "log.", 4) != 0)
        return 0;
    if (event->kind == DEVICE_EVENT_WRITE && event->begin > w->after) {
        w->begin = event->offset;
        w->end = event->offset + event->len;
    } else if (event->kind == DEVICE_EVENT_WRITE && event->offset + event->len > w->furthest) {
        w->furthest = event->offset + event->len;
    } else if (event->kind == DEVICE_EVENT_SYNC && event->begin <= w->after) {
        w->synced = w->furthest;
    }
    return 0;
}

/* The second of two small commits changes no metadata: what it writes was written before, and synced. */
START_TEST(a_small_commit_finds_zeros_where_it_goes)
{
    struct device *memory;
    struct store_opened opened;
    struct store *store;
    struct store_session *s;

    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(device_record_open(memory, &device), 0);
    ck_assert_int_eq(store_open(device, &tiny, &store, &opened), 0);
    ck_assert_int_eq(store_session_open(store, &s), 0);
    ck_assert_int_eq(store_upsert(s, "a", 1, "b", 1), 0);
    ck_assert_int_eq(store_commit(store), 0);
    struct writes writes = {.after = device_record_now(device)};
    ck_assert_int_eq(store_upsert(s, "a", 1, "c", 1), 0);
    ck_assert_int_eq(store_commit(store), 0);
    ck_assert_int_eq(device_record_events(device, look_at, &writes), 0);
    ck_assert_uint_gt(writes.end, 0);
    ck_assert_uint_ge(writes.synced, writes.end);
    store_session_close(s);
    ck_assert_int_eq(store_close(store), 0);
    device_close(device);
    device_close(memory);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("power");

    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, what_was_promised_survives_a_power_cut_before_every_sync);
    tcase_add_test(tests, a_small_commit_finds_zeros_where_it_goes);
    return suite_run_case("power", tests);
}
