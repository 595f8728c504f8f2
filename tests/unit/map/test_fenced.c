/* SPDX-License-Identifier: MIT */
/*
 * Devices that change while they run on a kernel without membarrier(), where every request has a
 * fence of its own. The linker sends syscall() here first (--wrap, in tests/local.mk).
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#include <sys/syscall.h>

#include <criterion/criterion.h>

#include "queue/drain.h"
#include "support/actor.h"

#define SECTORS 64u
#define THREADS 2u
#define CHANGES 40u

static struct stage stage;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static _Atomic bool registers; /* membarrier() knows its commands; until then it knows none */
static _Atomic bool breaks;    /* and then fails */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

/* The library calls it for membarrier() only, with three numbers. */
long __wrap_syscall(long number, ...)
{
	long args[3];
	va_list more;

	va_start(more, number);
	for (unsigned int i = 0; i < 3; i++)
		args[i] = va_arg(more, int);
	va_end(more);
	if (number == SYS_membarrier && !atomic_load(&registers)) {
		errno = ENOSYS;
		return -1;
	}
	if (number == SYS_membarrier && args[0] == MEMBARRIER_CMD_PRIVATE_EXPEDITED &&
	    atomic_load(&breaks)) {
		errno = EPERM;
		return -1;
	}
	return __real_syscall(number, args[0], args[1], args[2]);
}

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	bdev = stage_map(&stage, "m", "0 64 linear mem:64s,name=a 0");
	device = dmcore_device_find(stage.core, "m");
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(fenced, .init = set_up, .fini = tear_down);

/* ---- requests of other threads ---- */

struct writer {
	pthread_t thread;
	uint64_t sector; /* it alone writes from here */
	_Atomic unsigned int rounds;
	unsigned int wrong;
};

static struct writer writers[THREADS];
static _Atomic bool over;

static int run(struct dmcore_queue *queue, enum dmcore_op op, uint64_t sector, void *buffer)
{
	struct dmcore_bio *bio = dmcore_bio_get(queue);
	struct tally tally = { 0 };

	bio->bdev = bdev;
	bio->op = (uint8_t)op;
	bio->sector = sector;
	bio->done = tally_done;
	bio->context = &tally;
	dmcore_bio_set_buffer(bio, buffer, 8 * DMCORE_SECTOR_BYTES);
	if (dmcore_bio_submit(bio))
		return -1;
	while (tally.ended == 0)
		dmcore_queue_poll(queue, 1, 1, 1000000);
	return tally.status;
}

/* What it has written it reads back, whatever becomes of the device meanwhile. */
static void *write_on(void *context)
{
	struct writer *writer = context;
	unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
	struct dmcore_queue *queue;

	actor_require(dmcore_queue_create(stage.core, NULL, &queue) == 0);
	while (!atomic_load(&over)) {
		unsigned int version = atomic_fetch_add(&writer->rounds, 1);

		pattern_fill(buffer, writer->sector, 8, version);
		writer->wrong += run(queue, DMCORE_OP_WRITE, writer->sector, buffer) != 0;
		memset(buffer, 0, sizeof(buffer));
		writer->wrong += run(queue, DMCORE_OP_READ, writer->sector, buffer) != 0;
		writer->wrong += pattern_differs(buffer, writer->sector, 8, version) != -1;
	}
	actor_require(dmcore_queue_destroy(queue) == 0);
	return NULL;
}

static void start_writers(void)
{
	for (unsigned int i = 0; i < THREADS; i++) {
		writers[i].sector = i * 16;
		cr_assert_eq(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		actor_await(&writers[i].rounds, 2);
}

static void stop_writers(void)
{
	atomic_store(&over, true);
	for (unsigned int i = 0; i < THREADS; i++) {
		cr_assert_eq(pthread_join(writers[i].thread, NULL), 0);
		cr_assert_eq(writers[i].wrong, 0);
	}
}

/* Another table each time, to the same disk. */
static void change_often(void)
{
	for (unsigned int i = 0; i < CHANGES; i++) {
		actor_load(device, i % 2 ? "0 64 linear mem:64s,name=a 0"
					 : "0 32 linear mem:64s,name=a 0\n"
					   "32 32 linear mem:64s,name=a 32");
		cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), 0, "%s",
			     dmcore_error_message());
		cr_assert(actor_info(device).suspended);
		actor_resume(device);
	}
}

Test(fenced, requests_pass_while_the_device_changes)
{
	cr_assert(dmcore__drain_needs_fences(stage.core));
	start_writers();
	change_often();
	stop_writers();
}

Test(fenced, requests_are_counted_while_the_device_changes)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct dmcore_stats_area area;
	uint64_t passed = 0;
	int id;

	cr_assert_eq(dmcore_stats_create(device, &options), 0, "%s", dmcore_error_message());
	start_writers();
	change_often();
	stop_writers();
	for (unsigned int i = 0; i < THREADS; i++)
		passed += writers[i].rounds;
	cr_assert_eq(dmcore_stats_read(device, 0, 0, 1, &area, sizeof(area), NULL), 1);
	/* A table of two linears may count what lies across them only once. */
	cr_assert_eq(area.writes, passed);
	cr_assert_eq(area.reads, passed);
	cr_assert_eq(area.in_flight, 0);
	/* And counted no more, while requests come. */
	atomic_store(&over, false);
	start_writers();
	for (unsigned int i = 0; i < CHANGES; i++) {
		cr_assert_eq(dmcore_stats_delete(device, i ? id : 0), 0);
		id = dmcore_stats_create(device, &options);
		cr_assert_geq(id, 0, "%s", dmcore_error_message());
	}
	stop_writers();
}

Test(fenced, requests_wait_for_the_resume)
{
	static unsigned char sector[DMCORE_SECTOR_BYTES];
	struct tally tally = { 0 };

	actor_suspend(device, 0);
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 1, sector, &tally);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	actor_resume(device);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

Test(fenced_late, a_membarrier_that_fails_later_is_told)
{
	atomic_store(&registers, true);
	set_up();
	if (dmcore__drain_needs_fences(stage.core))
		cr_skip("this kernel has no membarrier()");
	atomic_store(&breaks, true);
	cr_assert_eq(dmcore_device_suspend(device, 0, STAGE_PATIENCE_NS), -EPERM);
	cr_assert_not_null(strstr(dmcore_error_message(), "membarrier() worked when the core was "
							  "made, and fails now"),
			   "%s", dmcore_error_message());
	cr_assert_not(actor_info(device).suspended);
	atomic_store(&breaks, false);
	actor_suspend(device, 0);
	actor_resume(device);
	tear_down();
}
