/* SPDX-License-Identifier: MIT */
/*
 * Random programs for the table of a snapshot's exceptions, against an array that says for each
 * chunk where it is.
 */
#include <stdint.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/heap.h"
#include "support/rng.h"
#include "targets/snapshot/exceptions.h"
#include "targets/snapshot/exceptions_tree.h"

#define CHUNKS_MAX 60000
#define ABSENT UINT64_MAX

static struct dmcore *core;
static struct exceptions *table;
static uint64_t model[CHUNKS_MAX + 1]; /* the last one is absent */
static uint64_t num_chunks;            /* of this program */
static uint64_t num_kept;
static uint64_t first_chunk; /* where the array lies */
static unsigned int reserved;

static void set_up(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	cr_assert_eq(dmcore_create(&options, &core), 0);
}

static void tear_down(void)
{
	dmcore_destroy(core);
}

TestSuite(exceptions, .init = set_up, .fini = tear_down);

static void begin_program(uint64_t chunks, uint64_t first)
{
	table = dmcore__exceptions_create(core);
	cr_assert(table);
	num_chunks = chunks;
	first_chunk = first;
	num_kept = 0;
	reserved = 0;
	for (uint64_t i = 0; i <= chunks; i++)
		model[i] = ABSENT;
}

/* Now and then for many changes, which then go without memory. */
static void reserve(struct rng *rng)
{
	if (reserved-- > 0)
		return;
	reserved = (unsigned int)rng_below(rng, rng_one_in(rng, 4) ? 2000 : 8);
	heap.left = 0;
	cr_assert_eq(dmcore__exceptions_reserve(table, reserved + 1), 0);
	heap.for_good = true;
	heap.left = 1;
}

static void insert(struct rng *rng, uint64_t index, uint64_t new_chunk)
{
	bool is_new = model[index] == ABSENT;

	reserve(rng);
	cr_assert_eq(dmcore__exceptions_insert(table, first_chunk + index, new_chunk), is_new,
		     "seed %llu: chunk %llu", (unsigned long long)rng_seed(),
		     (unsigned long long)index);
	if (is_new) {
		model[index] = new_chunk;
		num_kept++;
	}
}

static void remove_chunk(struct rng *rng, uint64_t index)
{
	bool is_kept = model[index] != ABSENT;

	reserve(rng);
	cr_assert_eq(dmcore__exceptions_remove(table, first_chunk + index), is_kept,
		     "seed %llu: chunk %llu", (unsigned long long)rng_seed(),
		     (unsigned long long)index);
	if (is_kept) {
		model[index] = ABSENT;
		num_kept--;
	}
}

static void check_chunk(uint64_t index)
{
	uint64_t found = ABSENT;
	uint64_t version = 1;
	enum exceptions_result result =
		dmcore__exceptions_find(table, first_chunk + index, &found, &version);

	cr_assert_neq(result, EXCEPTIONS_BUSY);
	cr_assert_eq(result == EXCEPTIONS_FOUND, model[index] != ABSENT,
		     "seed %llu: chunk %llu", (unsigned long long)rng_seed(),
		     (unsigned long long)index);
	cr_assert_eq(found, model[index], "seed %llu: chunk %llu is in %llu instead of %llu",
		     (unsigned long long)rng_seed(), (unsigned long long)index,
		     (unsigned long long)found, (unsigned long long)model[index]);
	cr_assert_eq(version, dmcore__exceptions_version(table));
}

/* The run from a chunk on, or the first behind; none of these programs has one of 2^20 chunks. */
static uint64_t check_next(uint64_t index)
{
	struct exceptions_run run;
	uint64_t begin = index;
	uint64_t count = 1;

	while (begin < num_chunks && model[begin] == ABSENT)
		begin++;
	if (begin == num_chunks) {
		cr_assert_eq(dmcore__exceptions_next(table, first_chunk + index, &run),
			     EXCEPTIONS_NONE);
		return begin;
	}
	while (model[begin + count] == model[begin] + count)
		count++;
	cr_assert_eq(dmcore__exceptions_next(table, first_chunk + index, &run), EXCEPTIONS_FOUND);
	cr_assert(run.old_chunk == first_chunk + begin && run.new_chunk == model[begin] &&
			  run.count == count,
		  "seed %llu: from %llu: %llu in %llu, %llu chunks", (unsigned long long)rng_seed(),
		  (unsigned long long)index, (unsigned long long)(run.old_chunk - first_chunk),
		  (unsigned long long)run.new_chunk, (unsigned long long)run.count);
	return begin + count;
}

static void check_all(void)
{
	cr_assert_eq(dmcore__exceptions_count(table), num_kept);
	for (uint64_t i = 0; i < num_chunks; i++)
		check_chunk(i);
	for (uint64_t i = 0; i < num_chunks;)
		i = check_next(i);
}

static void end_program(void)
{
	heap.left = 0;
	check_all();
	dmcore__exceptions_destroy(table);
	cr_assert_eq(heap.failed, 0);
}

/* Changes of one kind, at random places of a window, or along it. */
static void run_part(struct rng *rng)
{
	uint64_t kind = rng_below(rng, 8);
	uint64_t window = rng_one_in(rng, 2) ? num_chunks : rng_between(rng, 1, num_chunks);
	uint64_t length = rng_below(rng, rng_one_in(rng, 3) ? num_chunks : 200);
	uint64_t at = rng_below(rng, num_chunks);
	uint64_t to = rng_below(rng, EXCEPTIONS_CHUNKS_MAX - 4 * num_chunks);
	uint64_t step = rng_between(rng, 1, 3);

	for (uint64_t i = 0; i < length; i++) {
		uint64_t random = (at + rng_below(rng, window)) % num_chunks;
		uint64_t up = (at + i * step) % num_chunks;
		uint64_t down = (at + (length - i) * step) % num_chunks;

		switch (kind) {
		case 0:
			insert(rng, up, to + i * step);
			break;
		case 1:
			insert(rng, down, to + (length - i) * step);
			break;
		case 2:
			/* What is in its own place joins in any order. */
			insert(rng, random, random);
			break;
		case 3:
			insert(rng, random, to + i);
			break;
		case 4:
			remove_chunk(rng, up);
			break;
		case 5:
			remove_chunk(rng, random);
			break;
		case 6:
			remove_chunk(rng, down);
			break;
		default:
			if (rng_one_in(rng, 2))
				insert(rng, random, random);
			else
				remove_chunk(rng, random);
			break;
		}
	}
	check_chunk(at);
	check_next(at);
}

static void run_programs(uint64_t stream, unsigned int programs, uint64_t chunks)
{
	struct rng rng;

	rng_start(&rng, stream);
	for (unsigned int i = 0; i < programs; i++) {
		begin_program(rng_between(&rng, chunks / 2, chunks),
			      rng_one_in(&rng, 2) ? 0 : EXCEPTIONS_CHUNKS_MAX - chunks);
		for (unsigned int k = 0; k < 30; k++) {
			run_part(&rng);
			if (rng_one_in(&rng, 10))
				check_all();
		}
		end_program();
	}
}

Test(exceptions, small_tables_agree_with_an_array)
{
	run_programs(1, rng_full() ? 20000 : rng_brief() ? 100 : 500, 300);
}

Test(exceptions, larger_tables_agree_with_an_array)
{
	run_programs(2, rng_full() ? 2000 : rng_brief() ? 8 : 60, 6000);
}

Test(exceptions, tables_of_three_levels_agree_with_an_array)
{
	run_programs(3, rng_full() ? 200 : rng_brief() ? 2 : 6, CHUNKS_MAX);
}

/* ---- three nodes in a row above the leaves, full, and the second one's first leaf goes ---- */

#define LEAF TREE_ENTRIES
#define NODE (TREE_ENTRIES * TREE_ENTRIES)
#define SPACING 4

static struct rng unused;

static void insert_entries(uint64_t begin, uint64_t end, uint64_t offset)
{
	for (uint64_t i = begin; i < end; i++)
		insert(&unused, i * SPACING + offset, i * SPACING * 2 + offset * 3);
}

static void remove_entries(uint64_t begin, uint64_t end)
{
	for (uint64_t i = begin; i < end; i++)
		remove_chunk(&unused, i * SPACING);
}

/* A chunk is left before all others in the second node, behind where it begins. */
static void begin_with_a_gap(void)
{
	rng_start(&unused, 4);
	begin_program(3 * NODE * SPACING, 0);
	insert_entries(0, 3 * NODE, 0);
	remove_entries(NODE, NODE + LEAF);
	insert_entries(NODE, NODE + 1, 1);
}

Test(exceptions, nodes_with_a_gap_at_their_begin_are_merged)
{
	begin_with_a_gap();
	remove_entries(10 * LEAF, NODE);
	remove_entries(NODE + 31 * LEAF, 2 * NODE);
	end_program();
}

Test(exceptions, nodes_with_a_gap_at_their_begin_get_children)
{
	begin_with_a_gap();
	remove_entries(NODE + 40 * LEAF, 2 * NODE);
	insert_entries(10 * LEAF, 11 * LEAF, 1);
	end_program();
}

Test(exceptions, nodes_with_a_gap_at_their_begin_give_children_away)
{
	begin_with_a_gap();
	remove_entries(10 * LEAF, 20 * LEAF);
	insert_entries(NODE + 20 * LEAF, NODE + 30 * LEAF, 1);
	end_program();
}

/* ---- how large they get ---- */

#define MANY UINT64_C(1000000)
/* Has no factor in common with MANY: goes through all chunks in an order that looks like none. */
#define STEP UINT64_C(618033989)

static void insert_many(uint64_t step)
{
	table = dmcore__exceptions_create(core);
	cr_assert(table);
	for (uint64_t i = 0; i < MANY; i++) {
		cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
		cr_assert(dmcore__exceptions_insert(table, i * step % MANY, i));
	}
	cr_assert_eq(dmcore__exceptions_count(table), MANY);
}

Test(exceptions, a_million_in_no_order_take_24_bytes_each_at_the_most)
{
	insert_many(STEP);
	cr_assert_leq(dmcore__exceptions_bytes(table), 24 * MANY, "%llu",
		      (unsigned long long)dmcore__exceptions_bytes(table));
	dmcore__exceptions_destroy(table);
}

Test(exceptions, a_million_in_order_take_next_to_nothing)
{
	insert_many(1);
	cr_assert_leq(dmcore__exceptions_bytes(table), 64 << 10, "%llu",
		      (unsigned long long)dmcore__exceptions_bytes(table));
	dmcore__exceptions_destroy(table);
}
