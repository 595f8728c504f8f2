/* SPDX-License-Identifier: MIT */
/*
 * Random reads and writes by liburing alone, with all that a fast program would use: a ring for one
 * issuer with deferred work, registered files, a registered ring, one system call for a batch.
 */
#include "uring_floor.h"

#include <errno.h>

#if HAVE_LIBURING
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

/* As the library's default queue. */
#define DEPTH 128u

struct request {
	uint64_t position;
	unsigned int left; /* files that haven't done it yet */
};

struct uring_floor {
	struct io_uring ring;
	struct uring_floor_work work;
	struct request requests[BENCH_BATCH_MAX];
};

static int open_ring(struct io_uring *ring)
{
	static const unsigned int modes[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		0,
	};
	int ret = -EINVAL;

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]) && ret == -EINVAL; i++)
		ret = io_uring_queue_init(DEPTH, ring, modes[i]);
	return ret;
}

int uring_floor_open(const struct uring_floor_work *work, struct uring_floor **result)
{
	struct uring_floor *floor = calloc(1, sizeof(*floor));
	int ret;

	if (!floor)
		return -ENOMEM;
	floor->work = *work;
	ret = open_ring(&floor->ring);
	if (ret) {
		free(floor);
		return ret;
	}
	/* Saves a lookup a call; old kernels do without. */
	io_uring_register_ring_fd(&floor->ring);
	ret = io_uring_register_files(&floor->ring, work->fds, work->num_fds);
	if (ret) {
		uring_floor_close(floor);
		return ret;
	}
	*result = floor;
	return 0;
}

void uring_floor_close(struct uring_floor *floor)
{
	if (!floor)
		return;
	io_uring_queue_exit(&floor->ring);
	free(floor);
}

static int prepare(struct uring_floor *floor, unsigned int i, unsigned int file)
{
	const struct uring_floor_work *work = &floor->work;
	uint64_t at = (work->first_block + floor->requests[i].position) * BENCH_BLOCK_BYTES;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&floor->ring);
	char *buffer = work->buffers + (size_t)i * BENCH_BLOCK_BYTES;

	if (!sqe)
		return -EBUSY;
	if (work->writes)
		io_uring_prep_write(sqe, (int)file, buffer, BENCH_BLOCK_BYTES, at);
	else
		io_uring_prep_read(sqe, (int)file, buffer, BENCH_BLOCK_BYTES, at);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data64(sqe, i);
	return 0;
}

static int submit_batch(struct uring_floor *floor, struct bench_random *random)
{
	const struct uring_floor_work *work = &floor->work;
	unsigned int total = work->batch * work->num_fds;
	int ret = 0;

	for (unsigned int i = 0; i < work->batch && ret == 0; i++) {
		floor->requests[i].position = bench_random_position(random, work->positions);
		floor->requests[i].left = work->num_fds;
		for (unsigned int file = 0; file < work->num_fds && ret == 0; file++)
			ret = prepare(floor, i, file);
	}
	if (ret)
		return ret;
	if (work->sleeps) {
		ret = io_uring_submit_and_wait(&floor->ring, total);
		return ret < 0 ? ret : 0;
	}
	/* Cached reads end inside the call; asking it to wait as well would cost them more. */
	ret = io_uring_submit(&floor->ring);
	if (ret >= 0 && io_uring_cq_ready(&floor->ring) < total)
		ret = io_uring_submit_and_wait(&floor->ring, total);
	return ret < 0 ? ret : 0;
}

static void note(const struct uring_floor *floor, uint64_t i, struct bench_run *run)
{
	const struct uring_floor_work *work = &floor->work;
	uint64_t word;

	if (work->writes)
		word = floor->requests[i].position * BENCH_BLOCK_SECTORS;
	else
		memcpy(&word, work->buffers + i * BENCH_BLOCK_BYTES, sizeof(word));
	run->hash += bench_mix(word);
	run->completed++;
}

int uring_floor_run(void *context, struct bench_run *run)
{
	struct uring_floor *floor = context;
	struct bench_random random = bench_random_start(run->seed);

	while (run->completed < run->count) {
		unsigned int reaped = 0;
		struct io_uring_cqe *cqe;
		unsigned int head;
		int ret = submit_batch(floor, &random);

		if (ret)
			return ret;
		io_uring_for_each_cqe(&floor->ring, head, cqe) {
			uint64_t i = io_uring_cqe_get_data64(cqe);

			if (cqe->res != (int)BENCH_BLOCK_BYTES)
				return cqe->res < 0 ? cqe->res : -EIO;
			if (--floor->requests[i].left == 0)
				note(floor, i, run);
			reaped++;
		}
		io_uring_cq_advance(&floor->ring, reaped);
		if (reaped != floor->work.batch * floor->work.num_fds)
			return -EIO;
	}
	return 0;
}

#else

int uring_floor_open(const struct uring_floor_work *work, struct uring_floor **result)
{
	(void)work;
	(void)result;
	return -EOPNOTSUPP;
}

void uring_floor_close(struct uring_floor *floor)
{
	(void)floor;
}

int uring_floor_run(void *context, struct bench_run *run)
{
	(void)context;
	(void)run;
	return -EOPNOTSUPP;
}

#endif
