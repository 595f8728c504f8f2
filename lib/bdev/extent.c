/* SPDX-License-Identifier: MIT */
/*
 * Where a device holds data and where zeroes: asks the leaf below, through all mapped devices on
 * the way. Called by applications, and by those who copy.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "bdev/bdev.h"

/* Pieces of one kind that an answer is put together from: chunks of a stripe, and the like. */
#define PIECES_MAX 64

/* A leaf's answer; what it can't tell is data. */
static void ask_leaf(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		     struct dmcore_extent *extent)
{
	*extent = (struct dmcore_extent){ DMCORE_EXTENT_DATA, count };
	if (!DMCORE__DRIVER_HAS(bdev->driver, extent))
		return;
	if (bdev->driver->extent(bdev, sector, count, extent) || extent->count == 0 ||
	    extent->count > count)
		*extent = (struct dmcore_extent){ DMCORE_EXTENT_DATA, count };
}

/*
 * One piece: as far as all devices on the way down have it in one. `*whole` says whether it is of
 * one kind up to where it is cut on the way, so that the next may go on with it.
 */
static int ask(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
	       struct dmcore_extent *extent, bool *whole)
{
	struct dmcore_place place = { .bdev = bdev, .sector = sector, .count = count };

	while (place.bdev) {
		uint64_t size = dmcore_bdev_size_sectors(place.bdev);

		bdev = place.bdev;
		sector = place.sector;
		if (sector >= size)
			return -EIO;
		place.count = dmcore__min_u64(place.count, size - sector);
		if (!dmcore__bdev_route(bdev)) {
			ask_leaf(bdev, sector, place.count, extent);
			*whole = extent->count == place.count;
			return 0;
		}
		if (bdev->place(bdev, sector, &place))
			return -EIO;
	}
	*extent = (struct dmcore_extent){ place.kind, place.count };
	*whole = true;
	return 0;
}

/* Puts the pieces together that follow the first one and are of its kind. */
static void extend(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		   struct dmcore_extent *extent, bool whole)
{
	for (unsigned int i = 1; i < PIECES_MAX && whole && extent->count < count; i++) {
		struct dmcore_extent more;

		if (ask(bdev, sector + extent->count, count - extent->count, &more, &whole) ||
		    more.kind != extent->kind)
			return;
		extent->count += more.count;
	}
}

static int look(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		struct dmcore_extent *extent)
{
	uint64_t mask = dmcore__bdev_block_mask(bdev);
	struct dmcore_extent found;
	bool whole;
	int ret = ask(bdev, sector, count, &found, &whole);

	if (ret)
		return dmcore__error(ret, "%s: has no sector %llu", bdev->name,
				     (unsigned long long)sector);
	extend(bdev, sector, count, &found, whole);
	/* Blocks of the device may be larger than what it stands on has in one piece. */
	if (found.count & mask && !((sector | count) & mask)) {
		if (found.count <= mask)
			found = (struct dmcore_extent){ DMCORE_EXTENT_DATA, mask + 1 };
		found.count &= ~mask;
	}
	*extent = found;
	return 0;
}

int dmcore_bdev_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		       struct dmcore_extent *extent)
{
	int ret;

	if (!bdev || !extent || count == 0)
		return dmcore__error(-EINVAL, "an extent needs a device, a count and a place");
	ret = dmcore__control_begin(bdev->core);
	if (ret)
		return ret;
	ret = look(bdev, sector, count, extent);
	dmcore__unlock(bdev->core);
	return ret;
}
