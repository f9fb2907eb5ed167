// SPDX-License-Identifier: MIT
/*
 * POSIX.1e access control lists, in the format of the kernel's attributes: 4 bytes of version, then for each
 * entry tag (2), permissions (2), id (4), little-endian. The order is owner, users, group, groups, mask,
 * others. Who may do what is checked by the kernel; here they follow chmod and are inherited.
 */
#include "private.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/posix_acl_xattr.h>
#include <stddef.h>
#include <string.h>

static_assert(sizeof(struct posix_acl_xattr_header) == 4 && sizeof(struct posix_acl_xattr_entry) == 8,
              "the kernel's format");

#define NONE UINT32_MAX

static uint32_t count_of(uint32_t len)
{
    return (len - (uint32_t)sizeof(struct posix_acl_xattr_header)) / (uint32_t)sizeof(struct posix_acl_xattr_entry);
}

static struct posix_acl_xattr_entry entry_at(const uint8_t *acl, uint32_t i)
{
    struct posix_acl_xattr_entry entry;

    memcpy(&entry, acl + sizeof(struct posix_acl_xattr_header) + i * sizeof entry, sizeof entry);
    return (struct posix_acl_xattr_entry){le16toh(entry.e_tag), le16toh(entry.e_perm), le32toh(entry.e_id)};
}

static void set_perm(uint8_t *acl, uint32_t i, uint32_t perm)
{
    uint16_t bytes = htole16((uint16_t)perm);

    memcpy(acl + sizeof(struct posix_acl_xattr_header) + i * sizeof(struct posix_acl_xattr_entry) +
               offsetof(struct posix_acl_xattr_entry, e_perm),
           &bytes, sizeof bytes);
}

/* Place in the order of entries; 0: no such tag. */
static unsigned rank_of(uint16_t tag)
{
    static const uint16_t order[] = {0, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20};

    for (unsigned i = 1; i < sizeof order / sizeof order[0]; i++)
        if (order[i] == tag)
            return i;
    return 0;
}

enum { RANK_OWNER = 1, RANK_USER, RANK_GROUP, RANK_NAMED_GROUP, RANK_MASK, RANK_OTHER, RANKS };

/* How many entries of each rank there are, and where the last of each is. -EINVAL. */
static int survey(const uint8_t *acl, uint32_t len, uint32_t counts[RANKS], uint32_t places[RANKS])
{
    uint32_t version;
    unsigned last = 0;

    if (len < sizeof version || (len - sizeof version) % sizeof(struct posix_acl_xattr_entry))
        return -EINVAL;
    memcpy(&version, acl, sizeof version);
    if (le32toh(version) != POSIX_ACL_XATTR_VERSION)
        return -EINVAL;
    memset(counts, 0, RANKS * sizeof *counts);
    for (uint32_t i = 0; i < count_of(len); i++) {
        struct posix_acl_xattr_entry entry = entry_at(acl, i);
        unsigned rank = rank_of(entry.e_tag);
        bool named = rank == RANK_USER || rank == RANK_NAMED_GROUP;
        if (rank == 0 || rank < last || (entry.e_perm & ~7) || (rank == last && !named) ||
            (named && entry.e_id == NONE))
            return -EINVAL;
        last = rank;
        counts[rank]++;
        places[rank] = i;
    }
    return 0;
}

int acl_check(const uint8_t *acl, uint32_t len)
{
    uint32_t counts[RANKS], places[RANKS];
    int rc = survey(acl, len, counts, places);

    if (rc < 0)
        return rc;
    if (count_of(len) == 0)
        return 1;
    bool named = counts[RANK_USER] > 0 || counts[RANK_NAMED_GROUP] > 0;
    return counts[RANK_OWNER] && counts[RANK_GROUP] && counts[RANK_OTHER] && (!named || counts[RANK_MASK]) ? 0
                                                                                                           : -EINVAL;
}

/* The entry that stands for the group bits of the mode. */
static uint32_t group_of(const uint32_t counts[RANKS], const uint32_t places[RANKS])
{
    return counts[RANK_MASK] ? places[RANK_MASK] : places[RANK_GROUP];
}

bool acl_mode(const uint8_t *acl, uint32_t len, uint32_t *mode)
{
    uint32_t counts[RANKS], places[RANKS];

    if (survey(acl, len, counts, places) < 0)
        return false;
    *mode = (*mode & ~0777u) | (uint32_t)entry_at(acl, places[RANK_OWNER]).e_perm << 6 |
            (uint32_t)entry_at(acl, group_of(counts, places)).e_perm << 3 | entry_at(acl, places[RANK_OTHER]).e_perm;
    return count_of(len) == 3;
}

int acl_chmod(uint8_t *acl, uint32_t len, uint32_t mode)
{
    uint32_t counts[RANKS], places[RANKS];

    if (acl_check(acl, len) != 0 || survey(acl, len, counts, places) < 0)
        return -EIO;
    set_perm(acl, places[RANK_OWNER], mode >> 6 & 7);
    set_perm(acl, group_of(counts, places), mode >> 3 & 7);
    set_perm(acl, places[RANK_OTHER], mode & 7);
    return 0;
}

int acl_inherit(struct fs_session *s, const struct inode *dir, mode_t umask, struct inode *inode)
{
    struct view view = {.ino = dir->ino};
    uint32_t len = 0, mode = 0;

    if (S_ISLNK(inode->mode))
        return 0;
    if (!(dir->flags & INODE_DEFAULT_ACL)) {
        inode->mode &= ~(umask & 0777);
        return 0;
    }
    int rc = xattrs_load(s, &view, dir);
    if (rc < 0)
        return rc;
    uint8_t *access = s->xattrs->acl[0], *inherited = s->xattrs->acl[1];
    rc = xattrs_get(s, &view, FS_ACL_DEFAULT, inherited, sizeof s->xattrs->acl[1], &len);
    if (rc < 0 || acl_check(inherited, len) != 0)
        return rc == -ENODATA || rc == 0 ? -EIO : rc;
    memcpy(access, inherited, len);
    bool plain = acl_mode(inherited, len, &mode);
    inode->mode &= ~0777u | mode; /* what is asked for and granted */
    rc = acl_chmod(access, len, inode->mode);
    s->xattrs->len = 0; /* from here on the new inode's */
    if (rc == 0 && !plain)
        rc = xattrs_put(s, inode, FS_ACL_ACCESS, access, len);
    if (rc == 0 && S_ISDIR(inode->mode))
        rc = xattrs_put(s, inode, FS_ACL_DEFAULT, inherited, len);
    return rc < 0 ? rc : xattrs_store(s, inode);
}
