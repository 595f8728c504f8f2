/* SPDX-License-Identifier: MIT */
/*
 * What is common to all requests but the plain ones: who carries out which, and the loop that
 * starts system calls, whether they end at once or later, and again if they were interrupted.
 * Called by the other files of the driver.
 */
#include <errno.h>
#include <stddef.h>

#include <dmcore/queue.h>

#include "bdev/drivers/file/file.h"

/* A call that has moved nothing so often in a row is not going to. */
#define STALLS_MAX 1000

static struct filedev_request *request_of_io(struct dmcore_fileio *io)
{
	return (struct filedev_request *)(void *)io;
}

static struct filedev_request *request_of_work(struct dmcore_work *work)
{
	return (void *)((char *)work - offsetof(struct filedev_request, wait));
}

static void io_done(struct dmcore_fileio *io)
{
	dmcore__filedev_continue(request_of_io(io));
}

static void work_run(struct dmcore_work *work)
{
	dmcore__filedev_run(request_of_work(work));
}

struct filedev_request *dmcore__filedev_begin(struct dmcore_bio *bio)
{
	struct filedev_request *request = dmcore_bio_driver_data(bio);
	struct filedev *device = dmcore_bdev_private(bio->bdev);

	request->bio = bio;
	request->bounce = NULL;
	request->stalls = 0;
	request->bounced = false;
	request->sync_after = false;
	request->opening = -1;
	request->io.done = io_done;
	request->io.file = device->file;
	request->io.offset_bytes = bio->sector << DMCORE_SECTOR_SHIFT;
	request->io.unused = 0;
	request->io.tag = 0;
	request->io.unused2 = 0;
	return request;
}

bool dmcore__filedev_may_stall(struct filedev_request *request)
{
	return ++request->stalls <= STALLS_MAX;
}

void dmcore__filedev_run_later(struct filedev_request *request)
{
	request->wait.work.fn = work_run;
	dmcore_queue_post(request->bio->queue, &request->wait.work);
}

/* As filedev_settle_fn, for any result. */
static bool settle(struct filedev_request *request)
{
	int64_t result = request->io.result;

	if (result == -EINTR || result == -EAGAIN) {
		if (dmcore__filedev_may_stall(request)) {
			if (result == -EINTR)
				return true;
			/* The kernel is short of something: let others end first. */
			dmcore__filedev_run_later(request);
			return false;
		}
		request->io.result = -EIO;
	}
	return request->settle(request);
}

void dmcore__filedev_run(struct filedev_request *request)
{
	do {
		if (dmcore_fileio_start(request->bio->queue, &request->io) == 0)
			return;
	} while (settle(request));
}

void dmcore__filedev_continue(struct filedev_request *request)
{
	if (settle(request))
		dmcore__filedev_run(request);
}

void dmcore__filedev_submit(struct dmcore_bio *bio)
{
	struct filedev_request *request = dmcore__filedev_begin(bio);
	bool durable = bio->op == DMCORE_OP_FLUSH || bio->flags & DMCORE_BIO_FUA;

	if (durable && atomic_load(&dmcore__filedev_of(request)->lost)) {
		dmcore_bio_complete(bio, -EIO);
		return;
	}
	switch (bio->op) {
	case DMCORE_OP_READ:
	case DMCORE_OP_WRITE:
		dmcore__filedev_transfer(request);
		break;
	case DMCORE_OP_FLUSH:
		dmcore__filedev_sync(request);
		break;
	case DMCORE_OP_DISCARD:
		dmcore__filedev_discard(request);
		break;
	case DMCORE_OP_WRITE_ZEROES:
		dmcore__filedev_zero(request);
		break;
	default:
		dmcore_bio_complete(bio, -EOPNOTSUPP);
		break;
	}
}
