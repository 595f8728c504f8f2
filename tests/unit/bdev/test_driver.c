/* SPDX-License-Identifier: MIT */
/*
 * Drivers of the application's own, and what a core takes from them: registration, the names that
 * choose one, the limits and sizes they set, and what their errors become.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/fixture.h"
#include "support/scratch.h"

/* ---- a driver that does as it is told ---- */

static struct {
	int opens_with;
	int refreshes_with;
	unsigned int opened;
	unsigned int refreshed;
	unsigned int closed;
	uint64_t sectors;
	char args[64];
} toy;

static int toy_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	snprintf(key, bytes, "%s", args);
	return 0;
}

static int toy_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)flags;
	toy.opened++;
	snprintf(toy.args, sizeof(toy.args), "%s", args);
	dmcore_bdev_set_size(bdev, toy.sectors);
	return toy.opens_with;
}

static void toy_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
	toy.closed++;
}

static void toy_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	(void)bdev;
	dmcore_bio_complete(bio, 0);
}

static int toy_refresh(struct dmcore_bdev *bdev)
{
	(void)bdev;
	toy.refreshed++;
	return toy.refreshes_with;
}

/* The core keeps what it is given until its end. */
static struct dmcore_driver driver;
static struct dmcore_driver other_driver;

static struct dmcore_driver toy_driver(void)
{
	return (struct dmcore_driver){
		.struct_size = sizeof(struct dmcore_driver),
		.name = "toy",
		.identify = toy_identify,
		.open = toy_open,
		.close = toy_close,
		.submit = toy_submit,
		.refresh = toy_refresh,
	};
}

static void register_toy(void)
{
	cr_assert_eq(dmcore_driver_register(fixture.core, &driver), 0, "%s",
		     dmcore_error_message());
}

static void set_up(void)
{
	memset(&toy, 0, sizeof(toy));
	toy.sectors = 8;
	driver = toy_driver();
	other_driver = toy_driver();
	fixture_open();
}

TestSuite(driver, .init = set_up, .fini = fixture_close);

/* ---- registration ---- */

static void refuse(const struct dmcore_driver *wrong, const char *what)
{
	cr_assert_eq(dmcore_driver_register(fixture.core, wrong), -EINVAL, "%s", what);
	cr_assert_not_null(strstr(dmcore_error_message(), "are required"), "%s: %s", what,
			   dmcore_error_message());
}

Test(driver, one_that_lacks_what_it_needs_is_refused)
{
	static const char *const names[] = { NULL, "", "a:b", "a/b", "a b", "a\tb", "a\n", "9p" };

	cr_assert_eq(dmcore_driver_register(NULL, &driver), -EINVAL);
	refuse(NULL, "no driver");
	driver.struct_size = offsetof(struct dmcore_driver, refresh) - 1;
	refuse(&driver, "a struct from before the first version");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		driver = toy_driver();
		driver.name = names[i];
		refuse(&driver, names[i] ? names[i] : "no name");
	}
	driver = toy_driver();
	driver.features = ~0u;
	refuse(&driver, "features that there aren't");
	driver = toy_driver();
	driver.open = NULL;
	refuse(&driver, "no open");
	driver = toy_driver();
	driver.close = NULL;
	refuse(&driver, "no close");
	driver = toy_driver();
	driver.submit = NULL;
	refuse(&driver, "no submit");
}

Test(driver, a_name_is_taken_once)
{
	register_toy();
	cr_assert_eq(dmcore_driver_register(fixture.core, &other_driver), -EEXIST);
	cr_assert_str_eq(dmcore_error_message(), "driver 'toy' exists");
	other_driver.name = "file";
	cr_assert_eq(dmcore_driver_register(fixture.core, &other_driver), -EEXIST);
	cr_assert_str_eq(dmcore_error_message(), "driver 'file' exists");
}

/* ---- opening ---- */

static void expect_no_device(const char *spec, unsigned int flags, int error, const char *message)
{
	struct dmcore_bdev *bdev = (void *)&toy;

	cr_assert_eq(dmcore_bdev_open(fixture.core, spec, flags, &bdev), error, "%s", spec);
	cr_assert_null(bdev);
	cr_assert_str_eq(dmcore_error_message(), message);
}

Test(driver, opening_needs_a_core_a_name_and_a_place_for_the_result)
{
	struct dmcore_bdev *bdev = (void *)&toy;

	cr_assert_eq(dmcore_bdev_open(NULL, "mem:8s", 0, &bdev), -EINVAL);
	cr_assert_eq(dmcore_bdev_open(fixture.core, "mem:8s", 0, NULL), -EINVAL);
	expect_no_device(NULL, 0, -EINVAL, "a device's name is empty");
	expect_no_device("", 0, -EINVAL, "a device's name is empty");
	expect_no_device("mem:8s", DMCORE_OPEN_FLAGS_ALL + 1, -EINVAL,
			 "mem:8s: unknown open flag");
}

Test(driver, what_no_driver_and_no_file_has_the_name_of_is_named)
{
	expect_no_device("no.such:8s", 0, -ENODEV,
			 "no.such:8s: no driver 'no.such', and no such file");
	/* A path before the colon names no driver. */
	expect_no_device("./nosuch:8s", 0, -ENOENT,
			 "./nosuch:8s: No such file or directory (ENOENT)");
	expect_no_device(":8s", 0, -ENOENT, ":8s: No such file or directory (ENOENT)");
	/* No device numbers. */
	expect_no_device("8:", 0, -ENODEV, "8:: no driver '8', and no such file");
	expect_no_device("8:1x", 0, -ENODEV, "8:1x: no driver '8', and no such file");
	expect_no_device("4095:1048575", 0, -ENOENT,
			 "4095:1048575: No such file or directory (ENOENT)");
}

/* Where a driver comes to have that name, the path says what is meant. */
Test(driver, a_file_may_have_a_colon_in_its_name)
{
	char folder[128];
	struct dmcore_bdev *bdev;
	FILE *file;

	snprintf(folder, sizeof(folder), "%s/dmcore-driver-XXXXXX", scratch_dir());
	cr_assert_not_null(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
	file = fopen("toys:8s", "w");
	cr_assert_not_null(file);
	cr_assert_eq(ftruncate(fileno(file), 4096), 0);
	cr_assert_eq(fclose(file), 0);
	cr_assert_eq(dmcore_bdev_open(fixture.core, "toys:8s", 0, &bdev), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(unlink("toys:8s"), 0);
	cr_assert_eq(rmdir(folder), 0);
	cr_assert_eq(dmcore_bdev_size_sectors(bdev), 8);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
}

Test(driver, arguments_are_what_stands_behind_the_first_colon)
{
	register_toy();
	fixture_bdev("toy:a:b/c");
	cr_assert_str_eq(toy.args, "a:b/c");
}

Test(driver, an_error_without_words_is_named)
{
	register_toy();
	toy.opens_with = -ENXIO;
	expect_no_device("toy:x", 0, -ENXIO, "toy:x: No such device or address (ENXIO)");
	/* What isn't an errno is the driver's mistake. */
	toy.opens_with = 7;
	expect_no_device("toy:x", 0, -EINVAL, "toy:x: Invalid argument (EINVAL)");
	cr_assert_eq(toy.opened, 2);
	cr_assert_eq(toy.closed, 0);
}

Test(driver, a_device_that_is_open_is_refreshed)
{
	struct dmcore_bdev *first;
	struct dmcore_bdev *second;

	register_toy();
	first = fixture_bdev("toy:x");
	cr_assert_eq(toy.refreshed, 0);
	cr_assert_eq(dmcore_bdev_open(fixture.core, "toy:x", 0, &second), 0);
	cr_assert_eq(second, first);
	cr_assert_eq(toy.refreshed, 1);
	cr_assert_eq(dmcore_bdev_close(second), 0);
	toy.refreshes_with = -EIO;
	expect_no_device("toy:x", 0, -EIO, "toy:x: Input/output error (EIO)");
	cr_assert_eq(toy.opened, 1);
	cr_assert_eq(toy.closed, 0);
}

Test(driver, an_older_one_need_not_refresh)
{
	struct dmcore_bdev *second;

	driver.struct_size = offsetof(struct dmcore_driver, refresh);
	register_toy();
	fixture_bdev("toy:x");
	cr_assert_eq(dmcore_bdev_open(fixture.core, "toy:x", 0, &second), 0);
	cr_assert_eq(dmcore_bdev_close(second), 0);
	other_driver.name = "still";
	other_driver.refresh = NULL;
	cr_assert_eq(dmcore_driver_register(fixture.core, &other_driver), 0);
	fixture_bdev("still:x");
	cr_assert_eq(dmcore_bdev_open(fixture.core, "still:x", 0, &second), 0);
	cr_assert_eq(dmcore_bdev_close(second), 0);
	cr_assert_eq(toy.refreshed, 0);
}

/* ---- sizes and limits ---- */

Test(driver, a_device_is_no_longer_than_a_device_can_be)
{
	register_toy();
	toy.sectors = UINT64_MAX;
	cr_assert_eq(dmcore_bdev_size_sectors(fixture_bdev("toy:x")), DMCORE_DEVICE_SECTORS_MAX);
}

static void expect_limits_refused(struct dmcore_bdev *bdev, const struct dmcore_limits *limits,
				  const char *message)
{
	cr_assert_eq(dmcore_bdev_set_limits(bdev, limits), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), message), "%s", dmcore_error_message());
}

Test(driver, limits_without_sense_are_refused)
{
	static const uint32_t blocks[] = { 0, 256, 513, 1536, 2 * DMCORE_BLOCK_BYTES_MAX };
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdev = fixture_bdev("mem:64s");

	cr_assert_eq(dmcore_bdev_set_limits(NULL, &limits), -EINVAL);
	cr_assert_eq(dmcore_bdev_set_limits(bdev, NULL), -EINVAL);
	limits.struct_size = sizeof(limits.struct_size) - 1;
	expect_limits_refused(bdev, &limits, "struct_size isn't set");
	limits.struct_size = sizeof(limits);
	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
		limits.logical_block_bytes = blocks[i];
		expect_limits_refused(bdev, &limits, "is no power of two from 512 to");
	}
	limits.logical_block_bytes = 4096;
	limits.max_io_sectors = 9;
	expect_limits_refused(bdev, &limits, "a maximum is no multiple of the block");
	limits.max_io_sectors = 0;
	limits.max_write_zeroes_sectors = 4;
	expect_limits_refused(bdev, &limits, "a maximum is no multiple of the block");
}

Test(driver, limits_that_are_left_out_follow_from_the_others)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdev = fixture_bdev("mem:64s");

	limits.logical_block_bytes = 4096;
	cr_assert_eq(dmcore_bdev_set_limits(bdev, &limits), 0, "%s", dmcore_error_message());
	memset(&limits, 0xff, sizeof(limits));
	limits.struct_size = sizeof(limits);
	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), 0);
	cr_assert_eq(limits.logical_block_bytes, 4096);
	cr_assert_eq(limits.physical_block_bytes, 4096);
	cr_assert_eq(limits.io_min_bytes, 4096);
	cr_assert_eq(limits.memory_align_bytes, 1);
	cr_assert_eq(limits.caps, 0);
}

Test(driver, limits_are_told_to_callers_of_any_version)
{
	struct {
		struct dmcore_limits limits;
		unsigned char later[16]; /* of a version to come */
	} newer;
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdev = fixture_bdev("fault:64,id=a,block=4096");

	cr_assert_eq(dmcore_bdev_limits(NULL, &limits), -EINVAL);
	cr_assert_eq(dmcore_bdev_limits(bdev, NULL), -EINVAL);
	memset(&newer, 0xff, sizeof(newer));
	newer.limits.struct_size = sizeof(newer);
	cr_assert_eq(dmcore_bdev_limits(bdev, &newer.limits), 0);
	cr_assert_eq(newer.limits.struct_size, sizeof(newer));
	cr_assert_eq(newer.limits.logical_block_bytes, 4096);
	for (size_t i = 0; i < sizeof(newer.later); i++)
		cr_assert_eq(newer.later[i], 0);
	/* An older caller's memory ends earlier. */
	memset(&limits, 0xff, sizeof(limits));
	limits.struct_size = offsetof(struct dmcore_limits, physical_block_bytes);
	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), 0);
	cr_assert_eq(limits.logical_block_bytes, 4096);
	cr_assert_eq(limits.physical_block_bytes, UINT32_MAX);
	limits.struct_size = sizeof(limits.struct_size) - 1;
	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), -EINVAL);
}

/* ---- identity ---- */

static int words_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	snprintf(key, bytes, "%s", args[0] == '-' ? "" : args);
	return 0;
}

/* Another driver may well have the same keys. */
Test(driver, two_openings_are_the_same_by_driver_and_key)
{
	static const char *const specs[] = { "toy:a", "toy:a", "toy:b", "tag:a", "toy:-", "toy:-" };
	struct dmcore_bdev *bdevs[6];

	driver.identify = words_identify;
	other_driver.identify = words_identify;
	other_driver.name = "tag";
	register_toy();
	cr_assert_eq(dmcore_driver_register(fixture.core, &other_driver), 0);
	for (unsigned int i = 0; i < 6; i++)
		cr_assert_eq(dmcore_bdev_open(fixture.core, specs[i],
					      i == 1 ? DMCORE_OPEN_READ_ONLY : 0, &bdevs[i]), 0);
	cr_assert_neq(bdevs[0], bdevs[1]);
	for (unsigned int i = 0; i < 6; i++) {
		for (unsigned int k = 0; k < 6; k++)
			cr_assert_eq(dmcore_bdev_is_same(bdevs[i], bdevs[k]),
				     i == k || (i < 2 && k < 2), "%s, %s", specs[i], specs[k]);
	}
	for (unsigned int i = 0; i < 6; i++)
		cr_assert_eq(dmcore_bdev_close(bdevs[i]), 0);
}

Test(driver, a_mapped_device_is_the_same_as_itself_only)
{
	struct dmcore_bdev *a;
	struct dmcore_bdev *b;
	struct dmcore_bdev *disk = fixture_bdev("mem:64s,name=x");

	a = fixture_mapped("a", "0 64 linear mem:64s,name=x 0");
	b = fixture_mapped("b", "0 64 linear mem:64s,name=x 0");
	cr_assert(dmcore_bdev_is_same(a, a));
	cr_assert(dmcore_bdev_is_same(a, fixture_bdev("/dev/mapper/a")));
	cr_assert_not(dmcore_bdev_is_same(a, b));
	cr_assert_not(dmcore_bdev_is_same(a, disk));
	cr_assert_not(dmcore_bdev_is_same(disk, a));
}

/* What two cores have in memory under one name is not one thing. */
Test(driver, of_two_cores_nothing_is_the_same)
{
	struct dmcore_bdev *bdev = fixture_bdev("mem:64s,name=x");
	struct dmcore_bdev *other;
	struct dmcore *core;

	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_bdev_open(core, "mem:64s,name=x", 0, &other), 0);
	cr_assert_not(dmcore_bdev_is_same(bdev, other));
	cr_assert_eq(dmcore_bdev_close(other), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
}
