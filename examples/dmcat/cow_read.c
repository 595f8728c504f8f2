/* SPDX-License-Identifier: MIT */
/* Reads the metadata of COW devices. Called by cow.c and cow_check.c; see cow_read.h. */
#include "cow_read.h"

#include <errno.h>
#include <stdlib.h>

/* Areas are read in pieces of so many bytes at the most: a multiple of any block. */
#define PIECE_BYTES_MAX (UINT64_C(1) << 20)
#define NOTHING UINT64_MAX

int cow_reader_open(struct cow_reader *reader, struct dmcore_bdev *bdev)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	int ret;

	*reader = (struct cow_reader){ .bdev = bdev, .piece_at_bytes = NOTHING };
	dmcore_bdev_limits(bdev, &limits);
	reader->size_sectors = dmcore_bdev_size_sectors(bdev);
	reader->block_bytes = limits.logical_block_bytes;
	reader->piece = malloc(PIECE_BYTES_MAX);
	if (!reader->piece)
		return -ENOMEM;
	ret = dmcore_pread(bdev, reader->piece, reader->block_bytes, 0);
	if (ret == 0)
		reader->fault = dmcore_cow_header_decode(reader->piece, &reader->header);
	return ret;
}

void cow_reader_close(struct cow_reader *reader)
{
	free(reader->piece);
	reader->piece = NULL;
}

bool cow_reader_can_have_chunks(const struct cow_reader *reader, uint32_t chunk_sectors)
{
	return chunk_sectors > 0 && chunk_sectors <= DMCORE_COW_CHUNK_SECTORS_MAX &&
	       (chunk_sectors & (chunk_sectors - 1)) == 0 &&
	       (uint64_t)chunk_sectors * DMCORE_SECTOR_BYTES % reader->block_bytes == 0;
}

bool cow_reader_choose_chunks(struct cow_reader *reader, uint32_t instead)
{
	uint32_t chunk_sectors = reader->header.chunk_sectors;
	uint64_t bytes;

	if (reader->fault || !cow_reader_can_have_chunks(reader, chunk_sectors))
		chunk_sectors = instead;
	if (!cow_reader_can_have_chunks(reader, chunk_sectors))
		return false;
	bytes = (uint64_t)chunk_sectors * DMCORE_SECTOR_BYTES;
	reader->chunk_sectors = chunk_sectors;
	reader->area_entries = dmcore_cow_area_entries(chunk_sectors);
	reader->num_chunks = reader->size_sectors / chunk_sectors;
	reader->piece_bytes = bytes < PIECE_BYTES_MAX ? bytes : PIECE_BYTES_MAX;
	reader->piece_at_bytes = NOTHING;
	return true;
}

bool cow_has_area(const struct cow_reader *reader, uint64_t area)
{
	/* In this order, for the place of a far one would be no number of 64 bits. */
	return area <= reader->num_chunks / reader->area_entries &&
	       dmcore_cow_area_chunk(reader->chunk_sectors, area) < reader->num_chunks;
}

static uint64_t place_bytes(const struct cow_reader *reader, const struct cow_place *place)
{
	return dmcore_cow_area_chunk(reader->chunk_sectors, place->area) *
		       reader->chunk_sectors * DMCORE_SECTOR_BYTES +
	       (uint64_t)place->index * DMCORE_COW_ENTRY_BYTES;
}

/* Reads an entry of an area that the device has. */
static int read_entry(struct cow_reader *reader, const struct cow_place *place,
		      struct dmcore_cow_entry *entry)
{
	uint64_t at_bytes = place_bytes(reader, place);
	uint64_t within_bytes = at_bytes % reader->piece_bytes;

	if (at_bytes - within_bytes != reader->piece_at_bytes) {
		int ret;

		reader->piece_at_bytes = NOTHING;
		ret = dmcore_pread(reader->bdev, reader->piece, (size_t)reader->piece_bytes,
				   at_bytes - within_bytes);
		if (ret)
			return ret;
		reader->piece_at_bytes = at_bytes - within_bytes;
	}
	dmcore_cow_entry_decode(reader->piece + within_bytes, entry);
	return 0;
}

/* As the kernel does when it has read all entries: behind the highest chunk that one names. */
static void sum_up(const struct cow_reader *reader, struct cow_list *list)
{
	uint64_t period = (uint64_t)reader->area_entries + 1;

	if (list->next_free % period == 1)
		list->next_free++;
	list->num_entries = list->end.area * reader->area_entries + list->end.index;
	list->allocated_sectors = list->next_free * reader->chunk_sectors;
	list->metadata_sectors = (list->end.area + 2) * reader->chunk_sectors;
}

int cow_walk(struct cow_reader *reader, cow_entry_fn fn, void *context, struct cow_list *list)
{
	struct cow_place *place = &list->end;

	*list = (struct cow_list){ .next_free = DMCORE_COW_FIRST_DATA_CHUNK };
	for (; cow_has_area(reader, place->area); place->area++) {
		for (place->index = 0; place->index < reader->area_entries; place->index++) {
			struct dmcore_cow_entry entry;
			int ret = read_entry(reader, place, &entry);

			if (ret)
				return ret;
			if (entry.new_chunk == 0) {
				list->is_terminated = true;
				sum_up(reader, list);
				return 0;
			}
			if (entry.new_chunk >= list->next_free)
				list->next_free = entry.new_chunk + 1;
			ret = fn ? fn(context, place, &entry) : 0;
			if (ret)
				return ret;
		}
	}
	place->index = 0;
	sum_up(reader, list);
	return 0;
}

/* How many of the next entries are known to be zero without being read. For whole pieces. */
static int count_hole(struct cow_reader *reader, const struct cow_place *place, uint32_t *count)
{
	uint64_t at_bytes = place_bytes(reader, place);
	uint64_t left_bytes = (uint64_t)(reader->area_entries - place->index) *
			      DMCORE_COW_ENTRY_BYTES;
	struct dmcore_extent extent;
	int ret;

	*count = 0;
	ret = dmcore_bdev_extent(reader->bdev, at_bytes / DMCORE_SECTOR_BYTES,
				 left_bytes / DMCORE_SECTOR_BYTES, &extent);
	if (ret == 0 && extent.kind == DMCORE_EXTENT_ZERO)
		*count = (uint32_t)(extent.count * DMCORE_SECTOR_BYTES / DMCORE_COW_ENTRY_BYTES);
	return ret;
}

int cow_read_tail(struct cow_reader *reader, const struct cow_place *terminator,
		  struct cow_tail *tail)
{
	struct cow_place place = *terminator;

	*tail = (struct cow_tail){ .num_entries = 0 };
	place.index++;
	while (place.index < reader->area_entries) {
		struct dmcore_cow_entry entry;
		uint32_t hole = 0;
		int ret = 0;

		if (place_bytes(reader, &place) % reader->piece_bytes == 0)
			ret = count_hole(reader, &place, &hole);
		if (ret == 0 && hole > 0) {
			place.index += hole;
			continue;
		}
		if (ret == 0)
			ret = read_entry(reader, &place, &entry);
		if (ret)
			return ret;
		if (entry.old_chunk != 0 || entry.new_chunk != 0) {
			if (tail->num_entries++ == 0) {
				tail->first = place.index;
				tail->entry = entry;
			}
		}
		place.index++;
	}
	return 0;
}
