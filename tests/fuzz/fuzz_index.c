// SPDX-License-Identifier: MIT
/*
 * An index image: the input is how many buckets and bits, then the buckets; the header is made to fit. What passes the
 * check is used in place, loaded, changed, grown, swept and saved, and what was saved passes the check.
 */
#include "edit.h"
#include "image.h"

#include <epoch.h>
#include <errno.h>
#include <index.h>

#define ROOM (64u << 10)

static uint8_t image[ROOM + 3 * 4096] __attribute__((aligned(4096)));

struct saved {
    uint8_t *bytes;
    uint64_t len;
};

static int read_bytes(void *ctx, uint64_t offset, void *buf, uint32_t len)
{
    const struct saved *from = ctx;

    if (offset > from->len || len > from->len - offset)
        return -EIO;
    memcpy(buf, from->bytes + offset, len);
    return 0;
}

static int check(struct saved *from, uint64_t number, uint64_t reach, struct index_image *ret_image)
{
    const char *why;

    *ret_image = (struct index_image){.read = read_bytes, .ctx = from};
    int rc = index_image_open(ret_image, from->len, 1, number, &why);
    return rc < 0 ? rc : index_image_check(ret_image, reach, &why);
}

static int save(void *ctx, const void *bytes, uint32_t len)
{
    struct saved *saved = ctx;

    saved->bytes = realloc(saved->bytes, saved->len + len);
    if (!saved->bytes)
        abort();
    memcpy(saved->bytes + saved->len, bytes, len);
    saved->len += len;
    return 0;
}

static void change(struct index *index, struct epoch *epoch)
{
    struct saved saved = {NULL, 0};
    struct epoch_slot *slot;
    struct index_image reader;

    if (epoch_slot_get(epoch, &slot) < 0)
        abort();
    for (uint64_t i = 0; i < 64; i++) {
        index_slot *found;
        uint64_t entry, hash = i * UINT64_C(0x9e3779b97f4a7c15);
        epoch_enter(epoch, slot);
        if (index_find_or_create(index, hash, &found, &entry) == 0 && index_try_lock(found, entry)) {
            index_publish(found, 4096 + i * 8);
            index_unlock(found);
        }
        epoch_leave(slot);
    }
    epoch_slot_put(slot);
    while (index_grow(index) > 0)
        continue;
    index_sweep(index, UINT64_C(1) << 40);
    if (index_save(index, 1, 3, save, &saved) < 0 || check(&saved, 3, UINT64_MAX, &reader) < 0)
        abort();
    free(saved.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct epoch *epoch;
    static const char magic[] = "FFSINDEX";
    struct image_file file = {.bytes = image};
    struct saved from = {.bytes = image};
    struct index_image reader;
    struct index *index;

    if (len < 2 || (!epoch && epoch_open(&epoch) < 0))
        return 0;
    uint64_t buckets = UINT64_C(64) << data[0] % 3, bits = data[1], body_len = len - 2;
    body_len = body_len < ROOM ? body_len : ROOM;
    uint64_t overflow = body_len > buckets * 64 ? (body_len + 63) / 64 - buckets : 0;
    uint64_t body = ((buckets + overflow) * 64 + 4095) & ~UINT64_C(4095), pieces = (body + 65535) / 65536;
    memset(image, 0, sizeof image);
    memcpy(image, magic, 8);
    put64_at(image + 8, UINT64_C(65536) << 32 | 2);
    put64_at(image + 16, 1);
    put64_at(image + 24, 2);
    put64_at(image + 32, buckets);
    put64_at(image + 40, overflow);
    put64_at(image + 48, pieces);
    file.len = INDEX_BODY_AT + body + 4096;
    put64_at(image + 56, file.len);
    put64_at(image + 64, bits);
    memcpy(image + INDEX_BODY_AT, data + 2, body_len);
    seal_index(&file);
    from.len = file.len;
    (void)check(&from, 2, 1 << 20, &reader);
    if (check(&from, 2, UINT64_MAX, &reader) < 0)
        return 0;
    for (uint64_t i = 0, address; i < 200; i++)
        if (index_image_find(&reader, i * UINT64_C(0x9e3779b97f4a7c15), &address) < 0)
            abort();
    if (index_open(buckets, reader.bits, epoch, &index) < 0)
        abort();
    if (index_load(index, &reader) == 0)
        change(index, epoch);
    index_close(index);
    return 0;
}
