/* SPDX-License-Identifier: MIT */
/*
 * Jobs of one client take turns: small copies beside one of 1 GiB, in virtual time. The large one's
 * data are left out by a rule of its disks, so that it takes no memory.
 *
 * The bound: a small job waits for what is under way and what stands before it. With D requests of
 * a disk at work at once, a slice takes no longer than its disks need for all slices under way; so
 * a small job ends within (slices under way + jobs before it + 2) such times.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/rng.h"
#include "support/simcopy.h"

#define LARGE_SECTORS (UINT64_C(1) << 21)
#define SMALL_SECTORS 8u
#define SMALLS 100u
/* Disks: the large job's source and destination have the small ones' ranges at their start. */
#define LARGE_AT SIMCOPY_SECTORS_MAX
#define READ_NS UINT64_C(100000)
#define WRITE_NS UINT64_C(200000)
#define SECTOR_NS UINT64_C(500)

static struct simworld world;
static struct kcopyd_client *client;
static struct simcopy large;
static struct simcopy smalls[SMALLS];
static uint64_t slice_sectors;
static uint64_t slice_ns; /* alone on its disks */
static unsigned int slices_at_once;

static void open_world(unsigned int pages)
{
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_LOSE,
		.sector = LARGE_AT,
		.count = LARGE_SECTORS,
	};

	simcopy_open(&world, pages);
	world.options.read_ns = READ_NS;
	world.options.write_ns = WRITE_NS;
	world.options.sector_ns = SECTOR_NS;
	world.options.depth = 1;
	for (unsigned int i = 0; i < 2; i++) {
		simworld_add_disk(&world, LARGE_AT + LARGE_SECTORS);
		cr_assert_eq(dmcore_sim_rule_add(world.disks[i], &rule), 0);
	}
	cr_assert_eq(kcopyd_client_create(world.queue, pages, &client), 0);
	/* An eighth of the pages, or one. */
	slices_at_once = pages < 8 ? pages : 8;
	slice_sectors = pages < 16 ? 8 : pages / 8 * 8;
	slice_ns = READ_NS + WRITE_NS + 2 * slice_sectors * SECTOR_NS;
	memset(&large, 0, sizeof(large));
	memset(smalls, 0, sizeof(smalls));
	simcopy_from(&large, &world, 0, LARGE_AT, LARGE_SECTORS, 0);
	simcopy_to(&large, &world, 1, LARGE_AT);
	for (unsigned int i = 0; i < SMALLS; i++) {
		simcopy_from(&smalls[i], &world, 0, (uint64_t)i * SMALL_SECTORS, SMALL_SECTORS, 0);
		simcopy_to(&smalls[i], &world, 1, (uint64_t)i * SMALL_SECTORS);
	}
}

static void close_world(void)
{
	cr_assert_eq(simcopy_destroy(client), 0);
	simcopy_close(&world);
}

static uint64_t took_ns(const struct simcopy *copy)
{
	return copy->end_ns - copy->begin_ns;
}

static int compare(const void *a, const void *b)
{
	uint64_t left = took_ns(a);
	uint64_t right = took_ns(b);

	return left < right ? -1 : left > right;
}

/* The largest but one of a hundred. */
static uint64_t p99_ns(void)
{
	qsort(smalls, SMALLS, sizeof(smalls[0]), compare);
	return took_ns(&smalls[SMALLS - 2]);
}

static const unsigned int page_counts[] = { 1, 8, 256 };

/* One after the other, at any moment of the large job. */
static void one_by_one(unsigned int pages)
{
	uint64_t bound_ns;
	struct rng rng;

	rng_start(&rng, pages);
	open_world(pages);
	simcopy_start(client, &large);
	for (unsigned int i = 0; i < SMALLS; i++) {
		simcopy_poll(&world, 1, (int64_t)rng_below(&rng, 20 * slice_ns));
		cr_assert(large.busy);
		simcopy_start(client, &smalls[i]);
		cr_assert_eq(simcopy_wait(&world, &smalls[i]), 0);
	}
	bound_ns = (slices_at_once + 2) * slice_ns;
	cr_assert_leq(p99_ns(), bound_ns, "%u pages: %lu us, not %lu", pages,
		      (unsigned long)(p99_ns() / 1000), (unsigned long)(bound_ns / 1000));
	cr_assert_eq(simcopy_cancel(&large), 0);
	simcopy_wait(&world, &large);
	close_world();
}

Test(small_jobs, wait_for_no_more_than_what_is_under_way, .timeout = 600)
{
	for (unsigned int i = 0; i < 3; i++)
		one_by_one(page_counts[i]);
}

/* All at once: each waits for those before it, too. And the large one ends. */
static void all_at_once(unsigned int pages)
{
	uint64_t bound_ns;
	uint64_t alone_ns;

	open_world(pages);
	simcopy_start(client, &large);
	while (simcopy_progress(&large).position_sectors == 0)
		simcopy_poll(&world, 1, -1);
	for (unsigned int i = 0; i < SMALLS; i++)
		simcopy_start(client, &smalls[i]);
	for (unsigned int i = 0; i < SMALLS; i++) {
		cr_assert_eq(simcopy_wait(&world, &smalls[i]), 0);
		/* Each, by its place in the line; the large one has a turn in each round. */
		bound_ns = (slices_at_once + i + 2) * slice_ns;
		cr_assert_leq(took_ns(&smalls[i]), bound_ns, "%u pages, %u: %lu us", pages, i,
			      (unsigned long)(took_ns(&smalls[i]) / 1000));
	}
	cr_assert(large.busy);
	cr_assert_leq(p99_ns(), (slices_at_once + SMALLS + 2) * slice_ns);
	cr_assert_eq(simcopy_wait(&world, &large), 0);
	cr_assert_eq(simcopy_progress(&large).position_sectors, LARGE_SECTORS);
	/* As long as one slice after the other, and what the small ones took. */
	alone_ns = (LARGE_SECTORS / slice_sectors + 1) * slice_ns;
	cr_assert_leq(took_ns(&large), alone_ns + (SMALLS + slices_at_once) * slice_ns);
	close_world();
}

Test(small_jobs, beside_1_gib_end_soon, .timeout = 600)
{
	for (unsigned int i = rng_brief() ? 1 : 0; i < 3; i++)
		all_at_once(page_counts[i]);
}

/* ---- the large one -------------------------------------------------------------------------- */

static unsigned int num_left;

static void again(struct simcopy *copy)
{
	if (num_left == 0)
		return;
	num_left--;
	simcopy_start(client, copy);
}

/* So many small ones are there at any time: in each round the large one has a turn as well. */
static void endless_stream(unsigned int pages, unsigned int at_once)
{
	uint64_t turns;

	open_world(pages);
	num_left = 4000;
	simcopy_start(client, &large);
	for (unsigned int i = 0; i < at_once; i++) {
		smalls[i].ended = again;
		simcopy_start(client, &smalls[i]);
	}
	while (num_left)
		simcopy_poll(&world, 1, -1);
	turns = simcopy_progress(&large).position_sectors / slice_sectors;
	cr_assert_geq(turns, 4000 / (at_once + 1) / 2, "%u pages, %u at once: %lu", pages, at_once,
		      (unsigned long)turns);
	if (large.busy)
		simcopy_cancel(&large);
	simcopy_wait(&world, &large);
	for (unsigned int i = 0; i < at_once; i++)
		simcopy_wait(&world, &smalls[i]);
	close_world();
}

Test(large_job, is_not_starved_by_small_ones, .timeout = 600)
{
	for (unsigned int i = 0; i < 3; i++) {
		endless_stream(page_counts[i], 1);
		endless_stream(page_counts[i], 10);
		endless_stream(page_counts[i], SMALLS);
	}
}

/* Ten of them share alike. */
Test(large_jobs, have_the_same_share, .timeout = 600)
{
	static struct simcopy larges[10];

	for (unsigned int n = 0; n < 3; n++) {
		uint64_t least = UINT64_MAX;
		uint64_t most = 0;

		open_world(page_counts[n]);
		memset(larges, 0, sizeof(larges));
		for (unsigned int i = 0; i < 10; i++) {
			uint64_t part = LARGE_SECTORS / 10 / 8 * 8;

			simcopy_from(&larges[i], &world, 0, LARGE_AT + i * part, part, 0);
			simcopy_to(&larges[i], &world, 1, LARGE_AT + i * part);
			simcopy_start(client, &larges[i]);
		}
		while (simcopy_progress(&larges[0]).position_sectors < 100 * slice_sectors)
			simcopy_poll(&world, 1, -1);
		for (unsigned int i = 0; i < 10; i++) {
			uint64_t slices =
				simcopy_progress(&larges[i]).position_sectors / slice_sectors;

			least = slices < least ? slices : least;
			most = slices > most ? slices : most;
			cr_assert_eq(simcopy_cancel(&larges[i]), 0);
		}
		cr_assert_leq(most - least, 2 * KCOPYD_SUBJOBS_MAX, "%u pages: %lu to %lu",
			      page_counts[n], (unsigned long)least, (unsigned long)most);
		for (unsigned int i = 0; i < 10; i++)
			simcopy_wait(&world, &larges[i]);
		close_world();
	}
}
