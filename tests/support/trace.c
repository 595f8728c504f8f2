/* SPDX-License-Identifier: MIT */
/* Random requests against a model; see trace.h. */
#include "trace.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define REQUESTS 1000
/* More than one system call takes. */
#define VECS_MAX 2100
/* The data, and room for the gaps between its pieces. */
#define MEMORY_BYTES (8 * TRACE_BYTES_MAX)
#define MEMORY_ALIGN DMCORE_BLOCK_BYTES_MAX

/* A vector over memory with gaps, beginning inside its first entry and ending inside its last. */
struct shape {
	struct dmio_bvec vecs[VECS_MAX];
	uint32_t num_vecs;
	uint32_t offset_bytes;
};

struct trace {
	struct rig *rig;
	size_t bytes;
	size_t unit;
	unsigned char model[TRACE_BYTES_MAX];
	unsigned char buffer[TRACE_BYTES_MAX];
	struct shape shape;
	unsigned char memory[MEMORY_BYTES] __attribute__((aligned(MEMORY_ALIGN)));
};

static void make_shape(struct trace *trace, size_t bytes)
{
	struct rig *rig = trace->rig;
	struct shape *shape = &trace->shape;
	size_t unit = trace->unit;
	size_t run_max = 1 + rig_random(rig, bytes / unit);
	unsigned char *at = trace->memory;
	size_t left = bytes;

	shape->num_vecs = 0;
	shape->offset_bytes = (uint32_t)(unit * rig_random(rig, 3));
	while (left > 0) {
		struct dmio_bvec *vec = &shape->vecs[shape->num_vecs++];
		size_t run = unit * (1 + rig_random(rig, run_max));

		if (run > left || shape->num_vecs == VECS_MAX)
			run = left;
		left -= run;
		if (shape->num_vecs == 1)
			run += shape->offset_bytes;
		if (left == 0)
			run += unit * rig_random(rig, 2);
		vec->base = at;
		vec->len_bytes = run;
		at += run + unit * rig_random(rig, 2);
	}
}

/* Copies between the shape and a flat buffer. */
static void copy_shape(const struct shape *shape, unsigned char *flat, size_t bytes, bool to_shape)
{
	size_t offset = shape->offset_bytes;

	for (uint32_t i = 0; bytes > 0; i++) {
		size_t run = shape->vecs[i].len_bytes - offset;
		unsigned char *base = (unsigned char *)shape->vecs[i].base + offset;

		if (run > bytes)
			run = bytes;
		memcpy(to_shape ? base : flat, to_shape ? flat : base, run);
		flat += run;
		bytes -= run;
		offset = 0;
	}
}

static int move(struct trace *trace, enum dmcore_op op, unsigned int flags, size_t at, size_t bytes)
{
	const struct shape *shape = &trace->shape;

	return rig_vec(trace->rig, op, flags, at / DMCORE_SECTOR_BYTES, bytes / DMCORE_SECTOR_BYTES,
		       shape->vecs, shape->num_vecs, shape->offset_bytes);
}

static void run_write(struct trace *trace, unsigned int flags, size_t at, size_t bytes)
{
	make_shape(trace, bytes);
	rig_fill(trace->rig, trace->model + at, bytes);
	copy_shape(&trace->shape, trace->model + at, bytes, true);
	cr_assert_eq(move(trace, DMCORE_OP_WRITE, flags, at, bytes), 0);
}

static void run_read(struct trace *trace, size_t at, size_t bytes)
{
	make_shape(trace, bytes);
	cr_assert_eq(move(trace, DMCORE_OP_READ, 0, at, bytes), 0);
	copy_shape(&trace->shape, trace->buffer, bytes, false);
	cr_assert(memcmp(trace->buffer, trace->model + at, bytes) == 0,
		  "%zu bytes at %zu differ, seed %lu", bytes, at, (unsigned long)trace->rig->seed);
}

static void run_zero(struct trace *trace, enum dmcore_op op, unsigned int flags, size_t at,
		     size_t bytes)
{
	memset(trace->model + at, 0, bytes);
	cr_assert_eq(rig_range(trace->rig, op, flags, at / DMCORE_SECTOR_BYTES,
			       bytes / DMCORE_SECTOR_BYTES),
		     0);
}

static void run_request(struct trace *trace, const struct dmcore_limits *limits)
{
	struct rig *rig = trace->rig;
	size_t block = limits->logical_block_bytes;
	size_t first = rig_random(rig, trace->bytes / block);
	size_t at = first * block;
	size_t bytes = block * (1 + rig_random(rig, trace->bytes / block - first));
	unsigned int fua = rig_random(rig, 2) ? DMCORE_BIO_FUA : 0;

	switch (rig_random(rig, 8)) {
	case 0:
	case 1:
	case 2:
		run_write(trace, fua, at, bytes);
		break;
	case 3:
		if (limits->caps & DMCORE_CAP_DISCARD_ZEROES)
			run_zero(trace, DMCORE_OP_DISCARD, 0, at, bytes);
		break;
	case 4:
		run_zero(trace, DMCORE_OP_WRITE_ZEROES, fua, at, bytes);
		break;
	case 5:
		cr_assert_eq(rig_flush(rig), 0);
		break;
	default:
		run_read(trace, at, bytes);
		break;
	}
}

void trace_run(struct rig *rig, int fd, size_t bytes, size_t unit)
{
	struct trace *trace = aligned_alloc(MEMORY_ALIGN, sizeof(*trace));
	struct dmcore_limits limits = rig_limits(rig);

	cr_assert_not_null(trace);
	cr_assert_leq(bytes, TRACE_BYTES_MAX);
	memset(trace, 0, sizeof(*trace));
	trace->rig = rig;
	trace->bytes = bytes;
	trace->unit = unit;
	for (unsigned int i = 0; i < REQUESTS; i++)
		run_request(trace, &limits);
	/* Whoever reads the file otherwise finds the same. */
	cr_assert_eq(rig_flush(rig), 0);
	cr_assert_eq(pread(fd, trace->buffer, bytes, 0), (ssize_t)bytes);
	cr_assert(memcmp(trace->buffer, trace->model, bytes) == 0, "seed %lu",
		  (unsigned long)rig->seed);
	free(trace);
}
