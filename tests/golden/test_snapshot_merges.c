/* SPDX-License-Identifier: MIT */
/*
 * Merges that the real kernel has begun, stopped after any of their writes: this library reads the
 * merged view there, ends the merge, and leaves on origin and COW device what the kernel left. The
 * pack is made by record-merges, split-merges and pack-images.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/images.h"
#include "support/scratch.h"
#include "support/stage.h"

enum { ORIGIN, COW, NUM_DISKS };

static const char names[NUM_DISKS][IMAGES_NAME_BYTES] = { "origin", "cow" };
static struct images recorded;
static struct stage stage;
static struct scratch files[NUM_DISKS];
static char table[512];
static unsigned char *buffer;

TestSuite(golden_merges, .fini = images_remove);

static void expect_view(struct dmcore_bdev *bdev)
{
	const struct image *expect = images_find(&recorded, "expect", "");

	memset(buffer, 0xff, expect->size_bytes);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0,
			       expect->size_bytes / DMCORE_SECTOR_BYTES, buffer),
		     0);
	for (size_t at = 0; at < expect->size_bytes; at += DMCORE_SECTOR_BYTES)
		cr_assert_eq(memcmp(buffer + at, expect->bytes + at, DMCORE_SECTOR_BYTES), 0,
			     "sector %zu", at / DMCORE_SECTOR_BYTES);
}

/* "ALLOCATED/TOTAL METADATA": all that is allocated is metadata. */
static bool has_settled(struct dmcore_device *device)
{
	char text[128];
	char *status;

	cr_assert_gt(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)), 0);
	status = strstr(text, "snapshot-merge ");
	cr_assert_not_null(status, "%s", text);
	status += strlen("snapshot-merge ");
	cr_assert(status[0] >= '0' && status[0] <= '9', "%s", text);
	return strtoul(status, NULL, 10) == strtoul(strchr(status, ' '), NULL, 10);
}

static void wait_for_merge(struct dmcore_device *device)
{
	uint64_t until_ns = stage_now_ns() + (uint64_t)STAGE_PATIENCE_NS;

	while (!has_settled(device)) {
		cr_assert_lt(stage_now_ns(), until_ns);
		stage_settle(&stage);
		stage_sleep_ns(100000);
	}
}

static void expect_file(int disk)
{
	const struct image *expect = images_find(&recorded, names[disk], ".post");

	cr_assert_eq(pread(files[disk].fd, buffer, expect->size_bytes, 0),
		     (ssize_t)expect->size_bytes);
	for (size_t at = 0; at < expect->size_bytes; at += DMCORE_SECTOR_BYTES)
		cr_assert_eq(memcmp(buffer + at, expect->bytes + at, DMCORE_SECTOR_BYTES), 0,
			     "%s: sector %zu", names[disk], at / DMCORE_SECTOR_BYTES);
}

/* With the disks as the images are now. */
static void finish(void)
{
	struct dmcore_bdev *bdev;

	for (int i = 0; i < NUM_DISKS; i++) {
		const struct image *image = images_find(&recorded, names[i], ".pre");

		cr_assert_eq(pwrite(files[i].fd, image->bytes, image->size_bytes, 0),
			     (ssize_t)image->size_bytes);
	}
	stage_open(&stage, NULL, NULL);
	bdev = stage_map(&stage, "merge", table);
	expect_view(bdev);
	wait_for_merge(stage.devices[0]);
	expect_view(bdev);
	stage_close(&stage);
	expect_file(ORIGIN);
	expect_file(COW);
}

/* In the log the COW device stands behind the origin. */
static void apply(const struct dmcore_logwrites_entry *entry, const unsigned char *data)
{
	const struct image *origin = images_find(&recorded, names[ORIGIN], ".pre");
	const struct image *cow = images_find(&recorded, names[COW], ".pre");

	for (uint64_t i = 0; i < entry->count; i++) {
		size_t at = (size_t)(entry->sector + i) * DMCORE_SECTOR_BYTES;
		const struct image *image = at < origin->size_bytes ? origin : cow;

		at -= image == cow ? origin->size_bytes : 0;
		cr_assert_lt(at, image->size_bytes);
		memcpy(image->bytes + at, data + i * DMCORE_SECTOR_BYTES, DMCORE_SECTOR_BYTES);
	}
}

static void begin(const char *name)
{
	const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL;
	char paths[NUM_DISKS][IMAGES_NAME_BYTES];

	images_unpack("snapshot-merges.tar.gz");
	images_load(&recorded, name);
	for (int i = 0; i < NUM_DISKS; i++) {
		scratch_create(&files[i], dir,
			       images_find(&recorded, names[i], ".pre")->size_bytes);
		snprintf(paths[i], sizeof(paths[i]), "%s", files[i].path);
	}
	images_translate(recorded.table, names, (const char (*)[IMAGES_NAME_BYTES])paths, NUM_DISKS,
			 table, sizeof(table));
	buffer = malloc(images_find(&recorded, names[ORIGIN], ".pre")->size_bytes +
			images_find(&recorded, names[COW], ".pre")->size_bytes);
	cr_assert_not_null(buffer);
}

static void end(void)
{
	free(buffer);
	for (int i = 0; i < NUM_DISKS; i++)
		scratch_close(&files[i]);
	images_forget(&recorded);
}

/* The number of writes stands here so that none of them gets lost. */
static void run_case(const char *name, unsigned int num_writes)
{
	const struct image *log;
	struct dmcore_logwrites_entry entry;

	begin(name);
	finish();
	log = images_find(&recorded, "log", "");
	for (size_t at = 0; at < log->size_bytes;) {
		cr_assert_eq(dmcore_logwrites_entry_decode(log->bytes + at, DMCORE_SECTOR_BYTES,
							   &entry),
			     DMCORE_LOGWRITES_GOOD);
		if (entry.count) {
			apply(&entry, log->bytes + at + DMCORE_SECTOR_BYTES);
			finish();
			num_writes--;
		}
		at += (size_t)dmcore_logwrites_entry_blocks(&entry) * DMCORE_SECTOR_BYTES;
	}
	cr_assert_eq(num_writes, 0);
	end();
}

/* ---- chunks of 8 sectors ---- */

Test(golden_merges, one_exception)
{
	run_case("one", 2);
}

Test(golden_merges, run)
{
	run_case("run", 2);
}

Test(golden_merges, chunks_written_in_part)
{
	run_case("part-of-a-chunk", 2);
}

Test(golden_merges, scattered_exceptions)
{
	run_case("scattered", 20);
}

Test(golden_merges, exceptions_from_the_end_to_the_beginning)
{
	run_case("backwards", 20);
}

Test(golden_merges, runs)
{
	run_case("runs", 10);
}

Test(golden_merges, run_made_of_runs)
{
	run_case("run-made-of-runs", 4);
}

Test(golden_merges, exceptions_of_the_origin)
{
	run_case("of-the-origin", 6);
}

Test(golden_merges, exceptions_of_both)
{
	run_case("of-both", 14);
}

Test(golden_merges, last_chunk_in_part)
{
	run_case("last-chunk-in-part", 4);
}

/* ---- chunks of one sector: 32 entries an area ---- */

Test(golden_merges, area_less_one)
{
	run_case("area-less-one", 2);
}

Test(golden_merges, area_full)
{
	run_case("area-full", 2);
}

Test(golden_merges, area_and_one)
{
	run_case("area-and-one", 4);
}

Test(golden_merges, two_areas)
{
	run_case("two-areas", 4);
}

Test(golden_merges, two_areas_of_runs)
{
	run_case("two-areas-of-runs", 30);
}

Test(golden_merges, two_areas_scattered)
{
	run_case("two-areas-scattered", 80);
}

Test(golden_merges, three_areas)
{
	run_case("three-areas", 10);
}

Test(golden_merges, all_of_the_origin)
{
	run_case("all", 8);
}

/* ---- larger chunks ---- */

Test(golden_merges, run_of_16)
{
	run_case("run-of-16", 2);
}

Test(golden_merges, scattered_of_16)
{
	run_case("scattered-of-16", 14);
}

Test(golden_merges, of_both_of_16)
{
	run_case("of-both-of-16", 4);
}

Test(golden_merges, of_32)
{
	run_case("of-32", 2);
}
