/* SPDX-License-Identifier: MIT */
/*
 * DMCORE_QUEUE_INLINE_WRITES: which writes the queue's thread makes itself. The library's pwrite()
 * comes here first (--wrap, in tests/local.mk), and takes as long as a test wants it to.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/scratch.h"
#include "support/stage.h"

#define KIB 1024u
#define MS UINT64_C(1000000)

static struct stage stage;
static struct scratch scratch;
static struct dmcore_bdev *file;
static unsigned char memory[256 * KIB] __attribute__((aligned(4096)));
static unsigned int num_calls;
static uint64_t now_ns;
static uint64_t call_ns; /* how long a call takes */

ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset);

ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
	num_calls++;
	now_ns += call_ns;
	return __real_pwrite(fd, data, bytes, offset);
}

static uint64_t clock_of_test(void *context)
{
	(void)context;
	return now_ns;
}

static void open_with(unsigned int flags)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	struct dmcore_queue_options queue_options = DMCORE_QUEUE_OPTIONS_INIT;

	if (!stage_has_io_uring())
		cr_skip("no io_uring here");
	now_ns = 1000 * MS;
	call_ns = 1000;
	options.clock_ns = clock_of_test;
	queue_options.flags = flags;
	queue_options.backend = DMCORE_BACKEND_IO_URING;
	stage_open(&stage, &options, &queue_options);
	scratch_create(&scratch, NULL, 1 << 20);
	file = stage_bdev(&stage, scratch.path, 0);
}

static void close_all(void)
{
	stage_close(&stage);
	scratch_close(&scratch);
}

/* How many calls a write makes, which must succeed. */
static unsigned int calls_of(unsigned int flags, uint64_t sector, unsigned int bytes)
{
	unsigned int before = num_calls;

	pattern_fill(memory, sector, bytes / DMCORE_SECTOR_BYTES, (uint32_t)before + 1);
	cr_assert_eq(stage_run(&stage, file, DMCORE_OP_WRITE, flags, sector,
			       bytes / DMCORE_SECTOR_BYTES, memory), 0);
	memset(memory, 0, bytes);
	cr_assert_eq(__real_pwrite(scratch.fd, "", 0, 0), 0);
	cr_assert_eq(pread(scratch.fd, memory, bytes, (off_t)(sector * DMCORE_SECTOR_BYTES)),
		     (ssize_t)bytes);
	cr_assert_lt(pattern_differs(memory, sector, bytes / DMCORE_SECTOR_BYTES,
				     (uint32_t)before + 1), 0);
	return num_calls - before;
}

Test(inline_writes, are_those_of_whole_pages_that_are_small)
{
	open_with(DMCORE_QUEUE_INLINE_WRITES);
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 1);
	cr_assert_eq(calls_of(0, 8, 64 * KIB), 1);
	cr_assert_eq(calls_of(0, 16, 12 * KIB), 1);
	cr_assert_eq(calls_of(0, 0, 68 * KIB), 0);
	cr_assert_eq(calls_of(0, 1, 4 * KIB), 0);
	cr_assert_eq(calls_of(0, 0, 512), 0);
	close_all();
}

Test(inline_writes, are_none_that_must_be_durable)
{
	open_with(DMCORE_QUEUE_INLINE_WRITES);
	cr_assert_eq(calls_of(DMCORE_BIO_FUA, 0, 4 * KIB), 0);
	close_all();
}

Test(inline_writes, are_made_only_if_asked_for)
{
	open_with(0);
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 0);
	close_all();
}

Test(inline_writes, stop_for_a_while_when_one_took_long)
{
	open_with(DMCORE_QUEUE_INLINE_WRITES);
	call_ns = MS;
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 1);
	call_ns = MS + 1;
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 1);
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 0);
	now_ns += 99 * MS;
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 0);
	now_ns += MS;
	cr_assert_eq(calls_of(0, 0, 4 * KIB), 1);
	close_all();
}

/* Of two at once, one is copied by this thread while another thread copies the other. */
static unsigned int calls_of_two(unsigned int bytes)
{
	struct tally tally = { 0 };
	unsigned int before = num_calls;

	for (unsigned int i = 0; i < 2; i++)
		stage_submit(&stage, file, DMCORE_OP_WRITE, i * 128, bytes / DMCORE_SECTOR_BYTES,
			     memory + i * 64 * KIB, &tally);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	return num_calls - before;
}

Test(inline_writes, of_two_large_ones_at_once_are_one)
{
	open_with(DMCORE_QUEUE_INLINE_WRITES);
	cr_assert_eq(calls_of_two(64 * KIB), 1);
	cr_assert_eq(calls_of_two(28 * KIB), 2);
	cr_assert_eq(calls_of_two(32 * KIB), 1);
	close_all();
}
