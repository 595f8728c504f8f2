/* SPDX-License-Identifier: MIT */
/* Copies onto themselves: data is moved as memmove() does it, in whatever order requests end. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 1024
#define FROM 300
#define SLICE 32

static struct copy copy;
static struct rng rng;

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
	copies_client(64, SLICE, 0);
	rng_start(&rng, 0);
}

TestSuite(overlap, .init = open_disks, .fini = copies_close);

/* Moves `count` sectors from FROM by `shift`; to another disk too if asked for. */
static void set_move(uint64_t count, int64_t shift, unsigned int num_dests)
{
	copies_refill(0);
	copies_set(&copy, 0, FROM, count, num_dests, 0);
	copy.job.dests[0] = copies_region(0, (uint64_t)(FROM + shift), 0);
	if (num_dests > 1)
		copy.job.dests[1] = copies_region(1, FROM, 0);
}

static void expect_moved(void)
{
	uint64_t to = copy.job.dests[0].sector;
	uint64_t count = copy.job.from.count;

	cr_assert_eq(pattern_differs(copies_bytes(0, to), FROM, count, 1), -1,
		     "%llu sectors moved to %llu", (unsigned long long)count,
		     (unsigned long long)to);
	/* What is neither in the destination nor behind it is as it was. */
	for (uint64_t s = 0; s < SECTORS; s++) {
		if (s < to || s >= to + count)
			copies_expect_own(0, s, 1);
	}
	if (copy.job.num_dests > 1)
		cr_assert_eq(pattern_differs(copies_bytes(1, copy.job.dests[1].sector), FROM,
					     count, 1),
			     -1);
}

static const int64_t shifts[] = { 1, 7, 8, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE, 130, 249 };

static void move_all(uint64_t count, unsigned int num_dests, unsigned int flags)
{
	for (unsigned int i = 0; i < sizeof(shifts) / sizeof(shifts[0]); i++) {
		for (int sign = -1; sign <= 1; sign += 2) {
			set_move(count, sign * shifts[i], num_dests);
			copy.job.flags = flags;
			copies_run(&copy);
			expect_moved();
			cr_assert_eq(copies_progress(&copy).position_sectors, count);
		}
	}
}

Test(overlap, of_one_slice_is_moved_either_way)
{
	move_all(SLICE, 1, 0);
	move_all(1, 1, 0);
	move_all(SLICE, 2, 0);
}

Test(overlap, of_many_slices_is_moved_either_way)
{
	move_all(250, 1, 0);
	move_all(8 * SLICE, 1, 0);
}

Test(overlap, with_another_destination_is_moved_either_way)
{
	move_all(250, 2, 0);
}

Test(overlap, with_any_flag_is_moved_either_way)
{
	move_all(250, 2, KCOPYD_IGNORE_ERROR);
	move_all(250, 1, KCOPYD_FLUSH);
	move_all(250, 1, KCOPYD_SPARSE);
	move_all(250, 1, KCOPYD_SHARE);
}

Test(overlap, with_the_range_itself_changes_nothing)
{
	set_move(250, 0, 2);
	copies_run(&copy);
	expect_moved();
}

Test(overlap, is_moved_with_one_page)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(1, 0, 0);
	move_all(100, 2, 0);
}

Test(overlap, is_moved_by_slices_of_one_large_request)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(256, 1024, 0);
	move_all(250, 2, 0);
}

/* Nothing ends before it is let go, the youngest as likely as the oldest. */
Test(overlap, is_moved_whatever_order_requests_end_in)
{
	for (unsigned int i = 0; i < sizeof(shifts) / sizeof(shifts[0]); i++) {
		for (int sign = -1; sign <= 1; sign += 2) {
			set_move(250, sign * shifts[i], 2);
			copies_hold(0, 0);
			copies_hold(1, 0);
			copies_start(&copy);
			copies_scramble(&rng, &copy, 1);
			copies_succeed(&copy);
			copies_let_go(0);
			copies_let_go(1);
			expect_moved();
		}
	}
}

Test(overlap, with_two_other_destinations)
{
	for (int sign = -1; sign <= 1; sign += 2) {
		set_move(100, sign * 60, 2);
		copy.job.num_dests = 3;
		copy.job.dests[2] = copies_region(2, 7, 0);
		copies_run(&copy);
		expect_moved();
		cr_assert_eq(pattern_differs(copies_bytes(2, 7), FROM, 100, 1), -1);
	}
}

Test(overlap, on_either_side_is_refused)
{
	set_move(100, 60, 1);
	copy.job.num_dests = 2;
	copy.job.dests[1] = copies_region(0, FROM - 60, 0);
	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	cr_assert_eq(copies_try(&copy), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "overlap"), "%s",
			   dmcore_error_message());
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	copies_expect_own(0, 0, SECTORS);
	/* One that only touches the source doesn't overlap it. */
	copy.job.dests[1].sector = FROM - 100;
	copies_run(&copy);
	cr_assert_eq(pattern_differs(copies_bytes(0, FROM - 100), FROM, 100, 1), -1);
	cr_assert_eq(pattern_differs(copies_bytes(0, FROM + 60), FROM, 100, 1), -1);
}

static void expect_refused(unsigned int flags)
{
	copy.job.flags = flags;
	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	cr_assert_eq(copies_try(&copy), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "overlap"), "%s",
			   dmcore_error_message());
	copies_expect_own(0, 0, SECTORS);
}

/* There would be nothing to compare with, and no order to write in. */
Test(overlap, is_refused_where_it_cannot_be_compared_or_written_in_sequence)
{
	set_move(100, 60, 1);
	expect_refused(KCOPYD_VERIFY);
	expect_refused(KCOPYD_WRITE_SEQ);
	set_move(100, -60, 1);
	expect_refused(KCOPYD_VERIFY);
	copy.job.flags = KCOPYD_WRITE_SEQ;
	copies_run(&copy);
	expect_moved();
}

/* A read fails in the third of eight slices. Returns how much is done. */
static uint64_t fail_third_slice(int64_t shift)
{
	set_move(8 * SLICE, shift, 1);
	copies_fail(0, FAULT_READ, FROM + 2 * SLICE, 1);
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_neq(copy.job.read_err, 0);
	copies_let_go(0);
	return copies_progress(&copy).position_sectors;
}

/* Where data is moved back to front, what is done counts from the end. */
Test(overlap, position_counts_from_the_end_of_a_range_moved_behind_itself)
{
	uint64_t position = fail_third_slice(16);
	uint64_t left = 8 * SLICE - position;

	cr_assert_leq(position, 5 * SLICE);
	cr_assert_eq(pattern_differs(copies_bytes(0, FROM + 16 + left), FROM + left, position, 1),
		     -1);
	/* The rest is what lies before. */
	copy.job.from.count = left;
	copies_run(&copy);
	copy.job.from.count = 8 * SLICE;
	expect_moved();
}

Test(overlap, position_counts_from_the_start_of_a_range_moved_before_itself)
{
	uint64_t position = fail_third_slice(-16);

	cr_assert_leq(position, 2 * SLICE);
	copy.job.from.sector += position;
	copy.job.from.count -= position;
	copy.job.dests[0].sector += position;
	copies_run(&copy);
	cr_assert_eq(pattern_differs(copies_bytes(0, FROM - 16), FROM, 8 * SLICE, 1), -1);
}

/* ---- cancelled ------------------------------------------------------------------------------ */

static unsigned char before[SECTORS * DMCORE_SECTOR_BYTES];

/* Every other block that is copied holds zeroes. */
static void clear_blocks(void)
{
	for (uint64_t s = 8; s < 250; s += 16)
		memset(copies_bytes(0, FROM + s), 0, 8 * DMCORE_SECTOR_BYTES);
	memcpy(before, copies_bytes(0, 0), sizeof(before));
}

/* What is left of the move, by what was said of the position. */
static void move_rest(int64_t shift)
{
	uint64_t done = copies_progress(&copy).position_sectors;
	uint64_t sector = shift > 0 ? 0 : done;
	uint64_t count = copy.job.from.count - done;

	copies_set(&copy, 0, FROM + sector, count, 1, KCOPYD_SPARSE);
	copy.job.dests[0] = copies_region(0, FROM + sector + (uint64_t)shift, 0);
	copies_run(&copy);
}

/* Lets `requests` end before it cancels; false: it was too late. */
static bool cancel_after(unsigned int requests, int64_t shift)
{
	bool in_time;

	set_move(250, shift, 1);
	copy.job.flags = KCOPYD_SPARSE;
	clear_blocks();
	copies_hold(0, 0);
	copies_start(&copy);
	copies_settle();
	for (; requests > 0 && copies_held(0) > 0; requests--) {
		fault_release(copies.disk[0], 0, 0);
		copies_settle();
	}
	in_time = kcopyd_cancel(&copy.job) == 0;
	copies_let_go(0);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, in_time ? -ECANCELED : 0);
	return in_time;
}

/* What a slice has moved over itself can't be read again. */
Test(overlap, is_gone_on_with_after_a_cancellation_at_any_moment)
{
	static const int64_t by[] = { -1, 1, -8, 8, -SLICE, SLICE };

	for (unsigned int i = 0; i < sizeof(by) / sizeof(by[0]); i++) {
		unsigned int n = 0;

		while (cancel_after(n, by[i])) {
			move_rest(by[i]);
			cr_assert_arr_eq(copies_bytes(0, (uint64_t)(FROM + by[i])),
					 before + FROM * DMCORE_SECTOR_BYTES,
					 250 * DMCORE_SECTOR_BYTES, "by %d, after %u requests",
					 (int)by[i], n);
			n++;
		}
		cr_assert_gt(n, 2 * 250 / SLICE);
	}
}
