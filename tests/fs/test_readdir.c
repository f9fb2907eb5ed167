// SPDX-License-Identifier: MIT
/*
 * readdir: each entry that stays is seen exactly once, whatever else changes, from every cookie; the
 * references that it hands out are given back; directories that churn do not get slower.
 */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

#define ROOT FS_INO_ROOT

static struct fs_attr a;

static void setup(void)
{
    background = false;
    fixture_setup();
}

static void setup_background(void)
{
    background = true;
    fixture_setup();
}

/* ---- walking ------------------------------------------------------------------------------------------ */

struct walk {
    unsigned step; /* entries per call; 0: all */
    unsigned in_call, entries;
    uint64_t cookie;
    unsigned seen[4096]; /* of names "k<number>" */
    unsigned others;
    bool with_attr;
    struct fs_session *session;
    void (*at_first)(struct walk *walk); /* called once, inside the first call */
    unsigned stayed;                     /* names from 0 to stayed - 1 are there throughout */
};

static int see(void *ctx, const struct fs_dirent *e)
{
    struct walk *walk = ctx;

    if (walk->step && walk->in_call == walk->step)
        return 1;
    walk->in_call++;
    ck_assert_uint_gt(e->cookie, walk->cookie);
    ck_assert_uint_eq(strlen(e->name), e->name_len);
    walk->cookie = e->cookie;
    walk->entries++;
    if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0) {
        ck_assert_ptr_null(e->attr);
        ck_assert_uint_eq(e->type, S_IFDIR);
        return 0;
    }
    if (walk->with_attr) {
        ck_assert_ptr_nonnull(e->attr);
        ck_assert_uint_eq(e->attr->ino, e->ino);
        ck_assert_uint_eq(e->attr->mode & S_IFMT, e->type);
        if (e->ino >> 48 == 0)
            fs_forget(walk->session, e->ino, 1);
    } else {
        ck_assert_ptr_null(e->attr);
    }
    if (e->name[0] == 'k')
        walk->seen[atoi(e->name + 1)]++;
    else
        walk->others++;
    if (walk->at_first) {
        void (*act)(struct walk *) = walk->at_first;
        walk->at_first = NULL;
        act(walk);
    }
    return 0;
}

static void walk_all(struct walk *walk, uint64_t dir)
{
    for (;;) {
        unsigned before = walk->entries;
        walk->in_call = 0;
        ck_assert_int_eq(fs_readdir(walk->session, dir, walk->cookie, walk->with_attr, see, walk), 0);
        if (walk->entries == before || walk->step == 0)
            return;
    }
}

static void expect_each_once(const struct walk *walk)
{
    for (unsigned i = 0; i < walk->stayed; i++)
        ck_assert_msg(walk->seen[i] == 1, "k%u was seen %u times", i, walk->seen[i]);
}

static void make_names(uint64_t dir, const char *prefix, unsigned first, unsigned end)
{
    char name[32];

    for (unsigned i = first; i < end; i++) {
        sprintf(name, "%s%u", prefix, i);
        make_file(dir, name);
    }
}

static void remove_names(uint64_t dir, const char *prefix, unsigned first, unsigned end)
{
    char name[32];

    for (unsigned i = first; i < end; i++) {
        sprintf(name, "%s%u", prefix, i);
        ck_assert_int_eq(fs_unlink(s, dir, name), 0);
    }
}

/* ---- one thread ------------------------------------------------------------------------------------------ */

START_TEST(an_empty_directory_has_two_entries)
{
    uint64_t d = make_dir(ROOT, "d");
    struct walk walk = {.session = s};

    walk_all(&walk, d);
    ck_assert_uint_eq(walk.entries, 2);
    ck_assert_uint_eq(walk.cookie, 2);
    uint64_t f = make_file(d, "f");
    ck_assert_int_eq(fs_readdir(s, f, 0, false, see, &walk), -ENOTDIR);
    ck_assert_int_eq(fs_readdir(s, 9999, 0, false, see, &walk), -ESTALE);
}
END_TEST

START_TEST(every_number_of_entries_is_listed_in_calls_of_every_length)
{
    uint64_t d = make_dir(ROOT, "d");

    for (unsigned names = 0; names < 150; names++) {
        for (unsigned step = 0; step < 20; step = step * 2 + 1) {
            struct walk walk = {.session = s, .step = step, .with_attr = names % 2, .stayed = names};
            walk_all(&walk, d);
            expect_each_once(&walk);
            ck_assert_uint_eq(walk.entries, names + 2);
        }
        make_names(d, "k", names, names + 1);
    }
    fixture_reopen();
    struct walk walk = {.session = s, .step = 7, .stayed = 150};
    walk_all(&walk, d);
    expect_each_once(&walk);
    /* in any order of removal, what is left is listed */
    for (unsigned i = 0; i < 150; i++) {
        unsigned gone = i * 37 % 150;
        remove_names(d, "k", gone, gone + 1);
        struct walk rest = {.session = s, .step = 5};
        walk_all(&rest, d);
        ck_assert_uint_eq(rest.entries, 150 - i - 1 + 2);
    }
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), 0);
}
END_TEST

START_TEST(a_cookie_stays_valid_when_its_entry_and_all_before_are_gone)
{
    uint64_t d = make_dir(ROOT, "d");
    struct walk walk = {.session = s, .step = 52};

    make_names(d, "k", 0, 100);
    ck_assert_int_eq(fs_readdir(s, d, 0, false, see, &walk), 0);
    remove_names(d, "k", 0, 50);
    fixture_crash();
    walk.session = s;
    walk.step = 0;
    ck_assert_int_eq(fs_readdir(s, d, walk.cookie, false, see, &walk), 0);
    walk.stayed = 100;
    expect_each_once(&walk);
}
END_TEST

START_TEST(fill_that_refuses_the_first_entry_gets_it_again)
{
    uint64_t d = make_dir(ROOT, "d");

    make_names(d, "k", 0, 3);
    for (unsigned at = 0; at < 5; at++) {
        struct walk walk = {.session = s, .step = 1, .cookie = at};
        ck_assert_int_eq(fs_readdir(s, d, at, false, see, &walk), 0);
        ck_assert_uint_eq(walk.entries, 1);
        ck_assert_uint_eq(walk.cookie, at + 1);
    }
}
END_TEST

START_TEST(the_root_does_not_list_its_snapshots)
{
    make_names(ROOT, "k", 0, 3);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "one", 0755, &a), 0);
    uint64_t one = a.ino;
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "two", 0755, &a), 0);
    make_names(ROOT, "k", 3, 5);
    struct walk walk = {.session = s, .stayed = 5};
    walk_all(&walk, ROOT);
    expect_each_once(&walk);
    ck_assert_uint_eq(walk.others, 0);
    struct walk then = {.session = s, .stayed = 3, .with_attr = true, .step = 2};
    walk_all(&then, one);
    expect_each_once(&then);
    ck_assert_uint_eq(then.entries, 5);
    for (unsigned step = 0; step < 3; step++) {
        struct walk all = {.session = s, .with_attr = step % 2, .step = step};
        walk_all(&all, FS_INO_SNAPSHOTS);
        ck_assert_uint_eq(all.others, 2);
    }
}
END_TEST

/* ---- changes in the middle of a call ------------------------------------------------------------------------ */

static struct fs_session *other;
static uint64_t the_dir;

static void replace_a_later_one(struct walk *walk)
{
    (void)walk;
    ck_assert_int_eq(fs_mknod(other, &cred, the_dir, "tmp", S_IFREG, 0, &a), 0);
    fs_forget(other, a.ino, 1);
    ck_assert_int_eq(fs_rename(other, &cred, the_dir, "tmp", the_dir, "k50", 0), 0);
}

START_TEST(a_name_that_is_replaced_meanwhile_is_not_missed)
{
    the_dir = make_dir(ROOT, "d");
    make_names(the_dir, "k", 0, 64);
    ck_assert_int_eq(fs_session_open(fs, &other), 0);
    struct walk walk = {.session = s, .at_first = replace_a_later_one};
    walk_all(&walk, the_dir);
    fs_session_close(other);
    ck_assert_msg(walk.seen[50] == 1, "the replaced name was seen %u times", walk.seen[50]);
}
END_TEST

START_TEST(a_name_that_is_replaced_before_it_is_reached_is_seen_when_calls_are_short)
{
    the_dir = make_dir(ROOT, "d");
    make_names(the_dir, "k", 0, 64);
    ck_assert_int_eq(fs_session_open(fs, &other), 0);
    struct walk walk = {.session = s, .at_first = replace_a_later_one, .step = 4, .stayed = 64};
    walk_all(&walk, the_dir);
    fs_session_close(other);
    expect_each_once(&walk);
}
END_TEST

static int unlink_and_refuse(void *ctx, const struct fs_dirent *e)
{
    (void)ctx;
    if (!e->attr)
        return 0;
    ck_assert_int_eq(fs_unlink(other, the_dir, e->name), 0);
    return 1;
}

START_TEST(an_entry_that_was_refused_and_is_unlinked_meanwhile_is_removed)
{
    the_dir = make_dir(ROOT, "d");
    make_file(the_dir, "f");
    ck_assert_int_eq(fs_session_open(fs, &other), 0);
    uint64_t before = files_in_use();
    ck_assert_int_eq(fs_readdir(s, the_dir, 0, true, unlink_and_refuse, NULL), 0);
    fs_session_close(other);
    ck_assert_uint_eq(files_in_use(), before - 1);
}
END_TEST

/* ---- many threads ----------------------------------------------------------------------------------------------- */

#define STAYED 500u
static _Atomic bool stop;
static _Atomic unsigned listings;

struct churner {
    unsigned number, rounds;
};

static void *churn(void *arg)
{
    struct churner *churner = arg;
    struct fs_session *mine;
    struct fs_attr attr;
    char name[32], to[32];
    unsigned held = 0;

    ck_assert_int_eq(fs_session_open(fs, &mine), 0);
    for (unsigned i = 0; !atomic_load(&stop); i++, churner->rounds++) {
        sprintf(name, "c%u.%u", churner->number, i);
        ck_assert_int_eq(fs_mknod(mine, &cred, the_dir, name, S_IFREG, 0, &attr), 0);
        fs_forget(mine, attr.ino, 1);
        if (i % 3 == 0) {
            sprintf(to, "r%u", churner->number);
            ck_assert_int_eq(fs_rename(mine, &cred, the_dir, name, the_dir, to, 0), 0);
        } else if (++held > 40) {
            for (unsigned j = i; held > 0; j--) {
                if (j % 3 == 0)
                    continue;
                sprintf(name, "c%u.%u", churner->number, j);
                ck_assert_int_eq(fs_unlink(mine, the_dir, name), 0);
                held--;
            }
        }
    }
    fs_session_close(mine);
    return NULL;
}

static void *list(void *arg)
{
    struct fs_session *mine;

    ck_assert_int_eq(fs_session_open(fs, &mine), 0);
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        struct walk *walk = calloc(1, sizeof *walk);
        walk->session = mine;
        walk->step = 1 + (i * 13 + (unsigned)(uintptr_t)arg) % 60;
        walk->with_attr = i % 2;
        walk->stayed = STAYED;
        walk_all(walk, the_dir);
        expect_each_once(walk);
        atomic_fetch_add(&listings, 1);
        free(walk);
    }
    fs_session_close(mine);
    return NULL;
}

START_TEST(what_stays_is_seen_exactly_once_while_others_create_rename_and_unlink)
{
    pthread_t threads[5];
    struct churner churners[3] = {{0, 0}, {1, 0}, {2, 0}};
    struct timespec pause = {3, 0};

    the_dir = make_dir(ROOT, "d");
    for (unsigned i = 0; i < STAYED; i++) { /* strewn among others, which then go */
        make_names(the_dir, "k", i, i + 1);
        make_names(the_dir, "x", i * 3, i * 3 + i % 4);
    }
    for (unsigned i = 0; i < STAYED; i++)
        remove_names(the_dir, "x", i * 3, i * 3 + i % 4);
    atomic_store(&stop, false);
    atomic_store(&listings, 0);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, &churners[i]), 0);
    for (unsigned i = 3; i < 5; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, list, (void *)(uintptr_t)i), 0);
    nanosleep(&pause, NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    printf("%u listings while %u + %u + %u names came and went\n", atomic_load(&listings), churners[0].rounds,
           churners[1].rounds, churners[2].rounds);
    ck_assert_uint_gt(atomic_load(&listings), 0);
    struct walk walk = {.session = s, .stayed = STAYED};
    walk_all(&walk, the_dir);
    expect_each_once(&walk);
    ck_assert_uint_eq(attr_of(the_dir).nlink, 2);
}
END_TEST

/* ---- churn ---------------------------------------------------------------------------------------------------------
 */

static double seconds_to_list(uint64_t dir)
{
    struct timespec start, end;
    double best = 1e9;

    for (int i = 0; i < 5; i++) {
        struct walk walk = {.session = s};
        clock_gettime(CLOCK_MONOTONIC, &start);
        walk_all(&walk, dir);
        clock_gettime(CLOCK_MONOTONIC, &end);
        double took = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
        best = took < best ? took : best;
    }
    return best;
}

/* Names come at the end and go at the front, 16 to 32 behind, groups of eight in exchanged order. */
static void churn_names(uint64_t dir, unsigned first, unsigned end)
{
    char name[32];

    for (unsigned i = first; i < end; i++) {
        sprintf(name, "c%u", i);
        make_file(dir, name);
        if (i >= 32) {
            sprintf(name, "c%u", (i ^ 8) - 32);
            ck_assert_int_eq(fs_unlink(s, dir, name), 0);
        }
    }
}

/* A queue: names come at the end and go at the front, not quite in order. */
START_TEST(a_directory_used_as_a_queue_does_not_get_slower_to_list)
{
    uint64_t d = make_dir(ROOT, "d");

    churn_names(d, 0, 320);
    double early = seconds_to_list(d);
    churn_names(d, 320, 50000);
    double late = seconds_to_list(d);
    printf("queue: %.1f us, after 50,000 names %.1f us\n", early * 1e6, late * 1e6);
    ck_assert_msg(late < early * 50 + 1e-4, "%.1f us before, %.1f us after", early * 1e6, late * 1e6);
}
END_TEST

/* One old name, and others that come and go. */
START_TEST(a_directory_with_one_old_name_does_not_get_slower_to_list)
{
    uint64_t d = make_dir(ROOT, "d");
    char name[32];

    make_file(d, "old");
    double early = seconds_to_list(d);
    for (unsigned i = 0; i < 50000; i++) {
        sprintf(name, "c%u", i);
        make_file(d, name);
        ck_assert_int_eq(fs_unlink(s, d, name), 0);
    }
    double late = seconds_to_list(d);
    printf("one old name: %.1f us, after 50,000 names %.1f us\n", early * 1e6, late * 1e6);
    ck_assert_msg(late < early * 50 + 1e-4, "%.1f us before, %.1f us after", early * 1e6, late * 1e6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("readdir");
    TCase *alone = tcase_create("alone"), *together = tcase_create("together");

    tcase_add_checked_fixture(alone, setup, fixture_teardown);
    tcase_set_timeout(alone, 120);
    tcase_add_test(alone, an_empty_directory_has_two_entries);
    tcase_add_test(alone, every_number_of_entries_is_listed_in_calls_of_every_length);
    tcase_add_test(alone, a_cookie_stays_valid_when_its_entry_and_all_before_are_gone);
    tcase_add_test(alone, fill_that_refuses_the_first_entry_gets_it_again);
    tcase_add_test(alone, the_root_does_not_list_its_snapshots);
    tcase_add_test(alone, a_name_that_is_replaced_meanwhile_is_not_missed);
    tcase_add_test(alone, a_name_that_is_replaced_before_it_is_reached_is_seen_when_calls_are_short);
    tcase_add_test(alone, an_entry_that_was_refused_and_is_unlinked_meanwhile_is_removed);
    tcase_add_test(alone, a_directory_used_as_a_queue_does_not_get_slower_to_list);
    tcase_add_test(alone, a_directory_with_one_old_name_does_not_get_slower_to_list);
    suite_add_tcase(suite, alone);
    tcase_add_checked_fixture(together, setup_background, fixture_teardown);
    tcase_set_timeout(together, 120);
    tcase_add_test(together, what_stays_is_seen_exactly_once_while_others_create_rename_and_unlink);
    suite_add_tcase(suite, together);
    return suite_run(suite);
}
