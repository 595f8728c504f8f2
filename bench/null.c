/* SPDX-License-Identifier: MIT */
/*
 * What the library itself costs: requests that move no data. A write to a zero target ends as soon
 * as it has been mapped, so all that is left is the way down, the completion and the generator.
 */
#include <stdio.h>
#include <string.h>

#include "rig.h"

#define LAYERS_MAX 8u
#define LAYER_OFFSET_SECTORS 64u
#define NULL_1_BAR_NS 40
#define NULL_32_BAR_NS 25
#define LAYER_BAR_NS 8
#define STATS_BAR_NS 15

static int measure_null(struct rig *rig, struct bench_row *rows)
{
	struct straw_device zero = { .map = straw_zero, .size_sectors = RIG_ZERO_SECTORS };
	struct straw_load straws[2] = { { .device = &zero }, { .device = &zero } };
	struct load loads[2] = { rig_load(rig, rig->zero, 1), rig_load(rig, rig->zero, 32) };

	return rig_measure_pairs(rig, rows, loads, straws, 2);
}

static int run_null(struct bench *bench)
{
	struct bench_row rows[4] = { { .name = "null/1", .max_ns = NULL_1_BAR_NS },
				     { .name = "" },
				     { .name = "null/32", .max_ns = NULL_32_BAR_NS } };
	struct rig rig;
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	if (ret == 0)
		ret = measure_null(&rig, rows);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_null = {
	"null", "4 KiB writes to one zero target, in batches of 1 and 32", run_null
};

/* A null device that counts in one region beside one that doesn't. */
static int measure_stats(struct rig *rig, struct bench_row *rows)
{
	struct dmcore_stats_options options = DMCORE_STATS_OPTIONS_INIT;
	struct straw_device zero = { .map = straw_zero, .size_sectors = RIG_ZERO_SECTORS };
	struct straw_load straws[2] = { { .device = &zero }, { .device = &zero } };
	struct dmcore_bdev *counted;
	struct load loads[2];
	char table[64];

	snprintf(table, sizeof(table), "0 %llu zero", (unsigned long long)RIG_ZERO_SECTORS);
	counted = rig_map(rig, "counted", table);
	if (!counted)
		return -1;
	if (dmcore_stats_create(dmcore_device_find(rig->core, "counted"), &options) < 0)
		return bench_fail(rig->bench, -1, "statistics: %s", dmcore_error_message());
	loads[0] = rig_load(rig, rig->zero, 32);
	loads[1] = rig_load(rig, counted, 32);
	return rig_measure_pairs(rig, rows, loads, straws, 2);
}

static int run_stats(struct bench *bench)
{
	struct bench_row rows[4] = { { .name = "stats/off" },
				     { .name = "" },
				     { .name = "stats/on" } };
	struct rig rig;
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	if (ret == 0)
		ret = measure_stats(&rig, rows);
	if (ret == 0)
		bench_report_value(bench, "stats/region", "ns",
				   rows[2].best_ns - rows[0].best_ns,
				   rows[2].median_ns - rows[0].median_ns, STATS_BAR_NS);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_stats = {
	"stats", "the same with one region of statistics on, and what that costs", run_stats
};

/* What one more layer costs: the slope of a line through `values`, by least squares. */
static double slope(const double *values, unsigned int count)
{
	double mean_x = (count - 1) / 2.0;
	double mean_y = 0;
	double xy = 0;
	double xx = 0;

	for (unsigned int i = 0; i < count; i++)
		mean_y += values[i] / count;
	for (unsigned int i = 0; i < count; i++) {
		xy += (i - mean_x) * (values[i] - mean_y);
		xx += (i - mean_x) * (i - mean_x);
	}
	return xy / xx;
}

/* Of the stack (first 0) or of its straw men (first 1). */
static void report_slope(struct bench *bench, const struct bench_row *rows, unsigned int first,
			 const char *name, double max)
{
	double best[LAYERS_MAX + 1];
	double median[LAYERS_MAX + 1];

	for (unsigned int i = 0; i <= LAYERS_MAX; i++) {
		best[i] = rows[2 * i + first].best_ns;
		median[i] = rows[2 * i + first].median_ns;
	}
	bench_report_value(bench, name, "ns/layer", slope(best, LAYERS_MAX + 1),
			   slope(median, LAYERS_MAX + 1), max);
}

/* One more linear on top of `level` - 1 of them, as device and as straw man. */
static struct dmcore_bdev *stack(struct rig *rig, unsigned int level, struct straw_device *straws)
{
	uint64_t size = RIG_ZERO_SECTORS - (uint64_t)level * LAYER_OFFSET_SECTORS;
	char below[16] = "zero";
	char name[16];
	char table[96];

	straws[level] = (struct straw_device){ .map = straw_linear,
					       .size_sectors = size,
					       .below = &straws[level - 1],
					       .offset = LAYER_OFFSET_SECTORS };
	if (level > 1)
		snprintf(below, sizeof(below), "layer%u", level - 1);
	snprintf(name, sizeof(name), "layer%u", level);
	snprintf(table, sizeof(table), "0 %llu linear /dev/mapper/%s %u", (unsigned long long)size,
		 below, LAYER_OFFSET_SECTORS);
	return rig_map(rig, name, table);
}

static int measure_layers(struct rig *rig, struct bench_row *rows)
{
	struct straw_device devices[LAYERS_MAX + 1] = { { .map = straw_zero,
							  .size_sectors = RIG_ZERO_SECTORS } };
	struct straw_load straws[LAYERS_MAX + 1];
	struct load loads[LAYERS_MAX + 1];

	/* From 0 on: the first layer's cost shows against the null device of the same run. */
	for (unsigned int i = 0; i <= LAYERS_MAX; i++) {
		struct dmcore_bdev *bdev = i ? stack(rig, i, devices) : rig->zero;

		if (!bdev)
			return -1;
		loads[i] = rig_load(rig, bdev, 32);
		straws[i].device = &devices[i];
		snprintf(rows[2 * i].name, BENCH_NAME_BYTES, "layers/%u", i);
	}
	return rig_measure_pairs(rig, rows, loads, straws, LAYERS_MAX + 1);
}

static int run_layers(struct bench *bench)
{
	struct bench_row rows[2 * (LAYERS_MAX + 1)];
	struct rig rig;
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	memset(rows, 0, sizeof(rows));
	if (ret == 0)
		ret = measure_layers(&rig, rows);
	if (ret == 0) {
		report_slope(bench, rows, 0, "layers/each", LAYER_BAR_NS);
		report_slope(bench, rows, 1, "layers/each-straw", 0);
	}
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_layers = {
	"layers", "the same through 0 to 8 stacked linears, in batches of 32; cost of a layer",
	run_layers
};
