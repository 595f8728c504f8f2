/* SPDX-License-Identifier: MIT */
/*
 * The six dm-io services: a call is checked here, whole, before anything of it starts; io.c
 * carries it out.
 */
#include <errno.h>

#include <dmcore/driver.h>

#include "base/assert.h"
#include "base/checked.h"
#include "base/core.h"
#include "dmio/dmio.h"
#include "queue/queue.h"

_Static_assert(DMIO_READ == DMCORE_OP_READ && DMIO_WRITE == DMCORE_OP_WRITE &&
		       DMIO_FLUSH == DMCORE_OP_FLUSH && DMIO_DISCARD == DMCORE_OP_DISCARD &&
		       DMIO_WRITE_ZEROES == DMCORE_OP_WRITE_ZEROES,
	       "operations have the same numbers in both headers");

#define RW_FLAGS (DMIO_FUA | DMIO_PREFLUSH)

static int check_rw(int rw)
{
	int op = rw & DMIO_OP_MASK;
	bool writes = op == DMIO_WRITE || op == DMIO_WRITE_ZEROES;

	if ((rw & ~(DMIO_OP_MASK | RW_FLAGS)) || op >= DMCORE_OP_COUNT)
		return -EINVAL;
	return (rw & RW_FLAGS) && !writes ? -EINVAL : 0;
}

/* A device of another core has no place in the queue's books. */
static bool is_ours(const struct dmio_client *client, const struct dmcore_bdev *bdev)
{
	return bdev && dmcore_bdev_core(bdev) == client->queue->core;
}

/* Tells the longest count. A region that is skipped needs no device. */
static int check_regions(const struct dmio_client *client, const struct dmio__call *call,
			 uint64_t *longest)
{
	int op = call->rw & DMIO_OP_MASK;
	unsigned int max = op == DMIO_READ ? 1 : DMIO_REGIONS_MAX;
	bool flushes = op == DMIO_FLUSH || (call->rw & DMIO_PREFLUSH);
	unsigned int i;

	*longest = 0;
	if (!call->where || call->num_regions == 0 || call->num_regions > max)
		return -EINVAL;
	for (i = 0; i < call->num_regions; i++) {
		bool is_used = call->where[i].count > 0 || flushes;

		if (is_used && !is_ours(client, call->where[i].bdev))
			return -EINVAL;
		*longest = dmcore__max_u64(*longest, call->where[i].count);
	}
	return 0;
}

static int check_memory(struct dmio__call *call, uint64_t longest)
{
	int op = call->rw & DMIO_OP_MASK;
	uint64_t bytes;

	if (call->memory.offset_bytes >= DMIO_PAGE_BYTES)
		return -EINVAL;
	if (longest == 0 || (op != DMIO_READ && op != DMIO_WRITE)) {
		call->memory = (struct dmio__memory){ .kind = DMIO__MEMORY_NONE };
		return 0;
	}
	if (dmcore__mul_overflows(longest, DMCORE_SECTOR_BYTES, &bytes))
		return -EINVAL;
	return dmio__memory_check(&call->memory, bytes);
}

static int check_call(const struct dmio_client *client, struct dmio__call *call)
{
	uint64_t longest;
	int ret;

	if (!client)
		return -EINVAL;
	if (!dmcore__alive(client->queue->core))
		return -EOWNERDEAD;
	ret = check_rw(call->rw);
	if (ret)
		return ret;
	ret = check_regions(client, call, &longest);
	if (ret)
		return ret;
	return check_memory(call, longest);
}

static int start_async(struct dmio_client *client, struct dmio__call *call)
{
	struct dmio__request *request;
	int ret;

	ret = call->fn ? check_call(client, call) : -EINVAL;
	if (ret)
		return ret;
	request = dmio__request_get(client);
	if (!request)
		return -EAGAIN;
	dmio__request_start(request, call);
	return 0;
}

struct sync_result {
	bool done;
	unsigned long error_bits;
};

static void sync_done(unsigned long error, void *context)
{
	struct sync_result *result = context;

	result->error_bits = error;
	result->done = true;
}

static int run_sync(struct dmio_client *client, struct dmio__call *call, unsigned long *error_bits)
{
	struct sync_result result = { .done = false };
	int ret;

	if (error_bits)
		*error_bits = 0;
	ret = check_call(client, call);
	if (ret)
		return ret;
	if (dmcore__queue_polling(client->queue))
		return -EDEADLK;

	call->fn = sync_done;
	call->context = &result;
	dmio__request_start(dmio__request_get_sync(client), call);
	while (!result.done) {
		ret = dmcore_queue_poll(client->queue, 1, DMIO__POLL_MAX, -1);
		/* A callback has forked, and this is the child. */
		if (ret == -EOWNERDEAD)
			return ret;
		DMCORE__ASSERT(ret >= 0 || ret == -EINTR);
	}
	if (error_bits)
		*error_bits = result.error_bits;
	return result.error_bits ? -EIO : 0;
}

static struct dmio__memory from_pages(const struct dmio_page_list *pages, unsigned int offset)
{
	return (struct dmio__memory){
		.kind = DMIO__MEMORY_PAGES,
		.offset_bytes = offset,
		.pages = pages,
	};
}

static struct dmio__memory from_vector(const struct dmio_bvec *vecs)
{
	return (struct dmio__memory){ .kind = DMIO__MEMORY_VECTOR, .vecs = vecs };
}

static struct dmio__memory from_buffer(void *buffer)
{
	return (struct dmio__memory){ .kind = DMIO__MEMORY_BUFFER, .buffer = buffer };
}

int dmio_async(struct dmio_client *client, unsigned int num_regions,
	       const struct dmio_region *where, int rw, struct dmio_page_list *pl,
	       unsigned int offset, dmio_notify_fn fn, void *context)
{
	struct dmio__call call = { num_regions, where, rw, from_pages(pl, offset), fn, context };

	return start_async(client, &call);
}

int dmio_async_bvec(struct dmio_client *client, unsigned int num_regions,
		    const struct dmio_region *where, int rw, const struct dmio_bvec *bvec,
		    dmio_notify_fn fn, void *context)
{
	struct dmio__call call = { num_regions, where, rw, from_vector(bvec), fn, context };

	return start_async(client, &call);
}

int dmio_async_vm(struct dmio_client *client, unsigned int num_regions,
		  const struct dmio_region *where, int rw, void *data, dmio_notify_fn fn,
		  void *context)
{
	struct dmio__call call = { num_regions, where, rw, from_buffer(data), fn, context };

	return start_async(client, &call);
}

int dmio_sync(struct dmio_client *client, unsigned int num_regions, const struct dmio_region *where,
	      int rw, struct dmio_page_list *pl, unsigned int offset, unsigned long *error_bits)
{
	struct dmio__call call = { num_regions, where, rw, from_pages(pl, offset), NULL, NULL };

	return run_sync(client, &call, error_bits);
}

int dmio_sync_bvec(struct dmio_client *client, unsigned int num_regions,
		   const struct dmio_region *where, int rw, const struct dmio_bvec *bvec,
		   unsigned long *error_bits)
{
	struct dmio__call call = { num_regions, where, rw, from_vector(bvec), NULL, NULL };

	return run_sync(client, &call, error_bits);
}

int dmio_sync_vm(struct dmio_client *client, unsigned int num_regions,
		 const struct dmio_region *where, int rw, void *data, unsigned long *error_bits)
{
	struct dmio__call call = { num_regions, where, rw, from_buffer(data), NULL, NULL };

	return run_sync(client, &call, error_bits);
}
