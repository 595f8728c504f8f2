/* SPDX-License-Identifier: MIT */
/*
 * dust: a range of one device, with bad blocks that messages choose.
 *
 * Table line:  <start> <length> dust <device> <sector> <block bytes>
 *
 * Sector s of the target is sector <sector> + s of the device. Blocks are counted from the start of
 * the device. Once reads are told to fail, those of a listed block do; a write takes the block off
 * the list, after as many writes have failed as were asked for. Called by the core through the type
 * at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>

#include <dmcore/driver.h>
#include <dmcore/target.h>

#include "base/checked.h"
#include "targets/dust/badblocks.h"

#define BLOCK_SECTORS_MAX 2097152

struct dust {
	struct dmcore_bdev *bdev;
	uint64_t start;
	uint32_t block_bytes;
	unsigned int block_shift; /* sectors of a block, as a power of two */
	atomic_bool fails_reads;
	atomic_bool quiet;
	struct badblocks badblocks;
};

/* ---- constructor ---- */

static int parse_block_bytes(struct dmcore_target *target, struct dmcore_args *args,
			     struct dust *dust)
{
	uint64_t max = dmcore__min_u64(dmcore_target_len(target), BLOCK_SECTORS_MAX);
	uint64_t bytes;
	int ret;

	ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid block size parameter", &bytes);
	if (ret)
		return ret;
	if (bytes < DMCORE_SECTOR_BYTES)
		return dmcore_args_fail(args, -EINVAL, "Block size must be at least 512");
	if (!dmcore__is_power_of_two(bytes))
		return dmcore_args_fail(args, -EINVAL, "Block size must be a power of 2");
	if (dmcore__bytes_to_sectors(bytes) > max)
		return dmcore_args_fail(args, -EINVAL, "Block size is too large");
	dust->block_bytes = (uint32_t)bytes;
	while (dmcore__sectors_to_bytes(UINT64_C(1) << dust->block_shift) < bytes)
		dust->block_shift++;
	target->max_io_sectors = UINT32_C(1) << dust->block_shift;
	return 0;
}

static int dust_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	static const char offset_text[] = "Invalid device offset sector";
	struct dust *dust;
	const char *spec;
	int offset_ret;
	int ret;

	if (dmcore_args_left(args) != 3)
		return dmcore_args_fail(args, -EINVAL, "Invalid argument count");
	dust = dmcore_target_alloc(target, sizeof(*dust));
	if (!dust)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	spec = dmcore_args_next(args);
	offset_ret = dmcore_args_u64(args, 0, UINT64_MAX, offset_text, &dust->start);
	/* What is wrong with the block size is told first. */
	ret = parse_block_bytes(target, args, dust);
	if (ret)
		return ret;
	if (offset_ret)
		return dmcore_args_fail(args, offset_ret, offset_text);
	ret = dmcore_target_device(target, spec, &dust->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	target->private_data = dust;
	return 0;
}

static void dust_dtr(struct dmcore_target *target)
{
	struct dust *dust = target->private_data;

	dmcore__badblocks_free(&dust->badblocks, dmcore_target_core(target));
}

/* ---- the way of a bio ---- */

/* Whether it passes. The blocks are two where the target begins within a block, else one. */
static bool read_passes(const struct dust *dust, uint64_t first, uint64_t last)
{
	for (uint64_t block = first; block <= last; block++) {
		if (dmcore__badblocks_has(&dust->badblocks, block))
			return false;
	}
	return true;
}

static bool write_passes(struct dust *dust, uint64_t first, uint64_t last)
{
	bool fails = false;

	for (uint64_t block = first; block <= last; block++)
		fails |= dmcore__badblocks_take_failure(&dust->badblocks, block);
	for (uint64_t block = first; block <= last && !fails; block++)
		dmcore__badblocks_heal(&dust->badblocks, block);
	return !fails;
}

static enum dmcore_map_result dust_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct dust *dust = target->private_data;
	uint64_t first;
	uint64_t last;
	bool passes;

	bio->bdev = dust->bdev;
	if (bio->op == DMCORE_OP_FLUSH)
		return DMCORE_MAP_REMAPPED;
	bio->sector = dust->start + (bio->sector - target->begin);
	if (bio->op > DMCORE_OP_WRITE ||
	    !atomic_load_explicit(&dust->fails_reads, memory_order_relaxed) ||
	    dmcore__badblocks_count(&dust->badblocks) == 0)
		return DMCORE_MAP_REMAPPED;
	first = bio->sector >> dust->block_shift;
	last = (bio->sector + bio->count - 1) >> dust->block_shift;
	if (bio->op == DMCORE_OP_READ)
		passes = read_passes(dust, first, last);
	else
		passes = write_passes(dust, first, last);
	return passes ? DMCORE_MAP_REMAPPED : DMCORE_MAP_KILL;
}

static unsigned int dust_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op != DMCORE_OP_WRITE_ZEROES;
}

/* ---- messages ---- */

/* What a message is carried out with. */
struct order {
	struct dmcore_target *target;
	struct dust *dust;
	struct dmcore_args *args;
	struct dmcore_text *reply;
};

/* Takes a block of the device, the last one of which may be a part of one. */
static int take_block(const struct order *order, uint64_t *block)
{
	uint64_t sectors = dmcore_bdev_size_sectors(order->dust->bdev);
	int ret;

	ret = dmcore_args_u64(order->args, 0, UINT64_MAX, "Invalid block number", block);
	if (ret)
		return ret;
	if (sectors == 0 || *block > (sectors - 1) >> order->dust->block_shift)
		return dmcore_args_fail(order->args, -EINVAL, "selected block value out of range");
	return 0;
}

static int add_block(const struct order *order)
{
	struct badblocks *badblocks = &order->dust->badblocks;
	uint64_t failures = 0;
	uint64_t block;
	int ret;

	ret = take_block(order, &block);
	if (ret)
		return ret;
	if (dmcore_args_left(order->args)) {
		ret = dmcore_args_u64(order->args, 0, BADBLOCKS_FAILURES_MAX,
				      "Invalid write fail count", &failures);
		if (ret)
			return ret;
	}
	if (dmcore__badblocks_has(badblocks, block))
		return dmcore_args_fail(order->args, -EINVAL, "block already in badblocklist");
	ret = dmcore__badblocks_add(badblocks, dmcore_target_core(order->target), block, failures);
	if (ret)
		return dmcore_args_fail(order->args, ret, "badblocklist is full");
	return 0;
}

static int remove_block(const struct order *order)
{
	uint64_t block;
	int ret = take_block(order, &block);

	if (ret)
		return ret;
	if (!dmcore__badblocks_remove(&order->dust->badblocks, block))
		return dmcore_args_fail(order->args, -EINVAL, "block not found in badblocklist");
	return 0;
}

static int query_block(const struct order *order)
{
	uint64_t block;
	int ret = take_block(order, &block);

	if (ret)
		return ret;
	dmcore_text_printf(
		order->reply, "dust_query_block: block %" PRIu64 " %s in badblocklist", block,
		dmcore__badblocks_has(&order->dust->badblocks, block) ? "found" : "not found");
	return 0;
}

static int count_blocks(const struct order *order)
{
	dmcore_text_printf(order->reply, "countbadblocks: %" PRIu64 " badblock(s) found",
			   dmcore__badblocks_count(&order->dust->badblocks));
	return 0;
}

static int clear_blocks(const struct order *order)
{
	bool any = dmcore__badblocks_clear(&order->dust->badblocks);

	dmcore_text_printf(order->reply, "dust_clear_badblocks: %s",
			   any ? "badblocks cleared" : "no badblocks found");
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static int list_blocks(const struct order *order)
{
	struct dmcore *core = dmcore_target_core(order->target);
	/* Meanwhile they become fewer, never more. */
	uint64_t count = dmcore__badblocks_count(&order->dust->badblocks);
	uint64_t *numbers = dmcore_zalloc(core, (count + 1) * sizeof(*numbers));

	if (!numbers)
		return dmcore_args_fail(order->args, -ENOMEM, "no memory for the list");
	count = dmcore__badblocks_list(&order->dust->badblocks, numbers, count);
	qsort(numbers, count, sizeof(*numbers), compare_numbers);
	for (uint64_t i = 0; i < count; i++)
		dmcore_text_printf(order->reply, "%" PRIu64 "\n", numbers[i]);
	if (count == 0)
		dmcore_text_printf(order->reply, "No blocks in badblocklist");
	dmcore_free(core, numbers);
	return 0;
}

static int enable(const struct order *order)
{
	atomic_store(&order->dust->fails_reads, true);
	return 0;
}

static int disable(const struct order *order)
{
	atomic_store(&order->dust->fails_reads, false);
	return 0;
}

static int toggle_quiet(const struct order *order)
{
	atomic_store(&order->dust->quiet, !atomic_load(&order->dust->quiet));
	return 0;
}

static const struct command {
	const char *name;
	unsigned int min_words; /* behind the name */
	unsigned int max_words;
	int (*run)(const struct order *order);
} commands[] = {
	{ "addbadblock", 1, 2, add_block },
	{ "removebadblock", 1, 1, remove_block },
	{ "queryblock", 1, 1, query_block },
	{ "countbadblocks", 0, 0, count_blocks },
	{ "clearbadblocks", 0, 0, clear_blocks },
	{ "listbadblocks", 0, 0, list_blocks },
	{ "enable", 0, 0, enable },
	{ "disable", 0, 0, disable },
	{ "quiet", 0, 0, toggle_quiet },
};

static int dust_message(struct dmcore_target *target, struct dmcore_args *args,
			struct dmcore_text *reply)
{
	const struct order order = { target, target->private_data, args, reply };
	const char *name = dmcore_args_next(args);
	unsigned int words = dmcore_args_left(args);

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		const struct command *command = &commands[i];

		if (strcasecmp(name, command->name) != 0)
			continue;
		if (words < command->min_words)
			return dmcore_args_fail(args, -EINVAL, "requires an additional argument");
		if (words > command->max_words)
			return dmcore_args_fail(args, -EINVAL, "Invalid argument count");
		return command->run(&order);
	}
	return dmcore_args_fail(args, -EINVAL, "unrecognized message received");
}

/* ---- status and limits ---- */

static void dust_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			struct dmcore_text *text)
{
	const struct dust *dust = target->private_data;

	dmcore_text_device(text, dust->bdev);
	if (kind == DMCORE_TEXT_TABLE)
		dmcore_text_printf(text, " %" PRIu64 " %" PRIu32, dust->start, dust->block_bytes);
	else
		dmcore_text_printf(text, " %s %s",
				   atomic_load(&dust->fails_reads) ? "fail_read_on_bad_block" :
								     "bypass",
				   atomic_load(&dust->quiet) ? "quiet" : "verbose");
}

static int dust_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct dust *dust = target->private_data;

	return fn(target, dust->bdev, dust->start, dmcore_target_len(target), context);
}

/* Where a read may fail nothing is told, so that whoever goes by it reads. */
static void dust_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place)
{
	const struct dust *dust = target->private_data;

	if (atomic_load_explicit(&dust->fails_reads, memory_order_relaxed) &&
	    dmcore__badblocks_count(&dust->badblocks) > 0)
		return;
	place->bdev = dust->bdev;
	place->sector = dust->start + (sector - target->begin);
}

extern const struct dmcore_target_type dmcore__target_dust;

const struct dmcore_target_type dmcore__target_dust = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "dust",
	.version = { 1, 0, 0 },
	.ctr = dust_ctr,
	.dtr = dust_dtr,
	.map = dust_map,
	.num_bios = dust_num_bios,
	.status = dust_status,
	.iterate_devices = dust_iterate_devices,
	.message = dust_message,
	.extent = dust_extent,
};
