/* SPDX-License-Identifier: MIT */
/* Cores, queues and devices for the cases. See rig.h. */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Requests of a run: less than a scheduler's time slice, for some runs to be undisturbed. */
#define FULL_COUNT 32768u
#define SMOKE_COUNT 8192u
/* Bios of a queue, for a batch of each row of the largest case. */
#define BIOS 1024u

int rig_open(struct rig *rig, struct bench *bench, enum dmcore_backend backend,
	     unsigned int flags, uint64_t sectors)
{
	struct dmcore_queue_options options = DMCORE_QUEUE_OPTIONS_INIT;
	int ret;

	memset(rig, 0, sizeof(*rig));
	rig->bench = bench;
	rig->buffers = load_buffers(sectors);
	if (!rig->buffers)
		return bench_fail(bench, -ENOMEM, "buffers");
	ret = dmcore_create(NULL, &rig->core);
	if (ret)
		return bench_fail(bench, ret, "dmcore_create");
	options.backend = backend;
	options.flags = flags;
	options.bios = BIOS;
	ret = dmcore_queue_create(rig->core, &options, &rig->queue);
	if (ret && ret != -EOPNOTSUPP)
		bench_fail(bench, ret, "dmcore_queue_create: %s", dmcore_error_message());
	return ret;
}

void rig_close(struct rig *rig)
{
	int ret = dmcore_queue_destroy(rig->queue);

	if (ret)
		bench_fail(rig->bench, ret, "dmcore_queue_destroy: %s", dmcore_error_message());
	ret = dmcore_destroy(rig->core);
	if (ret)
		bench_fail(rig->bench, ret, "dmcore_destroy: %s", dmcore_error_message());
	free(rig->buffers);
}

int rig_open_null(struct rig *rig, struct bench *bench, uint64_t sectors)
{
	char table[64];
	int ret = rig_open(rig, bench, DMCORE_BACKEND_PREAD, 0, sectors);

	if (ret)
		return ret;
	snprintf(table, sizeof(table), "0 %llu zero", (unsigned long long)RIG_ZERO_SECTORS);
	rig->zero = rig_map(rig, "zero", table);
	return rig->zero ? 0 : -EIO;
}

struct dmcore_bdev *rig_map(struct rig *rig, const char *name, const char *text)
{
	return rig_map_with(rig, name, text, 0);
}

struct dmcore_bdev *rig_map_with(struct rig *rig, const char *name, const char *text,
				 unsigned int flags)
{
	struct dmcore_device *device = NULL;
	struct dmcore_table *table = NULL;
	int ret = dmcore_table_parse(rig->core, text, flags, &table);

	if (ret == 0)
		ret = dmcore_device_create(rig->core, name, NULL, 0, &device);
	if (ret == 0)
		ret = dmcore_device_load(device, table);
	if (ret) {
		bench_fail(rig->bench, ret, "%s: %s", name, dmcore_error_message());
		dmcore_table_destroy(table);
		return NULL;
	}
	ret = dmcore_device_resume(device);
	if (ret) {
		bench_fail(rig->bench, ret, "%s: %s", name, dmcore_error_message());
		return NULL;
	}
	return dmcore_device_bdev(device);
}

struct load rig_load(const struct rig *rig, struct dmcore_bdev *bdev, unsigned int batch)
{
	struct load load = { .queue = rig->queue,
			     .bdev = bdev,
			     .op = DMCORE_OP_WRITE,
			     .hash_by = LOAD_HASH_SECTOR,
			     .batch = batch,
			     .sectors = BENCH_BLOCK_SECTORS,
			     .positions = RIG_TOP_SECTORS / BENCH_BLOCK_SECTORS,
			     .buffers = rig->buffers };

	return load;
}

/* Row i of a list of pairs: a load and its straw man. */
static void fill_pair(const struct rig *rig, struct bench_row *rows, struct load *load,
		      struct straw_load *straw)
{
	straw->batch = load->batch;
	straw->positions = load->positions;
	rows[0].fn = load_run;
	rows[0].context = load;
	rows[0].floor = &rows[1];
	rows[0].same_work = true;
	rows[1].fn = straw_run;
	rows[1].context = straw;
	rows[1].quiet = true;
	snprintf(rows[1].name, sizeof(rows[1].name), "%.32s-straw", rows[0].name);
	for (unsigned int i = 0; i < 2; i++)
		rows[i].count = bench_size(rig->bench, FULL_COUNT, SMOKE_COUNT);
}

int rig_measure_pairs(struct rig *rig, struct bench_row *rows, struct load *loads,
		      struct straw_load *straws, unsigned int num)
{
	unsigned int opened = 0;
	int ret = 0;

	while (opened < num && ret == 0) {
		fill_pair(rig, &rows[2 * (size_t)opened], &loads[opened], &straws[opened]);
		ret = load_open(&loads[opened]);
		if (ret)
			bench_fail(rig->bench, ret, "%s: no bios", rows[2 * (size_t)opened].name);
		else
			opened++;
	}
	if (ret == 0)
		ret = bench_measure(rig->bench, rows, 2 * num);
	while (opened > 0)
		load_close(&loads[--opened]);
	return ret;
}
