/* SPDX-License-Identifier: MIT */
/* What a target may do while its device is about to be resumed, and what it tells of itself. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/target.h>

#include "map/map.h"
#include "support/actor.h"

#define SECTORS 64

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_device *device;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];

/* What the next preresume does. */
static uint32_t max_io_sectors;
static int error;
static bool waits;
static struct dmcore_target *newest;

static void return_call(struct dmcore_call *call)
{
	dmcore_service_return(call, -ENODATA);
}

/* changer DEVICE MAX */
static int changer_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	struct dmcore_bdev *bdev;
	uint64_t max = 0;
	int ret = dmcore_target_device(target, dmcore_args_next(args), &bdev);

	target->private_data = bdev;
	if (ret == 0)
		ret = dmcore_args_u64(args, 0, UINT32_MAX, "no maximum", &max);
	target->max_io_sectors = (uint32_t)max;
	newest = target;
	return ret;
}

static enum dmcore_map_result changer_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	bio->bdev = target->private_data;
	return DMCORE_MAP_REMAPPED;
}

static int changer_preresume(struct dmcore_target *target)
{
	struct dmcore_call call = { .fn = return_call };

	if (error)
		return dmcore_target_fail(target, error, "it is %d, %s", 42, "as told");
	if (max_io_sectors)
		target->max_io_sectors = max_io_sectors;
	if (waits)
		cr_assert_eq(dmcore_service_call(dmcore_target_core(target), &call), -ENODATA);
	return 0;
}

/* The control lock is held by whoever destroys the table. */
static void changer_dtr(struct dmcore_target *target)
{
	struct dmcore_call call = { .fn = return_call };

	if (waits)
		cr_assert_eq(dmcore_service_call(dmcore_target_core(target), &call), -ENODATA);
}

static int changer_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				   void *context)
{
	return fn(target, target->private_data, 0, dmcore_target_len(target), context);
}

static void changer_io_hints(struct dmcore_target *target, struct dmcore_limits *limits)
{
	limits->max_io_sectors = target->max_io_sectors;
}

static const struct dmcore_target_type changer_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "changer",
	.version = { 1, 0, 0 },
	.ctr = changer_ctr,
	.dtr = changer_dtr,
	.map = changer_map,
	.preresume = changer_preresume,
	.iterate_devices = changer_iterate_devices,
	.io_hints = changer_io_hints,
};

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	cr_assert_eq(dmcore_target_register(stage.core, &changer_type), 0);
	disk = stage_disk(&stage, 0, SECTORS, "");
	pattern_fill(fault_data(disk), 0, SECTORS, 1);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(preresume, .init = set_up, .fini = tear_down);

static void map(const char *text)
{
	stage_map(&stage, "m", text);
	device = stage.devices[0];
}

/* How many requests a read of all sectors comes to. */
static unsigned int num_pieces(void)
{
	fault_clear_log(disk);
	memset(buffer, 0, sizeof(buffer));
	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(device), DMCORE_OP_READ, 0, 0, SECTORS,
			       buffer), 0);
	cr_assert_eq(pattern_differs(buffer, 0, SECTORS, 1), -1);
	return fault_count(disk, FAULT_READ);
}

static void change_to(uint32_t max)
{
	actor_suspend(device, 0);
	max_io_sectors = max;
	actor_resume(device);
}

Test(preresume, may_split_otherwise_from_then_on)
{
	map("0 64 changer fault:64,id=0 16");
	cr_assert_eq(num_pieces(), 4);
	change_to(8);
	cr_assert_eq(num_pieces(), 8);
	change_to(SECTORS);
	cr_assert_eq(num_pieces(), 1);
	change_to(32);
	cr_assert_eq(num_pieces(), 2);
	change_to(12);
	cr_assert_eq(num_pieces(), 6);
}

/* Of a table that nothing was split for so far: it has room for pieces on the way back. */
Test(preresume, may_begin_to_split)
{
	max_io_sectors = 4;
	map("0 64 changer fault:64,id=0 64");
	cr_assert_eq(num_pieces(), 16);
}

/* As deep as devices can be stacked. */
Test(preresume, may_begin_to_split_at_any_depth)
{
	char text[64];
	unsigned int n;

	map("0 64 changer fault:64,id=0 1000");
	for (n = 1; n < DMCORE_STACK_DEPTH_MAX; n++) {
		struct dmcore_table *table;
		char name[16];
		char below[16];

		snprintf(name, sizeof(name), "d%u", n);
		snprintf(below, sizeof(below), "d%u", n - 1);
		snprintf(text, sizeof(text), "0 64 changer %s 1000", n == 1 ? "m" : below);
		if (dmcore_table_parse(stage.core, text, 0, &table)) {
			cr_assert_not_null(strstr(dmcore_error_message(), "too deep"));
			break;
		}
		dmcore_table_destroy(table);
		stage_map(&stage, name, text);
	}
	cr_assert_gt(n, 3);
	for (unsigned int i = 0; i < n; i++) {
		device = stage.devices[i];
		change_to(32 >> (i > 4 ? 4 : i));
	}
	device = stage.devices[n - 1];
	cr_assert_geq(num_pieces(), 32);
}

Test(preresume, may_split_otherwise_without_new_limits)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct dmcore_stats_area area;
	int id;

	map("0 64 changer fault:64,id=0 16");
	id = dmcore_stats_create(device, &options);
	cr_assert_geq(id, 0);
	change_to(8);
	cr_assert_eq(dmcore_bdev_limits(dmcore_device_bdev(device), &limits), 0);
	cr_assert_eq(limits.max_io_sectors, 16, "what io_hints has said before");
	cr_assert_eq(num_pieces(), 8);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 1, &area, sizeof(area), NULL), 1);
	cr_assert_eq(area.reads, 1, "counted whole, whatever it is split into");
	cr_assert_eq(area.read_sectors, SECTORS);
}

/* With statistics the plain target is asked for in another place. */
Test(preresume, may_begin_to_split_what_is_counted)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;

	map("0 64 changer fault:64,id=0 64");
	cr_assert_geq(dmcore_stats_create(device, &options), 0);
	change_to(8);
	cr_assert_eq(num_pieces(), 8);
}

/* ---- words ---- */

Test(preresume, tells_why_it_fails)
{
	map("0 64 changer fault:64,id=0 0");
	actor_suspend(device, 0);
	error = -ENOSPC;
	cr_assert_eq(dmcore_device_resume(device), -ENOSPC);
	cr_assert_str_eq(dmcore_error_message(),
			 "m: changer: preresume failed, error = -28: it is 42, as told");
	error = 0;
	actor_resume(device);
}

static void *log_from_thread(void *unused)
{
	dmcore_target_log(newest, DMCORE_LOG_WARNING, "sector %d of %s", 7, "a disk");
	return unused;
}

Test(preresume, logs_with_the_name_of_the_type)
{
	unsigned int before;
	pthread_t thread;
	char longest[2 * DMCORE_ERROR_BYTES_MAX];

	map("0 64 changer fault:64,id=0 0");
	before = stage.num_logged;
	dmcore_target_log(newest, DMCORE_LOG_ERROR, "all is %s", "lost");
	cr_assert_eq(stage.num_logged, before + 1);
	cr_assert_str_eq(stage.logged, "changer: all is lost");
	dmcore_target_log(newest, DMCORE_LOG_DEBUG, "not so bad");
	cr_assert_eq(stage.num_logged, before + 1, "the level is passed on");
	cr_assert_eq(pthread_create(&thread, NULL, log_from_thread, NULL), 0);
	pthread_join(thread, NULL);
	cr_assert_str_eq(stage.logged, "changer: sector 7 of a disk");
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	dmcore_target_log(newest, DMCORE_LOG_ERROR, "%s", longest);
	cr_assert_eq(strncmp(stage.logged, "changer: xxxx", 13), 0);
}

/* ---- the service ---- */

Test(preresume, may_wait_for_the_service_and_so_may_a_destructor)
{
	waits = true;
	map("0 64 changer fault:64,id=0 0");
	actor_reload(device, "0 64 changer fault:64,id=0 16");
	cr_assert_eq(num_pieces(), 4);
	actor_suspend(device, 0);
	actor_resume(device);
	actor_forget(&stage, device);
	cr_assert_eq(dmcore_device_remove(device), 0);
}
