/* SPDX-License-Identifier: MIT */
/* The error target. */
#include <errno.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"

#define DISK "fault:64,id=a"

TestSuite(error, .init = fixture_open, .fini = fixture_close);

static int run(const char *table, enum dmcore_op op)
{
	static unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
	struct dmcore_device *device = fixture_device("d", table);
	int status = fixture_run(&(struct fixture_io){
		.bdev = dmcore_device_bdev(device), .op = op, .count = 8, .buffer = buffer });

	cr_assert_eq(dmcore_device_remove(device), 0);
	return status;
}

Test(error, fails_reads_writes_and_discards)
{
	cr_assert_eq(run("0 8 error", DMCORE_OP_READ), -EIO);
	cr_assert_eq(run("0 8 error", DMCORE_OP_WRITE), -EIO);
	cr_assert_eq(run("0 8 error", DMCORE_OP_DISCARD), -EIO);
}

Test(error, does_not_write_zeroes)
{
	cr_assert_eq(run("0 8 error", DMCORE_OP_WRITE_ZEROES), -EOPNOTSUPP);
}

Test(error, has_nothing_to_flush)
{
	cr_assert_eq(run("0 8 error", DMCORE_OP_FLUSH), 0);
	cr_assert_eq(run("0 8 error " DISK " 0", DMCORE_OP_FLUSH), 0);
}

Test(error, never_touches_its_device)
{
	struct fault_disk *disk = fixture_disk(DISK);

	cr_assert_eq(run("0 8 error " DISK " 0", DMCORE_OP_READ), -EIO);
	cr_assert_eq(fault_count(disk, 0), 0);
}

Test(error, ignores_arguments_unless_there_are_two)
{
	static const char *const texts[] = { "0 8 error", "0 8 error x", "0 8 error 1 2 3" };

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(texts); i++)
		dmcore_table_destroy(fixture_table(texts[i]));
}

Test(error, two_arguments_are_a_device_and_a_sector)
{
	fixture_expect_refused("0 8 error /nonexistent x", -EINVAL,
			       "table line 1: error: Invalid device sector");
	fixture_expect_refused("0 8 error /nonexistent 0", -ENOENT,
			       "table line 1: error: Device lookup failed: /nonexistent: "
			       "No such file or directory (ENOENT)");
	fixture_expect_refused("0 65 error " DISK " 0", -EINVAL,
			       "table line 1: " DISK " too small for target: start=0, len=65, "
			       "dev_size=64");
}

/* D-001 in docs/conformance.md */
Test(error, refuses_a_sector_that_the_kernel_wraps)
{
	fixture_expect_refused("0 8 error " DISK " 18446744073709551616", -EINVAL,
			       "table line 1: error: Invalid device sector");
}

Test(error, prints_nothing_of_its_own)
{
	struct dmcore_device *device = fixture_device("d", "0 8 error " DISK " 0");

	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 8 error \n");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS), "0 8 error \n");
}

static int fixed_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

static enum dmcore_map_result fixed_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static const struct dmcore_target_type fixed_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "fixed",
	.features = DMCORE_TARGET_TYPE_IMMUTABLE,
	.ctr = fixed_ctr,
	.map = fixed_map,
};

/* As in the kernel, so that a device whose table is to stay can be made to fail all the same. */
Test(error, replaces_a_type_that_nothing_else_may_replace)
{
	struct dmcore_table *zero = fixture_table("0 8 zero");
	struct dmcore_device *device;

	cr_assert_eq(dmcore_target_register(fixture.core, &fixed_type), 0);
	device = fixture_device("d", "0 8 fixed");
	cr_assert_eq(dmcore_device_load(device, zero), -EINVAL);
	dmcore_table_destroy(zero);
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 8 error")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
}
