/* SPDX-License-Identifier: MIT */
/*
 * Requests to a snapshot that can't go straight to one of its devices: writes to chunks without an
 * exception, and what may not end before exceptions are durable. map posts them to the service,
 * which sends them on from their own queues. Called through the type in targets/snapshot.c.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "base/vecs.h"
#include "targets/snapshot/snapshot.h"

static struct snapshot_request *of_work(struct dmcore_work *work)
{
	return dmcore__container_of(work, struct snapshot_request, work);
}

static struct snapshot_request *of_waiter(struct snapshot_waiter *waiter)
{
	return dmcore__container_of(waiter, struct snapshot_request, waiter);
}

void dmcore__request_keep(struct snapshot_request *request, struct dmcore_bio *bio)
{
	request->bio = bio;
	request->sector = bio->sector;
	request->count = bio->count;
	request->vecs = bio->vecs;
	request->num_vecs = bio->num_vecs;
	request->vec_offset_bytes = bio->vec_offset_bytes;
	request->flags = bio->flags;
}

void dmcore__request_post(struct snapshot_request *request, struct dmcore_queue *service,
			  void (*fn)(struct dmcore_work *work))
{
	request->work.fn = fn;
	dmcore_queue_post(service, &request->work);
}

static void forward_now(struct dmcore_work *work)
{
	dmcore_bio_forward(of_work(work)->bio);
}

void dmcore__request_forward(struct snapshot_request *request, struct dmcore_bdev *bdev,
			     uint64_t sector)
{
	struct dmcore_bio *bio = request->bio;

	bio->bdev = bdev;
	bio->sector = sector;
	request->work.fn = forward_now;
	dmcore_queue_post(bio->queue, &request->work);
}

/* ---- flush ---- */

static void flush_cow(struct snapshot_waiter *waiter)
{
	struct snapshot_request *request = of_waiter(waiter);
	struct store *store = &request->snapshot->store;

	/* What couldn't be committed is lost, and that has to be durable first: else the snapshot
	 * may come back as valid, and without what has been flushed. */
	if (store->header_busy)
		dmcore__waiters_add(&store->header_waiters, waiter);
	else
		dmcore__request_forward(request, request->snapshot->cow_bdev, 0);
}

void dmcore__request_flush(struct dmcore_work *work)
{
	struct snapshot_request *request = of_work(work);

	request->waiter.wake = flush_cow;
	dmcore__store_wait(request->snapshot, &request->waiter);
}

/* ---- writes that begin a chunk, and end with it ---- */

static void wake_whole(struct snapshot_waiter *waiter)
{
	dmcore__request_whole_placed(of_waiter(waiter));
}

void dmcore__request_whole_placed(struct snapshot_request *request)
{
	struct snapshot *snapshot = request->snapshot;
	bool valid = dmcore__snapshot_is_valid(snapshot);

	if (valid && request->flags & DMCORE_BIO_FUA &&
	    !dmcore__store_is_durable(&snapshot->store,
				      dmcore__snapshot_chunk(snapshot, request->sector))) {
		dmcore__store_wait(snapshot, &request->waiter);
		return;
	}
	dmcore_bio_complete_remote(request->bio, valid ? 0 : -EIO);
}

static void whole_ended(struct snapshot_request *request, int status)
{
	dmcore__pending_ended(request->pending, status != 0);
}

void dmcore__request_data(const struct snapshot_request *request, uint64_t sector, void *buffer,
			  uint64_t count)
{
	dmcore__vecs_gather(request->vecs,
			    request->vec_offset_bytes + (size_t)dmcore__sectors_to_bytes(sector),
			    buffer, (size_t)dmcore__sectors_to_bytes(count));
}

/* Whether its data can go into the copy of the chunk. What is to be durable at its end has a write
 * of its own, and so has what lies behind the origin's end. */
static bool fits_copy(const struct snapshot_request *request)
{
	const struct snapshot *snapshot = request->snapshot;

	return !(request->flags & DMCORE_BIO_FUA) &&
	       request->sector + request->count <= dmcore_bdev_size_sectors(snapshot->origin_bdev);
}

/* Fills the chunk with the request's data, and around that with the origin's. */
static void write_first(struct snapshot_request *request, struct pending *pending)
{
	struct snapshot *snapshot = request->snapshot;
	bool is_whole = request->count == snapshot->chunk_sectors && snapshot->free_carrier;

	if (!is_whole && !fits_copy(request)) {
		dmcore__waiters_add(&pending->of_snapshot, &request->waiter);
		dmcore__pending_copy(pending);
		return;
	}
	request->pending = pending;
	request->waiter.wake = wake_whole;
	pending->whole = request;
	if (!is_whole || !dmcore__carry(request, pending->new_chunk << snapshot->chunk_shift,
					whole_ended))
		dmcore__pending_copy(pending);
}

/* ---- other writes ---- */

static void run_write(struct snapshot_request *request);

static void wake_write(struct snapshot_waiter *waiter)
{
	run_write(of_waiter(waiter));
}

/* There is no room on the COW device for another chunk. */
static void overflow(struct snapshot_request *request)
{
	struct snapshot *snapshot = request->snapshot;
	struct dmcore_target *target = snapshot->used->target;
	enum snapshot_overflow policy = (enum snapshot_overflow)atomic_load(&snapshot->overflow);
	int status = -EIO;

	if (policy == OVERFLOW_TABLE && !snapshot->used->overflow_option)
		policy = OVERFLOW_INVALIDATE;
	if (policy == OVERFLOW_HOLD && !snapshot->suspending) {
		if (!snapshot->space_waiters.head)
			dmcore_target_event(target);
		dmcore__waiters_add(&snapshot->space_waiters, &request->waiter);
		return;
	}
	if (policy == OVERFLOW_INVALIDATE) {
		dmcore__snapshot_invalidate(snapshot, "Unable to allocate exception.");
	} else if (policy == OVERFLOW_TABLE) {
		dmcore_target_log(target, DMCORE_LOG_ERROR,
				  "Snapshot overflowed: Unable to allocate exception.");
		atomic_store(&snapshot->overflowed, true);
	} else {
		status = -ENOSPC;
	}
	dmcore_bio_complete_remote(request->bio, status);
}

static void write_unmapped(struct snapshot_request *request, uint64_t chunk)
{
	struct snapshot *snapshot = request->snapshot;
	struct pending *pending;

	switch (dmcore__pending_get(snapshot, chunk, &pending)) {
	case PENDING_NO_SLOT:
		dmcore__waiters_add(&snapshot->slot_waiters, &request->waiter);
		return;
	case PENDING_NO_SPACE:
		overflow(request);
		return;
	case PENDING_NEW:
		write_first(request, pending);
		return;
	case PENDING_THERE:
		dmcore__waiters_add(&pending->of_snapshot, &request->waiter);
		return;
	}
}

static void run_write(struct snapshot_request *request)
{
	struct snapshot *snapshot = request->snapshot;
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, request->sector);
	uint64_t new_chunk;
	uint64_t version;

	request->waiter.wake = wake_write;
	if (!dmcore__snapshot_is_valid(snapshot)) {
		dmcore_bio_complete_remote(request->bio, -EIO);
		return;
	}
	if (dmcore__exceptions_find(snapshot->exceptions, chunk, &new_chunk, &version) !=
	    EXCEPTIONS_FOUND) {
		write_unmapped(request, chunk);
		return;
	}
	if (request->flags & DMCORE_BIO_FUA &&
	    !dmcore__store_is_durable(&snapshot->store, chunk)) {
		dmcore__store_wait(snapshot, &request->waiter);
		return;
	}
	dmcore__request_forward(request, snapshot->cow_bdev,
				dmcore__snapshot_cow_sector(snapshot, new_chunk,
							    request->sector));
}

void dmcore__request_write(struct dmcore_work *work)
{
	struct snapshot_request *request = of_work(work);

	/* Those that had their chunk when the store overflowed go on, as in the kernel. */
	if (atomic_load(&request->snapshot->overflowed))
		dmcore_bio_complete_remote(request->bio, -EIO);
	else
		run_write(request);
}
