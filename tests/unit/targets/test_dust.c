/* SPDX-License-Identifier: MIT */
/* The dust target: its table line, messages, and what requests meet. See test_dust_list.c too. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/fixture.h"

#define DISK "fault:64,id=a"

TestSuite(dust, .init = fixture_open, .fini = fixture_close);

static unsigned char buffer[64 * DMCORE_SECTOR_BYTES];
static struct dmcore_device *device;
static char answer[1024];

static void make(const char *text)
{
	device = fixture_device("d", text);
}

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

static void expect_error(const char *text, const char *message)
{
	char whole[256];

	snprintf(whole, sizeof(whole), "d: dust: %s", message);
	cr_assert_eq(dmcore_device_message(device, 0, text, answer, sizeof(answer)), -EINVAL, "%s",
		     text);
	cr_assert_str_eq(dmcore_error_message(), whole);
}

static void expect_count(unsigned int count)
{
	char text[64];

	snprintf(text, sizeof(text), "countbadblocks: %u badblock(s) found", count);
	expect_answer("countbadblocks", text);
}

/* ---- table line ---- */

static void expect_refused(const char *params, int error, const char *message)
{
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 48 dust %s", params);
	snprintf(whole, sizeof(whole), "table line 1: dust: %s", message);
	fixture_expect_refused(text, error, whole);
}

Test(dust, names_what_is_wrong_in_the_kernels_order)
{
	expect_refused("", -EINVAL, "Invalid argument count");
	expect_refused("x x", -EINVAL, "Invalid argument count");
	expect_refused("x x x x", -EINVAL, "Invalid argument count");
	expect_refused("/nonexistent x x", -EINVAL, "Invalid block size parameter");
	expect_refused("/nonexistent x 4294967296", -EINVAL, "Invalid block size parameter");
	expect_refused("/nonexistent x 0", -EINVAL, "Block size must be at least 512");
	expect_refused("/nonexistent x 511", -EINVAL, "Block size must be at least 512");
	expect_refused("/nonexistent x 513", -EINVAL, "Block size must be a power of 2");
	expect_refused("/nonexistent x 32768", -EINVAL, "Block size is too large");
	expect_refused("/nonexistent x 512", -EINVAL, "Invalid device offset sector");
	expect_refused("/nonexistent 0 16384", -ENOENT,
		       "Device lookup failed: /nonexistent: No such file or directory (ENOENT)");
}

Test(dust, blocks_are_no_larger_than_the_table_or_a_gibibyte)
{
	dmcore_table_destroy(fixture_table("0 8 dust " DISK " 0 4096"));
	fixture_expect_refused("0 7 dust " DISK " 0 4096", -EINVAL,
			       "table line 1: dust: Block size is too large");
	dmcore_table_destroy(fixture_table("0 4194304 dust mem:2G 0 1073741824"));
	fixture_expect_refused("0 4194304 dust mem:2G 0 2147483648", -EINVAL,
			       "table line 1: dust: Block size is too large");
}

/* D-001 and D-061 in docs/conformance.md: the kernel takes them. */
Test(dust, refuses_what_is_no_plain_number)
{
	expect_refused(DISK " 18446744073709551616 512", -EINVAL, "Invalid device offset sector");
	expect_refused(DISK " 0 +512", -EINVAL, "Invalid block size parameter");
}

Test(dust, prints_a_table_line_that_it_takes)
{
	static const char text[] = "0 48 dust " DISK " 16 2048\n";

	make(text);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), text);
	tell("addbadblock 5");
	tell("enable");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_TABLE), text);
}

Test(dust, status_tells_its_two_switches)
{
	make("0 64 dust " DISK " 0 512");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 64 dust " DISK " bypass verbose\n");
	tell("enable");
	tell("quiet");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 64 dust " DISK " fail_read_on_bad_block quiet\n");
	tell("disable");
	tell("quiet");
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 64 dust " DISK " bypass verbose\n");
}

/* ---- messages ---- */

Test(dust, answers_about_its_list)
{
	make("0 64 dust " DISK " 0 512");
	expect_count(0);
	expect_answer("queryblock 60", "dust_query_block: block 60 not found in badblocklist");
	expect_answer("listbadblocks", "No blocks in badblocklist");
	expect_answer("clearbadblocks", "dust_clear_badblocks: no badblocks found");
	tell("addbadblock 60");
	tell("addbadblock 0");
	tell("addbadblock 7 255");
	expect_count(3);
	expect_answer("queryblock 60", "dust_query_block: block 60 found in badblocklist");
	expect_answer("listbadblocks", "0\n7\n60\n");
	tell("removebadblock 7");
	expect_answer("listbadblocks", "0\n60\n");
	expect_count(2);
	expect_answer("clearbadblocks", "dust_clear_badblocks: badblocks cleared");
	expect_answer("clearbadblocks", "dust_clear_badblocks: no badblocks found");
	expect_answer("queryblock 60", "dust_query_block: block 60 not found in badblocklist");
	expect_count(0);
}

Test(dust, names_of_messages_have_no_case)
{
	make("0 64 dust " DISK " 0 512");
	tell("AddBadBlock 3");
	tell("ENABLE");
	expect_answer("ListBadBlocks", "3\n");
	expect_read(3, 1, -EIO);
}

Test(dust, block_is_listed_once)
{
	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 3 1");
	expect_error("addbadblock 3", "block already in badblocklist");
	expect_error("addbadblock 3 2", "block already in badblocklist");
	expect_count(1);
	tell("removebadblock 3");
	expect_error("removebadblock 3", "block not found in badblocklist");
	expect_count(0);
}

Test(dust, refuses_malformed_messages)
{
	static const char *const names[] = { "addbadblock", "removebadblock", "queryblock" };
	static const char *const words[] = {
		"x", "-1", "+1", "1x", "0x1", "\\ 1", "18446744073709551616"
	};
	static const char *const plain[] = { "enable",	       "disable",	 "quiet",
					     "countbadblocks", "clearbadblocks", "listbadblocks" };
	char text[64];

	make("0 64 dust " DISK " 0 512");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		expect_error(names[i], "requires an additional argument");
		for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
			snprintf(text, sizeof(text), "%s %s", names[i], words[k]);
			expect_error(text, "Invalid block number");
		}
		snprintf(text, sizeof(text), "%s 1 2 3", names[i]);
		expect_error(text, "Invalid argument count");
	}
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		snprintf(text, sizeof(text), "%s 1", plain[i]);
		expect_error(text, "Invalid argument count");
	}
	expect_error("removebadblock 1 2", "Invalid argument count");
	expect_error("queryblock 1 2", "Invalid argument count");
	expect_error("addbadblock 1 x", "Invalid write fail count");
	expect_error("addbadblock 1 256", "Invalid write fail count");
	expect_error("addbadblock 1 -1", "Invalid write fail count");
	expect_error("addbadblocks 1", "unrecognized message received");
	expect_count(0);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 64 dust " DISK " bypass verbose\n");
}

/* D-060 in docs/conformance.md: the kernel takes one more. */
Test(dust, blocks_lie_on_the_device)
{
	make("0 16 dust " DISK " 0 4096");
	tell("addbadblock 7");
	expect_error("addbadblock 8", "selected block value out of range");
	expect_error("removebadblock 8", "selected block value out of range");
	expect_error("queryblock 18446744073709551615", "selected block value out of range");
}

/* So that what is cut off at the end of a device can be bad too. */
Test(dust, last_block_may_be_cut_by_the_end_of_the_device)
{
	make("0 61 dust fault:61,id=b 0 4096");
	tell("addbadblock 7");
	expect_error("addbadblock 8", "selected block value out of range");
	tell("enable");
	expect_read(60, 1, -EIO);
	expect_read(48, 8, 0);
}

/* ---- reads and writes ---- */

Test(dust, bad_blocks_fail_reads_once_enabled)
{
	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 10");
	expect_read(10, 1, 0);
	tell("enable");
	expect_read(10, 1, -EIO);
	expect_read(9, 1, 0);
	expect_read(11, 1, 0);
	expect_read(0, 64, -EIO);
	tell("disable");
	expect_read(0, 64, 0);
	tell("enable");
	tell("removebadblock 10");
	expect_read(0, 64, 0);
}

Test(dust, block_that_fails_never_reaches_the_device)
{
	struct fault_disk *disk = fixture_disk(DISK);

	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 10 1");
	tell("enable");
	expect_read(10, 1, -EIO);
	expect_write(10, 1, -EIO);
	cr_assert_eq(fault_count(disk, 0), 0);
}

Test(dust, write_heals_its_blocks_and_no_others)
{
	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 9");
	tell("addbadblock 10");
	tell("addbadblock 12");
	tell("addbadblock 13");
	tell("enable");
	memset(buffer, 0x5a, sizeof(buffer));
	expect_write(10, 3, 0);
	expect_answer("listbadblocks", "9\n13\n");
	memset(buffer, 0, sizeof(buffer));
	expect_read(10, 3, 0);
	for (size_t i = 0; i < 3 * (size_t)DMCORE_SECTOR_BYTES; i++)
		cr_assert_eq(buffer[i], 0x5a);
	expect_read(9, 1, -EIO);
	expect_read(13, 1, -EIO);
	expect_write(0, 64, 0);
	expect_count(0);
}

Test(dust, write_heals_nothing_while_disabled)
{
	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 10 1");
	expect_write(0, 64, 0);
	expect_count(1);
	tell("enable");
	expect_write(10, 1, -EIO);
	expect_write(10, 1, 0);
	expect_count(0);
}

Test(dust, writes_fail_as_often_as_asked_for)
{
	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 10 255");
	tell("addbadblock 11 0");
	tell("enable");
	for (unsigned int i = 0; i < 255; i++) {
		expect_write(10, 1, -EIO);
		expect_read(10, 1, -EIO);
	}
	expect_count(2);
	expect_write(10, 2, 0);
	expect_count(0);
	expect_read(10, 2, 0);
}

Test(dust, failing_write_of_several_blocks_writes_and_heals_the_others)
{
	const unsigned char *data = fault_data(fixture_disk(DISK));

	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 10");
	tell("addbadblock 11 1");
	tell("addbadblock 12");
	tell("enable");
	memset(buffer, 0x5a, sizeof(buffer));
	expect_write(10, 3, -EIO);
	expect_answer("listbadblocks", "11\n");
	cr_assert_eq(data[(size_t)10 * DMCORE_SECTOR_BYTES], 0x5a);
	cr_assert_eq(data[(size_t)11 * DMCORE_SECTOR_BYTES], 0);
	cr_assert_eq(data[(size_t)12 * DMCORE_SECTOR_BYTES], 0x5a);
}

Test(dust, block_is_bad_as_a_whole)
{
	make("0 64 dust " DISK " 0 4096");
	tell("addbadblock 2");
	tell("enable");
	for (uint64_t i = 0; i < 64; i++)
		expect_read(i, 1, i / 8 == 2 ? -EIO : 0);
	expect_read(15, 2, -EIO);
	expect_read(23, 2, -EIO);
	expect_write(23, 1, 0);
	expect_read(16, 8, 0);
}

Test(dust, blocks_are_counted_from_the_start_of_the_device)
{
	make("0 5 zero\n5 32 dust " DISK " 16 4096");
	cr_assert_eq(dmcore_device_message(device, 5, "addbadblock 3", NULL, 0), 0);
	cr_assert_eq(dmcore_device_message(device, 5, "enable", NULL, 0), 0);
	/* Sectors 24 to 31 of the device. */
	for (uint64_t i = 0; i < 37; i++)
		expect_read(i, 1, i >= 13 && i < 21 ? -EIO : 0);
}

/* D-063 in docs/conformance.md */
Test(dust, piece_across_two_blocks_meets_both)
{
	make("0 32 dust " DISK " 4 4096");
	tell("addbadblock 1 1");
	tell("enable");
	/* Sectors 4 to 11 of the device: one piece, the halves of blocks 0 and 1. */
	expect_read(0, 8, -EIO);
	expect_read(0, 4, 0);
	tell("addbadblock 0");
	expect_write(0, 8, -EIO);
	expect_count(2);
	expect_write(0, 8, 0);
	expect_count(0);
}

/* D-062 in docs/conformance.md */
Test(dust, flush_and_discard_pass_and_heal_nothing)
{
	struct fault_disk *disk = fixture_disk(DISK);

	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 0 1");
	tell("addbadblock 10");
	tell("enable");
	cr_assert_eq(run(DMCORE_OP_FLUSH, 0, 0), 0);
	cr_assert_eq(run(DMCORE_OP_DISCARD, 0, 64), 0);
	cr_assert_eq(fault_count(disk, FAULT_FLUSH), 1);
	cr_assert_eq(fault_count(disk, FAULT_DISCARD), 1);
	expect_count(2);
	cr_assert_eq(run(DMCORE_OP_WRITE_ZEROES, 0, 64), -EOPNOTSUPP);
	expect_count(2);
}

Test(dust, stands_on_dust)
{
	struct dmcore_device *low = fixture_device("low", "0 64 dust " DISK " 0 512");

	make("0 64 dust low 0 4096");
	cr_assert_eq(dmcore_device_message(low, 0, "addbadblock 10 1", NULL, 0), 0);
	cr_assert_eq(dmcore_device_message(low, 0, "enable", NULL, 0), 0);
	tell("addbadblock 0");
	tell("enable");
	expect_read(0, 1, -EIO);
	expect_read(10, 1, -EIO);
	expect_write(8, 8, -EIO);
	expect_write(0, 16, 0);
	expect_read(0, 64, 0);
}

Test(dust, new_table_begins_with_an_empty_list)
{
	make("0 64 dust " DISK " 0 512");
	tell("addbadblock 10");
	tell("enable");
	cr_assert_eq(dmcore_device_load(device, fixture_table("0 64 dust " DISK " 0 512")), 0);
	expect_read(10, 1, -EIO);
	cr_assert_eq(dmcore_device_resume(device), 0);
	expect_read(10, 1, 0);
	expect_count(0);
	cr_assert_str_eq(fixture_device_text(device, DMCORE_TEXT_STATUS),
			 "0 64 dust " DISK " bypass verbose\n");
}
