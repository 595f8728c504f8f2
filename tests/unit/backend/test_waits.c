/* SPDX-License-Identifier: MIT */
/*
 * How many completions a poll sleeps for with io_uring, and that it wakes all the same when it is
 * wanted. What is under way are reads of pipes, which end when the test says so. The linker sends
 * the library's waits here first (--wrap, in tests/local.mk).
 */
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define READS 4u
#define SHORT_NS INT64_C(20000000)

/* One read of a pipe. */
struct pipe_read {
	int fds[2];
	char byte;
	struct dmio_bvec vec;
	struct dmcore_fileio io;
};

static struct stage stage;
static struct pipe_read reads[READS];
static unsigned int num_waits;
static unsigned int first_count; /* that the first wait was for */

int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int count, struct __kernel_timespec *ts,
					    sigset_t *mask);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int count, struct __kernel_timespec *ts,
					    sigset_t *mask);

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int count, struct __kernel_timespec *ts,
					    sigset_t *mask)
{
	if (num_waits++ == 0)
		first_count = count;
	return __real_io_uring_submit_and_wait_timeout(ring, cqe, count, ts, mask);
}

static void read_done(struct dmcore_fileio *io)
{
	io->tag++;
}

static void start_reads(void)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = DMCORE_BACKEND_IO_URING;
	stage_open(&stage, NULL, &options);
	for (unsigned int i = 0; i < READS; i++) {
		struct pipe_read *one = &reads[i];

		cr_assert_eq(pipe2(one->fds, O_CLOEXEC), 0);
		one->vec = (struct dmio_bvec){ &one->byte, 1 };
		one->io = (struct dmcore_fileio){ .done = read_done,
						  .vecs = &one->vec,
						  .len_bytes = 1,
						  .num_vecs = 1,
						  .op = DMCORE_FILEIO_READ };
		cr_assert_eq(dmcore_file_attach(stage.core, one->fds[0], &one->io.file), 0);
		cr_assert_eq(dmcore_fileio_start(stage.queue, &one->io), 0);
	}
}

static void end_reads(void)
{
	for (unsigned int i = 0; i < READS; i++)
		cr_assert_eq(write(reads[i].fds[1], "x", 1), 1);
	for (unsigned int i = 0; i < READS; i++) {
		while (reads[i].io.tag == 0)
			dmcore_queue_poll(stage.queue, 0, 1, 0);
		cr_assert_eq(reads[i].io.result, 1);
		dmcore_file_detach(reads[i].io.file);
		close(reads[i].fds[0]);
		close(reads[i].fds[1]);
	}
	stage_close(&stage);
}

static void need_io_uring(void)
{
	if (!stage_has_io_uring())
		cr_skip("no io_uring here");
}

TestSuite(waits, .init = need_io_uring);

static unsigned int slept_for(unsigned int min)
{
	num_waits = 0;
	cr_assert_eq(dmcore_queue_poll(stage.queue, min, 2 * READS, SHORT_NS), 0);
	cr_assert_gt(num_waits, 0);
	return first_count;
}

Test(waits, sleep_for_as_many_as_are_wanted_and_under_way)
{
	start_reads();
	cr_assert_eq(slept_for(1), 1);
	cr_assert_eq(slept_for(READS - 1), READS - 1);
	cr_assert_eq(slept_for(2 * READS), READS);
	end_reads();
}

/* ---- other threads ---- */

static _Atomic unsigned int num_run;

static void note_run(struct dmcore_work *work)
{
	(void)work;
	atomic_fetch_add(&num_run, 1);
}

/* One after another: the second waits until the first has run. */
static void *post_two(void *unused)
{
	static struct dmcore_work works[2] = { { .fn = note_run }, { .fn = note_run } };

	for (unsigned int i = 0; i < 2; i++) {
		usleep(2000);
		dmcore_queue_post(stage.queue, &works[i]);
		while (atomic_load(&num_run) == i)
			usleep(100);
	}
	return unused;
}

Test(waits, for_several_end_for_what_other_threads_want)
{
	pthread_t thread;

	start_reads();
	cr_assert_eq(pthread_create(&thread, NULL, post_two, NULL), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 2, 2, STAGE_PATIENCE_NS), 2);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	end_reads();
}

Test(waits, for_several_end_when_the_poll_s_time_is_over)
{
	uint64_t begun_ns;

	start_reads();
	begun_ns = dmcore_clock_ns(stage.core);
	cr_assert_eq(dmcore_queue_poll(stage.queue, READS, READS, SHORT_NS), 0);
	cr_assert_geq(dmcore_clock_ns(stage.core) - begun_ns, (uint64_t)SHORT_NS);
	end_reads();
}
