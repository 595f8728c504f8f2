/* SPDX-License-Identifier: MIT */
/*
 * Scrub: it finds each sector in which the legs of a mirror differ, and nothing else, whatever is
 * written meanwhile; it changes nothing unless it is told to repair, and then what differs is
 * copied from the first leg.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/mirrors.h"

#define START 8u
#define TEXT_MAX 2048
#define LEGS_MAX 9u
#define THREADED_WRITES 400u
#define ONE_TABLE { .legs = "012", .sync = "nosync" }

static uint64_t mirror_start; /* in the device */

static void open_mirror(const struct mirrors_table *table)
{
	mirrors_open();
	mirror_start = 0;
	mirrors_map(table);
	mirrors_settle();
}

/* One of a core log, in sync, behind another target. */
static void open_sized(unsigned int num_legs, uint64_t sectors, unsigned int region_sectors)
{
	char text[TEXT_MAX];
	int at = snprintf(text, sizeof(text),
			  "0 %u zero\n%u %llu mirror core 2 %u nosync %u", START, START,
			  (unsigned long long)sectors, region_sectors, num_legs);

	mirrors_open();
	mirror_start = START;
	for (unsigned int i = 0; i < num_legs; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " fault:%llu,id=%u 3",
			       (unsigned long long)sectors + 3, i + 20);
	mirrors.bdev = stage_map(&mirrors.stage, "m", text);
	mirrors.device = dmcore_device_find(mirrors.stage.core, "m");
	mirrors_settle();
}

static struct fault_disk *sized_disk(unsigned int leg, uint64_t sectors)
{
	return stage_disk(&mirrors.stage, leg + 20, sectors + 3, "");
}

static const char *send(const char *text)
{
	static char reply[TEXT_MAX];
	int64_t ret = dmcore_device_message(mirrors.device, mirror_start, text, reply,
					    sizeof(reply));

	cr_assert_geq(ret, 0, "%s: %lld: %s", text, (long long)ret, dmcore_error_message());
	return reply;
}

static void expect_refusal(const char *text, int status, const char *why)
{
	char reply[TEXT_MAX];
	int64_t ret = dmcore_device_message(mirrors.device, mirror_start, text, reply,
					    sizeof(reply));

	cr_assert_eq(ret, status, "%s: %lld", text, (long long)ret);
	cr_assert_not_null(strstr(dmcore_error_message(), why), "%s", dmcore_error_message());
}

__attribute__((format(printf, 1, 2)))
static void expect_reply(const char *format, ...)
{
	char expected[TEXT_MAX];
	const char *reply;
	va_list args;

	va_start(args, format);
	vsnprintf(expected, sizeof(expected), format, args);
	va_end(args);
	reply = send("scrub status");
	cr_assert_str_eq(reply, expected, "it says: %s, not: %s", reply, expected);
}

static void scrub(void)
{
	cr_assert_str_eq(send("scrub"), "");
	mirrors_settle();
}

static void spoil(struct fault_disk *disk, uint64_t sector)
{
	fault_data(disk)[sector * DMCORE_SECTOR_BYTES + DMCORE_SECTOR_BYTES - 1] ^= 0x40;
}

/* ---- what it finds ---- */

Test(mirror_scrub, of_legs_that_are_the_same_finds_nothing_and_changes_nothing)
{
	struct mirrors_table table = ONE_TABLE;
	uint32_t events;

	open_mirror(&table);
	events = mirrors_events();
	expect_reply("scrub idle 0 16 0\nskipped 0 failed 0");
	scrub();
	expect_reply("scrub done 16 16 0\nskipped 0 failed 0");
	cr_assert_eq(mirrors_events() - events, 1);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(fault_count(mirrors.disks[i], FAULT_READ),
			     fault_count(mirrors.disks[i], 0));
		cr_assert_gt(fault_count(mirrors.disks[i], FAULT_READ), 0);
	}
	mirrors_expect_status(MIRRORS_REGIONS, "AAA", NULL);
	mirrors_close();
}

/* Thirteen regions, and the last is half as long. */
static void find_each(unsigned int num_legs)
{
	static const uint64_t sectors[] = { 0, 15, 16, 31, 100, 191, 192, 199 };

	open_sized(num_legs, 200, 16);
	for (unsigned int leg = 0; leg < num_legs; leg++) {
		struct fault_disk *disk = sized_disk(leg, 200);

		for (unsigned int i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
			uint64_t begin = sectors[i] / 16 * 16;

			spoil(disk, 3 + sectors[i]);
			scrub();
			expect_reply("scrub done 13 13 1 %llu\nskipped 0 failed 0\n%llu %u",
				     (unsigned long long)(START + sectors[i]),
				     (unsigned long long)(START + begin), begin == 192 ? 8 : 16);
			spoil(disk, 3 + sectors[i]);
		}
		/* What isn't the mirror's. */
		spoil(disk, 2);
	}
	scrub();
	expect_reply("scrub done 13 13 0\nskipped 0 failed 0");
	mirrors_close();
}

Test(mirror_scrub, finds_one_sector_of_any_leg_anywhere)
{
	for (unsigned int num_legs = 2; num_legs <= LEGS_MAX; num_legs++)
		find_each(num_legs);
}

Test(mirror_scrub, finds_one_sector_of_a_region_that_is_read_in_parts)
{
	static const uint64_t sectors[] = { 0, 255, 256, 511, 512, 800, 999 };
	struct fault_disk *disk;

	open_sized(3, 1000, 512);
	disk = sized_disk(2, 1000);
	for (unsigned int i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		bool last = sectors[i] >= 512;

		spoil(disk, 3 + sectors[i]);
		scrub();
		expect_reply("scrub done 2 2 1 %llu\nskipped 0 failed 0\n%u %u",
			     (unsigned long long)(START + sectors[i]), START + (last ? 512 : 0),
			     last ? 488 : 512);
		spoil(disk, 3 + sectors[i]);
	}
	scrub();
	expect_reply("scrub done 2 2 0\nskipped 0 failed 0");
	mirrors_close();
}

Test(mirror_scrub, tells_runs_of_regions_that_differ_up_to_a_bound)
{
	struct fault_disk *disk;
	const char *reply;
	unsigned int lines = 0;

	open_sized(2, 512, 2);
	disk = sized_disk(1, 512);
	for (uint64_t sector = 100; sector < 300; sector++)
		spoil(disk, 3 + sector);
	spoil(disk, 3 + 511);
	scrub();
	expect_reply("scrub done 256 256 101 %u\nskipped 0 failed 0\n%u 200\n%u 2", START + 100,
		     START + 100, START + 510);
	for (uint64_t sector = 0; sector < 512; sector += 4)
		spoil(disk, 3 + sector + (sector >= 100 && sector < 300 ? 2 : 0));
	for (uint64_t sector = 100; sector < 300; sector++)
		spoil(disk, 3 + sector);
	spoil(disk, 3 + 511);
	scrub();
	reply = send("scrub status");
	cr_assert_eq(strncmp(reply, "scrub done 256 256 128 8\n", 25), 0, "%s", reply);
	for (; *reply; reply++)
		lines += *reply == '\n';
	cr_assert_eq(lines, 1 + 32 + 1);
	cr_assert_str_eq(strrchr(send("scrub status"), '\n'), "\nmore");
	mirrors_close();
}

/* ---- what it can't compare ---- */

Test(mirror_scrub, of_a_region_that_a_leg_cannot_read_has_failed)
{
	struct mirrors_table table = ONE_TABLE;

	for (unsigned int leg = 0; leg < 3; leg++) {
		open_mirror(&table);
		spoil(mirrors.disks[1], 41);
		spoil(mirrors.disks[1], 60);
		fault_add_rule(mirrors.disks[leg], &(struct fault_rule){ .ops = FAULT_READ,
				.status = -EIO, .sector = 40, .count = 1 });
		scrub();
		expect_reply("scrub done 15 16 1 60\nskipped 0 failed 1\n48 16");
		/* No leg is thought less of. */
		mirrors_expect_status(MIRRORS_REGIONS, "AAA", NULL);
		mirrors_close();
	}
}

Test(mirror_scrub, skips_regions_that_are_not_in_sync)
{
	struct mirrors_table table = { .legs = "01", .disk = true };

	mirrors_open();
	mirror_start = 0;
	mirrors_set_clean(0, false);
	mirrors_set_clean(5, false);
	mirrors_set_clean(6, false);
	mirrors_set_clean(15, false);
	mirrors_fail(mirrors.disks[1], FAULT_WRITE, 0, 0);
	mirrors_map(&table);
	mirrors_settle();
	spoil(mirrors.disks[1], 84);
	spoil(mirrors.disks[1], 120);
	scrub();
	expect_reply("scrub done 12 16 1 120\nskipped 4 failed 0\n112 16");
	mirrors_close();
}

/* ---- beside others ---- */

Test(mirror_scrub, waits_for_writes_that_are_under_way_and_writes_wait_for_it)
{
	static struct tally inside;
	static struct tally later;
	struct mirrors_table table = ONE_TABLE;

	open_mirror(&table);
	inside = later = (struct tally){ 0 };
	fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE, .times = 1 });
	mirrors_start(0, 50, 4, 1, &inside);
	mirrors_settle();
	cr_assert_eq(fault_num_held(mirrors.disks[1]), 1);
	scrub();
	expect_reply("scrub running 0 16 0\nskipped 0 failed 0");
	fault_add_rule(mirrors.disks[2], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_READ, .times = 1 });
	fault_release_all(mirrors.disks[1]);
	mirrors_settle();
	cr_assert_eq(inside.ended, 1);
	cr_assert_eq(fault_num_held(mirrors.disks[2]), 1);
	mirrors_start(0, 52, 4, 2, &later);
	mirrors_start(0, 200, 4, 2, &later);
	mirrors_settle();
	cr_assert_eq(later.ended, 0);
	cr_assert_eq(fault_count(mirrors.disks[0], FAULT_WRITE), 1);
	fault_release_all(mirrors.disks[2]);
	mirrors_settle();
	cr_assert_eq(later.ended, 2);
	cr_assert_eq(later.failed + inside.failed, 0);
	expect_reply("scrub done 16 16 0\nskipped 0 failed 0");
	mirrors_expect(50, 2, 1);
	mirrors_expect(52, 4, 2);
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_close();
}

Test(mirror_scrub, leaves_regions_as_they_were)
{
	struct mirrors_table table = { .legs = "01", .disk = true };
	unsigned int writes;

	open_mirror(&table);
	mirrors_write(50, 4, 1);
	writes = fault_count(mirrors.log, FAULT_WRITE);
	scrub();
	expect_reply("scrub done 16 16 0\nskipped 0 failed 0");
	cr_assert(!mirrors_is_clean(3));
	/* It is active still: no mark is needed. */
	mirrors_write(50, 4, 2);
	cr_assert_eq(fault_count(mirrors.log, FAULT_WRITE), writes);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	cr_assert(mirrors_is_clean(3));
	mirrors_close();
}

Test(mirror_scrub, makes_pauses_while_others_use_the_mirror)
{
	char buffer[DMCORE_SECTOR_BYTES];

	open_sized(2, 1024, 16);
	scrub();
	expect_reply("scrub done 64 64 0\nskipped 0 failed 0");
	cr_assert_eq(mirrors_run(DMCORE_OP_READ, 0, START, 1, buffer), 0);
	scrub();
	expect_reply("scrub running 16 64 0\nskipped 0 failed 0");
	cr_assert_eq(mirrors_run(DMCORE_OP_READ, 0, START, 1, buffer), 0);
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub running 24 64 0\nskipped 0 failed 0");
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub done 64 64 0\nskipped 0 failed 0");
	mirrors_close();
}

/* With a service of its own thread. */
Test(mirror_scrub, never_sees_a_write_on_its_way)
{
	static unsigned char data[THREADED_WRITES][DMCORE_SECTOR_BYTES];
	static struct tally tally;
	struct mirrors_table table = ONE_TABLE;

	memset(&mirrors, 0, sizeof(mirrors));
	mirror_start = 0;
	stage_open(&mirrors.stage, NULL, NULL);
	mirrors_map(&table);
	tally = (struct tally){ 0 };
	for (unsigned int i = 0; i < THREADED_WRITES; i++) {
		if (i % 10 == 5 && strncmp(send("scrub status"), "scrub running", 13) != 0)
			send(i % 40 == 5 ? "scrub repair" : "scrub");
		pattern_fill(data[i], i, 1, i);
		stage_submit(&mirrors.stage, mirrors.bdev, DMCORE_OP_WRITE, i * 7 % 48, 1, data[i],
			     &tally);
		if (i % 4 == 3)
			stage_wait(&mirrors.stage, &tally, i + 1);
		cr_assert_not_null(strstr(send("scrub status"), " 16 0\nskipped 0 failed 0"));
	}
	mirrors_suspend(0);
	cr_assert_not_null(strstr(send("scrub status"), " 16 0\nskipped 0 failed 0"));
	cr_assert_eq(tally.failed, 0);
	mirrors_close();
}

/* ---- its end ---- */

/* In a pause, with a quarter done. */
static void open_in_pause(void)
{
	char buffer[DMCORE_SECTOR_BYTES];

	open_sized(2, 1024, 16);
	cr_assert_eq(mirrors_run(DMCORE_OP_READ, 0, START, 1, buffer), 0);
	scrub();
	expect_reply("scrub running 16 64 0\nskipped 0 failed 0");
}

Test(mirror_scrub, ends_with_a_suspension_and_does_not_begin_again)
{
	unsigned int reads;

	open_in_pause();
	mirrors_suspend(0);
	expect_reply("scrub idle 16 64 0\nskipped 0 failed 0");
	expect_refusal("scrub", -EBUSY, "the mirror is suspended");
	reads = fault_count(sized_disk(1, 1024), FAULT_READ);
	mirrors_resume();
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub idle 16 64 0\nskipped 0 failed 0");
	cr_assert_eq(fault_count(sized_disk(1, 1024), FAULT_READ), reads);
	scrub();
	expect_reply("scrub done 64 64 0\nskipped 0 failed 0");
	mirrors_close();
}

Test(mirror_scrub, ends_when_it_is_told_to)
{
	uint32_t events;

	open_in_pause();
	events = mirrors_events();
	expect_refusal("scrub", -EBUSY, "a scrub is under way");
	cr_assert_str_eq(send("SCRUB Stop"), "");
	mirrors_settle();
	expect_reply("scrub idle 16 64 0\nskipped 0 failed 0");
	cr_assert_eq(mirrors_events() - events, 1);
	send("scrub stop");
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub idle 16 64 0\nskipped 0 failed 0");
	cr_assert_eq(mirrors_events() - events, 1);
	/* Before it has begun. */
	send("scrub");
	send("scrub stop");
	mirrors_settle();
	expect_reply("scrub idle 0 64 0\nskipped 0 failed 0");
	scrub();
	expect_reply("scrub done 64 64 0\nskipped 0 failed 0");
	mirrors_close();
}

/* Those inside may be what a suspension waits for. */
static void end_while_waiting(bool by_message)
{
	static struct tally tally;
	struct mirrors_table table = ONE_TABLE;

	open_mirror(&table);
	tally = (struct tally){ 0 };
	fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE, .times = 1 });
	mirrors_start(0, 50, 4, 1, &tally);
	mirrors_settle();
	scrub();
	mirrors_start(0, 100, 4, 1, &tally);
	mirrors_settle();
	cr_assert_eq(tally.ended, 0);
	if (by_message)
		send("scrub stop");
	if (!by_message)
		cr_assert_eq(dmcore_device_suspend(mirrors.device, 0, 0), -ETIMEDOUT);
	mirrors_settle();
	expect_reply("scrub idle 0 16 0\nskipped 0 failed 0");
	cr_assert_eq(tally.ended, 1);
	fault_release_all(mirrors.disks[1]);
	mirrors_wait(&tally, 2);
	cr_assert_eq(tally.failed, 0);
	mirrors_write(50, 4, 2);
	scrub();
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub done 16 16 0\nskipped 0 failed 0");
	mirrors_close();
}

Test(mirror_scrub, that_waits_for_writes_can_be_stopped_and_suspended)
{
	end_while_waiting(true);
	end_while_waiting(false);
}

Test(mirror_scrub, whose_reads_are_under_way_ends_with_them_when_it_is_stopped)
{
	static struct tally tally;
	struct mirrors_table table = ONE_TABLE;

	open_mirror(&table);
	tally = (struct tally){ 0 };
	fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_READ, .times = 1 });
	scrub();
	mirrors_start(0, 100, 4, 1, &tally);
	send("scrub stop");
	mirrors_settle();
	expect_reply("scrub running 0 16 0\nskipped 0 failed 0");
	expect_refusal("scrub", -EBUSY, "a scrub is under way");
	cr_assert_eq(tally.ended, 0);
	fault_release_all(mirrors.disks[1]);
	mirrors_wait(&tally, 1);
	expect_reply("scrub idle 0 16 0\nskipped 0 failed 0");
	mirrors_close();
}

/* ---- repair ---- */

static void repair(const char *sync, bool disk, bool is_active)
{
	struct mirrors_table table = { .legs = "012", .disk = disk, .sync = sync };

	open_mirror(&table);
	if (is_active)
		mirrors_write(80, 16, 0);
	spoil(mirrors.disks[1], 95);
	spoil(mirrors.disks[2], 144);
	fault_add_rule(mirrors.disks[1], &(struct fault_rule){ .action = FAULT_HOLD,
			.ops = FAULT_WRITE });
	send("scrub repair");
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub done 16 16 2 95\nskipped 0 failed 0\n80 16\n144 16");
	/* Recovery is at work, and a restart would begin it again. */
	cr_assert_gt(fault_num_held(mirrors.disks[1]), 0);
	mirrors_expect_status(MIRRORS_REGIONS - 2, "AAA", disk ? "A" : NULL);
	for (uint64_t region = 0; disk && region < MIRRORS_REGIONS; region++)
		cr_assert_eq(mirrors_is_clean(region), region != 5 && region != 9);
	fault_clear_rules(mirrors.disks[1]);
	fault_release_all(mirrors.disks[1]);
	mirrors_await_in_sync();
	mirrors_expect_same(0, 1);
	mirrors_expect_same(0, 2);
	mirrors_expect(0, MIRRORS_SECTORS, 0);
	scrub();
	mirrors_pass_ns(MIRRORS_PAUSE_NS);
	expect_reply("scrub done 16 16 0\nskipped 0 failed 0");
	mirrors_close();
}

Test(mirror_scrub, that_repairs_has_what_differs_copied_from_the_first_leg)
{
	for (unsigned int active = 0; active < 2; active++) {
		repair("nosync", false, active);
		repair(NULL, true, active);
	}
}

Test(mirror_scrub, does_not_repair_what_it_cannot_mark)
{
	struct mirrors_table table = { .legs = "01", .disk = true };

	open_mirror(&table);
	spoil(mirrors.disks[1], 95);
	mirrors_fail(mirrors.log, FAULT_WRITE | FAULT_FLUSH, 0, 0);
	send("scrub repair");
	mirrors_settle();
	expect_reply("scrub done 16 16 1 95\nskipped 0 failed 0\n80 16");
	mirrors_expect_status(MIRRORS_REGIONS, "AA", "D");
	mirrors_close();
}

/* ---- messages ---- */

Test(mirror_scrub, refuses_other_words)
{
	struct mirrors_table table = ONE_TABLE;

	open_mirror(&table);
	expect_refusal("rub", -EINVAL, "messages are: scrub, behind");
	expect_refusal("scrub all", -EINVAL, "scrub takes nothing, or one of");
	expect_refusal("scrub stop status", -EINVAL, "scrub takes nothing, or one of");
	expect_refusal("scrub repair now", -EINVAL, "scrub takes nothing, or one of");
	expect_reply("scrub idle 0 16 0\nskipped 0 failed 0");
	mirrors_close();
}
