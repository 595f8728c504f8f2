/* SPDX-License-Identifier: MIT */
/* A straw man of a mapping layer. See straw.h. */
#include "straw.h"

#include <errno.h>

struct straw_request {
	struct straw_device *device;
	uint64_t sector;
	uint64_t count;
	struct straw_request *next;
	void (*done)(struct straw_request *request);
	void *context;
};

struct straw_list {
	struct straw_request *head;
	struct straw_request *tail;
};

/* What the generator gathers. */
struct sum {
	uint64_t completed;
	uint64_t hash;
};

struct straw_device *straw_zero(struct straw_device *device, struct straw_request *request)
{
	(void)device;
	(void)request;
	return NULL;
}

struct straw_device *straw_linear(struct straw_device *device, struct straw_request *request)
{
	request->sector += device->offset;
	return device->below;
}

struct straw_device *straw_striped(struct straw_device *device, struct straw_request *request)
{
	uint64_t chunk = request->sector / device->chunk_sectors;
	uint64_t into = request->sector & (device->chunk_sectors - 1);

	request->sector = chunk / device->stripes * device->chunk_sectors + into;
	return device->below;
}

/* Not to be inlined: an application's calls into a library aren't. */
static __attribute__((noinline)) int submit(struct straw_list *list, struct straw_request *request)
{
	struct straw_device *device = request->device;

	do {
		if (request->sector + request->count > device->size_sectors)
			return -EIO;
		device = device->map(device, request);
	} while (device);
	request->next = NULL;
	if (list->head)
		list->tail->next = request;
	else
		list->head = request;
	list->tail = request;
	return 0;
}

static __attribute__((noinline)) void poll(struct straw_list *list)
{
	struct straw_request *request = list->head;

	list->head = NULL;
	while (request) {
		struct straw_request *next = request->next;

		request->done(request);
		request = next;
	}
}

static void sector_done(struct straw_request *request)
{
	struct sum *sum = request->context;

	sum->completed++;
	sum->hash += bench_mix(request->sector);
}

int straw_run(void *context, struct bench_run *run)
{
	const struct straw_load *load = context;
	struct straw_request requests[BENCH_BATCH_MAX];
	struct bench_random random = bench_random_start(run->seed);
	struct straw_list list = { NULL, NULL };
	struct sum sum = { 0, 0 };

	for (unsigned int i = 0; i < load->batch; i++) {
		requests[i].done = sector_done;
		requests[i].context = &sum;
	}
	while (sum.completed < run->count) {
		for (unsigned int i = 0; i < load->batch; i++) {
			uint64_t position = bench_random_position(&random, load->positions);

			requests[i].device = load->device;
			requests[i].sector = position * BENCH_BLOCK_SECTORS;
			requests[i].count = BENCH_BLOCK_SECTORS;
			if (submit(&list, &requests[i]))
				return -EIO;
		}
		poll(&list);
	}
	run->completed = sum.completed;
	run->hash = sum.hash;
	return 0;
}
