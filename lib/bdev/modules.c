/* SPDX-License-Identifier: MIT */
/*
 * Drivers that the core doesn't have come from modules: shared objects in a folder, loaded when a
 * specification first names their driver, and closed with the core. Called by bdev.c.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <dmcore/error.h>

#include "base/alloc.h"
#include "base/error.h"
#include "bdev/bdev.h"

/* A module of a core. */
struct loaded_module {
	struct dmcore__list link;
	void *handle;
	const struct dmcore_driver_module *info;
	bool registering; /* its register_drivers() is under way */
};

#define MODULE_PATH_BYTES 512

/* Names that can't lead out of the folder. */
static bool is_module_name(const char *name, size_t length)
{
	return length <= DMCORE_MODULE_NAME_MAX && !(name[0] >= '0' && name[0] <= '9') &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") >= length;
}

/* Where the module of a driver is to be. False: the folder's name is too long. */
static bool module_path(char *path, const char *name, size_t length)
{
	const char *folder = secure_getenv("DMCORE_MODULE_PATH");
	int bytes;

	if (!folder || !folder[0])
		folder = DMCORE_MODULE_FOLDER;
	bytes = snprintf(path, MODULE_PATH_BYTES, "%s/driver-%.*s.so", folder, (int)length, name);
	return bytes > 0 && bytes < MODULE_PATH_BYTES;
}

static struct loaded_module *find_module(struct dmcore *core, const char *name, size_t length)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->bdevs->modules) {
		struct loaded_module *module =
			dmcore__container_of(node, struct loaded_module, link);

		if (strlen(module->info->name) == length &&
		    memcmp(module->info->name, name, length) == 0)
			return module;
	}
	return NULL;
}

/* Whether a module's description is one of ours, and for that name. */
static int check_info(const struct dmcore_driver_module *info, const char *path, const char *name,
		      size_t length)
{
	if (!info)
		return dmcore__error(-ENOEXEC, "module %s: has no symbol %s, so it is no driver",
				     path, DMCORE_MODULE_SYMBOL);
	if (info->abi != DMCORE_MODULE_ABI)
		return dmcore__error(-ENOEXEC, "module %s: made for version %u of the interface, "
					       "this library has %u: install the module that "
					       "belongs to it", path, info->abi, DMCORE_MODULE_ABI);
	if (!info->name || !info->register_drivers)
		return dmcore__error(-ENOEXEC, "module %s: name or register_drivers is missing",
				     path);
	if (strlen(info->name) != length || memcmp(info->name, name, length) != 0)
		return dmcore__error(-ENOEXEC, "module %s: is that of driver '%s'", path,
				     info->name);
	return 0;
}

static int load(struct dmcore *core, const char *path, const char *name, size_t length,
		struct loaded_module **result)
{
	struct loaded_module *module = dmcore__zalloc(core, sizeof(*module));
	const char *why;
	int ret;

	if (!module)
		return dmcore__error(-ENOMEM, "module %s: no memory", path);
	module->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!module->handle) {
		why = dlerror();
		ret = dmcore__error(-ENOEXEC, "module %s: can't be loaded: %s", path,
				    why ? why : "no reason given");
		goto free_module;
	}
	module->info = dlsym(module->handle, DMCORE_MODULE_SYMBOL);
	ret = check_info(module->info, path, name, length);
	if (ret)
		goto close_module;
	dmcore__list_append(&core->bdevs->modules, &module->link);
	*result = module;
	return 0;

close_module:
	dlclose(module->handle);
free_module:
	dmcore__free(core, module);
	return ret;
}

/* It stays loaded if it fails: part of its drivers may be registered. */
static int register_drivers(struct dmcore *core, struct loaded_module *module, const char *path)
{
	int ret;

	if (module->registering)
		return dmcore__error(-EDEADLK, "module %s: opens a device of its own before it "
					       "has registered the driver", path);
	module->registering = true;
	dmcore__error_clear();
	ret = module->info->register_drivers(core);
	module->registering = false;
	if (ret == 0)
		return 0;
	if (ret > 0)
		ret = -EINVAL;
	if (!dmcore_error_message()[0])
		dmcore__error(ret, "its drivers can't be registered");
	return dmcore__error_prefix(ret, "module %s", path);
}

int dmcore__module_driver(struct dmcore *core, const char *name, size_t length,
			  const struct dmcore_driver **driver)
{
	char path[MODULE_PATH_BYTES];
	struct loaded_module *module;
	int ret = 0;

	if (!is_module_name(name, length))
		return dmcore__error(-ENODEV, "no driver '%.*s', and no such file", (int)length,
				     name);
	if (core->options.flags & DMCORE_NO_MODULES)
		return dmcore__error(-ENODEV, "no driver '%.*s', no such file, and no modules: "
					      "DMCORE_NO_MODULES is set", (int)length, name);
	if (!module_path(path, name, length))
		return dmcore__error(-ENAMETOOLONG, "no driver '%.*s', and the folder of modules, "
						    "DMCORE_MODULE_PATH, has too long a name",
				     (int)length, name);
	module = find_module(core, name, length);
	if (!module && access(path, F_OK) < 0)
		return dmcore__error(-ENODEV, "no driver '%.*s', and no such file; install its "
					      "module %s, or have DMCORE_MODULE_PATH name the "
					      "folder that has it", (int)length, name, path);
	if (!module)
		ret = load(core, path, name, length, &module);
	if (ret == 0)
		ret = register_drivers(core, module, path);
	if (ret)
		return ret;
	*driver = dmcore__driver_find(core, name, length);
	if (!*driver)
		return dmcore__error(-ENODEV, "module %s: has registered no driver '%.*s'", path,
				     (int)length, name);
	return 0;
}

void dmcore__modules_destroy(struct dmcore *core)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->bdevs->modules) {
		struct loaded_module *module =
			dmcore__container_of(node, struct loaded_module, link);

		dmcore__list_remove(node);
		dlclose(module->handle);
		dmcore__free(core, module);
	}
}
