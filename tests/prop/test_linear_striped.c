/* SPDX-License-Identifier: MIT */
/*
 * Random tables of linear, striped, zero and error targets, and random operations on them: all that
 * is read, and in the end every sector of every leaf, is as the model says.
 *
 *	DMCORE_SEED=N        the start of all random choices
 *	DMCORE_PROP_FULL=1   100,000 operations on each of the tables, all of them on files
 *	DMCORE_PROP_ONLY=N   only table N
 */
#include <stdlib.h>

#include <criterion/criterion.h>

#include "support/trial.h"

#define GEOMETRIES 208
#define FULL_OPS 100000
#define QUICK_OPS 480
#define FEW_OPS 60

static unsigned int num_ops(void)
{
	if (rng_full())
		return FULL_OPS;
	return rng_brief() ? FEW_OPS : QUICK_OPS;
}

static bool skipped(unsigned int nr)
{
	const char *only = getenv("DMCORE_PROP_ONLY");

	return only && strtoul(only, NULL, 0) != nr;
}

/* A short target of another kind, or none. */
static void add_other(void)
{
	struct rng *rng = &trial.rng;
	uint64_t length = rng_between(rng, 1, 40);

	switch (rng_below(rng, 6)) {
	case 0:
		model_add(&trial.model, MODEL_ZERO, length, 0, 0, 0, 0);
		break;
	case 1:
		model_add(&trial.model, MODEL_ERROR, length, 0, 0, 0, 0);
		break;
	case 2:
	case 3:
		cr_assert(model_add(&trial.model, MODEL_STRIPED, length, length, 1,
				    (unsigned int)rng_below(rng, trial.model.num_leaves), 3));
		break;
	default:
		break;
	}
}

/* 1 to 64 legs; chunks that are a power of two and others; rows so that it becomes small. */
static void add_striped(unsigned int num_legs)
{
	struct rng *rng = &trial.rng;
	uint64_t chunk = rng_one_in(rng, 2) ? UINT64_C(1) << rng_below(rng, 7) :
					      rng_between(rng, 1, 80);
	uint64_t rows = 1 + rng_below(rng, 1 + 3000 / (num_legs * chunk));

	cr_assert(model_add(&trial.model, MODEL_STRIPED, rows * num_legs * chunk, chunk, num_legs,
			    (unsigned int)rng_below(rng, trial.model.num_leaves),
			    rng_below(rng, 20)));
}

static void run_geometry(unsigned int nr)
{
	unsigned int num_legs = nr % 64 + 1;

	if (skipped(nr))
		return;
	trial_start(nr, rng_full() || nr % 3 == 0, 1 + nr * 5 % MODEL_LEAVES_MAX, 20000);
	add_other();
	add_striped(num_legs);
	add_other();
	if (num_legs < 9) {
		add_striped((unsigned int)rng_between(&trial.rng, 2, 5));
		add_other();
	}
	trial_open();
	trial_run(num_ops());
	trial_end();
}

/* A small target, mostly linear. */
static void add_small(void)
{
	struct rng *rng = &trial.rng;
	uint64_t length = rng_between(rng, 1, 6);
	unsigned int leaf = (unsigned int)rng_below(rng, trial.model.num_leaves);
	bool fits;

	if (rng_one_in(rng, 20))
		fits = model_add(&trial.model, rng_one_in(rng, 2) ? MODEL_ZERO : MODEL_ERROR,
				 length, 0, 0, 0, 0);
	else if (rng_one_in(rng, 10))
		fits = model_add(&trial.model, MODEL_STRIPED, 4 * length, length, 4, leaf, 0);
	else
		fits = model_add(&trial.model, MODEL_STRIPED, length, length, 1, leaf, 0);
	cr_assert(fits);
}

static void run_many_targets(unsigned int nr, unsigned int num_targets, unsigned int count)
{
	if (skipped(nr))
		return;
	trial_start(nr, rng_full() || nr % 2 == 0, 4, 4 * (uint64_t)num_targets + 100);
	for (unsigned int i = 0; i < num_targets; i++)
		add_small();
	trial_open();
	trial_run(count);
	trial_end();
}

/* Four tests, so that each has its own time: legs 1 to 64 stand in each of three. */
Test(linear_striped, geometries_1, .timeout = 36000)
{
	for (unsigned int nr = 0; nr < 64; nr++)
		run_geometry(nr);
}

Test(linear_striped, geometries_2, .timeout = 36000)
{
	for (unsigned int nr = 64; nr < 128; nr++)
		run_geometry(nr);
}

Test(linear_striped, geometries_3, .timeout = 36000)
{
	for (unsigned int nr = 128; nr < GEOMETRIES; nr++)
		run_geometry(nr);
}

Test(linear_striped, tables_of_1_to_10000_targets, .timeout = 36000)
{
	static const unsigned int sizes[] = { 1, 2, 3, 7, 8, 9, 63, 64, 65, 100, 1000, 10000 };

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		run_many_targets(1000 + i, sizes[i], rng_full() ? FULL_OPS : 2 * num_ops());
}
