/* SPDX-License-Identifier: MIT */
/*
 * Where a file has holes, which read as zeroes. A file system that doesn't tell has none, nor has a
 * node. Called by the core through the driver's function.
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "bdev/drivers/file/file.h"

/* A range of a file, in bytes, and what it is cut to multiples of. */
struct range {
	int fd;
	uint64_t begin;
	uint64_t end;
	uint64_t block_mask;
};

/* Where the first data of a range begin; its end if there are none, its begin if nobody knows. */
static uint64_t find_data(const struct range *range)
{
	off_t found = lseek(range->fd, (off_t)range->begin, SEEK_DATA);

	if (found >= 0)
		return dmcore__min_u64((uint64_t)found, range->end);
	return errno == ENXIO ? range->end : range->begin;
}

/* Where data that begin at `data` end; with the range if nobody knows. */
static uint64_t find_hole(const struct range *range, uint64_t data)
{
	off_t found = lseek(range->fd, (off_t)data, SEEK_HOLE);

	return found < 0 ? range->end : dmcore__max_u64((uint64_t)found, data + 1);
}

/* The end of what the range begins with, a multiple of the block or the range's own. */
static uint64_t look(const struct range *range, enum dmcore_extent_kind *kind)
{
	uint64_t mask = range->block_mask;
	uint64_t data = find_data(range);
	uint64_t hole;

	*kind = DMCORE_EXTENT_ZERO;
	if (data == range->end)
		return data;
	/* A block that is partly a hole is data. */
	if ((data & ~mask) > range->begin)
		return data & ~mask;
	*kind = DMCORE_EXTENT_DATA;
	hole = find_hole(range, data);
	return dmcore__min_u64((hole + mask) & ~mask, range->end);
}

int dmcore__filedev_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
			   struct dmcore_extent *extent)
{
	const struct filedev *device = dmcore_bdev_private(bdev);
	struct range range = {
		.fd = device->openings[FILEDEV_MAIN].fd,
		.begin = dmcore__sectors_to_bytes(sector),
		.end = dmcore__sectors_to_bytes(sector + count),
		.block_mask = device->length_mask | (DMCORE_SECTOR_BYTES - 1),
	};
	uint64_t size_bytes;
	struct stat st;

	*extent = (struct dmcore_extent){ DMCORE_EXTENT_DATA, count };
	/* First: what the file has no data in then may have grown behind its end of now. */
	if (device->is_block || fstat(range.fd, &st) < 0)
		return 0;
	size_bytes = (uint64_t)st.st_size & ~range.block_mask;
	/* It has shrunk: reads will tell. */
	if (size_bytes <= range.begin)
		return 0;
	range.end = dmcore__min_u64(range.end, size_bytes);
	extent->count = dmcore__bytes_to_sectors(look(&range, &extent->kind) - range.begin);
	return 0;
}
