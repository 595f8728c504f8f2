/* SPDX-License-Identifier: MIT */
/*
 * The last step of a bio on its way down: checks against the device, what the device can't do by
 * itself, and then its driver. Also the order of a flush before a write. Called by bio.c.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "bdev/bio.h"

_Static_assert(DMCORE__FRAME_RESERVE_BYTES >=
		       2 * (sizeof(struct dmcore__saved_request) + sizeof(struct dmcore__frame)) +
			       DMCORE__FAN_FRAME_BYTES + 2 * sizeof(struct dmcore__frame),
	       "preflush, postflush, a fan and two entries fit in the reserve");

static void become_flush(struct dmcore_bio *bio, struct dmcore_bdev *bdev)
{
	bio->bdev = bdev;
	bio->op = DMCORE_OP_FLUSH;
	bio->flags &= DMCORE_BIO_NOWAIT;
}

/* A failed flush fails the write: data must not become durable before what it rests on. */
static enum dmcore__unwind preflush_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	struct dmcore_queue *queue = bio->queue;
	uint32_t slot = frame->slot;

	dmcore__request_restore(dmcore__frame_data(frame), bio);
	bio->flags &= (uint16_t)~DMCORE_BIO_PREFLUSH;
	if (bio->status) {
		dmcore__frame_pop(bio, frame);
		return DMCORE__UNWIND_ON;
	}
	/* The device is left once it has been entered again, lest it be closed in between. */
	DMCORE__ASSERT(!dmcore__queue_submitting(queue));
	bio->internal.top_bytes = (uint16_t)(bio->internal.top_bytes - frame->bytes);
	dmcore__bio_send(bio);
	dmcore__slot_leave(queue, slot);
	return DMCORE__UNWIND_STOP;
}

void dmcore__bio_preflush(struct dmcore_bio *bio)
{
	uint32_t slot = bio->bdev->slot;
	struct dmcore__frame *frame =
		dmcore__frame_push(bio, preflush_end, slot, DMCORE__SAVED_BYTES);

	dmcore__slot_enter(bio->queue, slot);
	dmcore__request_save(dmcore__frame_data(frame), bio);
	become_flush(bio, bio->bdev);
}

void dmcore__bio_undo_preflush(struct dmcore_bio *bio)
{
	struct dmcore__frame *frame;

	if (bio->internal.top_bytes == 0)
		return;
	frame = dmcore__frame_top(bio);
	if (frame->end != preflush_end || frame->slot != bio->bdev->slot)
		return;
	dmcore__request_restore(dmcore__frame_data(frame), bio);
	dmcore__frame_pop(bio, frame);
}

static enum dmcore__unwind postflush_end(struct dmcore_bio *bio, struct dmcore__frame *frame)
{
	struct dmcore__saved_request *saved = dmcore__frame_data(frame);

	/* Stage 0: the write is under way; 1: the flush. */
	if (!saved->stage && !bio->status) {
		saved->stage = 1;
		become_flush(bio, saved->bdev);
		return DMCORE__UNWIND_SUBMIT;
	}
	/* Somebody else's flush has failed meanwhile, and with it this write may have been lost. */
	if (!bio->status && atomic_load(&saved->bdev->num_failed_flushes) != saved->moment)
		bio->status = -EIO;
	dmcore__request_restore(saved, bio);
	dmcore__frame_pop(bio, frame);
	return DMCORE__UNWIND_ON;
}

/* FUA on a device without it: the flush follows the write. */
static void postflush(struct dmcore_bio *bio)
{
	struct dmcore__frame *frame =
		dmcore__frame_push(bio, postflush_end, DMCORE__NO_SLOT, DMCORE__SAVED_BYTES);
	struct dmcore__saved_request *saved;

	saved = dmcore__frame_data(frame);
	dmcore__request_save(saved, bio);
	saved->moment = atomic_load(&bio->bdev->num_failed_flushes);
	bio->flags &= (uint16_t)~DMCORE_BIO_FUA;
}

#define ZERO_PAGE_BYTES 4096
#define ZERO_VECS 256

/* What is written for WRITE_ZEROES: aligned, so that direct I/O needs no bounce. */
static const char zero_page[ZERO_PAGE_BYTES] __attribute__((aligned(ZERO_PAGE_BYTES)));

#define V1 { (void *)(uintptr_t)zero_page, ZERO_PAGE_BYTES }
#define V4 V1, V1, V1, V1
#define V16 V4, V4, V4, V4
#define V64 V16, V16, V16, V16

static const struct dmio_bvec zero_vecs[ZERO_VECS] = { V64, V64, V64, V64 };

/* The next write of zeroes. */
static int next_zero_write(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	uint64_t max = (uint64_t)ZERO_VECS * ZERO_PAGE_BYTES >> DMCORE_SECTOR_SHIFT;
	uint64_t n = dmcore__min_u64(fan->count, max);
	uint64_t bytes = dmcore__sectors_to_bytes(n);

	(void)token;
	piece->op = DMCORE_OP_WRITE;
	piece->count = n;
	piece->vecs = zero_vecs;
	piece->num_vecs = (uint32_t)((bytes + ZERO_PAGE_BYTES - 1) / ZERO_PAGE_BYTES);
	piece->vec_offset_bytes = 0;
	dmcore__fan_advance(fan, n);
	if (fan->count == 0)
		fan->next = NULL;
	return 0;
}

static int next_piece(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_bdev *bdev = fan->context;

	(void)token;
	piece->count = dmcore__limits_whole(&bdev->limits, fan->sector, fan->count);
	dmcore__fan_advance(fan, piece->count);
	if (fan->count == 0)
		fan->next = NULL;
	return 0;
}

/* The next piece of a request that is larger than the device takes. fan->context: the device. */
static int next_limited(struct dmcore__fan *fan, struct dmcore_bio *piece, void **token)
{
	const struct dmcore_bdev *bdev = fan->context;
	uint64_t max = fan->op == DMCORE_OP_DISCARD ? bdev->limits.max_discard_sectors
						    : bdev->limits.max_write_zeroes_sectors;

	(void)token;
	piece->count = dmcore__min_u64(fan->count, max);
	dmcore__fan_advance(fan, piece->count);
	if (fan->count == 0)
		fan->next = NULL;
	return 0;
}

/* What is wrong with a request for this device: 0 or its status. */
static int check(const struct dmcore_bdev *bdev, const struct dmcore_bio *bio)
{
	if ((bio->sector | bio->count) & dmcore__bdev_block_mask(bdev))
		return -EINVAL;
	if (!dmcore__bdev_has_range(bdev, bio->sector, bio->count))
		return -EIO;
	return dmcore__bdev_read_only(bdev) && bio->op != DMCORE_OP_READ ? -EROFS : 0;
}

/* Operations without memory. The entry frame has been pushed. */
static void submit_special(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	uint64_t max = bdev->limits.max_write_zeroes_sectors;

	switch (bio->op) {
	case DMCORE_OP_FLUSH:
		if (!(bdev->caps & DMCORE_CAP_VOLATILE_CACHE)) {
			dmcore_bio_complete(bio, 0);
			return;
		}
		break;
	case DMCORE_OP_DISCARD:
		if (!(bdev->caps & DMCORE_CAP_DISCARD)) {
			dmcore_bio_complete(bio, -EOPNOTSUPP);
			return;
		}
		max = bdev->limits.max_discard_sectors;
		break;
	default:
		if (!(bdev->caps & DMCORE_CAP_WRITE_ZEROES)) {
			dmcore__fan_start(bio, next_zero_write, NULL, NULL, 0);
			return;
		}
		break;
	}
	if (bio->op != DMCORE_OP_FLUSH && max && bio->count > max)
		dmcore__fan_start(bio, next_limited, NULL, bdev, 0);
	else
		bdev->driver->submit(bdev, bio);
}

/* All but a READ or WRITE that the device takes as it is. */
static DMCORE__NOINLINE void submit_other(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	if (bio->op != DMCORE_OP_FLUSH) {
		int status = check(bdev, bio);

		if (status) {
			dmcore_bio_complete(bio, status);
			return;
		}
	}
	dmcore__slot_enter(bio->queue, bdev->slot);
	if (bio->flags & DMCORE_BIO_PREFLUSH)
		dmcore__bio_preflush(bio);
	dmcore__frame_push(bio, NULL, bdev->slot, 0);
	if (bio->flags & DMCORE_BIO_FUA && !(bdev->caps & DMCORE_CAP_FUA))
		postflush(bio);
	if (bio->op > DMCORE_OP_WRITE)
		submit_special(bdev, bio);
	else if (dmcore__limits_whole(&bdev->limits, bio->sector, bio->count) == bio->count)
		bdev->driver->submit(bdev, bio);
	else
		dmcore__fan_start(bio, next_piece, NULL, bdev, 0);
}

void dmcore__leaf_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	if (dmcore__unlikely(dmcore__bdev_is_special(bdev, bio) ||
			     bio->count > bdev->whole_sectors ||
			     !dmcore__bdev_has_range(bdev, bio->sector, bio->count))) {
		submit_other(bdev, bio);
		return;
	}
	dmcore__slot_enter(bio->queue, bdev->slot);
	dmcore__frame_push(bio, NULL, bdev->slot, 0);
	bdev->driver->submit(bdev, bio);
}
