/* SPDX-License-Identifier: MIT */
/*
 * The plan of a table's flush: which devices get one, and which targets how many copies. Made once
 * when limits.c completes a table; submit.c walks it.
 */
#include <errno.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"
#include "map/map.h"

/* More copies than targets can stand in a table would be nonsense. */
#define STEPS_MAX DMCORE_TABLE_TARGETS_MAX

/* A plan is walked twice: to count the steps, then to write them. */
struct plan {
	struct dmcore__flush_step *steps; /* NULL while they are counted */
	uint64_t num_steps;
	uint64_t *seen; /* a bit for each slot whose device has its step */
	size_t num_words;
};

static void add_step(struct plan *plan, struct dmcore__flush_step step)
{
	if (plan->steps)
		plan->steps[plan->num_steps] = step;
	plan->num_steps++;
}

static int add_device(struct dmcore_target *target, struct dmcore_bdev *bdev, uint64_t start,
		      uint64_t length, void *context)
{
	struct plan *plan = context;
	uint64_t *word = &plan->seen[bdev->slot / 64];
	uint64_t bit = UINT64_C(1) << bdev->slot % 64;

	(void)target;
	(void)start;
	(void)length;
	DMCORE__ASSERT(bdev->slot / 64 < plan->num_words);
	if (!(*word & bit))
		add_step(plan, (struct dmcore__flush_step){ .bdev = bdev });
	*word |= bit;
	return 0;
}

static void add_target(struct dmcore_target *target, struct plan *plan)
{
	const struct dmcore_target_type *type = target->type;
	uint32_t num_copies = 0;

	if ((target->flags & DMCORE_TARGET_FLUSH_DEVICES) && type->iterate_devices) {
		type->iterate_devices(target, add_device, plan);
		return;
	}
	if (type->num_bios)
		num_copies = type->num_bios(target, DMCORE_OP_FLUSH);
	for (uint32_t i = 0; i < num_copies && plan->num_steps <= STEPS_MAX; i++)
		add_step(plan, (struct dmcore__flush_step){ .target = target, .bio_nr = i });
}

static void walk(const struct dmcore_table *table, struct plan *plan)
{
	plan->num_steps = 0;
	for (size_t i = 0; i < plan->num_words; i++)
		plan->seen[i] = 0;
	for (uint32_t i = 0; i < table->num_targets && plan->num_steps <= STEPS_MAX; i++)
		add_target(dmcore__table_target(table, i), plan);
}

static bool wants_at_most_one(const struct dmcore_target *target, enum dmcore_op op)
{
	return !target->type->num_bios || target->type->num_bios(target, op) <= 1;
}

/* The only target, if it takes any READ or WRITE whole. */
static struct dmcore_target *whole_target(const struct dmcore_table *table)
{
	struct dmcore_target *target = dmcore__table_target(table, 0);
	/* A preresume may set a smaller one. */
	bool takes_all = target->max_io_sectors == 0 ||
			 (target->max_io_sectors >= table->size_sectors &&
			  !target->type->preresume);

	return table->num_targets == 1 && takes_all ? target : NULL;
}

/* Whether each bio passes as it is. */
static bool is_simple(const struct dmcore_table *table)
{
	const struct dmcore_target *target = whole_target(table);

	return target && table->num_flush_steps <= 1 &&
	       wants_at_most_one(target, DMCORE_OP_FLUSH) &&
	       wants_at_most_one(target, DMCORE_OP_DISCARD) &&
	       wants_at_most_one(target, DMCORE_OP_WRITE_ZEROES);
}

/*
 * The only target, if a READ or WRITE within one of its chunks comes back to it only with an error,
 * and carries nothing of it.
 */
static struct dmcore_target *chunked_target(const struct dmcore_table *table)
{
	struct dmcore_target *target = dmcore__target_at(table, 0);
	const struct dmcore_target_type *type = target->type;

	/* A preresume may set chunks of another size. */
	if (table->num_targets != 1 || table->requeues || type->per_bio_bytes || type->preresume ||
	    !dmcore__is_power_of_two(target->max_io_sectors) ||
	    !(type->features & DMCORE_TARGET_TYPE_END_ERRORS))
		return NULL;
	return target;
}

int dmcore__table_plan_flush(struct dmcore_table *table)
{
	struct dmcore *core = table->core;
	struct plan plan = { .num_words = (core->bdevs->num_slots + 63) / 64 };
	int ret = 0;

	dmcore__free(core, table->flush_steps);
	table->flush_steps = NULL;
	table->num_flush_steps = 0;
	plan.seen = dmcore__zalloc_array(core, plan.num_words, sizeof(*plan.seen));
	if (!plan.seen)
		return dmcore__error(-ENOMEM, "no memory for a flush's plan");
	walk(table, &plan);
	if (plan.num_steps > STEPS_MAX) {
		ret = dmcore__error(-EOVERFLOW, "a flush would have more than %d steps", STEPS_MAX);
		goto free_seen;
	}
	if (plan.num_steps > 0) {
		plan.steps = dmcore__zalloc_array(core, plan.num_steps, sizeof(*plan.steps));
		if (!plan.steps) {
			ret = dmcore__error(-ENOMEM, "no memory for a flush's plan");
			goto free_seen;
		}
		walk(table, &plan);
	}
	table->flush_steps = plan.steps;
	table->num_flush_steps = (uint32_t)plan.num_steps;
	table->simple = is_simple(table);
	table->plain = whole_target(table);
	if (table->plain && (table->requeues || table->plain->flags & DMCORE__TARGET_FRAMES))
		table->plain = NULL;
	table->chunked = chunked_target(table);
	table->chunk_mask = table->chunked ? table->chunked->max_io_sectors - 1 : 0;

free_seen:
	dmcore__free(core, plan.seen);
	return ret;
}
