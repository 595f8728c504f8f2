/* SPDX-License-Identifier: MIT */
/*
 * Joins two files into one device, writes across the border between them, and reads it back.
 *
 *	truncate -s 1M a.img b.img
 *	./hello-linear a.img b.img
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore.h>

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

/* Sectors of a file or device. */
static unsigned long long size_of(struct dmcore *core, const char *path)
{
	struct dmcore_bdev *bdev;
	unsigned long long sectors;

	check(dmcore_bdev_open(core, path, 0, &bdev), "open");
	sectors = dmcore_bdev_size_sectors(bdev);
	check(dmcore_bdev_close(bdev), "close");
	return sectors;
}

int main(int argc, char **argv)
{
	char text[1024];
	char sent[1024] = "Half of me is in the first file, half in the second.";
	char got[1024];
	struct dmcore *core;
	struct dmcore_table *table;
	struct dmcore_device *device;
	struct dmcore_bdev *joined;
	unsigned long long first, second;

	if (argc != 3) {
		fprintf(stderr, "usage: %s FILE FILE\n", argv[0]);
		return 2;
	}
	check(dmcore_create(NULL, &core), "create");
	first = size_of(core, argv[1]);
	second = size_of(core, argv[2]);

	/* The same text as for dmsetup: start, length, type, device, offset. */
	snprintf(text, sizeof(text), "0 %llu linear %s 0\n%llu %llu linear %s 0\n",
		 first, argv[1], first, second, argv[2]);
	check(dmcore_table_parse(core, text, 0, &table), "table");
	check(dmcore_device_create(core, "joined", NULL, 0, &device), "device");
	check(dmcore_device_load(device, table), "load");
	check(dmcore_device_resume(device), "resume");
	joined = dmcore_device_bdev(device);

	/* One sector before the border and one behind it. */
	check(dmcore_pwrite(joined, sent, sizeof(sent), (first - 1) * 512), "write");
	check(dmcore_flush(joined), "flush");
	check(dmcore_pread(joined, got, sizeof(got), (first - 1) * 512), "read");
	printf("%s%s\n", text, memcmp(sent, got, sizeof(got)) ? "differs" : got);

	check(dmcore_device_remove(device), "remove");
	check(dmcore_destroy(core), "destroy");
	return 0;
}
