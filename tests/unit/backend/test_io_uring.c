/* SPDX-License-Identifier: MIT */
/*
 * The io_uring backend on kernels that know less, refuse more, or have no room for a while. The
 * linker sends its calls of liburing here first (--wrap, in tests/local.mk).
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define SECTORS 64u
#define REQUESTS 40u
#define DEPTH 4u
#define NO_OPERATIONS "io_uring: this kernel lacks operations we need"

/* One call that fails, after some that don't. */
struct failure {
	int error; /* negative */
	unsigned int skip;
	unsigned int times; /* 0: for ever */
};

static struct {
	struct failure init;
	unsigned int refused_flags; /* of a ring */
	unsigned int lacks_features;
	unsigned int num_cqes;
	bool has_no_probe;
	int lacks_op; /* and all other than 0 */
	struct failure enable;
	struct failure files_update;
	bool has_no_file_table;
	struct failure event_fd;
	struct failure buffers;
	struct failure submit;
	struct failure wait;
	struct failure eventfd;
	unsigned int refused; /* so many calls have failed */
} kernel;

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static unsigned char memory[SECTORS * DMCORE_SECTOR_BYTES] __attribute__((aligned(4096)));

static int refusal(struct failure *failure)
{
	int error = failure->error;

	if (error == 0)
		return 0;
	if (failure->skip > 0) {
		failure->skip--;
		return 0;
	}
	if (failure->times > 0 && --failure->times == 0)
		failure->error = 0;
	kernel.refused++;
	return error;
}

/* ---- the calls ---- */

int __real_io_uring_queue_init_params(unsigned int entries, struct io_uring *ring,
				      struct io_uring_params *params);
int __wrap_io_uring_queue_init_params(unsigned int entries, struct io_uring *ring,
				      struct io_uring_params *params);
struct io_uring_probe *__real_io_uring_get_probe_ring(struct io_uring *ring);
struct io_uring_probe *__wrap_io_uring_get_probe_ring(struct io_uring *ring);
int __real_io_uring_register(unsigned int fd, unsigned int opcode, const void *arg,
			     unsigned int count);
int __wrap_io_uring_register(unsigned int fd, unsigned int opcode, const void *arg,
			     unsigned int count);
int __real_io_uring_register_files_sparse(struct io_uring *ring, unsigned int count);
int __wrap_io_uring_register_files_sparse(struct io_uring *ring, unsigned int count);
int __real_io_uring_register_files_update(struct io_uring *ring, unsigned int slot, int *fds,
					  unsigned int count);
int __wrap_io_uring_register_files_update(struct io_uring *ring, unsigned int slot, int *fds,
					  unsigned int count);
int __real_io_uring_register_eventfd(struct io_uring *ring, int fd);
int __wrap_io_uring_register_eventfd(struct io_uring *ring, int fd);
int __real_io_uring_register_buffers(struct io_uring *ring, const struct iovec *iovecs,
				     unsigned int count);
int __wrap_io_uring_register_buffers(struct io_uring *ring, const struct iovec *iovecs,
				     unsigned int count);
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int count, struct __kernel_timespec *ts,
					    sigset_t *mask);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int count, struct __kernel_timespec *ts,
					    sigset_t *mask);
int __real_eventfd(unsigned int value, int flags);
int __wrap_eventfd(unsigned int value, int flags);

int __wrap_io_uring_queue_init_params(unsigned int entries, struct io_uring *ring,
				      struct io_uring_params *params)
{
	int ret = refusal(&kernel.init);

	if (ret == 0 && params->flags & kernel.refused_flags)
		ret = -EINVAL;
	if (ret)
		return ret;
	ret = __real_io_uring_queue_init_params(entries, ring, params);
	if (ret == 0)
		ring->features &= ~kernel.lacks_features;
	if (ret == 0 && kernel.num_cqes)
		params->cq_entries = kernel.num_cqes;
	return ret;
}

struct io_uring_probe *__wrap_io_uring_get_probe_ring(struct io_uring *ring)
{
	struct io_uring_probe *probe;

	if (kernel.has_no_probe)
		return NULL;
	probe = __real_io_uring_get_probe_ring(ring);
	if (probe && kernel.lacks_op)
		probe->ops[kernel.lacks_op].flags = 0;
	return probe;
}

int __wrap_io_uring_register(unsigned int fd, unsigned int opcode, const void *arg,
			     unsigned int count)
{
	int ret = opcode == IORING_REGISTER_ENABLE_RINGS ? refusal(&kernel.enable) : 0;

	return ret ? ret : __real_io_uring_register(fd, opcode, arg, count);
}

int __wrap_io_uring_register_files_sparse(struct io_uring *ring, unsigned int count)
{
	return kernel.has_no_file_table ? -EINVAL
					: __real_io_uring_register_files_sparse(ring, count);
}

int __wrap_io_uring_register_files_update(struct io_uring *ring, unsigned int slot, int *fds,
					  unsigned int count)
{
	int ret = refusal(&kernel.files_update);

	return ret ? ret : __real_io_uring_register_files_update(ring, slot, fds, count);
}

int __wrap_io_uring_register_eventfd(struct io_uring *ring, int fd)
{
	int ret = refusal(&kernel.event_fd);

	return ret ? ret : __real_io_uring_register_eventfd(ring, fd);
}

int __wrap_io_uring_register_buffers(struct io_uring *ring, const struct iovec *iovecs,
				     unsigned int count)
{
	int ret = refusal(&kernel.buffers);

	return ret ? ret : __real_io_uring_register_buffers(ring, iovecs, count);
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	int ret = refusal(&kernel.submit);

	return ret ? ret : __real_io_uring_submit(ring);
}

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int count, struct __kernel_timespec *ts,
					    sigset_t *mask)
{
	int ret = refusal(&kernel.wait);

	return ret ? ret : __real_io_uring_submit_and_wait_timeout(ring, cqe, count, ts, mask);
}

int __wrap_eventfd(unsigned int value, int flags)
{
	int ret = refusal(&kernel.eventfd);

	if (ret == 0)
		return __real_eventfd(value, flags);
	errno = -ret;
	return -1;
}

/* ---- queues ---- */

static void open_queue(unsigned int depth)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = DMCORE_BACKEND_IO_URING;
	options.depth = depth;
	stage_open(&stage, NULL, &options);
	scratch_create(&scratch, NULL, sizeof(memory));
	file = stage_bdev(&stage, scratch.path, 0);
}

static void close_queue(void)
{
	memset(&kernel, 0, sizeof(kernel));
	stage_close(&stage);
	scratch_close(&scratch);
}

static void need_io_uring(void)
{
	if (!stage_has_io_uring())
		cr_skip("no io_uring here");
}

TestSuite(io_uring, .init = need_io_uring);

static struct dmcore_queue_info queue_info(void)
{
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_queue_info(stage.queue, &info), 0);
	return info;
}

/* Many at once, each of which must end. */
static void write_and_read(uint32_t version)
{
	struct tally tally = { 0 };

	pattern_fill(memory, 0, REQUESTS, version);
	for (unsigned int i = 0; i < REQUESTS; i++)
		stage_submit(&stage, file, DMCORE_OP_WRITE, i, 1, memory + i * DMCORE_SECTOR_BYTES,
			     &tally);
	stage_wait(&stage, &tally, REQUESTS);
	cr_assert_eq(tally.failed, 0, "%s", dmcore_error_name(tally.status));
	memset(memory, 0, sizeof(memory));
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, REQUESTS, memory), 0);
	cr_assert_eq(pattern_differs(memory, 0, REQUESTS, version), -1);
}

/* ---- making a ring ---- */

static void expect_mode(unsigned int refused_flags, const char *reason)
{
	kernel.refused_flags = refused_flags;
	open_queue(DEPTH);
	cr_assert_str_eq(queue_info().reason, reason);
	write_and_read(1);
	close_queue();
}

Test(io_uring, an_older_kernel_gets_the_next_best_ring)
{
	expect_mode(IORING_SETUP_DEFER_TASKRUN, "io_uring (cooperative task run)");
	expect_mode(IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN, "io_uring (plain)");
}

static void expect_refused(const char *message)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue *queue;

	options.backend = DMCORE_BACKEND_IO_URING;
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &queue), -EOPNOTSUPP);
	cr_assert_null(queue);
	cr_assert_str_eq(dmcore_error_message(), message);
}

/* Nothing of io_uring is needed here. */
Test(io_uring_refused, why_there_is_no_ring_is_told)
{
	stage_open(&stage, NULL, NULL);
	kernel.init.error = -ENOSYS;
	expect_refused("io_uring: Function not implemented (ENOSYS) (no io_uring in this kernel, "
		       "or forbidden by seccomp)");
	kernel.init.error = -EPERM;
	expect_refused("io_uring: Operation not permitted (EPERM) (forbidden by seccomp or "
		       "kernel.io_uring_disabled)");
	kernel.init.error = -ENOMEM;
	expect_refused("io_uring: Cannot allocate memory (ENOMEM) (RLIMIT_MEMLOCK too low?)");
	kernel.init.error = -EMFILE;
	expect_refused("io_uring: Too many open files (EMFILE)");
	kernel.init.error = -EINVAL;
	expect_refused("io_uring: Invalid argument (EINVAL)");
	stage_close(&stage);
}

Test(io_uring_refused, the_other_backend_says_why_it_was_chosen)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	cr_assert_eq(unsetenv("DMCORE_BACKEND"), 0);
	kernel.init.error = -ENOMEM;
	stage_open(&stage, NULL, &options);
	cr_assert_eq(queue_info().backend, DMCORE_BACKEND_PREAD);
	cr_assert_str_eq(queue_info().reason,
			 "pread (inline); io_uring: Cannot allocate memory (ENOMEM) "
			 "(RLIMIT_MEMLOCK too low?)");
	stage_close(&stage);
}

Test(io_uring, a_kernel_that_lacks_what_is_needed_is_not_used)
{
	stage_open(&stage, NULL, NULL);
	kernel.lacks_features = IORING_FEAT_EXT_ARG;
	expect_refused(NO_OPERATIONS);
	kernel.lacks_features = IORING_FEAT_NODROP;
	expect_refused(NO_OPERATIONS);
	kernel.lacks_features = 0;
	kernel.has_no_probe = true;
	expect_refused(NO_OPERATIONS);
	kernel.has_no_probe = false;
	kernel.lacks_op = IORING_OP_FALLOCATE;
	expect_refused(NO_OPERATIONS);
	kernel.lacks_op = 0;
	stage_close(&stage);
}

Test(io_uring, a_short_completion_ring_lowers_the_depth)
{
	kernel.num_cqes = DEPTH;
	open_queue(DEPTH);
	cr_assert_eq(queue_info().depth, DEPTH - 1);
	write_and_read(1);
	close_queue();
}

/* ---- the first use ---- */

Test(io_uring, a_ring_that_cannot_be_enabled_fails_what_needs_it)
{
	struct dmio_bvec buffer = { memory, sizeof(memory) };
	struct tally tally = { 0 };

	open_queue(DEPTH);
	if (!strstr(queue_info().reason, "single issuer"))
		cr_skip("this kernel's rings are enabled from the start");
	kernel.enable.error = -EBADFD;
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 1, memory), -EBADFD);
	cr_assert_eq(dmcore_queue_fd(stage.queue), -EBADFD);
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, &buffer, 1), -EBADFD);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 1000000), -EBADFD);
	/* Not for ever. */
	kernel.enable.error = 0;
	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, memory, &tally);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
	close_queue();
}

Test(io_uring, files_that_cannot_be_registered_are_used_all_the_same)
{
	kernel.files_update.error = -EBADF;
	open_queue(DEPTH);
	write_and_read(1);
	cr_assert_gt(kernel.refused, 0);
	kernel.files_update.error = 0;
	write_and_read(2);
	close_queue();
	kernel.has_no_file_table = true;
	open_queue(DEPTH);
	write_and_read(3);
	close_queue();
}

/* ---- a kernel without room ---- */

/* The entries wait in the ring, which fills up. */
static void submit_is_refused(int error, unsigned int times)
{
	open_queue(DEPTH);
	kernel.submit = (struct failure){ .error = error, .times = times };
	write_and_read((uint32_t)times);
	cr_assert_eq(kernel.refused, times);
	close_queue();
}

Test(io_uring, what_the_kernel_does_not_take_is_offered_again)
{
	submit_is_refused(-EINTR, 1);
	submit_is_refused(-EINTR, 5);
	submit_is_refused(-EAGAIN, 1);
	submit_is_refused(-EAGAIN, 2);
	submit_is_refused(-EBUSY, 3);
	submit_is_refused(-EBUSY, 8);
}

Test(io_uring, a_wait_without_room_is_no_error)
{
	struct tally tally = { 0 };

	open_queue(DEPTH);
	kernel.wait = (struct failure){ .error = -EAGAIN, .times = 2 };
	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, memory, &tally);
	stage_wait(&stage, &tally, 1);
	/* With nothing under way every poll waits, and its time is up all the same. */
	kernel.refused = 0;
	kernel.wait = (struct failure){ .error = -EBUSY, .times = 2 };
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 1000000), 0);
	cr_assert_eq(kernel.refused, 2);
	kernel.wait = (struct failure){ .error = -EFAULT, .times = 1 };
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, 1000000000), -EFAULT);
	write_and_read(1);
	close_queue();
}

/* ---- what else is asked of a ring ---- */

Test(io_uring, a_descriptor_that_cannot_be_had_can_be_asked_for_again)
{
	open_queue(DEPTH);
	kernel.eventfd = (struct failure){ .error = -EMFILE, .times = 1 };
	cr_assert_eq(dmcore_queue_fd(stage.queue), -EMFILE);
	kernel.event_fd = (struct failure){ .error = -EBUSY, .times = 1 };
	cr_assert_eq(dmcore_queue_fd(stage.queue), -EBUSY);
	cr_assert_geq(dmcore_queue_fd(stage.queue), 0);
	write_and_read(1);
	close_queue();
}

Test(io_uring, buffers_that_are_refused_are_told_and_done_without)
{
	struct dmio_bvec buffer = { memory, sizeof(memory) };

	open_queue(DEPTH);
	kernel.buffers.error = -EFAULT;
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, &buffer, 1), -EFAULT);
	cr_assert_str_eq(dmcore_error_message(), "registering buffers: Bad address");
	write_and_read(1);
	kernel.buffers.error = -ENOMEM;
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, &buffer, 1), -ENOMEM);
	cr_assert_not_null(strstr(dmcore_error_message(),
				  "registering 32768 bytes of buffers: RLIMIT_MEMLOCK is "), "%s",
			   dmcore_error_message());
	write_and_read(2);
	close_queue();
}

/* Before, within, across the end of, longer than and behind a registered buffer. */
Test(io_uring, memory_only_partly_registered_is_used_all_the_same)
{
	static const struct {
		unsigned int sector;
		unsigned int count;
	} parts[] = { { 0, 8 }, { 8, 8 }, { 12, 2 }, { 15, 2 }, { 4, 20 }, { 8, 20 }, { 24, 8 } };
	struct dmio_bvec buffer = { memory + 8 * DMCORE_SECTOR_BYTES, 8 * DMCORE_SECTOR_BYTES };

	open_queue(DEPTH);
	if (dmcore_queue_register_buffers(stage.queue, &buffer, 1) != 0)
		cr_skip("no memory may be locked here");
	for (uint32_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		unsigned char *part = memory + parts[i].sector * DMCORE_SECTOR_BYTES;

		pattern_fill(part, parts[i].sector, parts[i].count, i);
		cr_assert_eq(stage_run(&stage, file, DMCORE_OP_WRITE, 0, parts[i].sector,
				       parts[i].count, part), 0);
		memset(part, 0, parts[i].count * DMCORE_SECTOR_BYTES);
		cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, parts[i].sector,
				       parts[i].count, part), 0);
		cr_assert_eq(pattern_differs(part, parts[i].sector, parts[i].count, i), -1);
	}
	close_queue();
}

static void count_end(struct dmcore_fileio *io)
{
	io->tag++;
}

/* A driver's call of more than io_uring takes in one request ends short, as any may. */
Test(io_uring, a_call_above_a_gibibyte_is_cut)
{
	size_t bytes = ((size_t)1 << 30) + 4096;
	void *zeroes = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);
	struct dmio_bvec vec = { zeroes, bytes };
	struct dmcore_fileio io = { .done = count_end,
				    .vecs = &vec,
				    .len_bytes = bytes,
				    .num_vecs = 1,
				    .op = DMCORE_FILEIO_WRITE };
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	cr_assert_neq(zeroes, MAP_FAILED);
	cr_assert_geq(fd, 0);
	open_queue(DEPTH);
	cr_assert_eq(dmcore_file_attach(stage.core, fd, &io.file), 0);
	if (dmcore_fileio_start(stage.queue, &io) == 0) {
		cr_assert_eq(dmcore_queue_kick(stage.queue), 0);
		while (io.tag == 0)
			dmcore_queue_poll(stage.queue, 0, 1, 0);
	}
	cr_assert_eq(io.result, (int64_t)1 << 30);
	dmcore_file_detach(io.file);
	close_queue();
	close(fd);
	munmap(zeroes, bytes);
}
