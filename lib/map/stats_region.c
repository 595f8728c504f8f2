/* SPDX-License-Identifier: MIT */
/*
 * One region of statistics: its range cut into areas, what it is told with, and the memory that all
 * counters take. Called by stats.c and stats_lane.c.
 */
#include "map/stats.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/error.h"

#define NS_PER_MS UINT64_C(1000000)

static uint64_t memory_max(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	long page_bytes = sysconf(_SC_PAGESIZE);

	return (uint64_t)pages * (uint64_t)page_bytes / 4;
}

/* Counters of all devices, and of a queue's lanes, are counted before they are allocated. */
int dmcore__stats_take_memory(struct dmcore *core, uint64_t bytes)
{
	if (core->map->stats_bytes + bytes > memory_max())
		return dmcore__error(-ENOMEM, "counters would take more than a quarter of the "
					      "memory");
	core->map->stats_bytes += bytes;
	return 0;
}

void dmcore__stats_give_back(struct dmcore *core, uint64_t bytes)
{
	DMCORE__ASSERT(core->map->stats_bytes >= bytes);
	core->map->stats_bytes -= bytes;
}

static int no_memory(void)
{
	return dmcore__error(-ENOMEM, "no memory for counters");
}

void dmcore__stats_region_free(struct dmcore *core, struct dmcore__stats_region *region)
{
	dmcore__stats_give_back(core, region->own_bytes);
	dmcore__free(core, (void *)(uintptr_t)region->ends);
	dmcore__free(core, region->base_buckets);
	dmcore__free(core, region->bases);
	dmcore__free(core, region->bounds);
	dmcore__free(core, region->program);
	dmcore__free(core, region->aux);
	dmcore__free(core, region);
}

/* Areas are at most DMCORE_STATS_AREAS_MAX, buckets DMCORE_STATS_BUCKETS_MAX: nothing overflows. */
static int check_size(struct dmcore__stats_region *region)
{
	uint64_t buckets;

	if (region->num_areas > DMCORE_STATS_AREAS_MAX)
		return dmcore__error(-EOVERFLOW, "%llu areas, %d allowed",
				     (unsigned long long)region->num_areas,
				     DMCORE_STATS_AREAS_MAX);
	buckets = region->num_bounds ? region->num_areas * ((uint64_t)region->num_bounds + 1) : 0;
	if (buckets > DMCORE_STATS_BUCKETS_MAX)
		return dmcore__error(-EOVERFLOW, "%llu buckets in all areas, %d allowed",
				     (unsigned long long)buckets, DMCORE_STATS_BUCKETS_MAX);
	region->part_bytes = sizeof(struct dmcore__stats_part) +
			     region->num_areas * sizeof(struct dmcore__stats_cell) +
			     buckets * sizeof(uint64_t);
	region->own_bytes = region->num_areas * sizeof(struct dmcore__stats_base) +
			    buckets * sizeof(uint64_t) + sizeof(*region);
	return 0;
}

static int copy_bounds(struct dmcore *core, struct dmcore__stats_region *region,
		       const uint64_t *bounds)
{
	uint64_t unit_ns = region->precise ? 1 : NS_PER_MS;
	uint32_t n = region->num_bounds;

	if (n == 0)
		return 0;
	region->bounds = dmcore__zalloc_array(core, 2 * (size_t)n, sizeof(uint64_t));
	if (!region->bounds)
		return no_memory();
	memcpy(region->bounds, bounds, n * sizeof(*bounds));
	for (uint32_t i = 0; i < n; i++) {
		if (dmcore__mul_overflows(bounds[i], unit_ns, &region->bounds[n + i]))
			region->bounds[n + i] = UINT64_MAX;
	}
	region->bounds_ns = &region->bounds[n];
	return 0;
}

static int copy_words(struct dmcore *core, struct dmcore__stats_region *region,
		      const struct dmcore_stats_options *options)
{
	const char *program = options->program && *options->program ? options->program : "-";
	const char *aux = options->aux && *options->aux ? options->aux : "-";

	region->program = dmcore__strdup(core, program);
	region->aux = dmcore__strdup(core, aux);
	return region->program && region->aux ? 0 : no_memory();
}

/* One area for each target that has a part of the range. */
static int cut_by_target(struct dmcore *core, struct dmcore__stats_region *region,
			 const struct dmcore_table *table)
{
	uint64_t end = region->start_sector + region->length_sectors;
	uint64_t first = dmcore__find_range(table->ends, table->num_targets, region->start_sector);
	uint64_t last = dmcore__find_range(table->ends, table->num_targets, end - 1);
	uint64_t *ends;

	region->num_areas = last - first + 1;
	ends = dmcore__zalloc_array(core, region->num_areas, sizeof(*ends));
	if (!ends)
		return no_memory();
	for (uint64_t k = 0; k + 1 < region->num_areas; k++)
		ends[k] = table->ends[first + k] - region->start_sector;
	ends[region->num_areas - 1] = region->length_sectors;
	region->ends = ends;
	region->step_sectors = region->length_sectors;
	return 0;
}

static int cut(struct dmcore_device *device, struct dmcore__stats_region *region,
	       const struct dmcore_stats_options *options)
{
	const struct dmcore_table *table = dmcore__device_active(device);
	uint64_t step = options->step_sectors;

	region->step_shift = 64;
	if (options->flags & DMCORE_STATS_BY_TARGET)
		return cut_by_target(device->core, region, table);
	if (step == 0)
		step = region->length_sectors;
	region->step_sectors = step;
	region->num_areas = (region->length_sectors - 1) / step + 1;
	if (dmcore__is_power_of_two(step))
		region->step_shift = (uint32_t)__builtin_ctzll(step);
	return 0;
}

static int set_range(struct dmcore_device *device, struct dmcore__stats_region *region,
		     const struct dmcore_stats_options *options)
{
	const struct dmcore_table *table = dmcore__device_active(device);
	uint64_t start = options->start_sector;
	uint64_t length = options->length_sectors;
	uint64_t end;

	if (!table && (length == 0 || options->flags & DMCORE_STATS_BY_TARGET))
		return dmcore__error(-EINVAL, "there is no live table to take the areas from");
	if (length == 0) {
		if (start >= table->size_sectors)
			return dmcore__error(-EINVAL, "the region begins behind the device");
		length = table->size_sectors - start;
	}
	if (dmcore__add_overflows(start, length, &end))
		return dmcore__error(-EINVAL, "the region ends behind the last sector there is");
	region->start_sector = start;
	region->length_sectors = length;
	return 0;
}

static int fill_region(struct dmcore_device *device, struct dmcore__stats_region *region,
		       const struct dmcore_stats_options *options)
{
	struct dmcore *core = device->core;
	size_t num_buckets;
	int ret;

	ret = set_range(device, region, options);
	if (ret == 0)
		ret = cut(device, region, options);
	if (ret == 0)
		ret = check_size(region);
	if (ret == 0)
		ret = dmcore__stats_take_memory(core, region->own_bytes);
	if (ret) {
		region->own_bytes = 0;
		return ret;
	}
	ret = copy_words(core, region, options);
	if (ret == 0)
		ret = copy_bounds(core, region, options->bounds);
	if (ret)
		return ret;
	region->bases = dmcore__zalloc_array(core, region->num_areas, sizeof(*region->bases));
	num_buckets = region->num_bounds ? region->num_areas * ((size_t)region->num_bounds + 1) : 0;
	if (num_buckets)
		region->base_buckets = dmcore__zalloc_array(core, num_buckets, sizeof(uint64_t));
	return region->bases && (region->base_buckets || num_buckets == 0) ? 0 : no_memory();
}

struct dmcore__stats_region *
dmcore__stats_region_make(struct dmcore_device *device, const struct dmcore_stats_options *options,
			  int *error)
{
	struct dmcore__stats_region *region =
		dmcore__zalloc(device->core, sizeof(*region));

	if (!region) {
		*error = no_memory();
		return NULL;
	}
	region->precise = options->flags & DMCORE_STATS_PRECISE;
	region->num_bounds = options->num_bounds;
	*error = fill_region(device, region, options);
	if (*error == 0)
		return region;
	dmcore__stats_region_free(device->core, region);
	return NULL;
}
