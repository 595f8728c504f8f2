/* SPDX-License-Identifier: MIT */
/* Timers of a queue (queue/timer.c), and waiting by a clock and a sleep hook of the program's. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/stage.h"

#define TIMERS 1000

static struct stage stage;
static uint64_t clock_ns;
static uint64_t slept_until_ns;
static unsigned int num_sleeps;
static int sleep_result;

/* ---- a clock that the tests move ---- */

static uint64_t read_clock(void *context)
{
	(void)context;
	return clock_ns;
}

/* Time passes when somebody waits for it, and never by itself. */
static int pass_time(struct dmcore *core, uint64_t until_ns, void *context)
{
	cr_assert_eq(core, stage.core);
	(void)context;
	num_sleeps++;
	slept_until_ns = until_ns;
	if (sleep_result)
		return sleep_result;
	cr_assert_neq(until_ns, UINT64_MAX, "nothing would ever end this wait");
	clock_ns = until_ns;
	return 0;
}

static void open_stage(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	clock_ns = 1000;
	options.clock_ns = read_clock;
	options.sleep = pass_time;
	stage_open(&stage, &options, NULL);
}

static void open_with_real_clock(void)
{
	stage_open(&stage, NULL, NULL);
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(timers, .init = open_stage, .fini = close_stage);
TestSuite(real_timers, .init = open_with_real_clock, .fini = close_stage);

/* ---- timers that note their turn ---- */

struct noted {
	struct dmcore_timer timer; /* first, so that one is the other */
	unsigned int id;
	unsigned int times;
};

static struct noted noted[TIMERS];
static unsigned int turns[TIMERS * 2];
static unsigned int num_turns;

static void note(struct dmcore_timer *timer)
{
	struct noted *self = (struct noted *)timer;

	self->times++;
	turns[num_turns++] = self->id;
}

static struct dmcore_timer *noting(unsigned int id)
{
	noted[id].id = id;
	noted[id].timer.fn = note;
	return &noted[id].timer;
}

Test(timers, run_in_order_of_their_times_and_then_of_their_starts)
{
	static const uint64_t times_ns[] = { 5000, 3000, 5000, 2000, 3000, 1000 };
	static const unsigned int order[] = { 5, 3, 1, 4, 0, 2 };

	for (unsigned int i = 0; i < 6; i++)
		cr_assert_eq(dmcore_timer_start(stage.queue, noting(i), times_ns[i]), 0);
	clock_ns = 10000;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 6);
	for (unsigned int i = 0; i < 6; i++)
		cr_assert_eq(turns[i], order[i], "turn %u is of timer %u", i, turns[i]);
	cr_assert_eq(dmcore_timer_next_ns(stage.queue), UINT64_MAX);
}

Test(timers, none_runs_before_its_time)
{
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 1001), 0);
	cr_assert_eq(dmcore_timer_next_ns(stage.queue), 1001);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	clock_ns = 1001;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
}

Test(timers, poll_sleeps_until_the_next_timer_and_no_longer)
{
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 7000), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, -1), 1);
	cr_assert_eq(clock_ns, 7000);
	cr_assert_eq(num_sleeps, 1);
	cr_assert_eq(noted[0].times, 1);
}

Test(timers, poll_gives_up_at_its_own_time)
{
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 7000), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 500), 0);
	cr_assert_eq(clock_ns, 1500);
	cr_assert(dmcore_timer_cancel(stage.queue, &noted[0].timer));
}

Test(timers, cancelled_one_does_not_run)
{
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 2000), 0);
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(1), 2000), 0);
	cr_assert(dmcore_timer_cancel(stage.queue, &noted[0].timer));
	cr_assert_not(dmcore_timer_cancel(stage.queue, &noted[0].timer), "it isn't running");
	clock_ns = 3000;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
	cr_assert_eq(noted[0].times, 0);
	cr_assert_eq(noted[1].times, 1);
}

Test(timers, running_one_is_moved_by_another_start)
{
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 2000), 0);
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 4000), 0);
	clock_ns = 3000;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	clock_ns = 4000;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
}

static unsigned int num_restarts;

static void restart(struct dmcore_timer *timer)
{
	num_restarts++;
	cr_assert_eq(dmcore_timer_start(stage.queue, timer, timer->at_ns), 0);
}

Test(timers, one_that_starts_itself_for_now_has_one_turn_a_round)
{
	struct dmcore_timer timer = { .fn = restart };

	cr_assert_eq(dmcore_timer_start(stage.queue, &timer, 1000), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
	cr_assert_eq(num_restarts, 1);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 3, 3, -1), 3);
	cr_assert(dmcore_timer_cancel(stage.queue, &timer));
}

Test(timers, one_that_starts_itself_for_a_past_time_lets_others_have_their_turn)
{
	struct dmcore_timer timer = { .fn = restart };

	cr_assert_eq(dmcore_timer_start(stage.queue, &timer, 0), 0);
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 1000), 0);
	for (unsigned int round = 0; round < 10; round++)
		cr_assert_gt(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 0);
	cr_assert_eq(noted[0].times, 1);
	cr_assert_eq(num_restarts, 10);
	cr_assert(dmcore_timer_cancel(stage.queue, &timer));
}

Test(timers, max_holds_for_them_too)
{
	for (unsigned int i = 0; i < 10; i++)
		cr_assert_eq(dmcore_timer_start(stage.queue, noting(i), 500), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 4, 0), 4);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 6);
}

/* Against a plain array: any order of starts, moves, cancellations and steps of time. */
Test(timers, random_operations_run_each_at_its_time)
{
	static uint64_t due_ns[TIMERS]; /* 0: not running */
	struct rng rng;

	rng_start(&rng, 1);
	for (unsigned int step = 0; step < 20000; step++) {
		unsigned int id = (unsigned int)(rng_below(&rng, TIMERS));
		unsigned int what = (unsigned int)(rng_below(&rng, 8));
		unsigned int expected = 0;

		if (what < 5) {
			due_ns[id] = clock_ns + 1 + rng_below(&rng, 1000);
			cr_assert_eq(dmcore_timer_start(stage.queue, noting(id), due_ns[id]), 0);
			continue;
		}
		if (what < 7) {
			cr_assert_eq(dmcore_timer_cancel(stage.queue, noting(id)), due_ns[id] != 0);
			due_ns[id] = 0;
			continue;
		}
		clock_ns += rng_below(&rng, 100);
		num_turns = 0;
		for (unsigned int i = 0; i < TIMERS; i++)
			expected += due_ns[i] && due_ns[i] <= clock_ns;
		cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), (int)expected);
		for (unsigned int i = 0; i < num_turns; i++) {
			cr_assert(i == 0 || due_ns[turns[i - 1]] <= due_ns[turns[i]]);
			cr_assert(due_ns[turns[i]] && due_ns[turns[i]] <= clock_ns);
		}
		for (unsigned int i = 0; i < num_turns; i++)
			due_ns[turns[i]] = 0;
	}
	for (unsigned int i = 0; i < TIMERS; i++)
		dmcore_timer_cancel(stage.queue, &noted[i].timer);
}

Test(timers, what_is_malformed_is_refused)
{
	struct dmcore_timer timer = { .fn = NULL };

	cr_assert_eq(dmcore_timer_start(stage.queue, &timer, 1), -EINVAL);
	cr_assert_eq(dmcore_timer_start(NULL, noting(0), 1), -EINVAL);
	cr_assert_eq(dmcore_timer_start(stage.queue, NULL, 1), -EINVAL);
	cr_assert_not(dmcore_timer_cancel(stage.queue, &timer));
	cr_assert_eq(dmcore_timer_next_ns(NULL), UINT64_MAX);
}

static struct dmcore_timer borrowed;

static void *start_elsewhere(void *result)
{
	*(int *)result = dmcore_timer_start(stage.queue, &borrowed, clock_ns + 1);
	return NULL;
}

Test(timers, only_the_owner_of_a_queue_starts_them)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	pthread_t thread;
	int ret = 1;

	borrowed.fn = note;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
	cr_assert_eq(pthread_create(&thread, NULL, start_elsewhere, &ret), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(ret, -EPERM);
	cr_assert_eq(dmcore_timer_next_ns(stage.queue), UINT64_MAX);
	/* One that migrates is used by one thread after the other. */
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	options.flags = DMCORE_QUEUE_MIGRATES;
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &stage.queue), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 1, 0), 0);
	cr_assert_eq(pthread_create(&thread, NULL, start_elsewhere, &ret), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(ret, 0);
	cr_assert_eq(dmcore_timer_next_ns(stage.queue), clock_ns + 1);
	cr_assert(dmcore_timer_cancel(stage.queue, &borrowed));
}

Test(timers, queue_with_a_running_one_stays)
{
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 5000), 0);
	cr_assert_eq(dmcore_queue_destroy(stage.queue), -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "timers of the queue are running");
	cr_assert(dmcore_timer_cancel(stage.queue, &noted[0].timer));
}

/* ---- the sleep hook ---- */

Test(timers, sleep_that_refuses_ends_the_poll)
{
	sleep_result = -EDEADLK;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, -1), -EDEADLK);
	cr_assert_eq(slept_until_ns, UINT64_MAX);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 1000), -EDEADLK);
	cr_assert_eq(slept_until_ns, 2000);
}

Test(timers, waiting_for_an_event_sleeps_by_the_hook)
{
	uint32_t event_nr = 0;

	stage_map(&stage, "d", "0 8 zero");
	cr_assert_eq(dmcore_device_wait(stage.devices[0], &event_nr, 1000000), -ETIMEDOUT);
	cr_assert_eq(clock_ns, 1001000);
	sleep_result = -EDEADLK;
	cr_assert_eq(dmcore_device_wait(stage.devices[0], &event_nr, -1), -EDEADLK);
	cr_assert_str_eq(dmcore_error_message(), "nothing will happen to the device");
}

Test(timers, suspend_sleeps_by_the_hook_and_gives_up_when_it_refuses)
{
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	struct dmcore_bdev *bdev = stage_map(&stage, "d", "0 64 linear fault:64,id=1 0");
	struct tally tally = { 0 };
	char buffer[512];

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 1, buffer, &tally);
	cr_assert_eq(dmcore_device_suspend(stage.devices[0], 0, 5000000), -ETIMEDOUT);
	cr_assert_eq(clock_ns, 5001000);
	sleep_result = -EDEADLK;
	cr_assert_eq(dmcore_device_suspend(stage.devices[0], 0, -1), -EDEADLK);
	cr_assert(strstr(dmcore_error_message(), "nothing will end the requests in flight"));
	sleep_result = 0;
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
}

/* ---- a clock of the program's, and the kernel's sleep ---- */

static uint64_t wakes_at_ns;

/* Stands still until the time has passed for real. */
static uint64_t read_jumping_clock(void *context)
{
	(void)context;
	return stage_now_ns() < wakes_at_ns ? 1000 : 1000000000;
}

static void open_with_clock(dmcore_clock_fn clock)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	clock_ns = 1000;
	options.clock_ns = clock;
	stage_open(&stage, &options, NULL);
}

Test(own_clock, that_stands_still_ends_a_poll_by_the_kernels_time)
{
	open_with_clock(read_clock);
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), clock_ns + 1000000), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(num_turns, 0);
	clock_ns += 1000000;
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(num_turns, 1);
	close_stage();
}

Test(own_clock, that_moves_meanwhile_runs_the_timer)
{
	open_with_clock(read_jumping_clock);
	wakes_at_ns = stage_now_ns() + 1000000;
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), 1000 + 2000000), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(num_turns, 1);
	close_stage();
}

/* ---- with the kernel's clock ---- */

Test(real_timers, poll_waits_for_one)
{
	uint64_t begun_ns = dmcore_clock_ns(stage.core);

	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), begun_ns + 20000000), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_geq(dmcore_clock_ns(stage.core), begun_ns + 20000000);
}

Test(real_timers, descriptor_is_readable_when_one_is_due)
{
	struct pollfd pfd = { .fd = dmcore_queue_fd(stage.queue), .events = POLLIN };
	uint64_t begun_ns = dmcore_clock_ns(stage.core);

	cr_assert_geq(pfd.fd, 0);
	dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0);
	cr_assert_eq(poll(&pfd, 1, 0), 0, "nothing to do yet");
	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), begun_ns + 20000000), 0);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	cr_assert_eq(poll(&pfd, 1, (int)(STAGE_PATIENCE_NS / 1000000)), 1);
	cr_assert_geq(dmcore_clock_ns(stage.core), begun_ns + 20000000);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0), 1);
	cr_assert_eq(poll(&pfd, 1, 0), 0, "it has run");
}

Test(real_timers, descriptor_forgets_a_cancelled_one)
{
	struct pollfd pfd = { .fd = dmcore_queue_fd(stage.queue), .events = POLLIN };
	uint64_t begun_ns = dmcore_clock_ns(stage.core);

	cr_assert_eq(dmcore_timer_start(stage.queue, noting(0), begun_ns + 30000000), 0);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	cr_assert(dmcore_timer_cancel(stage.queue, &noted[0].timer));
	dmcore_queue_poll(stage.queue, 0, UINT_MAX, 0);
	cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
	cr_assert_eq(poll(&pfd, 1, 60), 0);
}
