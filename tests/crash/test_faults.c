// SPDX-License-Identifier: MIT
/*
 * The nth call of the device, and the nth allocation, fail, for every n of a workload of the store, once and
 * from then on: whoever asked is told, nothing that was promised is lost, after a reopen nor after a
 * power cut, no wrong byte is read, and the store works again when the fault has passed.
 *
 * Allocations are the store's and the device's own: the linker puts ours before malloc, calloc, realloc
 * and aligned_alloc (tests/CMakeLists.txt).
 */
#include "faults.h"
#include "model.h"

#include <unistd.h>

/* ---- the workload ------------------------------------------------------------------------------------ */

static struct device *memory, *record, *device;
static struct store *store;
static struct store_session *session;
static unsigned durable, snapshots; /* units promised; snapshots tried */
static uint64_t snapshot_done[64];  /* tick; UINT64_MAX: not known to be there */
static struct {
    uint64_t tick;
    unsigned durable;
} promises[200];
static unsigned promise_count;
static uint64_t fault_tick; /* about when the fault struck first */

static void promise(void)
{
    durable = model.units;
    promises[promise_count].durable = durable;
    promises[promise_count++].tick = record ? device_record_now(record) : 0;
}

#define STORE(call) (inside = true, rc = (call), inside = false, rc)

static int open_it(void)
{
    struct store_opened opened;
    int rc;

    if (STORE(store_open(device, &tiny, &store, &opened)) < 0)
        return rc;
    if (STORE(store_session_open(store, &session)) < 0) {
        store_abandon(store);
        store = NULL;
    }
    return rc;
}

static void close_it(void)
{
    int rc;

    if (!store)
        return;
    store_session_close(session);
    if (STORE(store_close(store)) < 0)
        expect_error(rc, "closing");
    else
        promise();
    store = NULL;
}

/* Values that were written and can be read are right, whatever has failed. */
static void read_some(bool may_fail)
{
    static uint8_t buf[VALUE_MAX];

    for (unsigned key = (unsigned)dice(4); key < KEYS; key += 4) {
        char name[80];
        uint32_t len, name_len = make_key(key, name);
        int rc;
        if (STORE(store_get(session, name, name_len, buf, sizeof buf, &len)) < 0) {
            if (!may_fail)
                give_up("key %u: %s, though only writing fails", key, strerror(-rc));
            expect_error(rc, "reading");
            continue;
        }
        struct version got = {.len = rc == STORE_NOT_FOUND ? ABSENT : len};
        got.hash = rc == STORE_OK ? hash_bytes(buf, len) : 0;
        if (!same(&got, model_now(key)))
            give_up("key %u reads as something else than what was written", key);
    }
}

static void snapshot_now(void)
{
    char label[16];
    uint64_t id;
    int rc;

    sprintf(label, "%u", snapshots);
    if (STORE(store_snapshot_create(store, label, 1, &id)) < 0) {
        expect_error(rc, "a snapshot");
        snapshot_done[snapshots++] = UINT64_MAX;
        return;
    }
    promise();
    snapshot_done[snapshots++] = promises[promise_count - 1].tick;
}

#define STEPS 60

/* The same calls whatever fails: the dice do not depend on it. */
static void work(bool reads_may_fail)
{
    int rc;

    for (unsigned n = 0; n < STEPS && store; n++) {
        if (record && device_fault_hits(device) == 0)
            fault_tick = device_record_now(record);
        uint64_t kept = mix(workload_seed + n);
        dice_state = kept;
        if (STORE(change_some(session)) < 0)
            expect_error(rc, "a unit");
        dice_state = kept + 1;
        if (n % 4 == 1 && STORE(store_commit(store)) == 0)
            promise();
        if (n % 4 == 1 && rc < 0)
            expect_error(rc, "a commit");
        if (n % 20 == 7 && STORE(store_checkpoint(store)) < 0)
            expect_error(rc, "a checkpoint");
        if (n % 20 == 13)
            snapshot_now();
        if (n % 8 == 3)
            read_some(reads_may_fail);
        if (n == STEPS / 2) {
            close_it();
            if (durable == model.units && (rc = open_it()) < 0)
                expect_error(rc, "opening");
        }
    }
}

/* ---- what must be there afterwards --------------------------------------------------------------------- */

struct wanted {
    uint64_t tick; /* of the power cut */
    unsigned found, promised;
};

static int check_snapshot(void *ctx, const struct store_snapshot_info *info)
{
    unsigned number;
    struct wanted *wanted = ctx;

    if (sscanf(info->label, "%u", &number) != 1 || number >= snapshots)
        give_up("snapshot %s is listed, nobody made it", info->label);
    wanted->found += snapshot_done[number] <= wanted->tick;
    return 0;
}

static void check_contents(struct store *st, struct store_session *s, uint64_t tick, unsigned promised)
{
    struct wanted wanted = {.tick = tick};
    struct seen seen;
    unsigned key = 0;

    read_all(s, NULL, &seen);
    if (match(&seen, promised, model.units, &key) < 0)
        give_up("not a prefix of %u to %u units; key %u for one", promised, model.units, key);
    ck_assert_int_eq(store_snapshot_list(st, check_snapshot, &wanted), 0);
    for (unsigned i = 0; i < snapshots; i++)
        wanted.promised += snapshot_done[i] <= tick;
    if (wanted.found != wanted.promised)
        give_up("%u snapshots were promised, %u are there", wanted.promised, wanted.found);
}

/* What is left at that tick opens, holds a prefix that is not shorter than what was promised by then, goes on. */
static void check_store(struct device *on, uint64_t tick)
{
    struct store_opened opened;
    struct store *st;
    struct store_session *s;
    unsigned promised = 0;
    int rc = store_open(on, &tiny, &st, &opened);

    for (unsigned i = 0; i < promise_count; i++)
        promised = promises[i].tick <= tick ? promises[i].durable : promised;
    if (rc < 0)
        give_up("open: %s %s", strerror(-rc), opened.message);
    ck_assert_int_eq(store_session_open(st, &s), 0);
    check_contents(st, s, tick, promised);
    rc = store_upsert(s, "again", 5, "x", 1);
    rc = rc == 0 ? store_commit(st) : rc;
    if (rc < 0)
        give_up("the store does not go on after the fault has passed: %s", strerror(-rc));
    store_session_close(s);
    ck_assert_int_eq(store_close(st), 0);
}

/* A power cut right then, and somewhat later. */
static void cut_power(void)
{
    uint64_t now = device_record_now(record);

    for (unsigned n = 0; n < number_from("FASTERFS_CUTS", SLOWER > 1 ? 2 : 8); n++) {
        uint64_t seed = mix(workload_seed + n) ^ fault_tick, after = now - fault_tick;
        struct device_crash crash = {.tick = fault_tick + mix(seed) % ((n % 4 != 0 && after > 60 ? 60 : after) + 1),
                                     .style = n % 8 < 2 ? (enum device_crash_style)(n % 2) : DEVICE_CRASH_RANDOM,
                                     .seed = seed};
        struct device *left;
        char kept[sizeof where];
        memcpy(kept, where, sizeof where);
        snprintf(where + strlen(where), sizeof where - strlen(where), ", power cut %llu:%u:%llu",
                 (unsigned long long)crash.tick, (unsigned)crash.style, (unsigned long long)seed);
        ck_assert_int_eq(device_record_crash(record, &crash, &left), 0);
        check_store(left, crash.tick);
        device_close(left);
        memcpy(where, kept, sizeof where);
    }
}

static void begin_run(bool recorded)
{
    ck_assert_int_eq(device_memory_open(&memory), 0);
    record = NULL;
    if (recorded)
        ck_assert_int_eq(device_record_open(memory, &record), 0);
    ck_assert_int_eq(device_fault_open(recorded ? record : memory, &device), 0);
    sow();
    model_reset();
    durable = snapshots = promise_count = 0;
    fault_tick = 0;
    store = NULL;
}

/* The fault has passed. A power cut first (on a copy), then a plain reopen of what the process left. */
static void end_run(bool resumes)
{
    struct device_fault none = {0};
    int rc;

    device_fault_arm(device, &none);
    if (store && resumes && STORE(store_commit(store)) < 0)
        give_up("there is room again, and a commit fails: %s", strerror(-rc));
    if (store && resumes)
        promise();
    if (store) {
        store_session_close(session);
        store_abandon(store);
        store = NULL;
    }
    if (record)
        cut_power();
    check_store(device, UINT64_MAX - 1);
    device_close(device);
    device_close(record);
    device_close(memory);
}

/* ---- every n -------------------------------------------------------------------------------------------- */

/* One run; false: the workload has fewer calls than n. */
static bool run_fault(unsigned kind, uint64_t n, bool sticky)
{
    struct device_fault fault = {
        .classes = kinds[kind].classes, .nth = n, .sticky = sticky, .error = kinds[kind].error};
    bool passes = fault.error == -EAGAIN || fault.error == DEVICE_FAULT_SHORT;
    int rc;

    begin_run(true);
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu FASTERFS_FAULT=%u:%llu:%d, %s", (unsigned long long)workload_seed,
             kind, (unsigned long long)n, sticky, kinds[kind].name);
    device_fault_arm(device, &fault);
    device_fault_shuffle(device, n % 2 ? 0 : n);
    alarm(60);
    if ((rc = open_it()) < 0)
        expect_error(rc, "opening");
    work(fault.classes & DEVICE_FAULT_READ && !passes);
    bool hit = device_fault_hits(device) > 0;
    if (passes && (durable < 8 || !store))
        give_up("a fault that is to be carried on from was not");
    end_run(fault.error == -ENOSPC);
    alarm(0);
    return hit;
}

START_TEST(every_call_of_the_device_may_fail)
{
    unsigned kind = (unsigned)_i, sticky = 0;
    unsigned long long n, runs = 0, step = number_from("FASTERFS_STEP", 3 * SLOWER);
    const char *given = getenv("FASTERFS_FAULT");

    if (given && sscanf(given, "%u:%llu:%u", &kind, &n, &sticky) == 3) {
        if (kind == (unsigned)_i)
            run_fault(kind, n, sticky);
        return;
    }
    for (sticky = 0; sticky < 2; sticky++) {
        for (n = 1; run_fault(kind, n, sticky); n += n < 40 ? 1 : 1 + mix(workload_seed ^ n) % (2 * step - 1))
            runs++;
    }
    printf("%s: %llu runs\n", kinds[kind].name, runs);
    ck_assert_uint_gt(runs, 4);
}
END_TEST

/* Closes with the nth sync failing, opens again, and cuts the power at each moment of that. False: closing needs fewer. */
static bool run_reopening(uint64_t n)
{
    struct device_fault fault = {.classes = DEVICE_FAULT_SYNC, .nth = n, .error = -EIO}, none = {0};
    int rc;

    begin_run(true);
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu, sync %llu of closing", (unsigned long long)workload_seed,
             (unsigned long long)n);
    ck_assert_int_eq(open_it(), 0);
    if (STORE(change_some(session)) < 0 || STORE(store_commit(store)) < 0)
        give_up("nothing fails yet, and %s", strerror(-rc));
    promise();
    device_fault_arm(device, &fault);
    close_it();
    bool hit = device_fault_hits(device) > 0;
    device_fault_arm(device, &none);
    uint64_t from = device_record_now(record);
    ck_assert_int_eq(open_it(), 0);
    uint64_t until = device_record_now(record);
    for (uint64_t tick = from + n % SLOWER; tick <= until; tick += SLOWER)
        for (unsigned style = DEVICE_CRASH_OLD; style <= DEVICE_CRASH_RANDOM; style++) {
            struct device_crash crash = {.tick = tick, .style = (enum device_crash_style)style, .seed = mix(tick ^ n)};
            struct device *left;
            ck_assert_int_eq(device_record_crash(record, &crash, &left), 0);
            check_store(left, tick);
            device_close(left);
        }
    end_run(false);
    return hit;
}

START_TEST(a_sync_that_failed_while_closing_is_made_up_for_by_opening)
{
    uint64_t n = 1;

    alarm(60 * SLOWER);
    while (run_reopening(n))
        n++;
    alarm(0);
    ck_assert_uint_gt(n, 4);
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    unsigned long long runs = 0, n, step = number_from("FASTERFS_STEP", 3 * SLOWER);

    for (unsigned sticky = 0; sticky < 2; sticky++) {
        bool hit = true;
        for (n = 1; hit; n += 1 + mix(workload_seed ^ n) % (2 * step - 1), runs++) {
            begin_run(false);
            snprintf(where, sizeof where, "FASTERFS_SEED=%llu, allocation %llu fails%s",
                     (unsigned long long)workload_seed, n, sticky ? " and all after it" : "");
            allocation_sticky = sticky;
            allocation_nth = n;
            allocations = 0;
            alarm(60);
            int rc = open_it();
            if (rc < 0)
                expect_error(rc, "opening");
            work(true);
            hit = allocations >= n;
            allocation_nth = 0;
            end_run(false);
            alarm(0);
        }
    }
    printf("allocations: %llu runs\n", runs);
    ck_assert_uint_gt(runs, 20);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("faults");

    first_seed();
    tcase_add_loop_test(tests, every_call_of_the_device_may_fail, 0, (int)KINDS);
    tcase_add_test(tests, a_sync_that_failed_while_closing_is_made_up_for_by_opening);
    tcase_add_test(tests, every_allocation_may_fail);
    return run_case("faults", tests);
}
