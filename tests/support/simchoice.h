/* SPDX-License-Identifier: MIT */
/*
 * Where a simulated program takes its decisions from: a seed, or bytes of a fuzzer, and when those
 * are used up, numbers that follow from them. Used by simprogram.c and simtable.c.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMCHOICE_H
#define DMCORE_TESTS_SUPPORT_SIMCHOICE_H

#include <stddef.h>
#include <stdint.h>

struct simchoice {
	uint64_t state;
	const uint8_t *bytes;
	size_t left;
};

static inline uint64_t simchoice_next(struct simchoice *choice)
{
	uint64_t x = choice->state += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* The decisions of one step of a program with this seed. */
static inline struct simchoice simchoice_of_seed(uint64_t seed, uint64_t step)
{
	struct simchoice choice = { .state = seed };

	choice.state = simchoice_next(&choice) ^ step * UINT64_C(0xd6e8feb86659fd93);
	return choice;
}

static inline struct simchoice simchoice_of_bytes(const uint8_t *bytes, size_t count)
{
	struct simchoice choice = { .state = count, .bytes = bytes, .left = count };

	for (size_t i = 0; i < count; i++)
		choice.state = choice.state * UINT64_C(0x100000001b3) ^ bytes[i];
	return choice;
}

/* A number from 0 to `bound` - 1; 0 for a bound of 0. */
static inline uint32_t simchoose(struct simchoice *choice, uint64_t bound)
{
	uint64_t x = 0;

	if (bound <= 1)
		return 0;
	if (choice->left == 0)
		return (uint32_t)(simchoice_next(choice) % bound);
	for (uint64_t covered = 1; covered < bound && choice->left; covered *= 256) {
		x = x << 8 | *choice->bytes++;
		choice->left--;
	}
	return (uint32_t)(x % bound);
}

#endif
