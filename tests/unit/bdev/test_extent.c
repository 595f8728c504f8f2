/* SPDX-License-Identifier: MIT */
/*
 * dmcore_bdev_extent() on leaf devices: holes of files, file systems that don't tell, and drivers
 * that answer as they like. The linker sends lseek() and fstat() here first (--wrap, in
 * tests/local.mk).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"

#define SECTOR DMCORE_SECTOR_BYTES
#define BLOCK 4096u
#define BLOCK_SECTORS (BLOCK / SECTOR)
#define FILE_BLOCKS 64u
#define FILE_BYTES (FILE_BLOCKS * BLOCK)
#define FILE_SECTORS (FILE_BYTES / SECTOR)

static struct rig rig;
static struct scratch scratch;

/* What the kernel says; all zero: what it says by itself. */
static struct {
	int seek_error;   /* of both */
	int hole_error;   /* of SEEK_HOLE */
	int stat_error;
	off_t data_at;    /* not 0: what SEEK_DATA finds */
	off_t hole_at;    /* likewise SEEK_HOLE */
} kernel;

off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);
int __real_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st);

off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	bool hole = whence == SEEK_HOLE;

	if (whence == SEEK_DATA || hole) {
		errno = hole && kernel.hole_error ? kernel.hole_error : kernel.seek_error;
		if (errno)
			return -1;
		if (hole ? kernel.hole_at : kernel.data_at)
			return hole ? kernel.hole_at : kernel.data_at;
	}
	return __real_lseek(fd, offset, whence);
}

int __wrap_fstat(int fd, struct stat *st)
{
	if (kernel.stat_error) {
		errno = kernel.stat_error;
		return -1;
	}
	return __real_fstat(fd, st);
}

static void set_up(void)
{
	rig_create(&rig);
	scratch_create(&scratch, NULL, FILE_BYTES);
	rig_open(&rig, scratch.path, 0);
}

static void tear_down(void)
{
	memset(&kernel, 0, sizeof(kernel));
	rig_destroy(&rig);
	scratch_close(&scratch);
}

TestSuite(extent, .init = set_up, .fini = tear_down);

static struct dmcore_extent look(uint64_t sector, uint64_t count)
{
	struct dmcore_extent extent = { DMCORE_EXTENT_DATA, 0 };

	cr_assert_eq(dmcore_bdev_extent(rig.bdev, sector, count, &extent), 0, "%s",
		     dmcore_error_message());
	cr_assert_geq(extent.count, 1);
	cr_assert_leq(extent.count, count);
	return extent;
}

static void expect(uint64_t sector, uint64_t count, enum dmcore_extent_kind kind, uint64_t length)
{
	struct dmcore_extent extent = look(sector, count);

	cr_assert_eq(extent.kind, kind, "sector %lu", (unsigned long)sector);
	cr_assert_eq(extent.count, length, "sector %lu: %lu", (unsigned long)sector,
		     (unsigned long)extent.count);
}

static void write_bytes(uint64_t offset_bytes, uint64_t len_bytes)
{
	static unsigned char data[FILE_BYTES];

	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(pwrite(scratch.fd, data, len_bytes, (off_t)offset_bytes), (ssize_t)len_bytes);
}

/* Skips the test where the file system has no holes of this size. */
static void need_holes(void)
{
	write_bytes((uint64_t)8 * BLOCK, BLOCK);
	if (__real_lseek(scratch.fd, 0, SEEK_DATA) != (off_t)8 * BLOCK ||
	    __real_lseek(scratch.fd, (off_t)8 * BLOCK, SEEK_HOLE) != (off_t)9 * BLOCK)
		cr_skip("%s has no holes, or larger ones", scratch_dir());
	cr_assert_eq(ftruncate(scratch.fd, 0), 0);
	cr_assert_eq(ftruncate(scratch.fd, FILE_BYTES), 0);
}

Test(extent, holes_and_data_of_a_file_are_told)
{
	need_holes();
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, FILE_SECTORS);
	write_bytes((uint64_t)8 * BLOCK, 2 * BLOCK);
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, 8 * BLOCK_SECTORS);
	expect(0, 5, DMCORE_EXTENT_ZERO, 5);
	expect(3, FILE_SECTORS, DMCORE_EXTENT_ZERO, 8 * BLOCK_SECTORS - 3);
	expect(8 * BLOCK_SECTORS, FILE_SECTORS, DMCORE_EXTENT_DATA, 2 * BLOCK_SECTORS);
	expect(8 * BLOCK_SECTORS + 1, 3, DMCORE_EXTENT_DATA, 3);
	expect(10 * BLOCK_SECTORS, FILE_SECTORS, DMCORE_EXTENT_ZERO,
	       (FILE_BLOCKS - 10) * BLOCK_SECTORS);
	expect(FILE_SECTORS - 1, UINT64_MAX, DMCORE_EXTENT_ZERO, 1);
}

Test(extent, what_has_been_discarded_is_a_hole)
{
	need_holes();
	write_bytes(0, FILE_BYTES);
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS);
	if (rig_range(&rig, DMCORE_OP_DISCARD, 0, 16, 16))
		cr_skip("%s can't discard", scratch_dir());
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, 16);
	expect(16, FILE_SECTORS, DMCORE_EXTENT_ZERO, 16);
	expect(32, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS - 32);
}

Test(extent, what_makes_no_sense_is_refused)
{
	struct dmcore_extent extent;

	cr_assert_eq(dmcore_bdev_extent(NULL, 0, 1, &extent), -EINVAL);
	cr_assert_eq(dmcore_bdev_extent(rig.bdev, 0, 1, NULL), -EINVAL);
	cr_assert_eq(dmcore_bdev_extent(rig.bdev, 0, 0, &extent), -EINVAL);
	cr_assert_eq(dmcore_bdev_extent(rig.bdev, FILE_SECTORS, 1, &extent), -EIO);
	cr_assert_eq(dmcore_bdev_extent(rig.bdev, UINT64_MAX, UINT64_MAX, &extent), -EIO);
	cr_assert_gt(strlen(dmcore_error_message()), 0);
}

/* A hole may begin or end anywhere: a sector that has a byte of data is data. */
Test(extent, holes_are_cut_to_sectors)
{
	kernel.data_at = 3 * SECTOR + 1;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, 3);
	kernel.data_at = 4 * SECTOR - 1;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, 3);
	kernel.data_at = 4 * SECTOR;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, 4);
	/* Data that begin within the first sector. */
	kernel.data_at = SECTOR - 1;
	kernel.hole_at = SECTOR;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, 1);
	kernel.hole_at = SECTOR + 1;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, 2);
	/* A file that changes while it is looked at. */
	kernel.hole_at = 1;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, 1);
}

Test(extent, direct_io_cuts_holes_to_its_blocks)
{
	uint32_t sectors;
	int ret;

	rig_close(&rig);
	ret = dmcore_bdev_open(rig.core, scratch.path, DMCORE_OPEN_DIRECT, &rig.bdev);
	if (ret == -EINVAL)
		cr_skip("%s: %s", scratch_dir(), dmcore_error_message());
	cr_assert_eq(ret, 0);
	sectors = rig_limits(&rig).logical_block_bytes / SECTOR;
	kernel.data_at = (off_t)3 * sectors * SECTOR - 1;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, 2 * sectors);
	kernel.hole_at = kernel.data_at + 2;
	expect(2 * sectors, FILE_SECTORS - 2 * sectors, DMCORE_EXTENT_DATA, 2 * sectors);
	/* A question that is no block gets an answer all the same. */
	expect(2 * sectors, 1, DMCORE_EXTENT_DATA, 1);
}

Test(extent, who_does_not_tell_has_data)
{
	static const int errors[] = { EINVAL, EOPNOTSUPP, EIO };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		kernel.seek_error = errors[i];
		expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS);
		expect(7, 9, DMCORE_EXTENT_DATA, 9);
	}
	kernel.seek_error = 0;
	kernel.stat_error = EIO;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS);
}

Test(extent, data_without_a_known_end_is_data_to_the_end)
{
	write_bytes(0, BLOCK);
	kernel.hole_error = EIO;
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS);
	kernel.hole_error = ENXIO;
	expect(0, 20, DMCORE_EXTENT_DATA, 20);
}

/* The device still has its size. What isn't there any more isn't called zero: a read fails. */
Test(extent, what_a_file_has_lost_is_no_hole)
{
	struct dmcore_extent extent;

	need_holes();
	cr_assert_eq(ftruncate(scratch.fd, 5 * SECTOR + 100), 0);
	expect(5, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS - 5);
	expect(0, FILE_SECTORS, DMCORE_EXTENT_ZERO, 5);
	cr_assert_eq(ftruncate(scratch.fd, 0), 0);
	expect(0, FILE_SECTORS, DMCORE_EXTENT_DATA, FILE_SECTORS);
	/* Nor is what it has got since, until it is opened again. */
	cr_assert_eq(ftruncate(scratch.fd, 2 * FILE_BYTES), 0);
	cr_assert_eq(dmcore_bdev_extent(rig.bdev, FILE_SECTORS, 1, &extent), -EIO);
	expect(0, UINT64_MAX, DMCORE_EXTENT_ZERO, FILE_SECTORS);
}

/* Whatever is called zero reads as zeroes, and whatever isn't zero is called data. */
Test(extent, random_writes_and_holes_never_make_data_a_hole)
{
	static unsigned char found[FILE_BYTES];

	for (unsigned int i = 0; i < 200; i++) {
		uint64_t count = 1 + rig_random(&rig, 24);
		uint64_t sector = rig_random(&rig, FILE_SECTORS - count);
		uint64_t at = 0;

		switch (rig_random(&rig, 4)) {
		case 0:
			/* Refused where there are no holes: then it is a write less. */
			(void)rig_range(&rig, DMCORE_OP_DISCARD, 0, sector, count);
			break;
		case 1:
			cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, sector, count), 0);
			break;
		case 2:
			write_bytes(sector * SECTOR + rig_random(&rig, SECTOR), count * SECTOR);
			break;
		default:
			rig_fill(&rig, found, count * SECTOR);
			cr_assert_eq(rig_write(&rig, sector, found, count * SECTOR), 0);
			break;
		}
		cr_assert_eq(rig_read(&rig, 0, found, FILE_BYTES), 0);
		while (at < FILE_SECTORS) {
			struct dmcore_extent extent = look(at, 1 + rig_random(&rig, FILE_SECTORS));

			for (uint64_t b = at * SECTOR; extent.kind == DMCORE_EXTENT_ZERO &&
						       b < (at + extent.count) * SECTOR; b++)
				cr_assert_eq(found[b], 0, "byte %lu, pass %u, seed %lu",
					     (unsigned long)b, i, (unsigned long)rig.seed);
			at += extent.count;
		}
		cr_assert_eq(at, FILE_SECTORS);
	}
}

/* ---- other drivers ---- */

#define CHUNK_SECTORS 128u

Test(extent, memory_is_zero_until_it_is_written)
{
	static unsigned char data[SECTOR];

	rig_close(&rig);
	rig_open(&rig, "mem:672k", 0);
	expect(0, UINT64_MAX, DMCORE_EXTENT_ZERO, 1344);
	expect(8, 16, DMCORE_EXTENT_ZERO, 16);
	cr_assert_eq(rig_write(&rig, 4 * CHUNK_SECTORS - 1, data, SECTOR), 0);
	expect(0, UINT64_MAX, DMCORE_EXTENT_ZERO, 3 * CHUNK_SECTORS);
	expect(3 * CHUNK_SECTORS, UINT64_MAX, DMCORE_EXTENT_DATA, CHUNK_SECTORS);
	expect(3 * CHUNK_SECTORS + 5, 3, DMCORE_EXTENT_DATA, 3);
	expect(4 * CHUNK_SECTORS, 500, DMCORE_EXTENT_ZERO, 500);
	/* The last one is a part of a chunk. */
	cr_assert_eq(rig_write(&rig, 1343, data, SECTOR), 0);
	expect(1341, UINT64_MAX, DMCORE_EXTENT_DATA, 3);
	/* What was written may hold anything. */
	cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, 0, 0, 1344), 0);
	expect(0, UINT64_MAX, DMCORE_EXTENT_ZERO, 3 * CHUNK_SECTORS);
	expect(1341, UINT64_MAX, DMCORE_EXTENT_DATA, 3);
}

Test(extent, a_write_over_many_chunks_is_in_all_of_them)
{
	static unsigned char data[CHUNK_SECTORS * SECTOR + 2 * SECTOR];

	rig_close(&rig);
	rig_open(&rig, "mem:16M", 0);
	cr_assert_eq(rig_write(&rig, 64 * CHUNK_SECTORS - 1, data, sizeof(data)), 0);
	expect(0, UINT64_MAX, DMCORE_EXTENT_ZERO, 63 * CHUNK_SECTORS);
	expect(63 * CHUNK_SECTORS, UINT64_MAX, DMCORE_EXTENT_DATA, 3 * CHUNK_SECTORS);
	expect(66 * CHUNK_SECTORS, UINT64_MAX, DMCORE_EXTENT_ZERO, (256 - 66) * CHUNK_SECTORS);
}

Test(extent, large_memory_is_told_in_parts)
{
	static unsigned char data[SECTOR];
	uint64_t size = UINT64_C(1) << 31;
	uint64_t at = 0;

	rig_close(&rig);
	rig_open(&rig, "mem:1T", 0);
	cr_assert_eq(rig_write(&rig, size - 1, data, SECTOR), 0);
	while (at < size - CHUNK_SECTORS) {
		struct dmcore_extent extent = look(at, UINT64_MAX);

		cr_assert_eq(extent.kind, DMCORE_EXTENT_ZERO);
		at += extent.count;
	}
	cr_assert_eq(at, size - CHUNK_SECTORS);
	expect(at, UINT64_MAX, DMCORE_EXTENT_DATA, CHUNK_SECTORS);
}

static struct dmcore_extent answer;
static int answer_error;
static uint64_t asked_count;

static int odd_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct dmcore_limits limits = {
		.struct_size = sizeof(limits),
		.logical_block_bytes = BLOCK,
	};

	(void)args;
	(void)flags;
	dmcore_bdev_set_size(bdev, 64);
	return dmcore_bdev_set_limits(bdev, &limits);
}

static void odd_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void odd_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	(void)bdev;
	dmcore_bio_complete(bio, 0);
}

static int odd_extent(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count,
		      struct dmcore_extent *extent)
{
	cr_assert_leq(sector + count, dmcore_bdev_size_sectors(bdev));
	asked_count = count;
	*extent = answer;
	return answer_error;
}

static const struct dmcore_driver odd = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "odd",
	.open = odd_open,
	.close = odd_close,
	.submit = odd_submit,
	.extent = odd_extent,
};

/* Of an author who knew the fields before it. */
static const struct dmcore_driver old = {
	.struct_size = offsetof(struct dmcore_driver, extent),
	.name = "old",
	.open = odd_open,
	.close = odd_close,
	.submit = odd_submit,
	.extent = odd_extent,
};

static void open_odd(const struct dmcore_driver *driver, const char *spec)
{
	cr_assert_eq(dmcore_driver_register(rig.core, driver), 0);
	rig_close(&rig);
	rig_open(&rig, spec, 0);
}

Test(extent, answers_are_whole_blocks_where_the_question_is)
{
	open_odd(&odd, "odd:");
	answer = (struct dmcore_extent){ DMCORE_EXTENT_ZERO, 13 };
	expect(0, 64, DMCORE_EXTENT_ZERO, 8);
	expect(1, 64, DMCORE_EXTENT_ZERO, 13);
	expect(0, 63, DMCORE_EXTENT_ZERO, 13);
	answer.count = 16;
	expect(0, 64, DMCORE_EXTENT_ZERO, 16);
	/* A block that isn't whole is data. */
	for (answer.count = 1; answer.count < 8; answer.count++)
		expect(0, 64, DMCORE_EXTENT_DATA, 8);
	answer = (struct dmcore_extent){ DMCORE_EXTENT_DATA, 7 };
	expect(8, 8, DMCORE_EXTENT_DATA, 8);
	answer.count = 9;
	expect(8, 24, DMCORE_EXTENT_DATA, 8);
}

Test(extent, drivers_are_asked_about_what_they_have)
{
	open_odd(&odd, "odd:");
	answer = (struct dmcore_extent){ DMCORE_EXTENT_ZERO, 8 };
	expect(48, UINT64_MAX, DMCORE_EXTENT_ZERO, 8);
	cr_assert_eq(asked_count, 16);
}

Test(extent, senseless_answers_are_data)
{
	open_odd(&odd, "odd:");
	answer = (struct dmcore_extent){ DMCORE_EXTENT_ZERO, 0 };
	expect(0, 16, DMCORE_EXTENT_DATA, 16);
	answer.count = 17;
	expect(0, 16, DMCORE_EXTENT_DATA, 16);
	answer.count = 8;
	answer_error = -EIO;
	expect(0, 16, DMCORE_EXTENT_DATA, 16);
}

Test(extent, a_driver_of_an_older_author_has_data)
{
	open_odd(&old, "old:");
	answer = (struct dmcore_extent){ DMCORE_EXTENT_ZERO, 8 };
	expect(0, 64, DMCORE_EXTENT_DATA, 64);
	cr_assert_eq(asked_count, 0);
}
