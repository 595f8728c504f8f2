/* SPDX-License-Identifier: MIT */
/*
 * Plain blocking I/O: each call borrows a queue of the core's own, so it runs the same path as
 * every other request. Called by applications from any thread.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/error.h"
#include "bdev/bio.h"

/* One bio at a time, and some for its pieces. */
#define SYNC_BIOS 1
#define SYNC_SPLITS 32
#define SYNC_DEPTH 32
/* Calls at once; more wait for one of them to return. */
#define SYNC_QUEUES_MAX 96u
/* Of those, on mapped devices: all of them may wait for a device to be resumed, by somebody who
 * reads or writes one below before that. */
#define SYNC_MAPPED_MAX 64u
/* Of memory in one request: an entry of a vector is shorter than 4 GiB. */
#define SYNC_BYTES_MAX (UINT64_C(1) << 30)

/* Inline system calls answer a single request fastest; the environment may ask otherwise. */
static enum dmcore_backend sync_backend(const struct dmcore *core)
{
	if (core->options.backend != DMCORE_BACKEND_AUTO || getenv("DMCORE_BACKEND"))
		return DMCORE_BACKEND_AUTO;
	return DMCORE_BACKEND_PREAD;
}

static int make_queue(struct dmcore *core, struct dmcore_queue **result)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.flags = DMCORE_QUEUE_MIGRATES;
	options.backend = sync_backend(core);
	options.bios = SYNC_BIOS;
	options.splits = SYNC_SPLITS;
	options.depth = SYNC_DEPTH;
	return dmcore__queue_create(core, &options, true, result);
}

/* Whether a call can't have a queue yet. */
static bool must_wait(const struct dmcore__queues *queues, bool mapped)
{
	if (mapped && queues->num_sync_mapped == SYNC_MAPPED_MAX)
		return true;
	return dmcore__list_empty(&queues->idle) && queues->num_sync == SYNC_QUEUES_MAX;
}

/* An idle queue; NULL: there is none, and one more may be made, which has been counted. */
static struct dmcore_queue *take_idle(struct dmcore__queues *queues, bool mapped)
{
	struct dmcore_queue *queue = NULL;

	pthread_mutex_lock(&queues->sync_lock);
	while (must_wait(queues, mapped))
		pthread_cond_wait(&queues->sync_returned, &queues->sync_lock);
	queues->num_sync_mapped += mapped;
	if (dmcore__list_empty(&queues->idle)) {
		queues->num_sync++;
	} else {
		queue = dmcore__container_of(queues->idle.next, struct dmcore_queue, idle_link);
		dmcore__list_remove(&queue->idle_link);
	}
	pthread_mutex_unlock(&queues->sync_lock);
	return queue;
}

static int borrow_queue(struct dmcore *core, bool mapped, struct dmcore_queue **result)
{
	struct dmcore__queues *queues = core->queues;
	struct dmcore_queue *queue;
	int ret = dmcore__check_alive(core);

	if (ret)
		return ret;
	queue = take_idle(queues, mapped);
	if (queue) {
		*result = queue;
		return dmcore_queue_claim(queue);
	}
	ret = make_queue(core, result);
	if (ret) {
		pthread_mutex_lock(&queues->sync_lock);
		queues->num_sync--;
		queues->num_sync_mapped -= mapped;
		pthread_cond_broadcast(&queues->sync_returned);
		pthread_mutex_unlock(&queues->sync_lock);
	}
	return ret;
}

static void return_queue(struct dmcore_queue *queue, bool mapped)
{
	struct dmcore__queues *queues = queue->core->queues;

	/* Else this thread, if it suspends a device next, would take another's call for its own. */
	atomic_store(&queue->owned, false);
	pthread_mutex_lock(&queues->sync_lock);
	dmcore__list_append(&queues->idle, &queue->idle_link);
	queues->num_sync_mapped -= mapped;
	/* Not all who wait can go on with what has come back. */
	pthread_cond_broadcast(&queues->sync_returned);
	pthread_mutex_unlock(&queues->sync_lock);
}

/* Puts the device's name before a message; a mapped device may be given another one meanwhile. */
static int put_name(struct dmcore_bdev *bdev, int error)
{
	if (!dmcore__alive(bdev->core))
		return error;
	dmcore__lock(bdev->core);
	dmcore__error_prefix(error, "%s", bdev->name);
	dmcore__unlock(bdev->core);
	return error;
}

/* The message of a failed call. */
static int say_error(struct dmcore_bdev *bdev, int error)
{
	char text[96];

	dmcore__error(error, "%s", dmcore__strerror(error, text, sizeof(text)));
	return put_name(bdev, error);
}

/* Whether the caller's numbers suit the device at all; else a message. */
static int check_range(struct dmcore_bdev *bdev, uint64_t len_bytes, uint64_t offset_bytes)
{
	uint64_t mask = dmcore__sectors_to_bytes((uint64_t)dmcore__bdev_block_mask(bdev) + 1) - 1;
	uint64_t size_bytes = dmcore__sectors_to_bytes(dmcore_bdev_size_sectors(bdev));
	int ret;

	if ((len_bytes | offset_bytes) & mask)
		ret = dmcore__error(-EINVAL,
				    "offset %llu and length %llu must be multiples of %llu",
				    (unsigned long long)offset_bytes,
				    (unsigned long long)len_bytes, (unsigned long long)mask + 1);
	else if (len_bytes > size_bytes || offset_bytes > size_bytes - len_bytes)
		ret = dmcore__error(-EIO, "bytes %llu to %llu are not on the device of %llu",
				    (unsigned long long)offset_bytes,
				    (unsigned long long)offset_bytes + len_bytes,
				    (unsigned long long)size_bytes);
	else
		return 0;
	return put_name(bdev, ret);
}

/* 0, or -EOWNERDEAD where a driver has called fork(): in the child nothing ends. */
static int wait_for(struct dmcore_queue *queue)
{
	int ret = 0;

	/* A signal is the application's business, not a reason to leave the I/O behind. */
	while (queue->inflight && ret != -EOWNERDEAD)
		ret = dmcore_queue_poll(queue, 1, 1, -1);
	return ret == -EOWNERDEAD ? ret : 0;
}

static void ended(struct dmcore_bio *bio)
{
	(void)bio;
}

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, void *buffer, uint64_t len_bytes,
	       uint64_t offset_bytes)
{
	struct dmcore_queue *queue;
	bool mapped = dmcore__bdev_route(bdev) != NULL;
	struct dmcore_bio *bio;
	int ret;

	ret = borrow_queue(bdev->core, mapped, &queue);
	if (ret)
		return ret;
	bio = dmcore_bio_get(queue);
	bio->bdev = bdev;
	bio->op = (uint8_t)op;
	bio->sector = dmcore__bytes_to_sectors(offset_bytes);
	bio->done = ended;
	if (buffer)
		dmcore_bio_set_buffer(bio, buffer, len_bytes);
	else
		bio->count = dmcore__bytes_to_sectors(len_bytes);
	ret = dmcore_bio_submit(bio);
	if (ret == 0) {
		ret = wait_for(queue);
		if (ret)
			return ret;
		ret = bio->status;
	}
	dmcore_bio_put(bio);
	return_queue(queue, mapped);
	return ret ? say_error(bdev, ret) : 0;
}

static int run_range(struct dmcore_bdev *bdev, enum dmcore_op op, void *buffer, uint64_t len_bytes,
		     uint64_t offset_bytes)
{
	int ret;

	if (!bdev || (!buffer && op <= DMCORE_OP_WRITE && len_bytes))
		return dmcore__error(-EINVAL, "no device, or no buffer");
	ret = check_range(bdev, len_bytes, offset_bytes);
	while (ret == 0 && len_bytes > 0) {
		uint64_t bytes = buffer ? dmcore__min_u64(len_bytes, SYNC_BYTES_MAX) : len_bytes;

		ret = run(bdev, op, buffer, bytes, offset_bytes);
		if (buffer)
			buffer = (char *)buffer + bytes;
		len_bytes -= bytes;
		offset_bytes += bytes;
	}
	return ret;
}

int dmcore_pread(struct dmcore_bdev *bdev, void *buffer, size_t len_bytes, uint64_t offset_bytes)
{
	return run_range(bdev, DMCORE_OP_READ, buffer, len_bytes, offset_bytes);
}

int dmcore_pwrite(struct dmcore_bdev *bdev, const void *buffer, size_t len_bytes,
		  uint64_t offset_bytes)
{
	/* A write only reads the buffer. */
	return run_range(bdev, DMCORE_OP_WRITE, (void *)(uintptr_t)buffer, len_bytes,
			 offset_bytes);
}

int dmcore_flush(struct dmcore_bdev *bdev)
{
	if (!bdev)
		return dmcore__error(-EINVAL, "no device");
	return run(bdev, DMCORE_OP_FLUSH, NULL, 0, 0);
}

int dmcore_discard(struct dmcore_bdev *bdev, uint64_t len_bytes, uint64_t offset_bytes)
{
	return run_range(bdev, DMCORE_OP_DISCARD, NULL, len_bytes, offset_bytes);
}

int dmcore_write_zeroes(struct dmcore_bdev *bdev, uint64_t len_bytes, uint64_t offset_bytes)
{
	return run_range(bdev, DMCORE_OP_WRITE_ZEROES, NULL, len_bytes, offset_bytes);
}
