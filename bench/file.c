/* SPDX-License-Identifier: MIT */
/*
 * Cached 4 KiB reads of a file through one linear, by either backend, each beside a loop that one
 * would write by hand for the same reads into the same memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rig.h"
#include "uring_floor.h"

#define FULL_BYTES (UINT64_C(256) << 20)
#define SMOKE_BYTES (UINT64_C(8) << 20)
#define FULL_COUNT 1024u
#define SMOKE_COUNT 1024u
#define CHUNK_BYTES (1u << 20)

#define URING_1_BAR_RATIO 1.08
#define URING_32_BAR_RATIO 1.03

struct source {
	struct bench *bench;
	int fd;
	uint64_t positions; /* blocks in the file */
	char *buffers;      /* where everybody reads to */
};

/* Each block begins with a word that tells it from the others. */
static int fill(int fd, uint64_t bytes)
{
	char *chunk = malloc(CHUNK_BYTES);
	int ret = 0;

	if (!chunk)
		return -ENOMEM;
	memset(chunk, 0x5a, CHUNK_BYTES);
	for (uint64_t at = 0; at < bytes && ret == 0; at += CHUNK_BYTES) {
		for (uint64_t i = 0; i < CHUNK_BYTES; i += BENCH_BLOCK_BYTES) {
			uint64_t word = bench_mix(at + i + 1);

			memcpy(chunk + i, &word, sizeof(word));
		}
		if (pwrite(fd, chunk, CHUNK_BYTES, (off_t)at) != CHUNK_BYTES)
			ret = errno ? -errno : -ENOSPC;
	}
	free(chunk);
	/* Write-back would go on beside the runs. */
	if (ret == 0 && fdatasync(fd) < 0)
		ret = -errno;
	return ret;
}

/* A file without a name: the library finds it by its descriptor, and nothing stays behind. */
static int open_source(struct source *source, struct bench *bench)
{
	uint64_t bytes = bench_size(bench, FULL_BYTES, SMOKE_BYTES);
	char path[4096];
	int ret;

	source->bench = bench;
	source->positions = bytes / BENCH_BLOCK_BYTES;
	source->buffers = load_buffers(BENCH_BLOCK_SECTORS);
	if (!source->buffers)
		return bench_fail(bench, -ENOMEM, "buffers");
	snprintf(path, sizeof(path), "%s/dmcore-bench.XXXXXX", bench->options.dir);
	source->fd = mkostemp(path, O_CLOEXEC);
	if (source->fd < 0)
		return bench_fail(bench, -errno, "%s", path);
	unlink(path);
	ret = fill(source->fd, bytes);
	return ret ? bench_fail(bench, ret, "writing %s", path) : 0;
}

static void close_source(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	free(source->buffers);
}

/* The floor of the pread rows. */
struct pread_floor {
	const struct source *source;
	unsigned int batch;
};

static int pread_floor_run(void *context, struct bench_run *run)
{
	const struct pread_floor *floor = context;
	const struct source *source = floor->source;
	struct bench_random random = bench_random_start(run->seed);

	while (run->completed < run->count) {
		/* As much memory in turn as a batch has: it fills the caches alike. */
		uint64_t index = run->completed % floor->batch;
		char *buffer = source->buffers + index * BENCH_BLOCK_BYTES;
		uint64_t position = bench_random_position(&random, source->positions);
		uint64_t word;

		if (pread(source->fd, buffer, BENCH_BLOCK_BYTES,
			  (off_t)(position * BENCH_BLOCK_BYTES)) != (ssize_t)BENCH_BLOCK_BYTES)
			return errno ? -errno : -EIO;
		memcpy(&word, buffer, sizeof(word));
		run->hash += bench_mix(word);
		run->completed++;
	}
	return 0;
}

/* One backend: the library at batch 1 and 32, and its floors. */
struct side {
	const char *name;
	bool uring;
	struct rig rig;
	struct load loads[2];
	struct uring_floor *uring_floors[2];
	struct pread_floor pread_floors[2];
	unsigned int opened;
};

static const unsigned int batches[2] = { 1, 32 };

static void close_side(struct side *side)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (i < side->opened)
			load_close(&side->loads[i]);
		uring_floor_close(side->uring_floors[i]);
	}
	rig_close(&side->rig);
}

static int open_loads(struct side *side, const struct source *source)
{
	struct dmcore_bdev *bdev;
	char table[96];
	int ret = 0;

	snprintf(table, sizeof(table), "0 %llu linear /proc/self/fd/%d 0",
		 (unsigned long long)source->positions * BENCH_BLOCK_SECTORS, source->fd);
	bdev = rig_map(&side->rig, "mapped", table);
	if (!bdev)
		return -EIO;
	for (unsigned int i = 0; i < 2 && ret == 0; i++) {
		struct load *load = &side->loads[i];

		*load = rig_load(&side->rig, bdev, batches[i]);
		load->op = DMCORE_OP_READ;
		load->hash_by = LOAD_HASH_DATA;
		load->positions = source->positions;
		load->buffers = source->buffers;
		ret = load_open(load);
		side->opened += ret == 0;
	}
	return ret;
}

/* Row i of a side and, behind it, its floor. */
static int fill_rows(struct side *side, struct source *source, unsigned int i,
		     struct bench_row *rows)
{
	struct uring_floor_work work = { .fds = { source->fd },
					 .num_fds = 1,
					 .positions = source->positions,
					 .buffers = source->buffers,
					 .batch = batches[i] };
	int ret = 0;

	side->pread_floors[i] = (struct pread_floor){ source, batches[i] };
	if (side->uring)
		ret = uring_floor_open(&work, &side->uring_floors[i]);
	if (ret)
		return bench_fail(source->bench, ret, "the hand-written io_uring loop");
	snprintf(rows[0].name, BENCH_NAME_BYTES, "file/%s-%u", side->name, batches[i]);
	snprintf(rows[1].name, BENCH_NAME_BYTES, "file/%s-%u-raw", side->name, batches[i]);
	rows[0].fn = load_run;
	rows[0].context = &side->loads[i];
	rows[0].floor = &rows[1];
	rows[0].same_work = true;
	if (side->uring)
		rows[0].max_ratio = batches[i] == 32 ? URING_32_BAR_RATIO : URING_1_BAR_RATIO;
	rows[1].fn = side->uring ? uring_floor_run : pread_floor_run;
	rows[1].context = &side->pread_floors[i];
	if (side->uring)
		rows[1].context = side->uring_floors[i];
	for (unsigned int k = 0; k < 2; k++)
		rows[k].count = bench_size(source->bench, FULL_COUNT, SMOKE_COUNT);
	return 0;
}

/* Adds the rows of a side, if its backend works here. */
static int open_side(struct side *side, struct source *source, struct bench_row *rows,
		     unsigned int *num_rows)
{
	int ret = rig_open(&side->rig, source->bench,
			   side->uring ? DMCORE_BACKEND_IO_URING : DMCORE_BACKEND_PREAD, 0,
			   BENCH_BLOCK_SECTORS);

	if (ret == -EOPNOTSUPP) {
		bench_report_skip(source->bench, "file/io_uring", dmcore_error_message());
		return 0;
	}
	if (ret == 0)
		ret = open_loads(side, source);
	for (unsigned int i = 0; i < 2 && ret == 0; i++) {
		ret = fill_rows(side, source, i, rows + *num_rows);
		*num_rows += ret ? 0 : 2;
	}
	return ret;
}

static int run_file(struct bench *bench)
{
	struct side sides[2] = { { .name = "io_uring", .uring = true }, { .name = "pread" } };
	struct source source = { .fd = -1 };
	struct bench_row rows[8];
	unsigned int num_rows = 0;
	int ret = open_source(&source, bench);

	memset(rows, 0, sizeof(rows));
	for (unsigned int i = 0; i < 2 && ret == 0; i++)
		ret = open_side(&sides[i], &source, rows, &num_rows);
	if (ret == 0)
		ret = bench_measure(bench, rows, num_rows);
	close_side(&sides[1]);
	close_side(&sides[0]);
	close_source(&source);
	return ret;
}

const struct bench_case bench_case_file = {
	"file", "cached 4 KiB reads of a 256 MiB file through a linear, against hand-written loops",
	run_file
};
