/* SPDX-License-Identifier: MIT */
/*
 * Mirrors with a leg that takes its time over a flush, a write or a copy: what their log says is
 * clean is the same on all legs for good, and nobody waits for that leg who needn't.
 */
#include <criterion/criterion.h>

#include "support/mirrors.h"

#define REGION 3u
#define OTHER 7u
#define COUNT 4u
#define SLOW 1u

static const struct mirrors_table disk_log = { .legs = "01", .disk = true };

TestSuite(mirror_cleaning, .init = mirrors_open, .fini = mirrors_close);

static uint64_t sector_of(uint64_t region)
{
	return region * MIRRORS_REGION_SECTORS;
}

static void hold(unsigned int ops)
{
	fault_add_rule(mirrors.disks[SLOW],
		       &(struct fault_rule){ .action = FAULT_HOLD, .ops = ops });
}

static void let_go(void)
{
	fault_clear_rules(mirrors.disks[SLOW]);
	fault_release_all(mirrors.disks[SLOW]);
	mirrors_settle();
}

/* A region that was written to, and that a flush of the legs under way is to clean. */
static void clean_slowly(unsigned int num_held)
{
	mirrors_map(&disk_log);
	mirrors_write(sector_of(REGION), COUNT, 1);
	hold(FAULT_FLUSH);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert_eq(fault_num_held(mirrors.disks[SLOW]), num_held);
	cr_assert_not(mirrors_is_clean(REGION));
}

static void pass_two_sweeps(void)
{
	for (unsigned int i = 0; i < 3; i++)
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
}

Test(mirror_cleaning, lets_first_writes_to_other_regions_pass)
{
	clean_slowly(1);
	mirrors_write(sector_of(OTHER), COUNT, 1);
	cr_assert_not(mirrors_is_clean(OTHER));
	let_go();
	cr_assert(mirrors_is_clean(REGION));
	pass_two_sweeps();
	cr_assert(mirrors_is_clean(OTHER));
	mirrors_expect_same(0, SLOW);
}

Test(mirror_cleaning, leaves_what_is_written_to_again_marked)
{
	struct tally tally = { 0 };
	bool is_clean;

	clean_slowly(1);
	mirrors_write(sector_of(REGION), COUNT, 2);
	hold(FAULT_WRITE);
	mirrors_start(0, sector_of(REGION), COUNT, 3, &tally);
	mirrors_settle();
	/* The flush ends; the write hasn't reached the leg. */
	fault_release(mirrors.disks[SLOW], 0, 0);
	mirrors_settle();
	cr_assert_eq(tally.ended, 0);
	is_clean = mirrors_is_clean(REGION);
	let_go();
	cr_assert_not(is_clean);
	mirrors_wait(&tally, 1);
	pass_two_sweeps();
	cr_assert(mirrors_is_clean(REGION));
	mirrors_expect_same(0, SLOW);
}

Test(mirror_cleaning, leaves_what_is_recovered_meanwhile_to_the_next_flush)
{
	mirrors_set_clean(OTHER, false);
	fault_add_rule(mirrors.disks[SLOW], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE, .sector = sector_of(OTHER), .count = 1 });
	clean_slowly(2);
	mirrors_expect_status(MIRRORS_REGIONS - 1, "AA", "A");
	/* The copy is the older one of the two. */
	fault_release(mirrors.disks[SLOW], 0, 0);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS, "AA", "A");
	fault_release(mirrors.disks[SLOW], 0, 0);
	mirrors_settle();
	cr_assert(mirrors_is_clean(REGION));
	cr_assert_not(mirrors_is_clean(OTHER));
	let_go();
	pass_two_sweeps();
	cr_assert(mirrors_is_clean(OTHER));
}

Test(mirror_cleaning, is_waited_for_by_a_suspension)
{
	clean_slowly(1);
	mirrors_write(sector_of(OTHER), COUNT, 1);
	fault_clear_rules(mirrors.disks[SLOW]);
	fault_release_all(mirrors.disks[SLOW]);
	/* It has what the leg has ended, but no poll has seen that yet. */
	mirrors_suspend(0);
	for (unsigned int region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert(mirrors_is_clean(region), "%u", region);
	mirrors_resume();
}

Test(mirror_cleaning, spares_a_region_that_a_write_is_in)
{
	struct tally tally = { 0 };
	bool is_clean;

	mirrors_map(&disk_log);
	hold(FAULT_WRITE);
	mirrors_start(0, sector_of(REGION), COUNT, 1, &tally);
	pass_two_sweeps();
	cr_assert_eq(tally.ended, 0);
	is_clean = mirrors_is_clean(REGION);
	let_go();
	cr_assert_not(is_clean);
	mirrors_wait(&tally, 1);
	pass_two_sweeps();
	cr_assert(mirrors_is_clean(REGION));
	mirrors_expect_same(0, SLOW);
}

Test(mirror_cleaning, and_recovery_wait_for_writes_inside)
{
	struct tally tally = { 0 };

	mirrors_set_clean(REGION, false);
	mirrors_fail(mirrors.disks[SLOW], FAULT_WRITE, 0, 8);
	mirrors_map(&disk_log);
	mirrors_settle();
	fault_add_rule(mirrors.disks[0], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE });
	mirrors_start(0, sector_of(REGION), COUNT, 1, &tally);
	mirrors_settle();
	pass_two_sweeps();
	cr_assert_eq(tally.ended, 0);
	mirrors_expect_status(MIRRORS_REGIONS - 1, "AS", "A");
	fault_clear_rules(mirrors.disks[0]);
	fault_release_all(mirrors.disks[0]);
	mirrors_wait(&tally, 1);
	mirrors_await_in_sync();
	mirrors_expect_same(0, SLOW);
	mirrors_expect_disk(SLOW, sector_of(REGION), COUNT, 1);
}

Test(mirror_cleaning, has_nothing_for_recovered_that_a_failed_flush_may_have_lost)
{
	mirrors_set_clean(REGION, false);
	hold(FAULT_WRITE);
	mirrors_map(&disk_log);
	mirrors_settle();
	cr_assert_eq(fault_num_held(mirrors.disks[SLOW]), 1);
	mirrors_fail(mirrors.disks[SLOW], FAULT_FLUSH, 0, 1);
	mirrors_flush();
	fault_clear_rules(mirrors.disks[SLOW]);
	fault_release(mirrors.disks[SLOW], 0, 0);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS - 1, "AF", "A");
	mirrors_await_in_sync();
	mirrors_expect_same(0, SLOW);
}
