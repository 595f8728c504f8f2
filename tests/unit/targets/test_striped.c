/* SPDX-License-Identifier: MIT */
/* The striped target. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>
#include <dmcore/driver.h>

#include "base/compiler.h"
#include "support/fixture.h"

#define STRIPES_MAX 8
#define DISK_SECTORS 512
#define THREE_DISKS "fault:64,id=a 0 fault:64,id=b 0 fault:64,id=c 0"

TestSuite(striped, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[STRIPES_MAX * DISK_SECTORS * DMCORE_SECTOR_BYTES];

static int run(struct dmcore_bdev *bdev, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	return fixture_run(&(struct fixture_io){
		.bdev = bdev, .op = op, .sector = sector, .count = count, .buffer = buffer });
}

/* ---- which sector lies where ---- */

struct place {
	uint64_t stripe;
	uint64_t sector; /* within the stripe */
};

/* The definition, in the plainest form. */
static struct place place_of(uint64_t offset, uint64_t stripes, uint64_t chunk)
{
	uint64_t number = offset / chunk;

	return (struct place){ number % stripes, number / stripes * chunk + offset % chunk };
}

/* Appends "<stripes> <chunk> {fault:512,id=K K}" to a table line. */
static void print_table(char *text, size_t bytes, uint64_t length, unsigned int stripes,
			unsigned int chunk)
{
	int at = snprintf(text, bytes, "0 5 zero\n5 %llu striped %u %u", (unsigned long long)length,
			  stripes, chunk);

	for (unsigned int i = 0; i < stripes; i++)
		at += snprintf(text + at, bytes - (size_t)at, " fault:%d,id=%u %u", DISK_SECTORS, i,
			       i);
}

static struct fault_disk *disk_of(unsigned int stripe)
{
	char spec[32];

	snprintf(spec, sizeof(spec), "fault:%d,id=%u", DISK_SECTORS, stripe);
	return fixture_disk(spec);
}

static void expect_sector(const unsigned char *data, uint64_t number)
{
	uint64_t found;

	memcpy(&found, data, sizeof(found));
	cr_assert_eq(found, number, "sector %llu stands in place of %llu",
		     (unsigned long long)found, (unsigned long long)number);
}

/* Writes each sector's number to it, and looks for it on the disks and through the target. */
static void check_layout(unsigned int stripes, unsigned int chunk)
{
	uint64_t length = (uint64_t)stripes * chunk * 5;
	const unsigned char *data[STRIPES_MAX];
	struct dmcore_device *device;
	char text[512];

	print_table(text, sizeof(text), length, stripes, chunk);
	device = fixture_device("d", text);
	for (unsigned int i = 0; i < stripes; i++)
		data[i] = fault_data(disk_of(i));
	for (uint64_t i = 0; i < length; i++)
		memcpy(buffer + i * DMCORE_SECTOR_BYTES, &i, sizeof(i));
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_WRITE, 5, length), 0);
	for (uint64_t i = 0; i < length; i++) {
		struct place place = place_of(i, stripes, chunk);

		expect_sector(data[place.stripe] +
				      (place.sector + place.stripe) * DMCORE_SECTOR_BYTES,
			      i);
	}
	memset(buffer, 0xff, sizeof(buffer));
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 5, length), 0);
	for (uint64_t i = 0; i < length; i++)
		expect_sector(buffer + i * DMCORE_SECTOR_BYTES, i);
	cr_assert_eq(dmcore_device_remove(device), 0);
	while (fixture.num_bdevs > 0)
		cr_assert_eq(dmcore_bdev_close(fixture.bdevs[--fixture.num_bdevs]), 0);
}

Test(striped, deals_chunks_out_in_turn_whatever_the_numbers)
{
	static const unsigned int chunks[] = { 1, 2, 3, 7, 8, 12, 16, 64, 100 };

	for (unsigned int stripes = 1; stripes <= STRIPES_MAX; stripes++) {
		for (size_t i = 0; i < DMCORE__ARRAY_SIZE(chunks); i++)
			check_layout(stripes, chunks[i]);
	}
}

/* A driver of huge disks that only notes where the last request went. "wide:N" */
static struct {
	char disk;
	uint64_t sector;
	uint64_t count;
} last;

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
	last.disk = dmcore_bdev_name(bdev)[strlen("wide:")];
	last.sector = bio->sector;
	last.count = bio->count;
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

static void check_wide(struct dmcore_bdev *bdev, uint64_t offset, uint64_t stripes, uint64_t chunk)
{
	struct place place = place_of(offset, stripes, chunk);

	cr_assert_eq(run(bdev, DMCORE_OP_READ, offset, 1), 0);
	cr_assert_eq(last.disk, 'a' + (char)place.stripe, "%llu / %llu, offset %llu",
		     (unsigned long long)chunk, (unsigned long long)stripes,
		     (unsigned long long)offset);
	cr_assert_eq(last.sector, place.sector);
}

/* The borders of the chunks around rows spread over the largest table there can be. */
static void check_wide_layout(unsigned int stripes, uint64_t chunk)
{
	uint64_t width = stripes * chunk;
	uint64_t length = DMCORE_DEVICE_SECTORS_MAX / width * width;
	struct dmcore_device *device;
	char text[256];
	int at = snprintf(text, sizeof(text), "0 %llu striped %u %llu", (unsigned long long)length,
			  stripes, (unsigned long long)chunk);

	for (unsigned int i = 0; i < stripes; i++)
		at += snprintf(text + at, sizeof(text) - (size_t)at, " wide:%c 0", 'a' + (char)i);
	device = fixture_device("d", text);
	for (unsigned int shift = 0; shift < 54; shift++) {
		uint64_t offset = length >> shift;

		for (uint64_t i = 1; i <= 3 && offset >= i; i++) {
			uint64_t border = offset / chunk * chunk;

			check_wide(dmcore_device_bdev(device), offset - i, stripes, chunk);
			if (border >= i)
				check_wide(dmcore_device_bdev(device), border - i, stripes, chunk);
			if (border + i < length)
				check_wide(dmcore_device_bdev(device), border + i, stripes, chunk);
		}
	}
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(striped, divides_offsets_up_to_the_largest_right)
{
	static const uint64_t chunks[] = { 1,	      3,     5,	    8,	      1000,
					   65535,     65536, 65537, 16777213, UINT64_C(1) << 31,
					   UINT32_MAX };

	cr_assert_eq(dmcore_driver_register(fixture.core, &wide_driver), 0);
	for (unsigned int stripes = 1; stripes <= STRIPES_MAX; stripes++) {
		for (size_t i = 0; i < DMCORE__ARRAY_SIZE(chunks); i++)
			check_wide_layout(stripes, chunks[i]);
	}
}

Test(striped, splits_at_chunks_counted_from_its_own_start)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 5 zero\n5 48 striped 3 8 " THREE_DISKS);
	struct fault_disk *a = fixture_disk("fault:64,id=a");

	cr_assert_eq(run(bdev, DMCORE_OP_READ, 5, 8), 0);
	cr_assert_eq(fault_num_logged(a), 1);
	cr_assert_eq(fault_logged(a, 0).sector, 0);
	cr_assert_eq(fault_logged(a, 0).count, 8);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 12, 2), 0);
	cr_assert_eq(fault_logged(a, 1).sector, 7);
	cr_assert_eq(fault_logged(a, 1).count, 1);
}

/* ---- discard and write zeroes ---- */

static void expect_piece(struct fault_disk *disk, enum dmcore_op op, uint64_t begin, uint64_t end)
{
	cr_assert_eq(fault_num_logged(disk), 1);
	cr_assert_eq(fault_logged(disk, 0).op, op);
	cr_assert_eq(fault_logged(disk, 0).sector, begin);
	cr_assert_eq(fault_logged(disk, 0).count, end - begin);
}

static void check_pieces(enum dmcore_op op)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 48 striped 3 8 " THREE_DISKS);
	struct fault_disk *a = fixture_disk("fault:64,id=a");
	struct fault_disk *b = fixture_disk("fault:64,id=b");
	struct fault_disk *c = fixture_disk("fault:64,id=c");

	cr_assert_eq(run(bdev, op, 12, 16), 0);
	expect_piece(a, op, 8, 12);
	expect_piece(b, op, 4, 8);
	expect_piece(c, op, 0, 8);
	fault_clear_log(a);
	cr_assert_eq(run(bdev, op, 1, 2), 0);
	expect_piece(a, op, 1, 3);
	cr_assert_eq(fault_num_logged(b), 1, "an empty piece was sent");
}

Test(striped, discards_one_piece_of_each_stripe_and_no_empty_one)
{
	check_pieces(DMCORE_OP_DISCARD);
}

Test(striped, writes_zeroes_to_one_piece_of_each_stripe)
{
	check_pieces(DMCORE_OP_WRITE_ZEROES);
}

/* That [begin, end) of a table on `stripes` disks is zeroed, and nothing else. */
static void check_zeroes(struct dmcore_bdev *bdev, uint64_t length, uint64_t begin, uint64_t end)
{
	memset(buffer, 0xff, length * DMCORE_SECTOR_BYTES);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE, 0, length), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_WRITE_ZEROES, begin, end - begin), 0);
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, length), 0);
	for (uint64_t i = 0; i < length; i++) {
		unsigned char byte = i >= begin && i < end ? 0 : 0xff;

		cr_assert_eq(buffer[i * DMCORE_SECTOR_BYTES], byte, "[%llu,%llu) and sector %llu",
			     (unsigned long long)begin, (unsigned long long)end,
			     (unsigned long long)i);
	}
}

Test(striped, zeroes_any_range_exactly)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 27 striped 3 3 " THREE_DISKS);

	for (uint64_t begin = 0; begin < 27; begin++) {
		for (uint64_t end = begin + 1; end <= 27; end++)
			check_zeroes(bdev, 27, begin, end);
	}
}

Test(striped, flushes_each_device_once)
{
	struct dmcore_bdev *bdev = fixture_mapped("d", "0 48 striped 3 8 fault:64,id=a 0 "
						       "fault:64,id=b 0 fault:64,id=a 16");

	cr_assert_eq(run(bdev, DMCORE_OP_FLUSH, 0, 0), 0);
	cr_assert_eq(fault_count(fixture_disk("fault:64,id=a"), FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(fixture_disk("fault:64,id=b"), FAULT_FLUSH), 1);
}

/* ---- health ---- */

#define SHARED_TABLE "0 48 striped 3 8 fault:64,id=a 0 fault:64,id=b 0 fault:64,id=a 16"
#define SHARED_STATUS "0 48 striped 3 fault:64,id=a fault:64,id=b fault:64,id=a 1 "

/* Fails one request to the first stripe in this way, and returns the STATUS line. */
static const char *status_after(int error, enum dmcore_op op, unsigned int flags)
{
	struct dmcore_device *device = fixture_device("d", SHARED_TABLE);
	struct fault_rule rule = { .status = error };
	struct fixture_io io = { .bdev = dmcore_device_bdev(device),
				 .op = op,
				 .flags = flags,
				 .count = 1,
				 .buffer = buffer };

	fault_add_rule(fixture_disk("fault:64,id=a"), &rule);
	cr_assert_eq(fixture_run(&io), error);
	return fixture_device_text(device, DMCORE_TEXT_STATUS);
}

Test(striped, error_shows_at_every_stripe_on_the_device)
{
	cr_assert_str_eq(status_after(-EIO, DMCORE_OP_READ, 0), SHARED_STATUS "DAD\n");
}

Test(striped, failed_read_ahead_is_no_error)
{
	cr_assert_str_eq(status_after(-EIO, DMCORE_OP_READ, DMCORE_BIO_RAHEAD),
			 SHARED_STATUS "AAA\n");
}

Test(striped, what_is_not_supported_is_no_error)
{
	cr_assert_str_eq(status_after(-EOPNOTSUPP, DMCORE_OP_DISCARD, 0), SHARED_STATUS "AAA\n");
}

Test(striped, error_below_another_device_counts_against_the_stripe)
{
	struct dmcore_device *device;

	fixture_device("low", "0 64 linear fault:64,id=a 0");
	device = fixture_device("d", "0 16 striped 2 8 low 0 fault:64,id=b 0");
	fault_add_rule(fixture_disk("fault:64,id=a"), &(struct fault_rule){ .status = -EIO });
	cr_assert_eq(run(dmcore_device_bdev(device), DMCORE_OP_READ, 0, 16), -EIO);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 16 striped 2 low fault:64,id=b 1 DA\n");
}

Test(striped, first_14_errors_of_a_stripe_raise_an_event_each)
{
	struct dmcore_device *device = fixture_device("d", SHARED_TABLE);
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);

	fault_add_rule(fixture_disk("fault:64,id=a"), &(struct fault_rule){ .status = -EIO });
	for (unsigned int i = 1; i <= 16; i++) {
		cr_assert_eq(run(bdev, DMCORE_OP_READ, 0, 1), -EIO);
		cr_assert_eq(dmcore_device_event_nr(device), i <= 14 ? i : 14);
	}
	/* Another device has errors of its own to tell of. */
	fault_add_rule(fixture_disk("fault:64,id=b"), &(struct fault_rule){ .status = -EIO });
	cr_assert_eq(run(bdev, DMCORE_OP_READ, 8, 1), -EIO);
	cr_assert_eq(dmcore_device_event_nr(device), 15);
}

/* ---- table line ---- */

static void expect_refused(const char *params, int error, const char *message)
{
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 48 striped %s", params);
	snprintf(whole, sizeof(whole), "table line 1: striped: %s", message);
	fixture_expect_refused(text, error, whole);
}

Test(striped, names_what_is_wrong_in_the_kernels_order)
{
	expect_refused("", -EINVAL, "Not enough arguments");
	expect_refused("x", -EINVAL, "Not enough arguments");
	expect_refused("x x", -EINVAL, "Invalid stripe count");
	expect_refused("0 8", -EINVAL, "Invalid stripe count");
	expect_refused("5 x", -EINVAL, "Invalid chunk_size");
	expect_refused("5 0", -EINVAL, "Invalid chunk_size");
	expect_refused("5 7", -EINVAL, "Target length not divisible by number of stripes");
	expect_refused("3 7", -EINVAL, "Target length not divisible by chunk size");
	expect_refused("3 8", -EINVAL, "Not enough destinations specified");
	expect_refused("3 8 a 0 b 0 c 0 d 0", -EINVAL, "Not enough destinations specified");
	expect_refused("3 8 a x b x c x", -EINVAL, "Couldn't parse stripe destination");
	expect_refused("3 8 mem:64s 0 mem:64s x nosuch 0", -EINVAL,
		       "Couldn't parse stripe destination");
	expect_refused("3 8 mem:64s 0 mem:64s 0 /nonexistent 0", -ENOENT,
		       "Couldn't parse stripe destination: /nonexistent: "
		       "No such file or directory (ENOENT)");
}

Test(striped, counts_are_bounded_by_32_bits)
{
	expect_refused("4294967297 8 mem:64s 0", -EINVAL, "Invalid stripe count");
	expect_refused("1 4294967296 mem:64s 0", -EINVAL, "Invalid chunk_size");
	expect_refused("1 4294967295 mem:64s 0", -EINVAL,
		       "Target length not divisible by chunk size");
	expect_refused("4294967295 1 mem:64s 0", -EINVAL,
		       "Target length not divisible by number of stripes");
}

/* D-001 and D-005 in docs/conformance.md: the kernel takes both. */
Test(striped, refuses_what_is_no_plain_number)
{
	expect_refused("+2 8 mem:64s 0 mem:64s 0", -EINVAL, "Invalid stripe count");
	expect_refused("2 +8 mem:64s 0 mem:64s 0", -EINVAL, "Invalid chunk_size");
	expect_refused("2 8 mem:64s 18446744073709551616 mem:64s 0", -EINVAL,
		       "Couldn't parse stripe destination");
}

Test(striped, prints_a_table_line_that_it_takes)
{
	static const char text[] = "0 48 striped 3 8 mem:64s,name=a 0 mem:64s,name=b 7 "
				   "mem:64s,name=a 48\n";
	struct dmcore_device *device = fixture_device("d", text);

	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), text);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 48 striped 3 mem:64s,name=a mem:64s,name=b mem:64s,name=a 1 AAA\n");
}

/* ---- limits ---- */

static struct dmcore_limits limits_of(const char *text)
{
	struct dmcore_limits limits = { .struct_size = sizeof(limits) };
	struct dmcore_device *device = fixture_device("d", text);

	cr_assert_eq(dmcore_bdev_limits(dmcore_device_bdev(device), &limits), 0);
	cr_assert_eq(dmcore_device_remove(device), 0);
	return limits;
}

Test(striped, hints_at_its_chunk_and_its_width)
{
	struct dmcore_limits limits = limits_of("0 48 striped 3 8 " THREE_DISKS);

	cr_assert_eq(limits.io_min_bytes, 4096);
	cr_assert_eq(limits.io_opt_bytes, 12288);
	cr_assert_eq(limits.chunk_sectors, 8);
	limits = limits_of("0 48 striped 3 8 " THREE_DISKS
			   "\n48 64 striped 2 16 fault:64,id=a 0 fault:64,id=b 0");
	cr_assert_eq(limits.io_min_bytes, 8192);
	cr_assert_eq(limits.io_opt_bytes, 49152);
	cr_assert_eq(limits.chunk_sectors, 8);
}

Test(striped, hints_of_small_chunks_give_way_to_large_blocks)
{
	struct dmcore_limits limits =
		limits_of("0 24 striped 3 4 mem:64s,name=a,block=4096 0 "
			  "mem:64s,name=a,block=4096 8 mem:64s,name=a,block=4096 16");

	cr_assert_eq(limits.logical_block_bytes, 4096);
	cr_assert_eq(limits.io_min_bytes, 4096);
	cr_assert_eq(limits.io_opt_bytes, 0);
	cr_assert_eq(limits.chunk_sectors, 0);
}

Test(striped, huge_chunks_have_no_hint)
{
	struct dmcore_limits limits = limits_of("0 8388608 striped 2 4194304 mem:8G,name=a 0 "
						"mem:8G,name=a 4194304");

	cr_assert_eq(limits.io_min_bytes, 512);
	cr_assert_eq(limits.io_opt_bytes, 0);
	cr_assert_eq(limits.chunk_sectors, 4194304);
}
