/* SPDX-License-Identifier: MIT */
/*
 * Where a simulated disk is known to read as zeroes: what nothing but zeroing has ever written to.
 * Noted by cache.c whenever reads see something new; asked by the core through the driver.
 */
#include <string.h>

#include "base/checked.h"
#include "sim/sim.h"

/* Sectors that one answer looks at: what follows takes another question. */
#define LOOK_SECTORS_MAX (UINT64_C(1) << 16)

static void set_bit(struct dmcore__sim_cache *cache, uint64_t unit, bool data)
{
	uint64_t bit = UINT64_C(1) << unit % 64;

	if (data)
		cache->data_bits[unit / 64] |= bit;
	else
		cache->data_bits[unit / 64] &= ~bit;
}

void dmcore__sim_unit_note(struct dmcore__sim_cache *cache, uint32_t unit)
{
	const unsigned char *content = cache->image + (uint64_t)unit * cache->unit_bytes;

	/* Zero, and each byte as the one before. */
	set_bit(cache, unit,
		content[0] || memcmp(content, content + 1, cache->unit_bytes - 1) != 0);
}

void dmcore__sim_write_note(struct dmcore__sim_cache *cache, const struct dmcore__sim_write *write)
{
	uint64_t end_bytes = write->skip_bytes + write->len_bytes;

	for (uint64_t i = 0; i < write->num_units; i++) {
		bool partial = (i == 0 && write->skip_bytes) ||
			       end_bytes < (i + 1) * cache->unit_bytes;

		/* What zeroes leave of a unit is as it was. */
		if (!write->zeroes || !partial)
			set_bit(cache, write->first_unit + i, !write->zeroes);
	}
}

static bool is_zero(const struct dmcore__sim_cache *cache, uint64_t sector)
{
	uint64_t begin_bytes = dmcore__sectors_to_bytes(sector);
	uint64_t last = (begin_bytes + DMCORE_SECTOR_BYTES - 1) / cache->unit_bytes;

	for (uint64_t unit = begin_bytes / cache->unit_bytes; unit <= last; unit++) {
		if (cache->data_bits[unit / 64] >> unit % 64 & 1)
			return false;
	}
	return true;
}

int dmcore__sim_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		       struct dmcore_extent *extent)
{
	const struct dmcore_sim_disk *disk = dmcore_bdev_private(bdev);
	const struct dmcore__sim_cache *cache = disk->cache;
	bool zero;

	*extent = (struct dmcore_extent){ DMCORE_EXTENT_DATA, count };
	/* Reads fail. */
	if (disk->sim->off)
		return 0;
	zero = is_zero(cache, sector);
	count = dmcore__min_u64(count, LOOK_SECTORS_MAX);
	for (extent->count = 1; extent->count < count; extent->count++) {
		if (is_zero(cache, sector + extent->count) != zero)
			break;
	}
	extent->kind = zero ? DMCORE_EXTENT_ZERO : DMCORE_EXTENT_DATA;
	return 0;
}
