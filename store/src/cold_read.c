// SPDX-License-Identifier: MIT
/*
 * Reading from the cold level: the chunk, then the chain that it leads to.
 *
 *     begin of the log, then the number of chunks -> chunk -> chain -> the value, or none
 *         ^-- what the chunk leads to was given back meanwhile, or the chunk was not there and has been split --+
 *
 * Why in this order: a chunk is right as of a moment after the number was taken (cold.h, invariant 4), and what it
 * leads to below a begin that was taken before was dead then.
 */
#include "cold.h"
#include "private.h"

#include <errno.h>
#include <stdlib.h>

static struct cold_read *of_chunk(struct store_read *read)
{
    return (struct cold_read *)((char *)read - offsetof(struct cold_read, chunk));
}

static struct cold_read *of_record(struct store_read *read)
{
    return (struct cold_read *)((char *)read - offsetof(struct cold_read, record));
}

static void chunk_done(struct store_read *read);
static void record_done(struct store_read *read);

static int ask_chunk(struct cold_read *cr)
{
    cr->asked++;
    cr->in_chain = false;
    const struct store_snapshot *snapshot = cr->read->snapshot;
    cr->low = snapshot ? snapshot->cold->at.begin.address : atomic_load(&cr->cold->store->log.begin);
    cr->chunks = snapshot ? snapshot->cold_chunks : atomic_load(&cr->cold->chunks);
    cr->number = cold_chunk_of(cr->hash, cr->chunks);
    cr->chunk = (struct store_read){.key = &cr->number,
                                    .key_len = sizeof cr->number,
                                    .buf = cr->large ? cr->large : cr->few,
                                    .buf_len = (cr->large ? cr->room : COLD_CHUNK_ENTRIES) * sizeof(uint64_t),
                                    .value_hint = COLD_CHUNK_ENTRIES * sizeof(uint64_t),
                                    .snapshot = snapshot ? snapshot->cold : NULL,
                                    .done = chunk_done};
    return store_read(cr->session, &cr->chunk);
}

static int ask_record(struct cold_read *cr, uint64_t address)
{
    const struct store_read *read = cr->read;

    cr->asked++;
    cr->in_chain = true;
    cr->record = (struct store_read){.key = read->key,
                                     .key_len = read->key_len,
                                     .offset = read->offset,
                                     .buf = read->buf,
                                     .buf_len = read->buf_len,
                                     .value_hint = read->value_hint,
                                     .snapshot = read->snapshot ? read->snapshot->cold : NULL,
                                     .done = record_done,
                                     .priv.pinned = cr->above > 0};
    return read_chain(cr->session, &cr->record, address, cr->above > 0 ? cr->above : cr->low, cr->ceiling);
}

static int make_room(struct cold_read *cr, uint32_t bytes)
{
    free(cr->large);
    cr->room = bytes / sizeof(uint64_t) + COLD_CHUNK_ENTRIES;
    cr->large = malloc(cr->room * sizeof(uint64_t));
    return cr->large ? 0 : -ENOMEM;
}

/* The chunk has come, or is not there: what is next? */
static int take_chunk(struct cold_read *cr, int rc)
{
    const struct store_read *read = &cr->chunk;

    if (rc == STORE_NOT_FOUND && !cr->read->snapshot && atomic_load(&cr->cold->chunks) != cr->chunks)
        return ask_chunk(cr);
    if (rc != STORE_OK)
        return rc;
    if (read->copied < read->value_len) {
        rc = make_room(cr, read->value_len);
        return rc < 0 ? rc : ask_chunk(cr);
    }
    uint32_t count = read->value_len / sizeof(uint64_t);
    const uint64_t *entry = cold_find(cr->large ? cr->large : cr->few, count, cold_tag_of(cr->cold, cr->hash));
    if (read->value_len % sizeof(uint64_t) != 0)
        return -EIO;
    if (!entry || cold_entry_address(*entry) < cr->low)
        return STORE_NOT_FOUND;
    return ask_record(cr, cold_entry_address(*entry));
}

/* The chain's end. */
static int take_record(struct cold_read *cr, int rc)
{
    if (rc == -ESTALE)
        return ask_chunk(cr);
    cr->read->value_len = cr->record.value_len;
    cr->read->copied = cr->record.copied;
    return rc;
}

/* `rc` is what the last question gave. Goes on until it is known, or to be waited for. */
static int go_on(struct cold_read *cr, int rc)
{
    for (bool known = false; !known && rc != STORE_PENDING;) {
        bool in_chain = cr->in_chain;
        unsigned asked = cr->asked;
        rc = in_chain ? take_record(cr, rc) : take_chunk(cr, rc);
        known = cr->asked == asked;
    }
    if (rc == STORE_PENDING)
        return rc;
    free(cr->large);
    cr->large = NULL;
    return rc;
}

static void end(struct cold_read *cr, int rc)
{
    if (rc != STORE_PENDING)
        cr->done(cr, rc);
}

static void chunk_done(struct store_read *read)
{
    end(of_chunk(read), go_on(of_chunk(read), read->result));
}

static void record_done(struct store_read *read)
{
    end(of_record(read), go_on(of_record(read), read->result));
}

static int start(struct cold_read *cr)
{
    cr->hash = hash_key(cr->read->key, cr->read->key_len);
    cr->large = NULL;
    return go_on(cr, ask_chunk(cr));
}

int cold_read_start(struct cold_read *cr)
{
    cr->above = 0;
    cr->ceiling = UINT64_MAX;
    return start(cr);
}

static void take_result(struct cold_read *cr, int result)
{
    cr->read->result = result;
}

int cold_is_live(struct cold *cold, struct store_session *session, const struct store_snapshot *snapshot,
                 const void *key, uint32_t key_len, uint64_t address, uint64_t ceiling)
{
    struct store_read read = {.key = key, .key_len = key_len, .snapshot = snapshot};
    struct cold_read cr = {.cold = cold, .session = session, .read = &read, .done = take_result};

    cr.above = address + 1;
    cr.ceiling = ceiling;
    read.result = start(&cr);
    store_complete_pending(session, true);
    if (read.result < 0)
        return read.result;
    return read.result == STORE_NOT_FOUND && cr.in_chain && cr.record.priv.address == address;
}

/* ---- for the sessions of a store with a cold level ------------------------------------------------------ */

static void cold_done(struct cold_read *cr, int result);

int cold_session_open(struct store_session *s)
{
    struct cold *cold = s->store->cold;
    int rc = store_session_open(cold->store, &s->cold);

    if (rc < 0)
        return rc;
    s->cold_reads = calloc(SESSION_READS, sizeof *s->cold_reads);
    if (!s->cold_reads)
        return -ENOMEM;
    for (unsigned i = 0; i < SESSION_READS; i++) {
        s->cold_reads[i] = (struct cold_read){
            .cold = cold, .session = s->cold, .done = cold_done, .owner = s, .next = s->free_cold_reads};
        s->free_cold_reads = &s->cold_reads[i];
    }
    return 0;
}

void cold_session_close(struct store_session *s)
{
    store_session_close(s->cold);
    free(s->cold_reads);
}

static void put_back(struct store_session *s, struct cold_read *cr)
{
    cr->next = s->free_cold_reads;
    s->free_cold_reads = cr;
}

static void cold_done(struct cold_read *cr, int result)
{
    struct store_read *read = cr->read;

    put_back(cr->owner, cr);
    read_end(cr->owner, read, result);
}

/* With a cold_read that is free. */
static int ask(struct store_session *s, struct store_read *read)
{
    struct cold_read *cr = s->free_cold_reads;

    s->free_cold_reads = cr->next;
    cr->read = read;
    int rc = cold_read_start(cr);
    if (rc != STORE_PENDING)
        put_back(s, cr);
    return rc;
}

int cold_ask(struct store_session *s, struct store_read *read)
{
    if (s->free_cold_reads && !s->cold_first)
        return ask(s, read);
    read->priv.next = NULL;
    if (s->cold_first)
        s->cold_last->priv.next = read;
    else
        s->cold_first = read;
    s->cold_last = read;
    return STORE_PENDING;
}

void cold_start_waiting(struct store_session *s)
{
    while (s->cold_first && s->free_cold_reads) {
        struct store_read *read = s->cold_first;
        s->cold_first = read->priv.next;
        int rc = ask(s, read);
        if (rc != STORE_PENDING)
            read_end(s, read, rc);
    }
}
