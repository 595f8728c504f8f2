/* SPDX-License-Identifier: MIT */
/*
 * The whole library in random programs, each of which follows from its seed alone
 * (tests/support/simprogram.h).
 *
 *	DMCORE_SEED=N             the first seed
 *	DMCORE_SIM_SEEDS=N        how many seeds
 *	DMCORE_SIM_STEPS=1,5,9    replay: only these steps of the program, told one by one
 *	DMCORE_SIM_DEFECT=N       replay: with this defect planted
 *	DMCORE_PROP_FULL=1        20,000 seeds
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simprogram.h"

#define SEEDS_FULL 20000
/*
 * The hashes of the first seeds, folded: the same with every compiler, option and sanitizer. They
 * change with what the library sends to its disks, and when; a failure says the new ones.
 */
#define SEEDS_FEW 100
#define HASH_OF_FEW UINT64_C(0x4ac3fa704c49c48a)
#define SEEDS 1000
#define HASH UINT64_C(0x4ce5a65333c638ac)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SLOW 1
#endif
#endif
#ifndef IS_SLOW
#define IS_SLOW 0
#endif

static struct simprogram_result result;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && text[0] ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t num_seeds(void)
{
	uint64_t usual = IS_SLOW || rng_brief() ? SEEDS_FEW : SEEDS;

	return number("DMCORE_SIM_SEEDS",
		      number("DMCORE_PROP_FULL", 0) == 1 ? SEEDS_FULL : usual);
}

/* The command that replays a shrunk program. */
static void command_of(const struct simprogram_options *options, const uint32_t *steps,
		       size_t num_steps, char *text, size_t bytes)
{
	int length = snprintf(text, bytes, "DMCORE_SEED=%" PRIu64, options->seed);

	if (options->defect)
		length += snprintf(text + length, bytes - (size_t)length, " DMCORE_SIM_DEFECT=%d",
				   (int)options->defect);
	length += snprintf(text + length, bytes - (size_t)length, " DMCORE_SIM_STEPS=");
	for (size_t i = 0; i < num_steps; i++)
		length += snprintf(text + length, bytes - (size_t)length, "%s%u", i ? "," : "",
				   steps[i]);
	snprintf(text + length, bytes - (size_t)length,
		 " tests/sim/test_seeds --filter seeds/replay");
}

/* Says all about a seed that fails: as short as it gets, step by step. */
static void report(const struct simprogram_options *options)
{
	static struct simprogram_result shrunk;
	struct simprogram_options traced = *options;
	uint32_t steps[SIMPROGRAM_STEPS];
	char command[1024];
	size_t num;

	traced.trace = stderr;
	num = simprogram_shrink(&traced, steps, &shrunk);
	command_of(options, steps, num, command, sizeof(command));
	cr_assert_fail("seed %" PRIu64 ": %s\nin %zu steps: %s\n%s\n%s", options->seed,
		       result.why, num, shrunk.why, shrunk.world, command);
}

static uint64_t fold(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

Test(seeds, every_program_keeps_the_promises, .timeout = 36000)
{
	struct simprogram_options options = { .seed = rng_seed() };
	struct simprogram_result sum = { .failed = false };
	bool is_usual = options.seed == 1;
	uint64_t count = num_seeds();
	uint64_t hash = 0;

	for (uint64_t i = 1; i <= count; i++, options.seed++) {
		simprogram_run(&options, &result);
		if (result.failed)
			report(&options);
		hash = fold(fold(fold(hash, result.hash), result.num_checked), result.num_states);
		sum.num_events += result.num_events;
		sum.num_requests += result.num_requests;
		sum.num_cuts += result.num_cuts;
		sum.num_states += result.num_states;
		sum.num_swaps += result.num_swaps;
		sum.num_failures += result.num_failures;
		sum.num_checked += result.num_checked;
		if (is_usual && i == SEEDS_FEW)
			cr_assert_eq(hash, HASH_OF_FEW, "0x%016" PRIx64, hash);
		if (is_usual && i == SEEDS)
			cr_assert_eq(hash, HASH, "0x%016" PRIx64, hash);
	}
	if (getenv("DMCORE_PROP_VERBOSE"))
		fprintf(stderr,
			"%" PRIu64 " seeds, hash 0x%016" PRIx64 ": %" PRIu64 " events, %" PRIu64
			" requests (%" PRIu64 " failed), %" PRIu64 " sectors compared, %" PRIu64
			" swaps, %" PRIu64 " cuts, %" PRIu64 " states\n",
			count, hash, sum.num_events, sum.num_requests, sum.num_failures,
			sum.num_checked, sum.num_swaps, sum.num_cuts, sum.num_states);
	if (!is_usual || count < SEEDS_FEW)
		return;
	cr_assert_gt(sum.num_cuts, count / 4);
	cr_assert_gt(sum.num_states, count);
	cr_assert_gt(sum.num_swaps, count);
	cr_assert_gt(sum.num_checked, 100 * count);
}

/* ---- one seed ------------------------------------------------------------------------------- */

/* As many numbers as the text has. */
static size_t parse_steps(const char *text, uint32_t *steps)
{
	size_t num = 0;

	while (*text && num < SIMPROGRAM_STEPS) {
		char *end;
		unsigned long step = strtoul(text, &end, 10);

		if (end == text)
			break;
		steps[num++] = (uint32_t)step;
		text = *end == ',' ? end + 1 : end;
	}
	return num;
}

Test(seeds, replay, .timeout = 600)
{
	static struct simprogram_result again;
	const char *text = getenv("DMCORE_SIM_STEPS");
	uint32_t steps[SIMPROGRAM_STEPS];
	struct simprogram_options options = {
		.seed = rng_seed(),
		.defect = (enum simprogram_defect)number("DMCORE_SIM_DEFECT", 0),
	};

	/* No step at all may do. */
	if (text) {
		options.steps = steps;
		options.num_steps = parse_steps(text, steps);
	}
	simprogram_run(&options, &again);
	options.trace = getenv("DMCORE_SEED") ? stderr : NULL;
	simprogram_run(&options, &result);
	cr_assert_eq(again.hash, result.hash, "the same seed, but another run");
	cr_assert_not(result.failed, "%s", result.why);
}

Test(seeds, another_seed_is_another_run)
{
	struct simprogram_options options = { .seed = 1 };
	uint64_t hash;

	simprogram_run(&options, &result);
	hash = result.hash;
	options.seed = 2;
	simprogram_run(&options, &result);
	cr_assert_neq(result.hash, hash);
}

Test(seeds, bytes_make_programs_too, .timeout = 600)
{
	struct rng rng;
	uint8_t bytes[SIMPROGRAM_WORLD_BYTES + 60 * SIMPROGRAM_STEP_BYTES];
	struct simprogram_options options = { .bytes = bytes };
	uint64_t num_requests = 0;

	rng_start(&rng, 77);
	for (unsigned int round = 0; round < 30; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)rng_next(&rng);
		options.num_bytes = rng_below(&rng, sizeof(bytes) + 1);
		simprogram_run(&options, &result);
		cr_assert_not(result.failed, "%s; seed %" PRIu64 ", round %u", result.why,
			      rng_seed(), round);
		num_requests += result.num_requests;
	}
	cr_assert_gt(num_requests, 100);
}

/* ---- defects -------------------------------------------------------------------------------- */

/* A planted defect is found soon, made short, and what is printed replays it. */
static void find(enum simprogram_defect defect)
{
	static struct simprogram_result shrunk;
	struct simprogram_options options = { .defect = defect };
	uint32_t steps[SIMPROGRAM_STEPS];
	uint32_t replayed[SIMPROGRAM_STEPS];
	char command[1024];
	size_t num;

	do {
		options.seed++;
		simprogram_run(&options, &result);
	} while (!result.failed && options.seed < 100);
	cr_assert(result.failed, "defect %d isn't found", (int)defect);
	num = simprogram_shrink(&options, steps, &shrunk);
	cr_assert_leq(num, 50);
	cr_assert(shrunk.failed);
	command_of(&options, steps, num, command, sizeof(command));
	if (getenv("DMCORE_PROP_VERBOSE"))
		fprintf(stderr, "%s\n%s\n", shrunk.why, command);
	options.num_steps = parse_steps(strstr(command, "STEPS=") + strlen("STEPS="), replayed);
	cr_assert_eq(options.num_steps, num);
	options.steps = replayed;
	simprogram_run(&options, &result);
	cr_assert_str_eq(result.why, shrunk.why);
	cr_assert_eq(result.hash, shrunk.hash);
	/* It is the defect that fails. */
	options.defect = SIMPROGRAM_SOUND;
	simprogram_run(&options, &result);
	cr_assert_not(result.failed, "%s", result.why);
}

Test(seeds, disks_that_lie_about_flushes_are_found, .timeout = 600)
{
	find(SIMPROGRAM_LIES);
}

Test(seeds, write_to_another_place_is_found, .timeout = 600)
{
	find(SIMPROGRAM_MISDIRECTS);
}

Test(seeds, lost_write_is_found, .timeout = 600)
{
	find(SIMPROGRAM_LOSES);
}

Test(seeds, flipped_bit_is_found, .timeout = 600)
{
	find(SIMPROGRAM_CORRUPTS);
}

Test(seeds, request_that_never_ends_is_found, .timeout = 600)
{
	find(SIMPROGRAM_HANGS);
}
