/* SPDX-License-Identifier: MIT */
/* The driver "file" when reads and writes fail, stop short or are interrupted. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"
#include "../../support/syscalls.h"

#define FILE_BYTES (64u << 10)

static struct rig rig;
static struct scratch scratch;
static struct syscalls syscalls;

static void set_up(void)
{
	rig_create(&rig);
	scratch_create(&scratch, NULL, FILE_BYTES);
	rig_open(&rig, scratch.path, 0);
	syscalls_take_over(&syscalls, &rig);
}

static void tear_down(void)
{
	rig_destroy(&rig);
	scratch_close(&scratch);
}

TestSuite(file_faults, .init = set_up, .fini = tear_down);

static void open_direct(void)
{
	int ret;

	rig_close(&rig);
	ret = dmcore_bdev_open(rig.core, scratch.path, DMCORE_OPEN_DIRECT, &rig.bdev);
	if (ret == -EINVAL)
		cr_skip("%s: %s", scratch_dir(), dmcore_error_message());
	cr_assert_eq(ret, 0);
}

/* Page-aligned, so that direct I/O takes it as it is. */
static unsigned char data[FILE_BYTES] __attribute__((aligned(4096)));
static unsigned char copy[FILE_BYTES] __attribute__((aligned(4096)));

static void write_and_read_with_random_faults(void)
{
	struct dmio_bvec out[40];
	struct dmio_bvec in[40];
	unsigned int num = 0;

	syscalls.mode = SYSCALLS_RANDOM;
	for (unsigned int i = 0; i < 50; i++) {
		rig_fill(&rig, data, sizeof(data));
		cr_assert_eq(rig_write(&rig, 0, data, sizeof(data)), 0);
		memset(copy, 0, sizeof(copy));
		cr_assert_eq(rig_read(&rig, 0, copy, sizeof(copy)), 0);
		cr_assert(memcmp(copy, data, sizeof(data)) == 0, "pass %u, seed %lu", i,
			  (unsigned long)rig.seed);
	}
	for (size_t at = 0; at < sizeof(data); at += out[num++].len_bytes) {
		size_t left = sizeof(data) - at;
		size_t run = num == 39 ? left : 512 * (1 + num % 5);

		out[num] = (struct dmio_bvec){ data + at, run < left ? run : left };
		in[num] = (struct dmio_bvec){ copy + at, run < left ? run : left };
	}
	for (unsigned int i = 0; i < 50; i++) {
		rig_fill(&rig, data, sizeof(data));
		cr_assert_eq(rig_vec(&rig, DMCORE_OP_WRITE, i & 1 ? DMCORE_BIO_FUA : 0, 0, 128, out,
				     num, 0),
			     0);
		memset(copy, 0, sizeof(copy));
		cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 0, 128, in, num, 0), 0);
		cr_assert(memcmp(copy, data, sizeof(data)) == 0, "pass %u, seed %lu", i,
			  (unsigned long)rig.seed);
		cr_assert_eq(rig_flush(&rig), 0);
	}
}

Test(file_faults, short_and_interrupted_calls_are_continued)
{
	write_and_read_with_random_faults();
}

Test(file_faults, short_and_interrupted_direct_calls_are_continued)
{
	open_direct();
	write_and_read_with_random_faults();
}

/* A call for each request, one more for each that was disturbed, and no more than twice that. */
Test(file_faults, no_more_calls_are_made_than_are_needed)
{
	unsigned int num_requests = 0;
	unsigned int calls = 0;

	syscalls.mode = SYSCALLS_RANDOM;
	for (unsigned int i = 0; i < 1000; i++) {
		size_t bytes = DMCORE_SECTOR_BYTES * (1 + rig_random(&rig, FILE_BYTES / 1024));

		rig_fill(&rig, data, bytes);
		cr_assert_eq(rig_write(&rig, i % 64, data, bytes), 0);
		cr_assert_eq(rig_read(&rig, i % 64, copy, bytes), 0);
		cr_assert_arr_eq(copy, data, bytes);
		num_requests += 2;
	}
	for (size_t op = 0; op < SYSCALL_OPS; op++)
		calls += syscalls.calls[op];
	cr_assert_gt(syscalls.disturbed, num_requests / 2);
	cr_assert_leq(calls, 2 * (num_requests + syscalls.disturbed));
}

Test(file_faults, a_short_call_is_continued_where_it_stopped)
{
	syscalls.plans[DMCORE_FILEIO_READ] =
		(struct plan){ .result = 1000, .times = 1, .carried_out = true };
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write(&rig, 0, data, 4096), 0);
	cr_assert_eq(rig_read(&rig, 0, copy, 4096), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_READ], 2);
	cr_assert_arr_eq(copy, data, 4096);
}

/* A direct call can't go on in the middle of a block: it goes back to where the block begins. */
Test(file_faults, a_short_direct_call_is_continued_at_a_block)
{
	uint32_t block;

	open_direct();
	block = rig_limits(&rig).logical_block_bytes;
	syscalls.plans[DMCORE_FILEIO_WRITE] =
		(struct plan){ .result = block + 1, .times = 1, .carried_out = true };
	syscalls.plans[DMCORE_FILEIO_READ] =
		(struct plan){ .result = 2 * block - 1, .times = 1, .carried_out = true };
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write(&rig, 0, data, 4 * block), 0);
	cr_assert_eq(rig_read(&rig, 0, copy, 4 * block), 0);
	cr_assert_arr_eq(copy, data, 4 * block);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 2);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_READ], 2);
}

Test(file_faults, a_direct_call_that_gets_nowhere_gives_up)
{
	open_direct();
	syscalls_fail(&syscalls, DMCORE_FILEIO_READ, 100, ALWAYS);
	cr_assert_eq(rig_read(&rig, 0, copy, 4096), -EIO);
}

Test(file_faults, memory_that_direct_io_cannot_use_is_bounced_at_once)
{
	struct dmio_bvec vecs[2] = { { data, 5120 - 4 }, { data + 5120 - 4, 3072 + 4 } };

	open_direct();
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write(&rig, 0, data + 1, 8192), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 1);
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_WRITE, 0, 0, 16, vecs, 2, 0), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 2);
	/* Page-aligned pieces that are no blocks. */
	vecs[0].len_bytes = 4096 - 4;
	vecs[1] = (struct dmio_bvec){ data + 8192, 4096 + 4 };
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_WRITE, 0, 0, 16, vecs, 2, 0), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 3);
	cr_assert_eq(rig_write(&rig, 0, data, 8192), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 4);
}

/* What the kernel refuses although it seemed to fit goes through a bounce buffer. */
Test(file_faults, direct_io_that_is_refused_is_bounced)
{
	open_direct();
	syscalls_fail(&syscalls, DMCORE_FILEIO_WRITE, -EINVAL, 1);
	syscalls_fail(&syscalls, DMCORE_FILEIO_READ, -EINVAL, 1);
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write(&rig, 8, data, 8192), 0);
	cr_assert_eq(rig_read(&rig, 8, copy, 8192), 0);
	cr_assert_arr_eq(copy, data, 8192);
	syscalls_fail(&syscalls, DMCORE_FILEIO_READ, -EINVAL, 2);
	cr_assert_eq(rig_read(&rig, 8, copy, 8192), -EINVAL);
}

Test(file_faults, interruptions_for_ever_end_in_an_error)
{
	static const int errors[] = { -EINTR, -EAGAIN };

	for (size_t i = 0; i < 2; i++) {
		for (size_t op = 0; op < SYSCALL_OPS; op++)
			syscalls_fail(&syscalls, op, errors[i], ALWAYS);
		cr_assert_eq(rig_read(&rig, 0, copy, 4096), -EIO);
		cr_assert_eq(rig_write(&rig, 0, copy, 4096), -EIO);
		cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, 8), -EIO);
		cr_assert_eq(rig_flush(&rig), -EIO);
		for (size_t op = 0; op < SYSCALL_OPS; op++)
			cr_assert_lt(syscalls.calls[op], 3000);
	}
}

Test(file_faults, interruptions_that_end_are_not_seen)
{
	for (size_t op = 0; op < SYSCALL_OPS; op++)
		syscalls_fail(&syscalls, op, op & 1 ? -EINTR : -EAGAIN, 900);
	cr_assert_eq(rig_read(&rig, 0, copy, 4096), 0);
	cr_assert_eq(rig_write(&rig, 0, copy, 4096), 0);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, 8), 0);
	cr_assert_eq(rig_flush(&rig), 0);
}

Test(file_faults, any_progress_is_no_interruption_for_ever)
{
	syscalls.mode = SYSCALLS_CRAWL;
	rig_fill(&rig, data, 4096);
	cr_assert_eq(rig_write(&rig, 0, data, 4096), 0);
	cr_assert_eq(rig_read(&rig, 0, copy, 4096), 0);
	cr_assert_arr_eq(copy, data, 4096);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_READ], 2 * 4096);
}

Test(file_faults, the_end_of_a_file_is_not_asked_for_twice)
{
	cr_assert_eq(ftruncate(scratch.fd, 0), 0);
	cr_assert_eq(rig_read(&rig, 0, copy, 4096), -EIO);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_READ], 1);
}

Test(file_faults, errors_are_passed_on)
{
	static const int errors[] = { -ENOSPC, -EDQUOT, -EFBIG, -EIO, -ENXIO };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		syscalls_fail(&syscalls, DMCORE_FILEIO_READ, errors[i], 1);
		syscalls.plans[DMCORE_FILEIO_WRITE] = syscalls.plans[DMCORE_FILEIO_READ];
		syscalls.plans[DMCORE_FILEIO_FALLOCATE] = syscalls.plans[DMCORE_FILEIO_READ];
		cr_assert_eq(rig_read(&rig, 0, copy, 4096), errors[i]);
		cr_assert_eq(rig_write(&rig, 0, copy, 4096), errors[i]);
		cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, 8), errors[i]);
		cr_assert_eq(rig_flush(&rig), 0);
	}
}

/* What was written before stays. */
Test(file_faults, no_space_in_the_middle_is_passed_on)
{
	struct dmio_bvec vecs[6] = {
		{ data, 1000 },        { data + 1000, 1000 }, { data + 2000, 1000 },
		{ data + 3000, 1000 }, { data + 4000, 1000 }, { data + 5000, 3192 },
	};

	/* The first entry is cut, so that the call takes no more than fits in the request. */
	syscalls.plans[DMCORE_FILEIO_WRITE] =
		(struct plan){ .result = -ENOSPC, .times = 1, .skip = 1 };
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_WRITE, 0, 8, 15, vecs, 6, 1), -ENOSPC);
	cr_assert_eq(pread(scratch.fd, copy, 4999, 4096), 4999);
	cr_assert_arr_eq(copy, data + 1, 4999);
}

/* More requests than bounce buffers, each stuck for a while with the buffer that it has. */
Test(file_faults, bounced_requests_that_are_stuck_make_others_wait_and_all_end)
{
	enum { REQUESTS = 200, BYTES = 512 };
	struct dmcore_bio *bios[REQUESTS];
	bool ended[REQUESTS];

	open_direct();
	if (rig_limits(&rig).logical_block_bytes > BYTES)
		cr_skip("blocks of %u bytes", rig_limits(&rig).logical_block_bytes);
	syscalls.mode = SYSCALLS_RANDOM;
	rig_fill(&rig, data, sizeof(data));
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (unsigned int i = 0; i < REQUESTS; i++) {
			struct dmcore_bio *bio = bios[i] = dmcore_bio_get(rig.queue);
			unsigned char *memory = pass == 0 ? data : copy;

			ended[i] = false;
			bio->bdev = rig.bdev;
			bio->op = pass == 0 ? DMCORE_OP_WRITE : DMCORE_OP_READ;
			bio->sector = i % 100;
			dmcore_bio_set_buffer(bio, memory + 1 + i % 100 * BYTES, BYTES);
			bio->done = rig_done;
			bio->context = &ended[i];
			cr_assert_eq(dmcore_bio_submit(bio), 0);
		}
		for (unsigned int i = 0; i < REQUESTS; i++) {
			cr_assert_eq(rig_wait(&rig, bios[i]), 0);
			dmcore_bio_put(bios[i]);
		}
	}
	cr_assert_arr_eq(copy + 1, data + 1, 100 * BYTES);
}
