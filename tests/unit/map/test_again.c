/* SPDX-License-Identifier: MIT */
/* A bio that its target sends on once more when it has ended (DMCORE_END_AGAIN). */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "support/actor.h"

#define SECTORS 64
#define MANY 100000

static struct stage stage;
static struct fault_disk *disks[2];
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

/* again FIRST SECOND: to the first device, and then so often to the second. */
struct again {
	struct dmcore_bdev *bdevs[2];
};

/* A request as map has seen it. */
struct seen {
	uint64_t sector;
	uint64_t count;
	const struct dmio_bvec *vecs;
	uint32_t num_vecs;
	uint32_t vec_offset_bytes;
	uint32_t times;
};

static unsigned int times = 1;
static uint32_t max_io_sectors;
static unsigned int ends;
static int last_status;
static bool holds;
static bool then_keeps;
static bool pushes_back;
static struct dmcore_bio *kept;
static struct dmcore_work work;

static int again_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct again *again = dmcore_target_alloc(target, sizeof(*again));
	int ret = again ? 0 : -ENOMEM;

	for (unsigned int i = 0; i < 2 && ret == 0; i++)
		ret = dmcore_target_device(target, dmcore_args_next(args), &again->bdevs[i]);
	target->private_data = again;
	target->max_io_sectors = max_io_sectors;
	return ret ? dmcore_args_fail(args, ret, "no") : 0;
}

static enum dmcore_map_result again_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct again *again = target->private_data;
	struct seen *seen = dmcore_bio_target_data(bio);

	cr_assert_eq(bio->status, 0);
	*seen = (struct seen){
		.sector = bio->sector,
		.count = bio->count,
		.vecs = bio->vecs,
		.num_vecs = bio->num_vecs,
		.vec_offset_bytes = bio->vec_offset_bytes,
	};
	bio->bdev = again->bdevs[0];
	if (!holds)
		return DMCORE_MAP_REMAPPED;
	kept = bio;
	return DMCORE_MAP_SUBMITTED;
}

static void end_kept(struct dmcore_work *unused)
{
	(void)unused;
	dmcore_bio_complete(kept, -ENODATA);
}

static enum dmcore_end_result again_end_io(struct dmcore_target *target, struct dmcore_bio *bio,
					   int *status)
{
	const struct again *again = target->private_data;
	struct seen *seen = dmcore_bio_target_data(bio);

	if (!holds)
		cr_assert_eq(bio->bdev, again->bdevs[seen->times > 0]);
	ends++;
	last_status = *status;
	if (pushes_back && dmcore_target_noflush(target))
		return DMCORE_END_REQUEUE;
	if (seen->times++ < times) {
		bio->bdev = again->bdevs[1];
		bio->sector = seen->sector;
		bio->count = seen->count;
		bio->vecs = seen->vecs;
		bio->num_vecs = seen->num_vecs;
		bio->vec_offset_bytes = seen->vec_offset_bytes;
		return DMCORE_END_AGAIN;
	}
	if (!then_keeps)
		return DMCORE_END_DONE;
	kept = bio;
	work.fn = end_kept;
	dmcore_queue_post(bio->queue, &work);
	return DMCORE_END_INCOMPLETE;
}

static void again_presuspend(struct dmcore_target *target)
{
	(void)target;
	for (unsigned int i = 0; i < 2 && pushes_back; i++)
		fault_release_all(disks[i]);
}

static unsigned int again_num_bios(const struct dmcore_target *target, enum dmcore_op op)
{
	(void)target;
	(void)op;
	return 1;
}

static int again_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct again *again = target->private_data;
	uint64_t len = dmcore_target_len(target);
	int ret = fn(target, again->bdevs[0], target->begin, len, context);

	return ret ? ret : fn(target, again->bdevs[1], target->begin, len, context);
}

#define AGAIN_TYPE(type_name, type_features)                                                       \
	{                                                                                          \
		.struct_size = sizeof(struct dmcore_target_type), .name = type_name,               \
		.version = { 1, 0, 0 }, .features = type_features,                                 \
		.per_bio_bytes = sizeof(struct seen), .ctr = again_ctr, .map = again_map,          \
		.end_io = again_end_io, .num_bios = again_num_bios,                                \
		.presuspend = again_presuspend, .iterate_devices = again_iterate_devices           \
	}

static const struct dmcore_target_type types[] = {
	AGAIN_TYPE("again", 0),
	AGAIN_TYPE("again-requeues", DMCORE_TARGET_TYPE_REQUEUES),
	AGAIN_TYPE("again-errors", DMCORE_TARGET_TYPE_END_ERRORS),
};

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(dmcore_target_register(stage.core, &types[i]), 0);
	for (unsigned int i = 0; i < 2; i++) {
		disks[i] = stage_disk(&stage, i, SECTORS, "");
		pattern_fill(fault_data(disks[i]), 0, SECTORS, i + 1);
	}
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(again, .init = set_up, .fini = tear_down);

static const char whole[] = "0 64 again fault:64,id=0 fault:64,id=1";

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, unsigned int flags, uint64_t sector,
	       uint64_t count)
{
	return stage_run(&stage, bdev, op, flags, sector, count,
			 op <= DMCORE_OP_WRITE ? buffer : NULL);
}

static void expect_second(uint64_t sector, uint64_t count)
{
	cr_assert_eq(pattern_differs(buffer, sector, count, 2), -1, "what the second disk holds");
}

Test(again, sends_the_request_to_where_it_says)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", whole);

	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8, 16), 0);
	expect_second(8, 16);
	cr_assert_eq(ends, 2);
	cr_assert_eq(fault_count(disks[0], FAULT_READ), 1);
	cr_assert_eq(fault_count(disks[1], FAULT_READ), 1);
}

Test(again, forgets_how_it_has_ended_before)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", whole);

	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENOSPC });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8, 16), 0);
	expect_second(8, 16);
	cr_assert_eq(last_status, 0);
	fault_add_rule(disks[1], &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENODATA });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8, 16), -ENODATA);
	cr_assert_eq(last_status, -ENODATA);
}

Test(again, shows_the_targets_below_nothing_of_how_it_has_ended)
{
	struct dmcore_bdev *bdev;

	stage_map(&stage, "low", "0 64 again fault:64,id=1 fault:64,id=1");
	bdev = stage_map(&stage, "high", "0 64 again fault:64,id=0 low");
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_FAIL, .status = -ENOSPC });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8, 16), 0);
	expect_second(8, 16);
}

Test(again, is_not_seen_by_a_type_for_errors_when_it_has_succeeded)
{
	struct dmcore_bdev *bdev =
		stage_map(&stage, "m", "0 64 again-errors fault:64,id=0 fault:64,id=1");

	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_FAIL, .status = -EIO });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8, 16), 0);
	expect_second(8, 16);
	cr_assert_eq(ends, 1);
}

/* Disks that complete at once mustn't make the stack grow. */
Test(again, goes_on_for_as_long_as_the_target_wants)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", whole);

	times = MANY;
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 0, 4), 0);
	expect_second(0, 4);
	cr_assert_eq(fault_count(disks[1], FAULT_READ), MANY);
	cr_assert_eq(ends, MANY + 1);
}

Test(again, every_operation_and_flag)
{
	struct dmcore_bdev *bdev = stage_map(&stage, "m", whole);

	for (int op = DMCORE_OP_READ; op < DMCORE_OP_COUNT; op++) {
		cr_assert_eq(run(bdev, (enum dmcore_op)op, 0, 0, op == DMCORE_OP_FLUSH ? 0 : 8), 0);
		cr_assert_eq(fault_count(disks[0], 1u << op), 1, "operation %d", op);
		cr_assert_eq(fault_count(disks[1], 1u << op), 1, "operation %d", op);
	}
	fault_clear_log(disks[1]);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH, 0, 8), 0);
	cr_assert_eq(fault_num_logged(disks[1]), 2);
	cr_assert_eq(fault_logged(disks[1], 0).op, DMCORE_OP_FLUSH);
	cr_assert_eq(fault_logged(disks[1], 1).op, DMCORE_OP_WRITE);
	cr_assert_eq(fault_logged(disks[1], 1).flags, DMCORE_BIO_FUA);
}

/* FUA that is made of a flush below is so each time. */
Test(again, durable_write_is_durable_each_time)
{
	struct fault_disk *disk = stage_disk(&stage, 7, SECTORS, ",caps=1");
	struct dmcore_bdev *bdev =
		stage_map(&stage, "m", "0 64 again fault:64,id=0 fault:64,id=7,caps=1");

	times = 2;
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, DMCORE_BIO_FUA, 0, 8), 0);
	cr_assert_eq(fault_num_logged(disk), 4);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(fault_logged(disk, i).op,
			     i % 2 ? DMCORE_OP_FLUSH : DMCORE_OP_WRITE);
}

Test(again, each_piece_of_a_request)
{
	static const char two[] = "0 20 again fault:64,id=0 fault:64,id=1\n"
				  "20 44 again fault:64,id=0 fault:64,id=1";
	struct dmcore_bdev *bdev;

	max_io_sectors = 8;
	times = 3;
	bdev = stage_map(&stage, "m", two);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 0, SECTORS), 0);
	expect_second(0, SECTORS);
	cr_assert_eq(ends, 4 * (3 + 6), "[0, 8, 16, 20, 28, 36, 44, 52, 60, 64)");
	cr_assert_eq(fault_count(disks[1], FAULT_READ), 3 * 9);
}

/* With one bio for pieces the rest waits for it, and the request's own carries most of them. */
Test(again, each_piece_while_bios_are_scarce)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;
	struct dmcore_bio *bio;
	struct dmcore_queue *queue;

	options.splits = 1;
	max_io_sectors = 4;
	times = 2;
	bdev = stage_map(&stage, "m", whole);
	cr_assert_eq(dmcore_queue_create(stage.core, &options, &queue), 0);
	bio = dmcore_bio_get(queue);
	cr_assert_not_null(bio);
	bio->bdev = bdev;
	bio->op = DMCORE_OP_READ;
	dmcore_bio_set_buffer(bio, buffer, sizeof(buffer));
	bio->done = tally_done;
	bio->context = &tally;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	while (tally.ended == 0)
		cr_assert_gt(dmcore_queue_poll(queue, 1, 1, STAGE_PATIENCE_NS), 0);
	cr_assert_eq(tally.status, 0);
	expect_second(0, SECTORS);
	cr_assert_eq(fault_count(disks[1], FAULT_READ), 2 * SECTORS / 4);
	cr_assert_eq(dmcore_queue_destroy(queue), 0);
}

/* The bio carries pieces of its own on the disk below, each time. */
Test(again, what_the_device_below_splits)
{
	struct fault_disk *disk = stage_disk(&stage, 8, SECTORS, ",max_io=4");
	struct dmcore_bdev *bdev;

	pattern_fill(fault_data(disk), 0, SECTORS, 2);
	times = 3;
	bdev = stage_map(&stage, "m",
			 "0 64 again fault:64,id=8,max_io=4 fault:64,id=8,max_io=4");
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 4, 56), 0);
	expect_second(4, 56);
	cr_assert_eq(fault_count(disk, FAULT_READ), 4 * 14);
}

static uint64_t num_reads(struct dmcore_device *device, int id)
{
	struct dmcore_stats_area area;

	cr_assert_eq(dmcore_stats_read(device, id, 0, 1, &area, sizeof(area), NULL), 1);
	return area.reads;
}

static int count_reads(struct dmcore_device *device)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int id = dmcore_stats_create(device, &options);

	cr_assert_geq(id, 0, "%s", dmcore_error_message());
	return id;
}

Test(again, in_a_stack_multiplies_below_and_counts_once_above)
{
	struct dmcore_bdev *bdev;
	int ids[2];

	times = 2;
	stage_map(&stage, "low", "0 64 again-requeues fault:64,id=0 fault:64,id=1");
	bdev = stage_map(&stage, "high", "0 32 again low low\n32 32 again low low");
	ids[0] = count_reads(stage.devices[0]);
	ids[1] = count_reads(stage.devices[1]);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 8, 16), 0);
	expect_second(8, 16);
	cr_assert_eq(num_reads(stage.devices[1], ids[1]), 1);
	cr_assert_eq(num_reads(stage.devices[0], ids[0]), 3);
	cr_assert_eq(fault_count(disks[0], FAULT_READ), 3);
	cr_assert_eq(fault_count(disks[1], FAULT_READ), 6);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 24, 16), 0);
	expect_second(24, 16);
	cr_assert_eq(num_reads(stage.devices[1], ids[1]), 2);
	cr_assert_eq(num_reads(stage.devices[0], ids[0]), 9);
}

Test(again, waits_for_a_device_below_that_is_suspended)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev;

	stage_map(&stage, "low", "0 64 linear fault:64,id=1 0");
	bdev = stage_map(&stage, "high", "0 64 again fault:64,id=0 low");
	fault_add_rule(disks[0], &(struct fault_rule){ .action = FAULT_HOLD });
	stage_submit(&stage, bdev, DMCORE_OP_READ, 8, 16, buffer, &tally);
	actor_suspend(stage.devices[0], 0);
	fault_release_all(disks[0]);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(actor_info(stage.devices[0]).num_deferred, 1);
	cr_assert_eq(actor_info(stage.devices[1]).num_inflight, 1);
	actor_resume(stage.devices[0]);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, 0);
	expect_second(8, 16);
}

/* On its second way; what is resumed then begins anew. */
Test(again, may_be_pushed_back_later)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev =
		stage_map(&stage, "m", "0 64 again-requeues fault:64,id=0 fault:64,id=1");
	int id = count_reads(stage.devices[0]);

	fault_add_rule(disks[1], &(struct fault_rule){ .action = FAULT_HOLD, .times = 1 });
	stage_submit(&stage, bdev, DMCORE_OP_READ, 8, 16, buffer, &tally);
	stage_settle(&stage);
	cr_assert_eq(fault_num_held(disks[1]), 1);
	pushes_back = true;
	actor_suspend(stage.devices[0], DMCORE_SUSPEND_NOFLUSH);
	cr_assert_eq(tally.ended, 0);
	cr_assert_eq(actor_info(stage.devices[0]).num_deferred, 1);
	actor_resume(stage.devices[0]);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, 0);
	expect_second(8, 16);
	cr_assert_eq(fault_count(disks[0], FAULT_READ), 2);
	cr_assert_eq(fault_count(disks[1], FAULT_READ), 2);
	cr_assert_eq(num_reads(stage.devices[0], id), 1);
}

/* A bio that map has kept, and one that end_io takes in the end. */
Test(again, goes_together_with_keeping)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev = stage_map(&stage, "m", whole);

	holds = true;
	then_keeps = true;
	stage_submit(&stage, bdev, DMCORE_OP_READ, 8, 16, buffer, &tally);
	dmcore_bio_complete(kept, DMCORE_STATUS_REQUEUE);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, -ENODATA);
	cr_assert_eq(ends, 2);
	expect_second(8, 16);
}

/* Its device isn't left in between: a suspend waits for the whole of it. */
Test(again, keeps_its_device_from_being_suspended)
{
	struct tally tally = { 0 };
	struct dmcore_bdev *bdev = stage_map(&stage, "m", whole);

	times = 50;
	stage_submit(&stage, bdev, DMCORE_OP_READ, 8, 16, buffer, &tally);
	actor_suspend(stage.devices[0], 0);
	cr_assert_eq(ends, 51);
	cr_assert_eq(tally.ended, 1);
	actor_resume(stage.devices[0]);
}
