/* SPDX-License-Identifier: MIT */
/* Messages to targets and to the device itself. Called by applications. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include <dmcore/error.h>

#include "base/alloc.h"
#include "base/args.h"
#include "base/error.h"
#include "base/text.h"
#include "map/map.h"

static int cancel_deferred_remove(struct dmcore_device *device, const struct dmcore_args *args)
{
	if (args->count != 1)
		return dmcore__error(-EINVAL, "Invalid arguments for @cancel_deferred_remove");
	device->deferred_remove = false;
	return 0;
}

int dmcore__device_own_message(struct dmcore_device *device, struct dmcore_args *args,
			       struct dmcore_text *reply)
{
	const char *word = args->words[0];
	int ret;

	if (word[0] != '@')
		return 1;
	if (strcasecmp(word, "@cancel_deferred_remove") == 0)
		return cancel_deferred_remove(device, args);
	ret = dmcore__stats_message(device, args, reply);
	if (ret != 1)
		return ret;
	return dmcore__error(-EINVAL, "Unsupported message sent to DM core: %s", word);
}

static int target_message(struct dmcore_device *device, uint64_t sector, struct dmcore_args *args,
			  struct dmcore_text *reply)
{
	struct dmcore_table *table = dmcore__device_active(device);
	struct dmcore_target *target;
	uint64_t i;
	int ret;

	if (!table)
		return dmcore__error(-EINVAL, "The device has no table.");
	if (sector >= table->size_sectors)
		return dmcore__error(-EINVAL, "Target message sector outside device.");
	i = dmcore__find_range(table->ends, table->num_targets, sector);
	target = dmcore__target_at(table, (uint32_t)i);
	if (!target->type->message)
		return dmcore__error(-EINVAL, "Target type does not support messages");
	dmcore__error_clear();
	ret = target->type->message(target, args, reply);
	if (ret > 0)
		ret = -EINVAL;
	if (ret && args->error)
		dmcore__error(ret, "%s: %s", target->type->name, args->error);
	else if (ret && !dmcore_error_message()[0])
		dmcore__error(ret, "%s: the message was refused", target->type->name);
	return ret;
}

static int send_words(struct dmcore_device *device, uint64_t sector, struct dmcore_args *args,
		      struct dmcore_text *reply)
{
	int ret;

	if (args->count == 0)
		return dmcore__error(-EINVAL, "Empty message received.");
	ret = dmcore__device_own_message(device, args, reply);
	if (ret == 1)
		ret = target_message(device, sector, args, reply);
	return ret;
}

/* Splits a copy of the text. */
static int send_text(struct dmcore_device *device, uint64_t sector, const char *text,
		     struct dmcore_text *reply)
{
	struct dmcore *core = device->core;
	size_t bytes = strlen(text);
	size_t num_words = bytes / 2 + 1;
	struct dmcore_args args = { 0 };
	char *copy;
	int ret;

	if (num_words > DMCORE_TARGET_ARGS_MAX)
		num_words = DMCORE_TARGET_ARGS_MAX;
	copy = dmcore__strndup(core, text, bytes);
	args.words = dmcore__zalloc_array(core, num_words, sizeof(*args.words));
	if (!copy || !args.words)
		ret = dmcore__error(-ENOMEM, "Failed to split target message parameters");
	else if (!dmcore__split(copy, args.words, (unsigned int)num_words, &args.count))
		ret = dmcore__error(-E2BIG, "more than %zu words", num_words);
	else
		ret = send_words(device, sector, &args, reply);
	dmcore__free(core, args.words);
	dmcore__free(core, copy);
	return ret;
}

int64_t dmcore_device_message(struct dmcore_device *device, uint64_t sector, const char *text,
			      char *buffer, size_t bytes)
{
	struct dmcore_text reply;
	int64_t ret;

	if (!text || strnlen(text, DMCORE_TABLE_TEXT_BYTES_MAX + 1) > DMCORE_TABLE_TEXT_BYTES_MAX)
		return dmcore__error(-EINVAL, "Invalid target message parameters.");
	ret = dmcore__control_begin(device ? device->core : NULL);
	if (ret)
		return ret;
	dmcore__text_init(&reply, device->core);
	ret = send_text(device, sector, text, &reply);
	if (ret == 0)
		ret = dmcore__text_copy(&reply, buffer, bytes);
	if (ret == -ENOMEM && reply.failed)
		dmcore__error(-ENOMEM, "no memory for the answer");
	if (ret < 0)
		dmcore__error_prefix((int)ret, "%s", device->bdev->name);
	dmcore__text_fini(&reply);
	dmcore__unlock(device->core);
	return ret;
}
