/* SPDX-License-Identifier: MIT */
/* Requests that a target pushes back: to the next table in a noflush suspension, else -EIO. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/actor.h"

#define SECTORS 64

static struct stage stage;
static struct fault_disk *disks[2];
static struct dmcore_device *device;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

static const char actor_on_0[] = "0 64 actor 1 fault:64,id=0 0";
static const char mute_on_0[] = "0 64 mute 1 fault:64,id=0 0";
static const char halves[] = "0 32 actor 1 fault:64,id=0 0\n32 32 actor 2 fault:64,id=0 32";
static const char on_1[] = "0 64 linear fault:64,id=1 0";

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	disks[0] = stage_disk(&stage, 0, SECTORS, "");
	disks[1] = stage_disk(&stage, 1, SECTORS, "");
	pattern_fill(buffer, 0, SECTORS, 1);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(requeue, .init = set_up, .fini = tear_down);

static int run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return stage_run(&stage, dmcore_device_bdev(device), op, 0, sector, count,
			 op <= DMCORE_OP_WRITE ? buffer : NULL);
}

static void submit(enum dmcore_op op, unsigned int flags, uint64_t count, struct tally *tally)
{
	struct dmcore_bio *bio = stage_bio(&stage, dmcore_device_bdev(device), op, 0, count,
					   op <= DMCORE_OP_WRITE ? buffer : NULL, tally);

	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

/* ---- outside a noflush suspension: assertion 31 ---- */

Test(requeue, by_map_of_a_running_device_is_an_error)
{
	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].map = ACTOR_REQUEUE;
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), -EIO);
	cr_assert_eq(run(DMCORE_OP_READ, 0, 8), -EIO);
	cr_assert_eq(run(DMCORE_OP_DISCARD, 0, 8), -EIO);
	cr_assert_eq(run(DMCORE_OP_FLUSH, 0, 0), -EIO);
	actors[1].map = ACTOR_PASS;
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), 0);
}

Test(requeue, by_end_io_of_a_running_device_is_an_error)
{
	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].end_requeues = true;
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), -EIO);
	cr_assert_eq(run(DMCORE_OP_FLUSH, 0, 0), -EIO);
}

Test(requeue, of_a_kept_bio_of_a_running_device_is_an_error)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].map = ACTOR_KEEP;
	submit(DMCORE_OP_WRITE, 0, 8, &tally);
	actor_let_go(1, DMCORE_STATUS_REQUEUE);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, -EIO);
}

Test(requeue, in_a_suspension_with_flush_is_an_error)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].map = ACTOR_KEEP;
	actors[1].frees_in_presuspend = true;
	submit(DMCORE_OP_WRITE, 0, 8, &tally);
	actor_suspend(device, 0);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, -EIO);
	cr_assert_eq(actor_info(device).num_deferred, 0);
}

/* ---- inside one ---- */

static void expect_pushed_back(struct tally *tally, unsigned int count)
{
	cr_assert_eq(tally->ended, 0);
	cr_assert_eq(actor_info(device).num_deferred, count);
	cr_assert_eq(actor_info(device).num_inflight, 0);
	cr_assert(actor_info(device).suspended);
}

Test(requeue, of_kept_bios_goes_to_the_next_table_in_order)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].map = ACTOR_KEEP;
	actors[1].frees_in_presuspend = true;
	submit(DMCORE_OP_WRITE, DMCORE_BIO_FUA, 8, &tally);
	submit(DMCORE_OP_WRITE, 0, 64, &tally);
	submit(DMCORE_OP_DISCARD, 0, 16, &tally);
	submit(DMCORE_OP_FLUSH, 0, 0, &tally);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&tally, 4);
	actor_reload(device, on_1);
	stage_wait(&stage, &tally, 4);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_num_logged(disks[0]), 0);
	cr_assert_eq(fault_num_logged(disks[1]), 4);
	cr_assert_eq(fault_logged(disks[1], 0).count, 8);
	cr_assert(fault_logged(disks[1], 0).flags & DMCORE_BIO_FUA);
	cr_assert_eq(fault_logged(disks[1], 1).count, 64);
	cr_assert_eq(fault_logged(disks[1], 2).op, DMCORE_OP_DISCARD);
	cr_assert_eq(fault_logged(disks[1], 3).op, DMCORE_OP_FLUSH);
	cr_assert_eq(pattern_differs(fault_data(disks[1]) + 16 * DMCORE_SECTOR_BYTES, 16, 48, 1),
		     -1);
}

/* The same table may take them too. */
Test(requeue, goes_to_the_old_table_if_there_is_no_new_one)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].map = ACTOR_KEEP;
	actors[1].frees_in_presuspend = true;
	submit(DMCORE_OP_WRITE, 0, 64, &tally);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&tally, 1);
	actors[1].map = ACTOR_PASS;
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(actors[1].maps, 2);
	cr_assert_eq(pattern_differs(fault_data(disks[0]), 0, SECTORS, 1), -1);
}

static void map_again_in_presuspend(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, "presuspend-noflush") == 0)
		fault_release_all(disks[0]);
}

/* Ends below with an error while the device is suspended: end_io pushes it back. */
Test(requeue, by_end_io_goes_whole_to_the_next_table)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", actor_on_0);
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD });
	actors[1].end_requeues = true;
	actors[1].in_hook = map_again_in_presuspend;
	submit(DMCORE_OP_WRITE, 0, 64, &tally);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&tally, 1);
	cr_assert_eq(actors[1].ends, 1);
	actor_reload(device, on_1);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(pattern_differs(fault_data(disks[1]), 0, SECTORS, 1), -1);
}

static struct tally late;

static void submit_in_presuspend(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, "presuspend-noflush") != 0)
		return;
	actors[1].map = ACTOR_REQUEUE;
	submit(DMCORE_OP_WRITE, 0, 64, &late);
	submit(DMCORE_OP_DISCARD, 0, 8, &late);
	submit(DMCORE_OP_FLUSH, 0, 0, &late);
}

Test(requeue, by_map_goes_to_the_next_table)
{
	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].in_hook = submit_in_presuspend;
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&late, 3);
	cr_assert_eq(actors[1].maps, 3);
	actor_reload(device, on_1);
	stage_wait(&stage, &late, 3);
	cr_assert_eq(late.failed, 0);
	cr_assert_eq(fault_count(disks[1], 0), 3);
}

/* ---- pieces and copies ---- */

/* One half has been carried out, the other is pushed back: all of it is done again. */
Test(requeue, of_one_piece_takes_the_whole_request_back)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", halves);
	actors[2].map = ACTOR_KEEP;
	actors[2].frees_in_presuspend = true;
	submit(DMCORE_OP_WRITE, 0, 64, &tally);
	stage_settle(&stage);
	cr_assert_eq(fault_count(disks[0], FAULT_WRITE), 1);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&tally, 1);
	actor_reload(device, on_1);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_logged(disks[1], 0).count, 64);
	cr_assert_eq(pattern_differs(fault_data(disks[1]), 0, SECTORS, 1), -1);
}

Test(requeue, of_one_piece_beside_a_failed_one_is_a_failure)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", halves);
	actors[1].map = ACTOR_KILL;
	actors[2].map = ACTOR_KEEP;
	actors[2].frees_in_presuspend = true;
	submit(DMCORE_OP_WRITE, 0, 64, &tally);
	stage_settle(&stage);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, -EIO);
	cr_assert_eq(actor_info(device).num_deferred, 0);
}

Test(requeue, of_copies_takes_the_whole_request_back)
{
	struct tally tally = { 0 };

	actors[1].copies = 3;
	device = actor_mapped(&stage, "m", actor_on_0);
	actors[1].map = ACTOR_KEEP;
	actors[1].map_times = 4;
	actors[1].frees_in_presuspend = true;
	submit(DMCORE_OP_DISCARD, 0, 64, &tally);
	submit(DMCORE_OP_FLUSH, 0, 0, &tally);
	stage_settle(&stage);
	cr_assert_eq(actors[1].maps, 6);
	cr_assert_eq(actor_num_kept(1), 4);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&tally, 2);
	actor_reload(device, on_1);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(fault_count(disks[1], FAULT_DISCARD), 1);
	cr_assert_eq(fault_count(disks[1], FAULT_FLUSH), 1);
}

/* ---- time-outs, features, stacks ---- */

/* What was pushed back while a suspension was tried goes on when it is given up. */
Test(requeue, in_a_suspension_that_is_given_up_goes_the_old_way)
{
	struct tally pushed = { 0 };
	struct tally stuck = { 0 };

	device = actor_mapped(&stage, "m", actor_on_0);
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD, .times = 1 });
	submit(DMCORE_OP_READ, 0, 8, &stuck);
	actors[1].map = ACTOR_KEEP;
	actors[1].map_times = 1;
	actors[1].frees_in_presuspend = true;
	submit(DMCORE_OP_WRITE, 0, 64, &pushed);
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, 50000000), -ETIMEDOUT);
	stage_wait(&stage, &pushed, 1);
	fault_release_all(disks[0]);
	stage_wait(&stage, &stuck, 1);
	cr_assert_eq(stuck.failed, 0);
	if (pushed.failed == 0)
		cr_assert_eq(fault_count(disks[0], FAULT_WRITE), 1);
	else
		cr_assert_eq(pushed.status, -EIO);
}

Test(requeue, from_a_type_without_the_feature_is_an_error)
{
	device = actor_mapped(&stage, "m", mute_on_0);
	actors[1].in_hook = submit_in_presuspend;
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	stage_settle(&stage);
	cr_assert_eq(late.ended, 3);
	cr_assert_eq(late.failed, 3);
	cr_assert_eq(late.status, -EIO);
}

Test(requeue, by_end_io_from_a_type_without_the_feature_is_an_error)
{
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "m", mute_on_0);
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD });
	actors[1].end_requeues = true;
	actors[1].in_hook = map_again_in_presuspend;
	submit(DMCORE_OP_WRITE, 0, 8, &tally);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, -EIO);
}

/* The device that is suspended takes it, not the one above. */
Test(requeue, below_another_device_is_not_seen_above)
{
	struct dmcore_bdev *upper;
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "lower", actor_on_0);
	upper = stage_map(&stage, "upper",
			  "0 32 actor 5 /dev/mapper/lower 32\n32 32 linear fault:64,id=1 0");
	actors[1].map = ACTOR_KEEP;
	actors[1].frees_in_presuspend = true;
	stage_submit(&stage, upper, DMCORE_OP_WRITE, 0, 64, buffer, &tally);
	stage_settle(&stage);
	actor_suspend(device, DMCORE_SUSPEND_NOFLUSH);
	expect_pushed_back(&tally, 1);
	actors[1].map = ACTOR_PASS;
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(actors[5].ends, 1);
	cr_assert_eq(pattern_differs(fault_data(disks[0]) + 32 * DMCORE_SECTOR_BYTES, 0, 32, 1),
		     -1);
}

/* A noflush suspension of the upper device is none of the lower one. */
Test(requeue, below_a_device_that_is_suspended_is_an_error)
{
	struct dmcore_device *upper;
	struct tally tally = { 0 };

	device = actor_mapped(&stage, "lower", actor_on_0);
	upper = actor_mapped(&stage, "upper", "0 64 actor 5 /dev/mapper/lower 0");
	actors[1].map = ACTOR_KEEP;
	stage_submit(&stage, dmcore_device_bdev(upper), DMCORE_OP_WRITE, 0, 64, buffer, &tally);
	cr_assert_eq(dmcore_device_suspend(upper, DMCORE_SUSPEND_NOFLUSH, 1), -ETIMEDOUT);
	actor_let_go(1, DMCORE_STATUS_REQUEUE);
	actor_suspend(upper, DMCORE_SUSPEND_NOFLUSH);
	cr_assert_eq(tally.ended, 1);
	cr_assert_eq(tally.status, -EIO);
}
