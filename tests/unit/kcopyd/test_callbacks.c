/* SPDX-License-Identifier: MIT */
/* Callbacks: of copies and prepared ones, one at a time, in the poll of the queue. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/actor.h"
#include "../../support/copies.h"

#define SECTORS 4096
#define MANY 64

static struct copy copy[MANY];
static struct copies_end ends[MANY];
static struct kcopyd_job *prepared[MANY];

static void open_disks(void)
{
	copies_open(2, SECTORS, "");
	copies_client(16, 16, MANY);
}

TestSuite(callbacks, .init = open_disks, .fini = copies_close);

static void prepare(unsigned int i)
{
	memset(&ends[i], 0, sizeof(ends[i]));
	cr_assert_eq(kcopyd_prepare_callback(copies.kc, copies_notify, &ends[i], &prepared[i]), 0,
		     "%s", dmcore_error_message());
	cr_assert_not_null(prepared[i]);
}

static void do_callback(struct kcopyd_job *job, int read_err, unsigned int write_err)
{
	copies.calling++;
	kcopyd_do_callback(job, read_err, write_err);
	copies.calling--;
}

Test(callbacks, prepared_one_runs_later_with_what_it_was_given)
{
	prepare(0);
	copies_settle();
	cr_assert_eq(ends[0].calls, 0);
	do_callback(prepared[0], 1, 0xa5);
	cr_assert_eq(ends[0].calls, 0);
	copies_wait(&ends[0]);
	cr_assert_eq(ends[0].read_err, 1);
	cr_assert_eq(ends[0].write_err, 0xa5);
	prepare(1);
	do_callback(prepared[1], 0, 0);
	copies_wait(&ends[1]);
	cr_assert_eq(ends[1].read_err, 0);
	cr_assert_eq(ends[1].write_err, 0);
}

Test(callbacks, prepared_job_of_the_callers_own_runs_later_with_its_status)
{
	for (unsigned int i = 0; i < 4; i++) {
		memset(&copy[0], 0, sizeof(copy[0]));
		copy[0].job.done = copies_done;
		copy[0].job.context = &copy[0];
		/* Not looked at. */
		copy[0].job.num_dests = 99;
		copy[0].job.flags = ~0u;
		cr_assert_eq(kcopyd_prepare(copies.kc, &copy[0].job), 0, "%s",
			     dmcore_error_message());
		copies_settle();
		cr_assert_eq(copy[0].end.calls, 0);
		do_callback(&copy[0].job, i & 1 ? -EIO : 0, i & 2);
		copies_wait(&copy[0].end);
		cr_assert_eq(copy[0].job.read_err != 0, i & 1);
		cr_assert_eq(copy[0].job.write_err, i & 2);
		cr_assert_eq(copy[0].job.status, i ? -EIO : 0);
	}
}

Test(callbacks, prepared_job_is_under_way_until_it_has_run)
{
	copies_set(&copy[0], 0, 0, 8, 1, 0);
	cr_assert_eq(kcopyd_prepare(copies.kc, &copy[0].job), 0);
	cr_assert_eq(kcopyd_prepare(copies.kc, &copy[0].job), -EBUSY);
	cr_assert_eq(copies_try(&copy[0]), -EBUSY);
	cr_assert_eq(kcopyd_cancel(&copy[0].job), -EINVAL);
	do_callback(&copy[0].job, 0, 0);
	cr_assert_eq(kcopyd_prepare(copies.kc, &copy[0].job), -EBUSY);
	copies_wait(&copy[0].end);
	copies_run(&copy[0]);
	copies_expect_copied(&copy[0], 8);
}

/* From other threads, mixed with copies that end. */
static void *do_callbacks(void *context)
{
	unsigned int first = *(unsigned int *)context;

	for (unsigned int i = first; i < MANY; i += 4)
		kcopyd_do_callback(prepared[i], (int)(i & 1), i);
	return NULL;
}

Test(callbacks, from_other_threads_come_one_at_a_time_with_those_of_copies)
{
	static unsigned int firsts[4] = { 0, 1, 2, 3 };
	pthread_t threads[4];

	for (unsigned int i = 0; i < MANY; i++)
		prepare(i);
	for (unsigned int i = 0; i < MANY; i++) {
		copies_set(&copy[i], 0, 50 * i, 40, 1, 0);
		copies_start(&copy[i]);
	}
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, do_callbacks, &firsts[i]), 0);
	for (unsigned int i = 0; i < MANY; i++) {
		copies_wait(&ends[i]);
		copies_succeed(&copy[i]);
		cr_assert_eq(ends[i].read_err, i & 1);
		cr_assert_eq(ends[i].write_err, i);
	}
	for (unsigned int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	cr_assert_eq(copies.num_ends, 2 * MANY);
}

/* The queue's owner sleeps, and is woken. */
static _Atomic unsigned int asleep;

static void *wake_later(void *context)
{
	actor_await(&asleep, 1);
	stage_sleep_ns(20000000);
	kcopyd_do_callback(context, 0, 3);
	return NULL;
}

Test(callbacks, from_another_thread_wake_the_poll)
{
	pthread_t thread;

	prepare(0);
	cr_assert_eq(pthread_create(&thread, NULL, wake_later, prepared[0]), 0);
	atomic_store(&asleep, 1);
	copies_wait(&ends[0]);
	cr_assert_eq(ends[0].write_err, 3);
	pthread_join(thread, NULL);
}

/* ---- what callbacks may do ------------------------------------------------------------------ */

static unsigned int left;

/* Starts the next copy from the end of the one before, with a different call each time. */
static void start_next(struct kcopyd_job *job)
{
	struct copy *own = (struct copy *)job;

	copies_note(&own->end, job->read_err, job->write_err);
	if (left-- == 0)
		return;
	memset(&own->end, 0, sizeof(own->end));
	copies.calling++;
	cr_assert_eq(kcopyd_submit(copies.kc, job), 0);
	copies.calling--;
	cr_assert_eq(own->end.calls, 0);
}

Test(callbacks, may_start_their_own_job_again)
{
	left = 1000;
	copies_set(&copy[0], 0, 0, 1, 1, 0);
	copy[0].job.done = start_next;
	copies_start(&copy[0]);
	while (left != UINT32_MAX)
		cr_assert_gt(dmcore_queue_poll(copies.stage.queue, 1, UINT32_MAX,
					       STAGE_PATIENCE_NS),
			     0);
	copies_wait(&copy[0].end);
	cr_assert_eq(copies.num_ends, 1001);
}

/* Nothing to copy, so that no I/O comes between: the stack must not grow with it, nor must a poll
 * of one completion run them all. */
Test(callbacks, may_start_their_own_empty_job_again)
{
	left = 100000;
	copies_set(&copy[0], 0, 0, 0, 1, 0);
	copy[0].job.done = start_next;
	copies_start(&copy[0]);
	while (left != UINT32_MAX)
		cr_assert_gt(dmcore_queue_poll(copies.stage.queue, 1, 64, STAGE_PATIENCE_NS), 0);
	copies_wait(&copy[0].end);
}

static void notify_and_chain(int read_err, unsigned int write_err, void *context)
{
	struct copies_end *own = context;
	struct dmio_region region = copies_region(1, 0, 16);

	copies_note(own, read_err, write_err);
	if (own == &ends[MANY - 1])
		return;
	copies.calling++;
	/* Its own job is free again, though the pool had only that. */
	cr_assert_eq(kcopyd_zero(copies.kc, 1, &region, 0, notify_and_chain, own + 1), 0, "%s",
		     dmcore_error_message());
	copies.calling--;
}

Test(callbacks, of_a_pool_of_one_job_may_start_the_next)
{
	struct dmio_region region = copies_region(1, 0, 16);

	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(4, 8, 1);
	cr_assert_eq(kcopyd_zero(copies.kc, 1, &region, 0, notify_and_chain, &ends[0]), 0);
	copies_wait(&ends[MANY - 1]);
	for (unsigned int i = 0; i < MANY; i++)
		cr_assert_eq(ends[i].nr, i + 1);
}

/* The job's memory is the caller's again. */
static void free_job(struct kcopyd_job *job)
{
	*(unsigned int *)job->context += 1;
	memset(job, 0xee, sizeof(*job));
	free(job);
}

Test(callbacks, may_free_their_job)
{
	static unsigned int freed;

	for (unsigned int i = 0; i < MANY; i++) {
		struct kcopyd_job *job = calloc(1, sizeof(*job));

		cr_assert_not_null(job);
		job->from = copies_region(0, 10 * i, i % 10);
		job->dests[0] = copies_region(1, 10 * i, 0);
		job->num_dests = 1;
		job->flags = i & 1 ? KCOPYD_FLUSH | KCOPYD_VERIFY : 0;
		job->done = free_job;
		job->context = &freed;
		cr_assert_eq(kcopyd_submit(copies.kc, job), 0);
		if (i % 5 == 0)
			kcopyd_cancel(job);
	}
	while (freed < MANY)
		cr_assert_gt(dmcore_queue_poll(copies.stage.queue, 1, UINT32_MAX,
					       STAGE_PATIENCE_NS),
			     0);
	copies_settle();
	cr_assert_eq(freed, MANY);
}

static int destroyed;

static void destroy_client(int read_err, unsigned int write_err, void *context)
{
	copies_note(context, read_err, write_err);
	destroyed = kcopyd_client_destroy(copies.kc);
}

Test(callbacks, can_not_destroy_a_client_that_has_something_under_way)
{
	struct dmio_region from = copies_region(0, 0, 100);
	struct dmio_region dest = copies_region(1, 0, 0);

	prepare(1);
	destroyed = 1;
	cr_assert_eq(kcopyd_copy(copies.kc, &from, 1, &dest, 0, destroy_client, &ends[0]), 0);
	copies_wait(&ends[0]);
	cr_assert_eq(destroyed, -EBUSY, "%d", destroyed);
	/* It is unchanged. */
	copies_set(&copy[0], 0, 0, 100, 1, 0);
	copies_run(&copy[0]);
	do_callback(prepared[1], 0, 0);
	copies_wait(&ends[1]);
}

Test(callbacks, can_destroy_a_client_that_has_nothing_under_way)
{
	struct dmio_region from = copies_region(0, 0, 100);
	struct dmio_region dest = copies_region(1, 0, 0);

	destroyed = 1;
	cr_assert_eq(kcopyd_copy(copies.kc, &from, 1, &dest, 0, destroy_client, &ends[0]), 0);
	copies_wait(&ends[0]);
	cr_assert_eq(destroyed, 0, "%s", dmcore_error_message());
	copies.kc = NULL;
}

/* Whatever order they were started in: an end doesn't wait for that of another copy. */
Test(callbacks, come_when_their_copy_has_ended)
{
	copies_hold(1, FAULT_WRITE);
	for (unsigned int i = 0; i < 4; i++) {
		copies_set(&copy[i], 0, 8 * i, 8, 1, 0);
		copies_start(&copy[i]);
	}
	copies_settle();
	cr_assert_eq(copies_held(1), 4);
	for (unsigned int i = 0; i < 4; i++) {
		unsigned int last = copies_held(1) - 1;
		uint64_t sector = fault_held(copies.disk[1], last).sector;

		fault_release(copies.disk[1], last, 0);
		copies_settle();
		cr_assert_eq(copy[sector / 8].end.nr, i + 1);
		cr_assert_eq(copies.num_ends, i + 1);
	}
	copies_let_go(1);
}
