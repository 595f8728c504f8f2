/* SPDX-License-Identifier: MIT */
/* Where the source of a job holds zeroes: as it says itself, and as its data show. Called by job.c
 * and slice.c. */
#include <string.h>

#include <dmcore/bdev.h>

#include "base/checked.h"
#include "kcopyd/kcopyd.h"

/* What is worth not being written: a block of most file systems. */
#define ZERO_BLOCK_SECTORS 8u

bool kcopyd__is_zero(const char *data, uint64_t bytes)
{
	return data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}

uint64_t kcopyd__zero_run(const char *data, uint64_t count, uint32_t block_sectors, bool *is_zero)
{
	uint64_t step = dmcore__max_u64(block_sectors, ZERO_BLOCK_SECTORS);
	uint64_t at = 0;

	while (at < count) {
		uint64_t n = dmcore__min_u64(step, count - at);
		bool zero = kcopyd__is_zero(data + dmcore__sectors_to_bytes(at),
					    dmcore__sectors_to_bytes(n));

		if (at == 0)
			*is_zero = zero;
		else if (zero != *is_zero)
			break;
		at += n;
	}
	return at;
}

void kcopyd__find_extent(struct kcopyd_job *job)
{
	struct kcopyd_job_internal *internal = &job->internal;
	uint64_t left = internal->count - internal->cursor;
	struct dmcore_extent extent = { .kind = DMCORE_EXTENT_DATA, .count = left };
	uint64_t block = internal->block_sectors;
	uint64_t whole;

	if (internal->cursor < internal->extent_end)
		return;
	if (dmcore_bdev_extent(job->from.bdev, job->from.sector + internal->cursor, left,
			       &extent))
		extent = (struct dmcore_extent){ DMCORE_EXTENT_DATA, left };
	/* The destinations' blocks may be larger: a hole has whole ones, or ends the job. */
	whole = extent.count == left ? left : extent.count / block * block;
	kcopyd__job_forget(job, KCOPYD__HOLE);
	if (extent.kind == DMCORE_EXTENT_ZERO && whole > 0)
		kcopyd__job_note(job, KCOPYD__HOLE);
	else
		whole = dmcore__min_u64(left, (extent.count + block - 1) / block * block);
	internal->extent_end = internal->cursor + whole;
}
