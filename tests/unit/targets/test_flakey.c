/* SPDX-License-Identifier: MIT */
/* The flakey target: its table line, its intervals, what fails. See test_flakey_corrupt.c too. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"
#include "support/stage.h"

#define DISK "fault:64,id=1"
#define NS_PER_S UINT64_C(1000000000)

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

TestSuite(flakey_line, .init = fixture_open, .fini = fixture_close);
TestSuite(flakey, .init = open_with_clock, .fini = close_with_clock);

/* ---- table line ---- */

static void expect_refused(const char *params, int error, const char *message)
{
	char text[512];
	char whole[512];

	snprintf(text, sizeof(text), "0 48 flakey %s", params);
	snprintf(whole, sizeof(whole), "table line 1: flakey: %s", message);
	fixture_expect_refused(text, error, whole);
}

static void expect_printed(const char *words, const char *printed)
{
	struct dmcore_table *table;
	char text[256];

	snprintf(text, sizeof(text), "0 48 flakey " DISK " 16 5 7%s", words);
	table = fixture_table(text);
	snprintf(text, sizeof(text), "0 48 flakey " DISK " 16 5 7%s\n", printed);
	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_TABLE), text);
	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_STATUS), "0 48 flakey \n");
	dmcore_table_destroy(table);
}

Test(flakey_line, names_what_is_wrong_in_the_kernels_order)
{
	expect_refused("", -EINVAL, "Invalid argument count");
	expect_refused("x x x", -EINVAL, "Invalid argument count");
	expect_refused("/nonexistent x x x x", -EINVAL, "Invalid device sector");
	expect_refused("/nonexistent 0 x x x", -EINVAL, "Invalid up interval");
	expect_refused("/nonexistent 0 5 x x", -EINVAL, "Invalid up interval");
	expect_refused("/nonexistent 0 0 0 x", -EINVAL, "Total (up + down) interval is zero");
	expect_refused("/nonexistent 0 4294967295 1 x", -EINVAL,
		       "Total (up + down) interval is zero");
	expect_refused("/nonexistent 0 4294967295 2 x", -EINVAL, "Interval overflow");
	expect_refused("/nonexistent 0 5 5 x", -EINVAL, "Invalid number of feature args");
	expect_refused("/nonexistent 0 5 5 1 bogus", -EINVAL,
		       "Unrecognised flakey feature requested");
	expect_refused("/nonexistent 0 5 5", -ENOENT,
		       "Device lookup failed: /nonexistent: No such file or directory (ENOENT)");
}

static void expect_feature_refused(const char *words, const char *message)
{
	char params[256];

	snprintf(params, sizeof(params), "/nonexistent 0 5 5 %s", words);
	expect_refused(params, -EINVAL, message);
}

Test(flakey_line, names_what_is_wrong_with_a_feature)
{
	static const char count[] = "Invalid number of feature args";
	static const char few[] = "Insufficient feature arguments";
	static const char random[] = "Invalid random corrupt argument";
	static const char byte[] = "Invalid corrupt bio byte";
	static const char mask[] = "Invalid corrupt bio flags mask";
	static const char direction[] = "Invalid corrupt bio direction (r or w)";
	static const char value[] = "Invalid corrupt value to write into bio byte (0-255)";
	static const char *const cases[][2] = {
		{ "11", count },
		{ "12 1 2 3 4 5 6 7 8 9 10 11 12", count },
		{ "2 error_writes", count },
		{ "2 error_reads error_reads", "Feature error_reads duplicated" },
		{ "2 drop_writes drop_writes", "Feature drop_writes duplicated" },
		{ "2 error_writes error_writes", "Feature error_writes duplicated" },
		{ "2 drop_writes error_writes",
		  "Feature error_writes conflicts with feature drop_writes" },
		{ "2 error_writes drop_writes",
		  "Feature drop_writes conflicts with feature error_writes" },
		{ "1 corrupt_bio_byte", "Feature corrupt_bio_byte requires parameters" },
		{ "1 corrupt_bio_byte 1 r 1 0", "Feature corrupt_bio_byte requires parameters" },
		{ "5 corrupt_bio_byte 0 r 1 0", byte },
		{ "5 corrupt_bio_byte x r 1 0", byte },
		{ "2 corrupt_bio_byte 1", direction },
		{ "5 corrupt_bio_byte 1 x 1 0", direction },
		{ "5 corrupt_bio_byte 1 read 1 0", direction },
		{ "3 corrupt_bio_byte 1 r", value },
		{ "5 corrupt_bio_byte 1 r 256 0", value },
		{ "4 corrupt_bio_byte 1 r 1", mask },
		{ "5 corrupt_bio_byte 1 r 1 x", mask },
		{ "2 corrupt_bio_byte 1 r 1 0", few },
		{ "4 corrupt_bio_byte 1 r 1 0 error_reads", few },
		{ "1 random_read_corrupt", "Feature random_read_corrupt requires a parameter" },
		{ "1 random_write_corrupt 5", "Feature random_write_corrupt requires a parameter" },
		{ "2 random_read_corrupt x", random },
		{ "2 random_read_corrupt 1000000001", random },
		{ "2 random_write_corrupt 1000000001", random },
		{ "6 drop_writes corrupt_bio_byte 1 w 1 0",
		  "drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set" },
		{ "6 corrupt_bio_byte 1 w 1 0 drop_writes",
		  "drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set" },
		{ "6 error_writes corrupt_bio_byte 1 W 1 0",
		  "error_writes is incompatible with corrupt_bio_byte with the WRITE flag set" },
		{ "2 bogus error_reads", "Unrecognised flakey feature requested" },
	};

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(cases); i++)
		expect_feature_refused(cases[i][0], cases[i][1]);
}

/* D-081 in docs/conformance.md: the kernel takes them. */
Test(flakey_line, refuses_numbers_that_wrap)
{
	expect_refused(DISK " 18446744073709551616 5 5", -EINVAL, "Invalid device sector");
	expect_refused(DISK " 0 4294967296 5", -EINVAL, "Invalid up interval");
	expect_refused(DISK " 0 5 4294967301", -EINVAL, "Invalid up interval");
	expect_refused(DISK " 0 5 5 4294967297 error_reads", -EINVAL,
		       "Invalid number of feature args");
	expect_refused(DISK " 0 5 5 5 corrupt_bio_byte 4294967297 r 1 0", -EINVAL,
		       "Invalid corrupt bio byte");
	expect_refused(DISK " 0 5 5 5 corrupt_bio_byte 1 r 1 4294967296", -EINVAL,
		       "Invalid corrupt bio flags mask");
	expect_refused(DISK " 0 5 5 2 random_read_corrupt 4294967301", -EINVAL,
		       "Invalid random corrupt argument");
}

Test(flakey_line, prints_its_features_in_an_order_of_its_own)
{
	expect_printed("", " 2 error_reads error_writes");
	expect_printed(" 0", " 2 error_reads error_writes");
	expect_printed(" 2 random_read_corrupt 0", " 2 error_reads error_writes");
	expect_printed(" 1 ERROR_READS", " 1 error_reads");
	expect_printed(" 01 error_writes", " 1 error_writes");
	expect_printed(" 2 drop_writes error_reads", " 2 error_reads drop_writes");
	expect_printed(" 5 corrupt_bio_byte 01 R 007 0012", " 5 corrupt_bio_byte 1 r 7 12");
	expect_printed(" 5 corrupt_bio_byte 4294967295 w 255 4294967295",
		       " 5 corrupt_bio_byte 4294967295 w 255 4294967295");
	expect_printed(" 10 corrupt_bio_byte 1 r 1 0 corrupt_bio_byte 2 w 1 0",
		       " 5 corrupt_bio_byte 2 w 1 0");
	expect_printed(" 4 random_write_corrupt 7 random_write_corrupt 8",
		       " 2 random_write_corrupt 8");
	expect_printed(" 3 random_write_corrupt 7 drop_writes",
		       " 3 drop_writes random_write_corrupt 7");
	expect_printed(" 11 random_write_corrupt 7 random_read_corrupt 1000000000 "
		       "corrupt_bio_byte 1 r 1 0 error_reads drop_writes",
		       " 11 error_reads drop_writes corrupt_bio_byte 1 r 1 0 "
		       "random_read_corrupt 1000000000 random_write_corrupt 7");
}

Test(flakey_line, words_behind_the_features_are_ignored)
{
	expect_printed(" 1 error_writes extra words", " 1 error_writes");
	expect_printed(" 0 error_writes", " 2 error_reads error_writes");
}

Test(flakey_line, intervals_may_be_zero_but_not_both)
{
	dmcore_table_destroy(fixture_table("0 48 flakey " DISK " 0 0 1"));
	dmcore_table_destroy(fixture_table("0 48 flakey " DISK " 0 1 0"));
	dmcore_table_destroy(fixture_table("0 48 flakey " DISK " 0 4294967295 0"));
}

/* ---- up and down ---- */

static void pass_ns(uint64_t ns)
{
	atomic_fetch_add(&now_ns, ns);
}

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	bool has_data = op <= DMCORE_OP_WRITE;

	return stage_run(&stage, bdev, op, 0, sector, count, has_data ? buffer : NULL);
}

Test(flakey, is_up_then_down_in_turns)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 3 2");

	for (unsigned int second = 0; second < 25; second++) {
		int expected = second % 5 >= 3 ? -EIO : 0;

		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), expected, "second %u", second);
		pass_ns(NS_PER_S - 1);
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), expected, "second %u", second);
		pass_ns(1);
	}
}

Test(flakey, without_a_down_interval_never_fails)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 1 0");

	for (unsigned int i = 0; i < 5; i++) {
		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
		pass_ns(NS_PER_S / 2);
	}
}

Test(flakey, without_an_up_interval_always_fails)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 0 1");

	for (unsigned int i = 0; i < 5; i++) {
		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
		pass_ns(NS_PER_S / 2);
	}
}

Test(flakey, longest_intervals_are_no_shorter)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 1 4294967294");

	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
	pass_ns(NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
	pass_ns(UINT64_C(4294967293) * NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
	pass_ns(NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
}

Test(flakey, counts_from_its_constructor_through_suspensions)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 3 2");

	pass_ns(2 * NS_PER_S);
	cr_assert_eq(dmcore_device_suspend(stage.devices[0], 0, -1), 0);
	pass_ns(NS_PER_S);
	cr_assert_eq(dmcore_device_resume(stage.devices[0]), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
	pass_ns(2 * NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
}

/* What passes in the up interval succeeds, however long the device takes. */
Test(flakey, decides_when_a_request_comes)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 1 100");
	struct tally tally = { 0 };

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .times = 2 });
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 8, buffer, &tally);
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 8, 8, buffer, &tally);
	pass_ns(NS_PER_S);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
}

/* ---- what becomes of each operation ---- */

/* Status, or that it succeeds without reaching the device. */
#define DROPPED 1

/* As the kernel's, for READ, WRITE, FLUSH and DISCARD. */
static const struct fate {
	const char *words;
	int expected[4];
} fates[] = {
	{ "", { -EIO, -EIO, -EIO, -EIO } },
	{ "0", { -EIO, -EIO, -EIO, -EIO } },
	{ "1 error_reads", { -EIO, 0, 0, 0 } },
	{ "1 error_writes", { 0, -EIO, -EIO, -EIO } },
	{ "1 drop_writes", { 0, DROPPED, DROPPED, DROPPED } },
	{ "2 error_reads drop_writes", { -EIO, DROPPED, DROPPED, DROPPED } },
	{ "2 error_reads error_writes", { -EIO, -EIO, -EIO, -EIO } },
	{ "5 corrupt_bio_byte 1 r 5 0", { 0, 0, 0, 0 } },
	{ "5 corrupt_bio_byte 1 w 5 0", { 0, 0, 0, 0 } },
	{ "6 error_reads corrupt_bio_byte 1 r 5 0", { -EIO, 0, 0, 0 } },
	{ "6 error_writes corrupt_bio_byte 1 r 5 0", { 0, -EIO, -EIO, -EIO } },
	{ "2 random_read_corrupt 1000000000", { 0, 0, 0, 0 } },
	{ "2 random_write_corrupt 1000000000", { 0, 0, 0, 0 } },
	{ "3 error_writes random_write_corrupt 1000000000", { 0, -EIO, -EIO, -EIO } },
	{ "3 drop_writes random_write_corrupt 1000000000", { 0, DROPPED, DROPPED, DROPPED } },
};

static void check_fate(const struct fate *fate, struct fault_disk *disk, struct dmcore_bdev *bdev,
		       enum dmcore_op op, bool down)
{
	int expected = down ? fate->expected[op] : 0;
	int ret;

	fault_clear_log(disk);
	ret = run(bdev, op, 0, op == DMCORE_OP_FLUSH ? 0 : 8);
	cr_assert_eq(ret, expected == DROPPED ? 0 : expected, "'%s', operation %d: %d",
		     fate->words, op, ret);
	cr_assert_eq(fault_count(disk, 0), expected == 0, "'%s', operation %d", fate->words, op);
}

Test(flakey, fails_drops_or_passes_as_its_features_say)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");

	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(fates); i++) {
		struct dmcore_bdev *bdev;
		char text[256];
		char name[16];

		snprintf(name, sizeof(name), "f%zu", i);
		snprintf(text, sizeof(text), "0 32 flakey " DISK " 16 1 1 %s", fates[i].words);
		bdev = stage_map(&stage, name, text);
		for (int op = DMCORE_OP_READ; op <= DMCORE_OP_DISCARD; op++)
			check_fate(&fates[i], disk, bdev, (enum dmcore_op)op, false);
		pass_ns(NS_PER_S);
		for (int op = DMCORE_OP_READ; op <= DMCORE_OP_DISCARD; op++)
			check_fate(&fates[i], disk, bdev, (enum dmcore_op)op, true);
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE_ZEROES, 0, 8), -EOPNOTSUPP);
	}
}

Test(flakey, dropped_write_leaves_the_device_as_it_was)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "f",
					     "0 64 flakey " DISK " 0 1 1 1 drop_writes");

	pattern_fill(buffer, 0, 8, 1);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	pass_ns(NS_PER_S);
	pattern_fill(buffer, 0, 8, 2);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(pattern_differs(fault_data(disk), 0, 8, 1), -1);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
	cr_assert_eq(pattern_differs(buffer, 0, 8, 1), -1);
}

Test(flakey, write_with_preflush_is_not_begun_if_the_flush_fails)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "f", "0 64 flakey " DISK " 0 0 1");

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 0, 8, buffer),
		     -EIO);
	cr_assert_eq(fault_count(disk, 0), 0);
}

Test(flakey, counts_sectors_from_its_own_start)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "f",
					     "0 7 zero\n7 32 flakey " DISK " 16 1 1\n");
	struct fault_entry entry;

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 10, 4), 0);
	entry = fault_logged(disk, 0);
	cr_assert_eq(entry.sector, 19);
	cr_assert_eq(entry.count, 4);
	pass_ns(NS_PER_S);
	/* The other target is never down. */
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 7), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
}

Test(flakey, stands_on_flakey)
{
	struct dmcore_bdev *bdev;

	stage_map(&stage, "low", "0 64 flakey " DISK " 0 1 3 1 error_reads");
	bdev = stage_map(&stage, "high", "0 64 flakey low 0 2 2 1 error_writes");
	pass_ns(NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), -EIO);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	pass_ns(NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), -EIO);
	pass_ns(2 * NS_PER_S);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
}
