/* SPDX-License-Identifier: MIT */
/* A core, a queue and a device for tests; see rig.h. */
#include "rig.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#define WAIT_NS INT64_C(10000000000)

void rig_create(struct rig *rig)
{
	const char *seed = getenv("DMCORE_SEED");

	memset(rig, 0, sizeof(*rig));
	rig->seed = seed ? strtoull(seed, NULL, 0) : 1;
	rig->random = rig->seed;
	cr_assert_eq(dmcore_create(NULL, &rig->core), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_queue_create(rig->core, NULL, &rig->queue), 0, "%s",
		     dmcore_error_message());
}

void rig_destroy(struct rig *rig)
{
	if (rig->bdev)
		rig_close(rig);
	cr_assert_eq(dmcore_queue_destroy(rig->queue), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_destroy(rig->core), 0, "%s", dmcore_error_message());
}

void rig_open(struct rig *rig, const char *spec, unsigned int flags)
{
	int ret = dmcore_bdev_open(rig->core, spec, flags, &rig->bdev);

	cr_assert_eq(ret, 0, "%s: %s", dmcore_error_name(ret), dmcore_error_message());
}

void rig_close(struct rig *rig)
{
	cr_assert_eq(dmcore_bdev_close(rig->bdev), 0, "%s", dmcore_error_message());
	rig->bdev = NULL;
}

void rig_open_fails(struct rig *rig, const char *spec, unsigned int flags, int error,
		    const char *message)
{
	struct dmcore_bdev *bdev = (void *)rig;
	char expected[DMCORE_ERROR_BYTES_MAX];
	int ret = dmcore_bdev_open(rig->core, spec, flags, &bdev);

	snprintf(expected, sizeof(expected), "%s: %s", spec, message);
	cr_assert_eq(ret, error, "%s: %s", spec, dmcore_error_name(ret));
	cr_assert_null(bdev);
	cr_assert_str_eq(dmcore_error_message(), expected, "'%s' instead of '%s'",
			 dmcore_error_message(), expected);
}

struct dmcore_limits rig_limits(const struct rig *rig)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	cr_assert_eq(dmcore_bdev_limits(rig->bdev, &limits), 0);
	return limits;
}

void rig_done(struct dmcore_bio *bio)
{
	bool *ended = bio->context;

	cr_assert(!*ended, "a bio ends once");
	*ended = true;
}

int rig_wait(struct rig *rig, struct dmcore_bio *bio)
{
	const bool *ended = bio->context;

	while (!*ended)
		cr_assert_gt(dmcore_queue_poll(rig->queue, 1, 1000, WAIT_NS), 0, "it never ends");
	return bio->status;
}

int rig_vec(struct rig *rig, enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count,
	    const struct dmio_bvec *vecs, uint32_t num_vecs, uint32_t vec_offset_bytes)
{
	struct dmcore_bio *bio = dmcore_bio_get(rig->queue);
	bool ended = false;
	int status;

	cr_assert_not_null(bio);
	bio->bdev = rig->bdev;
	bio->op = (uint8_t)op;
	bio->flags = (uint16_t)flags;
	bio->sector = sector;
	bio->count = count;
	bio->vecs = vecs;
	bio->num_vecs = num_vecs;
	bio->vec_offset_bytes = vec_offset_bytes;
	bio->done = rig_done;
	bio->context = &ended;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert(!ended, "it ends in a poll only");
	status = rig_wait(rig, bio);
	dmcore_bio_put(bio);
	return status;
}

static int one_buffer(struct rig *rig, enum dmcore_op op, unsigned int flags, uint64_t sector,
		      const void *buffer, size_t bytes)
{
	struct dmio_bvec vec = { .base = (void *)(uintptr_t)buffer, .len_bytes = bytes };

	return rig_vec(rig, op, flags, sector, bytes / DMCORE_SECTOR_BYTES, &vec, 1, 0);
}

int rig_read(struct rig *rig, uint64_t sector, void *buffer, size_t bytes)
{
	return one_buffer(rig, DMCORE_OP_READ, 0, sector, buffer, bytes);
}

int rig_write(struct rig *rig, uint64_t sector, const void *buffer, size_t bytes)
{
	return one_buffer(rig, DMCORE_OP_WRITE, 0, sector, buffer, bytes);
}

int rig_write_fua(struct rig *rig, uint64_t sector, const void *buffer, size_t bytes)
{
	return one_buffer(rig, DMCORE_OP_WRITE, DMCORE_BIO_FUA, sector, buffer, bytes);
}

int rig_flush(struct rig *rig)
{
	return rig_vec(rig, DMCORE_OP_FLUSH, 0, 0, 0, NULL, 0, 0);
}

int rig_range(struct rig *rig, enum dmcore_op op, unsigned int flags, uint64_t sector,
	      uint64_t count)
{
	return rig_vec(rig, op, flags, sector, count, NULL, 0, 0);
}

/* splitmix64. */
static uint64_t next_random(struct rig *rig)
{
	uint64_t z = rig->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t rig_random(struct rig *rig, uint64_t bound)
{
	return next_random(rig) % bound;
}

void rig_fill(struct rig *rig, void *memory, size_t bytes)
{
	unsigned char *byte = memory;

	while (bytes > 0) {
		uint64_t word = next_random(rig);
		size_t run = bytes < sizeof(word) ? bytes : sizeof(word);

		memcpy(byte, &word, run);
		byte += run;
		bytes -= run;
	}
}
