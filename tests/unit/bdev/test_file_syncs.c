/* SPDX-License-Identifier: MIT */
/* The driver "file" when syncs fail, and when it lacks what it can do without. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
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

TestSuite(file_syncs, .init = set_up, .fini = tear_down);

static void reopen(unsigned int flags)
{
	rig_close(&rig);
	rig_open(&rig, scratch.path, flags);
}

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

/* ---- durability ------------------------------------------------------------------------------ */

Test(file_syncs, a_failed_flush_is_never_forgotten)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_DATASYNC, -EIO, 1);
	cr_assert_eq(rig_write(&rig, 0, data, 4096), 0);
	cr_assert_eq(rig_flush(&rig), -EIO);
	cr_assert_eq(rig_flush(&rig), -EIO);
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), -EIO);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, 0, 8), -EIO);
	/* It isn't tried again, for the kernel would say that all is well. */
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_DATASYNC], 1);
	cr_assert_eq(syscalls.durable_calls, 0);
	/* The rest goes on. */
	cr_assert_eq(rig_write(&rig, 0, data, 4096), 0);
	cr_assert_eq(rig_read(&rig, 0, copy, 4096), 0);
	cr_assert_eq(dmcore_flush(rig.bdev), -EIO);
	reopen(0);
	cr_assert_eq(rig_flush(&rig), 0);
}

Test(file_syncs, no_space_in_a_flush_means_lost_writes)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_DATASYNC, -ENOSPC, 1);
	cr_assert_eq(rig_flush(&rig), -EIO);
	cr_assert_eq(rig_flush(&rig), -EIO);
}

Test(file_syncs, a_failed_durable_write_means_lost_writes)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_WRITE, -EIO, 1);
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), -EIO);
	cr_assert_eq(rig_flush(&rig), -EIO);
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), -EIO);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_DATASYNC], 0);
	cr_assert_eq(rig_write(&rig, 0, data, 4096), 0);
}

/* It may be the sync behind the write that had no space: for all that came before. */
Test(file_syncs, no_space_in_a_durable_write_means_lost_writes)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_WRITE, -ENOSPC, 1);
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), -ENOSPC);
	cr_assert_eq(rig_flush(&rig), -EIO);
}

Test(file_syncs, a_failed_plain_write_loses_nothing_else)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_WRITE, -EIO, 1);
	cr_assert_eq(rig_write(&rig, 0, data, 4096), -EIO);
	cr_assert_eq(rig_flush(&rig), 0);
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), 0);
	cr_assert_eq(syscalls.durable_calls, 1);
}

Test(file_syncs, a_file_without_durable_writes_is_synced_after_each)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_WRITE, -EOPNOTSUPP, 1);
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 2);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_DATASYNC], 1);
	/* From now on without asking. */
	cr_assert_eq(rig_write_fua(&rig, 8, data + 4096, 4096), 0);
	cr_assert_eq(syscalls.durable_calls, 1);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 3);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_DATASYNC], 2);
	cr_assert_eq(rig_read(&rig, 0, copy, 8192), 0);
	cr_assert_arr_eq(copy, data, 8192);
	/* And a sync that fails is remembered all the same. */
	syscalls_fail(&syscalls, DMCORE_FILEIO_DATASYNC, -EIO, 1);
	cr_assert_eq(rig_write_fua(&rig, 0, data, 4096), -EIO);
	cr_assert_eq(rig_flush(&rig), -EIO);
}

Test(file_syncs, a_read_only_device_is_flushed_without_a_call)
{
	reopen(DMCORE_OPEN_READ_ONLY);
	syscalls_fail(&syscalls, DMCORE_FILEIO_DATASYNC, -EIO, 1);
	cr_assert_eq(rig_flush(&rig), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_DATASYNC], 0);
}

/* ---- DISCARD and WRITE_ZEROES ---------------------------------------------------------------- */

Test(file_syncs, a_file_without_holes_refuses_discards_for_good)
{
	if (!(rig_limits(&rig).caps & DMCORE_CAP_DISCARD))
		cr_skip("no holes on the file system of %s", scratch_dir());
	syscalls_fail(&syscalls, DMCORE_FILEIO_FALLOCATE, -EOPNOTSUPP, 1);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_FALLOCATE], 1);
}

/* Writes a pattern, zeroes the middle of it with the faults that are planned, and compares. */
static void zero_the_middle(unsigned int flags)
{
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_write(&rig, 0, data, sizeof(data)), 0);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, flags, 1, 100), 0);
	memset(data + 512, 0, 51200);
	cr_assert_eq(rig_read(&rig, 0, copy, sizeof(copy)), 0);
	cr_assert_arr_eq(copy, data, sizeof(data));
}

Test(file_syncs, without_zero_ranges_holes_are_punched)
{
	if (!(rig_limits(&rig).caps & DMCORE_CAP_DISCARD))
		cr_skip("no holes on the file system of %s", scratch_dir());
	syscalls.plans[DMCORE_FILEIO_FALLOCATE] = (struct plan){
		.result = -EOPNOTSUPP, .times = ALWAYS, .mode = FALLOC_FL_ZERO_RANGE
	};
	zero_the_middle(0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_FALLOCATE], 2);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 1);
	zero_the_middle(DMCORE_BIO_FUA);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_FALLOCATE], 3);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_DATASYNC], 1);
}

static void zero_by_writing(void)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_FALLOCATE, -EOPNOTSUPP, ALWAYS);
	zero_the_middle(0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_FALLOCATE], 2);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 2);
	zero_the_middle(DMCORE_BIO_FUA);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_FALLOCATE], 2);
	cr_assert_eq(syscalls.durable_calls, 1);
}

Test(file_syncs, without_zero_ranges_and_holes_zeroes_are_written)
{
	zero_by_writing();
}

Test(file_syncs, without_zero_ranges_and_holes_zeroes_are_written_directly)
{
	open_direct();
	if (rig_limits(&rig).logical_block_bytes > DMCORE_SECTOR_BYTES)
		cr_skip("blocks of %u bytes", rig_limits(&rig).logical_block_bytes);
	zero_by_writing();
}

Test(file_syncs, more_zeroes_than_a_bounce_buffer_are_written_in_pieces)
{
	uint64_t sectors = 5 * DMCORE_BOUNCE_BYTES / DMCORE_SECTOR_BYTES / 2;

	cr_assert_eq(ftruncate(scratch.fd, 4 * DMCORE_BOUNCE_BYTES), 0);
	reopen(0);
	syscalls_fail(&syscalls, DMCORE_FILEIO_FALLOCATE, -EOPNOTSUPP, ALWAYS);
	memset(data, 1, sizeof(data));
	for (uint64_t sector = 0; sector < sectors + 128; sector += 128)
		cr_assert_eq(rig_write(&rig, sector, data, sizeof(data)), 0);
	syscalls.calls[DMCORE_FILEIO_WRITE] = 0;
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, sectors), 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 3);
	cr_assert_eq(rig_read(&rig, sectors - 1, copy, 1024), 0);
	cr_assert_eq(copy[511], 0);
	cr_assert_eq(copy[512], 1);
}
