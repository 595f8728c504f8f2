/* SPDX-License-Identifier: MIT */
/* What regions of statistics count (map/stats_account.c, map/stats_read.c), by a clock of the
 * test's own: every time is exact. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/stage.h"

#define SECTORS 1024
#define MS UINT64_C(1000000)
#define START_NS UINT64_C(5000000000)

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_bdev *bdev;
static struct dmcore_device *device;
static unsigned char buffer[SECTORS * DMCORE_SECTOR_BYTES];
static _Atomic uint64_t now_ns;

static uint64_t clock_ns(void *context)
{
	(void)context;
	return now_ns;
}

static void open_stage(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	now_ns = START_NS;
	options.clock_ns = clock_ns;
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 1, SECTORS, "");
	bdev = stage_map(&stage, "d", "0 512 linear fault:1024,id=1 0\n"
				      "512 512 linear fault:1024,id=1 512\n");
	device = stage.devices[0];
}

static void close_stage(void)
{
	stage_close(&stage);
}

TestSuite(stats, .init = open_stage, .fini = close_stage);

static int create(uint64_t start, uint64_t length, uint64_t step)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int id;

	options.start_sector = start;
	options.length_sectors = length;
	options.step_sectors = step;
	id = dmcore_stats_create(device, &options);
	cr_assert_geq(id, 0, "%d: %s", id, dmcore_error_message());
	return id;
}

static struct dmcore_stats_area read_one(int id, uint64_t index)
{
	struct dmcore_stats_area area;
	int64_t left = dmcore_stats_read(device, id, index, 1, &area, sizeof(area), NULL);

	cr_assert_geq(left, 1, "%lld: %s", (long long)left, dmcore_error_message());
	return area;
}

static void hold(unsigned int ops)
{
	struct fault_rule rule = { .action = FAULT_HOLD, .ops = ops };

	fault_add_rule(disk, &rule);
}

static void submit(enum dmcore_op op, uint64_t sector, uint64_t count, struct tally *tally)
{
	stage_submit(&stage, bdev, op, sector, count, buffer, tally);
}

static void run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	cr_assert_eq(stage_run(&stage, bdev, op, 0, sector, count, buffer), 0);
}

Test(stats, region_of_the_whole_device_has_one_area)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area = read_one(id, 0);

	cr_assert_eq(id, 0);
	cr_assert_eq(area.start_sector, 0);
	cr_assert_eq(area.length_sectors, SECTORS);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 0, NULL, sizeof(area), NULL), 1);
	cr_assert_eq(dmcore_stats_read(device, id, 1, 1, &area, sizeof(area), NULL), 0);
	cr_assert_eq(dmcore_stats_read(device, id, UINT64_MAX, 1, &area, sizeof(area), NULL), 0);
}

Test(stats, ids_are_the_lowest_that_are_free)
{
	cr_assert_eq(create(0, 8, 0), 0);
	cr_assert_eq(create(0, 8, 0), 1);
	cr_assert_eq(create(0, 8, 0), 2);
	cr_assert_eq(dmcore_stats_delete(device, 1), 0);
	cr_assert_eq(create(0, 8, 0), 1);
	cr_assert_eq(create(0, 8, 0), 3);
	cr_assert_eq(dmcore_stats_delete(device, 0), 0);
	cr_assert_eq(create(0, 8, 0), 0);
}

Test(stats, requests_and_sectors_are_counted_by_direction)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;

	run(DMCORE_OP_READ, 0, 8);
	run(DMCORE_OP_READ, 100, 3);
	run(DMCORE_OP_WRITE, 200, 16);
	area = read_one(id, 0);
	cr_assert_eq(area.reads, 2);
	cr_assert_eq(area.read_sectors, 11);
	cr_assert_eq(area.writes, 1);
	cr_assert_eq(area.write_sectors, 16);
	cr_assert_eq(area.in_flight, 0);
	cr_assert_eq(area.read_merges, 0);
	cr_assert_eq(area.write_merges, 0);
}

Test(stats, discards_and_write_zeroes_are_writes_and_flushes_nothing)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_DISCARD, 0, 0, 1024, NULL), 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE_ZEROES, 0, 8, 16, NULL), 0);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	area = read_one(id, 0);
	cr_assert_eq(area.writes, 2);
	cr_assert_eq(area.write_sectors, 1024 + 16);
	cr_assert_eq(area.reads, 0);
}

Test(stats, write_with_preflush_counts_once)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;

	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE,
			       DMCORE_BIO_PREFLUSH | DMCORE_BIO_FUA, 8, 8, buffer),
		     0);
	cr_assert_eq(fault_count(disk, FAULT_FLUSH), 1);
	area = read_one(id, 0);
	cr_assert_eq(area.writes, 1);
	cr_assert_eq(area.write_sectors, 8);
}

/* D-041 */
Test(stats, request_across_targets_counts_once)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;

	run(DMCORE_OP_READ, 508, 8);
	cr_assert_eq(fault_count(disk, FAULT_READ), 2);
	area = read_one(id, 0);
	cr_assert_eq(area.reads, 1);
	cr_assert_eq(area.read_sectors, 8);
}

/* D-042 */
Test(stats, failed_request_counts_and_a_refused_one_does_not)
{
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EIO };
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;

	fault_add_rule(disk, &rule);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 8, 8, buffer), -EIO);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, SECTORS, 8, buffer), -EIO);
	area = read_one(id, 0);
	cr_assert_eq(area.reads, 1);
	cr_assert_eq(area.read_sectors, 8);
	cr_assert_eq(area.in_flight, 0);
}

Test(stats, request_over_areas_counts_in_each_with_its_part)
{
	int id = create(10, 100, 30);
	static const uint64_t sectors[] = { 30, 30, 30, 5 };
	struct dmcore_stats_area areas[4];

	run(DMCORE_OP_READ, 0, 105);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 4, areas, sizeof(*areas), NULL), 4);
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(areas[i].start_sector, 10 + 30 * i);
		cr_assert_eq(areas[i].length_sectors, i < 3 ? 30 : 10);
		cr_assert_eq(areas[i].reads, 1, "area %u", i);
		cr_assert_eq(areas[i].read_sectors, sectors[i], "area %u", i);
	}
}

Test(stats, region_sees_only_its_range)
{
	int id = create(64, 64, 16);
	static const uint64_t begins[] = { 56, 64, 79, 80, 127, 128 };
	static const uint64_t reads[] = { 2, 1, 0, 1 };
	struct dmcore_stats_area areas[4];

	for (unsigned int i = 0; i < 6; i++)
		run(DMCORE_OP_READ, begins[i], begins[i] == 56 ? 8 : 1);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 9, areas, sizeof(*areas), NULL), 4);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(areas[i].reads, reads[i], "area %u", i);
}

Test(stats, regions_may_overlap)
{
	int whole = create(0, 0, 0);
	int part = create(8, 8, 0);

	run(DMCORE_OP_WRITE, 0, 16);
	cr_assert_eq(read_one(whole, 0).write_sectors, 16);
	cr_assert_eq(read_one(part, 0).write_sectors, 8);
}

Test(stats, areas_of_any_length_are_found)
{
	static const uint64_t steps[] = { 1, 2, 3, 7, 8, 100, 1023, 1024, 5000 };

	for (unsigned int k = 0; k < 9; k++) {
		int id = create(0, 0, steps[k]);
		static const uint64_t sectors[] = { 0, 1, 511, 1023 };

		for (unsigned int i = 0; i < 4; i++) {
			struct dmcore_stats_area area;

			run(DMCORE_OP_READ, sectors[i], 1);
			area = read_one(id, sectors[i] / steps[k]);
			cr_assert_leq(area.start_sector, sectors[i]);
			cr_assert_gt(area.start_sector + area.length_sectors, sectors[i]);
			cr_assert_geq(area.reads, 1, "step %llu, sector %llu",
				      (unsigned long long)steps[k],
				      (unsigned long long)sectors[i]);
		}
		cr_assert_eq(dmcore_stats_delete(device, id), 0);
	}
}

/* D-040 */
Test(stats, merge_is_to_begin_where_the_last_one_of_the_direction_ended)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;

	run(DMCORE_OP_READ, 0, 8); /* no one came before it */
	run(DMCORE_OP_READ, 8, 8);
	run(DMCORE_OP_WRITE, 16, 8);
	run(DMCORE_OP_READ, 16, 8);
	run(DMCORE_OP_READ, 32, 8);
	run(DMCORE_OP_WRITE, 24, 8);
	area = read_one(id, 0);
	cr_assert_eq(area.reads, 4);
	cr_assert_eq(area.read_merges, 2);
	cr_assert_eq(area.writes, 2);
	cr_assert_eq(area.write_merges, 1);
}

/* D-043 */
Test(stats, busy_times_of_queues_are_added_up_as_far_as_time_has_passed)
{
	struct tally tally = { 0 };
	struct dmcore_stats_area area;
	struct dmcore_queue *queues[2] = { stage.queue, NULL };
	int id;

	now_ns += 1 * MS;
	id = create(0, 0, 0);
	cr_assert_eq(dmcore_queue_create(stage.core, NULL, &queues[1]), 0);
	hold(0);
	submit(DMCORE_OP_READ, 0, 8, &tally);
	now_ns += 3 * MS;
	stage.queue = queues[1];
	submit(DMCORE_OP_READ, 16, 8, &tally);
	now_ns += 2 * MS;
	area = read_one(id, 0);
	cr_assert_eq(area.in_flight, 2);
	cr_assert_eq(area.weighted_ns, 7 * MS);
	cr_assert_eq(area.busy_ns, 5 * MS); /* not 7 */
	cr_assert_eq(area.read_busy_ns, 5 * MS);
	fault_release_all(disk);
	stage_settle(&stage);
	stage.queue = queues[0];
	stage_wait(&stage, &tally, 2);
	now_ns += 9 * MS;
	cr_assert_eq(read_one(id, 0).busy_ns, 7 * MS); /* not 5 */
	cr_assert_eq(dmcore_queue_destroy(queues[1]), 0);
	cr_assert_eq(read_one(id, 0).busy_ns, 7 * MS);
}

Test(stats, times_are_what_the_clock_says)
{
	int id = create(0, 0, 0);
	struct tally tally = { 0 };
	struct dmcore_stats_area area;

	hold(0);
	submit(DMCORE_OP_READ, 0, 8, &tally);
	now_ns += 3 * MS;
	submit(DMCORE_OP_WRITE, 8, 8, &tally);
	now_ns += 4 * MS;
	area = read_one(id, 0);
	cr_assert_eq(area.in_flight, 2);
	cr_assert_eq(area.busy_ns, 7 * MS);
	cr_assert_eq(area.read_busy_ns, 7 * MS);
	cr_assert_eq(area.write_busy_ns, 4 * MS);
	cr_assert_eq(area.weighted_ns, 11 * MS);
	cr_assert_eq(area.reads + area.writes, 0);
	fault_release(disk, 0, 0);
	stage_wait(&stage, &tally, 1);
	now_ns += 10 * MS;
	fault_release_all(disk);
	stage_wait(&stage, &tally, 2);
	now_ns += 100 * MS;
	area = read_one(id, 0);
	cr_assert_eq(area.in_flight, 0);
	cr_assert_eq(area.read_ns, 7 * MS);
	cr_assert_eq(area.write_ns, 14 * MS);
	cr_assert_eq(area.busy_ns, 17 * MS);
	cr_assert_eq(area.read_busy_ns, 7 * MS);
	cr_assert_eq(area.write_busy_ns, 14 * MS);
	cr_assert_eq(area.weighted_ns, 21 * MS);
}

Test(stats, in_flight_is_told_by_area)
{
	int id = create(0, 0, 512);
	struct tally tally = { 0 };

	hold(0);
	submit(DMCORE_OP_READ, 0, 8, &tally);
	submit(DMCORE_OP_READ, 600, 8, &tally);
	submit(DMCORE_OP_WRITE, 508, 8, &tally);
	cr_assert_eq(read_one(id, 0).in_flight, 2);
	cr_assert_eq(read_one(id, 1).in_flight, 2);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 3);
	cr_assert_eq(read_one(id, 0).in_flight, 0);
	cr_assert_eq(read_one(id, 1).in_flight, 0);
}

Test(stats, clock_that_goes_back_harms_nothing)
{
	int id = create(0, 0, 0);
	struct tally tally = { 0 };
	struct dmcore_stats_area area;

	hold(0);
	submit(DMCORE_OP_READ, 0, 8, &tally);
	now_ns -= 3 * MS;
	area = read_one(id, 0);
	cr_assert_eq(area.busy_ns, 0);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
	area = read_one(id, 0);
	cr_assert_eq(area.reads, 1);
	cr_assert_eq(area.read_ns, 0);
	cr_assert_eq(area.busy_ns, 0);
	cr_assert_eq(area.weighted_ns, 0);
}

static int create_histogram(unsigned int flags, const uint64_t *bounds, unsigned int count,
			    uint64_t step)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	int id;

	options.flags = flags;
	options.bounds = bounds;
	options.num_bounds = count;
	options.step_sectors = step;
	id = dmcore_stats_create(device, &options);
	cr_assert_geq(id, 0, "%s", dmcore_error_message());
	return id;
}

static void run_for(uint64_t sector, uint64_t took_ns)
{
	struct tally tally = { 0 };

	submit(DMCORE_OP_READ, sector, 1, &tally);
	now_ns += took_ns;
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
}

Test(stats, histogram_has_a_bucket_below_each_bound_and_one_behind)
{
	static const uint64_t bounds[] = { 1, 5, 10 };
	int coarse = create_histogram(0, bounds, 3, 512);
	int precise = create_histogram(DMCORE_STATS_PRECISE, bounds, 3, 512);
	static const uint64_t expected_coarse[] = { 2, 1, 2, 1, 0, 1, 0, 0 };
	static const uint64_t expected_precise[] = { 1, 0, 1, 4, 0, 0, 0, 1 };
	struct dmcore_stats_area areas[2];
	uint64_t buckets[8];

	hold(0);
	run_for(0, 0);
	run_for(0, 9);
	run_for(0, 1 * MS);
	run_for(0, 5 * MS);
	run_for(0, 10 * MS - 1);
	run_for(0, 10 * MS);
	run_for(512, 2 * MS);
	cr_assert_eq(dmcore_stats_read(device, coarse, 0, 2, areas, sizeof(*areas), buckets), 2);
	cr_assert_arr_eq(buckets, expected_coarse, sizeof(buckets));
	cr_assert_eq(dmcore_stats_read(device, precise, 0, 2, areas, sizeof(*areas), buckets), 2);
	cr_assert_arr_eq(buckets, expected_precise, sizeof(buckets));
	cr_assert_eq(dmcore_stats_clear(device, coarse), 0);
	cr_assert_eq(dmcore_stats_read(device, coarse, 0, 2, areas, sizeof(*areas), buckets), 2);
	for (unsigned int i = 0; i < 8; i++)
		cr_assert_eq(buckets[i], 0);
	run_for(0, 0);
	cr_assert_eq(dmcore_stats_read(device, coarse, 0, 2, areas, sizeof(*areas), buckets), 2);
	cr_assert_eq(buckets[0], 1);
}

Test(stats, without_a_histogram_the_one_bucket_is_all_requests)
{
	int id = create(0, 0, 0);
	struct dmcore_stats_area area;
	uint64_t bucket = 99;

	run(DMCORE_OP_READ, 0, 1);
	run(DMCORE_OP_WRITE, 0, 1);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 1, &area, sizeof(area), &bucket), 1);
	cr_assert_eq(bucket, 2);
}

Test(stats, clear_leaves_only_what_is_in_flight)
{
	int id = create(0, 0, 0);
	struct tally tally = { 0 };
	struct dmcore_stats_area area;

	run(DMCORE_OP_READ, 0, 8);
	hold(0);
	submit(DMCORE_OP_READ, 8, 8, &tally);
	now_ns += 5 * MS;
	cr_assert_eq(dmcore_stats_clear(device, id), 0);
	area = read_one(id, 0);
	cr_assert_eq(area.in_flight, 1);
	cr_assert_eq(area.reads + area.read_merges + area.read_sectors + area.read_ns, 0);
	cr_assert_eq(area.busy_ns + area.weighted_ns + area.read_busy_ns, 0);
	now_ns += 2 * MS;
	cr_assert_eq(read_one(id, 0).busy_ns, 2 * MS);
	fault_release_all(disk);
	stage_wait(&stage, &tally, 1);
	area = read_one(id, 0);
	cr_assert_eq(area.reads, 1);
	cr_assert_eq(area.read_ns, 7 * MS); /* it took that long */
	cr_assert_eq(area.busy_ns, 2 * MS);
}

Test(stats, areas_of_another_size_are_filled_as_far_as_they_go)
{
	int id = create(0, 0, 512);
	struct {
		struct dmcore_stats_area area;
		uint64_t later;
	} big[2];
	uint64_t small[2 * 3];

	run(DMCORE_OP_READ, 0, 8);
	memset(big, 0xff, sizeof(big));
	cr_assert_eq(dmcore_stats_read(device, id, 0, 2, &big[0].area, sizeof(*big), NULL), 2);
	cr_assert_eq(big[0].area.reads, 1);
	cr_assert_eq(big[0].later, 0);
	cr_assert_eq(big[1].area.start_sector, 512);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 2, (void *)small, 3 * sizeof(*small), NULL),
		     2);
	cr_assert_eq(small[2], 1);
	cr_assert_eq(small[3], 512);
}

Test(stats, areas_by_target_stay_when_the_table_is_replaced)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct dmcore_stats_area areas[3];
	struct dmcore_table *table;
	int id;

	options.flags = DMCORE_STATS_BY_TARGET;
	options.step_sectors = 3;
	id = dmcore_stats_create(device, &options);
	cr_assert_geq(id, 0, "%s", dmcore_error_message());
	run(DMCORE_OP_READ, 510, 8);
	cr_assert_eq(dmcore_table_parse(stage.core, "0 1024 zero", 0, &table), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	run(DMCORE_OP_READ, 1023, 1);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 3, areas, sizeof(*areas), NULL), 2);
	cr_assert_eq(areas[0].length_sectors, 512);
	cr_assert_eq(areas[0].read_sectors, 2);
	cr_assert_eq(areas[1].start_sector, 512);
	cr_assert_eq(areas[1].length_sectors, 512);
	cr_assert_eq(areas[1].read_sectors, 7);
}

Test(stats, areas_by_target_are_cut_to_the_range)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct dmcore_stats_area areas[3];
	int id;

	options.flags = DMCORE_STATS_BY_TARGET;
	options.start_sector = 500;
	options.length_sectors = 100;
	id = dmcore_stats_create(device, &options);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 3, areas, sizeof(*areas), NULL), 2);
	cr_assert_eq(areas[0].start_sector, 500);
	cr_assert_eq(areas[0].length_sectors, 12);
	cr_assert_eq(areas[1].length_sectors, 88);
	options.start_sector = 512;
	options.length_sectors = 8;
	id = dmcore_stats_create(device, &options);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 3, areas, sizeof(*areas), NULL), 1);
	cr_assert_eq(areas[0].start_sector, 512);
	cr_assert_eq(areas[0].length_sectors, 8);
}

static void expect_refused(const struct dmcore_stats_options *options, int error)
{
	int ret = dmcore_stats_create(device, options);

	cr_assert_eq(ret, error, "%d: %s", ret, dmcore_error_message());
	cr_assert_neq(dmcore_error_message()[0], '\0');
}

Test(stats, malformed_options_are_refused)
{
	static const uint64_t falling[] = { 2, 1 };
	static const uint64_t zero[] = { 0 };
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;

	expect_refused(NULL, -EINVAL);
	options.struct_size = 1;
	expect_refused(&options, -EINVAL);
	options.struct_size = sizeof(options);
	options.flags = 1u << 7;
	expect_refused(&options, -EINVAL);
	options.flags = 0;
	options.num_bounds = 2;
	expect_refused(&options, -EINVAL);
	options.bounds = falling;
	expect_refused(&options, -EINVAL);
	options.num_bounds = 1;
	options.bounds = zero;
	expect_refused(&options, -EINVAL);
	options.num_bounds = 0;
	options.start_sector = SECTORS;
	expect_refused(&options, -EINVAL);
	options.start_sector = UINT64_MAX;
	options.length_sectors = 1;
	expect_refused(&options, -EINVAL);
	options.start_sector = UINT64_MAX - 1;
	cr_assert_eq(dmcore_stats_create(device, &options), 0);
}

Test(stats, too_many_areas_or_buckets_are_refused)
{
	static uint64_t bounds[1024];
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;

	options.length_sectors = DMCORE_STATS_AREAS_MAX + 1;
	options.step_sectors = 1;
	expect_refused(&options, -EOVERFLOW);
	options.length_sectors = UINT64_MAX;
	expect_refused(&options, -EOVERFLOW);
	for (unsigned int i = 0; i < 1024; i++)
		bounds[i] = i + 1;
	options.bounds = bounds;
	options.num_bounds = 1024;
	options.length_sectors = DMCORE_STATS_BUCKETS_MAX / 1024;
	expect_refused(&options, -EOVERFLOW);
	options.num_bounds = DMCORE_STATS_BUCKETS_MAX;
	expect_refused(&options, -EOVERFLOW);
}

/* D-047 */
Test(stats, too_many_regions_are_refused)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;

	for (unsigned int i = 0; i < DMCORE_STATS_REGIONS_MAX; i++)
		cr_assert_eq(create(0, 8, 0), (int)i);
	expect_refused(&options, -EOVERFLOW);
	run(DMCORE_OP_READ, 0, 8);
	cr_assert_eq(read_one(DMCORE_STATS_REGIONS_MAX - 1, 0).reads, 1);
}

Test(stats, wrong_ids_and_wrong_room_are_refused)
{
	struct dmcore_stats_area area;
	int id = create(0, 0, 0);

	cr_assert_eq(dmcore_stats_read(device, id, 0, 1, NULL, sizeof(area), NULL), -EINVAL);
	cr_assert_eq(dmcore_stats_read(device, id, 0, 1, &area, 0, NULL), -EINVAL);
	cr_assert_eq(dmcore_stats_read(NULL, id, 0, 1, &area, sizeof(area), NULL), -EINVAL);
	cr_assert_eq(dmcore_stats_read(device, 1, 0, 1, &area, sizeof(area), NULL), -ENOENT);
	cr_assert_eq(dmcore_stats_read(device, -1, 0, 1, &area, sizeof(area), NULL), -ENOENT);
	cr_assert_eq(dmcore_stats_clear(device, 1), -ENOENT);
	cr_assert_eq(dmcore_stats_clear(device, -1), -ENOENT);
	cr_assert_eq(dmcore_stats_clear(NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_stats_delete(device, 1), -ENOENT);
	cr_assert_eq(dmcore_stats_delete(device, -1), -ENOENT);
	cr_assert_eq(dmcore_stats_delete(NULL, 0), -EINVAL);
	cr_assert_eq(dmcore_stats_create(NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_stats_delete(device, id), 0);
	cr_assert_eq(dmcore_stats_delete(device, id), -ENOENT);
}
