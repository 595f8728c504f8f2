/* SPDX-License-Identifier: MIT */
/* What a power cut may leave on simulated disks, and what not (sim/cache.c, sim/states.c). */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simworld.h"

static struct simworld world;

static void open_world(void)
{
	simworld_open(&world, 1);
}

static void close_world(void)
{
	simworld_close(&world);
}

TestSuite(states, .init = open_world, .fini = close_world);

/* What the first sectors of disk 0 hold in its states, as numbers in base 16. */
static bool seen[1 << 16];

static unsigned int byte_of(unsigned int disk, unsigned int sector)
{
	const unsigned char *data = dmcore_sim_disk_data(world.disks[disk]);

	return data[sector * 512];
}

/* Goes through all states; returns how many there were. */
static unsigned int collect(unsigned int num_sectors,
			    const struct dmcore_sim_states_options *options)
{
	struct dmcore_sim_states *states;
	unsigned int count = 0;

	memset(seen, 0, sizeof(seen));
	cr_assert_eq(dmcore_sim_states_open(world.sim, options, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		unsigned int number = 0;

		for (unsigned int i = 0; i < num_sectors; i++)
			number = number * 16 + byte_of(0, i);
		seen[number] = true;
		count++;
	}
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	return count;
}

static unsigned int num_seen(void)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < sizeof(seen); i++)
		count += seen[i];
	return count;
}

static const struct dmcore_sim_states_options at_end = {
	.struct_size = sizeof(at_end),
	.cuts = DMCORE_SIM_CUTS_END,
};

Test(states, write_without_a_flush_may_be_lost_or_there)
{
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 5, 0);
	cr_assert_eq(collect(1, &at_end), 2);
	cr_assert(seen[0] && seen[5]);
}

Test(states, flushed_write_is_always_there)
{
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 5, 0);
	simworld_flush(&world, 0);
	cr_assert_eq(collect(1, &at_end), 1);
	cr_assert(seen[5]);
}

Test(states, each_unit_is_there_or_not_by_itself)
{
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 3, 5, 0);
	cr_assert_eq(collect(3, &at_end), 8);
	cr_assert_eq(num_seen(), 8);
	cr_assert(seen[0x000] && seen[0x555] && seen[0x505] && seen[0x050]);
}

Test(states, fua_covers_its_own_write_and_no_other)
{
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 5, 0);
	simworld_write(&world, 0, 1, 1, 6, DMCORE_BIO_FUA);
	collect(2, &at_end);
	cr_assert_eq(num_seen(), 2);
	cr_assert(seen[0x06] && seen[0x56]);
}

Test(states, older_than_the_durable_one_never_comes_back)
{
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	simworld_write(&world, 0, 0, 1, 2, 0);
	simworld_flush(&world, 0);
	simworld_write(&world, 0, 0, 1, 3, 0);
	simworld_write(&world, 0, 0, 1, 4, 0);
	collect(1, &at_end);
	cr_assert_eq(num_seen(), 3);
	cr_assert(seen[2] && seen[3] && seen[4]);
}

/* The flush is submitted while the write is under way: it promises nothing about it. */
Test(states, flush_covers_only_what_had_completed_before_it_was_submitted)
{
	struct dmcore_bio *write;

	world.options.write_ns = 1000;
	world.options.flush_ns = 5000;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	write = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 7);
	simworld_flush(&world, 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 5000, "the write has completed by now");
	cr_assert_eq(simworld_wait(&world, write), 0);
	collect(1, &at_end);
	cr_assert(seen[0] && seen[7]);
	dmcore_bio_put(write);
}

Test(states, failed_flush_leaves_what_it_covered_uncovered_for_good)
{
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
		.ops = 1u << DMCORE_OP_FLUSH,
		.times = 1,
	};

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), 0);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 5, 0);
	cr_assert_eq(dmcore_flush(world.bdevs[0]), -EIO);
	simworld_flush(&world, 0);
	collect(1, &at_end);
	cr_assert(seen[0] && seen[5]);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 6, 0);
	simworld_flush(&world, 0);
	collect(1, &at_end);
	cr_assert_eq(num_seen(), 1, "written again, it is covered again");
	cr_assert(seen[6]);
}

Test(states, disks_have_caches_of_their_own)
{
	struct dmcore_sim_states *states;
	unsigned int mask = 0;

	simworld_add_disk(&world, 64);
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	simworld_write(&world, 1, 0, 1, 1, 0);
	simworld_flush(&world, 1);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &states), 0);
	while (dmcore_sim_states_next(states) == 1)
		mask |= 1u << (byte_of(0, 0) * 2 + byte_of(1, 0));
	cr_assert_eq(mask, 1u << 1 | 1u << 3);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, marks_tell_what_had_been_promised)
{
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	unsigned int num_early = 0;

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	for (unsigned int i = 1; i < 8; i++) {
		simworld_write(&world, 0, 0, 1, (unsigned char)i, 0);
		simworld_flush(&world, 0);
		cr_assert_eq(dmcore_sim_mark(world.sim, i), 0);
	}
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
		cr_assert_geq(byte_of(0, 0), state.mark);
		cr_assert_leq(byte_of(0, 0), state.mark + 1);
		cr_assert_eq(state.num_marks, state.mark);
		num_early += byte_of(0, 0) == state.mark;
	}
	cr_assert_eq(num_early, 8, "each, before the next write");
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, what_is_done_to_a_state_is_undone_by_the_next)
{
	struct dmcore_sim_states *states;
	unsigned int count = 0;

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 4, 1, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		for (unsigned int i = 0; i < 8; i++)
			cr_assert(byte_of(0, i) == 0 || (byte_of(0, i) == 1 && i < 4));
		simworld_write(&world, 0, 2, 5, 9, count % 2 ? DMCORE_BIO_FUA : 0);
		if (count % 3 == 0)
			simworld_flush(&world, 0);
		cr_assert_eq(byte_of(0, 6), 9);
		count++;
	}
	cr_assert_eq(count, 16);
	for (unsigned int i = 0; i < 8; i++)
		cr_assert_eq(byte_of(0, i), i < 4, "what was there before the states");
	cr_assert_eq(dmcore_sim_states_close(states), 0);
	simworld_flush(&world, 0);
}

Test(states, a_recovery_can_be_cut_in_turn)
{
	struct dmcore_sim_states *outer;
	struct dmcore_sim_states *inner;
	bool both[16][16] = { { false } };

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &outer), 0);
	while (dmcore_sim_states_next(outer) == 1) {
		unsigned int first = byte_of(0, 0);

		cr_assert_eq(dmcore_sim_record(world.sim), 0);
		simworld_write(&world, 0, 1, 1, 2, 0);
		cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &inner), 0);
		cr_assert_eq(dmcore_sim_states_next(outer), -EBUSY);
		while (dmcore_sim_states_next(inner) == 1) {
			cr_assert_eq(byte_of(0, 0), first);
			both[byte_of(0, 0)][byte_of(0, 1)] = true;
			simworld_write(&world, 0, 0, 3, 9, DMCORE_BIO_FUA);
		}
		cr_assert_eq(dmcore_sim_states_close(inner), 0);
	}
	cr_assert_eq(dmcore_sim_states_close(outer), 0);
	cr_assert(both[0][0] && both[0][2] && both[1][0] && both[1][2]);
}

Test(states, cut_with_too_many_is_sampled)
{
	struct dmcore_sim_states_options options = at_end;
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	bool none = false;
	bool all = false;
	unsigned int singles = 0;

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 40, 1, 0);
	options.states_per_cut = 300;
	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		unsigned int sum = 0;

		for (unsigned int i = 0; i < 40; i++)
			sum += byte_of(0, i);
		none |= sum == 0;
		all |= sum == 40;
		singles += sum == 1 || sum == 39;
		cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
	}
	cr_assert_eq(state.nr, 299);
	cr_assert_eq(state.num_uncertain, 40);
	cr_assert_not(state.all);
	cr_assert(none && all);
	cr_assert_geq(singles, 80);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, small_units_tear_within_a_sector)
{
	struct dmcore_sim_states *states;
	unsigned int torn = 0;

	world.options.atomic_bytes = 16;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		const unsigned char *data = dmcore_sim_disk_data(world.disks[0]);

		for (unsigned int i = 0; i < 512; i++)
			cr_assert_eq(data[i], data[i / 16 * 16], "a unit is whole");
		torn += data[0] != data[16];
	}
	cr_assert_gt(torn, 0);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, large_units_are_whole_even_if_parts_are_written)
{
	struct dmcore_sim_states *states;
	unsigned int count = 0;

	world.options.atomic_bytes = 4096;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	simworld_write(&world, 0, 1, 1, 2, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		cr_assert(byte_of(0, 1) == 0 || byte_of(0, 0) == 1, "the later has the earlier");
		count++;
	}
	cr_assert_eq(count, 3);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

/* What a write in flight leaves in the rest of its unit is what reads saw when the power went. */
Test(states, write_in_flight_to_a_part_of_a_unit_brings_nothing_from_later)
{
	const struct dmcore_sim_rule hold = { .struct_size = sizeof(hold),
					      .action = DMCORE_SIM_HOLD };
	struct dmcore_sim_states_options options = { .struct_size = sizeof(options),
						     .cuts = DMCORE_SIM_CUTS_EVENTS };
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	struct dmcore_bio *bio;
	unsigned int both = 0;

	world.options.atomic_bytes = 4096;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &hold), 0);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	dmcore_sim_rules_clear(world.disks[0]);
	cr_assert_eq(dmcore_sim_mark(world.sim, 1), 0);
	simworld_write(&world, 0, 1, 1, 2, DMCORE_BIO_FUA);
	cr_assert_eq(dmcore_sim_mark(world.sim, 2), 0);
	cr_assert_eq(dmcore_sim_release(world.disks[0]), 1);
	cr_assert_eq(simworld_wait(&world, bio), 0);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
		if (state.cut_nr <= 2)
			cr_assert_eq(byte_of(0, 1), 0, "it hasn't been written yet");
		if (state.mark == 2)
			cr_assert_eq(byte_of(0, 1), 2, "it is durable");
		both += state.mark == 2 && byte_of(0, 0) == 1;
		/* What the state's user does to the unit is undone by the next one. */
		simworld_write(&world, 0, 1, 1, 9, 0);
	}
	cr_assert_geq(both, 2);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, write_in_flight_may_leave_garbage)
{
	struct dmcore_sim_states_options options = { .struct_size = sizeof(options) };
	struct dmcore_sim_states *states;
	unsigned int garbage = 0;

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 2, 1, DMCORE_BIO_FUA);
	options.flags = DMCORE_SIM_GARBAGE;
	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0);
	while (dmcore_sim_states_next(states) == 1)
		garbage += byte_of(0, 0) > 1 || byte_of(0, 1) > 1;
	cr_assert_geq(garbage, 1);
	cr_assert_leq(garbage, 2);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, need_a_whole_history)
{
	struct dmcore_sim_states *states;

	world.options.cache_units = 16;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), -ENODATA);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 0, 8, 1, 0);
	simworld_write(&world, 0, 8, 8, 1, 0);
	simworld_write(&world, 0, 16, 8, 1, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), -ENOBUFS);
	cr_assert(strstr(dmcore_error_message(), "the history isn't whole"));
}

Test(states, need_a_quiet_world)
{
	struct dmcore_sim_states *states;
	struct dmcore_bio *bio;

	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), -EBUSY);
	simworld_wait(&world, bio);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_sim_states_open(world.sim, NULL, &states), 0);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(states, are_named_for_people)
{
	struct dmcore_sim_states *states;
	char text[128];

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	simworld_write(&world, 0, 8, 2, 1, 0);
	cr_assert_eq(dmcore_sim_states_open(world.sim, &at_end, &states), 0);
	cr_assert_eq(dmcore_sim_states_next(states), 1);
	cr_assert_eq(dmcore_sim_states_text(states, text, sizeof(text)), (int)strlen(text));
	cr_assert_str_eq(text, "cut after event 2: d0: 8 old, d0: 9 old");
	cr_assert_eq(dmcore_sim_states_next(states), 1);
	dmcore_sim_states_text(states, text, sizeof(text));
	cr_assert_str_eq(text, "cut after event 2: d0: 8 of 1, d0: 9 old");
	cr_assert_gt(dmcore_sim_states_text(states, text, 10), 10);
	cr_assert_str_eq(text, "cut after");
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}
