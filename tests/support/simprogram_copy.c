/* SPDX-License-Identifier: MIT */
/*
 * Copies of random programs, by kcopyd: from a memory disk, where each slot has a place for what is
 * to be written, to devices of the program; called by simprogram.c and simprogram_io.c.
 */
#include <errno.h>
#include <stdio.h>

#include "simprogram_inner.h"

static uint64_t place_of(const struct slot *slot)
{
	return (uint64_t)(slot - program.slots) * RANGE_SECTORS_MAX;
}

void copy_boot(void)
{
	char spec[32];

	snprintf(spec, sizeof(spec), "mem:%u", SLOTS * RANGE_SECTORS_MAX * 512);
	PROGRAM_CHECK(dmcore_bdev_open(program.core, spec, 0, &program.copied) == 0, "%s",
		      dmcore_error_message());
	PROGRAM_CHECK(kcopyd_client_create(program.queue, program.copy_pages,
					   &program.copier) == 0, "%s", dmcore_error_message());
}

void copy_shut_down(void)
{
	PROGRAM_CHECK(kcopyd_client_destroy(program.copier) == 0, "%s", dmcore_error_message());
	PROGRAM_CHECK(dmcore_bdev_close(program.copied) == 0, "%s", dmcore_error_message());
	program.copier = NULL;
	program.copied = NULL;
}

/* An error, or a cancellation, leaves the other destinations as they may be, too. */
static void copy_done(struct kcopyd_job *job)
{
	struct slot *slot = job->context;

	PROGRAM_CHECK(slot->is_running, "a copy ends twice");
	PROGRAM_CHECK(slot->cancelled == (job->status == -ECANCELED), "copy %u: status %d",
		      slot->nr, job->status);
	PROGRAM_CHECK(job->read_err == 0, "copy %u: memory can't be read", slot->nr);
	program_trace("  %u ends: %d, bits %x", slot->nr, job->status, job->write_err);
	for (unsigned int r = 0; r < slot->num_ranges; r++) {
		if (job->write_err >> r & 1)
			io_end_range(slot, r, -EIO);
		else if (job->status)
			io_end_writes(slot, r, -EIO);
		else
			io_end_range(slot, r, 0);
	}
	io_end(slot, job->status != 0);
}

static unsigned int choose_flags(void)
{
	static const unsigned int flags[] = {
		0, 0, KCOPYD_FLUSH, KCOPYD_FLUSH, KCOPYD_WRITE_SEQ, KCOPYD_IGNORE_ERROR,
		KCOPYD_SPARSE, KCOPYD_WRITE_SEQ | KCOPYD_FLUSH,
	};

	return flags[choose(8)];
}

static void start(unsigned int op)
{
	struct slot *slot = io_choose_slot(op);
	unsigned int num = 1 + choose(RANGES_MAX);
	struct kcopyd_job *job;
	int ret;

	if (!slot)
		return;
	slot->flags = 0;
	slot->is_dmio = true;
	slot->is_copy = true;
	slot->cancelled = false;
	job = &slot->job;
	*job = (struct kcopyd_job){ .num_dests = num, .done = copy_done, .context = slot };
	for (unsigned int r = 0; r < num; r++) {
		io_choose_range(slot, io_choose_device());
		job->dests[r].bdev = program.bdevs[slot->ranges[r].device];
		job->dests[r].sector = slot->ranges[r].sector;
		job->dests[r].count = slot->ranges[r].count;
	}
	job->flags = choose_flags();
	slot->flushes = job->flags & KCOPYD_FLUSH;
	if (op == DMCORE_OP_WRITE) {
		io_fill(slot, slot->ranges[0].count);
		job->from.bdev = program.copied;
		job->from.sector = place_of(slot);
		job->from.count = slot->ranges[0].count;
		ret = dmcore_pwrite(program.copied, slot->data, job->from.count * 512,
				    job->from.sector * 512);
		PROGRAM_CHECK(ret == 0, "memory: %d", ret);
	}
	io_begin(slot);
	ret = kcopyd_submit(program.copier, job);
	PROGRAM_CHECK(ret == 0, "copy: %s", dmcore_error_message());
}

static void cancel(void)
{
	struct slot *slot = &program.slots[choose(SLOTS)];
	int ret;

	if (!slot->is_running || !slot->is_copy)
		return;
	ret = kcopyd_cancel(&slot->job);
	program_trace("  cancel %u: %d", slot->nr, ret);
	PROGRAM_CHECK(ret == 0 || ret == -EALREADY, "cancel: %d", ret);
	slot->cancelled |= ret == 0;
}

void copy_step(void)
{
	unsigned int kind = choose(8);

	if (kind == 0)
		cancel();
	else
		start(kind == 1 ? DMCORE_OP_WRITE_ZEROES : DMCORE_OP_WRITE);
}
