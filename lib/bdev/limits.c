/* SPDX-License-Identifier: MIT */
/* A device's limits: defaults, validation, and copies for callers of any version. */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/options.h"
#include "bdev/bdev.h"

void dmcore__limits_default(struct dmcore_limits *limits)
{
	memset(limits, 0, sizeof(*limits));
	limits->struct_size = sizeof(*limits);
	limits->logical_block_bytes = DMCORE_SECTOR_BYTES;
	limits->physical_block_bytes = DMCORE_SECTOR_BYTES;
	limits->io_min_bytes = DMCORE_SECTOR_BYTES;
	limits->memory_align_bytes = 1;
}

int dmcore__limits_copy_out(const struct dmcore_limits *from, struct dmcore_limits *to)
{
	size_t size = to->struct_size;

	if (size < sizeof(size))
		return -EINVAL;
	if (size > sizeof(*from)) {
		memset((char *)to + sizeof(*from), 0, size - sizeof(*from));
		memcpy(to, from, sizeof(*from));
	} else {
		memcpy(to, from, size);
	}
	to->struct_size = size;
	return 0;
}

int dmcore__limits_copy_in(const struct dmcore_limits *from, struct dmcore_limits *to)
{
	dmcore__limits_default(to);
	if (!dmcore__struct_take(to, sizeof(*to), from))
		return -EINVAL;
	to->struct_size = sizeof(*to);
	return 0;
}

int dmcore_bdev_limits(const struct dmcore_bdev *bdev, struct dmcore_limits *limits)
{
	int ret;

	if (!bdev || !limits)
		return -EINVAL;
	ret = dmcore__check_alive(bdev->core);
	if (ret)
		return ret;
	pthread_mutex_lock(&bdev->core->bdevs->limits_lock);
	ret = dmcore__limits_copy_out(&bdev->limits, limits);
	pthread_mutex_unlock(&bdev->core->bdevs->limits_lock);
	return ret;
}

static bool valid_block(uint32_t bytes)
{
	return dmcore__is_power_of_two(bytes) && bytes >= DMCORE_SECTOR_BYTES &&
	       bytes <= DMCORE_BLOCK_BYTES_MAX;
}

void dmcore__bdev_set_read_only(struct dmcore_bdev *bdev, bool read_only)
{
	uint32_t bits = DMCORE__WORD_NO_RW | DMCORE__WORD_PREFLUSH;

	if (read_only)
		bits |= DMCORE__WORD_WRITE;
	/* On the way to a leaf FUA is just handed on. */
	if (!dmcore__bdev_route(bdev) && !(bdev->caps & DMCORE_CAP_FUA))
		bits |= DMCORE__WORD_FUA;
	atomic_store_explicit(&bdev->special_bits, bits, memory_order_relaxed);
}

void dmcore__bdev_apply_limits(struct dmcore_bdev *bdev, const struct dmcore_limits *limits)
{
	pthread_mutex_lock(&bdev->core->bdevs->limits_lock);
	bdev->limits = *limits;
	pthread_mutex_unlock(&bdev->core->bdevs->limits_lock);
	atomic_fetch_add(&bdev->core->bdevs->generation, 1);
	atomic_store_explicit(&bdev->block_mask_sectors,
			      (uint32_t)dmcore__bytes_to_sectors(limits->logical_block_bytes) - 1,
			      memory_order_relaxed);
	bdev->caps = limits->caps;
	bdev->whole_sectors = limits->max_io_sectors ? limits->max_io_sectors : UINT64_MAX;
	if (limits->chunk_sectors)
		bdev->whole_sectors = 0; /* even a short one may cross a boundary */
	dmcore__bdev_set_read_only(bdev, dmcore__bdev_read_only(bdev));
}

int dmcore_bdev_set_limits(struct dmcore_bdev *bdev, const struct dmcore_limits *limits)
{
	struct dmcore_limits own;
	int ret;

	if (!bdev || !limits)
		return -EINVAL;
	ret = dmcore__limits_copy_in(limits, &own);
	if (ret)
		return dmcore__error(ret, "limits: struct_size isn't set");
	if (!valid_block(own.logical_block_bytes))
		return dmcore__error(-EINVAL,
				     "limits: a logical block of %u bytes is no power of two from "
				     "%u to %u",
				     own.logical_block_bytes, DMCORE_SECTOR_BYTES,
				     DMCORE_BLOCK_BYTES_MAX);
	if ((own.max_io_sectors | own.chunk_sectors | own.max_discard_sectors |
	     own.max_write_zeroes_sectors) &
	    (dmcore__bytes_to_sectors(own.logical_block_bytes) - 1))
		return dmcore__error(-EINVAL, "limits: a maximum is no multiple of the block");
	if (own.physical_block_bytes < own.logical_block_bytes)
		own.physical_block_bytes = own.logical_block_bytes;
	if (own.io_min_bytes < own.physical_block_bytes)
		own.io_min_bytes = own.physical_block_bytes;
	if (own.memory_align_bytes == 0)
		own.memory_align_bytes = 1;
	dmcore__bdev_apply_limits(bdev, &own);
	return 0;
}
