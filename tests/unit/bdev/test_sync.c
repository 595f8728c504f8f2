/* SPDX-License-Identifier: MIT */
/* Plain I/O: blocking calls from any thread, whole ranges of bytes, messages for people. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "queue/queue.h"
#include "support/scratch.h"
#include "support/stage.h"

#define SECTORS 16384
#define BYTES (SECTORS * (uint64_t)DMCORE_SECTOR_BYTES)
#define THREADS 8

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	scratch_create(&scratch, NULL, BYTES);
	file = stage_bdev(&stage, scratch.path, 0);
}

static void tear_down(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

TestSuite(sync, .init = set_up, .fini = tear_down);

static void refused(int result, int error, const char *message)
{
	cr_assert_eq(result, error, "%d: %s", result, dmcore_error_message());
	cr_assert_not_null(strstr(dmcore_error_message(), message), "'%s' isn't in '%s'", message,
			   dmcore_error_message());
}

Test(sync, reads_back_what_was_written)
{
	struct dmcore_bdev *bdevs[] = { file, stage_bdev(&stage, "mem:8M", 0) };

	for (unsigned int i = 0; i < 2; i++) {
		for (uint64_t count = 1; count <= 64; count *= 2) {
			pattern_fill(buffer, count, count, i);
			cr_assert_eq(dmcore_pwrite(bdevs[i], buffer, count * 512, count * 512), 0);
			memset(buffer, 0, sizeof(buffer));
			cr_assert_eq(dmcore_pread(bdevs[i], buffer, count * 512, count * 512), 0);
			cr_assert_eq(pattern_differs(buffer, count, count, i), -1);
		}
		cr_assert_eq(dmcore_flush(bdevs[i]), 0);
		cr_assert_eq(dmcore_write_zeroes(bdevs[i], 32 * 512, 64 * 512), 0);
		cr_assert_eq(dmcore_pread(bdevs[i], buffer, 33 * 512, 64 * 512), 0);
		cr_assert(buffer[0] == 0 && memcmp(buffer, buffer + 1, 32 * 512 - 1) == 0);
		cr_assert_eq(pattern_differs(buffer + 32 * 512, 96, 1, i), -1);
	}
}

Test(sync, memory_may_have_any_alignment)
{
	for (unsigned int shift = 0; shift < 16; shift += 5) {
		pattern_fill(buffer + shift, 9, 16, shift);
		cr_assert_eq(dmcore_pwrite(file, buffer + shift, 16 * 512, 9 * 512), 0);
		memset(buffer, 0, sizeof(buffer));
		cr_assert_eq(dmcore_pread(file, buffer + shift + 1, 16 * 512, 9 * 512), 0);
		cr_assert_eq(pattern_differs(buffer + shift + 1, 9, 16, shift), -1);
	}
}

Test(sync, an_empty_range_is_no_work)
{
	cr_assert_eq(dmcore_pread(file, NULL, 0, 0), 0);
	cr_assert_eq(dmcore_pwrite(file, buffer, 0, BYTES), 0);
	cr_assert_eq(dmcore_discard(file, 0, 512), 0);
	cr_assert_eq(dmcore_write_zeroes(file, 0, 512), 0);
}

Test(sync, parts_of_a_block_are_refused_with_the_block_named)
{
	struct dmcore_bdev *blocks = stage_bdev(&stage, "mem:1M,block=4096", 0);

	refused(dmcore_pread(file, buffer, 100, 0), -EINVAL,
		"offset 0 and length 100 must be multiples of 512");
	refused(dmcore_pwrite(file, buffer, 512, 511), -EINVAL, "multiples of 512");
	refused(dmcore_pread(blocks, buffer, 512, 0), -EINVAL,
		"mem:1M,block=4096: offset 0 and length 512 must be multiples of 4096");
	refused(dmcore_discard(blocks, 4096, 512), -EINVAL, "multiples of 4096");
	refused(dmcore_write_zeroes(blocks, 4095, 0), -EINVAL, "multiples of 4096");
	cr_assert_eq(dmcore_pread(blocks, buffer, 4096, 4096), 0);
}

Test(sync, what_is_not_on_the_device_is_refused)
{
	char size[32];

	snprintf(size, sizeof(size), "of %llu", (unsigned long long)BYTES);
	refused(dmcore_pread(file, buffer, 512, BYTES), -EIO, size);
	refused(dmcore_pwrite(file, buffer, 1024, BYTES - 512), -EIO, size);
	refused(dmcore_pread(file, buffer, 512, UINT64_MAX - 511), -EIO, size);
	refused(dmcore_discard(file, UINT64_MAX - 511, 512), -EIO, size);
	refused(dmcore_write_zeroes(file, BYTES + 512, 0), -EIO, size);
	cr_assert_eq(dmcore_pread(file, buffer, 512, BYTES - 512), 0);
}

Test(sync, needs_a_device_and_a_buffer)
{
	refused(dmcore_pread(NULL, buffer, 512, 0), -EINVAL, "no device");
	refused(dmcore_pread(file, NULL, 512, 0), -EINVAL, "no buffer");
	refused(dmcore_pwrite(file, NULL, 512, 0), -EINVAL, "no buffer");
	refused(dmcore_flush(NULL), -EINVAL, "no device");
	refused(dmcore_discard(NULL, 512, 0), -EINVAL, "no device");
	refused(dmcore_write_zeroes(NULL, 512, 0), -EINVAL, "no device");
}

Test(sync, read_only_devices_are_named)
{
	struct dmcore_bdev *bdev = stage_bdev(&stage, scratch.path, DMCORE_OPEN_READ_ONLY);

	cr_assert_neq(bdev, file);
	refused(dmcore_pwrite(bdev, buffer, 512, 0), -EROFS, scratch.path);
	refused(dmcore_discard(bdev, 512, 0), -EROFS, "EROFS");
	refused(dmcore_write_zeroes(bdev, 512, 0), -EROFS, "EROFS");
	cr_assert_eq(dmcore_pread(bdev, buffer, 512, 0), 0);
	cr_assert_eq(dmcore_flush(bdev), 0);
}

Test(sync, the_device_s_error_comes_with_its_name)
{
	struct fault_disk *disk = stage_disk(&stage, 7, 64, "");

	fault_add_rule(disk, &(struct fault_rule){ .status = -ENOSPC });
	refused(dmcore_pwrite(stage.bdevs[1], buffer, 512, 0), -ENOSPC, "fault:64,id=7");
	refused(dmcore_pwrite(stage.bdevs[1], buffer, 512, 0), -ENOSPC, "ENOSPC");
	refused(dmcore_flush(stage.bdevs[1]), -ENOSPC, "ENOSPC");
}

Test(sync, goes_through_tables_in_pieces)
{
	char table[256];
	struct dmcore_bdev *bdev;

	snprintf(table, sizeof(table), "0 4096 striped 4 3 %s 0 %s 1024 %s 2048 %s 3072\n"
		 "4096 8 error\n", scratch.path, scratch.path, scratch.path, scratch.path);
	/* 4096 / 4 is no multiple of 3. */
	cr_assert_eq(dmcore_table_parse(stage.core, table, 0, &(struct dmcore_table *){ 0 }),
		     -EINVAL);
	snprintf(table, sizeof(table), "0 4080 striped 4 3 %s 0 %s 1024 %s 2048 %s 3072\n"
		 "4080 8 error\n", scratch.path, scratch.path, scratch.path, scratch.path);
	bdev = stage_map(&stage, "m", table);
	for (uint64_t sector = 0; sector + 64 <= 4080; sector += 61) {
		pattern_fill(buffer, sector, 64, 1);
		cr_assert_eq(dmcore_pwrite(bdev, buffer, sizeof(buffer), sector * 512), 0);
		memset(buffer, 0, sizeof(buffer));
		cr_assert_eq(dmcore_pread(bdev, buffer, sizeof(buffer), sector * 512), 0);
		cr_assert_eq(pattern_differs(buffer, sector, 64, 1), -1);
	}
	refused(dmcore_pread(bdev, buffer, sizeof(buffer), 4024 * 512), -EIO, "m: ");
	cr_assert_eq(dmcore_flush(bdev), 0);
}

/* ---- threads -------------------------------------------------------------------------------- */

struct user {
	pthread_t thread;
	struct dmcore_bdev *bdev;
	unsigned int nr;
};

/* Each has sectors of its own, and works on them in every way. */
static void *use(void *context)
{
	struct user *user = context;
	unsigned char own[32 * DMCORE_SECTOR_BYTES];
	uint64_t base = user->nr * (uint64_t)1024;

	for (unsigned int i = 0; i < 300; i++) {
		uint64_t sector = base + i * 7 % 990;
		uint64_t bytes = (1 + i % 32) * (uint64_t)512;
		uint64_t count = bytes / 512;

		pattern_fill(own, sector, count, i);
		cr_assert_eq(dmcore_pwrite(user->bdev, own, bytes, sector * 512), 0);
		memset(own, 0xff, sizeof(own));
		cr_assert_eq(dmcore_pread(user->bdev, own, bytes, sector * 512), 0);
		cr_assert_eq(pattern_differs(own, sector, count, i), -1);
		if (i % 10 == 0) {
			cr_assert_eq(dmcore_flush(user->bdev), 0);
			cr_assert_eq(dmcore_write_zeroes(user->bdev, bytes, sector * 512), 0);
			cr_assert_eq(dmcore_pread(user->bdev, own, 512, sector * 512), 0);
			cr_assert_eq(own[0] | own[511], 0);
		}
		if (i % 50 == 0)
			cr_assert_eq(dmcore_pread(user->bdev, own, 512, BYTES), -EIO);
	}
	return NULL;
}

static void use_from_threads(struct dmcore_bdev *bdev)
{
	struct user users[THREADS];

	for (unsigned int i = 0; i < THREADS; i++) {
		users[i].bdev = bdev;
		users[i].nr = i;
		cr_assert_eq(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(users[i].thread, NULL);
}

Test(sync, eight_threads_may_call_at_once)
{
	char table[128];

	snprintf(table, sizeof(table), "0 8192 striped 2 16 %s 0 %s 8192\n", scratch.path,
		 scratch.path);
	use_from_threads(file);
	use_from_threads(stage_map(&stage, "m", table));
}

static int nested;

static void read_inside(struct dmcore_bio *bio)
{
	nested = dmcore_pread(file, buffer, 512, 0);
	tally_done(bio);
}

/* A call borrows a queue of its own, so the caller's may be in the middle of anything. */
Test(sync, may_be_called_in_a_callback)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio = stage_bio(&stage, file, DMCORE_OP_READ, 0, 1, buffer, &tally);

	nested = 1;
	bio->done = read_inside;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(nested, 0);
}

static void *read_once(void *context)
{
	*(int *)context = dmcore_pread(file, buffer, 512, 0);
	return NULL;
}

/* The queue that a thread has used serves the next, though that thread is gone. */
Test(sync, threads_may_come_and_go)
{
	for (unsigned int i = 0; i < 200; i++) {
		pthread_t thread;
		int ret = 1;

		cr_assert_eq(pthread_create(&thread, NULL, read_once, &ret), 0);
		pthread_join(thread, NULL);
		cr_assert_eq(ret, 0);
	}
}

#define WAITERS 70

static struct dmcore_bdev *suspended;

static void *read_suspended(void *context)
{
	char *sector = context;

	return dmcore_pread(suspended, sector, 512, 0) == 0 ? sector : NULL;
}

static uint64_t num_waiting(struct dmcore_device *device)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_device_info(device, &info), 0);
	return info.num_deferred;
}

/* However many wait for a device, who copies the disks below it before he resumes it isn't held up
 * by them. */
Test(sync, calls_that_wait_for_a_device_leave_room_for_calls_on_what_is_below)
{
	static char sectors[WAITERS][512];
	pthread_t threads[WAITERS];
	struct dmcore_device *device;
	char table[128];

	snprintf(table, sizeof(table), "0 8 linear %s 0\n", scratch.path);
	suspended = stage_map(&stage, "m", table);
	device = stage.devices[0];
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	for (unsigned int i = 0; i < WAITERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_suspended, sectors[i]), 0);
	while (num_waiting(device) < 64)
		stage_sleep_ns(1000000);
	cr_assert_eq(dmcore_pread(file, buffer, 512, 0), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	for (unsigned int i = 0; i < WAITERS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		cr_assert_eq(result, sectors[i]);
	}
}

/* Whoever has a core destroyed under such a call is told. */
Test(sync, a_call_that_waits_for_a_device_keeps_the_core)
{
	static char sector[512];
	struct dmcore_device *device;
	struct dmcore *core = stage.core;
	pthread_t thread;
	void *result;

	suspended = stage_map(&stage, "m", "0 8 zero");
	device = stage.devices[0];
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(pthread_create(&thread, NULL, read_suspended, sector), 0);
	while (num_waiting(device) < 1)
		stage_sleep_ns(1000000);
	/* It is all that is left. */
	cr_assert_eq(dmcore_queue_destroy(stage.queue), 0);
	cr_assert_eq(dmcore_bdev_close(file), 0);
	refused(dmcore_destroy(core), -EBUSY, "requests wait for m to be resumed");
	cr_assert_eq(dmcore_device_resume(device), 0);
	pthread_join(thread, &result);
	cr_assert_eq(result, sector);
	cr_assert_eq(dmcore_queue_create(core, NULL, &stage.queue), 0);
	cr_assert_eq(dmcore_bdev_open(core, scratch.path, 0, &file), 0);
	stage.bdevs[0] = file;
}

#define QUEUES 96u /* that a core has for such calls */
#define READERS (QUEUES + 4)

static void *read_held(void *context)
{
	return dmcore_pread(stage.bdevs[1], context, 512, 0) == 0 ? context : NULL;
}

Test(sync, more_calls_than_queues_wait_for_one_another)
{
	static char sectors[READERS][512];
	struct fault_disk *disk = stage_disk(&stage, 1, 64, "");
	pthread_t threads[READERS];
	unsigned int ended = 0;

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	for (unsigned int i = 0; i < READERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, read_held, sectors[i]), 0);
	while (fault_num_held(disk) < QUEUES)
		stage_sleep_ns(1000000);
	/* Each that ends lets another one in. */
	while (ended < READERS) {
		cr_assert_leq(fault_num_held(disk), QUEUES);
		if (fault_num_held(disk) > 0) {
			fault_release(disk, 0, 0);
			ended++;
		} else {
			stage_sleep_ns(1000000);
		}
	}
	for (unsigned int i = 0; i < READERS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		cr_assert_eq(result, sectors[i]);
	}
}

/* Where neither the core nor the environment asks for another. */
Test(sync_backend, a_single_request_is_answered_inline)
{
	static const enum dmcore_backend asked[] = { DMCORE_BACKEND_AUTO, DMCORE_BACKEND_PREAD };

	cr_assert_eq(unsetenv("DMCORE_BACKEND"), 0);
	for (unsigned int i = 0; i < 2; i++) {
		struct dmcore_options options = DMCORE_OPTIONS_INIT;
		struct dmcore_queue *queue;

		options.backend = asked[i];
		stage_open(&stage, &options, NULL);
		file = stage_bdev(&stage, "mem:64s", 0);
		cr_assert_eq(dmcore_pread(file, buffer, 512, 0), 0);
		queue = dmcore__container_of(stage.core->queues->idle.next, struct dmcore_queue,
					     idle_link);
		cr_assert_eq(queue->backend->ops->kind, DMCORE_BACKEND_PREAD);
		stage_close(&stage);
	}
}
