/* SPDX-License-Identifier: MIT */
/* The linear target. */
#include <errno.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "base/compiler.h"
#include "support/fixture.h"

#define DISK "fault:64,id=a"

TestSuite(linear, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

/* Runs a request on the second target of a table, and returns how it reached the disk. */
static struct fault_entry run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 8 zero\n8 32 linear " DISK " 16\n");
	struct fault_disk *disk = fixture_disk(DISK);
	struct fixture_io io = { .bdev = bdev, .op = op, .sector = sector, .count = count };

	if (op == DMCORE_OP_READ || op == DMCORE_OP_WRITE)
		io.buffer = buffer;
	cr_assert_eq(fixture_run(&io), 0);
	cr_assert_eq(fault_num_logged(disk), 1);
	cr_assert_eq(fault_logged(disk, 0).op, op);
	return fault_logged(disk, 0);
}

static void expect_range(struct fault_entry entry, uint64_t sector, uint64_t count)
{
	cr_assert_eq(entry.sector, sector);
	cr_assert_eq(entry.count, count);
}

Test(linear, counts_from_the_start_of_the_target)
{
	expect_range(run(DMCORE_OP_WRITE, 8, 1), 16, 1);
}

Test(linear, reads_its_last_sector)
{
	expect_range(run(DMCORE_OP_READ, 39, 1), 47, 1);
}

Test(linear, passes_a_whole_range_in_one_piece)
{
	expect_range(run(DMCORE_OP_READ, 8, 32), 16, 32);
}

Test(linear, passes_discards_on)
{
	expect_range(run(DMCORE_OP_DISCARD, 10, 4), 18, 4);
}

Test(linear, passes_write_zeroes_on)
{
	expect_range(run(DMCORE_OP_WRITE_ZEROES, 10, 4), 18, 4);
}

Test(linear, passes_flushes_on)
{
	run(DMCORE_OP_FLUSH, 0, 0);
}

Test(linear, passes_errors_up)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 8 linear " DISK " 0");

	fault_add_rule(fixture_disk(DISK), &(struct fault_rule){ .status = -ENOSPC });
	cr_assert_eq(fixture_run(&(struct fixture_io){
			     .bdev = bdev, .op = DMCORE_OP_WRITE, .count = 1, .buffer = buffer }),
		     -ENOSPC);
}

Test(linear, takes_exactly_two_arguments)
{
	static const char message[] = "table line 1: linear: Invalid argument count";

	fixture_expect_refused("0 8 linear", -EINVAL, message);
	fixture_expect_refused("0 8 linear " DISK, -EINVAL, message);
	fixture_expect_refused("0 8 linear " DISK " 0 0", -EINVAL, message);
}

Test(linear, reads_the_sector_before_it_opens_the_device)
{
	fixture_expect_refused("0 8 linear /nonexistent x", -EINVAL,
			       "table line 1: linear: Invalid device sector");
}

/* D-001 and D-004 in docs/conformance.md: the kernel wraps the one, and skips the space. */
Test(linear, refuses_a_sector_that_is_no_plain_number)
{
	static const char *const texts[] = {
		"0 8 linear " DISK " 18446744073709551616",
		"0 8 linear " DISK " \\ 0",
		"0 8 linear " DISK " +0",
		"0 8 linear " DISK " -0",
		"0 8 linear " DISK " 0x0",
		"0 8 linear " DISK " 0k",
	};

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(texts); i++)
		fixture_expect_refused(texts[i], -EINVAL,
				       "table line 1: linear: Invalid device sector");
}

Test(linear, prints_device_and_sector)
{
	struct dmcore_device *device = fixture_device("d", "0 8 linear " DISK " 007");

	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 8 linear " DISK " 7\n");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS), "0 8 linear \n");
}
