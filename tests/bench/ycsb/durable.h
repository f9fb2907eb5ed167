// SPDX-License-Identifier: MIT
/* durable: what checkpoints cost those who go on, and how long an engine takes to come back. */
#ifndef YCSB_DURABLE_H
#define YCSB_DURABLE_H

#include "options.h"

/* Both print their tables. False: something is wrong with the machine (said on stderr). */
bool durable_checkpoint(const struct options *options);
bool durable_recovery(const struct options *options);

#endif
