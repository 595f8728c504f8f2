/* SPDX-License-Identifier: MIT */
/* What a target may do with a bio, and what it sees of it: map, end_io, data kept with it. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define SECTORS 256

static struct stage stage;
static struct fault_disk *disk;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

/* ---- a target that does as it is told ------------------------------------------------------- */

enum behaviour {
	REMAP,
	KILL,
	COMPLETE_AT_ONCE,     /* with an error */
	KEEP,                 /* until the test completes it */
	ASK_FOR_PREFLUSH,     /* of the device below */
	HIDE_ERRORS,          /* in end_io */
	MAKE_ERRORS,          /* in end_io */
	TRY_AGAIN,            /* in end_io: once more, then whatever comes */
};

static enum behaviour behaviour;
static struct dmcore_bio *kept;
static unsigned int maps;
static unsigned int ends;
static unsigned int tries;
static int end_status;

struct spy {
	struct dmcore_bdev *bdev;
};

/* Kept with each bio from map to end_io: all 200 bytes of it. */
struct spy_bio {
	uint64_t magic;
	uint64_t sector;
	unsigned char rest[184];
};

static int spy_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct spy *spy = dmcore_target_alloc(target, sizeof(*spy));

	if (!spy)
		return dmcore_args_fail(args, -ENOMEM, "no memory");
	target->private_data = spy;
	target->max_io_sectors = 16;
	if (dmcore_target_device(target, dmcore_args_next(args), &spy->bdev))
		return dmcore_args_fail(args, -EINVAL, "Device lookup failed");
	return 0;
}

static void aim(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct spy *spy = target->private_data;

	bio->bdev = spy->bdev;
	bio->sector -= target->begin;
}

static enum dmcore_map_result spy_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	struct spy_bio *own = dmcore_bio_target_data(bio);

	maps++;
	cr_assert_eq((uintptr_t)own % 8, 0);
	own->magic = 0xfeedface;
	own->sector = bio->sector;
	memset(own->rest, 0x77, sizeof(own->rest));
	switch (behaviour) {
	case KILL:
		return DMCORE_MAP_KILL;
	case COMPLETE_AT_ONCE:
		dmcore_bio_complete(bio, -ENOSPC);
		return DMCORE_MAP_SUBMITTED;
	case KEEP:
		kept = bio;
		return DMCORE_MAP_SUBMITTED;
	case ASK_FOR_PREFLUSH:
		bio->flags |= DMCORE_BIO_PREFLUSH;
		break;
	default:
		break;
	}
	aim(target, bio);
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_end_result spy_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					 int *status)
{
	const struct spy_bio *own = dmcore_bio_target_data(bio);

	(void)target;
	ends++;
	end_status = *status;
	cr_assert_eq(own->magic, 0xfeedface);
	for (unsigned int i = 0; i < sizeof(own->rest); i++)
		cr_assert_eq(own->rest[i], 0x77);
	if (behaviour == HIDE_ERRORS)
		*status = 0;
	if (behaviour == MAKE_ERRORS)
		*status = -ETIMEDOUT;
	if (behaviour == TRY_AGAIN && *status) {
		tries++;
		kept = bio;
		return DMCORE_END_INCOMPLETE;
	}
	return DMCORE_END_DONE;
}

static unsigned int spy_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	return op == DMCORE_OP_DISCARD ? 3 : 1;
}

static int spy_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct spy *spy = target->private_data;

	return fn(target, spy->bdev, 0, dmcore_target_len(target), context);
}

static const struct dmcore_target_type spy_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "spy",
	.version = { 1, 0, 0 },
	.per_bio_bytes = sizeof(struct spy_bio),
	.ctr = spy_ctr,
	.map = spy_map,
	.end_io = spy_end_io,
	.num_bios = spy_num_bios,
	.iterate_devices = spy_iterate_devices,
};

static struct dmcore_bdev *bdev;

static void set_up(void)
{
	char table[128];

	stage_open(&stage, NULL, NULL);
	disk = stage_disk(&stage, 0, SECTORS, "");
	cr_assert_eq(dmcore_target_register(stage.core, &spy_type), 0);
	snprintf(table, sizeof(table), "0 100 zero\n100 64 spy %s\n",
		 stage_disk_spec(0, SECTORS, ""));
	bdev = stage_map(&stage, "m", table);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(submit, .init = set_up, .fini = tear_down);

/* ---- map ------------------------------------------------------------------------------------ */

Test(submit, remapped_bios_go_on_and_come_back)
{
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 108, 8, buffer), 0);
	cr_assert(maps == 1 && ends == 1 && end_status == 0);
	cr_assert_eq(fault_logged(disk, 0).sector, 8);
	/* Three pieces: up to the next multiple of 16 from the target's start, 16, and the rest. */
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 110, 32, buffer), 0);
	cr_assert(maps == 4 && ends == 4);
	cr_assert(fault_logged(disk, 1).sector == 10 && fault_logged(disk, 1).count == 6);
	cr_assert(fault_logged(disk, 2).sector == 16 && fault_logged(disk, 2).count == 16);
	cr_assert(fault_logged(disk, 3).sector == 32 && fault_logged(disk, 3).count == 10);
}

Test(submit, killed_bios_end_with_an_io_error)
{
	behaviour = KILL;
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 100, 8, buffer), -EIO);
	cr_assert(maps == 1 && ends == 1 && end_status == -EIO);
	cr_assert_eq(fault_count(disk, 0), 0);
	/* The half that another target has is carried out. */
	memset(buffer, 1, sizeof(buffer));
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 96, 8, buffer), -EIO);
	cr_assert_eq(buffer[0] | buffer[4 * 512 - 1], 0);
}

Test(submit, a_target_may_complete_inside_map)
{
	behaviour = COMPLETE_AT_ONCE;
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 100, 8, buffer), -ENOSPC);
	cr_assert(ends == 1 && end_status == -ENOSPC);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 100, 64, buffer), -ENOSPC);
	cr_assert(maps == 5 && ends == 5);
}

Test(submit, a_target_may_keep_a_bio)
{
	struct tally tally = { 0 };

	behaviour = KEEP;
	stage_submit(&stage, bdev, DMCORE_OP_READ, 100, 8, buffer, &tally);
	stage_settle(&stage);
	cr_assert(tally.ended == 0 && ends == 0);
	cr_assert_eq(dmcore_device_remove(stage.devices[0]), -EBUSY);
	dmcore_bio_complete(kept, -ETIMEDOUT);
	cr_assert_eq(ends, 0, "completion is noted, callbacks run in poll");
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, -ETIMEDOUT);
	cr_assert_eq(ends, 1);

	stage_submit(&stage, bdev, DMCORE_OP_READ, 100, 8, buffer, &tally);
	dmcore_bio_complete_remote(kept, 0);
	stage_wait(&stage, &tally, 2);
	cr_assert_eq(tally.failed, 1);
}

Test(submit, a_target_may_ask_for_a_flush_first)
{
	behaviour = ASK_FOR_PREFLUSH;
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 100, 8, buffer), 0);
	cr_assert_eq(fault_num_logged(disk), 2);
	cr_assert_eq(fault_logged(disk, 0).op, DMCORE_OP_FLUSH);
	cr_assert_eq(fault_logged(disk, 1).op, DMCORE_OP_WRITE);
	cr_assert_lt(fault_logged(disk, 0).ended, fault_logged(disk, 1).begun);
}

Test(submit, copies_are_numbered_and_cover_the_whole_range)
{
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 102, 50, NULL), 0);
	cr_assert_eq(maps, 3);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(fault_logged(disk, i).op, DMCORE_OP_DISCARD);
		cr_assert_eq(fault_logged(disk, i).sector, 2);
		cr_assert_eq(fault_logged(disk, i).count, 50, "not cut at max_io_sectors");
	}
	/* One target of the range can discard, and the other too. */
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 90, 20, NULL), 0);
	cr_assert_eq(maps, 6);
	/* A flush gets one copy, and none from the zero target. */
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(maps, 7);
}

/* ---- end_io --------------------------------------------------------------------------------- */

Test(submit, end_io_sees_and_changes_the_status)
{
	behaviour = HIDE_ERRORS;
	fault_add_rule(disk, &(struct fault_rule){ .status = -ENOSPC, .times = 1 });
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 100, 8, buffer), 0);
	cr_assert_eq(end_status, -ENOSPC);
	behaviour = MAKE_ERRORS;
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 100, 8, buffer), -ETIMEDOUT);
	cr_assert_eq(end_status, 0);
}

Test(submit, end_io_may_take_the_bio_again)
{
	struct tally tally = { 0 };

	behaviour = TRY_AGAIN;
	fault_add_rule(disk, &(struct fault_rule){ .status = -EIO });
	stage_submit(&stage, bdev, DMCORE_OP_READ, 100, 8, buffer, &tally);
	stage_settle(&stage);
	cr_assert(tally.ended == 0 && tries == 1 && ends == 1);
	cr_assert_eq(dmcore_device_remove(stage.devices[0]), -EBUSY);
	dmcore_bio_complete(kept, -ENOMEDIUM);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, -ENOMEDIUM);
	cr_assert_eq(ends, 1, "end_io isn't called again");
	cr_assert_eq(dmcore_device_remove(stage.devices[--stage.num_devices]), 0);
}

/* ---- stacks --------------------------------------------------------------------------------- */

/* As high as devices may stand, each with a bio's data, up and down without recursion. */
Test(submit, goes_through_a_high_stack)
{
	char below[32] = "m";
	struct dmcore_bdev *top = bdev;
	unsigned int height;

	for (height = 1; height < DMCORE_STACK_DEPTH_MAX; height++) {
		struct dmcore_device *device;
		struct dmcore_table *table;
		char name[32];
		char text[64];

		snprintf(name, sizeof(name), "m%u", height);
		snprintf(text, sizeof(text), "0 %u linear %s 1\n", 164 - height, below);
		if (dmcore_table_parse(stage.core, text, 0, &table) != 0)
			break;
		cr_assert_eq(dmcore_device_create(stage.core, name, NULL, 0, &device), 0);
		if (dmcore_device_load(device, table) != 0) {
			dmcore_table_destroy(table);
			cr_assert_eq(dmcore_device_remove(device), 0);
			break;
		}
		cr_assert_eq(dmcore_device_resume(device), 0);
		stage.devices[stage.num_devices++] = device;
		top = dmcore_device_bdev(device);
		memcpy(below, name, sizeof(name));
	}
	cr_assert_gt(height, 30, "only %u devices on top of each other", height);
	pattern_fill(buffer, 0, 20, 1);
	/* Sector 110 - (height - 1) of the topmost is sector 110 of the lowest. */
	cr_assert_eq(stage_run(&stage, top, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA,
			       110 - (height - 1), 20, buffer), 0);
	cr_assert_eq(pattern_differs(fault_data(disk) + 10 * 512, 0, 20, 1), -1);
	memset(buffer, 0, sizeof(buffer));
	cr_assert_eq(stage_run(&stage, top, DMCORE_OP_READ, 0, 110 - (height - 1), 20, buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 0, 20, 1), -1);
	cr_assert_eq(stage_run(&stage, top, DMCORE_OP_DISCARD, 0, 110 - (height - 1), 20, NULL),
		     0);
}
