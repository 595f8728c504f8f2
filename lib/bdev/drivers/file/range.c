/* SPDX-License-Identifier: MIT */
/*
 * DISCARD and WRITE_ZEROES. Whether a file system can punch holes or zero ranges shows only when
 * it is asked to; what it refuses once isn't asked for again. Called by file.c.
 *
 * On a node they go by the descriptor that has claimed it: by another the kernel couldn't drop what
 * is dirty in the page cache, and would refuse with EBUSY.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "bdev/drivers/file/file.h"

static void set_range(struct filedev_request *request, enum dmcore_fileio_op op, int mode)
{
	const struct filedev *device = dmcore__filedev_of(request);
	struct dmcore_fileio *io = &request->io;

	io->file = device->claim ? device->claim : device->file;
	io->op = (uint8_t)op;
	io->flags = mode;
	io->vecs = NULL;
	io->num_vecs = 0;
	io->len_bytes = request->bio->count << DMCORE_SECTOR_SHIFT;
}

static bool discard_settle(struct filedev_request *request)
{
	int status = request->io.result < 0 ? (int)request->io.result : 0;

	if (status == -EOPNOTSUPP)
		atomic_store_explicit(&dmcore__filedev_of(request)->no_discard, true,
				      memory_order_relaxed);
	dmcore_bio_complete(request->bio, status);
	return false;
}

void dmcore__filedev_discard(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);

	if (atomic_load_explicit(&device->no_discard, memory_order_relaxed)) {
		dmcore_bio_complete(request->bio, -EOPNOTSUPP);
		return;
	}
	if (device->is_block)
		set_range(request, DMCORE_FILEIO_DISCARD, 0);
	else
		set_range(request, DMCORE_FILEIO_FALLOCATE,
			  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	request->settle = discard_settle;
	dmcore__filedev_run(request);
}

/* Sets up the next way to zero the range, from `zeroing` on. As filedev_settle_fn. */
static bool set_zeroing(struct filedev_request *request, int zeroing)
{
	switch (zeroing) {
	case FILEDEV_ZERO_RANGE:
		set_range(request, DMCORE_FILEIO_FALLOCATE,
			  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
		return true;
	case FILEDEV_PUNCH_HOLE:
		set_range(request, DMCORE_FILEIO_FALLOCATE,
			  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
		return true;
	default:
		return dmcore__filedev_write_zeroes(request);
	}
}

static bool zero_settle(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);
	int64_t result = request->io.result;
	int tried;

	if (result == -EOPNOTSUPP) {
		tried = request->io.flags & FALLOC_FL_ZERO_RANGE ? FILEDEV_ZERO_RANGE
								 : FILEDEV_PUNCH_HOLE;
		/* Races with other requests that learn the same only make one of them try again. */
		atomic_store_explicit(&device->zeroing, tried + 1, memory_order_relaxed);
		return set_zeroing(request, tried + 1);
	}
	if (result >= 0 && request->bio->flags & DMCORE_BIO_FUA)
		return dmcore__filedev_become_sync(request);
	dmcore_bio_complete(request->bio, result < 0 ? (int)result : 0);
	return false;
}

void dmcore__filedev_zero(struct filedev_request *request)
{
	struct filedev *device = dmcore__filedev_of(request);

	request->settle = zero_settle;
	if (set_zeroing(request, atomic_load_explicit(&device->zeroing, memory_order_relaxed)))
		dmcore__filedev_run(request);
}
