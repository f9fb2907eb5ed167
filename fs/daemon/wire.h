// SPDX-License-Identifier: MIT
/*
 * wire: requests and flags of the kernel's protocol that this libfuse does not decode. Such a request is
 * turned into one that it does decode and whose layout is the same as far as it goes; the handler
 * then finds in `self` what was lost. Replies go through libfuse like all others.
 *
 * Threads: any; each uses its own `self`.
 */
#ifndef DAEMON_WIRE_H
#define DAEMON_WIRE_H

#include "adapter.h"

#include <sys/uio.h>

/* fuse_session_process_buf(), of any request. */
void wire_process(struct fuse_session *session, struct fuse_buf *buf);
/* Called with every reply before it goes out: adds to that of INIT what the adapter can do beyond libfuse. */
void wire_reply(struct iovec *iov, int count);

#endif
