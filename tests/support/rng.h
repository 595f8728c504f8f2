/* SPDX-License-Identifier: MIT */
/*
 * Random numbers that can be had again: xorshift64*, started from DMCORE_SEED in the environment,
 * else from 1. A test that fails says its seed; that in DMCORE_SEED repeats it.
 */
#ifndef DMCORE_TESTS_SUPPORT_RNG_H
#define DMCORE_TESTS_SUPPORT_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
	uint64_t state;
};

/* The seed of this run. */
uint64_t rng_seed(void);
/* Whether tests shall run at full length: DMCORE_PROP_FULL=1 is in the environment. */
bool rng_full(void);
/* Whether they may be brief: DMCORE_BACKEND isn't in the environment, or the thread sanitizer is at
 * work, which is slow. The modes of make check that forbid io_uring run the code that the backend
 * pread runs, too. */
bool rng_brief(void);

/* Starts a sequence: `stream` tells those of one seed apart. */
void rng_start(struct rng *rng, uint64_t stream);

uint64_t rng_next(struct rng *rng);
/* A number from 0 to `bound` - 1. */
uint64_t rng_below(struct rng *rng, uint64_t bound);
/* A number from `low` to `high`. */
uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high);
/* True once in `n` times. */
bool rng_one_in(struct rng *rng, uint64_t n);

#endif
