/* SPDX-License-Identifier: MIT */
/* The first write to a chunk of a snapshot: what of it goes into the copy of the chunk. */
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define LARGE "fault:4096,id=large"

static struct fault_disk *large;
static uint64_t first_data_sector; /* behind the header and the area, chunks both */

static void open_large(void)
{
	snapshots_open();
	large = fault_disk_of(stage_bdev(&snapshots.stage, LARGE, 0));
}

TestSuite(snapshot_first_write, .init = open_large, .fini = snapshots_close);

static unsigned int num_data_writes(void)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < fault_num_logged(large); i++) {
		struct fault_entry entry = fault_logged(large, i);

		count += entry.op == DMCORE_OP_WRITE && entry.sector >= first_data_sector;
	}
	return count;
}

static struct dmcore_bdev *map(unsigned int chunk_sectors)
{
	char params[96];
	struct dmcore_bdev *bdev;

	snprintf(params, sizeof(params), "snapshot " O " " LARGE " P %u", chunk_sectors);
	bdev = snapshots_map("s", SNAPSHOTS_ORIGIN_SECTORS, params);
	fault_clear_log(large);
	first_data_sector = 2 * chunk_sectors;
	return bdev;
}

Test(snapshot_first_write, of_a_part_is_one_with_the_copy)
{
	struct dmcore_bdev *bdev = map(16);

	snapshots_write(bdev, 19, 5, 1);
	cr_assert_eq(num_data_writes(), 1);
	snapshots_expect(bdev, 0, 19, 0);
	snapshots_expect(bdev, 19, 5, 1);
	snapshots_expect(bdev, 24, 100, 0);
	/* A second one finds the chunk. */
	snapshots_write(bdev, 16, 2, 2);
	cr_assert_eq(num_data_writes(), 2);
	snapshots_expect(bdev, 16, 2, 2);
	snapshots_expect(bdev, 18, 1, 0);
	snapshots_expect(bdev, 19, 5, 1);
}

Test(snapshot_first_write, that_is_to_be_durable_follows_the_copy)
{
	struct dmcore_bdev *bdev = map(16);

	cr_assert_eq(snapshots_try_write(bdev, DMCORE_BIO_FUA, 19, 5, 1), 0);
	cr_assert_eq(num_data_writes(), 2);
	snapshots_expect(bdev, 0, 19, 0);
	snapshots_expect(bdev, 19, 5, 1);
}

Test(snapshot_first_write, of_many_pieces_lies_in_all_slices_of_the_copy)
{
	static unsigned char pieces[400 * DMCORE_SECTOR_BYTES];
	static struct dmio_bvec vecs[100];
	struct dmcore_bdev *bdev = map(512); /* as long as the origin; several slices */
	struct tally tally = { 0 };
	struct dmcore_bio *bio;
	size_t at = 0;

	pattern_fill(pieces, 60, 400, 3);
	/* Of whole sectors, and of odd ones that share a sector. */
	for (unsigned int i = 0; i < 100; i++) {
		vecs[i].base = pieces + at;
		vecs[i].len_bytes = i % 2 ? 4 * DMCORE_SECTOR_BYTES - 100 :
					    4 * DMCORE_SECTOR_BYTES + 100;
		at += vecs[i].len_bytes;
	}
	bio = stage_bio(&snapshots.stage, bdev, DMCORE_OP_WRITE, 60, 400, pieces, &tally);
	bio->vecs = vecs;
	bio->num_vecs = 100;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	snapshots_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	snapshots_expect(bdev, 0, 60, 0);
	snapshots_expect(bdev, 60, 400, 3);
	snapshots_expect(bdev, 460, 52, 0);
}

Test(snapshot_first_write, of_several_at_once_to_a_chunk_are_all_there)
{
	static unsigned char bytes[8][2 * DMCORE_SECTOR_BYTES];
	struct dmcore_bdev *bdev = map(16);
	struct tally tally = { 0 };

	for (unsigned int i = 0; i < 8; i++) {
		pattern_fill(bytes[i], 2 * i, 2, i + 1);
		stage_submit(&snapshots.stage, bdev, DMCORE_OP_WRITE, 2 * i, 2, bytes[i], &tally);
	}
	snapshots_wait(&tally, 8);
	cr_assert_eq(tally.failed, 0);
	for (unsigned int i = 0; i < 8; i++)
		snapshots_expect(bdev, 2 * i, 2, i + 1);
}
