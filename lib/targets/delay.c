/* SPDX-License-Identifier: MIT */
/*
 * delay: a range of a device, reached late; reads, writes and flushes may have one of their own.
 *
 * Table line:  <start> <length> delay <device> <sector> <ms>
 *		[<write device> <sector> <ms> [<flush device> <sector> <ms>]]
 *
 * Sector s of the target is sector <sector> + s of the device of the request's class; discards are
 * writes. Called by the core through the type at the end.
 */
#include <errno.h>
#include <inttypes.h>

#include <dmcore/target.h>

#include "targets/delay/lanes.h"

#define NS_PER_MS UINT64_C(1000000)

struct path {
	struct dmcore_bdev *bdev;
	uint64_t start;
	uint32_t delay_ms;
};

struct delay {
	unsigned int num_given; /* of paths; the others are copies of the last one given */
	struct path paths[DELAY_CLASSES];
	struct delay_lanes *lanes;
};

/* ---- constructor ---- */

static int parse_path(struct dmcore_target *target, struct dmcore_args *args, struct path *path)
{
	const char *spec = dmcore_args_next(args);
	uint64_t delay_ms;
	int ret;

	ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid device sector", &path->start);
	if (ret == 0)
		ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid delay", &delay_ms);
	if (ret)
		return ret;
	path->delay_ms = (uint32_t)delay_ms;
	ret = dmcore_target_device(target, spec, &path->bdev);
	return ret ? dmcore_args_fail(args, ret, "Device lookup failed") : 0;
}

static int delay_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	unsigned int words = dmcore_args_left(args);
	struct delay *delay;

	if (words != 3 && words != 6 && words != 9)
		return dmcore_args_fail(args, -EINVAL, "Requires exactly 3, 6 or 9 arguments");
	delay = dmcore_target_alloc(target, sizeof(*delay));
	if (!delay)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	delay->num_given = words / 3;
	for (unsigned int i = 0; i < DELAY_CLASSES; i++) {
		int ret = 0;

		if (i < delay->num_given)
			ret = parse_path(target, args, &delay->paths[i]);
		else
			delay->paths[i] = delay->paths[i - 1];
		if (ret)
			return ret;
	}
	delay->lanes = dmcore_target_alloc(target, sizeof(*delay->lanes));
	if (!delay->lanes)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	target->private_data = delay;
	return 0;
}

/* ---- the way of a bio ---- */

static enum delay_class class_of(const struct dmcore_bio *bio)
{
	if (bio->op == DMCORE_OP_READ)
		return DELAY_READ;
	return bio->op == DMCORE_OP_FLUSH ? DELAY_FLUSH : DELAY_WRITE;
}

static enum dmcore_map_result delay_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct delay *delay = target->private_data;
	enum delay_class class = class_of(bio);
	const struct path *path = &delay->paths[class];

	bio->bdev = path->bdev;
	if (bio->op != DMCORE_OP_FLUSH)
		bio->sector = path->start + (bio->sector - target->begin);
	if (path->delay_ms == 0)
		return DMCORE_MAP_REMAPPED;
	if (!dmcore__lanes_hold(delay->lanes, dmcore_bio_target_data(bio), bio, class,
				path->delay_ms * NS_PER_MS))
		return DMCORE_MAP_REMAPPED;
	return DMCORE_MAP_SUBMITTED;
}

static unsigned int delay_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op != DMCORE_OP_WRITE_ZEROES;
}

/* ---- suspend and resume ---- */

static void delay_stop(struct dmcore_target *target)
{
	struct delay *delay = target->private_data;

	dmcore__lanes_stop(delay->lanes);
}

static void delay_start(struct dmcore_target *target)
{
	struct delay *delay = target->private_data;

	dmcore__lanes_start(delay->lanes);
}

/* ---- status and limits ---- */

static void delay_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			 struct dmcore_text *text)
{
	const struct delay *delay = target->private_data;

	if (kind != DMCORE_TEXT_TABLE) {
		dmcore_text_printf(text, "%" PRIu64 " %" PRIu64 " %" PRIu64,
				   dmcore__lanes_count(delay->lanes, DELAY_READ),
				   dmcore__lanes_count(delay->lanes, DELAY_WRITE),
				   dmcore__lanes_count(delay->lanes, DELAY_FLUSH));
		return;
	}
	for (unsigned int i = 0; i < delay->num_given; i++) {
		const struct path *path = &delay->paths[i];

		dmcore_text_printf(text, "%s", i ? " " : "");
		dmcore_text_device(text, path->bdev);
		dmcore_text_printf(text, " %" PRIu64 " %" PRIu32, path->start, path->delay_ms);
	}
}

static int delay_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct delay *delay = target->private_data;
	int ret = 0;

	for (unsigned int i = 0; i < delay->num_given && ret == 0; i++)
		ret = fn(target, delay->paths[i].bdev, delay->paths[i].start,
			 dmcore_target_len(target), context);
	return ret;
}

static void delay_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place)
{
	const struct delay *delay = target->private_data;
	const struct path *path = &delay->paths[DELAY_READ];

	place->bdev = path->bdev;
	place->sector = path->start + (sector - target->begin);
}

extern const struct dmcore_target_type dmcore__target_delay;

const struct dmcore_target_type dmcore__target_delay = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "delay",
	.version = { 1, 4, 0 },
	.per_bio_bytes = sizeof(struct held_bio),
	.ctr = delay_ctr,
	.map = delay_map,
	.num_bios = delay_num_bios,
	.presuspend = delay_stop,
	.presuspend_undo = delay_start,
	.resume = delay_start,
	.status = delay_status,
	.iterate_devices = delay_iterate_devices,
	.extent = delay_extent,
};
