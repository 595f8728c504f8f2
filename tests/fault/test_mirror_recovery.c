/* SPDX-License-Identifier: MIT */
/*
 * Recovery of mirrors over disks that fail: what can't be copied stays out of sync, doesn't keep
 * the rest from being recovered, and is tried again.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define WAYS 6u

static const char *const features[] = { NULL, "1 handle_errors", "2 handle_errors keep_log" };

/* Leg 0 holds version 0, the others 9; nothing is in sync. */
static struct mirrors_table open_different(unsigned int way)
{
	mirrors_open();
	for (unsigned int i = 1; i < MIRRORS_DISKS; i++)
		pattern_fill(fault_data(mirrors.disks[i]), 0, MIRRORS_SECTORS, 9);
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		mirrors_set_clean(region, false);
	return (struct mirrors_table){ .legs = "012", .disk = way / 3 % 2,
				       .features = features[way % 3] };
}

static void close_in_sync(const struct mirrors_table *table)
{
	mirrors_await_in_sync();
	mirrors_expect_status(MIRRORS_REGIONS, "AAA", table->disk ? "A" : NULL);
	for (unsigned int i = 0; i < 3; i++)
		mirrors_expect_disk(i, 0, MIRRORS_SECTORS, 0);
	mirrors_suspend(0);
	for (uint64_t region = 0; table->disk && region < MIRRORS_REGIONS; region++)
		cr_assert(mirrors_is_clean(region), "%llu", (unsigned long long)region);
	mirrors_resume();
	mirrors_expect(0, MIRRORS_SECTORS, 0);
	mirrors_expect_status(MIRRORS_REGIONS, "AAA", table->disk ? "A" : NULL);
	mirrors_close();
}

static void add_bad_sector(unsigned int disk, unsigned int ops, uint64_t sector)
{
	fault_add_rule(mirrors.disks[disk], &(struct fault_rule){ .ops = ops, .status = -EIO,
			.sector = sector, .count = 1 });
}

/* ---- bad sectors ---- */

static void recover_with_bad_sectors(unsigned int way, unsigned int leg, unsigned int num_bad)
{
	static const uint64_t bad[] = { 83, 0, 95, 255 };
	struct mirrors_table table = open_different(way);
	const char *log = table.disk ? "A" : NULL;
	/* 83 and 95 lie in one region. */
	unsigned int regions = num_bad > 2 ? num_bad - 1 : num_bad;
	char health[] = "AAA";
	unsigned int failures;

	for (unsigned int i = 0; i < num_bad; i++)
		add_bad_sector(leg, leg == 0 ? FAULT_READ : FAULT_WRITE, bad[i]);
	mirrors_map(&table);
	for (unsigned int i = 0; i < 40; i++)
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
	health[leg] = 'S';
	mirrors_expect_status(MIRRORS_REGIONS - regions, health, log);
	for (unsigned int i = 1; i < 3; i++) {
		mirrors_expect_disk(i, 16, 64, 0);
		mirrors_expect_disk(i, 96, 144, 0);
	}
	cr_assert(!table.disk || !mirrors_is_clean(5));
	/* The pauses are no longer than a minute. */
	failures = fault_num_failed(mirrors.disks[leg]);
	mirrors_pass_ns(UINT64_C(61000000000));
	cr_assert_gt(fault_num_failed(mirrors.disks[leg]), failures);
	mirrors_expect_status(MIRRORS_REGIONS - regions, health, log);
	fault_clear_rules(mirrors.disks[leg]);
	close_in_sync(&table);
}

Test(mirror_recovery, of_regions_without_bad_sectors_goes_on)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		for (unsigned int leg = 0; leg < 3; leg++) {
			recover_with_bad_sectors(way, leg, 1);
			recover_with_bad_sectors(way, leg, 4);
		}
	}
}

static void keep_across_suspension(unsigned int way)
{
	struct mirrors_table table = open_different(way);
	const char *log = table.disk ? "A" : NULL;

	add_bad_sector(1, FAULT_WRITE, 83);
	mirrors_map(&table);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_suspend(0);
	mirrors_expect_status(MIRRORS_REGIONS - 1, "ASA", log);
	for (uint64_t region = 0; table.disk && region < MIRRORS_REGIONS; region++)
		cr_assert_eq(mirrors_is_clean(region), region != 5);
	mirrors_resume();
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS - 1, "ASA", log);
	if (table.disk) {
		mirrors_suspend(0);
		mirrors_load(&table);
		mirrors_settle();
		mirrors_expect_status(MIRRORS_REGIONS - 1, "ASA", log);
	}
	mirrors_expect(80, 16, 0);
	fault_clear_rules(mirrors.disks[1]);
	close_in_sync(&table);
}

Test(mirror_recovery, that_failed_has_failed_after_a_suspension)
{
	for (unsigned int way = 0; way < WAYS; way++)
		keep_across_suspension(way);
}

/* ---- a leg that is gone ---- */

static void lose_a_leg(unsigned int way, unsigned int leg)
{
	struct mirrors_table table = open_different(way);
	char health[] = "AAA";
	unsigned int failures;

	mirrors_fail(mirrors.disks[leg], 0, 0, 0);
	mirrors_map(&table);
	mirrors_settle();
	health[leg] = 'S';
	mirrors_expect_status(0, health, table.disk ? "A" : NULL);
	/* It waits before it tries again, and then it does. */
	failures = fault_num_failed(mirrors.disks[leg]);
	cr_assert_gt(failures, 0);
	mirrors_pass_ns(100000000);
	cr_assert_eq(fault_num_failed(mirrors.disks[leg]), failures);
	mirrors_pass_ns(1000000000);
	cr_assert_gt(fault_num_failed(mirrors.disks[leg]), failures);
	mirrors_expect_status(0, health, table.disk ? "A" : NULL);
	fault_clear_rules(mirrors.disks[leg]);
	close_in_sync(&table);
}

Test(mirror_recovery, of_a_leg_that_is_gone_waits_for_it)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		for (unsigned int leg = 0; leg < 3; leg++)
			lose_a_leg(way, leg);
	}
}

/* One that never had anything isn't the first, even if the first can't be read. */
static void keep_first(unsigned int way, unsigned int times)
{
	struct mirrors_table table = open_different(way);

	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, times);
	mirrors_map(&table);
	mirrors_settle();
	close_in_sync(&table);
}

Test(mirror_recovery, never_begins_with_a_leg_that_is_not_in_sync)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		keep_first(way, 1);
		keep_first(way, 7);
	}
}

/* ---- any copy or write fails, once ---- */

static bool fail_nth(unsigned int way, unsigned int leg, unsigned int nth)
{
	struct mirrors_table table = open_different(way);
	struct tally tally = { 0 };
	bool reached;

	mirrors_fail(mirrors.disks[leg], FAULT_READ | FAULT_WRITE, nth, 1);
	mirrors_map(&table);
	mirrors_settle();
	/* It may fail, or be held. */
	mirrors_start(0, 40, 4, 0, &tally);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	reached = fault_num_failed(mirrors.disks[leg]) > 0;
	fault_clear_rules(mirrors.disks[leg]);
	close_in_sync(&table);
	cr_assert_eq(tally.ended, 1);
	return reached;
}

Test(mirror_recovery, forgets_failures_when_all_is_in_sync)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		for (unsigned int leg = 0; leg < 3; leg++) {
			unsigned int nth = 0;

			while (fail_nth(way, leg, nth))
				nth++;
			/* A run at least, and the write. */
			cr_assert_geq(nth, 2);
		}
	}
}

/* ---- requests meanwhile ---- */

Test(mirror_recovery, that_waits_for_a_request_does_not_hold_up_a_suspension)
{
	struct mirrors_table table = open_different(0);
	struct tally tally = { 0 };

	/* Recovery fails, and waits; a write is inside of a region meanwhile. */
	mirrors_fail(mirrors.disks[1], FAULT_WRITE, 0, 0);
	mirrors_map(&table);
	mirrors_settle();
	fault_add_rule(mirrors.disks[0], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE });
	mirrors_start(0, 0, 4, 1, &tally);
	mirrors_settle();
	cr_assert_eq(fault_num_held(mirrors.disks[0]), 1);
	fault_clear_rules(mirrors.disks[1]);
	for (unsigned int i = 0; i < 10; i++)
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
	/* And one waits for recovery. */
	mirrors_start(0, 4, 4, 1, &tally);
	mirrors_settle();
	cr_assert_eq(fault_num_held(mirrors.disks[0]), 1);
	fault_clear_rules(mirrors.disks[0]);
	fault_release_all(mirrors.disks[0]);
	mirrors_suspend(0);
	mirrors_wait(&tally, 2);
	cr_assert_eq(tally.failed, 0);
	mirrors_resume();
	mirrors_await_in_sync();
	mirrors_expect(0, 8, 1);
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_close();
}
