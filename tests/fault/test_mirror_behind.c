/* SPDX-License-Identifier: MIT */
/*
 * Mirrors with a leg that gets writes later than the others: what is acknowledged without it, in
 * what order it gets that, how much may be behind, and who waits for it all the same.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define REGION 3u
#define SECTOR (REGION * MIRRORS_REGION_SECTORS + 2u)
#define COUNT 4u
#define LAST 1u

static const struct mirrors_table two_legs = { .legs = "01", .disk = true,
					       .features = "3 write_behind 1 64" };

TestSuite(mirror_behind, .init = mirrors_open, .fini = mirrors_close);

/* ---- helpers ---- */

static void hold(unsigned int ops)
{
	fault_add_rule(mirrors.disks[LAST], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = ops });
}

static void let_go(void)
{
	fault_clear_rules(mirrors.disks[LAST]);
	fault_release_all(mirrors.disks[LAST]);
	mirrors_settle();
}

static unsigned int num_held(void)
{
	return fault_num_held(mirrors.disks[LAST]);
}

static void pass_sweeps(void)
{
	for (unsigned int i = 0; i < 3; i++)
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
}

static void expect_behind(const char *expected)
{
	char reply[64];
	int64_t ret = dmcore_device_message(mirrors.device, 0, "behind", reply, sizeof(reply));

	cr_assert_geq(ret, 0, "%s", dmcore_error_message());
	cr_assert_str_eq(reply, expected);
}

static void start(enum dmcore_op op, uint64_t sector, uint64_t count, void *data,
		  struct tally *tally)
{
	struct dmcore_bio *bio =
		stage_bio(&mirrors.stage, mirrors.bdev, op, sector, count, data, tally);

	cr_assert_eq(dmcore_bio_submit(bio), 0);
	mirrors_settle();
}

static void map_slow(const struct mirrors_table *table)
{
	mirrors_map(table);
	hold(FAULT_WRITE);
}

/* What a failing assertion leaves held would keep the mirror from being removed. */
static void check_after_let_go(bool held, const char *what)
{
	let_go();
	cr_assert(held, "%s", what);
}

/* ---- what is acknowledged ---- */

Test(mirror_behind, writes_are_acknowledged_without_the_leg_that_lags)
{
	bool clean;

	map_slow(&two_legs);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_expect_disk(0, SECTOR, COUNT, 1);
	mirrors_expect_disk(LAST, SECTOR, COUNT, 0);
	mirrors_expect(SECTOR, COUNT, 1);
	expect_behind("behind 1 8 64");
	pass_sweeps();
	clean = mirrors_is_clean(REGION);
	check_after_let_go(!clean, "it is clean though a leg lacks it");
	mirrors_expect_disk(LAST, SECTOR, COUNT, 1);
	expect_behind("behind 0 0 64");
	pass_sweeps();
	cr_assert(mirrors_is_clean(REGION));
}

Test(mirror_behind, overlapping_writes_reach_the_leg_one_by_one_in_their_order)
{
	unsigned int held;

	map_slow(&two_legs);
	for (uint32_t version = 1; version <= 5; version++)
		mirrors_write(SECTOR + version % 2, COUNT, version);
	mirrors_write(SECTOR + 30, COUNT, 6);
	held = num_held();
	/* The one that overlaps none doesn't wait. */
	cr_assert_eq(held, 2, "%u", held);
	for (unsigned int i = 0; i < 5; i++) {
		fault_release(mirrors.disks[LAST], 0, 0);
		mirrors_settle();
	}
	let_go();
	mirrors_expect_same(0, LAST);
	mirrors_expect_disk(LAST, SECTOR + 1, COUNT, 5);
	expect_behind("behind 0 0 64");
}

Test(mirror_behind, no_more_is_behind_than_the_table_says)
{
	static const struct mirrors_table table = { .legs = "01",  .sync = "nosync",
						    .features = "3 write_behind 1 16" };
	struct tally tally = { 0 };
	bool waits;

	map_slow(&table);
	mirrors_write(0, COUNT, 1);
	mirrors_write(16, COUNT, 2);
	expect_behind("behind 2 16 16");
	mirrors_start(0, 32, COUNT, 3, &tally);
	mirrors_start(0, 48, COUNT, 4, &tally);
	mirrors_settle();
	waits = tally.ended == 0;
	fault_release(mirrors.disks[LAST], 0, 0);
	mirrors_settle();
	/* First come, first served. */
	waits = waits && tally.ended == 1;
	mirrors_expect_disk(0, 32, COUNT, 3);
	check_after_let_go(waits, "they don't wait for room");
	mirrors_wait(&tally, 2);
	mirrors_settle();
	mirrors_expect_same(0, LAST);
}

Test(mirror_behind, requests_are_no_longer_than_what_may_be_behind)
{
	static const struct mirrors_table table = { .legs = "01",  .sync = "nosync",
						    .features = "3 write_behind 1 8" };

	mirrors_map(&table);
	mirrors_write(3, 60, 1);
	mirrors_settle();
	mirrors_expect_same(0, LAST);
	mirrors_expect_disk(LAST, 3, 60, 1);
	cr_assert_geq(fault_count(mirrors.disks[LAST], FAULT_WRITE), 8);
}

/* ---- who waits for the leg ---- */

Test(mirror_behind, discards_and_zeroes_wait_for_writes_that_they_overlap)
{
	static const enum dmcore_op ops[] = { DMCORE_OP_DISCARD, DMCORE_OP_WRITE_ZEROES };

	mirrors_map(&two_legs);
	for (unsigned int i = 0; i < 2; i++) {
		struct tally other = { 0 };
		struct tally tally = { 0 };
		bool waits;

		hold(FAULT_WRITE);
		mirrors_write(SECTOR, COUNT, i + 1);
		start(ops[i], SECTOR + COUNT, 2, NULL, &other);
		start(ops[i], SECTOR + 1, 2, NULL, &tally);
		waits = other.ended == 1 && tally.ended == 0;
		check_after_let_go(waits, "one waits that needn't, or the other doesn't");
		mirrors_wait(&tally, 1);
		cr_assert_eq(tally.status, 0);
		mirrors_expect_same(0, LAST);
	}
}

Test(mirror_behind, flushes_wait_only_when_another_leg_has_failed)
{
	static const struct mirrors_table table = {
		.legs = "012", .disk = true, .features = "3 write_behind 1 64",
	};
	struct tally tally = { 0 };
	bool waits;

	map_slow(&table);
	mirrors_write(SECTOR, COUNT, 1);
	cr_assert_eq(mirrors_flush(), 0);
	cr_assert_eq(fault_count(mirrors.disks[LAST], FAULT_FLUSH), 0);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 1);
	cr_assert_eq(mirrors_try_read(SECTOR + 64, COUNT), 0);
	start(DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	waits = tally.ended == 0;
	check_after_let_go(waits, "it doesn't");
	mirrors_wait(&tally, 1);
	cr_assert_gt(fault_count(mirrors.disks[LAST], FAULT_FLUSH), 0);
}

Test(mirror_behind, reads_come_from_the_leg_that_lags_when_it_has_all_and_no_other_is_left)
{
	static unsigned char data[COUNT * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };
	bool waits;

	map_slow(&two_legs);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 0);
	start(DMCORE_OP_READ, SECTOR, COUNT, data, &tally);
	waits = tally.ended == 0;
	check_after_let_go(waits, "it read what the leg had before");
	mirrors_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	cr_assert_lt(pattern_differs(data, SECTOR, COUNT, 1), 0);
	mirrors_expect(SECTOR, COUNT, 1);
}

Test(mirror_behind, a_suspension_waits_until_the_leg_has_all)
{
	map_slow(&two_legs);
	mirrors_write(SECTOR, COUNT, 1);
	fault_clear_rules(mirrors.disks[LAST]);
	fault_release_all(mirrors.disks[LAST]);
	/* No poll has seen that yet. */
	expect_behind("behind 1 8 64");
	mirrors_suspend(0);
	expect_behind("behind 0 0 64");
	mirrors_expect_same(0, LAST);
	for (unsigned int region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert(mirrors_is_clean(region), "%u", region);
	mirrors_resume();
}

/* ---- failures ---- */

Test(mirror_behind, what_the_leg_fails_is_out_of_sync_and_recovered)
{
	mirrors_map(&two_legs);
	mirrors_fail(mirrors.disks[LAST], FAULT_WRITE, 0, 12);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS - 1, "AD", "A");
	cr_assert_not(mirrors_is_clean(REGION));
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_await_in_sync();
	mirrors_expect_disk(LAST, SECTOR, COUNT, 1);
	mirrors_expect_same(0, LAST);
}

Test(mirror_behind, nothing_is_behind_while_a_leg_has_failed)
{
	static const struct mirrors_table table = { .legs = "012", .sync = "nosync",
						    .features = "3 write_behind 1 64" };
	struct tally tally = { 0 };
	bool waits;

	mirrors_map(&table);
	mirrors_fail(mirrors.disks[2], FAULT_WRITE, 0, 1000);
	mirrors_write(SECTOR, COUNT, 1);
	hold(FAULT_WRITE);
	mirrors_start(0, SECTOR + 64, COUNT, 2, &tally);
	mirrors_settle();
	waits = tally.ended == 0;
	check_after_let_go(waits, "it doesn't wait for that leg");
	mirrors_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	fault_clear_rules(mirrors.disks[2]);
	mirrors_await_in_sync();
	hold(FAULT_WRITE);
	mirrors_write(SECTOR, COUNT, 3);
	let_go();
	mirrors_expect_same(0, LAST);
	mirrors_expect_same(0, 2);
}

Test(mirror_behind, a_leg_that_lags_never_takes_the_place_of_the_first_before_it_has_all)
{
	static const struct mirrors_table table = {
		.legs = "01", .disk = true,
		.features = "5 handle_errors keep_log write_behind 1 64",
	};
	static unsigned char data[COUNT * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };
	bool waits;

	map_slow(&table);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 1);
	/* A read that leg 0 fails waits for the other one, which then fails what was behind. */
	start(DMCORE_OP_READ, SECTOR + 64, COUNT, data, &tally);
	waits = tally.ended == 0;
	fault_clear_rules(mirrors.disks[LAST]);
	fault_release(mirrors.disks[LAST], 0, -EIO);
	check_after_let_go(waits, "it doesn't wait");
	mirrors_wait(&tally, 1);
	mirrors_await_in_sync();
	mirrors_expect_disk(0, SECTOR, COUNT, 1);
	mirrors_expect_same(0, LAST);
}

/* ---- words ---- */

Test(mirror_behind, words_that_will_not_do_are_refused)
{
	static const struct {
		const char *features;
		const char *text;
	} cases[] = {
		{ "1 write_behind", "write_behind requires a leg and sectors" },
		{ "2 write_behind 1", "write_behind requires a leg and sectors" },
		{ "3 write_behind 0 64", "Invalid leg of write_behind" },
		{ "3 write_behind 2 64", "Invalid leg of write_behind" },
		{ "3 write_behind x 64", "Invalid leg of write_behind" },
		{ "3 write_behind 1 7", "Invalid sectors of write_behind" },
		{ "3 write_behind 1 131073", "Invalid sectors of write_behind" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dmcore_table *table;
		char text[200];

		snprintf(text, sizeof(text), "0 256 mirror core 1 16 2 %s 0 %s 0 %s",
			 "fault:256,id=7", "fault:256,id=8", cases[i].features);
		cr_assert_eq(dmcore_table_parse(mirrors.stage.core, text, 0, &table), -EINVAL);
		cr_assert_not_null(strstr(dmcore_error_message(), cases[i].text), "%s: %s",
				   cases[i].features, dmcore_error_message());
	}
}

Test(mirror_behind, table_prints_the_words_that_made_it)
{
	static const struct mirrors_table table = {
		.legs = "01",
		.features = "6 write_behind 1 64 keep_log balance_reads handle_errors",
	};
	char text[256];

	mirrors_map(&table);
	cr_assert_gt(dmcore_device_text(mirrors.device, DMCORE_TEXT_TABLE, 0, text, sizeof(text)),
		     0);
	cr_assert_not_null(strstr(text, " 6 handle_errors keep_log balance_reads write_behind 1 "
					"64"), "%s", text);
}
