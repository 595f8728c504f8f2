/* SPDX-License-Identifier: MIT */
/*
 * Chunks on their way to the COW device. Each gets its place there when it is begun; however their
 * copies end, exceptions are placed in that order, so that a loss of power takes away the last ones
 * only. What waits for a chunk waits in its lists, and is woken when its exception is placed, or,
 * for the origin, durable. Called on the service by requests.c, discard.c and origin.c.
 */
#include <errno.h>

#include <dmcore/driver.h>

#include "base/assert.h"
#include "base/checked.h"
#include "base/compiler.h"
#include "targets/snapshot/snapshot.h"

/* From state (row) to state (column). */
static const bool legal_moves[3][3] = {
	[PENDING_FREE] = { [PENDING_COPYING] = true },
	[PENDING_COPYING] = { [PENDING_COPIED] = true },
	[PENDING_COPIED] = { [PENDING_FREE] = true },
};

static void set_state(struct pending *pending, enum pending_state state)
{
	DMCORE__ASSERT(legal_moves[pending->state][state]);
	pending->state = state;
}

int dmcore__pending_create(struct snapshot *snapshot)
{
	struct pending *array =
		dmcore_zalloc(snapshot->core, SNAPSHOT_PENDING_MAX * sizeof(*array));

	if (!array)
		return -ENOMEM;
	snapshot->pending_array = array;
	for (unsigned int i = 0; i < SNAPSHOT_PENDING_MAX; i++) {
		array[i].snapshot = snapshot;
		array[i].next = snapshot->free_pending;
		snapshot->free_pending = &array[i];
	}
	return 0;
}

/* ---- which there are ---- */

static struct pending **bucket_of(struct snapshot *snapshot, uint64_t old_chunk)
{
	return &snapshot->buckets[(old_chunk ^ old_chunk >> 8) % SNAPSHOT_PENDING_BUCKETS];
}

struct pending *dmcore__pending_find(struct snapshot *snapshot, uint64_t old_chunk)
{
	struct pending *pending = *bucket_of(snapshot, old_chunk);

	while (pending && pending->old_chunk != old_chunk)
		pending = pending->next_in_bucket;
	return pending;
}

static void tell_low_water(struct snapshot *snapshot)
{
	uint64_t low_water = atomic_load(&snapshot->low_water_sectors);
	uint64_t used = atomic_load(&snapshot->store.next_free) << snapshot->chunk_shift;
	uint64_t size = dmcore_bdev_size_sectors(snapshot->cow_bdev);

	if (low_water == 0 || atomic_load(&snapshot->low_water_told) || used + low_water <= size)
		return;
	atomic_store(&snapshot->low_water_told, true);
	dmcore_target_log(snapshot->used->target, DMCORE_LOG_WARNING,
			  "the COW device is nearly full");
	dmcore_target_event(snapshot->used->target);
}

enum pending_result dmcore__pending_get(struct snapshot *snapshot, uint64_t old_chunk,
					struct pending **result)
{
	struct pending *pending = dmcore__pending_find(snapshot, old_chunk);
	struct pending **bucket = bucket_of(snapshot, old_chunk);

	*result = pending;
	if (pending)
		return PENDING_THERE;
	pending = snapshot->free_pending;
	if (!pending)
		return PENDING_NO_SLOT;
	if (dmcore__store_allocate(snapshot, &pending->new_chunk))
		return PENDING_NO_SPACE;
	snapshot->free_pending = pending->next;
	snapshot->num_pending++;
	set_state(pending, PENDING_COPYING);
	pending->order = ++snapshot->num_begun;
	pending->failed = false;
	pending->whole = NULL;
	pending->old_chunk = old_chunk;
	dmcore__waiters_init(&pending->of_snapshot);
	dmcore__waiters_init(&pending->of_origin);
	pending->next_in_bucket = *bucket;
	*bucket = pending;
	pending->next = NULL;
	*snapshot->last_pending = pending;
	snapshot->last_pending = &pending->next;
	*result = pending;
	tell_low_water(snapshot);
	return PENDING_NEW;
}

/* ---- copies ---- */

void dmcore__pending_ended(struct pending *pending, bool failed)
{
	pending->failed = failed;
	set_state(pending, PENDING_COPIED);
	dmcore__pending_advance_soon(pending->snapshot);
}

static void copied(struct kcopyd_job *job)
{
	dmcore__pending_ended(job->context, job->status != 0);
}

/* Puts what the write that began the chunk has of a slice in its place. */
static void overlay(struct kcopyd_job *job, uint64_t offset, void *data, uint64_t count)
{
	const struct pending *pending = job->context;
	const struct snapshot_request *request = pending->whole;
	uint64_t begin = request->sector - (pending->old_chunk << pending->snapshot->chunk_shift);
	uint64_t end = dmcore__min_u64(begin + request->count, offset + count);
	uint64_t from = dmcore__max_u64(begin, offset);

	if (from >= end)
		return;
	dmcore__request_data(request, from - begin,
			     (char *)data + dmcore__sectors_to_bytes(from - offset),
			     end - from);
}

void dmcore__pending_copy(struct pending *pending)
{
	struct snapshot *snapshot = pending->snapshot;
	uint64_t sector = pending->old_chunk << snapshot->chunk_shift;
	uint64_t origin_sectors = dmcore_bdev_size_sectors(snapshot->origin_bdev);
	struct kcopyd_job *job = &pending->job;

	job->from.bdev = snapshot->origin_bdev;
	job->from.sector = sector;
	/* Of the last chunk, what there is. */
	job->from.count = sector < origin_sectors ?
				  dmcore__min_u64(snapshot->chunk_sectors,
						  origin_sectors - sector) : 0;
	job->dests[0].bdev = snapshot->cow_bdev;
	job->dests[0].sector = pending->new_chunk << snapshot->chunk_shift;
	job->num_dests = 1;
	job->flags = 0;
	job->data = pending->whole ? overlay : NULL;
	job->done = copied;
	job->context = pending;
	if (kcopyd_submit(snapshot->kc, job))
		dmcore__pending_ended(pending, true);
}

/* ---- exceptions ---- */

static void take_out(struct snapshot *snapshot, struct pending *pending)
{
	struct pending **link = bucket_of(snapshot, pending->old_chunk);

	while (*link != pending)
		link = &(*link)->next_in_bucket;
	*link = pending->next_in_bucket;
	snapshot->first_pending = pending->next;
	if (!snapshot->first_pending)
		snapshot->last_pending = &snapshot->first_pending;
}

/* Of one whose exception has been placed, or won't be: those who wait see which. */
static void release(struct snapshot *snapshot, struct pending *pending)
{
	struct store *store = &snapshot->store;
	bool valid = dmcore__snapshot_is_valid(snapshot);
	struct snapshot_request *whole = pending->whole;
	struct snapshot_waiter *waiter;
	/* The commit fails: so does the request. */
	bool is_last = valid && dmcore__store_is_over(snapshot);

	while ((waiter = dmcore__waiters_take(&pending->of_snapshot))) {
		if (is_last)
			dmcore__store_wait(snapshot, waiter);
		else
			waiter->wake(waiter);
	}
	while ((waiter = dmcore__waiters_take(&pending->of_origin))) {
		if (valid && store->persistent)
			dmcore__store_wait(snapshot, waiter);
		else
			waiter->wake(waiter);
	}
	set_state(pending, PENDING_FREE);
	pending->next = snapshot->free_pending;
	snapshot->free_pending = pending;
	snapshot->num_pending--;
	if (whole && is_last)
		dmcore__store_wait(snapshot, &whole->waiter);
	else if (whole)
		dmcore__request_whole_placed(whole);
}

/* False: not now. */
static bool place(struct snapshot *snapshot, struct pending *pending)
{
	if (pending->failed)
		dmcore__snapshot_invalidate(snapshot, "Error reading/writing.");
	if (!dmcore__snapshot_is_valid(snapshot))
		return true;
	if (!dmcore__store_has_room(&snapshot->store))
		return false;
	if (dmcore__exceptions_reserve(snapshot->exceptions, 1)) {
		dmcore__snapshot_invalidate(snapshot, "Unable to allocate exception.");
		return true;
	}
	dmcore__store_place(snapshot, pending->old_chunk, pending->new_chunk);
	dmcore__exceptions_insert(snapshot->exceptions, pending->old_chunk, pending->new_chunk);
	return true;
}

static void wake_slot_waiters(struct snapshot *snapshot)
{
	struct snapshot_waiter *waiter;

	while (snapshot->free_pending &&
	       (waiter = dmcore__waiters_take(&snapshot->slot_waiters)))
		waiter->wake(waiter);
}

/* All that follows from ends of copies and of commits, in one place and never within another. */
static void advance(struct dmcore_work *work)
{
	struct snapshot *snapshot = dmcore__container_of(work, struct snapshot, advance_work);
	struct pending *pending;

	snapshot->advance_posted = false;
	while ((pending = snapshot->first_pending) && pending->state == PENDING_COPIED) {
		if (!place(snapshot, pending))
			break;
		take_out(snapshot, pending);
		release(snapshot, pending);
	}
	wake_slot_waiters(snapshot);
	dmcore__store_commit(snapshot);
	dmcore__snapshot_check_idle(snapshot);
}

void dmcore__pending_advance_soon(struct snapshot *snapshot)
{
	if (snapshot->advance_posted)
		return;
	snapshot->advance_posted = true;
	snapshot->advance_work.fn = advance;
	dmcore_queue_post(snapshot->service, &snapshot->advance_work);
}

bool dmcore__snapshot_check_idle(struct snapshot *snapshot)
{
	if (snapshot->num_pending > 0 || !dmcore__store_is_idle(&snapshot->store) ||
	    snapshot->advance_posted || snapshot->discard)
		return false;
	dmcore__waiters_wake_all(&snapshot->idle_waiters);
	return true;
}
