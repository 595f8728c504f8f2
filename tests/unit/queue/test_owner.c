/* SPDX-License-Identifier: MIT */
/* Whose a queue is: threads that take over from each other, and children of fork(). */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/wait.h>

#include <criterion/criterion.h>

#include "support/child.h"
#include "support/scratch.h"
#include "support/stage.h"

#define SECTORS 2048

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

static void open_with(const struct dmcore_queue_options *options)
{
	stage_open(&stage, NULL, options);
	scratch_create(&scratch, NULL, SECTORS * DMCORE_SECTOR_BYTES);
	file = stage_bdev(&stage, scratch.path, 0);
}

static void set_up(void)
{
	open_with(NULL);
}

static void set_up_migrating(void)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.flags = DMCORE_QUEUE_MIGRATES;
	open_with(&options);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(queue_owner, .init = set_up, .fini = tear_down);
TestSuite(queue_migrates, .init = set_up_migrating, .fini = tear_down);
TestSuite(queue_fork, .init = set_up, .fini = tear_down);

/* Runs fn on a thread of its own and returns what it returned. */
static void *on_thread(void *(*fn)(void *context), void *context)
{
	pthread_t thread;
	void *result;

	cr_assert_eq(pthread_create(&thread, NULL, fn, context), 0);
	pthread_join(thread, &result);
	return result;
}

/* ---- owners --------------------------------------------------------------------------------- */

static int claimed;

static void *claim(void *context)
{
	(void)context;
	claimed = dmcore_queue_claim(stage.queue);
	return NULL;
}

Test(queue_owner, the_first_to_poll_owns_it)
{
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
	on_thread(claim, NULL);
	cr_assert_eq(claimed, -EPERM);
	cr_assert_eq(dmcore_queue_claim(stage.queue), 0, "the owner may say so again");
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
}

static int others[4];

static void *try_to_use(void *context)
{
	(void)context;
	others[0] = dmcore_queue_poll(stage.queue, 0, 1, 0);
	others[1] = dmcore_queue_kick(stage.queue);
	others[2] = dmcore_queue_fd(stage.queue);
	others[3] = dmcore_queue_register_buffers(stage.queue, NULL, 0);
	return NULL;
}

Test(queue_owner, no_other_thread_can_use_it)
{
	struct tally tally = { 0 };

	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, buffer, &tally);
	stage_wait(&stage, &tally, 1);
	on_thread(try_to_use, NULL);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(others[i], -EPERM, "call %u", i);
	/* It hasn't changed hands. */
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 1, buffer), 0);
}

Test(queue_owner, the_first_to_submit_owns_it)
{
	struct tally tally = { 0 };

	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, buffer, &tally);
	on_thread(claim, NULL);
	cr_assert_eq(claimed, -EPERM);
	stage_wait(&stage, &tally, 1);
}

static void *use_and_destroy(void *context)
{
	struct tally tally = { 0 };

	(void)context;
	for (unsigned int i = 0; i < 32; i++)
		stage_submit(&stage, file, DMCORE_OP_READ, i, 1, buffer, &tally);
	stage_wait(&stage, &tally, 32);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	stage.queue = NULL;
	return NULL;
}

Test(queue_owner, need_not_be_who_made_it)
{
	on_thread(use_and_destroy, NULL);
}

Test(queue_owner, claim_needs_a_queue)
{
	cr_assert_eq(dmcore_queue_claim(NULL), -EINVAL);
}

/* ---- queues that change hands --------------------------------------------------------------- */

static struct tally shared;

static void *claim_and_run(void *context)
{
	struct tally tally = { 0 };

	(void)context;
	cr_assert_eq(dmcore_queue_claim(stage.queue), 0);
	for (unsigned int i = 0; i < 16; i++)
		stage_submit(&stage, file, i % 4 ? DMCORE_OP_READ : DMCORE_OP_WRITE, i, 1, buffer,
			     &tally);
	stage_wait(&stage, &tally, 16);
	cr_assert_eq(tally.failed, 0, "%d", tally.status);
	return NULL;
}

Test(queue_migrates, goes_from_thread_to_thread)
{
	for (unsigned int i = 0; i < 40; i++) {
		on_thread(claim_and_run, NULL);
		claim_and_run(NULL);
	}
}

static void *submit_and_leave(void *context)
{
	(void)context;
	cr_assert_eq(dmcore_queue_claim(stage.queue), 0);
	memset(&shared, 0, sizeof(shared));
	for (unsigned int i = 0; i < 32; i++) {
		stage_submit(&stage, file, DMCORE_OP_WRITE, i, 1, buffer, &shared);
		stage_submit(&stage, file, DMCORE_OP_FLUSH, 0, 0, NULL, &shared);
	}
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	return NULL;
}

/* Requests belong to the queue, not to a thread that is gone. */
Test(queue_migrates, requests_outlive_the_thread_that_submitted_them)
{
	for (unsigned int i = 0; i < 20; i++) {
		on_thread(submit_and_leave, NULL);
		cr_assert_eq(dmcore_queue_claim(stage.queue), 0);
		stage_wait(&stage, &shared, 64);
		cr_assert_eq(shared.failed, 0, "round %u: %d", i, shared.status);
	}
}

static void *sleep_in_poll(void *context)
{
	(void)context;
	cr_assert_eq(dmcore_queue_claim(stage.queue), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 1000000), 0);
	return NULL;
}

static unsigned int works_run;

static void count_work(struct dmcore_work *work)
{
	(void)work;
	works_run++;
}

static void *post_late(void *context)
{
	stage_sleep_ns(20000000);
	dmcore_queue_post(stage.queue, context);
	return NULL;
}

/* What an owner has set up to be woken must not be gone with it. */
Test(queue_migrates, wakes_its_new_owner)
{
	struct dmcore_work work = { .fn = count_work };

	for (unsigned int i = 1; i <= 10; i++) {
		pthread_t thread;

		on_thread(sleep_in_poll, NULL);
		cr_assert_eq(dmcore_queue_claim(stage.queue), 0);
		cr_assert_eq(pthread_create(&thread, NULL, post_late, &work), 0);
		cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
		cr_assert_eq(works_run, i);
		pthread_join(thread, NULL);
	}
}

/* ---- fork() --------------------------------------------------------------------------------- */

/* In a child: a check that is not an assertion of the parent's test. */
#define CHECK(expression)                                                                          \
	do {                                                                                       \
		if (!(expression))                                                                 \
			_exit(__LINE__ & 0x7f ? __LINE__ & 0x7f : 1);                              \
	} while (0)

static void in_child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		/* A child that hangs must not hang the test. */
		alarm(20);
		fn();
		child_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		cr_assert_eq(errno, EINTR);
	cr_assert(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	cr_assert_eq(WEXITSTATUS(status), 0, "the check in line %d (of 128) of the child failed",
		     WEXITSTATUS(status));
}

static struct dmcore_bio *prepared;
static struct dmio_client *client;

static void try_everything(void)
{
	struct dmio_region region = { file, 0, 1 };
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };
	struct dmcore_work work = { .fn = count_work };
	unsigned char sector[DMCORE_SECTOR_BYTES];
	struct dmcore_queue *queue;

	CHECK(dmcore_queue_poll(stage.queue, 0, 1, 0) == -EOWNERDEAD);
	CHECK(dmcore_queue_poll(stage.queue, 1, 1, -1) == -EOWNERDEAD);
	CHECK(dmcore_queue_kick(stage.queue) == -EOWNERDEAD);
	CHECK(dmcore_queue_claim(stage.queue) == -EOWNERDEAD);
	CHECK(dmcore_queue_fd(stage.queue) == -EOWNERDEAD);
	CHECK(dmcore_queue_register_buffers(stage.queue, NULL, 0) == -EOWNERDEAD);
	CHECK(dmcore_bio_submit(prepared) == -EOWNERDEAD);
	CHECK(dmcore_queue_create(stage.core, NULL, &queue) == -EOWNERDEAD);
	CHECK(dmcore_pread(file, sector, sizeof(sector), 0) == -EOWNERDEAD);
	CHECK(dmcore_pwrite(file, sector, sizeof(sector), 0) == -EOWNERDEAD);
	CHECK(dmcore_flush(file) == -EOWNERDEAD);
	CHECK(dmio_sync_vm(client, 1, &region, DMIO_READ, sector, NULL) == -EOWNERDEAD);
	CHECK(dmcore_service_post(stage.core, &work) == -EOWNERDEAD);
	CHECK(dmcore_queue_info(stage.queue, &info) == -EOWNERDEAD);
	CHECK(dmcore_queue_reap(stage.queue, &prepared, 1) == 0);
	dmcore_queue_post(stage.queue, &work);
	CHECK(dmcore_queue_destroy(stage.queue) == -EOWNERDEAD);
	CHECK(dmcore_destroy(stage.core) == -EOWNERDEAD);
}

static void write_pattern(uint32_t version)
{
	struct tally tally = { 0 };

	pattern_fill(buffer, 0, 64, version);
	for (unsigned int i = 0; i < 64; i++)
		stage_submit(&stage, file, DMCORE_OP_WRITE, i, 1,
			     buffer + i * DMCORE_SECTOR_BYTES, &tally);
	stage_wait(&stage, &tally, 64);
	cr_assert_eq(tally.failed, 0);
}

static void prepare(void)
{
	prepared = stage_bio(&stage, file, DMCORE_OP_READ, 0, 1, buffer, NULL);
	cr_assert_eq(dmio_client_create(stage.queue, 1, &client), 0);
}

static void unprepare(void)
{
	cr_assert_eq(dmio_client_destroy(client), 0);
	dmcore_bio_put(prepared);
}

Test(queue_fork, a_child_is_refused_and_the_parent_unharmed)
{
	prepare();
	write_pattern(1);
	in_child(try_everything);
	write_pattern(2);
	cr_assert_eq(dmcore_pread(file, buffer, sizeof(buffer), 0), 0);
	cr_assert_eq(pattern_differs(buffer, 0, 64, 2), -1);
	in_child(try_everything);
	unprepare();
}

static void *post_to_service(void *context)
{
	cr_assert_eq(dmcore_service_post(stage.core, context), 0);
	return NULL;
}

/* With requests in flight, the service thread asleep, and workers at work. */
Test(queue_fork_busy, a_child_is_refused_in_the_middle_of_requests, .fini = tear_down)
{
	/* The service may run it as late as the core's end. */
	static struct dmcore_work work = { .fn = count_work };
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct tally tally = { 0 };

	options.workers = 4;
	open_with(&options);
	prepare();
	on_thread(post_to_service, &work);
	pattern_fill(buffer, 0, 64, 3);
	for (unsigned int i = 0; i < 64; i++)
		stage_submit(&stage, file, DMCORE_OP_WRITE, i, 1,
			     buffer + i * DMCORE_SECTOR_BYTES, &tally);
	in_child(try_everything);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	in_child(try_everything);
	stage_wait(&stage, &tally, 64);
	cr_assert_eq(tally.failed, 0);
	in_child(try_everything);
	cr_assert_eq(dmcore_pread(file, buffer, sizeof(buffer), 0), 0);
	cr_assert_eq(pattern_differs(buffer, 0, 64, 3), -1);
	unprepare();
}

static void make_a_core_of_its_own(void)
{
	struct dmcore_queue *queue;
	unsigned char sector[DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev;
	struct dmcore_bio *bio;
	struct dmcore *core;

	CHECK(dmcore_create(NULL, &core) == 0);
	CHECK(dmcore_queue_create(core, NULL, &queue) == 0);
	CHECK(dmcore_bdev_open(core, scratch.path, 0, &bdev) == 0);
	CHECK(dmcore_pread(bdev, sector, sizeof(sector), 0) == 0);
	CHECK(pattern_differs(sector, 0, 1, 4) == -1);
	bio = dmcore_bio_get(queue);
	CHECK(bio != NULL);
	bio->bdev = bdev;
	bio->op = DMCORE_OP_WRITE;
	bio->sector = 1;
	pattern_fill(sector, 1, 1, 5);
	dmcore_bio_set_buffer(bio, sector, sizeof(sector));
	CHECK(dmcore_bio_submit(bio) == 0);
	CHECK(dmcore_queue_poll(queue, 1, 1, -1) == 1);
	CHECK(dmcore_queue_reap(queue, &bio, 1) == 1 && bio->status == 0);
	dmcore_bio_put(bio);
	CHECK(dmcore_queue_destroy(queue) == 0);
	CHECK(dmcore_bdev_close(bdev) == 0);
	CHECK(dmcore_destroy(core) == 0);
}

Test(queue_fork, a_child_may_make_a_core_of_its_own)
{
	write_pattern(4);
	in_child(make_a_core_of_its_own);
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 2, buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 0, 1, 4), -1);
	cr_assert_eq(pattern_differs(buffer + DMCORE_SECTOR_BYTES, 1, 1, 5), -1);
}

static void leave_by_exit(void)
{
	exit(0);
}

Test(queue_fork, a_child_may_exit)
{
	struct tally tally = { 0 };

	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, buffer, &tally);
	in_child(leave_by_exit);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}
