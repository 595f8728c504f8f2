/* SPDX-License-Identifier: MIT */
/*
 * Mirrors whose legs fail reads: another leg is asked, but only where it holds the same, so that
 * nobody reads what is older than the last write that was acknowledged.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define HANDLE "1 handle_errors"
#define KEEP "2 handle_errors keep_log"
#define SECTOR 50u
#define COUNT 4u

static const char *const features[] = { NULL, HANDLE, KEEP };
#define WAYS 6u

static struct mirrors_table table_of(unsigned int way, const char *legs)
{
	bool disk = way / 3 % 2;

	return (struct mirrors_table){ .legs = legs, .disk = disk,
				       .sync = disk ? NULL : "nosync",
				       .features = features[way % 3] };
}

static unsigned int num_reads(unsigned int disk)
{
	return fault_count(mirrors.disks[disk], FAULT_READ);
}

/* ---- where all is in sync ---- */

static void read_from_another(unsigned int way)
{
	struct mirrors_table table = table_of(way, "012");
	const char *log = table.disk ? "A" : NULL;
	uint32_t events;

	mirrors_open();
	mirrors_map(&table);
	mirrors_write(SECTOR, COUNT, 1);
	events = mirrors_events();
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 0);
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS, "RAA", log);
	cr_assert_eq(mirrors_events() - events, table.features != NULL);
	/* Nobody asks it again. */
	mirrors_expect(0, SECTOR, 0);
	cr_assert_eq(num_reads(0), 1);
	mirrors_fail(mirrors.disks[1], FAULT_READ, 0, 0);
	mirrors_fail(mirrors.disks[2], FAULT_READ, 0, 0);
	cr_assert_eq(mirrors_try_read(SECTOR, COUNT), -EIO);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS, "RRR", log);
	cr_assert_eq(mirrors_try_read(0, 1), -EIO);
	cr_assert_eq(num_reads(0), 1);
	mirrors_close();
}

Test(mirror_reads, that_a_leg_fails_are_asked_of_the_others)
{
	for (unsigned int way = 0; way < WAYS; way++)
		read_from_another(way);
}

Test(mirror_reads, go_downwards_from_the_first_leg_and_wrap)
{
	struct mirrors_table table = table_of(0, "012");

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 0);
	mirrors_expect(0, 4, 0);
	cr_assert_eq(num_reads(1), 0);
	cr_assert_eq(num_reads(2), 1);
	mirrors_fail(mirrors.disks[2], FAULT_READ, 0, 0);
	mirrors_expect(0, 4, 0);
	cr_assert_eq(num_reads(0), 1);
	cr_assert_eq(num_reads(1), 1);
	cr_assert_eq(num_reads(2), 2);
	mirrors_close();
}

Test(mirror_reads, that_were_torn_are_whole_from_another_leg)
{
	struct mirrors_table table = table_of(0, "01");

	mirrors_open();
	mirrors_map(&table);
	mirrors_write(0, MIRRORS_SECTORS, 1);
	/* In the third of the regions that the read touches. */
	fault_add_rule(mirrors.disks[0], &(struct fault_rule){ .action = FAULT_TEAR,
			.ops = FAULT_READ, .status = -EIO, .sector = 36, .count = 1,
			.torn_sectors = 3 });
	mirrors_expect(3, 90, 1);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS, "RA", NULL);
	mirrors_close();
}

/* ---- where they differ ---- */

/* Leg 1 lacks a write that was acknowledged: it isn't asked, whatever leg 0 does. */
static void read_what_only_one_has(unsigned int way)
{
	struct mirrors_table table = table_of(way, "012");

	mirrors_open();
	mirrors_map(&table);
	/* Legs 1 and 2 stay as they are. */
	mirrors_fail(mirrors.disks[1], FAULT_WRITE, 0, 0);
	mirrors_fail(mirrors.disks[2], FAULT_WRITE, 0, 0);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 0);
	cr_assert_eq(mirrors_try_read(SECTOR, COUNT), -EIO);
	cr_assert_eq(mirrors_try_read(SECTOR, COUNT), -EIO);
	mirrors_settle();
	cr_assert_eq(num_reads(1), 0);
	cr_assert_eq(num_reads(2), 0);
	for (unsigned int i = 0; i < 3; i++)
		fault_clear_rules(mirrors.disks[i]);
	mirrors_await_in_sync();
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_close();
}

Test(mirror_reads, of_what_one_leg_alone_has_fail_with_it)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		if (features[way % 3] != features[1])
			read_what_only_one_has(way);
	}
}

/* Legs 0 and 2 have it, leg 1 doesn't; its region is out of sync, all others aren't. */
Test(mirror_reads, of_other_regions_go_on)
{
	struct mirrors_table table = table_of(0, "012");

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[1], FAULT_WRITE, 0, 0);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 0);
	mirrors_expect(0, 4, 0);
	mirrors_expect(200, 4, 0);
	cr_assert_eq(mirrors_try_read(SECTOR, COUNT), -EIO);
	cr_assert_eq(num_reads(1), 0);
	mirrors_close();
}

/* Before the first recovery: leg 1 holds anything. */
static void read_before_recovery(unsigned int way)
{
	struct mirrors_table table = table_of(way, "01");
	unsigned int reads;

	mirrors_open();
	pattern_fill(fault_data(mirrors.disks[1]), 0, MIRRORS_SECTORS, 9);
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		mirrors_set_clean(region, false);
	table.sync = NULL;
	/* It never gets on. */
	fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE });
	mirrors_map(&table);
	mirrors_settle();
	mirrors_expect(0, MIRRORS_SECTORS, 0);
	reads = num_reads(0);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 0);
	cr_assert_eq(mirrors_try_read(0, 4), -EIO);
	cr_assert_eq(num_reads(0), reads + 1);
	cr_assert_eq(mirrors_try_read(0, 4), -EIO);
	mirrors_settle();
	cr_assert_eq(num_reads(1), 0);
	mirrors_expect_status(0, "RA", table.disk ? "A" : NULL);
	fault_clear_rules(mirrors.disks[0]);
	fault_clear_rules(mirrors.disks[1]);
	fault_release_all(mirrors.disks[1]);
	mirrors_await_in_sync();
	/* Leg 0 is the one that counts, whoever failed. */
	mirrors_expect_disk(0, 0, MIRRORS_SECTORS, 0);
	mirrors_expect_disk(1, 0, MIRRORS_SECTORS, 0);
	mirrors_expect_status(MIRRORS_REGIONS, "AA", table.disk ? "A" : NULL);
	mirrors_close();
}

Test(mirror_reads, before_the_legs_are_in_sync_are_of_leg_0_alone)
{
	for (unsigned int way = 0; way < WAYS; way++)
		read_before_recovery(way);
}

/* ---- those that aren't tried again ---- */

Test(mirror_reads, ahead_are_not_tried_again)
{
	static unsigned char bytes[4 * DMCORE_SECTOR_BYTES];
	struct mirrors_table table = table_of(1, "01");
	uint32_t events;

	mirrors_open();
	mirrors_map(&table);
	mirrors_settle();
	events = mirrors_events();
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 1);
	cr_assert_eq(mirrors_run(DMCORE_OP_READ, DMCORE_BIO_RAHEAD, 0, 4, bytes), -EIO);
	mirrors_settle();
	cr_assert_eq(num_reads(1), 0);
	mirrors_expect_status(MIRRORS_REGIONS, "AA", NULL);
	cr_assert_eq(mirrors_events(), events);
	mirrors_expect(0, 4, 0);
	mirrors_close();
}

Test(mirror_reads, ahead_are_refused_where_the_legs_may_differ)
{
	static unsigned char bytes[4 * DMCORE_SECTOR_BYTES];
	struct mirrors_table table = { .legs = "01" };
	unsigned int reads;

	mirrors_open();
	fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE });
	mirrors_map(&table);
	mirrors_settle();
	reads = num_reads(0);
	cr_assert_eq(mirrors_run(DMCORE_OP_READ, DMCORE_BIO_RAHEAD, 0, 4, bytes), -EIO);
	cr_assert_eq(num_reads(0), reads);
	mirrors_expect(0, 4, 0);
	fault_clear_rules(mirrors.disks[1]);
	fault_release_all(mirrors.disks[1]);
	mirrors_await_in_sync();
	mirrors_close();
}

Test(mirror_reads, that_a_leg_does_not_know_are_not_its_failure)
{
	struct mirrors_table table = table_of(1, "01");

	mirrors_open();
	mirrors_map(&table);
	fault_add_rule(mirrors.disks[0], &(struct fault_rule){ .ops = FAULT_READ,
			.status = -EOPNOTSUPP, .times = 1 });
	cr_assert_eq(mirrors_try_read(0, 4), -EOPNOTSUPP);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS, "AA", NULL);
	cr_assert_eq(num_reads(1), 0);
	mirrors_close();
}

/* ---- that are balanced ---- */

static void hold_reads(void)
{
	for (unsigned int i = 0; i < 3; i++)
		fault_add_rule(mirrors.disks[i], &(struct fault_rule){ .action = FAULT_HOLD,
				.ops = FAULT_READ });
}

static void let_reads_go(void)
{
	for (unsigned int i = 0; i < 3; i++) {
		fault_clear_rules(mirrors.disks[i]);
		fault_release_all(mirrors.disks[i]);
	}
	mirrors_settle();
}

/* So many at once; how many each of three legs got. */
static void read_at_once(unsigned int count, unsigned int *a, unsigned int *b, unsigned int *c)
{
	static unsigned char bytes[16 * DMCORE_SECTOR_BYTES];
	unsigned int before[3] = { num_reads(0), num_reads(1), num_reads(2) };
	struct tally tally = { 0 };

	hold_reads();
	for (unsigned int i = 0; i < count; i++)
		stage_submit(&mirrors.stage, mirrors.bdev, DMCORE_OP_READ, i, 1, bytes, &tally);
	let_reads_go();
	mirrors_wait(&tally, count);
	cr_assert_eq(tally.failed, 0);
	*a = num_reads(0) - before[0];
	*b = num_reads(1) - before[1];
	*c = num_reads(2) - before[2];
}

static void expect_at_once(unsigned int count, unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int got[3];

	read_at_once(count, &got[0], &got[1], &got[2]);
	cr_assert(got[0] == a && got[1] == b && got[2] == c, "%u %u %u", got[0], got[1], got[2]);
}

Test(mirror_reads, are_balanced_over_legs_that_are_well)
{
	static const struct mirrors_table table = { .legs = "012", .sync = "nosync",
						    .features = "1 balance_reads" };

	mirrors_open();
	mirrors_map(&table);
	for (unsigned int round = 0; round < 5; round++)
		expect_at_once(12, 4, 4, 4);
	expect_at_once(1, 1, 0, 0);
	mirrors_close();
}

Test(mirror_reads, are_balanced_over_those_legs_that_are_left)
{
	static const struct mirrors_table table = { .legs = "012", .sync = "nosync",
						    .features = "1 balance_reads" };

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 1);
	cr_assert_eq(mirrors_try_read(0, 1), 0);
	expect_at_once(12, 0, 6, 6);
	mirrors_close();
}

Test(mirror_reads, are_not_balanced_over_a_leg_that_lags)
{
	static const struct mirrors_table table = {
		.legs = "012", .sync = "nosync", .features = "4 balance_reads write_behind 1 64",
	};

	mirrors_open();
	mirrors_map(&table);
	expect_at_once(12, 6, 0, 6);
	mirrors_close();
}

Test(mirror_reads, are_not_balanced_before_the_legs_are_in_sync)
{
	static const struct mirrors_table table = { .legs = "012",
						    .features = "1 balance_reads" };

	mirrors_open();
	mirrors_fail(mirrors.disks[2], FAULT_WRITE, 0, 100);
	mirrors_map(&table);
	mirrors_settle();
	expect_at_once(12, 12, 0, 0);
	fault_clear_rules(mirrors.disks[2]);
	mirrors_await_in_sync();
	expect_at_once(12, 4, 4, 4);
	mirrors_close();
}
