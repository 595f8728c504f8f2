/* SPDX-License-Identifier: MIT */
/*
 * flakey: a range of one device that is up for some seconds, then down for some, in turns.
 *
 * Table line:  <start> <length> flakey <device> <sector> <up s> <down s> [<#words> <feature>...]
 *
 * Sector s of the target is sector <sector> + s of the device. While it is down, requests fail, are
 * dropped or are changed, as the features say; up or down is decided when a request comes. Called
 * by the core through the type at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <dmcore/context.h>
#include <dmcore/target.h>

#include "base/random.h"
#include "targets/flakey/corrupt.h"
#include "targets/flakey/features.h"

#define NS_PER_S UINT64_C(1000000000)

struct flakey {
	struct dmcore *core;
	struct dmcore_bdev *bdev;
	uint64_t start;
	uint64_t begun_ns;
	uint32_t up_s;
	uint32_t down_s;
	struct flakey_features features;
	struct corrupt_store *store; /* if writes are changed */
	uint64_t seed;
	_Atomic uint64_t num_choices; /* made at random */
};

/* ---- constructor ---- */

static int parse_intervals(struct dmcore_args *args, struct flakey *flakey)
{
	uint64_t up;
	uint64_t down;
	int ret;

	/* The kernel, too, tells of the other interval by this text. */
	ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid up interval", &up);
	if (ret == 0)
		ret = dmcore_args_u64(args, 0, UINT32_MAX, "Invalid up interval", &down);
	if (ret)
		return ret;
	flakey->up_s = (uint32_t)up;
	flakey->down_s = (uint32_t)down;
	if (flakey->up_s + flakey->down_s == 0)
		return dmcore_args_fail(args, -EINVAL, "Total (up + down) interval is zero");
	if (up + down > UINT32_MAX)
		return dmcore_args_fail(args, -EINVAL, "Interval overflow");
	return 0;
}

static bool changes_writes(const struct flakey_features *features)
{
	return features->random_write_corrupt ||
	       (features->corrupt_byte && features->corrupts_writes);
}

static int flakey_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct flakey *flakey;
	const char *spec;
	int ret;

	if (dmcore_args_left(args) < 4)
		return dmcore_args_fail(args, -EINVAL, "Invalid argument count");
	flakey = dmcore_target_alloc(target, sizeof(*flakey));
	if (!flakey)
		return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	spec = dmcore_args_next(args);
	ret = dmcore_args_u64(args, 0, UINT64_MAX, "Invalid device sector", &flakey->start);
	if (ret == 0)
		ret = parse_intervals(args, flakey);
	if (ret == 0)
		ret = dmcore__flakey_parse_features(args, &flakey->features);
	if (ret)
		return ret;
	if (changes_writes(&flakey->features)) {
		flakey->store = dmcore_target_alloc(target, sizeof(*flakey->store));
		if (!flakey->store)
			return dmcore_args_fail(args, -ENOMEM, "Cannot allocate context");
	}
	ret = dmcore_target_device(target, spec, &flakey->bdev);
	if (ret)
		return dmcore_args_fail(args, ret, "Device lookup failed");
	flakey->core = dmcore_target_core(target);
	flakey->begun_ns = dmcore_clock_ns(flakey->core);
	flakey->seed = dmcore_random(flakey->core);
	target->private_data = flakey;
	return 0;
}

/* ---- the way of a bio ---- */

static bool is_down(const struct flakey *flakey)
{
	uint64_t elapsed_s;

	if (flakey->up_s == 0 || flakey->down_s == 0)
		return flakey->up_s == 0;
	elapsed_s = (dmcore_clock_ns(flakey->core) - flakey->begun_ns) / NS_PER_S;
	return elapsed_s % (flakey->up_s + flakey->down_s) >= flakey->up_s;
}

/* Perhaps adds any byte. Whatever other threads do, the n-th choice is always the same one. */
static void choose_random_byte(struct flakey *flakey, uint32_t probability, uint64_t bytes,
			       struct corruption *corruption)
{
	struct dmcore__random random;

	dmcore__random_start(&random, flakey->seed,
			     atomic_fetch_add_explicit(&flakey->num_choices, 1,
						       memory_order_relaxed));
	if (dmcore__random_below(&random, FLAKEY_CERTAIN) < probability) {
		uint64_t at_byte = dmcore__random_below(&random, bytes);

		dmcore__corrupt_add(corruption, at_byte,
				    (uint8_t)dmcore__random_below(&random, UINT8_MAX + 1));
	}
}

/* Chooses what is to be changed in a bio, perhaps nothing. */
static void choose_bytes(struct flakey *flakey, const struct dmcore_bio *bio,
			 struct corruption *corruption)
{
	const struct flakey_features *features = &flakey->features;
	uint64_t bytes = bio->count * DMCORE_SECTOR_BYTES;
	bool is_write = bio->op == DMCORE_OP_WRITE;
	uint32_t probability = is_write ? features->random_write_corrupt
					: features->random_read_corrupt;

	if (features->corrupt_byte && features->corrupt_byte <= bytes &&
	    features->corrupts_writes == is_write && dmcore__flakey_mask_fits(features, bio))
		dmcore__corrupt_add(corruption, features->corrupt_byte - 1,
				    features->corrupt_value);
	if (probability)
		choose_random_byte(flakey, probability, bytes, corruption);
}

static enum dmcore_map_result map_down(struct flakey *flakey, struct dmcore_bio *bio,
				       struct corruption *corruption)
{
	const struct flakey_features *features = &flakey->features;

	/* All that isn't a read counts as a write, as in the kernel. */
	if (bio->op == DMCORE_OP_READ ? features->error_reads : features->error_writes)
		return DMCORE_MAP_KILL;
	if (bio->op != DMCORE_OP_READ && features->drop_writes) {
		dmcore_bio_complete(bio, 0);
		return DMCORE_MAP_SUBMITTED;
	}
	if (bio->op > DMCORE_OP_WRITE)
		return DMCORE_MAP_REMAPPED;
	choose_bytes(flakey, bio, corruption);
	if (corruption->count == 0)
		return DMCORE_MAP_REMAPPED;
	if (bio->op == DMCORE_OP_READ)
		dmcore__corrupt_remember(corruption, bio);
	else if (!dmcore__corrupt_replace(corruption, bio, flakey->store))
		corruption->count = 0;
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_map_result flakey_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct flakey *flakey = target->private_data;
	struct corruption *corruption = dmcore_bio_target_data(bio);

	memset(corruption, 0, offsetof(struct corruption, own));
	bio->bdev = flakey->bdev;
	if (bio->op != DMCORE_OP_FLUSH)
		bio->sector = flakey->start + (bio->sector - target->begin);
	return is_down(flakey) ? map_down(flakey, bio, corruption) : DMCORE_MAP_REMAPPED;
}

static enum dmcore_end_result flakey_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					    int *status)
{
	struct flakey *flakey = target->private_data;
	struct corruption *corruption = dmcore_bio_target_data(bio);

	if (corruption->replaced)
		dmcore__corrupt_restore(corruption, bio, flakey->store);
	else if (corruption->count && *status == 0)
		dmcore__corrupt_apply(corruption);
	return DMCORE_END_DONE;
}

static unsigned int flakey_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op != DMCORE_OP_WRITE_ZEROES;
}

/* ---- status and limits ---- */

static void flakey_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			  struct dmcore_text *text)
{
	const struct flakey *flakey = target->private_data;

	if (kind != DMCORE_TEXT_TABLE)
		return;
	dmcore_text_device(text, flakey->bdev);
	dmcore_text_printf(text, " %" PRIu64 " %" PRIu32 " %" PRIu32, flakey->start, flakey->up_s,
			   flakey->down_s);
	dmcore__flakey_print_features(&flakey->features, text);
}

static int flakey_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				  void *context)
{
	const struct flakey *flakey = target->private_data;

	return fn(target, flakey->bdev, flakey->start, dmcore_target_len(target), context);
}

/* While it is down, what is read may be anything. */
static void flakey_extent(struct dmcore_target *target, uint64_t sector, struct dmcore_place *place)
{
	const struct flakey *flakey = target->private_data;

	if (is_down(flakey))
		return;
	place->bdev = flakey->bdev;
	place->sector = flakey->start + (sector - target->begin);
}

extern const struct dmcore_target_type dmcore__target_flakey;

const struct dmcore_target_type dmcore__target_flakey = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "flakey",
	.version = { 1, 5, 0 },
	.per_bio_bytes = sizeof(struct corruption),
	.ctr = flakey_ctr,
	.map = flakey_map,
	.end_io = flakey_end_io,
	.num_bios = flakey_num_bios,
	.status = flakey_status,
	.iterate_devices = flakey_iterate_devices,
	.extent = flakey_extent,
};
