// SPDX-License-Identifier: MIT
/*
 * check_names: paths for inodes of the tree that is being read. Names are not kept while it is checked; those of the
 * few that are at fault are looked for afterwards: one scan for their own names, one for those of the directories
 * above.
 */
#include "checking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 4096u

uint64_t check_key_ino(const void *key, uint32_t key_len)
{
    const uint8_t *bytes = key;

    return key_len >= 9 && memchr("IDEMBGHCcPXY", bytes[0], 12) ? key_number(bytes + 1) : 0;
}

const char *check_key_words(const void *key, uint32_t key_len)
{
    switch (key_len > 0 ? *(const char *)key : 0) {
    case 'I':
        return "attributes cannot be read";
    case 'D':
    case 'E':
    case 'M':
    case 'B':
    case 'G':
    case 'H':
        return "a name cannot be read";
    case 'C':
    case 'c':
    case 'P':
        return "contents cannot be read";
    case 'X':
    case 'Y':
        return "extended attributes cannot be read";
    default:
        return "a record cannot be read";
    }
}

void check_key_range(const void *key, uint32_t key_len, uint64_t *ret_offset, uint64_t *ret_len)
{
    const uint8_t *bytes = key;
    uint64_t number = key_len >= 17 ? key_number(bytes + 9) : 0;

    *ret_offset = *ret_len = 0;
    if (key_len == 17 && bytes[0] == 'C')
        *ret_len = FS_CHUNK_BYTES;
    else if (key_len == 18 && bytes[0] == 'c')
        *ret_len = FS_PAGE_BYTES;
    else if (key_len == 17 && bytes[0] == 'P')
        *ret_len = MASKS_CHUNKS * FS_CHUNK_BYTES;
    if (*ret_len > 0)
        *ret_offset = number * (bytes[0] == 'P' ? *ret_len : FS_CHUNK_BYTES);
    if (*ret_len == FS_PAGE_BYTES)
        *ret_offset += bytes[17] * (uint64_t)FS_PAGE_BYTES;
}

static int compare(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;

    return *left < *right ? -1 : *left > *right;
}

static int by_ino(const void *a, const void *b)
{
    return compare(&((const struct named *)a)->ino, &((const struct named *)b)->ino);
}

int check_names_want(struct check *c, uint64_t ino)
{
    int rc = check_grow(&c->wanted, c->wanted_count, &c->wanted_room, sizeof *c->wanted);

    if (rc == 0)
        c->wanted[c->wanted_count++] = ino;
    return rc;
}

static void sort_wanted(struct check *c)
{
    uint64_t kept = 0;

    if (c->wanted_count > 0)
        qsort(c->wanted, c->wanted_count, sizeof *c->wanted, compare);
    for (uint64_t i = 0; i < c->wanted_count; i++)
        if (i == 0 || c->wanted[i] != c->wanted[kept - 1])
            c->wanted[kept++] = c->wanted[i];
    c->wanted_count = kept;
}

static int take_name(struct check *c, const uint8_t *key, uint32_t key_len, uint64_t ino)
{
    int rc = check_grow(&c->named, c->named_count, &c->named_room, sizeof *c->named);
    char *name = strndup((const char *)key + 9, key_len - 9);

    if (rc < 0 || !name) {
        free(name);
        return -ENOMEM;
    }
    c->named[c->named_count++] = (struct named){.ino = ino, .parent = key_number(key + 1), .name = name};
    return 0;
}

static int each_entry(void *ctx, const struct store_item *item)
{
    struct check *c = ctx;
    struct entry entry;
    const uint8_t *key = item->key;

    if (key[0] != 'D' || item->key_len <= 9 || entry_decode(item->value, item->value_len, &entry) < 0 ||
        !bsearch(&entry.ino, c->wanted, c->wanted_count, sizeof entry.ino, compare))
        return 0;
    return take_name(c, key, item->key_len, entry.ino);
}

static struct named *find(const struct check *c, uint64_t ino)
{
    struct named key = {.ino = ino};

    return c->named_count ? bsearch(&key, c->named, c->named_count, sizeof key, by_ino) : NULL;
}

/* The directories above those that have names by now. */
static int want_above(struct check *c)
{
    int rc = 0;

    c->wanted_count = 0;
    for (uint64_t i = 0; i < c->named_count && rc == 0; i++) {
        uint64_t ino = c->named[i].parent;
        while (ino != FS_INO_ROOT && rc == 0) {
            struct node *node = check_node(c, ino);
            if (node && node->state & NODE_WANTED)
                break;
            if (!find(c, ino))
                rc = check_names_want(c, ino);
            if (!node || !S_ISDIR(node->mode))
                break;
            node->state |= NODE_WANTED;
            ino = node->dir.parent;
        }
    }
    sort_wanted(c);
    return rc;
}

static void sort_named(struct check *c)
{
    if (c->named_count > 0)
        qsort(c->named, c->named_count, sizeof *c->named, by_ino);
}

int check_names_look(struct check *c)
{
    int rc = 0;

    sort_wanted(c);
    if (c->wanted_count > 0)
        rc = check_scan(c, "names", each_entry);
    sort_named(c);
    if (rc == 0)
        rc = want_above(c);
    if (rc == 0 && c->wanted_count > 0)
        rc = check_scan(c, "names", each_entry);
    sort_named(c);
    return rc;
}

int check_names(struct check *c)
{
    int rc = 0;

    for (uint64_t i = 0; i < c->fault_count && rc == 0; i++) {
        const struct fault *fault = &c->faults[i];
        if (fault->snapshot != check_tree_id(c))
            continue;
        if (fault->ino)
            rc = check_names_want(c, fault->ino);
        if (fault->key && fault->key->bytes[0] == 'D' && fault->kind != FAULT_PARENT && rc == 0)
            rc = check_names_want(c, check_key_ino(fault->key->bytes, fault->key->len));
    }
    if (rc == 0 && c->wanted_count > 0)
        rc = check_names_look(c);
    for (uint64_t i = 0; i < c->fault_count && rc == 0; i++) {
        struct fault *fault = &c->faults[i];
        if (fault->snapshot == check_tree_id(c) && fault->ino && !(fault->path = check_path(c, fault->ino, fault->key)))
            rc = -ENOMEM;
    }
    check_names_fini(c);
    return rc;
}

/* Puts `name` and a slash before what the buffer ends with. */
static char *before(char *at, const char *start, const char *name)
{
    size_t len = strlen(name);

    if ((size_t)(at - start) < len + 1)
        return at;
    memcpy(at -= len, name, len);
    *--at = '/';
    return at;
}

/* Writes the path of an inode into what ends at `at`; returns where it begins. */
static char *path_up(const struct check *c, uint64_t ino, char *at, const char *start)
{
    char number[32];

    for (uint64_t first = ino, depth = 0; ino != FS_INO_ROOT && depth < DEPTH_MAX; depth++) {
        const struct named *named = find(c, ino);
        if (!named || (ino == first && depth > 0)) { /* or inside itself */
            snprintf(number, sizeof number, "#%llu", (unsigned long long)ino);
            return before(at, start, number);
        }
        at = before(at, start, named->name);
        ino = named->parent;
    }
    return at;
}

char *check_path(struct check *c, uint64_t ino, const struct fs_key *key)
{
    char buffer[4096 * 4], name[sizeof key->bytes];
    char *at = buffer + sizeof buffer - 1;

    *at = 0;
    if (key && key->bytes[0] == 'D' && ino == check_key_ino(key->bytes, key->len)) {
        memcpy(name, key->bytes + 9, key->len - 9);
        name[key->len - 9] = 0;
        at = before(at, buffer, name);
    }
    at = path_up(c, ino, at, buffer + sizeof c->tree_of->info.label + sizeof FS_SNAPSHOTS_NAME + 1);
    if (c->tree_of) {
        at = before(at, buffer, c->tree_of->info.label);
        at = before(at, buffer, FS_SNAPSHOTS_NAME);
    }
    return strdup(*at ? at : "/");
}

void check_names_fini(struct check *c)
{
    for (uint64_t i = 0; i < c->named_count; i++)
        free(c->named[i].name);
    free(c->named);
    free(c->wanted);
    c->named = NULL;
    c->wanted = NULL;
    c->named_count = c->named_room = c->wanted_count = c->wanted_room = 0;
}
