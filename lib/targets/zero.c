/* SPDX-License-Identifier: MIT */
/*
 * zero: reads zeroes, forgets what is written. The origin of a sparse device.
 *
 * Table line:  <start> <length> zero
 *
 * Called by the core through the type at the end.
 */
#include <errno.h>

#include <dmcore/target.h>

static int zero_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	if (dmcore_args_left(args) != 0)
		return dmcore_args_fail(args, -EINVAL, "No arguments required");
	target->flags = DMCORE_TARGET_DISCARDS;
	return 0;
}

/* Apart, so that writes save no registers for it. */
static __attribute__((noinline)) enum dmcore_map_result map_other(struct dmcore_bio *bio)
{
	bool reads = bio->op == DMCORE_OP_READ;

	/* Nothing is gained by having zeroes ahead of time. */
	if ((reads && bio->flags & DMCORE_BIO_RAHEAD) || (!reads && bio->op != DMCORE_OP_DISCARD))
		return DMCORE_MAP_KILL;
	dmcore_bio_complete(bio, reads ? dmcore_bio_zero_fill(bio) : 0);
	return DMCORE_MAP_SUBMITTED;
}

static enum dmcore_map_result zero_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	if (bio->op != DMCORE_OP_WRITE)
		return map_other(bio);
	dmcore_bio_complete(bio, 0);
	return DMCORE_MAP_SUBMITTED;
}

static unsigned int zero_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op == DMCORE_OP_DISCARD ? 1 : 0;
}

static void zero_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place)
{
	(void)target;
	(void)sector;
	place->kind = DMCORE_EXTENT_ZERO;
}

extern const struct dmcore_target_type dmcore__target_zero;

const struct dmcore_target_type dmcore__target_zero = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "zero",
	.version = { 1, 2, 0 },
	.ctr = zero_ctr,
	.map = zero_map,
	.num_bios = zero_num_bios,
	.extent = zero_extent,
};
