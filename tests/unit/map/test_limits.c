/* SPDX-License-Identifier: MIT */
/* What completing a table checks, stacks and counts (map/limits.c). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "map/map.h"
#include "support/fixture.h"

/* Disks of 4096-byte and of 512-byte blocks. */
#define LARGE "mem:8192s,name=large,block=4096"
#define SMALL "mem:8192s,name=small"

TestSuite(areas, .init = fixture_open, .fini = fixture_close);
TestSuite(limits, .init = fixture_open, .fini = fixture_close);
TestSuite(caps, .init = fixture_open, .fini = fixture_close);
TestSuite(depth, .init = fixture_open, .fini = fixture_close);

/* A driver whose device has the limits that the next test wants: "limits:N" has limits[N]. */
static struct dmcore_limits wanted[2];
static uint64_t wanted_sectors = 8192;

static int limits_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)flags;
	dmcore_bdev_set_size(bdev, wanted_sectors);
	return dmcore_bdev_set_limits(bdev, &wanted[args[0] - '0']);
}

static void limits_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void limits_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	(void)bdev;
	dmcore_bio_complete(bio, 0);
}

static const struct dmcore_driver limits_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "limits",
	.version = { 1, 0, 0 },
	.open = limits_open,
	.close = limits_close,
	.submit = limits_submit,
};

static const struct dmcore_limits plain = {
	.struct_size = sizeof(struct dmcore_limits),
	.logical_block_bytes = 512,
	.physical_block_bytes = 512,
	.io_min_bytes = 512,
	.memory_align_bytes = 1,
};

/* ---- areas and boundaries: what the kernel says to each was asked of it ---- */

Test(areas, range_must_end_within_the_device)
{
	dmcore_table_destroy(fixture_table("0 8 linear " SMALL " 8184"));
	fixture_expect_refused("0 8 linear " SMALL " 8185", -EINVAL,
			       "table line 1: " SMALL " too small for target: start=8185, len=8, "
			       "dev_size=8192");
}

Test(areas, range_must_begin_within_the_device)
{
	fixture_expect_refused("0 8 linear " SMALL " 8192", -EINVAL,
			       "table line 1: " SMALL " too small for target: start=8192, len=8, "
			       "dev_size=8192");
}

Test(areas, largest_start_does_not_wrap)
{
	fixture_expect_refused("0 8 linear " SMALL " 18446744073709551615", -EINVAL,
			       "table line 1: " SMALL " too small for target: "
			       "start=18446744073709551615, len=8, dev_size=8192");
}

Test(areas, each_stripe_is_checked)
{
	fixture_expect_refused("0 16 striped 2 8 mem:8s,name=a 0 mem:8s,name=b 1", -EINVAL,
			       "table line 1: mem:8s,name=b too small for target: start=1, len=8, "
			       "dev_size=8");
}

/* D-007 in docs/conformance.md */
Test(areas, device_without_a_sector_is_too_small)
{
	cr_assert_eq(dmcore_driver_register(fixture.core, &limits_driver), 0);
	wanted[0] = plain;
	wanted_sectors = 0;
	fixture_expect_refused("0 8 linear limits:0 0", -EINVAL,
			       "table line 1: limits:0 too small for target: start=0, len=8, "
			       "dev_size=0");
}

Test(areas, start_must_suit_the_block_of_its_device)
{
	fixture_expect_refused("0 8 linear " LARGE " 1", -EINVAL,
			       "table line 1: start=1 not aligned to h/w logical block size 4096 "
			       "of " LARGE);
}

Test(areas, length_must_suit_the_block_of_its_device)
{
	fixture_expect_refused("0 7 linear " LARGE " 0", -EINVAL,
			       "table line 1: len=7 not aligned to h/w logical block size 4096 "
			       "of " LARGE);
}

Test(areas, size_is_checked_before_alignment)
{
	fixture_expect_refused("0 8 linear " LARGE " 8191", -EINVAL,
			       "table line 1: " LARGE " too small for target: start=8191, len=8, "
			       "dev_size=8192");
}

Test(areas, table_must_end_at_a_block)
{
	fixture_expect_refused("0 8 linear " LARGE " 0\n8 1 linear " SMALL " 0", -EINVAL,
			       "table line 2: table line 2 (start sect 8 len 1) not aligned to h/w "
			       "logical block size 4096");
}

/* D-008: the kernel counts this line from 0. */
Test(areas, large_block_must_not_begin_within_a_block)
{
	fixture_expect_refused("0 1 linear " SMALL " 0\n1 8 linear " LARGE " 0", -EINVAL,
			       "table line 2: table line 2 (start sect 1 len 8) not aligned to h/w "
			       "logical block size 4096");
	fixture_expect_refused("0 9 zero\n9 8 linear " LARGE " 0\n17 7 zero", -EINVAL,
			       "table line 2: table line 2 (start sect 9 len 8) not aligned to h/w "
			       "logical block size 4096");
}

Test(areas, small_blocks_may_share_a_large_one)
{
	dmcore_table_destroy(fixture_table("0 4 linear " SMALL " 0\n"
					   "4 1 linear " SMALL " 9\n"
					   "5 3 linear " SMALL " 100\n"
					   "8 8 linear " LARGE " 8\n"));
	dmcore_table_destroy(fixture_table("0 8 linear " LARGE " 0\n"
					   "8 12 linear " SMALL " 0\n"
					   "20 4 zero\n"));
}

Test(areas, table_of_small_blocks_may_be_cut_anywhere)
{
	dmcore_table_destroy(fixture_table("0 1 linear " SMALL " 0\n1 15 linear " SMALL " 8"));
}

Test(areas, completing_by_hand_counts_the_targets)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_create(fixture.core, 0, &table), 0);
	cr_assert_eq(dmcore_table_complete(table), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), "no targets specified");
	cr_assert_eq(dmcore_table_add(table, 0, 8, "zero", NULL), 0);
	cr_assert_eq(dmcore_table_add(table, 8, 8, "linear", "mem:8s,name=a 1"), 0);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(dmcore_table_complete(table), -EINVAL);
		cr_assert_str_eq(dmcore_error_message(),
				 "table line 2: mem:8s,name=a too small for target: start=1, "
				 "len=8, dev_size=8");
	}
	dmcore_table_destroy(table);
}

Test(areas, completing_twice_is_fine)
{
	struct dmcore_table *table = fixture_table("0 8 linear " SMALL " 0");

	cr_assert_eq(dmcore_table_complete(table), 0);
	dmcore_table_destroy(table);
}

/* ---- stacked limits ---- */

/* The limits of a table. */
static struct dmcore_limits limits_of(const char *text)
{
	struct dmcore_table *table = fixture_table(text);
	struct dmcore_limits limits = table->limits;

	dmcore_table_destroy(table);
	return limits;
}

/* Those of a table that stands on two devices with limits wanted[0] and wanted[1]. */
static struct dmcore_limits stack_of_two(void)
{
	static bool registered;

	if (!registered)
		cr_assert_eq(dmcore_driver_register(fixture.core, &limits_driver), 0);
	registered = true;
	return limits_of("0 64 linear limits:0 0\n64 64 linear limits:1 0\n");
}

Test(limits, blocks_are_the_largest_below)
{
	struct dmcore_limits limits;

	wanted[0] = wanted[1] = plain;
	wanted[0].physical_block_bytes = 4096;
	wanted[1].logical_block_bytes = 1024;
	wanted[1].memory_align_bytes = 64;
	wanted[0].memory_align_bytes = 4;
	limits = stack_of_two();
	cr_assert_eq(limits.logical_block_bytes, 1024);
	cr_assert_eq(limits.physical_block_bytes, 4096);
	cr_assert_eq(limits.io_min_bytes, 4096);
	cr_assert_eq(limits.memory_align_bytes, 64);
}

Test(limits, maxima_are_the_smallest_below_and_zero_is_none)
{
	struct dmcore_limits limits;

	wanted[0] = wanted[1] = plain;
	wanted[0].caps = wanted[1].caps = DMCORE_CAP_DISCARD | DMCORE_CAP_WRITE_ZEROES;
	wanted[0].max_io_sectors = 256;
	wanted[1].max_io_sectors = 128;
	wanted[0].max_discard_sectors = 64;
	limits = stack_of_two();
	cr_assert_eq(limits.max_io_sectors, 128);
	cr_assert_eq(limits.max_discard_sectors, 64);
	cr_assert_eq(limits.max_write_zeroes_sectors, 0);
}

Test(limits, preferred_size_is_the_common_multiple)
{
	wanted[0] = wanted[1] = plain;
	wanted[0].io_opt_bytes = 12288;
	wanted[1].io_opt_bytes = 16384;
	cr_assert_eq(stack_of_two().io_opt_bytes, 49152);
	wanted[1].io_opt_bytes = 0;
	cr_assert_eq(stack_of_two().io_opt_bytes, 12288);
}

Test(limits, preferred_size_that_overflows_is_none)
{
	wanted[0] = wanted[1] = plain;
	wanted[0].io_opt_bytes = 3u << 30;
	wanted[1].io_opt_bytes = 1u << 31;
	cr_assert_eq(stack_of_two().io_opt_bytes, 0);
}

Test(limits, chunk_is_the_common_divisor)
{
	wanted[0] = wanted[1] = plain;
	wanted[0].chunk_sectors = 24;
	wanted[1].chunk_sectors = 16;
	cr_assert_eq(stack_of_two().chunk_sectors, 8);
	wanted[1].chunk_sectors = 0;
	cr_assert_eq(stack_of_two().chunk_sectors, 24);
}

Test(limits, hints_that_cut_a_block_are_dropped)
{
	struct dmcore_limits limits;

	wanted[0] = wanted[1] = plain;
	wanted[0].physical_block_bytes = 4096;
	wanted[1].io_min_bytes = 6144;
	wanted[1].io_opt_bytes = 6144;
	wanted[1].chunk_sectors = 12;
	limits = stack_of_two();
	cr_assert_eq(limits.io_min_bytes, 4096);
	cr_assert_eq(limits.io_opt_bytes, 0);
	cr_assert_eq(limits.chunk_sectors, 0);
}

Test(limits, tables_without_devices_have_the_defaults)
{
	struct dmcore_limits limits = limits_of("0 8 zero\n8 8 error");

	cr_assert_eq(limits.logical_block_bytes, 512);
	cr_assert_eq(limits.physical_block_bytes, 512);
	cr_assert_eq(limits.io_min_bytes, 512);
	cr_assert_eq(limits.io_opt_bytes, 0);
	cr_assert_eq(limits.max_io_sectors, 0);
	cr_assert_eq(limits.chunk_sectors, 0);
}

Test(limits, error_target_takes_those_of_its_device)
{
	cr_assert_eq(limits_of("0 8 error " LARGE " 0").logical_block_bytes, 4096);
}

static unsigned int warnings;

static void count_warning(enum dmcore_log_level level, const char *message, void *context)
{
	(void)context;
	warnings += level == DMCORE_LOG_WARNING &&
		    strstr(message, "caused an alignment inconsistency") != NULL;
}

Test(limits, misaligned_start_is_a_warning_once_a_table)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_table *table;
	struct dmcore *core;

	options.log = count_warning;
	cr_assert_eq(dmcore_create(&options, &core), 0);
	cr_assert_eq(dmcore_driver_register(core, &limits_driver), 0);
	wanted[0] = plain;
	wanted[0].physical_block_bytes = 4096;
	cr_assert_eq(dmcore_table_parse(core, "0 8 linear limits:0 1\n8 8 linear limits:0 9", 0,
					&table),
		     0);
	cr_assert_eq(warnings, 1);
	dmcore_table_destroy(table);
	cr_assert_eq(dmcore_table_parse(core, "0 8 linear limits:0 8", 0, &table), 0);
	cr_assert_eq(warnings, 1);
	dmcore_table_destroy(table);
	cr_assert_eq(dmcore_destroy(core), 0);
}

/* ---- capabilities ---- */

#define WITH(caps) "fault:64,caps=" caps ",id=a"

static bool has(const char *text, unsigned int cap)
{
	return limits_of(text).caps & cap;
}

Test(caps, discard_needs_every_device)
{
	cr_assert(
		has("0 8 linear fault:64,id=a 0\n8 8 linear fault:64,id=b 0", DMCORE_CAP_DISCARD));
	cr_assert_not(has("0 8 linear fault:64,id=a 0\n8 8 linear fault:64,caps=0,id=b 0",
			  DMCORE_CAP_DISCARD));
}

Test(caps, discard_of_zero_needs_no_device)
{
	cr_assert(has("0 8 zero", DMCORE_CAP_DISCARD));
	cr_assert(has("0 8 linear fault:64,id=a 0\n8 8 zero", DMCORE_CAP_DISCARD));
	cr_assert(has("0 8 error", DMCORE_CAP_DISCARD));
}

Test(caps, discard_granularity_is_none_without_discard)
{
	cr_assert_eq(limits_of("0 8 zero").discard_granularity_bytes, 512);
	cr_assert_eq(limits_of("0 8 linear fault:64,caps=0,id=a 0").discard_granularity_bytes, 0);
}

Test(caps, discard_zeroes_needs_discard_and_every_device)
{
	cr_assert(has("0 8 linear fault:64,id=a 0", DMCORE_CAP_DISCARD_ZEROES));
	cr_assert_not(has("0 8 linear fault:64,caps=4,id=a 0", DMCORE_CAP_DISCARD_ZEROES));
	cr_assert_not(has("0 8 linear fault:64,caps=16,id=a 0", DMCORE_CAP_DISCARD_ZEROES));
}

Test(caps, write_zeroes_needs_every_device_and_every_target)
{
	cr_assert(has("0 8 linear fault:64,id=a 0", DMCORE_CAP_WRITE_ZEROES));
	cr_assert_not(has("0 8 linear fault:64,caps=0,id=a 0", DMCORE_CAP_WRITE_ZEROES));
	cr_assert_not(has("0 8 linear fault:64,id=a 0\n8 8 zero", DMCORE_CAP_WRITE_ZEROES));
	cr_assert_not(has("0 8 zero", DMCORE_CAP_WRITE_ZEROES));
}

Test(caps, volatile_cache_of_any_device_is_the_tables)
{
	cr_assert(has("0 8 linear fault:64,caps=1,id=a 0\n8 8 linear fault:64,caps=0,id=b 0",
		      DMCORE_CAP_VOLATILE_CACHE));
	cr_assert_not(has("0 8 linear fault:64,caps=0,id=b 0", DMCORE_CAP_VOLATILE_CACHE));
	cr_assert_not(has("0 8 zero", DMCORE_CAP_VOLATILE_CACHE));
}

Test(caps, fua_needs_every_device)
{
	cr_assert(has("0 8 linear fault:64,caps=2,id=a 0", DMCORE_CAP_FUA));
	cr_assert_not(has("0 8 linear fault:64,caps=2,id=a 0\n8 8 linear fault:64,caps=1,id=b 0",
			  DMCORE_CAP_FUA));
}

/* ---- depth ---- */

/*
 * Stacks devices d0, d1 … with a table of "0 8 linear BELOW 0" and `more`, until one is refused.
 * Returns how many there are, and leaves the message of the refusal.
 */
static unsigned int stack_up(const char *more)
{
	struct dmcore_device *device;
	struct dmcore_table *table;
	char below[16] = "mem:64s";
	char text[128];
	unsigned int n;

	for (n = 0;; n++) {
		snprintf(text, sizeof(text), "0 8 linear %s 0\n%s", below, more);
		if (dmcore_table_parse(fixture.core, text, 0, &table))
			break;
		snprintf(below, sizeof(below), "d%u", n);
		cr_assert_eq(dmcore_device_create(fixture.core, below, NULL, 0, &device), 0);
		cr_assert_eq(dmcore_device_load(device, table), 0);
		cr_assert_eq(dmcore_device_resume(device), 0);
	}
	return n;
}

/* That every kind of request passes through the uppermost of n devices. */
static void use_stack(unsigned int n)
{
	static unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
	struct fixture_io io = { .count = 8, .buffer = buffer };
	char name[16];

	snprintf(name, sizeof(name), "d%u", n - 1);
	io.bdev = fixture_bdev(name);
	io.op = DMCORE_OP_WRITE;
	io.flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA;
	memset(buffer, 0x5a, sizeof(buffer));
	cr_assert_eq(fixture_run(&io), 0);
	io.op = DMCORE_OP_READ;
	io.flags = 0;
	memset(buffer, 0, sizeof(buffer));
	cr_assert_eq(fixture_run(&io), 0);
	cr_assert_eq(buffer[sizeof(buffer) - 1], 0x5a);
	io.buffer = NULL;
	io.op = DMCORE_OP_FLUSH;
	cr_assert_eq(fixture_run(&io), 0);
	io.op = DMCORE_OP_WRITE_ZEROES;
	io.flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA;
	cr_assert_eq(fixture_run(&io), 0);
	io.op = DMCORE_OP_DISCARD;
	io.flags = 0;
	cr_assert_eq(fixture_run(&io), 0);
}

Test(depth, sixty_four_devices_may_stand_on_each_other)
{
	cr_assert_eq(stack_up(""), DMCORE_STACK_DEPTH_MAX);
	cr_assert_str_eq(dmcore_error_message(),
			 "65 mapped devices on top of each other, 64 allowed");
	use_stack(DMCORE_STACK_DEPTH_MAX);
}

Test(depth, tables_that_split_may_not_stand_as_high)
{
	unsigned int n = stack_up("8 8 zero");

	cr_assert_geq(n, 8);
	cr_assert_lt(n, DMCORE_STACK_DEPTH_MAX);
	cr_assert_not_null(strstr(dmcore_error_message(), "stacked too deep"));
	use_stack(n);
}

Test(depth, of_a_table_is_that_of_its_deepest_device_and_one)
{
	struct dmcore_table *table;

	fixture_device("a", "0 8 linear mem:8s 0");
	fixture_device("b", "0 8 linear a 0");
	table = fixture_table("0 8 linear mem:8s 0\n8 8 linear b 0\n16 8 linear a 0");
	cr_assert_eq(table->depth, 3);
	dmcore_table_destroy(table);
}
