/* SPDX-License-Identifier: MIT */
/* A bio that a target keeps, and sends on later to a device that it chooses only then. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"

struct later {
	struct dmcore_bdev *bdev;
};

struct kept {
	struct dmcore_work work;
	struct dmcore_bio *bio;
	struct later *later;
};

static int later_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct later *later = dmcore_target_alloc(target, sizeof(*later));

	if (!later)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	target->private_data = later;
	return dmcore_target_device(target, dmcore_args_next(args), &later->bdev);
}

static void send_on(struct dmcore_work *work)
{
	struct kept *kept = dmcore__container_of(work, struct kept, work);
	struct dmcore_bio *bio = kept->bio;

	bio->bdev = kept->later->bdev;
	bio->sector += 16;
	dmcore_bio_forward(bio);
}

static enum dmcore_map_result later_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct kept *kept = dmcore_bio_target_data(bio);

	*kept = (struct kept){ { .fn = send_on }, bio, target->private_data };
	dmcore_queue_post(bio->queue, &kept->work);
	return DMCORE_MAP_SUBMITTED;
}

static enum dmcore_end_result later_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					   int *status)
{
	struct later *later = target->private_data;

	cr_assert_eq(bio->bdev, later->bdev);
	if (*status == -ENOSPC)
		*status = -ENODATA;
	return DMCORE_END_DONE;
}

static unsigned int later_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static int later_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	struct later *later = target->private_data;

	return fn(target, later->bdev, 16, dmcore_target_len(target), context);
}

static const struct dmcore_target_type later_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "later",
	.version = { 1, 0, 0 },
	.per_bio_bytes = sizeof(struct kept),
	.ctr = later_ctr,
	.map = later_map,
	.end_io = later_end_io,
	.num_bios = later_num_bios,
	.iterate_devices = later_iterate_devices,
};

static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	fixture_open();
	cr_assert_eq(dmcore_target_register(fixture.core, &later_type), 0);
}

TestSuite(forward, .init = set_up, .fini = fixture_close);

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return fixture_run(&(struct fixture_io){ .bdev = bdev,
						 .op = op,
						 .sector = sector,
						 .count = count,
						 .buffer = op <= DMCORE_OP_WRITE ? buffer : NULL });
}

Test(forward, sends_a_kept_bio_to_its_device)
{
	struct fault_disk *disk = fixture_disk("fault:64,id=a");
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 32 later fault:64,id=a");

	for (int op = DMCORE_OP_READ; op < DMCORE_OP_COUNT; op++)
		cr_assert_eq(run(bdev, (enum dmcore_op)op, 8, 4), 0, "operation %d", op);
	cr_assert_eq(fault_num_logged(disk), DMCORE_OP_COUNT);
	cr_assert_eq(fault_logged(disk, 0).op, DMCORE_OP_READ);
	cr_assert_eq(fault_logged(disk, 0).sector, 24);
	cr_assert_eq(fault_logged(disk, 0).count, 4);
}

Test(forward, end_io_sees_what_became_of_it)
{
	struct fault_disk *disk = fixture_disk("fault:64,id=a");
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 32 later fault:64,id=a");

	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENOSPC });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 1), -ENODATA);
}

/* Its device may be a mapped one that keeps it once more; pieces of one request do so too. */
Test(forward, goes_through_stacks_and_pieces)
{
	struct fault_disk *disk = fixture_disk("fault:64,id=a");
	struct dmcore_bdev *bdev;

	fixture_device("low", "0 48 later fault:64,id=a");
	bdev = fixture_mapped("high", "0 8 later low\n8 8 later low\n16 16 later low\n");
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 32), 0);
	cr_assert_eq(fault_count(disk, FAULT_READ), 3);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 30, 2), 0);
	cr_assert_eq(fault_logged(disk, 3).sector, 62);
}

#define QUEUES 5

Test(forward, queues_have_numbers_of_their_own)
{
	struct dmcore_queue *queues[QUEUES];
	bool taken[DMCORE_QUEUE_INDICES_MAX] = { false };
	unsigned int index;

	taken[dmcore_queue_index(fixture.queue)] = true;
	for (unsigned int i = 0; i < QUEUES; i++) {
		cr_assert_eq(dmcore_queue_create(fixture.core, NULL, &queues[i]), 0);
		index = dmcore_queue_index(queues[i]);
		cr_assert_lt(index, DMCORE_QUEUE_INDICES_MAX);
		cr_assert_not(taken[index]);
		taken[index] = true;
	}
	for (unsigned int i = 0; i < QUEUES; i++)
		cr_assert_eq(dmcore_queue_destroy(queues[i]), 0);
}
