/* SPDX-License-Identifier: MIT */
/*
 * Prints the machine and the rows, as a table for people or as JSON, an object a line. With sizes
 * in full, bars are judged here.
 */
#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <dmcore.h>

/* Prints a JSON string. */
static void print_string(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		if ((unsigned char)*text >= ' ')
			putchar(*text);
	}
	putchar('"');
}

/* The first line of a file that begins with `key`, from behind the colon on; or `otherwise`. */
static void read_line(const char *path, const char *key, char *value, size_t bytes,
		      const char *otherwise)
{
	FILE *file = fopen(path, "re");
	char line[256];

	snprintf(value, bytes, "%s", otherwise);
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		const char *text = line;

		if (strncmp(line, key, strlen(key)))
			continue;
		if (*key)
			text = strchr(line, ':') ? strchr(line, ':') + 1 : line;
		text += strspn(text, " \t");
		snprintf(value, bytes, "%.*s", (int)strcspn(text, "\n"), text);
		break;
	}
	fclose(file);
}

void bench_print_machine(const struct bench *bench)
{
	const struct bench_options *options = &bench->options;
	struct utsname kernel;
	char cpu[128];
	char governor[32];
	char load[64];

	if (uname(&kernel) < 0)
		memset(&kernel, 0, sizeof(kernel));
	read_line("/proc/cpuinfo", "model name", cpu, sizeof(cpu), "unknown");
	read_line("/proc/loadavg", "", load, sizeof(load), "unknown");
	read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "", governor,
		  sizeof(governor), "unknown");
	if (options->json) {
		printf("{\"machine\":{\"cpu\":");
		print_string(cpu);
		printf(",\"cpus\":%ld,\"pinned_to\":%d,\"governor\":",
		       sysconf(_SC_NPROCESSORS_ONLN), bench->cpu);
		print_string(governor);
		printf(",\"kernel\":");
		print_string(kernel.release);
		printf(",\"load\":");
		print_string(load);
		printf(",\"compiler\":");
		print_string(__VERSION__);
		printf(",\"libdmcore\":\"%s\",\"sizes\":\"%s\",\"runs\":%u,\"seed\":%llu}}\n",
		       dmcore_version(), options->smoke ? "smoke" : "full", options->runs,
		       (unsigned long long)options->seed);
		return;
	}
	printf("libdmcore %s, compiled by %s\n", dmcore_version(), __VERSION__);
	printf("%s, %ld CPUs, governor %s, Linux %s, load %s\n", cpu, sysconf(_SC_NPROCESSORS_ONLN),
	       governor, kernel.release, load);
	printf("%s sizes, %u runs, seed %llu, ", options->smoke ? "smoke" : "full", options->runs,
	       (unsigned long long)options->seed);
	if (bench->cpu >= 0)
		printf("pinned to CPU %d\n\n", bench->cpu);
	else
		printf("not pinned\n\n");
}

static void print_heading(struct bench *bench)
{
	if (bench->heading_printed)
		return;
	bench->heading_printed = true;
	printf("%-22s %9s %9s %-9s %8s %7s %7s  %-8s  %s\n", "row", "best", "median", "unit",
	       "floor", "x best", "x pair", "work", "bar");
}

/* "PASS", "FAIL", or NULL where nothing is judged. Remembers a miss. */
static const char *judge(struct bench *bench, double value, double max)
{
	if (max <= 0 || bench->options.smoke)
		return NULL;
	if (value <= max)
		return "PASS";
	bench->missed = true;
	return "FAIL";
}

static double unit_ns(const struct bench_row *row)
{
	return row->unit ? row->unit_ns : 1;
}

static void print_row_json(const struct bench_row *row, const char *verdict)
{
	printf("{\"row\":\"%s\",\"unit\":\"%s\",\"best\":%.2f,\"median\":%.2f", row->name,
	       row->unit ? row->unit : "ns", row->best_ns / unit_ns(row),
	       row->median_ns / unit_ns(row));
	if (row->floor)
		printf(",\"floor\":\"%s\",\"floor_best\":%.2f,\"ratio\":%.3f,"
		       "\"paired_ratio\":%.3f",
		       row->floor->name, row->floor->best_ns / unit_ns(row), row->ratio,
		       row->paired_ratio);
	if (row->max_ns > 0)
		printf(",\"max\":%.2f", row->max_ns);
	if (row->max_ratio > 0)
		printf(",\"max_ratio\":%.3f", row->max_ratio);
	if (verdict)
		printf(",\"verdict\":\"%s\"", verdict);
	printf(",\"requests\":%llu,\"work\":\"%016llx\"}\n", (unsigned long long)row->count,
	       (unsigned long long)row->hash);
}

void bench_report_row(struct bench *bench, const struct bench_row *row)
{
	const char *verdict = NULL;
	char bar[64] = "";

	if (row->max_ns > 0) {
		verdict = judge(bench, row->best_ns, row->max_ns);
		snprintf(bar, sizeof(bar), "<= %g ns", row->max_ns);
	} else if (row->max_ratio > 0 && row->floor) {
		verdict = judge(bench, row->ratio, row->max_ratio);
		snprintf(bar, sizeof(bar), "<= %.3gx", row->max_ratio);
	}
	if (row->num_rivals > 0)
		snprintf(bar + strlen(bar), sizeof(bar) - strlen(bar), "%sof %.24s",
			 *bar ? " " : "", row->floor->name);
	if (bench->options.json) {
		print_row_json(row, verdict);
		return;
	}
	if (row->quiet)
		return;
	print_heading(bench);
	printf("%-22s %9.1f %9.1f %-9s ", row->name, row->best_ns / unit_ns(row),
	       row->median_ns / unit_ns(row), row->unit ? row->unit : "ns");
	if (row->floor)
		printf("%8.1f %7.2f %7.2f", row->floor->best_ns / unit_ns(row), row->ratio,
		       row->paired_ratio);
	else
		printf("%8s %7s %7s", "-", "-", "-");
	printf("  %08x  %s%s%s\n", (unsigned int)row->hash, bar, verdict ? ": " : "",
	       verdict ? verdict : "");
}

void bench_report_value(struct bench *bench, const char *name, const char *unit, double best,
			double median, double max)
{
	const char *verdict;
	char bar[32] = "";

	if (bench->options.work_row)
		return;
	verdict = judge(bench, best, max);
	if (bench->options.json) {
		printf("{\"row\":\"%s\",\"unit\":\"%s\",\"best\":%.2f,\"median\":%.2f", name, unit,
		       best, median);
		if (max > 0)
			printf(",\"max\":%.2f", max);
		if (verdict)
			printf(",\"verdict\":\"%s\"", verdict);
		printf("}\n");
		return;
	}
	print_heading(bench);
	if (max > 0)
		snprintf(bar, sizeof(bar), "<= %g %s", max, unit);
	printf("%-22s %9.1f %9.1f %-9s %8s %7s %7s  %-8s  %s%s%s\n", name, best, median, unit, "-",
	       "-", "-", "-", bar, verdict ? ": " : "", verdict ? verdict : "");
}

void bench_report_skip(struct bench *bench, const char *name, const char *reason)
{
	if (bench->options.json) {
		printf("{\"row\":\"%s\",\"skipped\":", name);
		print_string(reason);
		printf("}\n");
		return;
	}
	if (!bench->options.work_row)
		print_heading(bench);
	printf("%-22s skipped: %s\n", name, reason);
}
