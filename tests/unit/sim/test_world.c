/* SPDX-License-Identifier: MIT */
/* The clock, the log, the power and the cores of a simulated world (sim/world.c, sim/disk.c). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simworld.h"

static struct simworld world;

static void open_world(void)
{
	simworld_open(&world, 1);
}

static void close_world(void)
{
	simworld_close(&world);
}

TestSuite(sim_world, .init = open_world, .fini = close_world);
TestSuite(sim_alone);

/* ---- time ---- */

Test(sim_world, requests_take_the_time_of_their_kind)
{
	uint64_t begun_ns;

	world.options.read_ns = 100;
	world.options.write_ns = 1000;
	world.options.flush_ns = 5000;
	world.options.sector_ns = 10;
	simworld_add_disk(&world, 64);
	simworld_write(&world, 0, 0, 4, 1, 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 1040);
	simworld_flush(&world, 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 6040);
	begun_ns = dmcore_clock_ns(world.core);
	cr_assert_eq(begun_ns, 6040, "the core's clock is the world's");
	cr_assert_eq(dmcore_discard(world.bdevs[0], 1024, 0), 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 7060);
}

Test(sim_world, no_time_passes_while_nobody_waits)
{
	struct dmcore_bio *bio;

	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	for (unsigned int i = 0; i < 100; i++)
		cr_assert_eq(dmcore_queue_poll(world.queue, 0, UINT_MAX, 0), 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 0);
	dmcore_sim_pass(world.sim, 999);
	cr_assert_eq(dmcore_queue_poll(world.queue, 0, UINT_MAX, 0), 0);
	dmcore_sim_pass(world.sim, 1);
	cr_assert_eq(dmcore_queue_poll(world.queue, 0, UINT_MAX, 0), 1);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 1000);
	dmcore_bio_put(bio);
}

Test(sim_world, step_ends_the_next_request)
{
	struct dmcore_bio *bio;

	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	cr_assert_not(dmcore_sim_step(world.sim));
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	cr_assert(dmcore_sim_step(world.sim));
	cr_assert_not(dmcore_sim_step(world.sim));
	cr_assert_eq(dmcore_queue_poll(world.queue, 0, UINT_MAX, 0), 1);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 1000);
	dmcore_bio_put(bio);
}

Test(sim_world, poll_waits_no_longer_than_it_was_told)
{
	struct dmcore_bio *bio;

	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	cr_assert_eq(dmcore_queue_poll(world.queue, 1, 1, 400), 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 400);
	cr_assert_eq(dmcore_queue_poll(world.queue, 1, 1, 4000), 1);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 1000);
	dmcore_bio_put(bio);
}

Test(sim_world, delay_beyond_all_time_ends_at_the_end_of_it)
{
	const struct dmcore_sim_rule delay = { .struct_size = sizeof(delay),
					       .action = DMCORE_SIM_DELAY,
					       .delay_ns = UINT64_MAX,
					       .times = 1 };
	struct dmcore_bio *bio;

	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &delay), 0);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	simworld_write(&world, 0, 1, 1, 2, 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 1000);
	cr_assert_not(simworld_ended(bio));
	dmcore_sim_pass(world.sim, UINT64_MAX);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), UINT64_MAX);
	cr_assert_eq(simworld_wait(&world, bio), 0);
	dmcore_bio_put(bio);
}

Test(sim_world, depth_makes_requests_wait_for_each_other)
{
	struct dmcore_bio *bios[4];

	world.options.write_ns = 1000;
	world.options.depth = 2;
	simworld_add_disk(&world, 64);
	for (unsigned int i = 0; i < 4; i++)
		bios[i] = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, i, 1, 1);
	for (unsigned int i = 0; i < 4; i++) {
		cr_assert_eq(simworld_wait(&world, bios[i]), 0);
		cr_assert_eq(dmcore_sim_now_ns(world.sim), 1000 * (i / 2 + 1));
		dmcore_bio_put(bios[i]);
	}
}

Test(sim_world, spread_lets_requests_overtake_each_other)
{
	struct dmcore_bio *bios[32];
	unsigned int overtaken = 0;

	world.options.write_ns = 1000;
	world.options.spread_ns = 10000;
	simworld_add_disk(&world, 64);
	for (unsigned int i = 0; i < 32; i++)
		bios[i] = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, i, 1, 1);
	for (unsigned int i = 0; i < 32; i++) {
		simworld_wait(&world, bios[i]);
		for (unsigned int later = i + 1; later < 32; later++)
			overtaken += simworld_ended(bios[later]);
	}
	cr_assert_gt(overtaken, 100, "of 496 pairs");
	for (unsigned int i = 0; i < 32; i++)
		dmcore_bio_put(bios[i]);
}

static unsigned int num_ran;

static void count_timer(struct dmcore_timer *timer)
{
	(void)timer;
	num_ran++;
}

static void count_work(struct dmcore_work *work)
{
	(void)work;
	num_ran++;
}

Test(sim_world, service_runs_while_somebody_waits)
{
	struct dmcore_timer timer = { .fn = count_timer };
	struct dmcore_work work = { .fn = count_work };

	world.options.write_ns = 100000;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_service_post(world.core, &work), 0);
	cr_assert_eq(dmcore_timer_start(dmcore_service_queue(world.core), &timer, 50000), 0);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert_eq(num_ran, 2);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 100000);
}

static int pread_result = 1;

static void read_disk(struct dmcore_work *work)
{
	static char buffer[512];

	(void)work;
	pread_result = dmcore_pread(world.bdevs[0], buffer, sizeof(buffer), 0);
}

/* The service waits in a callback of its own: its timers run after that. */
Test(sim_world, service_that_waits_itself_holds_its_timers_up, .timeout = 30)
{
	struct dmcore_timer timer = { .fn = count_timer };
	struct dmcore_work work = { .fn = read_disk };

	world.options.read_ns = 100000;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_timer_start(dmcore_service_queue(world.core), &timer, 50000), 0);
	cr_assert_eq(dmcore_service_post(world.core, &work), 0);
	cr_assert_eq(dmcore_service_poll(world.core, 2, 2, -1), 2);
	cr_assert_eq(pread_result, 0);
	cr_assert_eq(num_ran, 1);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 100000);
}

Test(sim_world, wait_that_nothing_ends_is_told)
{
	cr_assert_eq(dmcore_queue_poll(world.queue, 1, 1, -1), -EDEADLK);
	cr_assert_eq(world.num_stuck, 1);
	cr_assert_eq(dmcore_service_poll(world.core, 1, 1, -1), -EDEADLK);
	cr_assert_eq(world.num_stuck, 2);
}

Test(sim_world, suspension_that_nothing_ends_is_given_up)
{
	const struct dmcore_sim_rule hold = { .struct_size = sizeof(hold),
					      .action = DMCORE_SIM_HOLD };
	struct dmcore_device *device;
	struct dmcore_bdev *leaf;
	struct dmcore_bio *bio;

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &hold), 0);
	device = simworld_map(&world, "d", "0 64 linear sim:d0 0");
	leaf = world.bdevs[0];
	world.bdevs[0] = dmcore_device_bdev(device);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	cr_assert_eq(dmcore_device_suspend(device, 0, 1000000), -ETIMEDOUT);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 1000000);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), -EDEADLK);
	cr_assert_eq(dmcore_sim_release(world.disks[0]), 1);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(simworld_wait(&world, bio), 0);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_device_resume(device), 0);
	world.bdevs[0] = leaf;
	cr_assert_eq(dmcore_device_remove(device), 0);
}

static void release_held(struct dmcore_timer *timer)
{
	(void)timer;
	cr_assert_eq(dmcore_sim_release(world.disks[0]), 1);
}

Test(sim_world, suspension_waits_for_timers_of_all_queues_of_its_thread)
{
	const struct dmcore_sim_rule hold = { .struct_size = sizeof(hold),
					      .action = DMCORE_SIM_HOLD };
	struct dmcore_timer timer = { .fn = release_held };
	struct dmcore_device *device;
	struct dmcore_queue *other;
	struct dmcore_bdev *leaf;
	struct dmcore_bio *bio;

	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_queue_create(world.core, NULL, &other), 0);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &hold), 0);
	device = simworld_map(&world, "d", "0 64 linear sim:d0 0");
	leaf = world.bdevs[0];
	world.bdevs[0] = dmcore_device_bdev(device);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	cr_assert_eq(dmcore_timer_start(other, &timer, 5000), 0);
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_sim_now_ns(world.sim), 5000);
	cr_assert_eq(world.num_stuck, 0);
	cr_assert_eq(simworld_wait(&world, bio), 0);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_device_resume(device), 0);
	world.bdevs[0] = leaf;
	cr_assert_eq(dmcore_device_remove(device), 0);
	cr_assert_eq(dmcore_queue_destroy(other), 0);
}

/* ---- the log ---- */

static char lines[16][128];
static unsigned int num_lines;

static void keep_line(const struct dmcore_sim_event *event, void *context)
{
	cr_assert_eq(context, lines);
	dmcore_sim_event_text(event, lines[num_lines++ % 16], sizeof(lines[0]));
}

Test(sim_alone, events_are_told_as_they_happen)
{
	struct dmcore_sim_options options = {
		.struct_size = sizeof(options),
		.event = keep_line,
		.event_context = lines,
	};
	struct dmcore_sim_disk_options disk_options = {
		.struct_size = sizeof(disk_options),
		.sectors = 64,
		.write_ns = 1000,
	};
	struct dmcore_sim_disk *disk;
	struct dmcore_bdev *bdev;
	struct dmcore_sim *sim;
	struct dmcore *core;
	char zeroes[512] = { 0 };

	cr_assert_eq(dmcore_sim_create(&options, &sim), 0);
	cr_assert_eq(dmcore_sim_disk_create(sim, "a", &disk_options, &disk), 0);
	cr_assert_eq(dmcore_sim_core(sim, NULL, &core), 0);
	cr_assert_eq(dmcore_bdev_open(core, "sim:a", 0, &bdev), 0);
	cr_assert_eq(dmcore_pwrite(bdev, zeroes, 512, 512), 0);
	cr_assert_eq(dmcore_flush(bdev), 0);
	cr_assert_eq(dmcore_sim_mark(sim, 7), 0);
	dmcore_sim_cut(sim);
	dmcore_sim_power_on(sim);
	cr_assert_eq(num_lines, 7);
	cr_assert_eq(strncmp(lines[0], "1 0 a submit write 1+1 0 ", 25), 0, "%s", lines[0]);
	cr_assert_str_eq(lines[1], "2 1000 a complete write 1+1 0 0000000000000000");
	cr_assert_str_eq(lines[2], "3 1000 a submit flush 0+0 0 0000000000000000");
	cr_assert_str_eq(lines[4], "5 1000 mark 7");
	cr_assert_str_eq(lines[5], "6 1000 cut");
	cr_assert_str_eq(lines[6], "7 1000 power on");
	cr_assert_eq(dmcore_sim_num_events(sim), 7);
	cr_assert_eq(dmcore_sim_destroy(sim), -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "disk a is open");
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
	cr_assert_eq(dmcore_destroy(core), 0);
	cr_assert_eq(dmcore_sim_destroy(sim), 0);
}

/* Random writes and flushes, several at once; returns the log's hash. */
static uint64_t hash_of_a_run(uint64_t seed, unsigned char byte)
{
	uint64_t hash;

	simworld_open(&world, seed);
	world.options.write_ns = 1000;
	world.options.spread_ns = 10000;
	simworld_add_disk(&world, 64);
	for (unsigned int round = 0; round < 20; round++) {
		struct dmcore_bio *bios[8];

		for (unsigned int i = 0; i < 8; i++)
			bios[i] = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0,
						  dmcore_sim_choose(world.sim, 64), 1, byte);
		for (unsigned int i = 0; i < 8; i++) {
			simworld_wait(&world, bios[i]);
			dmcore_bio_put(bios[i]);
		}
		simworld_flush(&world, 0);
	}
	hash = dmcore_sim_log_hash(world.sim);
	simworld_close(&world);
	return hash;
}

Test(sim_alone, the_same_seed_gives_the_same_run_and_another_one_another)
{
	uint64_t first = hash_of_a_run(5, 1);

	cr_assert_eq(hash_of_a_run(5, 1), first);
	cr_assert_neq(hash_of_a_run(6, 1), first);
	cr_assert_neq(hash_of_a_run(5, 2), first, "the data count too");
}

/* ---- power ---- */

Test(sim_world, cut_ends_what_is_in_flight_and_all_that_comes)
{
	struct dmcore_bio *bio;
	char buffer[512];

	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
	dmcore_sim_cut(world.sim);
	cr_assert_not(dmcore_sim_has_power(world.sim));
	cr_assert_eq(simworld_wait(&world, bio), -ENODEV);
	dmcore_bio_put(bio);
	cr_assert_eq(dmcore_pread(world.bdevs[0], buffer, 512, 0), -ENODEV);
	cr_assert_eq(dmcore_flush(world.bdevs[0]), -ENODEV);
	cr_assert_eq(dmcore_sim_record(world.sim), -ENODEV);
	dmcore_sim_power_on(world.sim);
	cr_assert_eq(dmcore_pread(world.bdevs[0], buffer, 512, 0), 0);
}

Test(sim_alone, cut_leaves_what_it_may_and_over_the_seeds_all_of_it)
{
	unsigned int left[4] = { 0 };

	for (uint64_t seed = 0; seed < 200; seed++) {
		const unsigned char *data;

		simworld_open(&world, seed);
		simworld_add_disk(&world, 64);
		data = dmcore_sim_disk_data(world.disks[0]);
		simworld_write(&world, 0, 0, 1, 1, 0);
		simworld_flush(&world, 0);
		simworld_write(&world, 0, 0, 2, 2, 0);
		dmcore_sim_cut(world.sim);
		cr_assert(data[0] == 1 || data[0] == 2, "what was flushed, or what came after");
		cr_assert(data[512] == 0 || data[512] == 2);
		left[(data[0] == 2) * 2 + (data[512] == 2)]++;
		dmcore_sim_power_on(world.sim);
		simworld_close(&world);
	}
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_gt(left[i], 5, "%u: %u times", i, left[i]);
}

Test(sim_world, cut_comes_after_the_event_that_was_said)
{
	simworld_add_disk(&world, 64);
	dmcore_sim_cut_after(world.sim, 3);
	simworld_write(&world, 0, 0, 1, 1, 0);
	cr_assert(dmcore_sim_has_power(world.sim));
	cr_assert_eq(dmcore_flush(world.bdevs[0]), -ENODEV, "its submission was the third");
	cr_assert_not(dmcore_sim_has_power(world.sim));
	dmcore_sim_power_on(world.sim);
	cr_assert_eq(dmcore_flush(world.bdevs[0]), 0);
}

Test(sim_world, cut_ends_requests_that_wait_or_are_held)
{
	const struct dmcore_sim_rule hold = { .struct_size = sizeof(hold),
					      .action = DMCORE_SIM_HOLD, .times = 1 };
	struct dmcore_bio *bios[3];

	world.options.depth = 1;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &hold), 0);
	for (unsigned int i = 0; i < 3; i++)
		bios[i] = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, i, 1, 1);
	dmcore_sim_cut(world.sim);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(simworld_wait(&world, bios[i]), -ENODEV);
		dmcore_bio_put(bios[i]);
	}
	dmcore_sim_power_on(world.sim);
	simworld_write(&world, 0, 0, 1, 1, 0);
}

Test(sim_world, full_cache_writes_the_oldest_back)
{
	const unsigned char *data;

	world.options.cache_units = 8;
	simworld_add_disk(&world, 64);
	data = dmcore_sim_disk_data(world.disks[0]);
	for (unsigned int i = 0; i < 64; i++)
		simworld_write(&world, 0, i, 1, 1, 0);
	dmcore_sim_cut(world.sim);
	for (unsigned int i = 0; i < 56; i++)
		cr_assert_eq(data[i * 512], 1, "sector %u went out for others", i);
	dmcore_sim_power_on(world.sim);
}

Test(sim_world, writes_in_flight_beyond_the_cache_fail)
{
	struct dmcore_bio *bios[3];

	world.options.cache_units = 8;
	world.options.write_ns = 1000;
	simworld_add_disk(&world, 64);
	for (unsigned int i = 0; i < 3; i++)
		bios[i] = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 4 * i, 4, 1);
	cr_assert_eq(simworld_wait(&world, bios[0]), 0);
	cr_assert_eq(simworld_wait(&world, bios[1]), 0);
	cr_assert_eq(simworld_wait(&world, bios[2]), -ENOMEM);
	for (unsigned int i = 0; i < 3; i++)
		dmcore_bio_put(bios[i]);
}

Test(sim_world, disk_without_a_cache_loses_nothing_that_has_completed)
{
	const unsigned char *data;

	world.options.flags = DMCORE_SIM_NO_CACHE;
	simworld_add_disk(&world, 64);
	data = dmcore_sim_disk_data(world.disks[0]);
	simworld_write(&world, 0, 0, 8, 1, 0);
	dmcore_sim_cut(world.sim);
	for (unsigned int i = 0; i < 8; i++)
		cr_assert_eq(data[i * 512], 1);
	dmcore_sim_power_on(world.sim);
}

Test(sim_alone, disk_that_lies_loses_what_was_flushed)
{
	unsigned int lost = 0;

	for (uint64_t seed = 0; seed < 50; seed++) {
		const unsigned char *data;

		simworld_open(&world, seed);
		world.options.flags = DMCORE_SIM_LIES;
		simworld_add_disk(&world, 64);
		data = dmcore_sim_disk_data(world.disks[0]);
		simworld_write(&world, 0, 0, 1, 1, DMCORE_BIO_FUA);
		simworld_flush(&world, 0);
		dmcore_sim_cut(world.sim);
		lost += data[0] == 0;
		dmcore_sim_power_on(world.sim);
		simworld_close(&world);
	}
	cr_assert_gt(lost, 5);
}

/* Whichever of the two is left there: the other's sector is durable. */
Test(sim_alone, cut_leaves_what_is_durable_under_a_write_to_another_part_of_its_unit)
{
	const struct dmcore_sim_rule hold = { .struct_size = sizeof(hold),
					      .action = DMCORE_SIM_HOLD };
	unsigned int there = 0;

	for (uint64_t seed = 0; seed < 50; seed++) {
		const unsigned char *data;
		struct dmcore_bio *bio;

		simworld_open(&world, seed);
		world.options.atomic_bytes = 4096;
		simworld_add_disk(&world, 64);
		data = dmcore_sim_disk_data(world.disks[0]);
		cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &hold), 0);
		bio = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 1);
		dmcore_sim_rules_clear(world.disks[0]);
		simworld_write(&world, 0, 1, 1, 2, DMCORE_BIO_FUA);
		dmcore_sim_cut(world.sim);
		cr_assert_eq(data[512], 2, "seed %u", (unsigned int)seed);
		there += data[0] == 1;
		cr_assert_eq(simworld_wait(&world, bio), -ENODEV);
		dmcore_bio_put(bio);
		dmcore_sim_power_on(world.sim);
		simworld_close(&world);
	}
	cr_assert(there > 5 && there < 45);
}

/* ---- disks ---- */

static int refused(uint64_t sectors, uint32_t atomic_bytes, uint32_t block_bytes,
		   unsigned int flags, const char *name)
{
	struct dmcore_sim_disk_options options = {
		.struct_size = sizeof(options),
		.sectors = sectors,
		.atomic_bytes = atomic_bytes,
		.logical_block_bytes = block_bytes,
		.flags = flags,
	};
	struct dmcore_sim_disk *disk;
	int ret = dmcore_sim_disk_create(world.sim, name, &options, &disk);

	cr_assert(ret || disk);
	return ret;
}

Test(sim_world, disk_options_out_of_range_are_refused)
{
	cr_assert_eq(refused(0, 0, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(DMCORE_SIM_DISK_SECTORS_MAX + 1, 0, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(64, 8, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(64, 48, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(64, 131072, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(65, 1024, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(64, 0, 256, 0, "a"), -EINVAL);
	cr_assert_eq(refused(64, 0, 1000, 0, "a"), -EINVAL);
	cr_assert_eq(refused(65, 0, 4096, 0, "a"), -EINVAL);
	cr_assert_eq(refused(DMCORE_SIM_DISK_SECTORS_MAX, 16, 0, 0, "a"), -EINVAL);
	cr_assert_eq(refused(64, 0, 0, 1u << 30, "a"), -EINVAL);
	cr_assert_eq(refused(64, 0, 0, 0, ""), -EINVAL);
	cr_assert_eq(refused(64, 0, 0, 0, "a,b"), -EINVAL);
	cr_assert_eq(refused(64, 0, 0, 0, "a"), 0);
	cr_assert_eq(refused(64, 0, 0, 0, "a"), -EEXIST);
	cr_assert_eq(refused(DMCORE_SIM_DISK_SECTORS_MAX, 0, 0, 0, "large"), 0);
}

Test(sim_world, there_are_so_many_disks_and_no_more)
{
	char name[16];

	for (unsigned int i = 0; i < DMCORE_SIM_DISKS_MAX; i++) {
		snprintf(name, sizeof(name), "x%u", i);
		cr_assert_eq(refused(8, 0, 0, 0, name), 0);
	}
	cr_assert_eq(refused(8, 0, 0, 0, "one"), -ENOSPC);
}

Test(sim_world, disk_that_is_not_there_is_not_opened)
{
	struct dmcore_bdev *bdev;

	cr_assert_eq(dmcore_bdev_open(world.core, "sim:nope", 0, &bdev), -ENOENT);
	cr_assert_str_eq(dmcore_error_message(), "sim:nope: the world has no such disk");
}

Test(sim_world, content_can_be_put_onto_a_disk)
{
	unsigned char data[1024];
	unsigned char back[1024];

	memset(data, 7, sizeof(data));
	simworld_add_disk(&world, 64);
	simworld_write(&world, 0, 0, 4, 1, 0);
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], data, 1024, 512), 0);
	dmcore_sim_cut(world.sim);
	dmcore_sim_power_on(world.sim);
	cr_assert_eq(dmcore_pread(world.bdevs[0], back, 1024, 512), 0);
	cr_assert_arr_eq(back, data, 1024);
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], data, 100, 0), -EINVAL);
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], data, 1024, 63 * 512), -EINVAL);
	cr_assert_eq(dmcore_sim_record(world.sim), 0);
	cr_assert_eq(dmcore_sim_disk_load(world.disks[0], data, 1024, 0), -EBUSY);
}

static unsigned char after_discard(enum dmcore_sim_discard discard)
{
	const unsigned char *data;

	world.options.discard = discard;
	simworld_add_disk(&world, 64);
	data = dmcore_sim_disk_data(world.disks[world.num_disks - 1]);
	simworld_write(&world, world.num_disks - 1, 0, 1, 9, 0);
	cr_assert_eq(dmcore_discard(world.bdevs[world.num_disks - 1], 512, 0), 0);
	for (unsigned int i = 1; i < 512; i++) {
		if (data[i] != data[0])
			return 255;
	}
	return data[0];
}

Test(sim_world, discarded_sectors_hold_what_was_chosen)
{
	cr_assert_eq(after_discard(DMCORE_SIM_DISCARD_ZEROES), 0);
	cr_assert_eq(after_discard(DMCORE_SIM_DISCARD_KEEPS), 9);
	cr_assert_eq(after_discard(DMCORE_SIM_DISCARD_RANDOM), 255);
}

Test(sim_world, limits_are_those_of_the_options)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };

	world.options.flags = DMCORE_SIM_NO_CACHE | DMCORE_SIM_NO_FUA | DMCORE_SIM_NO_DISCARD |
			      DMCORE_SIM_NO_WRITE_ZEROES;
	world.options.logical_block_bytes = 4096;
	world.options.max_io_sectors = 64;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_bdev_limits(world.bdevs[0], &limits), 0);
	cr_assert_eq(limits.caps, 0);
	cr_assert_eq(limits.logical_block_bytes, 4096);
	cr_assert_eq(limits.max_io_sectors, 64);
	world.options.flags = 0;
	simworld_add_disk(&world, 64);
	cr_assert_eq(dmcore_bdev_limits(world.bdevs[1], &limits), 0);
	cr_assert_eq(limits.caps, DMCORE_CAP_VOLATILE_CACHE | DMCORE_CAP_FUA |
					  DMCORE_CAP_DISCARD | DMCORE_CAP_DISCARD_ZEROES |
					  DMCORE_CAP_WRITE_ZEROES);
}

/* ---- misuse ---- */

Test(sim_alone, what_is_malformed_is_refused)
{
	struct dmcore_sim_options options = { .struct_size = 0 };
	struct dmcore_options core_options = { .struct_size = 0 };
	struct dmcore_sim *sim;
	struct dmcore *core;

	cr_assert_eq(dmcore_sim_create(&options, &sim), -EINVAL);
	cr_assert_eq(dmcore_sim_create(NULL, NULL), -EINVAL);
	cr_assert_eq(dmcore_sim_create(NULL, &sim), 0);
	cr_assert_eq(dmcore_sim_core(sim, &core_options, &core), -EINVAL);
	cr_assert_eq(dmcore_sim_core(NULL, NULL, &core), -EINVAL);
	cr_assert_eq(dmcore_sim_set_phase(sim, 32), -EINVAL);
	cr_assert_eq(dmcore_sim_choose(sim, 0), 0);
	cr_assert_eq(dmcore_sim_destroy(sim), 0);
	cr_assert_eq(dmcore_sim_destroy(NULL), 0);
}

/* ---- failing runs made short ---- */

/* Fails if 7 comes before 3, and 3 before 91. */
static unsigned int num_tries;

static bool fails(const uint32_t *ops, size_t num_ops, void *context)
{
	unsigned int stage = 0;
	static const uint32_t needed[] = { 7, 3, 91 };

	(void)context;
	num_tries++;
	for (size_t i = 0; i < num_ops && stage < 3; i++)
		stage += ops[i] == needed[stage];
	return stage == 3;
}

Test(sim_alone, failing_run_is_made_as_short_as_it_gets)
{
	uint32_t ops[1000];

	for (unsigned int i = 0; i < 1000; i++)
		ops[i] = i * 37 % 1000;
	ops[100] = 7;
	ops[500] = 3;
	ops[900] = 91;
	cr_assert_eq(dmcore_sim_shrink(ops, 1000, fails, NULL, UINT_MAX), 3);
	cr_assert_eq(ops[0], 7);
	cr_assert_eq(ops[1], 3);
	cr_assert_eq(ops[2], 91);
	cr_assert_lt(num_tries, 500);
}

Test(sim_alone, run_that_does_not_fail_is_left_alone)
{
	uint32_t ops[4] = { 1, 2, 3, 4 };

	cr_assert_eq(dmcore_sim_shrink(ops, 4, fails, NULL, 100), 4);
	cr_assert_eq(num_tries, 1);
	for (unsigned int i = 0; i < 4; i++)
		cr_assert_eq(ops[i], i + 1);
	cr_assert_eq(dmcore_sim_shrink(ops, 0, fails, NULL, 100), 0);
}

Test(sim_alone, shrinking_keeps_to_its_bound)
{
	uint32_t ops[1000];

	for (unsigned int i = 0; i < 1000; i++)
		ops[i] = i;
	ops[0] = 7;
	ops[3] = 3;
	ops[7] = 8;
	ops[91] = 0;
	ops[92] = 91;
	cr_assert_lt(dmcore_sim_shrink(ops, 1000, fails, NULL, 10), 1000);
	cr_assert_eq(num_tries, 10);
}
