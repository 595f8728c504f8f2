/* SPDX-License-Identifier: MIT */
/*
 * The same random requests over every backend and driver: each ends with the same status and reads
 * the same data, and the devices hold the same bytes in the end.
 *
 *	DMCORE_SEED=N        the start of all random choices
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/sim.h>

#include "support/rng.h"
#include "support/scratch.h"
#include "support/stage.h"

#define REQUESTS 10000u
#define REQUESTS_BRIEF 1000u
#define AT_ONCE_MAX 16u
#define LEAVES 3u
#define LEAF_SECTORS 512u
#define LEAF_BYTES ((size_t)LEAF_SECTORS * DMCORE_SECTOR_BYTES)
/* Of the table below; some requests go beyond. */
#define SIZE 1000u
#define COUNT_MAX 48u

static const char table[] = "0 384 striped 2 16 %s 0 %s 8\n"
			    "384 116 linear %s 300\n"
			    "500 20 error\n"
			    "520 80 zero\n"
			    "600 390 striped 3 5 %s 220 %s 330 %s 10\n"
			    "990 10 linear %s 500";

struct request {
	uint8_t op;
	uint16_t flags;
	uint64_t sector;
	uint64_t count;
	uint32_t at_once; /* of the first of some: so many are under way together */
};

/* What came of a request. */
struct result {
	int status;
	unsigned int ends;
	uint64_t hash; /* of what was read */
};

static uint32_t num_requests;
static struct request requests[REQUESTS];

struct outcome {
	struct result results[REQUESTS];
	unsigned char leaves[LEAVES][LEAF_BYTES];
};

static struct outcome expected;
static struct outcome got;

static unsigned char memory[AT_ONCE_MAX][COUNT_MAX * DMCORE_SECTOR_BYTES];

/* FNV-1a. */
static uint64_t hash(const unsigned char *bytes, size_t count)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < count; i++)
		sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
	return sum;
}

/* ---- the requests --------------------------------------------------------------------------- */

static bool touches(const struct request *a, const struct request *b)
{
	return a->sector < b->sector + b->count && b->sector < a->sector + a->count;
}

static void make_request(struct rng *rng, struct request *request)
{
	static const uint8_t ops[] = {
		DMCORE_OP_READ,	 DMCORE_OP_READ,  DMCORE_OP_READ,	 DMCORE_OP_WRITE,
		DMCORE_OP_WRITE, DMCORE_OP_WRITE, DMCORE_OP_WRITE_ZEROES, DMCORE_OP_FLUSH,
		DMCORE_OP_DISCARD,
	};

	*request = (struct request){ .op = ops[rng_below(rng, sizeof(ops))] };
	if (request->op == DMCORE_OP_FLUSH)
		return;
	request->sector = rng_below(rng, SIZE + 4);
	request->count = rng_between(rng, 1, COUNT_MAX);
	if (request->op == DMCORE_OP_WRITE || request->op == DMCORE_OP_WRITE_ZEROES)
		request->flags = (uint16_t)(rng_one_in(rng, 8) ? DMCORE_BIO_FUA : 0) |
				 (uint16_t)(rng_one_in(rng, 8) ? DMCORE_BIO_PREFLUSH : 0);
}

/* In groups, within which no two touch the same sector. */
static void make_requests(void)
{
	struct rng rng;
	uint32_t size = 0;

	rng_start(&rng, 17);
	for (uint32_t nr = 0; nr < num_requests; nr += size) {
		uint32_t wanted = (uint32_t)rng_between(&rng, 1, AT_ONCE_MAX);

		for (size = 0; size < wanted && nr + size < num_requests; size++) {
			bool fits = true;

			make_request(&rng, &requests[nr + size]);
			for (uint32_t i = 0; i < size && fits; i++)
				fits = !touches(&requests[nr + i], &requests[nr + size]);
			if (!fits)
				break;
		}
		requests[nr].at_once = size;
	}
}

/* ---- running them --------------------------------------------------------------------------- */

static void note_end(struct dmcore_bio *bio)
{
	struct result *result = bio->context;

	result->status = bio->status;
	result->ends++;
	dmcore_bio_put(bio);
}

static void submit(struct stage *stage, struct dmcore_bdev *bdev, uint32_t nr, uint32_t slot,
		   struct result *result)
{
	const struct request *request = &requests[nr];
	bool has_memory = request->op <= DMCORE_OP_WRITE;
	struct dmcore_bio *bio;

	*result = (struct result){ 0 };
	if (request->op == DMCORE_OP_WRITE)
		pattern_fill(memory[slot], request->sector, request->count, nr);
	bio = stage_bio(stage, bdev, request->op, request->sector, request->count,
			has_memory ? memory[slot] : NULL, NULL);
	bio->flags = request->flags;
	bio->done = note_end;
	bio->context = result;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static bool all_ended(const struct result *results, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (results[i].ends == 0)
			return false;
	}
	return true;
}

static void run_requests(struct stage *stage, struct dmcore_bdev *bdev, struct outcome *outcome)
{
	for (uint32_t nr = 0; nr < num_requests; nr += requests[nr].at_once) {
		struct result *results = &outcome->results[nr];
		uint32_t count = requests[nr].at_once;

		for (uint32_t i = 0; i < count; i++)
			submit(stage, bdev, nr + i, i, &results[i]);
		while (!all_ended(results, count))
			cr_assert_geq(dmcore_queue_poll(stage->queue, 1, UINT32_MAX,
							STAGE_PATIENCE_NS), 0);
		for (uint32_t i = 0; i < count; i++) {
			if (requests[nr + i].op == DMCORE_OP_READ && results[i].status == 0)
				results[i].hash = hash(memory[i], requests[nr + i].count *
							       DMCORE_SECTOR_BYTES);
		}
	}
	stage_settle(stage);
}

/* The whole: a device on these leaves, the requests, and what the leaves hold. Closes the stage. */
static void run_on(struct stage *stage, const char *const *leaves, struct outcome *outcome)
{
	char text[1024];
	struct dmcore_bdev *bdevs[LEAVES];
	struct dmcore_bdev *bdev;

	snprintf(text, sizeof(text), table, leaves[0], leaves[1], leaves[2], leaves[0], leaves[1],
		 leaves[2], leaves[0]);
	for (unsigned int i = 0; i < LEAVES; i++)
		bdevs[i] = stage_bdev(stage, leaves[i], 0);
	bdev = stage_map(stage, "m", text);
	run_requests(stage, bdev, outcome);
	for (unsigned int i = 0; i < LEAVES; i++)
		cr_assert_eq(dmcore_pread(bdevs[i], outcome->leaves[i], LEAF_BYTES, 0), 0);
	stage_close(stage);
}

static void run_on_memory(struct outcome *outcome)
{
	const char *const leaves[LEAVES] = { "mem:512s,name=a", "mem:512s,name=b",
					     "mem:512s,name=c" };

	struct stage stage;

	stage_open(&stage, NULL, NULL);
	run_on(&stage, leaves, outcome);
}

static void run_on_files(const struct dmcore_queue_options *options, struct outcome *outcome)
{
	struct scratch files[LEAVES];
	const char *leaves[LEAVES];
	struct stage stage;

	for (unsigned int i = 0; i < LEAVES; i++) {
		scratch_create(&files[i], access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL,
			       LEAF_BYTES);
		leaves[i] = files[i].path;
	}
	stage_open(&stage, NULL, options);
	run_on(&stage, leaves, outcome);
	for (unsigned int i = 0; i < LEAVES; i++)
		scratch_close(&files[i]);
}

/* On simulated disks whose requests overtake each other. */
static void run_in_a_world(unsigned int disk_flags, struct outcome *outcome)
{
	static const char *const leaves[LEAVES] = { "sim:a", "sim:b", "sim:c" };
	struct dmcore_sim_disk_options options = {
		.struct_size = sizeof(options),
		.sectors = LEAF_SECTORS,
		.flags = disk_flags,
		.spread_ns = 100000,
		.depth = 5,
	};
	struct dmcore_sim_disk *disk;
	struct dmcore_sim *sim;
	struct stage stage;

	memset(&stage, 0, sizeof(stage));
	cr_assert_eq(dmcore_sim_create(NULL, &sim), 0);
	for (unsigned int i = 0; i < LEAVES; i++)
		cr_assert_eq(dmcore_sim_disk_create(sim, leaves[i] + strlen("sim:"), &options,
						    &disk), 0);
	cr_assert_eq(dmcore_sim_core(sim, NULL, &stage.core), 0);
	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &stage.queue), 0);
	run_on(&stage, leaves, outcome);
	cr_assert_eq(dmcore_sim_destroy(sim), 0);
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void compare(const char *what)
{
	for (uint32_t nr = 0; nr < num_requests; nr++) {
		const struct result *a = &expected.results[nr];
		const struct result *b = &got.results[nr];

		cr_assert_eq(b->ends, 1, "%s: request %u ended %u times, seed %lu", what, nr,
			     b->ends, (unsigned long)rng_seed());
		cr_assert(a->status == b->status && a->hash == b->hash,
			  "%s: request %u ended with %d, in memory with %d, seed %lu", what, nr,
			  b->status, a->status, (unsigned long)rng_seed());
	}
	for (unsigned int i = 0; i < LEAVES; i++)
		cr_assert(memcmp(expected.leaves[i], got.leaves[i], LEAF_BYTES) == 0,
			  "%s: leaf %u differs, seed %lu", what, i, (unsigned long)rng_seed());
}

static void set_up(void)
{
	unsigned int failed = 0;

	num_requests = rng_brief() ? REQUESTS_BRIEF : REQUESTS;
	make_requests();
	run_on_memory(&expected);
	for (uint32_t nr = 0; nr < num_requests; nr++)
		failed += expected.results[nr].status != 0;
	/* Beyond the end, in the middle of an error target, and zeroes where there are none. */
	cr_assert_gt(failed, num_requests / 50);
	cr_assert_lt(failed, num_requests / 2);
}

TestSuite(backends, .init = set_up);

static void run_with(enum dmcore_backend backend, unsigned int depth, unsigned int workers,
		     const char *what)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = backend;
	options.depth = depth;
	options.workers = workers;
	run_on_files(&options, &got);
	compare(what);
}

Test(backends, memory_does_the_same_twice)
{
	run_on_memory(&got);
	compare("memory");
}

Test(backends, simulated_disks_do_what_memory_does)
{
	run_in_a_world(0, &got);
	compare("simulated disks");
	run_in_a_world(DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_WRITE_ZEROES, &got);
	compare("simulated disks that can do little");
}

Test(backends, files_by_pread_do_what_memory_does)
{
	run_with(DMCORE_BACKEND_PREAD, 0, 0, "pread");
	run_with(DMCORE_BACKEND_PREAD, 4, 3, "pread with workers");
}

Test(backends, files_by_io_uring_do_what_memory_does)
{
	if (!stage_has_io_uring())
		cr_skip("no io_uring here");
	run_with(DMCORE_BACKEND_IO_URING, 0, 0, "io_uring");
	run_with(DMCORE_BACKEND_IO_URING, 4, 0, "io_uring of depth 4");
}
