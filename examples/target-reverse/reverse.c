/* SPDX-License-Identifier: MIT */
/*
 * reverse: a range of one device with its chunks in reverse order.
 *
 * Table line:  <start> <length> reverse <chunk> <device> <sector>
 *
 * Chunk n of N is chunk N - 1 - n of the device's range, which begins at <sector>; <length> is a
 * multiple of <chunk>. Status: the number of reads and writes that failed, and the sector of the
 * target that the latest of them began at, or `-`.
 */
#include "reverse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

struct reverse {
	struct dmcore_bdev *bdev;
	uint64_t start;                      /* on bdev */
	uint64_t length;
	uint32_t chunk_sectors;
	_Atomic uint64_t num_errors;         /* set by any queue's thread */
	_Atomic uint64_t last_error_sector;
};

/* Kept with each bio from map to end_io. */
struct reverse_bio {
	uint64_t sector; /* of the target; the bio's own is the device's by then */
};

static int reverse_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct reverse *reverse;
	const char *spec;
	uint64_t chunk;
	int ret;

	if (dmcore_args_left(args) != 3)
		return dmcore_args_fail(args, -EINVAL, "Invalid argument count");
	reverse = dmcore_target_alloc(target, sizeof(*reverse));
	if (!reverse)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate reverse context");
	ret = dmcore_args_u64(args, 1, UINT32_MAX, "Invalid chunk size", &chunk);
	if (ret)
		return ret;
	reverse->chunk_sectors = (uint32_t)chunk;
	reverse->length = dmcore_target_len(target);
	if (reverse->length % chunk)
		return dmcore_args_fail(args, -EINVAL, "Length not divisible by chunk size");
	spec = dmcore_args_next(args);
	ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid device sector", &reverse->start);
	if (ret)
		return ret;
	ret = dmcore_target_device(target, spec, &reverse->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	/* Reads and writes then lie within a chunk, which is all that map has to know. */
	target->max_io_sectors = reverse->chunk_sectors;
	target->flags = DMCORE_TARGET_FLUSH_DEVICES;
	target->private_data = reverse;
	return 0;
}

static enum dmcore_map_result reverse_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct reverse *reverse = target->private_data;
	struct reverse_bio *data = dmcore_bio_target_data(bio);
	uint64_t sector = bio->sector - target->begin;
	uint64_t in_chunk = sector % reverse->chunk_sectors;
	uint64_t chunk_start = sector - in_chunk;

	data->sector = sector;
	bio->bdev = reverse->bdev;
	bio->sector = reverse->start + in_chunk +
		      (reverse->length - reverse->chunk_sectors - chunk_start);
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_end_result reverse_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					     int *status)
{
	struct reverse *reverse = target->private_data;
	const struct reverse_bio *data = dmcore_bio_target_data(bio);

	if (*status) {
		atomic_store(&reverse->last_error_sector, data->sector);
		atomic_fetch_add(&reverse->num_errors, 1);
	}
	return DMCORE_END_DONE;
}

/*
 * A DISCARD or WRITE_ZEROES may span chunks, and lies in as many places then: this target doesn't
 * have them. A flush goes to the device without its help.
 */
static unsigned int reverse_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op == DMCORE_OP_FLUSH ? 1 : 0;
}

static void reverse_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			   struct dmcore_text *text)
{
	struct reverse *reverse = target->private_data;
	uint64_t num_errors = atomic_load(&reverse->num_errors);

	if (kind == DMCORE_TEXT_TABLE) {
		dmcore_text_printf(text, "%" PRIu32 " ", reverse->chunk_sectors);
		dmcore_text_device(text, reverse->bdev);
		dmcore_text_printf(text, " %" PRIu64, reverse->start);
	} else if (num_errors) {
		dmcore_text_printf(text, "%" PRIu64 " %" PRIu64, num_errors,
				   atomic_load(&reverse->last_error_sector));
	} else {
		dmcore_text_printf(text, "0 -");
	}
}

static int reverse_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				   void *context)
{
	const struct reverse *reverse = target->private_data;

	return fn(target, reverse->bdev, reverse->start, reverse->length, context);
}

const struct dmcore_target_type reverse_target = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "reverse",
	.version = { 1, 0, 0 },
	.per_bio_bytes = sizeof(struct reverse_bio),
	.ctr = reverse_ctr,
	.map = reverse_map,
	.end_io = reverse_end_io,
	.num_bios = reverse_num_bios,
	.status = reverse_status,
	.iterate_devices = reverse_iterate_devices,
};
