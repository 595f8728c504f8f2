/* SPDX-License-Identifier: MIT */
/* Snapshots whose COW device fills up: invalid or overflowed as the table says, or what a message
 * says instead; what is told before; and COW devices that grow. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
/* Room for 3 chunks of 8 sectors. */
#define SMALL "fault:40,id=5"

static struct dmcore_bdev *origin;
static struct dmcore_bdev *snapshot;
static struct fault_disk *small;

static void map_small(const char *store)
{
	char text[64];

	small = stage_disk(&snapshots.stage, 5, 40, "");
	snprintf(text, sizeof(text), "snapshot " O " " SMALL " %s 8", store);
	snapshot = snapshots_map("s", 512, text);
	origin = snapshots_map("o", 512, "snapshot-origin " O);
}

/* The same, and not one chunk is left. */
static void map_full(const char *store)
{
	map_small(store);
	snapshots_write(snapshot, 0, 24, 1);
	snapshots_expect_status("s", *store == 'N' ? "24/40 0" : "40/40 16");
}

TestSuite(snapshot_overflow, .init = snapshots_open_manual, .fini = snapshots_close);

/* ---- by the table ---- */

Test(snapshot_overflow, makes_a_persistent_one_invalid)
{
	map_full("P");
	cr_assert_eq(snapshots_try_write(snapshot, 0, 40, 8, 1), -EIO);
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_events("s"), 1);
	cr_assert_str_eq(snapshots.stage.logged,
			 "snapshot: Invalidating snapshot: Unable to allocate exception.");
	cr_assert_eq(snapshots_try_read(snapshot, 0, 8), -EIO);
	cr_assert_eq(snapshots_header(small).valid, 0);
	snapshots_write(origin, 100, 8, 1);
	/* It stays so. */
	snapshots_reload("s", 512, "snapshot " O " " SMALL " P 8");
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_events("s"), 1);
}

Test(snapshot_overflow, makes_a_transient_one_invalid)
{
	map_small("N");
	snapshots_write(snapshot, 0, 40, 1);
	snapshots_expect_status("s", "40/40 0");
	cr_assert_eq(snapshots_try_write(snapshot, 0, 40, 8, 1), -EIO);
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_events("s"), 1);
	snapshots_remove("s");
	snapshot = snapshots_map("s", 512, "snapshot " O " " SMALL " N 8");
	snapshots_expect_status("s", "0/40 0");
}

Test(snapshot_overflow, fails_all_writes_of_one_that_may_overflow)
{
	map_full("PO");
	cr_assert_eq(snapshots_try_write(snapshot, 0, 40, 8, 1), -EIO);
	snapshots_expect_status("s", "Overflow");
	cr_assert_eq(snapshots_events("s"), 0);
	cr_assert_str_eq(snapshots.stage.logged,
			 "snapshot: Snapshot overflowed: Unable to allocate exception.");
	cr_assert_eq(snapshots_try_write(snapshot, 0, 0, 8, 2), -EIO);
	snapshots_expect(snapshot, 0, 24, 1);
	snapshots_expect(snapshot, 24, 400, 0);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	/* What needs no copy leaves it so, as a reload does; it ends with the snapshot. */
	snapshots_write(origin, 0, 8, 3);
	snapshots_reload("s", 512, "snapshot " O " " SMALL " P 8");
	snapshots_expect_status("s", "Overflow");
	cr_assert_str_eq(snapshots_table("s"), O " " SMALL " P 8");
	snapshots_remove("s");
	snapshot = snapshots_map("s", 512, "snapshot " O " " SMALL " PO 8");
	snapshots_expect_status("s", "40/40 16");
	snapshots_expect(snapshot, 0, 24, 1);
	snapshots_write(snapshot, 0, 8, 2);
}

Test(snapshot_overflow, by_a_write_to_the_origin_makes_any_invalid)
{
	map_full("PO");
	snapshots_write(origin, 40, 8, 1);
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_events("s"), 1);
	cr_assert_eq(snapshots_header(small).valid, 0);
	snapshots_expect_disk(snapshots.origin, 40, 40, 8, 1);
}

Test(snapshot_overflow, of_one_write_leaves_others_that_were_begun_alone)
{
	static unsigned char bytes[2][8 * DMCORE_SECTOR_BYTES];
	struct tally first = { 0 };
	struct tally second = { 0 };

	map_small("PO");
	snapshots_write(snapshot, 0, 16, 1);
	pattern_fill(bytes[0], 33, 2, 1);
	pattern_fill(bytes[1], 49, 2, 1);
	fault_add_rule(snapshots.origin, &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 33, 2, bytes[0], &first);
	snapshots_await_held(snapshots.origin, 1);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 49, 2, bytes[1], &second);
	snapshots_wait(&second, 1);
	cr_assert_eq(second.status, -EIO);
	fault_clear_rules(snapshots.origin);
	fault_release_all(snapshots.origin);
	snapshots_wait(&first, 1);
	cr_assert_eq(first.status, 0, "its chunk was there");
	snapshots_expect_status("s", "Overflow");
	snapshots_expect(snapshot, 33, 2, 1);
}

/* ---- by a message ---- */

Test(snapshot_overflow, messages_that_it_does_not_know_are_refused)
{
	map_small("P");
	cr_assert_eq(snapshots_message("s", "overflow"), -EINVAL);
	cr_assert_eq(snapshots_message("s", "overflow never"), -EINVAL);
	cr_assert_eq(snapshots_message("s", "low_water"), -EINVAL);
	cr_assert_eq(snapshots_message("s", "low_water x"), -EINVAL);
	cr_assert_eq(snapshots_message("s", "shrink"), -EINVAL);
	cr_assert_eq(snapshots_message("s", "OVERFLOW FAIL"), 0);
}

Test(snapshot_overflow, may_fail_the_one_write_alone)
{
	map_full("P");
	cr_assert_eq(snapshots_message("s", "overflow fail"), 0);
	cr_assert_eq(snapshots_try_write(snapshot, 0, 40, 8, 1), -ENOSPC);
	snapshots_write(snapshot, 0, 8, 2);
	snapshots_expect_status("s", "40/40 16");
	cr_assert_eq(snapshots_header(small).valid, 1);
}

Test(snapshot_overflow, may_make_one_invalid_that_could_overflow)
{
	map_full("PO");
	cr_assert_eq(snapshots_message("s", "overflow invalidate"), 0);
	cr_assert_eq(snapshots_try_write(snapshot, 0, 40, 8, 1), -EIO);
	snapshots_expect_status("s", "Invalid");
}

Test(snapshot_overflow, may_hold_writers_until_it_has_grown)
{
	static unsigned char bytes[2][8 * DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *grows;
	struct tally tally = { 0 };

	/* A mapped device, so that it can grow. */
	snapshots_map("cow", 40, "linear fault:64,id=6 0");
	grows = snapshots_map("s", 512, "snapshot " O " cow P 8");
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	cr_assert_eq(snapshots_message("s", "overflow hold"), 0);
	snapshots_write(grows, 0, 24, 1);
	pattern_fill(bytes[0], 40, 8, 1);
	pattern_fill(bytes[1], 56, 3, 1);
	stage_submit(&snapshots.stage, grows, DMCORE_OP_WRITE, 40, 8, bytes[0], &tally);
	stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, 56, 3, bytes[1], &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(snapshots_events("s"), 1, "one for both");
	/* All else goes on. */
	snapshots_write(grows, 0, 8, 2);
	snapshots_write(origin, 8, 8, 2);
	snapshots_expect(grows, 40, 100, 0);
	snapshots_reload("cow", 64, "linear fault:64,id=6 0");
	cr_assert_eq(snapshots_message("s", "grow"), 0);
	snapshots_wait(&tally, 2);
	cr_assert_eq(tally.failed, 0);
	snapshots_expect_status("s", "56/64 16");
	snapshots_expect(grows, 40, 8, 1);
	snapshots_expect(grows, 56, 3, 0);
	snapshots_expect(origin, 56, 3, 1);
}

Test(snapshot_overflow, whose_writers_wait_lets_them_go_at_suspension)
{
	static unsigned char bytes[8 * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	map_full("P");
	cr_assert_eq(snapshots_message("s", "overflow hold"), 0);
	pattern_fill(bytes, 40, 8, 1);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 40, 8, bytes, &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 0);
	snapshots_suspend("s");
	snapshots_wait(&tally, 1);
	cr_assert_eq(tally.status, -ENOSPC);
	cr_assert_eq(snapshots_resume("s"), 0);
	snapshots_expect(snapshot, 0, 24, 1);
	/* And holds again. */
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 40, 8, bytes, &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(snapshots_message("s", "overflow fail"), 0);
	cr_assert_eq(snapshots_message("s", "grow"), 0);
	snapshots_wait(&tally, 2);
}

Test(snapshot_overflow, whose_writers_wait_lets_them_go_when_it_is_told_otherwise)
{
	static unsigned char bytes[2][8 * DMCORE_SECTOR_BYTES];
	struct tally to_snapshot = { 0 };
	struct tally to_origin = { 0 };

	map_full("P");
	cr_assert_eq(snapshots_message("s", "overflow hold"), 0);
	pattern_fill(bytes[0], 40, 8, 1);
	pattern_fill(bytes[1], 56, 8, 1);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 40, 8, bytes[0], &to_snapshot);
	snapshots_settle();
	cr_assert_eq(to_snapshot.ended, 0);
	cr_assert_eq(snapshots_message("s", "overflow fail"), 0);
	snapshots_wait(&to_snapshot, 1);
	cr_assert_eq(to_snapshot.status, -ENOSPC);
	cr_assert_eq(snapshots_message("s", "overflow hold"), 0);
	stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, 56, 8, bytes[1], &to_origin);
	snapshots_settle();
	cr_assert_eq(to_origin.ended, 0);
	cr_assert_eq(snapshots_message("s", "overflow invalidate"), 0);
	snapshots_wait(&to_origin, 1);
	cr_assert_eq(to_origin.status, 0);
	snapshots_expect_status("s", "Invalid");
}

Test(snapshot_overflow, origin_writers_that_wait_go_on_when_the_snapshot_goes)
{
	static unsigned char bytes[8 * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	map_full("P");
	cr_assert_eq(snapshots_message("s", "overflow hold"), 0);
	pattern_fill(bytes, 40, 8, 1);
	stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, 40, 8, bytes, &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 0);
	snapshots_remove("s");
	snapshots_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	snapshots_expect_disk(snapshots.origin, 40, 40, 8, 1);
	cr_assert_eq(snapshots_header(small).valid, 1);
}

Test(snapshot_overflow, ends_when_a_device_that_may_overflow_has_grown)
{
	struct dmcore_bdev *grows;

	snapshots_map("cow", 40, "linear fault:64,id=6 0");
	grows = snapshots_map("s", 512, "snapshot " O " cow PO 8");
	snapshots_write(grows, 0, 24, 1);
	cr_assert_eq(snapshots_try_write(grows, 0, 40, 8, 1), -EIO);
	snapshots_expect_status("s", "Overflow");
	snapshots_reload("cow", 64, "linear fault:64,id=6 0");
	cr_assert_eq(snapshots_message("s", "grow"), 0);
	snapshots_expect_status("s", "40/64 16");
	snapshots_write(grows, 40, 8, 1);
	snapshots_expect(grows, 40, 8, 1);
}

/* ---- before ---- */

Test(snapshot_overflow, is_announced_once_when_so_little_is_left)
{
	map_small("P");
	cr_assert_eq(snapshots_message("s", "low_water 16"), 0);
	snapshots_write(snapshot, 0, 8, 1);
	cr_assert_eq(snapshots_events("s"), 0);
	snapshots_write(snapshot, 8, 8, 1);
	cr_assert_eq(snapshots_events("s"), 1);
	snapshots_write(snapshot, 16, 8, 1);
	cr_assert_eq(snapshots_events("s"), 1);
	snapshots_expect_status("s", "40/40 16");
}

/* ---- every size ---- */

Test(snapshot_overflow, comes_with_the_write_that_finds_no_chunk)
{
	for (unsigned int chunks = 2; chunks <= 40; chunks++) {
		/* A metadata chunk stands in between; if it would stand behind the end, the area
		 * before it can't be filled. */
		unsigned int room = chunks - 2 - (chunks >= 34);
		char text[64];

		snprintf(text, sizeof(text), "snapshot " O " fault:%u,id=%u PO 1", chunks,
			 chunks + 10);
		snapshot = snapshots_map("s", 512, text);
		for (unsigned int i = 0; i < room; i++)
			snapshots_write(snapshot, i, 1, 1);
		cr_assert_eq(snapshots_try_write(snapshot, 0, room, 1, 1), -EIO, "%u", chunks);
		snapshots_expect_status("s", chunks == 34 ? "Invalid" : "Overflow");
		snapshots_remove("s");
	}
}
