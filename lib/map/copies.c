/* SPDX-License-Identifier: MIT */
/*
 * A bio that its target sends to several devices at once. It stays where it is, with the target's
 * frame; its copies are pieces of a fan on top of that, each with a frame of its own for its end.
 * Called by targets that keep the same in several places.
 */
#include <dmcore/target.h>

#include "bdev/bio.h"
#include "map/map.h"

/* Below a copy's header. */
struct copy_frame {
	struct dmcore_target *target;
	void *data; /* per-bio data of the bio */
	uint64_t number;
	uint64_t unused;
};

_Static_assert(sizeof(struct copy_frame) % 16 == 0, "frames are multiples of 16 bytes");

uint32_t dmcore__copies_frame_bytes(void)
{
	return DMCORE__FAN_FRAME_BYTES +
	       (uint32_t)(sizeof(struct copy_frame) + sizeof(struct dmcore__frame));
}

static enum dmcore__unwind copy_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	const struct copy_frame *copy = dmcore__frame_data(frame);
	const struct dmcore_target_type *type = copy->target->type;

	if (type->end_copy)
		type->end_copy(copy->target, copy->data, (uint32_t)copy->number, bio->status);
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

/* fan->index: bits of those that are left. */
static int next_copy(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	piece->bio_nr = (uint32_t)__builtin_ctz(fan->index);
	fan->index &= fan->index - 1;
	if (fan->index == 0)
		fan->next = NULL;
	*token = (void *)(uintptr_t)fan->context;
	return 0;
}

static enum dmcore__route dispatch_copy(struct dmcore_bio *piece, void *token)
{
	struct dmcore__frame *owner = token;
	struct dmcore_target *target = dmcore__target_frame(owner)->target;
	struct dmcore__frame *frame = dmcore__frame_push(piece, copy_end, DMCORE__NO_SLOT,
							 (uint32_t)sizeof(struct copy_frame));
	struct copy_frame *copy = dmcore__frame_data(frame);

	copy->target = target;
	copy->data = dmcore__frame_data(owner);
	copy->number = piece->bio_nr;
	target->type->map_copy(target, copy->data, piece);
	return DMCORE__ROUTE_NEXT;
}

void dmcore_bio_send_copies(struct dmcore_bio *bio, uint32_t set)
{
	struct dmcore__frame *frame = dmcore__frame_top(bio);

	DMCORE__ASSERT(set != 0 && dmcore__target_frame(frame)->target->type->map_copy);
	dmcore__target_frame_arm(frame);
	dmcore__fan_start(bio, next_copy, dispatch_copy, frame, set);
}
