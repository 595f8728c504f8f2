/* SPDX-License-Identifier: MIT */
/*
 * The way of a bio through one mapped device: find the target, split where it must be, call map,
 * and leave a frame for the way back. This is the hot path of the library; called by the submit
 * loop of bdev/bio.c through dmcore_bdev::route.
 */
#include <errno.h>

#include "base/checked.h"
#include "bdev/bio.h"
#include "map/map.h"

/* Behind a target's per-bio data, before the frame's header. */
struct target_frame {
	struct dmcore_target *target;
	struct dmcore_bdev *bdev; /* where map sent the bio, for end_io */
};

static inline uint32_t per_bio_bytes(const struct dmcore_target_type *type)
{
	return (type->per_bio_bytes + 15) & ~15u;
}

static inline bool wants_frame(const struct dmcore_target_type *type)
{
	return type->end_io || type->per_bio_bytes;
}

uint32_t dmcore__map_frame_bytes(const struct dmcore_table *table)
{
	uint32_t bytes = sizeof(struct dmcore__frame);
	bool frames = false;

	for (uint32_t i = 0; i < table->num_targets && !frames; i++)
		frames = wants_frame(dmcore__target_at(table, i)->type);
	if (frames)
		bytes += (uint32_t)sizeof(struct target_frame) +
			 ((table->per_bio_bytes_max + 15) & ~15u);
	if (!table->simple)
		bytes += DMCORE__FAN_FRAME_BYTES + (uint32_t)sizeof(struct dmcore__frame);
	return bytes;
}

static enum dmcore__unwind target_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	struct target_frame *entry =
		(struct target_frame *)(void *)((char *)frame - sizeof(struct target_frame));
	struct dmcore_target *target = entry->target;
	int status = bio->status;

	if (target->type->end_io) {
		/* The frame stays below the bio if the target keeps it; its end has run. */
		frame->end = NULL;
		bio->bdev = entry->bdev;
		if (target->type->end_io(target, bio, &status) == DMCORE_END_INCOMPLETE)
			return DMCORE__UNWIND_STOP;
		bio->status = status;
	}
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

void *dmcore_bio_target_data(struct dmcore_bio *bio)
{
	struct dmcore__frame *frame = dmcore__frame_top(bio);

	DMCORE__ASSERT(bio->internal.top_bytes > sizeof(struct dmcore__frame));
	return dmcore__frame_data(frame);
}

static DMCORE__NOINLINE enum dmcore__route kill(struct dmcore_bio *bio)
{
	dmcore_bio_complete(bio, -EIO);
	return DMCORE__ROUTE_TAKEN;
}

/* Does what map has left to the core. */
static inline enum dmcore__route follow(struct dmcore_bio *bio, enum dmcore_map_result result)
{
	if (dmcore__likely(result == DMCORE_MAP_REMAPPED))
		return DMCORE__ROUTE_NEXT;
	if (dmcore__unlikely(result == DMCORE_MAP_KILL))
		return kill(bio);
	return DMCORE__ROUTE_TAKEN;
}

/* For a target that wants to see the bio again, or keeps data with it. */
static DMCORE__NOINLINE enum dmcore__route map_with_frame(struct dmcore_bio *bio,
							  struct dmcore_target *target,
							  uint32_t slot)
{
	uint32_t data_bytes = per_bio_bytes(target->type) + (uint32_t)sizeof(struct target_frame);
	struct dmcore__frame *frame = dmcore__frame_push(bio, target_end, slot, data_bytes);
	struct target_frame *entry = (struct target_frame *)(void *)frame - 1;
	enum dmcore_map_result result;

	entry->target = target;
	entry->bdev = bio->bdev;
	result = target->type->map(target, bio);
	/* A bio that was kept may be in other hands by now, and so may its frames. */
	if (dmcore__likely(result == DMCORE_MAP_REMAPPED))
		entry->bdev = bio->bdev;
	return follow(bio, result);
}

/* Pushes the target's frame and maps. `slot` is left when the bio comes back. */
static inline enum dmcore__route map_bio(struct dmcore_bio *bio, struct dmcore_target *target,
					 uint32_t slot)
{
	if (dmcore__unlikely(target->flags & DMCORE__TARGET_FRAMES))
		return map_with_frame(bio, target, slot);
	dmcore__frame_push(bio, NULL, slot, 0);
	return follow(bio, target->type->map(target, bio));
}

static enum dmcore__route dispatch(struct dmcore_bio *piece, void *token)
{
	return map_bio(piece, token, DMCORE__NO_SLOT);
}

/* The index of the target that holds `sector`, which lies within the table. */
static inline uint32_t find_target(const struct dmcore_table *table, uint64_t sector, uint32_t hint)
{
	const uint64_t *ends = table->ends;
	uint32_t n = table->num_targets;
	uint32_t base = 0;

	if (n == 1)
		return 0;
	if (hint < n && sector < ends[hint] && (hint == 0 || sector >= ends[hint - 1]))
		return hint;
	hint++;
	if (hint < n && sector < ends[hint] && sector >= ends[hint - 1])
		return hint;
	while (n > 1) {
		uint32_t half = n / 2;

		base += ends[base + half - 1] <= sector ? half : 0;
		n -= half;
	}
	return base;
}

/* How many sectors from `sector` on the target takes in one READ or WRITE. */
static inline uint64_t max_len(const struct dmcore_target *target, uint64_t end, uint64_t sector)
{
	uint64_t len = end - sector;
	uint32_t max = target->max_io_sectors;

	if (max) {
		uint64_t offset = sector - target->begin;
		uint64_t into = (max & (max - 1)) == 0 ? offset & (max - 1) : offset % max;

		len = dmcore__min_u64(len, max - into);
	}
	return len;
}

static int next_range(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_table *table = fan->context;
	uint32_t i = find_target(table, fan->sector, fan->index);
	struct dmcore_target *target = dmcore__target_at(table, i);

	fan->index = i;
	piece->count =
		dmcore__min_u64(fan->count, max_len(target, table->ends[i], fan->sector));
	dmcore__fan_advance(fan, piece->count);
	if (fan->count == 0)
		fan->next = NULL;
	*token = target;
	return 0;
}

static unsigned int num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	return target->type->num_bios ? target->type->num_bios(target, op) : 0;
}

/* DISCARD and WRITE_ZEROES: each target's range, in as many copies as it wants. */
static int next_copy(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_table *table = fan->context;
	uint32_t i = find_target(table, fan->sector, 0);
	struct dmcore_target *target = dmcore__target_at(table, i);
	unsigned int copies = num_bios(target, fan->op);

	piece->count = dmcore__min_u64(fan->count, table->ends[i] - fan->sector);
	piece->bio_nr = fan->index++;
	if (fan->index >= copies) {
		fan->index = 0;
		dmcore__fan_advance(fan, piece->count);
		if (fan->count == 0)
			fan->next = NULL;
	}
	*token = target;
	return copies ? 0 : -EOPNOTSUPP;
}

static int next_flush(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_table *table = fan->context;
	const struct dmcore__flush_step *step = &table->flush_steps[fan->index++];

	if (fan->index == table->num_flush_steps)
		fan->next = NULL;
	if (step->bdev) {
		piece->bdev = step->bdev;
		return 0;
	}
	piece->bio_nr = step->bio_nr;
	*token = step->target;
	return 0;
}

static enum dmcore__route route_flush(struct dmcore_table *table, struct dmcore_bio *bio,
				      uint32_t slot)
{
	struct dmcore__flush_step *step = table->flush_steps;

	if (table->num_flush_steps == 1 && !step->bdev) {
		bio->bio_nr = step->bio_nr;
		return map_bio(bio, step->target, slot);
	}
	dmcore__frame_push(bio, NULL, slot, 0);
	if (table->num_flush_steps == 0) {
		dmcore_bio_complete(bio, 0);
		return DMCORE__ROUTE_TAKEN;
	}
	if (table->num_flush_steps == 1) {
		bio->bdev = step->bdev;
		return DMCORE__ROUTE_NEXT;
	}
	dmcore__fan_start(bio, next_flush, dispatch, table);
	return DMCORE__ROUTE_TAKEN;
}

static enum dmcore__route route_copies(struct dmcore_table *table, struct dmcore_bio *bio,
				       uint32_t slot)
{
	struct dmcore_target *target = dmcore__target_at(table, 0);

	if (table->num_targets == 1 && num_bios(target, bio->op) == 1) {
		bio->bio_nr = 0;
		return map_bio(bio, target, slot);
	}
	dmcore__frame_push(bio, NULL, slot, 0);
	dmcore__fan_start(bio, next_copy, dispatch, table);
	return DMCORE__ROUTE_TAKEN;
}

static enum dmcore__route refuse(struct dmcore_bio *bio, uint32_t slot, int status)
{
	dmcore__slot_leave(bio->queue, slot);
	dmcore_bio_complete(bio, status);
	return DMCORE__ROUTE_TAKEN;
}

/* Whether a request with a range is nothing that the device refuses. */
static inline bool suits(const struct dmcore_bdev *bdev, const struct dmcore_table *table,
			 const struct dmcore_bio *bio)
{
	if (dmcore__unlikely(bio->count > table->size_sectors ||
			     bio->sector > table->size_sectors - bio->count))
		return false;
	if (dmcore__unlikely((bio->sector | bio->count) & bdev->block_mask_sectors))
		return false;
	return !(bdev->read_only & (bio->op != DMCORE_OP_READ));
}

static int status_of_unsuitable(const struct dmcore_table *table, const struct dmcore_bdev *bdev,
				const struct dmcore_bio *bio)
{
	if (bio->count > table->size_sectors ||
	    bio->sector > table->size_sectors - bio->count)
		return -EIO;
	if ((bio->sector | bio->count) & bdev->block_mask_sectors)
		return -EINVAL;
	return -EROFS;
}

/* All but a READ or WRITE that the device takes. The slot has been entered. */
static DMCORE__NOINLINE enum dmcore__route
route_other(struct dmcore_bdev *bdev, struct dmcore_table *table, struct dmcore_bio *bio)
{
	if (!table)
		return refuse(bio, bdev->slot, -EIO);
	if (bio->op == DMCORE_OP_FLUSH)
		return route_flush(table, bio, bdev->slot);
	if (!suits(bdev, table, bio))
		return refuse(bio, bdev->slot, status_of_unsuitable(table, bdev, bio));
	return route_copies(table, bio, bdev->slot);
}

/* Among several targets, or with one that splits. */
static DMCORE__NOINLINE enum dmcore__route route_multi(struct dmcore_table *table,
						       struct dmcore_bio *bio, uint32_t slot)
{
	struct dmcore__slot *entry = &bio->queue->slots[slot];
	uint32_t i = find_target(table, bio->sector, entry->hint);
	struct dmcore_target *target = dmcore__target_at(table, i);

	entry->hint = i;
	if (dmcore__likely(bio->count <= max_len(target, table->ends[i], bio->sector)))
		return map_bio(bio, target, slot);
	dmcore__frame_push(bio, NULL, slot, 0);
	dmcore__fan_start(bio, next_range, dispatch, table);
	return DMCORE__ROUTE_TAKEN;
}

enum dmcore__route dmcore__map_route(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	struct dmcore_device *device = bdev->private_data;
	uint32_t slot = bdev->slot;
	struct dmcore_table *table;

	dmcore__slot_enter(bio->queue, slot);
	table = atomic_load_explicit(&device->live, memory_order_acquire);
	if (dmcore__unlikely(!table || bio->op > DMCORE_OP_WRITE || !suits(bdev, table, bio)))
		return route_other(bdev, table, bio);
	if (dmcore__likely(table->whole != NULL))
		return map_bio(bio, table->whole, slot);
	return route_multi(table, bio, slot);
}
