// SPDX-License-Identifier: MIT
/*
 * Threads read, write, insert, delete and change a few keys at once, alone and with several operations under way, in a
 * ring so small that these keys wander through every region, while commits, checkpoints, snapshots and compaction go
 * on. For each key there must be one order of all calls that explains what each of them gave.
 *
 * A round ends with all threads, and with a read of each key that belongs to its history. FASTERFS_ROUNDS: how many.
 */
#include "linear.h"
#include "model.h"

#include <pthread.h>
#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ROUNDS 60
#else
#define ROUNDS 600
#endif
#define HOT 4  /* keys */
#define SAME 8 /* rounds with the same ones */
#define THREADS 3
#define EACH 20   /* calls of a thread on a key in a round */
#define AT_ONCE 6 /* of a thread */
#define WORD_LEN_MAX 700

struct pending {
    struct store_read read;
    struct store_rmw_op op;
    struct linear_call *call; /* NULL: free */
    uint8_t value[WORD_LEN_MAX];
    char key[32];
};
struct worker {
    pthread_t thread;
    unsigned number;
    uint64_t dice, round;
    struct store_session *session;
    struct linear_call calls[HOT][EACH];
    unsigned counts[HOT];
    struct pending pending[AT_ONCE];
};

static struct worker workers[THREADS];
static atomic_bool over; /* relaxed: the join orders what matters */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t roll(struct worker *w, uint64_t sides)
{
    w->dice = w->dice * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (w->dice >> 33) % sides;
}

/* ---- words as values: of a length and with bytes that follow from the word ------------------------------------------
 */

static uint32_t len_of(uint64_t word)
{
    return 8 + (uint32_t)(word >> 7) % (word % 4 == 0 ? WORD_LEN_MAX - 8 : 24);
}

static void put_word(uint64_t word, uint8_t *value)
{
    memcpy(value, &word, 8);
    for (uint32_t at = 8, len = len_of(word); at < len; at++)
        value[at] = (uint8_t)(word * 31 + at);
}

static uint64_t word_of(const uint8_t *value, uint32_t len)
{
    uint8_t whole[WORD_LEN_MAX];
    uint64_t word = 0;

    ck_assert_uint_ge(len, 8);
    memcpy(&word, value, 8);
    ck_assert_uint_eq(len, len_of(word));
    put_word(word, whole);
    ck_assert_mem_eq(value, whole, len);
    return word;
}

static uint64_t changed(const void *ctx, const void *old, uint32_t old_len)
{
    uint64_t by, word = 0;

    memcpy(&by, ctx, 8);
    if (old_len != STORE_ABSENT)
        memcpy(&word, old, 8);
    return linear_changed(word, by);
}

static uint32_t changed_size(const void *ctx, const void *old, uint32_t old_len, uint32_t *capacity)
{
    uint64_t word = changed(ctx, old, old_len);

    *capacity = word % 3 == 0 ? 200 : 0;
    return len_of(word);
}

static void write_changed(const void *ctx, const void *old, uint32_t old_len, void *value, uint32_t new_len)
{
    (void)new_len;
    put_word(changed(ctx, old, old_len), value);
}

static const struct store_rmw CHANGE = {changed_size, write_changed};

/* ---- calls
 * ------------------------------------------------------------------------------------------------------------ */

static uint32_t hot_key(char key[32], uint64_t round, unsigned hot)
{
    return (uint32_t)sprintf(key, "hot-%u-%llu", hot, (unsigned long long)round / SAME); /* now and then new ones */
}

static void end_read(struct linear_call *call, const struct store_read *read)
{
    call->end = now_ns();
    ck_assert_msg(read->result == STORE_OK || read->result == STORE_NOT_FOUND, "a read: %d", read->result);
    call->word = read->result == STORE_OK ? word_of(read->buf, read->value_len) : 0;
}

static void read_done(struct store_read *read)
{
    struct pending *p = (struct pending *)((char *)read - offsetof(struct pending, read));

    end_read(p->call, read);
    p->call = NULL;
}

static void change_done(struct store_rmw_op *op)
{
    struct pending *p = (struct pending *)((char *)op - offsetof(struct pending, op));

    p->call->end = now_ns();
    ck_assert_int_eq(op->result, STORE_OK);
    p->call = NULL;
}

static struct pending *free_pending(struct worker *w)
{
    for (;;) {
        for (unsigned i = 0; i < AT_ONCE; i++)
            if (!w->pending[i].call)
                return &w->pending[i];
        (void)store_complete_some(w->session);
    }
}

/* Reads and changes that may still be under way when it returns. */
static void start(struct worker *w, unsigned hot, struct linear_call *call)
{
    struct pending *p = free_pending(w);
    uint32_t key_len = hot_key(p->key, w->round, hot);

    p->call = call;
    call->begin = now_ns();
    if (call->kind == LINEAR_READ) {
        p->read = (struct store_read){.key = p->key,
                                      .key_len = key_len,
                                      .buf = p->value,
                                      .buf_len = sizeof p->value,
                                      .value_hint = (uint32_t)roll(w, 400),
                                      .done = read_done};
        if ((p->read.result = store_read(w->session, &p->read)) != STORE_PENDING)
            read_done(&p->read);
    } else {
        p->op = (struct store_rmw_op){
            .key = p->key, .key_len = key_len, .rmw = &CHANGE, .ctx = &call->word, .done = change_done};
        if ((p->op.result = store_rmw_start(w->session, &p->op)) != STORE_PENDING)
            change_done(&p->op);
    }
}

static void call_and_wait(struct worker *w, unsigned hot, struct linear_call *call)
{
    uint8_t value[WORD_LEN_MAX];
    char key[32];
    uint32_t key_len = hot_key(key, w->round, hot);
    struct store_read read = {.key = key, .key_len = key_len, .buf = value, .buf_len = sizeof value};
    int rc = 0;

    put_word(call->word, value);
    call->begin = now_ns();
    if (call->kind == LINEAR_READ) {
        read.result = store_read_wait(w->session, &read);
        end_read(call, &read);
    } else if (call->kind == LINEAR_PUT) {
        rc = store_upsert(w->session, key, key_len, value, len_of(call->word));
    } else if (call->kind == LINEAR_INSERT) {
        rc = store_insert(w->session, key, key_len, value, len_of(call->word));
        call->refused = rc == STORE_EXISTS;
        rc = call->refused ? 0 : rc;
    } else if (call->kind == LINEAR_DELETE) {
        rc = store_delete(w->session, key, key_len);
    } else {
        rc = store_rmw(w->session, key, key_len, &CHANGE, &call->word);
    }
    if (call->kind != LINEAR_READ)
        call->end = now_ns();
    ck_assert_int_eq(rc, 0);
}

/* Pushes what is hot out of memory. */
static void fill_up(struct worker *w)
{
    static const uint8_t zeros[6000];
    char key[32];
    uint32_t key_len = (uint32_t)sprintf(key, "fill-%u-%u", w->number, (unsigned)roll(w, 300));

    if (roll(w, 8) == 0)
        ck_assert_int_eq(store_delete(w->session, key, key_len), 0);
    else
        ck_assert_int_eq(store_upsert(w->session, key, key_len, zeros, (uint32_t)roll(w, sizeof zeros)), 0);
}

static void *work(void *arg)
{
    struct worker *w = arg;

    ck_assert_int_eq(store_session_open(store, &w->session), 0);
    memset(w->counts, 0, sizeof w->counts);
    for (unsigned n = 0; n < HOT * EACH; n++) {
        unsigned hot = (unsigned)roll(w, HOT);
        while (w->counts[hot] == EACH)
            hot = (hot + 1) % HOT;
        struct linear_call *call = &w->calls[hot][w->counts[hot]++];
        static const enum linear_kind kinds[] = {LINEAR_READ,   LINEAR_READ,   LINEAR_READ,   LINEAR_PUT,   LINEAR_PUT,
                                                 LINEAR_DELETE, LINEAR_INSERT, LINEAR_CHANGE, LINEAR_CHANGE};
        *call = (struct linear_call){.kind = kinds[roll(w, sizeof kinds / sizeof kinds[0])]};
        if (call->kind == LINEAR_PUT || call->kind == LINEAR_INSERT || call->kind == LINEAR_CHANGE)
            call->word = linear_changed(w->dice, n);
        if ((call->kind == LINEAR_READ || call->kind == LINEAR_CHANGE) && roll(w, 2))
            start(w, hot, call);
        else
            call_and_wait(w, hot, call);
        if (roll(w, 2))
            fill_up(w);
    }
    ck_assert_uint_eq(store_complete_pending(w->session, true), 0);
    store_session_close(w->session);
    return NULL;
}

/* ---- beside them
 * -------------------------------------------------------------------------------------------------------- */

static void *keep_busy(void *arg)
{
    struct worker keeper = {.dice = *(uint64_t *)arg};
    uint64_t snapshot = 0;

    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        switch (roll(&keeper, 6)) {
        case 0:
            ck_assert_int_eq(store_checkpoint(store), 0);
            break;
        case 1:
            if (snapshot)
                ck_assert_int_eq(store_snapshot_delete(store, snapshot), 0);
            ck_assert_int_eq(store_snapshot_create(store, "one", 1, &snapshot), 0);
            break;
        case 2:
            ck_assert_int_eq(store_commit(store), 0);
            break;
        default:
            ck_assert_int_eq(store_compact(store, roll(&keeper, 1 << 20)), 0);
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)roll(&keeper, 1000000)}, NULL);
    }
    return NULL;
}

/* The history of a key in a round, with a last read; returns what that found. */
static uint64_t check_key(unsigned hot, uint64_t round, uint64_t first)
{
    struct linear_call calls[LINEAR_MAX];
    struct worker *one = &workers[0];
    unsigned count = 0;

    for (unsigned t = 0; t < THREADS; t++)
        for (unsigned i = 0; i < EACH; i++)
            calls[count++] = workers[t].calls[hot][i];
    calls[count] = (struct linear_call){.kind = LINEAR_READ};
    one->session = session;
    call_and_wait(one, hot, &calls[count++]);
    if (!linear_check(calls, count, first)) {
        linear_print(calls, count, first);
        ck_abort_msg("no order of these calls explains key %u of round %llu", hot, (unsigned long long)round);
    }
    return calls[count - 1].word;
}

START_TEST(each_key_has_one_order_of_all_calls_on_it)
{
    const char *given = getenv("FASTERFS_ROUNDS");
    uint64_t rounds = given ? strtoull(given, NULL, 0) : ROUNDS, keeper_seed = dice(UINT32_MAX), words[HOT] = {0};
    pthread_t keeper;
    struct store_stats stats;

    ck_assert_int_eq(pthread_create(&keeper, NULL, keep_busy, &keeper_seed), 0);
    for (uint64_t round = 0; round < rounds; round++) {
        for (unsigned t = 0; t < THREADS; t++) {
            workers[t].number = t;
            workers[t].round = round;
            workers[t].dice = dice(UINT32_MAX);
            ck_assert_int_eq(pthread_create(&workers[t].thread, NULL, work, &workers[t]), 0);
        }
        for (unsigned t = 0; t < THREADS; t++)
            pthread_join(workers[t].thread, NULL);
        for (unsigned hot = 0; hot < HOT; hot++)
            words[hot] = check_key(hot, round, round % SAME == 0 ? 0 : words[hot]);
    }
    atomic_store_explicit(&over, true, memory_order_relaxed);
    pthread_join(keeper, NULL);
    store_stats(store, &stats);
    ck_assert_uint_gt(stats.reads_device, rounds); /* they were in every region */
    ck_assert_uint_gt(stats.moved_bytes, 0);
}
END_TEST

/* ---- what tells right from wrong
 * ------------------------------------------------------------------------------------------ */

START_TEST(a_history_that_has_an_order_is_told_from_one_that_has_none)
{
    struct linear_call calls[] = {
        {.kind = LINEAR_PUT, .word = 1, .begin = 0, .end = 10},
        {.kind = LINEAR_CHANGE, .word = 5, .begin = 5, .end = 20},
        {.kind = LINEAR_READ, .word = linear_changed(1, 5), .begin = 15, .end = 30},
        {.kind = LINEAR_DELETE, .begin = 25, .end = 50},
        {.kind = LINEAR_INSERT, .word = 9, .begin = 35, .end = 40},
        {.kind = LINEAR_READ, .word = 9, .begin = 60, .end = 70},
    };
    unsigned count = sizeof calls / sizeof calls[0];

    ck_assert(linear_check(calls, count, 7));
    calls[4].refused = true; /* then the deletion came last */
    ck_assert(!linear_check(calls, count, 7));
    calls[5].word = 0;
    ck_assert(linear_check(calls, count, 7));
    calls[2].word = 1; /* the change came after that read: both overlap */
    ck_assert(linear_check(calls, count, 7));
    calls[1].begin = 11, calls[1].end = 14; /* between the put and the read: it is lost */
    ck_assert(!linear_check(calls, count, 7));
    calls[2].word = linear_changed(7, 5); /* the put is lost */
    ck_assert(!linear_check(calls, count, 7));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("linear");
    TCase *checker = tcase_create("checker"), *tests = tcase_create("store");

    tcase_add_test(checker, a_history_that_has_an_order_is_told_from_one_that_has_none);
    suite_add_tcase(suite, checker);
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, each_key_has_one_order_of_all_calls_on_it, 0, 2);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
