// SPDX-License-Identifier: MIT
/*
 * What a power cut may leave of a filesystem, at every moment of a workload of every call: it opens, its tree
 * is as the running filesystem showed it after some call, not before the last sync; names, listings, link
 * counts, sizes and the number of inodes agree; snapshots are their moment; and it goes on.
 */
#include "crash.h"

#include <fcntl.h>
#include <fs/fs.h>

#define NAMES 6
#define DIRS 4
#define OPS_MAX 600
#define WORN 56 /* names that come and go first: so that listings become complete while it is looked at */

static struct device *memory, *record;
static struct fs *fs;
static struct fs_session *s;
static const struct fs_cred cred = {.uid = 7, .gid = 8, .umask = 022};
static long clock_now;

static void tick_tock(void *ctx, struct timespec *ret_now)
{
    (void)ctx;
    *ret_now = (struct timespec){.tv_sec = ++clock_now};
}

static int open_on(struct device *device)
{
    struct fs_options options = {
        .store = {.memory_bytes = 1 << 20, .log_bytes = 256 << 10, .segment_bytes = 1 << 20, .no_background = true},
        .now = tick_tock};
    struct store_opened opened;
    int rc = fs_open(device, &options, &fs, &opened);

    if (rc < 0)
        give_up("open: %s %s", strerror(-rc), opened.message);
    ck_assert_int_eq(fs_session_open(fs, &s), 0);
    return rc;
}

/* ---- the whole tree as one number, with checks of what must agree in any tree ----------------------------- */

struct walk {
    uint64_t hash;
    struct node {
        uint64_t ino;
        unsigned names, nlink;
    } nodes[256];
    unsigned count;
    struct entry {
        char name[FS_NAME_MAX + 1];
        uint64_t ino;
        mode_t type;
    } entries[64];
    unsigned entry_count;
};

static int gather(void *ctx, const struct fs_dirent *entry)
{
    struct walk *walk = ctx;

    if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        return 0;
    if (walk->entry_count == sizeof walk->entries / sizeof walk->entries[0])
        give_up("a directory with more names than were ever made");
    struct entry *e = &walk->entries[walk->entry_count++];
    snprintf(e->name, sizeof e->name, "%s", entry->name);
    e->ino = entry->ino;
    e->type = entry->type;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static void add_word(struct walk *walk, uint64_t word)
{
    walk->hash = mix(walk->hash ^ word) + word;
}

static struct node *node_of(struct walk *walk, const struct fs_attr *attr)
{
    for (unsigned i = 0; i < walk->count; i++) {
        if (walk->nodes[i].ino == attr->ino)
            return &walk->nodes[i];
    }
    ck_assert_uint_lt(walk->count, 256);
    walk->nodes[walk->count] = (struct node){.ino = attr->ino, .nlink = attr->nlink};
    return &walk->nodes[walk->count++];
}

static void walk_file(struct walk *walk, const struct fs_attr *attr)
{
    static char buf[300000];
    ssize_t got =
        S_ISLNK(attr->mode) ? fs_readlink(s, attr->ino, buf, sizeof buf) : fs_read(s, attr->ino, buf, sizeof buf, 0);

    if (got < 0)
        give_up("reading inode %llu: %s", (unsigned long long)attr->ino, strerror((int)-got));
    if ((uint64_t)got != attr->size)
        give_up("inode %llu has size %llu, and %zd bytes", (unsigned long long)attr->ino,
                (unsigned long long)attr->size, got);
    add_word(walk, hash_bytes(buf, (size_t)got));
}

static unsigned walk_dir(struct walk *walk, uint64_t dir);

/* True if it is a directory. */
static bool walk_entry(struct walk *walk, uint64_t dir, const struct entry *entry)
{
    struct fs_attr attr;
    int rc = fs_lookup(s, dir, entry->name, &attr);

    if (rc < 0)
        give_up("%s is listed, lookup says %s", entry->name, strerror(-rc));
    if (dir < UINT64_C(1) << 48 && attr.ino != entry->ino)
        give_up("%s is listed as another inode than lookup finds", entry->name);
    if ((attr.mode & S_IFMT) != entry->type)
        give_up("%s is listed with another type", entry->name);
    add_word(walk, hash_bytes(entry->name, strlen(entry->name)));
    add_word(walk, attr.ino & ((UINT64_C(1) << 48) - 1));
    add_word(walk, attr.size);
    add_word(walk, attr.mode);
    add_word(walk, attr.nlink);
    add_word(walk, attr.uid);
    add_word(walk, (uint64_t)attr.mtime.tv_sec << 20 ^ (uint64_t)attr.ctime.tv_sec);
    struct node *node = node_of(walk, &attr);
    node->names++;
    if (S_ISDIR(attr.mode)) {
        if (walk_dir(walk, attr.ino) + 2 != attr.nlink)
            give_up("directory %s has a wrong count of links", entry->name);
        node->nlink = 1; /* of names */
    } else {
        walk_file(walk, &attr);
    }
    fs_forget(s, attr.ino, 1);
    return S_ISDIR(attr.mode);
}

/* Returns the number of directories in it. */
static unsigned walk_dir(struct walk *walk, uint64_t dir)
{
    static struct entry kept[8][64];
    static unsigned depth;
    unsigned dirs = 0;

    walk->entry_count = 0;
    int rc = fs_readdir(s, dir, 0, false, gather, walk);
    if (rc < 0)
        give_up("readdir: %s", strerror(-rc));
    unsigned count = walk->entry_count;
    ck_assert_uint_lt(depth, 8);
    memcpy(kept[depth], walk->entries, count * sizeof kept[0][0]);
    qsort(kept[depth], count, sizeof kept[0][0], by_name);
    depth++;
    for (unsigned i = 0; i < count; i++) {
        if (i > 0 && strcmp(kept[depth - 1][i].name, kept[depth - 1][i - 1].name) == 0)
            give_up("%s is listed twice", kept[depth - 1][i].name);
        dirs += walk_entry(walk, dir, &kept[depth - 1][i]);
    }
    depth--;
    return dirs;
}

static struct walk walk; /* the last one */

static uint64_t look_at(uint64_t root, unsigned *ret_inodes)
{
    walk.hash = 1;
    walk.count = 0;
    (void)walk_dir(&walk, root);
    for (unsigned i = 0; i < walk.count; i++) {
        if (walk.nodes[i].names != walk.nodes[i].nlink)
            give_up("inode %llu has %u names and says %u", (unsigned long long)walk.nodes[i].ino, walk.nodes[i].names,
                    walk.nodes[i].nlink);
    }
    *ret_inodes = walk.count + 1;
    return walk.hash;
}

/* ---- the workload ------------------------------------------------------------------------------------------ */

static uint64_t trees[OPS_MAX + 1]; /* after each call */
static unsigned ops, durable;
static struct promise {
    uint64_t tick;
    unsigned durable, begun;
} promises[3 * OPS_MAX];
static unsigned promise_count;
static struct moment {
    unsigned op;
    uint64_t begun, done, drop_begun, drop_done;
} moments[OPS_MAX];
static unsigned moment_count;

static void promise(unsigned begun)
{
    promises[promise_count++] = (struct promise){device_record_now(record), durable, begun};
}

static uint64_t made[2 * OPS_MAX]; /* inodes that ever were */
static unsigned made_count;

static const char *some_name(void)
{
    static const char *const names[NAMES] = {"a", "b", "c", "dd", "a-longer-name", "f"};

    return names[dice(NAMES)];
}

/* One of the directories that are there; the root if the dice say so. */
static uint64_t some_dir(void)
{
    static const char *const dirs[DIRS] = {"a", "b", "c", "dd"};
    uint64_t dir = FS_INO_ROOT;

    for (uint64_t depth = dice(3); depth > 0; depth--) {
        struct fs_attr attr;
        if (fs_lookup(s, dir, dirs[dice(DIRS)], &attr) < 0)
            break;
        fs_forget(s, attr.ino, 1);
        if (!S_ISDIR(attr.mode))
            break;
        dir = attr.ino;
    }
    return dir;
}

static void change_file(uint64_t ino, mode_t mode)
{
    static char bytes[70000];
    struct fs_attr attr = {.mode = 0600 + (mode_t)dice(64), .size = dice(90000), .uid = (uid_t)dice(9)};
    uint32_t len = (uint32_t)dice(dice(4) ? 3000 : sizeof bytes);
    long long rc = 0;

    memset(bytes, (int)dice(255) + 1, sizeof bytes);
    if (!S_ISREG(mode) || dice(4) == 0)
        rc = fs_setattr(s, ino, &attr, dice(2) || !S_ISREG(mode) ? FS_SET_MODE | FS_SET_UID : FS_SET_SIZE, NULL);
    else
        rc = fs_write(s, ino, bytes, dice(3) ? len + 1 : 1 + dice(500), dice(3) ? dice(2) * dice(90000) : dice(600), 0);
    if (rc < 0)
        give_up("changing a file: %s", strerror((int)-rc));
}

static uint64_t held; /* an inode that is kept referenced, so that unlinking it leaves an orphan; 0: none */
static uint64_t held_dir;
static const char *held_name; /* what the next call unlinks; NULL: nothing */

static void one_call(void)
{
    static const char target[] = "somewhere/else";
    struct fs_attr attr;
    uint64_t dir = some_dir(), other = some_dir();
    const char *name = some_name();
    int rc = 0;

    if (held_name) {
        rc = fs_unlink(s, held_dir, held_name);
        held_name = NULL;
        return;
    }
    switch (dice(11)) {
    case 0:
        rc = fs_mknod(s, &cred, dir, name, S_IFREG | 0666, 0, &attr);
        break;
    case 1:
        rc = fs_mkdir(s, &cred, dir, name, 0777, &attr);
        break;
    case 2:
        rc = fs_symlink(s, &cred, dir, name, target + dice(5), &attr);
        break;
    case 3:
        rc = fs_unlink(s, dir, name);
        attr.ino = 0;
        break;
    case 4:
        rc = fs_rmdir(s, dir, name);
        attr.ino = 0;
        break;
    case 5:
    case 6: {
        static const unsigned flags[] = {0, 0, RENAME_EXCHANGE, RENAME_NOREPLACE};
        rc = fs_rename(s, &cred, dir, name, other, some_name(), flags[dice(4)]);
        attr.ino = 0;
        break;
    }
    case 7:
        rc = fs_lookup(s, dir, name, &attr);
        if (rc == 0) {
            struct fs_attr linked;
            int linking = fs_link(s, attr.ino, other, some_name(), &linked);
            if (linking == 0)
                fs_forget(s, linked.ino, 1);
        }
        break;
    default:
        rc = fs_lookup(s, dir, name, &attr);
        if (rc == 0 && !S_ISDIR(attr.mode))
            change_file(attr.ino, attr.mode);
    }
    if (rc < 0 || attr.ino == 0)
        return;
    made[made_count++] = attr.ino;
    if (held == 0 && dice(4) == 0 && !S_ISDIR(attr.mode)) {
        held = attr.ino;
        held_dir = dir;
        held_name = name;
    } else {
        fs_forget(s, attr.ino, 1);
    }
}

static void let_go(void)
{
    if (held != 0)
        fs_forget(s, held, 1);
    held = 0;
}

static void snapshot(void)
{
    struct fs_attr attr;
    char name[16];

    if (moment_count > 0 && dice(3) == 0) {
        struct moment *m = &moments[dice(moment_count)];
        if (m->drop_begun != UINT64_MAX)
            return;
        sprintf(name, "s%u", (unsigned)(m - moments));
        m->drop_begun = device_record_now(record);
        ck_assert_int_eq(fs_rmdir(s, FS_INO_SNAPSHOTS, name), 0);
        m->drop_done = device_record_now(record);
        return;
    }
    struct moment *m = &moments[moment_count];
    *m = (struct moment){ops, device_record_now(record), UINT64_MAX, UINT64_MAX, UINT64_MAX};
    sprintf(name, "s%u", moment_count++);
    ck_assert_int_eq(fs_mkdir(s, &cred, FS_INO_SNAPSHOTS, name, 0755, &attr), 0);
    fs_forget(s, attr.ino, 1);
    durable = ops;
    m->done = device_record_now(record);
    promise(ops);
}

static void count_op(void)
{
    unsigned inodes;

    trees[++ops] = look_at(FS_INO_ROOT, &inodes);
}

static void step(void)
{

    switch (dice(24)) {
    case 0:
        snapshot();
        break;
    case 1:
        let_go();
        fs_session_close(s);
        ck_assert_int_eq(fs_close(fs), 0);
        durable = ops;
        promise(ops);
        open_on(record);
        break;
    case 2:
    case 3:
    case 4:
        ck_assert_int_eq(fs_sync(fs), 0);
        durable = ops;
        promise(ops);
        break;
    case 5:
        let_go();
        break;
    default:
        promise(ops + 1);
        one_call();
        count_op();
    }
}

static void wear(void)
{
    struct fs_attr attr;

    for (unsigned n = 0; n < WORN; n++) {
        promise(ops + 1);
        ck_assert_int_eq(fs_mknod(s, &cred, FS_INO_ROOT, "worn", S_IFREG | 0600, 0, &attr), 0);
        fs_forget(s, attr.ino, 1);
        count_op();
        promise(ops + 1);
        ck_assert_int_eq(fs_unlink(s, FS_INO_ROOT, "worn"), 0);
        count_op();
    }
}

static void run_workload(unsigned steps)
{
    unsigned inodes;

    ck_assert_int_eq(device_memory_open(&memory), 0);
    ck_assert_int_eq(device_record_open(memory, &record), 0);
    ops = durable = promise_count = moment_count = made_count = 0;
    clock_now = 1000;
    held = 0;
    held_name = NULL;
    promise(0);
    open_on(record);
    trees[0] = look_at(FS_INO_ROOT, &inodes);
    if (dice(2))
        wear();
    for (unsigned n = 0; n < steps; n++)
        step();
    let_go();
    fs_session_close(s);
    ck_assert_int_eq(fs_close(fs), 0);
    durable = ops;
    promise(ops);
}

/* ---- what must be there --------------------------------------------------------------------------------------- */

static void check_snapshots(uint64_t tick)
{
    struct fs_attr attr;

    for (unsigned i = 0; i < moment_count; i++) {
        const struct moment *m = &moments[i];
        char name[16];
        unsigned inodes;
        sprintf(name, "s%u", i);
        int rc = fs_lookup(s, FS_INO_SNAPSHOTS, name, &attr);
        if (rc == 0 && (m->begun > tick || m->drop_done <= tick))
            give_up("snapshot %s is there, and should not be", name);
        if (rc < 0 && m->done <= tick && tick < m->drop_begun)
            give_up("snapshot %s was promised: %s", name, strerror(-rc));
        if (rc < 0)
            continue;
        if (look_at(attr.ino, &inodes) != trees[m->op])
            give_up("snapshot %s is not what call %u left", name, m->op);
        fs_forget(s, attr.ino, 1);
    }
}

/* What has no name is gone: nobody who held it has survived. After look_at() of the root. */
static void check_orphans(void)
{
    for (unsigned i = 0; i < made_count; i++) {
        struct fs_attr attr;
        bool named = false;
        for (unsigned n = 0; n < walk.count; n++)
            named |= walk.nodes[n].ino == made[i];
        if (!named && fs_getattr(s, made[i], &attr) == 0)
            give_up("inode %llu has no name and is still there", (unsigned long long)made[i]);
    }
}

static void goes_on(struct device *device, unsigned inodes, uint64_t tick)
{
    struct fs_attr attr;
    struct fs_statfs statfs;
    int rc = fs_mknod(s, &cred, FS_INO_ROOT, "after", S_IFREG | 0600, 0, &attr);

    if (rc == 0)
        fs_forget(s, attr.ino, 1);
    if (rc == 0)
        rc = fs_write(s, attr.ino, "after", 5, 0, 0) == 5 ? 0 : -EIO;
    if (rc == 0)
        rc = fs_sync(fs);
    if (rc < 0)
        give_up("it does not go on: %s", strerror(-rc));
    fs_session_close(s);
    fs_abandon(fs);
    device_memory_crash(device);
    open_on(device);
    rc = fs_lookup(s, FS_INO_ROOT, "after", &attr);
    if (rc < 0 || attr.size != 5)
        give_up("what was synced after the crash is gone: %s", strerror(-rc));
    fs_forget(s, attr.ino, 1);
    ck_assert_int_eq(fs_statfs(s, &statfs), 0);
    if (statfs.files != inodes + 1)
        give_up("%u inodes, statfs says %llu", inodes + 1, (unsigned long long)statfs.files);
    check_snapshots(tick);
}

struct faults {
    unsigned superblocks;
    char first[300]; /* of the others */
};

static void take_fault(void *ctx, const struct fs_fault *fault)
{
    struct faults *faults = ctx;

    if (strncmp(fault->what, "superblock.", 11) == 0)
        faults->superblocks++;
    else if (!faults->first[0])
        snprintf(faults->first, sizeof faults->first, "%s (%llu): %s", fault->path ? fault->path : "-",
                 (unsigned long long)fault->ino, fault->what);
}

/* What a power cut leaves has no faults, but for one copy of the superblock that was being written. Before anything
 * was durable there may be no store, or no root. */
static void check_has_no_faults(struct device *state, bool promised)
{
    struct faults faults = {0};
    struct fs_check_options check = {.memory_bytes = 1 << 20, .fault = take_fault, .ctx = &faults};
    struct fs_checked checked;
    int rc = fs_check(state, &check, &checked);

    if (rc < 0 && promised)
        give_up("check: %s", checked.message);
    if (rc == 0 && (promised || checked.inodes > 0) && (faults.first[0] || faults.superblocks > 1))
        give_up("check finds a fault: %s", faults.first[0] ? faults.first : "both superblocks");
}

static uint64_t states;

static void check_crash(const struct device_crash *crash)
{
    struct device *state;
    struct fs_statfs statfs;
    unsigned i = 0, inodes;

    states++;
    while (i + 1 < promise_count && promises[i + 1].tick <= crash->tick)
        i++;
    ck_assert_int_eq(device_record_crash(record, crash, &state), 0);
    if (crash->seed % 4 == 1)
        check_has_no_faults(state, promises[i].durable > 0);
    open_on(state);
    uint64_t tree = look_at(FS_INO_ROOT, &inodes);
    unsigned op = promises[i].begun;
    while (trees[op] != tree) {
        if (op-- == promises[i].durable)
            give_up("not what any of the calls %u to %u left", promises[i].durable, promises[i].begun);
    }
    ck_assert_int_eq(fs_statfs(s, &statfs), 0);
    if (statfs.files != inodes)
        give_up("%u inodes can be reached, statfs says %llu", inodes, (unsigned long long)statfs.files);
    check_orphans();
    check_snapshots(crash->tick);
    if (crash->seed % 4 == 0)
        goes_on(state, inodes, crash->tick);
    fs_session_close(s);
    fs_abandon(fs);
    device_close(state);
}

START_TEST(a_power_cut_leaves_the_tree_as_it_was_after_some_call)
{
    uint64_t wanted = number_from("FASTERFS_STATES", 40000 / SLOWER / SLOWER);

    for (; states < wanted; workload_seed++) {
        struct device_crash one;
        sow();
        run_workload(20 + (unsigned)dice(150 / SLOWER));
        bool once = asked_for(&one);
        each_state(record, 4 / SLOWER, check_crash);
        device_close(record);
        device_close(memory);
        if (once)
            break;
    }
    printf("%llu states\n", (unsigned long long)states);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("fs states");

    first_seed();
    tcase_add_test(tests, a_power_cut_leaves_the_tree_as_it_was_after_some_call);
    return run_case("fs states", tests);
}
