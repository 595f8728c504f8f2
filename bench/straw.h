/* SPDX-License-Identifier: MIT */
/*
 * The floor of the null rows: a straw man that maps requests and does nothing else. It checks the
 * range, calls each layer's map through a pointer, puts the request on a list, and calls its
 * completion from a poll; it has no states, counters, flags, splits or errors, so nothing that
 * keeps a device-mapper's promises can be as fast.
 */
#ifndef DMCORE_BENCH_STRAW_H
#define DMCORE_BENCH_STRAW_H

#include "bench.h"

struct straw_request;

/* A layer. */
struct straw_device {
	/* Redirects a request; NULL: it has ended. */
	struct straw_device *(*map)(struct straw_device *device, struct straw_request *request);
	uint64_t size_sectors;
	struct straw_device *below;
	uint64_t offset;            /* linear */
	uint64_t chunk_sectors;     /* striped; a power of two, as is the number of stripes */
	uint64_t stripes;
};

struct straw_device *straw_zero(struct straw_device *device, struct straw_request *request);
struct straw_device *straw_linear(struct straw_device *device, struct straw_request *request);
struct straw_device *straw_striped(struct straw_device *device, struct straw_request *request);

/* As struct load, with requests of BENCH_BLOCK_SECTORS. */
struct straw_load {
	struct straw_device *device;
	unsigned int batch;
	uint64_t positions;
};

/* As bench_run_fn; the context is a struct straw_load. */
int straw_run(void *context, struct bench_run *run);

#endif
