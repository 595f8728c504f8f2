/* SPDX-License-Identifier: MIT */
/*
 * Reads the metadata of COW devices: the header, and the list of entries. Writes nothing, prints
 * nothing, believes nothing; needs 1 MiB whatever the size of device and chunks. Functions return 0
 * or a negative errno, of which the library has a message.
 */
#ifndef DMCAT_COW_READ_H
#define DMCAT_COW_READ_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

struct cow_reader {
	struct dmcore_bdev *bdev;
	uint64_t size_sectors;
	uint32_t block_bytes;            /* logical block */
	struct dmcore_cow_header header;
	enum dmcore_cow_fault fault;     /* of the header */
	uint32_t chunk_sectors;          /* by which areas are read */
	uint32_t area_entries;
	uint64_t num_chunks;             /* whole ones that the device has */
	unsigned char *piece;            /* of an area */
	uint64_t piece_bytes;
	uint64_t piece_at_bytes;         /* where it is from; UINT64_MAX: it is empty */
};

/* An entry's. */
struct cow_place {
	uint64_t area;
	uint32_t index;
};

/* Where the list ends, and what a load makes of it. */
struct cow_list {
	uint64_t num_entries;
	struct cow_place end;       /* the terminator's */
	bool is_terminated;         /* else the device ends before the area that `end` names */
	uint64_t next_free;         /* chunk, as the kernel counts when it has read the list */
	uint64_t allocated_sectors; /* what status would print */
	uint64_t metadata_sectors;
};

/* What stands behind the terminator of an area. */
struct cow_tail {
	uint32_t num_entries;           /* that aren't zero */
	uint32_t first;                 /* index of the first of these */
	struct dmcore_cow_entry entry;  /* which it is */
};

/* Reads the header. The reader is to be closed whatever comes of it. */
int cow_reader_open(struct cow_reader *reader, struct dmcore_bdev *bdev);
void cow_reader_close(struct cow_reader *reader);

/* Whether chunks of that size are possible on the device. */
bool cow_reader_can_have_chunks(const struct cow_reader *reader, uint32_t chunk_sectors);
/*
 * Sets the chunk size by which areas are read: the header's, or, if the header isn't good,
 * `instead`. False: that isn't possible either, and areas can't be read.
 */
bool cow_reader_choose_chunks(struct cow_reader *reader, uint32_t instead);

/* Whether the device has room for the entries of an area. */
bool cow_has_area(const struct cow_reader *reader, uint64_t area);

/* Called for each entry, in order. Anything but 0 ends the walk, which returns it. */
typedef int (*cow_entry_fn)(void *context, const struct cow_place *place,
			    const struct dmcore_cow_entry *entry);

/* Reads the list. fn may be NULL. */
int cow_walk(struct cow_reader *reader, cow_entry_fn fn, void *context, struct cow_list *list);

/* Looks at what stands behind a terminator, up to the end of its area. */
int cow_read_tail(struct cow_reader *reader, const struct cow_place *terminator,
		  struct cow_tail *tail);

#endif
