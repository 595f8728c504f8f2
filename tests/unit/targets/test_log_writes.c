/* SPDX-License-Identifier: MIT */
/*
 * The log-writes target: its table line, messages and status, what its log says and in which order.
 * test_log_writes_memory.c: its memory, threads, and a service that is polled by hand.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/logread.h"
#include "support/stage.h"

#define END " m:dm-log-writes-end"
#define SECTORS 256
#define LOG_SECTORS 512

static struct stage stage;
static struct fault_disk *disk;
static struct fault_disk *log_disk;
static struct dmcore_bdev *log_bdev;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static unsigned char data[8 * DMCORE_SECTOR_BYTES];

static void open_stage(void)
{
	stage_open(&stage, NULL, NULL);
	disk = stage_disk(&stage, 1, SECTORS, "");
	log_disk = stage_disk(&stage, 2, LOG_SECTORS, "");
	log_bdev = stage.bdevs[1];
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(log_writes, .init = open_stage, .fini = close_stage);

/* ---- what all of them do ---- */

static void make(const char *text)
{
	bdev = stage_map(&stage, "t", text);
	device = stage.devices[stage.num_devices - 1];
}

static void make_plain(void)
{
	char text[128];

	snprintf(text, sizeof(text), "0 %d log-writes %s %s", SECTORS,
		 stage_disk_spec(1, SECTORS, ""), stage_disk_spec(2, LOG_SECTORS, ""));
	make(text);
}

static int run(enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count,
	       uint32_t version)
{
	pattern_fill(data, sector, count, version);
	return stage_run(&stage, bdev, op, flags, sector, count,
			 op == DMCORE_OP_WRITE ? data : NULL);
}

static void write_plain(uint64_t sector, uint32_t version)
{
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, sector, 1, version), 0);
}

static void write_fua(uint64_t sector, uint32_t version)
{
	cr_assert_eq(run(DMCORE_OP_WRITE, DMCORE_BIO_FUA, sector, 1, version), 0);
}

static void flush(void)
{
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
}

static int message(const char *text)
{
	return (int)dmcore_device_message(device, 0, text, NULL, 0);
}

static void mark(const char *text)
{
	char whole[600];

	snprintf(whole, sizeof(whole), "mark %s", text);
	cr_assert_eq(message(whole), 0, "%s", dmcore_error_message());
}

static const char *status_text(void)
{
	static char text[256];
	int64_t ret = dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text, sizeof(text));

	cr_assert(ret > 0 && ret < (int64_t)sizeof(text));
	text[strcspn(text, "\n")] = '\0';
	return strstr(text, "log-writes ") + strlen("log-writes ");
}

/* The service is at work on another thread. */
static void await_status(const char *text)
{
	uint64_t until = stage_now_ns() + STAGE_PATIENCE_NS;

	while (strcmp(status_text(), text) != 0 && stage_now_ns() < until)
		stage_sleep_ns(1000000);
	cr_assert_str_eq(status_text(), text);
}

/* The whole log, of the device suspended. */
static void expect_log(const char *text)
{
	actor_suspend(device, 0);
	cr_assert_str_eq(logread_text(log_bdev), text, "'%s'", logread_text(log_bdev));
	actor_resume(device);
}

/* ---- table line ---- */

static void expect_refused(const char *params, int error, const char *message_text)
{
	struct dmcore_table *table;
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 64 log-writes %s", params);
	snprintf(whole, sizeof(whole), "table line 1: log-writes: %s", message_text);
	cr_assert_eq(dmcore_table_parse(stage.core, text, 0, &table), error, "%s", text);
	cr_assert_str_eq(dmcore_error_message(), whole);
}

Test(log_writes, names_what_is_wrong_in_the_kernels_order)
{
	expect_refused("", -EINVAL, "Invalid argument count");
	expect_refused("/nonexistent", -EINVAL, "Invalid argument count");
	expect_refused("/nonexistent /nowhere", -ENOENT,
		       "Device lookup failed: /nonexistent: No such file or directory (ENOENT)");
	expect_refused("fault:256,id=1 /nowhere", -ENOENT,
		       "Log device lookup failed: /nowhere: No such file or directory (ENOENT)");
}

/* D-072 and D-073 in docs/conformance.md: the kernel takes them. */
Test(log_writes, refuses_a_log_device_that_can_hold_no_log_of_it)
{
	expect_refused("fault:256,id=1 fault:256,id=1", -EINVAL,
		       "The log device is the device itself");
	expect_refused("fault:256,id=1 fault:512,id=4k,block=4096", -EINVAL,
		       "The log device has larger blocks than the device");
}

Test(log_writes, prints_a_table_line_that_it_takes)
{
	char text[256];

	make("0 64 log-writes fault:256,id=1 fault:512,id=2 and more");
	cr_assert_gt(dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, text, sizeof(text)), 0);
	cr_assert_str_eq(text, "0 64 log-writes fault:256,id=1 fault:512,id=2\n");
}

/* ---- messages and status ---- */

Test(log_writes, refuses_other_messages_with_the_kernels_words)
{
	static const char count[] =
		"t: log-writes: Invalid log-writes message arguments, expect 2 arguments";

	make_plain();
	cr_assert_eq(message("mark"), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), count);
	cr_assert_eq(message("mark two words"), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(), count);
	cr_assert_eq(message("foo bar"), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(),
			 "t: log-writes: Unrecognised log writes target message received");
	cr_assert_eq(message("MARK one"), 0);
	expect_log("m:one" END);
}

Test(log_writes, long_mark_is_cut)
{
	char text[600];

	make_plain();
	memset(text, 'x', sizeof(text));
	text[599] = '\0';
	mark(text);
	text[479] = '\0';
	mark(text);
	text[478] = '\0';
	mark(text);
	actor_suspend(device, 0);
	cr_assert_eq(strspn(logread_text(log_bdev), "m:x"), 2 + 479);
	cr_assert_eq(strspn(logread_text(log_bdev) + 2 + 479 + 1, "m:x"), 2 + 479);
	cr_assert_eq(strspn(logread_text(log_bdev) + 2 * (2 + 479 + 1), "m:x"), 2 + 478);
}

/* The numbers are what the kernel showed for the same requests. */
Test(log_writes, status_counts_what_is_in_the_log)
{
	make_plain();
	cr_assert_str_eq(status_text(), "0 0");
	write_plain(3, 0);
	write_plain(5, 0);
	mark("one");
	await_status("1 1");
	write_plain(7, 0);
	flush();
	await_status("5 8");
	write_fua(9, 0);
	await_status("6 10");
	flush();
	await_status("7 11");
	cr_assert_eq(run(DMCORE_OP_DISCARD, 0, 16, 8, 0), 0);
	write_plain(11, 0);
	actor_suspend(device, 0);
	cr_assert_str_eq(status_text(), "7 11");
	actor_resume(device);
	cr_assert_str_eq(status_text(), "7 11");
	expect_log("m:one w3 w5 w7 F wf9 F d16+8 w11" END);
}

/* ---- order ---- */

/* Holds a request of the device, which is to be the one of this place. */
static void submit_held(enum dmcore_op op, uint64_t sector, uint32_t version, struct tally *tally)
{
	static unsigned char held[8][DMCORE_SECTOR_BYTES];
	unsigned int index = fault_num_held(disk);
	void *buffer = op == DMCORE_OP_WRITE ? held[index % 8] : NULL;

	if (buffer)
		pattern_fill(buffer, sector, 1, version);
	stage_submit(&stage, bdev, op, sector, op == DMCORE_OP_FLUSH ? 0 : 1, buffer, tally);
	stage_settle(&stage);
	cr_assert_eq(fault_num_held(disk), index + 1);
}

static void release(unsigned int index, int status)
{
	fault_release(disk, index, status);
	stage_settle(&stage);
}

/* The kernel's own example: what a flush covers is what had completed when it was submitted. */
Test(log_writes, flush_takes_along_what_had_completed_when_it_was_submitted)
{
	struct tally tally = { 0 };

	make_plain();
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	submit_held(DMCORE_OP_WRITE, 1, 0, &tally);
	submit_held(DMCORE_OP_WRITE, 2, 0, &tally);
	submit_held(DMCORE_OP_WRITE, 3, 0, &tally);
	release(2, 0);
	release(1, 0);
	submit_held(DMCORE_OP_FLUSH, 0, 0, &tally);
	release(0, 0);
	release(0, 0);
	stage_wait(&stage, &tally, 4);
	cr_assert_eq(tally.failed, 0);
	fault_clear_rules(disk);
	expect_log("w3 w2 F w1" END);
}

Test(log_writes, flushes_under_way_have_each_their_own_writes)
{
	struct tally tally = { 0 };

	make_plain();
	write_plain(1, 0);
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .ops = FAULT_FLUSH });
	submit_held(DMCORE_OP_FLUSH, 0, 0, &tally);
	write_plain(2, 0);
	submit_held(DMCORE_OP_FLUSH, 0, 0, &tally);
	write_plain(3, 0);
	release(1, 0);
	await_status("2 3");
	release(0, 0);
	stage_wait(&stage, &tally, 2);
	await_status("4 6");
	fault_clear_rules(disk);
	expect_log("w2 F w1 F w3" END);
}

Test(log_writes, fua_is_logged_when_it_completes)
{
	make_plain();
	write_plain(1, 0);
	write_fua(2, 0);
	await_status("1 2");
	/* And counted by the super block. */
	logread_await(log_bdev, 1);
	cr_assert_str_eq(logread_text(log_bdev), "wf2");
	expect_log("wf2 w1" END);
}

Test(log_writes, preflush_is_a_flush_and_a_write)
{
	make_plain();
	write_plain(1, 0);
	cr_assert_eq(run(DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 2, 1, 0), 0);
	expect_log("w1 F wf2" END);
}

Test(log_writes, copies_are_of_the_time_of_submission)
{
	struct tally tally = { 0 };
	static unsigned char buffer[DMCORE_SECTOR_BYTES];

	make_plain();
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	pattern_fill(buffer, 1, 1, 3);
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 1, 1, buffer, &tally);
	stage_settle(&stage);
	release(0, 0);
	stage_wait(&stage, &tally, 1);
	memset(buffer, 0, sizeof(buffer));
	fault_clear_rules(disk);
	expect_log("w1/3" END);
}

Test(log_writes, reads_are_not_logged_and_zeroes_not_taken)
{
	make_plain();
	write_plain(1, 2);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 1, 1, data), 0);
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 0, 1, 1, 0), -EOPNOTSUPP);
	expect_log("w1/2" END);
}

/* Assertion 85. */
Test(log_writes, without_a_flush_a_write_is_not_in_the_log_and_fua_is)
{
	make_plain();
	write_plain(1, 0);
	write_fua(2, 0);
	mark("promise");
	write_plain(3, 0);
	flush();
	write_plain(4, 0);
	mark("end");
	await_status("6 9");
	/* As a crash would leave it: nothing is suspended or removed. */
	logread_await(log_bdev, 6);
	cr_assert_str_eq(logread_text(log_bdev), "wf2 m:promise w1 w3 F m:end");
}

/* ---- places and sizes ---- */

/* Assertion 41, and D-070 in docs/conformance.md. */
Test(log_writes, counts_from_the_start_of_the_target)
{
	make("0 8 zero\n8 64 log-writes fault:256,id=1 fault:512,id=2");
	pattern_fill(data, 2, 1, 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 10, 1, data), 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 12, 4, NULL), 0);
	cr_assert_eq(fault_logged(disk, 0).sector, 2);
	cr_assert_eq(fault_logged(disk, 1).sector, 4);
	expect_log("w2 d4+4" END);
}

Test(log_writes, block_of_the_log_is_that_of_the_device)
{
	struct dmcore_logwrites_super super;

	make("0 64 log-writes fault:256,id=4k,block=4096 fault:512,id=2");
	pattern_fill(data, 8, 8, 1);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 8, 8, data), 0);
	flush();
	mark("hello");
	await_status("3 39");
	expect_log("w8+8/1 F m:hello" END);
	super = logread_super(log_bdev);
	cr_assert_eq(super.block_bytes, 4096);
}

Test(log_writes, long_write_is_logged_in_pieces_of_a_mebibyte)
{
	static unsigned char large[3000 * DMCORE_SECTOR_BYTES];

	log_bdev = stage_bdev(&stage, "fault:8192,id=large", 0);
	stage_disk(&stage, 4, 8192, "");
	make("0 8192 log-writes fault:8192,id=4 fault:8192,id=large");
	pattern_fill(large, 100, 3000, 5);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 100, 3000, large), 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 100, 3000, NULL), 0);
	expect_log("w100+1948/5 w2048+1052/5 d100+3000" END);
}

Test(log_writes, discard_succeeds_where_the_device_has_none)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	/* DMCORE_CAP_FUA alone. */
	make("0 64 log-writes fault:64,id=plain,caps=2 fault:512,id=2");
	cr_assert_eq(dmcore_bdev_limits(bdev, &limits), 0);
	cr_assert(limits.caps & DMCORE_CAP_DISCARD);
	cr_assert_eq(limits.discard_granularity_bytes, 512);
	cr_assert_eq(run(DMCORE_OP_DISCARD, 0, 16, 8, 0), 0);
	cr_assert_eq(fault_count(fault_disk_of(stage_bdev(&stage, "fault:64,id=plain,caps=2", 0)),
				 FAULT_DISCARD), 0);
	expect_log("d16+8" END);
}

/* ---- failures ---- */

/* D-071 in docs/conformance.md. */
Test(log_writes, what_failed_is_logged_without_its_promise)
{
	make_plain();
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_FAIL, .status = -EIO });
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 1, 1, 0), -EIO);
	cr_assert_eq(run(DMCORE_OP_WRITE, DMCORE_BIO_FUA, 2, 1, 0), -EIO);
	cr_assert_eq(run(DMCORE_OP_FLUSH, 0, 0, 0, 0), -EIO);
	fault_clear_rules(disk);
	write_plain(3, 0);
	flush();
	expect_log("w1 w2 w3 F" END);
}

Test(log_writes, failed_flush_gives_back_what_it_took_in_order)
{
	struct tally tally = { 0 };

	make_plain();
	write_plain(1, 0);
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .ops = FAULT_FLUSH });
	submit_held(DMCORE_OP_FLUSH, 0, 0, &tally);
	write_plain(2, 0);
	release(0, -EIO);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 1);
	fault_clear_rules(disk);
	write_plain(3, 0);
	flush();
	expect_log("w1 w2 w3 F" END);
}

Test(log_writes, failing_log_device_ends_logging_and_nothing_else)
{
	make_plain();
	write_fua(1, 0);
	await_status("1 2");
	fault_add_rule(log_disk, &(struct fault_rule){ .action = FAULT_FAIL, .status = -EIO });
	write_fua(2, 0);
	await_status("2 4 logging_disabled");
	write_plain(3, 0);
	flush();
	cr_assert_eq(message("mark late"), 0);
	fault_clear_rules(log_disk);
	write_fua(4, 0);
	actor_suspend(device, 0);
	actor_resume(device);
	cr_assert_str_eq(status_text(), "2 4 logging_disabled");
	cr_assert_str_eq(logread_text(log_bdev), "wf1");
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 4, 1, data), 0);
	cr_assert_eq(pattern_differs(data, 4, 1, 0), -1);
}

/* The numbers are what the kernel showed with a log of 12 and of 13 sectors. */
static void expect_full(const char *log_spec, const char *status)
{
	char text[128];

	snprintf(text, sizeof(text), "0 64 log-writes fault:256,id=1 %s", log_spec);
	make(text);
	for (uint64_t i = 1; i <= 4; i++) {
		write_fua(i, 0);
		flush();
	}
	await_status(status);
	write_fua(5, 0);
	flush();
	cr_assert_str_eq(status_text(), status);
}

Test(log_writes, full_log_ends_logging)
{
	expect_full("fault:12,id=3", "6 11 logging_disabled");
}

Test(log_writes, log_that_is_full_to_the_last_block_but_one_ends_logging)
{
	expect_full("fault:13,id=3", "7 12 logging_disabled");
}

/* ---- suspended, replaced, removed ---- */

/* D-074 in docs/conformance.md. */
Test(log_writes, suspended_device_has_a_whole_log_that_goes_on_after_it)
{
	make_plain();
	write_plain(1, 0);
	flush();
	write_plain(2, 0);
	actor_suspend(device, 0);
	/* And is durable. */
	cr_assert_eq(fault_logged(log_disk, fault_num_logged(log_disk) - 1).op, DMCORE_OP_FLUSH);
	cr_assert_str_eq(logread_text(log_bdev), "w1 F w2" END);
	mark("meanwhile");
	cr_assert_str_eq(logread_text(log_bdev), "w1 F m:meanwhile w2" END);
	actor_resume(device);
	write_fua(3, 0);
	await_status("4 6");
	flush();
	await_status("6 9");
	expect_log("w1 F m:meanwhile wf3 w2 F" END);
}

Test(log_writes, resumed_log_is_not_ended_any_more)
{
	make_plain();
	write_fua(1, 0);
	actor_suspend(device, 0);
	cr_assert_eq(logread_super(log_bdev).num_entries, 2);
	actor_resume(device);
	logread_await(log_bdev, 1);
	cr_assert_str_eq(logread_text(log_bdev), "wf1");
}

Test(log_writes, log_is_empty_from_the_first_resume_on)
{
	memset(data, 0xff, sizeof(data));
	cr_assert_eq(dmcore_pwrite(log_bdev, data, sizeof(data), 0), 0);
	make_plain();
	logread_await(log_bdev, 0);
	write_plain(1, 0);
	flush();
	await_status("2 3");
	cr_assert_eq(logread_super(log_bdev).num_entries, 0);
	expect_log("w1 F" END);
}

Test(log_writes, table_that_never_ran_leaves_the_log_device_alone)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(stage.core,
					"0 64 log-writes fault:256,id=1 fault:512,id=2", 0,
					&table), 0);
	dmcore_table_destroy(table);
	cr_assert_eq(fault_num_logged(log_disk), 0);
}

Test(log_writes, table_that_replaces_another_begins_a_log_of_its_own)
{
	stage_disk(&stage, 3, LOG_SECTORS, "");
	make_plain();
	write_fua(1, 0);
	write_plain(2, 0);
	actor_load(device, "0 256 log-writes fault:256,id=1 fault:512,id=3");
	actor_resume(device);
	write_plain(4, 0);
	cr_assert_str_eq(logread_text(log_bdev), "wf1 w2" END);
	log_bdev = stage.bdevs[2];
	expect_log("w4" END);
}

Test(log_writes, log_that_is_begun_again_on_the_same_device_is_not_harmed_by_the_old_one)
{
	make_plain();
	write_fua(1, 0);
	write_plain(2, 0);
	actor_reload(device, "0 256 log-writes fault:256,id=1 fault:512,id=2");
	write_plain(4, 0);
	flush();
	mark("new");
	expect_log("w4 F m:new" END);
}

Test(log_writes, removal_ends_the_log)
{
	make_plain();
	write_plain(1, 0);
	flush();
	write_plain(2, 0);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_str_eq(logread_text(log_bdev), "w1 F w2" END);
}

Test(log_writes, log_on_a_suspended_device_goes_on_when_that_is_resumed)
{
	struct dmcore_device *below;

	stage_map(&stage, "below", "0 512 linear fault:512,id=2 0");
	below = stage.devices[0];
	make("0 64 log-writes fault:256,id=1 below");
	write_fua(1, 0);
	logread_await(log_bdev, 1);
	await_status("1 2");
	write_plain(2, 0);
	actor_suspend(below, 0);
	actor_suspend(device, 0);
	mark("kept");
	actor_resume(device);
	actor_resume(below);
	await_status("2 3");
	expect_log("wf1 m:kept w2" END);
}
