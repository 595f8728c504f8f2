/* SPDX-License-Identifier: MIT */
/*
 * Images that the real kernel's snapshots have written, both ways: what it left reads as it read
 * it, and what is written here, one request at a time, leaves the same bytes on the origin and the
 * COW device, fails where it failed there, and has the same status. The pack is of the form that
 * pack-images tells.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "support/images.h"
#include "support/stage.h"

#define TEXT_BYTES 8192

/* The devices of the recording, but for "merge". */
static struct images recorded;
static struct stage stage;
static struct dmcore_bdev *snap;
static struct dmcore_bdev *orig; /* or NULL */

TestSuite(golden_snapshots, .fini = images_remove);

/* ---- devices -------------------------------------------------------------------------------- */

static struct dmcore_bdev *map(const char *name, const char *words)
{
	char text[TEXT_BYTES];

	images_to_paths(&recorded, words, text, sizeof(text));
	return stage_map(&stage, name, text);
}

static void open_pair(const char *table)
{
	char words[64];

	stage_open(&stage, NULL, NULL);
	snap = map("snap", table);
	snprintf(words, sizeof(words), "0 %llu snapshot-origin origin",
		 (unsigned long long)dmcore_bdev_size_sectors(snap));
	orig = map("orig", words);
}

/* The last number of a status and the first: equal when a merge has ended. */
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

/* ---- content -------------------------------------------------------------------------------- */

/* `expect` is the beginning of the device, in requests of an odd size; or nothing is readable. */
static void expect_content(struct dmcore_bdev *bdev, bool readable)
{
	const struct image *expect = images_find(&recorded, "expect", "");
	uint64_t sectors = expect->size_bytes / DMCORE_SECTOR_BYTES;
	unsigned char *bytes = malloc(expect->size_bytes);

	cr_assert_not_null(bytes);
	cr_assert_leq(sectors, dmcore_bdev_size_sectors(bdev));
	memset(bytes, 0xff, expect->size_bytes);
	for (uint64_t done = 0; done < sectors;) {
		uint64_t step = sectors - done < 397 ? sectors - done : 397;

		cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, done, step,
				       bytes + done * DMCORE_SECTOR_BYTES),
			     readable ? 0 : -EIO);
		done += step;
	}
	for (size_t at = 0; at < expect->size_bytes && readable; at += DMCORE_SECTOR_BYTES)
		cr_assert_eq(memcmp(bytes + at, expect->bytes + at, DMCORE_SECTOR_BYTES), 0,
			     "sector %zu", at / DMCORE_SECTOR_BYTES);
	free(bytes);
}

static uint64_t number_behind(const char *line, const char *word)
{
	const char *at = strstr(line, word);

	cr_assert_not_null(at, "%s", line);
	return strtoull(at + strlen(word), NULL, 10);
}

/* Whether the kernel failed this request. */
static bool failed_there(const char *device, uint64_t sector, uint64_t count)
{
	char line[96];

	snprintf(line, sizeof(line), "FAILED write /dev/mapper/%s %llu %llu\n", device,
		 (unsigned long long)sector, (unsigned long long)count);
	return strstr(recorded.kernel_log, line);
}

/* Every line of `ops`: "write DEVICE sector N count N from data N". */
static void write_ops(void)
{
	const struct image *data = images_find(&recorded, "data", "");
	unsigned int failed = 0;
	char *rest = recorded.ops;

	for (char *line = strsep(&rest, "\n"); line && *line; line = strsep(&rest, "\n")) {
		uint64_t sector = number_behind(line, " sector ");
		uint64_t count = number_behind(line, " count ");
		uint64_t from = number_behind(line, " from data ");
		bool to_origin = strstr(line, "/orig ");
		bool fails = failed_there(to_origin ? "orig" : "snap", sector, count);

		cr_assert_leq((from + count) * DMCORE_SECTOR_BYTES, data->size_bytes);
		cr_assert_eq(stage_run(&stage, to_origin ? orig : snap, DMCORE_OP_WRITE, 0, sector,
				       count, data->bytes + from * DMCORE_SECTOR_BYTES),
			     fails ? -EIO : 0, "%s", line);
		failed += fails;
	}
	cr_assert_eq(failed > 0, strstr(recorded.kernel_log, "FAILED") ? 1 : 0);
}

/* ---- texts ---------------------------------------------------------------------------------- */

/* Appends "NAME: " and the only line of a device's text, as dmsetup prints it. */
static void append_text(char *out, size_t bytes, struct dmcore_device *device,
			enum dmcore_text_kind kind)
{
	char raw[512];
	char text[512];
	size_t used = strlen(out);

	cr_assert_gt(dmcore_device_text(device, kind, 0, raw, sizeof(raw)), 0);
	images_to_kernel(&recorded, raw, text, sizeof(text));
	text[strcspn(text, "\n")] = '\0';
	if (kind == DMCORE_TEXT_STATUS && strcmp(dmcore_device_name(device), "orig") == 0)
		cr_assert_str_eq(text, "0 16384 snapshot-origin");
	snprintf(out + used, bytes - used, "%s: %s\n", dmcore_device_name(device), text);
}

/* What the kernel said in the end, of the snapshot, and that we say it of ours. */
static void expect_texts(struct dmcore_device *device, const char *name)
{
	char ours[1024] = "";
	char theirs[1024] = "";
	char prefix[32];
	const char *at = recorded.kernel_log;

	append_text(ours, sizeof(ours), device, DMCORE_TEXT_STATUS);
	append_text(ours, sizeof(ours), device, DMCORE_TEXT_TABLE);
	snprintf(prefix, sizeof(prefix), "%s: ", name);
	while (*at) {
		size_t length = strcspn(at, "\n") + 1;
		size_t used = strlen(theirs);

		if (strncmp(at, prefix, strlen(prefix)) == 0)
			snprintf(theirs + used, sizeof(theirs) - used, "%.*s", (int)length, at);
		at += length;
	}
	cr_assert_str_eq(ours, theirs, "'%s' instead of '%s'", ours, theirs);
}

/* ---- cases ---------------------------------------------------------------------------------- */

static void load_case(const char *name)
{
	images_unpack("snapshot-images.tar.gz");
	images_load(&recorded, name);
}

/* `readable`: in the end; `lasts`: its status outlives a deactivation. */
static void run_case(const char *name, bool readable, bool lasts)
{
	load_case(name);

	images_write_leaves(&recorded, ".post");
	open_pair(recorded.table);
	expect_content(snap, readable);
	if (lasts)
		expect_texts(stage.devices[0], "snap");
	stage_close(&stage);
	images_expect_leaves(&recorded, ".post");

	images_write_leaves(&recorded, ".pre");
	open_pair(recorded.table);
	write_ops();
	expect_content(snap, readable);
	expect_texts(stage.devices[0], "snap");
	stage_close(&stage);
	/* A store that is given up keeps the entries that were there by then. The kernel writes
	 * them request by request. */
	if (readable)
		images_expect_leaves(&recorded, ".post");
	else
		images_expect_leaves_but(&recorded, ".post", "cow", 16, 16);

	images_forget(&recorded);
}

Test(golden_snapshots, of_chunk_8)
{
	run_case("snapshot-p-8", true, true);
}

Test(golden_snapshots, of_chunk_16)
{
	run_case("snapshot-p-16", true, true);
}

Test(golden_snapshots, of_chunk_32)
{
	run_case("snapshot-p-32", true, true);
}

Test(golden_snapshots, of_chunk_128)
{
	run_case("snapshot-p-128", true, true);
}

Test(golden_snapshots, with_several_areas)
{
	run_case("snapshot-areas", true, true);
}

Test(golden_snapshots, that_overflowed_and_is_invalid)
{
	run_case("snapshot-overflow", false, true);
}

Test(golden_snapshots, that_overflowed_and_can_be_read)
{
	run_case("snapshot-overflow-po", true, false);
}

/* The first line of the recording is the status with which the merge began. */
Test(golden_snapshots, that_was_merged)
{
	char table[TEXT_BYTES];
	char *merge;

	load_case("snapshot-merged");
	snprintf(table, sizeof(table), "%s", recorded.table);
	merge = strstr(table, "snapshot-merge");
	cr_assert_not_null(merge);
	memmove(merge + strlen("snapshot"), merge + strlen("snapshot-merge"),
		strlen(merge + strlen("snapshot-merge")) + 1);

	images_write_leaves(&recorded, ".pre");
	stage_open(&stage, NULL, NULL);
	snap = map("snap", table);
	orig = NULL;
	write_ops();
	expect_content(snap, true);
	stage_close(&stage);

	stage_open(&stage, NULL, NULL);
	snap = map("merge", recorded.table);
	expect_content(snap, true);
	wait_for_merge(stage.devices[0]);
	expect_content(snap, true);
	expect_texts(stage.devices[0], "merge");
	stage_close(&stage);
	images_expect_leaves(&recorded, ".post");
	images_forget(&recorded);
}

/* `expect` is the first MiB of ten tebibytes; the rest is told by what was written. */
static void expect_sparse(void)
{
	const struct image *data = images_find(&recorded, "data", "");
	unsigned char bytes[256 * DMCORE_SECTOR_BYTES];

	expect_content(snap, true);
	cr_assert_eq(stage_run(&stage, snap, DMCORE_OP_READ, 0, 21474836464, 16, bytes), 0);
	cr_assert_arr_eq(bytes, data->bytes + 64 * 512, 16 * 512);
	cr_assert_eq(stage_run(&stage, snap, DMCORE_OP_READ, 0, 10737418240, 200, bytes), 0);
	cr_assert_arr_eq(bytes, data->bytes + 300 * 512, 200 * 512);
	cr_assert_eq(stage_run(&stage, snap, DMCORE_OP_READ, 0, 12345678901, 3, bytes), 0);
	cr_assert_arr_eq(bytes, data->bytes + 900 * 512, 3 * 512);
}

static void open_sparse(void)
{
	stage_open(&stage, NULL, NULL);
	map("zero1", "0 21474836480 zero");
	snap = map("sparse1", "0 21474836480 snapshot zero1 cow P 128");
	orig = NULL;
}

/* The table names the origin as a mapped device, 253:0 in the recording. */
static void expect_sparse_status(void)
{
	char text[128];
	const char *line = strstr(recorded.kernel_log, "sparse1: ");

	cr_assert_gt(dmcore_device_text(stage.devices[1], DMCORE_TEXT_STATUS, 0, text,
					sizeof(text)),
		     0);
	cr_assert_eq(strncmp(line + strlen("sparse1: "), text, strlen(text)), 0, "%s", text);
}

Test(golden_snapshots, sparse_device_of_ten_tebibytes)
{
	load_case("sparse-10t");

	images_write_leaves(&recorded, ".post");
	open_sparse();
	expect_sparse();
	expect_sparse_status();
	stage_close(&stage);
	images_expect_leaves(&recorded, ".post");

	images_write_leaves(&recorded, ".pre");
	open_sparse();
	write_ops();
	expect_sparse();
	expect_sparse_status();
	stage_close(&stage);
	images_expect_leaves(&recorded, ".post");
	images_forget(&recorded);
}
