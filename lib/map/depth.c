/* SPDX-License-Identifier: MIT */
/*
 * How deep devices stand on each other. A bio has room for so many frames, and what a device needs
 * of it counts for all above: a table that is replaced may change it. Called by suspend.c, stats.c.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/error.h"
#include "bdev/bio.h"
#include "map/map.h"

static struct dmcore_device *device_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_device, link);
}

/* Whether a request to a device, counted there or not, has room for its frames. */
static int check_frames(const struct dmcore_bdev *bdev, uint32_t frame_bytes)
{
	uint32_t most = DMCORE_BIO_FRAME_BYTES - DMCORE__FRAME_RESERVE_BYTES;

	if (frame_bytes <= most)
		return 0;
	return dmcore__error(-ELOOP,
			     "%s: a request would need %u bytes of completion frames, it has %u",
			     bdev->name, frame_bytes, most);
}

/*
 * Measures the tables of all devices, lower ones before or after upper ones, until nothing changes
 * any more: as often as they stand on each other at the most, for there are no cycles.
 */
static int measure_all(struct dmcore *core, const struct dmcore_device *but)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;
	bool changed;

	do {
		changed = false;
		dmcore__list_for_each(node, spare, &core->map->devices) {
			struct dmcore_device *device = device_entry(node);
			struct dmcore_table *table = dmcore__device_active(device);
			struct dmcore_bdev *bdev = device->bdev;
			uint32_t frame_bytes;
			int ret;

			if (device == but || !table || table->num_devices == 0)
				continue;
			ret = dmcore__table_measure(table);
			if (ret)
				return dmcore__error_prefix(ret, "device %s above it", bdev->name);
			frame_bytes = table->frame_bytes + dmcore__stats_frame_bytes(device);
			ret = check_frames(bdev, frame_bytes);
			if (ret)
				return ret;
			changed = changed || bdev->frame_bytes != frame_bytes ||
				  bdev->depth != table->depth;
			bdev->frame_bytes = frame_bytes;
			bdev->depth = table->depth;
		}
	} while (changed);
	return 0;
}

int dmcore__device_set_depth(struct dmcore_device *device, uint32_t frame_bytes, uint32_t depth)
{
	struct dmcore_bdev *bdev = device->bdev;
	uint32_t old_frame_bytes = bdev->frame_bytes;
	uint32_t old_depth = bdev->depth;
	int undone;
	int ret;

	if (frame_bytes == old_frame_bytes && depth == old_depth)
		return 0;
	ret = check_frames(bdev, frame_bytes);
	if (ret)
		return ret;
	bdev->frame_bytes = frame_bytes;
	bdev->depth = depth;
	/* Nothing stands on what nobody has opened. */
	if (bdev->open_count == 0)
		return 0;
	ret = measure_all(device->core, device);
	if (ret == 0)
		return 0;
	bdev->frame_bytes = old_frame_bytes;
	bdev->depth = old_depth;
	undone = measure_all(device->core, device);
	DMCORE__ASSERT(undone == 0);
	(void)undone;
	return ret;
}
