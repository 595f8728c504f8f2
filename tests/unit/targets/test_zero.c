/* SPDX-License-Identifier: MIT */
/* The zero target. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/fixture.h"

#define BYTES (8 * DMCORE_SECTOR_BYTES)

TestSuite(zero, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[BYTES];

static int run(enum dmcore_op op, unsigned int flags)
{
	static struct dmcore_bdev *bdev;

	if (!bdev)
		bdev = fixture_mapped("d", "0 8 zero");
	memset(buffer, 0xff, BYTES);
	return fixture_run(&(struct fixture_io){
		.bdev = bdev, .op = op, .flags = flags, .count = 8, .buffer = buffer });
}

Test(zero, reads_zeroes)
{
	cr_assert_eq(run(DMCORE_OP_READ, 0), 0);
	for (size_t i = 0; i < BYTES; i++)
		cr_assert_eq(buffer[i], 0);
}

Test(zero, reads_zeroes_into_every_piece_of_memory)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 8 zero");
	struct dmio_bvec vecs[] = { { buffer, 700 }, { buffer + 1024, 2000 } };
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);
	struct dmcore_bio *ended;

	memset(buffer, 0xff, BYTES);
	bio->bdev = bdev;
	bio->op = DMCORE_OP_READ;
	bio->count = 5;
	bio->vecs = vecs;
	bio->num_vecs = 2;
	bio->vec_offset_bytes = 100;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	while (dmcore_queue_reap(fixture.queue, &ended, 1) == 0)
		cr_assert_geq(dmcore_queue_poll(fixture.queue, 1, 1, -1), 0);
	cr_assert_eq(bio->status, 0);
	dmcore_bio_put(bio);
	for (size_t i = 0; i < BYTES; i++) {
		bool is_read = (i >= 100 && i < 700) || (i >= 1024 && i < 1024 + 5 * 512 - 600);

		cr_assert_eq(buffer[i], is_read ? 0 : 0xff, "byte %zu", i);
	}
}

Test(zero, swallows_writes)
{
	cr_assert_eq(run(DMCORE_OP_WRITE, 0), 0);
	cr_assert_eq(run(DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA), 0);
}

Test(zero, swallows_discards)
{
	cr_assert_eq(run(DMCORE_OP_DISCARD, 0), 0);
}

Test(zero, has_nothing_to_flush)
{
	cr_assert_eq(run(DMCORE_OP_FLUSH, 0), 0);
}

Test(zero, does_not_write_zeroes)
{
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 0), -EOPNOTSUPP);
}

Test(zero, does_not_read_ahead)
{
	cr_assert_eq(run(DMCORE_OP_READ, DMCORE_BIO_RAHEAD), -EIO);
}

Test(zero, takes_no_arguments)
{
	fixture_expect_refused("0 8 zero 1", -EINVAL, "table line 1: zero: No arguments required");
}

Test(zero, prints_nothing_of_its_own)
{
	struct dmcore_device *device = fixture_device("d", "0 8 zero");

	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), "0 8 zero \n");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS), "0 8 zero \n");
}
