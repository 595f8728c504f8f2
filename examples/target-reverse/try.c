/* SPDX-License-Identifier: MIT */
/*
 * Registers the target, writes through it, and looks at where the chunks have landed on the device
 * below. Ends with 0 if all is as it should be.
 */
#include <stdio.h>
#include <string.h>

#include <dmcore.h>

#include "reverse.h"

#define CHUNK_SECTORS 8
#define CHUNK_BYTES (CHUNK_SECTORS * DMCORE_SECTOR_BYTES)
#define NUM_CHUNKS 16
#define SIZE_BYTES (NUM_CHUNKS * CHUNK_BYTES)
#define LEAF "mem:1M,name=leaf"
#define LEAF_START 24

static unsigned char written[SIZE_BYTES];
static unsigned char found[SIZE_BYTES];
static int failures;

static void expect(int is_true, const char *what)
{
	printf("%s %s\n", is_true ? "ok:    " : "FAILED:", what);
	if (!is_true)
		failures++;
}

static void expect_text(struct dmcore_device *device, enum dmcore_text_kind kind,
			const char *expected)
{
	char text[256];

	dmcore_device_text(device, kind, 0, text, sizeof(text));
	expect(strcmp(text, expected) == 0, text);
}

/* Each chunk is full of its own number. */
static void fill(void)
{
	for (int i = 0; i < NUM_CHUNKS; i++)
		memset(written + i * CHUNK_BYTES, i + 1, CHUNK_BYTES);
}

static int is_reversed(void)
{
	for (int i = 0; i < NUM_CHUNKS; i++) {
		if (memcmp(found + i * CHUNK_BYTES,
			   written + (NUM_CHUNKS - 1 - i) * CHUNK_BYTES, CHUNK_BYTES) != 0)
			return 0;
	}
	return 1;
}

/* One request over all chunks, and one across the border of two. */
static void try_io(struct dmcore_bdev *reversed, struct dmcore_bdev *leaf)
{
	fill();
	expect(dmcore_pwrite(reversed, written, SIZE_BYTES, 0) == 0, "write");
	expect(dmcore_flush(reversed) == 0, "flush");
	expect(dmcore_pread(leaf, found, SIZE_BYTES, LEAF_START * DMCORE_SECTOR_BYTES) == 0,
	       "read the device below");
	expect(is_reversed(), "its chunks are in reverse order");
	memset(found, 0, SIZE_BYTES);
	expect(dmcore_pread(reversed, found, 1024, CHUNK_BYTES - 512) == 0, "read across a border");
	expect(memcmp(found, written + CHUNK_BYTES - 512, 1024) == 0, "it is what was written");
}

/* Half of the device below fails, so half of the chunks do. */
static void try_errors(struct dmcore *core)
{
	struct dmcore_device *device;
	struct dmcore_bdev *bdev;

	expect(dmcore_device_create_concise(core,
					    "half,,,rw,0 64 zero,64 64 error;"
					    "bad,,,rw,0 128 reverse 8 half 0", 0, &device) == 0,
	       "reverse over a device that fails from the middle on");
	bdev = dmcore_device_bdev(device);
	expect(dmcore_pread(bdev, found, 512, 60 * 512) != 0, "the first half fails");
	expect(dmcore_pread(bdev, found, 512, 64 * 512) == 0, "the second half doesn't");
	expect_text(device, DMCORE_TEXT_STATUS, "0 128 reverse 1 60\n");
}

static void expect_refusal(struct dmcore *core, const char *text, const char *message)
{
	struct dmcore_table *table;
	int ret = dmcore_table_parse(core, text, 0, &table);

	expect(ret != 0 && strstr(dmcore_error_message(), message), message);
}

int main(void)
{
	struct dmcore *core;
	struct dmcore_device *device;
	struct dmcore_bdev *leaf;
	int ret = dmcore_create(NULL, &core);

	if (ret == 0)
		ret = dmcore_target_register(core, &reverse_target);
	if (ret == 0)
		ret = dmcore_bdev_open(core, LEAF, 0, &leaf);
	/* In the concise form a comma is quoted. */
	if (ret == 0)
		ret = dmcore_device_create_concise(
			core, "set,,,rw,0 128 reverse 8 mem:1M\\,name=leaf 24", 0, &device);
	if (ret) {
		fprintf(stderr, "%s\n", dmcore_error_message());
		return 1;
	}
	expect_text(device, DMCORE_TEXT_TABLE, "0 128 reverse 8 mem:1M,name=leaf 24\n");
	try_io(dmcore_device_bdev(device), leaf);
	expect_text(device, DMCORE_TEXT_STATUS, "0 128 reverse 0 -\n");
	expect_refusal(core, "0 128 reverse 7 mem:1M 0",
		       "reverse: Length not divisible by chunk size");
	expect_refusal(core, "0 128 reverse 0 mem:1M 0", "reverse: Invalid chunk size");
	expect_refusal(core, "0 128 reverse 8 mem:1M", "reverse: Invalid argument count");
	try_errors(core);
	dmcore_bdev_close(leaf);
	expect(dmcore_destroy(core) == 0, "all is given back");
	return failures != 0;
}
