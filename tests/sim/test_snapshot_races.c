/* SPDX-License-Identifier: MIT */
/*
 * Requests to one chunk at once, by its origin and by its snapshot, in a simulated world: reads and
 * writes, begun at random moments while copies, exceptions and commits of the same chunk are under
 * way. Each sector of either device is to behave as if its requests were carried out one after
 * another, each at some moment between its begin and its end: all orders are tried, and one must
 * explain what was read.
 *
 * DMCORE_SEED begins with another seed; a round that fails says its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simworld.h"

#define CHUNK_SECTORS 2u
#define ROUNDS 500u /* in one world, each with a chunk of its own */
#define SECTORS (ROUNDS * CHUNK_SECTORS)
#define COW_SECTORS (SECTORS + 512)
#define AT_ONCE 7u
/* The last two read all. */
#define REQUESTS_MAX (AT_ONCE + 2)
#define US UINT64_C(1000)

enum side {
	ORIGIN,
	SNAPSHOT,
	SIDES,
};

struct request {
	struct dmcore_bio bio;
	enum side side;
	uint64_t sector; /* the bio's own are its targets' */
	unsigned int count;
	bool write;
	uint8_t version;
	uint64_t begun; /* on a clock of begins and ends */
	uint64_t ended; /* 0: not yet */
	unsigned char data[CHUNK_SECTORS * DMCORE_SECTOR_BYTES];
};

/* A request as one sector sees it. */
struct access {
	uint64_t begun;
	uint64_t ended;
	bool write;
	uint8_t version;
};

static const char *const names[SIDES] = { "the origin", "the snapshot" };

static struct simworld world;
static struct dmcore_device *devices[SIDES];
static struct request requests[REQUESTS_MAX];
static unsigned int num_requests;
static unsigned int num_ended;
static uint64_t now;
static uint64_t seed;
static unsigned int round_nr;
static struct rng rng;

/* ---- contents ------------------------------------------------------------------------------- */

/* Version 0 is of both. */
static uint64_t word_of(enum side side, uint64_t sector, uint8_t version)
{
	return UINT64_C(0xace) << 48 | sector << 16 | (version ? (uint64_t)side << 8 : 0) | version;
}

static void fill(unsigned char *data, enum side side, uint64_t sector, uint8_t version)
{
	uint64_t word = word_of(side, sector, version);

	for (unsigned int i = 0; i < DMCORE_SECTOR_BYTES; i += sizeof(word))
		memcpy(data + i, &word, sizeof(word));
}

static uint8_t version_of(const unsigned char *data, enum side side, uint64_t sector)
{
	uint64_t word;

	memcpy(&word, data, sizeof(word));
	cr_assert(word == word_of(side, sector, (uint8_t)word) &&
			  memcmp(data, data + 8, DMCORE_SECTOR_BYTES - 8) == 0,
		  "seed %llu, round %u: sector %llu of %s: %#llx", (unsigned long long)seed,
		  round_nr, (unsigned long long)sector, names[side], (unsigned long long)word);
	return (uint8_t)word;
}

/* ---- whether some order explains what was read ---------------------------------------------- */

/* Carries out those that are left, whose begin no other one's end precedes, in every order. */
static bool explains(const struct access *all, unsigned int count, unsigned int left,
		     uint8_t version)
{
	uint64_t first_end = UINT64_MAX;

	if (left == 0)
		return true;
	for (unsigned int i = 0; i < count; i++) {
		if (left & 1u << i && all[i].ended < first_end)
			first_end = all[i].ended;
	}
	for (unsigned int i = 0; i < count; i++) {
		if (!(left & 1u << i) || all[i].begun > first_end)
			continue;
		if (!all[i].write && all[i].version != version)
			continue;
		if (explains(all, count, left & ~(1u << i), all[i].version))
			return true;
	}
	return false;
}

static unsigned int collect(enum side side, uint64_t sector, struct access *all)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < num_requests; i++) {
		const struct request *request = &requests[i];
		uint64_t at = sector - request->sector;

		if (request->side != side || sector < request->sector || at >= request->count)
			continue;
		all[count++] = (struct access){
			.begun = request->begun,
			.ended = request->ended,
			.write = request->write,
			.version = request->write ? request->version :
						    version_of(request->data +
								       at * DMCORE_SECTOR_BYTES,
							       side, sector),
		};
	}
	return count;
}

static void tell(const struct access *all, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		fprintf(stderr, "%s %u from %llu to %llu\n", all[i].write ? "write" : "read ",
			all[i].version, (unsigned long long)all[i].begun,
			(unsigned long long)all[i].ended);
}

static void judge(enum side side, uint64_t sector)
{
	struct access all[REQUESTS_MAX] = { 0 };
	unsigned int count = collect(side, sector, all);

	if (explains(all, count, (1u << count) - 1, 0))
		return;
	tell(all, count);
	cr_assert_fail("seed %llu, round %u: no order explains sector %llu of %s",
		       (unsigned long long)seed, round_nr, (unsigned long long)sector,
		       names[side]);
}

/* ---- rounds --------------------------------------------------------------------------------- */

static void note_end(struct dmcore_bio *bio)
{
	struct request *request = bio->context;

	cr_assert_eq(bio->status, 0);
	cr_assert_eq(request->ended, 0);
	request->ended = ++now;
	num_ended++;
}

static void send(enum side side, bool write, uint64_t sector, unsigned int count)
{
	struct request *request = &requests[num_requests++];
	struct dmcore_bio *bio = &request->bio;

	request->side = side;
	request->sector = sector;
	request->count = count;
	request->write = write;
	request->version = (uint8_t)num_requests;
	request->begun = ++now;
	request->ended = 0;
	for (unsigned int i = 0; i < count && write; i++)
		fill(request->data + i * DMCORE_SECTOR_BYTES, side, sector + i, request->version);
	bio->bdev = dmcore_device_bdev(devices[side]);
	bio->op = write ? DMCORE_OP_WRITE : DMCORE_OP_READ;
	bio->flags = write && rng_one_in(&rng, 6) ? DMCORE_BIO_FUA : 0;
	bio->sector = sector;
	bio->done = note_end;
	bio->context = request;
	dmcore_bio_set_buffer(bio, request->data, count * DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static void wait_for_all(void)
{
	while (num_ended < num_requests)
		cr_assert_geq(dmcore_queue_poll(world.queue, 1, UINT32_MAX, -1), 0,
			      "seed %llu, round %u: stuck", (unsigned long long)seed, round_nr);
}

static void send_some(uint64_t chunk)
{
	unsigned int num = 2 + (unsigned int)rng_below(&rng, AT_ONCE - 1);
	bool hurried = rng_one_in(&rng, 3);

	while (num-- > 0) {
		unsigned int first = (unsigned int)rng_below(&rng, CHUNK_SECTORS);
		unsigned int count = 1 + (unsigned int)rng_below(&rng, CHUNK_SECTORS - first);

		send(rng_one_in(&rng, 2) ? ORIGIN : SNAPSHOT, !rng_one_in(&rng, 3),
		     chunk * CHUNK_SECTORS + first, count);
		if (!hurried && rng_one_in(&rng, 2))
			dmcore_queue_poll(world.queue, UINT32_MAX, UINT32_MAX,
					  (int64_t)rng_below(&rng, 400 * US));
	}
}

static void run_round(uint64_t chunk)
{
	num_requests = 0;
	num_ended = 0;
	now = 0;
	send_some(chunk);
	wait_for_all();
	send(ORIGIN, false, chunk * CHUNK_SECTORS, CHUNK_SECTORS);
	send(SNAPSHOT, false, chunk * CHUNK_SECTORS, CHUNK_SECTORS);
	wait_for_all();
	for (unsigned int i = 0; i < CHUNK_SECTORS; i++) {
		judge(ORIGIN, chunk * CHUNK_SECTORS + i);
		judge(SNAPSHOT, chunk * CHUNK_SECTORS + i);
	}
}

static void open_world(void)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	char text[96];

	simworld_open(&world, seed);
	world.options.read_ns = 50 * US;
	world.options.write_ns = 80 * US;
	world.options.flush_ns = 100 * US;
	world.options.spread_ns = rng_below(&rng, 3) * 200 * US;
	world.options.depth = rng_one_in(&rng, 4) ? 1 : 0;
	simworld_add_disk(&world, SECTORS);
	simworld_add_disk(&world, COW_SECTORS);
	for (uint64_t i = 0; i < SECTORS; i++)
		fill(data + i * DMCORE_SECTOR_BYTES, ORIGIN, i, 0);
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], data, sizeof(data), 0), 0);
	snprintf(text, sizeof(text), "0 %u snapshot sim:d0 sim:d1 %s %u", SECTORS,
		 rng_one_in(&rng, 3) ? "N" : "P", CHUNK_SECTORS);
	devices[SNAPSHOT] = simworld_map(&world, "s", text);
	snprintf(text, sizeof(text), "0 %u snapshot-origin sim:d0", SECTORS);
	devices[ORIGIN] = simworld_map(&world, "o", text);
	for (unsigned int i = 0; i < REQUESTS_MAX; i++)
		dmcore_bio_init(&requests[i].bio, world.queue);
}

static void run_world(void)
{
	rng_start(&rng, seed);
	open_world();
	for (round_nr = 0; round_nr < ROUNDS; round_nr++)
		run_round(round_nr);
	for (unsigned int side = 0; side < SIDES; side++)
		cr_assert_eq(dmcore_device_remove(devices[side]), 0);
	cr_assert_eq(world.num_stuck, 0);
	simworld_close(&world);
}

Test(snapshot_races, requests_to_one_chunk_are_as_if_one_after_another, .timeout = 600)
{
	unsigned int worlds = rng_full() ? 20000 : rng_brief() ? 10 : 200;

	for (unsigned int i = 0; i < worlds; i++) {
		seed = rng_seed() + i;
		run_world();
	}
}
