/* SPDX-License-Identifier: MIT */
/*
 * What the dm-io tests stand on: a core, a queue, a client and some disks of the driver "fault",
 * which can be read and broken behind dm-io's back; and callbacks that are counted.
 */
#ifndef DMCORE_TESTS_SUPPORT_DMIO_WORLD_H
#define DMCORE_TESTS_SUPPORT_DMIO_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

#include "fault_driver.h"

#define WORLD_DISKS_MAX 64

struct world {
	struct dmcore *core;
	struct dmcore_queue *queue;
	struct dmio_client *client;
	unsigned int num_disks;
	struct dmcore_bdev *bdev[WORLD_DISKS_MAX];
	struct fault_disk *disk[WORLD_DISKS_MAX];
	uint64_t random; /* state of world_random() */
	uint64_t seed;
};

/* One asynchronous call: the context of its callback. */
struct pending {
	unsigned int calls; /* of the callback: 1 in the end */
	unsigned long error_bits;
};

/*
 * Makes a world of so many disks, each opened as "fault:ARGS,id=N", with a client that has reserved
 * so many pages. Asserts that everything worked, as the rest here does.
 */
void world_open(struct world *world, unsigned int num_disks, const char *args, unsigned int pages);
/* The same, on a core with these options. */
void world_open_on(struct world *world, unsigned int num_disks, const char *args,
		   unsigned int pages, const struct dmcore_options *options);
/* Takes it down; nothing may be in flight or left over. */
void world_close(struct world *world);

/* Disk `index` from there. */
struct dmio_region world_region(const struct world *world, unsigned int index, uint64_t sector,
				uint64_t count);

/* A number below `bound`, from the seed in DMCORE_SEED (else always the same ones). */
uint64_t world_random(struct world *world, uint64_t bound);
/* Fills memory with bytes that no other call made. */
void world_fill(struct world *world, void *memory, size_t bytes);

/* A dmio_notify_fn: notes the call in a struct pending. */
void pending_done(unsigned long error, void *context);
/* Polls without waiting until nothing more happens; returns how much did. */
unsigned int world_settle(struct world *world);
/* Polls until the callback has run, and makes sure that it doesn't run twice. */
unsigned long world_wait(struct world *world, struct pending *pending);

/* Bytes of a disk. */
unsigned char *world_bytes(const struct world *world, unsigned int index, uint64_t sector);

/* A list over num_pages pages of one allocation, which follow each other in memory every `step`
 * pages: 1 makes neighbours, more scatters them. page[i] is the i-th page of the list. */
struct pages {
	unsigned char *memory;
	struct dmio_page_list *list;
	unsigned int num_pages;
};

void pages_create(struct pages *pages, unsigned int num_pages, unsigned int step);
void pages_destroy(struct pages *pages);
/* Copies between the list, from `offset` bytes on, and a buffer. */
void pages_copy_in(const struct pages *pages, size_t offset, const void *buffer, size_t bytes);
void pages_copy_out(const struct pages *pages, size_t offset, void *buffer, size_t bytes);

bool is_zero(const unsigned char *bytes, size_t count);

#endif
