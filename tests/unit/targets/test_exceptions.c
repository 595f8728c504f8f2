/* SPDX-License-Identifier: MIT */
/* The table of a snapshot's exceptions: runs, versions, memory. */
#include <errno.h>
#include <stdint.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/heap.h"
#include "support/rng.h"
#include "targets/snapshot/exceptions.h"

/* Of the longest run that is one entry. */
#define RUN_MAX (1u << 20)

static struct dmcore *core;
static struct exceptions *table;

static void set_up(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	cr_assert_eq(dmcore_create(&options, &core), 0);
	table = dmcore__exceptions_create(core);
	cr_assert(table);
}

static void tear_down(void)
{
	dmcore__exceptions_destroy(table);
	dmcore_destroy(core);
}

TestSuite(exceptions, .init = set_up, .fini = tear_down);

static void insert(uint64_t old_chunk, uint64_t new_chunk)
{
	cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
	cr_assert(dmcore__exceptions_insert(table, old_chunk, new_chunk), "chunk %llu",
		  (unsigned long long)old_chunk);
}

static void remove_chunk(uint64_t old_chunk)
{
	cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
	cr_assert(dmcore__exceptions_remove(table, old_chunk), "chunk %llu",
		  (unsigned long long)old_chunk);
}

static void expect_found(uint64_t old_chunk, uint64_t new_chunk)
{
	uint64_t found = 0;
	uint64_t version = 1;

	cr_assert_eq(dmcore__exceptions_find(table, old_chunk, &found, &version), EXCEPTIONS_FOUND,
		     "chunk %llu", (unsigned long long)old_chunk);
	cr_assert_eq(found, new_chunk, "chunk %llu is in %llu instead of %llu",
		     (unsigned long long)old_chunk, (unsigned long long)found,
		     (unsigned long long)new_chunk);
	cr_assert_eq(version, dmcore__exceptions_version(table));
}

static void expect_none(uint64_t old_chunk)
{
	uint64_t found;
	uint64_t version = 1;

	cr_assert_eq(dmcore__exceptions_find(table, old_chunk, &found, &version), EXCEPTIONS_NONE,
		     "chunk %llu", (unsigned long long)old_chunk);
	cr_assert_eq(version, dmcore__exceptions_version(table));
}

static void expect_next(uint64_t from, uint64_t old_chunk, uint64_t new_chunk, uint64_t count)
{
	struct exceptions_run run;

	cr_assert_eq(dmcore__exceptions_next(table, from, &run), EXCEPTIONS_FOUND, "from %llu",
		     (unsigned long long)from);
	cr_assert(run.old_chunk == old_chunk && run.new_chunk == new_chunk && run.count == count,
		  "from %llu: %llu in %llu, %llu chunks", (unsigned long long)from,
		  (unsigned long long)run.old_chunk, (unsigned long long)run.new_chunk,
		  (unsigned long long)run.count);
}

static void expect_no_next(uint64_t from)
{
	struct exceptions_run run;

	cr_assert_eq(dmcore__exceptions_next(table, from, &run), EXCEPTIONS_NONE);
}

Test(exceptions, nothing_is_in_an_empty_table)
{
	expect_none(0);
	expect_none(EXCEPTIONS_CHUNKS_MAX - 1);
	expect_no_next(0);
	cr_assert_eq(dmcore__exceptions_count(table), 0);
	cr_assert_not(dmcore__exceptions_remove(table, 0));
	cr_assert_lt(dmcore__exceptions_bytes(table), 16384);
}

Test(exceptions, finds_what_was_inserted_and_nothing_beside_it)
{
	insert(7, 100);
	expect_found(7, 100);
	expect_none(6);
	expect_none(8);
	cr_assert_eq(dmcore__exceptions_count(table), 1);
	remove_chunk(7);
	expect_none(7);
	cr_assert_eq(dmcore__exceptions_count(table), 0);
}

Test(exceptions, keeps_the_largest_numbers)
{
	insert(EXCEPTIONS_CHUNKS_MAX - 1, EXCEPTIONS_CHUNKS_MAX - 1);
	insert(0, 0);
	expect_found(EXCEPTIONS_CHUNKS_MAX - 1, EXCEPTIONS_CHUNKS_MAX - 1);
	expect_found(0, 0);
	expect_none(EXCEPTIONS_CHUNKS_MAX - 2);
	expect_none(EXCEPTIONS_CHUNKS_MAX);
	expect_none(UINT64_MAX);
	expect_next(1, EXCEPTIONS_CHUNKS_MAX - 1, EXCEPTIONS_CHUNKS_MAX - 1, 1);
	expect_no_next(EXCEPTIONS_CHUNKS_MAX);
}

Test(exceptions, second_insert_of_a_chunk_changes_nothing)
{
	uint64_t version;

	insert(7, 100);
	insert(8, 101);
	version = dmcore__exceptions_version(table);
	cr_assert_not(dmcore__exceptions_insert(table, 7, 55));
	cr_assert_not(dmcore__exceptions_insert(table, 8, 55));
	cr_assert_eq(dmcore__exceptions_version(table), version);
	expect_found(7, 100);
	expect_found(8, 101);
	cr_assert_eq(dmcore__exceptions_count(table), 2);
}

Test(exceptions, removal_of_what_is_not_there_changes_nothing)
{
	uint64_t version;

	insert(7, 100);
	version = dmcore__exceptions_version(table);
	cr_assert_not(dmcore__exceptions_remove(table, 6));
	cr_assert_not(dmcore__exceptions_remove(table, 8));
	cr_assert_eq(dmcore__exceptions_version(table), version);
}

Test(exceptions, version_differs_after_each_change)
{
	uint64_t versions[4];

	versions[0] = dmcore__exceptions_version(table);
	insert(7, 100);
	versions[1] = dmcore__exceptions_version(table);
	remove_chunk(7);
	versions[2] = dmcore__exceptions_version(table);
	dmcore__exceptions_touch(table);
	versions[3] = dmcore__exceptions_version(table);
	for (unsigned int i = 0; i < 4; i++) {
		for (unsigned int k = 0; k < i; k++)
			cr_assert_neq(versions[i], versions[k], "%u and %u", i, k);
	}
}

Test(exceptions, joins_with_the_run_before)
{
	insert(10, 100);
	insert(11, 101);
	expect_next(0, 10, 100, 2);
	expect_next(11, 11, 101, 1);
	expect_no_next(12);
}

Test(exceptions, joins_with_the_run_behind)
{
	insert(11, 101);
	insert(10, 100);
	expect_next(0, 10, 100, 2);
}

Test(exceptions, joins_the_runs_before_and_behind)
{
	insert(10, 100);
	insert(12, 102);
	insert(11, 101);
	expect_next(0, 10, 100, 3);
	expect_found(12, 102);
}

Test(exceptions, joins_only_what_continues_in_both_numbers)
{
	insert(10, 100);
	insert(11, 102);
	insert(13, 103);
	insert(12, 101);
	expect_next(0, 10, 100, 1);
	expect_next(11, 11, 102, 1);
	expect_next(12, 12, 101, 1);
	expect_next(13, 13, 103, 1);
	expect_found(11, 102);
}

Test(exceptions, removal_shortens_a_run_or_cuts_it)
{
	for (uint64_t i = 0; i < 10; i++)
		insert(10 + i, 100 + i);
	remove_chunk(10);
	expect_next(0, 11, 101, 9);
	remove_chunk(19);
	expect_next(0, 11, 101, 8);
	remove_chunk(14);
	expect_next(0, 11, 101, 3);
	expect_next(14, 15, 105, 4);
	expect_none(10);
	expect_none(14);
	expect_none(19);
	expect_found(13, 103);
	expect_found(15, 105);
	cr_assert_eq(dmcore__exceptions_count(table), 7);
	insert(14, 104);
	expect_next(0, 11, 101, 8);
}

Test(exceptions, longest_run_is_followed_by_another)
{
	for (uint64_t i = 0; i < RUN_MAX + 2; i++)
		insert(i, i + 5);
	expect_next(0, 0, 5, RUN_MAX);
	expect_next(RUN_MAX, RUN_MAX, RUN_MAX + 5, 2);
	expect_found(RUN_MAX - 1, RUN_MAX + 4);
	remove_chunk(RUN_MAX / 2);
	insert(RUN_MAX / 2, RUN_MAX / 2 + 5);
	expect_next(0, 0, 5, RUN_MAX);
	expect_found(RUN_MAX + 1, RUN_MAX + 6);
	expect_none(RUN_MAX + 2);
	/* Too long for one run: the chunk between joins with one of them. */
	remove_chunk(RUN_MAX);
	insert(RUN_MAX, RUN_MAX + 5);
	expect_next(0, 0, 5, RUN_MAX);
	expect_next(RUN_MAX, RUN_MAX, RUN_MAX + 5, 2);
}

/* ---- memory ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MANY 50000
#else
#define MANY 1000000
#endif

/* Chunks out of 2^31, each once or more. */
static void fill(uint64_t (*chunk)(struct rng *rng, uint64_t index), unsigned int count)
{
	struct rng rng;

	rng_start(&rng, 1);
	for (unsigned int i = 0; i < count; i++) {
		uint64_t old_chunk = chunk(&rng, i);

		cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
		dmcore__exceptions_insert(table, old_chunk, i);
	}
	cr_assert_leq(dmcore__exceptions_bytes(table),
		      dmcore__exceptions_count(table) * 24 + 16384, "%llu bytes for %llu",
		      (unsigned long long)dmcore__exceptions_bytes(table),
		      (unsigned long long)dmcore__exceptions_count(table));
}

static uint64_t random_chunk(struct rng *rng, uint64_t index)
{
	(void)index;
	return rng_below(rng, UINT64_C(1) << 31);
}

static uint64_t descending_chunk(struct rng *rng, uint64_t index)
{
	(void)rng;
	return (MANY - index) * 2;
}

static uint64_t ascending_chunk(struct rng *rng, uint64_t index)
{
	(void)rng;
	return index * 2;
}

/* 64 streams at once, half of them descending. */
static uint64_t stream_chunk(struct rng *rng, uint64_t index)
{
	uint64_t stream = index % 64;
	uint64_t step = index / 64;

	(void)rng;
	return stream * (UINT64_C(1) << 24) + (stream % 2 ? step : MANY - step) * 2;
}

static uint64_t clustered_chunk(struct rng *rng, uint64_t index)
{
	static uint64_t cluster;

	if (index % 100 == 0)
		cluster = random_chunk(rng, 0);
	return cluster + rng_below(rng, 200);
}

Test(exceptions, random_chunks_take_24_bytes_each)
{
	fill(random_chunk, MANY);
}

Test(exceptions, descending_chunks_take_24_bytes_each)
{
	fill(descending_chunk, MANY);
}

Test(exceptions, clustered_chunks_take_24_bytes_each)
{
	fill(clustered_chunk, MANY);
}

Test(exceptions, streams_take_24_bytes_each)
{
	fill(stream_chunk, MANY);
}

/* An eighth of the memory may be not in use yet. */
Test(exceptions, ascending_chunks_leave_full_nodes)
{
	fill(ascending_chunk, MANY);
	cr_assert_lt(dmcore__exceptions_bytes(table), (uint64_t)MANY * 19);
}

Test(exceptions, one_run_takes_no_memory)
{
	uint64_t bytes = dmcore__exceptions_bytes(table);

	for (uint64_t i = 0; i < MANY; i++)
		insert(i, i);
	cr_assert_eq(dmcore__exceptions_bytes(table), bytes);
}

Test(exceptions, memory_of_removed_chunks_is_used_again)
{
	uint64_t bytes;

	for (unsigned int round = 0; round < 4; round++) {
		fill(random_chunk, 20000);
		if (round == 0)
			bytes = dmcore__exceptions_bytes(table);
		cr_assert_eq(dmcore__exceptions_bytes(table), bytes, "round %u", round);
		for (uint64_t chunk = 0;;) {
			struct exceptions_run run;

			if (dmcore__exceptions_next(table, chunk, &run) == EXCEPTIONS_NONE)
				break;
			chunk = run.old_chunk;
			remove_chunk(chunk);
		}
		cr_assert_eq(dmcore__exceptions_count(table), 0);
	}
}

Test(exceptions, reserved_changes_need_no_memory)
{
	static const unsigned int counts[] = { 1, 2, 70, 1000, 5000 };
	struct rng rng;

	rng_start(&rng, 2);
	for (unsigned int i = 0; i < 40; i++) {
		unsigned int count = counts[i % 5];

		cr_assert_eq(dmcore__exceptions_reserve(table, count), 0);
		heap.for_good = true;
		heap.left = 1;
		for (unsigned int k = 0; k < count; k++)
			dmcore__exceptions_insert(table, rng_below(&rng, 1u << 30) * 2, k);
		heap.left = 0;
		heap.for_good = false;
	}
	cr_assert_eq(heap.failed, 0);
}

/* Each insert cuts a leaf, and some what is above. */
Test(exceptions, reserved_inserts_into_full_nodes_need_no_memory)
{
	for (uint64_t i = 0; i < 60000; i++)
		insert(i * 4, i * 8);
	for (uint64_t i = 30; i < 60000; i += 63 * 3) {
		cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
		heap.for_good = true;
		heap.left = 1;
		cr_assert(dmcore__exceptions_insert(table, i * 4 + 1, i));
		heap.left = 0;
		heap.for_good = false;
	}
	cr_assert_eq(heap.failed, 0);
}

Test(exceptions, reserve_without_memory_leaves_the_table_as_it_was)
{
	uint64_t version;
	unsigned int inserted = 0;

	fill(random_chunk, 1000);
	version = dmcore__exceptions_version(table);
	heap.for_good = true;
	heap.left = 1;
	cr_assert_eq(dmcore__exceptions_reserve(table, 100000), -ENOMEM);
	cr_assert_eq(dmcore__exceptions_version(table), version);
	/* What there is suffices for some. */
	while (dmcore__exceptions_reserve(table, 1) == 0) {
		dmcore__exceptions_insert(table, (UINT64_C(1) << 32) + inserted * 2, inserted);
		inserted++;
	}
	heap.left = 0;
	heap.for_good = false;
	cr_assert_eq(dmcore__exceptions_reserve(table, 1), 0);
	for (unsigned int i = 0; i < inserted; i++)
		expect_found((UINT64_C(1) << 32) + i * 2, i);
}

Test(exceptions, creation_without_memory_leaves_nothing)
{
	unsigned int outstanding = heap.outstanding;

	for (unsigned int n = 1; n <= 2; n++) {
		heap.left = n;
		cr_assert_null(dmcore__exceptions_create(core), "allocation %u", n);
		cr_assert_eq(heap.left, 0);
		cr_assert_eq(heap.outstanding, outstanding, "allocation %u", n);
	}
	dmcore__exceptions_destroy(NULL);
}
