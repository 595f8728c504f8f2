/* SPDX-License-Identifier: MIT */
/* The smallest program with a table in it, built against the installed library. */
#include <stdio.h>
#include <string.h>

#include <dmcore.h>

#define SECTORS 8

static int read_zeroes(struct dmcore *core)
{
	static const char zeroes[SECTORS * DMCORE_SECTOR_BYTES];
	struct dmcore_table *table;
	struct dmcore_device *device;
	char buffer[sizeof(zeroes)];
	int ret;

	memset(buffer, 0xff, sizeof(buffer));
	ret = dmcore_table_parse(core, "0 8 zero", 0, &table);
	if (ret)
		return ret;
	ret = dmcore_device_create(core, "hello", NULL, 0, &device);
	if (!ret)
		ret = dmcore_device_load(device, table);
	if (ret) {
		dmcore_table_destroy(table);
		return ret;
	}
	ret = dmcore_device_resume(device);
	if (!ret)
		ret = dmcore_pread(dmcore_device_bdev(device), buffer, sizeof(buffer), 0);
	if (!ret && memcmp(buffer, zeroes, sizeof(zeroes)) != 0) {
		fprintf(stderr, "hello: the zero target reads something else\n");
		ret = 1;
	}
	return ret ? ret : dmcore_device_remove(device);
}

int main(void)
{
	struct dmcore *core;
	int ret = dmcore_create(NULL, &core);
	int destroyed;

	if (!ret) {
		ret = read_zeroes(core);
		destroyed = dmcore_destroy(core);
		ret = ret ? ret : destroyed;
	}
	if (ret)
		fprintf(stderr, "hello: %d: %s\n", ret, dmcore_error_message());
	return ret ? 1 : 0;
}
