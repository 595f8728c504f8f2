/* SPDX-License-Identifier: MIT */
/* System calls that fail, stop short or are interrupted; see syscalls.h. */
#include "syscalls.h"

#include <errno.h>
#include <sys/uio.h>

#include "backend/backend.h"
#include "base/checked.h"
#include "base/core.h"

/* Entries of the longest vector that is cut short. */
#define VECS_MAX 64

/* Whether a call moves data, and so can stop short. */
static bool moves(const struct dmcore_fileio *io)
{
	return io->op <= DMCORE_FILEIO_WRITE || io->op == DMCORE_FILEIO_COPY;
}

/* Makes a call for its first `bytes` only. */
static int64_t run_short(const struct dmcore_fileio *io, uint64_t bytes)
{
	struct dmio_bvec vecs[VECS_MAX];
	struct dmcore_fileio part = *io;

	part.len_bytes = bytes;
	if (io->op == DMCORE_FILEIO_COPY)
		return dmcore__fileio_run(&part);
	part.vecs = vecs;
	part.num_vecs = 0;
	for (uint32_t i = 0; i < io->num_vecs && i < VECS_MAX && bytes > 0; i++) {
		vecs[i] = io->vecs[i];
		if (io->num_vecs == 1 || vecs[i].len_bytes > bytes)
			vecs[i].len_bytes = bytes;
		bytes -= vecs[i].len_bytes;
		part.num_vecs++;
	}
	return dmcore__fileio_run(&part);
}

/* One call in four is interrupted, one in four goes through, the others stop short. */
static int fault_at_random(struct rig *rig, struct dmcore_fileio *io, int64_t *result)
{
	/* Direct calls can't be that short, but they can say that they were. */
	uint64_t unit = rig_limits(rig).memory_align_bytes > 1 ? DMCORE_SECTOR_BYTES : 1;
	int64_t done;

	switch (rig_random(rig, 4)) {
	case 0:
		*result = rig_random(rig, 2) ? -EINTR : -EAGAIN;
		return 1;
	case 1:
		return 0;
	default:
		if (!moves(io))
			return 0;
		*result = 1 + (int64_t)rig_random(rig, io->len_bytes);
		done = run_short(io, ((uint64_t)*result + unit - 1) / unit * unit);
		if (done < *result)
			*result = done;
		return 1;
	}
}

static int follow_plan(struct plan *plan, struct dmcore_fileio *io, int64_t *result)
{
	if (plan->times == 0 || (plan->mode && !(io->flags & plan->mode)))
		return 0;
	if (plan->skip > 0) {
		plan->skip--;
		return 0;
	}
	plan->times--;
	if (plan->carried_out)
		dmcore__fileio_run(io);
	*result = plan->result;
	return 1;
}

/* Whether the call is the one, or (for good) one behind it. */
static bool is_nth(struct syscalls *syscalls)
{
	if (syscalls->left == 0)
		return false;
	if (syscalls->left == 1 && syscalls->for_good)
		return true;
	return --syscalls->left == 0;
}

static int fail_nth(struct syscalls *syscalls, struct dmcore_fileio *io, int64_t *result)
{
	if ((syscalls->nth_result >= 0 && !moves(io)) || !is_nth(syscalls))
		return 0;
	syscalls->failed++;
	*result = syscalls->nth_result;
	if (*result >= 0)
		*result = run_short(io, dmcore__min_u64((uint64_t)*result, io->len_bytes));
	else if (io->op == DMCORE_FILEIO_DATASYNC ||
		 (io->op == DMCORE_FILEIO_WRITE && io->flags & RWF_DSYNC))
		syscalls->failed_to_sync = true;
	return 1;
}

static void arm(void *context, unsigned int n, bool for_good)
{
	struct syscalls *syscalls = context;

	syscalls->for_good = for_good;
	syscalls->failed = 0;
	syscalls->failed_to_sync = false;
	syscalls->left = n;
}

static unsigned int disarm(void *context)
{
	struct syscalls *syscalls = context;

	syscalls->left = 0;
	return syscalls->failed;
}

const struct nth_kind syscalls_nth = { "system call", arm, disarm };

static int decide(void *context, struct dmcore_fileio *io, int64_t *result)
{
	struct syscalls *syscalls = context;
	unsigned int number = ++syscalls->calls[io->op];
	int ret;

	if (io->op == DMCORE_FILEIO_WRITE && io->flags & RWF_DSYNC)
		syscalls->durable_calls++;
	switch (syscalls->mode) {
	case SYSCALLS_RANDOM:
		ret = fault_at_random(syscalls->rig, io, result);
		syscalls->disturbed += ret != 0;
		return ret;
	case SYSCALLS_CRAWL:
		*result = number & 1 ? -EINTR : run_short(io, 1);
		return 1;
	case SYSCALLS_NTH:
		return fail_nth(syscalls, io, result);
	default:
		return follow_plan(&syscalls->plans[io->op], io, result);
	}
}

void syscalls_take_over(struct syscalls *syscalls, struct rig *rig)
{
	syscalls->rig = rig;
	syscalls_attach(syscalls, rig->core);
}

void syscalls_attach(struct syscalls *syscalls, struct dmcore *core)
{
	core->fault_fileio = decide;
	core->fault_context = syscalls;
}

void syscalls_fail(struct syscalls *syscalls, enum dmcore_fileio_op op, int64_t result,
		   unsigned int times)
{
	syscalls->plans[op] = (struct plan){ .result = result, .times = times };
}
