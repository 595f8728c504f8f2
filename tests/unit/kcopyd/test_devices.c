/* SPDX-License-Identifier: MIT */
/* Copies between devices of all kinds: files, also by direct I/O, memory, and mapped devices, also
 * while they are suspended and change their tables. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/actor.h"
#include "../../support/copies.h"
#include "../../support/scratch.h"

#define SECTORS 6144
#define BYTES (SECTORS * DMCORE_SECTOR_BYTES)
#define KINDS 7

static struct copy copy;
static struct rng rng;
static struct scratch files[3];
static unsigned char *content; /* what the source holds */
static unsigned char *found;

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
	copies_client(64, 64, 0);
	rng_start(&rng, 0);
	content = malloc(BYTES);
	found = malloc(BYTES);
	cr_assert(content && found);
}

static void close_disks(void)
{
	copies_close();
	for (unsigned int i = 0; i < 3; i++) {
		if (files[i].fd > 0)
			scratch_close(&files[i]);
	}
	free(content);
	free(found);
}

TestSuite(devices, .init = open_disks, .fini = close_disks);

/* ---- any kind to any other ------------------------------------------------------------------ */

static struct dmcore_bdev *kinds[KINDS];
static const char *const names[KINDS] = { "fault", "file",   "direct",    "mem",
					  "linear", "striped", "stack" };

/* NULL: the folder's file system has no direct I/O. */
static struct dmcore_bdev *open_direct(const char *path)
{
	struct dmcore_bdev *bdev;
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	close(fd);
	bdev = stage_bdev(&copies.stage, path, DMCORE_OPEN_DIRECT);
	return bdev;
}

/* One device of each kind, on disks and files of their own. */
static void open_kinds(void)
{
	char table[512];

	for (unsigned int i = 0; i < 3; i++)
		scratch_create(&files[i], NULL, BYTES);
	kinds[0] = copies.bdev[0];
	kinds[1] = stage_bdev(&copies.stage, files[0].path, 0);
	kinds[2] = open_direct(files[1].path);
	kinds[3] = stage_bdev(&copies.stage, "mem:6144s", 0);
	snprintf(table, sizeof(table), "0 3000 linear %s 3144\n3000 3144 linear %s 0\n",
		 files[2].path, files[2].path);
	kinds[4] = stage_map(&copies.stage, "linear", table);
	snprintf(table, sizeof(table), "0 6144 striped 2 16 fault:%u,id=1 0 fault:%u,id=2 0\n",
		 SECTORS, SECTORS);
	kinds[5] = stage_map(&copies.stage, "striped", table);
	cr_assert_not_null(stage_bdev(&copies.stage, "mem:6144s,name=deep", 0));
	stage_map(&copies.stage, "s0", "0 6144 linear mem:6144s,name=deep 0");
	stage_map(&copies.stage, "s1", "0 100 linear s0 100\n100 100 linear s0 0\n"
				       "200 5944 linear s0 200");
	kinds[6] = stage_map(&copies.stage, "s2", "0 6144 linear s1 0");
}

static void write_source(struct dmcore_bdev *bdev)
{
	uint32_t version = (uint32_t)rng_below(&rng, 1 << 20);

	pattern_fill(content, 0, SECTORS, version);
	/* Some zeroes, for those that look for them. */
	for (unsigned int i = 0; i < 8; i++)
		memset(content + rng_below(&rng, SECTORS - 100) * DMCORE_SECTOR_BYTES, 0,
		       rng_below(&rng, 100) * DMCORE_SECTOR_BYTES);
	cr_assert_eq(dmcore_pwrite(bdev, content, BYTES, 0), 0);
}

static void expect_bytes(struct dmcore_bdev *bdev, uint64_t sector, uint64_t from, uint64_t count,
			 const char *what)
{
	cr_assert_eq(dmcore_pread(bdev, found, count * DMCORE_SECTOR_BYTES,
				  sector * DMCORE_SECTOR_BYTES),
		     0);
	cr_assert_eq(memcmp(found, content + from * DMCORE_SECTOR_BYTES,
			    count * DMCORE_SECTOR_BYTES),
		     0, "%s: %llu sectors from %llu to %llu", what, (unsigned long long)count,
		     (unsigned long long)from, (unsigned long long)sector);
}

/* A multiple of 8, which all of them take. */
static uint64_t blocks_below(uint64_t sectors)
{
	return rng_below(&rng, sectors / 8) * 8;
}

static void run_kinds(unsigned int flags)
{
	open_kinds();
	for (unsigned int s = 0; s < KINDS; s++) {
		unsigned int num_dests = 0;

		if (!kinds[s])
			continue;
		write_source(kinds[s]);
		copies_set(&copy, 0, blocks_below(2000), 8 + blocks_below(2000), 0, flags);
		copy.job.from.bdev = kinds[s];
		for (unsigned int d = 0; d < KINDS; d++) {
			if (d == s || !kinds[d])
				continue;
			copy.job.dests[num_dests++] =
				(struct dmio_region){ kinds[d], blocks_below(2000), 0 };
		}
		copy.job.num_dests = num_dests;
		copies_run(&copy);
		for (unsigned int d = 0; d < num_dests; d++)
			expect_bytes(copy.job.dests[d].bdev, copy.job.dests[d].sector,
				     copy.job.from.sector, copy.job.from.count, names[s]);
	}
}

Test(devices, of_any_kind_to_all_others)
{
	run_kinds(0);
}

Test(devices, of_any_kind_in_sequence)
{
	run_kinds(KCOPYD_WRITE_SEQ);
}

Test(devices, of_any_kind_flushed_and_compared)
{
	run_kinds(KCOPYD_FLUSH | KCOPYD_VERIFY);
}

Test(devices, of_any_kind_without_zeroes)
{
	run_kinds(KCOPYD_SPARSE);
}

Test(devices, of_any_kind_with_every_flag)
{
	run_kinds(KCOPYD_FLAGS_ALL & ~KCOPYD_DESTS_ZEROED);
}

/* One page, which no direct I/O may find badly aligned. */
Test(devices, of_any_kind_through_two_pages)
{
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies_client(2, 0, 0);
	run_kinds(KCOPYD_VERIFY);
}

Test(devices, of_any_kind_are_zeroed)
{
	static struct copies_end end;
	static const unsigned char zeroes[100 * DMCORE_SECTOR_BYTES];
	struct dmio_region dests[KINDS];
	unsigned int num_dests = 0;

	open_kinds();
	for (unsigned int d = 0; d < KINDS; d++) {
		if (!kinds[d])
			continue;
		write_source(kinds[d]);
		dests[num_dests++] = (struct dmio_region){ kinds[d], 160, 3200 };
	}
	cr_assert_eq(copies_zero(num_dests, dests, 0, &end), 0);
	copies_wait(&end);
	cr_assert_eq(end.write_err, 0);
	for (unsigned int d = 0; d < num_dests; d++) {
		for (uint64_t s = 160; s < 3360; s += 100) {
			cr_assert_eq(dmcore_pread(dests[d].bdev, found, sizeof(zeroes),
						  s * DMCORE_SECTOR_BYTES),
				     0);
			cr_assert_arr_eq(found, zeroes, sizeof(zeroes));
		}
	}
}

/* Within one device that isn't memory, over itself. */
Test(devices, of_any_kind_are_moved_over_themselves)
{
	static const int64_t shifts[] = { -1000, -8, 8, 504, 2000 };

	open_kinds();
	for (unsigned int s = 0; s < KINDS; s++) {
		for (unsigned int i = 0; kinds[s] && i < 5; i++) {
			uint64_t to = (uint64_t)(2000 + shifts[i]);

			write_source(kinds[s]);
			copies_set(&copy, 0, 2000, 2048, 1, 0);
			copy.job.from.bdev = kinds[s];
			copy.job.dests[0] = (struct dmio_region){ kinds[s], to, 0 };
			copies_run(&copy);
			expect_bytes(kinds[s], to, 2000, 2048, names[s]);
			expect_bytes(kinds[s], 0, 0, to < 2000 ? to : 2000, names[s]);
		}
	}
}

/* ---- mapped devices that fail and wait ------------------------------------------------------ */

Test(devices, error_of_one_part_of_a_mapped_device_is_told)
{
	char table[256];

	snprintf(table, sizeof(table), "0 1000 linear fault:%u,id=1 0\n1000 100 error\n"
		 "1100 1000 linear fault:%u,id=1 1100\n", SECTORS, SECTORS);
	copies_set(&copy, 0, 0, 2100, 2, KCOPYD_IGNORE_ERROR);
	copy.job.dests[0].bdev = stage_map(&copies.stage, "partly", table);
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.write_err, 1);
	cr_assert_eq(pattern_differs(copies_bytes(1, 0), 0, 1000, 1), -1);
	cr_assert_eq(pattern_differs(copies_bytes(1, 1100), 1100, 1000, 1), -1);
	cr_assert_eq(pattern_differs(copies_bytes(2, 0), 0, 2100, 1), -1);
}

static const char *on_disk(unsigned int disk)
{
	static char tables[2][64];
	static unsigned int next;
	char *table = tables[next++ % 2];

	snprintf(table, sizeof(tables[0]), "0 4096 linear fault:%u,id=%u 0", SECTORS, disk);
	return table;
}

/* The source waits, then the destination; what was begun goes on after the resume. */
Test(devices, suspended_ones_hold_a_copy_up)
{
	struct dmcore_device *from = actor_mapped(&copies.stage, "from", on_disk(0));
	struct dmcore_device *to = actor_mapped(&copies.stage, "to", on_disk(1));
	struct dmcore_device *const both[2] = { from, to };

	for (unsigned int i = 0; i < 2; i++) {
		copies_refill(1);
		copies_set(&copy, 0, 0, 4096, 1, KCOPYD_FLUSH | KCOPYD_VERIFY);
		copy.job.from.bdev = dmcore_device_bdev(from);
		copy.job.dests[0].bdev = dmcore_device_bdev(to);
		copies_start(&copy);
		actor_suspend(both[i], 0);
		copies_settle();
		cr_assert_eq(copy.end.calls, 0);
		cr_assert_gt(actor_info(both[i]).num_deferred, 0);
		actor_resume(both[i]);
		copies_succeed(&copy);
		cr_assert_eq(pattern_differs(copies_bytes(1, 0), 0, 4096, 1), -1);
	}
}

/* Over and over, at moments of no particular kind. */
Test(devices, suspended_again_and_again_copies_whole)
{
	struct dmcore_device *from = actor_mapped(&copies.stage, "from", on_disk(0));
	struct dmcore_device *to = actor_mapped(&copies.stage, "to", on_disk(1));

	for (unsigned int round = 0; round < 20; round++) {
		unsigned int polls = 0;

		copies_refill(1);
		copies_set(&copy, 0, 0, 4096, 1, round & 1 ? KCOPYD_WRITE_SEQ : 0);
		copy.job.from.bdev = dmcore_device_bdev(from);
		copy.job.dests[0].bdev = dmcore_device_bdev(to);
		copies_start(&copy);
		while (copy.end.calls == 0) {
			struct dmcore_device *device = rng_one_in(&rng, 2) ? from : to;

			actor_suspend(device, rng_one_in(&rng, 2) ? DMCORE_SUSPEND_NOFLUSH : 0);
			dmcore_queue_poll(copies.stage.queue, 0, 1 + polls % 7, 0);
			actor_resume(device);
			dmcore_queue_poll(copies.stage.queue, 0, 1 + polls % 5, 0);
			cr_assert_lt(polls++, 100000);
		}
		copies_succeed(&copy);
		cr_assert_eq(pattern_differs(copies_bytes(1, 0), 0, 4096, 1), -1);
	}
}

/* What is written after the change goes to the new disk, what was before it to the old one. */
Test(devices, destination_may_change_its_table_meanwhile)
{
	struct dmcore_device *to = actor_mapped(&copies.stage, "to", on_disk(1));
	uint64_t on_old = 0;

	copies_hold(0, FAULT_READ);
	copies_set(&copy, 0, 0, 4096, 1, 0);
	copy.job.dests[0].bdev = dmcore_device_bdev(to);
	copies_start(&copy);
	copies_settle();
	for (unsigned int i = 0; i < 4; i++)
		fault_release(copies.disk[0], 0, 0);
	copies_settle();
	actor_reload(to, on_disk(2));
	copies_let_go(0);
	copies_succeed(&copy);
	for (uint64_t s = 0; s < 4096; s++) {
		bool is_old = pattern_differs(copies_bytes(1, s), s, 1, 1) == -1;
		bool is_new = pattern_differs(copies_bytes(2, s), s, 1, 1) == -1;

		cr_assert_neq(is_old, is_new, "sector %llu", (unsigned long long)s);
		on_old += is_old;
	}
	cr_assert_eq(on_old, 4 * 64);
}

/* A job that is cancelled while it waits for a suspended device ends when that runs again. */
Test(devices, cancelled_copy_ends_when_a_suspended_device_runs_again)
{
	struct dmcore_device *to = actor_mapped(&copies.stage, "to", on_disk(1));

	copies_set(&copy, 0, 0, 4096, 1, 0);
	copy.job.dests[0].bdev = dmcore_device_bdev(to);
	actor_suspend(to, 0);
	copies_start(&copy);
	copies_settle();
	cr_assert_gt(actor_info(to).num_deferred, 0);
	cr_assert_eq(kcopyd_cancel(&copy.job), 0);
	copies_settle();
	cr_assert_eq(copy.end.calls, 0);
	actor_resume(to);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -ECANCELED);
	cr_assert_lt(copies_progress(&copy).copied_sectors, 4096);
	copies_expect_own(1, 8 * 64, SECTORS - 8 * 64);
}

/* ---- beside control calls that wait for the service ----------------------------------------- */

static _Atomic unsigned int num_ready;
static _Atomic unsigned int num_asked;
static _Atomic unsigned int num_ended;

static void end_copy(struct kcopyd_job *job)
{
	*(bool *)job->context = true;
}

/* As the service does for a target, while another one's destructor waits for it. */
static void *copy_when_asked(void *context)
{
	struct kcopyd_job job = { .num_dests = 1, .done = end_copy };
	struct dmcore_queue *queue;
	struct kcopyd_client *kc;
	bool ended = false;

	(void)context;
	job.from = (struct dmio_region){ .bdev = copies.bdev[0], .count = 64 };
	job.dests[0].bdev = copies.bdev[1];
	job.context = &ended;
	actor_require(dmcore_queue_create(copies.stage.core, NULL, &queue) == 0);
	actor_require(kcopyd_client_create(queue, 64, &kc) == 0);
	atomic_store(&num_ready, 1);
	actor_await(&num_asked, 1);
	actor_require(kcopyd_submit(kc, &job) == 0);
	while (!ended)
		actor_require(dmcore_queue_poll(queue, 1, UINT32_MAX, -1) >= 0);
	actor_require(job.status == 0);
	atomic_store(&num_ended, 1);
	actor_require(kcopyd_client_destroy(kc) == 0);
	actor_require(dmcore_queue_destroy(queue) == 0);
	return NULL;
}

static void wait_in_destructor(unsigned int nr, const char *hook)
{
	(void)nr;
	if (strcmp(hook, "dtr") != 0)
		return;
	atomic_store(&num_asked, 1);
	actor_await(&num_ended, 1);
}

Test(devices, copy_does_not_wait_for_control_calls)
{
	struct dmcore_device *device;
	pthread_t thread;

	actor_register(copies.stage.core);
	device = actor_mapped(&copies.stage, "held up", "0 64 actor 1");
	actors[1].in_hook = wait_in_destructor;
	cr_assert_eq(pthread_create(&thread, NULL, copy_when_asked, NULL), 0);
	actor_await(&num_ready, 1);
	actor_reload(device, "0 64 zero");
	cr_assert_eq(pthread_join(thread, NULL), 0);
	copies_expect_own(1, 64, SECTORS - 64);
}
