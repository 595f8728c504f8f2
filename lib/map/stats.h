/* SPDX-License-Identifier: MIT */
/*
 * Statistics of mapped devices. stats.c begins and ends them; stats_region.c makes a region,
 * stats_lane.c what queues count in; stats_account.c counts, called by submit.c; stats_read.c adds
 * up; stats_message.c does it all by messages.
 *
 * A region is cut into areas. Each queue has a lane for each device with regions, and in it a part
 * for each region, with a cell for each area: what the queue's owner alone writes. What a queue
 * that is gone has counted, and what was cleared, is in the region's base.
 */
#ifndef DMCORE_LIB_MAP_STATS_H
#define DMCORE_LIB_MAP_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <dmcore/limits.h>
#include <dmcore/stats.h>

#include "base/core.h"
#include "map/map.h"
#include "queue/queue.h"

#define DMCORE__STATS_READ 0u
#define DMCORE__STATS_WRITE 1u

struct dmcore__frame;

/* What is counted for reads, and then the same for writes. */
enum dmcore__stats_counter {
	DMCORE__STATS_REQUESTS,
	DMCORE__STATS_MERGES,
	DMCORE__STATS_SECTORS,
	DMCORE__STATS_NS,
	DMCORE__STATS_BUSY_NS,
	DMCORE__STATS_OF_EACH,
	/* For both together. */
	DMCORE__STATS_ALL_BUSY_NS = 2 * DMCORE__STATS_OF_EACH,
	DMCORE__STATS_WEIGHTED_NS,
	DMCORE__STATS_COUNTERS,
};

/* One queue's counts in one area. */
struct dmcore__stats_cell {
	_Atomic uint64_t counters[DMCORE__STATS_COUNTERS];
	_Atomic uint64_t stamp_ns;    /* up to when the times of those in flight are in */
	_Atomic uint32_t in_flight[2];
};

/* What belongs to an area beside its cells: added to their sum, modulo 2^64. */
struct dmcore__stats_base {
	uint64_t counters[DMCORE__STATS_COUNTERS];
	uint64_t since_ns;            /* when counting began */
};

struct dmcore__stats_region {
	/* Constant, read by every request. */
	uint64_t start_sector;
	uint64_t length_sectors;
	uint64_t step_sectors;
	uint64_t num_areas;
	const uint64_t *ends;         /* offsets behind each area; NULL: they are one step long */
	uint32_t step_shift;          /* of a power of two, or 64 */
	uint32_t num_bounds;
	const uint64_t *bounds_ns;

	/* Cold. */
	int id;
	bool precise;
	uint64_t *bounds;             /* as given, and bounds_ns behind them */
	char *program;
	char *aux;
	struct dmcore__stats_part *parts;  /* of all queues */
	struct dmcore__stats_base *bases;
	uint64_t *base_buckets;       /* num_bounds + 1 for each area */
	uint64_t part_bytes;
	uint64_t own_bytes;
	struct dmcore__stats_region *next; /* with a higher id */
};

struct dmcore__stats_part {
	struct dmcore__stats_part *next;    /* in the lane */
	struct dmcore__stats_region *region;
	_Atomic uint64_t *buckets;    /* or NULL */
	uint64_t start_sector;        /* the region's, as the next */
	uint64_t end_sector;
	struct dmcore__stats_lane *lane;
	struct dmcore__stats_part *sibling; /* in the region */
	struct dmcore__stats_cell cells[] __attribute__((aligned(16)));
};

struct dmcore__stats_lane {
	struct dmcore__stats *stats;
	struct dmcore__stats_part *parts;
	/* The only part, if it has one area and no histogram, as most have; or NULL. */
	struct dmcore__stats_part *only;
	_Atomic uint32_t sequence;    /* odd: cells are being written */
	uint64_t last_end[2];         /* sector behind the last read, and write, that was begun */
	uint64_t round;               /* in which now_ns was read */
	uint64_t now_ns;
};

struct dmcore__stats {
	struct dmcore_device *device;
	bool precise;                 /* some region is */
	unsigned int num_regions;
	struct dmcore__stats_region *regions;
	struct dmcore__stats_lane *lanes[DMCORE__QUEUE_INDICES];
};

/* What is counted in an area, of all queues, at one time. */
struct dmcore__stats_sum {
	uint64_t counters[DMCORE__STATS_COUNTERS];
	uint64_t in_flight;
};

static inline uint64_t dmcore__stats_now_ns(const struct dmcore__stats *stats)
{
	const struct dmcore *core = stats->device->core;

	return stats->precise ? dmcore__now_ns(core) : dmcore__coarse_ns(core);
}

/* Behind area `i`, as an offset from the region's start. */
static inline uint64_t dmcore__stats_area_end(const struct dmcore__stats_region *region, uint64_t i)
{
	uint64_t begin = i * region->step_sectors;

	if (region->ends)
		return region->ends[i];
	if (region->length_sectors - begin < region->step_sectors)
		return region->length_sectors;
	return begin + region->step_sectors;
}

static inline uint64_t dmcore__stats_area_begin(const struct dmcore__stats_region *region,
						uint64_t i)
{
	if (region->ends)
		return i ? region->ends[i - 1] : 0;
	return i * region->step_sectors;
}

/* stats_account.c: counts a READ, WRITE, DISCARD or WRITE_ZEROES until it comes back, by a frame
 * that leaves `slot` then. */
void dmcore__stats_begin(struct dmcore__stats *stats, struct dmcore_bio *bio, uint32_t slot);
/* Bytes of that frame. */
uint32_t dmcore__stats_one_frame_bytes(void);
/* Adds what a queue has counted in an area to `sum`, as at `now_ns`; counting may go on. */
void dmcore__stats_add_cell(const struct dmcore__stats_part *part, uint64_t area, uint64_t now_ns,
			    struct dmcore__stats_sum *sum);
/* The same of its histogram, if it has one. */
void dmcore__stats_add_buckets(const struct dmcore__stats_part *part, uint64_t area,
			       uint64_t *buckets);

/* submit.c: whether a request that ends with DMCORE_STATUS_REQUEUE comes again; `frame` is the one
 * that counts it. */
bool dmcore__map_is_pushed_back(const struct dmcore_bio *bio, const struct dmcore__frame *frame);

/* stats_region.c, with the control lock held, as the rest. */

/* Counters of all devices and queues are reckoned with before they are allocated. -ENOMEM: they
 * would be too many. */
int dmcore__stats_take_memory(struct dmcore *core, uint64_t bytes);
void dmcore__stats_give_back(struct dmcore *core, uint64_t bytes);
/* A region without parts and id. NULL: *error, and a message. */
struct dmcore__stats_region *
dmcore__stats_region_make(struct dmcore_device *device, const struct dmcore_stats_options *options,
			  int *error);
void dmcore__stats_region_free(struct dmcore *core, struct dmcore__stats_region *region);

/* stats_lane.c */

/* A lane for the queue of this index, which has none, with a part for each region. */
int dmcore__stats_add_lane(struct dmcore__stats *stats, uint32_t index);
/* If there is one. */
void dmcore__stats_free_lane(struct dmcore__stats *stats, uint32_t index);
/* Gives every lane a part for a region; on failure some have one. */
int dmcore__stats_spread(struct dmcore__stats *stats, struct dmcore__stats_region *region);
/* Takes it from those that have one. */
void dmcore__stats_gather(struct dmcore *core, struct dmcore__stats_region *region);

/* stats.c */

/* Region `id`, or NULL and an error message. */
struct dmcore__stats_region *dmcore__stats_find(const struct dmcore_device *device, uint64_t id);
/* As dmcore_stats_create() with options that are complete. */
int dmcore__stats_create(struct dmcore_device *device, const struct dmcore_stats_options *options);
int dmcore__stats_delete(struct dmcore_device *device, uint64_t id);
int dmcore__stats_set_aux(struct dmcore_device *device, uint64_t id, const char *aux);

/* stats_read.c */

/* What stands in an area now. */
void dmcore__stats_sum_up(const struct dmcore__stats *stats,
			  const struct dmcore__stats_region *region, uint64_t area,
			  struct dmcore__stats_sum *sum, uint64_t *buckets);
/* Takes off what dmcore__stats_sum_up() has told of the area, but for what is in flight. */
void dmcore__stats_take_off(const struct dmcore__stats *stats, struct dmcore__stats_region *region,
			    uint64_t area, const struct dmcore__stats_sum *sum,
			    const uint64_t *buckets);
/* A sum as users are told: nothing negative, and no queue's busy time beside another's. */
void dmcore__stats_tell(const struct dmcore__stats *stats,
			const struct dmcore__stats_region *region, uint64_t area,
			const struct dmcore__stats_sum *sum, struct dmcore_stats_area *told);
/* As dmcore_stats_clear(). */
int dmcore__stats_clear(struct dmcore_device *device, uint64_t id);

#endif
