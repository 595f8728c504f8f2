/* SPDX-License-Identifier: MIT */
/*
 * Striped devices without data: requests that fit in a chunk, and requests that are split in two.
 */
#include <stdio.h>
#include <string.h>

#include "rig.h"

#define STRIPES 4u
#define LAYER_BAR_NS 12
#define CHUNK_SECTORS 128u
#define SPLIT_FULL_COUNT 16384u
#define SPLIT_SMOKE_COUNT 4096u

/* Over as many zero devices; NULL: it has been said why. */
static struct dmcore_bdev *make_striped(struct rig *rig)
{
	char table[256];
	int used = snprintf(table, sizeof(table), "0 %llu striped %u %u",
			    (unsigned long long)RIG_TOP_SECTORS, STRIPES, CHUNK_SECTORS);

	for (unsigned int i = 0; i < STRIPES; i++) {
		char name[16];
		char zero[64];

		snprintf(name, sizeof(name), "zero%u", i);
		snprintf(zero, sizeof(zero), "0 %llu zero",
			 (unsigned long long)RIG_TOP_SECTORS / STRIPES);
		if (!rig_map(rig, name, zero))
			return NULL;
		used += snprintf(table + used, sizeof(table) - (size_t)used, " /dev/mapper/%s 0",
				 name);
	}
	return rig_map(rig, "striped", table);
}

static int measure_striped(struct rig *rig, struct bench_row *rows)
{
	struct straw_device zero = { .map = straw_zero, .size_sectors = RIG_ZERO_SECTORS };
	struct straw_device striped = { .map = straw_striped,
					.size_sectors = RIG_TOP_SECTORS,
					.below = &zero,
					.chunk_sectors = CHUNK_SECTORS,
					.stripes = STRIPES };
	struct straw_load straws[2] = { { .device = &zero }, { .device = &striped } };
	struct dmcore_bdev *bdev = make_striped(rig);
	struct load loads[2] = { rig_load(rig, rig->zero, 32), rig_load(rig, bdev, 32) };

	return bdev ? rig_measure_pairs(rig, rows, loads, straws, 2) : -1;
}

static int run_striped(struct bench *bench)
{
	struct bench_row rows[4] = { { .name = "striped/none" },
				     { .name = "" },
				     { .name = "striped/4" } };
	struct rig rig;
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	if (ret == 0)
		ret = measure_striped(&rig, rows);
	if (ret == 0)
		bench_report_value(bench, "striped/each", "ns/layer",
				   rows[2].best_ns - rows[0].best_ns,
				   rows[2].median_ns - rows[0].median_ns, LAYER_BAR_NS);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_striped = {
	"striped", "the same through a stripe of 4 zero devices, 64 KiB chunks, batches of 32",
	run_striped
};

/* Requests of two chunks, beside requests of one: the floor of a split is to send the pieces. */
static int measure_split(struct rig *rig, struct bench_row *rows)
{
	struct dmcore_bdev *bdev = make_striped(rig);
	struct load loads[2];
	int ret = bdev ? 0 : -1;

	for (unsigned int i = 0; i < 2 && ret == 0; i++) {
		loads[i] = rig_load(rig, bdev, 32);
		loads[i].sectors = (uint64_t)CHUNK_SECTORS * (2 - i);
		loads[i].positions = RIG_TOP_SECTORS / loads[i].sectors;
		loads[i].hash_by = LOAD_HASH_COUNT;
		rows[i].fn = load_run;
		rows[i].context = &loads[i];
		rows[i].count = bench_size(rig->bench, SPLIT_FULL_COUNT, SPLIT_SMOKE_COUNT);
		ret = load_open(&loads[i]);
		if (ret && i)
			load_close(&loads[0]);
	}
	if (ret)
		return ret;
	ret = bench_measure(rig->bench, rows, 2);
	load_close(&loads[0]);
	load_close(&loads[1]);
	return ret;
}

static int run_split(struct bench *bench)
{
	struct bench_row rows[2] = { { .name = "split/128k", .floor = &rows[1] },
				     { .name = "split/64k" } };
	struct rig rig;
	int ret = rig_open_null(&rig, bench, (uint64_t)CHUNK_SECTORS * 2);

	if (ret == 0)
		ret = measure_split(&rig, rows);
	if (ret == 0)
		bench_report_value(bench, "split/cost", "ns", rows[0].best_ns - 2 * rows[1].best_ns,
				   rows[0].median_ns - 2 * rows[1].median_ns, 0);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_split = {
	"split", "128 KiB writes that a stripe splits in two, against 64 KiB ones that it doesn't",
	run_split
};
