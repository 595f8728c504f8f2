/* SPDX-License-Identifier: MIT */
/* Whom a suspend waits for, for how long, from where it is refused, and calls that meet. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

#define SECTORS 64
#define NUM_WRITERS 3
#define NUM_SWAPS 60

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_device *device;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];
static _Atomic uint64_t now_ns = 1000000000;

static const char on_0[] = "0 64 linear fault:64,id=0 0";
static const char actor_on_0[] = "0 64 actor 1 fault:64,id=0 0";

/* It stands still unless a test moves it. */
static uint64_t read_clock(void *context)
{
	(void)context;
	return now_ns;
}

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	disk = stage_disk(&stage, 0, SECTORS, "");
	device = actor_mapped(&stage, "m", actor_on_0);
}

static void set_up_still_clock(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.clock_ns = read_clock;
	stage_open(&stage, &options, NULL);
	actor_register(stage.core);
	disk = stage_disk(&stage, 0, SECTORS, "");
	device = actor_mapped(&stage, "m", actor_on_0);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(waits, .init = set_up, .fini = tear_down);
TestSuite(deadline, .init = set_up_still_clock, .fini = tear_down);
TestSuite(refused, .init = set_up, .fini = tear_down);
TestSuite(meeting, .init = set_up, .fini = tear_down);

static void submit(struct tally *tally)
{
	stage_submit(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 8, buffer, tally);
}

static void hold_all(void)
{
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
}

static pthread_t start(void *(*fn)(void *context))
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fn, NULL), 0);
	return thread;
}

/* ---- whom it waits for ---- */

Test(waits, polls_the_callers_own_queues)
{
	struct dmcore_queue *second;
	struct tally tallies[2] = { { 0 } };
	struct dmcore_bio *bio;

	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &second), 0);
	submit(&tallies[0]);
	bio = dmcore_bio_get(second);
	bio->bdev = dmcore_device_bdev(device);
	bio->op = DMCORE_OP_WRITE;
	bio->sector = 8;
	dmcore_bio_set_buffer(bio, buffer, 4096);
	bio->done = tally_done;
	bio->context = &tallies[1];
	/* A queue is its own thread's from the first poll on. */
	cr_assert_eq(dmcore_queue_poll(second, 0, 1, 0), 0);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	actor_suspend(device, 0);
	cr_assert_eq(tallies[0].ended, 1);
	cr_assert_eq(tallies[1].ended, 1);
	cr_assert_eq(dmcore_queue_destroy(second), 0);
}

static _Atomic unsigned int released;

static void *release_when_suspending(void *context)
{
	(void)context;
	actor_await_changing(device);
	released = 1;
	fault_release_all(disk);
	return NULL;
}

Test(waits, for_what_the_callers_queue_has_below)
{
	struct tally tally = { 0 };
	pthread_t thread;

	hold_all();
	submit(&tally);
	thread = start(release_when_suspending);
	actor_suspend(device, 0);
	cr_assert_eq(released, 1);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

static void *read_plainly(void *context)
{
	static unsigned char bytes[4096];

	(void)context;
	actor_require(dmcore_pread(dmcore_device_bdev(device), bytes, sizeof(bytes), 0) >= 0);
	return NULL;
}

Test(waits, for_what_another_threads_queue_has_below)
{
	uint64_t begun_ns = stage_now_ns();
	pthread_t reader;
	pthread_t releaser;

	hold_all();
	reader = start(read_plainly);
	while (fault_num_held(disk) == 0)
		cr_assert_lt(stage_now_ns() - begun_ns, (uint64_t)STAGE_PATIENCE_NS);
	cr_assert_eq(actor_info(device).num_inflight, 1);
	releaser = start(release_when_suspending);
	actor_suspend(device, 0);
	cr_assert_eq(released, 1);
	cr_assert_eq(actor_info(device).num_inflight, 0);
	cr_assert_eq(pthread_join(reader, NULL), 0);
	cr_assert_eq(pthread_join(releaser, NULL), 0);
}

Test(waits, for_no_other_device)
{
	struct dmcore_device *other = actor_mapped(&stage, "other", on_0);
	struct tally tally = { 0 };

	hold_all();
	submit(&tally);
	actor_suspend(other, 0);
	cr_assert(actor_info(other).suspended);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
}

Test(waits, flags_that_nobody_knows_are_refused)
{
	cr_assert_eq(dmcore_device_suspend(device, 2, -1), -EINVAL);
	cr_assert_eq(dmcore_device_suspend(NULL, 0, -1), -EINVAL);
	cr_assert_not(actor_info(device).suspended);
}

/* ---- deadlines ---- */

static void *write_and_let_time_pass(void *context)
{
	static unsigned char bytes[4096];

	(void)context;
	actor_await_changing(device);
	actor_require(dmcore_pwrite(dmcore_device_bdev(device), bytes, sizeof(bytes), 4096) >= 0);
	return NULL;
}

static void *let_time_pass(void *context)
{
	(void)context;
	actor_await_deferred(device, 1);
	now_ns += 1000000001;
	return NULL;
}

/* What came meanwhile goes the old way. */
Test(deadline, passed_the_device_runs_on_and_deferred_requests_too)
{
	struct tally tally = { 0 };
	pthread_t writer;
	pthread_t clock;

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .times = 1 });
	submit(&tally);
	actor_log();
	writer = start(write_and_let_time_pass);
	clock = start(let_time_pass);
	cr_assert_eq(dmcore_device_suspend(device, 0, 1000000000), -ETIMEDOUT);
	cr_assert_str_eq(dmcore_error_message(), "m: 1 requests are still in flight");
	cr_assert_str_eq(actor_log(), "presuspend 1, undo 1");
	cr_assert_eq(pthread_join(writer, NULL), 0);
	cr_assert_eq(pthread_join(clock, NULL), 0);
	cr_assert_not(actor_info(device).suspended);
	cr_assert_eq(actor_info(device).num_deferred, 0);
	cr_assert_eq(fault_count(disk, FAULT_WRITE), 2);
	cr_assert_eq(tally.ended, 0);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
	actor_suspend(device, 0);
}

Test(deadline, of_none_suspends_what_is_idle)
{
	cr_assert_eq(dmcore_device_suspend(device, 0, 0), 0);
	cr_assert(actor_info(device).suspended);
}

Test(deadline, beyond_all_time_is_none)
{
	now_ns = UINT64_MAX - 5;
	cr_assert_eq(dmcore_device_suspend(device, 0, INT64_MAX), 0);
	actor_resume(device);
	now_ns = 1;
	cr_assert_eq(dmcore_device_suspend(device, 0, INT64_MAX), 0);
}

Test(deadline, resume_can_be_tried_again_after_a_suspend_with_one)
{
	struct tally tally = { 0 };

	hold_all();
	submit(&tally);
	actor_load(device, on_0);
	cr_assert_eq(dmcore_device_suspend(device, 0, 0), -ETIMEDOUT);
	cr_assert(actor_info(device).inactive_table);
	fault_release_all(disk);
	actor_resume(device);
	cr_assert_not(actor_info(device).inactive_table);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

/* ---- from where it is refused ---- */

static int answer;

static void suspend_in_callback(struct dmcore_bio *bio)
{
	answer = dmcore_device_suspend(device, 0, -1);
	tally_done(bio);
}

static void run_with(dmcore_bio_done_fn done)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0,
					   8, buffer, &tally);

	answer = 1;
	bio->done = done;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
}

Test(refused, in_a_completion)
{
	run_with(suspend_in_callback);
	cr_assert_eq(answer, -EDEADLK);
	cr_assert_not(actor_info(device).suspended);
}

static void resume_in_callback(struct dmcore_bio *bio)
{
	answer = dmcore_device_resume(device);
	tally_done(bio);
}

/* A resume only where it has to suspend. */
Test(refused, in_a_completion_a_swap_is_too)
{
	run_with(resume_in_callback);
	cr_assert_eq(answer, 0);
	actor_load(device, on_0);
	run_with(resume_in_callback);
	cr_assert_eq(answer, -EDEADLK);
	cr_assert(actor_info(device).inactive_table);
	cr_assert_not(actor_info(device).suspended);
	actor_resume(device);
	cr_assert_not(actor_info(device).inactive_table);
}

static struct dmcore_device *resumed_in_callback;

static void resume_another_in_callback(struct dmcore_bio *bio)
{
	answer = dmcore_device_resume(resumed_in_callback);
	tally_done(bio);
}

Test(refused, in_a_completion_a_resume_of_a_suspended_device_is_not)
{
	resumed_in_callback = actor_mapped(&stage, "other", on_0);
	actor_suspend(resumed_in_callback, 0);
	run_with(resume_another_in_callback);
	cr_assert_eq(answer, 0);
	cr_assert_not(actor_info(resumed_in_callback).suspended);
}

static void suspend_in_work(struct dmcore_work *work)
{
	(void)work;
	answer = dmcore_device_suspend(device, 0, -1);
}

Test(refused, in_posted_work)
{
	static struct dmcore_work work = { .fn = suspend_in_work };

	answer = 1;
	dmcore_queue_post(stage.queue, &work);
	stage_settle(&stage);
	cr_assert_eq(answer, -EDEADLK);
	cr_assert_not(actor_info(device).suspended);
}

static void suspend_other(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, "ctr") == 0 || strcmp(hook, "message") == 0)
		answer = dmcore_device_suspend(device, 0, -1);
}

Test(refused, in_a_constructor)
{
	struct dmcore_table *table;

	answer = 1;
	actors[2].in_hook = suspend_other;
	cr_assert_eq(dmcore_table_parse(stage.core, "0 8 actor 2", 0, &table), 0);
	cr_assert_eq(answer, -EDEADLK);
	cr_assert_not(actor_info(device).suspended);
	dmcore_table_destroy(table);
}

Test(refused, in_a_message)
{
	struct dmcore_device *other = actor_mapped(&stage, "other", "0 8 actor 2");

	answer = 1;
	actors[2].in_hook = suspend_other;
	cr_assert_geq(dmcore_device_message(other, 0, "x", NULL, 0), 0);
	cr_assert_eq(answer, -EDEADLK);
	cr_assert_not(actor_info(device).suspended);
}

/* ---- calls that meet ---- */

static _Atomic unsigned int at_gate;
static _Atomic unsigned int gate_open;
static _Atomic int answers[2];
static const char *gate_hook = "presuspend";

static void wait_at_gate(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, gate_hook) != 0)
		return;
	at_gate++;
	actor_await(&gate_open, 1);
}

static void *suspend_first(void *context)
{
	(void)context;
	answers[0] = dmcore_device_suspend(device, 0, -1);
	return NULL;
}

static _Atomic unsigned int second_calls;

static void *suspend_second(void *context)
{
	(void)context;
	second_calls = 1;
	answers[1] = dmcore_device_suspend(device, 0, -1);
	return NULL;
}

static void *resume_second(void *context)
{
	(void)context;
	second_calls = 1;
	answers[1] = dmcore_device_resume(device);
	return NULL;
}

/* Has a call stand in presuspend, another one come, and then lets both end. */
static void have_meet(void *(*first_call)(void *), void *(*second_call)(void *))
{
	pthread_t first;
	pthread_t second;

	answers[0] = 1;
	answers[1] = 1;
	actors[1].in_hook = wait_at_gate;
	first = start(first_call);
	actor_await(&at_gate, 1);
	second = start(second_call);
	actor_await(&second_calls, 1);
	cr_assert_eq(answers[1], 1);
	gate_open = 1;
	cr_assert_eq(pthread_join(first, NULL), 0);
	cr_assert_eq(pthread_join(second, NULL), 0);
	actors[1].in_hook = NULL;
	cr_assert_eq(answers[0], 0);
	cr_assert_eq(answers[1], 0);
}

Test(meeting, suspends_are_one)
{
	actor_log();
	have_meet(suspend_first, suspend_second);
	cr_assert(actor_info(device).suspended);
	cr_assert_str_eq(actor_log(), "presuspend 1, postsuspend 1");
	actor_resume(device);
}

Test(meeting, resume_follows_a_suspend)
{
	actor_log();
	have_meet(suspend_first, resume_second);
	/* It came while the device ran: whether it waited is seen by what there is now. */
	if (actor_info(device).suspended)
		actor_resume(device);
	cr_assert_str_eq(actor_log(), "presuspend 1, postsuspend 1, preresume 1, resume 1");
}

static void *resume_first(void *context)
{
	(void)context;
	answers[0] = dmcore_device_resume(device);
	return NULL;
}

Test(meeting, suspend_follows_a_resume)
{
	actor_suspend(device, 0);
	actor_log();
	gate_hook = "preresume";
	have_meet(resume_first, suspend_second);
	cr_assert(actor_info(device).suspended);
	cr_assert_str_eq(actor_log(),
			 "preresume 1, resume 1, presuspend 1, postsuspend 1");
}

/* What can be done to a device while another call stands in its presuspend. */
Test(meeting, others_may_load_and_look_but_not_remove)
{
	pthread_t thread;

	actors[1].in_hook = wait_at_gate;
	thread = start(suspend_first);
	actor_await(&at_gate, 1);
	cr_assert(actor_info(device).changing);
	cr_assert(actor_info(device).suspended);
	cr_assert_eq(dmcore_device_remove(device), -EBUSY);
	cr_assert_eq(dmcore_device_remove_deferred(device), -EBUSY);
	cr_assert_not(actor_info(device).deferred_remove);
	cr_assert_eq(dmcore_device_suspend(device, 0, 0), -ETIMEDOUT);
	cr_assert_str_eq(dmcore_error_message(), "m: another call is suspending or resuming it");
	actor_load(device, on_0);
	cr_assert_eq(dmcore_device_rename(device, "n"), 0);
	cr_assert_eq(dmcore_device_set_uuid(device, "u"), 0);
	/* I/O passes until presuspend is over. */
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 0, 8,
			       buffer), 0);
	gate_open = 1;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(answers[0], 0);
	cr_assert_not(actor_info(device).changing);
	actor_resume(device);
	cr_assert_eq(actor_info(device).num_targets, 1);
	cr_assert_not(actor_info(device).inactive_table);
}

/* A completion may not wait for another thread's call either. */
Test(meeting, completion_is_refused_to_wait_for_another_call)
{
	pthread_t thread;

	actors[1].in_hook = wait_at_gate;
	thread = start(suspend_first);
	actor_await(&at_gate, 1);
	run_with(resume_in_callback);
	cr_assert_eq(answer, -EDEADLK);
	gate_open = 1;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert(actor_info(device).suspended);
}

/* ---- under load ---- */

struct writer {
	_Atomic unsigned int stop;
	unsigned int done;
	unsigned int failed;
};

static struct writer writers[NUM_WRITERS];

static void *write_until_stopped(void *context)
{
	struct writer *writer = context;
	unsigned char bytes[DMCORE_SECTOR_BYTES] = { 0 };
	uint64_t at = (uint64_t)(writer - writers) * DMCORE_SECTOR_BYTES;

	while (!writer->stop) {
		writer->failed += dmcore_pwrite(dmcore_device_bdev(device), bytes, sizeof(bytes),
						at) < 0;
		writer->done++;
	}
	return NULL;
}

/* No request fails, is lost, or is done twice while tables are replaced. */
Test(meeting, tables_are_replaced_under_load)
{
	struct fault_disk *other = stage_disk(&stage, 1, SECTORS, "");
	pthread_t threads[NUM_WRITERS];
	unsigned int done = 0;

	for (unsigned int i = 0; i < NUM_WRITERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, write_until_stopped, &writers[i]),
			     0);
	for (unsigned int i = 0; i < NUM_SWAPS; i++)
		actor_reload(device, i % 2 ? actor_on_0 : "0 64 linear fault:64,id=1 0");
	for (unsigned int i = 0; i < NUM_WRITERS; i++)
		writers[i].stop = 1;
	for (unsigned int i = 0; i < NUM_WRITERS; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(writers[i].failed, 0);
		done += writers[i].done;
	}
	cr_assert_eq(fault_count(disk, FAULT_WRITE) + fault_count(other, FAULT_WRITE), done);
}
