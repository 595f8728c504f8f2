/* SPDX-License-Identifier: MIT */
/* Copies that may share blocks: within the kernel between files, else as ever. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/copies.h"
#include "../../support/scratch.h"
#include "../../support/syscalls.h"

#define FILES 4
#define SECTORS 8192
#define BYTES (SECTORS * DMCORE_SECTOR_BYTES)

static struct copy copy;
static struct rng rng;
static struct scratch files[FILES];
static struct dmcore_bdev *bdevs[FILES];
static unsigned char *model[FILES]; /* what each file should hold */
static unsigned char *found;
static struct syscalls syscalls;

static void open_files(void)
{
	copies_open(2, SECTORS, "");
	copies_client(64, 64, 0);
	rng_start(&rng, 0);
	found = malloc(BYTES);
	cr_assert_not_null(found);
	for (unsigned int i = 0; i < FILES; i++) {
		scratch_create(&files[i], NULL, BYTES);
		bdevs[i] = stage_bdev(&copies.stage, files[i].path, 0);
		model[i] = malloc(BYTES);
		cr_assert_not_null(model[i]);
		pattern_fill(model[i], 0, SECTORS, 100 + i);
		cr_assert_eq(pwrite(files[i].fd, model[i], BYTES, 0), BYTES);
	}
	syscalls_attach(&syscalls, copies.stage.core);
}

static void close_files(void)
{
	copies_close();
	for (unsigned int i = 0; i < FILES; i++) {
		scratch_close(&files[i]);
		free(model[i]);
	}
	free(found);
}

TestSuite(share, .init = open_files, .fini = close_files);

/* Whether the kernel copies between files here. */
static bool kernel_copies(void)
{
	struct scratch from;
	struct scratch to;
	loff_t in = 0;
	loff_t out = 0;
	ssize_t ret;

	scratch_create(&from, NULL, 65536);
	scratch_create(&to, NULL, 65536);
	ret = copy_file_range(from.fd, &in, to.fd, &out, 65536, 0);
	scratch_close(&from);
	scratch_close(&to);
	return ret == 65536;
}

static void expect_files(const char *what)
{
	for (unsigned int i = 0; i < FILES; i++) {
		cr_assert_eq(pread(files[i].fd, found, BYTES, 0), BYTES);
		for (uint64_t s = 0; s < SECTORS; s++)
			cr_assert_eq(memcmp(found + s * 512, model[i] + s * 512, 512), 0,
				     "%s: file %u, sector %llu", what, i, (unsigned long long)s);
	}
}

/* From file 0 to those behind it. */
static void set_copy(uint64_t sector, uint64_t count, unsigned int num_dests, unsigned int flags)
{
	copies_set(&copy, 0, sector, count, 0, KCOPYD_SHARE | flags);
	copy.job.from.bdev = bdevs[0];
	copy.job.num_dests = num_dests;
	for (unsigned int i = 0; i < num_dests; i++)
		copy.job.dests[i] = (struct dmio_region){ bdevs[1 + i], sector, 0 };
}

static void note_in_model(void)
{
	const struct dmio_region *from = &copy.job.from;

	for (unsigned int i = 0; i < copy.job.num_dests; i++) {
		for (unsigned int f = 0; f < FILES; f++) {
			if (bdevs[f] == copy.job.dests[i].bdev)
				memmove(model[f] + copy.job.dests[i].sector * 512,
					model[0] + from->sector * 512, from->count * 512);
		}
	}
}

Test(share, between_files_is_done_by_the_kernel)
{
	struct kcopyd_progress progress;

	set_copy(80, 4000, 3, 0);
	copy.job.dests[1].sector = 8;
	copies_run(&copy);
	note_in_model();
	expect_files("shared");
	progress = copies_progress(&copy);
	cr_assert_eq(progress.position_sectors, 4000);
	cr_assert_eq(progress.shared_sectors + progress.copied_sectors, 4000);
	cr_assert_eq(progress.failed_sectors, 0);
	if (!kernel_copies())
		cr_skip("the kernel doesn't copy between files here");
	cr_assert_eq(progress.shared_sectors, 4000);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_READ], 0);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_WRITE], 0);
}

/* Blocks of file systems begin elsewhere. */
Test(share, of_any_range_is_exact)
{
	for (unsigned int round = 0; round < 30; round++) {
		uint64_t count = rng_below(&rng, 3000);

		set_copy(rng_below(&rng, SECTORS - 3000), count, 1 + (unsigned int)(round % 3),
			 round & 1 ? KCOPYD_FLUSH | KCOPYD_VERIFY : 0);
		for (unsigned int i = 0; i < copy.job.num_dests; i++)
			copy.job.dests[i].sector = rng_below(&rng, SECTORS - 3000);
		copies_run(&copy);
		note_in_model();
		cr_assert_eq(copies_progress(&copy).shared_sectors +
				     copies_progress(&copy).copied_sectors,
			     count);
	}
	expect_files("any range");
}

Test(share, is_not_done_unless_asked_for)
{
	set_copy(0, 1000, 2, 0);
	copy.job.flags = 0;
	copies_run(&copy);
	note_in_model();
	expect_files("copied");
	cr_assert_eq(copies_progress(&copy).shared_sectors, 0);
	cr_assert_eq(copies_progress(&copy).copied_sectors, 1000);
}

Test(share, within_one_file)
{
	static const uint64_t places[] = { 0, 999, 1001, 2000, 4000, 6999 };

	for (unsigned int i = 0; i < 6; i++) {
		set_copy(2000, 1001, 1, 0);
		copy.job.dests[0] = (struct dmio_region){ bdevs[0], places[i], 0 };
		copies_run(&copy);
		note_in_model();
		expect_files("one file");
	}
}

/* Overlaps are moved, not shared. */
Test(share, over_itself_is_moved)
{
	static const int64_t shifts[] = { -1000, -1, 1, 8, 512 };

	for (unsigned int i = 0; i < 5; i++) {
		set_copy(2000, 1500, 1, 0);
		copy.job.dests[0] =
			(struct dmio_region){ bdevs[0], (uint64_t)(2000 + shifts[i]), 0 };
		copies_run(&copy);
		note_in_model();
		expect_files("over itself");
	}
}

/* Any destination that is no file has all of it copied as ever, with the same result. */
Test(share, with_another_kind_of_destination_is_copied)
{
	set_copy(100, 2000, 2, 0);
	copy.job.num_dests = 3;
	copy.job.dests[2] = copies_region(1, 100, 0);
	copies_run(&copy);
	note_in_model();
	expect_files("another kind");
	cr_assert_eq(pattern_differs(copies_bytes(1, 100), 100, 2000, 100), -1);
	cr_assert_eq(copies_progress(&copy).copied_sectors, 2000);
	cr_assert_eq(copies_progress(&copy).shared_sectors, 0);
}

Test(share, from_another_kind_of_source_is_copied)
{
	set_copy(100, 2000, 1, 0);
	copy.job.from.bdev = copies.bdev[0];
	copies_run(&copy);
	cr_assert_eq(copies_progress(&copy).copied_sectors, 2000);
	cr_assert_eq(copies_progress(&copy).shared_sectors, 0);
	cr_assert_eq(pread(files[1].fd, found, 2000 * 512, 100 * 512), 2000 * 512);
	cr_assert_eq(pattern_differs(found, 100, 2000, 1), -1);
}

Test(share, between_memory_disks_is_copied)
{
	struct dmcore_bdev *mem[2] = { stage_bdev(&copies.stage, "mem:4M,name=a", 0),
				       stage_bdev(&copies.stage, "mem:4M,name=b", 0) };

	cr_assert_eq(dmcore_pwrite(mem[0], model[0], BYTES, 0), 0);
	set_copy(100, 2000, 1, 0);
	copy.job.from.bdev = mem[0];
	copy.job.dests[0].bdev = mem[1];
	copies_run(&copy);
	cr_assert_eq(dmcore_pread(mem[1], found, 2000 * 512, 100 * 512), 0);
	cr_assert_arr_eq(found, model[0] + 100 * 512, 2000 * 512);
}

Test(share, through_mapped_devices_has_the_same_result)
{
	char table[128];

	set_copy(100, 2000, 2, 0);
	snprintf(table, sizeof(table), "0 %u linear %s 0", SECTORS, files[0].path);
	copy.job.from.bdev = stage_map(&copies.stage, "from", table);
	snprintf(table, sizeof(table), "0 1000 linear %s 0\n1000 2000 linear %s 1000",
		 files[1].path, files[1].path);
	copy.job.dests[0].bdev = stage_map(&copies.stage, "to", table);
	copies_run(&copy);
	copy.job.dests[0].bdev = bdevs[1];
	note_in_model();
	expect_files("mapped");
}

Test(share, between_openings_of_different_kinds_is_exact)
{
	struct dmcore_bdev *again;

	again = stage_bdev(&copies.stage, files[0].path, DMCORE_OPEN_READ_ONLY);
	set_copy(0, SECTORS, 2, KCOPYD_FLUSH);
	copy.job.from.bdev = again;
	copies_run(&copy);
	note_in_model();
	expect_files("read-only");
}

/* With zeroes left out, too. */
Test(share, with_sparse_is_exact)
{
	memset(model[0] + 1000 * 512, 0, 3000 * 512);
	cr_assert_eq(pwrite(files[0].fd, model[0], BYTES, 0), BYTES);
	set_copy(0, SECTORS, 2, KCOPYD_SPARSE | KCOPYD_VERIFY);
	copies_run(&copy);
	note_in_model();
	expect_files("sparse");
}

Test(share, errors_are_told_as_ever)
{
	struct dmcore_bdev *read_only;

	/* A destination that may not be written. */
	read_only = stage_bdev(&copies.stage, files[1].path, DMCORE_OPEN_READ_ONLY);
	set_copy(0, 1000, 2, KCOPYD_IGNORE_ERROR);
	copy.job.dests[0].bdev = read_only;
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.read_err, 0);
	cr_assert_eq(copy.job.write_err, 1);
	/* A range behind the end of the source, or of a destination. */
	set_copy(SECTORS - 10, 20, 1, 0);
	copy.job.dests[0].sector = 0;
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_neq(copy.job.read_err, 0);
	set_copy(0, 20, 3, 0);
	copy.job.dests[1].sector = SECTORS - 10;
	copies_start(&copy);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -EIO);
	cr_assert_eq(copy.job.read_err, 0);
	cr_assert_eq(copy.job.write_err, 2);
}

/* Each of the calls is up to 16 MiB, so a large job can be stopped between them. */
Test(share, large_copy_can_be_cancelled_and_resumed)
{
	struct scratch large[2];
	const uint64_t count = 96 << 11;
	uint64_t position;

	for (unsigned int i = 0; i < 2; i++)
		scratch_create(&large[i], NULL, count * 512);
	for (uint64_t at = 0; at < count; at += SECTORS) {
		pattern_fill(found, at, SECTORS, 5);
		cr_assert_eq(pwrite(large[0].fd, found, BYTES, (off_t)(at * 512)), BYTES);
	}
	set_copy(0, count, 1, 0);
	copy.job.from.bdev = stage_bdev(&copies.stage, large[0].path, 0);
	copy.job.dests[0].bdev = stage_bdev(&copies.stage, large[1].path, 0);
	copies_start(&copy);
	cr_assert_geq(dmcore_queue_poll(copies.stage.queue, 1, 1, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(copy.end.calls, 0, "all of it in one poll");
	cr_assert_eq(kcopyd_cancel(&copy.job), 0);
	copies_wait(&copy.end);
	cr_assert_eq(copy.job.status, -ECANCELED);
	position = copies_progress(&copy).position_sectors;
	cr_assert_lt(position, count);
	copy.job.from.sector = position;
	copy.job.from.count = count - position;
	copy.job.dests[0].sector = position;
	copies_run(&copy);
	for (uint64_t at = 0; at < count; at += SECTORS) {
		cr_assert_eq(pread(large[1].fd, found, BYTES, (off_t)(at * 512)), BYTES);
		cr_assert_eq(pattern_differs(found, at, SECTORS, 5), -1);
	}
	for (unsigned int i = 0; i < 2; i++)
		scratch_close(&large[i]);
}
