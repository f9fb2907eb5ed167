// SPDX-License-Identifier: MIT
#include "superblock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* On disk: this, then snapshot_count entries, then hole_count ranges; padded with zeros to blocks. */
struct disk_superblock {
    uint64_t magic;
    uint32_t format;
    uint32_t bytes;    /* of header and entries */
    uint64_t checksum; /* XXH3-64 of `bytes` bytes, this field zero */
    uint64_t sequence, store_id, segment_bytes;
    uint64_t incarnation, incarnation_begin;
    uint64_t next_image, next_snapshot;
    struct checkpoint checkpoint;
    uint32_t snapshot_count;
    uint32_t index_bits;
    uint32_t hole_count;
    uint32_t largest;
    uint32_t reserved[2];
};
static_assert(sizeof(struct checkpoint) == 64 && sizeof(struct disk_superblock) == 168, "superblock layout");
static_assert(sizeof(struct snapshot_entry) == 336, "snapshot entry layout");
static_assert(sizeof(struct log_range) == 16, "hole layout");

#define BYTES_MAX                                                                                                      \
    (sizeof(struct disk_superblock) + SUPERBLOCK_SNAPSHOTS_MAX * sizeof(struct snapshot_entry) +                       \
     SUPERBLOCK_HOLES_MAX * sizeof(struct log_range))

static uint64_t bytes_of(uint32_t snapshots, uint32_t holes)
{
    return sizeof(struct disk_superblock) + snapshots * sizeof(struct snapshot_entry) +
           holes * sizeof(struct log_range);
}

static const char *const names[2] = {"superblock.0", "superblock.1"};

static uint64_t checksum(struct disk_superblock *d, uint32_t bytes)
{
    uint64_t kept = d->checksum;

    d->checksum = 0;
    uint64_t sum = XXH3_64bits(d, bytes);
    d->checksum = kept;
    return sum;
}

static uint32_t whole_blocks(uint64_t bytes)
{
    return (uint32_t)((bytes + DEVICE_BLOCK_BYTES - 1) / DEVICE_BLOCK_BYTES * DEVICE_BLOCK_BYTES);
}

/* One transfer of a whole file. */
static int transfer(struct device *device, enum device_op op, int file, void *buf, uint32_t len)
{
    struct device_queue *queue;
    int rc = device_queue_open(device, 1, &queue);
    if (rc < 0)
        return rc;
    int64_t moved = device_transfer(queue, op, file, 0, buf, len);
    device_queue_close(queue);
    if (moved < 0)
        return (int)moved;
    return moved == len ? 0 : -EUCLEAN;
}

/* Where an item of the log may be. */
static bool is_position(const struct log_position *p)
{
    return p->address >= DEVICE_BLOCK_BYTES && p->address < SUPERBLOCK_ADDRESS_END && p->address % 8 == 0;
}

static bool is_checkpoint(const struct disk_superblock *d, const struct checkpoint *c)
{
    return is_position(&c->begin) && is_position(&c->end) && c->end.address % DEVICE_BLOCK_BYTES == 0 &&
           c->image < d->next_image &&
           (c->image == 0 || (c->reach >= c->end.address && c->reach < SUPERBLOCK_ADDRESS_END));
}

/* Is it one that was ever written? Ids ascend; no counter is anywhere near its end. */
static bool is_sound(const struct disk_superblock *d)
{
    const struct snapshot_entry *snapshots = (const struct snapshot_entry *)(d + 1);
    bool sound = is_checkpoint(d, &d->checkpoint) &&
                 (d->sequence | d->incarnation | d->next_image | d->next_snapshot) >> 63 == 0;

    for (uint32_t i = 0; i < d->snapshot_count; i++)
        sound = sound && is_checkpoint(d, &snapshots[i].at) && snapshots[i].at.image != 0 &&
                snapshots[i].id > (i > 0 ? snapshots[i - 1].id : 0) && snapshots[i].id < d->next_snapshot &&
                memchr(snapshots[i].label, 0, sizeof snapshots[i].label);
    return sound;
}

static bool holes_are_sound(const struct holes *holes, uint64_t segment_bytes)
{
    uint64_t before = 0;

    for (uint32_t i = 0; i < holes->count; i++) {
        const struct log_range *hole = &holes->ranges[i];
        if (hole->begin < before || hole->begin >= hole->end || hole->begin % 8 != 0 || hole->end % 8 != 0 ||
            hole->begin / segment_bytes != (hole->end - 1) / segment_bytes)
            return false;
        before = hole->end;
    }
    return true;
}

/* The arrays behind the header. */
static int decode_arrays(const struct disk_superblock *d, struct superblock *sb)
{
    sb->snapshots = malloc((d->snapshot_count + 1) * sizeof *sb->snapshots);
    sb->holes.ranges = malloc((d->hole_count + 1) * sizeof *sb->holes.ranges);
    if (!sb->snapshots || !sb->holes.ranges) {
        superblock_fini(sb);
        return -ENOMEM;
    }
    const struct snapshot_entry *snapshots = (const void *)(d + 1);
    memcpy(sb->snapshots, snapshots, d->snapshot_count * sizeof *sb->snapshots);
    memcpy(sb->holes.ranges, snapshots + d->snapshot_count, d->hole_count * sizeof *sb->holes.ranges);
    if (holes_are_sound(&sb->holes, sb->segment_bytes))
        return 0;
    superblock_fini(sb);
    return -EUCLEAN;
}

static int decode(struct disk_superblock *d, uint32_t len, struct superblock *sb, char *message, size_t message_len)
{
    /* These fields are where they are in every format: a flipped bit does not make another one of this. */
    if (d->magic != SUPERBLOCK_MAGIC || d->bytes < sizeof *d || d->bytes > len || checksum(d, d->bytes) != d->checksum)
        return -EUCLEAN;
    if (d->format != SUPERBLOCK_FORMAT) {
        snprintf(message, message_len, "store format %u, this program reads %u; use a fasterfs of that version",
                 d->format, SUPERBLOCK_FORMAT);
        return -EPROTONOSUPPORT;
    }
    if (d->snapshot_count > SUPERBLOCK_SNAPSHOTS_MAX || d->hole_count > SUPERBLOCK_HOLES_MAX ||
        d->bytes != bytes_of(d->snapshot_count, d->hole_count))
        return -EUCLEAN;
    uint64_t segment = d->segment_bytes;
    if (segment < (1u << 20) || segment > (1u << 30) || (segment & (segment - 1)) || d->index_bits < 10 ||
        d->index_bits > 53 || d->largest > segment / 4 || !is_sound(d))
        return -EUCLEAN;
    *sb = (struct superblock){.sequence = d->sequence,
                              .store_id = d->store_id,
                              .segment_bytes = segment,
                              .index_bits = d->index_bits,
                              .largest = d->largest,
                              .incarnation = d->incarnation,
                              .incarnation_begin = d->incarnation_begin,
                              .next_image = d->next_image,
                              .next_snapshot = d->next_snapshot,
                              .checkpoint = d->checkpoint,
                              .snapshot_count = d->snapshot_count,
                              .holes.count = d->hole_count};
    return decode_arrays(d, sb);
}

static int read_one(struct device *device, const char *name, struct superblock *sb, char *message, size_t message_len)
{
    int file = device_file_open(device, name, 0);
    if (file < 0)
        return file;
    int64_t size = device_file_size(device, file);
    int rc = (int)size;
    if (size >= DEVICE_BLOCK_BYTES && size <= whole_blocks(BYTES_MAX) && size % DEVICE_BLOCK_BYTES == 0) {
        void *buf = aligned_alloc(DEVICE_BLOCK_BYTES, (size_t)size);
        rc = buf ? transfer(device, DEVICE_READ, file, buf, (uint32_t)size) : -ENOMEM;
        if (rc == 0)
            rc = decode(buf, (uint32_t)size, sb, message, message_len);
        free(buf);
    } else if (size >= 0) {
        rc = -EUCLEAN;
    }
    device_file_close(device, file);
    return rc;
}

/* A file that cannot be read may be the newer one: what is in the other is no answer. -errno, or 0. */
static int unreadable(const int rc[2], char *message, size_t message_len)
{
    for (int i = 0; i < 2; i++) {
        if (rc[i] == 0 || rc[i] == -ENOENT || rc[i] == -EUCLEAN || rc[i] == -EPROTONOSUPPORT)
            continue;
        snprintf(message, message_len, "%s cannot be read (%s); look at the disk%s", names[i], strerror(-rc[i]),
                 rc[!i] == 0 ? ", or remove that file to go on with the other copy" : "");
        return rc[i];
    }
    return 0;
}

int superblock_read(struct device *device, struct superblock *ret_sb, struct superblock_copies *ret_copies,
                    char *message, size_t message_len)
{
    struct superblock sb[2] = {{0}, {0}};
    int *rc = ret_copies->rc;

    message[0] = 0;
    for (int i = 0; i < 2; i++)
        rc[i] = read_one(device, names[i], &sb[i], message, message_len);
    if (rc[0] == -EPROTONOSUPPORT || rc[1] == -EPROTONOSUPPORT) { /* even beside a sound older one */
        superblock_fini(&sb[0]);
        superblock_fini(&sb[1]);
        return -EPROTONOSUPPORT;
    }
    int failed = unreadable(rc, message, message_len);
    if (failed < 0) {
        superblock_fini(&sb[0]);
        superblock_fini(&sb[1]);
        return failed;
    }
    if (rc[0] == 0 || rc[1] == 0) {
        int newer = rc[1] == 0 && (rc[0] < 0 || sb[1].sequence > sb[0].sequence);
        if (rc[!newer] == 0 && sb[!newer].sequence + 1 != sb[newer].sequence)
            rc[!newer] = -ESTALE;
        superblock_fini(&sb[!newer]);
        *ret_sb = sb[newer];
        return 0;
    }
    if (rc[0] == -ENOENT && rc[1] == -ENOENT)
        return -ENOENT;
    snprintf(message, message_len,
             "both copies of the superblock are damaged or cut short; restore the files "
             "superblock.0 and superblock.1 from a backup");
    return -EUCLEAN;
}

int superblock_sync(struct device *device, const struct superblock *sb)
{
    int file = device_file_open(device, names[sb->sequence % 2], 0);
    if (file < 0)
        return file;
    int rc = device_file_sync(device, file);
    device_file_close(device, file);
    return rc < 0 ? rc : device_sync_names(device);
}

/* Of the holes, those that the log has moved past are forgotten. */
static uint32_t first_needed_hole(const struct superblock *sb)
{
    uint64_t begin = superblock_begin(sb);
    uint32_t first = 0;

    while (first < sb->holes.count && sb->holes.ranges[first].end <= begin)
        first++;
    return first;
}

/* Writes it with the next sequence number, to the file of that. */
static int write_one(struct device *device, struct superblock *sb)
{
    uint32_t first_hole = first_needed_hole(sb), holes = sb->holes.count - first_hole;
    uint64_t bytes = bytes_of(sb->snapshot_count, holes);
    uint32_t len = whole_blocks(bytes);
    struct disk_superblock *d = aligned_alloc(DEVICE_BLOCK_BYTES, len);
    if (!d)
        return -ENOMEM;
    memset(d, 0, len);
    *d = (struct disk_superblock){.magic = SUPERBLOCK_MAGIC,
                                  .format = SUPERBLOCK_FORMAT,
                                  .bytes = (uint32_t)bytes,
                                  .sequence = sb->sequence + 1,
                                  .store_id = sb->store_id,
                                  .segment_bytes = sb->segment_bytes,
                                  .index_bits = sb->index_bits,
                                  .largest = sb->largest,
                                  .incarnation = sb->incarnation,
                                  .incarnation_begin = sb->incarnation_begin,
                                  .next_image = sb->next_image,
                                  .next_snapshot = sb->next_snapshot,
                                  .checkpoint = sb->checkpoint,
                                  .snapshot_count = sb->snapshot_count,
                                  .hole_count = holes};
    struct snapshot_entry *snapshots = (void *)(d + 1);
    if (sb->snapshot_count > 0)
        memcpy(snapshots, sb->snapshots, sb->snapshot_count * sizeof *sb->snapshots);
    if (holes > 0)
        memcpy(snapshots + sb->snapshot_count, sb->holes.ranges + first_hole, holes * sizeof *sb->holes.ranges);
    d->checksum = checksum(d, (uint32_t)bytes);
    /* What is there is written over: on a full disk its blocks might be gone once they were given back. */
    int file = device_file_open(device, names[(sb->sequence + 1) % 2], DEVICE_FILE_CREATE);
    int rc = file;
    if (file >= 0) {
        rc = transfer(device, DEVICE_WRITE, file, d, len);
        if (rc == 0)
            rc = device_file_sync(device, file);
        device_file_close(device, file);
        if (rc == 0)
            rc = device_sync_names(device);
    }
    free(d);
    if (rc == 0)
        sb->sequence++;
    return rc;
}

int superblock_write(struct device *device, struct superblock *sb)
{
    int rc = write_one(device, sb);

    if (rc == 0)
        sb->copies = write_one(device, sb) == 0 ? 2 : 1;
    return rc;
}

uint64_t superblock_begin(const struct superblock *sb)
{
    uint64_t begin = sb->checkpoint.begin.address;

    for (uint32_t i = 0; i < sb->snapshot_count; i++)
        if (sb->snapshots[i].at.begin.address < begin)
            begin = sb->snapshots[i].at.begin.address;
    return begin;
}

uint64_t superblock_reach(const struct superblock *sb)
{
    const struct checkpoint *c = &sb->checkpoint;
    uint64_t begin = (c->begin.address + DEVICE_BLOCK_BYTES - 1) & ~(uint64_t)(DEVICE_BLOCK_BYTES - 1);
    uint64_t reach = begin > c->end.address ? begin : c->end.address, kept = superblock_kept(sb);

    reach = c->image != 0 && c->reach > reach ? c->reach : reach;
    return kept > reach ? kept : reach;
}

uint64_t superblock_kept(const struct superblock *sb)
{
    uint64_t kept = 0;

    for (uint32_t i = 0; i < sb->snapshot_count; i++)
        if (sb->snapshots[i].at.reach > kept)
            kept = sb->snapshots[i].at.reach;
    return kept;
}

void superblock_fini(struct superblock *sb)
{
    free(sb->snapshots);
    free(sb->holes.ranges);
    sb->snapshots = NULL;
    sb->holes.ranges = NULL;
}
