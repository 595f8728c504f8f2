/* SPDX-License-Identifier: MIT */
/*
 * Tables: created empty, filled target by target with the kernel's checks in the kernel's order,
 * destroyed. Called by applications, by parse.c for a text, and by device.c.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <dmcore/error.h>

#include "base/alloc.h"
#include "base/args.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "map/map.h"

/* Params up to this length are split on the stack. */
#define PARAMS_BYTES_SMALL 512u
/* A word takes a character and a separator at least. */
#define WORDS_SMALL (PARAMS_BYTES_SMALL / 2)

/* ---- life ---- */

static int create_table(struct dmcore *core, unsigned int flags, struct dmcore_table **result)
{
	struct dmcore_table *table;

	if (flags & ~DMCORE_OPEN_FLAGS_ALL)
		return dmcore__error(-EINVAL, "unknown table flag in 0x%x", flags);
	table = dmcore__zalloc(core, sizeof(*table));
	if (!table)
		return dmcore__error(-ENOMEM, "no memory for a table");
	table->core = core;
	table->flags = flags;
	dmcore__list_append(&core->map->tables, &table->link);
	*result = table;
	return 0;
}

int dmcore_table_create(struct dmcore *core, unsigned int flags, struct dmcore_table **result)
{
	int ret;

	if (!result)
		return dmcore__error(-EINVAL, "no place for the result");
	*result = NULL;
	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = create_table(core, flags, result);
	dmcore__unlock(core);
	return ret;
}

void dmcore__table_destroy(struct dmcore_table *table)
{
	struct dmcore *core = table->core;

	for (uint32_t i = 0; i < table->num_targets; i++) {
		struct dmcore_target *target = dmcore__table_target(table, i);

		if (target->type->dtr)
			target->type->dtr(target);
	}
	dmcore__table_rewind(table, (struct dmcore__mark){ 0 });
	dmcore__list_remove(&table->link);
	dmcore__free(core, table->flush_steps);
	dmcore__free(core, table->blocks);
	dmcore__free(core, table->ends);
	dmcore__free(core, table);
}

void dmcore_table_destroy(struct dmcore_table *table)
{
	struct dmcore *core;

	if (!table)
		return;
	core = table->core;
	if (dmcore__control_begin(core))
		return;
	/* A loaded one is its device's. */
	if (!table->device)
		dmcore__table_destroy(table);
	dmcore__unlock(core);
}

uint64_t dmcore_table_size_sectors(const struct dmcore_table *table)
{
	return table->size_sectors;
}

unsigned int dmcore_table_num_targets(const struct dmcore_table *table)
{
	return table->num_targets;
}

struct dmcore_target *dmcore__table_target(const struct dmcore_table *table, uint32_t index)
{
	DMCORE__ASSERT(index < table->num_targets);
	return dmcore__target_at(table, index);
}

uint64_t dmcore_target_len(const struct dmcore_target *target)
{
	const struct dmcore_table *table = target->table;
	uint64_t index = table->num_targets;

	/* While its constructor runs, the last target isn't counted yet. */
	if (target->begin != table->size_sectors)
		index = dmcore__find_range(table->ends, table->num_targets, target->begin);
	return table->ends[index] - target->begin;
}

int dmcore_target_fail(struct dmcore_target *target, int error, const char *format, ...)
{
	char text[DMCORE_ERROR_BYTES_MAX];
	va_list values;

	(void)target;
	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	return dmcore__error(error, "%s", text);
}

void dmcore_target_log(struct dmcore_target *target, enum dmcore_log_level level,
		       const char *format, ...)
{
	char text[DMCORE_ERROR_BYTES_MAX];
	va_list values;

	va_start(values, format);
	vsnprintf(text, sizeof(text), format, values);
	va_end(values);
	dmcore__log(target->table->core, level, "%s: %s", target->type->name, text);
}

struct dmcore *dmcore_target_core(const struct dmcore_target *target)
{
	return target->table->core;
}

/* ---- room ---- */

static int grow_targets(struct dmcore_table *table, uint32_t room)
{
	size_t old_blocks = table->room_targets >> DMCORE__TARGET_BLOCK_SHIFT;
	size_t new_blocks = room >> DMCORE__TARGET_BLOCK_SHIFT;
	void *ends;
	void *blocks;

	DMCORE__ASSERT(room > table->room_targets && room % DMCORE__TARGET_BLOCK == 0);
	blocks = dmcore__zrealloc(table->core, table->blocks, old_blocks * sizeof(*table->blocks),
				  new_blocks * sizeof(*table->blocks));
	if (!blocks)
		return -ENOMEM;
	table->blocks = blocks;
	ends = dmcore__zrealloc(table->core, table->ends,
				table->room_targets * sizeof(*table->ends),
				room * sizeof(*table->ends));
	if (!ends)
		return -ENOMEM;
	table->ends = ends;
	table->room_targets = room;
	return 0;
}

int dmcore__table_reserve(struct dmcore_table *table, uint32_t num_targets)
{
	uint32_t mask = DMCORE__TARGET_BLOCK - 1;

	DMCORE__ASSERT(num_targets <= DMCORE_TABLE_TARGETS_MAX);
	if (num_targets <= table->room_targets)
		return 0;
	return grow_targets(table, (num_targets + mask) & ~mask);
}

/* Makes room for one more target, at a stable address. */
static int add_room(struct dmcore_table *table)
{
	struct dmcore_target *block;
	int ret;

	if (table->num_targets == table->room_targets) {
		uint32_t room = table->room_targets * 2;

		if (room > DMCORE_TABLE_TARGETS_MAX)
			room = DMCORE_TABLE_TARGETS_MAX;
		ret = dmcore__table_reserve(table, room ? room : DMCORE__TARGET_BLOCK);
		if (ret)
			return ret;
	}
	if (table->num_targets >> DMCORE__TARGET_BLOCK_SHIFT < table->num_blocks)
		return 0;
	block = dmcore__table_alloc(table, DMCORE__TARGET_BLOCK * sizeof(*block));
	if (!block)
		return -ENOMEM;
	table->blocks[table->num_blocks++] = block;
	return 0;
}

/* ---- adding ---- */

/* The constructor's error text, and behind it, for a device that it didn't get, why. */
static int constructor_failed(struct dmcore_table *table, const struct dmcore_target_type *type,
			      const struct dmcore_args *args, int error)
{
	const char *text = args->error ? args->error : "Unknown error";

	if (table->lookup_error == error && dmcore_error_message()[0])
		return dmcore__error_prefix(error, "%s: %s", type->name, text);
	return dmcore__error(error, "%s: %s", type->name, text);
}

/* What a table has to know of a type that it has got. */
static void note_features(struct dmcore_table *table, const struct dmcore_target_type *type)
{
	if (type->features & DMCORE_TARGET_TYPE_SINGLETON)
		table->singleton = type;
	if (type->features & DMCORE_TARGET_TYPE_IMMUTABLE)
		table->immutable = type;
	if (type->features & DMCORE_TARGET_TYPE_WILDCARD)
		table->wildcard = true;
	if (type->features & DMCORE_TARGET_TYPE_REQUEUES)
		table->requeues = true;
	if (type->presuspend || type->presuspend_undo || type->postsuspend || type->preresume ||
	    type->resume)
		table->hooks = true;
}

/* Runs the constructor of the next target on words that have been split. */
static int construct(struct dmcore_table *table, const struct dmcore__line *line,
		     const struct dmcore_target_type *type, struct dmcore_args *args)
{
	uint32_t index = table->num_targets;
	struct dmcore_target *target;
	struct dmcore__mark mark;
	int ret = add_room(table);

	if (ret)
		return dmcore__error(ret, "no memory for a target");
	mark = dmcore__table_mark(table);
	target = dmcore__target_at(table, index);
	*target = (struct dmcore_target){ .type = type, .table = table, .begin = line->start };
	table->ends[index] = line->start + line->length;
	table->lookup_error = 0;
	dmcore__error_clear();
	ret = type->ctr(target, args);
	if (ret > 0)
		ret = -EINVAL;
	if (ret) {
		constructor_failed(table, type, args, ret);
		dmcore__table_rewind(table, mark);
		return ret;
	}
	target->flags &= ~DMCORE__TARGET_FRAMES;
	if (type->end_io || type->per_bio_bytes)
		target->flags |= DMCORE__TARGET_FRAMES;
	table->num_targets++;
	table->size_sectors = table->ends[index];
	if (type->per_bio_bytes > table->per_bio_bytes_max)
		table->per_bio_bytes_max = type->per_bio_bytes;
	note_features(table, type);
	return 0;
}

static int split_and_construct(struct dmcore_table *table, const struct dmcore__line *line,
			       const struct dmcore_target_type *type, char *params, char **words,
			       unsigned int num_words)
{
	struct dmcore_args args = { .words = words };

	memcpy(params, line->params, line->params_bytes);
	params[line->params_bytes] = '\0';
	if (!dmcore__split(params, words, num_words, &args.count))
		return dmcore__error(-E2BIG, "%s: more than %u words", type->name, num_words);
	return construct(table, line, type, &args);
}

static int add_small(struct dmcore_table *table, const struct dmcore__line *line,
		     const struct dmcore_target_type *type)
{
	char params[PARAMS_BYTES_SMALL];
	char *words[WORDS_SMALL];

	return split_and_construct(table, line, type, params, words, WORDS_SMALL);
}

static int add_large(struct dmcore_table *table, const struct dmcore__line *line,
		     const struct dmcore_target_type *type)
{
	size_t num_words = line->params_bytes / 2 + 1;
	char *params = NULL;
	char **words = NULL;
	int ret;

	if (num_words > DMCORE_TARGET_ARGS_MAX)
		num_words = DMCORE_TARGET_ARGS_MAX;
	params = dmcore__zalloc(table->core, line->params_bytes + 1);
	words = dmcore__zalloc_array(table->core, num_words, sizeof(*words));
	if (params && words)
		ret = split_and_construct(table, line, type, params, words,
					  (unsigned int)num_words);
	else
		ret = dmcore__error(-ENOMEM, "%s: couldn't split parameters", type->name);
	dmcore__free(table->core, words);
	dmcore__free(table->core, params);
	return ret;
}

/* The kernel's text for a type that doesn't go with the table so far, or NULL. */
static const char *feature_error(const struct dmcore_table *table,
				 const struct dmcore_target_type *type)
{
	unsigned int features = type->features;

	if (features & DMCORE_TARGET_TYPE_SINGLETON && table->num_targets > 0)
		return "singleton target type must appear alone in table";
	if (features & DMCORE_TARGET_TYPE_ALWAYS_WRITEABLE &&
	    table->flags & DMCORE_TABLE_READ_ONLY)
		return "target type may not be included in a read-only table";
	if (table->immutable ? table->immutable != type
			     : features & DMCORE_TARGET_TYPE_IMMUTABLE && table->num_targets > 0)
		return "immutable target type cannot be mixed with other target types";
	return NULL;
}

/* The checks that come before the constructor. */
static int check_line(const struct dmcore_table *table, const struct dmcore__line *line,
		      const struct dmcore_target_type **result)
{
	char name[DMCORE_TYPE_NAME_MAX + 1];
	const struct dmcore_target_type *type;
	const char *error;
	uint64_t end;

	if (table->complete)
		return dmcore__error(-EBUSY, "the table is complete");
	if (table->singleton)
		return dmcore__error(-EINVAL, "target type %s must appear alone in table",
				     table->singleton->name);
	if (table->num_targets == DMCORE_TABLE_TARGETS_MAX)
		return dmcore__error(-EOVERFLOW, "more than %d targets", DMCORE_TABLE_TARGETS_MAX);
	if (line->type_bytes > DMCORE_TYPE_NAME_MAX)
		return dmcore__error(-EINVAL, "Target type name %.*s is too long.",
				     (int)(line->type_bytes < 64 ? line->type_bytes : 64),
				     line->type);
	if (line->length == 0)
		return dmcore__error(-EINVAL, "zero-length target");
	if (dmcore__add_overflows(line->start, line->length, &end) ||
	    end > DMCORE_DEVICE_SECTORS_MAX)
		return dmcore__error(-EINVAL, "too large device");
	memcpy(name, line->type, line->type_bytes);
	name[line->type_bytes] = '\0';
	type = dmcore__target_type_find(table->core, name);
	if (!type)
		return dmcore__error(-EINVAL, "%s: unknown target type", name);
	error = feature_error(table, type);
	if (error)
		return dmcore__error(-EINVAL, "%s: %s", name, error);
	if (line->start != table->size_sectors)
		return dmcore__error(-EINVAL, "%s: Gap in table", name);
	*result = type;
	return 0;
}

int dmcore__table_add_line(struct dmcore_table *table, const struct dmcore__line *line)
{
	const struct dmcore_target_type *type = NULL;
	int ret = check_line(table, line, &type);

	if (ret)
		return ret;
	if (line->params_bytes < PARAMS_BYTES_SMALL)
		return add_small(table, line, type);
	return add_large(table, line, type);
}

int dmcore_table_add(struct dmcore_table *table, uint64_t start, uint64_t length, const char *type,
		     const char *params)
{
	struct dmcore__line line = {
		.start = start,
		.length = length,
		.type = type ? type : "",
		.params = params ? params : "",
	};
	int ret;

	line.type_bytes = strlen(line.type);
	line.params_bytes = strnlen(line.params, DMCORE_TABLE_TEXT_BYTES_MAX + 1);
	if (line.params_bytes > DMCORE_TABLE_TEXT_BYTES_MAX)
		return dmcore__error(-E2BIG, "more than %u bytes of params",
				     DMCORE_TABLE_TEXT_BYTES_MAX);
	ret = dmcore__control_begin(table ? table->core : NULL);
	if (ret)
		return ret;
	ret = dmcore__table_add_line(table, &line);
	dmcore__unlock(table->core);
	return ret;
}
