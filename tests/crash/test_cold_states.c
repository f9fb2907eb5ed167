// SPDX-License-Identifier: MIT
/* What a power cut may leave of a store with a cold level, of both at the same moment. */
#define STATES_COLD
#include "test_store_states.c"
