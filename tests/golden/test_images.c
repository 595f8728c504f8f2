/* SPDX-License-Identifier: MIT */
/*
 * Images that the real kernel's linear, striped and mirror targets have written, both ways: what it
 * left reads as it read it, and what is written here leaves the same images. See pack-images for the
 * form of the pack.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "support/images.h"
#include "support/stage.h"

#define TEXT_BYTES 8192

static struct images recorded;
static struct stage stage;
static struct dmcore_bdev *bdev;

TestSuite(golden_images, .fini = images_remove);

static void open_device(void)
{
	static char text[TEXT_BYTES];

	images_to_paths(&recorded, recorded.table, text, sizeof(text));
	stage_open(&stage, NULL, NULL);
	bdev = stage_map(&stage, "m", text);
}

static void expect_content(void)
{
	const struct image *expect = images_find(&recorded, "expect", "");
	unsigned char *bytes = malloc(expect->size_bytes);

	cr_assert_not_null(bytes);
	cr_assert_eq(dmcore_bdev_size_sectors(bdev) * DMCORE_SECTOR_BYTES, expect->size_bytes);
	/* In one request, and in many of an odd size. */
	memset(bytes, 0xff, expect->size_bytes);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, 0,
			       expect->size_bytes / DMCORE_SECTOR_BYTES, bytes),
		     0);
	cr_assert_eq(memcmp(bytes, expect->bytes, expect->size_bytes), 0);
	memset(bytes, 0xff, expect->size_bytes);
	for (size_t offset = 0; offset < expect->size_bytes; offset += 37 * DMCORE_SECTOR_BYTES) {
		size_t left = expect->size_bytes - offset;
		size_t step = left < 37 * DMCORE_SECTOR_BYTES ? left : 37 * DMCORE_SECTOR_BYTES;

		cr_assert_eq(dmcore_pread(bdev, bytes + offset, step, offset), 0);
	}
	cr_assert_eq(memcmp(bytes, expect->bytes, expect->size_bytes), 0);
	free(bytes);
}

/* Every line of `ops`: "write DEVICE sector N count N from data N". */
static void write_ops(void)
{
	const struct image *data = images_find(&recorded, "data", "");
	unsigned int num_ops = 0;
	char *rest = recorded.ops;

	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		char *sector_text = strstr(line, " sector ");
		char *count_text = strstr(line, " count ");
		char *from_text = strstr(line, " from data ");
		uint64_t sector;
		uint64_t count;
		uint64_t from;

		cr_assert(strncmp(line, "write ", 6) == 0 && sector_text && count_text && from_text,
			  "%s", line);
		sector = strtoull(sector_text + strlen(" sector "), NULL, 10);
		count = strtoull(count_text + strlen(" count "), NULL, 10);
		from = strtoull(from_text + strlen(" from data "), NULL, 10);
		cr_assert_leq((from + count) * DMCORE_SECTOR_BYTES, data->size_bytes);
		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_WRITE, 0, sector, count,
				       data->bytes + from * DMCORE_SECTOR_BYTES),
			     0, "%s", line);
		num_ops++;
	}
	cr_assert_gt(num_ops, 20);
	cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_FLUSH, 0, 0, 0, NULL), 0);
}

/* Appends a text line by line as dmsetup prints it: behind the name of the device. */
static void append_lines(char *out, size_t bytes, const char *name, char *text)
{
	char *rest = text;

	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		size_t used = strlen(out);
		size_t length = strlen(line);

		/* A status without a word of its target's ends with a space there. */
		while (length > 0 && line[length - 1] == ' ')
			length--;
		snprintf(out + used, bytes - used, "%s: %.*s\n", name, (int)length, line);
	}
}

static void expect_texts(void)
{
	static const enum dmcore_text_kind kinds[] = { DMCORE_TEXT_STATUS, DMCORE_TEXT_TABLE };
	static char raw[TEXT_BYTES];
	static char text[TEXT_BYTES];
	static char ours[TEXT_BYTES];
	static char theirs[TEXT_BYTES];
	const char *colon = strchr(recorded.kernel_log, ':');
	char *rest = recorded.kernel_log;
	char name[32];

	cr_assert_not_null(colon);
	snprintf(name, sizeof(name), "%.*s", (int)(colon - recorded.kernel_log),
		 recorded.kernel_log);
	ours[0] = '\0';
	for (unsigned int i = 0; i < 2; i++) {
		int64_t length = dmcore_device_text(stage.devices[0], kinds[i], 0, raw, sizeof(raw));

		cr_assert(length > 0 && length < TEXT_BYTES);
		images_to_kernel(&recorded, raw, text, sizeof(text));
		append_lines(ours, sizeof(ours), name, text);
	}
	theirs[0] = '\0';
	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n"))
		append_lines(theirs, sizeof(theirs), name, line + strlen(name) + 2);
	cr_assert_str_eq(ours, theirs, "'%s' instead of '%s'", ours, theirs);
}

/* A mirror is recorded when its legs were the same. */
static void wait_for_recovery(void)
{
	static char text[TEXT_BYTES];
	uint64_t started_ns = dmcore_clock_ns(stage.core);

	if (!strstr(recorded.table, " mirror "))
		return;
	do {
		unsigned long in_sync = 0;
		unsigned long all = 1;
		const char *at;

		cr_assert_gt(dmcore_device_text(stage.devices[0], DMCORE_TEXT_STATUS, 0, text,
						sizeof(text)),
			     0);
		for (at = strstr(text, " 1 A"); at && at > text && at[-1] != ' ';)
			at--;
		cr_assert_not_null(at, "%s", text);
		cr_assert_eq(sscanf(at, "%lu/%lu", &in_sync, &all), 2, "%s", text);
		if (in_sync == all)
			return;
		cr_assert_eq(usleep(1000), 0);
	} while (dmcore_clock_ns(stage.core) - started_ns < STAGE_PATIENCE_NS);
	cr_assert_fail("not in sync: %s", text);
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void run_case_of(const char *pack, const char *name)
{
	images_unpack(pack);
	images_load(&recorded, name);
	cr_assert_gt(recorded.num_leaves, 0);

	images_write_leaves(&recorded, ".post");
	open_device();
	wait_for_recovery();
	expect_content();
	expect_texts();
	stage_close(&stage);

	images_write_leaves(&recorded, ".pre");
	open_device();
	wait_for_recovery();
	write_ops();
	expect_content();
	stage_close(&stage);
	images_expect_leaves(&recorded, ".post");

	images_forget(&recorded);
}

static void run_case(const char *name)
{
	run_case_of("images.tar.gz", name);
}

static void run_mirror(const char *name)
{
	run_case_of("mirror-images.tar.gz", name);
}

Test(golden_images, linear_reverse)
{
	run_case("linear-reverse");
}

Test(golden_images, striped_2_8)
{
	run_case("striped-2-8");
}

Test(golden_images, striped_3_16)
{
	run_case("striped-3-16");
}

Test(golden_images, striped_5_128)
{
	run_case("striped-5-128");
}

Test(golden_images, mirror_core)
{
	run_mirror("mirror-core");
}

Test(golden_images, mirror_disk)
{
	run_mirror("mirror-disk");
}

Test(golden_images, mirror_disk_nosync)
{
	run_mirror("mirror-disk-nosync");
}

/* Recoveries that one has begun and the other finished, log and all. */
Test(golden_images, mirror_recovery_begun_by_the_kernel)
{
	run_mirror("mirror-begun-there");
}

Test(golden_images, mirror_recovery_finished_by_the_kernel)
{
	run_mirror("mirror-begun-here");
}
