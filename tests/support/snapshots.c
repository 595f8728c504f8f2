/* SPDX-License-Identifier: MIT */
/* An origin, COW devices and snapshots for tests; see snapshots.h. */
#include "snapshots.h"

#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#define TEXT_MAX 512
#define SECTORS_MAX 4096

struct snapshots snapshots;

static unsigned char buffer[SECTORS_MAX * DMCORE_SECTOR_BYTES];

/* ---- devices ---- */

void snapshots_open_with(const struct dmcore_options *options)
{
	snapshots.manual = options && options->flags & DMCORE_SERVICE_MANUAL;
	stage_open(&snapshots.stage, options, NULL);
	snapshots.origin = stage_disk(&snapshots.stage, 0, SNAPSHOTS_ORIGIN_SECTORS, "");
	snapshots.cow = stage_disk(&snapshots.stage, 1, SNAPSHOTS_COW_SECTORS, "");
	pattern_fill(fault_data(snapshots.origin), 0, SNAPSHOTS_ORIGIN_SECTORS, 0);
}

void snapshots_open(void)
{
	snapshots_open_with(NULL);
}

static uint64_t stopped_clock(void *context)
{
	(void)context;
	return 1000000000;
}

void snapshots_open_manual(void)
{
	struct dmcore_options options = DMCORE_OPTIONS_INIT;

	options.flags = DMCORE_SERVICE_MANUAL;
	options.clock_ns = stopped_clock;
	snapshots_open_with(&options);
}

void snapshots_close(void)
{
	stage_close(&snapshots.stage);
}

static const char *text_of(uint64_t sectors, const char *params)
{
	static char text[TEXT_MAX];

	snprintf(text, sizeof(text), "0 %llu %s", (unsigned long long)sectors, params);
	return text;
}

struct dmcore_bdev *snapshots_map(const char *name, uint64_t sectors, const char *params)
{
	return stage_map(&snapshots.stage, name, text_of(sectors, params));
}

static struct dmcore_device *device_of(const char *name)
{
	struct dmcore_device *device = dmcore_device_find(snapshots.stage.core, name);

	cr_assert_not_null(device, "%s", name);
	return device;
}

int snapshots_load(const char *name, uint64_t sectors, const char *params)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(snapshots.stage.core, text_of(sectors, params), 0, &table);

	if (ret)
		return ret;
	ret = dmcore_device_load(device_of(name), table);
	if (ret)
		dmcore_table_destroy(table);
	return ret;
}

void snapshots_reload(const char *name, uint64_t sectors, const char *params)
{
	int ret = snapshots_load(name, sectors, params);

	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
	ret = snapshots_resume(name);
	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
}

void snapshots_suspend(const char *name)
{
	int ret = dmcore_device_suspend(device_of(name), 0, -1);

	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
}

int snapshots_resume(const char *name)
{
	return dmcore_device_resume(device_of(name));
}

void snapshots_remove(const char *name)
{
	struct dmcore_device *device = device_of(name);
	struct stage *stage = &snapshots.stage;
	unsigned int i = 0;
	int ret = dmcore_device_remove(device);

	cr_assert_eq(ret, 0, "%s: %d: %s", name, ret, dmcore_error_message());
	while (i < stage->num_devices && stage->devices[i] != device)
		i++;
	if (i == stage->num_devices)
		return;
	stage->num_devices--;
	memmove(&stage->devices[i], &stage->devices[i + 1],
		(stage->num_devices - i) * sizeof(stage->devices[0]));
}

/* ---- requests ---- */

void snapshots_settle(void)
{
	int done;

	do {
		done = dmcore_queue_poll(snapshots.stage.queue, 0, UINT32_MAX, 0);
		cr_assert_geq(done, 0);
		if (snapshots.manual) {
			int ret = dmcore_service_poll(snapshots.stage.core, 0, UINT32_MAX, 0);

			cr_assert_geq(ret, 0);
			done += ret;
		}
	} while (done > 0);
}

void snapshots_wait(struct tally *tally, unsigned int count)
{
	uint64_t until_ns = stage_now_ns() + STAGE_PATIENCE_NS;

	if (!snapshots.manual) {
		stage_wait(&snapshots.stage, tally, count);
		return;
	}
	/* Disks end their requests in a later poll. */
	while (tally->ended < count) {
		snapshots_settle();
		cr_assert_lt(stage_now_ns(), until_ns, "%u of %u have ended", tally->ended, count);
	}
}

int snapshots_run(struct dmcore_bdev *bdev, enum dmcore_op op, unsigned int flags, uint64_t sector,
		  uint64_t count, void *data)
{
	struct tally tally = { 0 };
	struct dmcore_bio *bio =
		stage_bio(&snapshots.stage, bdev, op, sector, count, data, &tally);

	bio->flags = (uint16_t)flags;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	snapshots_wait(&tally, 1);
	return tally.status;
}

int snapshots_try_write(struct dmcore_bdev *bdev, unsigned int flags, uint64_t sector,
			uint64_t count, uint32_t version)
{
	cr_assert_leq(count, SECTORS_MAX);
	pattern_fill(buffer, sector, count, version);
	return snapshots_run(bdev, DMCORE_OP_WRITE, flags, sector, count, buffer);
}

void snapshots_write(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count, uint32_t version)
{
	int ret = snapshots_try_write(bdev, 0, sector, count, version);

	cr_assert_eq(ret, 0, "write %llu+%llu: %d", (unsigned long long)sector,
		     (unsigned long long)count, ret);
}

int snapshots_try_read(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count)
{
	cr_assert_leq(count, SECTORS_MAX);
	memset(buffer, 0xdb, count * DMCORE_SECTOR_BYTES);
	return snapshots_run(bdev, DMCORE_OP_READ, 0, sector, count, buffer);
}

void snapshots_expect(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count, uint32_t version)
{
	int ret = snapshots_try_read(bdev, sector, count);
	int64_t wrong;

	cr_assert_eq(ret, 0, "read %llu+%llu: %d", (unsigned long long)sector,
		     (unsigned long long)count, ret);
	wrong = pattern_differs(buffer, sector, count, version);
	cr_assert_lt(wrong, 0, "sector %lld isn't version %u", (long long)wrong, version);
}

void snapshots_expect_zeroes(struct dmcore_bdev *bdev, uint64_t sector, uint64_t count)
{
	cr_assert_eq(snapshots_try_read(bdev, sector, count), 0);
	for (uint64_t i = 0; i < count * DMCORE_SECTOR_BYTES; i++)
		cr_assert_eq(buffer[i], 0, "byte %llu behind sector %llu", (unsigned long long)i,
			     (unsigned long long)sector);
}

void snapshots_expect_disk(struct fault_disk *disk, uint64_t sector, uint64_t at, uint64_t count,
			   uint32_t version)
{
	int64_t wrong = pattern_differs(fault_data(disk) + at * DMCORE_SECTOR_BYTES, sector, count,
					version);

	cr_assert_lt(wrong, 0, "sector %lld isn't version %u on its disk", (long long)wrong,
		     version);
}

/* ---- what devices say ---- */

static const char *text_behind_type(const char *name, enum dmcore_text_kind kind)
{
	static char text[TEXT_MAX];
	int64_t ret = dmcore_device_text(device_of(name), kind, 0, text, sizeof(text));
	char *from = text;

	cr_assert_geq(ret, 0, "%s: %lld: %s", name, (long long)ret, dmcore_error_message());
	text[strcspn(text, "\n")] = '\0';
	for (int i = 0; i < 3; i++)
		from += strcspn(from, " ") + (from[strcspn(from, " ")] == ' ');
	return from;
}

const char *snapshots_status(const char *name)
{
	return text_behind_type(name, DMCORE_TEXT_STATUS);
}

const char *snapshots_table(const char *name)
{
	return text_behind_type(name, DMCORE_TEXT_TABLE);
}

void snapshots_expect_status(const char *name, const char *status)
{
	cr_assert_str_eq(snapshots_status(name), status);
}

static void poll_for(uint64_t until_ns, const char *what)
{
	cr_assert_lt(stage_now_ns(), until_ns, "%s: waited too long", what);
	snapshots_settle();
	stage_sleep_ns(100000);
}

void snapshots_await_status(const char *name, const char *status)
{
	uint64_t until_ns = stage_now_ns() + STAGE_PATIENCE_NS;

	while (strcmp(snapshots_status(name), status) != 0)
		poll_for(until_ns, snapshots_status(name));
}

uint32_t snapshots_events(const char *name)
{
	return dmcore_device_event_nr(device_of(name));
}

int snapshots_message(const char *name, const char *text)
{
	char reply[TEXT_MAX];

	return (int)dmcore_device_message(device_of(name), 0, text, reply, sizeof(reply));
}

/* ---- COW devices ---- */

static unsigned char *entry_at(struct fault_disk *cow, unsigned int nr)
{
	uint64_t area = snapshots_header(cow).chunk_sectors * (uint64_t)DMCORE_SECTOR_BYTES;

	return fault_data(cow) + area + (uint64_t)nr * DMCORE_COW_ENTRY_BYTES;
}

struct dmcore_cow_header snapshots_header(struct fault_disk *cow)
{
	struct dmcore_cow_header header;

	dmcore_cow_header_decode(fault_data(cow), &header);
	return header;
}

struct dmcore_cow_entry snapshots_entry(struct fault_disk *cow, unsigned int nr)
{
	struct dmcore_cow_entry entry;

	dmcore_cow_entry_decode(entry_at(cow, nr), &entry);
	return entry;
}

void snapshots_put_header(struct fault_disk *cow, uint32_t valid, uint32_t version,
			  uint32_t chunk_sectors)
{
	struct dmcore_cow_header header = { DMCORE_COW_MAGIC, valid, version, chunk_sectors };

	dmcore_cow_header_encode(&header, fault_data(cow));
}

void snapshots_put_entry(struct fault_disk *cow, unsigned int nr, uint64_t old_chunk,
			 uint64_t new_chunk)
{
	struct dmcore_cow_entry entry = { old_chunk, new_chunk };

	dmcore_cow_entry_encode(&entry, entry_at(cow, nr));
}

void snapshots_await_held(struct fault_disk *disk, unsigned int count)
{
	uint64_t until_ns = stage_now_ns() + STAGE_PATIENCE_NS;

	while (fault_num_held(disk) < count)
		poll_for(until_ns, "requests that are held");
}
