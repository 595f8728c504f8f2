/* SPDX-License-Identifier: MIT */
/*
 * Write-behind: a write is acknowledged while one leg, slower than the others, hasn't got it yet.
 * Its data are copied to memory of the mirror's own, and it stays inside its region until that leg
 * has ended it: so the log has the region marked, and nobody takes its legs for the same. Writes
 * that overlap reach the leg in the order in which they were acknowledged. When the memory is full,
 * the next ones wait; when some leg has failed, none goes behind any more. Called on the service by
 * writes.c, and by targets/mirror.c through works that it posts.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/compiler.h"
#include "base/vecs.h"
#include "targets/mirror/mirror.h"

#define PAGE_SECTORS (BEHIND_PAGE_BYTES / DMCORE_SECTOR_BYTES)

/* ---- memory ---- */

static uint32_t pages_for(uint64_t sectors)
{
	return (uint32_t)((sectors + PAGE_SECTORS - 1) / PAGE_SECTORS);
}

int dmcore__behind_allocate(struct mirror *mirror)
{
	struct mirror_behind *behind = &mirror->behind;
	uint32_t num_pages = behind->limit_sectors / PAGE_SECTORS;
	uint32_t num_writes = (uint32_t)dmcore__min_u64(num_pages, BEHIND_WRITES_MAX);
	uintptr_t first;

	behind->tail = &behind->head;
	dmcore__mirror_list_init(&behind->writers);
	dmcore__mirror_list_init(&behind->others);
	if (!behind->leg)
		return 0;
	/* Pages are aligned for the sake of direct I/O. */
	behind->memory = dmcore_zalloc(mirror->core, (num_pages + (size_t)1) * BEHIND_PAGE_BYTES);
	behind->pages = dmcore_zalloc(mirror->core, num_pages * sizeof(*behind->pages));
	behind->writes = dmcore_zalloc(mirror->core, num_writes * sizeof(*behind->writes));
	if (!behind->memory || !behind->pages || !behind->writes)
		return -ENOMEM;
	first = BEHIND_PAGE_BYTES - (uintptr_t)behind->memory % BEHIND_PAGE_BYTES;
	for (uint32_t i = 0; i < num_pages; i++)
		behind->pages[i] = behind->memory + first + (size_t)i * BEHIND_PAGE_BYTES;
	behind->num_pages = num_pages;
	for (uint32_t i = 0; i < num_writes; i++) {
		behind->writes[i].next = behind->idle;
		behind->idle = &behind->writes[i];
	}
	return 0;
}

void dmcore__behind_free(struct mirror *mirror)
{
	struct mirror_behind *behind = &mirror->behind;

	dmcore_free(mirror->core, behind->memory);
	dmcore_free(mirror->core, behind->pages);
	dmcore_free(mirror->core, behind->writes);
}

uint32_t dmcore__behind_io_sectors(const struct mirror *mirror)
{
	uint32_t pages = (uint32_t)dmcore__min_u64(mirror->behind.limit_sectors / PAGE_SECTORS,
						   BEHIND_WRITE_PAGES_MAX);

	/* The largest power of two. */
	return PAGE_SECTORS << (31 - __builtin_clz(pages));
}

/* ---- one write ---- */

static bool overlaps(const struct behind_write *write, uint64_t sector, uint64_t count)
{
	return write->sector < sector + count && sector < write->sector + write->count;
}

/* Whether one before `end` overlaps; NULL: whether any does. */
static bool has_overlap(const struct mirror_behind *behind, const struct behind_write *end,
			uint64_t sector, uint64_t count)
{
	for (const struct behind_write *write = behind->head; write != end; write = write->next) {
		if (overlaps(write, sector, count))
			return true;
	}
	return false;
}

static void ended(struct dmcore_bio *bio);

static void send(struct mirror *mirror, struct behind_write *write)
{
	const struct mirror_leg *leg = &mirror->legs[mirror->behind.leg];
	struct dmcore_bio *bio = &write->bio;

	write->is_sent = true;
	mirror->behind.num_unsent--;
	dmcore_bio_init(bio, mirror->service);
	bio->bdev = leg->bdev;
	bio->op = DMCORE_OP_WRITE;
	bio->sector = dmcore__mirror_leg_sector(leg, write->sector);
	bio->count = write->count;
	bio->vecs = write->pages;
	bio->num_vecs = write->num_pages;
	bio->done = ended;
	dmcore__mirror_send(mirror, bio);
}

/* Takes a copy of a request's data, and sends it on as soon as nothing before it overlaps. */
static void add(struct mirror *mirror, const struct mirror_request *request)
{
	struct mirror_behind *behind = &mirror->behind;
	struct behind_write *write = behind->idle;
	size_t left = (size_t)dmcore__sectors_to_bytes(request->count);

	behind->idle = write->next;
	write->next = NULL;
	write->sector = request->sector;
	write->count = request->count;
	write->region = request->region;
	write->is_sent = false;
	write->num_pages = pages_for(request->count);
	for (uint32_t i = 0; i < write->num_pages; i++) {
		size_t at = (size_t)i * BEHIND_PAGE_BYTES;
		size_t bytes = left - at < BEHIND_PAGE_BYTES ? left - at : BEHIND_PAGE_BYTES;

		write->pages[i].base = behind->pages[--behind->num_pages];
		write->pages[i].len_bytes = bytes;
		dmcore__vecs_gather(request->vecs, request->vec_offset_bytes + at,
				    write->pages[i].base, bytes);
	}
	atomic_fetch_add(&behind->num_writes, 1);
	atomic_fetch_add(&behind->used_sectors, write->num_pages * PAGE_SECTORS);
	dmcore__region_enter_for(mirror->regions, write->region);
	behind->num_unsent++;
	*behind->tail = write;
	behind->tail = &write->next;
	if (!has_overlap(behind, write, write->sector, write->count))
		send(mirror, write);
}

bool dmcore__behind_admit(struct mirror_request *request)
{
	struct mirror *mirror = request->mirror;
	struct mirror_behind *behind = &mirror->behind;
	/* The others may have to be made from that leg. */
	bool lags = request->op == DMCORE_OP_WRITE && !atomic_load(&mirror->leg_failed);
	bool fits = lags ? behind->idle && pages_for(request->count) <= behind->num_pages :
			   !has_overlap(behind, NULL, request->sector, request->count);

	if (!fits || (behind->writers.head && !behind->lets_go)) {
		behind->is_stuck = true;
		dmcore__mirror_list_add(&behind->writers, request);
		return false;
	}
	if (lags) {
		request->sent &= ~(1u << behind->leg);
		add(mirror, request);
	}
	return true;
}

/* ---- its end ---- */

static void give_back(struct mirror_behind *behind, struct behind_write *write)
{
	struct behind_write **link = &behind->head;

	while (*link != write)
		link = &(*link)->next;
	*link = write->next;
	if (!*link)
		behind->tail = link;
	for (uint32_t i = 0; i < write->num_pages; i++)
		behind->pages[behind->num_pages++] = write->pages[i].base;
	write->next = behind->idle;
	behind->idle = write;
	atomic_fetch_sub(&behind->used_sectors, write->num_pages * PAGE_SECTORS);
}

/* One that has waited for others that it overlaps, or NULL. */
static struct behind_write *next_to_send(const struct mirror_behind *behind)
{
	struct behind_write *write = behind->num_unsent > 0 ? behind->head : NULL;

	while (write && (write->is_sent ||
			 has_overlap(behind, write, write->sector, write->count)))
		write = write->next;
	return write;
}

/* First come, first served: who doesn't fit yet keeps the others from it. */
static void let_writers_go(struct mirror *mirror)
{
	struct mirror_behind *behind = &mirror->behind;

	behind->has_room = true;
	if (behind->lets_go)
		return;
	behind->lets_go = true;
	while (behind->has_room) {
		struct mirror_list waiting = behind->writers;
		struct mirror_request *request = waiting.head;

		behind->has_room = false;
		behind->is_stuck = false;
		dmcore__mirror_list_init(&behind->writers);
		while (request) {
			struct mirror_request *next = request->next;

			if (behind->is_stuck)
				dmcore__mirror_list_add(&behind->writers, request);
			else
				dmcore__mirror_run(request);
			request = next;
		}
	}
	behind->lets_go = false;
}

/* That leg has all that the others have. */
static void let_others_go(struct mirror *mirror)
{
	struct mirror_behind *behind = &mirror->behind;
	struct dmcore_call *call = behind->idle_call;
	struct mirror_request *request;

	dmcore__mirror_review_first(mirror);
	while ((request = dmcore__mirror_list_take(&behind->others)))
		dmcore__mirror_run_behind(request);
	behind->idle_call = NULL;
	if (call)
		call->fn(call);
}

static void ended(struct dmcore_bio *bio)
{
	struct behind_write *write = dmcore__container_of(bio, struct behind_write, bio);
	struct mirror *mirror = bio->context;
	struct mirror_behind *behind = &mirror->behind;
	struct behind_write *next;
	uint64_t region = write->region;

	give_back(behind, write);
	if (bio->status) {
		dmcore__mirror_fail_leg(mirror, behind->leg, MIRROR_WRITE_FAILED);
		dmcore__mirror_unsync(mirror, region);
	}
	/* Who sees that there are none left sees that, too. */
	atomic_fetch_sub(&behind->num_writes, 1);
	if (dmcore__region_leave(mirror->regions, region))
		dmcore__mirror_wake(mirror);
	while ((next = next_to_send(behind)))
		send(mirror, next);
	let_writers_go(mirror);
	if (atomic_load(&behind->num_writes) == 0)
		let_others_go(mirror);
	dmcore__recovery_go_on(mirror);
	dmcore__log_flush(mirror);
}

/* ---- who waits until none is behind ---- */

void dmcore__behind_await(struct dmcore_work *work)
{
	struct mirror_request *request =
		dmcore__container_of(work, struct mirror_request, work);
	struct mirror_behind *behind = &request->mirror->behind;

	if (atomic_load(&behind->num_writes) > 0)
		dmcore__mirror_list_add(&behind->others, request);
	else
		dmcore__mirror_run_behind(request);
}

bool dmcore__behind_delays(struct mirror *mirror, struct dmcore_call *call)
{
	if (atomic_load(&mirror->behind.num_writes) == 0)
		return false;
	mirror->behind.idle_call = call;
	return true;
}
