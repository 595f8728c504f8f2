/* SPDX-License-Identifier: MIT */
/* Copies that fail: what is reported, what is still done, and what isn't begun any more. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 4096
#define SLICE 64
#define SLICES 12

static struct copy copy;
static struct copy again;
static struct copies_end end;
static struct rng rng;

static void open_disks(void)
{
	copies_open(9, SECTORS, "");
	copies_client(256, SLICE, 0);
	rng_start(&rng, 0);
}

TestSuite(errors, .init = open_disks, .fini = copies_close);

static void expect_status(const struct copy *one, int read_err, unsigned int write_err)
{
	cr_assert_eq(one->job.status, -EIO, "status %d", one->job.status);
	cr_assert_eq(one->job.read_err != 0, read_err != 0, "read_err %d", one->job.read_err);
	cr_assert_eq(one->job.write_err, write_err, "write_err %#x, not %#x", one->job.write_err,
		     write_err);
	cr_assert_eq(one->job.verify_err, 0);
}

/* What a job that has failed says is done is done, and the rest can be copied from there. */
static void expect_resumable(const struct copy *one)
{
	struct kcopyd_progress progress = copies_progress(one);
	uint64_t position = progress.position_sectors;

	copies_expect_copied(one, position);
	again = *one;
	memset(&again.job.internal, 0, sizeof(again.job.internal));
	again.job.context = &again;
	again.job.from.sector += position;
	again.job.from.count -= position;
	for (unsigned int i = 0; i < again.job.num_dests; i++)
		again.job.dests[i].sector += position;
	copies_run(&again);
	copies_expect_copied(one, one->job.from.count);
}

static void clear_disks(void)
{
	for (unsigned int i = 0; i < copies.num_disks; i++) {
		fault_clear_rules(copies.disk[i]);
		fault_clear_log(copies.disk[i]);
		copies_refill(i);
	}
}

/* ---- reading -------------------------------------------------------------------------------- */

Test(errors, read_error_leaves_the_destination_of_one_slice_alone)
{
	copies_fail(0, FAULT_READ, 10, 1);
	copies_set(&copy, 0, 0, SLICE, 2, 0);
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	cr_assert_eq(copies_count(1, 0), 0);
	cr_assert_eq(copies_count(2, 0), 0);
	cr_assert_eq(copies_progress(&copy).position_sectors, 0);
	cr_assert_eq(copies_progress(&copy).failed_sectors, SLICE);
}

Test(errors, read_error_in_any_slice_is_reported_and_resumed_behind)
{
	for (unsigned int k = 0; k < SLICES; k++) {
		clear_disks();
		copies_fail(0, FAULT_READ, 1 + SLICE * k + k, 1);
		copies_set(&copy, 0, 1, SLICE * SLICES, 2, 0);
		copies_start(&copy);
		copies_wait(&copy.end);
		expect_status(&copy, 1, 0);
		cr_assert_leq(copies_progress(&copy).position_sectors, SLICE * k);
		for (unsigned int i = 1; i < 3; i++)
			copies_expect_own(i, 1 + SLICE * k, SLICE);
		fault_clear_rules(copies.disk[0]);
		expect_resumable(&copy);
	}
}

Test(errors, ignored_read_error_in_any_slice_leaves_zeroes_there)
{
	for (unsigned int k = 0; k < SLICES; k++) {
		struct kcopyd_progress progress;
		uint64_t bad = 1 + SLICE * k;

		clear_disks();
		copies_fail(0, FAULT_READ, bad + k, 1);
		copies_set(&copy, 0, 1, SLICE * SLICES, 2, KCOPYD_IGNORE_ERROR);
		copies_start(&copy);
		copies_wait(&copy.end);
		expect_status(&copy, 1, 0);
		for (unsigned int i = 1; i < 3; i++) {
			copies_expect_zero(i, bad, SLICE);
			/* For what looks at the rest. */
			pattern_fill(copies_bytes(i, bad), bad, SLICE, 1);
		}
		copies_expect_copied(&copy, SLICE * SLICES);
		progress = copies_progress(&copy);
		cr_assert_eq(progress.position_sectors, SLICE * SLICES);
		cr_assert_eq(progress.failed_sectors, SLICE);
		cr_assert_eq(progress.copied_sectors, SLICE * (SLICES - 1));
	}
}

Test(errors, notify_tells_of_read_errors_too)
{
	struct dmio_region from = copies_region(0, 0, SLICE * 3);
	struct dmio_region dest = copies_region(1, 0, 0);

	copies_fail(0, FAULT_READ, SLICE, 1);
	cr_assert_eq(copies_copy(&from, 1, &dest, 0, &end), 0);
	copies_wait(&end);
	cr_assert_neq(end.read_err, 0);
	cr_assert_eq(end.write_err, 0);
	cr_assert_eq(copies_copy(&from, 1, &dest, KCOPYD_IGNORE_ERROR, &end), 0);
	copies_wait(&end);
	cr_assert_neq(end.read_err, 0);
	cr_assert_eq(end.write_err, 0);
	copies_expect_zero(1, SLICE, SLICE);
}

/* A slice whose reads the device takes in pieces, of which one fails. */
Test(errors, ignored_error_of_a_piece_never_copies_what_was_not_read)
{
	unsigned int disk = copies_add_disk(",max_io=8");
	const unsigned char *dest;

	copies_fail(disk, FAULT_READ, 20, 1);
	copies_set(&copy, 0, 0, SLICE, 1, KCOPYD_IGNORE_ERROR);
	copy.job.from = copies_region(disk, 0, SLICE);
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	copies_expect_zero(1, 16, 8);
	dest = copies_bytes(1, 0);
	for (uint64_t s = 0; s < SLICE; s++, dest += DMCORE_SECTOR_BYTES)
		cr_assert(pattern_differs(dest, s, 1, disk + 1) == -1 ||
			  (dest[0] == 0 && memcmp(dest, dest + 1, DMCORE_SECTOR_BYTES - 1) == 0));
	copies_expect_own(1, SLICE, SECTORS - SLICE);
}

Test(errors, nothing_is_started_after_a_read_error)
{
	unsigned int reads;

	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, SLICE * 20, 1, 0);
	copies_start(&copy);
	copies_settle();
	reads = copies_held(0);
	cr_assert_eq(reads, KCOPYD_SUBJOBS_MAX);
	fault_release(copies.disk[0], 3, -EIO);
	copies_settle();
	/* What the others have read isn't written, and the end waits for them. */
	while (copies_held(0) > 0) {
		cr_assert_eq(copy.end.calls, 0);
		fault_release(copies.disk[0], 0, 0);
		copies_settle();
	}
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	cr_assert_eq(copies_count(0, 0), reads);
	cr_assert_eq(copies_count(1, 0), 0);
	copies_let_go(0);
	expect_resumable(&copy);
}

/* So it is for a job whose other slices wait for pages. */
Test(errors, of_a_job_that_waits_for_pages_end_it_when_all_is_done)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(4, 8, 0);
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, SLICE, 1, 0);
	copies_start(&copy);
	copies_settle();
	cr_assert_eq(copies_held(0), 4);
	fault_release(copies.disk[0], 1, -EIO);
	copies_settle();
	while (copies_held(0) > 0) {
		cr_assert_eq(copy.end.calls, 0);
		fault_release(copies.disk[0], 0, 0);
		copies_settle();
	}
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	cr_assert_eq(copies_count(0, 0), 4);
	cr_assert_eq(copies_count(1, 0), 0);
	copies_let_go(0);
	expect_resumable(&copy);
}

/* ---- writing -------------------------------------------------------------------------------- */

static unsigned int fail_subset(unsigned int subset)
{
	for (unsigned int i = 0; i < KCOPYD_DESTS_MAX; i++) {
		if (subset >> i & 1)
			copies_fail(1 + i, FAULT_WRITE, 0, 0);
	}
	return subset;
}

static void expect_good_ones(unsigned int num_dests, unsigned int subset)
{
	for (unsigned int i = 0; i < num_dests; i++) {
		uint64_t sector = copy.job.dests[i].sector;

		if (subset >> i & 1)
			copies_expect_own(1 + i, 0, SECTORS);
		else
			cr_assert_eq(pattern_differs(copies_bytes(1 + i, sector),
						     copy.job.from.sector, copy.job.from.count, 1),
				     -1, "destination %u of subset %#x", i, subset);
	}
}

static void run_subset(unsigned int num_dests, unsigned int subset, uint64_t count,
		       unsigned int flags)
{
	clear_disks();
	fail_subset(subset);
	copies_set(&copy, 0, 5, count, num_dests, flags);
	copies_start(&copy);
	copies_wait(&copy.end);
	if (subset)
		expect_status(&copy, 0, subset);
	else
		cr_assert_eq(copy.job.status, 0);
	expect_good_ones(num_dests, subset);
}

Test(errors, write_err_is_the_subset_of_four_that_failed)
{
	for (unsigned int subset = 0; subset < 16; subset++) {
		struct dmio_region from = copies_region(0, 5, SLICE);

		run_subset(4, subset, SLICE, 0);
		clear_disks();
		fail_subset(subset);
		cr_assert_eq(copies_copy(&from, 4, copy.job.dests, 0, &end), 0);
		copies_wait(&end);
		cr_assert_eq(end.read_err, 0);
		cr_assert_eq(end.write_err, subset);
		expect_good_ones(4, subset);
	}
}

Test(errors, ignored_write_errors_let_the_good_ones_complete)
{
	for (unsigned int subset = 0; subset < 16; subset++) {
		struct kcopyd_progress progress;

		run_subset(4, subset, SLICES * SLICE + 1, KCOPYD_IGNORE_ERROR);
		progress = copies_progress(&copy);
		cr_assert_eq(progress.position_sectors, SLICES * SLICE + 1);
		cr_assert_eq(progress.copied_sectors, subset ? 0 : SLICES * SLICE + 1);
		cr_assert_eq(progress.failed_sectors, subset ? SLICES * SLICE + 1 : 0);
	}
}

Test(errors, write_err_has_a_bit_for_each_of_eight)
{
	for (unsigned int i = 0; i < KCOPYD_DESTS_MAX; i++)
		run_subset(KCOPYD_DESTS_MAX, 1u << i, SLICE, 0);
	run_subset(KCOPYD_DESTS_MAX, 0xff, SLICE, 0);
	run_subset(KCOPYD_DESTS_MAX, 0xa5, SLICES * SLICE, KCOPYD_IGNORE_ERROR);
}

/* Different slices fail at different destinations. */
Test(errors, write_err_collects_the_errors_of_all_slices)
{
	copies_fail(1, FAULT_WRITE, SLICE, 1);
	copies_fail(2, FAULT_WRITE, 3 * SLICE, 1);
	copies_fail(4, FAULT_WRITE, 11 * SLICE, 1);
	copies_set(&copy, 0, 0, SLICES * SLICE, 4, KCOPYD_IGNORE_ERROR);
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 0, 0xb);
	cr_assert_eq(copies_progress(&copy).failed_sectors, 3 * SLICE);
	cr_assert_eq(copies_progress(&copy).copied_sectors, 9 * SLICE);
	copies_expect_own(1, SLICE, SLICE);
	cr_assert_eq(pattern_differs(copies_bytes(1, 2 * SLICE), 2 * SLICE, 10 * SLICE, 1), -1);
	cr_assert_eq(pattern_differs(copies_bytes(3, 0), 0, SLICES * SLICE, 1), -1);
}

Test(errors, write_error_in_any_slice_is_reported_and_resumed_behind)
{
	for (unsigned int k = 0; k < SLICES; k++) {
		clear_disks();
		copies_fail(2, FAULT_WRITE, SLICE * k + k, 1);
		copies_set(&copy, 0, 0, SLICE * SLICES, 3, 0);
		copies_start(&copy);
		copies_wait(&copy.end);
		expect_status(&copy, 0, 2);
		cr_assert_leq(copies_progress(&copy).position_sectors, SLICE * k);
		fault_clear_rules(copies.disk[2]);
		expect_resumable(&copy);
	}
}

Test(errors, read_and_write_errors_are_told_together)
{
	copies_fail(0, FAULT_READ, 2 * SLICE, 1);
	copies_fail(2, FAULT_WRITE, 5 * SLICE, 1);
	copies_set(&copy, 0, 0, SLICE * SLICES, 2, KCOPYD_IGNORE_ERROR);
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 1, 2);
	cr_assert_eq(copies_progress(&copy).failed_sectors, 2 * SLICE);
}

static void release_at(unsigned int disk, uint64_t sector)
{
	for (unsigned int i = 0; i < copies_held(disk); i++) {
		if (fault_held(copies.disk[disk], i).sector == sector) {
			fault_release(copies.disk[disk], i, 0);
			return;
		}
	}
	cr_assert_fail("no request at %llu is held", (unsigned long long)sector);
}

Test(errors, nothing_is_started_after_a_write_error)
{
	uint64_t sector;
	unsigned int reads;
	unsigned int writes;

	copies_hold(0, FAULT_READ);
	copies_hold(1, FAULT_WRITE);
	copies_hold(2, FAULT_WRITE);
	copies_set(&copy, 0, 0, SLICE * 20, 2, 0);
	copies_start(&copy);
	copies_settle();
	for (unsigned int i = 0; i < 4; i++)
		fault_release(copies.disk[0], 0, 0);
	copies_settle();
	cr_assert_eq(copies_held(1), 4);
	cr_assert_eq(copies_held(2), 4);
	/* One slice: it fails at the first, and is written to the second. */
	sector = fault_held(copies.disk[1], 2).sector;
	fault_release(copies.disk[1], 2, -EIO);
	release_at(2, sector);
	copies_settle();
	reads = copies_count(0, 0);
	writes = copies_count(1, 0) + copies_count(2, 0);
	/* What is under way ends, and the end waits for all of it. */
	while (copies_held(0) + copies_held(1) + copies_held(2) > 0) {
		unsigned int disk = (unsigned int)rng_below(&rng, 3);

		cr_assert_eq(copy.end.calls, 0);
		if (copies_held(disk) > 0)
			fault_release(copies.disk[disk], 0, 0);
		copies_settle();
	}
	copies_wait(&copy.end);
	expect_status(&copy, 0, 1);
	cr_assert_leq(copies_count(0, 0), reads);
	cr_assert_eq(copies_count(1, 0) + copies_count(2, 0), writes);
	copies_let_go(0);
	copies_let_go(1);
	copies_let_go(2);
	expect_resumable(&copy);
}

/* The slices behind the one that failed may have been written: they don't count as done. */
Test(errors, position_stops_at_the_first_slice_that_failed)
{
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, SLICE * 8, 1, 0);
	copies_start(&copy);
	copies_settle();
	cr_assert_eq(copies_held(0), 8);
	/* The first two and the last four are copied before the third fails. */
	for (unsigned int i = 0; i < 4; i++)
		fault_release(copies.disk[0], copies_held(0) - 1, 0);
	fault_release(copies.disk[0], 0, 0);
	fault_release(copies.disk[0], 0, 0);
	copies_settle();
	cr_assert_eq(copies_count(1, FAULT_WRITE), 6);
	fault_release(copies.disk[0], 0, -EIO);
	fault_release(copies.disk[0], 0, -EIO);
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	cr_assert_eq(copies_progress(&copy).position_sectors, 2 * SLICE);
	cr_assert_eq(copies_progress(&copy).copied_sectors, 6 * SLICE);
	cr_assert_eq(copies_progress(&copy).failed_sectors, 2 * SLICE);
	copies_let_go(0);
	expect_resumable(&copy);
}

/* ---- ranges that a device refuses ----------------------------------------------------------- */

Test(errors, range_behind_the_end_is_an_error_and_no_refusal)
{
	copies_set(&copy, 0, SECTORS - 10, 20, 1, 0);
	copy.job.dests[0].sector = 0;
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	copies_set(&copy, 0, 0, 20, 3, 0);
	copy.job.dests[1].sector = SECTORS - 19;
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 0, 2);
	cr_assert_eq(pattern_differs(copies_bytes(1, 0), 0, 20, 1), -1);
	cr_assert_eq(pattern_differs(copies_bytes(3, 0), 0, 20, 1), -1);
}

Test(errors, read_only_destination_is_an_error_and_no_refusal)
{
	struct dmcore_bdev *read_only;

	read_only = stage_bdev(&copies.stage, "mem:1M", DMCORE_OPEN_READ_ONLY);
	copies_set(&copy, 0, 0, 20, 2, 0);
	copy.job.dests[0].bdev = read_only;
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 0, 1);
	cr_assert_eq(pattern_differs(copies_bytes(2, 0), 0, 20, 1), -1);
	/* Zeroing it, likewise. */
	cr_assert_eq(copies_zero(1, &(struct dmio_region){ read_only, 0, 8 }, 0, &end), 0);
	copies_wait(&end);
	cr_assert_eq(end.read_err, 0);
	cr_assert_eq(end.write_err, 1);
}

Test(errors, device_that_fails_everything)
{
	struct dmcore_bdev *bad = stage_map(&copies.stage, "bad", "0 4096 error");

	copies_set(&copy, 0, 0, SLICES * SLICE, 3, KCOPYD_IGNORE_ERROR);
	copy.job.dests[2].bdev = bad;
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 0, 4);
	copy.job.num_dests = 2;
	copies_expect_copied(&copy, SLICES * SLICE);
	copies_set(&copy, 0, 0, SLICES * SLICE, 1, 0);
	copy.job.from.bdev = bad;
	copies_refill(1);
	copies_start(&copy);
	copies_wait(&copy.end);
	expect_status(&copy, 1, 0);
	copies_expect_own(1, 0, SECTORS);
}

/* A job that has failed leaves a client that works. */
Test(errors, do_not_reach_other_jobs)
{
	copies_fail(0, FAULT_READ, 0, SLICE);
	copies_fail(1, FAULT_WRITE, 0, 1000);
	copies_set(&copy, 0, 0, 1000, 1, 0);
	copies_set(&again, 0, 1000, 1000, 2, 0);
	copies_start(&copy);
	copies_start(&again);
	copies_wait(&copy.end);
	copies_succeed(&again);
	expect_status(&copy, 1, copy.job.write_err);
	copies_expect_own(2, 0, 1000);
	copies_expect_own(1, 0, 1000);
	cr_assert_eq(pattern_differs(copies_bytes(1, 1000), 1000, 1000, 1), -1);
}
