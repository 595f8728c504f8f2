/* SPDX-License-Identifier: MIT */
/*
 * What the library does for a leaf device before its driver: the order of flushes and writes,
 * durable writes, zeroes, discards and maxima by whatever the device can do.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define SECTORS 16384
/* Bits of DMCORE_CAP_*, as the driver's specification takes them. */
#define CACHE "1"
#define CACHE_FUA "3"
#define CACHE_NO_ZEROES "5" /* volatile cache, discard */
#define FAILURE (-ENOSPC)

static struct stage stage;
static unsigned char buffer[256 * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(leaf, .init = set_up, .fini = tear_down);

static struct fault_disk *disk_with(const char *args)
{
	char all[64];

	snprintf(all, sizeof(all), ",%s", args);
	return stage_disk(&stage, stage.num_bdevs, SECTORS, all);
}

static struct dmcore_bdev *bdev_of(unsigned int nr)
{
	return stage.bdevs[nr];
}

static void expect_log(struct fault_disk *disk, const char *expected)
{
	static const char letters[DMCORE_OP_COUNT] = { 'R', 'W', 'F', 'D', 'Z' };
	char found[1024] = "";

	for (unsigned int i = 0; i < fault_num_logged(disk); i++) {
		struct fault_entry entry = fault_logged(disk, i);
		size_t used = strlen(found);

		snprintf(found + used, sizeof(found) - used, "%s%c%s", i ? " " : "",
			 letters[entry.op], entry.flags & DMCORE_BIO_FUA ? "!" : "");
		used = strlen(found);
		if (entry.op != DMCORE_OP_FLUSH)
			snprintf(found + used, sizeof(found) - used, "%llu+%llu",
				 (unsigned long long)entry.sector,
				 (unsigned long long)entry.count);
	}
	cr_assert_str_eq(found, expected, "'%s' instead of '%s'", found, expected);
	fault_clear_log(disk);
}

/* That each request of the log had ended before the next one began. */
static void expect_one_after_another(struct fault_disk *disk)
{
	for (unsigned int i = 1; i < fault_num_logged(disk); i++)
		cr_assert_lt(fault_logged(disk, i - 1).ended, fault_logged(disk, i).begun);
}

static int write_with(unsigned int nr, unsigned int flags, uint64_t sector, uint64_t count)
{
	return stage_run(&stage, bdev_of(nr), DMCORE_OP_WRITE, flags, sector, count, buffer);
}

static void fail(struct fault_disk *disk, unsigned int ops)
{
	fault_clear_rules(disk);
	fault_add_rule(disk, &(struct fault_rule){ .status = FAILURE, .ops = ops });
}

/* ---- PREFLUSH ------------------------------------------------------------------------------- */

Test(leaf, a_flush_ends_before_its_write_begins)
{
	struct fault_disk *disk = disk_with("caps=" CACHE_FUA);

	cr_assert_eq(write_with(0, DMCORE_BIO_PREFLUSH, 8, 4), 0);
	expect_one_after_another(disk);
	expect_log(disk, "F W8+4");
	cr_assert_eq(write_with(0, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 8, 4), 0);
	expect_one_after_another(disk);
	expect_log(disk, "F W!8+4");
}

Test(leaf, a_write_waits_for_its_flush)
{
	struct fault_disk *disk = disk_with("caps=" CACHE_FUA);
	struct tally tally = { 0 };
	struct dmcore_bio *bio;

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .ops = FAULT_FLUSH });
	bio = stage_bio(&stage, bdev_of(0), DMCORE_OP_WRITE, 8, 4, buffer, &tally);
	bio->flags = DMCORE_BIO_PREFLUSH;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_settle(&stage);
	cr_assert_eq(fault_num_logged(disk), 1);
	fault_release_all(disk);
	cr_assert_eq(fault_num_logged(disk), 1, "not in the middle of the completion");
	stage_wait(&stage, &tally, 1);
	expect_log(disk, "F W8+4");
}

Test(leaf, a_failed_flush_keeps_the_write_from_being_begun)
{
	struct fault_disk *disk = disk_with("caps=" CACHE_FUA);

	fail(disk, FAULT_FLUSH);
	cr_assert_eq(write_with(0, DMCORE_BIO_PREFLUSH, 8, 4), FAILURE);
	expect_log(disk, "F");
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_PREFLUSH, 0,
			       8, NULL), FAILURE);
	expect_log(disk, "F");
	cr_assert_eq(write_with(0, 0, 8, 4), 0);
}

Test(leaf, a_preflush_reaches_every_device_before_any_data)
{
	struct fault_disk *disks[3];
	char table[512];
	struct dmcore_bdev *bdev;

	for (unsigned int i = 0; i < 3; i++)
		disks[i] = disk_with("caps=" CACHE_FUA);
	snprintf(table, sizeof(table), "0 100 linear %s 0\n100 100 linear %s 0\n",
		 dmcore_bdev_name(bdev_of(0)), dmcore_bdev_name(bdev_of(1)));
	stage_map(&stage, "low", table);
	snprintf(table, sizeof(table), "0 200 linear low 0\n200 100 linear %s 0\n",
		 dmcore_bdev_name(bdev_of(2)));
	bdev = stage_map(&stage, "high", table);

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 98, 104,
			       buffer), 0);
	for (unsigned int i = 0; i < 3; i++) {
		for (unsigned int j = 0; j < 3; j++)
			cr_assert_lt(fault_logged(disks[i], 0).ended,
				     fault_logged(disks[j], 1).begun);
	}
	expect_log(disks[0], "F W98+2");
	expect_log(disks[1], "F W0+100");
	expect_log(disks[2], "F W0+2");

	/* One that fails stops all of the write. */
	fail(disks[1], FAULT_FLUSH);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 98, 104,
			       buffer), FAILURE);
	for (unsigned int i = 0; i < 3; i++)
		expect_log(disks[i], "F");
}

/* ---- FUA ------------------------------------------------------------------------------------ */

Test(leaf, a_durable_write_is_the_device_s_own_if_it_can)
{
	struct fault_disk *disk = disk_with("caps=" CACHE_FUA);

	cr_assert_eq(write_with(0, DMCORE_BIO_FUA, 8, 4), 0);
	expect_log(disk, "W!8+4");
}

Test(leaf, a_durable_write_is_followed_by_a_flush_if_it_can_not)
{
	struct fault_disk *disk = disk_with("caps=" CACHE);

	cr_assert_eq(write_with(0, DMCORE_BIO_FUA, 8, 4), 0);
	expect_one_after_another(disk);
	expect_log(disk, "W8+4 F");
	cr_assert_eq(write_with(0, DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH, 8, 4), 0);
	expect_one_after_another(disk);
	expect_log(disk, "F W8+4 F");
}

Test(leaf, a_failed_write_needs_no_flush_and_a_failed_flush_fails_it)
{
	struct fault_disk *disk = disk_with("caps=" CACHE);

	fail(disk, FAULT_WRITE);
	cr_assert_eq(write_with(0, DMCORE_BIO_FUA, 8, 4), FAILURE);
	expect_log(disk, "W8+4");
	fail(disk, FAULT_FLUSH);
	cr_assert_eq(write_with(0, DMCORE_BIO_FUA, 8, 4), FAILURE);
	expect_log(disk, "W8+4 F");
}

/* The write had ended when that flush failed: no later one covers it any more. */
Test(leaf, a_durable_write_fails_with_another_flush_that_may_have_lost_it)
{
	struct fault_disk *disk = disk_with("caps=" CACHE);
	struct tally writes = { 0 };
	struct tally flushes = { 0 };
	struct dmcore_bio *bio =
		stage_bio(&stage, bdev_of(0), DMCORE_OP_WRITE, 8, 4, buffer, &writes);

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .times = 2 });
	bio->flags = DMCORE_BIO_FUA;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_submit(&stage, bdev_of(0), DMCORE_OP_FLUSH, 0, 0, NULL, &flushes);
	stage_settle(&stage);
	cr_assert_eq(fault_num_held(disk), 2);
	fault_release(disk, 0, 0);
	fault_release(disk, 0, FAILURE);
	stage_wait(&stage, &writes, 1);
	stage_wait(&stage, &flushes, 1);
	cr_assert_eq(flushes.status, FAILURE);
	cr_assert_eq(writes.status, -EIO);
	expect_log(disk, "W8+4 F F");
	/* What is over is over. */
	cr_assert_eq(write_with(0, DMCORE_BIO_FUA, 8, 4), 0);
}

Test(leaf, a_device_without_a_cache_is_not_flushed)
{
	struct fault_disk *disk = disk_with("caps=0");

	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(write_with(0, DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH, 8, 4), 0);
	expect_log(disk, "W8+4");
}

Test(leaf, every_piece_of_a_durable_write_is_durable)
{
	struct fault_disk *disks[2] = { disk_with("caps=" CACHE_FUA), disk_with("caps=" CACHE) };
	struct dmcore_bdev *bdev;
	char table[256];

	snprintf(table, sizeof(table), "0 64 striped 2 8 %s 0 %s 0\n",
		 dmcore_bdev_name(bdev_of(0)), dmcore_bdev_name(bdev_of(1)));
	bdev = stage_map(&stage, "m", table);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_FUA, 4, 28, buffer), 0);
	expect_log(disks[0], "W!4+4 W!8+8");
	/* Each piece here is written and flushed by itself. */
	cr_assert_eq(fault_count(disks[1], FAULT_WRITE), 2);
	cr_assert_eq(fault_count(disks[1], FAULT_FLUSH), 2);
	for (unsigned int i = 0; i < 4; i++) {
		struct fault_entry entry = fault_logged(disks[1], i);
		struct fault_entry last = fault_logged(disks[1], 3);

		cr_assert_eq(last.op, DMCORE_OP_FLUSH);
		if (entry.op == DMCORE_OP_WRITE)
			cr_assert(entry.flags == 0 && entry.ended < last.begun);
	}
}

/* ---- WRITE_ZEROES --------------------------------------------------------------------------- */

/* Sizes around a page, a vector and several of them. */
Test(leaf, zeroes_are_written_where_the_device_has_none)
{
	static const uint64_t sizes[] = { 1, 2, 7, 8, 9, 63, 2047, 2048, 2049, 4096, 5000, 9999 };
	struct fault_disk *disk = disk_with("caps=" CACHE_NO_ZEROES);
	unsigned char *data = fault_data(disk);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t first = 5 + i;
		uint64_t end = first + sizes[i];

		memset(data, 0xaa, SECTORS * DMCORE_SECTOR_BYTES);
		cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, 0, first,
				       sizes[i], NULL), 0);
		for (uint64_t byte = 0; byte < SECTORS * DMCORE_SECTOR_BYTES; byte++) {
			bool inside = byte / 512 >= first && byte / 512 < end;

			if (data[byte] != (inside ? 0 : 0xaa))
				cr_assert_fail("size %llu: byte %llu is %02x",
					       (unsigned long long)sizes[i],
					       (unsigned long long)byte, data[byte]);
		}
	}
	cr_assert_eq(fault_count(disk, FAULT_WRITE_ZEROES), 0);
}

Test(leaf, durable_zeroes_end_with_one_flush)
{
	struct fault_disk *disk = disk_with("caps=" CACHE);

	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, 0,
			       5000, NULL), 0);
	expect_log(disk, "W0+2048 W2048+2048 W4096+904 F");
	fail(disk, FAULT_WRITE);
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, 0,
			       5000, NULL), FAILURE);
	cr_assert_eq(fault_count(disk, FAULT_FLUSH), 0);
}

Test(leaf, zeroes_are_the_device_s_own_up_to_its_maximum)
{
	struct fault_disk *disk = disk_with("caps=31,max_zeroes=100,max_discard=64");

	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, 0, 7, 100, NULL), 0);
	expect_log(disk, "Z7+100");
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, 7, 301,
			       NULL), 0);
	expect_log(disk, "Z!7+100 Z!107+100 Z!207+100 Z!307+1");
	fault_add_rule(disk, &(struct fault_rule){ .status = FAILURE, .skip = 1, .times = 1 });
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_WRITE_ZEROES, 0, 0, 300, NULL),
		     FAILURE);
	expect_log(disk, "Z0+100 Z100+100 Z200+100");
}

/* ---- DISCARD -------------------------------------------------------------------------------- */

Test(leaf, discards_are_refused_where_there_are_none)
{
	struct fault_disk *disk = disk_with("caps=" CACHE);

	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_DISCARD, 0, 0, 8, NULL), -EOPNOTSUPP);
	expect_log(disk, "");
}

Test(leaf, discards_keep_to_the_maximum)
{
	struct fault_disk *disk = disk_with("caps=31,max_zeroes=100,max_discard=64");

	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_DISCARD, 0, 10, 64, NULL), 0);
	expect_log(disk, "D10+64");
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_DISCARD, 0, 10, 130, NULL), 0);
	expect_log(disk, "D10+64 D74+64 D138+2");
}

Test(leaf, reads_and_writes_keep_to_the_maximum)
{
	struct fault_disk *disk = disk_with("max_io=10");

	cr_assert_eq(write_with(0, 0, 3, 10), 0);
	expect_log(disk, "W3+10");
	pattern_fill(buffer, 3, 34, 2);
	cr_assert_eq(write_with(0, DMCORE_BIO_FUA, 3, 34), 0);
	expect_log(disk, "W!3+10 W!13+10 W!23+10 W!33+4");
	cr_assert_eq(pattern_differs(fault_data(disk) + 3 * 512, 3, 34, 2), -1);
	memset(buffer, 0, sizeof(buffer));
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_READ, 0, 3, 34, buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 3, 34, 2), -1);
}

Test(leaf, reads_and_writes_do_not_cross_a_chunk)
{
	struct fault_disk *disk = disk_with("chunk=12,max_io=10");

	cr_assert_eq(write_with(0, 0, 14, 10), 0);
	expect_log(disk, "W14+10");
	cr_assert_eq(write_with(0, 0, 22, 4), 0);
	expect_log(disk, "W22+2 W24+2");
	pattern_fill(buffer, 3, 34, 3);
	cr_assert_eq(write_with(0, 0, 3, 34), 0);
	expect_log(disk, "W3+9 W12+10 W22+2 W24+10 W34+2 W36+1");
	cr_assert_eq(pattern_differs(fault_data(disk) + 3 * 512, 3, 34, 3), -1);
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_READ, 0, 11, 2, buffer), 0);
	expect_log(disk, "R11+1 R12+1");
	/* What has no memory isn't cut. */
	cr_assert_eq(stage_run(&stage, bdev_of(0), DMCORE_OP_DISCARD, 0, 3, 34, NULL), 0);
	expect_log(disk, "D3+34");
}

/* The example of the kernel's documentation: 3 stripes, chunks of 8, sectors 12 to 27. */
Test(leaf, discard_across_stripes_covers_each_stripe_s_part)
{
	struct fault_disk *disks[3];
	struct dmcore_bdev *bdev;
	char table[256];

	for (unsigned int i = 0; i < 3; i++)
		disks[i] = disk_with("caps=31");
	snprintf(table, sizeof(table), "0 96 striped 3 8 %s 0 %s 0 %s 0\n",
		 dmcore_bdev_name(bdev_of(0)), dmcore_bdev_name(bdev_of(1)),
		 dmcore_bdev_name(bdev_of(2)));
	bdev = stage_map(&stage, "m", table);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 12, 16, NULL), 0);
	expect_log(disks[0], "D8+4");
	expect_log(disks[1], "D4+4");
	expect_log(disks[2], "D0+8");
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE_ZEROES, 0, 1, 2, NULL), 0);
	expect_log(disks[0], "Z1+2");
	expect_log(disks[1], "");
	expect_log(disks[2], "");
}

/* ---- flushes -------------------------------------------------------------------------------- */

Test(leaf, a_flush_reaches_each_device_once_and_fails_with_any)
{
	struct fault_disk *disks[2] = { disk_with("caps=" CACHE), disk_with("caps=" CACHE) };
	struct dmcore_bdev *bdev;
	char table[512] = "";

	for (unsigned int i = 0; i < 6; i++) {
		size_t used = strlen(table);

		snprintf(table + used, sizeof(table) - used, "%u 8 linear %s %u\n", i * 8,
			 dmcore_bdev_name(bdev_of(i % 2)), i * 8);
	}
	snprintf(table + strlen(table), sizeof(table) - strlen(table), "48 8 error\n56 8 zero\n");
	bdev = stage_map(&stage, "m", table);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	expect_log(disks[0], "F");
	expect_log(disks[1], "F");
	for (unsigned int i = 0; i < 2; i++) {
		fail(disks[i], FAULT_FLUSH);
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), FAILURE);
		fault_clear_rules(disks[i]);
		expect_log(disks[0], "F");
		expect_log(disks[1], "F");
	}
}

Test(leaf, a_flush_of_nothing_succeeds)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", "0 8 error\n8 8 zero\n");

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 8, 8, buffer),
		     0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 0, 8, buffer),
		     -EIO);
}

/* ---- closing -------------------------------------------------------------------------------- */

Test(leaf, a_device_with_requests_is_not_closed)
{
	struct fault_disk *disk = disk_with("caps=31");
	struct tally tally = { 0 };

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, bdev_of(0), DMCORE_OP_READ, 0, 8, buffer, &tally);
	stage_submit(&stage, bdev_of(0), DMCORE_OP_FLUSH, 0, 0, NULL, &tally);
	cr_assert_eq(dmcore_bdev_close(bdev_of(0)), -EBUSY);
	cr_assert_not_null(strstr(dmcore_error_message(), "2 requests are in flight"), "%s",
			   dmcore_error_message());
	fault_release_all(disk);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 0);
	cr_assert_eq(dmcore_bdev_close(bdev_of(0)), 0);
	stage.num_bdevs = 0;
}
