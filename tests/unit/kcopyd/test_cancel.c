/* SPDX-License-Identifier: MIT */
/* Jobs that are cancelled: at any moment, once, and what is true when their callback runs. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"

#define SECTORS 4096
#define SLICE 32
#define COUNT (20 * SLICE)

static struct copy copy;
static struct copy other;
static struct rng rng;

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
	copies_client(64, SLICE, 0);
	rng_start(&rng, 0);
}

TestSuite(cancel, .init = open_disks, .fini = copies_close);

static int cancel(struct copy *one)
{
	int ret;

	copies.calling++;
	ret = kcopyd_cancel(&one->job);
	copies.calling--;
	return ret;
}

static void expect_cancelled(struct copy *one)
{
	unsigned int writes = copies_count(1, 0) + copies_count(2, 0);
	unsigned int reads = copies_count(0, 0);
	struct kcopyd_progress progress = copies_progress(one);

	cr_assert_eq(one->job.status, -ECANCELED, "status %d", one->job.status);
	cr_assert_leq(progress.position_sectors, progress.total_sectors);
	cr_assert_leq(progress.position_sectors, progress.copied_sectors + progress.failed_sectors);
	cr_assert_leq(progress.copied_sectors + progress.failed_sectors, progress.total_sectors);
	copies_settle();
	cr_assert_eq(copies_count(1, 0) + copies_count(2, 0), writes);
	cr_assert_eq(copies_count(0, 0), reads);
	cr_assert_eq(one->end.calls, 1);
}

/* No request of the job is left when its callback runs. */
static void done_with_nothing_left(struct kcopyd_job *job)
{
	copies_done(job);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(copies_held(i), 0);
		for (unsigned int n = 0; n < fault_num_logged(copies.disk[i]); n++)
			cr_assert_neq(fault_logged(copies.disk[i], n).ended, 0);
	}
}

static void start_copy(unsigned int flags)
{
	copies_set(&copy, 0, 100, COUNT, 2, flags);
	copy.job.done = done_with_nothing_left;
	copies_start(&copy);
}

/* Copies the rest of a job that was cancelled. */
static void resume(void)
{
	uint64_t position = copies_progress(&copy).position_sectors;

	copies_expect_copied(&copy, position);
	other = copy;
	other.job.context = &other;
	other.job.done = copies_done;
	memset(&other.job.internal, 0, sizeof(other.job.internal));
	other.job.from.sector += position;
	other.job.from.count -= position;
	for (unsigned int i = 0; i < other.job.num_dests; i++)
		other.job.dests[i].sector += position;
	copies_run(&other);
	copies_expect_copied(&copy, COUNT);
}

Test(cancel, before_the_first_poll)
{
	start_copy(0);
	cr_assert_eq(cancel(&copy), 0);
	cr_assert_eq(copy.end.calls, 0);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	resume();
}

Test(cancel, while_it_reads)
{
	copies_hold(0, FAULT_READ);
	start_copy(0);
	copies_settle();
	cr_assert_gt(copies_held(0), 0);
	cr_assert_eq(cancel(&copy), 0);
	copies_settle();
	/* It waits for what is under way. */
	cr_assert_eq(copy.end.calls, 0);
	fault_release(copies.disk[0], 1, 0);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	copies_let_go(0);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_eq(copies_count(1, 0), 0);
	cr_assert_eq(copies_progress(&copy).position_sectors, 0);
	resume();
}

Test(cancel, while_it_writes)
{
	unsigned int writes;

	copies_hold(1, FAULT_WRITE);
	start_copy(0);
	copies_settle();
	writes = copies_count(1, 0);
	cr_assert_gt(writes, 0);
	cr_assert_eq(cancel(&copy), 0);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	copies_let_go(1);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_eq(copies_count(1, 0), writes);
	/* What had been begun was written whole. */
	cr_assert_eq(copies_progress(&copy).copied_sectors, (uint64_t)writes * SLICE);
	resume();
}

Test(cancel, while_it_flushes)
{
	copies_hold(1, FAULT_FLUSH);
	start_copy(KCOPYD_FLUSH);
	copies_settle();
	cr_assert_eq(copies_held(1), 1);
	cr_assert_eq(cancel(&copy), 0);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	copies_let_go(1);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_eq(copies_progress(&copy).position_sectors, COUNT);
	copies_expect_copied(&copy, COUNT);
}

Test(cancel, while_it_compares)
{
	copies_hold(1, FAULT_READ);
	start_copy(KCOPYD_VERIFY);
	copies_settle();
	cr_assert_gt(copies_held(1), 0);
	cr_assert_eq(cancel(&copy), 0);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	copies_let_go(1);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_lt(copies_progress(&copy).verified_sectors, COUNT);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, UINT64_MAX);
	cr_assert_eq(copy.job.verify_err, 0);
	copies_expect_copied(&copy, COUNT);
}

Test(cancel, of_a_job_that_zeroes)
{
	copies_hold(1, FAULT_WRITE_ZEROES);
	copies_set(&copy, 0, 0, 0, 1, 0);
	copy.job.from.bdev = NULL;
	copy.job.dests[0] = copies_region(1, 0, SECTORS);
	copies_start(&copy);
	copies_settle();
	cr_assert_gt(copies_held(1), 0);
	cr_assert_eq(cancel(&copy), 0);
	copies_let_go(1);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -ECANCELED);
}

/* All pages are another job's: it doesn't wait for that. */
Test(cancel, of_a_job_that_waits_for_pages)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(1, 8, 0);
	copies_hold(0, FAULT_READ);
	copies_set(&other, 0, 2000, 100, 1, 0);
	copies_start(&other);
	copies_settle();
	copies_set(&copy, 0, 100, COUNT, 2, 0);
	copies_start(&copy);
	copies_settle();
	cr_assert_eq(copies_held(0), 1);
	cr_assert_eq(cancel(&copy), 0);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_eq(copies_progress(&copy).position_sectors, 0);
	cr_assert_eq(other.end.calls, 0);
	copies_let_go(0);
	copies_succeed(&other);
	copies_refill(1);
	resume();
}

/* Some of it is under way, and the rest waits for pages. */
Test(cancel, of_a_job_that_waits_for_more_pages)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(4, 8, 0);
	copies_hold(0, FAULT_READ);
	start_copy(0);
	copies_settle();
	cr_assert_eq(copies_held(0), 4);
	cr_assert_eq(cancel(&copy), 0);
	while (copies_held(0) > 0) {
		copies_settle();
		cr_assert_eq(copy.end.calls, 0);
		fault_release(copies.disk[0], 0, 0);
	}
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_eq(copies_count(1, 0), 0);
	copies_let_go(0);
	resume();
}

Test(cancel, of_a_sequential_job_whose_slices_wait_their_turn)
{
	copies_hold(1, FAULT_WRITE);
	start_copy(KCOPYD_WRITE_SEQ);
	copies_settle();
	cr_assert_eq(copies_held(1), 1);
	cr_assert_eq(cancel(&copy), 0);
	copies_let_go(1);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	cr_assert_eq(copies_count(1, FAULT_WRITE), 1);
	cr_assert_eq(copies_progress(&copy).position_sectors, SLICE);
	resume();
}

Test(cancel, of_a_job_that_moves_data_onto_itself)
{
	copies_hold(0, FAULT_WRITE);
	copies_set(&copy, 0, 100, COUNT, 1, 0);
	copy.job.dests[0] = copies_region(0, 100 - SLICE / 2, 0);
	copies_start(&copy);
	copies_settle();
	cr_assert_gt(copies_held(0), 0);
	cr_assert_eq(cancel(&copy), 0);
	copies_let_go(0);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -ECANCELED);
	copies_expect_copied(&copy, copies_progress(&copy).position_sectors);
}

Test(cancel, twice_is_told)
{
	copies_hold(0, FAULT_READ);
	start_copy(0);
	copies_settle();
	cr_assert_eq(cancel(&copy), 0);
	cr_assert_eq(cancel(&copy), -EALREADY);
	copies_settle();
	cr_assert_eq(cancel(&copy), -EALREADY);
	copies_let_go(0);
	copies_wait(&copy.end);
	cr_assert_eq(cancel(&copy), -EINVAL);
	expect_cancelled(&copy);
}

Test(cancel, of_what_is_not_under_way_is_refused)
{
	cr_assert_eq(kcopyd_cancel(NULL), -EINVAL);
	copies_set(&copy, 0, 0, 10, 1, 0);
	cr_assert_eq(cancel(&copy), -EINVAL);
	copies_run(&copy);
	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	cr_assert_eq(cancel(&copy), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "under way"), "%s",
			   dmcore_error_message());
	cr_assert_eq(copy.job.status, 0);
}

static int in_callback;

static void done_cancels_itself(struct kcopyd_job *job)
{
	copies_done(job);
	in_callback = kcopyd_cancel(job);
}

Test(cancel, in_its_own_callback_is_refused)
{
	copies_set(&copy, 0, 0, 10, 1, 0);
	copy.job.done = done_cancels_itself;
	in_callback = 1;
	copies_run(&copy);
	cr_assert_eq(in_callback, -EINVAL);
}

static void done_cancels_the_other(struct kcopyd_job *job)
{
	copies_done(job);
	in_callback = kcopyd_cancel(&copy.job);
}

Test(cancel, in_the_callback_of_another_job)
{
	copies_hold(1, FAULT_WRITE);
	start_copy(0);
	copies_set(&other, 0, 0, 0, 1, 0);
	other.job.done = done_cancels_the_other;
	in_callback = 1;
	copies_run(&other);
	cr_assert_eq(in_callback, 0);
	copies_let_go(1);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
}

/* Both have ended when the first callback runs, or the other one just about: what cancel returns is
 * what becomes of it. */
Test(cancel, of_a_job_that_ends_at_the_same_time_says_what_becomes_of_it)
{
	static const uint64_t counts[] = { 0, 1, SLICE, COUNT };
	unsigned int too_late = 0;

	for (unsigned int i = 0; i < 8; i++) {
		in_callback = 1;
		copies_hold(1, FAULT_WRITE);
		copies_set(&other, 0, 2000, counts[i % 4], 1, 0);
		other.job.done = done_cancels_the_other;
		copies_set(&copy, 0, 0, i < 4 ? 0 : 1, 1, 0);
		if (i & 1)
			copies_start(&copy);
		copies_start(&other);
		if (!(i & 1))
			copies_start(&copy);
		copies_settle();
		copies_let_go(1);
		copies_wait(&other.end);
		copies_wait(&copy.end);
		cr_assert(in_callback == 0 || in_callback == -EALREADY || in_callback == -EINVAL,
			  "%d", in_callback);
		cr_assert_eq(copy.job.status, in_callback ? 0 : -ECANCELED);
		/* -EINVAL: its callback has run. */
		cr_assert_eq(in_callback == -EINVAL, copy.end.nr < other.end.nr);
		too_late += in_callback == -EALREADY;
	}
	cr_assert_gt(too_late, 0);
}

/* Its error has been noted, but what counts is that it was cancelled. */
Test(cancel, of_a_job_that_has_failed_but_not_ended)
{
	copies_hold(0, FAULT_READ);
	start_copy(0);
	copies_settle();
	fault_release(copies.disk[0], 0, -EIO);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	cr_assert_eq(cancel(&copy), 0);
	copies_let_go(0);
	copies_wait(&copy.end);
	expect_cancelled(&copy);
	copies_let_go(0);
	resume();
}

Test(cancel, leaves_other_jobs_alone)
{
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 100, COUNT, 2, 0);
	copies_start(&copy);
	copies_set(&other, 0, 2000, COUNT, 2, 0);
	copies_start(&other);
	copies_settle();
	cr_assert_eq(cancel(&copy), 0);
	copies_let_go(0);
	copies_wait(&copy.end);
	copies_succeed(&other);
	cr_assert_eq(copy.job.status, -ECANCELED);
	for (unsigned int i = 1; i < 3; i++)
		cr_assert_eq(pattern_differs(copies_bytes(i, 2000), 2000, COUNT, 1), -1);
}

/* After each number of requests that have ended. */
Test(cancel, at_every_moment_is_resumed_to_the_whole)
{
	static const unsigned int flags[] = { 0, KCOPYD_WRITE_SEQ, KCOPYD_FLUSH,
					      KCOPYD_IGNORE_ERROR };
	unsigned int cancelled = 0;

	for (unsigned int moment = 0; moment < 240; moment++) {
		for (unsigned int i = 0; i < 3; i++)
			copies_hold(i, 0);
		copies_refill(1);
		copies_refill(2);
		copies_set(&copy, 0, 100, COUNT, 2, flags[moment % 4]);
		copies_start(&copy);
		for (unsigned int i = 0; i < moment / 4 && copy.end.calls == 0;) {
			unsigned int disk = (unsigned int)rng_below(&rng, 3);

			copies_settle();
			if (copies_held(disk) > 0) {
				fault_release(copies.disk[disk], 0, 0);
				i++;
			}
		}
		if (copy.end.calls == 0) {
			cr_assert_eq(cancel(&copy), 0);
			copies_scramble(&rng, &copy, 1);
			expect_cancelled(&copy);
			cancelled++;
		}
		for (unsigned int i = 0; i < 3; i++)
			copies_let_go(i);
		resume();
		for (unsigned int i = 0; i < 3; i++)
			fault_clear_log(copies.disk[i]);
	}
	cr_assert_gt(cancelled, 100);
}

/* Cancelled jobs go first, then the client without a wait for what they would have copied. */
Test(cancel, lets_a_client_be_destroyed_at_once)
{
	copies_set(&copy, 0, 0, SECTORS, 1, 0);
	copies_start(&copy);
	copies_set(&other, 0, 0, SECTORS, 1, 0);
	copies_start(&other);
	cr_assert_eq(cancel(&copy), 0);
	cr_assert_eq(cancel(&other), 0);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
	cr_assert_eq(copy.end.calls, 1);
	cr_assert_eq(other.end.calls, 1);
	cr_assert_eq(copy.job.status, -ECANCELED);
	cr_assert_eq(other.job.status, -ECANCELED);
	/* What it says of the past stays true without the client. */
	cr_assert_eq(copies_progress(&copy).total_sectors, SECTORS);
	cr_assert_lt(copies_progress(&copy).copied_sectors, SECTORS);
}
