/* SPDX-License-Identifier: MIT */
/*
 * Where a snapshot's exceptions stand on its COW device. They are placed in the order in which
 * their chunks were given out, and become durable by commits: one write, with a flush before it, of
 * the blocks of the area that have changed. The flush makes the copied chunks durable that the
 * entries speak of, and the next area, which is zeroed before the last entry of one is written.
 *
 * A transient store has no entries: what is placed counts as durable. Called on the service by
 * pending.c, requests.c and origin.c.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "targets/snapshot/snapshot.h"

static void commit_ended(struct dmcore_bio *bio);

static struct snapshot *snapshot_of(struct store *store)
{
	return dmcore__container_of(store, struct snapshot, store);
}

static void time_is_up(struct dmcore_timer *timer)
{
	struct store *store = dmcore__container_of(timer, struct store, timer);

	dmcore__store_want(snapshot_of(store));
	dmcore__store_commit(snapshot_of(store));
}

void dmcore__store_start(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;

	dmcore__waiters_init(&store->durability);
	dmcore__waiters_init(&store->header_waiters);
	store->timer.fn = time_is_up;
	if (!store->persistent)
		atomic_store(&store->next_free, 0);
}

/* ---- room ---- */

int dmcore__store_allocate(struct snapshot *snapshot, uint64_t *new_chunk)
{
	struct store *store = &snapshot->store;
	uint64_t next_free = atomic_load(&store->next_free);
	uint64_t size = dmcore_bdev_size_sectors(snapshot->cow_bdev);

	if (size >> store->chunk_shift < next_free + 1)
		return -ENOSPC;
	*new_chunk = next_free++;
	if (store->persistent && dmcore_cow_is_metadata(store->chunk_sectors, next_free))
		next_free++;
	atomic_store(&store->next_free, next_free);
	return 0;
}

void dmcore__store_recount(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;
	uint64_t next_free = DMCORE_COW_FIRST_DATA_CHUNK;
	struct exceptions_run run = { 0 };

	while (dmcore__exceptions_next(snapshot->exceptions, run.old_chunk + run.count, &run) ==
	       EXCEPTIONS_FOUND)
		next_free = dmcore__max_u64(next_free, run.new_chunk + run.count);
	if (dmcore_cow_is_metadata(store->chunk_sectors, next_free))
		next_free++;
	atomic_store(&store->next_free, next_free);
}

/* Entries of the page that is kept, from its first one on. */
static uint32_t page_first(const struct store *store)
{
	if (store->placed == 0)
		return 0;
	/* A page stays until it is durable to its last entry. */
	return (store->durable == store->placed ? store->placed : store->placed - 1) /
	       store->page_entries * store->page_entries;
}

bool dmcore__store_has_room(const struct store *store)
{
	if (!store->persistent || store->durable == store->placed)
		return true;
	return store->placed % store->page_entries != 0;
}

bool dmcore__store_is_over(const struct snapshot *snapshot)
{
	const struct store *store = &snapshot->store;
	uint64_t next = dmcore_cow_area_chunk(store->chunk_sectors,
					      atomic_load(&store->current_area) + 1);

	return store->persistent && store->placed == store->area_entries &&
	       dmcore_bdev_size_sectors(snapshot->cow_bdev) >> store->chunk_shift <= next;
}

void dmcore__store_set_area(struct store *store, uint64_t area)
{
	atomic_store(&store->current_area, area);
	atomic_store(&store->num_areas, area + 1);
}

bool dmcore__store_is_durable(const struct store *store, uint64_t old_chunk)
{
	uint32_t first = page_first(store);

	for (uint32_t i = store->durable; i < store->placed; i++) {
		struct dmcore_cow_entry entry;

		dmcore_cow_entry_decode(store->page + (i - first) * DMCORE_COW_ENTRY_BYTES,
					&entry);
		if (entry.old_chunk == old_chunk)
			return false;
	}
	return true;
}

void dmcore__store_place(struct snapshot *snapshot, uint64_t old_chunk, uint64_t new_chunk)
{
	struct dmcore_cow_entry entry = { old_chunk, new_chunk };
	struct store *store = &snapshot->store;
	uint32_t in_page;

	if (!store->persistent)
		return;
	in_page = store->placed % store->page_entries;
	if (in_page == 0)
		memset(store->page, 0, (size_t)store->page_entries * DMCORE_COW_ENTRY_BYTES);
	dmcore_cow_entry_encode(&entry, store->page + in_page * DMCORE_COW_ENTRY_BYTES);
	store->placed++;
	store->placed_total++;
	if (store->placed == store->area_entries)
		atomic_fetch_add(&store->num_areas, 1);
	/* Before anybody can find the exception. */
	atomic_store(&snapshot->dirty, true);
	if (store->placed % store->page_entries == 0)
		dmcore__store_want(snapshot);
	else if (!store->timer.previous)
		dmcore_timer_start(snapshot->service, &store->timer,
				   dmcore_clock_ns(snapshot->core) + SNAPSHOT_COMMIT_NS);
}

/* ---- commits ---- */

bool dmcore__store_is_idle(const struct store *store)
{
	return store->state == STORE_IDLE && !store->header_busy;
}

static void submit(struct snapshot *snapshot)
{
	struct dmcore_bio *bio = &snapshot->store.bio;
	int ret;

	bio->bdev = snapshot->cow_bdev;
	bio->done = commit_ended;
	bio->context = snapshot;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		bio->status = ret;
		commit_ended(bio);
	}
}

/* Zeroes the area behind the one that is full. */
static void zero_next_area(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;
	uint64_t area = atomic_load(&store->current_area) + 1;

	store->state = STORE_ZEROING;
	dmcore_bio_init(&store->bio, snapshot->service);
	store->bio.op = DMCORE_OP_WRITE_ZEROES;
	store->bio.sector = dmcore_cow_area_chunk(store->chunk_sectors, area)
			    << store->chunk_shift;
	store->bio.count = store->chunk_sectors;
	submit(snapshot);
}

static void write_entries(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;
	uint32_t first = (store->batch_end - 1) / store->page_entries * store->page_entries;
	uint64_t from = (uint64_t)(store->durable - first) * DMCORE_COW_ENTRY_BYTES;
	uint64_t to = (uint64_t)(store->batch_end - first) * DMCORE_COW_ENTRY_BYTES;
	uint64_t area = dmcore_cow_area_chunk(store->chunk_sectors,
					      atomic_load(&store->current_area));
	uint64_t block = store->block_bytes;

	store->state = STORE_WRITING;
	from = from / block * block;
	to = (to + block - 1) / block * block;
	/* More may be placed while it is under way. */
	memcpy(store->io_page + from, store->page + from, to - from);
	memset(store->io_page + (uint64_t)(store->batch_end - first) * DMCORE_COW_ENTRY_BYTES, 0,
	       to - (uint64_t)(store->batch_end - first) * DMCORE_COW_ENTRY_BYTES);
	dmcore_bio_init(&store->bio, snapshot->service);
	store->bio.op = DMCORE_OP_WRITE;
	store->bio.flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA;
	dmcore_bio_set_buffer(&store->bio, store->io_page + from, to - from);
	store->bio.sector = (area << store->chunk_shift) +
			    dmcore__bytes_to_sectors((uint64_t)first * DMCORE_COW_ENTRY_BYTES +
						     from);
	submit(snapshot);
}

static void wake_durable(struct store *store)
{
	while (store->durability.head &&
	       store->durability.head->ticket <= store->durable_total) {
		struct snapshot_waiter *waiter = dmcore__waiters_take(&store->durability);

		waiter->wake(waiter);
	}
}

void dmcore__store_want(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;

	if (!store->wanted)
		store->wanted_order = snapshot->num_begun;
	store->wanted = true;
}

/* Whether chunks that had been begun when the commit was wanted will soon be part of it. */
static bool is_worth_waiting(const struct snapshot *snapshot)
{
	const struct store *store = &snapshot->store;

	return snapshot->first_pending && dmcore__store_has_room(store) &&
	       snapshot->first_pending->order <= store->wanted_order;
}

void dmcore__store_commit(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;

	if (!dmcore__snapshot_is_valid(snapshot)) {
		dmcore__waiters_wake_all(&store->durability);
		return;
	}
	if (!store->wanted || store->state != STORE_IDLE || is_worth_waiting(snapshot))
		return;
	store->wanted = false;
	dmcore_timer_cancel(snapshot->service, &store->timer);
	if (store->placed == store->durable) {
		wake_durable(store);
		return;
	}
	store->batch_end = store->placed;
	if (store->batch_end == store->area_entries)
		zero_next_area(snapshot);
	else
		write_entries(snapshot);
}

static void became_durable(struct snapshot *snapshot)
{
	struct store *store = &snapshot->store;

	store->durable_total += store->batch_end - store->durable;
	store->durable = store->batch_end;
	if (store->durable == store->area_entries) {
		atomic_fetch_add(&store->current_area, 1);
		store->placed = 0;
		store->durable = 0;
	}
	if (store->durable == store->placed)
		atomic_store(&snapshot->dirty, false);
}

static void commit_ended(struct dmcore_bio *bio)
{
	struct snapshot *snapshot = bio->context;
	struct store *store = &snapshot->store;
	bool zeroed = store->state == STORE_ZEROING;

	if (bio->status == 0 && zeroed && dmcore__snapshot_is_valid(snapshot)) {
		write_entries(snapshot);
		return;
	}
	store->state = STORE_IDLE;
	if (bio->status)
		dmcore__snapshot_invalidate(snapshot, "Error reading/writing.");
	else if (!zeroed)
		became_durable(snapshot);
	wake_durable(store);
	dmcore__pending_advance_soon(snapshot);
}

void dmcore__store_wait(struct snapshot *snapshot, struct snapshot_waiter *waiter)
{
	struct store *store = &snapshot->store;

	waiter->ticket = store->placed_total;
	dmcore__waiters_add(&store->durability, waiter);
	dmcore__store_want(snapshot);
	dmcore__pending_advance_soon(snapshot);
}

/* ---- the end of a snapshot ---- */

static void header_ended(struct dmcore_bio *bio)
{
	struct snapshot *snapshot = bio->context;
	struct store *store = &snapshot->store;

	if (bio->status)
		dmcore_target_log(snapshot->used->target, DMCORE_LOG_ERROR,
				  "the header couldn't be invalidated: the next activation "
				  "takes the snapshot for a valid one");
	store->header_busy = false;
	atomic_store(&snapshot->unconcerned, true);
	dmcore__waiters_wake_all(&store->header_waiters);
	dmcore__pending_advance_soon(snapshot);
}

static void write_invalid_header(struct snapshot *snapshot)
{
	struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 0, DMCORE_COW_VERSION,
					    snapshot->store.chunk_sectors };
	struct store *store = &snapshot->store;
	struct dmcore_bio *bio = &store->header_bio;
	int ret;

	memset(store->header, 0, store->block_bytes);
	dmcore_cow_header_encode(&header, store->header);
	dmcore_bio_init(bio, snapshot->service);
	bio->bdev = snapshot->cow_bdev;
	bio->op = DMCORE_OP_WRITE;
	bio->flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA;
	dmcore_bio_set_buffer(bio, store->header, store->block_bytes);
	bio->done = header_ended;
	bio->context = snapshot;
	store->header_busy = true;
	ret = dmcore_bio_submit(bio);
	if (ret) {
		bio->status = ret;
		header_ended(bio);
	}
}

void dmcore__snapshot_invalidate(struct snapshot *snapshot, const char *why)
{
	struct store *store = &snapshot->store;

	if (!dmcore__snapshot_is_valid(snapshot))
		return;
	dmcore_target_log(snapshot->used->target, DMCORE_LOG_ERROR, "Invalidating snapshot: %s",
			  why);
	atomic_store(&snapshot->valid, false);
	/* Who reads the origin now looks again. */
	dmcore__exceptions_touch(snapshot->exceptions);
	dmcore_timer_cancel(snapshot->service, &store->timer);
	if (store->persistent)
		write_invalid_header(snapshot);
	else
		atomic_store(&snapshot->unconcerned, true);
	dmcore_target_event(snapshot->used->target);
	dmcore__waiters_wake_all(&store->durability);
	dmcore__waiters_wake_all(&snapshot->space_waiters);
	dmcore__waiters_wake_all(&snapshot->slot_waiters);
	dmcore__pending_advance_soon(snapshot);
}
