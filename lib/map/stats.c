/* SPDX-License-Identifier: MIT */
/*
 * The regions of a device come and go, and with the first and the last of them the counting. While
 * they change, no request is inside. Called by applications, by stats_message.c, by suspend.c,
 * depth.c and device.c.
 */
#include "map/stats.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"
#include "base/options.h"
#include "queue/drain.h"

static int no_memory(void)
{
	return dmcore__error(-ENOMEM, "no memory for counters");
}

static struct dmcore_queue *queue_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct dmcore_queue, link);
}

/* ---- regions ---- */

static void free_region(struct dmcore__stats *stats, struct dmcore__stats_region *region)
{
	dmcore__stats_gather(stats->device->core, region);
	dmcore__stats_region_free(stats->device->core, region);
}

/* Links a region, with the lowest id that is free. */
static void link_region(struct dmcore__stats *stats, struct dmcore__stats_region *region)
{
	struct dmcore__stats_region **at = &stats->regions;
	int id = 0;

	while (*at && (*at)->id == id) {
		at = &(*at)->next;
		id++;
	}
	region->id = id;
	region->next = *at;
	*at = region;
	stats->num_regions++;
}

static void unlink_region(struct dmcore__stats *stats, struct dmcore__stats_region *region)
{
	struct dmcore__stats_region **at = &stats->regions;

	while (*at != region)
		at = &(*at)->next;
	*at = region->next;
	stats->num_regions--;
}

static void set_precise(struct dmcore__stats *stats)
{
	stats->precise = false;
	for (const struct dmcore__stats_region *region = stats->regions; region;
	     region = region->next)
		stats->precise = stats->precise || region->precise;
}

static int add_region(struct dmcore__stats *stats, const struct dmcore_stats_options *options)
{
	struct dmcore__stats_region *region;
	uint64_t now_ns;
	int ret;

	if (stats->num_regions == DMCORE_STATS_REGIONS_MAX)
		return dmcore__error(-EOVERFLOW, "the device has %d regions",
				     DMCORE_STATS_REGIONS_MAX);
	region = dmcore__stats_region_make(stats->device, options, &ret);
	if (!region)
		return ret;
	ret = dmcore__stats_spread(stats, region);
	if (ret) {
		free_region(stats, region);
		return ret;
	}
	link_region(stats, region);
	set_precise(stats);
	now_ns = dmcore__stats_now_ns(stats);
	for (uint64_t i = 0; i < region->num_areas; i++)
		region->bases[i].since_ns = now_ns;
	return region->id;
}

/* ---- the life of a device's statistics ---- */

static void free_stats(struct dmcore__stats *stats)
{
	struct dmcore *core = stats->device->core;

	while (stats->regions) {
		struct dmcore__stats_region *region = stats->regions;

		unlink_region(stats, region);
		free_region(stats, region);
	}
	for (uint32_t i = 0; i < DMCORE__QUEUE_INDICES; i++)
		dmcore__stats_free_lane(stats, i);
	dmcore__free(core, stats);
}

static struct dmcore__stats *make_stats(struct dmcore_device *device)
{
	struct dmcore *core = device->core;
	struct dmcore__stats *stats = dmcore__zalloc(core, sizeof(*stats));
	struct dmcore__list *node;
	struct dmcore__list *spare;
	int ret = stats ? 0 : no_memory();

	if (ret)
		return NULL;
	stats->device = device;
	dmcore__list_for_each(node, spare, &core->queues->list) {
		if (ret == 0)
			ret = dmcore__stats_add_lane(stats, queue_entry(node)->index);
	}
	if (ret == 0)
		return stats;
	free_stats(stats);
	return NULL;
}

/* Has requests counted or not from now on. Nobody is inside. */
static int switch_to(struct dmcore_device *device, struct dmcore__stats *stats)
{
	const struct dmcore_table *table = dmcore__device_active(device);
	uint32_t bytes = stats ? dmcore__stats_one_frame_bytes() : 0;
	bool fenced = dmcore__drain_needs_fences(device->core);
	dmcore__route_fn route = fenced ? dmcore__map_route_fenced : dmcore__map_route;
	int ret = 0;

	if (table)
		ret = dmcore__device_set_depth(device, table->frame_bytes + bytes, table->depth);
	if (ret)
		return ret;
	if (stats)
		route = fenced ? dmcore__map_route_counted_fenced : dmcore__map_route_counted;
	device->stats = stats;
	atomic_store_explicit(&device->bdev->route, route, memory_order_relaxed);
	return 0;
}

/* The first region of a device. */
static int begin_counting(struct dmcore_device *device, const struct dmcore_stats_options *options)
{
	struct dmcore__stats *stats = make_stats(device);
	int id;
	int ret;

	if (!stats)
		return -ENOMEM;
	id = add_region(stats, options);
	ret = id < 0 ? id : switch_to(device, stats);
	if (ret == 0)
		return id;
	free_stats(stats);
	return ret;
}

int dmcore__stats_create(struct dmcore_device *device, const struct dmcore_stats_options *options)
{
	int ret = dmcore__device_quiesce(device);

	if (ret)
		return ret;
	ret = device->stats ? add_region(device->stats, options) : begin_counting(device, options);
	dmcore__device_unquiesce(device);
	return ret;
}

struct dmcore__stats_region *dmcore__stats_find(const struct dmcore_device *device, uint64_t id)
{
	struct dmcore__stats_region *region = device->stats ? device->stats->regions : NULL;

	while (region && (uint64_t)region->id != id)
		region = region->next;
	if (!region)
		dmcore__error(-ENOENT, "there is no region %lld", (long long)id);
	return region;
}

/* Of a quiesced device. */
static void end_region(struct dmcore_device *device, struct dmcore__stats_region *region)
{
	struct dmcore__stats *stats = device->stats;
	int ret;

	unlink_region(stats, region);
	free_region(stats, region);
	set_precise(stats);
	if (stats->num_regions > 0)
		return;
	ret = switch_to(device, NULL);
	/* It takes less than before. */
	DMCORE__ASSERT(ret == 0);
	(void)ret;
	free_stats(stats);
}

int dmcore__stats_delete(struct dmcore_device *device, uint64_t id)
{
	struct dmcore__stats_region *region = dmcore__stats_find(device, id);
	int ret = region ? dmcore__device_quiesce(device) : -ENOENT;

	if (ret)
		return ret;
	/* The lock was given up meanwhile. */
	region = dmcore__stats_find(device, id);
	if (region)
		end_region(device, region);
	dmcore__device_unquiesce(device);
	return region ? 0 : -ENOENT;
}

int dmcore__stats_set_aux(struct dmcore_device *device, uint64_t id, const char *aux)
{
	struct dmcore__stats_region *region = dmcore__stats_find(device, id);
	char *copy = region ? dmcore__strdup(device->core, aux) : NULL;

	if (!region)
		return -ENOENT;
	if (!copy)
		return no_memory();
	dmcore__free(device->core, region->aux);
	region->aux = copy;
	return 0;
}

uint32_t dmcore__stats_frame_bytes(const struct dmcore_device *device)
{
	return device->stats ? dmcore__stats_one_frame_bytes() : 0;
}

void dmcore__stats_destroy(struct dmcore_device *device)
{
	if (device->stats)
		free_stats(device->stats);
	device->stats = NULL;
}

/* ---- the interface ---- */

static int check_bounds(const struct dmcore_stats_options *options)
{
	uint64_t below = 0;

	if (options->num_bounds && !options->bounds)
		return dmcore__error(-EINVAL, "the histogram's bounds are missing");
	/* The next test of sizes counts with one more. */
	if (options->num_bounds >= DMCORE_STATS_BUCKETS_MAX)
		return dmcore__error(-EOVERFLOW, "%u bounds of a histogram", options->num_bounds);
	for (uint32_t i = 0; i < options->num_bounds; i++) {
		if (options->bounds[i] <= below)
			return dmcore__error(-EINVAL,
					     "the histogram's bounds don't increase from 1 up");
		below = options->bounds[i];
	}
	return 0;
}

static int read_options(const struct dmcore_stats_options *from, struct dmcore_stats_options *to)
{
	memset(to, 0, sizeof(*to));
	if (!from || !dmcore__struct_take(to, sizeof(*to), from))
		return dmcore__error(-EINVAL, "region options: struct_size isn't set");
	if (to->flags & ~(DMCORE_STATS_PRECISE | DMCORE_STATS_BY_TARGET))
		return dmcore__error(-EINVAL, "region options: unknown flag in 0x%x", to->flags);
	return check_bounds(to);
}

int dmcore_stats_create(struct dmcore_device *device, const struct dmcore_stats_options *options)
{
	struct dmcore_stats_options own;
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = read_options(options, &own);
	if (ret == 0)
		ret = dmcore__stats_create(device, &own);
	if (ret < 0)
		dmcore__error_prefix(ret, "%s", device->bdev->name);
	dmcore__unlock(device->core);
	return ret;
}

int dmcore_stats_delete(struct dmcore_device *device, int id)
{
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = dmcore__stats_delete(device, id < 0 ? UINT64_MAX : (uint64_t)id);
	if (ret)
		dmcore__error_prefix(ret, "%s", device->bdev->name);
	dmcore__unlock(device->core);
	return ret;
}
