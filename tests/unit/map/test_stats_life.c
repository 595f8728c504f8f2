/* SPDX-License-Identifier: MIT */
/* Regions of statistics come and go, as queues, tables and requests do (map/stats.c,
 * map/stats_lane.c). */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "map/map.h"
#include "support/stage.h"

#define SECTORS 1024
#define ROUNDS 60u
#define LEVELS 60u

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_bdev *bdev;
static struct dmcore_device *device;
static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];

static void open_stage(void)
{
	stage_open(&stage, NULL, NULL);
	disk = stage_disk(&stage, 1, SECTORS, "");
	bdev = stage_map(&stage, "d", "0 1024 linear fault:1024,id=1 0");
	device = stage.devices[0];
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(stats_life, .init = open_stage, .fini = close_stage);

static int create(struct dmcore_device *on)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int id = dmcore_stats_create(on, &options);

	cr_assert_geq(id, 0, "%d: %s", id, dmcore_error_message());
	return id;
}

static struct dmcore_stats_area read_one(int id)
{
	struct dmcore_stats_area area;
	int64_t left = dmcore_stats_read(device, id, 0, 1, &area, sizeof(area), NULL);

	cr_assert_geq(left, 1, "%lld: %s", (long long)left, dmcore_error_message());
	return area;
}

static void run_on(struct dmcore_queue *queue, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		struct dmcore_bio *bio = dmcore_bio_get(queue);
		struct tally tally = { 0 };

		cr_assert_not_null(bio);
		bio->bdev = bdev;
		bio->op = DMCORE_OP_READ;
		bio->sector = 16 * (uint64_t)i;
		dmcore_bio_set_buffer(bio, buffer, 8 * DMCORE_SECTOR_BYTES);
		bio->done = tally_done;
		bio->context = &tally;
		cr_assert_eq(dmcore_bio_submit(bio), 0);
		while (tally.ended == 0)
			cr_assert_geq(dmcore_queue_poll(queue, 1, 1, STAGE_PATIENCE_NS), 0);
		cr_assert_eq(tally.status, 0);
	}
}

static struct dmcore_queue *make_queue(void)
{
	struct dmcore_queue *queue;

	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &queue), 0, "%s",
		     dmcore_error_message());
	return queue;
}

Test(stats_life, queues_are_added_up)
{
	struct dmcore_queue *other = make_queue();
	int id = create(device);

	run_on(stage.queue, 2);
	run_on(other, 3);
	cr_assert_eq(read_one(id).reads, 5);
	cr_assert_eq(dmcore_queue_destroy(other), 0);
}

Test(stats_life, what_a_queue_has_counted_outlives_it)
{
	struct dmcore_queue *other = make_queue();
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	static const uint64_t bounds[] = { UINT64_MAX };
	struct dmcore_stats_area area;
	uint64_t buckets[2];
	int id;

	options.num_bounds = 1;
	options.bounds = bounds;
	id = dmcore_stats_create(device, &options);
	cr_assert_eq(id, 0);
	run_on(other, 3);
	cr_assert_eq(dmcore_queue_destroy(other), 0);
	run_on(stage.queue, 1);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 1, &area, sizeof(area), buckets), 1);
	cr_assert_eq(area.reads, 4);
	cr_assert_eq(area.read_sectors, 32);
	cr_assert_eq(buckets[0], 4);
	cr_assert_eq(buckets[1], 0);
	cr_assert_eq(dmcore_stats_clear(device, id), 0);
	cr_assert_eq(read_one(id).reads, 0);
}

Test(stats_life, queue_made_later_is_counted)
{
	int id = create(device);
	struct dmcore_queue *other = make_queue();

	run_on(other, 3);
	cr_assert_eq(read_one(id).reads, 3);
	cr_assert_eq(dmcore_queue_destroy(other), 0);
	/* The next one has its index, and not its counts. */
	other = make_queue();
	cr_assert_eq(read_one(id).reads, 3);
	run_on(other, 1);
	cr_assert_eq(read_one(id).reads, 4);
	cr_assert_eq(dmcore_queue_destroy(other), 0);
}

Test(stats_life, plain_io_is_counted)
{
	int id = create(device);

	cr_assert_eq(dmcore_pread(bdev, buffer, 4096, 0), 0, "%s", dmcore_error_message());
	cr_assert_eq(read_one(id).reads, 1);
	cr_assert_eq(read_one(id).read_sectors, 8);
}

Test(stats_life, requests_are_only_counted_while_there_is_a_region)
{
	int id;

	run_on(stage.queue, 1);
	id = create(device);
	cr_assert_eq(read_one(id).reads, 0);
	run_on(stage.queue, 1);
	cr_assert_eq(dmcore_stats_delete(device, id), 0);
	run_on(stage.queue, 1);
	id = create(device);
	cr_assert_eq(read_one(id).reads, 0);
	run_on(stage.queue, 1);
	cr_assert_eq(read_one(id).reads, 1);
}

Test(stats_life, time_passes_by_either_clock)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct fault_rule rule = { .action = FAULT_HOLD };
	struct tally tally = { 0 };
	int id = create(device);

	for (unsigned int i = 0; i < 2; i++) {
		fault_add_rule(disk, &rule);
		stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 8, buffer, &tally);
		/* Longer than a tick of the coarse clock. */
		stage_sleep_ns(20000000);
		cr_assert_gt(read_one(id).busy_ns, 0);
		fault_release_all(disk);
		stage_wait(&stage, &tally, i + 1);
		fault_clear_rules(disk);
		cr_assert_gt(read_one(id).read_ns, 0);
		cr_assert_geq(read_one(id).weighted_ns, read_one(id).busy_ns);
		cr_assert_eq(dmcore_stats_delete(device, id), 0);
		options.flags = DMCORE_STATS_PRECISE;
		id = dmcore_stats_create(device, &options);
		cr_assert_geq(id, 0);
	}
}

/* On kernels without membarrier(). */
Test(stats_life, requests_with_a_fence_are_counted)
{
	int id = create(device);

	cr_assert(atomic_load(&bdev->route) == dmcore__map_route_counted ||
		  atomic_load(&bdev->route) == dmcore__map_route_counted_fenced);
	atomic_store(&bdev->route, dmcore__map_route_counted_fenced);
	run_on(stage.queue, 3);
	cr_assert_eq(read_one(id).reads, 3);
	cr_assert_eq(dmcore_stats_delete(device, id), 0);
	cr_assert(atomic_load(&bdev->route) == dmcore__map_route ||
		  atomic_load(&bdev->route) == dmcore__map_route_fenced);
}

static struct dmcore_table *parse(const char *text)
{
	struct dmcore_table *table;

	cr_assert_eq(dmcore_table_parse(stage.core, text, 0, &table), 0, "%s",
		     dmcore_error_message());
	return table;
}

Test(stats_life, region_stays_when_the_table_is_replaced)
{
	int id = create(device);

	run_on(stage.queue, 1);
	cr_assert_eq(dmcore_device_load(device, parse("0 512 zero")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	run_on(stage.queue, 1);
	cr_assert_eq(read_one(id).reads, 2);
	cr_assert_eq(read_one(id).length_sectors, SECTORS);
}

Test(stats_life, region_may_come_before_the_first_table)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int id;

	cr_assert_eq(dmcore_device_create(stage.core, "e", NULL, 0, &device), 0);
	stage.devices[stage.num_devices++] = device;
	bdev = dmcore_device_bdev(device);
	cr_assert_eq(dmcore_stats_create(device, &options), -EINVAL);
	options.length_sectors = 100;
	options.flags = DMCORE_STATS_BY_TARGET;
	cr_assert_eq(dmcore_stats_create(device, &options), -EINVAL);
	options.flags = 0;
	id = dmcore_stats_create(device, &options);
	cr_assert_eq(id, 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_load(device, parse("0 1024 zero")), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	run_on(stage.queue, 2);
	cr_assert_eq(read_one(id).reads, 2);
}

Test(stats_life, regions_of_a_suspended_device_come_and_go)
{
	struct tally tally = { 0 };
	int id = create(device);

	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 8, buffer, &tally);
	/* It waits outside: in flight for the queue, not for the device. */
	cr_assert_eq(read_one(id).in_flight, 0);
	cr_assert_eq(dmcore_stats_delete(device, id), 0);
	id = create(device);
	cr_assert_eq(dmcore_device_resume(device), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(read_one(id).reads, 1);
	cr_assert_eq(read_one(id).in_flight, 0);
}

static void *release_soon(void *argument)
{
	(void)argument;
	stage_sleep_ns(1000000);
	fault_release_all(disk);
	return NULL;
}

Test(stats_life, making_a_region_waits_for_those_in_flight)
{
	struct fault_rule rule = { .action = FAULT_HOLD, .times = 2 };
	static struct tally tally;
	pthread_t thread;
	int id;

	run_on(stage.queue, 1);
	fault_add_rule(disk, &rule);
	stage_submit(&stage, bdev, DMCORE_OP_READ, 0, 8, buffer, &tally);
	stage_submit(&stage, bdev, DMCORE_OP_READ, 8, 8, buffer, &tally);
	cr_assert_eq(pthread_create(&thread, NULL, release_soon, NULL), 0);
	id = create(device);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(tally.ended, 2);
	cr_assert_eq(read_one(id).reads, 0);
	cr_assert_eq(read_one(id).in_flight, 0);
}

static int refusal;

static void create_in_callback(struct dmcore_bio *bio)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;

	refusal = dmcore_stats_create(device, &options);
	tally_done(bio);
}

Test(stats_life, completion_can_not_make_a_region)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio =
		stage_bio(&stage, bdev, DMCORE_OP_READ, 0, 8, buffer, &tally);

	bio->done = create_in_callback;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(refusal, -EDEADLK);
}

/* ---- pushed back ---- */

static struct dmcore_bdev *below;

static int again_ctr(struct dmcore_target *target, struct dmcore_args *args)
{
	if (dmcore_target_device(target, dmcore_args_next(args), &below))
		return dmcore_args_fail(args, -EINVAL, "Device lookup failed");
	return 0;
}

static enum dmcore_map_result again_map(struct dmcore_target *target, struct dmcore_bio *bio)
{
	(void)target;
	bio->bdev = below;
	return DMCORE_MAP_REMAPPED;
}

static enum dmcore_end_result again_end(struct dmcore_target *target, struct dmcore_bio *bio,
					int *status)
{
	(void)bio;
	if (*status == 0)
		return DMCORE_END_DONE;
	return dmcore_target_noflush(target) || *status == -EAGAIN ? DMCORE_END_REQUEUE
								   : DMCORE_END_DONE;
}

static bool lets_go_late; /* when the suspend has been given up */

/* While the device is being suspended, what is held fails. */
static void again_presuspend(struct dmcore_target *target)
{
	(void)target;
	while (!lets_go_late && fault_num_held(disk))
		fault_release(disk, 0, -EIO);
}

static void again_presuspend_undo(struct dmcore_target *target)
{
	(void)target;
	while (fault_num_held(disk))
		fault_release(disk, 0, -EAGAIN);
}

static int again_iterate_devices(struct dmcore_target *target, dmcore_iterate_fn fn,
				 void *context)
{
	return fn(target, below, 0, dmcore_target_len(target), context);
}

static const struct dmcore_target_type again_type = {
	.struct_size = sizeof(again_type),
	.name = "again",
	.features = DMCORE_TARGET_TYPE_REQUEUES,
	.ctr = again_ctr,
	.map = again_map,
	.end_io = again_end,
	.iterate_devices = again_iterate_devices,
	.presuspend = again_presuspend,
	.presuspend_undo = again_presuspend_undo,
};

Test(stats_life, request_that_is_pushed_back_counts_once)
{
	struct fault_rule rule = { .action = FAULT_HOLD, .times = 1 };
	struct tally tally = { 0 };
	struct dmcore_stats_area area;
	int id;

	cr_assert_eq(dmcore_target_register(stage.core, &again_type), 0);
	bdev = stage_map(&stage, "again", "0 1024 again fault:1024,id=1");
	device = stage.devices[1];
	id = create(device);
	run_on(stage.queue, 1);
	fault_add_rule(disk, &rule);
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	cr_assert_eq(read_one(id).in_flight, 1);
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, -1), 0);
	cr_assert_eq(tally.ended, 0);
	area = read_one(id);
	cr_assert_eq(area.in_flight, 0);
	cr_assert_eq(area.writes, 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, 0);
	area = read_one(id);
	cr_assert_eq(area.in_flight, 0);
	cr_assert_eq(area.writes, 1);
	cr_assert_eq(area.write_sectors, 8);
}

Test(stats_life, request_that_is_pushed_back_late_counts_once)
{
	struct fault_rule rule = { .action = FAULT_HOLD, .times = 1 };
	struct tally tally = { 0 };
	int id;

	cr_assert_eq(dmcore_target_register(stage.core, &again_type), 0);
	bdev = stage_map(&stage, "again", "0 1024 again fault:1024,id=1");
	device = stage.devices[1];
	id = create(device);
	fault_add_rule(disk, &rule);
	lets_go_late = true;
	stage_submit(&stage, bdev, DMCORE_OP_WRITE, 0, 8, buffer, &tally);
	cr_assert_eq(dmcore_device_suspend(device, DMCORE_SUSPEND_NOFLUSH, 0), -ETIMEDOUT);
	stage_wait(&stage, &tally, 1);
	cr_assert_eq(tally.status, 0);
	cr_assert_eq(read_one(id).writes, 1);
	cr_assert_eq(read_one(id).in_flight, 0);
}

Test(stats_life, request_that_can_not_be_pushed_back_counts_as_failed)
{
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EAGAIN };
	int id;

	cr_assert_eq(dmcore_target_register(stage.core, &again_type), 0);
	bdev = stage_map(&stage, "again", "0 1024 again fault:1024,id=1");
	device = stage.devices[1];
	id = create(device);
	fault_add_rule(disk, &rule);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 0, 8, buffer), -EIO);
	cr_assert_eq(read_one(id).writes, 1);
	cr_assert_eq(read_one(id).in_flight, 0);
}

/* ---- depth ---- */

static void stack_linears(unsigned int levels)
{
	char table[96] = "0 64 linear fault:1024,id=1 0";
	char name[16];

	for (unsigned int i = 0; i < levels; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		stage_map(&stage, name, table);
		snprintf(table, sizeof(table), "0 64 linear /dev/mapper/%s 0", name);
	}
}

Test(stats_life, regions_count_for_how_deep_devices_stand)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	unsigned int n = 0;
	int ret = 0;

	stack_linears(LEVELS);
	/* Each takes room of the requests of all above it, until there is no more. */
	while (n < LEVELS && ret == 0) {
		ret = dmcore_stats_create(stage.devices[1 + n], &options);
		n += ret == 0;
	}
	cr_assert_eq(ret, -ELOOP, "%d after %u", ret, n);
	cr_assert_gt(n, 0);
	/* Nor is there for the uppermost itself, on which nothing stands. */
	cr_assert_eq(dmcore_stats_create(stage.devices[LEVELS], &options), -ELOOP);
	cr_assert_not_null(strstr(dmcore_error_message(), "bytes of completion frames"), "%s",
			   dmcore_error_message());
	bdev = dmcore_device_bdev(stage.devices[LEVELS]);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE,
				       DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 0, 8, buffer),
			     0);
	/* What one gives up another can have. */
	cr_assert_eq(dmcore_stats_delete(stage.devices[1], 0), 0);
	cr_assert_eq(dmcore_stats_create(stage.devices[1 + n], &options), 0);
	device = stage.devices[1 + n];
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, 0, 8, buffer), 0);
	cr_assert_eq(read_one(0).writes, 1);
}

/* ---- under load ---- */

static _Atomic bool stop;

struct load {
	unsigned char buffer[8 * DMCORE_SECTOR_BYTES];
	struct dmcore_queue *queue;
	unsigned int done;
	unsigned int failed;
};

static struct load loads[2];

static void *load_device(void *argument)
{
	static struct tally tallies[2];
	struct load *load = argument;
	struct tally *tally = &tallies[load - loads];
	unsigned int sent = 0;

	if (dmcore_queue_create(stage.core, NULL, &load->queue))
		return load;
	while (!atomic_load(&stop) || tally->ended < sent) {
		while (!atomic_load(&stop) && sent - tally->ended < 16) {
			struct dmcore_bio *bio = dmcore_bio_get(load->queue);

			bio->bdev = bdev;
			bio->op = sent % 2 ? DMCORE_OP_READ : DMCORE_OP_WRITE;
			bio->sector = sent % 64 * 8;
			dmcore_bio_set_buffer(bio, load->buffer, sizeof(load->buffer));
			bio->done = tally_done;
			bio->context = tally;
			if (dmcore_bio_submit(bio))
				return load;
			sent++;
		}
		if (dmcore_queue_poll(load->queue, 1, UINT32_MAX, 10000000) < 0)
			return load;
	}
	load->done = tally->ended;
	load->failed = tally->failed;
	return dmcore_queue_destroy(load->queue) ? load : NULL;
}

static void wait_for_load(int id)
{
	while (read_one(id).reads < 100)
		stage_sleep_ns(100000);
}

Test(stats_life, regions_come_and_go_under_load)
{
	pthread_t threads[2];
	struct dmcore_stats_area area;
	void *result;
	int whole;

	bdev = stage_map(&stage, "null", "0 1024 zero");
	device = stage.devices[1];
	whole = create(device);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, load_device, &loads[i]), 0);
	wait_for_load(whole);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		int id = create(device);

		area = read_one(id);
		cr_assert_leq(area.in_flight, 32);
		cr_assert_leq(area.read_busy_ns, area.busy_ns);
		if (i % 3 == 0)
			cr_assert_eq(dmcore_stats_clear(device, id), 0);
		cr_assert_eq(dmcore_stats_delete(device, id), 0);
		if (i == ROUNDS / 2) {
			cr_assert_eq(dmcore_stats_delete(device, whole), 0);
			whole = create(device);
			wait_for_load(whole);
		}
	}
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(pthread_join(threads[i], &result), 0);
		cr_assert_null(result);
		cr_assert_eq(loads[i].failed, 0);
	}
	area = read_one(whole);
	cr_assert_eq(area.in_flight, 0);
	cr_assert_eq(area.read_sectors, 8 * area.reads);
	cr_assert_eq(area.write_sectors, 8 * area.writes);
	cr_assert_leq(area.reads + area.writes, loads[0].done + loads[1].done);
}

Test(stats_life, snapshots_under_load_are_whole)
{
	pthread_t thread;
	struct dmcore_stats_area area;
	void *result;
	uint64_t before = 0;
	int id;

	bdev = stage_map(&stage, "null", "0 1024 zero");
	device = stage.devices[1];
	id = create(device);
	cr_assert_eq(pthread_create(&thread, NULL, load_device, &loads[0]), 0);
	wait_for_load(id);
	for (unsigned int i = 0; i < 2000; i++) {
		area = read_one(id);
		cr_assert_eq(area.read_sectors, 8 * area.reads);
		cr_assert_eq(area.write_sectors, 8 * area.writes);
		cr_assert_leq(area.in_flight, 16);
		cr_assert_geq(area.reads + area.writes, before);
		before = area.reads + area.writes;
	}
	atomic_store(&stop, true);
	cr_assert_eq(pthread_join(thread, &result), 0);
	cr_assert_null(result);
	area = read_one(id);
	cr_assert_eq(area.reads + area.writes, loads[0].done);
}
