/* SPDX-License-Identifier: MIT */
/*
 * file: regular files and block device nodes.
 *
 * Specification:  file:PATH, or just PATH, or MAJOR:MINOR
 *
 * Here: which device a path means, and the way of a plain read or write: one buffer, one system
 * call. All else is in file/, see file/file.h. Called by the core through the driver's functions.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/checked.h"
#include "bdev/drivers/file/file.h"

/* What one call moves at the most; see file/transfer.c for more. */
#define PLAIN_BYTES_MAX (UINT64_C(1) << 30)

static int file_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	struct stat st;

	(void)core;
	if (stat(args, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		snprintf(key, bytes, "b:%u:%u", major(st.st_rdev), minor(st.st_rdev));
	else if (S_ISREG(st.st_mode))
		snprintf(key, bytes, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	else
		key[0] = '\0'; /* open says what is wrong with it */
	return 0;
}

static void finish_plain(struct dmcore_bio *bio, const struct dmcore_fileio *io)
{
	if ((uint64_t)io->result == dmcore__sectors_to_bytes(bio->count))
		dmcore_bio_complete(bio, 0);
	else
		dmcore__filedev_resume(dmcore__filedev_begin(bio));
}

static void plain_done(struct dmcore_fileio *io)
{
	struct filedev_request *request = (struct filedev_request *)(void *)io;

	finish_plain(request->bio, io);
}

/* Most of what there is: memory in one piece, nothing special. */
static void submit_plain(struct filedev *device, struct dmcore_bio *bio, void *base, uint64_t bytes)
{
	/* As dmcore_bio_driver_data(), without a call. */
	struct filedev_request *request = (struct filedev_request *)(void *)bio->driver_data;
	struct dmcore_fileio *io = &request->io;

	request->bio = bio;
	request->slices[0].base = base;
	request->slices[0].len_bytes = bytes;
	io->done = plain_done;
	io->file = device->file;
	io->vecs = request->slices;
	io->offset_bytes = dmcore__sectors_to_bytes(bio->sector);
	io->len_bytes = bytes;
	io->num_vecs = 1;
	io->op = bio->op == DMCORE_OP_READ ? DMCORE_FILEIO_READ : DMCORE_FILEIO_WRITE;
	io->unused = 0;
	io->tag = 0;
	io->flags = 0;
	io->unused2 = 0;
	if (dmcore_fileio_start(bio->queue, io))
		finish_plain(bio, io);
}

static void file_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	struct filedev *device = dmcore_bdev_private(bdev);
	uint64_t bytes = dmcore__sectors_to_bytes(bio->count);
	bool moves = bio->op <= DMCORE_OP_WRITE && !(bio->flags & DMCORE_BIO_FUA);

	if (moves && bio->num_vecs > 0 && bytes <= PLAIN_BYTES_MAX &&
	    bio->vec_offset_bytes + bytes <= bio->vecs->len_bytes) {
		char *base = (char *)bio->vecs->base + bio->vec_offset_bytes;

		if (((uintptr_t)base & device->memory_mask) == 0) {
			submit_plain(device, bio, base, bytes);
			return;
		}
	}
	dmcore__filedev_submit(bio);
}

extern const struct dmcore_driver dmcore__driver_file;

const struct dmcore_driver dmcore__driver_file = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "file",
	.version = { 1, 0, 0 },
	.identify = file_identify,
	.open = dmcore__filedev_open,
	.close = dmcore__filedev_close,
	.submit = file_submit,
	.refresh = dmcore__filedev_refresh,
	.extent = dmcore__filedev_extent,
	.copy = dmcore__filedev_copy,
};
