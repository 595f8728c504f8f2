/* SPDX-License-Identifier: MIT */
/*
 * Exceptions on their way back to the origin, last one first, so that what is left is a whole store
 * at any time. A step takes a run of entries of the current area that descend in both numbers:
 *
 *   READING     the end of the area's entries
 *   OTHERS      other snapshots of the origin get their copies of the range
 *   WRITES      writes to the range that are under way end; those that come wait
 *   COPYING     from the COW device to the origin
 *   FLUSHING    the origin: only then
 *   COMMITTING  may the entries go
 *
 * Whatever fails ends the merge, with all entries where they are; a resume starts it again. Called
 * on the service by share.c, and through the type in targets/snapshot_merge.c.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/checked.h"
#include "base/compiler.h"
#include "targets/snapshot/snapshot.h"

static void step(struct snapshot *snapshot);
static void run_write(struct snapshot_waiter *waiter);

/* From state (row) to state (column). */
static const bool legal_moves[8][8] = {
	[MERGE_OFF] = { [MERGE_READING] = true, [MERGE_IDLE] = true },
	[MERGE_IDLE] = { [MERGE_OFF] = true },
	[MERGE_READING] = { [MERGE_OTHERS] = true, [MERGE_IDLE] = true },
	[MERGE_OTHERS] = { [MERGE_WRITES] = true, [MERGE_IDLE] = true },
	[MERGE_WRITES] = { [MERGE_COPYING] = true, [MERGE_IDLE] = true },
	[MERGE_COPYING] = { [MERGE_FLUSHING] = true, [MERGE_IDLE] = true },
	[MERGE_FLUSHING] = { [MERGE_COMMITTING] = true, [MERGE_IDLE] = true },
	[MERGE_COMMITTING] = { [MERGE_READING] = true, [MERGE_IDLE] = true },
};

static void set_state(struct snapshot *snapshot, enum merge_state state)
{
	DMCORE__ASSERT(legal_moves[snapshot->merge.state][state]);
	snapshot->merge.state = state;
}

void dmcore__merge_create(struct snapshot *snapshot)
{
	dmcore__waiters_init(&snapshot->merge.held);
	dmcore__waiters_init(&snapshot->merge.stopped);
}

static bool in_range(const struct merge *merge, uint64_t chunk)
{
	return (merge->state >= MERGE_WRITES || merge->doubtful) && chunk >= merge->first_old &&
	       chunk - merge->first_old < merge->count;
}

/* ---- the end of a step, or of all ---- */

static void come_to_rest(struct snapshot *snapshot)
{
	struct merge *merge = &snapshot->merge;

	set_state(snapshot, MERGE_IDLE);
	if (!merge->doubtful)
		merge->count = 0;
	dmcore__waiters_wake_all(&merge->held);
	if (merge->stop)
		set_state(snapshot, MERGE_OFF);
	else
		dmcore_target_event(snapshot->used->target);
	dmcore__waiters_wake_all(&merge->stopped);
}

static void fail(struct snapshot *snapshot, const char *why)
{
	dmcore_target_log(snapshot->used->target, DMCORE_LOG_ERROR, "%s", why);
	atomic_store(&snapshot->merge.failed, true);
	come_to_rest(snapshot);
}

/* ---- reading ---- */

static uint64_t area_sector(const struct snapshot *snapshot, uint64_t area)
{
	const struct store *store = &snapshot->store;

	return dmcore_cow_area_chunk(store->chunk_sectors, area) << store->chunk_shift;
}

static void submit(struct snapshot *snapshot, void (*done)(struct dmcore_bio *bio))
{
	struct dmcore_bio *bio = &snapshot->merge.bio;
	int ret;

	bio->done = done;
	bio->context = snapshot;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		bio->status = ret;
		done(bio);
	}
}

static void others_have_it(struct snapshot_waiter *waiter);

/* How many entries, from the last one of the page back, continue one another in both numbers. */
static uint32_t count_run(const struct store *store, uint32_t in_page,
			  struct dmcore_cow_entry *first)
{
	uint32_t count = 1;

	dmcore_cow_entry_decode(store->page + (size_t)(in_page - 1) * DMCORE_COW_ENTRY_BYTES,
				first);
	while (count < in_page) {
		struct dmcore_cow_entry before;

		dmcore_cow_entry_decode(store->page +
						(size_t)(in_page - 1 - count) *
							DMCORE_COW_ENTRY_BYTES, &before);
		if (before.old_chunk + 1 != first->old_chunk ||
		    before.new_chunk + 1 != first->new_chunk)
			break;
		*first = before;
		count++;
	}
	return count;
}

/*
 * The chunk in which the table ends, if it ends within one; else one that there isn't. What lies in
 * it behind the end is the origin's alone: what has been written there since isn't undone.
 */
static uint64_t cut_chunk(const struct snapshot *snapshot)
{
	uint64_t length_sectors = snapshot->length_sectors;

	return length_sectors & (snapshot->chunk_sectors - 1) ?
		       dmcore__snapshot_chunk(snapshot, length_sectors) : UINT64_MAX;
}

/* A range ends with that chunk, or begins behind it. */
static void cut_range(struct snapshot *snapshot)
{
	struct merge *merge = &snapshot->merge;
	uint64_t cut = cut_chunk(snapshot);
	uint32_t before;

	if (cut < merge->first_old || cut - merge->first_old >= merge->count - 1)
		return;
	before = (uint32_t)(cut - merge->first_old) + 1;
	merge->first_old += before;
	merge->first_new += before;
	merge->count -= before;
}

static void page_read(struct dmcore_bio *bio)
{
	struct snapshot *snapshot = bio->context;
	struct merge *merge = &snapshot->merge;
	struct store *store = &snapshot->store;
	struct dmcore_cow_entry first;
	uint32_t in_page = merge->entries - merge->page_first;

	if (bio->status) {
		fail(snapshot, "Read error in exception store: shutting down merge");
		return;
	}
	memcpy(store->page, store->io_page, (size_t)store->page_entries * DMCORE_COW_ENTRY_BYTES);
	merge->count = count_run(store, in_page, &first);
	merge->first_old = first.old_chunk;
	merge->first_new = first.new_chunk;
	cut_range(snapshot);
	merge->left = merge->entries - merge->count;
	set_state(snapshot, MERGE_OTHERS);
	others_have_it(&merge->waiter);
}

static void read_page(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;
	struct merge *merge = &snapshot->merge;
	uint32_t page_bytes = store->page_entries * DMCORE_COW_ENTRY_BYTES;

	merge->page_first = (merge->entries - 1) / store->page_entries * store->page_entries;
	dmcore_bio_init(&merge->bio, snapshot->service);
	merge->bio.bdev = snapshot->cow_bdev;
	merge->bio.op = DMCORE_OP_READ;
	/* The page stays what it is if it can't be read. */
	dmcore_bio_set_buffer(&merge->bio, store->io_page, page_bytes);
	merge->bio.sector = area_sector(snapshot, merge->area) +
			    dmcore__bytes_to_sectors((uint64_t)merge->page_first *
						     DMCORE_COW_ENTRY_BYTES);
	submit(snapshot, page_read);
}

static void step(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;
	struct merge *merge = &snapshot->merge;

	if (merge->doubtful) {
		/* Once more, as it was. */
		merge->doubtful = false;
		set_state(snapshot, MERGE_READING);
		set_state(snapshot, MERGE_OTHERS);
		others_have_it(&merge->waiter);
		return;
	}
	merge->area = atomic_load(&store->current_area);
	merge->entries = store->placed;
	if (merge->entries == 0 && merge->area > 0) {
		merge->area--;
		merge->entries = store->area_entries;
	}
	if (merge->stop || merge->entries == 0) {
		come_to_rest(snapshot);
		return;
	}
	set_state(snapshot, MERGE_READING);
	read_page(snapshot);
}

/* ---- the range ---- */

static void committed(struct dmcore_bio *bio)
{
	struct snapshot *snapshot = bio->context;
	struct store *store = &snapshot->store;
	struct merge *merge = &snapshot->merge;
	uint32_t count = merge->count;

	if (bio->status) {
		/* The entries may be gone or not: nothing is written to either place. */
		merge->doubtful = true;
		fail(snapshot, "Write error in exception store: shutting down merge");
		return;
	}
	store->placed = merge->left;
	store->durable = merge->left;
	dmcore__store_set_area(store, merge->area);
	/* As the kernel says it: what it is if no chunks were left out. */
	atomic_store(&store->next_free,
		     dmcore_cow_area_chunk(store->chunk_sectors, merge->area) + merge->left + 1);
	/* Last ones first: what is left of a run stays one. */
	while (count--)
		dmcore__exceptions_remove(snapshot->exceptions, merge->first_old + count);
	merge->count = 0;
	dmcore__waiters_wake_all(&merge->held);
	step(snapshot);
}

/* Zeroes the entries that have been merged. */
static void commit(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;
	struct merge *merge = &snapshot->merge;
	uint64_t block = store->block_bytes;
	uint64_t from = (uint64_t)(merge->left - merge->page_first) * DMCORE_COW_ENTRY_BYTES;
	uint64_t to = (uint64_t)(merge->entries - merge->page_first) * DMCORE_COW_ENTRY_BYTES;

	if (dmcore__exceptions_reserve(snapshot->exceptions, merge->count)) {
		fail(snapshot, "no memory: shutting down merge");
		return;
	}
	set_state(snapshot, MERGE_COMMITTING);
	memset(store->page + from, 0, to - from);
	from = from / block * block;
	to = (to + block - 1) / block * block;
	dmcore_bio_init(&merge->bio, snapshot->service);
	merge->bio.bdev = snapshot->cow_bdev;
	merge->bio.op = DMCORE_OP_WRITE;
	merge->bio.flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA;
	dmcore_bio_set_buffer(&merge->bio, store->page + from, to - from);
	merge->bio.sector = area_sector(snapshot, merge->area) +
			    dmcore__bytes_to_sectors((uint64_t)merge->page_first *
						     DMCORE_COW_ENTRY_BYTES + from);
	submit(snapshot, committed);
}

static void flushed(struct dmcore_bio *bio)
{
	struct snapshot *snapshot = bio->context;

	if (bio->status)
		fail(snapshot, "Flush after merge failed: shutting down merge");
	else
		commit(snapshot);
}

static void copied(struct kcopyd_job *job)
{
	struct snapshot *snapshot = job->context;
	struct merge *merge = &snapshot->merge;

	if (job->status) {
		fail(snapshot, job->read_err ? "Read error: shutting down merge." :
					       "Write error: shutting down merge.");
		return;
	}
	set_state(snapshot, MERGE_FLUSHING);
	dmcore_bio_init(&merge->bio, snapshot->service);
	merge->bio.bdev = snapshot->origin_bdev;
	merge->bio.op = DMCORE_OP_FLUSH;
	submit(snapshot, flushed);
}

static void copy(struct snapshot *snapshot)
{
	struct merge *merge = &snapshot->merge;
	struct kcopyd_job *job = &merge->job;
	uint64_t sector = merge->first_old << snapshot->chunk_shift;
	uint64_t count = (uint64_t)merge->count << snapshot->chunk_shift;
	uint64_t origin_sectors = dmcore_bdev_size_sectors(snapshot->origin_bdev);

	set_state(snapshot, MERGE_COPYING);
	if (merge->first_old + merge->count - 1 == cut_chunk(snapshot))
		count = snapshot->length_sectors - sector;
	count = sector < origin_sectors ? dmcore__min_u64(count, origin_sectors - sector) : 0;
	job->from.bdev = snapshot->cow_bdev;
	job->from.sector = merge->first_new << snapshot->chunk_shift;
	job->from.count = count;
	job->dests[0].bdev = snapshot->origin_bdev;
	job->dests[0].sector = sector;
	job->num_dests = 1;
	job->done = copied;
	job->context = snapshot;
	if (kcopyd_submit(snapshot->kc, job))
		fail(snapshot, "Write error: shutting down merge.");
}

/* Goes on when no write to the range is under way. */
static void look_at_writes(struct snapshot *snapshot)
{
	struct snapshot_request *write;

	for (write = snapshot->merge.writes; write; write = write->next) {
		if (in_range(&snapshot->merge,
			     dmcore__snapshot_chunk(snapshot, write->sector)))
			return;
	}
	copy(snapshot);
}

static void others_have_it(struct snapshot_waiter *waiter)
{
	struct snapshot *snapshot = dmcore__container_of(waiter, struct snapshot, merge.waiter);
	struct merge *merge = &snapshot->merge;
	uint64_t sector = merge->first_old << snapshot->chunk_shift;
	uint64_t count = (uint64_t)merge->count << snapshot->chunk_shift;

	merge->waiter.wake = others_have_it;
	if (!dmcore__origin_prepare(snapshot->origin, snapshot, sector, count, &merge->waiter))
		return;
	set_state(snapshot, MERGE_WRITES);
	look_at_writes(snapshot);
}

/* ---- start and stop ---- */

void dmcore__merge_start(struct snapshot *snapshot)
{
	struct merge *merge = &snapshot->merge;

	merge->stop = false;
	if (!snapshot->merging || merge->state != MERGE_OFF)
		return;
	atomic_store(&merge->failed, false);
	if (dmcore__snapshot_is_valid(snapshot)) {
		step(snapshot);
		return;
	}
	dmcore_target_log(snapshot->used->target, DMCORE_LOG_ERROR,
			  "Snapshot is invalid: can't merge");
	set_state(snapshot, MERGE_IDLE);
}

bool dmcore__merge_stop(struct snapshot *snapshot, struct snapshot_waiter *waiter)
{
	struct merge *merge = &snapshot->merge;

	merge->stop = true;
	if (merge->state == MERGE_OFF || merge->state == MERGE_IDLE) {
		if (merge->state == MERGE_IDLE)
			set_state(snapshot, MERGE_OFF);
		return false;
	}
	dmcore__waiters_add(&merge->stopped, waiter);
	return true;
}

bool dmcore__merge_leave(struct snapshot *snapshot, struct snapshot_waiter *waiter)
{
	if (!snapshot->merge.doubtful)
		return false;
	/* A snapshot has to know which entries there are: the step is done once more. */
	dmcore__merge_start(snapshot);
	return dmcore__merge_stop(snapshot, waiter);
}

/* ---- requests ---- */

static struct snapshot_request *of_waiter(struct snapshot_waiter *waiter)
{
	return dmcore__container_of(waiter, struct snapshot_request, waiter);
}

void dmcore__request_merge_read(struct dmcore_work *work)
{
	struct snapshot_request *request =
		dmcore__container_of(work, struct snapshot_request, work);
	struct snapshot *snapshot = request->snapshot;
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, request->sector);
	uint64_t new_chunk;
	uint64_t version;

	if (!dmcore__snapshot_is_valid(snapshot) ||
	    dmcore__exceptions_find(snapshot->exceptions, chunk, &new_chunk, &version) !=
		    EXCEPTIONS_FOUND)
		dmcore__request_forward(request, snapshot->origin_bdev, request->sector);
	else
		dmcore__request_forward(request, snapshot->cow_bdev,
					dmcore__snapshot_cow_sector(snapshot, new_chunk,
								    request->sector));
}

/* Of one without an exception, or of an invalid snapshot. */
static void write_origin(struct snapshot_request *request)
{
	struct snapshot *snapshot = request->snapshot;

	if (dmcore__origin_prepare(snapshot->origin, snapshot, request->sector, request->count,
				   &request->waiter))
		dmcore__request_forward(request, snapshot->origin_bdev, request->sector);
}

static void write_ended(struct snapshot_request *request, int status)
{
	struct snapshot *snapshot = request->snapshot;
	struct snapshot_request **link = &snapshot->merge.writes;

	while (*link != request)
		link = &(*link)->next;
	*link = request->next;
	dmcore_bio_complete_remote(request->bio, status);
	if (snapshot->merge.state == MERGE_WRITES)
		look_at_writes(snapshot);
}

static void run_write(struct snapshot_waiter *waiter)
{
	struct snapshot_request *request = of_waiter(waiter);
	struct snapshot *snapshot = request->snapshot;
	uint64_t chunk = dmcore__snapshot_chunk(snapshot, request->sector);
	struct merge *merge = &snapshot->merge;
	uint64_t new_chunk;
	uint64_t version;

	waiter->wake = run_write;
	if (!dmcore__snapshot_is_valid(snapshot) ||
	    dmcore__exceptions_find(snapshot->exceptions, chunk, &new_chunk, &version) !=
		    EXCEPTIONS_FOUND) {
		write_origin(request);
		return;
	}
	if (!snapshot->free_carrier) {
		dmcore__waiters_add(&snapshot->carrier_waiters, waiter);
		return;
	}
	if (in_range(merge, chunk)) {
		if (merge->doubtful)
			dmcore_bio_complete_remote(request->bio, -EIO);
		else
			dmcore__waiters_add(&merge->held, waiter);
		return;
	}
	request->next = merge->writes;
	merge->writes = request;
	dmcore__carry(request, dmcore__snapshot_cow_sector(snapshot, new_chunk, request->sector),
		      write_ended);
}

void dmcore__request_merge_write(struct dmcore_work *work)
{
	run_write(&dmcore__container_of(work, struct snapshot_request, work)->waiter);
}
