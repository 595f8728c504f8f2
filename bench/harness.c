/* SPDX-License-Identifier: MIT */
/*
 * Measures rows side by side. Machines are noisy, and noise comes in stretches, so every run times
 * all rows once, one after another and in random order: a row and its floor see the same
 * weather. Runs are short and many, for some to fit between interruptions: the best of them is what
 * the code costs, the median what one gets.
 */
#include "bench.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of one measurement. */
#define ROWS_MAX 256u

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* The CPUs that the process was given, before it narrowed them itself. */
static const cpu_set_t *allowed_cpus(void)
{
	static cpu_set_t allowed;
	static bool known;

	if (!known)
		known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
	return &allowed;
}

unsigned int bench_cpus(void)
{
	return (unsigned int)CPU_COUNT(allowed_cpus());
}

int bench_pin(unsigned int index)
{
	cpu_set_t one;

	for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--) {
		if (!CPU_ISSET(cpu, allowed_cpus()) || index-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		return sched_setaffinity(0, sizeof(one), &one) < 0 ? -1 : cpu;
	}
	return -1;
}

void bench_unpin(void)
{
	sched_setaffinity(0, sizeof(cpu_set_t), allowed_cpus());
}

uint64_t bench_rss_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	char line[128];
	char *rest = NULL;
	uint64_t pages = 0;

	if (!file)
		return 0;
	if (fgets(line, sizeof(line), file)) {
		strtoull(line, &rest, 10);
		pages = strtoull(rest, NULL, 10);
	}
	fclose(file);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t bench_size(const struct bench *bench, uint64_t full, uint64_t smoke)
{
	return bench->options.smoke ? smoke : full;
}

int bench_fail(struct bench *bench, int error, const char *format, ...)
{
	va_list args;

	bench->failed = true;
	fputs("dmcore-bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (%s)\n", strerror(-error));
	return error;
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left;
	double b = *(const double *)right;

	return (a > b) - (a < b);
}

double bench_median(double *values, unsigned int count)
{
	qsort(values, count, sizeof(*values), compare);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* One run of a row, checked. */
static int run_row(struct bench *bench, const struct bench_row *row, struct bench_run *run)
{
	uint64_t begin;
	int ret;

	run->completed = 0;
	run->hash = 0;
	run->elapsed_ns = 0;
	begin = bench_now_ns();
	ret = row->fn(row->context, run);
	if (run->elapsed_ns == 0)
		run->elapsed_ns = bench_now_ns() - begin;
	if (ret)
		return bench_fail(bench, ret, "%s failed", row->name);
	/* Batches are whole, so a few more than asked for may have been done, never less. */
	if (run->completed < run->count)
		return bench_fail(bench, -EIO, "%s: %llu of %llu requests completed", row->name,
				  (unsigned long long)run->completed,
				  (unsigned long long)run->count);
	return 0;
}

/* Carries out one row, once: what a profiler wants to see. */
static int do_work(struct bench *bench, const struct bench_row *rows, unsigned int num_rows)
{
	struct bench_run run = { .seed = bench->options.seed, .count = bench->options.work_count };

	for (unsigned int i = 0; i < num_rows; i++) {
		if (strcmp(rows[i].name, bench->options.work_row))
			continue;
		bench->work_done = true;
		if (run_row(bench, &rows[i], &run))
			return -EIO;
		printf("%s: %llu requests, hash %016llx\n", rows[i].name,
		       (unsigned long long)run.completed, (unsigned long long)run.hash);
	}
	return 0;
}

/*
 * Which positions row `i` goes to in a turn. In the end each row has had every sequence once, so
 * that all have done the same work; but never two rows the same one in a turn, for the second would
 * find in the CPU's caches what the first has read.
 */
static uint64_t seed_of(const struct bench *bench, unsigned int turn, unsigned int i,
			unsigned int num_rows)
{
	unsigned int runs = bench->options.runs;
	unsigned int stride = runs / num_rows ? runs / num_rows : 1;

	if (turn == 0)
		return bench->options.seed + runs;
	return bench->options.seed + (turn - 1 + i * stride) % runs;
}

/* In another order each turn: what a row leaves behind is not always found by the same one. */
static void shuffle(unsigned int *order, unsigned int num_rows, uint64_t seed)
{
	struct bench_random random = bench_random_start(seed);

	for (unsigned int i = 0; i < num_rows; i++) {
		unsigned int other = (unsigned int)bench_random_position(&random, i + 1u);

		order[i] = order[other];
		order[other] = i;
	}
}

/* Runs every row once. The first turn warms up: it is checked, but not timed. */
static int take_turn(struct bench *bench, struct bench_row *rows, unsigned int num_rows,
		     unsigned int turn)
{
	unsigned int order[ROWS_MAX];

	if (num_rows > ROWS_MAX)
		return bench_fail(bench, -E2BIG, "%u rows", num_rows);
	shuffle(order, num_rows, bench->options.seed + turn);
	for (unsigned int k = 0; k < num_rows; k++) {
		unsigned int i = order[k];
		struct bench_row *row = &rows[i];
		struct bench_run run = { .seed = seed_of(bench, turn, i, num_rows),
					 .count = row->count };
		int ret = run_row(bench, row, &run);

		if (ret)
			return ret;
		row->hash += run.hash;
		if (turn > 0)
			row->samples_ns[turn - 1] = (double)run.elapsed_ns / (double)run.completed;
	}
	return 0;
}

/* Rows that claim to do the same work as their floor must have done it. */
static int check_hash(struct bench *bench, const struct bench_row *row)
{
	if (!row->same_work || !row->floor || row->hash == row->floor->hash)
		return 0;
	return bench_fail(bench, -EIO, "%s did other work than %s: %016llx, %016llx", row->name,
			  row->floor->name, (unsigned long long)row->hash,
			  (unsigned long long)row->floor->hash);
}

/* Turns samples into figures. Sorts copies: a row and its floor are paired by run. */
static void sum_up(struct bench_row *row, unsigned int runs, double *scratch)
{
	memcpy(scratch, row->samples_ns, runs * sizeof(*scratch));
	row->median_ns = bench_median(scratch, runs);
	row->best_ns = scratch[0];
}

static void choose_floor(struct bench_row *row)
{
	for (unsigned int i = 0; i < row->num_rivals; i++) {
		if (i == 0 || row->rivals[i].best_ns < row->floor->best_ns)
			row->floor = &row->rivals[i];
	}
}

static void compare_with_floor(struct bench_row *row, unsigned int runs, double *scratch)
{
	if (!row->floor)
		return;
	for (unsigned int i = 0; i < runs; i++)
		scratch[i] = row->samples_ns[i] / row->floor->samples_ns[i];
	row->ratio = row->best_ns / row->floor->best_ns;
	row->paired_ratio = bench_median(scratch, runs);
}

/* `samples` has room for the runs of each row, and once more. */
static int measure_into(struct bench *bench, struct bench_row *rows, unsigned int num_rows,
			double *samples)
{
	unsigned int runs = bench->options.runs;
	double *scratch = samples + (size_t)num_rows * runs;

	int ret = 0;

	for (unsigned int i = 0; i < num_rows; i++) {
		rows[i].samples_ns = samples + (size_t)i * runs;
		rows[i].hash = 0;
	}
	for (unsigned int turn = 0; turn <= runs && ret == 0; turn++)
		ret = take_turn(bench, rows, num_rows, turn);
	for (unsigned int i = 0; i < num_rows && ret == 0; i++)
		sum_up(&rows[i], runs, scratch);
	for (unsigned int i = 0; i < num_rows && ret == 0; i++) {
		choose_floor(&rows[i]);
		ret = check_hash(bench, &rows[i]);
		compare_with_floor(&rows[i], runs, scratch);
	}
	return ret;
}

int bench_measure(struct bench *bench, struct bench_row *rows, unsigned int num_rows)
{
	double *samples;
	int ret;

	if (bench->options.work_row)
		return do_work(bench, rows, num_rows);
	samples = calloc((num_rows + 1u) * (size_t)bench->options.runs, sizeof(*samples));
	if (!samples)
		return bench_fail(bench, -ENOMEM, "samples");
	ret = measure_into(bench, rows, num_rows, samples);
	for (unsigned int i = 0; i < num_rows && ret == 0; i++)
		bench_report_row(bench, &rows[i]);
	for (unsigned int i = 0; i < num_rows; i++)
		rows[i].samples_ns = NULL;
	free(samples);
	return ret;
}
