/* SPDX-License-Identifier: MIT */
/*
 * A throttle of kcopyd that has a slice wait for hours, in virtual time: who needn't wait with it
 * doesn't, and what it waits for comes nearer whatever is called meanwhile.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/simcopy.h"

#define SECOND UINT64_C(1000000000)
#define MS UINT64_C(1000000)
#define SECTORS 1024u

static struct simworld world;
static struct kcopyd_throttle *throttle;
static struct kcopyd_client *clients[2];
static struct simcopy copies[2];

static void open_world(void)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;

	simcopy_open(&world, 1);
	world.options.read_ns = MS;
	world.options.write_ns = MS;
	for (unsigned int i = 0; i < 3; i++)
		simworld_add_disk(&world, SECTORS);
	cr_assert_eq(kcopyd_throttle_create(world.queue, &throttle), 0);
	options.throttle = throttle;
	memset(copies, 0, sizeof(copies));
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(kcopyd_client_create_with(world.queue, 8, &options, &clients[i]), 0);
		simcopy_from(&copies[i], &world, 0, 0, SECTORS, 0);
		simcopy_to(&copies[i], &world, 1 + i, 0);
	}
}

static void close_world(void)
{
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, 0), 0);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(simcopy_destroy(clients[i]), 0);
	cr_assert_eq(kcopyd_throttle_destroy(throttle), 0);
	simcopy_close(&world);
}

static void set_rate(uint64_t bytes_per_second)
{
	cr_assert_eq(kcopyd_throttle_set(throttle, 100, bytes_per_second), 0);
}

static void pass(uint64_t ns)
{
	uint64_t until_ns = dmcore_sim_now_ns(world.sim) + ns;

	while (dmcore_sim_now_ns(world.sim) < until_ns)
		simcopy_poll(&world, 1, (int64_t)(until_ns - dmcore_sim_now_ns(world.sim)));
}

/* Whoever has waited has waited, at whatever rate. */
Test(held_up, slice_starts_however_often_bounds_are_set)
{
	uint64_t position;

	open_world();
	set_rate(1000);
	simcopy_start(clients[0], &copies[0]);
	for (unsigned int i = 0; i < 200; i++) {
		pass(100 * MS);
		set_rate(1000);
	}
	position = simcopy_progress(&copies[0]).position_sectors;
	cr_assert(position >= 35 && position <= 42, "%lu sectors in 20 s at 1000 B/s",
		  (unsigned long)position);
	close_world();
}

/* Also one that was asked for when the clock began. */
Test(held_up, slice_waits_once)
{
	open_world();
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 0);
	set_rate(1000);
	simcopy_start(clients[0], &copies[0]);
	pass(600 * MS);
	cr_assert_eq(simcopy_progress(&copies[0]).position_sectors, 1);
	close_world();
}

/* Nor does it make up for the time in which it was held up by something else. */
Test(held_up, slice_brings_no_burst_with_it)
{
	uint64_t before;

	open_world();
	set_rate(1);
	simcopy_start(clients[0], &copies[0]);
	simcopy_start(clients[1], &copies[1]);
	pass(100 * SECOND);
	cr_assert_eq(simcopy_progress(&copies[0]).position_sectors, 0);
	/* Not for long, and so slowly that both still wait. */
	cr_assert_eq(kcopyd_throttle_set(throttle, 0, 0), 0);
	pass(100 * MS);
	before = simcopy_progress(&copies[0]).position_sectors +
		 simcopy_progress(&copies[1]).position_sectors;
	cr_assert_lt(before, SECTORS);
	set_rate(10000);
	pass(SECOND);
	before = simcopy_progress(&copies[0]).position_sectors +
		 simcopy_progress(&copies[1]).position_sectors - before;
	cr_assert_leq(before, 10000 / 512 + 16, "%lu sectors in 1 s at 10,000 B/s",
		      (unsigned long)before);
	close_world();
}

Test(held_up, job_that_was_cancelled_holds_up_no_other_client)
{
	open_world();
	set_rate(1);
	world.options.flags = 0;
	simcopy_from(&copies[1], &world, SIMCOPY_ZEROES, 0, 8, 0);
	simcopy_to(&copies[1], &world, 2, 0);
	simcopy_start(clients[0], &copies[0]);
	simcopy_start(clients[1], &copies[1]);
	pass(SECOND);
	/* Zeroing doesn't count, but has its turn. */
	cr_assert(copies[0].busy && copies[1].busy);
	cr_assert_eq(simcopy_cancel(&copies[0]), 0);
	pass(SECOND);
	cr_assert(!copies[0].busy && !copies[1].busy);
	cr_assert_eq(copies[1].job.status, 0);
	close_world();
}

/* Two jobs of one client, and the other one is before it. */
Test(held_up, job_does_not_keep_one_that_failed_from_its_end)
{
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
	};

	open_world();
	cr_assert_eq(dmcore_sim_rule_add(world.disks[2], &rule), 0);
	set_rate(1000);
	simcopy_start(clients[0], &copies[0]);
	simcopy_start(clients[0], &copies[1]);
	/* Each has read a slice: the first one is before the other again. */
	while (simcopy_watch.num_reads < 2)
		simcopy_poll(&world, 1, -1);
	set_rate(1);
	pass(SECOND);
	cr_assert(copies[0].busy && !copies[1].busy);
	cr_assert_eq(copies[1].job.status, -EIO);
	cr_assert_eq(simcopy_cancel(&copies[0]), 0);
	close_world();
}
