/* SPDX-License-Identifier: MIT */
/*
 * What libdmcore-dmsetup.so and the control socket of nbdkit's plugin say to each other: a command
 * of <linux/dm-ioctl.h> with its buffer, and what the kernel would have made of it.
 *
 *	client  struct control_request, the path of its folder, its buffer
 *	server  struct control_reply, the buffer, a message
 *
 * One after the other, any number of them, on a stream between programs of one machine: numbers are
 * in its byte order. Who breaks the rules is cut off.
 */
#ifndef DMCORE_EXAMPLE_DMSETUP_PROTOCOL_H
#define DMCORE_EXAMPLE_DMSETUP_PROTOCOL_H

#include <stdint.h>

/* "dmc1", read as a little-endian number. */
#define CONTROL_MAGIC 0x31636d64u

/* The environment variable with the socket's path. */
#define CONTROL_VARIABLE "DMCORE_CONTROL"

/* Of a buffer: a table of some hundred thousand targets. */
#define CONTROL_DATA_BYTES_MAX (32u << 20)
#define CONTROL_FOLDER_BYTES_MAX 4096u
#define CONTROL_MESSAGE_BYTES_MAX 1024u

/* Of mapped devices: the largest there is, which no device of the machine has. The kernel takes any
 * that is free. */
#define CONTROL_MAJOR 4095u
#define CONTROL_MINORS_MAX (1u << 20)

struct control_request {
	uint32_t magic;
	uint32_t command;      /* DM_..._CMD. */
	uint32_t folder_bytes; /* The path that relative ones are relative to, without a NUL. */
	uint32_t data_bytes;   /* A struct dm_ioctl and what follows. */
};

struct control_reply {
	uint32_t magic;
	int32_t error;          /* 0 or an errno. */
	uint32_t data_bytes;    /* At most as many as there were. */
	uint32_t message_bytes; /* What the kernel would have logged, without a NUL. */
};

#endif
