/* SPDX-License-Identifier: MIT */
/*
 * Statistics added up over the queues, told and cleared, while counting goes on. Called by
 * applications and by stats_message.c.
 */
#include "map/stats.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

void dmcore__stats_sum_up(const struct dmcore__stats *stats,
			  const struct dmcore__stats_region *region, uint64_t area,
			  struct dmcore__stats_sum *sum, uint64_t *buckets)
{
	uint64_t per_area = (uint64_t)region->num_bounds + 1;
	uint64_t now_ns = dmcore__stats_now_ns(stats);
	const struct dmcore__stats_part *part;

	memcpy(sum->counters, region->bases[area].counters, sizeof(sum->counters));
	sum->in_flight = 0;
	if (buckets && region->num_bounds)
		memcpy(buckets, &region->base_buckets[area * per_area],
		       per_area * sizeof(*buckets));
	for (part = region->parts; part; part = part->sibling) {
		dmcore__stats_add_cell(part, area, now_ns, sum);
		if (buckets)
			dmcore__stats_add_buckets(part, area, buckets);
	}
}

void dmcore__stats_take_off(const struct dmcore__stats *stats, struct dmcore__stats_region *region,
			    uint64_t area, const struct dmcore__stats_sum *sum,
			    const uint64_t *buckets)
{
	uint64_t per_area = (uint64_t)region->num_bounds + 1;
	struct dmcore__stats_base *base = &region->bases[area];

	for (unsigned int i = 0; i < DMCORE__STATS_COUNTERS; i++)
		base->counters[i] -= sum->counters[i];
	base->since_ns = dmcore__stats_now_ns(stats);
	for (uint64_t i = 0; buckets && i < per_area; i++)
		region->base_buckets[area * per_area + i] -= buckets[i];
}

/* A queue that had read its clock before a clear adds its times afterwards: less than nothing. */
static uint64_t not_negative(uint64_t value)
{
	return value >> 63 ? 0 : value;
}

void dmcore__stats_tell(const struct dmcore__stats *stats,
			const struct dmcore__stats_region *region, uint64_t area,
			const struct dmcore__stats_sum *sum, struct dmcore_stats_area *told)
{
	const uint64_t *reads = sum->counters;
	const uint64_t *writes = &sum->counters[DMCORE__STATS_OF_EACH];
	uint64_t now_ns = dmcore__stats_now_ns(stats);
	uint64_t since_ns = region->bases[area].since_ns;
	uint64_t most_ns = now_ns > since_ns ? now_ns - since_ns : 0;
	uint64_t begin = dmcore__stats_area_begin(region, area);

	told->start_sector = region->start_sector + begin;
	told->length_sectors = dmcore__stats_area_end(region, area) - begin;
	told->reads = reads[DMCORE__STATS_REQUESTS];
	told->read_merges = reads[DMCORE__STATS_MERGES];
	told->read_sectors = reads[DMCORE__STATS_SECTORS];
	told->read_ns = reads[DMCORE__STATS_NS];
	told->writes = writes[DMCORE__STATS_REQUESTS];
	told->write_merges = writes[DMCORE__STATS_MERGES];
	told->write_sectors = writes[DMCORE__STATS_SECTORS];
	told->write_ns = writes[DMCORE__STATS_NS];
	told->in_flight = sum->in_flight;
	told->busy_ns = dmcore__min_u64(
		not_negative(sum->counters[DMCORE__STATS_ALL_BUSY_NS]), most_ns);
	told->weighted_ns = not_negative(sum->counters[DMCORE__STATS_WEIGHTED_NS]);
	told->read_busy_ns = dmcore__min_u64(not_negative(reads[DMCORE__STATS_BUSY_NS]), most_ns);
	told->write_busy_ns = dmcore__min_u64(not_negative(writes[DMCORE__STATS_BUSY_NS]), most_ns);
}

/* What was counted before: less than nothing, so that nothing is left of the sum. */
static void clear_buckets(struct dmcore__stats_region *region, uint64_t area)
{
	uint64_t per_area = (uint64_t)region->num_bounds + 1;
	uint64_t *buckets = &region->base_buckets[area * per_area];
	const struct dmcore__stats_part *part;

	memset(buckets, 0, per_area * sizeof(*buckets));
	for (part = region->parts; part; part = part->sibling)
		dmcore__stats_add_buckets(part, area, buckets);
	for (uint64_t i = 0; i < per_area; i++)
		buckets[i] = -buckets[i];
}

int dmcore__stats_clear(struct dmcore_device *device, uint64_t id)
{
	struct dmcore__stats_region *region = dmcore__stats_find(device, id);

	if (!region)
		return -ENOENT;
	for (uint64_t i = 0; i < region->num_areas; i++) {
		struct dmcore__stats_sum sum;

		dmcore__stats_sum_up(device->stats, region, i, &sum, NULL);
		dmcore__stats_take_off(device->stats, region, i, &sum, NULL);
		if (region->num_bounds)
			clear_buckets(region, i);
	}
	return 0;
}

int dmcore_stats_clear(struct dmcore_device *device, int id)
{
	int ret;

	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = dmcore__stats_clear(device, id < 0 ? UINT64_MAX : (uint64_t)id);
	if (ret)
		dmcore__error_prefix(ret, "%s", device->bdev->name);
	dmcore__unlock(device->core);
	return ret;
}

/* One area, in the caller's size of it. */
static void read_area(const struct dmcore__stats *stats, const struct dmcore__stats_region *region,
		      uint64_t area, void *room, size_t room_bytes, uint64_t *buckets)
{
	struct dmcore_stats_area told = { 0 };
	struct dmcore__stats_sum sum;
	size_t bytes = room_bytes < sizeof(told) ? room_bytes : sizeof(told);

	dmcore__stats_sum_up(stats, region, area, &sum, buckets);
	dmcore__stats_tell(stats, region, area, &sum, &told);
	/* Without a histogram there is one bucket. */
	if (buckets && region->num_bounds == 0)
		*buckets = told.reads + told.writes;
	memset(room, 0, room_bytes);
	memcpy(room, &told, bytes);
}

static int64_t read_region(struct dmcore_device *device, int id, uint64_t first, uint64_t count,
			   struct dmcore_stats_area *areas, size_t area_bytes, uint64_t *histogram)
{
	const struct dmcore__stats_region *region =
		dmcore__stats_find(device, id < 0 ? UINT64_MAX : (uint64_t)id);
	uint64_t behind;

	if (!region)
		return -ENOENT;
	behind = first < region->num_areas ? region->num_areas - first : 0;
	count = dmcore__min_u64(count, behind);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t *buckets =
			histogram ? histogram + i * ((uint64_t)region->num_bounds + 1) : NULL;

		read_area(device->stats, region, first + i, (char *)areas + i * area_bytes,
			  area_bytes, buckets);
	}
	return (int64_t)behind;
}

int64_t dmcore_stats_read(struct dmcore_device *device, int id, uint64_t first, uint64_t count,
			  struct dmcore_stats_area *areas, size_t area_bytes, uint64_t *histogram)
{
	int64_t ret;

	if ((!areas && count > 0) || area_bytes == 0)
		return dmcore__error(-EINVAL, "no room for the areas");
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	ret = read_region(device, id, first, count, areas, area_bytes, histogram);
	if (ret < 0)
		dmcore__error_prefix((int)ret, "%s", device->bdev->name);
	dmcore__unlock(device->core);
	return ret;
}
