// SPDX-License-Identifier: MIT
/* Who may do what, and what is taken away: modes, owners, setuid and setgid, ACLs. As root, for other users. */
#include "cases.h"

#include <linux/fs.h>
#include <linux/posix_acl_xattr.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#define USER 1001
#define GROUP 1001
#define OTHER 1002

static const char *target;

static int open_for_reading(void *arg)
{
    (void)arg;
    return open(target, O_RDONLY);
}

static int open_for_writing(void *arg)
{
    (void)arg;
    return open(target, O_WRONLY);
}

static int write_a_byte(void *arg)
{
    int fd = open(target, O_WRONLY);

    (void)arg;
    return fd < 0 ? -1 : (int)write(fd, "x", 1);
}

static int append_a_byte(void *arg)
{
    int fd = open(target, O_WRONLY | O_APPEND);

    (void)arg;
    return fd < 0 ? -1 : (int)write(fd, "x", 1);
}

static int truncate_it(void *arg)
{
    (void)arg;
    return truncate(target, 3);
}

static int truncate_on_open(void *arg)
{
    (void)arg;
    return open(target, O_WRONLY | O_TRUNC);
}

static int allocate(void *arg)
{
    int fd = open(target, O_WRONLY);

    (void)arg;
    return fd < 0 ? -1 : fallocate(fd, 0, 0, 10);
}

static int remove_it(void *arg)
{
    (void)arg;
    return unlink(target);
}

static int give_away(void *arg)
{
    (void)arg;
    return chown(target, OTHER, (gid_t)-1);
}

static int chmod_setgid(void *arg)
{
    (void)arg;
    return chmod(target, 02755);
}

static int make_a_file(void *arg)
{
    (void)arg;
    return open(target, O_CREAT | O_EXCL | O_WRONLY, 0666);
}

static int set_times_now(void *arg)
{
    (void)arg;
    return utimensat(AT_FDCWD, target, NULL, 0);
}

static int set_times(void *arg)
{
    struct timespec times[2] = {{1, 2}, {3, 4}};

    (void)arg;
    return utimensat(AT_FDCWD, target, times, 0);
}

static void a_file_of(uid_t uid, gid_t gid, mode_t mode)
{
    (void)unlink("f");
    close(make_file("f", 0600));
    ok(truncate("f", 10));
    ok(chown("f", uid, gid));
    ok(chmod("f", mode));
    target = "f";
}

static void modes_are_kept(void)
{
    a_file_of(USER, GROUP, 0640);
    equal(0, as_user(USER, OTHER, open_for_writing, NULL));
    equal(0, as_user(OTHER, GROUP, open_for_reading, NULL));
    equal(EACCES, as_user(OTHER, GROUP, open_for_writing, NULL));
    equal(EACCES, as_user(OTHER, OTHER, open_for_reading, NULL));
    equal(EPERM, as_user(OTHER, OTHER, set_times, NULL));
    equal(EACCES, as_user(OTHER, GROUP, set_times_now, NULL));
    equal(EPERM, as_user(USER, GROUP, give_away, NULL));
    ok(chmod("f", 0666));
    equal(0, as_user(OTHER, OTHER, set_times_now, NULL));
}

static void sticky_directories(void)
{
    ok(chmod(".", 01777));
    a_file_of(USER, GROUP, 0666);
    equal(EPERM, as_user(OTHER, GROUP, remove_it, NULL));
    equal(0, as_user(USER, GROUP, remove_it, NULL));
}

static void setgid_directories(void)
{
    ok(mkdir("d", 0755));
    ok(chown("d", 0, GROUP));
    ok(chmod("d", 02777));
    target = "d/f";
    equal(0, as_user(USER, OTHER, make_a_file, NULL));
    equal(GROUP, stat_of("d/f").st_gid);
    equal(USER, stat_of("d/f").st_uid);
    ok(mkdir("d/e", 0755));
    equal(02755, mode_of("d/e"));
    equal(GROUP, stat_of("d/e").st_gid);
    a_file_of(USER, GROUP, 0755);
    equal(0, as_user(USER, OTHER, chmod_setgid, NULL)); /* not of the group: setgid is dropped silently */
    equal(0755, mode_of("f"));
}

static void changes_by_users_take_setuid_away(void)
{
    static int (*const changes[])(void *) = {write_a_byte, append_a_byte, truncate_it, truncate_on_open, allocate};

    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        a_file_of(USER, GROUP, 06777);
        equal(0, as_user(OTHER, OTHER, changes[i], NULL));
        equal(0777, mode_of("f"));
        a_file_of(USER, GROUP, 06766);
        equal(0, as_user(OTHER, OTHER, changes[i], NULL));
        equal(0766, mode_of("f"));
        a_file_of(USER, GROUP, 06777);
        changes[i](NULL); /* root may */
        equal(06777, mode_of("f"));
    }
    a_file_of(USER, GROUP, 06755);
    ok(chown("f", OTHER, (gid_t)-1));
    equal(0755, mode_of("f"));
    ok(mkdir("d", 0755));
    ok(chmod("d", 06755));
    ok(chown("d", OTHER, GROUP));
    equal(06755, mode_of("d"));
}

static void changes_take_capabilities_away(void)
{
    static const struct { /* struct vfs_cap_data, revision 2: cap_net_raw */
        uint32_t words[5];
    } cap = {{0x02000001, 1 << 13, 0, 0, 0}};
    char value[64];

    for (int how = 0; how < 3; how++) {
        a_file_of(USER, GROUP, 0777);
        equal(ENODATA, getxattr("f", "security.capability", value, sizeof value) < 0 ? errno : 0);
        ok(setxattr("f", "security.capability", &cap, sizeof cap, 0));
        ok(getxattr("f", "security.capability", value, sizeof value));
        if (how == 0)
            holds(write_a_byte(NULL) == 1);
        if (how == 1)
            ok(chown("f", OTHER, (gid_t)-1));
        if (how == 2)
            ok(truncate("f", 1));
        gives(ENODATA, getxattr("f", "security.capability", value, sizeof value));
    }
}

static size_t acl_for(uint32_t uid, int perm, int mask, uint8_t *bytes)
{
    const struct posix_acl_xattr_header header = {htole32(POSIX_ACL_XATTR_VERSION)};
    const struct posix_acl_xattr_entry entries[] = {{htole16(0x01), htole16(6), htole32(~0u)},
                                                    {htole16(0x02), htole16((uint16_t)perm), htole32(uid)},
                                                    {htole16(0x04), htole16(0), htole32(~0u)},
                                                    {htole16(0x10), htole16((uint16_t)mask), htole32(~0u)},
                                                    {htole16(0x20), htole16(0), htole32(~0u)}};

    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, entries, sizeof entries);
    return sizeof header + sizeof entries;
}

static void acls_are_enforced(void)
{
    uint8_t acl[64], got[64];
    size_t len = acl_for(OTHER, 6, 7, acl);

    a_file_of(USER, GROUP, 0600);
    equal(EACCES, as_user(OTHER, OTHER, open_for_writing, NULL));
    ok(setxattr("f", "system.posix_acl_access", acl, len, 0));
    equal(0670, mode_of("f"));
    equal(0, as_user(OTHER, OTHER, open_for_writing, NULL));
    equal(EACCES, as_user(1003, 1003, open_for_reading, NULL));
    equal(EACCES, as_user(1003, GROUP, open_for_reading, NULL));
    ok(chmod("f", 0640)); /* the mask */
    equal(EACCES, as_user(OTHER, OTHER, open_for_writing, NULL));
    equal(0, as_user(OTHER, OTHER, open_for_reading, NULL));
    equal(len, getxattr("f", "system.posix_acl_access", got, sizeof got));
    ok(removexattr("f", "system.posix_acl_access"));
    equal(EACCES, as_user(OTHER, OTHER, open_for_reading, NULL));
    gives(EINVAL, setxattr("f", "system.posix_acl_access", acl, len - 8, 0));
    gives(EACCES, setxattr("f", "system.posix_acl_default", acl, len, 0));
}

static void default_acls_are_inherited(void)
{
    uint8_t acl[64], got[64];
    size_t len = acl_for(OTHER, 7, 7, acl);

    ok(mkdir("d", 0777));
    ok(setxattr("d", "system.posix_acl_default", acl, len, 0));
    umask(077);
    close(open("d/f", O_CREAT | O_WRONLY, 0666));
    equal(0660, mode_of("d/f"));
    ok(mkdir("d/e", 0777));
    equal(0670, mode_of("d/e"));
    equal(len, getxattr("d/e", "system.posix_acl_default", got, sizeof got));
    equal(0, memcmp(got, acl, len));
    ok(chmod("d", 0755));
    target = "d/f";
    equal(0, as_user(OTHER, OTHER, open_for_writing, NULL));
    equal(EACCES, as_user(1003, 1003, open_for_reading, NULL));
    ok(removexattr("d", "system.posix_acl_default"));
    close(open("d/g", O_CREAT | O_WRONLY, 0666));
    equal(0600, mode_of("d/g"));
}

static int list_all(void *arg)
{
    char names[256];

    errno = (int)listxattr(target, names, sizeof names);
    (void)arg;
    return -1; /* the length is handed out as errno */
}

static int read_trusted(void *arg)
{
    char value[8];

    (void)arg;
    return (int)getxattr(target, "trusted.t", value, sizeof value);
}

static int set_security(void *arg)
{
    (void)arg;
    return setxattr(target, "security.s", "x", 1, 0);
}

static void trusted_is_for_root(void)
{
    a_file_of(USER, GROUP, 0666);
    ok(setxattr("f", "trusted.t", "x", 1, 0));
    ok(setxattr("f", "user.u", "x", 1, 0));
    equal(ENODATA, as_user(USER, GROUP, read_trusted, NULL));
    equal(7, as_user(USER, GROUP, list_all, NULL));
    equal(17, listxattr("f", NULL, 0));
    equal(EPERM, as_user(USER, GROUP, set_security, NULL));
    ok(mkfifo("p", 0666));
    gives(EPERM, setxattr("p", "user.u", "x", 1, 0));
    ok(setxattr("p", "trusted.t", "x", 1, 0));
    ok(symlink("f", "l"));
    gives(EPERM, lsetxattr("l", "user.u", "x", 1, 0));
    ok(lsetxattr("l", "trusted.t", "x", 1, 0));
}

static void set_flags(const char *name, int flags)
{
    int fd = open(name, O_RDONLY), now;

    ok(ioctl(fd, FS_IOC_SETFLAGS, &flags));
    ok(ioctl(fd, FS_IOC_GETFLAGS, &now));
    equal(flags, now & (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL));
    close(fd);
}

static void flags_move_ctime(void)
{
    struct stat before, after;

    a_file_of(USER, GROUP, 0666);
    ok(stat("f", &before));
    usleep(20000); /* more than a tick of the kernel's clock */
    set_flags("f", FS_NODUMP_FL);
    ok(stat("f", &after));
    equal(true, after.st_ctim.tv_sec != before.st_ctim.tv_sec || after.st_ctim.tv_nsec != before.st_ctim.tv_nsec);
}

static int set_immutable(void *arg)
{
    int flags = FS_IMMUTABLE_FL;

    (void)arg;
    return ioctl(open("f", O_RDONLY), FS_IOC_SETFLAGS, &flags);
}

static void flags_are_kept(void)
{
    a_file_of(USER, GROUP, 0666);
    target = "f";
    equal(EPERM, as_user(USER, GROUP, set_immutable, NULL));
    set_flags("f", FS_IMMUTABLE_FL);
    equal(EPERM, as_user(USER, GROUP, write_a_byte, NULL));
    equal(EPERM, as_user(USER, GROUP, append_a_byte, NULL));
    gives(EPERM, chmod("f", 0600));
    gives(EPERM, truncate("f", 0));
    gives(EPERM, unlink("f"));
    gives(EPERM, rename("f", "g"));
    gives(EPERM, link("f", "g"));
    gives(EPERM, setxattr("f", "user.a", "x", 1, 0));
    set_flags("f", FS_APPEND_FL | FS_NODUMP_FL);
    equal(EPERM, as_user(USER, GROUP, write_a_byte, NULL));
    equal(0, as_user(USER, GROUP, append_a_byte, NULL));
    gives(EPERM, truncate("f", 0));
    set_flags("f", 0);
    ok(unlink("f"));
    ok(mkdir("d", 0777));
    set_flags("d", FS_IMMUTABLE_FL);
    gives(EPERM, mkdir("d/e", 0777));
    set_flags("d", 0);
    ok(mkdir("d/e", 0777));
}

const struct posix_case PERMISSIONS[] = {
    {"modes, owners and times keep others out", modes_are_kept, true},
    {"a sticky directory", sticky_directories, true},
    {"setgid directories hand down their group; chmod by others drops setgid", setgid_directories, true},
    {"write, truncate, O_TRUNC, fallocate and chown take setuid and setgid away", changes_by_users_take_setuid_away,
     true},
    {"write, truncate and chown take security.capability away", changes_take_capabilities_away, true},
    {"an access ACL is enforced, and follows chmod", acls_are_enforced, true},
    {"a default ACL is inherited, instead of the umask", default_acls_are_inherited, true},
    {"trusted. is root's, user. is for files and directories", trusted_is_for_root, true},
    {"immutable and append-only, as chattr(1) sets them", flags_are_kept, true},
    {"a change of flags moves ctime, and stat(2) knows at once", flags_move_ctime, true},
    {NULL, NULL, false}};
