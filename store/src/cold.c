// SPDX-License-Identifier: MIT
/*
 * Writing to the cold level: see cold.h.
 *
 *     items, sorted by hash -> a slice: a few chunks and what goes into them -> read the chunks; of what is moved, is
 * it what its key has? -> units of records and chunks -> split chunks while there are too many entries
 */
#include "cold.h"
#include "change.h"

#include <errno.h>
#include <stdlib.h>

#define FILL 32u   /* entries of a chunk, on average, before one more is split */
#define LEVELS 11u /* of splits: entries then have 8 bits left that tell them apart */
#define SLICE_CHUNKS 128u
#define SLICE_ITEMS 512u
#define UNIT_BYTES (256u << 10) /* more only for one large record: a unit keeps commits waiting */

struct chunk {
    uint64_t number;
    uint64_t *entries; /* malloc'ed, `room` of them */
    uint32_t count, room;
    uint32_t was;     /* entries that it has in the store */
    uint32_t pending; /* items that may need a new entry */
    bool changed;     /* in the open unit */
};

struct cold_work {
    struct chunk chunks[SLICE_CHUNKS];
    unsigned chunk_count;
    struct store_read reads[SLICE_ITEMS]; /* of chunks, then of what is moved */
    struct cold_item *items;              /* the slice */
    unsigned item_count;
    enum hlog_taker taker;
    bool moves;
    uint64_t begin; /* of the level's log, when the slice was begun */
    uint64_t moved_bytes;
    bool unit_open;
    int64_t more_entries; /* by the open unit */
};

/* ---- numbers ------------------------------------------------------------------------------------------ */

static unsigned level_of(uint64_t chunks)
{
    return 63 - (unsigned)__builtin_clzll(chunks);
}

uint64_t cold_chunk_of(uint64_t hash, uint64_t chunks)
{
    unsigned level = level_of(chunks); /* 1 at least */
    uint64_t first = UINT64_C(1) << level, bits = hash >> (64 - level);

    return bits < chunks - first ? first << 1 | hash >> (63 - level) : first | bits;
}

uint64_t cold_tag_of(const struct cold *cold, uint64_t hash)
{
    return hash >> (64 - cold->bits) & ((UINT64_C(1) << COLD_TAG_BITS) - 1);
}

uint64_t *cold_find(uint64_t *entries, uint32_t count, uint64_t tag)
{
    for (uint32_t i = 0; i < count; i++)
        if (cold_entry_tag(entries[i]) == tag)
            return &entries[i];
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static bool state_is_sound(const struct cold_state *state)
{
    unsigned least = state->bits - COLD_TAG_BITS;

    return state->bits > COLD_TAG_BITS && state->bits <= 53 && state->chunks >> least >= 1 &&
           state->chunks <= UINT64_C(1) << (least + LEVELS) && state->entries >> 48 == 0;
}

/* A new level begins with as many chunks as would take an eighth of its index. */
static struct cold_state first_state(const struct store *store)
{
    uint64_t chunks = store->index_buckets / 16;

    return (struct cold_state){.chunks = chunks, .bits = level_of(chunks) + COLD_TAG_BITS};
}

static int read_state(struct cold *cold)
{
    const uint64_t key = 0;
    uint32_t len = sizeof cold->state;
    int rc = store_get(cold->session, &key, sizeof key, &cold->state, sizeof cold->state, &len);

    if (rc == STORE_NOT_FOUND)
        cold->state = first_state(cold->store);
    if (rc < 0)
        return rc;
    if (len != sizeof cold->state || !state_is_sound(&cold->state))
        return -EUCLEAN;
    cold->bits = cold->state.bits;
    atomic_store(&cold->chunks, cold->state.chunks);
    atomic_store(&cold->entries, cold->state.entries);
    if (cold->state.chunks > UINT64_C(1) << (cold->bits - COLD_TAG_BITS))
        cold->stale = cold->state.chunks - 1; /* a crash may have left it */
    return 0;
}

int cold_open(struct store *store, struct cold **ret_cold)
{
    struct cold *cold = calloc(1, sizeof *cold);

    if (!cold)
        return -ENOMEM;
    cold->store = store;
    pthread_mutex_init(&cold->lock, NULL);
    cold->work = calloc(1, sizeof *cold->work);
    int rc = cold->work ? store_session_open(store, &cold->session) : -ENOMEM;
    if (rc == 0)
        rc = read_state(cold);
    if (rc < 0)
        cold_close(cold);
    else
        *ret_cold = cold;
    return rc;
}

void cold_close(struct cold *cold)
{
    if (!cold)
        return;
    for (unsigned i = 0; cold->work && i < SLICE_CHUNKS; i++)
        free(cold->work->chunks[i].entries);
    free(cold->work);
    store_session_close(cold->session);
    pthread_mutex_destroy(&cold->lock);
    free(cold);
}

/* ---- chunks ------------------------------------------------------------------------------------------- */

static int make_room(struct chunk *chunk, uint32_t room)
{
    if (room <= chunk->room)
        return 0;
    uint64_t *grown = realloc(chunk->entries, room * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    chunk->entries = grown;
    chunk->room = room;
    return 0;
}

static int start_read(struct cold *cold, struct chunk *chunk, struct store_read *read)
{
    *read = (struct store_read){.key = &chunk->number,
                                .key_len = sizeof chunk->number,
                                .buf = chunk->entries,
                                .buf_len = chunk->room * sizeof *chunk->entries,
                                .value_hint = 2 * FILL * sizeof *chunk->entries};
    return store_read(cold->session, read);
}

/* A read is done: the chunk, without what is dead, and with room for what is pending. */
static int take_chunk(struct cold *cold, struct chunk *chunk, struct store_read *read)
{
    uint32_t count = 0;
    int rc = read->result;

    while (rc == STORE_OK && read->copied < read->value_len) { /* a large one */
        if ((rc = make_room(chunk, read->value_len / sizeof *chunk->entries + 1)) < 0)
            return rc;
        rc = start_read(cold, chunk, read);
        store_complete_pending(cold->session, true);
        rc = read->result;
    }
    if (rc < 0)
        return rc;
    chunk->was = rc == STORE_OK ? read->value_len / sizeof *chunk->entries : 0;
    if (rc == STORE_OK && read->value_len % sizeof *chunk->entries != 0)
        return -EIO;
    for (uint32_t i = 0; i < chunk->was; i++)
        if (cold_entry_address(chunk->entries[i]) >= cold->work->begin)
            chunk->entries[count++] = chunk->entries[i];
    chunk->count = count;
    return make_room(chunk, count + chunk->pending);
}

static int read_chunks(struct cold *cold)
{
    struct cold_work *w = cold->work;
    int rc = 0;

    for (unsigned i = 0; i < w->chunk_count; i++) {
        w->chunks[i].changed = false;
        if ((rc = make_room(&w->chunks[i], 2 * FILL + w->chunks[i].pending)) < 0)
            break;
    }
    for (unsigned i = 0; i < w->chunk_count && rc >= 0; i++)
        rc = start_read(cold, &w->chunks[i], &w->reads[i]);
    store_complete_pending(cold->session, true);
    rc = rc < 0 ? rc : 0;
    for (unsigned i = 0; i < w->chunk_count && rc == 0; i++)
        rc = take_chunk(cold, &w->chunks[i], &w->reads[i]);
    return rc;
}

/* ---- units -------------------------------------------------------------------------------------------- */

/* What a unit has besides records and their chunks: the state and the removal of a stale chunk. */
#define UNIT_REST (2 * (RECORD_HEADER_BYTES + sizeof(uint64_t)) + sizeof(struct cold_state))

static const uint64_t state_key = 0;

static int add_chunk(struct cold *cold, struct chunk *chunk)
{
    struct store_piece piece = {chunk->entries, chunk->count * (uint32_t)sizeof *chunk->entries};

    chunk->changed = false;
    cold->work->more_entries += (int64_t)chunk->count - chunk->was;
    chunk->was = chunk->count;
    if (chunk->count == 0)
        return store_unit_delete(cold->session, &chunk->number, sizeof chunk->number);
    return store_unit_upsert(cold->session, &chunk->number, sizeof chunk->number, &piece, 1, 0);
}

static void begin_unit(struct cold *cold)
{
    if (cold->work->unit_open)
        return;
    store_unit_begin(cold->session);
    cold->work->unit_open = true;
    cold->work->more_entries = 0;
}

static int drop_unit(struct cold *cold, int rc)
{
    if (cold->work->unit_open)
        store_unit_abandon(cold->session);
    cold->work->unit_open = false;
    return rc;
}

/* Applies the open unit, which makes `chunks` of them. */
static int end_unit(struct cold *cold, uint64_t chunks)
{
    struct cold_work *w = cold->work;

    if (!w->unit_open)
        return 0;
    cold->state = (struct cold_state){
        .chunks = chunks, .entries = atomic_load(&cold->entries) + (uint64_t)w->more_entries, .bits = cold->bits};
    struct store_piece piece = {&cold->state, sizeof cold->state};
    int rc = cold->stale ? store_unit_delete(cold->session, &cold->stale, sizeof cold->stale) : 0;
    if (rc == 0)
        rc = store_unit_upsert(cold->session, &state_key, sizeof state_key, &piece, 1, 0);
    if (rc < 0)
        return drop_unit(cold, rc);
    w->unit_open = false;
    rc = unit_apply_as(cold->session, w->taker);
    if (rc < 0)
        return rc;
    cold->stale = 0;
    atomic_store(&cold->entries, cold->state.entries);
    return 0;
}

/* Adds the record, in a new unit if the open one would be too large. The chunk comes behind the last record of it. */
static int add_item(struct cold *cold, struct chunk *chunk, const struct cold_item *item, uint64_t *place)
{
    struct cold_work *w = cold->work;
    const struct store_limits limits = store_limits(cold->store);
    struct store_piece value = {item->value, item->value_len};
    uint64_t bytes = record_bytes(item->key_len, item->value_len) +
                     record_bytes(sizeof chunk->number, (chunk->count + 1) * (uint32_t)sizeof *chunk->entries) +
                     UNIT_REST;
    int rc = 0;

    if (item->value_len > limits.value_max || bytes > limits.unit_bytes_max)
        return -EFBIG;
    if (w->unit_open &&
        cold->session->unit_bytes + bytes > (UNIT_BYTES < limits.unit_bytes_max ? UNIT_BYTES : limits.unit_bytes_max)) {
        if (chunk->changed)
            rc = add_chunk(cold, chunk);
        rc = rc < 0 ? drop_unit(cold, rc) : end_unit(cold, atomic_load(&cold->chunks));
    }
    if (rc < 0)
        return rc;
    begin_unit(cold);
    if (!place) {
        place = &chunk->entries[chunk->count++];
        *place = cold_entry(cold_tag_of(cold, item->hash), 0);
    }
    chunk->changed = true;
    return unit_add_cold(cold->session, item->key, item->key_len, &value, item->tombstone, place);
}

/* ---- a slice ------------------------------------------------------------------------------------------ */

static int compare_hashes(const void *a, const void *b)
{
    const struct cold_item *left = a, *right = b;

    return left->hash < right->hash ? -1 : left->hash > right->hash;
}

/* Takes as many of the sorted items as a slice has room for, and finds their chunks. */
static void begin_slice(struct cold *cold, struct cold_item *items, unsigned count)
{
    struct cold_work *w = cold->work;
    uint64_t chunks = atomic_load(&cold->chunks);
    unsigned taken = 0;

    w->chunk_count = 0;
    w->begin = atomic_load(&cold->store->log.begin);
    for (; taken < count && taken < SLICE_ITEMS; taken++) {
        uint64_t number = cold_chunk_of(items[taken].hash, chunks);
        if (w->chunk_count == 0 || w->chunks[w->chunk_count - 1].number != number) {
            if (w->chunk_count == SLICE_CHUNKS)
                break;
            struct chunk *chunk = &w->chunks[w->chunk_count++];
            chunk->number = number;
            chunk->pending = 0;
        }
        w->chunks[w->chunk_count - 1].pending++;
    }
    w->items = items;
    w->item_count = taken;
}

/* Of what is moved: does the chunk lead to it? Forgets the others, by an `at` of 0. */
static int find_live(struct cold *cold)
{
    struct cold_work *w = cold->work;
    int rc = 0;

    for (unsigned i = 0, c = 0, of = 0; i < w->item_count; i++, of++) {
        while (of == w->chunks[c].pending) {
            of = 0;
            c++;
        }
        struct cold_item *item = &w->items[i];
        struct store_read *read = &w->reads[i];
        const uint64_t *entry = cold_find(w->chunks[c].entries, w->chunks[c].count, cold_tag_of(cold, item->hash));
        *read = (struct store_read){.key = item->key, .key_len = item->key_len, .priv.pinned = true};
        if (entry)
            (void)read_chain(cold->session, read, cold_entry_address(*entry), item->at + 1, UINT64_MAX);
    }
    store_complete_pending(cold->session, true);
    for (unsigned i = 0; i < w->item_count && rc == 0; i++) {
        const struct store_read *read = &w->reads[i];
        rc = read->result < 0 ? read->result : 0;
        if (read->result != STORE_NOT_FOUND || read->priv.address != w->items[i].at)
            w->items[i].at = 0;
    }
    return rc;
}

static int write_items(struct cold *cold)
{
    struct cold_work *w = cold->work;
    unsigned i = 0;
    int rc = 0;

    for (unsigned c = 0; c < w->chunk_count && rc == 0; c++) {
        struct chunk *chunk = &w->chunks[c];
        for (unsigned end = i + chunk->pending; i < end && rc == 0; i++) {
            const struct cold_item *item = &w->items[i];
            uint64_t *place = cold_find(chunk->entries, chunk->count, cold_tag_of(cold, item->hash));
            if (w->moves ? item->at == 0 : item->tombstone && !place)
                continue;
            w->moved_bytes += record_bytes(item->key_len, item->value_len);
            rc = add_item(cold, chunk, item, place);
        }
        if (rc == 0 && chunk->changed)
            rc = add_chunk(cold, chunk);
    }
    return rc < 0 ? drop_unit(cold, rc) : end_unit(cold, atomic_load(&cold->chunks));
}

/* ---- splits ------------------------------------------------------------------------------------------- */

/* Gives the entries of the chunk to the two that come after it. */
static void divide(const struct cold *cold, const struct chunk *from, struct chunk *to, unsigned level)
{
    for (unsigned half = 0; half < 2; half++) {
        to[half].number = from->number << 1 | half;
        to[half].count = to[half].was = 0;
    }
    for (uint32_t i = 0; i < from->count; i++) {
        struct chunk *half = &to[cold_entry_tag(from->entries[i]) >> (cold->bits - 1 - level) & 1];
        half->entries[half->count++] = from->entries[i];
    }
}

/* Splits the next chunk: invariant 4. */
static int split(struct cold *cold)
{
    struct cold_work *w = cold->work;
    struct chunk *from = &w->chunks[0], *to = &w->chunks[1];
    uint64_t chunks = atomic_load(&cold->chunks);

    w->begin = atomic_load(&cold->store->log.begin);
    w->chunk_count = 1;
    from->number = chunks; /* 2^k + s: the number of chunk s of level k, too */
    from->pending = 0;
    int rc = read_chunks(cold);
    for (unsigned half = 0; half < 2 && rc == 0; half++)
        rc = make_room(&to[half], from->count + 1);
    if (rc < 0)
        return rc;
    divide(cold, from, to, level_of(chunks));
    begin_unit(cold);
    for (unsigned half = 0; half < 2 && rc == 0; half++)
        rc = to[half].count > 0 ? add_chunk(cold, &to[half]) : 0;
    w->more_entries -= from->was;
    rc = rc < 0 ? drop_unit(cold, rc) : end_unit(cold, chunks + 1);
    if (rc < 0)
        return rc;
    if (from->was > 0)
        cold->stale = from->number;
    atomic_store(&cold->chunks, chunks + 1);
    return 0;
}

static int split_some(struct cold *cold)
{
    uint64_t most = UINT64_C(1) << (cold->bits - COLD_TAG_BITS + LEVELS);
    int rc = 0;

    while (rc == 0 && atomic_load(&cold->entries) > FILL * atomic_load(&cold->chunks) &&
           atomic_load(&cold->chunks) < most)
        rc = split(cold);
    return rc;
}

/* ---- calls -------------------------------------------------------------------------------------------- */

static int write_all(struct cold *cold, struct cold_item *items, unsigned count, enum hlog_taker taker, bool moves)
{
    struct cold_work *w = cold->work;
    int rc = 0;

    w->taker = taker;
    w->moves = moves;
    w->moved_bytes = 0;
    qsort(items, count, sizeof *items, compare_hashes);
    for (unsigned done = 0; done < count && rc == 0; done += w->item_count) {
        begin_slice(cold, items + done, count - done);
        rc = read_chunks(cold);
        if (rc == 0 && moves)
            rc = find_live(cold);
        if (rc == 0)
            rc = write_items(cold);
    }
    if (rc == 0 && device_is_full(rc = split_some(cold)))
        rc = 0; /* chunks are larger for a while */
    return rc;
}

int cold_put(struct cold *cold, struct cold_item *items, unsigned count, enum hlog_taker taker)
{
    pthread_mutex_lock(&cold->lock);
    int rc = write_all(cold, items, count, taker, false);
    pthread_mutex_unlock(&cold->lock);
    return rc;
}

int cold_move(struct cold *cold, struct cold_item *items, unsigned count, enum hlog_taker taker, uint64_t *ret_bytes)
{
    pthread_mutex_lock(&cold->lock);
    int rc = write_all(cold, items, count, taker, true);
    *ret_bytes = cold->work->moved_bytes;
    pthread_mutex_unlock(&cold->lock);
    return rc;
}

int cold_chunks_of(struct cold *cold, const struct store_snapshot *snapshot, uint64_t *ret_chunks)
{
    struct cold_state state;
    struct store_read read = {.key = &state_key,
                              .key_len = sizeof state_key,
                              .buf = &state,
                              .buf_len = sizeof state,
                              .value_hint = sizeof state,
                              .snapshot = snapshot};

    pthread_mutex_lock(&cold->lock);
    int rc = store_read_wait(cold->session, &read);
    pthread_mutex_unlock(&cold->lock);
    if (rc == STORE_NOT_FOUND) /* nothing had been put yet */
        *ret_chunks = UINT64_C(1) << (cold->bits - COLD_TAG_BITS);
    if (rc != STORE_OK)
        return rc < 0 ? rc : 0;
    if (read.value_len != sizeof state || state.bits != cold->bits || !state_is_sound(&state))
        return -EUCLEAN;
    *ret_chunks = state.chunks;
    return 0;
}
