// SPDX-License-Identifier: MIT
/*
 * fs: a POSIX filesystem on a store, without FUSE: the mount, the command line, tests and fuzzers all
 * call these functions.
 *
 * Semantics are those of the POSIX and Linux calls of the same name; permission checks are not made
 * here (a mount lets the kernel make them, with default_permissions). Every call is one unit of the
 * store: after a crash it has happened whole or not at all, and no call is there without those that
 * were acknowledged before it. fs_sync() makes everything acknowledged so far durable.
 *
 * Inode numbers: 1 is the root; numbers are never reused while a store lives. Numbers with any of the
 * top 16 bits set belong to `.snapshots` (FS_INO_SNAPSHOTS) and to what is inside of it.
 *
 * References: a call that hands out an inode by name (fs_lookup, fs_mknod, fs_mkdir, fs_symlink,
 * fs_link, and fs_readdir with attributes, but not for "." and "..") takes one reference on it. An
 * inode whose last name is gone stays usable until fs_forget() has given all of them back. What was
 * unlinked and still referenced when the daemon died is removed at the next open.
 *
 * Threads: a session belongs to one thread at a time; any number of sessions.
 * Returns: 0 or a count; negative is -errno and nothing changed. -EIO: data on the device is damaged
 * or the device fails; -ENOSPC: full; -EROFS: read-only store or inside a snapshot.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include <device/device.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <store/store.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#define FS_NODISCARD __attribute__((warn_unused_result))

#define FS_INO_ROOT ((uint64_t)1)
#define FS_INO_SNAPSHOTS ((uint64_t)0xffff000000000001)
#define FS_NAME_MAX 255u
#define FS_SYMLINK_MAX 4095u
#define FS_SNAPSHOTS_NAME ".snapshots"
#define FS_LINK_MAX 65000u
#define FS_SIZE_MAX ((int64_t)1 << 46) /* 64 TiB */
#define FS_XATTR_VALUE_MAX 65536u      /* bytes; names as FS_NAME_MAX; all of a file's names: 60 KiB */

struct fs;
struct fs_session;

enum fs_atime {
    FS_ATIME_RELATIVE, /* if it is not after mtime and ctime, or a day old */
    FS_ATIME_NEVER,
    FS_ATIME_ALWAYS
};

struct fs_options {
    struct store_options store;
    /* The log may grow to so many bytes; then -ENOSPC. 0: as far as the disk allows. */
    uint64_t size_bytes;
    enum fs_atime atime; /* what fs_accessed() does */
    /* Owner of the root directory of a store that is created; its mode is 0755. */
    uid_t root_uid;
    gid_t root_gid;
    /* The time for timestamps; NULL: clock_gettime(CLOCK_REALTIME). */
    void (*now)(void *ctx, struct timespec *ret_now);
    void *now_ctx;
};

/* Opens the filesystem in `device`, or creates one in an empty device. On failure ret_opened->message
 * says cause and next step. Errors as store_open(). */
FS_NODISCARD int fs_open(struct device *device, const struct fs_options *options, struct fs **ret_fs,
                         struct store_opened *ret_opened);
/* Commits and frees. All sessions closed before. Returns 0 if everything acknowledged is durable. */
int fs_close(struct fs *fs);
/* As after a kill -9, for tests: frees, writes nothing. */
void fs_abandon(struct fs *fs);

FS_NODISCARD int fs_session_open(struct fs *fs, struct fs_session **ret_session);
void fs_session_close(struct fs_session *session);

/* Who asks: owner of what is created. */
struct fs_cred {
    uid_t uid;
    gid_t gid;
    mode_t umask; /* bits taken away from the mode of what is created */
};

struct fs_attr {
    uint64_t ino;
    uint64_t generation;
    uint64_t size;    /* bytes */
    uint64_t blocks;  /* of 512 bytes */
    mode_t mode;
    uint32_t nlink;
    uid_t uid;
    gid_t gid;
    dev_t rdev;
    uint32_t flags; /* FS_FLAG_* */
    struct timespec atime, mtime, ctime, btime;
};

/* As chattr(1) sets them, in the bits of FS_IOC_SETFLAGS. Every call that changes an inode keeps to the first two
 * with -EPERM; who may set them is for the caller to know. */
enum {
    FS_FLAG_IMMUTABLE = 0x10, /* nothing of it changes: contents, attributes, names in it, its own names */
    FS_FLAG_APPEND = 0x20,    /* the same, but a file grows at its end, and a directory takes new names */
    FS_FLAG_NODUMP = 0x40,    /* only kept */
    FS_FLAG_NOATIME = 0x80,   /* fs_accessed() does nothing */
    FS_FLAGS = 0xf0
};

/* ---- names: `name` is NUL-terminated; more than FS_NAME_MAX bytes give -ENAMETOOLONG ------------- */

/* "." finds the inode `parent` itself, a directory or not; ".." a directory's parent. */
FS_NODISCARD int fs_lookup(struct fs_session *s, uint64_t parent, const char *name, struct fs_attr *ret_attr);
/* Regular files, fifos, sockets and device nodes: type in `mode`. */
FS_NODISCARD int fs_mknod(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name,
                          mode_t mode, dev_t rdev, struct fs_attr *ret_attr);
/* In FS_INO_SNAPSHOTS: takes a snapshot with that name, durable on return. */
FS_NODISCARD int fs_mkdir(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name,
                          mode_t mode, struct fs_attr *ret_attr);
FS_NODISCARD int fs_symlink(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name,
                            const char *target, struct fs_attr *ret_attr);
FS_NODISCARD int fs_link(struct fs_session *s, uint64_t ino, uint64_t parent, const char *name,
                         struct fs_attr *ret_attr);
/* A regular file without a name in the directory's filesystem, referenced; fs_link() can name it, once. */
FS_NODISCARD int fs_tmpfile(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, mode_t mode,
                            struct fs_attr *ret_attr);
FS_NODISCARD int fs_unlink(struct fs_session *s, uint64_t parent, const char *name);
/* In FS_INO_SNAPSHOTS: drops the snapshot; -EBUSY while something inside is referenced. */
FS_NODISCARD int fs_rmdir(struct fs_session *s, uint64_t parent, const char *name);
/* flags: 0, RENAME_NOREPLACE, RENAME_EXCHANGE, or RENAME_WHITEOUT (a device node 0, 0 of `cred` takes the old
 * name), alone or with RENAME_NOREPLACE; others give -EINVAL. */
FS_NODISCARD int fs_rename(struct fs_session *s, const struct fs_cred *cred, uint64_t parent, const char *name,
                           uint64_t new_parent, const char *new_name, unsigned flags);
/* Length of the target, of which at most `len` bytes are copied; no NUL. */
FS_NODISCARD int fs_readlink(struct fs_session *s, uint64_t ino, char *buf, size_t len);

/* ---- directories --------------------------------------------------------------------------------- */

struct fs_dirent {
    const char *name; /* NUL-terminated; valid during the call */
    size_t name_len;
    uint64_t ino;
    mode_t type;      /* S_IFMT bits */
    uint64_t cookie;  /* pass it to fs_readdir() to go on after this entry */
    const struct fs_attr *attr; /* if asked for; NULL for ".", "..", and where the inode is damaged */
};
/*
 * Calls `fill` for the entries after `cookie` (0: from the start), "." and ".." first, until it returns
 * non-zero (that entry then counts as not handed out) or the directory ends. Cookies stay valid for
 * the life of an entry, through replacement of its inode by rename: an entry that is there throughout is seen exactly once whatever else changes.
 * `fill` must not call the filesystem with this session, nor drop a snapshot that it is being shown.
 */
typedef int (*fs_fill)(void *ctx, const struct fs_dirent *entry);
FS_NODISCARD int fs_readdir(struct fs_session *s, uint64_t ino, uint64_t cookie, bool with_attr, fs_fill fill,
                            void *ctx);

/* ---- inodes -------------------------------------------------------------------------------------- */

FS_NODISCARD int fs_getattr(struct fs_session *s, uint64_t ino, struct fs_attr *ret_attr);

enum {
    FS_SET_MODE = 1 << 0,
    FS_SET_UID = 1 << 1,
    FS_SET_GID = 1 << 2,
    FS_SET_SIZE = 1 << 3,
    FS_SET_ATIME = 1 << 4,
    FS_SET_MTIME = 1 << 5,
    FS_SET_ATIME_NOW = 1 << 6,
    FS_SET_MTIME_NOW = 1 << 7,
    FS_SET_CTIME = 1 << 8,
    FS_KILL_PRIV = 1 << 9,  /* clear setuid, and setgid if group-executable; not of directories */
    FS_KILL_SGID = 1 << 10, /* clear setgid, whoever may execute */
    FS_SET_FLAGS = 1 << 11, /* alone; -EOPNOTSUPP: others than FS_FLAGS */
};
/* Applies the fields of `attr` that `set` names, ctime with them; *ret_attr (may be NULL) is the result. */
FS_NODISCARD int fs_setattr(struct fs_session *s, uint64_t ino, const struct fs_attr *attr, unsigned set,
                            struct fs_attr *ret_attr);
/* Somebody has read: moves atime if fs_options.atime says so. What cannot be written is not. */
void fs_accessed(struct fs_session *s, uint64_t ino);
/* Gives back `count` references. Never fails: what cannot be removed now is removed at the next open. */
void fs_forget(struct fs_session *s, uint64_t ino, uint64_t count);

/* ---- extended attributes --------------------------------------------------------------------------- */

/*
 * Names begin with user., trusted. or security., or are the two of POSIX ACLs (FS_ACL_ACCESS,
 * FS_ACL_DEFAULT), whose values are checked (-EINVAL) and have the format of the kernel. An access ACL and
 * the mode follow each other; what is made in a directory with a default ACL inherits it, and the umask
 * is not applied then. -EOPNOTSUPP: another name; -ENODATA: not there; -ERANGE: `len` is too small.
 */
#define FS_ACL_ACCESS "system.posix_acl_access"
#define FS_ACL_DEFAULT "system.posix_acl_default"

/* Length of the value, which is copied unless len is 0. */
FS_NODISCARD ssize_t fs_getxattr(struct fs_session *s, uint64_t ino, const char *name, void *buf, size_t len);
/* flags: 0, XATTR_CREATE (-EEXIST) or XATTR_REPLACE (-ENODATA). FS_KILL_SGID in `kill`: an access ACL takes
 * setgid away. -ENOSPC: too many or too long names; -E2BIG: the value is longer than FS_XATTR_VALUE_MAX. */
FS_NODISCARD int fs_setxattr(struct fs_session *s, uint64_t ino, const char *name, const void *value, size_t len,
                             int flags, unsigned kill);
FS_NODISCARD int fs_removexattr(struct fs_session *s, uint64_t ino, const char *name);
/* Length of the names, each with a NUL, which are copied unless len is 0. `trusted`: with those of trusted. */
FS_NODISCARD ssize_t fs_listxattr(struct fs_session *s, uint64_t ino, bool trusted, char *buf, size_t len);

/* ---- data ---------------------------------------------------------------------------------------- */

/* Bytes read; fewer than len only at the end of the file. Holes read as zeros. */
FS_NODISCARD ssize_t fs_read(struct fs_session *s, uint64_t ino, void *buf, size_t len, uint64_t offset);
/* All of it or nothing, one unit (several where log memory or a segment is below 4 MiB); len at most 1 MiB. -EFBIG beyond FS_SIZE_MAX. `flags`: FS_KILL_PRIV. */
FS_NODISCARD ssize_t fs_write(struct fs_session *s, uint64_t ino, const void *buf, size_t len, uint64_t offset,
                              unsigned flags);

/*
 * fallocate(2) with mode 0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE or
 * FALLOC_FL_ZERO_RANGE with or without FALLOC_FL_KEEP_SIZE; others give -EOPNOTSUPP. A log has no place to set
 * aside: allocation checks that there is space now (-ENOSPC), makes the file longer and writes nothing. What
 * is zeroed or punched out gives its chunks back. Above 256 chunks (16 MiB) of contents several units,
 * from the front.
 */
FS_NODISCARD int fs_fallocate(struct fs_session *s, uint64_t ino, int mode, uint64_t offset, uint64_t len);
/* whence: SEEK_DATA or SEEK_HOLE. Holes are whole chunks of 64 KiB and the unwritten ends of chunks; the end of
 * the file is one. -ENXIO: beyond the end, or no data from there on. */
FS_NODISCARD int fs_seek(struct fs_session *s, uint64_t ino, uint64_t offset, int whence, uint64_t *ret_offset);
/* Copies up to `len` bytes, in units of what `buf` (of buf_len bytes, up to 1 MiB) holds; returns how many. Holes
 * are not kept. The two may be one file if the ranges do not overlap. */
FS_NODISCARD ssize_t fs_copy(struct fs_session *s, uint64_t ino_in, uint64_t offset_in, uint64_t ino_out,
                             uint64_t offset_out, size_t len, void *buf, size_t buf_len);

/* ---- the whole ----------------------------------------------------------------------------------- */

/* Everything acknowledged before the call is durable when it returns 0: this is fsync, fdatasync and
 * fsync of a directory as well. Concurrent calls share one device sync. */
FS_NODISCARD int fs_sync(struct fs *fs);

struct fs_statfs {
    uint64_t total_bytes, free_bytes;
    uint64_t files; /* inodes in use, root included */
};
FS_NODISCARD int fs_statfs(struct fs_session *s, struct fs_statfs *ret_statfs);

/* ---- check ---------------------------------------------------------------------------------------- */

struct fs_fault {
    /* From the root, "/" first, "/.snapshots/NAME" in a snapshot; NULL: of the store, or of nothing that has a name. */
    const char *path;
    const char *snapshot; /* the name of the snapshot that it is in; NULL: the live tree */
    const char *what;     /* in words */
    uint64_t ino;         /* 0: none */
    uint64_t offset, len; /* bytes of a file, or of the log if there is no ino; len 0: not known */
    bool mended;
};
/* What mending took away. */
struct fs_dropped {
    const char *path; /* of the file, as it was, or as it is now; of a name with that name. NULL: not known */
    const char *what; /* "contents", "name", ... */
    const char *name; /* of an extended attribute, or NULL */
    uint64_t ino;     /* of the file, or of the directory that had the name; 0: none */
    uint64_t offset, len; /* bytes of the file, or of the log if there is no ino; len 0: all of it */
};
struct fs_check_options {
    uint64_t memory_bytes; /* of the store; 0: 64 MiB. Beside it 64 bytes for each inode, and some for each fault */
    bool repair;           /* the device must be open for writing. Nothing is written if nothing is wrong */
    /* Called once the names of all faults are known; strings are valid during the call. */
    void (*fault)(void *ctx, const struct fs_fault *fault);
    /* NULL, or called after that for each thing that mending dropped, even if it failed later. */
    void (*dropped)(void *ctx, const struct fs_dropped *dropped);
    /* NULL, or called now and then. */
    void (*progress)(void *ctx, const char *phase, uint64_t done_bytes, uint64_t total_bytes);
    void *ctx;
};
struct fs_checked {
    uint64_t inodes, log_bytes; /* inodes: of the live tree */
    uint64_t snapshots;         /* whose trees were read */
    uint64_t faults, mended;    /* faults that were found; of these, mended */
    uint64_t left;              /* what a last look found after mending; without repair: faults */
    uint64_t dropped;           /* by mending */
    char message[512];          /* why it could not be done; else "" */
};
/*
 * Reads all of a store that nobody has open, verifies every record and how they belong together, in the live tree and in
 * each snapshot, and mends that if asked to: counts are set right; what cannot be read or leads nowhere is dropped; what
 * has no name gets one in /lost+found. A snapshot is never changed. Nothing is written before all was read, nor where
 * the device could not read something (then *ret_checked has a message, and all faults are left).
 * 0: it was done, see *ret_checked. -EUCLEAN: too damaged to be read at all; else -errno of the system.
 */
FS_NODISCARD int fs_check(struct device *device, const struct fs_check_options *options, struct fs_checked *ret_checked);

/* ---- scrub ---------------------------------------------------------------------------------------- */

#define FS_SCRUB_FAULTS 8u /* told by one call; the rest by the next */

struct fs_scrub {
    bool restart;       /* from the beginning, not where the last call of any session stopped */
    uint32_t max_bytes; /* to be read by this call */

    uint64_t read_bytes;    /* by this call */
    uint64_t position, end; /* in the log */
    bool finished;          /* that was all: the next call begins anew */
    uint32_t count;
    struct fs_scrub_fault {
        uint64_t ino; /* of the file, or of the directory that had the name; 0: not known, or nothing live */
        uint64_t offset, len; /* bytes of the file, or of the log */
        char what[64], name[FS_NAME_MAX + 1]; /* name: "" */
    } faults[FS_SCRUB_FAULTS];
};
/* Reads on in the log of an open filesystem and verifies its checksums (store_scrub()). How far it came is kept until
 * fs_close(). */
FS_NODISCARD int fs_scrub(struct fs_session *s, struct fs_scrub *scrub);

/* The store underneath, for statistics. Valid until fs_close(). */
struct store *fs_store(struct fs *fs);

#endif
