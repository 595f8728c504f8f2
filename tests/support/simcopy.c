/* SPDX-License-Identifier: MIT */
/* Copies in a simulated world, watched; see simcopy.h. */
#include "simcopy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "rng.h"

/* Loaded at once: a multiple of every atomic unit. */
#define LOAD_SECTORS 128u

struct simcopy_watch simcopy_watch;

/* Says in which world. */
#define CHECK(condition, ...)                                                                      \
	cr_assert(condition, "seed %lu, world %lu: %s", (unsigned long)rng_seed(),                 \
		  (unsigned long)simcopy_watch.seed, __VA_ARGS__)

/* ---- what is seen --------------------------------------------------------------------------- */

static bool is_write(const struct dmcore_sim_event *event)
{
	return event->op == DMCORE_OP_WRITE || event->op == DMCORE_OP_WRITE_ZEROES ||
	       event->op == DMCORE_OP_DISCARD;
}

static void check_owner(const struct dmcore_sim_event *event)
{
	bool begins = event->kind == DMCORE_SIM_SUBMIT;
	unsigned long disk = strtoul(event->disk + 1, NULL, 10);

	for (uint64_t i = event->sector; i < event->sector + event->count; i++) {
		uint8_t owners = i >= SIMCOPY_SECTORS_MAX ? 1
				 : begins ? simcopy_watch.starters[disk][i]
					  : simcopy_watch.owners[disk][i];

		if (owners || simcopy_watch.num_strays++)
			continue;
		dmcore_sim_event_text(event, simcopy_watch.stray, sizeof(simcopy_watch.stray));
	}
}

static void note_submit(const struct dmcore_sim_event *event)
{
	if (simcopy_watch.num_inflight++ == 0)
		simcopy_watch.busy_since_ns = event->time_ns;
	simcopy_watch.num_writes += is_write(event);
	simcopy_watch.num_flushes += event->op == DMCORE_OP_FLUSH;
	if (event->op == DMCORE_OP_READ) {
		simcopy_watch.num_reads++;
		simcopy_watch.read_sectors_inflight += event->count;
		if (simcopy_watch.read_sectors_most < simcopy_watch.read_sectors_inflight)
			simcopy_watch.read_sectors_most = simcopy_watch.read_sectors_inflight;
	}
}

static void note_complete(const struct dmcore_sim_event *event)
{
	if (--simcopy_watch.num_inflight == 0)
		simcopy_watch.busy_ns += event->time_ns - simcopy_watch.busy_since_ns;
	if (event->op == DMCORE_OP_READ)
		simcopy_watch.read_sectors_inflight -= event->count;
	if (is_write(event) && event->status == 0)
		simcopy_watch.written_sectors += event->count;
}

static void note_event(const struct dmcore_sim_event *event, void *context)
{
	(void)context;
	if (event->kind == DMCORE_SIM_SUBMIT)
		note_submit(event);
	else if (event->kind == DMCORE_SIM_COMPLETE)
		note_complete(event);
	else
		return;
	if (is_write(event))
		check_owner(event);
}

uint64_t simcopy_busy_ns(void)
{
	uint64_t ns = simcopy_watch.busy_ns;

	if (simcopy_watch.num_inflight)
		ns += dmcore_sim_now_ns(simcopy_watch.world->sim) - simcopy_watch.busy_since_ns;
	return ns;
}

void simcopy_enter(void)
{
	CHECK(simcopy_watch.in_poll, "a callback outside of a poll");
	CHECK(!simcopy_watch.in_call, "a callback inside of a call");
	CHECK(!simcopy_watch.in_callback, "a callback inside of another");
	simcopy_watch.in_callback = true;
	simcopy_watch.num_callbacks++;
}

void simcopy_leave(void)
{
	cr_assert(simcopy_watch.in_callback);
	simcopy_watch.in_callback = false;
}

/* ---- worlds --------------------------------------------------------------------------------- */

void simcopy_open(struct simworld *world, uint64_t seed)
{
	memset(&simcopy_watch, 0, sizeof(simcopy_watch));
	simcopy_watch.world = world;
	simcopy_watch.seed = seed;
	simworld_open_watched(world, seed, note_event, NULL);
}

void simcopy_close(struct simworld *world)
{
	simworld_close(world);
	CHECK(simcopy_watch.num_strays == 0, simcopy_watch.stray);
	CHECK(simcopy_watch.num_inflight == 0, "requests are left");
	CHECK(world->num_stuck == 0, "a wait can't end");
}

const unsigned char *simcopy_sector(const struct simworld *world, unsigned int disk,
				    uint64_t sector)
{
	const unsigned char *bytes = dmcore_sim_disk_data(world->disks[disk]);

	return bytes + sector * DMCORE_SECTOR_BYTES;
}

void simcopy_load(struct simworld *world, unsigned int disk, uint64_t stream)
{
	static uint64_t words[LOAD_SECTORS * DMCORE_SECTOR_BYTES / sizeof(uint64_t)];
	uint64_t left = dmcore_bdev_size_sectors(world->bdevs[disk]) * DMCORE_SECTOR_BYTES;
	uint64_t at = 0;
	struct rng rng;

	rng_start(&rng, stream);
	while (left) {
		size_t bytes = left < sizeof(words) ? (size_t)left : sizeof(words);

		for (unsigned int i = 0; i < bytes / sizeof(words[0]); i++)
			words[i] = rng_next(&rng);
		cr_assert_eq(dmcore_sim_disk_load(world->disks[disk], words, bytes, at), 0, "%s",
			     dmcore_error_message());
		at += bytes;
		left -= bytes;
	}
}

bool simcopy_same(const struct simworld *world, unsigned int disk, uint64_t sector,
		  unsigned int other_disk, uint64_t other_sector, uint64_t count)
{
	return memcmp(simcopy_sector(world, disk, sector),
		      simcopy_sector(world, other_disk, other_sector),
		      count * DMCORE_SECTOR_BYTES) == 0;
}

/* ---- jobs ----------------------------------------------------------------------------------- */

static void add(uint8_t table[][SIMCOPY_SECTORS_MAX], const struct dmio_region *dest,
		uint64_t count, int by)
{
	const struct simworld *world = simcopy_watch.world;

	for (unsigned int disk = 0; disk < world->num_disks; disk++) {
		if (world->bdevs[disk] != dest->bdev)
			continue;
		for (uint64_t i = dest->sector;
		     i < dest->sector + count && i < SIMCOPY_SECTORS_MAX; i++)
			table[disk][i] = (uint8_t)(table[disk][i] + by);
	}
}

void simcopy_own(const struct dmio_region *dests, unsigned int num_dests, uint64_t count)
{
	for (unsigned int i = 0; i < num_dests; i++) {
		add(simcopy_watch.owners, &dests[i], count, 1);
		add(simcopy_watch.starters, &dests[i], count, 1);
	}
}

void simcopy_disown(const struct dmio_region *dests, unsigned int num_dests, uint64_t count,
		    bool may_start)
{
	for (unsigned int i = 0; i < num_dests; i++) {
		add(simcopy_watch.owners, &dests[i], count, -1);
		if (may_start)
			add(simcopy_watch.starters, &dests[i], count, -1);
	}
}

uint64_t simcopy_count(const struct simcopy *copy)
{
	return copy->job.from.bdev ? copy->job.from.count : copy->job.dests[0].count;
}

static void copy_ended(struct kcopyd_job *job)
{
	struct simcopy *copy = (struct simcopy *)job;

	simcopy_enter();
	CHECK(copy->busy, "a callback of a job that isn't under way");
	CHECK((job->status == -ECANCELED) == copy->cancelled, "another end than cancelled");
	copy->busy = false;
	copy->num_ends++;
	copy->end_ns = dmcore_sim_now_ns(simcopy_watch.world->sim);
	simcopy_disown(job->dests, job->num_dests, simcopy_count(copy),
		       !copy->cancelled || simcopy_watch.splits);
	if (copy->ended)
		copy->ended(copy);
	simcopy_leave();
}

void simcopy_from(struct simcopy *copy, const struct simworld *world, unsigned int what,
		  uint64_t sector, uint64_t count, unsigned int flags)
{
	memset(&copy->job, 0, sizeof(copy->job));
	copy->job.from.bdev = what == SIMCOPY_ZEROES ? NULL : world->bdevs[what];
	copy->job.from.sector = sector;
	copy->job.from.count = count;
	copy->job.flags = flags;
	copy->job.done = copy_ended;
}

void simcopy_to(struct simcopy *copy, const struct simworld *world, unsigned int disk,
		uint64_t sector)
{
	copy->job.dests[copy->job.num_dests++] = (struct dmio_region){
		.bdev = world->bdevs[disk],
		.sector = sector,
		.count = copy->job.from.count,
	};
}

int simcopy_submit(struct kcopyd_client *kc, struct simcopy *copy)
{
	bool in_call = simcopy_watch.in_call;
	int ret;

	simcopy_own(copy->job.dests, copy->job.num_dests, simcopy_count(copy));
	copy->busy = true;
	copy->cancelled = false;
	copy->begin_ns = dmcore_sim_now_ns(simcopy_watch.world->sim);
	simcopy_watch.in_call = true;
	ret = kcopyd_submit(kc, &copy->job);
	simcopy_watch.in_call = in_call;
	if (ret) {
		copy->busy = false;
		simcopy_disown(copy->job.dests, copy->job.num_dests, simcopy_count(copy), true);
	}
	return ret;
}

void simcopy_start(struct kcopyd_client *kc, struct simcopy *copy)
{
	cr_assert_eq(simcopy_submit(kc, copy), 0, "%s", dmcore_error_message());
}

int simcopy_cancel(struct simcopy *copy)
{
	bool in_call = simcopy_watch.in_call;
	int ret;

	simcopy_watch.in_call = true;
	ret = kcopyd_cancel(&copy->job);
	simcopy_watch.in_call = in_call;
	copy->cancelled |= ret == 0;
	for (unsigned int i = 0; ret == 0 && !simcopy_watch.splits && i < copy->job.num_dests; i++)
		add(simcopy_watch.starters, &copy->job.dests[i], simcopy_count(copy), -1);
	return ret;
}

struct kcopyd_progress simcopy_progress(const struct simcopy *copy)
{
	struct kcopyd_progress progress = { .struct_size = sizeof(progress) };

	cr_assert_eq(kcopyd_progress(&copy->job, &progress), 0, "%s", dmcore_error_message());
	return progress;
}

/* ---- waiting -------------------------------------------------------------------------------- */

unsigned int simcopy_poll(struct simworld *world, unsigned int min, int64_t timeout_ns)
{
	int ret;

	simcopy_watch.in_poll = true;
	ret = dmcore_queue_poll(world->queue, min, min ? min : UINT32_MAX, timeout_ns);
	simcopy_watch.in_poll = false;
	CHECK(ret >= 0, strerror(-ret));
	return (unsigned int)ret;
}

int simcopy_destroy(struct kcopyd_client *kc)
{
	bool in_poll = simcopy_watch.in_poll;
	int ret;

	simcopy_watch.in_poll = true;
	ret = kcopyd_client_destroy(kc);
	simcopy_watch.in_poll = in_poll;
	return ret;
}

int simcopy_wait(struct simworld *world, struct simcopy *copy)
{
	while (copy->busy)
		simcopy_poll(world, 1, -1);
	return copy->job.status;
}

int simcopy_run(struct simworld *world, struct kcopyd_client *kc, struct simcopy *copy)
{
	simcopy_start(kc, copy);
	return simcopy_wait(world, copy);
}
