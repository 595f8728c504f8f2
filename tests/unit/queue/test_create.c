/* SPDX-License-Identifier: MIT */
/* Making queues: options, the choice of a backend, its depth and workers, registered buffers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define SECTORS 2048
#define REQUESTS 1000

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static unsigned char memory[SECTORS * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	scratch_create(&scratch, NULL, SECTORS * DMCORE_SECTOR_BYTES);
	file = stage_bdev(&stage, scratch.path, 0);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(queue_create, .init = set_up, .fini = tear_down);

/* ---- options -------------------------------------------------------------------------------- */

static int create_with(const struct dmcore_queue_options *options)
{
	struct dmcore_queue *queue = (void *)&stage;
	int ret = dmcore_queue_create(stage.core, options, &queue);

	if (ret)
		cr_assert_null(queue, "a failed call must clear its result");
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	return ret;
}

Test(queue_create, refuses_options_out_of_range)
{
	static const struct {
		struct dmcore_queue_options options;
		const char *message;
	} cases[] = {
		{ { .struct_size = 0 }, "struct_size" },
		{ { .struct_size = sizeof(size_t) - 1 }, "struct_size" },
		{ { .flags = 4 }, "flag" },
		{ { .flags = 1u << 31 }, "flag" },
		{ { .backend = (enum dmcore_backend)3 }, "backend" },
		{ { .backend = (enum dmcore_backend)-1 }, "backend" },
		{ { .depth = DMCORE_QUEUE_DEPTH_MAX + 1 }, "depth 32769" },
		{ { .bios = DMCORE_QUEUE_BIOS_MAX + 1 }, "bios" },
		{ { .splits = DMCORE_QUEUE_BIOS_MAX + 1 }, "bios" },
		{ { .workers = DMCORE_QUEUE_WORKERS_MAX + 1 }, "workers" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dmcore_queue_options options = cases[i].options;

		if (i >= 2)
			options.struct_size = sizeof(options);
		cr_assert_eq(create_with(&options), -EINVAL, "case %zu", i);
		cr_assert_not_null(strstr(dmcore_error_message(), cases[i].message), "%zu: %s", i,
				   dmcore_error_message());
	}
}

Test(queue_create, refuses_to_go_without_a_core_or_a_result)
{
	struct dmcore_queue *queue;

	cr_assert_eq(dmcore_queue_create(NULL, NULL, &queue), -EINVAL);
	cr_assert_eq(dmcore_queue_create(stage.core, NULL, NULL), -EINVAL);
}

Test(queue_create, takes_the_options_of_an_older_caller)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	/* A caller whose struct ends before `workers` has none, whatever stands there. */
	options.struct_size = offsetof(struct dmcore_queue_options, workers);
	options.workers = 12345;
	cr_assert_eq(create_with(&options), 0, "%s", dmcore_error_message());
	options.struct_size = sizeof(size_t);
	options.flags = 0xffff;
	cr_assert_eq(create_with(&options), 0, "%s", dmcore_error_message());
}

Test(queue_create, takes_the_largest_of_everything)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };
	struct dmcore_queue *queue;

	options.depth = DMCORE_QUEUE_DEPTH_MAX;
	options.bios = 1;
	options.splits = 1;
	options.workers = DMCORE_QUEUE_WORKERS_MAX;
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &queue), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_queue_info(queue, &info), 0);
	cr_assert(info.depth >= 1 && info.depth <= DMCORE_QUEUE_DEPTH_MAX);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

Test(queue_create, ends_with_as_many_queues_as_a_core_can_have)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct rlimit files;
	unsigned int made;
	int ret = 0;
	static struct dmcore_queue *queues[DMCORE_QUEUES_MAX];

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
	if (files.rlim_cur < DMCORE_QUEUES_MAX + 64)
		cr_skip("only %llu open files allowed", (unsigned long long)files.rlim_cur);
	options.backend = DMCORE_BACKEND_PREAD;
	options.bios = 1;
	options.splits = 1;
	/* The stage has one already. */
	for (made = 0; made < DMCORE_QUEUES_MAX && ret == 0; made++)
		ret = dmcore_queue_create(stage.core, &options, &queues[made]);
	cr_assert_eq(ret, -ENFILE);
	cr_assert_eq(made, DMCORE_QUEUES_MAX);
	cr_assert_null(queues[made - 1]);
	for (unsigned int i = 0; i < made; i++)
		cr_assert_eq(dmcore_queue_destroy(queues[i]), 0);
	cr_assert_eq(create_with(NULL), 0);
}

/* ---- what became of them -------------------------------------------------------------------- */

Test(queue_create, info_tells_backend_and_reason)
{
	struct dmcore_queue_info info = { .struct_size = sizeof(info), .inflight = 77 };
	struct tally tally = { 0 };

	cr_assert_eq(dmcore_queue_info(stage.queue, &info), 0);
	cr_assert_eq(info.struct_size, sizeof(info));
	cr_assert_eq(info.inflight, 0);
	cr_assert_eq(info.depth, DMCORE_QUEUE_DEPTH_DEFAULT);
	cr_assert_eq(info.workers, 0);
	if (info.backend == DMCORE_BACKEND_IO_URING)
		cr_assert_eq(strncmp(info.reason, "io_uring", 8), 0, "%s", info.reason);
	else
		cr_assert_eq(strncmp(info.reason, "pread", 5), 0, "%s", info.reason);

	for (unsigned int i = 0; i < 3; i++)
		stage_submit(&stage, file, DMCORE_OP_READ, i, 1, memory, &tally);
	cr_assert_eq(dmcore_queue_info(stage.queue, &info), 0);
	cr_assert_eq(info.inflight, 3);
	stage_wait(&stage, &tally, 3);
	cr_assert_eq(dmcore_queue_info(stage.queue, &info), 0);
	cr_assert_eq(info.inflight, 0);
}

Test(queue_create, info_fills_no_more_than_the_caller_has)
{
	struct dmcore_queue_info info;

	memset(&info, 0x55, sizeof(info));
	info.struct_size = offsetof(struct dmcore_queue_info, depth);
	cr_assert_eq(dmcore_queue_info(stage.queue, &info), 0);
	cr_assert_eq(info.workers, 0);
	cr_assert_eq(info.depth, 0x55555555);
	cr_assert_eq(info.reason[0], 0x55);
	info.struct_size = 0;
	cr_assert_eq(dmcore_queue_info(stage.queue, &info), -EINVAL);
	cr_assert_eq(dmcore_queue_info(NULL, &info), -EINVAL);
	cr_assert_eq(dmcore_queue_info(stage.queue, NULL), -EINVAL);
}

static enum dmcore_backend backend_of(enum dmcore_backend core_says,
				      enum dmcore_backend queue_says)
{
	struct dmcore_queue_options queue_options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	enum dmcore_backend backend;
	struct stage other;

	options.backend = core_says;
	queue_options.backend = queue_says;
	stage_open(&other, &options, &queue_options);
	backend = stage_backend(&other);
	stage_close(&other);
	return backend;
}

Test(queue_create, options_come_before_the_environment)
{
	cr_assert_eq(setenv("DMCORE_BACKEND", "io_uring", 1), 0);
	cr_assert_eq(backend_of(DMCORE_BACKEND_PREAD, DMCORE_BACKEND_AUTO), DMCORE_BACKEND_PREAD);
	cr_assert_eq(backend_of(DMCORE_BACKEND_IO_URING, DMCORE_BACKEND_PREAD),
		     DMCORE_BACKEND_PREAD);
	cr_assert_eq(setenv("DMCORE_BACKEND", "pread", 1), 0);
	cr_assert_eq(backend_of(DMCORE_BACKEND_AUTO, DMCORE_BACKEND_AUTO), DMCORE_BACKEND_PREAD);
	if (!stage_has_io_uring())
		return;
	cr_assert_eq(backend_of(DMCORE_BACKEND_IO_URING, DMCORE_BACKEND_AUTO),
		     DMCORE_BACKEND_IO_URING);
	cr_assert_eq(unsetenv("DMCORE_BACKEND"), 0);
	cr_assert_eq(backend_of(DMCORE_BACKEND_AUTO, DMCORE_BACKEND_AUTO),
		     DMCORE_BACKEND_IO_URING);
	cr_assert_eq(setenv("DMCORE_BACKEND", "auto", 1), 0);
	cr_assert_eq(backend_of(DMCORE_BACKEND_AUTO, DMCORE_BACKEND_AUTO),
		     DMCORE_BACKEND_IO_URING);
	cr_assert_eq(setenv("DMCORE_BACKEND", "", 1), 0);
	cr_assert_eq(backend_of(DMCORE_BACKEND_AUTO, DMCORE_BACKEND_AUTO),
		     DMCORE_BACKEND_IO_URING);
}

Test(queue_create, a_backend_that_nobody_knows_is_named)
{
	unsigned char sector[DMCORE_SECTOR_BYTES];

	cr_assert_eq(setenv("DMCORE_BACKEND", "nonsense", 1), 0);
	cr_assert_eq(create_with(NULL), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "DMCORE_BACKEND is 'nonsense'"), "%s",
			   dmcore_error_message());
	/* Plain I/O needs a queue as well, and says so too. */
	cr_assert_eq(dmcore_pread(file, sector, sizeof(sector), 0), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "'nonsense'"), "%s",
			   dmcore_error_message());
	cr_assert_eq(setenv("DMCORE_BACKEND", "pread", 1), 0);
	cr_assert_eq(dmcore_pread(file, sector, sizeof(sector), 0), 0);
}

Test(queue_create, io_uring_on_demand_works_or_says_why_not)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };
	struct dmcore_queue *queue;
	int ret;

	cr_assert_eq(unsetenv("DMCORE_BACKEND"), 0);
	options.backend = DMCORE_BACKEND_IO_URING;
	ret = create_with(&options);
	cr_assert(ret == 0 || ret == -EOPNOTSUPP, "%d", ret);
	if (ret)
		cr_assert_eq(strncmp(dmcore_error_message(), "io_uring: ", 10), 0, "%s",
			     dmcore_error_message());

	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &queue), 0);
	cr_assert_eq(dmcore_queue_info(queue, &info), 0);
	if (ret) {
		cr_assert_eq(info.backend, DMCORE_BACKEND_PREAD);
		cr_assert_not_null(strstr(info.reason, "io_uring: "), "%s", info.reason);
	} else {
		cr_assert_eq(info.backend, DMCORE_BACKEND_IO_URING);
	}
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

/* ---- depth and workers ---------------------------------------------------------------------- */

/* Many more requests than the backend takes at once: written, flushed, read back. */
static void run_many(const struct dmcore_queue_options *options)
{
	struct tally tally = { 0 };
	struct stage small;
	struct dmcore_bdev *bdev;

	stage_open(&small, NULL, options);
	bdev = stage_bdev(&small, scratch.path, 0);
	memset(memory, 0, sizeof(memory));
	pattern_fill(memory, 0, REQUESTS, options->depth);
	for (unsigned int i = 0; i < REQUESTS; i++)
		stage_submit(&small, bdev, DMCORE_OP_WRITE, i, 1,
			     memory + i * DMCORE_SECTOR_BYTES, &tally);
	stage_wait(&small, &tally, REQUESTS);
	cr_assert_eq(stage_run(&small, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	memset(memory, 0, sizeof(memory));
	for (unsigned int i = 0; i < REQUESTS; i++)
		stage_submit(&small, bdev, DMCORE_OP_READ, i, 1,
			     memory + i * DMCORE_SECTOR_BYTES, &tally);
	stage_wait(&small, &tally, 2 * REQUESTS);
	cr_assert_eq(tally.failed, 0, "%d", tally.status);
	cr_assert_eq(pattern_differs(memory, 0, REQUESTS, options->depth), -1);
	stage_close(&small);
}

Test(queue_create, more_requests_than_the_depth_all_end_once)
{
	static const unsigned int depths[] = { 1, 2, 3, 4, 64 };
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.bios = REQUESTS;
	for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
		options.depth = depths[i];
		run_many(&options);
	}
}

Test(queue_create, any_number_of_workers_does_all_the_work)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = DMCORE_BACKEND_PREAD;
	options.bios = REQUESTS;
	for (options.workers = 1; options.workers <= 8; options.workers++) {
		options.depth = options.workers == 8 ? 1 : 16;
		run_many(&options);
	}
}

Test(queue_create, info_counts_workers_where_there_are_any)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_queue_info info = { .struct_size = sizeof(info) };
	struct dmcore_queue *queue;

	options.workers = 5;
	options.backend = DMCORE_BACKEND_PREAD;
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &queue), 0);
	cr_assert_eq(dmcore_queue_info(queue, &info), 0);
	cr_assert_eq(info.workers, 5);
	cr_assert_str_eq(info.reason, "pread (5 workers)");
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
	if (!stage_has_io_uring())
		return;
	options.backend = DMCORE_BACKEND_IO_URING;
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &queue), 0);
	cr_assert_eq(dmcore_queue_info(queue, &info), 0);
	cr_assert_eq(info.workers, 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

/* ---- registered buffers --------------------------------------------------------------------- */

static void read_and_write_in(unsigned char *buffer)
{
	for (uint64_t sector = 0; sector < 64; sector += 8) {
		pattern_fill(buffer, sector, 8, 9);
		cr_assert_eq(stage_run(&stage, file, DMCORE_OP_WRITE, 0, sector, 8, buffer), 0);
	}
	memset(buffer, 0, 64 * DMCORE_SECTOR_BYTES);
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_READ, 0, 0, 64, buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 0, 64, 9), -1);
}

Test(queue_create, registered_buffers_work_and_can_be_changed)
{
	struct dmio_bvec buffers[2] = { { memory, 128 * 512 }, { memory + 256 * 512, 64 * 512 } };
	int ret = dmcore_queue_register_buffers(stage.queue, buffers, 2);

	if (stage_backend(&stage) == DMCORE_BACKEND_PREAD)
		cr_assert_eq(ret, -EOPNOTSUPP);
	else
		cr_assert(ret == 0 || ret == -ENOMEM, "%d: %s", ret, dmcore_error_message());
	/* Inside the first, inside the second, across an end, and in neither. */
	read_and_write_in(memory + 512);
	read_and_write_in(memory + 256 * 512);
	read_and_write_in(memory + 100 * 512);
	read_and_write_in(memory + 1024 * 512);
	if (ret)
		return;
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, buffers + 1, 1), 0);
	read_and_write_in(memory + 256 * 512);
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, NULL, 0), 0);
	read_and_write_in(memory + 256 * 512);
}

Test(queue_create, buffers_without_sense_are_refused)
{
	struct dmio_bvec buffers[DMCORE_QUEUE_BUFFERS_MAX + 1];

	for (unsigned int i = 0; i <= DMCORE_QUEUE_BUFFERS_MAX; i++)
		buffers[i] = (struct dmio_bvec){ memory + i * 4096, 4096 };
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, buffers,
						   DMCORE_QUEUE_BUFFERS_MAX + 1), -EINVAL);
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, NULL, 1), -EINVAL);
	cr_assert_eq(dmcore_queue_register_buffers(NULL, buffers, 1), -EINVAL);
	buffers[1].len_bytes = 0;
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, buffers, 2), -EINVAL);
	buffers[1] = (struct dmio_bvec){ NULL, 4096 };
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, buffers, 2), -EINVAL);
}

Test(queue_create, buffers_are_not_changed_under_requests)
{
	struct dmio_bvec buffer = { memory, 4096 };
	struct tally tally = { 0 };

	stage_submit(&stage, file, DMCORE_OP_READ, 0, 1, memory, &tally);
	cr_assert_eq(dmcore_queue_register_buffers(stage.queue, &buffer, 1), -EBUSY);
	cr_assert_not_null(strstr(dmcore_error_message(), "1 bios are in flight"));
	stage_wait(&stage, &tally, 1);
	cr_assert_neq(dmcore_queue_register_buffers(stage.queue, &buffer, 1), -EBUSY);
}

/* So that the limit holds for root, too. */
static bool drop_ipc_lock(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) != 0)
		return false;
	data[CAP_IPC_LOCK / 32].effective &= ~(1u << CAP_IPC_LOCK % 32);
	data[CAP_IPC_LOCK / 32].permitted &= ~(1u << CAP_IPC_LOCK % 32);
	return syscall(SYS_capset, &header, data) == 0;
}

Test(queue_create, buffers_without_lockable_memory_are_told_and_io_works)
{
	struct dmio_bvec buffer = { memory, sizeof(memory) };
	struct rlimit none = { 0, 0 };
	int ret;

	if (!drop_ipc_lock() || setrlimit(RLIMIT_MEMLOCK, &none) != 0)
		cr_skip("RLIMIT_MEMLOCK can't be lowered here");
	/* A ring asks for the privilege when it is made. */
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	ret = dmcore_queue_create(stage.core, NULL, &stage.queue);
	if (ret == -EOPNOTSUPP) {
		/* This kernel charges the ring too, and DMCORE_BACKEND leaves no choice. */
		cr_assert_not_null(strstr(dmcore_error_message(), "RLIMIT_MEMLOCK"), "%s",
				   dmcore_error_message());
		return;
	}
	cr_assert_eq(ret, 0, "%s", dmcore_error_message());
	if (stage_backend(&stage) == DMCORE_BACKEND_IO_URING) {
		cr_assert_eq(dmcore_queue_register_buffers(stage.queue, &buffer, 1), -ENOMEM);
		cr_assert_not_null(strstr(dmcore_error_message(), "RLIMIT_MEMLOCK is 0"), "%s",
				   dmcore_error_message());
	}
	read_and_write_in(memory);
}
