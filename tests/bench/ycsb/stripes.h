// SPDX-License-Identifier: MIT
/* stripes: mutexes by key, for engines whose own read-modify-write would not be atomic. */
#ifndef YCSB_STRIPES_H
#define YCSB_STRIPES_H

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#define STRIPES 1024u

struct stripes {
    pthread_mutex_t locks[STRIPES];
};

static inline void stripes_init(struct stripes *stripes)
{
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&stripes->locks[i], NULL);
}

/* Keys are scrambled, so their first bytes spread well. */
static inline pthread_mutex_t *stripes_lock(struct stripes *stripes, const void *key)
{
    uint32_t head;

    memcpy(&head, key, sizeof head);
    pthread_mutex_t *lock = &stripes->locks[head % STRIPES];
    pthread_mutex_lock(lock);
    return lock;
}

#endif
