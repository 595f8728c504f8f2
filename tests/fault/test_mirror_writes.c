/* SPDX-License-Identifier: MIT */
/*
 * Mirrors whose legs fail writes: what becomes of the write, what status says, and that nothing is
 * lost when the leg is well again or another table takes over.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define HANDLE "1 handle_errors"
#define KEEP "2 handle_errors keep_log"
/* Of the write that fails: a part of region 3. */
#define SECTOR 50u
#define COUNT 4u
#define REGION 3u

/* ---- all the ways to be a mirror ---- */

struct way {
	unsigned int num_legs;
	bool disk;
	const char *features;
};

static const char *const features[] = { NULL, HANDLE, KEEP };

#define WAYS 12u

static struct way way_of(unsigned int nr)
{
	return (struct way){ .num_legs = 2 + nr % 2, .disk = nr / 2 % 2,
			     .features = features[nr / 4] };
}

static bool holds(const struct way *way)
{
	return way->features && strcmp(way->features, HANDLE) == 0;
}

static struct mirrors_table table_of(const struct way *way)
{
	return (struct mirrors_table){ .legs = way->num_legs == 2 ? "01" : "012",
				       .disk = way->disk,
				       .sync = way->disk ? NULL : "nosync",
				       .features = way->features };
}

static const char *all_well(const struct way *way)
{
	return way->num_legs == 2 ? "AA" : "AAA";
}

static const char *with_letter(const struct way *way, unsigned int leg, char letter)
{
	static char health[8];

	memcpy(health, all_well(way), way->num_legs + 1);
	health[leg] = letter;
	return health;
}

/* Recovery gets no further than its first read. */
static void hold_reads(const struct way *way)
{
	for (unsigned int i = 0; i < way->num_legs; i++)
		fault_add_rule(mirrors.disks[i], &(struct fault_rule){ .action = FAULT_HOLD,
				.ops = FAULT_READ });
}

static void let_all_work(const struct way *way)
{
	for (unsigned int i = 0; i < way->num_legs; i++) {
		fault_clear_rules(mirrors.disks[i]);
		fault_release_all(mirrors.disks[i]);
	}
}

static void expect_all_legs(const struct way *way, uint64_t sector, uint64_t count,
			    uint32_t version)
{
	for (unsigned int i = 0; i < way->num_legs; i++)
		mirrors_expect_disk(i, sector, count, version);
}

/* ---- one leg fails ---- */

static void expect_result(const struct way *way, unsigned int leg, const struct tally *tally)
{
	if (holds(way)) {
		cr_assert_eq(tally->ended, 0);
		return;
	}
	/* What leg 0 lacks is gone after a restart. */
	cr_assert_eq(tally->ended, 1);
	cr_assert_eq(tally->status, leg == 0 ? -EIO : 0);
}

static void fail_on_one_leg(const struct way *way, unsigned int leg)
{
	struct mirrors_table table = table_of(way);
	struct tally tally = { 0 };
	uint32_t events;

	mirrors_open();
	mirrors_map(&table);
	mirrors_write(SECTOR, COUNT, 1);
	events = mirrors_events();
	hold_reads(way);
	mirrors_fail(mirrors.disks[leg], FAULT_WRITE, 0, 0);
	mirrors_start(0, SECTOR, COUNT, 2, &tally);
	mirrors_settle();
	expect_result(way, leg, &tally);
	mirrors_expect_status(MIRRORS_REGIONS - 1, with_letter(way, leg, 'D'),
			      way->disk ? "A" : NULL);
	cr_assert_eq(mirrors_events() - events, way->features != NULL);
	/* It isn't cleaned by the passage of time. */
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_result(way, leg, &tally);
	mirrors_expect_status(MIRRORS_REGIONS - 1, with_letter(way, leg, 'D'),
			      way->disk ? "A" : NULL);
	cr_assert(!way->disk || !mirrors_is_clean(REGION));

	let_all_work(way);
	mirrors_await_in_sync();
	mirrors_wait(&tally, 1);
	mirrors_expect_status(MIRRORS_REGIONS, all_well(way), way->disk ? "A" : NULL);
	if (tally.status == 0)
		expect_all_legs(way, SECTOR, COUNT, 2);
	expect_all_legs(way, 0, SECTOR, 0);
	for (unsigned int i = 1; i < way->num_legs; i++)
		mirrors_expect_same(0, i);
	cr_assert_eq(tally.status, holds(way) || leg > 0 ? 0 : -EIO);
	mirrors_close();
}

Test(mirror_writes, that_one_leg_fails_put_a_region_out_of_sync_until_it_is_recovered)
{
	for (unsigned int nr = 0; nr < WAYS; nr++) {
		struct way way = way_of(nr);

		for (unsigned int leg = 0; leg < way.num_legs; leg++)
			fail_on_one_leg(&way, leg);
	}
}

/* The first leg is replaced where all was in sync: its region can be read meanwhile. */
static void read_while_held(const struct way *way, unsigned int leg)
{
	struct mirrors_table table = table_of(way);
	struct tally tally = { 0 };
	int ret;

	mirrors_open();
	mirrors_map(&table);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_fail(mirrors.disks[leg], 0, 0, 0);
	mirrors_start(0, SECTOR, COUNT, 2, &tally);
	mirrors_settle();
	cr_assert_eq(tally.ended, 0);
	ret = mirrors_try_read(SECTOR, COUNT);
	cr_assert_eq(ret, 0, "%u of %u legs: %d", leg, way->num_legs, ret);
	mirrors_expect(0, SECTOR, 0);
	let_all_work(way);
	mirrors_await_in_sync();
	mirrors_wait(&tally, 1);
	expect_all_legs(way, SECTOR, COUNT, 2);
	mirrors_close();
}

Test(mirror_writes, that_are_held_do_not_keep_anybody_from_reading)
{
	for (unsigned int nr = 0; nr < WAYS; nr++) {
		struct way way = way_of(nr);

		for (unsigned int leg = 0; holds(&way) && leg < way.num_legs; leg++)
			read_while_held(&way, leg);
	}
}

/* ---- what is held ---- */

static void start_three(struct tally *tally)
{
	/* To a region that was in sync, to the same when it isn't any more, and to another. */
	mirrors_start(0, SECTOR, COUNT, 2, tally);
	mirrors_settle();
	mirrors_start(DMCORE_BIO_FUA, SECTOR + COUNT, COUNT, 2, tally);
	mirrors_settle();
	mirrors_start(0, 0, COUNT, 2, tally);
	mirrors_settle();
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert_eq(tally->ended, 0);
}

static void replace_leg(const struct way *way, unsigned int leg)
{
	/* Without the one that has failed; disk 4 has never been in it. */
	static const char *const legs[2][3] = { { "14", "04", "" }, { "124", "042", "014" } };
	struct mirrors_table table = table_of(way);
	const char *others = legs[way->num_legs - 2][leg];
	struct tally tally = { 0 };

	mirrors_open();
	pattern_fill(fault_data(mirrors.disks[4]), 0, MIRRORS_SECTORS, 9);
	mirrors_map(&table);
	mirrors_write(200, COUNT, 1);
	mirrors_fail(mirrors.disks[leg], 0, 0, 0);
	start_three(&tally);
	mirrors_suspend(DMCORE_SUSPEND_NOFLUSH);
	cr_assert_eq(tally.ended, 0);
	table.legs = others;
	table.sync = "sync";
	mirrors_load(&table);
	mirrors_wait(&tally, 3);
	cr_assert_eq(tally.failed, 0, "%d", tally.status);
	mirrors_await_in_sync();
	mirrors_expect_status(MIRRORS_REGIONS, all_well(way), way->disk ? "A" : NULL);
	mirrors_expect(SECTOR, 2 * COUNT, 2);
	mirrors_expect(0, COUNT, 2);
	mirrors_expect(200, COUNT, 1);
	mirrors_expect(100, 50, 0);
	for (unsigned int i = 1; i < way->num_legs; i++)
		mirrors_expect_same((unsigned int)(others[0] - '0'),
				    (unsigned int)(others[i] - '0'));
	mirrors_close();
}

Test(mirror_writes, that_are_held_go_through_the_table_that_replaces_a_leg)
{
	for (unsigned int nr = 0; nr < WAYS; nr++) {
		struct way way = way_of(nr);

		for (unsigned int leg = 0; holds(&way) && leg < way.num_legs; leg++)
			replace_leg(&way, leg);
	}
}

static void fail_what_is_held(const struct way *way, unsigned int leg)
{
	struct mirrors_table table = table_of(way);
	struct tally tally = { 0 };

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[leg], 0, 0, 0);
	start_three(&tally);
	mirrors_suspend(0);
	mirrors_wait(&tally, 3);
	cr_assert_eq(tally.failed, 3);
	cr_assert_eq(tally.status, -EIO);
	/* Nobody waits for these any more, and the mirror goes on. */
	let_all_work(way);
	mirrors_resume();
	mirrors_await_in_sync();
	mirrors_write(SECTOR, COUNT, 3);
	expect_all_legs(way, SECTOR, COUNT, 3);
	for (unsigned int i = 1; i < way->num_legs; i++)
		mirrors_expect_same(0, i);
	mirrors_close();
}

Test(mirror_writes, that_are_held_fail_with_a_suspension_that_waits_for_them)
{
	for (unsigned int nr = 0; nr < WAYS; nr++) {
		struct way way = way_of(nr);

		for (unsigned int leg = 0; holds(&way) && leg < way.num_legs; leg++)
			fail_what_is_held(&way, leg);
	}
}

static void run_again(const struct way *way, unsigned int leg)
{
	struct mirrors_table table = table_of(way);
	struct tally tally = { 0 };

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[leg], 0, 0, 0);
	start_three(&tally);
	let_all_work(way);
	mirrors_await_in_sync();
	mirrors_wait(&tally, 3);
	cr_assert_eq(tally.failed, 0);
	expect_all_legs(way, SECTOR, 2 * COUNT, 2);
	expect_all_legs(way, 0, COUNT, 2);
	mirrors_expect_status(MIRRORS_REGIONS, all_well(way), way->disk ? "A" : NULL);
	/* They have left their regions, then. */
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	for (unsigned int i = 0; way->disk && i < MIRRORS_REGIONS; i++)
		cr_assert(mirrors_is_clean(i), "%u", i);
	mirrors_close();
}

Test(mirror_writes, that_are_held_run_again_when_all_is_in_sync)
{
	for (unsigned int nr = 0; nr < WAYS; nr++) {
		struct way way = way_of(nr);

		for (unsigned int leg = 0; holds(&way) && leg < way.num_legs; leg++)
			run_again(&way, leg);
	}
}

/* A leg that never writes zeroes, but copies: what is held isn't run for ever. */
Test(mirror_writes, that_are_held_run_again_once)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct mirrors_table table = { .legs = "01", .disk = i, .features = HANDLE };
		struct tally tally = { 0 };
		struct dmcore_bio *bio;

		mirrors_open();
		mirrors_map(&table);
		mirrors_await_in_sync();
		mirrors_fail(mirrors.disks[1], FAULT_WRITE_ZEROES, 0, 0);
		bio = stage_bio(&mirrors.stage, mirrors.bdev, DMCORE_OP_WRITE_ZEROES, SECTOR, COUNT,
				NULL, &tally);
		cr_assert_eq(dmcore_bio_submit(bio), 0);
		for (unsigned int k = 0; k < 8; k++)
			mirrors_pass_ns(MIRRORS_PAUSE_NS);
		cr_assert_eq(tally.ended, 0);
		cr_assert_eq(fault_num_failed(mirrors.disks[1]), 2);
		mirrors_expect_status(MIRRORS_REGIONS, "AA", i ? "A" : NULL);
		mirrors_suspend(0);
		mirrors_wait(&tally, 1);
		cr_assert_eq(tally.status, -EIO);
		mirrors_resume();
		mirrors_await_in_sync();
		mirrors_expect_same(0, 1);
		mirrors_close();
	}
}

Test(mirror_writes, that_are_held_are_not_in_the_way_of_a_later_failure)
{
	struct mirrors_table table = { .legs = "012", .sync = "nosync", .features = HANDLE };
	struct tally tally = { 0 };

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[1], 0, 0, 0);
	start_three(&tally);
	mirrors_fail(mirrors.disks[0], 0, 0, 0);
	mirrors_fail(mirrors.disks[2], 0, 0, 0);
	cr_assert_eq(mirrors_try_write(0, 100, 4, 5), -EIO);
	cr_assert_eq(tally.ended, 0);
	mirrors_suspend(0);
	mirrors_wait(&tally, 3);
	cr_assert_eq(tally.status, -EIO);
	mirrors_close();
}

/* ---- acknowledged, and then lost ---- */

/* Leg 1 is the first since leg 0 failed to read; what it lacks isn't to be copied over leg 0. */
static void lack_on_first_leg(const char *feature, bool disk)
{
	struct mirrors_table table = { .legs = "01", .disk = disk,
				       .sync = disk ? NULL : "nosync", .features = feature };
	struct tally tally = { 0 };

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.disks[0], FAULT_READ, 0, 1);
	mirrors_expect(0, 4, 0);
	mirrors_settle();
	mirrors_fail(mirrors.disks[1], FAULT_WRITE, 0, 1);
	mirrors_start(0, SECTOR, COUNT, 2, &tally);
	mirrors_await_in_sync();
	if (tally.ended == 1 && tally.status == 0)
		mirrors_expect(SECTOR, COUNT, 2);
	mirrors_expect_same(0, 1);
	mirrors_suspend(0);
	mirrors_wait(&tally, 1);
	mirrors_close();
}

Test(mirror_writes, that_were_acknowledged_are_not_undone_by_recovery)
{
	for (unsigned int i = 0; i < 6; i++)
		lack_on_first_leg(features[i % 3], i / 3);
}

/* ---- all legs fail ---- */

static void fail_all(const struct way *way)
{
	static unsigned char sector[DMCORE_SECTOR_BYTES];
	struct mirrors_table table = table_of(way);
	struct tally tally = { 0 };

	mirrors_open();
	mirrors_map(&table);
	for (unsigned int i = 0; i < way->num_legs; i++)
		mirrors_fail(mirrors.disks[i], 0, 0, 0);
	cr_assert_eq(mirrors_try_write(0, SECTOR, COUNT, 1), -EIO);
	cr_assert_eq(mirrors_try_write(0, SECTOR, COUNT, 1), -EIO);
	cr_assert_eq(mirrors_try_write(DMCORE_BIO_FUA | DMCORE_BIO_PREFLUSH, 0, 40, 1), -EIO);
	cr_assert_eq(mirrors_try_read(SECTOR, COUNT), -EIO);
	cr_assert_eq(mirrors_try_read(200, 40), -EIO);
	cr_assert_eq(mirrors_flush(), -EIO);
	cr_assert_neq(mirrors_run(DMCORE_OP_DISCARD, 0, 0, 64, NULL), 0);
	cr_assert_eq(mirrors_run(DMCORE_OP_WRITE_ZEROES, 0, 64, 64, NULL), -EIO);
	mirrors_start(0, 128, 4, 1, &tally);
	mirrors_suspend(0);
	mirrors_wait(&tally, 1);
	cr_assert_eq(tally.status, -EIO);
	mirrors_resume();
	cr_assert_eq(mirrors_try_read(200, 1), -EIO);
	cr_assert_eq(mirrors_run(DMCORE_OP_WRITE, 0, 200, 1, sector), -EIO);
	mirrors_remove();
	mirrors_close();
}

Test(mirror_writes, that_all_legs_fail_fail)
{
	for (unsigned int nr = 0; nr < WAYS; nr++) {
		struct way way = way_of(nr);

		fail_all(&way);
	}
}
