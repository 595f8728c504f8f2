/* SPDX-License-Identifier: MIT */
/* The driver "mem": a RAM disk's size, name, content and limits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../support/rig.h"

static struct rig rig;

static void set_up(void)
{
	rig_create(&rig);
}

static void tear_down(void)
{
	rig_destroy(&rig);
}

TestSuite(mem, .init = set_up, .fini = tear_down);

static uint64_t size_of(const char *spec)
{
	uint64_t sectors;

	rig_open(&rig, spec, 0);
	sectors = dmcore_bdev_size_sectors(rig.bdev);
	rig_close(&rig);
	return sectors;
}

Test(mem, takes_bytes_suffixes_and_sectors_as_a_size)
{
	cr_assert_eq(size_of("mem:512"), 1);
	cr_assert_eq(size_of("mem:1536"), 3);
	cr_assert_eq(size_of("mem:7s"), 7);
	cr_assert_eq(size_of("mem:1k"), 2);
	cr_assert_eq(size_of("mem:3K"), 6);
	cr_assert_eq(size_of("mem:2m"), 4096);
	cr_assert_eq(size_of("mem:2M"), 4096);
	cr_assert_eq(size_of("mem:1g"), 2097152);
	cr_assert_eq(size_of("mem:1G"), 2097152);
	cr_assert_eq(size_of("mem:64k,block=4096,name=a"), 128);
}

Test(mem, takes_memory_only_where_it_is_written)
{
	uint64_t last = (UINT64_C(1) << 31) - 1;
	unsigned char sector[DMCORE_SECTOR_BYTES];
	unsigned char copy[DMCORE_SECTOR_BYTES];

	/* Sanitizers and container limits leave no room for so much address space. */
	if (dmcore_bdev_open(rig.core, "mem:1T", 0, &rig.bdev) == -ENOMEM)
		cr_skip("no address space for 1 TiB");
	cr_assert_eq(dmcore_bdev_size_sectors(rig.bdev), last + 1);
	rig_fill(&rig, sector, sizeof(sector));
	cr_assert_eq(rig_write(&rig, last, sector, sizeof(sector)), 0);
	cr_assert_eq(rig_read(&rig, last, copy, sizeof(copy)), 0);
	cr_assert_arr_eq(copy, sector, sizeof(sector));
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, last + 1), 0);
	cr_assert_eq(rig_read(&rig, last, copy, sizeof(copy)), 0);
	memset(sector, 0, sizeof(sector));
	cr_assert_arr_eq(copy, sector, sizeof(sector));
}

Test(mem, refuses_malformed_arguments)
{
	static const char size[] = "SIZE must be digits, and k, M, G, T or s behind them";
	static const char multiple[] = "SIZE must be a multiple of the block, and not 0";
	static const char unknown[] = "the options are name=WORD and block=BYTES";
	static const char value[] = "name=WORD takes 1 to 63 characters, block=BYTES a power of "
				    "two from 512 to 65536";

	rig_open_fails(&rig, "mem:", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:k", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:-1", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem: 1k", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:1kk", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:0x200", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:18446744073709551616", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:184467440737095516160", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:18014398509481984k", 0, -EINVAL, size);
	rig_open_fails(&rig, "mem:0", 0, -EINVAL, multiple);
	rig_open_fails(&rig, "mem:513", 0, -EINVAL, multiple);
	rig_open_fails(&rig, "mem:512,block=4096", 0, -EINVAL, multiple);
	rig_open_fails(&rig, "mem:18446744073709551104", 0, -EINVAL,
		       "SIZE is beyond the largest device");
	rig_open_fails(&rig, "mem:1k,", 0, -EINVAL, unknown);
	rig_open_fails(&rig, "mem:1k,size=2", 0, -EINVAL, unknown);
	rig_open_fails(&rig, "mem:1k,name=", 0, -EINVAL, value);
	rig_open_fails(&rig, "mem:1k,name=0123456789012345678901234567890123456789"
			     "012345678901234567890123",
		       0, -EINVAL, value);
	rig_open_fails(&rig, "mem:64k,block=", 0, -EINVAL, value);
	rig_open_fails(&rig, "mem:64k,block=256", 0, -EINVAL, value);
	rig_open_fails(&rig, "mem:64k,block=1000", 0, -EINVAL, value);
	rig_open_fails(&rig, "mem:1M,block=131072", 0, -EINVAL, value);
}

Test(mem, refuses_what_has_no_room_in_memory)
{
	rig_open_fails(&rig, "mem:8388607T", 0, -ENOMEM,
		       "no room for 9223370937343148032 bytes of memory");
}

Test(mem, shares_a_disk_by_its_name)
{
	struct dmcore_bdev *again;
	struct dmcore_bdev *other;

	rig_open(&rig, "mem:64k,name=a", 0);
	cr_assert_eq(dmcore_bdev_open(rig.core, "mem:64k,name=a", 0, &again), 0);
	cr_assert_eq(again, rig.bdev);
	cr_assert_eq(dmcore_bdev_open(rig.core, "mem:64k,name=b", 0, &other), 0);
	cr_assert_neq(other, rig.bdev);
	cr_assert_eq(dmcore_bdev_close(other), 0);
	cr_assert_eq(dmcore_bdev_close(again), 0);
}

Test(mem, refuses_a_named_disk_with_other_flags)
{
	struct dmcore_bdev *other;

	rig_open(&rig, "mem:64k,name=a", 0);
	cr_assert_eq(dmcore_bdev_open(rig.core, "mem:64k,name=a", DMCORE_OPEN_READ_ONLY, &other),
		     -EBUSY);
	cr_assert_str_eq(dmcore_error_message(), "mem:64k,name=a: open already, with other flags");
	cr_assert_null(other);
}

Test(mem, shares_nothing_without_a_name)
{
	struct dmcore_bdev *other;

	rig_open(&rig, "mem:64k", 0);
	cr_assert_eq(dmcore_bdev_open(rig.core, "mem:64k", 0, &other), 0);
	cr_assert_neq(other, rig.bdev);
	cr_assert_eq(dmcore_bdev_close(other), 0);
}

Test(mem, tells_its_limits)
{
	struct dmcore_limits limits;

	rig_open(&rig, "mem:64k,block=4096", 0);
	limits = rig_limits(&rig);
	cr_assert_eq(limits.logical_block_bytes, 4096);
	cr_assert_eq(limits.physical_block_bytes, 4096);
	cr_assert_eq(limits.memory_align_bytes, 1);
	cr_assert_eq(limits.caps, DMCORE_CAP_FUA | DMCORE_CAP_DISCARD | DMCORE_CAP_DISCARD_ZEROES |
					  DMCORE_CAP_WRITE_ZEROES);
}

Test(mem, refuses_what_does_not_fit_its_block)
{
	unsigned char buffer[4096] = { 0 };

	rig_open(&rig, "mem:64k,block=4096", 0);
	cr_assert_eq(rig_write(&rig, 0, buffer, 512), -EINVAL);
	cr_assert_eq(rig_write(&rig, 1, buffer, 4096), -EINVAL);
	cr_assert_eq(rig_write(&rig, 8, buffer, 4096), 0);
	cr_assert_eq(rig_read(&rig, 128, buffer, 4096), -EIO);
}

Test(mem, reads_back_what_random_requests_left)
{
	enum { BYTES = 256 << 10, SECTORS = BYTES / DMCORE_SECTOR_BYTES };
	unsigned char *model = calloc(1, BYTES);
	unsigned char *buffer = malloc(BYTES);

	rig_open(&rig, "mem:256k", 0);
	for (unsigned int i = 0; i < 5000; i++) {
		uint64_t sector = rig_random(&rig, SECTORS);
		uint64_t count = 1 + rig_random(&rig, SECTORS - sector);
		size_t bytes = count * DMCORE_SECTOR_BYTES;
		unsigned char *range = model + sector * DMCORE_SECTOR_BYTES;

		switch (rig_random(&rig, 5)) {
		case 0:
			rig_fill(&rig, range, bytes);
			cr_assert_eq(rig_write(&rig, sector, range, bytes), 0);
			break;
		case 1:
			memset(range, 0, bytes);
			cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, sector, count), 0);
			break;
		case 2:
			memset(range, 0, bytes);
			cr_assert_eq(rig_range(&rig, DMCORE_OP_WRITE_ZEROES, DMCORE_BIO_FUA, sector,
					       count),
				     0);
			break;
		case 3:
			cr_assert_eq(rig_flush(&rig), 0);
			break;
		default:
			cr_assert_eq(rig_read(&rig, sector, buffer, bytes), 0);
			cr_assert(memcmp(buffer, range, bytes) == 0, "request %u, seed %lu", i,
				  (unsigned long)rig.seed);
			break;
		}
	}
	free(buffer);
	free(model);
}

Test(mem, moves_memory_in_pieces_and_no_more_than_there_is)
{
	unsigned char data[3 * DMCORE_SECTOR_BYTES];
	unsigned char copy[3 * DMCORE_SECTOR_BYTES] = { 0 };
	struct dmio_bvec out[2] = { { data, 700 }, { data + 700, sizeof(data) - 700 } };
	struct dmio_bvec in[2] = { { copy, 1100 }, { copy + 1100, sizeof(copy) - 1100 } };

	rig_open(&rig, "mem:1M", 0);
	rig_fill(&rig, data, sizeof(data));
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_WRITE, 0, 5, 3, out, 2, 0), 0);
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 5, 3, in, 2, 0), 0);
	cr_assert_arr_eq(copy, data, sizeof(data));
	cr_assert_eq(rig_vec(&rig, DMCORE_OP_READ, 0, 5, 4, in, 2, 0), -EFAULT);
}

Test(mem, opened_read_only_refuses_writes)
{
	unsigned char sector[DMCORE_SECTOR_BYTES] = { 1 };

	rig_open(&rig, "mem:1M", DMCORE_OPEN_READ_ONLY);
	cr_assert_eq(rig_write(&rig, 0, sector, sizeof(sector)), -EROFS);
	cr_assert_eq(rig_range(&rig, DMCORE_OP_DISCARD, 0, 0, 1), -EROFS);
	cr_assert_eq(rig_read(&rig, 0, sector, sizeof(sector)), 0);
	cr_assert_eq(sector[0], 0);
	cr_assert_eq(rig_flush(&rig), 0);
}
