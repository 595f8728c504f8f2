/* SPDX-License-Identifier: MIT */
/* A client's request, carried out on the queue of the thread that nbdkit has given it. */
#ifndef DMCORE_EXAMPLE_NBDKIT_REQUESTS_H
#define DMCORE_EXAMPLE_NBDKIT_REQUESTS_H

#include <stdint.h>

#include <dmcore.h>

#include "devices.h"

struct request {
	enum dmcore_op op;
	unsigned int flags; /* DMCORE_BIO_*. */
	void *memory;       /* READ, WRITE: length_bytes. */
	uint32_t length_bytes;
	uint64_t offset_bytes;
};

/* Once, before the first request and after the last. 0 or -errno. */
int requests_begin(void);
void requests_end(void);

/* Waits for it. 0 or -errno with a dmcore_error_message() or none. */
int requests_run(struct devices *devices, struct dmcore_bdev *bdev, const struct request *request);

/* Closes the queue of the calling thread, if it has one. Threads that end do so by themselves. */
void requests_end_thread(void);

#endif
