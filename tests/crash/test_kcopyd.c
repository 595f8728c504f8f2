/* SPDX-License-Identifier: MIT */
/*
 * What kcopyd says is durable is there whatever a power cut leaves, and a copy that is continued
 * from a position it has told becomes an equal one: in every state of every cut.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   2,000 random copies
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/kcopyd.h>

#include "support/rng.h"
#include "support/simcopy.h"

#define DESTS_MAX 4u
#define SECTORS_MAX 64u
/* A slice of a client with one page. */
#define SLICE 8u
#define ROOM (SECTORS_MAX + 16u)

/* A copy, or zeroes, and how its end is made durable. */
struct scene {
	unsigned int num_dests;
	uint64_t count;
	unsigned int flags;
	bool is_zero;
	bool flushes_itself;     /* the test does, one destination after the other */
	unsigned int pages;
	unsigned int disk_flags;
	unsigned int lying_dest; /* plus 1 */
	uint32_t atomic_bytes;
	uint64_t spread_ns;
	uint64_t dest_sector;
	bool claims_at_once;     /* what it must not */
};

static struct simworld world;
static struct kcopyd_client *client;
static struct simcopy copy;
static const struct scene *scene;
static unsigned char want[SECTORS_MAX * 512];
static unsigned char old[DESTS_MAX][ROOM * 512];
static uint64_t num_states;
static uint64_t num_broken;
static char broken[200];

/* ---- worlds --------------------------------------------------------------------------------- */

/* What a sparse copy has to do with: some blocks of zeroes. */
static void punch_holes(void)
{
	static const unsigned char zeroes[SLICE * 512];

	for (uint64_t at = 0; at + SLICE <= scene->count; at += 2 * SLICE)
		cr_assert_eq(dmcore_sim_disk_load(world.disks[0], zeroes, sizeof(zeroes),
						  at * 512), 0);
}

static void add_disk(unsigned int i)
{
	bool lies = scene->lying_dest && scene->lying_dest == i;

	world.options.flags = scene->disk_flags | (lies ? DMCORE_SIM_LIES : 0);
	world.options.atomic_bytes = scene->atomic_bytes;
	world.options.read_ns = 20000;
	world.options.write_ns = 50000;
	world.options.flush_ns = 70000;
	world.options.spread_ns = scene->spread_ns;
	simworld_add_disk(&world, ROOM);
	if (i == 0 || !(scene->flags & KCOPYD_DESTS_ZEROED))
		simcopy_load(&world, i, i);
}

static void open_scene(const struct scene *what, uint64_t seed)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;

	scene = what;
	options.subjob_sectors = SLICE;
	num_states = 0;
	num_broken = 0;
	simcopy_open(&world, seed);
	for (unsigned int i = 0; i <= scene->num_dests; i++)
		add_disk(i);
	if (scene->flags & KCOPYD_SPARSE)
		punch_holes();
	memset(want, 0, sizeof(want));
	if (!scene->is_zero)
		memcpy(want, simcopy_sector(&world, 0, 0), scene->count * 512);
	for (unsigned int i = 0; i < scene->num_dests; i++)
		memcpy(old[i], simcopy_sector(&world, i + 1, 0), sizeof(old[i]));
	cr_assert_eq(kcopyd_client_create_with(world.queue, scene->pages, &options, &client), 0,
		     "%s", dmcore_error_message());
	memset(&copy, 0, sizeof(copy));
	simcopy_from(&copy, &world, scene->is_zero ? SIMCOPY_ZEROES : 0, 0, scene->count,
		     scene->flags);
	for (unsigned int i = 0; i < scene->num_dests; i++)
		simcopy_to(&copy, &world, i + 1, scene->dest_sector);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
}

static void close_scene(void)
{
	cr_assert_eq(simcopy_destroy(client), 0);
	simcopy_close(&world);
}

/* ---- states --------------------------------------------------------------------------------- */

static const unsigned char *dest_sector(unsigned int dest, uint64_t i)
{
	return simcopy_sector(&world, dest + 1, scene->dest_sector + i);
}

static const unsigned char *old_sector(unsigned int dest, uint64_t i)
{
	return old[dest] + (scene->dest_sector + i) * 512;
}

static bool is_new(unsigned int dest, uint64_t i)
{
	return memcmp(dest_sector(dest, i), want + i * 512, 512) == 0;
}

/* Unit by unit, of which a sector may have several. */
static bool is_old_or_new(unsigned int dest, uint64_t i)
{
	const unsigned char *is = dest_sector(dest, i);
	const unsigned char *was = old_sector(dest, i);
	uint32_t unit = scene->atomic_bytes < 512 ? scene->atomic_bytes : 512;

	for (uint32_t at = 0; at < 512; at += unit) {
		if (memcmp(is + at, want + i * 512 + at, unit) != 0 &&
		    memcmp(is + at, was + at, unit) != 0)
			return false;
	}
	return true;
}

static void note_broken(const struct dmcore_sim_states *states, unsigned int dest, uint64_t sector)
{
	int length;

	if (num_broken++)
		return;
	length = snprintf(broken, sizeof(broken), "destination %u, sector %u: ", dest,
			  (unsigned int)sector);
	dmcore_sim_states_text(states, broken + length, sizeof(broken) - (size_t)length);
}

typedef void (*check_fn)(const struct dmcore_sim_states *states, uint64_t mark);

/* All that is promised is there; the rest is what it was, or what it is to become. */
static void check_promised(const struct dmcore_sim_states *states, uint64_t mark)
{
	for (unsigned int dest = 0; dest < scene->num_dests; dest++) {
		for (uint64_t i = 0; i < scene->count; i++) {
			if (is_new(dest, i) || (!(mark >> dest & 1) && is_old_or_new(dest, i)))
				continue;
			note_broken(states, dest, i);
		}
		/* Around it nothing has changed. */
		cr_assert_eq(memcmp(simcopy_sector(&world, dest + 1, 0), old[dest],
				    scene->dest_sector * 512), 0);
		cr_assert_eq(memcmp(dest_sector(dest, scene->count), old_sector(dest, scene->count),
				    512), 0);
	}
}

static void check_states(enum dmcore_sim_cuts cuts, uint32_t per_cut, check_fn check)
{
	struct dmcore_sim_states_options options = {
		.struct_size = sizeof(options),
		.cuts = cuts,
		.states_per_cut = per_cut,
	};
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	int ret;

	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0, "%s",
		     dmcore_error_message());
	while ((ret = dmcore_sim_states_next(states)) > 0) {
		cr_assert_eq(dmcore_sim_states_info(states, &state), 0);
		cr_assert(state.all || per_cut < 1000, "%u units are too many",
			  (unsigned int)state.num_uncertain);
		check(states, state.mark);
		num_states++;
	}
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

/* ---- what is told to be durable ------------------------------------------------------------- */

static void promise_all(struct simcopy *ended)
{
	if (ended->job.status == 0)
		cr_assert_eq(dmcore_sim_mark(world.sim, (1u << scene->num_dests) - 1), 0);
}

static void run_scene(void)
{
	uint64_t mark = 0;

	if (scene->flags & KCOPYD_FLUSH || scene->claims_at_once)
		copy.ended = promise_all;
	cr_assert_eq(simcopy_run(&world, client, &copy), 0);
	for (unsigned int i = 0; scene->flushes_itself && i < scene->num_dests; i++) {
		simworld_flush(&world, i + 1);
		mark |= UINT64_C(1) << i;
		cr_assert_eq(dmcore_sim_mark(world.sim, mark), 0);
	}
}

static void show(const struct scene *what, uint64_t seed, enum dmcore_sim_cuts cuts,
		 uint32_t per_cut)
{
	open_scene(what, seed);
	run_scene();
	check_states(cuts, per_cut, check_promised);
	close_scene();
}

static void expect_kept(const char *what)
{
	cr_assert_eq(num_broken, 0,
		     "%s: seed %lu: %u destinations, %u sectors, flags %x, disks %x, atomic %u: "
		     "%lu broken promises, the first: %s",
		     what, (unsigned long)rng_seed(), scene->num_dests, (unsigned int)scene->count,
		     scene->flags, scene->disk_flags, scene->atomic_bytes,
		     (unsigned long)num_broken, broken);
	cr_assert_gt(num_states, 0);
}

static const unsigned int disk_kinds[] = {
	0,
	DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_DISCARD | DMCORE_SIM_NO_WRITE_ZEROES,
	DMCORE_SIM_NO_CACHE,
};

/* Units of a slice, or of a sector; as many as can all be shown. */
static void in_both_units(struct scene *what)
{
	static unsigned int kind;
	enum dmcore_sim_cuts cuts = rng_brief() ? DMCORE_SIM_CUTS_EPOCHS : DMCORE_SIM_CUTS_EVENTS;
	static const uint64_t slices[] = { 5, 3, 2, 2 };

	for (unsigned int i = 0; i < 2; i++) {
		bool is_small = i == 0 && !(what->flags & KCOPYD_SPARSE);

		what->disk_flags = disk_kinds[kind++ % 3];
		what->atomic_bytes = is_small ? 512 : 4096;
		what->count = is_small ? 8 / what->num_dests : SLICE * slices[what->num_dests - 1];
		what->dest_sector = is_small ? 3 : SLICE;
		what->pages = what->flags & KCOPYD_VERIFY ? 4 : 2;
		what->spread_ns = 100000;
		show(what, kind, cuts, 1u << 12);
		expect_kept(what->flushes_itself ? "flushed later" : "flushed by the job");
	}
}

static const unsigned int kinds_of_flags[] = {
	0, KCOPYD_IGNORE_ERROR, KCOPYD_WRITE_SEQ, KCOPYD_VERIFY, KCOPYD_SPARSE,
	KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED, KCOPYD_SPARSE | KCOPYD_WRITE_SEQ | KCOPYD_VERIFY,
};

#define KINDS_OF_FLAGS (sizeof(kinds_of_flags) / sizeof(kinds_of_flags[0]))

Test(copies, that_flush_are_in_every_state, .timeout = 600)
{
	for (unsigned int dests = 1; dests <= DESTS_MAX; dests++) {
		for (unsigned int i = 0; i < KINDS_OF_FLAGS; i++) {
			struct scene what = {
				.num_dests = dests,
				.flags = kinds_of_flags[i] | KCOPYD_FLUSH,
			};

			in_both_units(&what);
		}
	}
}

Test(copies, flushed_later_are_in_every_state_from_then_on, .timeout = 600)
{
	for (unsigned int dests = 1; dests <= DESTS_MAX; dests++) {
		for (unsigned int i = 0; i < KINDS_OF_FLAGS; i++) {
			struct scene what = {
				.num_dests = dests,
				.flags = kinds_of_flags[i],
				.flushes_itself = true,
			};

			in_both_units(&what);
		}
	}
}

Test(copies, of_zeroes_are_in_every_state, .timeout = 600)
{
	for (unsigned int dests = 1; dests <= DESTS_MAX; dests++) {
		for (unsigned int i = 0; i < 4; i++) {
			struct scene what = {
				.num_dests = dests,
				.flags = (i & 1 ? KCOPYD_FLUSH : 0) |
					 (i & 2 ? KCOPYD_WRITE_SEQ : 0),
				.is_zero = true,
				.flushes_itself = !(i & 1),
			};

			in_both_units(&what);
		}
	}
}

/* The judges are judged: without a flush, and with one that does nothing. */
Test(copies, without_a_flush_are_lost_in_some_state, .timeout = 600)
{
	for (unsigned int dests = 1; dests <= DESTS_MAX; dests++) {
		for (unsigned int i = 0; i < 2; i++) {
			struct scene what = {
				.num_dests = dests,
				.count = 2,
				.pages = 1,
				.atomic_bytes = 512,
				.is_zero = i,
				.claims_at_once = true,
			};

			show(&what, dests, DMCORE_SIM_CUTS_EPOCHS, 1u << 12);
			cr_assert_gt(num_broken, 0, "%u", dests);
		}
	}
}

Test(copies, to_one_disk_that_lies_are_lost_in_some_state, .timeout = 600)
{
	for (unsigned int dests = 1; dests <= DESTS_MAX; dests++) {
		for (unsigned int lying = 1; lying <= dests; lying++) {
			struct scene what = {
				.num_dests = dests,
				.count = 2,
				.pages = 1,
				.flags = KCOPYD_FLUSH,
				.atomic_bytes = 512,
				.lying_dest = lying,
			};

			show(&what, lying, DMCORE_SIM_CUTS_EPOCHS, 1u << 12);
			cr_assert_gt(num_broken, 0, "%u of %u", lying, dests);
		}
	}
}

/* Of 4 destinations each set: those whose flush has failed are told, the others are durable. */
Test(copies, whose_flush_fails_tell_which, .timeout = 600)
{
	const struct scene what = {
		.num_dests = 4,
		.count = 2,
		.pages = 1,
		.flags = KCOPYD_FLUSH,
		.atomic_bytes = 512,
	};
	const struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
		.ops = 1u << DMCORE_OP_FLUSH,
	};

	for (unsigned int failing = 1; failing < 16; failing++) {
		open_scene(&what, failing);
		for (unsigned int i = 0; i < 4; i++) {
			if (failing >> i & 1)
				cr_assert_eq(dmcore_sim_rule_add(world.disks[i + 1], &rule), 0);
		}
		cr_assert_eq(simcopy_run(&world, client, &copy), -EIO);
		cr_assert_eq(copy.job.write_err, failing);
		cr_assert_eq(copy.job.read_err, 0);
		cr_assert_eq(dmcore_sim_mark(world.sim, ~failing & 15), 0);
		check_states(DMCORE_SIM_CUTS_EPOCHS, 1u << 12, check_promised);
		expect_kept("failing flushes");
		close_scene();
	}
}

static struct scene random_scene(struct rng *rng)
{
	static const uint32_t units[] = { 64, 512, 512, 4096 };
	struct scene what = {
		.num_dests = 1 + (unsigned int)rng_below(rng, DESTS_MAX),
		.count = 1 + rng_below(rng, SECTORS_MAX),
		.flags = kinds_of_flags[rng_below(rng, KINDS_OF_FLAGS)],
		.is_zero = rng_one_in(rng, 6),
		.pages = 2 + (unsigned int)rng_below(rng, 20),
		.disk_flags = disk_kinds[rng_below(rng, 3)],
		.atomic_bytes = units[rng_below(rng, 4)],
		.spread_ns = rng_below(rng, 200000),
		.dest_sector = rng_below(rng, SLICE),
	};

	if (what.is_zero)
		what.flags &= ~(KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED);
	if (rng_one_in(rng, 2))
		what.flags |= KCOPYD_FLUSH;
	else
		what.flushes_itself = true;
	return what;
}

/* Neighbours of a copy's ends that share a unit with it keep what they hold, too. */
Test(copies, of_all_kinds_keep_what_they_promise, .timeout = 36000)
{
	unsigned int count = rng_full() ? 2000 : rng_brief() ? 10 : 100;
	struct rng rng;

	rng_start(&rng, 5);
	for (unsigned int i = 0; i < count; i++) {
		const struct scene what = random_scene(&rng);

		show(&what, i, DMCORE_SIM_CUTS_EPOCHS, 48);
		expect_kept("at random");
	}
}

/* ---- going on from a position --------------------------------------------------------------- */

/* Copies the rest, and compares all. */
static void go_on(const struct dmcore_sim_states *states, uint64_t position)
{
	struct simcopy rest = { .num_ends = 0 };

	for (unsigned int dest = 0; dest < scene->num_dests; dest++) {
		for (uint64_t i = 0; i < position; i++) {
			if (!is_new(dest, i))
				note_broken(states, dest, i);
		}
	}
	simcopy_from(&rest, &world, 0, position, scene->count - position,
		     scene->flags & ~KCOPYD_DESTS_ZEROED);
	for (unsigned int dest = 0; dest < scene->num_dests; dest++)
		simcopy_to(&rest, &world, dest + 1, scene->dest_sector + position);
	cr_assert_eq(simcopy_run(&world, client, &rest), 0);
	for (unsigned int dest = 0; dest < scene->num_dests; dest++) {
		for (uint64_t i = 0; i < scene->count; i++) {
			if (!is_new(dest, i))
				note_broken(states, dest, i);
		}
	}
}

/* The position, and when all flushes that were submitted after it have ended, a mark. */
static void mark_position(void)
{
	uint64_t position = simcopy_progress(&copy).position_sectors;
	struct dmcore_bio *flushes[DESTS_MAX];

	for (unsigned int i = 0; i < scene->num_dests; i++)
		flushes[i] = simworld_submit(&world, i + 1, DMCORE_OP_FLUSH, 0, 0, 0, 0);
	for (unsigned int i = 0; i < scene->num_dests; i++) {
		while (!simworld_ended(flushes[i]))
			simcopy_poll(&world, 1, -1);
		cr_assert_eq(flushes[i]->status, 0);
		dmcore_bio_put(flushes[i]);
	}
	cr_assert_eq(dmcore_sim_mark(world.sim, position), 0);
}

static struct scene long_scene(unsigned int dests, unsigned int flags)
{
	return (struct scene){
		.num_dests = dests,
		.count = (dests == 1 ? 8u : 5u) * SLICE,
		.flags = flags,
		.pages = flags & KCOPYD_VERIFY ? 8 : 4,
		.atomic_bytes = 4096,
		.spread_ns = 300000,
		.dest_sector = SLICE,
	};
}

Test(positions, told_before_a_flush_are_good_to_go_on_from, .timeout = 600)
{
	unsigned int num_inner = 0;

	for (unsigned int i = 0; i < (rng_brief() ? 1u : 3u) * 2 * KINDS_OF_FLAGS; i++) {
		const struct scene what =
			long_scene(1 + i % 2, kinds_of_flags[i / 2 % KINDS_OF_FLAGS]);

		open_scene(&what, i);
		simcopy_start(client, &copy);
		while (copy.busy) {
			uint64_t position = simcopy_progress(&copy).position_sectors;

			num_inner += position > 0 && position < what.count;
			mark_position();
		}
		mark_position();
		cr_assert_eq(copy.job.status, 0);
		check_states(DMCORE_SIM_CUTS_EPOCHS, 1u << 10, go_on);
		expect_kept("positions");
		close_scene();
	}
	cr_assert_gt(num_inner, 10);
}

/* After a job that has been cancelled, or has failed. */
Test(positions, of_ended_jobs_are_good_to_go_on_from, .timeout = 600)
{
	struct dmcore_sim_rule rule = {
		.struct_size = sizeof(rule),
		.action = DMCORE_SIM_FAIL,
		.status = -EIO,
		.times = 1,
	};
	unsigned int num_inner = 0;

	for (unsigned int i = 0; i < (rng_brief() ? 12u : 48u); i++) {
		const struct scene what =
			long_scene(1 + i / 3 % 2, i / 6 % 2 ? KCOPYD_WRITE_SEQ : 0);

		open_scene(&what, i);
		rule.skip = 1 + i / 3 % 4;
		rule.ops = i % 3 == 1 ? 1u << DMCORE_OP_READ : 1u << DMCORE_OP_WRITE;
		if (i % 3)
			cr_assert_eq(dmcore_sim_rule_add(world.disks[i % 3 - 1], &rule), 0);
		simcopy_start(client, &copy);
		for (unsigned int polls = 0; i % 3 == 0 && copy.busy && polls < 4 + i / 3; polls++)
			simcopy_poll(&world, 1, -1);
		if (i % 3 == 0 && copy.busy)
			simcopy_cancel(&copy);
		simcopy_wait(&world, &copy);
		if (i % 3)
			cr_assert_eq(copy.job.status, -EIO);
		dmcore_sim_rules_clear(world.disks[0]);
		dmcore_sim_rules_clear(world.disks[1]);
		mark_position();
		num_inner += simcopy_progress(&copy).position_sectors > 0;
		check_states(DMCORE_SIM_CUTS_EPOCHS, 1u << 10, go_on);
		expect_kept("positions of ended jobs");
		close_scene();
	}
	cr_assert_gt(num_inner, 4);
}

/* ---- in order ------------------------------------------------------------------------------- */

static uint64_t num_unordered;

/* On a disk without a cache what is there is as long as what has been written. */
static void check_order(const struct dmcore_sim_states *states, uint64_t mark)
{
	(void)mark;
	for (unsigned int dest = 0; dest < scene->num_dests; dest++) {
		bool ends = false;

		for (uint64_t i = 0; i < scene->count; i += SLICE) {
			if (!is_new(dest, i))
				ends = true;
			else
				num_unordered += ends;
		}
		if (scene->flags & KCOPYD_WRITE_SEQ && num_unordered)
			note_broken(states, dest, 0);
	}
}

Test(sequential_copies, leave_no_gap_in_any_state, .timeout = 600)
{
	for (unsigned int dests = 1; dests <= 2; dests++) {
		for (unsigned int seq = 0; seq < 2; seq++) {
			struct scene what = long_scene(dests, seq ? KCOPYD_WRITE_SEQ : 0);

			what.pages = 8;
			what.disk_flags = DMCORE_SIM_NO_CACHE;
			open_scene(&what, dests);
			num_unordered = 0;
			cr_assert_eq(simcopy_run(&world, client, &copy), 0);
			check_states(DMCORE_SIM_CUTS_EVENTS, 1u << 12, check_order);
			if (seq)
				expect_kept("in order");
			else
				cr_assert_gt(num_unordered, 0);
			close_scene();
		}
	}
}
