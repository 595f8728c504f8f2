/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of a snapshot, in states of random programs of forty operations, of which
 * several are under way at once. See tests/support/simsnap.h for the judge.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   10,000 programs
 *	DMCORE_CRASH_LOG=1   tells how many states there were
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simsnap.h"

#define HASHES (UINT64_C(1) << 17)

static struct simsnap snap;

static void run_at_random(struct rng *rng)
{
	static const unsigned int flags[] = {
		0, 0, 0, DMCORE_BIO_FUA, DMCORE_BIO_PREFLUSH,
		DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA,
	};
	enum simsnap_side side = (enum simsnap_side)rng_below(rng, SIMSNAP_SIDES);
	uint64_t chunk = snap.options.chunk_sectors;
	uint64_t sectors = snap.num_sectors - 2 * chunk;
	uint64_t sector = rng_below(rng, sectors);
	uint64_t most = sectors - sector < 2 * chunk ? sectors - sector : 2 * chunk;
	unsigned int what = (unsigned int)rng_below(rng, 24);

	if (what == 0) {
		simsnap_suspend_and_resume(&snap, side);
	} else if (what == 1) {
		simsnap_reload(&snap, "snapshot");
	} else if (what == 2) {
		simsnap_deactivate(&snap);
		cr_assert_eq(simsnap_activate(&snap), 0, "%s", dmcore_error_message());
	} else if (what < 6) {
		simsnap_submit(&snap, side, DMCORE_OP_FLUSH, 0, 0, 0);
	} else if (what < 9) {
		sector -= sector % chunk;
		simsnap_submit(&snap, side, DMCORE_OP_WRITE, flags[rng_below(rng, 6)], sector,
			       chunk);
	} else {
		simsnap_submit(&snap, side, DMCORE_OP_WRITE, flags[rng_below(rng, 6)], sector,
			       rng_between(rng, 1, most));
	}
	simsnap_wait(&snap, (unsigned int)rng_below(rng, SIMSNAP_AT_ONCE));
}

static struct simsnap_options random_options(struct rng *rng)
{
	static const unsigned int kinds[] = { 0, 0, 0, DMCORE_SIM_NO_FUA, DMCORE_SIM_NO_CACHE,
					      DMCORE_SIM_NO_WRITE_ZEROES };
	bool large = rng_one_in(rng, 2);
	uint32_t chunk_sectors = large ? 8 : 1;
	uint32_t chunks = large ? 4 + (uint32_t)rng_below(rng, 4) :
				  6 + 8 * (uint32_t)rng_below(rng, 2);

	return (struct simsnap_options){
		.chunk_sectors = chunk_sectors,
		.origin_chunks = chunks + 2,
		.cow_sectors = (chunks + 10) * chunk_sectors,
		.atomic_bytes = rng_one_in(rng, 3) ? 4096 : 512,
		.disk_flags = kinds[rng_below(rng, 6)],
		.spread_ns = rng_below(rng, 3) * 60000,
		.garbage = rng_one_in(rng, 2),
	};
}

/* Forty operations, several at once; true: something is wrong. */
static bool run_random_program(unsigned int nr, unsigned int flags, uint32_t per_cut)
{
	struct simsnap_options options;
	struct rng rng;

	rng_start(&rng, nr);
	options = random_options(&rng);
	options.disk_flags |= flags;
	simsnap_open(&snap, &options, nr + 1);
	cr_assert_eq(simsnap_activate(&snap), 0);
	simsnap_record(&snap);
	for (unsigned int i = 0; i < 40; i++)
		run_at_random(&rng);
	simsnap_deactivate(&snap);
	if (rng_one_in(&rng, 16))
		simsnap_judge(&snap, DMCORE_SIM_CUTS_EPOCHS, 4, 1);
	else
		simsnap_judge(&snap, DMCORE_SIM_CUTS_EPOCHS, per_cut, 0);
	simsnap_close(&snap);
	return snap.num_broken > 0;
}

/* Programs from `first` on. */
static void run_random_programs(unsigned int first)
{
	unsigned int count = rng_full() ? 5000 : simsnap_slow() ? 1 : simsnap_brief() ? 10 : 100;
	uint64_t *hashes = calloc(HASHES, sizeof(*hashes));
	uint64_t num_states = 0;

	cr_assert(hashes);
	for (unsigned int i = first; i < first + count; i++) {
		memset(hashes, 0, HASHES * sizeof(*hashes));
		simsnap_remember(&snap, hashes, HASHES);
		cr_assert_not(run_random_program(i, 0, simsnap_slow() ? 32 : 256),
			      "seed %lu, program %u: %s", (unsigned long)rng_seed(), i,
			      snap.broken);
		num_states += snap.num_states;
	}
	if (getenv("DMCORE_CRASH_LOG"))
		fprintf(stderr, "random programs: %lu states\n", (unsigned long)num_states);
	free(hashes);
}

/* In four parts, each well within a test's time. */
Test(programs, of_forty_operations_hold_in_every_state, .timeout = 36000)
{
	run_random_programs(0);
}

Test(programs, of_forty_operations_hold_in_every_state_2, .timeout = 36000)
{
	run_random_programs(5000);
}

Test(programs, of_forty_operations_hold_in_every_state_3, .timeout = 36000)
{
	run_random_programs(10000);
}

Test(programs, of_forty_operations_hold_in_every_state_4, .timeout = 36000)
{
	run_random_programs(15000);
}

Test(programs, of_forty_operations_on_disks_that_lie_are_found_out, .timeout = 3600)
{
	unsigned int num_wrong = 0;

	for (unsigned int i = 0; i < 10; i++)
		num_wrong += run_random_program(i, DMCORE_SIM_LIES, 16);
	cr_assert_gt(num_wrong, 5);
}
