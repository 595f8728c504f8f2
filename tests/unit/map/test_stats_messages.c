/* SPDX-License-Identifier: MIT */
/* The @stats_* messages (map/stats_message.c): the texts are those of the kernel. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define MS UINT64_C(1000000)
#define ZEROES " 0 0 0 0 0 0 0 0 0 0 0 0 0"

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_bdev *bdev;
static struct dmcore_device *device;
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];
static char reply[8192];
static _Atomic uint64_t now_ns;

static uint64_t clock_ns(void *context)
{
	(void)context;
	return now_ns;
}

static void open_stage(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	now_ns = 1000 * MS;
	options.clock_ns = clock_ns;
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 1, 1000, "");
	bdev = stage_map(&stage, "z", "0 1000 linear fault:1000,id=1 0");
	device = stage.devices[0];
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(stats_messages, .init = open_stage, .fini = close_stage);

/* The answer to a message, good until the next. */
static const char *ask(const char *text)
{
	int64_t length = dmcore_device_message(device, 0, text, reply, sizeof(reply));

	cr_assert_geq(length, 0, "%s: %lld: %s", text, (long long)length, dmcore_error_message());
	cr_assert_lt(length, (int64_t)sizeof(reply));
	return length ? reply : "";
}

static void expect(const char *text, const char *answer)
{
	const char *got = ask(text);

	cr_assert_str_eq(got, answer, "%s:\n%s", text, got);
}

static void refuse(const char *text, int error)
{
	int64_t ret = dmcore_device_message(device, 0, text, reply, sizeof(reply));

	cr_assert_eq(ret, error, "%s: %lld: %s", text, (long long)ret, dmcore_error_message());
}

static void run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	cr_assert_eq(stage_run(&stage, bdev, op, 0, sector, count, buffer), 0);
}

/* One read that takes so long. */
static void run_for(uint64_t took_ns)
{
	struct fault_rule rule = { .action = FAULT_HOLD };
	struct tally tally = { 0 };

	fault_add_rule(disk, &rule);
	stage_submit(&stage, bdev, DMCORE_OP_READ, 100, 8, buffer, &tally);
	now_ns += took_ns;
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
	fault_clear_rules(disk);
}

Test(stats_messages, create_answers_with_the_lowest_free_id)
{
	expect("@stats_create - /4", "0");
	expect("@stats_create - /3", "1");
	expect("@stats_create 10+90 30 prog aux", "2");
	expect("@stats_delete 1", "");
	expect("@stats_create - 100", "1");
	expect("@stats_create - 100", "3");
}

Test(stats_messages, list_is_the_kernels)
{
	ask("@stats_create - /4");
	ask("@stats_create - /3");
	ask("@stats_create 10+90 30 prog aux");
	ask("@stats_create 10+90 /7 1 precise_timestamps prog");
	ask("@stats_create 0+1000 /2 2 precise_timestamps histogram:1,20,300 prog2 aux2");
	ask("@stats_create 0+1000 /2 1 histogram:5");
	ask("@stats_create 0+1000 /2 - -");
	ask("@stats_create 0+1000 /2 0 - xx");
	ask("@stats_create 0+1000 /2 0");
	ask("@stats_create 0+1000 /2 a");
	ask("@stats_create 0+1000 /2 1 PRECISE_TIMESTAMPS precise_timestamps");
	ask("@stats_create 0+1000 /2 2 precise_timestamps precise_timestamps");
	ask("@stats_create 0+1000 /2 1 histogram:18446744073709551615");
	ask("@stats_create 0+10 /11");
	ask("@stats_create 0+10 11 0 a\\\\b a\\ b");
	ask("@stats_create 990+5000 1000");
	ask("@stats_create 18446744073709551614+1 1");
	ask("@stats_create 0+18446744073709551615 /1");
	expect("@stats_list",
	       "0: 0+1000 250 - -\n"
	       "1: 0+1000 334 - -\n"
	       "2: 10+90 30 prog aux\n"
	       "3: 10+90 13 prog - precise_timestamps\n"
	       "4: 0+1000 500 prog2 aux2 precise_timestamps histogram:1,20,300\n"
	       "5: 0+1000 500 - - histogram:5\n"
	       "6: 0+1000 500 - -\n"
	       "7: 0+1000 500 - xx\n"
	       "8: 0+1000 500 - -\n"
	       "9: 0+1000 500 a -\n"
	       "10: 0+1000 500 precise_timestamps - precise_timestamps\n"
	       "11: 0+1000 500 - - precise_timestamps\n"
	       "12: 0+1000 500 - - histogram:18446744073709551615\n"
	       "13: 0+10 1 - -\n"
	       "14: 0+10 11 a\\b a b\n"
	       "15: 990+5000 1000 - -\n"
	       "16: 18446744073709551614+1 1 - -\n"
	       "17: 0+18446744073709551615 18446744073709551615 - -\n");
	expect("@stats_list prog", "2: 10+90 30 prog aux\n"
				   "3: 10+90 13 prog - precise_timestamps\n");
	expect("@STATS_LIST a", "9: 0+1000 500 a -\n");
	expect("@stats_list nope", "");
}

Test(stats_messages, list_of_no_region_is_empty)
{
	expect("@stats_list", "");
	refuse("@stats_print 0", -ENOENT);
}

Test(stats_messages, aux_is_set_again)
{
	ask("@stats_create - /1 prog old");
	expect("@stats_set_aux 0 new", "");
	expect("@stats_list", "0: 0+1000 1000 prog new\n");
	refuse("@stats_set_aux 0", -EINVAL);
	refuse("@stats_set_aux 0 a b", -EINVAL);
	refuse("@stats_set_aux 9 a", -ENOENT);
}

/* Assertion 84 of the kernel's behaviour: the last area is short, and printed with the step. */
Test(stats_messages, print_tells_the_nominal_step)
{
	ask("@stats_create - /3");
	expect("@stats_print 0", "0+334" ZEROES "\n"
				 "334+334" ZEROES "\n"
				 "668+334" ZEROES "\n");
	run(DMCORE_OP_READ, 668, 8);
	run(DMCORE_OP_READ, 676, 8);
	run(DMCORE_OP_WRITE, 664, 16);
	expect("@stats_print 0", "0+334" ZEROES "\n"
				 "334+334 0 0 0 0 1 0 4 0 0 0 0 0 0\n"
				 "668+334 2 1 16 0 1 0 12 0 0 0 0 0 0\n");
}

Test(stats_messages, print_of_some_areas)
{
	ask("@stats_create - /4");
	expect("@stats_print 0 1 2", "250+250" ZEROES "\n500+250" ZEROES "\n");
	expect("@stats_print 0 3 5", "750+250" ZEROES "\n");
	expect("@stats_print 0 3 18446744073709551615", "750+250" ZEROES "\n");
	expect("@stats_print 0 4 1", "");
	expect("@stats_print 0 99 1", "");
	expect("@stats_print 0 18446744073709551615 1", "");
	expect("@stats_print 0 0 0", "");
	refuse("@stats_print 0 1", -EINVAL);
	refuse("@stats_print 0 1 2 3", -EINVAL);
	refuse("@stats_print 0 x 1", -EINVAL);
	refuse("@stats_print 0 0 -1", -EINVAL);
	refuse("@stats_print 7", -ENOENT);
	refuse("@stats_print x", -EINVAL);
	refuse("@stats_print -1", -EINVAL);
	refuse("@stats_print", -EINVAL);
}

Test(stats_messages, times_are_milliseconds_or_nanoseconds)
{
	struct fault_rule rule = { .action = FAULT_HOLD };
	struct tally tally = { 0 };

	ask("@stats_create - /1 1 histogram:3,5");
	ask("@stats_create - /1 2 precise_timestamps histogram:2,4999999");
	run_for(4 * MS + 999999);
	expect("@stats_print 0", "0+1000 1 0 8 4 0 0 0 0 0 4 4 4 0 0:1:0\n");
	expect("@stats_print 1",
	       "0+1000 1 0 8 4999999 0 0 0 0 0 4999999 4999999 4999999 0 0:0:1\n");
	now_ns += 100 * MS;
	fault_add_rule(disk, &rule);
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 16, 8, buffer, &tally);
	now_ns += 1;
	expect("@stats_print 1",
	       "0+1000 1 0 8 4999999 0 0 0 0 2 5000000 5000001 4999999 1 0:0:1\n");
	fault_release_all(disk);
	stage_wait(&stage, &tally, 2);
	expect("@stats_print 1",
	       "0+1000 1 0 8 4999999 2 0 16 2 0 5000000 5000001 4999999 1 2:0:1\n");
}

/* D-044 */
Test(stats_messages, print_clear_clears_what_it_has_told)
{
	ask("@stats_create - /2 1 histogram:3");
	run_for(2 * MS);
	run(DMCORE_OP_WRITE, 600, 8);
	expect("@stats_print_clear 0 0 1", "0+500 1 0 8 2 0 0 0 0 0 2 2 2 0 1:0\n");
	expect("@stats_print 0", "0+500" ZEROES " 0:0\n500+500 0 0 0 0 1 0 8 0 0 0 0 0 0 1:0\n");
	expect("@stats_print_clear 0", "0+500" ZEROES " 0:0\n"
				       "500+500 0 0 0 0 1 0 8 0 0 0 0 0 0 1:0\n");
	expect("@stats_print 0", "0+500" ZEROES " 0:0\n500+500" ZEROES " 0:0\n");
	run_for(1 * MS);
	expect("@stats_print 0 0 1", "0+500 1 0 8 1 0 0 0 0 0 1 1 1 0 1:0\n");
	refuse("@stats_print_clear 0 x y", -EINVAL);
	refuse("@stats_print_clear 5", -ENOENT);
}

Test(stats_messages, print_clear_needs_no_histogram)
{
	ask("@stats_create - /1");
	run(DMCORE_OP_WRITE, 0, 8);
	expect("@stats_print_clear 0", "0+1000 0 0 0 0 1 0 8 0 0 0 0 0 0\n");
	expect("@stats_print 0", "0+1000" ZEROES "\n");
}

/* They are signed in the kernel. */
Test(stats_messages, ids_beyond_31_bits_are_refused)
{
	refuse("@stats_clear 2147483648", -EINVAL);
	refuse("@stats_delete 18446744073709551616", -EINVAL);
	refuse("@stats_print 2147483648", -EINVAL);
	refuse("@stats_set_aux 2147483648 note", -EINVAL);
	refuse("@stats_clear 2147483647", -ENOENT);
}

Test(stats_messages, clear_and_delete)
{
	ask("@stats_create - /1");
	run(DMCORE_OP_READ, 0, 8);
	expect("@stats_clear 0", "");
	expect("@stats_print 0", "0+1000" ZEROES "\n");
	refuse("@stats_clear", -EINVAL);
	refuse("@stats_clear 55", -ENOENT);
	refuse("@stats_clear 0 1", -EINVAL);
	expect("@stats_delete 0", "");
	refuse("@stats_delete 0", -ENOENT);
	refuse("@stats_delete", -EINVAL);
	refuse("@stats_delete 1 2", -EINVAL);
	refuse("@stats_delete x", -EINVAL);
}

Test(stats_messages, malformed_creations_are_refused)
{
	static const char *const texts[] = {
		"@stats_create",
		"@stats_create -",
		"@stats_create 5+5",
		"@stats_create 0+0 /2",
		"@stats_create 0+10 0",
		"@stats_create 0+10 /0",
		"@stats_create 0+10 /",
		"@stats_create 5 11",
		"@stats_create 5+ 11",
		"@stats_create +5 11",
		"@stats_create 5+5x 11",
		"@stats_create -5+5 11",
		"@stats_create 5+5 11x",
		"@stats_create 5+5 /2x",
		"@stats_create 5+5 /-2",
		"@stats_create 5+5 /+2",
		"@stats_create 5+5 -2",
		"@stats_create 18446744073709551615+1 1",
		"@stats_create 18446744073709551615+2 1",
		"@stats_create - 9 a b c",
		"@stats_create - 9 1",
		"@stats_create - 9 1 foo",
		"@stats_create - 9 2 precise_timestamps",
		"@stats_create - 9 99999999999 a",
		"@stats_create - 9 99999999999999999999999 a",
		"@stats_create - 9 2 histogram:1,2 histogram:3",
		"@stats_create - 9 1 histogram:",
		"@stats_create - 9 1 histogram:0",
		"@stats_create - 9 1 histogram:2,1",
		"@stats_create - 9 1 histogram:2,2",
		"@stats_create - 9 1 histogram:1,2,",
		"@stats_create - 9 1 histogram:,1",
		"@stats_create - 9 1 histogram:1x",
		"@stats_create - 9 1 histogram:0,5",
		"@stats_create - 9 1 histogram:+5",
		"@stats_create - 9 1 histogram:18446744073709551616",
	};

	for (unsigned int i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		refuse(texts[i], -EINVAL);
		cr_assert_not_null(strstr(dmcore_error_message(), i == 17 || i == 18
									  ? "behind the last"
									  : "Invalid parameters "
									    "for message "
									    "@stats_create"),
				   "%s: %s", texts[i], dmcore_error_message());
	}
	refuse("@stats_create 0+18446744073709551615 1", -EOVERFLOW);
	refuse("@stats_create 0+8388609 1", -EOVERFLOW);
	expect("@stats_list", "");
	refuse("@stats_list a b", -EINVAL);
	refuse("@stats_foo", -EINVAL);
	refuse("@stats_", -EINVAL);
}

/* D-045 */
Test(stats_messages, numbers_that_the_kernel_wraps_are_refused)
{
	ask("@stats_create - /1");
	refuse("@stats_print 4294967296", -EINVAL);
	refuse("@stats_print 0 0 18446744073709551616", -EINVAL);
	refuse("@stats_create 0+18446744073709551626 1", -EINVAL);
	refuse("@stats_create 0+10 18446744073709551617", -EINVAL);
}

/* D-046 */
Test(stats_messages, whole_device_needs_a_table)
{
	cr_assert_eq(dmcore_device_create(stage.core, "n", NULL, 0, &device), 0);
	stage.devices[stage.num_devices++] = device;
	refuse("@stats_create - 1", -EINVAL);
	refuse("@stats_create - /5", -EINVAL);
	expect("@stats_create 0+10 5", "0");
	expect("@stats_print 0", "0+5" ZEROES "\n5+5" ZEROES "\n");
}

Test(stats_messages, areas_by_target_print_their_own_lengths)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;

	stage_map(&stage, "t", "0 100 zero\n100 20 zero\n120 300 zero");
	device = stage.devices[1];
	options.flags = DMCORE_STATS_BY_TARGET;
	cr_assert_eq(dmcore_stats_create(device, &options), 0);
	expect("@stats_list", "0: 0+420 420 - -\n");
	expect("@stats_print 0",
	       "0+100" ZEROES "\n100+20" ZEROES "\n120+300" ZEROES "\n");
}
