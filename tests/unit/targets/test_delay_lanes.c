/* SPDX-License-Identifier: MIT */
/* What a delay target holds: a claimed lane isn't left by its last bio before its work has run. */
#include <errno.h>
#include <stdatomic.h>

#include <criterion/criterion.h>

#include "support/stage.h"
#include "targets/delay/lanes.h"

static struct stage stage;
static struct delay_lanes lanes;
static _Atomic uint64_t now_ns;
static _Atomic bool stop_in_clock;
static unsigned char buffer[DMCORE_SECTOR_BYTES];

static uint64_t test_clock(void *context)
{
	(void)context;
	if (atomic_exchange(&stop_in_clock, false))
		dmcore__lanes_stop(&lanes);
	return atomic_load(&now_ns);
}

static int holder_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	return dmcore_target_device(target, dmcore_args_next(args),
				    (struct dmcore_bdev **)&target->private_data);
}

/* The n-th sector waits for n. */
static enum dmcore_map_result holder_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	bio->bdev = target->private_data;
	if (dmcore__lanes_hold(&lanes, dmcore_bio_target_data(bio), bio, DELAY_READ, bio->sector))
		return DMCORE_MAP_SUBMITTED;
	return DMCORE_MAP_REMAPPED;
}

static int holder_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	return fn(target, target->private_data, 0, dmcore_target_len(target), context);
}

static const struct dmcore_target_type holder_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "holder",
	.version = { 1, 0, 0 },
	.per_bio_bytes = sizeof(struct held_bio),
	.ctr = holder_ctr,
	.map = holder_map,
	.iterate_devices = holder_iterate_devices,
};

static struct dmcore_bdev *bdev;

static void set_up(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.clock_ns = test_clock;
	stage_open(&stage, &options, NULL);
	cr_assert_eq(dmcore_target_register(stage.core, &holder_type), 0);
	bdev = stage_map(&stage, "d", "0 64 holder fault:64,id=1");
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(delay_lanes, .init = set_up, .fini = tear_down);

static void submit_for(uint64_t delay_ns, struct tally *tally)
{
	stage_submit(&stage, bdev, DMCORE_OP_READ, delay_ns, 1, buffer, tally);
}

Test(delay_lanes, claimed_lane_keeps_its_last_bio_for_the_work)
{
	struct tally tally = { 0 };

	submit_for(5, &tally);
	submit_for(7, &tally);
	dmcore__lanes_stop(&lanes);
	atomic_store(&now_ns, 10);
	/* Two timers, and no time for work. */
	cr_assert_eq(dmcore_queue_poll(stage.queue, 0, 2, 0), 2);
	cr_assert_eq(dmcore__lanes_count(&lanes, DELAY_READ), 1);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(dmcore__lanes_count(&lanes, DELAY_READ), 0);
	cr_assert_eq(tally.failed, 0);
}

Test(delay_lanes, stopped_nothing_is_held_and_started_again_it_is)
{
	struct tally tally = { 0 };

	dmcore__lanes_stop(&lanes);
	submit_for(5, &tally);
	stage_wait(&stage, &tally, 1);
	dmcore__lanes_start(&lanes);
	submit_for(5, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 1);
	atomic_store(&now_ns, 5);
	stage_wait(&stage, &tally, 2);
}

/* Stopped twice before the owner comes round, its work is posted once. */
Test(delay_lanes, work_is_posted_once)
{
	struct tally tally = { 0 };

	submit_for(5, &tally);
	dmcore__lanes_stop(&lanes);
	dmcore__lanes_start(&lanes);
	submit_for(6, &tally);
	dmcore__lanes_stop(&lanes);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(dmcore__lanes_count(&lanes, DELAY_READ), 0);
}

/* Who holds the first one has looked before that, and looks again. */
Test(delay_lanes, stop_while_a_first_bio_is_being_held_misses_it_not)
{
	struct tally tally = { 0 };

	atomic_store(&stop_in_clock, true);
	submit_for(5, &tally);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(dmcore__lanes_count(&lanes, DELAY_READ), 0);
	cr_assert_eq(dmcore_timer_next_ns(stage.queue), UINT64_MAX);
}
