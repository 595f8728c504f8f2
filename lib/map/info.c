/* SPDX-License-Identifier: MIT */
/* Looking at mapped devices: found by name or number, and what they are like. Called by
 * applications. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "map/map.h"
#include "queue/queue.h"

struct dmcore_device *dmcore_device_find(struct dmcore *core, const char *name)
{
	struct dmcore_bdev *bdev;

	if (!name || dmcore__control_begin(core))
		return NULL;
	bdev = dmcore__bdev_find_mapped(core, name);
	dmcore__unlock(core);
	return bdev ? bdev->private_data : NULL;
}

struct dmcore_device *dmcore_device_at(struct dmcore *core, unsigned int index)
{
	struct dmcore_device *device = NULL;
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (dmcore__control_begin(core))
		return NULL;
	dmcore__list_for_each(node, spare, &core->map->devices) {
		if (index-- == 0) {
			device = dmcore__container_of(node, struct dmcore_device, link);
			break;
		}
	}
	dmcore__unlock(core);
	return device;
}

struct dmcore_bdev *dmcore_device_bdev(struct dmcore_device *device)
{
	return device->bdev;
}

const char *dmcore_device_name(const struct dmcore_device *device)
{
	return device->bdev->name;
}

/* What a device is like; control lock held. */
static void fill_info(const struct dmcore_device *device, struct dmcore_device_info *info)
{
	const struct dmcore_table *active = dmcore__device_active(device);
	const struct dmcore_table *inactive = device->inactive;
	struct dmcore_bdev *bdev = device->bdev;

	memcpy(info->name, bdev->name, strlen(bdev->name) + 1);
	if (device->uuid)
		memcpy(info->uuid, device->uuid, strlen(device->uuid) + 1);
	info->suspended = device->state != DMCORE__DEVICE_RUNNING;
	info->changing = device->state > DMCORE__DEVICE_RUNNING;
	info->read_only = dmcore_bdev_is_read_only(bdev);
	info->live_table = active != NULL;
	info->inactive_table = inactive != NULL;
	info->num_targets = active ? active->num_targets : 0;
	info->open_count = bdev->open_count;
	info->event_nr = atomic_load(&device->event_nr);
	info->size_sectors = dmcore_bdev_size_sectors(bdev);
	info->deferred_remove = device->deferred_remove;
	info->num_inactive_targets = inactive ? inactive->num_targets : 0;
	info->inactive_size_sectors = inactive ? inactive->size_sectors : 0;
	info->num_inflight = dmcore__slot_inflight(device->core, bdev->slot);
	info->num_deferred = atomic_load(&bdev->num_deferred);
}

int dmcore_device_info(struct dmcore_device *device, struct dmcore_device_info *info)
{
	struct dmcore_device_info all = { .struct_size = info ? info->struct_size : 0 };
	size_t bytes = all.struct_size < sizeof(all) ? all.struct_size : sizeof(all);
	int ret;

	if (bytes < sizeof(all.struct_size))
		return dmcore__error(-EINVAL, "struct_size isn't set");
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	fill_info(device, &all);
	dmcore__unlock(device->core);
	memcpy(info, &all, bytes);
	return 0;
}
