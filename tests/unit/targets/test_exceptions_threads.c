/* SPDX-License-Identifier: MIT */
/* The table of a snapshot's exceptions, looked at by several threads while one changes it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "targets/snapshot/exceptions.h"

#define CHUNKS 20000
#define READERS 3
#define CHANGES 40000
/* What a reader looks at when nothing is changed, too. */
#define QUIET_LOOKS 2000

/* Chunks go by their remainder: some are kept from the beginning, some never are. The others come
 * and go, either in their own place, where they join with what is kept, or FAR from it. */
#define MODULUS 4
#define KEPT 0
#define NEVER 1
#define FAR (UINT64_C(1) << 40)

enum mistake {
	KEPT_NOT_FOUND,
	NEVER_FOUND,
	WRONG_PLACE,
	WRONG_RUN,
	MISSED_CHANGE,
	NUM_MISTAKES,
};

static struct dmcore *core;
static struct exceptions *table;
static _Atomic unsigned int mistakes[NUM_MISTAKES];
static _Atomic unsigned int is_there[CHUNKS]; /* set behind an insert, cleared before a removal */
static _Atomic unsigned int at_work;
static _Atomic unsigned int num_looks;
static pthread_t readers[READERS];

static void set_up(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	cr_assert_eq(dmcore_create(&options, &core), 0);
	table = dmcore__exceptions_create(core);
	cr_assert(table);
	for (uint64_t chunk = KEPT; chunk < CHUNKS; chunk += MODULUS) {
		cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
		cr_assert(dmcore__exceptions_insert(table, chunk, chunk));
	}
}

static void tear_down(void)
{
	dmcore__exceptions_destroy(table);
	dmcore_destroy(core);
}

TestSuite(exceptions_threads, .init = set_up, .fini = tear_down);

static void check(bool is_right, enum mistake mistake)
{
	if (!is_right)
		atomic_fetch_add(&mistakes[mistake], 1);
}

static enum exceptions_result look_up(uint64_t chunk)
{
	uint64_t found = UINT64_MAX;
	uint64_t version;
	enum exceptions_result result = dmcore__exceptions_find(table, chunk, &found, &version);

	switch (result) {
	case EXCEPTIONS_FOUND:
		check(chunk % MODULUS != NEVER, NEVER_FOUND);
		check(found == chunk || (found == chunk + FAR && chunk % MODULUS != KEPT),
		      WRONG_PLACE);
		break;
	case EXCEPTIONS_NONE:
		check(chunk % MODULUS != KEPT, KEPT_NOT_FOUND);
		if (atomic_load_explicit(&is_there[chunk], memory_order_acquire) == 1)
			check(dmcore__exceptions_version(table) != version, MISSED_CHANGE);
		break;
	default:
		break;
	}
	return result;
}

static enum exceptions_result look_ahead(uint64_t chunk)
{
	struct exceptions_run run = { 0, 0, 0 };
	enum exceptions_result result = dmcore__exceptions_next(table, chunk, &run);

	if (result == EXCEPTIONS_BUSY)
		return result;
	check(result == EXCEPTIONS_FOUND || chunk > CHUNKS - MODULUS, KEPT_NOT_FOUND);
	if (result == EXCEPTIONS_NONE)
		return result;
	check(run.old_chunk >= chunk && run.old_chunk - chunk < MODULUS, WRONG_RUN);
	check(run.new_chunk == run.old_chunk || run.new_chunk == run.old_chunk + FAR, WRONG_RUN);
	check(run.count > 0 && run.count < MODULUS, WRONG_RUN);
	for (uint64_t i = 0; i < run.count; i++)
		check((run.old_chunk + i) % MODULUS != NEVER, NEVER_FOUND);
	return result;
}

static void *read_table(void *argument)
{
	unsigned int quiet = 0;
	unsigned int looks = 0;
	struct rng rng;

	rng_start(&rng, 1 + (uint64_t)(uintptr_t)argument);
	while (quiet < QUIET_LOOKS) {
		uint64_t chunk = rng_below(&rng, CHUNKS);
		/* Read before the table is: if it is 0, nobody is in the way. */
		bool is_quiet = atomic_load(&at_work) == 0;
		enum exceptions_result result =
			looks % 4 == 0 ? look_ahead(chunk) : look_up(chunk);

		if (result != EXCEPTIONS_BUSY)
			looks++;
		else
			check(!is_quiet, KEPT_NOT_FOUND);
		if (is_quiet)
			quiet++;
	}
	atomic_fetch_add(&num_looks, looks);
	return NULL;
}

static void start_readers(void)
{
	atomic_store(&at_work, 1);
	for (uintptr_t i = 0; i < READERS; i++)
		cr_assert_eq(pthread_create(&readers[i], NULL, read_table, (void *)i), 0);
}

static void end_readers(void)
{
	atomic_store(&at_work, 0);
	for (unsigned int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	for (unsigned int i = 0; i < NUM_MISTAKES; i++)
		cr_assert_eq(mistakes[i], 0, "mistake %u, %u times", i, mistakes[i]);
	cr_assert_geq(num_looks, READERS * QUIET_LOOKS);
}

static void insert(uint64_t chunk, uint64_t new_chunk)
{
	cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
	if (dmcore__exceptions_insert(table, chunk, new_chunk))
		atomic_store_explicit(&is_there[chunk], 1, memory_order_release);
}

static void remove_chunk(uint64_t chunk)
{
	cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
	atomic_store_explicit(&is_there[chunk], 0, memory_order_relaxed);
	dmcore__exceptions_remove(table, chunk);
}

static bool comes_and_goes(uint64_t chunk)
{
	return chunk % MODULUS != KEPT && chunk % MODULUS != NEVER;
}

Test(exceptions_threads, readers_see_the_table_before_or_after_each_change)
{
	struct rng rng;

	rng_start(&rng, 99);
	start_readers();
	for (unsigned int i = 0; i < CHANGES; i++) {
		uint64_t chunk = rng_below(&rng, CHUNKS);
		/* Half of the time it fills, half of the time it empties. */
		bool is_removal = rng_one_in(&rng, 4) != (i % 8000 >= 4000);

		if (!comes_and_goes(chunk))
			continue;
		if (is_removal)
			remove_chunk(chunk);
		else
			insert(chunk, rng_one_in(&rng, 2) ? chunk : chunk + FAR);
	}
	end_readers();
}

/* Nodes go and come back as others, at once. */
Test(exceptions_threads, readers_are_right_while_nodes_are_used_again)
{
	struct rng rng;

	rng_start(&rng, 98);
	start_readers();
	for (unsigned int round = 0; round < CHANGES / 4000; round++) {
		uint64_t begin = rng_below(&rng, CHUNKS - 4000);

		for (uint64_t chunk = begin; chunk < begin + 4000; chunk++) {
			if (comes_and_goes(chunk))
				insert(chunk, chunk + FAR * rng_below(&rng, 2));
		}
		for (uint64_t chunk = begin; chunk < begin + 4000; chunk++) {
			if (comes_and_goes(chunk))
				remove_chunk(chunk);
		}
	}
	end_readers();
}
