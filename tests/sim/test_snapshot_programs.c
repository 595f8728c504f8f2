/* SPDX-License-Identifier: MIT */
/*
 * Random programs in simulated worlds: an origin and up to four snapshots of it, with chunks of any
 * size, are read and written by several requests at once, on disks whose requests overtake each
 * other; snapshots come, go, are given to other tables, merged, and made snapshots again in the
 * midst of that. Each device is an array of sectors to itself: what is written to one is never seen
 * in another. Those under way together may end in any order; afterwards there is one content.
 *
 * DMCORE_SEED begins with another seed; a program that fails says its own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/rng.h"
#include "support/simworld.h"
#include "support/stage.h"

#define SECTORS 96u
#define COW_SECTORS 8192u
#define SNAPSHOTS 4u
#define DEVICES (SNAPSHOTS + 1)
#define ORIGIN SNAPSHOTS
#define AT_ONCE 12u
#define COUNT_MAX 24u
#define MS UINT64_C(1000000)

/* What a device holds: pattern versions. */
struct device {
	struct dmcore_device *device; /* NULL: there is none */
	char table[128];              /* of a snapshot, behind the name of its type */
	uint32_t now[SECTORS];
	uint32_t maybe[SECTORS][AT_ONCE]; /* written by requests under way */
	unsigned int num_maybe[SECTORS];
};

struct request {
	struct dmcore_bio *bio;
	unsigned int device;
	uint64_t sector; /* the bio's own are its targets' */
	uint64_t num_read;
	bool ended;
	int status;
	unsigned char data[COUNT_MAX * DMCORE_SECTOR_BYTES];
};

static struct simworld world;
static struct device devices[DEVICES];
static struct request requests[AT_ONCE];
static unsigned int num_requests;
static uint32_t next_version;
static uint64_t seed;
static struct rng rng;

/* ---- what is read --------------------------------------------------------------------------- */

static bool is_version(const unsigned char *bytes, uint64_t sector, uint32_t version)
{
	return pattern_differs(bytes, sector, 1, version) < 0;
}

/* Which of its versions a sector has; with `new_only`, one that was written. */
static uint32_t version_of(const struct device *device, const unsigned char *bytes,
			   uint64_t sector, bool new_only)
{
	unsigned int num = device->num_maybe[sector];

	for (unsigned int i = 0; i < num; i++) {
		if (is_version(bytes, sector, device->maybe[sector][i]))
			return device->maybe[sector][i];
	}
	cr_assert(!(new_only && num > 0) && is_version(bytes, sector, device->now[sector]),
		  "seed %llu: device %u, sector %llu holds none of %u and %u others",
		  (unsigned long long)seed, (unsigned int)(device - devices),
		  (unsigned long long)sector, device->now[sector], num);
	return device->now[sector];
}

/* Time passes, and whoever waits for it works. */
static void pass(uint64_t ns)
{
	cr_assert_neq(dmcore_queue_poll(world.queue, UINT32_MAX, UINT32_MAX, (int64_t)ns), -EINVAL);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void note_end(struct dmcore_bio *bio)
{
	struct request *request = bio->context;

	request->ended = true;
	request->status = bio->status;
}

static void send(unsigned int nr)
{
	struct request *request = &requests[num_requests++];
	struct dmcore_bio *bio = dmcore_bio_get(world.queue);
	uint64_t count = 1 + rng_below(&rng, COUNT_MAX);
	bool write = !rng_one_in(&rng, 3);

	cr_assert_not_null(bio);
	*request = (struct request){ .bio = bio, .device = nr };
	bio->bdev = dmcore_device_bdev(devices[nr].device);
	bio->sector = rng_below(&rng, SECTORS - count + 1);
	bio->done = note_end;
	bio->context = request;
	if (rng_one_in(&rng, 10)) {
		bio->op = DMCORE_OP_FLUSH;
		bio->sector = 0;
	} else {
		bio->op = write ? DMCORE_OP_WRITE : DMCORE_OP_READ;
		dmcore_bio_set_buffer(bio, request->data, count * DMCORE_SECTOR_BYTES);
	}
	if (bio->op == DMCORE_OP_WRITE) {
		bio->flags = rng_one_in(&rng, 5) ? DMCORE_BIO_FUA : 0;
		bio->flags |= rng_one_in(&rng, 9) ? DMCORE_BIO_PREFLUSH : 0;
		next_version++;
		pattern_fill(request->data, bio->sector, count, next_version);
		for (uint64_t s = bio->sector; s < bio->sector + count; s++) {
			struct device *device = &devices[nr];

			device->maybe[s][device->num_maybe[s]++] = next_version;
		}
	}
	request->sector = bio->sector;
	request->num_read = bio->op == DMCORE_OP_READ ? count : 0;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static void send_some(bool to_origin)
{
	unsigned int num = 1 + (unsigned int)rng_below(&rng, AT_ONCE);

	while (num-- > 0 && num_requests < AT_ONCE) {
		unsigned int nr = (unsigned int)rng_below(&rng, DEVICES);

		if (devices[nr].device && (nr != ORIGIN || to_origin))
			send(nr);
	}
}

/* Of what is known to be there when all have ended. */
static void read_all(unsigned int nr)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	struct device *device = &devices[nr];

	cr_assert_eq(dmcore_pread(dmcore_device_bdev(device->device), data, sizeof(data), 0), 0);
	for (unsigned int s = 0; s < SECTORS; s++) {
		device->now[s] = version_of(device, data + s * DMCORE_SECTOR_BYTES, s, true);
		device->num_maybe[s] = 0;
	}
}

static void wait_for_all(void)
{
	for (unsigned int i = 0; i < num_requests; i++) {
		struct request *request = &requests[i];
		struct dmcore_bio *bio = request->bio;

		while (!request->ended)
			cr_assert_geq(dmcore_queue_poll(world.queue, 1, UINT32_MAX, -1), 0,
				      "seed %llu: stuck", (unsigned long long)seed);
		cr_assert_eq(request->status, 0, "seed %llu: %d", (unsigned long long)seed,
			     request->status);
		for (uint64_t s = 0; s < request->num_read; s++)
			version_of(&devices[request->device],
				   request->data + s * DMCORE_SECTOR_BYTES, request->sector + s,
				   false);
		dmcore_bio_put(bio);
	}
	num_requests = 0;
	for (unsigned int nr = 0; nr < DEVICES; nr++) {
		if (devices[nr].device)
			read_all(nr);
	}
}

/* ---- snapshots ------------------------------------------------------------------------------ */

static void load(unsigned int nr, const char *type)
{
	struct dmcore_table *table;
	char text[192];

	snprintf(text, sizeof(text), "0 %u %s %s", SECTORS, type, devices[nr].table);
	cr_assert_eq(dmcore_table_parse(world.core, text, 0, &table), 0, "seed %llu: %s",
		     (unsigned long long)seed, dmcore_error_message());
	cr_assert_eq(dmcore_device_load(devices[nr].device, table), 0);
}

static void resume(unsigned int nr)
{
	cr_assert_eq(dmcore_device_resume(devices[nr].device), 0, "seed %llu: %s",
		     (unsigned long long)seed, dmcore_error_message());
}

static void reload(unsigned int nr, const char *type)
{
	load(nr, type);
	resume(nr);
}

static void activate(unsigned int nr)
{
	char name[8];

	snprintf(name, sizeof(name), "s%u", nr);
	cr_assert_eq(dmcore_device_create(world.core, name, NULL, 0, &devices[nr].device), 0);
	reload(nr, "snapshot");
}

static void add_snapshot(unsigned int nr)
{
	static unsigned char zeroes[DMCORE_SECTOR_BYTES];
	struct device *device = &devices[nr];

	cr_assert_eq(dmcore_pwrite(world.bdevs[1 + nr], zeroes, sizeof(zeroes), 0), 0);
	snprintf(device->table, sizeof(device->table), "sim:d0 sim:d%u %s %u", 1 + nr,
		 rng_one_in(&rng, 4) ? "N" : "P", 1u << rng_below(&rng, 6));
	activate(nr);
	memcpy(device->now, devices[ORIGIN].now, sizeof(device->now));
}

static void remove_snapshot(unsigned int nr)
{
	cr_assert_eq(dmcore_device_remove(devices[nr].device), 0);
	devices[nr].device = NULL;
}

static bool is_persistent(unsigned int nr)
{
	return strstr(devices[nr].table, " P ") != NULL;
}

/* Its text, allocated and metadata. */
static bool is_merged(unsigned int nr)
{
	const char *allocated;
	const char *metadata;
	char text[128];

	cr_assert_gt(dmcore_device_text(devices[nr].device, DMCORE_TEXT_STATUS, 0, text,
					sizeof(text)), 0);
	allocated = strstr(text, "snapshot-merge ");
	metadata = strrchr(text, ' ');
	cr_assert(allocated && metadata, "seed %llu: %s", (unsigned long long)seed, text);
	return strtoull(allocated + strlen("snapshot-merge "), NULL, 10) ==
	       strtoull(metadata, NULL, 10);
}

/* What sectors of the origin hold in the midst of a merge: the old, or anything that the snapshot
 * has held since. */
static void let_origin_be(void)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	struct device *origin = &devices[ORIGIN];

	cr_assert_eq(dmcore_pread(dmcore_device_bdev(origin->device), data, sizeof(data), 0), 0);
	for (unsigned int s = 0; s < SECTORS; s++) {
		const unsigned char *bytes = data + s * DMCORE_SECTOR_BYTES;
		uint32_t found = origin->now[s];

		for (uint32_t v = 0; v <= next_version && !is_version(bytes, s, found); v++)
			found = v;
		cr_assert(is_version(bytes, s, found));
		origin->now[s] = found;
	}
}

static void merge(unsigned int nr)
{
	struct device *origin = &devices[ORIGIN];
	struct dmcore_device *device = origin->device;

	/* Nobody writes to it by another way, nor reads what is half done. */
	origin->device = NULL;
	reload(nr, "snapshot-merge");
	send_some(false);
	if (rng_one_in(&rng, 2))
		pass(rng_below(&rng, 20 * MS));
	if (rng_one_in(&rng, 3)) {
		reload(nr, "snapshot");
		wait_for_all();
		origin->device = device;
		let_origin_be();
		return;
	}
	if (rng_one_in(&rng, 3))
		reload(nr, "snapshot-merge");
	wait_for_all();
	while (!is_merged(nr))
		pass(MS);
	wait_for_all();
	origin->device = device;
	memcpy(origin->now, devices[nr].now, sizeof(origin->now));
	remove_snapshot(nr);
}

/* ---- programs ------------------------------------------------------------------------------- */

static void control_in_between(unsigned int nr)
{
	unsigned int what = (unsigned int)rng_below(&rng, 4);

	if (!devices[nr].device)
		return;
	if (what == 0 && nr != ORIGIN) {
		reload(nr, "snapshot");
	} else if (what == 1) {
		cr_assert_eq(dmcore_device_suspend(devices[nr].device, 0, -1), 0);
		if (nr != ORIGIN)
			send_some(true);
		resume(nr);
	} else if (what == 2) {
		pass(rng_below(&rng, 5 * MS));
	}
}

static void take_step(void)
{
	unsigned int nr = (unsigned int)rng_below(&rng, SNAPSHOTS);
	unsigned int what = (unsigned int)rng_below(&rng, 12);

	if (!devices[nr].device) {
		if (what < 6)
			add_snapshot(nr);
	} else if (what == 0) {
		remove_snapshot(nr);
	} else if (what == 1 && is_persistent(nr)) {
		remove_snapshot(nr);
		activate(nr);
	} else if (what <= 3 && is_persistent(nr)) {
		merge(nr);
	}
	send_some(true);
	if (rng_one_in(&rng, 3))
		control_in_between((unsigned int)rng_below(&rng, DEVICES));
	wait_for_all();
	/* Exceptions become durable by themselves. */
	if (rng_one_in(&rng, 10))
		pass(1500 * MS);
}

static void open_world(void)
{
	static unsigned char data[SECTORS * DMCORE_SECTOR_BYTES];
	char text[64];

	memset(devices, 0, sizeof(devices));
	num_requests = 0;
	next_version = 0;
	simworld_open(&world, seed);
	world.options.read_ns = 100000;
	world.options.write_ns = 200000;
	world.options.flush_ns = 1 * MS;
	world.options.spread_ns = rng_below(&rng, 10 * MS);
	world.options.depth = rng_one_in(&rng, 2) ? 0 : 2;
	simworld_add_disk(&world, SECTORS);
	for (unsigned int i = 0; i < SNAPSHOTS; i++)
		simworld_add_disk(&world, COW_SECTORS);
	pattern_fill(data, 0, SECTORS, 0);
	cr_assert_eq(dmcore_pwrite(world.bdevs[0], data, sizeof(data), 0), 0);
	snprintf(text, sizeof(text), "0 %u snapshot-origin sim:d0", SECTORS);
	devices[ORIGIN].device = simworld_map(&world, "o", text);
}

static void run_program(unsigned int steps)
{
	rng = (struct rng){ .state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1 };
	open_world();
	for (unsigned int i = 0; i < steps; i++)
		take_step();
	for (unsigned int nr = 0; nr < DEVICES; nr++) {
		if (devices[nr].device)
			cr_assert_eq(dmcore_device_remove(devices[nr].device), 0);
	}
	cr_assert_eq(world.num_stuck, 0);
	simworld_close(&world);
}

Test(snapshot_programs, devices_are_what_was_written_to_them, .timeout = 600)
{
	unsigned int programs = rng_full() ? 20000 : rng_brief() ? 20 : 100;

	for (unsigned int i = 0; i < programs; i++) {
		seed = rng_seed() + i;
		run_program(40);
	}
}
