/* SPDX-License-Identifier: MIT */
/*
 * FLUSH: fdatasync(), once. When it fails, the kernel has forgotten which pages it couldn't write
 * and would report success the next time. So a failure is remembered here: from then on no flush
 * and no FUA write succeeds, until the file is closed. Called by file.c and by the other operations
 * for their FUA.
 *
 * The kernel tells of a failure once for each opening of the file (open file description). Were two
 * syncs to share one, the second would succeed while the first, which was told, waits for its queue
 * to be polled. So each has an opening for itself until its result has been noted; see ADR 12. Who
 * finds none free waits in a line that any thread may join, and who gives one back passes it on.
 */
#include <errno.h>
#include <stddef.h>
#include <strings.h>

#include <dmcore/queue.h>

#include "bdev/drivers/file/file.h"

void dmcore__filedev_note_loss(struct filedev *device, int error)
{
	switch (error) {
	case -EFAULT:
	case -EFBIG:
	case -EINVAL:
		/* Refused before anything was written. */
		return;
	default:
		atomic_store(&device->lost, true);
	}
}

static struct filedev_request *request_of_work(struct dmcore_work *work)
{
	return (void *)((char *)work - offsetof(struct filedev_request, wait));
}

/* Takes any opening, the main one last; returns its number, or -1. */
static int take_opening(struct filedev *device)
{
	uint32_t openings = atomic_load(&device->free_openings);
	uint32_t bit;

	do {
		if (openings == 0)
			return -1;
		bit = UINT32_C(1) << (31 - __builtin_clz(openings));
	} while (!atomic_compare_exchange_weak(&device->free_openings, &openings, openings & ~bit));
	return ffs((int)bit) - 1;
}

/* Puts a chain, from `first` to `last`, before those who wait. */
static void join_line(struct filedev *device, struct dmcore_work *first, struct dmcore_work *last)
{
	struct dmcore_work *head = atomic_load(&device->waiting);

	do {
		last->next = head;
	} while (!atomic_compare_exchange_weak(&device->waiting, &head, first));
}

/* Takes the one that waits longest out of the line, or NULL. */
static struct dmcore_work *leave_line(struct filedev *device)
{
	struct dmcore_work *first = atomic_exchange(&device->waiting, NULL);
	struct dmcore_work *before = NULL;
	struct dmcore_work *oldest = first;

	while (oldest && oldest->next) {
		before = oldest;
		oldest = oldest->next;
	}
	if (before)
		join_line(device, first, before);
	return oldest;
}

/* Passes an opening on to who waits for one, or makes it free. */
static void pass_on(struct filedev *device, int opening)
{
	struct filedev_request *request;
	struct dmcore_work *work;

	do {
		work = leave_line(device);
		if (work) {
			request = request_of_work(work);
			request->opening = (int8_t)opening;
			dmcore_queue_post(request->bio->queue, work);
		} else {
			atomic_fetch_or(&device->free_openings, UINT32_C(1) << opening);
		}
		/* Who has come in between has seen no opening, or we don't see them: not both. */
		if (!atomic_load(&device->waiting))
			return;
		opening = take_opening(device);
	} while (opening >= 0);
}

bool dmcore__filedev_claim_main(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);
	uint32_t bit = UINT32_C(1) << FILEDEV_MAIN;

	if (!(atomic_fetch_and(&device->free_openings, ~bit) & bit))
		return false;
	request->opening = FILEDEV_MAIN;
	return true;
}

void dmcore__filedev_release(struct filedev_request *request)
{
	int opening = request->opening;

	request->opening = -1;
	if (opening >= 0)
		pass_on(dmcore__filedev_of(request), opening);
}

static void use_opening(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);

	request->io.file = device->openings[request->opening].file;
}

/* Has been given an opening by who had it before. */
static void opening_granted(struct dmcore_work *work)
{
	struct filedev_request *request = request_of_work(work);

	use_opening(request);
	dmcore__filedev_run(request);
}

/* Waits for an opening. It comes in a poll of the request's own queue, so not before we return. */
static void wait_for_opening(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);
	struct dmcore_work *work = &request->wait.work;
	int opening;

	work->fn = opening_granted;
	join_line(device, work, work);
	/* One may have become free before we were in the line. */
	opening = take_opening(device);
	if (opening >= 0)
		pass_on(device, opening);
}

static bool sync_settle(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);

	if (request->io.result < 0)
		atomic_store(&device->lost, true);
	/* Not before: the kernel tells who has it next nothing of what it has told here. */
	dmcore__filedev_release(request);
	dmcore_bio_complete(request->bio, atomic_load(&device->lost) ? -EIO : 0);
	return false;
}

bool dmcore__filedev_become_sync(struct filedev_request *request)
{
	struct dmcore_fileio *io = &request->io;

	io->op = DMCORE_FILEIO_DATASYNC;
	io->flags = 0;
	io->vecs = NULL;
	io->num_vecs = 0;
	io->offset_bytes = 0;
	io->len_bytes = 0;
	request->settle = sync_settle;
	request->opening = (int8_t)take_opening(dmcore__filedev_of(request));
	if (request->opening < 0) {
		wait_for_opening(request);
		return false;
	}
	use_opening(request);
	return true;
}

void dmcore__filedev_sync(struct filedev_request *request)
{
	/* Nothing was written through this opening. */
	if (dmcore__filedev_of(request)->read_only) {
		dmcore_bio_complete(request->bio, 0);
		return;
	}
	if (dmcore__filedev_become_sync(request))
		dmcore__filedev_run(request);
}
