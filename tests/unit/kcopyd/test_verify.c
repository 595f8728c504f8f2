/* SPDX-License-Identifier: MIT */
/* What comes after the last write: flushes, and the comparison of what was written. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 4096
#define SLICE 64
#define COUNT (10 * SLICE + 3)
#define DESTS 4

static struct copy copy;
static struct copies_end end;
static struct rng rng;

static void open_disks(void)
{
	copies_open(DESTS + 1, SECTORS, "");
	copies_client(256, SLICE, 0);
	rng_start(&rng, 0);
}

TestSuite(verify, .init = open_disks, .fini = copies_close);

static void run(unsigned int flags)
{
	copies_set(&copy, 0, 5, COUNT, DESTS, flags);
	copies_start(&copy);
	copies_wait(&copy.end);
}

static void add_rule(unsigned int disk, enum fault_action action, unsigned int ops, int status)
{
	fault_add_rule(copies.disk[disk],
		       &(struct fault_rule){ .action = action, .ops = ops, .status = status });
}

/* ---- flushes -------------------------------------------------------------------------------- */

/* One flush of each destination, after the last write to it and before anything is read again. */
static void expect_flushed(unsigned int disk)
{
	uint64_t written = 0;
	uint64_t flushed = 0;
	uint64_t flush_ended = 0;

	cr_assert_eq(copies_count(disk, FAULT_FLUSH), 1);
	for (unsigned int i = 0; i < fault_num_logged(copies.disk[disk]); i++) {
		struct fault_entry entry = fault_logged(copies.disk[disk], i);

		if (entry.op == DMCORE_OP_WRITE && entry.ended > written)
			written = entry.ended;
		if (entry.op == DMCORE_OP_FLUSH) {
			flushed = entry.begun;
			flush_ended = entry.ended;
		}
		if (entry.op == DMCORE_OP_READ)
			cr_assert(flush_ended > 0 && entry.begun > flush_ended,
				  "disk %u: read before it was flushed", disk);
	}
	cr_assert_gt(written, 0);
	cr_assert_gt(flushed, written, "disk %u: flushed before all was written", disk);
}

Test(verify, flush_comes_after_the_last_write)
{
	for (unsigned int i = 0; i <= DESTS; i++)
		copies_hold(i, 0);
	copies_set(&copy, 0, 5, COUNT, DESTS, KCOPYD_FLUSH);
	copies_start(&copy);
	copies_scramble(&rng, &copy, 1);
	copies_succeed(&copy);
	copies_expect_copied(&copy, COUNT);
	cr_assert_eq(copies_count(0, FAULT_FLUSH), 0);
	for (unsigned int i = 1; i <= DESTS; i++)
		expect_flushed(i);
}

Test(verify, flush_comes_before_the_comparison)
{
	for (unsigned int i = 0; i <= DESTS; i++)
		copies_hold(i, 0);
	copies_set(&copy, 0, 5, COUNT, DESTS, KCOPYD_FLUSH | KCOPYD_VERIFY);
	copies_start(&copy);
	copies_scramble(&rng, &copy, 1);
	copies_succeed(&copy);
	for (unsigned int i = 1; i <= DESTS; i++)
		expect_flushed(i);
}

Test(verify, nothing_is_flushed_unless_asked_for)
{
	run(KCOPYD_VERIFY);
	cr_assert_eq(copy.job.status, 0);
	for (unsigned int i = 0; i <= DESTS; i++)
		cr_assert_eq(copies_count(i, FAULT_FLUSH), 0);
}

Test(verify, failing_flush_sets_the_bit_of_its_destination)
{
	for (unsigned int subset = 1; subset < 1u << DESTS; subset++) {
		struct dmio_region from = copies_region(0, 5, 10);

		for (unsigned int i = 0; i < DESTS; i++) {
			fault_clear_rules(copies.disk[1 + i]);
			if (subset >> i & 1)
				add_rule(1 + i, FAULT_FAIL, FAULT_FLUSH, -EIO);
			copies_refill(1 + i);
		}
		run(KCOPYD_FLUSH);
		cr_assert_eq(copy.job.status, -EIO);
		cr_assert_eq(copy.job.read_err, 0);
		cr_assert_eq(copy.job.write_err, subset);
		copies_expect_copied(&copy, COUNT);
		cr_assert_eq(copies_copy(&from, DESTS, copy.job.dests, KCOPYD_FLUSH, &end), 0);
		copies_wait(&end);
		cr_assert_eq(end.read_err, 0);
		cr_assert_eq(end.write_err, subset);
	}
}

Test(verify, end_waits_for_every_flush)
{
	for (unsigned int i = 1; i <= DESTS; i++)
		copies_hold(i, FAULT_FLUSH);
	copies_set(&copy, 0, 5, COUNT, DESTS, KCOPYD_FLUSH);
	copies_start(&copy);
	for (unsigned int i = 1; i <= DESTS; i++) {
		copies_settle();
		cr_assert_eq(copy.end.calls, 0);
		copies_let_go(i);
	}
	copies_succeed(&copy);
}

/* ---- comparing ------------------------------------------------------------------------------ */

Test(verify, compares_every_sector_of_every_destination)
{
	run(KCOPYD_VERIFY);
	cr_assert_eq(copy.job.status, 0);
	cr_assert_eq(copies_progress(&copy).verified_sectors, COUNT);
	cr_assert_eq(copies_progress(&copy).position_sectors, COUNT);
	cr_assert_eq(copies_progress(&copy).copied_sectors, COUNT);
	copies_expect_touched(0, DMCORE_OP_READ, 5, COUNT, 2);
	for (unsigned int i = 1; i <= DESTS; i++) {
		copies_expect_touched(i, DMCORE_OP_WRITE, 5, COUNT, 1);
		copies_expect_touched(i, DMCORE_OP_READ, 5, COUNT, 1);
	}
	copies_expect_copied(&copy, COUNT);
}

/* Changes a byte of a destination after it was written, and before it is read again. */
static void flip(unsigned int disk, uint64_t sector, unsigned int byte)
{
	copies_hold(disk, FAULT_FLUSH);
	copies_set(&copy, 0, 5, COUNT, DESTS, KCOPYD_FLUSH | KCOPYD_VERIFY);
	copies_start(&copy);
	copies_settle();
	cr_assert_eq(copies_held(disk), 1);
	copies_bytes(disk, sector)[byte] ^= 0x10;
	copies_let_go(disk);
	copies_wait(&copy.end);
}

Test(verify, finds_a_flipped_bit_wherever_it_is)
{
	for (unsigned int round = 0; round < 60; round++) {
		unsigned int dest = (unsigned int)rng_below(&rng, DESTS);
		uint64_t at = rng_below(&rng, COUNT);

		if (round < 2)
			at = round ? COUNT - 1 : 0;
		flip(1 + dest, 5 + at, (unsigned int)rng_below(&rng, DMCORE_SECTOR_BYTES));
		cr_assert_eq(copy.job.status, -EILSEQ, "status %d", copy.job.status);
		cr_assert_eq(copy.job.verify_err, 1u << dest);
		cr_assert_eq(copy.job.read_err, 0);
		cr_assert_eq(copy.job.write_err, 0);
		cr_assert_eq(copies_progress(&copy).mismatch_sectors, at, "%llu, not %llu",
			     (unsigned long long)copies_progress(&copy).mismatch_sectors,
			     (unsigned long long)at);
	}
}

/* One next to the range is none of its business. */
Test(verify, looks_at_nothing_else)
{
	flip(1, 4, 511);
	cr_assert_eq(copy.job.status, 0);
	flip(1, 5 + COUNT, 0);
	cr_assert_eq(copy.job.status, 0);
}

/* A disk that says it has written what it hasn't. */
Test(verify, finds_a_destination_that_lies)
{
	fault_add_rule(copies.disk[2], &(struct fault_rule){ .action = FAULT_TEAR,
							     .ops = FAULT_WRITE,
							     .skip = 3,
							     .times = 1,
							     .torn_sectors = 10,
							     .status = 0 });
	run(KCOPYD_VERIFY);
	cr_assert_eq(copy.job.status, -EILSEQ);
	cr_assert_eq(copy.job.verify_err, 2);
	cr_assert_eq(copy.job.write_err, 0);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors % SLICE, 10);
	/* Without a comparison nobody knows. */
	fault_clear_rules(copies.disk[2]);
	add_rule(2, FAULT_FAIL, FAULT_WRITE, 0);
	copies_refill(2);
	run(0);
	cr_assert_eq(copy.job.status, 0);
}

Test(verify, tells_every_destination_that_differs_if_errors_are_ignored)
{
	copies_hold(1, FAULT_FLUSH);
	copies_set(&copy, 0, 5, COUNT, DESTS,
		   KCOPYD_FLUSH | KCOPYD_VERIFY | KCOPYD_IGNORE_ERROR);
	copies_start(&copy);
	copies_settle();
	copies_bytes(1, 5 + 9 * SLICE)[0] ^= 1;
	copies_bytes(3, 5 + 2 * SLICE + 7)[0] ^= 1;
	copies_bytes(4, 5 + 5 * SLICE)[0] ^= 1;
	copies_let_go(1);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EILSEQ);
	cr_assert_eq(copy.job.verify_err, 0xd);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, 2 * SLICE + 7);
}

Test(verify, tells_of_a_destination_that_can_not_be_read)
{
	copies_fail(3, FAULT_READ, 100, 1);
	run(KCOPYD_VERIFY);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.read_err, 0);
	cr_assert_eq(copy.job.write_err, 0);
	cr_assert_eq(copy.job.verify_err, 4);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, UINT64_MAX);
	copies_expect_copied(&copy, COUNT);
}

Test(verify, tells_of_a_source_that_can_not_be_read_again)
{
	fault_add_rule(copies.disk[0], &(struct fault_rule){ .action = FAULT_FAIL,
							     .ops = FAULT_READ,
							     .sector = 300,
							     .count = 1,
							     .skip = 1,
							     .status = -EIO });
	run(KCOPYD_VERIFY);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_neq(copy.job.read_err, 0);
	cr_assert_eq(copy.job.write_err, 0);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, UINT64_MAX);
	copies_expect_copied(&copy, COUNT);
}

/* What differs has not been written whole. */
Test(verify, job_of_the_pool_sets_the_bit_of_what_differs)
{
	struct dmio_region from = copies_region(0, 5, COUNT);
	struct dmio_region dests[2] = { copies_region(1, 5, 0), copies_region(2, 5, 0) };

	add_rule(2, FAULT_FAIL, FAULT_WRITE, 0);
	cr_assert_eq(copies_copy(&from, 2, dests, KCOPYD_VERIFY, &end), 0);
	copies_wait(&end);
	cr_assert_eq(end.read_err, 0);
	cr_assert_eq(end.write_err, 2);
}

Test(verify, passes_through_two_pages)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(2, 0, 0);
	run(KCOPYD_VERIFY | KCOPYD_FLUSH);
	cr_assert_eq(copy.job.status, 0);
	cr_assert_eq(copies_progress(&copy).verified_sectors, COUNT);
	copies_refill(1);
	flip(1, 5 + 77, 3);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, 77);
}

/* Jobs that each need twice the pages don't stop each other. */
Test(verify, of_many_jobs_at_once_passes_through_few_pages)
{
	static struct copy many[20];

	for (unsigned int pages = 2; pages < 20; pages += 3) {
		cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
		copies_client(pages, 64, 0);
		for (unsigned int i = 0; i < 20; i++) {
			copies_set(&many[i], 0, 100 * i, 100, 2, KCOPYD_VERIFY);
			copies_start(&many[i]);
		}
		for (unsigned int i = 0; i < 20; i++) {
			copies_succeed(&many[i]);
			cr_assert_eq(copies_progress(&many[i]).verified_sectors, 100);
		}
	}
}
