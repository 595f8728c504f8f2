/* SPDX-License-Identifier: MIT */
/* Requests of more than 4 GiB, whose place in memory needs more than 32 bits. */
#include <errno.h>
#include <string.h>

#include <sys/mman.h>

#include <criterion/criterion.h>

#include "../../support/fixture.h"

#define HEAD_SECTORS UINT64_C(9437184) /* 4.5 GiB of zero target: written, and never looked at */
#define HEAD_BYTES (HEAD_SECTORS * DMCORE_SECTOR_BYTES)
#define TAIL_BYTES ((size_t)8 * DMCORE_SECTOR_BYTES)

static struct fault_disk *disk;
static struct dmcore_bdev *bdev;
static unsigned char *memory;

/* A device whose last eight sectors are on a disk, and memory as large, of which only the end is
 * ever touched. */
static void open_huge(void)
{
	fixture_open();
	disk = fixture_disk("fault:8");
	bdev = fixture_mapped("huge", "0 9437184 zero\n"
				      "9437184 8 linear fault:8 0\n");
	memory = mmap(NULL, HEAD_BYTES + TAIL_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		cr_skip("no address space");
	memset(memory + HEAD_BYTES, 0xab, TAIL_BYTES);
}

static void close_huge(void)
{
	munmap(memory, HEAD_BYTES + TAIL_BYTES);
	fixture_close();
}

TestSuite(huge, .init = open_huge, .fini = close_huge);

Test(huge, plain_write_takes_its_data_from_the_right_place)
{
	cr_assert_eq(dmcore_pwrite(bdev, memory, HEAD_BYTES + TAIL_BYTES, 0), 0);
	cr_assert_arr_eq(fault_data(disk), memory + HEAD_BYTES, TAIL_BYTES);
}

Test(huge, entry_of_4_gib_in_a_long_request_is_refused)
{
	struct fixture_io io = { .bdev = bdev, .op = DMCORE_OP_WRITE, .buffer = memory };
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);

	bio->bdev = bdev;
	bio->op = DMCORE_OP_WRITE;
	dmcore_bio_set_buffer(bio, memory, HEAD_BYTES + TAIL_BYTES);
	cr_assert_eq(dmcore_bio_submit(bio), -EINVAL);
	dmcore_bio_put(bio);

	/* A short one needs only the front of such an entry. */
	io.sector = HEAD_SECTORS;
	io.count = 8;
	cr_assert_eq(fixture_run(&io), 0);
}

Test(huge, long_request_of_shorter_entries_is_split_in_the_right_place)
{
	size_t half = HEAD_BYTES / 2;
	struct dmio_bvec vecs[3] = { { memory, half },
				     { memory + half, half - 512 },
				     { memory + 2 * half - 512, 512 + TAIL_BYTES } };
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);

	bio->bdev = bdev;
	bio->op = DMCORE_OP_WRITE;
	bio->count = HEAD_SECTORS + 8;
	bio->vecs = vecs;
	bio->num_vecs = 3;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	while (dmcore_queue_poll(fixture.queue, 0, 64, 0) == 0)
		;
	cr_assert_eq(bio->status, 0);
	cr_assert_arr_eq(fault_data(disk), memory + HEAD_BYTES, TAIL_BYTES);
	cr_assert_eq(dmcore_queue_reap(fixture.queue, &bio, 1), 1);
	dmcore_bio_put(bio);
}
