/* SPDX-License-Identifier: MIT */
/* A mirror over disks that fail, for tests; see mirrors.h. */
#include "mirrors.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#define TEXT_MAX 512
/* Polls without anything to do before nothing is taken to be under way. */
#define QUIET_ROUNDS 4
#define LOG_BITS_OFFSET 1024u

struct mirrors mirrors;

static unsigned char buffer[MIRRORS_SECTORS * DMCORE_SECTOR_BYTES];
static unsigned char buffers[MIRRORS_REQUESTS_MAX]
			    [MIRRORS_REGION_SECTORS * DMCORE_SECTOR_BYTES];

/* ---- the world ---- */

static uint64_t clock_of_test(void *context)
{
	(void)context;
	return mirrors.now_ns;
}

void mirrors_open(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	memset(&mirrors, 0, sizeof(mirrors));
	mirrors.now_ns = 1000000000;
	options.flags = DMCORE_SERVICE_MANUAL;
	options.clock_ns = clock_of_test;
	stage_open(&mirrors.stage, &options, NULL);
	for (unsigned int i = 0; i < MIRRORS_DISKS; i++) {
		mirrors.disks[i] = stage_disk(&mirrors.stage, i, MIRRORS_SECTORS, "");
		pattern_fill(fault_data(mirrors.disks[i]), 0, MIRRORS_SECTORS, 0);
	}
	mirrors.log = stage_disk(&mirrors.stage, MIRRORS_DISKS, 8, "");
	for (uint64_t region = 0; region < MIRRORS_REGIONS; region++)
		mirrors_set_clean(region, true);
}

void mirrors_close(void)
{
	stage_close(&mirrors.stage);
}

void mirrors_settle(void)
{
	unsigned int quiet = 0;

	while (quiet < QUIET_ROUNDS) {
		int done = dmcore_queue_poll(mirrors.stage.queue, 0, UINT32_MAX, 0);
		int served = dmcore_service_poll(mirrors.stage.core, 0, UINT32_MAX, 0);

		cr_assert_geq(done, 0);
		cr_assert_geq(served, 0);
		quiet = done + served > 0 ? 0 : quiet + 1;
	}
}

void mirrors_pass_ns(uint64_t ns)
{
	mirrors.now_ns += ns;
	mirrors_settle();
}

void mirrors_wait(struct tally *tally, unsigned int count)
{
	uint64_t until_ns = stage_now_ns() + STAGE_PATIENCE_NS;

	while (tally->ended < count) {
		mirrors_settle();
		cr_assert_lt(stage_now_ns(), until_ns, "%u of %u have ended", tally->ended, count);
	}
}

/* ---- the mirror ---- */

static const char *text_of(const struct mirrors_table *table)
{
	static char text[TEXT_MAX];
	unsigned int num_legs = (unsigned int)strlen(table->legs);
	const char *sync = table->sync ? table->sync : "";
	unsigned int num_args = 1u + table->disk + (table->sync != NULL);
	size_t at = (size_t)snprintf(
		text, sizeof(text), "0 %u mirror %s %u %s %u %s %u", MIRRORS_SECTORS,
		table->disk ? "disk" : "core", num_args,
		table->disk ? stage_disk_spec(MIRRORS_DISKS, 8, "") : "", MIRRORS_REGION_SECTORS,
		sync, num_legs);

	for (unsigned int i = 0; i < num_legs; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, " %s 0",
				       stage_disk_spec((unsigned int)(table->legs[i] - '0'),
						       MIRRORS_SECTORS, ""));
	if (table->features)
		snprintf(text + at, sizeof(text) - at, " %s", table->features);
	return text;
}

void mirrors_map(const struct mirrors_table *table)
{
	mirrors.bdev = stage_map(&mirrors.stage, "m", text_of(table));
	mirrors.device = dmcore_device_find(mirrors.stage.core, "m");
}

void mirrors_load(const struct mirrors_table *table)
{
	struct dmcore_table *made;
	int ret = dmcore_table_parse(mirrors.stage.core, text_of(table), 0, &made);

	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	ret = dmcore_device_load(mirrors.device, made);
	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	mirrors_resume();
}

void mirrors_suspend(unsigned int flags)
{
	int ret = dmcore_device_suspend(mirrors.device, flags, -1);

	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
}

void mirrors_resume(void)
{
	int ret = dmcore_device_resume(mirrors.device);

	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
}

void mirrors_remove(void)
{
	int ret = dmcore_device_remove(mirrors.device);

	cr_assert_eq(ret, 0, "%d: %s", ret, dmcore_error_message());
	mirrors.stage.num_devices--;
}

/* ---- requests ---- */

int mirrors_run(enum dmcore_op op, unsigned int flags, uint64_t sector, uint64_t count, void *data)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio =
		stage_bio(&mirrors.stage, mirrors.bdev, op, sector, count, data, &tally);

	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	mirrors_wait(&tally, 1);
	return tally.status;
}

int mirrors_try_write(unsigned int flags, uint64_t sector, uint64_t count, uint32_t version)
{
	pattern_fill(buffer, sector, count, version);
	return mirrors_run(DMCORE_OP_WRITE, flags, sector, count, buffer);
}

void mirrors_write(uint64_t sector, uint64_t count, uint32_t version)
{
	int ret = mirrors_try_write(0, sector, count, version);

	cr_assert_eq(ret, 0, "write %llu+%llu: %d", (unsigned long long)sector,
		     (unsigned long long)count, ret);
}

int mirrors_try_read(uint64_t sector, uint64_t count)
{
	memset(buffer, 0xdb, count * DMCORE_SECTOR_BYTES);
	return mirrors_run(DMCORE_OP_READ, 0, sector, count, buffer);
}

int mirrors_flush(void)
{
	return mirrors_run(DMCORE_OP_FLUSH, 0, 0, 0, NULL);
}

void mirrors_start(unsigned int flags, uint64_t sector, uint64_t count, uint32_t version,
		   struct tally *tally)
{
	unsigned char *data = buffers[mirrors.num_started];
	struct dmcore_bio *bio;

	cr_assert_lt(mirrors.num_started++, MIRRORS_REQUESTS_MAX);
	cr_assert_leq(count, MIRRORS_REGION_SECTORS);
	pattern_fill(data, sector, count, version);
	bio = stage_bio(&mirrors.stage, mirrors.bdev, DMCORE_OP_WRITE, sector, count, data, tally);
	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
}

void mirrors_expect(uint64_t sector, uint64_t count, uint32_t version)
{
	int ret = mirrors_try_read(sector, count);
	int64_t wrong;

	cr_assert_eq(ret, 0, "read %llu+%llu: %d", (unsigned long long)sector,
		     (unsigned long long)count, ret);
	wrong = pattern_differs(buffer, sector, count, version);
	cr_assert_lt(wrong, 0, "sector %lld isn't version %u", (long long)wrong, version);
}

void mirrors_expect_disk(unsigned int disk, uint64_t sector, uint64_t count, uint32_t version)
{
	const unsigned char *data = fault_data(mirrors.disks[disk]);
	int64_t wrong = pattern_differs(data + sector * DMCORE_SECTOR_BYTES, sector, count,
					version);

	cr_assert_lt(wrong, 0, "sector %lld of disk %u isn't version %u", (long long)wrong, disk,
		     version);
}

void mirrors_expect_same(unsigned int disk, unsigned int other)
{
	for (uint64_t i = 0; i < MIRRORS_SECTORS * DMCORE_SECTOR_BYTES; i++)
		cr_assert_eq(fault_data(mirrors.disks[disk])[i],
			     fault_data(mirrors.disks[other])[i], "byte %llu of disks %u and %u",
			     (unsigned long long)i, disk, other);
}

/* ---- what it says ---- */

static const char *status(void)
{
	static char text[TEXT_MAX];
	int64_t ret = dmcore_device_text(mirrors.device, DMCORE_TEXT_STATUS, 0, text, sizeof(text));

	cr_assert_geq(ret, 0, "%lld: %s", (long long)ret, dmcore_error_message());
	return text;
}

void mirrors_expect_status(unsigned int in_sync, const char *health, const char *log)
{
	char expected[64];
	const char *text = status();
	size_t length = log ? strlen(log) : 0;

	snprintf(expected, sizeof(expected), " %u/%u 1 %s %s", in_sync, MIRRORS_REGIONS, health,
		 log ? "3 disk " : "1 core");
	cr_assert_not_null(strstr(text, expected), "%s has no \"%s\"", text, expected);
	cr_assert(!log || strncmp(text + strcspn(text, "\n") - length, log, length) == 0,
		  "%s: the log isn't %s", text, log);
}

void mirrors_await_in_sync(void)
{
	char all[32];
	unsigned int rounds = 0;

	snprintf(all, sizeof(all), " %u/%u ", MIRRORS_REGIONS, MIRRORS_REGIONS);
	mirrors_settle();
	while (!strstr(status(), all)) {
		mirrors_pass_ns(MIRRORS_PAUSE_NS / 10);
		cr_assert_lt(rounds++, 1000, "%s", status());
	}
}

uint32_t mirrors_events(void)
{
	return dmcore_device_event_nr(mirrors.device);
}

/* ---- the log ---- */

bool mirrors_is_clean(uint64_t region)
{
	return fault_data(mirrors.log)[LOG_BITS_OFFSET + region / 8] >> region % 8 & 1;
}

void mirrors_set_clean(uint64_t region, bool clean)
{
	static const unsigned char header[16] = { 'r', 'R', 'i', 'M', 2, 0, 0, 0,
						  MIRRORS_REGIONS };
	unsigned char *data = fault_data(mirrors.log);
	unsigned char bit = (unsigned char)(1u << region % 8);

	memcpy(data, header, sizeof(header));
	if (clean)
		data[LOG_BITS_OFFSET + region / 8] |= bit;
	else
		data[LOG_BITS_OFFSET + region / 8] &= (unsigned char)~bit;
}

void mirrors_fail(struct fault_disk *disk, unsigned int ops, unsigned int skip, unsigned int times)
{
	fault_add_rule(disk, &(struct fault_rule){ .ops = ops, .status = -EIO, .skip = skip,
						   .times = times });
}
