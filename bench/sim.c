/* SPDX-License-Identifier: MIT */
/*
 * A simulated world: what a request costs, in which every byte is hashed and kept until it is
 * durable, and what a crash state does. Called by main.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

/* The first half is written, the second read. */
#define DISK_SECTORS 8192u
#define HALF_SECTORS 4096u
#define FLUSH_EVERY 64u
#define BATCH 32u
#define IO_BAR_NS 1000

#define STATES_DISK_SECTORS 512u
/* Units of which each cut leaves one thing or another: 256 states. */
#define UNCERTAIN 8u
#define CHECKED_SECTORS 16u
#define ROUNDS_MAX 64u
#define STATES_BAR_NS 10000

struct world {
	struct rig rig;
	struct dmcore_sim *sim;
	struct dmcore_bdev *written[2]; /* linears on a simulated disk and on memory */
	struct dmcore_bdev *read[2];
	struct dmcore_bdev *states_bdev;
};

static int add_disk(struct world *world, const char *name, uint64_t sectors)
{
	struct dmcore_sim_disk_options options = { .struct_size = sizeof(options),
						   .sectors = sectors };
	struct dmcore_sim_disk *disk;
	int ret = dmcore_sim_disk_create(world->sim, name, &options, &disk);

	return ret ? bench_fail(world->rig.bench, ret, "%s: %s", name, dmcore_error_message()) : 0;
}

/* Numbers the blocks of a device. */
static int stamp(struct world *world, struct dmcore_bdev *bdev)
{
	char block[BENCH_BLOCK_BYTES];
	int ret = 0;

	for (uint64_t i = 0; i < HALF_SECTORS / BENCH_BLOCK_SECTORS && ret == 0; i++) {
		uint64_t number = bench_mix(i + 1);

		memset(block, 0, sizeof(block));
		memcpy(block, &number, sizeof(number));
		ret = dmcore_pwrite(bdev, block, sizeof(block), i * sizeof(block));
	}
	if (ret == 0)
		ret = dmcore_flush(bdev);
	return ret ? bench_fail(world->rig.bench, ret, "blocks: %s", dmcore_error_message()) : 0;
}

static int make_request_devices(struct world *world)
{
	struct rig *rig = &world->rig;
	int ret = add_disk(world, "disk", DISK_SECTORS);

	if (ret)
		return ret;
	world->written[0] = rig_map(rig, "sim-written", "0 4096 linear sim:disk 0");
	world->written[1] = rig_map(rig, "mem-written", "0 4096 linear mem:4M,name=m 0");
	world->read[0] = rig_map(rig, "sim-read", "0 4096 linear sim:disk 4096");
	world->read[1] = rig_map(rig, "mem-read", "0 4096 linear mem:4M,name=m 4096");
	if (!world->written[0] || !world->written[1] || !world->read[0] || !world->read[1])
		return -EIO;
	ret = stamp(world, world->read[0]);
	return ret ? ret : stamp(world, world->read[1]);
}

static int make_states_device(struct world *world)
{
	int ret = add_disk(world, "small", STATES_DISK_SECTORS);

	if (ret)
		return ret;
	world->states_bdev = rig_map(&world->rig, "states", "0 512 linear sim:small 0");
	return world->states_bdev ? 0 : -EIO;
}

static int open_world(struct world *world, struct bench *bench)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	int ret;

	memset(world, 0, sizeof(*world));
	world->rig.bench = bench;
	world->rig.buffers = load_buffers(BENCH_BLOCK_SECTORS);
	if (!world->rig.buffers)
		return bench_fail(bench, -ENOMEM, "buffers");
	ret = dmcore_sim_create(NULL, &world->sim);
	if (ret == 0)
		ret = dmcore_sim_core(world->sim, NULL, &world->rig.core);
	if (ret == 0)
		ret = dmcore_queue_create(world->rig.core, &options, &world->rig.queue);
	if (ret)
		bench_fail(bench, ret, "world: %s", dmcore_error_message());
	return ret;
}

static void close_world(struct world *world)
{
	rig_close(&world->rig);
	if (dmcore_sim_destroy(world->sim))
		bench_fail(world->rig.bench, -EBUSY, "dmcore_sim_destroy: %s",
			   dmcore_error_message());
}

/* ---- requests ---- */

static int flush(struct load *load)
{
	struct dmcore_bio *bio = dmcore_bio_get(load->queue);
	struct dmcore_bio *ended;
	int ret;

	if (!bio)
		return -EBUSY;
	bio->bdev = load->bdev;
	bio->op = DMCORE_OP_FLUSH;
	ret = dmcore_bio_submit(bio);
	while (ret == 0 && dmcore_queue_reap(load->queue, &ended, 1) == 0) {
		int polled = dmcore_queue_poll(load->queue, 1, 1, -1);

		ret = polled < 0 && polled != -EINTR ? polled : 0;
	}
	if (ret == 0)
		ret = bio->status;
	dmcore_bio_put(bio);
	return ret;
}

/* Writes, and a flush after so many. */
static int run_writes(void *context, struct bench_run *run)
{
	struct bench_run part;
	int ret = 0;

	while (ret == 0 && run->completed < run->count) {
		part = (struct bench_run){ .seed = run->seed + run->completed,
					   .count = FLUSH_EVERY };
		ret = load_run(context, &part);
		if (ret == 0)
			ret = flush(context);
		run->completed += part.completed;
		run->hash += part.hash;
	}
	return ret;
}

static struct load load_of(struct world *world, struct dmcore_bdev *bdev, enum dmcore_op op)
{
	struct load load = rig_load(&world->rig, bdev, BATCH);

	load.op = op;
	load.hash_by = op == DMCORE_OP_READ ? LOAD_HASH_DATA : LOAD_HASH_SECTOR;
	load.positions = HALF_SECTORS / BENCH_BLOCK_SECTORS;
	return load;
}

static int measure_requests(struct world *world)
{
	struct load loads[4] = { load_of(world, world->written[0], DMCORE_OP_WRITE),
				 load_of(world, world->written[1], DMCORE_OP_WRITE),
				 load_of(world, world->read[0], DMCORE_OP_READ),
				 load_of(world, world->read[1], DMCORE_OP_READ) };
	struct bench_row rows[4] = { { .name = "sim/write", .fn = run_writes },
				     { .name = "sim/write-mem", .fn = run_writes },
				     { .name = "sim/read", .fn = load_run },
				     { .name = "sim/read-mem", .fn = load_run } };
	unsigned int opened = 0;
	int ret = 0;

	for (unsigned int i = 0; i < 4; i++) {
		rows[i].context = &loads[i];
		rows[i].count = bench_size(world->rig.bench, 2048, 512);
		rows[i].floor = i % 2 ? NULL : &rows[i + 1];
		rows[i].same_work = i % 2 == 0;
		rows[i].quiet = i % 2 != 0;
		rows[i].max_ns = i % 2 ? 0 : IO_BAR_NS;
	}
	while (opened < 4 && ret == 0) {
		ret = load_open(&loads[opened]);
		opened += ret == 0;
	}
	if (ret == 0)
		ret = bench_measure(world->rig.bench, rows, 4);
	else
		bench_fail(world->rig.bench, ret, "no bios");
	while (opened > 0)
		load_close(&loads[--opened]);
	return ret;
}

/* ---- crash states ---- */

/* Each round writes the same sectors, and flushes: a cut before that leaves any of 2^8 states. */
static int record(struct world *world, struct bench_random *random, uint64_t *first_sector)
{
	unsigned char data[UNCERTAIN * DMCORE_SECTOR_BYTES];
	int ret = 0;

	*first_sector = bench_random_position(random, STATES_DISK_SECTORS / CHECKED_SECTORS) *
			CHECKED_SECTORS;
	for (unsigned int round = 0; round <= ROUNDS_MAX && ret == 0; round++) {
		memset(data, (int)round, sizeof(data));
		ret = dmcore_pwrite(world->states_bdev, data, sizeof(data),
				    *first_sector * DMCORE_SECTOR_BYTES);
		if (ret == 0)
			ret = dmcore_flush(world->states_bdev);
		if (ret == 0)
			ret = round ? dmcore_sim_mark(world->sim, round)
				    : dmcore_sim_record(world->sim);
	}
	return ret;
}

/* A trivial recovery: reads what was written, and sees that each sector is of its round. */
static int recover(struct world *world, uint64_t first_sector, uint64_t promised)
{
	unsigned char data[CHECKED_SECTORS * DMCORE_SECTOR_BYTES];
	int ret = dmcore_pread(world->states_bdev, data, sizeof(data),
			       first_sector * DMCORE_SECTOR_BYTES);

	for (unsigned int i = 0; ret == 0 && i < UNCERTAIN; i++) {
		unsigned char round = data[(size_t)i * DMCORE_SECTOR_BYTES];

		if (round != promised && round != promised + 1)
			ret = -EIO;
	}
	return ret;
}

static int show_states(struct world *world, uint64_t first_sector, struct bench_run *run)
{
	struct dmcore_sim_state state = { .struct_size = sizeof(state) };
	struct dmcore_sim_states *states;
	int ret = dmcore_sim_states_open(world->sim, NULL, &states);
	int more = 1;

	if (ret)
		return ret;
	while (ret == 0 && run->completed < run->count &&
	       (more = dmcore_sim_states_next(states)) > 0) {
		ret = dmcore_sim_states_info(states, &state);
		if (ret == 0)
			ret = recover(world, first_sector, state.mark);
		run->completed++;
		run->hash += bench_mix(state.mark * 256 + state.num_uncertain);
	}
	dmcore_sim_states_close(states);
	return ret ? ret : more < 0 ? more : 0;
}

/* To record is no part of the time. */
static int run_states(void *context, struct bench_run *run)
{
	struct bench_random random = bench_random_start(run->seed);
	uint64_t first_sector;
	uint64_t began_ns;
	int ret = 0;

	while (ret == 0 && run->completed < run->count) {
		ret = record(context, &random, &first_sector);
		began_ns = bench_now_ns();
		if (ret == 0)
			ret = show_states(context, first_sector, run);
		run->elapsed_ns += bench_now_ns() - began_ns;
	}
	return ret;
}

static int measure_states(struct world *world)
{
	struct bench_row row = { .name = "sim/states",
				 .fn = run_states,
				 .context = world,
				 .count = bench_size(world->rig.bench, 2048, 512),
				 .max_ns = STATES_BAR_NS };

	return bench_measure(world->rig.bench, &row, 1);
}

static int run_sim(struct bench *bench)
{
	struct world world;
	int ret = open_world(&world, bench);

	if (ret == 0)
		ret = make_request_devices(&world);
	if (ret == 0)
		ret = measure_requests(&world);
	close_world(&world);
	if (ret)
		return ret;
	/* States are of all disks of a world: these have one of their own. */
	ret = open_world(&world, bench);
	if (ret == 0)
		ret = make_states_device(&world);
	if (ret == 0)
		ret = measure_states(&world);
	close_world(&world);
	return ret;
}

const struct bench_case bench_case_sim = {
	"sim", "4 KiB requests to a simulated disk, 32 at once, and crash states", run_sim
};
