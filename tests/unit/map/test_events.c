/* SPDX-License-Identifier: MIT */
/* Events of devices: counted, waited for, watched by descriptors and on queues (map/event.c). */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <dmcore/event.h>

#include "map/map.h"
#include "support/actor.h"

#define NUM_THREADS 4
#define NUM_EACH 500

static struct stage stage;
static struct dmcore_device *device;

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	device = actor_mapped(&stage, "m", "0 64 actor 1");
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(events, .init = set_up, .fini = tear_down);
TestSuite(watch, .init = set_up, .fini = tear_down);

static void raise_event(void)
{
	dmcore_target_event(actors[1].target);
}

/* ---- the counter ---- */

Test(events, begin_at_zero_and_are_counted)
{
	cr_assert_eq(dmcore_device_event_nr(device), 0);
	raise_event();
	raise_event();
	cr_assert_eq(dmcore_device_event_nr(device), 2);
	cr_assert_eq(actor_info(device).event_nr, 2);
}

/* So it is in the kernel: neither raises one. */
Test(events, are_not_raised_by_suspend_resume_and_reload)
{
	actor_suspend(device, 0);
	actor_resume(device);
	actor_reload(device, "0 64 actor 1");
	cr_assert_eq(dmcore_device_event_nr(device), 0);
	raise_event();
	actor_reload(device, "0 32 actor 1");
	cr_assert_eq(dmcore_device_event_nr(device), 1, "the number is the device's");
}

/* So it is in the kernel, if there is a live table: who shows names has to look again. */
Test(events, are_raised_by_a_new_name_or_uuid)
{
	struct dmcore_device *empty = actor_device(&stage, "empty");

	cr_assert_eq(dmcore_device_rename(device, "n"), 0);
	cr_assert_eq(dmcore_device_event_nr(device), 1);
	cr_assert_eq(dmcore_device_rename(device, "n"), -EBUSY);
	cr_assert_eq(dmcore_device_event_nr(device), 1);
	cr_assert_eq(dmcore_device_set_uuid(device, "u"), 0);
	cr_assert_eq(dmcore_device_event_nr(device), 2);
	cr_assert_eq(dmcore_device_rename(empty, "none"), 0);
	cr_assert_eq(dmcore_device_event_nr(empty), 0);
}

Test(events, of_a_table_that_is_not_loaded_are_nobodys)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(stage.core, "0 8 actor 2", 0, &table), 0);
	dmcore_target_event(actors[2].target);
	cr_assert_eq(dmcore_device_event_nr(device), 0);
	dmcore_table_destroy(table);
}

static void *raise_many(void *context)
{
	(void)context;
	for (unsigned int i = 0; i < NUM_EACH; i++)
		raise_event();
	return NULL;
}

static void raise_from_many_threads(void)
{
	pthread_t threads[NUM_THREADS];

	for (unsigned int i = 0; i < NUM_THREADS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, raise_many, NULL), 0);
	for (unsigned int i = 0; i < NUM_THREADS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
}

/* Assertion 32. */
Test(events, of_many_threads_are_all_counted)
{
	raise_from_many_threads();
	cr_assert_eq(dmcore_device_event_nr(device), NUM_THREADS * NUM_EACH);
}

/* ---- waiting ---- */

Test(events, wait_without_time_just_looks)
{
	uint32_t nr = 0;

	cr_assert_eq(dmcore_device_wait(device, &nr, 0), -ETIMEDOUT);
	cr_assert_eq(nr, 0);
	cr_assert_eq(dmcore_device_wait(device, &nr, 1000000), -ETIMEDOUT);
	raise_event();
	cr_assert_eq(dmcore_device_wait(device, &nr, 0), 0);
	cr_assert_eq(nr, 1);
	cr_assert_eq(dmcore_device_wait(device, &nr, 0), -ETIMEDOUT);
	cr_assert_eq(nr, 1);
}

/* Assertion 32: any other number is told at once, whether above or below. */
Test(events, wait_for_one_that_has_passed_returns_at_once)
{
	uint32_t nr = 0;

	raise_event();
	raise_event();
	raise_event();
	cr_assert_eq(dmcore_device_wait(device, &nr, -1), 0);
	cr_assert_eq(nr, 3);
	nr = 7;
	cr_assert_eq(dmcore_device_wait(device, &nr, -1), 0);
	cr_assert_eq(nr, 3);
}

Test(events, wait_refuses_what_is_missing)
{
	uint32_t nr = 0;

	cr_assert_eq(dmcore_device_wait(NULL, &nr, 0), -EINVAL);
	cr_assert_eq(dmcore_device_wait(device, NULL, 0), -EINVAL);
}

struct waiter {
	_Atomic unsigned int begun;
	_Atomic unsigned int ended;
	uint32_t nr;
	int ret;
};

static struct waiter waiters[2];

static void *wait_for_ever(void *context)
{
	struct waiter *waiter = context;

	waiter->begun = 1;
	waiter->ret = dmcore_device_wait(device, &waiter->nr, -1);
	waiter->ended = 1;
	return NULL;
}

static void start_waiters(pthread_t *threads)
{
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_ever, &waiters[i]), 0);
		actor_await(&waiters[i].begun, 1);
	}
}

Test(events, wake_all_who_wait)
{
	pthread_t threads[2];

	start_waiters(threads);
	stage_sleep_ns(2000000);
	cr_assert_eq(waiters[0].ended + waiters[1].ended, 0);
	raise_event();
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(waiters[i].ret, 0);
		cr_assert_eq(waiters[i].nr, 1);
	}
}

Test(events, of_another_device_wake_nobody)
{
	struct dmcore_device *other = actor_mapped(&stage, "other", "0 8 actor 2");
	uint32_t nr = 0;

	dmcore_target_event(actors[2].target);
	cr_assert_eq(dmcore_device_wait(device, &nr, 1000000), -ETIMEDOUT);
	cr_assert_eq(dmcore_device_wait(other, &nr, 0), 0);
}

static unsigned int num_inside(void)
{
	struct dmcore__map *map = stage.core->map;
	unsigned int count;

	pthread_mutex_lock(&map->events_lock);
	count = device->num_event_waiters;
	pthread_mutex_unlock(&map->events_lock);
	return count;
}

/* In the kernel the removal is an event, and the wait succeeds: see D-030. */
Test(events, removal_wakes_who_waits)
{
	uint64_t begun_ns = stage_now_ns();
	pthread_t threads[2];

	start_waiters(threads);
	while (num_inside() < 2)
		cr_assert_lt(stage_now_ns() - begun_ns, (uint64_t)STAGE_PATIENCE_NS);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(waiters[i].ret, -ENODEV);
	}
}

/* ---- watches ---- */

static unsigned int calls;

static void count_call(struct dmcore_watch *watch, void *context)
{
	(void)watch;
	cr_assert_eq(context, &calls);
	calls++;
}

static struct dmcore_watch *make_watch(uint32_t nr, bool on_queue)
{
	struct dmcore_watch *watch;

	cr_assert_eq(dmcore_watch_create(device, nr, on_queue ? stage.queue : NULL,
					 on_queue ? count_call : NULL, &calls, &watch), 0, "%s",
		     dmcore_error_message());
	return watch;
}

static bool is_readable(struct dmcore_watch *watch)
{
	struct pollfd entry = { .fd = dmcore_watch_fd(watch), .events = POLLIN };

	return poll(&entry, 1, 0) == 1 && entry.revents & POLLIN;
}

Test(watch, descriptor_is_readable_from_an_event_until_it_is_taken)
{
	struct dmcore_watch *watch = make_watch(0, false);
	uint32_t nr = 99;

	cr_assert_not(is_readable(watch));
	raise_event();
	raise_event();
	cr_assert(is_readable(watch));
	cr_assert(is_readable(watch));
	cr_assert_eq(dmcore_watch_event_nr(watch, &nr), 0);
	cr_assert_eq(nr, 2);
	cr_assert_not(is_readable(watch));
	cr_assert_eq(dmcore_watch_event_nr(watch, &nr), 0);
	cr_assert_eq(nr, 2);
	raise_event();
	cr_assert(is_readable(watch));
	dmcore_watch_destroy(watch);
}

Test(watch, event_that_has_passed_is_told_at_once)
{
	struct dmcore_watch *on_fd;
	struct dmcore_watch *on_queue;
	struct dmcore_watch *informed;

	raise_event();
	on_fd = make_watch(0, false);
	on_queue = make_watch(0, true);
	informed = make_watch(1, true);
	cr_assert(is_readable(on_fd));
	cr_assert_not(is_readable(informed));
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
	dmcore_watch_destroy(informed);
	dmcore_watch_destroy(on_queue);
	dmcore_watch_destroy(on_fd);
}

/* Events that nobody takes for long: it stays readable, and the function is still called. */
Test(watch, full_counter_loses_no_event)
{
	struct dmcore_watch *watch = make_watch(0, true);
	uint64_t most = UINT64_MAX - 1;
	uint32_t nr;

	cr_assert_eq(write(dmcore_watch_fd(watch), &most, sizeof(most)), (ssize_t)sizeof(most));
	raise_event();
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
	cr_assert(is_readable(watch));
	cr_assert_eq(dmcore_watch_event_nr(watch, &nr), 0);
	cr_assert_eq(nr, 1);
	cr_assert_not(is_readable(watch));
	dmcore_watch_destroy(watch);
}

Test(watch, function_runs_inside_poll_once_for_several_events)
{
	struct dmcore_watch *watch = make_watch(0, true);

	raise_event();
	raise_event();
	cr_assert_eq(calls, 0);
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
	raise_event();
	stage_settle(&stage);
	cr_assert_eq(calls, 2);
	dmcore_watch_destroy(watch);
}

Test(watch, several_are_all_told)
{
	struct dmcore_watch *watches[5];

	for (unsigned int i = 0; i < 5; i++)
		watches[i] = make_watch(0, i % 2);
	dmcore_watch_destroy(watches[3]);
	raise_event();
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
	cr_assert(is_readable(watches[0]) && is_readable(watches[2]) && is_readable(watches[4]));
	for (unsigned int i = 0; i < 5; i++) {
		if (i != 3)
			dmcore_watch_destroy(watches[i]);
	}
}

static void destroy_itself(struct dmcore_watch *watch, void *context)
{
	unsigned int *count = context;

	++*count;
	dmcore_watch_destroy(watch);
}

Test(watch, may_be_destroyed_in_its_function)
{
	struct dmcore_watch *watch;

	cr_assert_eq(dmcore_watch_create(device, 0, stage.queue, destroy_itself, &calls, &watch),
		     0);
	raise_event();
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
	raise_event();
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
}

static void destroy_and_raise(struct dmcore_watch *watch, void *context)
{
	/* Its work is at the queue again when it is destroyed. */
	raise_event();
	destroy_itself(watch, context);
}

Test(watch, may_be_destroyed_in_its_function_with_the_next_call_under_way)
{
	struct dmcore_watch *watch;

	cr_assert_eq(dmcore_watch_create(device, 0, stage.queue, destroy_and_raise, &calls,
					 &watch), 0);
	raise_event();
	stage_settle(&stage);
	cr_assert_eq(calls, 1);
}

Test(watch, function_doesnt_run_once_it_is_destroyed)
{
	struct dmcore_watch *watch = make_watch(0, true);

	raise_event();
	dmcore_watch_destroy(watch);
	stage_settle(&stage);
	cr_assert_eq(calls, 0);
}

/* A watch is destroyed before its queue, which has nothing to run by then. */
Test(watch, destroyed_with_a_call_under_way_its_queue_may_go)
{
	struct dmcore_queue *queue;
	struct dmcore_watch *watch;

	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &queue), 0);
	cr_assert_eq(dmcore_watch_create(device, 0, queue, count_call, &calls, &watch), 0);
	raise_event();
	dmcore_watch_destroy(watch);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	cr_assert_eq(calls, 0);
}

Test(watch, outlives_its_device)
{
	struct dmcore_watch *on_fd = make_watch(0, false);
	struct dmcore_watch *on_queue = make_watch(0, true);
	uint32_t nr = 0;

	raise_event();
	stage_settle(&stage);
	cr_assert_eq(dmcore_watch_event_nr(on_fd, &nr), 0);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert(is_readable(on_fd));
	stage_settle(&stage);
	cr_assert_eq(calls, 2);
	nr = 0;
	cr_assert_eq(dmcore_watch_event_nr(on_fd, &nr), -ENODEV);
	cr_assert_eq(nr, 1);
	cr_assert_eq(dmcore_watch_event_nr(on_queue, &nr), -ENODEV);
	dmcore_watch_destroy(on_queue);
	dmcore_watch_destroy(on_fd);
}

Test(watch, keeps_the_core)
{
	struct dmcore_device *passing;
	struct dmcore_watch *watch;
	struct dmcore *core;

	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_device_create_concise(core, "a,,,rw,0 8 zero", 0, &passing), 0);
	cr_assert_eq(dmcore_watch_create(passing, 0, NULL, NULL, NULL, &watch), 0);
	cr_assert_eq(dmcore_destroy(core), -EBUSY);
	cr_assert_neq(dmcore_error_message()[0], '\0');
	cr_assert_eq(dmcore_device_find(core, "a"), passing);
	dmcore_watch_destroy(watch);
	cr_assert_eq(dmcore_destroy(core), 0);
}

Test(watch, of_nothing_and_with_half_a_callback_is_refused)
{
	struct dmcore_watch *watch = (void *)&calls;
	struct dmcore *core;
	struct dmcore_queue *queue;
	uint32_t nr;

	cr_assert_eq(dmcore_watch_create(NULL, 0, NULL, NULL, NULL, &watch), -EINVAL);
	cr_assert_null(watch);
	cr_assert_eq(dmcore_watch_create(device, 0, stage.queue, NULL, NULL, &watch), -EINVAL);
	cr_assert_eq(dmcore_watch_create(device, 0, NULL, count_call, NULL, &watch), -EINVAL);
	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_queue_create(core, NULL, &queue), 0);
	cr_assert_eq(dmcore_watch_create(device, 0, queue, count_call, NULL, &watch), -EINVAL);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(dmcore_watch_event_nr(NULL, &nr), -EINVAL);
	dmcore_watch_destroy(NULL);
}

/* The last number that is told is the last there is, however the calls fall. */
Test(watch, is_told_of_the_last_of_many_events)
{
	struct dmcore_watch *watch = make_watch(0, true);
	uint32_t nr = 0;

	raise_from_many_threads();
	stage_settle(&stage);
	cr_assert_geq(calls, 1);
	cr_assert_eq(dmcore_watch_event_nr(watch, &nr), 0);
	cr_assert_eq(nr, NUM_THREADS * NUM_EACH);
	cr_assert_not(is_readable(watch));
	dmcore_watch_destroy(watch);
}
