/* SPDX-License-Identifier: MIT */
/*
 * Random programs in a simulated world: tables, requests, suspensions, swaps of tables, faults and
 * power cuts, compared with the model of simmodel.h. All that is random follows from a seed, or
 * from the bytes of a fuzzer. Needs no test runner: what has failed is told as text.
 *
 * Each step takes its decisions from a source of its own, so that a failing program still fails
 * when steps that don't matter are left out.
 */
#ifndef DMCORE_TESTS_SUPPORT_SIMPROGRAM_H
#define DMCORE_TESTS_SUPPORT_SIMPROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SIMPROGRAM_STEPS 120
/* Bytes of an input that choose the world, and bytes for each step. */
#define SIMPROGRAM_WORLD_BYTES 48
#define SIMPROGRAM_STEP_BYTES 16

/* Something wrong that is planted, to see it found. */
enum simprogram_defect {
	SIMPROGRAM_SOUND,
	SIMPROGRAM_LIES,       /* disks whose flushes do nothing */
	SIMPROGRAM_MISDIRECTS, /* a disk that writes to another place, once */
	SIMPROGRAM_LOSES,      /* one that doesn't carry out a write, once */
	SIMPROGRAM_CORRUPTS,   /* one that flips a bit of a read, once */
	SIMPROGRAM_HANGS,      /* one that never ends a flush */
	SIMPROGRAM_DEFECTS,
};

struct simprogram_options {
	uint64_t seed;
	const uint8_t *bytes; /* instead of the seed, or NULL */
	size_t num_bytes;
	const uint32_t *steps; /* only these, ascending; NULL: all */
	size_t num_steps;
	enum simprogram_defect defect;
	FILE *trace;           /* says each step, or NULL */
};

struct simprogram_result {
	bool failed;
	char why[400];    /* what is wrong, and in which step */
	char world[3000]; /* all that was chosen in the beginning */
	uint64_t hash;    /* two runs with the same were the same */
	uint64_t num_events;
	uint64_t num_requests;
	uint64_t num_cuts;
	uint64_t num_states;  /* crash states that were looked at */
	uint64_t num_swaps;
	uint64_t num_failures; /* requests that ended with an error */
	uint64_t num_checked;  /* sectors read and compared */
};

/* Runs a program, and takes it down. Not from several threads. */
void simprogram_run(const struct simprogram_options *options, struct simprogram_result *result);

/* Makes a failing program short: `steps` has room for SIMPROGRAM_STEPS, and those that are left are
 * put there. Returns how many, and the result of their run. */
size_t simprogram_shrink(const struct simprogram_options *options, uint32_t *steps,
			 struct simprogram_result *result);

#endif
