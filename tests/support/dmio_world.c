/* SPDX-License-Identifier: MIT */
/* What the dm-io tests stand on, see dmio_world.h. */
#include "dmio_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#define DEFAULT_SEED 20040611

static uint64_t seed_from_environment(void)
{
	const char *text = getenv("DMCORE_SEED");

	return text ? strtoull(text, NULL, 0) : DEFAULT_SEED;
}

static void open_disk(struct world *world, unsigned int index, const char *args)
{
	char spec[128];
	int ret;

	snprintf(spec, sizeof(spec), "fault:%s,id=%u", args, index);
	ret = dmcore_bdev_open(world->core, spec, 0, &world->bdev[index]);
	cr_assert_eq(ret, 0, "open %s: %s", spec, dmcore_error_message());
	world->disk[index] = fault_disk_of(world->bdev[index]);
}

void world_open_on(struct world *world, unsigned int num_disks, const char *args,
		   unsigned int pages, const struct dmcore_options *options)
{
	*world = (struct world){ .num_disks = num_disks };
	world->seed = seed_from_environment();
	world->random = world->seed * 2 + 1;
	cr_assert_leq(num_disks, WORLD_DISKS_MAX);
	cr_assert_eq(dmcore_create(options, &world->core), 0);
	cr_assert_eq(fault_register(world->core), 0);
	cr_assert_eq(dmcore_queue_create(world->core, NULL, &world->queue), 0, "%s",
		     dmcore_error_message());
	for (unsigned int i = 0; i < num_disks; i++)
		open_disk(world, i, args);
	cr_assert_eq(dmio_client_create(world->queue, pages, &world->client), 0);
}

void world_open(struct world *world, unsigned int num_disks, const char *args, unsigned int pages)
{
	world_open_on(world, num_disks, args, pages, NULL);
}

void world_close(struct world *world)
{
	cr_assert_eq(dmio_client_destroy(world->client), 0);
	for (unsigned int i = 0; i < world->num_disks; i++)
		cr_assert_eq(dmcore_bdev_close(world->bdev[i]), 0);
	cr_assert_eq(dmcore_queue_destroy(world->queue), 0);
	cr_assert_eq(dmcore_destroy(world->core), 0, "%s", dmcore_error_message());
}

struct dmio_region world_region(const struct world *world, unsigned int index, uint64_t sector,
				uint64_t count)
{
	return (struct dmio_region){ world->bdev[index], sector, count };
}

/* splitmix64 */
uint64_t world_random(struct world *world, uint64_t bound)
{
	uint64_t z = world->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % bound;
}

void world_fill(struct world *world, void *memory, size_t bytes)
{
	unsigned char *to = memory;

	while (bytes > 0) {
		uint64_t word = world_random(world, UINT64_MAX);
		size_t n = bytes < sizeof(word) ? bytes : sizeof(word);

		memcpy(to, &word, n);
		to += n;
		bytes -= n;
	}
}

void pending_done(unsigned long error, void *context)
{
	struct pending *pending = context;

	pending->calls++;
	pending->error_bits = error;
}

unsigned int world_settle(struct world *world)
{
	unsigned int total = 0;
	int ret;

	while ((ret = dmcore_queue_poll(world->queue, 0, 64, 0)) > 0)
		total += (unsigned int)ret;
	cr_assert_eq(ret, 0, "poll: %d", ret);
	return total;
}

unsigned long world_wait(struct world *world, struct pending *pending)
{
	while (pending->calls == 0)
		cr_assert_geq(dmcore_queue_poll(world->queue, 1, 64, -1), 0);
	world_settle(world);
	cr_assert_eq(pending->calls, 1, "called back %u times", pending->calls);
	return pending->error_bits;
}

unsigned char *world_bytes(const struct world *world, unsigned int index, uint64_t sector)
{
	return fault_data(world->disk[index]) + sector * DMCORE_SECTOR_BYTES;
}

void pages_create(struct pages *pages, unsigned int num_pages, unsigned int step)
{
	*pages = (struct pages){ .num_pages = num_pages };
	pages->memory = aligned_alloc(DMIO_PAGE_BYTES, (size_t)num_pages * step * DMIO_PAGE_BYTES);
	pages->list = calloc(num_pages, sizeof(*pages->list));
	cr_assert(pages->memory && pages->list);
	memset(pages->memory, 0, (size_t)num_pages * step * DMIO_PAGE_BYTES);
	for (unsigned int i = 0; i < num_pages; i++) {
		pages->list[i].page = pages->memory + (size_t)i * step * DMIO_PAGE_BYTES;
		pages->list[i].next = i + 1 < num_pages ? &pages->list[i + 1] : NULL;
	}
}

void pages_destroy(struct pages *pages)
{
	free(pages->list);
	free(pages->memory);
}

/* The bytes that follow each other from `at` on, at most `bytes`. */
static unsigned char *page_run(const struct pages *pages, size_t at, size_t bytes, size_t *run)
{
	size_t room = DMIO_PAGE_BYTES - at % DMIO_PAGE_BYTES;
	const struct dmio_page_list *node = &pages->list[at / DMIO_PAGE_BYTES];

	*run = bytes < room ? bytes : room;
	return (unsigned char *)node->page + at % DMIO_PAGE_BYTES;
}

void pages_copy_in(const struct pages *pages, size_t offset, const void *buffer, size_t bytes)
{
	const unsigned char *from = buffer;
	size_t run;

	for (size_t done = 0; done < bytes; done += run) {
		unsigned char *to = page_run(pages, offset + done, bytes - done, &run);

		memcpy(to, from + done, run);
	}
}

void pages_copy_out(const struct pages *pages, size_t offset, void *buffer, size_t bytes)
{
	unsigned char *to = buffer;
	size_t run;

	for (size_t done = 0; done < bytes; done += run) {
		const unsigned char *from = page_run(pages, offset + done, bytes - done, &run);

		memcpy(to + done, from, run);
	}
}

bool is_zero(const unsigned char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}
