/* SPDX-License-Identifier: MIT */
/*
 * Mirrors whose log device fails: what becomes of writes and what status says; and that no region
 * whose legs differ is clean on disk, or in sync after a resume.
 */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define HANDLE "1 handle_errors"
#define KEEP "2 handle_errors keep_log"
#define SECTOR 50u
#define COUNT 4u
#define REGION 3u
/* The one that isn't in sync at first. */
#define DIFFERENT 5u

static const char *const features[] = { NULL, HANDLE, KEEP };

static struct mirrors_table table_of(const char *feature)
{
	return (struct mirrors_table){ .legs = "01", .disk = true, .features = feature };
}

static bool are_same(uint64_t region)
{
	size_t bytes = (size_t)MIRRORS_REGION_SECTORS * DMCORE_SECTOR_BYTES;

	return memcmp(fault_data(mirrors.disks[0]) + region * bytes,
		      fault_data(mirrors.disks[1]) + region * bytes, bytes) == 0;
}

static void expect_clean_ones_same(void)
{
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert(!mirrors_is_clean(region) || are_same(region), "%llu",
			  (unsigned long long)region);
}

static void hold(unsigned int disk, unsigned int ops)
{
	fault_add_rule(mirrors.disks[disk], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = ops });
}

static void let_go(unsigned int disk)
{
	fault_clear_rules(mirrors.disks[disk]);
	fault_release_all(mirrors.disks[disk]);
}

/* ---- any request of the log fails ---- */

static char log_letter(void)
{
	char text[256];

	cr_assert_gt(dmcore_device_text(mirrors.device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)),
		     0);
	return text[strcspn(text, "\n") - 1];
}

/* A write whose copy on leg 1 is late, as it would be if the machine stopped now. */
static void write_late(const char *feature, uint64_t sector, uint32_t version, struct tally *tally)
{
	struct tally own = { 0 };

	hold(1, FAULT_WRITE);
	mirrors_start(0, sector, COUNT, version, &own);
	mirrors_settle();
	if (feature)
		expect_clean_ones_same();
	let_go(1);
	mirrors_settle();
	expect_clean_ones_same();
	if (!feature) {
		cr_assert_eq(own.ended, 1);
		cr_assert_eq(own.status, 0);
	} else if (own.ended == 0 || own.status) {
		cr_assert_neq(log_letter(), 'A');
		cr_assert_eq(own.ended, strcmp(feature, KEEP) == 0);
	}
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_clean_ones_same();
	/* Held ones end with the suspension. */
	if (own.ended == 0) {
		mirrors_suspend(0);
		mirrors_wait(&own, 1);
		cr_assert_eq(own.status, -EIO);
		expect_clean_ones_same();
		mirrors_resume();
	}
	tally->ended += own.ended;
	tally->failed += own.failed;
}

static void carry_out(const char *feature)
{
	struct tally tally = { 0 };

	mirrors_settle();
	expect_clean_ones_same();
	write_late(feature, SECTOR, 1, &tally);
	write_late(feature, SECTOR + 2, 2, &tally);
	write_late(feature, 200, 3, &tally);
	cr_assert(feature || tally.failed == 0);
	cr_assert_eq(mirrors_flush(), 0);
	mirrors_suspend(0);
	expect_clean_ones_same();
}

static bool fail_nth(const char *feature, unsigned int nth, bool for_good)
{
	struct mirrors_table table = table_of(feature);
	bool reached;

	mirrors_open();
	mirrors_set_clean(DIFFERENT, false);
	pattern_fill(fault_data(mirrors.disks[1]) +
			     DIFFERENT * MIRRORS_REGION_SECTORS * DMCORE_SECTOR_BYTES, 0, 8, 9);
	mirrors_fail(mirrors.log, 0, nth, for_good ? 0 : 1);
	mirrors_map(&table);
	carry_out(feature);
	reached = fault_num_failed(mirrors.log) > 0;
	fault_clear_rules(mirrors.log);
	mirrors_load(&table);
	mirrors_settle();
	expect_clean_ones_same();
	mirrors_await_in_sync();
	mirrors_expect_same(0, 1);
	mirrors_write(SECTOR, COUNT, 4);
	mirrors_expect_same(0, 1);
	mirrors_expect_status(MIRRORS_REGIONS, "AA", "A");
	mirrors_suspend(0);
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		cr_assert(mirrors_is_clean(region));
	mirrors_close();
	return reached;
}

Test(mirror_log, that_fails_any_request_never_has_different_legs_for_clean)
{
	for (unsigned int i = 0; i < 6; i++) {
		unsigned int nth = 0;

		while (fail_nth(features[i % 3], nth, i / 3))
			nth++;
		/* The header, and a mark for each write at the least. */
		cr_assert_gt(nth, 8, "%u", nth);
	}
}

/* ---- letters, events, and what becomes of writes ---- */

/* Which request of the log fails; counted from the resume. */
static const struct {
	unsigned int op;
	unsigned int skip;
	const char *letter;
	unsigned int in_sync; /* behind it */
} requests[] = {
	{ FAULT_READ, 0, "D", 0 },
	{ FAULT_WRITE, 0, "D", MIRRORS_REGIONS },
	{ FAULT_FLUSH, 0, "F", MIRRORS_REGIONS },
	{ FAULT_WRITE, 1, "D", MIRRORS_REGIONS },
	{ FAULT_FLUSH, 1, "F", MIRRORS_REGIONS },
};

static void expect_result(const char *feature, const struct tally *tally, unsigned int ended)
{
	if (feature && strcmp(feature, HANDLE) == 0)
		ended = 0;
	cr_assert_eq(tally->ended, ended);
	cr_assert_eq(tally->failed, feature ? ended : 0);
	cr_assert_eq(tally->status, feature && ended ? -EIO : 0);
}

static void lose_log(const char *feature, unsigned int nr)
{
	struct mirrors_table table = table_of(feature);
	struct tally tally = { 0 };

	mirrors_open();
	mirrors_fail(mirrors.log, requests[nr].op, requests[nr].skip, 1);
	/* No recovery; and a mark that fails doesn't touch the legs. */
	hold(0, FAULT_READ);
	mirrors_map(&table);
	mirrors_settle();
	if (requests[nr].in_sync == 0) {
		mirrors_expect_status(0, "AA", requests[nr].letter);
		let_go(0);
		mirrors_await_in_sync();
	}
	mirrors_start(0, SECTOR, COUNT, 1, &tally);
	mirrors_settle();
	expect_result(feature, &tally, 1);
	mirrors_expect_status(MIRRORS_REGIONS, "AA", requests[nr].letter);
	cr_assert_eq(mirrors_events(), requests[nr].in_sync ? 1 : 2);
	/* What is said to have failed hasn't been sent anywhere. */
	mirrors_expect_disk(0, SECTOR, COUNT, feature ? 0 : 1);
	mirrors_expect_disk(1, SECTOR, COUNT, feature ? 0 : 1);
	/* It stays so, without another word. */
	mirrors_start(0, SECTOR, COUNT, 2, &tally);
	mirrors_start(DMCORE_BIO_FUA, 100, COUNT, 2, &tally);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_result(feature, &tally, 3);
	mirrors_expect_status(MIRRORS_REGIONS, "AA", requests[nr].letter);
	cr_assert_eq(mirrors_events(), requests[nr].in_sync ? 1 : 2);
	let_go(0);
	mirrors_expect(SECTOR, COUNT, feature ? 0 : 2);

	/* The next table does what this one couldn't. */
	mirrors_suspend(DMCORE_SUSPEND_NOFLUSH);
	mirrors_load(&table);
	mirrors_wait(&tally, 3);
	cr_assert_eq(tally.failed, feature && strcmp(feature, KEEP) == 0 ? 3 : 0);
	mirrors_await_in_sync();
	mirrors_expect_status(MIRRORS_REGIONS, "AA", "A");
	mirrors_expect_same(0, 1);
	mirrors_write(SECTOR, COUNT, 3);
	mirrors_expect_same(0, 1);
	mirrors_close();
}

Test(mirror_log, that_fails_says_so_and_holds_what_it_can_not_mark)
{
	for (unsigned int i = 0; i < 3; i++) {
		for (unsigned int nr = 0; nr < sizeof(requests) / sizeof(requests[0]); nr++)
			lose_log(features[i], nr);
	}
}

/* Bits that are set are no condition of anything. */
Test(mirror_log, that_can_not_be_cleaned_keeps_its_marks)
{
	for (unsigned int i = 0; i < 3; i++) {
		struct mirrors_table table = table_of(features[i]);

		mirrors_open();
		mirrors_map(&table);
		mirrors_write(SECTOR, COUNT, 1);
		cr_assert(!mirrors_is_clean(REGION));
		mirrors_fail(mirrors.log, FAULT_WRITE, 0, 1);
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
		cr_assert_eq(fault_num_failed(mirrors.log), 1);
		mirrors_expect_status(MIRRORS_REGIONS, "AA", "D");
		cr_assert_eq(mirrors_events(), 1);
		mirrors_expect(SECTOR, COUNT, 1);
		cr_assert(!mirrors_is_clean(REGION));
		mirrors_suspend(0);
		mirrors_resume();
		mirrors_settle();
		mirrors_await_in_sync();
		mirrors_expect_status(MIRRORS_REGIONS, "AA", "A");
		mirrors_write(SECTOR, COUNT, 2);
		mirrors_expect_same(0, 1);
		mirrors_close();
	}
}

/* ---- a leg fails too ---- */

/* Leg 1 lacks a write for which there is no mark; the log works again, at once or after all. */
static void lose_log_and_leg(bool again, bool another_table, bool late)
{
	struct mirrors_table table = table_of(NULL);

	mirrors_open();
	mirrors_map(&table);
	mirrors_fail(mirrors.log, FAULT_WRITE | FAULT_FLUSH, 0, again ? 1 : 0);
	mirrors_fail(mirrors.disks[1], 0, 0, 0);
	mirrors_write(SECTOR, COUNT, 1);
	mirrors_expect_status(MIRRORS_REGIONS - 1, "AD", "D");
	if (late)
		mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_suspend(0);
	fault_clear_rules(mirrors.log);
	hold(0, FAULT_READ);
	if (another_table)
		mirrors_load(&table);
	else
		mirrors_resume();
	mirrors_settle();
	mirrors_expect_status(MIRRORS_REGIONS - 1, another_table ? "AA" : "AD", "A");
	cr_assert(!mirrors_is_clean(REGION));
	let_go(0);
	let_go(1);
	mirrors_await_in_sync();
	mirrors_expect_same(0, 1);
	mirrors_expect(SECTOR, COUNT, 1);
	mirrors_close();
}

Test(mirror_log, that_works_again_knows_what_it_could_not_mark)
{
	for (unsigned int i = 0; i < 2; i++) {
		lose_log_and_leg(true, false, i);
		lose_log_and_leg(true, true, i);
		/* Nothing but the target itself can know of it then. */
		lose_log_and_leg(false, false, i);
	}
}
