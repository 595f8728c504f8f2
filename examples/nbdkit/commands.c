/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's control node does with devices, done with those that are served. Called by
 * control.c; the commands on tables are in tables.c. <linux/dm-ioctl.h> says what each takes and
 * gives.
 */
#include "commands.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbdkit.h"

/* Of the interface whose commands are here. */
#define VERSION_MINOR 48u
/* A suspension is tried for so long, then again as long as the client waits for it. */
#define SUSPEND_ATTEMPT_NS INT64_C(1000000000)

/* Of the flags that come in, those that say how a device is. */
#define FLAGS_TOLD                                                                              \
	(DM_READONLY_FLAG | DM_SUSPEND_FLAG | DM_ACTIVE_PRESENT_FLAG | DM_INACTIVE_PRESENT_FLAG | \
	 DM_DEFERRED_REMOVE)

/* ---- what the commands share ---- */

int call_failed(struct call *call, int ret)
{
	if (ret < 0)
		snprintf(call->message, sizeof(call->message), "%s", dmcore_error_message());
	return ret;
}

int call_refused(struct call *call, int ret, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(call->message, sizeof(call->message), format, arguments);
	va_end(arguments);
	return ret;
}

/* With devices_lock() held. */
static int find(struct call *call, struct dmcore_device **result)
{
	const struct dm_ioctl *param = call->param;
	int ret = numbers_refresh(call->numbers);

	*result = NULL;
	if (ret)
		return ret;
	if (param->uuid[0] && !param->name[0] && !param->dev)
		*result = numbers_find_uuid(call->numbers, param->uuid);
	else if (param->name[0] && !param->uuid[0] && !param->dev)
		*result = dmcore_device_find(devices_core(call->devices), param->name);
	else if (param->dev && !param->name[0] && !param->uuid[0])
		*result = numbers_find(call->numbers, param->dev);
	return *result ? 0 : -ENXIO;
}

int call_pin(struct call *call, struct pin *pin)
{
	struct dmcore_device *device;
	int ret;

	devices_lock(call->devices);
	ret = find(call, &device);
	if (ret == 0)
		ret = call_failed(call, numbers_pin(call->numbers, device, pin));
	devices_unlock(call->devices);
	return ret;
}

static void tell(struct call *call, struct dmcore_device *device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	bool inactive = call->param->flags & DM_QUERY_INACTIVE_TABLE_FLAG;
	struct dm_ioctl *param = call->param;

	if (dmcore_device_info(device, &info))
		return;
	param->flags &= ~FLAGS_TOLD;
	/* A device without a table is born suspended, but not in the kernel's eyes. */
	if (info.suspended && info.live_table)
		param->flags |= DM_SUSPEND_FLAG;
	if (info.read_only)
		param->flags |= DM_READONLY_FLAG;
	if (info.live_table)
		param->flags |= DM_ACTIVE_PRESENT_FLAG;
	if (info.inactive_table)
		param->flags |= DM_INACTIVE_PRESENT_FLAG;
	if (info.deferred_remove)
		param->flags |= DM_DEFERRED_REMOVE;
	param->target_count = inactive ? info.num_inactive_targets : info.num_targets;
	param->open_count = (int)(info.open_count - numbers_pins(call->numbers, device));
	param->event_nr = info.event_nr;
	param->dev = numbers_of(call->numbers, device);
	/* Both have the same room as the kernel's. */
	memset(param->name, 0, sizeof(param->name));
	memset(param->uuid, 0, sizeof(param->uuid));
	memcpy(param->name, info.name, strlen(info.name));
	memcpy(param->uuid, info.uuid, strlen(info.uuid));
}

void call_tell(struct call *call, struct dmcore_device *device)
{
	devices_lock(call->devices);
	tell(call, device);
	devices_unlock(call->devices);
}

const char *call_string(const struct call *call)
{
	const struct dm_ioctl *param = call->param;
	const char *begin = (const char *)param + param->data_start;

	if (param->data_start < offsetof(struct dm_ioctl, data) ||
	    param->data_start >= call->data_bytes ||
	    !memchr(begin, '\0', call->data_bytes - param->data_start))
		return NULL;
	return begin;
}

struct room room_begin(struct call *call)
{
	return (struct room){ .call = call };
}

void *room_take(struct room *room, size_t bytes)
{
	size_t rounded = (bytes + 7) & ~(size_t)7;
	size_t left = room->call->data_bytes - sizeof(struct dm_ioctl) - room->used_bytes;
	char *memory = (char *)room->call->param + sizeof(struct dm_ioctl) + room->used_bytes;

	if (room->full || rounded > left) {
		room->full = true;
		return NULL;
	}
	room->used_bytes += rounded;
	return memset(memory, 0, rounded);
}

void room_end(struct room *room)
{
	struct dm_ioctl *param = room->call->param;

	param->data_start = sizeof(*param);
	param->data_size = (uint32_t)(sizeof(*param) + room->used_bytes);
	if (room->full)
		param->flags |= DM_BUFFER_FULL_FLAG;
}

/* Nothing but the parameters is for the client. */
static void no_data(struct call *call)
{
	struct room room = room_begin(call);

	room_end(&room);
}

/* ---- making and removing ---- */

static int version(struct call *call)
{
	no_data(call);
	return 0;
}

/* With devices_lock() held. */
static int create_locked(struct call *call)
{
	struct dm_ioctl *param = call->param;
	struct dmcore_device *device;
	int ret = numbers_refresh(call->numbers);

	if (ret)
		return ret;
	ret = dmcore_device_create(devices_core(call->devices), param->name,
				   param->uuid[0] ? param->uuid : NULL, 0, &device);
	if (ret)
		return call_failed(call, ret);
	ret = numbers_refresh(call->numbers);
	if (ret == 0 && param->flags & DM_PERSISTENT_DEV_FLAG)
		ret = numbers_choose(call->numbers, device, param->dev);
	if (ret == 0)
		tell(call, device);
	else
		dmcore_device_remove(device);
	return ret;
}

static int dev_create(struct call *call)
{
	int ret;

	devices_lock(call->devices);
	ret = create_locked(call);
	devices_unlock(call->devices);
	no_data(call);
	return ret;
}

/* With devices_lock() held. */
static int remove_locked(struct call *call)
{
	bool deferred = call->param->flags & DM_DEFERRED_REMOVE;
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	struct dmcore_device *device;
	int ret = find(call, &device);

	if (ret)
		return ret;
	dmcore_device_info(device, &info);
	ret = deferred ? dmcore_device_remove_deferred(device) : dmcore_device_remove(device);
	call->param->flags &= ~DM_DEFERRED_REMOVE;
	/* Still there, and to go: what was asked for has been done as far as it can be. */
	if (ret == 0 && deferred && info.open_count > 0)
		call->param->flags |= DM_DEFERRED_REMOVE;
	return call_failed(call, ret);
}

static int dev_remove(struct call *call)
{
	int ret;

	devices_lock(call->devices);
	ret = remove_locked(call);
	devices_unlock(call->devices);
	no_data(call);
	return ret;
}

/* Those that nothing uses, and then what they stood on. */
static int remove_all(struct call *call)
{
	struct dmcore *core = devices_core(call->devices);
	bool removed = true;

	devices_lock(call->devices);
	while (removed) {
		struct dmcore_device *device;
		unsigned int count = 0;

		removed = false;
		while (dmcore_device_at(core, count))
			count++;
		while (count-- > 0 && (device = dmcore_device_at(core, count)))
			removed |= dmcore_device_remove(device) == 0;
	}
	devices_unlock(call->devices);
	no_data(call);
	return 0;
}

/* ---- changing ---- */

static int rename_locked(struct call *call, const char *text)
{
	struct dmcore_device *device;
	int ret = find(call, &device);

	if (ret)
		return ret;
	if (call->param->flags & DM_UUID_FLAG)
		ret = dmcore_device_set_uuid(device, text);
	else
		ret = dmcore_device_rename(device, text);
	if (ret == 0)
		tell(call, device);
	return call_failed(call, ret);
}

static int dev_rename(struct call *call)
{
	const char *text = call_string(call);
	int ret;

	if (!text)
		return call_refused(call, -EINVAL, "no new name");
	devices_lock(call->devices);
	ret = rename_locked(call, text);
	devices_unlock(call->devices);
	no_data(call);
	return ret;
}

static bool client_has_gone(const struct call *call)
{
	struct pollfd fd = { .fd = call->socket, .events = POLLRDHUP };

	return poll(&fd, 1, 0) > 0;
}

/* The library has a deadline where the kernel has signals: a client that was killed has gone. */
static int suspend(struct call *call, struct pin *pin)
{
	uint32_t flags = call->param->flags;
	int ret;

	/*
	 * As the kernel freezes a file system: by the next table a flush may reach other devices.
	 * What can't be flushed can still be suspended, and be given a table that mends it.
	 */
	if (!(flags & (DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG)) && dmcore_flush(pin->bdev))
		nbdkit_debug("control: before suspending: %s", dmcore_error_message());
	do {
		ret = dmcore_device_suspend(pin->device,
					    flags & DM_NOFLUSH_FLAG ? DMCORE_SUSPEND_NOFLUSH : 0,
					    SUSPEND_ATTEMPT_NS);
	} while (ret == -ETIMEDOUT && !client_has_gone(call));
	return call_failed(call, ret == -ETIMEDOUT ? -EINTR : ret);
}

/* A running device that has got a new table is suspended by a call that can be given up. */
static int resume(struct call *call, struct pin *pin)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	bool suspended_here;
	int ret;

	dmcore_device_info(pin->device, &info);
	/* In the kernel it is running, and can't be. */
	if (!info.live_table && !info.inactive_table)
		return 0;
	suspended_here = !info.suspended && info.inactive_table;
	ret = suspended_here ? suspend(call, pin) : 0;
	if (ret)
		return ret;
	ret = call_failed(call, dmcore_device_resume(pin->device));
	if (ret && suspended_here) {
		/* The old table goes on, and the new one is dropped as by the kernel. */
		dmcore_device_clear(pin->device);
		if (dmcore_device_resume(pin->device))
			nbdkit_error("control: %s", dmcore_error_message());
	}
	return ret;
}

static int dev_suspend(struct call *call)
{
	struct pin pin;
	int ret = call_pin(call, &pin);

	if (ret)
		return ret;
	if (call->param->flags & DM_SUSPEND_FLAG)
		ret = suspend(call, &pin);
	else
		ret = resume(call, &pin);
	if (ret == 0)
		call_tell(call, pin.device);
	numbers_unpin(call->numbers, &pin);
	no_data(call);
	return ret;
}

/* ---- asking ---- */

static int dev_status(struct call *call)
{
	struct pin pin;
	int ret = call_pin(call, &pin);

	if (ret)
		return ret;
	call_tell(call, pin.device);
	numbers_unpin(call->numbers, &pin);
	no_data(call);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(dmcore_device_name(*(struct dmcore_device *const *)a),
		      dmcore_device_name(*(struct dmcore_device *const *)b));
}

/* A record is a dm_name_list with its name, and from the next multiple of 8 bytes the number of
 * events, flags and the uuid. */
static void list_one(struct room *room, struct dmcore_device *device, struct dm_name_list **last)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	size_t name_bytes = offsetof(struct dm_name_list, name);
	struct dm_name_list *list;
	uint32_t *more;

	if (dmcore_device_info(device, &info))
		return;
	name_bytes = (name_bytes + strlen(info.name) + 1 + 7) & ~(size_t)7;
	list = room_take(room, name_bytes + 2 * sizeof(*more) + strlen(info.uuid) + 1);
	if (!list)
		return;
	list->dev = numbers_of(room->call->numbers, device);
	memcpy(list->name, info.name, strlen(info.name));
	more = (uint32_t *)((char *)list + name_bytes);
	more[0] = info.event_nr;
	more[1] = info.uuid[0] ? DM_NAME_LIST_FLAG_HAS_UUID : DM_NAME_LIST_FLAG_DOESNT_HAVE_UUID;
	memcpy(&more[2], info.uuid, strlen(info.uuid));
	if (*last)
		(*last)->next = (uint32_t)((char *)list - (char *)*last);
	*last = list;
}

static int list_locked(struct call *call)
{
	struct dmcore *core = devices_core(call->devices);
	struct dm_name_list *last = NULL;
	struct room room = room_begin(call);
	struct dmcore_device **devices;
	unsigned int count = 0;
	int ret = numbers_refresh(call->numbers);

	if (ret)
		return ret;
	while (dmcore_device_at(core, count))
		count++;
	devices = calloc(count + 1, sizeof(struct dmcore_device *));
	if (!devices)
		return -ENOMEM;
	for (unsigned int i = 0; i < count; i++)
		devices[i] = dmcore_device_at(core, i);
	qsort(devices, count, sizeof(struct dmcore_device *), by_name);
	for (unsigned int i = 0; i < count; i++)
		list_one(&room, devices[i], &last);
	/* A record of no device says that there is none. */
	if (count == 0)
		room_take(&room, sizeof(struct dm_name_list));
	room_end(&room);
	free(devices);
	return 0;
}

static int list_devices(struct call *call)
{
	int ret;

	devices_lock(call->devices);
	ret = list_locked(call);
	devices_unlock(call->devices);
	return ret;
}

/* ---- all ---- */

static int (*const commands[])(struct call *call) = {
	[DM_VERSION_CMD] = version,
	[DM_REMOVE_ALL_CMD] = remove_all,
	[DM_LIST_DEVICES_CMD] = list_devices,
	[DM_DEV_CREATE_CMD] = dev_create,
	[DM_DEV_REMOVE_CMD] = dev_remove,
	[DM_DEV_RENAME_CMD] = dev_rename,
	[DM_DEV_SUSPEND_CMD] = dev_suspend,
	[DM_DEV_STATUS_CMD] = dev_status,
	[DM_DEV_WAIT_CMD] = table_wait,
	[DM_TABLE_LOAD_CMD] = table_load,
	[DM_TABLE_CLEAR_CMD] = table_clear,
	[DM_TABLE_DEPS_CMD] = table_deps,
	[DM_TABLE_STATUS_CMD] = table_status,
	[DM_LIST_VERSIONS_CMD] = list_versions,
	[DM_TARGET_MSG_CMD] = table_message,
	[DM_GET_TARGET_VERSION_CMD] = list_versions,
};

int commands_run(struct call *call)
{
	struct dm_ioctl *param = call->param;
	uint32_t major_version = param->version[0];
	uint32_t minor_version = param->version[1];

	if (call->command >= sizeof(commands) / sizeof(commands[0]) || !commands[call->command])
		return call_refused(call, -ENOTTY, "command %u of the device-mapper isn't there",
				    call->command);
	param->version[0] = DM_VERSION_MAJOR;
	param->version[1] = VERSION_MINOR;
	param->version[2] = 0;
	if (major_version != DM_VERSION_MAJOR || minor_version > VERSION_MINOR)
		return call_refused(call, -EINVAL, "interface %u.%u, and this is %u.%u",
				    major_version, minor_version, DM_VERSION_MAJOR, VERSION_MINOR);
	if (!memchr(param->name, '\0', sizeof(param->name)) ||
	    !memchr(param->uuid, '\0', sizeof(param->uuid)))
		return call_refused(call, -EINVAL, "a name or uuid without an end");
	param->flags &= ~(DM_BUFFER_FULL_FLAG | DM_UEVENT_GENERATED_FLAG | DM_DATA_OUT_FLAG);
	return commands[call->command](call);
}
