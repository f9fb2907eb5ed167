// SPDX-License-Identifier: MIT
#include "serve.h"

#include "adapter.h"
#include "commits.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIGNAL_ENDED SIGUSR1 /* to the main thread: a worker saw the end of the session */
#define SIGNAL_WAKE SIGUSR2  /* to a worker: leave read(2) and look */

enum {
    STILL_MS = 2,          /* all threads on the same requests for so long: start another */
    UNMOUNT_WAIT_MS = 3000 /* a signal's unmount waits so long for open files before it cuts them off */
};

enum worker_state { WORKER_FREE, WORKER_RUNNING, WORKER_ENDED };

struct worker {
    struct serve *serve;
    pthread_t thread;
    unsigned index;
    _Atomic int state;      /* FREE -> RUNNING by the minder or serve_run(); -> ENDED by the worker itself */
    _Atomic uint64_t taken; /* requests; written by the worker, read by the minder */
};

struct serve {
    struct adapter adapter;
    struct fuse_session *session;
    char *mountpoint; /* NULL until mounted */
    bool detached;    /* our mount is gone from the tree; what is at the mount point now is somebody else's */
    unsigned threads;
    bool debug;
    pthread_t main;
    pthread_t minder;
    bool minder_runs;
    struct worker workers[SERVE_THREADS_MAX];
    /* Workers inside read(2). Written by workers, read by the minder; relaxed: a hint. */
    _Atomic int idle;
    _Atomic bool minding;  /* the minder is awake; claimed by a worker, dropped by the minder */
    _Atomic bool stopping; /* set once by the main thread */
    sem_t all_busy;
};

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* ---- signals ------------------------------------------------------------------------------------- */

static void end_signals(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGHUP);
    sigaddset(ret_set, SIGNAL_ENDED);
}

static void on_wake(int signal)
{
    (void)signal;
}

void serve_block_signals(void)
{
    sigset_t set;
    end_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction wake = {.sa_handler = on_wake}; /* no SA_RESTART: read(2) is to return */
    sigaction(SIGNAL_WAKE, &wake, NULL);
}

/* ---- workers ------------------------------------------------------------------------------------- */

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    struct serve *serve = worker->serve;
    struct fuse_buf buf = {0}; /* libfuse allocates it once */
    bool over = false;

    while (!fuse_session_exited(serve->session)) {
        atomic_fetch_add_explicit(&serve->idle, 1, memory_order_relaxed);
        int n = fuse_session_receive_buf(serve->session, &buf);
        int idle = atomic_fetch_sub_explicit(&serve->idle, 1, memory_order_relaxed) - 1;
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0) { /* unmounted, or the channel is broken */
            over = true;
            break;
        }
        atomic_fetch_add_explicit(&worker->taken, 1, memory_order_relaxed);
        if (idle == 0 && !atomic_exchange_explicit(&serve->minding, true, memory_order_relaxed))
            sem_post(&serve->all_busy);
        wire_process(serve->session, &buf);
        if (worker->index >= serve->threads &&
            atomic_load_explicit(&serve->idle, memory_order_relaxed) >= (int)serve->threads)
            break; /* one that was started for a rush, and it is over */
    }
    free(buf.mem);
    adapter_leave();
    if (over) {
        fuse_session_exit(serve->session);
        pthread_kill(serve->main, SIGNAL_ENDED);
    }
    atomic_store_explicit(&worker->state, WORKER_ENDED, memory_order_release); /* pairs with the joiner's acquire */
    return NULL;
}

/* adapter_enter() runs on the new thread; the starter waits for its result. */
struct worker_start {
    struct worker *worker;
    sem_t entered;
    int rc;
};

static void *worker_enter(void *arg)
{
    struct worker_start *start = arg;
    struct worker *worker = start->worker;
    int rc = adapter_enter(&worker->serve->adapter);
    start->rc = rc;
    sem_post(&start->entered); /* `start` is gone from here on */
    return rc < 0 ? NULL : worker_run(worker);
}

static int worker_start(struct worker *worker)
{
    struct worker_start start = {.worker = worker};
    sem_init(&start.entered, 0, 0);
    atomic_store_explicit(&worker->state, WORKER_RUNNING, memory_order_relaxed);
    int rc = -pthread_create(&worker->thread, NULL, worker_enter, &start);
    if (rc == 0) {
        while (sem_wait(&start.entered) < 0 && errno == EINTR)
            ;
        rc = start.rc;
        if (rc < 0)
            pthread_join(worker->thread, NULL);
    }
    if (rc < 0)
        atomic_store_explicit(&worker->state, WORKER_FREE, memory_order_relaxed);
    sem_destroy(&start.entered);
    return rc;
}

static bool worker_join_if_ended(struct worker *worker)
{
    if (atomic_load_explicit(&worker->state, memory_order_acquire) != WORKER_ENDED)
        return false;
    pthread_join(worker->thread, NULL);
    atomic_store_explicit(&worker->state, WORKER_FREE, memory_order_relaxed);
    return true;
}

/* ---- the minder: more threads while all of them wait for the disk --------------------------------- */

static uint64_t taken_by_all(struct serve *serve)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SERVE_THREADS_MAX; i++)
        sum += atomic_load_explicit(&serve->workers[i].taken, memory_order_relaxed);
    return sum;
}

static bool all_are_busy(struct serve *serve)
{
    return atomic_load_explicit(&serve->idle, memory_order_relaxed) == 0 &&
           !atomic_load_explicit(&serve->stopping, memory_order_relaxed) && !fuse_session_exited(serve->session);
}

static void *minder_run(void *arg)
{
    struct serve *serve = arg;
    for (;;) {
        while (sem_wait(&serve->all_busy) < 0 && errno == EINTR)
            ;
        if (atomic_load_explicit(&serve->stopping, memory_order_relaxed))
            return NULL;
        uint64_t before = taken_by_all(serve);
        sleep_ms(STILL_MS);
        while (all_are_busy(serve) && taken_by_all(serve) == before) {
            struct worker *worker = NULL;
            for (unsigned i = 0; i < SERVE_THREADS_MAX && !worker; i++) {
                worker_join_if_ended(&serve->workers[i]);
                if (atomic_load_explicit(&serve->workers[i].state, memory_order_relaxed) == WORKER_FREE)
                    worker = &serve->workers[i];
            }
            if (!worker || worker_start(worker) < 0)
                break;
            sleep_ms(STILL_MS);
            before = taken_by_all(serve);
        }
        atomic_store_explicit(&serve->minding, false, memory_order_relaxed);
    }
}

/* ---- one line from libfuse and fusermount3 --------------------------------------------------------- */

static char log_line[256];

static void keep_log(enum fuse_log_level level, const char *format, va_list args)
{
    (void)level;
    vsnprintf(log_line, sizeof(log_line), format, args);
}

/* What libfuse and its helper have to say goes into `ret_message`, not to the terminal. */
struct quiet {
    int saved, pipe[2];
};

static void quiet_begin(struct quiet *quiet)
{
    log_line[0] = '\0';
    quiet->saved = -1;
    fuse_set_log_func(keep_log);
    fflush(stderr);
    if (pipe2(quiet->pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return;
    quiet->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    dup2(quiet->pipe[1], STDERR_FILENO);
    close(quiet->pipe[1]);
}

static void quiet_end(struct quiet *quiet, bool debug, char *ret_message, size_t message_len)
{
    char said[256] = "";
    fflush(stderr);
    if (quiet->saved >= 0) {
        ssize_t n = read(quiet->pipe[0], said, sizeof(said) - 1);
        said[n > 0 ? n : 0] = '\0';
        dup2(quiet->saved, STDERR_FILENO);
        close(quiet->saved);
        close(quiet->pipe[0]);
    }
    const char *line = said[0] ? said : log_line;
    static const char *const prefixes[] = {"fusermount3: ", "fuse: "};
    for (unsigned i = 0; i < 2; i++)
        if (strncmp(line, prefixes[i], strlen(prefixes[i])) == 0)
            line += strlen(prefixes[i]);
    snprintf(ret_message, message_len, "%.*s", (int)strcspn(line, "\n"), line);
    if (debug)
        fuse_set_log_func(NULL);
}

/* ---- session ------------------------------------------------------------------------------------- */

static int add_option(struct fuse_args *args, const char *option)
{
    return fuse_opt_add_arg(args, "-o") < 0 || fuse_opt_add_arg(args, option) < 0 ? -ENOMEM : 0;
}

static int session_args(const struct serve_options *options, struct fuse_args *args)
{
    int rc = fuse_opt_add_arg(args, "fasterfs") < 0 ? -ENOMEM : 0;
    if (rc == 0)
        rc = add_option(args, "subtype=fasterfs,default_permissions");
    if (rc == 0 && options->read_only)
        rc = add_option(args, "ro");
    if (rc == 0 && options->debug)
        rc = add_option(args, "debug");
    if (rc == 0 && options->mount_options && options->mount_options[0])
        rc = add_option(args, options->mount_options);
    if (rc == 0 && options->fsname) {
        char *fsname = NULL, *escaped = NULL;
        if (asprintf(&fsname, "fsname=%s", options->fsname) < 0)
            return -ENOMEM;
        rc = fuse_opt_add_opt_escaped(&escaped, fsname) < 0 ? -ENOMEM : add_option(args, escaped);
        free(escaped);
        free(fsname);
    }
    return rc;
}

int serve_open(struct fs *fs, const struct serve_options *options, struct serve **ret_serve, char *ret_message,
               size_t message_len)
{
    ret_message[0] = '\0';
    struct serve *serve = calloc(1, sizeof(*serve));
    if (!serve)
        return -ENOMEM;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    serve->threads = options->threads ? options->threads : cores <= 2 ? 2 : cores <= 8 ? (unsigned)cores : 8;
    if (serve->threads > SERVE_THREADS_MAX)
        serve->threads = SERVE_THREADS_MAX;
    serve->main = pthread_self();
    serve->adapter.fs = fs;
    serve->adapter.read_only = options->read_only;
    serve->adapter.no_xattr = options->no_xattr;
    serve->debug = options->debug;
    sem_init(&serve->all_busy, 0, 0);
    for (unsigned i = 0; i < SERVE_THREADS_MAX; i++) {
        serve->workers[i].serve = serve;
        serve->workers[i].index = i;
    }
    int rc = commits_open(fs, &serve->adapter.commits);
    if (rc == 0) {
        struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
        struct quiet quiet;
        rc = session_args(options, &args);
        quiet_begin(&quiet);
        if (rc == 0) {
            serve->session = fuse_session_new(&args, &ADAPTER_OPS, sizeof(ADAPTER_OPS), &serve->adapter);
            serve->adapter.session = serve->session;
            rc = serve->session ? 0 : -EINVAL;
        }
        quiet_end(&quiet, options->debug, ret_message, message_len);
        fuse_opt_free_args(&args);
    }
    if (rc < 0) {
        serve_close(serve);
        return rc;
    }
    *ret_serve = serve;
    return 0;
}

static ssize_t channel_read(int fd, void *buf, size_t len, void *userdata)
{
    (void)userdata;
    return read(fd, buf, len);
}

static ssize_t channel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    wire_reply(iov, count);
    return writev(fd, iov, count);
}

int serve_mount(struct serve *serve, const char *mountpoint, char *ret_message, size_t message_len)
{
    char *copy = strdup(mountpoint);
    if (!copy)
        return -ENOMEM;
    struct quiet quiet;
    quiet_begin(&quiet);
    errno = 0;
    int rc = fuse_session_mount(serve->session, mountpoint);
    int error = errno;
    static const struct fuse_custom_io io = {.read = channel_read, .writev = channel_writev};
    if (rc == 0)
        rc = fuse_session_custom_io(serve->session, &io, fuse_session_fd(serve->session));
    quiet_end(&quiet, serve->debug, ret_message, message_len);
    if (rc) {
        free(copy);
        return error ? -error : -EIO;
    }
    serve->mountpoint = copy;
    return 0;
}

/* Detaches the mount, so that nobody new comes in; those inside go on until they close. Runs while the
 * workers serve: writing back mapped pages needs them. */
static void detach(struct serve *serve)
{
    if (!serve->mountpoint)
        return;
    serve->detached = true;
    if (umount2(serve->mountpoint, 0) == 0 || errno == EINVAL || errno == ENOENT)
        return;
    if (errno == EPERM) {
        pid_t pid = fork();
        if (pid == 0) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, STDERR_FILENO);
            execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", serve->mountpoint, (char *)NULL);
            _exit(127);
        }
        if (pid > 0)
            waitpid(pid, NULL, 0);
        return;
    }
    int fd = open(serve->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!syncfs(fd);
        close(fd);
    }
    (void)!umount2(serve->mountpoint, MNT_DETACH);
}

static bool all_joined(struct serve *serve)
{
    bool all = true;
    for (unsigned i = 0; i < SERVE_THREADS_MAX; i++) {
        worker_join_if_ended(&serve->workers[i]);
        all &= atomic_load_explicit(&serve->workers[i].state, memory_order_relaxed) == WORKER_FREE;
    }
    return all;
}

/* Ends minder and workers. A worker inside read(2) is woken by a signal, again and again since one that
 * arrives just before read(2) is lost. */
static void stop_threads(struct serve *serve)
{
    atomic_store_explicit(&serve->stopping, true, memory_order_relaxed);
    if (serve->minder_runs) {
        sem_post(&serve->all_busy);
        pthread_join(serve->minder, NULL); /* from here on nobody else starts or joins workers */
        serve->minder_runs = false;
    }
    fuse_session_exit(serve->session);
    while (!all_joined(serve)) {
        for (unsigned i = 0; i < SERVE_THREADS_MAX; i++)
            if (atomic_load_explicit(&serve->workers[i].state, memory_order_acquire) == WORKER_RUNNING)
                pthread_kill(serve->workers[i].thread, SIGNAL_WAKE);
        sleep_ms(1);
    }
}

int serve_run(struct serve *serve)
{
    sigset_t set;
    end_signals(&set);
    int rc = 0;
    for (unsigned i = 0; i < serve->threads && rc == 0; i++)
        rc = worker_start(&serve->workers[i]);
    if (rc == 0) {
        rc = -pthread_create(&serve->minder, NULL, minder_run, serve);
        serve->minder_runs = rc == 0;
    }
    if (rc == 0) {
        int signal = 0;
        while (!fuse_session_exited(serve->session) && sigwait(&set, &signal) == 0 && signal == SIGNAL_ENDED)
            ;
        if (!fuse_session_exited(serve->session)) {
            detach(serve);
            struct timespec wait = {.tv_sec = UNMOUNT_WAIT_MS / 1000, .tv_nsec = UNMOUNT_WAIT_MS % 1000 * 1000000};
            sigset_t ended;
            sigemptyset(&ended);
            sigaddset(&ended, SIGNAL_ENDED);
            if (!fuse_session_exited(serve->session))
                sigtimedwait(&ended, NULL, &wait);
        }
    }
    stop_threads(serve);
    return rc;
}

/* The kernel has let go of the session: nothing of it is mounted any more, anywhere. */
static bool is_severed(struct serve *serve)
{
    struct pollfd poll_fd = {.fd = fuse_session_fd(serve->session)};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLERR);
}

void serve_close(struct serve *serve)
{
    if (!serve)
        return;
    commits_close(serve->adapter.commits);
    if (serve->session) {
        /* libfuse unmounts by path unless the session is severed. Detached and still in use, that could
         * be somebody else's mount by now; closing the channel is enough then (libfuse
         * does not free its copy of the path in that case; the process ends anyway). */
        if (serve->mountpoint && (!serve->detached || is_severed(serve)))
            fuse_session_unmount(serve->session);
        fuse_session_destroy(serve->session);
    }
    sem_destroy(&serve->all_busy);
    free(serve->mountpoint);
    free(serve);
}
