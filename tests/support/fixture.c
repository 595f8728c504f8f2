/* SPDX-License-Identifier: MIT */
/* What the tests of tables, mapped devices and targets stand on, see fixture.h. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#define TEXT_BYTES 65536

struct fixture fixture;

static char text_buffer[TEXT_BYTES];

void fixture_open(void)
{
	fixture = (struct fixture){ 0 };
	cr_assert_eq(dmcore_create(NULL, &fixture.core), 0, "%s", dmcore_error_message());
	cr_assert_eq(fault_register(fixture.core), 0);
	cr_assert_eq(dmcore_queue_create(fixture.core, NULL, &fixture.queue), 0, "%s",
		     dmcore_error_message());
}

void fixture_close(void)
{
	cr_assert_eq(dmcore_queue_destroy(fixture.queue), 0, "%s", dmcore_error_message());
	while (fixture.num_bdevs > 0)
		cr_assert_eq(dmcore_bdev_close(fixture.bdevs[--fixture.num_bdevs]), 0);
	cr_assert_eq(dmcore_destroy(fixture.core), 0, "%s", dmcore_error_message());
}

struct dmcore_bdev *fixture_bdev(const char *spec)
{
	struct dmcore_bdev **bdev = &fixture.bdevs[fixture.num_bdevs];

	cr_assert_lt(fixture.num_bdevs, FIXTURE_BDEVS_MAX);
	cr_assert_eq(dmcore_bdev_open(fixture.core, spec, 0, bdev), 0, "%s",
		     dmcore_error_message());
	fixture.num_bdevs++;
	return *bdev;
}

struct fault_disk *fixture_disk(const char *spec)
{
	return fault_disk_of(fixture_bdev(spec));
}

struct dmcore_table *fixture_table(const char *text)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(fixture.core, text, 0, &table);

	cr_assert_eq(ret, 0, "%s: %s", text, dmcore_error_message());
	return table;
}

void fixture_expect_refused(const char *text, int error, const char *message)
{
	struct dmcore_table *table = (void *)&fixture;
	int ret = dmcore_table_parse(fixture.core, text, 0, &table);

	cr_assert_eq(ret, error, "%s: %s, not %s", text, dmcore_error_name(ret),
		     dmcore_error_name(error));
	cr_assert_null(table);
	cr_assert_str_eq(dmcore_error_message(), message);
}

struct dmcore_device *fixture_device(const char *name, const char *text)
{
	struct dmcore_table *table = fixture_table(text);
	struct dmcore_device *device;

	cr_assert_eq(dmcore_device_create(fixture.core, name, NULL, 0, &device), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_resume(device), 0, "%s", dmcore_error_message());
	return device;
}

struct dmcore_bdev *fixture_mapped(const char *name, const char *text)
{
	return dmcore_device_bdev(fixture_device(name, text));
}

static const char *check_text(int64_t length)
{
	cr_assert_geq(length, 0);
	cr_assert_lt(length, TEXT_BYTES);
	cr_assert_eq(strlen(text_buffer), (size_t)length);
	return text_buffer;
}

const char *fixture_table_text(struct dmcore_table *table, enum dmcore_text_kind kind)
{
	return check_text(dmcore_table_text(table, kind, text_buffer, TEXT_BYTES));
}

const char *fixture_device_text(struct dmcore_device *device, enum dmcore_text_kind kind)
{
	return check_text(dmcore_device_text(device, kind, 0, text_buffer, TEXT_BYTES));
}

static void count_down(struct dmcore_bio *bio)
{
	unsigned int *left = bio->context;

	cr_assert_gt(*left, 0, "a second completion");
	--*left;
}

int fixture_run(const struct fixture_io *io)
{
	struct dmcore_bio *bio = dmcore_bio_get(fixture.queue);
	unsigned int left = 1;
	int status;

	cr_assert_not_null(bio);
	bio->bdev = io->bdev;
	bio->op = (uint8_t)io->op;
	bio->flags = (uint16_t)io->flags;
	bio->sector = io->sector;
	if (io->buffer)
		dmcore_bio_set_buffer(bio, io->buffer, io->count * DMCORE_SECTOR_BYTES);
	bio->count = io->count;
	bio->done = count_down;
	bio->context = &left;
	cr_assert_eq(dmcore_bio_submit(bio), 0);
	cr_assert_eq(left, 1, "completed inside submit");
	while (left > 0)
		cr_assert_geq(dmcore_queue_poll(fixture.queue, 1, 64, -1), 0);
	status = bio->status;
	dmcore_bio_put(bio);
	return status;
}
