/* SPDX-License-Identifier: MIT */
/*
 * striped: chunk after chunk, one device after the other (RAID 0).
 *
 * Table line:  <start> <length> striped <stripes> <chunk> {<device> <sector>}
 *
 * Chunk c of the target (of <chunk> sectors) lies on stripe c % <stripes>, as its chunk
 * c / <stripes>. Neither number need be a power of two. Called by the core through the type at the
 * end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

#include <dmcore/target.h>

#include "base/checked.h"

/* Errors of a stripe before this one each raise an event, as in the kernel. */
#define ERRORS_WITHOUT_EVENT 15

/* What a table may hold: offsets within a target are smaller than 2^54. */
#define OFFSET_BITS 54

_Static_assert(DMCORE_DEVICE_SECTORS_MAX >> OFFSET_BITS == 0, "division relies on it");

/* Division by a number that is known before: a shift, or a multiplication and a shift. */
struct divisor {
	uint64_t multiplier; /* 0: a shift alone does */
	uint32_t value;
	uint32_t shift;
};

struct stripe {
	struct dmcore_bdev *bdev;
	uint64_t start;
};

struct striped {
	struct divisor chunk; /* sectors */
	struct divisor stripes;
	uint64_t chunk_mask;      /* where both are powers of two: chunk's value - 1, or 0 */
	uint64_t stripe_mask;     /* and that of stripes */
	_Atomic uint32_t *errors; /* of each stripe */
	struct stripe stripe[];
};

/* value: from 1. */
static struct divisor make_divisor(uint32_t value)
{
	struct divisor divisor = { .value = value };

	while (UINT64_C(1) << divisor.shift < value)
		divisor.shift++;
	if (dmcore__is_power_of_two(value))
		return divisor;
	/*
	 * With m = floor(2^(54+s) / value) + 1 and 2^s >= value, m * value exceeds 2^(54+s) by no
	 * more than 2^s: too little to reach the next quotient for any offset of 54 bits.
	 */
	divisor.shift += OFFSET_BITS;
	divisor.multiplier = (uint64_t)(((unsigned __int128)1 << divisor.shift) / value) + 1;
	return divisor;
}

/* Divides *offset, and returns the remainder. */
static inline uint64_t divide(uint64_t *offset, const struct divisor *by)
{
	uint64_t whole = *offset;

	if (by->multiplier == 0) {
		*offset = whole >> by->shift;
		return whole & (by->value - 1);
	}
	*offset = (uint64_t)((unsigned __int128)whole * by->multiplier >> by->shift);
	return whole - *offset * by->value;
}

/* ---- constructor ---- */

static int parse_stripes(struct dmcore_target *target, struct dmcore_args *args,
			 struct striped *striped)
{
	static const char text[] = "Couldn't parse stripe destination";
	int ret;

	for (uint32_t i = 0; i < striped->stripes.value; i++) {
		struct stripe *stripe = &striped->stripe[i];
		const char *spec = dmcore_args_next(args);

		ret = dmcore_args_u64(args, 0, UINT64_MAX, text, &stripe->start);
		if (ret)
			return ret;
		ret = dmcore_target_device(target, spec, &stripe->bdev);
		if (ret)
			return dmcore_args_fail(args, ret, text);
	}
	return 0;
}

static int striped_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	uint64_t length = dmcore_target_len(target);
	struct striped *striped;
	uint64_t num_stripes;
	uint64_t chunk_sectors;
	int ret;

	if (dmcore_args_left(args) < 2)
		return dmcore_args_fail(args, -EINVAL, "Not enough arguments");
	ret = dmcore_args_u64(args, 1, UINT32_MAX, "Invalid stripe count", &num_stripes);
	if (ret)
		return ret;
	ret = dmcore_args_u64(args, 1, UINT32_MAX, "Invalid chunk_size", &chunk_sectors);
	if (ret)
		return ret;
	if (length % num_stripes)
		return dmcore_args_fail(args, -EINVAL,
					"Target length not divisible by number of stripes");
	if (length / num_stripes % chunk_sectors)
		return dmcore_args_fail(args, -EINVAL, "Target length not divisible by chunk size");
	if (dmcore_args_left(args) != 2 * num_stripes)
		return dmcore_args_fail(args, -EINVAL, "Not enough destinations specified");
	/* As many words as that are in memory, so the products are small. */
	striped = dmcore_target_alloc(target,
				      sizeof(*striped) + num_stripes * sizeof(striped->stripe[0]));
	if (!striped)
		return dmcore_args_fail(args, -ENOMEM,
					"Memory allocation for striped context failed");
	striped->errors = dmcore_target_alloc(target, num_stripes * sizeof(*striped->errors));
	if (!striped->errors)
		return dmcore_args_fail(args, -ENOMEM,
					"Memory allocation for striped context failed");
	striped->stripes = make_divisor((uint32_t)num_stripes);
	striped->chunk = make_divisor((uint32_t)chunk_sectors);
	target->private_data = striped;
	if (!striped->chunk.multiplier && !striped->stripes.multiplier) {
		striped->chunk_mask = striped->chunk.value - 1;
		striped->stripe_mask = striped->stripes.value - 1;
	}
	target->max_io_sectors = striped->chunk.value;
	target->flags = DMCORE_TARGET_FLUSH_DEVICES;
	return parse_stripes(target, args, striped);
}

/* ---- the way of a bio ---- */

/* Where offset `offset` of the target lies: the stripe, and in *offset the sector within it. */
static inline uint32_t locate(const struct striped *striped, uint64_t *offset)
{
	uint64_t chunk = *offset;
	uint64_t into = divide(&chunk, &striped->chunk);
	uint64_t stripe = divide(&chunk, &striped->stripes);

	*offset = chunk * striped->chunk.value + into;
	return (uint32_t)stripe;
}

/* The first sector of stripe `stripe` that belongs to offset `offset` of the target or later. */
static uint64_t first_sector(const struct striped *striped, uint64_t offset, uint32_t stripe)
{
	uint64_t sector = offset;
	uint32_t holder = locate(striped, &sector);

	if (stripe == holder)
		return sector;
	sector -= sector % striped->chunk.value;
	return stripe < holder ? sector + striped->chunk.value : sector;
}

static inline void aim(struct dmcore_bio *bio, const struct striped *striped, uint32_t stripe,
		       uint64_t sector)
{
	bio->bdev = striped->stripe[stripe].bdev;
	bio->sector = striped->stripe[stripe].start + sector;
}

/*
 * DISCARD and WRITE_ZEROES: copy k is for stripe k, which may have no part in the range. Apart, so
 * that reads and writes save no registers for it.
 */
static enum dmcore_map_result
map_copy(const struct striped *striped, struct dmcore_bio *bio, uint64_t offset)
{
	uint32_t stripe = bio->bio_nr;
	uint64_t begin = first_sector(striped, offset, stripe);
	uint64_t end = first_sector(striped, offset + bio->count, stripe);

	aim(bio, striped, stripe, begin);
	if (begin >= end) {
		dmcore_bio_complete(bio, 0);
		return DMCORE_MAP_SUBMITTED;
	}
	bio->count = end - begin;
	return DMCORE_MAP_REMAPPED;
}

/* All but reads and writes by powers of two, and apart from these for the same reason. */
static __attribute__((noinline)) enum dmcore_map_result
map_other(const struct striped *striped, struct dmcore_bio *bio, uint64_t sector)
{
	uint32_t stripe;

	if (bio->op > DMCORE_OP_WRITE)
		return map_copy(striped, bio, sector);
	stripe = locate(striped, &sector);
	aim(bio, striped, stripe, sector);
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_map_result striped_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct striped *striped = target->private_data;
	uint64_t sector = bio->sector - target->begin;
	uint64_t number;

	if (bio->op > DMCORE_OP_WRITE || !striped->chunk_mask)
		return map_other(striped, bio, sector);
	number = sector >> striped->chunk.shift;
	aim(bio, striped, (uint32_t)(number & striped->stripe_mask),
	    (number >> striped->stripes.shift << striped->chunk.shift) |
		    (sector & striped->chunk_mask));
	return DMCORE_MAP_REMAPPED;
}

/* An error counts against each stripe on the device that failed. Who has had so many isn't news. */
static enum dmcore_end_result striped_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					     int *status)
{
	const struct striped *striped = target->private_data;
	bool news = false;

	if (*status == 0 || *status == -EOPNOTSUPP || (bio->flags & DMCORE_BIO_RAHEAD))
		return DMCORE_END_DONE;
	for (uint32_t i = 0; i < striped->stripes.value; i++) {
		if (striped->stripe[i].bdev == bio->bdev &&
		    atomic_fetch_add(&striped->errors[i], 1) + 1 < ERRORS_WITHOUT_EVENT)
			news = true;
	}
	if (news)
		dmcore_target_event(target);
	return DMCORE_END_DONE;
}

static unsigned int striped_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	const struct striped *striped = target->private_data;

	(void)op;
	return striped->stripes.value;
}

/* ---- status and limits ---- */

static void write_table(const struct striped *striped, struct dmcore_text *text)
{
	dmcore_text_printf(text, "%" PRIu32 " %" PRIu32, striped->stripes.value,
			   striped->chunk.value);
	for (uint32_t i = 0; i < striped->stripes.value; i++) {
		dmcore_text_printf(text, " ");
		dmcore_text_device(text, striped->stripe[i].bdev);
		dmcore_text_printf(text, " %" PRIu64, striped->stripe[i].start);
	}
}

/* The devices, and a letter for each: Alive, or Dead after an error. */
static void write_health(const struct striped *striped, struct dmcore_text *text)
{
	dmcore_text_printf(text, "%" PRIu32 " ", striped->stripes.value);
	for (uint32_t i = 0; i < striped->stripes.value; i++) {
		dmcore_text_device(text, striped->stripe[i].bdev);
		dmcore_text_printf(text, " ");
	}
	dmcore_text_printf(text, "1 ");
	for (uint32_t i = 0; i < striped->stripes.value; i++) {
		bool failed = atomic_load_explicit(&striped->errors[i], memory_order_relaxed) > 0;

		dmcore_text_printf(text, "%c", failed ? 'D' : 'A');
	}
}

static void striped_status(struct dmcore_target *target, enum dmcore_text_kind kind,
			   struct dmcore_text *text)
{
	const struct striped *striped = target->private_data;

	if (kind == DMCORE_TEXT_TABLE)
		write_table(striped, text);
	else
		write_health(striped, text);
}

static int striped_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				   void *context)
{
	const struct striped *striped = target->private_data;
	uint64_t length = dmcore_target_len(target) / striped->stripes.value;
	int ret = 0;

	for (uint32_t i = 0; i < striped->stripes.value && ret == 0; i++)
		ret = fn(target, striped->stripe[i].bdev, striped->stripe[i].start, length,
			 context);
	return ret;
}

static void striped_extent(struct dmcore_target *target, uint64_t sector,
			   struct dmcore_place *place)
{
	const struct striped *striped = target->private_data;
	uint64_t offset = sector - target->begin;
	uint64_t chunk = striped->chunk.value;
	uint32_t stripe;

	place->count = dmcore__min_u64(place->count, chunk - offset % chunk);
	stripe = locate(striped, &offset);
	place->bdev = striped->stripe[stripe].bdev;
	place->sector = striped->stripe[stripe].start + offset;
}

static void striped_io_hints(struct dmcore_target *target, struct dmcore_limits *limits)
{
	const struct striped *striped = target->private_data;
	uint64_t chunk_bytes = dmcore__sectors_to_bytes(striped->chunk.value);
	/* There are no more stripes than words in a line. */
	uint64_t width_bytes = chunk_bytes * striped->stripes.value;

	limits->chunk_sectors = striped->chunk.value;
	/* A hint that has no room is none. */
	if (width_bytes > UINT32_MAX)
		return;
	limits->io_min_bytes = (uint32_t)chunk_bytes;
	limits->io_opt_bytes = (uint32_t)width_bytes;
}

extern const struct dmcore_target_type dmcore__target_striped;

const struct dmcore_target_type dmcore__target_striped = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "striped",
	.version = { 1, 6, 0 },
	.features = DMCORE_TARGET_TYPE_END_ERRORS,
	.ctr = striped_ctr,
	.map = striped_map,
	.end_io = striped_end_io,
	.num_bios = striped_num_bios,
	.status = striped_status,
	.iterate_devices = striped_iterate_devices,
	.io_hints = striped_io_hints,
	.extent = striped_extent,
};
