// SPDX-License-Identifier: MIT
/* How a transfer goes on after what one read or write of it returned, which real disks seldom show. */
#include "device/backends.h"
#include "private.h"

struct step {
    enum device_op op;
    uint32_t moved;   /* before, of 4 blocks */
    int64_t returned; /* by the read or write */
    bool ends;
    int64_t result; /* if it ends; else bytes moved */
};

static const struct step steps[] = {
    /* all at once, and the rest of a part */
    {DEVICE_READ, 0, 4 * BLOCK, true, 4 * BLOCK},
    {DEVICE_WRITE, 3 * BLOCK, BLOCK, true, 4 * BLOCK},
    /* short at a block: on from there */
    {DEVICE_READ, 0, BLOCK, false, BLOCK},
    {DEVICE_WRITE, BLOCK, 2 * BLOCK, false, 3 * BLOCK},
    /* short inside a block: on from its start, as O_DIRECT wants */
    {DEVICE_READ, 0, BLOCK + 904, false, BLOCK},
    {DEVICE_WRITE, BLOCK, BLOCK + 512, false, 2 * BLOCK},
    /* and no further: the file ends there; a write has no such excuse */
    {DEVICE_READ, BLOCK, 904, true, BLOCK + 904},
    {DEVICE_READ, 2 * BLOCK, 0, true, 2 * BLOCK},
    {DEVICE_READ, 0, 0, true, 0},
    {DEVICE_WRITE, BLOCK, 512, true, -ENOSPC},
    {DEVICE_WRITE, 0, 0, true, -ENOSPC},
    /* not now, again */
    {DEVICE_READ, BLOCK, -EINTR, false, BLOCK},
    {DEVICE_WRITE, 0, -EAGAIN, false, 0},
    {DEVICE_WRITE, BLOCK, -ECANCELED, false, BLOCK},
    /* errors, also after a part was moved */
    {DEVICE_READ, 2 * BLOCK, -EIO, true, -EIO},
    {DEVICE_WRITE, 0, -ENOSPC, true, -ENOSPC},
};

START_TEST(a_short_transfer_goes_on_at_a_whole_block)
{
    const struct step *step = &steps[_i];
    struct device_io io = {.op = step->op, .len = 4 * BLOCK, .priv.moved = step->moved};
    int64_t result = -1;
    ck_assert_int_eq(device_io_advance(&io, step->returned, &result), step->ends);
    if (step->ends)
        ck_assert_int_eq(result, step->result);
    else
        ck_assert_int_eq(io.priv.moved, step->result);
}
END_TEST

static void add(TCase *tcase)
{
    tcase_add_loop_test(tcase, a_short_transfer_goes_on_at_a_whole_block, 0, sizeof(steps) / sizeof(steps[0]));
}

int main(void)
{
    return run("advance", add);
}
