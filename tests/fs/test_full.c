// SPDX-License-Identifier: MIT
/* A full disk: the error comes at once and to the call that hits it; what was acknowledged stays. */
#include "fixture.h"
#include <time.h>

static struct fs_attr a;

static const char *name_of(unsigned i)
{
    static char name[16];

    sprintf(name, "%u", i);
    return name;
}

static unsigned fill_up(void)
{
    static uint8_t bytes[60000];
    char name[16];
    unsigned made = 0;

    for (;; made++) {
        sprintf(name, "%u", made);
        int rc = fs_mknod(s, &cred, FS_INO_ROOT, name, S_IFREG | 0644, 0, &a);
        if (rc == -ENOSPC)
            break;
        ck_assert_int_eq(rc, 0);
        memset(bytes, (int)made, sizeof bytes);
        ssize_t wrote = fs_write(s, a.ino, bytes, sizeof bytes, 0, 0);
        fs_forget(s, a.ino, 1);
        if (wrote == -ENOSPC)
            break;
        ck_assert_int_eq(wrote, sizeof bytes);
    }
    ck_assert_uint_gt(made, 50);
    return made;
}

static void all_there(unsigned first, unsigned made)
{
    static uint8_t bytes[60001];
    char name[16];

    for (unsigned i = first; i < made; i++) {
        sprintf(name, "%u", i);
        ck_assert_int_eq(fs_lookup(s, FS_INO_ROOT, name, &a), 0);
        ck_assert_int_eq(fs_read(s, a.ino, bytes, sizeof bytes, 0), 60000);
        ck_assert_uint_eq(bytes[0], (uint8_t)i);
        ck_assert_uint_eq(bytes[59999], (uint8_t)i);
        fs_forget(s, a.ino, 1);
    }
}

START_TEST(a_full_disk_can_be_synced_read_deleted_from_and_reopened)
{
    device_memory_limit(device, 16u << 20);
    unsigned made = fill_up();
    all_there(0, made);
    ck_assert_int_eq(fs_sync(fs), 0);
    for (unsigned i = 0; i < 20; i++) {
        char name[16];
        sprintf(name, "%u", i);
        ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, name), 0);
    }
    ck_assert_int_eq(fs_sync(fs), 0);
    fixture_crash();
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "20"), 0);
    ck_assert_int_eq(fs_sync(fs), 0);
    ck_assert_int_eq(fs_lookup(s, FS_INO_ROOT, "0", &a), -ENOENT);
    all_there(21, made);
    fixture_reopen();
    all_there(21, made);
    device_memory_limit(device, 64u << 20); /* somebody made room */
    ck_assert_int_eq(fs_mknod(s, &cred, FS_INO_ROOT, "again", S_IFREG | 0644, 0, &a), 0);
    ck_assert_int_eq(fs_sync(fs), 0);
}
END_TEST

/* Takes even what is left to those who free: as they would, one after the other. */
static void exhaust(void)
{
    static uint8_t bytes[16384];
    struct store_piece piece = {bytes, sizeof bytes};
    struct store_session *direct;

    ck_assert_int_eq(store_session_open(fs_store(fs), &direct), 0);
    for (uint64_t key = UINT64_MAX;; key--) {
        store_unit_begin(direct);
        ck_assert_int_eq(store_unit_upsert(direct, &key, sizeof key, &piece, 1, 0), 0);
        int rc = store_unit_apply(direct, STORE_UNIT_FREES);
        if (rc == -ENOSPC && piece.len == 0)
            break;
        ck_assert(rc == 0 || rc == -ENOSPC);
        if (rc == -ENOSPC)
            piece.len = 0;
    }
    store_session_close(direct);
}

static void reap_without_room(void)
{
    static uint8_t bytes[60000];
    uint64_t ino = keep_file(FS_INO_ROOT, "open");

    (void)make_file(FS_INO_ROOT, "other");
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(fs_write(s, ino, bytes, sizeof bytes, i * 65536, 0), sizeof bytes);
    ck_assert_int_eq(fs_sync(fs), 0);
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "open"), 0);
    uint64_t files = files_in_use();
    device_memory_limit(device, 16u << 20);
    exhaust();
    fs_forget(s, ino, 1);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    ck_assert(files_in_use() == files || background); /* which may have found a little room */
    device_memory_limit(device, 64u << 20);           /* somebody made room */
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "other"), 0);
    for (unsigned tries = 0; files_in_use() > files - 2; tries++) {
        ck_assert_uint_lt(tries, 1000);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

START_TEST(what_was_not_reaped_for_want_of_room_is_reaped_when_there_is_some)
{
    reap_without_room();
    fixture_close();
    device_close(device);
    background = true;
    fixture_setup();
    reap_without_room();
}
END_TEST

/* Each deletion takes some of what was kept for it, and all of them more than there is: it comes back on the way. */
START_TEST(all_small_files_can_be_removed_from_a_full_disk)
{
    unsigned made = 0;
    int rc = 0;

    device_memory_limit(device, 12u << 20);
    for (; rc == 0; made++) {
        rc = fs_mknod(s, &cred, FS_INO_ROOT, name_of(made), S_IFREG | 0644, 0, &a);
        if (rc == 0)
            fs_forget(s, a.ino, 1);
    }
    ck_assert_int_eq(rc, -ENOSPC);
    for (unsigned i = 0; i < made - 1; i++) {
        rc = fs_unlink(s, FS_INO_ROOT, name_of(i));
        ck_assert_msg(rc == 0, "%u of %u: %d", i, made, rc);
        if (i % 16 == 0)
            ck_assert_int_eq(fs_sync(fs), 0);
    }
    ck_assert_int_eq(fs_sync(fs), 0);
    ck_assert_uint_eq(files_in_use(), 1);
    for (unsigned rounds = 0; rounds < 2; rounds++) /* the first may find room for a part only */
        ck_assert_int_eq(store_compact(fs_store(fs), UINT64_MAX), 0);
    fill_up();
}
END_TEST

/* ---- files of 1 KiB to 8 MiB, of which every second one goes -------------------------------------------- */

#define DISK_BYTES (UINT64_C(96) << 20)
#define PIECE_BYTES (1u << 20)
#define FILES_MAX 4096u
#define ROUNDS 3u

struct file {
    uint32_t size; /* 0: not there */
    uint32_t seed;
};

static struct file files[FILES_MAX];
static uint8_t piece[PIECE_BYTES], found[PIECE_BYTES];
static uint64_t dice_state;

static uint32_t dice(uint32_t sides)
{
    dice_state = dice_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(dice_state >> 33) % sides;
}

static void make_piece(uint32_t seed, uint32_t at, uint32_t len)
{
    uint64_t word = ((uint64_t)seed << 32 | at) * UINT64_C(0x9e3779b97f4a7c15) | 1;

    for (uint32_t i = 0; i < len; i += 8, word *= UINT64_C(0xd1342543de82ef95))
        memcpy(piece + i, &word, 8);
}

static uint32_t piece_at(const struct file *file, uint32_t at)
{
    uint32_t len = file->size - at < PIECE_BYTES ? file->size - at : PIECE_BYTES;

    make_piece(file->seed, at, len);
    return len;
}

/* 0, or -ENOSPC and it is not there. */
static int put_file(unsigned i, uint32_t size, bool sync)
{
    struct file file = {.size = size, .seed = dice(UINT32_MAX)};
    int rc = fs_mknod(s, &cred, FS_INO_ROOT, name_of(i), S_IFREG | 0644, 0, &a);

    if (rc < 0)
        return rc;
    for (uint32_t at = 0; at < size && rc == 0; at += PIECE_BYTES) {
        uint32_t len = piece_at(&file, at);
        ssize_t wrote = fs_write(s, a.ino, piece, len, at, 0);
        rc = wrote == len ? 0 : wrote < 0 ? (int)wrote : -ENOSPC;
    }
    fs_forget(s, a.ino, 1);
    if (rc < 0)
        ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, name_of(i)), 0);
    else
        files[i] = file;
    if (rc == 0 && sync)
        ck_assert_int_eq(fs_sync(fs), 0);
    return rc;
}

static void remove_file(unsigned i)
{
    ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, name_of(i)), 0);
    files[i].size = 0;
}

static void check_file(unsigned i)
{
    const struct file *file = &files[i];
    int rc = fs_lookup(s, FS_INO_ROOT, name_of(i), &a);

    ck_assert_int_eq(rc, file->size > 0 ? 0 : -ENOENT);
    if (rc < 0)
        return;
    ck_assert_uint_eq(a.size, file->size);
    for (uint32_t at = 0; at < file->size; at += PIECE_BYTES) {
        uint32_t len = piece_at(file, at);
        ck_assert_int_eq(fs_read(s, a.ino, found, len, at), len);
        ck_assert_msg(memcmp(found, piece, len) == 0, "file %u is not what was written near %u", i, at);
    }
    fs_forget(s, a.ino, 1);
}

static uint64_t bytes_there(void)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < FILES_MAX; i++)
        bytes += files[i].size;
    return bytes;
}

/* New files into the free numbers, in a row, until one does not fit. */
static void fill_with_files(bool sync)
{
    int rc = 0;

    for (unsigned i = 0; i < FILES_MAX && rc == 0; i++)
        if (files[i].size == 0)
            rc = put_file(i, 1024u << dice(14), sync && dice(3) == 0);
    ck_assert_int_eq(rc, -ENOSPC);
}

static void give_up(uint64_t bytes)
{
    struct store_stats stats;

    store_stats(fs_store(fs), &stats);
    ck_abort_msg(
        "for 20 seconds there is no room: %llu KiB of files, and %llu are wanted; log %llu to %llu, of it live %llu, "
        "in memory from %llu, committed to %llu, compacted %llu, moved %llu, compaction %d; free %llu",
        (unsigned long long)bytes_there() >> 10, (unsigned long long)bytes >> 10, (unsigned long long)stats.begin,
        (unsigned long long)stats.tail, (unsigned long long)stats.live_bytes, (unsigned long long)stats.head,
        (unsigned long long)stats.committed, (unsigned long long)stats.compacted_bytes,
        (unsigned long long)stats.moved_bytes, stats.compaction_failed, (unsigned long long)stats.space_free_bytes);
}

/* As somebody does who was told that there is no room, has made some, and tries again. */
static void fill_until(uint64_t bytes, bool sync)
{
    struct timespec pause = {.tv_nsec = 20000000};

    for (unsigned tries = 0; bytes_there() < bytes; tries++) {
        if (tries == 1000)
            give_up(bytes);
        fill_with_files(sync);
        nanosleep(&pause, NULL);
    }
}

static void setup_disk(void)
{
    const char *seed = getenv("FASTERFS_SEED");
    uint64_t first = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);

    printf("FASTERFS_SEED=%llu\n", (unsigned long long)first);
    fflush(stdout); /* a case that fails does not */
    dice_state = first * 1000;
    background = true;
    segment_bytes = 32u << 20;
    log_bytes = 8u << 20;
    fixture_setup();
    device_memory_limit(device, DISK_BYTES);
}

START_TEST(when_every_second_file_is_removed_from_a_full_disk_it_can_be_filled_again)
{
    dice_state += (unsigned)_i;
    bool sync = _i % 2 == 0;

    fill_with_files(sync);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t full = bytes_there();
        for (unsigned i = round % 2, there = 0; i < FILES_MAX; i++)
            if (files[i].size > 0 && there++ % 2 == 0)
                remove_file(i);
        fill_until(full - (full - bytes_there()) / 4 - DISK_BYTES / 32, sync); /* where a pass is barren */
        for (unsigned i = 0; i < FILES_MAX; i++)
            check_file(i);
        if (round % 2 == 0)
            fixture_crash();
        else
            fixture_reopen();
    }
    for (unsigned i = 0; i < FILES_MAX; i++)
        check_file(i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("full");

    TCase *tests = fixture_case("full", fixture_setup, fixture_teardown);
    tcase_add_test(tests, a_full_disk_can_be_synced_read_deleted_from_and_reopened);
    tcase_add_test(tests, what_was_not_reaped_for_want_of_room_is_reaped_when_there_is_some);
    tcase_add_test(tests, all_small_files_can_be_removed_from_a_full_disk);
    suite_add_tcase(suite, tests);
    tests = fixture_case("every second file", setup_disk, fixture_teardown);
    tcase_add_loop_test(tests, when_every_second_file_is_removed_from_a_full_disk_it_can_be_filled_again, 0, 4);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
