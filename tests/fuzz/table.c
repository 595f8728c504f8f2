/* SPDX-License-Identifier: MIT */
/*
 * Fuzzer of table texts. The first byte of an input holds options, the rest is the text.
 *
 * What is accepted prints as a text that is accepted too and prints as itself. What is refused
 * leaves a message, which names a line of the text if it names one at all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

/* Of the first byte. */
#define OPTION_READ_ONLY (1u << 0)
#define OPTION_CONCISE (1u << 1)
#define OPTION_RUN (1u << 2)

/* A text in a buffer that is as long as it must be, for free(). NULL: there is no memory. */
static char *text_of(struct dmcore_table *table, enum dmcore_text_kind kind)
{
	int64_t length = dmcore_table_text(table, kind, NULL, 0);
	char *text;

	FUZZ_CHECK(length >= 0 || length == -ENOMEM, "%s", dmcore_error_message());
	if (length < 0)
		return NULL;
	text = malloc((size_t)length + 1);
	FUZZ_CHECK(text, "no memory for %lld bytes", (long long)length);
	FUZZ_CHECK(dmcore_table_text(table, kind, text, (size_t)length + 1) == length,
		   "the length changes");
	FUZZ_CHECK(strlen(text) == (size_t)length, "a NUL in '%s'", text);
	return text;
}

static unsigned int count_lines(const char *text)
{
	unsigned int count = 1;

	for (; *text; text++)
		count += *text == '\n';
	return count;
}

/* A line number in front of a message is one of the text's. */
static void check_refusal(const char *text, int error)
{
	const char *message = dmcore_error_message();
	unsigned long number;
	char *end;

	FUZZ_CHECK(error < 0 && error > -4096, "%d", error);
	FUZZ_CHECK(*message, "no message for %d", error);
	if (strncmp(message, "table line ", 11) != 0)
		return;
	number = strtoul(message + 11, &end, 10);
	FUZZ_CHECK(strncmp(end, ": ", 2) == 0, "%s", message);
	FUZZ_CHECK(number >= 1 && number <= count_lines(text), "%s", message);
}

static void check_form(struct dmcore_table *table, const char *text)
{
	fuzz_check_text(text, dmcore_table_num_targets(table), dmcore_table_size_sectors(table));
}

static void check_texts(struct dmcore_table *table)
{
	char *status = text_of(table, DMCORE_TEXT_STATUS);
	char *text = text_of(table, DMCORE_TEXT_TABLE);

	if (text)
		check_form(table, text);
	if (status)
		check_form(table, status);
	free(text);
	free(status);
}

/* print(parse(text)) is text. */
static void check_fixed_point(struct dmcore *core, const char *text, unsigned int flags)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(core, text, flags, &table);
	char *again;

	/* There is a bound on memory, and on devices, for two at once. */
	if (ret == -ENOMEM || ret == -ENFILE)
		return;
	FUZZ_CHECK(ret == 0, "%s: of its own: %s", dmcore_error_message(), text);
	again = text_of(table, DMCORE_TEXT_TABLE);
	FUZZ_CHECK(!again || strcmp(again, text) == 0, "'%s' prints as '%s'", text, again);
	free(again);
	dmcore_table_destroy(table);
}

/* Reads and writes at both ends, whatever comes of it. */
static void try_ends(struct dmcore_device *device)
{
	struct dmcore_bdev *bdev = dmcore_device_bdev(device);
	uint64_t size_sectors = dmcore_bdev_size_sectors(bdev);
	uint64_t sectors[] = { 0, size_sectors / 2, size_sectors - 1 };
	char buffer[DMCORE_SECTOR_BYTES] = "";

	for (unsigned int i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		uint64_t offset_bytes = sectors[i] * DMCORE_SECTOR_BYTES;
		int ret = dmcore_pwrite(bdev, buffer, sizeof(buffer), offset_bytes);

		FUZZ_CHECK(ret <= 0, "%d", ret);
		ret = dmcore_pread(bdev, buffer, sizeof(buffer), offset_bytes);
		FUZZ_CHECK(ret <= 0, "%d", ret);
	}
	FUZZ_CHECK(dmcore_flush(bdev) <= 0, "a count");
}

static void run_table(struct dmcore *core, struct dmcore_table *table, unsigned int flags)
{
	struct dmcore_device *device;
	int ret = dmcore_device_create(core, "fuzz", NULL, flags, &device);

	FUZZ_CHECK(ret == 0 || ret == -ENOMEM || ret == -ENFILE, "%s", dmcore_error_message());
	if (ret == 0)
		ret = dmcore_device_load(device, table);
	if (ret) {
		dmcore_table_destroy(table);
		return;
	}
	ret = dmcore_device_resume(device);
	if (ret == 0)
		try_ends(device);
	FUZZ_CHECK(ret <= 0, "%d", ret);
	ret = dmcore_device_remove(device);
	FUZZ_CHECK(ret == 0, "%s", dmcore_error_message());
}

static void fuzz_table(struct dmcore *core, const char *text, unsigned int options)
{
	unsigned int flags = options & OPTION_READ_ONLY ? DMCORE_TABLE_READ_ONLY : 0;
	struct dmcore_table *table;
	int ret = dmcore_table_parse(core, text, flags, &table);
	char *printed;

	FUZZ_CHECK((ret == 0) == (table != NULL), "%d", ret);
	if (ret) {
		check_refusal(text, ret);
		return;
	}
	check_texts(table);
	printed = text_of(table, DMCORE_TEXT_TABLE);
	/* Once beside the first, and once without it. */
	if (printed)
		check_fixed_point(core, printed, flags);
	if (options & OPTION_RUN)
		run_table(core, table, flags);
	else
		dmcore_table_destroy(table);
	if (printed)
		check_fixed_point(core, printed, flags);
	free(printed);
}

static void check_device(struct dmcore *core, struct dmcore_device *device, unsigned int flags)
{
	struct dmcore_device_info info = { .struct_size = sizeof(info) };
	int64_t length = dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, NULL, 0);
	char *text;

	FUZZ_CHECK(dmcore_device_info(device, &info) == 0, "%s", dmcore_error_message());
	FUZZ_CHECK(info.live_table && !info.suspended, "%s", info.name);
	FUZZ_CHECK(dmcore_device_find(core, info.name) == device, "%s", info.name);
	if (length < 0)
		return;
	text = malloc((size_t)length + 1);
	FUZZ_CHECK(text, "no memory");
	if (dmcore_device_text(device, DMCORE_TEXT_TABLE, 0, text, (size_t)length + 1) == length)
		check_fixed_point(core, text,
				  flags | (info.read_only ? DMCORE_TABLE_READ_ONLY : 0));
	free(text);
}

/* Whether a device has the name of a file: tables that name the file now mean the device. */
static bool hides_a_file(struct dmcore *core)
{
	return dmcore_device_find(core, "a") || dmcore_device_find(core, "b") ||
	       dmcore_device_find(core, "c") || dmcore_device_find(core, "d");
}

static void fuzz_concise(struct dmcore *core, const char *text, unsigned int options)
{
	unsigned int flags = options & OPTION_READ_ONLY ? DMCORE_TABLE_READ_ONLY : 0;
	struct dmcore_device *device;
	int ret = dmcore_device_create_concise(core, text, flags, &device);

	if (ret) {
		FUZZ_CHECK(*dmcore_error_message(), "no message for %d", ret);
		FUZZ_CHECK(!device && !dmcore_device_at(core, 0), "a device is left");
		return;
	}
	for (unsigned int i = 0; (device = dmcore_device_at(core, i)) != NULL; i++) {
		if (!hides_a_file(core))
			check_device(core, device, flags);
		if (options & OPTION_RUN)
			try_ends(device);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_bytes bytes = { data, size };
	unsigned int options = fuzz_u8(&bytes);
	char text[FUZZ_BYTES_MAX];
	struct dmcore *core;

	fuzz_enter();
	fuzz_text(&bytes, text, sizeof(text));
	core = fuzz_core();
	if (options & OPTION_CONCISE)
		fuzz_concise(core, text, options);
	else
		fuzz_table(core, text, options);
	fuzz_core_end(core);
	fuzz_leave();
	return 0;
}
