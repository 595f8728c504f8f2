/* SPDX-License-Identifier: MIT */
/* Snapshots: which requests go where, what is copied, what is durable when, and what discards
 * do. The service is polled by the tests, so that they see what goes without it. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW
/* Of chunk n of the COW device, with chunks of 8 sectors. */
#define AT(n) ((n) * UINT64_C(8))

static struct dmcore_bdev *snapshot;
static unsigned char data[64 * DMCORE_SECTOR_BYTES];

static void open_snapshot(void)
{
	snapshots_open_manual();
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	fault_clear_log(snapshots.origin);
	fault_clear_log(snapshots.cow);
}

TestSuite(snapshot, .init = open_snapshot, .fini = snapshots_close);
TestSuite(snapshots, .init = snapshots_open_manual, .fini = snapshots_close);

static unsigned int count_all(struct fault_disk *disk)
{
	return fault_count(disk, 0);
}

/* Carries out a request with no poll of the service. */
static int run_without_service(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	struct tally tally = { 0 };

	pattern_fill(data, sector, count, 9);
	stage_submit(&snapshots.stage, snapshot, op, sector, count, data, &tally);
	stage_wait(&snapshots.stage, &tally, 1);
	return tally.status;
}

/* ---- ways ---- */

Test(snapshot, reads_an_unmapped_chunk_in_the_origin_and_needs_no_service)
{
	cr_assert_eq(run_without_service(DMCORE_OP_READ, 3, 20), 0);
	cr_assert_lt(pattern_differs(data, 3, 20, 0), 0);
	cr_assert_eq(count_all(snapshots.cow), 0);
}

Test(snapshot, reads_and_writes_a_mapped_chunk_in_the_cow_device_and_needs_no_service)
{
	snapshots_write(snapshot, 8, 8, 1);
	fault_clear_log(snapshots.origin);
	cr_assert_eq(run_without_service(DMCORE_OP_READ, 10, 4), 0);
	cr_assert_lt(pattern_differs(data, 10, 4, 1), 0);
	cr_assert_eq(run_without_service(DMCORE_OP_WRITE, 10, 4), 0);
	cr_assert_eq(count_all(snapshots.origin), 0);
	snapshots_expect_disk(snapshots.cow, 10, AT(2) + 2, 4, 9);
	snapshots_expect(snapshot, 8, 2, 1);
	snapshots_expect(snapshot, 14, 2, 1);
}

Test(snapshot, copies_what_a_write_leaves_of_a_chunk)
{
	snapshots_write(snapshot, 19, 2, 1);
	snapshots_expect(snapshot, 0, 19, 0);
	snapshots_expect(snapshot, 19, 2, 1);
	snapshots_expect(snapshot, 21, 491, 0);
	snapshots_expect_disk(snapshots.cow, 16, AT(2), 3, 0);
	snapshots_expect_disk(snapshots.cow, 19, AT(2) + 3, 2, 1);
	snapshots_expect_disk(snapshots.cow, 21, AT(2) + 5, 3, 0);
	snapshots_expect_disk(snapshots.origin, 0, 0, 512, 0);
	snapshots_expect_status("s", "24/256 16");
}

Test(snapshot, copies_nothing_for_a_write_that_covers_a_chunk)
{
	snapshots_write(snapshot, 16, 24, 1);
	cr_assert_eq(count_all(snapshots.origin), 0);
	snapshots_expect(snapshot, 16, 24, 1);
	snapshots_expect_disk(snapshots.cow, 16, AT(2), 24, 1);
	snapshots_expect_status("s", "40/256 16");
}

Test(snapshot, gives_chunks_out_in_the_order_of_its_writes)
{
	snapshots_write(snapshot, 100, 1, 1);
	snapshots_write(snapshot, 40, 8, 1);
	snapshots_write(snapshot, 500, 9, 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	for (unsigned int i = 0; i < 4; i++) {
		static const uint64_t chunks[] = { 12, 5, 62, 63 };
		struct dmcore_cow_entry entry = snapshots_entry(snapshots.cow, i);

		cr_assert_eq(entry.old_chunk, chunks[i]);
		cr_assert_eq(entry.new_chunk, i + 2);
	}
	cr_assert_eq(snapshots_entry(snapshots.cow, 4).new_chunk, 0);
}

Test(snapshot, never_writes_to_its_origin)
{
	snapshots_write(snapshot, 0, 20, 1);
	snapshots_write(snapshot, 3, 60, 2);
	snapshots_run(snapshot, DMCORE_OP_WRITE_ZEROES, 0, 70, 20, NULL);
	snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL);
	cr_assert_eq(fault_count(snapshots.origin, ~FAULT_READ), 0);
}

Test(snapshot, has_no_short_way_to_zeroes)
{
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_WRITE_ZEROES, 0, 13, 20, NULL),
		     -EOPNOTSUPP);
	snapshots_expect(snapshot, 0, 512, 0);
	snapshots_expect_status("s", "16/256 16");
}

Test(snapshot, writes_to_one_chunk_at_once_share_one_copy)
{
	struct tally tally = { 0 };
	static unsigned char bytes[4][8 * DMCORE_SECTOR_BYTES];

	for (unsigned int i = 0; i < 4; i++) {
		pattern_fill(bytes[i], 24 + 2 * i, 2, 1);
		stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 24 + 2 * i, 2, bytes[i],
			     &tally);
	}
	snapshots_wait(&tally, 4);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_count(snapshots.origin, FAULT_READ), 1);
	snapshots_expect(snapshot, 24, 8, 1);
	snapshots_expect_status("s", "24/256 16");
}

Test(snapshot, a_write_behind_one_that_covers_the_chunk_comes_to_lie_over_it)
{
	struct tally tally = { 0 };
	static unsigned char bytes[2][8 * DMCORE_SECTOR_BYTES];

	pattern_fill(bytes[0], 24, 8, 1);
	pattern_fill(bytes[1], 26, 2, 2);
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .action = FAULT_HOLD,
							     .ops = FAULT_WRITE,
			.times = 1 });
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 24, 8, bytes[0], &tally);
	snapshots_await_held(snapshots.cow, 1);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_WRITE, 26, 2, bytes[1], &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 0);
	fault_release_all(snapshots.cow);
	snapshots_wait(&tally, 2);
	snapshots_expect(snapshot, 24, 2, 1);
	snapshots_expect(snapshot, 26, 2, 2);
	snapshots_expect(snapshot, 28, 4, 1);
	cr_assert_eq(fault_count(snapshots.origin, FAULT_READ), 0);
}

Test(snapshot, makes_more_copies_than_it_can_at_once)
{
	static unsigned char bytes[64][DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *many;
	struct tally tally = { 0 };

	/* 512 chunks of a sector: more than are copied at the same time. */
	many = snapshots_map("many", 512, "snapshot " O " fault:1024,id=2 P 1");
	fault_add_rule(snapshots.origin, &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_READ, .times = 8 });
	for (unsigned int i = 0; i < 8; i++) {
		memset(bytes, 0x77, sizeof(bytes));
		stage_submit(&snapshots.stage, many, DMCORE_OP_WRITE, i * 64, 64, bytes, &tally);
	}
	snapshots_settle();
	fault_release_all(snapshots.origin);
	snapshots_wait(&tally, 8);
	cr_assert_eq(tally.failed, 0);
	snapshots_expect_status("many", "530/1024 18");
	cr_assert_eq(snapshots_run(many, DMCORE_OP_READ, 0, 448, 64, data), 0);
	cr_assert_eq(memcmp(data, bytes, sizeof(data)), 0);
}

Test(snapshots, whose_origin_ends_within_a_chunk_copies_what_there_is)
{
	struct fault_disk *origin = stage_disk(&snapshots.stage, 3, 21, "");
	struct dmcore_bdev *bdev;

	pattern_fill(fault_data(origin), 0, 21, 4);
	bdev = snapshots_map("s", 21, "snapshot fault:21,id=3 " C " P 8");
	snapshots_write(bdev, 17, 1, 1);
	snapshots_expect(bdev, 0, 17, 4);
	snapshots_expect(bdev, 17, 1, 1);
	snapshots_expect(bdev, 18, 3, 4);
	snapshots_write(bdev, 16, 5, 2);
	snapshots_expect(bdev, 16, 5, 2);
	snapshots_expect_status("s", "24/256 16");
}

/* ---- what is durable when ---- */

static unsigned int num_commits(void)
{
	unsigned int num = 0;

	for (unsigned int i = 0; i < fault_num_logged(snapshots.cow); i++) {
		struct fault_entry entry = fault_logged(snapshots.cow, i);

		num += entry.op == DMCORE_OP_WRITE && entry.sector >= 8 && entry.sector < 16 &&
		       entry.flags & DMCORE_BIO_FUA;
	}
	return num;
}

Test(snapshot, puts_its_entries_off_until_a_flush)
{
	for (unsigned int i = 0; i < 10; i++)
		snapshots_write(snapshot, i * 16, 3, 1);
	cr_assert_eq(num_commits(), 0);
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 0);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(num_commits(), 1);
	for (unsigned int i = 0; i < 10; i++)
		cr_assert_eq(snapshots_entry(snapshots.cow, i).old_chunk, i * 2);
	/* One that has nothing to commit goes without. */
	cr_assert_eq(run_without_service(DMCORE_OP_FLUSH, 0, 0), 0);
	cr_assert_eq(num_commits(), 1);
}

Test(snapshot, flushes_what_was_copied_before_its_entries_are_written)
{
	uint64_t copied = 0;
	uint64_t flush_begun = 0;
	uint64_t flush_ended = 0;
	uint64_t entries = 0;

	snapshots_write(snapshot, 3, 3, 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	for (unsigned int i = 0; i < fault_num_logged(snapshots.cow) && !entries; i++) {
		struct fault_entry entry = fault_logged(snapshots.cow, i);

		if (entry.op == DMCORE_OP_FLUSH) {
			flush_begun = entry.begun;
			flush_ended = entry.ended;
		} else if (entry.sector >= 16) {
			copied = entry.ended;
		} else {
			entries = entry.begun;
		}
	}
	cr_assert_gt(copied, 0);
	cr_assert_gt(flush_begun, copied);
	cr_assert_gt(entries, flush_ended);
}

Test(snapshot, a_flush_goes_to_the_cow_device_alone)
{
	snapshots_write(snapshot, 3, 3, 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(fault_count(snapshots.origin, FAULT_FLUSH), 0);
	cr_assert_gt(fault_count(snapshots.cow, FAULT_FLUSH), 0);
}

Test(snapshot, a_write_with_fua_has_its_entry_on_the_disk_when_it_ends)
{
	cr_assert_eq(snapshots_try_write(snapshot, DMCORE_BIO_FUA, 3, 3, 1), 0);
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 2);
	cr_assert_eq(snapshots_try_write(snapshot, DMCORE_BIO_FUA, 8, 8, 1), 0);
	cr_assert_eq(snapshots_entry(snapshots.cow, 1).new_chunk, 3);
	/* Also if it is mapped already, in memory. */
	snapshots_write(snapshot, 16, 8, 1);
	cr_assert_eq(snapshots_entry(snapshots.cow, 2).new_chunk, 0);
	cr_assert_eq(snapshots_try_write(snapshot, DMCORE_BIO_FUA, 16, 2, 2), 0);
	cr_assert_eq(snapshots_entry(snapshots.cow, 2).new_chunk, 4);
	snapshots_expect(snapshot, 16, 2, 2);
}

Test(snapshot, a_write_with_preflush_makes_those_before_it_durable)
{
	snapshots_write(snapshot, 3, 3, 1);
	snapshots_write(snapshot, 8, 8, 1);
	cr_assert_eq(snapshots_try_write(snapshot, DMCORE_BIO_PREFLUSH, 40, 8, 1), 0);
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 2);
	cr_assert_eq(snapshots_entry(snapshots.cow, 1).new_chunk, 3);
	cr_assert_eq(snapshots_entry(snapshots.cow, 2).new_chunk, 0);
}

Test(snapshot, that_is_suspended_has_its_entries_on_the_disk)
{
	snapshots_write(snapshot, 3, 3, 1);
	snapshots_suspend("s");
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 2);
	cr_assert_eq(snapshots_resume("s"), 0);
	snapshots_expect(snapshot, 3, 3, 1);
}

Test(snapshot, that_is_removed_has_its_entries_on_the_disk)
{
	snapshots_write(snapshot, 3, 3, 1);
	snapshots_remove("s");
	cr_assert_eq(snapshots_entry(snapshots.cow, 0).new_chunk, 2);
}

Test(snapshot, a_flush_waits_for_entries_that_are_on_their_way)
{
	struct tally tally = { 0 };

	snapshots_write(snapshot, 3, 3, 1);
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .action = FAULT_HOLD,
							     .ops = FAULT_WRITE,
			.times = 1 });
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	snapshots_await_held(snapshots.cow, 1);
	stage_submit(&snapshots.stage, snapshot, DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	snapshots_settle();
	cr_assert_eq(tally.ended, 0);
	fault_release_all(snapshots.cow);
	snapshots_wait(&tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(num_commits(), 1);
}

Test(snapshots, that_are_transient_commit_nothing)
{
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " N 8");
	snapshots_write(snapshot, 3, 3, 1);
	snapshots_write(snapshot, 16, 8, 1);
	cr_assert_eq(snapshots_try_write(snapshot, DMCORE_BIO_FUA, 40, 3, 1), 0);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	snapshots_expect_status("s", "24/256 0");
	snapshots_expect_disk(snapshots.cow, 0, 0, 3, 0);
	snapshots_expect_disk(snapshots.cow, 16, 8, 8, 1);
	snapshots_expect(snapshot, 3, 3, 1);
	snapshots_remove("s");
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " N 8");
	snapshots_expect_status("s", "0/256 0");
	snapshots_expect(snapshot, 0, 512, 0);
}

/* ---- errors ---- */

static void expect_invalid(uint32_t events)
{
	snapshots_expect_status("s", "Invalid");
	cr_assert_eq(snapshots_events("s"), events);
	cr_assert_eq(snapshots_try_read(snapshot, 300, 8), -EIO);
	cr_assert_eq(snapshots_try_write(snapshot, 0, 300, 8, 1), -EIO);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
}

Test(snapshot, whose_origin_cannot_be_read_for_a_copy_is_invalid)
{
	fault_add_rule(snapshots.origin, &(struct fault_rule){ .status = -EIO, .ops = FAULT_READ,
			.times = 1 });
	cr_assert_eq(snapshots_try_write(snapshot, 0, 3, 3, 1), -EIO);
	expect_invalid(1);
	cr_assert_str_eq(snapshots.stage.logged,
			 "snapshot: Invalidating snapshot: Error reading/writing.");
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 0);
	cr_assert_eq(snapshots_header(snapshots.cow).chunk_sectors, 8);
}

Test(snapshot, whose_cow_device_cannot_be_written_for_a_copy_is_invalid)
{
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -ENOSPC, .ops = FAULT_WRITE,
			.times = 1 });
	cr_assert_eq(snapshots_try_write(snapshot, 0, 3, 3, 1), -EIO);
	expect_invalid(1);
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 0);
}

Test(snapshot, whose_cow_device_cannot_be_written_for_a_whole_chunk_is_invalid)
{
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE,
			.times = 1 });
	cr_assert_eq(snapshots_try_write(snapshot, 0, 8, 8, 1), -EIO);
	expect_invalid(1);
}

Test(snapshot, whose_entries_cannot_be_written_is_invalid)
{
	snapshots_write(snapshot, 8, 8, 1);
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE,
			.sector = 8, .count = 8, .times = 1 });
	snapshots_run(snapshot, DMCORE_OP_FLUSH, 0, 0, 0, NULL);
	expect_invalid(1);
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 0);
}

Test(snapshot, whose_header_cannot_be_written_either_is_invalid_until_it_goes)
{
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE });
	cr_assert_eq(snapshots_try_write(snapshot, 0, 8, 8, 1), -EIO);
	expect_invalid(1);
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 1);
}

Test(snapshot, a_write_to_a_mapped_chunk_that_fails_is_that_write_s_alone)
{
	snapshots_write(snapshot, 8, 8, 1);
	fault_add_rule(snapshots.cow, &(struct fault_rule){ .status = -EIO, .ops = FAULT_WRITE,
			.times = 1 });
	cr_assert_eq(snapshots_try_write(snapshot, 0, 8, 4, 2), -EIO);
	snapshots_expect_status("s", "24/256 16");
	snapshots_expect(snapshot, 8, 8, 1);
}

/* ---- discards ---- */

Test(snapshot, takes_no_discards_unless_it_is_told_to)
{
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_DISCARD, 0, 8, 8, NULL), -EOPNOTSUPP);
}

Test(snapshots, zero_what_is_discarded_and_mapped)
{
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8 1 discard_zeroes_cow");
	snapshots_write(snapshot, 8, 24, 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_DISCARD, 0, 0, 24, NULL), 0);
	snapshots_expect(snapshot, 0, 8, 0);
	snapshots_expect_zeroes(snapshot, 8, 16);
	snapshots_expect(snapshot, 24, 8, 1);
	snapshots_expect(snapshot, 32, 480, 0);
	snapshots_expect_status("s", "40/256 16");
	cr_assert_eq(fault_count(snapshots.origin, ~FAULT_READ), 0);
}

Test(snapshots, discard_parts_of_chunks_that_are_mapped)
{
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8 1 discard_zeroes_cow");
	snapshots_write(snapshot, 8, 16, 1);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_DISCARD, 0, 12, 8, NULL), 0);
	snapshots_expect(snapshot, 8, 4, 1);
	snapshots_expect_zeroes(snapshot, 12, 8);
	snapshots_expect(snapshot, 20, 4, 1);
}

Test(snapshots, pass_discards_down_if_they_are_told_to)
{
	snapshot = snapshots_map("s", 512, "snapshot " O " " C " P 8 2 discard_zeroes_cow "
				 "discard_passdown_origin");
	snapshots_write(snapshot, 8, 8, 1);
	fault_clear_log(snapshots.origin);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_DISCARD, 0, 8, 16, NULL), 0);
	snapshots_expect_zeroes(snapshot, 8, 8);
	cr_assert_gt(fault_count(snapshots.origin, FAULT_DISCARD), 0);
}

Test(snapshots, discards_of_those_with_no_room_left_fail)
{
	snapshot = snapshots_map("s", 512, "snapshot " O " fault:24,id=5 PO 8 1 "
				 "discard_zeroes_cow");
	snapshots_write(snapshot, 8, 8, 1);
	cr_assert_eq(snapshots_try_write(snapshot, 0, 32, 8, 1), -EIO);
	cr_assert_eq(snapshots_run(snapshot, DMCORE_OP_DISCARD, 0, 8, 8, NULL), -EIO);
	snapshots_expect(snapshot, 8, 8, 1);
}

/* ---- extents ---- */

static void expect_extent(uint64_t sector, enum dmcore_extent_kind kind, uint64_t count)
{
	struct dmcore_extent extent;

	cr_assert_eq(dmcore_bdev_extent(snapshot, sector, 512 - sector, &extent), 0);
	cr_assert_eq(extent.kind, kind, "sector %llu", (unsigned long long)sector);
	cr_assert_eq(extent.count, count, "%llu sectors from %llu",
		     (unsigned long long)extent.count, (unsigned long long)sector);
}

Test(snapshots, over_zeroes_tell_where_their_data_are)
{
	snapshots_map("z", 512, "zero");
	snapshot = snapshots_map("s", 512, "snapshot z " C " P 8");
	expect_extent(3, DMCORE_EXTENT_ZERO, 509);
	snapshots_write(snapshot, 16, 16, 1);
	snapshots_write(snapshot, 101, 1, 1);
	expect_extent(0, DMCORE_EXTENT_ZERO, 16);
	expect_extent(18, DMCORE_EXTENT_DATA, 14);
	expect_extent(32, DMCORE_EXTENT_ZERO, 64);
	expect_extent(96, DMCORE_EXTENT_DATA, 8);
	expect_extent(104, DMCORE_EXTENT_ZERO, 408);
	snapshots_expect_zeroes(snapshot, 96, 5);
	snapshots_expect(snapshot, 101, 1, 1);
}
