/* SPDX-License-Identifier: MIT */
/*
 * The leaf drivers of a core: the library's own and those that the application registers. Called
 * by bdev.c, and by applications.
 */
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/compiler.h"
#include "base/error.h"
#include "bdev/bdev.h"

/* A driver of a core. */
struct registered_driver {
	struct dmcore__list link;
	const struct dmcore_driver *driver;
};

/* Where the first version ended: what comes behind is optional. */
#define DRIVER_BYTES_MIN offsetof(struct dmcore_driver, refresh)

#define BUILTIN_DRIVER(name) extern const struct dmcore_driver dmcore__driver_##name;
#include "bdev/builtin_drivers.inc"
#undef BUILTIN_DRIVER

static const struct dmcore_driver *const builtin_drivers[] = {
#define BUILTIN_DRIVER(name) &dmcore__driver_##name,
#include "bdev/builtin_drivers.inc"
#undef BUILTIN_DRIVER
};

const struct dmcore_driver *dmcore__driver_find(struct dmcore *core, const char *name,
						size_t length)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->bdevs->drivers) {
		const struct dmcore_driver *driver =
			dmcore__container_of(node, struct registered_driver, link)->driver;

		if (strlen(driver->name) == length && memcmp(driver->name, name, length) == 0)
			return driver;
	}
	return NULL;
}

int dmcore_driver_register(struct dmcore *core, const struct dmcore_driver *driver)
{
	struct registered_driver *entry;
	int ret;

	if (!core || !driver || driver->struct_size < DRIVER_BYTES_MIN || !driver->name ||
	    !driver->name[0] || strpbrk(driver->name, ":/ \t\n") ||
	    isdigit((unsigned char)driver->name[0]) ||
	    driver->features & ~DMCORE_DRIVER_ONE_OBJECT || !driver->open || !driver->close ||
	    !driver->submit)
		return dmcore__error(-EINVAL, "driver: struct_size, a name that begins with a "
					      "letter, open, close and submit are required; "
					      "features are those of dmcore/driver.h");
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	if (dmcore__driver_find(core, driver->name, strlen(driver->name))) {
		ret = dmcore__error(-EEXIST, "driver '%s' exists", driver->name);
		goto unlock;
	}
	entry = dmcore__zalloc(core, sizeof(*entry));
	if (!entry) {
		ret = dmcore__error(-ENOMEM, "no memory for a driver");
		goto unlock;
	}
	entry->driver = driver;
	dmcore__list_append(&core->bdevs->drivers, &entry->link);
unlock:
	dmcore__unlock(core);
	return ret;
}

int dmcore__drivers_create(struct dmcore *core)
{
	int ret = 0;

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(builtin_drivers) && ret == 0; i++)
		ret = dmcore_driver_register(core, builtin_drivers[i]);
	return ret;
}

void dmcore__drivers_destroy(struct dmcore *core)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->bdevs->drivers) {
		dmcore__list_remove(node);
		dmcore__free(core, dmcore__container_of(node, struct registered_driver, link));
	}
}
