/* SPDX-License-Identifier: MIT */
/*
 * Writes to an origin. One may go on when every snapshot of the origin has what it overwrites, and
 * says so durably. Whether that is so any thread can see; if not, the service has what is missing
 * copied, and the write waits.
 *
 * Other threads see the snapshots by an array that is replaced when one comes or goes. Who looks at
 * it says so in a lane of its queue; who has replaced it waits until no lane is inside.
 *
 * Called by targets/snapshot_origin.c, and by merge.c, which writes to the origin too.
 */
#include <errno.h>
#include <sched.h>

#include <dmcore/driver.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/snapshot/origin.h"

/* ---- the snapshots of an origin ---- */

static int create(struct dmcore *core, void *object)
{
	struct origin *origin = object;

	origin->core = core;
	origin->service = dmcore_service_queue(core);
	return origin->service ? 0 : -ENOMEM;
}

static void destroy(struct dmcore *core, void *object)
{
	struct origin *origin = object;

	dmcore_free(core, atomic_load(&origin->watched));
}

const struct dmcore_shared_type dmcore__origin_shared = {
	.struct_size = sizeof(struct dmcore_shared_type),
	.bytes = sizeof(struct origin),
	.create = create,
	.destroy = destroy,
};

static void wait_until_outside(struct origin *origin)
{
	for (unsigned int i = 0; i < DMCORE_QUEUE_INDICES_MAX; i++) {
		while (atomic_load(&origin->lanes[i].inside))
			sched_yield();
	}
}

/* Shows other threads the list as it is now, in memory that has been made ready. */
static void show(struct origin *origin, struct origin_watched *watched)
{
	struct origin_watched *old = atomic_load(&origin->watched);

	watched->count = 0;
	for (struct snapshot *at = origin->snapshots; at; at = at->next)
		watched->snapshots[watched->count++] = at;
	atomic_store(&origin->watched, watched);
	wait_until_outside(origin);
	dmcore_free(origin->core, old);
}

static struct origin_watched *allocate(struct origin *origin, unsigned int count)
{
	return dmcore_zalloc(origin->core, sizeof(struct origin_watched) +
						   count * sizeof(struct snapshot *));
}

bool dmcore__origin_add(struct origin *origin, struct snapshot *snapshot)
{
	struct origin_watched *watched = allocate(origin, origin->num_snapshots + 1);
	struct snapshot **link = &origin->snapshots;

	if (!watched)
		return false;
	while (*link && (*link)->chunk_sectors >= snapshot->chunk_sectors)
		link = &(*link)->next;
	snapshot->next = *link;
	*link = snapshot;
	origin->num_snapshots++;
	show(origin, watched);
	return true;
}

void dmcore__origin_remove(struct origin *origin, struct snapshot *snapshot)
{
	struct origin_watched *watched = atomic_load(&origin->watched);
	struct snapshot **link = &origin->snapshots;

	while (*link && *link != snapshot)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = snapshot->next;
	origin->num_snapshots--;
	/* The array that there is has room. It is changed while nobody looks, so that a removal
	 * needs no memory. */
	atomic_store(&origin->watched, NULL);
	wait_until_outside(origin);
	if (origin->num_snapshots == 0) {
		dmcore_free(origin->core, watched);
		return;
	}
	show(origin, watched);
}

/* ---- any thread ---- */

static uint64_t last_chunk(const struct snapshot *snapshot, uint64_t sector, uint64_t count)
{
	uint64_t end = dmcore__min_u64(sector + count, snapshot->length_sectors);

	return dmcore__snapshot_chunk(snapshot, end - 1);
}

static bool has_all(const struct snapshot *snapshot, uint64_t sector, uint64_t count)
{
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, sector);
	uint64_t last;

	if (atomic_load(&snapshot->unconcerned) || sector >= snapshot->length_sectors)
		return true;
	last = last_chunk(snapshot, sector, count);
	while (chunk <= last) {
		struct exceptions_run run;

		if (dmcore__exceptions_next(snapshot->exceptions, chunk, &run) !=
			    EXCEPTIONS_FOUND || run.old_chunk != chunk)
			return false;
		chunk += run.count;
	}
	/* Behind the search: what it has found may not be durable yet. */
	return !atomic_load(&snapshot->dirty) && !atomic_load(&snapshot->paused) &&
	       dmcore__snapshot_is_valid(snapshot);
}

bool dmcore__origin_is_clear(struct origin *origin, const struct dmcore_bio *bio)
{
	struct origin_lane *lane = &origin->lanes[dmcore_queue_index(bio->queue)];
	const struct origin_watched *watched;
	bool clear = true;

	if (atomic_load_explicit(&origin->num_snapshots, memory_order_relaxed) == 0)
		return true;
	atomic_store(&lane->inside, true);
	watched = atomic_load(&origin->watched);
	/* None, though there are some: they change just now. */
	if (!watched)
		clear = false;
	for (unsigned int i = 0; clear && i < watched->count; i++)
		clear = has_all(watched->snapshots[i], bio->sector, bio->count);
	atomic_store_explicit(&lane->inside, false, memory_order_release);
	return clear;
}

/* ---- the service ---- */

/* Where a write has to wait: one place is enough, for it asks again. */
struct obstacle {
	struct pending *pending;         /* a chunk that is being copied */
	struct snapshot_waiters *list;   /* or something else to come */
	struct snapshot *commit;         /* or exceptions to become durable */
};

static void overflow(struct snapshot *snapshot, struct obstacle *obstacle)
{
	if (atomic_load(&snapshot->overflow) == OVERFLOW_HOLD) {
		if (!snapshot->space_waiters.head)
			dmcore_target_event(snapshot->used->target);
		obstacle->list = &snapshot->space_waiters;
		return;
	}
	dmcore__snapshot_invalidate(snapshot, "Unable to allocate exception.");
	if (snapshot->store.header_busy)
		obstacle->list = &snapshot->store.header_waiters;
}

/* Of a chunk without an exception. False: no more can be begun now. */
static bool begin_copy(struct snapshot *snapshot, uint64_t chunk, struct obstacle *obstacle)
{
	struct pending *pending;

	switch (dmcore__pending_get(snapshot, chunk, &pending)) {
	case PENDING_NO_SLOT:
		obstacle->list = &snapshot->slot_waiters;
		return false;
	case PENDING_NO_SPACE:
		overflow(snapshot, obstacle);
		return false;
	case PENDING_NEW:
		dmcore__pending_copy(pending);
		break;
	case PENDING_THERE:
		break;
	}
	obstacle->pending = pending;
	return true;
}

static void prepare_range(struct snapshot *snapshot, uint64_t sector, uint64_t count,
			  struct obstacle *obstacle)
{
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, sector);
	uint64_t last = last_chunk(snapshot, sector, count);

	for (; chunk <= last; chunk++) {
		uint64_t new_chunk;
		uint64_t version;

		if (dmcore__exceptions_find(snapshot->exceptions, chunk, &new_chunk, &version) ==
		    EXCEPTIONS_FOUND) {
			if (!dmcore__store_is_durable(&snapshot->store, chunk))
				obstacle->commit = snapshot;
		} else if (!begin_copy(snapshot, chunk, obstacle)) {
			return;
		}
	}
}

static void prepare(struct snapshot *snapshot, uint64_t sector, uint64_t count,
		    struct obstacle *obstacle)
{
	if (snapshot->merging || sector >= snapshot->length_sectors)
		return;
	if (atomic_load(&snapshot->paused))
		obstacle->list = &snapshot->pause_waiters;
	else if (dmcore__snapshot_is_valid(snapshot))
		prepare_range(snapshot, sector, count, obstacle);
	else if (snapshot->store.header_busy)
		obstacle->list = &snapshot->store.header_waiters;
}

bool dmcore__origin_prepare(struct origin *origin, const struct snapshot *except, uint64_t sector,
			    uint64_t count, struct snapshot_waiter *waiter)
{
	struct obstacle obstacle = { 0 };

	for (struct snapshot *at = origin->snapshots; at; at = at->next) {
		if (at != except)
			prepare(at, sector, count, &obstacle);
	}
	if (obstacle.pending)
		dmcore__waiters_add(&obstacle.pending->of_origin, waiter);
	else if (obstacle.list)
		dmcore__waiters_add(obstacle.list, waiter);
	else if (obstacle.commit)
		dmcore__store_wait(obstacle.commit, waiter);
	else
		return true;
	return false;
}

static void run(struct snapshot_waiter *waiter)
{
	struct snapshot_request *request =
		dmcore__container_of(waiter, struct snapshot_request, waiter);
	struct dmcore_bio *bio = request->bio;

	if (dmcore__origin_prepare(request->origin, NULL, bio->sector, bio->count, waiter))
		dmcore__request_forward(request, bio->bdev, bio->sector);
}

void dmcore__request_origin_write(struct dmcore_work *work)
{
	struct snapshot_request *request =
		dmcore__container_of(work, struct snapshot_request, work);

	request->waiter.wake = run;
	run(&request->waiter);
}
