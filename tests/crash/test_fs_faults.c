// SPDX-License-Identifier: MIT
/*
 * The nth call of the device, and the nth allocation, fail under a filesystem, for many n, once and from then on: a
 * call that fails has changed nothing, one that was acknowledged stays until the end of the run, what a sync promised is
 * there after a reopen and after a power cut, and the filesystem goes on when the fault has passed.
 */
#include "faults.h"

#include <fs/fs.h>
#include <sys/xattr.h>

#define NAMES 6
#define STEPS 70
#define STATES (STEPS * 2 + 2)
#define BYTES_MAX 60000u /* one unit */

struct file { /* what a name leads to */
    bool there;
    uint32_t len, xattr; /* xattr 0: none */
    uint8_t fill;
};

struct state {
    struct file files[NAMES];
};

static struct fs *fs;
static struct fs_session *s;
static const struct fs_cred cred = {.uid = 7, .gid = 8, .umask = 022};
static struct state states[STATES]; /* after each call that was acknowledged */
static unsigned calls;

static const char *name_of(unsigned i)
{
    static const char *const names[NAMES] = {"a", "b", "c", "a name that is longer", "e", "f"};

    return names[i];
}

static int open_on(struct device *on)
{
    struct fs_options options = {
        .store = {.memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true}};
    struct store_opened opened;
    int rc;

    if (INSIDE(fs_open(on, &options, &fs, &opened)) < 0) {
        fs = NULL;
        return rc;
    }
    if (INSIDE(fs_session_open(fs, &s)) < 0) {
        fs_abandon(fs);
        fs = NULL;
    }
    return rc;
}

static int open_it(void)
{
    return open_on(device);
}

/* ---- looking ------------------------------------------------------------------------------------------- */

/* 0, or the error that kept it from being seen. */
static int look_at(unsigned i, struct file *ret_file)
{
    static uint8_t bytes[BYTES_MAX + 1];
    uint32_t mark = 0;
    struct fs_attr attr;
    int rc;

    *ret_file = (struct file){.there = false};
    if (INSIDE(fs_lookup(s, FS_INO_ROOT, name_of(i), &attr)) < 0)
        return rc == -ENOENT ? 0 : rc;
    ret_file->there = true;
    (void)INSIDE((int)fs_read(s, attr.ino, bytes, sizeof bytes, 0));
    if (rc >= 0) {
        if ((uint64_t)rc != attr.size)
            give_up("%s has %d bytes of %llu", name_of(i), rc, (unsigned long long)attr.size);
        ret_file->len = (uint32_t)rc;
        ret_file->fill = bytes[0];
        for (int at = 1; at < rc; at++)
            if (bytes[at] != bytes[0])
                give_up("%s was never written like that", name_of(i));
        (void)INSIDE((int)fs_getxattr(s, attr.ino, "user.mark", &mark, sizeof mark));
        ret_file->xattr = rc == -ENODATA ? 0 : mark;
        rc = rc == -ENODATA || rc > 0 ? 0 : rc;
    }
    fs_forget(s, attr.ino, 1);
    return rc;
}

static bool same(const struct file *a, const struct file *b)
{
    return a->there == b->there && a->len == b->len && a->xattr == b->xattr && (a->len == 0 || a->fill == b->fill);
}

/* What can be seen is what was acknowledged. */
static void look_around(bool may_fail)
{
    for (unsigned i = 0; i < NAMES; i++) {
        struct file seen;
        int rc = look_at(i, &seen);
        if (rc < 0 && !may_fail)
            give_up("%s: %s", name_of(i), strerror(-rc));
        if (rc < 0)
            expect_error(rc, "looking");
        else if (!same(&seen, &states[calls].files[i]))
            give_up("%s is not as the calls that were acknowledged left it", name_of(i));
    }
}

/* ---- the workload ---------------------------------------------------------------------------------------- */

static struct file *next_state(unsigned i)
{
    states[calls + 1] = states[calls];
    return &states[calls + 1].files[i];
}

static void outcome(int rc, const char *what)
{
    if (rc >= 0)
        calls++;
    else
        expect_error(rc, what);
}

static void write_file(unsigned i)
{
    static uint8_t bytes[BYTES_MAX];
    struct fs_attr attr;
    uint32_t len = 1 + (uint32_t)dice(dice(3) ? 3000 : BYTES_MAX - 1);
    int rc;

    if (!states[calls].files[i].there) {
        *next_state(i) = (struct file){.there = true};
        outcome(INSIDE(fs_mknod(s, &cred, FS_INO_ROOT, name_of(i), S_IFREG | 0644, 0, &attr)), "making a file");
    } else {
        (void)INSIDE(fs_lookup(s, FS_INO_ROOT, name_of(i), &attr));
    }
    if (rc < 0)
        return;
    if (states[calls].files[i].len > len)
        len = states[calls].files[i].len;
    memset(bytes, (int)dice(255) + 1, sizeof bytes);
    struct file *file = next_state(i);
    file->len = len;
    file->fill = bytes[0];
    (void)INSIDE((int)fs_write(s, attr.ino, bytes, len, 0, 0));
    if (rc >= 0 && (uint32_t)rc < len)
        give_up("a part of a write, which is one unit");
    outcome(rc, "writing");
    fs_forget(s, attr.ino, 1);
}

static void mark_file(unsigned i)
{
    struct fs_attr attr;
    uint32_t mark = 1 + (uint32_t)dice(1000);
    int rc;

    if (INSIDE(fs_lookup(s, FS_INO_ROOT, name_of(i), &attr)) < 0)
        return;
    next_state(i)->xattr = mark;
    outcome(INSIDE(fs_setxattr(s, attr.ino, "user.mark", &mark, sizeof mark, 0, 0)), "an attribute");
    fs_forget(s, attr.ino, 1);
}

static void move_file(unsigned i, unsigned to)
{
    int rc;

    if (!states[calls].files[i].there || i == to)
        return;
    *next_state(to) = states[calls].files[i];
    states[calls + 1].files[i] = (struct file){.there = false};
    outcome(INSIDE(fs_rename(s, &cred, FS_INO_ROOT, name_of(i), FS_INO_ROOT, name_of(to), 0)), "a rename");
}

static void remove_file(unsigned i)
{
    int rc;

    if (!states[calls].files[i].there)
        return;
    *next_state(i) = (struct file){.there = false};
    outcome(INSIDE(fs_unlink(s, FS_INO_ROOT, name_of(i))), "an unlink");
}

static void close_and_open(void)
{
    int rc;

    fs_session_close(s);
    if (INSIDE(fs_close(fs)) < 0)
        expect_error(rc, "closing");
    else
        promise(calls);
    fs = NULL;
    if (durable == calls && (rc = open_it()) < 0)
        expect_error(rc, "opening");
}

/* The dice do not depend on what fails. */
static bool work(bool reads_may_fail)
{
    int rc;

    for (unsigned n = 0; n < STEPS && fs; n++) {
        about_to_step();
        dice_state = mix(workload_seed + n);
        unsigned i = (unsigned)dice(NAMES), what = (unsigned)dice(8);
        if (what < 4)
            write_file(i);
        else if (what == 4)
            mark_file(i);
        else if (what == 5)
            move_file(i, (unsigned)dice(NAMES));
        else if (what == 6)
            remove_file(i);
        else if (INSIDE(fs_sync(fs)) == 0)
            promise(calls);
        else
            expect_error(rc, "a sync");
        if (n % 8 == 3)
            look_around(reads_may_fail);
        if (n == STEPS / 2)
            close_and_open();
    }
    return fs;
}

/* ---- afterwards -------------------------------------------------------------------------------------------- */

/* It is as after one of the calls. */
static void check(struct device *on, uint64_t tick)
{
    struct state seen;
    struct fs_attr attr;
    unsigned promised = promised_by(tick), call = calls, i;
    int rc;

    fs = NULL;
    if ((rc = open_on(on)) < 0)
        give_up("open: %s", strerror(-rc));
    for (i = 0; i < NAMES; i++)
        if ((rc = look_at(i, &seen.files[i])) < 0)
            give_up("%s: %s", name_of(i), strerror(-rc));
    for (;; call--) {
        for (i = 0; i < NAMES && same(&seen.files[i], &states[call].files[i]); i++)
            continue;
        if (i == NAMES)
            break;
        if (call == promised)
            give_up("not as any of the calls %u to %u left it", promised, calls);
    }
    rc = fs_mknod(s, &cred, FS_INO_ROOT, "after", S_IFREG | 0644, 0, &attr);
    if (rc == 0)
        fs_forget(s, attr.ino, 1);
    if (rc < 0 || (rc = fs_sync(fs)) < 0)
        give_up("it does not go on after the fault has passed: %s", strerror(-rc));
    fs_session_close(s);
    ck_assert_int_eq(fs_close(fs), 0);
    fs = NULL;
}

static void cut_power(void)
{
    uint64_t now = device_record_now(record), after = now - fault_tick;

    for (unsigned n = 0; n < number_from("FASTERFS_CUTS", SLOWER > 1 ? 1 : 4); n++) {
        uint64_t seed = mix(workload_seed + n) ^ fault_tick;
        struct device_crash crash = {.tick = n == 0 ? now : fault_tick + mix(seed) % (after + 1),
                                     .style = n == 0 ? DEVICE_CRASH_OLD : DEVICE_CRASH_RANDOM,
                                     .seed = seed};
        check_cut(&crash);
    }
}

static void begin(void)
{
    memset(states, 0, sizeof states[0]);
    calls = 0;
    fs = NULL;
}

static void end(bool resumes)
{
    int rc;

    if (!fs)
        return;
    if (resumes && INSIDE(fs_sync(fs)) < 0)
        give_up("there is room again, and a sync fails: %s", strerror(-rc));
    if (resumes)
        promise(calls);
    fs_session_close(s);
    fs_abandon(fs);
    fs = NULL;
}

static const struct subject the_filesystem = {.begin = begin,
                                              .open = open_it,
                                              .work = work,
                                              .end = end,
                                              .cut_power = cut_power,
                                              .check = check,
                                              .step = 4,
                                              .each = 20,
                                              .seconds = 120};

int main(void)
{
    return run_case("fs faults", faults_case("fs faults", &the_filesystem));
}
