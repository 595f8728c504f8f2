/* SPDX-License-Identifier: MIT */
/* The dust target's list: long ones, on the largest device, and changed by several threads. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/driver.h>

#include "support/fixture.h"

TestSuite(dust_list, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[2 * DMCORE_SECTOR_BYTES];
static struct dmcore_device *device;
static char answer[64];

static int run(enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return fixture_run(&(struct fixture_io){ .bdev = dmcore_device_bdev(device),
						 .op = op,
						 .sector = sector,
						 .count = count,
						 .buffer = buffer });
}

static void expect_read(uint64_t sector, uint64_t count, int status)
{
	cr_assert_eq(run(DMCORE_OP_READ, sector, count), status, "sector %llu",
		     (unsigned long long)sector);
}

static void expect_write(uint64_t sector, uint64_t count, int status)
{
	cr_assert_eq(run(DMCORE_OP_WRITE, sector, count), status, "sector %llu",
		     (unsigned long long)sector);
}

static void expect_answer(const char *text, const char *expected)
{
	int64_t ret = dmcore_device_message(device, 0, text, answer, sizeof(answer));

	cr_assert_eq(ret, (int64_t)strlen(expected), "%s: %lld: %s", text, (long long)ret,
		     dmcore_error_message());
	cr_assert_str_eq(answer, expected);
}

/* It is carried out, and has no answer. */
static void tell(const char *text)
{
	expect_answer(text, "");
}

static void expect_count(unsigned int count)
{
	char text[64];

	snprintf(text, sizeof(text), "countbadblocks: %u badblock(s) found", count);
	expect_answer("countbadblocks", text);
}

/* A driver of the largest disk, which carries out anything. "wide:N" */
static int wide_identify(struct dmcore *core, const char *args, char *key, size_t bytes)
{
	(void)core;
	snprintf(key, bytes, "%s", args);
	return 0;
}

static int wide_open(struct dmcore_bdev *bdev, const char *args, unsigned int flags)
{
	(void)args;
	(void)flags;
	dmcore_bdev_set_size(bdev, DMCORE_DEVICE_SECTORS_MAX);
	return 0;
}

static void wide_close(struct dmcore_bdev *bdev)
{
	(void)bdev;
}

static void wide_submit(struct dmcore_bdev *bdev, struct dmcore_bio *bio)
{
	(void)bdev;
	dmcore_bio_complete(bio, 0);
}

static const struct dmcore_driver wide_driver = {
	.struct_size = sizeof(struct dmcore_driver),
	.name = "wide",
	.version = { 1, 0, 0 },
	.identify = wide_identify,
	.open = wide_open,
	.close = wide_close,
	.submit = wide_submit,
};

static void make_wide(void)
{
	char text[64];

	cr_assert_eq(dmcore_driver_register(fixture.core, &wide_driver), 0);
	snprintf(text, sizeof(text), "0 %llu dust wide:a 0 512",
		 (unsigned long long)DMCORE_DEVICE_SECTORS_MAX);
	device = fixture_device("d", text);
	tell("enable");
}

static int64_t add(uint64_t block)
{
	char text[64];

	snprintf(text, sizeof(text), "addbadblock %llu", (unsigned long long)block);
	return dmcore_device_message(device, 0, text, NULL, 0);
}

Test(dust_list, holds_the_last_block_of_the_largest_device)
{
	uint64_t last = DMCORE_DEVICE_SECTORS_MAX - 1;

	make_wide();
	cr_assert_eq(add(last), 0);
	cr_assert_eq(add(last + 1), -EINVAL);
	for (unsigned int shift = 1; shift <= 54; shift++) {
		expect_read(last >> shift, 1, 0);
		cr_assert_eq(add(last >> shift), 0);
		expect_read(last >> shift, 1, -EIO);
	}
	expect_read(last, 1, -EIO);
	expect_count(55);
	for (unsigned int shift = 0; shift <= 54; shift++)
		expect_write(last >> shift, 1, 0);
	expect_count(0);
}

/* A model with a place for each of some blocks, which lie far apart or side by side. */
static void check_many(uint64_t distance)
{
	enum { COUNT = 1000 };

	for (uint64_t i = 0; i < COUNT; i++)
		cr_assert_eq(add(i * distance), 0, "block %llu", (unsigned long long)i);
	expect_count(COUNT);
	for (uint64_t i = 0; i < COUNT; i += 2)
		expect_write(i * distance, 1, 0);
	expect_count(COUNT / 2);
	for (uint64_t i = 0; i < COUNT; i++)
		expect_read(i * distance, 1, i % 2 ? -EIO : 0);
	for (uint64_t i = 0; i < COUNT; i++)
		cr_assert_eq(add(i * distance), i % 2 ? -EINVAL : 0);
	expect_count(COUNT);
	expect_answer("clearbadblocks", "dust_clear_badblocks: badblocks cleared");
	expect_count(0);
	for (uint64_t i = 0; i < COUNT; i++)
		expect_read(i * distance, 1, 0);
}

Test(dust_list, keeps_many_blocks_apart)
{
	make_wide();
	check_many(1);
	check_many(8);
	check_many(1000003);
	check_many(UINT64_C(1) << 44);
}

/* D-064 in docs/conformance.md: the list has an end, and what it holds stays as it is. */
Test(dust_list, is_full_at_last_and_takes_no_more)
{
	const uint64_t distance = UINT64_C(1) << 20;
	unsigned int count = 0;
	int64_t ret;

	make_wide();
	/* More than 4 MiB of words hold. */
	while ((ret = add(count * distance)) == 0 && count < 1000000)
		count++;
	cr_assert_eq(ret, -ENOMEM);
	cr_assert_str_eq(dmcore_error_message(), "d: dust: badblocklist is full");
	cr_assert_geq(count, 200000);
	expect_count(count);
	expect_read((count - 1) * distance, 1, -EIO);
	expect_read(count * distance, 1, 0);
	expect_answer("clearbadblocks", "dust_clear_badblocks: badblocks cleared");
	cr_assert_eq(add(count * distance), 0);
	expect_read(count * distance, 1, -EIO);
}

/* ---- threads ---- */

#define THREADS 3
/* Enough that all failures are met. */
#define ROUNDS 100
#define BLOCKS 64
/* So few that threads meet at them. */
#define FEW 2

struct worker {
	pthread_t thread;
	unsigned int number;
	unsigned int failed;
	unsigned char data[DMCORE_SECTOR_BYTES];
};

/* Used by threads, so it outlives the test function. */
static struct worker workers[THREADS];
static atomic_bool stop;

static void start(void *(*fn)(void *))
{
	for (unsigned int i = 0; i < THREADS; i++) {
		workers[i].number = i;
		cr_assert_eq(pthread_create(&workers[i].thread, NULL, fn, &workers[i]), 0);
	}
}

static unsigned int join(void)
{
	unsigned int failed = 0;

	for (unsigned int i = 0; i < THREADS; i++) {
		cr_assert_eq(pthread_join(workers[i].thread, NULL), 0);
		failed += workers[i].failed;
	}
	return failed;
}

static int write_block(struct worker *worker, uint64_t block)
{
	return dmcore_pwrite(dmcore_device_bdev(device), worker->data, DMCORE_SECTOR_BYTES,
			     block * DMCORE_SECTOR_BYTES);
}

static void *write_in_rounds(void *context)
{
	struct worker *worker = context;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		for (uint64_t block = 0; block < BLOCKS; block++)
			worker->failed += write_block(worker, block) == -EIO;
	}
	return NULL;
}

Test(dust_list, gives_each_failure_to_one_write_of_all_threads)
{
	char text[32];

	make_wide();
	for (unsigned int i = 0; i < BLOCKS; i++) {
		snprintf(text, sizeof(text), "addbadblock %u 255", i);
		tell(text);
	}
	start(write_in_rounds);
	cr_assert_eq(join(), BLOCKS * 255);
	expect_count(0);
}

static void *write_everywhere(void *context)
{
	struct worker *worker = context;

	/* Any failure: no block has writes that are to fail. */
	for (uint64_t i = worker->number; !atomic_load(&stop); i++)
		worker->failed += write_block(worker, i % FEW) != 0;
	return NULL;
}

/* That the count is that of the blocks which are found. */
static void expect_whole_list(void)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < FEW; i++) {
		char text[32];

		snprintf(text, sizeof(text), "queryblock %u", i);
		cr_assert_gt(dmcore_device_message(device, 0, text, answer, sizeof(answer)), 0);
		count += !strstr(answer, "not found");
	}
	expect_count(count);
}

Test(dust_list, stays_whole_while_threads_heal_what_messages_add)
{
	char text[32];

	make_wide();
	start(write_everywhere);
	for (unsigned int i = 0; i < 60000; i++) {
		/* Whether it is listed or not is the threads' doing. */
		snprintf(text, sizeof(text), "%s %u", i % 8 ? "addbadblock" : "removebadblock",
			 i % 3 % FEW);
		(void)dmcore_device_message(device, 0, text, NULL, 0);
		if (i % 200 == 0) {
			cr_assert_geq(dmcore_device_message(device, 0, "listbadblocks", NULL, 0),
				      0);
			cr_assert_gt(dmcore_device_message(device, 0, "clearbadblocks", NULL, 0),
				     0);
		}
	}
	atomic_store(&stop, true);
	cr_assert_eq(join(), 0);
	expect_whole_list();
	expect_write(0, FEW, 0);
	expect_count(0);
}
