// SPDX-License-Identifier: MIT
/*
 * What a power cut may leave of a store, at every moment of a workload of every kind of call, and of the
 * opening that follows it: it opens, holds a prefix of units that is not shorter than what was promised,
 * each snapshot is its moment, and it goes on. FASTERFS_STATES says how many states are tried.
 */
#include "model.h"

#ifdef STATES_COLD
#include "part.h"
#endif
#include <device/fault.h>

/* ---- a store on a device; with STATES_COLD it and its cold level share that ------------------------- */

#ifdef STATES_COLD
struct parts {
    struct store *of;
    struct device *store, *cold;
};
static struct parts parts[8]; /* of the stores that are open: one, or one in another's crash */

static int open_on(struct device *device, struct store **ret_store, struct store_opened *ret_opened)
{
    struct parts *p = parts;
    struct store_options options = tiny;

    while (p->of)
        p++;
    p->store = part_open(device, "h-");
    p->cold = options.cold = part_open(device, "c-");
    options.memory_bytes = 2 << 20;
    int rc = store_open(p->store, &options, &p->of, ret_opened);
    *ret_store = p->of;
    return rc;
}

static void parts_close(const struct store *store)
{
    struct parts *p = parts;

    while (p->of != store)
        p++;
    device_close(p->store);
    device_close(p->cold);
    p->of = NULL;
}

static int close_on(struct store *store)
{
    int rc = store_close(store);

    parts_close(store);
    return rc;
}

static void abandon_on(struct store *store)
{
    store_abandon(store);
    parts_close(store);
}
#else
static int open_on(struct device *device, struct store **ret_store, struct store_opened *ret_opened)
{
    return store_open(device, &tiny, ret_store, ret_opened);
}

static int close_on(struct store *store)
{
    return store_close(store);
}

static void abandon_on(struct store *store)
{
    store_abandon(store);
}
#endif

/* What was promised, and what had been begun, from a tick on. */
struct promise {
    uint64_t tick;
    unsigned durable, begun; /* units */
};

struct moment { /* a snapshot */
    char label[16];
    unsigned units;
    uint64_t id;
    uint64_t create_begun, create_done, delete_begun, delete_done; /* ticks; UINT64_MAX: not */
};

static struct device *memory, *record, *faulty; /* faulty: around record, to kill inside of a sync */
static struct store *store;
static struct store_session *session;
static struct promise promises[20000];
static unsigned promise_count;
static struct moment moments[256];
static unsigned moment_count;
static unsigned durable, committed; /* units; committed: in the log, as long as the power stays */

/* ---- the workload ----------------------------------------------------------------------------------- */

static uint64_t now(void)
{
    return device_record_now(record);
}

static void promise(unsigned begun)
{
    promises[promise_count++] = (struct promise){now(), durable, begun};
    ck_assert_uint_lt(promise_count, sizeof promises / sizeof promises[0]);
}

static void open_store(void)
{
    struct store_opened opened;
    int rc = open_on(faulty, &store, &opened);

    if (rc < 0)
        give_up("open: %s %s", strerror(-rc), opened.message);
    ck_assert_int_eq(store_session_open(store, &session), 0);
}

static void durable_now(void)
{
    durable = committed = model.units;
    promise(model.units);
}

static void apply_unit(void)
{
    promise(model.units + 1);
    int rc = change_some(session);
    if (rc < 0 && rc != -EFBIG)
        give_up("a unit: %s", strerror(-rc));
    promise(model.units);
}

static void take_snapshot(void)
{
    if (moment_count == sizeof moments / sizeof moments[0])
        return;
    struct moment *m = &moments[moment_count++];
    *m = (struct moment){.units = model.units,
                         .create_begun = now(),
                         .create_done = UINT64_MAX,
                         .delete_begun = UINT64_MAX,
                         .delete_done = UINT64_MAX};
    sprintf(m->label, "s%u", moment_count);
    ck_assert_int_eq(store_snapshot_create(store, m->label, 1, &m->id), 0);
    m->create_done = now();
    durable_now();
}

static void drop_snapshot(void)
{
    struct moment *m = moment_count > 0 ? &moments[dice(moment_count)] : NULL;

    if (!m || m->delete_begun != UINT64_MAX)
        return;
    m->delete_begun = now();
    ck_assert_int_eq(store_snapshot_delete(store, m->id), 0);
    m->delete_done = now();
}

static void close_and_open(void)
{
    store_session_close(session);
    ck_assert_int_eq(close_on(store), 0);
    durable_now();
    open_store();
}

/* The process is killed, the power stays: what was not committed is undone, whatever of it is in the log. */
static void kill_and_open(void)
{
    store_session_close(session);
    abandon_on(store);
    model_rewind(committed);
    promise(committed);
    open_store();
}

static void compact(void)
{
    ck_assert_int_eq(store_commit(store), 0);
    durable_now();
    ck_assert_int_eq(store_compact(store, dice(2) ? UINT64_MAX : 1 + dice(400000)), 0);
}

/* Killed between the writes of a commit and its sync: it is in the log, on the disk perhaps. */
static void kill_in_commit(void)
{
    promise(model.units);
    device_fault_lie(faulty, true);
    ck_assert_int_eq(store_commit(store), 0);
    device_fault_lie(faulty, false);
    committed = model.units;
    kill_and_open();
}

static void step(void)
{
    switch (dice(50)) {
    case 0:
        ck_assert_int_eq(store_checkpoint(store), 0);
        durable_now();
        break;
    case 1:
    case 2:
        take_snapshot();
        break;
    case 3:
        drop_snapshot();
        break;
    case 4:
        close_and_open();
        break;
    case 5:
        kill_and_open();
        break;
    case 6:
        kill_in_commit();
        break;
    case 7:
    case 8:
    case 9:
        compact();
        break;
    default:
        if (dice(4) == 0) {
            ck_assert_int_eq(store_commit(store), 0);
            durable_now();
        } else {
            apply_unit();
        }
    }
}

static void run_workload(unsigned steps)
{
    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(device_record_open(memory, &record), 0);
    ck_assert_int_eq(device_fault_open(record, &faulty), 0);
    model_reset();
    promise_count = moment_count = durable = committed = 0;
    promise(0);
    open_store();
    for (unsigned n = 0; n < steps; n++)
        step();
    store_session_close(session);
    ck_assert_int_eq(close_on(store), 0);
    durable_now();
}

static void end_workload(void)
{
    device_close(faulty);
    device_close(record);
    device_close(memory);
}

/* ---- what must be there ------------------------------------------------------------------------------ */

/* A unit on top of the workload's, which the reopened store is given: its keys all get one value. */
struct extra {
    bool promised, begun;
    uint32_t len;
};
#define EXTRA_KEYS 3
#define EXTRA_MAX 9000

static const uint8_t *extra_value(void)
{
    static uint8_t value[EXTRA_MAX];

    memset(value, 0xee, sizeof value);
    return value;
}

static uint32_t extra_len(uint64_t seed)
{
    return 8 + (uint32_t)(seed >> 8) % (EXTRA_MAX - 8);
}

struct expected {
    unsigned lo, hi; /* units */
    uint64_t tick;   /* for snapshots */
    struct extra extra;
};

static struct promise promised_at(uint64_t tick)
{
    unsigned lo = 0, hi = promise_count;

    while (hi - lo > 1) {
        unsigned middle = (lo + hi) / 2;
        *(promises[middle].tick <= tick ? &lo : &hi) = middle;
    }
    return promises[lo];
}

struct listing {
    struct store_snapshot_info info[256];
    unsigned count;
};

static int add(void *ctx, const struct store_snapshot_info *info)
{
    struct listing *listing = ctx;

    listing->info[listing->count++] = *info;
    return 0;
}

static void check_snapshot(struct store *st, struct store_session *s, const struct store_snapshot_info *info,
                           uint64_t tick)
{
    struct store_snapshot *snapshot;
    struct seen seen;
    unsigned key = 0;
    const struct moment *m = NULL;

    for (unsigned i = 0; i < moment_count; i++)
        m = strcmp(moments[i].label, info->label) == 0 ? &moments[i] : m;
    if (!m || m->create_begun > tick || m->delete_done <= tick)
        give_up("snapshot %s is listed, and should not be", info->label);
    int rc = store_snapshot_open(st, info->id, &snapshot);
    if (rc < 0)
        give_up("snapshot %s is listed and cannot be opened: %s", info->label, strerror(-rc));
    read_all(s, snapshot, &seen);
    store_snapshot_close(snapshot);
    if (match(&seen, m->units, m->units, &key) < 0)
        give_up("snapshot %s is not what unit %u left: key %u", info->label, m->units, key);
}

static void check_snapshots(struct store *st, struct store_session *s, uint64_t tick)
{
    static struct listing listing;

    listing.count = 0;
    ck_assert_int_eq(store_snapshot_list(st, add, &listing), 0);
    for (unsigned i = 0; i < listing.count; i++)
        check_snapshot(st, s, &listing.info[i], tick);
    for (unsigned i = 0; i < moment_count; i++) {
        const struct moment *m = &moments[i];
        bool there = false;
        for (unsigned k = 0; k < listing.count; k++)
            there |= strcmp(listing.info[k].label, m->label) == 0;
        if (!there && m->create_done <= tick && tick < m->delete_begun)
            give_up("snapshot %s was promised and is gone", m->label);
    }
}

/* Takes the extra unit's keys out of what was seen, if they hold it; puts back what `units` left there. */
static bool take_extra(struct seen *seen, const struct extra *extra, unsigned lo, unsigned hi)
{
    struct version wanted = {.len = extra->len, .hash = hash_bytes(extra_value(), extra->len)};
    unsigned found = 0, key;

    for (key = 0; key < EXTRA_KEYS; key++)
        found += same(&seen->of[key], &wanted);
    if (found == 0)
        return false;
    if (found < EXTRA_KEYS)
        give_up("a unit is there in part: %u of its %u keys", found, EXTRA_KEYS);
    if (lo != hi)
        give_up("a unit is there without those before it");
    for (key = 0; key < EXTRA_KEYS; key++) {
        unsigned i = model.count[key] - 1;
        while (model.versions[key][i].unit > lo)
            i--;
        seen->of[key] = model.versions[key][i];
    }
    return true;
}

/* Which prefix of units it holds. */
static unsigned check_contents(struct store *st, struct store_session *s, const struct expected *expected)
{
    struct seen seen;
    unsigned key = 0;

    read_all(s, NULL, &seen);
    if (expected->extra.begun && !take_extra(&seen, &expected->extra, expected->lo, expected->hi) &&
        expected->extra.promised)
        give_up("what was written after the crash, and committed, is gone");
    int units = match(&seen, expected->lo, expected->hi, &key);
    if (units < 0)
        give_up("not a prefix of %u to %u units; key %u for one", expected->lo, expected->hi, key);
    check_snapshots(st, s, expected->tick);
    return (unsigned)units;
}

static void open_crashed(struct device *device, struct store **ret_store, struct store_session **ret_session)
{
    struct store_opened opened;
    int rc = open_on(device, ret_store, &opened);

    if (rc < 0)
        give_up("open: %s %s", strerror(-rc), opened.message);
    if (opened.index_rebuilt)
        give_up("the index image that the superblock names is not sound");
    ck_assert_int_eq(store_session_open(*ret_store, ret_session), 0);
}

static void write_extra(struct store *st, struct store_session *s, struct extra *extra)
{
    struct store_piece piece = {extra_value(), extra->len};

    extra->begun = true;
    store_unit_begin(s);
    for (unsigned key = 0; key < EXTRA_KEYS; key++) {
        char name[80];
        uint32_t len = make_key(key, name);
        ck_assert_int_eq(store_unit_upsert(s, name, len, &piece, 1, 0), 0);
    }
    int rc = store_unit_apply(s, 0);
    if (rc == 0)
        rc = store_commit(st);
    if (rc == 0 && extra->len % 3 == 0)
        rc = store_compact(st, UINT64_MAX);
    if (rc < 0)
        give_up("the store does not go on: %s", strerror(-rc));
    extra->promised = true;
}

/* ---- what is done with a state ------------------------------------------------------------------------ */

static uint64_t states, nested;

static void check_nested(struct device *state, struct expected expected, uint64_t seed, unsigned depth);

/* Opens what a crash left, looks at all of it, and now and then goes on: with another unit, a clean close
 * or a kill and another power cut, a crash somewhere in all this. */
static void check_state(struct device *state, struct expected expected, uint64_t seed, unsigned depth)
{
    struct store *st;
    struct store_session *s;

    states++;
    if (depth < 3 && seed % 24 == 0) {
        check_nested(state, expected, seed, depth);
        return;
    }
    open_crashed(state, &st, &s);
    expected.lo = expected.hi = check_contents(st, s, &expected);
    if (seed % 3 != 0 || expected.extra.begun) {
        store_session_close(s);
        abandon_on(st);
        return;
    }
    expected.extra.len = extra_len(seed);
    write_extra(st, s, &expected.extra);
    store_session_close(s);
    if (seed % 2 == 0)
        ck_assert_int_eq(close_on(st), 0);
    else
        abandon_on(st);
    device_memory_crash(state);
    open_crashed(state, &st, &s);
    check_contents(st, s, &expected);
    store_session_close(s);
    abandon_on(st);
}

/* Records the opening, and a unit, and crashes in there. */
static void check_nested(struct device *state, struct expected expected, uint64_t seed, unsigned depth)
{
    struct device *again;
    struct store *st;
    struct store_session *s;
    struct expected opening = expected;

    ck_assert_int_eq(device_record_open(state, &again), 0);
    open_crashed(again, &st, &s);
    expected.lo = expected.hi = check_contents(st, s, &expected);
    uint64_t opened = device_record_now(again), promised = UINT64_MAX;
    if (!expected.extra.begun && seed % 2 == 0) {
        expected.extra.len = extra_len(seed);
        write_extra(st, s, &expected.extra);
        promised = device_record_now(again);
    }
    store_session_close(s);
    ck_assert_int_eq(close_on(st), 0);
    uint64_t ticks = device_record_now(again);
    for (unsigned n = 0; n < 8; n++, nested++) {
        struct device_crash crash = {
            .tick = mix(seed + n) % (ticks + 1), .style = DEVICE_CRASH_RANDOM, .seed = mix(seed ^ n)};
        struct device *left;
        ck_assert_int_eq(device_record_crash(again, &crash, &left), 0);
        struct expected there = crash.tick <= opened ? opening : expected;
        there.lo = there.hi = expected.lo; /* what is on the disk is on the disk */
        if (there.extra.begun && promised != UINT64_MAX)
            there.extra.promised = crash.tick >= promised;
        check_state(left, there, mix(seed + 1000 + n), depth + 1);
        device_close(left);
    }
    device_close(again);
}

static void check_crash(const struct device_crash *crash)
{
    struct device *state;
    struct promise promise_then = promised_at(crash->tick);
    struct expected expected = {.lo = promise_then.durable, .hi = promise_then.begun, .tick = crash->tick};

    ck_assert_int_eq(device_record_crash(record, crash, &state), 0);
    check_state(state, expected, mix(crash->seed + 1), 1);
    device_close(state);
}

START_TEST(every_state_that_a_power_cut_may_leave_is_a_prefix_that_goes_on)
{
    uint64_t wanted = number_from("FASTERFS_STATES", 40000 / SLOWER / SLOWER);

    for (unsigned workloads = 0; states < wanted; workloads++, workload_seed++) {
        sow();
        run_workload(20 + (unsigned)dice(200 / SLOWER));
        struct device_crash one;
        bool once = asked_for(&one);
        each_state(record, 4 / SLOWER, check_crash);
        end_workload();
        if (once)
            break;
    }
    printf("%llu states, %llu of them crashes while opening another one\n", (unsigned long long)states,
           (unsigned long long)nested);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("store states");

    first_seed();
    tcase_add_test(tests, every_state_that_a_power_cut_may_leave_is_a_prefix_that_goes_on);
    return run_case("store states", tests);
}
