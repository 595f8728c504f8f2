/* SPDX-License-Identifier: MIT */
/*
 * Many more writers than there are copies at once, on slow disks in a simulated world, while other
 * snapshots of the same origin are made, suspended, reloaded and removed: all of it comes to an
 * end, within the time that the disks need, and the snapshot that stays is of its moment.
 */
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simworld.h"
#include "support/stage.h"

#define CHUNK_SECTORS 8u
#define CHUNKS 600u
#define SECTORS (CHUNKS * CHUNK_SECTORS)
#define COW_SECTORS (2 * SECTORS)
#define GUESTS 3u /* snapshots that come and go */
#define MS UINT64_C(1000000)
/* One disk request after another for each chunk, over and over, would take longer. */
#define BUDGET_NS (UINT64_C(60) * 1000 * MS)

static struct simworld world;
static struct dmcore_device *origin;
static struct dmcore_device *host; /* the snapshot that stays */
static struct dmcore_device *guests[GUESTS];
static struct dmcore_bio writes[CHUNKS];
static unsigned char bytes[CHUNKS][CHUNK_SECTORS * DMCORE_SECTOR_BYTES];
static unsigned int num_ended;
static struct rng rng;

static void note_end(struct dmcore_bio *bio)
{
	cr_assert_eq(bio->status, 0);
	num_ended++;
}

static void write_chunk(unsigned int chunk)
{
	struct dmcore_bio *bio = &writes[chunk];

	dmcore_bio_init(bio, world.queue);
	pattern_fill(bytes[chunk], chunk * CHUNK_SECTORS, CHUNK_SECTORS, 1);
	bio->bdev = dmcore_device_bdev(origin);
	bio->op = DMCORE_OP_WRITE;
	bio->sector = chunk * CHUNK_SECTORS;
	bio->done = note_end;
	dmcore_bio_set_buffer(bio, bytes[chunk], sizeof(bytes[chunk]));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static void load_guest(unsigned int nr)
{
	struct dmcore_table *table;
	char text[96];

	snprintf(text, sizeof(text), "0 %u snapshot sim:d0 sim:d%u %s %u", SECTORS, nr + 2,
		 nr % 2 ? "N" : "P", 4u << nr);
	cr_assert_eq(dmcore_table_parse(world.core, text, 0, &table), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_load(guests[nr], table), 0);
	cr_assert_eq(dmcore_device_resume(guests[nr]), 0, "%s", dmcore_error_message());
}

static void add_guest(unsigned int nr)
{
	static unsigned char zeroes[DMCORE_SECTOR_BYTES];
	char name[8];

	cr_assert_eq(dmcore_pwrite(world.bdevs[nr + 2], zeroes, sizeof(zeroes), 0), 0);
	snprintf(name, sizeof(name), "g%u", nr);
	cr_assert_eq(dmcore_device_create(world.core, name, NULL, 0, &guests[nr]), 0);
	load_guest(nr);
}

static void trouble(unsigned int nr)
{
	if (!guests[nr]) {
		add_guest(nr);
	} else if (rng_one_in(&rng, 3)) {
		load_guest(nr);
	} else if (rng_one_in(&rng, 2)) {
		cr_assert_eq(dmcore_device_suspend(guests[nr], 0, -1), 0);
		cr_assert_eq(dmcore_device_resume(guests[nr]), 0);
	} else {
		cr_assert_eq(dmcore_device_remove(guests[nr]), 0);
		guests[nr] = NULL;
	}
}

static void open_world(uint64_t seed)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	char text[96];

	rng_start(&rng, seed);
	num_ended = 0;
	memset(guests, 0, sizeof(guests));
	simworld_open(&world, seed);
	world.options.read_ns = MS;
	world.options.write_ns = 2 * MS;
	world.options.flush_ns = 5 * MS;
	world.options.spread_ns = rng_below(&rng, 3) * 4 * MS;
	world.options.depth = 1 + (unsigned int)rng_below(&rng, 8);
	simworld_add_disk(&world, SECTORS);
	for (unsigned int i = 0; i < 1 + GUESTS; i++)
		simworld_add_disk(&world, COW_SECTORS);
	pattern_fill(data, 0, SECTORS, 0);
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], data, sizeof(data), 0), 0);
	snprintf(text, sizeof(text), "0 %u snapshot sim:d0 sim:d1 P %u", SECTORS, CHUNK_SECTORS);
	host = simworld_map(&world, "h", text);
	snprintf(text, sizeof(text), "0 %u snapshot-origin sim:d0", SECTORS);
	origin = simworld_map(&world, "o", text);
}

static void expect(struct dmcore_device *device, uint32_t version)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];

	cr_assert_eq(dmcore_pread(dmcore_device_bdev(device), data, sizeof(data), 0), 0);
	cr_assert_lt(pattern_differs(data, 0, SECTORS, version), 0);
}

static void close_world(void)
{
	for (unsigned int i = 0; i < GUESTS; i++) {
		if (guests[i])
			cr_assert_eq(dmcore_device_remove(guests[i]), 0);
	}
	expect(host, 0);
	expect(origin, 1);
	cr_assert_eq(dmcore_device_remove(host), 0);
	cr_assert_eq(dmcore_device_remove(origin), 0);
	cr_assert_eq(world.num_stuck, 0);
	cr_assert_lt(dmcore_sim_now_ns(world.sim), BUDGET_NS);
	simworld_close(&world);
}

Test(snapshot_crowd, of_writers_beside_snapshots_that_come_and_go_comes_to_an_end, .timeout = 600)
{
	unsigned int worlds = rng_full() ? 1000 : rng_brief() ? 4 : 40;

	for (unsigned int i = 0; i < worlds; i++) {
		open_world(rng_seed() + i);
		for (unsigned int chunk = 0; chunk < CHUNKS; chunk++) {
			write_chunk(chunk);
			if (rng_one_in(&rng, 20))
				trouble((unsigned int)rng_below(&rng, GUESTS));
		}
		while (num_ended < CHUNKS)
			cr_assert_geq(dmcore_queue_poll(world.queue, 1, UINT32_MAX, -1), 0,
				      "seed %llu: stuck, %u of %u have ended",
				      (unsigned long long)(rng_seed() + i), num_ended, CHUNKS);
		close_world();
	}
}
