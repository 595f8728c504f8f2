/* SPDX-License-Identifier: MIT */
/*
 * A trial: a mapped device of a random table on leaves of its own, random operations on it one by
 * one and several at once, and a model that knows what must come of them.
 *
 *	trial_start(nr, on_files, num_leaves, leaf_sectors);
 *	model_add(&trial.model, ...);
 *	trial_open();
 *	trial_run(1000);
 *	trial_end();
 *
 * What fails ends the test, and says how to have it again.
 */
#ifndef DMCORE_TESTS_SUPPORT_TRIAL_H
#define DMCORE_TESTS_SUPPORT_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore.h>

#include "model.h"
#include "rng.h"
#include "scratch.h"
#include "stage.h"

#define TRIAL_AT_ONCE_MAX 16
#define TRIAL_COUNT_MAX 600
#define TRIAL_VECS_MAX 8

/* One operation, with memory of its own. */
struct trial_slot {
	struct dmcore_bio bio;
	enum dmcore_op op;
	uint64_t sector;
	uint64_t count;
	unsigned int errors; /* what model_run() allows */
	unsigned int ends;
	uint32_t num_vecs;   /* 0: the flat buffer itself */
	struct dmio_bvec vecs[TRIAL_VECS_MAX];
	unsigned char flat[TRIAL_COUNT_MAX * DMCORE_SECTOR_BYTES];
	unsigned char scattered[TRIAL_COUNT_MAX * DMCORE_SECTOR_BYTES + TRIAL_VECS_MAX * 8];
};

struct trial {
	unsigned int nr;
	struct rng rng;
	struct stage stage;
	struct model model;
	struct dmcore_bdev *bdev;
	bool on_files;
	struct scratch files[MODEL_LEAVES_MAX];
	struct dmcore_bdev *leaves[MODEL_LEAVES_MAX];
	char names[MODEL_LEAVES_MAX][64];
	uint64_t next_tag;
	unsigned int op_nr;
	unsigned int num_slots;
	unsigned int num_ended;
	struct trial_slot slots[TRIAL_AT_ONCE_MAX];
};

/* The one of this process. */
extern struct trial trial;

/* Its number decides all that is random, and the options of its queue. */
void trial_start(unsigned int nr, bool on_files, unsigned int num_leaves, uint64_t leaf_sectors);
/* Makes the device of the model's targets. */
void trial_open(void);
/* So many random operations, or a few more. */
void trial_run(unsigned int count);
/* Compares every sector of every leaf, and takes it all down. */
void trial_end(void);

#endif
