/* SPDX-License-Identifier: MIT */
/* What targets, drivers and callers may get wrong without harm to data or memory (bdev/, map/). */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "bdev/bdev.h"
#include "queue/queue.h"
#include "support/stage.h"

static struct stage stage;

static void open_stage(void)
{
	stage_open(&stage, NULL, NULL);
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(misuse, .init = open_stage, .fini = close_stage);

/* ---- a target that sends bios where it shouldn't, or asks for a flush on the way ---- */

struct shaper {
	struct dmcore_bdev *bdev;
	uint64_t shift; /* taken off the sector; wraps */
	uint64_t flags; /* put on the bio */
};

static int shaper_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct shaper *shaper = dmcore_target_alloc(target, sizeof(*shaper));
	const char *spec = dmcore_args_next(args);

	cr_assert_not_null(shaper);
	target->private_data = shaper;
	cr_assert_eq(dmcore_args_u64(args, 0, UINT64_MAX, "shift", &shaper->shift), 0);
	cr_assert_eq(dmcore_args_u64(args, 0, UINT64_MAX, "flags", &shaper->flags), 0);
	return dmcore_target_device(target, spec, &shaper->bdev);
}

static enum dmcore_map_result shaper_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	const struct shaper *shaper = target->private_data;

	bio->bdev = shaper->bdev;
	bio->sector -= shaper->shift;
	bio->flags |= (uint16_t)shaper->flags;
	return DMCORE_MAP_REMAPPED;
}

static int shaper_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	const struct shaper *shaper = target->private_data;

	return fn(target, shaper->bdev, 0, dmcore_target_len(target), context);
}

static const struct dmcore_target_type shaper_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "shaper",
	.version = { 1, 0, 0 },
	.ctr = shaper_ctr,
	.map = shaper_map,
	.iterate_devices = shaper_iterate_devices,
};

Test(misuse, a_sector_before_the_device_is_an_error)
{
	struct dmcore_bdev *onto_leaf;
	struct dmcore_bdev *onto_mapped;
	char buffer[8 * 512] = { 0 };

	cr_assert_eq(dmcore_target_register(stage.core, &shaper_type), 0);
	onto_leaf = stage_map(&stage, "l", "0 64 shaper mem:64s,name=a 4 0");
	stage_map(&stage, "m", "0 64 linear mem:64s,name=b 0");
	onto_mapped = stage_map(&stage, "n", "0 64 shaper m 4 0");
	cr_assert_eq(stage_run(&stage, onto_leaf, DMCORE_OP_WRITE, 0, 0, 8, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, onto_mapped, DMCORE_OP_WRITE, 0, 0, 8, buffer), -EIO);
}

Test(misuse, a_preflush_that_a_target_asks_for_reaches_every_leg_below)
{
	struct fault_disk *a = stage_disk(&stage, 1, 64, "");
	struct fault_disk *b = stage_disk(&stage, 2, 64, "");
	struct dmcore_bdev *top;
	char buffer[8 * 512] = { 0 };
	char text[64];

	cr_assert_eq(dmcore_target_register(stage.core, &shaper_type), 0);
	stage_map(&stage, "set",
		  "0 128 striped 2 16 fault:64,id=1 0 fault:64,id=2 0");
	snprintf(text, sizeof(text), "0 128 shaper set 0 %u", DMCORE_BIO_PREFLUSH);
	top = stage_map(&stage, "top", text);
	cr_assert_eq(stage_run(&stage, top, DMCORE_OP_WRITE, 0, 0, 8, buffer), 0);
	cr_assert_eq(fault_count(a, FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(b, FAULT_FLUSH), 1);
}

/* ---- a device between the flush and the write of a PREFLUSH ---- */

static uint64_t num_inside_at_write;
static char watch_data[64 * 512];

static int watch_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	(void)args;
	(void)flags;
	dmcore__limits_default(&limits);
	limits.caps = DMCORE_CAP_VOLATILE_CACHE;
	dmcore_bdev_set_size(bdev, 64);
	return dmcore_bdev_set_limits(bdev, &limits);
}

static void watch_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void watch_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	if (bio->op == DMCORE_OP_WRITE) {
		num_inside_at_write = dmcore__slot_inflight(bdev->core, bdev->slot);
		dmcore_bio_copy(bio, watch_data + bio->sector * 512);
	}
	dmcore_bio_complete(bio, 0);
}

static const struct dmcore_driver watch_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "watch",
	.open = watch_open,
	.close = watch_close,
	.submit = watch_submit,
};

/* One that is left before it is entered again can be closed in between by another thread. */
Test(misuse, a_device_is_not_left_between_a_flush_and_its_write)
{
	char buffer[512] = { 0 };
	struct dmcore_bdev *bdev;

	cr_assert_eq(dmcore_driver_register(stage.core, &watch_driver), 0);
	bdev = stage_bdev(&stage, "watch:", 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, DMCORE_BIO_PREFLUSH, 0, 1, buffer),
		     0);
	cr_assert_eq(num_inside_at_write, 2);
	cr_assert_eq(dmcore__slot_inflight(stage.core, bdev->slot), 0);
}

/* ---- callers ---- */

Test(misuse, a_split_that_would_need_a_longer_offset_is_refused)
{
	uint64_t bytes = UINT64_C(6) << 30;
	struct dmcore_bdev *set = stage_map(&stage, "set", "0 64 striped 2 8 mem:1M 0 mem:1M 0");
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);
	struct dmio_bvec vec = { .len_bytes = bytes };

	if (sizeof(size_t) < 8)
		cr_skip("no buffer can be that long");
	vec.base = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			0);
	cr_assert_neq(vec.base, MAP_FAILED);
	bio->bdev = set;
	bio->op = DMCORE_OP_WRITE;
	bio->count = 16;
	bio->vecs = &vec;
	bio->num_vecs = 1;
	bio->vec_offset_bytes = 0xfffffe00;
	cr_assert_eq(dmcore_bio_submit(bio), -EINVAL);
	dmcore_bio_put(bio);
	munmap(vec.base, bytes);
}

Test(misuse, a_bio_that_waits_to_be_reaped_is_not_yet_the_submitter_s)
{
	struct dmcore_bdev *zero = stage_map(&stage, "zero", "0 8 zero");
	struct dmcore_bio *bio = dmcore_bio_get(stage.queue);
	struct dmcore_bio *reaped[4];

	bio->bdev = zero;
	bio->op = DMCORE_OP_DISCARD;
	bio->count = 8;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	bio->bdev = zero;
	cr_assert_eq(dmcore_bio_submit(bio), -EBUSY);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped, 4), 1);
	cr_assert_eq(reaped[0], bio);
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped, 4), 0);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(dmcore_queue_poll(stage.queue, 1, 1, STAGE_PATIENCE_NS), 1);
	cr_assert_eq(dmcore_queue_reap(stage.queue, reaped, 4), 1);
	dmcore_bio_put(bio);
}

Test(misuse, a_table_s_opening_can_t_be_closed_by_others)
{
	struct dmcore_bdev *lower = stage_map(&stage, "lower", "0 8 zero");
	struct dmcore_bdev *upper = stage_map(&stage, "upper", "0 8 linear lower 0");

	cr_assert_eq(dmcore_bdev_close(lower), -EINVAL);
	cr_assert_eq(dmcore_device_remove(dmcore_device_find(stage.core, "lower")), -EBUSY);
	cr_assert_eq(stage_run(&stage, upper, DMCORE_OP_DISCARD, 0, 0, 8, NULL), 0);
}
