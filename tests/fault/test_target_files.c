/* SPDX-License-Identifier: MIT */
/*
 * Each system call on a file below a target fails in turn, is interrupted or stops short, once and
 * from then on: what can be made good again is, and otherwise the request fails that it was for,
 * and no other. For every type of target that there is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/hurry.h"
#include "support/nth.h"
#include "support/samples.h"
#include "support/scratch.h"
#include "support/stage.h"
#include "support/syscalls.h"
#include "support/workload.h"

static struct stage stage;
static struct scratch files[SAMPLE_LEAVES_MAX];
static struct syscalls syscalls;
static unsigned char leaf_bytes[WORKLOAD_LEAF_BYTES];
static char text[SAMPLE_TEXT_MAX];

/* What becomes of a call. */
struct outcome {
	int64_t result;
	bool once;         /* for one call, or for all from one on */
	int status;        /* of a request that fails of it; 0: none does */
};

static unsigned int num_failed(void *context)
{
	const struct outcome *outcome = context;

	return outcome->status ? syscalls.failed : 0;
}

/* A file whose sync has failed says so until it is closed. */
static bool is_aftermath(void *context, enum dmcore_op op, unsigned int flags, int status)
{
	(void)context;
	return syscalls.failed_to_sync && status == -EIO &&
	       (op == DMCORE_OP_FLUSH || flags & (DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH));
}

static void use_device(struct workload *workload, struct nth *nth)
{
	const struct sample *sample = workload->sample;
	struct dmcore_device *device;

	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		workload_fill_leaf(sample, i, leaf_bytes);
		cr_assert_eq(pwrite(files[i].fd, leaf_bytes, sizeof(leaf_bytes), 0),
			     (ssize_t)sizeof(leaf_bytes));
	}
	workload->bdev = stage_map(&stage, "upper", text);
	device = stage.devices[--stage.num_devices];
	workload_run(workload);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	if (nth)
		nth_end(nth);
	cr_assert_eq(dmcore_device_resume(device), 0);
	workload_check(workload);
	cr_assert_eq(dmcore_device_remove(device), 0);
	stage_settle(&stage);
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		cr_assert_eq(pread(files[i].fd, leaf_bytes, sizeof(leaf_bytes), 0),
			     (ssize_t)sizeof(leaf_bytes));
		workload_check_leaf(workload, i, leaf_bytes);
	}
}

static void fail_each_call(struct workload *workload, bool for_good)
{
	struct nth nth = nth_of(&syscalls_nth, &syscalls, for_good);

	while (nth_begin(&nth)) {
		char name[SAMPLE_TEXT_MAX + 128];

		snprintf(name, sizeof(name), "%s: %s", text, nth_name(&nth));
		workload->name = name;
		use_device(workload, &nth);
	}
}

static void run_sample(const struct sample *sample, const struct outcome *outcome)
{
	static struct workload workload;
	const char *names[SAMPLE_LEAVES_MAX];
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	hurry_use(&options);
	stage_open(&stage, &options, NULL);
	syscalls = (struct syscalls){ .mode = SYSCALLS_NTH, .nth_result = outcome->result };
	syscalls_attach(&syscalls, stage.core);
	for (unsigned int i = 0; i < sample->num_leaves; i++) {
		scratch_create(&files[i], access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL,
			       sizeof(leaf_bytes));
		/* What no request waits for has no calls to fail. */
		names[i] = sample->side_leaves >> i & 1 ? "mem:256s" : files[i].path;
	}
	sample_text(sample, names, text, sizeof(text));
	workload = (struct workload){
		.stage = &stage,
		.sample = sample,
		.name = text,
		.num_failed = num_failed,
		.is_aftermath = is_aftermath,
		.context = (void *)(uintptr_t)outcome,
		.status = outcome->status,
	};
	use_device(&workload, NULL);
	workload_learned(&workload);
	/* A file may be there for its limits only. */
	if (syscalls.calls[DMCORE_FILEIO_WRITE] > 0)
		fail_each_call(&workload, !outcome->once);
	stage_close(&stage);
	for (unsigned int i = 0; i < sample->num_leaves; i++)
		scratch_close(&files[i]);
}

static void run_all(const struct outcome *outcome)
{
	const struct sample *sample;
	unsigned int i = 0;

	while ((sample = sample_next(&i)) != NULL) {
		/* What of a request must fail then isn't known; see test_target_io.c. */
		if (!sample->may_break)
			run_sample(sample, outcome);
	}
}

Test(target_files, every_type_has_a_sample)
{
	stage_open(&stage, NULL, NULL);
	samples_cover(stage.core);
	stage_close(&stage);
}

Test(target_files, failing_call_fails_its_request_alone)
{
	run_all(&(struct outcome){ .result = -EIO, .status = -EIO, .once = true });
	run_all(&(struct outcome){ .result = -EIO, .status = -EIO });
}

Test(target_files, full_file_system_fails_its_requests_alone)
{
	run_all(&(struct outcome){ .result = -ENOSPC, .status = -ENOSPC });
}

Test(target_files, interrupted_call_is_made_again)
{
	run_all(&(struct outcome){ .result = -EINTR, .once = true });
}

Test(target_files, calls_that_are_interrupted_for_ever_fail_their_requests)
{
	run_all(&(struct outcome){ .result = -EAGAIN, .status = -EIO });
}

Test(target_files, call_that_stops_short_is_continued)
{
	run_all(&(struct outcome){ .result = 1, .once = true });
	run_all(&(struct outcome){ .result = 700 });
}
