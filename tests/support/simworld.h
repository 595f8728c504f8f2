/* SPDX-License-Identifier: MIT */
/*
 * What tests in a simulated world stand on: a world, a core in it with a queue, disks d0, d1, …
 * that are open, and requests that are carried out one by one or left on their way.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMWORLD_H
#define DMCORE_TESTS_SUPPORT_SIMWORLD_H

#include <stdint.h>

#include <dmcore.h>

#define SIMWORLD_DISKS_MAX 16
#define SIMWORLD_SECTORS_MAX 256

struct simworld {
	struct dmcore_sim *sim;
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmcore_sim_disk_options options; /* of the disks that are added next */
	unsigned int num_disks;
	struct dmcore_sim_disk *disks[SIMWORLD_DISKS_MAX];
	struct dmcore_bdev *bdevs[SIMWORLD_DISKS_MAX];
	unsigned int num_stuck; /* waits that could not end */
};

/* Makes the world and the core. Asserts that all works, as the rest here does. */
void simworld_open(struct simworld *world, uint64_t seed);
/* The same, and tells of each event. */
void simworld_open_watched(struct simworld *world, uint64_t seed, dmcore_sim_event_fn event,
			   void *context);
/* Closes the disks, and takes all down. */
void simworld_close(struct simworld *world);

void simworld_add_disk(struct simworld *world, uint64_t sectors);
/* Makes a mapped device of a table's text, running; the test removes it. */
struct dmcore_device *simworld_map(struct simworld *world, const char *name, const char *table);

/* Writes sectors full of a byte, with these flags, and waits. */
void simworld_write(struct simworld *world, unsigned int disk, uint64_t sector, uint64_t count,
		    unsigned char byte, unsigned int flags);
void simworld_flush(struct simworld *world, unsigned int disk);

/* Submits a request whose memory, full of `byte`, lives until the world is closed, or so many more
 * have been submitted; the bio is to be put back when it has ended. */
struct dmcore_bio *simworld_submit(struct simworld *world, unsigned int disk, enum dmcore_op op,
				   unsigned int flags, uint64_t sector, uint64_t count,
				   unsigned char byte);
/* Waits for it; returns its status. */
int simworld_wait(struct simworld *world, struct dmcore_bio *bio);
/* Whether it has ended. */
bool simworld_ended(const struct dmcore_bio *bio);

#endif
