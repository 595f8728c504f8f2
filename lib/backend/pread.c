/* SPDX-License-Identifier: MIT */
/*
 * The backend of plain system calls: in the submitter, or by a pool of workers. The only file that
 * calls pread, pwrite, copy_file_range and their kin.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/workers.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"

_Static_assert(sizeof(struct dmio_bvec) == sizeof(struct iovec) &&
		       offsetof(struct dmio_bvec, base) == offsetof(struct iovec, iov_base) &&
		       offsetof(struct dmio_bvec, len_bytes) == offsetof(struct iovec, iov_len),
	       "vectors go to the kernel as they are");

struct pread_backend {
	struct dmcore__backend base;
	struct dmcore__workers *workers; /* NULL: inline */
	struct dmcore_fileio *plugged_head;
	struct dmcore_fileio *plugged_tail;
};

static struct pread_backend *of(struct dmcore__backend *backend)
{
	return dmcore__container_of(backend, struct pread_backend, base);
}

static int64_t run_rw(const struct dmcore_fileio *io)
{
	const struct iovec *iov = (const struct iovec *)(const void *)io->vecs;
	struct iovec one;
	int fd = io->file->fd;
	off_t offset = (off_t)io->offset_bytes;

	if (io->num_vecs == 1) {
		if (!io->flags) {
			if (io->op == DMCORE_FILEIO_READ)
				return pread(fd, io->vecs->base, io->len_bytes, offset);
			return pwrite(fd, io->vecs->base, io->len_bytes, offset);
		}
		one.iov_base = io->vecs->base;
		one.iov_len = io->len_bytes;
		iov = &one;
	}
	if (io->op == DMCORE_FILEIO_READ)
		return preadv2(fd, iov, (int)io->num_vecs, offset, io->flags);
	return pwritev2(fd, iov, (int)io->num_vecs, offset, io->flags);
}

static int64_t run_copy(const struct dmcore_fileio *io)
{
	off_t from_offset = (off_t)io->from_offset_bytes;
	off_t offset = (off_t)io->offset_bytes;

	return copy_file_range(io->from->fd, &from_offset, io->file->fd, &offset, io->len_bytes, 0);
}

int64_t dmcore__fileio_run(const struct dmcore_fileio *io)
{
	uint64_t range[2] = { io->offset_bytes, io->len_bytes };
	int fd = io->file->fd;
	int64_t ret;

	switch (io->op) {
	case DMCORE_FILEIO_READ:
	case DMCORE_FILEIO_WRITE:
		ret = run_rw(io);
		break;
	case DMCORE_FILEIO_DATASYNC:
		ret = fdatasync(fd);
		break;
	case DMCORE_FILEIO_FALLOCATE:
		ret = fallocate(fd, io->flags, (off_t)io->offset_bytes, (off_t)io->len_bytes);
		break;
	case DMCORE_FILEIO_DISCARD:
		ret = ioctl(fd, BLKDISCARD, range);
		break;
	case DMCORE_FILEIO_COPY:
		ret = run_copy(io);
		break;
	default:
		return -EINVAL;
	}
	return ret < 0 ? -errno : ret;
}

static void pread_destroy(struct dmcore__backend *backend)
{
	struct dmcore *core = backend->config.core;
	struct pread_backend *self = of(backend);

	DMCORE__ASSERT(backend->inflight == 0);
	dmcore__workers_destroy(self->workers);
	dmcore__free(core, self);
}

static int pread_create(const struct dmcore__backend_config *config, char *reason,
			unsigned int reason_bytes, struct dmcore__backend **result)
{
	struct pread_backend *self = dmcore__zalloc(config->core, sizeof(*self));
	int ret;

	if (!self)
		return -ENOMEM;
	self->base.ops = &dmcore__backend_pread;
	self->base.config = *config;
	if (config->workers) {
		ret = dmcore__workers_create(config, &self->workers);
		if (ret) {
			dmcore__free(config->core, self);
			return ret;
		}
		snprintf(reason, reason_bytes, "pread (%u workers)", config->workers);
	} else {
		snprintf(reason, reason_bytes, "pread (inline)");
	}
	*result = &self->base;
	return 0;
}

static int pread_start(struct dmcore__backend *backend, struct dmcore_fileio *io)
{
	struct pread_backend *self = of(backend);

	if (!self->workers) {
		io->result = dmcore__fileio_run(io);
		return 1;
	}
	io->next = NULL;
	if (self->plugged_head)
		self->plugged_tail->next = io;
	else
		self->plugged_head = io;
	self->plugged_tail = io;
	backend->inflight++;
	return 0;
}

static void pread_kick(struct dmcore__backend *backend)
{
	struct pread_backend *self = of(backend);

	if (!self->plugged_head)
		return;
	dmcore__workers_submit(self->workers, self->plugged_head, self->plugged_tail);
	self->plugged_head = NULL;
}

static unsigned int pread_reap(struct dmcore__backend *backend)
{
	struct pread_backend *self = of(backend);
	struct dmcore_fileio *io;
	unsigned int ended = 0;

	if (!self->workers)
		return 0;
	io = dmcore__workers_take(self->workers);
	while (io) {
		struct dmcore_fileio *next = io->next;

		backend->inflight--;
		ended++;
		io->done(io);
		io = next;
	}
	return ended;
}

static int pread_wait(struct dmcore__backend *backend, unsigned int want, int64_t timeout_ns)
{
	struct pread_backend *self = of(backend);
	struct pollfd pfd = { .fd = backend->config.wake_fd, .events = POLLIN };
	struct timespec ts = { .tv_sec = timeout_ns / 1000000000,
			       .tv_nsec = timeout_ns % 1000000000 };
	int ret;

	(void)want; /* each wake-up finds all that have ended */
	pread_kick(backend);
	if (self->workers && dmcore__workers_ended(self->workers))
		return 0;
	ret = ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL);
	if (ret < 0)
		return errno == EINTR ? -EINTR : 0;
	if (ret == 0)
		return -ETIME;
	dmcore__wake_fd_drain(pfd.fd);
	return 0;
}

static int pread_poll_fd(struct dmcore__backend *backend, int *fd)
{
	(void)backend;
	*fd = -1;
	return 0;
}

static int pread_register_buffers(struct dmcore__backend *backend, const struct dmio_bvec *buffers,
				  unsigned int count)
{
	(void)backend;
	(void)buffers;
	(void)count;
	return dmcore__error(-EOPNOTSUPP, "buffers are registered with io_uring only");
}

const struct dmcore__backend_ops dmcore__backend_pread = {
	.name = "pread",
	.kind = DMCORE_BACKEND_PREAD,
	.create = pread_create,
	.destroy = pread_destroy,
	.start = pread_start,
	.kick = pread_kick,
	.reap = pread_reap,
	.wait = pread_wait,
	.poll_fd = pread_poll_fd,
	.register_buffers = pread_register_buffers,
};
