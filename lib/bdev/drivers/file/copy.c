/* SPDX-License-Identifier: MIT */
/*
 * Copies within the kernel, from one regular file to another: copy_file_range(), which shares
 * blocks where the file system can. Called by the core through the driver's function; whatever
 * fails here is copied in the ordinary way.
 */
#include <errno.h>

#include "base/checked.h"
#include "bdev/drivers/file/file.h"

/* What one call is asked for: well below the kernel's own limit, and a multiple of any block. */
#define CALL_BYTES_MAX (UINT64_C(1) << 30)

/* Sets up the next call. */
static void set_up(struct filedev_request *request)
{
	request->io.len_bytes = dmcore__min_u64(request->left_bytes, CALL_BYTES_MAX);
}

static bool copy_settle(struct filedev_request *request)
{
	struct dmcore_fileio *io = &request->io;
	int64_t result = io->result;

	/* 0: the end of a file that has shrunk, or a file that can't be copied like this. */
	if (result <= 0) {
		dmcore_bio_complete(request->bio, result < 0 ? (int)result : -EIO);
		return false;
	}
	request->stalls = 0;
	request->left_bytes -= (uint64_t)result;
	if (request->left_bytes == 0) {
		dmcore_bio_complete(request->bio, 0);
		return false;
	}
	io->offset_bytes += (uint64_t)result;
	io->from_offset_bytes += (uint64_t)result;
	set_up(request);
	return true;
}

void dmcore__filedev_copy(struct dmcore_bdev *bdev, struct dmcore_bio *bio,
			  struct dmcore_bdev *from, uint64_t from_sector)
{
	const struct filedev *source = dmcore_bdev_private(from);
	const struct filedev *device = dmcore_bdev_private(bdev);
	struct filedev_request *request;

	if (source->is_block || device->is_block) {
		dmcore_bio_complete(bio, -EOPNOTSUPP);
		return;
	}
	request = dmcore__filedev_begin(bio);
	request->io.op = DMCORE_FILEIO_COPY;
	request->io.flags = 0;
	request->io.from = source->file;
	request->io.from_offset_bytes = dmcore__sectors_to_bytes(from_sector);
	request->io.num_vecs = 0;
	request->left_bytes = dmcore__sectors_to_bytes(bio->count);
	request->settle = copy_settle;
	set_up(request);
	dmcore__filedev_run(request);
}
