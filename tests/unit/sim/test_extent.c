/* SPDX-License-Identifier: MIT */
/* Where simulated disks are known to be zero (sim/extent.c). */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simworld.h"

#define SECTORS 256u

static struct simworld world;

static void open_world(void)
{
	simworld_open(&world, 1);
}

static void close_world(void)
{
	simworld_close(&world);
}

TestSuite(sim_extent, .init = open_world, .fini = close_world);

static struct dmcore_extent look(uint64_t sector, uint64_t count)
{
	struct dmcore_extent extent = { DMCORE_EXTENT_DATA, 0 };

	cr_assert_eq(dmcore_bdev_extent(world.bdevs[0], sector, count, &extent), 0, "%s",
		     dmcore_error_message());
	cr_assert_geq(extent.count, 1);
	cr_assert_leq(extent.count, count);
	return extent;
}

static void expect(uint64_t sector, uint64_t count, enum dmcore_extent_kind kind, uint64_t length)
{
	struct dmcore_extent extent = look(sector, count);

	cr_assert_eq(extent.kind, kind, "sector %lu", (unsigned long)sector);
	cr_assert_eq(extent.count, length, "sector %lu: %lu", (unsigned long)sector,
		     (unsigned long)extent.count);
}

/* Carries out a request; returns its status. */
static int run(enum dmcore_op op, uint64_t sector, uint64_t count, unsigned char byte)
{
	struct dmcore_bio *bio = simworld_submit(&world, 0, op, 0, sector, count, byte);
	int status = simworld_wait(&world, bio);

	dmcore_bio_put(bio);
	return status;
}

Test(sim_extent, what_was_never_written_is_zero)
{
	simworld_add_disk(&world, SECTORS);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, SECTORS);
	simworld_write(&world, 0, 8, 16, 1, 0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, 8);
	expect(8, SECTORS, DMCORE_EXTENT_DATA, 16);
	expect(9, 3, DMCORE_EXTENT_DATA, 3);
	expect(24, UINT64_MAX, DMCORE_EXTENT_ZERO, SECTORS - 24);
	/* Durable or not. */
	simworld_flush(&world, 0);
	expect(8, SECTORS, DMCORE_EXTENT_DATA, 16);
}

Test(sim_extent, written_zeroes_are_data)
{
	simworld_add_disk(&world, SECTORS);
	simworld_write(&world, 0, 8, 16, 0, 0);
	expect(8, SECTORS, DMCORE_EXTENT_DATA, 16);
}

Test(sim_extent, zeroing_and_discards_that_zero_make_holes)
{
	world.options.discard = DMCORE_SIM_DISCARD_ZEROES;
	simworld_add_disk(&world, SECTORS);
	simworld_write(&world, 0, 0, 64, 1, 0);
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 8, 8, 0), 0);
	expect(0, SECTORS, DMCORE_EXTENT_DATA, 8);
	expect(8, SECTORS, DMCORE_EXTENT_ZERO, 8);
	cr_assert_eq(run(DMCORE_OP_DISCARD, 16, 8, 0), 0);
	expect(8, SECTORS, DMCORE_EXTENT_ZERO, 16);
	expect(24, SECTORS, DMCORE_EXTENT_DATA, 40);
}

Test(sim_extent, other_discards_make_none)
{
	static const unsigned int kinds[] = { DMCORE_SIM_DISCARD_KEEPS, DMCORE_SIM_DISCARD_RANDOM };

	for (unsigned int i = 0; i < 2; i++) {
		struct dmcore_extent extent;

		world.options.discard = kinds[i];
		simworld_add_disk(&world, SECTORS);
		simworld_write(&world, i, 0, 64, 1, 0);
		cr_assert_eq(dmcore_discard(world.bdevs[i], (uint64_t)64 * DMCORE_SECTOR_BYTES, 0),
			     0);
		cr_assert_eq(dmcore_bdev_extent(world.bdevs[i], 0, SECTORS, &extent), 0);
		cr_assert_eq(extent.kind, DMCORE_EXTENT_DATA);
		cr_assert_eq(extent.count, 64);
	}
}

/* What is zeroed in part keeps what it had. */
Test(sim_extent, large_units_are_zero_as_a_whole_only)
{
	world.options.atomic_bytes = 4096;
	world.options.discard = DMCORE_SIM_DISCARD_ZEROES;
	simworld_add_disk(&world, SECTORS);
	simworld_write(&world, 0, 9, 2, 1, 0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, 8);
	expect(8, SECTORS, DMCORE_EXTENT_DATA, 8);
	simworld_write(&world, 0, 0, 64, 1, 0);
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 9, 22, 0), 0);
	expect(0, SECTORS, DMCORE_EXTENT_DATA, 16);
	expect(16, SECTORS, DMCORE_EXTENT_ZERO, 8);
	expect(24, SECTORS, DMCORE_EXTENT_DATA, 40);
}

Test(sim_extent, units_smaller_than_a_sector_make_it_data)
{
	world.options.atomic_bytes = 16;
	simworld_add_disk(&world, SECTORS);
	simworld_write(&world, 0, 3, 1, 1, 0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, 3);
	expect(3, SECTORS, DMCORE_EXTENT_DATA, 1);
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 3, 1, 0), 0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, SECTORS);
}

Test(sim_extent, a_write_is_seen_when_it_ends)
{
	struct dmcore_bio *bio;

	world.options.write_ns = 1000;
	simworld_add_disk(&world, SECTORS);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 8, 1);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, SECTORS);
	cr_assert_eq(simworld_wait(&world, bio), 0);
	expect(0, SECTORS, DMCORE_EXTENT_DATA, 8);
	dmcore_bio_put(bio);
}

Test(sim_extent, loaded_content_is_known)
{
	static unsigned char content[8 * DMCORE_SECTOR_BYTES];

	simworld_add_disk(&world, SECTORS);
	content[3 * DMCORE_SECTOR_BYTES + 5] = 1;
	content[5 * DMCORE_SECTOR_BYTES - 1] = 1;
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], content, sizeof(content), 0), 0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, 3);
	expect(3, SECTORS, DMCORE_EXTENT_DATA, 2);
	expect(5, SECTORS, DMCORE_EXTENT_ZERO, SECTORS - 5);
}

Test(sim_extent, large_disks_are_told_in_parts)
{
	struct dmcore_extent extent;
	uint64_t sectors = UINT64_C(1) << 20;
	uint64_t at = 0;

	simworld_add_disk(&world, sectors);
	simworld_write(&world, 0, sectors - 1, 1, 1, 0);
	do {
		extent = look(at, sectors);
		at += extent.count;
	} while (at < sectors && extent.kind == DMCORE_EXTENT_ZERO && at < sectors - 1);
	cr_assert_eq(at, sectors - 1);
	expect(at, 1, DMCORE_EXTENT_DATA, 1);
}

/* The disks can't be read then. */
Test(sim_extent, without_power_all_is_data)
{
	simworld_add_disk(&world, SECTORS);
	dmcore_sim_cut(world.sim);
	expect(0, SECTORS, DMCORE_EXTENT_DATA, SECTORS);
	dmcore_sim_power_on(world.sim);
}

/* Compares what is told with what the disk holds. */
static void check_disk(unsigned int pass)
{
	const unsigned char *data = dmcore_sim_disk_data(world.disks[0]);
	uint64_t at = 0;

	while (at < SECTORS) {
		struct dmcore_extent extent = look(at, SECTORS);
		uint64_t end = (at + extent.count) * DMCORE_SECTOR_BYTES;

		for (uint64_t b = at * DMCORE_SECTOR_BYTES;
		     extent.kind == DMCORE_EXTENT_ZERO && b < end; b++)
			cr_assert_eq(data[b], 0, "byte %lu, pass %u, seed %lu", (unsigned long)b,
				     pass, (unsigned long)rng_seed());
		at += extent.count;
	}
	cr_assert_eq(at, SECTORS);
}

/* Several at a time, which overlap, and a power cut now and then. */
Test(sim_extent, whatever_is_done_no_data_are_called_zero)
{
	struct rng rng;

	rng_start(&rng, 1);
	world.options.write_ns = 1000;
	world.options.spread_ns = 5000;
	world.options.atomic_bytes = rng_one_in(&rng, 2) ? 512 : 2048;
	world.options.discard = DMCORE_SIM_DISCARD_ZEROES;
	simworld_add_disk(&world, SECTORS);
	for (unsigned int i = 0; i < 300; i++) {
		struct dmcore_bio *bios[4];

		for (unsigned int k = 0; k < 4; k++) {
			static const enum dmcore_op ops[] = {
				DMCORE_OP_WRITE,
				DMCORE_OP_WRITE_ZEROES,
				DMCORE_OP_DISCARD,
				DMCORE_OP_FLUSH,
			};
			uint64_t count = rng_between(&rng, 1, 32);

			bios[k] = simworld_submit(&world, 0, ops[rng_below(&rng, 4)], 0,
						  rng_below(&rng, SECTORS - count), count, 7);
		}
		if (rng_one_in(&rng, 10))
			dmcore_sim_cut(world.sim);
		for (unsigned int k = 0; k < 4; k++) {
			simworld_wait(&world, bios[k]);
			dmcore_bio_put(bios[k]);
		}
		check_disk(i);
		dmcore_sim_power_on(world.sim);
		check_disk(i);
	}
}

/* Data that only the image or only the durable content has, in and behind the states. */
Test(sim_extent, crash_states_have_extents_of_their_own)
{
	static const struct dmcore_sim_states_options at_end = {
		.struct_size = sizeof(at_end),
		.cuts = DMCORE_SIM_CUTS_END,
	};
	struct dmcore_sim_states *states;
	unsigned int num_zero = 0;
	unsigned int num_data = 0;

	simworld_add_disk(&world, SECTORS);
	simworld_write(&world, 0, 0, 8, 1, 0);
	simworld_flush(&world, 0);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 0, 8, 0), 0);
	simworld_write(&world, 0, 16, 1, 1, 0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, 16);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		check_disk(num_zero + num_data);
		if (look(16, 1).kind == DMCORE_EXTENT_ZERO)
			num_zero++;
		else
			num_data++;
	}
	cr_assert_gt(num_zero, 0);
	cr_assert_gt(num_data, 0);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	check_disk(0);
	expect(0, SECTORS, DMCORE_EXTENT_ZERO, 16);
	expect(16, SECTORS, DMCORE_EXTENT_DATA, 1);
}
