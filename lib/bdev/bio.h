/* SPDX-License-Identifier: MIT */
/*
 * The life of a bio inside the library: states, completion frames and the fan-out of one bio into
 * pieces. bio.c runs the submit and completion loops, fan.c the pieces, leaf.c the last step,
 * copy.c what the kernel copies; map/submit.c and map/copies.c push frames.
 *
 * A frame is what a layer leaves on the bio on the way down, to be dealt with on the way up: its
 * data first, then a header, so that the header of the youngest frame is just below the top.
 */
#ifndef DMCORE_LIB_BDEV_BIO_H
#define DMCORE_LIB_BDEV_BIO_H

#include <stdbool.h>
#include <stdint.h>

#include <dmcore/bio.h>

#include "base/assert.h"
#include "bdev/bdev.h"
#include "queue/queue.h"

enum dmcore__bio_state {
	DMCORE__BIO_IDLE,     /* the submitter's */
	DMCORE__BIO_INFLIGHT, /* the library's, a target's or a driver's */
	DMCORE__BIO_READY,    /* completed: on the ready list, in an inbox, or to be reaped */
	DMCORE__BIO_STATES,
};

enum dmcore__bio_origin {
	DMCORE__BIO_FOREIGN, /* the caller's memory */
	DMCORE__BIO_POOLED,  /* dmcore_bio_get() */
	DMCORE__BIO_PIECE,   /* a part of another bio */
	DMCORE__BIO_FREE,    /* in its pool */
};

/* What the completion loop does next with a bio. */
enum dmcore__unwind {
	DMCORE__UNWIND_ON,     /* the frame has been popped: go on with the one below */
	DMCORE__UNWIND_STOP,   /* the bio is in other hands */
	DMCORE__UNWIND_SUBMIT, /* send the bio (again) to bio->bdev */
};

struct dmcore__frame;
typedef enum dmcore__unwind (*dmcore__frame_fn)(struct dmcore_bio *bio,
						struct dmcore__frame *frame);

/* The header of a frame. */
struct dmcore__frame {
	dmcore__frame_fn end; /* NULL: only leave the slot and pop */
	uint32_t slot;        /* device whose in-flight count ends here; DMCORE__NO_SLOT: none's */
	uint16_t bytes;       /* of the frame: data and header */
	uint16_t errors_only; /* 1: a bio without an error needs no `end` */
};

_Static_assert(sizeof(struct dmcore__frame) == 16, "64 layers are promised to fit");

/* Frames kept out of tables' budgets: a preflush at any one time, leaf entry and emulation. */
#define DMCORE__FRAME_RESERVE_BYTES 384

/* The one way to change a bio's state; `state` is a constant. */
static inline void dmcore__bio_set_state(struct dmcore_bio *bio, enum dmcore__bio_state state)
{
	/* From which states one may come to each: a bit for each. */
	static const uint32_t legal_from[DMCORE__BIO_STATES] = {
		[DMCORE__BIO_IDLE] = 1u << DMCORE__BIO_INFLIGHT | 1u << DMCORE__BIO_READY,
		[DMCORE__BIO_INFLIGHT] = 1u << DMCORE__BIO_IDLE | 1u << DMCORE__BIO_READY,
		[DMCORE__BIO_READY] = 1u << DMCORE__BIO_INFLIGHT,
	};

	DMCORE__ASSERT(legal_from[state] >> bio->internal.state & 1);
	bio->internal.state = (uint8_t)state;
}

static inline struct dmcore__frame *dmcore__frame_top(struct dmcore_bio *bio)
{
	return (struct dmcore__frame *)(void *)(bio->frames + bio->internal.top_bytes -
						sizeof(struct dmcore__frame));
}

/* Pushes a frame with `data_bytes` (a multiple of 16) before its header; returns the header. */
static inline struct dmcore__frame *dmcore__frame_push(struct dmcore_bio *bio, dmcore__frame_fn end,
						       uint32_t slot, uint32_t data_bytes)
{
	uint32_t bytes = data_bytes + (uint32_t)sizeof(struct dmcore__frame);
	uint32_t top_bytes = bio->internal.top_bytes + bytes;
	struct dmcore__frame *frame =
		(struct dmcore__frame *)(void *)(bio->frames + top_bytes) - 1;

	DMCORE__ASSERT(top_bytes <= DMCORE_BIO_FRAME_BYTES);
	bio->internal.top_bytes = (uint16_t)top_bytes;
	frame->end = end;
	frame->slot = slot;
	frame->bytes = (uint16_t)bytes;
	frame->errors_only = 0;
	return frame;
}

/* The data that belong to a frame, given the size they were pushed with. */
static inline void *dmcore__frame_data(struct dmcore__frame *frame)
{
	return (char *)frame - (frame->bytes - sizeof(struct dmcore__frame));
}

/* Pops the youngest frame and leaves its slot. */
static inline void dmcore__frame_pop(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	DMCORE__DEBUG_ASSERT(frame == dmcore__frame_top(bio));
	dmcore__slot_leave(bio->queue, frame->slot);
	bio->internal.top_bytes = (uint16_t)(bio->internal.top_bytes - frame->bytes);
}

/*
 * Sends a bio that the library owns to bio->bdev: now, or when the submission that is under way
 * has come back to the loop.
 */
void dmcore__bio_send(struct dmcore_bio *bio);

/* The last step down: checks, emulation, the driver. */
void dmcore__leaf_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio);

/*
 * Fan-out. A bio is carried out as a sequence of pieces that run at once. The bio itself carries
 * one piece at a time, bios of the queue's split pool the others; with the pool empty the rest
 * waits for what is under way. A bio thus always makes progress by itself.
 */
struct dmcore__fan;

/*
 * Shapes the next piece: `piece` comes as a copy of the rest, and leaves with its own bdev, op,
 * range and bio_nr; what it covers is taken off the rest, and fan->next is NULL behind the last.
 * `*token`, if set, goes to fan->dispatch. Negative: nothing is to be sent, and this is its status.
 */
typedef int (*dmcore__fan_next_fn)(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token);

/* Does a layer's part of the work on a piece; as a route function. */
typedef enum dmcore__route (*dmcore__fan_dispatch_fn)(struct dmcore_bio *piece, void *token);

struct dmcore__fan {
	dmcore__fan_next_fn next; /* NULL: every piece has been sent */
	dmcore__fan_dispatch_fn dispatch;
	const void *context;      /* next's */
	struct dmcore_bdev *bdev; /* from here on: what is left to be carried out */
	uint64_t sector;
	uint64_t count;
	const struct dmio_bvec *vecs;
	uint32_t num_vecs;
	uint32_t vec_offset_bytes;
	uint32_t index;           /* next's: which is the next piece */
	uint32_t outstanding;     /* pieces under way */
	int32_t status;           /* first error */
	uint16_t flags;           /* of the whole, as is op */
	uint8_t op;
	bool own;                 /* the bio itself carries a piece */
};

_Static_assert(sizeof(struct dmcore__fan) % 16 == 0, "frames are multiples of 16 bytes");

/* Bytes that a fan takes of a bio's frames. */
#define DMCORE__FAN_FRAME_BYTES                                                                    \
	((uint32_t)(sizeof(struct dmcore__fan) + sizeof(struct dmcore__frame)))

/* Starts carrying out `bio` in pieces, of which `index` is the first. It is in other hands
 * afterwards. */
void dmcore__fan_start(struct dmcore_bio *bio, dmcore__fan_next_fn next,
		       dmcore__fan_dispatch_fn dispatch, const void *context,
		       uint32_t index);

/* Takes `sectors` off the rest of a fan. */
void dmcore__fan_advance(struct dmcore__fan *fan, uint64_t sectors);

/* A piece has ended: called by the completion loop. Returns the parent if it is to be unwound. */
struct dmcore_bio *dmcore__fan_piece_done(struct dmcore_bio *piece);

/* A request as it was before it was turned into something else, or sent on. */
struct dmcore__saved_request {
	struct dmcore_bdev *bdev;
	uint64_t sector;
	uint64_t count;
	const struct dmio_bvec *vecs;
	uint32_t num_vecs;
	uint32_t vec_offset_bytes;
	uint16_t flags;
	uint8_t op;
	uint8_t stage;   /* the owner's */
	uint32_t moment; /* likewise */
};

_Static_assert(sizeof(struct dmcore__saved_request) % 16 == 0, "frames are multiples of 16 bytes");

#define DMCORE__SAVED_BYTES ((uint32_t)sizeof(struct dmcore__saved_request))

static inline void dmcore__request_save(struct dmcore__saved_request *saved,
					const struct dmcore_bio *bio)
{
	saved->bdev = bio->bdev;
	saved->sector = bio->sector;
	saved->count = bio->count;
	saved->vecs = bio->vecs;
	saved->num_vecs = bio->num_vecs;
	saved->vec_offset_bytes = bio->vec_offset_bytes;
	saved->flags = bio->flags;
	saved->op = bio->op;
	saved->stage = 0;
}

static inline void dmcore__request_restore(const struct dmcore__saved_request *saved,
					   struct dmcore_bio *bio)
{
	bio->bdev = saved->bdev;
	bio->sector = saved->sector;
	bio->count = saved->count;
	bio->vecs = saved->vecs;
	bio->num_vecs = saved->num_vecs;
	bio->vec_offset_bytes = saved->vec_offset_bytes;
	bio->flags = saved->flags;
	bio->op = saved->op;
}

/*
 * Turns a write with PREFLUSH into a flush that the write, without it, follows. The slot of its
 * device has been entered for the flush; it is entered once more for the write. leaf.c
 */
void dmcore__bio_preflush(struct dmcore_bio *bio);
/* A bio that waits to be sent to its device again: if it is a flush that a write follows there, it
 * becomes that write, as it was. leaf.c */
void dmcore__bio_undo_preflush(struct dmcore_bio *bio);

/*
 * Has the kernel copy: fills the range of a bio with as many sectors of `from`, from `from_sector`
 * on. The bio is as for dmcore_bio_submit(), but op, flags and memory, which are set here. 0: it
 * ends as any other, and any error means that the data are to be copied otherwise; part of the
 * range may have been written. -EOPNOTSUPP: nothing has happened; the two aren't leaves of one
 * driver that can, the destination is read-only, or a range isn't one of its device's. copy.c
 */
int dmcore__bio_submit_copy(struct dmcore_bio *bio, struct dmcore_bdev *from, uint64_t from_sector);

/* Has a bio wait for its device, bio->bdev, to be resumed: the owner's replay sends it again. */
void dmcore__bio_defer(struct dmcore_bio *bio);

#endif
