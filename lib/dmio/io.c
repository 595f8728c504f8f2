/* SPDX-License-Identifier: MIT */
/*
 * The life of a dm-io request: one loop that sends bios while there is something to send and a
 * segment to send it with. service.c starts it; each bio that ends goes on with it.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/checked.h"
#include "base/compiler.h"
#include "dmio/dmio.h"

/* The request goes back first: the callback may need it for its next call. */
static void finish(struct dmio__request *request)
{
	dmio_notify_fn fn = request->fn;
	void *context = request->context;
	unsigned long error_bits = request->error_bits;

	dmio__request_put(request);
	fn(error_bits, context);
}

static void finish_work(struct dmcore_work *work)
{
	finish(dmcore__container_of(work, struct dmio__request, work));
}

/* Every region gets the memory from its start. */
static void enter_region(struct dmio__request *request, unsigned int region)
{
	request->region = region;
	request->done_sectors = 0;
	request->rest = request->memory;
}

/* A piece that fails doesn't keep the others of its region from being tried. */
static bool region_has_work(const struct dmio__request *request)
{
	uint64_t count = request->where[request->region].count;
	bool flush_failed = request->done_sectors == 0 &&
			    (request->error_bits >> request->region & 1);

	if (request->phase == DMIO__PHASE_FLUSH)
		return true;
	return request->done_sectors < count && !flush_failed;
}

/* Moves the cursor to what can be sent next. False: nothing is left, or flushes must end first. */
static bool find_work(struct dmio__request *request)
{
	for (;;) {
		for (; request->region < request->num_regions;
		     enter_region(request, request->region + 1)) {
			if (region_has_work(request))
				return true;
		}
		if (request->phase == DMIO__PHASE_DATA || request->outstanding > 0)
			return false;
		request->phase = DMIO__PHASE_DATA;
		enter_region(request, 0);
	}
}

/* The layers below rewrite these. */
static void set_piece(struct dmio__segment *segment)
{
	segment->bio.vecs = segment->piece.vecs;
	segment->bio.num_vecs = segment->piece.num_vecs;
	segment->bio.vec_offset_bytes = 0;
	segment->bio.count = segment->piece.num_sectors;
}

/* What a failed read was to fill is zeroed: no old content passes for data. */
static void fail_piece(struct dmio__segment *segment)
{
	struct dmio__request *request = segment->request;
	int ret = 0;

	request->error_bits |= 1ul << segment->region;
	if (request->op == DMCORE_OP_READ) {
		set_piece(segment);
		ret = dmcore_bio_zero_fill(&segment->bio);
	}
	DMCORE__ASSERT(ret == 0);
}

static void end_segment(struct dmio__segment *segment, int status)
{
	if (status)
		fail_piece(segment);
	dmio__segment_put(segment);
}

static void segment_done(struct dmcore_bio *bio);

/* Fills in the bio of the next piece and moves the cursor behind it. */
static void shape_bio(struct dmio__request *request, struct dmio__segment *segment)
{
	const struct dmio_region *region = &request->where[request->region];
	struct dmcore_bio *bio = &segment->bio;

	segment->region = request->region;
	bio->bdev = region->bdev;
	bio->done = segment_done;
	if (request->phase == DMIO__PHASE_FLUSH) {
		segment->piece = (struct dmio__piece){ .num_sectors = 0 };
		bio->op = DMCORE_OP_FLUSH;
		bio->flags = 0;
		bio->sector = 0;
		request->region++;
	} else {
		dmio__memory_take(&request->rest, region->count - request->done_sectors,
				  segment->vecs, &segment->piece);
		bio->op = (uint8_t)request->op;
		bio->flags = request->bio_flags;
		bio->sector = region->sector + request->done_sectors;
		request->done_sectors += segment->piece.num_sectors;
	}
	set_piece(segment);
}

/* A region that wraps round is no device's: no piece of it may reach the first sectors. */
static bool wraps(const struct dmio__segment *segment)
{
	const struct dmio_region *region = &segment->request->where[segment->region];
	uint64_t end;

	return segment->bio.op != DMCORE_OP_FLUSH &&
	       dmcore__add_overflows(region->sector, region->count, &end);
}

static void send(struct dmio__segment *segment)
{
	int ret = -EIO;

	if (!wraps(segment))
		ret = dmcore_bio_submit(&segment->bio);
	if (ret == 0)
		segment->request->outstanding++;
	else
		end_segment(segment, ret);
}

/* Sends all it can. Afterwards, with no bio under way, the request is at its end. */
static void pump(struct dmio__request *request)
{
	struct dmio__segment *segment;

	while (find_work(request)) {
		segment = dmio__segment_get(request);
		if (!segment) {
			DMCORE__ASSERT(request->outstanding > 0);
			return;
		}
		shape_bio(request, segment);
		send(segment);
	}
}

static void segment_done(struct dmcore_bio *bio)
{
	struct dmio__segment *segment = dmcore__container_of(bio, struct dmio__segment, bio);
	struct dmio__request *request = segment->request;

	DMCORE__ASSERT(request->outstanding > 0);
	end_segment(segment, bio->status);
	request->outstanding--;
	pump(request);
	if (request->outstanding == 0)
		finish(request);
}

static void copy_regions(struct dmio__request *request, const struct dmio__call *call)
{
	unsigned int i;

	request->num_regions = call->num_regions;
	for (i = 0; i < call->num_regions; i++) {
		request->where[i] = call->where[i];
		/* A flush has no range, and so nothing left to do when the flushes have ended. */
		if (request->op == DMCORE_OP_FLUSH)
			request->where[i].count = 0;
	}
}

void dmio__request_start(struct dmio__request *request, const struct dmio__call *call)
{
	bool flush_first;

	request->fn = call->fn;
	request->context = call->context;
	request->error_bits = 0;
	request->op = (enum dmcore_op)(call->rw & DMIO_OP_MASK);
	request->bio_flags = call->rw & DMIO_FUA ? DMCORE_BIO_FUA : 0;
	request->memory = call->memory;
	copy_regions(request, call);

	flush_first = request->op == DMCORE_OP_FLUSH || (call->rw & DMIO_PREFLUSH);
	request->phase = flush_first ? DMIO__PHASE_FLUSH : DMIO__PHASE_DATA;
	enter_region(request, 0);
	pump(request);
	if (request->outstanding == 0) {
		request->work.fn = finish_work;
		dmcore_queue_post(request->client->queue, &request->work);
	}
}
