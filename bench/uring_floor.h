/* SPDX-License-Identifier: MIT */
/* The floor of io_uring rows: a loop as one writes it by hand. See uring_floor.c. */
#ifndef DMCORE_BENCH_URING_FLOOR_H
#define DMCORE_BENCH_URING_FLOOR_H

#include "bench.h"

struct uring_floor;

/*
 * Reads of `positions` blocks of a file into `buffers`, `batch` at a time. -EOPNOTSUPP: compiled
 * without liburing; other errors are the kernel's.
 */
int uring_floor_open(int fd, char *buffers, uint64_t positions, unsigned int batch,
		     struct uring_floor **result);
void uring_floor_close(struct uring_floor *floor);
/* As bench_run_fn; the context is the floor. */
int uring_floor_run(void *context, struct bench_run *run);

#endif
