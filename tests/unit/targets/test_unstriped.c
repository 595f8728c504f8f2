/* SPDX-License-Identifier: MIT */
/* The unstriped target. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"
#include "support/rng.h"

#define STRIPES_MAX 5
#define DISK_SECTORS 512
#define DISK "fault:512,id=a"

TestSuite(unstriped, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[DISK_SECTORS * DMCORE_SECTOR_BYTES];

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return fixture_run(&(struct fixture_io){
		.bdev = bdev, .op = op, .sector = sector, .count = count, .buffer = buffer });
}

/* ---- which sector lies where ---- */

static void number_sectors(unsigned char *data, uint64_t count, uint64_t first)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t number = first + i;

		memcpy(data + i * DMCORE_SECTOR_BYTES, &number, sizeof(number));
	}
}

static void expect_number(uint64_t index, uint64_t number)
{
	uint64_t found;

	memcpy(&found, buffer + index * DMCORE_SECTOR_BYTES, sizeof(found));
	cr_assert_eq(found, number, "sector %llu holds %llu in place of %llu; DMCORE_SEED=%llu",
		     (unsigned long long)index, (unsigned long long)found,
		     (unsigned long long)number, (unsigned long long)rng_seed());
}

/* Whether a stripe of `chunks` chunks, placed behind 5 sectors, is where its definition says. */
static void check_layout(uint64_t stripes, uint64_t chunk, uint64_t stripe, uint64_t chunks)
{
	struct dmcore_device *device;
	char text[128];

	snprintf(text, sizeof(text), "0 5 zero\n5 %llu unstriped %llu %llu %llu " DISK " 3",
		 (unsigned long long)(chunks * chunk), (unsigned long long)stripes,
		 (unsigned long long)chunk, (unsigned long long)stripe);
	device = fixture_device("d", text);
	memset(buffer, 0xff, sizeof(buffer));
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 5, chunks * chunk), 0);
	for (uint64_t i = 0; i < chunks * chunk; i++)
		expect_number(i, 3 + (i / chunk * stripes + stripe) * chunk + i % chunk);
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(unstriped, picks_the_chunks_of_its_stripe_whatever_the_numbers)
{
	static const uint64_t chunks[] = { 1, 2, 3, 7, 8, 12, 16 };

	number_sectors(fault_data(fixture_disk(DISK)), DISK_SECTORS, 0);
	for (uint64_t stripes = 1; stripes <= STRIPES_MAX; stripes++) {
		for (uint64_t stripe = 0; stripe < stripes; stripe++) {
			for (size_t i = 0; i < DMCORE__ARRAY_SIZE(chunks); i++)
				check_layout(stripes, chunks[i], stripe, 5);
		}
	}
}

Test(unstriped, counts_from_the_start_of_the_target)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 8 zero\n8 24 unstriped 2 8 1 " DISK " 4");
	struct fault_disk *disk = fixture_disk(DISK);

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 8, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 15, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 16, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 31, 1), 0);
	cr_assert_eq(fault_logged(disk, 0).sector, 12);
	cr_assert_eq(fault_logged(disk, 1).sector, 19);
	cr_assert_eq(fault_logged(disk, 2).sector, 28);
	cr_assert_eq(fault_logged(disk, 3).sector, 51);
}

Test(unstriped, splits_at_chunks_counted_from_its_own_start)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 5 zero\n5 24 unstriped 3 8 1 " DISK " 0");
	struct fault_disk *disk = fixture_disk(DISK);

	cr_assert_eq(run(bdev, DMCORE_OP_READ, 5, 8), 0);
	cr_assert_eq(fault_num_logged(disk), 1);
	cr_assert_eq(fault_logged(disk, 0).sector, 8);
	cr_assert_eq(fault_logged(disk, 0).count, 8);
	fault_clear_log(disk);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 12, 2), 0);
	cr_assert_eq(fault_num_logged(disk), 2);
	cr_assert_eq(fault_logged(disk, 0).sector + fault_logged(disk, 1).sector, 15 + 32);
}

/* Makes a random striped set of the disks k0 to k4, numbers its sectors, and has each disk back. */
static void check_identity(struct rng *rng, unsigned int stripes)
{
	uint64_t chunk = rng_one_in(rng, 2) ? UINT64_C(1) << rng_below(rng, 5) :
					      rng_between(rng, 1, 20);
	uint64_t rows = rng_between(rng, 1, 5);
	uint64_t length = rows * chunk;
	struct dmcore_device *set;
	char text[256];
	int at = snprintf(text, sizeof(text), "0 %llu striped %u %llu",
			  (unsigned long long)(stripes * length), stripes,
			  (unsigned long long)chunk);

	for (unsigned int i = 0; i < stripes; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " fault:512,id=k%u 0", i);
	set = fixture_device("set", text);
	for (unsigned int i = 0; i < stripes; i++) {
		struct dmcore_device *one;
		char spec[32];

		snprintf(spec, sizeof(spec), "fault:512,id=k%u", i);
		number_sectors(fault_data(fixture_disk(spec)), length, 1000 * i);
		snprintf(text, sizeof(text), "0 %llu unstriped %u %llu %u set 0",
			 (unsigned long long)length, stripes, (unsigned long long)chunk, i);
		one = fixture_device("one", text);
		cr_assert_eq(run(dmcore_device_bdev(one), DMCORE_OP_READ, 0, length), 0);
		for (uint64_t sector = 0; sector < length; sector++)
			expect_number(sector, 1000 * i + sector);
		memset(buffer, 0x5a, length * DMCORE_SECTOR_BYTES);
		cr_assert_eq(run(dmcore_device_bdev(one), DMCORE_OP_WRITE, 0, length), 0);
		cr_assert_eq(memcmp(buffer, fault_data(fixture_disk(spec)),
				    length * DMCORE_SECTOR_BYTES),
			     0);
		cr_assert_eq(dmcore_device_remove(one), 0);
	}
	cr_assert_eq(dmcore_device_remove(set), 0);
	while (fixture.num_bdevs > 0)
		cr_assert_eq(dmcore_bdev_close(fixture.bdevs[--fixture.num_bdevs]), 0);
}

Test(unstriped, of_a_striped_set_is_each_of_its_disks)
{
	struct rng rng;

	rng_start(&rng, 1);
	for (unsigned int i = 0; i < 60; i++)
		check_identity(&rng, 1 + i % STRIPES_MAX);
}

/* ---- operations ---- */

Test(unstriped, flush_reaches_the_device)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 16 unstriped 2 8 0 " DISK " 0");
	struct fixture_io io = { .bdev = bdev, .op = DMCORE_OP_FLUSH };

	cr_assert_eq(fixture_run(&io), 0);
	cr_assert_eq(fault_num_logged(fixture_disk(DISK)), 1);
	cr_assert_eq(fault_logged(fixture_disk(DISK), 0).op, DMCORE_OP_FLUSH);
	io.op = DMCORE_OP_WRITE;
	io.flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA;
	io.count = 1;
	io.buffer = buffer;
	cr_assert_eq(fixture_run(&io), 0);
	cr_assert_eq(fault_num_logged(fixture_disk(DISK)), 3);
	cr_assert_eq(fault_logged(fixture_disk(DISK), 1).op, DMCORE_OP_FLUSH);
	cr_assert_eq(fault_logged(fixture_disk(DISK), 2).op, DMCORE_OP_WRITE);
	cr_assert(fault_logged(fixture_disk(DISK), 2).flags & DMCORE_BIO_FUA);
}

Test(unstriped, has_no_discard_and_no_write_zeroes)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 16 unstriped 2 8 0 " DISK " 0");

	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE_ZEROES, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(fault_num_logged(fixture_disk(DISK)), 0);
}

Test(unstriped, passes_errors_up)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 16 unstriped 2 8 1 " DISK " 0");

	fault_add_rule(fixture_disk(DISK),
		       &(struct fault_rule){ .status = -ENOSPC, .sector = 24, .count = 8 });
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 16), -ENOSPC);
}

/* ---- table line ---- */

static void expect_refused(const char *params, const char *message)
{
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 48 unstriped %s", params);
	snprintf(whole, sizeof(whole), "table line 1: unstriped: %s", message);
	fixture_expect_refused(text, -EINVAL, whole);
}

Test(unstriped, names_what_is_wrong_in_the_kernels_order)
{
	expect_refused("", "Invalid number of arguments");
	expect_refused("2 8 0 " DISK, "Invalid number of arguments");
	expect_refused("x x x x x x", "Invalid number of arguments");
	expect_refused("x x x x x", "Invalid stripe count");
	expect_refused("0 x x x x", "Invalid stripe count");
	expect_refused("2 x x x x", "Invalid chunk_size");
	expect_refused("2 0 x x x", "Invalid chunk_size");
	expect_refused("2 7 x x x", "Invalid stripe number");
	expect_refused("2 7 3 x x", "Please provide stripe between [0, # of stripes]");
	expect_refused("2 7 1 " DISK " x", "Invalid striped device offset");
	expect_refused("2 7 1 " DISK " 0", "Target length not divisible by chunk size");
}

/* D-058 in docs/conformance.md: the kernel says EINVAL. */
Test(unstriped, tells_why_it_has_no_device)
{
	fixture_expect_refused(
		"0 48 unstriped 2 7 1 /nonexistent x", -ENOENT,
		"table line 1: unstriped: Couldn't get striped device: /nonexistent: "
		"No such file or directory (ENOENT)");
}

/* D-050 in docs/conformance.md: the kernel takes these. */
Test(unstriped, refuses_a_stripe_that_is_not_there)
{
	expect_refused("2 8 2 " DISK " 0", "Please provide stripe between [0, # of stripes]");
	expect_refused("1 8 1 " DISK " 0", "Please provide stripe between [0, # of stripes]");
	expect_refused("1 8 5 " DISK " 0", "Please provide stripe between [0, # of stripes]");
}

/* D-001, D-004 and D-052 in docs/conformance.md: the kernel takes, skips or wraps some of them. */
Test(unstriped, refuses_what_is_no_plain_number)
{
	expect_refused("+2 8 0 " DISK " 0", "Invalid stripe count");
	expect_refused("4294967296 8 0 " DISK " 0", "Invalid stripe count");
	expect_refused("2 +8 0 " DISK " 0", "Invalid chunk_size");
	expect_refused("2 4294967296 0 " DISK " 0", "Invalid chunk_size");
	expect_refused("2 8 +0 " DISK " 0", "Invalid stripe number");
	expect_refused("2 8 4294967296 " DISK " 0", "Invalid stripe number");
	expect_refused("2 8 0 " DISK " +0", "Invalid striped device offset");
	expect_refused("2 8 0 " DISK " \\ 0", "Invalid striped device offset");
	expect_refused("2 8 0 " DISK " 18446744073709551616", "Invalid striped device offset");
}

/* D-053 in docs/conformance.md: to the kernel a device of 48 sectors would do. */
Test(unstriped, needs_a_device_that_holds_its_last_chunk)
{
	dmcore_table_destroy(fixture_table("0 48 unstriped 3 8 2 mem:151s 7"));
	dmcore_table_destroy(fixture_table("0 48 unstriped 3 8 0 mem:135s 7"));
	fixture_expect_refused("0 48 unstriped 3 8 2 mem:150s 7", -EINVAL,
			       "table line 1: mem:150s too small for target: start=7, len=144, "
			       "dev_size=150");
	fixture_expect_refused("0 48 unstriped 3 8 0 mem:134s 7", -EINVAL,
			       "table line 1: mem:134s too small for target: start=7, len=128, "
			       "dev_size=134");
}

/* Where the gaps, the gaps and the chunks, or those and the stripes before them pass 64 bits. */
Test(unstriped, needs_a_device_that_no_sum_wraps_into)
{
	static const char *const lines[] = {
		"0 1125899906842624 unstriped 4294967295 8 0",
		"0 17592186044416 unstriped 1048577 1 0",
		"0 17592186044416 unstriped 1048576 1 1048575",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct dmcore_table *table;
		char text[128];

		snprintf(text, sizeof(text), "%s mem:64s 0", lines[i]);
		cr_assert_eq(dmcore_table_parse(fixture.core, text, 0, &table), -EINVAL, "%s",
			     text);
		cr_assert_not_null(strstr(dmcore_error_message(), "too small for target"), "%s",
				   dmcore_error_message());
	}
}

Test(unstriped, ranges_beyond_64_bits_are_too_long)
{
	static const char *const texts[] = {
		"0 48 unstriped 4294967295 8 4294967294 mem:64s 0",
		"0 48 unstriped 2 8 1 mem:64s 18446744073709551615",
		"0 9223372036854775808 unstriped 4294967295 2147483648 0 mem:64s 0",
		"0 9223372036854775808 unstriped 4294967295 1 4294967294 mem:64s 0",
	};

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(texts); i++) {
		struct dmcore_table *table;

		cr_assert_lt(dmcore_table_parse(fixture.core, texts[i], 0, &table), 0, "%s",
			     texts[i]);
	}
}

Test(unstriped, prints_a_table_line_that_it_takes)
{
	static const char text[] = "0 5 zero \n5 24 unstriped 3 8 2 mem:128s,name=a 7\n";
	struct dmcore_device *device = fixture_device("d", text);

	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), text);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 5 zero \n5 24 unstriped \n");
}

/* D-054 in docs/conformance.md: the kernel prints it as -1. */
Test(unstriped, prints_a_large_count_of_stripes)
{
	struct dmcore_table *table = fixture_table("0 8 unstriped 4294967295 8 0 mem:64s,name=a 0");

	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_TABLE),
			 "0 8 unstriped 4294967295 8 0 mem:64s,name=a 0\n");
	dmcore_table_destroy(table);
}

Test(unstriped, messages_are_not_for_it)
{
	struct dmcore_device *device = fixture_device("d", "0 8 unstriped 2 8 0 " DISK " 0");

	cr_assert_eq(dmcore_device_message(device, 0, "anything", NULL, 0), -EINVAL);
}

Test(unstriped, has_its_chunk_as_a_limit)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 24 unstriped 3 8 2 " DISK " 0");

	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), 0);
	cr_assert_eq(limits.chunk_sectors, 8);
	cr_assert_eq(limits.io_min_bytes, 512);
	cr_assert_eq(limits.io_opt_bytes, 0);
}
