/* SPDX-License-Identifier: MIT */
/* How a job is cut into slices, how many of them are under way, and what memory they take. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"
#include "../../support/heap.h"

#define SECTORS 16384
#define SLICE 64
#define JOBS 100

static struct copy copy;
static struct copy copies_of[JOBS];
static struct rng rng;

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
	rng_start(&rng, 0);
}

TestSuite(slices, .init = open_disks, .fini = copies_close);

static uint64_t longest(unsigned int disk)
{
	uint64_t count = 0;

	for (unsigned int i = 0; i < fault_num_logged(copies.disk[disk]); i++) {
		struct fault_entry entry = fault_logged(copies.disk[disk], i);

		count = entry.count > count ? entry.count : count;
	}
	return count;
}

/* Copies so much from 0 to 1; what the two disks see. */
static void expect_requests(uint64_t count, unsigned int requests, uint64_t largest)
{
	fault_clear_log(copies.disk[0]);
	fault_clear_log(copies.disk[1]);
	copies_refill(1);
	copies_set(&copy, 0, 5, count, 1, 0);
	copies_run(&copy);
	copies_expect_copied(&copy, count);
	cr_assert_eq(copies_count(0, 0), requests, "%llu sectors: %u reads",
		     (unsigned long long)count, copies_count(0, 0));
	cr_assert_eq(copies_count(1, 0), requests, "%llu sectors: %u writes",
		     (unsigned long long)count, copies_count(1, 0));
	cr_assert_eq(longest(0), largest);
	cr_assert_eq(longest(1), largest);
}

Test(slices, job_of_exactly_the_sub_job_size_is_not_split)
{
	copies_client(256, SLICE, 0);
	expect_requests(SLICE - 1, 1, SLICE - 1);
	expect_requests(SLICE, 1, SLICE);
	expect_requests(SLICE + 1, 2, SLICE);
	expect_requests(10 * SLICE, 10, SLICE);
}

/* An eighth of the pages, so that eight can be under way. */
Test(slices, default_size_is_an_eighth_of_the_pages)
{
	copies_client(128, 0, 0);
	expect_requests(128, 1, 128);
	expect_requests(129, 2, 128);
}

Test(slices, default_size_is_128_kib_at_the_most)
{
	copies_client(4096, 0, 0);
	expect_requests(KCOPYD_SUBJOB_SECTORS_DEFAULT, 1, KCOPYD_SUBJOB_SECTORS_DEFAULT);
	expect_requests(KCOPYD_SUBJOB_SECTORS_DEFAULT + 1, 2, KCOPYD_SUBJOB_SECTORS_DEFAULT);
}

Test(slices, largest_size_works)
{
	copies_client(256, KCOPYD_SUBJOB_SECTORS_MAX, 0);
	expect_requests(KCOPYD_SUBJOB_SECTORS_MAX, 1, KCOPYD_SUBJOB_SECTORS_MAX);
	expect_requests(KCOPYD_SUBJOB_SECTORS_MAX + 1, 2, KCOPYD_SUBJOB_SECTORS_MAX);
}

Test(slices, are_never_larger_than_all_pages)
{
	copies_client(3, 1024, 0);
	expect_requests(24, 1, 24);
	copies_set(&copy, 0, 0, 1000, 2, 0);
	copies_refill(1);
	copies_run(&copy);
	copies_expect_copied(&copy, 1000);
	cr_assert_leq(longest(0), 24);
}

Test(slices, size_of_eight_sectors_works)
{
	copies_client(8, 8, 0);
	expect_requests(8, 1, 8);
	expect_requests(9, 2, 8);
	expect_requests(80, 10, 8);
}

/* Nothing ends: so many are started. */
static unsigned int held_after_start(unsigned int disk, uint64_t count)
{
	copies_set(&copy, 0, 0, count, 2, 0);
	copies_start(&copy);
	copies_settle();
	return copies_held(disk);
}

Test(slices, at_most_eight_of_a_job_are_read_at_a_time)
{
	copies_client(1024, SLICE, 0);
	copies_hold(0, FAULT_READ);
	cr_assert_eq(held_after_start(0, 20 * SLICE), KCOPYD_SUBJOBS_MAX);
	while (copy.end.calls == 0) {
		copies_settle();
		cr_assert_leq(copies_held(0), KCOPYD_SUBJOBS_MAX);
		if (copies_held(0) > 0)
			fault_release(copies.disk[0], (unsigned int)rng_below(&rng, copies_held(0)),
				      0);
	}
	copies_succeed(&copy);
	copies_expect_copied(&copy, 20 * SLICE);
}

Test(slices, at_most_eight_of_a_job_are_under_way_in_all)
{
	copies_client(1024, SLICE, 0);
	for (unsigned int i = 0; i < 3; i++)
		copies_hold(i, 0);
	copies_set(&copy, 0, 0, 50 * SLICE, 2, 0);
	copies_start(&copy);
	while (copy.end.calls == 0) {
		unsigned int writes;

		copies_settle();
		/* A slice is read, or written to one destination or both. */
		writes = copies_held(1) > copies_held(2) ? copies_held(1) : copies_held(2);
		cr_assert_leq(copies_held(0) + writes, KCOPYD_SUBJOBS_MAX);
		for (unsigned int i = 0; i < 3; i++) {
			unsigned int held = copies_held(i);

			if (held > 0 && rng_one_in(&rng, 2))
				fault_release(copies.disk[i], (unsigned int)rng_below(&rng, held),
					      0);
		}
	}
	copies_succeed(&copy);
	copies_expect_copied(&copy, 50 * SLICE);
}

Test(slices, ending_in_any_order_leave_the_same)
{
	copies_client(64, SLICE, 0);
	for (unsigned int round = 0; round < 10; round++) {
		for (unsigned int i = 0; i < 3; i++) {
			copies_hold(i, 0);
			copies_refill(i);
		}
		copies_set(&copy, 0, round, 30 * SLICE + round, 2, 0);
		copies_start(&copy);
		copies_scramble(&rng, &copy, 1);
		copies_succeed(&copy);
		copies_expect_copied(&copy, copy.job.from.count);
		for (unsigned int i = 0; i < 3; i++)
			copies_let_go(i);
	}
}

Test(slices, source_is_read_exactly_once)
{
	copies_client(16, SLICE, 0);
	copies_set(&copy, 0, 3, 1234, 2, 0);
	copies_run(&copy);
	copies_expect_touched(0, DMCORE_OP_READ, 3, 1234, 1);
	copies_expect_touched(1, DMCORE_OP_WRITE, 3, 1234, 1);
	copies_expect_touched(2, DMCORE_OP_WRITE, 3, 1234, 1);
}

/* ---- pages ---------------------------------------------------------------------------------- */

static uint64_t pages_held(unsigned int disk)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < copies_held(disk); i++)
		pages += (fault_held(copies.disk[disk], i).count + 7) / 8;
	return pages;
}

/* Many jobs, nothing ends by itself: what is read and what is written at a time has room. */
static void expect_pages(unsigned int num_pages, unsigned int subjob)
{
	unsigned int ended = 0;

	copies_client(num_pages, subjob, 0);
	copies_hold(0, FAULT_READ);
	copies_hold(1, FAULT_WRITE);
	copies_refill(1);
	for (unsigned int i = 0; i < 20; i++) {
		copies_set(&copies_of[i], 0, 600 * i, rng_between(&rng, 1, 600), 1, 0);
		copies_start(&copies_of[i]);
	}
	while (ended < 20) {
		unsigned int disk = (unsigned int)rng_below(&rng, 2);

		copies_settle();
		cr_assert_leq(pages_held(0) + pages_held(1), num_pages);
		cr_assert_gt(pages_held(0) + pages_held(1), 0, "it stands still");
		if (copies_held(disk) == 0)
			disk = 1 - disk;
		fault_release(copies.disk[disk], (unsigned int)rng_below(&rng, copies_held(disk)),
			      0);
		copies_settle();
		for (ended = 0; ended < 20 && copies_of[ended].end.calls; ended++)
			;
	}
	for (unsigned int i = 0; i < 20; i++) {
		const struct dmio_region *from = &copies_of[i].job.from;

		cr_assert_eq(copies_of[i].job.status, 0);
		cr_assert_eq(pattern_differs(copies_bytes(1, from->sector), from->sector,
					     from->count, 1),
			     -1);
	}
	copies_let_go(0);
	copies_let_go(1);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
}

Test(slices, never_take_more_pages_than_were_set_aside)
{
	static const unsigned int pages[] = { 1, 2, 7, 64, 256 };

	for (unsigned int i = 0; i < 5; i++) {
		expect_pages(pages[i], 0);
		expect_pages(pages[i], 8);
		expect_pages(pages[i], 64);
	}
}

/* Half of the pages are free, but no two that are neighbours: a block of 64 KiB waits for more. */
Test(slices, of_large_blocks_wait_for_pages_that_are_neighbours)
{
	unsigned int large = copies_add_disk(",block=65536");

	copies_client(32, 8, 0);
	copies_hold(0, FAULT_READ);
	for (unsigned int i = 0; i < 32; i++) {
		copies_set(&copies_of[i], 0, 8 * i, 8, 1, 0);
		copies_start(&copies_of[i]);
	}
	copies_settle();
	cr_assert_eq(copies_held(0), 32);
	copies_set(&copy, 1, 1024, 1024, 1, 0);
	copy.job.dests[0] = copies_region(large, 1024, 0);
	copies_start(&copy);
	for (unsigned int i = 0; i < 16; i++)
		fault_release(copies.disk[0], i, 0);
	copies_settle();
	cr_assert_eq(copies_held(0), 16);
	cr_assert_eq(copies_count(large, 0), 0);
	cr_assert_eq(copy.end.calls, 0);
	copies_let_go(0);
	copies_succeed(&copy);
	cr_assert_eq(pattern_differs(copies_bytes(large, 1024), 1024, 1024, 2), -1);
	for (unsigned int i = 0; i < 32; i++)
		copies_succeed(&copies_of[i]);
}

/* A job of a slice that takes most of the pages gets them in the end, whatever small ones come. */
Test(slices, large_one_is_not_starved_by_small_ones)
{
	unsigned int next = 0;

	copies_client(8, 64, 0);
	copies_hold(0, FAULT_READ);
	for (; next < 8; next++) {
		copies_set(&copies_of[next], 0, 8 * next, 8, 1, 0);
		copies_start(&copies_of[next]);
	}
	copies_set(&copy, 0, 1024, 64, 1, 0);
	copies_start(&copy);
	/* For each small one that ends another one comes. */
	while (copy.end.calls == 0) {
		copies_settle();
		if (copies_held(0) > 0)
			fault_release(copies.disk[0], 0, 0);
		copies_settle();
		cr_assert_lt(next, JOBS, "80 jobs went before it");
		if (copy.end.calls == 0 && next < JOBS) {
			copies_set(&copies_of[next], 0, 8 * next, 8, 1, 0);
			copies_start(&copies_of[next++]);
		}
	}
	copies_let_go(0);
	for (unsigned int i = 0; i < next; i++)
		copies_succeed(&copies_of[i]);
}

/* ---- no memory ------------------------------------------------------------------------------ */

/* Memory ends once the client is there; nothing of what it does needs any more. */
static void run_without_memory(unsigned int num_pages, unsigned int subjob)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct copies_end ends[JOBS / 4];
	unsigned int outstanding;

	heap_use(&options);
	copies_open_on(3, SECTORS, "", &options);
	copies_client(num_pages, subjob, 0);
	outstanding = heap.outstanding;
	heap_nth.arm(NULL, 1, true);
	for (unsigned int i = 0; i < JOBS; i++) {
		copies_set(&copies_of[i], 0, 150 * i, 1 + (i * 37) % 150, 2, 0);
		if (i % 4 == 0)
			cr_assert_eq(copies_copy(&copies_of[i].job.from, 2, copies_of[i].job.dests,
						 0, &ends[i / 4]),
				     0);
		else
			copies_start(&copies_of[i]);
	}
	for (unsigned int i = 0; i < JOBS; i++)
		copies_wait(i % 4 == 0 ? &ends[i / 4] : &copies_of[i].end);
	cr_assert_eq(heap_nth.disarm(NULL), 0, "something was allocated");
	cr_assert_eq(heap.outstanding, outstanding);
	for (unsigned int i = 0; i < JOBS; i++) {
		const struct dmio_region *from = &copies_of[i].job.from;

		cr_assert_eq(copies_of[i].job.status, 0);
		for (unsigned int d = 1; d < 3; d++)
			cr_assert_eq(pattern_differs(copies_bytes(d, from->sector), from->sector,
						     from->count, 1),
				     -1);
	}
	copies_close();
	cr_assert_eq(heap.outstanding, 0);
}

Test(no_memory, hundred_jobs_pass_through_one_page)
{
	run_without_memory(1, 0);
}

Test(no_memory, hundred_jobs_pass_through_a_few_pages)
{
	run_without_memory(2, 8);
	run_without_memory(7, 64);
	run_without_memory(256, 0);
}

/* Every kind of job. */
Test(no_memory, is_needed_by_no_flag)
{
	static const unsigned int flags[] = {
		KCOPYD_IGNORE_ERROR, KCOPYD_WRITE_SEQ, KCOPYD_FLUSH, KCOPYD_VERIFY, KCOPYD_SPARSE,
		KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED, KCOPYD_SHARE,
		KCOPYD_FLAGS_ALL & ~KCOPYD_DESTS_ZEROED,
	};
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	copies_open_on(3, SECTORS, "", &options);
	copies_client(2, 0, 0);
	heap_nth.arm(NULL, 1, true);
	for (unsigned int i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		copies_set(&copy, 0, 1, 500, 2, flags[i]);
		copies_run(&copy);
		copies_set(&copy, 0, 1, 500, 1, flags[i]);
		copy.job.dests[0] = copies_region(0, 1000, 0);
		copies_run(&copy);
	}
	cr_assert_eq(heap_nth.disarm(NULL), 0, "something was allocated");
	copies_close();
}

/* ---- how much memory a client has ----------------------------------------------------------- */

static size_t allocated;

static void *count_alloc(size_t bytes, void *context)
{
	size_t *memory = malloc(bytes + 16);

	(void)context;
	cr_assert_not_null(memory);
	*memory = bytes;
	allocated += bytes;
	return (char *)memory + 16;
}

static void count_release(void *memory, void *context)
{
	size_t *begin = (size_t *)((char *)memory - 16);

	(void)context;
	allocated -= *begin;
	free(begin);
}

static size_t client_bytes(unsigned int num_pages)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	size_t before;

	options.alloc = count_alloc;
	options.release = count_release;
	copies_open_on(0, 8, "", &options);
	before = allocated;
	copies_client(num_pages, 8, 8);
	before = allocated - before;
	copies_close();
	cr_assert_eq(allocated, 0);
	return before;
}

/* What there is besides the pages is there in any client, but for a little for each page. */
Test(no_memory, client_takes_its_pages_and_a_constant)
{
	size_t few = client_bytes(512);
	size_t many = client_bytes(1536);

	cr_assert_geq(many - few, 1024 * DMIO_PAGE_BYTES);
	cr_assert_leq(many - few, 1024 * (DMIO_PAGE_BYTES + 256), "%zu bytes for each page",
		      (many - few) / 1024);
}
