/* SPDX-License-Identifier: MIT */
/*
 * A device of 10 TB in a small file: a snapshot of zeroes, which keeps in the file what is written
 * to it. Each run notes a text at the start of the first terabyte that has none, and prints all.
 *
 *	truncate -s 10M store.img
 *	./sparse-device store.img 'first text'
 *	./sparse-device store.img 'second text'
 *
 * When the file is full, the device fails. To begin anew, begin with a file of zeroes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dmcore.h>

#define TERABYTES 10
#define TERABYTE_SECTORS (1024ull * 1024 * 1024 * 2)
#define TEXT_BYTES 512 /* a sector */

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s (%s)\n", what, dmcore_error_message(),
			dmcore_error_name(ret));
		exit(1);
	}
}

/* Makes a device, and has it run. */
static struct dmcore_device *make(struct dmcore *core, const char *name, const char *text)
{
	struct dmcore_device *device;
	struct dmcore_table *table;

	check(dmcore_table_parse(core, text, 0, &table), "table");
	check(dmcore_device_create(core, name, NULL, 0, &device), "device");
	check(dmcore_device_load(device, table), "load");
	/* The first resume of a snapshot reads its store from the file, or makes one there. */
	check(dmcore_device_resume(device), "resume");
	return device;
}

static struct dmcore_device *make_sparse(struct dmcore *core, const char *store)
{
	unsigned long long sectors = TERABYTES * TERABYTE_SECTORS;
	char text[1024];

	/* The origin: nothing but zeroes, however large. */
	snprintf(text, sizeof(text), "0 %llu zero", sectors);
	make(core, "zero1", text);
	/* What is written goes to the store. p: it is to be found there again. 128: by 64 KiB. */
	snprintf(text, sizeof(text), "0 %llu snapshot /dev/mapper/zero1 %s p 128", sectors, store);
	return make(core, "sparse1", text);
}

int main(int argc, char **argv)
{
	struct dmcore_device *device;
	struct dmcore_bdev *sparse;
	struct dmcore *core;
	char status[256];
	bool noted = false;

	if (argc != 3 || strlen(argv[1]) > 800 || strlen(argv[2]) >= TEXT_BYTES) {
		fprintf(stderr, "usage: %s STORE TEXT\n", argv[0]);
		return 2;
	}
	check(dmcore_create(NULL, &core), "create");
	device = make_sparse(core, argv[1]);
	sparse = dmcore_device_bdev(device);

	for (unsigned int i = 0; i < TERABYTES && !noted; i++) {
		unsigned long long byte = i * TERABYTE_SECTORS * DMCORE_SECTOR_BYTES;
		char text[TEXT_BYTES];

		check(dmcore_pread(sparse, text, sizeof(text), byte), "read");
		noted = text[0] == '\0';
		if (noted) {
			snprintf(text, sizeof(text), "%s", argv[2]);
			check(dmcore_pwrite(sparse, text, sizeof(text), byte), "write");
		}
		printf("terabyte %u: %.*s\n", i, (int)sizeof(text), text);
	}
	/* As any disk's, what was written is durable when a flush has succeeded. */
	check(dmcore_flush(sparse), "flush");

	/* Sectors of the store in use, all that it has, and those that aren't data. */
	check((int)dmcore_device_text(device, DMCORE_TEXT_STATUS, 0, status, sizeof(status)),
	      "status");
	printf("%s", status);
	check(dmcore_destroy(core), "destroy");
	return 0;
}
