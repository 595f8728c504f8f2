/* SPDX-License-Identifier: MIT */
/* dm-io on mapped devices, which send a request on, rewrite it and split it. */
#include <errno.h>
#include <string.h>

#include <sys/mman.h>

#include <criterion/criterion.h>

#include "../../support/dmio_world.h"
#include "../../support/fixture.h"

#define HALF_SECTORS 256
#define SECTORS (2 * HALF_SECTORS)
#define HALF_BYTES (HALF_SECTORS * DMCORE_SECTOR_BYTES)
#define BYTES (SECTORS * DMCORE_SECTOR_BYTES)

static struct dmio_client *client;
static struct fault_disk *first;
static struct fault_disk *second;
static unsigned char data[BYTES];
static unsigned char memory[BYTES];

static void open_disks(void)
{
	fixture_open();
	first = fixture_disk("fault:512,id=a");
	second = fixture_disk("fault:512,id=b");
	cr_assert_eq(dmio_client_create(fixture.queue, 8, &client), 0);
	for (size_t i = 0; i < BYTES; i++)
		data[i] = (unsigned char)(i * 7 + i / DMCORE_SECTOR_BYTES + 1);
	memset(memory, 0xee, BYTES);
}

static void close_disks(void)
{
	cr_assert_eq(dmio_client_destroy(client), 0);
	fixture_close();
}

TestSuite(mapped, .init = open_disks, .fini = close_disks);

static struct dmio_region map_whole(const char *table)
{
	return (struct dmio_region){ fixture_mapped("d", table), 0, SECTORS };
}

/* Sector 100 of the first disk, then sector 0 of the second. */
static struct dmio_region map_both(void)
{
	return map_whole("0 256 linear fault:512,id=a 100\n"
			 "256 256 linear fault:512,id=b 0\n");
}

Test(mapped, region_across_a_border_is_split_and_comes_back_whole)
{
	struct dmio_region where = map_both();

	cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_WRITE, data, NULL), 0);
	cr_assert_arr_eq(fault_data(first) + 100 * DMCORE_SECTOR_BYTES, data, HALF_BYTES);
	cr_assert_arr_eq(fault_data(second), data + HALF_BYTES, HALF_BYTES);
	cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_READ, memory, NULL), 0);
	cr_assert_arr_eq(memory, data, BYTES);
}

Test(mapped, failed_read_across_a_border_leaves_zeroes)
{
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EIO, .ops = FAULT_READ };
	struct dmio_region where = map_both();
	struct dmio_bvec vecs[3] = { { memory, 1000 },
				     { memory + 1000, HALF_BYTES },
				     { memory + 1000 + HALF_BYTES, HALF_BYTES - 1000 } };

	memcpy(fault_data(first) + 100 * DMCORE_SECTOR_BYTES, data, HALF_BYTES);
	fault_add_rule(second, &rule);
	cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_READ, memory, NULL), -EIO);
	cr_assert(is_zero(memory, BYTES));
	memset(memory, 0xee, BYTES);
	cr_assert_eq(dmio_sync_bvec(client, 1, &where, DMIO_READ, vecs, NULL), -EIO);
	cr_assert(is_zero(memory, BYTES));
}

/* The kernel lost the error of one part to the success of another once, in 4.16-rc1. */
Test(mapped, success_of_one_part_does_not_hide_failure_of_another)
{
	static const char *const tables[2] = { "0 256 zero\n256 256 error\n",
					       "0 256 error\n256 256 zero\n" };

	for (unsigned int i = 0; i < 2; i++) {
		struct dmio_region where = map_whole(tables[i]);
		unsigned long bits = 0;

		memset(memory, 0xee, BYTES);
		cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_READ, memory, &bits), -EIO);
		cr_assert_eq(bits, 1);
		cr_assert(is_zero(memory, BYTES));
		cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_WRITE, memory, NULL), -EIO);
		cr_assert_eq(dmcore_device_remove(dmcore_device_find(fixture.core, "d")), 0);
	}
}

Test(mapped, flush_and_preflush_reach_every_disk)
{
	struct dmio_region where = map_both();

	cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_FLUSH, NULL, NULL), 0);
	cr_assert_eq(fault_count(first, FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(second, FAULT_FLUSH), 1);
	where.count = 8;
	cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_WRITE | DMIO_PREFLUSH | DMIO_FUA, data,
				  NULL),
		     0);
	cr_assert_eq(fault_count(first, FAULT_FLUSH), 2);
	cr_assert_eq(fault_count(second, FAULT_FLUSH), 2);
	cr_assert_eq(fault_logged(first, 2).flags, DMCORE_BIO_FUA);
}

Test(mapped, regions_of_a_device_and_of_what_is_below_it_fail_apart)
{
	struct fault_rule rule = { .status = -EIO, .sector = 100, .count = 1 };
	struct dmio_region where[3];
	unsigned long bits = 0;

	where[0] = map_both();
	where[1] = (struct dmio_region){ fixture_bdev("fault:512,id=b"), 0, SECTORS };
	where[2] = (struct dmio_region){ where[0].bdev, 1, SECTORS };
	fault_add_rule(first, &rule);
	cr_assert_eq(dmio_sync_vm(client, 2, where, DMIO_WRITE, data, &bits), -EIO);
	cr_assert_eq(bits, 1);
	cr_assert_eq(dmio_sync_vm(client, 1, &where[2], DMIO_WRITE, data, &bits), -EIO,
		     "behind the end");
}

#define HUGE_SECTORS ((UINT64_C(9) << 30) / 2 / DMCORE_SECTOR_BYTES) /* 4.5 GiB */

Test(mapped, buffer_of_more_than_4_gib_is_written_from_the_right_place)
{
	size_t bytes = (HUGE_SECTORS + 8) * DMCORE_SECTOR_BYTES;
	struct dmio_region where = { NULL, 0, HUGE_SECTORS + 8 };
	unsigned char *huge;

	/* Nothing but its end is ever touched. */
	huge = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (huge == MAP_FAILED)
		cr_skip("no address space");
	memcpy(huge + HUGE_SECTORS * DMCORE_SECTOR_BYTES, data, 8 * DMCORE_SECTOR_BYTES);
	where.bdev = fixture_mapped("d", "0 9437184 zero\n"
					 "9437184 8 linear fault:512,id=a 0\n");
	cr_assert_eq(dmio_sync_vm(client, 1, &where, DMIO_WRITE, huge, NULL), 0);
	cr_assert_arr_eq(fault_data(first), data, 8 * DMCORE_SECTOR_BYTES);
	munmap(huge, bytes);
}
