/* SPDX-License-Identifier: MIT */
/*
 * 4 KiB requests to a snapshot of a file in the page cache, beside qemu-img bench on a qcow2
 * overlay of the same file whose clusters are as large as the chunks. Both go to the same places in
 * the same order, one step apart, round the device.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "copy.h"
#include "snapshot.h"

#define FULL_COUNT 16384u
#define FULL_FLUSH_COUNT 128u
#define SMOKE_COUNT 64u
#define SMOKE_FLUSH_COUNT 4u
/* A run takes a tenth of a second, not a millisecond. */
#define RUNS 7u
#define PEERS 2u
#define ENGINES 3u
/* No slower than qemu-img. */
#define PEER_BAR_RATIO 1.0

static const char *const kind_names[SNAP_KINDS] = { "fresh", "rewrite", "mapped", "unmapped" };
static const char *const peer_aio[PEERS] = { "threads", "io_uring" };
/* The first that works is judged: it is the one for files in page caches. */
static const struct {
	const char *name;
	enum dmcore_backend backend;
	unsigned int flags;
} engines[ENGINES] = {
	{ "inline", DMCORE_BACKEND_IO_URING, DMCORE_QUEUE_INLINE_WRITES },
	{ "io_uring", DMCORE_BACKEND_IO_URING, 0 },
	{ "pread", DMCORE_BACKEND_PREAD, 0 },
};
static const uint32_t chunk_sizes[SNAP_CHUNK_SIZES] = { 8, 128 };
static const unsigned int depths[2] = { 1, 32 };

struct suite {
	struct bench *bench;
	struct snap_files files;
	struct rig rigs[ENGINES];
	bool usable[ENGINES];
	bool peer_usable[PEERS];
	/* Of one measurement: peers first. */
	struct bench_row rows[PEERS + ENGINES];
	struct snap_row contexts[PEERS + ENGINES];
	unsigned int num_rows;
	unsigned int num_peers;
};

/* What all rows of a measurement do. */
static struct snap_row shape_of(const struct suite *suite, enum snap_kind kind,
				uint32_t chunk_sectors, unsigned int depth, bool flushes)
{
	uint64_t blocks = suite->files.bytes / BENCH_BLOCK_BYTES;
	uint64_t unit = kind == SNAP_FRESH ? chunk_sectors / BENCH_BLOCK_SECTORS : 1;
	struct snap_row row = { .files = &suite->files,
				.kind = kind,
				.chunk_sectors = chunk_sectors,
				.depth = depth,
				.flushes = flushes };

	/* Far apart, and odd: each place comes once before any comes again. */
	row.step_blocks = (blocks / unit * 618 / 1000 | 1) * unit;
	return row;
}

static uint64_t count_of(const struct suite *suite, const struct snap_row *shape)
{
	uint64_t chunks = suite->files.bytes / DMCORE_SECTOR_BYTES / shape->chunk_sectors;
	uint64_t count = bench_size(suite->bench, FULL_COUNT, SMOKE_COUNT);

	if (shape->flushes)
		count = bench_size(suite->bench, FULL_FLUSH_COUNT, SMOKE_FLUSH_COUNT);
	return shape->kind == SNAP_FRESH && count > chunks ? chunks : count;
}

static struct bench_row *add_row(struct suite *suite, const struct snap_row *shape,
				 const char *what)
{
	struct snap_row *context = &suite->contexts[suite->num_rows];
	struct bench_row *row = &suite->rows[suite->num_rows++];

	*context = *shape;
	memset(row, 0, sizeof(*row));
	snprintf(row->name, sizeof(row->name), "snapshot/%u-%s%s-%u-%s", shape->chunk_sectors,
		 kind_names[shape->kind], shape->flushes ? "-sync" : "", shape->depth, what);
	row->context = context;
	row->count = count_of(suite, shape);
	row->unit = "us";
	row->unit_ns = 1000;
	return row;
}

static void add_peers(struct suite *suite, const struct snap_row *shape)
{
	/* Starting programs takes long. */
	if (suite->bench->options.smoke &&
	    (shape->kind != SNAP_FRESH || shape->chunk_sectors != 128 || shape->depth != 1))
		return;
	for (unsigned int i = 0; i < PEERS; i++) {
		struct snap_row row = *shape;
		char what[24];

		if (!suite->peer_usable[i])
			continue;
		row.aio = peer_aio[i];
		snprintf(what, sizeof(what), "qemu-%s", peer_aio[i]);
		add_row(suite, &row, what)->fn = snap_peer_run;
		suite->num_peers++;
	}
}

static void add_engines(struct suite *suite, const struct snap_row *shape)
{
	bool judged = true;

	for (unsigned int i = 0; i < ENGINES; i++) {
		struct snap_row context = *shape;
		struct bench_row *row;

		if (!suite->usable[i])
			continue;
		context.rig = &suite->rigs[i];
		row = add_row(suite, &context, engines[i].name);
		row->fn = snap_run;
		row->rivals = suite->rows;
		row->num_rivals = suite->num_peers;
		row->max_ratio = judged && suite->num_peers > 0 ? PEER_BAR_RATIO : 0;
		judged = false;
	}
}

static int report_commits(struct suite *suite, const struct snap_row *shape)
{
	struct snap_row row = *shape;
	char name[BENCH_NAME_BYTES];
	int ret;

	if (suite->bench->options.work_row)
		return 0;
	row.rig = &suite->rigs[suite->usable[0] ? 0 : ENGINES - 1];
	ret = snap_count_commits(&row, count_of(suite, shape));
	if (ret)
		return bench_fail(suite->bench, ret, "counting commits");
	snprintf(name, sizeof(name), "snapshot/%u-%s%s-%u-commits", shape->chunk_sectors,
		 kind_names[shape->kind], shape->flushes ? "-sync" : "", shape->depth);
	bench_report_value(suite->bench, name, "commits", (double)row.num_commits,
			   (double)row.num_commits, 0);
	return 0;
}

static int measure(struct suite *suite, const struct snap_row *shape)
{
	int ret;

	suite->num_rows = 0;
	suite->num_peers = 0;
	add_peers(suite, shape);
	add_engines(suite, shape);
	ret = bench_measure(suite->bench, suite->rows, suite->num_rows);
	if (ret == 0 && shape->kind == SNAP_FRESH)
		ret = report_commits(suite, shape);
	return ret;
}

static int measure_chunk(struct suite *suite, uint32_t chunk_sectors)
{
	struct snap_row shape;
	int ret = 0;

	for (unsigned int kind = 0; kind < SNAP_KINDS; kind++) {
		for (unsigned int i = 0; i < 2 && ret == 0; i++) {
			shape = shape_of(suite, (enum snap_kind)kind, chunk_sectors, depths[i],
					 false);
			ret = measure(suite, &shape);
		}
	}
	if (ret == 0) {
		shape = shape_of(suite, SNAP_FRESH, chunk_sectors, 1, true);
		ret = measure(suite, &shape);
	}
	return ret;
}

static void look_for_peers(struct suite *suite)
{
	if (!copy_peer_found("qemu-img")) {
		bench_report_skip(suite->bench, "snapshot/qemu", "qemu-img isn't on PATH");
		return;
	}
	for (unsigned int i = 0; i < PEERS; i++) {
		char name[BENCH_NAME_BYTES];

		suite->peer_usable[i] = snap_peer_works(&suite->files, peer_aio[i]);
		snprintf(name, sizeof(name), "snapshot/qemu-%s", peer_aio[i]);
		if (!suite->peer_usable[i])
			bench_report_skip(suite->bench, name, "qemu-img bench fails here");
	}
}

static int open_suite(struct suite *suite)
{
	int ret = snap_files_open(&suite->files, suite->bench);

	for (unsigned int i = 0; i < ENGINES && ret == 0; i++) {
		char name[BENCH_NAME_BYTES];

		ret = rig_open(&suite->rigs[i], suite->bench, engines[i].backend,
			       engines[i].flags, BENCH_BLOCK_SECTORS);
		suite->usable[i] = ret == 0;
		if (ret != -EOPNOTSUPP || engines[i].backend != DMCORE_BACKEND_IO_URING)
			continue;
		snprintf(name, sizeof(name), "snapshot/%s", engines[i].name);
		bench_report_skip(suite->bench, name, dmcore_error_message());
		ret = 0;
	}
	if (ret == 0)
		look_for_peers(suite);
	return ret;
}

static int run_snapshot(struct bench *bench)
{
	unsigned int runs = bench->options.runs;
	static struct suite suite;
	int ret;

	memset(&suite, 0, sizeof(suite));
	suite.bench = bench;
	if (!bench->options.smoke && !bench->options.runs_given)
		bench->options.runs = RUNS;
	/* The service and other programs have CPUs of their own. */
	bench_unpin();
	ret = open_suite(&suite);
	for (unsigned int i = 0; i < SNAP_CHUNK_SIZES && ret == 0; i++)
		ret = measure_chunk(&suite, chunk_sizes[i]);
	if (ret == 0 && !bench->options.work_row)
		ret = snap_measure_load(&suite.files);
	for (unsigned int i = ENGINES; i-- > 0;)
		rig_close(&suite.rigs[i]);
	snap_files_close(&suite.files);
	bench_pin(0);
	bench->options.runs = runs;
	return ret;
}

const struct bench_case bench_case_snapshot = {
	"snapshot", "4 KiB requests to snapshots of a 256 MiB file, against qcow2 overlays",
	run_snapshot
};
