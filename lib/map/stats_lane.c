/* SPDX-License-Identifier: MIT */
/*
 * The lanes of a device's statistics: what each queue counts in, made and freed as queues and
 * regions come and go. Called by stats.c, and by queue/create.c through its watch.
 */
#include "map/stats.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"

static int no_memory(void)
{
	return dmcore__error(-ENOMEM, "no memory for counters");
}

static struct dmcore__stats_part *make_part(struct dmcore *core,
					    struct dmcore__stats_region *region)
{
	struct dmcore__stats_part *part = dmcore__zalloc_aligned(core, region->part_bytes, 64);

	if (!part)
		return NULL;
	part->region = region;
	part->start_sector = region->start_sector;
	part->end_sector = region->start_sector + region->length_sectors;
	if (region->num_bounds)
		part->buckets = (_Atomic uint64_t *)(void *)&part->cells[region->num_areas];
	return part;
}

static void find_only(struct dmcore__stats_lane *lane)
{
	struct dmcore__stats_part *part = lane->parts;
	bool simple = part && !part->next && part->region->num_areas == 1 && !part->buckets;

	lane->only = simple ? part : NULL;
}

/* In the order of their regions: the newest last, where what is counted doesn't depend on it. */
static void append_part(struct dmcore__stats_lane *lane, struct dmcore__stats_part *part)
{
	struct dmcore__stats_part **at = &lane->parts;

	while (*at)
		at = &(*at)->next;
	*at = part;
	part->lane = lane;
	find_only(lane);
	part->sibling = part->region->parts;
	part->region->parts = part;
}

static void free_part(struct dmcore *core, struct dmcore__stats_part *part)
{
	struct dmcore__stats_part **in_lane = &part->lane->parts;
	struct dmcore__stats_part **in_region = &part->region->parts;

	while (*in_lane != part)
		in_lane = &(*in_lane)->next;
	*in_lane = part->next;
	find_only(part->lane);
	while (*in_region != part)
		in_region = &(*in_region)->sibling;
	*in_region = part->sibling;
	dmcore__stats_give_back(core, part->region->part_bytes);
	dmcore__free_aligned(core, part);
}

static int add_part(struct dmcore *core, struct dmcore__stats_lane *lane,
		    struct dmcore__stats_region *region)
{
	struct dmcore__stats_part *part;
	int ret = dmcore__stats_take_memory(core, region->part_bytes);

	if (ret)
		return ret;
	part = make_part(core, region);
	if (!part) {
		dmcore__stats_give_back(core, region->part_bytes);
		return no_memory();
	}
	append_part(lane, part);
	return 0;
}

void dmcore__stats_free_lane(struct dmcore__stats *stats, uint32_t index)
{
	struct dmcore *core = stats->device->core;
	struct dmcore__stats_lane *lane = stats->lanes[index];

	if (!lane)
		return;
	while (lane->parts)
		free_part(core, lane->parts);
	stats->lanes[index] = NULL;
	dmcore__free_aligned(core, lane);
}

/* For a queue that has none yet, with a part for each region. */
int dmcore__stats_add_lane(struct dmcore__stats *stats, uint32_t index)
{
	struct dmcore *core = stats->device->core;
	struct dmcore__stats_lane *lane = dmcore__zalloc_aligned(core, sizeof(*lane), 64);
	int ret = 0;

	if (!lane)
		return no_memory();
	lane->stats = stats;
	lane->round = UINT64_MAX;
	lane->last_end[DMCORE__STATS_READ] = UINT64_MAX;
	lane->last_end[DMCORE__STATS_WRITE] = UINT64_MAX;
	stats->lanes[index] = lane;
	for (struct dmcore__stats_region *region = stats->regions; region && ret == 0;
	     region = region->next)
		ret = add_part(core, lane, region);
	if (ret)
		dmcore__stats_free_lane(stats, index);
	return ret;
}

int dmcore__stats_spread(struct dmcore__stats *stats, struct dmcore__stats_region *region)
{
	int ret = 0;

	for (uint32_t i = 0; i < DMCORE__QUEUE_INDICES && ret == 0; i++) {
		if (stats->lanes[i])
			ret = add_part(stats->device->core, stats->lanes[i], region);
	}
	return ret;
}

void dmcore__stats_gather(struct dmcore *core, struct dmcore__stats_region *region)
{
	while (region->parts)
		free_part(core, region->parts);
}

/* ---- queues come and go ---- */

static struct dmcore_device *device_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_device, link);
}

static void fold_part(const struct dmcore__stats_part *part)
{
	struct dmcore__stats_region *region = part->region;
	uint64_t per_area = (uint64_t)region->num_bounds + 1;

	for (uint64_t i = 0; i < region->num_areas; i++) {
		struct dmcore__stats_sum sum = { 0 };

		dmcore__stats_add_cell(part, i, 0, &sum);
		DMCORE__ASSERT(sum.in_flight == 0);
		for (unsigned int k = 0; k < DMCORE__STATS_COUNTERS; k++)
			region->bases[i].counters[k] += sum.counters[k];
		if (part->buckets)
			dmcore__stats_add_buckets(part, i, &region->base_buckets[i * per_area]);
	}
}

/* What it has counted outlives it. */
static void queue_removed(struct dmcore_queue *queue)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &queue->core->map->devices) {
		struct dmcore__stats *stats = device_entry(node)->stats;
		struct dmcore__stats_lane *lane = stats ? stats->lanes[queue->index] : NULL;

		if (!lane)
			continue;
		for (struct dmcore__stats_part *part = lane->parts; part; part = part->next)
			fold_part(part);
		dmcore__stats_free_lane(stats, queue->index);
	}
}

static int queue_added(struct dmcore_queue *queue)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;
	int ret = 0;

	dmcore__list_for_each(node, spare, &queue->core->map->devices) {
		struct dmcore__stats *stats = device_entry(node)->stats;

		if (stats && ret == 0)
			ret = dmcore__stats_add_lane(stats, queue->index);
	}
	if (ret)
		queue_removed(queue);
	return ret;
}

static const struct dmcore__queue_watch queue_watch = {
	.added = queue_added,
	.removed = queue_removed,
};

void dmcore__stats_watch_queues(struct dmcore *core, bool on)
{
	core->queues->watch = on ? &queue_watch : NULL;
}
