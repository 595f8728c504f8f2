/* SPDX-License-Identifier: MIT */
/*
 * unstriped: one stripe of a device that holds chunks of several in turn.
 *
 * Table line:  <start> <length> unstriped <stripes> <chunk> <stripe> <device> <sector>
 *
 * Chunk c of the target (of <chunk> sectors) is chunk c * <stripes> + <stripe> of the device,
 * counted from <sector>. Called by the core through the type at the end.
 */
#include <errno.h>
#include <inttypes.h>

#include <dmcore/target.h>

#include "base/checked.h"

struct unstriped {
	struct dmcore_bdev *bdev;
	uint64_t start;       /* as in the table line */
	uint64_t first;       /* sector of the device that is the target's first */
	uint64_t gap_sectors; /* from a chunk's end to the next one on the device */
	uint32_t num_stripes;
	uint32_t stripe;
	uint32_t chunk_sectors;
	uint32_t chunk_shift;
	bool shifts; /* the chunk is a power of two */
};

/* ---- constructor ---- */

static int parse_geometry(struct dmcore_args *args, struct unstriped *unstriped)
{
	uint64_t num_stripes;
	uint64_t chunk_sectors;
	uint64_t stripe;
	int ret;

	ret = dmcore_args_u64(args, 1, UINT32_MAX, "Invalid stripe count", &num_stripes);
	if (ret)
		return ret;
	ret = dmcore_args_u64(args, 1, UINT32_MAX, "Invalid chunk_size", &chunk_sectors);
	if (ret)
		return ret;
	ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid stripe number", &stripe);
	if (ret)
		return ret;
	if (stripe >= num_stripes)
		return dmcore_args_fail(args, -EINVAL,
					"Please provide stripe between [0, # of stripes]");
	unstriped->num_stripes = (uint32_t)num_stripes;
	unstriped->chunk_sectors = (uint32_t)chunk_sectors;
	unstriped->stripe = (uint32_t)stripe;
	unstriped->shifts = dmcore__is_power_of_two(chunk_sectors);
	while (UINT64_C(1) << unstriped->chunk_shift < chunk_sectors)
		unstriped->chunk_shift++;
	return 0;
}

static int unstriped_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct unstriped *unstriped;
	int ret;

	if (dmcore_args_left(args) != 5)
		return dmcore_args_fail(args, -EINVAL, "Invalid number of arguments");
	unstriped = dmcore_target_alloc(target, sizeof(*unstriped));
	if (!unstriped)
		return dmcore_args_fail(args, -ENOMEM,
					"Memory allocation for unstriped context failed");
	ret = parse_geometry(args, unstriped);
	if (ret)
		return ret;
	ret = dmcore_target_device(target, dmcore_args_next(args), &unstriped->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Couldn't get striped device");
	ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid striped device offset",
			      &unstriped->start);
	if (ret)
		return ret;
	if (dmcore_target_len(target) % unstriped->chunk_sectors)
		return dmcore_args_fail(args, -EINVAL, "Target length not divisible by chunk size");
	/* Sums that wrap belong to ranges that iterate_devices shows to be too long. */
	unstriped->first =
		unstriped->start + (uint64_t)unstriped->stripe * unstriped->chunk_sectors;
	unstriped->gap_sectors = (uint64_t)(unstriped->num_stripes - 1) * unstriped->chunk_sectors;
	target->private_data = unstriped;
	target->max_io_sectors = unstriped->chunk_sectors;
	target->flags = DMCORE_TARGET_FLUSH_DEVICES;
	return 0;
}

/* ---- the way of a bio ---- */

static enum dmcore_map_result unstriped_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct unstriped *unstriped = target->private_data;
	uint64_t offset = bio->sector - target->begin;
	uint64_t chunk = unstriped->shifts ? offset >> unstriped->chunk_shift :
					     offset / unstriped->chunk_sectors;

	bio->bdev = unstriped->bdev;
	bio->sector = unstriped->first + offset + chunk * unstriped->gap_sectors;
	return DMCORE_MAP_REMAPPED;
}

/* ---- status and limits ---- */

static void unstriped_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			     struct dmcore_text *text)
{
	const struct unstriped *unstriped = target->private_data;

	if (kind != DMCORE_TEXT_TABLE)
		return;
	dmcore_text_printf(text, "%" PRIu32 " %" PRIu32 " %" PRIu32 " ", unstriped->num_stripes,
			   unstriped->chunk_sectors, unstriped->stripe);
	dmcore_text_device(text, unstriped->bdev);
	dmcore_text_printf(text, " %" PRIu64, unstriped->start);
}

/* From <sector> to the end of the last chunk: the chunks between belong to other stripes. */
static uint64_t span_sectors(struct dmcore_target *target, const struct unstriped *unstriped)
{
	uint64_t length = dmcore_target_len(target);
	uint64_t gaps = length / unstriped->chunk_sectors - 1;
	uint64_t before = (uint64_t)unstriped->stripe * unstriped->chunk_sectors;
	uint64_t span;

	if (dmcore__mul_overflows(gaps, unstriped->gap_sectors, &span) ||
	    dmcore__add_overflows(span, length, &span) ||
	    dmcore__add_overflows(span, before, &span))
		return UINT64_MAX;
	return span;
}

static int unstriped_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				     void *context)
{
	const struct unstriped *unstriped = target->private_data;

	return fn(target, unstriped->bdev, unstriped->start, span_sectors(target, unstriped),
		  context);
}

static void unstriped_extent(struct dmcore_target *target, uint64_t sector,
			     struct dmcore_place *place)
{
	const struct unstriped *unstriped = target->private_data;
	uint64_t offset = sector - target->begin;
	uint64_t chunk = offset / unstriped->chunk_sectors;
	uint64_t into = offset % unstriped->chunk_sectors;

	place->bdev = unstriped->bdev;
	place->sector = unstriped->first + offset + chunk * unstriped->gap_sectors;
	place->count = dmcore__min_u64(place->count, unstriped->chunk_sectors - into);
}

static void unstriped_io_hints(struct dmcore_target *target, struct dmcore_limits *limits)
{
	const struct unstriped *unstriped = target->private_data;

	limits->chunk_sectors = unstriped->chunk_sectors;
}

extern const struct dmcore_target_type dmcore__target_unstriped;

const struct dmcore_target_type dmcore__target_unstriped = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "unstriped",
	.version = { 1, 1, 0 },
	.ctr = unstriped_ctr,
	.map = unstriped_map,
	.status = unstriped_status,
	.iterate_devices = unstriped_iterate_devices,
	.io_hints = unstriped_io_hints,
	.extent = unstriped_extent,
};
