/* SPDX-License-Identifier: MIT */
/* Calls that the service carries out while their caller waits (queue/call.c). */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "base/core.h"
#include "support/actor.h"
#include "support/simworld.h"

#define THREADS 4
#define CALLS 300
#define LATER_NS 2000000

static struct stage stage;
static struct dmcore *its_core; /* the stage's, or a simulated one */

static void open_core(unsigned int flags)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.flags = flags;
	stage_open(&stage, &options, NULL);
	its_core = stage.core;
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

TestSuite(call, .init = set_up, .fini = tear_down);
TestSuite(call_manual, .init = set_up_manual, .fini = tear_down);

/* A call with what it needs to be returned later. */
struct later {
	struct dmcore_call call;
	struct dmcore_timer timer;
	struct dmcore_bio bio;
	unsigned char buffer[DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev;
	pthread_t runner;
	unsigned int runs;
};

static struct later *later_of(struct dmcore_call *call)
{
	return dmcore__container_of(call, struct later, call);
}

static void return_at_once(struct dmcore_call *call)
{
	struct later *later = later_of(call);

	later->runner = pthread_self();
	later->runs++;
	dmcore_service_return(call, -ENODATA);
}

static void time_is_over(struct dmcore_timer *timer)
{
	dmcore_service_return(&dmcore__container_of(timer, struct later, timer)->call, 7);
}

static void return_by_timer(struct dmcore_call *call)
{
	struct dmcore_queue *queue = dmcore_service_queue(its_core);
	struct later *later = later_of(call);

	later->timer.fn = time_is_over;
	actor_require(dmcore_timer_start(queue, &later->timer,
					 dmcore_clock_ns(its_core) + LATER_NS) == 0);
}

static void bio_has_ended(struct dmcore_bio *bio)
{
	struct later *later = bio->context;

	dmcore_service_return(&later->call, bio->status);
}

/* On a queue that is there already: fn mustn't make a control call. */
static void return_by_bio(struct dmcore_call *call)
{
	struct later *later = later_of(call);

	later->bio.done = bio_has_ended;
	later->bio.context = later;
	if (dmcore_bio_submit(&later->bio))
		dmcore_service_return(call, -EINVAL);
}

static void prepare_bio(struct later *later, uint64_t sector)
{
	dmcore_bio_init(&later->bio, dmcore_service_queue(its_core));
	later->bio.bdev = later->bdev;
	later->bio.op = DMCORE_OP_READ;
	later->bio.sector = sector;
	dmcore_bio_set_buffer(&later->bio, later->buffer, sizeof(later->buffer));
	later->call.fn = return_by_bio;
}

static void do_all(bool manual)
{
	struct later later = { .call = { .fn = return_at_once } };

	cr_assert_eq(dmcore_service_call(stage.core, &later.call), -ENODATA);
	cr_assert_eq(later.call.result, -ENODATA);
	cr_assert_eq(later.runs, 1);
	cr_assert_eq(!pthread_equal(later.runner, pthread_self()), !manual);
	later = (struct later){ .call = { .fn = return_by_timer } };
	cr_assert_eq(dmcore_service_call(stage.core, &later.call), 7);
	later = (struct later){ .bdev = stage_bdev(&stage, "fault:8,id=0", 0) };
	pattern_fill(fault_data(fault_disk_of(later.bdev)), 0, 8, 1);
	prepare_bio(&later, 3);
	cr_assert_eq(dmcore_service_call(stage.core, &later.call), 0);
	cr_assert_eq(pattern_differs(later.buffer, 3, 1, 1), -1);
	prepare_bio(&later, 8);
	cr_assert_eq(dmcore_service_call(stage.core, &later.call), -EIO);
}

Test(call, gives_back_what_it_was_returned_with)
{
	do_all(false);
}

Test(call_manual, gives_back_what_it_was_returned_with)
{
	do_all(true);
}

Test(call, without_a_function_is_refused)
{
	struct dmcore_call call = { .fn = NULL };

	cr_assert_eq(dmcore_service_call(stage.core, &call), -EINVAL);
	cr_assert_eq(dmcore_service_call(stage.core, NULL), -EINVAL);
	call.fn = return_at_once;
	cr_assert_eq(dmcore_service_call(NULL, &call), -EINVAL);
}

/* Each on its own stack, which is used for something else at once. */
static void *call_often(void *unused)
{
	for (unsigned int i = 0; i < CALLS; i++) {
		struct later later = { .call = { .fn = return_at_once } };

		actor_require(dmcore_service_call(stage.core, &later.call) == -ENODATA);
		actor_require(later.runs == 1);
		memset(&later, 0xff, sizeof(later));
	}
	return unused;
}

Test(call, of_many_threads_at_once)
{
	pthread_t threads[THREADS];

	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, call_often, NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* One of those who wait runs the service for all. */
Test(call_manual, of_many_threads_at_once)
{
	pthread_t threads[THREADS];

	for (unsigned int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, call_often, NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static _Atomic unsigned int inside;

static void tell_inside(struct dmcore_work *unused)
{
	(void)unused;
	atomic_fetch_add(&inside, 1);
}

static void *poll_for_three(void *unused)
{
	actor_require(dmcore_service_poll(stage.core, 3, 3, -1) == 3);
	return unused;
}

Test(call_manual, is_left_to_a_thread_that_polls_the_service)
{
	static struct dmcore_work works[2] = { { .fn = tell_inside }, { .fn = tell_inside } };
	struct later later = { .call = { .fn = return_at_once } };
	pthread_t thread;

	cr_assert_eq(dmcore_service_post(stage.core, &works[0]), 0);
	cr_assert_eq(pthread_create(&thread, NULL, poll_for_three, NULL), 0);
	actor_await(&inside, 1);
	cr_assert_eq(dmcore_service_call(stage.core, &later.call), -ENODATA);
	cr_assert(pthread_equal(later.runner, thread));
	cr_assert_eq(dmcore_service_post(stage.core, &works[1]), 0);
	pthread_join(thread, NULL);
}

/* ---- in the service itself ---- */

struct inner {
	struct dmcore_work work;
	struct later later;
	int results[2];
	_Atomic bool done;
};

static void call_inside(struct dmcore_work *work)
{
	struct inner *inner = dmcore__container_of(work, struct inner, work);

	inner->later.call.fn = return_at_once;
	inner->results[0] = dmcore_service_call(stage.core, &inner->later.call);
	if (inner->later.runs == 0) {
		inner->later.call.immediate = true;
		inner->results[1] = dmcore_service_call(stage.core, &inner->later.call);
	}
	atomic_store(&inner->done, true);
}

static void expect_no_wait_inside(struct inner *inner)
{
	cr_assert_eq(inner->results[0], -EDEADLK);
	cr_assert_eq(inner->results[1], -ENODATA, "one that is immediate runs on the spot");
	cr_assert_eq(inner->later.runs, 1);
}

Test(call, in_the_service_itself_only_if_it_need_not_wait)
{
	static struct inner inner = { .work = { .fn = call_inside } };
	uint64_t begun = stage_now_ns();

	cr_assert_eq(dmcore_service_post(stage.core, &inner.work), 0);
	while (!atomic_load(&inner.done)) {
		cr_assert_lt(stage_now_ns() - begun, (uint64_t)STAGE_PATIENCE_NS);
		stage_sleep_ns(100000);
	}
	expect_no_wait_inside(&inner);
}

Test(call_manual, in_the_service_itself_only_if_it_need_not_wait)
{
	static struct inner inner = { .work = { .fn = call_inside } };

	cr_assert_eq(dmcore_service_post(stage.core, &inner.work), 0);
	cr_assert_eq(dmcore_service_poll(stage.core, 1, 1, -1), 1);
	expect_no_wait_inside(&inner);
}

Test(call, that_is_immediate_is_as_any_other_elsewhere)
{
	struct later later = { .call = { .fn = return_at_once, .immediate = true } };

	cr_assert_eq(dmcore_service_call(stage.core, &later.call), -ENODATA);
	cr_assert_not(pthread_equal(later.runner, pthread_self()));
}

/* In the callback of another queue it may wait, and in a constructor, with the lock held. */
static void call_from_callback(struct dmcore_work *work)
{
	struct inner *inner = dmcore__container_of(work, struct inner, work);

	inner->later.call.fn = return_by_timer;
	inner->results[0] = dmcore_service_call(stage.core, &inner->later.call);
}

static void expect_waits_in_callback(void)
{
	static struct inner inner = { .work = { .fn = call_from_callback } };

	dmcore_queue_post(stage.queue, &inner.work);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(inner.results[0], 7);
}

Test(call, in_the_callback_of_another_queue_waits)
{
	expect_waits_in_callback();
}

Test(call_manual, in_the_callback_of_another_queue_waits)
{
	expect_waits_in_callback();
}

static void expect_works_with_lock(void)
{
	struct later later = { .call = { .fn = return_at_once } };

	cr_assert_not_null(dmcore_service_queue(stage.core));
	dmcore__lock(stage.core);
	later.call.fn = return_by_bio;
	later.bdev = stage_bdev(&stage, "fault:8,id=0", 0);
	prepare_bio(&later, 0);
	cr_assert_eq(dmcore_service_call(stage.core, &later.call), 0);
	dmcore__unlock(stage.core);
}

Test(call, with_control_calls_held_up)
{
	expect_works_with_lock();
}

Test(call_manual, with_control_calls_held_up)
{
	expect_works_with_lock();
}

/* ---- the application's sleep ---- */

static _Atomic unsigned int sleeps;

static int count_sleep(struct dmcore *core, uint64_t until_ns, void *context)
{
	(void)core;
	(void)until_ns;
	(void)context;
	atomic_fetch_add(&sleeps, 1);
	stage_sleep_ns(LATER_NS / 4);
	return -EDEADLK;
}

static void expect_asks_hook(unsigned int flags)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct later later = { .call = { .fn = return_by_timer } };

	stage_close(&stage);
	options.flags = flags;
	options.sleep = count_sleep;
	stage_open(&stage, &options, NULL);
	its_core = stage.core;
	cr_assert_eq(dmcore_service_call(stage.core, &later.call), 7,
		     "it can't be given up, whatever the hook says");
	cr_assert_gt(atomic_load(&sleeps), 0);
}

Test(call, sleeps_by_the_hook_of_the_application)
{
	expect_asks_hook(0);
}

Test(call_manual, sleeps_by_the_hook_of_the_application)
{
	expect_asks_hook(DMCORE_SERVICE_MANUAL);
}

/* In a simulated world time passes in the wait. */
Test(call_simulated, waits_in_the_time_of_the_world)
{
	struct later later = { .call = { .fn = return_by_timer } };
	struct simworld world;
	uint64_t begun_ns;

	simworld_open(&world, 1);
	its_core = world.core;
	begun_ns = dmcore_clock_ns(world.core);
	cr_assert_eq(dmcore_service_call(world.core, &later.call), 7);
	cr_assert_eq(dmcore_clock_ns(world.core), begun_ns + LATER_NS);
	world.options.read_ns = LATER_NS;
	simworld_add_disk(&world, 64);
	later.bdev = world.bdevs[0];
	prepare_bio(&later, 3);
	cr_assert_eq(dmcore_service_call(world.core, &later.call), 0);
	cr_assert_eq(world.num_stuck, 0);
	simworld_close(&world);
}

/* ---- the core goes ---- */

static int result = 1;

static int last_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

static void last_dtr(struct dmcore_target *target)
{
	struct later later = { .call = { .fn = return_at_once } };

	result = dmcore_service_call(dmcore_target_core(target), &later.call);
	cr_assert_eq(later.runs, 1);
}

static enum dmcore_map_result last_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static const struct dmcore_target_type last_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "last",
	.version = { 1, 0, 0 },
	.ctr = last_ctr,
	.dtr = last_dtr,
	.map = last_map,
};

/* Whether there was a service before, or not. */
static void destroy_with_call(unsigned int flags, bool begun)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct later later = { .call = { .fn = return_at_once } };
	struct dmcore *core;
	struct dmcore_device *device;
	struct dmcore_table *table;

	options.flags = flags;
	cr_assert_eq(dmcore_create(&options, &core), 0);
	cr_assert_eq(dmcore_target_register(core, &last_type), 0);
	cr_assert_eq(dmcore_table_parse(core, "0 8 last", 0, &table), 0);
	cr_assert_eq(dmcore_device_create(core, "d", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	if (begun)
		cr_assert_eq(dmcore_service_call(core, &later.call), -ENODATA);
	result = 1;
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(result, -ENODATA);
}

Test(call, works_while_the_core_is_destroyed)
{
	destroy_with_call(0, true);
	destroy_with_call(0, false);
}

Test(call_manual, works_while_the_core_is_destroyed)
{
	destroy_with_call(DMCORE_SERVICE_MANUAL, true);
	destroy_with_call(DMCORE_SERVICE_MANUAL, false);
}
