/* SPDX-License-Identifier: MIT */
/*
 * Random requests to a simulated disk, several at once and some of them failing, against a model
 * that knows by sim.h alone what each unit may hold after a cut: each state of a recorded run holds
 * that and nothing else, together they hold all of it, and so does a disk whose cache is small.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simworld.h"

#define SECTORS 4u
#define AT_ONCE 4u
#define OPS 14u
#define RUNS 60u
#define RUNS_FULL 20000u
#define STATES_PER_CUT 8192u
#define NEVER UINT64_MAX

/* A write, or a flush with a count of 0. Its byte on the disk is its index plus 1. */
struct request {
	struct dmcore_bio *bio; /* NULL: it has ended */
	uint64_t submit_nr;
	uint64_t end_nr;
	uint64_t durable_nr;
	unsigned int sector;
	unsigned int count;
	bool fua;
	bool lost_cover;
};

static struct simworld world;
static struct request requests[OPS];
static unsigned int num_requests;
static unsigned int num_under_way;

/* ---- the model ---- */

static bool covers(const struct request *request, unsigned int sector)
{
	return sector - request->sector < request->count;
}

/* Whether a cut after this event may leave a byte in a sector. */
static bool may_hold(unsigned int sector, unsigned int byte, uint64_t cut_nr)
{
	const struct request *write = byte ? &requests[byte - 1] : NULL;

	if (byte > num_requests || (write && (!covers(write, sector) || write->submit_nr > cut_nr)))
		return false;
	for (unsigned int i = 0; i < num_requests; i++) {
		const struct request *durable = &requests[i];

		if (covers(durable, sector) && durable->durable_nr <= cut_nr &&
		    (!write || write->end_nr < durable->end_nr))
			return false;
	}
	return true;
}

static void end_flush(const struct request *flush, int status, uint64_t nr)
{
	for (unsigned int i = 0; i < num_requests; i++) {
		struct request *write = &requests[i];

		if (!write->count || write->end_nr >= flush->submit_nr || write->lost_cover)
			continue;
		if (status)
			write->lost_cover = write->durable_nr == NEVER;
		else if (write->durable_nr == NEVER)
			write->durable_nr = nr;
	}
}

static void end_request(struct request *request, int status)
{
	uint64_t nr = dmcore_sim_num_events(world.sim);

	request->bio = NULL;
	request->end_nr = nr;
	if (request->count == 0) {
		end_flush(request, status, nr);
		return;
	}
	/* Beyond the cache it isn't carried out. */
	if (status == -ENOMEM)
		request->count = 0;
	request->lost_cover = status != 0;
	if (request->fua && !status)
		request->durable_nr = nr;
}

/* Reads see the write that has ended last. */
static void check_reads(void)
{
	const unsigned char *data = dmcore_sim_disk_data(world.disks[0]);

	for (unsigned int sector = 0; sector < SECTORS; sector++) {
		unsigned int newest = 0;
		uint64_t newest_nr = 0;

		for (unsigned int i = 0; i < num_requests; i++) {
			const struct request *write = &requests[i];

			if (covers(write, sector) && !write->bio && write->end_nr > newest_nr) {
				newest = i + 1;
				newest_nr = write->end_nr;
			}
		}
		cr_assert_eq(data[sector * 512], newest, "sector %u", sector);
	}
}

/* ---- runs ---- */

static void submit(struct rng *rng)
{
	struct request *request = &requests[num_requests++];
	bool flushes = rng_one_in(rng, 4);

	memset(request, 0, sizeof(*request));
	request->end_nr = NEVER;
	request->durable_nr = NEVER;
	if (!flushes) {
		request->sector = (unsigned int)rng_below(rng, SECTORS);
		request->count = (unsigned int)rng_between(rng, 1, SECTORS - request->sector);
		request->fua = rng_one_in(rng, 4);
	}
	request->bio = simworld_submit(&world, 0, flushes ? DMCORE_OP_FLUSH : DMCORE_OP_WRITE,
				       request->fua ? DMCORE_BIO_FUA : 0, request->sector,
				       request->count, (unsigned char)num_requests);
	request->submit_nr = dmcore_sim_num_events(world.sim);
	num_under_way++;
}

static void step(void)
{
	cr_assert(dmcore_sim_step(world.sim));
	cr_assert_eq(dmcore_queue_poll(world.queue, 0, 1, 0), 1);
	for (unsigned int i = 0; i < num_requests; i++) {
		struct dmcore_bio *bio = requests[i].bio;

		if (bio && simworld_ended(bio)) {
			end_request(&requests[i], bio->status);
			dmcore_bio_put(bio);
		}
	}
	num_under_way--;
	check_reads();
}

static void add_faults(void)
{
	const struct dmcore_sim_rule write = { .struct_size = sizeof(write),
					       .action = DMCORE_SIM_FAIL_DONE,
					       .status = -EIO,
					       .ops = 1u << DMCORE_OP_WRITE,
					       .per_million = 100000 };
	const struct dmcore_sim_rule flush = { .struct_size = sizeof(flush),
					       .action = DMCORE_SIM_FAIL,
					       .status = -EIO,
					       .ops = 1u << DMCORE_OP_FLUSH,
					       .per_million = 200000 };

	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &write), 0);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &flush), 0);
}

/* Makes a world, and carries out a random program up to some moment. */
static void run(struct rng *rng, uint64_t cache_units, bool records)
{
	num_requests = 0;
	num_under_way = 0;
	simworld_open(&world, rng_next(rng));
	world.options.cache_units = cache_units;
	world.options.write_ns = 500;
	world.options.flush_ns = 500;
	world.options.spread_ns = 2000;
	simworld_add_disk(&world, SECTORS);
	add_faults();
	if (records)
		cr_assert_eq(dmcore_sim_record(world.sim), 0);
	while (num_requests < OPS) {
		if (num_under_way < AT_ONCE && !rng_one_in(rng, 3))
			submit(rng);
		else if (num_under_way)
			step();
	}
}

/* ---- what a cut leaves ---- */

static bool seen[SECTORS][OPS + 1];

/* All states of a cut have been shown. */
static void check_cut(const struct dmcore_sim_state *state, uint64_t num_states, unsigned int nth)
{
	uint64_t expected = 1;

	for (unsigned int sector = 0; sector < SECTORS; sector++) {
		unsigned int count = 0;

		for (unsigned int byte = 0; byte <= num_requests; byte++) {
			bool may = may_hold(sector, byte, state->cut_nr);

			count += may;
			cr_assert(!state->all || seen[sector][byte] == may,
				  "run %u, cut %u: sector %u, byte %u", nth,
				  (unsigned int)state->cut_nr, sector, byte);
		}
		expected *= count;
	}
	cr_assert(!state->all || num_states == expected, "run %u, cut %u: %u of %u states", nth,
		  (unsigned int)state->cut_nr, (unsigned int)num_states, (unsigned int)expected);
	memset(seen, 0, sizeof(seen));
}

static void check_sectors(uint64_t cut_nr, unsigned int nth)
{
	const unsigned char *data = dmcore_sim_disk_data(world.disks[0]);

	for (unsigned int sector = 0; sector < SECTORS; sector++) {
		unsigned int byte = data[sector * 512];

		cr_assert(may_hold(sector, byte, cut_nr), "run %u, cut %u: sector %u holds %u", nth,
			  (unsigned int)cut_nr, sector, byte);
		seen[sector][byte] = true;
	}
}

static void check_states(unsigned int nth)
{
	struct dmcore_sim_states_options options = { .struct_size = sizeof(options),
						     .cuts = DMCORE_SIM_CUTS_EVENTS,
						     .states_per_cut = STATES_PER_CUT };
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_state next = { .struct_size = sizeof(next) };
	struct dmcore_sim_states *states;
	uint64_t num_here = 0;

	memset(seen, 0, sizeof(seen));
	cr_assert_eq(dmcore_sim_states_open(world.sim, &options, &states), 0);
	while (dmcore_sim_states_next(states) == 1) {
		cr_assert_eq(dmcore_sim_states_info(states, &next), 0);
		if (num_here && next.cut_nr != state.cut_nr) {
			check_cut(&state, num_here, nth);
			num_here = 0;
		}
		state = next;
		check_sectors(state.cut_nr, nth);
		num_here++;
	}
	check_cut(&state, num_here, nth);
	cr_assert_eq(dmcore_sim_states_close(states), 0);
}

Test(sim_model, states_of_a_run_are_all_that_may_be_and_no_others, .timeout = 36000)
{
	struct rng rng;

	rng_start(&rng, 1);
	for (unsigned int nth = 0; nth < (rng_full() ? RUNS_FULL : RUNS); nth++) {
		run(&rng, 0, true);
		while (num_under_way)
			step();
		check_states(nth);
		check_reads();
		simworld_close(&world);
	}
}

Test(sim_model, cut_leaves_what_may_be_however_small_the_cache, .timeout = 36000)
{
	struct rng rng;

	rng_start(&rng, 2);
	for (unsigned int nth = 0; nth < 20 * (rng_full() ? RUNS_FULL : RUNS); nth++) {
		run(&rng, rng_between(&rng, 2, 3 * SECTORS), rng_one_in(&rng, 4));
		dmcore_sim_cut(world.sim);
		check_sectors(dmcore_sim_num_events(world.sim), nth);
		dmcore_queue_poll(world.queue, 0, OPS, 0);
		for (unsigned int i = 0; i < num_requests; i++) {
			if (requests[i].bio)
				dmcore_bio_put(requests[i].bio);
		}
		simworld_close(&world);
	}
}
