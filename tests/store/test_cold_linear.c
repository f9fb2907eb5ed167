// SPDX-License-Identifier: MIT
/* Threads and one order of all calls on a key, in a store with a cold level. */
#define MODEL_COLD
#include "test_linear.c"
