// SPDX-License-Identifier: MIT
/* A superblock: the input stands in it from the checksum on, which is made to fit. */
#include "edit.h"
#include "image.h"

#include <superblock.h>

static uint8_t block[2 * DEVICE_BLOCK_BYTES] __attribute__((aligned(DEVICE_BLOCK_BYTES)));

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct image_file file = {.bytes = block, .len = sizeof block};
    struct superblock sb;
    struct device *device;
    struct device_queue *queue;
    struct superblock_copies copies;
    char message[512];
    uint32_t head[2] = {SUPERBLOCK_FORMAT, 0}, holes;

    memset(block, 0, sizeof block);
    put64_at(block, SUPERBLOCK_MAGIC);
    memcpy(block + SB_CHECKSUM + 8, data, len < sizeof block - SB_CHECKSUM - 8 ? len : sizeof block - SB_CHECKSUM - 8);
    memcpy(head + 1, block + SB_SNAPSHOT_COUNT, 4);
    memcpy(&holes, block + SB_SNAPSHOT_COUNT + 8, 4);
    head[1] = (uint32_t)SB_SNAPSHOTS + head[1] * (uint32_t)SNAPSHOT_BYTES + holes * (uint32_t)sizeof(struct log_range);
    memcpy(block + 8, head, sizeof head);
    seal_superblock(&file);
    if (device_memory_open(&device) < 0 || device_queue_open(device, 1, &queue) < 0)
        abort();
    int fd = device_file_open(device, "superblock.0", DEVICE_FILE_CREATE);
    if (device_transfer(queue, DEVICE_WRITE, fd, 0, block, sizeof block) < 0)
        abort();
    device_file_close(device, fd);
    device_queue_close(queue);
    if (superblock_read(device, &sb, &copies, message, sizeof message) == 0) {
        if (superblock_begin(&sb) > superblock_reach(&sb) || superblock_write(device, &sb) < 0)
            abort();
        superblock_fini(&sb);
        if (superblock_read(device, &sb, &copies, message, sizeof message) < 0) /* what is written can be read */
            abort();
        superblock_fini(&sb);
    }
    device_close(device);
    return 0;
}
