/* SPDX-License-Identifier: MIT */
/*
 * linear: a range of one device.
 *
 * Table line:  <start> <length> linear <device> <sector>
 *
 * Sector s of the target is sector <sector> + s of the device. Called by the core through the type
 * at the end.
 */
#include <errno.h>
#include <inttypes.h>

#include <dmcore/target.h>

struct linear {
	struct dmcore_bdev *bdev;
	uint64_t start;
};

static int linear_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct linear *linear;
	const char *spec;
	int ret;

	if (dmcore_args_left(args) != 2)
		return dmcore_args_fail(args, -EINVAL, "Invalid argument count");
	linear = dmcore_target_alloc(target, sizeof(*linear));
	if (!linear)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate linear context");
	spec = dmcore_args_next(args);
	ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid device sector", &linear->start);
	if (ret)
		return ret;
	ret = dmcore_target_device(target, spec, &linear->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	target->private_data = linear;
	target->flags = DMCORE_TARGET_FLUSH_DEVICES;
	return 0;
}

static enum dmcore_map_result linear_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct linear *linear = target->private_data;

	bio->bdev = linear->bdev;
	bio->sector = linear->start + (bio->sector - target->begin);
	return DMCORE_MAP_REMAPPED;
}

static unsigned int linear_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static void linear_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			  struct dmcore_text *text)
{
	const struct linear *linear = target->private_data;

	if (kind != DMCORE_TEXT_TABLE)
		return;
	dmcore_text_device(text, linear->bdev);
	dmcore_text_printf(text, " %" PRIu64, linear->start);
}

static int linear_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct linear *linear = target->private_data;

	return fn(target, linear->bdev, linear->start, dmcore_target_len(target), context);
}

static void linear_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place)
{
	const struct linear *linear = target->private_data;

	place->bdev = linear->bdev;
	place->sector = linear->start + (sector - target->begin);
}

extern const struct dmcore_target_type dmcore__target_linear;

const struct dmcore_target_type dmcore__target_linear = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "linear",
	.version = { 1, 4, 0 },
	.ctr = linear_ctr,
	.map = linear_map,
	.num_bios = linear_num_bios,
	.status = linear_status,
	.iterate_devices = linear_iterate_devices,
	.extent = linear_extent,
};
