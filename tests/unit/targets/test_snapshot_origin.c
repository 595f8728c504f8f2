/* SPDX-License-Identifier: MIT */
/* Snapshots and writes to their origin: each keeps what it saw, in its own chunks, before the write
 * goes on; and a read of the origin that a write overtakes never tells the new data. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW

static struct dmcore_bdev *origin;
static struct dmcore_bdev *snapshot;

/* Chunks of 8 sectors. */
static void open_both(void)
{
	snapshots_open_manual();
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	fault_clear_log(snapshots.origin);
	fault_clear_log(snapshots.cow);
}

TestSuite(snapshot_origin, .init = open_both, .fini = snapshots_close);
TestSuite(snapshot_origins, .init = snapshots_open_manual, .fini = snapshots_close);

/* ---- copies ---- */

Test(snapshot_origins, without_snapshots_are_their_devices)
{
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	snapshots_write(origin, 3, 40, 1);
	snapshots_expect_disk(snapshots.origin, 3, 3, 40, 1);
	cr_assert_str_eq(snapshots_table("o"), O);
	snapshots_expect_status("o", "");
	cr_assert_eq(snapshots_run(origin, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(fault_count(snapshots.origin, FAULT_FLUSH), 1);
	cr_assert_eq(snapshots_run(origin, DMCORE_OP_DISCARD, 0, 0, 8, NULL), -EOPNOTSUPP);
	cr_assert_eq(snapshots_run(origin, DMCORE_OP_WRITE_ZEROES, 0, 0, 8, NULL), -EOPNOTSUPP);
}

Test(snapshot_origin, is_written_when_the_snapshot_has_a_copy)
{
	snapshots_write(origin, 13, 20, 1);
	snapshots_expect(origin, 13, 20, 1);
	snapshots_expect(snapshot, 0, 512, 0);
	snapshots_expect_status("s", "48/256 16");
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(snapshots_entry(snapshots.cow, i).old_chunk, i + 1);
	/* Once is enough. */
	fault_clear_log(snapshots.cow);
	snapshots_write(origin, 8, 32, 2);
	cr_assert_eq(fault_count(snapshots.cow, 0), 0);
	snapshots_expect(snapshot, 0, 512, 0);
}

Test(snapshot_origin, waits_until_the_copy_and_its_entry_are_durable)
{
	struct fault_entry last = { 0 };

	snapshots_write(origin, 13, 1, 1);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.cow); i++)
		last = fault_logged(snapshots.cow, i);
	cr_assert_eq(last.sector, 8);
	cr_assert(last.flags & DMCORE_BIO_FUA);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.origin); i++) {
		struct fault_entry entry = fault_logged(snapshots.origin, i);

		if (entry.op == DMCORE_OP_WRITE)
			cr_assert_gt(entry.begun, last.ended);
	}
}

Test(snapshot_origin, waits_for_the_entry_of_a_write_to_the_snapshot)
{
	snapshots_write(snapshot, 16, 8, 1);
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 0);
	snapshots_write(origin, 16, 8, 2);
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 2);
	snapshots_expect(snapshot, 16, 8, 1);
	snapshots_expect(origin, 16, 8, 2);
}

Test(snapshot_origin, sees_nothing_of_writes_to_the_snapshot)
{
	snapshots_write(snapshot, 10, 30, 1);
	snapshots_expect(origin, 0, 512, 0);
}

Test(snapshot_origin, a_write_to_many_chunks_is_one_commit)
{
	unsigned int commits = 0;

	snapshots_write(origin, 0, 160, 1);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.cow); i++) {
		struct fault_entry entry = fault_logged(snapshots.cow, i);

		commits += entry.op == DMCORE_OP_WRITE && entry.sector < 16;
	}
	cr_assert_eq(commits, 1);
	snapshots_expect(snapshot, 0, 512, 0);
	snapshots_expect_status("s", "176/256 16");
}

Test(snapshot_origins, with_snapshots_of_every_size_serve_them_all)
{
	static const unsigned int chunks[] = { 8, 1, 64, 16, 8, 2 };
	struct dmcore_bdev *bdevs[6];
	char text[96];
	char name[] = "a";

	origin = snapshots_map("o", 512, "snapshot-origin " O);
	for (unsigned int i = 0; i < 6; i++, name[0]++) {
		snprintf(text, sizeof(text), "snapshot " O " fault:2048,id=%u P %u", i + 2,
			 chunks[i]);
		bdevs[i] = snapshots_map(name, 512, text);
		/* Each sees another past. */
		snapshots_write(origin, i * 40, 60, i + 1);
	}
	for (unsigned int i = 0; i < 6; i++) {
		for (unsigned int k = 0; k < i; k++) {
			snapshots_expect(bdevs[i], k * 40, k + 1 == i ? 60 : 40, k + 1);
		}
		if (i > 0)
			snapshots_expect(bdevs[i], (i - 1) * 40 + 60, 100, 0);
		else
			snapshots_expect(bdevs[0], 0, 512, 0);
	}
	for (unsigned int i = 0; i < 6; i++)
		snapshots_write(bdevs[i], 300, 10, 20 + i);
	snapshots_write(origin, 290, 30, 30);
	for (unsigned int i = 0; i < 6; i++) {
		snapshots_expect(bdevs[i], 290, 10, 0);
		snapshots_expect(bdevs[i], 300, 10, 20 + i);
		snapshots_expect(bdevs[i], 310, 10, 0);
	}
}

Test(snapshot_origins, beyond_a_snapshot_are_written_at_once)
{
	struct dmcore_bdev *small = snapshots_map("s", 100, "snapshot " O " " C " P 8");

	origin = snapshots_map("o", 512, "snapshot-origin " O);
	snapshots_write(origin, 101, 100, 1);
	snapshots_expect_status("s", "16/256 16");
	snapshots_write(origin, 90, 100, 2);
	/* Chunks 11 and 12: the latter belongs to it in part. */
	snapshots_expect_status("s", "32/256 16");
	snapshots_expect(small, 0, 100, 0);
}

Test(snapshot_origins, of_mapped_devices_are_those)
{
	snapshots_map("base", 512, "linear " O " 0");
	snapshot = snapshots_map("s", 512, "snapshot base " C " P 8");
	origin = snapshots_map("o", 512, "snapshot-origin base");
	snapshots_write(origin, 0, 30, 1);
	snapshots_expect(snapshot, 0, 512, 0);
	/* A device in itself: nobody who writes below is seen. */
	snapshots_expect_disk(snapshots.origin, 0, 0, 30, 1);
}

Test(snapshot_origin, a_snapshot_that_is_removed_is_no_more_in_the_way)
{
	snapshots_write(origin, 0, 8, 1);
	snapshots_remove("s");
	fault_clear_log(snapshots.cow);
	snapshots_write(origin, 8, 8, 1);
	cr_assert_eq(fault_count(snapshots.cow, 0), 0);
	/* What was written meanwhile belongs to its past then. */
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect(snapshot, 0, 8, 0);
	snapshots_expect(snapshot, 8, 8, 1);
}

Test(snapshot_origin, a_snapshot_that_is_suspended_keeps_its_past)
{
	snapshots_suspend("s");
	snapshots_write(origin, 0, 20, 1);
	cr_assert_eq(snapshots_resume("s"), 0);
	snapshots_expect(snapshot, 0, 512, 0);
}

Test(snapshot_origin, a_snapshot_that_was_never_resumed_has_none)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(snapshots.stage.core, "t", NULL, 0, &device), 0);
	cr_assert_eq(snapshots_load("t", 512, "snapshot " O " fault:256,id=2 P 8"), 0);
	snapshots_write(origin, 0, 8, 1);
	cr_assert_eq(snapshots_resume("t"), 0);
	snapshots_expect(dmcore_device_bdev(device), 0, 8, 1);
	snapshots_expect_status("t", "16/256 16");
	snapshots_remove("t");
}

/* ---- errors ---- */

Test(snapshot_origin, that_cannot_be_copied_is_written_all_the_same)
{
	fault_add_rule(snapshots.origin, &(struct fault_rule){ .status = -EIO, .ops = FAULT_READ,
			.times = 1 });
	snapshots_write(origin, 3, 3, 1);
	snapshots_expect_disk(snapshots.origin, 3, 3, 3, 1);
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_events("s"), 1);
	cr_assert_eq(snapshots_try_read(snapshot, 0, 8), -EIO);
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 0);
	snapshots_write(origin, 100, 8, 1);
}

Test(snapshot_origin, is_written_when_the_invalid_header_is_durable)
{
	struct fault_entry last = { 0 };

	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE,
			.times = 1 });
	snapshots_write(origin, 3, 3, 1);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.cow); i++)
		last = fault_logged(snapshots.cow, i);
	cr_assert_eq(last.sector, 0);
	cr_assert(last.flags & DMCORE_BIO_FUA);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.origin); i++) {
		struct fault_entry entry = fault_logged(snapshots.origin, i);

		if (entry.op == DMCORE_OP_WRITE)
			cr_assert_gt(entry.begun, last.ended);
	}
}

Test(snapshot_origins, one_snapshot_that_fails_takes_no_other_with_it)
{
	struct dmcore_bdev *good;
	struct fault_disk *bad = stage_disk(&snapshots.stage, 5, 256, "");

	good = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_map("t", 512, "snapshot " O " fault:256,id=5 P 8");
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	fault_add_rule(bad, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE });
	snapshots_write(origin, 3, 30, 1);
	snapshots_expect_status("t", "Invalid");
	snapshots_expect(good, 0, 512, 0);
	snapshots_expect(origin, 3, 30, 1);
}

Test(snapshot_origin, a_write_that_fails_leaves_the_copies)
{
	fault_add_rule(snapshots.origin, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE,
			.times = 1 });
	cr_assert_eq(snapshots_try_write(origin, 0, 3, 3, 1), -EIO);
	snapshots_expect_status("s", "24/256 16");
	snapshots_expect(snapshot, 0, 512, 0);
}

/* ---- a read of an unmapped chunk, overtaken by a write to the origin ---- */

static unsigned char read_data[8 * DMCORE_SECTOR_BYTES];
static unsigned char write_data[8 * DMCORE_SECTOR_BYTES];

/* Steps of a history. Each letter is one: R and W send the read and the write, and the others let
 * go what a disk holds: r the read of the snapshot, c the copy's read, e what stands on the COW
 * device (twice), w the write to the origin. */
static struct tally reads;
static struct tally writes;

static bool let_go(struct fault_disk *disk, enum dmcore_op op, bool of_copy)
{
	for (unsigned int i = 0; i < fault_num_held(disk); i++) {
		struct fault_entry entry = fault_held(disk, i);

		if (entry.op != op)
			continue;
		/* The reads differ in their length. */
		if (op == DMCORE_OP_READ && (entry.count == 8) != of_copy)
			continue;
		fault_release(disk, i, 0);
		return true;
	}
	return false;
}

static bool take_step(char step)
{
	switch (step) {
	case 'R':
		stage_submit(&snapshots.stage, snapshot, DMCORE_OP_READ, 16, 4, read_data, &reads);
		return true;
	case 'W':
		pattern_fill(write_data, 16, 8, 1);
		stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, 16, 8, write_data, &writes);
		return true;
	case 'r':
		return let_go(snapshots.origin, DMCORE_OP_READ, false);
	case 'c':
		return let_go(snapshots.origin, DMCORE_OP_READ, true);
	case 'w':
		return let_go(snapshots.origin, DMCORE_OP_WRITE, false);
	default:
		if (fault_num_held(snapshots.cow) == 0)
			return false;
		fault_release(snapshots.cow, 0, 0);
		return true;
	}
}

static void hold_all(bool hold)
{
	const struct fault_rule rule = { .action = FAULT_HOLD };

	if (hold) {
		fault_add_rule(snapshots.origin, &rule);
		fault_add_rule(snapshots.cow, &rule);
		return;
	}
	fault_clear_rules(snapshots.origin);
	fault_clear_rules(snapshots.cow);
	fault_release_all(snapshots.origin);
	fault_release_all(snapshots.cow);
}

static void play(const char *steps)
{
	reads = (struct tally){ 0 };
	writes = (struct tally){ 0 };
	snapshots_remove("s");
	memset(fault_data(snapshots.cow), 0, 256 * DMCORE_SECTOR_BYTES);
	pattern_fill(fault_data(snapshots.origin), 0, SNAPSHOTS_ORIGIN_SECTORS, 0);
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	hold_all(true);
	for (; *steps; steps++) {
		/* Steps that aren't possible yet are left out: other orders have them. */
		take_step(*steps);
		snapshots_settle();
	}
	hold_all(false);
	snapshots_wait(&reads, 1);
	snapshots_wait(&writes, 1);
	cr_assert_eq(reads.failed + writes.failed, 0);
	cr_assert_lt(pattern_differs(read_data, 16, 4, 0), 0, "the new data were read");
	snapshots_expect(snapshot, 0, 512, 0);
	snapshots_expect(origin, 16, 8, 1);
}

/* Whether what has to come before a step has come. */
static bool is_possible(const char *steps, unsigned int done, char step)
{
	const char *before = step == 'r' ? "R" : step == 'c' ? "W" : step == 'e' ? "c" :
			     step == 'w' ? "e" : "";

	return !*before || memchr(steps, *before, done);
}

/* Every order of what is left. */
static void play_all(char *steps, unsigned int done, const char *left)
{
	char rest[16];

	if (!*left) {
		steps[done] = '\0';
		play(steps);
		return;
	}
	for (unsigned int i = 0; left[i]; i++) {
		if ((i > 0 && left[i] == left[i - 1]) || !is_possible(steps, done, left[i]))
			continue;
		snprintf(rest, sizeof(rest), "%.*s%s", (int)i, left, left + i + 1);
		steps[done] = left[i];
		play_all(steps, done + 1, rest);
	}
}

Test(snapshot_origin, a_read_of_the_snapshot_never_sees_what_overtakes_it)
{
	char steps[16];

	/* The copy to the COW device, the flush and the entries are three steps there. */
	play_all(steps, 0, "RWrceeew");
}
