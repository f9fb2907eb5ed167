// SPDX-License-Identifier: MIT
/*
 * Several sessions at once on names that overlap; then every count is compared with the tree: links of
 * files and directories, "..", entries that lead somewhere, inodes in use. After a reopen and a crash too.
 */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

#define ROOT FS_INO_ROOT
#define THREADS 4
#define NAMES 12
#define DIRS 6
#define BLOCK 150000u /* bytes written in one call, all alike: three chunks */

static _Atomic bool stop;
static uint64_t dirs[DIRS];
static uint64_t run_seed;

struct worker {
    uint64_t seed;
    struct fs_session *session;
    uint64_t calls, done;
    uint8_t bytes[BLOCK];
    pthread_t thread;
};

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    run_seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)run_seed);
    fflush(stdout);
    background = true;
    log_bytes = 1u << 20;
    fixture_setup();
}

static unsigned dice(struct worker *w, unsigned sides)
{
    w->seed = w->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)((w->seed >> 33) % sides);
}

static const char *name_of(unsigned k)
{
    static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};

    return names[k];
}

static const char *some_name(struct worker *w)
{
    return name_of(dice(w, NAMES));
}

/* ---- the check ------------------------------------------------------------------------------------------ */

struct count {
    uint64_t ino;
    unsigned names;
    uint32_t nlink;
};
struct tally {
    struct count inodes[20000];
    unsigned used;
};

struct listing {
    struct tally *tally;
    uint64_t dir;
    unsigned entries, directories;
    uint64_t child_dirs[1000];
};

static void count_name(struct tally *tally, const struct fs_attr *attr)
{
    unsigned i = 0;

    while (i < tally->used && tally->inodes[i].ino != attr->ino)
        i++;
    ck_assert_uint_lt(i, 20000);
    if (i == tally->used)
        tally->inodes[tally->used++] = (struct count){.ino = attr->ino, .nlink = attr->nlink};
    tally->inodes[i].names++;
}

static int tally_entry(void *ctx, const struct fs_dirent *e)
{
    struct listing *listing = ctx;

    if (e->cookie <= 2)
        return 0;
    ck_assert_ptr_nonnull(e->attr);
    fs_forget(s, e->ino, 1);
    ck_assert_int_eq(look(listing->dir, e->name), (int64_t)e->ino);
    ck_assert_uint_eq(e->attr->mode & S_IFMT, e->type);
    listing->entries++;
    if (S_ISDIR(e->type)) {
        ck_assert_int_eq(look(e->ino, ".."), (int64_t)listing->dir);
        ck_assert_uint_lt(listing->directories, 1000);
        listing->child_dirs[listing->directories++] = e->ino;
    } else {
        count_name(listing->tally, e->attr);
    }
    return 0;
}

/* Directories below and with `dir`. */
static uint64_t check_below(struct tally *tally, uint64_t dir, unsigned depth)
{
    struct listing *listing = calloc(1, sizeof *listing);
    uint64_t found = 1;

    ck_assert_uint_lt(depth, 20000);
    listing->tally = tally;
    listing->dir = dir;
    ck_assert_int_eq(fs_readdir(s, dir, 0, true, tally_entry, listing), 0);
    ck_assert_uint_eq(attr_of(dir).nlink, 2 + listing->directories);
    for (unsigned i = 0; i < listing->directories; i++)
        found += check_below(tally, listing->child_dirs[i], depth + 1);
    free(listing);
    return found;
}

/* Inodes that the store has, by asking for every number that was ever given. */
static uint64_t inodes_there(void)
{
    struct fs_attr attr;
    uint64_t there = 0, last = make_file(ROOT, "the last number");

    ck_assert_int_eq(fs_unlink(s, ROOT, "the last number"), 0);
    for (uint64_t ino = 1; ino < last; ino++)
        there += fs_getattr(s, ino, &attr) == 0;
    return there;
}

enum { COUNT_EXACT = 1 };

static void check_tree(unsigned flags)
{
    struct tally *tally = calloc(1, sizeof *tally);
    struct timespec pause = {0, 10000000};
    uint64_t found = check_below(tally, ROOT, 0), there = 0;

    for (unsigned i = 0; i < tally->used; i++)
        ck_assert_msg(tally->inodes[i].names == tally->inodes[i].nlink, "inode %llu: %u names, nlink %u",
                      (unsigned long long)tally->inodes[i].ino, tally->inodes[i].names, tally->inodes[i].nlink);
    found += tally->used;
    for (int i = 0; i < 100 && (there = inodes_there()) != found; i++) /* the reaper is behind */
        nanosleep(&pause, NULL);
    ck_assert_msg(there == found, "%llu inodes, of which %llu have a name", (unsigned long long)there,
                  (unsigned long long)found);
    if (flags & COUNT_EXACT) {
        for (int i = 0; i < 100 && files_in_use() != found; i++)
            nanosleep(&pause, NULL);
        ck_assert_uint_eq(files_in_use(), found);
    }
    free(tally);
}

/* ---- running ------------------------------------------------------------------------------------------------ */

static void run(void *(*work)(void *), unsigned seconds)
{
    struct worker *workers[THREADS];
    struct timespec pause = {seconds, 0};

    atomic_store(&stop, false);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = calloc(1, sizeof *workers[i]);
        workers[i]->seed = run_seed + i * 1000003;
        ck_assert_int_eq(fs_session_open(fs, &workers[i]->session), 0);
        ck_assert_int_eq(pthread_create(&workers[i]->thread, NULL, work, workers[i]), 0);
    }
    nanosleep(&pause, NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i]->thread, NULL);
        printf("%llu calls, %llu of them did something\n", (unsigned long long)workers[i]->calls,
               (unsigned long long)workers[i]->done);
        fs_session_close(workers[i]->session);
        free(workers[i]);
    }
    run_seed += 17;
}

static void check_after(void)
{
    check_tree(COUNT_EXACT);
    fixture_reopen();
    check_tree(COUNT_EXACT);
}

/* ---- names ---------------------------------------------------------------------------------------------------- */

static int allowed(int rc)
{
    static const int errors[] = {ENOENT, EEXIST, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL, EPERM, ESTALE};

    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (rc == -errors[i])
            return 1;
    return rc >= 0;
}

static int name_call(struct worker *w)
{
    static const unsigned flags[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    uint64_t dir = dirs[dice(w, DIRS)], to = dirs[dice(w, DIRS)];
    struct fs_session *mine = w->session;
    struct fs_attr attr;
    int rc;

    switch (dice(w, 10)) {
    case 0:
    case 1:
        rc = fs_mknod(mine, &cred, dir, some_name(w), S_IFREG | 0644, 0, &attr);
        break;
    case 2:
        rc = fs_mkdir(mine, &cred, dir, some_name(w), 0755, &attr);
        break;
    case 3:
        rc = fs_symlink(mine, &cred, dir, some_name(w), "target", &attr);
        break;
    case 4:
    case 5: {
        struct fs_attr linked;
        rc = fs_lookup(mine, dir, some_name(w), &attr);
        if (rc < 0)
            return rc;
        rc = fs_link(mine, attr.ino, to, some_name(w), &linked);
        if (rc == 0)
            fs_forget(mine, linked.ino, 1);
        fs_forget(mine, attr.ino, 1);
        return rc;
    }
    case 6:
        return fs_unlink(mine, dir, some_name(w));
    case 7:
        return fs_rmdir(mine, dir, some_name(w));
    default:
        return fs_rename(mine, &cred, dir, some_name(w), to, some_name(w), flags[dice(w, 5)]);
    }
    if (rc == 0)
        fs_forget(mine, attr.ino, 1);
    return rc;
}

static void *work_on_names(void *arg)
{
    struct worker *w = arg;

    for (; !atomic_load(&stop); w->calls++) {
        int rc = name_call(w);
        ck_assert_msg(allowed(rc), "a call on names gave %d", rc);
        w->done += rc == 0;
    }
    return NULL;
}

static void make_dirs(void)
{
    char name[8];

    for (unsigned i = 0; i < DIRS; i++) {
        sprintf(name, "D%u", i);
        dirs[i] = make_dir(ROOT, name);
    }
}

START_TEST(names_that_many_sessions_change_stay_consistent)
{
    make_dirs();
    for (int round = 0; round < 3; round++) {
        run(work_on_names, 1);
        check_after();
    }
}
END_TEST

START_TEST(a_crash_in_the_midst_of_it_leaves_a_consistent_tree)
{
    make_dirs();
    for (int round = 0; round < 4; round++) {
        run(work_on_names, 1);
        fixture_crash();
        check_tree(0);
    }
}
END_TEST

START_TEST(the_count_of_inodes_is_exact_after_a_sync_although_the_reaper_works)
{
    make_dirs();
    for (int round = 0; round < 4; round++) {
        run(work_on_names, 1);
        fixture_crash();
        check_tree(COUNT_EXACT);
    }
}
END_TEST

START_TEST(the_count_of_inodes_is_exact_after_a_close_although_the_reaper_works)
{
    make_dirs();
    for (int round = 0; round < 8; round++) {
        run(work_on_names, 1);
        fixture_reopen();
        check_tree(COUNT_EXACT);
    }
}
END_TEST

/* ---- directories that move into each other ---------------------------------------------------------------------- */

static void *work_on_directories(void *arg)
{
    struct worker *w = arg;
    struct fs_attr attr;

    for (; !atomic_load(&stop); w->calls++) {
        /* a path of up to four names, held by references, then one directory moved into another */
        uint64_t held[8] = {ROOT, ROOT};
        unsigned count = 2;
        for (unsigned side = 0; side < 2; side++)
            for (unsigned depth = dice(w, 4); depth > 0 && count < 8; depth--)
                if (fs_lookup(w->session, held[side], some_name(w), &attr) == 0) {
                    held[side] = attr.ino;
                    held[count++] = attr.ino;
                }
        int rc;
        if (dice(w, 3) == 0) {
            rc = fs_mkdir(w->session, &cred, held[0], some_name(w), 0755, &attr);
            if (rc == 0)
                fs_forget(w->session, attr.ino, 1);
        } else if (dice(w, 3) == 0) {
            rc = fs_rmdir(w->session, held[0], some_name(w));
        } else {
            rc = fs_rename(w->session, &cred, held[0], some_name(w), held[1], some_name(w),
                           dice(w, 3) ? 0 : RENAME_EXCHANGE);
        }
        ck_assert_msg(allowed(rc), "a call on directories gave %d", rc);
        w->done += rc == 0;
        for (unsigned i = 2; i < count; i++)
            fs_forget(w->session, held[i], 1);
    }
    return NULL;
}

START_TEST(directories_that_move_into_each_other_stay_one_tree)
{
    for (int round = 0; round < 3; round++) {
        run(work_on_directories, 1);
        check_after();
    }
}
END_TEST

/* ---- data
 * ------------------------------------------------------------------------------------------------------------ */

/* A write is all there or not at all to a reader: what it reads in one call are bytes of one write. */
static void *work_on_data(void *arg)
{
    struct worker *w = arg;
    struct fs_attr attr;

    for (; !atomic_load(&stop); w->calls++) {
        if (fs_lookup(w->session, dirs[0], name_of(dice(w, 3)), &attr) < 0) {
            if (fs_mknod(w->session, &cred, dirs[0], some_name(w), S_IFREG | 0644, 0, &attr) < 0)
                continue;
        }
        switch (dice(w, 8)) {
        case 0:
            (void)!fs_unlink(w->session, dirs[0], name_of(dice(w, 3)));
            break;
        case 1:
            ck_assert_int_eq(fs_setattr(w->session, attr.ino, &(struct fs_attr){.size = 0}, FS_SET_SIZE, NULL), 0);
            break;
        case 2:
        case 3:
            memset(w->bytes, (int)dice(w, 256), BLOCK);
            ck_assert_int_eq(fs_write(w->session, attr.ino, w->bytes, BLOCK, 0, 0), BLOCK);
            break;
        default: {
            ssize_t got = fs_read(w->session, attr.ino, w->bytes, BLOCK, 0);
            ck_assert_msg(got == 0 || got == BLOCK, "read %zd", got);
            ssize_t same = 0; /* one assertion: each costs a system call */
            while (same < got && w->bytes[same] == w->bytes[0])
                same++;
            ck_assert_msg(same == got, "bytes of two writes: %u at %zd, %u before", w->bytes[same % BLOCK], same,
                          w->bytes[0]);
            w->done += got > 0;
        }
        }
        fs_forget(w->session, attr.ino, 1);
    }
    return NULL;
}

START_TEST(a_reader_sees_a_write_whole_or_not_at_all)
{
    make_dirs();
    run(work_on_data, 3);
    check_after();
}
END_TEST

/* The same of small writes into a file of three times the log's memory: they become patches, which come and go. */
#define SPANS 48u /* a chunk each */
#define CHUNK 65536u

static uint64_t parts; /* the file */

static void *work_on_parts(void *arg)
{
    enum { FROM = 1000, LEN = 9000 };
    struct worker *w = arg;

    for (; !atomic_load(&stop); w->calls++) {
        uint64_t start = (uint64_t)dice(w, SPANS) * CHUNK;
        unsigned what = dice(w, 40);
        if (what < 20) {
            bool all = what == 0;
            memset(w->bytes, (int)dice(w, 256), CHUNK);
            ck_assert_int_eq(fs_write(w->session, parts, w->bytes, all ? CHUNK : LEN, all ? start : start + FROM, 0),
                             all ? CHUNK : LEN);
            continue;
        }
        ck_assert_int_eq(fs_read(w->session, parts, w->bytes, LEN, start + FROM), LEN);
        unsigned same = 0;
        while (same < LEN && w->bytes[same] == w->bytes[0])
            same++;
        ck_assert_msg(same == LEN, "bytes of two writes: %u at %u, %u before", w->bytes[same], same, w->bytes[0]);
        w->done++;
    }
    return NULL;
}

START_TEST(a_reader_sees_a_small_write_whole_or_not_at_all)
{
    static uint8_t zeros[CHUNK];

    parts = make_file(ROOT, "parts");
    for (unsigned i = 0; i < SPANS; i++)
        ck_assert_int_eq(fs_write(s, parts, zeros, CHUNK, (uint64_t)i * CHUNK, 0), CHUNK);
    run(work_on_parts, 3);
    check_after();
}
END_TEST

/* ---- references
 * --------------------------------------------------------------------------------------------------------- */

/* Everybody creates, opens and unlinks the same few names: an orphan's last forget races with its unlink. */
static void *work_on_references(void *arg)
{
    struct worker *w = arg;
    struct fs_attr attr;
    char byte;

    for (; !atomic_load(&stop); w->calls++) {
        const char *name = name_of(dice(w, 2));
        if (fs_lookup(w->session, dirs[0], name, &attr) < 0 &&
            fs_mknod(w->session, &cred, dirs[0], name, S_IFREG | 0644, 0, &attr) < 0)
            continue;
        w->done += fs_unlink(w->session, dirs[0], name) == 0;
        /* whatever others did, we hold it */
        struct fs_attr held;
        int rc = fs_getattr(w->session, attr.ino, &held);
        ck_assert_msg(rc == 0, "an inode that is referenced: getattr gave %d", rc);
        ck_assert_int_eq(fs_write(w->session, attr.ino, "x", 1, 0, 0), 1);
        ck_assert_int_eq(fs_read(w->session, attr.ino, &byte, 1, 0), 1);
        fs_forget(w->session, attr.ino, 1);
    }
    return NULL;
}

START_TEST(what_is_referenced_stays_and_what_is_not_goes)
{
    make_dirs();
    run(work_on_references, 3);
    for (unsigned k = 0; k < 2; k++)
        (void)!fs_unlink(s, dirs[0], name_of(k));
    check_after();
    ck_assert_uint_eq(files_in_use(), 1 + DIRS);
}
END_TEST

/* ---- snapshots
 * -------------------------------------------------------------------------------------------------------------- */

/* Two files are always written in turn, the first before the second: no snapshot has the second newer. */
static void *work_in_pairs(void *arg)
{
    struct worker *w = arg;

    for (uint64_t n = 1; !atomic_load(&stop); n++, w->calls++) {
        unsigned pair = (unsigned)(w->seed - run_seed) / 1000003;
        ck_assert_int_eq(fs_write(w->session, dirs[pair], &n, sizeof n, 0, 0), sizeof n);
        ck_assert_int_eq(fs_write(w->session, dirs[pair], &n, sizeof n, 100000, 0), sizeof n);
        w->done++;
    }
    return NULL;
}

static void *take_snapshots(void *arg)
{
    unsigned *taken = arg;
    struct fs_session *mine;
    struct fs_attr attr, file;
    char name[8];

    ck_assert_int_eq(fs_session_open(fs, &mine), 0);
    for (; !atomic_load(&stop); ++*taken) {
        ck_assert_int_eq(fs_mkdir(mine, &cred, FS_INO_SNAPSHOTS, "now", 0755, &attr), 0);
        for (unsigned i = 0; i < THREADS; i++) {
            uint64_t first = 0, second = 0;
            sprintf(name, "p%u", i);
            ck_assert_int_eq(fs_lookup(mine, attr.ino, name, &file), 0);
            ssize_t got = fs_read(mine, file.ino, &first, sizeof first, 0);
            ck_assert(got == 0 || got == sizeof first);
            got = fs_read(mine, file.ino, &second, sizeof second, 100000);
            ck_assert_int_ge(got, 0);
            ck_assert_msg(first == second || first == second + 1, "%llu, then %llu", (unsigned long long)first,
                          (unsigned long long)second);
        }
        ck_assert_int_eq(fs_rmdir(mine, FS_INO_SNAPSHOTS, "now"), 0);
    }
    fs_session_close(mine);
    return NULL;
}

START_TEST(a_snapshot_under_load_is_one_moment)
{
    pthread_t thread;
    unsigned taken = 0;
    char name[8];

    for (unsigned i = 0; i < THREADS; i++) {
        sprintf(name, "p%u", i);
        dirs[i] = make_file(ROOT, name);
    }
    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, take_snapshots, &taken), 0);
    run(work_in_pairs, 3);
    pthread_join(thread, NULL);
    printf("%u snapshots\n", taken);
    ck_assert_uint_gt(taken, 0);
    check_after();
}
END_TEST

static void *scrub_on(void *arg)
{
    static struct fs_scrub scrub;
    unsigned *passes = arg;
    struct fs_session *mine;

    ck_assert_int_eq(fs_session_open(fs, &mine), 0);
    while (!atomic_load(&stop)) {
        scrub = (struct fs_scrub){.max_bytes = 256u << 10};
        ck_assert_int_eq(fs_scrub(mine, &scrub), 0);
        ck_assert_msg(scrub.count == 0, "a false alarm: %s at %llu", scrub.faults[0].what,
                      (unsigned long long)scrub.faults[0].offset);
        *passes += scrub.finished;
    }
    fs_session_close(mine);
    return NULL;
}

/* While space is given back, names and contents change. */
START_TEST(a_scrub_beside_changes_raises_no_alarm)
{
    pthread_t thread;
    unsigned passes = 0;

    make_dirs();
    for (int round = 0; round < 2; round++) {
        atomic_store(&stop, false);
        ck_assert_int_eq(pthread_create(&thread, NULL, scrub_on, &passes), 0);
        run(work_on_names, 2);
        pthread_join(thread, NULL);
    }
    printf("%u scrubs\n", passes);
    ck_assert_uint_gt(passes, 0);
    check_after();
}
END_TEST

static void add(Suite *suite, const char *name, const TTest *first, const TTest *second)
{
    TCase *tests = tcase_create(name); /* CK_RUN_CASE=name runs it alone */

    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_set_timeout(tests, 200);
    tcase_add_test(tests, first);
    if (second)
        tcase_add_test(tests, second);
    suite_add_tcase(suite, tests);
}

int main(void)
{
    Suite *suite = suite_create("threads");

    add(suite, "names", names_that_many_sessions_change_stay_consistent,
        a_crash_in_the_midst_of_it_leaves_a_consistent_tree);
    add(suite, "sync", the_count_of_inodes_is_exact_after_a_sync_although_the_reaper_works, NULL);
    add(suite, "close", the_count_of_inodes_is_exact_after_a_close_although_the_reaper_works, NULL);
    add(suite, "directories", directories_that_move_into_each_other_stay_one_tree, NULL);
    add(suite, "data", a_reader_sees_a_write_whole_or_not_at_all, a_reader_sees_a_small_write_whole_or_not_at_all);
    add(suite, "references", what_is_referenced_stays_and_what_is_not_goes, NULL);
    add(suite, "snapshots", a_snapshot_under_load_is_one_moment, NULL);
    add(suite, "scrub", a_scrub_beside_changes_raises_no_alarm, NULL);
    return suite_run(suite);
}
