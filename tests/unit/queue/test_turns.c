/* SPDX-License-Identifier: MIT */
/* Who gets its turn, and who may take one: wake-ups, work beside bios, owners (queue/queue.c). */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <time.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/stage.h"

static struct stage stage;

static void open_stage(void)
{
	stage_open(&stage, NULL, NULL);
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(turns, .init = open_stage, .fini = close_stage);

static unsigned int num_ran;

static void count_work(struct dmcore_work *work)
{
	(void)work;
	num_ran++;
}

static uint64_t cpu_time_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *post_from_thread(void *context)
{
	stage_sleep_ns(20000000);
	dmcore_queue_post(stage.queue, context);
	return NULL;
}

/* The wake-up has to be taken away, or every later wait ends at once. */
Test(turns, waiting_after_a_wake_up_costs_no_cpu)
{
	struct dmcore_work work = { .fn = count_work };
	pthread_t thread;
	uint64_t before;

	cr_assert_eq(pthread_create(&thread, NULL, post_from_thread, &work), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	before = cpu_time_ns();
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 300000000), 0);
	cr_assert_lt(cpu_time_ns() - before, 100000000);
}

static void post_again(struct dmcore_work *work)
{
	num_ran++;
	dmcore_queue_post(stage.queue, work);
}

Test(turns, work_that_posts_itself_again_lets_bios_end)
{
	struct dmcore_work work = { .fn = post_again };
	struct dmcore_bdev *zero = stage_map(&stage, "zero", "0 8 zero");
	struct tally tally = { 0 };

	dmcore_queue_post(stage.queue, &work);
	stage_submit(&stage, zero, DMCORE_OP_DISCARD, 0, 8, NULL, &tally);
	for (unsigned int i = 0; i < 4 && tally.ended == 0; i++)
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(tally.ended, 1);
	work.fn = count_work;
	stage_settle(&stage);
}

static void submit_again(struct dmcore_bio *bio)
{
	if (num_ran > 0)
		return;
	bio->sector = 0;
	bio->count = 8;
	bio->bdev = bio->context;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

Test(turns, a_bio_that_is_submitted_again_lets_work_run)
{
	struct dmcore_work work = { .fn = count_work };
	struct dmcore_bdev *zero = stage_map(&stage, "zero", "0 8 zero");
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);

	bio->op = DMCORE_OP_DISCARD;
	bio->done = submit_again;
	bio->context = zero;
	submit_again(bio);
	dmcore_queue_post(stage.queue, &work);
	for (unsigned int i = 0; i < 4 && num_ran == 0; i++)
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(num_ran, 1);
	stage_settle(&stage);
	dmcore_bio_put(bio);
}

static void *poll_elsewhere(void *context)
{
	int *results = context;

	results[0] = dmcore_queue_poll(stage.queue, 0, 1, 0);
	results[1] = dmcore_queue_kick(stage.queue);
	return NULL;
}

Test(turns, another_thread_than_the_owner_is_refused)
{
	int results[2] = { 0, 0 };
	pthread_t thread;

	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
	cr_assert_eq(pthread_create(&thread, NULL, poll_elsewhere, results), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(results[0], -EPERM);
	cr_assert_eq(results[1], -EPERM);
}

static struct dmcore *manual_core;

static void *pump(void *context)
{
	*(int *)context = dmcore_service_poll(manual_core, 1, 1, STAGE_PATIENCE_NS);
	return NULL;
}

Test(turns, a_manual_service_may_be_pumped_by_one_thread_after_another)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_work work = { .fn = count_work };
	pthread_t thread;
	int ran = 0;

	options.flags = DMCORE_SERVICE_MANUAL;
	cr_assert_eq(dmcore_create(&options, &manual_core), 0);
	cr_assert_eq(dmcore_service_post(manual_core, &work), 0);
	cr_assert_eq(pthread_create(&thread, NULL, pump, &ran), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(ran, 1);
	cr_assert_eq(dmcore_service_post(manual_core, &work), 0);
	cr_assert_eq(dmcore_service_poll(manual_core, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(num_ran, 2);
	cr_assert_eq(dmcore_destroy(manual_core), 0);
}

Test(turns, the_queue_of_the_service_is_not_the_caller_s_to_destroy)
{
	cr_assert_eq(dmcore_queue_destroy(dmcore_service_queue(stage.core)), -EINVAL);
}

#define PLAIN_THREADS 100

static struct dmcore_bdev *plain_disk;

static void *read_plainly(void *context)
{
	char buffer[512];

	*(int *)context = dmcore_pread(plain_disk, buffer, sizeof(buffer), 0);
	return NULL;
}

Test(turns, more_plain_calls_at_once_than_there_are_queues_for_wait_in_line)
{
	pthread_t threads[PLAIN_THREADS];
	int results[PLAIN_THREADS];

	plain_disk = stage_bdev(&stage, "mem:1M", 0);
	for (unsigned int i = 0; i < PLAIN_THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_plainly, &results[i]), 0);
	for (unsigned int i = 0; i < PLAIN_THREADS; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(results[i], 0);
	}
}
