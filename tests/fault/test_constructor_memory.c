/* SPDX-License-Identifier: MIT */
/*
 * Each allocation of a target's constructor fails. A table takes memory in chunks, so that most of
 * them ask for none: here a target before it leaves in the chunk as little as it is told.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>
#include <dmcore/driver.h>
#include <dmcore/target.h>

#include "support/fault_driver.h"
#include "support/heap.h"

/* A table's first chunk. */
#define FILL_BYTES_MAX 4096u
#define ALIGN_BYTES 8u
#define DISK "mem:1m,name=a"
#define ALLOCATIONS_MAX 3u
/* Of a target that shares several objects. */
#define ALLOCATIONS_MANY 40u

/* `fill N`: takes so much memory; the allocation after `fail_after` others fails. */
static unsigned int fail_after;

static int fill_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	uint64_t bytes;
	int ret = dmcore_args_u64(args, 0, FILL_BYTES_MAX, "no number", &bytes);

	if (ret)
		return ret;
	cr_assert_not_null(dmcore_target_alloc(target, bytes));
	heap.failed = 0;
	heap.left = fail_after + 1;
	return 0;
}

static enum dmcore_map_result fill_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	(void)bio;
	return DMCORE_MAP_KILL;
}

static const struct dmcore_target_type fill_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "fill",
	.version = { 1, 0, 0 },
	.ctr = fill_ctr,
	.map = fill_map,
};

/* `share NAME`: opens two devices in two ways, and shares an object of each; one of them allocates
 * too. */
static int create(struct dmcore *of, void *object)
{
	*(void **)object = dmcore_zalloc(of, 100);
	return *(void **)object ? 0 : -ENOMEM;
}

static void destroy(struct dmcore *of, void *object)
{
	cr_assert_not_null(*(void **)object);
	dmcore_free(of, *(void **)object);
}

static const struct dmcore_shared_type shared_types[] = {
	{ sizeof(struct dmcore_shared_type), sizeof(void *), create, destroy },
	{ sizeof(struct dmcore_shared_type), sizeof(void *), NULL, NULL },
};

static int share_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	const char *spec = dmcore_args_next(args);
	struct dmcore_bdev *bdevs[2];
	void *object;
	int ret = dmcore_target_device(target, spec, &bdevs[0]);

	if (ret == 0)
		ret = dmcore_target_device_read_only(target, "fault:64,id=a", &bdevs[1]);
	if (ret)
		return dmcore_args_fail(args, ret, "no device");
	for (unsigned int i = 0; i < 4 && ret == 0; i++)
		ret = dmcore_target_share(target, bdevs[i / 2], &shared_types[i % 2], &object);
	return ret ? dmcore_args_fail(args, ret, "can't share") : 0;
}

static int share_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn, void *context)
{
	(void)target;
	(void)fn;
	(void)context;
	return 0;
}

static const struct dmcore_target_type share_type = {
	.struct_size = sizeof(struct dmcore_target_type),
	.name = "share",
	.version = { 1, 0, 0 },
	.ctr = share_ctr,
	.map = fill_map,
	.iterate_devices = share_iterate_devices,
};

static struct dmcore *core;
static struct dmcore_bdev *bdev; /* open all the time, so that opening it once more is quick */

static void set_up(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	cr_assert_eq(dmcore_create(&options, &core), 0);
	cr_assert_eq(dmcore_target_register(core, &fill_type), 0);
	cr_assert_eq(dmcore_target_register(core, &share_type), 0);
	cr_assert_eq(fault_register(core), 0);
	cr_assert_eq(dmcore_bdev_open(core, DISK, 0, &bdev), 0);
}

static void tear_down(void)
{
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(heap.outstanding, 0);
}

TestSuite(constructor_memory, .init = set_up, .fini = tear_down);

/* Whether the target behind so much memory was refused with this text, as it has to be if one of
 * its allocations failed. */
static bool try_once(unsigned int fill_bytes, const char *params, const char *text)
{
	unsigned int before = heap.outstanding;
	struct dmcore_table *table;
	char lines[256];
	int ret;

	snprintf(lines, sizeof(lines), "0 8 fill %u\n8 64 %s", fill_bytes, params);
	ret = dmcore_table_parse(core, lines, 0, &table);
	heap.left = 0;
	cr_assert_eq(ret, heap.failed ? -ENOMEM : 0, "%s: %d, %s", lines, ret,
		     dmcore_error_message());
	cr_assert_eq(ret != 0, table == NULL);
	dmcore_table_destroy(table);
	cr_assert_eq(heap.outstanding, before, "%s: a leak", lines);
	return ret && strstr(dmcore_error_message(), text);
}

static void fails_with(const char *params, const char *text)
{
	unsigned int times = 0;

	for (unsigned int bytes = 0; bytes < FILL_BYTES_MAX; bytes += ALIGN_BYTES) {
		for (fail_after = 0; fail_after < ALLOCATIONS_MAX; fail_after++)
			times += try_once(bytes, params, text);
	}
	cr_assert_gt(times, 0, "%s: never refused with '%s'", params, text);
}

Test(constructor_memory, lack_of_it_is_told_by_each_constructor)
{
	fails_with("linear " DISK " 0", "linear: Cannot allocate linear context");
	fails_with("error " DISK " 0", "error: Cannot allocate error context");
	fails_with("striped 2 8 " DISK " 0 " DISK " 0",
		   "striped: Memory allocation for striped context failed");
	fails_with("unstriped 2 8 1 " DISK " 0",
		   "unstriped: Memory allocation for unstriped context failed");
	fails_with("dust " DISK " 0 512", "dust: Cannot allocate context");
	fails_with("delay " DISK " 0 5", "delay: Cannot allocate context");
	fails_with("flakey " DISK " 0 5 5", "flakey: Cannot allocate context");
	fails_with("flakey " DISK " 0 5 5 2 random_write_corrupt 5",
		   "flakey: Cannot allocate context");
	fails_with("switch 2 8 0 " DISK " 0 " DISK " 0",
		   "switch: Cannot allocate redirect context");
	fails_with("switch 2 8 0 " DISK " 0 " DISK " 0", "switch: Cannot allocate region table");
}

Test(constructor_memory, none_is_left_behind_by_many_targets)
{
	fails_with("linear " DISK " 0\n72 64 linear " DISK " 0\n136 64 linear " DISK " 0",
		   "linear: Cannot allocate linear context");
}

static void fails_while_sharing(const char *params)
{
	unsigned int refused[2] = { 0 };
	unsigned int taken = 0;

	for (unsigned int bytes = 0; bytes < FILL_BYTES_MAX; bytes += FILL_BYTES_MAX / 8) {
		for (fail_after = 0; fail_after < ALLOCATIONS_MANY; fail_after++) {
			refused[0] += try_once(bytes, params, "share: no device");
			refused[1] += try_once(bytes, params, "share: can't share");
			taken += heap.failed == 0;
		}
	}
	cr_assert_gt(refused[0], 0);
	cr_assert_gt(refused[1], 0);
	cr_assert_gt(taken, 0, "more allocations than were made to fail");
}

Test(constructor_memory, lack_of_it_leaves_no_shared_object)
{
	fails_while_sharing("share " DISK);
	fails_while_sharing("share " DISK "\n72 64 share " DISK);
}
