// SPDX-License-Identifier: MIT
/*
 * Crash states of a record (device/record.h says what a power cut leaves).
 *
 * The cursor walks over the ticks: what begins is put into `pending` of its file, or of the names; a sync
 * that ends takes from there what had ended when it began, into `safe`. A crash state is `safe` and
 * what the style picks from `pending`.
 */
#include "memory_file.h"
#include "record.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK DEVICE_BLOCK_BYTES
#define SECTOR 512u
#define SECTORS (BLOCK / SECTOR)

/* ---- images ------------------------------------------------------------------------------------ */

void record_image_fini(struct record_image *image)
{
    for (uint64_t i = 0; i < image->count; i++)
        block_put(image->blocks[i]);
    free(image->blocks);
    *image = (struct record_image){NULL, 0, 0};
}

static int image_reserve(struct record_image *image, uint64_t count)
{
    if (count <= image->count)
        return 0;
    struct block **grown = realloc(image->blocks, count * sizeof(struct block *));
    if (grown == NULL)
        return -ENOMEM;
    memset(grown + image->count, 0, (count - image->count) * sizeof(struct block *));
    image->blocks = grown;
    image->count = count;
    return 0;
}

static int image_copy(struct record_image *to, const struct record_image *from)
{
    record_image_fini(to);
    if (image_reserve(to, from->count) < 0)
        return -ENOMEM;
    for (uint64_t i = 0; i < from->count; i++)
        to->blocks[i] = block_get(from->blocks[i]);
    to->size = from->size;
    return 0;
}

int record_image_read(struct record_image *image, const void *bytes, uint64_t len)
{
    if (image_reserve(image, (len + BLOCK - 1) / BLOCK) < 0)
        return -ENOMEM;
    for (uint64_t i = 0; i < image->count; i++) {
        const unsigned char *from = (const unsigned char *)bytes + i * BLOCK;
        uint64_t left = len - i * BLOCK;
        if (left >= BLOCK && memcmp(from, block_zeros.bytes, BLOCK) == 0)
            continue;
        image->blocks[i] = block_new(block_zeros.bytes);
        if (image->blocks[i] == NULL)
            return -ENOMEM;
        memcpy(image->blocks[i]->bytes, from, left < BLOCK ? left : BLOCK);
    }
    image->size = len;
    return 0;
}

static void image_set(struct record_image *image, uint64_t i, struct block *block)
{
    block_put(image->blocks[i]);
    image->blocks[i] = block;
}

/* Bytes beyond the end are not there when the file grows again. */
static void image_cut(struct record_image *image, uint64_t size)
{
    for (uint64_t i = (size + BLOCK - 1) / BLOCK; i < image->count; i++)
        image_set(image, i, NULL);
    image->size = size;
}

static int image_extend(struct record_image *image, uint64_t size)
{
    int ret = image_reserve(image, (size + BLOCK - 1) / BLOCK);
    if (ret == 0 && size > image->size)
        image->size = size;
    return ret;
}

static int image_apply(struct record_image *image, const struct record_op *op)
{
    if (op->kind == DEVICE_EVENT_TRUNCATE) {
        image_cut(image, 0);
        return 0;
    }
    int ret = image_extend(image, op->offset + op->len);
    for (uint64_t i = 0; ret == 0 && op->kind == DEVICE_EVENT_WRITE && i < op->len / BLOCK; i++)
        image_set(image, op->offset / BLOCK + i, block_get(op->blocks[i]));
    return ret;
}

/* ---- the cursor --------------------------------------------------------------------------------- */

int record_apply_name(struct record_names *names, const struct record_op *op)
{
    if (op->kind == DEVICE_EVENT_CREATE)
        return record_names_set(names, op->name, op->file);
    struct record_name *found = record_names_find(names, op->name);
    struct record_file *file = found != NULL ? found->file : NULL;
    if (file == NULL || strcmp(op->name, op->to) == 0)
        return 0;
    record_names_remove(names, op->name);
    return op->kind == DEVICE_EVENT_RENAME ? record_names_set(names, op->to, file) : 0;
}

static bool is_name_op(const struct record_op *op)
{
    return op->kind == DEVICE_EVENT_CREATE || op->kind == DEVICE_EVENT_RENAME || op->kind == DEVICE_EVENT_REMOVE;
}

static int ops_push(struct record_ops *list, struct record_op *op)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        struct record_op **grown = realloc(list->ops, capacity * sizeof(struct record_op *));
        if (grown == NULL)
            return -ENOMEM;
        list->ops = grown;
        list->capacity = capacity;
    }
    list->ops[list->count++] = op;
    return 0;
}

static void ops_remove(struct record_ops *list, const struct record_op *op)
{
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (list->ops[i] != op)
            list->ops[kept++] = list->ops[i];
    }
    list->count = kept;
}

static bool had_ended(const struct record_op *op, uint64_t tick)
{
    return op->end != 0 && op->end <= tick;
}

static bool covers(const struct record_op *op, const struct record_op *older)
{
    return op->kind == DEVICE_EVENT_WRITE && older->offset >= op->offset &&
           older->offset + older->len <= op->offset + op->len;
}

/* The sync of a file has ended well: what had ended when it began is safe. What is doomed stays, unless
 * its place was written anew. */
static int file_synced(struct record_file *file, const struct record_op *sync)
{
    struct record_ops *list = &file->pending;
    size_t kept = 0;
    int ret = 0;

    for (size_t i = 0; i < list->count && ret == 0; i++) {
        struct record_op *op = list->ops[i];
        if (op->doomed || !had_ended(op, sync->begin)) {
            list->ops[kept++] = op;
            continue;
        }
        ret = image_apply(&file->safe, op);
        size_t left = 0;
        for (size_t k = 0; k < kept; k++) {
            if (!list->ops[k]->doomed || !covers(op, list->ops[k]))
                list->ops[left++] = list->ops[k];
        }
        kept = left;
    }
    list->count = kept;
    return ret;
}

static void file_sync_failed(struct record_file *file, const struct record_op *sync)
{
    for (size_t i = 0; i < file->pending.count; i++)
        file->pending.ops[i]->doomed |= had_ended(file->pending.ops[i], sync->end);
}

static int names_synced(struct record *record, const struct record_op *sync)
{
    struct record_ops *list = &record->pending;
    size_t done = 0, left = 0;
    int ret = 0;

    while (done < list->count && ret == 0 && had_ended(list->ops[done], sync->begin))
        ret = record_apply_name(&record->safe, list->ops[done++]);
    while (done < list->count)
        list->ops[left++] = list->ops[done++];
    list->count = left;
    return ret;
}

static int pass_begin(struct record *record, struct record_op *op)
{
    op->doomed = false;
    if (op->kind == DEVICE_EVENT_SYNC || op->kind == DEVICE_EVENT_SYNC_NAMES)
        return 0;
    return ops_push(is_name_op(op) ? &record->pending : &op->file->pending, op);
}

static int pass_end(struct record *record, struct record_op *op)
{
    if (op->kind == DEVICE_EVENT_SYNC && op->result < 0)
        file_sync_failed(op->file, op);
    else if (op->kind == DEVICE_EVENT_SYNC)
        return file_synced(op->file, op);
    else if (op->result == 0 && op->kind == DEVICE_EVENT_SYNC_NAMES)
        return names_synced(record, op);
    else if (op->result < 0 && op->kind == DEVICE_EVENT_WRITE)
        op->doomed = true; /* some of it may have reached the disk */
    else if (op->result < 0 && op->kind != DEVICE_EVENT_SYNC_NAMES)
        ops_remove(is_name_op(op) ? &record->pending : &op->file->pending, op);
    return 0;
}

int record_rewind(struct record *record)
{
    int ret = record_names_copy(&record->safe, &record->origin);
    for (struct record_file *file = record->files; file != NULL && ret == 0; file = file->next) {
        file->pending.count = 0;
        ret = image_copy(&file->safe, &file->origin);
    }
    record->pending.count = 0;
    record->cursor = 0;
    return ret;
}

static int move_cursor(struct record *record, uint64_t tick)
{
    assert(tick <= record->tick_count);
    int ret = tick < record->cursor ? record_rewind(record) : 0;
    while (record->cursor < tick && ret == 0) {
        const struct record_tick *next = &record->ticks[record->cursor++];
        ret = next->ends ? pass_end(record, next->op) : pass_begin(record, next->op);
    }
    return ret;
}

/* ---- picking ------------------------------------------------------------------------------------- */

enum grain { BY_WRITE, BY_BLOCK, BY_SECTOR };

/* Which of the pending writes are there, sector by sector. A write has a number, in the order of begin
 * within its file. */
struct pick {
    uint64_t seed;
    enum { PICK_NONE, PICK_ALL, PICK_COINS, PICK_FIRST, PICK_ALL_BUT_ONE, PICK_ONE } how;
    enum grain grain;
    uint64_t odds;                   /* of 16, that a coin says yes */
    const struct record_op *one;     /* PICK_ALL_BUT_ONE, PICK_ONE, PICK_FIRST: the writes begun before it */
    uint64_t one_at;                 /* which block or sector of it */
    const struct record_op *garbage; /* a write with one sector that is neither old nor new */
    uint64_t garbage_at;
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t dice(uint64_t *seed, uint64_t sides)
{
    *seed += UINT64_C(0x9e3779b97f4a7c15);
    return mix(*seed) % sides;
}

static bool pick_sector(const struct pick *pick, const struct record_op *op, uint64_t sector)
{
    uint64_t unit = pick->grain == BY_WRITE ? 0 : pick->grain == BY_BLOCK ? sector / SECTORS : sector;
    bool is_one = op == pick->one && unit == pick->one_at;
    bool coin = mix(pick->seed ^ mix(op->begin << 24 ^ unit)) % 16 < pick->odds;

    switch (pick->how) {
    case PICK_NONE:
        return false;
    case PICK_ALL:
        return true;
    case PICK_COINS:
        return coin;
    case PICK_FIRST:
        return op->begin < pick->one->begin || (op == pick->one && coin);
    case PICK_ALL_BUT_ONE:
        return !is_one;
    case PICK_ONE:
        return is_one;
    }
    return false;
}

/* The nth pending write of all files, or how many there are in *ret_count. */
static const struct record_op *nth_write(const struct record *record, uint64_t n, uint64_t *ret_count)
{
    uint64_t seen = 0;
    for (const struct record_file *file = record->files; file != NULL; file = file->next) {
        for (size_t i = 0; i < file->pending.count; i++) {
            if (file->pending.ops[i]->kind == DEVICE_EVENT_WRITE && seen++ == n)
                return file->pending.ops[i];
        }
    }
    if (ret_count != NULL)
        *ret_count = seen;
    return NULL;
}

static uint64_t units_of(const struct record_op *op, enum grain grain)
{
    return grain == BY_WRITE ? 1 : op->len / (grain == BY_BLOCK ? BLOCK : SECTOR);
}

static struct pick make_pick(const struct record *record, const struct device_crash *crash, uint64_t *seed)
{
    struct pick pick = {.how = crash->style == DEVICE_CRASH_OLD ? PICK_NONE : PICK_ALL};
    uint64_t writes = 0;
    (void)nth_write(record, UINT64_MAX, &writes);
    if (crash->style != DEVICE_CRASH_RANDOM || writes == 0)
        return pick;
    static const unsigned char odds[] = {1, 4, 8, 12, 15};
    pick.seed = mix(crash->seed);
    pick.how = PICK_NONE + dice(seed, PICK_ONE + 1);
    pick.grain = BY_WRITE + dice(seed, 3);
    pick.odds = odds[dice(seed, sizeof(odds))];
    pick.one = nth_write(record, dice(seed, writes), NULL);
    pick.one_at = pick.one->len > 0 ? dice(seed, units_of(pick.one, pick.grain)) : 0;
    if (dice(seed, 6) == 0) {
        const struct record_op *torn = nth_write(record, dice(seed, writes), NULL);
        pick.garbage = torn->len > 0 ? torn : NULL;
        pick.garbage_at = torn->len > 0 ? dice(seed, torn->len / SECTOR) : 0;
    }
    return pick;
}

/* How many of `count` changes that come in order are there. */
static uint64_t pick_count(const struct device_crash *crash, uint64_t *seed, uint64_t count)
{
    if (crash->style != DEVICE_CRASH_RANDOM)
        return crash->style == DEVICE_CRASH_OLD ? 0 : count;
    uint64_t how = dice(seed, 3);
    return how == 0 ? 0 : how == 1 ? count : dice(seed, count + 1);
}

/* ---- crash states --------------------------------------------------------------------------------- */

static void spoil(unsigned char *sector, uint64_t seed)
{
    for (unsigned i = 0; i < SECTOR; i += 8) {
        uint64_t word = mix(seed + i);
        memcpy(sector + i, &word, sizeof(word));
    }
}

/* Block `i` of the write into the image, as far as it was picked. */
static int put_block(struct record_image *image, const struct pick *pick, const struct record_op *op, uint64_t i)
{
    unsigned picked = 0;
    bool garbage = op == pick->garbage && pick->garbage_at / SECTORS == i;
    for (unsigned s = 0; s < SECTORS; s++)
        picked |= (unsigned)pick_sector(pick, op, i * SECTORS + s) << s;
    uint64_t at = op->offset / BLOCK + i;
    if (picked == (1u << SECTORS) - 1 && !garbage) {
        image_set(image, at, block_get(op->blocks[i]));
        return 0;
    }
    if (picked == 0 && !garbage)
        return 0;
    struct block *torn = block_new(block_bytes(image->blocks[at]));
    if (torn == NULL)
        return -ENOMEM;
    for (unsigned s = 0; s < SECTORS; s++) {
        if (picked >> s & 1)
            memcpy(torn->bytes + s * SECTOR, op->blocks[i]->bytes + s * SECTOR, SECTOR);
    }
    if (garbage)
        spoil(torn->bytes + pick->garbage_at % SECTORS * SECTOR, pick->seed);
    image_set(image, at, torn);
    return 0;
}

static bool changes_size(const struct record_op *op, uint64_t size)
{
    return op->kind == DEVICE_EVENT_TRUNCATE || op->offset + op->len > size;
}

/* Truncations and extensions among the pending: how often the size changes if all are there. */
static uint64_t count_sizes(const struct record_file *file)
{
    uint64_t size = file->safe.size, count = 0;
    for (size_t i = 0; i < file->pending.count; i++) {
        const struct record_op *op = file->pending.ops[i];
        if (!changes_size(op, size))
            continue;
        count++;
        size = op->kind == DEVICE_EVENT_TRUNCATE ? 0 : op->offset + op->len;
    }
    return count;
}

static int file_crash(struct record_image *image, const struct record_file *file, const struct pick *pick,
                      uint64_t sizes)
{
    int ret = image_copy(image, &file->safe);
    uint64_t size = image->size; /* as it was then; the image's own lags behind from the first one lost */

    for (size_t i = 0; i < file->pending.count && ret == 0; i++) {
        const struct record_op *op = file->pending.ops[i];
        bool resizes = changes_size(op, size), kept = !resizes || sizes > 0;
        if (op->kind == DEVICE_EVENT_TRUNCATE) {
            if (!kept)
                break;
            image_cut(image, 0);
            size = 0;
        } else {
            size = resizes ? op->offset + op->len : size;
            ret = image_reserve(image, (size + BLOCK - 1) / BLOCK);
            if (resizes && kept && image->size < size)
                image->size = size;
        }
        sizes -= resizes && kept;
        for (uint64_t n = 0; ret == 0 && op->kind == DEVICE_EVENT_WRITE && n < op->len / BLOCK; n++)
            ret = put_block(image, pick, op, n);
    }
    if (ret == 0)
        image_cut(image, image->size);
    return ret;
}

static int build(struct record *record, const struct device_crash *crash, struct device *memory)
{
    uint64_t seed = crash->seed;
    struct pick pick = make_pick(record, crash, &seed);
    struct record_names names = {NULL, 0, 0};
    int ret = record_names_copy(&names, &record->safe);
    uint64_t changes = pick_count(crash, &seed, record->pending.count);

    for (uint64_t i = 0; i < changes && ret == 0; i++)
        ret = record_apply_name(&names, record->pending.ops[i]);
    for (size_t i = 0; i < names.count && ret == 0; i++) {
        const struct record_file *file = names.names[i].file;
        struct record_image image = {NULL, 0, 0};
        ret = file_crash(&image, file, &pick, pick_count(crash, &seed, count_sizes(file)));
        if (ret == 0)
            ret = memory_add(memory, names.names[i].name, image.blocks, (image.size + BLOCK - 1) / BLOCK, image.size);
        record_image_fini(&image);
    }
    free(names.names);
    return ret;
}

int device_record_crash(struct device *device, const struct device_crash *crash, struct device **ret_device)
{
    struct record *record = (struct record *)(void *)device;
    int ret = move_cursor(record, crash->tick);
    if (ret < 0)
        return ret;
    struct device *memory;
    ret = device_memory_open(&memory);
    if (ret < 0)
        return ret;
    ret = build(record, crash, memory);
    if (ret < 0) {
        device_close(memory);
        return ret;
    }
    *ret_device = memory;
    return 0;
}
