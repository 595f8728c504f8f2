/* SPDX-License-Identifier: MIT */
/*
 * What the leaves of a mapped device must hold, worked out sector by sector from the definition of
 * its targets, without anything of the library.
 *
 * A sector's content is told by a tag: 0 is zeroes, MODEL_UNKNOWN anything, every other one fills
 * a sector with words of its own.
 */
#ifndef DMCORE_TESTS_SUPPORT_MODEL_H
#define DMCORE_TESTS_SUPPORT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dmcore.h>

#define MODEL_LEGS_MAX 64
#define MODEL_LEAVES_MAX 8
#define MODEL_UNKNOWN UINT64_MAX

enum model_kind {
	MODEL_STRIPED, /* linear: one leg, and a chunk as long as the target */
	MODEL_ZERO,
	MODEL_ERROR,
};

struct model_leg {
	unsigned int leaf;
	uint64_t start;
};

struct model_target {
	enum model_kind kind;
	uint64_t begin;
	uint64_t length;
	uint64_t chunk;
	unsigned int num_legs;
	struct model_leg *legs;
};

struct model {
	unsigned int num_leaves;
	uint64_t leaf_sectors;
	uint64_t *tags[MODEL_LEAVES_MAX];
	uint64_t next_start[MODEL_LEAVES_MAX]; /* first sector of a leaf that no leg has */
	unsigned int num_targets;
	unsigned int room_targets;
	struct model_target *targets;
	unsigned int last; /* target of the last look-up */
	uint64_t size_sectors;
	bool discard_zeroes; /* else what was discarded holds anything */
};

/* Leaves of this size, zeroed, and no target yet. */
void model_create(struct model *model, unsigned int num_leaves, uint64_t leaf_sectors);
void model_destroy(struct model *model);

/*
 * Adds a target at the end; `gap` sectors are left free before each leg, which go to the leaves in
 * turn from first_leaf. False: they have no room for it.
 */
bool model_add(struct model *model, enum model_kind kind, uint64_t length, uint64_t chunk,
	       unsigned int num_legs, unsigned int first_leaf, uint64_t gap);
/* Replaces the targets by those of another model with the same leaves, which is left without any;
 * NULL: by none. */
void model_set_targets(struct model *model, struct model *from);
/* Writes the table, naming the leaves as given; returns its length, as snprintf does. */
size_t model_text(const struct model *model, const char *const *leaves, char *text, size_t bytes);

/*
 * Carries out an operation on the tags; a write gives sector i of the range the tag first_tag + i.
 * Returns a bit for each error that it may end with: 1 for -EIO, 2 for -EOPNOTSUPP; 0: it succeeds.
 */
unsigned int model_run(struct model *model, enum dmcore_op op, uint64_t sector, uint64_t count,
		       uint64_t first_tag);
/* Whether `status` is what those bits allow. */
bool model_allows(unsigned int errors, int status);

/* The sectors' content, as written with model_run(). */
void model_fill(unsigned char *bytes, uint64_t count, uint64_t first_tag);
/* Whether a sector is what a tag tells. */
bool model_holds(const unsigned char *bytes, uint64_t tag);
/* What a sector of the device holds, and its place in tags[]; NULL: it is on no leaf. */
uint64_t *model_tag(struct model *model, uint64_t sector, uint64_t *content);
/* The first of `count` sectors of the device that `bytes` is wrong about, or -1. Sectors of an
 * error target may hold anything. */
int64_t model_differs(struct model *model, uint64_t sector, uint64_t count,
		      const unsigned char *bytes);
/* The same for the sectors of a leaf. */
int64_t model_leaf_differs(const struct model *model, unsigned int leaf, uint64_t sector,
			   uint64_t count, const unsigned char *bytes);

#endif
