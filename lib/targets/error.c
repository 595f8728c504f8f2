/* SPDX-License-Identifier: MIT */
/*
 * error: fails every request with -EIO.
 *
 * Table line:  <start> <length> error [<device> <sector>]
 *
 * The device is never touched: the target takes its limits, so that it can stand in for a range of
 * it. As in the kernel, arguments of any other number are ignored, and a TABLE line has none.
 * Called by the core through the type at the end.
 */
#include <errno.h>

#include <dmcore/target.h>

struct error {
	struct dmcore_bdev *bdev;
	uint64_t start;
};

static int error_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct error *error;
	const char *spec;
	int ret;

	if (dmcore_args_left(args) != 2)
		return 0;
	error = dmcore_target_alloc(target, sizeof(*error));
	if (!error)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate error context");
	spec = dmcore_args_next(args);
	ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid device sector", &error->start);
	if (ret)
		return ret;
	ret = dmcore_target_device(target, spec, &error->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	target->private_data = error;
	return 0;
}

static enum dmcore_map_result error_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static unsigned int error_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op == DMCORE_OP_DISCARD ? 1 : 0;
}

static int error_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct error *error = target->private_data;

	if (!error)
		return 0;
	return fn(target, error->bdev, error->start, dmcore_target_len(target), context);
}

extern const struct dmcore_target_type dmcore__target_error;

const struct dmcore_target_type dmcore__target_error = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "error",
	.version = { 1, 7, 0 },
	.features = DMCORE_TARGET_TYPE_WILDCARD,
	.ctr = error_ctr,
	.map = error_map,
	.num_bios = error_num_bios,
	.iterate_devices = error_iterate_devices,
};
