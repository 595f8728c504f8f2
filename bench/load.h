/* SPDX-License-Identifier: MIT */
/*
 * The load generator: a batch of bios of dmcore_bio_get(), set up anew for each request and
 * submitted, then one poll that completes them all.
 */
#ifndef DMCORE_BENCH_LOAD_H
#define DMCORE_BENCH_LOAD_H

#include <dmcore.h>

#include "bench.h"

/* What completion adds to the hash of the work. */
enum load_hash {
	LOAD_HASH_SECTOR, /* where the request came out below all layers */
	LOAD_HASH_DATA,   /* the first words of what was read */
	LOAD_HASH_COUNT,  /* nothing but that it completed */
};

struct load {
	struct dmcore_queue *queue;
	struct dmcore_bdev *bdev;
	enum dmcore_op op;
	enum load_hash hash_by;
	unsigned int batch;
	uint64_t sectors;   /* of a request; also its alignment */
	uint64_t positions; /* on the device */
	bool sequential;
	char *buffers;      /* batch of them, of `sectors`; the caller's */

	struct dmcore_bio *bios[BENCH_BATCH_MAX];
	struct dmio_bvec vecs[BENCH_BATCH_MAX];
	uint64_t completed;
	uint64_t hash;
	int error;          /* of the first request that failed */
};

/* Takes the bios. The fields above them have been set. */
int load_open(struct load *load);
void load_close(struct load *load);
/* As bench_run_fn; the context is the load. */
int load_run(void *context, struct bench_run *run);

/* Memory for a batch of requests, aligned to a page, with its pages in place; or NULL. */
char *load_buffers(uint64_t sectors);

#endif
