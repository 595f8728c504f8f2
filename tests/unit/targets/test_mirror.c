/* SPDX-License-Identifier: MIT */
/* mirror: what its log has on disk and makes of it, and where requests go while regions differ. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "base/compiler.h"
#include "support/fixture.h"
#include "support/stage.h"

#define LEG_SECTORS 256u
#define LOG_SECTORS 8u
#define BITS_OFFSET 1024u

static struct fault_disk *legs[2];
static struct fault_disk *log_disk;
static struct dmcore_device *device;

static void set_up(void)
{
	fixture_open();
	legs[0] = fixture_disk("fault:256,id=a");
	legs[1] = fixture_disk("fault:256,id=b");
	log_disk = fixture_disk("fault:8,id=l");
	device = NULL;
}

TestSuite(mirror, .init = set_up, .fini = fixture_close);

/* ---- helpers ---- */

/* Legs a and b; `sync` is "", "sync" or "nosync". */
static void map(const char *type, unsigned int sectors, unsigned int region, const char *sync)
{
	bool disk = strcmp(type, "disk") == 0;
	char text[200];

	snprintf(text, sizeof(text),
		 "0 %u mirror %s %d %s %u %s 2 fault:256,id=a 0 fault:256,id=b 0", sectors, type,
		 1 + disk + (*sync != '\0'), disk ? "fault:8,id=l" : "", region, sync);
	if (!device) {
		device = fixture_device("m", text);
		return;
	}
	cr_assert_eq(dmcore_device_load(device, fixture_table(text)), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
}

static void remove_it(void)
{
	cr_assert_eq(dmcore_device_remove(device), 0);
	device = NULL;
}

static void progress(unsigned int *in_sync, unsigned int *all)
{
	const char *at = strchr(fixture_device_text(device, DMCORE_TEXT_STATUS), '/');

	cr_assert_not_null(at);
	*all = (unsigned int)strtoul(at + 1, NULL, 10);
	while (at[-1] != ' ')
		at--;
	*in_sync = (unsigned int)strtoul(at, NULL, 10);
}

static void expect_in_sync(unsigned int expected, unsigned int of)
{
	unsigned int in_sync;
	unsigned int all;

	progress(&in_sync, &all);
	cr_assert(in_sync == expected && all == of, "%u/%u, not %u/%u", in_sync, all, expected, of);
}

static void wait_until_in_sync(void)
{
	unsigned int in_sync = 0;
	unsigned int all = 1;

	for (unsigned int i = 0; i < 20000 && in_sync < all; i++) {
		progress(&in_sync, &all);
		stage_sleep_ns(1000000);
	}
	cr_assert_eq(in_sync, all);
}

/* Recovery gets no further than its first read, nor does anybody else who reads leg 0. */
static void hold_recovery(void)
{
	fault_add_rule(legs[0], &(struct fault_rule){ .action = FAULT_HOLD, .ops = FAULT_READ });
}

static void let_recovery_go(void)
{
	fault_clear_rules(legs[0]);
	fault_release_all(legs[0]);
}

static void await_held(unsigned int count)
{
	for (unsigned int i = 0; i < 20000 && fault_num_held(legs[0]) < count; i++)
		stage_sleep_ns(1000000);
	cr_assert_eq(fault_num_held(legs[0]), count);
}

static int write_sectors(uint64_t sector, uint64_t count)
{
	static unsigned char data[LEG_SECTORS * DMCORE_SECTOR_BYTES];

	memset(data, (int)(sector + 1), sizeof(data));
	return fixture_run(&(struct fixture_io){ .bdev = dmcore_device_bdev(device),
						 .op = DMCORE_OP_WRITE,
						 .sector = sector,
						 .count = count,
						 .buffer = data });
}

static void expect_same(uint64_t sectors)
{
	cr_assert_eq(memcmp(fault_data(legs[0]), fault_data(legs[1]),
			    sectors * DMCORE_SECTOR_BYTES),
		     0);
}

static bool bit(uint64_t region)
{
	return fault_data(log_disk)[BITS_OFFSET + region / 8] >> region % 8 & 1;
}

/* As somebody else has left it, with so many regions, 64 at the most; all bits alike. */
static void load_log(uint32_t magic, uint32_t version, uint64_t regions, unsigned char bits)
{
	unsigned char *log = fault_data(log_disk);

	memset(log, 0, LOG_SECTORS * DMCORE_SECTOR_BYTES);
	for (unsigned int i = 0; i < 4; i++) {
		log[i] = (unsigned char)(magic >> 8 * i);
		log[4 + i] = (unsigned char)(version >> 8 * i);
		log[8 + i] = (unsigned char)(regions >> 8 * i);
	}
	memset(log + BITS_OFFSET, bits, 8);
}

#define MAGIC UINT32_C(0x4d695272)

/* ---- the log on disk ---- */

static void expect_log(unsigned int regions)
{
	static const unsigned char head[] = { 0x72, 0x52, 0x69, 0x4d, 2, 0, 0, 0 };
	const unsigned char *log = fault_data(log_disk);
	unsigned char expected[LOG_SECTORS * DMCORE_SECTOR_BYTES] = { 0 };

	memcpy(expected, head, sizeof(head));
	expected[8] = (unsigned char)regions;
	for (unsigned int i = 0; i < regions; i++)
		expected[BITS_OFFSET + i / 8] |= (unsigned char)(1u << i % 8);
	for (unsigned int i = 0; i < sizeof(expected); i++)
		cr_assert_eq(log[i], expected[i], "%u regions: byte %u", regions, i);
}

Test(mirror, log_on_disk_has_a_header_and_a_bit_for_each_region)
{
	static const unsigned int counts[] = { 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 128 };

	for (unsigned int i = 0; i < DMCORE__ARRAY_SIZE(counts); i++) {
		/* The last one may be short. */
		unsigned int sectors = 2 * counts[i] - (counts[i] > 1 && i % 2);

		load_log(0, 0, 0, 0);
		map("disk", sectors, 2, "");
		wait_until_in_sync();
		expect_in_sync(counts[i], counts[i]);
		cr_assert_eq(write_sectors(0, sectors), 0);
		remove_it();
		expect_log(counts[i]);
	}
}

Test(mirror, bits_behind_the_last_region_do_not_count)
{
	load_log(MAGIC, 2, 5, 0xff);
	hold_recovery();
	map("disk", 80, 16, "");
	expect_in_sync(5, 5);
	remove_it();
	expect_log(5);
}

Test(mirror, regions_that_the_log_does_not_know_differ_unless_the_table_says_nosync)
{
	load_log(MAGIC, 2, 5, 0xff);
	hold_recovery();
	map("disk", 192, 16, "");
	expect_in_sync(5, 12);
	let_recovery_go();
	wait_until_in_sync();
	remove_it();
	load_log(MAGIC, 2, 5, 0);
	map("disk", 192, 16, "nosync");
	expect_in_sync(12, 12);
	remove_it();
	expect_log(12);
}

Test(mirror, log_of_fewer_regions_than_it_had_is_cut)
{
	load_log(MAGIC, 2, 12, 0xff);
	map("disk", 80, 16, "");
	expect_in_sync(5, 5);
	remove_it();
	expect_log(5);
}

Test(mirror, log_of_version_1_is_taken_and_another_is_not)
{
	load_log(MAGIC, 1, 8, 0x0f);
	hold_recovery();
	map("disk", 128, 16, "");
	expect_in_sync(4, 8);
	let_recovery_go();
	wait_until_in_sync();
	remove_it();
	expect_log(8);

	load_log(MAGIC, 3, 8, 0xff);
	hold_recovery();
	map("disk", 128, 16, "");
	expect_in_sync(0, 8);
	cr_assert(strstr(fixture_device_text(device, DMCORE_TEXT_STATUS), " D"), "%s",
		  fixture_device_text(device, DMCORE_TEXT_STATUS));
	let_recovery_go();
	remove_it();
	/* It isn't written over. */
	cr_assert_eq(fault_data(log_disk)[4], 3);
}

Test(mirror, log_with_another_magic_is_begun_anew)
{
	load_log(MAGIC + 1, 2, 8, 0xff);
	hold_recovery();
	map("disk", 128, 16, "");
	expect_in_sync(0, 8);
	let_recovery_go();
	wait_until_in_sync();
	remove_it();
	expect_log(8);
}

/* ---- sync and nosync ---- */

Test(mirror, word_of_a_log_on_disk_counts_at_every_resume)
{
	load_log(MAGIC, 2, 8, 0xff);
	hold_recovery();
	map("disk", 128, 16, "sync");
	expect_in_sync(0, 8);
	let_recovery_go();
	wait_until_in_sync();
	hold_recovery();
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	expect_in_sync(0, 8);
	let_recovery_go();
	wait_until_in_sync();
	remove_it();

	load_log(MAGIC, 2, 8, 0);
	map("disk", 128, 16, "nosync");
	expect_in_sync(8, 8);
	remove_it();
}

Test(mirror, log_in_memory_survives_a_suspension_and_not_its_table)
{
	hold_recovery();
	map("core", 128, 16, "");
	expect_in_sync(0, 8);
	let_recovery_go();
	wait_until_in_sync();
	hold_recovery();
	cr_assert_eq(dmcore_device_suspend(device, 0, -1), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	expect_in_sync(8, 8);
	map("core", 128, 16, "");
	expect_in_sync(0, 8);
	let_recovery_go();
	wait_until_in_sync();
	map("core", 128, 16, "nosync");
	expect_in_sync(8, 8);
}

/* ---- requests ---- */

/* The mark of each region is durable before the first write to it is sent. */
Test(mirror, writes_wait_for_the_mark_of_their_region)
{
	uint64_t marked;

	load_log(MAGIC, 2, 8, 0xff);
	map("disk", 128, 16, "");
	fault_clear_log(log_disk);
	cr_assert_eq(write_sectors(40, 2), 0);
	cr_assert_eq(fault_num_logged(log_disk), 2);
	cr_assert_eq(fault_logged(log_disk, 0).op, DMCORE_OP_WRITE);
	cr_assert_eq(fault_logged(log_disk, 1).op, DMCORE_OP_FLUSH);
	cr_assert(fault_logged(log_disk, 1).begun > fault_logged(log_disk, 0).ended);
	marked = fault_logged(log_disk, 1).ended;
	cr_assert_not(bit(2));
	cr_assert(bit(1) && bit(3));
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(fault_count(legs[i], FAULT_WRITE), 1);
		cr_assert(fault_logged(legs[i], fault_num_logged(legs[i]) - 1).begun > marked);
	}
	/* Once is enough. */
	cr_assert_eq(write_sectors(42, 2), 0);
	cr_assert_eq(fault_num_logged(log_disk), 2);
}

Test(mirror, requests_across_regions_are_split_and_mark_each)
{
	load_log(MAGIC, 2, 8, 0xff);
	map("disk", 128, 16, "");
	cr_assert_eq(write_sectors(10, 60), 0);
	for (unsigned int i = 0; i < 8; i++)
		cr_assert_eq(bit(i), i > 4, "region %u", i);
	for (unsigned int i = 0; i < 2; i++)
		cr_assert_eq(fault_count(legs[i], FAULT_WRITE), 5);
	remove_it();
	expect_log(8);
}

/* Those that differ: leg 0 is written to, and recovery brings it to the other. */
Test(mirror, writes_to_what_differs_go_to_leg_0_alone)
{
	const uint64_t sector = 100;

	/* A leg that takes no copy keeps its regions from being recovered. */
	fault_add_rule(legs[1], &(struct fault_rule){ .action = FAULT_FAIL, .status = -EIO,
						      .ops = FAULT_WRITE });
	map("core", 128, 16, "");
	for (unsigned int i = 0; i < 20000; i++) {
		if (strstr(fixture_device_text(device, DMCORE_TEXT_STATUS), " AS "))
			break;
		stage_sleep_ns(1000000);
	}
	fault_clear_log(legs[0]);
	cr_assert_eq(write_sectors(sector, 2), 0);
	cr_assert_eq(fault_count(legs[0], FAULT_WRITE), 1);
	cr_assert_neq(memcmp(fault_data(legs[1]) + sector * DMCORE_SECTOR_BYTES,
			     fault_data(legs[0]) + sector * DMCORE_SECTOR_BYTES,
			     DMCORE_SECTOR_BYTES),
		      0);
	fault_clear_rules(legs[1]);
	wait_until_in_sync();
	expect_same(128);
}

/* A write to a region that is being copied is sent when that has ended, to both. */
Test(mirror, writes_to_what_is_being_recovered_wait)
{
	struct dmcore_bio *bio;
	static unsigned char data[2 * DMCORE_SECTOR_BYTES];
	struct dmcore_bio *ended;

	hold_recovery();
	map("core", 16, 16, "");
	await_held(1);
	bio = dmcore_bio_get(fixture.queue);
	cr_assert_not_null(bio);
	bio->bdev = dmcore_device_bdev(device);
	bio->op = DMCORE_OP_WRITE;
	bio->sector = 4;
	memset(data, 0x77, sizeof(data));
	dmcore_bio_set_buffer(bio, data, sizeof(data));
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	for (unsigned int i = 0; i < 20; i++) {
		cr_assert_geq(dmcore_queue_poll(fixture.queue, 0, UINT32_MAX, 0), 0);
		stage_sleep_ns(1000000);
	}
	cr_assert_eq(dmcore_queue_reap(fixture.queue, &ended, 1), 0);
	cr_assert_eq(fault_count(legs[0], FAULT_WRITE), 0);
	let_recovery_go();
	while (dmcore_queue_reap(fixture.queue, &ended, 1) == 0)
		cr_assert_geq(dmcore_queue_poll(fixture.queue, 1, UINT32_MAX, -1), 0);
	cr_assert_eq(bio->status, 0);
	dmcore_bio_put(bio);
	wait_until_in_sync();
	for (unsigned int i = 0; i < 2; i++) {
		cr_assert_eq(memcmp(fault_data(legs[i]) + 4 * DMCORE_SECTOR_BYTES, data,
				    sizeof(data)),
			     0);
	}
}

/* All of it is copied once, from leg 0. */
Test(mirror, recovery_copies_each_region_once)
{
	for (unsigned int i = 0; i < LEG_SECTORS * DMCORE_SECTOR_BYTES; i++)
		fault_data(legs[0])[i] = (unsigned char)(i * 31 + i / 512);
	map("core", 251, 2, "");
	wait_until_in_sync();
	expect_same(251);
	for (unsigned int leg = 0; leg < 2; leg++) {
		uint64_t sectors = 0;

		for (unsigned int i = 0; i < fault_num_logged(legs[leg]); i++) {
			struct fault_entry entry = fault_logged(legs[leg], i);

			if (entry.op == (leg ? DMCORE_OP_WRITE : DMCORE_OP_READ))
				sectors += entry.count;
		}
		cr_assert_eq(sectors, 251);
		cr_assert_eq(fault_count(legs[leg], leg ? FAULT_READ : FAULT_WRITE), 0);
	}
}

Test(mirror, of_nine_legs_has_the_same_on_all)
{
	static unsigned char data[4 * DMCORE_SECTOR_BYTES];
	char text[400] = "0 64 mirror core 1 8 9";
	struct fault_disk *disks[9];
	struct dmcore_bdev *bdev;

	for (unsigned int i = 0; i < 9; i++) {
		char spec[32];
		size_t used = strlen(text);

		snprintf(spec, sizeof(spec), "fault:72,id=n%u", i);
		disks[i] = fixture_disk(spec);
		snprintf(text + used, sizeof(text) - used, " %s %u", spec, i % 8);
	}
	device = fixture_device("m", text);
	bdev = dmcore_device_bdev(device);
	memset(data, 0x33, sizeof(data));
	cr_assert_eq(fixture_run(&(struct fixture_io){ .bdev = bdev, .op = DMCORE_OP_WRITE,
						       .sector = 6, .count = 4, .buffer = data }),
		     0);
	wait_until_in_sync();
	cr_assert_eq(fixture_run(&(struct fixture_io){ .bdev = bdev, .op = DMCORE_OP_WRITE,
						       .sector = 30, .count = 4, .buffer = data }),
		     0);
	for (unsigned int i = 0; i < 9; i++) {
		const unsigned char *leg = fault_data(disks[i]) + i % 8 * DMCORE_SECTOR_BYTES;

		cr_assert_eq(memcmp(leg, fault_data(disks[0]), 64 * DMCORE_SECTOR_BYTES), 0);
		cr_assert_eq(memcmp(leg + 6 * DMCORE_SECTOR_BYTES, data, sizeof(data)), 0);
		cr_assert_eq(memcmp(leg + 30 * DMCORE_SECTOR_BYTES, data, sizeof(data)), 0);
	}
}

/* ---- places of active regions ---- */

#define CROWD 9u
#define CROWD_STEP 513u /* regions that fall into one set, which has eight places */
#define CROWD_SECTORS 16384u

static struct tally crowd[CROWD];

/* What waits for a place doesn't keep the service busy, and goes on when somebody has left. */
Test(mirror, region_that_finds_no_place_waits_for_one)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;
	static unsigned char data[DMCORE_SECTOR_BYTES];
	static struct stage stage;
	struct fault_disk *disk;
	struct dmcore_bdev *bdev;
	unsigned int polls = 0;
	char line[160];

	options.flags = DMCORE_SERVICE_MANUAL;
	stage_open(&stage, &options, NULL);
	disk = stage_disk(&stage, 0, CROWD_SECTORS, "");
	snprintf(line, sizeof(line), "0 %u mirror core 2 2 nosync 2 %s 0 mem:%us 0", CROWD_SECTORS,
		 stage_disk_spec(0, CROWD_SECTORS, ""), CROWD_SECTORS);
	bdev = stage_map(&stage, "crowd", line);
	fault_add_rule(disk, &(struct fault_rule){ .action = FAULT_HOLD, .ops = FAULT_WRITE });
	for (unsigned int i = 0; i < CROWD; i++)
		stage_submit(&stage, bdev, DMCORE_OP_WRITE, UINT64_C(2) * CROWD_STEP * i, 1, data,
			     &crowd[i]);
	while (dmcore_service_poll(stage.core, 0, UINT32_MAX, 0) > 0 ||
	       dmcore_queue_poll(stage.queue, 0, UINT32_MAX, 0) > 0)
		cr_assert_lt(++polls, 1000);
	cr_assert_eq(fault_num_held(disk), CROWD - 1);
	cr_assert_eq(crowd[CROWD - 1].ended, 0);
	fault_release(disk, 0, 0);
	fault_clear_rules(disk);
	stage_settle(&stage);
	for (polls = 0; crowd[CROWD - 1].ended == 0; polls++) {
		cr_assert_lt(polls, 1000);
		cr_assert_geq(dmcore_service_poll(stage.core, 0, UINT32_MAX, 0), 0);
		cr_assert_geq(dmcore_queue_poll(stage.queue, 0, UINT32_MAX, 0), 0);
	}
	fault_release_all(disk);
	for (unsigned int i = 0; i < CROWD; i++) {
		stage_wait(&stage, &crowd[i], 1);
		cr_assert_eq(crowd[i].status, 0);
	}
	stage_close(&stage);
}
