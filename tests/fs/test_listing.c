// SPDX-License-Identifier: MIT
/*
 * One directory of some hundred names that come, go and are renamed at random, so that its listing has
 * gaps of every shape; listed from the start and from any cookie, against an array. Reopened, crashed.
 */
#include "fixture.h"

#include <time.h>

#define ROOT FS_INO_ROOT
#define NAMES 600

static uint64_t seed, the_dir;
static uint64_t inos[NAMES]; /* 0: not there */
static uint64_t cookies[NAMES];

static unsigned dice(unsigned sides)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)((seed >> 33) % sides);
}

static const char *name_of(unsigned k)
{
    static char names[2][32];
    static unsigned turn;

    turn = !turn;
    sprintf(names[turn], "%u", k);
    return names[turn];
}

struct seen {
    unsigned times[NAMES];
    uint64_t cookie;
    unsigned left; /* entries still wanted in this call */
    bool progress;
};

static int see(void *ctx, const struct fs_dirent *e)
{
    struct seen *seen = ctx;

    if (seen->left-- == 0)
        return 1;
    if (e->cookie <= seen->cookie)
        ck_abort_msg("cookies do not rise");
    seen->cookie = e->cookie;
    seen->progress = true;
    if (e->attr) {
        if (e->attr->ino != e->ino)
            ck_abort_msg("attributes of another");
        fs_forget(s, e->ino, 1);
    }
    if (e->cookie <= 2)
        return 0;
    unsigned k = (unsigned)atoi(e->name);
    if (k >= NAMES || e->ino != inos[k])
        ck_abort_msg("\"%s\" leads to %llu", e->name, (unsigned long long)e->ino);
    seen->times[k]++;
    cookies[k] = e->cookie;
    return 0;
}

static void list_from(uint64_t cookie)
{
    struct seen seen = {.cookie = cookie};
    unsigned step = dice(3) ? 1 + dice(100) : UINT32_MAX;
    bool with_attr = dice(2);

    do {
        seen.progress = false;
        seen.left = step;
        ck_assert_int_eq(fs_readdir(s, the_dir, seen.cookie, with_attr, see, &seen), 0);
    } while (seen.progress);
    for (unsigned k = 0; k < NAMES; k++) {
        if (cookie == 0 && seen.times[k] != (inos[k] != 0))
            ck_abort_msg("\"%u\" was seen %u times", k, seen.times[k]);
        if (cookie != 0 && inos[k] && cookies[k] && seen.times[k] != (cookies[k] > cookie))
            ck_abort_msg("\"%u\", cookie %llu, was seen %u times from %llu on", k, (unsigned long long)cookies[k],
                         seen.times[k], (unsigned long long)cookie);
    }
}

static void change(unsigned live)
{
    unsigned k = dice(NAMES), to = dice(NAMES);

    if (!inos[k]) {
        if (dice(NAMES) < live || dice(4) == 0) {
            inos[k] = make_file(the_dir, name_of(k));
            cookies[k] = 0;
        }
        return;
    }
    switch (dice(6)) {
    case 0: /* onto another or a new name */
        ck_assert_int_eq(fs_rename(s, &cred, the_dir, name_of(k), the_dir, name_of(to), 0), 0);
        if (k == to)
            return;
        if (!inos[to])
            cookies[to] = 0; /* a replaced one keeps its place */
        inos[to] = inos[k];
        inos[k] = 0;
        return;
    case 1:
        if (inos[to]) {
            uint64_t ino = inos[k];
            ck_assert_int_eq(fs_rename(s, &cred, the_dir, name_of(k), the_dir, name_of(to), RENAME_EXCHANGE), 0);
            inos[k] = inos[to];
            inos[to] = ino;
        }
        return;
    default:
        ck_assert_int_eq(fs_unlink(s, the_dir, name_of(k)), 0);
        inos[k] = 0;
    }
}

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    fixture_setup();
    the_dir = make_dir(ROOT, "d");
}

START_TEST(any_history_of_names_lists_as_it_is)
{
    for (unsigned round = 0; round < 60; round++) {
        unsigned live = dice(2) ? dice(NAMES) : dice(12); /* crowded, or nearly empty */
        for (unsigned i = 0; i < 1500; i++)
            change(live);
        list_from(0);
        for (unsigned i = 0; i < 5; i++)
            list_from(cookies[dice(NAMES)]);
        if (dice(8) == 0)
            for (unsigned k = 0; k < NAMES; k++) /* all of them: gaps close, the first name moves to the end */
                if (inos[k]) {
                    ck_assert_int_eq(fs_unlink(s, the_dir, name_of(k)), 0);
                    inos[k] = 0;
                }
        if (dice(5) == 0)
            fixture_reopen();
        else if (dice(5) == 0)
            fixture_crash();
        list_from(0);
    }
    for (unsigned k = 0; k < NAMES; k++)
        if (inos[k])
            ck_assert_int_eq(fs_unlink(s, the_dir, name_of(k)), 0);
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), 0);
    ck_assert_uint_eq(files_in_use(), 1);
}
END_TEST

/* ---- what it costs -------------------------------------------------------------------------------------- */

static struct store_stats stats(void)
{
    struct store_stats now;

    store_stats(fs_store(fs), &now);
    return now;
}

static int count_one(void *ctx, const struct store_item *item)
{
    ++*(unsigned *)ctx;
    return *(const uint8_t *)item->key == 'I' || strchr("SNO", *(const uint8_t *)item->key) ? 0 : -EEXIST;
}

START_TEST(nothing_is_left_of_a_directory)
{
    unsigned order[NAMES], records = 0;
    struct store_session *session;

    for (unsigned round = 0; round < 6; round++) {
        unsigned names = dice(NAMES);
        for (unsigned k = 0; k < names; k++) {
            inos[k] = make_file(the_dir, name_of(k));
            unsigned other = dice(k + 1);
            order[k] = order[other];
            order[other] = k;
        }
        for (unsigned i = 0; i < names; i++)
            ck_assert_int_eq(fs_unlink(s, the_dir, name_of(order[i])), 0);
    }
    ck_assert_int_eq(fs_rmdir(s, ROOT, "d"), 0);
    ck_assert_int_eq(store_session_open(fs_store(fs), &session), 0);
    ck_assert_int_eq(store_scan(session, count_one, &records), 0);
    store_session_close(session);
}
END_TEST

static int count_entry(void *ctx, const struct fs_dirent *e)
{
    if (e->attr)
        fs_forget(s, e->ino, 1);
    ++*(unsigned *)ctx;
    return 0;
}

START_TEST(a_cold_directory_of_a_thousand_is_listed_by_few_reads)
{
    enum { MANY = 1000 };
    static uint8_t other[1 << 20];
    char name[32];
    unsigned seen = 0;

    for (unsigned i = 0; i < MANY; i++) {
        sprintf(name, "a name of some length %u", i);
        (void)make_file(the_dir, name);
    }
    uint64_t f = make_file(ROOT, "f");
    for (unsigned i = 0; i < 4; i++) /* memory forgets */
        ck_assert_int_eq(fs_write(s, f, other, sizeof other, i * sizeof other, 0), sizeof other);
    fixture_reopen();
    struct store_stats before = stats();
    ck_assert_int_eq(fs_readdir(s, the_dir, 0, false, count_entry, &seen), 0);
    struct store_stats after = stats();
    ck_assert_uint_eq(seen, MANY + 2);
    printf("%llu device reads, %llu KiB\n", (unsigned long long)(after.reads_device - before.reads_device),
           (unsigned long long)(after.bytes_read - before.bytes_read) >> 10);
    ck_assert_uint_le(after.reads_device - before.reads_device, MANY / 64 + 8 + 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("listing");
    TCase *tests = tcase_create("listing");

    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, any_history_of_names_lists_as_it_is);
    tcase_add_test(tests, nothing_is_left_of_a_directory);
    tcase_add_test(tests, a_cold_directory_of_a_thousand_is_listed_by_few_reads);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
