/* SPDX-License-Identifier: MIT */
/*
 * Objects that targets of several tables have in common, found by their type and the device that
 * they are about. Constructors come here through dmcore/target.h; resources.c gives up what a table
 * holds. Control lock held throughout.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <dmcore/error.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"
#include "map/map.h"

struct shared {
	struct dmcore__list link; /* core->map->shared */
	const struct dmcore_shared_type *type;
	/* The device: of a leaf with a key that and its driver, for the bdev may be closed while
	 * others of the same device are open. Of any other the bdev, which all who share hold. */
	const struct dmcore_driver *driver;
	char *key;
	const struct dmcore_bdev *bdev;
	unsigned int num_holds;
	void *object;
};

struct dmcore__table_shared {
	struct dmcore__table_shared *older;
	struct shared *shared;
};

static bool is_about(const struct shared *shared, const struct dmcore_bdev *bdev)
{
	if (shared->bdev)
		return shared->bdev == bdev;
	return shared->driver == bdev->driver && bdev->key && strcmp(shared->key, bdev->key) == 0;
}

static struct shared *find(struct dmcore *core, const struct dmcore_bdev *bdev,
			   const struct dmcore_shared_type *type)
{
	struct dmcore__list *node;
	struct dmcore__list *spare;

	dmcore__list_for_each(node, spare, &core->map->shared) {
		struct shared *shared = dmcore__container_of(node, struct shared, link);

		if (shared->type == type && is_about(shared, bdev))
			return shared;
	}
	return NULL;
}

static void free_shared(struct dmcore *core, struct shared *shared)
{
	dmcore__free(core, shared->object);
	dmcore__free(core, shared->key);
	dmcore__free(core, shared);
}

static int create_object(struct dmcore *core, const struct shared *shared)
{
	int ret;

	if (!shared->type->create)
		return 0;
	dmcore__error_clear();
	ret = shared->type->create(core, shared->object);
	return ret > 0 ? -EINVAL : ret;
}

static int make(struct dmcore *core, const struct dmcore_bdev *bdev,
		const struct dmcore_shared_type *type, struct shared **result)
{
	struct shared *shared = dmcore__zalloc(core, sizeof(*shared));
	int ret = -ENOMEM;

	if (!shared)
		return dmcore__error(ret, "no memory for a shared object");
	shared->type = type;
	shared->driver = bdev->driver;
	if (bdev->key)
		shared->key = dmcore__strdup(core, bdev->key);
	else
		shared->bdev = bdev;
	shared->object = dmcore__zalloc(core, type->bytes);
	if (shared->object && (shared->key || shared->bdev))
		ret = create_object(core, shared);
	else
		dmcore__error(ret, "no memory for a shared object");
	if (ret) {
		free_shared(core, shared);
		return ret;
	}
	dmcore__list_append(&core->map->shared, &shared->link);
	*result = shared;
	return 0;
}

static int share(struct dmcore_table *table, const struct dmcore_bdev *bdev,
		 const struct dmcore_shared_type *type, void **result)
{
	struct dmcore__table_shared *hold = dmcore__table_alloc(table, sizeof(*hold));
	int ret = 0;

	if (!hold)
		return dmcore__error(-ENOMEM, "no memory for a shared object");
	hold->shared = find(table->core, bdev, type);
	if (!hold->shared)
		ret = make(table->core, bdev, type, &hold->shared);
	if (ret)
		return ret;
	hold->shared->num_holds++;
	hold->older = table->newest_shared;
	table->newest_shared = hold;
	*result = hold->shared->object;
	return 0;
}

int dmcore_target_share(struct dmcore_target *target, struct dmcore_bdev *bdev,
			const struct dmcore_shared_type *type, void **result)
{
	int ret;

	*result = NULL;
	if (!bdev || !type || type->struct_size < sizeof(*type) || type->bytes == 0)
		ret = dmcore__error(-EINVAL, "shared object: a device, struct_size and bytes are "
					     "required");
	else
		ret = share(target->table, bdev, type, result);
	/* The message goes behind the constructor's own. */
	if (ret)
		target->table->lookup_error = ret;
	return ret;
}

static void give_up(struct dmcore *core, struct shared *shared)
{
	DMCORE__ASSERT(shared->num_holds > 0);
	if (--shared->num_holds > 0)
		return;
	dmcore__list_remove(&shared->link);
	if (shared->type->destroy)
		shared->type->destroy(core, shared->object);
	free_shared(core, shared);
}

void dmcore__shared_rewind(struct dmcore_table *table, struct dmcore__table_shared *to)
{
	while (table->newest_shared != to) {
		struct dmcore__table_shared *hold = table->newest_shared;

		table->newest_shared = hold->older;
		give_up(table->core, hold->shared);
	}
}
