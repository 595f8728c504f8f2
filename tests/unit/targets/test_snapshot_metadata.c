/* SPDX-License-Identifier: MIT */
/* Snapshots: how much of the metadata a commit writes, and where a table may have a snapshot. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW
/* Larger than SNAPSHOTS_COW: for more entries than a block has, which are 32. */
#define LARGE "fault:1024,id=large"
#define NUM_ENTRIES 41u

static struct fault_disk *large;

static void open_large(void)
{
	snapshots_open_manual();
	large = fault_disk_of(stage_bdev(&snapshots.stage, LARGE, 0));
}

TestSuite(snapshot_metadata, .init = open_large, .fini = snapshots_close);

/* Old chunks of which none continues the one before. */
static uint64_t chunk_of_entry(unsigned int nr)
{
	return nr < 32 ? nr * UINT64_C(2) : nr * UINT64_C(2) - 63;
}

static void write_entries(struct dmcore_bdev *bdev, unsigned int first, unsigned int count)
{
	for (unsigned int i = first; i < first + count; i++)
		snapshots_write(bdev, chunk_of_entry(i) * 8, 8, 1);
	cr_assert_eq(snapshots_run(bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
}

/* Commit `nr` since the log was cleared: a write with FUA. */
static struct fault_entry commit(unsigned int nr)
{
	struct fault_entry entry = { .count = 0 };

	for (unsigned int i = 0; i < fault_num_logged(large); i++) {
		entry = fault_logged(large, i);
		if (entry.op == DMCORE_OP_WRITE && entry.flags & DMCORE_BIO_FUA && nr-- == 0)
			return entry;
	}
	cr_assert_fail("there weren't so many commits");
	return entry;
}

Test(snapshot_metadata, a_commit_writes_the_blocks_that_have_changed)
{
	struct dmcore_bdev *bdev = snapshots_map("s", 512, "snapshot " O " " LARGE " P 8");

	fault_clear_log(large);
	write_entries(bdev, 0, NUM_ENTRIES - 1);
	write_entries(bdev, NUM_ENTRIES - 1, 1);
	cr_assert_eq(commit(0).sector, 8);
	cr_assert_eq(commit(0).count, 2);
	cr_assert_eq(commit(1).sector, 9);
	cr_assert_eq(commit(1).count, 1);
}

static unsigned int num_commits(void)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < fault_num_logged(large); i++) {
		struct fault_entry entry = fault_logged(large, i);

		count += entry.op == DMCORE_OP_WRITE && entry.flags & DMCORE_BIO_FUA;
	}
	return count;
}

Test(snapshot_metadata, writes_to_the_origin_share_their_commits)
{
	static unsigned char bytes[NUM_ENTRIES][8 * DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *origin = snapshots_map("o", 512, "snapshot-origin " O);
	struct tally tally = { 0 };

	snapshots_map("s", 512, "snapshot " O " " LARGE " P 8");
	fault_clear_log(large);
	for (unsigned int i = 0; i < NUM_ENTRIES; i++) {
		pattern_fill(bytes[i], i * 8, 8, 1);
		stage_submit(&snapshots.stage, origin, DMCORE_OP_WRITE, i * 8, 8, bytes[i],
			     &tally);
	}
	snapshots_wait(&tally, NUM_ENTRIES);
	cr_assert_eq(tally.failed, 0);
	cr_assert_geq(num_commits(), 1);
	/* One is under way, and what comes meanwhile goes with the next. */
	cr_assert_leq(num_commits(), 3, "%u", num_commits());
}

Test(snapshot_metadata, writes_to_the_snapshot_commit_nothing_until_a_flush)
{
	struct dmcore_bdev *bdev = snapshots_map("s", 512, "snapshot " O " " LARGE " P 8");

	fault_clear_log(large);
	for (unsigned int i = 0; i < NUM_ENTRIES; i++)
		snapshots_write(bdev, chunk_of_entry(i) * 8, 3, 1);
	cr_assert_eq(num_commits(), 0);
	cr_assert_eq(snapshots_run(bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(num_commits(), 1);
	cr_assert_eq(snapshots_run(bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(num_commits(), 1);
}

Test(snapshot_metadata, a_merge_writes_the_blocks_that_entries_go_from)
{
	struct dmcore_bdev *bdev = snapshots_map("s", 512, "snapshot " O " " LARGE " P 8");

	write_entries(bdev, 0, NUM_ENTRIES);
	fault_clear_log(large);
	snapshots_reload("s", 512, "snapshot-merge " O " " LARGE " P 8");
	snapshots_await_status("s", "16/1024 16");
	for (unsigned int i = 0; i < NUM_ENTRIES; i++) {
		cr_assert_eq(commit(i).sector, i < NUM_ENTRIES - 32 ? 9 : 8);
		cr_assert_eq(commit(i).count, 1);
	}
	snapshots_expect_disk(snapshots.origin, 0, 0, 8, 1);
}

/* Returns what resuming such a table returned. */
static int resume_behind_zeroes(unsigned int sectors)
{
	struct dmcore_device *device;
	struct dmcore_table *table;
	char text[200];

	snprintf(text, sizeof(text), "0 %u zero\n%u %u snapshot " O " " C " P 8", sectors,
		 sectors, 512 - sectors);
	cr_assert_eq(dmcore_table_parse(snapshots.stage.core, text, 0, &table), 0);
	cr_assert_eq(dmcore_device_create(snapshots.stage.core, "behind", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	return dmcore_device_resume(device);
}

Test(snapshot_metadata, a_snapshot_begins_at_a_chunk)
{
	cr_assert_eq(resume_behind_zeroes(4), -EINVAL);
	cr_assert(strstr(dmcore_error_message(),
			 "the target doesn't begin at a chunk of 8 sectors"));
}

Test(snapshot_metadata, a_snapshot_behind_another_target_is_of_the_same_sectors)
{
	struct dmcore_bdev *bdev;

	cr_assert_eq(resume_behind_zeroes(16), 0);
	bdev = dmcore_device_bdev(dmcore_device_find(snapshots.stage.core, "behind"));
	snapshots_expect(bdev, 16, 496, 0);
	snapshots_write(bdev, 15, 10, 1);
	snapshots_expect_zeroes(bdev, 0, 16);
	snapshots_expect(bdev, 16, 9, 1);
	snapshots_expect(bdev, 25, 487, 0);
}

Test(snapshot_metadata, the_granularity_of_discards_is_a_chunk)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_bdev *bdev =
		snapshots_map("s", 512, "snapshot " O " " C " P 8 1 discard_zeroes_cow");

	dmcore_bdev_limits(bdev, &limits);
	cr_assert_eq(limits.discard_granularity_bytes, 8 * DMCORE_SECTOR_BYTES);
}
