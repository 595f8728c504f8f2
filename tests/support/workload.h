/* SPDX-License-Identifier: MIT */
/*
 * Requests of every kind to a device of a sample, one by one and then several at once, while
 * something below fails; with what each may end with, and what the device may hold afterwards.
 *
 * The first run, in which nothing fails, is learned: which requests the device refuses by itself,
 * and which sectors of the leaves change. Nothing else may happen in the others.
 */
#ifndef DMCORE_TESTS_SUPPORT_WORKLOAD_H
#define DMCORE_TESTS_SUPPORT_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

#include "samples.h"
#include "stage.h"

#define WORKLOAD_REQUESTS_MAX 32
#define WORKLOAD_LEAF_BYTES ((size_t)SAMPLE_LEAF_SECTORS * DMCORE_SECTOR_BYTES)

struct workload {
	struct stage *stage;
	const struct sample *sample;
	struct dmcore_bdev *bdev; /* may be another one for each run */
	const char *name;         /* of this run, for what fails */

	/* I/O to the leaves that has failed until now, so that a request has to fail. */
	unsigned int (*num_failed)(void *context);
	/* Optional: whether such a request may fail because of something that has failed before. */
	bool (*is_aftermath)(void *context, enum dmcore_op op, unsigned int flags, int status);
	void *context;
	int status; /* what they fail with */

	/* The rest is the workload's own. */
	bool learned;
	unsigned int next; /* request */
	int expected[WORKLOAD_REQUESTS_MAX];
	uint32_t allowed[SAMPLE_SECTORS]; /* a bit for each version that a sector may hold */
	bool changes[SAMPLE_LEAVES_MAX][SAMPLE_LEAF_SECTORS];
};

/* What leaves are to be filled with before each run. */
void workload_fill_leaf(const struct sample *sample, unsigned int leaf, unsigned char *bytes);
/* Runs it, from the beginning. */
void workload_run(struct workload *workload);
/* Nothing fails any more: every sector has one of the contents that it may have, and the device
 * does all that it did at first; a flush may tell of what has failed before. */
void workload_check(struct workload *workload);
/* Looks at a leaf. The first time, which is after the run to be learned, what it finds is right. */
void workload_check_leaf(struct workload *workload, unsigned int leaf, const unsigned char *bytes);
/* The first run is over. */
void workload_learned(struct workload *workload);

#endif
