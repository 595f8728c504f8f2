/* SPDX-License-Identifier: MIT */
/*
 * Random reads by liburing alone, with all that a fast program would use: a ring for one issuer
 * with deferred work, a registered file, a registered ring, one system call for a batch.
 */
#include "uring_floor.h"

#include <errno.h>

#if HAVE_LIBURING
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

/* As the library's default queue. */
#define DEPTH 128u

struct uring_floor {
	struct io_uring ring;
	char *buffers;
	uint64_t positions;
	unsigned int batch;
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

int uring_floor_open(int fd, char *buffers, uint64_t positions, unsigned int batch,
		     struct uring_floor **result)
{
	struct uring_floor *floor = calloc(1, sizeof(*floor));
	int ret;

	if (!floor)
		return -ENOMEM;
	floor->buffers = buffers;
	floor->positions = positions;
	floor->batch = batch;
	ret = open_ring(&floor->ring);
	if (ret) {
		free(floor);
		return ret;
	}
	/* Saves a lookup a call; old kernels do without. */
	io_uring_register_ring_fd(&floor->ring);
	ret = io_uring_register_files(&floor->ring, &fd, 1);
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

static int submit_batch(struct uring_floor *floor, struct bench_random *random)
{
	int ret;

	for (unsigned int i = 0; i < floor->batch; i++) {
		uint64_t position = bench_random_position(random, floor->positions);
		struct io_uring_sqe *sqe = io_uring_get_sqe(&floor->ring);
		char *buffer = floor->buffers + (size_t)i * BENCH_BLOCK_BYTES;

		if (!sqe)
			return -EBUSY;
		io_uring_prep_read(sqe, 0, buffer, BENCH_BLOCK_BYTES, position * BENCH_BLOCK_BYTES);
		sqe->flags |= IOSQE_FIXED_FILE;
		io_uring_sqe_set_data(sqe, buffer);
	}
	/* Cached reads end inside the call; asking it to wait as well would cost them more. */
	ret = io_uring_submit(&floor->ring);
	if (ret >= 0 && io_uring_cq_ready(&floor->ring) < floor->batch)
		ret = io_uring_submit_and_wait(&floor->ring, floor->batch);
	return ret < 0 ? ret : 0;
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
			uint64_t word;

			if (cqe->res != (int)BENCH_BLOCK_BYTES)
				return cqe->res < 0 ? cqe->res : -EIO;
			memcpy(&word, io_uring_cqe_get_data(cqe), sizeof(word));
			run->hash += bench_mix(word);
			reaped++;
		}
		io_uring_cq_advance(&floor->ring, reaped);
		if (reaped != floor->batch)
			return -EIO;
		run->completed += reaped;
	}
	return 0;
}

#else

int uring_floor_open(int fd, char *buffers, uint64_t positions, unsigned int batch,
		     struct uring_floor **result)
{
	(void)fd;
	(void)buffers;
	(void)positions;
	(void)batch;
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
