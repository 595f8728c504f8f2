/* SPDX-License-Identifier: MIT */
/*
 * Every allocation of the calls that change a running device fails, once and from then on: the call
 * says so, the old table goes on serving, and nothing leaks.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/heap.h"
#include "support/stage.h"

#define OLD_TABLE "0 64 linear fault:64,id=1 0\n64 64 linear fault:64,id=2 0"
#define NEW_TABLE "0 32 striped 2 8 fault:64,id=3 0 fault:64,id=1 32\n32 32 linear mem:64s 8"

static struct stage stage;
static struct dmcore_device *device;
static struct fault_disk *disk; /* under the first half of the old table */

static void open_running(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 1, 64, "");
	stage_map(&stage, "m", OLD_TABLE);
	device = dmcore_device_find(stage.core, "m");
}

/* A request goes through, and to the old table's disk. */
static void serves(void)
{
	static unsigned char sector[DMCORE_SECTOR_BYTES];
	unsigned int before = fault_count(disk, 0);

	cr_assert_eq(stage_run(&stage, dmcore_device_bdev(device), DMCORE_OP_WRITE, 0, 40, 1,
			       sector),
		     0);
	cr_assert_eq(fault_count(disk, 0), before + 1);
}

static int (*scenario)(void);
static void (*undo)(void);

static int run_scenario(void *context)
{
	(void)context;
	return scenario();
}

static void see_that_it_serves(void *context, int ret)
{
	(void)context;
	if (ret)
		serves();
	undo();
	serves();
}

/*
 * `what` returns what went wrong; whatever it was, the old table must serve, and again when by
 * `undo_it` what it did is undone.
 */
static void fail_each(int (*what)(void), void (*undo_it)(void))
{
	struct heap_loop loop = { .scenario = run_scenario, .after = see_that_it_serves };

	scenario = what;
	undo = undo_it;
	for (unsigned int for_good = 0; for_good < 2; for_good++) {
		open_running();
		/* Some memory stays for the next time. */
		cr_assert_eq(scenario(), 0, "%s", dmcore_error_message());
		undo();
		heap_fail_each(&loop, for_good);
		stage_close(&stage);
		cr_assert_eq(heap.outstanding, 0);
	}
}

static void undo_nothing(void)
{
}

/* ---- tables ---- */

static int load(const char *text)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(stage.core, text, 0, &table);

	if (ret)
		return ret;
	ret = dmcore_device_load(device, table);
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

static int load_new(void)
{
	return load(NEW_TABLE);
}

static void clear(void)
{
	cr_assert_eq(dmcore_device_clear(device), 0);
}

Test(reload_memory, loading_into_a_running_device)
{
	fail_each(load_new, clear);
}

/* Leaves the new table in the live slot only if all of it went well. */
static int swap(void)
{
	int ret = load_new();

	if (ret == 0)
		ret = dmcore_device_resume(device);
	return ret;
}

static void swap_back(void)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	cr_assert_eq(dmcore_device_info(device, &info), 0);
	cr_assert_not(info.suspended);
	clear();
	if (info.size_sectors == 128)
		return;
	cr_assert_eq(load(OLD_TABLE), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
}

Test(reload_memory, replacing_a_running_table)
{
	fail_each(swap, swap_back);
}

/* The table is there: what resuming itself allocates, if anything, fails. */
static int suspend_and_swap(void)
{
	int ret = load_new();

	if (ret == 0)
		ret = dmcore_device_suspend(device, 0, -1);
	if (ret)
		return ret;
	ret = dmcore_device_resume(device);
	/* With the old table still in its slot. */
	if (ret) {
		clear();
		cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
	}
	return ret;
}

Test(reload_memory, suspending_and_replacing)
{
	fail_each(suspend_and_swap, swap_back);
}

/* ---- suspending takes no memory, so it can't fail for want of it ---- */

Test(reload_memory, suspending_resuming_and_swapping_take_no_memory)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };

	open_running();
	heap.for_good = true;
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(load(i % 2 ? OLD_TABLE : NEW_TABLE), 0);
		atomic_store(&heap.failed, 0);
		atomic_store(&heap.left, 1);
		cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
		cr_assert_eq(dmcore_device_resume(device), 0);
		cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, -1), 0);
		cr_assert_eq(dmcore_device_resume(device), 0);
		atomic_store(&heap.left, 0);
		cr_assert_eq(heap.failed, 0);
	}
	cr_assert_eq(dmcore_device_info(device, &info), 0);
	cr_assert_eq(info.size_sectors, 64);
	stage_close(&stage);
	cr_assert_eq(heap.outstanding, 0);
}

/* ---- all the rest ---- */

static int send_message(void)
{
	char reply[16];
	int64_t ret = dmcore_device_message(device, 0, "@stats_list", reply, sizeof(reply));

	return ret < 0 ? (int)ret : 0;
}

Test(reload_memory, sending_a_message)
{
	fail_each(send_message, undo_nothing);
}

static int make_region(void)
{
	char reply[16];
	int64_t ret = dmcore_device_message(device, 0, "@stats_create - /4 1 histogram:1,2 me you",
					    reply, sizeof(reply));

	return ret < 0 ? (int)ret : 0;
}

static void delete_regions(void)
{
	char text[64];

	for (unsigned int i = 0; i < 4; i++) {
		snprintf(text, sizeof(text), "@stats_delete %u", i);
		(void)dmcore_device_message(device, 0, text, NULL, 0);
	}
}

Test(reload_memory, making_a_region_of_statistics)
{
	fail_each(make_region, delete_regions);
}

static int rename_it(void)
{
	return dmcore_device_rename(device, "another");
}

static void rename_back(void)
{
	if (strcmp(dmcore_device_name(device), "m") != 0)
		cr_assert_eq(dmcore_device_rename(device, "m"), 0);
}

Test(reload_memory, renaming)
{
	fail_each(rename_it, rename_back);
}

static struct dmcore_device *unnamed;

static int set_uuid(void)
{
	int ret = dmcore_device_create(stage.core, "u", NULL, 0, &unnamed);

	return ret ? ret : dmcore_device_set_uuid(unnamed, "a-uuid");
}

static void remove_unnamed(void)
{
	cr_assert_eq(dmcore_device_remove(unnamed), 0);
	unnamed = NULL;
}

Test(reload_memory, setting_a_uuid)
{
	fail_each(set_uuid, remove_unnamed);
}

static struct dmcore_watch *watch;

static int watch_it(void)
{
	return dmcore_watch_create(device, 0, NULL, NULL, NULL, &watch);
}

static void unwatch(void)
{
	dmcore_watch_destroy(watch);
	watch = NULL;
}

Test(reload_memory, watching)
{
	fail_each(watch_it, unwatch);
}
