/* SPDX-License-Identifier: MIT */
/*
 * What the real kernel made of the COW devices of cow.txt, most of them damaged, against what the
 * snapshot of this library makes of them and what dmcat's cow-check foretells: taken or refused,
 * and the status.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../examples/dmcat/cow_check.h"
#include "support/fixture.h"

#define COW "mem:512s,name=cow"
#define COW_SECTORS 512u
#define COW_BYTES (COW_SECTORS * DMCORE_SECTOR_BYTES)
#define TABLE "0 128 snapshot mem:128s " COW " P 8"
#define STATUS_BYTES 256
#define CASES 160

TestSuite(golden_cow, .init = fixture_open, .fini = fixture_close);

struct golden {
	char status[64]; /* the kernel's, with a comma for the blank */
	unsigned char image[COW_BYTES];
};

static FILE *open_golden(void)
{
	const char *top = getenv("top_srcdir");
	char path[PATH_MAX];
	const char *here = __FILE__;
	FILE *file;

	if (top)
		snprintf(path, sizeof(path), "%s/tests/golden/cow.txt", top);
	else
		snprintf(path, sizeof(path), "%.*scow.txt", (int)(strrchr(here, '/') + 1 - here),
			 here);
	file = fopen(path, "r");
	cr_assert_not_null(file, "%s: %s", path, strerror(errno));
	return file;
}

/* Takes a number off the line. */
static uint64_t number(char **line, int base)
{
	char *end;
	uint64_t value = strtoull(*line, &end, base);

	cr_assert_neq(end, *line, "no number: %s", *line);
	*line = *end ? end + 1 : end;
	return value;
}

static void put_runs(struct golden *golden, char *line, uint32_t chunk_sectors)
{
	uint64_t entries = dmcore_cow_area_entries(chunk_sectors);

	while (*line && *line != '\n') {
		uint64_t index = number(&line, 10);
		struct dmcore_cow_entry entry;
		uint64_t count;

		entry.old_chunk = number(&line, 10);
		entry.new_chunk = number(&line, 10);
		for (count = number(&line, 10); count > 0; count--) {
			uint64_t at = dmcore_cow_area_chunk(chunk_sectors, index / entries) *
					      chunk_sectors * DMCORE_SECTOR_BYTES +
				      index % entries * DMCORE_COW_ENTRY_BYTES;

			cr_assert_leq(at + DMCORE_COW_ENTRY_BYTES, COW_BYTES);
			dmcore_cow_entry_encode(&entry, golden->image + at);
			entry.old_chunk++;
			entry.new_chunk++;
			index++;
		}
	}
}

static void read_golden(struct golden *golden, char *line)
{
	size_t length = strcspn(line, " ");
	struct dmcore_cow_header header;
	uint32_t chunk_sectors;

	memset(golden, 0, sizeof(*golden));
	cr_assert_lt(length, sizeof(golden->status));
	memcpy(golden->status, line, length);
	line += length + 1;
	header.magic = (uint32_t)number(&line, 16);
	header.valid = (uint32_t)number(&line, 10);
	header.version = (uint32_t)number(&line, 10);
	header.chunk_sectors = (uint32_t)number(&line, 10);
	chunk_sectors = (uint32_t)number(&line, 10);
	dmcore_cow_header_encode(&header, golden->image);
	put_runs(golden, line, chunk_sectors);
}

/* ---- cow-check ---- */

static void ignore(void *context, const struct cow_finding *finding)
{
	(void)context;
	(void)finding;
}

/* What it foretells, in the form of the file. */
static void foretell(struct dmcore_bdev *cow, char *status, size_t room)
{
	struct cow_check check = { .origin_sectors = 128, .fn = ignore };
	struct cow_reader reader;

	cr_assert_eq(cow_reader_open(&reader, cow), 0);
	cr_assert_eq(cow_check(&check, &reader), 0);
	if (check.counts[COW_NO_COW] || check.counts[COW_OTHER_VERSION] ||
	    check.counts[COW_BAD_CHUNK_SIZE] || check.counts[COW_TOO_SMALL] ||
	    check.counts[COW_NO_NEXT_AREA])
		snprintf(status, room, "refused");
	else if (check.counts[COW_INVALIDATED])
		snprintf(status, room, "Invalid");
	else if (check.counts[COW_IS_NEW])
		snprintf(status, room, "16/%u,16", COW_SECTORS);
	else
		snprintf(status, room, "%" PRIu64 "/%u,%" PRIu64, check.list.allocated_sectors,
			 COW_SECTORS, check.list.metadata_sectors);
	cow_reader_close(&reader);
}

/* ---- a snapshot ---- */

static void take(char *status, size_t room)
{
	struct dmcore_device *device;
	struct dmcore_table *table;
	char text[STATUS_BYTES];
	const char *tail;
	int ret;

	cr_assert_eq(dmcore_device_create(fixture.core, "s", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_table_parse(fixture.core, TABLE, 0, &table), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_load(device, table), 0, "%s", dmcore_error_message());
	ret = dmcore_device_resume(device);
	snprintf(status, room, "refused");
	if (ret == 0) {
		cr_assert_gt(dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, text, sizeof(text)),
			     0);
		text[strcspn(text, "\n")] = '\0';
		tail = text + strlen("0 128 snapshot ");
		snprintf(status, room, "%s", tail);
		status[strcspn(status, " ")] = strchr(tail, ' ') ? ',' : '\0';
	}
	cr_assert_eq(dmcore_device_remove(device), 0, "%s", dmcore_error_message());
}

Test(golden_cow, is_taken_or_refused_as_the_kernel_does)
{
	static struct golden golden;
	FILE *file = open_golden();
	char *line = NULL;
	size_t room = 0;
	unsigned int num_cases = 0;

	while (getline(&line, &room, file) > 0) {
		struct dmcore_bdev *cow;
		char status[STATUS_BYTES];

		if (line[0] == '#')
			continue;
		read_golden(&golden, line);
		cr_assert_eq(dmcore_bdev_open(fixture.core, COW, 0, &cow), 0);
		cr_assert_eq(dmcore_pwrite(cow, golden.image, COW_BYTES, 0), 0);
		foretell(cow, status, sizeof(status));
		cr_assert_str_eq(status, golden.status, "cow-check: %s", line);
		take(status, sizeof(status));
		cr_assert_str_eq(status, golden.status, "snapshot: %s", line);
		dmcore_bdev_close(cow);
		num_cases++;
	}
	cr_assert_eq(num_cases, CASES);
	free(line);
	fclose(file);
}
