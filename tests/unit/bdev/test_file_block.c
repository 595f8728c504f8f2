/* SPDX-License-Identifier: MIT */
/*
 * The driver "file" on block device nodes: loop devices over nameless files, which the kernel takes
 * away with the last descriptor. Skipped where there are none to be had.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"
#include "../../support/trace.h"

#define DISK_BYTES (1u << 20)
#define DISK_SECTORS (DISK_BYTES / DMCORE_SECTOR_BYTES)
#define BLOCK_BYTES 4096u

static struct rig rig;
static struct scratch scratch;
static int loop_fd;
static char loop_path[32];

/* Others may take the number that is free, so it is tried some times. */
static int configure_loop(uint32_t block_bytes, uint32_t flags)
{
	struct loop_config config = { .fd = (uint32_t)scratch.fd, .block_size = block_bytes };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int error = errno;

	if (control < 0)
		return -error;
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR | flags;
	for (unsigned int i = 0; i < 100; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		snprintf(loop_path, sizeof(loop_path), "/dev/loop%d", number);
		loop_fd = open(loop_path, (flags ? O_RDONLY : O_RDWR) | O_CLOEXEC);
		if (loop_fd >= 0 && ioctl(loop_fd, LOOP_CONFIGURE, &config) == 0) {
			close(control);
			return 0;
		}
		error = errno;
		if (loop_fd >= 0)
			close(loop_fd);
		if (error != EBUSY)
			break;
	}
	close(control);
	return -error;
}

static void make_loop(uint32_t block_bytes, uint32_t flags)
{
	int ret = configure_loop(block_bytes, flags);

	if (ret)
		cr_skip("no loop device: %s", strerror(-ret));
}

static void set_up(void)
{
	loop_fd = -1;
	rig_create(&rig);
	scratch_create(&scratch, NULL, DISK_BYTES);
}

static void tear_down(void)
{
	rig_destroy(&rig);
	if (loop_fd >= 0)
		close(loop_fd);
	scratch_close(&scratch);
}

TestSuite(file_block, .init = set_up, .fini = tear_down);

static unsigned char data[DISK_BYTES] __attribute__((aligned(4096)));
static unsigned char copy[DISK_BYTES] __attribute__((aligned(4096)));

Test(file_block, size_and_blocks_are_the_kernel_s)
{
	struct dmcore_limits limits;

	make_loop(BLOCK_BYTES, 0);
	rig_open(&rig, loop_path, 0);
	limits = rig_limits(&rig);
	cr_assert_eq(dmcore_bdev_size_sectors(rig.bdev), DISK_SECTORS);
	cr_assert_eq(limits.logical_block_bytes, BLOCK_BYTES);
	cr_assert_geq(limits.physical_block_bytes, BLOCK_BYTES);
	cr_assert_geq(limits.io_min_bytes, BLOCK_BYTES);
	cr_assert_eq(limits.memory_align_bytes, 1);
}

/* A request of half a block is its own failure: what lies around it stays as it is. */
Test(file_block, requests_below_the_block_are_refused)
{
	static const unsigned int opens[] = { 0, DMCORE_OPEN_DIRECT };

	make_loop(BLOCK_BYTES, 0);
	for (size_t i = 0; i < 2; i++) {
		rig_open(&rig, loop_path, opens[i]);
		rig_fill(&rig, data, sizeof(data));
		cr_assert_eq(rig_write(&rig, 0, data, sizeof(data)), 0);
		cr_assert_eq(rig_write(&rig, 8, copy, 512), -EINVAL);
		cr_assert_eq(rig_write(&rig, 9, copy, 4096), -EINVAL);
		cr_assert_eq(rig_write_fua(&rig, 8, copy, 2048), -EINVAL);
		cr_assert_eq(rig_read(&rig, 8, copy, 512), -EINVAL);
		cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 4, 8), -EINVAL);
		cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 4, 8), -EINVAL);
		cr_assert_eq(dmcore_pread(rig.bdev, copy, 512, 0), -EINVAL);
		cr_assert_eq(rig_read(&rig, 0, copy, sizeof(copy)), 0);
		cr_assert_arr_eq(copy, data, sizeof(data));
		cr_assert_eq(rig_flush(&rig), 0);
		rig_close(&rig);
	}
}

/* Memory in multiples of the block, and memory that direct I/O can't use. */
static void run_traces(unsigned int flags)
{
	make_loop(BLOCK_BYTES, 0);
	rig_open(&rig, loop_path, flags);
	trace_run(&rig, scratch.fd, TRACE_BYTES_MAX, BLOCK_BYTES);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, DISK_SECTORS), 0);
	trace_run(&rig, scratch.fd, TRACE_BYTES_MAX, 4);
}

Test(file_block, reads_back_what_random_requests_left)
{
	run_traces(0);
}

Test(file_block, direct_io_reads_back_what_random_requests_left)
{
	run_traces(DMCORE_OPEN_DIRECT);
}

Test(file_block, discard_reaches_the_disk)
{
	struct stat st;
	blkcnt_t full;

	make_loop(BLOCK_BYTES, 0);
	rig_open(&rig, loop_path, 0);
	if (!(rig_limits(&rig).caps & DMCORE_CAP_DISCARD))
		cr_skip("no discards on this loop device");
	cr_assert_gt(rig_limits(&rig).discard_granularity_bytes, 0);
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write(&rig, 0, data, sizeof(data)), 0);
	cr_assert_eq(rig_flush(&rig), 0);
	cr_assert_eq(fstat(scratch.fd, &st), 0);
	full = st.st_blocks;
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, DISK_SECTORS / 2), 0);
	cr_assert_eq(rig_flush(&rig), 0);
	cr_assert_eq(fstat(scratch.fd, &st), 0);
	cr_assert_lt(st.st_blocks, full);
	cr_assert_eq(rig_read(&rig, DISK_SECTORS / 2, copy, DISK_BYTES / 2), 0);
	cr_assert_arr_eq(copy, data + DISK_BYTES / 2, DISK_BYTES / 2);
}

/* Asking what the device can do must not do it. */
Test(file_block, opening_changes_nothing)
{
	make_loop(BLOCK_BYTES, 0);
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(pwrite(scratch.fd, data, sizeof(data), 0), (ssize_t)sizeof(data));
	rig_open(&rig, loop_path, 0);
	rig_close(&rig);
	rig_open(&rig, loop_path, DMCORE_OPEN_DIRECT);
	rig_close(&rig);
	cr_assert_eq(pread(scratch.fd, copy, sizeof(copy), 0), (ssize_t)sizeof(copy));
	cr_assert_arr_eq(copy, data, sizeof(data));
}

Test(file_block, a_node_and_its_number_are_one_device)
{
	struct dmcore_bdev *again;
	struct stat st;
	char number[32];

	make_loop(BLOCK_BYTES, 0);
	cr_assert_eq(fstat(loop_fd, &st), 0);
	snprintf(number, sizeof(number), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	rig_open(&rig, loop_path, 0);
	cr_assert_eq(dmcore_bdev_open(rig.core, number, 0, &again), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(again, rig.bdev);
	cr_assert_eq(dmcore_bdev_close(again), 0);
}

Test(file_block, a_read_only_disk_is_opened_read_only)
{
	struct dmcore_bdev *bdev;
	int ret;

	make_loop(BLOCK_BYTES, LO_FLAGS_READ_ONLY);
	ret = dmcore_bdev_open(rig.core, loop_path, 0, &bdev);
	cr_assert(ret == -EROFS || ret == -EACCES, "%s", dmcore_error_name(ret));
	rig_open(&rig, loop_path, DMCORE_OPEN_READ_ONLY);
	cr_assert_eq(rig_write(&rig, 0, data, BLOCK_BYTES), -EROFS);
	cr_assert_eq(rig_read(&rig, 0, copy, BLOCK_BYTES), 0);
	cr_assert_eq(rig_flush(&rig), 0);
}

/* ---- claims ---------------------------------------------------------------------------------- */

#define IN_USE "in use, by a mounted file system or another program"

/* Whoever has claimed it: mount does it in the same way. */
Test(file_block, a_claimed_disk_is_refused_for_writing)
{
	int claim;

	make_loop(BLOCK_BYTES, 0);
	claim = open(loop_path, O_RDWR | O_EXCL | O_CLOEXEC);
	cr_assert_geq(claim, 0, "%s", strerror(errno));
	rig_open_fails(&rig, loop_path, 0, -EBUSY, IN_USE);
	rig_open_fails(&rig, loop_path, DMCORE_OPEN_DIRECT, -EBUSY, IN_USE);
	rig_open(&rig, loop_path, DMCORE_OPEN_READ_ONLY);
	rig_close(&rig);
	close(claim);
	rig_open(&rig, loop_path, 0);
	cr_assert_eq(rig_write(&rig, 0, data, BLOCK_BYTES), 0);
}

Test(file_block, an_open_disk_is_claimed_until_it_is_closed)
{
	int claim;

	make_loop(BLOCK_BYTES, 0);
	rig_open(&rig, loop_path, 0);
	cr_assert_eq(rig_write(&rig, 0, data, BLOCK_BYTES), 0);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, 0, 8), 0);
	cr_assert_eq(open(loop_path, O_RDONLY | O_EXCL | O_CLOEXEC), -1);
	cr_assert_eq(errno, EBUSY);
	rig_close(&rig);
	claim = open(loop_path, O_RDONLY | O_EXCL | O_CLOEXEC);
	cr_assert_geq(claim, 0, "%s", strerror(errno));
	close(claim);
}

Test(file_block, a_disk_is_not_opened_for_writing_twice_with_other_flags)
{
	struct dmcore_bdev *reader;

	make_loop(BLOCK_BYTES, 0);
	rig_open(&rig, loop_path, 0);
	rig_open_fails(&rig, loop_path, DMCORE_OPEN_DIRECT, -EBUSY, IN_USE);
	cr_assert_eq(dmcore_bdev_open(rig.core, loop_path, DMCORE_OPEN_READ_ONLY, &reader), 0);
	cr_assert_eq(dmcore_bdev_close(reader), 0);
}
