/* SPDX-License-Identifier: MIT */
/* Jobs that zero: by the devices' own means if all have them, else by writing; with no pages. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 8192

static struct copy copy;
static struct copy other;
static struct copies_end end;

/* Two disks that can and two that can't. */
static void open_disks(void)
{
	char none[32];

	snprintf(none, sizeof(none), ",caps=%u", DMCORE_CAP_VOLATILE_CACHE | DMCORE_CAP_FUA);
	copies_open(2, SECTORS, "");
	copies_add_disk(none);
	copies_add_disk(none);
	copies_client(64, 64, 0);
}

TestSuite(zero, .init = open_disks, .fini = copies_close);

static void expect_zeroed(unsigned int disk, uint64_t sector, uint64_t count)
{
	copies_expect_own(disk, 0, sector);
	copies_expect_zero(disk, sector, count);
	copies_expect_own(disk, sector + count, SECTORS - sector - count);
}

static void zero(unsigned int num_dests, const struct dmio_region *dests)
{
	cr_assert_eq(copies_zero(num_dests, dests, 0, &end), 0, "%s", dmcore_error_message());
	copies_wait(&end);
	cr_assert_eq(end.read_err, 0);
	cr_assert_eq(end.write_err, 0);
}

Test(zero, uses_write_zeroes_where_all_devices_have_it)
{
	struct dmio_region dests[2] = { copies_region(0, 10, 5000), copies_region(1, 99, 0) };

	zero(2, dests);
	expect_zeroed(0, 10, 5000);
	expect_zeroed(1, 99, 5000);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_gt(copies_count(i, FAULT_WRITE_ZEROES), 0);
		cr_assert_eq(copies_count(i, ~FAULT_WRITE_ZEROES), 0);
	}
}

/* D-101 in docs/conformance.md */
Test(zero, by_write_zeroes_is_not_cut_at_the_sub_job_size)
{
	struct dmio_region dest = copies_region(0, 0, 4000);

	zero(1, &dest);
	cr_assert_eq(copies_count(0, FAULT_WRITE_ZEROES), 1);
	expect_zeroed(0, 0, 4000);
}

Test(zero, writes_if_one_device_has_no_write_zeroes)
{
	struct dmio_region dests[3] = { copies_region(0, 10, 5000), copies_region(2, 99, 1),
					copies_region(3, 0, 0) };

	zero(3, dests);
	expect_zeroed(0, 10, 5000);
	expect_zeroed(2, 99, 5000);
	expect_zeroed(3, 0, 5000);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(copies_count(i, FAULT_WRITE_ZEROES | FAULT_READ), 0);
	cr_assert_gt(copies_count(0, FAULT_WRITE), 0);
	cr_assert_gt(copies_count(2, FAULT_WRITE), 0);
}

/* Whichever it is. */
Test(zero, writes_whichever_device_has_no_write_zeroes)
{
	struct dmio_region dests[2] = { copies_region(2, 99, 500), copies_region(0, 10, 0) };

	zero(2, dests);
	expect_zeroed(2, 99, 500);
	expect_zeroed(0, 10, 500);
	cr_assert_eq(copies_count(0, FAULT_WRITE_ZEROES), 0);
	cr_assert_gt(copies_count(0, FAULT_WRITE), 0);
}

Test(zero, length_is_that_of_the_first_destination)
{
	struct dmio_region dests[2] = { copies_region(0, 0, 1), copies_region(1, 0, 4000) };

	zero(2, dests);
	expect_zeroed(0, 0, 1);
	expect_zeroed(1, 0, 1);
}

Test(zero, of_nothing_succeeds_later_without_io)
{
	struct dmio_region dest = copies_region(0, 5, 0);

	zero(1, &dest);
	cr_assert_eq(copies_count(0, 0), 0);
}

Test(zero, is_what_a_copy_from_nothing_does)
{
	struct dmio_region dests[2] = { copies_region(0, 10, 333), copies_region(2, 11, 0) };

	cr_assert_eq(copies_copy(NULL, 2, dests, 0, &end), 0, "%s", dmcore_error_message());
	copies_wait(&end);
	cr_assert_eq(end.write_err, 0);
	expect_zeroed(0, 10, 333);
	expect_zeroed(2, 11, 333);
}

Test(zero, is_what_a_job_without_a_source_does)
{
	struct kcopyd_progress progress;

	for (unsigned int disk = 0; disk < 3; disk += 2) {
		copies_set(&copy, 0, 0, 0, 1, 0);
		copy.job.from = (struct dmio_region){ NULL, 77, 12345 };
		copy.job.dests[0] = copies_region(disk, 64, 2000);
		copies_run(&copy);
		expect_zeroed(disk, 64, 2000);
		progress = copies_progress(&copy);
		cr_assert_eq(progress.total_sectors, 2000);
		cr_assert_eq(progress.position_sectors, 2000);
		cr_assert_eq(progress.zeroed_sectors + progress.copied_sectors, 2000);
		cr_assert_eq(progress.failed_sectors, 0);
	}
}

/* Zeroing is under way, slices of it, and the only page is there for a copy. */
Test(zero, takes_no_pages)
{
	static struct copies_end both[2];
	struct dmio_region dests[3] = { copies_region(0, 4000, 3000), copies_region(2, 4000, 100),
					copies_region(3, 4000, 0) };

	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(1, 8, 0);
	copies_hold(0, FAULT_WRITE_ZEROES);
	copies_hold(3, FAULT_WRITE);
	cr_assert_eq(copies_zero(1, dests, 0, &both[0]), 0);
	cr_assert_eq(copies_zero(2, dests + 1, 0, &both[1]), 0);
	copies_settle();
	cr_assert_gt(copies_held(0), 0);
	cr_assert_gt(copies_held(3), 0);
	copies_set(&other, 0, 0, 100, 1, 0);
	copies_run(&other);
	copies_expect_copied(&other, 100);
	cr_assert_eq(both[0].calls + both[1].calls, 0);
	copies_let_go(0);
	copies_let_go(3);
	copies_wait(&both[0]);
	copies_wait(&both[1]);
	copies_expect_zero(0, 4000, 3000);
	copies_expect_zero(2, 4000, 100);
	copies_expect_zero(3, 4000, 100);
}

/* Two copies wait, for a slow disk and for the page that the first one has. */
Test(zero, isnt_held_up_by_copies_that_wait_for_pages)
{
	static struct copies_end end;
	struct dmio_region dest = copies_region(2, 4000, 100);

	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(1, 8, 0);
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, 100, 1, 0);
	copies_set(&other, 0, 200, 100, 1, 0);
	copies_start(&copy);
	copies_start(&other);
	copies_settle();
	cr_assert_eq(copies_held(0), 1);
	cr_assert_eq(copies_zero(1, &dest, 0, &end), 0);
	copies_wait(&end);
	copies_expect_zero(2, 4000, 100);
	cr_assert_eq(copies_held(0), 1);
	copies_let_go(0);
	copies_wait(&copy.end);
	copies_wait(&other.end);
	cr_assert_eq(copy.job.status, 0);
	cr_assert_eq(other.job.status, 0);
	cr_assert_arr_eq(copies_bytes(1, copy.job.dests[0].sector), copies_bytes(0, 0), 100 * 512);
}

Test(zero, write_err_is_the_subset_that_failed)
{
	for (unsigned int subset = 0; subset < 16; subset++) {
		struct dmio_region dests[4];

		for (unsigned int i = 0; i < 4; i++) {
			dests[i] = copies_region(i, 32, 64);
			copies_refill(i);
			fault_clear_rules(copies.disk[i]);
			if (subset >> i & 1)
				copies_fail(i, 0, 0, 0);
		}
		cr_assert_eq(copies_zero(4, dests, 0, &end), 0);
		copies_wait(&end);
		cr_assert_eq(end.read_err, 0);
		cr_assert_eq(end.write_err, subset);
		for (unsigned int i = 0; i < 4; i++) {
			if (subset >> i & 1)
				copies_expect_own(i, 0, SECTORS);
			else
				expect_zeroed(i, 32, 64);
		}
	}
}

Test(zero, write_zeroes_that_fails_is_an_error_of_its_destination)
{
	struct dmio_region dests[2] = { copies_region(0, 0, 64), copies_region(1, 0, 0) };

	fault_add_rule(copies.disk[1], &(struct fault_rule){ .action = FAULT_FAIL,
							     .ops = FAULT_WRITE_ZEROES,
							     .status = -EIO });
	cr_assert_eq(copies_zero(2, dests, KCOPYD_IGNORE_ERROR, &end), 0);
	copies_wait(&end);
	cr_assert_eq(end.write_err, 2);
	expect_zeroed(0, 0, 64);
}

Test(zero, can_be_flushed_and_compared)
{
	for (unsigned int disk = 0; disk < 3; disk += 2) {
		copies_set(&copy, 0, 0, 0, 1, KCOPYD_FLUSH | KCOPYD_VERIFY);
		copy.job.from.bdev = NULL;
		copy.job.dests[0] = copies_region(disk, 64, 2000);
		copies_run(&copy);
		expect_zeroed(disk, 64, 2000);
		cr_assert_eq(copies_count(disk, FAULT_FLUSH), 1);
		cr_assert_eq(copies_progress(&copy).verified_sectors, 2000);
		copies_expect_touched(disk, DMCORE_OP_READ, 64, 2000, 1);
	}
}

Test(zero, that_is_compared_notices_what_did_not_become_zero)
{
	/* It says that it has zeroed, and hasn't. */
	fault_add_rule(copies.disk[0], &(struct fault_rule){ .action = FAULT_FAIL,
							     .ops = FAULT_WRITE_ZEROES,
							     .status = 0 });
	copies_set(&copy, 0, 0, 0, 1, KCOPYD_VERIFY);
	copy.job.from.bdev = NULL;
	copy.job.dests[0] = copies_region(0, 64, 2000);
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EILSEQ, "%d", copy.job.status);
	cr_assert_eq(copy.job.verify_err, 1);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, 0);
}

/* In sequence, and with small requests. */
Test(zero, in_sequence)
{
	for (unsigned int disk = 0; disk < 3; disk += 2) {
		uint64_t next = 64;
		uint64_t last_end = 0;

		copies_set(&copy, 0, 0, 0, 1, KCOPYD_WRITE_SEQ);
		copy.job.from.bdev = NULL;
		copy.job.dests[0] = copies_region(disk, 64, 5000);
		copies_run(&copy);
		expect_zeroed(disk, 64, 5000);
		for (unsigned int i = 0; i < fault_num_logged(copies.disk[disk]); i++) {
			struct fault_entry entry = fault_logged(copies.disk[disk], i);

			cr_assert_eq(entry.sector, next);
			cr_assert_gt(entry.begun, last_end);
			next += entry.count;
			last_end = entry.ended;
		}
		cr_assert_eq(next, 5064);
	}
}
