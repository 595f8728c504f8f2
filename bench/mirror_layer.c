/* SPDX-License-Identifier: MIT */
/*
 * What the target itself costs: mirrors of two zero devices, and of two in memory, beside requests
 * that go to the same devices without it, a write as two of them. See mirror.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mirror.h"
#include "rig.h"

#define FULL_COUNT 8192u
#define SMOKE_COUNT 2048u
/* As much as the active regions cover. */
#define SECTORS (UINT64_C(1) << 17)
#define BATCHES 2u
#define ROWS (4 * BATCHES)

static const unsigned int batches[BATCHES] = { 1, 32 };

/* A write to both legs by hand. */
struct slot {
	struct twice *twice;
	struct dmcore_bio *bios[MIRROR_LEGS];
	struct dmio_bvec vec;
	uint64_t position;
	unsigned int left;
};

struct twice {
	struct dmcore_queue *queue;
	struct dmcore_bdev *const *legs;
	struct slot slots[BENCH_BATCH_MAX];
	unsigned int batch;
	struct bench_run *run;
	int error;
};

/* Rows over legs of one kind. */
struct layer {
	struct rig *rig;
	const char *kind;
	struct dmcore_bdev *legs[MIRROR_LEGS];
	struct load writes[BATCHES];
	struct twice twices[BATCHES];
	struct load reads[BATCHES];
	struct load alones[BATCHES]; /* reads of the first leg */
};

/* ---- the floor of writes ---- */

static void write_done(struct dmcore_bio *bio)
{
	struct slot *slot = bio->context;
	struct twice *twice = slot->twice;

	if (bio->status && !twice->error)
		twice->error = bio->status;
	if (--slot->left > 0)
		return;
	twice->run->hash += bench_mix(slot->position * BENCH_BLOCK_SECTORS);
	twice->run->completed++;
}

static int submit_slot(struct twice *twice, struct slot *slot, uint64_t position)
{
	int ret = 0;

	slot->position = position;
	slot->left = MIRROR_LEGS;
	for (unsigned int leg = 0; leg < MIRROR_LEGS && ret == 0; leg++) {
		struct dmcore_bio *bio = slot->bios[leg];

		bio->bdev = twice->legs[leg];
		bio->sector = position * BENCH_BLOCK_SECTORS;
		bio->count = BENCH_BLOCK_SECTORS;
		bio->vecs = &slot->vec;
		bio->num_vecs = 1;
		bio->vec_offset_bytes = 0;
		ret = dmcore_bio_submit(bio);
	}
	return ret;
}

static int run_twice(void *context, struct bench_run *run)
{
	struct twice *twice = context;
	struct bench_random random = bench_random_start(run->seed);
	uint64_t sent = 0;
	int ret = 0;

	twice->run = run;
	twice->error = 0;
	while (sent < run->count) {
		for (unsigned int i = 0; i < twice->batch && ret == 0; i++)
			ret = submit_slot(twice, &twice->slots[i],
					  bench_random_position(&random,
								SECTORS / BENCH_BLOCK_SECTORS));
		sent += twice->batch;
		while (ret >= 0 && run->completed < sent)
			ret = dmcore_queue_poll(twice->queue, 1, UINT32_MAX, -1);
		if (ret < 0)
			return ret;
		ret = 0;
	}
	return twice->error;
}

static void close_twice(struct twice *twice)
{
	for (unsigned int i = 0; i < BENCH_BATCH_MAX; i++) {
		for (unsigned int leg = 0; leg < MIRROR_LEGS; leg++)
			dmcore_bio_put(twice->slots[i].bios[leg]);
	}
	memset(twice, 0, sizeof(*twice));
}

static int open_twice(struct twice *twice, const struct layer *layer, unsigned int batch)
{
	twice->queue = layer->rig->queue;
	twice->legs = layer->legs;
	twice->batch = batch;
	for (unsigned int i = 0; i < batch; i++) {
		struct slot *slot = &twice->slots[i];

		slot->twice = twice;
		slot->vec.base = layer->rig->buffers + (size_t)i * BENCH_BLOCK_BYTES;
		slot->vec.len_bytes = BENCH_BLOCK_BYTES;
		for (unsigned int leg = 0; leg < MIRROR_LEGS; leg++) {
			struct dmcore_bio *bio = dmcore_bio_get(twice->queue);

			if (!bio)
				return -EBUSY;
			bio->op = DMCORE_OP_WRITE;
			bio->done = write_done;
			bio->context = slot;
			slot->bios[leg] = bio;
		}
	}
	return 0;
}

/* ---- rows ---- */

static int open_load(const struct layer *layer, struct load *load, struct dmcore_bdev *bdev,
		     unsigned int batch, enum dmcore_op op)
{
	*load = rig_load(layer->rig, bdev, batch);
	load->op = op;
	load->positions = SECTORS / BENCH_BLOCK_SECTORS;
	return load_open(load);
}

static void name_pair(const struct layer *layer, struct bench_row *rows, const char *what,
		      unsigned int batch)
{
	snprintf(rows[0].name, sizeof(rows[0].name), "mirror/%s-%s-%u", layer->kind, what, batch);
	snprintf(rows[1].name, sizeof(rows[1].name), "mirror/%s-%s-%u-raw", layer->kind, what,
		 batch);
	rows[0].floor = &rows[1];
	rows[0].same_work = true;
	rows[1].quiet = true;
	for (unsigned int i = 0; i < 2; i++)
		rows[i].count = bench_size(layer->rig->bench, FULL_COUNT, SMOKE_COUNT);
}

static int open_batch(struct layer *layer, struct dmcore_bdev *mirror, unsigned int i,
		      struct bench_row rows[4])
{
	unsigned int batch = batches[i];
	int ret = open_load(layer, &layer->writes[i], mirror, batch, DMCORE_OP_WRITE);

	if (ret == 0)
		ret = open_twice(&layer->twices[i], layer, batch);
	if (ret == 0)
		ret = open_load(layer, &layer->reads[i], mirror, batch, DMCORE_OP_READ);
	if (ret == 0)
		ret = open_load(layer, &layer->alones[i], layer->legs[0], batch, DMCORE_OP_READ);
	if (ret)
		return bench_fail(layer->rig->bench, ret, "mirror: no bios");
	name_pair(layer, &rows[0], "write", batch);
	name_pair(layer, &rows[2], "read", batch);
	rows[0].fn = load_run;
	rows[0].context = &layer->writes[i];
	rows[1].fn = run_twice;
	rows[1].context = &layer->twices[i];
	rows[2].fn = load_run;
	rows[2].context = &layer->reads[i];
	rows[3].fn = load_run;
	rows[3].context = &layer->alones[i];
	return 0;
}

static int measure_layer(struct layer *layer, const char *const leg_names[MIRROR_LEGS])
{
	struct bench_row rows[ROWS];
	struct dmcore_bdev *mirror;
	char table[160];
	char name[16];
	int ret = 0;

	memset(rows, 0, sizeof(rows));
	snprintf(table, sizeof(table), "0 %llu mirror core 2 %u nosync 2 %s 0 %s 0",
		 (unsigned long long)SECTORS, MIRROR_REGION_SECTORS, leg_names[0], leg_names[1]);
	snprintf(name, sizeof(name), "on-%s", layer->kind);
	mirror = rig_map(layer->rig, name, table);
	if (!mirror)
		return -EIO;
	for (unsigned int i = 0; i < BATCHES && ret == 0; i++)
		ret = open_batch(layer, mirror, i, &rows[4 * (size_t)i]);
	if (ret == 0)
		ret = bench_measure(layer->rig->bench, rows, ROWS);
	for (unsigned int i = 0; i < BATCHES; i++) {
		load_close(&layer->writes[i]);
		close_twice(&layer->twices[i]);
		load_close(&layer->reads[i]);
		load_close(&layer->alones[i]);
	}
	return ret;
}

static int measure_zero(struct rig *rig)
{
	static const char *const names[MIRROR_LEGS] = { "zero", "zero2" };
	struct layer layer = { .rig = rig, .kind = "zero" };
	char table[64];

	snprintf(table, sizeof(table), "0 %llu zero", (unsigned long long)RIG_ZERO_SECTORS);
	layer.legs[0] = rig->zero;
	layer.legs[1] = rig_map(rig, names[1], table);
	return layer.legs[1] ? measure_layer(&layer, names) : -EIO;
}

static int measure_mem(struct rig *rig)
{
	static const char *const names[MIRROR_LEGS] = { "mem:131072s,name=bench-a",
							"mem:131072s,name=bench-b" };
	struct layer layer = { .rig = rig, .kind = "mem" };
	struct dmcore_device *device;
	int ret = 0;

	for (unsigned int leg = 0; leg < MIRROR_LEGS && ret == 0; leg++)
		ret = dmcore_bdev_open(rig->core, names[leg], 0, &layer.legs[leg]);
	if (ret)
		bench_fail(rig->bench, ret, "%s", dmcore_error_message());
	else
		ret = measure_layer(&layer, names);
	device = dmcore_device_find(rig->core, "on-mem");
	if (device && dmcore_device_remove(device) && ret == 0)
		ret = -EBUSY;
	for (unsigned int leg = 0; leg < MIRROR_LEGS; leg++) {
		if (dmcore_bdev_close(layer.legs[leg]) && ret == 0)
			ret = -EBUSY;
	}
	return ret;
}

int mirror_measure_layer(struct bench *bench)
{
	struct rig rig;
	int ret = rig_open_null(&rig, bench, BENCH_BLOCK_SECTORS);

	if (ret == 0)
		ret = measure_zero(&rig);
	if (ret == 0)
		ret = measure_mem(&rig);
	rig_close(&rig);
	return ret;
}
