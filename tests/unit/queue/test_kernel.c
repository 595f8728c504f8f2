/* SPDX-License-Identifier: MIT */
/*
 * Threads, descriptors and memory that the kernel refuses while cores, queues, services and watches
 * are made: each refusal is told, leaves nothing behind, and the next attempt succeeds. The linker
 * sends those calls here first (--wrap, in tests/local.mk).
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

#include <criterion/criterion.h>

#include <dmcore/event.h>

#include "base/core.h"
#include "support/stage.h"

enum call {
	PTHREAD_CREATE,
	EVENTFD,
	EPOLL_CREATE1,
	EPOLL_CTL,
	TIMERFD_CREATE,
	MMAP,
	MADVISE,
	NUM_CALLS,
};

/* The one call of each kind that fails: error 0: none; skip: so many pass first. */
static struct {
	int error;
	unsigned int skip;
} plans[NUM_CALLS];

static unsigned int calls[NUM_CALLS];
static struct stage stage;

static void fail_next(enum call call, int error, unsigned int skip)
{
	plans[call].error = error;
	plans[call].skip = skip;
}

/* The error of this call, or 0. */
static int refusal(enum call call)
{
	int error = plans[call].error;

	calls[call]++;
	if (error && plans[call].skip > 0) {
		plans[call].skip--;
		return 0;
	}
	plans[call].error = 0;
	return error;
}

static bool refuses(enum call call)
{
	int error = refusal(call);

	if (error)
		errno = error;
	return error != 0;
}

/* ---- the calls ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg);
int __real_eventfd(unsigned int value, int flags);
int __wrap_eventfd(unsigned int value, int flags);
int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __real_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __real_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags);
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
			  void *arg)
{
	int error = refusal(PTHREAD_CREATE);

	return error ? error : __real_pthread_create(thread, attr, fn, arg);
}

int __wrap_eventfd(unsigned int value, int flags)
{
	return refuses(EVENTFD) ? -1 : __real_eventfd(value, flags);
}

int __wrap_epoll_create1(int flags)
{
	return refuses(EPOLL_CREATE1) ? -1 : __real_epoll_create1(flags);
}

int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	return refuses(EPOLL_CTL) ? -1 : __real_epoll_ctl(epoll_fd, op, fd, event);
}

int __wrap_timerfd_create(int clock, int flags)
{
	return refuses(TIMERFD_CREATE) ? -1 : __real_timerfd_create(clock, flags);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return refuses(MMAP) ? MAP_FAILED : __real_mmap(at, bytes, prot, flags, fd, offset);
}

int __wrap_madvise(void *at, size_t bytes, int advice)
{
	return refuses(MADVISE) ? -1 : __real_madvise(at, bytes, advice);
}

/* ---- cores ---- */

Test(core_kernel, a_core_needs_a_page_that_fork_wipes)
{
	struct dmcore *core = (void *)&stage;

	fail_next(MMAP, ENOMEM, 0);
	cr_assert_eq(dmcore_create(NULL, &core), -ENOMEM);
	cr_assert_null(core);
	cr_assert_str_eq(dmcore_error_message(), "no memory for a core");
	fail_next(MADVISE, EINVAL, 0);
	cr_assert_eq(dmcore_create(NULL, &core), -ENOSYS);
	cr_assert_null(core);
	cr_assert_str_eq(dmcore_error_message(), "this kernel has no MADV_WIPEONFORK");
	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
}

/* ---- queues ---- */

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(queue_kernel, .init = set_up, .fini = tear_down);

static void create_fails(const struct dmcore_queue_options *options, int error,
			 const char *message)
{
	uint64_t before = atomic_load(&stage.core->live_allocations);
	struct dmcore_queue *queue = (void *)&stage;

	cr_assert_eq(dmcore_queue_create(stage.core, options, &queue), error);
	cr_assert_null(queue);
	cr_assert_str_eq(dmcore_error_message(), message);
	cr_assert_eq(atomic_load(&stage.core->live_allocations), before);
	cr_assert_eq(dmcore_queue_create(stage.core, options, &queue), 0);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

Test(queue_kernel, a_queue_needs_a_descriptor_and_memory)
{
	fail_next(EVENTFD, EMFILE, 0);
	create_fails(NULL, -EMFILE, "eventfd: Too many open files");
	fail_next(MMAP, ENOMEM, 0);
	create_fails(NULL, -ENOMEM, "no memory for the pools of a queue");
}

Test(queue_kernel, workers_start_all_or_none)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;

	options.backend = DMCORE_BACKEND_PREAD;
	options.workers = 4;
	for (unsigned int i = 0; i < options.workers; i++) {
		calls[PTHREAD_CREATE] = 0;
		fail_next(PTHREAD_CREATE, EAGAIN, i);
		create_fails(&options, -EAGAIN, "a worker thread couldn't be started");
		/* None after the one that failed; then all four. */
		cr_assert_eq(calls[PTHREAD_CREATE], i + 1 + options.workers);
	}
}

Test(queue_kernel, a_descriptor_to_wait_on_can_be_asked_for_again)
{
	unsigned int num_added;

	fail_next(EPOLL_CREATE1, EMFILE, 0);
	cr_assert_eq(dmcore_queue_fd(stage.queue), -EMFILE);
	fail_next(TIMERFD_CREATE, ENFILE, 0);
	cr_assert_eq(dmcore_queue_fd(stage.queue), -ENFILE);
	/* The wake-up's, the backend's where it has one, and the timers'. */
	num_added = stage_backend(&stage) == DMCORE_BACKEND_IO_URING ? 3 : 2;
	for (unsigned int i = 0; i < num_added; i++) {
		fail_next(EPOLL_CTL, ENOSPC, i);
		cr_assert_eq(dmcore_queue_fd(stage.queue), -ENOSPC, "descriptor %u", i);
	}
	fail_next(EPOLL_CTL, ENOSPC, num_added);
	cr_assert_geq(dmcore_queue_fd(stage.queue), 0);
	cr_assert_eq(plans[EPOLL_CTL].skip, 0);
	/* Asked once more it is the same one. */
	cr_assert_eq(dmcore_queue_fd(stage.queue), dmcore_queue_fd(stage.queue));
	plans[EPOLL_CTL].error = 0;
}

/* ---- services ---- */

static struct dmcore_work work;
static _Atomic unsigned int works_run;

static void count_work(struct dmcore_work *ran)
{
	(void)ran;
	works_run++;
}

Test(queue_kernel, a_service_that_cannot_start_takes_no_work)
{
	uint64_t until = stage_now_ns() + STAGE_PATIENCE_NS;

	work.fn = count_work;
	fail_next(EVENTFD, EMFILE, 0);
	cr_assert_eq(dmcore_service_post(stage.core, &work), -EAGAIN);
	cr_assert_str_eq(dmcore_error_message(), "eventfd: Too many open files");
	fail_next(PTHREAD_CREATE, EAGAIN, 0);
	cr_assert_eq(dmcore_service_post(stage.core, &work), -EAGAIN);
	cr_assert_str_eq(dmcore_error_message(), "the service thread couldn't be started");
	cr_assert_eq(dmcore_service_post(stage.core, &work), 0);
	while (works_run == 0 && stage_now_ns() < until)
		stage_sleep_ns(100000);
	cr_assert_eq(works_run, 1);
}

Test(service_kernel, a_manual_service_without_a_queue_is_not_polled)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore *core;

	options.flags = DMCORE_SERVICE_MANUAL;
	cr_assert_eq(dmcore_create(&options, &core), 0);
	fail_next(EVENTFD, EMFILE, 0);
	cr_assert_eq(dmcore_service_poll(core, 0, 1, 0), -ENOMEM);
	fail_next(EVENTFD, EMFILE, 0);
	cr_assert_null(dmcore_service_queue(core));
	cr_assert_eq(dmcore_service_poll(core, 0, 1, 0), 0);
	cr_assert_not_null(dmcore_service_queue(core));
	cr_assert_eq(dmcore_destroy(core), 0);
}

/* ---- memory that is kept ---- */

/* What madvise() doesn't free, as when it is locked, is zeroed by hand. */
Test(queue_kernel, a_disk_in_locked_memory_is_zeroed_all_the_same)
{
	static unsigned char sectors[64 * DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev = stage_bdev(&stage, "mem:64s", 0);

	memset(sectors, 0x5a, sizeof(sectors));
	cr_assert_eq(dmcore_pwrite(bdev, sectors, sizeof(sectors), 0), 0);
	calls[MADVISE] = 0;
	fail_next(MADVISE, EINVAL, 0);
	cr_assert_eq(dmcore_write_zeroes(bdev, 32 * DMCORE_SECTOR_BYTES, DMCORE_SECTOR_BYTES), 0);
	cr_assert_eq(calls[MADVISE], 1);
	cr_assert_eq(dmcore_pread(bdev, sectors, sizeof(sectors), 0), 0);
	for (unsigned int i = 0; i < sizeof(sectors); i++) {
		bool zeroed = i / DMCORE_SECTOR_BYTES >= 1 && i / DMCORE_SECTOR_BYTES < 33;

		cr_assert_eq(sectors[i], zeroed ? 0 : 0x5a, "byte %u", i);
	}
}

/* ---- watches ---- */

Test(queue_kernel, a_watch_needs_a_descriptor)
{
	struct dmcore_watch *watch = (void *)&stage;
	struct dmcore_device *device;
	uint64_t before;

	stage_map(&stage, "a", "0 8 zero");
	device = dmcore_device_find(stage.core, "a");
	before = atomic_load(&stage.core->live_allocations);
	fail_next(EVENTFD, EMFILE, 0);
	cr_assert_eq(dmcore_watch_create(device, 0, NULL, NULL, NULL, &watch), -EMFILE);
	cr_assert_null(watch);
	cr_assert_str_eq(dmcore_error_message(), "eventfd: Too many open files");
	cr_assert_eq(atomic_load(&stage.core->live_allocations), before);
	cr_assert_eq(dmcore_watch_create(device, 0, NULL, NULL, NULL, &watch), 0);
	dmcore_watch_destroy(watch);
}

/* ---- calls that can be made when they are too late ---- */

static struct dmcore_target_type late_type;
static int late_ret;

static int late_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	(void)target;
	(void)args;
	return 0;
}

static void late_dtr(struct dmcore_target *target)
{
	late_ret = dmcore_service_post(dmcore_target_core(target), &work);
}

static enum dmcore_map_result late_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

Test(service_kernel, a_core_that_goes_takes_no_work)
{
	struct dmcore_device *device;
	struct dmcore_table *table;
	struct dmcore *core;

	late_type = (struct dmcore_target_type){ .struct_size = sizeof(late_type),
						 .name = "late",
						 .ctr = late_ctr,
						 .dtr = late_dtr,
						 .map = late_map };
	work.fn = count_work;
	cr_assert_eq(dmcore_create(NULL, &core), 0);
	cr_assert_eq(dmcore_target_register(core, &late_type), 0);
	cr_assert_eq(dmcore_table_parse(core, "0 8 late", 0, &table), 0);
	cr_assert_eq(dmcore_device_create(core, "a", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(late_ret, -ESHUTDOWN);
	cr_assert_eq(works_run, 0);
}
