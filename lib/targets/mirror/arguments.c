/* SPDX-License-Identifier: MIT */
/*
 * The words of mirror, and what status says:
 *
 *   <core|disk> <#log_args> [<log device>] <region sectors> [sync|nosync]
 *	<#legs> {<device> <offset>} [<#features> [handle_errors] [keep_log] [balance_reads]
 *						 [write_behind <leg> <sectors>]]
 *
 * Called by targets/mirror.c.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "targets/mirror/mirror.h"

#define NO_LOG "Error creating mirror dirty log"

/* ---- the log ---- */

static int parse_sync(struct mirror *mirror, const char *word)
{
	if (strcmp(word, "sync") == 0)
		mirror->log.sync = MIRROR_SYNC_FORCED;
	else if (strcmp(word, "nosync") == 0)
		mirror->log.sync = MIRROR_SYNC_NONE;
	else
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
				  "unrecognised sync argument to dirty region log: %s", word);
	return mirror->log.sync == MIRROR_SYNC_DEFAULT ? -EINVAL : 0;
}

/* Of a region: a power of two, two sectors and up, no longer than the target. */
static int parse_region(struct mirror *mirror, const char *word)
{
	uint64_t sectors = 0;
	const char *at = word;

	for (; *at >= '0' && *at <= '9' && sectors <= UINT32_MAX; at++)
		sectors = 10 * sectors + (uint64_t)(*at - '0');
	if (*at || at == word || sectors < 2 || sectors > UINT32_MAX ||
	    (sectors & (sectors - 1)) || sectors > dmcore_target_len(mirror->target)) {
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING, "invalid region size %s",
				  word);
		return -EINVAL;
	}
	mirror->log.region_shift = (uint32_t)__builtin_ctzll(sectors);
	return 0;
}

/* What stands behind the device, if there is one. */
static int parse_core_log(struct mirror *mirror, const char *const *words, uint64_t count)
{
	int ret = 0;

	if (count < 1 || count > 2) {
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
				  "wrong number of arguments to dirty region log");
		return -EINVAL;
	}
	if (count == 2)
		ret = parse_sync(mirror, words[1]);
	return ret ? ret : parse_region(mirror, words[0]);
}

static int check_log_size(struct mirror *mirror)
{
	uint64_t have = dmcore_bdev_size_sectors(mirror->log.bdev) * DMCORE_SECTOR_BYTES;

	if (mirror->log.buffer_bytes <= have)
		return 0;
	dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
			  "log device %s too small: need %zu bytes",
			  dmcore_bdev_name(mirror->log.bdev), mirror->log.buffer_bytes);
	return -EINVAL;
}

static int parse_log(struct mirror *mirror, struct dmcore_args *args, const char *type,
		     uint64_t count)
{
	const char *words[3] = { NULL };
	bool disk = strcmp(type, "disk") == 0;
	int ret = 0;

	if ((!disk && strcmp(type, "core") != 0) || count > (disk ? 3 : 2) || count < 1) {
		dmcore_target_log(mirror->target, DMCORE_LOG_WARNING,
				  "wrong number of arguments to %sdirty region log",
				  disk ? "disk " : "");
		return dmcore_args_fail(args, -EINVAL, NO_LOG);
	}
	for (uint64_t i = 0; i < count; i++)
		words[i] = dmcore_args_next(args);
	if (disk && count < 2)
		ret = -EINVAL;
	if (ret == 0 && disk)
		ret = dmcore_target_device(mirror->target, words[0], &mirror->log.bdev);
	if (ret == 0)
		ret = parse_core_log(mirror, words + disk, count - disk);
	if (ret == 0)
		ret = dmcore__log_measure(mirror, dmcore_target_len(mirror->target));
	if (ret == 0 && disk)
		ret = check_log_size(mirror);
	return ret ? dmcore_args_fail(args, ret == -ENOMEM ? ret : -EINVAL, NO_LOG) : 0;
}

/* ---- legs and features ---- */

static int parse_legs(struct mirror *mirror, struct dmcore_args *args)
{
	uint64_t count;
	int ret = dmcore_args_u64(args, 2, MIRROR_LEGS_MAX, "Invalid number of mirrors", &count);

	if (ret)
		return ret;
	if (dmcore_args_left(args) < 2 * count)
		return dmcore_args_fail(args, -EINVAL, "Too few mirror arguments");
	mirror->num_legs = (uint32_t)count;
	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		const char *device = dmcore_args_next(args);

		ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid offset",
				      &mirror->legs[i].offset_sectors);
		if (ret)
			return ret;
		ret = dmcore_target_device(mirror->target, device, &mirror->legs[i].bdev);
		if (ret)
			return dmcore_args_fail(args, ret, "Device lookup failure");
	}
	return 0;
}

/* Leg 0 is what a restart believes: it never lags. *count: words of features that are left. */
static int parse_write_behind(struct mirror *mirror, struct dmcore_args *args, uint64_t *count)
{
	uint64_t leg;
	uint64_t sectors;
	int ret;

	if (*count < 2)
		return dmcore_args_fail(args, -EINVAL, "write_behind requires a leg and sectors");
	*count -= 2;
	ret = dmcore_args_u64(args, 1, mirror->num_legs - 1, "Invalid leg of write_behind", &leg);
	if (ret == 0)
		ret = dmcore_args_u64(args, BEHIND_SECTORS_MIN, BEHIND_SECTORS_MAX,
				      "Invalid sectors of write_behind", &sectors);
	if (ret)
		return ret;
	mirror->behind.leg = (uint32_t)leg;
	mirror->behind.limit_sectors = (uint32_t)sectors;
	return 0;
}

static int parse_feature(struct mirror *mirror, struct dmcore_args *args, uint64_t *count)
{
	const char *word = dmcore_args_next(args);

	(*count)--;
	if (strcmp(word, "handle_errors") == 0)
		mirror->handle_errors = true;
	else if (strcmp(word, "keep_log") == 0)
		mirror->keep_log = true;
	else if (strcmp(word, "balance_reads") == 0)
		mirror->balances_reads = true;
	else if (strcmp(word, "write_behind") == 0)
		return parse_write_behind(mirror, args, count);
	else
		return dmcore_args_fail(args, -EINVAL, "Unrecognised feature requested");
	return 0;
}

static int parse_features(struct mirror *mirror, struct dmcore_args *args)
{
	uint64_t count = 0;
	int ret;

	if (dmcore_args_left(args) == 0)
		return 0;
	ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid number of features", &count);
	if (ret)
		return ret;
	if (count > dmcore_args_left(args))
		return dmcore_args_fail(args, -EINVAL,
					"Not enough arguments to support feature count");
	while (ret == 0 && count > 0)
		ret = parse_feature(mirror, args, &count);
	if (ret)
		return ret;
	if (mirror->keep_log && !mirror->handle_errors)
		return dmcore_args_fail(args, -EINVAL,
					"keep_log feature requires the handle_errors feature");
	return 0;
}

static int parse(struct mirror *mirror, struct dmcore_args *args)
{
	const char *type;
	uint64_t count;
	int ret;

	if (dmcore_args_left(args) < 2)
		return dmcore_args_fail(args, -EINVAL, "Insufficient mirror log arguments");
	type = dmcore_args_next(args);
	ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid mirror log argument count", &count);
	if (ret)
		return ret;
	if (dmcore_args_left(args) < count)
		return dmcore_args_fail(args, -EINVAL, "Insufficient mirror log arguments");
	ret = parse_log(mirror, args, type, count);
	if (ret == 0)
		ret = parse_legs(mirror, args);
	if (ret == 0)
		ret = parse_features(mirror, args);
	if (ret == 0 && dmcore_args_left(args) > 0)
		ret = dmcore_args_fail(args, -EINVAL, "Too many mirror arguments");
	return ret;
}

/* If not, the table is refused, and needs no memory that may be as much as it likes. */
static bool legs_are_large_enough(const struct mirror *mirror)
{
	uint64_t sectors = dmcore_target_len(mirror->target);

	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		const struct mirror_leg *leg = &mirror->legs[i];
		uint64_t size = dmcore_bdev_size_sectors(leg->bdev);

		if (leg->offset_sectors > size || size - leg->offset_sectors < sectors)
			return false;
	}
	return true;
}

int dmcore__mirror_construct(struct dmcore_target *target, struct dmcore_args *args)
{
	struct mirror *mirror = dmcore_target_alloc(target, sizeof(*mirror));
	int ret;

	if (!mirror)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate mirror context");
	mirror->target = target;
	mirror->core = dmcore_target_core(target);
	dmcore__mirror_list_init(&mirror->held);
	dmcore__mirror_list_init(&mirror->no_place);
	ret = parse(mirror, args);
	if (ret)
		goto destroy_log;
	if (legs_are_large_enough(mirror) &&
	    (dmcore__log_allocate(mirror) || dmcore__clean_allocate(mirror) ||
	     dmcore__behind_allocate(mirror))) {
		ret = dmcore_args_fail(args, -ENOMEM, NO_LOG);
		goto destroy_log;
	}
	ret = -ENOMEM;
	mirror->regions = dmcore_zalloc(mirror->core, sizeof(*mirror->regions));
	mirror->service = dmcore_service_queue(mirror->core);
	if (!mirror->regions || !mirror->service) {
		dmcore_args_fail(args, ret, "Error creating dirty region hash");
		goto destroy_log;
	}
	target->private_data = mirror;
	target->flags = DMCORE_TARGET_DISCARDS | DMCORE_TARGET_SPLITS_ALL;
	target->max_io_sectors = 1u << mirror->log.region_shift;
	if (mirror->behind.leg && target->max_io_sectors > dmcore__behind_io_sectors(mirror))
		target->max_io_sectors = dmcore__behind_io_sectors(mirror);
	return 0;

destroy_log:
	dmcore_free(mirror->core, mirror->regions);
	dmcore__behind_free(mirror);
	dmcore__log_destroy(mirror);
	return ret;
}

/* ---- status ---- */

static char health_of(const struct mirror_leg *leg)
{
	uint32_t failures = atomic_load(&leg->failures);

	if (failures & MIRROR_FLUSH_FAILED)
		return 'F';
	if (failures & MIRROR_WRITE_FAILED)
		return 'D';
	if (failures & MIRROR_SYNC_FAILED)
		return 'S';
	return failures & MIRROR_READ_FAILED ? 'R' : 'A';
}

static void write_status(const struct mirror *mirror, struct dmcore_text *text)
{
	const struct mirror_log *log = &mirror->log;

	dmcore_text_printf(text, "%" PRIu32 " ", mirror->num_legs);
	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		dmcore_text_device(text, mirror->legs[i].bdev);
		dmcore_text_printf(text, " ");
	}
	dmcore_text_printf(text, "%" PRIu64 "/%" PRIu64 " 1 ", atomic_load(&log->num_in_sync),
			   log->num_regions);
	for (uint32_t i = 0; i < mirror->num_legs; i++)
		dmcore_text_printf(text, "%c", health_of(&mirror->legs[i]));
	if (!log->bdev) {
		dmcore_text_printf(text, " 1 core");
		return;
	}
	dmcore_text_printf(text, " 3 disk ");
	dmcore_text_device(text, log->bdev);
	dmcore_text_printf(text, " %c", atomic_load(&log->health));
}

static void write_table(const struct mirror *mirror, struct dmcore_text *text)
{
	static const char *const words[] = { "", "sync ", "nosync " };
	const struct mirror_log *log = &mirror->log;
	unsigned int num_args = 1 + (log->bdev != NULL) + (log->sync != MIRROR_SYNC_DEFAULT);
	unsigned int num_features = (unsigned int)mirror->handle_errors + mirror->keep_log +
				    mirror->balances_reads + (mirror->behind.leg ? 3 : 0);

	dmcore_text_printf(text, "%s %u ", log->bdev ? "disk" : "core", num_args);
	if (log->bdev) {
		dmcore_text_device(text, log->bdev);
		dmcore_text_printf(text, " ");
	}
	dmcore_text_printf(text, "%u %s%" PRIu32, 1u << log->region_shift, words[log->sync],
			   mirror->num_legs);
	for (uint32_t i = 0; i < mirror->num_legs; i++) {
		dmcore_text_printf(text, " ");
		dmcore_text_device(text, mirror->legs[i].bdev);
		dmcore_text_printf(text, " %" PRIu64, mirror->legs[i].offset_sectors);
	}
	if (num_features)
		dmcore_text_printf(text, " %u", num_features);
	if (mirror->handle_errors)
		dmcore_text_printf(text, " handle_errors");
	if (mirror->keep_log)
		dmcore_text_printf(text, " keep_log");
	if (mirror->balances_reads)
		dmcore_text_printf(text, " balance_reads");
	if (mirror->behind.leg)
		dmcore_text_printf(text, " write_behind %" PRIu32 " %" PRIu32, mirror->behind.leg,
				   mirror->behind.limit_sectors);
}

void dmcore__mirror_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			   struct dmcore_text *text)
{
	if (kind == DMCORE_TEXT_TABLE)
		write_table(target->private_data, text);
	else
		write_status(target->private_data, text);
}
