/* SPDX-License-Identifier: MIT */
/*
 * A copy from one leaf device to another of the same driver, without the data passing through the
 * process. Called by those who copy, with a bio of their own.
 */
#include <errno.h>

#include "bdev/bio.h"

static bool can_copy(const struct dmcore_bio *bio, const struct dmcore_bdev *from,
		     uint64_t from_sector)
{
	const struct dmcore_bdev *bdev = bio->bdev;

	if (bdev->core != bio->queue->core || from->core != bdev->core ||
	    bio->internal.state != DMCORE__BIO_IDLE || !dmcore__alive(bdev->core))
		return false;
	if (dmcore__bdev_route(bdev) || dmcore__bdev_route(from) || bdev->driver != from->driver ||
	    !DMCORE__DRIVER_HAS(bdev->driver, copy))
		return false;
	return !dmcore__bdev_read_only(bdev) && bio->count > 0 &&
	       dmcore__bdev_has_range(bdev, bio->sector, bio->count) &&
	       dmcore__bdev_has_range(from, from_sector, bio->count);
}

/* Counts a bio in a device until it has ended. */
static void enter(struct dmcore_bio *bio, const struct dmcore_bdev *bdev)
{
	dmcore__slot_enter(bio->queue, bdev->slot);
	dmcore__frame_push(bio, NULL, bdev->slot, 0);
}

int dmcore__bio_submit_copy(struct dmcore_bio *bio, struct dmcore_bdev *from, uint64_t from_sector)
{
	struct dmcore_queue *queue = bio->queue;
	struct dmcore_bdev *bdev = bio->bdev;

	if (!can_copy(bio, from, from_sector))
		return -EOPNOTSUPP;
	bio->op = DMCORE_OP_WRITE;
	bio->flags = 0;
	bio->vecs = NULL;
	bio->num_vecs = 0;
	bio->vec_offset_bytes = 0;
	bio->status = 0;
	bio->internal.top_bytes = 0;
	dmcore__bio_set_state(bio, DMCORE__BIO_INFLIGHT);
	if (!atomic_load_explicit(&queue->owned, memory_order_relaxed))
		dmcore__queue_own(queue);
	queue->inflight++;
	enter(bio, from);
	enter(bio, bdev);
	bdev->driver->copy(bdev, bio, from, from_sector);
	return 0;
}
