/* SPDX-License-Identifier: MIT */
/* The leaves of a mapped device as they must be; see model.h. */
#include "model.h"

/* Not Criterion's: fuzzers do without it. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS (DMCORE_SECTOR_BYTES / sizeof(uint64_t))
#define MAY_FAIL 1u
#define MAY_BE_UNSUPPORTED 2u

static void *allocate(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);

	assert(memory);
	return memory;
}

void model_create(struct model *model, unsigned int num_leaves, uint64_t leaf_sectors)
{
	memset(model, 0, sizeof(*model));
	model->num_leaves = num_leaves;
	model->leaf_sectors = leaf_sectors;
	for (unsigned int i = 0; i < num_leaves; i++)
		model->tags[i] = allocate(leaf_sectors, sizeof(uint64_t));
}

void model_destroy(struct model *model)
{
	model_set_targets(model, NULL);
	for (unsigned int i = 0; i < model->num_leaves; i++)
		free(model->tags[i]);
}

/* ---- targets -------------------------------------------------------------------------------- */

/* Places the legs of a target behind those that are there. */
static bool place_legs(struct model *model, struct model_target *target, unsigned int first_leaf,
		       uint64_t gap)
{
	uint64_t length = target->length / target->num_legs;
	uint64_t next_start[MODEL_LEAVES_MAX];

	memcpy(next_start, model->next_start, sizeof(next_start));
	for (unsigned int i = 0; i < target->num_legs; i++) {
		unsigned int leaf = (first_leaf + i) % model->num_leaves;

		target->legs[i] = (struct model_leg){ leaf, next_start[leaf] + gap };
		next_start[leaf] += gap + length;
		if (next_start[leaf] > model->leaf_sectors)
			return false;
	}
	memcpy(model->next_start, next_start, sizeof(next_start));
	return true;
}

static void make_room(struct model *model)
{
	unsigned int room = model->room_targets ? 2 * model->room_targets : 8;
	void *targets;

	if (model->num_targets < model->room_targets)
		return;
	targets = realloc(model->targets, room * sizeof(*model->targets));
	assert(targets);
	model->targets = targets;
	model->room_targets = room;
}

bool model_add(struct model *model, enum model_kind kind, uint64_t length, uint64_t chunk,
	       unsigned int num_legs, unsigned int first_leaf, uint64_t gap)
{
	struct model_target *target;

	make_room(model);
	target = &model->targets[model->num_targets];
	*target = (struct model_target){ .kind = kind, .begin = model->size_sectors,
					 .length = length, .chunk = chunk };
	if (kind == MODEL_STRIPED) {
		target->num_legs = num_legs;
		target->legs = allocate(num_legs, sizeof(*target->legs));
		if (!place_legs(model, target, first_leaf, gap)) {
			free(target->legs);
			return false;
		}
	}
	model->num_targets++;
	model->size_sectors += length;
	return true;
}

static size_t target_text(const struct model_target *target, const char *const *leaves, char *text,
			  size_t bytes)
{
	unsigned long long begin = target->begin;
	unsigned long long length = target->length;
	size_t used = 0;

	if (target->kind != MODEL_STRIPED)
		return (size_t)snprintf(text, bytes, "%llu %llu %s\n", begin, length,
					target->kind == MODEL_ZERO ? "zero" : "error");
	if (target->num_legs == 1 && target->chunk == target->length)
		return (size_t)snprintf(text, bytes, "%llu %llu linear %s %llu\n", begin, length,
					leaves[target->legs[0].leaf],
					(unsigned long long)target->legs[0].start);
	used = (size_t)snprintf(text, bytes, "%llu %llu striped %u %llu", begin, length,
				target->num_legs, (unsigned long long)target->chunk);
	for (unsigned int i = 0; i < target->num_legs && used < bytes; i++)
		used += (size_t)snprintf(text + used, bytes - used, " %s %llu",
					 leaves[target->legs[i].leaf],
					 (unsigned long long)target->legs[i].start);
	if (used < bytes)
		used += (size_t)snprintf(text + used, bytes - used, "\n");
	return used;
}

size_t model_text(const struct model *model, const char *const *leaves, char *text, size_t bytes)
{
	size_t used = 0;

	for (unsigned int i = 0; i < model->num_targets && used < bytes; i++)
		used += target_text(&model->targets[i], leaves, text + used, bytes - used);
	return used;
}

void model_set_targets(struct model *model, struct model *from)
{
	for (unsigned int i = 0; i < model->num_targets; i++)
		free(model->targets[i].legs);
	free(model->targets);
	model->num_targets = from ? from->num_targets : 0;
	model->room_targets = from ? from->room_targets : 0;
	model->targets = from ? from->targets : NULL;
	model->size_sectors = from ? from->size_sectors : 0;
	model->last = 0;
	if (from) {
		from->num_targets = 0;
		from->targets = NULL;
		model_set_targets(from, NULL);
	}
}

/* ---- where a sector lies -------------------------------------------------------------------- */

/* Step by step from the last one: ranges are looked up in order. */
static const struct model_target *target_at(struct model *model, uint64_t sector)
{
	unsigned int i = model->last;

	assert(sector < model->size_sectors);
	while (sector < model->targets[i].begin)
		i--;
	while (sector >= model->targets[i].begin + model->targets[i].length)
		i++;
	model->last = i;
	return &model->targets[i];
}

/* Chunk after chunk, one leg after the other. */
static uint64_t *tag_at(struct model *model, const struct model_target *target, uint64_t sector)
{
	uint64_t offset = sector - target->begin;
	uint64_t chunk = offset / target->chunk;
	const struct model_leg *leg = &target->legs[chunk % target->num_legs];
	uint64_t row = chunk / target->num_legs;

	return &model->tags[leg->leaf][leg->start + row * target->chunk + offset % target->chunk];
}

uint64_t *model_tag(struct model *model, uint64_t sector, uint64_t *content)
{
	const struct model_target *target = target_at(model, sector);
	uint64_t *tag;

	*content = target->kind == MODEL_ERROR ? MODEL_UNKNOWN : 0;
	if (target->kind != MODEL_STRIPED)
		return NULL;
	tag = tag_at(model, target, sector);
	*content = *tag;
	return tag;
}

/* ---- operations ----------------------------------------------------------------------------- */

static unsigned int errors_of(enum model_kind kind, enum dmcore_op op)
{
	if (op == DMCORE_OP_WRITE_ZEROES && kind != MODEL_STRIPED)
		return MAY_BE_UNSUPPORTED;
	return kind == MODEL_ERROR ? MAY_FAIL : 0;
}

unsigned int model_run(struct model *model, enum dmcore_op op, uint64_t sector, uint64_t count,
		       uint64_t first_tag)
{
	unsigned int errors = 0;

	if (op == DMCORE_OP_FLUSH)
		return 0;
	for (uint64_t i = 0; i < count; i++) {
		const struct model_target *target = target_at(model, sector + i);

		errors |= errors_of(target->kind, op);
		if (op == DMCORE_OP_READ || target->kind != MODEL_STRIPED)
			continue;
		if (op == DMCORE_OP_WRITE)
			*tag_at(model, target, sector + i) = first_tag + i;
		else if (op == DMCORE_OP_DISCARD && !model->discard_zeroes)
			*tag_at(model, target, sector + i) = MODEL_UNKNOWN;
		else
			*tag_at(model, target, sector + i) = 0;
	}
	return errors;
}

bool model_allows(unsigned int errors, int status)
{
	if (errors == 0)
		return status == 0;
	return ((errors & MAY_FAIL) && status == -EIO) ||
	       ((errors & MAY_BE_UNSUPPORTED) && status == -EOPNOTSUPP);
}

/* ---- content -------------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t tag, uint64_t i)
{
	return tag ? (tag + i) * UINT64_C(0x9e3779b97f4a7c15) ^ tag : 0;
}

void model_fill(unsigned char *bytes, uint64_t count, uint64_t first_tag)
{
	for (uint64_t sector = 0; sector < count; sector++) {
		uint64_t words[WORDS];

		for (uint64_t i = 0; i < WORDS; i++)
			words[i] = word_of(first_tag + sector, i);
		memcpy(bytes + sector * DMCORE_SECTOR_BYTES, words, sizeof(words));
	}
}

bool model_holds(const unsigned char *bytes, uint64_t tag)
{
	uint64_t difference = 0;

	if (tag == MODEL_UNKNOWN)
		return true;
	for (uint64_t i = 0; i < WORDS; i++) {
		uint64_t word;

		memcpy(&word, bytes + i * sizeof(word), sizeof(word));
		difference |= word ^ word_of(tag, i);
	}
	return difference == 0;
}

int64_t model_differs(struct model *model, uint64_t sector, uint64_t count,
		      const unsigned char *bytes)
{
	for (uint64_t i = 0; i < count; i++) {
		const struct model_target *target = target_at(model, sector + i);
		uint64_t tag = 0;

		if (target->kind == MODEL_ERROR)
			tag = MODEL_UNKNOWN;
		else if (target->kind == MODEL_STRIPED)
			tag = *tag_at(model, target, sector + i);
		if (!model_holds(bytes + i * DMCORE_SECTOR_BYTES, tag))
			return (int64_t)(sector + i);
	}
	return -1;
}

int64_t model_leaf_differs(const struct model *model, unsigned int leaf, uint64_t sector,
			   uint64_t count, const unsigned char *bytes)
{
	for (uint64_t i = 0; i < count; i++) {
		if (!model_holds(bytes + i * DMCORE_SECTOR_BYTES, model->tags[leaf][sector + i]))
			return (int64_t)(sector + i);
	}
	return -1;
}
