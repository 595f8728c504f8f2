/* SPDX-License-Identifier: MIT */
/*
 * A delay target used by several threads while another one suspends, resumes and replaces it: none
 * of their requests is lost, and no suspension waits for a delay, which here never ends by itself.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"
#include "support/rng.h"

#define DISK "fault:64,id=1"
/* Weeks: what ends was let go. */
#define FOR_EVER "0 64 delay " DISK " 0 4000000000"
#define THREADS 4

static struct stage stage;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;

static void open_device(const char *table)
{
	stage_open(&stage, NULL, NULL);
	bdev = stage_map(&stage, "d", table);
	device = stage.devices[0];
}

static void close_device(void)
{
	stage_close(&stage);
}

TestSuite(delay_threads, .fini = close_device);

/* ---- who submits, and polls ---- */

struct user {
	unsigned int index;
	unsigned int at_once;        /* requests under way */
	_Atomic unsigned int begun;  /* so many are, all of them submitted */
	_Atomic unsigned int ended;
	unsigned int failed;
	pthread_t thread;
	unsigned char data[DMCORE_SECTOR_BYTES];
};

static struct user users[THREADS];
static _Atomic bool over;

static void user_done(struct dmcore_bio *bio)
{
	struct user *user = bio->context;

	atomic_fetch_add(&user->ended, 1);
	if (bio->status)
		user->failed++;
	dmcore_bio_put(bio);
}

static void submit_one(struct user *user, struct dmcore_queue *queue, struct rng *rng)
{
	static const enum dmcore_op ops[] = { DMCORE_OP_READ, DMCORE_OP_WRITE, DMCORE_OP_FLUSH,
					      DMCORE_OP_DISCARD };
	struct dmcore_bio *bio = dmcore_bio_get(queue);

	actor_require(bio);
	bio->bdev = bdev;
	bio->op = (uint8_t)ops[rng_below(rng, 4)];
	if (bio->op <= DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, user->data, DMCORE_SECTOR_BYTES);
	if (bio->op != DMCORE_OP_FLUSH) {
		bio->sector = user->index;
		bio->count = 1;
	}
	bio->done = user_done;
	bio->context = user;
	actor_require(dmcore_bio_submit(bio) == 0);
}

/* Keeps some requests under way until it is over, and then waits for the last. */
static void *user_main(void *context)
{
	struct user *user = context;
	struct dmcore_queue *queue;
	unsigned int submitted = 0;
	struct rng rng;

	rng_start(&rng, user->index + 1);
	actor_require(dmcore_queue_create(stage.core, NULL, &queue) == 0);
	while (!atomic_load(&over) || atomic_load(&user->ended) < submitted) {
		while (!atomic_load(&over) &&
		       submitted - atomic_load(&user->ended) < user->at_once) {
			submit_one(user, queue, &rng);
			atomic_store(&user->begun, ++submitted);
		}
		actor_require(dmcore_queue_poll(queue, 1, 64, 100000000) >= 0);
	}
	actor_require(dmcore_queue_destroy(queue) == 0);
	return NULL;
}

static void start_users(unsigned int at_once)
{
	atomic_store(&over, false);
	for (unsigned int i = 0; i < THREADS; i++) {
		memset(&users[i], 0, sizeof(users[i]));
		users[i].index = i;
		users[i].at_once = at_once;
		cr_assert_eq(pthread_create(&users[i].thread, NULL, user_main, &users[i]), 0);
	}
}

static void await_begun(unsigned int count)
{
	for (unsigned int i = 0; i < THREADS; i++)
		actor_await(&users[i].begun, count);
}

static void join_users(void)
{
	for (unsigned int i = 0; i < THREADS; i++) {
		cr_assert_eq(pthread_join(users[i].thread, NULL), 0);
		cr_assert_eq(users[i].failed, 0, "user %u", i);
		cr_assert_eq(users[i].ended, users[i].begun, "user %u", i);
	}
}

static unsigned int num_held(void)
{
	char text[128];
	unsigned int sum = 0;

	cr_assert_geq(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)), 0);
	for (char *at = text + strlen("0 64 delay "); *at; at++) {
		unsigned int number = 0;

		for (; *at >= '0' && *at <= '9'; at++)
			number = number * 10 + (unsigned int)(*at - '0');
		sum += number;
		if (*at == '\n' || !*at)
			break;
	}
	return sum;
}

static void await_held(unsigned int count)
{
	uint64_t begun_ns = stage_now_ns();

	while (num_held() != count) {
		cr_assert_lt(stage_now_ns() - begun_ns, (uint64_t)STAGE_PATIENCE_NS);
		sched_yield();
	}
}

/* Lets the last of them go: what came behind a resume is held again. */
static void finish(void)
{
	struct dmcore_table *table;

	atomic_store(&over, true);
	cr_assert_eq(dmcore_table_parse(stage.core, "0 64 linear " DISK " 0", 0, &table), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
	join_users();
}

/* ---- tests ---- */

Test(delay_threads, suspend_lets_each_queue_go)
{
	open_device(FOR_EVER);
	start_users(8);
	await_held(THREADS * 8);
	cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(num_held(), 0);
	await_begun(9);
	cr_assert_eq(dmcore_device_resume(device), 0);
	finish();
}

Test(delay_threads, nothing_is_lost_in_many_suspensions)
{
	open_device(FOR_EVER);
	start_users(4);
	for (unsigned int round = 0; round < 60; round++) {
		unsigned int flags = round % 2 ? DMCORE_SUSPEND_NOFLUSH : 0;

		await_held(THREADS * 4);
		await_begun(4 * (round + 1));
		cr_assert_eq(dmcore_device_suspend(device, flags, STAGE_PATIENCE_NS), 0, "%s",
			     dmcore_error_message());
		cr_assert_eq(num_held(), 0, "round %u", round);
		cr_assert_eq(dmcore_device_resume(device), 0);
	}
	finish();
}

Test(delay_threads, tables_are_replaced_under_what_they_hold)
{
	open_device(FOR_EVER);
	start_users(4);
	for (unsigned int round = 0; round < 40; round++) {
		struct dmcore_table *table;

		/* Sometimes while they come, sometimes when all are held. */
		if (round % 2)
			await_held(THREADS * 4);
		cr_assert_eq(dmcore_table_parse(stage.core, FOR_EVER, 0, &table), 0);
		cr_assert_eq(dmcore_device_load(device, table), 0);
		cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
	}
	finish();
}

/* Delays that end while the device is being suspended: both sides let go at once. */
Test(delay_threads, delays_end_while_they_are_stopped)
{
	open_device("0 64 delay " DISK " 0 1");
	start_users(3);
	for (unsigned int round = 0; round < 150; round++) {
		cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), 0, "%s",
			     dmcore_error_message());
		cr_assert_eq(num_held(), 0, "round %u", round);
		cr_assert_eq(dmcore_device_resume(device), 0);
		for (unsigned int i = 0; i < round % 7; i++)
			sched_yield();
	}
	finish();
}

/* Some of these suspensions are given up; nothing hangs or is lost. */
Test(delay_threads, suspensions_are_given_up_and_tried_again)
{
	unsigned int done = 0;

	open_device("0 64 delay " DISK " 0 1");
	start_users(3);
	for (unsigned int round = 0; round < 200; round++) {
		int ret = dmcore_device_suspend(device, 0, round % 4 * INT64_C(300000));

		cr_assert(ret == 0 || ret == -ETIMEDOUT, "%d", ret);
		done += ret == 0;
		cr_assert_eq(dmcore_device_resume(device), 0);
		sched_yield();
	}
	cr_log_info("%u of 200 were not given up", done);
	finish();
}

/* Queues come and go, each with requests that are let go by a suspension or by time. */
static void *visitor_main(void *context)
{
	struct user *user = context;
	struct rng rng;

	rng_start(&rng, user->index + 100);
	while (!atomic_load(&over)) {
		struct dmcore_queue *queue;

		actor_require(dmcore_queue_create(stage.core, NULL, &queue) == 0);
		for (unsigned int i = 0; i < 3; i++) {
			submit_one(user, queue, &rng);
			atomic_fetch_add(&user->begun, 1);
		}
		while (atomic_load(&user->ended) < atomic_load(&user->begun))
			actor_require(dmcore_queue_poll(queue, 1, 64, 100000000) >= 0);
		actor_require(dmcore_queue_destroy(queue) == 0);
	}
	return NULL;
}

Test(delay_threads, queues_come_and_go_meanwhile)
{
	open_device("0 64 delay " DISK " 0 1");
	atomic_store(&over, false);
	for (unsigned int i = 0; i < THREADS; i++) {
		memset(&users[i], 0, sizeof(users[i]));
		users[i].index = i;
		cr_assert_eq(pthread_create(&users[i].thread, NULL, visitor_main, &users[i]), 0);
	}
	for (unsigned int round = 0; round < 100; round++) {
		cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), 0, "%s",
			     dmcore_error_message());
		cr_assert_eq(num_held(), 0, "round %u", round);
		cr_assert_eq(dmcore_device_resume(device), 0);
		sched_yield();
	}
	atomic_store(&over, true);
	join_users();
}
