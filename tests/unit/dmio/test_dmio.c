/* SPDX-License-Identifier: MIT */
/* The dm-io services: what a caller may count on, one behaviour a test. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/dmio_world.h"

#define SECTORS 2048
#define ARGS "2048"
#define BUFFER_SECTORS 16
#define BUFFER_BYTES (BUFFER_SECTORS * DMCORE_SECTOR_BYTES)

static struct world world;
static unsigned char buffer[BUFFER_BYTES];

static void open_three(void)
{
	world_open(&world, 3, ARGS, 4);
	world_fill(&world, buffer, sizeof(buffer));
}

static void close_all(void)
{
	world_close(&world);
}

TestSuite(dmio, .init = open_three, .fini = close_all);

static unsigned int count_all_disks(unsigned int ops)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < world.num_disks; i++)
		count += fault_count(world.disk[i], ops);
	return count;
}

static bool holds_buffer(unsigned int disk, uint64_t sector)
{
	return memcmp(world_bytes(&world, disk, sector), buffer, sizeof(buffer)) == 0;
}

static bool is_untouched(unsigned int disk)
{
	return is_zero(world_bytes(&world, disk, 0), SECTORS * DMCORE_SECTOR_BYTES);
}

static void fail_on(unsigned int disk, unsigned int ops)
{
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EIO, .ops = ops };

	fault_add_rule(world.disk[disk], &rule);
}

static void hold_on(unsigned int disk, unsigned int ops)
{
	struct fault_rule rule = { .action = FAULT_HOLD, .ops = ops };

	fault_add_rule(world.disk[disk], &rule);
}

/* ---- the kernel's assertions ---------------------------------------------------------------- */

Test(dmio, read_of_several_regions_is_refused_and_never_calls_back)
{
	struct dmio_region where[2] = { world_region(&world, 0, 0, 8),
					world_region(&world, 1, 0, 8) };
	struct pending pending = { 0 };

	cr_assert_eq(dmio_async_vm(world.client, 2, where, DMIO_READ, buffer, pending_done,
				   &pending),
		     -EINVAL);
	world_settle(&world);
	cr_assert_eq(pending.calls, 0);
	cr_assert_eq(count_all_disks(0), 0);
}

Test(dmio, skipped_regions_end_later_with_no_error)
{
	struct dmio_region where[2] = { world_region(&world, 0, 5, 0), { NULL, 7, 0 } };
	struct pending pending = { 0 };

	cr_assert_eq(
		dmio_async_vm(world.client, 2, where, DMIO_WRITE, NULL, pending_done, &pending), 0);
	cr_assert_eq(pending.calls, 0, "called back inside the call");
	cr_assert_eq(world_wait(&world, &pending), 0);
	cr_assert_eq(count_all_disks(0), 0);
}

Test(dmio, middle_device_of_three_fails_alone)
{
	struct dmio_region where[3];
	unsigned long bits = 0;

	for (unsigned int i = 0; i < 3; i++)
		where[i] = world_region(&world, i, 100 * i, BUFFER_SECTORS);
	fail_on(1, FAULT_WRITE);
	cr_assert_eq(dmio_sync_vm(world.client, 3, where, DMIO_WRITE, buffer, &bits), -EIO);
	cr_assert_eq(bits, 2);
	cr_assert(holds_buffer(0, 0));
	cr_assert(is_untouched(1));
	cr_assert(holds_buffer(2, 200));
}

Test(dmio, count_0_with_preflush_sends_one_flush)
{
	struct dmio_region where[2] = { world_region(&world, 0, 0, 0),
					world_region(&world, 2, UINT64_MAX, 0) };
	unsigned long bits = 1;

	cr_assert_eq(dmio_sync_vm(world.client, 2, where, DMIO_WRITE | DMIO_PREFLUSH, NULL, &bits),
		     0);
	cr_assert_eq(bits, 0);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(fault_count(world.disk[i], FAULT_FLUSH), i == 1 ? 0 : 1);
		cr_assert_eq(fault_count(world.disk[i], 0), i == 1 ? 0 : 1);
	}
}

Test(dmio, flush_of_n_legs_tells_which_failed)
{
	struct dmio_region where[3];
	unsigned long bits = 0;

	for (unsigned int i = 0; i < 3; i++)
		where[i] = world_region(&world, i, 0, 0);
	fail_on(0, FAULT_FLUSH);
	fail_on(2, FAULT_FLUSH);
	cr_assert_eq(dmio_sync_vm(world.client, 3, where, DMIO_WRITE | DMIO_PREFLUSH, NULL, &bits),
		     -EIO);
	cr_assert_eq(bits, 5);
}

#define LONG_PAGES 160 /* three pieces */
#define LONG_SECTORS (LONG_PAGES * (DMIO_PAGE_BYTES / DMCORE_SECTOR_BYTES))

Test(dmio, every_piece_of_a_long_write_carries_fua)
{
	struct dmio_region where = world_region(&world, 0, 8, LONG_SECTORS);
	struct pages pages;

	pages_create(&pages, LONG_PAGES, 2);
	cr_assert_eq(dmio_sync(world.client, 1, &where, DMIO_WRITE | DMIO_FUA, pages.list, 0, NULL),
		     0);
	cr_assert_eq(fault_count(world.disk[0], FAULT_WRITE), 3);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(fault_logged(world.disk[0], i).flags, DMCORE_BIO_FUA);
	pages_destroy(&pages);
}

Test(dmio, fua_is_a_flush_after_each_piece_where_the_device_has_none)
{
	struct dmio_region where;
	struct dmcore_bdev *bdev;
	struct fault_disk *disk;
	struct pages pages;
	uint64_t last_write = 0;
	uint64_t last_flush = 0;

	cr_assert_eq(dmcore_bdev_open(world.core, "fault:2048,caps=1,id=nofua", 0, &bdev), 0);
	disk = fault_disk_of(bdev);
	where = (struct dmio_region){ bdev, 8, LONG_SECTORS };
	pages_create(&pages, LONG_PAGES, 2);
	cr_assert_eq(dmio_sync(world.client, 1, &where, DMIO_WRITE | DMIO_FUA, pages.list, 0, NULL),
		     0);
	for (unsigned int i = 0; i < fault_num_logged(disk); i++) {
		struct fault_entry entry = fault_logged(disk, i);

		cr_assert_eq(entry.flags, 0);
		if (entry.op == DMCORE_OP_FLUSH)
			last_flush = entry.begun;
		else
			last_write = entry.ended;
	}
	cr_assert_gt(last_flush, last_write);
	pages_destroy(&pages);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
}

Test(dmio, failed_read_leaves_zeroes_in_the_failed_piece_alone)
{
	struct dmio_region where = world_region(&world, 0, 8, LONG_SECTORS);
	/* One sector of the second of three pieces. */
	struct fault_rule rule = {
		.action = FAULT_FAIL_AFTER, .status = -EIO, .sector = 8 + 700, .count = 1
	};
	unsigned char *disk = world_bytes(&world, 0, 8);
	size_t piece_bytes = (size_t)64 * DMIO_PAGE_BYTES;
	size_t bytes = (size_t)LONG_SECTORS * DMCORE_SECTOR_BYTES;
	unsigned char *read = malloc(bytes);
	unsigned long bits = 0;
	struct pages pages;

	world_fill(&world, disk, bytes);
	pages_create(&pages, LONG_PAGES, 2);
	memset(pages.memory, 0xee, (size_t)LONG_PAGES * 2 * DMIO_PAGE_BYTES);
	fault_add_rule(world.disk[0], &rule);
	cr_assert_eq(dmio_sync(world.client, 1, &where, DMIO_READ, pages.list, 0, &bits), -EIO);
	cr_assert_eq(bits, 1);
	pages_copy_out(&pages, 0, read, bytes);
	cr_assert_arr_eq(read, disk, piece_bytes);
	cr_assert(is_zero(read + piece_bytes, piece_bytes));
	cr_assert_arr_eq(read + 2 * piece_bytes, disk + 2 * piece_bytes, bytes - 2 * piece_bytes);
	free(read);
	pages_destroy(&pages);
}

Test(dmio, failed_read_of_a_buffer_or_vector_leaves_zeroes)
{
	struct dmio_region where = world_region(&world, 0, 8, BUFFER_SECTORS);
	struct dmio_bvec vecs[2] = { { buffer, 700 }, { buffer + 700, BUFFER_BYTES - 700 } };

	fail_on(0, FAULT_READ);
	cr_assert_eq(dmio_sync_vm(world.client, 1, &where, DMIO_READ, buffer, NULL), -EIO);
	cr_assert(is_zero(buffer, sizeof(buffer)));
	memset(buffer, 0xee, sizeof(buffer));
	cr_assert_eq(dmio_sync_bvec(world.client, 1, &where, DMIO_READ, vecs, NULL), -EIO);
	cr_assert(is_zero(buffer, sizeof(buffer)));
}

Test(dmio, discard_without_support_sets_the_bit_and_sends_nothing)
{
	struct dmio_region where[3];
	struct dmcore_bdev *bdev;
	unsigned long bits = 0;

	cr_assert_eq(dmcore_bdev_open(world.core, "fault:2048,caps=0,id=none", 0, &bdev), 0);
	where[0] = world_region(&world, 0, 0, 8);
	where[1] = (struct dmio_region){ bdev, 0, 8 };
	where[2] = world_region(&world, 2, 0, 8);
	cr_assert_eq(dmio_sync_vm(world.client, 3, where, DMIO_DISCARD, NULL, &bits), -EIO);
	cr_assert_eq(bits, 2);
	cr_assert_eq(fault_count(fault_disk_of(bdev), 0), 0);
	cr_assert_eq(count_all_disks(FAULT_DISCARD), 2);
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
}

Test(dmio, write_zeroes_works_with_and_without_support)
{
	struct dmio_region where[2];
	struct dmcore_bdev *bdev;
	unsigned char *plain;
	unsigned char *native;

	cr_assert_eq(dmcore_bdev_open(world.core, "fault:2048,caps=0,id=none", 0, &bdev), 0);
	plain = fault_data(fault_disk_of(bdev));
	native = world_bytes(&world, 0, 0);
	memset(plain, 0xee, SECTORS * DMCORE_SECTOR_BYTES);
	memset(native, 0xee, SECTORS * DMCORE_SECTOR_BYTES);
	where[0] = (struct dmio_region){ bdev, 3, 1000 };
	where[1] = world_region(&world, 0, 3, 1000);
	cr_assert_eq(dmio_sync_vm(world.client, 2, where, DMIO_WRITE_ZEROES, NULL, NULL), 0);
	cr_assert_eq(count_all_disks(0), count_all_disks(FAULT_WRITE_ZEROES));
	for (size_t i = 0; i < SECTORS * DMCORE_SECTOR_BYTES; i++) {
		size_t sector = i / DMCORE_SECTOR_BYTES;

		cr_assert_eq(plain[i], sector >= 3 && sector < 1003 ? 0 : 0xee);
		cr_assert_eq(native[i], plain[i]);
	}
	cr_assert_eq(dmcore_bdev_close(bdev), 0);
}

/* ---- flush before data ---------------------------------------------------------------------- */

Test(dmio, no_data_before_all_flushes_have_ended)
{
	struct dmio_region where[3];
	struct pending pending = { 0 };

	for (unsigned int i = 0; i < 3; i++) {
		where[i] = world_region(&world, i, 0, BUFFER_SECTORS);
		hold_on(i, FAULT_FLUSH);
	}
	cr_assert_eq(dmio_async_vm(world.client, 3, where, DMIO_WRITE | DMIO_PREFLUSH | DMIO_FUA,
				   buffer, pending_done, &pending),
		     0);
	for (unsigned int i = 0; i < 3; i++) {
		world_settle(&world);
		cr_assert_eq(count_all_disks(FAULT_FLUSH), 3, "flushes do not go in parallel");
		cr_assert_eq(count_all_disks(FAULT_WRITE), 0);
		fault_release(world.disk[i], 0, 0);
	}
	cr_assert_eq(world_wait(&world, &pending), 0);
	for (unsigned int i = 0; i < 3; i++) {
		cr_assert_eq(fault_count(world.disk[i], 0), 2);
		cr_assert_eq(fault_logged(world.disk[i], 1).flags, DMCORE_BIO_FUA);
		cr_assert(holds_buffer(i, 0));
	}
}

Test(dmio, failing_flush_keeps_its_region_unwritten)
{
	struct dmio_region where[3];
	unsigned long bits = 0;

	for (unsigned int i = 0; i < 3; i++)
		where[i] = world_region(&world, i, 0, BUFFER_SECTORS);
	fail_on(1, FAULT_FLUSH);
	cr_assert_eq(dmio_sync_vm(world.client, 3, where, DMIO_WRITE | DMIO_PREFLUSH, buffer,
				  &bits),
		     -EIO);
	cr_assert_eq(bits, 2);
	cr_assert(holds_buffer(0, 0));
	cr_assert(is_untouched(1));
	cr_assert_eq(fault_count(world.disk[1], FAULT_WRITE), 0);
	cr_assert(holds_buffer(2, 0));
}

Test(dmio, long_write_with_preflush_flushes_once_for_each_region)
{
	struct dmio_region where[2] = { world_region(&world, 0, 0, LONG_SECTORS),
					world_region(&world, 1, 0, LONG_SECTORS) };
	struct pages pages;

	pages_create(&pages, LONG_PAGES, 2);
	cr_assert_eq(dmio_sync(world.client, 2, where, DMIO_WRITE | DMIO_PREFLUSH, pages.list, 0,
			       NULL),
		     0);
	cr_assert_eq(count_all_disks(FAULT_FLUSH), 2);
	cr_assert_eq(count_all_disks(FAULT_WRITE), 6);
	pages_destroy(&pages);
}

Test(dmio, flush_ignores_range_and_memory)
{
	struct dmio_region where[3];
	unsigned long bits = 7;

	for (unsigned int i = 0; i < 3; i++)
		where[i] = world_region(&world, i, UINT64_MAX, i ? UINT64_MAX : 0);
	cr_assert_eq(dmio_sync(world.client, 3, where, DMIO_FLUSH, NULL, 0, &bits), 0);
	cr_assert_eq(bits, 0);
	cr_assert_eq(count_all_disks(FAULT_FLUSH), 3);
	cr_assert_eq(count_all_disks(0), 3);
}

/* ---- order, and waiting --------------------------------------------------------------------- */

Test(dmio, regions_go_out_by_index_and_pieces_ascending)
{
	struct dmio_region where[3];
	uint64_t last_begun = 0;
	struct pages pages;

	for (unsigned int i = 0; i < 3; i++)
		where[i] = world_region(&world, i, 1, LONG_SECTORS);
	pages_create(&pages, LONG_PAGES, 2);
	cr_assert_eq(dmio_sync(world.client, 3, where, DMIO_WRITE, pages.list, 0, NULL), 0);
	for (unsigned int i = 0; i < 3; i++) {
		uint64_t next_sector = 1;

		for (unsigned int nr = 0; nr < 3; nr++) {
			struct fault_entry entry = fault_logged(world.disk[i], nr);

			cr_assert_gt(entry.begun, last_begun);
			cr_assert_eq(entry.sector, next_sector);
			last_begun = entry.begun;
			next_sector += entry.count;
		}
		cr_assert_eq(next_sector, 1 + LONG_SECTORS);
	}
	pages_destroy(&pages);
}

Test(dmio, regions_are_under_way_together)
{
	struct dmio_region where[3];
	struct pending pending = { 0 };

	for (unsigned int i = 0; i < 3; i++) {
		where[i] = world_region(&world, i, 0, BUFFER_SECTORS);
		hold_on(i, 0);
	}
	cr_assert_eq(dmio_async_vm(world.client, 3, where, DMIO_WRITE, buffer, pending_done,
				   &pending),
		     0);
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(fault_num_held(world.disk[i]), 1);
	/* The array was copied. */
	memset(where, 0xee, sizeof(where));
	for (unsigned int i = 3; i-- > 0;) {
		world_settle(&world);
		cr_assert_eq(pending.calls, 0);
		fault_release_all(world.disk[i]);
	}
	cr_assert_eq(world_wait(&world, &pending), 0);
}

struct nested {
	int sync_ret;
	unsigned int calls;
};

static void call_sync(unsigned long error, void *context)
{
	struct dmio_region where = world_region(&world, 0, 0, 8);
	struct nested *nested = context;
	unsigned long bits = 1;

	cr_assert_eq(error, 0);
	nested->calls++;
	nested->sync_ret = dmio_sync_vm(world.client, 1, &where, DMIO_WRITE, buffer, &bits);
	cr_assert_eq(bits, 0);
}

Test(dmio, sync_in_a_callback_is_refused)
{
	struct dmio_region where = world_region(&world, 1, 0, 8);
	struct nested nested = { 0 };

	cr_assert_eq(dmio_async_vm(world.client, 1, &where, DMIO_WRITE, buffer, call_sync, &nested),
		     0);
	world_settle(&world);
	cr_assert_eq(nested.calls, 1);
	cr_assert_eq(nested.sync_ret, -EDEADLK);
	cr_assert_eq(fault_count(world.disk[0], 0), 0);
}

Test(dmio, sync_without_error_bits_tells_by_its_result)
{
	struct dmio_region where = world_region(&world, 0, 0, 8);

	cr_assert_eq(dmio_sync_vm(world.client, 1, &where, DMIO_WRITE, buffer, NULL), 0);
	fail_on(0, 0);
	cr_assert_eq(dmio_sync_vm(world.client, 1, &where, DMIO_WRITE, buffer, NULL), -EIO);
}
