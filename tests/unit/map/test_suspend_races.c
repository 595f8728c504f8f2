/* SPDX-License-Identifier: MIT */
/* Suspending and resuming a device while others do the same, or have requests on their way. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

static struct stage stage;
static struct dmcore_device *device;
static unsigned char sector[DMCORE_SECTOR_BYTES];

static void load(const char *text)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(stage.core, text, 0, &table);

	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
}

static struct dmcore_bdev *map(const char *text)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", text);

	device = dmcore_device_find(stage.core, "m");
	return bdev;
}

static void wait_until_changing(void)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	do {
		sched_yield();
		cr_assert_eq(dmcore_device_info(device, &info), 0);
	} while (!info.changing);
}

Test(suspend_races, a_queue_that_was_only_submitted_to_is_polled)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;

	stage_open(&stage, NULL, NULL);
	bdev = map("0 64 striped 2 8 fault:64,id=1 0 fault:64,id=2 0");
	stage_submit(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(tally.ended, 1);
	stage_close(&stage);
}

static void *suspend_main(void *result)
{
	*(int *)result = dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS);
	return NULL;
}

Test(suspend_races, who_waits_for_another_suspend_polls_queues_of_his_own)
{
	static int other = 1;
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;
	struct fault_disk *disk;
	pthread_t thread;

	stage_open(&stage, NULL, NULL);
	disk = stage_disk(&stage, 1, 64, "");
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	bdev = map("0 64 linear fault:64,id=1 0");
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 1, sector, &tally);
	cr_assert_eq(fault_num_held(disk), 1);
	cr_assert_eq(pthread_create(&thread, NULL, suspend_main, &other), 0);
	wait_until_changing();
	/* From now on it ends with the next poll of this thread's queue. */
	fault_release_all(disk);
	cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS / 2), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(other, 0);
	cr_assert_eq(tally.ended, 1);
	stage_close(&stage);
}

/* ---- a manual service ---- */

static struct {
	_Atomic bool begun;
	_Atomic bool over;
	_Atomic unsigned int inside;
} linger;

static void linger_fn(struct dmcore_work *work)
{
	(void)work;
	atomic_fetch_add(&linger.inside, 1);
	atomic_store(&linger.begun, true);
	while (!atomic_load(&linger.over))
		sched_yield();
	atomic_fetch_sub(&linger.inside, 1);
}

Test(suspend_races, a_manual_service_is_polled_by_one_suspend_at_a_time)
{
	static struct dmcore_work work = { .fn = linger_fn };
	static int other = 1;
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_device *mine;
	struct tally tally = { 0 };
	struct dmcore_bdev *bdevs[2];
	struct fault_disk *disk;
	pthread_t thread;

	options.flags = DMCORE_SERVICE_MANUAL;
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 1, 64, "");
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	bdevs[0] = map("0 64 linear fault:64,id=1 0");
	bdevs[1] = stage_map(&stage, "mine", "0 64 linear fault:64,id=1 0");
	mine = dmcore_device_find(stage.core, "mine");
	for (int i = 0; i < 2; i++)
		stage_submit(&stage, bdevs[i], DMCORE_OP_READ, 0, 1, sector, &tally);
	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	cr_assert_eq(pthread_create(&thread, NULL, suspend_main, &other), 0);
	while (!atomic_load(&linger.begun))
		sched_yield();
	/* The second call would take the first one's poll for a callback of its own. */
	for (int i = 0; i < 2; i++)
		cr_assert_eq(dmcore_device_suspend(mine, 0, 0), -ETIMEDOUT, "%s",
			     dmcore_error_message());
	cr_assert_eq(atomic_load(&linger.inside), 1);
	atomic_store(&linger.over, true);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(other, 0);
	stage_close(&stage);
}

/* ---- a target that keeps flushes, and pushes them back ---- */

static struct dmcore_bio *kept;
static bool lets_go_late; /* of flushes: when the suspend has been given up */

static int keeper_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct dmcore_bdev *bdev;
	int ret = dmcore_target_device(target, dmcore_args_next(args), &bdev);

	if (ret)
		return dmcore_args_fail(args, ret, "no device");
	target->private_data = bdev;
	return 0;
}

static enum dmcore_map_result keeper_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	if (bio->op == DMCORE_OP_FLUSH) {
		kept = bio;
		return DMCORE_MAP_SUBMITTED;
	}
	bio->bdev = target->private_data;
	return DMCORE_MAP_REMAPPED;
}

static unsigned int keeper_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static int keeper_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	return fn(target, target->private_data, 0, dmcore_target_len(target), context);
}

static void keeper_presuspend(struct dmcore_target *target)
{
	struct dmcore_bio *bio = kept;

	if (lets_go_late)
		return;
	kept = NULL;
	if (bio)
		dmcore_bio_complete(bio, dmcore_target_noflush(target) ? DMCORE_STATUS_REQUEUE : 0);
}

static void keeper_presuspend_undo(struct dmcore_target *target)
{
	struct dmcore_bio *bio = kept;

	(void)target;
	kept = NULL;
	if (bio)
		dmcore_bio_complete(bio, DMCORE_STATUS_REQUEUE);
}

static const struct dmcore_target_type keeper = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "keeper",
	.version = { 1, 0, 0 },
	.features = DMCORE_TARGET_TYPE_REQUEUES,
	.ctr = keeper_ctr,
	.map = keeper_map,
	.num_bios = keeper_num_bios,
	.iterate_devices = keeper_iterate_devices,
	.presuspend = keeper_presuspend,
	.presuspend_undo = keeper_presuspend_undo,
};

Test(suspend_races, a_write_whose_preflush_is_pushed_back_begins_anew_on_the_next_table)
{
	struct tally tally = { 0 };
	struct fault_disk *old;
	struct fault_disk *new;
	struct dmcore_bdev *bdev;
	struct dmcore_bio *bio;

	stage_open(&stage, NULL, NULL);
	cr_assert_eq(dmcore_target_register(stage.core, &keeper), 0);
	old = stage_disk(&stage, 1, 64, "");
	new = stage_disk(&stage, 2, 128, "");
	bdev = map("0 64 keeper fault:64,id=1");
	bio = stage_bio(&stage, bdev, DMCORE_OP_WRITE, 3, 1, sector, &tally);
	bio->flags = DMCORE_BIO_PREFLUSH;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_not_null(kept);
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, STAGE_PATIENCE_NS / 4),
		     0, "%s", dmcore_error_message());
	load("0 64 linear fault:128,id=2 8");
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, 0);
	cr_assert_eq(fault_num_logged(old), 0);
	cr_assert_eq(fault_num_logged(new), 2);
	cr_assert_eq(fault_logged(new, 0).op, DMCORE_OP_FLUSH);
	cr_assert_eq(fault_logged(new, 1).op, DMCORE_OP_WRITE);
	cr_assert_eq(fault_logged(new, 1).sector, 11);
	stage_close(&stage);
}

Test(suspend_races, a_request_pushed_back_just_as_a_suspend_is_given_up_goes_on)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;

	stage_open(&stage, NULL, NULL);
	cr_assert_eq(dmcore_target_register(stage.core, &keeper), 0);
	stage_disk(&stage, 1, 64, "");
	bdev = map("0 64 keeper fault:64,id=1");
	lets_go_late = true;
	stage_submit(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, 0), -ETIMEDOUT);
	/* The first poll puts it in line, the second sends it. */
	stage_settle(&stage);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	cr_assert_not_null(kept, "the target hasn't got it again");
	lets_go_late = false;
	cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, 0);
	stage_close(&stage);
}

Test(suspend_races, what_was_pushed_back_waits_while_another_device_is_resumed)
{
	struct tally tally = { 0 };
	struct dmcore_device *other;
	struct dmcore_bdev *bdev;
	struct dmcore_bio *bio;

	stage_open(&stage, NULL, NULL);
	cr_assert_eq(dmcore_target_register(stage.core, &keeper), 0);
	stage_disk(&stage, 1, 64, "");
	bdev = map("0 64 keeper fault:64,id=1");
	stage_map(&stage, "other", "0 64 linear fault:64,id=1 0");
	other = dmcore_device_find(stage.core, "other");
	bio = stage_bio(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	bio->flags = DMCORE_BIO_NOWAIT;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(dmcore_device_suspend(other, 0, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(dmcore_device_resume(other), 0);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	/* A fresh one doesn't wait. */
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, DMCORE_BIO_NOWAIT, 0, 0, NULL),
		     -EAGAIN);
	load("0 64 linear fault:64,id=1 0");
	cr_assert_eq(dmcore_device_resume(device), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	stage_close(&stage);
}

/* ---- removal ---- */

static struct {
	_Atomic unsigned int ready; /* rounds whose request waits */
	_Atomic unsigned int ended; /* rounds whose request has ended */
	_Atomic int failed;         /* a status that isn't 0 */
} rounds;

#define ROUNDS 100u

static void *submitter_main(void *unused)
{
	struct dmcore_queue *queue;

	(void)unused;
	actor_require(dmcore_queue_create(stage.core, NULL, &queue) == 0);
	for (unsigned int i = 1; i <= ROUNDS; i++) {
		struct tally tally = { 0 };
		struct dmcore_bio *bio = dmcore_bio_get(queue);

		while (atomic_load(&rounds.ready) != 2 * i - 1)
			sched_yield();
		bio->bdev = dmcore_device_bdev(device);
		bio->op = DMCORE_OP_READ;
		dmcore_bio_set_buffer(bio, sector, sizeof(sector));
		bio->done = tally_done;
		bio->context = &tally;
		actor_require(dmcore_bio_submit(bio) == 0);
		atomic_store(&rounds.ready, 2 * i);
		while (!tally.ended)
			actor_require(dmcore_queue_poll(queue, 1, 1, STAGE_PATIENCE_NS) >= 0);
		if (tally.status)
			atomic_store(&rounds.failed, tally.status);
		atomic_store(&rounds.ended, i);
	}
	actor_require(dmcore_queue_destroy(queue) == 0);
	return NULL;
}

Test(suspend_races, a_device_cant_be_removed_while_a_request_that_waited_goes_on)
{
	pthread_t thread;

	stage_open(&stage, NULL, NULL);
	stage_disk(&stage, 1, 64, "");
	cr_assert_eq(pthread_create(&thread, NULL, submitter_main, NULL), 0);
	for (unsigned int i = 1; i <= ROUNDS; i++) {
		cr_assert_eq(dmcore_device_create(stage.core, "m", NULL, 0, &device), 0);
		load("0 64 linear fault:64,id=1 0");
		cr_assert_eq(dmcore_device_resume(device), 0);
		cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
		atomic_store(&rounds.ready, 2 * i - 1);
		while (atomic_load(&rounds.ready) != 2 * i)
			sched_yield();
		cr_assert_eq(dmcore_device_remove(device), -EBUSY);
		cr_assert_eq(dmcore_device_resume(device), 0);
		while (dmcore_device_remove(device) == -EBUSY)
			sched_yield();
		while (atomic_load(&rounds.ended) != i)
			sched_yield();
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(atomic_load(&rounds.failed), 0);
	stage_close(&stage);
}
