/* SPDX-License-Identifier: MIT */
/* Random numbers from a seed; see rng.h. */
#include "rng.h"

#include <stdlib.h>

uint64_t rng_seed(void)
{
	const char *seed = getenv("DMCORE_SEED");

	return seed && seed[0] ? strtoull(seed, NULL, 0) : 1;
}

bool rng_full(void)
{
	const char *value = getenv("DMCORE_PROP_FULL");

	return value && value[0] == '1';
}

bool rng_brief(void)
{
#ifdef __SANITIZE_THREAD__
	return !rng_full();
#else
	return !rng_full() && !getenv("DMCORE_BACKEND");
#endif
}

/* splitmix64: neighbours in become strangers out. */
static uint64_t scramble(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

void rng_start(struct rng *rng, uint64_t stream)
{
	rng->state = scramble(scramble(rng_seed()) ^ stream);
	/* The one number that the generator can't leave. */
	if (rng->state == 0)
		rng->state = 1;
}

uint64_t rng_next(struct rng *rng)
{
	uint64_t x = rng->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	rng->state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
	return (uint64_t)((unsigned __int128)rng_next(rng) * bound >> 64);
}

uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
	return low + rng_below(rng, high - low + 1);
}

bool rng_one_in(struct rng *rng, uint64_t n)
{
	return rng_below(rng, n) == 0;
}
