/* SPDX-License-Identifier: MIT */
/*
 * Completing a table: its devices must be large enough and suit its boundaries, their limits are
 * stacked as the kernel stacks queue limits, and what a bio costs on its way down is counted.
 * Called by parse.c, and by device.c when a table is loaded and resumed.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "bdev/bio.h"
#include "map/map.h"

/* A table has these only if all that stands below has. */
#define CAPS_OF_ALL \
	(DMCORE_CAP_FUA | DMCORE_CAP_DISCARD | DMCORE_CAP_WRITE_ZEROES | DMCORE_CAP_DISCARD_ZEROES)
/* And these if any has. */
#define CAPS_OF_ANY DMCORE_CAP_VOLATILE_CACHE

/* ---- stacking ---- */

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* 0 stands for "none" in both; a multiple too large to be said is none too. */
static uint32_t common_multiple(uint32_t a, uint32_t b)
{
	uint64_t multiple;

	if (a == 0 || b == 0)
		return a | b;
	multiple = a / greatest_common_divisor(a, b) * b;
	return multiple <= UINT32_MAX ? (uint32_t)multiple : 0;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* Amends `top` so that it suits what `bottom` describes too. */
static void stack_limits(struct dmcore_limits *top, const struct dmcore_limits *bottom)
{
	unsigned int caps = top->caps;
	uint32_t block_bytes;

	top->caps = (caps & bottom->caps & CAPS_OF_ALL) | ((caps | bottom->caps) & CAPS_OF_ANY);
	top->logical_block_bytes = max_u32(top->logical_block_bytes, bottom->logical_block_bytes);
	top->physical_block_bytes =
		max_u32(top->physical_block_bytes, bottom->physical_block_bytes);
	top->io_min_bytes = max_u32(top->io_min_bytes, bottom->io_min_bytes);
	top->io_opt_bytes = common_multiple(top->io_opt_bytes, bottom->io_opt_bytes);
	top->memory_align_bytes = max_u32(top->memory_align_bytes, bottom->memory_align_bytes);
	top->discard_granularity_bytes =
		max_u32(top->discard_granularity_bytes, bottom->discard_granularity_bytes);
	top->max_io_sectors = dmcore__min_not_zero_u64(top->max_io_sectors, bottom->max_io_sectors);
	top->max_discard_sectors =
		dmcore__min_not_zero_u64(top->max_discard_sectors, bottom->max_discard_sectors);
	top->max_write_zeroes_sectors = dmcore__min_not_zero_u64(top->max_write_zeroes_sectors,
								 bottom->max_write_zeroes_sectors);
	top->chunk_sectors = greatest_common_divisor(top->chunk_sectors, bottom->chunk_sectors);

	/* What is no multiple of a block would ask for requests that cost more than others. */
	if (top->physical_block_bytes % top->logical_block_bytes)
		top->physical_block_bytes = top->logical_block_bytes;
	block_bytes = top->physical_block_bytes;
	if (top->io_min_bytes % block_bytes)
		top->io_min_bytes = block_bytes;
	if (top->io_opt_bytes % block_bytes)
		top->io_opt_bytes = 0;
	if (top->chunk_sectors % dmcore__max_u64(dmcore__bytes_to_sectors(block_bytes), 1))
		top->chunk_sectors = 0;
}

static int stack_device(struct dmcore_target *target, struct dmcore_bdev *bdev, uint64_t start,
			uint64_t length, void *context)
{
	struct dmcore_limits *limits = context;
	struct dmcore_table *table = target->table;
	uint32_t block_bytes = max_u32(bdev->limits.physical_block_bytes, DMCORE_SECTOR_BYTES);

	(void)length;
	stack_limits(limits, &bdev->limits);
	if (start % (block_bytes / DMCORE_SECTOR_BYTES) && !table->warned) {
		table->warned = true;
		dmcore__log(table->core, DMCORE_LOG_WARNING,
			    "adding target device %s caused an alignment inconsistency: "
			    "physical_block_size=%u, logical_block_size=%u, start=%llu",
			    bdev->name, block_bytes, bdev->limits.logical_block_bytes,
			    (unsigned long long)start);
	}
	return 0;
}

static void start_stacking(struct dmcore_limits *limits)
{
	dmcore__limits_default(limits);
	limits->caps = CAPS_OF_ALL;
}

static bool wants_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	return target->type->num_bios && target->type->num_bios(target, op) > 0;
}

/* The limits of one target. */
static void target_limits(struct dmcore_target *target, struct dmcore_limits *limits)
{
	start_stacking(limits);
	if (target->type->iterate_devices)
		target->type->iterate_devices(target, stack_device, limits);
	if (target->type->io_hints)
		target->type->io_hints(target, limits);
	/* Divisions rely on it, whatever a target has hinted at. */
	limits->logical_block_bytes = max_u32(limits->logical_block_bytes, DMCORE_SECTOR_BYTES);
	if (target->flags & DMCORE_TARGET_DISCARDS)
		limits->caps |= DMCORE_CAP_DISCARD;
	if (!wants_bios(target, DMCORE_OP_DISCARD))
		limits->caps &= ~DMCORE_CAP_DISCARD;
	if (!wants_bios(target, DMCORE_OP_WRITE_ZEROES))
		limits->caps &= ~DMCORE_CAP_WRITE_ZEROES;
}

/* Takes out of a table's limits what its capabilities leave no sense. */
static void settle_limits(struct dmcore_limits *limits)
{
	if (!(limits->caps & DMCORE_CAP_DISCARD)) {
		limits->caps &= ~DMCORE_CAP_DISCARD_ZEROES;
		limits->discard_granularity_bytes = 0;
		limits->max_discard_sectors = 0;
	} else if (limits->discard_granularity_bytes == 0) {
		limits->discard_granularity_bytes = limits->logical_block_bytes;
	}
	if (!(limits->caps & DMCORE_CAP_WRITE_ZEROES))
		limits->max_write_zeroes_sectors = 0;
}

/* ---- areas and boundaries ---- */

static int check_area(struct dmcore_target *target, struct dmcore_bdev *bdev, uint64_t start,
		      uint64_t length, void *context)
{
	uint64_t dev_size = dmcore_bdev_size_sectors(bdev);
	uint32_t block_bytes = bdev->limits.logical_block_bytes;
	uint64_t block_sectors = dmcore__bytes_to_sectors(block_bytes);

	(void)target;
	(void)context;
	if (start >= dev_size || length > dev_size - start)
		return dmcore__error(-EINVAL,
				     "%s too small for target: start=%llu, len=%llu, "
				     "dev_size=%llu",
				     bdev->name, (unsigned long long)start,
				     (unsigned long long)length, (unsigned long long)dev_size);
	if (block_sectors <= 1)
		return 0;
	if (start % block_sectors)
		return dmcore__error(-EINVAL,
				     "start=%llu not aligned to h/w logical block size %u of %s",
				     (unsigned long long)start, block_bytes, bdev->name);
	if (length % block_sectors)
		return dmcore__error(-EINVAL,
				     "len=%llu not aligned to h/w logical block size %u of %s",
				     (unsigned long long)length, block_bytes, bdev->name);
	return 0;
}

/*
 * A block of the table's must not be cut by a boundary between targets, unless the target behind it
 * has smaller blocks. Only for tables whose blocks are larger than a sector.
 */
static int check_boundaries(struct dmcore_table *table)
{
	uint64_t block_sectors = dmcore__bytes_to_sectors(table->limits.logical_block_bytes);
	uint64_t begin = 0;
	uint64_t length = 0;
	uint64_t missing = 0; /* sectors to the end of the block that the last target began */
	uint32_t i;

	if (block_sectors <= 1)
		return 0;
	for (i = 0; i < table->num_targets; i++) {
		struct dmcore_target *target = dmcore__table_target(table, i);
		struct dmcore_limits limits;
		uint64_t over;

		begin = target->begin;
		length = table->ends[i] - begin;
		target_limits(target, &limits);
		if (missing < length &&
		    missing % dmcore__bytes_to_sectors(limits.logical_block_bytes))
			break;
		over = table->ends[i] % block_sectors;
		missing = over ? block_sectors - over : 0;
	}
	if (i == table->num_targets && missing == 0)
		return 0;
	if (i == table->num_targets)
		i--;
	table->failed_target = i;
	return dmcore__error(-EINVAL,
			     "table line %u (start sect %llu len %llu) not aligned to h/w "
			     "logical block size %u",
			     i + 1, (unsigned long long)begin, (unsigned long long)length,
			     table->limits.logical_block_bytes);
}

int dmcore__table_check_areas(struct dmcore_table *table)
{
	uint64_t generation = atomic_load(&table->core->bdevs->generation);
	int ret = 0;

	if (table->checked_generation == generation)
		return 0;
	start_stacking(&table->limits);
	for (uint32_t i = 0; i < table->num_targets && ret == 0; i++) {
		struct dmcore_target *target = dmcore__table_target(table, i);
		struct dmcore_limits limits;

		target_limits(target, &limits);
		if (target->type->iterate_devices)
			ret = target->type->iterate_devices(target, check_area, NULL);
		if (ret)
			table->failed_target = i;
		stack_limits(&table->limits, &limits);
	}
	if (ret == 0)
		ret = check_boundaries(table);
	settle_limits(&table->limits);
	if (ret == 0)
		table->checked_generation = generation;
	return ret;
}

/* ---- depth ---- */

static int measure_device(struct dmcore_bdev *bdev, void *context)
{
	struct dmcore_table *table = context;

	table->frame_bytes = max_u32(table->frame_bytes, bdev->frame_bytes);
	table->depth = max_u32(table->depth, bdev->depth);
	return 0;
}

int dmcore__table_measure(struct dmcore_table *table)
{
	table->frame_bytes = 0;
	table->depth = 0;
	dmcore__table_each_device(table, measure_device, table);
	table->frame_bytes += dmcore__map_frame_bytes(table);
	table->depth++;
	if (table->depth > DMCORE_STACK_DEPTH_MAX)
		return dmcore__error(-ELOOP, "%u mapped devices on top of each other, %u allowed",
				     table->depth, DMCORE_STACK_DEPTH_MAX);
	if (table->frame_bytes > DMCORE_BIO_FRAME_BYTES - DMCORE__FRAME_RESERVE_BYTES)
		return dmcore__error(-ELOOP,
				     "stacked too deep: a request would need %u bytes of "
				     "completion frames, it has %u",
				     table->frame_bytes,
				     DMCORE_BIO_FRAME_BYTES - DMCORE__FRAME_RESERVE_BYTES);
	return 0;
}

int dmcore__table_finish(struct dmcore_table *table)
{
	int ret;

	if (table->complete)
		return 0;
	table->failed_target = table->num_targets;
	if (table->num_targets == 0)
		return dmcore__error(-EINVAL, "no targets specified");
	ret = dmcore__table_check_areas(table);
	if (ret)
		return ret;
	ret = dmcore__table_plan_flush(table);
	if (ret)
		return ret;
	ret = dmcore__table_measure(table);
	if (ret)
		return ret;
	table->guess_scale = (uint64_t)((((unsigned __int128)table->num_targets << 64) - 1) /
					table->size_sectors);
	table->complete = true;
	return 0;
}

int dmcore__table_complete(struct dmcore_table *table)
{
	int ret = dmcore__table_finish(table);

	if (ret && table->failed_target < table->num_targets)
		dmcore__error_prefix(ret, "table line %u", table->failed_target + 1);
	return ret;
}

int dmcore_table_complete(struct dmcore_table *table)
{
	int ret;

	ret = dmcore__control_begin(table ? table->core : NULL);
	if (ret)
		return ret;
	ret = dmcore__table_complete(table);
	dmcore__unlock(table->core);
	return ret;
}
