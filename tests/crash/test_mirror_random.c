/* SPDX-License-Identifier: MIT */
/*
 * What a power cut leaves of a mirror with a log on disk, in states of random programs of forty
 * operations, of which several are under way at once: writes, flushes, recovery, suspensions, legs
 * that fail for a while. See tests/support/simmir.h for the judge.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   fifty times as many programs
 *	DMCORE_CRASH_LOG=1   tells how many states there were
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simmir.h"

#define HASHES (UINT64_C(1) << 17)
#define OPERATIONS 40u

static struct simmir mir;

static void write_at_random(struct rng *rng)
{
	static const unsigned int flags[] = {
		0, 0, 0, DMCORE_BIO_FUA, DMCORE_BIO_PREFLUSH,
		DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA,
	};
	uint64_t sectors = mir.options.num_sectors;
	uint64_t sector = rng_below(rng, sectors);
	uint64_t most = 2 * mir.options.region_sectors;

	if (most > sectors - sector)
		most = sectors - sector;
	simmir_submit(&mir, DMCORE_OP_WRITE, flags[rng_below(rng, 6)], sector,
		      rng_between(rng, 1, most));
}

/* A leg or two, reads or writes or flushes, a few times; also the first. */
static void fail_at_random(struct rng *rng)
{
	static const uint32_t ops[] = {
		1u << DMCORE_OP_WRITE, 1u << DMCORE_OP_WRITE, 1u << DMCORE_OP_FLUSH,
		1u << DMCORE_OP_READ, 1u << DMCORE_OP_WRITE | 1u << DMCORE_OP_FLUSH,
	};

	simmir_fail(&mir, (unsigned int)rng_below(rng, mir.options.num_legs),
		    ops[rng_below(rng, 5)], 1 + (uint32_t)rng_below(rng, 3));
}

/* The log can't say that leg 0 may lose what it reads as: that goes with the table. */
static void remove_and_make_anew(bool fails)
{
	if (fails) {
		simmir_wait(&mir, 0);
		simmir_mend(&mir);
		simmir_recover(&mir);
	}
	simmir_deactivate(&mir);
	simmir_activate(&mir);
}

static void run_at_random(struct rng *rng, bool fails)
{
	uint64_t sectors = mir.options.num_sectors;
	uint64_t sector = rng_below(rng, sectors);

	switch (rng_below(rng, 24)) {
	case 0:
		simmir_suspend_and_resume(&mir);
		break;
	case 1:
		remove_and_make_anew(fails);
		break;
	case 2:
		simmir_pass(&mir, SIMMIR_PAUSE_NS);
		break;
	case 3:
		simmir_pass(&mir, rng_below(rng, 200000));
		break;
	case 4:
	case 5:
	case 6:
		simmir_submit(&mir, DMCORE_OP_FLUSH, 0, 0, 0);
		break;
	case 7:
	case 8:
		simmir_submit(&mir, DMCORE_OP_READ, 0, sector,
			      rng_between(rng, 1, sectors - sector));
		break;
	case 9:
		if (fails)
			fail_at_random(rng);
		break;
	default:
		write_at_random(rng);
		break;
	}
	simmir_wait(&mir, (unsigned int)rng_below(rng, SIMMIR_AT_ONCE));
}

static struct simmir_options random_options(struct rng *rng)
{
	static const unsigned int kinds[] = { 0, 0, 0, DMCORE_SIM_NO_FUA, DMCORE_SIM_NO_CACHE };
	static const char *const features[] = {
		NULL, NULL, "3 write_behind 1 8", "4 balance_reads write_behind 1 32",
	};
	uint32_t region_sectors = 2u << rng_below(rng, 3);
	uint64_t regions = 4 + rng_below(rng, 4);

	return (struct simmir_options){
		.num_legs = 2 + (unsigned int)rng_below(rng, 3) / 2,
		.region_sectors = region_sectors,
		/* The last one may be short. */
		.num_sectors = regions * region_sectors + rng_below(rng, region_sectors),
		.offset_sectors = rng_below(rng, 2) * 3,
		.atomic_bytes = rng_one_in(rng, 3) ? 4096 : 512,
		.disk_flags = kinds[rng_below(rng, 5)],
		.spread_ns = rng_below(rng, 3) * 60000,
		.differ = rng_one_in(rng, 3),
		.features = features[rng_below(rng, 4)],
		.look_every = simmir_slow() ? 16 : 64,
	};
}

/* True: something is wrong. */
static bool run_program(unsigned int nr, unsigned int flags, uint32_t per_cut)
{
	struct simmir_options options;
	struct rng rng;
	bool fails;

	rng_start(&rng, nr);
	options = random_options(&rng);
	options.disk_flags |= flags;
	fails = rng_one_in(&rng, 2);
	simmir_open(&mir, &options, nr + 1);
	simmir_record(&mir);
	simmir_activate(&mir);
	for (unsigned int i = 0; i < OPERATIONS; i++)
		run_at_random(&rng, fails);
	simmir_wait(&mir, 0);
	simmir_mend(&mir);
	simmir_deactivate(&mir);
	simmir_judge(&mir, DMCORE_SIM_CUTS_EPOCHS, per_cut);
	simmir_close(&mir);
	return mir.num_broken > 0;
}

static void run_programs(unsigned int first)
{
	unsigned int count = rng_full() ? 5000 : simmir_slow() ? 2 : simmir_brief() ? 30 : 100;
	uint64_t *hashes = calloc(HASHES, sizeof(*hashes));
	uint64_t num_states = 0;
	uint64_t num_looked = 0;

	cr_assert(hashes);
	for (unsigned int i = first; i < first + count; i++) {
		memset(hashes, 0, HASHES * sizeof(*hashes));
		simmir_remember(&mir, hashes, HASHES);
		cr_assert_not(run_program(i, 0, simmir_slow() ? 64 : 512),
			      "seed %lu, program %u: %s", (unsigned long)rng_seed(), i,
			      mir.broken);
		num_states += mir.num_states;
		num_looked += mir.num_looked;
	}
	if (getenv("DMCORE_CRASH_LOG"))
		fprintf(stderr, "random programs: %lu states, %lu of them recovered\n",
			(unsigned long)num_states, (unsigned long)num_looked);
	free(hashes);
	simmir_remember(&mir, NULL, 0);
}

/* In four parts, each well within a test's time. */
Test(programs, of_forty_operations_hold_in_every_state, .timeout = 36000)
{
	run_programs(0);
}

Test(programs, of_forty_operations_hold_in_every_state_2, .timeout = 36000)
{
	run_programs(5000);
}

Test(programs, of_forty_operations_hold_in_every_state_3, .timeout = 36000)
{
	run_programs(10000);
}

Test(programs, of_forty_operations_hold_in_every_state_4, .timeout = 36000)
{
	run_programs(15000);
}

Test(programs, of_forty_operations_on_disks_that_lie_are_found_out, .timeout = 3600)
{
	unsigned int num_wrong = 0;

	for (unsigned int i = 0; i < 10; i++)
		num_wrong += run_program(i, DMCORE_SIM_LIES, 64);
	cr_assert_gt(num_wrong, 5);
}
