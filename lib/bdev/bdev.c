/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing block devices. Called by applications, by tables for their targets, and by
 * map/device.c for mapped devices.
 */
#include "bdev/bdev.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <dmcore/error.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"
#include "bdev/bio.h"

static struct dmcore_bdev *bdev_of(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_bdev, link);
}

int dmcore__bdevs_create(struct dmcore *core)
{
	uint32_t num_slots = core->options.bdevs_max;
	struct dmcore__bdevs *bdevs = dmcore__zalloc(core, sizeof(*bdevs));

	if (!bdevs)
		return -ENOMEM;
	core->bdevs = bdevs;
	pthread_mutex_init(&bdevs->limits_lock, NULL);
	dmcore__list_init(&bdevs->list);
	dmcore__list_init(&bdevs->drivers);
	dmcore__list_init(&bdevs->modules);
	atomic_store(&bdevs->generation, 1);
	bdevs->free_slots = dmcore__zalloc_array(core, num_slots, sizeof(uint32_t));
	if (!bdevs->free_slots)
		return -ENOMEM;
	/* Slot 0 is DMCORE__NO_SLOT. */
	for (uint32_t i = 0; i < num_slots; i++)
		bdevs->free_slots[i] = num_slots - i;
	bdevs->num_free_slots = num_slots;
	bdevs->num_slots = num_slots + 1;
	return dmcore__drivers_create(core);
}

void dmcore__bdevs_destroy(struct dmcore *core)
{
	if (!core->bdevs)
		return;
	DMCORE__ASSERT(dmcore__list_empty(&core->bdevs->list));
	dmcore__drivers_destroy(core);
	dmcore__modules_destroy(core);
	pthread_mutex_destroy(&core->bdevs->limits_lock);
	dmcore__free(core, core->bdevs->free_slots);
	dmcore__free(core, core->bdevs);
	core->bdevs = NULL;
}

static void free_bdev(struct dmcore_bdev *bdev)
{
	struct dmcore *core = bdev->core;

	core->bdevs->free_slots[core->bdevs->num_free_slots++] = bdev->slot;
	dmcore__free(core, bdev->key);
	dmcore__free(core, bdev->name);
	dmcore__free_aligned(core, bdev);
}

/* A bdev with a slot and a name, not yet listed. */
static int make_bdev(struct dmcore *core, const char *name, struct dmcore_bdev **result)
{
	struct dmcore__bdevs *bdevs = core->bdevs;
	struct dmcore_limits limits;
	struct dmcore_bdev *bdev;

	if (bdevs->num_free_slots == 0)
		return dmcore__error(-ENFILE, "%s: %u devices are open, bdevs_max allows no more",
				     name, bdevs->num_slots - 1);
	bdev = dmcore__zalloc_aligned(core, sizeof(*bdev), 64);
	if (!bdev)
		return dmcore__error(-ENOMEM, "%s: no memory", name);
	bdev->core = core;
	dmcore__list_init(&bdev->link);
	bdev->name = dmcore__strdup(core, name);
	if (!bdev->name) {
		dmcore__free_aligned(core, bdev);
		return dmcore__error(-ENOMEM, "%s: no memory", name);
	}
	bdev->slot = bdevs->free_slots[--bdevs->num_free_slots];
	dmcore__limits_default(&limits);
	dmcore__bdev_apply_limits(bdev, &limits);
	*result = bdev;
	return 0;
}

int dmcore__bdev_create_mapped(struct dmcore *core, const char *name, dmcore__route_fn route,
			       void *device, bool read_only, struct dmcore_bdev **result)
{
	struct dmcore_bdev *bdev;
	int ret = make_bdev(core, name, &bdev);

	if (ret)
		return ret;
	atomic_store_explicit(&bdev->route, route, memory_order_relaxed);
	bdev->private_data = device;
	dmcore__bdev_set_read_only(bdev, read_only);
	bdev->flags = read_only ? DMCORE_OPEN_READ_ONLY : 0;
	dmcore__list_append(&core->bdevs->list, &bdev->link);
	*result = bdev;
	return 0;
}

void dmcore__bdev_hide_mapped(struct dmcore_bdev *bdev)
{
	dmcore__list_remove(&bdev->link);
}

void dmcore__bdev_destroy_mapped(struct dmcore_bdev *bdev)
{
	DMCORE__ASSERT(dmcore__bdev_route(bdev) && bdev->open_count == 0);
	dmcore__list_remove(&bdev->link);
	free_bdev(bdev);
}

struct dmcore_bdev *dmcore__bdev_find_mapped(struct dmcore *core, const char *name)
{
	static const char prefix[] = "/dev/mapper/";
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (strncmp(name, prefix, sizeof(prefix) - 1) == 0)
		name += sizeof(prefix) - 1;
	dmcore__list_for_each(node, spare, &core->bdevs->list) {
		struct dmcore_bdev *bdev = bdev_of(node);

		if (dmcore__bdev_route(bdev) && strcmp(bdev->name, name) == 0)
			return bdev;
	}
	return NULL;
}

/* The open leaf with that key, or NULL. */
static struct dmcore_bdev *find_leaf(struct dmcore *core, const struct dmcore_driver *driver,
				     const char *key, unsigned int flags)
{
	bool any_flags = driver->features & DMCORE_DRIVER_ONE_OBJECT;
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->bdevs->list) {
		struct dmcore_bdev *bdev = bdev_of(node);

		if (bdev->driver == driver && bdev->key &&
		    (any_flags || bdev->flags == flags) && strcmp(bdev->key, key) == 0)
			return bdev;
	}
	return NULL;
}

/* "8:16" as in the kernel's tables. */
static bool is_device_number(const char *spec)
{
	size_t major = strspn(spec, "0123456789");
	size_t minor = spec[major] == ':' ? strspn(spec + major + 1, "0123456789") : 0;

	return major && minor && spec[major + 1 + minor] == '\0';
}

/* The node of a device number: udev's link, or by the name that sysfs has. */
static void node_of_number(const char *number, char *path, size_t bytes)
{
	static const char key[] = "DEVNAME=";
	char line[128];
	FILE *uevent;

	snprintf(path, bytes, "/dev/block/%s", number);
	if (access(path, F_OK) == 0)
		return;
	snprintf(line, sizeof(line), "/sys/dev/block/%s/uevent", number);
	uevent = fopen(line, "re");
	if (!uevent)
		return;
	while (fgets(line, sizeof(line), uevent)) {
		if (strncmp(line, key, sizeof(key) - 1) == 0) {
			line[strcspn(line, "\n")] = '\0';
			snprintf(path, bytes, "/dev/%s", line + sizeof(key) - 1);
		}
	}
	fclose(uevent);
}

/*
 * Finds the driver for a specification, and where in it (or in `path`, for a device number) the
 * driver's arguments begin.
 */
static int choose_driver(struct dmcore *core, const char *spec, char *path, size_t bytes,
			 const struct dmcore_driver **driver, const char **args)
{
	const char *colon = strchr(spec, ':');
	struct stat st;

	*driver = dmcore__driver_find(core, "file", 4);
	*args = spec;
	if (is_device_number(spec)) {
		node_of_number(spec, path, bytes);
		*args = path;
	} else if (colon && colon != spec && !memchr(spec, '/', (size_t)(colon - spec))) {
		size_t length = (size_t)(colon - spec);
		const struct dmcore_driver *named = dmcore__driver_find(core, spec, length);
		int ret = 0;

		if (!named && stat(spec, &st) < 0 && errno == ENOENT)
			ret = dmcore__module_driver(core, spec, length, &named);
		if (ret)
			return dmcore__error_prefix(ret, "%s", spec);
		if (named) {
			*driver = named;
			*args = colon + 1;
		}
	}
	if (!*driver)
		return dmcore__error(-ENODEV, "%s: no driver for files", spec);
	return 0;
}

/* What a driver's function has returned, with a message if it is an error. */
static int driver_error(const char *spec, int ret)
{
	char text[96];

	if (ret == 0)
		return 0;
	if (ret > 0)
		ret = -EINVAL;
	if (!dmcore_error_message()[0])
		dmcore__error(ret, "%s", dmcore__strerror(ret, text, sizeof(text)));
	return dmcore__error_prefix(ret, "%s", spec);
}

/* A device that is open already is to be opened once more. */
static int refresh_leaf(struct dmcore_bdev *bdev)
{
	if (!DMCORE__DRIVER_HAS(bdev->driver, refresh))
		return 0;
	dmcore__error_clear();
	return driver_error(bdev->name, bdev->driver->refresh(bdev));
}

static int open_leaf(struct dmcore *core, const char *spec, unsigned int flags,
		     const struct dmcore_driver *driver, const char *args, const char *key,
		     struct dmcore_bdev **result)
{
	struct dmcore_bdev *bdev;
	int ret = make_bdev(core, spec, &bdev);

	if (ret)
		return ret;
	bdev->driver = driver;
	bdev->flags = flags;
	dmcore__bdev_set_read_only(bdev, flags & DMCORE_OPEN_READ_ONLY);
	bdev->frame_bytes = sizeof(struct dmcore__frame);
	if (key[0]) {
		bdev->key = dmcore__strdup(core, key);
		if (!bdev->key) {
			ret = dmcore__error(-ENOMEM, "%s: no memory", spec);
			goto free_bdev;
		}
	}
	dmcore__error_clear();
	ret = driver->open(bdev, args, flags);
	ret = driver_error(spec, ret);
	if (ret)
		goto free_bdev;
	dmcore__list_append(&core->bdevs->list, &bdev->link);
	*result = bdev;
	return 0;

free_bdev:
	free_bdev(bdev);
	return ret;
}

static int open_mapped(struct dmcore_bdev *bdev, unsigned int flags, struct dmcore_bdev **result)
{
	if (dmcore__bdev_read_only(bdev) && !(flags & DMCORE_OPEN_READ_ONLY))
		return dmcore__error(-EROFS, "%s: the mapped device is read-only", bdev->name);
	*result = bdev;
	return 0;
}

static int open_locked(struct dmcore *core, const char *spec, unsigned int flags,
		       struct dmcore_bdev **result)
{
	struct dmcore_bdev *bdev = dmcore__bdev_find_mapped(core, spec);
	const struct dmcore_driver *driver;
	char path[160];
	char key[256] = "";
	const char *args;
	int ret;

	if (bdev)
		return open_mapped(bdev, flags, result);
	ret = choose_driver(core, spec, path, sizeof(path), &driver, &args);
	if (ret)
		return ret;
	dmcore__error_clear();
	if (driver->identify) {
		ret = driver_error(spec, driver->identify(core, args, key, sizeof(key)));
		if (ret)
			return ret;
	}
	if (key[0]) {
		*result = find_leaf(core, driver, key, flags);
		if (*result && (*result)->flags != flags)
			return dmcore__error(-EBUSY, "%s: open already, with other flags", spec);
		if (*result)
			return refresh_leaf(*result);
	}
	return open_leaf(core, spec, flags, driver, args, key, result);
}

int dmcore_bdev_open(struct dmcore *core, const char *spec, unsigned int flags,
		     struct dmcore_bdev **result)
{
	int ret;

	if (!core || !result)
		return -EINVAL;
	*result = NULL;
	if (!spec || !spec[0])
		return dmcore__error(-EINVAL, "a device's name is empty");
	if (flags & ~DMCORE_OPEN_FLAGS_ALL)
		return dmcore__error(-EINVAL, "%s: unknown open flag", spec);
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = open_locked(core, spec, flags, result);
	if (ret == 0)
		(*result)->open_count++;
	else
		*result = NULL;
	dmcore__unlock(core);
	return ret;
}

/* Whether all openings of what `spec` names are one object, with the flags of the first. */
static bool is_one_object(struct dmcore *core, const char *spec)
{
	const struct dmcore_driver *driver;
	const char *args;
	char path[160];

	if (dmcore__bdev_find_mapped(core, spec) ||
	    choose_driver(core, spec, path, sizeof(path), &driver, &args))
		return false;
	return driver->features & DMCORE_DRIVER_ONE_OBJECT;
}

int dmcore__bdev_open_to_read(struct dmcore *core, const char *spec, unsigned int flags,
			      struct dmcore_bdev **result)
{
	int ret;

	if (!(flags & DMCORE_OPEN_READ_ONLY) && is_one_object(core, spec)) {
		ret = dmcore_bdev_open(core, spec, flags, result);
		if (ret != -EROFS && ret != -EACCES && ret != -EPERM && ret != -EBUSY)
			return ret;
	}
	return dmcore_bdev_open(core, spec, flags | DMCORE_OPEN_READ_ONLY, result);
}

static int close_locked(struct dmcore_bdev *bdev)
{
	uint64_t inflight;

	/* A table has taken its opening off table_opens before it comes here. */
	if (bdev->open_count <= bdev->table_opens)
		return dmcore__error(-EINVAL, "%s: closed more often than opened", bdev->name);
	if (bdev->open_count > 1 || dmcore__bdev_route(bdev)) {
		bdev->open_count--;
		/* It may be gone afterwards. */
		if (bdev->open_count == 0)
			bdev->closed(bdev);
		return 0;
	}
	inflight = dmcore__slot_inflight(bdev->core, bdev->slot);
	if (inflight)
		return dmcore__error(-EBUSY, "%s: %llu requests are in flight", bdev->name,
				     (unsigned long long)inflight);
	bdev->open_count = 0;
	dmcore__list_remove(&bdev->link);
	bdev->driver->close(bdev);
	free_bdev(bdev);
	return 0;
}

int dmcore_bdev_refresh(struct dmcore_bdev *bdev)
{
	int ret;

	if (!bdev)
		return dmcore__error(-EINVAL, "no device");
	ret = dmcore__control_begin(bdev->core);
	if (ret)
		return ret;
	if (bdev->driver)
		ret = refresh_leaf(bdev);
	dmcore__unlock(bdev->core);
	return ret;
}

int dmcore_bdev_close(struct dmcore_bdev *bdev)
{
	struct dmcore *core;
	int ret;

	if (!bdev)
		return 0;
	core = bdev->core;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = close_locked(bdev);
	dmcore__unlock(core);
	return ret;
}

uint64_t dmcore_bdev_size_sectors(const struct dmcore_bdev *bdev)
{
	return atomic_load_explicit(&bdev->size_sectors, memory_order_acquire);
}

const char *dmcore_bdev_name(const struct dmcore_bdev *bdev)
{
	return bdev->name;
}

bool dmcore_bdev_is_read_only(const struct dmcore_bdev *bdev)
{
	return dmcore__bdev_read_only(bdev);
}

const struct dmcore_driver *dmcore_bdev_driver(const struct dmcore_bdev *bdev)
{
	return bdev->driver;
}

bool dmcore_bdev_is_same(const struct dmcore_bdev *a, const struct dmcore_bdev *b)
{
	if (a == b)
		return true;
	return a->core == b->core && a->key && b->key && a->driver == b->driver &&
	       strcmp(a->key, b->key) == 0;
}

struct dmcore *dmcore_bdev_core(const struct dmcore_bdev *bdev)
{
	return bdev->core;
}

void dmcore_bdev_set_size(struct dmcore_bdev *bdev, uint64_t sectors)
{
	if (sectors > DMCORE_DEVICE_SECTORS_MAX)
		sectors = DMCORE_DEVICE_SECTORS_MAX;
	atomic_store_explicit(&bdev->size_sectors, sectors, memory_order_release);
	atomic_fetch_add(&bdev->core->bdevs->generation, 1);
}

void dmcore_bdev_set_private(struct dmcore_bdev *bdev, void *private_data)
{
	bdev->private_data = private_data;
}

void *dmcore_bdev_private(const struct dmcore_bdev *bdev)
{
	return bdev->private_data;
}

int dmcore_bdev_open_error(struct dmcore_bdev *bdev, int error, const char *format, ...)
{
	char text[DMCORE_ERROR_BYTES_MAX];
	va_list values;

	(void)bdev;
	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	return dmcore__error(error, "%s", text);
}
