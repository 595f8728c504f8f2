/* SPDX-License-Identifier: MIT */
/*
 * Cancellations under load, in one simulated world: many jobs of two clients, cancelled at any
 * moment, many times. Each ends exactly once; no write of it begins after its cancellation, and
 * none ends after its callback. What it says of its position is true, and what is gone on with from
 * there becomes an equal copy.
 *
 *	DMCORE_SEED=N         the start of all random choices
 *	DMCORE_PROP_FULL=1    a million cancellations
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/rng.h"
#include "support/simcopy.h"

#define JOBS 32u
#define PLACE_SECTORS 64u
#define DESTS 2u
#define CANCELS_FULL 1000000u
#define CANCELS 50000u
#define CANCELS_FEW 5000u

static struct simworld world;
static struct rng rng;
static struct kcopyd_client *clients[2];
static struct simcopy copies[JOBS];
static uint64_t goes_on_at[JOBS]; /* sectors that were done before */
static uint64_t num_submitted;
static uint64_t num_ended;
static uint64_t num_cancelled;
static uint64_t num_gone_on;
static uint64_t num_whole;
static unsigned int max_cancels;

/* Each job has a place of its own on the destinations. */
static uint64_t place_of(unsigned int i)
{
	return (uint64_t)i * PLACE_SECTORS;
}

static void check_done(unsigned int i, uint64_t position)
{
	const struct kcopyd_job *job = &copies[i].job;

	for (unsigned int dest = 0; dest < job->num_dests; dest++)
		cr_assert(simcopy_same(&world, 0, job->from.sector, 1 + dest,
				       job->dests[dest].sector, position),
			  "job %u says that %lu sectors are done", i, (unsigned long)position);
}

static void start(unsigned int i)
{
	struct simcopy *copy = &copies[i];
	uint64_t from = rng_below(&rng, SIMCOPY_SECTORS_MAX - PLACE_SECTORS);
	uint64_t count = 1 + rng_below(&rng, PLACE_SECTORS);
	static const unsigned int flags[] = {
		0, 0, KCOPYD_WRITE_SEQ, KCOPYD_FLUSH, KCOPYD_VERIFY, KCOPYD_SPARSE,
	};

	simcopy_from(copy, &world, 0, from, count, flags[rng_below(&rng, 6)]);
	for (unsigned int dest = 1; dest <= DESTS; dest++)
		simcopy_to(copy, &world, dest, place_of(i));
	goes_on_at[i] = 0;
	simcopy_start(clients[i % 2], copy);
	num_submitted++;
}

/* The rest of one that was cancelled. */
static void go_on(unsigned int i, uint64_t position)
{
	struct simcopy *copy = &copies[i];
	const struct kcopyd_job before = copy->job;

	goes_on_at[i] += position;
	simcopy_from(copy, &world, 0, before.from.sector + position,
		     before.from.count - position, before.flags);
	for (unsigned int dest = 0; dest < DESTS; dest++)
		simcopy_to(copy, &world, 1 + dest, before.dests[dest].sector + position);
	simcopy_start(clients[i % 2], copy);
	num_submitted++;
	num_gone_on++;
}

static void ended(struct simcopy *copy)
{
	unsigned int i = (unsigned int)(copy - copies);
	uint64_t position = simcopy_progress(copy).position_sectors;

	num_ended++;
	cr_assert(copy->cancelled || copy->job.status == 0, "%d", copy->job.status);
	check_done(i, position);
	if (!copy->cancelled) {
		struct kcopyd_job *job = &copy->job;

		cr_assert_eq(position, simcopy_count(copy));
		/* All that it has been made of. */
		for (unsigned int dest = 0; dest < DESTS; dest++)
			cr_assert(simcopy_same(&world, 0, job->from.sector - goes_on_at[i],
					       1 + dest, place_of(i),
					       goes_on_at[i] + job->from.count));
		num_whole++;
	}
	if (num_cancelled >= max_cancels)
		return;
	if (copy->cancelled && rng_one_in(&rng, 2))
		go_on(i, position);
	else
		start(i);
}

static void open_world(void)
{
	static const unsigned int pages[] = { 2, 16 };

	simcopy_open(&world, rng_seed());
	memset(copies, 0, sizeof(copies));
	world.options.read_ns = 20000;
	world.options.write_ns = 30000;
	world.options.flush_ns = 30000;
	world.options.spread_ns = 60000;
	world.options.depth = 8;
	world.options.cache_units = 16384;
	for (unsigned int i = 0; i <= DESTS; i++)
		simworld_add_disk(&world, SIMCOPY_SECTORS_MAX);
	simcopy_load(&world, 0, 1);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(kcopyd_client_create(world.queue, pages[i], &clients[i]), 0);
	for (unsigned int i = 0; i < JOBS; i++)
		copies[i].ended = ended;
}

static void cancel_some(void)
{
	for (unsigned int n = 1 + (unsigned int)rng_below(&rng, 2); n > 0; n--) {
		struct simcopy *copy = &copies[rng_below(&rng, JOBS)];
		bool was_cancelled = copy->cancelled;
		int ret;

		if (!copy->busy) {
			cr_assert_eq(kcopyd_cancel(&copy->job), -EINVAL);
		} else if (was_cancelled) {
			cr_assert_eq(kcopyd_cancel(&copy->job), -EALREADY);
		} else {
			ret = simcopy_cancel(copy);
			cr_assert(ret == 0 || ret == -EALREADY, "%d", ret);
			num_cancelled += ret == 0;
		}
	}
}

static unsigned int num_cancels(void)
{
	if (rng_full())
		return CANCELS_FULL;
	return rng_brief() ? CANCELS_FEW : CANCELS;
}

Test(cancel, under_load_ends_each_job_once, .timeout = 36000)
{
	rng_start(&rng, 13);
	max_cancels = num_cancels();
	open_world();
	for (unsigned int i = 0; i < JOBS; i++)
		start(i);
	while (num_cancelled < max_cancels) {
		simcopy_poll(&world, 1 + (unsigned int)rng_below(&rng, 24),
			     (int64_t)rng_below(&rng, 100000));
		cancel_some();
		cr_assert_eq(simcopy_watch.num_strays, 0, "%s", simcopy_watch.stray);
		cr_assert_leq(num_submitted - num_ended, JOBS);
	}
	/* Half of them by waiting for each, the rest by their client's end. */
	for (unsigned int i = 0; i < JOBS / 2; i++)
		simcopy_wait(&world, &copies[i]);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(simcopy_destroy(clients[i]), 0);
	cr_assert_eq(num_ended, num_submitted);
	cr_assert_eq(simcopy_watch.num_callbacks, num_submitted);
	if (getenv("DMCORE_PROP_VERBOSE"))
		fprintf(stderr, "%lu jobs, %lu cancelled, %lu gone on with, %lu whole\n",
			(unsigned long)num_submitted, (unsigned long)num_cancelled,
			(unsigned long)num_gone_on, (unsigned long)num_whole);
	cr_assert_gt(num_gone_on, max_cancels / 4);
	cr_assert_gt(num_whole, max_cancels / 20);
	simcopy_close(&world);
}

/* At each moment of a job's life. */
Test(cancel, is_heard_at_every_moment)
{
	bool too_late = false;
	int ret;

	for (unsigned int polls = 0; !too_late; polls++) {
		uint64_t position;

		rng_start(&rng, 1);
		open_world();
		copies[0].ended = NULL;
		start(0);
		for (unsigned int i = 0; i < polls && copies[0].busy; i++)
			simcopy_poll(&world, 1, -1);
		too_late = !copies[0].busy;
		ret = too_late ? 0 : simcopy_cancel(&copies[0]);
		/* Its end is known, and not yet told. */
		cr_assert(ret == 0 || (ret == -EALREADY && simcopy_progress(&copies[0])
								   .position_sectors ==
							   copies[0].job.from.count));
		simcopy_wait(&world, &copies[0]);
		position = simcopy_progress(&copies[0]).position_sectors;
		check_done(0, position);
		if (polls == 0)
			cr_assert_eq(position, 0);
		for (unsigned int i = 0; i < 2; i++)
			cr_assert_eq(simcopy_destroy(clients[i]), 0);
		simcopy_close(&world);
		cr_assert_lt(polls, 10000);
	}
}

/* From the callback of another: none of them begins anything more. */
static void cancel_all(struct simcopy *copy)
{
	for (unsigned int i = 0; i < JOBS; i++) {
		if (&copies[i] != copy && copies[i].busy && !copies[i].cancelled)
			simcopy_cancel(&copies[i]);
	}
}

Test(cancel, of_all_in_a_callback_ends_all)
{
	unsigned int num = 0;

	rng_start(&rng, 2);
	open_world();
	for (unsigned int i = 0; i < JOBS; i++) {
		copies[i].ended = cancel_all;
		start(i);
	}
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(simcopy_destroy(clients[i]), 0);
	for (unsigned int i = 0; i < JOBS; i++) {
		cr_assert_eq(copies[i].num_ends, 1);
		num += copies[i].cancelled;
		check_done(i, simcopy_progress(&copies[i]).position_sectors);
	}
	cr_assert_gt(num, JOBS / 2);
	simcopy_close(&world);
}
