/* SPDX-License-Identifier: MIT */
/* What rules make of the requests of a simulated disk (sim/rules.c, sim/disk.c). */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore.h>

#include "support/simworld.h"

static struct simworld world;
static unsigned char buffer[8 * 512];

static void open_world(void)
{
	simworld_open(&world, 1);
	simworld_add_disk(&world, 64);
	simworld_write(&world, 0, 0, 64, 1, 0);
	simworld_flush(&world, 0);
}

static void close_world(void)
{
	simworld_close(&world);
}

TestSuite(sim_rules, .init = open_world, .fini = close_world);

static void add(struct dmcore_sim_rule rule)
{
	rule.struct_size = sizeof(rule);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), 0, "%s", dmcore_error_message());
}

static const unsigned char *data_of_disk(void)
{
	return dmcore_sim_disk_data(world.disks[0]);
}

static int write_sectors(unsigned int sector, unsigned int count, unsigned char byte)
{
	memset(buffer, byte, (size_t)count * 512);
	return dmcore_pwrite(world.bdevs[0], buffer, (size_t)count * 512, sector * 512u);
}

static int read_sectors(unsigned int sector, unsigned int count)
{
	memset(buffer, 99, sizeof(buffer));
	return dmcore_pread(world.bdevs[0], buffer, (size_t)count * 512, sector * 512u);
}

/* Sectors of the first eight that hold this byte from end to end, as bits. */
static unsigned int sectors_with(unsigned char byte)
{
	unsigned int bits = 0;

	for (unsigned int i = 0; i < 8; i++) {
		const unsigned char *sector = data_of_disk() + i * 512;

		if (sector[0] == byte && memcmp(sector, sector + 1, 511) == 0)
			bits |= 1u << i;
	}
	return bits;
}

Test(sim_rules, fail_carries_nothing_out)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -ENOSPC,
				      .ops = 1u << DMCORE_OP_WRITE });
	cr_assert_eq(write_sectors(0, 4, 2), -ENOSPC);
	cr_assert_eq(sectors_with(1), 0xff);
	cr_assert_eq(read_sectors(0, 1), 0, "reads pass");
	cr_assert_eq(dmcore_sim_rules_acted(world.disks[0]), 1);
}

Test(sim_rules, fail_done_carries_out_what_it_fails)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL_DONE, .status = -EIO });
	cr_assert_eq(write_sectors(0, 4, 2), -EIO);
	cr_assert_eq(sectors_with(2), 0x0f);
	cr_assert_eq(read_sectors(2, 4), -EIO);
	cr_assert_eq(buffer[0], 2);
}

Test(sim_rules, failed_write_is_not_covered_by_a_flush)
{
	unsigned int lost = 0;

	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL_DONE, .status = -EIO,
				      .ops = 1u << DMCORE_OP_WRITE, .times = 1 });
	cr_assert_eq(write_sectors(0, 8, 2), -EIO);
	simworld_flush(&world, 0);
	dmcore_sim_cut(world.sim);
	lost = sectors_with(1);
	dmcore_sim_power_on(world.sim);
	cr_assert_eq(lost | sectors_with(2), 0xff);
}

Test(sim_rules, tear_carries_the_beginning_out)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_TEAR, .status = -EIO, .sectors = 3 });
	cr_assert_eq(write_sectors(0, 8, 2), -EIO);
	cr_assert_eq(sectors_with(2), 0x07);
	cr_assert_eq(read_sectors(0, 8), -EIO);
	cr_assert_eq(buffer[2 * 512], 2);
	cr_assert_eq(buffer[3 * 512], 99);
}

Test(sim_rules, lose_says_that_all_is_well)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_LOSE });
	cr_assert_eq(write_sectors(0, 4, 2), 0);
	cr_assert_eq(sectors_with(1), 0xff);
	cr_assert_eq(read_sectors(0, 1), 0);
	cr_assert_eq(buffer[0], 99);
}

Test(sim_rules, lost_flush_makes_nothing_durable)
{
	unsigned int lost = 0;

	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_LOSE, .ops = 1u << DMCORE_OP_FLUSH });
	for (unsigned int i = 0; i < 20; i++) {
		cr_assert_eq(write_sectors(0, 1, (unsigned char)(2 + i)), 0);
		cr_assert_eq(dmcore_flush(world.bdevs[0]), 0);
		dmcore_sim_cut(world.sim);
		dmcore_sim_power_on(world.sim);
		lost += data_of_disk()[0] != 2 + i;
	}
	cr_assert_gt(lost, 0);
}

Test(sim_rules, misdirected_request_goes_elsewhere)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_MISDIRECT, .sector_to = 4,
				      .ops = 1u << DMCORE_OP_WRITE });
	cr_assert_eq(write_sectors(0, 2, 2), 0);
	cr_assert_eq(sectors_with(2), 0x30);
	dmcore_sim_rules_clear(world.disks[0]);
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_MISDIRECT, .sector_to = 4 });
	cr_assert_eq(read_sectors(0, 1), 0);
	cr_assert_eq(buffer[0], 2);
	dmcore_sim_rules_clear(world.disks[0]);
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_MISDIRECT, .sector_to = 63 });
	cr_assert_eq(write_sectors(0, 4, 3), 0, "cut to what there is");
	cr_assert_eq(data_of_disk()[63 * 512], 3);
	dmcore_sim_rules_clear(world.disks[0]);
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_MISDIRECT, .sector_to = 1000 });
	cr_assert_eq(write_sectors(0, 4, 4), 0);
	cr_assert_eq(sectors_with(4), 0);
}

static unsigned int bits_that_differ(const unsigned char *data, unsigned char byte)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < sizeof(buffer); i++)
		count += (unsigned int)__builtin_popcount(data[i] ^ byte);
	return count;
}

Test(sim_rules, corrupt_flips_a_bit_of_what_is_read)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_CORRUPT });
	cr_assert_eq(read_sectors(0, 8), 0);
	cr_assert_eq(bits_that_differ(buffer, 1), 1);
	cr_assert_eq(bits_that_differ(data_of_disk(), 1), 0, "the disk is as it was");
}

Test(sim_rules, corrupt_flips_a_bit_of_what_is_written)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_CORRUPT });
	cr_assert_eq(write_sectors(0, 8, 2), 0);
	cr_assert_eq(bits_that_differ(buffer, 2), 0, "the program's memory is as it was");
	cr_assert_eq(bits_that_differ(data_of_disk(), 2), 1);
	cr_assert_eq(dmcore_flush(world.bdevs[0]), 0);
	cr_assert_eq(dmcore_discard(world.bdevs[0], 512, 0), 0);
	cr_assert_eq(dmcore_sim_rules_acted(world.disks[0]), 1, "nothing of those can flip");
}

Test(sim_rules, delay_takes_longer)
{
	uint64_t begun_ns = dmcore_sim_now_ns(world.sim);

	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_DELAY, .delay_ns = 12345 });
	cr_assert_eq(read_sectors(0, 1), 0);
	cr_assert_eq(dmcore_sim_now_ns(world.sim), begun_ns + 12345);
}

Test(sim_rules, held_requests_wait_until_they_are_let_go)
{
	struct dmcore_bio *first;
	struct dmcore_bio *second;

	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_HOLD });
	first = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 2);
	second = simworld_submit(&world, 0, DMCORE_OP_WRITE, 0, 0, 1, 3);
	cr_assert_eq(dmcore_queue_poll(world.queue, 1, 1, 1000000), 0);
	cr_assert_eq(dmcore_sim_release(world.disks[0]), 2);
	cr_assert_eq(simworld_wait(&world, first), 0);
	cr_assert_eq(simworld_wait(&world, second), 0);
	cr_assert_eq(data_of_disk()[0], 3, "in their order");
	cr_assert_eq(dmcore_sim_release(world.disks[0]), 0);
	dmcore_bio_put(first);
	dmcore_bio_put(second);
}

/* ---- which requests they want ---- */

Test(sim_rules, only_requests_that_touch_the_sectors_count)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -EIO, .sector = 4,
				      .count = 2 });
	cr_assert_eq(read_sectors(0, 4), 0);
	cr_assert_eq(read_sectors(6, 2), 0);
	cr_assert_eq(read_sectors(3, 2), -EIO);
	cr_assert_eq(read_sectors(5, 2), -EIO);
	cr_assert_eq(read_sectors(0, 8), -EIO);
	cr_assert_eq(dmcore_flush(world.bdevs[0]), -EIO, "a flush touches all");
}

Test(sim_rules, skip_and_times_count_what_matches)
{
	static const int expected[] = { 0, 0, -EIO, -EIO, -EIO, 0, 0 };

	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -EIO, .skip = 2,
				      .times = 3, .ops = 1u << DMCORE_OP_READ });
	for (unsigned int i = 0; i < 7; i++) {
		cr_assert_eq(write_sectors(0, 1, 1), 0);
		cr_assert_eq(read_sectors(0, 1), expected[i], "read %u", i);
	}
}

Test(sim_rules, chance_acts_as_often_as_it_says)
{
	unsigned int failed = 0;

	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -EIO,
				      .per_million = 250000 });
	for (unsigned int i = 0; i < 4000; i++)
		failed += read_sectors(0, 1) != 0;
	cr_assert_gt(failed, 850);
	cr_assert_lt(failed, 1150);
}

Test(sim_rules, phases_say_when)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -EIO,
				      .phases = 1u << 3 | 1u << 5 });
	for (unsigned int phase = 0; phase < 32; phase++) {
		cr_assert_eq(dmcore_sim_set_phase(world.sim, phase), 0);
		cr_assert_eq(read_sectors(0, 1), phase == 3 || phase == 5 ? -EIO : 0);
	}
}

Test(sim_rules, the_oldest_that_wants_a_request_decides)
{
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -EIO, .times = 1 });
	add((struct dmcore_sim_rule){ .action = DMCORE_SIM_FAIL, .status = -ENOSPC });
	cr_assert_eq(read_sectors(0, 1), -EIO);
	cr_assert_eq(read_sectors(0, 1), -ENOSPC);
	dmcore_sim_rules_clear(world.disks[0]);
	cr_assert_eq(read_sectors(0, 1), 0);
	cr_assert_eq(dmcore_sim_rules_acted(world.disks[0]), 2);
}

Test(sim_rules, what_is_malformed_is_refused)
{
	struct dmcore_sim_rule rule = { .action = DMCORE_SIM_DELAY };

	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), -EINVAL);
	rule.struct_size = sizeof(rule);
	cr_assert_eq(dmcore_sim_rule_add(NULL, &rule), -EINVAL);
	rule.action = DMCORE_SIM_FAIL;
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), -EINVAL);
	rule.status = 5;
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), -EINVAL);
	rule.status = -5;
	rule.ops = 1u << DMCORE_OP_COUNT;
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), -EINVAL);
	rule.ops = 0;
	rule.action = (enum dmcore_sim_action)(DMCORE_SIM_CORRUPT + 1);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), -EINVAL);
	rule.action = DMCORE_SIM_DELAY;
	for (unsigned int i = 0; i < DMCORE_SIM_RULES_MAX; i++)
		cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), 0);
	cr_assert_eq(dmcore_sim_rule_add(world.disks[0], &rule), -ENOSPC);
}
