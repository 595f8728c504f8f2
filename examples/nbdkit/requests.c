/* SPDX-License-Identifier: MIT */
/*
 * Requests of clients. nbdkit has a few threads for each connection, and each does one request at a
 * time: so each thread gets a queue of its own with its first request, and waits there. The queue
 * goes with the thread. Called by plugin.c.
 */
#include "requests.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>

#include "nbdkit.h"

/* One request at a time, in as many pieces as its table makes of it; the rest would wait. */
#define QUEUE_DEPTH 32

static pthread_key_t queue_key;

static void close_queue(void *value)
{
	int ret = dmcore_queue_destroy(value);

	if (ret)
		nbdkit_error("queue: %s (%s)", dmcore_error_message(), dmcore_error_name(ret));
}

int requests_begin(void)
{
	return -pthread_key_create(&queue_key, close_queue);
}

void requests_end(void)
{
	pthread_key_delete(queue_key);
}

void requests_end_thread(void)
{
	struct dmcore_queue *queue = pthread_getspecific(queue_key);

	if (!queue)
		return;
	pthread_setspecific(queue_key, NULL);
	close_queue(queue);
}

/* The queue of this thread. */
static int get_queue(struct devices *devices, struct dmcore_queue **result)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	int ret;

	*result = pthread_getspecific(queue_key);
	if (*result)
		return 0;
	options.depth = QUEUE_DEPTH;
	options.bios = 1;
	options.splits = QUEUE_DEPTH;
	/* This thread has nothing else to do meanwhile. */
	options.flags = DMCORE_QUEUE_INLINE_WRITES;
	ret = dmcore_queue_create(devices_core(devices), &options, result);
	if (ret)
		return ret;
	ret = -pthread_setspecific(queue_key, *result);
	if (ret)
		close_queue(*result);
	return ret;
}

static void done(struct dmcore_bio *bio)
{
	*(bool *)bio->context = true;
}

/* The bio lives here, so nothing but its end ends the wait: polls fail by signals alone. */
static int run(struct dmcore_queue *queue, struct dmcore_bdev *bdev, const struct request *request)
{
	struct dmcore_bio bio;
	bool is_done = false;
	int ret;

	dmcore_bio_init(&bio, queue);
	if (request->memory)
		dmcore_bio_set_buffer(&bio, request->memory, request->length_bytes);
	bio.bdev = bdev;
	bio.op = (uint8_t)request->op;
	bio.flags = (uint16_t)request->flags;
	bio.sector = request->offset_bytes / DMCORE_SECTOR_BYTES;
	bio.count = request->length_bytes / DMCORE_SECTOR_BYTES;
	bio.done = done;
	bio.context = &is_done;
	ret = dmcore_bio_submit(&bio);
	if (ret)
		return ret;
	while (!is_done)
		dmcore_queue_poll(queue, 1, UINT_MAX, -1);
	return bio.status;
}

int requests_run(struct devices *devices, struct dmcore_bdev *bdev, const struct request *request)
{
	struct dmcore_queue *queue;
	int ret;

	if ((request->offset_bytes | request->length_bytes) % DMCORE_SECTOR_BYTES)
		return -EINVAL;
	ret = get_queue(devices, &queue);
	if (ret) {
		nbdkit_error("queue: %s (%s)", dmcore_error_message(), dmcore_error_name(ret));
		return ret;
	}
	devices_enter(devices);
	ret = run(queue, bdev, request);
	devices_leave(devices);
	return ret;
}
