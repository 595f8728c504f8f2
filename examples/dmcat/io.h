/* SPDX-License-Identifier: MIT */
/* Bulk I/O: ranges of a device to and from files, with several large requests in flight. */
#ifndef DMCAT_IO_H
#define DMCAT_IO_H

#include "session.h"

/* Sectors of an open device. */
struct io_range {
	struct dmcore_bdev *bdev;
	const char *name;  /* of bdev, for messages */
	uint64_t sector;
	uint64_t count;
};

/* An error unless a range lies within the device and begins and ends at a block of it. */
enum exit_status io_check_range(struct session *session, const struct io_range *range);

/* Copies a range to a file, in order. Up to the first sector that can't be read all is written. */
enum exit_status io_read(struct session *session, const struct io_range *range,
			 const struct file *output);

/* Copies a file to a range, all of which it must fill. */
enum exit_status io_write(struct session *session, const struct io_range *range,
			  const struct file *input);

/*
 * Copies a file to the beginning of a range, in which it must fit. The rest of a last block that it
 * fills in part keeps its content.
 */
enum exit_status io_write_all(struct session *session, const struct io_range *range,
			      const struct file *input);

/* DISCARD or WRITE_ZEROES. */
enum exit_status io_clear(struct session *session, const struct io_range *range,
			  enum dmcore_op op);

enum exit_status io_flush(struct session *session, struct dmcore_bdev *bdev);

/* Behind the destruction of the queue. */
void io_free_chunks(struct session *session);

#endif
