/* SPDX-License-Identifier: MIT */
/*
 * READ and WRITE of any shape. A request is carried out by as many system calls as it takes: each
 * starts where the one before has stopped, and moves as much as its memory allows. Called by file.c
 * for what is not plain, and when a plain one stopped short.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

#include "base/checked.h"
#include "bdev/drivers/file/file.h"

/* What one call is asked for: well below the kernel's own limit, and a multiple of any block. */
#define CALL_BYTES_MAX (UINT64_C(1) << 30)
/* Entries of a vector in one call, as the kernel allows. */
#define CALL_VECS_MAX 1024u

/* Everything has been moved, or nothing more will be. As filedev_settle_fn. */
static bool end(struct filedev_request *request, int status)
{
	struct dmcore_bio *bio = request->bio;

	if (request->bounce)
		dmcore_bounce_put(bio->queue, request->bounce);
	if (status == 0 && bio->flags & DMCORE_BIO_FUA) {
		if (request->sync_after)
			return dmcore__filedev_become_sync(request);
		/* A sync beside this write may have been told of the failure of this one. */
		if (atomic_load(&dmcore__filedev_of(request)->lost))
			status = -EIO;
	}
	dmcore__filedev_release(request);
	dmcore_bio_complete(bio, status);
	return false;
}

/* Copies between a bounce buffer and the memory that comes next. */
static void copy(const struct filedev_request *request, char *buffer, uint64_t bytes)
{
	const struct dmio_bvec *vec = request->vec;
	uint64_t offset = request->vec_offset_bytes;

	while (bytes > 0) {
		uint64_t run = dmcore__min_u64(vec->len_bytes - offset, bytes);
		char *memory = (char *)vec->base + offset;

		if (request->bio->op == DMCORE_OP_READ)
			memcpy(memory, buffer, run);
		else
			memcpy(buffer, memory, run);
		buffer += run;
		bytes -= run;
		vec++;
		offset = 0;
	}
}

/* Moves on by what has been done. */
static void advance(struct filedev_request *request, uint64_t bytes)
{
	request->io.offset_bytes += bytes;
	request->left_bytes -= bytes;
	if (!request->vec)
		return;
	request->vec_offset_bytes += bytes;
	while (request->left_bytes > 0 && request->vec_offset_bytes >= request->vec->len_bytes) {
		request->vec_offset_bytes -= request->vec->len_bytes;
		request->vec++;
	}
}

/* The caller's own vector, if its next entries are used whole and are too many for slices. */
static bool lend_vector(struct filedev_request *request)
{
	const struct dmio_bvec *vec = request->vec;
	uint64_t left = dmcore__min_u64(request->left_bytes, CALL_BYTES_MAX);
	uint64_t bytes = 0;
	uint32_t count = 0;

	if (request->vec_offset_bytes > 0)
		return false;
	while (count < CALL_VECS_MAX && bytes < left && vec[count].len_bytes <= left - bytes)
		bytes += vec[count++].len_bytes;
	if (count <= FILEDEV_SLICES)
		return false;
	request->io.vecs = vec;
	request->io.num_vecs = count;
	request->io.len_bytes = bytes;
	return true;
}

static void take_slices(struct filedev_request *request)
{
	const struct dmio_bvec *vec = request->vec;
	uint64_t left = dmcore__min_u64(request->left_bytes, CALL_BYTES_MAX);
	uint64_t offset = request->vec_offset_bytes;
	uint64_t bytes = 0;
	uint32_t count = 0;

	while (count < FILEDEV_SLICES && bytes < left) {
		struct dmio_bvec *slice = &request->slices[count++];

		slice->base = (char *)vec->base + offset;
		slice->len_bytes = dmcore__min_u64(vec->len_bytes - offset, left - bytes);
		bytes += slice->len_bytes;
		vec++;
		offset = 0;
	}
	request->io.vecs = request->slices;
	request->io.num_vecs = count;
	request->io.len_bytes = bytes;
}

/* Gets the bounce buffer ready for the call that has been set up. */
static void fill_bounce(struct filedev_request *request)
{
	struct dmio_bvec *slice = &request->slices[0];

	slice->base = request->bounce;
	if (!request->vec)
		memset(slice->base, 0, slice->len_bytes);
	else if (request->bio->op == DMCORE_OP_WRITE)
		copy(request, slice->base, slice->len_bytes);
}

/* Runs while another request gives its buffer back: going on from here could nest without bound. */
static void bounce_granted(struct dmcore_bounce_waiter *waiter, void *buffer)
{
	struct filedev_request *request =
		(void *)((char *)waiter - offsetof(struct filedev_request, wait));

	request->bounce = buffer;
	fill_bounce(request);
	dmcore__filedev_run_later(request);
}

static bool bounce(struct filedev_request *request)
{
	uint64_t bytes = dmcore__min_u64(request->left_bytes, DMCORE_BOUNCE_BYTES);

	request->slices[0].len_bytes = bytes;
	request->io.vecs = request->slices;
	request->io.num_vecs = 1;
	request->io.len_bytes = bytes;
	if (!request->bounce) {
		request->wait.waiter.granted = bounce_granted;
		request->bounce = dmcore_bounce_get(request->bio->queue, &request->wait.waiter);
		if (!request->bounce)
			return false;
	}
	fill_bounce(request);
	return true;
}

/* Sets up the next call. As filedev_settle_fn. */
static bool set_up(struct filedev_request *request)
{
	if (request->bounced)
		return bounce(request);
	if (!lend_vector(request))
		take_slices(request);
	return true;
}

static bool settle_error(struct filedev_request *request, int error)
{
	struct filedev *device = dmcore__filedev_of(request);

	if (request->io.flags & RWF_DSYNC) {
		if (error == -EOPNOTSUPP) {
			atomic_store_explicit(&device->no_dsync, true, memory_order_relaxed);
			request->io.flags = 0;
			request->sync_after = true;
			dmcore__filedev_release(request);
			return true;
		}
		dmcore__filedev_note_loss(device, error);
	}
	/* Direct I/O is choosier than it says, or has gone on in the middle of a buffer. */
	if (error == -EINVAL && device->length_mask && !request->bounced) {
		request->bounced = true;
		return set_up(request);
	}
	return end(request, error);
}

static bool transfer_settle(struct filedev_request *request)
{
	int64_t result = request->io.result;
	uint64_t moved;

	if (result < 0)
		return settle_error(request, (int)result);
	/* The end of a file that has shrunk, or a device that takes no more. */
	if (result == 0)
		return end(request, -EIO);
	/* Direct I/O goes on at a block boundary: what lies behind the last one is done again. */
	moved = (uint64_t)result & ~dmcore__filedev_of(request)->length_mask;
	if (moved == 0)
		return dmcore__filedev_may_stall(request) ? set_up(request) : end(request, -EIO);
	request->stalls = 0;
	if (request->bounced && request->bio->op == DMCORE_OP_READ)
		copy(request, request->bounce, moved);
	advance(request, moved);
	return request->left_bytes == 0 ? end(request, 0) : set_up(request);
}

/* Whether there is memory for the whole range, and whether direct I/O can use it as it is. */
static int survey(struct filedev_request *request)
{
	const struct filedev *device = dmcore__filedev_of(request);
	const struct dmcore_bio *bio = request->bio;
	uint64_t left = request->left_bytes;
	uint64_t offset = bio->vec_offset_bytes;
	uint64_t misfit = 0;

	for (uint32_t i = 0; left > 0; i++) {
		const struct dmio_bvec *vec = &bio->vecs[i];
		uint64_t run;

		if (i == bio->num_vecs || offset >= vec->len_bytes)
			return -EFAULT;
		run = dmcore__min_u64(vec->len_bytes - offset, left);
		misfit |= ((uintptr_t)vec->base + offset) & device->memory_mask;
		misfit |= run & device->length_mask;
		left -= run;
		offset = 0;
	}
	request->bounced = misfit != 0;
	return 0;
}

/* Sets up what is to be moved; the calls follow by set_up(). */
static int begin(struct filedev_request *request)
{
	const struct dmcore_bio *bio = request->bio;

	request->io.op = bio->op == DMCORE_OP_READ ? DMCORE_FILEIO_READ : DMCORE_FILEIO_WRITE;
	request->io.flags = 0;
	request->left_bytes = bio->count << DMCORE_SECTOR_SHIFT;
	request->settle = transfer_settle;
	if (bio->op == DMCORE_OP_WRITE_ZEROES) {
		request->vec = NULL;
		request->bounced = true;
		return 0;
	}
	request->vec = bio->vecs;
	request->vec_offset_bytes = bio->vec_offset_bytes;
	return survey(request);
}

/*
 * Sets up the first call. The kernel tells of a failure once for each opening, so of two durable
 * writes at the same time one is a plain write and a sync, by an opening of its own. As
 * filedev_settle_fn.
 */
static bool set_up_first(struct filedev_request *request)
{
	const struct filedev *device = dmcore__filedev_of(request);

	if (request->bio->flags & DMCORE_BIO_FUA) {
		request->sync_after =
			atomic_load_explicit(&device->no_dsync, memory_order_relaxed) ||
			!dmcore__filedev_claim_main(request);
		request->io.flags = request->sync_after ? 0 : RWF_DSYNC;
	}
	return set_up(request);
}

void dmcore__filedev_transfer(struct filedev_request *request)
{
	int ret = begin(request);

	if (ret)
		dmcore_bio_complete(request->bio, ret);
	else if (set_up_first(request))
		dmcore__filedev_run(request);
}

void dmcore__filedev_resume(struct filedev_request *request)
{
	int ret = begin(request);

	if (ret)
		dmcore_bio_complete(request->bio, ret);
	else
		dmcore__filedev_continue(request);
}

bool dmcore__filedev_write_zeroes(struct filedev_request *request)
{
	/* A range may have been tried before, by another descriptor. */
	request->io.file = dmcore__filedev_of(request)->file;
	begin(request);
	return set_up_first(request);
}
