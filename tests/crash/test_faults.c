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

/* ---- the workload ------------------------------------------------------------------------------------ */

static struct store *store;
static struct store_session *session;
static unsigned snapshots;         /* tried */
static uint64_t snapshot_done[64]; /* tick; UINT64_MAX: not known to be there */

static int open_it(void)
{
    struct store_opened opened;
    int rc;

    if (INSIDE(store_open(device, &tiny, &store, &opened)) < 0)
        return rc;
    if (INSIDE(store_session_open(store, &session)) < 0) {
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
    if (INSIDE(store_close(store)) < 0)
        expect_error(rc, "closing");
    else
        promise(model.units);
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
        if (INSIDE(store_get(session, name, name_len, buf, sizeof buf, &len)) < 0) {
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
    if (INSIDE(store_snapshot_create(store, label, 1, &id)) < 0) {
        expect_error(rc, "a snapshot");
        snapshot_done[snapshots++] = UINT64_MAX;
        return;
    }
    promise(model.units);
    snapshot_done[snapshots++] = promises[promise_count - 1].tick;
}

#define STEPS 60

/* The dice do not depend on what fails. */
static bool work(bool reads_may_fail)
{
    int rc;

    for (unsigned n = 0; n < STEPS && store; n++) {
        about_to_step();
        uint64_t kept = mix(workload_seed + n);
        dice_state = kept;
        if (INSIDE(change_some(session)) < 0)
            expect_error(rc, "a unit");
        dice_state = kept + 1;
        if (n % 4 == 1 && INSIDE(store_commit(store)) == 0)
            promise(model.units);
        if (n % 4 == 1 && rc < 0)
            expect_error(rc, "a commit");
        if (n % 20 == 7 && INSIDE(store_checkpoint(store)) < 0)
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
    return store;
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

/* It holds a prefix of units. */
static void check_store(struct device *on, uint64_t tick)
{
    struct store_opened opened;
    struct store *st;
    struct store_session *s;
    int rc = store_open(on, &tiny, &st, &opened);

    if (rc < 0)
        give_up("open: %s %s", strerror(-rc), opened.message);
    ck_assert_int_eq(store_session_open(st, &s), 0);
    check_contents(st, s, tick, promised_by(tick));
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
        check_cut(&crash);
    }
}

static void begin(void)
{
    model_reset();
    snapshots = 0;
    store = NULL;
}

static void end(bool resumes)
{
    int rc;

    if (!store)
        return;
    if (resumes && INSIDE(store_commit(store)) < 0)
        give_up("there is room again, and a commit fails: %s", strerror(-rc));
    if (resumes)
        promise(model.units);
    store_session_close(session);
    store_abandon(store);
    store = NULL;
}

static const struct subject the_store = {.begin = begin,
                                         .open = open_it,
                                         .work = work,
                                         .end = end,
                                         .cut_power = cut_power,
                                         .check = check_store,
                                         .step = 3,
                                         .each = 40,
                                         .seconds = 60};

/* ---- what a close left undone ---------------------------------------------------------------------------- */

/* Closes with the nth sync failing, opens again, and cuts the power at each moment of that. False: closing needs fewer. */
static bool run_reopening(uint64_t n)
{
    struct device_fault fault = {.classes = DEVICE_FAULT_SYNC, .nth = n, .error = -EIO}, none = {0};
    int rc;

    begin_run(true);
    snprintf(where, sizeof where, "FASTERFS_SEED=%llu, sync %llu of closing", (unsigned long long)workload_seed,
             (unsigned long long)n);
    ck_assert_int_eq(open_it(), 0);
    if (INSIDE(change_some(session)) < 0 || INSIDE(store_commit(store)) < 0)
        give_up("nothing fails yet, and %s", strerror(-rc));
    promise(model.units);
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
            check_cut(&crash);
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

int main(void)
{
    TCase *tests = faults_case("faults", &the_store);

    tcase_add_test(tests, a_sync_that_failed_while_closing_is_made_up_for_by_opening);
    return run_case("faults", tests);
}
