// SPDX-License-Identifier: MIT
/*
 * device: asynchronous positioned I/O on the files of one directory. It knows bytes only.
 *
 * Every byte that a store reads or writes goes through this interface, names and syncs included, so
 * that a wrapper (fault, record) sees all of it and one seed can replay a run.
 *
 * Two levels:
 *   struct device      the files of a directory: open, allocate, sync, rename, remove, list, and
 *                      reads and writes submitted to a queue (device.h, this file);
 *   struct device_log  one address space of 2^48 bytes kept in segment files of equal size, from
 *                      whose front whole segments are removed (device/log.h).
 *
 * Threads: a device may be used from any number of threads. A queue belongs to one thread at a time.
 * Returns: 0 or a positive outcome; a negative value is -errno and nothing changed.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_NODISCARD __attribute__((warn_unused_result))

/* Reads and writes are made of whole blocks at block offsets from block-aligned memory. 4 KiB suits
 * every disk that asks for less; device_open() refuses a directory whose O_DIRECT asks for more. */
#define DEVICE_BLOCK_BYTES 4096u

/* Longest file name inside a device, without the terminating NUL. */
#define DEVICE_NAME_MAX 63

struct device;
struct device_queue;

/* Is a result that there is no room, of the disk or of a quota: an error that passes? */
static inline bool device_is_full(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

enum device_op { DEVICE_READ, DEVICE_WRITE };

/*
 * One read or write. The caller owns it and the buffer, and keeps both in place from device_submit()
 * until `done` was called. `done` runs inside device_poll() on the thread that polls the queue, never
 * inside device_submit(); it may submit again.
 */
struct device_io {
    enum device_op op;
    int file;        /* from device_file_open() */
    uint64_t offset; /* bytes, multiple of DEVICE_BLOCK_BYTES */
    void *buf;       /* aligned to DEVICE_BLOCK_BYTES */
    uint32_t len;    /* bytes, multiple of DEVICE_BLOCK_BYTES, not 0, at most 1 GiB */
    /* Bytes transferred, or -errno. Short transfers, EINTR and EAGAIN are continued inside; a read has
     * fewer bytes than asked only where the file ends, a write never. */
    int64_t result;
    void (*done)(struct device_io *io);
    struct {
        struct device_queue *queue;
        struct device_io *next;
        uint32_t moved;                              /* bytes transferred so far */
        int refused;                                 /* the result, if it never began */
        void (*ended)(void *ctx, enum device_op op); /* called before `done`; NULL: nobody */
        void *ctx;
    } priv; /* the device's own */
};

/* How a device does its I/O. `uring` falls back to `threads` where io_uring is refused. */
enum device_backend { DEVICE_AUTO, DEVICE_URING, DEVICE_THREADS };

struct device_options {
    enum device_backend backend; /* DEVICE_AUTO: uring if the kernel lets us, else threads */
    bool create;                 /* make the directory if it is absent (its parent must exist) and not read_only */
    bool read_only;              /* open files for reading; writes and changes of names give -EROFS */
    unsigned lock_wait_ms;       /* how long to wait for another process's lock before -EBUSY */
};

/*
 * Opens the directory `path` and takes its lock (flock(2) on the directory itself, so nothing is written
 * to a directory that turns out to be something else; shared if read_only). The caller frees the device
 * with device_close(). Raises the process's soft limit of open files to the hard one. Errors: -EBUSY:
 * somebody holds the lock, this process included; -EOPNOTSUPP: O_DIRECT there asks for blocks larger than
 * DEVICE_BLOCK_BYTES; -ENOTDIR, -ENOENT, -EACCES, -EROFS, -ENOSPC as of open(2). With DEVICE_URING:
 * -ENOSYS or -EPERM if the kernel refuses io_uring.
 */
DEVICE_NODISCARD int device_open(const char *path, const struct device_options *options, struct device **ret_device);

/* A device in memory, for tests and benchmarks. What was written and not synced survives close only if
 * the device object does: device_memory_crash() in device/memory.h drops it. */
DEVICE_NODISCARD int device_memory_open(struct device **ret_device);

/* Frees the device; every queue and file of it must be closed. NULL does nothing. */
void device_close(struct device *device);

/* "uring", "threads", "memory": which backend was chosen. Constant, valid until device_close(). */
const char *device_backend_name(const struct device *device);

/* Is a block that was written once written again where it is, for no more space, and synced without a change of
 * metadata? So it is on ext4 and xfs; a filesystem that copies on write puts it elsewhere. Constant. */
bool device_is_in_place(const struct device *device);

/* Opens a file for reading and writing; DEVICE_FILE_CREATE makes it if absent. Returns a file number >= 0
 * or -errno (-EINVAL: a name that is empty, too long, has a slash or is a dot or two, or no regular file).
 * O_DIRECT is used where the filesystem has it, but with DEVICE_FILE_CACHED, for device_file_read(). Close a file when
 * no transfer of it is in flight. */
enum { DEVICE_FILE_CREATE = 1, DEVICE_FILE_TRUNCATE = 2, DEVICE_FILE_CACHED = 4 };
DEVICE_NODISCARD int device_file_open(struct device *device, const char *name, unsigned flags);
void device_file_close(struct device *device, int file);

/* Size in bytes, or -errno. */
DEVICE_NODISCARD int64_t device_file_size(struct device *device, int file);

/* Reads at once, any bytes, through the page cache, of a file that was opened with DEVICE_FILE_CACHED: for small pieces
 * that are wanted again. Returns 0 when all of them are there, -EIO if they are not, or the file ends before. Any
 * thread. */
DEVICE_NODISCARD int device_file_read(struct device *device, int file, uint64_t offset, void *buf, uint32_t len);

/* Makes sure that writes to [offset, offset+len) cannot fail for want of space, and extends the file to
 * offset+len (new bytes read as zero). -ENOSPC: nothing was promised, but the file may be longer than
 * it was. Filesystems without fallocate(2) get a plain extension: the promise is then only as good as
 * theirs. */
DEVICE_NODISCARD int device_file_allocate(struct device *device, int file, uint64_t offset, uint64_t len);

/* Gives back the disk space of [offset, offset+len), whole blocks inside of the file, whose length stays. What
 * is read there afterwards, and after a crash, is what was or zeros. -EOPNOTSUPP where the filesystem cannot. */
DEVICE_NODISCARD int device_file_punch(struct device *device, int file, uint64_t offset, uint64_t len);

/* Returns when all writes to the file that completed before the call are on stable media. */
DEVICE_NODISCARD int device_file_sync(struct device *device, int file);

/* Name operations; durable only after device_sync_names(). rename replaces `to`. */
DEVICE_NODISCARD int device_file_rename(struct device *device, const char *from, const char *to);
DEVICE_NODISCARD int device_file_remove(struct device *device, const char *name);
DEVICE_NODISCARD int device_sync_names(struct device *device);

/* Calls `each` for every name in the directory (subdirectories and names of any length too, whoever made
 * them), in no order; stops and returns its value if not 0. */
DEVICE_NODISCARD int device_list(struct device *device, int (*each)(void *ctx, const char *name), void *ctx);

/* Maps a whole file for reading; the pages stay valid until device_unmap(). Whether later writes are seen
 * is not said (memory: no). A page that the disk cannot read ends the program (SIGBUS): for tests. The address is
 * aligned to DEVICE_BLOCK_BYTES unless the length is 0. */
DEVICE_NODISCARD int device_map(struct device *device, int file, const void **ret_bytes, uint64_t *ret_len);
void device_unmap(struct device *device, const void *bytes, uint64_t len);

/* Space of the filesystem underneath, in bytes. */
struct device_space {
    uint64_t total_bytes;
    uint64_t free_bytes; /* what an ordinary user may still take */
};
DEVICE_NODISCARD int device_space(struct device *device, struct device_space *ret_space);

/* A queue of at most `depth` (1 to 4096) transfers in flight. More may be submitted: they wait inside.
 * Close only when device_queue_pending() is 0. */
DEVICE_NODISCARD int device_queue_open(struct device *device, unsigned depth, struct device_queue **ret_queue);
void device_queue_close(struct device_queue *queue);

/* Starts a transfer. Never blocks on the disk, never calls `done`. Bad arguments are an assertion;
 * anything that goes wrong arrives as io->result. */
void device_submit(struct device_queue *queue, struct device_io *io);

/* device_submit(), but it may stay unsent until the next device_poll() or device_submit() of the queue: transfers that
 * are given one by one then reach the kernel together. */
void device_submit_later(struct device_queue *queue, struct device_io *io);

/* Calls `done` for what has completed; with `wait`, sleeps until at least one has (if any is in
 * flight). Returns how many were called. `done` does not poll its own queue. */
unsigned device_poll(struct device_queue *queue, bool wait);

/* Submitted and not yet done. */
unsigned device_queue_pending(const struct device_queue *queue);

/* One transfer, start to end, on the caller's queue (which must be idle). Returns bytes or -errno. */
DEVICE_NODISCARD int64_t device_transfer(struct device_queue *queue, enum device_op op, int file, uint64_t offset,
                                         void *buf, uint32_t len);

#endif
