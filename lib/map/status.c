/* SPDX-License-Identifier: MIT */
/* TABLE and STATUS lines, as dmsetup prints them, and what a table stands on. Called by
 * applications. */
#include <errno.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "map/map.h"

/* A line has a space behind the type even if nothing follows, as dmsetup's has. */
static void write_target(struct dmcore_target *target, enum dmcore_text_kind kind,
			 struct dmcore_text *text)
{
	dmcore_text_printf(text, "%llu %llu %s ", (unsigned long long)target->begin,
			   (unsigned long long)dmcore_target_len(target), target->type->name);
	if (target->type->status)
		target->type->status(target, kind, text);
	dmcore__text_append(text, "\n", 1);
}

/* What the devices of a table are told to, from the oldest to the newest. */
struct telling {
	struct dmcore_bdev **bdevs;
	uint32_t left;
};

/* They come the other way round. */
static int note_device(struct dmcore_bdev *bdev, void *context)
{
	struct telling *telling = context;

	telling->bdevs[--telling->left] = bdev;
	return 0;
}

static int write_devices(struct dmcore_table *table, struct dmcore_text *text)
{
	uint64_t number = ++table->core->bdevs->num_tellings;
	struct telling telling = { .left = table->num_devices };

	if (table->num_devices == 0)
		return 0;
	telling.bdevs = dmcore__zalloc_array(table->core, table->num_devices,
					     sizeof(struct dmcore_bdev *));
	if (!telling.bdevs)
		return -ENOMEM;
	dmcore__table_each_device(table, note_device, &telling);
	for (uint32_t i = 0; i < table->num_devices; i++) {
		struct dmcore_bdev *bdev = telling.bdevs[i];

		if (bdev->told_in == number)
			continue;
		bdev->told_in = number;
		dmcore_text_device(text, bdev);
		dmcore__text_append(text, "\n", 1);
	}
	dmcore__free(table->core, telling.bdevs);
	return 0;
}

static void write_targets(struct dmcore_table *table, enum dmcore_text_kind kind,
			  struct dmcore_text *text)
{
	for (uint32_t i = 0; i < table->num_targets && !text->failed; i++)
		write_target(dmcore__table_target(table, i), kind, text);
}

/* The text of a table, or of none. */
static int64_t copy_text(struct dmcore *core, struct dmcore_table *table,
			 enum dmcore_text_kind kind, char *buffer, size_t bytes)
{
	struct dmcore_text text;
	int64_t ret = 0;

	if (kind < DMCORE_TEXT_TABLE || kind > DMCORE_TEXT_DEPS)
		return dmcore__error(-EINVAL, "unknown kind of text: %d", (int)kind);
	dmcore__text_init(&text, core);
	if (table && kind == DMCORE_TEXT_DEPS)
		ret = write_devices(table, &text);
	else if (table)
		write_targets(table, kind, &text);
	if (ret == 0)
		ret = dmcore__text_copy(&text, buffer, bytes);
	dmcore__text_fini(&text);
	if (ret < 0)
		dmcore__error((int)ret, "no memory for a table's text");
	return ret;
}

int64_t dmcore_table_text(struct dmcore_table *table, enum dmcore_text_kind kind, char *buffer,
			  size_t bytes)
{
	int64_t ret;

	ret = dmcore__control_begin(table ? table->core : NULL);
	if (ret)
		return ret;
	ret = copy_text(table->core, table, kind, buffer, bytes);
	dmcore__unlock(table->core);
	return ret;
}

int64_t dmcore_device_text(struct dmcore_device *device, enum dmcore_text_kind kind,
			   unsigned int flags, char *buffer, size_t bytes)
{
	struct dmcore_table *table;
	int64_t ret;

	if (flags & ~DMCORE_TEXT_INACTIVE)
		return dmcore__error(-EINVAL, "unknown flag in 0x%x", flags);
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	table = flags & DMCORE_TEXT_INACTIVE ? device->inactive : dmcore__device_active(device);
	ret = copy_text(device->core, table, kind, buffer, bytes);
	dmcore__unlock(device->core);
	return ret;
}
