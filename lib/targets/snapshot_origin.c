/* SPDX-License-Identifier: MIT */
/*
 * snapshot-origin: a device that has snapshots. A write waits until all of them have what it
 * overwrites.
 *
 * Table line:  <start> <length> snapshot-origin <device>
 *
 * Sector s of the table is sector s of the device. A snapshot counts from its first resume on:
 * suspend the origin meanwhile, or what is being written just then may be either in the snapshot or
 * not. Called by the core through the type at the end; the work is done in
 * targets/snapshot/origin.c.
 */
#include <errno.h>

#include <dmcore/target.h>

#include "base/compiler.h"
#include "targets/snapshot/origin.h"

struct origin_target {
	struct dmcore_bdev *bdev;
	struct origin *origin;
};

static int origin_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct origin_target *own;
	void *object;
	int ret;

	if (dmcore_args_left(args) != 1)
		return dmcore_args_fail(args, -EINVAL, "origin: incorrect number of arguments");
	own = dmcore_target_alloc(target, sizeof(*own));
	if (!own)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate private origin structure");
	ret = dmcore_target_device(target, dmcore_args_next(args), &own->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Cannot get target device");
	ret = dmcore_target_share(target, own->bdev, &dmcore__origin_shared, &object);
	if (ret)
		return dmcore_args_fail(args, ret, "Cannot allocate private origin structure");
	own->origin = object;
	target->private_data = own;
	return 0;
}

static enum dmcore_map_result origin_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct origin_target *own = target->private_data;
	struct snapshot_request *request;

	bio->bdev = own->bdev;
	if (bio->op != DMCORE_OP_WRITE || dmcore__origin_is_clear(own->origin, bio))
		return DMCORE_MAP_REMAPPED;
	request = dmcore_bio_target_data(bio);
	dmcore__request_keep(request, bio);
	request->origin = own->origin;
	dmcore__request_post(request, own->origin->service, dmcore__request_origin_write);
	return DMCORE_MAP_SUBMITTED;
}

static unsigned int origin_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op == DMCORE_OP_FLUSH;
}

static void origin_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			  struct dmcore_text *text)
{
	const struct origin_target *own = target->private_data;

	if (kind == DMCORE_TEXT_TABLE)
		dmcore_text_device(text, own->bdev);
}

static int origin_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				  void *context)
{
	const struct origin_target *own = target->private_data;

	return fn(target, own->bdev, 0, dmcore_target_len(target), context);
}

static void origin_extent(struct dmcore_target *target, uint64_t sector,
			  struct dmcore_place *place)
{
	const struct origin_target *own = target->private_data;

	place->bdev = own->bdev;
	place->sector = sector;
}

extern const struct dmcore_target_type dmcore__target_snapshot_origin;

const struct dmcore_target_type dmcore__target_snapshot_origin = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "snapshot-origin",
	.version = { 1, 9, 0 },
	.per_bio_bytes = sizeof(struct snapshot_request),
	.ctr = origin_ctr,
	.map = origin_map,
	.num_bios = origin_num_bios,
	.status = origin_status,
	.iterate_devices = origin_iterate_devices,
	.extent = origin_extent,
};
