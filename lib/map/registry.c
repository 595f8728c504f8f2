/* SPDX-License-Identifier: MIT */
/*
 * The target types of a core: the library's own and those that the application registers; and the
 * life of what map/ keeps in a core. Called by context.c and table.c.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/args.h"
#include "base/compiler.h"
#include "base/error.h"
#include "map/map.h"

#define PER_BIO_BYTES_MAX 256

/* Written by the makefile from lib/targets/local.mk: one BUILTIN_TARGET(name) for each. */
#define BUILTIN_TARGET(name) extern const struct dmcore_target_type dmcore__target_##name;
#include "map/builtin_targets.inc"
#undef BUILTIN_TARGET

static const struct dmcore_target_type *const builtins[] = {
#define BUILTIN_TARGET(name) &dmcore__target_##name,
#include "map/builtin_targets.inc"
#undef BUILTIN_TARGET
};

struct registered_type {
	struct dmcore__list link; /* core->map->types */
	const struct dmcore_target_type *type;
	struct dmcore_target_type copy; /* of one whose author knew fewer fields */
};

/* Where the first version ended: what comes behind is optional. */
#define TYPE_BYTES_MIN offsetof(struct dmcore_target_type, presuspend)
/* Whether its author knew a field. */
#define KNOWS(type, field)                                                                         \
	((type)->struct_size >= offsetof(struct dmcore_target_type, field) + sizeof((type)->field))
#define FEATURES_ALL                                                                               \
	(DMCORE_TARGET_TYPE_REQUEUES | DMCORE_TARGET_TYPE_SINGLETON |                              \
	 DMCORE_TARGET_TYPE_ALWAYS_WRITEABLE | DMCORE_TARGET_TYPE_IMMUTABLE |                      \
	 DMCORE_TARGET_TYPE_WILDCARD | DMCORE_TARGET_TYPE_END_ERRORS)

static struct registered_type *type_entry(struct dmcore__list *node)
{
	return dmcore__container_of(node, struct registered_type, link);
}

static bool name_is_valid(const char *name)
{
	size_t length = strnlen(name, DMCORE_TYPE_NAME_MAX + 1);

	if (length == 0 || length > DMCORE_TYPE_NAME_MAX)
		return false;
	for (const char *at = name; *at; at++) {
		bool is_control = (unsigned char)*at < ' ' || *at == 0x7f;

		if (is_control || dmcore__is_space(*at))
			return false;
	}
	return true;
}

static int check_type(const struct dmcore_target_type *type)
{
	if (!type || type->struct_size < TYPE_BYTES_MIN)
		return dmcore__error(-EINVAL, "target type: struct_size isn't set");
	if (!type->name || !name_is_valid(type->name))
		return dmcore__error(-EINVAL,
				     "target type: a name has 1 to %d characters and no "
				     "white space",
				     DMCORE_TYPE_NAME_MAX);
	if (!type->ctr || !type->map)
		return dmcore__error(-EINVAL, "target type %s: ctr or map is missing", type->name);
	if (type->features & ~FEATURES_ALL)
		return dmcore__error(-EINVAL, "target type %s: unknown feature", type->name);
	if (KNOWS(type, map_copy) && type->map_copy && !type->per_bio_bytes)
		return dmcore__error(-EINVAL, "target type %s: map_copy without per_bio_bytes",
				     type->name);
	if (type->per_bio_bytes > PER_BIO_BYTES_MAX)
		return dmcore__error(-EINVAL, "target type %s: per_bio_bytes is above %d",
				     type->name, PER_BIO_BYTES_MAX);
	return 0;
}

static int register_type(struct dmcore *core, const struct dmcore_target_type *type)
{
	struct dmcore__list *behind;
	struct registered_type *entry;
	int ret = check_type(type);

	if (ret)
		return ret;
	for (behind = core->map->types.next; behind != &core->map->types; behind = behind->next) {
		int order = strcmp(type->name, type_entry(behind)->type->name);

		if (order == 0)
			return dmcore__error(-EEXIST, "target type %s exists", type->name);
		if (order < 0)
			break;
	}
	entry = dmcore__zalloc(core, sizeof(*entry));
	if (!entry)
		return dmcore__error(-ENOMEM, "no memory for target type %s", type->name);
	entry->type = type;
	if (type->struct_size < sizeof(*type)) {
		memcpy(&entry->copy, type, type->struct_size);
		entry->type = &entry->copy;
	}
	/* Before `behind`: a list is appended to before its head. */
	dmcore__list_append(behind, &entry->link);
	return 0;
}

int dmcore_target_register(struct dmcore *core, const struct dmcore_target_type *type)
{
	int ret;

	ret = dmcore__control_begin(core);
	if (ret)
		return ret;
	ret = register_type(core, type);
	dmcore__unlock(core);
	return ret;
}

const struct dmcore_target_type *dmcore_target_type_at(struct dmcore *core, unsigned int index)
{
	const struct dmcore_target_type *type = NULL;
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (dmcore__control_begin(core))
		return NULL;
	dmcore__list_for_each(node, spare, &core->map->types) {
		if (index-- == 0) {
			type = type_entry(node)->type;
			break;
		}
	}
	dmcore__unlock(core);
	return type;
}

const struct dmcore_target_type *dmcore__target_type_find(struct dmcore *core, const char *name)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->map->types) {
		if (strcmp(type_entry(node)->type->name, name) == 0)
			return type_entry(node)->type;
	}
	return NULL;
}

int dmcore__map_create(struct dmcore *core)
{
	int ret = 0;

	core->map = dmcore__zalloc(core, sizeof(*core->map));
	if (!core->map)
		return dmcore__error(-ENOMEM, "no memory for a core");
	dmcore__list_init(&core->map->types);
	dmcore__list_init(&core->map->devices);
	dmcore__list_init(&core->map->tables);
	dmcore__list_init(&core->map->shared);
	dmcore__events_create(core->map);
	dmcore__stats_watch_queues(core, true);
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(builtins) && ret == 0; i++)
		ret = register_type(core, builtins[i]);
	if (ret)
		dmcore__map_destroy(core);
	return ret;
}

void dmcore__map_destroy(struct dmcore *core)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	if (!core->map)
		return;
	dmcore__devices_destroy(core);
	dmcore__stats_watch_queues(core, false);
	dmcore__list_for_each(node, spare, &core->map->types)
		dmcore__free(core, type_entry(node));
	dmcore__events_destroy(core->map);
	dmcore__free(core, core->map);
	core->map = NULL;
}
