/* SPDX-License-Identifier: MIT */
/*
 * The words of snapshot and snapshot-merge:
 *
 *   <origin> <cow> <P|PO|N> <chunk sectors> [<#features> [discard_zeroes_cow]
 *	[discard_passdown_origin]]
 *
 * Called by the constructors of both types.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "targets/snapshot/snapshot.h"

#define NO_STORE "Couldn't create exception store"

/* The words in front of the features, which come before them in nobody's reading but ours. */
struct words {
	const char *origin;
	const char *cow;
	const char *store;
	uint64_t chunk_sectors;
	bool chunk_is_number;
};

static int parse_features(struct snapshot_target *own, struct dmcore_args *args)
{
	uint64_t count = 0;
	int ret;

	if (dmcore_args_left(args) == 0)
		return 0;
	ret = dmcore_args_u64(args, 0, 2, "Invalid number of feature arguments", &count);
	if (ret)
		return ret;
	if (count > dmcore_args_left(args))
		return dmcore_args_fail(args, -EINVAL, "Invalid number of feature arguments");
	while (ret == 0 && count--) {
		const char *word = dmcore_args_next(args);

		if (strcasecmp(word, "discard_zeroes_cow") == 0)
			own->discard_zeroes = true;
		else if (strcasecmp(word, "discard_passdown_origin") == 0)
			own->discard_passdown = true;
		else
			ret = dmcore_args_fail(args, -EINVAL, "Unrecognised feature requested");
	}
	/* This is told before a word that is unknown. */
	if (own->discard_passdown && !own->discard_zeroes)
		ret = dmcore_args_fail(args, -EINVAL,
				       "discard_passdown_origin feature depends on "
				       "discard_zeroes_cow");
	return ret;
}

static uint32_t block_sectors(const struct dmcore_bdev *bdev)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	dmcore_bdev_limits(bdev, &limits);
	return (uint32_t)dmcore__bytes_to_sectors(limits.logical_block_bytes);
}

static int open_devices(struct snapshot_target *own, struct dmcore_args *args,
			const struct words *words)
{
	struct dmcore_target *target = own->target;
	int ret;

	if (own->merges || own->discard_passdown)
		ret = dmcore_target_device(target, words->origin, &own->origin_bdev);
	else
		ret = dmcore_target_device_read_only(target, words->origin, &own->origin_bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Cannot get origin device");
	ret = dmcore_target_device(target, words->cow, &own->cow_bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Cannot get COW device");
	if (dmcore_bdev_is_same(own->origin_bdev, own->cow_bdev))
		return dmcore_args_fail(args, -EINVAL,
					"COW device cannot be the same as origin device");
	return 0;
}

/* The type of the store, and the size of its chunks. */
static int parse_store(struct snapshot_target *own, struct dmcore_args *args,
		       const struct words *words)
{
	uint64_t chunk = words->chunk_sectors;
	char type = (char)toupper((unsigned char)words->store[0]);
	const char *option = words->store + 1;

	if (type != 'P' && type != 'N')
		return dmcore_args_fail(args, -EINVAL, NO_STORE);
	own->persistent = type == 'P';
	if (own->persistent && *option) {
		if (toupper((unsigned char)*option) != 'O') {
			dmcore_target_log(own->target, DMCORE_LOG_ERROR,
					  "Unsupported persistent store option: %s", option);
			return dmcore_args_fail(args, -EINVAL, NO_STORE);
		}
		own->overflow_option = true;
	}
	if (!words->chunk_is_number || chunk > DMCORE_COW_CHUNK_SECTORS_MAX ||
	    (chunk & (chunk - 1)) || chunk % block_sectors(own->cow_bdev) ||
	    chunk % block_sectors(own->origin_bdev))
		return dmcore_args_fail(args, -EINVAL, NO_STORE);
	if (!own->persistent && chunk == 0)
		return dmcore_args_fail(args, -EINVAL, "Chunk size not set");
	own->chunk_sectors = (uint32_t)chunk;
	return 0;
}

static int read_words(struct dmcore_args *args, struct words *words)
{
	if (dmcore_args_left(args) < 4)
		return dmcore_args_fail(args, -EINVAL, "requires 4 or more arguments");
	words->origin = dmcore_args_next(args);
	words->cow = dmcore_args_next(args);
	words->store = dmcore_args_next(args);
	/* The other errors of the line come first. */
	words->chunk_is_number =
		dmcore_args_u64(args, 0, UINT32_MAX, NO_STORE, &words->chunk_sectors) == 0;
	return 0;
}

int dmcore__snapshot_construct(struct dmcore_target *target, struct dmcore_args *args, bool merges)
{
	struct words words = { 0 };
	struct snapshot_target *own;
	int ret = read_words(args, &words);

	if (ret)
		return ret;
	own = dmcore_target_alloc(target, sizeof(*own));
	if (!own)
		return dmcore_args_fail(args, -ENOMEM,
					"Cannot allocate private snapshot structure");
	own->target = target;
	own->merges = merges;
	ret = parse_features(own, args);
	if (ret == 0)
		ret = open_devices(own, args, &words);
	if (ret == 0)
		ret = parse_store(own, args, &words);
	if (ret)
		return ret;
	if (merges && !own->persistent)
		return dmcore_args_fail(args, -EINVAL,
					"Snapshot exception store does not support "
					"snapshot-merge.");
	target->private_data = own;
	if (own->discard_zeroes)
		target->flags = DMCORE_TARGET_DISCARDS;
	/* The one that counts is known when the store has been read. */
	target->max_io_sectors = own->chunk_sectors ? own->chunk_sectors :
						      DMCORE_COW_CHUNK_SECTORS_DEFAULT;
	return dmcore__snapshot_join(own, args);
}

void dmcore__snapshot_table_text(const struct snapshot_target *own, struct dmcore_text *text)
{
	uint32_t chunk_sectors = own->chunk_sectors;
	unsigned int count = (unsigned int)own->discard_zeroes + own->discard_passdown;

	if (own->shown_chunk_sectors)
		chunk_sectors = own->shown_chunk_sectors;
	dmcore_text_device(text, own->origin_bdev);
	dmcore_text_printf(text, " ");
	dmcore_text_device(text, own->cow_bdev);
	dmcore_text_printf(text, " %s %" PRIu32,
			   own->persistent ? own->overflow_option ? "PO" : "P" : "N",
			   chunk_sectors);
	if (count)
		dmcore_text_printf(text, " %u", count);
	if (own->discard_zeroes)
		dmcore_text_printf(text, " discard_zeroes_cow");
	if (own->discard_passdown)
		dmcore_text_printf(text, " discard_passdown_origin");
}
