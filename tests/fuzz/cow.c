/* SPDX-License-Identifier: MIT */
/*
 * Fuzzer of COW devices: the bytes of an input make an image, then requests. What the checker of
 * dmcat thinks of the image must agree with what a snapshot does with it; a store that it trusts
 * reads as it says, and goes on doing so. No byte outside the device is ever changed.
 *
 * Input: a byte of OPTION_*, the size of the device in units of 8 sectors, less one; the header:
 * its 16 bytes, or, if the first one is below 6, a good one with chunks of so many bits; then
 * steps. Those that make the image count until the first one that is a request.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../examples/dmcat/cow_check.h"
#include "fuzz.h"

#define OPTION_LARGE_BLOCKS (1u << 0)
#define OPTION_MERGE (1u << 1)
#define OPTION_OVERFLOW (1u << 2)    /* PO */
#define OPTION_NO_CHUNK_SIZE (1u << 3)
#define OPTION_CHECK_ANYWAY (1u << 4) /* by a chunk size of its own */

#define ORIGIN_SECTORS 120u
#define ORIGIN_BYTES (ORIGIN_SECTORS * DMCORE_SECTOR_BYTES)
#define COW_SECTORS_MAX 2048u
#define GUARD_SECTORS 64u
#define GUARD_BYTES (GUARD_SECTORS * DMCORE_SECTOR_BYTES)
#define STEPS_MAX 256u
#define SPEC_BYTES 64

static unsigned char buffer[COW_SECTORS_MAX * DMCORE_SECTOR_BYTES];
static unsigned char image[COW_SECTORS_MAX * DMCORE_SECTOR_BYTES];

static struct {
	struct fuzz_bytes bytes;
	struct dmcore *core;
	unsigned int options;
	uint32_t block_bytes;
	uint32_t chunk_sectors;      /* by which steps find areas */
	uint64_t cow_sectors;
	struct dmcore_bdev *disk;    /* the COW device, with a guard before and behind it */
	struct dmcore_device *base;  /* the origin itself */
	struct dmcore_device *cow;
	struct dmcore_device *device; /* the snapshot, or NULL */
	struct dmcore_device *origin; /* the snapshot-origin */
	bool is_trusted;             /* the snapshot holds what is expected */
	unsigned char expected[ORIGIN_BYTES];
	unsigned char expected_origin[ORIGIN_BYTES];
} run;

static uint64_t number(unsigned int num_bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < num_bytes; i++)
		value |= (uint64_t)fuzz_u8(&run.bytes) << (8 * i);
	return value;
}

static uint64_t image_bytes(void)
{
	return run.cow_sectors * DMCORE_SECTOR_BYTES;
}

static void pattern(unsigned char *bytes, size_t count, uint64_t seed)
{
	for (size_t at = 0; at < count; at += DMCORE_SECTOR_BYTES) {
		memset(bytes + at, (int)((seed + at / DMCORE_SECTOR_BYTES) * 37 % 256),
		       DMCORE_SECTOR_BYTES);
		bytes[at] = 1;
	}
}

/* ---- the image ------------------------------------------------------------------------------ */

static void put_entry(uint64_t area, uint64_t index, uint64_t old_chunk, uint64_t new_chunk)
{
	const struct dmcore_cow_entry entry = { old_chunk, new_chunk };
	uint64_t at = dmcore_cow_area_chunk(run.chunk_sectors, area) * run.chunk_sectors *
			      DMCORE_SECTOR_BYTES + index * DMCORE_COW_ENTRY_BYTES;

	if (at + DMCORE_COW_ENTRY_BYTES <= image_bytes())
		dmcore_cow_entry_encode(&entry, image + at);
}

static void make_header(void)
{
	unsigned int first = fuzz_u8(&run.bytes);
	struct dmcore_cow_header header = { DMCORE_COW_MAGIC, 1, DMCORE_COW_VERSION,
					    UINT32_C(1) << (first & 7) };

	run.chunk_sectors = 8;
	if (first < 6) {
		run.chunk_sectors = header.chunk_sectors;
		dmcore_cow_header_encode(&header, image);
		return;
	}
	image[0] = (unsigned char)first;
	for (unsigned int i = 1; i < DMCORE_COW_HEADER_BYTES; i++)
		image[i] = fuzz_u8(&run.bytes);
	if (dmcore_cow_header_decode(image, &header) == DMCORE_COW_GOOD)
		run.chunk_sectors = header.chunk_sectors;
}

static void make_run(void)
{
	uint64_t area = fuzz_u8(&run.bytes);
	uint64_t index = number(2);
	uint64_t count = fuzz_u8(&run.bytes);
	uint64_t old_chunk = number(2);
	uint64_t new_chunk = number(2);

	for (uint64_t i = 0; i < count; i++)
		put_entry(area, index + i, old_chunk + i, new_chunk + i);
}

static void make_bytes(void)
{
	uint64_t at = number(2) * 32;
	uint64_t count = fuzz_u8(&run.bytes);
	unsigned int with = fuzz_u8(&run.bytes);

	for (uint64_t i = at; i < at + count * 16 && i < image_bytes(); i++)
		image[i] = (unsigned char)(with + (with & 1 ? i : 0));
}

/* False: the step is a request. */
static bool make_step(unsigned int choice)
{
	uint64_t area;
	uint64_t index;
	uint64_t old_chunk;

	switch (choice % 8) {
	case 0:
		make_run();
		return true;
	case 1:
		area = fuzz_u8(&run.bytes);
		index = number(2);
		old_chunk = fuzz_u8(&run.bytes);
		put_entry(area, index, old_chunk, fuzz_u8(&run.bytes));
		return true;
	case 2:
		area = fuzz_u8(&run.bytes);
		index = number(2);
		old_chunk = number(8);
		put_entry(area, index, old_chunk, number(8));
		return true;
	case 3:
		make_bytes();
		return true;
	default:
		return false;
	}
}

/* ---- the world ------------------------------------------------------------------------------ */

static struct dmcore_device *make_device(const char *name, const char *table)
{
	struct dmcore_device *device;
	int ret = dmcore_device_create(run.core, name, NULL, 0, &device);
	struct dmcore_table *parsed;

	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_table_parse(run.core, table, 0, &parsed);
	FUZZ_CHECK(ret == 0, "%s: %s", table, dmcore_error_message());
	ret = dmcore_device_load(device, parsed);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	ret = dmcore_device_resume(device);
	if (ret == 0)
		return device;
	FUZZ_CHECK(strcmp(name, "s") == 0 && *dmcore_error_message(), "%s: %d", table, ret);
	FUZZ_CHECK(dmcore_device_remove(device) == 0, "%s", dmcore_error_message());
	return NULL;
}

static void remove_device(struct dmcore_device *device)
{
	FUZZ_CHECK(!device || dmcore_device_remove(device) == 0, "%s", dmcore_error_message());
}

static void make_world(void)
{
	unsigned int kib = (unsigned int)(run.cow_sectors + 2 * GUARD_SECTORS) / 2;
	char spec[SPEC_BYTES];
	char table[2 * SPEC_BYTES];
	int ret;

	run.core = dmcore_queue_core(fuzz_kept_queue());
	snprintf(spec, sizeof(spec), "mem:%uk,name=disk,block=%u", kib, run.block_bytes);
	ret = dmcore_bdev_open(run.core, spec, 0, &run.disk);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	snprintf(table, sizeof(table), "0 %u linear %s %u", (unsigned int)run.cow_sectors, spec,
		 GUARD_SECTORS);
	run.cow = make_device("cow", table);
	snprintf(table, sizeof(table), "0 %u linear mem:%uk,block=%u 0", ORIGIN_SECTORS,
		 ORIGIN_SECTORS / 2, run.block_bytes);
	run.base = make_device("base", table);
	memset(buffer, 0xa5, GUARD_BYTES);
	ret = dmcore_pwrite(run.disk, buffer, GUARD_BYTES, 0);
	if (ret == 0)
		ret = dmcore_pwrite(run.disk, buffer, GUARD_BYTES,
				    GUARD_BYTES + image_bytes());
	if (ret == 0)
		ret = dmcore_pwrite(dmcore_device_bdev(run.base), run.expected_origin,
				    ORIGIN_BYTES, 0);
	if (ret == 0)
		ret = dmcore_pwrite(run.disk, image, image_bytes(), GUARD_BYTES);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
}

/* Not byte by byte, unless they differ. */
static void check_bytes(const unsigned char *bytes, const unsigned char *expected, size_t count,
			const char *what)
{
	size_t i = 0;

	if (memcmp(bytes, expected, count) == 0)
		return;
	while (bytes[i] == expected[i])
		i++;
	fuzz_fail(__FILE__, __LINE__, "another byte", "%s: byte %zu of sector %zu", what, i % 512,
		  i / 512);
}

static void check_guards(void)
{
	static unsigned char expected[GUARD_BYTES];

	memset(expected, 0xa5, sizeof(expected));
	for (unsigned int side = 0; side < 2; side++) {
		uint64_t at = side ? GUARD_BYTES + image_bytes() : 0;
		int ret = dmcore_pread(run.disk, buffer, GUARD_BYTES, at);

		FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
		check_bytes(buffer, expected, GUARD_BYTES,
			    side ? "behind the device" : "before the device");
	}
}

static void check_content(struct dmcore_device *device, const unsigned char *expected,
			  const char *what)
{
	int ret = dmcore_pread(dmcore_device_bdev(device), buffer, ORIGIN_BYTES, 0);

	FUZZ_CHECK(ret == 0, "%s: %s", what, dmcore_error_message());
	check_bytes(buffer, expected, ORIGIN_BYTES, what);
}

/* ---- the checker ---------------------------------------------------------------------------- */

static void take_finding(void *context, const struct cow_finding *finding)
{
	(void)context;
	FUZZ_CHECK(finding->kind < COW_NUM_KINDS && finding->text[0], "kind %d", finding->kind);
}

/* The finding that a snapshot can't be expected to work with. */
static const char *find_fault(const struct cow_check *check)
{
	for (unsigned int i = 0; i < COW_NUM_KINDS; i++) {
		if (check->counts[i] > 0 && (cow_kinds[i].is_error || i == COW_IS_NEW))
			return cow_kinds[i].name;
	}
	return NULL;
}

static void check_image(struct cow_check *check)
{
	struct cow_reader reader;
	int ret;

	*check = (struct cow_check){
		.chunk_sectors = run.options & OPTION_CHECK_ANYWAY ? 8 : 0,
		.origin_sectors = ORIGIN_SECTORS,
		.limit = run.options & OPTION_MERGE ? UINT64_MAX : 1,
		.fn = take_finding,
	};
	ret = cow_reader_open(&reader, dmcore_device_bdev(run.cow));
	if (ret == 0)
		ret = cow_check(check, &reader);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
	cow_reader_close(&reader);
	check->reader = NULL;
}

static int expect_entry(void *context, const struct cow_place *place,
			const struct dmcore_cow_entry *entry)
{
	size_t chunk_bytes = (size_t)run.chunk_sectors * DMCORE_SECTOR_BYTES;
	size_t to = (size_t)entry->old_chunk * chunk_bytes;

	(void)context;
	(void)place;
	memcpy(run.expected + to, image + (size_t)entry->new_chunk * chunk_bytes,
	       ORIGIN_BYTES - to < chunk_bytes ? ORIGIN_BYTES - to : chunk_bytes);
	return 0;
}

/* What a store that is in order says that the snapshot holds. */
static void expect_content(void)
{
	struct cow_reader reader;
	struct cow_list list;
	int ret = cow_reader_open(&reader, dmcore_device_bdev(run.cow));

	memcpy(run.expected, run.expected_origin, ORIGIN_BYTES);
	FUZZ_CHECK(ret == 0 && cow_reader_choose_chunks(&reader, 0), "%d", ret);
	ret = cow_walk(&reader, expect_entry, NULL, &list);
	FUZZ_CHECK(ret == 0 && list.is_terminated, "%d", ret);
	cow_reader_close(&reader);
}

/* ---- the snapshot --------------------------------------------------------------------------- */

/* Whether the snapshot says of itself that it is of no more use. */
static bool is_lost(void)
{
	char text[256];

	if (dmcore_device_text(run.device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)) < 0)
		return false;
	return strstr(text, " Invalid") || strstr(text, " Overflow") ||
	       strstr(text, " Merge failed");
}

static void check_status(const struct cow_list *list)
{
	char expected[256];
	char text[256];

	snprintf(expected, sizeof(expected), "0 %u snapshot %llu/%llu %llu\n", ORIGIN_SECTORS,
		 (unsigned long long)list->allocated_sectors,
		 (unsigned long long)run.cow_sectors, (unsigned long long)list->metadata_sectors);
	if (dmcore_device_text(run.device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)) < 0)
		return;
	FUZZ_CHECK(strcmp(text, expected) == 0, "%snot %s", text, expected);
}

static void start(void)
{
	const char *kind = run.options & OPTION_MERGE ? "snapshot-merge" : "snapshot";
	struct cow_check check;
	const char *fault;
	char table[2 * SPEC_BYTES];

	check_image(&check);
	fault = find_fault(&check);
	check_content(run.base, run.expected_origin, "the origin, after the check");
	FUZZ_CHECK(dmcore_pread(run.disk, buffer, image_bytes(), GUARD_BYTES) == 0 &&
		   memcmp(buffer, image, image_bytes()) == 0, "the check has written");
	if (!fault)
		expect_content();
	snprintf(table, sizeof(table), "0 %u %s base cow %s %d", ORIGIN_SECTORS, kind,
		 run.options & OPTION_OVERFLOW ? "PO" : "P",
		 run.options & OPTION_NO_CHUNK_SIZE ? 0 : 8);
	run.device = make_device("s", table);
	run.is_trusted = !fault;
	FUZZ_CHECK(run.device || fault, "nothing is wrong: %s", dmcore_error_message());
	if (!run.device)
		return;
	FUZZ_CHECK(check.counts[COW_NO_COW] + check.counts[COW_OTHER_VERSION] +
		   check.counts[COW_BAD_CHUNK_SIZE] + check.counts[COW_NO_NEXT_AREA] == 0,
		   "taken in spite of: %s", fault);
	if (check.counts[COW_INVALIDATED])
		FUZZ_CHECK(is_lost(), "not invalid");
	if (run.options & OPTION_MERGE)
		return;
	if (run.is_trusted)
		check_status(&check.list);
	run.origin = make_device("o", "0 120 snapshot-origin base");
}

/* ---- requests ------------------------------------------------------------------------------- */

/* A range of whole blocks. */
static void choose_range(uint64_t *at_bytes, size_t *count_bytes)
{
	uint32_t num_blocks = ORIGIN_BYTES / run.block_bytes;
	uint32_t first = fuzz_below(&run.bytes, num_blocks);
	uint32_t count = 1 + fuzz_below(&run.bytes, num_blocks);

	if (count > num_blocks - first)
		count = num_blocks - first;
	*at_bytes = (uint64_t)first * run.block_bytes;
	*count_bytes = (size_t)count * run.block_bytes;
}

static void check_trust(int ret, const char *what)
{
	bool lost = is_lost();

	FUZZ_CHECK(ret <= 0, "%s: %d", what, ret);
	FUZZ_CHECK(ret == 0 || lost || !run.is_trusted, "%s: %s", what, dmcore_error_message());
	if (lost)
		run.is_trusted = false;
}

static void write_to(struct dmcore_device *device, unsigned char *expected, const char *what)
{
	uint64_t at_bytes;
	size_t bytes;
	int ret;

	choose_range(&at_bytes, &bytes);
	pattern(buffer, bytes, fuzz_u8(&run.bytes));
	ret = dmcore_pwrite(dmcore_device_bdev(device), buffer, bytes, at_bytes);
	if (ret == 0)
		memcpy(expected + at_bytes, buffer, bytes);
	/* A write to the origin fails for no snapshot. */
	FUZZ_CHECK(ret == 0 || expected == run.expected, "%s: %s", what, dmcore_error_message());
	check_trust(ret, what);
}

static void read_from_snapshot(void)
{
	uint64_t at_bytes;
	size_t bytes;
	int ret;

	choose_range(&at_bytes, &bytes);
	ret = dmcore_pread(dmcore_device_bdev(run.device), buffer, bytes, at_bytes);
	check_trust(ret, "read");
	if (run.is_trusted)
		check_bytes(buffer, run.expected + at_bytes, bytes, "a read");
}

static void request(unsigned int choice)
{
	int ret;

	switch (choice % 8) {
	case 4:
		write_to(run.device, run.expected, "write");
		break;
	case 5:
		read_from_snapshot();
		break;
	case 6:
		if (run.origin)
			write_to(run.origin, run.expected_origin, "write to the origin");
		break;
	case 7:
		ret = dmcore_flush(dmcore_device_bdev(run.device));
		check_trust(ret, "flush");
		break;
	default:
		ret = dmcore_device_suspend(run.device, 0, -1);
		FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
		ret = dmcore_device_resume(run.device);
		FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
		break;
	}
}

/* Time for a merge: of a trusted store it ends. */
static void end_merge(void)
{
	uint32_t event_nr = dmcore_device_event_nr(run.device);
	struct cow_check check;

	for (unsigned int i = 0; i < 200; i++)
		dmcore_device_wait(run.device, &event_nr, 1000000);
	if (!run.is_trusted || is_lost())
		return;
	check_content(run.base, run.expected, "the origin that was merged into");
	check_image(&check);
	FUZZ_CHECK(check.has_list && check.list.num_entries == 0, "entries are left");
}

/* What has been written is there when all begins anew, and the store is in order. */
static void check_end(void)
{
	const char *kind = run.options & OPTION_MERGE ? "snapshot-merge" : "snapshot";
	struct cow_check check;
	char table[2 * SPEC_BYTES];

	check_image(&check);
	FUZZ_CHECK(!find_fault(&check) && check.counts[COW_STALE] == 0, "%s",
		   find_fault(&check) ? find_fault(&check) : "stale");
	snprintf(table, sizeof(table), "0 %u %s base cow P 8", ORIGIN_SECTORS, kind);
	run.device = make_device("s", table);
	FUZZ_CHECK(run.device && !is_lost(), "%s", dmcore_error_message());
	check_content(run.device, run.expected, "the snapshot, once more");
	remove_device(run.device);
}

static void run_input(void)
{
	unsigned int choice = 0;
	bool has_begun = false;

	for (unsigned int i = 0; i < STEPS_MAX && run.bytes.left > 0; i++) {
		choice = fuzz_u8(&run.bytes);
		if (!has_begun && make_step(choice))
			continue;
		if (!has_begun) {
			make_world();
			start();
		}
		has_begun = true;
		if (!run.device)
			break;
		request(choice);
	}
	if (!has_begun) {
		make_world();
		start();
	}
	if (run.device && run.is_trusted)
		check_content(run.device, run.expected, "the snapshot");
	if (run.device && run.options & OPTION_MERGE)
		end_merge();
	run.is_trusted = run.is_trusted && run.device && !is_lost();
	if (run.origin)
		check_content(run.base, run.expected_origin, "the origin");
	remove_device(run.origin);
	remove_device(run.device);
	if (run.is_trusted)
		check_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&run, 0, sizeof(run));
	run.bytes = (struct fuzz_bytes){ data, size };
	run.options = fuzz_u8(&run.bytes);
	run.block_bytes = run.options & OPTION_LARGE_BLOCKS ? 4096 : 512;
	run.cow_sectors = 8 * (1 + (uint64_t)fuzz_u8(&run.bytes));
	pattern(run.expected_origin, ORIGIN_BYTES, 100);
	memset(image, 0, image_bytes());
	make_header();
	fuzz_enter();
	run_input();
	check_guards();
	remove_device(run.cow);
	remove_device(run.base);
	dmcore_bdev_close(run.disk);
	fuzz_kept_check();
	fuzz_leave();
	return 0;
}
