/* SPDX-License-Identifier: MIT */
/* The delay target: its table line, when requests are let go, and suspension. See
 * test_delay_threads.c too. */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/fixture.h"
#include "support/stage.h"

#define A "fault:64,id=1"
#define B "fault:64,id=2"
#define C "fault:64,id=3"
#define NS_PER_MS UINT64_C(1000000)

static struct stage stage;
static _Atomic uint64_t now_ns;
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

static uint64_t test_clock(void *context)
{
	(void)context;
	return atomic_load(&now_ns);
}

static void open_with_clock(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.clock_ns = test_clock;
	atomic_store(&now_ns, 77777777777);
	stage_open(&stage, &options, NULL);
}

static void close_with_clock(void)
{
	stage_close(&stage);
}

TestSuite(delay_line, .init = fixture_open, .fini = fixture_close);
TestSuite(delay, .init = open_with_clock, .fini = close_with_clock);

/* ---- table line ---- */

static void expect_refused(const char *params, int error, const char *message)
{
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 48 delay %s", params);
	snprintf(whole, sizeof(whole), "table line 1: delay: %s", message);
	fixture_expect_refused(text, error, whole);
}

static void expect_printed(const char *params)
{
	struct dmcore_table *table;
	char text[256];

	snprintf(text, sizeof(text), "0 48 delay %s\n", params);
	table = fixture_table(text);
	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_TABLE), text);
	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_STATUS), "0 48 delay 0 0 0\n");
	dmcore_table_destroy(table);
}

Test(delay_line, names_what_is_wrong_in_the_kernels_order)
{
	static const char count[] = "Requires exactly 3, 6 or 9 arguments";
	static const char sector[] = "Invalid device sector";
	static const char time[] = "Invalid delay";
	static const char none[] =
		"Device lookup failed: /nonexistent: No such file or directory (ENOENT)";

	expect_refused("", -EINVAL, count);
	expect_refused("x x", -EINVAL, count);
	expect_refused("x x x x", -EINVAL, count);
	expect_refused("x x x x x", -EINVAL, count);
	expect_refused("x x x x x x x", -EINVAL, count);
	expect_refused("x x x x x x x x", -EINVAL, count);
	expect_refused("x x x x x x x x x x", -EINVAL, count);
	expect_refused("/nonexistent x x", -EINVAL, sector);
	expect_refused("/nonexistent 0 x", -EINVAL, time);
	expect_refused("/nonexistent 0 5", -ENOENT, none);
	expect_refused("/nonexistent 0 5 " A " x x", -ENOENT, none);
	expect_refused(A " 0 5 /nonexistent x 5", -EINVAL, sector);
	expect_refused(A " 0 5 /nonexistent 0 -1", -EINVAL, time);
	expect_refused(A " 0 5 /nonexistent 0 5", -ENOENT, none);
	expect_refused(A " 0 5 " A " 0 5 /nonexistent x 5", -EINVAL, sector);
	expect_refused(A " 0 5 " A " 0 5 /nonexistent 0 1x", -EINVAL, time);
	expect_refused(A " 0 5 " A " 0 5 /nonexistent 0 5", -ENOENT, none);
}

/* D-085 in docs/conformance.md: the kernel takes them. */
Test(delay_line, refuses_numbers_that_wrap)
{
	expect_refused(A " 18446744073709551616 5", -EINVAL, "Invalid device sector");
	expect_refused(A " 0 4294967296", -EINVAL, "Invalid delay");
}

Test(delay_line, prints_what_it_was_given)
{
	expect_printed(A " 16 0");
	expect_printed(A " 16 4294967295");
	expect_printed(A " 16 5 " B " 1 50");
	expect_printed(A " 16 5 " B " 1 50 " C " 0 500");
}

Test(delay_line, each_device_must_be_large_enough)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(fixture.core, "0 48 delay " A " 0 5 " B " 17 5", 0, &table),
		     -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "too small for target"));
	cr_assert_eq(dmcore_table_parse(fixture.core,
					"0 48 delay " A " 0 5 " B " 16 5 " C " 17 5", 0, &table),
		     -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "too small for target"));
}

/* ---- time ---- */

static void pass_ms(uint64_t ms)
{
	atomic_fetch_add(&now_ns, ms * NS_PER_MS);
	stage_settle(&stage);
}

/* Counts in tally->ended; `tally` is of one request. */
static void submit(struct dmcore_bdev *bdev, enum dmcore_op op, struct tally *tally)
{
	bool has_data = op <= DMCORE_OP_WRITE;

	stage_submit(&stage, bdev, op, op == DMCORE_OP_FLUSH ? 0 : 8,
		     op == DMCORE_OP_FLUSH ? 0 : 8, has_data ? buffer : NULL, tally);
	stage_settle(&stage);
}

/* That a request takes this long to the nanosecond, and then succeeds. */
static void expect_delay(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t ms)
{
	struct tally tally = { 0 };

	submit(bdev, op, &tally);
	if (ms > 0) {
		cr_assert_eq(tally.ended, 0, "operation %d", op);
		atomic_fetch_add(&now_ns, ms * NS_PER_MS - 1);
		stage_settle(&stage);
		cr_assert_eq(tally.ended, 0, "operation %d", op);
		atomic_fetch_add(&now_ns, 1);
		stage_settle(&stage);
	}
	cr_assert_eq(tally.ended, 1, "operation %d", op);
	cr_assert_eq(tally.status, 0);
}

static void expect_delays(struct dmcore_bdev *bdev, uint64_t read_ms, uint64_t write_ms,
			  uint64_t flush_ms)
{
	expect_delay(bdev, DMCORE_OP_READ, read_ms);
	expect_delay(bdev, DMCORE_OP_WRITE, write_ms);
	expect_delay(bdev, DMCORE_OP_DISCARD, write_ms);
	expect_delay(bdev, DMCORE_OP_FLUSH, flush_ms);
}

Test(delay, is_one_for_all_or_that_of_the_class)
{
	expect_delays(stage_map(&stage, "a", "0 64 delay " A " 0 300"), 300, 300, 300);
	expect_delays(stage_map(&stage, "b", "0 64 delay " A " 0 300 " A " 0 20"), 300, 20, 20);
	expect_delays(stage_map(&stage, "c", "0 64 delay " A " 0 300 " A " 0 20 " A " 0 1"), 300,
		      20, 1);
	expect_delays(stage_map(&stage, "d", "0 64 delay " A " 0 0 " A " 0 20 " A " 0 0"), 0, 20,
		      0);
	expect_delays(stage_map(&stage, "e", "0 64 delay " A " 0 4294967295"), 4294967295,
		      4294967295, 4294967295);
}

Test(delay, write_with_preflush_waits_for_both)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 1 " A " 0 20 " A
							  " 0 300");
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(&stage, bdev, DMCORE_OP_WRITE, 0, 8, buffer, &tally);

	bio->flags = DMCORE_BIO_PREFLUSH;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_settle(&stage);
	pass_ms(300);
	cr_assert_eq(tally.ended, 0);
	pass_ms(19);
	cr_assert_eq(tally.ended, 0);
	pass_ms(1);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, 0);
}

Test(delay, each_class_goes_to_its_device)
{
	struct fault_disk *disks[3];
	struct dmcore_bdev *bdev;

	for (unsigned int i = 0; i < 3; i++)
		disks[i] = stage_disk(&stage, i + 1, 64, "");
	bdev = stage_map(&stage, "d", "0 4 zero\n4 32 delay " A " 1 5 " B " 2 0 " C " 3 7\n");
	expect_delays(bdev, 5, 0, 7);
	cr_assert_eq(fault_num_logged(disks[0]), 1);
	cr_assert_eq(fault_logged(disks[0], 0).op, DMCORE_OP_READ);
	cr_assert_eq(fault_logged(disks[0], 0).sector, 5);
	cr_assert_eq(fault_num_logged(disks[1]), 2);
	cr_assert_eq(fault_logged(disks[1], 0).op, DMCORE_OP_WRITE);
	cr_assert_eq(fault_logged(disks[1], 0).sector, 6);
	cr_assert_eq(fault_logged(disks[1], 1).op, DMCORE_OP_DISCARD);
	cr_assert_eq(fault_logged(disks[1], 1).sector, 6);
	cr_assert_eq(fault_num_logged(disks[2]), 1);
	cr_assert_eq(fault_logged(disks[2], 0).op, DMCORE_OP_FLUSH);
}

Test(delay, write_zeroes_is_not_supported)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 5");

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE_ZEROES, 0, 0, 8, NULL), -EOPNOTSUPP);
}

/* They reach the device as their times come, and in their order if it is the same. */
Test(delay, requests_go_in_the_order_of_their_times)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 100 " A " 0 50");
	static const uint64_t expected[] = { 8, 9, 0, 1, 2 };
	struct tally tally = { 0 };

	for (uint64_t i = 0; i < 3; i++)
		stage_submit(&stage, bdev, DMCORE_OP_READ, i, 1, buffer, &tally);
	for (uint64_t i = 8; i < 10; i++)
		stage_submit(&stage, bdev, DMCORE_OP_WRITE, i, 1, buffer, &tally);
	pass_ms(1000);
	cr_assert_eq(tally.ended, 5);
	for (unsigned int i = 0; i < 5; i++)
		cr_assert_eq(fault_logged(disk, i).sector, expected[i], "request %u", i);
}

Test(delay, hands_back_what_the_device_says)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 100");
	struct tally tally = { 0 };

	pattern_fill(fault_data(disk), 0, 64, 1);
	submit(bdev, DMCORE_OP_READ, &tally);
	pass_ms(100);
	cr_assert_eq(pattern_differs(buffer, 8, 8, 1), -1);
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENOSPC });
	submit(bdev, DMCORE_OP_WRITE, &tally);
	pass_ms(100);
	cr_assert_eq(tally.ended, 2);
	cr_assert_eq(tally.status, -ENOSPC);
}

Test(delay, more_requests_than_a_queue_has_bios_for_pieces)
{
	struct dmcore_bdev *bdev =
		stage_map(&stage, "d", "0 16 delay " A " 0 10\n16 16 delay " A " 16 20\n"
				       "32 32 delay " A " 32 30\n");
	struct tally tally = { 0 };

	for (unsigned int i = 0; i < 200; i++)
		stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 64, buffer, &tally);
	while (tally.ended < 200)
		pass_ms(10);
	cr_assert_eq(tally.failed, 0);
}

Test(delay, stands_on_delay)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;

	stage_map(&stage, "low", "0 64 delay " A " 0 30");
	bdev = stage_map(&stage, "high", "0 64 delay low 0 20");
	submit(bdev, DMCORE_OP_READ, &tally);
	pass_ms(20);
	pass_ms(29);
	cr_assert_eq(tally.ended, 0);
	pass_ms(1);
	cr_assert_eq(tally.ended, 1);
}

/* ---- status ---- */

static void expect_status(unsigned int reads, unsigned int writes, unsigned int flushes)
{
	char expected[64];
	char text[256];

	snprintf(expected, sizeof(expected), "0 64 delay %u %u %u\n", reads, writes, flushes);
	cr_assert_geq(dmcore_device_text(stage.devices[0], DMCORE_TEXT_STATUS, 0, text,
					 sizeof(text)), 0);
	cr_assert_str_eq(text, expected);
}

Test(delay, status_counts_what_waits)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 30 " A " 0 20 " A
							  " 0 10");
	struct tally tally = { 0 };

	expect_status(0, 0, 0);
	for (unsigned int i = 0; i < 3; i++)
		submit(bdev, DMCORE_OP_READ, &tally);
	submit(bdev, DMCORE_OP_WRITE, &tally);
	submit(bdev, DMCORE_OP_DISCARD, &tally);
	submit(bdev, DMCORE_OP_FLUSH, &tally);
	expect_status(3, 2, 1);
	pass_ms(10);
	expect_status(3, 2, 0);
	pass_ms(10);
	expect_status(3, 0, 0);
	pass_ms(10);
	expect_status(0, 0, 0);
	cr_assert_eq(tally.ended, 6);
}

/* ---- suspend ---- */

static void check_suspend(unsigned int flags)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 1000");
	struct tally tally = { 0 };

	for (unsigned int i = 0; i < 5; i++)
		stage_submit(&stage, bdev, DMCORE_OP_READ, i, 1, buffer, &tally);
	expect_status(5, 0, 0);
	cr_assert_eq(dmcore_device_suspend(stage.devices[0], flags, -1), 0);
	cr_assert_eq(tally.ended, 5);
	cr_assert_eq(tally.failed, 0);
	for (unsigned int i = 0; i < 5; i++)
		cr_assert_eq(fault_logged(disk, i).sector, i);
	expect_status(0, 0, 0);
	/* What comes now waits for the resume, and then its delay. */
	submit(bdev, DMCORE_OP_READ, &tally);
	pass_ms(5000);
	expect_status(0, 0, 0);
	cr_assert_eq(dmcore_device_resume(stage.devices[0]), 0);
	stage_settle(&stage);
	expect_status(1, 0, 0);
	pass_ms(999);
	cr_assert_eq(tally.ended, 5);
	pass_ms(1);
	cr_assert_eq(tally.ended, 6);
}

Test(delay, suspend_lets_all_go_at_once)
{
	check_suspend(0);
}

Test(delay, noflush_suspend_too)
{
	check_suspend(DMCORE_SUSPEND_NOFLUSH);
}

Test(delay, swap_lets_all_go_by_the_old_table)
{
	struct fault_disk *disks[2] = { stage_disk(&stage, 1, 64, ""),
					stage_disk(&stage, 2, 64, "") };
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 1000");
	struct dmcore_table *table;
	struct tally tally = { 0 };

	submit(bdev, DMCORE_OP_READ, &tally);
	cr_assert_eq(dmcore_table_parse(stage.core, "0 64 delay " B " 0 10", 0, &table), 0);
	cr_assert_eq(dmcore_device_load(stage.devices[0], table), 0);
	cr_assert_eq(dmcore_device_resume(stage.devices[0]), 0);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(fault_count(disks[0], 0), 1);
	expect_delay(bdev, DMCORE_OP_READ, 10);
	cr_assert_eq(fault_count(disks[1], 0), 1);
}

/* One request is stuck below: the suspension is given up, and delays are as before. */
Test(delay, suspension_that_is_given_up_restores_delays)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 delay " A " 0 1000");
	struct tally tally = { 0 };

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .times = 1 });
	submit(bdev, DMCORE_OP_READ, &tally);
	submit(bdev, DMCORE_OP_READ, &tally);
	cr_assert_eq(dmcore_device_suspend(stage.devices[0], 0, 0), -ETIMEDOUT);
	stage_settle(&stage);
	cr_assert_eq(fault_num_held(disk), 1);
	cr_assert_eq(tally.ended, 1);
	expect_delay(bdev, DMCORE_OP_READ, 1000);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 2);
	expect_delay(bdev, DMCORE_OP_WRITE, 1000);
}

/* ---- waiting ---- */

/* With the real clock: a poll that waits sleeps until then, and no longer than that for ever. */
Test(delay_line, poll_and_plain_calls_wait_for_it)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 64 delay " A " 0 20");
	uint64_t begun_ns = stage_now_ns();

	cr_assert_eq(fixture_run(&(struct fixture_io){ .bdev = bdev,
						       .op = DMCORE_OP_READ,
						       .count = 8,
						       .buffer = buffer }), 0);
	cr_assert_geq(stage_now_ns() - begun_ns, 20 * NS_PER_MS);
	begun_ns = stage_now_ns();
	cr_assert_eq(dmcore_pwrite(bdev, buffer, 4096, 0), 0);
	cr_assert_geq(stage_now_ns() - begun_ns, 20 * NS_PER_MS);
}

Test(delay_line, descriptor_of_the_queue_is_readable_then)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 64 delay " A " 0 20");
	struct pollfd entry = { .fd = dmcore_queue_fd(fixture.queue), .events = POLLIN };
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);
	struct tally tally = { 0 };
	uint64_t begun_ns = stage_now_ns();

	cr_assert_geq(entry.fd, 0);
	bio->bdev = bdev;
	dmcore_bio_set_buffer(bio, buffer, 4096);
	bio->done = tally_done;
	bio->context = &tally;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	while (tally.ended == 0) {
		cr_assert_eq(dmcore_queue_kick(fixture.queue), 0);
		cr_assert_eq(poll(&entry, 1, 20000), 1);
		cr_assert_geq(dmcore_queue_poll(fixture.queue, 0, 64, 0), 0);
	}
	cr_assert_geq(stage_now_ns() - begun_ns, 20 * NS_PER_MS);
	cr_assert_eq(tally.status, 0);
}

Test(delay_line, queue_that_is_destroyed_waits_for_what_it_holds)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 64 delay " A " 0 20");
	struct tally tally = { 0 };
	struct dmcore_queue *queue;
	struct dmcore_bio *bio;

	cr_assert_eq(dmcore_queue_create(fixture.core, NULL, &queue), 0);
	bio = dmcore_bio_get(queue);
	bio->bdev = bdev;
	dmcore_bio_set_buffer(bio, buffer, 4096);
	bio->done = tally_done;
	bio->context = &tally;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0, "%s", dmcore_error_message());
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, 0);
}
