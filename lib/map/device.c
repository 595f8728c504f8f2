/* SPDX-License-Identifier: MIT */
/*
 * Mapped devices: made, loaded, resumed, removed. Called by applications, by concise.c, and by
 * registry.c when a core goes. The data path reads what resume publishes here.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/compiler.h"
#include "base/error.h"
#include "map/map.h"
#include "queue/queue.h"

#define DEV_MAPPER "/dev/mapper/"

static struct dmcore_device *device_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_device, link);
}

static struct dmcore_table *table_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_table, link);
}

/* Control lock held: nobody else writes it. */
static struct dmcore_table *live_table(const struct dmcore_device *device)
{
	return atomic_load_explicit(&device->live, memory_order_relaxed);
}

static void set_state(struct dmcore_device *device, enum dmcore__device_state state)
{
	static const bool legal[DMCORE__DEVICE_STATES][DMCORE__DEVICE_STATES] = {
		[DMCORE__DEVICE_SUSPENDED] = { [DMCORE__DEVICE_RUNNING] = true,
					       [DMCORE__DEVICE_REMOVED] = true },
		[DMCORE__DEVICE_RUNNING] = { [DMCORE__DEVICE_REMOVED] = true },
	};

	DMCORE__ASSERT(state < DMCORE__DEVICE_STATES);
	DMCORE__ASSERT(legal[device->state][state]);
	device->state = state;
}

/* ---- create ---- */

static int check_name(const char *name)
{
	size_t length = strnlen(name, DMCORE_NAME_MAX + 1);

	if (length == 0)
		return dmcore__error(-EINVAL, "a device needs a name");
	if (length > DMCORE_NAME_MAX)
		return dmcore__error(-EINVAL, "device name longer than %d characters: %.32s…",
				     DMCORE_NAME_MAX, name);
	if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return dmcore__error(-EINVAL, "%s: a device name is no path", name);
	return 0;
}

static int check_uuid(struct dmcore *core, const char *uuid)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (strnlen(uuid, DMCORE_UUID_MAX + 1) > DMCORE_UUID_MAX)
		return dmcore__error(-EINVAL, "uuid longer than %d characters: %.32s…",
				     DMCORE_UUID_MAX, uuid);
	dmcore__list_for_each(node, spare, &core->map->devices) {
		const struct dmcore_device *device = device_entry(node);

		if (device->uuid && strcmp(device->uuid, uuid) == 0)
			return dmcore__error(-EBUSY, "uuid %s is that of device %s", uuid,
					     device->bdev->name);
	}
	return 0;
}

int dmcore__device_create(struct dmcore *core, const char *name, const char *uuid,
			  unsigned int flags, struct dmcore_device **result)
{
	struct dmcore_device *device;
	bool has_uuid = uuid && *uuid;
	int ret;

	if (flags & ~DMCORE_OPEN_READ_ONLY)
		return dmcore__error(-EINVAL, "unknown device flag in 0x%x", flags);
	ret = check_name(name);
	if (ret)
		return ret;
	if (dmcore__bdev_find_mapped(core, name))
		return dmcore__error(-EBUSY, "device %s exists", name);
	ret = has_uuid ? check_uuid(core, uuid) : 0;
	if (ret)
		return ret;
	device = dmcore__zalloc(core, sizeof(*device));
	if (!device)
		return dmcore__error(-ENOMEM, "no memory for device %s", name);
	device->core = core;
	device->read_only = flags & DMCORE_OPEN_READ_ONLY;
	if (has_uuid) {
		device->uuid = dmcore__strdup(core, uuid);
		if (!device->uuid) {
			ret = dmcore__error(-ENOMEM, "no memory for device %s", name);
			goto free_device;
		}
	}
	ret = dmcore__bdev_create_mapped(core, name, dmcore__map_route, device, device->read_only,
					 &device->bdev);
	if (ret)
		goto free_uuid;
	dmcore__list_append(&core->map->devices, &device->link);
	*result = device;
	return 0;

free_uuid:
	dmcore__free(core, device->uuid);
free_device:
	dmcore__free(core, device);
	return ret;
}

int dmcore_device_create(struct dmcore *core, const char *name, const char *uuid,
			 unsigned int flags, struct dmcore_device **result)
{
	int ret;

	if (!result || !name)
		return dmcore__error(-EINVAL, "a device needs a name, and a place for the result");
	*result = NULL;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = dmcore__device_create(core, name, uuid, flags, result);
	dmcore__unlock(core);
	return ret;
}

/* ---- load ---- */

static int is_marked(struct dmcore_bdev *bdev, void *context)
{
	const struct dmcore_device *device = bdev->private_data;

	(void)context;
	return bdev->route && device->marked;
}

/* Marks each device that has a table, live or not, on a marked one. True: there was one more. */
static bool mark_upwards(struct dmcore *core)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;
	bool found = false;

	dmcore__list_for_each(node, spare, &core->map->tables) {
		struct dmcore_table *table = table_entry(node);

		if (!table->device || table->device->marked)
			continue;
		if (dmcore__table_each_device(table, is_marked, NULL)) {
			table->device->marked = true;
			found = true;
		}
	}
	return found;
}

/* Whether `device` would stand on itself with `table`. */
static bool makes_cycle(struct dmcore_device *device, struct dmcore_table *table)
{
	struct dmcore *core = device->core;
	struct dmcore__list *node;
	struct dmcore__list *spare;
	bool found;

	/* What nobody has opened, nothing stands on, this table neither. */
	if (device->bdev->open_count == 0)
		return false;
	dmcore__list_for_each(node, spare, &core->map->devices)
		device_entry(node)->marked = false;
	device->marked = true;
	while (mark_upwards(core))
		continue;
	found = dmcore__table_each_device(table, is_marked, NULL);
	return found;
}

static int load(struct dmcore_device *device, struct dmcore_table *table)
{
	int ret;

	if (table->core != device->core)
		return dmcore__error(-EINVAL, "the table belongs to another core");
	if (table->device)
		return dmcore__error(-EBUSY, "the table is loaded into %s already",
				     table->device->bdev->name);
	ret = dmcore__table_complete(table);
	if (ret)
		return ret;
	if (makes_cycle(device, table))
		return dmcore__error(-ELOOP, "the device would stand on itself");
	if (device->inactive)
		dmcore__table_destroy(device->inactive);
	table->device = device;
	device->inactive = table;
	return 0;
}

int dmcore__device_load(struct dmcore_device *device, struct dmcore_table *table)
{
	int ret = load(device, table);

	return ret ? dmcore__error_prefix(ret, "%s", device->bdev->name) : 0;
}

int dmcore_device_load(struct dmcore_device *device, struct dmcore_table *table)
{
	int ret;

	if (!device || !table)
		return dmcore__error(-EINVAL, "no device, or no table");
	ret = dmcore__control_begin(device->core);
	if (ret)
		return ret;
	ret = dmcore__device_load(device, table);
	dmcore__unlock(device->core);
	return ret;
}

/* ---- resume ---- */

/* Makes the inactive table live. */
static int swap_in(struct dmcore_device *device)
{
	struct dmcore_table *table = device->inactive;
	struct dmcore_bdev *bdev = device->bdev;
	int ret;

	if (live_table(device))
		return dmcore__error(-EOPNOTSUPP, "replacing a live table isn't supported yet");
	ret = dmcore__table_check_areas(table);
	if (ret)
		return dmcore__error_prefix(ret, "table line %u", table->failed_target + 1);
	ret = dmcore__table_measure(table);
	if (ret)
		return ret;
	bdev->frame_bytes = table->frame_bytes;
	bdev->depth = table->depth;
	bdev->read_only = device->read_only || (table->flags & DMCORE_TABLE_READ_ONLY);
	dmcore__bdev_apply_limits(bdev, &table->limits);
	atomic_store_explicit(&bdev->size_sectors, table->size_sectors, memory_order_relaxed);
	/* Whoever sees the table sees all of the above. */
	atomic_store_explicit(&device->live, table, memory_order_release);
	device->inactive = NULL;
	return 0;
}

int dmcore__device_resume(struct dmcore_device *device)
{
	int ret = 0;

	if (device->inactive)
		ret = swap_in(device);
	else if (!live_table(device))
		ret = dmcore__error(-EINVAL, "no table is loaded");
	if (ret)
		return dmcore__error_prefix(ret, "%s", device->bdev->name);
	if (device->state != DMCORE__DEVICE_RUNNING)
		set_state(device, DMCORE__DEVICE_RUNNING);
	return 0;
}

int dmcore_device_resume(struct dmcore_device *device)
{
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = dmcore__device_resume(device);
	dmcore__unlock(device->core);
	return ret;
}

/* ---- remove ---- */

static void destroy_device(struct dmcore_device *device)
{
	struct dmcore *core = device->core;
	struct dmcore_table *live = live_table(device);

	set_state(device, DMCORE__DEVICE_REMOVED);
	dmcore__list_remove(&device->link);
	atomic_store_explicit(&device->live, NULL, memory_order_relaxed);
	if (device->inactive)
		dmcore__table_destroy(device->inactive);
	if (live)
		dmcore__table_destroy(live);
	dmcore__bdev_destroy_mapped(device->bdev);
	dmcore__free(core, device->uuid);
	dmcore__free(core, device);
}

int dmcore__device_remove(struct dmcore_device *device)
{
	const struct dmcore_bdev *bdev = device->bdev;

	if (bdev->open_count > 0)
		return dmcore__error(-EBUSY, "device %s is open", bdev->name);
	if (dmcore__slot_inflight(device->core, bdev->slot) > 0)
		return dmcore__error(-EBUSY, "device %s has requests in flight", bdev->name);
	destroy_device(device);
	return 0;
}

int dmcore_device_remove(struct dmcore_device *device)
{
	struct dmcore *core;
	int ret;

	if (!device)
		return 0;
	core = device->core;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = dmcore__device_remove(device);
	dmcore__unlock(core);
	return ret;
}

void dmcore__devices_destroy(struct dmcore *core)
{
	struct dmcore__list *devices = &core->map->devices;

	/* The youngest that nothing stands on; there is one, for there are no cycles. */
	while (!dmcore__list_empty(devices)) {
		struct dmcore__list *node = devices->prev;

		while (node != devices && device_entry(node)->bdev->open_count > 0)
			node = node->prev;
		DMCORE__ASSERT(node != devices);
		destroy_device(device_entry(node));
	}
}

/* ---- looking at devices ---- */

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
			device = device_entry(node);
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

int dmcore_device_info(struct dmcore_device *device, struct dmcore_device_info *info)
{
	struct dmcore_device_info all = { .struct_size = info ? info->struct_size : 0 };
	const struct dmcore_table *live;
	size_t bytes = all.struct_size < sizeof(all) ? all.struct_size : sizeof(all);
	int ret;

	if (bytes < sizeof(all.struct_size))
		return dmcore__error(-EINVAL, "struct_size isn't set");
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	live = live_table(device);
	memcpy(all.name, device->bdev->name, strlen(device->bdev->name) + 1);
	if (device->uuid)
		memcpy(all.uuid, device->uuid, strlen(device->uuid) + 1);
	all.suspended = device->state == DMCORE__DEVICE_SUSPENDED;
	all.read_only = device->bdev->read_only;
	all.live_table = live != NULL;
	all.inactive_table = device->inactive != NULL;
	all.num_targets = live ? live->num_targets : 0;
	all.open_count = device->bdev->open_count;
	all.event_nr = atomic_load_explicit(&device->event_nr, memory_order_relaxed);
	all.size_sectors = dmcore_bdev_size_sectors(device->bdev);
	dmcore__unlock(device->core);
	memcpy(info, &all, bytes);
	return 0;
}
