/* SPDX-License-Identifier: MIT */
/*
 * Carrying out one bio in pieces: splits at target borders, copies of a discard, the steps of a
 * flush, zeroes written in place of WRITE_ZEROES. Used by leaf.c, map/submit.c and map/copies.c.
 */
#include <dmcore/target.h>

#include "bdev/bio.h"

static void save_rest(struct dmcore__fan *fan, const struct dmcore_bio *bio)
{
	fan->bdev = bio->bdev;
	fan->sector = bio->sector;
	fan->count = bio->count;
	fan->vecs = bio->vecs;
	fan->num_vecs = bio->num_vecs;
	fan->vec_offset_bytes = bio->vec_offset_bytes;
	fan->flags = bio->flags;
	fan->op = bio->op;
}

static void load_rest(const struct dmcore__fan *fan, struct dmcore_bio *piece)
{
	piece->bdev = fan->bdev;
	piece->sector = fan->sector;
	piece->count = fan->count;
	piece->vecs = fan->vecs;
	piece->num_vecs = fan->num_vecs;
	piece->vec_offset_bytes = fan->vec_offset_bytes;
	piece->flags = fan->flags;
	piece->op = fan->op;
	piece->bio_nr = 0;
	piece->status = 0;
}

void dmcore__fan_advance(struct dmcore__fan *fan, uint64_t sectors)
{
	uint64_t bytes = (sectors << DMCORE_SECTOR_SHIFT) + fan->vec_offset_bytes;

	fan->sector += sectors;
	fan->count -= sectors;
	if (fan->op > DMCORE_OP_WRITE)
		return;
	while (fan->num_vecs > 0 && bytes >= fan->vecs->len_bytes) {
		bytes -= fan->vecs->len_bytes;
		fan->vecs++;
		fan->num_vecs--;
	}
	fan->vec_offset_bytes = (uint32_t)bytes;
}

static void note_status(struct dmcore__fan *fan, int status)
{
	/* One that is pushed back may well work the next time; not so with an error beside it. */
	if (status && (!fan->status || fan->status == DMCORE_STATUS_REQUEUE))
		fan->status = status;
}

/* A bio of the split pool, as a piece of `bio` whose fan lies under `frame_bytes`. */
static struct dmcore_bio *take_piece(struct dmcore_bio *bio, uint16_t frame_bytes)
{
	struct dmcore_queue *queue = bio->queue;
	struct dmcore_bio *piece = queue->free_splits;

	if (!piece)
		return NULL;
	queue->free_splits = piece->next;
	piece->queue = queue;
	piece->internal.parent = bio;
	piece->internal.parent_frame_bytes = frame_bytes;
	piece->internal.top_bytes = 0;
	piece->internal.origin = DMCORE__BIO_PIECE;
	piece->internal.state = DMCORE__BIO_INFLIGHT;
	return piece;
}

static void give_piece_back(struct dmcore_bio *piece)
{
	struct dmcore_queue *queue = piece->queue;

	piece->internal.origin = DMCORE__BIO_FREE;
	piece->internal.state = DMCORE__BIO_IDLE;
	piece->next = queue->free_splits;
	queue->free_splits = piece;
}

/* Sends as many pieces as there are bios for. */
static void issue(struct dmcore_bio *bio, struct dmcore__fan *fan, uint16_t frame_bytes)
{
	while (fan->next) {
		struct dmcore_bio *piece = fan->own ? take_piece(bio, frame_bytes) : bio;
		void *token = NULL;
		int ret;

		if (!piece)
			return;
		load_rest(fan, piece);
		ret = fan->next(fan, piece, &token);
		if (ret) {
			note_status(fan, ret);
			if (piece != bio)
				give_piece_back(piece);
			continue;
		}
		fan->outstanding++;
		if (piece == bio)
			fan->own = true;
		if (!token || fan->dispatch(piece, token) == DMCORE__ROUTE_NEXT)
			dmcore__bio_send(piece);
	}
}

/* The bio has come back to its fan: with its own piece, or because the last piece has ended. */
static enum dmcore__unwind fan_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	struct dmcore__fan *fan = dmcore__frame_data(frame);

	if (fan->own) {
		fan->own = false;
		fan->outstanding--;
		note_status(fan, bio->status);
	}
	issue(bio, fan, bio->internal.top_bytes);
	if (fan->next || fan->outstanding)
		return DMCORE__UNWIND_STOP;
	bio->status = fan->status;
	bio->op = fan->op;
	bio->flags = fan->flags;
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

void dmcore__fan_start(struct dmcore_bio *bio, dmcore__fan_next_fn next,
		       dmcore__fan_dispatch_fn dispatch, const void *context,
		       uint32_t index)
{
	struct dmcore__frame *frame = dmcore__frame_push(bio, fan_end, DMCORE__NO_SLOT,
							 (uint32_t)sizeof(struct dmcore__fan));
	struct dmcore__fan *fan = dmcore__frame_data(frame);

	fan->next = next;
	fan->dispatch = dispatch;
	fan->context = context;
	save_rest(fan, bio);
	fan->index = index;
	fan->outstanding = 0;
	fan->status = 0;
	fan->own = false;
	issue(bio, fan, bio->internal.top_bytes);
	if (fan->outstanding == 0)
		dmcore_bio_complete(bio, fan->status);
}

struct dmcore_bio *dmcore__fan_piece_done(struct dmcore_bio *piece)
{
	struct dmcore_bio *bio = piece->internal.parent;
	uint16_t frame_bytes = piece->internal.parent_frame_bytes;
	struct dmcore__frame *frame =
		(struct dmcore__frame *)(void *)(bio->frames + frame_bytes -
						 sizeof(struct dmcore__frame));
	struct dmcore__fan *fan = dmcore__frame_data(frame);

	DMCORE__ASSERT(fan->outstanding > 0);
	fan->outstanding--;
	note_status(fan, piece->status);
	give_piece_back(piece);
	if (fan->own) {
		issue(bio, fan, frame_bytes);
		return NULL;
	}
	return fan->outstanding == 0 ? bio : NULL;
}
