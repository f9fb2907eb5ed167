// SPDX-License-Identifier: MIT
/*
 * A small filesystem with something of everything in it: directories, a gap in a listing, files small and of two chunks, a
 * symlink, ACLs, a long attribute, an orphan, two snapshots. Its files are an image to be edited.
 */
#ifndef TESTS_FUZZ_SMALL_H
#define TESTS_FUZZ_SMALL_H

#include "image.h"
#include "use.h"

static struct { /* inode numbers, the same whenever it is made */
    uint64_t d, e, file, big, link, acl, gone; /* e in d; gone: the orphan */
} small;

static inline void small_must(bool done)
{
    if (!done) {
        fprintf(stderr, "the small filesystem cannot be made\n");
        abort();
    }
}

static inline uint64_t small_made(struct fs_session *s, int rc, const struct fs_attr *attr)
{
    small_must(rc == 0);
    fs_forget(s, attr->ino, 1);
    return attr->ino;
}

static inline void small_files(struct fs_session *s)
{
    static const uint8_t acl[] = {2, 0, 0,   0,   1,   0,   6,  0, 255, 255, 255, 255, 2,  0, 6, 0,
                                  5, 0, 0,   0,   4,   0,   4,  0, 255, 255, 255, 255, 16, 0, 6, 0,
                                  255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
    static uint8_t bytes[100000];
    struct fs_attr a;
    char name[16];

    small.d = small_made(s, fs_mkdir(s, &use_cred, FS_INO_ROOT, "d", 0755, &a), &a);
    small.e = small_made(s, fs_mkdir(s, &use_cred, small.d, "e", 0755, &a), &a);
    small.file = small_made(s, fs_mknod(s, &use_cred, small.d, "file", S_IFREG | 0644, 0, &a), &a);
    small.big = small_made(s, fs_mknod(s, &use_cred, FS_INO_ROOT, "big", S_IFREG | 0644, 0, &a), &a);
    small.link = small_made(s, fs_symlink(s, &use_cred, FS_INO_ROOT, "link", "d/file", &a), &a);
    small.acl = small_made(s, fs_mknod(s, &use_cred, FS_INO_ROOT, "acl", S_IFREG | 0644, 0, &a), &a);
    small_must(fs_write(s, small.file, "contents", 8, 0, 0) == 8);
    small_must(fs_write(s, small.big, bytes, sizeof bytes, 0, 0) == sizeof bytes);
    small_must(fs_setxattr(s, small.acl, FS_ACL_ACCESS, acl, sizeof acl, 0, 0) == 0);
    small_must(fs_setxattr(s, small.acl, "user.long", bytes, 5000, 0, 0) == 0);
    small_must(fs_setxattr(s, small.e, FS_ACL_DEFAULT, acl, sizeof acl, 0, 0) == 0);
    for (unsigned i = 0; i < 330; i++) { /* three of five complete listings die: a gap */
        sprintf(name, "n%u", i);
        (void)small_made(s, fs_mknod(s, &use_cred, small.d, name, S_IFREG | 0644, 0, &a), &a);
    }
    for (unsigned i = 4; i < 310; i++) {
        sprintf(name, "n%u", i);
        small_must(i == 300 || fs_unlink(s, small.d, name) == 0);
    }
}

static inline void small_time(void *ctx, struct timespec *ret_now)
{
    (void)ctx;
    *ret_now = (struct timespec){.tv_sec = 1000000000};
}

/* image_free() it. */
static inline void small_make(struct image *ret_image)
{
    struct device *device;
    struct fs_options options = {.store = use_tiny, .now = small_time};
    struct store_opened opened;
    struct fs *fs = NULL;
    struct fs_session *s = NULL;
    struct fs_attr a;

    small_must(device_memory_open(&device) == 0 && fs_open(device, &options, &fs, &opened) == 0 &&
               fs_session_open(fs, &s) == 0);
    small_files(s);
    small_must(fs_mkdir(s, &use_cred, FS_INO_SNAPSHOTS, "one", 0755, &a) == 0);
    small_must(fs_mkdir(s, &use_cred, FS_INO_SNAPSHOTS, "two", 0755, &a) == 0);
    small_must(fs_tmpfile(s, &use_cred, FS_INO_ROOT, 0644, &a) == 0);
    small.gone = a.ino;
    fs_session_close(s);
    small_must(fs_close(fs) == 0);
    image_take(device, ret_image);
    device_close(device);
    small_must(ret_image->log && ret_image->index && ret_image->superblocks[0] && ret_image->superblocks[1]);
}

#endif
