/* SPDX-License-Identifier: MIT */
/*
 * Discards of a snapshot with discard_zeroes_cow, one at a time and chunk by chunk: what has an
 * exception is zeroed in the COW device, the rest is left alone. Called on the service, through the
 * type in targets/snapshot.c.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/snapshot/snapshot.h"

static void run(struct snapshot *snapshot);

static void end(struct snapshot *snapshot, int status)
{
	struct dmcore_bio *bio = snapshot->discard->bio;

	snapshot->discard = NULL;
	dmcore_bio_complete_remote(bio, status);
}

static void advance(struct snapshot_request *request, uint64_t sectors)
{
	request->sector += sectors;
	request->count -= sectors;
}

/* Sectors of the request in its first chunk. */
static uint64_t piece_of(const struct snapshot_request *request)
{
	uint32_t chunk_sectors = request->snapshot->chunk_sectors;

	return dmcore__min_u64(request->count,
			       chunk_sectors - (request->sector & (chunk_sectors - 1)));
}

static void zeroed(struct kcopyd_job *job)
{
	struct snapshot *snapshot = job->context;

	if (job->status)
		end(snapshot, -EIO);
	else
		advance(snapshot->discard, piece_of(snapshot->discard));
	run(snapshot);
}

/* Returns false if the request goes on later. */
static bool zero(struct snapshot *snapshot, uint64_t new_chunk, uint64_t sectors)
{
	struct snapshot_request *request = snapshot->discard;
	struct kcopyd_job *job = &snapshot->zero_job;

	job->from.bdev = NULL;
	job->dests[0].bdev = snapshot->cow_bdev;
	job->dests[0].sector = dmcore__snapshot_cow_sector(snapshot, new_chunk, request->sector);
	job->dests[0].count = sectors;
	job->num_dests = 1;
	job->done = zeroed;
	job->context = snapshot;
	if (kcopyd_submit(snapshot->kc, job) == 0)
		return false;
	end(snapshot, -EIO);
	return true;
}

static void wake(struct snapshot_waiter *waiter)
{
	run(dmcore__container_of(waiter, struct snapshot_request, waiter)->snapshot);
}

/* Returns false if the request goes on later. */
static bool step(struct snapshot *snapshot)
{
	struct snapshot_request *request = snapshot->discard;
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, request->sector);
	struct pending *pending;
	uint64_t new_chunk;
	uint64_t version;

	if (!dmcore__snapshot_is_valid(snapshot) || atomic_load(&snapshot->overflowed)) {
		end(snapshot, -EIO);
		return true;
	}
	if (request->count == 0) {
		end(snapshot, 0);
		return true;
	}
	pending = dmcore__pending_find(snapshot, chunk);
	if (pending) {
		request->waiter.wake = wake;
		dmcore__waiters_add(&pending->of_snapshot, &request->waiter);
		return false;
	}
	if (dmcore__exceptions_find(snapshot->exceptions, chunk, &new_chunk, &version) ==
	    EXCEPTIONS_FOUND)
		return zero(snapshot, new_chunk, piece_of(request));
	advance(request, piece_of(request));
	return true;
}

static void run(struct snapshot *snapshot)
{
	for (;;) {
		if (!snapshot->discard) {
			struct snapshot_waiter *next = dmcore__waiters_take(&snapshot->discards);

			if (!next)
				break;
			snapshot->discard =
				dmcore__container_of(next, struct snapshot_request, waiter);
		}
		if (!step(snapshot))
			return;
	}
	dmcore__pending_advance_soon(snapshot);
}

void dmcore__request_discard(struct dmcore_work *work)
{
	struct snapshot_request *request =
		dmcore__container_of(work, struct snapshot_request, work);
	struct snapshot *snapshot = request->snapshot;

	dmcore__waiters_add(&snapshot->discards, &request->waiter);
	if (!snapshot->discard)
		run(snapshot);
}
