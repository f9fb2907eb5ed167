// SPDX-License-Identifier: MIT
/*
 * check_snapshots: what check_tree.c does for the live tree, for each snapshot: its own part of the log is read twice,
 * and looked up in its index image.
 *
 * What a damaged record hides counts as not there, and is told once for each key.
 */
#include "checking.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_key(const void *a, const void *b)
{
    const struct fault *left = a, *right = b;

    if (left->ino != right->ino)
        return left->ino < right->ino ? -1 : 1;
    if (left->kind != right->kind)
        return left->kind < right->kind ? -1 : 1;
    if (!left->key || !right->key)
        return (left->key != NULL) - (right->key != NULL);
    if (left->key->len != right->key->len)
        return left->key->len < right->key->len ? -1 : 1;
    return memcmp(left->key->bytes, right->key->bytes, left->key->len);
}

/* A key whose older values are hidden as well was noted more than once. */
static void drop_same(struct check *c, uint64_t first)
{
    uint64_t kept = first;

    if (c->fault_count > first)
        qsort(c->faults + first, c->fault_count - first, sizeof *c->faults, by_key);
    for (uint64_t i = first; i < c->fault_count; i++) {
        struct fault *fault = &c->faults[i];
        if (kept > first && fault->kind == FAULT_LOST && by_key(&c->faults[kept - 1], fault) == 0)
            free(fault->key);
        else
            c->faults[kept++] = *fault;
    }
    c->fault_count = kept;
}

static int read_snapshot(struct check *c)
{
    uint64_t first = c->fault_count;
    int rc = check_gone(c);

    if (rc == 0)
        rc = check_read(c);
    drop_same(c, first);
    return rc < 0 ? rc : check_names(c);
}

int check_snapshots(struct check *c)
{
    int rc = 0;

    for (uint64_t i = 0; i < c->snapshot_count && rc == 0; i++) {
        struct snapshot *snapshot = &c->snapshots[i];
        struct store_snapshot *tree;
        if (snapshot->read)
            continue;
        rc = store_snapshot_open(c->store, snapshot->info.id, &tree);
        if (rc == -EUCLEAN || rc == -ENOENT || rc == -EIO) {
            rc = 0; /* the store has told */
            continue;
        }
        if (rc < 0)
            break;
        c->tree = tree;
        c->tree_of = snapshot;
        rc = read_snapshot(c);
        c->tree = NULL;
        c->tree_of = NULL;
        store_snapshot_close(tree);
        snapshot->read = rc == 0;
    }
    return rc;
}
