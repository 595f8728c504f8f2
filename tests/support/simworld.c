/* SPDX-License-Identifier: MIT */
/* A simulated world for tests; see simworld.h. */
#include "simworld.h"

#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#define BUFFERS 64

static unsigned char buffers[BUFFERS][SIMWORLD_SECTORS_MAX * 512];
static unsigned int next_buffer;

static void count_stuck(struct dmcore_sim *sim, void *context)
{
	struct simworld *world = context;

	(void)sim;
	world->num_stuck++;
}

void simworld_open_watched(struct simworld *world, uint64_t seed, dmcore_sim_event_fn event,
			   void *context)
{
	struct dmcore_sim_options options = {
		.struct_size = sizeof(options),
		.seed = seed,
		.event = event,
		.event_context = context,
		.stuck = count_stuck,
		.stuck_context = world,
	};

	memset(world, 0, sizeof(*world));
	world->options.struct_size = sizeof(world->options);
	cr_assert_eq(dmcore_sim_create(&options, &world->sim), 0);
	cr_assert_eq(dmcore_sim_core(world->sim, NULL, &world->core), 0);
	cr_assert_eq(dmcore_queue_create(world->core, NULL, &world->queue), 0);
}

void simworld_open(struct simworld *world, uint64_t seed)
{
	simworld_open_watched(world, seed, NULL, NULL);
}

void simworld_close(struct simworld *world)
{
	cr_assert_eq(dmcore_queue_destroy(world->queue), 0);
	for (unsigned int i = 0; i < world->num_disks; i++)
		cr_assert_eq(dmcore_bdev_close(world->bdevs[i]), 0);
	cr_assert_eq(dmcore_destroy(world->core), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_destroy(world->sim), 0, "%s", dmcore_error_message());
}

void simworld_add_disk(struct simworld *world, uint64_t sectors)
{
	unsigned int i = world->num_disks++;
	char name[16];
	char spec[24];

	cr_assert_lt(i, SIMWORLD_DISKS_MAX);
	snprintf(name, sizeof(name), "d%u", i);
	snprintf(spec, sizeof(spec), "sim:%s", name);
	world->options.sectors = sectors;
	cr_assert_eq(dmcore_sim_disk_create(world->sim, name, &world->options, &world->disks[i]),
		     0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_bdev_open(world->core, spec, 0, &world->bdevs[i]), 0, "%s",
		     dmcore_error_message());
}

struct dmcore_device *simworld_map(struct simworld *world, const char *name, const char *text)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(world->core, text, 0, &table), 0, "%s: %s", text,
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_create(world->core, name, NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s: %s", text, dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0, "%s: %s", text, dmcore_error_message());
	return device;
}

static void note_end(struct dmcore_bio *bio)
{
	bio->context = bio;
}

bool simworld_ended(const struct dmcore_bio *bio)
{
	return bio->context == bio;
}

struct dmcore_bio *simworld_submit(struct simworld *world, unsigned int disk, enum dmcore_op op,
				   unsigned int flags, uint64_t sector, uint64_t count,
				   unsigned char byte)
{
	unsigned char *buffer = buffers[next_buffer++ % BUFFERS];
	struct dmcore_bio *bio = dmcore_bio_get(world->queue);

	cr_assert(bio && count <= SIMWORLD_SECTORS_MAX);
	memset(buffer, byte, count * 512);
	bio->bdev = world->bdevs[disk];
	bio->op = (uint8_t)op;
	bio->flags = (uint16_t)flags;
	bio->sector = sector;
	bio->done = note_end;
	bio->context = NULL;
	if (op <= DMCORE_OP_WRITE)
		dmcore_bio_set_buffer(bio, buffer, count * 512);
	else
		bio->count = count;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	return bio;
}

int simworld_wait(struct simworld *world, struct dmcore_bio *bio)
{
	while (!simworld_ended(bio))
		cr_assert_geq(dmcore_queue_poll(world->queue, 1, 1, -1), 0);
	return bio->status;
}

void simworld_write(struct simworld *world, unsigned int disk, uint64_t sector, uint64_t count,
		    unsigned char byte, unsigned int flags)
{
	struct dmcore_bio *bio =
		simworld_submit(world, disk, DMCORE_OP_WRITE, flags, sector, count, byte);

	cr_assert_eq(simworld_wait(world, bio), 0);
	dmcore_bio_put(bio);
}

void simworld_flush(struct simworld *world, unsigned int disk)
{
	cr_assert_eq(dmcore_flush(world->bdevs[disk]), 0);
}
