/* SPDX-License-Identifier: MIT */
/* Clients of kcopyd: how they are made, what they refuse and with what message, how they end. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/child.h"
#include "../../support/copies.h"

#define SECTORS 2048
#define JOBS_MAX 512

static struct copy copy;
static struct copy other;
static struct copies_end ends[JOBS_MAX];

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
}

TestSuite(kcopyd_client, .init = open_disks, .fini = copies_close);

/* A message of somebody else's, which a refusal must replace. */
static const char *leave_stale_message(void)
{
	static char stale[128];

	cr_assert_eq(dmcore_flush(NULL), -EINVAL);
	snprintf(stale, sizeof(stale), "%s", dmcore_error_message());
	return stale;
}

#define expect_refused(call, error)                                                                \
	do {                                                                                       \
		const char *stale = leave_stale_message();                                         \
		int refused = (call);                                                              \
                                                                                                   \
		cr_assert_eq(refused, error, "%s: %d", #call, refused);                            \
		cr_assert_str_not_empty(dmcore_error_message(), "%s", #call);                      \
		cr_assert_str_neq(dmcore_error_message(), stale, "%s: no message", #call);         \
	} while (0)

/* ---- making --------------------------------------------------------------------------------- */

Test(kcopyd_client, arguments_are_checked)
{
	struct kcopyd_client *kc = (void *)&copy;

	expect_refused(kcopyd_client_create(NULL, 1, &kc), -EINVAL);
	cr_assert_null(kc);
	kc = (void *)&copy;
	expect_refused(kcopyd_client_create(copies.stage.queue, 0, &kc), -EINVAL);
	cr_assert_null(kc);
	kc = (void *)&copy;
	expect_refused(kcopyd_client_create(copies.stage.queue, KCOPYD_PAGES_MAX + 1, &kc),
		       -EINVAL);
	cr_assert_null(kc);
	cr_assert_eq(kcopyd_client_create(copies.stage.queue, 1, NULL), -EINVAL);
	cr_assert_eq(kcopyd_client_create_with(copies.stage.queue, 1, NULL, NULL), -EINVAL);
	cr_assert_eq(kcopyd_client_destroy(NULL), 0);
}

static int create_with(unsigned int subjob_sectors, unsigned int jobs,
		       struct kcopyd_throttle *throttle)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	struct kcopyd_client *kc = (void *)&copy;
	int ret;

	options.subjob_sectors = subjob_sectors;
	options.jobs = jobs;
	options.throttle = throttle;
	ret = kcopyd_client_create_with(copies.stage.queue, 4, &options, &kc);
	cr_assert_eq(ret == 0, kc != NULL);
	if (ret == 0)
		cr_assert_eq(kcopyd_client_destroy(kc), 0);
	return ret;
}

Test(kcopyd_client, options_are_checked)
{
	struct kcopyd_options options = { 0 };
	struct kcopyd_client *kc = (void *)&copy;

	expect_refused(kcopyd_client_create_with(copies.stage.queue, 4, &options, &kc), -EINVAL);
	cr_assert_null(kc);
	expect_refused(create_with(7, 0, NULL), -EINVAL);
	expect_refused(create_with(12, 0, NULL), -EINVAL);
	expect_refused(create_with(KCOPYD_SUBJOB_SECTORS_MAX + 8, 0, NULL), -EINVAL);
	expect_refused(create_with(0, KCOPYD_JOBS_MAX + 1, NULL), -EINVAL);
	cr_assert_eq(create_with(0, 0, NULL), 0);
	cr_assert_eq(create_with(8, 1, NULL), 0);
	cr_assert_eq(create_with(KCOPYD_SUBJOB_SECTORS_MAX, KCOPYD_JOBS_MAX, NULL), 0);
	cr_assert_eq(kcopyd_client_create_with(copies.stage.queue, 1, NULL, &kc), 0);
	cr_assert_eq(kcopyd_client_destroy(kc), 0);
}

Test(kcopyd_client, most_pages_can_be_had)
{
	copies_client(KCOPYD_PAGES_MAX, 0, 0);
	copies_set(&copy, 0, 0, SECTORS, 1, 0);
	copies_run(&copy);
	copies_expect_copied(&copy, SECTORS);
}

Test(kcopyd_client, throttle_is_of_the_same_queue_and_outlives_it)
{
	struct kcopyd_throttle *throttle = (void *)&copy;
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	struct dmcore_queue *queue;
	struct kcopyd_throttle *foreign;

	expect_refused(kcopyd_throttle_create(NULL, &throttle), -EINVAL);
	cr_assert_null(throttle);
	cr_assert_eq(kcopyd_throttle_create(copies.stage.queue, NULL), -EINVAL);
	expect_refused(kcopyd_throttle_set(NULL, 50, 0), -EINVAL);
	cr_assert_eq(kcopyd_throttle_destroy(NULL), 0);
	cr_assert_eq(dmcore_queue_create(copies.stage.core, NULL, &queue), 0);
	cr_assert_eq(kcopyd_throttle_create(queue, &foreign), 0);
	expect_refused(create_with(0, 0, foreign), -EINVAL);
	cr_assert_eq(kcopyd_throttle_destroy(foreign), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);

	cr_assert_eq(kcopyd_throttle_create(copies.stage.queue, &throttle), 0);
	options.throttle = throttle;
	cr_assert_eq(kcopyd_client_create_with(copies.stage.queue, 8, &options, &copies.kc), 0);
	expect_refused(kcopyd_throttle_destroy(throttle), -EBUSY);
	copies_set(&copy, 0, 0, 1000, 1, 0);
	copies_run(&copy);
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, 0), 0);
	cr_assert_eq(kcopyd_throttle_set(throttle, UINT32_MAX, UINT64_MAX), 0);
	cr_assert_eq(kcopyd_throttle_set(throttle, 90, UINT64_C(1) << 40), 0);
	copies_run(&copy);
	copies_expect_copied(&copy, 1000);
	/* Slices that are held up don't keep the pages that they found. */
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, UINT64_C(20) << 20), 0);
	copies_run(&copy);
	copies_run(&copy);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
	cr_assert_eq(kcopyd_throttle_destroy(throttle), 0);
}

/* ---- refusals ------------------------------------------------------------------------------- */

static const struct dmio_region *from;
static struct dmio_region dests[KCOPYD_DESTS_MAX + 1];

static int try_copy(unsigned int num_dests, unsigned int flags)
{
	return copies_copy(from, num_dests, dests, flags, &ends[0]);
}

static void set_regions(void)
{
	static struct dmio_region source;

	source = copies_region(0, 0, 100);
	from = &source;
	for (unsigned int i = 0; i <= KCOPYD_DESTS_MAX; i++)
		dests[i] = copies_region(1, 100 * i, 100);
}

Test(kcopyd_client, malformed_copies_are_refused_with_a_message)
{
	struct dmio_region bad = copies_region(0, UINT64_MAX - 10, 20);

	copies_client(4, 0, 0);
	set_regions();
	expect_refused(try_copy(0, 0), -EINVAL);
	expect_refused(try_copy(KCOPYD_DESTS_MAX + 1, 0), -EINVAL);
	expect_refused(try_copy(1, 1), -EINVAL);
	expect_refused(try_copy(1, KCOPYD_FLAGS_ALL + 1), -EINVAL);
	expect_refused(try_copy(1, 1u << 31), -EINVAL);
	expect_refused(try_copy(1, KCOPYD_DESTS_ZEROED), -EINVAL);
	expect_refused(kcopyd_copy(copies.kc, from, 1, dests, 0, NULL, NULL), -EINVAL);
	expect_refused(kcopyd_copy(NULL, from, 1, dests, 0, copies_notify, &ends[0]), -EINVAL);
	expect_refused(kcopyd_copy(copies.kc, from, 1, NULL, 0, copies_notify, &ends[0]), -EINVAL);
	dests[1].bdev = NULL;
	expect_refused(try_copy(2, 0), -EINVAL);
	dests[1] = bad;
	expect_refused(try_copy(2, 0), -EINVAL);
	from = &bad;
	expect_refused(try_copy(1, 0), -EINVAL);
	bad.sector = 0;
	bad.count = UINT64_MAX;
	expect_refused(try_copy(1, 0), -EINVAL);
	copies_settle();
	cr_assert_eq(copies.num_ends, 0);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(copies_count(i, 0), 0);
}

Test(kcopyd_client, malformed_zeroing_is_refused_with_a_message)
{
	copies_client(4, 0, 0);
	set_regions();
	expect_refused(copies_zero(0, dests, 0, &ends[0]), -EINVAL);
	expect_refused(copies_zero(KCOPYD_DESTS_MAX + 1, dests, 0, &ends[0]), -EINVAL);
	expect_refused(copies_zero(1, dests, 1, &ends[0]), -EINVAL);
	expect_refused(copies_zero(1, NULL, 0, &ends[0]), -EINVAL);
	expect_refused(kcopyd_zero(copies.kc, 1, dests, 0, NULL, NULL), -EINVAL);
	expect_refused(kcopyd_zero(NULL, 1, dests, 0, copies_notify, &ends[0]), -EINVAL);
	dests[1].bdev = NULL;
	expect_refused(copies_zero(2, dests, 0, &ends[0]), -EINVAL);
	dests[0].count = UINT64_MAX;
	expect_refused(copies_zero(1, dests, 0, &ends[0]), -EINVAL);
	copies_settle();
	cr_assert_eq(copies.num_ends, 0);
}

Test(kcopyd_client, malformed_jobs_are_refused_with_a_message)
{
	copies_client(4, 0, 0);
	copies_set(&copy, 0, 0, 10, 1, 0);
	expect_refused(kcopyd_submit(copies.kc, NULL), -EINVAL);
	expect_refused(kcopyd_submit(NULL, &copy.job), -EINVAL);
	copy.job.done = NULL;
	expect_refused(copies_try(&copy), -EINVAL);
	copies_set(&copy, 0, 0, 10, 0, 0);
	expect_refused(copies_try(&copy), -EINVAL);
	copies_set(&copy, 0, 0, 10, 1, 0);
	copy.job.num_dests = KCOPYD_DESTS_MAX + 1;
	expect_refused(copies_try(&copy), -EINVAL);
	copies_set(&copy, 0, 0, 10, 1, KCOPYD_DESTS_ZEROED | KCOPYD_VERIFY);
	expect_refused(copies_try(&copy), -EINVAL);
	copies_set(&copy, 0, 0, 10, 1, 0);
	copy.job.dests[0].bdev = NULL;
	expect_refused(copies_try(&copy), -EINVAL);
	/* What was refused can be put right and used. */
	copy.job.dests[0].bdev = copies.bdev[1];
	copies_run(&copy);
	copies_expect_copied(&copy, 10);
}

Test(kcopyd_client, devices_of_another_core_are_refused)
{
	struct dmcore_bdev *bdev;
	struct dmcore *core;

	copies_client(4, 0, 0);
	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_bdev_open(core, "mem:1M", 0, &bdev), 0);
	copies_set(&copy, 0, 0, 10, 2, 0);
	copy.job.dests[1].bdev = bdev;
	expect_refused(copies_try(&copy), -EINVAL);
	copies_set(&copy, 0, 0, 10, 1, 0);
	copy.job.from.bdev = bdev;
	expect_refused(copies_try(&copy), -EINVAL);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
}

Test(kcopyd_client, job_that_is_under_way_is_busy)
{
	copies_client(4, 0, 0);
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, 10, 1, 0);
	copies_start(&copy);
	expect_refused(copies_try(&copy), -EBUSY);
	expect_refused(kcopyd_prepare(copies.kc, &copy.job), -EBUSY);
	copies_let_go(0);
	copies_succeed(&copy);
	cr_assert_eq(copies.num_ends, 1);
}

Test(kcopyd_client, malformed_callbacks_are_refused_with_a_message)
{
	struct kcopyd_job *job = &copy.job;

	copies_client(4, 0, 0);
	expect_refused(kcopyd_prepare_callback(NULL, copies_notify, NULL, &job), -EINVAL);
	cr_assert_null(job);
	job = &copy.job;
	expect_refused(kcopyd_prepare_callback(copies.kc, NULL, NULL, &job), -EINVAL);
	cr_assert_null(job);
	cr_assert_eq(kcopyd_prepare_callback(copies.kc, copies_notify, NULL, NULL), -EINVAL);
	copies_set(&copy, 0, 0, 10, 1, 0);
	expect_refused(kcopyd_prepare(NULL, &copy.job), -EINVAL);
	expect_refused(kcopyd_prepare(copies.kc, NULL), -EINVAL);
	copy.job.done = NULL;
	expect_refused(kcopyd_prepare(copies.kc, &copy.job), -EINVAL);
}

/* ---- the pool of jobs ----------------------------------------------------------------------- */

/* Uses a pool up; returns how many there were. */
static unsigned int use_up(void)
{
	struct dmio_region source = copies_region(0, 0, 8);
	struct dmio_region dest = copies_region(1, 0, 8);
	unsigned int n = 0;
	int ret;

	while ((ret = copies_copy(&source, 1, &dest, 0, &ends[n])) == 0)
		cr_assert_lt(++n, JOBS_MAX);
	cr_assert_eq(ret, -EAGAIN);
	return n;
}

static void run_pool(unsigned int jobs, unsigned int expected)
{
	struct dmio_region dest = copies_region(2, 0, 8);
	struct kcopyd_job *job = &copy.job;
	unsigned int n;

	copies_client(4, 8, jobs);
	copies_hold(0, FAULT_READ);
	n = use_up();
	cr_assert_eq(n, expected);
	cr_assert_eq(copies_zero(1, &dest, 0, &ends[n]), -EAGAIN);
	cr_assert_eq(kcopyd_prepare_callback(copies.kc, copies_notify, &ends[n], &job), -EAGAIN);
	cr_assert_null(job);
	copies_settle();
	cr_assert_eq(copies.num_ends, 0);
	/* A job of the caller's own needs none of them. */
	copies_set(&copy, 1, 0, 8, 1, 0);
	copies_start(&copy);
	copies_let_go(0);
	for (unsigned int i = 0; i < n; i++)
		copies_wait(&ends[i]);
	copies_succeed(&copy);
	cr_assert_eq(copies_zero(1, &dest, 0, &ends[n]), 0);
	copies_wait(&ends[n]);
	cr_assert_eq(use_up(), n);
	for (unsigned int i = 0; i < n; i++)
		copies_wait(&ends[i]);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
	copies.num_ends = 0;
}

Test(kcopyd_client, used_up_pool_says_so_and_goes_on_after_a_poll)
{
	run_pool(2, 2);
	run_pool(1, 1);
	run_pool(0, KCOPYD_JOBS_DEFAULT);
}

/* ---- destroying ----------------------------------------------------------------------------- */

Test(kcopyd_client, destroy_drains_what_is_in_flight)
{
	copies_client(4, 8, 0);
	copies_set(&copy, 0, 0, SECTORS, 2, 0);
	copies_start(&copy);
	set_regions();
	cr_assert_eq(copies_copy(from, 1, dests, KCOPYD_FLUSH, &ends[0]), 0);
	copies_set(&other, 0, 0, 0, 2, 0);
	copies_start(&other);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0, "%s", dmcore_error_message());
	copies.kc = NULL;
	cr_assert_eq(copy.end.calls, 1);
	cr_assert_eq(other.end.calls, 1);
	cr_assert_eq(ends[0].calls, 1);
	cr_assert_eq(copy.job.status, 0);
	cr_assert_eq(pattern_differs(copies_bytes(2, 0), 0, SECTORS, 1), -1);
	copies_settle();
	cr_assert_eq(copies.num_ends, 3);
}

static _Atomic bool stop;

/* Lets requests go as they come, until it is told to stop. */
static void *let_go(void *context)
{
	(void)context;
	while (!atomic_load(&stop)) {
		for (unsigned int i = 0; i < copies.num_disks; i++)
			fault_release_all(copies.disk[i]);
		stage_sleep_ns(1000000);
	}
	return NULL;
}

Test(kcopyd_client, destroy_waits_for_slow_disks)
{
	pthread_t thread;

	copies_client(4, 8, 0);
	for (unsigned int i = 0; i < 3; i++)
		copies_hold(i, 0);
	copies_set(&copy, 0, 0, 100, 2, KCOPYD_FLUSH | KCOPYD_VERIFY);
	copies_start(&copy);
	cr_assert_eq(pthread_create(&thread, NULL, let_go, NULL), 0);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	cr_assert_eq(copy.end.calls, 1);
	cr_assert_eq(copy.job.status, 0);
	copies_expect_copied(&copy, 100);
}

static void *do_callback_later(void *context)
{
	stage_sleep_ns(20000000);
	kcopyd_do_callback(context, 0, 0);
	return NULL;
}

Test(kcopyd_client, destroy_waits_for_prepared_callbacks)
{
	struct kcopyd_job *job;
	pthread_t thread;

	copies_client(4, 8, 0);
	cr_assert_eq(kcopyd_prepare_callback(copies.kc, copies_notify, &ends[0], &job), 0);
	cr_assert_eq(pthread_create(&thread, NULL, do_callback_later, job), 0);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
	cr_assert_eq(ends[0].calls, 1);
	pthread_join(thread, NULL);
}

static int destroyed;

static void done_destroys(struct kcopyd_job *job)
{
	copies_done(job);
	destroyed = kcopyd_client_destroy(copies.kc);
}

Test(kcopyd_client, destroy_in_a_callback_is_refused_while_something_is_under_way)
{
	copies_client(4, 8, 0);
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, 100, 1, 0);
	copies_start(&copy);
	copies_set(&other, 0, 0, 0, 1, 0);
	other.job.done = done_destroys;
	copies_run(&other);
	cr_assert_eq(destroyed, -EBUSY);
	copies_let_go(0);
	copies_succeed(&copy);
	copies_expect_copied(&copy, 100);
}

/* Whoever sleeps for this core says that it makes no sense. */
static _Atomic bool awake;

static int refuse_to_sleep(struct dmcore *core, uint64_t until_ns, void *context)
{
	(void)core;
	(void)until_ns;
	(void)context;
	return awake ? 0 : -EDEADLK;
}

Test(sleepless, destroy_gives_up_when_waiting_makes_no_sense)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.sleep = refuse_to_sleep;
	copies_open_on(2, SECTORS, "", &options);
	copies_client(4, 8, 0);
	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, 100, 1, 0);
	copies_start(&copy);
	expect_refused(kcopyd_client_destroy(copies.kc), -EDEADLK);
	cr_assert_eq(copy.end.calls, 0);
	/* Unchanged: it can be used, and destroyed later. */
	atomic_store(&awake, true);
	copies_let_go(0);
	copies_set(&other, 0, 500, 100, 1, 0);
	copies_start(&other);
	copies_succeed(&copy);
	copies_succeed(&other);
	copies_close();
}

/* ---- after fork() --------------------------------------------------------------------------- */

/* The line of the first check that failed, as an exit status: 0 is success. */
#define CHECK(expression)                                                                          \
	do {                                                                                       \
		if (!(expression))                                                                 \
			return __LINE__ % 250 + 1;                                                 \
	} while (0)

static int refused_in_a_child(void)
{
	struct kcopyd_job *job = &copy.job;

	set_regions();
	CHECK(try_copy(1, 0) == -EOWNERDEAD);
	CHECK(copies_zero(1, dests, 0, &ends[0]) == -EOWNERDEAD);
	CHECK(kcopyd_prepare_callback(copies.kc, copies_notify, &ends[0], &job) == -EOWNERDEAD);
	CHECK(!job);
	copies_set(&copy, 0, 0, 10, 1, 0);
	CHECK(kcopyd_prepare(copies.kc, &copy.job) == -EOWNERDEAD);
	CHECK(copies_try(&copy) == -EOWNERDEAD);
	CHECK(kcopyd_cancel(&other.job) == 0);
	/* Nothing of it ends here, and nothing is waited for. */
	CHECK(kcopyd_client_destroy(copies.kc) == 0);
	CHECK(copies.num_ends == 0);
	return 0;
}

Test(kcopyd_client, child_of_fork_is_refused_everything)
{
	int status;
	pid_t child;

	copies_client(4, 8, 0);
	copies_set(&other, 0, 0, 100, 1, 0);
	copies_start(&other);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0)
		child_exit(refused_in_a_child());
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0, "the check in line %d failed", WEXITSTATUS(status) - 1);
	copies_succeed(&other);
	copies_expect_copied(&other, 100);
}
