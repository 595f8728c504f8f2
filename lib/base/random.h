/* SPDX-License-Identifier: MIT */
/* Numbers that look random and repeat from a seed. Header-only: also for targets and drivers. */
#ifndef DMCORE_LIB_BASE_RANDOM_H
#define DMCORE_LIB_BASE_RANDOM_H

#include <stdint.h>

struct dmcore__random {
	uint64_t state;
};

/* splitmix64: neighbours in become strangers out. */
static inline uint64_t dmcore__scramble(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* `stream` tells the sequences of one seed apart. */
static inline void dmcore__random_start(struct dmcore__random *random, uint64_t seed,
					uint64_t stream)
{
	random->state = dmcore__scramble(dmcore__scramble(seed) ^ stream);
	/* The one number that the generator can't leave. */
	if (random->state == 0)
		random->state = 1;
}

/* xorshift64* */
static inline uint64_t dmcore__random_next(struct dmcore__random *random)
{
	uint64_t x = random->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	random->state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* A number from 0 to `bound` - 1; 0 for a bound of 0. */
static inline uint64_t dmcore__random_below(struct dmcore__random *random, uint64_t bound)
{
	return (uint64_t)((unsigned __int128)dmcore__random_next(random) * bound >> 64);
}

#endif
