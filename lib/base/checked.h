/* SPDX-License-Identifier: MIT */
/* Arithmetic that says when it overflows, and conversions between sectors and bytes. */
#ifndef DMCORE_LIB_BASE_CHECKED_H
#define DMCORE_LIB_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/limits.h>

static inline bool dmcore__add_overflows(uint64_t a, uint64_t b, uint64_t *sum)
{
	return __builtin_add_overflow(a, b, sum);
}

static inline bool dmcore__mul_overflows(uint64_t a, uint64_t b, uint64_t *product)
{
	return __builtin_mul_overflow(a, b, product);
}

static inline bool dmcore__is_power_of_two(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

static inline uint64_t dmcore__sectors_to_bytes(uint64_t sectors)
{
	return sectors << DMCORE_SECTOR_SHIFT;
}

static inline uint64_t dmcore__bytes_to_sectors(uint64_t bytes)
{
	return bytes >> DMCORE_SECTOR_SHIFT;
}

static inline uint64_t dmcore__min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t dmcore__max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The smaller one, where 0 stands for "no limit". */
static inline uint64_t dmcore__min_not_zero_u64(uint64_t a, uint64_t b)
{
	if (a == 0)
		return b;
	if (b == 0)
		return a;
	return a < b ? a : b;
}

#endif
