/* SPDX-License-Identifier: MIT */
/*
 * What a mapped device has at a sector: the device below, or zeroes, as the target of its live
 * table tells. Called by bdev/extent.c through dmcore_bdev::place.
 */
#include <errno.h>

#include "base/checked.h"
#include "map/map.h"

int dmcore__map_place(struct dmcore_bdev *bdev, uint64_t sector, struct dmcore_place *place)
{
	const struct dmcore_device *device = bdev->private_data;
	const struct dmcore_table *table = dmcore__device_active(device);
	struct dmcore_target *target;
	uint64_t count;
	uint64_t i;

	if (!table || sector >= table->size_sectors)
		return -EIO;
	i = dmcore__find_range(table->ends, table->num_targets, sector);
	target = dmcore__target_at(table, (uint32_t)i);
	count = dmcore__min_u64(place->count, table->ends[i] - sector);
	*place = (struct dmcore_place){ .count = count, .kind = DMCORE_EXTENT_DATA };
	if (target->type->extent)
		target->type->extent(target, sector, place);
	if (place->count == 0 || place->count > count)
		*place = (struct dmcore_place){ .count = count, .kind = DMCORE_EXTENT_DATA };
	return 0;
}
