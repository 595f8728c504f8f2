/* SPDX-License-Identifier: MIT */
/* Tables that replace others: sizes, limits, modes, and what keeps one from going live. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "map/map.h"
#include "support/actor.h"
#include "support/scratch.h"

#define SECTORS 64
/* Devices above the one whose table is replaced. */
#define HEIGHT 20

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_device *device;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

static const char half[] = "0 32 linear fault:64,id=0 0";
static const char whole[] = "0 64 linear fault:64,id=0 0";

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	actor_register(stage.core);
	disk = stage_disk(&stage, 0, SECTORS, "");
	device = actor_mapped(&stage, "m", half);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(reload, .init = set_up, .fini = tear_down);
TestSuite(swap, .init = set_up, .fini = tear_down);

static int run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return stage_run(&stage, dmcore_device_bdev(device), op, 0, sector, count, buffer);
}

static struct dmcore_limits limits_of(struct dmcore_device *of)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	cr_assert_eq(dmcore_bdev_limits(dmcore_device_bdev(of), &limits), 0);
	return limits;
}

/* ---- sizes and modes ---- */

Test(reload, grows_and_shrinks_the_device)
{
	cr_assert_eq(run(DMCORE_OP_WRITE, 32, 8), -EIO);
	actor_load(device, whole);
	cr_assert_eq(actor_info(device).size_sectors, 32, "not before it is live");
	actor_resume(device);
	cr_assert_eq(actor_info(device).size_sectors, 64);
	cr_assert_eq(dmcore_bdev_size_sectors(dmcore_device_bdev(device)), 64);
	cr_assert_eq(run(DMCORE_OP_WRITE, 32, 32), 0);
	actor_reload(device, half);
	cr_assert_eq(run(DMCORE_OP_WRITE, 32, 8), -EIO);
	cr_assert_eq(run(DMCORE_OP_WRITE, 24, 8), 0);
}

static void reload_read_only(const char *text)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(stage.core, text, DMCORE_TABLE_READ_ONLY, &table), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_not(dmcore_bdev_is_read_only(dmcore_device_bdev(device)));
	actor_resume(device);
}

Test(reload, makes_it_read_only_and_writable_again)
{
	struct scratch file;
	char text[64];

	scratch_create(&file, NULL, SECTORS * DMCORE_SECTOR_BYTES);
	snprintf(text, sizeof(text), "0 32 linear %s 0", file.path);
	actor_reload(device, text);
	reload_read_only(text);
	cr_assert(actor_info(device).read_only);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), -EROFS);
	cr_assert_eq(run(DMCORE_OP_READ, 0, 8), 0);
	actor_reload(device, text);
	cr_assert_not(actor_info(device).read_only);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), 0);
	actor_reload(device, half);
	scratch_close(&file);
}

Test(reload, of_a_writable_table_leaves_a_read_only_device_so)
{
	cr_assert_eq(dmcore_device_create(stage.core, "ro", NULL, DMCORE_OPEN_READ_ONLY, &device),
		     0);
	stage.devices[stage.num_devices++] = device;
	actor_reload(device, half);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), -EROFS);
	actor_reload(device, whole);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), -EROFS);
}

/* ---- limits ---- */

Test(reload, changes_the_block_size)
{
	actor_reload(device, "0 64 linear fault:64,id=4,block=4096 0");
	cr_assert_eq(limits_of(device).logical_block_bytes, 4096);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 1), -EINVAL);
	cr_assert_eq(run(DMCORE_OP_WRITE, 8, 8), 0);
	actor_reload(device, half);
	cr_assert_eq(limits_of(device).logical_block_bytes, 512);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 1), 0);
}

/* As in the kernel: blocks stay, what the device can do doesn't. */
Test(reload, of_a_table_without_devices_keeps_the_old_blocks)
{
	actor_reload(device, "0 64 linear fault:64,id=4,block=4096 0");
	cr_assert(limits_of(device).caps & DMCORE_CAP_WRITE_ZEROES);
	actor_reload(device, "0 64 zero");
	cr_assert_eq(limits_of(device).logical_block_bytes, 4096);
	cr_assert_not(limits_of(device).caps & DMCORE_CAP_WRITE_ZEROES);
	cr_assert_eq(run(DMCORE_OP_READ, 0, 1), -EINVAL);
	cr_assert_eq(run(DMCORE_OP_READ, 0, 8), 0);
}

/* What is above was made for other blocks: checked when it is loaded again. */
Test(reload, of_an_upper_device_looks_at_the_lower_one_again)
{
	struct dmcore_device *upper =
		actor_mapped(&stage, "upper", "0 9 linear /dev/mapper/m 1");

	actor_load(upper, "0 16 linear /dev/mapper/m 1");
	actor_reload(device, "0 64 linear fault:64,id=4,block=4096 0");
	cr_assert_eq(dmcore_device_resume(upper), -EINVAL);
	actor_reload(device, half);
	actor_resume(upper);
	cr_assert_eq(actor_info(upper).size_sectors, 16);
}

/* ---- what no longer fits: assertions 19 and 29 ---- */

static void load_then_shrink(struct dmcore_device **upper)
{
	actor_reload(device, whole);
	*upper = actor_mapped(&stage, "upper", "0 8 linear /dev/mapper/m 0");
	actor_load(*upper, "0 64 linear /dev/mapper/m 0");
	actor_reload(device, half);
}

/* In the kernel it would be destroyed, and the device left suspended: see D-028. */
Test(reload, of_what_no_longer_fits_fails_and_the_old_table_serves)
{
	struct dmcore_device *upper;
	struct dmcore_device_info info;

	load_then_shrink(&upper);
	cr_assert_eq(dmcore_device_resume(upper), -EINVAL);
	cr_assert_not_null(strstr(dmcore_error_message(), "too small for target"), "%s",
			   dmcore_error_message());
	info = actor_info(upper);
	cr_assert_not(info.suspended);
	cr_assert(info.inactive_table);
	cr_assert_eq(info.size_sectors, 8);
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(upper), DMCORE_OP_WRITE, 0, 0, 8, buffer),
		     0);
	actor_reload(device, whole);
	actor_resume(upper);
	cr_assert_eq(actor_info(upper).size_sectors, 64);
}

Test(reload, of_what_no_longer_fits_leaves_a_suspended_device_suspended)
{
	struct dmcore_device *upper;
	struct tally tally = { 0 };

	load_then_shrink(&upper);
	actor_suspend(upper, 0);
	stage_submit(&stage, dmcore_device_bdev(upper), DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	cr_assert_eq(dmcore_device_resume(upper), -EINVAL);
	cr_assert(actor_info(upper).suspended);
	cr_assert(actor_info(upper).inactive_table);
	stage_settle(&stage);
	cr_assert_eq(tally.ended, 0);
	/* Without it the old one goes on. */
	cr_assert_eq(dmcore_device_clear(upper), 0);
	actor_resume(upper);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.failed, 0);
}

/* ---- depth ---- */

/* A bio has room for so many tables that split, one upon the other. */
Test(reload, that_makes_a_device_above_too_deep_is_refused)
{
	char name[16] = "m";
	char text[128];
	struct dmcore_device *top = device;
	struct dmcore_table *table;
	unsigned int height = 0;
	int ret = 0;

	while (ret == 0 && height < HEIGHT) {
		/* Of two targets: frames for pieces, and for the actor's own. */
		snprintf(text, sizeof(text),
			 "0 16 linear /dev/mapper/%s 0\n16 16 actor 1 /dev/mapper/%s 16", name,
			 name);
		ret = dmcore_table_parse(stage.core, text, 0, &table);
		if (ret)
			break;
		snprintf(name, sizeof(name), "d%u", height++);
		top = actor_device(&stage, name);
		cr_assert_eq(dmcore_device_load(top, table), 0);
		actor_resume(top);
	}
	cr_assert_eq(ret, -ELOOP);
	/* One more below would be as many as one more above, if not at once, then soon. */
	actor_mapped(&stage, "l0", "0 16 linear fault:64,id=0 0\n16 48 actor 2 fault:64,id=0 16");
	actor_load(device, "0 16 linear /dev/mapper/l0 0\n16 16 actor 2 /dev/mapper/l0 16");
	cr_assert_eq(dmcore_device_resume(device), -ELOOP);
	cr_assert_not(actor_info(device).suspended);
	cr_assert(actor_info(device).inactive_table);
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(top), DMCORE_OP_WRITE, 0, 0, 32, buffer),
		     0);
	cr_assert_eq(dmcore_device_clear(device), 0);
	actor_reload(device, whole);
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(top), DMCORE_OP_WRITE, 0, 0, 32, buffer),
		     0);
}

/* ---- the swap itself ---- */

static int swap(struct dmcore_table **old)
{
	int ret;

	dmcore__lock(stage.core);
	ret = dmcore__device_swap(device, old);
	dmcore__unlock(stage.core);
	return ret;
}

/* Assertion 29. */
Test(swap, without_a_suspend_is_refused)
{
	struct dmcore_table *old;

	actor_load(device, whole);
	cr_assert_eq(swap(&old), -EINVAL);
	cr_assert_null(old);
	cr_assert_eq(actor_info(device).size_sectors, 32);
	cr_assert(actor_info(device).inactive_table);
}

Test(swap, without_a_table_is_refused)
{
	struct dmcore_table *old;

	actor_suspend(device, 0);
	cr_assert_eq(swap(&old), -EINVAL);
	cr_assert_null(old);
	actor_resume(device);
	cr_assert_eq(run(DMCORE_OP_WRITE, 0, 8), 0);
}

Test(swap, of_a_suspended_device_gives_the_old_table_back)
{
	struct dmcore_table *old;

	actor_reload(device, "0 32 actor 1 fault:64,id=0 0");
	actor_suspend(device, 0);
	actor_load(device, whole);
	actor_log();
	cr_assert_eq(swap(&old), 0);
	cr_assert_not_null(old);
	cr_assert_str_eq(actor_log(), "", "the old one still stands");
	cr_assert_eq(actor_info(device).size_sectors, 64);
	cr_assert(actor_info(device).suspended);
	dmcore__lock(stage.core);
	dmcore__table_destroy(old);
	dmcore__unlock(stage.core);
	cr_assert_str_eq(actor_log(), "dtr 1");
	actor_resume(device);
	cr_assert_eq(fault_count(disk, FAULT_WRITE), 0);
}
