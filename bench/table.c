/* SPDX-License-Identifier: MIT */
/*
 * A table of a million targets: what it costs to build, to keep, and to find one's target in it.
 * Each target is a linear of 4 KiB that maps to the same place as the one linear of the table that
 * it is compared with, so that the difference is the lookup.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

#define FULL_TARGETS 1000000u
#define SMOKE_TARGETS 10000u
#define BUILDS_MAX 5u
#define LINE_BYTES_MAX 64u
#define FULL_COUNT 8192u
#define SMOKE_COUNT 8192u
/* A million made in a second; a lookup beyond what a table of one target takes. */
#define MAKE_BAR_NS 1000
#define MEMORY_BAR_BYTES 64
#define RANDOM_BAR_NS 60
#define SEQUENTIAL_BAR_NS 5

#define GROUND "/dev/mapper/ground"

struct subject {
	struct rig *rig;
	uint64_t num_targets;
	char *text;
	size_t text_bytes;
	struct dmcore_bdev *many;
	struct dmcore_bdev *one;
};

/* A line for each target. */
static int write_text(struct subject *subject)
{
	size_t room = subject->num_targets * LINE_BYTES_MAX;
	char *text = malloc(room);
	size_t used = 0;

	if (!text)
		return bench_fail(subject->rig->bench, -ENOMEM, "text of a table");
	for (uint64_t i = 0; i < subject->num_targets; i++) {
		unsigned long long sector = i * BENCH_BLOCK_SECTORS;

		used += (size_t)snprintf(text + used, room - used, "%llu %u linear %s %llu\n",
					 sector, BENCH_BLOCK_SECTORS, GROUND, sector);
	}
	subject->text = text;
	subject->text_bytes = used;
	return 0;
}

/* The floor of parsing: finds the lines and reads their two numbers. */
static uint64_t scan(const char *text)
{
	uint64_t sum = 0;

	while (*text) {
		char *rest;

		sum += strtoull(text, &rest, 10);
		sum += strtoull(rest, &rest, 10);
		text = strchr(rest, '\n') + 1;
	}
	return sum;
}

static int parse(struct subject *subject, struct dmcore_table **table)
{
	return dmcore_table_parse(subject->rig->core, subject->text, 0, table);
}

/* The same without text, target by target. */
static int build(struct subject *subject, struct dmcore_table **table)
{
	char params[LINE_BYTES_MAX];
	int ret = dmcore_table_create(subject->rig->core, 0, table);

	for (uint64_t i = 0; i < subject->num_targets && ret == 0; i++) {
		uint64_t sector = i * BENCH_BLOCK_SECTORS;

		snprintf(params, sizeof(params), GROUND " %llu", (unsigned long long)sector);
		ret = dmcore_table_add(*table, sector, BENCH_BLOCK_SECTORS, "linear", params);
	}
	return ret ? ret : dmcore_table_complete(*table);
}

/* How long each way takes to make a table and to take it down, by target. */
static int time_builds(struct subject *subject,
		       int (*make)(struct subject *subject, struct dmcore_table **table),
		       const char *name)
{
	struct bench *bench = subject->rig->bench;
	unsigned int runs = (unsigned int)bench_size(bench, BUILDS_MAX, 1);
	char destroy_name[BENCH_NAME_BYTES];
	double made[BUILDS_MAX];
	double destroyed[BUILDS_MAX];
	double median;

	for (unsigned int i = 0; i < runs; i++) {
		struct dmcore_table *table = NULL;
		uint64_t begin = bench_now_ns();
		int ret = make(subject, &table);
		uint64_t middle = bench_now_ns();

		dmcore_table_destroy(table);
		if (ret)
			return bench_fail(bench, ret, "%s: %s", name, dmcore_error_message());
		made[i] = (double)(middle - begin) / (double)subject->num_targets;
		destroyed[i] = (double)(bench_now_ns() - middle) / (double)subject->num_targets;
	}
	median = bench_median(made, runs);
	bench_report_value(bench, name, "ns/target", made[0], median, MAKE_BAR_NS);
	snprintf(destroy_name, sizeof(destroy_name), "%.30s-undo", name);
	median = bench_median(destroyed, runs);
	bench_report_value(bench, destroy_name, "ns/target", destroyed[0], median, 0);
	return 0;
}

static void time_scan(struct subject *subject)
{
	struct bench *bench = subject->rig->bench;
	double samples[BUILDS_MAX];
	volatile uint64_t sum;
	double median;

	for (unsigned int i = 0; i < BUILDS_MAX; i++) {
		uint64_t begin = bench_now_ns();

		sum = scan(subject->text);
		samples[i] = (double)(bench_now_ns() - begin) / (double)subject->num_targets;
	}
	(void)sum;
	median = bench_median(samples, BUILDS_MAX);
	bench_report_value(bench, "table/scan-floor", "ns/target", samples[0], median, 0);
}

/* The device of the million, and what it adds to the process. Before any other large table. */
static int load_many(struct subject *subject)
{
	struct bench *bench = subject->rig->bench;
	uint64_t before = bench_rss_bytes();
	double bytes;

	subject->many = rig_map(subject->rig, "many", subject->text);
	if (!subject->many)
		return -EIO;
	bytes = (double)(bench_rss_bytes() - before) / (double)subject->num_targets;
	bench_report_value(bench, "table/memory", "B/target", bytes, bytes, MEMORY_BAR_BYTES);
	return 0;
}

static int load_one(struct subject *subject)
{
	unsigned long long size = subject->num_targets * BENCH_BLOCK_SECTORS;
	char text[96];

	snprintf(text, sizeof(text), "0 %llu linear " GROUND " 0", size);
	subject->one = rig_map(subject->rig, "one", text);
	return subject->one ? 0 : -EIO;
}

/* Row 2i + 1 is the floor of row 2i: the same requests to the table of one target. */
static int measure_lookups(struct subject *subject)
{
	struct bench *bench = subject->rig->bench;
	struct bench_row rows[4] = { { .name = "table/random" },
				     { .name = "table/random-one" },
				     { .name = "table/sequential" },
				     { .name = "table/sequential-one" } };
	struct load loads[4];
	unsigned int opened = 0;
	int ret = 0;

	while (opened < 4 && ret == 0) {
		struct load *load = &loads[opened];
		struct bench_row *row = &rows[opened];

		*load = rig_load(subject->rig, opened % 2 ? subject->one : subject->many, 32);
		load->positions = subject->num_targets;
		load->sequential = opened >= 2;
		row->fn = load_run;
		row->context = load;
		row->count = bench_size(bench, FULL_COUNT, SMOKE_COUNT);
		row->floor = opened % 2 ? NULL : row + 1;
		row->same_work = opened % 2 == 0;
		row->quiet = opened % 2;
		ret = load_open(load);
		opened += ret == 0;
	}
	if (ret == 0)
		ret = bench_measure(bench, rows, 4);
	while (opened > 0)
		load_close(&loads[--opened]);
	if (ret)
		return ret;
	bench_report_value(bench, "table/lookup-random", "ns", rows[0].best_ns - rows[1].best_ns,
			   rows[0].median_ns - rows[1].median_ns, RANDOM_BAR_NS);
	bench_report_value(bench, "table/lookup-seq", "ns", rows[2].best_ns - rows[3].best_ns,
			   rows[2].median_ns - rows[3].median_ns, SEQUENTIAL_BAR_NS);
	return 0;
}

static int measure_table(struct subject *subject)
{
	char ground[64];
	int ret;

	snprintf(ground, sizeof(ground), "0 %llu zero",
		 (unsigned long long)subject->num_targets * BENCH_BLOCK_SECTORS);
	if (!rig_map(subject->rig, "ground", ground))
		return -EIO;
	ret = write_text(subject);
	if (ret == 0)
		ret = load_many(subject);
	if (ret == 0)
		ret = load_one(subject);
	if (ret == 0)
		ret = measure_lookups(subject);
	if (ret || subject->rig->bench->options.work_row)
		return ret;
	time_scan(subject);
	ret = time_builds(subject, parse, "table/parse");
	return ret ? ret : time_builds(subject, build, "table/add");
}

static int run_table(struct bench *bench)
{
	struct rig rig;
	struct subject subject = { .rig = &rig };
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	subject.num_targets = bench_size(bench, FULL_TARGETS, SMOKE_TARGETS);
	if (ret == 0)
		ret = measure_table(&subject);
	free(subject.text);
	rig_close(&rig);
	return ret;
}

const struct bench_case bench_case_table = {
	"table", "a table of 1,000,000 linears: building, memory, random and sequential lookup",
	run_table
};
