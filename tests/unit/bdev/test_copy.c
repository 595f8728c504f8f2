/* SPDX-License-Identifier: MIT */
/*
 * Copies within the kernel, dmcore__bio_submit_copy(): which are refused, how the driver "file"
 * carries them out, and that neither device can be closed meanwhile.
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"
#include "../../support/scratch.h"
#include "../../support/syscalls.h"
#include "bdev/bio.h"

#define FILE_BYTES (64u << 10)
#define FILE_SECTORS (FILE_BYTES / DMCORE_SECTOR_BYTES)

static struct rig rig;
static struct scratch from_file;
static struct scratch file;
static struct dmcore_bdev *from;
static struct dmcore_bio *bio;
static bool ended;
static struct syscalls syscalls;

/* What the files hold before and after. */
static unsigned char source[FILE_BYTES];
static unsigned char expected[FILE_BYTES];
static unsigned char found[FILE_BYTES];

static struct dmcore_bdev *open_bdev(const char *spec, unsigned int flags)
{
	struct dmcore_bdev *bdev;

	cr_assert_eq(dmcore_bdev_open(rig.core, spec, flags, &bdev), 0, "%s",
		     dmcore_error_message());
	return bdev;
}

static void set_up(void)
{
	rig_create(&rig);
	scratch_create(&from_file, NULL, FILE_BYTES);
	scratch_create(&file, NULL, FILE_BYTES);
	rig_fill(&rig, source, sizeof(source));
	rig_fill(&rig, expected, sizeof(expected));
	cr_assert_eq(pwrite(from_file.fd, source, FILE_BYTES, 0), FILE_BYTES);
	cr_assert_eq(pwrite(file.fd, expected, FILE_BYTES, 0), FILE_BYTES);
	from = open_bdev(from_file.path, DMCORE_OPEN_READ_ONLY);
	rig_open(&rig, file.path, 0);
	syscalls_take_over(&syscalls, &rig);
	bio = dmcore_bio_get(rig.queue);
	cr_assert_not_null(bio);
}

static void tear_down(void)
{
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_bdev_close(from), 0);
	rig_destroy(&rig);
	scratch_close(&file);
	scratch_close(&from_file);
}

TestSuite(copy, .init = set_up, .fini = tear_down);

/* Starts a copy to rig.bdev. */
static int start(uint64_t sector, struct dmcore_bdev *bdev, uint64_t from_sector, uint64_t count)
{
	bio->bdev = rig.bdev;
	bio->sector = sector;
	bio->count = count;
	bio->done = rig_done;
	bio->context = &ended;
	ended = false;
	return dmcore__bio_submit_copy(bio, bdev, from_sector);
}

static int copy(uint64_t sector, uint64_t from_sector, uint64_t count)
{
	cr_assert_eq(start(sector, from, from_sector, count), 0);
	return rig_wait(&rig, bio);
}

/* The destination holds what it should, the source what it held. */
static void check_files(void)
{
	cr_assert_eq(pread(file.fd, found, FILE_BYTES, 0), FILE_BYTES);
	cr_assert_arr_eq(found, expected, FILE_BYTES);
	cr_assert_eq(pread(from_file.fd, found, FILE_BYTES, 0), FILE_BYTES);
	cr_assert_arr_eq(found, source, FILE_BYTES);
}

static void expect_copied(uint64_t sector, uint64_t from_sector, uint64_t count)
{
	memcpy(expected + sector * DMCORE_SECTOR_BYTES, source + from_sector * DMCORE_SECTOR_BYTES,
	       count * DMCORE_SECTOR_BYTES);
	check_files();
}

/* The status of a copy of all, or skips the test where no copy within the kernel works. */
static void need_copies(void)
{
	int status = copy(0, 0, FILE_SECTORS);

	if (status == -EXDEV || status == -EINVAL || status == -EOPNOTSUPP || status == -ENOSYS)
		cr_skip("%s: copy_file_range(): %s", scratch_dir(), dmcore_error_name(status));
	cr_assert_eq(status, 0, "%s", dmcore_error_name(status));
	expect_copied(0, 0, FILE_SECTORS);
}

Test(copy, a_range_is_copied_and_nothing_beside_it)
{
	need_copies();
	rig_fill(&rig, expected, sizeof(expected));
	cr_assert_eq(pwrite(file.fd, expected, FILE_BYTES, 0), FILE_BYTES);
	cr_assert_eq(copy(5, 17, 33), 0);
	expect_copied(5, 17, 33);
	cr_assert_eq(copy(FILE_SECTORS - 1, 0, 1), 0);
	expect_copied(FILE_SECTORS - 1, 0, 1);
}

Test(copy, it_ends_in_a_poll_only)
{
	cr_assert_eq(start(0, from, 0, 8), 0);
	cr_assert(!ended);
	rig_wait(&rig, bio);
}

Test(copy, short_calls_are_continued)
{
	need_copies();
	for (unsigned int i = 0; i < 20; i++) {
		uint64_t count = 1 + rig_random(&rig, 40);
		uint64_t sector = rig_random(&rig, FILE_SECTORS - count);
		uint64_t from_sector = rig_random(&rig, FILE_SECTORS - count);

		syscalls.mode = SYSCALLS_RANDOM;
		cr_assert_eq(copy(sector, from_sector, count), 0, "seed %lu",
			     (unsigned long)rig.seed);
		expect_copied(sector, from_sector, count);
	}
	cr_assert_gt(syscalls.disturbed, 0);
	syscalls.mode = SYSCALLS_CRAWL;
	cr_assert_eq(copy(3, 9, 2), 0);
	expect_copied(3, 9, 2);
}

Test(copy, interruptions_for_ever_end_in_an_error)
{
	static const int errors[] = { -EINTR, -EAGAIN };

	for (size_t i = 0; i < 2; i++) {
		syscalls_fail(&syscalls, DMCORE_FILEIO_COPY, errors[i], ALWAYS);
		cr_assert_eq(copy(0, 0, 8), -EIO);
	}
	check_files();
}

Test(copy, errors_are_passed_on)
{
	static const int errors[] = { -EXDEV, -EINVAL, -EOPNOTSUPP, -ENOSYS, -ENOSPC, -ETXTBSY };

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		syscalls_fail(&syscalls, DMCORE_FILEIO_COPY, errors[i], 1);
		cr_assert_eq(copy(0, 0, 8), errors[i]);
	}
	check_files();
}

Test(copy, a_call_that_copies_nothing_is_an_error)
{
	syscalls_fail(&syscalls, DMCORE_FILEIO_COPY, 0, 1);
	cr_assert_eq(copy(0, 0, 8), -EIO);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_COPY], 1);
	check_files();
}

Test(copy, a_source_that_has_shrunk_is_an_error)
{
	cr_assert_eq(ftruncate(from_file.fd, 4096), 0);
	cr_assert_lt(copy(0, 4, 8), 0);
}

/* What the kernel refuses: the ranges overlap in one file. */
Test(copy, an_overlap_is_an_error)
{
	cr_assert_eq(start(4, rig.bdev, 0, 8), 0);
	cr_assert_lt(rig_wait(&rig, bio), 0);
	check_files();
}

Test(copy, within_one_file_it_works)
{
	need_copies();
	cr_assert_eq(start(64, rig.bdev, 0, 32), 0);
	cr_assert_eq(rig_wait(&rig, bio), 0);
	memmove(expected + 64 * DMCORE_SECTOR_BYTES, expected, 32 * DMCORE_SECTOR_BYTES);
	check_files();
}

Test(copy, what_is_no_range_of_both_devices_is_refused)
{
	static const struct {
		uint64_t sector;
		uint64_t from_sector;
		uint64_t count;
	} ranges[] = {
		{ 0, 0, 0 },
		{ 0, 0, FILE_SECTORS + 1 },
		{ 1, 0, FILE_SECTORS },
		{ 0, 1, FILE_SECTORS },
		{ FILE_SECTORS, 0, 1 },
		{ 0, FILE_SECTORS, 1 },
		{ UINT64_MAX, 0, 8 },
		{ 0, UINT64_MAX - 3, 8 },
		{ 0, 0, UINT64_MAX },
	};

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		cr_assert_eq(start(ranges[i].sector, from, ranges[i].from_sector, ranges[i].count),
			     -EOPNOTSUPP, "range %zu", i);
	cr_assert_eq(syscalls.calls[DMCORE_FILEIO_COPY], 0);
	/* Nothing is in flight, and the bio is as good as new. */
	cr_assert_eq(dmcore__slot_inflight(rig.core, from->slot), 0);
	cr_assert_eq(dmcore__slot_inflight(rig.core, rig.bdev->slot), 0);
	cr_assert_eq(rig.queue->inflight, 0);
	need_copies();
}

Test(copy, a_read_only_destination_is_refused)
{
	struct dmcore_bdev *bdev = rig.bdev;

	rig.bdev = from;
	cr_assert_eq(start(0, bdev, 0, 8), -EOPNOTSUPP);
	rig.bdev = bdev;
}

Test(copy, a_bio_in_flight_is_refused)
{
	cr_assert_eq(start(0, from, 0, 8), 0);
	cr_assert_eq(dmcore__bio_submit_copy(bio, from, 0), -EOPNOTSUPP);
	rig_wait(&rig, bio);
}

Test(copy, other_drivers_and_mapped_devices_are_refused)
{
	struct dmcore_bdev *file_bdev = rig.bdev;
	struct dmcore_device *device;
	struct dmcore_table *table;
	struct dmcore_bdev *memory = open_bdev("mem:64k", 0);
	char text[64];

	snprintf(text, sizeof(text), "0 %u linear %s 0", FILE_SECTORS, file.path);
	cr_assert_eq(dmcore_table_parse(rig.core, text, 0, &table), 0);
	cr_assert_eq(dmcore_device_create(rig.core, "d", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(start(0, memory, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(start(0, dmcore_device_bdev(device), 0, 8), -EOPNOTSUPP);
	rig.bdev = memory;
	cr_assert_eq(start(0, memory, 64, 8), -EOPNOTSUPP);
	cr_assert_eq(start(0, from, 0, 8), -EOPNOTSUPP);
	rig.bdev = dmcore_device_bdev(device);
	cr_assert_eq(start(0, from, 0, 8), -EOPNOTSUPP);
	rig.bdev = file_bdev;
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_eq(dmcore_bdev_close(memory), 0);
}

Test(copy, other_cores_are_refused)
{
	struct dmcore_bdev *bdev = rig.bdev;
	struct dmcore_bdev *strange;
	struct dmcore *other;

	cr_assert_eq(dmcore_create(NULL, &other), 0);
	cr_assert_eq(dmcore_bdev_open(other, from_file.path, 0, &strange), 0);
	cr_assert_eq(start(0, strange, 0, 8), -EOPNOTSUPP);
	rig.bdev = strange;
	cr_assert_eq(start(0, from, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(start(0, strange, 16, 8), -EOPNOTSUPP);
	rig.bdev = bdev;
	cr_assert_eq(dmcore_bdev_close(strange), 0);
	cr_assert_eq(dmcore_destroy(other), 0);
}

/* Blocks larger than a sector, as with direct I/O. */
Test(copy, a_part_of_a_block_is_refused)
{
	struct dmcore_limits limits = rig_limits(&rig);

	limits.logical_block_bytes = 4096;
	cr_assert_eq(dmcore_bdev_set_limits(rig.bdev, &limits), 0);
	cr_assert_eq(start(4, from, 0, 8), -EOPNOTSUPP);
	cr_assert_eq(start(8, from, 0, 4), -EOPNOTSUPP);
	cr_assert_eq(dmcore_bdev_set_limits(from, &limits), 0);
	cr_assert_eq(start(8, from, 4, 8), -EOPNOTSUPP);
	cr_assert_eq(start(8, from, 8, 8), 0);
	rig_wait(&rig, bio);
}

/* ---- a driver of the application's own ---- */

static struct dmcore_bio *kept;
static struct dmcore_bdev *kept_from;
static uint64_t kept_sector;

static int slow_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)args;
	(void)flags;
	dmcore_bdev_set_size(bdev, 64);
	return 0;
}

static void slow_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void slow_submit(struct dmcore_bdev *bdev, struct dmcore_bio *request)
{
	(void)bdev;
	dmcore_bio_complete(request, 0);
}

static void slow_copy(struct dmcore_bdev *bdev, struct dmcore_bio *request,
		      struct dmcore_bdev *source_bdev, uint64_t from_sector)
{
	cr_assert_eq(request->op, DMCORE_OP_WRITE);
	cr_assert_eq(request->num_vecs, 0);
	cr_assert_eq(request->bdev, bdev);
	kept = request;
	kept_from = source_bdev;
	kept_sector = from_sector;
}

static const struct dmcore_driver slow = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "slow",
	.open = slow_open,
	.close = slow_close,
	.submit = slow_submit,
	.copy = slow_copy,
};

/* Of an author who knew the fields before it. */
static const struct dmcore_driver old = {
	.struct_size = offsetof(struct dmcore_driver, copy),
	.name = "old",
	.open = slow_open,
	.close = slow_close,
	.submit = slow_submit,
	.copy = slow_copy,
};

Test(copy, it_counts_in_both_devices_until_it_has_ended)
{
	struct dmcore_bdev *bdev = rig.bdev;
	struct dmcore_bdev *to;
	struct dmcore_bdev *source_bdev;

	cr_assert_eq(dmcore_driver_register(rig.core, &slow), 0);
	to = open_bdev("slow:a", 0);
	source_bdev = open_bdev("slow:b", 0);
	rig.bdev = to;
	cr_assert_eq(start(8, source_bdev, 24, 16), 0);
	cr_assert_eq(kept, bio);
	cr_assert_eq(kept_from, source_bdev);
	cr_assert_eq(kept_sector, 24);
	cr_assert_eq(bio->sector, 8);
	cr_assert_eq(bio->count, 16);
	cr_assert_eq(dmcore_bdev_close(source_bdev), -EBUSY);
	cr_assert_eq(dmcore_bdev_close(to), -EBUSY);
	dmcore_bio_complete(bio, -ENOSPC);
	cr_assert(!ended);
	cr_assert_eq(rig_wait(&rig, bio), -ENOSPC);
	cr_assert_eq(dmcore_bdev_close(source_bdev), 0);
	cr_assert_eq(dmcore_bdev_close(to), 0);
	rig.bdev = bdev;
}

Test(copy, a_copy_within_one_device_counts_twice_and_leaves_nothing)
{
	struct dmcore_bdev *bdev = rig.bdev;

	cr_assert_eq(dmcore_driver_register(rig.core, &slow), 0);
	rig.bdev = open_bdev("slow:a", 0);
	cr_assert_eq(start(0, rig.bdev, 32, 8), 0);
	cr_assert_eq(dmcore__slot_inflight(rig.core, rig.bdev->slot), 2);
	dmcore_bio_complete_remote(bio, 0);
	cr_assert_eq(rig_wait(&rig, bio), 0);
	cr_assert_eq(dmcore_bdev_close(rig.bdev), 0);
	rig.bdev = bdev;
}

Test(copy, a_driver_of_an_older_author_has_none)
{
	struct dmcore_bdev *bdev = rig.bdev;

	cr_assert_eq(dmcore_driver_register(rig.core, &old), 0);
	rig.bdev = open_bdev("old:a", 0);
	cr_assert_eq(start(0, rig.bdev, 32, 8), -EOPNOTSUPP);
	cr_assert_null(kept);
	cr_assert_eq(dmcore_bdev_close(rig.bdev), 0);
	rig.bdev = bdev;
}

/* ---- queues ---- */

/* Also the first thing that a queue is used for, whatever its backend. */
static void copy_by(const struct dmcore_queue_options *options)
{
	struct dmcore_queue *queue = rig.queue;

	need_copies();
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_queue_create(rig.core, options, &rig.queue), 0);
	bio = dmcore_bio_get(rig.queue);
	for (unsigned int i = 0; i < 8; i++) {
		cr_assert_eq(copy(16 * i, 8 * i, 16), 0);
		expect_copied(16 * i, 8 * i, 16);
	}
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_queue_destroy(rig.queue), 0);
	rig.queue = queue;
	bio = dmcore_bio_get(rig.queue);
}

Test(copy, workers_copy)
{
	struct dmcore_queue_options options = {
		.struct_size = sizeof(options),
		.backend = DMCORE_BACKEND_PREAD,
		.workers = 2,
	};

	copy_by(&options);
}

Test(copy, pread_copies_inline)
{
	struct dmcore_queue_options options = {
		.struct_size = sizeof(options),
		.backend = DMCORE_BACKEND_PREAD,
	};

	copy_by(&options);
}

Test(copy, any_backend_copies)
{
	copy_by(NULL);
}
