/* SPDX-License-Identifier: MIT */
/* The service of a core: one queue for background work, with a thread or pumped by hand. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define THREADS 4
#define POSTS 1000

static struct stage stage;

static void open_core(unsigned int flags)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.flags = flags;
	stage_open(&stage, &options, NULL);
}

static void set_up(void)
{
	open_core(0);
}

static void set_up_manual(void)
{
	open_core(DMCORE_SERVICE_MANUAL);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(service, .init = set_up, .fini = tear_down);
TestSuite(service_manual, .init = set_up_manual, .fini = tear_down);

static void *do_nothing(void *context)
{
	return context;
}

static unsigned int num_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	unsigned int count = 0;

	cr_assert_not_null(tasks);
	for (struct dirent *entry = readdir(tasks); entry; entry = readdir(tasks))
		count += entry->d_name[0] != '.';
	closedir(tasks);
	return count;
}

/* One that has been joined may be seen for a moment longer. */
static bool becomes_num_threads(unsigned int count)
{
	uint64_t begun = stage_now_ns();

	while (num_threads() != count && stage_now_ns() - begun < (uint64_t)STAGE_PATIENCE_NS)
		stage_sleep_ns(1000000);
	return num_threads() == count;
}

static unsigned int num_threads_now(void)
{
	unsigned int count = 0;
	pthread_t thread;

	/* A sanitizer may add one of its own to the first. */
	cr_assert_eq(pthread_create(&thread, NULL, do_nothing, NULL), 0);
	pthread_join(thread, NULL);
	do {
		count = num_threads();
		stage_sleep_ns(10000000);
	} while (num_threads() != count);
	return count;
}

static _Atomic unsigned int runs;
static _Atomic unsigned int inside;
static pthread_t runner;
static int result;

static void count_run(struct dmcore_work *work)
{
	(void)work;
	cr_assert_eq(atomic_fetch_add(&inside, 1), 0, "one after another");
	runner = pthread_self();
	atomic_fetch_sub(&inside, 1);
	atomic_fetch_add(&runs, 1);
}

static void wait_for_runs(unsigned int count)
{
	uint64_t begun = stage_now_ns();

	while (atomic_load(&runs) < count) {
		cr_assert_lt(stage_now_ns() - begun, (uint64_t)STAGE_PATIENCE_NS);
		stage_sleep_ns(100000);
	}
	cr_assert_eq(atomic_load(&runs), count);
}

/* ---- with a thread -------------------------------------------------------------------------- */

Test(service, has_no_thread_before_the_first_work)
{
	struct dmcore_work work = { .fn = count_run };
	unsigned int before = num_threads_now();
	struct dmcore_table *table;
	int ret;

	ret = dmcore_table_parse(stage.core, "0 8 zero", 0, &table);
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	dmcore_table_destroy(table);
	cr_assert_not_null(dmcore_service_queue(stage.core));
	cr_assert(becomes_num_threads(before), "nothing so far needs one");
	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	wait_for_runs(1);
	cr_assert(becomes_num_threads(before + 1));
	cr_assert(!pthread_equal(runner, pthread_self()));
	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	wait_for_runs(2);
	cr_assert(becomes_num_threads(before + 1), "one is enough");
}

Test(service, ends_its_thread_with_the_core)
{
	struct dmcore_work work = { .fn = count_run };
	unsigned int before = num_threads_now();
	struct dmcore *core;

	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_service_post(core, &work), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert(becomes_num_threads(before));
	cr_assert_eq(atomic_load(&runs), 1, "what was accepted has run");
}

static void *post_many(void *context)
{
	struct dmcore_work *works = context;

	for (unsigned int i = 0; i < POSTS; i++)
		cr_assert_eq(dmcore_service_post(stage.core, &works[i]), 0);
	return NULL;
}

Test(service, runs_work_of_all_threads_one_after_another)
{
	static struct dmcore_work works[THREADS][POSTS];
	pthread_t threads[THREADS];

	for (unsigned int t = 0; t < THREADS; t++) {
		for (unsigned int i = 0; i < POSTS; i++)
			works[t][i].fn = count_run;
		/* All of them may be the one that starts the service. */
		cr_assert_eq(pthread_create(&threads[t], NULL, post_many, works[t]), 0);
	}
	for (unsigned int t = 0; t < THREADS; t++)
		pthread_join(threads[t], NULL);
	wait_for_runs(THREADS * POSTS);
}

static struct dmcore_work second = { .fn = count_run };

static void post_second(struct dmcore_work *work)
{
	(void)work;
	result = dmcore_service_post(stage.core, &second);
}

Test(service, work_may_post_work)
{
	struct dmcore_work work = { .fn = post_second };

	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	wait_for_runs(1);
	cr_assert_eq(result, 0);
}

static struct dmcore *going;

static void post_second_late(struct dmcore_work *work)
{
	(void)work;
	stage_sleep_ns(20000000);
	result = dmcore_service_post(going, &second);
}

/* While the core is being destroyed: what is accepted runs. */
Test(service, work_posted_by_the_last_work_runs_too)
{
	struct dmcore_work work = { .fn = post_second_late };

	cr_assert_eq(dmcore_create(NULL, &going), 0);
	cr_assert_eq(dmcore_service_post(going, &work), 0);
	cr_assert_eq(dmcore_destroy(going), 0);
	cr_assert_eq(result, 0);
	cr_assert_eq(atomic_load(&runs), 1);
}

static sigset_t blocked;

static void note_mask(struct dmcore_work *work)
{
	pthread_sigmask(SIG_SETMASK, NULL, &blocked);
	count_run(work);
}

Test(service, takes_no_signal_from_the_application)
{
	struct dmcore_work work = { .fn = note_mask };

	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	wait_for_runs(1);
	cr_assert(sigismember(&blocked, SIGALRM) && sigismember(&blocked, SIGINT) &&
		  sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGUSR1));
}

static struct dmcore_bdev *disk;

static void write_and_read(struct dmcore_work *work)
{
	unsigned char buffer[DMCORE_SECTOR_BYTES];

	pattern_fill(buffer, 5, 1, 1);
	result = dmcore_pwrite(disk, buffer, sizeof(buffer), 5 * DMCORE_SECTOR_BYTES);
	if (result == 0)
		result = dmcore_pread(disk, buffer, sizeof(buffer), 5 * DMCORE_SECTOR_BYTES);
	count_run(work);
}

Test(service, work_may_do_plain_io)
{
	struct dmcore_work work = { .fn = write_and_read };

	disk = stage_bdev(&stage, "mem:64k", 0);
	result = 1;
	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	wait_for_runs(1);
	cr_assert_eq(result, 0);
}

Test(service, is_not_pumped_by_hand)
{
	cr_assert_eq(dmcore_service_poll(stage.core, 0, 1, 0), -EINVAL);
	cr_assert_eq(dmcore_service_poll(NULL, 0, 1, 0), -EINVAL);
}

Test(service, refuses_work_without_a_function)
{
	struct dmcore_work work = { .fn = NULL };

	cr_assert_eq(dmcore_service_post(stage.core, &work), -EINVAL);
	cr_assert_eq(dmcore_service_post(stage.core, NULL), -EINVAL);
	cr_assert_eq(dmcore_service_post(NULL, &work), -EINVAL);
	cr_assert_null(dmcore_service_queue(NULL));
}

/* ---- by hand -------------------------------------------------------------------------------- */

Test(service_manual, runs_nothing_by_itself)
{
	struct dmcore_work works[3] = { { .fn = count_run }, { .fn = count_run },
					{ .fn = count_run } };
	unsigned int before = num_threads_now();

	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(dmcore_service_post(stage.core, &works[i]), 0);
	stage_sleep_ns(5000000);
	cr_assert(becomes_num_threads(before));
	cr_assert_eq(atomic_load(&runs), 0);
	cr_assert_eq(dmcore_service_poll(stage.core, 0, 2, 0), 2);
	cr_assert(pthread_equal(runner, pthread_self()));
	cr_assert_eq(dmcore_service_poll(stage.core, 1, UINT_MAX, -1), 1);
	cr_assert_eq(dmcore_service_poll(stage.core, 0, UINT_MAX, 0), 0);
	cr_assert_eq(atomic_load(&runs), 3);
}

Test(service_manual, poll_has_the_manners_of_a_queue)
{
	cr_assert_eq(dmcore_service_poll(stage.core, 0, 0, 0), -EINVAL);
	cr_assert_eq(dmcore_service_poll(stage.core, 2, 1, 0), -EINVAL);
	cr_assert_eq(dmcore_service_poll(stage.core, 1, 1, 1000000), 0);
}

static void poll_inside(struct dmcore_work *work)
{
	(void)work;
	result = dmcore_service_poll(stage.core, 0, 1, 0);
}

Test(service_manual, poll_in_its_own_work_is_refused)
{
	struct dmcore_work work = { .fn = poll_inside };

	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	cr_assert_eq(dmcore_service_poll(stage.core, 1, 1, -1), 1);
	cr_assert_eq(result, -EDEADLK);
}

Test(service_manual, its_queue_does_io)
{
	struct dmcore_queue *queue = dmcore_service_queue(stage.core);
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct dmcore_bio bio;

	cr_assert_not_null(queue);
	cr_assert_eq(dmcore_service_queue(stage.core), queue);
	cr_assert_eq(dmcore_queue_core(queue), stage.core);
	disk = stage_bdev(&stage, "mem:64k", 0);
	dmcore_bio_init(&bio, queue);
	bio.bdev = disk;
	bio.op = DMCORE_OP_READ;
	dmcore_bio_set_buffer(&bio, buffer, sizeof(buffer));
	cr_assert_eq(dmcore_bio_submit(&bio), 0);
	cr_assert_eq(dmcore_service_poll(stage.core, 1, 1, -1), 1);
}

/* An accepted post runs exactly once, also if the application doesn't pump any more. */
Test(service_manual, runs_what_is_left_when_the_core_goes)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_work work = { .fn = count_run };
	struct dmcore *core;

	options.flags = DMCORE_SERVICE_MANUAL;
	cr_assert_eq(dmcore_create(&options, &core), 0);
	cr_assert_eq(dmcore_service_post(core, &work), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(atomic_load(&runs), 1);
}
