// SPDX-License-Identifier: MIT
/* check_dropped: what mending took away, noted record by record, and told by the names of files. */
#include "checking.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int note(struct check *c, const struct dropped *dropped)
{
    bool full = c->dropped_count == CHECK_FAULTS_MAX;
    int rc = full ? 0 : check_grow(&c->dropped, c->dropped_count, &c->dropped_room, sizeof *c->dropped);

    c->dropped_untold += full;
    if (!full && rc == 0)
        c->dropped[c->dropped_count++] = *dropped;
    return rc;
}

int check_dropped(struct check *c, const void *key, uint32_t key_len)
{
    struct dropped dropped = {.key.len = key_len < sizeof dropped.key.bytes ? key_len : sizeof dropped.key.bytes};

    memcpy(dropped.key.bytes, key, dropped.key.len);
    check_key_range(key, key_len, &dropped.offset, &dropped.len);
    return note(c, &dropped);
}

int check_dropped_range(struct check *c, const struct fs_key *key, uint64_t offset, uint64_t len)
{
    struct dropped dropped = {.offset = offset, .len = len};

    if (key)
        dropped.key = *key;
    return note(c, &dropped);
}

int check_dropped_found(struct check *c, const struct fault *found, uint64_t count)
{
    int rc = 0;

    for (uint64_t i = 0; i < count && rc == 0; i++) {
        const struct fault *fault = &found[i];
        if (fault->kind == FAULT_STORE && fault->len > 0)
            rc = check_dropped_range(c, NULL, fault->number, fault->len);
        else if (fault->kind == FAULT_LOST && fault->snapshot == 0 && !memchr("EMBGHPY", fault->key->bytes[0], 7))
            rc = check_dropped(c, fault->key->bytes, fault->key->len); /* the others are made anew, or noted then */
    }
    return rc;
}

/* ---- paths ------------------------------------------------------------------------------------------------ */

static uint64_t ino_of(const struct dropped *dropped)
{
    return check_key_ino(dropped->key.bytes, dropped->key.len);
}

static int by_ino(const void *a, const void *b)
{
    const struct fault *const *left = a, *const *right = b;

    return (*left)->ino < (*right)->ino ? -1 : (*left)->ino > (*right)->ino;
}

/* Those that say the path of an inode itself, ascending; malloc'ed. NULL: no memory. */
static const struct fault **sort_found(const struct fault *found, uint64_t count, uint64_t *ret_count)
{
    const struct fault **sorted = malloc((count + 1) * sizeof *sorted);

    *ret_count = 0;
    for (uint64_t i = 0; sorted && i < count; i++)
        if (found[i].path && found[i].snapshot == 0 && !(found[i].key && found[i].key->bytes[0] == 'D'))
            sorted[(*ret_count)++] = &found[i];
    if (sorted)
        qsort(sorted, *ret_count, sizeof *sorted, by_ino);
    return sorted;
}

static char *path_before(const struct fault **sorted, uint64_t count, const struct dropped *dropped)
{
    const struct fault key = {.ino = ino_of(dropped)}, *wanted = &key;
    const struct fault **hit = bsearch(&wanted, sorted, count, sizeof *sorted, by_ino);
    const char *path = hit ? (*hit)->path : NULL;
    char *longer = NULL;

    if (!path || dropped->key.bytes[0] != 'D')
        return path ? strdup(path) : NULL;
    int len = asprintf(&longer, "%s/%.*s", path[1] ? path : "", (int)(dropped->key.len - 9),
                       (const char *)dropped->key.bytes + 9);
    return len < 0 ? NULL : longer;
}

int check_dropped_paths(struct check *c, const struct fault *found, uint64_t count)
{
    uint64_t sorted_count;
    const struct fault **sorted = sort_found(found, count, &sorted_count);
    int rc = sorted ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < c->dropped_count && rc == 0; i++) {
        struct dropped *dropped = &c->dropped[i];
        if (ino_of(dropped) && !(dropped->path = path_before(sorted, sorted_count, dropped)))
            rc = check_names_want(c, ino_of(dropped));
    }
    free(sorted);
    if (rc == 0 && c->wanted_count > 0)
        rc = check_names_look(c);
    for (uint64_t i = 0; i < c->dropped_count && rc == 0; i++) {
        struct dropped *dropped = &c->dropped[i];
        if (ino_of(dropped) && !dropped->path)
            dropped->path = check_path(c, ino_of(dropped), &dropped->key);
    }
    check_names_fini(c);
    return rc;
}

/* ---- telling ---------------------------------------------------------------------------------------------- */

static const char *words_of(const struct dropped *dropped)
{
    switch (dropped->key.len > 0 ? dropped->key.bytes[0] : 0) {
    case 0:
        return "part of the log";
    case 'I':
        return "attributes, and contents that stood with them";
    case 'D':
        return "name";
    case 'E':
    case 'M':
    case 'B':
    case 'G':
    case 'H':
        return "listing";
    case 'C':
    case 'c':
    case 'P':
        return "contents";
    case 'X':
        return "extended attributes";
    case 'Y':
        return "extended attribute";
    case 'O':
        return "entry of the reap list";
    default:
        return "record of no known kind";
    }
}

void check_dropped_tell(struct check *c)
{
    char name[FS_NAME_MAX + 1];

    for (uint64_t i = 0; i < c->dropped_count; i++) {
        struct dropped *dropped = &c->dropped[i];
        bool named = dropped->key.len > 9 && dropped->key.bytes[0] == 'Y';
        if (named)
            snprintf(name, sizeof name, "%.*s", (int)(dropped->key.len - 9), (const char *)dropped->key.bytes + 9);
        if (c->options.dropped)
            c->options.dropped(c->options.ctx, &(struct fs_dropped){.path = dropped->path,
                                                                    .what = words_of(dropped),
                                                                    .name = named ? name : NULL,
                                                                    .ino = ino_of(dropped),
                                                                    .offset = dropped->offset,
                                                                    .len = dropped->len});
        free(dropped->path);
    }
    free(c->dropped);
}
