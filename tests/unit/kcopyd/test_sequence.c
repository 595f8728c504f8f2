/* SPDX-License-Identifier: MIT */
/* Copies that write in sequence: ascending, one write at a time, and nothing behind an error. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 4096
#define SLICE 64
#define SLICES 12

static struct copy copy;
static struct copy again;
static struct rng rng;

static void open_disks(void)
{
	copies_open(4, SECTORS, "");
	copies_client(256, SLICE, 0);
	rng_start(&rng, 0);
}

TestSuite(sequence, .init = open_disks, .fini = copies_close);

static void clear_disks(void)
{
	for (unsigned int i = 0; i < copies.num_disks; i++) {
		fault_clear_rules(copies.disk[i]);
		fault_clear_log(copies.disk[i]);
		copies_refill(i);
	}
}

/* It has failed so; what it says is done is done, and the rest can be copied from there. */
static void expect_failed(int read_err, unsigned int write_err)
{
	uint64_t position = copies_progress(&copy).position_sectors;

	cr_assert_eq(copy.job.status, -EIO, "status %d", copy.job.status);
	cr_assert_eq(copy.job.read_err != 0, read_err != 0);
	cr_assert_eq(copy.job.write_err, write_err);
	for (unsigned int i = 0; i < copies.num_disks; i++)
		fault_clear_rules(copies.disk[i]);
	copies_expect_copied(&copy, position);
	copies_set(&again, 0, copy.job.from.sector + position, copy.job.from.count - position,
		   copy.job.num_dests, copy.job.flags);
	copies_run(&again);
	copies_expect_copied(&copy, copy.job.from.count);
}

/* Each destination saw the range in ascending order, and one write at a time. */
static void expect_in_sequence(unsigned int disk, uint64_t sector, uint64_t count)
{
	uint64_t last_end = 0;

	cr_assert_gt(fault_num_logged(copies.disk[disk]), 0);
	for (unsigned int i = 0; i < fault_num_logged(copies.disk[disk]); i++) {
		struct fault_entry entry = fault_logged(copies.disk[disk], i);

		cr_assert(entry.op == DMCORE_OP_WRITE || entry.op == DMCORE_OP_WRITE_ZEROES);
		cr_assert_eq(entry.sector, sector, "disk %u, write %u: at %llu, not %llu", disk, i,
			     (unsigned long long)entry.sector, (unsigned long long)sector);
		cr_assert_gt(entry.begun, last_end, "disk %u: two at a time", disk);
		sector += entry.count;
		count -= entry.count;
		last_end = entry.ended;
	}
	cr_assert_eq(count, 0);
}

static void run_in_sequence(unsigned int rounds)
{
	for (unsigned int round = 0; round < rounds; round++) {
		clear_disks();
		copies_hold(0, FAULT_READ);
		for (unsigned int i = 1; i < 4; i++)
			copies_hold(i, FAULT_WRITE);
		copies_set(&copy, 0, round, SLICES * SLICE + round, 3, KCOPYD_WRITE_SEQ);
		copy.job.dests[1].sector = 1000;
		copies_start(&copy);
		copies_scramble(&rng, &copy, 1);
		copies_succeed(&copy);
		for (unsigned int i = 0; i < 3; i++)
			expect_in_sequence(1 + i, copy.job.dests[i].sector,
					   copy.job.from.count);
		copies_expect_copied(&copy, copy.job.from.count);
	}
}

Test(sequence, writes_ascend_one_at_a_time)
{
	run_in_sequence(10);
}

/* Devices that take no more than so much at a time still get one write at a time. */
Test(sequence_elsewhere, holds_for_devices_that_split)
{
	copies_open(1, SECTORS, "");
	copies_add_disk(",max_io=16");
	copies_add_disk(",chunk=24");
	copies_add_disk(",max_io=128");
	copies_client(256, SLICE, 0);
	rng_start(&rng, 1);
	run_in_sequence(3);
	copies_close();
}

/* Lets the writes of one destination end one by one. */
static void expect_each_alone(uint64_t count)
{
	copies_hold(1, FAULT_WRITE | FAULT_WRITE_ZEROES);
	copies_start(&copy);
	copies_settle();
	while (copies_held(1) > 0) {
		cr_assert_eq(copies_held(1), 1);
		fault_release(copies.disk[1], 0, 0);
		copies_settle();
	}
	copies_succeed(&copy);
	expect_in_sequence(1, 0, count);
}

/* A device that could zero by itself has zeroes written if another one can't. */
Test(sequence_elsewhere, holds_for_zeroes_that_are_written)
{
	copies_open(1, SECTORS, "");
	copies_add_disk(",max_io=16");
	copies_add_disk(",caps=1");
	copies_client(256, SLICE, 0);
	copies_set(&copy, 0, 0, 0, 2, KCOPYD_WRITE_SEQ);
	copy.job.from.bdev = NULL;
	copy.job.dests[0].count = SLICES * SLICE;
	expect_each_alone(SLICES * SLICE);
	copies_expect_zero(1, 0, SLICES * SLICE);
	copies_close();
}

Test(sequence_elsewhere, holds_for_zeroes_that_are_found)
{
	copies_open(1, SECTORS, "");
	copies_add_disk(",max_zeroes=8");
	copies_client(256, SLICE, 0);
	copies_set(&copy, 0, 0, SLICE, 1, KCOPYD_WRITE_SEQ | KCOPYD_SPARSE);
	memset(copies_bytes(0, 0), 0, (size_t)SLICE * DMCORE_SECTOR_BYTES);
	expect_each_alone(SLICE);
	copies_expect_zero(1, 0, SLICE);
	copies_close();
}

Test(sequence, writes_let_reads_run_ahead)
{
	copies_hold(1, FAULT_WRITE);
	copies_set(&copy, 0, 0, SLICES * SLICE, 1, KCOPYD_WRITE_SEQ);
	copies_start(&copy);
	copies_settle();
	cr_assert_eq(copies_held(1), 1);
	cr_assert_gt(copies_count(0, FAULT_READ), 1);
	while (copies_held(1) > 0) {
		cr_assert_eq(copies_held(1), 1);
		fault_release(copies.disk[1], 0, 0);
		copies_settle();
	}
	copies_succeed(&copy);
	expect_in_sequence(1, 0, SLICES * SLICE);
}

/* With one page, too, where a slice that has been read early must not keep the next one out. */
Test(sequence_elsewhere, makes_progress_with_few_pages)
{
	static const unsigned int pages[] = { 1, 2, 3, 9 };

	for (unsigned int i = 0; i < 4; i++) {
		copies_open(4, SECTORS, "");
		copies_client(pages[i], 8, 0);
		rng_start(&rng, i);
		run_in_sequence(2);
		copies_close();
	}
}

Test(sequence, job_does_not_ignore_errors)
{
	copies_fail(0, FAULT_READ, 3 * SLICE, 1);
	copies_set(&copy, 0, 0, SLICES * SLICE, 1, KCOPYD_WRITE_SEQ | KCOPYD_IGNORE_ERROR);
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_leq(copies_progress(&copy).position_sectors, 3 * SLICE);
	copies_expect_own(1, 3 * SLICE, SECTORS - 3 * SLICE);
	expect_failed(1, 0);
}

Test(sequence, job_writes_nothing_behind_a_failed_write)
{
	copies_fail(2, FAULT_WRITE, 2 * SLICE, 1);
	copies_set(&copy, 0, 0, SLICES * SLICE, 2, KCOPYD_WRITE_SEQ);
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copies_progress(&copy).position_sectors, 2 * SLICE);
	for (unsigned int i = 1; i < 3; i++)
		copies_expect_own(i, 3 * SLICE, SECTORS - 3 * SLICE);
	expect_failed(0, 2);
}
