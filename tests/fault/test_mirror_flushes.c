/* SPDX-License-Identifier: MIT */
/*
 * Mirrors with a leg that fails to flush: it may lack all that was written since it was last
 * flushed, so that isn't in sync any more, or stays marked; what lay there before is. And with a
 * leg that doesn't discard, which is none the worse for it.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define HANDLE "1 handle_errors"
#define KEEP "2 handle_errors keep_log"
/* The region that is written to, one that was long before, and one that never was. */
#define REGION 3u
#define SECTOR 50u
#define COUNT 4u
#define BEFORE 7u
#define NEVER 11u

static const char *const features[] = { NULL, HANDLE, KEEP };
#define WAYS 6u

static struct mirrors_table table_of(unsigned int way, const char *legs)
{
	bool disk = way / 3 % 2;

	return (struct mirrors_table){ .legs = legs, .disk = disk,
				       .sync = disk ? NULL : "nosync",
				       .features = features[way % 3] };
}

static bool holds(const struct mirrors_table *table)
{
	return table->features && strcmp(table->features, HANDLE) == 0;
}

/* Recovery gets no further than its first read. */
static void hold_reads(unsigned int num_legs)
{
	for (unsigned int i = 0; i < num_legs; i++)
		fault_add_rule(mirrors.disks[i], &(struct fault_rule){ .action = FAULT_HOLD,
				.ops = FAULT_READ });
}

static void let_all_work(unsigned int num_legs)
{
	for (unsigned int i = 0; i < num_legs; i++) {
		fault_clear_rules(mirrors.disks[i]);
		fault_release_all(mirrors.disks[i]);
	}
}

/* A mirror with a region that is clean and was flushed, and one that has been written to. */
static void open_written(const struct mirrors_table *table)
{
	mirrors_open();
	mirrors_map(table);
	mirrors_write(BEFORE * MIRRORS_REGION_SECTORS, COUNT, 1);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert(!table->disk || mirrors_is_clean(BEFORE));
	mirrors_write(SECTOR, COUNT, 1);
}

/* ---- flushes of the user ---- */

static void start_flush(unsigned int kind, struct tally *tally)
{
	struct dmcore_bio *bio;

	if (kind > 0) {
		mirrors_start(DMCORE_BIO_PREFLUSH | (kind == 2 ? DMCORE_BIO_FUA : 0), 100, COUNT,
			      1, tally);
		return;
	}
	bio = stage_bio(&mirrors.stage, mirrors.bdev, DMCORE_OP_FLUSH, 0, 0, NULL, tally);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

static int flush_by(unsigned int kind)
{
	struct tally tally = { 0 };

	start_flush(kind, &tally);
	mirrors_wait(&tally, 1);
	return tally.status;
}

/* Leg 1 or 2 fails: leg 0 is the first, and has what it lacks. */
static void fail_flush_of_another(unsigned int way, unsigned int leg, unsigned int kind)
{
	struct mirrors_table table = table_of(way, "012");
	const char *log = table.disk ? "A" : NULL;
	struct tally tally = { 0 };
	char health[] = "AAA";
	uint32_t events;

	if (holds(&table))
		return;
	open_written(&table);
	events = mirrors_events();
	hold_reads(3);
	mirrors_fail(mirrors.disks[leg], FAULT_FLUSH, 0, 1);
	/* A write may wait for recovery then. */
	start_flush(kind, &tally);
	mirrors_settle();
	health[leg] = 'F';
	/* Without a disk nobody knows what was flushed before. */
	if (table.disk)
		mirrors_expect_status(MIRRORS_REGIONS - 1, health, log);
	else
		mirrors_expect_status(0, health, log);
	cr_assert_eq(mirrors_events() - events, table.features != NULL);
	cr_assert(!table.disk || !mirrors_is_clean(REGION));
	let_all_work(3);
	mirrors_await_in_sync();
	mirrors_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	mirrors_expect_status(MIRRORS_REGIONS, "AAA", log);
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_suspend(0);
	for (uint64_t region = 0; table.disk && region < MIRRORS_REGIONS; region++)
		cr_assert(mirrors_is_clean(region));
	mirrors_close();
}

Test(mirror_flushes, that_another_leg_than_the_first_fails_put_out_of_sync_what_it_may_lack)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		for (unsigned int kind = 0; kind < 3; kind++) {
			fail_flush_of_another(way, 1, kind);
			fail_flush_of_another(way, 2, kind);
		}
	}
}

/* What leg 0 reads as may be gone after a restart: the flush fails, and recovery writes it anew. */
static void fail_flush_of_first(unsigned int way, unsigned int kind)
{
	struct mirrors_table table = table_of(way, "01");
	const char *log = table.disk ? "A" : NULL;

	if (table.features)
		return;
	open_written(&table);
	hold_reads(2);
	mirrors_fail(mirrors.disks[0], FAULT_FLUSH, 0, 1);
	cr_assert_eq(flush_by(kind), -EIO);
	mirrors_settle();
	/* A log in memory doesn't know what was flushed. */
	mirrors_expect_status(table.disk ? MIRRORS_REGIONS - 1 : 0, "FA", log);
	for (unsigned int i = 0; i < 3; i++)
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert(!table.disk || !mirrors_is_clean(REGION));
	cr_assert(!table.disk || mirrors_is_clean(BEFORE));
	fault_clear_log(mirrors.disks[0]);
	let_all_work(2);
	mirrors_await_in_sync();
	mirrors_expect_status(MIRRORS_REGIONS, "AA", log);
	cr_assert_gt(fault_count(mirrors.disks[0], FAULT_WRITE), 0);
	mirrors_suspend(0);
	cr_assert(!table.disk || mirrors_is_clean(REGION));
	cr_assert(!table.disk || mirrors_is_clean(NEVER));
	mirrors_resume();
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_expect_same(0, 1);
	mirrors_close();
}

Test(mirror_flushes, that_leg_0_fails_fail_and_have_it_written_anew)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		for (unsigned int kind = 0; kind < 3; kind++)
			fail_flush_of_first(way, kind);
	}
}

static void hold_flush(unsigned int way, unsigned int leg)
{
	struct mirrors_table table = table_of(way, "01");
	struct tally tally = { 0 };
	char health[] = "AA";

	if (!holds(&table))
		return;
	open_written(&table);
	hold_reads(2);
	mirrors_fail(mirrors.disks[leg], FAULT_FLUSH, 0, 1);
	start_flush(0, &tally);
	mirrors_settle();
	cr_assert_eq(tally.ended, 0);
	health[leg] = 'F';
	if (table.disk)
		mirrors_expect_status(MIRRORS_REGIONS - 1, health, "A");
	cr_assert(!table.disk || !mirrors_is_clean(REGION));
	let_all_work(2);
	mirrors_await_in_sync();
	mirrors_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	mirrors_expect_same(0, 1);
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_expect_status(MIRRORS_REGIONS, "AA", table.disk ? "A" : NULL);
	mirrors_close();
}

Test(mirror_flushes, that_a_leg_fails_are_held_until_it_is_recovered)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		hold_flush(way, 0);
		hold_flush(way, 1);
	}
}

Test(mirror_flushes, that_are_held_end_with_a_suspension)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct mirrors_table table = table_of(1, "01");
		struct tally tally = { 0 };

		open_written(&table);
		mirrors_fail(mirrors.disks[1], 0, 0, 0);
		start_flush(0, &tally);
		mirrors_settle();
		cr_assert_eq(tally.ended, 0);
		mirrors_suspend(i ? DMCORE_SUSPEND_NOFLUSH : 0);
		mirrors_settle();
		table.legs = "02";
		table.sync = "sync";
		mirrors_load(&table);
		mirrors_wait(&tally, 1);
		cr_assert_eq(tally.status, i ? 0 : -EIO);
		cr_assert_eq(fault_count(mirrors.disks[2], FAULT_FLUSH), i);
		mirrors_close();
	}
}

/* ---- flushes of the log ---- */

/* Before a region is cleaned the legs are flushed: the first one fails that. */
static void fail_flush_of_log(unsigned int way, unsigned int leg)
{
	struct mirrors_table table = table_of(way, "012");
	char health[] = "AAA";

	mirrors_open();
	mirrors_map(&table);
	mirrors_write(BEFORE * MIRRORS_REGION_SECTORS, COUNT, 1);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert(mirrors_is_clean(BEFORE));
	mirrors_write(SECTOR, COUNT, 1);
	hold_reads(3);
	mirrors_fail(mirrors.disks[leg], FAULT_FLUSH, 0, 1);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert_eq(fault_num_failed(mirrors.disks[leg]), 1);
	health[leg] = 'F';
	cr_assert(!mirrors_is_clean(REGION));
	cr_assert(mirrors_is_clean(NEVER));
	mirrors_expect_status(MIRRORS_REGIONS - 1, health, "A");
	cr_assert(mirrors_is_clean(BEFORE));
	let_all_work(3);
	mirrors_settle();
	mirrors_suspend(0);
	mirrors_load(&table);
	mirrors_await_in_sync();
	mirrors_expect_status(MIRRORS_REGIONS, "AAA", "A");
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_suspend(0);
	cr_assert(mirrors_is_clean(REGION));
	mirrors_close();
}

Test(mirror_flushes, of_the_log_that_a_leg_fails_leave_regions_marked)
{
	for (unsigned int way = 3; way < WAYS; way++) {
		for (unsigned int leg = 0; leg < 3; leg++)
			fail_flush_of_log(way, leg);
	}
}

/* At suspension: the bits are the last word on what a restart may believe. */
static void fail_flush_of_suspension(unsigned int way, unsigned int leg)
{
	struct mirrors_table table = table_of(way, "01");

	open_written(&table);
	mirrors_fail(mirrors.disks[leg], FAULT_FLUSH, 0, 1);
	mirrors_suspend(0);
	cr_assert_eq(fault_num_failed(mirrors.disks[leg]), 1);
	cr_assert(!mirrors_is_clean(REGION));
	cr_assert(mirrors_is_clean(BEFORE));
	cr_assert(mirrors_is_clean(NEVER));
	mirrors_load(&table);
	mirrors_await_in_sync();
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_expect_same(0, 1);
	mirrors_close();
}

Test(mirror_flushes, of_a_suspension_that_a_leg_fails_leave_regions_marked)
{
	for (unsigned int way = 3; way < WAYS; way++) {
		fail_flush_of_suspension(way, 0);
		fail_flush_of_suspension(way, 1);
	}
}

/* A leg that loses, with its cache, what it failed to flush. */
static void lose_cache(unsigned int way, unsigned int leg, bool by_log)
{
	static unsigned char before[MIRRORS_SECTORS * DMCORE_SECTOR_BYTES];
	struct mirrors_table table = table_of(way, "01");
	struct tally tally = { 0 };
	unsigned char *data;

	mirrors_open();
	data = fault_data(mirrors.disks[leg]);
	memcpy(before, data, sizeof(before));
	mirrors_map(&table);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_write(200, COUNT, 1);
	mirrors_fail(mirrors.disks[leg], FAULT_FLUSH, 0, 1);
	hold_reads(2);
	if (by_log) {
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
	} else {
		start_flush(0, &tally);
		mirrors_settle();
	}
	cr_assert_eq(fault_num_failed(mirrors.disks[leg]), 1);
	memcpy(data, before, sizeof(before));
	let_all_work(2);
	mirrors_await_in_sync();
	mirrors_suspend(0);
	mirrors_load(&table);
	mirrors_await_in_sync();
	mirrors_expect_same(0, 1);
	/* With another leg as the first nothing is lost at all. */
	if (leg == 1 || table.features)
		mirrors_expect(SECTOR, COUNT, 1);
	cr_assert_eq(tally.ended, !by_log);
	mirrors_close();
}

Test(mirror_flushes, that_lose_data_of_a_leg_do_not_make_it_differ_for_good)
{
	for (unsigned int way = 3; way < WAYS; way++) {
		for (unsigned int leg = 0; leg < 2; leg++) {
			lose_cache(way, leg, false);
			lose_cache(way, leg, true);
		}
	}
}

/* ---- discards ---- */

static void expect_zeroes(unsigned int disk, uint64_t sector, uint64_t count)
{
	const unsigned char *data = fault_data(mirrors.disks[disk]) +
				    sector * DMCORE_SECTOR_BYTES;

	for (uint64_t i = 0; i < count * DMCORE_SECTOR_BYTES; i++)
		cr_assert_eq(data[i], 0, "byte %llu of disk %u", (unsigned long long)i, disk);
}

static void fail_discard(unsigned int way, unsigned int leg)
{
	struct mirrors_table table = table_of(way, "012");
	const char *log = table.disk ? "A" : NULL;
	uint32_t events;

	mirrors_open();
	mirrors_map(&table);
	mirrors_settle();
	events = mirrors_events();
	hold_reads(3);
	mirrors_fail(mirrors.disks[leg], FAULT_DISCARD, 0, 0);
	cr_assert_eq(mirrors_run(DMCORE_OP_DISCARD, 0, SECTOR, COUNT, NULL), -EOPNOTSUPP);
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS - 1, "AAA", log);
	cr_assert_eq(mirrors_events(), events);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert(!table.disk || !mirrors_is_clean(REGION));
	fault_clear_rules(mirrors.disks[leg]);
	let_all_work(3);
	mirrors_await_in_sync();
	mirrors_expect_status(MIRRORS_REGIONS, "AAA", log);
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_expect(0, SECTOR, 0);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_expect_same(0, 1);
	mirrors_close();
}

Test(mirror_discards, that_a_leg_fails_do_not_degrade_it)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		for (unsigned int leg = 0; leg < 3; leg++)
			fail_discard(way, leg);
	}
}

/* They have done nothing, anywhere. */
Test(mirror_discards, that_all_legs_refuse_leave_all_in_sync)
{
	const struct fault_rule refuse = { .ops = FAULT_DISCARD, .status = -EOPNOTSUPP };

	for (unsigned int way = 0; way < WAYS; way++) {
		struct mirrors_table table = table_of(way, "01");

		mirrors_open();
		mirrors_map(&table);
		fault_add_rule(mirrors.disks[0], &refuse);
		fault_add_rule(mirrors.disks[1], &refuse);
		cr_assert_eq(mirrors_run(DMCORE_OP_DISCARD, 0, 0, 100, NULL), -EOPNOTSUPP);
		mirrors_settle();
		mirrors_expect_status(MIRRORS_REGIONS, "AA", table.disk ? "A" : NULL);
		mirrors_expect(0, MIRRORS_SECTORS, 0);
		mirrors_close();
	}
}

/* Each region that they touch is marked before a leg sees them. */
static void mark_each(enum dmcore_op op)
{
	struct mirrors_table table = table_of(3, "01");
	struct tally tally = { 0 };
	struct dmcore_bio *bio;

	mirrors_open();
	mirrors_map(&table);
	for (unsigned int i = 0; i < 2; i++)
		fault_add_rule(mirrors.disks[i], &(struct fault_rule){ .action = FAULT_HOLD,
				.ops = 1u << op });
	/* Regions 2 to 12, the first and the last in part. */
	bio = stage_bio(&mirrors.stage, mirrors.bdev, op, 37, 160, NULL, &tally);
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	mirrors_settle();
	cr_assert_eq(tally.ended, 0);
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert_eq(mirrors_is_clean(region), region < 2 || region > 12, "%llu",
			     (unsigned long long)region);
	let_all_work(2);
	mirrors_wait(&tally, 1);
	cr_assert_eq(tally.status, 0);
	for (unsigned int i = 0; i < 2; i++) {
		mirrors_expect_disk(i, 0, 37, 0);
		expect_zeroes(i, 37, 160);
		mirrors_expect_disk(i, 197, MIRRORS_SECTORS - 197, 0);
	}
	mirrors_expect_status(MIRRORS_REGIONS, "AA", "A");
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert(mirrors_is_clean(region), "%llu", (unsigned long long)region);
	mirrors_close();
}

Test(mirror_discards, mark_each_region_that_they_touch)
{
	mark_each(DMCORE_OP_DISCARD);
	mark_each(DMCORE_OP_WRITE_ZEROES);
}

/* Those in the way of a failure differ, and no others. */
Test(mirror_discards, that_write_zeroes_fail_as_writes_do)
{
	for (unsigned int way = 0; way < WAYS; way++) {
		struct mirrors_table table = table_of(way, "01");

		if (holds(&table))
			continue;
		mirrors_open();
		mirrors_map(&table);
		hold_reads(2);
		fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .ops = FAULT_WRITE_ZEROES,
				.status = -EIO, .sector = 100, .count = 30 });
		cr_assert_eq(mirrors_run(DMCORE_OP_WRITE_ZEROES, 0, 37, 160, NULL), 0);
		mirrors_settle();
		/* Regions 6 to 8. */
		mirrors_expect_status(MIRRORS_REGIONS - 3, "AD", table.disk ? "A" : NULL);
		let_all_work(2);
		mirrors_await_in_sync();
		expect_zeroes(1, 37, 160);
		mirrors_expect_same(0, 1);
		mirrors_close();
	}
}
