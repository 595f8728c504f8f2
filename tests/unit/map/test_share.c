/* SPDX-License-Identifier: MIT */
/*
 * Objects that targets of several tables have in common, and devices that they only read
 * (map/shared.c, map/resources.c).
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "map/map.h"
#include "support/fixture.h"

/* What has happened, a letter each: Create, Destroy, Target destroyed, cLosed device. */
static char happened[256];

static void note(char what)
{
	size_t used = strlen(happened);

	cr_assert_lt(used, sizeof(happened) - 1);
	happened[used] = what;
}

static void expect(const char *what)
{
	cr_assert_str_eq(happened, what);
	memset(happened, 0, sizeof(happened));
}

struct object {
	uint64_t number; /* of those made */
	uint64_t zero[500];
};

static uint64_t num_made;
static int create_error;

static int create(struct dmcore *core, void *memory)
{
	struct object *object = memory;

	cr_assert_eq(core, fixture.core);
	cr_assert_eq((uintptr_t)memory % 16, 0);
	for (unsigned int i = 0; i < 500; i++)
		cr_assert_eq(object->zero[i], 0);
	memset(object, 0xff, sizeof(*object));
	object->number = ++num_made;
	note('C');
	return create_error;
}

static void destroy(struct dmcore *core, void *memory)
{
	cr_assert_eq(core, fixture.core);
	cr_assert_neq(((struct object *)memory)->number, 0);
	note('D');
}

static const struct dmcore_shared_type shared_types[] = {
	{ sizeof(struct dmcore_shared_type), sizeof(struct object), create, destroy },
	{ sizeof(struct dmcore_shared_type), sizeof(struct object), create, destroy },
	{ sizeof(struct dmcore_shared_type), sizeof(struct object), NULL, NULL },
	{ 8, sizeof(struct object), create, destroy },
	{ sizeof(struct dmcore_shared_type), 0, create, destroy },
};

/* ---- a target that shares: share TYPE DEVICE ["read" | "fail"] ---- */

struct sharer {
	struct dmcore_bdev *bdev;
	struct object *object;
};

static struct sharer *newest;

static int share_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct sharer *sharer = dmcore_target_alloc(target, sizeof(*sharer));
	const char *spec;
	const char *how;
	uint64_t type;
	void *object = &type;
	int ret;

	cr_assert_not_null(sharer);
	ret = dmcore_args_u64(args, 0, 4, "no type", &type);
	spec = dmcore_args_next(args);
	how = dmcore_args_next(args);
	if (ret)
		return ret;
	if (how && strcmp(how, "read") == 0)
		ret = dmcore_target_device_read_only(target, spec, &sharer->bdev);
	else
		ret = dmcore_target_device(target, spec, &sharer->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "no device");
	ret = dmcore_target_share(target, sharer->bdev, &shared_types[type], &object);
	if (ret) {
		cr_assert_null(object);
		return dmcore_args_fail(args, ret, "can't share");
	}
	sharer->object = object;
	target->private_data = sharer;
	newest = sharer;
	return how && strcmp(how, "fail") == 0 ? dmcore_args_fail(args, -EDOM, "as told") : 0;
}

static void share_dtr(struct dmcore_target *target)
{
	const struct sharer *sharer = target->private_data;

	note('T');
	cr_assert_neq(dmcore_bdev_size_sectors(sharer->bdev), 0);
}

static enum dmcore_map_result share_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	bio->bdev = ((const struct sharer *)target->private_data)->bdev;
	return DMCORE_MAP_REMAPPED;
}

static int share_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct sharer *sharer = target->private_data;

	return fn(target, sharer->bdev, 0, 8, context);
}

static const struct dmcore_target_type share_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "share",
	.version = { 1, 0, 0 },
	.ctr = share_ctr,
	.dtr = share_dtr,
	.map = share_map,
	.iterate_devices = share_iterate_devices,
};

/* ---- a driver that tells when it is closed, and may refuse writers: told:KEY ---- */

static int refusal;

static int told_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	snprintf(key, bytes, "%s", args);
	return 0;
}

static int told_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)args;
	if (refusal && !(flags & DMCORE_OPEN_READ_ONLY))
		return dmcore_bdev_open_error(bdev, refusal, "no writers");
	dmcore_bdev_set_size(bdev, 64);
	return 0;
}

static void told_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
	note('L');
}

static void told_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	(void)bdev;
	dmcore_bio_complete(bio, 0);
}

static const struct dmcore_driver drivers[] = {
	{ .struct_size = sizeof(struct dmcore_driver),
	  .name = "told",
	  .identify = told_identify,
	  .open = told_open,
	  .close = told_close,
	  .submit = told_submit },
	{ .struct_size = sizeof(struct dmcore_driver),
	  .name = "one",
	  .features = DMCORE_DRIVER_ONE_OBJECT,
	  .identify = told_identify,
	  .open = told_open,
	  .close = told_close,
	  .submit = told_submit },
};

static void set_up(void)
{
	fixture_open();
	cr_assert_eq(dmcore_target_register(fixture.core, &share_type), 0);
	cr_assert_eq(dmcore_driver_register(fixture.core, &drivers[0]), 0);
	cr_assert_eq(dmcore_driver_register(fixture.core, &drivers[1]), 0);
}

static void tear_down(void)
{
	cr_assert(dmcore__list_empty(&fixture.core->map->shared));
	fixture_close();
}

TestSuite(share, .init = set_up, .fini = tear_down);
TestSuite(to_read, .init = set_up, .fini = tear_down);

/* ---- objects ---- */

Test(share, is_made_for_the_first_and_goes_with_the_last)
{
	struct dmcore_table *tables[3];
	struct object *object;

	tables[0] = fixture_table("0 8 share 0 told:a");
	expect("C");
	object = newest->object;
	tables[1] = fixture_table("0 8 share 0 told:a\n8 8 share 0 told:a");
	cr_assert_eq(newest->object, object);
	tables[2] = fixture_table("0 8 linear told:a 0");
	dmcore_table_destroy(tables[1]);
	expect("TT");
	cr_assert_eq(object->number, 1);
	dmcore_table_destroy(tables[0]);
	expect("TD");
	dmcore_table_destroy(tables[2]);
	expect("L");
}

Test(share, goes_after_the_destructors_and_before_the_devices)
{
	struct dmcore_table *table =
		fixture_table("0 8 share 0 told:a\n8 8 share 1 told:b\n16 8 share 0 told:a");

	expect("CC");
	dmcore_table_destroy(table);
	expect("TTTDDLL");
}

Test(share, is_another_for_another_type_or_device)
{
	struct dmcore_table *tables[3];

	tables[0] = fixture_table("0 8 share 0 told:a");
	tables[1] = fixture_table("0 8 share 1 told:a");
	cr_assert_eq(newest->object->number, 2);
	tables[2] = fixture_table("0 8 share 0 told:b");
	cr_assert_eq(newest->object->number, 3);
	expect("CCC");
	for (unsigned int i = 0; i < 3; i++)
		dmcore_table_destroy(tables[i]);
	expect("TDTDLTDL");
}

/* The first opening is gone, and memory of it may be another device's. */
Test(share, outlives_the_opening_that_it_was_asked_for_with)
{
	struct dmcore_table *first = fixture_table("0 8 share 0 told:a");
	struct dmcore_table *second = fixture_table("0 8 share 0 told:a read");
	struct dmcore_table *third;

	dmcore_table_destroy(first);
	expect("CTL");
	third = fixture_table("0 8 share 0 told:a");
	cr_assert_eq(newest->object->number, 1);
	dmcore_table_destroy(second);
	dmcore_table_destroy(third);
	expect("TLTDL");
}

Test(share, of_a_mapped_device_is_by_its_object)
{
	struct dmcore_table *tables[3];

	fixture_device("m", "0 64 linear told:a 0");
	tables[0] = fixture_table("0 8 share 0 m");
	tables[1] = fixture_table("0 8 share 0 /dev/mapper/m read");
	tables[2] = fixture_table("0 8 share 0 told:a");
	expect("CC");
	for (unsigned int i = 0; i < 3; i++)
		dmcore_table_destroy(tables[i]);
	expect("TTDTD");
	cr_assert_eq(dmcore_device_remove(dmcore_device_find(fixture.core, "m")), 0);
	expect("L");
}

Test(share, of_a_device_without_a_key_is_by_its_opening)
{
	struct dmcore_table *tables[2];

	tables[0] = fixture_table("0 8 share 0 mem:64s\n8 8 share 0 mem:64s");
	expect("C");
	tables[1] = fixture_table("0 8 share 0 mem:64s");
	expect("C");
	dmcore_table_destroy(tables[0]);
	dmcore_table_destroy(tables[1]);
	expect("TTDTD");
}

Test(share, is_found_by_the_table_that_replaces_another)
{
	struct dmcore_device *device = fixture_device("m", "0 8 share 0 told:a");
	struct dmcore_table *table = fixture_table("0 16 share 0 told:a");

	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(newest->object->number, 1);
	expect("CT");
	cr_assert_eq(dmcore_device_remove(device), 0);
	expect("TDL");
}

Test(share, of_a_core_that_is_destroyed_goes_too)
{
	fixture_device("m", "0 8 share 0 told:a");
	fixture_close();
	expect("CTDL");
	fixture_open();
}

Test(share, needs_no_functions)
{
	struct dmcore_table *table = fixture_table("0 8 share 2 told:a");

	cr_assert_eq(newest->object->number, 0);
	dmcore_table_destroy(table);
	expect("TL");
}

/* ---- failures ---- */

Test(share, goes_with_the_constructor_that_fails)
{
	struct dmcore_table *other = fixture_table("0 8 share 1 told:b");

	expect("C");
	fixture_expect_refused("0 8 share 0 told:a fail", -EDOM, "table line 1: share: as told");
	expect("CDL");
	fixture_expect_refused("0 8 share 0 told:a\n8 8 share 0 told:a\n16 8 share 1 told:b fail",
			       -EDOM, "table line 3: share: as told");
	expect("CTTDL");
	dmcore_table_destroy(other);
	expect("TDL");
}

Test(share, tells_why_it_could_not_be_made)
{
	create_error = -ENODATA;
	fixture_expect_refused("0 8 share 0 told:a", -ENODATA, "table line 1: share: can't share");
	expect("CL");
	create_error = 1;
	fixture_expect_refused("0 8 share 0 told:a", -EINVAL, "table line 1: share: can't share");
	expect("CL");
}

Test(share, of_a_malformed_type_is_refused)
{
	static const char message[] = "table line 1: share: can't share: shared object: a device, "
				      "struct_size and bytes are required";

	fixture_expect_refused("0 8 share 3 told:a", -EINVAL, message);
	fixture_expect_refused("0 8 share 4 told:a", -EINVAL, message);
	expect("LL");
}

/* ---- devices that are only read ---- */

static unsigned int flags_of(const struct dmcore_bdev *bdev)
{
	return bdev->flags;
}

Test(to_read, is_an_opening_of_its_own)
{
	struct dmcore_table *tables[2];
	struct dmcore_bdev *written;

	tables[0] = fixture_table("0 8 share 0 told:a\n8 8 linear told:a 8");
	written = newest->bdev;
	cr_assert_eq(flags_of(written), 0);
	tables[1] = fixture_table("0 8 share 0 told:a read\n8 8 share 0 told:a\n"
				  "16 8 share 0 told:a read");
	cr_assert_neq(newest->bdev, written);
	cr_assert_eq(flags_of(newest->bdev), DMCORE_OPEN_READ_ONLY);
	cr_assert(dmcore_bdev_is_same(newest->bdev, written));
	cr_assert_eq(tables[1]->num_devices, 2);
	dmcore_table_destroy(tables[0]);
	dmcore_table_destroy(tables[1]);
	expect("CTTTTDLL");
}

Test(to_read, adds_to_the_flags_of_the_table)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 share 0 told:a read\n",
					DMCORE_OPEN_DIRECT, &table), 0);
	cr_assert_eq(flags_of(newest->bdev), DMCORE_OPEN_READ_ONLY | DMCORE_OPEN_DIRECT);
	dmcore_table_destroy(table);
	cr_assert_eq(dmcore_table_parse(fixture.core, "0 8 share 0 one:a read\n",
					DMCORE_TABLE_READ_ONLY, &table), 0);
	cr_assert_eq(flags_of(newest->bdev), DMCORE_OPEN_READ_ONLY);
	dmcore_table_destroy(table);
}

Test(to_read, needs_no_device_that_can_be_written)
{
	struct dmcore_table *table;

	refusal = -EROFS;
	fixture_expect_refused("0 8 share 0 told:a", -EROFS,
			       "table line 1: share: no device: told:a: no writers");
	table = fixture_table("0 8 share 0 told:a read");
	cr_assert(dmcore_bdev_is_read_only(newest->bdev));
	dmcore_table_destroy(table);
}

Test(to_read, of_one_object_leaves_room_for_a_writer)
{
	struct dmcore_table *table = fixture_table("0 8 share 0 one:a read\n8 8 share 0 one:a");

	cr_assert_eq(flags_of(newest->bdev), 0);
	dmcore_table_destroy(table);
	table = fixture_table("0 8 share 0 mem:64s,name=a read\n8 8 share 0 mem:64s,name=a");
	cr_assert_eq(flags_of(newest->bdev), 0);
	dmcore_table_destroy(table);
}

Test(to_read, of_one_object_that_refuses_writers_is_read_only)
{
	static const int refusals[] = { -EROFS, -EACCES, -EPERM };
	struct dmcore_table *tables[2];

	for (unsigned int i = 0; i < 3; i++) {
		refusal = refusals[i];
		tables[0] = fixture_table("0 8 share 0 one:a read");
		cr_assert_eq(flags_of(newest->bdev), DMCORE_OPEN_READ_ONLY);
		/* It is open so already, and will do. */
		tables[1] = fixture_table("0 8 share 0 one:a read");
		cr_assert_eq(flags_of(newest->bdev), DMCORE_OPEN_READ_ONLY);
		dmcore_table_destroy(tables[0]);
		dmcore_table_destroy(tables[1]);
	}
	refusal = -ENODATA;
	fixture_expect_refused("0 8 share 0 one:a read", -ENODATA,
			       "table line 1: share: no device: one:a: no writers");
}

Test(to_read, of_a_mapped_device_is_that)
{
	struct dmcore_bdev *bdev = fixture_mapped("m", "0 64 linear told:a 0");
	struct dmcore_table *table = fixture_table("0 8 share 0 m read");

	cr_assert_eq(newest->bdev, bdev);
	cr_assert_not(dmcore_bdev_is_read_only(newest->bdev));
	dmcore_table_destroy(table);
}

Test(to_read, of_a_mapped_device_may_be_one_that_is_read_only)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	cr_assert_eq(dmcore_device_create(fixture.core, "m", NULL, DMCORE_OPEN_READ_ONLY,
					  &device), 0);
	fixture_expect_refused("0 8 share 0 m read", -ENXIO,
			       "table line 1: share: no device: m: the mapped device has no table "
			       "yet");
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 64 linear told:a 0")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	fixture_expect_refused("0 8 share 0 m", -EROFS,
			       "table line 1: share: no device: m: the mapped device is "
			       "read-only");
	table = fixture_table("0 8 share 0 m read");
	cr_assert_eq(newest->bdev, dmcore_device_bdev(device));
	dmcore_table_destroy(table);
}

Test(to_read, needs_a_name)
{
	fixture_expect_refused("0 8 share 0", -EINVAL,
			       "table line 1: share: no device: no device is named");
}
