/* SPDX-License-Identifier: MIT */
/* The descriptor of a queue: readable when a poll has something to do, whoever brought it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <sys/epoll.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define THREADS 4
#define POSTS 3000
#define REQUESTS 3000
#define PATIENCE_MS 20000

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static struct dmcore_bdev *mem;
static unsigned char buffer[DMCORE_SECTOR_BYTES];
static unsigned char buffers[REQUESTS][DMCORE_SECTOR_BYTES];

static void open_with(const struct dmcore_queue_options *options)
{
	stage_open(&stage, NULL, options);
	scratch_create(&scratch, NULL, 1 << 20);
	file = stage_bdev(&stage, scratch.path, 0);
	mem = stage_bdev(&stage, "mem:1M", 0);
}

static void set_up(void)
{
	open_with(NULL);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(queue_fd, .init = set_up, .fini = tear_down);

static bool becomes_readable(int fd, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int ret = poll(&pfd, 1, timeout_ms);

	cr_assert_geq(ret, 0);
	return ret == 1 && (pfd.revents & POLLIN);
}

static unsigned int works_run;

static void count_work(struct dmcore_work *work)
{
	(void)work;
	works_run++;
}

Test(queue_fd, is_one_and_quiet_at_first)
{
	int fd = dmcore_queue_fd(stage.queue);

	cr_assert_geq(fd, 0);
	cr_assert_eq(dmcore_queue_fd(stage.queue), fd);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert(!becomes_readable(fd, 10));
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
	cr_assert(!becomes_readable(fd, 10));
	cr_assert_eq(dmcore_queue_fd(NULL), -EINVAL);
}

Test(queue_fd, is_closed_with_the_queue)
{
	int fd = dmcore_queue_fd(stage.queue);

	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	stage.queue = NULL;
	cr_assert(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
}

Test(queue_fd, shows_a_post_until_it_has_run)
{
	struct dmcore_work work = { .fn = count_work };
	int fd = dmcore_queue_fd(stage.queue);

	for (unsigned int i = 0; i < 3; i++) {
		dmcore_queue_post(stage.queue, &work);
		cr_assert(becomes_readable(fd, PATIENCE_MS));
		cr_assert(becomes_readable(fd, 0), "level-triggered");
		cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
		cr_assert(!becomes_readable(fd, 10));
	}
	cr_assert_eq(works_run, 3);
}

Test(queue_fd, shows_a_post_that_came_before_it)
{
	struct dmcore_work work = { .fn = count_work };
	int fd;

	dmcore_queue_post(stage.queue, &work);
	fd = dmcore_queue_fd(stage.queue);
	cr_assert(becomes_readable(fd, PATIENCE_MS));
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
}

Test(queue_fd, shows_completions_after_a_kick)
{
	struct dmcore_bdev *bdevs[] = { file, mem };
	int fd = dmcore_queue_fd(stage.queue);

	for (unsigned int i = 0; i < 2; i++) {
		struct tally tally = { 0 };

		stage_submit(&stage, bdevs[i], DMCORE_OP_READ, 0, 1, buffer, &tally);
		stage_submit(&stage, bdevs[i], DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
		cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
		while (tally.ended < 2) {
			cr_assert(becomes_readable(fd, PATIENCE_MS), "device %u", i);
			cr_assert_geq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
			cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
		}
		cr_assert_eq(tally.failed, 0);
		cr_assert(!becomes_readable(fd, 10), "device %u", i);
	}
}

Test(queue_fd, shows_what_a_poll_left_behind)
{
	struct dmcore_work works[3] = { { .fn = count_work }, { .fn = count_work },
					{ .fn = count_work } };
	int fd = dmcore_queue_fd(stage.queue);
	struct tally tally = { 0 };

	for (unsigned int i = 0; i < 3; i++)
		stage_submit(&stage, mem, DMCORE_OP_READ, i, 1, buffer, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 1);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	cr_assert(becomes_readable(fd, 0));
	stage_wait(&stage, &tally, 3);

	for (unsigned int i = 0; i < 3; i++)
		dmcore_queue_post(stage.queue, &works[i]);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 1);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	cr_assert(becomes_readable(fd, 0), "two posts are left");
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 2);
	cr_assert(!becomes_readable(fd, 10));
}

Test(queue_fd, does_not_hinder_a_blocking_poll)
{
	struct tally tally = { 0 };

	cr_assert_geq(dmcore_queue_fd(stage.queue), 0);
	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, buffer, &tally);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 5000000), 0);
}

/* ---- an event loop -------------------------------------------------------------------------- */

struct poster {
	pthread_t thread;
	struct dmcore_work works[POSTS];
};

static struct poster posters[THREADS];

static void *post_many(void *context)
{
	struct poster *poster = context;

	for (unsigned int i = 0; i < POSTS; i++) {
		poster->works[i].fn = count_work;
		dmcore_queue_post(stage.queue, &poster->works[i]);
		if (i % 64 == 0)
			stage_sleep_ns(10000);
	}
	return NULL;
}

/* As applications write it: never a blocking poll, and nothing but the descriptor to go by. */
static void run_loop(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd = dmcore_queue_fd(stage.queue);
	int loop = epoll_create1(EPOLL_CLOEXEC);
	struct tally tally = { 0 };
	unsigned int submitted = 0;

	cr_assert(fd >= 0 && loop >= 0);
	cr_assert_eq(epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event), 0);
	while (tally.ended < REQUESTS || works_run < THREADS * POSTS) {
		for (; submitted < REQUESTS && submitted - tally.ended < 24; submitted++)
			stage_submit(&stage, submitted % 5 ? file : mem, DMCORE_OP_READ,
				     submitted % 2048, 1, buffers[submitted], &tally);
		cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
		cr_assert_eq(epoll_wait(loop, &event, 1, PATIENCE_MS), 1,
			     "asleep with %u requests and %u posts done", tally.ended, works_run);
		cr_assert_geq(dmcore_queue_poll(stage.queue, 0, 7, 0), 0);
	}
	cr_assert_eq(tally.failed, 0);
	close(loop);
}

static void run_loop_with_posters(void)
{
	for (unsigned int t = 0; t < THREADS; t++)
		cr_assert_eq(pthread_create(&posters[t].thread, NULL, post_many, &posters[t]), 0);
	run_loop();
	for (unsigned int t = 0; t < THREADS; t++)
		pthread_join(posters[t].thread, NULL);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	cr_assert_eq(works_run, THREADS * POSTS);
}

Test(queue_fd, drives_an_event_loop)
{
	run_loop_with_posters();
}

Test(queue_fd_options, drives_an_event_loop_with_workers, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = DMCORE_BACKEND_PREAD;
	options.workers = 3;
	open_with(&options);
	run_loop_with_posters();
}

Test(queue_fd_options, drives_an_event_loop_at_depth_2, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.depth = 2;
	open_with(&options);
	run_loop_with_posters();
}

Test(queue_fd_options, drives_an_event_loop_of_a_migrating_queue, .fini = tear_down)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.flags = DMCORE_QUEUE_MIGRATES;
	open_with(&options);
	run_loop_with_posters();
}
