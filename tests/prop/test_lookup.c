/* SPDX-License-Identifier: MIT */
/*
 * Every table of up to 4 targets on up to 8 sectors, and every request in it: which sectors of
 * which target it reaches, against a scan from the first target to the last.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "map/map.h"
#include "support/rng.h"
#include "support/stage.h"

#define SECTORS_MAX 8
#define TARGETS_MAX 4
/* Target i lies on the disk from sector i * SPAN on. */
#define SPAN 16
#define DISK_SECTORS (TARGETS_MAX * SPAN)

static struct stage stage;
static struct fault_disk *disk;
static struct dmcore_device *device;
static struct dmcore_bdev *bdev;
static unsigned char buffer[SECTORS_MAX * DMCORE_SECTOR_BYTES];

static unsigned int num_targets;
static unsigned int lengths[TARGETS_MAX];
static unsigned int failing; /* bit i: target i is an error target */
static unsigned int size;
static char text[512];
static unsigned int num_tables;
static unsigned int num_requests;

static void set_up(void)
{
	stage_open(&stage, NULL, NULL);
	disk = stage_disk(&stage, 0, DISK_SECTORS, "");
	for (unsigned int i = 0; i < DISK_SECTORS; i++)
		pattern_fill(fault_data(disk) + i * DMCORE_SECTOR_BYTES, i, 1, 0);
}

static void tear_down(void)
{
	stage_close(&stage);
}

TestSuite(lookup, .init = set_up, .fini = tear_down);

static void make_table(void)
{
	struct dmcore_table *table;
	unsigned int begin = 0;
	size_t used = 0;

	for (unsigned int i = 0; i < num_targets; i++) {
		if (failing >> i & 1)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%u %u error\n",
						 begin, lengths[i]);
		else
			used += (size_t)snprintf(text + used, sizeof(text) - used,
						 "%u %u linear %s %u\n", begin, lengths[i],
						 stage_disk_spec(0, DISK_SECTORS, ""), i * SPAN);
		begin += lengths[i];
	}
	cr_assert_eq(dmcore_table_parse(stage.core, text, 0, &table), 0, "%s",
		     dmcore_error_message());
	cr_assert_eq(dmcore_device_create(stage.core, "m", NULL, 0, &device), 0);
	cr_assert_eq(dmcore_device_load(device, table), 0);
	cr_assert_eq(dmcore_device_resume(device), 0);
	bdev = dmcore_device_bdev(device);
	num_tables++;
}

static bool is_next(unsigned int *logged, enum dmcore_op op, uint64_t sector, uint64_t count)
{
	struct fault_entry entry;

	if (*logged >= fault_num_logged(disk))
		return false;
	entry = fault_logged(disk, (*logged)++);
	return entry.op == op && entry.sector == sector && entry.count == count;
}

/* One request, and what a scan of the targets says about it. */
static void check_request(enum dmcore_op op, unsigned int sector, unsigned int count)
{
	unsigned int begin = 0;
	unsigned int logged = 0;
	int expected = 0;
	int status;

	fault_clear_log(disk);
	status = stage_run(&stage, bdev, op, 0, sector, count,
			   op == DMCORE_OP_READ ? buffer : NULL);
	num_requests++;
	for (unsigned int i = 0; i < num_targets; i++) {
		unsigned int end = begin + lengths[i];
		unsigned int first = sector > begin ? sector : begin;
		unsigned int last = sector + count < end ? sector + count : end;
		uint64_t below = i * SPAN + (first - begin);
		unsigned char *found = buffer + (size_t)(first - sector) * DMCORE_SECTOR_BYTES;

		begin = end;
		if (first >= last)
			continue;
		if (failing >> i & 1) {
			expected = -EIO;
			continue;
		}
		cr_assert(is_next(&logged, op, below, last - first),
			  "%u + %u misses target %u of\n%s", sector, count, i, text);
		if (op == DMCORE_OP_READ)
			cr_assert_eq(pattern_differs(found, below, last - first, 0), -1,
				     "%u + %u: target %u of\n%s", sector, count, i, text);
	}
	cr_assert_eq(fault_num_logged(disk), logged, "%u + %u reaches too much of\n%s", sector,
		     count, text);
	cr_assert_eq(status, expected, "%u + %u: %d instead of %d of\n%s", sector, count, status,
		     expected, text);
}

static void check_table(void)
{
	make_table();
	for (unsigned int sector = 0; sector < size; sector++) {
		for (unsigned int count = 1; count <= size - sector; count++)
			check_request(DMCORE_OP_READ, sector, count);
	}
	/* From every sector to every other: the last hit is where a look-up begins. */
	for (unsigned int from = 0; from < size && failing == 0; from++) {
		for (unsigned int to = 0; to < size; to++) {
			check_request(DMCORE_OP_READ, from, 1);
			check_request(DMCORE_OP_READ, to, 1);
		}
	}
	for (unsigned int count = 1; count <= size && failing == 0; count++) {
		for (unsigned int sector = 0; sector <= SECTORS_MAX; sector++) {
			if (sector + count > size)
				cr_assert_eq(stage_run(&stage, bdev, DMCORE_OP_READ, 0, sector,
						       count, buffer), -EIO);
		}
	}
	cr_assert_eq(dmcore_device_remove(device), 0);
}

/* All ways to cut what is left into the targets from `target` on. */
static void each_cut(unsigned int target, unsigned int left)
{
	if (left == 0) {
		num_targets = target;
		for (failing = 0; failing < 1u << num_targets; failing++)
			check_table();
		return;
	}
	if (target == TARGETS_MAX)
		return;
	for (lengths[target] = 1; lengths[target] <= left; lengths[target]++)
		each_cut(target + 1, left - lengths[target]);
}

Test(lookup, every_request_in_every_small_table)
{
	for (size = 1; size <= SECTORS_MAX; size++)
		each_cut(0, size);
	/* Cuts of n into k parts: n - 1 over k - 1; each with 2^k choices of error targets. */
	cr_assert_eq(num_tables, 2 * 8 + 4 * 28 + 8 * 56 + 16 * 70);
	cr_log_info("%u tables, %u requests", num_tables, num_requests);
}

/* In 14 steps at the most: each halves what is left. */
Test(lookup, of_a_sector_among_1_to_10000_targets_is_what_a_scan_finds)
{
	static uint64_t ends[10000];
	struct rng rng;

	rng_start(&rng, 5);
	for (uint64_t n = 1; n <= 10000; n += n < 300 ? 1 : rng_between(&rng, 1, 400)) {
		uint64_t end = 0;
		uint64_t scanned = 0;

		for (uint64_t i = 0; i < n; i++)
			ends[i] = end += rng_between(&rng, 1, 1 + rng_below(&rng, 1000));
		/* The first and the last sector of each, and one between. */
		for (uint64_t i = 0; i < n; i++) {
			uint64_t begin = i ? ends[i - 1] : 0;

			cr_assert_eq(dmcore__find_range(ends, n, begin), i);
			cr_assert_eq(dmcore__find_range(ends, n, ends[i] - 1), i);
		}
		for (unsigned int i = 0; i < 100; i++) {
			uint64_t sector = rng_below(&rng, end);

			for (scanned = 0; ends[scanned] <= sector;)
				scanned++;
			cr_assert_eq(dmcore__find_range(ends, n, sector), scanned);
		}
	}
}
