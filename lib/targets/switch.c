/* SPDX-License-Identifier: MIT */
/*
 * switch: regions of one volume, each reached by the path that a message has set for it.
 *
 * Table line:  <start> <length> switch <paths> <region> 0 {<device> <sector>}
 * Message:     set_region_mappings {<index>:<path> | :<path> | R<cycle>,<count>}, all hexadecimal
 *
 * Sector s of the target is sector <sector> + s of the device of its region's path, region
 * s / <region>. At first region r goes by path r % <paths>. Called by the core through the type at
 * the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <strings.h>

#include <dmcore/target.h>

#include "base/checked.h"

/* The kernel's largest count, though no line has room for as many. */
#define PATHS_MAX 262141
/* 2^31 regions of two paths. */
#define REGION_TABLE_BYTES_MAX (UINT64_C(256) << 20)

#define WORD_BITS_SHIFT 6

struct path {
	struct dmcore_bdev *bdev;
	uint64_t start;
};

struct switcher {
	uint64_t num_regions;
	uint32_t region_sectors;
	uint32_t region_shift;
	bool shifts; /* the region is a power of two */
	uint32_t num_paths;
	/* The path of each region, packed in words. A word is changed by one message at a time,
	 * and read by map meanwhile: it is loaded and stored whole. */
	uint32_t entry_shift; /* an entry has 2^this bits */
	uint64_t entry_mask;
	_Atomic uint64_t *words;
	struct path path[];
};

/* ---- the region table ---- */

/* The word that holds a region's entry, and in *bit the entry's place in it. */
static inline _Atomic uint64_t *word_of(const struct switcher *switcher, uint64_t region,
					uint32_t *bit)
{
	uint32_t per_word_shift = WORD_BITS_SHIFT - switcher->entry_shift;

	*bit = (uint32_t)(region & ((1u << per_word_shift) - 1)) << switcher->entry_shift;
	return &switcher->words[region >> per_word_shift];
}

static inline uint32_t path_of(const struct switcher *switcher, uint64_t region)
{
	uint32_t bit;
	uint64_t word = atomic_load_explicit(word_of(switcher, region, &bit), memory_order_relaxed);

	return (uint32_t)(word >> bit & switcher->entry_mask);
}

static void set_path(struct switcher *switcher, uint64_t region, uint64_t path)
{
	uint32_t bit;
	_Atomic uint64_t *word = word_of(switcher, region, &bit);
	uint64_t value = atomic_load_explicit(word, memory_order_relaxed);

	value &= ~(switcher->entry_mask << bit);
	atomic_store_explicit(word, value | path << bit, memory_order_relaxed);
}

static int make_region_table(struct dmcore_target *target, struct dmcore_args *args,
			     struct switcher *switcher)
{
	uint64_t length = dmcore_target_len(target);
	uint64_t num_words;
	uint64_t path = 0;

	while (UINT64_C(1) << (1u << switcher->entry_shift) < switcher->num_paths)
		switcher->entry_shift++;
	switcher->entry_mask = (UINT64_C(1) << (1u << switcher->entry_shift)) - 1;
	switcher->num_regions = (length - 1) / switcher->region_sectors + 1;
	num_words = ((switcher->num_regions - 1) >> (WORD_BITS_SHIFT - switcher->entry_shift)) + 1;
	if (num_words > REGION_TABLE_BYTES_MAX / sizeof(*switcher->words))
		return dmcore_args_fail(args, -EINVAL, "Region table too large");
	switcher->words = dmcore_target_alloc(target, num_words * sizeof(*switcher->words));
	if (!switcher->words)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate region table");
	for (uint64_t region = 0; region < switcher->num_regions; region++) {
		set_path(switcher, region, path);
		path = path + 1 < switcher->num_paths ? path + 1 : 0;
	}
	return 0;
}

/* ---- constructor ---- */

static int parse_path(struct dmcore_target *target, struct dmcore_args *args, struct path *path)
{
	int ret = dmcore_target_device(target, dmcore_args_next(args), &path->bdev);

	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	return dmcore_args_u64(args, 0, UINT64_MAX, "Invalid device starting offset", &path->start);
}

static int switch_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct switcher *switcher;
	uint64_t num_paths;
	uint64_t region_sectors;
	uint64_t num_options;
	int ret;

	ret = dmcore_args_u64(args, 1, PATHS_MAX, "Invalid number of paths", &num_paths);
	if (ret)
		return ret;
	ret = dmcore_args_u64(args, 1, UINT32_MAX, "Invalid region size", &region_sectors);
	if (ret)
		return ret;
	ret = dmcore_args_u64(args, 0, 0, "Invalid number of optional args", &num_options);
	if (ret)
		return ret;
	if (dmcore_args_left(args) != 2 * num_paths)
		return dmcore_args_fail(args, -EINVAL, "Incorrect number of path arguments");
	switcher = dmcore_target_alloc(target,
				       sizeof(*switcher) + num_paths * sizeof(switcher->path[0]));
	if (!switcher)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate redirect context");
	switcher->num_paths = (uint32_t)num_paths;
	switcher->region_sectors = (uint32_t)region_sectors;
	switcher->shifts = dmcore__is_power_of_two(region_sectors);
	while (UINT64_C(1) << switcher->region_shift < region_sectors)
		switcher->region_shift++;
	for (uint32_t i = 0; i < switcher->num_paths; i++) {
		ret = parse_path(target, args, &switcher->path[i]);
		if (ret)
			return ret;
	}
	target->private_data = switcher;
	target->max_io_sectors = switcher->region_sectors;
	target->flags = DMCORE_TARGET_FLUSH_DEVICES;
	return make_region_table(target, args, switcher);
}

/* ---- the way of a bio ---- */

/* A discard isn't split at regions: all paths lead to the same volume. */
static enum dmcore_map_result switch_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct switcher *switcher = target->private_data;
	uint64_t offset = bio->sector - target->begin;
	uint64_t region = switcher->shifts ? offset >> switcher->region_shift :
					     offset / switcher->region_sectors;
	const struct path *path = &switcher->path[path_of(switcher, region)];

	bio->bdev = path->bdev;
	bio->sector = path->start + offset;
	return DMCORE_MAP_REMAPPED;
}

static unsigned int switch_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op == DMCORE_OP_DISCARD ? 1 : 0;
}

/* ---- messages ---- */

/* Takes a number off the front of *text. */
static bool take_hex(const char **text, uint64_t *value)
{
	const char *at = *text;

	for (*value = 0;; at++) {
		unsigned int digit;

		if (*at >= '0' && *at <= '9')
			digit = (unsigned int)(*at - '0');
		else if ((*at | 0x20) >= 'a' && (*at | 0x20) <= 'f')
			digit = (unsigned int)((*at | 0x20) - 'a' + 10);
		else
			break;
		if (*value >> 60)
			return false;
		*value = *value << 4 | digit;
	}
	if (at == *text)
		return false;
	*text = at;
	return true;
}

static bool take_char(const char **text, char wanted)
{
	if (**text != wanted)
		return false;
	(*text)++;
	return true;
}

static int fail_syntax(struct dmcore_args *args)
{
	return dmcore_args_fail(args, -EINVAL, "invalid set_region_mappings argument");
}

/* "<cycle>,<count>": the <count> regions behind *region go as those <cycle> before each. */
static int repeat(struct switcher *switcher, struct dmcore_args *args, const char *text,
		  uint64_t *region)
{
	uint64_t cycle;
	uint64_t count;

	if (!take_hex(&text, &cycle) || !take_char(&text, ',') || !take_hex(&text, &count) || *text)
		return fail_syntax(args);
	if (cycle == 0 || cycle - 1 > *region)
		return dmcore_args_fail(args, -EINVAL, "invalid set_region_mappings cycle length");
	if (count >= switcher->num_regions - *region)
		return dmcore_args_fail(args, -EINVAL, "invalid set_region_mappings region number");
	for (; count > 0; count--) {
		++*region;
		set_path(switcher, *region, path_of(switcher, *region - cycle));
	}
	return 0;
}

/* "<index>:<path>", or ":<path>" for the region behind *region. */
static int set_mapping(struct switcher *switcher, struct dmcore_args *args, const char *text,
		       uint64_t *region)
{
	uint64_t path;

	if (*text == ':')
		++*region;
	else if (!take_hex(&text, region))
		return fail_syntax(args);
	if (!take_char(&text, ':') || !take_hex(&text, &path) || *text)
		return fail_syntax(args);
	if (*region >= switcher->num_regions)
		return dmcore_args_fail(args, -EINVAL, "invalid set_region_mappings region number");
	if (path >= switcher->num_paths)
		return dmcore_args_fail(args, -EINVAL, "invalid set_region_mappings device");
	set_path(switcher, *region, path);
	return 0;
}

/* What stands before a wrong word is done, as in the kernel. */
static int switch_message(struct dmcore_target *target, struct dmcore_args *args,
			  struct dmcore_text *reply)
{
	struct switcher *switcher = target->private_data;
	uint64_t region = 0;
	const char *word;
	int ret = 0;

	(void)reply;
	if (strcasecmp(dmcore_args_next(args), "set_region_mappings") != 0)
		return dmcore_args_fail(args, -EINVAL, "Unrecognised message received.");
	while (ret == 0 && (word = dmcore_args_next(args))) {
		if (*word == 'R' || *word == 'r')
			ret = repeat(switcher, args, word + 1, &region);
		else
			ret = set_mapping(switcher, args, word, &region);
	}
	return ret;
}

/* ---- status ---- */

/* The mappings aren't shown: a table that is loaded anew begins with the first ones. */
static void switch_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			  struct dmcore_text *text)
{
	const struct switcher *switcher = target->private_data;

	if (kind != DMCORE_TEXT_TABLE)
		return;
	dmcore_text_printf(text, "%" PRIu32 " %" PRIu32 " 0", switcher->num_paths,
			   switcher->region_sectors);
	for (uint32_t i = 0; i < switcher->num_paths; i++) {
		dmcore_text_printf(text, " ");
		dmcore_text_device(text, switcher->path[i].bdev);
		dmcore_text_printf(text, " %" PRIu64, switcher->path[i].start);
	}
}

static int switch_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct switcher *switcher = target->private_data;
	int ret = 0;

	for (uint32_t i = 0; i < switcher->num_paths && ret == 0; i++)
		ret = fn(target, switcher->path[i].bdev, switcher->path[i].start,
			 dmcore_target_len(target), context);
	return ret;
}

static void switch_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place)
{
	const struct switcher *switcher = target->private_data;
	uint64_t offset = sector - target->begin;
	const struct path *path =
		&switcher->path[path_of(switcher, offset / switcher->region_sectors)];

	place->bdev = path->bdev;
	place->sector = path->start + offset;
	place->count = dmcore__min_u64(
		place->count, switcher->region_sectors - offset % switcher->region_sectors);
}

extern const struct dmcore_target_type dmcore__target_switch;

const struct dmcore_target_type dmcore__target_switch = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "switch",
	.version = { 1, 1, 0 },
	.ctr = switch_ctr,
	.map = switch_map,
	.num_bios = switch_num_bios,
	.status = switch_status,
	.iterate_devices = switch_iterate_devices,
	.message = switch_message,
	.extent = switch_extent,
};
