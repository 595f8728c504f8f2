/* SPDX-License-Identifier: MIT */
/* The commands of the kernel's control node, carried out by the library. */
#ifndef DMCORE_EXAMPLE_NBDKIT_COMMANDS_H
#define DMCORE_EXAMPLE_NBDKIT_COMMANDS_H

#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

#include "../dmsetup/protocol.h"
#include "devices.h"
#include "numbers.h"

/* A command of a client's while it is carried out. */
struct call {
	struct devices *devices;
	struct numbers *numbers;
	int socket;             /* The client is gone when this is at its end. */
	bool has_folder;        /* Relative paths are the client's. */
	unsigned int command;   /* DM_..._CMD. */
	struct dm_ioctl *param; /* data_bytes, of which the first sizeof(*param) are there. */
	size_t data_bytes;
	char message[CONTROL_MESSAGE_BYTES_MAX]; /* Out: why it failed, or "". */
};

/*
 * Carries it out. Whatever the client has sent, nothing outside of the buffer is read or written.
 * Returns 0 or -errno, and in both cases what is in the buffer is for the client.
 */
int commands_run(struct call *call);

/* ---- for the files that share the work ---- */

/* Keeps the library's message about the call that has just returned `ret`, which it returns. */
int call_failed(struct call *call, int ret);

/* Likewise, with a message of one's own. */
__attribute__((format(printf, 3, 4))) int call_refused(struct call *call, int ret,
						       const char *format, ...);

/* Finds the device that a client means, and holds it. 0, -ENXIO: none, or -EINVAL. */
int call_pin(struct call *call, struct pin *pin);

/* What is to be told of a device after a command. */
void call_tell(struct call *call, struct dmcore_device *device);

/* The string that the client has sent behind the parameters, or NULL if it doesn't end. */
const char *call_string(const struct call *call);

/* Room for answers behind the parameters. */
struct room {
	struct call *call;
	size_t used_bytes;
	bool full; /* Something didn't fit. */
};

struct room room_begin(struct call *call);

/* Zeroed memory, aligned to 8 bytes; NULL: it is full. */
void *room_take(struct room *room, size_t bytes);

/* Says in the parameters how much there is. */
void room_end(struct room *room);

/*
 * status.c: the params of a STATUS line with numbers in place of names of devices, to be freed;
 * NULL: no memory. With devices_lock() held.
 */
char *status_with_numbers(struct call *call, const char *type, const char *params);

/* tables.c */
int table_load(struct call *call);
int table_clear(struct call *call);
int table_deps(struct call *call);
int table_status(struct call *call);
int table_wait(struct call *call);
int table_message(struct call *call);
int list_versions(struct call *call);

#endif
