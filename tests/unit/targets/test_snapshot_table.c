/* SPDX-License-Identifier: MIT */
/* Snapshots: their table lines, what status and table say, and what a COW device may hold when it
 * is read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/fixture.h"
#include "support/snapshots.h"

#define O SNAPSHOTS_ORIGIN
#define C SNAPSHOTS_COW
#define NO_STORE "Couldn't create exception store"

TestSuite(snapshot_line, .init = fixture_open, .fini = fixture_close);
TestSuite(snapshot_store, .init = snapshots_open, .fini = snapshots_close);

/* ---- table line ---- */

static void expect_refused(const char *type, const char *params, int error, const char *message)
{
	char text[256];
	char whole[256];

	snprintf(text, sizeof(text), "0 64 %s%s%s", type, *params ? " " : "", params);
	snprintf(whole, sizeof(whole), "table line 1: %s: %s", type, message);
	fixture_expect_refused(text, error, whole);
}

static void expect_both_refuse(const char *params, int error, const char *message)
{
	expect_refused("snapshot", params, error, message);
	expect_refused("snapshot-merge", params, error, message);
}

static void expect_printed(const char *type, const char *params, const char *printed)
{
	struct dmcore_table *table;
	char text[256];

	snprintf(text, sizeof(text), "0 64 %s %s\n", type, params);
	table = fixture_table(text);
	snprintf(text, sizeof(text), "0 64 %s %s\n", type, printed);
	cr_assert_str_eq(fixture_table_text(table, DMCORE_TEXT_TABLE), text);
	dmcore_table_destroy(table);
}

Test(snapshot_line, names_what_is_wrong_in_the_kernels_order)
{
	static const char count[] = "Invalid number of feature arguments";
	static const char origin[] = "Cannot get origin device: /nonexistent: No such file or "
				     "directory (ENOENT)";
	static const char cow[] = "Cannot get COW device: /nonexistent: No such file or "
				  "directory (ENOENT)";

	expect_both_refuse("", -EINVAL, "requires 4 or more arguments");
	expect_both_refuse("x x x", -EINVAL, "requires 4 or more arguments");
	/* Features come before the devices, these before the store. */
	expect_both_refuse("/nonexistent /nonexistent X x 3", -EINVAL, count);
	expect_both_refuse("/nonexistent /nonexistent X x z", -EINVAL, count);
	expect_both_refuse("/nonexistent /nonexistent X x 1", -EINVAL, count);
	expect_both_refuse("/nonexistent /nonexistent X x 1 trim", -EINVAL,
			   "Unrecognised feature requested");
	expect_both_refuse("/nonexistent /nonexistent X x 1 discard_passdown_origin", -EINVAL,
			   "discard_passdown_origin feature depends on discard_zeroes_cow");
	expect_both_refuse("/nonexistent /nonexistent X x 2 discard_passdown_origin trim", -EINVAL,
			   "discard_passdown_origin feature depends on discard_zeroes_cow");
	expect_both_refuse("/nonexistent /nonexistent X x 2 trim discard_passdown_origin", -EINVAL,
			   "Unrecognised feature requested");
	expect_both_refuse("/nonexistent /nonexistent X x", -ENOENT, origin);
	expect_both_refuse(O " /nonexistent X x", -ENOENT, cow);
	expect_both_refuse(O " " O " X x", -EINVAL,
			   "COW device cannot be the same as origin device");
	expect_both_refuse(O " " C " X x", -EINVAL, NO_STORE);
	expect_refused("snapshot", O " " C " N 0", -EINVAL, "Chunk size not set");
	expect_refused("snapshot-merge", O " " C " N 8", -EINVAL,
		       "Snapshot exception store does not support snapshot-merge.");
}

Test(snapshot_line, refuses_chunks_that_no_store_can_have)
{
	static const char *const sizes[] = {
		"x", "-8", "8x", "3", "12", "4194304", "2147483648", "4294967304", "", "0x8",
	};
	char params[128];

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (!sizes[i][0])
			continue;
		snprintf(params, sizeof(params), O " " C " P %s", sizes[i]);
		expect_both_refuse(params, -EINVAL, NO_STORE);
	}
	expect_both_refuse(O " fault:256,id=3,block=4096 P 4", -EINVAL, NO_STORE);
	expect_both_refuse("fault:256,id=3,block=4096 " C " P 4", -EINVAL, NO_STORE);
	expect_both_refuse(O " " C " Px 8", -EINVAL, NO_STORE);
	expect_both_refuse(O " " C " persistent 8", -EINVAL, NO_STORE);
}

Test(snapshot_line, prints_what_was_meant)
{
	expect_printed("snapshot", O " " C " P 8", O " " C " P 8");
	expect_printed("snapshot", O " " C " p 08", O " " C " P 8");
	expect_printed("snapshot", O " " C " po 1", O " " C " PO 1");
	expect_printed("snapshot", O " " C " POO 8", O " " C " PO 8");
	expect_printed("snapshot", O " " C " n 16", O " " C " N 16");
	expect_printed("snapshot", O " " C " Nx 16", O " " C " N 16");
	expect_printed("snapshot", O " " C " P 8 0", O " " C " P 8");
	expect_printed("snapshot", O " " C " P 8 2 discard_passdown_origin DISCARD_zeroes_cow",
		       O " " C " P 8 2 discard_zeroes_cow discard_passdown_origin");
	expect_printed("snapshot", O " " C " P 8 1 discard_zeroes_cow extra words",
		       O " " C " P 8 1 discard_zeroes_cow");
	expect_printed("snapshot-merge", O " " C " PO 8 1 discard_zeroes_cow",
		       O " " C " PO 8 1 discard_zeroes_cow");
	expect_printed("snapshot-origin", O, O);
}

Test(snapshot_line, of_an_origin_has_one_word)
{
	static const char message[] = "origin: incorrect number of arguments";

	expect_refused("snapshot-origin", "", -EINVAL, message);
	expect_refused("snapshot-origin", O " 0", -EINVAL, message);
	expect_refused("snapshot-origin", "/nonexistent", -ENOENT,
		       "Cannot get target device: /nonexistent: No such file or directory "
		       "(ENOENT)");
}

Test(snapshot_line, opens_the_origin_of_a_snapshot_for_reading_only)
{
	struct dmcore_table *snapshot = fixture_table("0 64 snapshot " O " " C " P 8");
	struct dmcore_bdev *bdev = fixture_bdev(O);

	cr_assert(!dmcore_bdev_is_read_only(bdev));
	dmcore_table_destroy(snapshot);
}

Test(snapshot_line, takes_an_origin_that_cannot_be_written_unless_discards_are_passed_down)
{
	char path[] = "/tmp/dmcore-origin-XXXXXX";
	struct dmcore_table *table;
	char text[160];
	int fd = mkstemp(path);

	cr_assert(fd >= 0 && ftruncate(fd, 1 << 16) == 0 && fchmod(fd, 0444) == 0);
	/* Who may do all needs to be somebody else. */
	cr_assert(geteuid() != 0 || seteuid(65534) == 0);
	snprintf(text, sizeof(text), "0 64 snapshot %s " C " P 8 1 discard_zeroes_cow", path);
	dmcore_table_destroy(fixture_table(text));
	snprintf(text, sizeof(text),
		 "0 64 snapshot %s " C " P 8 2 discard_zeroes_cow discard_passdown_origin", path);
	cr_assert_eq(dmcore_table_parse(fixture.core, text, 0, &table), -EACCES);
	cr_assert(strstr(dmcore_error_message(), "Cannot get origin device: /tmp/"), "%s",
		  dmcore_error_message());
	cr_assert(getuid() != 0 || seteuid(0) == 0);
	close(fd);
	unlink(path);
}

Test(snapshot_line, a_cow_device_has_an_owner_and_an_heir_and_no_third)
{
	static const char text[] = "0 64 snapshot " O " " C " P 8";
	struct dmcore_table *owner = fixture_table(text);
	struct dmcore_table *heir = fixture_table(text);

	fixture_expect_refused(text, -EINVAL, "table line 1: snapshot: Snapshot cow pairing for "
			       "exception table handover failed");
	dmcore_table_destroy(owner);
	owner = fixture_table(text);
	fixture_expect_refused(text, -EINVAL, "table line 1: snapshot: Snapshot cow pairing for "
			       "exception table handover failed");
	dmcore_table_destroy(heir);
	heir = fixture_table(text);
	dmcore_table_destroy(heir);
	dmcore_table_destroy(owner);
}

/* ---- new stores ---- */

Test(snapshot_store, is_made_at_the_first_resume)
{
	memset(fault_data(snapshots.cow) + 4, 0xa5, 255 * DMCORE_SECTOR_BYTES);
	snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "16/256 16");
	cr_assert_str_eq(snapshots_table("s"), O " " C " P 8");
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 1);
	cr_assert_eq(snapshots_header(snapshots.cow).version, 1);
	cr_assert_eq(snapshots_header(snapshots.cow).chunk_sectors, 8);
	/* Nothing else in the header's chunk, and no entry; what follows is as it was. */
	for (unsigned int i = DMCORE_COW_HEADER_BYTES; i < 2 * 8 * DMCORE_SECTOR_BYTES; i++)
		cr_assert_eq(fault_data(snapshots.cow)[i], 0, "byte %u", i);
	cr_assert_eq(fault_data(snapshots.cow)[2 * 8 * DMCORE_SECTOR_BYTES], 0xa5);
}

Test(snapshot_store, has_chunks_of_32_sectors_if_none_are_named)
{
	snapshots_map("s", 512, "snapshot " O " " C " P 0");
	snapshots_expect_status("s", "64/256 64");
	cr_assert_str_eq(snapshots_table("s"), O " " C " P 32");
}

Test(snapshot_store, has_larger_ones_if_the_blocks_of_its_device_are)
{
	snapshots_map("s", 512, "snapshot " O " fault:1024,id=3,block=32768 P 0");
	cr_assert_str_eq(snapshots_table("s"), O " fault:1024,id=3,block=32768 P 64");
}

Test(snapshot_store, that_is_transient_takes_nothing)
{
	snapshots_map("s", 512, "snapshot " O " " C " N 8");
	snapshots_expect_status("s", "0/256 0");
	cr_assert_eq(fault_count(snapshots.cow, FAULT_WRITE | FAULT_WRITE_ZEROES), 0);
}

static void expect_no_resume(const char *name, const char *params, int error,
			     const char *part_of_message)
{
	struct dmcore_device *device;
	int ret;

	cr_assert_eq(dmcore_device_create(snapshots.stage.core, name, NULL, 0, &device), 0);
	cr_assert_eq(snapshots_load(name, 512, params), 0, "%s", dmcore_error_message());
	ret = snapshots_resume(name);
	cr_assert_eq(ret, error, "%d: %s", ret, dmcore_error_message());
	cr_assert(strstr(dmcore_error_message(), part_of_message), "%s", dmcore_error_message());
	cr_assert_eq(dmcore_device_remove(device), 0);
}

Test(snapshot_store, needs_room_for_its_metadata)
{
	expect_no_resume("a", "snapshot " O " fault:7,id=3 P 8", -EIO,
			 "Failed to read snapshot metadata");
	expect_no_resume("b", "snapshot " O " fault:15,id=4 P 8", -EIO,
			 "Failed to read snapshot metadata");
	snapshots_map("c", 512, "snapshot " O " fault:16,id=5 P 8");
	snapshots_expect_status("c", "16/16 16");
}

/* ---- stores that there are ---- */

Test(snapshot_store, that_is_none_is_refused)
{
	memset(fault_data(snapshots.cow), 0x11, 8);
	expect_no_resume("s", "snapshot " O " " C " P 8", -ENXIO, "Invalid or corrupt snapshot");
}

Test(snapshot_store, of_another_version_is_refused)
{
	snapshots_put_header(snapshots.cow, 1, 2, 8);
	expect_no_resume("s", "snapshot " O " " C " P 8", -EINVAL,
			 "unable to handle snapshot disk version 2");
	/* Whether it is valid isn't looked at before. */
	snapshots_put_header(snapshots.cow, 0, 3, 8);
	expect_no_resume("t", "snapshot " O " " C " P 8", -EINVAL,
			 "unable to handle snapshot disk version 3");
}

Test(snapshot_store, with_impossible_chunks_is_refused)
{
	static const uint32_t sizes[] = { 0, 3, 7, 12, UINT32_MAX };
	char name[] = "a";

	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snapshots_put_header(snapshots.cow, 1, 1, sizes[i]);
		expect_no_resume(name, "snapshot " O " " C " P 8", -EINVAL,
				 "invalid on-disk chunk size");
		name[0]++;
	}
	/* Before its version. */
	snapshots_put_header(snapshots.cow, 0, 2, 3);
	expect_no_resume(name, "snapshot " O " " C " P 8", -EINVAL, "invalid on-disk chunk size");
}

Test(snapshot_store, has_the_chunks_that_its_header_says)
{
	struct dmcore_bdev *bdev;

	snapshots_put_header(snapshots.cow, 1, 1, 16);
	snapshots_put_entry(snapshots.cow, 0, 3, 2);
	pattern_fill(fault_data(snapshots.cow) + 32 * DMCORE_SECTOR_BYTES, 48, 16, 5);
	bdev = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	cr_assert_str_eq(snapshots.stage.logged, "snapshot: chunk size 16 in device metadata "
			 "overrides table chunk size of 8.");
	cr_assert_str_eq(snapshots_table("s"), O " " C " P 16");
	snapshots_expect_status("s", "48/256 32");
	snapshots_expect(bdev, 0, 48, 0);
	snapshots_expect(bdev, 48, 16, 5);
	snapshots_expect(bdev, 64, 448, 0);
}

Test(snapshot_store, that_is_invalid_stays_so)
{
	struct dmcore_bdev *bdev;

	snapshots_put_header(snapshots.cow, 0, 1, 8);
	bdev = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "Invalid");
	cr_assert_str_eq(snapshots.stage.logged, "snapshot: Snapshot is marked invalid.");
	cr_assert_eq(snapshots_try_read(bdev, 0, 8), -EIO);
	cr_assert_eq(snapshots_try_write(bdev, 0, 0, 8, 1), -EIO);
	cr_assert_eq(snapshots_run(bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
	cr_assert_eq(snapshots_events("s"), 0);
	snapshots_reload("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "Invalid");
}

Test(snapshot_store, is_valid_if_its_header_says_anything_but_0)
{
	snapshots_put_header(snapshots.cow, 2, 1, 8);
	snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "16/256 16");
	cr_assert_eq(snapshots_header(snapshots.cow).valid, 2);
}

Test(snapshot_store, of_two_entries_for_a_chunk_the_later_one_counts)
{
	struct dmcore_bdev *bdev;

	snapshots_put_header(snapshots.cow, 1, 1, 8);
	snapshots_put_entry(snapshots.cow, 0, 5, 2);
	snapshots_put_entry(snapshots.cow, 1, 6, 3);
	snapshots_put_entry(snapshots.cow, 2, 5, 4);
	pattern_fill(fault_data(snapshots.cow) + 24 * DMCORE_SECTOR_BYTES, 48, 8, 6);
	pattern_fill(fault_data(snapshots.cow) + 32 * DMCORE_SECTOR_BYTES, 40, 8, 7);
	bdev = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect(bdev, 40, 8, 7);
	snapshots_expect(bdev, 48, 8, 6);
	snapshots_expect_status("s", "40/256 16");
}

Test(snapshot_store, with_a_chunk_behind_its_end_fails_reads_of_that_one)
{
	struct dmcore_bdev *bdev;

	snapshots_put_header(snapshots.cow, 1, 1, 8);
	snapshots_put_entry(snapshots.cow, 0, 5, 32);
	snapshots_put_entry(snapshots.cow, 1, 1000000, 3);
	bdev = snapshots_map("s", 512, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "264/256 16");
	cr_assert_eq(snapshots_try_read(bdev, 40, 8), -EIO);
	snapshots_expect(bdev, 0, 40, 0);
	/* There is nothing left to be given out. */
	cr_assert_eq(snapshots_try_write(bdev, 0, 0, 8, 1), -EIO);
	snapshots_expect_status("s", "Invalid");
}

Test(snapshot_store, whose_area_cannot_be_read_is_refused)
{
	struct fault_rule rule = { .action = FAULT_FAIL, .status = -EIO, .ops = FAULT_READ };

	snapshots_put_header(snapshots.cow, 1, 1, 8);
	rule.sector = 8;
	rule.count = 8;
	fault_add_rule(snapshots.cow, &rule);
	expect_no_resume("s", "snapshot " O " " C " P 8", -EIO,
			 "Failed to read snapshot metadata");
	fault_clear_rules(snapshots.cow);
	snapshots_map("t", 512, "snapshot " O " " C " P 8");
	snapshots_expect_status("t", "16/256 16");
}

/* ---- areas: chunks of 1 sector have 32 entries ---- */

static void fill_chunks(struct dmcore_bdev *bdev, unsigned int first, unsigned int count)
{
	for (unsigned int i = first; i < first + count; i++)
		snapshots_write(bdev, i, 1, 1);
}

static void expect_after_reactivation(unsigned int count, const char *status)
{
	struct dmcore_bdev *bdev = snapshots_map("s", 512, "snapshot " O " " C " P 1");

	fill_chunks(bdev, 0, count);
	snapshots_expect_status("s", status);
	snapshots_remove("s");
	bdev = snapshots_map("s", 512, "snapshot " O " " C " P 1");
	snapshots_expect_status("s", status);
	snapshots_expect(bdev, 0, count, 1);
	snapshots_expect(bdev, count, 512 - count, 0);
	/* What comes next finds its place. */
	fill_chunks(bdev, count, 2);
	snapshots_remove("s");
	bdev = snapshots_map("s", 512, "snapshot " O " " C " P 1");
	snapshots_expect(bdev, 0, count + 2, 1);
	snapshots_expect(bdev, count + 2, 510 - count, 0);
}

Test(snapshot_store, with_an_area_that_lacks_one_entry)
{
	expect_after_reactivation(31, "33/256 2");
}

Test(snapshot_store, with_an_area_that_is_full)
{
	expect_after_reactivation(32, "35/256 3");
}

Test(snapshot_store, with_an_area_and_one_entry)
{
	expect_after_reactivation(33, "36/256 3");
}

Test(snapshot_store, with_two_areas_that_are_full)
{
	expect_after_reactivation(64, "68/256 4");
}

Test(snapshot_store, that_ends_with_a_full_area_cannot_be_read_any_more)
{
	snapshots_put_header(snapshots.cow, 1, 1, 1);
	for (unsigned int i = 0; i < 32; i++) {
		struct fault_disk *disk = stage_disk(&snapshots.stage, 3, 34, "");

		snapshots_put_header(disk, 1, 1, 1);
		snapshots_put_entry(disk, i, i, i + 2);
	}
	expect_no_resume("s", "snapshot " O " fault:34,id=3 P 1", -EIO,
			 "Failed to read snapshot metadata");
}

Test(snapshot_store, clears_what_a_commit_that_was_cut_off_has_left)
{
	struct dmcore_bdev *bdev;

	/* Entries of the second sector came to the disk, some of the first didn't. */
	snapshots_put_header(snapshots.cow, 1, 1, 8);
	for (unsigned int i = 0; i < 8; i++)
		snapshots_put_entry(snapshots.cow, i, i, i + 2);
	for (unsigned int i = 32; i < 48; i++)
		snapshots_put_entry(snapshots.cow, i, i, i + 2);
	bdev = snapshots_map("s", 256, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "80/256 16");
	cr_assert_eq(snapshots_entry(snapshots.cow, 7).new_chunk, 9);
	for (unsigned int i = 8; i < 256; i++)
		cr_assert_eq(snapshots_entry(snapshots.cow, i).new_chunk, 0, "entry %u", i);
	for (unsigned int i = 8; i < 24; i++)
		snapshots_write(bdev, i * 8, 1, 1);
	snapshots_remove("s");
	bdev = snapshots_map("s", 256, "snapshot " O " " C " P 8");
	snapshots_expect_status("s", "208/256 16");
	snapshots_expect(bdev, 32 * 8 - 8, 8, 0);
}
