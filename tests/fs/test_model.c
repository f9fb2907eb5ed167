// SPDX-License-Identifier: MIT
/*
 * Random filesystem operations against a tree in memory, every result and errno compared; then the whole
 * tree: after a run, after a clean reopen, after a crash that follows a sync, and inside a snapshot.
 * The store has a ring of 256 KiB, so every operation meets every region of the log.
 */
#include <check.h>
#include <device/memory.h>
#include <errno.h>
#include <fs/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <suite.h>
#include <time.h>

#define NODES 400
#define NAMES 14
#define DATA_MAX 200000

static uint64_t seed;

static uint64_t dice(uint64_t sides)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (seed >> 33) % sides;
}

/* ---- the model ------------------------------------------------------------------------------------- */

struct node {
    uint64_t ino; /* 0: free */
    mode_t mode;
    uint32_t nlink, uid;
    uint64_t size;
    uint8_t *data; /* DATA_MAX bytes, zeros beyond size; files */
    char target[64];
    int parent;
    int child[NAMES]; /* -1: none */
};

struct tree {
    struct node node[NODES];
};

static struct tree tree;
static struct device *device;
static struct fs *fs;
static struct fs_session *s;

static int new_node(mode_t mode, int parent)
{
    for (int n = 1; n < NODES; n++) {
        struct node *node = &tree.node[n];
        if (node->ino)
            continue;
        uint8_t *data = node->data;
        *node = (struct node){.mode = mode, .nlink = S_ISDIR(mode) ? 2 : 1, .parent = parent, .data = data};
        memset(node->child, -1, sizeof node->child);
        if (!node->data)
            node->data = malloc(DATA_MAX);
        memset(node->data, 0, DATA_MAX);
        return n;
    }
    return -1;
}

static const char *name_of(int k)
{
    static char names[NAMES][300];

    if (!names[k][0]) {
        memset(names[k], 'a' + k, k == 3 ? 255 : (size_t)k + 1);
        names[k][k == 4 ? 0 : 1] = k == 4 ? '\xff' : 'x';
    }
    return names[k];
}

static bool is_empty(const struct node *dir)
{
    for (int k = 0; k < NAMES; k++)
        if (dir->child[k] >= 0)
            return false;
    return true;
}

/* A live inode: nlink > 0. */
static int some_node(void)
{
    for (;;) {
        int n = (int)dice(NODES);
        if (tree.node[n].ino && dice(3))
            return n;
        if (dice(20) == 0)
            return 0;
    }
}

static int some_dir(void)
{
    for (int tries = 0; tries < 100; tries++) {
        int n = (int)dice(NODES);
        if (tree.node[n].ino && S_ISDIR(tree.node[n].mode))
            return n;
    }
    return 0;
}

static bool is_below(int dir, int above)
{
    for (; dir != above; dir = tree.node[dir].parent)
        if (dir == 0)
            return false;
    return true;
}

static void drop(int n)
{
    struct node *node = &tree.node[n];

    node->nlink -= S_ISDIR(node->mode) ? node->nlink : 1;
    if (node->nlink == 0)
        node->ino = 0;
}

/* ---- one operation on both ------------------------------------------------------------------------- */

static const struct fs_cred cred = {.uid = 7, .gid = 8, .umask = 022};

static void forget(uint64_t ino)
{
    if (dice(2))
        fs_forget(s, ino, 1);
}

static int expected_new(int d, int k)
{
    if (!S_ISDIR(tree.node[d].mode))
        return -ENOTDIR;
    return tree.node[d].child[k] >= 0 ? -EEXIST : 0;
}

static void op_make(void)
{
    static const mode_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFIFO};
    int d = dice(20) ? some_dir() : some_node(), k = (int)dice(NAMES), rc;
    mode_t type = types[dice(7)], mode = (mode_t)dice(01000);
    struct fs_attr attr;
    char target[64];
    int want = expected_new(d, k), n = new_node(type, S_ISDIR(type) ? d : -1);

    if (n < 0)
        return;
    sprintf(target, "to/%d", (int)dice(1000000));
    if (S_ISDIR(type))
        rc = fs_mkdir(s, &cred, tree.node[d].ino, name_of(k), mode, &attr);
    else if (S_ISLNK(type))
        rc = fs_symlink(s, &cred, tree.node[d].ino, name_of(k), target, &attr);
    else
        rc = fs_mknod(s, &cred, tree.node[d].ino, name_of(k), type | mode, 0, &attr);
    ck_assert_int_eq(rc, want);
    if (rc < 0)
        return;
    struct node *node = &tree.node[n];
    node->ino = attr.ino;
    node->uid = cred.uid;
    node->mode = S_ISLNK(type) ? S_IFLNK | 0777 : type | (mode & ~022u);
    if (S_ISLNK(type)) {
        strcpy(node->target, target);
        node->size = strlen(target);
    }
    tree.node[d].child[k] = n;
    if (S_ISDIR(type))
        tree.node[d].nlink++;
    ck_assert_uint_eq(attr.mode, node->mode);
    forget(attr.ino);
}

static void op_link(void)
{
    int n = some_node(), d = some_dir(), k = (int)dice(NAMES);
    struct fs_attr attr;
    int want = expected_new(d, k);

    if (want == 0 && S_ISDIR(tree.node[n].mode))
        want = -EPERM;
    int rc = fs_link(s, tree.node[n].ino, tree.node[d].ino, name_of(k), &attr);
    ck_assert_int_eq(rc, want);
    if (rc < 0)
        return;
    tree.node[d].child[k] = n;
    tree.node[n].nlink++;
    ck_assert_uint_eq(attr.nlink, tree.node[n].nlink);
    forget(attr.ino);
}

static void op_remove(void)
{
    int d = some_dir(), k = (int)dice(NAMES), n = tree.node[d].child[k];
    bool directory = dice(2);
    int want = n < 0 ? -ENOENT : 0;

    if (want == 0 && directory && !S_ISDIR(tree.node[n].mode))
        want = -ENOTDIR;
    else if (want == 0 && !directory && S_ISDIR(tree.node[n].mode))
        want = -EISDIR;
    else if (want == 0 && directory && !is_empty(&tree.node[n]))
        want = -ENOTEMPTY;
    int rc = directory ? fs_rmdir(s, tree.node[d].ino, name_of(k)) : fs_unlink(s, tree.node[d].ino, name_of(k));
    ck_assert_int_eq(rc, want);
    if (rc < 0)
        return;
    tree.node[d].child[k] = -1;
    if (directory)
        tree.node[d].nlink--;
    drop(n);
}

static int expected_rename(int d1, int n1, int d2, int n2, unsigned flags)
{
    bool dir1, dir2 = n2 >= 0 && S_ISDIR(tree.node[n2].mode);

    if (n1 < 0)
        return -ENOENT;
    dir1 = S_ISDIR(tree.node[n1].mode);
    if (d1 != d2 && dir1 && is_below(d2, n1))
        return -EINVAL;
    if (d1 != d2 && flags == RENAME_EXCHANGE && dir2 && is_below(d1, n2))
        return -EINVAL;
    if (flags == RENAME_EXCHANGE && n2 < 0)
        return -ENOENT;
    if (n1 == n2)
        return flags == RENAME_NOREPLACE ? -EEXIST : 0;
    if (n2 < 0 || flags == RENAME_EXCHANGE)
        return 0;
    if (flags == RENAME_NOREPLACE)
        return -EEXIST;
    if (dir1 != dir2)
        return dir2 ? -EISDIR : -ENOTDIR;
    return dir2 && !is_empty(&tree.node[n2]) ? -ENOTEMPTY : 0;
}

static void place(int d, int k, int n, int from)
{
    tree.node[d].child[k] = n;
    if (n >= 0 && S_ISDIR(tree.node[n].mode)) {
        tree.node[n].parent = d;
        tree.node[d].nlink++;
        tree.node[from].nlink--;
    }
}

static void op_rename(void)
{
    int d1 = some_dir(), d2 = dice(2) ? d1 : some_dir(), k1 = (int)dice(NAMES), k2 = (int)dice(NAMES);
    int n1 = tree.node[d1].child[k1], n2 = tree.node[d2].child[k2];
    unsigned flags = dice(3) ? 0 : dice(2) ? RENAME_NOREPLACE : RENAME_EXCHANGE;
    int want = expected_rename(d1, n1, d2, n2, flags);
    int rc = fs_rename(s, &cred, tree.node[d1].ino, name_of(k1), tree.node[d2].ino, name_of(k2), flags);

    ck_assert_int_eq(rc, want);
    if (rc < 0 || n1 == n2)
        return;
    place(d2, k2, n1, d1);
    if (flags == RENAME_EXCHANGE) {
        place(d1, k1, n2, d2);
        return;
    }
    tree.node[d1].child[k1] = -1;
    if (n2 >= 0) {
        if (S_ISDIR(tree.node[n2].mode))
            tree.node[d2].nlink--;
        drop(n2);
    }
}

static int expected_io(const struct node *node)
{
    return S_ISREG(node->mode) ? 0 : S_ISDIR(node->mode) ? -EISDIR : -EINVAL;
}

static void op_write(void)
{
    static uint8_t bytes[DATA_MAX];
    struct node *node = &tree.node[some_node()];
    uint64_t at = dice(3) ? (node->size && dice(2) ? dice(node->size) : node->size) : dice(DATA_MAX);
    size_t len = dice(4) ? 1 + dice(3000) : 1 + dice(140000);
    int want = expected_io(node);

    if (S_ISLNK(node->mode))
        return;
    if (at + len > DATA_MAX)
        at = dice(DATA_MAX - len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(seed >> 20) ^ (uint8_t)(i * 7);
    ssize_t wrote = fs_write(s, node->ino, bytes, len, at, 0);
    ck_assert_int_eq(wrote, want < 0 ? want : (ssize_t)len);
    if (want < 0)
        return;
    memcpy(node->data + at, bytes, len);
    if (at + len > node->size)
        node->size = at + len;
}

static void op_truncate(void)
{
    struct node *node = &tree.node[some_node()];
    struct fs_attr attr = {.size = dice(3) ? dice(node->size + 1) : dice(DATA_MAX)}, got;

    if (!S_ISREG(node->mode))
        return;
    ck_assert_int_eq(fs_setattr(s, node->ino, &attr, FS_SET_SIZE, &got), 0);
    if (attr.size < node->size)
        memset(node->data + attr.size, 0, node->size - attr.size);
    node->size = attr.size;
    ck_assert_uint_eq(got.size, node->size);
}

static void op_chmod(void)
{
    struct node *node = &tree.node[some_node()];
    struct fs_attr attr = {.mode = (mode_t)dice(010000), .uid = (uid_t)dice(100)};

    if (S_ISLNK(node->mode))
        return;
    ck_assert_int_eq(fs_setattr(s, node->ino, &attr, FS_SET_MODE | FS_SET_UID, NULL), 0);
    node->mode = (node->mode & S_IFMT) | (attr.mode & ~(mode_t)S_ISGID); /* setgid directories hand down the group */
    node->uid = attr.uid;
    if (attr.mode & S_ISGID) {
        attr.mode &= ~(mode_t)S_ISGID;
        ck_assert_int_eq(fs_setattr(s, node->ino, &attr, FS_SET_MODE, NULL), 0);
    }
}

/* ---- comparing --------------------------------------------------------------------------------------- */

static void compare_data(const struct node *node, uint64_t ino)
{
    static uint8_t bytes[DATA_MAX + 100];
    uint64_t at = dice(4) ? 0 : dice(node->size + 1);
    ssize_t got = fs_read(s, ino, bytes, sizeof bytes, at);

    ck_assert_int_eq(got, (ssize_t)(node->size - at));
    ck_assert_mem_eq(bytes, node->data + at, (size_t)got);
}

static void compare_attr(const struct node *node, const struct fs_attr *attr)
{
    ck_assert_uint_eq(attr->mode, node->mode);
    ck_assert_uint_eq(attr->nlink, node->nlink);
    ck_assert_uint_eq(attr->uid, node->uid);
    if (!S_ISDIR(node->mode))
        ck_assert_uint_eq(attr->size, node->size);
    ck_assert_uint_le(attr->blocks, (node->size + 511) / 512);
}

struct seen {
    int d;
    unsigned count;
    uint64_t cookie;
    bool stop_often;
};

static int see(void *ctx, const struct fs_dirent *e)
{
    struct seen *seen = ctx;
    const struct node *dir = &tree.node[seen->d];

    if (seen->stop_often && dice(3) == 0)
        return 1;
    seen->cookie = e->cookie;
    seen->count++;
    if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
        return 0;
    for (int k = 0; k < NAMES; k++) {
        if (strcmp(e->name, name_of(k)) != 0)
            continue;
        ck_assert_int_ge(dir->child[k], 0);
        ck_assert_uint_eq(e->type, tree.node[dir->child[k]].mode & S_IFMT);
        return 0;
    }
    ck_abort_msg("a name that nobody made");
}

static void compare_listing(int d, uint64_t ino)
{
    struct seen seen = {.d = d, .stop_often = dice(2)};
    unsigned want = 2;

    for (int k = 0; k < NAMES; k++)
        want += tree.node[d].child[k] >= 0;
    for (int rounds = 0; rounds < 1000; rounds++) {
        unsigned before = seen.count;
        ck_assert_int_eq(fs_readdir(s, ino, seen.cookie, false, see, &seen), 0);
        if (!seen.stop_often || (before == seen.count && seen.count == want))
            break;
    }
    ck_assert_uint_eq(seen.count, want);
}

/* Everything under the directory, reached through lookups. */
static void compare_below(int d, uint64_t ino)
{
    struct node *dir = &tree.node[d];
    struct fs_attr attr;
    char target[100];

    compare_listing(d, ino);
    for (int k = 0; k < NAMES; k++) {
        int rc = fs_lookup(s, ino, name_of(k), &attr);
        if (dir->child[k] < 0) {
            ck_assert_int_eq(rc, -ENOENT);
            continue;
        }
        ck_assert_int_eq(rc, 0);
        const struct node *node = &tree.node[dir->child[k]];
        compare_attr(node, &attr);
        if (S_ISREG(node->mode))
            compare_data(node, attr.ino);
        if (S_ISLNK(node->mode)) {
            ck_assert_int_eq(fs_readlink(s, attr.ino, target, sizeof target), (int)strlen(node->target));
            ck_assert_mem_eq(target, node->target, strlen(node->target));
        }
        if (S_ISDIR(node->mode))
            compare_below(dir->child[k], attr.ino);
        fs_forget(s, attr.ino, 1);
    }
}

static void compare_all(void)
{
    struct fs_statfs statfs;
    uint64_t inodes = 0;

    compare_below(0, FS_INO_ROOT);
    for (int n = 0; n < NODES; n++)
        inodes += tree.node[n].ino != 0;
    ck_assert_int_eq(fs_statfs(s, &statfs), 0);
    ck_assert_uint_ge(statfs.files, inodes); /* more while unlinked ones are referenced */
}

static void op_look(void)
{
    int n = some_node();
    struct fs_attr attr;

    ck_assert_int_eq(fs_getattr(s, tree.node[n].ino, &attr), 0);
    compare_attr(&tree.node[n], &attr);
    if (S_ISREG(tree.node[n].mode))
        compare_data(&tree.node[n], attr.ino);
    if (S_ISDIR(tree.node[n].mode))
        compare_listing(n, attr.ino);
}

/* ---- running ----------------------------------------------------------------------------------------- */

static void open_fs(void)
{
    static const struct fs_options options = {
        .store = {.memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true}};
    struct store_opened opened;
    int rc = fs_open(device, &options, &fs, &opened);

    ck_assert_msg(rc == 0, "%d %s", rc, opened.message);
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
}

static void setup(void)
{
    const char *given = getenv("FASTERFS_SEED");

    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("FASTERFS_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    memset(&tree, 0, sizeof tree);
    tree.node[0] = (struct node){.ino = FS_INO_ROOT, .mode = S_IFDIR | 0755, .nlink = 2};
    memset(tree.node[0].child, -1, sizeof tree.node[0].child);
    ck_assert_int_eq(device_memory_open(&device), 0);
    open_fs();
}

static void teardown(void)
{
    fs_session_close(s);
    ck_assert_int_eq(fs_close(fs), 0);
    device_close(device);
    for (int n = 0; n < NODES; n++)
        free(tree.node[n].data);
}

static void run(unsigned steps)
{
    static void (*const ops[])(void) = {op_make,  op_make,  op_make,   op_link,  op_remove,   op_remove, op_rename,
                                        op_write, op_write, op_rename, op_write, op_truncate, op_chmod,  op_look};

    for (; steps > 0; steps--)
        ops[dice(sizeof ops / sizeof *ops)]();
}

START_TEST(every_operation_agrees_with_a_tree_in_memory_and_so_does_a_reopen)
{
    for (int round = 0; round < 4; round++) {
        run(5000);
        compare_all();
        fs_session_close(s);
        ck_assert_int_eq(fs_close(fs), 0);
        open_fs();
        compare_all();
    }
}
END_TEST

START_TEST(a_crash_after_a_sync_loses_nothing)
{
    for (int round = 0; round < 10; round++) {
        run(1 + (unsigned)dice(1500));
        ck_assert_int_eq(fs_sync(fs), 0);
        fs_session_close(s);
        fs_abandon(fs);
        device_memory_crash(device);
        open_fs();
        compare_all();
    }
}
END_TEST

START_TEST(a_snapshot_is_the_tree_of_its_moment)
{
    struct fs_attr attr;

    run(4000);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "then", 0755, &attr), 0);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, "then", 0755, &attr), -EEXIST);
    struct tree *then = malloc(sizeof *then);
    *then = tree;
    for (int n = 0; n < NODES; n++) {
        if (tree.node[n].data) {
            tree.node[n].data = malloc(DATA_MAX);
            memcpy(tree.node[n].data, then->node[n].data, DATA_MAX);
        }
    }
    run(4000);
    struct tree *now = malloc(sizeof *now);
    for (int round = 0; round < 2; round++) {
        *now = tree;
        tree = *then;
        ck_assert_int_eq(fs_lookup(s, FS_INO_SNAPSHOTS, "then", &attr), 0);
        compare_below(0, attr.ino);
        ck_assert_int_eq(fs_unlink(s, attr.ino, name_of(0)), -EROFS);
        ck_assert_int_lt((int)fs_mknod(s, &cred, attr.ino, "new", S_IFREG, 0, &attr), 0);
        tree = *now;
        compare_all();
        fs_session_close(s);
        ck_assert_int_eq(fs_close(fs), 0);
        open_fs();
    }
    ck_assert_int_eq(fs_rmdir(s, FS_INO_SNAPSHOTS, "then"), 0);
    ck_assert_int_eq(fs_lookup(s, FS_INO_SNAPSHOTS, "then", &attr), -ENOENT);
    compare_all();
    for (int n = 0; n < NODES; n++)
        free(then->node[n].data);
    free(then);
    free(now);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("model");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, every_operation_agrees_with_a_tree_in_memory_and_so_does_a_reopen);
    tcase_add_test(tests, a_crash_after_a_sync_loses_nothing);
    tcase_add_test(tests, a_snapshot_is_the_tree_of_its_moment);
    return suite_run_case("model", tests);
}
