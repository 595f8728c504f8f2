/* SPDX-License-Identifier: MIT */
/*
 * 4 KiB writes and reads of a mirror of two files, through the page cache and past it, with the log
 * in memory and on disk, beside loops that one would write by hand: a write to each file, done when
 * both are; one read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mirror.h"
#include "rig.h"
#include "uring_floor.h"

/* Of a leg: one half is written, by mirrors and by floors, and the other is read. */
#define FULL_BYTES (UINT64_C(128) << 20)
#define SMOKE_BYTES (UINT64_C(4) << 20)
#define PARTS 2u
#define CACHE_COUNT 2048u
/* A disk takes its time. */
#define DIRECT_COUNT 128u
#define SMOKE_COUNT 64u
#define BATCHES 2u
#define KINDS 3u
#define ENGINES 3u
#define ROWS_MAX (KINDS * BATCHES * 2)

#define URING_BAR_RATIO 1.10

static const unsigned int batches[BATCHES] = { 1, 32 };

/* ---- the floor of pread rows ---- */


static int pread_floor_run(void *context, struct bench_run *run)
{
	const struct uring_floor_work *work = context;
	struct bench_random random = bench_random_start(run->seed);

	while (run->completed < run->count) {
		char *buffer = work->buffers + run->completed % work->batch * BENCH_BLOCK_BYTES;
		uint64_t position = bench_random_position(&random, work->positions);
		off_t at = (off_t)((work->first_block + position) * BENCH_BLOCK_BYTES);
		uint64_t word = position * BENCH_BLOCK_SECTORS;

		for (unsigned int i = 0; i < work->num_fds; i++) {
			ssize_t done = work->writes ?
					       pwrite(work->fds[i], buffer, BENCH_BLOCK_BYTES, at) :
					       pread(work->fds[i], buffer, BENCH_BLOCK_BYTES, at);

			if (done != (ssize_t)BENCH_BLOCK_BYTES)
				return errno ? -errno : -EIO;
		}
		if (!work->writes)
			memcpy(&word, buffer, sizeof(word));
		run->hash += bench_mix(word);
		run->completed++;
	}
	return 0;
}

/* ---- rows ---- */

enum kind {
	WRITE_CORE,
	WRITE_DISK,
	READ,
};

static const char *const kind_names[KINDS] = { "write", "write-disk", "read" };

/* A queue, and what goes through it. */
struct engine {
	const char *name;
	enum dmcore_backend backend;
	unsigned int queue_flags;
	bool open;
	struct rig rig;
	struct load loads[KINDS][BATCHES];
	struct uring_floor_work works[KINDS][BATCHES];
	struct uring_floor *uring_floors[KINDS][BATCHES];
};

/* All rows of one mode and engine. */
struct mode {
	struct bench *bench;
	const struct mirror_files *files;
	/* All alike: of two writes to one place at once each leg may keep another one. */
	char *write_buffers;
	bool direct;
	struct bench_row rows[ROWS_MAX];
	unsigned int num_rows;
};

static uint64_t blocks_of(const struct mode *mode)
{
	return mode->files->bytes / PARTS / BENCH_BLOCK_BYTES;
}

static struct dmcore_bdev *map_mirror(const struct mode *mode, struct engine *engine,
				      enum kind kind)
{
	const struct mirror_files *files = mode->files;
	unsigned long long sectors = blocks_of(mode) * BENCH_BLOCK_SECTORS;
	unsigned long long offset = kind == READ ? sectors : 0;
	char log[80];
	char table[256];

	if (kind == WRITE_DISK)
		snprintf(log, sizeof(log), "disk 3 /proc/self/fd/%d", files->log_fd);
	else
		snprintf(log, sizeof(log), "core 2");
	snprintf(table, sizeof(table),
		 "0 %llu mirror %s %u nosync 2 /proc/self/fd/%d %llu /proc/self/fd/%d %llu",
		 sectors, log, MIRROR_REGION_SECTORS, files->fds[0], offset, files->fds[1], offset);
	return rig_map_with(&engine->rig, kind_names[kind], table,
			    mode->direct ? DMCORE_TABLE_DIRECT : 0);
}

static int open_load(const struct mode *mode, struct engine *engine, enum kind kind,
		     unsigned int i, struct dmcore_bdev *bdev)
{
	struct load *load = &engine->loads[kind][i];

	*load = rig_load(&engine->rig, bdev, batches[i]);
	load->op = kind == READ ? DMCORE_OP_READ : DMCORE_OP_WRITE;
	load->hash_by = kind == READ ? LOAD_HASH_DATA : LOAD_HASH_SECTOR;
	load->positions = blocks_of(mode);
	if (kind != READ)
		load->buffers = mode->write_buffers;
	return load_open(load);
}

static int open_floor(const struct mode *mode, struct engine *engine, enum kind kind,
		      unsigned int i)
{
	const int *fds = mode->direct ? mode->files->direct_fds : mode->files->fds;
	struct uring_floor_work *work = &engine->works[kind][i];

	work->fds[0] = fds[0];
	work->fds[1] = fds[1];
	work->num_fds = kind == READ ? 1 : MIRROR_LEGS;
	work->writes = kind != READ;
	work->sleeps = work->writes || mode->direct;
	work->positions = blocks_of(mode);
	work->first_block = kind == READ ? work->positions : 0;
	work->buffers = kind == READ ? engine->rig.buffers : mode->write_buffers;
	work->batch = batches[i];
	if (engine->backend == DMCORE_BACKEND_PREAD || engine->queue_flags)
		return 0;
	return uring_floor_open(work, &engine->uring_floors[kind][i]);
}

/* A row and, behind it, its floor. */
static int add_rows(struct mode *mode, struct engine *engine, enum kind kind, unsigned int i)
{
	struct bench_row *rows = &mode->rows[mode->num_rows];
	int ret = open_floor(mode, engine, kind, i);

	if (ret)
		return bench_fail(mode->bench, ret, "the hand-written loop");
	snprintf(rows[0].name, BENCH_NAME_BYTES, "mirror/%s%s-%s-%u", mode->direct ? "direct-" : "",
		 engine->name, kind_names[kind], batches[i]);
	snprintf(rows[1].name, BENCH_NAME_BYTES, "%.35s-raw", rows[0].name);
	rows[0].fn = load_run;
	rows[0].context = &engine->loads[kind][i];
	rows[0].floor = &rows[1];
	rows[0].same_work = true;
	rows[1].quiet = true;
	rows[1].fn = pread_floor_run;
	rows[1].context = &engine->works[kind][i];
	if (engine->uring_floors[kind][i]) {
		rows[0].max_ratio = batches[i] == 32 ? URING_BAR_RATIO : 0;
		rows[1].fn = uring_floor_run;
		rows[1].context = engine->uring_floors[kind][i];
	}
	for (unsigned int k = 0; k < 2; k++)
		rows[k].count = bench_size(mode->bench, mode->direct ? DIRECT_COUNT : CACHE_COUNT,
					   SMOKE_COUNT);
	mode->num_rows += 2;
	return 0;
}

static int open_engine(struct mode *mode, struct engine *engine)
{
	int ret = rig_open(&engine->rig, mode->bench, engine->backend, engine->queue_flags,
			   BENCH_BLOCK_SECTORS);

	engine->open = true;
	if (ret == -EOPNOTSUPP) {
		char name[BENCH_NAME_BYTES];

		snprintf(name, sizeof(name), "mirror/%s", engine->name);
		bench_report_skip(mode->bench, name, dmcore_error_message());
		return 0;
	}
	for (unsigned int kind = 0; kind < KINDS && ret == 0; kind++) {
		struct dmcore_bdev *bdev = map_mirror(mode, engine, (enum kind)kind);

		ret = bdev ? 0 : -EIO;
		for (unsigned int i = 0; i < BATCHES && ret == 0; i++) {
			ret = open_load(mode, engine, (enum kind)kind, i, bdev);
			if (ret == 0)
				ret = add_rows(mode, engine, (enum kind)kind, i);
		}
	}
	return ret;
}

static void close_engine(struct engine *engine)
{
	for (unsigned int kind = 0; kind < KINDS; kind++) {
		for (unsigned int i = 0; i < BATCHES; i++) {
			load_close(&engine->loads[kind][i]);
			uring_floor_close(engine->uring_floors[kind][i]);
		}
	}
	if (engine->open)
		rig_close(&engine->rig);
}

static int measure_mode(struct bench *bench, const struct mirror_files *files, bool direct)
{
	struct engine engines[ENGINES] = {
		{ .name = "io_uring", .backend = DMCORE_BACKEND_IO_URING },
		{ .name = "inline",
		  .backend = DMCORE_BACKEND_IO_URING,
		  .queue_flags = DMCORE_QUEUE_INLINE_WRITES },
		{ .name = "pread", .backend = DMCORE_BACKEND_PREAD },
	};
	struct mode mode = { .bench = bench, .files = files, .direct = direct };
	/* Past the cache the other two are no ways to work. */
	unsigned int num_engines = direct ? 1 : ENGINES;
	int ret = 0;

	mode.write_buffers = load_buffers(BENCH_BLOCK_SECTORS);
	if (!mode.write_buffers)
		return bench_fail(bench, -ENOMEM, "buffers");
	/* One by one: turns are to be shorter than it takes until regions are idle. */
	for (unsigned int i = 0; i < num_engines && ret == 0; i++) {
		memset(mode.rows, 0, sizeof(mode.rows));
		mode.num_rows = 0;
		ret = open_engine(&mode, &engines[i]);
		if (ret == 0 && mode.num_rows > 0)
			ret = bench_measure(bench, mode.rows, mode.num_rows);
		close_engine(&engines[i]);
	}
	free(mode.write_buffers);
	return ret;
}

static int run_mirror(struct bench *bench)
{
	struct mirror_files files;
	int ret = mirror_measure_layer(bench);

	if (ret)
		return ret;
	ret = mirror_files_open(&files, bench, bench_size(bench, FULL_BYTES, SMOKE_BYTES));
	if (ret == 0)
		ret = measure_mode(bench, &files, false);
	if (ret == 0 && files.direct_fds[0] >= 0 && files.direct_fds[1] >= 0)
		ret = measure_mode(bench, &files, true);
	else if (ret == 0)
		bench_report_skip(bench, "mirror/direct", "no O_DIRECT here");
	if (ret == 0 && mirror_files_compare(&files))
		ret = bench_fail(bench, -EILSEQ, "the legs differ");
	mirror_files_close(&files);
	return ret;
}

const struct bench_case bench_case_mirror = {
	"mirror", "4 KiB writes and reads of mirrors of two, against loops written by hand",
	run_mirror
};
