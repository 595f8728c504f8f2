/* SPDX-License-Identifier: MIT */
/*
 * kcopyd over simulated disks that fail: every subset of four destinations, every slice of the
 * source, flushes, and what comes back wrong. All by rules of the disks.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/simcopy.h"

#define DESTS 4u
#define SLICE 8u
#define SLICES 12u
#define SECTORS (SLICES * SLICE)
#define ROOM (SECTORS + 16u)
#define AT 5u

static struct simworld world;
static struct kcopyd_client *client;
static struct simcopy copy;

static void open_world(uint64_t seed, unsigned int disk_flags)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;

	options.subjob_sectors = SLICE;
	simcopy_open(&world, seed);
	world.options.flags = disk_flags;
	world.options.read_ns = 20000;
	world.options.write_ns = 30000;
	world.options.flush_ns = 40000;
	world.options.spread_ns = 50000;
	for (unsigned int i = 0; i <= DESTS; i++) {
		simworld_add_disk(&world, ROOM);
		simcopy_load(&world, i, i);
	}
	cr_assert_eq(kcopyd_client_create_with(world.queue, 8, &options, &client), 0, "%s",
		     dmcore_error_message());
	memset(&copy, 0, sizeof(copy));
}

static void close_world(void)
{
	cr_assert_eq(simcopy_destroy(client), 0);
	simcopy_close(&world);
}

static void set_copy(uint64_t count, unsigned int flags)
{
	simcopy_from(&copy, &world, 0, 0, count, flags);
	for (unsigned int i = 1; i <= DESTS; i++)
		simcopy_to(&copy, &world, i, AT);
}

static void fail(unsigned int disk, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
		.ops = 1u << op,
		.sector = sector,
		.count = count,
	};

	cr_assert_eq(dmcore_sim_rule_add(world.disks[disk], &rule), 0);
}

static void fail_subset(unsigned int subset, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	for (unsigned int i = 0; i < DESTS; i++) {
		if (subset >> i & 1)
			fail(i + 1, op, sector, count);
	}
}

static bool is_copied(unsigned int dest, uint64_t sector, uint64_t count)
{
	return simcopy_same(&world, 0, sector, dest + 1, AT + sector, count);
}

static bool is_zeroed(unsigned int dest, uint64_t sector, uint64_t count)
{
	static const unsigned char zeroes[512];

	for (uint64_t i = 0; i < count; i++) {
		if (memcmp(simcopy_sector(&world, dest + 1, AT + sector + i), zeroes, 512) != 0)
			return false;
	}
	return true;
}

/* ---- destinations --------------------------------------------------------------------------- */

static const unsigned int kinds_of_flags[] = {
	0,
	KCOPYD_IGNORE_ERROR,
	KCOPYD_WRITE_SEQ,
	KCOPYD_FLUSH,
	KCOPYD_SPARSE,
	KCOPYD_VERIFY,
	KCOPYD_IGNORE_ERROR | KCOPYD_FLUSH | KCOPYD_SPARSE,
	KCOPYD_WRITE_SEQ | KCOPYD_FLUSH | KCOPYD_VERIFY,
};

#define KINDS_OF_FLAGS (sizeof(kinds_of_flags) / sizeof(kinds_of_flags[0]))

/* One slice: the good destinations have it whole. */
Test(destinations, that_fail_are_told_in_every_subset)
{
	for (unsigned int kind = 0; kind < KINDS_OF_FLAGS; kind++) {
		for (unsigned int subset = 0; subset < 1u << DESTS; subset++) {
			open_world(subset, 0);
			fail_subset(subset, DMCORE_OP_WRITE, 0, 0);
			set_copy(SLICE, kinds_of_flags[kind]);
			cr_assert_eq(simcopy_run(&world, client, &copy), subset ? -EIO : 0);
			cr_assert_eq(copy.job.write_err, subset, "%x: %x", subset,
				     copy.job.write_err);
			cr_assert_eq(copy.job.read_err, 0);
			for (unsigned int i = 0; i < DESTS; i++)
				cr_assert_eq(is_copied(i, 0, SLICE), !(subset >> i & 1),
					     "flags %x, %x: %u", kinds_of_flags[kind], subset, i);
			cr_assert_eq(simcopy_watch.num_reads >= 1, true);
			close_world();
		}
	}
}

/* Many slices, and all is done that can be. */
Test(destinations, that_fail_do_not_hold_up_the_others_where_errors_are_ignored)
{
	for (unsigned int subset = 1; subset < 1u << DESTS; subset++) {
		struct kcopyd_progress progress;

		open_world(subset, 0);
		fail_subset(subset, DMCORE_OP_WRITE, AT + SLICE, 1);
		set_copy(SECTORS, KCOPYD_IGNORE_ERROR);
		cr_assert_eq(simcopy_run(&world, client, &copy), -EIO);
		cr_assert_eq(copy.job.write_err, subset);
		cr_assert_eq(copy.job.read_err, 0);
		for (unsigned int i = 0; i < DESTS; i++) {
			cr_assert(is_copied(i, 0, SLICE));
			cr_assert_eq(is_copied(i, SLICE, SLICE), !(subset >> i & 1));
			cr_assert(is_copied(i, 2 * SLICE, SECTORS - 2 * SLICE));
		}
		progress = simcopy_progress(&copy);
		cr_assert_eq(progress.position_sectors, SECTORS);
		cr_assert_eq(progress.failed_sectors, SLICE);
		cr_assert_eq(progress.copied_sectors, SECTORS - SLICE);
		close_world();
	}
}

/* In whatever slice, and of whichever destination: nothing is begun after it. */
static void fail_one_slice(unsigned int slice, unsigned int dest, unsigned int flags)
{
	struct kcopyd_progress progress;
	uint64_t num_writes = UINT64_MAX;

	open_world(slice, 0);
	fail(dest + 1, DMCORE_OP_WRITE, AT + slice * SLICE, SLICE);
	set_copy(SECTORS, flags);
	simcopy_start(client, &copy);
	while (copy.busy) {
		simcopy_poll(&world, 1, -1);
		progress = simcopy_progress(&copy);
		if (progress.failed_sectors && num_writes == UINT64_MAX)
			num_writes = simcopy_watch.num_writes;
	}
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.write_err, 1u << dest);
	cr_assert_eq(simcopy_watch.num_writes, num_writes, "flags %x, slice %u", flags, slice);
	progress = simcopy_progress(&copy);
	cr_assert_eq(progress.position_sectors, slice * SLICE);
	for (unsigned int i = 0; i < DESTS; i++)
		cr_assert(is_copied(i, 0, slice * SLICE));
	cr_assert_not(is_copied(dest, slice * SLICE, SLICE));
	if (flags & KCOPYD_WRITE_SEQ) {
		for (unsigned int i = slice + 1; i < SLICES; i++)
			cr_assert_not(is_copied(0, i * SLICE, SLICE));
	}
	close_world();
}

Test(destinations, that_fail_end_a_job)
{
	for (unsigned int slice = 0; slice < SLICES; slice++) {
		for (unsigned int dest = 0; dest < DESTS; dest++) {
			fail_one_slice(slice, dest, KCOPYD_WRITE_SEQ);
			/* Takes the effect of the other away. */
			fail_one_slice(slice, dest, KCOPYD_WRITE_SEQ | KCOPYD_IGNORE_ERROR);
		}
	}
}

/* Where slices are written at the same time, those before the one that fails are there in the end,
 * unless they hadn't been begun. */
Test(destinations, that_fail_stop_new_slices)
{
	for (unsigned int slice = 0; slice < SLICES; slice++) {
		uint64_t position;

		open_world(slice, 0);
		fail(2, DMCORE_OP_WRITE, AT + slice * SLICE, SLICE);
		set_copy(SECTORS, 0);
		cr_assert_eq(simcopy_run(&world, client, &copy), -EIO);
		cr_assert_eq(copy.job.write_err, 2);
		position = simcopy_progress(&copy).position_sectors;
		cr_assert_leq(position, slice * SLICE);
		for (unsigned int i = 0; i < DESTS; i++)
			cr_assert(is_copied(i, 0, position));
		/* Up to 8 slices are under way. */
		for (unsigned int i = slice + KCOPYD_SUBJOBS_MAX + 1; i < SLICES; i++)
			cr_assert_not(is_copied(0, i * SLICE, SLICE));
		close_world();
	}
}

Test(destinations, whose_flush_fails_are_told_in_every_subset)
{
	for (unsigned int subset = 0; subset < 1u << DESTS; subset++) {
		open_world(subset, 0);
		fail_subset(subset, DMCORE_OP_FLUSH, 0, 0);
		set_copy(SECTORS, KCOPYD_FLUSH);
		cr_assert_eq(simcopy_run(&world, client, &copy), subset ? -EIO : 0);
		cr_assert_eq(copy.job.write_err, subset);
		cr_assert_eq(simcopy_watch.num_flushes, DESTS);
		for (unsigned int i = 0; i < DESTS; i++)
			cr_assert(is_copied(i, 0, SECTORS));
		close_world();
	}
}

Test(destinations, of_zeroes_that_fail_are_told_in_every_subset)
{
	static const unsigned int disk_flags[] = { 0, DMCORE_SIM_NO_WRITE_ZEROES };

	for (unsigned int kind = 0; kind < 2; kind++) {
		for (unsigned int subset = 0; subset < 1u << DESTS; subset++) {
			open_world(subset, disk_flags[kind]);
			fail_subset(subset, kind ? DMCORE_OP_WRITE : DMCORE_OP_WRITE_ZEROES, 0, 0);
			simcopy_from(&copy, &world, SIMCOPY_ZEROES, 0, SLICE, 0);
			for (unsigned int i = 1; i <= DESTS; i++)
				simcopy_to(&copy, &world, i, AT);
			cr_assert_eq(simcopy_run(&world, client, &copy), subset ? -EIO : 0);
			cr_assert_eq(copy.job.write_err, subset);
			cr_assert_eq(copy.job.read_err, 0);
			for (unsigned int i = 0; i < DESTS; i++)
				cr_assert_eq(is_zeroed(i, 0, SLICE), !(subset >> i & 1));
			close_world();
		}
	}
}

/* ---- the source ----------------------------------------------------------------------------- */

Test(source, that_fails_starts_no_write_any_more)
{
	for (unsigned int kind = 0; kind < 2; kind++) {
		for (unsigned int slice = 0; slice < SLICES; slice++) {
			uint64_t num_writes = UINT64_MAX;
			uint64_t position;

			open_world(slice, 0);
			fail(0, DMCORE_OP_READ, slice * SLICE, SLICE);
			set_copy(SECTORS, kind ? KCOPYD_WRITE_SEQ : 0);
			simcopy_start(client, &copy);
			while (copy.busy) {
				simcopy_poll(&world, 1, -1);
				if (simcopy_progress(&copy).failed_sectors &&
				    num_writes == UINT64_MAX)
					num_writes = simcopy_watch.num_writes;
			}
			cr_assert_eq(copy.job.status, -EIO);
			cr_assert_neq(copy.job.read_err, 0);
			cr_assert_eq(copy.job.write_err, 0);
			cr_assert_eq(simcopy_watch.num_writes, num_writes, "slice %u", slice);
			position = simcopy_progress(&copy).position_sectors;
			cr_assert_leq(position, slice * SLICE);
			for (unsigned int i = 0; i < DESTS; i++) {
				cr_assert(is_copied(i, 0, position));
				cr_assert_not(is_copied(i, slice * SLICE, SLICE));
				cr_assert_not(is_zeroed(i, slice * SLICE, SLICE));
			}
			close_world();
		}
	}
}

/* That slice is zeroes, everything else is there, and the error is told. */
Test(source, that_fails_becomes_zeroes_where_errors_are_ignored)
{
	for (unsigned int slice = 0; slice < SLICES; slice++) {
		struct kcopyd_progress progress;

		open_world(slice, 0);
		fail(0, DMCORE_OP_READ, slice * SLICE + 3, 1);
		set_copy(SECTORS, KCOPYD_IGNORE_ERROR);
		cr_assert_eq(simcopy_run(&world, client, &copy), -EIO);
		cr_assert_neq(copy.job.read_err, 0);
		cr_assert_eq(copy.job.write_err, 0);
		for (unsigned int i = 0; i < DESTS; i++) {
			cr_assert(is_copied(i, 0, slice * SLICE));
			cr_assert(is_zeroed(i, slice * SLICE, SLICE));
			cr_assert(is_copied(i, (slice + 1) * SLICE,
					    SECTORS - (slice + 1) * SLICE));
		}
		progress = simcopy_progress(&copy);
		cr_assert_eq(progress.position_sectors, SECTORS);
		cr_assert_eq(progress.failed_sectors, SLICE);
		close_world();
	}
}

Test(source, and_destinations_that_fail_are_both_told)
{
	for (unsigned int subset = 1; subset < 1u << DESTS; subset++) {
		open_world(subset, 0);
		fail(0, DMCORE_OP_READ, 2 * SLICE, 1);
		fail_subset(subset, DMCORE_OP_WRITE, AT + 5 * SLICE, 1);
		set_copy(SECTORS, KCOPYD_IGNORE_ERROR);
		cr_assert_eq(simcopy_run(&world, client, &copy), -EIO);
		cr_assert_neq(copy.job.read_err, 0);
		cr_assert_eq(copy.job.write_err, subset);
		for (unsigned int i = 0; i < DESTS; i++) {
			cr_assert(is_zeroed(i, 2 * SLICE, SLICE));
			cr_assert_eq(is_copied(i, 5 * SLICE, SLICE), !(subset >> i & 1));
			cr_assert(is_copied(i, 6 * SLICE, SECTORS - 6 * SLICE));
		}
		close_world();
	}
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void spoil(unsigned int disk, enum dmcore_sim_action action, enum dmcore_op op,
		  uint64_t sector)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = action,
		.ops = 1u << op,
		.sector = sector,
		.count = 1,
	};

	cr_assert_eq(dmcore_sim_rule_add(world.disks[disk], &rule), 0);
}

/* What a disk has lost, or bent, is found in every subset and slice. */
Test(comparison, finds_what_destinations_have_not_kept)
{
	static const enum dmcore_sim_action actions[] = { DMCORE_SIM_LOSE, DMCORE_SIM_CORRUPT };

	for (unsigned int subset = 1; subset < 1u << DESTS; subset++) {
		unsigned int slice = subset % SLICES;
		uint64_t mismatch;

		open_world(subset, 0);
		for (unsigned int i = 0; i < DESTS; i++) {
			if (subset >> i & 1)
				spoil(i + 1, actions[(subset + i) % 2], DMCORE_OP_WRITE,
				      AT + slice * SLICE + 2);
		}
		set_copy(SECTORS, KCOPYD_VERIFY | (subset % 2 ? KCOPYD_FLUSH : 0));
		cr_assert_eq(simcopy_run(&world, client, &copy), -EILSEQ);
		cr_assert_eq(copy.job.verify_err, subset);
		cr_assert_eq(copy.job.write_err, 0);
		cr_assert_eq(copy.job.read_err, 0);
		mismatch = simcopy_progress(&copy).mismatch_sectors;
		cr_assert_geq(mismatch, slice * SLICE);
		cr_assert_lt(mismatch, (slice + 1) * SLICE);
		for (unsigned int i = 0; i < DESTS; i++)
			cr_assert(is_copied(i, 0, mismatch));
		close_world();
	}
}

Test(comparison, tells_which_destinations_cannot_be_read)
{
	for (unsigned int subset = 1; subset < 1u << DESTS; subset++) {
		open_world(subset, 0);
		fail_subset(subset, DMCORE_OP_READ, AT + 3 * SLICE, 1);
		set_copy(SECTORS, KCOPYD_VERIFY);
		cr_assert_eq(simcopy_run(&world, client, &copy), -EIO);
		cr_assert_eq(copy.job.verify_err, subset);
		cr_assert_eq(copy.job.write_err, 0);
		for (unsigned int i = 0; i < DESTS; i++)
			cr_assert(is_copied(i, 0, SECTORS));
		close_world();
	}
}

Test(comparison, passes_what_is_right)
{
	open_world(1, 0);
	set_copy(SECTORS, KCOPYD_VERIFY);
	cr_assert_eq(simcopy_run(&world, client, &copy), 0);
	cr_assert_eq(copy.job.verify_err, 0);
	cr_assert_eq(simcopy_progress(&copy).verified_sectors, SECTORS);
	cr_assert_eq(simcopy_progress(&copy).mismatch_sectors, UINT64_MAX);
	close_world();
}

/* ---- waits without an end ------------------------------------------------------------------- */

/* A disk that never answers: who waits is told, and the client stays. */
Test(destroy, says_that_a_job_never_ends)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_HOLD,
		.ops = 1u << DMCORE_OP_WRITE,
	};

	open_world(1, 0);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[3], &rule), 0);
	set_copy(SECTORS, 0);
	simcopy_start(client, &copy);
	cr_assert_eq(simcopy_destroy(client), -EDEADLK);
	cr_assert(copy.busy);
	cr_assert_geq(world.num_stuck, 1);
	world.num_stuck = 0;
	dmcore_sim_rules_clear(world.disks[3]);
	cr_assert_gt(dmcore_sim_release(world.disks[3]), 0);
	cr_assert_eq(simcopy_wait(&world, &copy), 0);
	close_world();
}

Test(destroy, waits_for_jobs_and_their_callbacks)
{
	open_world(1, 0);
	set_copy(SECTORS, 0);
	simcopy_start(client, &copy);
	cr_assert_eq(simcopy_destroy(client), 0);
	cr_assert_eq(copy.num_ends, 1);
	cr_assert_eq(copy.job.status, 0);
	for (unsigned int i = 0; i < DESTS; i++)
		cr_assert(is_copied(i, 0, SECTORS));
	client = NULL;
	close_world();
}
