/* SPDX-License-Identifier: MIT */
/* What dm-io refuses whole, and what fails as a region of a call that goes on. */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/dmio_world.h"

#define SECTORS 2048
#define ARGS "2048"
#define LONG_PAGES 160 /* three pieces */
#define LONG_SECTORS (LONG_PAGES * (DMIO_PAGE_BYTES / DMCORE_SECTOR_BYTES))

static struct world world;
static unsigned char buffer[16 * DMCORE_SECTOR_BYTES];

static void open_three(void)
{
	world_open(&world, 3, ARGS, 4);
}

static void close_all(void)
{
	world_close(&world);
}

TestSuite(refusals, .init = open_three, .fini = close_all);

static unsigned int count_requests(void)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < world.num_disks; i++)
		count += fault_count(world.disk[i], 0);
	return count;
}

static bool is_untouched(unsigned int disk)
{
	return is_zero(world_bytes(&world, disk, 0), SECTORS * DMCORE_SECTOR_BYTES);
}

/* ---- refused calls --------------------------------------------------------------------------- */

static void expect_refused(unsigned int num_regions, const struct dmio_region *where, int rw,
			   void *data, int line)
{
	struct pending pending = { 0 };
	unsigned long bits = 0xff;

	cr_assert_eq(dmio_async_vm(world.client, num_regions, where, rw, data, pending_done,
				   &pending),
		     -EINVAL, "line %d", line);
	cr_assert_eq(dmio_sync_vm(world.client, num_regions, where, rw, data, &bits), -EINVAL,
		     "line %d", line);
	cr_assert_eq(bits, 0, "line %d", line);
	world_settle(&world);
	cr_assert_eq(pending.calls, 0, "line %d: called back after a refusal", line);
	cr_assert_eq(count_requests(), 0, "line %d: something was sent", line);
}

#define EXPECT_REFUSED(num_regions, where, rw, data) \
	expect_refused(num_regions, where, rw, data, __LINE__)

Test(refusals, malformed_calls_are_refused)
{
	struct dmio_region where[DMIO_REGIONS_MAX + 1];

	for (unsigned int i = 0; i <= DMIO_REGIONS_MAX; i++)
		where[i] = world_region(&world, i % 3, 0, 8);

	EXPECT_REFUSED(0, where, DMIO_READ, buffer);
	EXPECT_REFUSED(0, where, DMIO_WRITE, buffer);
	EXPECT_REFUSED(DMIO_REGIONS_MAX + 1, where, DMIO_WRITE, buffer);
	EXPECT_REFUSED(1, NULL, DMIO_WRITE, buffer);
	EXPECT_REFUSED(1, where, 5, buffer);
	EXPECT_REFUSED(1, where, DMIO_WRITE | 0x400, buffer);
	EXPECT_REFUSED(1, where, -1, buffer);
	EXPECT_REFUSED(1, where, DMIO_READ | DMIO_FUA, buffer);
	EXPECT_REFUSED(1, where, DMIO_READ | DMIO_PREFLUSH, buffer);
	EXPECT_REFUSED(1, where, DMIO_FLUSH | DMIO_PREFLUSH, buffer);
	EXPECT_REFUSED(1, where, DMIO_DISCARD | DMIO_FUA, buffer);
	EXPECT_REFUSED(1, where, DMIO_WRITE, NULL);
	EXPECT_REFUSED(1, where, DMIO_READ, NULL);
	EXPECT_REFUSED(1, where, DMIO_READ, (void *)(UINTPTR_MAX - 100));

	where[1].count = UINT64_MAX / 512;
	EXPECT_REFUSED(2, where, DMIO_WRITE, buffer);
	where[1].count = UINT64_MAX;
	EXPECT_REFUSED(2, where, DMIO_WRITE, buffer);
	where[1] = (struct dmio_region){ NULL, 0, 8 };
	EXPECT_REFUSED(2, where, DMIO_WRITE, buffer);
	EXPECT_REFUSED(2, where, DMIO_DISCARD, NULL);
	where[1].count = 0;
	EXPECT_REFUSED(2, where, DMIO_FLUSH, NULL);
	EXPECT_REFUSED(2, where, DMIO_WRITE | DMIO_PREFLUSH, buffer);
}

Test(refusals, call_without_callback_or_client_is_refused)
{
	struct dmio_region where = world_region(&world, 0, 0, 8);
	struct pending pending = { 0 };

	cr_assert_eq(dmio_async_vm(world.client, 1, &where, DMIO_WRITE, buffer, NULL, NULL),
		     -EINVAL);
	cr_assert_eq(dmio_async_vm(NULL, 1, &where, DMIO_WRITE, buffer, pending_done, &pending),
		     -EINVAL);
	cr_assert_eq(dmio_sync_vm(NULL, 1, &where, DMIO_WRITE, buffer, NULL), -EINVAL);
	world_settle(&world);
	cr_assert_eq(pending.calls, 0);
}

Test(refusals, device_of_another_core_is_refused)
{
	struct dmio_region where;
	struct world other;

	world_open(&other, 1, ARGS, 0);
	where = world_region(&other, 0, 0, 8);
	EXPECT_REFUSED(1, &where, DMIO_WRITE, buffer);
	world_close(&other);
}

/* ---- failed regions -------------------------------------------------------------------------- */

Test(refusals, region_that_wraps_fails_alone_and_touches_nothing)
{
	struct dmio_region where[3] = { world_region(&world, 0, 0, LONG_SECTORS),
					world_region(&world, 1, UINT64_MAX - 511, LONG_SECTORS),
					world_region(&world, 2, 0, LONG_SECTORS) };
	unsigned long bits = 0;
	struct pages pages;

	pages_create(&pages, LONG_PAGES, 2);
	memset(pages.memory, 0xee, (size_t)LONG_PAGES * 2 * DMIO_PAGE_BYTES);
	cr_assert_eq(dmio_sync(world.client, 3, where, DMIO_WRITE, pages.list, 0, &bits), -EIO);
	cr_assert_eq(bits, 2);
	cr_assert(is_untouched(1));
	cr_assert_eq(*world_bytes(&world, 2, LONG_SECTORS - 1), 0xee);

	cr_assert_eq(dmio_sync(world.client, 1, &where[1], DMIO_READ, pages.list, 0, &bits), -EIO);
	for (unsigned int i = 0; i < LONG_PAGES; i++)
		cr_assert(is_zero(pages.list[i].page, DMIO_PAGE_BYTES));
	pages_destroy(&pages);
}

Test(refusals, region_that_wraps_calls_back_later)
{
	struct dmio_region where = world_region(&world, 0, UINT64_MAX - 3, 8);
	struct pending pending = { 0 };

	cr_assert_eq(dmio_async_vm(world.client, 1, &where, DMIO_WRITE, buffer, pending_done,
				   &pending),
		     0);
	cr_assert_eq(pending.calls, 0);
	cr_assert_eq(world_wait(&world, &pending), 1);
	cr_assert_eq(count_requests(), 0);
}

Test(refusals, region_that_the_device_refuses_fails_alone)
{
	struct dmcore_bdev *read_only;
	struct dmcore_bdev *blocks_4k;
	struct dmio_region where[5];
	unsigned long bits = 0;

	cr_assert_eq(dmcore_bdev_open(world.core, "fault:2048,id=ro", DMCORE_OPEN_READ_ONLY,
				      &read_only),
		     0);
	cr_assert_eq(dmcore_bdev_open(world.core, "fault:2048,block=4096", 0, &blocks_4k), 0);
	where[0] = world_region(&world, 0, SECTORS - 1, 2);
	where[1] = world_region(&world, 1, 0, 1);
	where[2] = (struct dmio_region){ read_only, 0, 1 };
	where[3] = (struct dmio_region){ blocks_4k, 8, 1 };
	where[4] = (struct dmio_region){ blocks_4k, 16, 8 };
	cr_assert_eq(dmio_sync_vm(world.client, 5, where, DMIO_WRITE, buffer, &bits), -EIO);
	cr_assert_eq(bits, 1 | 4 | 8);
	cr_assert_eq(count_requests(), 1);
	cr_assert_eq(fault_count(fault_disk_of(read_only), 0), 0);
	cr_assert_eq(fault_count(fault_disk_of(blocks_4k), 0), 1);
	cr_assert(is_zero(fault_data(fault_disk_of(blocks_4k)), 16 * DMCORE_SECTOR_BYTES));
	cr_assert_eq(dmcore_bdev_close(read_only), 0);
	cr_assert_eq(dmcore_bdev_close(blocks_4k), 0);
}
