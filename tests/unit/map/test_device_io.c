/* SPDX-License-Identifier: MIT */
/* What requests to a mapped device come to: errors, splits, flushes (map/submit.c). */
#include <errno.h>
#include <stdio.h>

#include <criterion/criterion.h>

#include "support/fixture.h"

#define SECTOR DMCORE_SECTOR_BYTES

TestSuite(device_io, .init = fixture_open, .fini = fixture_close);

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	static unsigned char buffer[64 * SECTOR];

	return fixture_run(&(struct fixture_io){
		.bdev = bdev, .op = op, .sector = sector, .count = count, .buffer = buffer });
}

Test(device_io, without_a_table_fails)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, "a", NULL, 0, &device), 0);
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 0, 1), -EIO);
}

Test(device_io, behind_the_end_fails)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 zero");

	cr_assert_eq(run(bdev, DMCORE_OP_READ, 7, 1), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 8, 1), -EIO);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 7, 2), -EIO);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, DMCORE_DEVICE_SECTORS_MAX, 1), -EIO);
}

/* D-014 */
Test(device_io, on_a_read_only_device_may_only_read)
{
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, "a", NULL, DMCORE_OPEN_READ_ONLY, &device),
		     0);
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 8 zero")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 0, 1), 0);
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 1), -EROFS);
}

Test(device_io, across_targets_is_split)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 linear fault:64,id=a 8\n"
						       "8 8 linear fault:64,id=b 40\n");
	struct fault_disk *a = fixture_disk("fault:64,id=a");
	struct fault_disk *b = fixture_disk("fault:64,id=b");

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 6, 4), 0);
	cr_assert_eq(fault_num_logged(a), 1);
	cr_assert_eq(fault_logged(a, 0).sector, 14);
	cr_assert_eq(fault_logged(a, 0).count, 2);
	cr_assert_eq(fault_num_logged(b), 1);
	cr_assert_eq(fault_logged(b, 0).sector, 40);
	cr_assert_eq(fault_logged(b, 0).count, 2);
}

Test(device_io, fails_if_any_piece_does)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 zero\n8 1 error\n9 8 zero");

	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 9, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 17), -EIO);
}

/* The good part first or last, whole or in pieces, waited for or not. */
Test(device_io, fails_across_a_good_and_a_bad_target_in_both_orders)
{
	static const struct {
		const char *text;
		uint64_t good; /* four sectors from here */
	} tables[] = {
		{ "0 8 linear fault:64,id=a 0\n8 8 error", 0 },
		{ "0 8 error\n8 8 linear fault:64,id=a 0", 8 },
		{ "0 8 linear fault:64,id=b,max_io=3 0\n8 8 error", 0 },
		{ "0 8 error\n8 8 linear fault:64,id=b,max_io=3 0", 8 },
		{ "0 16 striped 2 4 fault:64,id=a 0 bad 0", 0 },
		{ "0 16 striped 2 4 bad 0 fault:64,id=a 0", 4 },
	};
	static unsigned char buffer[16 * SECTOR];

	fixture_device("bad", "0 64 error");
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		struct dmcore_bdev *bdev = fixture_mapped("a", tables[i].text);
		uint64_t good = tables[i].good;

		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 16), -EIO, "%s", tables[i].text);
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 16), -EIO, "%s", tables[i].text);
		cr_assert_eq(run(bdev, DMCORE_OP_READ, 3, 11), -EIO, "%s", tables[i].text);
		cr_assert_eq(run(bdev, DMCORE_OP_WRITE, good, 4), 0, "%s", tables[i].text);
		cr_assert_eq(dmcore_pread(bdev, buffer, sizeof(buffer), 0), -EIO);
		cr_assert_eq(dmcore_pwrite(bdev, buffer, sizeof(buffer), 0), -EIO);
		cr_assert_eq(dmcore_pread(bdev, buffer, 4 * SECTOR, good * SECTOR), 0);
		cr_assert_eq(dmcore_device_remove(dmcore_device_find(fixture.core, "a")), 0);
	}
}

/* D-011 */
Test(device_io, flush_reaches_each_device_once)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 linear fault:64,id=a 0\n"
						       "8 8 linear fault:64,id=b 0\n"
						       "16 8 linear fault:64,id=a 8\n"
						       "24 8 error\n");

	cr_assert_eq(run(bdev, DMCORE_OP_FLUSH, 0, 0), 0);
	cr_assert_eq(fault_count(fixture_disk("fault:64,id=a"), FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(fixture_disk("fault:64,id=b"), FAULT_FLUSH), 1);
}

Test(device_io, flush_precedes_a_preflush_write_which_keeps_fua)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 linear fault:64,id=a 0\n"
						       "8 8 linear fault:64,id=b 0\n");
	struct fault_disk *a = fixture_disk("fault:64,id=a");
	struct fault_disk *b = fixture_disk("fault:64,id=b");
	static unsigned char buffer[SECTOR];

	cr_assert_eq(
		fixture_run(&(struct fixture_io){ .bdev = bdev,
						  .op = DMCORE_OP_WRITE,
						  .count = 1,
						  .buffer = buffer,
						  .flags = DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA }),
		0);
	cr_assert_eq(fault_num_logged(a), 2);
	cr_assert_eq(fault_logged(a, 0).op, DMCORE_OP_FLUSH);
	cr_assert_eq(fault_logged(a, 1).op, DMCORE_OP_WRITE);
	cr_assert(fault_logged(a, 1).flags & DMCORE_BIO_FUA);
	cr_assert_eq(fault_count(b, FAULT_FLUSH), 1);
	cr_assert_lt(fault_logged(b, 0).ended, fault_logged(a, 1).begun);
}

/* D-012 */
Test(device_io, write_is_not_begun_when_its_preflush_fails)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 linear fault:64,id=a 0\n"
						       "8 8 linear fault:64,id=b 0\n");
	struct fault_disk *a = fixture_disk("fault:64,id=a");
	struct fault_rule rule = { .ops = FAULT_FLUSH, .status = -EIO };
	static unsigned char buffer[SECTOR];

	fault_add_rule(fixture_disk("fault:64,id=b"), &rule);
	cr_assert_eq(fixture_run(&(struct fixture_io){ .bdev = bdev,
						       .op = DMCORE_OP_WRITE,
						       .count = 1,
						       .buffer = buffer,
						       .flags = DMCORE_BIO_PREFLUSH }),
		     -EIO);
	cr_assert_eq(fault_count(a, FAULT_WRITE), 0);
}

Test(device_io, discard_where_a_target_has_none_is_not_supported)
{
	struct dmcore_bdev *bdev = fixture_mapped("a", "0 8 zero\n"
						       "8 8 linear fault:64,caps=0,id=a 0\n");

	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 0, 8), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 8, 8), -EOPNOTSUPP);
}

/* ---- which target it is ---------------------------------------------------------------------- */

#define TARGETS 500u
/* Where target i leads to: not two to the same place. */
#define PLACE_SECTORS (UINT64_C(1) << 24)

static uint64_t all_alike(unsigned int i)
{
	(void)i;
	return 8;
}

static uint64_t growing(unsigned int i)
{
	return 1 + (uint64_t)i * i;
}

static uint64_t shrinking(unsigned int i)
{
	return growing(TARGETS - 1 - i);
}

static uint64_t first_is_nearly_all(unsigned int i)
{
	return i ? 1 : PLACE_SECTORS;
}

static uint64_t last_is_nearly_all(unsigned int i)
{
	return i + 1 < TARGETS ? 1 : PLACE_SECTORS;
}

static uint64_t in_clusters(unsigned int i)
{
	return i % 50 ? 1 + i % 3 : 100000;
}

/* Where a request of a sector comes out below; a bio isn't restored on its way up. */
static uint64_t place_of(struct dmcore_bdev *bdev, uint64_t sector)
{
	static unsigned char buffer[SECTOR];
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);
	uint64_t place;

	dmcore_bio_set_buffer(bio, buffer, sizeof(buffer));
	bio->op = DMCORE_OP_WRITE;
	bio->bdev = bdev;
	bio->sector = sector;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_queue_poll(fixture.queue, 1, 1, -1), 1);
	cr_assert_eq(dmcore_queue_reap(fixture.queue, &bio, 1), 1);
	cr_assert_eq(bio->status, 0, "sector %llu", (unsigned long long)sector);
	place = bio->sector;
	dmcore_bio_put(bio);
	return place;
}

static void expect_each_found(const char *name, uint64_t (*length)(unsigned int i))
{
	static char text[TARGETS * 80];
	uint64_t begin[TARGETS + 1] = { 0 };
	struct dmcore_bdev *bdev;
	size_t used = 0;

	for (unsigned int i = 0; i < TARGETS; i++) {
		begin[i + 1] = begin[i] + length(i);
		used += (size_t)snprintf(text + used, sizeof(text) - used,
					 "%llu %llu linear /dev/mapper/ground %llu\n",
					 (unsigned long long)begin[i],
					 (unsigned long long)length(i),
					 (unsigned long long)(i * PLACE_SECTORS));
	}
	bdev = fixture_mapped(name, text);
	/* From anywhere: the step to the next one is shorter than the way from afar. */
	for (unsigned int k = 0; k < 2 * TARGETS; k++) {
		unsigned int i = k * 7 % TARGETS;

		cr_assert_eq(place_of(bdev, begin[i]), i * PLACE_SECTORS, "%s: %u", name, i);
		cr_assert_eq(place_of(bdev, begin[i + 1] - 1),
			     i * PLACE_SECTORS + length(i) - 1, "%s: %u", name, i);
	}
}

Test(device_io, among_many_targets_finds_the_one_whatever_their_lengths)
{
	char ground[64];

	snprintf(ground, sizeof(ground), "0 %llu zero",
		 (unsigned long long)((TARGETS + 1) * PLACE_SECTORS));
	fixture_mapped("ground", ground);
	expect_each_found("all_alike", all_alike);
	expect_each_found("growing", growing);
	expect_each_found("shrinking", shrinking);
	expect_each_found("first", first_is_nearly_all);
	expect_each_found("last", last_is_nearly_all);
	expect_each_found("clusters", in_clusters);
}
