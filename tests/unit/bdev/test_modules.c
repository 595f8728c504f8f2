/* SPDX-License-Identifier: MIT */
/*
 * Drivers from modules: loaded when they are first named and no sooner, shared by the devices of a
 * core, and refused with a message that says what is wrong with them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/heap.h"

static struct dmcore *core;

static void open_core(unsigned int flags)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.flags = flags;
	cr_assert_eq(setenv("DMCORE_MODULE_PATH", TEST_MODULE_FOLDER, 1), 0);
	cr_assert_eq(dmcore_create(&options, &core), 0);
}

static void open_default(void)
{
	open_core(0);
}

static void close_core(void)
{
	cr_assert_eq(dmcore_destroy(core), 0);
}

static void expect_refused(const char *spec, int error, const char *message)
{
	struct dmcore_bdev *bdev;

	cr_assert_eq(dmcore_bdev_open(core, spec, 0, &bdev), error, "%s: %s", spec,
		     dmcore_error_message());
	cr_assert_null(bdev);
	cr_assert_not_null(strstr(dmcore_error_message(), message), "%s",
			   dmcore_error_message());
}

static void expect_letters(struct dmcore_bdev *bdev)
{
	char letter = 0;
	char sector[DMCORE_SECTOR_BYTES];

	cr_assert_eq(dmcore_pread(bdev, sector, sizeof(sector), 512), 0);
	for (unsigned int i = 0; i < sizeof(sector); i++)
		letter |= (char)(sector[i] ^ 'm');
	cr_assert_eq(letter, 0);
}

TestSuite(modules, .init = open_default, .fini = close_core);

Test(modules, a_driver_is_loaded_when_it_is_first_named)
{
	struct dmcore_bdev *bdevs[2];

	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(dmcore_bdev_open(core, "letters:any", 0, &bdevs[i]), 0, "%s",
			     dmcore_error_message());
	cr_assert_eq(dmcore_bdev_driver(bdevs[0]), dmcore_bdev_driver(bdevs[1]));
	for (unsigned int i = 0; i < 2; i++) {
		expect_letters(bdevs[i]);
		cr_assert_eq(dmcore_bdev_close(bdevs[i]), 0);
	}
}

Test(modules, tables_name_its_devices)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create_concise(core, "d,,,ro,0 8 linear letters:x 8",
						  DMCORE_TABLE_READ_ONLY, &device), 0, "%s",
		     dmcore_error_message());
	expect_letters(dmcore_device_bdev(device));
}

Test(modules, each_core_has_its_own)
{
	struct dmcore *first = core;
	struct dmcore_bdev *bdevs[2];

	cr_assert_eq(dmcore_bdev_open(first, "letters:", 0, &bdevs[0]), 0);
	open_core(0);
	cr_assert_eq(dmcore_bdev_open(core, "letters:", 0, &bdevs[1]), 0);
	cr_assert_eq(dmcore_bdev_close(bdevs[0]), 0);
	cr_assert_eq(dmcore_destroy(first), 0);
	expect_letters(bdevs[1]);
	cr_assert_eq(dmcore_bdev_close(bdevs[1]), 0);
}

Test(modules, what_is_wrong_with_one_is_said)
{
	expect_refused("nosuch:x", -ENODEV, "nosuch:x: no driver 'nosuch', and no such file; "
					    "install its module " TEST_MODULE_FOLDER
					    "/driver-nosuch.so, or have DMCORE_MODULE_PATH");
	expect_refused("bad_abi:x", -ENOEXEC, "driver-bad_abi.so: made for version 2 of the "
					      "interface, this library has 1");
	expect_refused("no_symbol:x", -ENOEXEC, "has no symbol dmcore_driver_module");
	expect_refused("other_name:x", -ENOEXEC, "is that of driver 'letters'");
	expect_refused("no_driver:x", -ENODEV, "has registered no driver 'no_driver'");
	expect_refused("opens_itself:x", -EDEADLK, "opens a device of its own");
	/* And again: nothing remains of the first failure. */
	for (unsigned int i = 0; i < 2; i++)
		expect_refused("refuses:x", -EUCLEAN, "driver-refuses.so: its drivers can't be");
}

Test(modules, what_is_no_object_is_refused)
{
	char folder[] = "/tmp/dmcore-modules-XXXXXX";
	char path[64];
	FILE *file;

	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/driver-text.so", folder);
	file = fopen(path, "w");
	cr_assert_not_null(file);
	cr_assert_gt(fputs("no object\n", file), 0);
	cr_assert_eq(fclose(file), 0);
	cr_assert_eq(setenv("DMCORE_MODULE_PATH", folder, 1), 0);
	expect_refused("text:x", -ENOEXEC, "can't be loaded: ");
	cr_assert_eq(remove(path), 0);
	cr_assert_eq(remove(folder), 0);
}

Test(modules, names_do_not_lead_out_of_the_folder)
{
	static const char *const specs[] = { "..:x", "Good:x", "go.od:x", "good :x", "1letters:x",
					     "\xc3\xa4:x" };
	char name[DMCORE_MODULE_NAME_MAX + 3];

	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		expect_refused(specs[i], -ENODEV, ", and no such file");
		cr_assert_null(strstr(dmcore_error_message(), "module"));
	}
	memset(name, 'a', sizeof(name));
	name[DMCORE_MODULE_NAME_MAX] = ':';
	name[DMCORE_MODULE_NAME_MAX + 1] = '\0';
	expect_refused(name, -ENODEV, "install its module");
	memset(name, 'a', sizeof(name));
	name[DMCORE_MODULE_NAME_MAX + 1] = ':';
	name[DMCORE_MODULE_NAME_MAX + 2] = '\0';
	expect_refused(name, -ENODEV, ", and no such file");
	cr_assert_null(strstr(dmcore_error_message(), "module"));
}

Test(modules, a_folder_of_too_long_a_name_is_refused)
{
	char folder[600];

	memset(folder, 'f', sizeof(folder) - 1);
	folder[sizeof(folder) - 1] = '\0';
	cr_assert_eq(setenv("DMCORE_MODULE_PATH", folder, 1), 0);
	expect_refused("letters:x", -ENAMETOOLONG, "has too long a name");
}

Test(modules_forbidden, a_core_without_modules_loads_none)
{
	open_core(DMCORE_NO_MODULES);
	expect_refused("letters:x", -ENODEV, "letters:x: no driver 'letters', no such file, and no "
					  "modules: DMCORE_NO_MODULES is set");
	close_core();
}

static int load_with_options(void *context)
{
	struct dmcore_bdev *bdev;
	int ret = dmcore_create(context, &core);

	if (ret)
		return ret;
	ret = dmcore_bdev_open(core, "letters:x", DMCORE_OPEN_READ_ONLY, &bdev);
	if (ret == 0)
		ret = dmcore_bdev_close(bdev);
	close_core();
	return ret;
}

Test(modules_memory, each_allocation_that_fails_is_an_error_and_leaks_none)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct heap_loop loop = { .scenario = load_with_options, .context = &options };

	cr_assert_eq(setenv("DMCORE_MODULE_PATH", TEST_MODULE_FOLDER, 1), 0);
	heap_use(&options);
	heap_fail_each(&loop, false);
	heap_fail_each(&loop, true);
}
