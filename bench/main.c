/* SPDX-License-Identifier: MIT */
/* dmcore-bench: what the library costs, beside what the same work costs without. See README.md. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "copy.h"

#define DEFAULT_RUNS 201u
#define SMOKE_RUNS 2u
#define DEFAULT_SEED 42u

static const struct bench_case *const cases[] = {
	&bench_case_null, &bench_case_stats, &bench_case_layers, &bench_case_striped,
	&bench_case_split, &bench_case_mapped, &bench_case_peers, &bench_case_threads,
	&bench_case_table, &bench_case_swap, &bench_case_file, &bench_case_sim,
	&bench_case_copy, &bench_case_snapshot, &bench_case_mirror, &bench_case_mirror_recovery,
};

#define NUM_CASES (sizeof(cases) / sizeof(cases[0]))

static const char usage_text[] =
	"usage: dmcore-bench [OPTIONS]\n"
	"  --list        the cases\n"
	"  --only CASE   one of them\n"
	"  --smoke       small sizes: checks that it works, in less than three seconds\n"
	"  --runs N      timed runs of each row, 1 to 10000; 201, with --smoke 2, of copies 7\n"
	"  --seed N      start of the random positions; 42\n"
	"  --dir DIR     where files of up to 6 GiB are made, and removed; the current directory\n"
	"  --json        an object a line\n"
	"  --gate        exit with 1 if a bar is missed\n"
	"  --work ROW --count N\n"
	"                carry out N requests of a row, once, untimed: for profilers\n"
	"   or: dmcore-bench copy [OPTIONS] SOURCE DEST...\n"
	"                copy a file, and nothing else; what the copy case compares with others\n";

enum option_key {
	OPTION_LIST = 1,
	OPTION_ONLY,
	OPTION_SMOKE,
	OPTION_RUNS,
	OPTION_SEED,
	OPTION_DIR,
	OPTION_JSON,
	OPTION_GATE,
	OPTION_WORK,
	OPTION_COUNT,
	OPTION_HELP,
};

static const struct option long_options[] = {
	{ "list", no_argument, NULL, OPTION_LIST },
	{ "only", required_argument, NULL, OPTION_ONLY },
	{ "smoke", no_argument, NULL, OPTION_SMOKE },
	{ "runs", required_argument, NULL, OPTION_RUNS },
	{ "seed", required_argument, NULL, OPTION_SEED },
	{ "dir", required_argument, NULL, OPTION_DIR },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "gate", no_argument, NULL, OPTION_GATE },
	{ "work", required_argument, NULL, OPTION_WORK },
	{ "count", required_argument, NULL, OPTION_COUNT },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ NULL, 0, NULL, 0 },
};

static _Noreturn void bad_usage(const char *text)
{
	fprintf(stderr, "dmcore-bench: %s\n%s", text, usage_text);
	exit(2);
}

static uint64_t read_number(const char *text, uint64_t max)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || value > max)
		bad_usage("a number is malformed or too large");
	return value;
}

static void list_cases(void)
{
	for (size_t i = 0; i < NUM_CASES; i++)
		printf("%-15s %s\n", cases[i]->name, cases[i]->what);
}

static void read_option(struct bench_options *options, int key)
{
	switch (key) {
	case OPTION_LIST:
		list_cases();
		exit(0);
	case OPTION_ONLY:
		options->only = optarg;
		break;
	case OPTION_SMOKE:
		options->smoke = true;
		break;
	case OPTION_RUNS:
		options->runs = (unsigned int)read_number(optarg, BENCH_RUNS_MAX);
		options->runs_given = options->runs > 0;
		break;
	case OPTION_SEED:
		options->seed = read_number(optarg, UINT64_MAX);
		break;
	case OPTION_DIR:
		options->dir = optarg;
		break;
	case OPTION_JSON:
		options->json = true;
		break;
	case OPTION_GATE:
		options->gate = true;
		break;
	case OPTION_WORK:
		options->work_row = optarg;
		break;
	case OPTION_COUNT:
		options->work_count = read_number(optarg, UINT64_MAX / 2);
		break;
	case OPTION_HELP:
		fputs(usage_text, stdout);
		exit(0);
	default:
		bad_usage("unknown option");
	}
}

static void read_options(struct bench_options *options, int argc, char **argv)
{
	int key;

	*options = (struct bench_options){ .seed = DEFAULT_SEED, .dir = "." };
	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		read_option(options, key);
	if (optind < argc)
		bad_usage("unexpected argument");
	if (!options->work_row != !options->work_count)
		bad_usage("--work and --count belong together");
	if (options->runs == 0)
		options->runs = options->smoke ? SMOKE_RUNS : DEFAULT_RUNS;
}

/* Whether a case was asked for: by its name, or by that of one of its rows. */
static bool wanted(const struct bench_options *options, const struct bench_case *one)
{
	size_t length = strlen(one->name);

	if (options->work_row)
		return !strncmp(options->work_row, one->name, length) &&
		       options->work_row[length] == '/';
	return !options->only || !strcmp(options->only, one->name);
}

int main(int argc, char **argv)
{
	struct bench bench = { .cpu = -1 };
	unsigned int ran = 0;

	if (argc > 1 && !strcmp(argv[1], "copy"))
		return copy_program(argc - 1, argv + 1);
	read_options(&bench.options, argc, argv);
	/* Otherwise the heading comes after what goes wrong. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	bench.cpu = bench_pin(0);
	if (!bench.options.work_row)
		bench_print_machine(&bench);
	for (size_t i = 0; i < NUM_CASES; i++) {
		if (!wanted(&bench.options, cases[i]))
			continue;
		ran++;
		if (cases[i]->run(&bench))
			bench.failed = true;
	}
	if (ran == 0)
		bad_usage("no such case; see --list");
	if (bench.options.work_row && !bench.work_done)
		bad_usage("no such row, or it was skipped");
	if (bench.failed)
		return 1;
	return bench.options.gate && bench.missed ? 1 : 0;
}
