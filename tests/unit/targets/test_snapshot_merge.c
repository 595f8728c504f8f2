/* SPDX-License-Identifier: MIT */
/* Snapshots that are merged into their origin: what is read and written meanwhile, what fails and
 * is begun anew, and snapshots that go on in the middle of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW
#define SNAPSHOT "snapshot " O " " C " P 8"
#define MERGE "snapshot-merge " O " " C " P 8"

static struct dmcore_bdev *snapshot;

static void open_snapshot(void)
{
	snapshots_open_manual();
	snapshot = snapshots_map("s", 512, SNAPSHOT);
}

TestSuite(merge, .init = open_snapshot, .fini = snapshots_close);
TestSuite(merges, .init = snapshots_open_manual, .fini = snapshots_close);

static void await_done(void)
{
	snapshots_await_status("s", "16/256 16");
}

/* Chunks 2, 20 and 4, 5: three steps, from the last to the first. */
static void write_three_runs(void)
{
	snapshots_write(snapshot, 16, 8, 1);
	snapshots_write(snapshot, 163, 3, 1);
	snapshots_write(snapshot, 32, 16, 1);
}

static void expect_three_runs(struct dmcore_bdev *bdev)
{
	snapshots_expect(bdev, 0, 16, 0);
	snapshots_expect(bdev, 16, 8, 1);
	snapshots_expect(bdev, 24, 8, 0);
	snapshots_expect(bdev, 32, 16, 1);
	snapshots_expect(bdev, 48, 115, 0);
	snapshots_expect(bdev, 163, 3, 1);
	snapshots_expect(bdev, 166, 346, 0);
}

static void hold(struct fault_disk *disk, unsigned int ops, uint64_t sector, uint64_t count)
{
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .ops = ops,
			.sector = sector, .count = count });
}

static void let_go(struct fault_disk *disk)
{
	fault_clear_rules(disk);
	fault_release_all(disk);
}

/* ---- all the way ---- */

Test(merge, writes_the_snapshot_to_its_origin)
{
	struct dmcore_bdev *origin;

	write_three_runs();
	snapshots_reload("s", 512, MERGE);
	await_done();
	expect_three_runs(snapshot);
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 0);
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 1);
	snapshots_reload("s", 512, "linear " O " 0");
	expect_three_runs(snapshot);
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	expect_three_runs(origin);
}

Test(merge, of_nothing_is_done_at_once)
{
	snapshots_reload("s", 512, MERGE);
	await_done();
	snapshots_expect(snapshot, 0, 512, 0);
	cr_assert_eq(fault_count(snapshots.origin, FAULT_WRITE), 0);
}

Test(merge, leaves_areas_behind_it)
{
	struct dmcore_bdev *bdev = snapshots_map("t", 512, "snapshot " O " fault:256,id=3 P 1");

	for (unsigned int i = 0; i < 100; i++)
		snapshots_write(bdev, 300 - 2 * i, 1, 7);
	snapshots_expect_status("t", "105/256 5");
	snapshots_reload("t", 512, "snapshot-merge " O " fault:256,id=3 P 1");
	snapshots_await_status("t", "2/256 2");
	for (unsigned int i = 0; i < 100; i++) {
		snapshots_expect_disk(snapshots.origin, 300 - 2 * i, 300 - 2 * i, 1, 7);
		snapshots_expect_disk(snapshots.origin, 301 - 2 * i, 301 - 2 * i, 1, 0);
	}
}

Test(merges, leave_alone_what_the_origin_has_behind_the_end_of_the_table)
{
	struct dmcore_bdev *origin = snapshots_map("o", 512, "snapshot-origin " O);

	snapshot = snapshots_map("s", 20, SNAPSHOT);
	snapshots_write(origin, 16, 2, 1);
	snapshots_write(origin, 20, 4, 2);
	snapshots_reload("s", 20, MERGE);
	await_done();
	snapshots_expect(origin, 16, 4, 0);
	snapshots_expect(origin, 20, 4, 2);
}

Test(merges, by_a_shorter_table_write_whole_chunks_behind_its_end)
{
	struct dmcore_bdev *origin = snapshots_map("o", 512, "snapshot-origin " O);

	snapshot = snapshots_map("s", 512, SNAPSHOT);
	snapshots_write(snapshot, 8, 32, 1);
	snapshots_reload("s", 20, MERGE);
	await_done();
	snapshots_expect(origin, 0, 8, 0);
	snapshots_expect(origin, 8, 12, 1);
	snapshots_expect(origin, 20, 4, 0);
	snapshots_expect(origin, 24, 16, 1);
	snapshots_expect(origin, 40, 8, 0);
}

Test(merges, of_a_last_chunk_write_what_there_is)
{
	struct fault_disk *origin = stage_disk(&snapshots.stage, 3, 21, "");

	snapshot = snapshots_map("s", 21, "snapshot fault:21,id=3 " C " P 8");
	snapshots_write(snapshot, 17, 4, 1);
	snapshots_reload("s", 21, "snapshot-merge fault:21,id=3 " C " P 8");
	await_done();
	snapshots_expect_disk(origin, 17, 17, 4, 1);
}

Test(merges, pass_over_entries_behind_the_end_of_the_origin)
{
	snapshots_put_header(snapshots.cow, 1, 1, 8);
	snapshots_put_entry(snapshots.cow, 0, 3, 2);
	snapshots_put_entry(snapshots.cow, 1, 1000, 3);
	pattern_fill(fault_data(snapshots.cow) + 16 * DMCORE_SECTOR_BYTES, 24, 8, 5);
	snapshot = snapshots_map("s", 512, MERGE);
	await_done();
	snapshots_expect(snapshot, 24, 8, 5);
}

Test(merges, of_an_invalid_snapshot_are_its_origin)
{
	snapshots_put_header(snapshots.cow, 0, 1, 8);
	snapshot = snapshots_map("s", 512, MERGE);
	snapshots_expect_status("s", "Invalid");
	snapshots_write(snapshot, 8, 8, 1);
	snapshots_expect(snapshot, 8, 8, 1);
	snapshots_expect_disk(snapshots.origin, 8, 8, 8, 1);
}

Test(merge, flushes_the_origin_before_entries_go)
{
	uint64_t written = 0;
	uint64_t flushed = 0;

	snapshots_write(snapshot, 16, 8, 1);
	snapshots_suspend("s");
	cr_assert_eq(snapshots_load("s", 512, MERGE), 0);
	fault_clear_log(snapshots.origin);
	fault_clear_log(snapshots.cow);
	cr_assert_eq(snapshots_resume("s"), 0);
	await_done();
	for (unsigned int i = 0; i < fault_num_logged(snapshots.origin); i++) {
		struct fault_entry entry = fault_logged(snapshots.origin, i);

		if (entry.op == DMCORE_OP_WRITE)
			written = entry.ended;
		if (entry.op == DMCORE_OP_FLUSH && entry.begun > written && written)
			flushed = entry.ended;
	}
	cr_assert_gt(flushed, 0);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.cow); i++) {
		struct fault_entry entry = fault_logged(snapshots.cow, i);

		if (entry.op == DMCORE_OP_WRITE)
			cr_assert_gt(entry.begun, flushed);
	}
}

/* ---- meanwhile ---- */

Test(merge, reads_and_writes_go_where_the_chunk_is)
{
	write_three_runs();
	/* The first step stands still: chunks 4 and 5. */
	hold(snapshots.origin, FAULT_WRITE, 32, 16);
	snapshots_reload("s", 512, MERGE);
	snapshots_await_held(snapshots.origin, 1);
	expect_three_runs(snapshot);
	/* One that is to be merged yet, one that has no exception. */
	snapshots_write(snapshot, 18, 2, 2);
	snapshots_write(snapshot, 300, 9, 2);
	snapshots_expect_disk(snapshots.origin, 18, 18, 2, 0);
	snapshots_expect_disk(snapshots.origin, 300, 300, 9, 2);
	let_go(snapshots.origin);
	await_done();
	snapshots_expect_disk(snapshots.origin, 16, 16, 2, 1);
	snapshots_expect_disk(snapshots.origin, 18, 18, 2, 2);
	snapshots_expect_disk(snapshots.origin, 20, 20, 4, 1);
	snapshots_expect_disk(snapshots.origin, 163, 163, 3, 1);
}

Test(merge, writes_to_what_is_being_merged_wait_and_go_to_the_origin)
{
	static unsigned char bytes[8 * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };
	unsigned int writes;

	write_three_runs();
	hold(snapshots.origin, FAULT_WRITE, 32, 16);
	snapshots_reload("s", 512, MERGE);
	snapshots_await_held(snapshots.origin, 1);
	pattern_fill(bytes, 36, 4, 2);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 36, 4, bytes, &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 0);
	snapshots_expect(snapshot, 32, 16, 1);
	writes = fault_count(snapshots.origin, FAULT_WRITE);
	let_go(snapshots.origin);
	snapshots_wait(&tally, 1);
	await_done();
	snapshots_expect_disk(snapshots.origin, 32, 32, 4, 1);
	snapshots_expect_disk(snapshots.origin, 36, 36, 4, 2);
	snapshots_expect_disk(snapshots.origin, 40, 40, 8, 1);
	/* Itself, and two steps. */
	cr_assert_eq(fault_count(snapshots.origin, FAULT_WRITE), writes + 3);
}

Test(merge, waits_for_writes_to_what_is_to_be_merged)
{
	static unsigned char bytes[8 * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	write_three_runs();
	hold(snapshots.origin, FAULT_WRITE, 32, 16);
	snapshots_reload("s", 512, MERGE);
	snapshots_await_held(snapshots.origin, 1);
	/* The next step is chunk 20, in chunk 3 of the COW device. */
	hold(snapshots.cow, FAULT_WRITE, 24, 8);
	pattern_fill(bytes, 163, 2, 2);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 163, 2, bytes, &tally);
	snapshots_await_held(snapshots.cow, 1);
	let_go(snapshots.origin);
	for (unsigned int i = 0; i < 100; i++)
		snapshots_settle();
	snapshots_expect_disk(snapshots.origin, 163, 163, 3, 0);
	let_go(snapshots.cow);
	snapshots_wait(&tally, 1);
	await_done();
	snapshots_expect_disk(snapshots.origin, 163, 163, 2, 2);
	snapshots_expect_disk(snapshots.origin, 165, 165, 1, 1);
}

Test(merge, other_snapshots_keep_their_past)
{
	struct dmcore_bdev *others[2];

	write_three_runs();
	others[0] = snapshots_map("a", 512, "snapshot " O " fault:1024,id=3 P 2");
	others[1] = snapshots_map("b", 512, "snapshot " O " fault:1024,id=4 P 64");
	hold(snapshots.origin, FAULT_WRITE, 32, 16);
	snapshots_reload("s", 512, MERGE);
	snapshots_await_held(snapshots.origin, 1);
	snapshots_write(snapshot, 300, 9, 2);
	snapshots_write(snapshot, 18, 1, 2);
	let_go(snapshots.origin);
	await_done();
	for (unsigned int i = 0; i < 2; i++)
		snapshots_expect(others[i], 0, 512, 0);
	snapshots_write(snapshot, 0, 64, 3);
	for (unsigned int i = 0; i < 2; i++)
		snapshots_expect(others[i], 0, 512, 0);
}

Test(merge, flushes_go_to_both_devices_and_discards_nowhere)
{
	write_three_runs();
	snapshots_reload("s", 512, "snapshot-merge " O " " C " P 8 1 discard_zeroes_cow");
	await_done();
	fault_clear_log(snapshots.origin);
	fault_clear_log(snapshots.cow);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(fault_count(snapshots.origin, 0), 1);
	cr_assert_eq(fault_count(snapshots.cow, 0), 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_DISCARD, 0, 0, 64, NULL), 0);
	cr_assert_eq(fault_count(snapshots.origin, 0), 1);
	expect_three_runs(snapshot);
}

/* ---- stopped, and gone on with ---- */

/* Suspends in the first step, which is carried out. */
static void stop_after_first_step(void)
{
	hold(snapshots.origin, FAULT_WRITE, 32, 16);
	snapshots_reload("s", 512, MERGE);
	snapshots_await_held(snapshots.origin, 1);
	/* The next one gets no further than its first read. */
	fault_clear_rules(snapshots.origin);
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -EIO, .ops = FAULT_READ,
			.sector = 24, .count = 8 });
	fault_release_all(snapshots.origin);
	snapshots_await_status("s", "Merge failed");
	fault_clear_rules(snapshots.cow);
}

Test(merge, that_is_suspended_goes_on_when_it_is_resumed)
{
	write_three_runs();
	stop_after_first_step();
	expect_three_runs(snapshot);
	snapshots_suspend("s");
	cr_assert_eq(snapshots_resume("s"), 0);
	await_done();
	expect_three_runs(snapshot);
	snapshots_reload("s", 512, "linear " O " 0");
	expect_three_runs(snapshot);
}

Test(merge, that_is_stopped_is_a_snapshot_of_what_is_left)
{
	struct dmcore_bdev *origin;

	write_three_runs();
	stop_after_first_step();
	snapshots_reload("s", 512, SNAPSHOT);
	snapshots_expect_status("s", "32/256 16");
	expect_three_runs(snapshot);
	snapshots_expect_disk(snapshots.origin, 32, 32, 16, 1);
	/* And a whole one. */
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	snapshots_write(origin, 32, 8, 5);
	snapshots_write(origin, 200, 40, 5);
	snapshots_write(snapshot, 400, 20, 6);
	for (unsigned int i = 0; i < 2; i++) {
		snapshots_expect(snapshot, 16, 8, 1);
		snapshots_expect(snapshot, 32, 16, 1);
		snapshots_expect(snapshot, 163, 3, 1);
		snapshots_expect(snapshot, 200, 200, 0);
		snapshots_expect(snapshot, 400, 20, 6);
		snapshots_remove("s");
		snapshot = snapshots_map("s", 512, SNAPSHOT);
	}
}

Test(merges, that_are_stopped_give_no_chunk_out_that_is_in_use)
{
	/* As a loss of power leaves it when copies end in another order. */
	snapshots_put_header(snapshots.cow, 1, 1, 8);
	snapshots_put_entry(snapshots.cow, 0, 2, 4);
	snapshots_put_entry(snapshots.cow, 1, 20, 3);
	snapshots_put_entry(snapshots.cow, 2, 4, 7);
	pattern_fill(fault_data(snapshots.cow) + 32 * DMCORE_SECTOR_BYTES, 16, 8, 1);
	pattern_fill(fault_data(snapshots.cow) + 24 * DMCORE_SECTOR_BYTES, 160, 8, 1);
	pattern_fill(fault_data(snapshots.cow) + 56 * DMCORE_SECTOR_BYTES, 32, 8, 1);
	snapshot = snapshots_map("s", 512, SNAPSHOT);
	snapshots_expect_status("s", "64/256 16");
	stop_after_first_step();
	snapshots_reload("s", 512, SNAPSHOT);
	snapshots_expect_status("s", "40/256 16");
	snapshots_write(snapshot, 400, 8, 6);
	snapshots_expect(snapshot, 16, 8, 1);
	snapshots_expect(snapshot, 160, 8, 1);
	snapshots_expect(snapshot, 400, 8, 6);
}

/* ---- errors ---- */

struct broken {
	bool origin;
	unsigned int ops;
	uint64_t sector;
	uint64_t count;
	enum fault_action action;
	const char *logged;
};

static const struct broken broken[] = {
	{ false, FAULT_READ, 8, 8, FAULT_FAIL,
	  "Read error in exception store: shutting down merge" },
	{ false, FAULT_READ, 16, 64, FAULT_FAIL, "Read error: shutting down merge." },
	{ true, FAULT_WRITE, 0, 0, FAULT_FAIL, "Write error: shutting down merge." },
	{ true, FAULT_FLUSH, 0, 0, FAULT_FAIL, "Flush after merge failed: shutting down merge" },
	{ false, FAULT_WRITE, 8, 8, FAULT_FAIL,
	  "Write error in exception store: shutting down merge" },
	{ false, FAULT_WRITE, 8, 8, FAULT_FAIL_AFTER,
	  "Write error in exception store: shutting down merge" },
};

/* The n-th I/O of its kind from the resume on fails, once. */
static bool merge_with(const struct broken *what, unsigned int skip)
{
	struct fault_disk *disk = what->origin ? snapshots.origin : snapshots.cow;
	unsigned int failed = fault_num_failed(disk);

	snapshot = snapshots_map("s", 512, SNAPSHOT);
	write_three_runs();
	snapshots_suspend("s");
	fault_add_rule(disk, &(struct fault_rule){ .action = what->action, .status = -EIO,
			.ops = what->ops, .sector = what->sector, .count = what->count,
			.skip = skip, .times = 1 });
	cr_assert_eq(snapshots_load("s", 512, MERGE), 0);
	cr_assert_eq(snapshots_resume("s"), 0);
	while (fault_num_failed(disk) == failed && strcmp(snapshots_status("s"), "16/256 16") != 0)
		snapshots_settle();
	snapshots_settle();
	fault_clear_rules(disk);
	if (fault_num_failed(disk) == failed)
		return false;
	snapshots_await_status("s", "Merge failed");
	cr_assert(strstr(snapshots.stage.logged, what->logged), "%s", snapshots.stage.logged);
	expect_three_runs(snapshot);
	return true;
}

static void start_over(void)
{
	snapshots_remove("s");
	memset(fault_data(snapshots.cow), 0, SNAPSHOTS_COW_SECTORS * DMCORE_SECTOR_BYTES);
	pattern_fill(fault_data(snapshots.origin), 0, SNAPSHOTS_ORIGIN_SECTORS, 0);
}

static void for_each_fault(void (*go_on)(void))
{
	for (unsigned int i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		unsigned int skip = 0;

		while (merge_with(&broken[i], skip)) {
			go_on();
			start_over();
			skip++;
		}
		cr_assert_geq(skip, 2, "kind %u", i);
		start_over();
	}
}

static void resume_it(void)
{
	snapshots_suspend("s");
	cr_assert_eq(snapshots_resume("s"), 0);
	await_done();
	expect_three_runs(snapshot);
	snapshots_reload("s", 512, "linear " O " 0");
	expect_three_runs(snapshot);
}

Test(merges, that_fail_lose_nothing_and_are_begun_anew)
{
	for_each_fault(resume_it);
}

static void activate_it(void)
{
	snapshots_remove("s");
	snapshot = snapshots_map("s", 512, SNAPSHOT);
	expect_three_runs(snapshot);
	snapshots_reload("s", 512, MERGE);
	await_done();
	expect_three_runs(snapshot);
}

Test(merges, that_fail_are_whole_snapshots_when_they_are_activated)
{
	for_each_fault(activate_it);
}

static void make_it_a_snapshot(void)
{
	int ret;

	ret = snapshots_load("s", 512, SNAPSHOT);
	cr_assert_eq(ret, 0);
	cr_assert_eq(snapshots_resume("s"), 0, "%s", dmcore_error_message());
	expect_three_runs(snapshot);
	for (unsigned int i = 0; i < 40; i++)
		snapshots_write(snapshot, 400 + i % 4 * 8, 8, 6 + i);
	snapshots_expect(snapshot, 16, 8, 1);
	snapshots_expect(snapshot, 32, 16, 1);
	snapshots_expect(snapshot, 163, 3, 1);
	snapshots_expect(snapshot, 400, 8, 42);
	snapshots_remove("s");
	snapshot = snapshots_map("s", 512, SNAPSHOT);
	snapshots_expect(snapshot, 16, 8, 1);
	snapshots_expect(snapshot, 32, 16, 1);
	snapshots_expect(snapshot, 163, 3, 1);
	snapshots_expect(snapshot, 400, 8, 42);
	snapshots_expect(snapshot, 424, 8, 45);
	snapshots_reload("s", 512, MERGE);
	await_done();
	snapshots_expect_disk(snapshots.origin, 400, 400, 8, 42);
	snapshots_expect_disk(snapshots.origin, 163, 163, 3, 1);
}

Test(merges, that_fail_can_be_snapshots_again)
{
	for_each_fault(make_it_a_snapshot);
}

Test(merge, in_doubt_is_no_snapshot_until_its_entries_can_be_written)
{
	struct fault_rule rule = { .status = -EIO, .ops = FAULT_WRITE, .sector = 8, .count = 8 };

	write_three_runs();
	snapshots_suspend("s");
	fault_add_rule(snapshots.cow, &rule);
	cr_assert_eq(snapshots_load("s", 512, MERGE), 0);
	cr_assert_eq(snapshots_resume("s"), 0);
	snapshots_await_status("s", "Merge failed");
	cr_assert_eq(snapshots_try_write(snapshot, 0, 33, 2, 9), -EIO);
	cr_assert_eq(snapshots_load("s", 512, SNAPSHOT), 0);
	cr_assert_eq(snapshots_resume("s"), -EIO);
	/* Then it can't be made one any more than it could be merged. */
	fault_clear_rules(snapshots.cow);
	snapshots_resume("s");
	expect_three_runs(snapshot);
}

/* ---- two at once ---- */

Test(merge, another_of_the_same_origin_is_refused)
{
	struct dmcore_table *table;
	int ret;

	snapshots_map("t", 512, "snapshot " O " fault:256,id=3 P 8");
	snapshots_reload("s", 512, MERGE);
	ret = dmcore_table_parse(snapshots.stage.core,
				 "0 512 snapshot-merge " O " fault:256,id=3 P 8", 0, &table);
	cr_assert_eq(ret, -EINVAL);
	cr_assert(strstr(dmcore_error_message(), "A snapshot is already merging."));
	/* It is one again when it is a snapshot, or gone. */
	snapshots_reload("s", 512, SNAPSHOT);
	snapshots_reload("t", 512, "snapshot-merge " O " fault:256,id=3 P 8");
	snapshots_remove("t");
	snapshots_reload("s", 512, MERGE);
	await_done();
}
