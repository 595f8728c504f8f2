/* SPDX-License-Identifier: MIT */
/* Copies that succeed: what arrives where, and what is told of it. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 4096

static struct copy copy;
static struct copies_end end;

static void open_disks(void)
{
	copies_open(9, SECTORS, "");
	copies_client(64, 64, 0);
}

TestSuite(copy, .init = open_disks, .fini = copies_close);

Test(copy, one_destination_gets_the_range_and_nothing_else)
{
	copies_set(&copy, 0, 100, 1000, 1, 0);
	copy.job.dests[0].sector = 33;
	copies_run(&copy);
	copies_expect_copied(&copy, 1000);
}

Test(copy, eight_destinations_get_it_from_one_read)
{
	copies_set(&copy, 0, 7, 777, KCOPYD_DESTS_MAX, 0);
	for (unsigned int i = 0; i < KCOPYD_DESTS_MAX; i++)
		copy.job.dests[i].sector = 1 + 300 * i;
	copies_run(&copy);
	copies_expect_copied(&copy, 777);
	copies_expect_touched(0, DMCORE_OP_READ, 7, 777, 1);
	for (unsigned int i = 1; i <= KCOPYD_DESTS_MAX; i++) {
		uint64_t sector = copy.job.dests[i - 1].sector;

		copies_expect_touched(i, DMCORE_OP_WRITE, sector, 777, 1);
		cr_assert_eq(copies_count(i, ~FAULT_WRITE), 0);
	}
}

Test(copy, one_sector)
{
	copies_set(&copy, 0, SECTORS - 1, 1, 2, 0);
	copy.job.dests[1].sector = 0;
	copies_run(&copy);
	copies_expect_copied(&copy, 1);
	copies_expect_touched(0, DMCORE_OP_READ, SECTORS - 1, 1, 1);
}

Test(copy, whole_device)
{
	copies_set(&copy, 0, 0, SECTORS, 2, 0);
	copies_run(&copy);
	copies_expect_copied(&copy, SECTORS);
}

Test(copy, place_on_the_same_device)
{
	copies_set(&copy, 0, 100, 500, 1, 0);
	copy.job.dests[0] = copies_region(0, 2000, 0);
	copies_run(&copy);
	copies_expect_copied(&copy, 500);
	copies_expect_own(0, 0, 2000);
	copies_expect_own(0, 2500, SECTORS - 2500);
}

Test(copy, two_places_on_one_device)
{
	copies_set(&copy, 0, 100, 500, 2, 0);
	copy.job.dests[0] = copies_region(1, 0, 0);
	copy.job.dests[1] = copies_region(1, 500, 0);
	copies_run(&copy);
	cr_assert_eq(pattern_differs(copies_bytes(1, 0), 100, 500, 1), -1);
	cr_assert_eq(pattern_differs(copies_bytes(1, 500), 100, 500, 1), -1);
	copies_expect_own(1, 1000, SECTORS - 1000);
}

/* The counts of destinations mean nothing when there is a source. */
Test(copy, counts_of_destinations_are_not_looked_at)
{
	struct dmio_region from = copies_region(0, 10, 90);
	struct dmio_region dests[2] = { copies_region(1, 10, 1), copies_region(2, 10, UINT64_MAX) };

	cr_assert_eq(copies_copy(&from, 2, dests, 0, &end), 0, "%s", dmcore_error_message());
	/* Both are copied by the call. */
	memset(&from, 0, sizeof(from));
	memset(dests, 0, sizeof(dests));
	copies_wait(&end);
	cr_assert_eq(end.read_err, 0);
	cr_assert_eq(end.write_err, 0);
	for (unsigned int i = 1; i <= 2; i++) {
		cr_assert_eq(pattern_differs(copies_bytes(i, 10), 10, 90, 1), -1);
		copies_expect_own(i, 0, 10);
		copies_expect_own(i, 100, SECTORS - 100);
	}
}

Test(copy, nothing_to_copy_succeeds_later_without_io)
{
	struct dmio_region from = copies_region(0, 10, 0);
	struct dmio_region dest = copies_region(1, 10, 7);
	struct kcopyd_progress progress;

	cr_assert_eq(copies_copy(&from, 1, &dest, 0, &end), 0, "%s", dmcore_error_message());
	cr_assert_eq(end.calls, 0);
	copies_wait(&end);
	cr_assert_eq(end.read_err, 0);
	cr_assert_eq(end.write_err, 0);
	copies_set(&copy, 0, SECTORS, 0, 2, 0);
	copies_run(&copy);
	progress = copies_progress(&copy);
	cr_assert_eq(progress.total_sectors, 0);
	cr_assert_eq(progress.position_sectors, 0);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(copies_count(i, 0), 0);
}

Test(copy, progress_of_a_job_that_has_ended_adds_up)
{
	struct kcopyd_progress progress;

	copies_set(&copy, 0, 0, 1001, 3, 0);
	copies_run(&copy);
	/* Time and other jobs don't change it. */
	copies_settle();
	progress = copies_progress(&copy);
	cr_assert_eq(progress.total_sectors, 1001);
	cr_assert_eq(progress.position_sectors, 1001);
	cr_assert_eq(progress.copied_sectors, 1001);
	cr_assert_eq(progress.zeroed_sectors, 0);
	cr_assert_eq(progress.skipped_sectors, 0);
	cr_assert_eq(progress.shared_sectors, 0);
	cr_assert_eq(progress.failed_sectors, 0);
	cr_assert_eq(progress.verified_sectors, 0);
	cr_assert_eq(progress.mismatch_sectors, UINT64_MAX);
}

Test(copy, progress_while_it_is_under_way_never_runs_ahead)
{
	struct kcopyd_progress progress;
	uint64_t before = 0;

	copies_hold(1, FAULT_WRITE);
	copies_set(&copy, 0, 0, 1000, 1, 0);
	copies_start(&copy);
	while (copy.end.calls == 0) {
		copies_settle();
		progress = copies_progress(&copy);
		cr_assert_eq(progress.total_sectors, 1000);
		cr_assert_leq(before, progress.position_sectors, "it went back");
		cr_assert_leq(progress.position_sectors, progress.copied_sectors);
		copies_expect_copied(&copy, progress.position_sectors);
		before = progress.position_sectors;
		/* The youngest first, so that the position waits for the oldest. */
		if (copies_held(1) > 0)
			fault_release(copies.disk[1], copies_held(1) - 1, 0);
	}
	copies_succeed(&copy);
}

Test(copy, progress_is_checked_and_cut_to_what_the_caller_knows)
{
	struct {
		size_t struct_size;
		uint64_t total_sectors;
		uint64_t position_sectors;
		uint64_t behind;
	} old = { .behind = 42 };
	struct kcopyd_progress progress = { 0 };

	old.struct_size = offsetof(struct kcopyd_progress, copied_sectors);
	copies_set(&copy, 0, 0, 100, 1, 0);
	copies_run(&copy);
	cr_assert_eq(kcopyd_progress(&copy.job, &progress), -EINVAL);
	progress.struct_size = sizeof(progress);
	cr_assert_eq(kcopyd_progress(NULL, &progress), -EINVAL);
	cr_assert_eq(kcopyd_progress(&copy.job, NULL), -EINVAL);
	cr_assert_eq(kcopyd_progress(&copy.job, (struct kcopyd_progress *)&old), 0);
	cr_assert_eq(old.total_sectors, 100);
	cr_assert_eq(old.position_sectors, 100);
	cr_assert_eq(old.behind, 42);
}

Test(copy, job_can_be_used_again)
{
	copies_set(&copy, 0, 0, 300, 1, 0);
	copies_run(&copy);
	copies_expect_copied(&copy, 300);
	copies_refill(1);
	copy.job.from.sector = 1000;
	copy.job.from.count = 200;
	copy.job.dests[0].sector = 3;
	copies_run(&copy);
	copies_expect_copied(&copy, 200);
	cr_assert_eq(copies_progress(&copy).total_sectors, 200);
	cr_assert_eq(copies_progress(&copy).copied_sectors, 200);
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* Copies through a client that has just as many pages as one block takes. */
static void copy_blocks(const char *args, unsigned int block_sectors, unsigned int pages)
{
	uint64_t count = 20 * (uint64_t)block_sectors;

	copies_open(3, SECTORS, args);
	copies_client(pages, 0, 0);
	copies_set(&copy, 0, block_sectors, count, 2, 0);
	copy.job.dests[1].sector = 5 * (uint64_t)block_sectors;
	copies_run(&copy);
	copies_expect_copied(&copy, count);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_gt(fault_num_logged(copies.disk[i]), 0);
		for (unsigned int n = 0; n < fault_num_logged(copies.disk[i]); n++) {
			struct fault_entry entry = fault_logged(copies.disk[i], n);

			cr_assert_eq(entry.count % block_sectors, 0);
			cr_assert_leq(entry.count, 8 * pages);
		}
	}
	copies_close();
}

Test(blocks, of_4096_bytes_pass_through_one_page)
{
	copy_blocks(",block=4096", 8, 1);
	copy_blocks(",block=4096", 8, 2);
}

Test(blocks, of_64_kib_pass_through_16_pages)
{
	copy_blocks(",block=65536", 128, 16);
	copy_blocks(",block=65536", 128, 31);
}

Test(blocks, of_different_sizes_on_source_and_destinations)
{
	copies_open(1, SECTORS, "");
	copies_add_disk(",block=4096");
	copies_add_disk(",block=16384");
	copies_client(7, 0, 0);
	copies_set(&copy, 0, 3, 32 * 5, 2, 0);
	copy.job.dests[0].sector = 8;
	copy.job.dests[1].sector = 32;
	copies_run(&copy);
	copies_expect_copied(&copy, 32 * 5);
	/* What doesn't fill the blocks of one destination fails there alone. */
	copies_refill(1);
	copies_refill(2);
	copy.job.from.count = 8;
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.read_err, 0);
	cr_assert_eq(copy.job.write_err, 2);
	cr_assert_eq(pattern_differs(copies_bytes(1, 8), 3, 8, 1), -1);
	copies_expect_own(2, 0, SECTORS);
	copies_close();
}

Test(blocks, client_with_too_few_pages_for_one_refuses_the_job)
{
	copies_open(1, SECTORS, "");
	copies_add_disk(",block=65536");
	copies_client(15, 0, 0);
	copies_set(&copy, 0, 0, 128, 1, 0);
	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	cr_assert_eq(copies_try(&copy), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "page"), "%s", dmcore_error_message());
	/* Nor can it read such blocks. */
	copy.job.from = copies_region(1, 0, 128);
	copy.job.dests[0] = copies_region(0, 0, 0);
	cr_assert_eq(copies_try(&copy), -EINVAL);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	copies_close();
}

Test(blocks, comparing_takes_two)
{
	copies_open(2, SECTORS, ",block=65536");
	copies_client(31, 0, 0);
	copies_set(&copy, 0, 0, 256, 1, KCOPYD_VERIFY);
	cr_assert_eq(copies_try(&copy), -EINVAL);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(32, 0, 0);
	copies_run(&copy);
	copies_expect_copied(&copy, 256);
	cr_assert_eq(copies_progress(&copy).verified_sectors, 256);
	copies_close();
}

/* Pages, requests and blocks that don't divide each other. */
Test(blocks, are_never_cut)
{
	copies_open(2, SECTORS, ",block=16384");
	copies_add_disk(",max_io=40");
	copies_client(9, 64, 0);
	copies_set(&copy, 0, 0, 640, 2, KCOPYD_VERIFY);
	copies_run(&copy);
	copies_expect_copied(&copy, 640);
	copies_refill(1);
	copies_refill(2);
	copy.job.flags = KCOPYD_WRITE_SEQ;
	copies_run(&copy);
	copies_expect_copied(&copy, 640);
	copies_close();
}

/* Blocks above a client's only page, for operations that take none. */
Test(blocks, zeroing_needs_no_pages)
{
	struct dmio_region dest;

	copies_open(1, SECTORS, ",block=65536");
	copies_client(1, 0, 0);
	dest = copies_region(0, 128, 256);
	cr_assert_eq(copies_zero(1, &dest, 0, &end), 0, "%s", dmcore_error_message());
	copies_wait(&end);
	cr_assert_eq(end.write_err, 0);
	copies_expect_own(0, 0, 128);
	copies_expect_zero(0, 128, 256);
	copies_expect_own(0, 384, SECTORS - 384);
	copies_close();
}
