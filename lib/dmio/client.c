/* SPDX-License-Identifier: MIT */
/*
 * Clients and their pools: dmio_client_create(), dmio_get(), dmio_put(), dmio_client_destroy(), and
 * what service.c and io.c take from the pools. All memory is allocated in create and get.
 */
#include <errno.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/core.h"
#include "base/error.h"
#include "dmio/dmio.h"
#include "queue/queue.h"

/* Requests and segments of a client without a reservation: what the kernel's has. */
#define REQUESTS_MIN 16u
#define SEGMENTS_MIN 16u
/*
 * A reserved page may be a request of its own as long as they are not more than a queue would have
 * under way; from here on it is taken that requests are larger.
 */
#define SINGLE_PAGE_REQUESTS_MAX 1024u
#define PAGES_PER_REQUEST 16u
/* Regions that can have all reserved pages under way at once. */
#define FAN_OUT 4u

static unsigned int requests_for(unsigned int pages)
{
	if (pages <= SINGLE_PAGE_REQUESTS_MAX)
		return REQUESTS_MIN + pages;
	return REQUESTS_MIN + SINGLE_PAGE_REQUESTS_MAX +
	       (pages - SINGLE_PAGE_REQUESTS_MAX) / PAGES_PER_REQUEST;
}

static unsigned int segments_for(unsigned int pages)
{
	unsigned int pieces = (pages + DMIO__PIECE_PAGES - 1) / DMIO__PIECE_PAGES;

	return SEGMENTS_MIN + FAN_OUT * pieces;
}

static struct dmcore *core_of(const struct dmio_client *client)
{
	return client->queue->core;
}

static void init_request(struct dmio_client *client, struct dmio__request *request)
{
	request->client = client;
	dmcore_bio_init(&request->own.bio, client->queue);
}

static int add_request(struct dmio_client *client)
{
	struct dmio__request *request = dmcore__zalloc(core_of(client), sizeof(*request));

	if (!request)
		return -ENOMEM;
	init_request(client, request);
	request->next = client->free_requests;
	client->free_requests = request;
	client->num_requests++;
	return 0;
}

static int add_segment(struct dmio_client *client)
{
	struct dmio__segment *segment = dmcore__zalloc(core_of(client), sizeof(*segment));

	if (!segment)
		return -ENOMEM;
	dmcore_bio_init(&segment->bio, client->queue);
	segment->next = client->free_segments;
	client->free_segments = segment;
	client->num_segments++;
	return 0;
}

/* Frees what is idle and more than wanted. */
static void shrink_pools(struct dmio_client *client)
{
	struct dmio__request *request;
	struct dmio__segment *segment;

	while (client->num_requests > client->wanted_requests && client->free_requests) {
		request = client->free_requests;
		client->free_requests = request->next;
		client->num_requests--;
		dmcore__free(core_of(client), request);
	}
	while (client->num_segments > client->wanted_segments && client->free_segments) {
		segment = client->free_segments;
		client->free_segments = segment->next;
		client->num_segments--;
		dmcore__free(core_of(client), segment);
	}
}

static void set_reserve(struct dmio_client *client, unsigned int pages)
{
	client->pages = pages;
	client->wanted_requests = requests_for(pages);
	client->wanted_segments = segments_for(pages);
}

static int fill_pools(struct dmio_client *client)
{
	int ret = 0;

	while (ret == 0 && client->num_requests < client->wanted_requests)
		ret = add_request(client);
	while (ret == 0 && client->num_segments < client->wanted_segments)
		ret = add_segment(client);
	return ret ? dmcore__error(ret, "no memory for the reserve of a dm-io client") : 0;
}

static void free_client(struct dmio_client *client)
{
	client->wanted_requests = 0;
	client->wanted_segments = 0;
	shrink_pools(client);
	dmcore__free(core_of(client), client);
}

int dmio_client_create(struct dmcore_queue *queue, unsigned int pages, struct dmio_client **result)
{
	struct dmio_client *client;
	int ret;

	if (!result)
		return -EINVAL;
	*result = NULL;
	if (!queue || pages > DMIO_PAGES_MAX)
		return -EINVAL;

	client = dmcore__zalloc(queue->core, sizeof(*client));
	if (!client)
		return dmcore__error(-ENOMEM, "no memory for a dm-io client");
	client->queue = queue;
	init_request(client, &client->sync);
	set_reserve(client, pages);
	ret = fill_pools(client);
	if (ret) {
		free_client(client);
		return ret;
	}
	*result = client;
	return 0;
}

int dmio_client_destroy(struct dmio_client *client)
{
	int ret;

	if (!client)
		return 0;
	if (client->closing || (client->inflight > 0 && dmcore__queue_polling(client->queue)))
		return -EBUSY;

	client->closing = true;
	while (client->inflight > 0) {
		ret = dmcore_queue_poll(client->queue, 1, DMIO__POLL_MAX, -1);
		/* In a child of fork() nothing will end: what is under way is the parent's. */
		if (ret == -EOWNERDEAD)
			break;
		DMCORE__ASSERT(ret >= 0 || ret == -EINTR);
	}
	free_client(client);
	return 0;
}

int dmio_get(struct dmio_client *client, unsigned int pages)
{
	unsigned int before;
	int ret;

	if (!client || pages > DMIO_PAGES_MAX - client->pages)
		return -EINVAL;
	before = client->pages;
	set_reserve(client, before + pages);
	ret = fill_pools(client);
	if (ret) {
		set_reserve(client, before);
		shrink_pools(client);
	}
	return ret;
}

void dmio_put(struct dmio_client *client, unsigned int pages)
{
	if (!client)
		return;
	set_reserve(client, pages < client->pages ? client->pages - pages : 0);
	shrink_pools(client);
}

struct dmio__request *dmio__request_get(struct dmio_client *client)
{
	struct dmio__request *request = client->free_requests;

	if (request) {
		client->free_requests = request->next;
		client->inflight++;
	}
	return request;
}

struct dmio__request *dmio__request_get_sync(struct dmio_client *client)
{
	client->inflight++;
	return &client->sync;
}

void dmio__request_put(struct dmio__request *request)
{
	struct dmio_client *client = request->client;

	DMCORE__ASSERT(client->inflight > 0 && !request->own_busy);
	client->inflight--;
	if (request == &client->sync)
		return;
	request->next = client->free_requests;
	client->free_requests = request;
	if (dmcore__unlikely(client->num_requests > client->wanted_requests))
		shrink_pools(client);
}

struct dmio__segment *dmio__segment_get(struct dmio__request *request)
{
	struct dmio_client *client = request->client;
	struct dmio__segment *segment;

	if (!request->own_busy) {
		request->own_busy = true;
		segment = &request->own;
	} else {
		segment = client->free_segments;
		if (!segment)
			return NULL;
		client->free_segments = segment->next;
	}
	segment->request = request;
	return segment;
}

void dmio__segment_put(struct dmio__segment *segment)
{
	struct dmio__request *request = segment->request;
	struct dmio_client *client = request->client;

	if (segment == &request->own) {
		request->own_busy = false;
		return;
	}
	segment->next = client->free_segments;
	client->free_segments = segment;
	if (dmcore__unlikely(client->num_segments > client->wanted_segments))
		shrink_pools(client);
}
