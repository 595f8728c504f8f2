/* SPDX-License-Identifier: MIT */
/* A bio that its target sends to several devices at once, from map or later. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"

#define LEGS 3
#define LEG_SECTORS 64u
#define ALL_LEGS ((1u << LEGS) - 1)

/* Line: twin <now|later> <max_io sectors> <set> <device>{3} */
struct twin {
	struct dmcore_bdev *legs[LEGS];
	bool later;
	uint32_t set;
	/* What it has seen. */
	unsigned int num_maps;
	unsigned int num_ends;
	unsigned int num_copies;
	uint32_t failed; /* of the last bio */
	int status;
};

struct twin_bio {
	struct dmcore_work work;
	struct dmcore_bio *bio;
	struct twin *twin;
	uint64_t sector;
	uint32_t failed;
	uint32_t num_ended;
};

static struct twin *last_twin;

static int twin_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct twin *twin = dmcore_target_alloc(target, sizeof(*twin));
	uint64_t number = 0;
	int ret;

	if (!twin)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	target->private_data = twin;
	twin->later = strcmp(dmcore_args_next(args), "later") == 0;
	ret = dmcore_args_u64(args, 0, 64, "Invalid length", &number);
	target->max_io_sectors = (uint32_t)number;
	target->flags = DMCORE_TARGET_SPLITS_ALL | DMCORE_TARGET_DISCARDS;
	if (!ret)
		ret = dmcore_args_u64(args, 1, ALL_LEGS, "Invalid set", &number);
	twin->set = (uint32_t)number;
	for (unsigned int i = 0; i < LEGS && !ret; i++)
		ret = dmcore_target_device(target, dmcore_args_next(args), &twin->legs[i]);
	last_twin = twin;
	return ret;
}

static void send_later(struct dmcore_work *work)
{
	struct twin_bio *data = dmcore__container_of(work, struct twin_bio, work);

	dmcore_bio_send_copies(data->bio, data->twin->set);
}

static enum dmcore_map_result twin_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct twin_bio *data = dmcore_bio_target_data(bio);
	struct twin *twin = target->private_data;

	*data = (struct twin_bio){
		.work = { .fn = send_later },
		.bio = bio,
		.twin = twin,
		.sector = bio->sector - target->begin,
	};
	twin->num_maps++;
	if (twin->later)
		dmcore_queue_post(bio->queue, &data->work);
	else
		dmcore_bio_send_copies(bio, twin->set);
	return DMCORE_MAP_SUBMITTED;
}

static void twin_map_copy(struct dmcore_target *target, void *per_bio, struct dmcore_bio *copy)
{
	const struct twin_bio *data = per_bio;
	struct twin *twin = target->private_data;

	cr_assert(twin->set >> copy->bio_nr & 1);
	cr_assert_eq(data->twin, twin);
	twin->num_copies++;
	copy->bdev = twin->legs[copy->bio_nr];
	copy->sector = data->sector;
}

static void twin_end_copy(struct dmcore_target *target, void *per_bio, uint32_t bio_nr, int status)
{
	struct twin_bio *data = per_bio;

	cr_assert_eq(data->twin, target->private_data);
	data->num_ended++;
	if (status)
		data->failed |= 1u << bio_nr;
}

static enum dmcore_end_result twin_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					  int *status)
{
	const struct twin_bio *data = dmcore_bio_target_data(bio);
	struct twin *twin = target->private_data;

	cr_assert_eq(data->num_ended, (uint32_t)__builtin_popcount(twin->set));
	twin->num_ends++;
	twin->failed = data->failed;
	twin->status = *status;
	/* It hides that one has failed. */
	if (data->failed == 1u << 2)
		*status = 0;
	return DMCORE_END_DONE;
}

static unsigned int twin_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static int twin_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	struct twin *twin = target->private_data;
	int ret = 0;

	for (unsigned int i = 0; i < LEGS && !ret; i++)
		ret = fn(target, twin->legs[i], 0, dmcore_target_len(target), context);
	return ret;
}

static const struct dmcore_target_type twin_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "twin",
	.version = { 1, 0, 0 },
	.per_bio_bytes = sizeof(struct twin_bio),
	.ctr = twin_ctr,
	.map = twin_map,
	.end_io = twin_end_io,
	.num_bios = twin_num_bios,
	.iterate_devices = twin_iterate_devices,
	.map_copy = twin_map_copy,
	.end_copy = twin_end_copy,
};

static struct fault_disk *disks[LEGS];
static unsigned char buffer[LEG_SECTORS * DMCORE_SECTOR_BYTES];

static void set_up(void)
{
	fixture_open();
	cr_assert_eq(dmcore_target_register(fixture.core, &twin_type), 0);
	disks[0] = fixture_disk("fault:64,id=a");
	disks[1] = fixture_disk("fault:64,id=b");
	disks[2] = fixture_disk("fault:64,id=c");
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (unsigned char)(i * 7 + i / DMCORE_SECTOR_BYTES);
}

TestSuite(copies, .init = set_up, .fini = fixture_close);

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return fixture_run(&(struct fixture_io){ .bdev = bdev,
						 .op = op,
						 .sector = sector,
						 .count = count,
						 .buffer = op <= DMCORE_OP_WRITE ? buffer : NULL });
}

static struct dmcore_bdev *open_twin(const char *when, unsigned int max_io, unsigned int set)
{
	char line[128];

	snprintf(line, sizeof(line), "0 64 twin %s %u %u fault:64,id=a fault:64,id=b fault:64,id=c",
		 when, max_io, set);
	return fixture_mapped("d", line);
}

static void expect_on_each(uint64_t sector, uint64_t count)
{
	for (unsigned int i = 0; i < LEGS; i++)
		cr_assert_eq(memcmp(fault_data(disks[i]) + sector * DMCORE_SECTOR_BYTES, buffer,
				    count * DMCORE_SECTOR_BYTES),
			     0, "leg %u", i);
}

static void expect_every_operation_on_each(const char *when)
{
	struct dmcore_bdev *bdev = open_twin(when, 0, ALL_LEGS);

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 5, 9), 0);
	expect_on_each(5, 9);
	for (int op = DMCORE_OP_READ; op < DMCORE_OP_COUNT; op++)
		cr_assert_eq(run(bdev, (enum dmcore_op)op, 8, 4), 0, "operation %d", op);
	for (unsigned int i = 0; i < LEGS; i++) {
		cr_assert_eq(fault_num_logged(disks[i]), DMCORE_OP_COUNT + 1);
		cr_assert_eq(fault_logged(disks[i], 0).sector, 5);
		cr_assert_eq(fault_logged(disks[i], 0).count, 9);
	}
	cr_assert_eq(last_twin->num_maps, DMCORE_OP_COUNT + 1);
	cr_assert_eq(last_twin->num_ends, last_twin->num_maps);
	cr_assert_eq(last_twin->num_copies, LEGS * last_twin->num_maps);
}

Test(copies, are_sent_to_each_device_by_map)
{
	expect_every_operation_on_each("now");
}

Test(copies, are_sent_to_each_device_later)
{
	expect_every_operation_on_each("later");
}

Test(copies, are_sent_to_those_of_the_set_alone)
{
	struct dmcore_bdev *bdev = open_twin("now", 0, 1u << 1);

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(fault_num_logged(disks[0]), 0);
	cr_assert_eq(fault_num_logged(disks[1]), 1);
	cr_assert_eq(fault_num_logged(disks[2]), 0);
}

/* Each piece of a request is one bio of the target, in as many copies. */
Test(copies, of_pieces_are_sent_too)
{
	struct dmcore_bdev *bdev = open_twin("later", 8, ALL_LEGS);

	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 3, 33), 0);
	expect_on_each(3, 33);
	cr_assert_eq(last_twin->num_maps, 5);
	cr_assert_eq(last_twin->num_copies, 5 * LEGS);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 3, 33), 0);
}

Test(copies, of_every_length_are_split_alike)
{
	struct dmcore_bdev *bdev = open_twin("now", 8, ALL_LEGS);

	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 4, 8), 0);
	cr_assert_eq(last_twin->num_maps, 2);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE_ZEROES, 0, 64), 0);
	cr_assert_eq(last_twin->num_maps, 10);
	cr_assert_eq(run(bdev, DMCORE_OP_DISCARD, 8, 8), 0);
	cr_assert_eq(last_twin->num_maps, 11);
}

Test(copies, that_fail_are_told_one_by_one)
{
	struct dmcore_bdev *bdev = open_twin("now", 0, ALL_LEGS);

	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENOSPC });
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), -ENOSPC);
	cr_assert_eq(last_twin->failed, 1);
	fault_add_rule(disks[2], &(struct fault_rule){ .action = FAULT_FAIL, .status = -EIO });
	cr_assert_lt(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(last_twin->failed, 5);
	cr_assert_eq(fault_count(disks[1], FAULT_WRITE), 2);
	fault_clear_rules(disks[0]);
	/* Its end_io has the last word. */
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, 8), 0);
	cr_assert_eq(last_twin->failed, 4);
	cr_assert_eq(last_twin->status, -EIO);
}

/* Copies may go to devices that send copies in turn. */
Test(copies, go_through_stacks)
{
	struct dmcore_bdev *bdev;

	fixture_device("low", "0 64 twin later 4 7 fault:64,id=a fault:64,id=b fault:64,id=c");
	bdev = fixture_mapped("high", "0 32 twin now 16 7 low low low\n32 32 linear low 32\n");
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 2, 40), 0);
	expect_on_each(2, 40);
	/* In the lower half, sectors 2 to 31, each block of 4 comes three times. */
	cr_assert_eq(fault_count(disks[0], FAULT_WRITE), 3 * 8 + 3);
}

/* Fewer bios than pieces: they take turns. */
Test(copies, need_no_more_bios_than_there_are)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct dmcore_bdev *bdev = open_twin("now", 4, ALL_LEGS);
	struct dmcore_queue *queue;
	struct dmcore_bio *bio;
	struct dmcore_bio *ended;

	options.splits = 1;
	cr_assert_eq(dmcore_queue_create(fixture.core, &options, &queue), 0);
	bio = dmcore_bio_get(queue);
	cr_assert_not_null(bio);
	bio->bdev = bdev;
	bio->op = DMCORE_OP_WRITE;
	dmcore_bio_set_buffer(bio, buffer, sizeof(buffer));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	while (dmcore_queue_reap(queue, &ended, 1) == 0)
		cr_assert_geq(dmcore_queue_poll(queue, 1, UINT32_MAX, -1), 0);
	cr_assert_eq(ended, bio);
	cr_assert_eq(bio->status, 0);
	expect_on_each(0, LEG_SECTORS);
	cr_assert_eq(last_twin->num_copies, LEGS * LEG_SECTORS / 4);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

Test(copies, need_per_bio_data)
{
	struct dmcore_target_type type = twin_type;

	type.name = "twin-without";
	type.per_bio_bytes = 0;
	cr_assert_eq(dmcore_target_register(fixture.core, &type), -EINVAL);
	cr_assert_str_eq(dmcore_error_message(),
			 "target type twin-without: map_copy without per_bio_bytes");
	/* An author who didn't know of copies may have anything there. */
	type.struct_size = offsetof(struct dmcore_target_type, map_copy);
	cr_assert_eq(dmcore_target_register(fixture.core, &type), 0);
}
