/* SPDX-License-Identifier: MIT */
/* The floor of io_uring rows: a loop as one writes it by hand. See uring_floor.c. */
#ifndef DMCORE_BENCH_URING_FLOOR_H
#define DMCORE_BENCH_URING_FLOOR_H

#include "bench.h"

struct uring_floor;

#define URING_FLOOR_FILES_MAX 2u

/* What it does. A write goes to each file, and is done when all have it. */
struct uring_floor_work {
	int fds[URING_FLOOR_FILES_MAX];
	unsigned int num_fds;   /* 1 for reads */
	bool writes;
	bool sleeps;            /* requests don't end inside the call that submits them */
	uint64_t first_block;   /* of the files */
	uint64_t positions;     /* blocks from there on */
	char *buffers;          /* `batch` of them; the caller's */
	unsigned int batch;
};

/* -EOPNOTSUPP: compiled without liburing; other errors are the kernel's. */
int uring_floor_open(const struct uring_floor_work *work, struct uring_floor **result);
void uring_floor_close(struct uring_floor *floor);
/* As bench_run_fn; the context is the floor. */
int uring_floor_run(void *context, struct bench_run *run);

#endif
