/* SPDX-License-Identifier: MIT */
/* Copies that leave zeroes out: holes aren't read, zeroes aren't written. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"
#include "../../support/scratch.h"

#define SECTORS 2048
#define SLICE 64
#define BLOCK 8

static struct copy copy;
static struct rng rng;

static void open_disks(void)
{
	copies_open(3, SECTORS, "");
	copies_client(256, SLICE, 0);
	rng_start(&rng, 0);
}

TestSuite(sparse, .init = open_disks, .fini = copies_close);

static void clear(unsigned int disk, uint64_t sector, uint64_t count)
{
	memset(copies_bytes(disk, sector), 0, count * DMCORE_SECTOR_BYTES);
}

/* The whole of a job's destinations equals its source, byte by byte, and has neighbours untouched
 * where the disk was filled by copies_refill(). */
static void expect_equal(void)
{
	const struct dmio_region *from = &copy.job.from;

	for (unsigned int i = 0; i < copy.job.num_dests; i++) {
		uint64_t sector = copy.job.dests[i].sector;

		cr_assert_arr_eq(copies_bytes(1 + i, sector), copies_bytes(0, from->sector),
				 from->count * DMCORE_SECTOR_BYTES);
		copies_expect_own(1 + i, 0, sector);
		copies_expect_own(1 + i, sector + from->count, SECTORS - sector - from->count);
	}
}

static void expect_adds_up(uint64_t zeroed, uint64_t skipped)
{
	struct kcopyd_progress progress = copies_progress(&copy);

	cr_assert_eq(progress.position_sectors, progress.total_sectors);
	cr_assert_eq(progress.zeroed_sectors, zeroed, "zeroed %llu, not %llu",
		     (unsigned long long)progress.zeroed_sectors, (unsigned long long)zeroed);
	cr_assert_eq(progress.skipped_sectors, skipped, "skipped %llu, not %llu",
		     (unsigned long long)progress.skipped_sectors, (unsigned long long)skipped);
	cr_assert_eq(progress.copied_sectors, progress.total_sectors - zeroed - skipped);
	cr_assert_eq(progress.failed_sectors, 0);
}

/* ---- zeroes that are found ------------------------------------------------------------------ */

/* What reached a destination: data where there are data, `zeroing` where there are zeroes. */
static void expect_written(unsigned int disk, enum dmcore_op zeroing)
{
	unsigned int logged = fault_num_logged(copies.disk[disk]);

	for (unsigned int n = 0; n < logged; n++) {
		struct fault_entry entry = fault_logged(copies.disk[disk], n);
		bool zeroes = entry.op == zeroing;

		cr_assert(zeroes || entry.op == DMCORE_OP_WRITE);
		for (uint64_t s = entry.sector; s < entry.sector + entry.count; s++) {
			bool is_zero = (s >= 80 && s < 104) || (s >= 200 && s < 360);

			cr_assert_eq(zeroes, is_zero, "sector %llu", (unsigned long long)s);
		}
	}
}

static void copy_two_zero_runs(void)
{
	clear(0, 80, 3 * BLOCK);
	clear(0, 200, 160);
	copies_set(&copy, 0, 0, 1024, 2, KCOPYD_SPARSE);
	copies_run(&copy);
	expect_equal();
	expect_adds_up(24 + 160, 0);
}

Test(sparse, zero_blocks_are_freed_and_not_written)
{
	copy_two_zero_runs();
	expect_written(1, DMCORE_OP_DISCARD);
	expect_written(2, DMCORE_OP_DISCARD);
}

Test(sparse, zero_blocks_are_zeroed_where_a_discard_leaves_anything)
{
	char args[32];

	copies_close();
	snprintf(args, sizeof(args), ",caps=%u",
		 DMCORE_CAP_DISCARD | DMCORE_CAP_WRITE_ZEROES | DMCORE_CAP_VOLATILE_CACHE);
	copies_open(3, SECTORS, args);
	copies_client(256, SLICE, 0);
	copy_two_zero_runs();
	expect_written(1, DMCORE_OP_WRITE_ZEROES);
	expect_written(2, DMCORE_OP_WRITE_ZEROES);
}

/* As a file system does that finds out only when it is asked. */
Test(sparse, zero_blocks_are_zeroed_where_a_discard_fails)
{
	copies_fail(2, FAULT_DISCARD, 0, 0);
	copy_two_zero_runs();
	cr_assert_geq(copies_count(2, FAULT_WRITE_ZEROES), 2);
	/* It isn't asked again and again: no more often than slices were under way. */
	cr_assert_leq(copies_count(2, FAULT_DISCARD), KCOPYD_SUBJOBS_MAX);
}

/* Zeroes that fill no block of 4 KiB are data. */
Test(sparse, less_than_a_block_of_zeroes_is_written)
{
	clear(0, 81, 2 * BLOCK - 2);
	clear(0, 300, 4);
	copies_set(&copy, 0, 0, 1024, 1, KCOPYD_SPARSE);
	copies_run(&copy);
	expect_equal();
	expect_adds_up(0, 0);
	copies_expect_touched(1, DMCORE_OP_WRITE, 0, 1024, 1);
	cr_assert_eq(copies_count(1, FAULT_DISCARD | FAULT_WRITE_ZEROES), 0);
}

Test(sparse, one_byte_makes_a_block_data)
{
	clear(0, 0, 64);
	copies_bytes(0, 0)[0] = 1;
	copies_bytes(0, 31)[511] = 1;
	copies_bytes(0, 40)[300] = 1;
	copies_set(&copy, 0, 0, 64, 1, KCOPYD_SPARSE);
	copies_run(&copy);
	expect_equal();
	expect_adds_up(64 - 3 * BLOCK, 0);
}

Test(sparse, nothing_but_zeroes)
{
	clear(0, 0, SECTORS);
	copies_set(&copy, 0, 0, SECTORS, 2, KCOPYD_SPARSE);
	copies_run(&copy);
	expect_equal();
	expect_adds_up(SECTORS, 0);
	cr_assert_eq(copies_count(1, FAULT_WRITE), 0);
	cr_assert_eq(copies_count(2, FAULT_WRITE), 0);
}

Test(sparse, destinations_that_are_zero_are_left_alone)
{
	clear(0, 80, 3 * BLOCK);
	clear(0, 512, 256);
	clear(1, 0, SECTORS);
	clear(2, 0, SECTORS);
	copies_set(&copy, 0, 0, SECTORS, 2, KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED);
	copies_run(&copy);
	expect_equal();
	expect_adds_up(0, 24 + 256);
	for (unsigned int i = 1; i < 3; i++) {
		cr_assert_eq(copies_count(i, FAULT_DISCARD | FAULT_WRITE_ZEROES), 0);
		for (unsigned int n = 0; n < fault_num_logged(copies.disk[i]); n++) {
			struct fault_entry entry = fault_logged(copies.disk[i], n);

			cr_assert(entry.sector + entry.count <= 80 ||
				  (entry.sector >= 104 && entry.sector + entry.count <= 512) ||
				  entry.sector >= 768);
		}
	}
}

/* The caller was wrong: it shows that nothing is touched. */
Test(sparse, destinations_said_to_be_zero_are_not_looked_at)
{
	clear(0, 0, 128);
	copies_set(&copy, 0, 0, 128, 1, KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED);
	copies_run(&copy);
	copies_expect_own(1, 0, SECTORS);
	cr_assert_eq(copies_count(1, 0), 0);
	expect_adds_up(0, 128);
	/* But when compared. */
	copy.job.flags |= KCOPYD_VERIFY;
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EILSEQ);
	cr_assert_eq(copies_progress(&copy).mismatch_sectors, 0);
}

Test(sparse, devices_without_write_zeroes_get_zeroes_too)
{
	unsigned int disk = copies_add_disk(",caps=0");

	clear(0, 100, 500);
	copies_set(&copy, 0, 0, SECTORS, 3, KCOPYD_SPARSE);
	cr_assert_eq(disk, 3);
	copies_run(&copy);
	expect_equal();
	cr_assert_eq(copies_count(3, FAULT_DISCARD | FAULT_WRITE_ZEROES), 0);
}

/* Any pattern of zero and other sectors, at any place, through any number of pages. */
Test(sparse, any_pattern_arrives)
{
	static const unsigned int pages[] = { 1, 2, 7, 64 };
	static const unsigned int flags[] = { 0, KCOPYD_WRITE_SEQ, KCOPYD_VERIFY | KCOPYD_FLUSH,
					      KCOPYD_IGNORE_ERROR };

	for (unsigned int round = 0; round < 60; round++) {
		uint64_t count = rng_between(&rng, 1, 1024);
		struct kcopyd_progress progress;

		cr_assert_eq(kcopyd_client_destroy(copies.kc), 0);
		copies_client(2 + pages[round % 4], 0, 0);
		for (unsigned int i = 0; i < 3; i++)
			copies_refill(i);
		for (uint64_t s = 0; s < SECTORS;) {
			uint64_t run = rng_between(&rng, 1, 60);

			run = run < SECTORS - s ? run : SECTORS - s;
			if (rng_one_in(&rng, 2))
				clear(0, s, run);
			s += run;
		}
		copies_set(&copy, 0, rng_below(&rng, 1000), count, 2,
			   KCOPYD_SPARSE | flags[rng_below(&rng, 4)]);
		copy.job.dests[1].sector = rng_below(&rng, 1000);
		copies_run(&copy);
		expect_equal();
		progress = copies_progress(&copy);
		cr_assert_eq(progress.copied_sectors + progress.zeroed_sectors, count);
	}
}

Test(sparse, zeroing_that_fails_is_a_write_error)
{
	clear(0, 128, 64);
	copies_fail(2, FAULT_DISCARD | FAULT_WRITE_ZEROES, 0, 0);
	copies_set(&copy, 0, 0, 512, 2, KCOPYD_SPARSE | KCOPYD_IGNORE_ERROR);
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.read_err, 0);
	cr_assert_eq(copy.job.write_err, 2);
	copies_expect_own(2, 128, 64);
	copies_expect_zero(1, 128, 64);
}

Test(sparse_blocks, large_ones_are_zeroed_whole_or_written)
{
	copies_open(3, SECTORS, ",block=16384");
	copies_client(64, 64, 0);
	clear(0, 32, 32);
	clear(0, 96 + 8, 24);
	copies_set(&copy, 0, 0, 1024, 2, KCOPYD_SPARSE);
	copies_run(&copy);
	expect_equal();
	expect_adds_up(32, 0);
	copies_close();
}

/* ---- holes ---------------------------------------------------------------------------------- */

/* A device of data and stretches that are known to be zero. */
Test(sparse, what_a_mapped_device_knows_to_be_zero_is_not_read)
{
	char table[256];
	struct dmcore_extent extent;

	snprintf(table, sizeof(table),
		 "0 128 linear fault:%u,id=0 0\n"
		 "128 512 zero\n"
		 "640 384 linear fault:%u,id=0 640\n", SECTORS, SECTORS);
	copies_set(&copy, 0, 0, 1024, 2, KCOPYD_SPARSE);
	copy.job.from.bdev = stage_map(&copies.stage, "holes", table);
	cr_assert_eq(dmcore_bdev_extent(copy.job.from.bdev, 128, 896, &extent), 0);
	cr_assert_eq(extent.kind, DMCORE_EXTENT_ZERO);
	copies_run(&copy);
	clear(0, 128, 512);
	expect_equal();
	expect_adds_up(512, 0);
	for (unsigned int i = 1; i < 3; i++) {
		copies_expect_touched(i, DMCORE_OP_DISCARD, 128, 512, 1);
		cr_assert_eq(copies_count(i, FAULT_READ), 0);
	}
}

struct file {
	struct scratch scratch;
	struct dmcore_bdev *bdev;
};

static struct file source;
static struct file dest;
static unsigned char content[SECTORS * DMCORE_SECTOR_BYTES];
static unsigned char found[SECTORS * DMCORE_SECTOR_BYTES];

static void open_file(struct file *file)
{
	scratch_create(&file->scratch, NULL, sizeof(content));
	file->bdev = stage_bdev(&copies.stage, file->scratch.path, 0);
}

static void write_file(struct file *file, uint64_t sector, uint64_t count, uint32_t version)
{
	size_t bytes = count * DMCORE_SECTOR_BYTES;
	off_t offset = (off_t)(sector * DMCORE_SECTOR_BYTES);

	pattern_fill(found, sector, count, version);
	cr_assert_eq(pwrite(file->scratch.fd, found, bytes, offset), (ssize_t)bytes);
}

/* Whether the folder's file system tells of holes of 64 KiB. */
static bool tells_holes(const struct file *file)
{
	return lseek(file->scratch.fd, 0, SEEK_HOLE) == 512 * DMCORE_SECTOR_BYTES;
}

static void copy_file(unsigned int flags)
{
	copies_set(&copy, 0, 0, SECTORS, 1, flags);
	copy.job.from.bdev = source.bdev;
	copy.job.dests[0].bdev = dest.bdev;
	copies_run(&copy);
	cr_assert_eq(pread(source.scratch.fd, content, sizeof(content), 0),
		     (ssize_t)sizeof(content));
	cr_assert_eq(pread(dest.scratch.fd, found, sizeof(found), 0), (ssize_t)sizeof(found));
	cr_assert_arr_eq(found, content, sizeof(content));
}

Test(sparse, holes_of_a_file_are_holes_in_a_new_one)
{
	open_file(&source);
	open_file(&dest);
	write_file(&source, 0, 512, 7);
	write_file(&source, 1024, 256, 7);
	if (!tells_holes(&source))
		cr_skip("no holes here");
	copy_file(KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED);
	expect_adds_up(0, SECTORS - 768);
	cr_assert_eq(lseek(dest.scratch.fd, 0, SEEK_HOLE), 512 * DMCORE_SECTOR_BYTES);
	scratch_close(&source.scratch);
	scratch_close(&dest.scratch);
}

Test(sparse, holes_of_a_file_overwrite_what_was_there)
{
	open_file(&source);
	open_file(&dest);
	write_file(&source, 100, 300, 7);
	write_file(&source, 1024, 256, 7);
	write_file(&dest, 0, SECTORS, 8);
	copy_file(KCOPYD_SPARSE | KCOPYD_FLUSH | KCOPYD_VERIFY);
	cr_assert_eq(copies_progress(&copy).zeroed_sectors + copies_progress(&copy).copied_sectors,
		     SECTORS);
	cr_assert_geq(copies_progress(&copy).zeroed_sectors, SECTORS - 1024);
	scratch_close(&source.scratch);
	scratch_close(&dest.scratch);
}

Test(sparse, file_without_a_hole_and_file_of_one_hole)
{
	open_file(&source);
	open_file(&dest);
	copy_file(KCOPYD_SPARSE);
	expect_adds_up(SECTORS, 0);
	write_file(&source, 0, SECTORS, 7);
	copy_file(KCOPYD_SPARSE);
	expect_adds_up(0, 0);
	copy_file(KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED);
	expect_adds_up(0, 0);
	scratch_close(&source.scratch);
	scratch_close(&dest.scratch);
}
