/* SPDX-License-Identifier: MIT */
/*
 * Copies while everything that can fail fails in turn: the allocations that make a client or a
 * throttle, each request to each disk, each system call on a file. A job ends once; it says so if
 * and only if something failed, and where; what it says is done is done, and the rest can be copied
 * from there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/copies.h"
#include "support/heap.h"
#include "support/nth.h"
#include "support/scratch.h"
#include "support/syscalls.h"

#define SECTORS 512
#define FROM 3
#define COUNT 400
#define SLICE 64
#define DESTS 2

static struct copy copy;
static struct copy rest;

/* ---- memory --------------------------------------------------------------------------------- */

static int make_client(void *context)
{
	struct kcopyd_client *kc = (void *)&copy;
	int ret = kcopyd_client_create(copies.stage.queue, 20, &kc);

	(void)context;
	cr_assert_eq(ret == 0, kc != NULL);
	cr_assert_eq(kcopyd_client_destroy(kc), 0);
	return ret;
}

static int make_client_with_throttle(void *context)
{
	struct kcopyd_options options = KCOPYD_OPTIONS_INIT;
	struct kcopyd_throttle *throttle = (void *)&copy;
	struct kcopyd_client *kc = (void *)&copy;
	int ret;

	(void)context;
	ret = kcopyd_throttle_create(copies.stage.queue, &throttle);
	cr_assert_eq(ret == 0, throttle != NULL);
	if (ret)
		return ret;
	options.throttle = throttle;
	options.jobs = 7;
	options.subjob_sectors = 16;
	ret = kcopyd_client_create_with(copies.stage.queue, 3, &options, &kc);
	cr_assert_eq(ret == 0, kc != NULL);
	cr_assert_eq(kcopyd_client_destroy(kc), 0);
	/* Whatever happened, no client uses it. */
	cr_assert_eq(kcopyd_throttle_destroy(throttle), 0);
	return ret;
}

/* Makes one, uses it, and destroys it under way: all but the making works without memory. */
static int copy_with_client(void *context)
{
	int ret = kcopyd_client_create(copies.stage.queue, 4, &copies.kc);

	(void)context;
	if (ret)
		return ret;
	copies_set(&copy, 0, FROM, COUNT, DESTS, KCOPYD_FLUSH | KCOPYD_VERIFY | KCOPYD_SPARSE);
	copies_run(&copy);
	copies_expect_copied(&copy, COUNT);
	copies_start(&copy);
	cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
	copies.kc = NULL;
	return 0;
}

static void survives(int (*scenario)(void *context))
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct heap_loop loop = { scenario, NULL, NULL, false };

	heap_use(&options);
	copies_open_on(1 + DESTS, SECTORS, "", &options);
	for (unsigned int for_good = 0; for_good < 2; for_good++)
		heap_fail_each(&loop, for_good);
	copies_close();
	cr_assert_eq(heap.outstanding, 0);
}

Test(kcopyd_memory, making_a_client)
{
	survives(make_client);
}

Test(kcopyd_memory, making_a_client_with_a_throttle)
{
	survives(make_client_with_throttle);
}

Test(kcopyd_memory, using_a_client)
{
	survives(copy_with_client);
}

/* ---- disks ---------------------------------------------------------------------------------- */

/* That the job says what has failed, at the one disk where something did. */
static void expect_told(unsigned int disk, bool failed)
{
	unsigned int bits = copy.job.write_err | copy.job.verify_err;

	cr_assert_eq(copy.job.status, failed ? -EIO : 0, "%d", copy.job.status);
	cr_assert_eq(copy.job.read_err != 0, failed && disk == 0);
	cr_assert_eq(bits, failed && disk > 0 ? 1u << (disk - 1) : 0, "disk %u: bits %#x", disk,
		     bits);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, UINT64_MAX);
}

static void expect_equal(const struct copy *one, uint64_t sectors)
{
	for (unsigned int i = 0; i < DESTS; i++)
		cr_assert_arr_eq(copies_bytes(1 + i, one->job.dests[i].sector),
				 copies_bytes(0, one->job.from.sector),
				 sectors * DMCORE_SECTOR_BYTES);
}

/* Nothing fails any more: the rest, or all of it, is copied. */
static void resume(void)
{
	bool ignored = copy.job.flags & KCOPYD_IGNORE_ERROR;
	uint64_t position = ignored ? 0 : copies_progress(&copy).position_sectors;

	expect_equal(&copy, position);
	copies_set(&rest, 0, FROM + position, COUNT - position, DESTS, copy.job.flags);
	copies_run(&rest);
	expect_equal(&copy, COUNT);
	for (unsigned int i = 1; i <= DESTS; i++) {
		copies_expect_own(i, 0, FROM);
		copies_expect_own(i, FROM + COUNT, SECTORS - FROM - COUNT);
	}
}

static void prepare_disks(void)
{
	for (unsigned int i = 0; i <= DESTS; i++)
		copies_refill(i);
	memset(copies_bytes(0, 80), 0, 100 * DMCORE_SECTOR_BYTES);
}

/* Whether a request has failed that nothing stands in for: zeroes are written if they can't be had
 * by a discard. */
static bool has_failed(unsigned int disk)
{
	for (unsigned int i = 0; i < fault_num_logged(copies.disk[disk]); i++) {
		struct fault_entry entry = fault_logged(copies.disk[disk], i);

		if (entry.status && entry.op != DMCORE_OP_DISCARD)
			return true;
	}
	return false;
}

/* Each request that reaches the disk fails, or it and all behind it. Returns how many there are. */
static unsigned int fail_each_request(unsigned int disk, unsigned int flags, bool for_good)
{
	for (unsigned int n = 0; n < 1000; n++) {
		unsigned int before = fault_num_failed(copies.disk[disk]);
		struct fault_rule rule = { .action = FAULT_FAIL,
					   .status = n & 1 ? -EIO : -ENOSPC,
					   .skip = n,
					   .times = for_good ? 0 : 1 };

		prepare_disks();
		fault_clear_log(copies.disk[disk]);
		fault_add_rule(copies.disk[disk], &rule);
		copies_set(&copy, 0, FROM, COUNT, DESTS, flags);
		copies_start(&copy);
		copies_wait(&copy.end);
		fault_clear_rules(copies.disk[disk]);
		expect_told(disk, has_failed(disk));
		resume();
		if (fault_num_failed(copies.disk[disk]) == before)
			return n;
	}
	cr_assert_fail("it never ends");
	return 0;
}

static void fail_requests(unsigned int flags)
{
	copies_open(1 + DESTS, SECTORS, "");
	copies_client(40, SLICE, 0);
	for (unsigned int disk = 0; disk <= DESTS; disk++) {
		for (unsigned int for_good = 0; for_good < 2; for_good++)
			cr_assert_geq(fail_each_request(disk, flags, for_good), COUNT / SLICE);
	}
	copies_close();
}

Test(kcopyd_requests, of_a_copy_fail_in_turn)
{
	fail_requests(0);
}

Test(kcopyd_requests, of_a_copy_that_goes_on_fail_in_turn)
{
	fail_requests(KCOPYD_IGNORE_ERROR);
}

Test(kcopyd_requests, of_a_copy_in_sequence_fail_in_turn)
{
	fail_requests(KCOPYD_WRITE_SEQ);
}

Test(kcopyd_requests, of_a_copy_that_is_flushed_and_compared_fail_in_turn)
{
	fail_requests(KCOPYD_FLUSH | KCOPYD_VERIFY);
}

Test(kcopyd_requests, of_a_copy_without_zeroes_fail_in_turn)
{
	fail_requests(KCOPYD_SPARSE);
}

Test(kcopyd_requests, of_a_copy_with_every_flag_fail_in_turn)
{
	fail_requests(KCOPYD_FLAGS_ALL & ~(KCOPYD_DESTS_ZEROED | KCOPYD_IGNORE_ERROR));
}

/* ---- files ---------------------------------------------------------------------------------- */

#define FILES (1 + DESTS)
#define BYTES (SECTORS * DMCORE_SECTOR_BYTES)

static struct scratch files[FILES];
static struct dmcore_bdev *bdevs[FILES];
static struct syscalls syscalls;
static unsigned char content[BYTES];
static unsigned char found[BYTES];

/* A file whose sync has failed keeps saying so until it is closed. */
static void open_files(void)
{
	for (unsigned int i = 0; i < FILES; i++) {
		pattern_fill(found, 0, SECTORS, i);
		if (i == 0)
			memcpy(content, found, BYTES);
		cr_assert_eq(pwrite(files[i].fd, found, BYTES, 0), BYTES);
		cr_assert_eq(dmcore_bdev_open(copies.stage.core, files[i].path, 0, &bdevs[i]), 0);
	}
}

static void close_files(void)
{
	for (unsigned int i = 0; i < FILES; i++)
		cr_assert_eq(dmcore_bdev_close(bdevs[i]), 0, "%s", dmcore_error_message());
}

static void expect_files(uint64_t sectors, const char *name)
{
	for (unsigned int i = 1; i < FILES; i++) {
		cr_assert_eq(pread(files[i].fd, found, BYTES, 0), BYTES);
		cr_assert_eq(memcmp(found + FROM * 512, content + FROM * 512, sectors * 512), 0,
			     "%s: file %u", name, i);
		cr_assert_eq(pattern_differs(found, 0, FROM, i), -1);
		cr_assert_eq(pattern_differs(found + (FROM + COUNT) * 512, FROM + COUNT,
					     SECTORS - FROM - COUNT, i),
			     -1);
	}
}

static void copy_files(unsigned int flags)
{
	copies_set(&copy, 0, FROM, COUNT, 0, flags);
	copy.job.from.bdev = bdevs[0];
	copy.job.num_dests = DESTS;
	for (unsigned int i = 0; i < DESTS; i++)
		copy.job.dests[i] = (struct dmio_region){ bdevs[1 + i], FROM, 0 };
	copies_start(&copy);
	copies_wait(&copy.end);
}

/* A call's result is replaced by `result`; `harmless`: that is no error. */
static void fail_calls(unsigned int flags, int64_t result, bool for_good, bool harmless)
{
	struct nth nth;

	copies_open(1, SECTORS, "");
	copies_client(40, SLICE, 0);
	syscalls = (struct syscalls){ .mode = SYSCALLS_NTH, .nth_result = result };
	syscalls_attach(&syscalls, copies.stage.core);
	for (unsigned int i = 0; i < FILES; i++)
		scratch_create(&files[i], access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL,
			       BYTES);
	nth = nth_of(&syscalls_nth, &syscalls, for_good);
	while (nth_begin(&nth)) {
		open_files();
		copy_files(flags);
		nth_end(&nth);
		if (nth.failed == 0 || harmless)
			cr_assert_eq(copy.job.status, 0, "%s", nth_name(&nth));
		else if (!(flags & KCOPYD_SHARE))
			cr_assert_eq(copy.job.status, -EIO, "%s", nth_name(&nth));
		expect_files(copies_progress(&copy).position_sectors, nth_name(&nth));
		if (copy.job.status == 0)
			expect_files(COUNT, nth_name(&nth));
		close_files();
		stage_settle(&copies.stage);
	}
	for (unsigned int i = 0; i < FILES; i++)
		scratch_close(&files[i]);
	copies_close();
}

Test(kcopyd_files, calls_of_a_copy_fail_in_turn)
{
	fail_calls(0, -EIO, false, false);
	fail_calls(0, -ENOSPC, true, false);
}

Test(kcopyd_files, calls_of_a_copy_that_is_flushed_and_compared_fail_in_turn)
{
	fail_calls(KCOPYD_FLUSH | KCOPYD_VERIFY, -EIO, false, false);
	fail_calls(KCOPYD_FLUSH | KCOPYD_VERIFY, -EIO, true, false);
}

Test(kcopyd_files, calls_of_a_copy_that_shares_fail_in_turn)
{
	fail_calls(KCOPYD_SHARE, -EIO, false, false);
	fail_calls(KCOPYD_SHARE, -EOPNOTSUPP, true, false);
	fail_calls(KCOPYD_SHARE | KCOPYD_FLUSH, -EIO, true, false);
}

Test(kcopyd_files, calls_that_stop_short_are_continued)
{
	fail_calls(0, 1000, false, true);
	fail_calls(0, 5000, true, true);
	fail_calls(KCOPYD_SHARE, 1000, false, true);
	fail_calls(KCOPYD_SHARE, 5000, true, true);
}

Test(kcopyd_files, calls_that_are_interrupted_are_made_again)
{
	fail_calls(KCOPYD_FLUSH | KCOPYD_VERIFY, -EINTR, false, true);
	fail_calls(KCOPYD_SHARE, -EINTR, false, true);
}
