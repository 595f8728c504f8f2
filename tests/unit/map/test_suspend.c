/* SPDX-License-Identifier: MIT */
/* What becomes of requests to a suspended device: who waits, who doesn't, and where they go. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

#define SECTORS 64
#define NUM_WRITES 20
#define NUM_THREADS 4
#define NUM_EACH 50

static struct stage stage;
static struct fault_disk *disks[2];
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

static const char on_0[] = "0 64 linear fault:64,id=0 0";
static const char on_1[] = "0 64 linear fault:64,id=1 0";

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	disks[0] = stage_disk(&stage, 0, SECTORS, "");
	disks[1] = stage_disk(&stage, 1, SECTORS, "");
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(suspended, .init = set_up, .fini = tear_down);

static struct dmcore_bdev *bdev_of(struct dmcore_device *device)
{
	return dmcore_device_bdev(device);
}

static void submit_flagged(struct dmcore_device *device, enum dmcore_op op, unsigned int flags,
			   uint64_t sector, uint64_t count, struct tally *tally)
{
	void *memory = op <= DMCORE_OP_WRITE ? buffer + sector * DMCORE_SECTOR_BYTES : NULL;
	struct dmcore_bio *bio =
		stage_bio(&stage, bdev_of(device), op, sector, count, memory, tally);

	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

/* ---- who waits ---- */

Test(suspended, requests_wait_and_reach_nothing)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_READ, 0, 0, 8, &tally);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 8, 8, &tally);
	submit_flagged(device, DMCORE_OP_FLUSH, 0, 0, 0, &tally);
	submit_flagged(device, DMCORE_OP_DISCARD, 0, 16, 8, &tally);
	submit_flagged(device, DMCORE_OP_WRITE_ZEROES, 0, 24, 8, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(fault_num_logged(disks[0]), 0);
	cr_assert_eq(actor_info(device).num_deferred, 5);
	cr_assert_eq(actor_info(device).num_inflight, 0);
	actor_resume(device);
	stage_wait(&stage, &tally, 5);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_num_logged(disks[0]), 5);
	cr_assert_eq(actor_info(device).num_deferred, 0);
}

/* Assertion 26: nowait and read-ahead don't wait. */
Test(suspended, nowait_and_read_ahead_fail_at_once)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);

	actor_suspend(device, 0);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_READ, DMCORE_BIO_NOWAIT, 0, 8,
			       buffer), -EAGAIN);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_WRITE, DMCORE_BIO_NOWAIT, 0, 8,
			       buffer), -EAGAIN);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_FLUSH, DMCORE_BIO_NOWAIT, 0, 0,
			       NULL), -EAGAIN);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_READ, DMCORE_BIO_RAHEAD, 0, 8,
			       buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_READ,
			       DMCORE_BIO_NOWAIT | DMCORE_BIO_RAHEAD, 0, 8, buffer), -EAGAIN);
	cr_assert_eq(actor_info(device).num_deferred, 0);
	actor_resume(device);
	cr_assert_eq(fault_num_logged(disks[0]), 0);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_READ, DMCORE_BIO_RAHEAD, 0, 8,
			       buffer), 0);
}

/* Without a live table there is nothing to wait for, suspended or not. */
Test(suspended, device_without_a_table_fails_requests)
{
	struct dmcore_device *device = actor_device(&stage, "m");

	actor_suspend(device, 0);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_READ, 0, 0, 8, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_FLUSH, 0, 0, 0, NULL), -EIO);
	actor_load(device, on_0);
	cr_assert_eq(stage_run(&stage, bdev_of(device), DMCORE_OP_READ, 0, 0, 8, buffer), -EIO);
}

/* ---- where they go ---- */

static void submit_writes(struct dmcore_device *device, struct tally *tally)
{
	for (unsigned int i = 0; i < NUM_WRITES; i++)
		submit_flagged(device, DMCORE_OP_WRITE, 0, (i * 7) % SECTORS, 1, tally);
}

static void expect_in_order(struct fault_disk *disk)
{
	cr_assert_eq(fault_num_logged(disk), NUM_WRITES);
	for (unsigned int i = 0; i < NUM_WRITES; i++)
		cr_assert_eq(fault_logged(disk, i).sector, (i * 7) % SECTORS, "request %u", i);
}

Test(suspended, requests_are_replayed_in_order_by_the_old_table)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_writes(device, &tally);
	actor_resume(device);
	stage_wait(&stage, &tally, NUM_WRITES);
	cr_assert_eq(tally.failed, 0);
	expect_in_order(disks[0]);
}

/* Assertion 26: replayed in order by the new table. */
Test(suspended, requests_are_replayed_in_order_by_the_new_table)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	pattern_fill(buffer, 0, SECTORS, 1);
	actor_suspend(device, 0);
	submit_writes(device, &tally);
	actor_reload(device, on_1);
	stage_wait(&stage, &tally, NUM_WRITES);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_num_logged(disks[0]), 0);
	expect_in_order(disks[1]);
	cr_assert_eq(pattern_differs(fault_data(disks[1]), 0, 1, 1), -1);
}

Test(suspended, later_requests_do_not_pass_deferred_ones)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 1, 1, &tally);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 2, 1, &tally);
	actor_resume(device);
	stage_settle(&stage);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 3, 1, &tally);
	stage_wait(&stage, &tally, 3);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(fault_logged(disks[0], i).sector, i + 1);
}

Test(suspended, suspended_again_before_the_replay_they_wait_on)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_writes(device, &tally);
	/* Nothing is polled between these two but by the second. */
	actor_resume(device);
	actor_suspend(device, 0);
	stage_settle(&stage);
	cr_assert_eq(tally.ended + actor_info(device).num_deferred, NUM_WRITES);
	actor_resume(device);
	stage_wait(&stage, &tally, NUM_WRITES);
	cr_assert_eq(tally.failed, 0);
	expect_in_order(disks[0]);
}

Test(suspended, request_beyond_the_new_end_fails_when_it_is_replayed)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 32, 8, &tally);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 0, 8, &tally);
	actor_reload(device, "0 32 linear fault:64,id=1 0");
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 1);
	cr_assert_eq(tally.status, -EIO);
	cr_assert_eq(fault_num_logged(disks[1]), 1);
}

Test(suspended, preflush_and_fua_survive)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 8, 8, &tally);
	submit_flagged(device, DMCORE_OP_WRITE, DMCORE_BIO_FUA, 16, 8, &tally);
	actor_reload(device, on_1);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_count(disks[0], 0), 0);
	cr_assert_eq(fault_count(disks[1], FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(disks[1], FAULT_WRITE), 2);
	for (unsigned int i = 0; i < 3; i++) {
		struct fault_entry entry = fault_logged(disks[1], i);

		if (entry.op == DMCORE_OP_WRITE)
			cr_assert(entry.flags & DMCORE_BIO_FUA);
		if (entry.op == DMCORE_OP_FLUSH)
			cr_assert_lt(i, 2, "before the data of its write");
	}
}

Test(suspended, requests_across_targets_are_split_by_the_new_table)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct tally tally = { 0 };

	pattern_fill(buffer, 0, SECTORS, 3);
	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 0, SECTORS, &tally);
	submit_flagged(device, DMCORE_OP_FLUSH, 0, 0, 0, &tally);
	actor_reload(device, "0 32 linear fault:64,id=1 32\n32 32 linear fault:64,id=0 0");
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(pattern_differs(fault_data(disks[1]) + 32 * DMCORE_SECTOR_BYTES, 0, 32, 3),
		     -1);
	cr_assert_eq(pattern_differs(fault_data(disks[0]), 32, 32, 3), -1);
	cr_assert_eq(fault_count(disks[0], FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(disks[1], FAULT_FLUSH), 1);
}

Test(suspended, discards_across_targets_are_deferred_and_replayed)
{
	struct dmcore_device *device = actor_mapped(
		&stage, "m", "0 32 linear fault:64,id=0 0\n32 32 linear fault:64,id=1 0");
	struct tally tally = { 0 };

	memset(fault_data(disks[0]), 0xff, 64 * DMCORE_SECTOR_BYTES);
	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_DISCARD, 0, 16, 32, &tally);
	submit_flagged(device, DMCORE_OP_WRITE_ZEROES, 0, 0, 64, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	actor_resume(device);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_count(disks[0], FAULT_DISCARD), 1);
	cr_assert_eq(fault_count(disks[1], FAULT_DISCARD), 1);
	cr_assert_eq(fault_data(disks[0])[0], 0);
}

/* ---- stacks ---- */

Test(suspended, request_from_above_waits_inside_the_upper_device)
{
	struct dmcore_device *lower = actor_mapped(&stage, "lower", on_0);
	struct dmcore_device *upper =
		actor_mapped(&stage, "upper", "0 64 linear /dev/mapper/lower 0");
	struct tally tally = { 0 };

	actor_suspend(lower, 0);
	submit_flagged(upper, DMCORE_OP_WRITE, 0, 0, 8, &tally);
	stage_settle(&stage);
	cr_assert_eq(actor_info(lower).num_deferred, 1);
	cr_assert_eq(actor_info(upper).num_deferred, 0);
	cr_assert_eq(actor_info(upper).num_inflight, 1);
	/* So the upper one can't be suspended before the lower one runs. */
	cr_assert_eq(dmcore_device_suspend(upper, 0, 1000000), -ETIMEDOUT);
	cr_assert_not(actor_info(upper).suspended);
	actor_reload(lower, on_1);
	actor_suspend(upper, 0);
	cr_assert_eq(actor_info(upper).num_inflight, 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_count(disks[1], FAULT_WRITE), 1);
	actor_resume(upper);
}

Test(suspended, pieces_of_an_upper_device_wait_for_the_lower_one)
{
	struct dmcore_device *lower = actor_mapped(&stage, "lower", on_0);
	struct dmcore_device *upper = actor_mapped(
		&stage, "upper",
		"0 32 linear /dev/mapper/lower 32\n32 32 linear fault:64,id=1 0");
	struct tally tally = { 0 };

	pattern_fill(buffer, 0, SECTORS, 4);
	actor_suspend(lower, 0);
	submit_flagged(upper, DMCORE_OP_WRITE, 0, 0, SECTORS, &tally);
	submit_flagged(upper, DMCORE_OP_FLUSH, 0, 0, 0, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(fault_count(disks[0], 0), 0);
	actor_resume(lower);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(pattern_differs(fault_data(disks[0]) + 32 * DMCORE_SECTOR_BYTES, 0, 32, 4),
		     -1);
	cr_assert_eq(pattern_differs(fault_data(disks[1]), 32, 32, 4), -1);
	cr_assert_eq(fault_count(disks[0], FAULT_FLUSH), 1);
}

Test(suspended, one_device_does_not_hold_up_another)
{
	struct dmcore_device *one = actor_mapped(&stage, "one", on_0);
	struct dmcore_device *other = actor_mapped(&stage, "other", on_1);
	struct tally tally = { 0 };

	actor_suspend(one, 0);
	submit_flagged(one, DMCORE_OP_WRITE, 0, 0, 8, &tally);
	cr_assert_eq(stage_run(&stage, bdev_of(other), DMCORE_OP_WRITE, 0, 0, 8, buffer), 0);
	actor_suspend(other, 0);
	actor_resume(other);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(actor_info(one).num_deferred, 1);
	cr_assert_eq(actor_info(other).num_deferred, 0);
	actor_resume(one);
	stage_wait(&stage, &tally, 1);
}

/* ---- other threads ---- */

struct reader {
	struct dmcore_bdev *bdev;
	unsigned char bytes[4096];
	int64_t ret;
};

static void *read_plainly(void *context)
{
	struct reader *reader = context;

	reader->ret = dmcore_pread(reader->bdev, reader->bytes, sizeof(reader->bytes), 0);
	return NULL;
}

Test(suspended, plain_read_waits_for_the_resume)
{
	static struct reader reader;
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	pthread_t thread;

	pattern_fill(fault_data(disks[1]), 0, SECTORS, 5);
	actor_suspend(device, 0);
	reader.bdev = bdev_of(device);
	cr_assert_eq(pthread_create(&thread, NULL, read_plainly, &reader), 0);
	actor_await_deferred(device, 1);
	actor_reload(device, on_1);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_geq(reader.ret, 0, "%lld", (long long)reader.ret);
	cr_assert_eq(pattern_differs(reader.bytes, 0, 8, 5), -1);
}

struct writer {
	struct dmcore_device *device;
	unsigned int nr;
	_Atomic unsigned int submitted;
	struct tally tally;
	unsigned char bytes[DMCORE_SECTOR_BYTES];
};

static struct writer writers[NUM_THREADS];

static void *write_on_own_queue(void *context)
{
	struct writer *writer = context;
	struct dmcore_queue *queue;

	actor_require(dmcore_queue_create(stage.core, NULL, &queue) == 0);
	for (unsigned int i = 0; i < NUM_EACH; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(queue);

		bio->bdev = dmcore_device_bdev(writer->device);
		bio->op = DMCORE_OP_WRITE;
		bio->sector = writer->nr * NUM_EACH + i;
		dmcore_bio_set_buffer(bio, writer->bytes, sizeof(writer->bytes));
		bio->done = tally_done;
		bio->context = &writer->tally;
		actor_require(dmcore_bio_submit(bio) == 0);
	}
	writer->submitted = 1;
	while (writer->tally.ended < NUM_EACH)
		actor_require(dmcore_queue_poll(queue, 1, UINT32_MAX, STAGE_PATIENCE_NS) >= 0);
	actor_require(dmcore_queue_destroy(queue) == 0);
	return NULL;
}

/* Across queues no order is promised: see D-027. */
Test(suspended, each_queues_requests_are_replayed_in_their_order)
{
	struct fault_disk *disk = stage_disk(&stage, 2, NUM_THREADS * NUM_EACH, "");
	struct dmcore_device *device =
		actor_mapped(&stage, "m", "0 200 linear fault:200,id=2 0");
	unsigned int next[NUM_THREADS] = { 0 };
	pthread_t threads[NUM_THREADS];

	actor_suspend(device, 0);
	for (unsigned int i = 0; i < NUM_THREADS; i++) {
		writers[i].device = device;
		writers[i].nr = i;
		cr_assert_eq(pthread_create(&threads[i], NULL, write_on_own_queue, &writers[i]),
			     0);
	}
	for (unsigned int i = 0; i < NUM_THREADS; i++)
		actor_await(&writers[i].submitted, 1);
	cr_assert_eq(actor_info(device).num_deferred, NUM_THREADS * NUM_EACH);
	actor_resume(device);
	for (unsigned int i = 0; i < NUM_THREADS; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(writers[i].tally.failed, 0);
	}
	cr_assert_eq(fault_num_logged(disk), NUM_THREADS * NUM_EACH);
	for (unsigned int i = 0; i < NUM_THREADS * NUM_EACH; i++) {
		uint64_t sector = fault_logged(disk, i).sector;

		cr_assert_eq(sector % NUM_EACH, next[sector / NUM_EACH]);
		next[sector / NUM_EACH]++;
	}
}

/* ---- queues and cores that go ---- */

Test(suspended, queue_with_deferred_requests_stays)
{
	struct dmcore_device *device = actor_mapped(&stage, "m", on_0);
	struct dmcore_device *other = actor_mapped(&stage, "other", on_1);
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	submit_flagged(device, DMCORE_OP_WRITE, 0, 0, 8, &tally);
	cr_assert_eq(dmcore_queue_destroy(stage.queue), -EBUSY);
	cr_assert_neq(dmcore_error_message()[0], '\0');
	cr_assert_eq(stage_run(&stage, bdev_of(other), DMCORE_OP_WRITE, 0, 0, 8, buffer), 0);
	cr_assert_eq(tally.ended, 0);
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

Test(suspended, core_takes_running_and_suspended_devices_down)
{
	struct dmcore *core;
	struct dmcore_device *device;

	cr_assert_eq(dmcore_create(NULL, &core), 0);
	actor_register(core);
	cr_assert_eq(dmcore_device_create_concise(
			     core, "a,,,rw,0 8 actor 1;b,,,rw,0 8 linear /dev/mapper/a 0;"
				   "c,,,rw,0 8 actor 2;d,,,rw,0 8 linear /dev/mapper/c 0", 0,
			     &device), 0, "%s", dmcore_error_message());
	actor_suspend(dmcore_device_find(core, "a"), 0);
	actor_suspend(dmcore_device_find(core, "d"), 0);
	actor_log();
	cr_assert_eq(dmcore_destroy(core), 0, "%s", dmcore_error_message());
	/* Only what ran is told that it stops. */
	cr_assert_str_eq(actor_log(), "presuspend 2, postsuspend 2, dtr 2, dtr 1");
}
