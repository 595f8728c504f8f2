/* SPDX-License-Identifier: MIT */
/*
 * Recovery beside the requests of others, in the time of a simulated world: how much longer those
 * take, how far recovery comes all the same, and how fast it is when it is alone.
 *
 * DMCORE_PACE_LOG=1 tells the numbers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/sim.h>

#include "support/rng.h"
#include "support/simworld.h"

#define SECTORS UINT64_C(65536)
#define REGION_SECTORS 128u
#define IO_SECTORS 8u
#define DEPTH_MAX 8u
#define REQUESTS 20000u
#define US UINT64_C(1000)
#define MS (1000 * US)
/* Of one disk, on which requests queue up. */
#define REQUEST_NS (100 * US)
#define SECTOR_NS UINT64_C(1000)

struct slot {
	struct dmcore_bio bio;
	uint64_t begun_ns;
	unsigned char data[IO_SECTORS * DMCORE_SECTOR_BYTES];
};

static struct simworld world;
static struct dmcore_device *device;
static struct slot slots[DEPTH_MAX];
static struct rng rng;
static enum dmcore_op op;
static uint64_t times_ns[REQUESTS];
static unsigned int num_sent;
static unsigned int num_ended;

static void open_world(const char *sync)
{
	char text[120];

	rng_start(&rng, 14);
	simworld_open(&world, 14);
	world.options.read_ns = REQUEST_NS;
	world.options.write_ns = REQUEST_NS;
	world.options.flush_ns = REQUEST_NS;
	world.options.sector_ns = SECTOR_NS;
	world.options.spread_ns = REQUEST_NS;
	world.options.depth = 1;
	simworld_add_disk(&world, SECTORS);
	simworld_add_disk(&world, SECTORS);
	snprintf(text, sizeof(text), "0 %u mirror core 2 %u %s 2 sim:d0 0 sim:d1 0",
		 (unsigned int)SECTORS, REGION_SECTORS, sync);
	device = simworld_map(&world, "m", text);
	for (unsigned int i = 0; i < DEPTH_MAX; i++)
		dmcore_bio_init(&slots[i].bio, world.queue);
}

static void close_world(void)
{
	cr_assert_eq(dmcore_device_remove(device), 0);
	simworld_close(&world);
}

static uint64_t num_in_sync(void)
{
	char line[300];
	const char *at;

	cr_assert_gt(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, line, sizeof(line)), 0);
	at = strchr(line, '/');
	cr_assert(at, "%s", line);
	while (at[-1] != ' ')
		at--;
	return strtoull(at, NULL, 10);
}

static void pass(uint64_t ns)
{
	uint64_t until_ns = dmcore_sim_now_ns(world.sim) + ns;
	uint64_t now_ns;

	while ((now_ns = dmcore_sim_now_ns(world.sim)) < until_ns)
		cr_assert_geq(dmcore_queue_poll(world.queue, 1, UINT32_MAX,
						(int64_t)(until_ns - now_ns)),
			      0);
}

/* ---- those who use the mirror ---- */

static void send(struct slot *slot);

static void note_end(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;

	cr_assert_eq(bio->status, 0);
	times_ns[num_ended++] = dmcore_sim_now_ns(world.sim) - slot->begun_ns;
	if (num_sent < REQUESTS)
		send(slot);
}

static void send(struct slot *slot)
{
	struct dmcore_bio *bio = &slot->bio;

	num_sent++;
	slot->begun_ns = dmcore_sim_now_ns(world.sim);
	bio->bdev = dmcore_device_bdev(device);
	bio->op = (uint8_t)op;
	bio->flags = 0;
	bio->sector = rng_below(&rng, SECTORS / IO_SECTORS) * IO_SECTORS;
	bio->done = note_end;
	bio->context = slot;
	dmcore_bio_set_buffer(bio, slot->data, sizeof(slot->data));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

/* Random requests, so many at a time; what 99 of 100 of them take at most. */
static uint64_t measure_p99_ns(unsigned int depth)
{
	num_sent = 0;
	num_ended = 0;
	for (unsigned int i = 0; i < depth; i++)
		send(&slots[i]);
	while (num_ended < REQUESTS)
		cr_assert_geq(dmcore_queue_poll(world.queue, 1, UINT32_MAX, -1), 0);
	qsort(times_ns, REQUESTS, sizeof(times_ns[0]), compare);
	return times_ns[REQUESTS * 99 / 100];
}

/* How long a region takes: its read and its write, each behind all others. */
static uint64_t run_ns(unsigned int depth)
{
	uint64_t longest_ns = 2 * REQUEST_NS;

	return 2 * (longest_ns + REGION_SECTORS * SECTOR_NS +
		    depth * (longest_ns + IO_SECTORS * SECTOR_NS));
}

static void expect_bounded(enum dmcore_op kind, unsigned int depth)
{
	uint64_t alone_ns;
	uint64_t beside_ns;
	uint64_t before;
	uint64_t took_ns;
	uint64_t came;

	op = kind;
	open_world("nosync");
	alone_ns = measure_p99_ns(depth);
	close_world();
	open_world("sync");
	/* The first run began while nobody was there. */
	measure_p99_ns(depth);
	before = num_in_sync();
	took_ns = dmcore_sim_now_ns(world.sim);
	beside_ns = measure_p99_ns(depth);
	took_ns = dmcore_sim_now_ns(world.sim) - took_ns;
	came = num_in_sync() - before;
	if (getenv("DMCORE_PACE_LOG"))
		fprintf(stderr, "op %u, depth %u: p99 %llu us, beside recovery %llu us; %llu "
				"regions in %llu ms\n",
			kind, depth, (unsigned long long)(alone_ns / US),
			(unsigned long long)(beside_ns / US), (unsigned long long)came,
			(unsigned long long)(took_ns / MS));
	cr_assert_lt(before + came, SECTORS / REGION_SECTORS, "recovery has ended too early");
	cr_assert_leq(2 * beside_ns, 3 * alone_ns, "%llu us, alone %llu us",
		      (unsigned long long)(beside_ns / US), (unsigned long long)(alone_ns / US));
	cr_assert_geq(came, took_ns / (258 * run_ns(depth)), "%llu regions in %llu ms",
		      (unsigned long long)came, (unsigned long long)(took_ns / MS));
	cr_assert_gt(came, 0);
	close_world();
}

Test(mirror_pace, reads_one_by_one_hardly_feel_recovery, .timeout = 600)
{
	expect_bounded(DMCORE_OP_READ, 1);
}

Test(mirror_pace, reads_eight_at_once_hardly_feel_recovery, .timeout = 600)
{
	expect_bounded(DMCORE_OP_READ, DEPTH_MAX);
}

Test(mirror_pace, writes_one_by_one_hardly_feel_recovery, .timeout = 600)
{
	expect_bounded(DMCORE_OP_WRITE, 1);
}

Test(mirror_pace, writes_eight_at_once_hardly_feel_recovery, .timeout = 600)
{
	expect_bounded(DMCORE_OP_WRITE, DEPTH_MAX);
}

/* Each leg moves SECTORS at 1 us each; requests of recovery are long, and at once on both. */
static void expect_full_speed(uint64_t wait_ns)
{
	uint64_t begun_ns = dmcore_sim_now_ns(world.sim);
	uint64_t left = SECTORS / REGION_SECTORS - num_in_sync();
	uint64_t took_ns;

	while (num_in_sync() < SECTORS / REGION_SECTORS)
		pass(MS);
	took_ns = dmcore_sim_now_ns(world.sim) - begun_ns;
	if (getenv("DMCORE_PACE_LOG"))
		fprintf(stderr, "alone: %llu regions in %llu ms\n", (unsigned long long)left,
			(unsigned long long)(took_ns / MS));
	cr_assert_gt(left, SECTORS / REGION_SECTORS / 2);
	cr_assert_leq(took_ns, wait_ns + 5 * left * REGION_SECTORS * SECTOR_NS / 2, "%llu ms",
		      (unsigned long long)(took_ns / MS));
}

Test(mirror_pace, recovery_has_the_legs_to_itself_when_nobody_uses_them, .timeout = 600)
{
	open_world("sync");
	expect_full_speed(0);
	close_world();
}

Test(mirror_pace, recovery_has_the_legs_to_itself_again_when_the_others_have_gone, .timeout = 600)
{
	op = DMCORE_OP_WRITE;
	open_world("sync");
	measure_p99_ns(1);
	/* The pause of the last run beside them, and one in which it sees that they have gone. */
	expect_full_speed(2 * 128 * run_ns(1));
	close_world();
}
