/* SPDX-License-Identifier: MIT */
/*
 * Random copies, of 1 sector to 5 MiB and 511 sectors, to 1 to 8 places on disks, files and memory,
 * through any number of pages: every byte of every device is what a model of them says. Requests
 * are never larger than a slice, the source is read once, and each destination written once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/copies.h"
#include "support/rng.h"
#include "support/scratch.h"

#define SECTORS_MAX (10240 + 511)
#define SECTORS 12288
#define BYTES ((size_t)SECTORS * DMCORE_SECTOR_BYTES)
#define DEVICES 9

static struct copies_end end;
static struct copy copy;
static struct rng rng;
static struct dmcore_bdev *bdevs[DEVICES];
static unsigned char *model[DEVICES];
static unsigned char *found;
static struct scratch files[DEVICES];
static uint64_t random_state;

static unsigned int num_rounds(unsigned int brief, unsigned int normal)
{
	return rng_full() ? 100 * normal : rng_brief() ? brief : normal;
}

static void fill(unsigned int device)
{
	for (size_t i = 0; i < BYTES; i += sizeof(random_state)) {
		random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
		memcpy(model[device] + i, &random_state, sizeof(random_state));
	}
	cr_assert_eq(dmcore_pwrite(bdevs[device], model[device], BYTES, 0), 0);
}

static void allocate(void)
{
	found = malloc(BYTES);
	cr_assert_not_null(found);
	for (unsigned int i = 0; i < DEVICES; i++) {
		model[i] = malloc(BYTES);
		cr_assert_not_null(model[i]);
	}
}

static void take_down(void)
{
	copies_close();
	for (unsigned int i = 0; i < DEVICES; i++) {
		if (files[i].fd > 0)
			scratch_close(&files[i]);
		free(model[i]);
	}
	free(found);
}

static void expect_model(unsigned int round)
{
	for (unsigned int i = 0; i < DEVICES; i++) {
		cr_assert_eq(dmcore_pread(bdevs[i], found, BYTES, 0), 0);
		for (size_t s = 0; s < SECTORS; s++)
			cr_assert_eq(memcmp(found + s * 512, model[i] + s * 512, 512), 0,
				     "round %u, seed %llu: device %u, sector %zu", round,
				     (unsigned long long)rng_seed(), i, s);
	}
}

/* As many small ones as large ones. */
static uint64_t choose_count(uint64_t block)
{
	static const uint64_t bounds[] = { 8, 64, 1024, 1100, SECTORS_MAX };
	uint64_t count = rng_between(&rng, 1, bounds[rng_below(&rng, 5)]);

	return (count + block - 1) / block * block;
}

static uint64_t choose_sector(uint64_t count, uint64_t block)
{
	return rng_below(&rng, (SECTORS - count) / block + 1) * block;
}

/* A client of any size. Returns its longest slice, sectors. */
static uint64_t choose_client(uint64_t block, unsigned int pages_least)
{
	static const unsigned int pages[] = { 1, 2, 7, 64, 256 };
	static const unsigned int subjobs[] = { 0, 8, 24, 128, 1024, KCOPYD_SUBJOB_SECTORS_MAX };
	unsigned int num_pages = pages[rng_below(&rng, 5)];
	unsigned int subjob = subjobs[rng_below(&rng, 6)];
	uint64_t longest = subjob;

	if (num_pages < pages_least)
		num_pages = pages_least;
	copies_client(num_pages, subjob, 0);
	if (longest == 0) {
		longest = num_pages;
		if (longest > KCOPYD_SUBJOB_SECTORS_DEFAULT)
			longest = KCOPYD_SUBJOB_SECTORS_DEFAULT;
		if (longest < 8)
			longest = 8;
	}
	if (longest > 8 * (uint64_t)num_pages)
		longest = 8 * (uint64_t)num_pages;
	return longest < block ? block : longest;
}

/* Copies from one device to some others, and notes it in the model. */
static void set_random(uint64_t block, unsigned int flags)
{
	uint64_t count = choose_count(block);
	unsigned int source = (unsigned int)rng_below(&rng, DEVICES);
	unsigned int num_dests = 1 + (unsigned int)rng_below(&rng, KCOPYD_DESTS_MAX);

	memset(&copy, 0, sizeof(copy));
	copy.job.from = (struct dmio_region){ bdevs[source], choose_sector(count, block), count };
	copy.job.num_dests = num_dests;
	copy.job.flags = flags;
	copy.job.done = copies_done;
	copy.job.context = &copy;
	for (unsigned int i = 0; i < num_dests; i++) {
		unsigned int device = (source + 1 + i) % DEVICES;
		uint64_t sector = choose_sector(count, block);

		copy.job.dests[i] = (struct dmio_region){ bdevs[device], sector, 0 };
		memcpy(model[device] + sector * 512, model[source] + copy.job.from.sector * 512,
		       count * 512);
	}
}

/* By either of the calls. */
static void run_random(void)
{
	if (rng_one_in(&rng, 2)) {
		copies_run(&copy);
		return;
	}
	cr_assert_eq(copies_copy(&copy.job.from, copy.job.num_dests, copy.job.dests,
				 copy.job.flags, &end),
		     0);
	copies_wait(&end);
	cr_assert_eq(end.read_err, 0);
	cr_assert_eq(end.write_err, 0);
}

/* ---- what disks see ------------------------------------------------------------------------- */

/* The requests of one kind cover a range, each sector once, and none is longer than a slice. */
static void expect_once(unsigned int disk, enum dmcore_op op, uint64_t sector, uint64_t count,
			uint64_t longest)
{
	unsigned int logged = fault_num_logged(copies.disk[disk]);
	unsigned char *seen = calloc(1, count);
	uint64_t sum = 0;

	cr_assert_not_null(seen);
	for (unsigned int i = 0; i < logged; i++) {
		struct fault_entry entry = fault_logged(copies.disk[disk], i);

		cr_assert_eq(entry.op, op);
		cr_assert_leq(entry.count, longest, "%llu sectors in a request, %llu in a slice",
			      (unsigned long long)entry.count, (unsigned long long)longest);
		cr_assert(entry.sector >= sector && entry.sector + entry.count <= sector + count);
		for (uint64_t s = entry.sector; s < entry.sector + entry.count; s++)
			cr_assert_eq(seen[s - sector]++, 0, "sector %llu twice",
				     (unsigned long long)s);
		sum += entry.count;
	}
	cr_assert_eq(sum, count);
	free(seen);
}

static void expect_requests(uint64_t longest)
{
	for (unsigned int disk = 0; disk < DEVICES; disk++) {
		const struct dmio_region *from = &copy.job.from;

		if (bdevs[disk] == from->bdev)
			expect_once(disk, DMCORE_OP_READ, from->sector, from->count, longest);
		for (unsigned int i = 0; i < copy.job.num_dests; i++) {
			const struct dmio_region *dest = &copy.job.dests[i];

			if (bdevs[disk] == dest->bdev)
				expect_once(disk, DMCORE_OP_WRITE, dest->sector, from->count,
					    longest);
		}
	}
}

static void run_on_disks(const char *args, uint64_t block, unsigned int pages_least,
			 unsigned int rounds)
{
	allocate();
	rng_start(&rng, block);
	copies_open(DEVICES, SECTORS, args);
	for (unsigned int i = 0; i < DEVICES; i++) {
		bdevs[i] = copies.bdev[i];
		fill(i);
	}
	for (unsigned int round = 0; round < rounds; round++) {
		uint64_t longest = choose_client(block, pages_least);

		for (unsigned int i = 0; i < DEVICES; i++)
			fault_clear_log(copies.disk[i]);
		set_random(block, rng_one_in(&rng, 3) ? KCOPYD_WRITE_SEQ : 0);
		run_random();
		expect_requests(longest);
		expect_model(round);
		cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
		copies.kc = NULL;
	}
	take_down();
}

Test(kcopyd, copies_of_any_size_to_any_places_on_disks)
{
	run_on_disks("", 1, 1, num_rounds(5, 30));
}

Test(kcopyd, copies_on_disks_of_4096_byte_blocks)
{
	run_on_disks(",block=4096", 8, 1, num_rounds(2, 15));
}

Test(kcopyd, copies_on_disks_of_64_kib_blocks)
{
	run_on_disks(",block=65536", 128, 16, num_rounds(2, 10));
}

Test(kcopyd, copies_on_disks_that_split)
{
	run_on_disks(",max_io=40,chunk=56", 1, 1, num_rounds(2, 10));
}

/* ---- files and memory ----------------------------------------------------------------------- */

static bool has_direct(const char *path)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Files, by turns through the page cache and past it, and every third in memory. */
static void open_devices(void)
{
	char spec[64];

	copies_open(0, SECTORS, "");
	for (unsigned int i = 0; i < DEVICES; i++) {
		bool direct = false;

		snprintf(spec, sizeof(spec), "mem:%us,name=m%u", SECTORS, i);
		if (i % 3 != 2) {
			scratch_create(&files[i], NULL, BYTES);
			snprintf(spec, sizeof(spec), "%s", files[i].path);
			direct = i % 3 == 1 && has_direct(spec);
		}
		bdevs[i] = stage_bdev(&copies.stage, spec, direct ? DMCORE_OPEN_DIRECT : 0);
		fill(i);
	}
}

static void run_on_files(unsigned int rounds, unsigned int pages_least, unsigned int flags)
{
	allocate();
	rng_start(&rng, 77 + flags);
	open_devices();
	for (unsigned int round = 0; round < rounds; round++) {
		choose_client(8, pages_least);
		set_random(8, flags);
		run_random();
		expect_model(round);
		cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
		copies.kc = NULL;
	}
	take_down();
}

Test(kcopyd, copies_of_any_size_to_any_places_on_files_and_memory)
{
	run_on_files(num_rounds(3, 12), 1, 0);
}

Test(kcopyd, copies_in_sequence_on_files_and_memory)
{
	run_on_files(num_rounds(2, 6), 1, KCOPYD_WRITE_SEQ);
}

Test(kcopyd, copies_with_all_else_on_files_and_memory)
{
	run_on_files(num_rounds(2, 6), 2,
		     KCOPYD_FLUSH | KCOPYD_VERIFY | KCOPYD_SPARSE | KCOPYD_SHARE);
}

/* ---- many jobs at once ---------------------------------------------------------------------- */

#define JOBS 24
#define AREA (SECTORS / JOBS)

/* Each has a part of every device for itself, so that the order of the jobs doesn't matter. */
static void run_at_once(unsigned int round)
{
	static struct copy jobs[JOBS];
	static const unsigned int flags[] = { 0, KCOPYD_WRITE_SEQ, KCOPYD_IGNORE_ERROR,
					      KCOPYD_SPARSE };

	for (unsigned int j = 0; j < JOBS; j++) {
		uint64_t count = rng_below(&rng, AREA + 1);
		uint64_t begin = j * (uint64_t)AREA;

		copies_set(&jobs[j], 0, begin + rng_below(&rng, AREA - count + 1), count,
			   1 + (unsigned int)rng_below(&rng, 4), flags[rng_below(&rng, 4)]);
		for (unsigned int i = 0; i < jobs[j].job.num_dests; i++) {
			uint64_t to = begin + rng_below(&rng, AREA - count + 1);

			jobs[j].job.dests[i].sector = to;
			memcpy(model[1 + i] + to * 512, model[0] + jobs[j].job.from.sector * 512,
			       count * 512);
		}
		copies_start(&jobs[j]);
	}
	copies_scramble(&rng, jobs, JOBS);
	for (unsigned int j = 0; j < JOBS; j++)
		cr_assert_eq(jobs[j].job.status, 0);
	for (unsigned int i = 0; i < DEVICES; i++)
		copies_let_go(i);
	expect_model(round);
}

/* Requests end in a random order. */
Test(kcopyd, many_copies_at_once_in_any_order)
{
	unsigned int rounds = num_rounds(3, 15);

	allocate();
	rng_start(&rng, 5);
	copies_open(DEVICES, SECTORS, "");
	for (unsigned int i = 0; i < DEVICES; i++) {
		bdevs[i] = copies.bdev[i];
		fill(i);
	}
	for (unsigned int round = 0; round < rounds; round++) {
		choose_client(1, 1);
		for (unsigned int i = 0; i < DEVICES; i++)
			copies_hold(i, 0);
		run_at_once(round);
		cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
		copies.kc = NULL;
	}
	take_down();
}
