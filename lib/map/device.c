/* SPDX-License-Identifier: MIT */
/*
 * Mapped devices: made, loaded, renamed and removed. Called by applications, by concise.c, and by
 * registry.c when a core goes. What makes them run is in suspend.c.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/compiler.h"
#include "base/error.h"
#include "map/map.h"
#include "queue/drain.h"
#include "queue/queue.h"

static struct dmcore_device *device_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_device, link);
}

static struct dmcore_table *table_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_table, link);
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
	ret = dmcore__bdev_create_mapped(core, name,
					 dmcore__drain_needs_fences(core) ? dmcore__map_route_fenced
									  : dmcore__map_route,
					 device, device->read_only, &device->bdev);
	if (ret)
		goto free_uuid;
	device->bdev->closed = dmcore__device_closed;
	device->bdev->place = dmcore__map_place;
	dmcore__list_init(&device->watches);
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

/* A table of an immutable type gives way to its like or to a wildcard alone. */
static int check_immutable(const struct dmcore_device *device, const struct dmcore_table *table)
{
	const struct dmcore_table *active = dmcore__device_active(device);

	if (!active || !active->immutable || table->wildcard ||
	    table->immutable == active->immutable)
		return 0;
	return dmcore__error(-EINVAL, "can't replace immutable target type %s",
			     active->immutable->name);
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
	if (ret == 0)
		ret = check_immutable(device, table);
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

int dmcore_device_clear(struct dmcore_device *device)
{
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	if (device->inactive)
		dmcore__table_destroy(device->inactive);
	device->inactive = NULL;
	dmcore__unlock(device->core);
	return 0;
}

/* ---- names ---- */

/* Who waits for events of a device hears of its new name, too, once it has a table. */
static void tell_name(struct dmcore_device *device)
{
	if (dmcore__device_active(device))
		dmcore__device_raise_event(device);
}

static int rename_device(struct dmcore_device *device, const char *name)
{
	struct dmcore *core = device->core;
	char *copy;
	int ret = check_name(name);

	if (ret)
		return ret;
	if (dmcore__bdev_find_mapped(core, name))
		return dmcore__error(-EBUSY, "device %s exists", name);
	copy = dmcore__strdup(core, name);
	if (!copy)
		return dmcore__error(-ENOMEM, "no memory for a name");
	dmcore__free(core, device->bdev->name);
	device->bdev->name = copy;
	tell_name(device);
	return 0;
}

int dmcore_device_rename(struct dmcore_device *device, const char *name)
{
	int ret;

	if (!name)
		return dmcore__error(-EINVAL, "a device needs a name");
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = rename_device(device, name);
	dmcore__unlock(device->core);
	return ret;
}

static int set_uuid(struct dmcore_device *device, const char *uuid)
{
	int ret;

	if (device->uuid)
		return dmcore__error(-EINVAL, "%s: its uuid is set already, to %s",
				     device->bdev->name, device->uuid);
	ret = check_uuid(device->core, uuid);
	if (ret)
		return ret;
	device->uuid = dmcore__strdup(device->core, uuid);
	if (!device->uuid)
		return dmcore__error(-ENOMEM, "no memory for a uuid");
	tell_name(device);
	return 0;
}

int dmcore_device_set_uuid(struct dmcore_device *device, const char *uuid)
{
	int ret;

	if (!uuid || !*uuid)
		return dmcore__error(-EINVAL, "the uuid is empty");
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = set_uuid(device, uuid);
	dmcore__unlock(device->core);
	return ret;
}

/* ---- remove ---- */

static void destroy_device(struct dmcore_device *device)
{
	struct dmcore *core = device->core;
	struct dmcore_table *active;

	/* Nobody finds it any more while its targets wind up. */
	dmcore__list_remove(&device->link);
	dmcore__bdev_hide_mapped(device->bdev);
	dmcore__device_run_down(device);
	dmcore__device_set_state(device, DMCORE__DEVICE_REMOVED);
	dmcore__events_end(device);
	active = dmcore__device_active(device);
	atomic_store_explicit(&device->live, NULL, memory_order_relaxed);
	atomic_store_explicit(&device->active, NULL, memory_order_relaxed);
	if (device->inactive)
		dmcore__table_destroy(device->inactive);
	if (active)
		dmcore__table_destroy(active);
	dmcore__stats_destroy(device);
	dmcore__bdev_destroy_mapped(device->bdev);
	dmcore__free(core, device->uuid);
	dmcore__free(core, device);
}

/* Whether a device that nobody has open can go. */
static int check_unused(const struct dmcore_device *device)
{
	const struct dmcore_bdev *bdev = device->bdev;

	if (device->state > DMCORE__DEVICE_RUNNING || device->num_waiting)
		return dmcore__error(-EBUSY, "device %s is being suspended or resumed",
				     bdev->name);
	if (dmcore__slot_inflight(device->core, bdev->slot) > 0)
		return dmcore__error(-EBUSY, "device %s has requests in flight", bdev->name);
	if (atomic_load(&bdev->num_deferred) > 0)
		return dmcore__error(-EBUSY, "requests wait for device %s to be resumed",
				     bdev->name);
	/* One that waited may have gone in since. */
	if (dmcore__slot_inflight(device->core, bdev->slot) > 0)
		return dmcore__error(-EBUSY, "device %s has requests in flight", bdev->name);
	return 0;
}

int dmcore__device_remove(struct dmcore_device *device)
{
	int ret;

	if (device->bdev->open_count > 0)
		return dmcore__error(-EBUSY, "device %s is open", device->bdev->name);
	ret = check_unused(device);
	if (ret == 0)
		destroy_device(device);
	return ret;
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

int dmcore_device_remove_deferred(struct dmcore_device *device)
{
	struct dmcore *core;
	int ret;

	if (!device)
		return 0;
	core = device->core;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	if (device->bdev->open_count > 0)
		device->deferred_remove = true;
	else
		ret = dmcore__device_remove(device);
	dmcore__unlock(core);
	return ret;
}

void dmcore__device_closed(struct dmcore_bdev *bdev)
{
	struct dmcore_device *device = bdev->private_data;

	if (device->deferred_remove && check_unused(device) == 0)
		destroy_device(device);
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
