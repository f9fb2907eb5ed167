// SPDX-License-Identifier: MIT
/*
 * The files of a store: superblocks, log, index images are edited and sealed; it is opened and used as a store, and as a
 * filesystem. what: 0, 1 superblocks, 2 to 5 an item of the log, 6 an index's header, 7 its buckets, 8 no index; 128:
 * the value is counted from the address of item `value`.
 */
#include "edit.h"
#include "small.h"

#define SB_INDEX_BITS 148

static struct image clean, image;

static void forget_index(void)
{
    for (unsigned i = 0; i < 2; i++) {
        put64_at(superblock_at(&image, i, SB_CHECKPOINT + AT_IMAGE), 0);
        put64_at(superblock_at(&image, i, SB_CHECKPOINT + AT_END), image.begin);
    }
}

static void apply(struct edit *edit)
{
    uint64_t item = image.items[edit->n % image.item_count];

    if (edit->what & 128)
        edit->value = image.items[edit->value % image.item_count] + (edit->value >> 56);
    switch (edit->what % 16) {
    case 0:
    case 1: /* the field that is edited is of 8 bytes, and the same in both */
        for (unsigned i = 0; i < 2; i++)
            edit_bytes(edit, superblock_at(&image, i, 0), SB_SNAPSHOTS + 3 * SNAPSHOT_BYTES, edit->at);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        edit_bytes(edit, image.log->bytes + item, image_item_bytes(&clean, item), edit->at);
        break;
    case 6:
        edit_bytes(edit, image.index->bytes, 128, edit->at);
        break;
    case 7:
        edit_bytes(edit, image.index->bytes + INDEX_BODY_AT, image.index->len - INDEX_BODY_AT, edit->n * 8u);
        break;
    case 8:
        forget_index();
        break;
    }
}

/* A larger table is a matter of time and memory, and nothing else. */
static void keep_small(void)
{
    uint32_t bits, was;

    for (unsigned i = 0; i < 2; i++) {
        memcpy(&was, superblock_at(&clean, i, SB_INDEX_BITS), sizeof was);
        memcpy(&bits, superblock_at(&image, i, SB_INDEX_BITS), sizeof bits);
        if (bits > was + 2)
            memcpy(superblock_at(&image, i, SB_INDEX_BITS), &was, sizeof was);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const keys[] = {"S", "a key that is not there", NULL};
    struct edit edit;

    if (clean.count == 0)
        small_make(&clean);
    image_copy(&clean, &image);
    for (unsigned i = 0; i < EDITS_MAX && edit_next(&data, &len, &edit); i++)
        apply(&edit);
    keep_small();
    image_seal(&image);
    struct device *device = image_put(&image);
    (void)use_fs(device);
    device_close(device);
    device = image_put(&image);
    (void)use_store(device, keys);
    device_close(device);
    return 0;
}
