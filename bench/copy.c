/* SPDX-License-Identifier: MIT */
/*
 * A file copied to one file and to four, by kcopyd and by the programs that people copy with. A row
 * makes its destinations anew; what they hold is checked and they are removed outside its time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "copy.h"

#define MIB (UINT64_C(1) << 20)
#define FULL_BYTES (1024 * MIB)
#define SMOKE_BYTES (2 * MIB)
#define TRIAL_BYTES MIB
/* Source and four destinations, and something to spare. */
#define ROOM 6u
/* A run takes seconds, not a millisecond. */
#define RUNS 7u
#define ROWS_MAX 16u
#define WORKERS 2u

/* At least 95 % of the fastest peer's speed; at most 60 % of the time of four copies. */
#define PEER_BAR_RATIO (1 / 0.95)
#define FOUR_BAR_RATIO 0.60

enum engine_kind {
	ENGINE_URING,
	ENGINE_WORKERS,
	ENGINE_PREAD,
};

#define ENGINES 3u

static const char *const engine_names[ENGINES] = { "io_uring", "workers", "pread" };
static const char *const mode_names[COPY_MODES] = { "cache", "direct", "sparse", "share" };

/* What a row copies with: an engine, a program, or the loop. */
struct copy_row {
	const struct copy_files *files;
	struct copy_engine *engine;
	const char *const *args;
	enum copy_mode mode;
	unsigned int num_dests;
	bool separate; /* a copy for each destination */
};

/* All rows of one mode. */
struct suite {
	struct bench *bench;
	enum copy_mode mode;
	struct copy_files files;
	struct copy_engine engines[ENGINES];
	bool usable[ENGINES];
	const char *process_args[COPY_ARGS_MAX];
	struct copy_row contexts[ROWS_MAX];
	struct bench_row rows[ROWS_MAX];
	unsigned int num_peers; /* the first rows */
	unsigned int num_rows;
};

static unsigned int open_flags_of(enum copy_mode mode)
{
	return mode == COPY_DIRECT ? DMCORE_OPEN_DIRECT : 0;
}

static unsigned int job_flags_of(enum copy_mode mode)
{
	if (mode == COPY_SPARSE)
		return KCOPYD_SPARSE | KCOPYD_DESTS_ZEROED;
	return mode == COPY_SHARE ? KCOPYD_SHARE : 0;
}

/* ---- a run ---- */

static int copy_by_engine(const struct copy_row *row)
{
	const char *dests[COPY_DESTS_MAX];
	unsigned int num = row->separate ? 1 : row->num_dests;
	int ret = 0;

	for (unsigned int i = 0; i < COPY_DESTS_MAX; i++)
		dests[i] = row->files->dests[i];
	for (unsigned int i = 0; i < row->num_dests && ret == 0; i += num)
		ret = copy_engine_copy(row->engine, row->files->source, &dests[i], num,
				       open_flags_of(row->mode), job_flags_of(row->mode));
	return ret;
}

static int copy_once(const struct copy_row *row)
{
	const struct copy_files *files = row->files;

	if (row->engine)
		return copy_by_engine(row);
	if (row->args)
		return copy_peer_run(row->args, files->source, files->dests[0]);
	return copy_loop(files->source, files->dests[0], row->mode == COPY_DIRECT);
}

/* A request is a MiB of the source. */
static int run_copy(void *context, struct bench_run *run)
{
	const struct copy_row *row = context;
	const struct copy_files *files = row->files;
	uint64_t began_ns;
	int ret = 0;

	while (ret == 0 && run->completed < run->count) {
		if (row->mode != COPY_DIRECT) {
			copy_files_settle(files, row->num_dests);
			ret = copy_files_warm(files);
		}
		began_ns = bench_now_ns();
		if (ret == 0)
			ret = copy_once(row);
		run->elapsed_ns += bench_now_ns() - began_ns;
		if (ret == 0)
			ret = copy_files_check(files, row->num_dests);
		if (ret == 0)
			ret = copy_files_remove(files);
		run->hash += files->hash;
		run->completed += files->bytes / MIB;
	}
	return ret;
}

/* ---- rows ---- */

static struct bench_row *add_row(struct suite *suite, const char *what, unsigned int num_dests)
{
	struct copy_row *context = &suite->contexts[suite->num_rows];
	struct bench_row *row = &suite->rows[suite->num_rows++];

	context->files = &suite->files;
	context->mode = suite->mode;
	context->num_dests = num_dests;
	snprintf(row->name, sizeof(row->name), "copy/%s%s-%s", mode_names[suite->mode],
		 num_dests > 1 ? "4" : "", what);
	row->fn = run_copy;
	row->context = context;
	row->count = suite->files.bytes / MIB;
	row->unit = "us/MiB";
	row->unit_ns = 1000;
	return row;
}

/* Whether a peer can do here what the row would have it do; else the row is skipped. */
static bool try_peer(struct suite *suite, const struct copy_files *trial,
		     const struct copy_peer *peer)
{
	char name[BENCH_NAME_BYTES];
	int ret;

	snprintf(name, sizeof(name), "copy/%s-%s", mode_names[suite->mode], peer->name);
	if (!copy_peer_found(peer->name)) {
		bench_report_skip(suite->bench, name, "not found on PATH");
		return false;
	}
	ret = copy_peer_run(peer->args[suite->mode], trial->source, trial->dests[0]);
	if (ret == 0)
		ret = copy_files_check(trial, 1);
	if (ret)
		bench_report_skip(suite->bench, name, "it fails to copy a file of 1 MiB here");
	copy_files_remove(trial);
	return ret == 0;
}

static int add_peers(struct suite *suite)
{
	struct copy_files trial;
	int ret = copy_files_open(&trial, suite->bench, TRIAL_BYTES, false);

	for (unsigned int i = 0; i < COPY_PEERS && ret == 0; i++) {
		const struct copy_peer *peer = &copy_peers[i];

		if (!peer->args[suite->mode][0] || !try_peer(suite, &trial, peer))
			continue;
		suite->contexts[suite->num_rows].args = peer->args[suite->mode];
		add_row(suite, peer->name, 1);
		suite->num_peers++;
	}
	copy_files_close(&trial);
	return ret;
}

/* Rows of ours stand beside the fastest peer, or the loop where there is none. */
static void set_rivals(struct suite *suite, struct bench_row *row, double max_ratio)
{
	row->same_work = true;
	if (suite->num_peers == 0) {
		row->floor = &suite->rows[0];
		return;
	}
	row->rivals = suite->rows;
	row->num_rivals = suite->num_peers;
	row->max_ratio = max_ratio;
}

static void add_engines(struct suite *suite)
{
	for (unsigned int i = 0; i < ENGINES; i++) {
		if (!suite->usable[i])
			continue;
		suite->contexts[suite->num_rows].engine = &suite->engines[i];
		set_rivals(suite, add_row(suite, engine_names[i], 1), 0);
	}
}

/* The first engine that works: io_uring, or pread with workers. */
static unsigned int main_engine(const struct suite *suite)
{
	return suite->usable[ENGINE_URING] ? ENGINE_URING : ENGINE_WORKERS;
}

/* Process against process: this program anew, which does nothing but copy. */
static void add_process(struct suite *suite, double max_ratio)
{
	static const char *const options[COPY_MODES] = { NULL, "--direct", "--sparse", "--share" };
	const char **arg = suite->process_args;

	*arg++ = "/proc/self/exe";
	*arg++ = "copy";
	if (options[suite->mode])
		*arg++ = options[suite->mode];
	if (main_engine(suite) == ENGINE_WORKERS) {
		*arg++ = "--backend";
		*arg++ = "pread";
		*arg++ = "--workers";
		*arg++ = "2";
	}
	*arg++ = "<";
	*arg++ = ">";
	suite->contexts[suite->num_rows].args = suite->process_args;
	set_rivals(suite, add_row(suite, "process", 1), max_ratio);
}

/* Four destinations by one job, and by a job for each. */
static void add_four(struct suite *suite)
{
	struct bench_row *separate;

	suite->contexts[suite->num_rows].engine = &suite->engines[main_engine(suite)];
	suite->contexts[suite->num_rows].separate = true;
	separate = add_row(suite, "separate", COPY_DESTS_MAX);
	for (unsigned int i = 0; i <= ENGINE_WORKERS; i++) {
		struct bench_row *row;

		if (!suite->usable[i])
			continue;
		suite->contexts[suite->num_rows].engine = &suite->engines[i];
		row = add_row(suite, engine_names[i], COPY_DESTS_MAX);
		row->floor = separate;
		row->same_work = true;
		row->max_ratio = i == main_engine(suite) ? FOUR_BAR_RATIO : 0;
	}
}

/* ---- a mode ---- */

static int open_engines(struct suite *suite)
{
	struct copy_parameters parameters[ENGINES] = { COPY_PARAMETERS_INIT, COPY_PARAMETERS_INIT,
						       COPY_PARAMETERS_INIT };
	struct bench *bench = suite->bench;

	parameters[ENGINE_URING].backend = DMCORE_BACKEND_IO_URING;
	parameters[ENGINE_WORKERS].backend = DMCORE_BACKEND_PREAD;
	parameters[ENGINE_WORKERS].workers = WORKERS;
	parameters[ENGINE_PREAD].backend = DMCORE_BACKEND_PREAD;
	for (unsigned int i = 0; i < ENGINES; i++) {
		struct copy_engine *engine = &suite->engines[i];
		int ret;

		if (suite->mode == COPY_DIRECT)
			copy_parameters_direct(&parameters[i]);
		ret = copy_engine_open(engine, &parameters[i]);
		if (ret && (ret != -EOPNOTSUPP || i != ENGINE_URING))
			return bench_fail(bench, ret, "%s: %s", engine->wrong,
					  dmcore_error_message());
		suite->usable[i] = ret == 0;
		if (ret && suite->mode == COPY_CACHE)
			bench_report_skip(bench, "copy/io_uring", dmcore_error_message());
	}
	return 0;
}

static void close_suite(struct suite *suite)
{
	for (unsigned int i = 0; i < ENGINES; i++) {
		int ret = copy_engine_close(&suite->engines[i]);

		if (ret)
			bench_fail(suite->bench, ret, "closing kcopyd: %s",
				   dmcore_error_message());
	}
	copy_files_close(&suite->files);
}

/* One job beside four times the fastest peer: what people do without it. */
static void report_four(struct suite *suite)
{
	const struct bench_row *peer = NULL;
	const struct bench_row *four = NULL;
	char name[BENCH_NAME_BYTES];

	for (unsigned int i = 0; i < suite->num_rows; i++) {
		const struct bench_row *row = &suite->rows[i];

		if (i < suite->num_peers && (!peer || row->best_ns < peer->best_ns))
			peer = row;
		if (row->floor && row->max_ratio == FOUR_BAR_RATIO)
			four = row;
	}
	if (!peer || !four)
		return;
	snprintf(name, sizeof(name), "copy/%s4-peer", mode_names[suite->mode]);
	bench_report_value(suite->bench, name, "% of 4x", 25 * four->best_ns / peer->best_ns,
			   25 * four->median_ns / peer->median_ns, 0);
}

static int fill_suite(struct suite *suite)
{
	bool judged = suite->mode == COPY_CACHE || suite->mode == COPY_DIRECT;
	int ret = open_engines(suite);

	if (ret == 0)
		ret = add_peers(suite);
	if (ret)
		return ret;
	if (judged || suite->num_peers == 0)
		add_row(suite, "loop", 1);
	add_engines(suite);
	add_process(suite, judged ? PEER_BAR_RATIO : 0);
	if (judged)
		add_four(suite);
	return 0;
}

static bool direct_works(const struct copy_files *files)
{
	int fd = open(files->source, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int run_mode(struct bench *bench, enum copy_mode mode)
{
	uint64_t bytes = bench_size(bench, FULL_BYTES, SMOKE_BYTES);
	struct suite suite;
	int ret;

	memset(&suite, 0, sizeof(suite));
	suite.bench = bench;
	suite.mode = mode;
	ret = copy_files_open(&suite.files, bench, bytes, mode == COPY_SPARSE);
	if (ret == 0 && mode == COPY_DIRECT && !direct_works(&suite.files)) {
		bench_report_skip(bench, "copy/direct",
				  "the file system of --dir refuses O_DIRECT");
		close_suite(&suite);
		return 0;
	}
	if (ret == 0)
		ret = fill_suite(&suite);
	if (ret == 0)
		ret = bench_measure(bench, suite.rows, suite.num_rows);
	if (ret == 0)
		report_four(&suite);
	close_suite(&suite);
	return ret;
}

static bool has_room(const struct bench *bench)
{
	struct statvfs info;

	/* What goes wrong with the directory is said where it is used. */
	if (statvfs(bench->options.dir, &info) < 0)
		return true;
	return info.f_bavail * info.f_frsize >= bench_size(bench, FULL_BYTES, SMOKE_BYTES) * ROOM;
}

/* Whether --work names a row of another mode. */
static bool unwanted(const struct bench *bench, enum copy_mode mode)
{
	const char *row = bench->options.work_row;

	return row && strncmp(row + strlen("copy/"), mode_names[mode], strlen(mode_names[mode]));
}

static int run_copy_case(struct bench *bench)
{
	unsigned int runs = bench->options.runs;
	int ret = 0;

	if (!has_room(bench)) {
		bench_report_skip(bench, "copy", "it needs 6 GiB of free space under --dir");
		return 0;
	}
	if (!bench->options.smoke && !bench->options.runs_given)
		bench->options.runs = RUNS;
	/* Copies may use every CPU, here and in other programs. */
	bench_unpin();
	for (unsigned int mode = 0; mode < COPY_MODES && ret == 0; mode++) {
		if (!unwanted(bench, mode))
			ret = run_mode(bench, mode);
	}
	bench_pin(0);
	bench->options.runs = runs;
	return ret;
}

const struct bench_case bench_case_copy = {
	"copy", "1 GiB file to one and to four, against cp, dd, qemu-img and nbdcopy", run_copy_case
};
