/* SPDX-License-Identifier: MIT */
/* Memory of statistics (map/stats_region.c, map/stats_lane.c): every allocation fails once, and
 * what is made is freed. */
#include <errno.h>

#include <criterion/criterion.h>

#include "map/map.h"
#include "support/heap.h"
#include "support/stage.h"

static struct stage stage;
static struct dmcore_bdev *bdev;
static struct dmcore_device *device;
static unsigned char buffer[8 * DMCORE_SECTOR_BYTES];

static void create(struct dmcore_device *on)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int id = dmcore_stats_create(on, &options);

	cr_assert_geq(id, 0, "%d: %s", id, dmcore_error_message());
}

static void open_failing_stage(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	heap_use(&options);
	stage_open(&stage, &options, NULL);
	bdev = stage_map(&stage, "d", "0 512 zero\n512 512 zero");
	device = stage.devices[0];
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(stats_memory, .init = open_failing_stage, .fini = close_stage);

static int make_regions(void *unused)
{
	static const uint64_t bounds[] = { 1, 2, 3 };
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	char text[256];
	int64_t length;
	int id;

	(void)unused;
	options.bounds = bounds;
	options.num_bounds = 3;
	options.program = "program";
	options.aux = "aux";
	options.flags = DMCORE_STATS_BY_TARGET;
	id = dmcore_stats_create(device, &options);
	if (id < 0)
		return id;
	length = dmcore_device_message(device, 0, "@stats_create - 100 1 histogram:1,2", text,
				       sizeof(text));
	if (length >= 0)
		length = dmcore_device_message(device, 0, "@stats_print 1", text, sizeof(text));
	if (length >= 0)
		length = dmcore_device_message(device, 0, "@stats_set_aux 1 a", text, sizeof(text));
	if (length >= 0)
		length = dmcore_device_message(device, 0, "@stats_list", text, sizeof(text));
	(void)dmcore_stats_delete(device, 1);
	cr_assert_eq(dmcore_stats_delete(device, 0), 0);
	return length < 0 ? (int)length : 0;
}

static void see_that_it_serves(void *unused, int ret)
{
	(void)unused;
	(void)ret;
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0, 8, buffer), 0);
}

Test(stats_memory, making_regions_survives_every_failure)
{
	struct heap_loop loop = { .scenario = make_regions, .after = see_that_it_serves };

	heap_fail_each(&loop, false);
	heap_fail_each(&loop, true);
}

static int make_queue(void *unused)
{
	struct dmcore_queue *queue;
	int ret = dmcore_queue_create(stage.core, NULL, &queue);

	(void)unused;
	if (ret == 0)
		cr_assert_eq(dmcore_queue_destroy(queue), 0);
	return ret;
}

Test(stats_memory, making_a_queue_survives_every_failure)
{
	struct heap_loop loop = { .scenario = make_queue };

	create(device);
	create(device);
	heap_fail_each(&loop, false);
	heap_fail_each(&loop, true);
}

Test(stats_memory, regions_go_with_their_device)
{
	unsigned int before;
	struct dmcore_device *other;

	create(device);
	before = heap.outstanding;
	stage_map(&stage, "e", "0 8 zero");
	other = stage.devices[--stage.num_devices];
	create(other);
	create(other);
	cr_assert_eq(dmcore_device_remove(other), 0);
	cr_assert_eq(heap.outstanding, before);
}

Test(stats_memory, counters_take_at_most_a_quarter_of_it)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	unsigned int before = heap.outstanding;
	struct dmcore_queue *queue;

	/* As if others took nearly all of it. */
	stage.core->map->stats_bytes = UINT64_MAX / 2;
	cr_assert_eq(dmcore_stats_create(device, &options), -ENOMEM);
	cr_assert_eq(heap.outstanding, before);
	stage.core->map->stats_bytes = 0;
	create(device);
	before = heap.outstanding;
	stage.core->map->stats_bytes += UINT64_MAX / 2;
	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &queue), -ENOMEM);
	cr_assert_eq(dmcore_stats_create(device, &options), -ENOMEM);
	cr_assert_eq(heap.outstanding, before);
	stage.core->map->stats_bytes -= UINT64_MAX / 2;
	cr_assert_eq(dmcore_stats_delete(device, 0), 0);
	cr_assert_eq(stage.core->map->stats_bytes, 0);
}
