/* SPDX-License-Identifier: MIT */
/* Devices of a simulated world that are suspended while requests are on their way. */
#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/sim.h>

#include "support/simworld.h"

static struct simworld world;
static unsigned char sector[DMCORE_SECTOR_BYTES];

static void note_end(struct dmcore_bio *bio)
{
	bio->context = bio;
}

/* Two disks, and a write to the second that is on its way with these flags. */
static struct dmcore_device *begin(struct dmcore_bio *bio, unsigned int disk_flags,
				   unsigned int flags)
{
	struct dmcore_device *device;

	simworld_open(&world, 1);
	world.options.flags = disk_flags;
	simworld_add_disk(&world, 64);
	simworld_add_disk(&world, 64);
	device = simworld_map(&world, "device", "0 16 linear sim:d0 0\n16 16 linear sim:d1 0");
	dmcore_bio_init(bio, world.queue);
	bio->bdev = dmcore_device_bdev(device);
	bio->op = DMCORE_OP_WRITE;
	bio->flags = (uint16_t)flags;
	bio->sector = 20;
	bio->done = note_end;
	dmcore_bio_set_buffer(bio, sector, sizeof(sector));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	return device;
}

static void suspend(struct dmcore_device *device)
{
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0, "%s", dmcore_error_message());
	cr_assert_eq(world.num_stuck, 0);
}

static void end(struct dmcore_device *device)
{
	cr_assert_eq(dmcore_device_remove(device), 0);
	simworld_close(&world);
}

/* A write whose flush alone has ended leaves the device without a completion. */
Test(sim_suspend, ends_when_only_the_flush_of_a_write_has)
{
	struct dmcore_bio bio;
	struct dmcore_device *device = begin(&bio, 0, DMCORE_BIO_PREFLUSH);

	suspend(device);
	cr_assert_null(bio.context);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(simworld_wait(&world, &bio), 0);
	end(device);
}

/* Nothing is at work at the disks then: the flush behind the write ends at once. */
Test(sim_suspend, ends_with_what_is_ready_to_go_on)
{
	struct dmcore_bio bio;
	struct dmcore_device *device =
		begin(&bio, DMCORE_SIM_NO_CACHE | DMCORE_SIM_NO_FUA, DMCORE_BIO_FUA);

	suspend(device);
	cr_assert_eq(simworld_wait(&world, &bio), 0);
	end(device);
}
