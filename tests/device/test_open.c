// SPDX-License-Identifier: MIT
/* Opening a directory: its lock, making it, and what is refused. */
#include "device/backends.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static char base[128];

static void setup(void)
{
    snprintf(base, sizeof(base), "%s/fasterfs-open.XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(base));
}

static void teardown(void)
{
    ck_assert_int_eq(rmdir(base), 0);
}

static int open_base(bool read_only, unsigned wait_ms, struct device **ret_device)
{
    struct device_options options = {.read_only = read_only, .lock_wait_ms = wait_ms};
    return device_open(base, &options, ret_device);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

START_TEST(a_second_open_is_busy_until_the_first_closes)
{
    struct device *first, *second = NULL;
    ck_assert_int_eq(open_base(false, 0, &first), 0);
    ck_assert_int_eq(open_base(false, 0, &second), -EBUSY);
    ck_assert_int_eq(open_base(true, 0, &second), -EBUSY);
    ck_assert_ptr_null(second);
    pid_t child = fork();
    if (child == 0)
        _exit(open_base(false, 0, &second) == -EBUSY ? 0 : 1);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    device_close(first);
    ck_assert_int_eq(open_base(false, 0, &second), 0);
    device_close(second);
}
END_TEST

START_TEST(readers_share_and_keep_a_writer_out)
{
    struct device *first, *second, *third;
    ck_assert_int_eq(open_base(true, 0, &first), 0);
    ck_assert_int_eq(open_base(true, 0, &second), 0);
    ck_assert_int_eq(open_base(false, 0, &third), -EBUSY);
    device_close(first);
    ck_assert_int_eq(open_base(false, 0, &third), -EBUSY);
    device_close(second);
    ck_assert_int_eq(open_base(false, 0, &third), 0);
    device_close(third);
}
END_TEST

static void *close_soon(void *arg)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    device_close(arg);
    return NULL;
}

START_TEST(waiting_for_the_lock_works_and_has_an_end)
{
    struct device *first, *second;
    ck_assert_int_eq(open_base(false, 0, &first), 0);
    double start = now_s();
    ck_assert_int_eq(open_base(false, 100, &second), -EBUSY);
    ck_assert(now_s() - start >= 0.1);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, close_soon, first), 0);
    ck_assert_int_eq(open_base(false, 30000, &second), 0);
    pthread_join(thread, NULL);
    device_close(second);
}
END_TEST

START_TEST(the_directory_is_made_for_its_owner_only)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/new", base);
    struct device_options options = {.create = false};
    struct device *device;
    ck_assert_int_eq(device_open(path, &options, &device), -ENOENT);
    options.create = true;
    ck_assert_int_eq(device_open(path, &options, &device), 0);
    device_file_close(device, file_create(device, "a"));
    char file[220];
    snprintf(file, sizeof(file), "%s/a", path);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    ck_assert_int_eq(stat(file, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    ck_assert_int_eq(device_file_remove(device, "a"), 0);
    device_close(device);
    ck_assert_int_eq(device_open(path, &options, &device), 0); /* made already */
    device_close(device);
    ck_assert_int_eq(rmdir(path), 0);
    options.read_only = true;
    ck_assert_int_eq(device_open(path, &options, &device), -ENOENT);
    snprintf(path, sizeof(path), "%s/no/new", base);
    options.read_only = false;
    ck_assert_int_eq(device_open(path, &options, &device), -ENOENT);
}
END_TEST

START_TEST(a_path_that_is_a_file_is_refused_and_left_alone)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/file", base);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs("hello", file);
    fclose(file);
    struct device_options options = {.create = true};
    struct device *device;
    ck_assert_int_eq(device_open(path, &options, &device), -ENOTDIR);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 5);
    unlink(path);
}
END_TEST

START_TEST(what_is_no_regular_file_is_not_opened)
{
    char path[200];
    struct device *device;
    ck_assert_int_eq(open_base(false, 0, &device), 0);
    snprintf(path, sizeof(path), "%s/fifo", base);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(device_file_open(device, "fifo", 0), -EINVAL);
    unlink(path);
    ck_assert_int_eq(symlink("/etc/passwd", path), 0);
    ck_assert_int_eq(device_file_open(device, "fifo", 0), -ELOOP);
    unlink(path);
    device_close(device);
}
END_TEST

START_TEST(no_file_takes_the_place_of_stdin)
{
    struct device *device;
    int saved = dup(0);
    close(0);
    ck_assert_int_eq(open_base(false, 0, &device), 0);
    int file = file_create(device, "a");
    ck_assert_int_ge(file, 3);
    ck_assert_int_eq(fcntl(0, F_GETFD), -1);
    ck_assert_int_eq(dup2(saved, 0), 0);
    close(saved);
    device_file_close(device, file);
    ck_assert_int_eq(device_file_remove(device, "a"), 0);
    device_close(device);
}
END_TEST

/* As in a container: the rest of this process has no io_uring. */
static void refuse_io_uring(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(without_io_uring_threads_do_the_work)
{
    refuse_io_uring();
    struct device *device;
    struct device_options options = {.backend = DEVICE_URING};
    ck_assert_int_eq(device_open(base, &options, &device), -EPERM);
    ck_assert_int_eq(open_base(false, 0, &device), 0);
    ck_assert_str_eq(device_backend_name(device), "threads");
    struct device_queue *queue = queue_open(device, 4);
    int file = file_create(device, "a");
    ck_assert_int_eq(block_write(queue, file, 0, 1), BLOCK);
    ck_assert(block_is(queue, file, 0, 1));
    device_file_close(device, file);
    ck_assert_int_eq(device_file_remove(device, "a"), 0);
    device_queue_close(queue);
    device_close(device);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_second_open_is_busy_until_the_first_closes);
    tcase_add_test(tcase, readers_share_and_keep_a_writer_out);
    tcase_add_test(tcase, waiting_for_the_lock_works_and_has_an_end);
    tcase_add_test(tcase, the_directory_is_made_for_its_owner_only);
    tcase_add_test(tcase, a_path_that_is_a_file_is_refused_and_left_alone);
    tcase_add_test(tcase, what_is_no_regular_file_is_not_opened);
    tcase_add_test(tcase, without_io_uring_threads_do_the_work);
    tcase_add_test(tcase, no_file_takes_the_place_of_stdin);
}

int main(void)
{
    return run("open", add);
}
