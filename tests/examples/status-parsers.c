/* SPDX-License-Identifier: MIT */
/*
 * Reads lines of `dmsetup status` by libdevmapper's own parsers and prints the fields that they
 * have found. Compiled and called by dmsetup.sh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libdevmapper.h>

static int print_snapshot(struct dm_pool *pool, const char *params)
{
	struct dm_status_snapshot *status;

	if (!dm_get_status_snapshot(pool, params, &status))
		return 1;
	printf("snapshot used=%llu total=%llu metadata=%llu invalid=%d failed=%d overflow=%d\n",
	       (unsigned long long)status->used_sectors,
	       (unsigned long long)status->total_sectors,
	       (unsigned long long)status->metadata_sectors, (int)status->invalid,
	       (int)status->merge_failed, (int)status->overflow);
	return 0;
}

static int print_mirror(struct dm_pool *pool, const char *params)
{
	struct dm_status_mirror *status;

	if (!dm_get_status_mirror(pool, params, &status))
		return 1;
	printf("mirror legs=%u insync=%llu total=%llu health=", status->dev_count,
	       (unsigned long long)status->insync_regions,
	       (unsigned long long)status->total_regions);
	for (uint32_t i = 0; i < status->dev_count; i++)
		putchar(status->devs[i].health);
	printf(" log=%s", status->log_type);
	for (uint32_t i = 0; i < status->log_count; i++)
		printf("/%c", status->logs[i].health);
	putchar('\n');
	return 0;
}

int main(void)
{
	struct dm_pool *pool = dm_pool_create("status", 4096);
	char line[4096];
	int failed = 0;

	while (fgets(line, sizeof(line), stdin)) {
		char *type = strpbrk(line, "abcdefghijklmnopqrstuvwxyz");
		char *params = type ? strchr(type, ' ') : NULL;

		line[strcspn(line, "\n")] = '\0';
		if (!params)
			failed = 1;
		else if (strncmp(type, "snapshot", 8) == 0)
			failed |= print_snapshot(pool, params + 1);
		else
			failed |= print_mirror(pool, params + 1);
	}
	dm_pool_destroy(pool);
	return failed;
}
