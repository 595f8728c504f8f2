/* SPDX-License-Identifier: MIT */
/*
 * The io_uring backend, and the only file that knows liburing. One ring for each queue, made
 * disabled and enabled by its first user, so that the thread that makes a queue needn't be its
 * owner. What the kernel, its configuration or the locked-memory limit refuse is done without.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/backend.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/error.h"

/* Completions taken off the ring before their callbacks run. */
#define REAP_BATCH 64u
/* Kernel threads that may block on behalf of one ring: bounded and unbounded work. */
#define IOWQ_WORKERS_MAX 16u
/* io_uring takes no more in one request. */
#define CALL_BYTES_MAX (1u << 30)
/* Copying so much into the page cache takes longer than waking a thread for it. */
#define LARGE_WRITE_BYTES (64u << 10)
/* DMCORE_QUEUE_INLINE_WRITES: how large a write may be, and how long it may take. */
#define INLINE_WRITE_BYTES_MAX (64u << 10)
/* From here on one that is alone; what comes beside it is worth a thread. */
#define INLINE_ALONE_BYTES (32u << 10)
#define SLOW_WRITE_NS UINT64_C(1000000)
#define SLOW_PAUSE_NS UINT64_C(100000000)
#define PAGE_BYTES 4096u

struct uring_backend {
	struct dmcore__backend base;
	struct io_uring ring;
	bool enabled;
	bool wake_armed;
	bool files_registered;
	unsigned int flags;              /* that the ring was made with */
	int event_fd;                    /* uring_poll_fd(); -1 until asked for */
	unsigned int num_buffers;
	struct dmio_bvec buffers[DMCORE_QUEUE_BUFFERS_MAX];
	struct dmcore_fileio *waiting_head; /* started, no room in the ring yet */
	struct dmcore_fileio *waiting_tail;
	unsigned int on_ring;            /* prepared or in the kernel */
	uint64_t inline_from_ns;         /* no writes in the caller's thread before that */
	bool has_written_inline;         /* a large one, since the last kick */
	uint64_t last_large_id;          /* of the file of the last large write to a cache */
	uint64_t file_ids[DMCORE__FILE_SLOTS]; /* held by the ring's file table; 0: nothing */
};

/* From the most to the least that is hoped for. */
static const struct {
	unsigned int flags;
	const char *name;
} modes[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		  IORING_SETUP_R_DISABLED,
	  "single issuer, deferred task run" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, "cooperative task run" },
	{ 0, "plain" },
};

static struct uring_backend *of(struct dmcore__backend *backend)
{
	return dmcore__container_of(backend, struct uring_backend, base);
}

/* Why io_uring doesn't work, with what to do about it. */
static const char *hint(int error)
{
	switch (error) {
	case -ENOSYS:
		return " (no io_uring in this kernel, or forbidden by seccomp)";
	case -EPERM:
		return " (forbidden by seccomp or kernel.io_uring_disabled)";
	case -ENOMEM:
		return " (RLIMIT_MEMLOCK too low?)";
	default:
		return "";
	}
}

static int init_ring(struct uring_backend *self, unsigned int *mode)
{
	const struct dmcore__backend_config *config = &self->base.config;
	unsigned int last = DMCORE__ARRAY_SIZE(modes) - 1;
	int ret = -EINVAL;

	/* Deferred and cooperative work would wait for the thread that has handed the queue on. */
	for (*mode = config->migrates ? last : 0; *mode <= last; ++*mode) {
		struct io_uring_params params = {
			/* Room for a completion of each request, and the wake-up's. */
			.flags = modes[*mode].flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = 2 * config->depth,
		};

		ret = io_uring_queue_init_params(config->depth, &self->ring, &params);
		if (ret == 0) {
			self->flags = params.flags;
			/* One completion is the wake-up's. */
			if (self->base.config.depth >= params.cq_entries)
				self->base.config.depth = params.cq_entries - 1;
			return 0;
		}
		if (ret != -EINVAL)
			break;
	}
	return ret;
}

/* Operations and features without which the backend isn't worth having. */
static int probe(struct uring_backend *self)
{
	static const int needed[] = { IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV,
				      IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
				      IORING_OP_POLL_ADD };
	struct io_uring_probe *found;
	int ret = 0;

	if (!(self->ring.features & IORING_FEAT_EXT_ARG) ||
	    !(self->ring.features & IORING_FEAT_NODROP))
		return -EOPNOTSUPP;
	found = io_uring_get_probe_ring(&self->ring);
	if (!found)
		return -EOPNOTSUPP;
	for (size_t i = 0; i < DMCORE__ARRAY_SIZE(needed); i++) {
		if (!io_uring_opcode_supported(found, needed[i]))
			ret = -EOPNOTSUPP;
	}
	io_uring_free_probe(found);
	return ret;
}

static void register_extras(struct uring_backend *self)
{
	unsigned int workers[2] = { IOWQ_WORKERS_MAX, IOWQ_WORKERS_MAX };

	/* Each is worth some nanoseconds or threads, none is needed. */
	io_uring_register_iowq_max_workers(&self->ring, workers);
	if (self->base.config.migrates)
		return; /* a registered ring is known to one thread, and so is the end of files */
	io_uring_register_ring_fd(&self->ring);
	self->files_registered =
		io_uring_register_files_sparse(&self->ring, DMCORE__FILE_SLOTS) == 0;
}

/* The first user of the ring becomes its issuer. */
static int enable(struct uring_backend *self)
{
	int ret;

	if (self->enabled)
		return 0;
	if (self->flags & IORING_SETUP_R_DISABLED) {
		/* liburing 2.3 declares io_uring_enable_rings() but doesn't export it. */
		ret = io_uring_register((unsigned int)self->ring.ring_fd,
					IORING_REGISTER_ENABLE_RINGS, NULL, 0);
		if (ret < 0)
			return ret;
	}
	self->enabled = true;
	register_extras(self);
	return 0;
}

static void uring_destroy(struct dmcore__backend *backend)
{
	struct dmcore *core = backend->config.core;
	struct uring_backend *self = of(backend);

	DMCORE__ASSERT(backend->inflight == 0);
	if (dmcore__alive(core))
		io_uring_queue_exit(&self->ring);
	if (self->event_fd >= 0)
		close(self->event_fd);
	dmcore__free(core, self);
}

static int uring_create(const struct dmcore__backend_config *config, char *reason,
			unsigned int reason_bytes, struct dmcore__backend **result)
{
	struct uring_backend *self = dmcore__zalloc(config->core, sizeof(*self));
	char text[96];
	unsigned int mode;
	int ret;

	if (!self)
		return -ENOMEM;
	self->base.ops = &dmcore__backend_io_uring;
	self->base.config = *config;
	self->event_fd = -1;
	ret = init_ring(self, &mode);
	if (ret) {
		snprintf(reason, reason_bytes, "io_uring: %s%s",
			 dmcore__strerror(ret, text, sizeof(text)), hint(ret));
		goto free_self;
	}
	ret = probe(self);
	if (ret) {
		snprintf(reason, reason_bytes, "io_uring: this kernel lacks operations we need");
		goto exit_ring;
	}
	/* A child must not share the ring's memory; if this fails, it has the alive page. */
	io_uring_ring_dontfork(&self->ring);
	snprintf(reason, reason_bytes, "io_uring (%s)", modes[mode].name);
	*result = &self->base;
	return 0;

exit_ring:
	io_uring_queue_exit(&self->ring);
free_self:
	dmcore__free(config->core, self);
	/* Too little locked memory is a reason for the other backend, not a failure. */
	return -EOPNOTSUPP;
}

static void flush_sq(struct uring_backend *self)
{
	int ret;

	do {
		ret = io_uring_submit(&self->ring);
	} while (ret == -EINTR);
	/* -EAGAIN and -EBUSY leave the entries in the ring for the next time. */
}

/* The slot of a file in the ring's table, or -1. */
static int file_slot(struct uring_backend *self, const struct dmcore_file *file)
{
	int fd = file->fd;

	if (!self->files_registered || file->slot >= DMCORE__FILE_SLOTS)
		return -1;
	if (dmcore__likely(self->file_ids[file->slot] == file->id))
		return (int)file->slot;
	if (io_uring_register_files_update(&self->ring, file->slot, &fd, 1) != 1)
		return -1;
	self->file_ids[file->slot] = file->id;
	return (int)file->slot;
}

/* The registered buffer that holds a range, or -1. */
static int buffer_index(const struct uring_backend *self, const struct dmcore_fileio *io)
{
	const char *begin = io->vecs->base;

	for (unsigned int i = 0; i < self->num_buffers; i++) {
		const char *base = self->buffers[i].base;

		if (begin >= base && io->len_bytes <= self->buffers[i].len_bytes &&
		    begin - base <= (ptrdiff_t)(self->buffers[i].len_bytes - io->len_bytes))
			return (int)i;
	}
	return -1;
}

static void prepare_rw(struct uring_backend *self, struct io_uring_sqe *sqe,
		       const struct dmcore_fileio *io)
{
	const struct iovec *iov = (const struct iovec *)(const void *)io->vecs;
	bool reading = io->op == DMCORE_FILEIO_READ;
	unsigned int bytes = io->len_bytes > CALL_BYTES_MAX ? CALL_BYTES_MAX
							    : (unsigned int)io->len_bytes;
	int fd = io->file->fd;
	int index = -1;

	if (io->num_vecs != 1) {
		if (reading)
			io_uring_prep_readv2(sqe, fd, iov, io->num_vecs, io->offset_bytes,
					     io->flags);
		else
			io_uring_prep_writev2(sqe, fd, iov, io->num_vecs, io->offset_bytes,
					      io->flags);
		return;
	}
	if (dmcore__unlikely(self->num_buffers))
		index = buffer_index(self, io);
	if (reading && index < 0)
		io_uring_prep_read(sqe, fd, io->vecs->base, bytes, io->offset_bytes);
	else if (reading)
		io_uring_prep_read_fixed(sqe, fd, io->vecs->base, bytes, io->offset_bytes, index);
	else if (index < 0)
		io_uring_prep_write(sqe, fd, io->vecs->base, bytes, io->offset_bytes);
	else
		io_uring_prep_write_fixed(sqe, fd, io->vecs->base, bytes, io->offset_bytes, index);
	sqe->rw_flags = io->flags;
}

/*
 * Whether a request wants a kernel thread of its own. Left to itself the kernel has one thread do
 * all writes to page caches one after another. For one file that is best, for they exclude each
 * other; those to several files are to run side by side.
 */
static bool wants_thread(struct uring_backend *self, const struct dmcore_fileio *io)
{
	bool other;

	if (io->op != DMCORE_FILEIO_WRITE || io->len_bytes < LARGE_WRITE_BYTES || !io->file->cached)
		return false;
	other = self->last_large_id != 0 && self->last_large_id != io->file->id;
	self->last_large_id = io->file->id;
	return other;
}

static void prepare(struct uring_backend *self, struct io_uring_sqe *sqe, struct dmcore_fileio *io)
{
	int slot = file_slot(self, io->file);

	switch (io->op) {
	case DMCORE_FILEIO_DATASYNC:
		io_uring_prep_fsync(sqe, io->file->fd, IORING_FSYNC_DATASYNC);
		break;
	case DMCORE_FILEIO_FALLOCATE:
		io_uring_prep_fallocate(sqe, io->file->fd, io->flags, (off_t)io->offset_bytes,
					(off_t)io->len_bytes);
		break;
	default:
		prepare_rw(self, sqe, io);
		break;
	}
	/* After the preparation, which clears flags. */
	if (slot >= 0) {
		sqe->fd = slot;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	if (wants_thread(self, io))
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, io);
}

/* Puts an I/O on the ring; false: no room. */
static bool put_on_ring(struct uring_backend *self, struct dmcore_fileio *io)
{
	struct io_uring_sqe *sqe;

	if (self->on_ring >= self->base.config.depth)
		return false;
	sqe = io_uring_get_sqe(&self->ring);
	if (dmcore__unlikely(!sqe)) {
		flush_sq(self);
		sqe = io_uring_get_sqe(&self->ring);
		if (!sqe)
			return false;
	}
	self->on_ring++;
	prepare(self, sqe, io);
	return true;
}

/*
 * Makes a write in the caller's thread; false: it isn't one for that. Parts of pages may have to be
 * read first, and what is to be durable is waited for.
 */
static bool write_inline(struct uring_backend *self, struct dmcore_fileio *io)
{
	struct dmcore *core = self->base.config.core;
	uint64_t begun_ns;
	uint64_t ended_ns;

	if (io->op != DMCORE_FILEIO_WRITE || !io->file->cached || io->flags ||
	    io->len_bytes > INLINE_WRITE_BYTES_MAX ||
	    ((io->offset_bytes | io->len_bytes) & (PAGE_BYTES - 1)))
		return false;
	if (io->len_bytes >= INLINE_ALONE_BYTES) {
		if (self->on_ring > 0 || self->has_written_inline)
			return false;
		self->has_written_inline = true;
	}
	begun_ns = dmcore_clock_ns(core);
	if (begun_ns < self->inline_from_ns)
		return false;
	io->result = dmcore__fileio_run(io);
	ended_ns = dmcore_clock_ns(core);
	if (ended_ns - begun_ns > SLOW_WRITE_NS)
		self->inline_from_ns = ended_ns + SLOW_PAUSE_NS;
	return true;
}

static int uring_start(struct dmcore__backend *backend, struct dmcore_fileio *io)
{
	struct uring_backend *self = of(backend);

	if (dmcore__unlikely(!self->enabled)) {
		int ret = enable(self);

		if (ret) {
			io->result = ret;
			return 1;
		}
	}
	/* Rings have no such operations. */
	if (dmcore__unlikely(io->op >= DMCORE_FILEIO_DISCARD)) {
		io->result = dmcore__fileio_run(io);
		return 1;
	}
	if (backend->config.inline_writes && write_inline(self, io))
		return 1;
	backend->inflight++;
	if (dmcore__likely(!self->waiting_head) && put_on_ring(self, io))
		return 0;
	io->next = NULL;
	if (self->waiting_head)
		self->waiting_tail->next = io;
	else
		self->waiting_head = io;
	self->waiting_tail = io;
	return 0;
}

static void start_waiting(struct uring_backend *self)
{
	while (self->waiting_head) {
		struct dmcore_fileio *next = self->waiting_head->next;

		if (!put_on_ring(self, self->waiting_head))
			return;
		self->waiting_head = next;
	}
}

static void uring_kick(struct dmcore__backend *backend)
{
	struct uring_backend *self = of(backend);

	self->has_written_inline = false;
	if (io_uring_sq_ready(&self->ring))
		flush_sq(self);
}

/* Takes up to a batch of completions off the ring; returns how many I/Os are among them. */
static unsigned int take_batch(struct uring_backend *self, struct dmcore_fileio **batch)
{
	struct io_uring_cqe *cqes[REAP_BATCH];
	unsigned int count = io_uring_peek_batch_cqe(&self->ring, cqes, REAP_BATCH);
	unsigned int ios = 0;

	for (unsigned int i = 0; i < count; i++) {
		struct dmcore_fileio *io = io_uring_cqe_get_data(cqes[i]);

		if (!io) {
			dmcore__wake_fd_drain(self->base.config.wake_fd);
			if (!(cqes[i]->flags & IORING_CQE_F_MORE))
				self->wake_armed = false;
			continue;
		}
		io->result = cqes[i]->res;
		batch[ios++] = io;
	}
	io_uring_cq_advance(&self->ring, count);
	return ios;
}

static unsigned int uring_reap(struct dmcore__backend *backend)
{
	struct uring_backend *self = of(backend);
	struct dmcore_fileio *batch[REAP_BATCH];
	bool tells = self->event_fd >= 0;
	unsigned int ended = 0;
	unsigned int count;

	if (!self->enabled)
		return 0;
	do {
		/* Collecting sets it once more; with nothing to collect it stays as it is. */
		if (dmcore__unlikely(tells))
			dmcore__wake_fd_drain(self->event_fd);
		count = take_batch(self, batch);
		self->on_ring -= count;
		backend->inflight -= count;
		for (unsigned int i = 0; i < count; i++) {
			/* Not by us: a signal came while the kernel started a thread for it. */
			if (dmcore__unlikely(batch[i]->result == -ECANCELED))
				batch[i]->result = dmcore__fileio_run(batch[i]);
			batch[i]->done(batch[i]);
		}
		ended += count;
	} while (count == REAP_BATCH || (tells && count > 0));
	if (dmcore__unlikely(self->waiting_head))
		start_waiting(self);
	return ended;
}

/* Watches the wake-up descriptor from the ring, so that one wait serves both. */
static void arm_wake(struct uring_backend *self)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&self->ring);

	if (!sqe) {
		flush_sq(self);
		sqe = io_uring_get_sqe(&self->ring);
		if (!sqe)
			return;
	}
	io_uring_prep_poll_multishot(sqe, self->base.config.wake_fd, POLLIN);
	io_uring_sqe_set_data(sqe, NULL);
	self->wake_armed = true;
	/* By itself: a call that submits and waits doesn't tell of a signal. */
	flush_sq(self);
}

static int sleep_until(struct uring_backend *self, unsigned int count, int64_t timeout_ns)
{
	struct __kernel_timespec ts = { .tv_sec = timeout_ns / 1000000000,
					.tv_nsec = timeout_ns % 1000000000 };
	struct io_uring_cqe *cqe;
	int ret = io_uring_submit_and_wait_timeout(&self->ring, &cqe, count,
						   timeout_ns < 0 ? NULL : &ts, NULL);

	/* -EAGAIN and -EBUSY pass; a positive count is of completions. */
	return ret > 0 || ret == -EAGAIN || ret == -EBUSY ? 0 : ret;
}

/*
 * Waking a thread for each of 32 completions costs more than what a target does with them. The
 * wake-up of another thread is one completion more, so a wait for several may sleep on over it.
 */
static int uring_wait(struct dmcore__backend *backend, unsigned int want, int64_t timeout_ns)
{
	struct uring_backend *self = of(backend);
	int ret = enable(self);

	if (ret)
		return ret;
	self->has_written_inline = false;
	if (!self->wake_armed)
		arm_wake(self);
	if (want > self->on_ring)
		want = self->on_ring;
	if (want > 1 && (timeout_ns < 0 || timeout_ns > DMCORE__SEVERAL_NS)) {
		ret = sleep_until(self, want, DMCORE__SEVERAL_NS);
		if (ret != -ETIME || io_uring_cq_ready(&self->ring))
			return ret == -ETIME ? 0 : ret;
		if (timeout_ns > 0)
			timeout_ns -= DMCORE__SEVERAL_NS;
	}
	return sleep_until(self, 1, timeout_ns);
}

/*
 * Not the ring's own descriptor: with deferred task run nobody who waits for that is told of a
 * completion that the owner has yet to collect.
 */
static int uring_poll_fd(struct dmcore__backend *backend, int *fd)
{
	struct uring_backend *self = of(backend);
	int ret = enable(self);

	if (ret == 0 && self->event_fd < 0) {
		self->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (self->event_fd < 0)
			return -errno;
		ret = io_uring_register_eventfd(&self->ring, self->event_fd);
		if (ret) {
			close(self->event_fd);
			self->event_fd = -1;
		}
	}
	*fd = self->event_fd;
	return ret;
}

static void uring_forget(struct dmcore__backend *backend, uint32_t slot)
{
	struct uring_backend *self = of(backend);
	int none = -1;

	if (!self->files_registered || self->file_ids[slot] == 0)
		return;
	self->file_ids[slot] = 0;
	io_uring_register_files_update(&self->ring, slot, &none, 1);
}

static int uring_register_buffers(struct dmcore__backend *backend, const struct dmio_bvec *buffers,
				  unsigned int count)
{
	struct uring_backend *self = of(backend);
	struct rlimit limit = { 0, 0 };
	uint64_t bytes = 0;
	int ret = enable(self);

	if (ret)
		return ret;
	if (self->num_buffers) {
		io_uring_unregister_buffers(&self->ring);
		self->num_buffers = 0;
	}
	if (count == 0)
		return 0;
	ret = io_uring_register_buffers(&self->ring, (const struct iovec *)(const void *)buffers,
					count);
	if (ret && ret != -ENOMEM)
		return dmcore__error(ret, "registering buffers: %s", strerror(-ret));
	if (ret) {
		for (unsigned int i = 0; i < count; i++)
			bytes += buffers[i].len_bytes;
		getrlimit(RLIMIT_MEMLOCK, &limit);
		return dmcore__error(ret,
				     "registering %llu bytes of buffers: RLIMIT_MEMLOCK is %llu",
				     (unsigned long long)bytes,
				     (unsigned long long)limit.rlim_cur);
	}
	memcpy(self->buffers, buffers, count * sizeof(*buffers));
	self->num_buffers = count;
	return 0;
}

const struct dmcore__backend_ops dmcore__backend_io_uring = {
	.name = "io_uring",
	.kind = DMCORE_BACKEND_IO_URING,
	.create = uring_create,
	.destroy = uring_destroy,
	.start = uring_start,
	.kick = uring_kick,
	.reap = uring_reap,
	.wait = uring_wait,
	.poll_fd = uring_poll_fd,
	.forget = uring_forget,
	.register_buffers = uring_register_buffers,
};
