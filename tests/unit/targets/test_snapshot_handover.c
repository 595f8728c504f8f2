/* SPDX-License-Identifier: MIT */
/* Snapshots that go from one table to another: by reload, between two devices, in any order, and
 * with I/O under way; and what is refused. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW
#define TABLE "snapshot " O " " C " P 8"

static struct dmcore_bdev *origin;
static struct dmcore_bdev *snapshot;

static void open_both(void)
{
	snapshots_open();
	snapshot = snapshots_map("s", 512, TABLE);
	origin = snapshots_map("o", 512, "snapshot-origin " O);
	snapshots_write(snapshot, 8, 8, 1);
	snapshots_write(origin, 0, 4, 2);
}

TestSuite(snapshot_handover, .init = open_both, .fini = snapshots_close);

static void expect_all_there(struct dmcore_bdev *bdev)
{
	snapshots_expect(bdev, 0, 8, 0);
	snapshots_expect(bdev, 8, 8, 1);
	snapshots_expect(bdev, 16, 496, 0);
}

static struct dmcore_bdev *create(const char *name)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(snapshots.stage.core, name, NULL, 0, &device), 0);
	snapshots.stage.devices[snapshots.stage.num_devices++] = device;
	return dmcore_device_bdev(device);
}

static void expect_not_resumed(const char *name, const char *message)
{
	int ret = snapshots_resume(name);

	cr_assert_eq(ret, -EINVAL, "%d: %s", ret, dmcore_error_message());
	cr_assert(strstr(dmcore_error_message(), message), "%s", dmcore_error_message());
}

/* ---- by reload ---- */

Test(snapshot_handover, by_reload_keeps_all)
{
	for (unsigned int i = 0; i < 5; i++)
		snapshots_reload("s", 512, TABLE);
	expect_all_there(snapshot);
	snapshots_expect_status("s", "32/256 16");
	snapshots_write(origin, 100, 8, 3);
	snapshots_write(snapshot, 200, 3, 3);
	snapshots_expect(snapshot, 100, 8, 0);
	snapshots_expect(snapshot, 200, 3, 3);
	cr_assert_eq(snapshots_events("s"), 0);
}

Test(snapshot_handover, by_reload_changes_what_happens_at_an_overflow_and_nothing_else)
{
	snapshots_reload("s", 512, "snapshot " O " " C " PO 16 1 discard_zeroes_cow");
	cr_assert_str_eq(snapshots_table("s"), O " " C " PO 8 1 discard_zeroes_cow");
	snapshots_reload("s", 512, "snapshot " O " " C " N 64");
	cr_assert_str_eq(snapshots_table("s"), O " " C " P 8");
	expect_all_there(snapshot);
}

Test(snapshot_handover, by_reload_may_change_the_length)
{
	snapshots_reload("s", 100, TABLE);
	snapshots_write(origin, 104, 8, 1);
	snapshots_expect_status("s", "32/256 16");
	snapshots_write(origin, 96, 8, 1);
	snapshots_expect_status("s", "40/256 16");
	snapshots_reload("s", 512, TABLE);
	snapshots_expect(snapshot, 96, 8, 0);
	snapshots_expect(snapshot, 104, 8, 1);
}

Test(snapshot_handover, to_another_cow_device_is_none)
{
	snapshots_reload("s", 512, "snapshot " O " fault:256,id=7 P 8");
	snapshots_expect_status("s", "16/256 16");
	snapshots_expect(snapshot, 8, 8, 0);
	snapshots_expect(snapshot, 0, 4, 2);
	snapshots_reload("s", 512, TABLE);
	expect_all_there(snapshot);
}

Test(snapshot_handover, of_one_of_several_to_another_origin_leaves_the_others)
{
	static const unsigned int chunks[] = { 32, 16, 4 };
	struct dmcore_bdev *bdevs[3];
	struct dmcore_bdev *other_bdev;
	struct dmcore_bdev *other;
	struct fault_disk *disk = stage_disk(&snapshots.stage, 30, 512, "");
	char name[] = "a";
	char text[96];

	pattern_fill(fault_data(disk), 0, 512, 30);
	other = snapshots_map("other", 512, "snapshot-origin fault:512,id=30");
	other_bdev = snapshots_map("t", 512, "snapshot fault:512,id=30 fault:256,id=31 P 8");
	for (unsigned int i = 0; i < 3; i++, name[0]++) {
		snprintf(text, sizeof(text), "snapshot " O " fault:1024,id=%u P %u", i + 10,
			 chunks[i]);
		bdevs[i] = snapshots_map(name, 512, text);
	}
	/* The one in the middle. */
	snapshots_reload("s", 512, "snapshot fault:512,id=30 " C " P 8");
	snapshots_write(origin, 300, 8, 5);
	snapshots_write(other, 400, 8, 6);
	for (unsigned int i = 0; i < 3; i++) {
		snapshots_expect(bdevs[i], 300, 8, 0);
		snapshots_expect(bdevs[i], 0, 4, 2);
	}
	snapshots_expect(snapshot, 300, 8, 30);
	snapshots_expect(snapshot, 400, 8, 30);
	snapshots_expect(snapshot, 8, 8, 1);
	snapshots_expect(other_bdev, 400, 8, 30);
	snapshots_remove("a");
	snapshots_write(origin, 332, 8, 5);
	snapshots_expect(bdevs[2], 332, 8, 0);
}

Test(snapshot_handover, with_a_table_that_is_dropped_again)
{
	cr_assert_eq(snapshots_load("s", 512, TABLE), 0);
	snapshots_suspend("s");
	cr_assert_eq(dmcore_device_clear(dmcore_device_find(snapshots.stage.core, "s")), 0);
	cr_assert_eq(snapshots_resume("s"), 0);
	expect_all_there(snapshot);
}

Test(snapshot_handover, a_third_table_is_refused)
{
	struct dmcore_bdev *unused = create("t");

	(void)unused;
	cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
	cr_assert_eq(snapshots_load("s", 512, TABLE), -EINVAL);
	cr_assert(strstr(dmcore_error_message(),
			 "Snapshot cow pairing for exception table handover failed"));
}

/* ---- between two devices ---- */

Test(snapshot_handover, to_another_device_waits_until_the_first_is_suspended)
{
	struct dmcore_bdev *second = create("t");

	cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
	expect_not_resumed("t", "Unable to perform snapshot handover until source is suspended.");
	expect_all_there(snapshot);
	snapshots_suspend("s");
	expect_not_resumed("s", "Unable to resume snapshot source until handover completes.");
	cr_assert_eq(snapshots_resume("t"), 0, "%s", dmcore_error_message());
	expect_all_there(second);
	snapshots_expect_status("s", "Invalid");
	snapshots_expect_status("t", "32/256 16");
	/* The first is nothing any more, even if it runs. */
	cr_assert_eq(snapshots_resume("s"), 0);
	cr_assert_eq(snapshots_try_read(snapshot, 0, 8), -EIO);
	cr_assert_eq(snapshots_try_write(snapshot, 0, 0, 8, 9), -EIO);
	cr_assert_eq(snapshots_events("s"), 0);
	snapshots_remove("s");
	snapshots_write(origin, 200, 8, 3);
	snapshots_write(second, 300, 8, 3);
	snapshots_expect(second, 200, 8, 0);
	snapshots_remove("t");
	snapshot = snapshots_map("s", 512, TABLE);
	snapshots_expect(snapshot, 300, 8, 3);
	snapshots_expect(snapshot, 200, 8, 0);
	snapshots_expect(snapshot, 8, 8, 1);
}

Test(snapshot_handover, and_back_again)
{
	struct dmcore_bdev *second = create("t");

	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
		snapshots_suspend("s");
		cr_assert_eq(snapshots_resume("t"), 0);
		expect_all_there(second);
		cr_assert_eq(snapshots_load("s", 512, TABLE), 0, "%s", dmcore_error_message());
		snapshots_suspend("t");
		cr_assert_eq(snapshots_resume("s"), 0, "%s", dmcore_error_message());
		expect_all_there(snapshot);
	}
}

Test(snapshot_handover, the_heir_of_an_owner_that_goes_has_all)
{
	struct dmcore_bdev *second = create("t");

	cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
	snapshots_remove("s");
	/* It has its past from the first resume on, not from its own. */
	snapshots_write(origin, 200, 8, 3);
	cr_assert_eq(snapshots_resume("t"), 0, "%s", dmcore_error_message());
	expect_all_there(second);
}

Test(snapshot_handover, the_owner_of_an_heir_that_goes_has_all)
{
	create("t");
	cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
	snapshots_remove("t");
	expect_all_there(snapshot);
	snapshots_suspend("s");
	cr_assert_eq(snapshots_resume("s"), 0);
	expect_all_there(snapshot);
}

Test(snapshot_handover, an_heir_that_goes_after_its_owner_is_the_end)
{
	create("t");
	cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
	snapshots_remove("s");
	snapshots_remove("t");
	snapshots_write(origin, 200, 8, 3);
	snapshot = snapshots_map("s", 512, TABLE);
	snapshots_expect(snapshot, 8, 8, 1);
	snapshots_expect(snapshot, 200, 8, 3);
}

Test(snapshot_handover, a_snapshot_that_ends_while_a_lost_table_is_left_begins_anew)
{
	struct dmcore_bdev *second = create("t");

	cr_assert_eq(snapshots_load("t", 512, TABLE), 0);
	snapshots_suspend("s");
	cr_assert_eq(snapshots_resume("t"), 0);
	snapshots_write(second, 400, 8, 4);
	snapshots_remove("t");
	snapshots_expect_status("s", "Invalid");
	second = snapshots_map("u", 512, TABLE);
	snapshots_expect_status("u", "40/256 16");
	snapshots_expect(second, 0, 8, 0);
	snapshots_expect(second, 8, 8, 1);
	snapshots_expect(second, 400, 8, 4);
	snapshots_write(origin, 200, 8, 5);
	snapshots_expect(second, 200, 8, 0);
}

Test(snapshot_handover, of_chunks_that_do_not_fit_the_new_table_fails_and_loses_nothing)
{
	struct dmcore_table *table;
	struct dmcore_device *device;

	create("t");
	device = dmcore_device_find(snapshots.stage.core, "t");
	cr_assert_eq(dmcore_table_parse(snapshots.stage.core,
					"0 12 zero\n12 100 snapshot " O " " C " P 4", 0,
					&table), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	snapshots_suspend("s");
	expect_not_resumed("t", "the target doesn't begin at a chunk of 8 sectors");
	cr_assert_eq(dmcore_device_clear(device), 0);
	snapshots_remove("t");
	cr_assert_eq(snapshots_resume("s"), 0, "%s", dmcore_error_message());
	expect_all_there(snapshot);
}

/* ---- with I/O under way ---- */

Test(snapshot_handover, with_writes_to_the_origin_under_way)
{
	static unsigned char bytes[4][8 * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	fault_add_rule(snapshots.origin, &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_READ, .times = 2 });
	snapshots_suspend("s");
	for (unsigned int i = 0; i < 4; i++) {
		pattern_fill(bytes[i], 64 + 8 * i, 8, 4);
		stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, 64 + 8 * i, 8, bytes[i],
			     &tally);
	}
	snapshots_await_held(snapshots.origin, 2);
	cr_assert_eq(snapshots_load("s", 512, "snapshot " O " " C " PO 8"), 0);
	fault_release_all(snapshots.origin);
	cr_assert_eq(snapshots_resume("s"), 0);
	snapshots_wait(&tally, 4);
	cr_assert_eq(tally.failed, 0);
	expect_all_there(snapshot);
	snapshots_expect(origin, 64, 32, 4);
}

Test(snapshot_handover, removal_waits_for_copies_that_are_under_way)
{
	static unsigned char bytes[8 * DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	pattern_fill(bytes, 64, 8, 4);
	stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, 64, 8, bytes, &tally);
	snapshots_remove("s");
	snapshots_wait(&tally, 1);
	cr_assert_eq(tally.failed, 0);
	snapshot = snapshots_map("s", 512, TABLE);
	snapshots_expect(snapshot, 8, 8, 1);
	snapshots_expect(origin, 64, 8, 4);
}

/* ---- with its core ---- */

Test(snapshot_end, with_its_core_is_as_good_as_removal)
{
	struct scratch files[2];
	char on_files[2][96];

	for (unsigned int i = 0; i < 2; i++)
		scratch_create(&files[i], NULL, SNAPSHOTS_ORIGIN_SECTORS * DMCORE_SECTOR_BYTES);
	snprintf(on_files[0], sizeof(on_files[0]), "snapshot-origin %s", files[0].path);
	snprintf(on_files[1], sizeof(on_files[1]), "snapshot %s %s P 8", files[0].path,
		 files[1].path);
	snapshots_open();
	snapshot = snapshots_map("s", 512, on_files[1]);
	origin = snapshots_map("o", 512, on_files[0]);
	snapshots_write(snapshot, 300, 3, 7);
	snapshots_write(origin, 64, 8, 4);
	/* Nobody removes them. */
	snapshots.stage.num_devices = 0;
	snapshots_close();
	snapshots_open();
	snapshot = snapshots_map("s", 512, on_files[1]);
	origin = snapshots_map("o", 512, on_files[0]);
	snapshots_expect(snapshot, 300, 3, 7);
	snapshots_expect_zeroes(snapshot, 64, 8);
	snapshots_expect(origin, 64, 8, 4);
	snapshots_expect_status("s", "32/512 16");
	snapshots_close();
	scratch_close(&files[0]);
	scratch_close(&files[1]);
}
